"""Chapter 06, Model 2: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations

import torch
from einops import rearrange
from torch import nn

from ...embedding import TubeletEmbedding
from .ch05 import EncoderBlock, prepend_cls
from .registry import builds


@builds("06.1")
def encode_frames(encoder: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, nt, S, D] -> [B, nt, D]; the encoder maps sequences [batch, S, D] to vectors [batch, D]"""
    vectors = encoder(rearrange(tokens, "b nt s d -> (b nt) s d"))  # [B·nt, D]
    return rearrange(vectors, "(b nt) d -> b nt d", b=len(tokens))


@builds("06.2")
def depends_on_mates(model: nn.Module, clips: torch.Tensor) -> bool:
    """Whether any clip's logits depend on the other clips of its batch. clips: [B, C, T, H, W]"""
    training = model.training
    model.eval()
    with torch.no_grad():
        together = model(clips)
        alone = torch.cat([model(clip[None]) for clip in clips])
    model.train(training)
    difference = (together - alone).abs().max()
    return bool(difference > 1e-3 * together.abs().max())


@builds("06.3")
class SequenceEncoder(nn.Module):
    """Sequences [B, N, D] -> one vector each, [B, D]"""

    def __init__(
        self, count: int, dim: int, depth: int, heads: int, mlp_dim: int, pool: str = "mean", std: float = 0.02
    ):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, dim)) if pool == "cls" else None
        self.positions = nn.Parameter(std * torch.randn(1, count + (pool == "cls"), dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        if self.cls is not None:
            z = prepend_cls(z, self.cls)
        z = z + self.positions
        for block in self.blocks:
            z = block(z)
        z = self.norm(z)
        return z.mean(dim=1) if self.cls is None else z[:, 0]


@builds("06.4")
class Model2(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]; an encoder over space, then one over time"""

    def __init__(
        self,
        clip_shape: Sequence[int],
        tubelet: Sequence[int],
        classes: int,
        dim: int = 32,
        depth: int = 1,
        temporal_depth: int = 1,
        heads: int = 4,
        mlp_dim: int = 64,
        pool: str = "mean",
        std: float = 0.02,
    ):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.space = SequenceEncoder(nh * nw, dim, depth, heads, mlp_dim, pool)
        self.time = SequenceEncoder(nt, dim, temporal_depth, heads, mlp_dim, pool, std) if temporal_depth else None
        self.head = nn.Linear(dim, classes)

    def frames(self, clips: torch.Tensor) -> torch.Tensor:
        """One vector per time index, [B, nt, D]"""
        return encode_frames(self.space, self.embedding(clips))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.frames(clips)
        z = z.mean(dim=1) if self.time is None else self.time(z)  # [B, D]
        return self.head(z)


@builds("06.5")
def order_effect(model: nn.Module, clips: torch.Tensor, pt: int) -> float:
    """The largest change of any logit, over all orders of the clips' time indices of pt frames each"""
    pieces = torch.stack(clips.split(pt, dim=2))  # [nt, B, C, pt, H, W]
    with torch.no_grad():
        logits = model(clips)
        changes = [
            (model(torch.cat([pieces[i] for i in order], dim=2)) - logits).abs().max().item()
            for order in permutations(range(len(pieces)))
        ]
    return max(changes)


@builds("06.6")
def size_ratio(model: nn.Module, clips: torch.Tensor) -> float:
    """The size of the temporal positions, as a share of that of the frame vectors they are added to"""
    with torch.no_grad():
        frames = model.frames(clips)
        return (model.time.positions.square().mean().sqrt() / frames.square().mean().sqrt()).item()


@builds("06.6")
class QuietModel2(Model2):
    """Model 2 with frame vectors `factor` times as large"""

    def __init__(self, *sizes, factor: float = 1.0, **more):
        super().__init__(*sizes, **more)
        self.factor = factor

    def frames(self, clips: torch.Tensor) -> torch.Tensor:
        return self.factor * super().frames(clips)
