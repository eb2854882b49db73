"""Chapter 10: an image transformer's tensors in Model 1, filters in a tubelet, positions, and the recorded runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...plots import GREEN, GREY, SMALLEST, new_figure
from ..recorded import split_name
from .pieces import GRID, canvas, draw_arrow, draw_box, draw_cube, draw_squares, draw_text, token_colours

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

# starts are neither space nor time nor models: what keeps the image filters is grey, and marks tell starts apart
START_INKS = {
    "tubelets, central frame": ("black", "o", "-"),
    "tubelets, filter inflation": ("#5A5A5A", "s", "--"),
    "uniform frame sampling": ("#9A9A9A", "^", "-."),
    "central frame, without labels": ("#B0892F", "D", "-"),
    "tubelets, random": ("#B5482A", "v", "--"),
    "nothing pretrained": ("#6B7F1A", "x", ":"),
    "nothing pretrained, 4 times as long": ("#6B7F1A", "P", "none"),
}


def taken_and_changed() -> Figure:
    """An image transformer on the left, Model 1 on the right: what is taken, and the two tensors that are changed."""
    figure, axes = canvas(9.4, 4.0)
    figure.alt_text = (
        "Two columns. Left, the image transformer: a picture of 4 patches, patch filters [D, C, ph, pw], positions "
        "[1, S, D], blocks, final LayerNorm. Right, Model 1: a clip of 12 tubelets, tubelet filters "
        "[D, C, pt, ph, pw], "
        "positions [1, nt·S, D], the same blocks and LayerNorm. Arrows lead from each part to its counterpart: "
        "blocks and LayerNorm are taken as they are, filters are inflated, positions are repeated for each time index."
    )
    left, right, wide = 1.75, 5.7, 2.0
    draw_text(axes, left + wide / 2, 3.8, "image transformer", size=11, weight="bold")
    draw_text(axes, right + wide / 2, 3.8, "Model 1", size=11, weight="bold")
    colours = [tuple(colour) for colour in token_colours(GRID)[0]]
    for k, (x, y) in enumerate(((0.25, 0.55), (0.62, 0.55), (0.25, 0.18), (0.62, 0.18))):
        draw_squares(axes, x, y, [colours[k]], size=0.35)
    draw_text(axes, 0.6, 1.1, "a picture")
    draw_cube(axes, 8.05, 0.2, 0.7)
    draw_text(axes, 8.6, 1.5, "a clip")
    rows = (
        (0.28, "patch filters", "tubelet filters", "[D, C, ph, pw]", "[D, C, pt, ph, pw]", "inflate: 10.1"),
        (1.13, "positions", "positions", "[1, S, D]", "[1, nt·S, D]", "repeat: 10.2, resize: 10.3"),
        (1.98, "blocks", "blocks", "any number of tokens", "any number of tokens", "take"),
        (2.83, "LayerNorm", "LayerNorm", "[D]", "[D]", "take"),
    )
    for y, ours, theirs, shape, shape_there, how in rows:
        changed = how != "take"
        for x, name, size in ((left, ours, shape), (right, theirs, shape_there)):
            draw_box(axes, x, y, wide, 0.6, "", colour=GREEN if changed else GREY)
            draw_text(axes, x + wide / 2, y + 0.4, name, weight="bold" if changed else "normal")
            draw_text(axes, x + wide / 2, y + 0.17, size, color=GREY)
        draw_arrow(axes, (left + wide + 0.08, y + 0.3), (right - 0.08, y + 0.3))
        draw_text(axes, (left + wide + right) / 2, y + 0.45, how, weight="bold" if changed else "normal")
    return figure


def filters_in_a_tubelet(
    filters: torch.Tensor, ways: Mapping[str, torch.Tensor], *, chosen: int | None = None
) -> Figure:
    """One image filter [ph, pw] and the tubelet's filters [pt, ph, pw] that each way makes of it.

    filters: [D, C, ph, pw]. ways: {name: [D, C, pt, ph, pw]}. chosen: which of the D, by default the strongest.
    """
    chosen = int(filters.flatten(1).norm(dim=1).argmax()) if chosen is None else chosen
    frames = next(iter(ways.values())).shape[2]
    figure = new_figure(1.05 * (frames + 1) + 0.9, 1.3 * len(ways) + 0.3)
    high = float(filters[chosen].abs().max())
    said = []
    for name, tubelet in ways.items():
        held = [str(t) for t in range(frames) if tubelet[chosen, 0, t].abs().max() > 1e-6]
        strength = float(tubelet[chosen].abs().max()) / high
        said.append(f"{name}: frames {', '.join(held)} hold up to {strength:.0%} of its strength, the others nothing.")
    size = " by ".join(map(str, filters.shape[2:]))
    figure.alt_text = f"One filter of {size} values and what becomes of it in {frames} frames. {' '.join(said)}"
    for row, (name, tubelet) in zip(figure.subplots(len(ways), frames + 1, squeeze=False), ways.items()):
        for k, (axes, picture) in enumerate(zip(row, (filters[chosen, 0], *tubelet[chosen, 0]))):
            drawn = axes.imshow(picture.detach(), cmap="gray", vmin=-high, vmax=high)
            axes.set(xticks=[], yticks=[])
            axes.set_title("image" if k == 0 else f"frame {k - 1}", fontsize=SMALLEST)
        row[0].set_ylabel(name.replace(" ", "\n"), fontsize=10, rotation=0, ha="right", va="center")
    bar = figure.colorbar(drawn, ax=figure.axes, shrink=0.8, ticks=(-high, 0, high), format="%.2f")
    bar.set_label("weight", fontsize=SMALLEST)
    return figure


def likeness_of_places(grids: Mapping[str, tuple[torch.Tensor, Sequence[int]]]) -> Figure:
    """How alike the positions of a grid are: for four places, their cosine with every other place.

    grids: {title: (positions [1, S, D], (nh, nw))}; the four places lie a quarter in from the corners.
    """
    import torch

    figure = new_figure(8.6, 2.3 * len(grids))
    figure.alt_text = (
        f"Maps of how alike positions are, for {' and '.join(grids)}: in each the place itself is brightest and its "
        "neighbours follow; the resized maps are smoother copies of those above."
    )
    for row, (title, (positions, (nh, nw))) in zip(figure.subplots(len(grids), 4, squeeze=False), grids.items()):
        vectors = positions[0] - positions[0].mean(dim=0)
        alike = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1).reshape(-1, nh, nw)
        for axes, (h, w) in zip(row, ((0.15, 0.15), (0.15, 0.85), (0.85, 0.15), (0.85, 0.85))):
            place = int(h * nh) * nw + int(w * nw)
            drawn = axes.imshow(alike[place].detach(), vmin=-1, vmax=1, cmap="cividis")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"to place ({int(h * nh)}, {int(w * nw)})", fontsize=SMALLEST)
        row[0].set_ylabel(title, fontsize=10)
    figure.colorbar(drawn, ax=figure.axes, shrink=0.7, label="cosine, mean taken off")
    return figure


def accuracy_by_share(table: Mapping[str, Any], figure_of: str = "acc") -> Figure:
    """Test accuracy against the share of the training patients, a line for each start, mean ± sd over the seeds."""
    figure = new_figure(8.6, 4.2)
    axes, starts = figure.subplots(), {}
    for row in table["rows"]:
        share, start = split_name(row["row"])
        starts.setdefault(start, []).append((share, row["test"][figure_of]))
    for start, points in starts.items():
        colour, mark, line = START_INKS[start]
        shares, found = zip(*points)
        means, sds = [one["mean"] for one in found], [one["sd"] or 0 for one in found]
        axes.errorbar(shares, means, sds, color=colour, marker=mark, linestyle=line, capsize=3, label=start)
    ends = "; ".join(
        f"{start}: {points[0][1]['mean']:.2f} to {points[-1][1]['mean']:.2f}" for start, points in starts.items()
    )
    figure.alt_text = (
        "Test accuracy against the share of training patients on a logarithmic axis, a line for each start, with error "
        f"bars of one standard deviation. From the smallest share to the largest, {ends}."
    )
    ticks = sorted({share for points in starts.values() for share, _ in points})
    axes.set(xscale="log", ylim=(0, 1), xlabel="% of the training patients", ylabel="test accuracy")
    axes.set_xticks(ticks, ticks)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=SMALLEST)
    return figure


def losses_by_start(table: Mapping[str, Any], shares: Sequence[int] = (5, 100)) -> Figure:
    """Training loss of each epoch, one panel per share, every seed a thin line."""
    figure = new_figure(9.4, 3.4)
    said = []
    panels = figure.subplots(1, len(shares), sharey=True)
    for axes, wanted in zip(np.atleast_1d(panels), shares):
        for row in table["rows"]:
            share, start = split_name(row["row"])
            if share != wanted:
                continue
            colour, mark, line = START_INKS[start]
            for k, losses in enumerate(row["history"]["loss"]):
                steps = np.linspace(0, 1, len(losses) + 1)[1:]
                style = {"marker": mark, "markersize": 4, "linestyle": "-" if line == "none" else line}
                style["zorder"] = (
                    3 if start.startswith("nothing") else 2
                )  # its lines lie under others in the right panel
                axes.plot(steps, losses, color=colour, linewidth=1, label=None if k else start, **style)
            said.append(f"{share} %, {start}: {row['loss']['mean']:.2f}")
        axes.set_title(f"{wanted} % of the patients", fontsize=10)
        axes.set(yscale="log", xlabel="part of the run")
        axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=SMALLEST)
    np.atleast_1d(panels)[0].set_ylabel("training loss of the epoch")
    figure.alt_text = (
        f"Curves of training loss on a logarithmic axis. In the last epoch, mean over seeds: {'; '.join(said)}."
    )
    return figure
