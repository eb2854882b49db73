"""Chapter 07, Model 3: what its exercises build, finished."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence

import torch
from einops import rearrange
from torch import nn

from ...attention import MultiHeadAttention
from ...embedding import TubeletEmbedding
from .ch05 import ClassifierHead
from .registry import builds


@builds("07.1")
def over_space(attention: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, nt, S, D] -> [B, nt, S, D], attention among the S tokens of each time index"""
    folded = rearrange(tokens, "b nt s d -> (b nt) s d")
    return rearrange(attention(folded), "(b nt) s d -> b nt s d", b=len(tokens))


@builds("07.1")
def over_time(attention: Callable, tokens: torch.Tensor) -> torch.Tensor:
    """[B, nt, S, D] -> [B, nt, S, D], attention among the nt tokens of each place"""
    folded = rearrange(tokens, "b nt s d -> (b s) nt d")
    return rearrange(attention(folded), "(b s) nt d -> b nt s d", b=len(tokens))


@builds("07.2")
class FactorisedBlock(nn.Module):
    """Attention over space, attention over time, MLP: [B, nt, S, D] -> [B, nt, S, D]"""

    def __init__(self, dim: int, heads: int, mlp_dim: int):
        super().__init__()
        self.norm_space = nn.LayerNorm(dim, eps=1e-6)
        self.norm_time = nn.LayerNorm(dim, eps=1e-6)
        self.norm_mlp = nn.LayerNorm(dim, eps=1e-6)
        self.space_attention = MultiHeadAttention(dim, heads)
        self.time_attention = MultiHeadAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = z + over_space(self.space_attention, self.norm_space(z))
        y = y + over_time(self.time_attention, self.norm_time(y))
        return y + self.mlp(self.norm_mlp(y))


@builds("07.3")
class Model3(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]; in each block attention over space, then over time"""

    def __init__(
        self,
        clip_shape: Sequence[int],
        tubelet: Sequence[int],
        classes: int,
        dim: int = 32,
        depth: int = 2,
        heads: int = 4,
        mlp_dim: int = 64,
    ):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.positions = nn.Parameter(0.5 * torch.randn(1, nt, nh * nw, dim))
        self.blocks = nn.ModuleList(FactorisedBlock(dim, heads, mlp_dim) for _ in range(depth))
        self.head = ClassifierHead(dim, classes, "mean")

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.embedding(clips) + self.positions  # [B, nt, S, D]
        for block in self.blocks:
            z = block(z)
        return self.head(rearrange(z, "b nt s d -> b (nt s) d"))


@builds("07.4")
class TimeFirstBlock(FactorisedBlock):
    """The same block with attention over time before attention over space"""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = z + over_time(self.time_attention, self.norm_time(z))
        y = y + over_space(self.space_attention, self.norm_space(y))
        return y + self.mlp(self.norm_mlp(y))


@builds("07.5")
def silence(blocks: Iterable[nn.Module], part: str) -> None:
    """In place: the attention of this name adds nothing to any token, and never learns"""
    for block in blocks:
        attention = getattr(block, part)
        nn.init.zeros_(attention.out.weight)
        nn.init.zeros_(attention.out.bias)
        attention.requires_grad_(False)


@builds("07.7")
def all_zero(block: nn.Module) -> None:
    """In place: all parameters of the attention over time are zero"""
    for parameter in block.time_attention.parameters():
        nn.init.zeros_(parameter)


@builds("07.7")
def start_at_zero(block: nn.Module) -> None:
    """In place: the attention over time adds nothing at first, and all of its matrices learn"""
    nn.init.zeros_(block.time_attention.out.weight)
    nn.init.zeros_(block.time_attention.out.bias)


@builds("07.7")
def start_as_copy(block: nn.Module) -> None:
    """In place: the attention over time starts with the weights of the attention over space"""
    block.time_attention.load_state_dict(block.space_attention.state_dict())


@builds("07.8")
def asleep(block: nn.Module, z: torch.Tensor) -> set[str]:
    """Which of W_Q, W_K, W_V and W_O of the attention over time never get a gradient, as a set of names"""
    block, awake = copy.deepcopy(block), set()
    optimiser = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(5):
        optimiser.zero_grad()
        (block(z) - z.roll(1, dims=1)).square().mean().backward()
        attention = block.time_attention
        gradients = dict(zip(("W_Q", "W_K", "W_V"), attention.qkv.weight.grad.chunk(3)))
        gradients["W_O"] = attention.out.weight.grad
        awake |= {name for name, gradient in gradients.items() if gradient.any()}
        optimiser.step()
    return {"W_Q", "W_K", "W_V", "W_O"} - awake
