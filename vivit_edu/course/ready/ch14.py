"""Chapter 14, CNN or ViViT: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Mirror


@builds("14.1")
def time_to_share(accuracies: Sequence[float], seconds: Sequence[float], share: float = 0.9) -> float:
    """The seconds until the end of the first epoch that has at least this share of the last epoch's accuracy"""
    spent = 0.0
    for accuracy, duration in zip(accuracies, seconds):
        spent += duration
        if accuracy >= share * accuracies[-1]:
            break
    return spent


@builds("14.1")
def decided(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether the means differ by more than twice the larger standard deviation of the two"""
    spread = max(np.std(first, ddof=1), np.std(second, ddof=1))
    return bool(abs(np.mean(first) - np.mean(second)) > 2 * spread)


@builds("14.3")
def reverse(clips: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] -> the same clips from the last frame to the first"""
    return clips.flip(2)


@builds("14.3")
def freeze(clips: torch.Tensor) -> torch.Tensor:
    """[B, C, T, H, W] -> the middle frame, number T // 2, at all T places"""
    frames = clips.shape[2]
    return clips[:, :, [frames // 2] * frames]


@builds("14.3")
def mirrored(clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, C, T, H, W] and [B] -> the clips in a mirror, and the labels that they have there"""
    swap = torch.tensor(mirror.permutation)
    return clips.flip(mirror.axis + 1), swap[labels]


@builds("14.4")
def shuffle(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[B, C, T, H, W] -> each clip's frames in an order of its own, in which none stays at its place"""
    frames, shuffled = torch.arange(clips.shape[2]), []
    for clip in clips:
        order = frames
        while (order == frames).any():
            order = torch.randperm(len(frames), generator=generator)
        shuffled.append(clip[:, order])
    return torch.stack(shuffled)


@builds("14.5")
def drop_slices(clips: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """[B, C, T, H, W] -> the same with round(share * T) slices of each clip black, drawn for each clip"""
    frames = clips.shape[2]
    place = torch.rand(len(clips), frames, generator=generator).argsort(dim=1)
    kept = place >= round(share * frames)  # [B, T]
    return clips * kept[:, None, :, None, None]


@builds("14.5")
def add_noise(clips: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """uint8 [B, C, T, H, W] -> uint8 with normal noise, whose standard deviation is sigma times 255"""
    noise = 255 * sigma * torch.randn(clips.shape, generator=generator)
    return (clips + noise).round().clamp(0, 255).to(torch.uint8)


@builds("14.6")
def wrong_side(labels: torch.Tensor, answers: torch.Tensor, permutation: Sequence[int]) -> torch.Tensor:
    """Of the clips whose organ was found, the share that was given the organ's other side"""
    other = torch.tensor(permutation)[labels]
    found = (answers == labels) | (answers == other)
    counted = found & (other != labels)
    return (answers[counted] == other[counted]).float().mean()


@builds("14.7")
def changes_clips(probe: Callable[[torch.Tensor], torch.Tensor], clips: torch.Tensor) -> bool:
    """Whether the probe changes each clip, and nothing but the clips that it returns"""
    before = clips.clone()
    after = probe(clips)
    if after.shape != before.shape or after.dtype != before.dtype:
        return False
    untouched = torch.equal(clips, before)
    changed = (after != before).flatten(1).any(dim=1)
    return untouched and bool(changed.all())


@builds("14.8")
def equal_steps(
    patients: torch.Tensor, share: float, steps: int, batch_size: int, generator: torch.Generator
) -> torch.Tensor:
    """Patients [N] of the clips -> [steps, batch_size], the clips of each step, all of a share of the patients"""
    everyone = patients.unique()
    count = max(1, round(share * len(everyone)))
    chosen = everyone[torch.randperm(len(everyone), generator=generator)[:count]]
    clips = torch.isin(patients, chosen).nonzero().flatten()
    passes = -(-steps * batch_size // len(clips))
    stream = [clips[torch.randperm(len(clips), generator=generator)] for _ in range(passes)]
    return torch.cat(stream)[: steps * batch_size].reshape(steps, batch_size)
