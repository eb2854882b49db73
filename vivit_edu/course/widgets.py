"""Sliders above a picture, and film strips: the same picture at several settings, side by side.

Sliders need a running notebook. GitHub, PDF and a page opened again show none, so each explorer has a film
strip as its twin: `scroll_volume` and `volume_strip`, `tubelet_explorer` and `tubelet_strip`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from ..cost import PAPER, attention_pairs
from ..embedding import token_grid
from ..errors import ConfigError
from ..models import model_class
from ..plots import MODEL_COLOURS, as_png, new_figure, show, show_png
from .pictures import CUT, draw_cuts, draw_outline, evenly

if TYPE_CHECKING:
    import torch
    from ipywidgets import VBox
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image


def explore(draw: Callable[..., Figure], **sliders: Iterable[object]) -> VBox | None:
    """Sliders above the picture that `draw` makes of their values, drawn again when one moves.

    draw: a function of keyword arguments that returns a Figure. sliders: for each argument the values it can
    take, a list or a range; the slider starts in their middle. Returns the widget: let it be the last line of
    its cell. Where ipywidgets is missing, shows the picture at the start and returns None.
    """
    values = {name: list(choices) for name, choices in sliders.items()}
    start = {name: choices[len(choices) // 2] for name, choices in values.items()}
    try:
        from ipywidgets import HTML, SelectionSlider, VBox
    except ImportError:
        show(draw(**start))
        return None
    picture = HTML()  # and not Image, which has no place for an alt text
    controls = [
        SelectionSlider(options=choices, value=start[name], description=name, continuous_update=False)
        for name, choices in values.items()
    ]

    def redraw(_change):
        figure = draw(**{control.description: control.value for control in controls})
        data, width = b64encode(as_png(figure)).decode(), round(figure.get_figwidth() * 80)
        picture.value = f'<img alt="{escape(figure.alt_text)}" width="{width}" src="data:image/png;base64,{data}">'

    for control in controls:
        control.observe(redraw, names="value")
    redraw(None)
    return VBox([*controls, picture])


def film_strip(draw: Callable[..., Figure], settings: list[dict[str, object]], columns: int = 2) -> None:
    """Shows the picture at several settings in one image: the static twin of `explore`.

    settings: a list of {argument of draw: value}; columns: pictures in a row. The alt text joins theirs.
    """
    figures = [draw(**setting) for setting in settings]
    alt = " ".join(f"{i}: {figure.alt_text}" for i, figure in enumerate(figures, 1))
    alt = f"{len(figures)} pictures, {columns} in a row. {alt}"
    png = BytesIO()
    joined([as_png(figure) for figure in figures], columns).save(png, format="PNG", optimize=True)
    show_png(png.getvalue(), alt)


def joined(pngs: list[bytes], columns: int) -> Image:
    """PNG files (bytes) in rows of `columns` on white, as one PIL image. All get the room of the largest."""
    from PIL import Image

    images = [Image.open(BytesIO(png)).convert("RGB") for png in pngs]
    width, height = (max(sizes) for sizes in zip(*(image.size for image in images)))
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    return sheet


# ---- a patient to scroll through (chapter 00)


def draw_slice(volume: np.ndarray, number: int, labels: np.ndarray | None = None, names: Sequence[str] = ()) -> Figure:
    """One slice of a volume, and next to it the same with its organs in colour where labels are given.

    volume: uint8 [T, H, W]; number: which slice; labels: int [T, H, W], 0 or 1 + an index into `names`.
    """
    organs = [] if labels is None else [i - 1 for i in np.unique(labels[number]).tolist() if i]
    seen = ", ".join(names[i] for i in organs)
    alt = f"Slice {number}, counted from 0, of a volume of {len(volume)} slices, in grey"
    alt += f", and with {seen} in colour." if organs else "."
    figure = new_figure(2.4 if labels is None else 5.6, 2.0, alt)
    ratios = (1,) if labels is None else (1, 1, 0.5)  # the last for the names, so that no picture moves
    panels = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes in panels[:2]:
        axes.imshow(volume[number], cmap="gray", vmin=0, vmax=255)
    panels[0].set_title(f"slice {number}", fontsize=9)
    if labels is not None:
        paint_organs(panels[1], panels[2], labels[number], organs, names)
    return figure


def paint_organs(axes: Axes, beside: Axes, labels: np.ndarray, organs: list[int], names: Sequence[str]) -> None:
    """Lays organs over a slice, each in the same colour in all slices, and names those that are in it.

    labels: int [H, W], as in `draw_slice`; organs: indices into `names` of those in the slice.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    order = [0, 2, 4, 6, 8, 10, 12, 16, 18, *range(1, 20, 2)]  # tab20: strong ones but grey, then pale
    colours = np.array([colormaps["tab20"](order[i % len(order)]) for i in range(len(names))])  # [K, 4]
    axes.imshow(colours[labels.astype(int) - 1], alpha=np.where(labels > 0, 0.6, 0.0))
    handles = [Patch(color=colours[i], label=names[i]) for i in organs]
    beside.legend(handles=handles, loc="upper left", fontsize=9, frameon=False, handlelength=1, borderpad=0)


def scroll_volume(volume: np.ndarray, labels: np.ndarray | None = None, names: Sequence[str] = ()) -> VBox | None:
    """An explorer of the slices of a volume; arguments as in `draw_slice`."""

    def draw(slice):
        return draw_slice(volume, slice, labels, names)

    return explore(draw, slice=range(len(volume)))


def volume_strip(
    volume: np.ndarray, labels: np.ndarray | None = None, names: Sequence[str] = (), slices: int = 4
) -> None:
    """The film strip of `scroll_volume`: evenly spaced slices, without the very first and last."""
    numbers = evenly(len(volume), slices + 2)[1:-1]
    columns = 2 if labels is not None else 4
    settings = [{"number": number} for number in numbers]
    film_strip(lambda number: draw_slice(volume, number, labels, names), settings, columns)


# ---- the size of tubelets (chapter 03)


def draw_tubelets(volume: np.ndarray | torch.Tensor, time: int, space: int) -> Figure:
    """Tubelets of time×space×space voxels: the cuts in the middle slice, and the pairs attention compares.

    volume: uint8 [T, H, W] or a clip [C, T, H, W], of which the first channel is shown.
    """
    volume = np.asarray(volume)
    volume = volume[0] if volume.ndim == 4 else volume
    n_t, n_h, n_w = token_grid(volume.shape, (time, space, space))
    pairs = {model_class(name).title.partition(", ")[0]: attention_pairs(name, n_t, n_h * n_w) for name in PAPER}
    tokens = n_t * n_h * n_w
    total = f"{n_t}×{n_h}×{n_w} = {tokens:,} token{'s' * (tokens > 1)}"
    listed = "; ".join(f"{model}: {count:,}" for model, count in pairs.items())
    figure = new_figure(
        6.2,
        2.6,
        f"Tubelets of {time}×{space}×{space} voxels make {total}. Left, the cuts in the middle slice; right, "
        f"the query-key pairs of one layer and head on a logarithmic scale: {listed}.",
    )
    figure.suptitle(f"tubelets {time}×{space}×{space}: {total}", fontsize=10)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    left.imshow(volume[len(volume) // 2], cmap="gray", vmin=0, vmax=255)
    draw_cuts(left, volume.shape[1:], (n_h, n_w), (space, space), whole=True)
    draw_outline(left, n_h // 2 * space, n_w // 2 * space, space, space, edgecolor=CUT, linewidth=3)
    left.set_axis_off()
    places = range(len(pairs))
    right.scatter(list(pairs.values()), places, s=45, color=[MODEL_COLOURS[name] for name in PAPER], zorder=2)
    for place, count in zip(places, pairs.values()):
        right.annotate(f"{count:,}", (count, place), xytext=(7, 0), textcoords="offset points", va="center", fontsize=9)
    right.set(xscale="log", xlim=(1, 3e10), ylim=(len(pairs) - 0.5, -0.5))
    right.set_xticks([1, 1e3, 1e6, 1e9], ["1", "1,000", "1 million", "1 billion"])
    right.set_xticks([10.0**power for power in range(11)], [""] * 11, minor=True)
    right.set_yticks(places, list(pairs))
    right.set_title("pairs per layer and head; a line is a factor of 10", fontsize=9)
    right.grid(axis="x", which="both", alpha=0.35)
    right.tick_params(labelsize=9, length=0, which="both")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def tubelet_explorer(volume: np.ndarray | torch.Tensor) -> VBox | None:
    """An explorer of tubelet sizes: sliders along time and space, with the sizes that tile the volume."""
    time, space = tiling_sizes(volume)
    return explore(lambda time, space: draw_tubelets(volume, time, space), time=time, space=space)


def tubelet_strip(
    volume: np.ndarray | torch.Tensor, sizes: Sequence[tuple[int, int]] = ((2, 4), (4, 4), (7, 7), (14, 14))
) -> None:
    """The film strip of `tubelet_explorer`. sizes: (time, space) pairs."""
    film_strip(lambda **sizes: draw_tubelets(volume, **sizes), [{"time": t, "space": s} for t, s in sizes])


def tiling_sizes(volume: np.ndarray | torch.Tensor) -> tuple[list[int], list[int]]:
    """The tubelet sizes that tile a volume [.., T, H, W] along time, and along height and width: two lists.

    Single voxels are left out along space: they would be more tokens than a picture can show.
    """
    *_, depth, height, width = np.asarray(volume).shape
    time = [size for size in range(1, depth + 1) if depth % size == 0]
    space = [size for size in range(2, min(height, width) + 1) if height % size == 0 and width % size == 0]
    if not space:
        raise ConfigError(f"no square tubelet tiles slices of {height}×{width}; crop or pad the volume")
    return time, space
