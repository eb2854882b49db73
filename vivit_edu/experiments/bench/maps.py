"""How faithful is each map? All methods on trained models of several seeds, with controls: chapter 13's table.

    python -m vivit_edu.experiments.bench.maps notebooks/results/faithfulness_organphantom3d.json

scores the maps of the recorded Models 1 to 4 (`vivit-edu record NAME --seed N` trains them) on validation clips, for
all the seeds that are there, and writes what it found with its provenance. Each model's scores are kept in
runs/faithfulness, so that the command, started again, goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...cost import PAPER
from ...data import load_volumes
from ...errors import CheckpointError, ConfigError
from ...explain.faithfulness import (
    CONTRAST,
    METHODS,
    RANDOM,
    all_maps,
    contrast_map,
    estimate,
    faithfulness,
    organ_scores,
)
from ...support.places import checkout
from ...volumes import Split, Volumes
from ..ablate import spread
from ..code import code_of_functions
from ..records import write_record
from ..runs import describe_device, versions, write_json
from ..trained import load_trained, weights_path

PER_CLASS, SEEDS, RANDOM_ORDERS, PART = 3, (0, 1, 2), 3, 8
OF_CLIPS = ("deletion", "insertion", "gain")  # scores that are kept clip by clip
OF_ORGAN = ("share", "pointing", "iou")


def make_table(runs: dict[str, list[dict]], volumes: Volumes, device: str | torch.device = "cpu") -> dict:
    """Sums up the scores of several models and seeds: a dict ready for JSON.

    runs: {model: what `score_maps` returned, of each seed}; all of the same clips. Every figure is given as mean and
    standard deviation over the seeds, those of clips also with the 95 % interval of a bootstrap over the clips, each
    clip's figure being its mean over the seeds. "gain_over" compares a map with its controls clip by clip.
    """
    first = next(iter(runs.values()))[0]
    patients = volumes.val.patients
    return {
        "dataset": volumes.name,
        "split": "val",
        "clips": len(first["clips"]),
        "patients": None if patients is None else len(patients[first["clips"]].unique()),
        "seeds": {name: [run["seed"] for run in of_model] for name, of_model in runs.items()},
        "random_orders": RANDOM_ORDERS,
        "results": {name: sum_up_seeds(of_model) for name, of_model in runs.items()},
        "device": describe_device(torch.device(device)),
        "versions": versions(),
        "code": code_of_functions(score_maps, make_table),
        "date": time.strftime("%Y-%m-%d"),
    }


def sum_up_seeds(runs: list[dict]) -> dict:
    """One model's figures over its seeds: {"val", "test", "passes", "seconds", "methods"}."""
    methods = {}
    for method in runs[0]["methods"]:
        found = [run["methods"][method] for run in runs]
        scores = {}
        for score in OF_CLIPS:
            values = torch.tensor([one[score] for one in found])  # [seeds, clips]
            interval = estimate(values.mean(dim=0))
            scores[score] = four_digits(spread(values.mean(dim=1).tolist()))
            scores[score] |= {"low": round(interval.low, 4), "high": round(interval.high, 4)}
        scores |= {score: four_digits(spread([one[score] for one in found])) for score in OF_ORGAN if score in found[0]}
        for curve in ("deletion_curve", "insertion_curve"):
            scores[curve] = [round(x, 4) for x in torch.tensor([one[curve] for one in found]).mean(dim=0).tolist()]
        controls = [name for name in (f"{method}, random weights", CONTRAST) if method in METHODS]
        scores |= {"gain_over": {control: gain_over(runs, method, control) for control in controls}} if controls else {}
        methods[method] = scores
    figures = {
        split: {key: spread([run[split][key] for run in runs]) for key in runs[0][split]} for split in ("val", "test")
    }
    return {
        **figures,
        "commands": [run["command"] for run in runs],
        "weights": [run["sha256"] for run in runs],
        "seconds": {name: round(statistics.median(run["seconds"][name] for run in runs), 4) for name in METHODS},
        "methods": methods,
    }


def gain_over(runs: list[dict], method: str, control: str) -> dict:
    """How much more a method gains than a control on the same clips: {"mean", "low", "high"}, the 95 % interval of a
    bootstrap over the clips, each clip's difference being its mean over the seeds."""
    gains = torch.tensor(
        [[run["methods"][name]["gain"] for name in (method, control)] for run in runs]
    )  # [seeds, 2, B]
    found = estimate((gains[:, 0] - gains[:, 1]).mean(dim=0))
    return {key: round(value, 4) for key, value in (("mean", found.mean), ("low", found.low), ("high", found.high))}


def four_digits(figures: dict) -> dict:
    """What `spread` returned, with four digits."""

    def short(value):
        return None if value is None else round(value, 4)

    return {key: [*map(short, value)] if key == "runs" else short(value) for key, value in figures.items()}


def score_maps(model: nn.Module, split: Split, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The scores of every method on these clips, and of its controls: {method: {score: …}}.

    Deletion, insertion and gain are lists over the clips, the figures on the organ means over them, and left out where
    there are no masks. Classes are those that the model predicts. seed: of random orders and random weights.
    """
    clips = split.clips.to(next(model.parameters()).device).float() / 255
    parts = [all_maps(model, part, seed=seed + 1, progress=False) for part in clips.split(PART)]  # memory: N×N weights
    maps = {name: torch.cat([part[name] for part in parts]) for name in parts[0]} | {
        CONTRAST: contrast_map(model, clips)
    }
    found = faithfulness(model, clips, maps, random_orders=RANDOM_ORDERS, seed=seed, progress=False)
    chance = torch.rand(len(clips), *model.grid, generator=torch.Generator().manual_seed(seed)).to(clips.device)
    areas = {name: one.areas() for name, one in found.items()}
    even = areas[RANDOM][1] - areas[RANDOM][0]  # [B]
    scores = {}
    for name, (deletion, insertion) in areas.items():
        scores[name] = {
            "deletion": digits(deletion),
            "insertion": digits(insertion),
            "gain": digits(insertion - deletion - even),
            "deletion_curve": digits(found[name].deletion_curves.mean(dim=0)),
            "insertion_curve": digits(found[name].insertion_curves.mean(dim=0)),
        }
        if split.masks is not None:
            on_organ = organ_scores(model, (maps | {RANDOM: chance})[name], split.masks)
            scores[name] |= {score: round(one.mean, 4) for score, one in on_organ.items()}
    return scores


def digits(values: torch.Tensor) -> list[float]:
    """A tensor's numbers with five digits behind the point."""
    return [round(x, 5) for x in values.double().tolist()]


def seconds_per_map(
    model: nn.Module, clip: torch.Tensor, methods: dict[str, Callable] = METHODS, repeats: int = 3
) -> dict[str, float]:
    """How long each method takes for one clip [1, C, T, H, W], the median of a few runs."""
    found = {}
    for name, method in methods.items():
        options = {"progress": False} if name == "occlusion" else {}
        spent = []
        for _ in range(repeats + 1):  # the first is not counted
            start = time.perf_counter()
            method(model, clip, **options)
            spent.append(time.perf_counter() - start)
        found[name] = statistics.median(spent[1:])
    return found


def first_of_each(labels: torch.Tensor, number: int) -> list[int]:
    """The indices of the first `number` clips of each class, in order."""
    return sorted(i for k in labels.unique() for i in (labels == k).nonzero().flatten()[:number].tolist())


def score_recorded(name: str, seed: int, volumes: Volumes, clips: list[int], folder: Path, device: str) -> dict:
    """The scores of a recorded model, which are kept in `folder`: of the same weights and clips they are read again."""
    model, facts = load_trained(weights_path(name, seed))
    if facts["dataset"] != volumes.name:
        raise ConfigError(f"{name} was trained on {facts['dataset']}: its maps of {volumes.name} would tell nothing")
    kept = folder / f"{name}-seed{seed}.json"
    same = {"sha256": facts["sha256"], "clips": clips}
    if kept.is_file() and same.items() <= (run := json.loads(kept.read_text(encoding="utf-8"))).items():
        return run
    start, split = time.perf_counter(), volumes.val.subset(clips)
    model = model.to(device)
    run = same | {
        "seed": seed,
        "command": facts["command"],
        "val": facts["val"],
        "test": facts["test"],
        "seconds": seconds_per_map(model, split.clips[:1].to(device).float() / 255),
        "methods": score_maps(model, split, seed=seed),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(kept, run)
    gains = ", ".join(f"{m} {sum(run['methods'][m]['gain']) / len(clips):.3f}" for m in METHODS)
    print(f"{name}, seed {seed} ({time.perf_counter() - start:.0f} s): gain of {gains}", flush=True)
    return run


def score_and_write(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vivit_edu.experiments.bench.maps", description=__doc__)
    parser.add_argument("path", type=Path, help="the JSON file to write")
    parser.add_argument("--models", nargs="+", default=list(PAPER), help="names of recorded models (default: all four)")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="those not recorded are left out")
    parser.add_argument("--per-class", type=int, default=PER_CLASS, help=f"clips of each class (default: {PER_CLASS})")
    parser.add_argument("--dataset", default="organphantom3d", help="that the models were trained on")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    volumes = load_volumes(options.dataset)
    clips = first_of_each(volumes.val.labels, options.per_class)
    folder = checkout() / "runs" / "faithfulness"
    there = {name: [seed for seed in options.seeds if weights_path(name, seed).is_file()] for name in options.models}
    if missing := [name for name, seeds in there.items() if not seeds]:
        raise CheckpointError(f"no weights of {', '.join(missing)} are recorded: run `vivit-edu record {missing[0]}`")
    runs = {
        name: [score_recorded(name, seed, volumes, clips, folder, options.device) for seed in seeds]
        for name, seeds in there.items()
    }
    table = make_table(runs, volumes, options.device)
    flags = [] if options.per_class == PER_CLASS else ["--per-class", str(options.per_class)]
    flags += [] if options.models == list(PAPER) else ["--models", *options.models]
    flags += [] if tuple(options.seeds) == SEEDS else ["--seeds", *map(str, options.seeds)]
    flags += [] if options.dataset == "organphantom3d" else ["--dataset", options.dataset]
    command = " ".join(["python -m vivit_edu.experiments.bench.maps", options.path.as_posix(), *flags])
    write_record(options.path, {"command": command} | table)


if __name__ == "__main__":  # from the module by its name, which the record's code is told by
    from vivit_edu.experiments.bench import maps

    maps.score_and_write()
