"""`vivit-edu classroom DIR`: an nbgrader course made of the masters, to hand out, collect, grade and give back."""

from __future__ import annotations

import ast
import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .exercises import SOLUTION_BEGIN, clear_guesses, on_github, relink
from .masters import Master, badges, checkout, master_paths, notebook_text, read, tags, write
from .notebooks import choose
from .ours import built_beside

if TYPE_CHECKING:
    from collections.abc import Collection

    from nbformat import NotebookNode

CONFIG = '''\
"""nbgrader's configuration of this course; all it can hold: https://nbgrader.readthedocs.io"""

import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821  (nbgrader gives it)
c.CourseDirectory.root = str(Path(__file__).parent)
c.CourseDirectory.course_id = "vivit-edu"
c.CourseDirectory.ignore = [".vivit_edu", ".ipynb_checkpoints", "__pycache__", "*.pyc"]
# what a student deleted is put back, so that it gives no points instead of a gap
c.Autograde.sanitize_preprocessors = [
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "vivit_edu.authoring.restore.RestoreCells",
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.RestoreCells.add_missing_cells = True
# the pages that students get back hold no hidden tests
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "vivit_edu.authoring.restore.HideTests",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
# seconds for a cell: the slowest ones train a model. A cell that takes longer is stopped, and the rest runs on
c.Execute.timeout = 180
c.Execute.iopub_timeout = 60
c.Execute.shutdown_kernel = "immediate"  # leaving torch in an orderly way takes half a second of each submission
# nbgrader starts programs of its environment, also where that is not activated
os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
# all are graded alike: on the course's synthetic phantom, which needs no download, and on the CPU
os.environ["VIVIT_EDU_DATASET"] = "organphantom3d"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
'''

README = """\
# The classroom

An [nbgrader](https://nbgrader.readthedocs.io) course, written by `vivit-edu classroom`. Each chapter is an
assignment. These three commands, run in this folder, take a chapter (here {chapter}) from handing out to giving
back. They belong to the environment that the course is installed in, with its extra `classroom`: activate it, or write
`uv run --project FOLDER_OF_THE_CLONE` in front of each.

```bash
nbgrader generate_assignment {name}
nbgrader autograde {name}
nbgrader generate_feedback {name}
```

1. `generate_assignment` writes what students get to `release/{name}/`: no solutions, no outputs.
   Hand it out as you like; put what comes back into `submitted/STUDENT/{name}/{name}.ipynb`.
2. `autograde` runs every submission and keeps the points in `gradebook.db`. Checks that a student changed or
   deleted are restored first, with a warning that names them, and each check is imported afresh before it runs.
   A cell that does not end is stopped. After it, grade the written answers by hand: `jupyter lab`, menu Nbgrader,
   Formgrader.
3. `generate_feedback` writes pages with the points and the checks' own messages to `feedback/STUDENT/{name}/`.

`nbgrader export` writes all points to `grades.csv`. After a change in `source/`, run the first command again.
`vivit-edu classroom` on this folder renews what it wrote; it leaves files that you changed alone, and names them.

| assignment | exercises | points by checks | points by hand |
|---|---|---|---|
{table}

The solutions of the course are public. Where points decide anything, add checks of your own to `source/`: a
graded cell whose lines between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` students do not see, neither in
their notebooks nor in the feedback. The instructor's guide of the course says what grading cannot prevent.
"""

# A question that fits every chapter, since in each one predictions are made before the cells are run.
QUESTION = """\
### In your own words (graded by hand, {points} points)

Choose the prediction of this chapter that surprised you most. In three to six sentences: what had you expected,
what came out, and what in the model or in the data explains the difference?
"""
# nbgrader clears what stands between the markers and writes YOUR ANSWER HERE instead
ANSWER = """\
### BEGIN SOLUTION
For the marker. One point for guess and outcome, both with their numbers. Two for an explanation that names
the mechanism (which axis, which tokens, which count) and would let one predict the next case; one if it only says
the outcome again.
### END SOLUTION
"""
QUESTION_POINTS = 3


def classroom(folder: Path | str, chapters: str | list | None = None, *, masters: Path | None = None) -> Path:
    """Lays out an nbgrader course: source/NAME/NAME.ipynb for each chapter, nbgrader_config.py and README.md.

    folder: where: new, empty, or a course that this function made before. Then its files are renewed, but for those
    that were changed since, which are named and left alone. chapters: "03,05" or numbers; None is all. masters: the
    folder of the masters; None is notebooks/ of the checkout. Returns the folder. Raises ConfigError where there is
    no such chapter, no checkout, or a folder that holds something else or cannot be written to.
    """
    folder, masters = Path(folder), masters or checkout() / "notebooks"
    paths = choose(master_paths(masters), chapters)
    first = paths[min(1, len(paths) - 1)]
    with built_beside(folder, "classroom", renew_all=False) as (built, kept):
        rows = []
        for path in paths:
            nb = source_notebook(read(path), [path.stem for path in paths])
            write(built / "source" / path.stem / path.name, notebook_text(nb))
            rows.append(_row(path.stem, nb))
        write(built / "nbgrader_config.py", CONFIG)
        readme = README.format(chapter=first.name[:2], name=first.stem, table="\n".join(rows))
        write(built / "README.md", readme)
    for name in kept:
        print(f"{name} was changed since this command wrote it, and stays as it is. To renew it, move it away first.")
    return folder


def source_notebook(master: Master, names: Collection[str] = ()) -> NotebookNode:
    """What nbgrader makes an assignment of: the master with its solutions, without its outputs and guesses.

    names: the assignments of the course, to which links lead from folder to folder; other links go to the
    repository. A chapter that asks for no written answer itself ends with one question that is graded by hand.
    """
    nb = copy.deepcopy(master.nb)
    nb.metadata.pop("vivit_edu", None)
    for badge in badges(master.name, master.repo).splitlines():  # what is handed in is this file, none in Colab
        nb.cells[0].source = nb.cells[0].source.replace(badge, "").strip()
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = lead_out(cell.source, names, master.repo)
            continue
        cell.outputs, cell.execution_count = [], None
        if "bootstrap" not in tags(cell):
            cell.source = clear_guesses(cell.source)
    for answer, check in zip(nb.cells, nb.cells[1:]):
        if _grading(answer).get("grade_id", "") + "-check" == _grading(check).get("grade_id"):
            check.source = part_by_part(check, answer.source)
    for cell in nb.cells:  # an answer whose metadata is lost is known by its id
        cell.id = cell.metadata.get("nbgrader", {}).get("grade_id", cell.id)
    if not any(_by_hand(cell) for cell in nb.cells):
        last = [n for n, cell in enumerate(nb.cells) if re.search("^#+ What to take along", cell.source, re.M)]
        end = last[0] if last else len(nb.cells)
        nb.cells[end:end] = question(master.chapter)
    return nb


def part_by_part(check: NotebookNode, solution: str) -> str:
    """The source of a check's cell that gives points for each part of an answer, in equal shares.

    check: the cell in the master, one call: ch04.check_multi_head(MultiHead). solution: the answer's source. An
    exercise with one part, or with more parts than points, keeps the cell as it is.
    """
    names, total = parts_of(solution), _grading(check)["points"]
    call = re.fullmatch(r"(ch\d\d\.\w+)\((.+)\)", check.source.strip())
    exercise = re.fullmatch(r"ch(\d\d)-ex(\d)-check", _grading(check)["grade_id"])
    if not call or not exercise or not 2 <= len(names) <= total:
        return check.source
    each, left = divmod(total, len(names))
    shares = {name: each + (place >= len(names) - left) for place, name in enumerate(names)}  # the last ones get more
    told = f'"{exercise[1]}.{exercise[2]}", {call[1]}, {json.dumps(shares)}, {call[2]}'
    return f"from vivit_edu.course.checks import by_parts\nby_parts({told})"


def parts_of(solution: str) -> list[str]:
    """The functions and methods that a reader writes in an answer's cell.

    A method goes by its own name where the cell defines nothing but its class, else as CLASS.method.
    """
    body = [node for node in ast.parse(solution).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    lines, names = [line.strip() for line in solution.splitlines()], []
    for node in body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        for function in (child for child in inner if isinstance(child, ast.FunctionDef)):
            if SOLUTION_BEGIN in lines[function.lineno - 1 : function.end_lineno]:
                prefix = f"{node.name}." if function is not node and len(body) > 1 else ""
                names.append(prefix + function.name)
    return names


def question(chapter: str) -> list[NotebookNode]:
    """The cells of a question that is answered in words and graded by hand."""
    from nbformat.v4 import new_markdown_cell

    name = f"ch{chapter}-words"
    grading = {
        "grade": True,
        "solution": True,
        "locked": False,
        "points": QUESTION_POINTS,
        "grade_id": name,
        "schema_version": 3,
        "task": False,
    }
    return [
        new_markdown_cell(QUESTION.format(points=QUESTION_POINTS).rstrip(), id=f"{name}-question"),
        new_markdown_cell(ANSWER.rstrip(), id=name, metadata={"nbgrader": grading}),
    ]


def lead_out(text: str, names: Collection[str], repo: str) -> str:
    """Relative links as they must be in a course: to another assignment, else to the repository."""

    def change(target: str) -> str:
        name = Path(target.partition("#")[0]).stem
        return f"../{name}/{target}" if name in names else on_github(target, repo)

    return relink(text, change)


def _grading(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


def _by_hand(cell: NotebookNode) -> bool:
    """Whether a person gives the points: a written answer or a task."""
    meta = _grading(cell)
    return bool(meta.get("task") or meta.get("grade") and meta.get("solution"))


def _row(name: str, nb: NotebookNode) -> str:
    """An assignment's line in the README's table."""
    cells = [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("points")]
    points = [
        sum(cell.metadata["nbgrader"]["points"] for cell in cells if _by_hand(cell) is by_hand)
        for by_hand in (False, True)
    ]
    exercises = sum(not _by_hand(cell) for cell in cells)
    return f"| {name} | {exercises} | {points[0]} | {points[1]} |"
