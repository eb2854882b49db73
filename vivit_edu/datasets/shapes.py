"""`movingshapes`: clips whose class only the order of time tells.

Each class has a twin that shows the same frames in the opposite order: a shape grows or shrinks, turns left or
right, two approach or part, a square appears before a disc or after it. Every motion is a cycle that a clip
enters at a random place, so that each frame of a cycle is as likely as any other at any time of the clip, for
both twins: whoever looks at one frame, or at all frames without their order, has nothing to tell twins by.
"""

import math

import torch
from einops import rearrange

from ..volumes import Mirror, Split, Volumes

CLASSES = ("grow", "shrink", "turn left", "turn right", "approach", "part", "square first", "disc first")
TWIN = (1, 0, 3, 2, 5, 4, 7, 6)
MIRROR = Mirror(3, (0, 1, 3, 2, 4, 5, 6, 7))  # in a mirror what turns left turns right; nothing else changes
CYCLES = {"train": 400, "val": 100, "test": 200}  # each gives two clips, of a class and of its twin


def generate_shapes(size=28, *, cycles=CYCLES, seed=0) -> Volumes:
    """The data set: clips uint8 [N, 1, size, size, size], of `size` frames; always the same for a seed.

    Clips 2i and 2i + 1 are twins: the same frames, once forwards and once backwards, each from a frame drawn by lot.
    """
    splits = {}
    for number, name in enumerate(("train", "val", "test")):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        splits[name] = draw_split(cycles.get(name, 4), size, generator)
    return Volumes("movingshapes", CLASSES, **splits, mirror=MIRROR, film=True)


def draw_split(count, size, generator):
    from tqdm.auto import tqdm

    kinds = torch.arange(count) % len(MOTIONS)  # as many of each
    clips = torch.empty(count, 2, 1, size, size, size, dtype=torch.uint8)  # [cycles, twins, C, T, H, W]
    for cycle, kind in tqdm(zip(clips, kinds), total=count, desc="moving shapes", disable=size < 64):
        frames = draw_cycle(MOTIONS[kind], size, generator)  # [T, H, W]
        starts = torch.randint(size, (2,), generator=generator).tolist()
        cycle[0, 0], cycle[1, 0] = frames.roll(starts[0], 0), frames.flip(0).roll(starts[1], 0)
    labels = torch.stack((2 * kinds, 2 * kinds + 1), dim=1)
    return Split(rearrange(clips, "n twins c t h w -> (n twins) c t h w"), labels.flatten())


def draw_cycle(motion, size, generator):
    """The frames of one cycle, uint8 [T, H, W]: the motion, distractors that come and go at random, noise."""
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

    def __init__(self, generator):
        self.generator = generator

    def __call__(self, low, high):
        return low + (high - low) * torch.rand((), generator=self.generator).item()


class Canvas:
    """How much of each pixel a shape covers, 0 to 1: [T, H, W]. The frame reaches from -1 to 1 both ways."""

    def __init__(self, x, y):
        self.x, self.y = x, y
        self.sharpness = x.shape[-1] / 2  # pixels in 1

    def disc(self, x, y, radius):
        return self.fill(torch.hypot(self.x - x, self.y - y) - radius)

    def square(self, x, y, radius):
        return self.fill(torch.maximum((self.x - x).abs(), (self.y - y).abs()) - 0.9 * radius)

    def pin(self, x, y, radius, angle):
        """A bar with a knob at one end, pointing towards `angle`, which grows to the left (y points down)."""
        along = (self.x - x) * angle.cos() - (self.y - y) * angle.sin()
        beside = (self.x - x) * angle.sin() + (self.y - y) * angle.cos()
        bar = torch.maximum(along.abs() - radius, beside.abs() - 0.22 * radius)
        knob = torch.hypot(along - 0.7 * radius, beside) - 0.45 * radius
        return self.fill(torch.minimum(bar, knob))

    def fill(self, distance):
        """1 inside (distance below 0), 0 outside, in between at the edge."""
        return (0.5 - distance * self.sharpness).clamp(0, 1)


# ---- the motions: which pixels are covered at each phase of the cycle ------------------------------------------


def grow(canvas, phase, lot):
    shape = canvas.disc if lot(0, 1) < 0.5 else canvas.square
    return shape(lot(-0.4, 0.4), lot(-0.4, 0.4), lot(0.1, 0.2) + lot(0.3, 0.45) * phase)


def turn_left(canvas, phase, lot):
    angle = lot(0, 2 * math.pi) + 2 * math.pi * phase
    return canvas.pin(lot(-0.4, 0.4), lot(-0.4, 0.4), lot(0.35, 0.55), angle)


def approach(canvas, phase, lot):
    x, y, direction, radius = lot(-0.25, 0.25), lot(-0.25, 0.25), lot(0, math.pi), lot(0.15, 0.22)
    apart = lot(0.55, 0.7) * (1 - phase) + radius * phase  # at the end they touch
    first, second = (
        canvas.disc(x + way * apart * math.cos(direction), y + way * apart * math.sin(direction), radius)
        for way in (1, -1)
    )
    return torch.maximum(first, second)


def square_first(canvas, phase, lot):
    """A square for a third of the cycle, a disc for the next, then neither."""
    radius = lot(0.2, 0.35)
    square = canvas.square(lot(-0.6, 0.6), lot(-0.6, 0.6), radius) * (phase < 1 / 3)
    return torch.maximum(
        square, canvas.disc(lot(-0.6, 0.6), lot(-0.6, 0.6), radius) * ((phase > 1 / 3) & (phase < 2 / 3))
    )


MOTIONS = (grow, turn_left, approach, square_first)
