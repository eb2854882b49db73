"""A learning rate for each row of a table: short runs at several rates, compared on validation clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from ..errors import TrainingError
from ..support.files import read_json
from ..training import Recipe, build_seeded, fit, predict_logits
from ..volumes import Volumes
from .runs import choose_device, train_run, write_json

TUNING_SEED = 1000  # of the short runs: no table has so many seeds


def train_at_best_rate(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    rates: Sequence[float],
    epochs: int,
    device: str | torch.device = "auto",
    train: Callable = train_run,
    **rest: object,
) -> dict:
    """`train`, by default `train_run`, at the best of these rates, and under "rates" what was tried.

    rates: for each, one run of so many epochs with a seed of its own; the lowest validation loss wins. A row is tuned
    once, for all of its seeds: the losses are kept next to the runs. Raises TrainingError where no rate trains.
    """
    kept = Path(out).parent / f"{Path(out).name.removesuffix(f'-seed{seed}')}-rates.json"
    if not kept.exists():
        short = [replace(recipe, lr=rate, epochs=epochs) for rate in rates]
        losses = [validation_loss(volumes, one, choose_device(device)) for one in short]
        write_json(kept, {"seed": TUNING_SEED, "epochs": epochs, "lr": list(rates), "val_loss": losses})
    tried = read_json(kept)
    ends = [(loss, rate) for loss, rate in zip(tried["val_loss"], tried["lr"]) if loss is not None]
    if not ends:
        raise TrainingError(f"training broke off at each of the rates {', '.join(map(str, rates))}: try lower ones")
    best = min(ends)[1]
    return train(volumes, replace(recipe, lr=best), out=out, seed=seed, device=device, **rest) | {"rates": tried}


def validation_loss(volumes: Volumes, recipe: Recipe, device: torch.device) -> float | None:
    """The mean cross-entropy on the validation clips after a run, in nats; None where training broke off."""
    model = build_seeded(recipe, volumes, TUNING_SEED).to(device)
    try:
        fit(model, volumes, recipe, seed=TUNING_SEED)
    except TrainingError:  # the loss was not finite
        return None
    logits = predict_logits(model, volumes.val)
    return F.cross_entropy(logits, volumes.val.labels.to(logits.device)).item()
