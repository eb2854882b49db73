"""Chapter 13's table: every method on every model, with its controls, intervals and provenance."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments.bench import maps
from vivit_edu.explain.faithfulness import METHODS, RANDOM
from vivit_edu.training import build_seeded

SCORES = {"deletion", "insertion", "gain", "deletion_curve", "insertion_curve"}
METRICS = {"acc": 0.5, "balanced_acc": 0.5, "auc": 0.75}


@pytest.fixture
def volumes(tiny_volumes):
    masks = torch.zeros(tiny_volumes.val.clips[:, 0].shape, dtype=torch.uint8)
    masks[..., :2] = 1
    return replace(tiny_volumes, val=replace(tiny_volumes.val, masks=masks))


@pytest.fixture
def recorded_models(volumes, tmp_path, monkeypatch):
    """Two seeds of one model and one of another, as if they were recorded; counts how many are scored."""
    scored = []

    def load(path):
        name, seed = path.stem.rsplit("-", 1)
        recipe = tiny_recipe(model=name)
        facts = {"dataset": volumes.name, "sha256": path.stem, "command": f"vivit-edu record {name}", "seed": int(seed)}
        model = build_seeded(recipe, volumes, int(seed)).eval()
        return model, facts | {"recipe": asdict(recipe), "val": METRICS, "test": METRICS}

    def score(model, split, *, seed, inner=maps.score_maps):
        scored.append(seed)
        return inner(model, split, seed=seed)

    for name in ("spacetime-0", "spacetime-1", "factorised_encoder-0"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setattr(maps, "weights_path", lambda name, seed=0: tmp_path / f"{name}-{seed}.safetensors")
    monkeypatch.setattr(maps, "load_trained", load)
    monkeypatch.setattr(maps, "load_volumes", lambda name: volumes if name != "other" else replace(volumes, name=name))
    monkeypatch.setattr(maps, "checkout", lambda: tmp_path)
    monkeypatch.setattr(maps, "score_maps", score)
    return scored


def run(tmp_path, *flags):
    path = tmp_path / "table.json"
    maps.score_and_write([str(path), "--models", "spacetime", "factorised_encoder", "--per-class", "2", *flags])
    return json.loads(path.read_text())


def test_the_table_has_all_methods_and_controls_of_every_seed(recorded_models, tmp_path, capsys):
    table = run(tmp_path)
    assert table["seeds"] == {"spacetime": [0, 1], "factorised_encoder": [0]} and table["clips"] == 6
    assert "--per-class 2 --models spacetime factorised_encoder" in table["command"]
    for name, result in table["results"].items():
        number = len(table["seeds"][name])
        wanted = {RANDOM, maps.CONTRAST, *METHODS, *(f"{method}, random weights" for method in METHODS)}
        assert set(result["methods"]) == wanted and result["methods"][RANDOM]["gain"]["mean"] == 0
        assert result["val"]["acc"]["runs"] == [0.5] * number and set(result["seconds"]) == set(METHODS)
        for method, scores in result["methods"].items():
            assert set(scores) == SCORES | {"share", "pointing", "iou"} | (
                {"gain_over"} if method in METHODS else set()
            )
            gain = scores["gain"]
            assert len(gain["runs"]) == number and gain["mean"] == pytest.approx(sum(gain["runs"]) / number, abs=2e-4)
            assert gain["low"] <= gain["mean"] + 1e-4 and gain["mean"] <= gain["high"] + 1e-4
            assert len(scores["deletion_curve"]) == len(scores["insertion_curve"]) > 2
    first, second = table["results"]["spacetime"]["methods"]["occlusion"]["deletion"]["runs"]
    assert first != second, "each seed has weights of its own"
    assert "spacetime, seed 1" in capsys.readouterr().out


def test_a_map_is_compared_with_its_controls_clip_by_clip():
    """The two differ by .1 on every clip and by seed, while clips differ by far more."""
    clips = torch.linspace(-1, 1, 40)
    seeds = [
        {name: {"gain": (clips + lead).tolist()} for name, lead in (("a", ours), ("b", 0))} for ours in (0.08, 0.12)
    ]
    found = maps.gain_over([{"methods": one} for one in seeds], "a", "b")
    assert found == {"mean": 0.1, "low": 0.1, "high": 0.1}
    shuffled = [{"methods": one | {"b": {"gain": clips.flip(0).tolist()}}} for one in seeds]
    assert maps.gain_over(shuffled, "a", "b")["low"] < 0, "other clips next to each other"


def test_started_again_it_scores_what_is_new_only(recorded_models, tmp_path):
    first = run(tmp_path, "--seeds", "0")
    assert recorded_models == [0, 0]
    again = run(tmp_path, "--seeds", "0", "1")
    assert recorded_models == [0, 0, 1], "the second seed of the one model that has it"
    assert again["results"]["factorised_encoder"] == first["results"]["factorised_encoder"]
    maps.score_and_write([str(tmp_path / "table.json"), "--models", "spacetime", "--seeds", "0", "--per-class", "1"])
    assert len(recorded_models) == 4, "of other clips nothing is kept"


def test_without_masks_the_figures_on_the_organ_are_left_out(volumes):
    model = build_seeded(tiny_recipe(), volumes, 0).eval()
    scores = maps.score_maps(model, replace(volumes.val, masks=None).subset([0, 1]))
    assert all(set(found) == SCORES for found in scores.values())


def test_what_cannot_be_scored_is_named(recorded_models, tmp_path):
    with pytest.raises(CheckpointError, match="vivit-edu record factorised_self_attention"):
        maps.score_and_write([str(tmp_path / "table.json"), "--models", "spacetime", "factorised_self_attention"])
    with pytest.raises(ConfigError, match="was trained on tiny"):
        run(tmp_path, "--dataset", "other")


def test_the_first_clips_of_each_class_are_taken():
    assert maps.first_of_each(torch.tensor([2, 0, 2, 0, 0, 2]), 2) == [0, 1, 2, 3]
