"""Records of measurements: the one writer of table.json, of a recorded model's facts and of the maps' scores."""

from __future__ import annotations

from pathlib import Path

from .code import text_hash
from .runs import write_json


def write_record(path: Path, content: dict) -> None:
    """Writes a record as JSON. Code that several runs share is written once.

    content: where its "rows" have {"code": [of each run, as `code_of` returned it, or None where it is unknown]}, each
    of these is replaced by its hash, and the record's own "code" says what that stands for, {hash: {part: hash}}.
    Raises CheckpointError where the file cannot be written.
    """
    shared, rows = {}, []
    for row in content.get("rows", []):
        if isinstance(row.get("code"), list):
            keys = [code and text_hash(repr(sorted(code.items()))) for code in row["code"]]
            shared |= {key: code for key, code in zip(keys, row["code"]) if key}
            row = row | {"code": keys}
        rows.append(row)
    write_json(path, content | ({"code": shared} if shared else {}) | ({"rows": rows} if rows else {}))


def shared_code(content: dict) -> list[dict]:
    """The rows of a table that `write_record` wrote, with each run's code as it was given to it."""
    of_hash = content.get("code", {})
    return [
        row | ({"code": [key and of_hash[key] for key in row["code"]]} if "code" in row else {})
        for row in content["rows"]
    ]
