"""From slices to a ViViT: pretraining on them, runs that start from pretrained weights, and their messages."""

import json
import os
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from tests.damage import NO_FILES, no_file
from tests.references import VIVITS
from tests.tiny import TINY, tiny_recipe, tiny_sizes
from vivit_edu import CheckpointError, ConfigError, build_model, load_pretrained
from vivit_edu.cli import main
from vivit_edu.experiments.pretraining import MaskedSlices, draw_slices, pretrain, pretrain_to, train_masked
from vivit_edu.experiments.runs import load_run, train_run
from vivit_edu.pretrained import options_for
from vivit_edu.support.checkpoint import LATEST, read_newest
from vivit_edu.support.files import what_is
from vivit_edu.training import Recipe, build_seeded, predict_logits
from vivit_edu.weights.files import read_weights


@pytest.fixture(scope="module")
def weights(tiny_volumes, tmp_path_factory):
    """A tiny image transformer, pretrained on slices."""
    return pretrain_to(tmp_path_factory.mktemp("weights") / "slices.safetensors", tiny_volumes, tiny_recipe(), epochs=2)


# ---- pretraining on slices


def test_hidden_patches_are_filled_in_from_the_others():
    torch.manual_seed(0)
    model = MaskedSlices((1, 8, 8), (2, 4, 4), dict(dim=16, depth=2, heads=2, mlp_dim=32)).eval()
    slices, hidden = torch.rand(3, 1, 8, 8), torch.tensor([[True, False, False, True]]).expand(3, 4)
    predicted, true = model(slices, hidden)
    assert predicted.shape == true.shape == (6, 16)
    assert torch.equal(true[0], slices[0, 0, :4, :4].flatten()) and torch.equal(true[1], slices[0, 0, 4:, 4:].flatten())
    other = slices.clone()
    other[:, :, :4, :4], other[:, :, 4:, 4:] = 0, 1
    assert torch.equal(model(other, hidden)[0], predicted)  # what is hidden is not looked at
    other[:, :, :4, 4:] = 0
    assert not torch.equal(model(other, hidden)[0], predicted)  # what is seen is


def test_only_training_clips_are_read_and_no_label(tiny_volumes):
    unseen = replace(tiny_volumes, train=SimpleNamespace(clips=tiny_volumes.train.clips), val=None, test=None)
    state = pretrain(unseen, tiny_recipe(), epochs=1, progress=False)
    again = pretrain(tiny_volumes, tiny_recipe(), epochs=1, progress=False)
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_the_seed_decides_and_torchs_generator_stays(tiny_volumes):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, other = (pretrain(tiny_volumes, tiny_recipe(), epochs=1, seed=seed, progress=False) for seed in (0, 1))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(first["patch_embed.proj.weight"], other["patch_embed.proj.weight"])


def test_pretraining_learns(tiny_volumes):
    """The first step's loss and the last's, by the same slices: it falls."""
    options = dict(dim=16, depth=2, heads=2, mlp_dim=32)
    generator = torch.Generator().manual_seed(9)
    slices, hidden = draw_slices(tiny_volumes.train.clips, generator), torch.rand(128, 4, generator=generator) < 0.5
    losses = []
    for epochs in (1, 60):
        torch.manual_seed(0)
        model = MaskedSlices((1, 8, 8), (2, 4, 4), options)
        train_masked(model, tiny_volumes.train.clips, steps=epochs, seed=0, progress=False)
        with torch.no_grad():
            predicted, true = model(slices, hidden)
        losses.append((predicted - true).square().mean().item())
    assert losses[1] < losses[0] / 2


@pytest.mark.parametrize("name", VIVITS)
def test_its_weights_go_into_all_four_models(name, weights):
    model = build_model(name, clip_shape=(1, 8, 8, 8), num_classes=3, **tiny_sizes(name))
    report = load_pretrained(model, weights)
    assert report.layout == "timm VisionTransformer" and not report.left_out
    assert report.how("embedding.projection.weight") == "inflated" and report.how("head.weight") == "fresh"
    assert not report.notes  # the file says its heads, its activation and its grid
    assert options_for(weights) == {"depth": 2, "dim": 16, "mlp_dim": 32, "heads": 2, "activation": "gelu"}


@torch.no_grad()
def test_the_file_is_timms_image_transformer(weights):
    """timm's own code, given the file, computes what ours does from one frame."""
    timm = pytest.importorskip("timm")
    theirs = timm.models.VisionTransformer(
        8, 4, 1, 0, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2, class_token=False, global_pool="avg", fc_norm=False
    ).eval()
    theirs.load_state_dict(read_weights(weights)[0])
    ours = build_model("spacetime", clip_shape=(1, 1, 8, 8), num_classes=3, **(TINY | {"tubelet": (1, 4, 4)})).eval()
    load_pretrained(ours, weights)
    ours.head = torch.nn.Identity()
    images = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(ours(images.unsqueeze(2)), theirs(images), atol=1e-5, rtol=1e-4)


# ---- other sizes, other recipes


def volumes_of(tiny_volumes, frames, height, width):
    clips = torch.randint(0, 256, (8, 1, frames, height, width), dtype=torch.uint8)
    return replace(tiny_volumes, train=replace(tiny_volumes.train, clips=clips, labels=torch.zeros(8, dtype=int)))


@pytest.mark.parametrize(
    "clip, options",
    [
        ((64, 64, 64), {"tubelet": (8, 8, 8)}),
        ((30, 28, 28), {"tubelet": (5, 7, 7)}),
        ((30, 16, 36), {"tubelet": (15, 4, 4)}),  # 4×9 places
        ((5, 16, 16), {"tubelet": (5, 8, 8), "activation": "gelu_tanh"}),
        ((8, 30, 28), {"tubelet": (2, 7, 7), "remainder": "pad"}),
        ((8, 30, 28), {"tubelet": (2, 7, 7), "remainder": "crop"}),
    ],
)
def test_slices_of_any_size(clip, options, tiny_volumes, tmp_path):
    recipe, volumes = tiny_recipe(options=options), volumes_of(tiny_volumes, *clip)
    path = pretrain_to(tmp_path / "slices.safetensors", volumes, recipe, epochs=1)
    for name in VIVITS:
        report = load_pretrained(build_model(name, clip_shape=(1, *clip), num_classes=3, **recipe.options), path)
        assert not report.notes and report.how("positions") in ("taken", "repeated")


def test_patches_that_do_not_tile_say_what_to_take(tiny_volumes, tmp_path):
    with pytest.raises(ConfigError, match="tubelets of 7 do not tile the 64 voxels along height.*Sizes that tile it"):
        pretrain_to(tmp_path / "a" / "slices.safetensors", volumes_of(tiny_volumes, 64, 64, 64), Recipe.preset("quick"))
    with pytest.raises(ConfigError, match="the recipe's model is cnn3d"):
        pretrain_to(tmp_path / "a" / "slices.safetensors", tiny_volumes, tiny_recipe(model="cnn3d"))
    assert not (tmp_path / "a").exists()  # nothing is written before the model stands


@pytest.mark.parametrize(
    "name", ["file/slices.safetensors", "folder.safetensors", "weights.pt", "weights", "none/file/x.safetensors"]
)
def test_what_cannot_be_written_is_refused_before_training(name, tiny_volumes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "vivit_edu.experiments.pretraining.train_masked", lambda *_, **__: pytest.fail("it was trained")
    )
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="FILE.safetensors|cannot be written to .*--out"):
        pretrain_to(tmp_path / name, tiny_volumes, tiny_recipe(epochs=1))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("theirs", ["text", "weights"])
def test_a_file_that_pretraining_did_not_write_is_not_written_over(theirs, tiny_volumes, tmp_path, monkeypatch):
    path = tmp_path / "slices.safetensors"
    if theirs == "text":
        path.write_text("mine")
    else:
        save_file({"a": torch.zeros(2)}, path, metadata={"task": "mine"})
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="that pretraining did not write.*--out"):
        pretrain_to(path, tiny_volumes, tiny_recipe(), epochs=1)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    path.unlink()
    for _ in range(2):
        pretrain_to(path, tiny_volumes, tiny_recipe(), epochs=1)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
def test_what_is_no_file_is_not_opened_and_not_written_over(kind, words, tiny_volumes, tmp_path, monkeypatch):
    monkeypatch.setattr("vivit_edu.experiments.pretraining.trained", lambda *_: pytest.fail("it was trained"))
    path = no_file(kind, tmp_path / "slices.safetensors")
    with pytest.raises(ConfigError, match=f"there is {words} of this name that pretraining did not write"):
        pretrain_to(path, tiny_volumes, tiny_recipe(), epochs=1)
    assert what_is(path) == words


def test_a_disk_that_is_nearly_full_is_told_before_training(tiny_volumes, tmp_path, monkeypatch):
    import shutil

    from vivit_edu.errors import DataError

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    monkeypatch.setattr("vivit_edu.experiments.pretraining.trained", lambda *_: pytest.fail("it was trained"))
    with pytest.raises(DataError, match="MiB free: make room, or name another folder"):
        pretrain_to(tmp_path / "slices.safetensors", tiny_volumes, tiny_recipe(), epochs=1)
    with pytest.raises(DataError, match="run needs .* MiB at the least"):
        train_run(tiny_volumes, tiny_recipe(epochs=1), out=tmp_path / "new" / "run", device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_room_is_refused_before_training(tiny_volumes, tmp_path, monkeypatch):
    import tempfile

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(ConfigError, match=r"No space left on device\): choose another file with --out"):
        pretrain_to(tmp_path / "slices.safetensors", tiny_volumes, tiny_recipe(epochs=1))


# ---- a run that starts from them


@pytest.fixture(scope="module")
def run(weights, tiny_volumes, tmp_path_factory):
    """A run of two epochs from the tiny image model, its filters averaged."""
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    recipe = tiny_recipe(epochs=2, pretrained=str(weights), inflate="average")
    return out, recipe, train_run(tiny_volumes, recipe, out=out, device="cpu", figures=False)


def test_a_run_begins_with_the_pretrained_weights(weights, tiny_volumes, tmp_path, monkeypatch):
    import vivit_edu.experiments.runs

    seen = []
    monkeypatch.setattr(
        vivit_edu.experiments.runs, "fit", lambda model, *_, **__: seen.append(model.state_dict()) or 1 / 0
    )
    recipe = tiny_recipe(pretrained=str(weights), inflate="average")
    with pytest.raises(ZeroDivisionError):
        train_run(tiny_volumes, recipe, out=tmp_path, seed=3, device="cpu")
    expected = build_seeded(recipe, tiny_volumes, 3)
    load_pretrained(expected, weights, method="average")
    assert seen[0].keys() == expected.state_dict().keys()
    assert all(torch.equal(value, seen[0][name]) for name, value in expected.state_dict().items())


def test_the_report_and_where_the_weights_are_from_stay_with_the_run(run, weights):
    out, recipe, metrics = run
    kept = json.loads((out / "pretrained.json").read_text())
    assert kept["weights"] == weights.name and kept["inflate"] == "average" and len(kept["sha256"]) == 64
    assert any("embedding.projection.weight" in line and "inflated" in line for line in kept["report"])
    assert metrics["first_weights"] == {key: value for key, value in kept.items() if key != "report"}
    assert metrics["recipe"]["pretrained"] == weights.name and metrics["recipe"]["inflate"] == "average"
    assert str(weights.parent) not in (out / "metrics.json").read_text()  # a path of one machine
    assert Recipe.from_dict(json.loads((out / "run.json").read_text())["recipe"]).pretrained == str(weights)


def test_a_run_without_them_says_nothing_of_them(tiny_volumes, tmp_path):
    metrics = train_run(tiny_volumes, tiny_recipe(epochs=1), out=tmp_path, device="cpu", figures=False)
    assert "first_weights" not in metrics and metrics["recipe"]["pretrained"] == ""
    assert not (tmp_path / "pretrained.json").exists()


def test_going_on_needs_the_weights_no_more_and_keeps_what_was_said_of_them(run, tiny_volumes, weights, tmp_path):
    """Stopped after its first epoch, its file of weights gone: the same numbers as without a stop."""
    _, recipe, whole = run
    moved = tmp_path / weights.name
    moved.write_bytes(weights.read_bytes())
    recipe, out = replace(recipe, pretrained=str(moved)), tmp_path / "run"

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vivit_edu.support.checkpoint.save_checkpoint", save_then(stop))
        with pytest.raises(KeyboardInterrupt):
            train_run(tiny_volumes, recipe, out=out, device="cpu", figures=False)
    assert read_newest(out)["epochs_done"] == 1
    moved.unlink()
    metrics = train_run(tiny_volumes, recipe, out=out, resume=True, device="cpu", figures=False)
    assert metrics["test"] == whole["test"] and metrics["first_weights"] == whole["first_weights"]


def save_then(stop):
    from vivit_edu.support.checkpoint import save_checkpoint

    def save(*arguments):
        save_checkpoint(*arguments)
        stop()

    return save


def test_a_finished_run_is_read_without_the_weights(run, tiny_volumes, weights, tmp_path, monkeypatch):
    out, _, metrics = run
    content = json.loads((out / "run.json").read_text())
    content["recipe"]["pretrained"] = "gone.safetensors"
    (tmp_path / "run.json").write_text(json.dumps(content))
    (tmp_path / LATEST).write_bytes((out / LATEST).read_bytes())
    monkeypatch.setattr("vivit_edu.experiments.runs.load_volumes", lambda *_, **__: tiny_volumes)
    model, volumes, _ = load_run(tmp_path, device="cpu")
    logits = predict_logits(model, volumes.test)
    assert (logits.argmax(dim=1) == volumes.test.labels).float().mean().item() == metrics["test"]["acc"]


def test_a_run_of_before_these_fields_goes_on(tiny_volumes, tmp_path):
    recipe = tiny_recipe(epochs=2)
    train_run(tiny_volumes, recipe, out=tmp_path, device="cpu", figures=False)
    content = read_newest(tmp_path)
    for name in ("pretrained", "inflate"):
        del content["recipe"][name]
    torch.save(content, tmp_path / LATEST)
    assert Recipe.from_dict(content["recipe"]) == recipe
    train_run(tiny_volumes, recipe, out=tmp_path, resume=True, device="cpu", figures=False)
    with pytest.raises(CheckpointError, match="pretrained was , now other.pt"):
        train_run(tiny_volumes, replace(recipe, pretrained="other.pt"), out=tmp_path, resume=True, device="cpu")


@pytest.mark.parametrize(
    "changes, error, says",
    [
        ({"inflate": "central frame"}, ConfigError, "central, average, random"),
        ({"pretrained": "nowhere.safetensors"}, CheckpointError, "there is no file"),
        ({"options": {"depth": 3}}, CheckpointError, "depth 2 and 3"),
        ({"options": {"heads": 4}}, CheckpointError, "heads 2 and 4"),
        ({"pretrained": "torchvision:resnet18"}, CheckpointError, "no image transformer 'resnet18'; it has vit_b_16, "),
    ],
)
def test_what_cannot_be_started_says_why(changes, error, says, weights, tiny_volumes, tmp_path):
    with pytest.raises(error, match=says):
        train_run(tiny_volumes, tiny_recipe(**{"pretrained": str(weights), **changes}), out=tmp_path, device="cpu")


def test_the_command_line_takes_the_sizes_of_the_weights(weights, tiny_volumes, tmp_path, monkeypatch, capsys):
    import vivit_edu.cli

    monkeypatch.setattr(vivit_edu.cli, "get_volumes", lambda options: tiny_volumes)
    out = tmp_path / "run"
    arguments = ["train", "--epochs", "1", "--device", "cpu", "--pretrained", str(weights), "--inflate", "average"]
    arguments += ["--tubelet", "2,4,4"]
    assert main([*arguments, "--out", str(out)]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "from timm VisionTransformer" in printed and "1/2 of it on each frame" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["recipe"]["inflate"] == "average" and metrics["options"]["dim"] == 16
    assert main(["train", "--resume", "--out", str(out), "--device", "cpu"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["train", "organphantom3d", "--pretrained", "nowhere.safetensors"], "there is no file"),
        (["train", "organphantom3d", "--inflate", "average"], "--pretrained WEIGHTS"),
        (["train", "organphantom3d", "--pretrained", "torchvision:vit_b_7"], "vit_b_16"),
        (["pretrain", "organphantom3d", "--out", "weights.pt"], "FILE.safetensors"),
    ],
)
def test_bad_input_ends_in_one_message_and_status_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("vivit-edu: ") and says in message and "Traceback" not in message


def test_the_recipe_survives_json(weights):
    recipe = tiny_recipe(pretrained="torchvision:vit_b_16", inflate="random")
    assert asdict(Recipe.from_dict(json.loads(json.dumps(asdict(recipe)))))["inflate"] == "random"


# ---- tables of runs that start from them


def test_a_share_takes_whole_patients_and_the_same_ones_for_both_starts(tiny_volumes):
    from vivit_edu.experiments.tables import train_on_share

    patients = torch.arange(48) // 4  # twelve patients of four clips
    volumes = replace(tiny_volumes, train=replace(tiny_volumes.train, patients=patients))
    seen = {}

    def keep(volumes, recipe, *, seed, **rest):
        seen[seed, len(volumes.train)] = volumes.train.patients.tolist()

    for percent, seed in ((25, 0), (50, 0), (25, 1), (1, 0)):
        train_on_share(volumes, tiny_recipe(), percent=percent, train=keep, seed=seed)
    assert all(len(set(owners)) * 4 == clips for (_, clips), owners in seen.items())
    assert set(seen[0, 12]) < set(seen[0, 24]) and seen[0, 12] != seen[1, 12] and (0, 4) in seen
