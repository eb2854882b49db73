"""Soft labels, and batches blended with themselves: label smoothing, mixup and CutMix-3D."""

import torch
import torch.nn.functional as F

from ..errors import ConfigError
from .draws import beta, check, check_strengths, random_boxes, to_float, uniform


def soften(labels, num_classes, smoothing=0.0):
    """Soft targets: 1 - smoothing on the label, and smoothing spread evenly over all classes.

    Args:
        labels: int64 [B], or targets [B, K] that are soft already.
        num_classes: K.
        smoothing: in [0, 1]; 0 gives one-hot rows (Szegedy et al. 2016, section 7).

    Returns: float32 [B, K], rows summing to 1.
    Raises: ConfigError where labels are none of the K classes.
    """
    check_strengths(smoothing=smoothing)
    if labels.ndim == 1 and not labels.is_floating_point():
        on_host = labels.device.type == "cpu"  # elsewhere a look at the values would wait for the device
        if on_host and len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
            raise ConfigError(
                f"labels from {labels.min()} to {labels.max()} were given for {num_classes} "
                f"classes: they must lie in 0..{num_classes - 1}"
            )
        targets = F.one_hot(labels.long(), num_classes).float()  # [B] -> [B, K]
    elif labels.ndim == 2 and labels.shape[1] == num_classes:
        targets = labels.float()
    else:
        raise ConfigError(
            f"labels {labels.dtype} {tuple(labels.shape)} were given for {num_classes} "
            f"classes: they must be integers [B] or soft targets [B, {num_classes}]"
        )
    return targets * (1 - smoothing) + smoothing / num_classes


def blend(clips, targets, weight):
    """weight · batch + (1 - weight) · the batch rolled on by one; the targets by the share of voxels of each.

    Batches are shuffled, so the neighbour is a random partner (as in torchvision's MixUp and CutMix).

    Args:
        clips: uint8 or float [B, C, T, H, W].
        targets: float [B, K].
        weight: float in [0, 1], [B, 1, 1, 1, 1] or, voxel by voxel, [B, 1, T, H, W].

    Returns: float32 clips and targets of the same shapes.
    """
    check(clips)
    if targets.ndim != 2 or len(targets) != len(clips) or not targets.is_floating_point():
        raise ConfigError(
            f"targets {targets.dtype} {tuple(targets.shape)} were given for {len(clips)} "
            f"clips: they must be float [{len(clips)}, K]; "
            "make them with soften(labels, num_classes)"
        )
    clips, share = to_float(clips), weight.mean((2, 3, 4))  # [B, 1]
    return torch.lerp(clips.roll(1, 0), clips, weight), torch.lerp(targets.roll(1, 0), targets, share)


def mixup(clips, targets, alpha, generator):
    """Two clips and their targets added in the parts λ and 1 - λ, λ ~ Beta(α, α) a clip (Zhang et al. 2018).

    Shapes as in `blend`. A small α leaves most clips nearly whole; with α = 1 every λ is as likely.
    """
    check(clips, mixup=alpha)
    return blend(clips, targets, _mixup_weight(clips, alpha, generator))


def cutmix(clips, targets, alpha, generator):
    """A box of the neighbour pasted in, about 1 - λ of the volume, λ ~ Beta(α, α) a clip (Yun et al. 2019).

    Shapes as in `blend`. The targets follow the box as the border cut it, not λ.
    """
    check(clips, cutmix=alpha)
    return blend(clips, targets, _cutmix_weight(clips, alpha, generator))


def mix(clips, targets, mixup_alpha, cutmix_alpha, generator):
    """mixup, cutmix or, where neither α is 0, one of the two for each clip by the toss of a coin."""
    if mixup_alpha and cutmix_alpha:
        coin = uniform(0, 1, (len(clips), 1, 1, 1, 1), clips, generator) < 0.5
        return blend(
            clips,
            targets,
            torch.where(
                coin, _mixup_weight(clips, mixup_alpha, generator), _cutmix_weight(clips, cutmix_alpha, generator)
            ),
        )
    if mixup_alpha:
        return mixup(clips, targets, mixup_alpha, generator)
    if cutmix_alpha:
        return cutmix(clips, targets, cutmix_alpha, generator)
    return clips, targets


def _mixup_weight(clips, alpha, generator):
    return beta(alpha, clips, generator).reshape(-1, 1, 1, 1, 1)


def _cutmix_weight(clips, alpha, generator):
    part = 1 - beta(alpha, clips, generator)  # of the volume is replaced
    axes = sum(size > 1 for size in clips.shape[2:])  # with edges of e along n axes a box holds e^n of it
    return (~random_boxes(clips, part ** (1 / max(axes, 1)), generator)).float()
