"""Recorded models: what is written is what was measured, and what is read is what was written."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.cli import main
from vivit_edu.cost import PAPER
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments import trained
from vivit_edu.experiments.trained import RECORDED, Trained, load_trained, record, weights_path
from vivit_edu.support import checkpoint
from vivit_edu.training import evaluate


@pytest.fixture
def place(tmp_path, monkeypatch, tiny_volumes):
    """A checkout of its own, whose only recorded model trains in a second."""
    monkeypatch.setattr(trained, "checkout", lambda: tmp_path)
    monkeypatch.setattr(trained, "load_volumes", lambda name, root=None: tiny_volumes)
    monkeypatch.setattr(trained, "RECORDED", {"small": Trained("tiny", tiny_recipe(epochs=2, ema=0.5))})
    return tmp_path


def test_what_is_recorded_is_what_was_measured(place, tiny_volumes):
    path, facts = record("small", device="cpu")
    assert path == place / "notebooks" / "results" / "models" / "small.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    model, read = load_trained(path)
    assert read == json.loads(json.dumps(facts)) and not model.training
    for split in ("val", "test"):
        found = evaluate(model, getattr(tiny_volumes, split))
        assert vars(found) == pytest.approx(facts[split])
    assert all(p.dtype == torch.float32 and torch.equal(p, p.half().float()) for p in model.parameters())
    assert read["recipe"] == checkpoint.plain(asdict(trained.RECORDED["small"].recipe))
    assert len(read["history"]) == 2 and read["command"] == "vivit-edu record small"


def test_a_recorded_model_is_not_trained_again(place, monkeypatch):
    first = record("small", device="cpu")
    monkeypatch.setattr(trained, "train_run", None)
    assert record("small", device="cpu")[1] == json.loads(json.dumps(first[1]))


def test_other_seeds_stay_in_runs(place, capsys):
    assert main(["record", "small", "--seed", "1", "--device", "cpu"]) == 0
    path = place / "runs" / "recorded" / "small-seed1" / "small.safetensors"
    assert str(path) in capsys.readouterr().out and load_trained(path)[1]["seed"] == 1
    assert not (place / "notebooks").exists()


def test_an_interrupted_run_goes_on(place, monkeypatch):
    _, whole = record("small", seed=3, device="cpu")
    other = place / "other"
    monkeypatch.setattr(trained, "checkout", lambda: other)

    with monkeypatch.context() as patch:
        save = checkpoint.save_checkpoint

        def save_once(folder, state, done):
            save(folder, state, done)
            if done == 1:
                raise KeyboardInterrupt

        patch.setattr(checkpoint, "save_checkpoint", save_once)
        with pytest.raises(KeyboardInterrupt):
            record("small", seed=3, device="cpu")
    assert not weights_path("small", 3).exists()
    assert record("small", seed=3, device="cpu")[1]["sha256"] == whole["sha256"]


def test_weights_that_lose_accuracy_are_not_written(place, monkeypatch):
    monkeypatch.setattr(trained, "rounded", lambda model: {k: 0 * v for k, v in model.state_dict().items()})
    with pytest.raises(CheckpointError, match="nothing is written"):
        record("small", device="cpu")
    assert not weights_path("small").exists()


def test_weights_that_are_too_large_are_not_written(place, monkeypatch):
    monkeypatch.setattr(trained, "LARGEST", 1000)
    with pytest.raises(CheckpointError, match="at most 1000"):
        record("small", device="cpu")
    huge = torch.nn.Linear(2, 2)
    huge.weight.data.fill_(1e6)
    with pytest.raises(CheckpointError, match=r"weight .*float16"):
        trained.rounded(huge)


def test_damaged_files_are_refused_by_name(place):
    path, _ = record("small", device="cpu")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CheckpointError, match="small.safetensors.*SHA-256"):
        load_trained(path)
    path.write_bytes(whole)
    facts = json.loads(path.with_suffix(".json").read_text())
    wider = {**facts, "recipe": {**facts["recipe"], "options": {**facts["recipe"]["options"], "dim": 32}}}
    path.with_suffix(".json").write_text(json.dumps(wider))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_trained(path)
    for broken in ("{", "[]", json.dumps({k: v for k, v in facts.items() if k != "sha256"})):
        path.with_suffix(".json").write_text(broken)
        with pytest.raises(CheckpointError, match="small.json"):
            load_trained(path)


def test_a_name_that_is_none_trains_nothing(place, capsys):
    with pytest.raises(ConfigError, match="no recorded model is called 'model1'.*small"):
        weights_path("model1")
    assert main(["record", "small", "model1"]) == 2
    assert "model1" in capsys.readouterr().err and not (place / "runs").exists()


def test_the_table_is_at_one_budget():
    """The four ViViTs differ in nothing but the model and its depth, and have about as many weights."""
    recipes = [RECORDED[name].recipe for name in PAPER]
    assert [recipe.model for recipe in recipes] == list(PAPER)
    alike = [replace(recipe, model="spacetime", options={}) for recipe in recipes]
    assert alike == alike[:1] * 4
    assert {RECORDED[name].dataset for name in (*PAPER, "full")} == {"organphantom3d"}
    for name in (*PAPER, "full", "spacetime_movingshapes"):
        assert RECORDED[name].recipe.options["tubelet"] == (4, 4, 4)
