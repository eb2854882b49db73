"""The command line, end to end on the phantom: train, resume, evaluate, and messages instead of tracebacks."""

import argparse
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from vivit_edu.cli import main, make_parser
from vivit_edu.support.places import repository

METRICS = {"acc", "balanced_acc", "auc"}
# what is tested here does not depend on the model's size; tests/test_project.py trains one as the README has it
SMALL = ["--set", "dim=32", "--set", "depth=1", "--set", "mlp_dim=64", "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two epochs on the phantom."""
    out = tmp_path_factory.mktemp("runs") / "two-epochs"
    assert main(["train", "organphantom3d", "--epochs", "2", "--seed", "1", *SMALL, "--out", str(out)]) == 0
    return out


def test_a_run_folder_holds_all_that_was_promised(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["dataset"] == "organphantom3d" and metrics["epochs"] == 2 and metrics["seed"] == 1
    assert {"model", "options", "recipe", "seconds", "device", "versions"} <= set(metrics)
    assert set(metrics["val"]) == set(metrics["test"]) == METRICS
    assert metrics["versions"]["torch"]
    assert len(json.loads((run / "history.json").read_text())) == 2
    from PIL import Image

    for name in ("curves.png", "confusion.png", "attention.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 200 and len(picture.text["Description"]) > 40, name
    assert not list(run.glob(".*.part"))


def test_evaluate_gives_the_figures_of_the_run_again(run, capsys):
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((run / "metrics.json").read_text())
    for split in ("val", "test"):
        for name in METRICS:
            assert f"{metrics[split][name]:.3f}" in printed


def test_evaluate_with_views_averages_over_shifts_and_the_mirror(run, monkeypatch, capsys):
    import torch

    from vivit_edu.augment import swap_sides
    from vivit_edu.augment.warp import move
    from vivit_edu.experiments.runs import load_run
    from vivit_edu.training import predict_logits, score

    shifts = ((0, 0, 0), (0, 2, 0))
    monkeypatch.setattr("vivit_edu.experiments.runs.VIEW_SHIFTS", shifts)
    assert main(["evaluate", str(run), "--views", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    model, volumes, _ = load_run(run)
    logits = 0
    for shift in shifts:
        moved = move(volumes.val.clips, torch.tensor([shift] * len(volumes.val)))
        for flipped in (False, True):
            clips = moved.flip(volumes.mirror.axis + 1) if flipped else moved
            found = predict_logits(model, replace(volumes.val, clips=clips))
            logits = logits + (swap_sides(found, volumes.mirror) if flipped else found)
    assert f"{score(logits / 4, volumes.val.labels).auc:.3f}" in next(
        line for line in printed.splitlines() if line.startswith("val")
    )


def test_a_finished_run_resumes_to_the_same_figures(run):
    before = json.loads((run / "metrics.json").read_text())
    assert main(["train", "--resume", "--out", str(run), "--device", "cpu"]) == 0
    after = json.loads((run / "metrics.json").read_text())
    assert after["test"] == before["test"] and after["seconds"] == before["seconds"]


def test_a_run_is_not_written_over(run, capsys):
    assert main(["train", "organphantom3d", "--out", str(run)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_bare_train_falls_back_to_the_phantom_and_says_so(tmp_path, monkeypatch, capsys):
    """Without network and without the file. What was trained on stands in metrics.json."""
    import vivit_edu.data as data

    def unreachable(*_, **__):
        raise data.UnreachableError("no network")

    monkeypatch.delenv("VIVIT_EDU_DATASET", raising=False)
    load = data.load_volumes
    monkeypatch.setattr(
        data,
        "load_volumes",
        lambda name="organmnist3d", **o: unreachable() if name == "organmnist3d" else load(name, **o),
    )
    assert main(["train", "--epochs", "1", *SMALL, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert "SYNTHETIC" in printed.err + printed.out
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["dataset"] == "organphantom3d"


def test_the_real_file_trains(test_data, tmp_path, capsys):
    out = tmp_path / "run"
    where = ["--root", str(test_data), "--out", str(out)]
    assert main(["train", "adrenalmnist3d", "--epochs", "1", "--model", "spacetime", *SMALL, *where]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["dataset"] == "adrenalmnist3d" and metrics["model"] == "spacetime"
    assert metrics["options"]["num_classes"] == 2


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["train", "organmnist2d"], "organmnist3d"),
        (["train", "organphantom3d", "--model", "vit"], "factorised_encoder"),
        (["train", "organphantom3d", "--device", "abacus"], "choose auto, or one of"),
        (["train", "organphantom3d", "--device", "\udcff"], "choose auto, or one of"),
        (["train", "organphantom3d", "--device", "cuda:99999999999999999999"], "choose auto, or one of"),
        (["train", "--resume"], "--out"),
        (["train", "--resume", "--out", "nowhere"], "run.json"),
        (["evaluate", "nowhere"], "run folder"),
        (["train", "adrenalmnist3d", "--root", "nowhere"], "adrenalmnist3d.npz"),
    ],
)
def test_bad_input_ends_in_one_message_and_status_2(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there: no download
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("vivit-edu: ") and says in message
    assert "Traceback" not in message


@pytest.mark.parametrize("arguments", [["train", "--epochs", "0"], ["train", "--epochs", "many"], ["fly"], []])
def test_arguments_that_do_not_parse_exit_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


# ---- what no command is meant for


def commands():
    """(command, positional arguments that it needs, one of its options or arguments that takes a value)."""
    (subparsers,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in subparsers.choices.items():
        needed = [a.dest for a in parser._actions if not a.option_strings and a.nargs not in ("?", "*")]
        for action in parser._actions:
            if action.nargs != 0:
                yield pytest.param(name, needed, action, id=f"{name} {action.dest}")


def with_value(name, needed, action, value):
    if action.option_strings:
        return [name, *("x" for _ in needed), f"{action.option_strings[-1]}={value}"]
    values = [value if dest == action.dest else "x" for dest in needed]
    return [name, *(values if action.dest in needed else [*values, value])]


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize("name, needed, action", [*commands()])
def test_an_empty_value_is_not_taken_for_none(name, needed, action, value, capsys):
    """A variable of the shell that nobody set must not train on another data set, or from scratch."""
    with pytest.raises(SystemExit) as stop:
        main(with_value(name, needed, action, value))
    said = capsys.readouterr().err
    assert stop.value.code == 2 and ("is empty: give a value" in said or "invalid" in said)
    assert f"argument {action.option_strings[0] if action.option_strings else ''}" in said
    assert "argument COMMAND" not in said


PLACES = {"root", "out", "videos", "val", "test", "pretrained", "run", "folder"}


@pytest.mark.parametrize("name, needed, action", [c for c in commands() if c.values[2].dest in PLACES])
def test_every_path_knows_the_home_folder(name, needed, action, capsys, monkeypatch):
    with pytest.raises(SystemExit) as stop:
        main(with_value(name, needed, action, "~no-such-user/x"))
    assert stop.value.code == 2 and "there is no user of that name" in capsys.readouterr().err
    monkeypatch.setenv("HOME", "/home/ada")
    options = make_parser().parse_args(with_value(name, needed, action, "~/x"))
    assert getattr(options, action.dest) == "/home/ada/x"


@pytest.mark.parametrize("others", [["--check"], ["--only", "03"], ["--force"], ["--repo", "https://github.com/a/b"]])
def test_the_stamp_is_given_alone(others, monkeypatch, capsys):
    monkeypatch.setattr("vivit_edu.authoring.stamp.stamp", lambda: pytest.fail("it was written, though nothing ran"))
    assert main(["notebooks", "--stamp", *others]) == 2
    assert "runs nothing itself" in capsys.readouterr().err


def as_a_process(monkeypatch, error, *arguments):
    """The command as the shell starts it; showing a data set ends in this error."""

    def fail(_):
        raise error

    monkeypatch.setattr("vivit_edu.cli.run_data", fail)
    monkeypatch.setattr(sys, "argv", ["vivit-edu", "data", *arguments])


def test_what_nobody_foresaw_is_one_message_too(monkeypatch, capsys):
    as_a_process(monkeypatch, ZeroDivisionError("division\nby zero"))
    assert main() == 1
    said = capsys.readouterr().err
    assert said.startswith(
        "vivit-edu: a fault in this program, ZeroDivisionError: division by zero (test_cli.py, line "
    )
    assert f"{repository()}/issues" in said and said.count("\n") == 1
    with pytest.raises(ZeroDivisionError):  # who calls it from Python sees all of it
        main(["data"])
    monkeypatch.setenv("VIVIT_EDU_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_second_interrupt_changes_nothing(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    as_a_process(monkeypatch, KeyboardInterrupt())
    try:
        assert main() == 130
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "\nStopped.\n"
    assert main(["data"]) == 130 and signal.getsignal(signal.SIGINT) is before


PRINTS = "import sys; from vivit_edu import cli; cli.run_data = print; sys.exit(cli.main())"


def command(*arguments, code=None, **options):
    """The command in a process of its own, or code in its place. None of these loads torch."""
    start = ["-c", code] if code else ["-m", "vivit_edu"]
    return subprocess.run([sys.executable, *start, *arguments], text=True, **options)


needs_dev_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")


def test_help_in_an_alphabet_without_our_signs():
    environment = os.environ | {"PYTHONIOENCODING": "ascii:strict", "PYTHONUTF8": "0"}
    shown = command("train", "--help", env=environment, capture_output=True)
    assert shown.returncode == 0 and shown.stderr == "" and "\\u2026" in shown.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end otherwise there")
def test_a_reader_who_has_seen_enough_is_no_fault():
    read, write = os.pipe()
    os.close(read)
    shown = command("data", code=PRINTS, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert shown.returncode == 141 and shown.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="its files have no such numbers")
@pytest.mark.parametrize("closed", [[2], [1, 2], [0, 1, 2]])
def test_what_goes_to_a_closed_stderr_does_not_go_into_the_next_file(closed, tmp_path):
    """`vivit-edu train 2>&-`: the next file to be opened, such as a checkpoint, had the number 2."""
    code = f"""
import os, sys
for number in {closed}:
    os.close(number)
from vivit_edu import cli
from vivit_edu.errors import DataError

def run(options):
    with open({str(tmp_path / "file")!r}, "wb") as file:
        for number in (1, 2):
            os.write(number, b"a library's warning")  # as C does it
        print("a warning", file=sys.stderr, flush=True)
        file.write(b"ours")
    raise DataError("a message")

cli.run_data, sys.argv = run, ["vivit-edu", "data"]
if 1 in {closed}:
    sys.stdout = None  # as Python has it where the shell closed it
sys.stderr = None
sys.exit(cli.main())
"""
    shown = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert shown.returncode == 2 and (tmp_path / "file").read_bytes() == b"ours"
    assert "a message" not in shown.stdout, "it is told on stderr, which goes nowhere"


@needs_dev_full
def test_progress_that_nobody_can_see_is_no_reason_to_stop():
    code = "from tqdm import tqdm; " + PRINTS.replace("print", "lambda _: print(*tqdm(range(3)))")
    with open("/dev/full", "w") as full:
        shown = command("data", code=code, stdout=subprocess.PIPE, stderr=full)
    assert shown.returncode == 0 and shown.stdout == "0 1 2\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you ..."
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    ],
)
def test_too_little_memory_is_no_fault_of_the_program(error, monkeypatch, capsys):
    as_a_process(monkeypatch, error)
    for arguments in (None, ["data"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.startswith("vivit-edu: the memory is not enough: take a smaller --batch-size")


@needs_dev_full
def test_output_that_cannot_be_written_is_said_once():
    with open("/dev/full", "w") as full:
        shown = command("data", code=PRINTS, stdout=full, stderr=subprocess.PIPE)
        assert shown.returncode == 2 and shown.stderr == "vivit-edu: [Errno 28] No space left on device\n"
        shown = command("notebooks", "--stamp", "--check", stdout=subprocess.PIPE, stderr=full)
        assert shown.returncode == 2 and shown.stdout == ""


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "vivit_edu", "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "train" in shown.stdout


@pytest.mark.parametrize("theirs", [None, "ACTIVE"])
@pytest.mark.parametrize("start", ["import vivit_edu.__main__", "from vivit_edu.cli import main; main(['data', 'x'])"])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(start, theirs):
    """Set before torch is loaded: OpenMP reads it once."""
    code = f"""
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("POLICY", os.environ.get("OMP_WAIT_POLICY"))
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.argv = ["vivit-edu", "data", "x"]
{start}
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": theirs} if theirs else {}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert f"POLICY {theirs or 'PASSIVE'}" in shown.stdout, shown.stderr


def test_help_names_every_model(capsys):
    from vivit_edu.models import MODELS

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = capsys.readouterr().out.split()
    assert {f"{name}," for name in MODELS} <= set(shown)
