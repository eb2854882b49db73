"""What a command's arguments may be: texts, paths and counts, for argparse."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """A parser to whose options an empty text, as of a shell's variable that was never set, is not a value.

    tell: what else its --help says at the end, asked for only then; what it imports may be heavy.
    """

    def __init__(self, tell: Callable[[], str] | None = None, **options: object):
        super().__init__(**options)
        self.tell = tell
        self.register("type", None, text)  # of every argument that names no other type

    def format_help(self) -> str:
        """The help of --help, which ends with what `tell` says."""
        self.epilog = self.tell() if self.tell else self.epilog
        return super().format_help()


def text(value: str) -> str:
    """Any text but an empty one, for argparse."""
    if not value.strip():
        raise argparse.ArgumentTypeError("is empty: give a value, or leave it out")
    return value


def place(value: str) -> str:
    """The path of a file or folder, for argparse. In --out=~/runs the shell leaves the ~ to us."""
    expanded = os.path.expanduser(text(value))
    if expanded.startswith("~"):
        raise argparse.ArgumentTypeError(
            f"{value}: there is no user of that name; write ./{value} if the file itself is called so"
        )
    return expanded


def positive(text: str) -> int:
    """A whole number from 1 to a million, for argparse."""
    number = int(text)
    if not 1 <= number <= 10**6:
        raise argparse.ArgumentTypeError(f"must lie in 1 to 1000000, got {number}")
    return number
