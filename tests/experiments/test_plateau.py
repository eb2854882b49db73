"""Training to a plateau: when it stops, which weights are kept, and what the table of all models records of it."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import MODELS
from vivit_edu.errors import TrainingError
from vivit_edu.experiments import plateau, tuning
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.tables import make_rows
from vivit_edu.training import evaluate, predict_logits


@pytest.fixture
def volumes():
    return make_tiny_volumes()


def scripted(monkeypatch, losses, accuracies=None):
    """Training in which the epochs have these validation losses, and these accuracies."""
    epochs, accuracies = iter(losses), iter(accuracies or [0.5] * len(losses))
    monkeypatch.setattr(plateau, "train_epoch", lambda *_, **__: 1.0)
    monkeypatch.setattr(plateau.F, "cross_entropy", lambda *_: torch.tensor(next(epochs)))
    real = plateau.score

    def score(logits, labels):
        found = real(logits, labels)
        return replace(found, acc=next(accuracies, 0.5))

    monkeypatch.setattr(plateau, "score", score)


def run(volumes, tmp_path, **changes):
    patience = changes.pop("patience", 3)
    recipe = tiny_recipe(epochs=20, **changes)
    return plateau.train_to_plateau(volumes, recipe, out=tmp_path / "run", device="cpu", patience=patience)


def test_it_stops_when_the_loss_has_not_come_down_for_some_epochs(volumes, tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 1.2, 0.5, 0.4])
    found = run(volumes, tmp_path)
    assert found["epochs"] == 7, "the fourth is the best, three more bring nothing"
    assert found["plateau"]["best_epoch"] == 4 and found["plateau"]["stopped"]


def test_it_says_when_the_epochs_ran_out(volumes, tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0 - k / 10 for k in range(20)])
    found = run(volumes, tmp_path)
    assert found["epochs"] == 20 and not found["plateau"]["stopped"]


def test_ninety_per_cent_are_of_the_best_epochs_accuracy(volumes, tmp_path, monkeypatch):
    scripted(monkeypatch, [3.0, 2.0, 1.0, 1.1, 1.2, 1.3], [0.2, 0.73, 0.8, 0.9, 0.9, 0.9])
    found = run(volumes, tmp_path)["plateau"]
    assert found["epochs_to_90"] == 2 and found["steps_an_epoch"] == 3
    rows = json.loads((tmp_path / "run" / "history.json").read_text())
    assert found["processor_seconds_to_90"] == pytest.approx(rows[1]["processor_seconds"], abs=0.01)


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_the_weights_of_the_best_epoch_are_evaluated(volumes, tmp_path, monkeypatch, ema):
    kept = {}
    monkeypatch.setattr(plateau, "probe", lambda model, _: kept.update(model=model) or {"unchanged": 0.0})
    found = run(volumes, tmp_path, ema=ema, lr=0.03, patience=4)
    rows = json.loads((tmp_path / "run" / "history.json").read_text())
    logits = predict_logits(kept["model"], volumes.val)
    assert F.cross_entropy(logits, volumes.val.labels).item() == pytest.approx(min(row["val_loss"] for row in rows))
    assert evaluate(kept["model"], volumes.test).acc == found["test"]["acc"]


def test_the_rate_stays_at_its_peak(volumes, tmp_path, monkeypatch):
    rates = []
    real = plateau.train_epoch

    def noted(model, train, volumes, recipe, optimiser, *rest, **more):
        loss = real(model, train, volumes, recipe, optimiser, *rest, **more)
        rates.append(optimiser.param_groups[0]["lr"])
        return loss

    monkeypatch.setattr(plateau, "train_epoch", noted)
    run(volumes, tmp_path, lr=1e-3, patience=5)
    assert rates[0] < 0.6e-3 and all(rate == pytest.approx(1e-3, rel=1e-3) for rate in rates[2:])


def test_a_loss_that_is_no_number_ends_it(volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(plateau, "train_epoch", lambda *_, **__: float("nan"))
    with pytest.raises(TrainingError, match="epoch 1 is nan"):
        run(volumes, tmp_path)


def test_only_clips_that_are_cycles_are_rolled(volumes, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(plateau, "train_at_best_rate", lambda volumes, recipe, **_: seen.update({volumes.name: recipe}))
    for name in ("movingshapes", "organphantom3d"):
        plateau.train_tuned_to_plateau(replace(volumes, name=name), tiny_recipe(), out=tmp_path, seed=0)
    assert seen["movingshapes"].augmentation.roll and not seen["organphantom3d"].augmentation.roll


def test_the_table_has_every_model_and_records_how_each_was_trained(volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(plateau, "TRIAL_EPOCHS", 1)
    rows = make_rows("plateau")
    assert sorted(row.name for row in rows) == sorted(MODELS)
    tiny = [replace(row, recipe=tiny_recipe(model=row.recipe.model, epochs=2, ema=0.5)) for row in rows[:2]]
    content = run_table("plateau", tiny, volumes, seeds=2, out=tmp_path, device="cpu")
    for row in content["rows"]:
        assert row["rates"]["lr"] == list(plateau.RATES) and row["rates"]["seed"] == tuning.TUNING_SEED
        assert [len(of_run) for of_run in row["history"]["val_loss"]] == [2, 2]
        assert [found["stopped"] for found in row["plateau"]] == [False, False]
        assert row["probes"]["unchanged"]["runs"] == row["test"]["acc"]["runs"]


def test_sides_are_compared_only_where_the_organ_was_found(volumes):
    from vivit_edu.volumes import Mirror

    class Answers(torch.nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.weight, self.classes = torch.nn.Parameter(torch.zeros(1)), classes

        def forward(self, clips):
            return F.one_hot(self.classes, 4).float() + 0 * self.weight

    split = replace(volumes.test, clips=volumes.test.clips[:6], labels=torch.tensor([0, 0, 1, 2, 1, 3]))
    sided = replace(volumes, test=split, mirror=Mirror(3, (1, 0, 2, 3)))
    model = Answers(torch.tensor([0, 1, 1, 2, 3, 0]))  # found: the first three; the second on the wrong side
    found = plateau.wrong_side_of_found(model, sided)
    assert found == {"wrong side, organ found": pytest.approx(1 / 3)}
    assert plateau.wrong_side_of_found(model, volumes) == {}
