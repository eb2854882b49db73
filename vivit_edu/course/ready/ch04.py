"""Chapter 04, attention: what its exercises build, finished."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .registry import builds


@builds("04.1")
def attention_weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[..., M, d], [..., N, d] -> [..., M, N], rows adding up to 1"""
    scores = queries @ keys.transpose(-2, -1)  # [..., M, N]
    return (scores / queries.shape[-1] ** 0.5).softmax(dim=-1)


@builds("04.2")
def multi_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, N, D] three times -> [B, N, D]"""
    b, n, dim = q.shape
    q, k, v = (x.view(b, n, heads, dim // heads).transpose(1, 2) for x in (q, k, v))  # [B, heads, N, d]
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(b, n, dim)


@builds("04.3")
def causal_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, n_t: int) -> torch.Tensor:
    """[B, heads, T'·S, d] three times -> the same shape; no token sees a later time index"""
    n = q.shape[-2]
    time = torch.arange(n, device=q.device) // (n // n_t)
    allowed = time[None, :] <= time[:, None]  # [N queries, N keys]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
