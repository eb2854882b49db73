"""`vivit-edu records`: which recorded figures are still of today's code, and whether a run, made again, comes to them.

    recorded_runs(folder)     every run that a record holds, with today's way of making it
    state_of(run)             "current", "stale" or "unknown", and why
    repeat(run)               the same run again, compared within the run's tolerance

A run is unknown where its record names no code, as all did that were made before November 29, 2026.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data import load_volumes
from ..errors import ConfigError, DataError
from ..support.checkpoint import difference, plain
from ..support.files import read_json
from ..support.places import checkout
from ..training import Recipe
from .bench.maps import make_table, score_maps
from .code import code_of, code_of_functions, what_changed
from .records import shared_code, write_record
from .runs import train_run
from .tables import TABLES, make_rows
from .trained import RECORDED

if TYPE_CHECKING:
    from .tables import Row

FIGURES_AGAIN = tuple((split, name) for split in ("val", "test") for name in ("acc", "balanced_acc", "auc"))
SAME = 1e-6  # two figures are the same to the digit; they are kept in float32
SEEDS_APART = 3  # standard deviations of the difference between two seeds: so far a repeated run may be off
LEAST, MOST, OF_ONE_SEED = 0.02, 0.1, 0.05  # the tolerance at the least and at the most, and of one seed alone


@dataclass(frozen=True)
class RecordedRun:
    """One run as its record has it, and how it would be made today.

    path: of the record. figures: {"val", "test": {"acc", "balanced_acc", "auc"}}. tolerance: how far an accuracy may be
    off when the run is repeated. threads: it was made with, None where the record does not say. code: {part: hash},
    None where the record does not say. recipe, train: of today, None where no run is like it any more. now: {part:
    hash} of today. gone: why it would be another run today, "" where it would not.
    """

    path: Path
    row: str
    seed: int
    dataset: str
    size: int
    figures: dict[str, dict[str, float | None]]
    seconds: float
    tolerance: float
    threads: int | None = None
    code: dict[str, str] | None = None
    recipe: Recipe | None = None
    train: Callable | None = None
    now: dict[str, str] = field(default_factory=dict)
    gone: str = ""


@dataclass(frozen=True)
class Repeated:
    """A run that was made again. figures: those that it came to. code: by which. off: by how much the accuracies differ
    at the most."""

    run: RecordedRun
    figures: dict[str, dict[str, float | None]]
    code: dict[str, str] | None
    off: float

    @property
    def same(self) -> bool:
        """Whether every figure is the same to the digit."""
        pairs = [(self.run.figures[split][name], self.figures[split][name]) for split, name in FIGURES_AGAIN]
        return all(a == b or (None not in (a, b) and abs(a - b) <= SAME) for a, b in pairs)

    @property
    def verdict(self) -> str:
        """What came of it, in words."""
        return "same" if self.same else "within" if self.off <= self.run.tolerance else "differs"


def results_folder() -> Path:
    """Where the records are."""
    return checkout() / "notebooks" / "results"


def recorded_runs(path: Path) -> list[RecordedRun]:
    """The runs that a record holds: of each row and seed of a table, or that of a recorded model; [] of other files."""
    content = read_json(path)
    if not isinstance(content, dict):
        return []
    if "table" in content and "rows" in content:
        return [run for row in content["rows"] for run in runs_of_row(path, content, row)]
    return [run_of_model(path, content)] if "sha256" in content and "recipe" in content else []


def runs_of_row(path: Path, content: dict, row: dict) -> list[RecordedRun]:
    """The runs of one row of a table."""
    today = row_today(content, row["row"])
    recorded = plain(asdict(Recipe.from_dict(row["recipe"])))
    gone, now = f"the table {content['table']!r} has no such row now", {}
    if today is not None:
        gone = difference(recorded, plain(asdict(today.recipe)))
        now = code_of(today.train, today.recipe, content["dataset"])
    codes = row.get("code") or [None] * len(row["seconds"]["runs"])
    sd = row["test"]["acc"]["sd"]
    return [
        RecordedRun(
            path=path,
            row=row["row"],
            seed=content["seeds"][number],
            dataset=content["dataset"],
            size=content["size"],
            figures={split: {n: row[split][n]["runs"][number] for n in row[split]} for split in ("val", "test")},
            seconds=seconds,
            tolerance=OF_ONE_SEED if sd is None else min(MOST, max(LEAST, SEEDS_APART * sqrt(2) * sd)),
            threads=threads_of(content["device"]),
            code=content["code"][codes[number]] if codes[number] else None,
            recipe=today and today.recipe,
            train=today and today.train,
            now=now,
            gone=gone,
        )
        for number, seconds in enumerate(row["seconds"]["runs"])
    ]


def row_today(content: dict, name: str) -> Row | None:
    """The row of this name as the table has it now, of as many epochs as the record's command asked for; None where
    there is none."""
    if content["table"] not in TABLES:
        return None
    asked = " --epochs " in content["command"]
    rows = make_rows(content["table"], content["epochs"] if asked else None, " --bfloat16" in content["command"])
    return next((row for row in rows if row.name == name), None)


def run_of_model(path: Path, facts: dict) -> RecordedRun:
    """The run of a recorded model, whose figures are those of the weights before they were rounded."""
    today = RECORDED.get(facts["name"])
    gone, now = f"no model is recorded as {facts['name']!r} now", {}
    if today is not None:
        gone = difference(plain(asdict(Recipe.from_dict(facts["recipe"]))), plain(asdict(today.recipe)))
        now = code_of(train_run, today.recipe, facts["dataset"])
    return RecordedRun(
        path=path,
        row=facts["name"],
        seed=facts["seed"],
        dataset=facts["dataset"],
        size=facts["size"],
        figures=facts["unrounded"],
        seconds=60 * facts["minutes"],
        tolerance=OF_ONE_SEED,
        threads=threads_of(facts["device"]),
        code=facts.get("code"),
        recipe=today and today.recipe,
        train=train_run,
        now=now,
        gone=gone,
    )


def threads_of(device: str) -> int | None:
    """The number of threads in a CPU's description, of several descriptions the first; None where there is none."""
    words = device.split(";")[0].replace(",", "").split()
    return int(words[1]) if words[:1] == ["cpu"] and len(words) > 1 and words[1].isdigit() else None


def state_of(run: RecordedRun) -> tuple[str, str]:
    """("current", ""), ("stale", what is another one now) or ("unknown", ""), for a record that names no code."""
    if run.gone:
        return "stale", run.gone
    if run.code is None:
        return "unknown", ""
    changed = what_changed(run.code, run.now)
    return ("stale", ", ".join(changed)) if changed else ("current", "")


def states(folder: Path | None = None) -> dict[Path, dict[str, list[str]]]:
    """{record: {"current", "stale" or "unknown": [why, of each run]}} of every JSON file in the folder of results.

    A record that holds no runs counts as one: the table of maps names the code that scored them, others are unknown.
    """
    folder = folder or results_folder()
    found = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("models/*.json")]):
        of_record = found.setdefault(path, {"current": [], "stale": [], "unknown": []})
        for state, why in [state_of(run) for run in recorded_runs(path)] or [state_of_other(path)]:
            of_record[state].append(why)
    return found


def state_of_other(path: Path) -> tuple[str, str]:
    """The state of a record that holds no runs."""
    content = read_json(path)
    if not isinstance(content, dict) or "results" not in content or "code" not in content:
        return "unknown", ""
    changed = what_changed(content["code"], code_of_functions(score_maps, make_table))
    return ("stale", ", ".join(changed)) if changed else ("current", "")


# ---- again


def sample_runs(number: int, seed: int, most_seconds: float, folder: Path | None = None) -> list[RecordedRun]:
    """So many runs, drawn from all that were made in at most so many seconds and that today would be the same run.

    Raises ConfigError where there are none.
    """
    folder = folder or results_folder()
    paths = sorted([*folder.glob("*.json"), *folder.glob("models/*.json")])
    able = [run for path in paths for run in recorded_runs(path) if not run.gone and run.seconds <= most_seconds]
    if not able:
        raise ConfigError(f"no recorded run took at most {most_seconds:g} seconds: allow more with --most-seconds")
    return random.Random(seed).sample(able, min(number, len(able)))


def repeat(run: RecordedRun, root: Path | str | None = None) -> Repeated:
    """Makes a recorded run again, on the CPU, with as many threads, in a folder of its own that is then removed.

    root: the folder with the data. Raises DataError where the data are not there and cannot be downloaded.
    """
    volumes = load_volumes(run.dataset, size=run.size, root=root)
    with tempfile.TemporaryDirectory() as place, threads(run.threads):
        out = Path(place) / "run"  # what a row makes for all of its runs goes next to it
        metrics = run.train(volumes, run.recipe, out=out, seed=run.seed, device="cpu", figures=False)
    off = max(abs(metrics[split]["acc"] - run.figures[split]["acc"]) for split in ("val", "test"))
    code = run.now | metrics["code"] if "code" in metrics else None
    return Repeated(run, {split: metrics[split] for split in ("val", "test")}, code, off)


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Within it torch computes with so many threads; None: as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def note_code(repeated: Repeated) -> bool:
    """Writes into the record that today's code makes the run, where it came to the same figures; says whether.

    This is the one way by which a record comes to a hash later than its run: the run itself has shown it.
    """
    run = repeated.run
    if not repeated.same or repeated.code is None:
        return False
    content = read_json(run.path)
    if "table" not in content:
        write_record(run.path, content | {"code": repeated.code})
        return True
    rows = shared_code(content)
    number = content["seeds"].index(run.seed)
    for row in rows:
        if row["row"] == run.row:
            codes = row.get("code") or [None] * len(row["seconds"]["runs"])
            row["code"] = [repeated.code if place == number else code for place, code in enumerate(codes)]
    write_record(run.path, {key: value for key, value in content.items() if key != "code"} | {"rows": rows})
    return True


# ---- in words


def states_table(found: dict[Path, dict[str, list[str]]], folder: Path | None = None) -> str:
    """What `states` found, as a table with a line for each record."""
    from tabulate import tabulate

    folder, rows = folder or results_folder(), []
    for path, states_of in found.items():
        counts = [len(states_of[state]) or "" for state in ("current", "stale", "unknown")]
        rows.append([path.relative_to(folder).as_posix(), *counts, "; ".join(dict.fromkeys(states_of["stale"]))])
    heads = ["record", "current", "stale", "unknown", "another now"]
    return tabulate(rows, headers=heads, disable_numparse=True, maxcolwidths=[None, None, None, None, 60])


def repeats_table(done: list[Repeated], folder: Path | None = None) -> str:
    """What came of repeated runs, as a table: accuracy then and again on the test split, allowed and found."""
    from tabulate import tabulate

    folder = folder or results_folder()
    rows = [
        [
            one.run.path.relative_to(folder).as_posix(),
            one.run.row,
            one.run.seed,
            *(f"{figures['test']['acc']:.4f}" for figures in (one.run.figures, one.figures)),
            f"{one.off:.4f}",
            f"{one.run.tolerance:.4f}",
            state_of(one.run)[0],
            one.verdict,
        ]
        for one in done
    ]
    heads = ["record", "row", "seed", "recorded", "again", "off, at most", "allowed", "code", "figures"]
    return tabulate(rows, headers=heads, disable_numparse=True)


def repeat_sample(
    number: int, seed: int, most_seconds: float, *, note: bool = False, root: Path | str | None = None
) -> tuple[list[Repeated], list[str]]:
    """Repeats a sample of runs, one after the other: (those made, why others could not be made).

    note: as `note_code` does. Others: of data that are not there.
    """
    done, left_out = [], []
    for run in sample_runs(number, seed, most_seconds):
        try:
            done.append(repeat(run, root))
        except DataError as error:
            left_out.append(f"{run.path.name}, {run.row}, seed {run.seed}: {error}")
            continue
        if note:
            note_code(done[-1])
    return done, left_out
