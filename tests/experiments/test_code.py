"""A record's code: what changes its hash and what does not, which parts a run depends on, and one writer."""

import ast
import json
from functools import partial

import pytest

from tests.tiny import tiny_recipe
from vivit_edu.data import NAMES
from vivit_edu.experiments import code
from vivit_edu.experiments.code import CHANGED, code_of, same_code, told, what_changed
from vivit_edu.experiments.many_images import train_from_images
from vivit_edu.experiments.records import write_record
from vivit_edu.experiments.runs import train_run
from vivit_edu.experiments.tables import TABLES, train_and_probe, train_on_share
from vivit_edu.models import MODELS
from vivit_edu.training import Recipe

BEFORE = '''
"""A module."""
from torch import nn
WIDTH = 3
class Layer(nn.Module):
    """A layer."""
    width: int = WIDTH
    def forward(self, x: int) -> int:
        """Doubles."""
        if x < 0:
            raise ValueError(f"{x} is too small")
        return 2 * x
'''


@pytest.mark.parametrize(
    "old, new",
    [
        ('"""A module."""', '"""Another text."""'),
        ('"""A module."""', ""),
        ("        return 2 * x", "        # twice\n\n        return (2 *\n            x)"),
        ("x: int) -> int", "x)"),
        ("is too small", "must be larger"),
        ('ValueError(f"{x} is too small")', "ValueError from None"),
        ('    """A layer."""\n', ""),
    ],
)
def test_what_computes_nothing_may_change(old, new):
    assert old in BEFORE
    assert told(ast.parse(BEFORE)) == told(ast.parse(BEFORE.replace(old, new)))


@pytest.mark.parametrize(
    "old, new",
    [
        ("2 * x", "x * 2"),
        ("2 * x", "2.0 * x"),
        ("WIDTH = 3", "WIDTH = 4"),
        ("x < 0", "x <= 0"),
        ("ValueError", "TypeError"),
        ("width: int = WIDTH", "width: int = 4"),
        ("nn.Module", "nn.Sequential"),
        ("return 2 * x", 'return "2 * x"'),
    ],
)
def test_what_computes_may_not(old, new):
    assert old in BEFORE
    assert told(ast.parse(BEFORE)) != told(ast.parse(BEFORE.replace(old, new)))


def parts(model="spacetime", dataset="organphantom3d", train=train_run, **changes):
    return set(code_of(train, tiny_recipe(model=model) if not changes else Recipe(model=model, **changes), dataset))


def test_a_run_depends_on_its_own_model_and_data():
    phantom, shapes, cnn = parts(), parts(dataset="movingshapes"), parts("cnn3d")
    everyone = {"training", "models", "augment", "augment.warp", "optimisers", "volumes", "support.torch_faults"}
    assert everyone | {"experiments.runs.train_run"} <= phantom & shapes & cnn
    assert {"vivit", "attention", "embedding", "datasets.phantom.anatomy"} <= phantom
    assert "cnn" in cnn and "cnn" not in phantom | shapes
    assert "datasets.shapes" in shapes - phantom and "datasets.phantom" in phantom - shapes
    assert "datasets.medmnist" in parts(dataset="adrenalmnist3d") and "datasets.video" in parts(dataset="my_films")
    assert not {"plots", "errors", "cli", "data"} & (phantom | shapes | cnn)
    assert not [part for part in phantom if part.split(".")[0] in ("explain", "course", "authoring", "weights")]


def test_a_pretrained_run_depends_on_how_weights_are_read():
    assert {"pretrained", "weights.layouts"} <= parts(pretrained="torchvision:vit_b_16")
    images = parts(train=train_from_images)
    assert {"experiments.many_images.train_from_images", "experiments.pretraining.MaskedSlices"} <= images
    assert "experiments.tables.train_on_share" not in images


def test_a_row_depends_on_what_it_settles_and_on_nothing_else_of_its_file():
    """What other tables do may change; a share of 5 % is not one of 10 %."""
    found = [
        code_of(partial(train_on_share, percent=percent, train=train), tiny_recipe(), "organphantom3d")
        for percent, train in ((5, train_run), (10, train_run), (5, train_from_images))
    ]
    assert found[0]["arguments"] != found[1]["arguments"] and found[0] == found[1] | {
        "arguments": found[0]["arguments"]
    }
    assert "experiments.many_images.train_from_images" in found[2].keys() - found[0].keys()
    assert not {"experiments.tables.hunger", "experiments.tables.TABLES"} & found[2].keys()
    probed = code_of(train_and_probe, tiny_recipe(), "organphantom3d")
    assert {"experiments.probes.shuffle_frames", "experiments.probes.add_noise"} <= probed.keys()


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_every_table_has_its_code(table):
    for row in TABLES[table]():
        found = code_of(row.train, row.recipe, "movingshapes")
        trainers = ("runs.train_run", "plateau.train_to_plateau", "inflated_cnn.train_from_slices")
        trained_by = {f"experiments.{trainer}" for trainer in trainers} & set(found)
        assert trained_by and all(found.values()), row.name
        assert what_changed(found, found) == []


def test_all_models_and_data_sets_have_a_module():
    for model in MODELS:
        assert {"vivit", "cnn"} & parts(model, optimiser="adamw")
    for name in NAMES:
        assert code.OF_DATA[name] in parts(dataset=name)
    assert code.NO_FIGURES - {""} <= set(code.package_trees()), "one was renamed"


def test_what_changed_is_named(monkeypatch):
    now = code_of(train_run, tiny_recipe(), "movingshapes")
    assert what_changed(now | {"attention": "0" * 12}, now) == ["attention"]
    assert what_changed({part: told for part, told in now.items() if part != "vivit"}, now) == ["vivit"]
    assert what_changed(now | {"experiments.tables.gone": "0" * 12}, now) == ["experiments.tables.gone"]
    # the run had first weights of its own: these modules are still what they were
    more = code_of(train_run, Recipe(pretrained="x.pt"), "movingshapes")
    assert len(more) > len(now) and what_changed(more, now) == []
    assert what_changed(more | {"pretrained": "0" * 12}, now) == ["pretrained"]


def test_code_that_changed_while_a_run_was_interrupted_is_no_code():
    mixed = same_code({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "0", "d": "4"})
    assert mixed == {"a": "1", "b": CHANGED, "c": CHANGED, "d": CHANGED}
    assert what_changed(mixed, {"a": "1", "b": "0", "d": "4"}) == ["b", "c", "d"]


def test_code_is_written_once_for_all_runs_that_share_it(tmp_path):
    first, second = {"a": "1"}, {"a": "2"}
    rows = [{"row": "x", "code": [first, first, second]}, {"row": "y", "code": [second, None, None]}, {"row": "z"}]
    write_record(tmp_path / "table.json", {"date": "today", "rows": rows})
    read = json.loads((tmp_path / "table.json").read_text())
    names = [row.get("code") for row in read["rows"]]
    assert names[0][0] == names[0][1] != names[0][2] == names[1][0] and names[1][1:] == [None, None]
    assert names[2] is None and read["date"] == "today"
    assert [read["code"][name] for name in names[0]] == [first, first, second] and len(read["code"]) == 2


def test_a_record_without_code_invents_none(tmp_path):
    write_record(tmp_path / "table.json", {"rows": [{"row": "x", "code": [None, None]}]})
    assert "code" not in json.loads((tmp_path / "table.json").read_text())
