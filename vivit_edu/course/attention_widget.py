"""Which tokens does a token attend to? An explorer of the weights by layer, head and query token, and its film strip.

Used in chapter 13; `reading_pages` and `reading_strip` show chapter 00 what a model answers and attends to, volume by
volume. The explorers need a running notebook; the strips show everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import ConfigError
from ..explain.pictures import draw_mapped, draw_scale, heat_of, maps_figure, scale_of, to_grey
from ..explain.rollout import last_layer, to_voxels
from ..explain.weights import AttentionMap, attention_maps, check_vivit
from ..plots import GREY, ORANGE, SMALLEST, new_figure
from .pictures import draw_outline
from .widgets import explore, film_strip

if TYPE_CHECKING:
    from ipywidgets import VBox
    from matplotlib.figure import Figure

    from ..volumes import Split


def query_weights(
    model: nn.Module, attention_map: AttentionMap, clip: int, head: int, t: int, place: int
) -> torch.Tensor:
    """How much the token at time index t and place attends to each token in one head: [T', S].

    attention_map: an AttentionMap of a batch; clip: which of it. The sum is 1, or less where a part goes to a
    cls token. What the layer cannot see gets 0. In Model 2's temporal layers the tokens are whole time indices,
    whose weight is spread evenly over their places.
    """
    model = check_vivit(model)
    n_t, s = model.grid
    cls = int(model.config.pool == "cls")
    w = attention_map.weights[clip].detach().cpu()
    if attention_map.kind == "joint":
        return w[head, cls + t * s + place, cls:].reshape(n_t, s)
    if attention_map.kind == "time" and w.ndim == 3:  # Model 2
        return w[head, cls + t, cls:, None].expand(n_t, s) / s
    seen = torch.zeros(n_t, s)
    if attention_map.kind == "space":
        seen[t] = w[t, head, cls + place, cls:]
    else:
        seen[:, place] = w[place, head, t]
    return seen


def draw_query(
    model: nn.Module,
    maps: list[AttentionMap],
    clips: torch.Tensor,
    *,
    sample: int,
    layer: int,
    head: int,
    token: int,
) -> Figure:
    """The query token in its slice, and the weights it gives: in space at each time index, and summed over time.

    maps: attention_maps of float clips [B, C, T, H, W]; layer: an index into maps; token: counted through
    the grid, t·S + place. Returns a Figure.
    """
    model = check_vivit(model)
    (n_t, s), (*_, n_w), (pt, ph, pw) = model.grid, model.embedding.grid, model.embedding.tubelet
    t, place = divmod(token, s)
    row, column = divmod(place, n_w)
    found, m = query_weights(model, maps[layer], sample, head, t, place), maps[layer]
    strongest = divmod(int(found.argmax()), s)
    figure = new_figure(
        1.1 * n_t + 2.4,
        1.9,
        f"Clip {sample}, layer {m.layer}, {m.kind}, head {head}: the token at time {t}, row {row}, column {column} "
        f"gives most weight ({found.max():.3f}) to time {strongest[0]}, row {strongest[1] // n_w}, "
        f"column {strongest[1] % n_w}; {found[t].sum():.2f} stays in its own time index.",
    )
    figure.suptitle(
        f"layer {m.layer}, {m.kind}, head {head}: from time {t}, row {row}, column {column}", fontsize=SMALLEST
    )
    *slices, scale, bars = figure.subplots(1, n_t + 2, width_ratios=[*[1] * n_t, 0.09, 1.2])
    picture, heat = to_grey(clips[sample]), heat_of(model, found)  # [T, H, W] both
    top = scale_of(heat)
    for time, axes in enumerate(slices):
        frame = min(time * pt + pt // 2, clips.shape[2] - 1)
        draw_mapped(axes, picture[frame], None, heat[frame] / top)
        axes.set_title(f"time {time}", fontsize=SMALLEST)
    draw_scale(scale, top, "weight", float(heat.max()))
    draw_outline(slices[t], row * ph, column * pw, ph, pw, edgecolor="white", linewidth=2)
    bars.bar(range(n_t), found.sum(1).numpy(), color=[ORANGE if time == t else GREY for time in range(n_t)])
    bars.set(ylim=(0, 1), xticks=range(n_t), yticks=[0, 1])
    bars.set_title("weight over time", fontsize=SMALLEST)
    bars.tick_params(labelsize=SMALLEST)
    return figure


def choices(model: nn.Module, maps: list[AttentionMap]) -> dict[str, range]:
    """What the sliders offer: {"layer": [...], "head": [...], "token": [...]}."""
    n_t, s = check_vivit(model).grid
    heads = min(m.weights.shape[-3] for m in maps)
    return {"layer": range(len(maps)), "head": range(heads), "token": range(n_t * s)}


def attention_explorer(model: nn.Module, clips: torch.Tensor) -> VBox | None:
    """Sliders for sample, layer, head and query token over `draw_query`. clips: float [B, C, T, H, W] in [0, 1]."""
    maps = attention_maps(model, clips)

    def draw(sample, layer, head, token):
        return draw_query(model, maps, clips, sample=sample, layer=layer, head=head, token=token)

    return explore(draw, sample=range(len(clips)), **choices(model, maps))


def attention_strip(model: nn.Module, clips: torch.Tensor, settings: list[dict[str, int]] | None = None) -> None:
    """The film strip of `attention_explorer`: first and last layer, first and last head, of the middle token.

    settings: other ones, a list of {"sample", "layer", "head", "token"}. Raises ConfigError for one that does
    not exist.
    """
    maps = attention_maps(model, clips)
    ends = {name: (values[0], values[-1]) for name, values in choices(model, maps).items()}
    middle = len(choices(model, maps)["token"]) // 2
    if settings is None:
        settings = [
            {"sample": 0, "layer": layer, "head": head, "token": middle}
            for layer in ends["layer"]
            for head in ends["head"]
        ]
    offered = {"sample": range(len(clips)), **choices(model, maps)}
    for setting in settings:
        for name, value in setting.items():
            if name not in offered or value not in offered[name]:
                raise ConfigError(
                    f"{name}={value} was given; there are "
                    + ", ".join(f"{key} 0 to {values[-1]}" for key, values in offered.items())
                )
    film_strip(lambda **setting: draw_query(model, maps, clips, **setting), settings, columns=1)


# ---- what a model answers, volume by volume (chapter 00)


def draw_reading(model: nn.Module, split: Split, names: Sequence[str], volume: int) -> Figure:
    """A volume of a split with its organ outlined, what the model takes it for, and its last layers' attention."""
    clip, truth = split.clips[volume], names[int(split.labels[volume])]  # clip [C, T, H, W]
    with torch.no_grad():
        chance, answer = model(clip[None].float() / 255).softmax(dim=1)[0].max(dim=0)
    mask = None if split.masks is None else split.masks[volume]
    figure = maps_figure(model, clip, {"attention": last_layer(model, clip[None].float() / 255)[0]}, mask=mask)
    figure.suptitle(f"{truth}, read as {names[int(answer)]} ({chance:.0%})", fontsize=SMALLEST + 2)
    figure.set_figheight(figure.get_figheight() + 0.3)
    return figure


def reading_pages(model: nn.Module, split: Split, names: Sequence[str]) -> VBox | None:
    """A slider over the volumes of a split above `draw_reading`."""
    return explore(lambda volume: draw_reading(model, split, names, volume), volume=range(len(split)))


def reading_strip(model: nn.Module, split: Split, names: Sequence[str], volumes: Sequence[int]) -> None:
    """The film strip of `reading_pages`, of some of the volumes."""
    settings = [{"volume": volume} for volume in volumes]
    film_strip(lambda volume: draw_reading(model, split, names, volume), settings, columns=1)


def attention_on_organs(model: nn.Module, split: Split) -> dict[str, torch.Tensor]:
    """For each class, the share of a box that its organ fills, and the share of the last layers' attention on it,
    [K] both: means over the class's volumes in a split that has masks."""
    attention = to_voxels(model, last_layer(model, split.clips.float() / 255))  # [B, T, H, W]
    on_organ = (attention * split.masks).sum(dim=(1, 2, 3)) / attention.sum(dim=(1, 2, 3))
    fills = split.masks.float().mean(dim=(1, 2, 3))
    of_class = [split.labels == k for k in range(int(split.labels.max()) + 1)]
    return {
        name: torch.stack([shares[k].mean() for k in of_class])
        for name, shares in (("share of the box that is organ", fills), ("share of the attention on it", on_organ))
    }
