"""How faithful is each map? All methods on all four models, trained alike on the phantom: chapter 13's table.

    python -m vivit_edu.bench_maps notebooks/results/faithfulness_organphantom3d.json

trains the four models, scores their maps on validation clips, and writes what it found with its provenance.
"""

import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from .cost import PAPER
from .data import load_volumes
from .faithful import RANDOM, all_maps, faithfulness, organ_scores
from .runs import build_seeded, describe_device, versions, write_json
from .training import Recipe, evaluate, fit

EPOCHS, PER_CLASS = 15, 3


def make_table(volumes, *, models=tuple(PAPER), epochs=EPOCHS, per_class=PER_CLASS, seed=0, device="cpu", **changes):
    """Every method's scores on `per_class` validation clips a class, for each model: a dict ready for JSON.

    changes: of the preset "quick". Classes are those that the trained model predicts.
    """
    device, start = torch.device(device), time.perf_counter()
    split = volumes.val.subset(first_of_each(volumes.val.labels, per_class))
    clips = split.clips.to(device).float() / 255
    results = {}
    for name in models:
        recipe = Recipe.preset("quick", model=name, epochs=epochs, **changes)
        model = build_seeded(recipe, volumes, seed).to(device)
        fit(model, volumes, recipe, seed=seed)
        maps = all_maps(model, clips, seed=seed + 1)
        scores = faithfulness(model, clips, maps, random_orders=3, seed=seed)
        chance = torch.rand(len(clips), *model.grid, generator=torch.Generator().manual_seed(seed))
        organ = {method: organ_scores(model, m, split.masks) for method, m in (maps | {RANDOM: chance.to(device)}).items()}
        results[name] = {
            "val": asdict(evaluate(model, volumes.val)),
            "methods": {method: as_numbers(found, organ[method]) for method, found in scores.items()},
        }
    return {
        "dataset": volumes.name, "split": "val", "clips": len(split), "seeds": [seed], "epochs": epochs,
        "recipe": asdict(Recipe.preset("quick", epochs=epochs, **changes)), "results": results,
        "seconds": round(time.perf_counter() - start), "device": describe_device(device), "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip


def as_numbers(found, organ):
    """{score: [mean, low, high]} of a method."""
    scores = {"deletion": found.deletion, "insertion": found.insertion, "gain": found.gain, **organ}
    return {name: [round(x, 4) for x in (score.mean, score.low, score.high)] for name, score in scores.items()}


def first_of_each(labels, number):
    """The indices of the first `number` clips of each class, in order."""
    return sorted(i for k in labels.unique() for i in (labels == k).nonzero().flatten()[:number].tolist())


if __name__ == "__main__":
    path = Path(sys.argv[1])
    command = f"python -m vivit_edu.bench_maps {path}"
    write_json(path, {"command": command} | make_table(load_volumes("organphantom3d"), bfloat16=True))
