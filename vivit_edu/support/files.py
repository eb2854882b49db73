"""Files we do not trust until we have looked, and files written whole or not at all.

An `.npz` file is a zip archive that holds one `.npy` file an array, and each of those begins with
a header: dtype and shape. So a file can be judged by its headers before any array is unpacked:
one that would fill the memory, or run code when it is unpickled, is refused before it can.
"""

import errno
import hashlib
import http.client
import io
import math
import os
import queue
import threading
import urllib.request
import uuid
import zipfile
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ..errors import DataError

CHUNK = 2**20  # bytes read at a time
CONNECT_SECONDS = 10  # how long a server may take to answer, and a connection may stay silent
MAX_HEADER = 2**14  # bytes of an array's header; numpy reads none over 10 000
MAX_UNPACKED = 2 * 2**30  # bytes; the largest of the files we know unpacks to half of that


class UnreachableError(DataError):
    """A file that is not there and cannot be fetched, as without a network."""


def shown(path) -> str:
    """`path` as messages write it: the home folder is `~`."""
    path = Path(path)
    with suppress(ValueError, RuntimeError):  # not below home; no home at all
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)


# ---- writing ------------------------------------------------------------------------------------


@contextmanager
def written_whole(path):
    """Open `path` for writing, in such a way that it appears complete or not at all.

    The bytes go to a temporary file in the same folder, which takes its name in one step when
    the block has ended well. Whatever else happens, the temporary file is removed.

    Raises `DataError` where the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
        fault = "the disk is full" if full else f"the folder cannot be written to ({error.strerror or error})"
        first = "Free some space" if full else "Make the folder writable"
        raise DataError(
            f"{shown(path)} could not be written: {fault}.\n"
            f"{first}, or name another folder: root=..., --root, or the variable VIVIT_EDU_DATA."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def download(url, path, md5):
    """Fetch `url` to `path` under a progress bar; the file is put in place only if its MD5 is `md5`.

    Raises `UnreachableError` where it cannot be fetched, `DataError` where it cannot be written.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with written_whole(path) as file:
        for chunk in _chunks(url, Path(path).name):
            digest.update(chunk)
            file.write(chunk)
        if digest.hexdigest() != md5:
            raise UnreachableError(
                f"{url} sent something else than expected (MD5 {digest.hexdigest()}, not {md5}): "
                "a connection cut short, or a log-in page of the network. Nothing was kept."
            )


def _chunks(url, title):
    """The bytes behind `url`, piece by piece; each fault of the network is an `UnreachableError`."""
    from tqdm.auto import tqdm

    if not url.startswith("https://"):
        raise UnreachableError(f"{url} is no https address: nothing was fetched.")
    try:
        with _connect(url) as response:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, desc=title, unit="B", unit_scale=True, unit_divisor=1024) as bar:
                while chunk := response.read(CHUNK):
                    bar.update(len(chunk))
                    yield chunk
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UnreachableError(f"{url} could not be fetched: {error or type(error).__name__}.") from error


def _connect(url):
    """`urlopen` that gives up after CONNECT_SECONDS in all.

    Its own timeout is one of many: it starts anew for each address of the server and does not count
    the search for the name, so that a machine without network would wait for minutes.
    """
    answer = queue.SimpleQueue()
    request = urllib.request.Request(url, headers={"User-Agent": "vivit-edu"})

    def ask():
        try:
            answer.put(urllib.request.urlopen(request, timeout=CONNECT_SECONDS))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        found = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {CONNECT_SECONDS} seconds") from None
    if isinstance(found, Exception):
        raise found
    return found


# ---- reading ------------------------------------------------------------------------------------


def md5_of(path) -> str:
    """The MD5 of a file, as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def npz_headers(path, keys=None) -> dict:
    """dtype and shape of the arrays `keys` (all) of an npz file, `{key: (dtype, shape)}`, with none unpacked.

    Raises `DataError` where the file cannot be read or is no whole npz file, where a key is missing,
    an array holds Python objects, or the arrays would take more than MAX_UNPACKED bytes.
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
    except Exception:  # whatever a damaged file makes its readers raise
        raise DataError(f"{shown(path)} is not an npz file, or not the whole of one (cut short?).") from None
    with archive:
        there = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}
        keys = sorted(there) if keys is None else keys
        if missing := [key for key in keys if key not in there]:
            raise DataError(
                f"{shown(path)} lacks the arrays {', '.join(missing)}; "
                f"it holds {', '.join(sorted(there)[:12]) or 'none'}."
            )
        headers = {key: _npy_header(path, archive, key) for key in keys}
    # Python's integers do not overflow, as the shape of a crafted file would make numpy's
    unpacked = sum(dtype.itemsize * math.prod(shape) for dtype, shape in headers.values())
    if unpacked > MAX_UNPACKED:
        raise DataError(
            f"{shown(path)} would unpack to {unpacked / 2**30:.1f} GiB; "
            f"nothing over {MAX_UNPACKED / 2**30:.0f} GiB is read."
        )
    return headers


def _npy_header(path, archive, key):
    """(dtype, shape) of one array, held against the room that the archive's directory gives it."""
    entry = archive.getinfo(f"{key}.npy")
    try:
        with archive.open(entry) as unpacked:
            file = io.BytesIO(unpacked.read(MAX_HEADER))  # numpy would unpack whatever length the header claims
        form = np.lib.format
        version = form.read_magic(file)
        read_header = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, _, dtype = read_header(file)
        room = entry.file_size - file.tell()
    except Exception as error:
        raise DataError(f"{shown(path)}: the array {key} is damaged ({error}).") from None
    if dtype.hasobject:
        raise DataError(f"{shown(path)}: {key} holds Python objects, which can run code: never read.")
    if dtype.itemsize * math.prod(shape) != room:
        raise DataError(f"{shown(path)}: the array {key} is damaged: {dtype} {shape} is not {room} bytes.")
    return dtype, shape


def npz_arrays(path, keys) -> dict:
    """The arrays `keys` of an npz file whose `npz_headers` were looked over; `DataError` if damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in keys}
    except Exception as error:
        raise DataError(f"{shown(path)} is damaged: {error}.") from None
