"""How faithful is each map? All methods on all four models, trained alike on the phantom: chapter 13's table.

    python -m vivit_edu.experiments.bench.maps notebooks/results/faithfulness_organphantom3d.json

trains the four models with three seeds each, scores their maps on validation clips, and writes what it found with its
provenance.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ...cost import PAPER
from ...data import load_volumes
from ...explain.faithfulness import RANDOM, all_maps, faithfulness, organ_scores
from ...training import Recipe, build_seeded, evaluate, fit
from ...volumes import Split, Volumes
from ..ablate import spread
from ..runs import describe_device, versions, write_json

EPOCHS, PER_CLASS, SEEDS = 15, 3, (0, 1, 2)


def make_table(
    volumes: Volumes,
    *,
    models: tuple[str, ...] = tuple(PAPER),
    epochs: int = EPOCHS,
    per_class: int = PER_CLASS,
    seeds: tuple[int, ...] = SEEDS,
    device: str = "cpu",
    **changes: Any,
) -> dict:
    """Every method's scores on `per_class` validation clips per class, for each model: a dict ready for JSON.

    changes: of the preset "quick". Classes are those that the trained model predicts. Each score is
    the mean over the clips; its mean and standard deviation here are over the seeds, each with a training of its own.
    """
    device, start = torch.device(device), time.perf_counter()
    split = volumes.val.subset(first_of_each(volumes.val.labels, per_class))
    results = {}
    for name in models:
        recipe = Recipe.preset("quick", model=name, epochs=epochs, **changes)
        runs = [score_maps(recipe, volumes, split, seed, device) for seed in seeds]
        results[name] = {
            "val": {figure: spread([val[figure] for val, _ in runs]) for figure in runs[0][0]},
            "methods": {
                method: {score: spread([scores[method][score] for _, scores in runs]) for score in found}
                for method, found in runs[0][1].items()
            },
        }
    return {
        "dataset": volumes.name,
        "split": "val",
        "clips": len(split),
        "seeds": list(seeds),
        "epochs": epochs,
        "recipe": asdict(Recipe.preset("quick", epochs=epochs, **changes)),
        "results": results,
        "seconds": round(time.perf_counter() - start),
        "device": describe_device(device),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }


def score_maps(
    recipe: Recipe, volumes: Volumes, split: Split, seed: int, device: torch.device
) -> tuple[dict, dict[str, dict[str, float]]]:
    """Trains one model; its validation metrics, and {method: {score: mean over the clips of `split`}}."""
    clips = split.clips.to(device).float() / 255
    model = build_seeded(recipe, volumes, seed).to(device)
    fit(model, volumes, recipe, seed=seed)
    maps = all_maps(model, clips, seed=seed + 1)
    scores = faithfulness(model, clips, maps, random_orders=3, seed=seed)
    chance = torch.rand(len(clips), *model.grid, generator=torch.Generator().manual_seed(seed))
    organ = {method: organ_scores(model, m, split.masks) for method, m in (maps | {RANDOM: chance.to(device)}).items()}
    return asdict(evaluate(model, volumes.val)), {
        method: as_numbers(found, organ[method]) for method, found in scores.items()
    }


def as_numbers(found: Any, organ: dict) -> dict[str, float]:
    """{score: mean} of a method. found: its `Faithfulness`; organ: its scores against the masks."""
    scores = {"deletion": found.deletion, "insertion": found.insertion, "gain": found.gain, **organ}
    return {name: round(score.mean, 4) for name, score in scores.items()}


def first_of_each(labels: torch.Tensor, number: int) -> list[int]:
    """The indices of the first `number` clips of each class, in order."""
    return sorted(i for k in labels.unique() for i in (labels == k).nonzero().flatten()[:number].tolist())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    command = f"python -m vivit_edu.experiments.bench.maps {path}"
    write_json(path, {"command": command} | make_table(load_volumes("organphantom3d"), bfloat16=True))
