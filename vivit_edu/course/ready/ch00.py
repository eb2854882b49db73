"""Chapter 00, start here: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange

from .registry import builds


@builds("00.1")
def film_strip(clip: torch.Tensor) -> torch.Tensor:
    """[1, T, H, W] -> [H, T·W]"""
    return rearrange(clip, "1 t h w -> h (t w)")


@builds("00.2")
def count_tubelets(clip_shape: Sequence[int], tubelet: Sequence[int]) -> int:
    """(C, T, H, W) and (t, h, w) -> the number of tubelets"""
    _, T, H, W = clip_shape
    t, h, w = tubelet
    return (T // t) * (H // h) * (W // w)
