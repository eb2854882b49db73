"""Chapter 11, regularisation: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Mirror


@builds("11.1")
def shift(clips: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] -> the same shape; clip b is moved by offsets[b] voxels along T, H, W, and 0 comes in"""
    moved = []
    for clip, offset in zip(clips, offsets.tolist()):
        room = max(map(abs, offset))
        padded = F.pad(clip, [room] * 6)
        t, h, w = (slice(room - by, room - by + size) for by, size in zip(offset, clip.shape[1:]))
        moved.append(padded[:, t, h, w])
    return torch.stack(moved)


@builds("11.2")
def mirror(
    clips: torch.Tensor, labels: torch.Tensor, sides: Mirror, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and labels [B]; by the toss of a coin each clip is flipped and its label swapped"""
    coin = torch.rand(len(clips), generator=generator) < 0.5  # [B]
    swapped = torch.tensor(sides.permutation)[labels]
    flipped = clips.flip(sides.axis + 1)
    clips = torch.where(rearrange(coin, "b -> b 1 1 1 1"), flipped, clips)
    return clips, torch.where(coin, swapped, labels)


@builds("11.3")
def labels_follow(augmentation: Callable, clips: torch.Tensor, labels: torch.Tensor, sides: Mirror) -> bool:
    """Whether augmentation(clips, labels, generator) gives each clip, flipped or not, the label that belongs to it"""
    swap, images = torch.tensor(sides.permutation), clips.flip(sides.axis + 1)
    for seed in range(20):
        found, told = augmentation(clips, labels, torch.Generator().manual_seed(seed))
        for k, clip in enumerate(found):
            if torch.equal(clip, clips[k]):
                right = labels[k]
            elif torch.equal(clip, images[k]):
                right = swap[labels[k]]
            else:
                return False
            if told[k] != right:
                return False
    return True


@builds("11.4")
def smooth(labels: torch.Tensor, classes: int, s: float) -> torch.Tensor:
    """Labels [B] -> targets [B, classes]: 1 - s + s/K at the label, s/K at every other class"""
    return (1 - s) * F.one_hot(labels, classes) + s / classes


@builds("11.5")
def mixup(clips: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and targets [B, K], each blended with the one before it; weight [B]: its own share"""
    w = rearrange(weight, "b -> b 1 1 1 1")
    clips = w * clips + (1 - w) * clips.roll(1, 0)  # [B, C, T, H, W]
    w = rearrange(weight, "b -> b 1")
    return clips, w * targets + (1 - w) * targets.roll(1, 0)


@builds("11.7")
class StochasticDepth(nn.Module):
    """A branch [B, ...] -> the same shape; in training each clip's branch is dropped with probability `rate`"""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return branch
        each = (len(branch), *[1] * (branch.ndim - 1))
        stays = torch.rand(each, device=branch.device) >= self.rate
        return branch * stays / (1 - self.rate)
