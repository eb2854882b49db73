"""Chapter 02: Karpathy's four networks, twins as film strips, filters and receptive fields in time, what CNNs learn.

Convolutions that look at one frame at a time are blue, those that span several frames green, everything else is grey.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...datasets.shapes import MOTIONS, SHAPE_CLASSES, draw_cycle
from ...plots import BLUE, DASHES, GREEN, GREY, SMALLEST, new_figure
from .pieces import PALE, canvas, draw_arrow, draw_box, draw_squares, draw_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER_FRAMES = 10  # of a clip in the paper's networks
FRAME = (0.80, 0.80, 0.80)
SIGNS = "osD^v"


# ---- the four networks


def four_networks() -> Figure:
    """Single frame, late, early and slow fusion next to each other, from ten frames at the bottom to the classes."""
    figure, axes = canvas(10, 3.7)
    figure.alt_text = (
        "Four networks, each above a row of ten frames. Single frame: one tower of convolutions above the frame in the "
        "middle. Late fusion: two towers with the same weights above two frames, which meet in the fully connected "
        "layers. Early fusion: a first convolution that spans all ten frames, then the rest of the tower. Slow fusion: "
        "four convolutions of four frames each, then two, then one: frames meet layer by layer."
    )
    draws = (_single_frame, _late_fusion, _early_fusion, _slow_fusion)
    for k, (draw, title) in enumerate(zip(draws, ("single frame", "late fusion", "early fusion", "slow fusion"))):
        x = 0.2 + 2.48 * k
        draw_text(axes, x + 1.1, 3.52, title, size=12, weight="bold")
        draw_box(axes, x + 0.35, 2.75, 1.5, 0.36, "fully connected")
        draw_arrow(axes, (x + 1.1, 3.11), (x + 1.1, 3.36))
        draw(axes, x)
    return figure


def _frames_of(axes, x, taken):
    """Ten frames, those that the network takes dark; their centres."""
    colours = [FRAME if k in taken else "white" for k in range(PAPER_FRAMES)]
    centres = draw_squares(axes, x, 0.35, colours, size=0.2, gap=0.022)
    draw_text(axes, x + 1.1, 0.16, "time", color=GREY)
    draw_arrow(axes, (x + 1.3, 0.16), (x + 1.75, 0.16))
    return centres


def _single_frame(axes, x):
    centre, _ = _frames_of(axes, x, {5})[5]
    _tower(axes, x + 0.55, centre)


def _late_fusion(axes, x):
    centres = _frames_of(axes, x, {1, 8})
    for place, left in ((1, x - 0.02), (8, x + 1.17)):
        _tower(axes, left, centres[place][0], width=1.05)
    draw_text(axes, x + 1.1, 2.52, "same weights", color=GREY)


def _tower(axes, left, frame, width=1.1):
    draw_box(axes, left, 1.0, width, 1.35, "convolutions\nof one frame", colour=BLUE)
    draw_arrow(axes, (frame, 0.55), (frame, 1.0))
    draw_arrow(axes, (left + width / 2, 2.35), (left + width / 2, 2.75))


def _early_fusion(axes, x):
    for centre, _ in _frames_of(axes, x, set(range(PAPER_FRAMES))):
        axes.plot([centre, centre], [0.57, 0.95], color=GREEN, linewidth=1)
    draw_box(axes, x, 0.95, 2.2, 0.42, "convolution of all frames", colour=GREEN)
    draw_arrow(axes, (x + 1.1, 1.37), (x + 1.1, 1.62))
    draw_box(axes, x + 0.35, 1.62, 1.5, 0.73, "convolutions", colour=BLUE)
    draw_arrow(axes, (x + 1.1, 2.35), (x + 1.1, 2.75))


def _slow_fusion(axes, x):
    below = [centre for centre, _ in _frames_of(axes, x, set(range(PAPER_FRAMES)))]
    top = 0.57
    for y, span, text in ((0.95, 4, "4"), (1.5, 2, "2"), (2.05, 2, "2")):
        places = []
        for start in range(0, len(below) - span + 1, 2):
            inside = below[start : start + span]
            middle = sum(inside) / span
            for one in inside:
                axes.plot([one, middle], [top, y], color=GREEN, linewidth=1)
            places.append(middle)
        for middle in places:
            draw_box(axes, middle - 0.16, y, 0.32, 0.26, text, colour=GREEN)
        below, top = places, y + 0.26
    draw_arrow(axes, (below[0], top), (below[0], 2.75))


# ---- twins


def twins_from_the_start(seed: int = 5) -> tuple[torch.Tensor, tuple[str, ...]]:
    """One clip of each class of movingshapes, uint8 [8, 1, 28, 28, 28], from the beginning of its cycle, and the names.

    A twin is the same frames backwards. seed: of the shapes; the data set's own clips begin anywhere in their cycle.
    """
    generator = torch.Generator().manual_seed(seed)
    cycles = [draw_cycle(motion, 28, generator) for motion in MOTIONS]  # [T, H, W] each
    clips = []
    for cycle, name in zip(cycles, SHAPE_CLASSES[::2]):
        backwards = cycle.flip(0)
        if name == "square first":  # the cycle is square, disc, nothing: backwards it begins with nothing
            backwards = backwards.roll(-9, 0)
        clips += [cycle, backwards]
    return torch.stack(clips)[:, None], SHAPE_CLASSES


def film_rows(clips: torch.Tensor, titles: Sequence[str], *, count: int = 10) -> Figure:
    """Clips [B, 1, T, H, W] as film strips below each other: `count` frames of each, evenly spaced."""
    numbers = torch.linspace(0, clips.shape[2] - 1, count).round().long()
    figure = new_figure(0.78 * count + 1.2, 0.8 * len(clips) + 0.3)
    figure.alt_text = (
        f"Film strips of {count} frames, one below the other, from top to bottom: {', '.join(titles)}. Time runs from "
        "left to right."
    )
    grid = figure.subplots(len(clips), count, squeeze=False)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0, hspace=0)
    for k, axes in zip(numbers, grid[0]):
        axes.set_title(f"frame {int(k)}", fontsize=SMALLEST)
    for row, clip, title in zip(grid, clips, titles):
        for axes, k in zip(row, numbers):
            axes.imshow(clip[0, k].numpy(), cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def play(
    clips: torch.Tensor, titles: Sequence[str], *, caption: str = "", columns: int = 4, milliseconds: int = 90
) -> None:
    """Plays clips uint8 [B, 1, T, H, W] next to each other over and over, each with its title above.

    `film_rows` is the same for pages that stand still.
    """
    from IPython.display import display

    from ..attention_figures import moving_png

    pictures = [_sheet(clips[:, 0, t].numpy(), titles, columns) for t in range(clips.shape[2])]
    alt = f"{len(clips)} clips play side by side: {', '.join(titles)}."
    png = moving_png(pictures, milliseconds)
    bundle = {"image/png": b64encode(png).decode(), "text/plain": alt}
    width = pictures[0].width // 2  # two pixels of the file for one of the page
    display(bundle, raw=True, metadata={"image/png": {"alt": alt, "width": width, "height": pictures[0].height // 2}})
    if caption:
        display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def _sheet(frames, titles, columns, zoom=8, gap=24, head=40):
    """One moment of all clips as a picture: each frame magnified, its title above it."""
    from matplotlib import font_manager
    from PIL import Image, ImageDraw, ImageFont

    size = zoom * frames.shape[-1]
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (size + gap) + gap, rows * (size + head + gap)), "white")
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 24)
    for k, (frame, title) in enumerate(zip(frames, titles)):
        left, top = gap + k % columns * (size + gap), k // columns * (size + head + gap)
        grey = (frame // 16 * 17).astype(np.uint8)  # fewer greys, a smaller file
        sheet.paste(Image.fromarray(grey).resize((size, size), Image.Resampling.NEAREST), (left, top + head))
        ImageDraw.Draw(sheet).text((left + size / 2, top + head / 2 + 2), title, "black", font, anchor="mm")
    return sheet


# ---- convolutions in time


def filter_in_slices() -> Figure:
    """A 3D filter of three frames above a clip: three 2D filters, whose results are added up."""
    figure, axes = canvas(9, 3.1)
    figure.alt_text = (
        "A clip of six frames and a 3D filter of span 3. Frames 0, 1 and 2 each meet one slice of the filter in a 2D "
        "convolution, and the three results are added up to one frame of features. The next window begins `step` "
        "frames later."
    )
    for t in range(6):
        draw_squares(axes, 0.4 + 0.85 * t, 0.45, [FRAME if t < 3 else "white"], size=0.6, labels=[f"{t}"])
    draw_text(axes, 2.8, 0.22, "frames of the clip", color=GREY)
    for k in range(3):
        x = 0.7 + 0.85 * k
        draw_box(axes, x - 0.36, 1.5, 0.72, 0.5, f"slice {k}", colour=GREEN)
        draw_arrow(axes, (x, 1.05), (x, 1.5), colour=GREEN)
        draw_arrow(axes, (x, 2.0), (1.55 + 0.12 * (k - 1), 2.5), colour=GREEN)
    draw_text(axes, 3.8, 1.75, "one filter of span 3:\nthree 2D convolutions", ha="left", color=GREEN)
    draw_text(axes, 1.55, 2.62, "+", size=15)
    draw_arrow(axes, (1.73, 2.64), (6.1, 2.64))
    draw_text(axes, 3.9, 2.8, "sum, plus the bias", color=GREY)
    draw_squares(axes, 6.2, 2.34, [GREEN], size=0.6)
    draw_text(axes, 6.9, 2.64, "one frame\nof features", ha="left")
    draw_text(axes, 6.2, 0.75, "the next window begins\n$\\mathtt{step}$ frames later", ha="left", color=GREY)
    return figure


def pyramid(networks: Mapping[str, Sequence[tuple[int, int]]], frames: int = 28) -> Figure:
    """Which features and frames lie behind one feature, layer by layer: a panel for each network.

    networks: {title: (span, step) of its convolutions, from the first}. The feature is one in the middle of the layer.
    """
    figure = new_figure(4.9 * len(networks), 3.4)
    told = []
    for axes, (title, layers) in zip(np.atleast_1d(figure.subplots(1, len(networks))), networks.items()):
        counts = _draw_pyramid(axes, layers, frames)
        axes.set_title(title, fontsize=11)
        told.append(f"{title}: {', '.join(map(str, counts))} frames after {len(counts)} layers")
    figure.alt_text = (
        f"Pyramids of lines from one feature down to the frames of a clip. {'; '.join(told)}. All other features and "
        "frames are pale."
    )
    return figure


def _draw_pyramid(axes: Axes, layers, frames):
    """Draws a network's features as dots, in colour what lies behind one; returns the frames after each layer."""
    places = [np.arange(frames, dtype=float)]  # where each feature stands, layer by layer
    below = []  # which features of the layer below each one spans
    for span, step in layers:
        last = len(places[-1])
        missing = max(span - last, 0)
        missing += -(last + missing - span) % step  # frames of zeros at the end
        starts = range(0, last + missing - span + 1, step)
        below.append([[k for k in range(start, start + span) if k < last] for start in starts])
        places.append(np.array([places[-1][inside].mean() for inside in below[-1]]))
    counts = []
    for depth in range(1, len(places)):
        seen = {_middle(places[depth])}
        for level in reversed(below[:depth]):
            seen = {k for feature in seen for k in level[feature]}
        counts.append(len(seen))
    seen = {_middle(places[-1])}
    for depth in range(len(places) - 1, -1, -1):
        colours = [(GREEN if depth else "black") if k in seen else PALE for k in range(len(places[depth]))]
        axes.scatter(places[depth], [depth] * len(colours), c=colours, s=46, marker="o" if depth else "s", zorder=3)
        if depth:
            for k in seen:
                for one in below[depth - 1][k]:
                    axes.plot([places[depth][k], places[depth - 1][one]], [depth, depth - 1], color=GREEN, linewidth=1)
            seen = {one for k in seen for one in below[depth - 1][k]}
    names = ["frames", *(f"layer {d}: {n} frames" for d, n in enumerate(counts, 1))]
    axes.set_yticks(range(len(names)), names, fontsize=SMALLEST)
    axes.set(ylim=(-0.5, len(layers) + 0.5), xlabel="time")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return counts


def _middle(places):
    return int(np.abs(places - places.mean()).argmin())


def one_frame_each(frame_by_frame: Callable) -> Figure:
    """A yellow block moves to the right; below it the "frames" that a CNN is given, by one reshape and when mended.

    frame_by_frame: (cnn, clips [B, C, T, H, W]) -> features [B, T, D]; here the CNN returns its images unchanged.
    """
    clip = torch.tensor([0.1, 0.1, 0.3])[:, None, None, None].repeat(1, 6, 12, 12)  # [C, T, H, W]
    for t in range(6):
        clip[:, t, 4:8, 2 * t : 2 * t + 2] = torch.tensor([1.0, 0.7, 0.2])[:, None, None]
    mended = frame_by_frame(torch.nn.Identity(), clip[None]).view(6, 3, 12, 12)
    rows = {"the clip": clip.transpose(0, 1), "as found": clip.reshape(6, 3, 12, 12), "mended": mended}
    figure = new_figure(8, 3.6)
    figure.alt_text = (
        "Six frames in which a yellow block moves to the right. Below them what a CNN is given as frames: by the "
        "function as found, each shows the block at three places in red, green and blue; by the mended one, the frames."
    )
    for row, (title, frames) in zip(figure.subplots(3, 6), rows.items()):
        for t, (axes, frame) in enumerate(zip(row, frames)):
            axes.imshow(frame.movedim(0, -1).numpy(), vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if title == "the clip":
                axes.set_title(f"frame {t}", fontsize=SMALLEST)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def cnn_with_attention() -> Figure:
    """From frames through one CNN to tokens, then attention among all of them, their mean and logits."""
    figure, axes = canvas(10, 2.9)
    figure.alt_text = (
        "Three frames go through the same CNN. Each comes out as a grid of 3×3 features. All 27 features become tokens "
        "in one sequence, attention relates all of them over space and time, and their mean gives the logits."
    )
    shades = np.linspace(0.62, 1, 3)  # later is darker
    for t in range(3):
        y = 2.05 - 0.8 * t
        draw_squares(axes, 0.35, y, [FRAME], size=0.55, labels=[f"{2 * t}"])
        draw_arrow(axes, (0.95, y + 0.27), (1.3, y + 0.27))
        draw_box(axes, 1.3, y + 0.02, 0.75, 0.5, "CNN", colour=BLUE)
        draw_arrow(axes, (2.1, y + 0.27), (2.5, y + 0.27))
        for row in range(3):
            blues = [tuple(1 - (1 - np.array((0.55, 0.75, 0.9))) * shades[t] * 1.4)] * 3
            draw_squares(axes, 2.55, y + 0.38 - 0.19 * row, blues, size=0.17, gap=0.02)
        draw_arrow(axes, (3.2, y + 0.27), (3.75, 1.35 + 0.12 * (1 - t)))
    draw_text(axes, 0.62, 0.2, "every second\nframe", color=GREY)
    draw_text(axes, 1.67, 0.2, "the same\nweights", color=GREY)
    draw_text(axes, 2.83, 0.2, "3×3 places", color=GREY)
    draw_box(axes, 3.75, 1.08, 1.45, 0.54, "tokens\n+ positions", shape="[B, N, D]")
    draw_arrow(axes, (5.2, 1.35), (5.6, 1.35))
    draw_box(axes, 5.6, 1.0, 1.6, 0.7, "attention over\nspace and time", colour=GREEN, shape="depth layers")
    draw_arrow(axes, (7.2, 1.35), (7.55, 1.35))
    draw_box(axes, 7.55, 1.08, 0.75, 0.54, "mean")
    draw_arrow(axes, (8.3, 1.35), (8.6, 1.35))
    draw_box(axes, 8.6, 1.08, 0.75, 0.54, "linear", shape="logits [B, K]")
    return figure


# ---- what they learn


def coin_curves(losses: Mapping[str, Sequence[Sequence[float]]]) -> Figure:
    """Training losses of several networks, a line per seed, with ln 2, the loss of somebody who tosses a coin."""
    means = {name: [f"{np.mean(run[-10:]):.2f}" for run in runs] for name, runs in losses.items()}
    ends = "; ".join(f"{name.replace('_', ' ')} {', '.join(found)}" for name, found in means.items())
    figure = new_figure(7, 2.8, f"Training loss by step, a line per seed, and the loss of a coin. It ends at: {ends}.")
    axes = figure.subplots()
    for (name, runs), dashes in zip(losses.items(), DASHES):
        for run in runs:
            label = name.replace("_", " ") if run is runs[0] else None
            axes.plot(np.arange(1, len(run) + 1), run, color="black", linestyle=dashes, linewidth=1.1, label=label)
    axes.axhline(np.log(2), color=GREY, linewidth=2.5, alpha=0.5, label="ln 2, a coin")
    axes.set(xlabel="training step", ylabel="loss", ylim=(0, 1.1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST, loc="lower left")
    return figure


def both_ways(answers: Mapping[str, tuple[Sequence[float], Sequence[float]]], name: str) -> Figure:
    """A class's probability for a clip and the same clip backwards, entered at each of its frames: a panel per network.

    answers: {network: (probabilities forwards, backwards)}, each by which frame is in the middle of the clip.
    name: the class.
    """
    told = "; ".join(f"{who}: {np.mean(f):.2f} forwards, {np.mean(b):.2f} backwards" for who, (f, b) in answers.items())
    figure = new_figure(
        3.1 * len(answers) + 0.8, 2.9, f"Probability of {name} by the frame in the middle of the clip. Means: {told}."
    )
    panels = np.atleast_1d(figure.subplots(1, len(answers), sharey=True))
    for axes, (who, (forwards, backwards)) in zip(panels, answers.items()):
        axes.plot(forwards, color="black", marker="o", markersize=4, label="the clip")
        axes.plot(backwards, color="black", linestyle="--", marker="s", markersize=4, mfc="white", label="backwards")
        axes.set(title=who.replace("_", " "), xlabel="frame in the middle", ylim=(-0.05, 1.05))
        axes.set_xticks(range(0, len(forwards), 2))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel(f"probability of {name!r}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=SMALLEST)
    return figure


def five_networks(table: Mapping) -> Figure:
    """A recorded table of networks on movingshapes: test accuracy over the seeds, and validation during training.

    table: rows with row, test, history, as notebooks/results/motion_movingshapes.json has them.
    """
    rows = table["rows"]
    names = [row["row"].replace("_", " ") for row in rows]
    told = "; ".join(f"{n} {r['test']['acc']['mean']:.2f} ± {r['test']['acc']['sd']:.2f}" for n, r in zip(names, rows))
    figure = new_figure(10, 3.3, f"Test accuracy of {len(rows)} networks, mean and standard deviation: {told}.")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    for place, (row, mark) in enumerate(zip(rows, SIGNS)):
        found = row["test"]["acc"]
        left.errorbar(found["mean"], place, xerr=found["sd"], fmt=mark, color="black", capsize=4)
        left.scatter(found["runs"], [place + 0.22] * len(found["runs"]), s=9, color=GREY)
    left.set_yticks(range(len(rows)), names)
    left.set(xlim=(0, 1.02), ylim=(len(rows) - 0.5, -0.5), xlabel="test accuracy")
    for (name, row), mark, dashes in zip(zip(names, rows), SIGNS, DASHES):
        mean = np.mean(row["history"]["val_acc"], axis=0)
        epochs = np.arange(1, len(mean) + 1)
        style = {"color": "black", "linestyle": dashes, "linewidth": 1.2, "markersize": 5, "markevery": 4}
        right.plot(epochs, mean, marker=mark, label=name, **style)
    right.set(ylim=(0, 1.02), xlabel="epoch", ylabel="validation accuracy")
    left.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    right.axhline(0.5, color=GREY, linestyle="--", linewidth=1)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=SMALLEST, loc="lower right", ncols=2)
    return figure
