"""Chapter 06, Model 2: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn

from .registry import builds


@builds("06.1")
def spatial_stage(encoder: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, T', S, D] -> [B, T', D]"""
    z = encoder(rearrange(tokens, "b t s d -> (b t) s d"))  # [B·T', S, D]
    return rearrange(z.mean(dim=1), "(b t) d -> b t d", b=len(tokens))


@builds("06.2")
def depends_on_mates(model: nn.Module, clips: torch.Tensor) -> bool:
    """Whether any clip's logits change with the other clips of its batch. clips: [B, C, T, H, W]"""
    model.eval()
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clips[i : i + 1]) for i in range(len(clips))])
    return not torch.allclose(together, alone, atol=1e-4)


@builds("06.3")
def attention_pool(z: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """[B, T', D] and [D] -> [B, D]"""
    weights = (z @ query / z.shape[-1] ** 0.5).softmax(dim=1)  # [B, T']
    return torch.einsum("bt,btd->bd", weights, z)
