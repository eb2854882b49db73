"""Augmentation of whole batches on their device: what may change in a volume and leave its class.

Each operation takes clips uint8 (0..255) or float ([0, 1]) of shape [B, C, T, H, W] and a `torch.Generator`,
and draws once a clip, the same for all its frames. A strength is a number or, one a clip, a tensor [B]; 0 is
off. The operations that move voxels are in `warp`, those that blend clips in `mixing`.
"""

from dataclasses import dataclass, fields

import torch
from einops import einsum, rearrange

from ..errors import ConfigError
from ..support.options import check_switch, check_whole
from .draws import MOST, check, check_strengths, normal, random_boxes, to_float, uniform
from .mixing import mix, soften
from .warp import move, warp

# the strengths at the top of RandAugment's scale, for volumes where left and right must stay apart
STRONGEST = {
    "shift": 0.25,
    "rotate": 20.0,
    "scale": 0.25,
    "shear": 0.2,
    "elastic": 0.04,
    "gain": 0.5,
    "bias": 0.25,
    "gamma": 0.7,
    "blur": 1.5,
    "noise": 0.15,
    "erase": 1.0,
}


@dataclass(frozen=True)
class Augmentation:
    """How strongly a batch is augmented. Units as in the operations of these names; 0 is off, at no cost."""

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    gain: float = 0.0
    bias: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    mirror: bool = False  # flips; where labels have sides they are swapped
    film: bool = False  # T is time: nothing moves from frame to frame, and no film runs backwards unasked
    rand_layers: int = 0  # how many operations RandAugment draws for a clip
    rand_magnitude: float = 0.0  # and their strength, 0..30
    mixup: float = 0.0  # α
    cutmix: float = 0.0  # α
    smoothing: float = 0.0

    def __post_init__(self):
        for name in ("mirror", "film"):
            check_switch(name, getattr(self, name))
        check_whole("rand_layers", self.rand_layers, 0)
        check_strengths(**{field.name: getattr(self, field.name) for field in fields(self)})


def augment_batch(augmentation, clips, labels, num_classes, mirror, generator):
    """One training batch, augmented.

    Args:
        augmentation: what to do, and how strongly.
        clips: uint8 or float [B, C, T, H, W].
        labels: int64 [B], or soft targets [B, K].
        num_classes: K.
        mirror: `Volumes.mirror`; used where `augmentation.mirror` is set.
        generator: the only source of randomness, on the clips' device or on the CPU.

    Returns: clips float32 in [0, 1], same shape, and soft targets float32 [B, K], rows summing to 1.
    Raises: ConfigError where shapes and labels do not fit.
    """
    _check_batch(clips, labels)
    targets, frames = soften(labels, num_classes, augmentation.smoothing), clips.shape[2]
    if augmentation.mirror and mirror is not None:
        clips, targets = mirror_batch(clips, targets, mirror, generator)
    if augmentation.film:
        clips = rearrange(clips, "b c t h w -> b (c t) 1 h w")
    if augmentation.mirror and mirror is None:  # now that a film has no axis of time left to flip
        clips, targets = mirror_batch(clips, targets, mirror, generator)
    clips = distort(clips, {name: getattr(augmentation, name) for name in STRONGEST}, generator)
    if augmentation.rand_layers:
        clips = rand_augment(clips, augmentation.rand_layers, augmentation.rand_magnitude, generator)
    clips, targets = mix(to_float(clips), targets, augmentation.mixup, augmentation.cutmix, generator)
    if augmentation.film:
        clips = rearrange(clips, "b (c t) 1 h w -> b c t h w", t=frames)
    return clips, targets


# --- sides ---


def mirror_batch(clips, labels, mirror, generator):
    """Each clip flipped or not by a coin, and its label with it: a mirrored right kidney is a left one.

    Args:
        clips: [B, C, T, H, W].
        labels: int64 [B], or soft targets [B, K].
        mirror: `Volumes.mirror`: the axis of a clip [C, T, H, W] and the label each label turns into. None
            where no label has a side: then each of the three axes has a coin, and labels stay.

    Returns: clips and labels, shapes and types as given.
    """
    _check_batch(clips, labels)
    for axis in _flip_axes(mirror):
        coin = uniform(0, 1, (len(clips),), clips, generator) < 0.5  # [B]
        clips = torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(axis), clips)
        if mirror is not None:
            swapped = swap_sides(labels, mirror)
            labels = torch.where(coin if labels.ndim == 1 else coin[:, None], swapped, labels)
    return clips, labels


def swap_sides(labels, mirror):
    """Labels int64 [B], or targets or logits [B, K], as they are for the mirrored clips."""
    swap = mirror.permutation
    if sorted(swap) != list(range(len(swap))) or any(swap[swap[k]] != k for k in range(len(swap))):
        raise ConfigError(
            f"the label swap {swap} was given: it must name each class once and, "
            "applied twice, give every label back, such as (0, 2, 1)"
        )
    if labels.ndim == 2 and labels.shape[1] != len(swap):
        raise ConfigError(
            f"labels of {labels.shape[1]} classes were given, and a label swap of {len(swap)}: "
            "take the mirror of the same data set"
        )
    swap = torch.tensor(swap).to(labels.device, non_blocking=True)
    return swap[labels] if labels.ndim == 1 else labels[:, swap]  # a swap is its own inverse


def _flip_axes(mirror):
    return (2, 3, 4) if mirror is None else (mirror.axis + 1,)  # a batch has one axis more than a clip


# --- RandAugment ---


def rand_augment(clips, layers, magnitude, generator):
    """RandAugment (Cubuk et al. 2020): `layers` operations for each clip, at one magnitude in 0..30.

    Other than there, they run in the order of `distort` and the magnitude bounds their draws, so that a batch
    costs one resampling whichever fall to its clips; and no clip gets the same one twice. Returns float32
    [B, C, T, H, W].
    """
    check(clips, rand_layers=layers, rand_magnitude=magnitude)
    lots = uniform(0, 1, (len(clips), len(STRONGEST)), clips, generator)
    drawn = lots.argsort(1).argsort(1) < layers  # by the ranks of the lots: [B, operations]
    return distort(
        clips,
        {
            name: drawn[:, column] * (most * magnitude / MOST["rand_magnitude"])
            for column, (name, most) in enumerate(STRONGEST.items())
        },
        generator,
    )


def distort(clips, strengths, generator):
    """Every operation of STRONGEST that has a strength, in that order, on clips [B, C, T, H, W]."""
    on = {name: value for name, value in strengths.items() if isinstance(value, torch.Tensor) or value}
    moves = {name: on[name] for name in ("shift", "rotate", "scale", "shear", "elastic") if name in on}
    if moves:
        clips = warp(clips, generator, **moves)
    for operation in (gain, bias, gamma, blur, noise, erase):
        if operation.__name__ in on:
            clips = operation(clips, on[operation.__name__], generator)
    return clips


# --- what the voxels hold ---


def gain(clips, strength, generator):
    """Times a factor in 1 ± strength, cut off at 0 and 1. float32."""
    check(clips, gain=strength)
    return (to_float(clips) * (1 + _either_way(strength, clips, generator))).clamp(0, 1)


def bias(clips, strength, generator):
    """Plus a number in ± strength, cut off at 0 and 1. float32."""
    check(clips, bias=strength)
    return (to_float(clips) + _either_way(strength, clips, generator)).clamp(0, 1)


def gamma(clips, strength, generator):
    """To a power from exp(-strength) to exp(strength): brighter as often as darker. float32."""
    check(clips, gamma=strength)
    return to_float(clips) ** _either_way(strength, clips, generator).exp()


def blur(clips, strength, generator):
    """Smoothed by a Gaussian along T, H and W, of a standard deviation from 0 to strength voxels. float32."""
    check(clips, blur=strength)
    sigma = uniform(0, strength, (len(clips), 1, 1), clips, generator)
    # a convolution with a kernel of its own for each clip is a product with one matrix [size, size] a clip;
    # its rows sum to 1, so that the kernel is cut at the border and no darkness leaks in
    t, h, w = (
        torch.softmax(-_squared_distances(size, sigma) / (2 * sigma**2 + 1e-6), dim=-1) for size in clips.shape[2:]
    )
    clips = einsum(to_float(clips), w, "b c t h i, b w i -> b c t h w")
    clips = einsum(clips, h, "b c t i w, b h i -> b c t h w")
    return einsum(clips, t, "b c i h w, b t i -> b c t h w")


def noise(clips, strength, generator):
    """Plus Gaussian noise in every voxel, its standard deviation 0 to strength, cut at 0 and 1. float32."""
    check(clips, noise=strength)
    sigma = uniform(0, strength, (len(clips), 1, 1, 1, 1), clips, generator)
    return (to_float(clips) + sigma * normal(clips.shape, clips, generator)).clamp(0, 1)


def erase(clips, strength, generator):
    """With probability `strength` 0 in a box with edges of 1/5 to 1/2 of each axis (Zhong et al. 2020)."""
    check(clips, erase=strength)
    chosen = uniform(0, 1, (len(clips),), clips, generator) < strength
    edges = uniform(0.2, 0.5, (len(clips),), clips, generator)
    return clips.masked_fill(random_boxes(clips, edges, generator) & chosen.reshape(-1, 1, 1, 1, 1), 0)


def _either_way(strength, clips, generator):
    return uniform(-strength, strength, (len(clips), 1, 1, 1, 1), clips, generator)


def _squared_distances(size, like):
    place = torch.arange(size, device=like.device, dtype=torch.float32)
    return (place[:, None] - place) ** 2  # [size, size]


# --- test time ---


def test_views(clips, mirror, shifts=((0, 0, 0),), *, flips=True):
    """The views of a batch to average over: at each shift the clips as they are, then mirrored.

    Args:
        clips: [B, C, T, H, W].
        mirror: `Volumes.mirror`; None gives one flip along each of the three axes.
        shifts: whole voxels along T, H, W, up to half an axis.
        flips: False for shifts alone, as for films.

    Yields: (view, swapped): whether the view shows the classes of the other side.
    """
    check(clips)
    for shift in shifts:
        if len(shift) != 3 or any(abs(s) > size // 2 for s, size in zip(shift, clips.shape[2:])):
            raise ConfigError(
                f"the shift {shift} was given for clips of {tuple(clips.shape[2:])} voxels: "
                "it must be three whole numbers, each at most half an axis"
            )
        view = move(clips, torch.tensor([shift] * len(clips)).to(clips.device, non_blocking=True))
        yield view, False
        for axis in _flip_axes(mirror) if flips else ():
            yield view.flip(axis), mirror is not None


def predict_views(model, clips, mirror, shifts=((0, 0, 0),), *, flips=True):
    """The model's logits, averaged over the `test_views` of clips [B, C, T, H, W]: [B, K].

    A mirrored view's logits are swapped back first. The model is called as it is: put it into eval mode, and
    turn gradients off, before.
    """
    logits = [
        swap_sides(model(to_float(view)), mirror) if swapped else model(to_float(view))
        for view, swapped in test_views(clips, mirror, shifts, flips=flips)
    ]
    return torch.stack(logits).mean(0)


def _check_batch(clips, labels):
    check(clips)
    if labels.ndim not in (1, 2) or len(labels) != len(clips):
        raise ConfigError(
            f"labels of shape {tuple(labels.shape)} were given for {len(clips)} clips: "
            f"they must be [{len(clips)}] or soft targets [{len(clips)}, K]"
        )
