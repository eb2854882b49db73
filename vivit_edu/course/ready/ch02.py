"""Chapter 02, what CNNs do with time: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ...cnn import BACKBONES, MEAN_GREY, Convolution, LocalResponseNorm, fully_connected, read_plan
from .registry import builds

LAYERS, NODES = read_plan(BACKBONES["small"])


@builds("02.1")
def conv3d(clips: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, step: int = 1) -> torch.Tensor:
    """[B, C, T, H, W] and filters [D, C, span, f, f] -> [B, D, T', H, W], by 2D convolutions"""
    span, padding, results = weight.shape[2], weight.shape[-1] // 2, []
    for start in range(0, clips.shape[2] - span + 1, step):
        slices = [F.conv2d(clips[:, :, start + k], weight[:, :, k], padding=padding) for k in range(span)]
        results.append(sum(slices) + bias[:, None, None])  # [B, D, H, W]
    return torch.stack(results, dim=2)


@builds("02.2")
def frames_seen(layers: Sequence[tuple[int, int]]) -> list[int]:
    """(span, step) of each layer -> the number of frames behind one feature, layer by layer"""
    seen, apart, result = 1, 1, []
    for span, step in layers:
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


@builds("02.3")
def tower(channels: int, spans: Sequence[tuple[int, int]]) -> nn.Sequential:
    """The backbone's convolutional part, whose first convolutions span `spans` frames: [B, C, T, H, W] -> features"""
    parts, spans = [], list(spans)
    for kind, sizes in LAYERS:
        if kind == "C":
            span, step = spans.pop(0) if spans else (1, 1)
            parts += [Convolution(channels, *sizes, span, step), nn.ReLU()]
            channels = sizes[0]
        elif kind == "N":
            parts.append(LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2))
        else:
            parts.append(nn.MaxPool3d((1, 2, 2)))
    return nn.Sequential(*parts)


@builds("02.4")
def fusion_plan(name: str, frames: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Which of so many frames a network takes, and (span, step) of its first convolutions"""
    if name == "single_frame":
        return [frames // 2], []
    if name == "early_fusion":
        return list(range(frames)), [(frames, 1)]
    if name == "late_fusion":
        return [frames // 6, frames - 1 - frames // 6], []
    return list(range(frames)), [(4, 2), (2, 2), (2, 2)]


@builds("02.5")
class Fusion(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]"""

    def __init__(self, name: str, clip_shape: Sequence[int], classes: int):
        super().__init__()
        channels, frames, *_ = clip_shape
        self.frames, spans = fusion_plan(name, frames)
        self.tower = tower(channels, spans)
        inputs = self.see(torch.zeros(1, *clip_shape)).shape[1]
        self.classifier = fully_connected(inputs, NODES, classes, dropout=0.0)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        return self.tower(clips[:, :, self.frames] - MEAN_GREY).flatten(1)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.see(clips))


@builds("02.6")
def frame_by_frame(cnn: Callable, clips: torch.Tensor) -> torch.Tensor:
    """A CNN of images on each frame: clips [B, C, T, H, W] -> features [B, T, D]"""
    b, c, t, h, w = clips.shape
    frames = clips.transpose(1, 2).reshape(b * t, c, h, w)
    return cnn(frames).reshape(b, t, -1)


@builds("02.7")
class CNNAttention(nn.Module):
    """Clips [B, C, T, H, W] in [0, 1] -> logits [B, K]; attention relates what a CNN found in each frame"""

    def __init__(self, clip_shape: Sequence[int], classes: int, dim: int = 128, depth: int = 2):
        super().__init__()
        self.tower = nn.Sequential(*tower(clip_shape[0], []), nn.MaxPool3d((1, 2, 2)))
        n, width = self.see(torch.zeros(1, *clip_shape)).shape[1:]
        self.projection = nn.Linear(width, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, n, dim))
        self.encoder = attention_layers(dim, depth)
        self.head = nn.Linear(dim, classes)

    def see(self, clips: torch.Tensor) -> torch.Tensor:
        features = self.tower(clips[:, :, ::2] - MEAN_GREY)  # [B, 64, T', H', W']
        return features.flatten(2).transpose(1, 2)  # [B, N, 64]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        z = self.projection(self.see(clips)) + self.positions
        return self.head(self.encoder(z).mean(dim=1))


def attention_layers(dim: int, depth: int) -> nn.TransformerEncoder:
    """Torch's layers of attention, as chapters 04 and 05 build them: [B, N, D] -> [B, N, D]"""
    layer = nn.TransformerEncoderLayer(
        dim, 4, 2 * dim, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim, eps=1e-6), enable_nested_tensor=False)
