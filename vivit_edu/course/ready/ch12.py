"""Chapter 12, full training: what its exercises build, finished."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from .registry import builds


@builds("12.1")
def schedule(step: int, total: int, peak: float, warmup: float) -> float:
    """The learning rate at a step: a line up to the peak, then half a cosine down to zero"""
    first = warmup * total
    if step < first:
        return peak * step / first
    return peak * (1 + math.cos(math.pi * (step - first) / (total - first))) / 2


@builds("12.2")
def update_average(average: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], decay: float) -> None:
    """One step of the exponential moving average, in place"""
    with torch.no_grad():
        for a, w in zip(average, weights):
            a.mul_(decay).add_((1 - decay) * w)


@builds("12.3")
def save_run(path: Path | str, model: nn.Module, optimiser: torch.optim.Optimizer, epochs_done: int) -> None:
    """Writes a file from which `load_run` goes on"""
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epochs_done": epochs_done}, path)


@builds("12.3")
def load_run(path: Path | str, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Fills model and optimiser from a file of `save_run`; returns the number of epochs done"""
    content = torch.load(path, weights_only=True)  # numbers only: loading such a file runs no code
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]
