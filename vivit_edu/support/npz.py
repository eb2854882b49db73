"""`.npz` files, judged by their headers before any array is unpacked.

An `.npz` file is a zip archive that holds one `.npy` file for each array, and each of those begins with a header:
dtype and shape. So a file that would fill the memory, or run code when it is unpickled, is refused before it can.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import DataError
from .files import check_regular, mistaken_for, shown

MAX_HEADER = 2**14  # bytes of an array's header; numpy reads none over 10 000
MAX_UNPACKED = 2 * 2**30  # bytes; the largest of the files we know unpacks to half of that


def npz_headers(path: Path | str, keys: Iterable[str] | None = None) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Read the headers of an npz file without unpacking an array.

    keys: the arrays to look at; None means all of them. Returns `{key: (dtype, shape)}`. Raises DataError where the
    file cannot be read or is not a whole npz file, where a key is missing, where an array holds Python objects, or
    where the arrays would take more than MAX_UNPACKED bytes.
    """
    try:
        check_regular(path)
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}.") from error
    except DataError:
        raise
    except Exception:  # whatever a damaged file makes its readers raise
        kind = mistaken_for(path, binary=True)
        fault = f": it is {kind}" if kind else ", or not the whole of one (cut short?)"
        raise DataError(f"{shown(path)} is not an npz file{fault}.") from None
    with archive:
        there = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}
        if not there:
            raise DataError(f"{shown(path)} is a zip archive that holds no array of NumPy's: not an npz file.")
        keys = sorted(there) if keys is None else list(keys)
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


def _npy_header(path: Path | str, archive: zipfile.ZipFile, key: str) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape of one array, compared with the room that the archive's directory gives it."""
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


def npz_arrays(path: Path | str, keys: Iterable[str]) -> dict[str, np.ndarray]:
    """Read the arrays `keys` of an npz file that `npz_headers` has accepted.

    Returns `{key: array}`. Raises DataError where an array is damaged.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:  # np.load would take an entry "key" before "key.npy", unlooked at
            for key in keys:
                with archive.open(f"{key}.npy") as file:
                    arrays[key] = np.lib.format.read_array(file, allow_pickle=False)
    except Exception as error:
        raise DataError(f"{shown(path)} is damaged: {error}.") from None
    return arrays
