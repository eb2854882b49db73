"""Chapter 13, attention maps: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .registry import builds


@builds("13.1")
def my_rollout(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention [B, heads, N, N] of each layer -> rollout [B, N, N]"""
    r = torch.eye(layers[0].shape[-1])
    for weights in layers:
        a = weights.mean(dim=1)  # [B, N, N]
        r = (a + torch.eye(a.shape[-1])) / 2 @ r
    return r


@builds("13.2")
def my_relevance(layers: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention and its gradients, [B, heads, N, N] of each layer -> relevance [B, N, N]"""
    r = torch.eye(layers[0].shape[-1])
    for weights, gradient in zip(layers, gradients):
        product = (gradient * weights).clamp(min=0).mean(dim=1)  # [B, N, N]
        r = r + product @ r
    return r


@builds("13.3")
def my_deletion(scores: torch.Tensor) -> torch.Tensor:
    """Scores [N] -> bool [N + 1, N]: which tokens are kept when the best 0, 1, … N are deleted"""
    ranks = scores.argsort(descending=True).argsort()  # 0 for the best
    return ranks >= torch.arange(len(scores) + 1)[:, None]
