"""What `load_pretrained` says of its work."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """What `load_pretrained` did. Prints as a table in which blocks that were treated alike share a line.

    layout: how the weights were named. rows: every parameter of the model -> (what was done, a remark or "").
    left_out: what the weights hold and the model has no place for. notes: what the weights do not say and what was
    assumed, and how model and weights differ without being incompatible.
    """

    layout: str
    rows: dict[str, tuple[str, str]]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def how(self, name: str) -> str:
        """What was done to a parameter: "taken", "fresh", "zeroed", or steps such as "resized, repeated"."""
        return self.rows[name][0]

    def __str__(self) -> str:
        alike = {}
        for name, row in self.rows.items():
            key = (re.sub(r"blocks\.\d+", "blocks.*", name), *row)
            alike[key] = alike.get(key, 0) + 1
        table = [(f"{name} ({n}×)" if "*" in name else name, *row) for (name, *row), n in alike.items()]
        widths = [max(len(row[column]) for row in table) for column in (0, 1)]
        lines = [f"{name:{widths[0]}}  {how:{widths[1]}}  {remark}".rstrip() for name, how, remark in table]
        alike = {}
        for name in self.left_out:
            key = re.sub(r"(?<=[._])\d+(?=[./])", "*", name)
            alike.setdefault(key, []).append(name)
        left_out = [f"{key} ({len(names)}×)" if len(names) > 1 else names[0] for key, names in alike.items()]
        lines += [f"left out: {', '.join(left_out)}"] if left_out else []
        return "\n".join([f"from {self.layout}", *lines, *(f"note: {note}" for note in self.notes)])
