"""Chapter 02, what CNNs do with time: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .registry import builds


@builds("02.1")
def frames_seen(layers: Sequence[tuple[int, int]]) -> list[int]:
    """(span, step) of each layer -> the number of frames behind one feature, layer by layer"""
    seen, apart, result = 1, 1, []
    for span, step in layers:
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


@builds("02.2")
def two_streams(clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, C, T, H, W] -> context and fovea, each [B, C, T, H/2, W/2]"""
    h, w = clips.shape[-2:]
    context = F.avg_pool3d(clips, (1, 2, 2))
    fovea = clips[..., h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2]
    return context, fovea


@builds("02.3")
def video_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Logits of a video's clips [B, K] -> the video's probabilities [K]"""
    return logits.softmax(dim=1).mean(dim=0)
