"""Files that `torch.save` wrote, read without running anything in them."""

import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import CheckpointError
from .files import shown


def read_torch(path, map_location="cpu"):
    """The content of a file that `torch.save` wrote, of which no code is run.

    Two things torch does not look at are looked at before it reads: the checksums, without which a flipped bit
    would be a wrong weight, and the room. What torch writes is not compressed, so a file that is, or whose parts
    or tensors claim more than it holds, was made to fill the memory. Raises CheckpointError and what torch raises.
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
                    f"{shown(path)} would unpack to more than it holds, as no file of torch's does: never read"
                )
            if damaged := archive.testzip():
                raise CheckpointError(f"{shown(path)} is damaged: its part {damaged} is not what was written")
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    check_pickle(path, archive.read(entry))
    content = torch.load(path, map_location=map_location, weights_only=True)
    check_room(path, content, room)
    return content


def check_pickle(path, pickled):
    """Refuses names that are not torch's: `bytearray(n)` alone, which torch would call, takes n bytes."""
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL" and not argument.startswith("torch") and argument != "collections OrderedDict":
            raise CheckpointError(f"{shown(path)} holds more than tensors ({argument}): never read")


def check_room(path, content, room):
    """Refuses tensors with more numbers than the file has bytes: one number repeated by a stride of 0."""
    for value in content.values() if isinstance(content, Mapping) else ():
        if isinstance(value, torch.Tensor) and value.numel() > room:
            raise CheckpointError(f"{shown(path)} holds a tensor {list(value.shape)}, larger than the file: never read")
        check_room(path, value, room)
