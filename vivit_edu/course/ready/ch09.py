"""Chapter 09, the cost of attention: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

from .registry import builds


@builds("09.1")
def pairs(n_t: int, n_s: int) -> list[float]:
    """Query-key pairs per head and layer of Models 1 to 4"""
    space, time = n_t * n_s**2, n_s * n_t**2
    return [(n_t * n_s) ** 2, space + n_t**2, space + time, (space + time) / 2]


@builds("09.2")
def crossover(dim: int, mlp_dim: int) -> float:
    """The number of tokens at which half of a block's FLOPs are spent on pairs"""
    token = 8 * dim**2 + 4 * dim * mlp_dim
    pair = 4 * dim
    return token / pair


@builds("09.3")
def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of y against x where both axes are logarithmic"""
    import numpy as np

    slope, _ = np.polyfit(np.log(x), np.log(y), 1)
    return slope
