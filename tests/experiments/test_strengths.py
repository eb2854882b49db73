"""The table of regularisers: which strength is taken, that each is tuned once, and that the test split waits."""

from dataclasses import asdict, replace
from functools import partial

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.augment import Augmentation
from vivit_edu.course.recorded import recorded
from vivit_edu.errors import ConfigError
from vivit_edu.experiments import strengths
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.tables import Row, make_rows
from vivit_edu.support.checkpoint import plain
from vivit_edu.support.files import read_json

TRIED = {"mixup": (0.2, 1.0), "drop_path": (0.1, 0.4)}


def tuned(volumes, out, tried=TRIED, seeds=1):
    train = partial(strengths.train_at_best_strengths, tried=tried, percent=50)
    rows = [Row("plain", tiny_recipe(epochs=1), partial(train, tried={})), Row("all", tiny_recipe(epochs=1), train)]
    return run_table("sample", rows, volumes, seeds=seeds, out=out, device="cpu")


def test_the_strength_with_the_highest_validation_auc_is_taken_and_each_is_tuned_once(
    tiny_volumes, tmp_path, monkeypatch
):
    aucs, asked = {0.2: 0.7, 1.0: 0.8, 0.1: 0.6, 0.4: 0.6}, []

    def validation_auc(volumes, recipe, *, seed, device):
        drop, mixup = recipe.options.get("drop_path", 0), recipe.augmentation.mixup
        asked.append((drop, mixup, seed, len(volumes.train), recipe.augmentation.noise))
        return aucs[drop or mixup]

    monkeypatch.setattr(strengths, "validation_auc", validation_auc)
    plain, row = tuned(tiny_volumes, tmp_path, seeds=2)["rows"]
    # each alone, and never with a seed of the table; half of 48 clips
    assert asked == [(0, 0.2, 1000, 24, 0), (0, 1.0, 1000, 24, 0), (0.1, 0, 1000, 24, 0), (0.4, 0, 1000, 24, 0)]
    assert row["strengths"]["mixup"]["chosen"] == 1.0 and row["strengths"]["drop_path"]["chosen"] == 0.1
    assert row["strengths"]["mixup"]["val_auc"] == [0.7, 0.8] and plain["strengths"] == {}
    for seed in (0, 1):
        recipe = read_json(tmp_path / f"01-all-seed{seed}.json")["recipe"]
        assert recipe["augmentation"]["mixup"] == 1.0 and recipe["options"]["drop_path"] == 0.1
        recipe = read_json(tmp_path / f"00-plain-seed{seed}.json")["recipe"]
        assert recipe["augmentation"]["mixup"] == 0 and "drop_path" not in recipe["options"]


def test_strengths_are_chosen_without_the_test_split(tiny_volumes, tmp_path):
    """A test split that cannot be read does not disturb the choice."""
    closed = replace(tiny_volumes, test=None)
    auc = strengths.validation_auc(closed, tiny_recipe(epochs=1), seed=3, device=torch.device("cpu"))
    assert 0 <= auc <= 1


def test_piled_up_regularisers_have_the_strengths_chosen_for_their_data_set(tiny_volumes, tmp_path):
    volumes = replace(tiny_volumes, name="adrenalmnist3d")
    train = partial(strengths.train_at_chosen_strengths, names=("smoothing", "drop_path"), percent=50)
    (row,) = run_table("sample", [Row("both", tiny_recipe(epochs=1), train)], volumes, seeds=1, out=tmp_path)["rows"]
    run = read_json(tmp_path / "00-both-seed0.json")
    assert run["recipe"]["augmentation"]["smoothing"] == 0.1 and run["recipe"]["options"]["drop_path"] == 0.4
    assert run["recipe"]["augmentation"]["mixup"] == 0 == run["recipe"]["augmentation"]["rand_layers"]
    assert row["strengths"] == {"smoothing": {"chosen": 0.1}, "drop_path": {"chosen": 0.4}}
    assert "experiments.strengths.CHOSEN" in run["code"]
    with pytest.raises(ConfigError, match="not for tiny"):
        train(replace(tiny_volumes, name="tiny"), tiny_recipe(), seed=0, out=tmp_path)


@pytest.mark.parametrize("name", strengths.CHOSEN)
def test_the_strengths_written_down_are_those_that_the_recorded_table_chose(name):
    last = recorded(f"ablation_regularisation_{name}.json")["rows"][-1]
    assert {field: tuned["chosen"] for field, tuned in last["strengths"].items()} == strengths.CHOSEN[name]


def test_it_runs(tiny_volumes, tmp_path):
    """For real, at tiny size, through to the table."""
    content = tuned(tiny_volumes, tmp_path, tried={"rand_magnitude": (5.0, 10.0)})
    row = content["rows"][1]["strengths"]["rand_magnitude"]
    assert len(row["val_auc"]) == 2 and row["chosen"] in (5.0, 10.0)
    assert read_json(tmp_path / "01-all-seed0.json")["recipe"]["augmentation"]["rand_layers"] == 2


def test_a_regulariser_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="no regulariser is called 'mixap'"):
        strengths.strengthened(tiny_recipe(), "mixap", 0.1)


def test_each_row_has_one_regulariser_and_the_last_has_all():
    nothing, *alone, gentle, everything = make_rows("regularisation")
    assert nothing.recipe.augmentation == Augmentation() and "drop_path" not in nothing.recipe.options
    assert all(row.recipe == nothing.recipe for row in alone) and gentle.recipe.augmentation.mirror
    assert everything.recipe == gentle.recipe == replace(nothing.recipe, augmentation=gentle.recipe.augmentation)
    tried = [row.train.keywords["tried"] for row in (nothing, *alone, gentle, everything)]
    assert tried[0] == tried[-2] == {} and [len(one) for one in tried[1:-2]] == [1, 1, 1, 1]
    assert tried[-1] == {name: values for one in tried[1:-2] for name, values in one.items()}
    for name, values in tried[-1].items():
        for value in values:
            strengths.strengthened(gentle.recipe, name, value)  # each is in its range


def test_each_row_of_the_cumulative_table_keeps_all_above_it():
    nothing, gentle, *more = rows = make_rows("regularisation-cumulative")
    assert nothing.recipe.augmentation == Augmentation() and "drop_path" not in nothing.recipe.options
    assert [row.recipe for row in (gentle, *more)] == 5 * [
        replace(nothing.recipe, augmentation=make_rows("regularisation")[-1].recipe.augmentation)
    ]
    names = [row.train.keywords["names"] for row in rows]
    assert names[:2] == [(), ()] and [len(one) for one in names[2:]] == [1, 2, 3, 4]
    assert all(after[: len(before)] == before for before, after in zip(names, names[1:]))
    assert {*names[-1]} == {*strengths.CHOSEN["organphantom3d"]} == {*strengths.CHOSEN["adrenalmnist3d"]}


@pytest.mark.parametrize("name", strengths.CHOSEN)
def test_the_recorded_cumulative_table_is_of_these_rows_and_of_the_strengths_chosen(name):
    table = recorded(f"ablation_regularisation_cumulative_{name}.json")
    rows = make_rows("regularisation-cumulative", bfloat16=True)
    assert [row["row"] for row in table["rows"]] == [row.name for row in rows] and len(table["seeds"]) >= 3
    for found, row in zip(table["rows"], rows):
        assert found["recipe"] == plain(asdict(row.recipe)) and len(found["test"]["acc"]["runs"]) == len(table["seeds"])
        names = row.train.keywords["names"]
        assert found["strengths"] == {field: {"chosen": strengths.CHOSEN[name][field]} for field in names}


def test_the_recorded_table_is_of_these_rows_and_of_the_best_strengths():
    table = recorded("ablation_regularisation_organphantom3d.json")
    rows = make_rows("regularisation", table["epochs"], bfloat16=True)
    assert [row["row"] for row in table["rows"]] == [row.name for row in rows] and len(table["seeds"]) >= 3
    for found, row in zip(table["rows"], rows):
        assert found["recipe"] == plain(asdict(row.recipe)) and len(found["test"]["acc"]["runs"]) == len(table["seeds"])
        assert {name: tuple(tuned["strengths"]) for name, tuned in found["strengths"].items()} == row.train.keywords[
            "tried"
        ]
        for tuned in found["strengths"].values():
            best = tuned["val_auc"].index(max(tuned["val_auc"]))
            assert tuned["chosen"] == tuned["strengths"][best] and tuned["seed"] not in table["seeds"]
