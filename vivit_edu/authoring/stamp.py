"""The line below the map: when, and with which versions, the whole course last ran. CI writes it once a week."""

from __future__ import annotations

import platform
from datetime import date
from importlib.metadata import version
from typing import TYPE_CHECKING

from ..errors import ConfigError
from .masters import checkout, write

if TYPE_CHECKING:
    from pathlib import Path

STAMP_BEGIN, STAMP_END = "<!-- last run: written by vivit-edu notebooks --stamp -->", "<!-- end of last run -->"
NAMED = ("torch", "torchvision", "numpy", "scikit-learn", "matplotlib", "jupyterlab", "nbgrader")


def stamp(root: Path | None = None, today: date | None = None) -> str:
    """Notes in the README that the course ran whole today, with what is installed here; returns the line.

    To be called right after a run of all tests and notebooks: it runs nothing itself.

    Raises ConfigError where there is no checkout, or a README without the place for the line.
    """
    readme = (root or checkout()) / "README.md"
    text = readme.read_text(encoding="utf-8")
    if STAMP_BEGIN not in text or STAMP_END not in text:
        raise ConfigError(f"README.md has no place for the line: expected {STAMP_BEGIN} and {STAMP_END} below the map.")
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name).partition('+')[0]}" for name in NAMED)]
    line = f"Last ran whole on {today or date.today():%Y-%m-%d}, on {platform.system()}, with {', '.join(versions)}."
    before, rest = text.split(STAMP_BEGIN, 1)
    write(readme, f"{before}{STAMP_BEGIN}\n{line}\n{STAMP_END}{rest.split(STAMP_END, 1)[1]}")
    return line
