"""A run that is killed, that finds the disk full, or whose clock is set back, loses no finished epoch and no number."""

import errno
import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments.runs import train_run
from vivit_edu.support.checkpoint import LATEST, PREVIOUS, read_newest
from vivit_edu.training import build_seeded, fit

KILLS, EPOCHS = 20, 40
# a process that begins as a copy of this one has torch in it already
posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, as POSIX has it")


def recipe():
    return tiny_recipe(epochs=EPOCHS, ema=0.9, options={"dropout": 0.1, "depth": 1})


def train(out=None, resume=True):
    """The weights after training and the history without the seconds that it took."""
    volumes = make_tiny_volumes()
    model = build_seeded(recipe(), volumes, 0)
    history = fit(model, volumes, recipe(), out=out, resume=resume and out is not None, progress=False)
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history.rows]
    return model.state_dict(), rows


@pytest.fixture(scope="module")
def whole():
    """What comes of it uninterrupted."""
    return train()


def check_same(found, whole):
    assert found[1] == whole[1]
    assert all(torch.equal(found[0][name], whole[0][name]) for name in whole[0])


@posix
def test_killed_at_twenty_random_moments_it_ends_in_the_same_numbers(whole, tmp_path):
    """SIGKILL, also in the middle of writing a checkpoint; each time at most the epoch in progress is lost."""
    draw, fork, done, killed, run = random.Random(0), multiprocessing.get_context("fork"), 0, 0, 0
    while killed < KILLS:
        out = tmp_path / str(run)
        process = fork.Process(target=train, args=(out,))
        process.start()
        if killed % 2:  # every other time while a checkpoint is on its way to the disk
            while not any(out.glob(f".{LATEST}.*.part")) and process.is_alive():
                time.sleep(0.0002)
        else:
            time.sleep(draw.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        content = read_newest(out)
        now = content["epochs_done"] if content else 0
        assert now >= done  # nothing that was finished is lost
        if process.exitcode == 0:  # a fast machine was done before it was killed: on with another run
            check_same(train(out), whole)
            now, run = 0, run + 1
        killed += process.exitcode == -signal.SIGKILL
        done = now
    check_same(train(out), whole)
    assert not list(out.glob(".*.part"))  # those that were cut off are gone


@posix
def test_a_full_disk_ends_in_a_message_and_the_run_goes_on_once_there_is_room(whole, tmp_path):
    """A real refusal of the operating system: no file may grow beyond a size that a checkpoint needs."""
    import resource

    def limited(pipe):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        saved, volumes = [], make_tiny_volumes()
        model = build_seeded(recipe(), volumes, 0)

        def fill_up(module, *_):
            saved.append(module.training)
            if sum(saved) > 6:  # three steps an epoch: in the third
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

        model.register_forward_pre_hook(fill_up)
        try:
            fit(model, volumes, recipe(), out=tmp_path, progress=False)
            pipe.send("it was not full")
        except CheckpointError as error:
            pipe.send(str(error))

    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=limited, args=(send,))
    process.start()
    assert receive.poll(60) and "make room or choose another folder" in receive.recv()
    process.join()
    assert read_newest(tmp_path)["epochs_done"] == 2 and not list(tmp_path.glob(".*.part"))
    check_same(train(tmp_path), whole)


def test_no_room_for_the_figures_loses_no_epoch(tmp_path, monkeypatch):
    from vivit_edu.experiments import runs

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    short, volumes = tiny_recipe(epochs=2), make_tiny_volumes()
    with monkeypatch.context() as patch:
        patch.setattr(runs.plots, "save", full)
        with pytest.raises(CheckpointError, match="No space left.*make room"):
            train_run(volumes, short, out=tmp_path, device="cpu")
    before = json.loads((tmp_path / "metrics.json").read_text())
    after = train_run(volumes, short, out=tmp_path, resume=True, device="cpu", figures=False)
    assert after["test"] == before["test"]


def test_a_folder_that_nothing_can_be_written_to_is_said_before_training(tmp_path):
    """A file in the folder's place, which also root cannot write through."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="nothing can be written to .* choose another folder"):
        train_run(make_tiny_volumes(), tiny_recipe(), out=tmp_path / "file" / "run", device="cpu")


def test_a_clock_that_is_set_back_changes_no_number(whole, tmp_path, monkeypatch):
    """The newest checkpoint is known by its name, not by its time, and so is where a run goes on."""
    times = iter(range(10**6, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: next(times))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(times)))
    volumes = make_tiny_volumes()
    model = build_seeded(recipe(), volumes, 0)

    class Stop(Exception):
        pass

    steps = []

    def stop(module, *_):
        steps.append(module.training)
        if sum(steps) > 8:
            raise Stop

    model.register_forward_pre_hook(stop)
    with pytest.raises(Stop):
        fit(model, volumes, recipe(), out=tmp_path, progress=False)
    os.utime(tmp_path / LATEST, (0, 0))  # older, by its time, than the one before it
    os.utime(tmp_path / PREVIOUS, (2**31 - 1, 2**31 - 1))
    check_same(train(tmp_path), whole)
