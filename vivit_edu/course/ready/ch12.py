"""Chapter 12, full training: what its exercises build, finished."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from ...training import Recipe, grad_scaler, make_optimiser
from ..culmination import epoch_batches, precision
from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Volumes

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


@builds("12.1")
def schedule(step: int, total: int, peak: float, warmup: float) -> float:
    """The learning rate at a step: a line up to the peak, then half a cosine down to zero"""
    first = warmup * total
    if step < first:
        return peak * (step + 1) / (first + 1)
    return peak * (1 + math.cos(math.pi * (step - first) / (total - first))) / 2


@builds("12.2")
def update_average(average: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], decay: float) -> None:
    """One step of the exponential moving average, in place"""
    with torch.no_grad():
        for a, w in zip(average, weights):
            a.mul_(decay).add_(w, alpha=1 - decay)


@builds("12.3")
def train_epoch(
    model: nn.Module,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    rates: Sequence[float],
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    clip_norm: float,
    after_step: Callable[[], None],
) -> float:
    """One pass over the batches, a step for each; returns the mean loss"""
    device = next(model.parameters()).device
    total = torch.zeros((), device=device)
    model.train()
    for (clips, targets), rate in zip(batches, rates):
        for group in optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(model(clips.to(device)), targets.to(device))
        optimiser.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimiser)
        scaler.update()
        after_step()
        total += loss.detach()
    return total.item() / len(rates)


@builds("12.4")
def scaling_changes_nothing(
    train_epoch: Callable,
    make: Callable[[], tuple[nn.Module, torch.optim.Optimizer]],
    batches: Batches,
    rates: Sequence[float],
) -> bool:
    """Whether an epoch ends in the same weights with a loss scaler and without one"""
    ends = []
    for enabled in (False, True):
        model, optimiser = make()
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        train_epoch(model, batches, optimiser, rates, scaler, torch.float32, 1.0, lambda: None)
        ends.append([p.detach().clone() for p in model.parameters()])
    return all(torch.allclose(p, q, atol=1e-6) for p, q in zip(*ends))


@builds("12.5")
def fit(model: nn.Module, volumes: Volumes, recipe: Recipe, seed: int = 0) -> list[float]:
    """Trains the model in place and leaves the averaged weights in it; returns the mean loss of each epoch"""
    device = next(model.parameters()).device
    optimiser, scaler, average = make_optimiser(model, recipe), grad_scaler(device), copy.deepcopy(model)
    steps, losses = len(volumes.train) // recipe.batch_size, []

    def after_step():
        update_average(list(average.parameters()), list(model.parameters()), recipe.ema)

    for epoch in range(recipe.epochs):
        done = epoch * steps
        rates = [schedule(done + k, recipe.epochs * steps, recipe.lr, recipe.warmup) for k in range(steps)]
        batches = epoch_batches(volumes, recipe, seed, epoch)
        dtype = precision(device, recipe.bfloat16)
        losses.append(train_epoch(model, batches, optimiser, rates, scaler, dtype, recipe.clip_norm, after_step))
    model.load_state_dict(average.state_dict())
    model.eval()
    return losses


@builds("12.6")
def save_run(
    path: Path | str, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, epochs_done: int
) -> None:
    """Writes a file from which `load_run` goes on"""
    parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save({**parts, "epochs_done": epochs_done}, path)


@builds("12.6")
def load_run(path: Path | str, model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Fills model, average and optimiser from a file of `save_run`; returns the number of epochs done"""
    content = torch.load(path, weights_only=True)  # numbers only: loading such a file runs no code
    model.load_state_dict(content["model"])
    average.load_state_dict(content["average"])
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


@builds("12.7")
def paired_bootstrap(
    hits_a: torch.Tensor, hits_b: torch.Tensor, groups: torch.Tensor, draws: int, generator: torch.Generator
) -> torch.Tensor:
    """Accuracy of a minus accuracy of b on samples of groups, drawn with replacement: [draws]"""
    difference = hits_a.float() - hits_b.float()  # [N]
    _, group, sizes = groups.unique(return_inverse=True, return_counts=True)  # [N], [G]
    sums = torch.zeros(len(sizes)).index_add(0, group, difference)  # [G]
    drawn = torch.randint(len(sizes), (draws, len(sizes)), generator=generator)  # [draws, G]
    return sums[drawn].sum(dim=1) / sizes[drawn].sum(dim=1)
