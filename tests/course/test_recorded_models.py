"""The trained models that chapters show have the figures that stand next to them; a reader's own run comes first."""

import json

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu import ConfigError, load_volumes
from vivit_edu.course.recorded import load_own, own_or_recorded, own_run, recorded_model
from vivit_edu.errors import CheckpointError
from vivit_edu.experiments import trained
from vivit_edu.experiments.runs import load_model, train_run
from vivit_edu.experiments.trained import LARGEST, LOSS, RECORDED, Trained, record, volumes_hash, weights_path
from vivit_edu.training import evaluate

HERE = [name for name in RECORDED if weights_path(name).exists()]


@pytest.fixture(scope="module")
def volumes():
    """The data sets of the recorded models, each loaded once."""
    return {name: load_volumes(name) for name in {RECORDED[model].dataset for model in HERE}}


@pytest.mark.parametrize("name", HERE)
def test_a_recorded_model_has_the_figures_that_stand_next_to_it(name, volumes):
    model, facts = recorded_model(name)
    data = volumes[facts["dataset"]]
    found = evaluate(model, data.test)
    for figure in ("acc", "balanced_acc", "auc"):
        assert getattr(found, figure) == pytest.approx(facts["test"][figure], abs=LOSS), figure
    assert facts["data_sha256"] == volumes_hash(data)
    assert weights_path(name).stat().st_size == facts["bytes"] <= LARGEST
    assert not facts["own"] and not model.training
    assert trained.up_to_date(weights_path(name), RECORDED[name], 0), "recorded with another recipe than the table's"


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_volumes):
    """Runs and recorded models of a checkout of its own."""
    monkeypatch.setenv("VIVIT_EDU_RUNS", str(tmp_path / "own"))
    monkeypatch.setattr(trained, "checkout", lambda: tmp_path)
    monkeypatch.setattr(trained, "load_volumes", lambda name, root=None: tiny_volumes)
    monkeypatch.setattr(trained, "RECORDED", {"full": Trained("tiny", tiny_recipe(epochs=1))})
    return tmp_path


def test_the_readers_own_run_comes_first(place, tiny_volumes, capsys):
    with pytest.raises(ConfigError, match="vivit-edu record full"):
        own_or_recorded("full", "tiny")
    record("full", device="cpu")
    capsys.readouterr()
    _, facts = own_or_recorded("full", "tiny")
    said = capsys.readouterr().out
    assert not facts["own"] and said.startswith("Model: the recorded 'full', trained on tiny") and said.count("\n") == 1
    own_or_recorded("full", "organmnist3d")
    assert "no run of yours on organmnist3d" in capsys.readouterr().out

    recipe = tiny_recipe(epochs=2, ema=0.5, model="factorised_encoder")
    folder = own_run("tiny")
    metrics = train_run(tiny_volumes, recipe, out=folder, seed=4, device="cpu", figures=False)
    model, facts = own_or_recorded("full", "tiny")
    assert "your own run of chapter 12 on tiny, seed 4" in capsys.readouterr().out
    assert facts["own"] and (facts["name"], facts["seed"]) == ("factorised_encoder", 4)
    assert facts["clip_shape"] == [1, 8, 8, 8] and len(facts["history"]) == 2 and facts["test"] == metrics["test"]
    for ours, theirs in zip(model.parameters(), load_model(folder, tiny_volumes, device="cpu").parameters()):
        assert torch.equal(ours, theirs)  # averaged weights, not the last step's
    assert not model.training


def test_a_run_that_is_not_finished_is_not_taken(place, tiny_volumes, capsys):
    record("full", device="cpu")
    folder = own_run("tiny")
    train_run(tiny_volumes, tiny_recipe(epochs=1), out=folder, device="cpu", figures=False)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**metrics, "options": {}}))
    with pytest.raises(CheckpointError, match="chapter12-tiny cannot be read.*chapter 12"):
        load_own(folder)
    (folder / "metrics.json").unlink()
    assert not own_or_recorded("full", "tiny")[1]["own"]
    with pytest.raises(CheckpointError, match="chapter12-tiny"):
        load_own(folder)
