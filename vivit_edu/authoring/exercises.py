"""Exercises: the rules they follow in the masters, and the student notebooks, made of the masters by
nbgrader's own preprocessors, without a gradebook."""

from __future__ import annotations

import ast
import copy
import posixpath
import re
from typing import TYPE_CHECKING

from .masters import Master, Violations, tags

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from nbformat import NotebookNode

EXERCISE_HEADING = re.compile(r"^#+ Exercise\b.*$", re.M)
SOLUTION_BEGIN, SOLUTION_END = "### BEGIN SOLUTION", "### END SOLUTION"


# ---- rules, each a generator of (number of the cell or None, what is wrong and how to mend it)


def exercise_texts(master: Master) -> Violations:
    """Two to four exercises a chapter, each with minutes, difficulty and a ladder of hints."""
    found = sections(master)
    fewest = 0 if master.chapter == "00" else 2
    if not fewest <= len(found) <= 4:
        yield (
            None,
            (f"has {len(found)} exercises, expected {fewest} to 4, each under '### Exercise {master.chapter}.1 · …'"),
        )
    for k, (number, heading, cells) in enumerate(found, 1):
        form = f"### Exercise {master.chapter}.{k} · title (10 minutes, medium)"
        if not re.fullmatch(rf"### Exercise {master.chapter}\.{k} · .+ \(\d+ minutes?, [\w ]+\)", heading):
            yield number, f"the heading {heading!r} is not of the form {form!r}"
        text = "\n".join(cell.source for _, cell in cells if cell.cell_type == "markdown")
        hints = len(re.findall(r"<details>\s*<summary>.+?</summary>", text, re.S))
        if not 2 <= hints <= 3 or len(re.findall("<details", text)) != len(re.findall("</details>", text)):
            yield (
                number,
                (f"has {hints} hints, expected two or three, each as <details><summary>Hint 1</summary> … </details>"),
            )
        if not any(_grading(cell).get("solution") for _, cell in cells):
            yield number, "is followed by no cell to answer in: give one nbgrader's metadata, solution: true"


def sections(master: Master) -> list[tuple[int, str, list[tuple[int, NotebookNode]]]]:
    """The exercises as (number of the cell, heading, cells up to the next heading of level 1 to 3)."""
    found = []
    for number, cell in enumerate(master.nb.cells, 1):
        if cell.cell_type == "markdown" and (heading := EXERCISE_HEADING.search(cell.source)):
            found.append((number, heading[0].strip(), []))
        elif cell.cell_type == "markdown" and re.search(r"^#{1,3} ", cell.source, re.M):
            found.append(None)  # another subject begins: what follows belongs to no exercise
        if found and found[-1]:
            found[-1][2].append((number, cell))
    return [section for section in found if section]


def grading(master: Master) -> Violations:
    """nbgrader can read the metadata; solutions have markers and are checked."""
    from nbgrader import nbgraderformat as nbgrader

    ids = [_grading(cell).get("grade_id") for cell in master.nb.cells]
    for number, cell in enumerate(master.nb.cells, 1):
        meta, lines = _grading(cell), [line.strip() for line in cell.source.splitlines()]
        marks = [line for line in lines if line in (SOLUTION_BEGIN, SOLUTION_END)]
        if meta and ids.index(meta.get("grade_id")) + 1 != number:
            yield number, (f"its grade_id {meta.get('grade_id')!r} is another cell's too: each has one of its own")
        if marks and not meta.get("solution"):
            yield (
                number,
                ("holds solution markers but is no solution cell: give it nbgrader's metadata, solution: true"),
            )
        if cell.cell_type == "code" and meta.get("solution"):
            if not marks or marks != [SOLUTION_BEGIN, SOLUTION_END] * (len(marks) // 2):
                yield (
                    number,
                    (
                        f"is a solution without its markers: put {SOLUTION_BEGIN!r} and {SOLUTION_END!r} around "
                        "what students write"
                    ),
                )
            if meta.get("grade"):
                yield number, "is solution and check in one: put the check in the next code cell"
            elif f"{meta.get('grade_id')}-check" not in ids:
                yield (
                    number,
                    (
                        "has no check: a locked, graded cell with grade_id "
                        f"'{meta.get('grade_id')}-check' that calls one"
                    ),
                )
        if cell.cell_type == "code" and meta.get("grade") and not meta.get("solution"):
            if not meta.get("locked") or not meta.get("points"):
                yield number, ("is a check that is not locked or gives no points: locked: true, points: 1 or more")
            if not re.search(r"\bch\d\d\.\w+\(", cell.source):
                yield number, "is graded but calls no check: ch03.check_…(what the student wrote)"
    refusals = (nbgrader.ValidationError, nbgrader.SchemaTooOldError, nbgrader.SchemaTooNewError, KeyError)
    try:
        nbgrader.MetadataValidator().validate_nb(copy.deepcopy(master.nb))
    except refusals as error:
        yield None, f"nbgrader cannot read its metadata: {error}"


def _grading(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


EXERCISE_RULES = (exercise_texts, grading)


# ---- the student notebooks


def student_notebook(master: Master, names: Iterable[str] = ()) -> NotebookNode:
    """The notebook that students get: no solutions, no outputs, no guesses, links that lead from exercises/.

    names: the file names in exercises/, to which links stay as they are. The master is left as it is.
    """
    from nbgrader import preprocessors as nbgrader

    nb = copy.deepcopy(master.nb)
    nb.metadata.pop("vivit_edu", None)
    for cell in nb.cells:  # before nbgrader sums up what it will hold students to
        if cell.cell_type == "markdown":
            cell.source = move_links(cell.source, {*names, master.path.name})
        elif "bootstrap" not in tags(cell):
            cell.source = clear_guesses(cell.source)
    # what nbgrader's generate_assignment runs, but for what reads or writes its gradebook, and in its order
    for step in (
        nbgrader.LockCells,
        nbgrader.ClearSolutions,
        nbgrader.ClearOutput,
        nbgrader.CheckCellMetadata,
        nbgrader.ComputeChecksums,
        nbgrader.ClearHiddenTests,
        nbgrader.ClearMarkScheme,
        nbgrader.ComputeChecksums,
        nbgrader.CheckCellMetadata,
    ):
        nb, _ = step().preprocess(nb, {})
    return nb


def move_links(text: str, names: Collection[str]) -> str:
    """Links of a notebook, as they must be one folder further down; those to a file in `names` stay."""
    return relink(text, lambda target: target if target.partition("#")[0] in names else f"../{target}")


def relink(text: str, change: Callable[[str], str]) -> str:
    """Markdown in which every link to a file of the course is replaced by what change(target) returns."""

    def changed(match: re.Match) -> str:
        return match[0] if re.match(r"[a-z]+:|#|/", match[2]) else match[1] + change(match[2])

    text = re.sub(r"(\]\(\s*<?)([^)\s>]+)", changed, text)
    return re.sub(r"(<(?:a|img)\b[^>]*?\b(?:href|src)\s*=\s*[\"'])([^\"']+)", changed, text, flags=re.I)


def on_github(target: str, repo: str) -> str:
    """The address in the repository of what a notebook names by a path relative to notebooks/."""
    path = posixpath.normpath(f"notebooks/{target}")
    return f"{repo}/{'raw' if path.endswith('.png') else 'blob'}/main/{path}"


def clear_guesses(source: str) -> str:
    """Calls of predict(key, question, guess) with the guess set to None: each student makes their own."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    spans = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "predict":
            guesses = node.args[2:3] + [word.value for word in node.keywords if word.arg == "guess"]
            spans += [(g.lineno, g.col_offset, g.end_lineno, g.end_col_offset) for g in guesses]
    lines = [line.encode() for line in source.split("\n")]  # ast counts columns in bytes
    for first, start, last, end in sorted(spans, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + b"None" + lines[last - 1][end:]]
    return b"\n".join(lines).decode()
