"""The instructor's guide says what the masters and the tests of the checks say."""

import ast
import re
from pathlib import Path

import pytest
import torch

from vivit_edu.authoring import guide
from vivit_edu.authoring.masters import master_paths, read
from vivit_edu.course.map import course_map

FOLDER = Path(__file__).parents[2] / "notebooks"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
TESTS = Path(__file__).parents[1] / "exercises"


def test_its_tables_are_in_step_with_masters_and_tests():
    assert guide.filled_in(TEXT, FOLDER) == TEXT, "run `vivit-edu notebooks`"


@pytest.mark.parametrize("path", master_paths(FOLDER), ids=lambda path: path.stem)
def test_every_exercise_stands_there_with_its_points_and_mistakes(path):
    master = read(path)
    graded = [cell for cell in master.nb.cells if cell.metadata.get("nbgrader", {}).get("points")]
    rows = guide.exercise_rows(master, guide.mistakes(TESTS / f"test_ch{master.chapter}.py"))
    assert [row["number"] for row in rows] == [f"{master.chapter}.{k + 1}" for k in range(len(rows))]
    capstone = guide.capstone(master)
    given = sum(row["points"] for row in rows) + (capstone["points"] if capstone else 0)
    assert given == sum(cell.metadata["nbgrader"]["points"] for cell in graded) > 0
    for row in rows:
        assert len(row["mistakes"]) >= 4 or row["kind"] in ("explain", "open")
        assert f"| {row['number']} {row['title']} (" in TEXT


def test_the_capstone_stands_there_with_the_points_that_its_rubric_gives():
    master = read(next(FOLDER.glob("14_*.ipynb")))
    task = guide.capstone(master)
    assert f"| {task['title']} (open) | {task['minutes']} | {task['points']} | none: marked by hand" in TEXT
    rubric = next(cell.source for _, cell in master.text if "| what is marked | points |" in cell.source)
    assert sum(map(int, re.findall(r"^\| \*\*.*\| (\d+) \|$", rubric, re.M))) == task["points"] == 20
    assert f"{task['points']} points" in rubric
    assert guide.capstone(read(next(FOLDER.glob("03_*.ipynb")))) is None
    masters = [read(path) for path in master_paths(FOLDER)]
    given = sum(cell.metadata.get("nbgrader", {}).get("points") or 0 for master in masters for cell in master.nb.cells)
    assert f"\n{given} points in {len(masters)} chapters." in TEXT


def test_mistakes_are_read_with_the_words_of_their_message(tmp_path):
    (tmp_path / "test_ch03.py").write_text(
        "test_a = run_cases(ch03.check_a, right=[f, g], "
        'wrong={"upside down": (f, "swapped"), "shape": (g, r"\\[2, 3\\]")})\n'
        "test_b = run_cases(ch03.check_b, right=[f, g], wrong=dict(x=1))\n",
        encoding="utf-8",
    )
    assert guide.mistakes(tmp_path / "test_ch03.py") == {
        "check_a": [("upside down", "swapped"), ("shape", "")],
        "check_b": [],
    }
    assert guide.mistakes(tmp_path / "test_ch04.py") == {}


def test_the_ideas_for_the_board_are_cases_of_the_tests():
    named = re.findall(r"\*([^*]+)\* \((\d\d)\.(\d)\)", TEXT.split("## Ideas to take apart")[1].split("## Points")[0])
    assert len(named) >= 8
    for name, chapter, k in named:
        master = read(next(FOLDER.glob(f"{chapter}_*.ipynb")))
        row = guide.exercise_rows(master, guide.mistakes(TESTS / f"test_ch{chapter}.py"))[int(k) - 1]
        assert name in [mistake for mistake, _ in row["mistakes"]], f"{chapter}.{k} has no wrong answer {name!r}"


def test_the_lecture_plan_has_every_figure_guess_and_exercise_of_every_chapter():
    plan = TEXT.split(guide.LECTURE_BEGIN)[1].split(guide.LECTURE_END)[0]
    assert plan.count("<details>") == plan.count("</details>") == len(master_paths(FOLDER))
    for path, text in zip(master_paths(FOLDER), plan.split("<details>")[1:]):
        master = read(path)
        code = "\n".join(cell.source for _, cell in master.code)
        rows = guide.lecture_plan(master)
        figures, guesses = (sum(len(row[kind]) for row in rows) for kind in ("figures", "guesses"))
        assert (
            figures == len(re.findall(r"\bcaption=", code)) + len(re.findall(r"^(?!film)\w+_strip\(", code, re.M)) > 3
        )
        assert guesses == len(re.findall(r"^predict\(", code, re.M))
        assert re.findall(rf"\b{master.chapter}\.\d(?= \()", text) == [
            row["number"] for row in guide.exercise_rows(master, {})
        ]


def test_every_question_to_explain_stands_there_with_how_it_is_marked():
    for path in master_paths(FOLDER):
        for row in guide.exercise_rows(read(path), {}):
            if row["kind"] == "explain":
                assert len(row["marking"]) > 80 and f"by hand: {row['marking']}" in TEXT


def test_its_links_lead_somewhere():
    anchors = {
        re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^#+ (.*)$", TEXT, re.M)
    }
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        assert re.match("https?:", target) or (FOLDER / file).exists(), target
        assert file or anchor in anchors, target


def test_its_hidden_test_is_python_and_true():
    from vivit_edu.authoring.masters import load_definitions

    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    chapter = load_definitions(FOLDER / "03_tubelet_embedding.ipynb")
    (hidden,) = [node for node in ast.parse(code).body if isinstance(node, ast.Assert)]
    exec(ast.unparse(hidden), {"cut": chapter.cut, "torch": torch})


def test_no_week_of_the_timetables_is_longer_than_it_may_be():
    """Minutes as in the course map; for each session of a week 120 of them in the room and 150 at home."""
    minutes = {row["chapter"]: int(row["minutes"]) for row in course_map(FOLDER)}
    head, eight, four = re.split(r"\n\*\*(?:Eight|Four) weeks\*\*", TEXT)
    for table, sessions in ((eight, 1), (four.split("\n## ")[0], 2)):
        rows = re.findall(r"^\| \d \| (.*) \| (\d+) \|$", table, re.M)
        chapters = [re.findall(r"\b\d\d(?= )", cells) for cells, _ in rows]
        assert [int(total) for _, total in rows] == [sum(minutes[c] for c in week) for week in chapters]
        assert rows and all(int(total) <= 270 * sessions for _, total in rows)
        taught = [chapter for week in chapters for chapter in week]
        left_out = {"02", "10", "11"} if sessions == 2 else set()
        assert sorted(taught) == sorted(set(minutes) - left_out)


@pytest.mark.parametrize("path", master_paths(FOLDER), ids=lambda path: path.stem)
def test_a_chapters_minutes_are_those_of_its_exercises_and_of_reading_it(path):
    """At 160 words per minute, without hints and without open tasks, as the guide says."""
    master = read(path)
    text = "\n".join(cell.source for cell in master.nb.cells if cell.cell_type == "markdown")
    words = len(re.sub(r"<details>.*?</details>", "", text, flags=re.S).split())
    rows = guide.exercise_rows(master, {})
    solving = sum(int(row["minutes"]) for row in rows if row["kind"] != "open")
    (minutes,) = [int(row["minutes"]) for row in course_map(FOLDER) if row["chapter"] == master.chapter]
    assert abs(minutes - (solving + words / 160)) <= 5
