"""Soft labels, and batches blended with themselves: label smoothing, mixup and CutMix-3D."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..errors import ConfigError
from .draws import beta, boxes, check_batch, check_strengths, to_float, uniform


def soften(labels: torch.Tensor, num_classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Turn labels into soft targets: 1 - smoothing on the label, and smoothing spread evenly over all classes.

    labels: int64 [B], or targets [B, K] that are soft already. num_classes: K. smoothing: in [0, 1]; 0 gives one-hot
    rows (Szegedy et al. 2016, section 7). Returns float32 [B, K], rows summing to 1. Raises ConfigError where a label
    is not one of the K classes.
    """
    check_strengths(smoothing=smoothing)
    if labels.ndim == 1 and not labels.is_floating_point():
        check_labels(labels, num_classes)
        targets = F.one_hot(labels.long(), num_classes).float()  # [B] -> [B, K]
    elif labels.ndim == 2 and labels.shape[1] == num_classes:
        targets = labels.float()
    else:
        raise ConfigError(
            f"labels {labels.dtype} {tuple(labels.shape)} were given for {num_classes} "
            f"classes: they must be integers [B] or soft targets [B, {num_classes}]"
        )
    return targets * (1 - smoothing) + smoothing / num_classes


def check_labels(labels: torch.Tensor, num_classes: int) -> None:
    """Raise ConfigError unless integer labels [B] lie in 0..num_classes - 1; only where reading them is free."""
    on_host = labels.device.type == "cpu"  # elsewhere a look at the values would wait for the device
    if on_host and len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ConfigError(
            f"labels from {labels.min()} to {labels.max()} were given for {num_classes} "
            f"classes: they must lie in 0..{num_classes - 1}"
        )


def blend(clips: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight · batch + (1 - weight) · the batch rolled on by one; targets by the share of voxels of each.

    Batches are shuffled, so the neighbour is a random partner (as in torchvision's MixUp and CutMix). clips: uint8 or
    float [B, C, T, H, W]. targets: float [B, K]. weight: float in [0, 1], [B, 1, 1, 1, 1] or, voxel by voxel,
    [B, 1, T, H, W]. Returns float32 clips and targets of the same shapes. Raises ConfigError where shapes do not fit.
    """
    _check(clips, targets)
    if not isinstance(weight, torch.Tensor) or weight.shape[:2] != (len(clips), 1) or weight.ndim != 5:
        given = tuple(weight.shape) if isinstance(weight, torch.Tensor) else repr(weight)
        raise ConfigError(
            f"a weight {given} was given for {len(clips)} clips: it must be a tensor "
            f"[{len(clips)}, 1, 1, 1, 1] or, voxel by voxel, [{len(clips)}, 1, T, H, W]"
        )
    return _blend(clips, targets, weight.float())


def mixup(
    clips: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add two clips, and their targets, in the parts λ and 1 - λ (Zhang et al. 2018).

    λ is the larger of l and 1 - l, with l ~ Beta(α, α) drawn for each clip, so that each clip is the larger part of
    exactly one blend. With l itself a quarter of a batch would be the larger part of none, and a quarter of two; a
    single blend is distributed alike, since Beta(α, α) is symmetric and the partner random. (The authors' code draws
    one l for the whole batch, where no clip can be missing.) Shapes as in `blend`. A small α leaves most clips nearly
    whole; with α = 1 every λ from 1/2 to 1 is equally likely; 0 is off.
    """
    _check(clips, targets, generator, mixup=alpha)
    return mix(clips, targets, alpha, 0.0, generator)


def cutmix(
    clips: torch.Tensor, targets: torch.Tensor, alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Paste in a box of the neighbour, about 1 - λ of the volume; λ ~ Beta(α, α) for each clip (Yun et al. 2019).

    Shapes as in `blend`. The box is centred anywhere and cut off at the border, and its edges are whole voxels: the
    targets follow what was pasted, not λ. An axis of one voxel is pasted whole. An α of 0 is off.
    """
    _check(clips, targets, generator, cutmix=alpha)
    return mix(clips, targets, 0.0, alpha, generator)


def mix(
    clips: torch.Tensor, targets: torch.Tensor, mixup_alpha: float, cutmix_alpha: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Apply mixup, cutmix or, where neither α is 0, one of the two to each clip by the toss of a coin.

    Shapes as in `blend`; the caller has checked them. Returns float32 clips and targets.
    """
    if mixup_alpha and cutmix_alpha:
        coin = uniform(0, 1, (len(clips), 1, 1, 1, 1), clips, generator) < 0.5
        added, pasted = _mixup_weight(clips, mixup_alpha, generator), _cutmix_weight(clips, cutmix_alpha, generator)
        return _blend(clips, targets, torch.where(coin, added, pasted))
    if mixup_alpha:
        return _blend(clips, targets, _mixup_weight(clips, mixup_alpha, generator))
    if cutmix_alpha:
        return _blend(clips, targets, _cutmix_weight(clips, cutmix_alpha, generator))
    return to_float(clips), targets.float()


def _blend(clips: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    clips, targets, share = to_float(clips), targets.float(), weight.mean((2, 3, 4))  # [B, 1]
    return torch.lerp(clips.roll(1, 0), clips, weight), torch.lerp(targets.roll(1, 0), targets, share)


def _mixup_weight(clips: torch.Tensor, alpha: float, generator: torch.Generator) -> torch.Tensor:
    part = beta(alpha, clips, generator)
    return torch.maximum(part, 1 - part).reshape(-1, 1, 1, 1, 1)  # each clip is the larger part of its own blend


def _cutmix_weight(clips: torch.Tensor, alpha: float, generator: torch.Generator) -> torch.Tensor:
    part, sizes = 1 - beta(alpha, clips, generator), clips.shape[2:]  # [B]: of the volume is replaced
    axes = sum(size > 1 for size in sizes)  # with edges of e along n axes a box holds e^n of the volume
    edges, spans = part ** (1 / max(axes, 1)), []
    for size in sizes:
        centre = uniform(0, size, (len(clips),), clips, generator).floor()
        half = (edges * size / 2).floor() if size > 1 else 1.0
        spans.append((centre - half, centre + half))
    return (~boxes(spans, clips)).float()


def _check(
    clips: torch.Tensor, targets: torch.Tensor, generator: torch.Generator | None = None, **strengths: float
) -> None:
    check_batch(clips, generator)
    check_strengths(**strengths)
    if targets.ndim != 2 or len(targets) != len(clips) or not targets.is_floating_point():
        raise ConfigError(
            f"targets {targets.dtype} {tuple(targets.shape)} were given for {len(clips)} "
            f"clips: they must be float [{len(clips)}, K]; "
            "make them with soften(labels, num_classes)"
        )
