"""`vivit-edu explain`: a figure and a film of one clip, and messages where there is nothing to explain."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from tests.tiny import TINY, make_tiny_volumes, tiny_recipe
from vivit_edu import build_model
from vivit_edu.cli import main
from vivit_edu.experiments import explain_run, runs
from vivit_edu.explain.pictures import film
from vivit_edu.explain.rollout import rollout
from vivit_edu.support.checkpoint import save_checkpoint
from vivit_edu.training import History, TrainingState, make_optimiser

VOLUMES = make_tiny_volumes()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run folder with a model that has learned nothing, which is enough to draw."""
    monkeypatch.setattr(runs, "load_volumes", lambda *_, **__: VOLUMES)
    recipe = tiny_recipe()
    model = runs.build_seeded(recipe, VOLUMES, 0)
    identity = {"dataset": "tiny", "size": 8, "root": None, "seed": 0, "recipe": asdict(recipe)}
    (tmp_path / "run.json").write_text(json.dumps(identity))
    history = History(
        [{"epoch": 1, "lr": 0.1, "loss": 1.0, "val_acc": 0.3, "val_balanced_acc": 0.3, "val_auc": 0.5, "seconds": 1.0}]
    )
    save_checkpoint(tmp_path, TrainingState(model, make_optimiser(model, recipe), None, history, asdict(recipe), 0), 1)
    return tmp_path


@pytest.mark.parametrize("method", ["last-layer", "rollout", "relevance", "input-gradient", "occlusion"])
def test_every_method_gives_a_figure_and_a_film(run, method, capsys):
    assert main(["explain", str(run), "--sample", "4", "--method", method, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "predicted" in printed and ("right" in printed or "wrong, it is middle" in printed)
    with Image.open(run / f"explain-test-4-{method}.png") as picture:
        assert method.replace("-", " ") in picture.text["Description"] and min(picture.size) > 150
    with Image.open(run / f"explain-test-4-{method}.gif") as film:
        assert film.n_frames == 8 and film.info["loop"] == 0 and b"clip 4" in film.info["comment"]
    assert str(run / f"explain-test-4-{method}.gif") in printed


def test_the_film_shows_each_slice_and_the_map_over_it(tmp_path):
    torch.manual_seed(0)
    model = build_model("spacetime", clip_shape=(1, 4, 8, 8), num_classes=3, **{**TINY, "tubelet": (1, 4, 4)})
    clip = torch.zeros(1, 4, 8, 8, dtype=torch.uint8)
    for t in range(4):
        clip[0, t] = 60 * t
    scores = torch.zeros(4, 4)
    scores[2, :2], scores[1, 2:] = 1.0, 0.25  # time 2, the upper half; time 1, the lower half, and weaker
    explain_run.save_film(tmp_path / "film.gif", film(model, clip, [scores], scale=2), "a clip")
    with Image.open(tmp_path / "film.gif") as moving:
        frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(moving)]
    assert len(frames) == 4 and frames[0].shape == (16, 34, 3)
    for t, frame in enumerate(frames):
        assert abs(frame[:, :16] - 60 * t).max() <= 12  # a GIF has few colours
    yellow = [frame[:, 18:, 0] - frame[:, 18:, 2] for frame in frames]  # red and no blue
    assert yellow[2][:8].min() > 120 and abs(yellow[2][8:]).max() < 20
    assert 20 < yellow[1][8:].mean() < yellow[2][:8].mean() / 2 and abs(yellow[1][:8]).max() < 20


def test_the_map_is_that_of_the_clip_asked_for(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(explain_run, "save_film", lambda *_, **__: None)
    monkeypatch.setattr(explain_run, "film", lambda model, clip, maps, mask: drawn.append((clip, maps[0])))
    explain_run.explain_run(run, sample=7, split="val", device="cpu")
    ((clip, scores),) = drawn
    assert torch.equal(clip, VOLUMES.val.clips[7])
    model, *_ = runs.load_run(run, device="cpu")
    torch.testing.assert_close(scores, rollout(model, VOLUMES.val.clips[7:8] / 255)[0])


def test_the_recorded_pictures_are_of_the_recorded_models(tmp_path, monkeypatch, phantom):
    """With models that have learned nothing: what is tried is which clips and maps are drawn, and what is written."""
    options = {"tubelet": (7, 7, 7), "dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8}
    models = {"full": "factorised_encoder", "spacetime": "spacetime"}
    monkeypatch.setattr(explain_run, "weights_path", lambda name: name)
    monkeypatch.setattr(explain_run, "load_trained", lambda name: (build_model(models[name], **options).eval(), {}))
    still, moving, puzzle = explain_run.record_pictures(tmp_path)
    with Image.open(still) as picture, Image.open(puzzle) as second:
        assert "2 clips, each" in picture.text["Description"] and "wrong: " in picture.text["Description"]
        assert "A and B" in second.text["Description"] and min(picture.size) > 400
    with Image.open(moving) as film_of_it:
        assert film_of_it.n_frames == 28 and b"the rollout of Model 2" in film_of_it.info["comment"]
    assert moving.stat().st_size < 1_000_000


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--sample", "15"], "clips 0 to 14"),
        (["--sample", "-1"], "clips 0 to 14"),
        (["--method", "magic"], "input-gradient, occlusion"),
    ],
)
def test_what_is_not_there_is_named(run, arguments, says, capsys):
    assert main(["explain", str(run), *arguments, "--device", "cpu"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("vivit-edu: ") and says in message
    assert not list(run.glob("explain-*"))


def test_a_folder_without_a_run_and_a_model_without_attention_are_refused(run, tmp_path, monkeypatch, capsys):
    assert main(["explain", str(tmp_path / "nowhere")]) == 2
    assert "run folder" in capsys.readouterr().err
    cnn = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3))
    monkeypatch.setattr(explain_run, "load_run", lambda *_, **__: (cnn, VOLUMES, {"recipe": {"model": "late_fusion"}}))
    assert main(["explain", str(run)]) == 2
    assert "late_fusion" in capsys.readouterr().err
