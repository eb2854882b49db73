"""Pictures of maps over the clip that they are of, as figures and as films.

A map is laid over the grey slice in one colour, as opaque as its value is large, so that nothing is hidden where the
map says nothing. Where the data set knows the organ, its outline is drawn on top.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import plots
from .rollout import to_voxels
from .weights import check_vivit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import nn

YELLOW = (1.0, 0.84, 0.0)  # of maps only: no kind of attention and no model has it
DIM, OPAQUE = 0.8, 0.85  # the grey picture below a map is a little darker; the strongest value hides this much of it
EVEN = "times an even share"
MOST_SLICES = 8


def maps_figure(
    model: nn.Module,
    clip: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    units: Mapping[str, str] | str = EVEN,
    title: str = "",
) -> Figure:
    """One clip in a row of slices, one from each time index, and below it a row for each map.

    model: whose tubelets the maps have. clip: uint8 [C, T, H, W]. maps: {title: scores [T', S]}; of signed ones the
    positive part is shown. mask: the organ's voxels [T, H, W], drawn as an outline; None where they are not known.
    units: what the numbers on the colour bars are, for all maps or by title. Maps that sum to 1 are told in parts of
    an even share, 1/N, by default. title: of the row without a map.
    """
    plain = check_vivit(model)
    frames = middle_frames(plain.embedding.grid[0], plain.embedding.tubelet[0], clip.shape[1])
    picture = to_grey(clip)  # [T, H, W], 0 to 1
    outline = None if mask is None else mask.cpu().numpy()
    told = "; ".join(f"{name}: {in_words(scores, clip, mask, plain)}" for name, scores in maps.items())
    figure = plots.new_figure(
        1.3 * len(frames) + 0.9,
        1.62 * (len(maps) + 1),
        f"A clip as a row of {len(frames)} slices, and {len(maps)} maps laid over it in yellow. {told}.",
    )
    rows = figure.subplots(len(maps) + 1, len(frames), squeeze=False)
    for axes, frame in zip(rows[0], frames):
        draw_slice(axes, picture[frame], None if outline is None else outline[frame])
        axes.set_title(f"slice {frame}", fontsize=9)
    rows[0, 0].set_ylabel(title or "the clip", fontsize=9)
    for row, (name, scores) in zip(rows[1:], maps.items()):
        unit = units if isinstance(units, str) else units.get(name, EVEN)
        values = scores.detach().cpu().clamp(min=0) * (scores.numel() if unit == EVEN else 1)
        heat = to_voxels(plain, values[None])[0].numpy()  # [T, H, W]
        top = max(float(heat.max()), 1e-12)
        for axes, frame in zip(row, frames):
            draw_slice(axes, picture[frame], None if outline is None else outline[frame], heat[frame] / top)
        row[0].set_ylabel(name, fontsize=9)
        colour_bar(figure, row, top, unit)
    return figure


def middle_frames(n_t: int, length: int, frames: int) -> list[int]:
    """The frame in the middle of each time index, of at most eight of them, evenly spaced."""
    chosen = np.linspace(0, n_t - 1, min(n_t, MOST_SLICES)).round().astype(int)
    return [min(int(t) * length + length // 2, frames - 1) for t in chosen]


def to_grey(clip: torch.Tensor) -> np.ndarray:
    """A clip uint8 [C, T, H, W], or float in [0, 1], as one channel from 0 to 1: [T, H, W]."""
    clip = clip.detach().cpu()
    return (clip.float() if clip.is_floating_point() else clip.float() / 255).mean(dim=0).numpy()


def overlay(picture: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    """Grey values 0 to 1 [..., H, W] under a map 0 to 1 of the same shape: colours 0 to 1 [..., H, W, 3]."""
    grey = picture[..., None].repeat(3, axis=-1)
    if heat is None:
        return grey
    opacity = OPAQUE * heat.clip(0, 1)[..., None]
    return (1 - opacity) * DIM * grey + opacity * np.array(YELLOW)


def draw_slice(axes: Axes, picture: np.ndarray, outline: np.ndarray | None, heat: np.ndarray | None = None) -> None:
    """A slice [H, W], the map over it and the organ's outline on top."""
    axes.imshow(overlay(picture, heat))
    if outline is not None and 0 < outline.mean() < 1:
        axes.contour(outline, levels=[0.5], colors="black", linewidths=2.4)
        axes.contour(outline, levels=[0.5], colors="white", linewidths=1.0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def colour_bar(figure: Figure, row: np.ndarray, top: float, unit: str) -> None:
    """What the colours of a row of slices stand for, from 0 to `top`, with numbers."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    colours = overlay(np.full(256, 0.5), np.linspace(0, 1, 256))  # over a middle grey
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, top), ListedColormap(colours)), ax=list(row), fraction=0.03, pad=0.01, aspect=12
    )
    bar.set_ticks([0, top / 2, top], labels=[f"{value:.2g}" for value in (0, top / 2, top)])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.set_label(unit, fontsize=8)
    bar.outline.set_visible(False)


def in_words(scores: torch.Tensor, clip: torch.Tensor, mask: torch.Tensor | None, model: nn.Module) -> str:
    """Where a map is strongest, and how much of it lies on the organ, for readers who cannot see it."""
    scores = scores.detach().cpu().clamp(min=0)
    n_t, n_h, n_w = model.embedding.grid
    t, place = divmod(int(scores.argmax()), n_h * n_w)
    said = f"strongest at time {t} of {n_t}, row {place // n_w} of {n_h}, column {place % n_w} of {n_w}"
    if mask is not None and scores.any():
        share = float((to_voxels(model, scores[None])[0] * mask.cpu()).sum() / to_voxels(model, scores[None]).sum())
        said += f", {100 * share:.0f} % of it on the organ"
    return said


# ---- films


def film(
    model: nn.Module,
    clip: torch.Tensor,
    maps: list[torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    scale: int = 6,
) -> Iterator[Image]:
    """The frames of a film through the slices: the clip on the left, next to it the same under each map.

    Arguments as in `maps_figure`; maps: a list of scores [T', S]. scale: pixels per voxel.
    """
    from PIL import Image

    plain, picture = check_vivit(model), to_grey(clip)
    heats = [None]
    for scores in maps:
        heat = to_voxels(plain, scores.detach().cpu().clamp(min=0)[None])[0].numpy()
        heats.append(heat / max(float(heat.max()), 1e-12))
    edges = None if mask is None else outlines(mask.cpu().numpy(), scale)  # [T, H·scale, W·scale]
    for t in range(len(picture)):
        panels = []
        for heat in heats:
            panel = overlay(picture[t], None if heat is None else heat[t]).repeat(scale, 0).repeat(scale, 1)
            if edges is not None:
                panel[edges[t]] = 1.0
            panels += [np.ones((panel.shape[0], scale, 3)), panel]
        yield Image.fromarray((255 * np.concatenate(panels[1:], axis=1)).round().astype(np.uint8))


def outlines(mask: np.ndarray, scale: int) -> np.ndarray:
    """The inner edge of a mask [T, H, W] in enlarged pixels: bool [T, H·scale, W·scale]."""
    large = (mask > 0).repeat(scale, 1).repeat(scale, 2)
    inside = large.copy()
    for axis in (1, 2):
        for way in (1, -1):
            moved = np.roll(large, way, axis)
            edge = [slice(None)] * 3
            edge[axis] = 0 if way == 1 else -1
            moved[tuple(edge)] = False
            inside &= moved
    return large & ~inside
