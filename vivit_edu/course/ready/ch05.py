"""Chapter 05, Model 1: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange

from .registry import builds


@builds("05.1")
def prepend_cls(tokens: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
    """[B, N, D] and [1, 1, D] -> [B, 1 + N, D]"""
    copies = cls.expand(len(tokens), -1, -1)  # [B, 1, D]
    return torch.cat((copies, tokens), dim=1)


@builds("05.2")
def encoder_block(
    z: torch.Tensor, norm_attention: Callable, attention: Callable, norm_mlp: Callable, mlp: Callable
) -> torch.Tensor:
    """y = MSA(LN z) + z, then MLP(LN y) + y: [B, N, D] -> [B, N, D]"""
    y = attention(norm_attention(z)) + z
    return mlp(norm_mlp(y)) + y


@builds("05.3")
def factorised_positions(time: torch.Tensor, space: torch.Tensor) -> torch.Tensor:
    """[1, T', D] and [1, S, D] -> [1, T'·S, D]"""
    grid = time[:, :, None] + space[:, None]  # [1, T', S, D]
    return rearrange(grid, "b t s d -> b (t s) d")
