"""Chapter 09: which pairs each model compares, a block's bill drawn to scale, growth, times, memory and designs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import BLUE, GREEN, GREY, MODEL_COLOURS, ORANGE, SMALLEST, new_figure
from .pieces import GRID, canvas, draw_matrix, draw_squares, draw_text, token_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = tuple(MODEL_COLOURS.values())  # of Models 1 to 4
MODEL_MARKS = ("o", "s", "^", "D")
PALE_GREY, DARK_GREY = "#C9C9C9", "#8F8F8F"  # the attention's linear maps, the MLP


def compared_pairs(grid: Sequence[int] = GRID) -> Figure:
    """What one layer of each model compares in the running example: tables of query and key, coloured at each pair."""
    figure, axes = canvas(10, 4.35)
    figure.alt_text = (
        "Tables of queries and keys for the running example of 3 time indices and 4 places. Model 1: one full table of "
        "12 by 12. Model 2: three blocks of 4 by 4 on the diagonal, and a table of 3 by 3 for the time indices. Model "
        "3: the three blocks, then a second table with pairs at the same place. Model 4: the same two tables, each "
        "for half of the heads."
    )
    nt, places = grid[0], grid[1] * grid[2]
    number = np.arange(nt * places)
    space = number[:, None] // places == number // places
    time = number[:, None] % places == number % places
    tokens = [tuple(colour) for colour in token_colours(grid).reshape(-1, 3)]
    frames = [tuple(colour) for colour in token_colours(grid).mean(axis=1)]
    cell, low, high = 0.108, 0.42, 2.3

    def table(x: float, y: float, allowed: np.ndarray, colour: str, words: str, colours: Sequence) -> None:
        side = len(allowed) * cell
        draw_matrix(axes, x, y, allowed.astype(float), cell=cell, colour=colour)
        draw_squares(axes, x, y + side + 0.04, colours, size=cell, gap=0)
        draw_squares(axes, x - cell - 0.04, y + side - cell, colours, size=cell, gap=0, down=True)
        draw_text(axes, x + side / 2, y - 0.19, words, color=GREY, va="baseline")

    wide, left = len(number) * cell, (0.85, 3.25, 5.65, 8.05)
    titles = ("joint attention", "two encoders", "two attentions", "heads divided")
    for k, (x, title) in enumerate(zip(left, titles)):
        draw_text(axes, x + wide / 2, 4.2, f"Model {k + 1}", size=11, weight="bold", color=INKS[k])
        draw_text(axes, x + wide / 2, 3.95, title, va="baseline")
    everything = np.ones_like(space)
    table(left[0], (low + high) / 2, everything, GREEN, "over space and time", tokens)
    draw_text(axes, left[0] + wide / 2, (low + high) / 2 + wide + 0.3, "key", color=GREY)
    draw_text(axes, left[0] - 0.32, (low + high) / 2 + wide / 2, "query", color=GREY, rotation=90)
    table(left[1], high, space, BLUE, "spatial encoder", tokens)
    table(left[1] + (wide - nt * cell) / 2, low + wide / 2, everything[:nt, :nt], ORANGE, "temporal encoder", frames)
    table(left[2], high, space, BLUE, "first over space", tokens)
    table(left[2], low, time, ORANGE, "then over time", tokens)
    table(left[3], high, space, BLUE, "one half of the heads", tokens)
    table(left[3], low, time, ORANGE, "the other half", tokens)
    return figure


def pair_growth(pairs: Callable[[int, int], Sequence[float]], s: int = 196, nt: int = 16) -> Figure:
    """Pairs against time indices at s places, and against places at nt time indices, with the paper's formula."""
    figure = new_figure(9, 3.6)
    last = pairs(1024, s)
    figure.alt_text = (
        f"Two log-log plots. Left, against time indices at {s} places: Model 1 rises steepest, Models 3 and 4 bend "
        f"upwards, Model 2 is straight; at 1,024 time indices they are at "
        f"{', '.join(f'{value:.1e}' for value in last)}. The paper's formula for Model 2, dashed, is flat until {s}. "
        "Right, against places: four lines of nearly one slope, the dashed one below."
    )
    panels = figure.subplots(1, 2)
    _growth(panels[0], "time indices $n_t$", np.unique(np.geomspace(2, 1024, 25).round()), lambda n: (n, s), pairs)
    _growth(
        panels[1], "tokens per time index $S$", np.unique(np.geomspace(4, 4096, 25).round()), lambda n: (nt, n), pairs
    )
    panels[0].set_title(f"longer clips, S = {s}", fontsize=10)
    panels[1].set_title(f"more tokens per time index, $n_t$ = {nt}", fontsize=10)
    panels[0].set_ylabel("pairs of one layer, per head")
    panels[0].legend(fontsize=SMALLEST)
    return figure


def _growth(axes: Axes, words: str, sizes: np.ndarray, grid: Callable, pairs: Callable) -> None:
    found = np.array([pairs(*map(int, grid(n))) for n in sizes])
    for k, colour in enumerate(INKS):
        axes.loglog(sizes, found[:, k], color=colour, label=f"Model {k + 1}", linewidth=1.6)
    as_written = [np.square(grid(n)).sum() for n in sizes]
    axes.loglog(sizes, as_written, "--", color=GREY, label="$S^2 + n_t^2$ (paper)", linewidth=1.4)
    axes.set_xlabel(words)
    axes.grid(alpha=0.3)


def bill_to_scale(block_flops: Callable, rows: Mapping[str, tuple[int, int]]) -> Figure:
    """Where the FLOPs of a block of Model 1 go, one bar of 100 % for each row. rows: {name: (tokens, dim)}; M = 4·D."""
    figure = new_figure(9, 0.55 * len(rows) + 1.1)
    axes = figure.subplots()
    said = []
    for y, (name, (tokens, dim)) in enumerate(rows.items()):
        linear, products = block_flops(tokens, tokens**2, 1, dim, 4 * dim)
        maps = tokens * 8 * dim**2
        shares = np.array([maps, linear - maps, products]) / (linear + products)
        said.append(f"{name}: {shares[2]:.0%}")
        for start, share, colour in zip((0, shares[0], shares[:2].sum()), shares, (PALE_GREY, DARK_GREY, GREEN)):
            axes.barh(y, share, left=start, color=colour, edgecolor="white", height=0.7)
            ink = "white" if colour == GREEN else "black"
            axes.text(start + share / 2, y, f"{share:.0%}", ha="center", va="center", fontsize=SMALLEST, color=ink)
    for words, colour in (("Q, K, V and output maps", PALE_GREY), ("MLP", DARK_GREY), ("attention's products", GREEN)):
        axes.barh(0, 0, color=colour, label=words)
    axes.set(xlim=(0, 1), xlabel="share of the FLOPs of one block", xticks=np.linspace(0, 1, 6))
    axes.set_xticklabels([f"{tick:.0%}" for tick in np.linspace(0, 1, 6)])
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=SMALLEST)
    figure.alt_text = f"Stacked bars of a block's FLOPs. The share of attention's products: {'; '.join(said)}."
    return figure


def gflops_and_ms(gflops: Sequence[float], milliseconds: Sequence[float]) -> Figure:
    """GFLOPs and the paper's milliseconds of Models 1 to 4, as shares of Model 1's."""
    figure = new_figure(8, 3)
    axes = figure.subplots()
    shares = [np.array(values) / values[0] for values in (gflops, milliseconds)]
    for k, colour in enumerate(INKS):
        for share, place, fill in zip((shares[0][k], shares[1][k]), (k - 0.2, k + 0.2), (colour, "white")):
            axes.bar(place, share, width=0.36, facecolor=fill, edgecolor=colour, linewidth=1.8)
            axes.text(place, share + 0.03, f"{share:.2f}", ha="center", fontsize=SMALLEST)
    axes.bar(0, 0, facecolor=GREY, edgecolor=GREY, label="GFLOPs (your formula)")
    axes.bar(0, 0, facecolor="white", edgecolor=GREY, linewidth=1.8, label="milliseconds (paper)")
    axes.set_xticks(range(4), [f"Model {k}" for k in range(1, 5)])
    axes.set(ylabel="compared with Model 1", ylim=(0, 1.25))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=SMALLEST, ncols=2, loc="upper right")
    pairs = "; ".join(f"Model {k + 1} {a:.2f} and {b:.2f}" for k, (a, b) in enumerate(zip(*shares)))
    figure.alt_text = f"Pairs of bars, GFLOPs and milliseconds as shares of Model 1's: {pairs}."
    return figure


def times_and_fits(
    sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], exponent: Callable, points: int = 3
) -> Figure:
    """Measured seconds of one layer against tokens, with a power law fitted to the last points of each.

    seconds: {name: of each size}; the first four are Models 1 to 4, any further one is drawn in Model 1's colour.
    """
    figure = new_figure(8, 3.8)
    axes = figure.subplots()
    x, said = np.array(sizes, dtype=float), []
    for k, (name, found) in enumerate(seconds.items()):
        y, colour = 1e3 * np.array(found), INKS[k % 4]
        slope = exponent(list(x[-points:]), list(y[-points:]))
        height = np.exp(np.mean(np.log(y[-points:]) - slope * np.log(x[-points:])))
        said.append(f"{name} {slope:.2f}")
        label = f"{name}: exponent {slope:.2f}"
        axes.loglog(
            x, y, (*MODEL_MARKS, "o")[k], color=colour, markersize=5, markerfacecolor=colour if k < 4 else "white"
        )
        axes.loglog(
            x[-points:], height * x[-points:] ** slope, "-" if k < 4 else "--", color=colour, linewidth=1.4, label=label
        )
    axes.set_xticks(x, [f"{n:,.0f}" for n in x])
    axes.minorticks_off()
    axes.set(xlabel="tokens", ylabel="milliseconds of one layer")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST)
    figure.alt_text = (
        f"Milliseconds of one layer against tokens, log-log, with lines fitted to the last {points} points. "
        f"Their slopes: {'; '.join(said)}."
    )
    return figure


def memory_of_a_step(
    tokens: Sequence[int],
    estimated: Sequence[Sequence[float]],
    measured: Mapping[int, Sequence[float]],
    fused: tuple[Sequence[float], Sequence[float]],
) -> Figure:
    """Memory of a training step against tokens: the formula as lines, what was measured as dots, in bytes.

    estimated: Models 1 to 4 for each number of tokens; measured: {model: for each}. fused: estimated and measured of
    Model 1 with the fused kernel.
    """
    figure = new_figure(8, 3.8)
    axes = figure.subplots()
    lines = np.array(estimated) / 1e6  # [sizes, 4]
    for k, colour in enumerate(INKS):
        axes.loglog(tokens, lines[:, k], color=colour, linewidth=1.4, label=f"Model {k + 1}")
        axes.loglog(tokens, np.array(measured[k + 1]) / 1e6, MODEL_MARKS[k], color=colour, markersize=5)
    axes.loglog(tokens, np.array(fused[0]) / 1e6, "--", color=INKS[0], linewidth=1.4, label="Model 1, fused kernel")
    axes.loglog(tokens, np.array(fused[1]) / 1e6, "o", color=INKS[0], markersize=5, markerfacecolor="white")
    axes.set_xticks(tokens, [f"{n:,}" for n in tokens])
    axes.set_yticks([50, 100, 200, 500, 1000], ["50", "100", "200", "500", "1,000"])
    axes.minorticks_off()
    axes.set(
        xlabel="tokens", ylabel="megabytes of a training step", ylim=(0.8 * lines.min(), 1.5 * max(measured[1]) / 1e6)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST, title="lines: formula, marks: measured", title_fontsize=SMALLEST)
    figure.alt_text = (
        "Megabytes of a training step against tokens, log-log, formulas as lines and measured peaks as marks close to "
        f"them. At {tokens[-1]:,} tokens Model 1 takes {measured[1][-1] / 1e6:.0f}, with the fused kernel "
        f"{fused[1][-1] / 1e6:.0f}; Models 2 to 4 take {', '.join(f'{measured[k][-1] / 1e6:.0f}' for k in (2, 3, 4))}."
    )
    return figure


def affordable_designs(
    plain: Mapping[tuple[int, ...], tuple[Sequence[float], Sequence[float]]],
    fused: Mapping[tuple[int, ...], tuple[Sequence[float], Sequence[float]]],
    limits: tuple[float, float],
    best: Sequence[tuple[int, tuple[int, ...]]],
) -> Figure:
    """All designs by memory and FLOPs, with both limits: without and with the fused kernel.

    plain, fused: {tubelet: (bytes of Models 1 to 4, FLOPs of each)}. best: the design chosen in each.
    """
    figure = new_figure(10, 4.8)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    said = [
        f"{title}: {_designs(axes, found, limits, chosen, free)} designs are below both, "
        f"chosen Model {chosen[0]} with {_by(chosen[1])}"
        for axes, found, chosen, title, free in zip(
            (left, right), (plain, fused), best, ("plain attention", "with the fused kernel"), ("right", "left")
        )
    ]
    left.set(title="plain attention", ylabel="GFLOPs of one clip")
    right.set(title="with the fused kernel")
    for k in range(4):
        left.plot([], [], MODEL_MARKS[k], color=INKS[k], label=f"Model {k + 1}")
    left.plot([], [], "o", color="black", markerfacecolor="none", markersize=12, label="best_design")
    figure.legend(loc="outside lower center", ncols=5, fontsize=SMALLEST, frameon=False)
    figure.alt_text = f"Designs by gigabytes and GFLOPs, log-log, with both limits. {'; '.join(said)}."
    return figure


def _designs(
    axes: Axes, found: Mapping, limits: tuple[float, float], best: tuple[int, tuple[int, ...]], free: str
) -> int:
    """The designs on one panel, filled where they are below both limits; returns how many those are.

    free: on which side of Model 1's marks their tubelets are written.
    """
    size, flops = limits[0] / 1e9, limits[1] / 1e9
    axes.axvline(size, color="black", linewidth=1, linestyle=":", zorder=0.5)
    axes.axhline(flops, color="black", linewidth=1, linestyle=":", zorder=0.5)
    count, names = 0, {}
    for tubelet, (memory, work) in found.items():
        names.setdefault((memory[0] / 1e9, work[0] / 1e9), []).append(_by(tubelet))
        for k in range(4):
            x, y = memory[k] / 1e9, work[k] / 1e9
            inside = x <= size and y <= flops
            count += inside
            fill = INKS[k] if inside else "white"
            axes.loglog(x, y, MODEL_MARKS[k], color=INKS[k], markerfacecolor=fill, markersize=6)
            if (k + 1, *tubelet) == (best[0], *best[1]):
                axes.loglog(x, y, "o", color="black", markerfacecolor="none", markersize=15)
                style = {"xytext": (-13, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
                axes.annotate(f"Model {k + 1}, {_by(tubelet)}", (x, y), weight="bold", fontsize=SMALLEST, **style)
    for place, tubelets in names.items():  # of Model 1, which is free on one side
        style = {"xytext": (-7, 0), "ha": "right"} if place[0] < 10 and free == "left" else {"xytext": (7, 0)}
        style["va"] = "bottom" if len(tubelets) > 1 and free == "left" else "center"
        style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        words = ",\n".join(tubelets)
        axes.annotate(words, place, textcoords="offset points", fontsize=SMALLEST, linespacing=1, zorder=1, **style)
    axes.text(size * 1.08, 11, f"{size:g} GB", fontsize=SMALLEST)
    axes.text(40000, flops * 1.1, f"{flops:g} GFLOPs", fontsize=SMALLEST, ha="right")
    axes.set(xlabel="gigabytes of a training step", xlim=(0.03, 50000), ylim=(9, 50000))
    axes.grid(alpha=0.3)
    return count


def _by(tubelet: Sequence[int]) -> str:
    return "×".join(map(str, tubelet))
