"""A run is measured on the data and with the checkpoint that are its own: whatever differs is refused, and named."""

import json
import os
import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.cli import main
from vivit_edu.data import Split
from vivit_edu.datasets import video, video_folders
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments import runs
from vivit_edu.experiments.ablate import claim_folder
from vivit_edu.experiments.runs import evaluate_run, load_model, remove_run, train_run
from vivit_edu.experiments.tables import Row
from vivit_edu.support.checkpoint import LATEST, PREVIOUS, read_newest
from vivit_edu.support.identity import identity, identity_hash, other_data
from vivit_edu.training import fit


def train(out, volumes=None, seed=0, resume=False, **changes):
    volumes = volumes or make_tiny_volumes()
    recipe = tiny_recipe(epochs=2, **changes)
    return train_run(volumes, recipe, out=out, seed=seed, resume=resume, device="cpu", figures=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Runs of seed 0 and 1, and one with another rate."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "0"), train(folder / "1", seed=1), train(folder / "lr", lr=1e-3)
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of the run of seed 0, which finds its data."""
    monkeypatch.setattr(runs, "load_volumes", lambda name, **_: make_tiny_volumes())
    return Path(shutil.copytree(finished / "0", tmp_path / "run"))


# ---- the checkpoint is the run's own


@pytest.mark.parametrize("other, says", [("1", "seed.* 1, now 0"), ("lr", "lr was 0.001, now 0.0005")])
@pytest.mark.parametrize("names", [(LATEST,), (LATEST, PREVIOUS)])
def test_the_checkpoint_of_another_run_is_refused(other, says, names, finished, run):
    for name in names:
        shutil.copy(finished / other / name, run / name)
    with pytest.raises(CheckpointError, match=f"of another run than its run.json says: {says}"):
        evaluate_run(run, device="cpu")
    with pytest.raises(CheckpointError, match=says):
        train(run, resume=True)


def test_the_checkpoint_of_a_run_on_other_data_is_refused(run, tmp_path):
    """With the same recipe and seed, so that nothing else tells it from the run's own."""
    train(tmp_path / "other", changed(make_tiny_volumes(), "a voxel"))
    shutil.copy(tmp_path / "other" / LATEST, run / LATEST)
    with pytest.raises(CheckpointError, match="than its run.json says: it was trained on other data"):
        evaluate_run(run, device="cpu")


def test_a_checkpoint_of_more_epochs_than_the_run_is_refused(run):
    said = json.loads((run / "run.json").read_text())
    said["recipe"]["epochs"] = 1
    (run / "run.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="epochs was 2, now 1"):
        evaluate_run(run, device="cpu")


def test_a_run_that_was_made_longer_and_stopped_is_evaluated(run):
    said = json.loads((run / "run.json").read_text())
    said["recipe"]["epochs"] = 5
    (run / "run.json").write_text(json.dumps(said))
    assert evaluate_run(run, device="cpu")["test"].acc == json.loads((run / "metrics.json").read_text())["test"]["acc"]


# ---- the data are the run's own


def with_clips(volumes, split, clips):
    return replace(volumes, **{split: replace(getattr(volumes, split), clips=clips)})


def changed(volumes, how):
    """The volumes with one thing that is not as it was."""
    clips = volumes.test.clips.clone()
    if how == "a voxel":
        clips[0, 0, 0, 0, 0] ^= 1
        return with_clips(volumes, "test", clips)
    if how == "order":
        order = torch.arange(len(volumes.train)).flip(0)
        return replace(volumes, train=volumes.train.subset(order))
    if how == "a label":
        labels = volumes.val.labels.clone()
        labels[0] = (labels[0] + 1) % 3
        return replace(volumes, val=Split(volumes.val.clips, labels))
    if how == "fewer":
        return replace(volumes, train=volumes.train.subset(slice(40)))
    return replace(volumes, val=volumes.test, test=volumes.val)


CHANGES = {"a voxel": "split test", "order": "split train", "a label": "split val", "fewer": "train", "swapped": "val"}


@pytest.mark.parametrize("how, says", CHANGES.items())
def test_other_data_are_refused_wherever_a_run_is_used(how, says, run, monkeypatch):
    other = changed(make_tiny_volumes(), how)
    monkeypatch.setattr(runs, "load_volumes", lambda name, **_: other)
    for use in (
        lambda: evaluate_run(run, device="cpu"),
        lambda: load_model(run, other, device="cpu"),
        lambda: train(run, other, resume=True),
    ):
        with pytest.raises(CheckpointError, match=f"not the data that the run in .* of other content.*{says}"):
            use()
    with pytest.raises(CheckpointError, match="of a run on other data"):  # without a run.json, too
        fit(tiny_recipe().build(other), other, tiny_recipe(epochs=2), out=run, resume=True, progress=False)


def test_a_table_is_of_one_set_of_data(tmp_path):
    rows, volumes = [Row("one", tiny_recipe())], make_tiny_volumes()
    claim_folder(tmp_path, "steps", rows, volumes)
    claim_folder(tmp_path, "steps", rows, make_tiny_volumes())
    with pytest.raises(ConfigError, match="not its data: 1 of other content .the split test"):
        claim_folder(tmp_path, "steps", rows, changed(volumes, "a voxel"))


def test_a_run_of_before_the_data_were_named_still_goes_on_and_is_evaluated(run):
    said = json.loads((run / "run.json").read_text())
    data = said.pop("data")
    (run / "run.json").write_text(json.dumps(said))
    for name in (LATEST, PREVIOUS):
        content = torch.load(run / name)
        del content["data"]
        torch.save(content, run / name)
    before = json.loads((run / "metrics.json").read_text())
    assert evaluate_run(run, device="cpu")["test"].acc == before["test"]["acc"]
    assert train(run, resume=True)["test"] == before["test"]
    assert json.loads((run / "run.json").read_text())["data"] == data


def test_a_lost_run_json_is_written_anew_for_the_same_data_only(run):
    (run / "run.json").unlink()
    with pytest.raises(CheckpointError, match="of a run on other data"):
        train(run, changed(make_tiny_volumes(), "a voxel"), resume=True)
    (run / "run.json").unlink()
    train(run, resume=True)
    content = read_newest(run)
    assert content["data"] == identity_hash(json.loads((run / "run.json").read_text())["data"])


@pytest.mark.parametrize("data", [3, "x", [], {"a": 1}, {"a": None}, {"a": ["train", "0"]}])
def test_data_that_run_json_could_not_say_are_refused(data, run):
    said = json.loads((run / "run.json").read_text()) | {"data": data}
    (run / "run.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="run.json cannot be read"):
        evaluate_run(run, device="cpu")


def test_what_differs_is_told_in_few_words():
    old = {f"a/{i}.mp4": f"train {i}" for i in range(6)}
    assert other_data(old, dict(reversed(old.items()))) == ""
    new = {f"a/{i}.mp4": f"train {i}" for i in range(2, 11)} | {"a/2.mp4": "test 2", "a/3.mp4": "train x"}
    assert other_data(old, new) == (
        "5 new (a/6.mp4; a/7.mp4; a/8.mp4; …), 2 gone (a/0.mp4; a/1.mp4), 1 of other content (a/3.mp4), "
        "1 in another split (a/2.mp4: train, now test)"
    )


# ---- videos


@pytest.fixture
def films(tmp_path, monkeypatch):
    """A folder of films that PyAV need not read: each file's first byte is its picture."""

    def load_clip(path, *, frames, size, step=None):
        return torch.full((1, 3, frames, size, size), path.read_bytes()[0], dtype=torch.uint8)

    monkeypatch.setattr(video, "load_clip", load_clip)
    monkeypatch.setattr(video_folders, "why_no_video", lambda path: None)
    for name in ("down", "up"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "films" / name / f"{i}.mp4").write_bytes(bytes([10 * i + (name == "up"), 1, 2]))
    return tmp_path / "films"


TRAIN = ["train", "--frames", "4", "--set", "dim=16", "--set", "depth=1", "--set", "heads=2", "--set", "mlp_dim=16"]
TRAIN += ["--model", "spacetime", "--tubelet", "2,14,14", "--epochs", "1", "--device", "cpu"]


@pytest.fixture
def of_films(films, tmp_path, monkeypatch, capsys):
    """A run on these films, whose folder was typed as it is seen from the one above it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "draw_figures", lambda *_: None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([*TRAIN, "--videos", "films", "--out", "run"]) == 0, capsys.readouterr().err
    return tmp_path / "run"


def one_more(films):
    shutil.copy(films / "up" / "0.mp4", films / "up" / "00.mp4")


def one_fewer(films):
    (films / "up" / "5.mp4").unlink()


def another(films):
    (films / "up" / "3.mp4").write_bytes(b"other")


def renamed(films):
    (films / "down" / "2.mp4").rename(films / "down" / "two.mp4")


def another_class(films):
    (films / "down" / "2.mp4").rename(films / "up" / "6.mp4")


@pytest.mark.parametrize("change, says", [
    (one_more, "1 new .up/00.mp4.*in another split"), (one_fewer, "1 gone .up/5.mp4"),
    (another, "of other content .up/3.mp4"), (renamed, "down/two.mp4.*down/2.mp4"), (another_class, "up/6.mp4"),
])  # fmt: skip
def test_a_folder_of_videos_that_changed_is_refused_with_what_changed(change, says, films, of_films, capsys):
    change(films)
    for command in (["evaluate", "run"], ["explain", "run"], ["train", "--resume", "--out", "run"]):
        assert main([*command, "--device", "cpu"]) == 2
        said = capsys.readouterr().err
        assert "these are not the data that the run in run was" in said and re.search(says, said), said


def test_the_folder_is_the_same_from_everywhere(films, of_films, tmp_path, monkeypatch, capsys):
    """Another folder of that name is not taken, and the run's own is found, also where it was moved to."""
    shutil.copytree(films, tmp_path / "elsewhere" / "films")
    another(tmp_path / "elsewhere" / "films")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert json.loads((of_films / "run.json").read_text())["videos"]["folder"] == str(films)
    assert main(["evaluate", "../run", "--device", "cpu"]) == 0
    films.rename(tmp_path / "moved")
    assert main(["evaluate", "../run", "--device", "cpu", "--root", "films"]) == 2
    assert "1 of other content (up/3.mp4)" in capsys.readouterr().err
    assert main(["evaluate", "../run", "--device", "cpu", "--root", "../moved"]) == 0
    again = ["train", "--resume", "--out", "../run", "--videos", "../moved", "--device", "cpu"]
    assert main(again) == 0, capsys.readouterr().err
    assert main(["evaluate", "../run", "--device", "cpu"]) == 0  # where it is now


def test_the_root_of_the_data_is_kept_as_the_same_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train_run(make_tiny_volumes(), tiny_recipe(epochs=1), out="run", root="data", device="cpu", figures=False)
    assert json.loads(Path("run", "run.json").read_text())["root"] == str(tmp_path / "data")


# ---- the folder is the run's own


@pytest.mark.parametrize("name", runs.RUN_FILES)
@pytest.mark.parametrize("resume", [False, True])
def test_files_of_others_are_not_written_over(name, resume, tmp_path):
    if resume and name in (LATEST, PREVIOUS, "history.json", "metrics.json"):
        return  # a run that goes on, and says what is wrong with the file
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"which no run here wrote|holds a run already"):
        train(tmp_path, resume=resume)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_log_and_a_run_that_finished_no_epoch_are_not_in_the_way(run):
    for name in set(runs.RUN_FILES) - {"run.json"}:
        (run / name).unlink(missing_ok=True)
    (run / "log.txt").write_text("mine")
    assert train(run, seed=1)["seed"] == 1 and (run / "log.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["table.csv", "table.json", "00-one-seed0.json"])
def test_a_table_is_not_begun_over_the_files_of_others(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"holds {name}, but no grid.json"):
        claim_folder(tmp_path, "steps", [Row("one", tiny_recipe())], make_tiny_volumes())
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_of_a_finished_run_of_a_table_only_what_is_ours_is_removed(run):
    (run / "notes.txt").write_text("mine")
    remove_run(run)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    (run / "notes.txt").unlink()
    remove_run(run)
    assert not run.exists()


@pytest.mark.parametrize("when", ["fit", "after fit", "predict_logits", "draw_figures"])
def test_a_folder_that_is_removed_while_a_run_writes_to_it_is_no_success(when, tmp_path, monkeypatch):
    """Before the first epoch, after the last one, or among the figures."""
    out, after, name = tmp_path / "run", "after" in when, when.removeprefix("after ")
    right = getattr(runs, name)

    def gone(*arguments, **options):
        result = right(*arguments, **options) if after else None
        shutil.rmtree(out, ignore_errors=True)
        return result if after else right(*arguments, **options)

    monkeypatch.setattr(runs, "draw_figures", lambda *_: None)
    monkeypatch.setattr(runs, name, gone if when != "draw_figures" else lambda *_: shutil.rmtree(out))
    with pytest.raises(CheckpointError, match="run was removed or replaced|not a run folder"):
        train_run(make_tiny_volumes(), tiny_recipe(epochs=1), out=out, device="cpu")
    assert not out.exists()  # it is not made anew for what is left to write


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, as POSIX has it")
def test_two_runs_do_not_write_to_one_folder(run, capsys, monkeypatch):
    """The second one, which goes on, makes a table or pretrains, is told who the first is; nothing changes."""
    from tests.support.test_locks import other
    from vivit_edu.experiments.ablate import run_table
    from vivit_edu.experiments.pretraining import pretrain_to

    process, pipe, _ = other(run)
    before = {path: path.read_bytes() for path in run.iterdir()}
    for second in (
        lambda: train(run, resume=True),
        lambda: fit(tiny_recipe().build(make_tiny_volumes()), make_tiny_volumes(), tiny_recipe(), out=run, resume=True),
        lambda: run_table("steps", [Row("one", tiny_recipe())], make_tiny_volumes(), out=run, device="cpu"),
    ):
        with pytest.raises(ConfigError, match=f"process {process.pid} on .* is writing to .*run"):
            second()
    assert {path: path.read_bytes() for path in run.iterdir()} == before
    pipe.send("end")
    process.join()
    assert train(run, resume=True)["epochs"] == 2
    monkeypatch.setattr("vivit_edu.experiments.pretraining.trained", lambda *_: pytest.fail("it was trained"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vivit_edu.support.locks.IN_FOLDER", ".w.safetensors.lock")
        process, pipe, _ = other(run)
        with pytest.raises(ConfigError, match=f"process {process.pid} .* w.safetensors|process {process.pid}"):
            pretrain_to(run / "w.safetensors", make_tiny_volumes(), tiny_recipe(), epochs=1)
        pipe.send("end")
        process.join()


def test_identity_is_of_clips_and_labels_and_not_of_names():
    volumes = make_tiny_volumes()
    assert identity(volumes) == identity(replace(volumes, name="other")) != identity(changed(volumes, "order"))
    assert list(identity(volumes)) == ["the split train", "the split val", "the split test"]


@pytest.mark.parametrize("name", ["n" * 255, "\N{GRINNING FACE}" * 63, "short"])
def test_the_folder_of_a_run_has_a_name_that_can_be_made(name, tmp_path, monkeypatch):
    """A folder of videos gives its name to the data set, and that to the run."""
    monkeypatch.chdir(tmp_path)
    out = runs.default_folder(replace(make_tiny_volumes(), name=f"videos-{name}"), tiny_recipe(), 0)
    out.mkdir(parents=True)
    assert out.name.startswith(f"videos-{name[:10]}") and "-spacetime-0-" in out.name


def test_a_table_whose_folder_is_gone_trains_no_further_row(tmp_path, monkeypatch):
    from vivit_edu.experiments import ablate

    made = []

    def write_run(path, row, *_):
        made.append(row.name)
        shutil.rmtree(tmp_path / "table")

    monkeypatch.setattr(ablate, "write_run", write_run)
    rows = [Row("one", tiny_recipe()), Row("two", tiny_recipe())]
    with pytest.raises(CheckpointError, match="table was removed or replaced while"):
        ablate.run_table("steps", rows, make_tiny_volumes(), seeds=1, out=tmp_path / "table", device="cpu")
    assert made == ["one"]
