"""Pictures of maps over the clip that they are of, as figures and as animations.

A map is laid over the grey slice in one colour, as opaque as its value is large, so that nothing is hidden where the
map is zero. If the data set knows the organ, its outline is drawn on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import torch

from .. import plots
from .faithfulness import randomised
from .rollout import rollout, to_voxels
from .weights import check_vivit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image
    from torch import nn

YELLOW = (1.0, 0.84, 0.0)  # of maps only: no kind of attention and no model has it
DIM, OPAQUE = 0.8, 0.85  # the grey picture below a map is a little darker; the strongest value hides this much of it
BRIGHTEST = 0.98  # the colour scale ends at this quantile of a map: one outstanding tubelet does not hide the rest
EVEN = "times an even share"
MOST_SLICES = 8


@dataclass
class SliceRow:
    """A row of slices: a clip's grey values [T, H, W], its outline and the map over it, of the same shape or None.

    unit: what the map's numbers are, for its colour bar; without it there is no bar.
    """

    picture: np.ndarray
    outline: np.ndarray | None
    label: str
    heat: np.ndarray | None = None
    unit: str = ""


def maps_figure(
    model: nn.Module,
    clip: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    units: Mapping[str, str] | str = EVEN,
    title: str = "the clip",
) -> Figure:
    """One clip as a row of slices, one from each time index, and below it a row for each of its maps.

    model: whose tubelets the maps have. clip: uint8 [C, T, H, W]. maps: {title: scores [nt, S]}; of signed ones the
    positive part is shown. mask: the organ's voxels [T, H, W], drawn as an outline; None if they are not known.
    units: what the numbers on the colour bars are, for all maps or by title; by default maps sum to 1 and are told in
    parts of an even share, 1/N. title: of the row without a map.
    """
    plain, picture = check_vivit(model), to_grey(clip)
    outline = None if mask is None else mask.cpu().numpy()
    rows = [SliceRow(picture, outline, title)]
    for name, scores in maps.items():
        unit = units if isinstance(units, str) else units.get(name, EVEN)
        rows.append(SliceRow(picture, outline, name, heat_of(plain, scores, unit), unit))
    told = "; ".join(f"{name}: {map_in_words(plain, scores, mask)}" for name, scores in maps.items())
    count = f"{len(maps)} maps" if len(maps) > 1 else "a map"
    return rows_figure(plain, rows, f"{title} as a row of slices, and {count} laid over it in yellow. {told}.")


def clips_figure(
    model: nn.Module,
    clips: torch.Tensor,
    maps: torch.Tensor,
    titles: Sequence[str],
    *,
    masks: torch.Tensor | None = None,
    unit: str = EVEN,
) -> Figure:
    """Several clips, each as a row of slices and below it the same under its map.

    clips: uint8 [B, C, T, H, W]; maps: scores [B, nt, S]; titles: B strings; masks: [B, T, H, W] or None.
    """
    plain, rows, told = check_vivit(model), [], []
    for i, (clip, scores, title) in enumerate(zip(clips, maps, titles)):
        mask = None if masks is None else masks[i]
        outline, picture = None if mask is None else mask.cpu().numpy(), to_grey(clip)
        rows += [
            SliceRow(picture, outline, title),
            SliceRow(picture, outline, "its map", heat_of(plain, scores, unit), unit),
        ]
        told.append(f"{title}: {map_in_words(plain, scores, mask)}")
    return rows_figure(
        plain, rows, f"{len(titles)} clips, each as a row of slices, below it its map in yellow. {'; '.join(told)}."
    )


def puzzle_figure(model: nn.Module, clip: torch.Tensor, *, mask: torch.Tensor | None = None, seed: int = 1) -> Figure:
    """Rollout of the model with random weights (A) and as it was trained (B), without saying which is which.

    Each map is stretched from its own smallest to its own largest value and has no colour bar, as such maps are often
    drawn. Arguments as in `maps_figure`; seed: of the random weights.
    """
    plain, inputs = check_vivit(model), clip[None].float() / 255
    picture, outline = to_grey(clip), None if mask is None else mask.cpu().numpy()
    rows = [SliceRow(picture, outline, "the clip")]
    for name, one in (("A", randomised(plain, seed)), ("B", plain)):
        heat = heat_of(plain, rollout(one, inputs)[0])
        rows.append(SliceRow(picture, outline, name, (heat - heat.min()) / (heat.max() - heat.min())))
    alt = "A clip as a row of slices, and two maps of it, A and B: one of a trained model, one of random weights."
    return rows_figure(plain, rows, alt)


def rows_figure(model: nn.Module, rows: Sequence[SliceRow], alt: str) -> Figure:
    """Rows of slices below each other, one slice from each time index, with a colour bar for a map."""
    frames = middle_frames(model.embedding.grid[0], model.embedding.tubelet[0], len(rows[0].picture))
    figure = plots.new_figure(1.2 * len(frames) + 1.3, 1.26 * len(rows) + 0.2, alt)
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0)
    panels = figure.subplots(len(rows), len(frames) + 1, squeeze=False, width_ratios=[*[1] * len(frames), 0.09])
    for line, row in zip(panels, rows):
        top = None if row.heat is None else scale_of(row.heat)
        for axes, frame in zip(line, frames):
            outline = None if row.outline is None else row.outline[frame]
            draw_mapped(axes, row.picture[frame], outline, None if top is None else row.heat[frame] / top)
        line[0].set_ylabel(
            fill(row.label.replace(" %", "\u00a0%"), 21, break_on_hyphens=False), fontsize=plots.SMALLEST
        )
        if not row.unit:
            line[-1].set_axis_off()
        else:
            draw_scale(line[-1], top, row.unit, float(row.heat.max()))
    kind = "frame" if model.config.clip_shape[0] == 3 else "slice"  # a clip in colour is of a video
    for axes, frame in zip(panels[0], frames):
        axes.set_title(f"{kind} {frame}", fontsize=plots.SMALLEST)
    return figure


def middle_frames(n_t: int, length: int, frames: int) -> list[int]:
    """The frame in the middle of each time index, of at most eight of them, evenly spaced."""
    chosen = np.linspace(0, n_t - 1, min(n_t, MOST_SLICES)).round().astype(int)
    return [min(int(t) * length + length // 2, frames - 1) for t in chosen]


def to_grey(clip: torch.Tensor) -> np.ndarray:
    """A clip uint8 [C, T, H, W], or float in [0, 1], as one channel from 0 to 1: [T, H, W]."""
    clip = clip.detach().cpu()
    return (clip.float() if clip.is_floating_point() else clip.float() / 255).mean(dim=0).numpy()


def heat_of(model: nn.Module, scores: torch.Tensor, unit: str = "") -> np.ndarray:
    """The positive part of scores [nt, S] on the voxels, in parts of an even share if that is the unit: [T, H, W]."""
    values = scores.detach().cpu().clamp(min=0) * (scores.numel() if unit == EVEN else 1)
    return to_voxels(model, values[None])[0].numpy()


def scale_of(heat: np.ndarray) -> float:
    """The value at which a map [T, H, W] has its full colour."""
    top = float(np.quantile(heat, BRIGHTEST))
    return top if top > 0 else max(float(heat.max()), 1e-12)


def overlay(picture: np.ndarray, heat: np.ndarray | None) -> np.ndarray:
    """Grey values 0 to 1 [..., H, W] under a map 0 to 1 of the same shape: colours 0 to 1 [..., H, W, 3]."""
    grey = picture[..., None].repeat(3, axis=-1)
    if heat is None:
        return grey
    opacity = OPAQUE * heat.clip(0, 1)[..., None]
    return (1 - opacity) * DIM * grey + opacity * np.array(YELLOW)


def draw_mapped(axes: Axes, picture: np.ndarray, outline: np.ndarray | None, heat: np.ndarray | None = None) -> None:
    """A slice [H, W], the map over it and the organ's outline on top."""
    axes.imshow(overlay(picture, heat))
    if outline is not None and 0 < outline.mean() < 1:
        axes.contour(outline, levels=[0.5], colors="black", linewidths=2.2)
        axes.contour(outline, levels=[0.5], colors="white", linewidths=1.0)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def draw_scale(axes: Axes, top: float, unit: str, most: float) -> None:
    """A colour bar from 0 to `top` with numbers, and what they are. most: the largest value, which may be beyond."""
    axes.imshow(overlay(np.full((256, 1), 0.5), np.linspace(1, 0, 256)[:, None]), aspect="auto", extent=(0, 1, 0, top))
    axes.set(xticks=[], yticks=[0, top / 2, top])
    beyond = f" to {most:.2g}" if f"{most:.2g}" != f"{top:.2g}" else ""
    axes.set_yticklabels(["0", f"{top / 2:.2g}", f"{top:.2g}{beyond}"], fontsize=plots.SMALLEST)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel(fill(unit, 12), fontsize=plots.SMALLEST)
    axes.spines[:].set_visible(False)


def map_in_words(model: nn.Module, scores: torch.Tensor, mask: torch.Tensor | None) -> str:
    """The place where a map is strongest, and how much of it lies on the organ, for readers who cannot see it."""
    scores = scores.detach().cpu().clamp(min=0)
    n_t, n_h, n_w = model.embedding.grid
    t, place = divmod(int(scores.argmax()), n_h * n_w)
    said = f"strongest at time {t} of {n_t}, row {place // n_w} of {n_h}, column {place % n_w} of {n_w}"
    if mask is not None and scores.any():
        heat = to_voxels(model, scores[None])[0]
        said += f", {100 * float((heat * mask.cpu()).sum() / heat.sum()):.0f} % of it on the organ"
    return said


# ---- films


def film(
    model: nn.Module,
    clip: torch.Tensor,
    maps: Sequence[torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    scale: int = 6,
) -> list[Image]:
    """An animation through the slices, as pictures: the clip on the left, next to it the same under each map.

    Arguments as in `maps_figure`; maps: a list of scores [nt, S]. scale: pixels per voxel.
    """
    from PIL import Image

    plain, picture = check_vivit(model), to_grey(clip)
    heats = [heat_of(plain, scores) for scores in maps]
    panels = [overlay(picture, heat) for heat in (None, *(heat / scale_of(heat) for heat in heats))]
    panels = [panel.repeat(scale, 1).repeat(scale, 2) for panel in panels]  # [T, H·scale, W·scale, 3]
    if mask is not None:
        edges = inner_edges(mask.cpu().numpy().repeat(scale, 1).repeat(scale, 2) > 0)
        for panel in panels:
            panel[edges] = 1.0
    seam = np.ones((*panels[0].shape[:2], scale, 3))
    joined = np.concatenate([part for panel in panels for part in (seam, panel)][1:], axis=2)
    return [Image.fromarray(frame) for frame in (255 * joined).round().astype(np.uint8)]


def with_one_palette(frames: Sequence[Image], colours: int = 256) -> list[Image]:
    """Pictures in few colours, the same ones for all of them, which is what keeps the file of an animation small."""
    from PIL import Image

    width, height = frames[0].size
    sheet = Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        sheet.paste(frame, (0, height * number))
    palette = sheet.quantize(colours)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def inner_edges(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask [T, H, W] that have a neighbour outside it in their frame."""
    inside = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    neighbours = (inside[:, :-2, 1:-1], inside[:, 2:, 1:-1], inside[:, 1:-1, :-2], inside[:, 1:-1, 2:])
    return mask & ~np.logical_and.reduce(neighbours)
