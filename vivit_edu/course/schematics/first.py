"""Chapter 00: a clip on its way through a first tiny model and through a ViViT, blocks and their means, and how two
models do class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import GREEN, GREY, MODEL_COLOURS, SMALLEST, new_figure
from .pieces import (
    canvas,
    draw_arrow,
    draw_axes_of_cube,
    draw_box,
    draw_cube,
    draw_squares,
    draw_text,
    draw_tokens,
    tokens_width,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

DOTS = {"marker": "o", "linestyle": "none", "markersize": 7}
OF_THE_RECORDED = MODEL_COLOURS["factorised_encoder"]


def two_ways() -> Figure:
    """From a clip cut into blocks to logits: above by one number per block, below by a token per block."""
    figure, axes = canvas(9.4, 3.2)
    draw_cube(axes, 0.3, 1.05, 1.0)
    draw_axes_of_cube(axes, 0.3, 1.05, 1.0)
    draw_text(axes, 0.8, 0.62, "a clip, cut\ninto blocks", color=GREY)
    left, size = 2.75, 0.22
    middle, box = left + tokens_width(size=size) / 2, left + tokens_width(size=size) + 0.4
    for y, name in ((2.4, "your first model: the mean of each block"), (0.75, "a ViViT: an embedding of each block")):
        draw_arrow(axes, (1.95, 1.7), (left - 0.12, y + 0.11))
        draw_text(axes, middle, y + 0.55, name, weight="bold")
        draw_arrow(axes, (box - 0.32, y + 0.11), (box - 0.04, y + 0.11))
        draw_arrow(axes, (box + 1.44, y + 0.11), (box + 1.72, y + 0.11))
        draw_squares(axes, box + 1.8, y, ["white"] * 4, size=size)
        draw_text(axes, box + 2.3, y - 0.2, "one logit per class", color=GREY)
    draw_tokens(axes, left, 2.4, size=size)
    draw_text(axes, middle, 2.2, "N numbers", color=GREY)
    for row in range(3):
        draw_tokens(axes, left, 0.53 + size * row, size=size)
    draw_text(axes, middle, 0.32, "N tokens, each of D numbers", color=GREY)
    draw_box(axes, box, 2.21, 1.4, 0.6, "linear, ReLU,\nlinear")
    draw_box(axes, box, 0.46, 1.4, 0.8, "tokens that\nattend to\neach other", colour=GREEN)
    return figure


def row_of_slices(clip: torch.Tensor, count: int = 7) -> Figure:
    """Slices of a clip [1, T, H, W], evenly spaced, side by side."""
    figure = new_figure(1.25 * count, 1.5)
    length = clip.shape[1] // count
    for k, axes in enumerate(figure.subplots(1, count)):
        axes.imshow(clip[0, k * length + length // 2], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"slice {k * length + length // 2}", fontsize=SMALLEST)
        axes.set_axis_off()
    return figure


def one_picture(picture: torch.Tensor) -> Figure:
    """A picture [H, W], as wide as the page."""
    figure = new_figure(9, 9 * picture.shape[0] / picture.shape[1] + 0.1)
    axes = figure.subplots()
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axes.set_axis_off()
    return figure


def blocks_and_means(clip: torch.Tensor, means: torch.Tensor, grid: Sequence[int], title: str = "") -> Figure:
    """The slices in the middle of a clip's blocks, and below each the means of its blocks as grey squares.

    clip: [1, T, H, W] in [0, 1]; means: [N]; grid: (nt, nh, nw).
    """
    nt, nh, nw = grid
    frames = [int((k + 0.5) * clip.shape[1] / nt) for k in range(nt)]
    figure = new_figure(1.2 * nt + 0.6, 2.75)
    panels = figure.subplots(2, nt)
    for column, frame in enumerate(frames):
        panels[0, column].imshow(clip[0, frame], cmap="gray", vmin=0, vmax=1)
        panels[1, column].imshow(means.view(nt, nh, nw)[column], cmap="gray", vmin=0, vmax=1)
        panels[0, column].set_title(f"slice {frame}", fontsize=SMALLEST)
    for axes, name in zip(panels[:, 0], (title or "the clip", f"its {nt}×{nh}×{nw} means")):
        axes.set_ylabel(name, fontsize=SMALLEST)
    for axes in panels.ravel():
        axes.set(xticks=[], yticks=[])
    return figure


def accuracy_curves(runs: Mapping[str, Sequence[Sequence[float]]], levels: Mapping[str, float]) -> Figure:
    """Accuracy on validation after each epoch, a line per run, and dashed levels to compare with.

    runs: {name: the runs of this kind}; levels: {name: accuracy}.
    """
    figure = new_figure(6.4, 2.9)
    axes = figure.subplots()
    for (name, found), (colour, style) in zip(runs.items(), (("black", "-"), (GREY, "--"))):
        for k, run in enumerate(found):
            axes.plot(range(1, len(run) + 1), run, style, color=colour, linewidth=1.3, label=name if not k else None)
    for (name, level), colour in zip(levels.items(), (OF_THE_RECORDED, GREY)):
        axes.axhline(level, color=colour, linestyle=":", linewidth=1.5)
        axes.text(1, level + 0.015, name, color=colour, fontsize=SMALLEST, va="bottom")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel="share of validation right", ylim=(0, 1.05))
    axes.legend(fontsize=SMALLEST, loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def class_by_class(names: Sequence[str], found: Mapping[str, Sequence[float] | torch.Tensor], label: str) -> Figure:
    """A share from 0 to 1 for each class, as a mark for each of two kinds. found: {kind: one share per class}."""
    figure = new_figure(7.2, 3.6)
    axes, places = figure.subplots(), np.arange(len(names))
    styles = ({"color": "white", "markeredgecolor": GREY}, {"color": "black"})
    low, high = (np.array([float(value) for value in values]) for values in found.values())
    axes.hlines(places, low, high, color=GREY, linewidth=1)
    for (kind, values), style in zip(found.items(), styles):
        axes.plot([float(value) for value in values], places, **DOTS, **style, label=kind)
    axes.set(xlim=(-0.03, 1.03), ylim=(len(names) - 0.5, -0.5))
    axes.set_yticks(places, names, fontsize=SMALLEST)
    axes.set_xlabel(label, fontsize=SMALLEST + 1)
    axes.legend(fontsize=SMALLEST, loc="upper left", bbox_to_anchor=(1, 1))
    axes.grid(alpha=0.3)
    return figure
