"""Points part by part: what is right earns its points although the rest is not, and what was borrowed earns none."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module

import nbformat
import pytest
import torch

import vivit_edu
from tests.course.test_checks import fresh  # noqa: F401  (each test begins without events)
from vivit_edu.authoring.classroom import classroom, part_by_part, parts_of, source_notebook
from vivit_edu.authoring.exercises import SOLUTION_BEGIN, SOLUTION_END
from vivit_edu.authoring.masters import checkout, load_definitions, master_paths, notebook_text, read
from vivit_edu.course.checks import CheckFailed, by_parts, ch04, progress, ready
from vivit_edu.course.ready import load

MASTERS = master_paths(checkout() / "notebooks")
FINISHED = load()
SHARES = {"__init__": 1, "forward": 2, "weights": 2}  # of 04.5, as the classroom deals its points out
SLOW = {"01.1", "07.7", "12.6"}  # checks that train; the way to their points is the same


def graded_by_parts():
    """Of all chapters, what is graded part by part: {exercise: (path, source of the answer, of its check, points)}."""
    found = {}
    for path in MASTERS:
        cells = source_notebook(read(path)).cells
        for answer, check in zip(cells, cells[1:]):
            if exercise := re.search(r'^by_parts\("(.*?)"', check.source, re.M):
                found[exercise[1]] = path, answer.source, check.source, check.metadata.nbgrader.points
    return found


GRADED = graded_by_parts()


def opened(answer, part):
    """An answer's cell with one part left open, as students get it."""
    owner, _, name = part.rpartition(".")
    functions = [
        node
        for outer in ast.parse(answer).body
        for node in ast.walk(outer)
        if isinstance(node, ast.FunctionDef) and node.name == name and owner in ("", getattr(outer, "name", ""))
    ]
    lines = answer.splitlines()
    first = next(n for n in range(functions[0].lineno, len(lines)) if SOLUTION_BEGIN in lines[n])
    last = next(n for n in range(first, len(lines)) if SOLUTION_END in lines[n])
    lines[first : last + 1] = [lines[first].replace(SOLUTION_BEGIN, "raise NotImplementedError()")]
    return "\n".join(lines)


def scope(path):
    """What stands in a notebook where an exercise is solved: the chapter's own definitions, what earlier exercises
    built, and the package's names."""
    names, chapter = vars(load_definitions(path)), path.name[:2]
    for exercise in FINISHED:
        for known in FINISHED[exercise]:
            names.setdefault(known.__name__, known)
    ready_made = vars(import_module(f"vivit_edu.course.ready.ch{chapter}"))
    package = {name: getattr(vivit_edu, name) for name in vivit_edu.__all__}
    check = import_module(f"vivit_edu.course.checks.ch{chapter}")
    for name, value in (ready_made | package | {f"ch{chapter}": check, "by_parts": by_parts}).items():
        names.setdefault(name, value)
    return names


def test_every_module_that_is_built_is_graded_part_by_part():
    for path in MASTERS:
        for cell in read(path).nb.cells:
            meta = cell.metadata.get("nbgrader", {})
            if meta.get("solution") and len(parts_of(cell.source if cell.cell_type == "code" else "")) > 1:
                chapter, k = re.fullmatch(r"ch(\d\d)-ex(\d)", meta.grade_id).groups()
                assert f"{chapter}.{k}" in GRADED
    modules = [exercise for exercise, (_, answer, *_) in GRADED.items() if "(nn.Module)" in answer]
    assert {exercise[:2] for exercise in modules} >= {f"{chapter:02d}" for chapter in (0, 2, 3, 4, 5, 6, 7, 8)}


@pytest.mark.parametrize("exercise", sorted(set(GRADED) - SLOW))
def test_a_part_that_is_open_costs_its_own_points_and_no_others(exercise, capsys):
    path, answer, check, total = GRADED[exercise]
    names, line = scope(path), check.splitlines()[-1]
    shares = ast.literal_eval(re.search(r"\{.*?\}", line)[0])
    assert sum(shares.values()) == total and list(shares) == parts_of(answer)
    exec(answer, names)
    assert eval(line, names) is None, "all points"
    for part, share in shares.items():
        exec(opened(answer, part), names)
        capsys.readouterr()
        assert eval(line, names) == total - share, part
        said = capsys.readouterr().out
        assert re.search(rf"^Not passed {exercise}, {part}, 0 of {share}: .*still to be written", said, re.M)
        assert all(f"Passed {exercise}, {other}: {shares[other]}\n" in said for other in shares if other != part)


def test_a_cell_deals_its_points_out_evenly_and_the_last_parts_get_more():
    cell = nbformat.v4.new_code_cell(
        "ch04.check_multi_head(MultiHead)", metadata={"nbgrader": {"points": 5, "grade_id": "ch04-ex5-check"}}
    )
    told = 'by_parts("04.5", ch04.check_multi_head, {"__init__": 1, "forward": 2, "weights": 2}, MultiHead)'
    answer = GRADED["04.5"][1]
    assert part_by_part(cell, answer).splitlines()[-1] == told
    cell.metadata.nbgrader.points = 2  # fewer than parts
    assert part_by_part(cell, answer) == cell.source


# ---- one exercise, answered in other ways than the master's


def multi_head(**methods):
    """A reader's MultiHead: the master's, but for some methods."""
    names = scope(GRADED["04.5"][0])
    exec(GRADED["04.5"][1], names)
    for name, method in methods.items():
        setattr(names["MultiHead"], name, method)
    return names["MultiHead"]


def cut_by_view(self, z):
    """Tokens are cut into pieces, the best known mistake."""
    b, n, dim = z.shape
    q, k, v = self.qkv(z).chunk(3, dim=-1)
    q, k, v = (x.reshape(b, self.heads, n, dim // self.heads) for x in (q, k, v))
    return self.out(torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim))


def test_a_mistake_in_one_method_leaves_the_points_of_the_others(capsys):
    assert by_parts("04.5", ch04.check_multi_head, SHARES, multi_head(forward=cut_by_view)) == 3
    said = capsys.readouterr().out
    assert said.startswith("Not passed 04.5 as a whole: looks as if D was split by view")
    assert "Passed 04.5, __init__: 1\nNot passed 04.5, forward, 0 of 2: looks as if D was split by view" in said
    assert "Passed 04.5, weights: 2" in said and "Passed 04.5:" not in said


def test_a_part_of_an_exercise_is_not_noted_as_the_exercise(capsys):
    own = multi_head(forward=cut_by_view)
    by_parts("04.5", ch04.check_multi_head, SHARES, own)
    assert ready("04.5", own) is FINISHED["04.5"][0], "the notebook goes on with the course's"
    capsys.readouterr()
    progress("04")
    assert capsys.readouterr().out == "Chapter 04: exercises passed: none yet; borrowed from the course: 04.5.\n"


def test_what_was_borrowed_earns_nothing_and_is_named(capsys):
    """By inheritance, which the check itself does not see through."""
    finished = FINISHED["04.5"][0]
    mixed = type("MultiHead", (finished,), {"weights": multi_head().weights, "__module__": "__main__"})
    ch04.check_multi_head(mixed)
    assert by_parts("04.5", ch04.check_multi_head, SHARES, mixed) == 2
    said = capsys.readouterr().out
    for part, share in (("__init__", 1), ("forward", 2)):
        assert f"Not passed 04.5, {part}, 0 of {share}: this is the course's version, from `ready`" in said
    heir = type("MultiHead", (finished,), {"__module__": "__main__"})
    for nothing in (finished, heir):
        with pytest.raises(CheckFailed, match="the course's version, not yours"):
            by_parts("04.5", ch04.check_multi_head, SHARES, nothing)


@pytest.mark.parametrize("answer", [None, 3, torch.nn.Module, type("Plain", (), {}), lambda dim, heads: None])
def test_something_else_altogether_is_the_check_s_own_refusal(answer):
    with pytest.raises(CheckFailed):
        by_parts("04.5", ch04.check_multi_head, SHARES, answer)


def test_an_own_helper_and_an_explicit_super_are_tried_as_they_are():
    class MultiHead(torch.nn.Module):
        def __init__(self, dim, heads):
            super(MultiHead, self).__init__()  # noqa: UP008
            self.heads = heads
            self.qkv, self.out = torch.nn.Linear(dim, 3 * dim), torch.nn.Linear(dim, dim)

        def parts(self, z):
            return self.qkv(z).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

        def forward(self, z):
            return self.out(torch.nn.functional.scaled_dot_product_attention(*self.parts(z)).transpose(1, 2).flatten(2))

        def weights(self, z):
            q, k, _ = self.parts(z)
            return (q @ k.mT).softmax(-1)  # √d is missing

    assert by_parts("04.5", ch04.check_multi_head, SHARES, MultiHead) == 3


def test_the_line_that_gives_points_is_the_last_one_also_under_hidden_tests():
    from vivit_edu.authoring.restore import points_last

    hidden = "### BEGIN HIDDEN TESTS\nassert MultiHead\n### END HIDDEN TESTS"
    assert points_last(f"import x\nby_parts('04.5', x)\n{hidden}") == f"import x\n{hidden}\nby_parts('04.5', x)"
    assert points_last(f"ch03.check_cut(cut)\n{hidden}") == f"ch03.check_cut(cut)\n{hidden}"


def test_the_page_that_comes_back_tells_of_parts_and_not_of_hidden_tests():
    from vivit_edu.authoring.restore import HideTests  # loads nbgrader: not while tests are collected

    check = nbformat.v4.new_code_cell("by_parts('04.5', x)\n### BEGIN HIDDEN TESTS\nprint(7)\n### END HIDDEN TESTS")
    check.outputs = [nbformat.v4.new_output("stream", text="Passed 04.5, a: 1\nNot passed 04.5, b, 0 of 2: wrong\n7\n")]
    nb, _ = HideTests().preprocess(nbformat.v4.new_notebook(cells=[check]), {})
    assert nb.cells[0].outputs[0].text == "Passed 04.5, a: 1\nNot passed 04.5, b, 0 of 2: wrong\n"


# ---- with the real nbgrader

NAME = "04_attention"
NEEDED = """import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from vivit_edu.course.checks import ch04, ready"""
VIEWED = """q, k, v = self.qkv(z).chunk(3, dim=-1)
        q, k, v = (x.reshape(len(z), self.heads, z.shape[1], -1) for x in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))"""
# student: the answer to 04.5, the points, what whoever grades reads of it, and what not
SUBMISSIONS = {
    "cut_by_view": (
        lambda answer: re.sub(
            r"q, k, v = self.split\(z\)\n        y = .*?return self.out\(y\)", VIEWED, answer, flags=re.S
        ),
        3,
        "Not passed 04.5, forward, 0 of 2: looks as if D was split by view",
        "Passed 04.5:",
    ),
    "heir": (
        lambda answer: "class MultiHead(ready('04.5')):\n    def weights" + answer.split("def weights")[1],
        2,
        "Not passed 04.5, forward, 0 of 2: this is the course's version",
        "still to be written",
    ),
}


def nbgrader(folder, *arguments):
    ran = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_nbgrader_gives_points_for_parts_under_hidden_tests_too_and_tells_whoever_grades(tmp_path):
    from nbgrader.api import Gradebook

    def by_id(nb, name):
        return next(cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == name)

    master = read(next(path for path in MASTERS if path.stem == NAME))
    names = ["ch04-ex1", "ch04-ex5", "ch04-ex5-check"]
    needed = nbformat.v4.new_code_cell(NEEDED)  # less than the chapter's own, which takes longer
    master.nb.cells = [*master.nb.cells[:2], needed, *(by_id(master.nb, name) for name in names), master.nb.cells[-1]]
    (tmp_path / "masters").mkdir()
    (tmp_path / "masters" / f"{NAME}.ipynb").write_text(notebook_text(master.nb), encoding="utf-8")
    course = classroom(tmp_path / "class", masters=tmp_path / "masters")
    source = course / "source" / NAME / f"{NAME}.ipynb"
    solved = nbformat.read(source, as_version=4)
    # as the guide has it: below the line that gives the points
    by_id(solved, "ch04-ex5-check").source += "\n### BEGIN HIDDEN TESTS\nassert MultiHead(8, 2).heads == 2\n"
    by_id(solved, "ch04-ex5-check").source += "### END HIDDEN TESTS"
    nbformat.write(solved, source)
    nbgrader(course, "generate_assignment", NAME)
    for student, (edit, *_) in SUBMISSIONS.items():
        nb = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
        for name in names[:2]:
            by_id(nb, name).source = by_id(solved, name).source
        by_id(nb, "ch04-ex5").source = edit(by_id(nb, "ch04-ex5").source)
        (course / "submitted" / student / NAME).mkdir(parents=True)
        nbformat.write(nb, course / "submitted" / student / NAME / f"{NAME}.ipynb")
    nbgrader(course, "autograde", NAME)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        for student, (_, points, said, unsaid) in SUBMISSIONS.items():
            (notebook,) = book.find_submission(NAME, student).notebooks
            (grade,) = [grade for grade in notebook.grades if grade.name == "ch04-ex5-check"]
            assert (grade.auto_score, grade.max_score, grade.needs_manual_grade) == (points, 5, False), student
            seen = nbformat.read(course / "autograded" / student / NAME / f"{NAME}.ipynb", as_version=4)
            text = "".join(output.get("text", "") for output in by_id(seen, "ch04-ex5-check").outputs)
            assert said in text and unsaid not in text, student
