"""Chapter 14, CNN or ViViT: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .ch09 import exponent
from .registry import builds


@builds("14.1")
def growth(frames: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent with which seconds grow with frames"""
    return exponent(frames, seconds)


@builds("14.2")
def shuffle_frames(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[B, C, T, H, W] -> the same shape, the frames of each clip in a random order of its own"""
    orders = [torch.randperm(clips.shape[2], generator=generator) for _ in clips]
    return torch.stack([clip[:, order] for clip, order in zip(clips, orders)])


@builds("14.3")
def wrong_side(labels: torch.Tensor, answers: torch.Tensor, permutation: Sequence[int]) -> torch.Tensor:
    """The share of clips of sided classes that were answered with the class of the other side"""
    other = torch.tensor(permutation)[labels]
    sided = other != labels
    return (answers[sided] == other[sided]).float().mean()
