"""Several processes train as one would, and a run that loses one of them goes on with another number of them.

The processes are started by torchrun, as a user would, on the CPU, and talk by gloo.
"""

import json
import os
import socket
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

# Everything that needs two processes, in one start of them: a process spends longer on importing torch than on any of
# these steps. Each step but the first meets anew, at a port of its own, and what it prints goes to files of its own.
# The command line runs on the tiny data set; in the last step process 1 dies in the epoch that $DIE_IN names.
PROGRAM = """
import json, os, signal, sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
import torch
from torch import nn
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import cli, training
from vivit_edu.errors import ConfigError
from vivit_edu.support.processes import join, leave

folder, steps = Path(sys.argv[1]), json.loads(sys.argv[2])
rank, make_recipe = os.environ["RANK"], tiny_recipe
cli.get_volumes = lambda options: make_tiny_volumes()
training.Recipe.preset = lambda *_, **__: make_recipe(**{changes})
train_epoch = training.train_epoch

def dies(*arguments, epoch, **options):
    if epoch + 1 == int(os.environ.get("DIE_IN", "0")) and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(*arguments, epoch=epoch, **options)

training.train_epoch = dies

def fit_with(norm):  # a network as small as a test can have it, with the BatchNorm of torchvision's r3d_18
    join(torch.device("cpu"))
    model = nn.Sequential(nn.Conv3d(1, 4, 3, 2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, 3))
    try:
        training.fit(model, make_tiny_volumes(), tiny_recipe(epochs=1), progress=False)
        print("trained")
    except ConfigError as error:
        print(error)
    return 0

for name, arguments, environment in steps:
    os.environ.update(environment)
    with open(folder / f"{name}.{rank}.out", "w") as out, open(folder / f"{name}.{rank}.err", "w") as err:
        with redirect_stdout(out), redirect_stderr(err):
            code = fit_with(eval(arguments[0])) if arguments[0].startswith("nn.") else cli.main(arguments)
    (folder / f"{name}.{rank}.code").write_text(str(code))
    leave()
sys.exit(code)
"""


class Step:
    """What a step left behind: the exit status of each process, and what all of them printed."""

    def __init__(self, folder, name):
        self.codes = [int(path.read_text()) for path in sorted(folder.glob(f"{name}.*.code"))]
        self.stdout, self.stderr = (
            "".join(path.read_text() for path in sorted(folder.glob(f"{name}.*.{kind}"))) for kind in ("out", "err")
        )


@pytest.fixture(scope="module")
def alone():
    """Losses and weights of one process with the same global batch."""
    from tests.tiny import make_tiny_volumes

    recipe, volumes = tiny_recipe(**CHANGES), make_tiny_volumes()
    model = build_seeded(recipe, volumes, 1)
    return fit(model, volumes, recipe, seed=1, progress=False), model.state_dict()


def begin_in_one_process(out, volumes, stop_after=2):
    """A run on the command line that is stopped after two epochs."""

    def stop(folder, state, epochs_done, save=checkpoint.save_checkpoint):
        save(folder, state, epochs_done)
        if epochs_done == stop_after:
            raise KeyboardInterrupt

    recipe = tiny_recipe(**CHANGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "get_volumes", lambda _: volumes)
        patch.setattr(Recipe, "preset", lambda *_, **__: recipe)
        patch.setattr(checkpoint, "save_checkpoint", stop)
        assert cli.main(["train", "--out", str(out), "--seed", "1", "--device", "cpu"]) == 130


def meet_at_another_port():
    """Variables by which processes that torchrun has started meet once more: torchrun's own store knows them as met."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_PORT": str(free.getsockname()[1]), "TORCHELASTIC_USE_AGENT_STORE": "False"}


@pytest.fixture(scope="module")
def started(tmp_path_factory, tiny_volumes):
    """The folder in which two processes went through all the steps, one of them to its death in the last."""
    folder = tmp_path_factory.mktemp("processes")
    begin_in_one_process(folder / "half", tiny_volumes)
    train, cpu = ["train", "--seed", "1", "--device", "cpu", "--out"], ["--device", "cpu", "--out"]
    steps = [
        ("train", [*train, str(folder / "run")], {}),
        ("again", ["train", *cpu, str(folder / "run")], meet_at_another_port()),
        ("resume", ["train", "--resume", *cpu, str(folder / "half")], meet_at_another_port()),
        ("batchnorm", ["nn.BatchNorm3d(4)"], meet_at_another_port()),
        ("groupnorm", ["nn.GroupNorm(2, 4)"], meet_at_another_port()),
        ("lost", [*train, str(folder / "lost")], meet_at_another_port() | {"DIE_IN": "3"}),
    ]
    program, root = folder / "program.py", Path(__file__).parents[2]
    program.write_text(PROGRAM.replace("{changes}", repr(CHANGES)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(program)]
    ran = subprocess.run(
        [*command, str(folder), json.dumps(steps)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=600,
        env={**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert ran.returncode != 0 and (folder / "lost.0.out").exists(), ran.stderr
    return folder


def assert_like(alone, out):
    history, weights = alone
    rows = json.loads((out / "history.json").read_text())
    assert [row["loss"] for row in rows] == pytest.approx(history["loss"], abs=1e-4)
    assert [row["val_auc"] for row in rows] == pytest.approx(history["val_auc"], abs=0.02)
    kept = read_newest(out)["averaged"]
    for name, value in weights.items():
        torch.testing.assert_close(kept[f"module.{name}"], value, atol=2e-3, rtol=0)


def test_two_processes_train_as_one_and_the_first_alone_writes(alone, started):
    step, out = Step(started, "train"), started / "run"
    assert step.codes == [0, 0], step.stderr
    assert_like(alone, out)
    assert json.loads((out / "metrics.json").read_text())["device"].startswith("2 × cpu")
    for once in ("Training spacetime", "balanced", "Figures, metrics"):
        assert step.stdout.count(once) == 1
    again = Step(started, "again")
    assert again.codes == [2, 2]
    assert again.stderr.count("holds a run already") == 1  # told once, and no process waits for ever


def test_a_lost_process_ends_the_run_and_one_process_goes_on(alone, started, monkeypatch, tiny_volumes):
    step, out = Step(started, "lost"), started / "lost"
    assert step.codes in ([], [2])  # of the survivor, if it came as far as to say so
    assert f"any number of processes, by --resume --out {out}" in step.stderr
    assert "vivit-edu: " in step.stderr and "raise LostProcessError" not in step.stderr
    assert read_newest(out)["epochs_done"] == 2 and not (out / "metrics.json").exists()
    monkeypatch.setattr(cli, "get_volumes", lambda _: tiny_volumes)
    assert cli.main(["train", "--resume", "--out", str(out), "--device", "cpu"]) == 0
    assert_like(alone, out)


def test_a_run_of_one_process_goes_on_in_two(alone, started):
    step = Step(started, "resume")
    assert step.codes == [0, 0], step.stderr
    assert_like(alone, started / "half")


@pytest.mark.parametrize("name, says", [("batchnorm", "cannot train this model on CPUs"), ("groupnorm", "trained")])
def test_batchnorm_that_processes_cannot_share_is_refused(started, name, says):
    step = Step(started, name)
    assert step.codes == [0, 0], step.stderr
    assert step.stdout.count(says) == 2


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
