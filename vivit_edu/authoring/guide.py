"""What the instructor's guide, `notebooks/README.md`, says of each exercise: made of the masters and of the
wrong answers that the tests try on its check."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from .exercises import heading_parts, sections
from .masters import Master, master_paths, read

if TYPE_CHECKING:
    from pathlib import Path

GUIDE_BEGIN, GUIDE_END = "<!-- exercises: written by vivit-edu notebooks -->", "<!-- end of exercises -->"
CAPSTONE = re.compile(r"^#+ (?P<title>Capstone · .+)$", re.M)
# wrong answers that the checks catch too, but which are slips and no ideas
SLIPS = {
    "no return",
    "nothing returned",
    "not written",
    "error",
    "a typing error",
    "nothing",
    "something else",
    "a word",
    "made for S = 4",
    "typing error",
}
SHOWN = 6  # of the wrong answers: more in a cell of a table nobody reads


def exercises_markdown(folder: Path) -> str:
    """For each chapter in a folder a table of its exercises, and a last line that counts the points."""
    parts, total = [], 0
    for path in master_paths(folder):
        master = read(path)
        rows = exercise_rows(master, mistakes(folder.parent / "tests" / "exercises" / f"test_ch{path.name[:2]}.py"))
        title = master.nb.cells[0].source.splitlines()[0].lstrip("# ")
        task = capstone(master)
        total += sum(row["points"] for row in rows) + (task["points"] if task else 0)
        lines = [
            f"### [{title}]({path.name})",
            "",
            "| exercise | minutes | points | mistakes that its check names |",
            "|---|---|---|---|",
        ]
        for row in rows:
            told = "; ".join(f"{name} (“{words}”)" if words else name for name, words in row["mistakes"][:SHOWN])
            words = [row["difficulty"], row["kind"] if row["kind"] != "build" else ""]
            difficulty = ", ".join(filter(None, words))
            by_hand = {"explain": "none: marked by hand, with the rubric in the chapter", "open": "none: not graded"}
            lines.append(
                f"| {row['number']} {row['title']} ({difficulty}) | {row['minutes']} | {row['points']} | "
                f"{by_hand.get(row['kind'], told or '–')} |"
            )
        if task:
            lines.append(
                f"| {task['title']} (open) | {task['minutes']} | {task['points']} | none: marked by hand, with the "
                "rubric in the chapter and a scheme in `source/` |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, f"{total} points in {len(parts)} chapters, as far as they are written."])


def exercise_rows(master: Master, wrong: dict[str, list[tuple[str, str]]]) -> list[dict]:
    """A chapter's exercises: dictionaries with number, title, minutes, difficulty, kind, points and mistakes."""
    rows = []
    for _, heading, cells in sections(master):
        graded = [cell for _, cell in cells if cell.metadata.get("nbgrader", {}).get("points")]
        called = re.findall(r"\bch\d\d\.(\w+)\(", "\n".join(cell.source for cell in graded))
        unknown = dict.fromkeys(("number", "title", "minutes", "difficulty"), "–") | {"kind": "build"}
        rows.append(
            {
                **(heading_parts(heading) or unknown),
                "points": sum(cell.metadata["nbgrader"]["points"] for cell in graded),
                "mistakes": [pair for check in called for pair in wrong.get(check, ()) if pair[0] not in SLIPS],
            }
        )
    return rows


def capstone(master: Master) -> dict | None:
    """A chapter's capstone, whose points are given by hand: title, minutes and points; None where it has none."""
    text = "\n".join(cell.source for _, cell in master.text)
    heading = CAPSTONE.search(text)
    if not heading:
        return None
    minutes = re.search(r"[Aa]bout (\d+) minutes", text[heading.end() :])
    graded = [
        cell.metadata["nbgrader"]["points"]
        for _, cell in master.text
        if "capstone" in cell.metadata.get("nbgrader", {}).get("grade_id", "")
    ]
    return {"title": heading["title"], "minutes": minutes[1] if minutes else "–", "points": sum(graded)}


def mistakes(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The wrong answers that a file in tests/exercises tries: {check: [(name, words of the message), ...]}; {} where
    there is no such file. Words that are a pattern, and no text, are left out: ""."""
    if not path.is_file():
        return {}
    found, module = {}, ast.parse(path.read_text(encoding="utf-8"))
    for call in ast.walk(module):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "run_cases":
            wrong = next((word.value for word in call.keywords if word.arg == "wrong"), None)
            pairs = zip(wrong.keys, wrong.values) if isinstance(wrong, ast.Dict) else ()
            named = [(key.value, _plain_pattern(value)) for key, value in pairs if isinstance(key, ast.Constant)]
            found.setdefault(_check_of(call.args[0], module), []).extend(named)
    return found


def _check_of(tried: ast.expr, module: ast.Module) -> str:
    """The name of the check that is tried: `ch03.check_cut`, or one inside a lambda or a function of the module."""
    own = [node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == ast.unparse(tried)]
    inside = (node for place in (tried, *own) for node in ast.walk(place) if isinstance(node, ast.Attribute))
    return next((node.attr for node in inside if node.attr.startswith("check_")), ast.unparse(tried).split(".")[-1])


def _plain_pattern(case: ast.expr) -> str:
    """Of a case (solution, pattern) the pattern, where it is plain text."""
    pattern = case.elts[-1] if isinstance(case, ast.Tuple) else None
    text = pattern.value if isinstance(pattern, ast.Constant) else ""
    return "" if re.search(r"[\\\[\](){}|*+?^$]", text) else text


def filled_in(text: str, folder: Path) -> str:
    """The guide's text with the tables between its markers renewed."""
    before, rest = text.split(GUIDE_BEGIN, 1)
    return f"{before}{GUIDE_BEGIN}\n{exercises_markdown(folder)}\n{GUIDE_END}{rest.split(GUIDE_END, 1)[-1]}"
