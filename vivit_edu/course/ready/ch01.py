"""Chapter 01, volumes as videos: what its exercises build, finished."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .registry import builds

if TYPE_CHECKING:
    from ...volumes import Mirror


@builds("01.1")
def split_by_patient(patients: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """The patient of each clip, int64 [B] -> bool [B], True for the clips of the patients that are held out"""
    numbers = patients.unique()
    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    return torch.isin(patients, shuffled[: round(share * len(numbers))])


@builds("01.1")
def nearest_neighbour_accuracy(vectors: torch.Tensor, labels: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Vectors [B, D], int64 [B], bool [B] -> how often a held-out vector has the label of the nearest other one"""
    nearest = torch.cdist(vectors[held], vectors[~held]).argmin(dim=1)
    return (labels[~held][nearest] == labels[held]).double().mean()


@builds("01.2")
def balanced_accuracy(guesses: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """int64 [B] and int64 [B] -> the mean over the classes of the share of each that was guessed right"""
    recalls = [(guesses[labels == k] == k).double().mean() for k in labels.unique()]
    return torch.stack(recalls).mean()


@builds("01.2")
def auc(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Scores [B, K] and int64 [B] -> how often a clip of a class has a higher score for it than another clip"""
    shares = []
    for k in labels.unique():
        of_class, others = scores[labels == k, k, None], scores[labels != k, k]
        wins = (of_class > others).double() + 0.5 * (of_class == others)
        shares.append(wins.mean())
    return torch.stack(shares).mean()


@builds("01.3")
def distances_to_means(clips: torch.Tensor, labels: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """Clips [B, ...] with labels [B], and new clips [M, ...] -> their distance to the mean of each class, [M, K]"""
    means = torch.stack([clips[labels == k].float().mean(dim=0) for k in range(labels.max() + 1)])  # [K, ...]
    return torch.cdist(new.float().flatten(1), means.flatten(1))


@builds("01.4")
def comparable(scores: torch.Tensor) -> torch.Tensor:
    """Scores [B, K] of B clips -> float64 [B, K] on one scale: each clip's with mean 0 and standard deviation 1"""
    scores = scores.double()
    scores = scores - scores.mean(dim=1, keepdim=True)
    return scores / scores.std(dim=1, keepdim=True, correction=0)


@builds("01.5")
def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Two volumes of one shape -> 1 if they are alike, 0 if unrelated, -1 if bright and dark are exchanged"""
    return torch.cosine_similarity((a - a.mean()).flatten(), (b - b.mean()).flatten(), dim=0)


@builds("01.5")
def mirror_axis(right: torch.Tensor, left: torch.Tensor) -> int:
    """Two mean volumes [C, T, H, W] -> the axis, 1, 2 or 3, along which flipping `right` comes closest to `left`"""
    return max((1, 2, 3), key=lambda axis: correlation(right.flip(axis), left).item())


@builds("01.6")
def mirrored(
    clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, C, T, H, W] and labels [B], flipped and renamed where chosen [B] is True"""
    clips, labels = clips.clone(), labels.clone()
    clips[chosen] = clips[chosen].flip(mirror.axis + 1)
    labels[chosen] = torch.tensor(mirror.permutation)[labels[chosen]]
    return clips, labels


@builds("01.8")
def pick_winner(
    hits: torch.Tensor, patients: torch.Tensor, choosing: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right or wrong, bool [V, B], of V classifiers -> the accuracy of the best on `choosing` patients, there and on
    the others"""
    seen = torch.isin(patients, choosing)
    winner = hits[hits[:, seen].double().mean(dim=1).argmax()]  # [B]
    return winner[seen].double().mean(), winner[~seen].double().mean()
