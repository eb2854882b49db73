"""Chapter 04, attention: what its exercises build, finished."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .registry import builds


@builds("04.1")
def softmax(scores: torch.Tensor) -> torch.Tensor:
    """[..., M, N] -> [..., M, N]: not negative, the last axis adding up to 1"""
    shares = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return shares / shares.sum(dim=-1, keepdim=True)


@builds("04.1")
def attention_weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """[..., M, d], [..., N, d] -> [..., M, N], rows adding up to 1"""
    scores = queries @ keys.transpose(-2, -1)  # [..., M, N]
    return softmax(scores / queries.shape[-1] ** 0.5)


@builds("04.2")
class Head(nn.Module):
    """One attention head with learned queries, keys and values: [B, N, D] -> [B, N, d]"""

    def __init__(self, dim: int, width: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, width) for _ in range(3))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return attention_weights(self.query(z), self.key(z)) @ self.value(z)


@builds("04.3")
def look_back(nt: int, s: int) -> torch.Tensor:
    """bool [N, N], N = nt·s: True where a query may look at a key of its own or an earlier time index"""
    time = torch.arange(nt * s) // s
    return time[None, :] <= time[:, None]


@builds("04.3")
def masked_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """[..., M, d], [..., N, d], [..., N, d] and bool [M, N] -> [..., M, d]"""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # [..., M, N]
    return softmax(scores.masked_fill(~allowed, -torch.inf)) @ v


@builds("04.4")
def reach(*masks: torch.Tensor) -> int:
    """How many tokens the output of token 0 depends on, after one attention layer for each mask, bool [N, N]"""
    tokens = (0.1 * torch.randn(len(masks[0]), 8)).requires_grad_()
    z = tokens
    for mask in masks:
        z = z + masked_attention(z, z, z, mask)
    (gradient,) = torch.autograd.grad(z[0].sum(), tokens)
    return int((gradient != 0).any(dim=-1).sum())


@builds("04.5")
class MultiHead(nn.Module):
    """Multi-head self-attention: [B, N, D] -> [B, N, D]"""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)  # W_O

    def split(self, z: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values: [3, B, heads, N, d]"""
        return rearrange(self.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = F.scaled_dot_product_attention(*self.split(z))  # [B, heads, N, d]
        return self.out(rearrange(y, "b heads n d -> b n (heads d)"))

    def weights(self, z: torch.Tensor) -> torch.Tensor:
        """The weights of every head, [B, heads, N, N]"""
        q, k, _ = self.split(z)
        return attention_weights(q, k)


@builds("04.6")
def is_sound(attention: nn.Module, tokens: torch.Tensor) -> bool:
    """Whether a module [B, N, D] -> [B, N, D] keeps clips apart and follows the order of the tokens"""
    y = attention(tokens)
    alone = torch.cat([attention(clip[None]) for clip in tokens])
    order = torch.randperm(tokens.shape[1])
    shuffled = attention(tokens[:, order])
    return torch.allclose(y, alone, atol=1e-4) and torch.allclose(shuffled, y[:, order], atol=1e-4)


@builds("04.7")
def layer_norm(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float = 1e-5) -> torch.Tensor:
    """[..., D] -> [..., D]: each token with mean 0 and variance 1, then times weight plus bias"""
    centred = z - z.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weight + bias


@builds("04.7")
class MLP(nn.Module):
    """Each token separately: [..., dim] -> [..., hidden] -> [..., dim]"""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.second(F.gelu(self.first(z)))
