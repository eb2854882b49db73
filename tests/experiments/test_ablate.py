"""A table of runs does each run once, whenever it is killed, and sums them up as numpy does."""

import csv
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import tiny_recipe
from vivit_edu import training
from vivit_edu.cli import main, print_metrics
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments.ablate import run_table, spread
from vivit_edu.experiments.runs import train_run
from vivit_edu.experiments.tables import TABLES, Row, make_rows
from vivit_edu.support import checkpoint

ROWS = [Row("nothing", tiny_recipe(epochs=2)), Row("+ a smaller step", tiny_recipe(epochs=2, lr=1e-4))]


class Counting:
    """train_run, with a note of each call; raises in place of the call of this number."""

    def __init__(self, stop_at=None):
        self.calls, self.stop_at = [], stop_at

    def __call__(self, volumes, recipe, *, seed, **options):
        if len(self.calls) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append((recipe.lr, seed))
        return train_run(volumes, recipe, seed=seed, **options)


def with_train(train):
    return [replace(row, train=train) for row in ROWS]


def figures(content):
    return [[row[split] for split in ("val", "test")] for row in content["rows"]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_volumes):
    out = tmp_path_factory.mktemp("ablation") / "table"
    return out, run_table("steps", ROWS, tiny_volumes, seeds=2, out=out, device="cpu")


def test_each_run_is_made_once_and_interrupting_loses_none(finished, tiny_volumes, tmp_path):
    first = Counting(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        run_table("steps", with_train(first), tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    again = Counting()
    content = run_table("steps", with_train(again), tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    assert first.calls == [(5e-4, 0), (1e-4, 0), (5e-4, 1)]  # a whole table of one seed before the next seed
    assert again.calls == [(1e-4, 1)]
    assert figures(content) == figures(finished[1])
    nothing = Counting()
    run_table("steps", with_train(nothing), tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    assert nothing.calls == []


def test_more_seeds_add_only_theirs(finished, tiny_volumes):
    out, before = finished
    count = Counting()
    content = run_table("steps", with_train(count), tiny_volumes, seeds=3, out=out, device="cpu")
    assert count.calls == [(5e-4, 2), (1e-4, 2)]
    for old, new in zip(before["rows"], content["rows"]):
        assert new["test"]["acc"]["runs"][:2] == old["test"]["acc"]["runs"] and len(new["test"]["acc"]["runs"]) == 3


def test_a_row_may_have_fewer_seeds_and_says_so(tiny_volumes, tmp_path):
    count = Counting()
    rows = [replace(row, train=count, seeds=seeds) for row, seeds in zip(ROWS, (1, 5))]
    content = run_table("steps", rows, tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    assert count.calls == [(5e-4, 0), (1e-4, 0), (1e-4, 1)]
    assert [len(row["test"]["acc"]["runs"]) for row in content["rows"]] == [1, 2]
    assert "| nothing (seeds: 1) |" in (tmp_path / "table.md").read_text()


SLOWLY = """
import sys, time
from tests.experiments.test_ablate import ROWS
from tests.tiny import make_tiny_volumes
from vivit_edu import training
from vivit_edu.experiments.ablate import run_table

quickly = training.train_epoch
training.train_epoch = lambda *arguments, **options: time.sleep(0.4) or quickly(*arguments, **options)
run_table("steps", ROWS, make_tiny_volumes(), seeds=2, out=sys.argv[1], device="cpu")
"""


def test_killed_in_the_middle_of_a_run_it_goes_on_from_that_runs_checkpoint(
    finished, tiny_volumes, tmp_path, monkeypatch
):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "01-a-smaller-step-seed0" / "checkpoint.pt").exists():  # one epoch of two is done
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in tmp_path.glob("*seed*.json")] == ["00-nothing-seed0.json"]

    trained, train_epoch = [], training.train_epoch

    def noted(*arguments, seed, epoch, **options):
        trained.append((arguments[3].lr, seed, epoch))
        return train_epoch(*arguments, seed=seed, epoch=epoch, **options)

    monkeypatch.setattr(training, "train_epoch", noted)
    content = run_table("steps", ROWS, tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    assert trained == [(1e-4, 0, 1), (5e-4, 1, 0), (5e-4, 1, 1), (1e-4, 1, 0), (1e-4, 1, 1)]
    assert figures(content) == figures(finished[1])


def test_a_finished_run_is_one_small_file(finished):
    out, _ = finished
    run = json.loads((out / "00-nothing-seed0.json").read_text())
    assert run["row"] == "nothing" and run["seed"] == 0 and run["recipe"]["lr"] == 5e-4
    assert [row["epoch"] for row in run["history"]] == [1, 2]
    assert {"val", "test", "seconds", "device", "versions", "date", "dataset"} <= set(run)
    assert not [path for path in out.iterdir() if path.is_dir()]  # checkpoints are gone


# ---- the table


def test_mean_and_standard_deviation_are_numpys():
    values = [0.7, 0.8, 0.75, 0.9]
    found = spread(values)
    assert found["mean"] == pytest.approx(np.mean(values)) and found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert spread([0.5]) == {"mean": 0.5, "sd": None, "runs": [0.5]}


def test_the_table_holds_each_rows_own_figures(finished):
    out, content = finished
    for number, (row, name) in enumerate(zip(content["rows"], ("00-nothing", "01-a-smaller-step"))):
        runs = [json.loads((out / f"{name}-seed{seed}.json").read_text()) for seed in (0, 1)]
        assert row["row"] == ROWS[number].name == runs[0]["row"]
        for split in ("val", "test"):
            for figure in ("acc", "balanced_acc", "auc"):
                assert row[split][figure]["runs"] == [run[split][figure] for run in runs]
    assert content["rows"][0]["test"] != content["rows"][1]["test"]


def test_what_is_written_says_where_it_comes_from(finished):
    out, content = finished
    assert content["command"] == "vivit-edu ablate steps tiny --seeds 2 --epochs 2"
    assert content["seeds"] == [0, 1] and content["epochs"] == 2 and content["dataset"] == "tiny"
    assert content["device"].startswith("cpu") and content["versions"]["torch"] and len(content["date"]) == 10
    written = json.loads((out / "table.json").read_text())
    assert written["command"].startswith("vivit-edu ablate steps tiny")
    page = (out / "table.md").read_text()
    for wanted in (
        "vivit-edu ablate steps tiny",
        "seeds 0, 1",
        "torch ",
        "cpu",
        " ± ",
        "+ a smaller step",
        content["date"],
    ):
        assert wanted in page, wanted
    with open(out / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == [row.name for row in ROWS]
    assert float(rows[1]["test_auc_mean"]) == pytest.approx(written["rows"][1]["test"]["auc"]["mean"])
    assert float(rows[1]["val_acc_sd"]) == pytest.approx(written["rows"][1]["val"]["acc"]["sd"])
    from PIL import Image

    with Image.open(out / "table.png") as picture:
        assert "a smaller step" in picture.text["Description"]


def test_rows_of_different_lengths_are_run_again_by_a_command_without_epochs(tiny_volumes, tmp_path):
    """--epochs would give all of them the same."""
    rows = [ROWS[0], replace(ROWS[1], recipe=replace(ROWS[1].recipe, epochs=1))]
    content = run_table("steps", rows, tiny_volumes, seeds=1, out=tmp_path, device="cpu")
    assert content["command"] == "vivit-edu ablate steps tiny --seeds 1" and content["epochs"] == "1 or 2"
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        assert [row["epochs"] for row in csv.DictReader(file)] == ["2", "1"]


def test_a_single_seed_has_no_standard_deviation(tiny_volumes, tmp_path):
    run_table("steps", ROWS[:1], tiny_volumes, seeds=1, out=tmp_path, device="cpu")
    assert "±" not in (tmp_path / "table.md").read_text().split("`")[0]


# ---- refusals


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda rows, volumes: ("model", rows, volumes), "its table is steps, asked for was model"),
        (
            lambda rows, volumes: ("steps", rows, replace(volumes, name="other")),
            "its dataset is tiny, asked for was other",
        ),
        (lambda rows, volumes: ("steps", rows, replace(volumes, train=volumes.train.subset(slice(16)))), "its clips"),
        (lambda rows, volumes: ("steps", rows[:1], volumes), "its rows are nothing, "),
        (
            lambda rows, volumes: (
                "steps",
                [replace(row, recipe=replace(row.recipe, epochs=3)) for row in rows],
                volumes,
            ),
            "'nothing' epochs was 2, now 3",
        ),
        (
            lambda rows, volumes: ("steps", [rows[0], Row(rows[1].name, tiny_recipe(epochs=2, lr=7e-4))], volumes),
            "'\\+ a smaller step' lr was 0.0001, now 0.0007",
        ),
    ],
)
def test_a_folder_of_something_else_is_refused(finished, tiny_volumes, change, says):
    out, _ = finished
    before = {path: path.read_bytes() for path in out.iterdir()}
    table, rows, volumes = change(ROWS, tiny_volumes)
    with pytest.raises(ConfigError, match=says) as refusal:
        run_table(table, rows, volumes, seeds=2, out=out, device="cpu")
    assert "--out" in str(refusal.value)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_recipe_that_has_a_new_field_since_then_goes_on(tiny_volumes, tmp_path):
    run_table("steps", ROWS[:1], tiny_volumes, seeds=1, out=tmp_path, device="cpu")
    grid = json.loads((tmp_path / "grid.json").read_text())
    del grid["rows"]["nothing"]["bfloat16"]  # as an older version wrote it
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    count = Counting()
    run_table("steps", [replace(ROWS[0], train=count)], tiny_volumes, seeds=1, out=tmp_path, device="cpu")
    assert count.calls == []


def set_in_grid(*path, to):
    def change(grid):
        for key in path[:-1]:
            grid = grid[key]
        grid[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change, says",
    [
        (set_in_grid("colour", to="blue"), "holds colour, which this version does not know"),
        (set_in_grid("rows", "nothing", "momentum", to=0.9), "no field momentum"),
        (set_in_grid("rows", "nothing", "options", "colour", to=1), "no option colour"),
        (set_in_grid("rows", "nothing", "augmentation", "fog", to=1), "no field fog"),
        (set_in_grid("rows", "nothing", "augmentation", to=3), "cannot be read"),
        (set_in_grid("rows", "nothing", to=[]), "cannot be read"),
        (set_in_grid("rows", to=[]), "its rows is of another kind"),
        (set_in_grid("rows", to={}), "its rows are "),
        (set_in_grid("clips", to=None), "its clips is of another kind"),
        (set_in_grid("table", to=7), "its table is of another kind"),
        (lambda grid: grid.pop("dataset"), "lacks dataset"),
    ],
)
def test_a_grid_of_another_version_or_a_damaged_one_is_one_message(change, says, finished, tiny_volumes, tmp_path):
    grid = json.loads((finished[0] / "grid.json").read_text())
    change(grid)
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    with pytest.raises((CheckpointError, ConfigError), match=says) as refusal:
        run_table("steps", ROWS, tiny_volumes, seeds=1, out=tmp_path, device="cpu")
    assert "--out" in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.json"]


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"table": ', "[" * 100_000, "\0\0"])
def test_a_grid_that_is_not_one_is_one_message(text, tiny_volumes, tmp_path):
    (tmp_path / "grid.json").write_text(text)
    with pytest.raises(CheckpointError, match="grid.json cannot be read .* --out"):
        run_table("steps", ROWS, tiny_volumes, seeds=1, out=tmp_path, device="cpu")


@pytest.mark.parametrize(
    "change",
    [{"history": []}, {"history": [{}]}, {"row": "+ a smaller step"}, {"seed": 5}, {"probes": {}}, {"val": {}}],
    ids=str,
)
def test_a_finished_run_that_lacks_something_is_named(change, finished, tiny_volumes, tmp_path):
    out, _ = finished
    for path in out.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "00-nothing-seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match="00-nothing-seed0.json cannot be read .* delete it"):
        run_table("steps", ROWS, tiny_volumes, seeds=2, out=tmp_path, device="cpu")


def strictly(text):
    """The content of a JSON text; NaN and Infinity, which JSON does not have, are an error."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_split_of_one_class_has_no_auc_and_every_file_is_json(tiny_volumes, tmp_path, capsys):
    one_class = tiny_volumes.val.subset(tiny_volumes.val.labels == 1)
    volumes = replace(tiny_volumes, val=one_class)
    metrics = train_run(volumes, tiny_recipe(epochs=1), out=tmp_path / "run", device="cpu")
    for path in (tmp_path / "run").glob("*.json"):
        strictly(path.read_text())
    assert strictly((tmp_path / "run" / "metrics.json").read_text())["val"]["auc"] is None
    assert metrics["test"]["auc"] > 0
    print_metrics(metrics)
    val, test = capsys.readouterr().out.splitlines()[-2:]
    assert val.split()[-1] == "–" and test.split()[-1] == f"{metrics['test']['auc']:.3f}"
    rows = [replace(row, recipe=replace(row.recipe, epochs=1)) for row in ROWS]
    content = run_table("steps", rows, volumes, seeds=2, out=tmp_path / "table", device="cpu")
    for path in (tmp_path / "table").glob("*.json"):
        strictly(path.read_text())
    assert content["rows"][0]["val"]["auc"] == {"mean": None, "sd": None, "runs": [None, None]}
    cells = (tmp_path / "table" / "table.md").read_text().splitlines()[2].split("|")
    assert [cell.strip() for cell in cells][4] == "–"


def test_means_leave_out_what_is_missing():
    assert spread([None, 0.5, 0.7])["mean"] == pytest.approx(0.6)
    assert spread([None, 0.5]) == {"mean": 0.5, "sd": None, "runs": [None, 0.5]}


def test_a_damaged_run_is_named_and_not_averaged(finished, tiny_volumes, tmp_path):
    out, _ = finished
    for path in out.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "00-nothing-seed1.json").write_text("{}")
    with pytest.raises(CheckpointError, match="00-nothing-seed1.json cannot be read .it lacks .* delete it"):
        run_table("steps", ROWS, tiny_volumes, seeds=2, out=tmp_path, device="cpu")


# ---- the tables of the command line


@pytest.mark.parametrize("table", TABLES)
def test_every_table_builds_its_models(table, tiny_volumes):
    from vivit_edu import build_model

    rows = make_rows(table, epochs=2, bfloat16=True)
    assert len({row.name for row in rows}) == len(rows) > 1
    for row in rows:
        assert row.recipe.epochs == 2 and row.recipe.bfloat16
        size = 64 if "64³" in row.name else 28
        build_model(row.recipe.model, clip_shape=(1, size, size, size), **row.recipe.options)


def test_the_recipe_table_has_the_presets_and_names_what_was_recorded():
    example, quick, shorter, full = (row.recipe for row in make_rows("recipe"))
    assert quick == training.Recipe.preset("quick") and full == training.Recipe.preset("full")
    assert full == replace(shorter, epochs=2 * shorter.epochs, weight_decay=0.5)
    assert example.options["tubelet"] == (8, 8, 8)
    folder = Path(__file__).parents[2] / "notebooks" / "results"
    for name in ("organphantom3d", "adrenalmnist3d"):
        recorded = json.loads((folder / f"recipe_{name}.json").read_text(encoding="utf-8"))
        made = [training.Recipe.from_dict(row["recipe"] | {"bfloat16": False}) for row in recorded["rows"]]
        now = [training.Recipe.from_dict(checkpoint.plain(asdict(r))) for r in (example, quick, shorter, full)]
        assert recorded["dataset"] == name and made == now


def test_an_unknown_table_is_answered_with_the_tables(capsys):
    assert main(["ablate", "luck", "organphantom3d"]) == 2
    assert ", model, all-models, tubelet" in capsys.readouterr().err


def test_the_help_names_every_table(capsys):
    with pytest.raises(SystemExit):
        main(["ablate", "--help"])
    told = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    assert told.endswith(f"The tables are {', '.join(TABLES)}.")


def test_the_command_runs_a_table_and_goes_on_where_it_stopped(tiny_volumes, tmp_path, monkeypatch, capsys):
    import vivit_edu.data

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(TABLES, "model", lambda: ROWS)
    monkeypatch.setattr(vivit_edu.data, "load_volumes", lambda name, size, root: replace(tiny_volumes, name=name))
    command = ["ablate", "model", "organphantom3d", "--seeds", "2", "--epochs", "1", "--device", "cpu"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| + a smaller step" in printed and "`vivit-edu ablate model organphantom3d --seeds 2 --epochs 1`" in printed
    folder = tmp_path / "runs" / "ablate-model-organphantom3d"
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*seed*.json")}
    assert len(times) == 4 and main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*seed*.json")} == times
    assert main([*command, "--epochs", "2"]) == 2
    assert "epochs was 1, now 2" in capsys.readouterr().err
