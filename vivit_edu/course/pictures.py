"""Figures that only chapters use: the four architectures, who attends to whom, and where tubelets are cut.

Blue stands for space, orange for time and green for both at once, in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..cost import PAPER
from ..embedding import token_grid
from ..errors import ConfigError
from ..models import VIVITS, model_class
from ..plots import COLOURS, GREY, ORANGE, new_figure
from .schematics import architecture, architectures  # noqa: F401  (chapters take all drawings from here)

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CUT = "#56B4E9"  # seen on black, grey and white


# ---- who attends to whom


def visibility_mask(name: str, n_t: int, n_h: int, n_w: int, kind: str | None = None) -> torch.Tensor:
    """Which token (row) can attend to which (column) within one layer: bool [N, N], N = n_t·n_h·n_w.

    name: one of Models 1 to 4; tokens count as in the models: all places of a time index, then the next.
    kind: "joint" (Model 1), "space" or "time" (Models 2 to 4); without it, all that the layer's attentions
    see. Model 2's temporal encoder has one vector per time index: its "time" is [n_t, n_t]. Without a kind its
    spatial encoder is meant. Raises ConfigError where the name is not that of a ViViT or it has no such kind.
    """
    known = {vivit: model_class(vivit).kinds for vivit in VIVITS}
    if name not in known or kind not in (None, *known[name]):
        raise ConfigError(f"{name!r} has no attention of kind {kind!r}; models and their kinds are {known}")
    model, kinds = model_class(name), [kind] if kind else known[name]
    if model.tokens_as == "encoders":
        kinds = kinds[:1]
    first, *others = (model.sees(k, n_t, n_h * n_w) for k in kinds)
    for other in others:
        first = first | other
    return first


def mask_figure(
    names: str | Sequence[str] = tuple(PAPER), n_t: int = 4, n_h: int = 4, n_w: int = 4, query: int | None = None
) -> Figure:
    """The masks of one model or of several: above, a layer's N×N matrix; below, what one token sees.

    names: a name or several; query: number of the token whose view is drawn, by default one in the middle.
    Model 2 has two columns, one for each encoder.
    """
    names = [names] if isinstance(names, str) else names
    query = (n_t // 2 * n_h + n_h // 2) * n_w + n_w // 2 if query is None else query
    panels = [panel for name in names for panel in mask_panels(name, n_t, n_h, n_w)]
    captions = [f"{title}: {pairs}.".replace("\n", ", ") for title, pairs, _ in panels]
    figure = new_figure(
        max(2.0 * len(panels), 4.6),
        3.6 if len(panels) > 2 else 5.2 if len(panels) == 1 else 4.2,
        f"Who attends to whom among {n_t}×{n_h}×{n_w} tokens. Above, a matrix for each: a row is the token "
        f"that looks, a column one it can look at. Below, what token {query} sees. {' '.join(captions)}",
    )
    above, below = figure.subplots(2, len(panels), squeeze=False, height_ratios=(4, 1))
    for matrix, view, (title, pairs, masks) in zip(above, below, panels):
        picture = paint(masks)
        step = n_h * n_w if len(picture) > n_t else 1  # tokens, or a temporal encoder's vectors, per time index
        matrix.imshow(picture, interpolation="nearest")
        for seam in range(step, n_t * step, step):  # between one time index and the next
            matrix.axhline(seam - 0.5, color="white", lw=1)
            matrix.axvline(seam - 0.5, color="white", lw=1)
        matrix.set_title(title, fontsize=10)
        matrix.set_xlabel(pairs, fontsize=9)
        looking = query * step // (n_h * n_w)
        row = picture[looking]  # [n_t·step, 3]
        row[looking] = 0  # black
        view.imshow(token_frames(row, n_t, n_h, n_w), interpolation="nearest")
        for axes in (matrix, view):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
    above[0].set_ylabel("each token", fontsize=9)
    below[0].set_ylabel(f"token {query}", fontsize=9)
    key_of_colours(figure, [masks for *_, masks in panels], columns=5 if len(panels) > 2 else 2)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06)
    return figure


def token_frames(row: np.ndarray, n_t: int, n_h: int, n_w: int) -> np.ndarray:
    """One colour per token (or per time index), [N, 3], as n_t frames in a row: [n_h, n_t·(n_w + 1) - 1, 3]."""
    small = (n_h, n_w) if len(row) > n_t else (1, 1)
    frames = np.broadcast_to(row.reshape(n_t, *small, 3), (n_t, n_h, n_w, 3))
    seam = np.ones((n_h, 1, 3))
    return np.concatenate([part for frame in frames for part in (frame, seam)][:-1], axis=1)


def key_of_colours(figure: Figure, masks: list[dict[str, torch.Tensor]], columns: int) -> None:
    """What the colours in use mean, below a figure."""
    from matplotlib.patches import Patch

    meanings = {"joint": "over space and time", "space": "over space", "time": "over time"}
    used = [kind for kind in COLOURS if any(kind in m for m in masks)]
    patches = [Patch(color=COLOURS[kind], label=meanings[kind]) for kind in used]
    patches += [Patch(color=GREY, label="both: the token itself")] if any(len(m) > 1 for m in masks) else []
    patches += [Patch(color="black", label="the token that looks")]
    style = {"fontsize": 9, "frameon": False, "handlelength": 1, "columnspacing": 1.2}
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, **style)


def paint(masks: dict[str, torch.Tensor]) -> np.ndarray:
    """A picture [N, N, 3] of masks: each kind in its colour, what both kinds see in grey, the rest pale."""
    from matplotlib.colors import to_rgb

    sees = np.stack([mask.numpy() for mask in masks.values()])
    picture = np.full((*sees.shape[1:], 3), 0.93)
    for kind, seen in zip(masks, sees):
        picture[seen] = to_rgb(COLOURS[kind])
    picture[sees.sum(axis=0) > 1] = to_rgb(GREY)
    return picture


def mask_panels(name: str, n_t: int, n_h: int, n_w: int) -> list[tuple[str, str, dict[str, torch.Tensor]]]:
    """The columns of a model in `mask_figure`: (title, how many pairs, {kind: mask})."""
    model, s = model_class(name), n_h * n_w
    number = model.title.partition(", ")[0]
    masks = {kind: visibility_mask(name, n_t, n_h, n_w, kind) for kind in model.kinds}
    if model.tokens_as == "encoders":
        encoders = {"space": "spatial encoder", "time": "temporal encoder"}
        return [
            (f"{number}\n{encoders[kind]}", f"{model.pairs(kind, n_t, s):,} pairs per head", {kind: mask})
            for kind, mask in masks.items()
        ]
    order = ", then ".join("space and time" if kind == "joint" else kind for kind in model.kinds)
    what = "half of the heads each" if model.attention_halves else order
    return [(f"{number}\n{what}", f"{model.pairs_per_head(n_t, s):,} pairs per head", masks)]


# ---- where tubelets are cut


def tubelet_cuts(
    volume: np.ndarray | torch.Tensor, tubelet: tuple[int, int, int], rows: int = 4, columns: int = 7
) -> Figure:
    """A volume's slices with the cuts of its tubelets drawn in: one row per time index, one tubelet marked.

    volume: uint8 [T, H, W] or a clip [C, T, H, W], of which the first channel is shown; tubelet: (t, h, w).
    Voxels that fill no whole tubelet are hatched; their slices have a row of their own. Where there are more rows
    or columns than fit, evenly spaced ones are shown.
    """
    volume = np.asarray(volume)
    volume = volume[0] if volume.ndim == 4 else volume
    t, h, w = tubelet
    n_t, n_h, n_w = grid = token_grid(volume.shape, tubelet, remainder="crop")
    lost = 1 - np.prod(grid) * np.prod(tubelet) / volume.size
    groups = [(f"time index {i}", range(i * t, i * t + t)) for i in evenly(n_t, rows)]
    if n_t * t < len(volume):
        groups.append(("left over", range(n_t * t, len(volume))))
    columns = min(columns, t)
    tokens = n_t * n_h * n_w
    title = f"{n_t}×{n_h}×{n_w} tubelets of {t}×{h}×{w} voxels: {tokens:,} token{'s' * (tokens > 1)}"
    title += f", {lost:.0%} of the voxels in none" if lost else ""
    figure = new_figure(
        0.9 + max(columns, 3) * 1.15,
        0.7 + 1.25 * len(groups),
        f"Slices of a volume cut into tubelets. {title}. Each row shows slices of one time index, with the "
        "cuts along height and width; one tubelet is framed in orange through the slices of its row."
        + (" The last row shows slices that are in no tubelet, hatched." if n_t * t < len(volume) else ""),
    )
    figure.suptitle(title, fontsize=11)
    sheet = figure.subplots(len(groups), columns, squeeze=False)
    for axes in sheet.flat:
        axes.set_axis_off()
    marked = len(groups) // 2 if len(groups) > 2 else 0
    for i, (line, (label, slices)) in enumerate(zip(sheet, groups)):
        where = {"ha": "right", "va": "center", "transform": line[0].transAxes}
        line[0].text(-0.08, 0.5, label, rotation=90, fontsize=9, **where)
        for axes, k in zip(line, [slices[j] for j in evenly(len(slices), columns)]):
            axes.imshow(volume[k], cmap="gray", vmin=0, vmax=255)
            axes.set_title(f"slice {k}", fontsize=9, pad=2)
            draw_cuts(axes, volume.shape[1:], (n_h, n_w), (h, w), whole=label != "left over")
            if i == marked and label != "left over":
                draw_outline(axes, n_h // 2 * h, n_w // 2 * w, h, w, edgecolor=ORANGE, linewidth=2.5)
    return figure


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spaced, the first and the last among them."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()


def draw_cuts(axes: Axes, size: tuple[int, int], grid: tuple[int, int], step: tuple[int, int], whole: bool) -> None:
    """Draws the cuts along height and width, and hatching over what no tubelet covers.

    size, grid, step: (height, width) of the slice in voxels, of the grid in tubelets, of a tubelet in voxels.
    whole: whether the slice lies in tubelets at all.
    """
    covered = [n * s if whole else 0 for n, s in zip(grid, step)]
    if whole:
        for row in range(grid[0]):
            for column in range(grid[1]):
                draw_outline(axes, row * step[0], column * step[1], *step, edgecolor=CUT, linewidth=0.8)
    hatched = {"hatch": "///", "edgecolor": ORANGE, "linewidth": 0}
    if covered[0] < size[0]:
        draw_outline(axes, covered[0], 0, size[0] - covered[0], size[1], **hatched)
    if covered[0] and covered[1] < size[1]:
        draw_outline(axes, 0, covered[1], covered[0], size[1] - covered[1], **hatched)


def draw_outline(axes: Axes, top: int, left: int, height: int, width: int, **style: object) -> None:
    """Draws a rectangle around these voxels; style: as matplotlib's Rectangle takes it."""
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, **style))
