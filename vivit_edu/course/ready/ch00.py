"""Chapter 00, start here: what its exercises build, finished."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn

from .registry import builds


@builds("00.1")
def film_strip(clip: torch.Tensor) -> torch.Tensor:
    """[1, T, H, W] -> [H, T·W]"""
    return rearrange(clip, "1 t h w -> h (t w)")


@builds("00.2")
def block_means(clips: torch.Tensor, size: int) -> torch.Tensor:
    """[B, 1, T, H, W] -> [B, N], the mean of each block of size³ voxels"""
    blocks = "b 1 (nt pt) (nh ph) (nw pw) -> b (nt nh nw)"
    return reduce(clips, blocks, "mean", pt=size, ph=size, pw=size)


@builds("00.3")
class TinyModel(nn.Module):
    """The means of blocks [B, N] -> logits [B, K]"""

    def __init__(self, numbers: int, width: int, classes: int):
        super().__init__()
        self.hidden = nn.Linear(numbers, width)
        self.head = nn.Linear(width, classes)

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        centred = means - means.mean(dim=1, keepdim=True)  # [B, N]
        return self.head(self.hidden(centred).relu())


@builds("00.4")
def share_right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Logits [B, K] and labels [B] -> the share of clips whose largest logit is the label's"""
    return (logits.argmax(dim=1) == labels).float().mean().item()


@builds("00.5")
def training_step(
    model: nn.Module, optimiser: torch.optim.Optimizer, means: torch.Tensor, labels: torch.Tensor
) -> float:
    """Changes the model's weights by one step and returns the loss before it"""
    loss = F.cross_entropy(model(means), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss.item()


@builds("00.6")
def telling_clip() -> torch.Tensor:
    """A clip [1, 1, 4, 4, 4] whose block means no faulty version gets right"""
    return torch.arange(64.0).reshape(1, 1, 4, 4, 4) ** 2
