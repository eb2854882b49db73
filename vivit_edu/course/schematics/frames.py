"""Chapter 06: Model 2 from the clip to the logits, how time is folded into the batch, and what orders and sizes do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from ...plots import BLUE, GREY, ORANGE, SMALLEST, new_figure
from .pieces import (
    TINTS,
    canvas,
    draw_arrow,
    draw_box,
    draw_cube,
    draw_squares,
    draw_text,
    token_colours,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

A, B = TINTS[0], TINTS[3]  # the colours of two clips


def model2() -> Figure:
    """Model 2: the tokens of each time index through the spatial encoder, then one vector each through the temporal."""
    figure, axes = canvas(10, 3.1)
    figure.alt_text = (
        "Model 2. A clip of 3×2×2 tubelets becomes 3 rows of 4 tokens, one row per time index. Each row goes through "
        "the spatial encoder alone and leaves it as one vector. Temporal positions are added to the 3 vectors, the "
        "temporal encoder turns them into one vector, and a linear head gives the logits."
    )
    draw_cube(axes, 0.25, 0.95, 0.9)
    draw_text(axes, 0.9, 0.65, "clip [B, C, T, H, W]", color=GREY)
    draw_arrow(axes, (1.9, 1.55), (2.5, 1.55), "embed")
    rows = (2.25, 1.45, 0.65)  # the middle of each time index's row
    for t, (y, colours) in enumerate(zip(rows, token_colours())):
        draw_squares(axes, 2.72, y - 0.12, colours)
        draw_text(axes, 2.72, y + 0.25, f"time {t}", ha="left", color=GREY)
        draw_arrow(axes, (3.88, y), (4.3, y), colour=BLUE)
        draw_arrow(axes, (5.7, y), (6.1, y), colour=BLUE)
        draw_squares(axes, 6.14, y - 0.15, [colours.mean(axis=0)], size=0.3)
        draw_text(axes, 6.78, y, f"+ $p_{t}$", color=ORANGE, size=11)
        draw_arrow(axes, (7.1, y), (7.5, y), colour=ORANGE)
    draw_box(
        axes,
        4.3,
        0.35,
        1.4,
        2.25,
        "spatial encoder\n\neach time index\non its own,\nwith the same\nweights",
        colour=BLUE,
    )
    draw_box(axes, 7.5, 0.35, 1.2, 2.25, "temporal\nencoder", colour=ORANGE)
    draw_text(axes, 3.28, 2.8, "tokens [B, nt, S, D]", color=GREY)
    draw_text(axes, 6.29, 2.8, "frame vectors [B, nt, D]", color=GREY)
    draw_text(axes, 3.28, 0.15, "06.1 fold", weight="bold")
    draw_text(axes, 5.0, 0.15, "06.3 sequence encoder", weight="bold")
    draw_text(axes, 8.1, 0.15, "06.3, once more", weight="bold")
    draw_arrow(axes, (8.7, 1.45), (9.0, 1.45))
    draw_box(axes, 9.0, 1.25, 0.75, 0.4, "linear")
    draw_arrow(axes, (9.37, 1.25), (9.37, 0.95))
    draw_text(axes, 9.37, 0.8, "logits [B, K]", color=GREY)
    return figure


def folding() -> Figure:
    """Two clips of three time indices, folded into a batch of six and unfolded in the same and in the other order."""
    figure, axes = canvas(9.4, 2.5)
    figure.alt_text = (
        "Clips A and B have the time indices A0 A1 A2 and B0 B1 B2. Folded as (b nt) the batch is A0 A1 A2 B0 B1 B2. "
        "Unfolded as (b nt) the clips are whole again. Unfolded as (nt b) the first clip is A0 A2 B1 and the second "
        "A1 B0 B2."
    )
    names = [f"{clip}{t}" for clip in "AB" for t in range(3)]
    colours = {name: A if name[0] == "A" else B for name in names}

    def squares(x, y, chosen):
        draw_squares(axes, x, y, [colours[name] for name in chosen], size=0.36, labels=chosen)

    draw_text(axes, 0.84, 2.3, "two clips", weight="bold")
    squares(0.2, 1.4, names[:3])
    squares(0.2, 0.8, names[3:])
    draw_arrow(axes, (1.5, 1.28), (2.55, 1.28), "(b nt)")
    draw_text(axes, 3.85, 2.3, "a batch of six", weight="bold")
    squares(2.65, 1.1, names)
    draw_text(axes, 3.85, 0.8, "encoded side by side;\nnone sees another", color=GREY)
    for y, pattern, order in ((1.62, "(b nt)", names), (0.55, "(nt b)", [names[k] for k in (0, 2, 4, 1, 3, 5)])):
        draw_arrow(axes, (5.15, 1.28), (6.3, y), "", bend=0)
        draw_text(axes, 5.75, y + (0.14 if y > 1 else -0.16), pattern, color=GREY)
        squares(6.4, y + 0.02, order[:3])
        squares(6.4, y - 0.4, order[3:])
    draw_text(axes, 7.03, 2.3, "clips again", weight="bold")
    draw_text(axes, 7.85, 1.62, "both are whole", ha="left", color=GREY)
    draw_text(axes, 7.85, 0.55, "two strangers,\nand no error", ha="left", color=GREY)
    return figure


def runs(losses: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training losses, a panel per way and a line per seed, with ln 2, the loss of a coin. losses: {way: runs}."""
    figure = new_figure(2.5 * len(losses) + 0.5, 2.5)
    ends = "; ".join(f"{way}: {', '.join(f'{run[-1]:.2f}' for run in found)}" for way, found in losses.items())
    figure.alt_text = f"Training loss, a panel per way and a line per seed. It ends at {ends}.".replace("\n", " ")
    panels = figure.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    for axes, (way, found) in zip(panels, losses.items()):
        for run in found:
            axes.plot(np.arange(1, len(run) + 1), run, color="black", linewidth=1.1)
        axes.axhline(math.log(2), color=GREY, linestyle=":", linewidth=1.2)
        axes.set(ylim=(0, 0.8), xlabel="training step")
        axes.set_title(way, fontsize=10)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("loss")
    panels[0].text(2, math.log(2) + 0.02, "ln 2, a coin", fontsize=SMALLEST, color=GREY)
    return figure


def orders(values: Mapping[str, Sequence[float]]) -> Figure:
    """How a logit depends on the order of one clip's frames: a dot per order, in three groups.

    values: {whose: the 24 values, in the order of itertools.permutations}, of a clip whose frame k has the bar in
    column k.
    """
    names = ("walks\nleft", "walks\nright", "jumps")
    figure = new_figure(2.5 * len(values) + 0.5, 2.7)
    told = "; ".join(f"{whose}: from {min(found):.2g} to {max(found):.2g}" for whose, found in values.items())
    figure.alt_text = f"The logit of right minus that of left for the 24 orders of a clip's frames. {told}."
    walks = {tuple((k + step * t) % 4 for t in range(4)): group for group, step in enumerate((-1, 1)) for k in range(4)}
    groups = np.array([walks.get(order, 2) for order in permutations(range(4))])
    for axes, (whose, found) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items()):
        found = np.asarray(found)
        for group in range(3):
            inside = np.flatnonzero(groups == group)
            x = group + np.linspace(-0.3, 0.3, len(inside))
            axes.scatter(x, found[inside], color="black", s=16)
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set(xticks=range(3), xticklabels=names, xlim=(-0.6, 2.6))
        axes.set_title(whose, fontsize=10)
        low, high = found.min(), found.max()
        if high - low < 1e-5:  # equal up to rounding: a scale that shows it
            axes.set_ylim(low - 0.01, high + 0.01)
    figure.axes[0].set_ylabel("logit of right − left")
    return figure


def sweep(found: Mapping[str, Mapping[float, tuple[float, Sequence[float]]]]) -> Figure:
    """Losses at the end of training over the size of the positions, and again over their ratio to the frame vectors.

    found: {how large the frame vectors are: {std of the positions: (ratio, the losses of all seeds)}}.
    """
    figure = new_figure(8.6, 3)
    told = "; ".join(
        f"{name}: " + ", ".join(f"ratio {ratio:.2g} mean loss {np.mean(ends):.2f}" for ratio, ends in of.values())
        for name, of in found.items()
    )
    figure.alt_text = f"Loss at the end of training over the positions' standard deviation and over the ratio. {told}."
    panels = figure.subplots(1, 2, sharey=True)
    for k, (name, of) in enumerate(found.items()):
        style = {"color": "black", "linestyle": "--" if k else "-", "marker": "o", "markersize": 5}
        style["markerfacecolor"] = "white" if k else "black"
        for axes, places in zip(panels, (list(of), [ratio for ratio, _ in of.values()])):
            axes.plot(places, [np.mean(ends) for _, ends in of.values()], label=name, **style)
            for place, (_, ends) in zip(places, of.values()):
                axes.plot([place] * len(ends), ends, color=GREY, linestyle="", marker="_", markersize=7)
    for axes, label in zip(
        panels, ("standard deviation of the temporal positions", "their size ÷ that of the frame vectors")
    ):
        axes.axhline(math.log(2), color=GREY, linestyle=":", linewidth=1.2)
        axes.set(xscale="log", xlabel=label, ylim=(-0.03, 0.8))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("loss at the end")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside upper center", ncols=2)
    return figure


def masks_and_weights(space: torch.Tensor, time: torch.Tensor) -> Figure:
    """Which tokens can attend to which in Model 2, next to the weights of a trained one.

    space: weights [nt, S, S] of a layer over space; time: [nt, nt] of a layer over time; rows add up to 1.
    """
    nt, s, _ = space.shape
    figure = new_figure(10, 3.1)
    figure.alt_text = (
        f"Four matrices, rows attend to columns. The spatial mask has {nt} squares of {s}×{s} tokens on its diagonal. "
        f"The learned spatial weights fill these squares unevenly. The temporal mask is full, {nt}×{nt}; its learned "
        f"weights run from {float(time.min()):.2f} to {float(time.max()):.2f}."
    )
    panels = figure.subplots(1, 4, width_ratios=(1, 1.05, 1, 1.05))
    blocks = np.full((nt * s, nt * s), np.nan)
    for t, weights in enumerate(space.numpy()):
        blocks[t * s : (t + 1) * s, t * s : (t + 1) * s] = weights
    top = float(np.nanquantile(blocks, 0.99))
    shown = (
        ("space: who may attend", np.where(np.isnan(blocks), np.nan, 1.0), BLUE, 1.0),
        ("space: learned weights", blocks, BLUE, top),
        ("time: who may attend", np.ones((nt, nt)), ORANGE, 1.0),
        ("time: learned weights", time.numpy(), ORANGE, float(time.max())),
    )
    for k, (axes, (title, values, colour, most)) in enumerate(zip(panels, shown)):
        picture = axes.imshow(values, cmap=_ramp(colour), vmin=0, vmax=most, interpolation="nearest")
        axes.set_facecolor("0.93")
        axes.set_title(title, fontsize=10)
        axes.set(xticks=[], yticks=[], xlabel="token" if k < 2 else "time index")
        if k % 2:
            figure.colorbar(picture, ax=axes, shrink=0.75, extend="max" if k == 1 else "neither")
    panels[0].set_ylabel("attends")
    return figure


def where_and_when(
    clip: torch.Tensor, mask: torch.Tensor | None, space: torch.Tensor, time: torch.Tensor, title: str
) -> Figure:
    """One clip's slices, below them where the spatial encoder looks in each, and below how much each time index counts.

    clip: [C, T, H, W] in [0, 1]; mask: [T, H, W] or None; space: [nt, nh, nw], shares of attention that add up to 1
    in each time index; time: [nt], shares that add up to 1.
    """
    nt, nh, nw = space.shape
    depth, height, width = clip.shape[1:]
    figure = new_figure(1.2 * nt + 1.4, 4.1)
    even = 1 / (nh * nw)
    strongest = int(time.argmax())
    figure.alt_text = (
        f"{title}: {nt} slices with the organ's outline; attention over space in blue, up to "
        f"{float(space.max()) / even:.1f} times an even share; attention to each time index as orange bars, most to "
        f"time {strongest} with {float(time.max()):.0%}."
    )
    grid = figure.add_gridspec(3, nt, height_ratios=(1, 1, 0.75))
    top = float(space.max()) / even
    for t in range(nt):
        frame = t * depth // nt + depth // nt // 2
        above, below = figure.add_subplot(grid[0, t]), figure.add_subplot(grid[1, t])
        above.imshow(clip[0, frame].numpy(), cmap="gray", vmin=0, vmax=1)
        heat = below.imshow(
            space[t].numpy() / even, cmap=_ramp(BLUE), vmin=0, vmax=top, extent=(-0.5, width - 0.5, height - 0.5, -0.5)
        )
        for axes, colour in ((above, "white"), (below, "black")):
            if mask is not None and mask[frame].any():
                axes.contour(mask[frame].numpy(), levels=[0.5], colors=colour, linewidths=1)
            axes.set(xticks=[], yticks=[])
        above.set_title(f"time {t}", fontsize=SMALLEST)
        if t == 0:
            above.set_ylabel("slices", fontsize=SMALLEST)
            below.set_ylabel("over space", fontsize=SMALLEST)
    figure.colorbar(heat, ax=figure.axes[1::2], label="× an even share", shrink=0.9, pad=0.01)
    bars = figure.add_subplot(grid[2, :])
    bars.bar(range(nt), time.numpy(), color=ORANGE, width=0.6)
    bars.axhline(1 / nt, color=GREY, linestyle=":")
    bars.text(0.5, 1 / nt, "even", fontsize=SMALLEST, color=GREY, ha="center", va="bottom")
    bars.set(xlim=(-0.5, nt - 0.5), xlabel="time index", ylabel="over time", xticks=range(nt))
    figure.suptitle(title, fontsize=10)
    return figure


def _ramp(colour):
    """A colour map from white to a colour."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ramp", ["white", colour])
