"""What is asked for on the command line reaches the recipe; a run that goes on refuses what contradicts it."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import data, training
from vivit_edu.cli import main
from vivit_edu.experiments import choices, runs
from vivit_edu.training import Recipe
from vivit_edu.volumes import Split, Volumes


@pytest.fixture
def tiny(monkeypatch):
    make_tiny(monkeypatch)


def make_tiny(monkeypatch):
    """Small data and a short recipe behind the names of the command line, no figures; a CPU without bfloat16."""
    monkeypatch.setattr(runs, "draw_figures", lambda *_: None)
    for module in (data, runs):
        monkeypatch.setattr(module, "load_volumes", lambda name="tiny", **_: replace(make_tiny_volumes(), name=name))
    monkeypatch.setattr(choices, "try_out", lambda *_: None)  # it expects clips of 28³
    monkeypatch.setattr(Recipe, "fitted", lambda self, shape: (self, None))
    monkeypatch.setattr(training.Recipe, "preset", lambda name, **changes: tiny_recipe(**changes))
    monkeypatch.setattr(choices, "cpu_has_bfloat16", lambda: False)


SMALL = ["--set", "depth=1", "--set", "dim=16", "--set", "heads=2", "--set", "mlp_dim=32"]


def train(*arguments):
    return main(["train", *map(str, arguments), "--device", "cpu"])


def recipe_in(out):
    return json.loads((out / "run.json").read_text())["recipe"]


def blank_volumes(shape, film=False):
    """Four training clips of this shape, and two of each other split."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        return Split(torch.randint(0, 256, (n, *shape), generator=generator, dtype=torch.uint8), torch.arange(n) % 2)

    return Volumes("blank", ("a", "b"), split(4), split(2), split(2), film=film)


# ---- a new run


@pytest.mark.parametrize("setting", ["dim=900000", "mlp_dim=1000000", "depth=100000", "depth=3000"])
@pytest.mark.parametrize("model", ["spacetime", "factorised_encoder"])
def test_a_model_that_no_memory_holds_is_refused_before_it_is_built(setting, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs.os, "sysconf", {"SC_PHYS_PAGES": 2**21, "SC_PAGE_SIZE": 2**12}.get)  # 8 GiB
    sizes = ["--set", "dim=512", "--set", "mlp_dim=2048", "--set", "heads=4"]
    assert train("movingshapes", "--model", model, *sizes, "--set", setting, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "takes at least" in said or "depth must be" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("frames", [999_999, 300_000, 30_000])
def test_frames_that_no_memory_holds_are_refused(frames, tmp_path, capsys, monkeypatch):
    """Each file fits into its bounds, and the few that there are do: the batches do not, nor the tokens."""
    monkeypatch.setattr(runs.os, "sysconf", {"SC_PHYS_PAGES": 2**21, "SC_PAGE_SIZE": 2**12}.get)
    monkeypatch.setattr("vivit_edu.datasets.video.load_videos", lambda *_, **__: pytest.fail("they were read"))
    where = ["--videos", tmp_path, "--out", tmp_path / "run", "--set", "tubelet=2,4,4", "--set", "remainder=pad"]
    assert train(*where, "--frames", frames) == 2
    assert "takes at least" in capsys.readouterr().err


def test_memory_is_counted_for_the_batch_that_there_is(tmp_path, monkeypatch):
    """Of few clips a batch is smaller; a system that does not say how much memory it has refuses nothing."""
    volumes, recipe = make_tiny_volumes(), tiny_recipe(epochs=1, batch_size=4096)
    pages = 1000  # of 1 KiB
    monkeypatch.setattr(runs.os, "sysconf", {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 2**10}.get)
    with pytest.raises(
        runs.ConfigError, match=r"batches of 48 clips \[1, 8, 8, 8\] takes at least .* GiB, and this machine"
    ):
        runs.train_run(volumes, recipe, out=tmp_path / "run", device="cpu", figures=False)
    assert not (tmp_path / "run").exists()
    few = replace(volumes, train=volumes.train.subset(slice(6)))
    runs.train_run(few, recipe, out=tmp_path / "few", device="cpu", figures=False)
    monkeypatch.delattr(runs.os, "sysconf")
    runs.train_run(volumes, recipe, out=tmp_path / "run", device="cpu", figures=False)


def test_settings_reach_recipe_augmentation_and_options(tiny, tmp_path):
    """Short names, full names, and the short cuts, each parsed by the type of its field."""
    out = tmp_path / "run"
    settings = ["weight_decay=.2", "augmentation.shift=.1", "mirror=yes", "rand-layers=0", "options.heads=4"]
    settings += ["pool=cls", "optimiser=muon", "epochs=1"]
    given = [word for setting in settings for word in ("--set", setting)]
    assert train("tiny", "--out", out, "--lr", "1e-2", "--batch-size", "8", "--tubelet", "4,2,2", *given) == 0
    recipe = recipe_in(out)
    assert (recipe["weight_decay"], recipe["lr"], recipe["batch_size"], recipe["epochs"]) == (0.2, 0.01, 8, 1)
    assert recipe["optimiser"] == "muon"
    augmentation, options = recipe["augmentation"], recipe["options"]
    assert (augmentation["shift"], augmentation["mirror"], augmentation["noise"]) == (0.1, True, 0.05)
    assert (options["heads"], options["pool"], options["tubelet"], options["dim"]) == (4, "cls", [4, 2, 2], 16)


def test_every_field_and_option_can_be_set():
    """Each is set to its own default, as text: nothing is refused and nothing changes."""
    for model in ("spacetime", "factorised_encoder", "single_frame", "cnn_attention", "cnn3d", "torchvision:r3d_18"):
        recipe = Recipe(model=model)
        values = asdict(recipe)
        values |= values.pop("augmentation") | choices.option_defaults(model)
        own = {*choices.OWN, *([] if model == "factorised_encoder" else ["temporal_depth"])}  # Model 2's alone
        values = {name: value for name, value in values.items() if name not in own}
        for name, value in values.items():
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            changed = choices.with_settings(recipe, [(name, text)])
            known = choices.option_defaults(model)
            assert replace(changed, options={}) == replace(recipe, options={}), name
            assert known | changed.options == known, name


@pytest.mark.parametrize(
    "setting, says",
    [
        ("lr", "FIELD=VALUE"),
        ("=3", "FIELD=VALUE"),
        ("lr=", "FIELD=VALUE"),
        ("learning_rate=1", "no field 'learning_rate'; .*weight_decay.*shift.*tubelet"),
        ("augmentation.depth=1", "no field 'augmentation.depth'"),
        ("options.lr=1", "no field 'options.lr'"),
        ("recipe.shift=1", "no field 'recipe.shift'"),
        ("options=1", "options"),
        ("lr=fast", "lr=fast was given: expected a number"),
        ("lr=nan", "lr"),
        ("lr=1e999", "lr must be"),
        ("lr=-1", "lr must be above 0, got -1"),
        ("epochs=1.5", "epochs=1.5 was given: expected a whole number"),
        ("epochs=0", "epochs must be at least 1, got 0"),
        ("batch_size=" + "9" * 40, "batch_size"),
        ("mirror=2", "mirror=2 was given: expected true or false"),
        ("shift=1e999", "shift"),
        ("shift=.9", "shift=0.9 was given: it must be a plain number in 0..0.5"),
        ("tubelet=4", "tubelet=4 was given: expected numbers with commas"),
        ("tubelet=4,4", "tubelet is three positive sizes .*4, 4"),
        ("tubelet=4,x,4", "tubelet=4,x,4 was given: expected numbers with commas"),
        ("tubelet=4,0,4", "tubelet is three positive sizes"),
        ("depth=0", "depth must be at least 1, got 0"),
        ("pool=max", "pool='max' is not known; .*mean, cls"),
        ("optimiser=sgd", "optimiser='sgd' is not known; .*adamw, muon"),
        ("model=cnn3d", "--model"),
        ("pretrained=x.pt", "--pretrained"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_written(setting, says, tiny, tmp_path, capsys):
    import re

    assert train("tiny", "--out", tmp_path / "run", "--set", setting) == 2
    message = capsys.readouterr().err
    assert re.search(says, message) and message.startswith("vivit-edu: ") and "Traceback" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "given",
    [["--frames", "4"], ["--inflate", "central"], ["--videos", "x", "--root", "y"], ["tiny", "--videos", "x"]],
    ids=" ".join,
)
def test_options_that_would_have_no_effect_are_refused(given, tiny, tmp_path, capsys):
    assert train("--out", tmp_path / "run", *given) == 2
    assert given[-2] in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (3, 16, 28, 28), (3, 32, 64, 64), (3, 30, 28, 28)], ids=str)
def test_a_preset_takes_tubelets_that_tile_the_clips(shape, monkeypatch, tmp_path, capsys):
    """The default recipe on a CPU, for volumes and videos of other sizes; one line says what was changed."""
    volumes = blank_volumes(shape)
    monkeypatch.setattr(data, "load_volumes", lambda *_, **__: volumes)
    monkeypatch.setattr("vivit_edu.datasets.video.load_videos", lambda *_, **__: volumes)
    _, frames, size, _ = shape
    source = ["--videos", tmp_path, "--frames", frames] if shape[0] == 3 else ["organphantom3d"]
    out = tmp_path / "run"
    assert train(*source, "--size", size, "--epochs", 1, "--out", out, *SMALL) == 0
    tubelet = recipe_in(out)["options"]["tubelet"]
    assert all(n % t == 0 for n, t in zip(shape[1:], tubelet)) or recipe_in(out)["options"]["remainder"] == "pad"
    printed = capsys.readouterr().out
    assert "×".join(map(str, tubelet)) in printed and "7×7×7" in printed


def test_tubelets_that_were_given_are_not_changed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(data, "load_volumes", lambda *_, **__: blank_volumes((1, 64, 64, 64)))
    for given in (["--tubelet", "7,7,7"], ["--set", "tubelet=7,7,7"], ["--set", "options.tubelet=7,7,7"]):
        assert train("organphantom3d", "--size", 64, "--out", tmp_path / "run", *given) == 2
        assert "7" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_with_instructions_for_bfloat16_trains_in_it_and_says_so(has, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(choices, "cpu_has_bfloat16", lambda: has)
    cases = {
        "default": ([], has),
        "off": (["--no-bfloat16"], False),
        "on": (["--bfloat16"], True),
        "off by --set": (["--set", "bfloat16=false"], False),
    }
    for name, (given, wanted) in cases.items():
        assert train("tiny", "--epochs", 1, "--out", tmp_path / name, *given) == 0
        assert recipe_in(tmp_path / name)["bfloat16"] == wanted
        assert ("--no-bfloat16" in capsys.readouterr().out) == (name == "default" and has), name


def test_a_folder_without_a_finished_epoch_can_be_started_again(tiny, tmp_path, monkeypatch, capsys):
    """With other choices, too: nothing of the first attempt is left."""
    out = tmp_path / "run"

    def broken(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", broken)
        assert train("tiny", "--out", out, "--seed", 3) == 130
    assert (out / "run.json").exists() and not (out / "checkpoint.pt").exists()
    (out / "pretrained.json").write_text(json.dumps({"weights": "old.pt", "report": []}))
    assert train("tiny", "--out", out, "--epochs", 1, "--lr", "1e-2") == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["seed"] == 0 and metrics["recipe"]["lr"] == 0.01 and "first_weights" not in metrics
    assert train("tiny", "--out", out) == 2 and "--resume" in capsys.readouterr().err
    (out / "checkpoint.pt").unlink()  # the figures of a finished run are kept as well
    assert train("tiny", "--out", out) == 2 and "--resume" in capsys.readouterr().err


# ---- a run that goes on


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    out = tmp_path_factory.mktemp("begun") / "run"
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        assert train("tiny", "--out", out, "--epochs", 2, "--lr", "1e-3", "--preset", "quick") == 0
    return out


@pytest.fixture
def begun(two_epochs, tiny, tmp_path):
    """A run of two epochs."""
    return shutil.copytree(two_epochs, tmp_path / "run")


@pytest.mark.parametrize(
    "given",
    [
        ["other"],
        ["--size", "64"],
        ["--seed", "1"],
        ["--model", "cnn3d"],
        ["--preset", "full"],
        ["--lr", "1e-2"],
        ["--batch-size", "8"],
        ["--tubelet", "4,4,4"],
        ["--bfloat16"],
        ["--pretrained", "weights.pt"],
        ["--inflate", "average"],
        ["--videos", "folder"],
        ["--frames", "4"],
        ["--epochs", "1"],
        ["--set", "epochs=1"],
        ["--set", "clip_norm=2"],
        ["--set", "noise=.1"],
        ["--set", "augmentation.mirror=true"],
        ["--set", "depth=3"],
        ["--set", "pool=cls"],
    ],
    ids=" ".join,
)
def test_what_contradicts_the_run_is_refused_by_name(given, begun, capsys):
    before = {path: path.read_bytes() for path in begun.iterdir()}
    assert train("--resume", "--out", begun, *given) == 2
    message = capsys.readouterr().err
    named = given[1].partition("=")[0] if given[0] == "--set" else "DATASET" if given == ["other"] else given[0]
    assert named.removeprefix("augmentation.") in message and "contradicts the run" in message
    assert {path: path.read_bytes() for path in begun.iterdir()} == before


def test_options_that_agree_with_the_run_are_fine(begun, capsys):
    settings = ["--set", "noise=.05", "--set", "options.depth=2", "--set", "pool=mean", "--tubelet", "2,4,4"]
    agreed = ["tiny", "--seed", 0, "--model", "spacetime", "--preset", "quick", "--lr", ".001"]
    assert train("--resume", "--out", begun, *agreed, "--epochs", 2, "--no-bfloat16", *settings) == 0


def test_a_finished_run_says_so(begun, capsys):
    capsys.readouterr()
    assert train("--resume", "--out", begun) == 0
    printed = capsys.readouterr().out
    assert "finished" in printed and "--epochs" in printed


@pytest.mark.parametrize("longer", [["--epochs", "4"], ["--set", "epochs=4"]], ids=" ".join)
def test_more_epochs_go_on_where_a_longer_run_would_be(longer, begun, capsys):
    before = json.loads((begun / "history.json").read_text())
    capsys.readouterr()
    assert train("--resume", "--out", begun, *longer) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "from 2 to 4 epochs" in line]
    assert len(told) == 1 and "learning rate" in told[0]
    history = json.loads((begun / "history.json").read_text())
    assert history[:2] == before and [row["epoch"] for row in history] == [1, 2, 3, 4]
    recipe, steps = Recipe.from_dict(recipe_in(begun)), 3
    assert recipe.epochs == 4
    rates = [training.learning_rate(recipe, epoch * steps + steps - 1, 4 * steps) for epoch in (2, 3)]
    assert [row["lr"] for row in history[2:]] == pytest.approx(rates)
    metrics = json.loads((begun / "metrics.json").read_text())
    assert metrics["epochs"] == 4 and metrics["longer"] == [[2, 4]]
    assert train("--resume", "--out", begun) == 0  # without epochs, it is a run of four now
    assert main(["evaluate", str(begun), "--device", "cpu"]) == 0


def test_a_run_made_longer_can_be_stopped_and_gone_on_with(begun, monkeypatch):
    quickly = training.train_epoch

    def stops(*arguments, epoch, **options):
        if epoch == 3:
            raise KeyboardInterrupt
        return quickly(*arguments, epoch=epoch, **options)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_epoch", stops)
        assert train("--resume", "--out", begun, "--epochs", 4) == 130
    assert train("--resume", "--out", begun) == 0
    assert len(json.loads((begun / "history.json").read_text())) == 4


# ---- pretraining


@pytest.mark.parametrize("preset, shape", [("quick", (1, 64, 64, 64)), ("full", (1, 30, 28, 28))], ids=str)
def test_pretraining_takes_patches_that_tile_the_slices(preset, shape, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "load_volumes", lambda *_, **__: blank_volumes(shape))
    monkeypatch.setattr("vivit_edu.experiments.pretraining.SLICES", 4)
    out = tmp_path / "slices.safetensors"
    arguments = ["--size", str(shape[-1]), "--preset", preset, "--epochs", "1", "--out", str(out), "--device", "cpu"]
    assert main(["pretrain", "organphantom3d", *arguments]) == 0 and out.is_file()
