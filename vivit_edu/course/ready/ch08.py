"""Chapter 08, Model 4: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...attention import init_attention
from ...embedding import TubeletEmbedding
from .ch05 import ClassifierHead, EncoderBlock
from .registry import builds


@builds("08.1")
def look(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, t: int, s: int, over: str) -> torch.Tensor:
    """One head's output for the token at time t and place s: three times [nt, S, d] -> [d]"""
    if over == "space":
        keys, values = k[t], v[t]  # [S, d]
    else:
        keys, values = k[:, s], v[:, s]  # [nt, d]
    scores = keys @ q[t, s] / q.shape[-1] ** 0.5
    return scores.softmax(dim=0) @ values


@builds("08.2")
def attend_over_space(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Three times [B, heads, nt, S, d] -> the same shape; each token looks at those of its time index"""
    return F.scaled_dot_product_attention(q, k, v)


@builds("08.2")
def attend_over_time(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Three times [B, heads, nt, S, d] -> the same shape; each token looks at those of its place"""
    q, k, v = (part.transpose(2, 3) for part in (q, k, v))  # [B, heads, S, nt, d]
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


@builds("08.3")
class FactorisedAttention(nn.Module):
    """The first space_heads heads look over space, the others over time: [B, nt, S, D] -> [B, nt, S, D]"""

    def __init__(self, dim: int, heads: int, space_heads: int):
        super().__init__()
        self.heads, self.space_heads = heads, space_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)  # W_O
        init_attention(self)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        pattern = "b nt s (three heads d) -> three b heads nt s d"
        q, k, v = rearrange(self.qkv(z), pattern, three=3, heads=self.heads)
        n = self.space_heads
        y_space = attend_over_space(q[:, :n], k[:, :n], v[:, :n])
        y_time = attend_over_time(q[:, n:], k[:, n:], v[:, n:])
        y = torch.cat((y_space, y_time), dim=1)  # [B, heads, nt, S, d]
        return self.out(rearrange(y, "b heads nt s d -> b nt s (heads d)"))


@builds("08.4")
@torch.no_grad()
def moved(module: nn.Module, z: torch.Tensor, clip: int, t: int, s: int) -> torch.Tensor:
    """Which outputs move when the token at time t and place s of a clip changes: bool [B, nt, S]"""
    changed = z.clone()
    changed[clip, t, s] = torch.randn(z.shape[-1])
    return ((module(changed) - module(z)).abs() > 1e-5).any(dim=-1)


@builds("08.4")
def only_the_cross(module: nn.Module, z: torch.Tensor) -> bool:
    """Whether no output depends on a token with another time index and another place, or of another clip"""
    for clip in range(z.shape[0]):
        for t in range(z.shape[1]):
            for s in range(z.shape[2]):
                wrong = moved(module, z, clip, t, s)
                wrong[clip, t] = False
                wrong[clip, :, s] = False
                if wrong.any():
                    return False
    return True


@builds("08.5")
class Model4(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]; some heads look over space, the others over time"""

    def __init__(
        self,
        clip_shape: Sequence[int],
        tubelet: Sequence[int],
        classes: int,
        dim: int = 32,
        depth: int = 2,
        heads: int = 4,
        mlp_dim: int = 64,
        space_heads: int = 2,
    ):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.positions = nn.Parameter(0.5 * torch.randn(1, nt, nh * nw, dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_dim) for _ in range(depth))
        for block in self.blocks:
            block.attention = FactorisedAttention(dim, heads, space_heads)
        self.head = ClassifierHead(dim, classes, pool="mean")

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.embedding(clips) + self.positions  # [B, nt, S, D]
        for block in self.blocks:
            z = block(z)
        return self.head(z.flatten(1, 2))


@builds("08.6")
def head_masks(nt: int, s: int, heads: int, space_heads: int) -> torch.Tensor:
    """bool [heads, N, N], True where a query may look: the first space_heads heads over space, the others over time"""
    token = torch.arange(nt * s)
    time, place = token // s, token % s
    space_mask, time_mask = time[:, None] == time, place[:, None] == place  # [N, N] each
    return torch.stack([space_mask] * space_heads + [time_mask] * (heads - space_heads))


@builds("08.6")
def with_masks(attention: nn.Module, z: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Multi-head attention [B, N, D] -> [B, N, D] in which each head has its mask, bool [heads, N, N]"""
    q, k, v = rearrange(attention.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=attention.heads)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=masks)
    return attention.out(rearrange(y, "b heads n d -> b n (heads d)"))


@builds("08.7")
def space_first(
    qkv_weight: torch.Tensor, qkv_bias: torch.Tensor, out_weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights [3·D, D], [3·D], [D, D] of an attention whose temporal heads come first -> those with space first"""

    def exchange(rows):  # the two halves of D rows
        return torch.cat(rows.chunk(2)[::-1])

    qkv_weight, qkv_bias = (torch.cat([exchange(part) for part in p.chunk(3)]) for p in (qkv_weight, qkv_bias))
    return qkv_weight, qkv_bias, exchange(out_weight.T).T
