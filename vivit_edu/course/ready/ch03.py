"""Chapter 03, tubelet embedding: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange

from .registry import builds


@builds("03.1")
def join_tubelets(tubelets: torch.Tensor, grid: Sequence[int], tubelet: Sequence[int]) -> torch.Tensor:
    """[B, T', S, C·t·h·w] -> [B, C, T, H, W]"""
    n_t, n_h, n_w = grid
    t, h, w = tubelet
    pattern = "b t (h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)"
    return rearrange(tubelets, pattern, t=n_t, h=n_h, w=n_w, pt=t, ph=h, pw=w)


@builds("03.2")
def token_grid(size: Sequence[int], tubelet: Sequence[int], remainder: str = "refuse") -> tuple[int, ...]:
    """(T, H, W), (t, h, w) -> (n_t, n_h, n_w)"""
    if remainder == "refuse" and any(a % b for a, b in zip(size, tubelet)):
        raise ValueError(f"tubelets of {tubelet} do not tile a clip of {size}")
    if remainder == "pad":
        return tuple(-(-a // b) for a, b in zip(size, tubelet))
    return tuple(a // b for a, b in zip(size, tubelet))


@builds("03.3")
def grid_positions(n_t: int, n_s: int, dim: int) -> torch.Tensor:
    """Positions [T', S, D]: the first half of D says when, the last half where"""

    def sinusoids(n, dim):
        speed = 10000.0 ** (-torch.arange(0, dim, 2) / dim)  # [dim/2]
        angle = torch.arange(n)[:, None] * speed  # [n, dim/2]
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)

    time = sinusoids(n_t, dim // 2)[:, None].expand(n_t, n_s, dim // 2)
    space = sinusoids(n_s, dim // 2)[None].expand(n_t, n_s, dim // 2)
    return torch.cat((time, space), dim=-1)
