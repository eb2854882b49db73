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

KINDS = ("build", "break", "explain", "open")
EXERCISE_LINE = re.compile(r"^#+ Exercise (?P<number>\d\d\.\d) · (?P<title>.+) \((?P<rest>[^()]+)\)$")
MARKING = re.compile(r"<details>\s*<summary>.+?</summary>.*\*\*Marking\b.*</details>", re.S)
EXERCISE_HEADING = re.compile(r"^#+ Exercise\b.*$", re.M)
SOLUTION_BEGIN, SOLUTION_END = "### BEGIN SOLUTION", "### END SOLUTION"


# ---- rules, each a generator of (number of the cell or None, what is wrong and how to mend it)


def exercise_texts(master: Master) -> Violations:
    """Two to nine exercises in a chapter, each with minutes and difficulty; those that a check grades with a ladder of
    hints; in a rewritten chapter all four kinds."""
    found = sections(master)
    fewest = 0 if master.chapter == "00" else 2
    if not fewest <= len(found) <= 9:
        yield (
            None,
            (f"has {len(found)} exercises, expected {fewest} to 9, each under '### Exercise {master.chapter}.1 · …'"),
        )
    kinds = [kind_of(heading) for _, heading, _ in found]
    if share_asked(master) is not None and (missing := [kind for kind in KINDS if kind not in kinds]):
        yield None, f"has no exercise of the kind {missing[0]!r}: '### Exercise 04.5 · title (10 minutes, easy, open)'"
    for k, (number, heading, cells) in enumerate(found, 1):
        form = f"### Exercise {master.chapter}.{k} · title (10 minutes, medium)"
        if not heading_parts(heading) or not heading.startswith(f"### Exercise {master.chapter}.{k} "):
            yield number, f"the heading {heading!r} is not of the form {form!r}, or with its kind: (…, medium, break)"
        if kinds[k - 1] in ("explain", "open"):
            continue
        text = "\n".join(cell.source for _, cell in cells if cell.cell_type == "markdown")
        hints = len(re.findall(r"<details>\s*<summary>.+?</summary>", text, re.S))
        if not 2 <= hints <= 3 or len(re.findall("<details", text)) != len(re.findall("</details>", text)):
            yield (
                number,
                (f"has {hints} hints, expected two or three, each as <details><summary>Hint 1</summary> … </details>"),
            )
        if not any(_grading(cell).get("solution") for _, cell in cells):
            yield number, "is followed by no cell to answer in: give one nbgrader's metadata, solution: true"


def written_answers(master: Master) -> Violations:
    """A question to explain is followed by a cell for the answer that a person grades; an open task gives no points."""
    for number, heading, cells in sections(master):
        kind = kind_of(heading)
        answers = [(n, cell) for n, cell in cells if cell.cell_type == "markdown" and _grading(cell).get("solution")]
        if kind == "open" and any(_grading(cell).get("points") for _, cell in cells):
            yield number, "is an open task but gives points: take the points away, or name another kind"
        if kind != "explain":
            continue
        if not answers:
            yield (
                number,
                "is followed by no markdown cell for the answer: nbgrader's metadata, solution and grade: true, points",
            )
        for n, cell in answers:
            meta = _grading(cell)
            if not meta.get("grade") or not meta.get("points") or meta.get("locked"):
                yield n, "is an answer graded by hand: grade: true, points: 1 or more, locked: false"
            if not MARKING.search(cell.source):
                yield (
                    n,
                    "lacks the answer and its rubric, which students do not get: <details><summary>A possible answer, "
                    "and how it is marked</summary> … **Marking (3 points).** … </details>",
                )


def heading_parts(heading: str) -> dict[str, str] | None:
    """An exercise's number, title, minutes, difficulty and kind, by the line of its heading; None for another form.

    "### Exercise 04.2 · Title (10 minutes, medium)"; the name of any kind but "build" comes last. A question to explain
    may do without a difficulty, an open task without minutes too.
    """
    known = EXERCISE_LINE.match(heading)
    if not known:
        return None
    words = known["rest"].split(", ")
    kind = words.pop() if words[-1] in KINDS else "build"
    minutes = words.pop(0).split()[0] if words and re.fullmatch(r"\d+ minutes?( or more)?", words[0]) else ""
    difficulty = words.pop(0) if words and words[0].isalpha() else ""
    needed = {"explain": [minutes], "open": []}.get(kind, [minutes, difficulty])
    if words or not all(needed):
        return None
    return {**known.groupdict(), "minutes": minutes or "–", "difficulty": difficulty, "kind": kind}


def kind_of(heading: str) -> str:
    """The kind of an exercise, by the line of its heading: one of KINDS."""
    parts = heading_parts(heading)
    return parts["kind"] if parts else "build"


def predictions(master: Master) -> Violations:
    """In a rewritten chapter at most two predictions, and no guess made up for the reader."""
    if share_asked(master) is None:
        return
    asked = [(number, cell) for number, cell in master.code if re.search(r"^\s*predict\(", cell.source, re.M)]
    if len(asked) > 2:
        yield asked[2][0], "asks for a third prediction: at most two in a chapter"
    for number, cell in asked:
        if clear_guesses(cell.source) != cell.source:
            yield number, "fills in a guess for the reader: predict(key, question, choices=…) without one"


def readers_lines(master: Master) -> tuple[int, int]:
    """How many lines of code the reader writes, and how many there are in all.

    Lines that are blank or a comment do not count, nor does the bootstrap cell.
    """
    own, total = 0, 0
    for _, cell in master.code:
        if "bootstrap" in tags(cell):
            continue
        inside = False
        for line in map(str.strip, cell.source.splitlines()):
            inside = (inside or line == SOLUTION_BEGIN) and line != SOLUTION_END
            if line and not line.startswith("#"):
                own, total = own + inside, total + 1
    return own, total


def share_asked(master: Master) -> float | None:
    """The share of its code lines that a chapter promises to the reader, in the master's metadata.

    It is written there, vivit_edu: {"readers_share": 0.25}, when a chapter has been rewritten so that the reader builds
    it. Such a chapter is held to more rules.
    """
    return master.nb.metadata.get("vivit_edu", {}).get("readers_share")


def readers_share(master: Master) -> Violations:
    """A chapter keeps its promise of how much the reader writes."""
    asked = share_asked(master)
    own, total = readers_lines(master)
    if asked is not None and own < asked * total:
        yield (
            None,
            f"{own} of its {total} lines of code are the reader's, {own / max(total, 1):.0%}: expected {asked:.0%}",
        )


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


EXERCISE_RULES = (exercise_texts, written_answers, grading, predictions, readers_share)


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
