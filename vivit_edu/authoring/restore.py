"""What nbgrader runs on a submission and on its feedback, in the courses that `vivit-edu classroom` makes."""

from __future__ import annotations

import re
from typing import Any

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor, OverwriteCells

LOOK = (
    "This answer was missing from the submission and is put back here as it was handed out. "
    "Whoever grades: look for it among the other cells.\n\n"
)
FRESH = """\
# Written by the grading: the next check runs as the package has it, whatever the cells above did to it.
import sys
for _name in [n for n in sys.modules if n == "vivit_edu.course" or n.startswith("vivit_edu.course.checks")]:
    del sys.modules[_name]
"""
WRITTEN = FRESH.splitlines()[0]
HIDDEN_FAILED = "A hidden test failed. Your instructor can say more about it."
HIDDEN_OUTPUT = "(This output shows a hidden test and is left out.)"


class RestoreCells(OverwriteCells):
    """Puts a submission in the state that can be graded: every answer and check known by its name, once.

    Cells that lost their metadata are found again by id, then by text; of copies one is graded; checks are put back
    as they were handed out; answers that are missing are put back too, and a written one goes to whoever grades.
    Before each check the package's checks are imported afresh, so that replacing them in the notebook has no effect.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook as nbgrader can grade it; resources: nbgrader's, with the names of notebook and assignment."""
        names = resources["nbgrader"]
        with Gradebook(names["db_url"]) as gradebook:
            handed_out = gradebook.find_notebook(names["notebook"], names["assignment"])
            self.grading = {cell.name: as_handed_out(cell, handed_out) for cell in handed_out.source_cells}
        nb.cells = [cell for cell in nb.cells if not cell.source.startswith(WRITTEN)]
        kept_names = any(_name(cell) in self.grading for cell in nb.cells)
        self.find_again(nb)
        there = {_name(cell) for cell in nb.cells}
        checks = [name for name, given in self.grading.items() if not given.metadata.nbgrader.solution]
        if not kept_names and (gone := [name for name in checks if name not in there]):
            # put back at a guess, they would run before the answers and give no points to anybody
            raise ValueError(
                f"This submission lost the metadata of all its cells, and {', '.join(gone)} cannot be found by text. "
                "Copy its answers into the notebook that was handed out, put that in its place, and grade again."
            )
        self.keep_one(nb)
        nb, resources = super().preprocess(nb, resources)
        for place in reversed(range(len(nb.cells))):
            cell = nb.cells[place]
            checks = re.findall(r"\bch\d\d(?=\.)", cell.source)
            if cell.cell_type == "code" and _name(cell) in self.grading and checks and _meta(cell).get("grade"):
                modules = ", ".join(sorted(set(checks)))
                cell.source = points_last(cell.source)
                nb.cells.insert(place, new_code_cell(f"{FRESH}from vivit_edu.course.checks import {modules}"))
        return nb, resources

    def find_again(self, nb: NotebookNode) -> None:
        """Gives cells that lost their metadata, or parts of it, what they had; drops metadata that names no cell."""
        for cell in nb.cells:
            if _name(cell) not in self.grading:  # empty, damaged or foreign
                cell.metadata.pop("nbgrader", None)
        there = {_name(cell) for cell in nb.cells}
        for find in (lambda cell, name: cell.get("id") == name, self.same_text):
            for name in [name for name in self.grading if name not in there]:
                for cell in nb.cells:
                    if _name(cell) is None and find(cell, name):
                        self.log.warning(f"Cell {name} had lost its metadata, which is put back")
                        cell.metadata["nbgrader"] = {"grade_id": name}
                        there.add(name)
                        break
        for cell in nb.cells:
            if name := _name(cell):
                given = self.grading[name].metadata.nbgrader
                lost = {key: value for key, value in given.items() if key not in _meta(cell)}
                fixed = {key: given[key] for key in ("grade", "solution", "task", "schema_version")}
                cell.metadata["nbgrader"] = NotebookNode({**_meta(cell), **lost, **fixed})

    def same_text(self, cell: NotebookNode, name: str) -> bool:
        """Whether a cell without metadata reads as this one was handed out; not where that is no more than a gap."""
        given = self.grading[name]
        text = "".join(without_hidden_tests(given.source).split())
        return given.cell_type == cell.cell_type and len(text) > 20 and text == "".join(cell.source.split())

    def keep_one(self, nb: NotebookNode) -> None:
        """Of copies the one to grade keeps its name: the answer that was changed, the check that follows the answer."""
        for name, given in self.grading.items():
            copies = [n for n, cell in enumerate(nb.cells) if _name(cell) == name]
            if len(copies) < 2:
                continue
            answer = [n for n, cell in enumerate(nb.cells) if _name(cell) == name.removesuffix("-check")]
            if given.metadata.nbgrader.solution:
                good = [n for n in copies if nb.cells[n].source.strip() != given.source.strip()]
            else:
                good = [n for n in copies if answer and n > answer[0]]
            kept = (good or copies)[0]
            self.log.warning(f"Cell {name} exists {len(copies)} times, one is graded")
            for n in copies:
                if n != kept:
                    del nb.cells[n].metadata["nbgrader"]
            written = given.metadata.nbgrader.solution and given.metadata.nbgrader.grade
            if written and len(good) > 1:  # whoever grades sees them all
                nb.cells[kept].source += "".join(f"\n\n---\n\n{nb.cells[n].source}" for n in good[1:])

    def add_missing_grade_cells(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """Puts back whatever is missing, each cell behind the one that came before it."""
        place = 0
        for name, given in self.grading.items():
            names = [_name(cell) for cell in nb.cells]
            if name in names:
                place = names.index(name) + 1
                continue
            self.log.warning(f"Missing cell {name} is put back as it was handed out")
            if given.metadata.nbgrader.solution and given.metadata.nbgrader.grade:
                given.source = LOOK + given.source  # nobody gets 0 points for an answer that may stand elsewhere
            nb.cells.insert(place, given)
            place += 1
        return nb, resources


def as_handed_out(known: Any, notebook: Any) -> NotebookNode:
    """A cell with its metadata as students got it. known, notebook: what nbgrader's gradebook has of them."""
    points = {cell.name: cell.max_score for cell in (*notebook.grade_cells, *notebook.task_cells)}
    tasks = {cell.name for cell in notebook.task_cells}
    grading = {
        "grade_id": known.name,
        "grade": known.name in points and known.name not in tasks,
        "solution": known.name in {cell.name for cell in notebook.solution_cells},
        "locked": known.locked,
        "task": known.name in tasks,
        "schema_version": 3,
        "checksum": known.checksum,
        "cell_type": known.cell_type,
    }
    if known.name in points:
        grading["points"] = points[known.name]
    new_cell = new_code_cell if known.cell_type == "code" else new_markdown_cell
    return new_cell(known.source, metadata={"nbgrader": grading})


class HideTests(NbGraderPreprocessor):
    """Takes hidden tests out of the pages that students get back: their lines, and the outputs that show them."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook of a feedback page without hidden tests; the points are nbgrader's and stay."""
        hidden = set()
        for cell in nb.cells:
            seen = without_hidden_tests(cell.source)
            if seen == cell.source:
                continue
            hidden |= {line.strip() for line in set(cell.source.splitlines()) - set(seen.splitlines())}
            cell.source = seen
            if cell.cell_type == "code":
                cell.outputs = [_without_hidden(output) for output in cell.outputs]
        telling = [line for line in hidden if len(line) > 12 and not line.startswith(("import ", "from "))]
        for cell in nb.cells:
            for output in cell.get("outputs", []):
                if any(line in _shown(output) for line in telling):
                    output.clear()
                    output.update(output_type="stream", name="stdout", text=HIDDEN_OUTPUT)
        return nb, resources


def without_hidden_tests(source: str) -> str:
    """A cell's text without what stands between BEGIN HIDDEN TESTS and END HIDDEN TESTS, markers included."""
    return re.sub(r"^[^\n]*BEGIN HIDDEN TESTS.*?(END HIDDEN TESTS[^\n]*(\n|\Z)|\Z)", "", source, flags=re.M | re.S)


def points_last(source: str) -> str:
    """A check's cell with the line that gives points for parts at its end: nbgrader reads the value of the last line,
    and hidden tests may stand below it."""
    lines = source.splitlines()
    return "\n".join(sorted(lines, key=lambda line: line.startswith("by_parts(")))


def _without_hidden(output: NotebookNode) -> NotebookNode:
    """An output of a cell with hidden tests: what the visible check said, and of the hidden ones that they failed."""
    if output.output_type == "error" and output.ename != "CheckFailed":
        text = HIDDEN_FAILED
        return NotebookNode(output_type="error", ename="HiddenTest", evalue=text, traceback=[text])
    if output.output_type == "stream":
        output.text = "".join(
            line for line in output.text.splitlines(True) if line.startswith(("Passed ", "Not passed "))
        )
    return output


def _shown(output: NotebookNode) -> str:
    """All text of an output, without a terminal's colours."""
    parts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join([*parts, *map(str, output.get("data", {}).values())]))


def _meta(cell: NotebookNode) -> dict:
    meta = cell.metadata.get("nbgrader")
    return meta if isinstance(meta, dict) else {}


def _name(cell: NotebookNode) -> str | None:
    return _meta(cell).get("grade_id")
