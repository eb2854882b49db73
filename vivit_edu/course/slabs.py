"""A task in which place is everything (chapter 03): is the bright slab early or late?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

SHAPE = (1, 8, 8, 8)  # (C, T, H, W) of its clips


def slabs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [n, 1, 8, 8, 8] of noise with a bright slab, and labels [n]: 0, it is in frames 1 and 2; 1, in 5 and 6.

    With tubelets of four frames the slab lies in the same two frames of its tubelet in both cases.
    """
    labels = torch.arange(n) % 2
    clips = 0.1 * torch.rand(n, *SHAPE, generator=generator)
    clips[labels == 0, :, 1:3] += 0.8
    clips[labels == 1, :, 5:7] += 0.8
    return clips, labels


class SlabModel(nn.Module):
    """An embedding, positions, one transformer layer and a linear classifier on the mean of the tokens.

    embedding: clips [B, 1, 8, 8, 8] -> tokens [B, nt, S, dim]. positions: tokens -> tokens of the same shape.
    forward: clips -> logits [B, 2].
    """

    def __init__(self, embedding: nn.Module, positions: nn.Module, dim: int = 32):
        super().__init__()
        self.embedding, self.positions = embedding, positions
        self.layer = nn.TransformerEncoderLayer(dim, 2, 2 * dim, dropout=0, batch_first=True, norm_first=True)
        self.head = nn.Linear(dim, 2)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.positions(self.embedding(clips)).flatten(1, 2)  # [B, N, D]
        return self.head(self.layer(z).mean(dim=1))  # [B, 2]


def train_on_slabs(embedding: nn.Module, positions: nn.Module, steps: int = 25) -> float:
    """Trains a SlabModel of these two parts, and returns the share of 512 new clips that it gets right."""
    torch.manual_seed(0)
    model, generator = SlabModel(embedding, positions), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        clips, labels = slabs(64, generator)
        optimiser.zero_grad()
        F.cross_entropy(model(clips), labels).backward()
        optimiser.step()
    clips, labels = slabs(512, generator)
    with torch.no_grad():
        return (model(clips).argmax(dim=1) == labels).float().mean().item()
