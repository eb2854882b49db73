"""One process at a time writes to a place: its lock, and who holds it.

The operating system holds the lock and lets go of it when the process ends, however that ends. The lock's file says
who holds it, and is removed afterwards.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import CheckpointError, ConfigError
from .files import shown, why_no_folder
from .options import check_path
from .processes import on_first

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

IN_FOLDER = ".lock"
_held: dict[Path, bytes] = {}  # the locks of this process, and what their files say


@contextmanager
def alone(lock: Path | str, place: Path | str) -> Iterator[None]:
    """Within it no other process is in an `alone` with the same lock; this process may be, once more.

    lock: the file to lock, next to or inside `place`, which the message names. Missing folders are made.
    Raises ConfigError, saying who is there, where another process is, and where the lock cannot be written.
    """
    lock = Path(lock).absolute()
    if _held.get(lock, b"").startswith(_myself()):
        yield
        return
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        if not _is_ours(lock):
            raise FileExistsError(errno.EEXIST, f"its {lock.name} is not a lock of ours")
        file, says = _take(lock, place)
    except OSError as error:
        raise ConfigError(
            f"nothing can be written to {shown(place)} ({why_no_folder(error, lock.parent)}): choose another place"
        ) from error
    _held[lock] = says
    try:
        yield
    finally:
        del _held[lock]
        if fcntl is None:  # Windows removes no file that is open: neither ours before this, nor then another's
            file.close()
        with suppress(OSError):
            if _read(lock) == says:
                lock.unlink()
        file.close()


@contextmanager
def alone_in(folder: Path | str | None) -> Iterator[None]:
    """Within it no other run writes to the folder; of several processes that train together the first has the lock.

    None: nothing is written, and nothing locked. Raises ConfigError as `alone` does, in all of the processes.
    """
    with ExitStack() as stack:
        if folder is not None:
            check_path("out", folder, "a folder")
            on_first(stack.enter_context, alone(Path(folder) / IN_FOLDER, folder))
        yield


def check_alone(folder: Path | str) -> None:
    """Raises CheckpointError where this process locked the folder, and another one has its place by now, or none."""
    lock = Path(folder).absolute() / IN_FOLDER
    if lock in _held and _read(lock) != _held[lock]:
        raise CheckpointError(
            f"{shown(folder)} was removed or replaced while a run wrote to it: nothing more is written. "
            "Start the run anew in another folder"
        )


def _is_ours(lock: Path) -> bool:
    """Whether there is no such file yet, or one that a process of ours wrote, if only for a moment still empty."""
    try:
        mode = os.lstat(lock).st_mode  # asked for once: who holds it may remove it at any moment
    except FileNotFoundError:
        return True
    return stat.S_ISREG(mode) and re.match(rb"process \d+ on |\Z", _read(lock)) is not None


def _take(lock: Path, place: Path | str) -> tuple[BinaryIO, bytes]:
    """The lock's open file, locked, and what was written into it."""
    while True:
        file = open(lock, "a+b")  # not cut: it says who holds it
        try:
            _lock(file)
            says = _myself() + f" since {time.strftime('%Y-%m-%d %H:%M:%S')}".encode()
            file.truncate(0)
            file.write(says)
            file.flush()
            if _read(lock) == says:
                return file, says
            file.close()  # who held it removed it just now: once more
        except BlockingIOError:
            file.close()
            who = _read(lock).decode(errors="replace") or "another process"
            raise ConfigError(
                f"{who} is writing to {shown(place)}: wait until it has ended, or choose another place"
            ) from None
        except BaseException:
            file.close()
            raise


def _myself() -> bytes:
    return f"process {os.getpid()} on {socket.gethostname()}".encode()


def _lock(file: BinaryIO) -> None:
    """Locks an open file; BlockingIOError where another process has. Where files know no locks, it does nothing."""
    if fcntl is None:
        import msvcrt

        file.seek(2**30)  # far behind what it says, which others must be able to read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # of some file systems on the network
        pass


def _read(lock: Path) -> bytes:
    try:
        return lock.read_bytes()
    except OSError:
        return b""
