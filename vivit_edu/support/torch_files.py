"""Files that `torch.save` wrote, read without running anything in them."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError
from .files import check_regular, mistaken_for, shown

MOST_PARTS, DEEPEST = 10**6, 50  # of what a file holds: far more than any checkpoint
CONTAINERS = (list, tuple, set, frozenset)


def read_torch(path: Path | str, map_location: torch.device | str = "cpu") -> object:
    """Reads a file that `torch.save` wrote, without running any code in it.

    Only the archives are read that torch writes since version 1.6: a bare pickle, as before, can fill the memory
    while it is read. Before torch reads an archive, we check two things that torch does not: the checksums, since a
    flipped bit would be a wrong weight, and the sizes. torch does not compress what it writes, so a file that is
    compressed, or whose parts or tensors claim to be larger than the file, was made to fill the memory.
    map_location: where tensors go, as for `torch.load`. Returns what was saved, as a rule a dict.
    Raises CheckpointError or DataError where a check fails, otherwise what torch raises.
    """
    room = check_regular(path)
    with open(path, "rb") as file:
        is_archive = file.read(4) == b"PK\3\4"  # torch's own test
    if not is_archive:
        raise CheckpointError(
            f"{shown(path)} is {mistaken_for(path) or 'not an archive as torch writes since version 1.6'}. If it is an "
            "older file that you trust, load it with torch.load and save it anew with torch.save"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > room:
            raise CheckpointError(
                f"{shown(path)} would unpack to more than it holds, which no file written by torch does: not read"
            )
        if damaged := archive.testzip():
            raise CheckpointError(f"{shown(path)} is damaged: its part {damaged} is not what was written")
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                check_pickle(path, archive.read(entry))
    content = torch.load(path, map_location=map_location, weights_only=True)
    check_room(path, content, room)
    return content


def write_torch(content: object, file: BinaryIO) -> None:
    """Writes a file that `read_torch` reads.

    content: as for `torch.save`. file: open for writing. Raises OSError where the disk is full, of which torch would
    make a fault of its own ("enforce fail at inline_container.cc").
    """
    noting = Noting(file)
    try:
        torch.save(content, noting)
    except RuntimeError as error:
        raise noting.fault or error from None


class Noting:
    """A file that is written to, and the error that writing ended in."""

    def __init__(self, file: BinaryIO):
        self.file, self.fault = file, None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.fault = error
            raise

    def flush(self) -> None:
        self.file.flush()


def check_pickle(path: Path | str, pickled: bytes) -> None:
    """Refuses names that are not torch's. `bytearray(n)`, for one, which torch would call, takes n bytes."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL" and not argument.startswith("torch") and argument != "collections OrderedDict":
            raise CheckpointError(f"{shown(path)} holds more than tensors ({argument}): not read")


def check_room(path: Path | str, content: object, room: int) -> None:
    """Refuses what is larger than the file that it is from, once everything in it is written out.

    That are tensors with more numbers than the file has bytes, such as one number repeated by a stride of 0, and dicts
    and lists that hold others several times: a few bytes nest them so that whoever goes through them never ends.
    content: what the file holds. room: the file's size in bytes.
    """
    waiting, met = [(content, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        met += 1
        if met > MOST_PARTS or depth > DEEPEST:
            raise CheckpointError(f"{shown(path)} holds parts within parts without end: not read")
        if isinstance(value, torch.Tensor) and value.numel() > room:
            raise CheckpointError(f"{shown(path)} holds a tensor {list(value.shape)}, larger than the file: not read")
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, CONTAINERS) else ()
        waiting += [(part, depth + 1) for part in inside]
