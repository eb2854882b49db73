"""Several processes train as one would, and a run that loses one of them goes on with another number of them.

The processes are started by torchrun, as a user would, on the CPU, and talk by gloo.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tiny import tiny_recipe
from vivit_edu import cli
from vivit_edu.errors import ConfigError, LostProcessError
from vivit_edu.support import checkpoint
from vivit_edu.support import processes as distributed
from vivit_edu.support.checkpoint import read_newest
from vivit_edu.training import Recipe, build_seeded, fit

CHANGES = {"epochs": 4, "lr": 3e-3, "ema": 0.5}  # a rate at which a wrong gradient shows within an epoch

# The command line on the tiny data set; process 1 dies in the epoch that $DIE_IN names, counted from 1.
PROGRAM = """
import os, signal, sys
import torch
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import cli, training
from vivit_edu.experiments import runs
cli.get_volumes = lambda options: make_tiny_volumes()
training.Recipe.preset = lambda *_, **__: tiny_recipe(**{changes})
train_epoch, die_in = training.train_epoch, int(os.environ.get("DIE_IN", "0"))
def dies(*arguments, epoch, **options):
    if epoch + 1 == die_in and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(*arguments, epoch=epoch, **options)
training.train_epoch = dies
sys.exit(cli.main(sys.argv[1:]))
"""


def torchrun(tmp_path, *arguments, number=2, **environment):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("{changes}", repr(CHANGES)))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc_per_node={number}",
        str(program),
    ]
    root = Path(__file__).parents[2]
    return subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "", **environment},
    )


@pytest.fixture(scope="module")
def alone():
    """Losses and weights of one process with the same global batch."""
    from tests.tiny import make_tiny_volumes

    recipe, volumes = tiny_recipe(**CHANGES), make_tiny_volumes()
    model = build_seeded(recipe, volumes, 1)
    return fit(model, volumes, recipe, seed=1, progress=False), model.state_dict()


def assert_like(alone, out):
    history, weights = alone
    rows = json.loads((out / "history.json").read_text())
    assert [row["loss"] for row in rows] == pytest.approx(history["loss"], abs=1e-4)
    assert [row["val_auc"] for row in rows] == pytest.approx(history["val_auc"], abs=0.02)
    kept = read_newest(out)["averaged"]
    for name, value in weights.items():
        torch.testing.assert_close(kept[f"module.{name}"], value, atol=2e-3, rtol=0)


def test_two_processes_train_as_one_and_the_first_alone_writes(alone, tmp_path):
    out = tmp_path / "run"
    run = torchrun(tmp_path, "train", "--out", str(out), "--seed", "1", "--device", "cpu")
    assert run.returncode == 0, run.stderr
    assert_like(alone, out)
    assert json.loads((out / "metrics.json").read_text())["device"].startswith("2 × cpu")
    for once in ("Training spacetime", "balanced", "Figures, metrics"):
        assert run.stdout.count(once) == 1
    again = torchrun(tmp_path, "train", "--out", str(out), "--device", "cpu")
    assert again.returncode != 0
    assert again.stderr.count("holds a run already") == 1  # told once, and no process waits for ever


def test_a_lost_process_ends_the_run_and_one_process_goes_on(alone, tmp_path, monkeypatch, tiny_volumes):
    out = tmp_path / "run"
    run = torchrun(tmp_path, "train", "--out", str(out), "--seed", "1", "--device", "cpu", DIE_IN="3")
    assert run.returncode != 0
    assert f"any number of processes, by --resume --out {out}" in run.stderr
    assert "vivit-edu: " in run.stderr and "raise LostProcessError" not in run.stderr
    assert read_newest(out)["epochs_done"] == 2 and not (out / "metrics.json").exists()
    monkeypatch.setattr(cli, "get_volumes", lambda _: tiny_volumes)
    assert cli.main(["train", "--resume", "--out", str(out), "--device", "cpu"]) == 0
    assert_like(alone, out)


def test_a_run_of_one_process_goes_on_in_two(alone, tmp_path, monkeypatch, tiny_volumes):
    out, recipe = tmp_path / "run", tiny_recipe(**CHANGES)
    monkeypatch.setattr(cli, "get_volumes", lambda _: tiny_volumes)
    monkeypatch.setattr(Recipe, "preset", lambda *_, **__: recipe)
    stop_after = 2

    def stop(folder, state, epochs_done, save=checkpoint.save_checkpoint):
        save(folder, state, epochs_done)
        if epochs_done == stop_after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_checkpoint", stop)
        assert cli.main(["train", "--out", str(out), "--seed", "1", "--device", "cpu"]) == 130
    run = torchrun(tmp_path, "train", "--resume", "--out", str(out), "--device", "cpu")
    assert run.returncode == 0, run.stderr
    assert_like(alone, out)


# A network as small as a test can have it, with the BatchNorm of torchvision's r3d_18.
WITH_BATCHNORM = """
import torch
from torch import nn
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.errors import ConfigError
from vivit_edu.support.processes import join, leave
from vivit_edu.training import fit
join(torch.device("cpu"))
norm = nn.{norm}
model = nn.Sequential(nn.Conv3d(1, 4, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, 3))
try:
    fit(model, make_tiny_volumes(), tiny_recipe(epochs=1), progress=False)
    print("trained")
except ConfigError as error:
    print(error)
leave()
"""


@pytest.mark.parametrize(
    "norm, says", [("BatchNorm3d(4)", "cannot train this model on CPUs"), ("GroupNorm(2, 4)", "trained")]
)
def test_batchnorm_that_processes_cannot_share_is_refused(tmp_path, norm, says):
    program = tmp_path / "program.py"
    program.write_text(WITH_BATCHNORM.replace("{norm}", norm))
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(program)]
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(says) == 2


# ---- without other processes


def test_shares_cover_the_batch_once(monkeypatch):
    batch = torch.arange(12)
    monkeypatch.setattr(distributed, "processes", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.share(batch))
    assert [len(part) for part in parts] == [4, 4, 4] and torch.equal(torch.cat(parts).sort().values, batch)
    distributed.check_shares(12)
    with pytest.raises(ConfigError, match="3 processes cannot share batches of 16"):
        distributed.check_shares(16)


def test_batchnorm_is_synchronised_between_gpus(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed.dist, "get_backend", lambda: "nccl")
    monkeypatch.setattr(distributed, "DistributedDataParallel", torch.nn.Sequential)
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3), torch.nn.BatchNorm3d(4))
    names = list(model.state_dict())
    distributed.synchronised(model)
    assert isinstance(model[1], torch.nn.SyncBatchNorm) and list(model.state_dict()) == names


def test_a_single_process_changes_nothing():
    model = torch.nn.Linear(2, 2)
    assert distributed.synchronised(model) is model and distributed.is_first()
    assert distributed.on_first(lambda a, b=1: a + b, 2, b=3) == 5
    with pytest.raises(RuntimeError, match="as it was"), distributed.watch("run"):
        raise RuntimeError("gloo, as it was")


def test_only_what_the_connection_reports_is_taken_for_a_loss(monkeypatch):
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    with pytest.raises(LostProcessError, match="--out here"), distributed.watch("here"):
        raise RuntimeError("[third_party/gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="out of memory"), distributed.watch("here"):
        raise RuntimeError("out of memory")
