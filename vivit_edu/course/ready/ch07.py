"""Chapter 07, Model 3: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn

from .registry import builds


@builds("07.1")
def over_time(attention: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T', S, D] -> [B, T', S, D], attention among the time indices of each place"""
    folded = rearrange(tokens, "b t s d -> (b s) t d")
    return rearrange(attention(folded), "(b s) t d -> b t s d", b=len(tokens))


@builds("07.2")
def time_first(block: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """Model 3's block with time before space: [B, T', S, D] -> [B, T', S, D]"""
    z = z + over_time(block.time_attention, block.norm_time(z))
    folded = rearrange(block.norm_space(z), "b t s d -> (b t) s d")
    z = z + rearrange(block.space_attention(folded), "(b t) s d -> b t s d", b=len(z))
    return z + block.mlp(block.norm_mlp(z))


@builds("07.3")
def start_as_identity(block: nn.Module) -> None:
    """Sets the temporal attention's output projection to zero, in place"""
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)
