"""The classroom, end to end with the real nbgrader: hand out, grade right, wrong and broken submissions, give back.

The chapter that is graded is a short one with chapter 03's own exercises and checks.
"""

import copy
import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tests.damage import NO_FILES, no_file
from vivit_edu.authoring.classroom import classroom, lead_out, source_notebook
from vivit_edu.authoring.exercises import SOLUTION_BEGIN, SOLUTION_END
from vivit_edu.authoring.masters import master_paths, notebook_text, read
from vivit_edu.authoring.ours import built_beside, lock_beside
from vivit_edu.cli import main
from vivit_edu.errors import ConfigError
from vivit_edu.support.files import what_is

FOLDER = Path(__file__).parents[2] / "notebooks"
MASTERS = master_paths(FOLDER)
NAME = "03_tubelet_embedding"
each_master = pytest.mark.parametrize("path", MASTERS, ids=[path.stem for path in MASTERS])


# ---- what is written for each chapter


def by_id(nb, grade_id):
    return next(cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


@each_master
def test_a_source_keeps_solutions_and_points_and_drops_outputs_and_guesses(path):
    master = read(path)
    nb = source_notebook(master, [path.stem])
    nbformat.validate(nb)
    theirs = [cell for cell in master.nb.cells if "nbgrader" in cell.metadata]
    without_run = {"outputs": [], "execution_count": None}
    ours = [cell for cell in nb.cells if "nbgrader" in cell.metadata][: len(theirs)]
    parts = "from vivit_edu.course.checks import by_parts\n"  # a check that gives points part by part: test_grading.py
    assert [cell | {"source": ""} if cell.source.startswith(parts) else cell for cell in ours] == [
        cell
        | {"id": cell.metadata.nbgrader.grade_id}
        | (without_run if cell.cell_type == "code" else {})
        | ({"source": ""} if our.source.startswith(parts) else {})
        for cell, our in zip(theirs, ours)
    ]
    assert not any(cell.get("outputs") for cell in nb.cells)
    for cell in nb.cells:
        assert not re.search(r"guess=(?!None)", cell.source)
        assert "colab.research" not in cell.source, "what is handed in is this file, not one in Colab"
        for target in re.findall(r"\]\(([^)#\s]+)", cell.source if cell.cell_type == "markdown" else ""):
            assert re.match(r"https?:", target), f"{target} leads out of the course"
    points = [cell.metadata.nbgrader for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("points")]
    assert any(meta.solution or meta.task for meta in points), "something to answer in words"
    assert master.nb.metadata.get("vivit_edu") and "vivit_edu" not in nb.metadata, "the master is left as it is"


def test_the_capstone_is_marked_by_hand_and_its_scheme_is_kept_from_students(tmp_path):
    from vivit_edu.authoring.exercises import student_notebook

    master = read(next(FOLDER.glob("14_*.ipynb")))
    nb = source_notebook(master, [master.name])
    cells = {name: by_id(nb, f"ch14-capstone-{name}") for name in ("plan", "report")}
    assert [cell.metadata.nbgrader.points for cell in cells.values()] == [6, 14]
    assert all("For the marker.*" in cell.source for cell in cells.values())
    assert not [cell for cell in nb.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "ch14-words"], (
        "one task is enough"
    )
    student = student_notebook(master)
    for name in cells:
        assert by_id(student, f"ch14-capstone-{name}").source == "YOUR ANSWER HERE"
    assert "For the marker" not in notebook_text(student)
    classroom(tmp_path / "class", "14")
    assert re.search(r"^\| 14_cnn_or_vivit \| 7 \| 21 \| 23 \|$", (tmp_path / "class" / "README.md").read_text(), re.M)


@pytest.mark.parametrize(
    "link, leads",
    [
        ("[four](04_attention.ipynb)", "[four](../04_attention/04_attention.ipynb)"),
        ("[four](04_attention.ipynb#Heads)", "[four](../04_attention/04_attention.ipynb#Heads)"),
        (
            "[five](05_model1_spacetime.ipynb)",
            "[five](https://github.com/a/b/blob/main/notebooks/05_model1_spacetime.ipynb)",
        ),
        ("[card](../data/README.md#a)", "[card](https://github.com/a/b/blob/main/data/README.md#a)"),
        ("[here](#Heads) [web](https://arxiv.org)", "[here](#Heads) [web](https://arxiv.org)"),
    ],
)
def test_links_lead_to_assignments_of_the_course_or_to_the_repository(link, leads):
    assert lead_out(link, ["04_attention"], "https://github.com/a/b") == leads


def test_the_command_writes_the_chapters_asked_for(tmp_path):
    course = tmp_path / "class"
    assert main(["classroom", str(course), "--chapters", "03,4"]) == 0
    assert sorted(path.name for path in (course / "source").iterdir()) == [NAME, "04_attention"]
    text = (course / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"\| {NAME} \| 7 \| 25 \| 3 \|", text)
    assert re.findall(r"^nbgrader (\w+) 04_attention$", text, re.M) == [
        "generate_assignment",
        "autograde",
        "generate_feedback",
    ]
    assert main(["classroom", str(course), "--chapters", "05"]) == 0
    assert len(list((course / "source").iterdir())) == 3, "assignments that are in use stay"


def test_renewing_leaves_alone_what_an_instructor_changed_and_says_so(tmp_path, capsys):
    course = tmp_path / "class"
    classroom(course, "03")
    source = course / "source" / NAME / f"{NAME}.ipynb"
    hidden = source.read_text().replace("check_cut_frames(cut", "check_cut_frames(  cut")
    theirs = {
        source: hidden,
        course / "nbgrader_config.py": "c = get_config()\n",
        course / "README.md": "Our own rules.",
        course / "source" / "04_attention" / "04_attention.ipynb": "ours",
        course / "gradebook.db": "points",
    }
    for path, text in theirs.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    capsys.readouterr()
    classroom(course, "03,04,05")
    assert {path: path.read_text() for path in theirs} == theirs
    said = capsys.readouterr().out
    assert all(path.relative_to(course).as_posix() in said for path in list(theirs)[:-1]) and "gradebook" not in said
    assert (course / "source" / "05_model1_spacetime").is_dir() and "05_model1" not in said
    source.unlink()
    classroom(course, "03")
    assert "BEGIN SOLUTION" in source.read_text(), "moved away, it is written again"


def test_what_was_not_changed_is_renewed(tmp_path, capsys):
    course = tmp_path / "class"
    classroom(course, "03", masters=FOLDER)
    source = course / "source" / NAME / f"{NAME}.ipynb"
    mark = course / ".vivit-edu"
    old = source.read_bytes() + b" "  # as an earlier version had written it
    source.write_bytes(old)
    known = json.loads(mark.read_text())
    known["files"][source.relative_to(course).as_posix()] = [sha256(old).hexdigest()]
    mark.write_text(json.dumps(known))
    classroom(course, "03", masters=FOLDER)
    assert source.read_bytes() == old[:-1] and "changed" not in capsys.readouterr().out
    assert not list(tmp_path.glob(".class*")), "nothing is left of what was built beside"


@pytest.mark.parametrize("mark", [None, "", "{}", '{"made": "site", "files": {}}', '{"made": "classroom"}', "[1]"])
def test_a_course_that_is_not_ours_is_left_alone(tmp_path, mark):
    files = {"nbgrader_config.py": "theirs", "README.md": "theirs"} | ({".vivit-edu": mark} if mark is not None else {})
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match="holds other files.*Name another folder"):
        classroom(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_what_cannot_be_a_course_is_refused(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        classroom(tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        classroom(tmp_path / "mine.txt")
    with pytest.raises(ConfigError, match="cannot be written"):
        classroom(tmp_path / "mine.txt" / "below")
    assert main(["classroom", str(tmp_path / "new"), "--chapters", "77"]) == 2
    assert "no chapter 77" in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
def test_what_is_no_folder_and_no_file_is_called_what_it_is_and_left(kind, words, tmp_path, capsys):
    path = no_file(kind, tmp_path / "there")
    if kind != "folder":
        with pytest.raises(ConfigError, match=f"there is {words}; expected the name of a new folder"):
            classroom(path, "03")
        with pytest.raises(ConfigError, match=rf"cannot be written \(.*there is {words}\)"):
            classroom(path / "below", "03")
    classroom(tmp_path / "class", "03")
    readme = no_file(kind, tmp_path / "class" / "README.md")
    classroom(tmp_path / "class", "03")  # which waits for no pipe
    assert what_is(readme) == words and "README.md was changed" in capsys.readouterr().out


def test_nothing_outside_the_folder_and_no_link_is_replaced(tmp_path):
    """Whatever a mark names, and wherever a link in the folder leads."""
    folder, outside = tmp_path / "site", tmp_path / "outside"
    (folder / "deep").mkdir(parents=True), outside.mkdir()
    ours = [sha256(b"ours").hexdigest()]
    for name in ("page", "below", "linked"):
        (outside / name).write_text("ours")
    (folder / "link").symlink_to("../outside")
    (folder / "linked").symlink_to("../outside/linked")
    names = ["../outside/page", str(outside / "page"), "link/below", "linked", "deep/../../outside/page"]
    (folder / ".vivit-edu").write_text(json.dumps({"made": "site", "files": dict.fromkeys(names, ours)}))
    with built_beside(folder, "site", renew_all=True) as (built, kept):
        for name in ("link/below", "link/new", "linked"):
            (built / name).parent.mkdir(exist_ok=True)
            (built / name).write_text("new")
    assert {path.name: path.read_text() for path in outside.iterdir()} == dict.fromkeys(
        ("page", "below", "linked"), "ours"
    )
    assert (folder / "linked").is_symlink() and sorted(kept) == sorted({*names, "link/new"})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, as POSIX has it")
def test_two_commands_do_not_build_in_one_folder(tmp_path, monkeypatch):
    from tests.support.test_locks import other

    monkeypatch.setattr("vivit_edu.support.locks.IN_FOLDER", ".class.lock")
    process, pipe, _ = other(tmp_path)  # as a `classroom` next to this one, which is building
    with pytest.raises(ConfigError, match=f"process {process.pid} on .* is writing to .*class: wait"):
        classroom(tmp_path / "class", "03")
    assert not (tmp_path / "class").exists() and [p.name for p in tmp_path.iterdir()] == [".class.lock"]
    pipe.send("end")
    process.join()
    classroom(tmp_path / "class", "03")
    assert [p.name for p in tmp_path.iterdir()] == ["class"]


def test_folders_with_a_long_common_beginning_do_not_lock_each_other():
    long = Path("site-of-the-course-on-video-transformers-in-the-winter-of-")
    locks = {lock_beside(long.with_name(long.name + year)).name for year in ("2025", "2026")}
    assert len(locks) == 2 and max(map(len, locks)) < 60
    assert lock_beside(Path("up/site")) == Path("up/.site.lock")


def test_a_build_that_fails_touches_nothing(tmp_path, monkeypatch):
    course = tmp_path / "class"
    classroom(course, "03")
    before = {path: path.read_bytes() for path in course.rglob("*") if path.is_file()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vivit_edu.authoring.classroom.write", fail)
    with pytest.raises(ConfigError, match="No space left"):
        classroom(course, "03,04")
    assert {path: path.read_bytes() for path in course.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [course]


# ---- the three commands

# a test that students do not see; its numbers stand nowhere else
HIDDEN = "assert cut_frames(torch.ones(1, 1, 35, 60, 7), (7, 12, 7)).sum() == 2100, 'the secret 2100'"


NEEDED = """import torch
from einops import rearrange
from torch import nn
from vivit_edu.course.checks import ch03, progress"""


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one short chapter: chapter 03's exercises without the lesson around them."""
    root = tmp_path_factory.mktemp("classroom")
    master = read(next(path for path in MASTERS if path.stem == NAME))
    cells = master.nb.cells
    ids = ["ch03-ex5", "ch03-ex5-check", "ch03-ex3", "ch03-ex3-check"]
    needed = new_code_cell(NEEDED)  # less than the chapter's own, in each of 16 kernels
    master.nb.cells = [*cells[:2], needed, cells[3], *(by_id(master.nb, name) for name in ids), *cells[-2:]]
    (root / "masters").mkdir()
    (root / "masters" / f"{NAME}.ipynb").write_text(notebook_text(master.nb), encoding="utf-8")
    return classroom(root / "class", masters=root / "masters")


def nbgrader(course, *arguments):
    """One command as the course's README has it; fails only where nbgrader itself cannot go on."""
    ran = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return ran.returncode, ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def released(course):
    source = course / "source" / NAME / f"{NAME}.ipynb"
    nb = nbformat.read(source, as_version=4)
    by_id(nb, "ch03-ex5-check").source += f"\n### BEGIN HIDDEN TESTS\n{HIDDEN}\n### END HIDDEN TESTS"
    nbformat.write(nb, source)
    code, log = nbgrader(course, "generate_assignment", NAME)
    assert code == 0, log
    return course / "release" / NAME / f"{NAME}.ipynb"


def test_what_students_get_holds_no_solution_and_no_output(released):
    text = released.read_text(encoding="utf-8")
    assert (
        SOLUTION_BEGIN not in text
        and SOLUTION_END not in text
        and "pt // 2 :: pt" not in text
        and "For the marker" not in text
    )
    nb = nbformat.read(released, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in nb.cells)
    assert "NotImplementedError" in by_id(nb, "ch03-ex5").source
    assert by_id(nb, "ch03-words").source == "YOUR ANSWER HERE"
    assert by_id(nb, "ch03-ex5-check").metadata.nbgrader.locked


def answers(nb, solved):
    """Writes the masters' solutions into a student's notebook."""
    for name in ("ch03-ex5", "ch03-ex3"):
        by_id(nb, name).source = by_id(solved, name).source
    by_id(nb, "ch03-words").source = "I guessed 8 and it was 64: three axes, squared."


def mistaken(nb):
    by_id(nb, "ch03-ex3").source = "class MyTubeletEmbedding(nn.Module):\n    pass"


def deleted(nb):
    """One check, and one exercise with its check."""
    for name in ("ch03-ex5-check", "ch03-ex3", "ch03-ex3-check"):
        nb.cells.remove(by_id(nb, name))


def typing_error(nb):
    by_id(nb, "ch03-ex5").source = "def cut_frames(clips, tubelet:\n    return clips"
    by_id(nb, "ch03-words").source = "YOUR ANSWER HERE"


def endless(nb):
    """And the answer in words is gone."""
    by_id(nb, "ch03-ex5").source = "import time\n\nwhile True:\n    time.sleep(0.1)"
    nb.cells.remove(by_id(nb, "ch03-words"))


def changed_check(nb):
    by_id(nb, "ch03-ex5").source = "def cut_frames(clips, tubelet):\n    return clips"
    check = by_id(nb, "ch03-ex5-check")
    check.source, check.metadata.nbgrader["points"] = "print('Passed.')", 50


def copied(nb):
    """A check, an answer and the written answer twice; the second ones come from the clipboard, metadata and all."""
    for name in ("ch03-ex5", "ch03-ex3-check", "ch03-words"):
        twin = copy.deepcopy(by_id(nb, name))
        twin.id = f"copy-of-{name}"
        nb.cells.insert(nb.cells.index(by_id(nb, name)) + (name != "ch03-words"), twin)
    by_id(nb, "ch03-words").source = "YOUR ANSWER HERE"  # the first is left as it was, the second is answered
    check = copy.deepcopy(by_id(nb, "ch03-ex5-check"))
    nb.cells.insert(4, NotebookNode(check | {"id": "too-early"}))


def metadata_lost(nb):
    for cell in nb.cells:
        cell.metadata.clear()


def metadata_and_ids_lost(nb):
    """As after a detour through another format; the checks read as before, the answers do not."""
    metadata_lost(nb)
    for n, cell in enumerate(nb.cells):
        cell.id = f"cell{n}"


def metadata_damaged(nb):
    by_id(nb, "ch03-ex5").metadata["nbgrader"] = {"grade_id": "ch03-ex5"}
    by_id(nb, "ch03-ex5-check").metadata["nbgrader"] = {}
    meta = by_id(nb, "ch03-ex3-check").metadata.nbgrader
    for key in ("points", "grade", "schema_version", "locked"):
        del meta[key]
    by_id(nb, "ch03-ex3").metadata["nbgrader"] = "none"


def cheat(source):
    """No answers, and a cell in front of the exercises that changes the checks."""

    def edit(nb):
        for name in ("ch03-ex5", "ch03-ex3"):
            by_id(nb, name).source = f"{'cut_frames' if name[-1] == '5' else 'MyTubeletEmbedding'} = None"
        nb.cells.insert(4, new_code_cell(source))
        if "rebound" in source:  # in the last cell before the check as well
            by_id(nb, "ch03-ex5").source += "\n" + source

    return edit


PATCHED = "ch03.check_cut_frames = ch03.check_tubelet_embedding = lambda *a, **k: print('Passed.')"
REBOUND = f"from types import SimpleNamespace as rebound\nch03 = rebound()\n{PATCHED}"
PLANTED = f"""import sys
{REBOUND}
sys.modules['vivit_edu.course.checks.ch03'] = ch03
sys.modules['vivit_edu.course.checks'].ch03 = ch03
"""
GUTTED = """import vivit_edu.course.checks as c
c.same_shape = c.call = ch03.call = lambda *a, **k: None
c.CheckFailed.__new__ = None
"""
SPYING = """import inspect
def unused(size, tubelet):
    print('asked for', size, tubelet)
    print(In[-1])
    raise ValueError(f'{size} {tubelet}')
"""


def spying(nb):
    """Passes the visible check of 03.5, and prints what it is called with, and what stands in the cells."""
    by_id(nb, "ch03-ex5").source += "\n" + SPYING
    source = by_id(nb, "ch03-ex5").source
    by_id(nb, "ch03-ex5").source = (
        source.replace("unused(", "spy(")
        + "\nright, n = cut_frames, 0\n"
        + (
            "def cut_frames(clips, tubelet):\n"
            "    print('asked for', tuple(clips.shape), tubelet)\n"
            "    if tuple(tubelet) == (7, 12, 7):\n        raise ValueError(f'{tubelet} were hidden')\n"
            "    return right(clips, tubelet)"
        )
    )
    nb.cells.append(new_code_cell("print('\\n'.join(In))"))
    nb.cells.append(new_code_cell("### BEGIN HIDDEN TESTS\nprint('mine')"))


# student: what was done to the right answers, the points of 03.5 and 03.3, and whether the words wait for a reader
CASES = {
    "right": (lambda nb: None, (2, 5), True),
    "mistaken": (mistaken, (2, 0), True),
    "deleted": (deleted, (2, 0), True),
    "typing_error": (typing_error, (0, 5), False),
    "endless": (endless, (0, 5), True),
    "changed_check": (changed_check, (0, 5), True),
    "copied": (copied, (2, 5), True),
    "metadata_lost": (metadata_lost, (2, 5), True),
    "metadata_and_ids_lost": (metadata_and_ids_lost, (2, 5), True),
    "metadata_damaged": (metadata_damaged, (2, 5), True),
    "patched": (cheat(PATCHED), (0, 0), True),
    "rebound": (cheat(REBOUND), (0, 0), True),
    "planted": (cheat(PLANTED), (0, 0), True),
    "gutted": (cheat(GUTTED), (0, 0), True),
    "spying": (spying, (0, 5), True),
}


@pytest.fixture(scope="module")
def graded(course, released):
    """All submissions, graded by one command; its log."""
    solved = nbformat.read(course / "source" / NAME / f"{NAME}.ipynb", as_version=4)
    for student, (edit, *_) in CASES.items():
        nb = nbformat.read(released, as_version=4)
        answers(nb, solved)
        edit(nb)
        (course / "submitted" / student / NAME).mkdir(parents=True)
        nbformat.write(nb, course / "submitted" / student / NAME / f"{NAME}.ipynb")
    with open(
        course / "nbgrader_config.py", "a", encoding="utf-8"
    ) as file:  # an instructor's shorter limit, for one cell
        file.write("\nc.Execute.timeout_func = lambda cell: 1 if 'while True' in cell.source else 180\n")
    code, log = nbgrader(course, "autograde", NAME)
    assert code == 0, log
    return log


@pytest.mark.parametrize("student", CASES)
def test_each_submission_gets_exactly_the_points_it_should(course, graded, student):
    from nbgrader.api import Gradebook

    _, points, unread = CASES[student]
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        (notebook,) = book.find_submission(NAME, student).notebooks
        grades = {grade.name: grade for grade in notebook.grades}
        assert {name: grade.max_score for name, grade in grades.items()} == {
            "ch03-ex5-check": 2,
            "ch03-ex3-check": 5,
            "ch03-words": 3,
        }
        assert (grades["ch03-ex5-check"].auto_score, grades["ch03-ex3-check"].auto_score) == points
        assert not grades["ch03-ex5-check"].needs_manual_grade and not grades["ch03-ex3-check"].needs_manual_grade
        assert grades["ch03-words"].needs_manual_grade is unread


def test_a_submission_in_which_nothing_can_be_found_again_is_put_before_a_person(course, released):
    """Without metadata, with other ids and with changed checks: an error names it, instead of 0 points."""
    from vivit_edu.authoring.restore import RestoreCells

    nb = nbformat.read(released, as_version=4)
    check = nb.cells.index(by_id(nb, "ch03-ex5-check"))
    metadata_and_ids_lost(nb)
    nb.cells[check].source += "  # changed"
    names = {"notebook": NAME, "assignment": NAME, "db_url": f"sqlite:///{course / 'gradebook.db'}"}
    with pytest.raises(ValueError, match="lost the metadata .* ch03-ex5-check cannot be found .* handed out"):
        RestoreCells(add_missing_cells=True).preprocess(nb, {"nbgrader": names})


def test_what_was_tampered_with_is_reported(graded):
    about = dict(zip(re.findall(r"Sanitizing .*submitted.(\w+).", graded), re.split(r"Sanitizing ", graded)[1:]))
    assert set(about) == set(CASES)
    for name in ("ch03-ex5-check", "ch03-ex3", "ch03-ex3-check"):
        assert f"Missing cell {name} is put back" in about["deleted"]
    assert "ch03-ex3-check exists 2 times" in about["copied"]
    assert "Cell ch03-words had lost its metadata" in about["metadata_lost"]
    assert "Missing cell ch03-words" in about["endless"] and "ch03-words" in about["metadata_and_ids_lost"]
    assert "Attribute 'checksum' for cell ch03-ex5-check has changed!" in about["changed_check"]
    assert "Attribute 'points' for cell ch03-ex5-check has changed! (should be: 2.0, got: 50" in about["changed_check"]
    assert "Timeout waiting for execute reply" in about["endless"]
    for student in ("right", "mistaken", "typing_error"):
        # a check with hidden tests is one that nbgrader always restores
        ignored = r"\[IPKernelApp\] WARNING.*|.*WARNING.*'checksum' for cell ch03-ex5-check has changed!.*"
        assert "WARNING" not in re.sub(ignored, "", about[student])


def test_feedback_shows_the_checks_own_messages(course, graded):
    code, log = nbgrader(course, "generate_feedback", NAME)
    assert code == 0, log
    pages = {
        student: (course / "feedback" / student / NAME / f"{NAME}.html").read_text(encoding="utf-8")
        for student in CASES
    }
    assert "Passed 03.5" in pages["right"] and "Passed 03.3" in pages["right"] and "CheckFailed" not in pages["right"]
    assert "Passed 03.5" in pages["mistaken"] and re.search(r"CheckFailed: .*positional argument", pages["mistaken"])
    assert "SyntaxError" in pages["typing_error"] and "CellTimeoutError" in pages["endless"]
    assert "Passed 03.5" not in pages["changed_check"] and "CheckFailed" in pages["changed_check"]
    assert "still to be written" in pages["deleted"]
    assert "look for it among the other cells" in pages["endless"]
    for student, page in pages.items():
        text = re.sub("<[^>]*>", "", page)
        for secret in ("HIDDEN TESTS", "2100", "35, 60", "(7, 12, 7)"):
            theirs = student == "spying" and secret == "(7, 12, 7)"  # the answer itself names it
            assert theirs or secret not in text, (student, secret)
    assert "A hidden test failed" in pages["spying"] and "Passed 03.5" in pages["spying"]


def test_a_classroom_of_an_earlier_version_still_grades(course, graded):
    """Its configuration names the old place, and nbgrader's own step that takes the names of copies away."""
    from nbgrader.api import Gradebook

    config = (course / "nbgrader_config.py").read_text(encoding="utf-8")
    new = '"vivit_edu.authoring.restore.RestoreCells"'
    assert new in config
    old = config.replace(new, '"vivit_edu.course.restore.RestoreCells"').replace(
        '    "nbgrader.preprocessors.OverwriteKernelspec"',
        '    "nbgrader.preprocessors.DeduplicateIds",\n    "nbgrader.preprocessors.OverwriteKernelspec"',
    )
    (course / "nbgrader_config.py").write_text(old, encoding="utf-8")
    try:
        code, log = nbgrader(course, "autograde", NAME, "--student=copied", "--force")
    finally:
        (course / "nbgrader_config.py").write_text(config, encoding="utf-8")
    assert code == 0 and "Sanitizing" in log, log
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        (notebook,) = book.find_submission(NAME, "copied").notebooks
        assert sorted(grade.auto_score for grade in notebook.grades if "ex" in grade.name) == [2, 5]
