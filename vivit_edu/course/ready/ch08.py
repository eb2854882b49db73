"""Chapter 08, Model 4: what its exercises build, finished."""

from __future__ import annotations

import torch
from einops import rearrange

from .registry import builds


@builds("08.1")
def split_heads(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, T', S, 3·D] -> space and time, each [3, B, T', S, heads/2, d]"""
    pattern = "b t s (three half h d) -> half three b t s h d"
    space, time = rearrange(qkv, pattern, three=3, half=2, h=heads // 2)
    return space, time


@builds("08.2")
def merge_halves(y_space: torch.Tensor, y_time: torch.Tensor, batch: int) -> torch.Tensor:
    """[B·T', heads/2, S, d] and [B·S, heads/2, T', d] -> [B, T', S, D]"""
    y_space = rearrange(y_space, "(b t) h s d -> b t s (h d)", b=batch)
    y_time = rearrange(y_time, "(b s) h t d -> b t s (h d)", b=batch)
    return torch.cat((y_space, y_time), dim=-1)


@builds("08.3")
def head_masks(n_t: int, n_s: int, heads: int, space_heads: int) -> torch.Tensor:
    """bool [heads, N, N], True where a query may attend: the first space_heads over space, the others over time"""
    token = torch.arange(n_t * n_s)
    time, place = token // n_s, token % n_s
    space_mask, time_mask = time[:, None] == time, place[:, None] == place  # [N, N] each
    return torch.stack([space_mask] * space_heads + [time_mask] * (heads - space_heads))
