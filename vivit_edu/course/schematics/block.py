"""Chapter 05: Model 1 from the clip to the logits, its block, the walking bars and what a model learns from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import GREEN, GREY, MODEL_COLOURS, new_figure
from .pieces import (
    GRID,
    canvas,
    draw_arrow,
    draw_box,
    draw_cube,
    draw_residual_stream,
    draw_squares,
    draw_text,
    draw_tokens,
    tokens_width,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

CLS = "#FFFFFF"  # the cls token: it has no tubelet, so no colour
PURPLE = MODEL_COLOURS["spacetime"]


def model1() -> Figure:
    """Model 1: above, from the clip to a sequence of tokens; below, one block and the head that reads the cls token."""
    figure, axes = canvas(10, 4.3)
    figure.alt_text = (
        "Model 1. A clip of 3×2×2 tubelets becomes 12 tokens. A cls token is put in front and positions are added. The "
        "sum is the residual stream, a thick line. Two branches of a block read from it and add to it: LayerNorm and "
        "attention, then LayerNorm and MLP. After L blocks follow LayerNorm, the cls token, a linear map and logits."
    )
    draw_cube(axes, 0.25, 2.85, 0.9)
    draw_text(axes, 0.9, 2.6, "clip [B, C, T, H, W]", color=GREY)
    draw_arrow(axes, (1.85, 3.4), (2.9, 3.4), "embed")
    draw_text(axes, 2.38, 3.22, "(chapter 03)", color=GREY)
    draw_squares(axes, 3.1, 3.28, [CLS], labels=["cls"], size=0.34)
    draw_text(axes, 3.27, 3.86, "05.1 cls token", weight="bold")
    start = 3.56
    draw_tokens(axes, start, 3.33, times=True)
    width = tokens_width(GRID)
    draw_text(axes, start + width / 2, 3.86, "tokens, [B, N, D]", color=GREY)
    right = start + width
    draw_text(axes, right + 0.3, 3.45, "+", size=14)
    draw_box(axes, right + 0.55, 3.22, 1.15, 0.46, "positions", shape="[1, 1 + N, D]")
    end = right + 0.55 + 1.15
    axes.plot([end, 9.75, 9.75, 0.2, 0.2], [3.45, 3.45, 2.35, 2.35, 1.75], color="black", linewidth=2.4)
    stream = 1.75
    axes.plot([0.2, 0.62], [stream, stream], color="black", linewidth=2.4)
    draw_box(axes, 0.5, 0.28, 6.0, 1.8, "", dashed=True)
    draw_residual_stream(axes, 0.62, stream, 5.75, [("attention\n(chapter 04)", GREEN), ("MLP", GREY)], names=("", ""))
    draw_text(axes, 3.5, 0.1, "05.2 encoder block, repeated L times", weight="bold")
    draw_arrow(axes, (6.37, stream), (6.95, stream), colour="black", width=2.4)
    for k, (text, wide) in enumerate((("LayerNorm", 0.85), ("read cls", 0.75), ("linear", 0.7))):
        left = 6.98 + (0, 1.03, 1.96)[k]
        draw_box(axes, left, stream - 0.2, wide, 0.4, text)
        if k < 2:
            draw_arrow(axes, (left + wide, stream), (left + wide + 0.18, stream))
    draw_arrow(axes, (9.29, stream - 0.2), (9.29, stream - 0.55))
    draw_text(axes, 9.29, stream - 0.7, "logits [B, K]", color=GREY)
    draw_text(axes, 8.2, stream + 0.4, "05.3 head", weight="bold")
    return figure


def walks(clips: torch.Tensor, titles: Sequence[str]) -> Figure:
    """Clips [B, 1, T, H, W] as film strips below each other, frame by frame from left to right."""
    figure = new_figure(1.25 * clips.shape[2] + 1, 1.35 * len(clips))
    figure.alt_text = (
        f"Film strips of {clips.shape[2]} frames, one below the other: {', '.join(titles)}. In each frame a bright bar "
        "is in another column."
    )
    grid = figure.subplots(len(clips), clips.shape[2], squeeze=False)
    for t, axes in enumerate(grid[0]):
        axes.set_title(f"frame {t}", fontsize=9)
    for row, clip, title in zip(grid, clips, titles):
        for t, axes in enumerate(row):
            axes.imshow(clip[0, t].numpy(), cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=11)
    return figure


def learning_curves(losses: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training losses of several seeds per way, all on one axis with ln 2, the loss of a coin.

    losses: {way: a list of losses for each seed}; the first way is drawn in the colour of Model 1, the others in grey.
    """
    figure = new_figure(7, 3)
    ends = "; ".join(f"{way}: {', '.join(f'{run[-1]:.2f}' for run in runs)}" for way, runs in losses.items())
    steps = max(map(len, sum(losses.values(), [])))
    figure.alt_text = f"Training loss over {steps} steps, a line per seed. Losses at the end: {ends}."
    axes = figure.subplots()
    for k, (way, runs) in enumerate(losses.items()):
        for run in runs:
            style = {"color": GREY if k else PURPLE, "linestyle": "--" if k else "-", "linewidth": 1.4}
            axes.plot(np.arange(1, len(run) + 1), run, label=way if run is runs[0] else None, **style)
    axes.axhline(math.log(2), color="black", linestyle=":", linewidth=1, label="ln 2, a coin")
    axes.set(xlabel="training step", ylabel="loss", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def attention_and_mask(
    clips: torch.Tensor, masks: torch.Tensor, scores: Mapping[str, torch.Tensor], titles: Sequence[str]
) -> Figure:
    """Walks as pictures of time (downwards) and column: the clip, its mask, and attention to each token.

    clips: [B, 1, T, H, W] in [0, 1]; masks: [B, T, columns]; scores: {whose: [B, T, columns], shares that add up to 1}.
    """
    figure = new_figure(1.75 * (len(scores) + 2) + 0.6, 2.05 * len(clips))
    shares = "; ".join(f"{whose} {float((score * masks).sum() / len(clips)):.0%}" for whose, score in scores.items())
    figure.alt_text = (
        f"Walks of a bar as pictures of time and column ({', '.join(titles)}), the bar's mask, and attention to each "
        f"token. Share of the attention on the bar: {shares}."
    )
    grid = figure.subplots(len(clips), len(scores) + 2, squeeze=False)
    most = max(float(score.max()) for score in scores.values())
    for axes, title in zip(grid[0], ("the clip", "mask of the bar", *scores)):
        axes.set_title(title, fontsize=10)
    for i, row in enumerate(grid):
        lines = clips[i, 0].mean(dim=1).repeat_interleave(clips.shape[-1] // len(masks[i]), dim=0)  # [T·…, W]
        row[0].imshow(lines.numpy(), cmap="gray", vmin=0, vmax=1)
        row[1].imshow(masks[i].numpy(), cmap="gray", vmin=0, vmax=1)
        for axes, score in zip(row[2:], scores.values()):
            heat = axes.imshow(score[i].numpy(), cmap="cividis", vmin=0, vmax=most)
            for (t, column), value in np.ndenumerate(score[i].numpy()):
                ink = "black" if value > most / 2 else "white"
                axes.text(column, t, f"{value:.2f}"[1:], ha="center", va="center", fontsize=9, color=ink)
        row[0].set_ylabel(f"{titles[i]}\n\ntime", fontsize=10)
        for axes in row:
            axes.set(xticks=[], yticks=[], xlabel="column")
    figure.colorbar(heat, ax=grid[:, -1], label="share of attention", shrink=0.8)
    return figure
