"""Chapter 05, Model 1: what its exercises build, finished."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...attention import MultiHeadAttention
from ...embedding import TubeletEmbedding
from .registry import builds


@builds("05.1")
def prepend_cls(tokens: torch.Tensor, cls: torch.Tensor) -> torch.Tensor:
    """[B, N, D] and [1, 1, D] -> [B, 1 + N, D]"""
    copies = cls.expand(len(tokens), -1, -1)  # [B, 1, D]
    return torch.cat((copies, tokens), dim=1)


@builds("05.2")
class EncoderBlock(nn.Module):
    """y = MSA(LN z) + z, then MLP(LN y) + y: [B, N, D] -> [B, N, D]"""

    def __init__(self, dim: int, heads: int, mlp_dim: int):
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim, eps=1e-6)
        self.attention = MultiHeadAttention(dim, heads)
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = z + self.attention(self.norm_attention(z))
        return y + self.mlp(self.norm_mlp(y))


@builds("05.3")
class ClassifierHead(nn.Module):
    """[B, N, D] -> logits [B, K], from the cls token at index 0 (pool="cls") or the mean of all tokens ("mean")"""

    def __init__(self, dim: int, classes: int, pool: str):
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.linear = nn.Linear(dim, classes)
        self.pool = pool

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = self.norm(z)
        z = z[:, 0] if self.pool == "cls" else z.mean(dim=1)  # [B, D]
        return self.linear(z)


@builds("05.4")
class Model1(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]; every token attends to every token"""

    def __init__(
        self,
        clip_shape: Sequence[int],
        tubelet: Sequence[int],
        classes: int,
        dim: int = 32,
        depth: int = 2,
        heads: int = 4,
        mlp_dim: int = 64,
        pool: str = "mean",
    ):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        count = nt * nh * nw + (pool == "cls")
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "cls" else None
        self.positions = nn.Parameter(0.5 * torch.randn(1, count, dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_dim) for _ in range(depth))
        self.head = ClassifierHead(dim, classes, pool)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = rearrange(self.embedding(clips), "b nt s d -> b (nt s) d")
        if self.cls is not None:
            z = prepend_cls(z, self.cls)  # [B, 1 + N, D]
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        return self.head(z)


@builds("05.5")
def agree(first: nn.Module, second: nn.Module, clips: torch.Tensor) -> bool:
    """Whether two models with the same names of parameters compute the same function"""
    first, second = copy.deepcopy(first).eval(), copy.deepcopy(second).eval()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.normal_(std=0.2)
        second.load_state_dict(first.state_dict())
        return torch.allclose(first(clips), second(clips), rtol=1e-4, atol=1e-4)


@builds("05.6")
def learn(model: nn.Module, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """Trains a model on pairs of clips and labels and returns the loss of each step"""
    optimiser, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for clips, labels in batches:
        loss = F.cross_entropy(model(clips), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses
