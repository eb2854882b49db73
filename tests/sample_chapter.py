"""A small chapter that follows every rule, for the tests of the harness: they break one rule of it at a time."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vivit_edu.authoring.masters import badges, bootstrap_cell

REPO = "https://github.com/somebody/a-course"
CHECKED = {"tags": ["nbval-check-output"]}
HINT = "<details><summary>Hint {}</summary>\n\n{}\n\n</details>"
HINTS = HINT.format(1, "Think.") + "\n\n" + HINT.format(2, "`2 * x`")


def exercise(k, solution):
    """Heading with hints, solution cell and check cell of exercise 03.k."""
    ids = {"schema_version": 3, "task": False}
    answer = {"grade_id": f"ch03-ex{k}", "grade": False, "locked": False, "solution": True, **ids}
    check = {"grade_id": f"ch03-ex{k}-check", "grade": True, "locked": True, "solution": False, "points": 2, **ids}
    return [
        new_markdown_cell(f"### Exercise 03.{k} · Doubling (5 minutes, easy)\n\nWrite `double`.\n\n{HINTS}"),
        new_code_cell(
            f"def double(x):\n    ### BEGIN SOLUTION\n    {solution}\n    ### END SOLUTION",
            metadata={"nbgrader": answer},
        ),
        new_code_cell("ch03.check_double(double)", metadata={"nbgrader": check, **CHECKED}),
    ]


def sample_cells(name="03_sample"):
    """The cells, not executed yet. All the code is plain Python but for one figure, so that it runs in seconds."""
    first = (
        "# 03 · A sample\n\nYou will be able to double.\n\n"
        "Builds: doubling · about 10 minutes to read and solve · a CPU is enough\n\n"
        f"{badges(name, REPO)}\n\n"
        "At the end: [what to take along](#What-to-take-along)."
    )
    return [
        new_markdown_cell(first),
        new_code_cell(bootstrap_cell(REPO), metadata={"tags": ["bootstrap"]}),
        new_code_cell("from types import SimpleNamespace\n\nfrom tqdm.auto import tqdm\n\nfrom vivit_edu import plots"),
        new_markdown_cell("## Doubling\n\n`[no](link.md)` in code is none."),
        new_code_cell(
            "SIDE = 28\n\n\ndef cells(side=SIDE, tubelet=7):\n    return (side // tubelet) ** 3\n\n\ncells()",
            metadata=CHECKED,
        ),
        new_code_cell("for _ in tqdm(range(3)):\n    pass"),
        new_code_cell("def predict(key, question, guess=None, unit=''):\n    print(question, guess)"),
        new_code_cell('predict("03.tokens", "How many – tokens?", guess=(SIDE // 7) ** 2, unit="tokens")'),
        new_code_cell('figure = plots.new_figure(2, 1, "An empty frame.")\nfigure.subplots()\nplots.show(figure)'),
        new_code_cell(
            "def check_double(double):\n    assert double(2) == 4\n    print('Passed.')\n\n\n"
            "ch03 = SimpleNamespace(check_double=check_double)"
        ),
        *exercise(1, "return 2 * x"),
        *exercise(2, "return x + x"),
        new_markdown_cell("## What to take along\n\nTwo times two is four."),
        new_code_cell('def progress(chapter):\n    print("Chapter", chapter)\n\n\nprogress("03")', metadata=CHECKED),
    ]


def sample_notebook():
    return new_notebook(cells=sample_cells())
