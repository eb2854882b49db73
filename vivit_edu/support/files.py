"""Files written whole or not at all, and how messages name a file and what it turned out to be."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError


def shown(path: Path | str) -> str:
    """Return `path` as messages write it: the home folder is `~`."""
    path = Path(path)
    with suppress(ValueError, RuntimeError):  # not below home; no home at all
        return str(Path("~") / path.relative_to(Path.home()))
    return str(path)


MOST_TEXT = 2**26  # bytes of a file of JSON; a hundred times what we write


_KINDS = {stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


def what_is(path: Path | str) -> str:
    """What is at a path: "a file", "a folder", "a pipe", "a socket", "a device" or "a link that leads nowhere".

    Raises FileNotFoundError where nothing is there, or another OSError.
    """
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "a device")
    except OSError as error:
        if os.path.islink(path) and error.errno in (errno.ENOENT, errno.ELOOP):
            return "a link that leads nowhere"
        raise
    except ValueError as error:  # a name with a byte 0 in it
        raise OSError(errno.EINVAL, str(error), str(path)) from None


def check_regular(path: Path | str, most: int | None = None) -> int:
    """The size of a file in bytes, to be asked for before it is opened: a pipe may keep us waiting for ever.

    Raises DataError, saying what is there, for anything but a file, and for more than `most` bytes; OSError as
    `what_is` does.
    """
    if (kind := what_is(path)) != "a file":
        raise DataError(f"{shown(path)} is {kind}, not a file")
    size = os.stat(path).st_size
    if most is not None and size > most:
        raise DataError(f"{shown(path)} has {size} bytes; of such a file at most {most} are read")
    return size


def why_no_folder(error: OSError, folder: Path | str) -> str:
    """What keeps a folder from being made or written to: what stands in its place, else what the system says."""
    folder = Path(folder).absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    return error.strerror or str(error) if there.is_dir() else f"{shown(there)} is {what_is(there)}"


def check_space(folder: Path | str, needed: int) -> None:
    """Raises DataError where the disk of a folder, which need not be there yet, has no room for so many bytes."""
    there = next(place for place in (Path(folder).absolute(), *Path(folder).absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{shown(folder)} needs {needed / 2**20:.0f} MiB at the least, and its disk has {free / 2**20:.0f} MiB "
            "free: make room, or name another folder"
        )


def read_json(path: Path | str) -> object:
    """The content of a file of JSON. OSError, ValueError or RecursionError where it cannot be read as one."""
    check_regular(path, MOST_TEXT)
    if kind := mistaken_for(path):
        raise DataError(f"it is {kind}")
    return json.loads(Path(path).read_text(encoding="utf-8"))


@contextmanager
def written_whole(path: Path | str, *, elsewhere: str = "name another folder") -> Iterator[BinaryIO]:
    """Open `path` for writing in such a way that the file appears complete or not at all.

    The bytes go to a temporary file with a name of its own in the same folder. When the block has ended without an
    error they are on the disk, and the temporary file takes the name `path` in one step. Whatever else happens, the
    temporary file is removed and what was at `path` stays. path: the file; missing folders are made. elsewhere: what
    the message suggests where the folder cannot be written to.

    Yields the open binary file. Raises DataError where the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (part, *part.parents):
            raise  # the block stumbled over another file
        fault, cure = _why_not_written(error, path)
        raise DataError(f"{shown(path)} could not be written: {fault}.\n{cure}, or {elsewhere}.") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Put the folder's list of names on the disk too; not every system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _why_not_written(error: OSError, path: Path) -> tuple[str, str]:
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return "the disk is full", "Free some space"
    if path.is_dir():
        return "a folder of this name is in the way", "Move that folder away"
    return f"the folder cannot be written to ({why_no_folder(error, path.parent)})", "Make the folder writable"


# what a file begins with that is often found in the place of a data file
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer, not the file it stands for: run `git lfs pull`",
    b"/annex/objects/": "a git-annex pointer, not the file it stands for: run `git annex get`",
    b"<!doctype html": "an HTML page, such as a log-in or error page saved under this name",
    b"<html": "an HTML page, such as a log-in or error page saved under this name",
    b"<?xml": "an XML page, such as a server's error message saved under this name",
    b"\x93numpy": "a single array in NumPy's .npy format",
    b"\x1f\x8b": "a gzip archive: unpack it first",
}
_TEXT = bytes(range(32, 127)) + b"\t\n\r"


def mistaken_for(path: Path | str, *, binary: bool = False) -> str | None:
    """Return what the file at `path` is instead of a data file, judged by its first bytes, or None if unknown.

    binary: a data file here begins with bytes that are not text, so that a text is something else.
    """
    with open(path, "rb") as file:
        start = file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        return "an empty file"
    known = next((kind for begin, kind in _BEGINNINGS.items() if start.lower().startswith(begin)), None)
    if known is None and binary and not start.translate(None, _TEXT):
        return f"a text, which begins with {start[:40].strip().decode()!r}"
    return known
