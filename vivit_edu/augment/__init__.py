"""Augmentation of whole batches on their device: what may change in a volume without changing its class.

Each operation takes clips uint8 (0..255) or float ([0, 1]) of shape [B, C, T, H, W] and a `torch.Generator`, and makes
one draw for each clip, the same for all its frames. A strength is a number or, one for each clip, a tensor [B]; 0 is
off. The operations that move voxels are in `warp`, those that blend clips and labels in `mixing`, and the random
numbers under all of them in `draws`.

What you call checks its input once, at the door; what it calls in turn does not check again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import TYPE_CHECKING

import torch
from einops import einsum, rearrange

from ..errors import ConfigError
from ..support.options import check_switch, check_whole
from . import mixing, warp
from .draws import MOST, Strength, boxes, check_batch, check_strengths, checked, normal, to_float, uniform

if TYPE_CHECKING:
    from ..volumes import Mirror

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
    """How strongly a batch is augmented. Units as in the operations of these names; 0 is off, at no cost.

    Raises ConfigError where a strength is not a plain number in its range.
    """

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
    roll: bool = False  # each clip begins at a frame of its own: for clips that are cycles, as in movingshapes
    mirror: bool = False  # flips; where labels have sides they are swapped
    film: bool = False  # T is time: nothing moves from frame to frame, and no film is run backwards
    rand_layers: int = 0  # how many operations RandAugment draws for a clip
    rand_magnitude: float = 0.0  # and their strength, 0..30
    mixup: float = 0.0  # α
    cutmix: float = 0.0  # α
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        switches = ("roll", "mirror", "film")
        for name in switches:
            check_switch(name, getattr(self, name))
        check_whole("rand_layers", self.rand_layers, 0)
        check_strengths(
            **{field.name: getattr(self, field.name) for field in fields(self) if field.name not in switches}
        )
        if self.rand_layers and not self.rand_magnitude:
            raise ConfigError(
                f"rand_layers={self.rand_layers} was given with rand_magnitude=0: the operations would be drawn and "
                f"change nothing. Give a rand_magnitude up to {MOST['rand_magnitude']:g}, or leave rand_layers at 0"
            )


def augment_batch(
    augmentation: Augmentation,
    clips: torch.Tensor,
    labels: torch.Tensor,
    num_classes: int,
    mirror: Mirror | None,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment one training batch.

    augmentation: what to do, and how strongly. clips: uint8 or float [B, C, T, H, W]. labels: int64 [B], or soft
    targets [B, K]. num_classes: K. mirror: `Volumes.mirror`; used where `augmentation.mirror` is set. generator: the
    only source of randomness, on the clips' device or on the CPU.

    Returns clips float32 in [0, 1], same shape, and soft targets float32 [B, K], rows summing to 1. Raises ConfigError
    where shapes and labels do not fit.
    """
    _check_labelled(clips, labels, generator)
    targets, frames = mixing.soften(labels, num_classes, augmentation.smoothing), clips.shape[2]
    if augmentation.roll:
        clips = _roll_clips(clips, generator)
    if augmentation.mirror and mirror is not None:
        clips, targets = _mirror_batch(clips, targets, mirror, generator)
    if augmentation.film:
        clips = rearrange(clips, "b c t h w -> b (c t) 1 h w")
    if augmentation.mirror and mirror is None:  # now that a film has no axis of time left to flip
        clips, targets = _mirror_batch(clips, targets, mirror, generator)
    clips = _distort(clips, {name: getattr(augmentation, name) for name in STRONGEST}, generator)
    if augmentation.rand_layers:
        clips = _rand_augment(clips, augmentation.rand_layers, augmentation.rand_magnitude, generator)
    clips, targets = mixing.mix(clips, targets, augmentation.mixup, augmentation.cutmix, generator)
    if augmentation.film:
        clips = rearrange(clips, "b (c t) 1 h w -> b c t h w", t=frames)
    return clips, targets


# --- time ---


def roll_clips(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Let each clip begin at a frame drawn at random; what comes before it follows at the end.

    For clips that are cycles: their classes stay as they are. clips: [B, C, T, H, W]. Returns shape and type as given.
    """
    check_batch(clips, generator)
    return _roll_clips(clips, generator)


def _roll_clips(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    frames = clips.shape[2]
    start = uniform(0, frames, (len(clips), 1), clips, generator).long()  # [B, 1]
    order = (start + torch.arange(frames, device=clips.device)) % frames  # [B, T]
    return torch.take_along_dim(clips, order[:, None, :, None, None], dim=2)


# --- sides ---


def mirror_batch(
    clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Flip each clip or not by the toss of a coin, and its label with it: a mirrored right kidney is a left one.

    clips: [B, C, T, H, W]. labels: int64 [B], or soft targets [B, K]. mirror: `Volumes.mirror`: the axis of a clip
    [C, T, H, W] and the label that each label turns into. None where no label has a side: then each of the three axes
    has its own coin, and labels stay. Returns clips and labels, shapes and types as given.
    """
    _check_labelled(clips, labels, generator)
    return _mirror_batch(clips, labels, mirror, generator)


def _mirror_batch(
    clips: torch.Tensor, labels: torch.Tensor, mirror: Mirror | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    for axis in _flip_axes(mirror):
        coin = uniform(0, 1, (len(clips),), clips, generator) < 0.5  # [B]
        clips = torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(axis), clips)
        if mirror is not None:
            swapped = swap_sides(labels, mirror)
            labels = torch.where(coin if labels.ndim == 1 else coin[:, None], swapped, labels)
    return clips, labels


def swap_sides(labels: torch.Tensor, mirror: Mirror) -> torch.Tensor:
    """Return labels int64 [B], or targets or logits [B, K], as they are for the mirrored clips.

    Raises ConfigError where the swap does not undo itself, or is one of another number of classes.
    """
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
    if labels.ndim == 1:
        mixing.check_labels(labels, len(swap))
    swap = torch.tensor(swap).to(labels.device, non_blocking=True)
    return swap[labels.long()].to(labels.dtype) if labels.ndim == 1 else labels[:, swap]  # its own inverse


def _flip_axes(mirror: Mirror | None) -> tuple[int, ...]:
    return (2, 3, 4) if mirror is None else (mirror.axis + 1,)  # a batch has one axis more than a clip


# --- RandAugment ---


def rand_augment(clips: torch.Tensor, layers: int, magnitude: float, generator: torch.Generator) -> torch.Tensor:
    """Apply RandAugment (Cubuk et al. 2020): `layers` operations to each clip, at one magnitude in 0..30.

    Unlike there, they run in the order of `distort` and the magnitude bounds their draws, so that a batch costs one
    resampling whichever operations its clips draw; and no clip gets the same one twice. Returns float32
    [B, C, T, H, W].
    """
    check_batch(clips, generator)
    check_whole("rand_layers", layers, 0)
    check_strengths(rand_layers=layers, rand_magnitude=magnitude)
    return _rand_augment(clips, layers, magnitude, generator)


def _rand_augment(clips: torch.Tensor, layers: int, magnitude: float, generator: torch.Generator) -> torch.Tensor:
    if not layers or not magnitude:
        return to_float(clips)
    lots = uniform(0, 1, (len(clips), len(STRONGEST)), clips, generator)
    drawn = lots.argsort(1).argsort(1) < layers  # by the ranks of the lots: [B, operations]
    strengths = {
        name: drawn[:, column] * (most * magnitude / MOST["rand_magnitude"])
        for column, (name, most) in enumerate(STRONGEST.items())
    }
    return _distort(clips, strengths, generator)


def distort(clips: torch.Tensor, strengths: Mapping[str, Strength], generator: torch.Generator) -> torch.Tensor:
    """Apply the operations that have a strength, in the order of STRONGEST, to clips [B, C, T, H, W].

    strengths: by the operations' names; one that is missing or 0 is off. Raises ConfigError for an unknown name.
    """
    if unknown := [name for name in strengths if name not in STRONGEST]:
        raise ConfigError(f"no operation is called {unknown[0]!r}; there are {', '.join(STRONGEST)}")
    check_batch(clips, generator, **strengths)
    return _distort(clips, strengths, generator)


def _distort(clips: torch.Tensor, strengths: Mapping[str, Strength], generator: torch.Generator) -> torch.Tensor:
    on = {name: value for name, value in strengths.items() if isinstance(value, torch.Tensor) or value}
    moves = {name: on[name] for name in ("shift", "rotate", "scale", "shear", "elastic") if name in on}
    if moves:
        clips = inspect.unwrap(warp.warp)(clips, generator, **moves)
    for operation in (gain, bias, gamma, blur, noise, erase):
        if operation.__name__ in on:
            clips = inspect.unwrap(operation)(clips, on[operation.__name__], generator)
    return clips


# --- what the voxels hold ---


@checked
def gain(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Multiply by a factor in 1 ± strength, cut off at 0 and 1. Returns float32."""
    return (to_float(clips) * (1 + _either_way(strength, clips, generator))).clamp(0, 1)


@checked
def bias(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Add a number in ± strength, cut off at 0 and 1. Returns float32."""
    return (to_float(clips) + _either_way(strength, clips, generator)).clamp(0, 1)


@checked
def gamma(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Raise to a power from exp(-strength) to exp(strength): brighter as often as darker. Returns float32."""
    return to_float(clips) ** _either_way(strength, clips, generator).exp()


@checked
def blur(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Smooth by a Gaussian along T, H and W, of a standard deviation from 0 to strength voxels. Returns float32."""
    sigma = uniform(0, strength, (len(clips), 1, 1), clips, generator)
    # a convolution with a kernel of its own for each clip is a product with one matrix [size, size] for each clip;
    # its rows sum to 1, so that the kernel is cut at the border and no darkness leaks in
    t, h, w = (
        torch.softmax(-_squared_distances(size, sigma) / (2 * sigma**2 + 1e-6), dim=-1) for size in clips.shape[2:]
    )
    clips = einsum(to_float(clips), w, "b c t h i, b w i -> b c t h w")
    clips = einsum(clips, h, "b c t i w, b h i -> b c t h w")
    return einsum(clips, t, "b c i h w, b t i -> b c t h w")


@checked
def noise(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """Add Gaussian noise to every voxel, its standard deviation 0 to strength, cut at 0 and 1. Returns float32."""
    sigma = uniform(0, strength, (len(clips), 1, 1, 1, 1), clips, generator)
    return (to_float(clips) + sigma * normal(clips.shape, clips, generator)).clamp(0, 1)


@checked
def erase(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
    """With probability `strength` set a box inside the clip to 0 (Zhong et al. 2020). Returns the type given.

    Along each axis the box has between 1/5 and 1/2 of the voxels, and at least one.
    """
    chosen = uniform(0, 1, (len(clips),), clips, generator) < strength
    edges, spans = uniform(0.2, 0.5, (len(clips),), clips, generator), []
    for size in clips.shape[2:]:
        extent = (edges * size).round().clamp(-(-size // 5), max(size // 2, 1))  # whole voxels in 1/5..1/2
        start = uniform(0, size - extent + 1, (len(clips),), clips, generator).floor()
        spans.append((start, start + extent))
    return clips.masked_fill(boxes(spans, clips) & chosen.reshape(-1, 1, 1, 1, 1), 0)


def _either_way(strength: Strength, clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return uniform(-strength, strength, (len(clips), 1, 1, 1, 1), clips, generator)


def _squared_distances(size: int, like: torch.Tensor) -> torch.Tensor:
    place = torch.arange(size, device=like.device, dtype=torch.float32)
    return (place[:, None] - place) ** 2  # [size, size]


# --- test time ---


def test_views(
    clips: torch.Tensor, mirror: Mirror | None, shifts: Sequence[Sequence[int]] = ((0, 0, 0),), *, flips: bool = True
) -> Iterator[tuple[torch.Tensor, bool]]:
    """Yield the views of a batch to average over: at each shift the clips as they are, then mirrored.

    clips: [B, C, T, H, W]. mirror: `Volumes.mirror`; None gives one flip along each of the three axes. shifts: whole
    voxels along T, H, W, up to half an axis. flips: False for shifts alone, as for films.

    Yields (view, swapped): whether the view shows the classes of the other side. Raises ConfigError where clips or
    shifts do not fit.
    """
    check_batch(clips)
    if not shifts:
        raise ConfigError("no shifts were given, so there is no view: ((0, 0, 0),) is the clips where they are")
    for shift in shifts:
        whole = isinstance(shift, (tuple, list)) and all(isinstance(s, Integral) for s in shift)
        if not whole or len(shift) != 3 or any(abs(s) > size // 2 for s, size in zip(shift, clips.shape[2:])):
            raise ConfigError(
                f"the shift {shift} was given for clips of {tuple(clips.shape[2:])} voxels: "
                "it must be three whole numbers, each at most half an axis"
            )
        view = warp.move(clips, torch.tensor([list(shift)] * len(clips)).to(clips.device, non_blocking=True))
        yield view, False
        for axis in _flip_axes(mirror) if flips else ():
            yield view.flip(axis), mirror is not None


def predict_views(
    model: torch.nn.Module,
    clips: torch.Tensor,
    mirror: Mirror | None,
    shifts: Sequence[Sequence[int]] = ((0, 0, 0),),
    *,
    flips: bool = True,
) -> torch.Tensor:
    """Return the model's logits, averaged over the `test_views` of clips [B, C, T, H, W]: [B, K].

    A mirrored view's logits are swapped back first. The model is called as it is: put it into eval mode, and turn
    gradients off, before.
    """
    logits = [
        swap_sides(model(to_float(view)), mirror) if swapped else model(to_float(view))
        for view, swapped in test_views(clips, mirror, shifts, flips=flips)
    ]
    return torch.stack(logits).mean(0)


def _check_labelled(clips: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> None:
    check_batch(clips, generator)
    if not isinstance(labels, torch.Tensor) or labels.ndim not in (1, 2) or len(labels) != len(clips):
        given = f"of shape {tuple(labels.shape)}" if isinstance(labels, torch.Tensor) else repr(labels)
        raise ConfigError(
            f"labels {given} were given for {len(clips)} clips: "
            f"they must be a tensor [{len(clips)}] or soft targets [{len(clips)}, K]"
        )
