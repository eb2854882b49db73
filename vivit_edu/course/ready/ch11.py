"""Chapter 11, regularisation: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from einops import rearrange

from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Mirror


@builds("11.1")
def both_sides(model: Callable, clips: torch.Tensor, mirror: Mirror) -> torch.Tensor:
    """[B, C, T, H, W] -> logits [B, K], the mean over the clips and their mirror images"""
    flipped = model(clips.flip(mirror.axis + 1))[:, list(mirror.permutation)]
    return (model(clips) + flipped) / 2


@builds("11.2")
def mixup(clips: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and targets [B, K], each blended with the one before it; weight [B]: its own share"""
    w = rearrange(weight, "b -> b 1 1 1 1")
    clips = w * clips + (1 - w) * clips.roll(1, 0)  # [B, C, T, H, W]
    w = rearrange(weight, "b -> b 1")
    return clips, w * targets + (1 - w) * targets.roll(1, 0)


@builds("11.3")
def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """[B, N, D] -> the same shape; in training each clip's branch is dropped with probability `rate`"""
    if not training:
        return branch
    stays = torch.rand(len(branch), 1, 1) >= rate  # [B, 1, 1]
    return branch * stays / (1 - rate)
