"""Chapter 07: Model 3 and its two folds, the way from token to token, curves in panels, and learned attention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import BLUE, GREY, MODEL_COLOURS, ORANGE, new_figure
from .pieces import (
    GRID,
    canvas,
    draw_arrow,
    draw_axes_of_cube,
    draw_box,
    draw_cube,
    draw_matrix,
    draw_residual_stream,
    draw_squares,
    draw_text,
    token_colours,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BROWN = MODEL_COLOURS["factorised_self_attention"]
SIDE, GAP = 0.3, 0.05  # of a token in a grid, and between tokens, in inches
OF_AXIS = {"space": BLUE, "time": ORANGE}


# ---- schematics


def model3() -> Figure:
    """Model 3: above, from the clip to a grid of tokens; in the middle one block; below, the head."""
    figure, axes = canvas(10, 4.7)
    figure.alt_text = (
        "Model 3. A clip of 3×2×2 tubelets becomes a grid of tokens with 3 rows, the time indices, and 4 columns, the "
        "places. Positions are added. The sum is the residual stream, a thick line. Three branches of a block read "
        "from it and add to it: LayerNorm and attention over space, LayerNorm and attention over time, LayerNorm and "
        "MLP. After L blocks follow LayerNorm, the mean over all tokens, a linear map and logits."
    )
    draw_cube(axes, 0.4, 3.5, 0.8)
    draw_axes_of_cube(axes, 0.4, 3.5, 0.8)
    draw_text(axes, 0.95, 3.18, "clip [B, C, T, H, W]", color=GREY)
    draw_arrow(axes, (1.85, 3.85), (2.75, 3.85), "embed")
    draw_token_grid(axes, 3.3, 3.4, names=True)
    draw_text(axes, 4.0, 3.18, "tokens [B, nt, S, D]", color=GREY)
    draw_text(axes, 5.0, 3.85, "+", size=14)
    draw_box(axes, 5.3, 3.62, 1.25, 0.46, "positions", shape="[1, nt, S, D]")
    stream = 2.3
    axes.plot([6.55, 9.8, 9.8, 0.2, 0.2], [3.85, 3.85, 2.85, 2.85, stream], color="black", linewidth=2.4)
    axes.plot([0.2, 0.6], [stream, stream], color="black", linewidth=2.4)
    draw_box(axes, 0.45, 0.98, 9.25, 1.62, "", dashed=True)
    branches = [("attention\nover space", BLUE), ("attention\nover time", ORANGE), ("MLP", GREY)]
    draw_residual_stream(axes, 0.6, stream, 8.9, branches, names=("", ""))
    for x in (2.55, 5.42):
        draw_text(axes, x, 1.12, "07.1")
    draw_text(axes, 5.05, 0.8, "07.2 block, repeated L times", weight="bold")
    axes.plot([9.5, 9.88, 9.88, 7.6], [stream, stream, 0.35, 0.35], color="black", linewidth=2.4)
    left = 6.6
    draw_arrow(axes, (7.7, 0.35), (left + 0.95, 0.35), colour="black", width=2.4)
    for text, wide in (("LayerNorm", 0.9), ("mean over\nall tokens", 0.95), ("linear", 0.7)):
        draw_box(axes, left, 0.12, wide, 0.46, text)
        draw_arrow(axes, (left, 0.35), (left - 0.25, 0.35))
        left -= 0.25 + {"LayerNorm": 0.95, "mean over\nall tokens": 0.7, "linear": 0.0}[text]
    draw_text(axes, left - 0.08, 0.35, "logits [B, K]", ha="right", color=GREY)
    return figure


def draw_token_grid(
    axes: Axes, x: float, y: float, grid: Sequence[int] = GRID, *, names: bool = False, numbers: bool = False
) -> np.ndarray:
    """Tokens as a grid, a row for each time index from the top and a column for each place.

    (x, y): its bottom left corner. names: whether rows and columns are named. numbers: whether each token bears its
    number. Returns the centres of the squares, [nt, S, 2].
    """
    nt, places = grid[0], grid[1] * grid[2]
    centres = []
    for t, colours in enumerate(token_colours(grid)):
        bottom = y + (nt - 1 - t) * (SIDE + GAP)
        labels = [str(t * places + k) for k in range(places)] if numbers else None
        centres.append(draw_squares(axes, x, bottom, colours, size=SIDE, gap=GAP, labels=labels))
        if names:
            draw_text(axes, x - 0.1, bottom + SIDE / 2, f"time {t}", ha="right", color=GREY)
    if names:
        draw_text(axes, x + (places * (SIDE + GAP) - GAP) / 2, y + nt * (SIDE + GAP) + 0.08, "place 0 … 3", color=GREY)
    return np.array(centres)


def folds() -> Figure:
    """The grid of tokens, folded into a sequence for each time index and into one for each place."""
    from matplotlib.patches import Rectangle

    figure, axes = canvas(10, 2.5)
    figure.alt_text = (
        "A grid of 12 numbered tokens, 3 time indices of 4 places. For attention over space it is folded into 3 "
        "sequences of 4 tokens: 0 1 2 3, then 4 5 6 7, then 8 9 10 11. For attention over time it is folded into 4 "
        "sequences of 3 tokens: 0 4 8, then 1 5 9, then 2 6 10, then 3 7 11."
    )
    step, colours = SIDE + GAP, token_colours()
    draw_text(axes, 1.4, 2.3, "the grid, b nt s d", weight="bold")
    draw_token_grid(axes, 0.75, 0.85, names=True, numbers=True)
    draw_text(axes, 4.7, 2.3, "over space: (b nt) s d", weight="bold", color=BLUE)
    for t in range(3):
        y = 1.6 - 0.5 * t
        draw_squares(axes, 4.0, y, colours[t], size=SIDE, gap=GAP, labels=[str(4 * t + s) for s in range(4)])
        axes.add_patch(Rectangle((3.94, y - 0.06), 4 * step + 0.07, SIDE + 0.12, fill=False, ec=BLUE, lw=1.8))
    draw_text(axes, 4.7, 0.12, "3 sequences of 4 tokens", color=GREY)
    draw_text(axes, 8.2, 2.3, "over time: (b s) nt d", weight="bold", color=ORANGE)
    for s in range(4):
        y = 1.76 - 0.46 * s
        draw_squares(axes, 7.7, y, colours[:, s], size=SIDE, gap=GAP, labels=[str(4 * t + s) for t in range(3)])
        axes.add_patch(Rectangle((7.64, y - 0.04), 3 * step + 0.07, SIDE + 0.08, fill=False, ec=ORANGE, lw=1.8))
    draw_text(axes, 8.2, 0.12, "4 sequences of 3 tokens", color=GREY)
    draw_arrow(axes, (2.45, 1.35), (3.7, 1.35), "fold")
    draw_text(axes, 6.5, 1.35, "or", size=11)
    return figure


def ways(key: tuple[int, int] = (0, 0), query: tuple[int, int] = (2, 3)) -> Figure:
    """How one token hears of another within a block, with space first and with time first.

    key, query: (time index, place) of the token that is heard of and of the one that hears.
    """
    from matplotlib.patches import Rectangle

    figure, axes = canvas(8.4, 2.15)
    figure.alt_text = (
        f"Two grids of tokens. Space first: an arrow within time {key[0]} from place {key[1]} to place {query[1]}, "
        f"then one at place {query[1]} from time {key[0]} to time {query[0]}. Time first: an arrow at place {key[1]} "
        f"from time {key[0]} to time {query[0]}, then one within time {query[0]} to place {query[1]}."
    )
    for left, title, middle, colours in (
        (1.6, "space, then time (the paper)", (key[0], query[1]), (BLUE, ORANGE)),
        (5.9, "time, then space (the authors' code)", (query[0], key[1]), (ORANGE, BLUE)),
    ):
        draw_text(axes, left + 0.67, 2.0, title, weight="bold")
        centres = draw_token_grid(axes, left, 0.45, names=True)
        for start, end, colour in ((key, middle, colours[0]), (middle, query, colours[1])):
            draw_arrow(axes, tuple(centres[start]), tuple(centres[end]), colour=colour, width=2.6)
        for x, y in (centres[key], centres[query]):
            axes.add_patch(Rectangle((x - SIDE / 2, y - SIDE / 2), SIDE, SIDE, fill=False, ec="black", lw=2))
        relay = f"through the token at time {middle[0]}, place {middle[1]}"
        draw_text(axes, left + 0.67, 0.2, relay, color=GREY)
    return figure


# ---- training


def curves_in_panels(losses: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training losses of several seeds, a panel for each way, all with ln 2, the loss of a coin.

    losses: {way: a list of losses for each seed}.
    """
    figure = new_figure(10, 2.6)
    ends = "; ".join(f"{way}: {', '.join(f'{run[-1]:.2f}' for run in runs)}" for way, runs in losses.items())
    steps = max(len(run) for runs in losses.values() for run in runs)
    figure.alt_text = (
        f"Training loss over {steps} steps, a panel for each of {len(losses)} ways, a line for each seed. It ends at "
        f"{ends}. A dotted line marks ln 2."
    )
    for axes, (way, runs) in zip(figure.subplots(1, len(losses), sharey=True), losses.items()):
        for run in runs:
            axes.plot(np.arange(1, len(run) + 1), run, color=BROWN, linewidth=1.4)
        axes.axhline(math.log(2), color="black", linestyle=":", linewidth=1)
        axes.set(xlabel="training step", ylim=(0, 1), xlim=(0, steps))
        axes.set_title(way, fontsize=10)
        axes.grid(alpha=0.3)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel("loss")
            axes.text(steps, math.log(2) + 0.03, "ln 2, a coin", ha="right", va="bottom", fontsize=9)
    return figure


# ---- what was learned


def on_all_tokens(weights: torch.Tensor, axis: str) -> torch.Tensor:
    """One clip's attention weights, averaged over the heads, as a table of all tokens: [N, N].

    axis: "space" for weights [nt, heads, S, S], "time" for [S, heads, nt, nt].
    """
    import torch

    mean = weights.mean(dim=1)  # [groups, M, M]
    groups, members = mean.shape[:2]
    table = mean.new_zeros(groups, members, groups, members)
    table[torch.arange(groups), :, torch.arange(groups)] = mean
    if axis == "time":
        table = table.permute(1, 0, 3, 2)  # to [nt, S, nt, S]
    return table.reshape(groups * members, groups * members)


def masks_and_attention(masks: Mapping[str, torch.Tensor], learned: Mapping[str, Sequence[torch.Tensor]]) -> Figure:
    """A row for space and one for time: the mask, and learned attention in each block, all as tables [N, N].

    masks: {"space": bool [N, N], "time": ...}. learned: {"space": a table for each block, "time": ...}.
    """
    blocks = len(learned["space"])
    cell, top = 2.35 / len(masks["space"]), 0.5
    figure, axes = canvas(10, 6.0)
    figure.alt_text = (
        "Six tables of 16 by 16 tokens. Above, in blue, the mask of attention over space, squares of 4 by 4 on the "
        f"diagonal, and learned attention in {blocks} blocks, which differs from cell to cell within these squares. "
        "Below, in orange, the mask of attention over time, every fourth token, and learned attention within it."
    )
    for row, (axis, colour) in enumerate(OF_AXIS.items()):
        y = 6.0 - top - 2.35 - row * 2.85
        tables = {f"may look, over {axis}": masks[axis].float()}
        tables |= {f"learned, block {k}": table for k, table in enumerate(learned[axis])}
        for column, (title, table) in enumerate(tables.items()):
            x = 0.75 + column * 2.85
            draw_matrix(axes, x, y, table, cell=cell, colour=colour)
            draw_text(axes, x + 1.175, y + 2.35 + 0.16, title, size=10)
            if column == 0:
                for t in range(4):
                    draw_text(axes, x - 0.08, y + 2.35 - (t + 0.5) * 4 * cell, f"time {t}", ha="right", color=GREY)
                    if row == 1:
                        draw_text(axes, x + (t + 0.5) * 4 * cell, y - 0.14, f"time {t}", color=GREY)
        _draw_scale(axes, 9.25, y, 2.35, colour)
    return figure


def _draw_scale(axes, x, y, height, colour):
    """A scale from 0 (white) to 1 (the full colour), with its ends named."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.patches import Rectangle

    fade, edges = LinearSegmentedColormap.from_list("fade", ["white", colour]), np.linspace(y, y + height, 65)
    axes.pcolormesh([x, x + 0.1], edges, np.linspace(0, 1, 64)[:, None], cmap=fade, shading="flat")
    axes.add_patch(Rectangle((x, y), 0.1, height, fill=False, edgecolor=GREY, linewidth=0.8))
    for value in (0, 0.5, 1):
        draw_text(axes, x + 0.18, y + value * height, f"{value:g}", ha="left", color=GREY)
    draw_text(axes, x + 0.1, y + height + 0.16, "weight", color=GREY)


def heads_on_a_clip(
    clip: torch.Tensor, space: torch.Tensor, time: torch.Tensor, asks: tuple[int, int], grid: Sequence[int], title: str
) -> Figure:
    """What one token of a clip attends to: over space in its own slice, over time at its own place, head by head.

    clip: uint8 [1, T, H, W]. space: weights [heads, nh·nw]. time: weights [heads, nt]. asks: the token's time index
    and place. grid: (nt, nh, nw).
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb
    from matplotlib.patches import Rectangle

    (nt, nh, nw), heads, (t, place) = grid, len(space), asks
    step = clip.shape[-1] // nw, clip.shape[-2] // nh
    frames = clip[0].float().unflatten(0, (nt, -1)).mean(dim=1).numpy()  # [nt, H, W], one picture per time index
    figure = new_figure(10, 4.6)
    figure.alt_text = (
        f"{title}. Above, the clip at {nt} time indices with the asking token's place framed. In the middle, for "
        f"{heads} heads, the weights over space on the token's slice, in blue. Below, for as many heads, the "
        f"weights over time as bars, in orange; the largest is {float(time.max()):.2f}."
    )
    strip, maps, bars = figure.subfigures(3, 1, height_ratios=(1, 1.5, 1.2))
    corner = place % nw * step[0] - 0.5, place // nw * step[1] - 0.5

    def frame(axes):
        axes.add_patch(Rectangle(corner, *step, fill=False, ec="white", lw=1.8))
        axes.set(xticks=[], yticks=[])

    strip.suptitle(title, fontsize=10)
    for k, axes in enumerate(strip.subplots(1, nt)):
        axes.imshow(frames[k], cmap="gray", vmin=0, vmax=255)
        axes.set_title(f"time {k}" + (", asks" if k == t else ""), fontsize=9, color="black" if k == t else GREY)
        axes.set(xticks=[], yticks=[])
        if k == t:
            frame(axes)
    tint = LinearSegmentedColormap.from_list("blue", [(*to_rgb(BLUE), 0), (*to_rgb(BLUE), 1)])
    row = maps.subplots(1, heads)
    for k, axes in enumerate(row):
        axes.imshow(frames[t], cmap="gray", vmin=0, vmax=255)
        shares = space[k].view(nh, nw).repeat_interleave(step[1], 0).repeat_interleave(step[0], 1)
        heat = axes.imshow(shares.numpy(), cmap=tint, vmin=0, vmax=float(space.max()))
        axes.set_title(f"over space, head {k}", fontsize=9)
        frame(axes)
    maps.colorbar(heat, ax=list(row), label="weight", shrink=0.9)
    for k, axes in enumerate(bars.subplots(1, heads, sharey=True)):
        axes.bar(range(nt), time[k].numpy(), color=[ORANGE if i != t else "#8F3F00" for i in range(nt)])
        axes.set_title(f"over time, head {k}", fontsize=9)
        axes.set(xlabel="time", xticks=range(nt), ylim=(0, 1))
        if k == 0:
            axes.set_ylabel("weight")
    return figure
