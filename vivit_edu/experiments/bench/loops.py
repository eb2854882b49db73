"""A plain training loop against the course's, at several learning rates: the first question of chapter 12.

    python -m vivit_edu.experiments.bench.loops notebooks/results/loops_movingshapes.json

trains the small network of the chapter's first page with both loops, three seeds at each rate, and writes the losses.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ...datasets.shapes import generate_shapes
from ...training import Recipe, augmented_batches, build_seeded, fit, predict_logits
from ...volumes import Volumes
from ..ablate import spread
from ..code import code_of_functions
from ..records import write_record
from ..runs import describe_device, versions

RATES, SEEDS = (0.001, 0.003, 0.01), (0, 1, 2)
STUCK_SIZES = {"tubelet": (2, 7, 7), "dim": 64, "depth": 6, "heads": 4, "mlp_dim": 128}
TOY = Recipe(options=STUCK_SIZES, epochs=6, lr=0.01, warmup=0.2, ema=0.9)


def plain_loop(model: torch.nn.Module, volumes: Volumes, recipe: Recipe, seed: int) -> list[float]:
    """The loop that chapter 12 starts from: AdamW at one rate, and nothing else.

    Returns the mean loss of each epoch.
    """
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=recipe.lr), []
    for epoch in range(recipe.epochs):
        steps = []
        for clips, targets in augmented_batches(volumes.train, volumes, recipe, seed=seed, epoch=epoch):
            loss = F.cross_entropy(model(clips), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps.append(loss.item())
        losses.append(sum(steps) / len(steps))
    return losses


def course_loop(model: torch.nn.Module, volumes: Volumes, recipe: Recipe, seed: int) -> list[float]:
    """The course's `fit`, with warm-up, decay, clipping and averaged weights. Returns the mean loss of each epoch."""
    return fit(model, volumes, recipe, seed=seed, progress=False)["loss"]


LOOPS = {"the plain loop": plain_loop, "the loop of this chapter": course_loop}


def compare_loops(
    volumes: Volumes, recipe: Recipe, rates: Sequence[float], seeds: Sequence[int], loops: dict[str, Callable] = LOOPS
) -> list[dict]:
    """Each loop at each rate: [{"loop", "lr", "loss": of training in the last epoch, "val_loss": spreads over the
    seeds}, …]. Both loops begin with the same weights and see the same batches."""
    rows = []
    for name, loop in loops.items():
        for rate in rates:
            ends = []
            for seed in seeds:
                model = build_seeded(recipe, volumes, seed)
                losses = loop(model, volumes, replace(recipe, lr=rate), seed)
                logits = predict_logits(model, volumes.val)
                ends.append((losses[-1], F.cross_entropy(logits, volumes.val.labels).item()))
            train, val = (spread([round(value, 4) for value in values]) for values in zip(*ends))
            rows.append({"loop": name, "lr": rate, "loss": train, "val_loss": val})
    return rows


def compare_and_write(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m vivit_edu.experiments.bench.loops", description=__doc__)
    parser.add_argument("path", type=Path, help="the JSON file to write")
    path = parser.parse_args(arguments).path
    rows = compare_loops(generate_shapes(14), TOY, RATES, SEEDS)
    content = {
        "command": f"python -m vivit_edu.experiments.bench.loops notebooks/results/{path.name}",
        "dataset": "movingshapes",
        "size": 14,
        "epochs": TOY.epochs,
        "seeds": list(SEEDS),
        "recipe": asdict(TOY),
        "rows": rows,
        "device": describe_device(torch.device("cpu")),
        "versions": versions(),
        "code": code_of_functions(compare_loops),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_record(path, content)
    for row in rows:
        print(f"{row['loop']:26} lr {row['lr']:<6g} loss {row['loss']['mean']:.3f}, val {row['val_loss']['mean']:.3f}")


if __name__ == "__main__":  # from the module by its name, which the record's code is told by
    from vivit_edu.experiments.bench import loops

    loops.compare_and_write()
