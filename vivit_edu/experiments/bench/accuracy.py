"""`vivit-edu bench accuracy DATASET`: how long until the validation accuracy that Keras' ViViT example reaches.

That example's model and rate, rebuilt here, are `tables.keras_example`.
"""

from __future__ import annotations

from statistics import mean, median

import torch

from ...data import load_volumes
from ...training import Recipe, build_seeded, fit
from ...volumes import Volumes
from ..tables import keras_example
from .steps import Table

LAST = 10  # epochs, whose mean is what a run reaches
SMOOTH = 3  # epochs, whose mean must reach it: one epoch's accuracy may be luck


def accuracy(
    device: torch.device,
    volumes: Volumes | None = None,
    seeds: int = 3,
    keras: Recipe | None = None,
    ours: Recipe | None = None,
) -> Table:
    """Seconds of epochs until three in a row reach the accuracy on average, for each seed."""
    from tqdm.auto import tqdm

    volumes = volumes or load_volumes("organphantom3d")
    recipes = {"theirs": keras or keras_example(), "ours": ours or Recipe.preset("quick")}
    rows = []
    for seed in tqdm(range(seeds), desc="time to accuracy", unit="seed"):
        runs = {}
        for who, recipe in recipes.items():
            history = fit(build_seeded(recipe, volumes, seed).to(device), volumes, recipe, seed=seed)
            runs[who] = list(zip(history["seconds"], history["val_acc"]))
        goal = mean(acc for _, acc in runs["theirs"][-LAST:])
        first, whole = reached(runs["theirs"], goal), sum(seconds for seconds, _ in runs["theirs"])
        taken = reached(runs["ours"], goal)
        rows.append(
            [
                str(seed),
                f"{goal:.3f}",
                f"{first:.1f}" if first else "–",
                f"{whole:.1f}",
                f"{taken:.1f}" if taken else f"not in {len(runs['ours'])} epochs",
                f"{taken / first:.2f}" if taken and first else "–",
                f"{taken / whole:.2f}" if taken else "–",
            ]
        )
    shares = [float(row[-1]) for row in rows if row[-1] != "–"]
    rows.append(["median", "", "", "", "", "", f"{median(shares):.2f}" if len(shares) == len(rows) else "–"])
    heads = [
        "seed",
        "validation accuracy",
        "theirs, s until there",
        "theirs, s of all epochs",
        "ours, s until there",
        "of theirs until there",
        "of all theirs",
    ]
    return (
        heads,
        rows,
        (
            f"{volumes.name}: Keras' example rebuilt here against the preset quick with its whole schedule; the goal "
            f"is the mean validation accuracy of the example's last {LAST} epochs, reached when {SMOOTH} epochs in "
            "a row have it on average. Seconds of epochs, validation included, one seed after the other."
        ),
    )


def reached(history: list[tuple[float, float]], goal: float) -> float | None:
    """Seconds until the mean accuracy of SMOOTH epochs reaches the goal; None if it never does."""
    for end in range(SMOOTH, len(history) + 1):
        if mean(acc for _, acc in history[end - SMOOTH : end]) >= goal:
            return sum(seconds for seconds, _ in history[:end])
    return None
