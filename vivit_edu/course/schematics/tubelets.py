"""Drawings of chapter 03: a clip taken apart into tubelets, the way to a token, and what embeddings see and learn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...plots import BLUE, GREEN, GREY, ORANGE, SMALLEST, new_figure
from ..pictures import CUT
from .pieces import (
    GRID,
    _draw_tubelet,
    _voxels,
    canvas,
    cube_size,
    draw_arrow,
    draw_axes_of_cube,
    draw_cube,
    draw_matrix,
    draw_squares,
    draw_text,
    draw_tokens,
    token_colours,
    tokens_width,
)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Array = np.ndarray | torch.Tensor

UNSEEN = "#F6D55C"  # painted over voxels that nothing reads


def taken_apart(clip: Array, grid: Sequence[int] = (4, 4, 4)) -> Figure:
    """A clip as a cube, and the same cube taken apart: one layer of tubelets for each time index.

    clip: voxels [C, T, H, W] or [T, H, W], uint8; grid: (nt, nh, nw).
    """
    nt, nh, nw = grid
    figure, axes = canvas(10, 2.55)
    whole, step, gap = 1.45, 0.31, 0.06
    draw_cube(axes, 0.35, 0.55, whole, (1, 1, 1), clip=clip, only=())
    draw_axes_of_cube(axes, 0.35, 0.55, whole, (1, 1, 1))
    draw_text(axes, 0.35 + whole / 2, 0.16, "one clip", weight="bold")
    draw_arrow(axes, (2.55, 1.35), (3.0, 1.35))
    colours, voxels = token_colours(grid), _voxels(clip, grid)
    for i in range(nt):
        left, shade = 3.15 + i * (nw * (step + gap) + 0.24), colours[i].max() / colours[0].max()  # of voxels, too
        for j in reversed(range(nh)):
            for k in range(nw):
                corner = (left + k * (step + gap), 0.55 + (nh - 1 - j) * (step + gap))
                _draw_tubelet(axes, corner, step, colours[i, j * nw + k], shade * voxels[i, j, k])
        draw_text(axes, left + nw * (step + gap) / 2, 0.16, f"time index {i}", weight="bold")
    return figure


def way_to_a_token(clip: Array, marked: int = 5) -> Figure:
    """From the clip to its tokens: one tubelet is taken out, written as one vector and multiplied by E.

    clip: voxels [C, T, H, W] or [T, H, W], uint8; marked: the number of the tubelet in the drawing's grid, GRID.
    """
    figure, axes = canvas(10, 3.75)
    size, colour = 1.3, token_colours(GRID).reshape(-1, 3)[marked]
    draw_cube(axes, 0.3, 1.55, size, GRID, clip=clip, gap=0.12, only=[marked])
    wide, _ = cube_size(size, GRID, gap=0.12)
    draw_text(axes, 0.3 + wide / 2, 1.28, "nt · nh · nw tubelets", color=GREY)
    draw_arrow(axes, (0.5 + wide, 2.3), (1.0 + wide, 2.3), "take one")
    left = 1.2 + wide
    number = np.unravel_index(marked, GRID)
    _draw_tubelet(axes, (left, 2.0), 0.55, colour, _voxels(clip, GRID)[number])
    draw_text(axes, left + 0.35, 1.82, "C · pt · ph · pw voxels", color=GREY)
    draw_arrow(axes, (left + 0.95, 2.3), (left + 1.45, 2.3), "flatten")
    values = _voxels(clip, GRID)[number].ravel()
    shown = values[:: len(values) // 9][:9]
    left += 1.65
    draw_squares(axes, left, 2.92, [str(round(float(v), 2)) for v in shown], size=0.16, gap=0.0, down=True)
    draw_text(axes, left + 0.08, 1.45, "V numbers", color=GREY)
    draw_arrow(axes, (left + 0.35, 2.3), (left + 0.8, 2.3), "multiply")
    pattern = np.random.default_rng(2).random((5, 9))
    draw_matrix(axes, left + 0.95, 1.97, pattern, cell=0.14)
    draw_text(axes, left + 0.95 + 0.63, 1.8, "E: D rows of V weights", color=GREY)
    draw_arrow(axes, (left + 2.35, 2.3), (left + 2.8, 2.3), "add b")
    draw_squares(
        axes, left + 2.95, 2.5, [(*colour, share) for share in (1, 0.5, 0.8, 0.3, 0.9)], size=0.16, gap=0, down=True
    )
    draw_text(axes, left + 3.03, 1.7, "one token,\nD numbers", color=GREY)
    start = 5 - tokens_width(GRID, size=0.3) / 2
    draw_text(axes, start - 0.15, 0.6, "all tokens", ha="right", weight="bold")
    draw_tokens(axes, start, 0.45, GRID, size=0.3, times=True)
    return figure


def grid_of_cuts(axes: Axes, size: Sequence[int], step: Sequence[int]) -> None:
    """Lines where a frame of (H, W) pixels is cut into patches of (ph, pw)."""
    for y in range(0, size[0] + 1, step[0]):
        axes.plot([-0.5, size[1] - 0.5], [y - 0.5] * 2, color=CUT, linewidth=1.2)
    for x in range(0, size[1] + 1, step[1]):
        axes.plot([x - 0.5] * 2, [-0.5, size[0] - 0.5], color=CUT, linewidth=1.2)


def frames_in_time(clip: Array, tubelet: Sequence[int]) -> Figure:
    """All frames of a clip, small and in order; those that frame sampling keeps are large and cut into patches.

    clip: [C, T, H, W] or [T, H, W]; tubelet: (pt, ph, pw).
    """
    voxels, (pt, ph, pw) = _volume(clip), tubelet
    kept = list(range(pt // 2, len(voxels), pt))
    ratios = [3 if t in kept else 1 for t in range(len(voxels))]
    figure = new_figure(11, 1.9)
    for t, axes in enumerate(figure.subplots(1, len(voxels), width_ratios=ratios)):
        axes.imshow(voxels[t], cmap="gray", vmin=0, vmax=1, alpha=1 if t in kept else 0.45)
        axes.set_axis_off()
        if t in kept:
            grid_of_cuts(axes, voxels.shape[1:], (ph, pw))
            axes.set_title(f"frame {t}", fontsize=10)
    figure.get_layout_engine().set(wspace=0.01, w_pad=0.01)
    return figure


def unseen_voxels(clip: Array, unseen: Array, slices: Sequence[int]) -> Figure:
    """Slices of a clip with the voxels that no token reads painted over. clip: [C, T, H, W]; unseen: bool [T, H, W]."""
    from matplotlib.colors import to_rgb

    voxels, unseen = _volume(clip), np.asarray(unseen)
    figure = new_figure(11, 2.9)
    for axes, t in zip(figure.subplots(1, len(slices)), slices):
        picture = np.repeat(voxels[t][..., None], 3, axis=-1)
        picture[unseen[t]] = 0.35 * picture[unseen[t]] + 0.65 * np.array(to_rgb(UNSEEN))
        axes.imshow(picture)
        axes.set_axis_off()
        axes.set_title(f"slice {t}\n{unseen[t].mean():.0%} unseen", fontsize=10)
    return figure


def voxels_read(clip: Array, read: dict[str, Array], slices: Sequence[int]) -> Figure:
    """Which voxels one token reads, in green, for several embeddings: {title: bool [T, H, W]}, one line for each."""
    from matplotlib.colors import to_rgb

    voxels = _volume(clip)
    figure = new_figure(10, 1.3 * len(read) + 0.3)
    panels = figure.subplots(len(read), len(slices), squeeze=False)
    for line, (title, mask) in zip(panels, read.items()):
        for axes, t in zip(line, slices):
            picture = 0.75 * np.repeat(voxels[t][..., None], 3, axis=-1)
            marked = np.asarray(mask[t])
            picture[marked] = 0.25 * picture[marked] + 0.75 * np.array(to_rgb(GREEN))
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            if line[0] is panels[0, 0]:
                axes.set_title(f"slice {t}", fontsize=10)
        line[0].set_ylabel(title, fontsize=10)
    return figure


def rebuilt_clips(clip: Array, versions: dict[str, Array], slices: Sequence[int] = (4, 10, 16, 22)) -> Figure:
    """A clip next to versions of it that were rebuilt from tokens: {title: [C, T, H, W]}, one line for each."""
    rows = {"the clip": clip, **versions}
    figure = new_figure(7.6, 1.5 * len(rows) + 0.3)
    panels = figure.subplots(len(rows), len(slices))
    for line, (title, version) in zip(panels, rows.items()):
        for axes, t in zip(line, slices):
            axes.imshow(_volume(version)[t], cmap="gray", vmin=0, vmax=1)
            axes.set(xticks=[], yticks=[])
            if line[0] is panels[0, 0]:
                axes.set_title(f"slice {t}", fontsize=10)
        line[0].set_ylabel(title, fontsize=10, rotation=0, ha="right", va="center")
    return figure


def two_pictures(pictures: dict[str, Array]) -> Figure:
    """Grey pictures [H, W] in [0, 1] next to each other: {title: picture}."""
    figure = new_figure(2.6 * len(pictures), 2.8)
    for axes, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items()):
        axes.imshow(np.asarray(picture), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        axes.set_title(title, fontsize=10)
    return figure


def filter_pictures(pictures: dict[str, Array]) -> Figure:
    """Small 3D pictures, {title: [n, pt, ph, pw]}: a block for each title, a column for each picture, and its frames
    from top to bottom. Each picture has its own grey scale, white for its largest weight."""
    pictures = {
        title: np.asarray(block.detach() if hasattr(block, "detach") else block) for title, block in pictures.items()
    }
    (count, pt), blocks = next(iter(pictures.values())).shape[:2], len(pictures)
    figure = new_figure(0.72 * count + 1.0, (0.72 * pt + 0.45) * blocks)
    for part, (title, block) in zip(np.atleast_1d(figure.subfigures(blocks, 1)), pictures.items()):
        part.suptitle(title, fontsize=10)
        panels = part.subplots(pt, count, squeeze=False)
        for column, picture in enumerate(block):
            limit = np.abs(picture).max()
            for t, axes in enumerate(panels[:, column]):
                axes.imshow(picture[t], cmap="gray", vmin=-limit, vmax=limit)
                axes.set(xticks=[], yticks=[])
        for t in range(pt):
            panels[t, 0].set_ylabel(f"frame {t}", fontsize=SMALLEST, rotation=0, ha="right", va="center")
    return figure


def cosine_by_distance(positions: Array, grid: Sequence[int]) -> Figure:
    """The mean cosine of two positions [N, D] against how far apart they are along one axis of the grid."""
    table = np.asarray(positions.detach() if hasattr(positions, "detach") else positions).reshape(*grid, -1)
    table = table / np.linalg.norm(table, axis=-1, keepdims=True)
    figure = new_figure(5.5, 2.8)
    axes = figure.subplots()
    for axis, (name, colour, style) in enumerate((("time", ORANGE, "-"), ("height", BLUE, "-"), ("width", BLUE, "--"))):
        along, n = np.moveaxis(table, axis, 0), grid[axis]
        means = [float((along[: n - d] * along[d:]).sum(axis=-1).mean()) for d in range(1, n)]
        axes.plot(range(1, n), means, marker="o", color=colour, linestyle=style, label=name)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set(xlabel="distance in tubelets along one axis", ylabel="mean cosine")
    axes.grid(alpha=0.35)
    axes.legend()
    return figure


def similarity_maps(maps: dict[str, Array], place: Sequence[int]) -> Figure:
    """How alike positions are to that of one place: {title: cosines [nt, nh, nw]}, one line for each.

    place: (i, j, k), framed. All lines have one colour scale, up to the highest value that is not the place itself.
    """
    maps = {title: np.asarray(m.detach() if hasattr(m, "detach") else m) for title, m in maps.items()}
    (nt, *_), at = next(iter(maps.values())).shape, tuple(place)
    lowest = min(m.min() for m in maps.values())
    highest = max(np.delete(m.ravel(), np.ravel_multi_index(at, m.shape)).max() for m in maps.values())
    figure = new_figure(11, 1.75 * len(maps) + 0.3)
    panels = figure.subplots(len(maps), nt, squeeze=False)
    for line, (title, cosines) in zip(panels, maps.items()):
        for t, axes in enumerate(line):
            image = axes.imshow(cosines[t], cmap="viridis", vmin=lowest, vmax=highest)
            axes.set(xticks=[], yticks=[])
            if line[0] is panels[0, 0]:
                axes.set_title(f"time index {t}", fontsize=10)
        i, j, k = place
        x, y = np.array([-0.5, 0.5, 0.5, -0.5, -0.5]) + k, np.array([-0.5, -0.5, 0.5, 0.5, -0.5]) + j
        line[i].plot(x, y, color="white", linewidth=2)
        line[i].plot(x, y, color="black", linewidth=1)
        line[0].set_ylabel(title, fontsize=10)
    figure.colorbar(image, ax=panels, label="cosine", extend="max")
    return figure


def tokens_and_pairs(edges: Sequence[int], size: int = 28) -> Figure:
    """Tokens and pairs of tokens of a clip of size³ voxels by the edge of its cubic tubelets, on labelled axes."""
    tokens = np.array([(size // edge) ** 3 for edge in edges], dtype=float)
    figure = new_figure(7.5, 3.4)
    axes = figure.subplots()
    for counts, label, marker, style in (
        (tokens**2, "pairs of tokens, N²", "o", "-"),
        (tokens, "tokens, N", "s", "--"),
    ):
        axes.plot(edges, counts, marker=marker, linestyle=style, color=GREY if counts is tokens else GREEN, label=label)
        for edge, count in zip(edges, counts):
            axes.annotate(f"{count:,.0f}", (edge, count), xytext=(6, 4), textcoords="offset points", fontsize=SMALLEST)
    axes.set(xscale="log", yscale="log", xlabel="edge of the tubelet in voxels", ylim=(0.5, 3e10), xlim=(0.85, 45))
    axes.set_xticks(edges, [str(edge) for edge in edges])
    axes.minorticks_off()
    powers = range(0, 11, 2)
    names = {0: "1", 2: "100", 4: "10,000", 6: "1 million", 8: "100 million", 10: "10 billion"}
    axes.set_yticks([10.0**p for p in powers], [names[p] for p in powers])
    axes.grid(alpha=0.35)
    axes.legend()
    return figure


def _volume(clip: Any) -> np.ndarray:
    """The first channel of a clip as floats [T, H, W] in [0, 1]."""
    integers = not np.issubdtype(np.asarray(clip.detach() if hasattr(clip, "detach") else clip).dtype, np.floating)
    voxels = np.asarray(clip.detach() if hasattr(clip, "detach") else clip, dtype=float)
    voxels = voxels[0] if voxels.ndim == 4 else voxels
    return voxels / 255 if integers else voxels
