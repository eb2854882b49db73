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
        if kind := mistaken_for(path, binary=True):
            raise CheckpointError(f"{shown(path)} is {kind}")
        raise CheckpointError(
            f"{shown(path)} is not an archive as torch writes since version 1.6. If it is an older file that you "
            "trust, load it with torch.load and save it anew with torch.save"
        )
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{shown(path)} is not the whole of an archive (cut short?): {error}") from error
    with archive:
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
                try:
                    check_pickle(path, archive.read(entry))
                except CheckpointError:
                    raise
                except (IndexError, KeyError, ValueError) as error:  # it takes what was never there, or is none
                    raise CheckpointError(f"{shown(path)} is damaged: its part {entry.filename} breaks off") from error
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
    """Refuses what torch would spend memory or time on before it returns anything.

    That are names that are not torch's (`bytearray(n)`, for one, which torch would call, takes n bytes); classes of
    tensors, which it would call on lists that hold each other (2³⁰ numbers in 300 bytes); and tuples that hold tuples
    several times: a tuple that is the key of a dict is hashed part by part, each as often as it is met, so that forty
    tuples of two take a trillion steps. The pickle is followed here without making anything of it: of each tuple on
    its stack we keep how many parts it has once it is written out, of all else that it is one part.
    """
    parts, stack, kept, marks = 0, [], {}, []
    for operation, argument, _ in pickletools.genops(pickled):
        name = operation.name
        if name == "GLOBAL" and not (argument.startswith("torch") or argument == "collections OrderedDict"):
            raise CheckpointError(f"{shown(path)} holds more than tensors ({argument}): not read")
        if name == "GLOBAL" and argument.endswith("Tensor"):
            raise CheckpointError(
                f"{shown(path)} holds a tensor that {argument} would make from lists, or one with attributes of its "
                "own: not read. Save plain tensors, made by tensor.detach().clone()"
            )
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            kept[argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(kept[argument])
        else:
            taken = operation.stack_before
            # what lies above the last mark, with the one below it where the operation adds to a list or a dict
            most = len(stack) - marks.pop() + len(taken) - 2 if pickletools.stackslice in taken else len(taken)
            inside = [stack.pop() for _ in range(most)]
            tuples = name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
            stack += [1 + sum(inside) if tuples else 1] * len(operation.stack_after)
        parts += stack[-1] if stack else 0
        if parts > MOST_PARTS + len(pickled):
            raise CheckpointError(f"{shown(path)} holds parts within parts without end: not read")


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
        inside = value if isinstance(value, (Mapping, *CONTAINERS)) else ()  # of a dict the keys
        values = value.values() if isinstance(value, Mapping) else ()
        waiting += [(part, depth + 1) for part in (*inside, *values)]
