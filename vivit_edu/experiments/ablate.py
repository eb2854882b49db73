"""Ablations: a table of recipes, each trained with several seeds, resumably, and summed up.

    OUT/grid.json                what is run: table, data set, every row's recipe
    OUT/02-random-augment-seed1.json   one finished run: its figures, history, machine, versions
    OUT/02-random-augment-seed1/       one unfinished run: its checkpoint, gone when it is finished
    OUT/table.{json,csv,md,png}  mean ± sd of what is finished

Started again, the same command does only what is missing. What stands in the tables: `tables`.
"""

from __future__ import annotations

import csv
import io
import os
import re
import time
from dataclasses import asdict
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

import numpy as np
from tabulate import tabulate

from .. import plots
from ..errors import CheckpointError, ConfigError
from ..support.checkpoint import check_kinds, difference, plain
from ..support.files import read_json, written_whole
from ..support.identity import identity, other_data
from ..support.locks import alone_in, check_alone
from ..support.tables import mean_sd
from ..training import Recipe
from ..volumes import Volumes
from .code import code_of
from .probes import CHANGES
from .records import write_record
from .runs import choose_device, claim, remove_run, write_json, written

if TYPE_CHECKING:
    import torch

    from .tables import Row

FIGURES = ("acc", "balanced_acc", "auc")


def run_table(
    table: str,
    rows: list[Row],
    volumes: Volumes,
    *,
    seeds: int = 3,
    out: Path | str | None = None,
    device: str | torch.device = "auto",
) -> dict:
    """Trains every row with seeds 0 … seeds-1, unless that is done already, and writes the table.

    table: its name, for the record. volumes: the data set; its test split is read once at the end of each run.
    out: the folder, by default runs/ablate-TABLE-DATASET; a table that was begun there goes on. device: as in
    `train_run`. Returns what table.json holds. Raises ConfigError where the folder holds another table, data set or
    recipe, or another process writes to it, CheckpointError where a file in it cannot be read.
    """
    from tqdm.auto import tqdm

    out = Path(out or table_folder(table, volumes))
    claim(out, resume=True)
    with alone_in(out):
        claim_folder(out, table, rows, volumes)
        grid = [(number, row, seed) for seed in range(seeds) for number, row in enumerate(rows) if seed < row.seeds]
        runs, missing = [[] for _ in rows], []
        for number, row, seed in grid:
            path = out / run_name(number, row, seed)
            runs[number].append((path, row, seed))
            if not path.exists():
                missing.append((path, row, seed))
        bar = tqdm(missing, desc=f"{table}: {len(grid) - len(missing)} of {len(grid)} runs are done", unit="run")
        for path, row, seed in bar:
            bar.set_postfix_str(f"{row.name}, seed {seed}")
            check_alone(out)
            write_run(path, row, volumes, seed, choose_device(device))
        finished = [[read_finished(*run) for run in of_row] for of_row in runs]
        content = sum_up(table, rows, finished, seeds)
        check_alone(out)
        write_table(out, content)
        return content


def write_run(path: Path, row: Row, volumes: Volumes, seed: int, device: torch.device) -> None:
    """One run; the file is written whole when it is finished, then its checkpoints are removed."""
    folder = path.with_suffix("")
    code = code_of(row.train, row.recipe, volumes.name)  # as it is before the run
    metrics = row.train(volumes, row.recipe, out=folder, seed=seed, resume=True, device=device, figures=False)
    history = read_json(folder / "history.json")
    if "code" in metrics:  # of the run itself; the row may have done something before it
        metrics["code"] = code | metrics["code"]
    metrics = {"row": row.name, **metrics, "date": time.strftime("%Y-%m-%d"), "history": history}
    write_json(path, metrics)
    remove_run(folder)


def read_finished(path: Path, row: Row, seed: int) -> dict:
    """What the file of a finished run says. Raises CheckpointError where it is not whole, or of another run."""
    try:
        run = read_json(path)
        check_kinds(
            run,
            {
                "row": str,
                "seed": int,
                "val": dict,
                "test": dict,
                "seconds": (int, float),
                "device": str,
                "versions": dict,
                "date": str,
                "history": list,
                "dataset": str,
                "size": int,
            },
        )
        for split in ("val", "test"):
            check_kinds(run[split], dict.fromkeys(FIGURES, (int, float, NoneType)))
        check_kinds(run["history"][-1] if run["history"] else {}, {"loss": (int, float)})
        if (run["row"], run["seed"]) != (row.name, seed):
            raise CheckpointError(f"it holds the row {run['row']!r} with seed {run['seed']}")
        if "code" in run:
            check_kinds(run, {"code": dict})
        if "probes" in run:
            check_kinds(run["probes"], dict.fromkeys(CHANGES, (int, float, NoneType)))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): delete it, and the run is made again") from error
    return run


def claim_folder(out: Path, table: str, rows: list[Row], volumes: Volumes) -> None:
    """Notes in grid.json what the folder is for; refuses one that is for something else."""
    path = out / "grid.json"
    now = plain(
        {
            "table": table,
            "dataset": volumes.name,
            "clips": [len(volumes.train), *volumes.train.clips.shape[1:]],
            "data": identity(volumes),
            "rows": {row.name: asdict(row.recipe) for row in rows},
        }
    )
    if not os.path.lexists(path):
        ours = re.compile(r"table\.\w+|\d\d-.*-seed\d+\.json")
        if foreign := sorted(found.name for found in out.glob("*") if ours.fullmatch(found.name)):
            raise ConfigError(
                f"{out} holds {', '.join(foreign[:3])}, but no grid.json that says of which table: choose another "
                "folder with --out"
            )
        return write_json(path, now)
    try:
        before = read_json(path)
        check_kinds(before, {"table": str, "dataset": str, "clips": list, "rows": dict})
        before.setdefault("data", now["data"])  # tables did not say at first
        check_kinds(before["data"], dict.fromkeys(before["data"], str))
        # through Recipe, which gives fields that are newer than the file their defaults
        before["rows"] = {name: plain(asdict(Recipe.from_dict(recipe))) for name, recipe in before["rows"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): choose another folder with --out") from error
    if unknown := sorted(set(before) - set(now)):
        raise CheckpointError(
            f"{path} holds {', '.join(unknown)}, which this version does not know: a newer version began this table. "
            "Go on with that version, or choose another folder with --out"
        )
    if before != now:
        raise ConfigError(
            f"{out} holds another table: {what_differs(before, now)}. Ask for what was begun there, "
            "or choose another folder with --out"
        )


def what_differs(before: dict, now: dict) -> str:
    """The first difference between two grids, in words."""
    for key in ("table", "dataset", "clips"):
        if before[key] != now[key]:
            return f"its {key} is {before[key]}, asked for was {now[key]}"
    if differing := other_data(before["data"], now["data"]):
        return f"these are not its data: {differing}"
    theirs, ours = before["rows"], now["rows"]
    if list(theirs) != list(ours):
        return f"its rows are {', '.join(theirs)}; asked for were {', '.join(ours)}"
    name = next(name for name in ours if theirs[name] != ours[name])
    return f"in its row {name!r} {difference(theirs[name], ours[name])}"


def table_folder(table: str, volumes: Volumes) -> Path:
    """The same for the same table and data set, so that the command started again goes on."""
    return Path("runs") / f"ablate-{table}-{volumes.name}"


def run_name(number: int, row: Row, seed: int) -> str:
    """The file of a finished run, by its row's place in the table, its name and the seed."""
    slug = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
    return f"{number:02}-{slug}-seed{seed}.json"


# ---- the table


def sum_up(table: str, rows: list[Row], runs: list[list[dict]], seeds: int) -> dict:
    """The figures of each row's runs with mean and standard deviation, and what is needed to get them again."""
    everything = [run for of_row in runs for run in of_row]
    first, lengths = everything[0], sorted({row.recipe.epochs for row in rows})
    flags = f" --epochs {lengths[0]}" if len(lengths) == 1 else ""  # of different lengths only where none was asked for
    flags += " --bfloat16" if rows[0].recipe.bfloat16 else ""
    return {
        "table": table,
        "command": f"vivit-edu ablate {table} {first['dataset']} --seeds {seeds}{flags}",
        "dataset": first["dataset"],
        "size": first["size"],
        "epochs": lengths[0] if len(lengths) == 1 else " or ".join(map(str, lengths)),
        "seeds": list(range(seeds)),
        "device": "; ".join(sorted({run["device"] for run in everything})),
        "versions": first["versions"],
        "date": max(run["date"] for run in everything),
        **({"tested_on": rows[0].tested_on} if rows[0].tested_on else {}),
        "rows": [sum_up_row(row, of_row) for row, of_row in zip(rows, runs)],
    }


def sum_up_row(row: Row, runs: list[dict]) -> dict:
    """{"val": {"acc": {"mean", "sd", "runs"}, …}, "test": …, "history": {"loss": [of a run: [of an epoch]], …}} of one
    row; sd is None for a single run."""
    figures = {
        split: {name: spread([run[split][name] for run in runs]) for name in FIGURES} for split in ("val", "test")
    }
    if all("probes" in run for run in runs):
        figures["probes"] = {name: spread([run["probes"].get(name) for run in runs]) for name in runs[0]["probes"]}
    if "rates" in runs[0]:
        figures["rates"] = runs[0]["rates"]  # those of all seeds
    if "strengths" in runs[0]:
        figures["strengths"] = runs[0]["strengths"]  # likewise
    if "plateau" in runs[0]:
        figures["plateau"] = [run["plateau"] for run in runs]
    more = [key for key in ("val_loss", "processor_seconds") if key in runs[0]["history"][-1]]
    return {
        "row": row.name,
        "recipe": asdict(row.recipe),
        **figures,
        "code": [run.get("code") for run in runs],  # None where it is unknown
        "loss": spread([run["history"][-1]["loss"] for run in runs]),  # of training, in the last epoch
        "seconds": spread([run["seconds"] for run in runs]),
        "history": {key: [[row[key] for row in run["history"]] for run in runs] for key in ("loss", "val_acc", *more)},
    }


def spread(values: list[float | None]) -> dict:
    """Mean and sample standard deviation (n - 1 below the sum) of some figures; None where there is none.

    Returns {"mean", "sd", "runs": the values as given}. Missing figures (None) are left out of mean and sd.
    """
    there = [value for value in values if value is not None]
    mean = float(np.mean(there)) if there else None
    sd = float(np.std(there, ddof=1)) if len(there) > 1 else None
    return {"mean": mean, "sd": sd, "runs": values}


def write_table(out: Path, content: dict) -> None:
    """table.json, table.csv, table.md and table.png."""
    write_record(out / "table.json", content)
    with written(out / "table.md"), written_whole(out / "table.md") as file:
        file.write(as_markdown(content).encode("utf-8"))
    with written(out / "table.png"):
        plots.save(plots.ablation(content), out / "table.png")
    with written(out / "table.csv"), written_whole(out / "table.csv") as whole:
        file = io.TextIOWrapper(whole, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(file)
        columns = [(split, name, part) for split in ("val", "test") for name in FIGURES for part in ("mean", "sd")]
        writer.writerow(["row", "seeds", "epochs", *("_".join(column) for column in columns), "seconds"])
        for row in content["rows"]:
            cells = [row[split][name][part] for split, name, part in columns]
            writer.writerow(
                [row["row"], len(row["seconds"]["runs"]), row["recipe"]["epochs"], *cells, row["seconds"]["mean"]]
            )
        file.detach()  # the file itself is closed by its writer


def as_markdown(content: dict) -> str:
    """The table as Markdown, with where it comes from below it."""
    heads = [f"{split} {name}" for split in ("val", "test") for name in ("accuracy", "balanced", "AUC")]
    rows = []
    for row in content["rows"]:
        cells = [mean_sd(row[split][name]) for split in ("val", "test") for name in FIGURES]
        made = len(row["seconds"]["runs"])
        name = row["row"] if made == len(content["seeds"]) else f"{row['row']} (seeds: {made})"
        rows.append([name, *cells, f"{row['seconds']['mean']:.0f}"])
    table = tabulate(rows, headers=[content["table"], *heads, "seconds"], tablefmt="github", disable_numparse=True)
    packages = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines = [
        table,
        "",
        f"`{content['command']}`: {content['dataset']} ({content['size']}³), {content['epochs']} epochs, "
        f"seeds {', '.join(map(str, content['seeds']))}, mean ± standard deviation; {content['device']}; {packages}; "
        f"{content['date']}.",
        *([f"Test stands for {content['tested_on']}."] if "tested_on" in content else []),
        "",
    ]
    return "\n".join(lines)
