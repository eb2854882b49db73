"""What the benches time: passes, training steps, noise to make them on, and the matrix product that gives the peak."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ...cost import measure
from ...training import Recipe, make_optimiser, mixed_precision
from ...volumes import Split, Volumes

Table = tuple[list[str], list[list[str]], str]  # column heads, rows, and what was compared


def make_pass(model: nn.Module, clips: torch.Tensor, backward: bool) -> Callable[[], None]:
    """A function that passes over clips [B, C, T, H, W] as training (with gradients) or inference does."""

    def run():
        model.train(backward)
        with torch.set_grad_enabled(backward), mixed_precision(clips.device):
            logits = model(clips)
        if backward:
            logits.float().square().mean().backward()
            model.zero_grad()

    return run


def make_step(
    model: nn.Module, recipe: Recipe, clips: torch.Tensor, labels: torch.Tensor, call: Callable | None = None
) -> Callable[[], None]:
    """A function that makes one step as `training.train_epoch` does, on a batch that is ready.

    call: what is called in the model's place, such as the compiled model.
    """
    optimiser, call = make_optimiser(model, recipe), model if call is None else call

    def step():
        with mixed_precision(clips.device):
            loss = F.cross_entropy(call(clips), labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()

    return step


def matmul_peak(edge: int, device: torch.device, dtype: torch.dtype = torch.float32, repeats: int = 20) -> float:
    """FLOPs per second of a product of two matrices [edge, edge], the fastest of some."""
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    return 2 * edge**3 / min(measure({"product": lambda: a @ b}, device, repeats=repeats)["product"])


def noise_volumes(train: int, val: int, clip_shape: tuple[int, ...] = (1, 28, 28, 28), classes: int = 11) -> Volumes:
    """Volumes of noise, `train` to train on and `val` to validate with: no time depends on what is in them."""
    generator = torch.Generator().manual_seed(0)

    def split(n):
        return Split(
            torch.randint(0, 256, (n, *clip_shape), generator=generator, dtype=torch.uint8), torch.arange(n) % classes
        )

    validation = split(val)
    return Volumes("noise", tuple(map(str, range(classes))), split(train), validation, validation)
