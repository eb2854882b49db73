"""Chapter 08: Model 4's heads and what they see, its learned heads on a clip, and Models 1 to 4 next to each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...models import model_class
from ...plots import BLUE, COLOURS, GREEN, GREY, MODEL_COLOURS, ORANGE, SMALLEST, new_figure
from .pieces import GRID, canvas, draw_arrow, draw_box, draw_cube, draw_squares, draw_text, token_colours

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from ...explain.weights import AttentionMap


def cross(t: int = 1, s: int = 1) -> Figure:
    """Model 4's attention for one token of the running example: two heads over space, two over time, joined by W_O."""
    from matplotlib.patches import Rectangle

    figure, axes = canvas(10, 3.3)
    figure.alt_text = (
        "A clip of 3×2×2 tubelets as a grid of tokens, a row for each time index and a column for each place. The "
        "token that asks is framed. Heads 0 and 1 see the row it is in, over space; heads 2 and 3 see its column, over "
        "time. The outputs of the four heads are joined to one vector of width D, and W_O makes the output of it."
    )
    draw_cube(axes, 0.2, 1.05, 0.95)
    draw_text(axes, 0.85, 0.8, "clip", color=GREY)
    draw_arrow(axes, (1.75, 1.6), (2.45, 1.6), "embed")
    x, y, size, gap = 3.05, 0.85, 0.36, 0.08
    step = size + gap
    for row, colours in enumerate(token_colours(GRID)):
        draw_squares(axes, x, y + (2 - row) * step, list(colours), size=size, gap=gap)
        draw_text(axes, x - 0.36, y + (2 - row) * step + size / 2, f"time {row}", color=GREY)
    for column in range(4):
        draw_text(axes, x + column * step + size / 2, y - 0.16, str(column), color=GREY)
    draw_text(axes, x + 2 * step - gap / 2, y - 0.38, "place", color=GREY)
    left, bottom, pad = x + s * step, y + (2 - t) * step, 0.06
    frame = {"fill": False, "linewidth": 2.4}
    axes.add_patch(Rectangle((x - pad, bottom - pad), 4 * step - gap + 2 * pad, size + 2 * pad, ec=BLUE, **frame))
    axes.add_patch(Rectangle((left - pad, y - pad), size + 2 * pad, 3 * step - gap + 2 * pad, ec=ORANGE, **frame))
    axes.add_patch(Rectangle((left, bottom), size, size, ec="black", fill=False, linewidth=2))
    draw_text(axes, left + size / 2, bottom + size / 2, "Q", weight="bold")
    draw_text(axes, x + 2 * step, y + 3 * step + 0.5, "the token Q asks all heads", color=GREY)
    for head in range(4):
        kind, colour = ("space", BLUE) if head < 2 else ("time", ORANGE)
        top = 2.6 - 0.62 * head - 0.12 * (head > 1)
        start = (x + 4 * step, bottom + size / 2) if head < 2 else (left + size + pad, y + 0.1)
        draw_arrow(axes, start, (5.55, top), colour=colour)
        draw_box(axes, 5.6, top - 0.2, 1.25, 0.4, f"head {head}: {kind}", colour=colour)
        draw_squares(axes, 7.1, top - 0.12, [_pale(colour)] * 2, size=0.24, gap=0)
        draw_arrow(axes, (6.85, top), (7.08, top), colour=colour)
        draw_arrow(axes, (7.6, top), (8.02, 2.36 - 0.48 * head), colour=colour)
    draw_text(axes, 7.34, 2.98, "[d] each", color=GREY)
    joined = [_pale(BLUE)] * 4 + [_pale(ORANGE)] * 4
    draw_squares(axes, 8.1, 2.36, joined, size=0.24, gap=0, down=True)
    draw_text(axes, 8.22, 2.8, "joined [D]", color=GREY)
    draw_arrow(axes, (8.38, 1.6), (8.75, 1.6))
    draw_box(axes, 8.8, 1.38, 0.55, 0.44, "$W_O$")
    draw_arrow(axes, (9.35, 1.6), (9.6, 1.6))
    draw_squares(axes, 9.63, 1.47, [_pale(GREEN)], size=0.26, gap=0)
    draw_text(axes, 9.55, 1.25, "output", color=GREY)
    return figure


def _pale(colour):
    from matplotlib.colors import to_rgb

    return tuple(0.45 + 0.55 * np.array(to_rgb(colour)))


def moved_maps(maps: Mapping[str, torch.Tensor], token: Sequence[int]) -> Figure:
    """Which outputs move when one input token changes. maps: {what: bool [nt, S]}; token: (t, s), the one that does."""
    figure = new_figure(2.5 * len(maps), 2.6)
    counts = "; ".join(f"{what}: {int(moved.sum())} of {moved.numel()}" for what, moved in maps.items())
    figure.alt_text = f"Grids of time index by place; outputs that move are dark. {counts}."
    for axes, (what, moved) in zip(np.atleast_1d(figure.subplots(1, len(maps))), maps.items()):
        axes.imshow(moved.float().numpy(), cmap="Greys", vmin=0, vmax=1.5)
        axes.plot(token[1], token[0], marker="x", color="white", markersize=9, markeredgewidth=2.5)
        axes.set_xticks(np.arange(-0.5, moved.shape[1]), minor=True)
        axes.set_yticks(np.arange(-0.5, moved.shape[0]), minor=True)
        axes.grid(which="minor", color=GREY, linewidth=0.8)
        axes.tick_params(which="both", length=0)
        axes.set(xticks=range(moved.shape[1]), yticks=range(moved.shape[0]), xlabel="place", ylabel="time index")
        axes.set_title(f"{what}:\n{int(moved.sum())} of {moved.numel()} outputs move", fontsize=10)
    return figure


def bar_losses(losses: Mapping[str, Sequence[Sequence[float]]], colours: Mapping[str, str]) -> Figure:
    """Training losses on the walking bars in a panel per way, a line per seed, with ln 2, the loss of a coin.

    losses: {way: a list of losses for each seed}; colours: {way: its colour}.
    """
    figure = new_figure(2.5 * len(losses) + 0.4, 2.6)
    ends = "; ".join(f"{way}: {', '.join(f'{run[-1]:.2f}' for run in runs)}" for way, runs in losses.items())
    figure.alt_text = f"Training loss in {len(losses)} panels, a line per seed. At the last step it is {ends}."
    for axes, (way, runs) in zip(np.atleast_1d(figure.subplots(1, len(losses), sharey=True)), losses.items()):
        for run, style in zip(runs, ("-", "--", ":", "-.")):
            axes.plot(np.arange(1, len(run) + 1), run, style, color=colours[way], linewidth=1.6)
        axes.axhline(np.log(2), color="black", linestyle=":", linewidth=1)
        axes.set(xlabel="training step", ylim=(0, 0.8))
        axes.set_title(way, fontsize=10)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss")
    figure.axes[0].text(0.97, 0.9, "ln 2, a coin", transform=figure.axes[0].transAxes, ha="right", fontsize=SMALLEST)
    return figure


# ---- what was learned


def learned_heads(
    clip: torch.Tensor, mask: torch.Tensor, maps: Sequence[AttentionMap], grid: Sequence[int], token: Sequence[int]
) -> Figure:
    """The heads of a Model 4 in every layer, for one token of one clip: over its slice, and over time at its place.

    clip: uint8 [1, T, H, W]; mask: [T, H, W]; maps: `attention_maps` of this clip alone; grid: (nt, nh, nw);
    token: (t, s), the one that asks.
    """
    nt, nh, nw = grid
    (t, s), thick, side = token, clip.shape[1] // nt, clip.shape[2] // nh
    slices = clip[0].float().numpy().reshape(nt, thick, *clip.shape[2:]).mean(axis=1)
    outlines = mask.float().numpy().reshape(nt, thick, *mask.shape[1:]).mean(axis=1)
    layers = 1 + max(each.layer for each in maps)
    count = maps[0].weights.shape[2]
    figure = new_figure(9.5, 1.9 + 1.75 * layers)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.75, 1.75 * layers))
    for i, axes in enumerate(upper.subplots(1, nt)):
        _slice(axes, slices[i], outlines[i])
        axes.set_title(f"time index {i}", fontsize=9)
        _mark(axes, s, nw, side, "-" if i == t else ":")
    panels = lower.subplots(layers, 2 * count, width_ratios=[1] * count + [1.25] * count)
    told = []
    for each in maps:
        weights = each.weights[0, t if each.kind == "space" else s].numpy()  # [heads, S, S] or [heads, nt, nt]
        for head in range(count):
            shares = weights[head, s if each.kind == "space" else t]
            axes = panels[each.layer, head + (0 if each.kind == "space" else count)]
            number = head + (0 if each.kind == "space" else count)
            if each.kind == "space":
                _slice(axes, slices[t], outlines[t])
                _veil(axes, shares.reshape(nh, nw), side)
                _mark(axes, s, nw, side, "-")
            else:
                axes.bar(range(nt), shares, color=[ORANGE if i == t else _pale(ORANGE) for i in range(nt)])
                axes.axhline(1 / nt, color=GREY, linestyle=":", linewidth=1)
                axes.set(ylim=(0, 1), xticks=range(nt), yticks=(0, 1))
                axes.tick_params(labelsize=SMALLEST)
                if each.layer == layers - 1:
                    axes.set_xlabel("time index", fontsize=SMALLEST)
            axes.set_title(f"strongest {shares.max():.0%}", fontsize=9)
            if each.layer == 0:
                axes.set_title(f"head {number}: {each.kind}\nstrongest {shares.max():.0%}", fontsize=9)
            if number == 0:
                axes.set_ylabel(f"layer {each.layer}", fontsize=10)
            told.append(f"layer {each.layer}, head {number} ({each.kind}): {shares.max():.0%}")
    figure.alt_text = (
        f"Above, a clip as {nt} slices with the organ's outline and the place of the token that asks. Below, for each "
        f"layer a row: heads over space as blue on the slice, heads over time as {nt} orange bars. Strongest share of "
        f"each: {'; '.join(told)}."
    )
    return figure


def _slice(axes, picture, outline):
    axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
    if outline.max() > 0.5:
        axes.contour(outline, levels=[0.5], colors="white", linewidths=1)
    axes.set(xticks=[], yticks=[])


def _mark(axes, s, nw, side, style):
    """A frame around the tubelet at place s."""
    x, y = s % nw * side - 0.5, s // nw * side - 0.5
    axes.plot([x, x + side, x + side, x, x], [y, y, y + side, y + side, y], style, color="black", linewidth=3)
    axes.plot([x, x + side, x + side, x, x], [y, y, y + side, y + side, y], style, color="white", linewidth=1.3)


def _veil(axes, shares, side):
    """Attention over a slice in blue, as opaque as it is strong."""
    from matplotlib.colors import to_rgba

    veil = np.empty((*shares.shape, 4))
    veil[...] = to_rgba(BLUE)
    veil[..., 3] = 0.85 * shares / shares.max()
    axes.imshow(veil.repeat(side, axis=0).repeat(side, axis=1))


# ---- the four models


def models_side_by_side(maps: Mapping[str, Sequence[AttentionMap]], nt: int, s: int) -> Figure:
    """For each model and kind of attention the mask of its heads and, below, what they learned on one clip.

    maps: {a name in MODELS: `attention_maps` of one clip}, of which the last layer of each kind is shown, averaged over
    its heads. nt, s: time indices and tokens per time index.
    """
    columns = [(name, kind, last) for name, found in maps.items() for kind, last in _last_of_each_kind(found).items()]
    figure = new_figure(1.38 * len(columns) + 0.3, 3.7)
    grid = figure.subplots(2, len(columns))
    told = []
    for k, (name, kind, last) in enumerate(columns):
        sees = model_class(name).sees(kind, nt, s).numpy()
        learned = _matrix(last, len(sees), nt, s)
        cmap = _shades(COLOURS[kind])
        grid[0, k].imshow(sees, cmap=cmap, vmin=0, vmax=1)
        grid[1, k].imshow(learned, cmap=cmap, vmin=0, vmax=learned.max())
        title = model_class(name).title.split(",")[0]
        grid[0, k].set_title(f"{title}\n{'space and time' if kind == 'joint' else kind}", fontsize=9.5)
        grid[1, k].set_title(f"strongest {learned.max():.0%}", fontsize=9)
        told.append(f"{title}, {kind}: {sees.mean():.0%} of the pairs are allowed, strongest {learned.max():.0%}")
        for axes in grid[:, k]:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color(MODEL_COLOURS[name])
            axes.spines[:].set_linewidth(2)
            step = s if len(sees) > nt else 1
            for edge in range(step, len(sees), step):
                axes.axhline(edge - 0.5, color=GREY, linewidth=0.3)
                axes.axvline(edge - 0.5, color=GREY, linewidth=0.3)
    grid[0, 0].set_ylabel("may look\n\nquery", fontsize=9.5)
    grid[1, 0].set_ylabel("looks, after training\n\nquery", fontsize=9.5)
    for axes in grid[1]:
        axes.set_xlabel("key", fontsize=9)
    figure.alt_text = f"Masks above, learned attention below, query by key. {'; '.join(told)}."
    return figure


def _last_of_each_kind(maps):
    return {each.kind: each for each in maps}


def _matrix(found, n, nt, s):
    """Weights of one clip, averaged over heads, as [N, N]; those of Model 2's temporal encoder as [nt, nt]."""
    weights = found.weights[0]
    if weights.ndim == 3:  # joint, or Model 2 over time
        return weights.mean(dim=0).numpy()
    weights = weights.mean(dim=1)  # [nt, S, S] or [S, nt, nt]
    full = torch.zeros(nt, s, nt, s)
    if found.kind == "space":
        full[torch.arange(nt), :, torch.arange(nt)] = weights
    else:
        full[:, torch.arange(s), :, torch.arange(s)] = weights
    return full.view(n, n).numpy()


def _shades(colour) -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", ["white", colour])


def recorded_curves(rows: Sequence[Mapping], levels: tuple[float, float]) -> Figure:
    """Training loss and validation accuracy per epoch of recorded runs, a line per seed in the colour of the model.

    rows: those of a recorded table, each with `row`, the model's name, and `history`: loss and val_acc per seed.
    levels: a loss and an accuracy that dotted lines mark.
    """
    figure = new_figure(9.5, 3.4)
    panels = figure.subplots(1, 2)
    ends = []
    for row in rows:
        name, history = row["row"], row["history"]
        title = model_class(name).title.split(",")[0]
        for axes, key in zip(panels, ("loss", "val_acc")):
            for run, style in zip(history[key], ("-", "--", "-.")):
                label = title if style == "-" else None
                axes.plot(range(1, len(run) + 1), run, style, color=MODEL_COLOURS[name], linewidth=1.4, label=label)
        ends.append(f"{title}: {', '.join(f'{run[-1]:.2f}' for run in history['val_acc'])}")
    for axes, level, what, top in zip(panels, levels, ("training loss", "validation accuracy"), (None, 1.02)):
        axes.axhline(level, color=GREY, linestyle=":", linewidth=1.5)
        axes.set(xlabel="epoch", ylabel=what, ylim=(0, top))
        axes.grid(alpha=0.3)
    panels[1].legend(loc="lower right", fontsize=9)
    figure.alt_text = f"Training loss and validation accuracy by epoch. Validation accuracy ends at {'; '.join(ends)}."
    return figure
