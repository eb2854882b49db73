"""What a command says on a terminal, and what it does where the terminal is closed, full or gone."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TextIO


def open_what_is_closed() -> None:
    """Lets what is written to a stdout or stderr that the shell closed (`2>&-`) go nowhere.

    Otherwise the next file opened, such as a checkpoint, would get the number of the closed one, and with it whatever
    libraries write to stderr.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
    sys.stdout, sys.stderr = (stream or open(os.devnull, "w") for stream in (sys.stdout, sys.stderr))


class Mumbling:
    """A stream that goes on where it cannot be written to: progress that nobody sees is no reason to stop training."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self.stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)


def say(message: str) -> None:
    """Prints a message to stderr. Where that cannot be written to, the exit status has to do."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def flush() -> None:
    """Writes what was printed, if there is a stdout."""
    if sys.stdout is not None:
        sys.stdout.flush()


def give_up_output() -> None:
    """Lets what stdout does not take go nowhere: Python would try once more when it ends, and complain."""
    try:
        flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def unforeseen(error: Exception) -> str:
    """What is said of a fault of ours: what it is, where, and what to do."""
    from .places import repository

    *_, where = traceback.extract_tb(error.__traceback__)
    kind, text = type(error).__name__, " ".join(str(error).split())[:300]
    return (
        f"a fault in this program, {kind}: {text} ({os.path.basename(where.filename)}, line {where.lineno}). Please "
        f"report it with the command that you gave: {repository()}/issues. VIVIT_EDU_TRACEBACK=1 shows all of it."
    )
