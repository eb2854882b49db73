"""Ablations: a table of recipes, each trained with several seeds, resumably, and summed up.

    OUT/grid.json                what is run: table, data set, every row's recipe
    OUT/02-random-augment-seed1.json   one finished run: its figures, history, machine, versions
    OUT/02-random-augment-seed1/       one unfinished run: its checkpoint, gone when it is finished
    OUT/table.{json,csv,md,png}  mean ± sd of what is finished

Started again, the same command does only what is missing. A new table is a function in TABLES.
"""

import csv
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import numpy as np
import torch

from . import plots
from .augment import Augmentation
from .checkpoint import check_kinds, difference, plain
from .cost import PAPER
from .errors import CheckpointError, ConfigError
from .models import MODELS, is_vivit
from .probes import probe
from .runs import choose_device, load_model, start_folder, train_run, write_json
from .training import GENTLE, Recipe

EPOCHS = 20  # of a row, unless asked otherwise: few, for a table is many runs
FIGURES = ("acc", "balanced_acc", "auc")
SHARES = ((5, 4), (10, 4), (25, 3), (50, 2), (100, 1))  # % of the training patients, and how many times the epochs


@dataclass(frozen=True)
class Row:
    """One row of a table: what it is called, its recipe, and how one run of it is made.

    seeds: at most so many of the table's, for rows that only lead up to the one that counts.
    train: called as `runs.train_run` is, and returns what it returns. A row that needs other volumes or first
    weights wraps it: def train(volumes, recipe, *, out, **rest): return train_run(changed, recipe, out=out,
    **rest). What such a row makes once for all its runs goes to the folder `out.parent`.
    """

    name: str
    recipe: Recipe
    train: Callable = train_run
    seeds: float = inf


# ---- the tables

def regularisation():
    """Cumulative, in the order of the paper's table on EPIC-Kitchens; each row keeps all above it.

    The paper's strengths (drop .2, RandAugment 2 layers at 15, smoothing .2, mixup .1) are for 30 epochs and more
    of a model a hundred times as large; these were chosen on validation for short runs of a small one.
    """
    steps = {
        "nothing": {},
        "+ shift, gain, mirror with swap": {"shift": 0.1, "gain": 0.2, "mirror": True},
        "+ stochastic depth": {"drop_path": 0.1},
        "+ random augment": {"rand_layers": 2, "rand_magnitude": 5},
        "+ label smoothing": {"smoothing": 0.1},
        "+ mixup": {"mixup": 0.1},
    }
    recipe, rows = base(augmentation=Augmentation()), []
    for name, step in steps.items():
        if "drop_path" in step:
            recipe = replace(recipe, options=recipe.options | step)
        else:
            recipe = replace(recipe, augmentation=replace(recipe.augmentation, **step))
        rows.append(Row(name, recipe))
    return rows


def models():
    """Models 1 to 4 of the paper, all else alike."""
    return [Row(name, base(model=name)) for name in PAPER]


def all_models():
    """Every model of the course, ViViTs and CNNs, each with its own defaults, all else alike; and what each goes by."""
    return [Row(name, base(model=name), train_and_probe) for name in MODELS]


def tubelets():
    """Model 1 with tubelets from long to short in time, then a finer grid in all three directions."""
    shapes = ((28, 7, 7), (14, 7, 7), (7, 7, 7), (4, 7, 7), (2, 7, 7), (4, 4, 4))
    return [Row("×".join(map(str, shape)), base(tubelet=shape)) for shape in shapes]


def temporal_depths():
    """Layers of Model 2's temporal encoder; 0 averages over time (the paper: 75.8, 78.6, 78.8, 78.8, 78.9)."""
    return [Row(f"{depth} layers", base(model="factorised_encoder", temporal_depth=depth)) for depth in (0, 1, 4, 8)]


def initialisations():
    """Model 1 from an image transformer of slices: the paper's ways of embedding tubelets, and nothing pretrained."""
    frames = base(tokenizer="frames")
    return [
        Row("nothing pretrained", base()),
        Row("tubelets, random", replace(base(), inflate="random"), train_from_slices),
        Row("tubelets, filter inflation", replace(base(), inflate="average"), train_from_slices),
        Row("tubelets, central frame", base(), train_from_slices),
        Row("uniform frame sampling", frames, train_from_slices),
    ]


def data_shares():
    """How much data it takes, from random weights and from slices: 5 to 100 % of the training patients.

    The smaller the share, the more epochs, up to four times the table's, for an epoch has fewer steps. The slices
    are of the same patients, so that a row sees no others.
    """
    rows = []
    for percent, longer in SHARES:
        for start, train in (("random", train_run), ("slices", train_from_slices)):
            on_share = partial(train_on_share, percent=percent, longer=longer, train=train)
            rows.append(Row(f"{percent} %, {start}", base(), on_share))
    return rows


def recipes():
    """From Keras' example of a ViViT to the preset `quick`, in steps; each row keeps what it does not name.

    The first is the example's model and rate (8³ tubelets, the rest of the volume cut off, no augmentation).
    """
    keras = {"tubelet": (8, 8, 8), "remainder": "crop", "depth": 8, "heads": 8}
    quick = Recipe.preset("quick")
    start = base(epochs=quick.epochs)
    return [
        Row("Keras' example", replace(start, options=keras, lr=1e-4, weight_decay=0.0, augmentation=Augmentation()), seeds=3),
        Row("7³ tubelets, lr 5e-4", replace(start, augmentation=Augmentation()), seeds=3),
        Row("+ mirror, shift, gain", start, seeds=3),
        Row("+ Muon, averaged weights: the recipe", quick),
    ]


def hunger():
    """Two ViViTs and two CNNs on 5 to 100 % of the training patients, the epochs as in `data_shares`."""
    rows = []
    for percent, longer in SHARES:
        for name in ("spacetime", "factorised_encoder", "early_fusion", "cnn3d"):
            on_share = partial(train_on_share, percent=percent, longer=longer, train=train_run)
            rows.append(Row(f"{percent} %, {name}", base(model=name), on_share))
    return rows


TABLES = {
    "regularisation": regularisation, "model": models, "all-models": all_models, "tubelet": tubelets,
    "temporal-depth": temporal_depths,
    "init": initialisations, "data": data_shares, "recipe": recipes, "hunger": hunger,
}  # fmt: skip


def train_and_probe(volumes, recipe, *, out, device="auto", **rest):
    """`train_run`, and under "probes" what the trained model answers to a changed test split (`probes.probe`)."""
    metrics = train_run(volumes, recipe, out=out, device=device, **rest)
    model = load_model(out, volumes, device=device)
    return metrics | {"probes": probe(model, volumes, bfloat16=recipe.bfloat16)}


def train_from_slices(volumes, recipe, *, out, seed, device="auto", **rest):
    """`train_run` from an image transformer of this seed, pretrained once for all rows on the same volumes."""
    from .pretrain import pretrain_to

    weights = Path(out).parent / f"slices-of-{len(volumes.train)}-seed{seed}.safetensors"
    if not weights.exists():
        pretrain_to(weights, volumes, recipe, seed=seed, device=choose_device(device))
    recipe = replace(recipe, pretrained=str(weights))
    return train_run(volumes, recipe, out=out, seed=seed, device=device, **rest)


def train_on_share(volumes, recipe, *, percent, train, seed, longer=1, **rest):
    """`train`, `longer` times the epochs, on a share of the training patients, drawn by the seed; of the volumes
    where patients are unknown."""
    owners = volumes.train.patients
    owners = torch.arange(len(volumes.train)) if owners is None else owners
    everyone = owners.unique()
    order = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))
    chosen = everyone[order[: max(1, round(percent * len(everyone) / 100))]]
    share = volumes.train.subset(torch.isin(owners, chosen))
    longer_recipe = replace(recipe, epochs=longer * recipe.epochs)
    return train(replace(volumes, train=share), longer_recipe, seed=seed, **rest)


def base(*, model="spacetime", augmentation=GENTLE, epochs=EPOCHS, **options):
    """What the tables start from: four layers, AdamW, gentle augmentation, with another model or options of it.

    Not a preset, which may get better: a table says what a step gives *here*, and its recorded runs stay true.
    """
    options = {"depth": 4} | options if is_vivit(model) else options
    return Recipe(model=model, options=options, augmentation=augmentation, epochs=epochs)


def make_rows(table, epochs=None, bfloat16=False):
    """The rows of a table by name, with this number of epochs; bfloat16 as in `Recipe`."""
    if table not in TABLES:
        raise ConfigError(f"no table is called {table!r}; the tables are {', '.join(TABLES)}")
    changes = {"bfloat16": bfloat16} | ({"epochs": epochs} if epochs is not None else {})
    return [replace(row, recipe=replace(row.recipe, **changes)) for row in TABLES[table]()]


# ---- the runs

def run_table(table, rows, volumes, *, seeds=3, out=None, device="auto"):
    """Trains every row with seeds 0 … seeds-1, as far as that is not done yet, and writes the table.

    Args:
        table: its name, for the record.
        rows: a list of `Row`.
        volumes: the data set; its test split is read once at the end of each run.
        out: the folder, by default runs/ablate-TABLE-DATASET; a table that was begun there goes on.
        device: as in `train_run`.

    Returns: what stands in table.json.
    Raises: ConfigError where the folder holds another table, data set or recipe.
    """
    from tqdm.auto import tqdm

    out = Path(out or default_folder(table, volumes))
    start_folder(out, resume=True)
    claim_folder(out, table, rows, volumes)
    grid = [(number, row, seed) for seed in range(seeds) for number, row in enumerate(rows) if seed < row.seeds]
    runs, missing = [], []
    for number, row, seed in grid:
        path = out / run_name(number, row, seed)
        runs.append(path)
        if not path.exists():
            missing.append((path, row, seed))
    bar = tqdm(missing, desc=f"{table}: {len(grid) - len(missing)} of {len(grid)} runs are done", unit="run")
    for path, row, seed in bar:
        bar.set_postfix_str(f"{row.name}, seed {seed}")
        write_run(path, row, volumes, seed, choose_device(device))
    content = sum_up(table, rows, [read_run(path) for path in runs], seeds)
    write_table(out, content)
    return content


def write_run(path, row, volumes, seed, device):
    """One run; the file is written whole when it is finished, then its checkpoints are removed."""
    folder = path.with_suffix("")
    metrics = row.train(volumes, row.recipe, out=folder, seed=seed, resume=True, device=device, figures=False)
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    metrics = {"row": row.name, **metrics, "date": time.strftime("%Y-%m-%d"), "history": history}
    write_json(path, metrics)
    shutil.rmtree(folder)


def read_run(path):
    """What a finished run's file says; CheckpointError where it cannot be read."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        check_kinds(run, {"row": str, "seed": int, "val": dict, "test": dict, "seconds": (int, float), "device": str,
                          "versions": dict, "date": str, "history": list})  # fmt: skip
        for split in ("val", "test"):
            check_kinds(run[split], dict.fromkeys(FIGURES, (int, float)))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): delete it, and the run is made again") from error
    return run


def claim_folder(out, table, rows, volumes):
    """Notes in grid.json what the folder is for; refuses one that is for something else."""
    path = out / "grid.json"
    now = plain({
        "table": table, "dataset": volumes.name, "clips": [len(volumes.train), *volumes.train.clips.shape[1:]],
        "rows": {row.name: asdict(row.recipe) for row in rows},
    })  # fmt: skip
    if not path.exists():
        return write_json(path, now)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        # through Recipe, which gives fields that are newer than the file their defaults
        before["rows"] = {name: plain(asdict(Recipe.from_dict(recipe))) for name, recipe in before["rows"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): choose another folder with --out") from error
    if before != now:
        raise ConfigError(f"{out} holds another table: {what_differs(before, now)}. Ask for what was begun there, "
                          "or choose another folder with --out")


def what_differs(before, now):
    """The first difference between two grids, in words."""
    for key in ("table", "dataset", "clips"):
        if before.get(key) != now[key]:
            return f"its {key} is {before.get(key)}, asked for was {now[key]}"
    theirs, ours = before.get("rows", {}), now["rows"]
    if list(theirs) != list(ours):
        return f"its rows are {', '.join(theirs)}; asked for were {', '.join(ours)}"
    name = next(name for name in ours if theirs[name] != ours[name])
    return f"in its row {name!r} {difference(theirs[name], ours[name])}"


def default_folder(table, volumes):
    """The same for the same table and data set, so that the command started again goes on."""
    return Path("runs") / f"ablate-{table}-{volumes.name}"


def run_name(number, row, seed):
    slug = re.sub(r"[^a-z0-9]+", "-", row.name.lower()).strip("-")
    return f"{number:02}-{slug}-seed{seed}.json"


# ---- the table

def sum_up(table, rows, runs, seeds):
    """The figures of all runs with mean and standard deviation a row, and what is needed to get them again."""
    first, epochs = runs[0], rows[0].recipe.epochs
    flag = " --bfloat16" if rows[0].recipe.bfloat16 else ""
    return {
        "table": table,
        "command": f"vivit-edu ablate {table} {first['dataset']} --seeds {seeds} --epochs {epochs}{flag}",
        "dataset": first["dataset"],
        "size": first["size"],
        "epochs": epochs,
        "seeds": list(range(seeds)),
        "device": "; ".join(sorted({run["device"] for run in runs})),
        "versions": first["versions"],
        "date": max(run["date"] for run in runs),
        "rows": [sum_up_row(row, [run for run in runs if run["row"] == row.name]) for row in rows],
    }


def sum_up_row(row, runs):
    """{"val": {"acc": {"mean", "sd", "runs"}, …}, "test": …} of one row; sd is None for a single run."""
    figures = {split: {name: spread([run[split][name] for run in runs]) for name in FIGURES} for split in ("val", "test")}
    if all("probes" in run for run in runs):
        figures["probes"] = {name: spread([run["probes"][name] for run in runs]) for name in runs[0]["probes"]}
    return {
        "row": row.name,
        "recipe": asdict(row.recipe),
        **figures,
        "loss": spread([run["history"][-1]["loss"] for run in runs]),  # of training, in the last epoch
        "seconds": spread([run["seconds"] for run in runs]),
    }


def spread(values):
    """Mean and sample standard deviation (n - 1 below the sum) of some figures."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "runs": values}


def write_table(out, content):
    """table.json, table.csv, table.md and table.png."""
    write_json(out / "table.json", content)
    (out / "table.md").write_text(as_markdown(content), encoding="utf-8")
    plots.save(plots.ablation(content), out / "table.png")
    with open(out / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [(split, name, part) for split in ("val", "test") for name in FIGURES for part in ("mean", "sd")]
        writer.writerow(["row", "seeds", "epochs", *("_".join(column) for column in columns), "seconds"])
        for row in content["rows"]:
            cells = [row[split][name][part] for split, name, part in columns]
            writer.writerow([row["row"], len(row["seconds"]["runs"]), content["epochs"], *cells, row["seconds"]["mean"]])


def as_markdown(content):
    """The table as Markdown, with where it comes from below it."""
    heads = [f"{split} {name}" for split in ("val", "test") for name in ("accuracy", "balanced", "AUC")]
    lines = [f"| {content['table']} | {' | '.join(heads)} | seconds |", "|---" * (len(heads) + 2) + "|"]
    for row in content["rows"]:
        cells = [mean_sd(row[split][name]) for split in ("val", "test") for name in FIGURES]
        made = len(row["seconds"]["runs"])
        name = row["row"] if made == len(content["seeds"]) else f"{row['row']} (seeds: {made})"
        lines.append(f"| {name} | {' | '.join(cells)} | {row['seconds']['mean']:.0f} |")
    packages = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    lines += ["", f"`{content['command']}`: {content['dataset']} ({content['size']}³), {content['epochs']} epochs, "
              f"seeds {', '.join(map(str, content['seeds']))}, mean ± standard deviation; {content['device']}; {packages}; "
              f"{content['date']}.", ""]
    return "\n".join(lines)


def mean_sd(figure):
    """".834 ± .015", or the mean alone of a single run."""
    shown = [f"{value:.3f}".removeprefix("0") for value in (figure["mean"], figure["sd"]) if value is not None]
    return " ± ".join(shown)
