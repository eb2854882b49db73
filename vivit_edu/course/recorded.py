"""Recorded results: what a command measured once and chapters show again."""

from __future__ import annotations

import csv
import json
from typing import Any

from ..errors import ConfigError
from ..support.places import checkout
from ..support.tables import mean_sd  # noqa: F401  (chapters take it from here)


def recorded(name: str) -> Any:
    """A recorded run by its file name, from notebooks/results, the same from any working directory:
    the contents of a .json, the rows of a .csv as dictionaries."""
    path = checkout() / "notebooks" / "results" / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.*"))) or "nothing"
        raise ConfigError(f"there is no recorded run {name!r} in notebooks/results, which holds: {there}.")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
