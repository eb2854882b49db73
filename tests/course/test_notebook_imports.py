"""Notebooks import only from the lessons, from what `vivit_edu` exports and from `vivit_edu.course`."""

import ast

import pytest

import vivit_edu
from vivit_edu.authoring.masters import checkout, master_paths, read, tags

LESSONS = {
    "volumes",
    "data",
    "cnn",
    "embedding",
    "attention",
    "vivit",
    "models",
    "cost",
    "pretrained",
    "augment",
    "optimisers",
    "training",
    "explain",
    "plots",
    "errors",
}


def strangers(source):
    """The modules of the package that a cell imports from and that are neither a lesson nor the course."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "vivit_edu":
            found += [f"vivit_edu.{a.name}" for a in node.names if a.name not in {*LESSONS, *vivit_edu.__all__}]
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            rooms = [module.split(".") for module in modules if module and module.startswith("vivit_edu.")]
            found += [".".join(parts) for parts in rooms if parts[1] not in {*LESSONS, "course"}]
    return found


@pytest.mark.parametrize("path", master_paths(checkout() / "notebooks"), ids=lambda path: path.stem)
def test_a_master_imports_from_the_lessons_and_the_course(path):
    cells = [(number, cell.source) for number, cell in read(path).code if "bootstrap" not in tags(cell)]
    assert not {number: strangers(source) for number, source in cells if strangers(source)}


@pytest.mark.parametrize(
    "source, found",
    [
        ("from vivit_edu.experiments.runs import recorded", ["vivit_edu.experiments.runs"]),
        ("from vivit_edu.datasets.phantom import phantom_patient", ["vivit_edu.datasets.phantom"]),
        ("from vivit_edu import experiments, build_model", ["vivit_edu.experiments"]),
        ("import vivit_edu.support.files as f", ["vivit_edu.support.files"]),
        ("def g():\n    from vivit_edu.authoring import site", ["vivit_edu.authoring"]),
        ("from vivit_edu import Recipe, plots\nfrom vivit_edu.course.ready import ready\nimport torch", []),
    ],
)
def test_strangers_are_found(source, found):
    assert strangers(source) == found
