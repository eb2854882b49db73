"""Decoded clips kept in a file, so that a second run decodes nothing, and mapped: they need not fit into memory.

One file holds the clips of one data set, frame number and size: rows uint8 [B, 3, T, H, W] in the order of the splits,
behind them an index as JSON, its length (8 bytes) and a mark. The index says of each row which part of which file it
is, that file's size, time of change and SHA-256, and the row's CRC-32. A file of other content is decoded anew, and so
is a row that is damaged; all other rows are copied. Nothing in here knows about videos but the word.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import DataError
from ..support.files import check_regular, check_space, written_whole
from ..support.places import given_folder, user_cache

END_MARK = b"vivit-edu clips\n"
NO_RESERVE = 0x4000  # Linux's MAP_NORESERVE, which the module mmap has from Python 3.13 on
STORE_VERSION = 1  # a higher number makes all files of before unknown
MOST_INDEX = 1 << 30  # bytes
DAY = 24 * 60 * 60  # seconds


class NoRoomError(DataError):
    """Clips cannot be kept: the folder cannot be written to, or its disk has no room."""


class ClipRow(NamedTuple):
    """What a row was decoded from: the file's path, size in bytes and time of change in ns, and which of its parts."""

    path: str
    bytes: int
    changed: int
    part: int = 0
    parts: int = 1

    @classmethod
    def of(cls, path: Path, part: int = 0, parts: int = 1) -> ClipRow:
        """The row that this part of the file would be, as it is now."""
        found = os.stat(path)
        return cls(os.path.realpath(path), found.st_size, found.st_mtime_ns, part, parts)


@dataclass(frozen=True)
class Place:
    """Where the rows of a data set are kept. what: says which data set it is, and how its clips are made; shape: of a
    row, (3, T, H, W); folder: None is `cache_folder()`."""

    what: str
    shape: tuple[int, int, int, int]
    folder: Path | None = None

    def path(self, rows: Sequence[ClipRow]) -> Path:
        """The file for these rows in this order."""
        return self.home / f"{self.prefix}-{short_hash([STORE_VERSION, *map(list, rows)])}.clips"

    @property
    def home(self) -> Path:
        return self.folder or cache_folder()

    @property
    def prefix(self) -> str:
        return short_hash([STORE_VERSION, self.what, list(self.shape)])

    def files(self) -> list[Path]:
        """All files for this place, the newest first: those of other orders of the rows, too."""
        found = self.home.glob(f"{self.prefix}-*.clips")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def left_over(self) -> list[Path]:
        """What runs that were killed left half written: nobody has written to it for a day."""
        found = self.home.glob(f".{self.prefix}-*.part")
        return [path for path in found if time.time() - path.stat().st_mtime > DAY]


def cache_folder() -> Path:
    """$VIVIT_EDU_CACHE if it is set, else the folder `videos` in the user's cache."""
    chosen = os.environ.get("VIVIT_EDU_CACHE", "").strip()
    return given_folder("VIVIT_EDU_CACHE", chosen) if chosen else user_cache() / "videos"


def short_hash(content: object) -> str:
    """16 hexadecimal digits that stand for some JSON."""
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def kept_clips(
    rows: Sequence[ClipRow], place: Place, decode: Callable[[str, int], np.ndarray], progress: Callable[[int], object]
) -> tuple[np.ndarray, list[str], int]:
    """(clips uint8 [B, *shape] of these rows, mapped from a file; the SHA-256 of each row's file; rows decoded now).

    Every row that is on the disk is checked. If all are there, in this order, nothing is decoded; otherwise a new file
    is written, whole or, where it is stopped, with what was decoded until then, so that the next run goes on from it.
    decode: (path, parts) -> uint8 [parts, *shape], all parts of a file. progress: called for each row, after it was
    checked or decoded; with a negative number where rows that were checked have to be written again.
    Before anything is decoded, raises NoRoomError where the folder cannot be written to or its disk has no room, and
    DataError where the system does not map so much. Raises what `decode` raises.
    """
    path, row_bytes = place.path(rows), prod(place.shape)
    check_mappable(len(rows) * row_bytes)
    sums, decoded = good_rows(path, row_bytes, progress), 0
    if [sums.get(slot, (None,))[0] for slot in range(len(rows))] != list(rows):
        progress(-len(sums))
        sums, decoded = fill_file(path, rows, place, decode, progress)
    with suppress(OSError):  # Windows removes no file that somebody reads
        for old in place.files():
            if old != path:
                old.unlink()
        for part in place.left_over():
            part.unlink()
    return mapped(path, (len(rows), *place.shape)), [sums[slot][1] for slot in range(len(rows))], decoded


def mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The first bytes of a file as an array uint8 of this shape. What is changed in it stays in this process.

    The file may be larger than the memory: pages come in as they are read, and go as others need the room. Linux would
    refuse such a mapping that can be written to if it had to reserve memory for all of it. Raises NoRoomError where
    the system does not map that much.
    """
    size = prod(shape)
    with open(path, "rb") as file:
        memory = map_file(file.fileno(), size)
    return np.frombuffer(memory, np.uint8).reshape(shape)


def map_file(number: int, size: int) -> mmap.mmap:
    """So many bytes of an open file, by its number, as memory of this process alone; -1: of no file."""
    try:
        if sys.platform == "win32":
            return mmap.mmap(number, size, access=mmap.ACCESS_COPY)
        flags = mmap.MAP_PRIVATE | (NO_RESERVE if sys.platform == "linux" else 0)
        return mmap.mmap(number, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError, OverflowError) as error:
        raise NoRoomError(f"{size / 2**30:.3g} GiB cannot be mapped: {error}") from error


def check_mappable(size: int) -> None:
    """Raises DataError where the system does not map so many bytes: it is tried, on Linux, before anything is decoded.

    Elsewhere a mapping of no file reserves memory, so it is not tried.
    """
    if sys.platform != "linux":
        return
    try:
        map_file(-1, size).close()
    except NoRoomError as error:
        raise DataError(
            f"the decoded clips take {size / 2**30:.3g} GiB, and the system lets this process map only a part of that: "
            "ask for fewer frames or a smaller size, or raise the limit (ulimit -v unlimited; under strict "
            "overcommitting, more swap)"
        ) from error


def fill_file(
    path: Path,
    rows: Sequence[ClipRow],
    place: Place,
    decode: Callable[[str, int], np.ndarray],
    progress: Callable[[int], object],
) -> tuple[dict[int, tuple[ClipRow, str]], int]:
    """Writes the file of these rows: copied where another file has them, else decoded.

    Returns ({slot: (row, SHA-256)}, how many were decoded).
    """
    row_bytes, index, stopped, decoded = prod(place.shape), {}, None, 0
    try:
        check_space(path.parent, len(rows) * row_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path.parent):
            pass
    except (OSError, DataError) as error:
        raise NoRoomError(getattr(error, "strerror", None) or str(error)) from error
    slots: dict[tuple[str, int], list[int]] = {}  # of each file and number of parts
    for slot, row in enumerate(rows):
        slots.setdefault((row.path, row.parts), []).append(slot)
    old = [(file, good_rows(file, row_bytes)) for file in place.files()]
    known = {row: (file, slot, sha) for file, found in reversed(old) for slot, (row, sha) in found.items()}
    with written_whole(path, elsewhere="name another folder with $VIVIT_EDU_CACHE") as file:

        def keep(slot: int, clip: bytes, sha: str) -> None:
            file.seek(slot * row_bytes)
            file.write(clip)
            index[slot] = (rows[slot], sha, zlib.crc32(clip))
            progress(1)

        try:
            for (name, parts), places in slots.items():
                for slot in (slot for slot in places if rows[slot] in known):
                    source, at, sha = known[rows[slot]]
                    keep(slot, read_row(source, at, row_bytes), sha)
                if missing := [slot for slot in places if slot not in index]:
                    clips, sha = decode(name, parts), file_hash(name)
                    if ClipRow.of(Path(name))[:3] != rows[missing[0]][:3]:
                        raise DataError(f"{Path(name).name} was changed while it was read: run the same command again")
                    decoded += len(missing)
                    for slot in missing:
                        keep(slot, clips[rows[slot].part].tobytes(), sha)
        except OSError:
            raise
        except BaseException as error:  # Ctrl-C, or a file that cannot be decoded: what was decoded is not lost
            stopped = error
        write_index(file, index, len(rows) * row_bytes)
    if stopped is not None:
        raise stopped
    return {slot: (row, sha) for slot, (row, sha, _) in index.items()}, decoded


def write_index(file: BinaryIO, index: dict[int, tuple[ClipRow, str, int]], start: int) -> None:
    """Writes the index behind the rows, at this byte."""
    content = [[slot, *row, sha, crc] for slot, (row, sha, crc) in index.items()]
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    file.seek(start)
    file.write(text + len(text).to_bytes(8, "little") + END_MARK)


def read_index(file: BinaryIO, row_bytes: int) -> Iterator[tuple[int, ClipRow, str, int]]:
    """(slot, row, SHA-256, CRC-32) of each row that an open file says it has; none where it is no such file."""
    tail = 8 + len(END_MARK)
    whole = file.seek(0, os.SEEK_END)
    file.seek(max(0, whole - tail))
    length, mark = int.from_bytes(file.read(8), "little"), file.read()
    start = whole - tail - length
    if mark != END_MARK or start < 0 or start % row_bytes or length > MOST_INDEX:
        return
    file.seek(start)
    try:
        content = json.loads(file.read(length).decode("utf-8", "surrogatepass"))
        for slot, path, size, changed, part, parts, sha, crc in content:
            if 0 <= slot < start // row_bytes:
                yield slot, ClipRow(path, size, changed, part, parts), sha, crc
    except (ValueError, TypeError, RecursionError):
        return


def good_rows(
    path: Path, row_bytes: int, progress: Callable[[int], object] | None = None
) -> dict[int, tuple[ClipRow, str]]:
    """{slot: (row, SHA-256 of its file)} of the rows in a file that are as they were written; {} without a file.

    progress: called with 1 for each of them.
    """
    found = {}
    try:
        check_regular(path)
        with open(path, "rb") as file:
            for slot, row, sha, crc in list(read_index(file, row_bytes)):
                file.seek(slot * row_bytes)
                if zlib.crc32(file.read(row_bytes)) == crc:
                    found[slot] = (row, sha)
                    if progress:
                        progress(1)
    except (OSError, DataError):
        if progress:
            progress(-len(found))
        return {}
    return found


def read_row(path: Path, slot: int, row_bytes: int) -> bytes:
    """The bytes of one row."""
    with open(path, "rb") as file:
        file.seek(slot * row_bytes)
        return file.read(row_bytes)


def file_hash(path: str) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
