"""`ready` hands over a finished version of every exercise, keeps the reader's own, and says what was borrowed."""

import ast
import functools
from importlib import import_module

import pytest

from tests.course.test_checks import fresh  # noqa: F401  (each test begins without events)
from tests.exercises.cases import resumed_here
from vivit_edu.authoring.masters import checkout, master_paths, read
from vivit_edu.course.checks import CheckFailed, call, exercise, passed, progress
from vivit_edu.course.ready import load, ready
from vivit_edu.errors import ConfigError

FINISHED = load()


def exercises():
    """Of the masters: (exercise, the names it defines, the source of its check, the cells below that are no check)."""
    for path in master_paths(checkout() / "notebooks"):
        cells = [cell for _, cell in read(path).code]
        for i, cell in enumerate(cells):
            grading = cell.metadata.get("nbgrader", {})
            if grading.get("solution"):
                chapter, k = grading["grade_id"].removeprefix("ch").split("-ex")
                names = [node.name for node in ast.parse(cell.source).body if hasattr(node, "name")]
                check, *below = cells[i + 1 :]
                yield f"{chapter}.{k}", names, check.source, below


EXERCISES = list(exercises())
each_exercise = pytest.mark.parametrize("exercise, names, check, below", EXERCISES, ids=[e[0] for e in EXERCISES])


def as_if_the_readers(finished):
    """The same behind another name, so that the check does not know it for the course's version."""
    return type(finished.__name__, (finished,), {}) if isinstance(finished, type) else functools.partial(finished)


@each_exercise
def test_the_course_s_version_passes_the_check(exercise, names, check, below, capsys):
    assert [function.__name__ for function in FINISHED[exercise]] == names
    written = {name: as_if_the_readers(finished) for name, finished in zip(names, FINISHED[exercise])}
    module = f"ch{exercise[:2]}"
    with resumed_here():  # in a new process the chapter itself does
        exec(check, {module: import_module(f"vivit_edu.course.checks.{module}"), **written})
    assert f"Passed {exercise}" in capsys.readouterr().out


@each_exercise
def test_what_is_used_below_goes_through_ready(exercise, names, check, below):
    used = {node.id for cell in below for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
    handed_over = f'{", ".join(names)} = ready("{exercise}", {", ".join(names)})'
    if used & set(names):
        assert below[0].source.startswith(handed_over)
    else:
        assert not any("ready(" in cell.source and exercise in cell.source for cell in below)


def test_every_finished_version_belongs_to_an_exercise():
    assert list(FINISHED) == [exercise for exercise, *_ in EXERCISES]


def test_your_own_is_kept_once_it_has_passed(capsys):
    def encoder_block():
        return "mine"

    passed("05.2", "it passed")
    assert ready("05.2", encoder_block) is encoder_block
    progress("05")
    assert capsys.readouterr().out.splitlines()[1:] == ["Chapter 05: exercises passed: 05.2."]


def test_the_course_s_stands_in_for_what_has_not_passed(capsys):
    passed("05.1", "another exercise")
    handed = ready("05.2", lambda: "not right yet")
    assert handed is FINISHED["05.2"][0]
    said = capsys.readouterr().out
    assert "05.2: this notebook now uses the course's EncoderBlock." in said and "then its check" in said
    progress(5)
    assert capsys.readouterr().out == "Chapter 05: exercises passed: 05.1; borrowed from the course: 05.2.\n"
    passed("05.2", "solved after all")
    progress(5)
    assert "borrowed" not in capsys.readouterr().out


def test_a_part_of_another_chapter_is_told_where_to_paste_ones_own(capsys):
    ready("04.5")  # its cell and its check are in another notebook
    said = capsys.readouterr().out
    assert "paste it below this line of the cell, under the name on the left" in said and "its check" not in said


def test_other_chapters_loans_are_not_listed(capsys):
    ready("06.1", None)
    capsys.readouterr()
    progress("05")
    assert "borrowed" not in capsys.readouterr().out


def test_a_pass_counts_no_longer_when_the_check_refuses_what_came_after(capsys):
    @exercise
    def check_block(block):
        if block() != "right":
            raise CheckFailed("wrong")
        passed("05.2", "right")

    check_block(lambda: "right")
    passed("05.3", "another check's")
    own = lambda: "wrong"  # noqa: E731
    with pytest.raises(CheckFailed, match="wrong"):
        check_block(own)
    assert ready("05.2", own) is FINISHED["05.2"][0]
    assert ready("05.3", own) is own
    progress("05")
    assert "passed: 05.3; borrowed from the course: 05.2." in capsys.readouterr().out
    check_block(lambda: "right")
    assert ready("05.2", own) is own


def test_two_functions_come_and_go_together():
    assert ready("12.6", None, None) == FINISHED["12.6"]
    passed("12.6", "both")
    assert ready("12.6", "save", "load") == ("save", "load")


def test_without_your_own_it_is_always_the_course_s():
    passed("05.2", "passed")
    assert ready("05.2") is FINISHED["05.2"][0]


def test_a_borrowed_version_passes_no_check():
    with pytest.raises(CheckFailed, match="the course's version, not yours"):
        call(ready("00.1"), None)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("05.9",), r"no exercise '05.9': expected one of 05.1, 05.2, 05.3"),
        (("5.2",), r"no exercise '5.2': expected one of 00.1"),
        ((5.2,), r"no exercise 5.2"),
        (("12.6", None), "builds save_run, load_run, but ready was given 1"),
        (("05.2", None, None), "builds EncoderBlock, but ready was given 2"),
    ],
)
def test_a_wrong_number_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ready(*arguments)
