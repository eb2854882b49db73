"""What the instructor's guide, `notebooks/README.md`, says of each exercise: made of the masters and of the
wrong answers that the tests try on its check; and the lecture plan, made of the masters' figures and questions."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from .exercises import heading_parts, sections
from .masters import Master, master_paths, read

if TYPE_CHECKING:
    from pathlib import Path

LECTURE_BEGIN, LECTURE_END = "<!-- lectures: written by vivit-edu notebooks -->", "<!-- end of lectures -->"
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
MARKED_BY = re.compile(r"\*\*Marking\b.*?\*\*(.+?)(?:\n\n|</details>)", re.S)
CLICKED = {"reading_strip", "volume_strip", "tubelet_strip", "attention_strip"}  # widgets, which have no caption
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
            by_hand = {"explain": f"by hand: {row['marking']}", "open": "none: not graded"}
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
    return "\n\n".join([*parts, f"{total} points in {len(parts)} chapters."])


def exercise_rows(master: Master, wrong: dict[str, list[tuple[str, str]]]) -> list[dict]:
    """A chapter's exercises: dictionaries with number, title, minutes, difficulty, kind, points, mistakes and marking:
    what an answer in words gets its points for, "" for other kinds."""
    rows = []
    for _, heading, cells in sections(master):
        graded = [cell for _, cell in cells if cell.metadata.get("nbgrader", {}).get("points")]
        called = re.findall(r"\bch\d\d\.(\w+)\(", "\n".join(cell.source for cell in graded))
        unknown = dict.fromkeys(("number", "title", "minutes", "difficulty"), "–") | {"kind": "build"}
        rows.append(
            {
                **(heading_parts(heading) or unknown),
                "points": sum(cell.metadata["nbgrader"]["points"] for cell in graded),
                "marking": in_table(" ".join(found.group(1) for c in graded if (found := MARKED_BY.search(c.source)))),
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
    """The guide's text with the lecture plan and the tables between its markers renewed."""
    made = {(LECTURE_BEGIN, LECTURE_END): lectures_markdown, (GUIDE_BEGIN, GUIDE_END): exercises_markdown}
    for (begin, end), write in made.items():
        if begin in text:
            before, rest = text.split(begin, 1)
            text = f"{before}{begin}\n{write(folder)}\n{end}{rest.split(end, 1)[-1]}"
    return text


# ---- the lecture plan


def lectures_markdown(folder: Path) -> str:
    """For each chapter in a folder, folded away: its sections in order, with the figures to show, the guesses to ask
    for and the exercises of each."""
    parts = []
    for path in master_paths(folder):
        plan = lecture_plan(read(path))
        figures, guesses = (sum(len(row[kind]) for row in plan) for kind in ("figures", "guesses"))
        title = read(path).nb.cells[0].source.splitlines()[0].lstrip("# ")
        counted = f"{figures} figures, {guesses} guess{'es' * (guesses != 1)}"
        lines = [f"<details><summary>{title}: {counted}</summary>", "", "| section | show | ask first | solve |"]
        lines.append("|---|---|---|---|")
        for row in plan:
            shown = "<br>".join(f"· {caption}" for caption in row["figures"])
            asked, solved = ("<br>".join(row[kind]) for kind in ("guesses", "exercises"))
            lines.append(f"| {row['section']} | {shown} | {asked} | {solved} |")
        parts.append("\n".join([*lines, "", "</details>"]))
    return "\n\n".join(parts)


def lecture_plan(master: Master) -> list[dict]:
    """A chapter's sections that have something to show or to do: dictionaries with `section`, and lists of `figures`
    (their captions), `guesses` (the questions of `predict`) and `exercises` (number, minutes and kind)."""
    rows = [{"section": "Before the first section", "figures": [], "guesses": [], "exercises": []}]
    for cell in master.nb.cells:
        if cell.cell_type == "markdown":
            for line in re.findall(r"^#{2,3} .*$", cell.source, re.M):
                if exercise := heading_parts(line):
                    kind = f", {exercise['kind']}" if exercise["kind"] != "build" else ""
                    rows[-1]["exercises"].append(f"{exercise['number']} ({exercise['minutes']}\u00a0min{kind})")
                elif line.startswith("## "):
                    rows.append({"section": line.lstrip("# "), "figures": [], "guesses": [], "exercises": []})
        elif cell.cell_type == "code":
            for call in calls_of(cell.source):
                words = {word.arg: word.value for word in call.keywords}
                if "caption" in words:
                    rows[-1]["figures"].append(in_table(plain_text(words["caption"])))
                elif ast.unparse(call.func) in CLICKED:
                    rows[-1]["figures"].append(f"What `{ast.unparse(call.func)}` draws.")
                elif ast.unparse(call.func) == "predict" and len(call.args) > 1:
                    question = in_table(plain_text(call.args[1]))
                    code_first = "." in question.split()[0]  # "nn.Linear" stays as it is
                    rows[-1]["guesses"].append(question if code_first else question[:1].upper() + question[1:])
    return [row for row in rows if row["figures"] or row["guesses"] or row["exercises"]]


def calls_of(source: str) -> list[ast.Call]:
    """The calls in a cell, in order; none where it is not plain Python, as with a line for the shell."""
    try:
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []
    return sorted(found, key=lambda node: (node.lineno, node.col_offset))


def plain_text(node: ast.expr) -> str:
    """A text of the code; what an f-string fills in is "…"."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "…"


def in_table(text: str) -> str:
    """A text as a cell of a Markdown table has it."""
    return " ".join(text.split()).replace("|", "\\|")
