"""Own videos on the command line: what is chosen for large clips, a run at 112², splits that are kept, what is told."""

import json
import re

import pytest
import torch

from tests.datasets.test_video import encode, ramp
from vivit_edu.cli import main, make_parser
from vivit_edu.datasets import decoding
from vivit_edu.experiments import choices
from vivit_edu.experiments.choices import for_few_clips, for_memory, started
from vivit_edu.experiments.predicting import predict_clip, read_predictor
from vivit_edu.experiments.runs import load_data, memory_needed, read_run
from vivit_edu.training import Recipe, predict_logits
from vivit_edu.volumes import Split

av = pytest.importorskip("av")
SMALL = "--set dim=32 --set depth=1 --set mlp_dim=32 --device cpu --no-bfloat16 --epochs 1".split()


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Six films of each class, 128×160 pixels, that brighten or darken."""
    folder = tmp_path_factory.mktemp("films") / "light"
    for name, way in (("brightens", 1), ("darkens", -1)):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            encode(folder / name / f"{i}.mp4", ramp(16 + i % 5, 128, 160)[::way].copy())
    return folder


@pytest.fixture
def decodes(monkeypatch):
    """Which files were decoded."""
    names, read = [], decoding.read_frames
    monkeypatch.setattr(decoding, "read_frames", lambda path, *a: names.append(path.name) or read(path, *a))
    return names


def train(*words):
    return main(["train", *map(str, words)])


def test_a_run_at_112_decodes_once_and_is_evaluated_and_predicts(films, tmp_path, decodes, capsys, monkeypatch):
    monkeypatch.setenv("VIVIT_EDU_CACHE", str(tmp_path / "cache"))
    first, second = tmp_path / "first", tmp_path / "second"
    assert train("--videos", films, "--size", 112, "--out", first, *SMALL) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert "Clips of 16×112×112: tubelets of 2×16×16 in place of 7×7×7, 392 tokens." in out
    assert "Batches of 2 clips in place of 32, for 8 clips to train on." in out
    assert "12 clips decoded, 0 taken from before; kept in" in err and len(decodes) == 12
    assert "rest on 2 clips for validation and 2 clips for the test: one clip more or less is 50 points" in out
    metrics = json.loads((first / "metrics.json").read_text())
    assert list(metrics["options"]["clip_shape"]) == [3, 16, 112, 112] and metrics["recipe"]["batch_size"] == 2
    assert (first / "attention.png").exists()
    assert train("--videos", films, "--size", 112, "--seed", 1, "--out", second, *SMALL) == 0
    assert main(["evaluate", str(first), "--device", "cpu"]) == 0
    assert len(decodes) == 12  # another seed deals the files out differently, and decodes none
    assert f"{metrics['test']['auc']:.3f}" in capsys.readouterr().out
    film = films / "darkens" / "0.mp4"
    assert main(["predict", str(first), str(film), "--json", "--device", "cpu"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    found = predict_clip(read_predictor(first, device="cpu"), film)
    assert found == {guess["class"]: pytest.approx(guess["probability"]) for guess in row["top"]}
    assert list(found.values()) == sorted(found.values(), reverse=True) and sum(found.values()) == pytest.approx(1)


def chosen(tmp_path, *words, device="cpu"):
    """(options, recipe, arguments of train_run, remarks) of a new run on videos."""
    options = make_parser().parse_args(["train", "--videos", str(tmp_path), *map(str, words)])
    return started(options, device)


def test_clips_of_224_take_32_frames_and_a_model_whose_attention_is_factorised(tmp_path):
    options, recipe, extra, remarks = chosen(tmp_path, "--size", 224)
    assert options.frames == extra["videos"]["frames"] == 32 and recipe.model == "factorised_encoder"
    assert recipe.options["tubelet"] == (2, 16, 16)
    said = "\n".join(remarks)
    assert "over all of 3136 tokens at once; --model chooses another" in said
    assert "Clips of 32×224×224: tubelets of 2×16×16 in place of 7×7×7, 3136 tokens." in said
    assert chosen(tmp_path, "--size", 224, "--model", "spacetime")[1].model == "spacetime"
    assert chosen(tmp_path, "--size", 112)[1].model == "spacetime"
    assert chosen(tmp_path, "--size", 224, "--frames", 8)[1].model == "spacetime"  # 784 tokens
    assert chosen(tmp_path, "--size", 224, "--model", "slow_fusion")[1].model == "slow_fusion"


@pytest.mark.parametrize("words, tubelet", [
    (["--size", 112, "--tubelet", "4,28,28"], (4, 28, 28)),  # what was asked for
    (["--size", 120], (2, 15, 15)),  # the nearest that tile
    (["--size", 112, "--frames", 9], (3, 16, 16)),
    (["--size", 64], (8, 8, 8)),  # small clips: as volumes
])  # fmt: skip
def test_tubelets_tile_clips_of_other_sizes(words, tubelet, tmp_path):
    assert chosen(tmp_path, *words)[1].options["tubelet"] == tubelet


def test_a_clip_that_no_tubelet_tiles_is_padded_and_that_is_said(tmp_path):
    _, recipe, _, remarks = chosen(tmp_path, "--size", 113, "--preset", "full")
    assert recipe.options["tubelet"] == (2, 16, 16) and recipe.options["remainder"] == "pad"
    assert any("2×16×16 in place of 4×4×4, 512 tokens" in said and 'remainder="pad"' in said for said in remarks)


def test_frames_are_those_asked_for_or_go_with_the_size(tmp_path):
    sizes = {28: 28, 64: 64, 96: 16, 112: 16, 160: 16, 192: 32, 224: 32}
    assert {size: chosen(tmp_path, "--size", size)[0].frames for size in sizes} == sizes
    assert chosen(tmp_path, "--size", 112, "--frames", 24)[0].frames == 24


def test_volumes_come_in_two_sizes_and_know_no_videos_options(capsys, tmp_path):
    assert train("organphantom3d", "--size", 112, "--out", tmp_path / "run") == 2
    assert "--size 112: the volumes come in the sizes 28 and 64" in capsys.readouterr().err
    for words in (["--val", tmp_path], ["--test", tmp_path], ["--clips", "3"]):
        assert train("organphantom3d", *words, "--out", tmp_path / "run") == 2
        assert f"{words[0]} is of your own videos" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_batches_are_halved_until_they_fit_into_the_memory(monkeypatch):
    recipe, shape = Recipe.preset("quick", options={"tubelet": (2, 16, 16), "depth": 4}), (3, 16, 112, 112)
    model = choices.built_for(recipe, shape)
    needed = {size: memory_needed(model, shape, size) for size in (32, 8, 4)}
    monkeypatch.setattr(choices, "usable_memory", lambda: choices.PROGRAM_MEMORY + 3 * needed[32])
    assert for_memory(recipe, shape, "cpu") == (recipe, [])
    monkeypatch.setattr(choices, "usable_memory", lambda: choices.PROGRAM_MEMORY + 3 * needed[8] + 3)
    smaller, (said,) = for_memory(recipe, shape, "cpu")
    assert smaller.batch_size == 8 and re.match(
        r"Batches of 8 clips in place of 32: a step takes about [\d.]+ GiB", said
    )
    monkeypatch.setattr(choices, "usable_memory", lambda: 1)
    assert for_memory(recipe, shape, "cpu")[0].batch_size == 1
    monkeypatch.setattr(choices, "usable_memory", lambda: None)  # the system does not say
    assert for_memory(recipe, shape, "cpu") == (recipe, [])


def test_a_batch_size_that_was_asked_for_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(choices, "usable_memory", lambda: 2**30)  # a clip fits, 32 do not
    assert chosen(tmp_path, "--size", 112)[1].batch_size < 32
    for words in (["--batch-size", 32], ["--set", "batch_size=32"]):
        options, recipe, *_ = chosen(tmp_path, "--size", 112, *words)
        assert recipe.batch_size == 32 and for_few_clips(options, recipe, 8) == (recipe, [])


@pytest.mark.parametrize("clips, size", [(1000, 32), (128, 32), (127, 16), (24, 4), (8, 2), (3, 2)])
def test_an_epoch_of_few_clips_has_several_steps(clips, size, tmp_path):
    options, recipe, *_ = chosen(tmp_path)
    recipe, said = for_few_clips(options, recipe, clips)
    assert recipe.batch_size == size and bool(said) == (size < 32)


def test_splits_that_were_given_are_those_of_the_run_ever_after(films, tmp_path, capsys):
    """Resumed, evaluated, and from another working directory."""
    folder, held = tmp_path / "mine", tmp_path / "held.csv"
    lines = []
    for name in ("brightens", "darkens"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.mp4").write_bytes((films / name / "0.mp4").read_bytes())
        lines += [f"{films / name / f'{i}.mp4'},{name}" for i in (1, 2, 3)]
    held.write_text("path,label\n" + "\n".join(lines))
    out, words = tmp_path / "run", ["--frames", 4, "--size", 28, *SMALL]
    assert train("--videos", folder, "--out", out, *words) == 2
    assert "--val and --test), or divide each file into clips" in capsys.readouterr().err
    assert train("--videos", folder, "--val", held, "--out", out, *words) == 0, capsys.readouterr().err
    run = read_run(out)
    assert run["videos"]["val"] == str(held) and run["videos"]["folder"] == str(folder)
    volumes = load_data(run)
    assert [len(s) for s in (volumes.train, volumes.val, volumes.test)] == [2, 2, 4] and volumes.files.keys() == run[
        "data"
    ].keys() - {f"the split {s}" for s in ("train", "val", "test")}
    capsys.readouterr()
    assert train("--resume", "--out", out, "--device", "cpu", "--epochs", 2) == 0, capsys.readouterr().err
    assert main(["evaluate", str(out), "--device", "cpu"]) == 0
    for wrong in (["--val", films], ["--test", held], ["--clips", 4]):
        assert train("--resume", "--out", out, *wrong) == 2
        assert f"{wrong[0]} {wrong[1]} contradicts the run" in capsys.readouterr().err


def test_clips_of_one_file_in_two_splits_are_told_below_the_figures(films, tmp_path, capsys):
    folder = tmp_path / "long"
    for name in ("brightens", "darkens"):
        (folder / name).mkdir(parents=True)
        (folder / name / "0.mp4").write_bytes((films / name / "4.mp4").read_bytes())
    words = ["--videos", folder, "--frames", 2, "--size", 28, "--clips", 5, *SMALL]
    assert train(*words, "--out", tmp_path / "run") == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    figures, told = out.index("balanced"), out.index("Clips of one file are in several splits")
    assert figures < told and "not independent: the figures on them flatter" in out[told:] and "not independent" in err
    assert "Traceback" not in err and ".py" not in err  # a warning is one line, without a place in the program
    assert load_data(read_run(tmp_path / "run")).train.clips.shape == (6, 3, 2, 28, 28)


BAD = {
    "a list that names no file": ("l.csv", "path,label\nnone.mp4,x\n", r"l.csv: 1 of 1 files are not there \(line 2"),
    "a broken video": ("x/bad.mp4", "rubbish" * 99, "bad.mp4 cannot be decoded"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_told_in_words_and_leaves_no_run(fault, tmp_path, capsys):
    name, text, says = BAD[fault]
    place = tmp_path / "v" / name
    place.parent.mkdir(parents=True)
    (tmp_path / "v" / "y").mkdir(exist_ok=True)
    place.write_text(text)
    where = place if place.suffix == ".csv" else tmp_path / "v"
    assert train("--videos", where, "--out", tmp_path / "run", *SMALL) == 2
    err = capsys.readouterr().err
    assert re.search(says, err) and "Traceback" not in err and not (tmp_path / "run").exists()


def test_a_run_json_with_other_kinds_is_refused(films, tmp_path):
    out = tmp_path / "run"
    assert train("--videos", films, "--frames", 4, "--out", out, *SMALL) == 0
    run = json.loads((out / "run.json").read_text())
    for wrong in ({"clips": "3"}, {"val": 3}, {"test": ["x"]}):
        (out / "run.json").write_text(json.dumps(run | {"videos": run["videos"] | wrong}))
        with pytest.raises(ValueError, match="cannot be read"):
            read_run(out)


class Counts(torch.nn.Module):
    """Answers with one logit, and keeps how many clips came at once."""

    def __init__(self):
        super().__init__()
        self.weight, self.batches = torch.nn.Parameter(torch.zeros(1)), []

    def forward(self, clips):
        self.batches.append(len(clips))
        return self.weight.expand(len(clips), 2)


@pytest.mark.parametrize("shape, clips, batches", [
    ((1, 28, 28, 28), 200, [128, 72]), ((1, 64, 64, 64), 130, [128, 2]),
    ((3, 16, 112, 112), 60, [55, 5]), ((3, 32, 224, 224), 8, [6, 2]),
])  # fmt: skip
def test_large_clips_are_evaluated_few_at_once(shape, clips, batches):
    """No more voxels than 128 volumes of 64³ have, so that evaluation does not need more memory than training."""
    model = Counts()
    split = Split(torch.zeros(1, dtype=torch.uint8).expand(clips, *shape), torch.zeros(clips, dtype=torch.long))
    assert predict_logits(model, split).shape == (clips, 2) and model.batches == batches
