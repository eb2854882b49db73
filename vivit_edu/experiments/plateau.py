"""Training until it no longer helps: a budget that does not favour the models that learn fast.

Every model gets a learning rate of its own, the best of RATES in short runs. Then it trains at that rate until the
loss on the validation clips has not come down for PATIENCE epochs, or the recipe's number of epochs is reached. The
weights of the best epoch are kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..augment import swap_sides
from ..errors import TrainingError
from ..support.devices import grad_scaler
from ..support.locks import alone_in
from ..training import (
    Recipe,
    build_seeded,
    evaluating,
    make_optimiser,
    nan_message,
    predict_logits,
    refresh_batchnorm,
    score,
    steps_per_epoch,
    train_epoch,
)
from ..volumes import Volumes
from .code import code_of
from .probes import predict_classes, probe, share_of
from .runs import choose_device, claim, metrics_of, write_json
from .tuning import train_at_best_rate

RATES = (3e-4, 1e-3, 3e-3)
TRIAL_EPOCHS = 8  # of the short runs that choose a rate
PATIENCE = 8  # epochs without a lower validation loss
ENDLESS = 100_000  # epochs of a schedule that stays at its peak
SHARE_OF_FINAL = 0.9


def train_tuned_to_plateau(volumes: Volumes, recipe: Recipe, **rest: object) -> dict:
    """`train_to_plateau` at the best of RATES, chosen once for all seeds. rest: as for `runs.train_run`.

    Clips that are cycles (movingshapes) begin at a frame of their own each time; the rest of the augmentation is the
    recipe's.
    Returns what `train_run` returns, with "rates", "probes" and "plateau".
    """
    if volumes.name == "movingshapes":
        recipe = replace(recipe, augmentation=replace(recipe.augmentation, roll=True))
    return train_at_best_rate(volumes, recipe, rates=RATES, epochs=TRIAL_EPOCHS, train=train_to_plateau, **rest)


def train_to_plateau(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device = "auto",
    patience: int = PATIENCE,
    figures: bool = False,
) -> dict:
    """Trains at the recipe's rate, after a warm-up of two epochs, until the validation loss stops coming down.

    patience: so many epochs without a lower validation loss end the run; recipe.epochs is the most that it may take.
    out: a folder for history.json and metrics.json; an unfinished run begins again. figures: none are drawn, it is
    there so that tables can call this as they call `train_run`. The test split is read once, with the best weights.
    Returns what `train_run` returns, and "probes" (`probes.probe`, and of the clips whose organ was found the share on
    the wrong side) and "plateau": {"best_epoch", "stopped" (False where the epochs ran out), "steps_an_epoch",
    "epochs_to_90", "processor_seconds_to_90"}, to 90 % of the best epoch's validation accuracy.
    Raises TrainingError where the loss is not a number.
    """
    out, device = Path(out), choose_device(device)
    code = code_of(train_to_plateau, recipe, volumes.name)
    claim(out, resume)
    model = build_seeded(recipe, volumes, seed).to(device)
    train, val = volumes.train.to(device), volumes.val
    constant = replace(recipe, epochs=ENDLESS, warmup=2 / ENDLESS)
    optimiser, scaler = make_optimiser(model, recipe), grad_scaler(device, on_cpu=recipe.bfloat16)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)) if recipe.ema else None
    rows, best, weights, spent = [], math.inf, None, 0.0
    with alone_in(out), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(recipe.epochs):
            start, began = time.perf_counter(), time.process_time()
            loss = train_epoch(
                model, train, volumes, constant, optimiser, averaged, seed=seed, epoch=epoch, scaler=scaler
            )
            if not math.isfinite(loss):
                raise TrainingError(nan_message(epoch, loss, recipe, None))
            spent += time.process_time() - began  # of training alone
            if averaged is not None:
                refresh_batchnorm(averaged, train, recipe)
            current = averaged.module if averaged is not None else model
            logits = predict_logits(current, val)
            val_loss = F.cross_entropy(logits, val.labels).item()
            row = {"epoch": epoch + 1, "lr": recipe.lr, "loss": loss, "val_loss": val_loss}
            row |= {f"val_{name}": value for name, value in asdict(score(logits, val.labels)).items()}
            rows.append(row | {"seconds": time.perf_counter() - start, "processor_seconds": spent})
            if val_loss < best:
                best, weights = val_loss, deepcopy(current.state_dict())
            stopped = epoch_of_best(rows) <= len(rows) - patience
            if stopped:
                break
        model.load_state_dict(weights)
        write_json(out / "history.json", rows)
        metrics = metrics_of(model, volumes, recipe, rows, seed=seed, device=device) | {"code": code}
        with evaluating(model):
            metrics["probes"] = probe(model, volumes) | wrong_side_of_found(model, volumes)
        metrics["plateau"] = time_to_90(rows, steps_per_epoch(len(train), recipe), stopped)
        write_json(out / "metrics.json", metrics)
    return metrics


def epoch_of_best(rows: Sequence[dict]) -> int:
    """The number of the epoch, from 1, with the lowest validation loss; the first of equal ones."""
    return min(rows, key=lambda row: row["val_loss"])["epoch"]


def time_to_90(rows: Sequence[dict], steps: int, stopped: bool) -> dict:
    """What `train_to_plateau` says under "plateau". rows: of the history; steps: of an epoch."""
    best = epoch_of_best(rows)
    wanted = SHARE_OF_FINAL * rows[best - 1]["val_acc"]
    first = next(row for row in rows if row["val_acc"] >= wanted)
    return {
        "best_epoch": best,
        "stopped": stopped,
        "steps_an_epoch": steps,
        "epochs_to_90": first["epoch"],
        "processor_seconds_to_90": round(first["processor_seconds"], 2),
    }


def wrong_side_of_found(model: torch.nn.Module, volumes: Volumes) -> dict[str, float | None]:
    """{"wrong side, organ found": of the sided test clips that were given one of their organ's two classes, the share
    that was given the wrong one}; nothing where no class has a side."""
    if volumes.mirror is None:
        return {}
    labels, answers = volumes.test.labels, predict_classes(model, volumes.test)
    other = swap_sides(labels, volumes.mirror)
    found = (other != labels) & ((answers == labels) | (answers == other))
    return {"wrong side, organ found": share_of((answers == other)[found])}
