"""Chapter 10, pretrained initialisation: what its exercises build, finished."""

from __future__ import annotations

import torch
from einops import repeat

from .registry import builds


@builds("10.1")
def central_frame(filters: torch.Tensor, t: int) -> torch.Tensor:
    """[D, C, h, w] -> [D, C, t, h, w]"""
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[:, :, t // 2] = filters
    return inflated


@builds("10.2")
def repeat_positions(positions: torch.Tensor, n_t: int) -> torch.Tensor:
    """[1, 1 + S, D] -> [1, n_t·S, D]"""
    return repeat(positions[:, 1:], "1 s d -> 1 (t s) d", t=n_t)


@builds("10.3")
def fold_normalisation(
    weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filters [D, 3, h, w] and biases [D] for pictures in [0, 1] from those for normalised ones"""
    folded = weight / std[:, None, None]
    return folded, bias - (folded * mean[:, None, None]).sum(dim=(1, 2, 3))
