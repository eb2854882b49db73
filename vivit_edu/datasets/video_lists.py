"""Lists of videos: which file belongs to which class, as people have it in a CSV file or in a text.

path,label,split                       a CSV with a line of titles; tabs and semicolons do as well
label,youtube_id,time_start,time_end   Kinetics: files are called ID_START_END, as those who download it name them
running/a.mp4 3                        mmaction and PySlowFast: no titles, the label is the last word of a line
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from ..support.files import MOST_TEXT, check_regular, mistaken_for, shown
from .video_folders import files_in

PATH_TITLES = ("path", "video_path", "file_path", "filepath", "file", "filename", "file_name", "video", "clip")
LABEL_TITLES = ("label", "class", "class_name", "category", "action", "label_name")
SPLIT_TITLES = ("split", "subset")
ID_TITLES = ("youtube_id", "video_id", "id")
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val"}
SPLIT_WORDS |= {"validation": "val", "test": "test", "testing": "test"}
MOST_LINES = 5  # that a message names


class Listed(NamedTuple):
    """A line of a list: a file, its name there, its class, its split ("" where the list does not say), the number."""

    path: Path
    name: str
    label: str
    split: str
    line: int


def read_list(path: Path, left_out: Counter) -> list[Listed]:
    """The lines of a list of videos. Paths are relative to the list's folder; labels are words or numbers.

    left_out: counts lines of Kinetics whose file is not there, which is so for every video that was withdrawn.
    Raises DataError, naming file and line, where a line cannot be read, where a file is missing, or where one is
    listed twice with different labels or splits. The same line once more is counted in left_out.
    """
    check_regular(path, MOST_TEXT)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{shown(path)} is not a text in UTF-8: save the list as CSV (UTF-8)") from None
    lines = [(number, line) for number, line in enumerate(io.StringIO(text, newline=None), 1) if line.strip()]
    if not lines:
        raise DataError(f"{shown(path)} is empty: expected a line with a path and a label for each video")
    if kind := mistaken_for(path):
        raise DataError(f"{shown(path)} is no list of videos: it is {kind}")
    titled = find_titles(lines[0][1])
    listed = rows_by_title(path, lines, *titled, left_out) if titled else rows_without_titles(path, lines)
    seen: dict[str, Listed] = {}
    for row in listed:
        before = seen.setdefault(os.path.realpath(row.path), row)
        if (before.label, before.split) != (row.label, row.split):
            differing = "labels" if before.label != row.label else "splits"
            raise DataError(
                f"{shown(path)}, line {row.line}: {row.name} is in line {before.line} already, and the two have other "
                f"{differing}: leave one of them out"
            )
        if before is not row:
            left_out["listed twice"] += 1
    if not seen:
        raise DataError(f"{shown(path)} names no video that is there: the files belong below {shown(path.parent)}")
    return list(seen.values())


def cells_of(line: str, sign: str) -> list[str]:
    """The cells of one line of a CSV file, without the spaces around them; none where it cannot be read."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=sign, skipinitialspace=True), [])]
    except csv.Error:  # a byte 0, or a cell of more than 128 KiB
        return []


def find_titles(line: str) -> tuple[str, list[str]] | None:
    """(sign between the columns, titles in small letters), where the line has those of a label and of a path or ID."""
    for sign in ",;\t":
        titles = [cell.lower().replace(" ", "_") for cell in cells_of(line, sign)]
        if column(titles, LABEL_TITLES) is not None and column(titles, PATH_TITLES + ID_TITLES) is not None:
            return sign, titles
    return None


def column(titles: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where the first of the wanted titles stands."""
    return next((titles.index(title) for title in wanted if title in titles), None)


def rows_by_title(
    path: Path, lines: Sequence[tuple[int, str]], sign: str, titles: Sequence[str], left_out: Counter
) -> list[Listed]:
    """The rows of a list with a line of titles."""
    label, split, file = (column(titles, wanted) for wanted in (LABEL_TITLES, SPLIT_TITLES, PATH_TITLES))
    films = None if file is not None else Films(path.parent, titles)
    found, missing = [], []
    for number, line in lines[1:]:
        row = cells_of(line, sign)
        if len(row) != len(titles):
            raise DataError(
                f"{shown(path)}, line {number} has {len(row)} columns, and the titles are {len(titles)} "
                f"({', '.join(titles)}); a path with {sign!r} in it belongs in quotation marks"
            )
        part = row[split].lower() if split is not None else ""
        if part not in SPLIT_WORDS and split is not None:
            raise DataError(
                f"{shown(path)}, line {number}: the split {row[split]!r} is not known; expected train, val or test"
            )
        name = row[file] if films is None else films.name(row)
        place = located(path.parent, name) if films is None else films.find(name, row[label])
        if place is None:
            missing.append((number, name))
        else:
            if films is not None:
                name = place.relative_to(path.parent).as_posix()
            found.append(
                Listed(place, name, checked_label(path, number, row[label]), SPLIT_WORDS.get(part, ""), number)
            )
    if missing and films is not None:
        left_out[f"of {shown(path.name)}: not there (line {missing[0][0]}: {missing[0][1]})"] += len(missing)
    elif missing:
        raise DataError(not_there(path, missing, len(lines) - 1))
    return found


def rows_without_titles(path: Path, lines: Sequence[tuple[int, str]]) -> list[Listed]:
    """The rows of a list of paths and labels. The sign between them is the one with which the first path exists."""
    ways = ["\t", ",", ";", None]
    first = [(way, divided(lines[0][1], way)) for way in ways]
    there = [way for way, (name, label) in first if label and located(path.parent, name)]
    way = there[0] if there else next(way for way, (_, label) in first if label or way is None)
    found, missing = [], []
    for number, line in lines:
        name, label = divided(line, way)
        place = located(path.parent, name)
        if place is None and number == lines[0][0] and len(lines) > 1 and not label.isdecimal():
            raise DataError(
                f"{shown(path)}, line {number}: {line.strip()!r} is neither the path of a file and a label nor a line "
                f"of titles: expected titles such as path and label, or a path relative to {shown(path.parent)}"
            )
        if not label:
            raise DataError(
                f"{shown(path)}, line {number}: {line.strip()!r} has no label: expected a path and a label, with a "
                "space, a tab or a comma between them"
            )
        if place is None:
            missing.append((number, name))
        else:
            found.append(Listed(place, name, checked_label(path, number, label), "", number))
    if missing:
        raise DataError(not_there(path, missing, len(lines)))
    return found


def divided(line: str, sign: str | None) -> tuple[str, str]:
    """(path, label) of a line without titles, the label "" where it is missing. sign: between them, None for spaces."""
    parts = [part.strip().strip('"') for part in line.strip().rsplit(sign, 1)]
    return (parts[0], parts[1]) if len(parts) == 2 else (parts[0], "")


def located(folder: Path, name: str) -> Path | None:
    """The file of this name, relative to the folder or absolute; None where it is not there."""
    for written in (name, name.replace("\\", "/")):
        try:
            place = folder / Path(written).expanduser()
            if written and os.path.lexists(place) and not place.is_dir():  # a pipe is there, to be called what it is
                return place
        except (OSError, RuntimeError, ValueError):  # too long, no such user, a byte 0
            continue
    return None


def checked_label(path: Path, number: int, label: str) -> str:
    """The label of a line: numbers without leading zeros."""
    if not label:
        raise DataError(f"{shown(path)}, line {number} has no label")
    return str(int(label)) if label.isdecimal() and len(label) < 10 else label


def not_there(path: Path, missing: Sequence[tuple[int, str]], total: int) -> str:
    """What to say where files of a list are missing."""
    named = "; ".join(f"line {number}: {name}" for number, name in missing[:MOST_LINES])
    number, name = missing[0]
    words = name.rsplit(maxsplit=1)
    frames = len(words) == 2 and words[1].isdecimal() and (path.parent / words[0]).is_dir()
    hint = " A folder, a number of frames and a label describe pictures; expected video files." * frames
    return (
        f"{shown(path)}: {len(missing)} of {total} files are not there ({named}{'; …' * (len(missing) > MOST_LINES)}). "
        f"Paths are relative to {shown(path.parent)}, or absolute.{hint}"
    )


class Films:
    """The files below a folder by their names without endings, for the rows of Kinetics."""

    def __init__(self, folder: Path, titles: Sequence[str]):
        self.ids = column(titles, ID_TITLES)
        self.times = [column(titles, (title,)) for title in ("time_start", "time_end")]
        self.files: dict[str, list[Path]] = {}
        for file in files_in(folder):
            self.files.setdefault(file.stem, []).append(file)

    def name(self, row: Sequence[str]) -> str:
        """ID_START_END with six digits each, or the ID where the list has no times."""
        parts = [row[self.ids]]
        for at in self.times:
            if at is not None:
                seconds = row[at].partition(".")[0]
                parts.append(seconds.zfill(6))
        return "_".join(parts)

    def find(self, name: str, label: str) -> Path | None:
        """The file of this name, of several the one in a folder that is called as the label."""
        found = self.files.get(name, [])
        return next((file for file in found if file.parent.name == label), found[0] if found else None)
