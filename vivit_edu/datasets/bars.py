"""`walkingbars`: a bar that walks to the left or to the right, learned in seconds on a CPU (chapters 05 to 08).

A bar stands in one of four columns and moves one column per frame; at the edge it comes in again on the other side.
Each draw gives four frames, one per column, and from them eight clips: four starts, two directions. So all eight clips
hold the same four frames, noise included, and only their order tells the classes apart. In every split each frame is
equally often first, second, third and last, in both classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..volumes import Mirror, Split, Volumes

BAR_CLASSES = ("left", "right")
MIRROR = Mirror(3, (1, 0))  # in a mirror what walks to the left walks to the right
DRAWS = {"train": 32, "val": 16, "test": 16}  # each gives eight clips
FRAMES = COLUMNS = 4
SIZE, THICK = 8, 2  # pixels: side of a frame, width of a bar


def walking_bars(*, draws: Mapping[str, int] = DRAWS, seed: int = 0) -> Volumes:
    """Generate the data set: clips uint8 [8·draws, 1, 4, 8, 8] with masks of the bar; always the same for a seed.

    Class 0 walks to the left, class 1 to the right. The bar is as high as the frame and 2 pixels wide, so tubelets of
    1×8×2 give one token per frame and column, a grid of 4×1×4, and those of 1×2×2 a grid of 4×4×4. The bar's brightness
    and a little noise are drawn, the background is black.
    draws: how many for each split; each gives eight clips that follow each other: the starts 0 to 3 to the left, then
    0 to 3 to the right. seed: a whole number.
    """
    splits = {}
    for number, name in enumerate(DRAWS):
        generator = torch.Generator().manual_seed(1000 * seed + number)
        splits[name] = draw_split(draws.get(name, DRAWS[name]), generator)
    return Volumes("walkingbars", BAR_CLASSES, **splits, mirror=MIRROR, film=True)


def draw_split(count: int, generator: torch.Generator) -> Split:
    """Draw the frames of `count` bars, and from each all clips that it can walk."""
    frames, masks = draw_frames(count, generator)  # [draws, columns, H, W], twice
    start = torch.arange(COLUMNS).repeat(2)  # [8]
    direction = torch.arange(2).repeat_interleave(COLUMNS)  # [8], the labels
    column = (start[:, None] + (2 * direction[:, None] - 1) * torch.arange(FRAMES)) % COLUMNS  # [8, T]
    clips = frames[:, column].flatten(0, 1)[:, None]  # [8·draws, C, T, H, W]
    return Split(clips, direction.repeat(count), masks=masks[:, column].flatten(0, 1))


def draw_frames(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one frame per column and its mask for `count` bars: uint8 [count, columns, H, W], twice."""
    column = torch.arange(SIZE) // THICK  # [W]
    bar = (column == torch.arange(COLUMNS)[:, None])[None, :, None].expand(
        count, -1, SIZE, -1
    )  # [count, columns, H, W]
    brightness = 0.5 + 0.4 * torch.rand(count, 1, 1, 1, generator=generator)
    pictures = brightness * bar + 0.02 * torch.randn(bar.shape, generator=generator)
    return (255 * pictures.clamp(0, 1)).round().to(torch.uint8), bar.to(torch.uint8)
