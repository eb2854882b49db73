"""The notebooks: every master follows the rules, is in step with what is made of it, and runs again under nbval.
The harness that sees to it is tested on a small chapter which breaks one rule at a time."""

import copy
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tests.sample_chapter import CHECKED, HINTS, REPO, sample_notebook
from vivit_edu.authoring import notebooks as harness
from vivit_edu.authoring.exercises import clear_guesses, heading_parts, move_links, readers_lines, student_notebook
from vivit_edu.authoring.masters import (
    Master,
    bootstrap_cell,
    load_definitions,
    master_paths,
    notebook_text,
    read,
    repository,
    write,
)
from vivit_edu.authoring.outputs import WIDGET, clean, digest, live
from vivit_edu.authoring.rules import broken_rules
from vivit_edu.course.map import course_map
from vivit_edu.course.recorded import recorded
from vivit_edu.errors import ConfigError, VivitEduError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
MASTERS = master_paths(FOLDER)
each_master = pytest.mark.parametrize("path", MASTERS, ids=[path.stem for path in MASTERS])


# ---- the masters of the course


@each_master
def test_a_master_follows_the_rules(path):
    assert broken_rules(read(path)) == []


def test_student_notebooks_and_map_are_in_step_with_the_masters():
    assert harness.violations(FOLDER, paths=[]) == []


# jsonschema does without this one, which compiles 38 grammars of web addresses wherever it is imported: 1.3 s each time
PYTEST = "import sys; sys.modules['rfc3987_syntax'] = None; import pytest; sys.exit(pytest.main())"


def run_nbval(path):
    """nbval on one notebook, in a process of its own that sees what the harness gives a kernel.

    pytest's other plugins are not loaded there, which would take seconds for each chapter.
    """
    return subprocess.run(
        [
            sys.executable,
            "-c",
            PYTEST,
            "-o",
            "addopts=",
            "-p",
            "nbval.plugin",
            "--nbval-lax",
            "--nbval-current-env",
            "--nbval-cell-timeout=240",
            "-p",
            "no:cacheprovider",
            "-q",
            "--tb=short",
            path.name,
        ],
        cwd=path.parent,
        env=os.environ
        | harness.ENVIRONMENT
        # two chapters run side by side; the live run of chapter 12 is compared with nothing, and has three epochs only
        # where outputs are made
        | {"OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "VIVIT_EDU_EPOCHS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@each_master
def test_a_master_runs_again_to_the_same_outputs(path, phantom):
    ran = run_nbval(path)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]


@each_master
def test_what_a_master_defines_can_be_loaded_for_tests(path):
    assert load_definitions(path).__name__ == path.stem


# ---- a small chapter from end to end


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one chapter, executed by the command."""
    root = tmp_path_factory.mktemp("course")
    (root / "notebooks").mkdir()
    (root / "pyproject.toml").write_text(f'[project.urls]\n# here alone\nRepository = "{REPO}"\n', encoding="utf-8")
    (root / "README.md").write_text(
        f"Clone {REPO}.\n\n{harness.MAP_BEGIN}\nold\n{harness.MAP_END}\n\nMore.\n", encoding="utf-8"
    )
    nb = sample_notebook()
    nb.metadata["jupytext"] = {"main_language": "python"}
    nb.cells[4].metadata["collapsed"] = True
    nb.cells.insert(
        -1,
        new_code_cell(
            "print('A map:')\nfrom IPython.display import Markdown, display\ndisplay(Markdown('to be filled'))",
            metadata={"tags": ["course-map"]},
        ),
    )
    nbformat.write(nb, root / "notebooks" / "03_sample.ipynb")
    harness.notebooks(folder=root / "notebooks", repo=REPO)
    return root


@pytest.fixture
def sample(course):
    """A copy of the executed chapter, to be broken."""
    return read(course / "notebooks" / "03_sample.ipynb", REPO)


def test_the_command_leaves_a_chapter_that_follows_the_rules(course, sample):
    assert broken_rules(sample) == []
    assert harness.violations(course / "notebooks", repo=REPO) == []
    run = sample.nb.metadata["vivit_edu"]
    assert run["digest"] == digest(sample.nb) and 0 < run["seconds"] < 60 and 50 < run["peak_mb"] < 4000
    assert set(sample.nb.metadata) == {"kernelspec", "language_info", "vivit_edu"}
    assert [cell.execution_count for _, cell in sample.code] == list(range(1, len(sample.code) + 1))
    assert not sample.nb.cells[5].outputs, "the progress bar is gone"
    assert (course / "notebooks" / "03_sample.ipynb").read_bytes().endswith(b"}\n")


def test_the_map_stands_in_the_readme_and_in_the_chapter_that_shows_it(course, sample):
    run = sample.nb.metadata["vivit_edu"]
    (row,) = course_map(course / "notebooks")
    assert row == {
        "chapter": "03",
        "title": "A sample",
        "file": "03_sample.ipynb",
        "builds": "doubling",
        "minutes": "10",
        "hardware": "a CPU is enough",
        "seconds": run["seconds"],
        "peak_mb": run["peak_mb"],
    }
    readme = (course / "README.md").read_text(encoding="utf-8")
    assert (
        "| 03 | [A sample](notebooks/03_sample.ipynb) | doubling | 10 | 0." in readme
        and "old" not in readme
        and "More." in readme
    )
    assert "[A sample](03_sample.ipynb)" in str(sample.nb.cells[-2].outputs)


def test_nothing_is_executed_twice_and_a_second_run_changes_no_byte(course, monkeypatch):
    files = [*course.rglob("*.ipynb"), course / "README.md"]
    assert len(files) == 3
    before = [path.read_bytes() for path in files]
    monkeypatch.setattr(harness, "execute", lambda master: pytest.fail("executed though nothing changed"))
    harness.notebooks(folder=course / "notebooks", repo=REPO)
    assert [path.read_bytes() for path in files] == before


def test_changed_code_is_executed_again_and_changed_text_is_not(course, sample, tmp_path, monkeypatch):
    executed = []
    monkeypatch.setattr(harness, "execute", lambda master: executed.append(master.name) or sample_run(master))
    folder = tmp_path / "notebooks"
    for edit, times in (
        (lambda nb: nb.cells[3].update(source="## Twice"), 0),
        (lambda nb: nb.cells[1].update(source=bootstrap_cell("https://github.com/a/b")), 0),
        (lambda nb: nb.cells[4].update(source="cells = 7\ncells"), 1),
    ):
        master = copy.deepcopy(sample)
        edit(master.nb)
        harness.write(folder / "03_sample.ipynb", notebook_text(master.nb))
        executed.clear()
        harness.renew(folder / "03_sample.ipynb")
        assert len(executed) == times
    harness.renew(folder / "03_sample.ipynb", force=True)
    assert len(executed) == 2


def sample_run(master):
    master.nb.metadata["vivit_edu"] = {"digest": digest(master.nb), "seconds": 1.0, "peak_mb": 100}


def test_a_failing_cell_is_named_and_the_file_stays(course, sample, tmp_path):
    sample.nb.cells[4].source = "1 / 0"
    path = tmp_path / "03_sample.ipynb"
    path.write_text(notebook_text(sample.nb), encoding="utf-8")
    before = path.read_bytes()
    (found,) = harness.renew(path)
    assert found.startswith("03_sample.ipynb, code cell 5 ('1 / 0'): failed") and "ZeroDivisionError" in found
    assert "\x1b" not in found and path.read_bytes() == before


def test_a_kernel_that_does_not_start_is_said_and_the_file_stays(course, sample, tmp_path, monkeypatch):
    from nbconvert.preprocessors import ExecutePreprocessor

    def die(*_, **__):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(ExecutePreprocessor, "preprocess", die)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    text = (course / "notebooks" / "03_sample.ipynb").read_bytes()
    (folder / "03_sample.ipynb").write_bytes(text)
    found = harness.renew(folder / "03_sample.ipynb", force=True)
    assert "Kernel died" in found[0] and (folder / "03_sample.ipynb").read_bytes() == text


@pytest.mark.parametrize("text", ["<<<<<<< HEAD", "[1, 2]", '{"cells": 3}', "\xff"])
def test_a_file_that_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "03_x.ipynb"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ConfigError, match="03_x.ipynb is not a readable notebook .*restore"):
        read(path, REPO)


def test_check_writes_nothing_and_says_all_that_is_wrong(course, sample, tmp_path):
    folder = tmp_path / "notebooks"
    sample.nb.cells[4].source += "\n# new"
    harness.write(folder / "03_sample.ipynb", notebook_text(sample.nb))
    harness.write(folder / "exercises" / "04_gone.ipynb", notebook_text(sample.nb))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.ipynb")}
    with pytest.raises(VivitEduError) as raised:
        harness.notebooks(check=True, folder=folder)
    for text in ("code has changed", "exercises/03_sample.ipynb is not in step", "04_gone.ipynb has no master"):
        assert text in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.ipynb")} == before


def test_a_new_address_is_written_everywhere(course, tmp_path):
    import shutil

    root = tmp_path / "course"
    shutil.copytree(course, root)
    harness.notebooks(folder=root / "notebooks", repo="https://github.com/else-where/vit.git")
    new = "https://github.com/else-where/vit"
    assert tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"] == new
    for path in root.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        assert "somebody/a-course" not in text and "else-where/vit" in text, path.name
        if path.suffix == ".ipynb":
            assert read(path).nb.cells[1].source == bootstrap_cell(new)
    with pytest.raises(ConfigError, match="https://github.com/OWNER/NAME"):
        harness.notebooks(folder=root / "notebooks", repo="https://gitlab.com/a/b")
    with pytest.raises(ConfigError, match="--check writes nothing"):
        harness.notebooks(folder=root / "notebooks", repo=new, check=True)


def test_chapters_are_chosen_by_number():
    paths = [Path("00_a.ipynb"), Path("03_b.ipynb"), Path("12_c.ipynb")]
    assert harness.choose(paths, None) == paths
    assert harness.choose(paths, "3, 12") == harness.choose(paths, [3, "12"]) == paths[1:]
    with pytest.raises(ConfigError, match="no chapter 04: expected some of 00, 03, 12"):
        harness.choose(paths, "03,04")
    for nothing in ("", ",", "03,", " ,03"):  # a variable of the shell that nobody set is not chapter 00
        with pytest.raises(ConfigError, match="no chapter ''"):
            harness.choose(paths, nothing)


def test_nbval_compares_checked_cells_and_runs_the_others(course, sample, tmp_path):
    """nbval leaves pictures out, so a figure may stand in a checked cell; text that differs fails it."""
    figure, tokens = sample.nb.cells[8], sample.nb.cells[4]
    figure.metadata.update(CHECKED)
    figure.outputs[0].data["image/png"] = "AAAA"
    path = tmp_path / "03_sample.ipynb"
    path.write_text(notebook_text(sample.nb), encoding="utf-8")
    assert run_nbval(path).returncode == 0
    tokens.outputs[0].data["text/plain"] = "65"
    path.write_text(notebook_text(sample.nb), encoding="utf-8")
    ran = run_nbval(path)
    assert ran.returncode == 1 and "1 failed" in ran.stdout and "65" in ran.stdout


def test_a_rendered_notebook_is_a_page_with_its_alt_texts(course):
    page = harness.notebook_page(course / "notebooks" / "03_sample.ipynb")
    assert "<h2" in page and 'alt="An empty frame."' in page


def test_a_notebook_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "03_x.ipynb"
    assert write(path, "whole") and not write(path, "whole")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(VivitEduError, match="03_x.ipynb could not be written: the disk is full"):
        write(path, "cut short")
    monkeypatch.undo()
    assert path.read_text() == "whole" and list(tmp_path.iterdir()) == [path]


# ---- every rule, broken on purpose


def output(**data):
    return new_output("display_data", data=data)


def code(source, *outputs, tags=(), count=None):
    return new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)} if tags else {}
    )


def edit(number, old, new):
    """A change in the source of one cell, counted from 1."""

    def change(nb):
        assert old in nb.cells[number - 1].source
        nb.cells[number - 1].source = nb.cells[number - 1].source.replace(old, new)

    return change


def grader(number, **values):
    return lambda nb: nb.cells[number - 1].metadata.nbgrader.update(values)


def put(number, cell):
    """A new cell in front of the one with this number."""
    return lambda nb: nb.cells.insert(number - 1, cell)


def leave(number, *outputs):
    return lambda nb: nb.cells[number - 1].outputs.extend(outputs)


def checked(text):
    """More text printed by the cell whose output nbval compares."""
    return lambda nb: nb.cells[4].outputs.append(stream(text))


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def rewritten(*changes, share=0.0):
    """A chapter that the reader builds, with further changes; its second exercise is a question to explain."""

    def change(nb):
        nb.metadata.vivit_edu.update(readers_share=share)
        edit(14, "easy)", "easy, explain)")(nb)
        for further in changes:
            further(nb)

    return change


def answer(source, **values):
    """A cell for an answer that a person grades."""
    ids = {"grade_id": "ch03-words", "schema_version": 3, "task": False, "locked": False}
    grading = {"grade": True, "solution": True, "points": 3, **ids, **values}
    return new_markdown_cell(source, metadata={"nbgrader": grading})


RUBRIC = (
    "<details><summary>A possible answer, and how it is marked</summary>\n\nIt doubles.\n\n"
    "**Marking (3 points).** 1 for it, 2 for why.\n\n</details>"
)
SHOWN = "A picture without words"
LONG = "\n".join(f"x{i} = {i}" for i in range(35))
MODULE = "class Block(nn.Module):\n    depth = 1"
BROKEN = {
    # the run and its outputs
    "code changed": (edit(5, "** 3", "** 2"), "code has changed since"),
    "never executed": (lambda nb: nb.metadata.pop("vivit_edu"), "code has changed since"),
    "counts with a gap": (lambda nb: nb.cells[5].update(execution_count=9), r"cell 6 .*count is 9, expected 4"),
    "a cell not run": (lambda nb: nb.cells[5].update(execution_count=None), "count is None, expected 4"),
    "an error": (leave(5, new_output("error", ename="KeyError", evalue="x", traceback=[])), "ends in KeyError"),
    "a warning": (leave(5, stream("UserWarning: beware", "stderr")), "stderr .'UserWarning: beware'"),
    "widget state": (lambda nb: nb.metadata.update(widgets={}), "holds metadata.widgets"),
    "a widget": (leave(6, output(**{WIDGET: {}, "text/plain": "0%"})), "is not clean"),
    "a progress bar": (leave(6, stream(" 50%|█████     | 1/2\n", "stderr")), "is not clean"),
    "an editor's metadata": (lambda nb: nb.cells[5].metadata.update(collapsed=True), "is not clean"),
    "a figure without alt": (leave(5, output(**{"image/png": "AAAA"})), "cell 5 .*figure without alt text"),
    "a figure with empty alt": (lambda nb: nb.cells[8].outputs[0].metadata["image/png"].update(alt=" "), "without alt"),
    "a vector figure": (leave(5, output(**{"image/svg+xml": "<svg/>"})), r"figure as image/svg\+xml"),
    "a figure in HTML": (leave(5, output(**{"text/html": "<svg></svg>"})), "figure as HTML"),
    "a path printed": (leave(5, stream("saved in /home/ada/runs")), r"path of one machine \(/home/ada"),
    "a path of the checkout": (leave(5, stream(str(ROOT / "data"))), "path of one machine"),
    "a path in a table": (leave(5, output(**{"text/html": "<td>/tmp/x</td>"})), r"\(/tmp/x"),
    "a path in code": (edit(5, "SIDE = 28", "SIDE = 28\nfolder = 'C:\\\\Users'"), r"path of one machine \(C:"),
    "an address in memory": (leave(5, stream("<object at 0x7f12ab34cd>")), "object's address"),
    "too few checked": (
        lambda nb: [cell.metadata.pop("tags", 0) for cell in nb.cells[2:]],
        r"0 of 6 cells .* at least a third",
    ),
    "nothing to compare": (lambda nb: nb.cells[5].metadata.update(CHECKED), "leaves no output to compare"),
    "a signed zero": (checked("loss -0.00, twice"), "cell 5 .*prints -0.00, whose sign"),
    "a signed zero of a tensor": (checked("tensor([-0., 1.])"), "prints -0., whose sign"),
    "a signed zero in powers": (checked("-0.0e+00"), "prints -0.0e.00, whose sign"),
    "a signed zero in per cent": (checked("by -0%"), "prints -0, whose sign"),
    "a signed zero in a table": (
        lambda nb: nb.cells[4].outputs.append(output(**{"text/html": "<td>−0.0</td>"})),
        "prints −0.0, whose sign",
    ),
    "too large": (leave(5, output(**{"text/plain": "x" * 1_600_000})), "1.6 MB, at most 1.5"),
    "too slow": (lambda nb: nb.metadata.vivit_edu.update(seconds=91), "took 91 s, at most 90"),
    # the frame
    "another number": (edit(1, "# 03 ·", "# 04 ·"), "must begin with '# 03 · Title'"),
    "no minutes": (lambda nb: nb.cells[0].update(source=nb.cells[0].source.replace("minutes", "hours")), "course map"),
    "nothing built": (edit(1, "Builds: doubling · a", "A"), "lacks the line that the course map is made of"),
    "no hardware": (edit(1, " · a CPU is enough", ""), "course map"),
    "a badge of another notebook": (
        edit(1, "main/notebooks/03_sample", "main/notebooks/02_x"),
        "lacks this badge.*03_sample",
    ),
    "a badge of another repository": (
        edit(1, "somebody/a-course", "vivit-edu/vivit-edu"),
        "lacks this badge.*somebody",
    ),
    "a third badge": (
        edit(1, "CPU is", "CPU is https://colab.research.google.com/github/a/b/blob/main/c.ipynb"),
        "3 Colab",
    ),
    "no text first": (lambda nb: nb.cells.pop(0), "first cell must be markdown"),
    "another bootstrap": (edit(2, "-q --depth", "--depth"), "must be the bootstrap"),
    "no bootstrap tag": (lambda nb: nb.cells[1].metadata.pop("tags"), "must be the bootstrap"),
    "an installation": (put(4, code("!pip install torch")), "cell 4 .*holds a magic"),
    "a magic": (put(4, code("%matplotlib inline")), "cell 4 .*holds a magic"),
    "no progress": (edit(19, 'progress("03")', 'print("03")'), r'must call progress\("03"\)'),
    "no summary": (edit(17, "What to take along", "Summary"), "no heading 'What to take along'"),
    # code
    "long cells": (
        lambda nb: [
            cell.update(source=cell.source + "\n" + "\n".join("abcdefg"))
            for cell in nb.cells
            if cell.cell_type == "code"
        ],
        "lines in the median, at most 6",
    ),
    "over 15 lines in too many": (
        lambda nb: [nb.cells.insert(5, code("\n".join("abcdefghijklmnop"))) for _ in range(2)],
        "2 of 16 code cells have over 15 lines",
    ),
    "over 30 lines without a class": (put(5, code(LONG)), "has 35 lines: only a class"),
    "over 40 lines with a class": (put(5, code(f"{LONG}\n{MODULE}\n{LONG}")), "has 72 lines"),
    "an empty cell": (put(5, code("")), "is empty: delete it"),
    "a module without its shape": (put(9, code(MODULE)), "defines Block but neither it nor the next"),
    "a figure shown by pyplot": (put(5, code("plt.show()")), "loses the alt text"),
    "bars for one front end": (edit(3, "tqdm.auto", "tqdm.notebook"), "from tqdm.auto"),
    "bars for a terminal": (edit(3, "tqdm.auto", "tqdm"), "from tqdm.auto"),
    "a recorded run by path": (put(5, code("open('results/a.json')")), r"use recorded\(name\)"),
    "data in a checked cell": (
        put(5, new_code_cell("course_volumes()", metadata=CHECKED)),
        "loads data, .*without the tag",
    ),
    "a slider alone": (
        put(5, code("from vivit_edu.course.widgets import explore\nexplore(3)")),
        "slider explore without",
    ),
    "a slider of ipywidgets": (put(5, code("widgets.IntSlider(3)")), "slider widgets.IntSlider without"),
    "machinery imported": (put(5, code("from vivit_edu.experiments import record")), "imports vivit_edu.experiments"),
    "machinery by its room": (put(5, code("from vivit_edu import support")), "imports vivit_edu.support"),
    "machinery by its path": (put(5, code("import vivit_edu.authoring.masters as m")), "imports vivit_edu.authoring"),
    "machinery inside a function": (
        put(5, code("def f():\n    from vivit_edu.weights.files import x")),
        "imports vivit_edu.weights",
    ),
    "machinery by its name": (
        put(5, code("importlib.import_module('vivit_edu.datasets.phantom')")),
        "imports vivit_edu.datasets",
    ),
    # text
    "two titles": (edit(4, "## Doubling", "# Doubling"), "second title 'Doubling'"),
    "a level left out": (edit(4, "## Doubling", "### Doubling"), "level 3 after one of level 1"),
    "a picture without alt": (put(5, new_markdown_cell("![](03_sample.ipynb)")), "has no alt text: !"),
    "an HTML picture without alt": (
        put(5, new_markdown_cell('<img src="03_sample.ipynb" alt="">')),
        "has no alt text: <img",
    ),
    "a link to no file": (
        put(5, new_markdown_cell("[next](04_next.ipynb)")),
        "04_next.ipynb leads nowhere: no such file",
    ),
    "an HTML link to no file": (
        put(5, new_markdown_cell('<a href="04_next.ipynb">next</a>')),
        "leads nowhere: no such file",
    ),
    "a link to no heading": (put(5, new_markdown_cell("[up](#Nowhere)")), "#Nowhere leads nowhere: no such heading"),
    "a link to no heading elsewhere": (put(5, new_markdown_cell("[up](03_sample.ipynb#X)")), "no such heading"),
    # exercises
    "one exercise": (edit(14, "### Exercise", "### About"), "has 1 exercises, expected 2 to 9"),
    "an exercise without minutes": (edit(11, "(5 minutes, easy)", "(easy)"), "is not of the form '### Exercise 03.1"),
    "an exercise out of order": (edit(14, "03.2", "03.3"), "is not of the form '### Exercise 03.2"),
    "no hints": (edit(11, HINTS, ""), "has 0 hints, expected two or three"),
    "a hint that does not end": (edit(11, "</details>", ""), "expected two or three"),
    "nothing to answer": (lambda nb: [nb.cells.pop(11), nb.cells.pop(11)], "followed by no cell to answer in"),
    "one grade_id twice": (grader(15, grade_id="ch03-ex1"), "grade_id 'ch03-ex1' is another cell's too"),
    "a solution for all to see": (lambda nb: nb.cells[11].metadata.pop("nbgrader"), "holds solution markers"),
    "a solution without markers": (edit(12, "### BEGIN SOLUTION", "# begin"), "solution without its markers"),
    "a solution without a check": (grader(13, grade_id="ch03-other"), "has no check: .*'ch03-ex1-check'"),
    "a check to be edited": (grader(13, locked=False), "not locked or gives no points"),
    "a check without points": (grader(13, points=0), "not locked or gives no points"),
    "a check that checks nothing": (edit(13, "ch03.check_double(double)", "double"), "graded but calls no check"),
    "solution and check in one": (grader(12, grade=True, points=1), "solution and check in one"),
    "a folded cell that draws nothing": (
        lambda nb: nb.cells[4].metadata.update(tags=["plot"]),
        "cell 5 .*tagged plot, .*shows no figure",
    ),
    "a folded exercise": (lambda nb: nb.cells[12].metadata.update(tags=["plot"]), "cell 13 .*part of an exercise"),
    "no difficulty": (edit(11, "(5 minutes, easy)", "(5 minutes)"), "is not of the form '### Exercise 03.1"),
    "an unknown kind": (edit(11, "(5 minutes, easy)", "(5 minutes, easy, guess)"), "with its kind: "),
    "an open task with points": (edit(14, "easy)", "easy, open)"), "open task but gives points"),
    "a question without an answer cell": (edit(14, "easy)", "easy, explain)"), "no markdown cell for the answer"),
    # a rewritten chapter
    "too little is the reader's": (rewritten(share=0.5), r"2 of its \d+ lines of code are the reader's, \d%: .* 50%"),
    "a kind is missing": (rewritten(), "no exercise of the kind 'break'"),
    "a made-up guess": (rewritten(), "cell 8 .*fills in a guess"),
    "three predictions": (rewritten(*[put(9, code(f"predict('03.{k}', 'How?')")) for k in "xy"]), "third prediction"),
    "a long cell that draws": (rewritten(put(9, code("a = 1\n" * 4 + "plots.show(f)"))), "in 5 lines: tag it plot"),
    "heads called h": (rewritten(put(5, code("p = 'b n (h d) -> b h n d'"))), "heads are 'heads'"),
    "tokens and voxels mixed": (rewritten(put(5, code("p = 'b t s d -> (b t) s d'"))), "tokens and voxels are mixed"),
    "an axis of no meaning": (rewritten(put(5, code("rearrange(z, 'b x d -> b d x')"))), "'x' is no axis"),
    "an answer without a rubric": (rewritten(put(17, answer("Because."))), "cell 17 .*lacks the answer and its rubric"),
    "an answer without points": (rewritten(put(17, answer(RUBRIC, points=0))), "cell 17 .*graded by hand: grade"),
    "metadata that nbgrader refuses": (
        lambda nb: nb.cells[12].metadata.nbgrader.pop("schema_version"),
        "nbgrader cannot read",
    ),
}


@pytest.mark.parametrize(
    "words, found",
    [
        ("10 minutes, medium", ("10", "medium", "build")),
        ("1 minute, easy, break", ("1", "easy", "break")),
        ("5 minutes, hard, explain", ("5", "hard", "explain")),
        ("5 minutes, explain", ("5", "", "explain")),
        ("20 minutes, open", ("20", "", "open")),
        ("20 minutes or more, medium, open", ("20", "medium", "open")),
        ("open", ("–", "", "open")),
        ("explain", None),
        ("5 minutes, break", None),
        ("medium", None),
        ("an hour, medium", None),
    ],
)
def test_headings_of_exercises(words, found):
    parts = heading_parts(f"### Exercise 03.1 · A (b) title ({words})")
    assert (parts and (parts["minutes"], parts["difficulty"], parts["kind"])) == found
    assert parts is None or (parts["number"], parts["title"]) == ("03.1", "A (b) title")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found(sample, name):
    change, expected = BROKEN[name]
    change(sample.nb)
    found = broken_rules(Master(sample.path, sample.nb, REPO))
    assert any(re.search(expected, text) for text in found), found
    assert all(text.startswith("03_sample.ipynb") for text in found)


ALLOWED = {
    "a figure in a folded cell": (lambda nb: nb.cells[8].metadata.update(tags=["plot"]), "is tagged plot"),
    "a short figure of a rewritten chapter": (rewritten(), "tag it plot"),
    "the course's notation": (
        rewritten(
            put(5, code("rearrange(x, 'b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)')")),
            put(5, code("a = 'b n (three heads d) -> three b heads n d', '1 t h w -> h (t w)', 'x says -> it is'")),
        ),
        "no axis of|stands for|are mixed",
    ),
    "an answer with its rubric": (rewritten(put(17, answer(RUBRIC))), "rubric|by hand|no markdown cell"),
    "two predictions without a guess": (
        rewritten(edit(8, ", guess=(SIDE // 7) ** 2", ""), put(9, code("predict('03.y', 'How?', guess=None)"))),
        "fills in a guess|third prediction",
    ),
    "a long class": (put(9, code(f"{MODULE}\n{LONG}\nprint(Block().x.shape)")), "lines: only a class|defines"),
    "lessons and exported names": (
        put(
            5,
            code(
                "import vivit_edu.plots\nfrom vivit_edu import Recipe, attention, load_clip, plots\n"
                "from vivit_edu.course.recorded import recorded\nfrom vivit_edu.errors import ConfigError"
            ),
        ),
        "imports vivit_edu",
    ),
    "numbers below zero": (checked("-0.05 -10 2-0 ch-03 0.00 -0.0001 x-0"), "whose sign"),
    "a shape in the next cell": (
        lambda nb: [put(9, code("print(Block().x.shape)"))(nb), put(9, code(MODULE))(nb)],
        "defines",
    ),
    "a slider and its strip": (put(9, code("from vivit_edu.course.widgets import explore\nexplore(3)")), "slider"),
    "a link to a heading": (
        put(5, new_markdown_cell("[down](03_sample.ipynb#Doubling), [](#Doubling)")),
        "leads nowhere",
    ),
    "a link elsewhere": (put(5, new_markdown_cell("[paper](https://arxiv.org/abs/2103.15691)")), "leads nowhere"),
    "a path of the web": (put(5, new_markdown_cell("https://example.org/home/ada and data/home/x")), "path of one"),
    "headings in code": (put(5, new_markdown_cell("```python\n# a remark\n#### and more\n```")), "level|title"),
    "code inside a picture's alt": (put(5, new_markdown_cell("![a `map`](03_sample.ipynb)")), "alt text|nowhere"),
    "hints of another section": (
        put(17, new_markdown_cell("### More\n\n<details><summary>Why</summary></details>")),
        "hints",
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_is_not_found(sample, name):
    change, unexpected = ALLOWED[name]
    change(sample.nb)
    assert not [text for text in broken_rules(Master(sample.path, sample.nb, REPO)) if re.search(unexpected, text)]


def test_chapter_12_and_chapter_00_have_rules_of_their_own(sample):
    sample.nb.metadata.vivit_edu.seconds = 150
    text = notebook_text(sample.nb)

    def found(name):
        return broken_rules(Master(sample.path.with_name(name), nbformat.reads(text, 4), REPO))

    assert any("took 150 s" in line for line in found("03_sample.ipynb"))
    assert not any("took 150 s" in line for line in found("12_training.ipynb"))
    sample.nb.cells = [cell for cell in sample.nb.cells if "Exercise" not in cell.source]
    text = notebook_text(sample.nb)
    assert any("has 0 exercises" in line for line in found("03_sample.ipynb"))
    assert not any("exercises, expected" in line for line in found("00_start.ipynb"))


def test_all_chapters_together_have_a_limit(sample):
    sample.nb.metadata.vivit_edu.seconds = 90
    assert list(harness.time_together([sample] * 8)) == []
    assert "12.2 minutes, at most 12" in next(harness.time_together([sample] * 7 + [sample, half(sample)]))


def half(sample):
    other = copy.deepcopy(sample)
    other.nb.metadata.vivit_edu.seconds = 12
    return other


@pytest.mark.parametrize("drawn", [output(**{WIDGET: {}, "text/plain": "0%"}), stream(" 50%|██  | 1/2", "stderr")])
def test_a_checked_cell_may_not_draw_what_is_cleaned_away(sample, drawn):
    assert list(live(sample)) == []
    sample.nb.cells[5].outputs = [drawn]
    assert list(live(sample)) == []
    sample.nb.cells[5].metadata.update(CHECKED)
    ((number, text),) = live(sample)
    assert number == 6 and "progress bar or a widget" in text


# ---- cleaning


def test_cleaning_keeps_what_readers_see_and_removes_the_rest(sample):
    cell = sample.nb.cells[4]
    cell.metadata.update(execution={"iopub.execute_input": "2026-01-01"}, collapsed=False)
    shown = list(cell.outputs)
    bar = stream(
        "  0%|          | 0/3\r100%|██████████| 3/3 [00:01<00:00]\nA remark.\n3it [00:00, 9.1it/s]\n", "stderr"
    )
    cell.outputs = [output(**{WIDGET: {}}), *shown, bar]
    sample.nb.metadata.update(widgets={"state": {}}, kernelspec={"name": "my-own"}, language_info={"version": "3.11.2"})
    clean(sample)
    assert cell.outputs[:-1] == shown and cell.outputs[-1].text.strip() == "A remark."
    assert set(cell.metadata) == {"tags"} and sample.nb.metadata.kernelspec.name == "python3"
    assert sample.nb.metadata.language_info == {"name": "python"} and "widgets" not in sample.nb.metadata


def test_cell_ids_depend_on_the_source_alone(sample):
    before = [cell.id for cell in sample.nb.cells]
    assert len(set(before)) == len(before)
    sample.nb.cells.insert(3, new_markdown_cell("New."))
    for cell in sample.nb.cells:
        cell.id = nbformat.corpus.words.generate_corpus_id()
    clean(sample)
    after = [cell.id for cell in sample.nb.cells]
    assert after[:3] + after[4:] == before
    nbformat.validate(sample.nb)


# ---- student notebooks


def test_students_get_neither_solutions_nor_outputs_nor_guesses(sample):
    student = student_notebook(sample, [])
    text = notebook_text(student)
    assert "SOLUTION" not in text and "return 2 * x" not in text and "guess=(SIDE" not in text
    assert "raise NotImplementedError" in student.cells[11].source and "guess=None" in student.cells[7].source
    assert all(cell.execution_count is None and not cell.outputs for cell in student.cells if cell.cell_type == "code")
    assert "vivit_edu" not in student.metadata
    assert student.cells[0].source == sample.nb.cells[0].source and student.cells[1].source == bootstrap_cell(REPO)
    assert student.cells[12].metadata.editable is False and student.cells[12].metadata.nbgrader.checksum
    assert "return 2 * x" in notebook_text(sample.nb), "the master stays as it was"
    ids = [cell.id for cell in student.cells]
    assert ids == [cell.id for cell in sample.nb.cells]


def test_students_get_no_rubric_and_folded_code_stays_folded(sample):
    sample.nb.cells.insert(16, answer(RUBRIC))
    sample.nb.cells[8].metadata.update(tags=["plot"])
    clean(sample)
    student = student_notebook(sample, [])
    assert student.cells[16].source == "YOUR ANSWER HERE" and "Marking" not in notebook_text(student)
    assert student.cells[8].metadata.jupyter == {"source_hidden": True} and student.cells[8].metadata.cellView == "form"


def test_the_readers_lines_are_counted(sample):
    assert readers_lines(sample)[0] == 2, "one line in each of two exercises"
    before = readers_lines(sample)[1]
    sample.nb.cells[4].source += "\n\n# a remark\n\nx = 1"
    assert readers_lines(sample) == (2, before + 1)
    table = harness.overview([sample.path]).splitlines()
    assert table[0].split()[-4:] == ["build", "break", "explain", "open"]
    assert table[2].split() == ["03", str(before), "2", f"{2 / before:.0%}", "1", "2", "0", "0", "0"]


def test_a_run_keeps_what_a_chapter_promises(sample, tmp_path, monkeypatch):
    sample.nb.metadata.vivit_edu.readers_share = 0.25
    sample.nb.cells[4].source += "\nSIDE"
    path = tmp_path / "03_sample.ipynb"
    path.write_text(notebook_text(sample.nb), encoding="utf-8")
    harness.renew(path)
    assert read(path).nb.metadata.vivit_edu["readers_share"] == 0.25


def test_student_notebooks_do_not_depend_on_the_run(sample):
    before = notebook_text(student_notebook(sample, []))
    sample.nb.metadata.vivit_edu.update(seconds=77, peak_mb=1)
    for _, cell in sample.code:
        cell.outputs, cell.execution_count = [], None
    assert notebook_text(student_notebook(sample, [])) == before


@pytest.mark.parametrize(
    "before, after",
    [
        ("[a](04_next.ipynb) [b](04_next.ipynb#Top)", "[a](04_next.ipynb) [b](04_next.ipynb#Top)"),
        ("[a](../README.md)", "[a](../../README.md)"),
        ("![a map](pictures/a.png)", "![a map](../pictures/a.png)"),
        ("[![a](pictures/a.png)](b.md)", "[![a](../pictures/a.png)](../b.md)"),
        ("[up](#Top) [w](https://x.org/y) [m](mailto:a@b.c)", "[up](#Top) [w](https://x.org/y) [m](mailto:a@b.c)"),
        ('<img alt="a" src="a.png"> <a href="#x">', '<img alt="a" src="../a.png"> <a href="#x">'),
        ("f[0](x) stays", "f[0](../x) stays"),  # looks like a link, and Markdown takes it for one
    ],
)
def test_links_lead_on_from_one_folder_further_down(before, after):
    assert move_links(before, {"04_next.ipynb"}) == after


@pytest.mark.parametrize(
    "before, after",
    [
        ('predict("a", "Why – so?", guess=64)', 'predict("a", "Why – so?", guess=None)'),
        ('predict("a", "b", 4 ** 3, unit="x")', 'predict("a", "b", None, unit="x")'),
        (
            'checks.predict("a", "b (c, d)", guess=f(1, (2, 3)) * 2, choices=["x"])',
            'checks.predict("a", "b (c, d)", guess=None, choices=["x"])',
        ),
        (
            'predict(\n    "a",\n    "b",\n    guess=max(\n        1, 2\n    ),\n)',
            'predict(\n    "a",\n    "b",\n    guess=None,\n)',
        ),
        (
            'predict("é", "ü", guess="öö"); predict("c", "d", guess=1)',
            'predict("é", "ü", guess=None); predict("c", "d", guess=None)',
        ),
        ("other(guess=3)", "other(guess=3)"),
        ("predict(", "predict("),
    ],
)
def test_guesses_are_cleared(before, after):
    assert clear_guesses(before) == after


# ---- what notebooks define, recorded runs, the address


def test_definitions_of_a_notebook_can_be_tested_without_running_it(course):
    module = load_definitions(course / "notebooks" / "03_sample.ipynb")
    assert module.cells() == 64 and module.cells(14) == 8 and module.SIDE == 28
    assert module.double(4) == 8
    assert not hasattr(module, "figure") and not hasattr(module, "ch03")


def test_recorded_runs_are_read_from_anywhere(tmp_path, monkeypatch):
    import vivit_edu.course.recorded

    folder = tmp_path / "notebooks" / "results"
    folder.mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (folder / "a.json").write_text(json.dumps({"auc": 0.9}))
    (folder / "b.csv").write_text("seed,auc\n0,0.9\n")
    monkeypatch.setattr(vivit_edu.course.recorded, "checkout", lambda: tmp_path)
    assert recorded("a.json") == {"auc": 0.9} and recorded("b.csv") == [{"seed": "0", "auc": "0.9"}]
    with pytest.raises(ConfigError, match="'c.json'.*a.json, b.csv"):
        recorded("c.json")


def test_the_address_is_that_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert repository() == project["project"]["urls"]["Repository"]


def test_the_bootstrap_does_nothing_here_and_never_installs_torch():
    source = bootstrap_cell(REPO)
    assert len(source.splitlines()) <= 6
    installs = [line for line in source.splitlines() if "pip" in line]
    fetched = [re.search("pip install (.*)", line)[1].split() for line in installs[:1]]
    packages = ["einops", "medmnist", "pooch", "tabulate", "-e", "/content/vivit-edu"]
    assert fetched == [["-q", "--no-deps", *packages]]
    assert all(line.startswith("    ") for line in source.splitlines()[3:5]), "what fetches does so only in Colab"


def run_bootstrap(code, *options, **variables):
    """The bootstrap cell as IPython runs it, then `code`, in a process of its own."""
    from IPython.core.inputtransformer2 import TransformerManager

    source = TransformerManager().transform_cell(bootstrap_cell(REPO))
    environment = {name: text for name, text in os.environ.items() if name != "OMP_WAIT_POLICY"} | variables
    command = [sys.executable, *options, "-c", source + code]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("given, found", [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_the_bootstrap_lets_threads_sleep_unless_the_user_says_otherwise(given, found):
    ran = run_bootstrap("print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)", **given)
    assert ran.stdout.split() == [found, "False"], ran.stderr
    assert harness.ENVIRONMENT["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_bootstrap_says_what_a_kernel_without_the_package_lacks():
    ran = run_bootstrap("print('went on')", "-I", "-S")  # without the environment's packages
    assert ran.returncode and "went on" not in ran.stdout
    assert re.search(f"lacks the course: git clone {REPO}", ran.stderr), ran.stderr
