"""`movingshapes`: clips whose class shows only in the order of their frames.

Each class has a twin that shows the same frames in the opposite order: a shape grows or shrinks, turns left or
right, two approach or part, a square appears before a disc or after it. Every motion is a cycle that a clip
enters at a random place, so that each frame of a cycle is as likely as any other at any time of the clip, for
both twins. Neither one frame nor all frames without their order tell twins apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from einops import rearrange

from ..volumes import Mirror, Split, Volumes

SHAPE_CLASSES = ("grow", "shrink", "turn left", "turn right", "approach", "part", "square first", "disc first")
TWIN = (1, 0, 3, 2, 5, 4, 7, 6)
MIRROR = Mirror(3, (0, 1, 3, 2, 4, 5, 6, 7))  # in a mirror what turns left turns right; nothing else changes
CYCLES = {"train": 400, "val": 100, "test": 200}  # each gives two clips, of a class and of its twin

Number = float | torch.Tensor  # that broadcasts against [T, H, W]
Motion = Callable[["Canvas", torch.Tensor, "Lot"], torch.Tensor]


def generate_shapes(size: int = 28, *, cycles: Mapping[str, int] = CYCLES, seed: int = 0) -> Volumes:
    """Generate the data set: clips uint8 [B, 1, size, size, size], of `size` frames; always the same for a seed.

    Clips 2i and 2i + 1 are twins: the same frames, once forwards and once backwards, each from a random frame on.
    size: frames, and pixels of a side. cycles: how many for each split; each gives two clips. seed: a whole number.
    """
    splits = {}
    for number, name in enumerate(("train", "val", "test")):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        splits[name] = draw_split(cycles.get(name, 4), size, generator)
    return Volumes("movingshapes", SHAPE_CLASSES, **splits, mirror=MIRROR, film=True)


def draw_split(count: int, size: int, generator: torch.Generator) -> Split:
    """Draw the clips of `count` cycles and of their twins, as many of each motion."""
    from tqdm.auto import tqdm

    kinds = torch.arange(count) % len(MOTIONS)  # as many of each
    clips = torch.empty(count, 2, 1, size, size, size, dtype=torch.uint8)  # [cycles, twins, C, T, H, W]
    for cycle, kind in tqdm(zip(clips, kinds), total=count, desc="moving shapes", disable=size < 64):
        frames = draw_cycle(MOTIONS[kind], size, generator)  # [T, H, W]
        starts = torch.randint(size, (2,), generator=generator).tolist()
        cycle[0, 0], cycle[1, 0] = frames.roll(starts[0], 0), frames.flip(0).roll(starts[1], 0)
    labels = torch.stack((2 * kinds, 2 * kinds + 1), dim=1)
    return Split(rearrange(clips, "n twins c t h w -> (n twins) c t h w"), labels.flatten())


def draw_cycle(motion: Motion, size: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the frames of one cycle, uint8 [T, H, W]: the motion, distractors that come and go at random, noise."""
    lot = Lot(generator)
    phase = (torch.arange(size) + 0.5)[:, None, None] / size  # [T, 1, 1], from 0 to 1
    across = torch.linspace(-1, 1, size)
    canvas = Canvas(across[None, None, :], across[None, :, None])  # x [1, 1, W], y [1, H, 1]
    picture = torch.full((size, size, size), lot(0, 0.25))
    for _ in range(3):
        shown = torch.rand(size, 1, 1, generator=generator) < 0.3
        there = canvas.disc if lot(0, 1) < 0.5 else canvas.square
        picture = picture.lerp(torch.tensor(lot(0.3, 0.7)), there(lot(-0.9, 0.9), lot(-0.9, 0.9), 0.12) * shown)
    picture = picture.lerp(torch.tensor(lot(0.75, 1)), motion(canvas, phase, lot))
    picture = picture + lot(0.02, 0.08) * torch.randn(picture.shape, generator=generator)
    return (255 * picture.clamp(0, 1)).round().to(torch.uint8)


class Lot:
    """Numbers drawn between two bounds."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def __call__(self, low: float, high: float) -> float:
        """Return one number from `low` up to `high`."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()


class Canvas:
    """How much of each pixel a shape covers, 0 to 1: [T, H, W]. The frame reaches from -1 to 1 both ways."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.sharpness = x.shape[-1] / 2  # pixels in 1

    def disc(self, x: Number, y: Number, radius: Number) -> torch.Tensor:
        """A disc around (x, y)."""
        return self.fill(torch.hypot(self.x - x, self.y - y) - radius)

    def square(self, x: Number, y: Number, radius: Number) -> torch.Tensor:
        """A square around (x, y), about as large as the disc of that radius."""
        return self.fill(torch.maximum((self.x - x).abs(), (self.y - y).abs()) - 0.9 * radius)

    def pin(self, x: Number, y: Number, radius: Number, angle: torch.Tensor) -> torch.Tensor:
        """A bar with a knob at one end, pointing towards `angle`, which grows to the left (y points down)."""
        along = (self.x - x) * angle.cos() - (self.y - y) * angle.sin()
        across = (self.x - x) * angle.sin() + (self.y - y) * angle.cos()
        bar = torch.maximum(along.abs() - radius, across.abs() - 0.22 * radius)
        knob = torch.hypot(along - 0.7 * radius, across) - 0.45 * radius
        return self.fill(torch.minimum(bar, knob))

    def fill(self, distance: torch.Tensor) -> torch.Tensor:
        """Return 1 inside (distance below 0), 0 outside, in between at the edge."""
        return (0.5 - distance * self.sharpness).clamp(0, 1)


# ---- the motions: which pixels are covered at each phase of the cycle ------------------------------------------


def grow(canvas: Canvas, phase: torch.Tensor, lot: Lot) -> torch.Tensor:
    """A disc or a square that grows."""
    shape = canvas.disc if lot(0, 1) < 0.5 else canvas.square
    return shape(lot(-0.4, 0.4), lot(-0.4, 0.4), lot(0.1, 0.2) + lot(0.3, 0.45) * phase)


def turn_left(canvas: Canvas, phase: torch.Tensor, lot: Lot) -> torch.Tensor:
    """A pin that turns once, anticlockwise."""
    angle = lot(0, 2 * math.pi) + 2 * math.pi * phase
    return canvas.pin(lot(-0.4, 0.4), lot(-0.4, 0.4), lot(0.35, 0.55), angle)


def approach(canvas: Canvas, phase: torch.Tensor, lot: Lot) -> torch.Tensor:
    """Two discs that approach until they touch."""
    x, y, direction, radius = lot(-0.25, 0.25), lot(-0.25, 0.25), lot(0, math.pi), lot(0.15, 0.22)
    apart = lot(0.55, 0.7) * (1 - phase) + radius * phase  # at the end they touch
    first, second = (
        canvas.disc(x + way * apart * math.cos(direction), y + way * apart * math.sin(direction), radius)
        for way in (1, -1)
    )
    return torch.maximum(first, second)


def square_first(canvas: Canvas, phase: torch.Tensor, lot: Lot) -> torch.Tensor:
    """A square for a third of the cycle, a disc for the next, then neither."""
    radius = lot(0.2, 0.35)
    square = canvas.square(lot(-0.6, 0.6), lot(-0.6, 0.6), radius) * (phase < 1 / 3)
    return torch.maximum(
        square, canvas.disc(lot(-0.6, 0.6), lot(-0.6, 0.6), radius) * ((phase > 1 / 3) & (phase < 2 / 3))
    )


MOTIONS = (grow, turn_left, approach, square_first)
