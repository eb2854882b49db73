"""What schematics are put together from: the clip as a cube of tubelets, tokens as squares, boxes, arrows, the
residual stream.

A drawing begins with `figure, axes = canvas(8, 3)`. One unit of its axes is one inch, (0, 0) is at the bottom left,
and every position is the bottom left corner of what is drawn there, unless it says otherwise:

    figure, axes = canvas(8, 2.4)
    draw_cube(axes, 0.2, 0.5, 1.2)
    draw_arrow(axes, (1.9, 1.1), (2.6, 1.1), "embed")
    draw_tokens(axes, 2.8, 1.0)
    plots.show(figure, caption="A clip of 3×2×2 tubelets becomes 12 tokens.")

A token has the same colour in all drawings: its hue says where it is in the frame, its shade says when.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import GREY, SMALLEST, new_figure

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colour = str | tuple[float, ...]
Point = tuple[float, float]

GRID = (3, 2, 2)  # nt, nh, nw of the running example: small enough to draw, and time has another size than space
PALE = (0.93, 0.93, 0.93)  # a token that a drawing is not about
TINTS = ("#F6D55C", "#F49AC2", "#C3D86B", "#B9A7E8")  # the places of a frame
DEPTH = (0.38, 0.30)  # how far a step back in time moves right and up, in steps along width and height


def canvas(width: float, height: float, title: str = "") -> tuple[Figure, Axes]:
    """An empty drawing of this size in inches, with a title at the top: its figure and its axes, in inches."""
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    if title:
        draw_text(axes, width / 2, height - 0.15, title, size=11, weight="bold")
    return figure, axes


def draw_text(axes: Axes, x: float, y: float, text: str, *, size: float = SMALLEST, **style: object) -> None:
    """Text centred at (x, y), or as matplotlib's style says (ha="left"). size: in points."""
    axes.text(x, y, text, **{"ha": "center", "va": "center", "fontsize": size, "linespacing": 1.2, **style})


def token_colours(grid: Sequence[int] = GRID) -> np.ndarray:
    """The colour of each token, [nt, S, 3] in [0, 1]. grid: (nt, nh, nw)."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    nt, places = grid[0], grid[1] * grid[2]
    if places <= len(TINTS):
        hues = np.array([to_rgb(tint) for tint in TINTS[:places]])
    else:
        hues = LinearSegmentedColormap.from_list("places", TINTS)(np.linspace(0, 1, places))[:, :3]
    shades = np.linspace(1, 0.62, nt)[:, None, None]  # later is darker
    return hues * shades


# ---- the clip


def draw_cube(
    axes: Axes,
    x: float,
    y: float,
    size: float,
    grid: Sequence[int] = GRID,
    *,
    gap: float = 0.0,
    only: Collection[int] | None = None,
    clip: np.ndarray | torch.Tensor | None = None,
) -> None:
    """A clip as a cube of tubelets: width to the right, height upwards, time into the depth.

    size: width of its front in inches; with the depth the cube is wider and higher by nt·DEPTH steps.
    gap: between tubelets, as a share of their size; 0 for a whole cube.
    only: numbers of the tubelets in colour (0 is the first frame's top left); the others are pale. None is all.
    clip: voxels [T, H, W] or [C, T, H, W], 0 to 255, shown on the faces under the colours.
    """
    nt, nh, nw = grid
    step = size / nw  # one tubelet, in inches, along width and height
    colours = token_colours(grid).reshape(-1, 3)
    voxels = None if clip is None else _voxels(clip, grid)
    for t in reversed(range(nt)):  # the farthest first
        for h in reversed(range(nh)):
            for w in range(nw):
                number = (t * nh + h) * nw + w
                colour = colours[number] if only is None or number in only else PALE
                back = np.multiply(DEPTH, t * step * (1 + gap))
                corner = (x + w * step * (1 + gap) + back[0], y + (nh - 1 - h) * step * (1 + gap) + back[1])
                _draw_tubelet(axes, corner, step, colour, None if voxels is None else voxels[t, h, w])


def cube_size(size: float, grid: Sequence[int] = GRID, *, gap: float = 0.0) -> tuple[float, float]:
    """Width and height in inches of what `draw_cube` draws."""
    nt, nh, nw = grid
    step = size / nw
    wide, high = ((n - 1) * (1 + gap) + 1 for n in (nw, nh))
    back = (nt - 1) * (1 + gap) + 1
    return step * (wide + DEPTH[0] * back), step * (high + DEPTH[1] * back)


def draw_axes_of_cube(axes: Axes, x: float, y: float, size: float, grid: Sequence[int] = GRID) -> None:
    """Names the three axes of a cube that `draw_cube` draws there without gaps: W below, H on the left, T in depth."""
    nt, nh, nw = grid
    step = size / nw
    right, up = np.multiply(DEPTH, nt * step)
    draw_text(axes, x + size / 2, y - 0.14, "W", color=GREY)
    draw_text(axes, x - 0.14, y + nh * step / 2, "H", color=GREY)
    draw_text(axes, x + size + right / 2 + 0.12, y + up / 2 - 0.1, "T", color=GREY)


def _voxels(clip, grid):
    """A clip cut into tubelets [nt, nh, nw, pt, ph, pw], in [0, 1]."""
    voxels = np.asarray(clip, dtype=float)
    voxels = voxels[0] if voxels.ndim == 4 else voxels
    nt, nh, nw = grid
    pt, ph, pw = (side // n for side, n in zip(voxels.shape, grid))
    voxels = voxels[: nt * pt, : nh * ph, : nw * pw].reshape(nt, pt, nh, ph, nw, pw)
    return voxels.transpose(0, 2, 4, 1, 3, 5) / 255


def _draw_tubelet(axes, corner, step, colour, voxels):
    """One tubelet: its front, its top and its right side, the last two in shade."""
    from matplotlib.patches import Polygon

    right, up, back = np.array([step, 0.0]), np.array([0.0, step]), np.multiply(DEPTH, step)
    corner = np.array(corner)
    faces = [  # where it begins, its two edges, its shade, its voxels as rows along the second edge
        (corner, right, up, 1.0, None if voxels is None else voxels[0, ::-1]),
        (corner + up, right, back, 0.88, None if voxels is None else voxels[:, 0]),
        (corner + right, back, up, 0.76, None if voxels is None else voxels[:, ::-1, -1].T),
    ]
    for start, along, across, shade, picture in faces:
        outline = [start, start + along, start + along + across, start + across]
        tint = np.multiply(colour, shade)
        if picture is not None:
            rows, columns = picture.shape
            u, v = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
            places = start + u[..., None] * along + v[..., None] * across
            painted = 0.45 * tint + 0.55 * picture[..., None] * shade
            axes.pcolormesh(places[..., 0], places[..., 1], painted, shading="flat")
        axes.add_patch(
            Polygon(outline, facecolor=tint if picture is None else "none", edgecolor="white", linewidth=0.8)
        )


# ---- tokens


def draw_tokens(
    axes: Axes,
    x: float,
    y: float,
    grid: Sequence[int] = GRID,
    *,
    size: float = 0.24,
    gap: float = 0.04,
    only: Collection[int] | None = None,
    labels: Sequence[str] | None = None,
    times: bool = False,
) -> list[Point]:
    """All tokens of a clip as squares in a row, those of one time index together; returns their centres.

    size, gap: of a square and between squares, in inches; between time indices the gap is three times as wide.
    only: numbers of the tokens in colour; the others are pale. labels: one text per token, inside its square.
    times: whether the time indices are named below.
    """
    places = grid[1] * grid[2]
    centres = []
    for t, colours in enumerate(token_colours(grid)):
        start = x + t * (places * (size + gap) + 2 * gap)
        numbers = range(t * places, (t + 1) * places)
        colours = [colour if only is None or k in only else PALE for k, colour in zip(numbers, colours)]
        texts = [labels[k] for k in numbers] if labels is not None else None
        centres += draw_squares(axes, start, y, colours, size=size, gap=gap, labels=texts)
        if times:
            draw_text(axes, start + (places * (size + gap) - gap) / 2, y - 0.14, f"time {t}", color=GREY)
    return centres


def draw_squares(
    axes: Axes,
    x: float,
    y: float,
    colours: Sequence[Colour],
    *,
    size: float = 0.24,
    gap: float = 0.04,
    labels: Sequence[str] | None = None,
    down: bool = False,
) -> list[Point]:
    """Squares in a row to the right, or downwards from (x, y); returns their centres. labels: a text in each."""
    from matplotlib.patches import Rectangle

    centres = []
    for k, colour in enumerate(colours):
        left, bottom = (x, y - k * (size + gap)) if down else (x + k * (size + gap), y)
        axes.add_patch(Rectangle((left, bottom), size, size, facecolor=colour, edgecolor="black", linewidth=0.5))
        centres.append((left + size / 2, bottom + size / 2))
        if labels is not None:
            draw_text(axes, *centres[-1], labels[k])
    return centres


def tokens_width(grid: Sequence[int] = GRID, *, size: float = 0.24, gap: float = 0.04) -> float:
    """The width in inches of what `draw_tokens` draws."""
    nt, places = grid[0], grid[1] * grid[2]
    return nt * (places * (size + gap) + 2 * gap) - 3 * gap


def draw_matrix(
    axes: Axes,
    x: float,
    y: float,
    values: np.ndarray | torch.Tensor,
    *,
    cell: float = 0.24,
    colour: Colour = GREY,
    numbers: str | None = None,
) -> None:
    """A matrix [rows, columns] of values in [0, 1] as cells from white to `colour`, its first row at the top.

    numbers: how a value is written into its cell, ".2f" for cells of at least 0.34; None writes none.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    values = np.asarray(values, dtype=float)
    for (row, column), value in np.ndenumerate(values):
        share = min(max(value, 0), 1)
        fill = 1 - share * (1 - np.array(to_rgb(colour)))
        left, bottom = x + column * cell, y + (len(values) - 1 - row) * cell
        axes.add_patch(Rectangle((left, bottom), cell, cell, facecolor=fill, edgecolor="white", linewidth=0.8))
        if numbers is not None:
            ink = "white" if fill.mean() < 0.5 else "black"
            draw_text(axes, left + cell / 2, bottom + cell / 2, format(value, numbers), color=ink)
    rows, columns = values.shape
    axes.add_patch(Rectangle((x, y), columns * cell, rows * cell, fill=False, edgecolor=GREY, linewidth=0.8))


# ---- boxes, arrows, the residual stream


def draw_box(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    *,
    colour: Colour = GREY,
    shape: str = "",
    dashed: bool = False,
) -> None:
    """A box with rounded corners around its text. shape: of what leaves it, written below: "[B, N, D]"."""
    from matplotlib.colors import to_rgba
    from matplotlib.patches import FancyBboxPatch

    style = {"facecolor": to_rgba(colour, 0.18), "edgecolor": colour, "linewidth": 1.2}
    style |= {"linestyle": "--", "facecolor": "none"} if dashed else {}
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", **style))
    draw_text(axes, x + width / 2, y + height / 2, text)
    if shape:
        draw_text(axes, x + width / 2, y - 0.13, shape, color=GREY)


def draw_arrow(
    axes: Axes, start: Point, end: Point, text: str = "", *, colour: Colour = GREY, width: float = 1.2, bend: float = 0
) -> None:
    """An arrow with a text above its middle. bend: how far it bows to the left of its way, as a share of it."""
    style = {"arrowstyle": "-|>,head_width=0.2,head_length=0.4", "color": colour, "linewidth": width}
    style |= {"shrinkA": 0, "shrinkB": 0, "connectionstyle": f"arc3,rad={-bend}"}
    axes.annotate("", end, start, arrowprops=style)
    if text:
        draw_text(axes, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.13, text, color=GREY)


def draw_residual_stream(
    axes: Axes,
    x: float,
    y: float,
    width: float,
    branches: Sequence[tuple[str, Colour]],
    *,
    drop: float = 0.85,
    norm: str = "LayerNorm",
    names: tuple[str, str] = ("z", "z"),
) -> None:
    """The residual stream as a line from left to right, and the branches of a block that read from it and add to it.

    (x, y): where the line begins, its middle; width: its length in inches. branches: (text, colour) of each, in order,
    [("attention", GREEN), ("MLP", GREY)]. drop: how far the branches lie below the line. norm: what stands in the box
    at the beginning of each branch, or "" for a branch without one. names: what the line is called at both ends.
    """
    from matplotlib.patches import Circle

    draw_arrow(axes, (x, y), (x + width, y), colour="black", width=2.4)
    draw_text(axes, x - 0.08, y, names[0], size=11, ha="right")
    draw_text(axes, x + width + 0.08, y, names[1], size=11, ha="left")
    each = (width - 0.3) / len(branches)
    for k, (text, colour) in enumerate(branches):
        left, plus = x + 0.15 + k * each, x + 0.15 + (k + 1) * each - 0.3
        low, high = y - drop, 0.4
        axes.plot([left, left], [y, low], color=colour, linewidth=1.4)
        free = plus - left - 0.4  # between the two bends
        norm_width = min(0.85, free * 0.42) if norm else 0.0
        start = left + 0.2
        draw_arrow(axes, (left, low), (start, low), colour=colour)
        if norm:
            draw_box(axes, start, low - high / 2, norm_width, high, norm)
            draw_arrow(axes, (start + norm_width, low), (start + norm_width + 0.2, low), colour=colour)
            start += norm_width + 0.2
        draw_box(axes, start, low - high / 2, plus - 0.2 - start, high, text, colour=colour)
        axes.plot([plus - 0.2, plus], [low, low], color=colour, linewidth=1.4)
        draw_arrow(axes, (plus, low), (plus, y - 0.11), colour=colour)
        axes.add_patch(Circle((plus, y), 0.11, facecolor="white", edgecolor="black", linewidth=1.2, zorder=3))
        axes.text(plus, y, "+", ha="center", va="center", fontsize=11, zorder=4)
