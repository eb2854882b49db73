"""The map of the course: its chapters, what each builds, how long it takes. Chapter 00 shows it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..support.places import checkout

if TYPE_CHECKING:
    from pathlib import Path

# the line of a chapter's first cell that the course map shows: what it builds, minutes, hardware
OFFER = re.compile(
    r"^Builds: (?P<builds>.+) · about (?P<minutes>\d+) minutes to read and solve · (?P<hardware>\S.*)$", re.M
)


def course_map(folder: Path | None = None) -> list[dict]:
    """The chapters: a list of dictionaries with chapter, title, file; builds, minutes (to work through it) and
    hardware as the first cell says; seconds and peak_mb as the harness measured them on two CPU threads with
    the phantom. None: not said, or not executed yet."""
    rows = []
    for path in sorted((folder or checkout() / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        measured = notebook["metadata"].get("vivit_edu", {})
        first = "".join(notebook["cells"][0]["source"]) if notebook["cells"] else ""
        title, offer = re.match(r"# \d\d · (.+)", first), OFFER.search(first)
        rows.append(
            {
                "chapter": path.stem[:2],
                "title": title[1].strip() if title else path.stem,
                "file": path.name,
                **(offer.groupdict() if offer else dict.fromkeys(OFFER.groupindex)),
                "seconds": measured.get("seconds"),
                "peak_mb": measured.get("peak_mb"),
            }
        )
    return rows


def course_map_markdown(folder: Path | None = None, prefix: str = "") -> str:
    """The map as a Markdown table, its links relative to notebooks/ or behind a prefix.

    A hardware that is the same for all chapters is said once, below the table.
    """
    rows = course_map(folder)
    needs = {row["hardware"] for row in rows}
    heads = ["", "chapter", "builds", "minutes to read and solve", "minutes to run", "memory"]
    table = []
    for row in rows:
        run = row["seconds"] and f"{max(row['seconds'] / 60, 0.1):.1f}"
        memory = row["peak_mb"] and f"{row['peak_mb'] / 1000:.1f} GB"
        link = f"[{row['title']}]({prefix}{row['file']})"
        table.append([row["chapter"], link, row["builds"], row["minutes"], run, memory])
    if len(needs) > 1:
        heads.append("hardware")
        table = [[*cells, row["hardware"]] for cells, row in zip(table, rows)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(cell or '–' for cell in cells)} |" for cells in table]
    below = f"\n\nFor every chapter, {needs.pop()}." if len(needs) == 1 and None not in needs else ""
    return "\n".join(lines) + below
