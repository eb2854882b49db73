"""Files that `torch.save` wrote, read without running anything in them."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ..errors import CheckpointError
from .files import shown


def read_torch(path: Path | str, map_location: torch.device | str = "cpu") -> object:
    """Reads a file that `torch.save` wrote, without running any code in it.

    Before torch reads it, we check two things that torch does not: the checksums, since a flipped bit would be a
    wrong weight, and the sizes. torch does not compress what it writes, so a file that is compressed, or whose parts
    or tensors claim to be larger than the file, was made to fill the memory.
    map_location: where tensors go, as for `torch.load`. Returns what was saved, as a rule a dict.
    Raises CheckpointError where a check fails, otherwise what torch raises.
    """
    room = Path(path).stat().st_size
    with open(path, "rb") as file:
        is_archive = file.read(4) == b"PK\3\4"  # torch's own test; before version 1.6 it wrote plain pickles
    if is_archive:
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
    """Refuses tensors with more numbers than the file has bytes, such as one number repeated by a stride of 0.

    content: what the file holds, mappings of any depth. room: the file's size in bytes.
    """
    for value in content.values() if isinstance(content, Mapping) else ():
        if isinstance(value, torch.Tensor) and value.numel() > room:
            raise CheckpointError(f"{shown(path)} holds a tensor {list(value.shape)}, larger than the file: not read")
        check_room(path, value, room)
