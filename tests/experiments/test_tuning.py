"""A learning rate for each row: which one is taken, and that a row is tuned once for all its seeds."""

from functools import partial

import pytest

from tests.tiny import tiny_recipe
from vivit_edu.errors import TrainingError
from vivit_edu.experiments import tuning
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.tables import Row
from vivit_edu.support.files import read_json

RATES = (1e-5, 1e-2)


def tuned(volumes, out, seeds=2, rates=RATES):
    row = Row("a row", tiny_recipe(), partial(tuning.train_at_best_rate, rates=rates, epochs=3))
    return run_table("sample", [row], volumes, seeds=seeds, out=out, device="cpu")


def test_the_rate_with_the_lowest_validation_loss_is_taken_by_every_seed(tiny_volumes, tmp_path):
    (row,) = tuned(tiny_volumes, tmp_path)["rows"]
    assert row["rates"]["lr"] == list(RATES) and row["rates"]["epochs"] == 3
    losses = row["rates"]["val_loss"]
    assert losses[0] != losses[1]
    best = RATES[losses.index(min(losses))]
    for seed in (0, 1):
        assert read_json(tmp_path / f"00-a-row-seed{seed}.json")["recipe"]["lr"] == best


def test_a_row_is_tuned_once(tiny_volumes, tmp_path, monkeypatch):
    losses, asked = {1e-5: 0.3, 1e-2: 0.5}, []

    def validation_loss(volumes, recipe, device):
        asked.append((recipe.lr, recipe.epochs))
        return losses[recipe.lr]

    monkeypatch.setattr(tuning, "validation_loss", validation_loss)
    tuned(tiny_volumes, tmp_path, seeds=1)
    tuned(tiny_volumes, tmp_path, seeds=3)
    assert asked == [(1e-5, 3), (1e-2, 3)]
    assert [read_json(tmp_path / f"00-a-row-seed{seed}.json")["recipe"]["lr"] for seed in range(3)] == [1e-5] * 3


def test_a_rate_at_which_training_breaks_off_is_not_taken(tiny_volumes, tmp_path):
    (row,) = tuned(tiny_volumes, tmp_path, seeds=1, rates=(1e20, 1e-2))["rows"]
    assert row["rates"]["val_loss"][0] is None
    assert read_json(tmp_path / "00-a-row-seed0.json")["recipe"]["lr"] == 1e-2


def test_no_rate_trains(tiny_volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "validation_loss", lambda *_: None)
    with pytest.raises(TrainingError, match="each of the rates 1e-05, 0.01: try lower ones"):
        tuned(tiny_volumes, tmp_path, seeds=1)
