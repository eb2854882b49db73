"""Chapter 01, volumes as videos: what its exercises build, finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Mirror


@builds("01.1")
def balanced_accuracy(guesses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[B] and [B] -> the mean over classes of the share of each that was recognised"""
    recalls = [(guesses[labels == k] == k).float().mean() for k in labels.unique()]
    return torch.stack(recalls).mean()


@builds("01.2")
def nearest_mean(clips: torch.Tensor, labels: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Training clips [B, C, T, H, W], their labels [B] and new clips [M, C, T, H, W] -> classes [M]"""
    means = torch.stack([clips[labels == k].float().mean(dim=0) for k in range(labels.max() + 1)])  # [K, C, T, H, W]
    distances = torch.cdist(new.float().flatten(1), means.flatten(1))  # [M, K]
    return distances.argmin(dim=1)


@builds("01.3")
def split_by_patient(patients: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Patients [B] of the clips -> bool [B], True for the clips of the patients that are held out"""
    numbers = patients.unique()
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    return torch.isin(patients, shuffled[: round(share * len(numbers))])


@builds("01.4")
def mirrored(
    clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and labels [B], those flipped for which chosen [B] is True"""
    clips, labels = clips.clone(), labels.clone()
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels
