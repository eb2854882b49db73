"""Drawings of chapter 04: one query among all keys, heads, masks, and the puzzle of the twin tubelets.

Patterns and curves are black and grey here, since the course's colours mean space, time and both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import BLUE, GREEN, GREY, ORANGE, SMALLEST, new_figure
from .pieces import (
    GRID,
    canvas,
    draw_arrow,
    draw_box,
    draw_matrix,
    draw_residual_stream,
    draw_squares,
    draw_text,
    draw_tokens,
    token_colours,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = ("-", "--", ":", "-.")  # which curve is which, in black


# ---- schematics


def one_query(asks: int = 5) -> Figure:
    """One token of the running example asks all 12: keys give weights, weights mix the values. asks: its number."""
    figure, axes = canvas(9, 3.5)
    left, size, gap = 3.3, 0.3, 0.05
    shares = np.exp([0.1, 1.9, 0.2, 0.4, 0.3, 2.6, 0.1, 0.5, 0.2, 2.2, 0.6, 0.1])
    shares /= shares.sum()
    rows = {"tokens $Z$": 3.0, "keys $K = ZW_K$": 2.25, "weights, adding up to 1": 1.15, "values $V = ZW_V$": 0.6}
    shapes = ("[N, D]", "[N, d]", "[N]", "[N, d]")
    for (words, y), shape in zip(rows.items(), shapes):
        draw_text(axes, left - 0.15, y + 0.22, words, ha="right")
        draw_text(axes, left - 0.15, y + 0.03, shape, ha="right", color=GREY)
    centres = draw_tokens(axes, left, 3.0, size=size, gap=gap, times=True)
    draw_tokens(axes, left, 2.25, size=size, gap=gap, labels=["k"] * 12)
    draw_tokens(axes, left, 0.6, size=size, gap=gap, labels=["v"] * 12)
    for (x, _), share in zip(centres, shares):
        axes.bar(x, 0.75 * share / shares.max(), width=size, bottom=1.15, color=GREY)
        axes.plot([x, x], [1.0, 1.12], color=GREY, linewidth=0.8)
    colour = token_colours().reshape(-1, 3)[asks]
    draw_squares(axes, centres[asks][0] - size / 2, 3.0, [colour], size=size)
    _frame(axes, centres[asks][0] - size / 2, 3.0, size)
    draw_squares(axes, 0.35, 3.0, [colour], size=size)
    _frame(axes, 0.35, 3.0, size)
    draw_text(axes, 0.75, 3.15, "the token\nthat asks", ha="left")
    draw_arrow(axes, (0.5, 2.93), (0.5, 2.6))
    draw_box(axes, 0.1, 2.15, 1.3, 0.42, "query $q = zW_Q$")
    draw_text(axes, 0.75, 2.0, "[d]", color=GREY)
    draw_arrow(axes, (0.75, 1.86), (0.75, 1.6))
    draw_box(axes, 0.1, 1.12, 1.3, 0.45, "softmax($qK^T/\\sqrt{d}$)")
    draw_arrow(axes, (0.75, 1.06), (0.75, 0.83))
    draw_box(axes, 0.1, 0.38, 1.3, 0.42, "weights · values")
    mixed = (shares[:, None] * token_colours().reshape(-1, 3)).sum(axis=0)
    draw_arrow(axes, (1.46, 0.59), (1.7, 0.59))
    draw_squares(axes, 1.76, 0.44, [mixed], size=size)
    draw_text(axes, 1.91, 0.25, "output [d]", color=GREY)
    return figure


def heads(n: int = 2, tokens: int = 4, width: int = 6) -> Figure:
    """Multi-head attention: the columns of Q, K and V are divided among the heads, whose outputs are joined again."""
    figure, axes = canvas(9, 2.9)
    generator = np.random.default_rng(3)
    cell, top, each = 0.17, 1.15, width // n
    colours = token_colours().reshape(-1, 3)[:tokens]
    shades = (0.0, 0.45)

    def table(x: float, y: float, first: int, columns: int) -> None:
        for column in range(columns):
            shade = shades[(first + column) // each % 2]
            fills = [tuple(np.asarray(c) * (1 - shade) + shade) for c in colours]
            draw_squares(axes, x + column * cell, y + (tokens - 1) * cell, fills, size=cell, gap=0, down=True)

    for column in range(width):
        draw_squares(axes, 0.2 + column * cell, top + (tokens - 1) * cell, list(colours), size=cell, gap=0, down=True)
    draw_text(axes, 0.2 + width * cell / 2, top + tokens * cell + 0.15, "tokens")
    draw_text(axes, 0.2 + width * cell / 2, top - 0.15, "[N, D]", color=GREY)
    for k, name in enumerate("QKV"):
        y = 2.0 - 0.9 * k
        draw_arrow(axes, (1.3, top + 0.34), (2.0, y + 0.34))
        draw_text(axes, 2.08, y + 0.34, f"${name}$", ha="left", size=11)
        table(2.35, y, 0, width)
    draw_text(axes, 2.35 + width * cell / 2, 0.06, "[N, heads · d]", color=GREY)
    for head in range(n):
        y = 1.75 - 1.3 * head
        draw_arrow(axes, (3.5, top + 0.34), (4.05, y + 0.34))
        weights = np.exp(2 * generator.normal(size=(tokens, tokens)))
        draw_matrix(axes, 4.15, y, weights / weights.sum(axis=1, keepdims=True), cell=cell)
        draw_text(axes, 4.15 + tokens * cell / 2, y + tokens * cell + 0.14, f"head {head}: weights [N, N]")
        draw_text(axes, 5.05, y + 0.34, "·", size=14)
        table(5.2, y, head * each, each)
        draw_arrow(axes, (5.85, y + 0.34), (6.35, top + 0.34))
    table(6.45, top, 0, width)
    draw_text(axes, 6.45 + width * cell / 2, top + tokens * cell + 0.15, "joined")
    draw_arrow(axes, (7.55, top + 0.34), (8.0, top + 0.34), "$W_O$")
    draw_box(axes, 8.05, top + 0.1, 0.8, 0.48, "output", shape="[N, D]")
    return figure


def one_block() -> Figure:
    """The network of the puzzle: embedding, positions, one block with a mixer that can be exchanged, a head."""
    figure, axes = canvas(9, 1.9)
    draw_squares(axes, 0.15, 1.3, [tuple(c) for c in token_colours()[0]], size=0.2, gap=0.03)
    draw_text(axes, 0.6, 1.1, "tubelets\n[B, 12, voxels]", va="top", color=GREY)
    draw_arrow(axes, (1.15, 1.4), (1.45, 1.4))
    draw_box(axes, 1.5, 1.15, 1.15, 0.5, "embedding\n+ positions", shape="[B, 12, D]")
    draw_residual_stream(axes, 2.95, 1.4, 4.6, [("mixer", GREEN), ("MLP", GREY)], norm="norm", names=("", ""))
    draw_box(axes, 7.65, 1.15, 1.1, 0.5, "linear head", shape="[B, 12, answers]")
    return figure


def masks(grid: Sequence[int] = GRID) -> Figure:
    """Who may look at whom in the running example: everybody, those of one time index, those of one place."""
    figure, axes = canvas(9, 3.2)
    nt, places = grid[0], grid[1] * grid[2]
    number = np.arange(nt * places)
    time, place = number // places, number % places
    allowed = {
        "everybody": (np.ones((len(number), len(number))), GREEN),
        "same time: over space": (time[:, None] == time, BLUE),
        "same place: over time": (place[:, None] == place, ORANGE),
    }
    colours = token_colours(grid).reshape(-1, 3)
    for k, (words, (table, colour)) in enumerate(allowed.items()):
        x, y, cell = 0.75 + 2.85 * k, 0.35, 0.17
        draw_matrix(axes, x, y, np.asarray(table, float), cell=cell, colour=colour)
        draw_squares(axes, x, y + len(number) * cell + 0.06, list(colours), size=cell, gap=0)
        draw_squares(axes, x - cell - 0.06, y + (len(number) - 1) * cell, list(colours), size=cell, gap=0, down=True)
        draw_text(axes, x + len(number) * cell / 2, y + len(number) * cell + 0.42, words)
        draw_text(axes, x + len(number) * cell / 2, y - 0.17, "key $j$", color=GREY)
        draw_text(axes, x - 0.42, y + len(number) * cell / 2, "query $i$", color=GREY, rotation=90)
    return figure


# ---- the twins


def twins(
    tubelets: torch.Tensor | np.ndarray,
    asks: int,
    twin: int | None = None,
    shares: torch.Tensor | np.ndarray | None = None,
    grid: Sequence[int] = GRID,
) -> Figure:
    """The tubelets of one clip at every time index, each with its number below, one of them framed.

    tubelets: [N, 16 + 10], as `course.puzzles.twins` draws them; asks: number of the framed tubelet; twin: number of
    its twin, framed by dashes. shares: attention weights [N] of the framed tubelet, drawn below.
    """
    tubelets = np.asarray(tubelets)
    patterns, numbers = tubelets[:, :16].reshape(-1, 4, 4), tubelets[:, 16:].argmax(axis=1)
    nt, nh, nw = grid
    size, gap, below = 0.62, 0.16, 0.34
    wide, high = nw * (size + gap), nh * (size + below)
    lower = 0.0 if shares is None else nh * (size + gap) + 0.25
    figure, axes = canvas(1.3 + nt * (wide + 0.6), high + lower + 0.35)
    for number in range(nt * nh * nw):
        t, row, column = number // (nh * nw), number // nw % nh, number % nw
        x = 1.15 + t * (wide + 0.6) + column * (size + gap)
        y = lower + 0.3 + (nh - 1 - row) * (size + below)
        axes.imshow(patterns[number], cmap="gray", vmin=-1.6, vmax=1.15, extent=(x, x + size, y, y + size), zorder=1)
        draw_text(axes, x + size / 2, y - 0.15, str(numbers[number]), size=11)
        if number == asks:
            _frame(axes, x - 0.05, y - 0.05, size + 0.1, width=3)
        if number == twin:
            _frame(axes, x - 0.05, y - 0.05, size + 0.1, width=3, style=(0, (1.5, 1)))
        if shares is not None:
            corner = 0.1 + (nh - 1 - row) * (size + gap)
            draw_matrix(axes, x, corner, np.array([[float(shares[number])]]), cell=size, numbers=".2f")
        if not number % (nh * nw):
            draw_text(axes, x + (wide - gap) / 2, lower + 0.3 + high - below + 0.2, f"time {t}", color=GREY)
    if shares is not None:
        draw_text(axes, 0.95, lower + high / 2 + 0.1, "tubelets", ha="right")
        draw_text(axes, 0.95, (nh * (size + gap)) / 2 + 0.03, "weights of\nthe framed\ntubelet", ha="right")
    axes.set(xlim=(0, figure.get_figwidth()), ylim=(0, figure.get_figheight()))
    return figure


def learned_weights(weights: torch.Tensor | np.ndarray, twin: torch.Tensor | np.ndarray) -> Figure:
    """Attention weights of one clip, [N, N], next to the table of who is whose twin. twin: where it is, int [N]."""
    weights, twin = np.asarray(weights), np.asarray(twin)
    n = len(twin)
    answer = np.zeros((n, n))
    answer[np.arange(n), twin] = 1
    figure = new_figure(7.6, 3.5)
    left, right = figure.subplots(1, 2)
    for axes, table, words in ((left, weights, "learned weights"), (right, answer, "who is whose twin")):
        drawn = axes.imshow(table, cmap="gray_r", vmin=0, vmax=1)
        axes.set_title(words, fontsize=10)
        axes.set(xlabel="key $j$", ylabel="query $i$", xticks=range(0, n, 2), yticks=range(0, n, 2))
    figure.colorbar(drawn, ax=[left, right], label="weight", shrink=0.85)
    return figure


def rows_of_heads(clip: torch.Tensor, weights: torch.Tensor, asks: int, names: Sequence[str]) -> Figure:
    """A real clip, one slice per time index with the tubelet that asks framed, and below it the attention of its heads.

    clip: [C, T, H, W]; weights: [heads, N, N] of a model whose tubelets are cubes; asks: number of the tubelet;
    names: of the heads.
    """
    t, h, w = clip.shape[1:]
    cube = round((t * h * w / weights.shape[-1]) ** (1 / 3))
    nt, nh, nw = t // cube, h // cube, w // cube
    figure = new_figure(1.15 * nt + 1, 1.3 * (len(names) + 1))
    panels = figure.subplots(len(names) + 1, nt)
    for k in range(nt):
        panels[0, k].imshow(clip[0, k * cube + cube // 2], cmap="gray", vmin=0, vmax=1)
        panels[0, k].set_title(f"time {k}", fontsize=SMALLEST, color=GREY)
    asked, row, column = asks // (nh * nw), asks // nw % nh, asks % nw
    _frame(panels[0, asked], column * cube - 0.5, row * cube - 0.5, cube, colour="white", width=1.8)
    for head, name in enumerate(names):
        shares = weights[head, asks].reshape(nt, nh, nw)
        for k in range(nt):
            drawn = panels[1 + head, k].imshow(shares[k], cmap="inferno", vmin=0, vmax=shares.max())
        panels[1 + head, 0].set_ylabel(name, fontsize=SMALLEST)
        bar = figure.colorbar(drawn, ax=panels[1 + head, :], pad=0.01)
        bar.set_label("weight", fontsize=SMALLEST)
        bar.ax.tick_params(labelsize=SMALLEST)
    panels[0, 0].set_ylabel("clip", fontsize=SMALLEST)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    return figure


# ---- curves


def scores(widths: Sequence[int], found: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """Variance of scores, entropy of their weights and gradient at a score, for widths d.

    found: {what was done to the scores: (variance, entropy, gradient) for each width}.
    """
    figure = new_figure(9, 2.8)
    panels = figure.subplots(1, 3)
    for axes, words, k in zip(
        panels, ("variance of a score", "entropy of the weights", "gradient at a score"), range(3)
    ):
        for (name, rows), line in zip(found.items(), LINES):
            axes.plot(widths, [row[k] for row in rows], f"o{line}", color="black", label=name, markersize=4)
        axes.set_title(words, fontsize=10)
        axes.set(xlabel="width $d$", xscale="log", yscale="linear" if k == 1 else "log")
        axes.set_xticks(widths, widths)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[1].set_ylim(0, None)
    panels[0].legend(fontsize=SMALLEST)
    return figure


def learning(found: Mapping[str, Sequence[tuple[object, Sequence[float]]]], levels: Mapping[str, float] = {}) -> Figure:
    """The share of right answers while networks learn, a curve for each seed, averaged over 20 steps.

    found: {name: for each seed (network, share at each step)}. levels: {name: where a thin line lies}.
    """
    figure = new_figure(7, 3)
    axes = figure.subplots()
    for (name, seeds), line in zip(found.items(), LINES):
        for k, (_, right) in enumerate(seeds):
            smooth = np.convolve(right, np.full(20, 1 / 20), "valid")
            steps = np.arange(len(smooth)) + 20
            axes.plot(steps, smooth, line, color="black", linewidth=1.3, label=None if k else name)
    for name, level in levels.items():
        axes.axhline(level, color=GREY, linewidth=0.8, linestyle="-.", label=name)
    axes.set(xlabel="training step", ylabel="share of right answers", ylim=(0, 1.03))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST, loc="center right")
    return figure


def collapse(runs: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """What is left of the differences between tokens after each layer: {name: for each seed a value per layer}."""
    figure = new_figure(7, 3)
    axes = figure.subplots()
    for (name, seeds), line in zip(runs.items(), LINES):
        for k, values in enumerate(seeds):
            axes.semilogy(range(len(values)), values, line, color="black", linewidth=1.3, label=name if not k else None)
    axes.set(xlabel="layer (0: the tokens as they come in)", ylabel="differences left")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST)
    return figure


def _frame(
    axes: Axes, x: float, y: float, size: float, width: float = 2.2, style: object = "-", colour: str = "black"
) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle((x, y), size, size, fill=False, edgecolor=colour, linewidth=width, linestyle=style, zorder=3)
    )
