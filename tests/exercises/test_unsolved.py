"""Exercise notebooks run from the first cell to the last with every exercise left open.

The cells are run in this process, with less data and shorter training than in a chapter: what is tried is that
nothing but a check stops, not what is learned.
"""

import functools
import importlib.util
import inspect
import re
from dataclasses import replace

import pytest
import torch

from tests.course.test_checks import fresh  # noqa: F401  (each notebook begins without events)
from vivit_edu.authoring.masters import checkout, master_paths, read, tags
from vivit_edu.course.checks import CheckFailed
from vivit_edu.data import load_volumes

MASTERS = master_paths(checkout() / "notebooks")
STEPS = 4  # of every training loop that a chapter writes itself


def shorten(names):
    """Puts in place of each function of a chapter's own that has `steps` or `epochs` one that makes few of them."""
    for name, function in list(names.items()):
        if not inspect.isfunction(function) or function.__globals__ is not names or hasattr(function, "__wrapped__"):
            continue
        signature = inspect.signature(function)
        lengths = {"steps", "epochs"} & set(signature.parameters)
        if lengths:

            @functools.wraps(function)
            def few(*args, function=function, signature=signature, lengths=lengths, **more):
                given = signature.bind(*args, **more)
                given.apply_defaults()
                for length in lengths:
                    given.arguments[length] = min(given.arguments[length], STEPS)
                return function(*given.args, **given.kwargs)

            names[name] = few


def run(cells, names):
    """Runs code cells in the name space `names`; returns {number: error} of those that failed."""
    failed = {}
    for number, cell in enumerate(cells, 1):
        if cell.cell_type == "code" and "bootstrap" not in tags(cell):
            try:
                exec(compile(cell.source, f"<cell {number}>", "exec"), names)
            except Exception as error:
                failed[number] = error
            shorten(names)
    return failed


def is_check(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-check")


def outside_checks(cells, failed):
    """The errors of `run` that are no check's refusal, as text."""
    graded = {
        n for n, cell in enumerate(cells, 1) if cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-check")
    }
    return [
        f"cell {n} ({cells[n - 1].source.splitlines()[0]!r}): {type(error).__name__}: {error}"
        for n, error in failed.items()
        if n not in graded or not isinstance(error, CheckFailed)
    ]


@functools.cache
def loaded(name, **options):
    """A data set, read once for all chapters."""
    return load_volumes(name, **options)


@pytest.fixture
def light(phantom, monkeypatch, tmp_path):
    """Chapters with little data, one epoch, no measuring and no pictures."""
    import vivit_edu
    from vivit_edu import cost, plots, training
    from vivit_edu.course import culmination, puzzles
    from vivit_edu.experiments import trained  # noqa: F401  (its recipes are made before the presets become small)

    def short_fit(model, volumes, recipe, **options):
        parts = {name: getattr(volumes, name).subset(slice(0, 16)) for name in ("train", "val", "test")}
        return training.fit(model, replace(volumes, **parts), replace(recipe, epochs=1), **options)

    def small_preset(name, preset=training.Recipe.preset, **changes):
        return replace(preset(name, **changes), options={"dim": 32, "depth": 1, "mlp_dim": 64})

    def few_shapes(generate=culmination.small_shapes):
        shapes = generate()
        return replace(shapes, train=shapes.train.subset(slice(0, 96)))

    def few_volumes(name="organphantom3d", **options):
        """Every second training clip, and the first 200 of the others; copies, which a cell may change."""
        whole, few = loaded(name, **options), {}
        for part, clips in {"train": slice(None, None, 2), "val": slice(200), "test": slice(200)}.items():
            split = getattr(whole, part)
            few[part] = split.subset(list(range(len(split)))[clips])
        return replace(whole, **few)

    find_spec = importlib.util.find_spec
    absent = {"av", "transformers", "vit_pytorch"}  # optional: their cells compare what the masters' runs compare
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in absent else find_spec(name, *rest)
    )
    monkeypatch.setattr(vivit_edu, "fit", short_fit, raising=False)
    monkeypatch.setattr(vivit_edu, "load_volumes", few_volumes, raising=False)
    monkeypatch.setattr(vivit_edu, "course_volumes", lambda size=28: few_volumes(), raising=False)
    monkeypatch.setattr(training.Recipe, "preset", small_preset)
    monkeypatch.setattr(culmination, "small_shapes", few_shapes)
    monkeypatch.setattr(culmination, "fit", short_fit)
    monkeypatch.setattr(culmination, "seconds_per_epoch", lambda *_: 1.0)
    monkeypatch.setattr(cost, "time_step", lambda *_, **__: 0.001)
    monkeypatch.setattr(cost, "peak_memory", lambda *_, **__: 1_000_000)
    monkeypatch.setattr(plots, "show", lambda *_, **__: None)
    monkeypatch.setattr(puzzles, "learn", lambda *args, learn=puzzles.learn, **_: learn(*args, seeds=1, steps=2))
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("path", MASTERS, ids=lambda path: path.stem)
def test_an_exercise_notebook_runs_with_every_exercise_open(path, light, capsys):
    cells = read(path.parent / "exercises" / path.name).nb.cells  # in step with the master: test_notebooks.py
    failed = run(cells, {"__name__": "__main__"})
    assert not outside_checks(cells, failed)
    assert len(failed) == sum(map(is_check, cells)), "every check refuses what is not written yet"
    said = capsys.readouterr().out.splitlines()[-1]
    assert "exercises passed: none yet" in said
    lent = re.findall(
        rf'ready\("({path.stem[:2]}\.\d+)"', "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    )
    assert not lent or f"borrowed from the course: {', '.join(lent)}" in said
