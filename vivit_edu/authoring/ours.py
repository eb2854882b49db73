"""Folders that commands fill and fill again: what we wrote is known by a mark, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from ..errors import ConfigError
from ..support.files import read_json, shown, what_is, why_no_folder, written_whole
from ..support.locks import alone

MARK = ".vivit-edu"  # in the folder: what it is, and the digests of every file that we wrote there


def marked(folder: Path, kind: str) -> dict[str, list[str]]:
    """The files that we wrote to a folder, each with the digests it may have: {} for a new or empty folder.

    kind: what the folder must be, "site" or "classroom". Raises ConfigError where it holds anything else.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{shown(folder)} is {what_is(folder)}; expected the name of a new folder for the {kind}.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return {}
    try:
        mark = read_json(folder / MARK)
        if mark["made"] == kind:
            return {str(name): list(digests) for name, digests in mark["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no mark, or not one of ours
    raise ConfigError(
        f"{shown(folder)} holds other files: expected a new or empty folder, or a {kind} that this command made "
        f"(its file {MARK} says so). Name another folder."
    )


@contextmanager
def built_beside(folder: Path, kind: str, *, renew_all: bool) -> Iterator[tuple[Path, list[str]]]:
    """A new folder next to `folder` to build in, and a list; after the block the files built move into `folder`.

    The list then names the files that were left alone: not written by us, or changed since. renew_all: remove also
    what an earlier build wrote and this one does not, unless it was changed. Nothing in `folder` is touched before
    the block has ended well. Raises ConfigError where `folder` holds something else or cannot be written to, and where
    another process builds there, saying who.
    """
    folder = folder.absolute()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_dir() and not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write to it")
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}.", dir=folder.parent))
    except OSError as error:
        raise ConfigError(
            f"{shown(folder)} cannot be written ({why_no_folder(error, folder)}): make its folder writable, or name "
            "another."
        ) from None
    try:
        with alone(lock_beside(folder), folder):
            known, kept = marked(folder, kind), []
            yield beside, kept
            files = [path for path in sorted(beside.rglob("*")) if path.is_file()]
            built = {path.relative_to(beside).as_posix(): _digest(path) for path in files}
            folder.mkdir(exist_ok=True)
            ours = {**known, **built} if renew_all else built
            kept += [name for name in ours if not _may_replace(folder, name, known.get(name, []), built)]
            moving = {name: digest for name, digest in built.items() if name not in kept}
            # while files move, each may be the old one or the new one: whoever is cut short can run again
            either = {n: [*known.get(n, ()), *filter(None, [moving.get(n)])] for n in {**known, **moving}}
            _write_mark(folder, kind, either)
            for name in moving:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(beside / name, folder / name)
            stays = {} if renew_all else {name: known[name] for name in known if name not in built}
            for name in set(known) - set(built) - set(kept) - set(stays):
                (folder / name).unlink(missing_ok=True)
            _write_mark(folder, kind, stays | {name: [digest] for name, digest in moving.items()})
    except OSError as error:
        raise ConfigError(f"{shown(folder)} could not be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def lock_beside(folder: Path) -> Path:
    """The file next to a folder that says who builds it: one for each folder, however long the folders' names are."""
    short = folder.name[:40]
    rest = "" if short == folder.name else f"-{sha256(os.fsencode(folder.name)).hexdigest()[:8]}"
    return folder.with_name(f".{short}{rest}.lock")


def _may_replace(folder: Path, name: str, known: list[str], built: dict[str, str]) -> bool:
    """Whether the file is not there, is as we wrote it, or is already what it should become."""
    path, parts = folder / name, Path(name).parts
    if ".." in parts or Path(name).is_absolute():
        return False
    if any(
        place.is_symlink() or place.is_file() for place in (folder.joinpath(*parts[:n]) for n in range(1, len(parts)))
    ):
        return False
    if not os.path.lexists(path):
        return True
    return not path.is_symlink() and path.is_file() and _digest(path) in {*known, built.get(name)}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _write_mark(folder: Path, kind: str, files: dict[str, list[str]]) -> None:
    with written_whole(folder / MARK) as file:
        file.write(json.dumps({"made": kind, "files": files}, indent=1).encode())
