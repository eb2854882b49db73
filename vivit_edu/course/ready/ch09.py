"""Chapter 09, the cost of attention: what its exercises build, finished."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .registry import builds

if TYPE_CHECKING:
    from ...vivit import ViViTConfig

Sizes = tuple[int, int, int, int]


@builds("09.1")
def pairs(nt: int, s: int) -> list[float]:
    """Query-key pairs of one layer, per head: [Model 1, Model 2, Model 3, Model 4]"""
    space, time = nt * s**2, s * nt**2
    return [(nt * s) ** 2, space + nt**2, space + time, (space + time) / 2]


@builds("09.2")
def block_flops(tokens: float, pairs: float, attentions: int, dim: int, mlp_dim: int) -> tuple[float, float]:
    """FLOPs of one block: of its linear maps, and of its attention products"""
    linear = tokens * (8 * attentions * dim**2 + 4 * dim * mlp_dim)
    return linear, pairs * 4 * dim


@builds("09.3")
def counterexample(formula: Callable[[int, int, int, int], float]) -> Sizes | None:
    """(tokens, dim, mlp_dim, heads) at which the formula is wrong about a block, or None"""
    from ..checks.ch09 import counted_block

    for sizes in ((7, 12, 20, 3), (11, 10, 34, 2)):
        if formula(*sizes) != counted_block(*sizes):
            return sizes
    return None


@builds("09.4")
def whole(cost: Callable[[float, float, int], float], nt: int, s: int, depth: int, temporal_depth: int) -> list[float]:
    """cost(tokens, pairs, attentions) of a block, added up over all blocks: [Model 1, Model 2, Model 3, Model 4]"""
    n, (all_pairs, _, both, half) = nt * s, pairs(nt, s)
    return [
        depth * cost(n, all_pairs, 1),
        depth * cost(n, nt * s**2, 1) + temporal_depth * cost(nt, nt**2, 1),
        depth * cost(n, both, 2),
        depth * cost(n, half, 1),
    ]


@builds("09.5")
def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of y against x where both axes are logarithmic"""
    import numpy as np

    slope, _ = np.polyfit(np.log(x), np.log(y), 1)
    return slope


@builds("09.6")
def kept(tokens: float, pairs: float, attentions: int, dim: int, mlp_dim: int, heads: int) -> float:
    """How many numbers a block keeps for its backward pass, for one clip"""
    return tokens * (6 * attentions * dim + 2 * dim + 2 * mlp_dim) + heads * pairs


@builds("09.7")
def best_design(
    config: ViViTConfig, tubelets: Sequence[Sequence[int]], max_bytes: float, max_flops: float, fused: bool = False
) -> tuple[int, Sequence[int]] | None:
    """(number of the model, tubelet) with the most tokens that fits both limits, or None where nothing fits"""
    fits = []
    for tubelet in tubelets:
        c = replace(config, tubelet=tuple(tubelet))
        for model, (flops, size) in enumerate(zip(model_flops(c), training_bytes(c, fused=fused)), 1):
            if flops <= max_flops and size <= max_bytes:
                fits.append((-math.prod(token_grid_of(c)), model, flops, tubelet))
    return (min(fits)[1], min(fits)[3]) if fits else None


# ---- what the notebook's own cells define around them


def token_grid_of(c: ViViTConfig) -> tuple[int, int]:
    """(nt, s) of a config's clips"""
    nt, nh, nw = (side // step for side, step in zip(c.clip_shape[1:], c.tubelet))
    return nt, nh * nw


def model_flops(c: ViViTConfig) -> list[float]:
    """FLOPs of a forward pass over one clip, without the head: [Model 1, Model 2, Model 3, Model 4]"""
    layers = whole(
        lambda *block: sum(block_flops(*block, c.dim, c.mlp_dim)), *token_grid_of(c), c.depth, c.temporal_depth
    )
    return [flops + 2 * c.dim * math.prod(c.clip_shape) for flops in layers]


def training_bytes(c: ViViTConfig, batch: int = 8, fused: bool = False) -> list[float]:
    """Bytes of a training step in float32 with AdamW: [Model 1, Model 2, Model 3, Model 4]"""

    def numbers(tokens, pairs, attentions):
        weights = block_flops(1, 0, attentions, c.dim, c.mlp_dim)[0] / 2
        clip = kept(tokens, 0 if fused else pairs, attentions, c.dim, c.mlp_dim, c.heads)
        return batch * clip + 4 * weights

    return [4 * found for found in whole(numbers, *token_grid_of(c), c.depth, c.temporal_depth)]
