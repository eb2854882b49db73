"""The figures of chapter 13: heads as matrices, rollout as a product, films, deletion curves, the table of maps."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import reduce
from torch import nn

from ..explain.faithfulness import CONTRAST, METHODS, area
from ..explain.pictures import draw_mapped, film, heat_of, middle_frames, scale_of, to_grey, with_one_palette
from ..explain.rollout import roll, with_residual
from ..explain.weights import attention_maps, check_vivit
from ..plots import GREY, MODEL_COLOURS, SMALLEST, new_figure
from .comparisons import title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

MOST_PIXELS = 128
CURVES = {  # of curves, told apart by dashes, too
    "occlusion": ("black", "-"),
    "relevance": ("#B2182B", "-"),
    "rollout": ("#8C6D1F", "-"),
    "last layer": ("#B2182B", ":"),
    "input gradient": ("black", "--"),
    "random order": (GREY, ":"),
    CONTRAST: (GREY, "--"),
}


# ---- matrices


def draw_weights(axes: Axes, weights: torch.Tensor, n_t: int, top: float) -> None:
    """Weights [N, N] as a picture, from 0 to `top`, with a tick where each time index begins.

    A matrix of more than `MOST_PIXELS` rows is averaged to as many: the page has no more pixels for it.
    """
    side = min(len(weights), MOST_PIXELS)
    shown = torch.nn.functional.adaptive_avg_pool2d(weights.detach()[None], side)[0]
    axes.imshow(shown.numpy(), cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
    ticks = np.arange(n_t) * side / n_t - 0.5
    axes.set(xticks=ticks, yticks=ticks, xticklabels=[], yticklabels=[])
    axes.tick_params(length=2)


def heads_figure(layers: Mapping[int, torch.Tensor], n_t: int) -> Figure:
    """The heads of a few layers as matrices, a row of pictures for each layer.

    layers: {number of the layer: weights [heads, N, N]}. n_t: T'.
    """
    heads, n = next(iter(layers.values())).shape[:2]
    strongest = {layer: n * float(weights.quantile(0.99)) for layer, weights in layers.items()}
    told = ", ".join(f"layer {layer} up to {top:.1f}" for layer, top in strongest.items())
    figure = new_figure(
        1.6 * heads + 1,
        1.8 * len(layers) + 0.2,
        f"The {heads} heads of layers {', '.join(map(str, layers))} as matrices of {n} × {n} weights. Rows: queries, "
        f"columns: keys, with ticks where a time index begins. Weights in times an even share: {told}.",
    )
    panels = figure.subplots(len(layers), heads + 1, squeeze=False, width_ratios=[*[1] * heads, 0.06])
    for line, (layer, weights) in zip(panels, layers.items()):
        for head, axes in enumerate(line[:-1]):
            draw_weights(axes, n * weights[head], n_t, strongest[layer])
            axes.set_title(f"layer {layer}, head {head}", fontsize=SMALLEST)
        draw_bar(line[-1], strongest[layer])
    panels[-1, 0].set_xlabel("key: who is read", fontsize=SMALLEST)
    panels[-1, 0].set_ylabel("query: who reads", fontsize=SMALLEST)
    return figure


def draw_bar(axes: Axes, top: float) -> None:
    """The scale of `draw_weights`, in times an even share."""
    axes.imshow(np.linspace(1, 0, 256)[:, None], cmap="cividis", aspect="auto", extent=(0, 1, 0, top))
    axes.set(xticks=[], yticks=[0, 1, top] if top > 1.2 else [0, top])
    axes.set_yticklabels([f"{value:.2g}" for value in axes.get_yticks()], fontsize=SMALLEST)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
    axes.set_ylabel("times an even share", fontsize=SMALLEST)


def rollout_figure(model: nn.Module, clip: torch.Tensor) -> Figure:
    """Rollout for one clip uint8 [C, T, H, W]: the layers' matrices, their product, the map.

    model: a Model 1 that averages its tokens.
    """
    plain = check_vivit(model)
    layers = [m.weights[0].mean(dim=0) for m in attention_maps(plain, clip[None].float() / 255)]  # [N, N] each
    n_t, halves = plain.grid[0], [with_residual(a) for a in layers]
    product = roll(layers, (0.5, 0.5))
    shown = [*halves[::-1], product]
    names = [*(rf"$\hat A_{layer}$" for layer in range(len(halves), 0, -1)), "$R$"]
    figure = new_figure(
        1.25 * len(shown) + 2.9,
        1.5,
        f"Rollout in one picture: the matrices of {len(halves)} layers, the last one on the left, are multiplied; the "
        "mean of the product's rows is one number per tubelet, which is laid over the slices of the clip.",
    )
    panels = figure.subplots(1, len(shown) + 3, width_ratios=[*[1] * len(shown), 0.12, 0.95, 0.95])
    for axes, matrix, name in zip(panels, shown, names):
        draw_weights(axes, len(matrix) * matrix, n_t, 3.0)
        axes.set_title(name, fontsize=SMALLEST + 3)
    for axes, sign in zip(panels, [*"·" * (len(halves) - 1), "="]):
        axes.text(1.1, 0.5, sign, transform=axes.transAxes, ha="center", va="center", fontsize=SMALLEST + 5)
    row = product.mean(dim=0)
    panels[-3].imshow(row[:, None].numpy(), cmap="cividis", aspect="auto")
    panels[-3].set(xticks=[], yticks=[])
    panels[-3].set_title("mean of\nthe rows", fontsize=SMALLEST)
    heat = heat_of(plain, row.view(plain.grid))
    frames = middle_frames(n_t, plain.embedding.tubelet[0], clip.shape[1])
    for axes, frame in zip(panels[-2:], frames[len(frames) // 2 :]):
        draw_mapped(axes, to_grey(clip)[frame], None, heat[frame] / scale_of(heat))
        axes.set_title(f"slice {frame}", fontsize=SMALLEST)
    return figure


# ---- films


def show_film(
    model: nn.Module,
    clip: torch.Tensor,
    maps: Mapping[str, torch.Tensor],
    *,
    mask: torch.Tensor | None = None,
    caption: str = "",
    milliseconds: int = 160,
) -> None:
    """Plays the slices of a clip, next to it the same under each map; its twin that stands still is `maps_figure`.

    A moving PNG and not a GIF: GitHub, Jupyter, Colab and the site show PNGs as they are, and it is a smaller file.
    Arguments as in `maps_figure`; milliseconds: how long each slice is shown. caption: one sentence below it.
    """
    from IPython.display import display

    png = moving_png(film(model, clip, list(maps.values()), mask=mask), milliseconds)
    alt = (
        f"A film through the {clip.shape[1]} slices: the clip, and next to it {', '.join(maps)} laid over it in yellow."
    )
    bundle = {"image/png": b64encode(png).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
    if caption:
        display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def moving_png(pictures: Sequence[Image], milliseconds: int) -> bytes:
    """Pictures as one PNG that plays them over and over, in 128 colours."""
    file, (first, *rest) = BytesIO(), with_one_palette(pictures, 128)
    first.save(file, "PNG", save_all=True, append_images=rest, duration=milliseconds, loop=0)
    return file.getvalue()


# ---- how far a map can be believed


def curves_figure(
    deletion: Mapping[str, Sequence[float]], insertion: Mapping[str, Sequence[float]] | None = None
) -> Figure:
    """A class's probability while tubelets turn grey, and while they come back: {map: values from none to all}."""
    sides = [("deletion: the best turn grey first", deletion)]
    sides += [("insertion: the best come back first", insertion)] if insertion else []
    told = ", ".join(f"{name} {area(torch.as_tensor(values)):.2f}" for name, values in deletion.items())
    figure = new_figure(
        4.6 * len(sides),
        3,
        f"Probability of the predicted class against the share of tubelets. Areas under the deletion curves: {told}.",
    )
    panels = np.atleast_1d(figure.subplots(1, len(sides), sharey=True))
    for axes, (title, curves) in zip(panels, sides):
        for name, values in curves.items():
            colour, dashes = CURVES.get(name, ("black", "-."))
            axes.plot(np.linspace(0, 100, len(values)), values, color=colour, linestyle=dashes, label=name)
        axes.set_title(title, fontsize=SMALLEST + 1)
        axes.set_xlabel("per cent of the tubelets", fontsize=SMALLEST)
        axes.set(ylim=(0, 1.02))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("probability of the class", fontsize=SMALLEST)
    panels[0].legend(fontsize=SMALLEST)
    return figure


def faithfulness_figure(table: dict) -> Figure:
    """Each map's gain over a random order, a panel for each model. table: what `bench.maps.make_table` returns.

    Dots: mean over the seeds, with the 95 % interval over the clips; ticks: seeds; hollow: random weights.
    """
    results = table["results"]
    rows = [*METHODS, CONTRAST]
    told = "; ".join(f"{title_of(model)}: {gains_in_words(found['methods'], rows)}" for model, found in results.items())
    figure = new_figure(
        11, 3, f"Gain over a random order of {len(rows)} kinds of maps, for {len(results)} models. {told}."
    )
    panels = np.atleast_1d(figure.subplots(1, len(results), sharex=True, sharey=True))
    for axes, (model, found) in zip(panels, results.items()):
        for place, name in enumerate(rows):
            draw_gain(
                axes, place - 0.14, found["methods"][name]["gain"], MODEL_COLOURS.get(model, "black"), filled=True
            )
            if control := found["methods"].get(f"{name}, random weights"):
                draw_gain(axes, place + 0.2, control["gain"], GREY, filled=False)
        axes.axvline(0, color="black", linewidth=1, linestyle="--")
        axes.set_title(title_of(model), fontsize=SMALLEST + 1)
        axes.set_yticks(range(len(rows)), rows, fontsize=SMALLEST)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(alpha=0.3, axis="x")
    figure.supxlabel(
        "gain over a random order (0: chance). Filled: trained; hollow: random weights. Bars: 95 % interval over clips",
        fontsize=SMALLEST,
    )
    return figure


def gains_in_words(methods: dict, rows: Sequence[str]) -> str:
    """The gains of a model's maps, and those of the same with random weights."""
    said = []
    for name in rows:
        control = methods.get(f"{name}, random weights")
        behind = f" (random weights {control['gain']['mean']:.2f})" if control else ""
        said.append(f"{name} {methods[name]['gain']['mean']:.2f}{behind}")
    return ", ".join(said)


def reading(table: dict) -> str:
    """What the table says, model by model: which maps beat chance, their controls and plain contrast."""
    lines = []
    for model, found in table["results"].items():
        chance = [name for name in METHODS if found["methods"][name]["gain"]["low"] > 0]
        control = [name for name in chance if clearly_over(found, name, f"{name}, random weights")]
        plain = [name for name in control if clearly_over(found, name, CONTRAST)]
        lines += [
            title_of(model),
            f"   above chance:                    {', '.join(chance) or 'none'}",
            f"   above random weights, too:       {', '.join(control) or 'none'}",
            f"   and above contrast (no model):   {', '.join(plain) or 'none'}",
        ]
    return "\n".join(lines)


def clearly_over(found: dict, name: str, control: str) -> bool:
    """Whether the interval of what a map gains more than a control, on the same clips, lies above 0.

    found: of one model in the table.
    """
    return found["methods"][name]["gain_over"][control]["low"] > 0


def beating_contrast(found: dict) -> str:
    """How many kinds of maps clearly gain more than contrast: "none", "one or two" or "three or more".

    found: of one model in the table.
    """
    above = sum(clearly_over(found, name, CONTRAST) for name in METHODS)
    return "none" if above == 0 else "one or two" if above <= 2 else "three or more"


def draw_gain(axes: Axes, place: float, gain: dict, colour: str, *, filled: bool) -> None:
    """A mean with its interval, and the seeds as ticks."""
    axes.plot([gain["low"], gain["high"]], [place, place], color=colour, linewidth=1.5)
    axes.plot(gain["runs"], [place] * len(gain["runs"]), "|", color=colour, markersize=7)
    face = colour if filled else "white"
    axes.plot(gain["mean"], place, "o", markerfacecolor=face, markeredgecolor=colour, markersize=6)


# ---- heads that follow a shape


def shape_tokens(model: nn.Module, clips: torch.Tensor, brightness: float = 0.72) -> torch.Tensor:
    """Which tokens of float clips [B, C, T, H, W] lie on the moving shape: bool [B, N].

    The shape is what is brighter than `brightness`; a token lies on it if that holds for most of its tubelet.
    """
    pt, ph, pw = check_vivit(model).embedding.tubelet
    bright = (clips.mean(dim=1) > brightness).float()
    return reduce(bright, "b (nt pt) (nh ph) (nw pw) -> b (nt nh nw)", "mean", pt=pt, ph=ph, pw=pw) > 0.5


def following(model: nn.Module, clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How much of what a head of Model 1 reads in other time indices lies on the moving shape, in times chance.

    clips: float [B, C, T, H, W] of moving shapes. Returns [layers, heads] for queries on the shape, and the same for
    the other queries: a head that follows the shape has a large number in the first and 1 in the second.
    """
    plain, on = check_vivit(model), shape_tokens(model, clips)  # [B, N]
    time = torch.arange(on.shape[1]) // plain.grid[1]
    others = time[:, None] != time  # [N, N]
    target = (others & on[:, None]).float()  # [B, N, N]: keys on the shape in another time index
    chance = target.sum(dim=2) / others.sum(dim=1)  # [B, N]
    rows = ([], [])
    for m in attention_maps(plain, clips):
        read = (m.weights * others).sum(dim=3)  # [B, heads, N]
        found = torch.einsum("b h i j, b i j -> b h i", m.weights, target) / read.clamp(min=1e-12)
        ratio = found / chance[:, None].clamp(min=1e-12)
        for row, queries in zip(rows, (on & (chance > 0), ~on & (chance > 0))):
            chosen = queries[:, None].float()
            row.append((ratio * chosen).sum(dim=(0, 2)) / chosen.sum(dim=(0, 2)).clamp(min=1))
    return torch.stack(rows[0]), torch.stack(rows[1])


def telling_heads(
    model: nn.Module, clips: torch.Tensor, on_shape: torch.Tensor, elsewhere: torch.Tensor, sample: int = 0
) -> list[dict[str, int]]:
    """Two heads to look at, for `attention_strip`: the one that reads the shape most, and the one that favours queries
    on the shape most. on_shape, elsewhere: what `following` returns. The query is on the shape, in mid clip."""
    n_t, s = check_vivit(model).grid
    middle = shape_tokens(model, clips[[sample]])[0].view(n_t, s)[n_t // 2]
    token = n_t // 2 * s + int(middle.float().argmax())
    chosen = [divmod(int(table.argmax()), table.shape[1]) for table in (on_shape, on_shape / elsewhere)]
    return [{"sample": sample, "layer": layer, "head": head, "token": token} for layer, head in chosen]


def heads_in_words(on_shape: torch.Tensor, elsewhere: torch.Tensor, much: float = 3.0) -> str:
    """How many heads find the shape and how many follow it, by the tables that `following` returns.

    much: from how many times chance on a head counts. Following: much from the shape, and at least twice as much as
    from elsewhere.
    """
    finds = (on_shape >= much) & (elsewhere >= much)
    follows = (on_shape >= much) & (on_shape >= 2 * elsewhere)

    def named(chosen):
        return ", ".join(f"layer {layer} head {head}" for layer, head in chosen.nonzero().tolist()) or "none"

    return (
        f"{int(finds.sum())} of the {on_shape.numel()} heads find the shape for both kinds of query (at {much:g} times "
        "chance or more).\nThese follow it (queries on the shape attend to it at least twice as much as the others "
        f"do): {named(follows)}"
    )


def following_figure(found: Mapping[str, torch.Tensor]) -> Figure:
    """Tables [layers, heads] of `following` side by side, with their numbers. found: {title: table}."""
    top = max(float(values.max()) for values in found.values())
    told = "; ".join(f"{name}: {values.min():.1f} to {values.max():.1f}" for name, values in found.items())
    figure = new_figure(2.7 * len(found), 2.5, f"How much heads attend to the shape, in times chance. {told}.")
    for axes, (name, values) in zip(np.atleast_1d(figure.subplots(1, len(found), sharey=True)), found.items()):
        axes.imshow(values.numpy(), cmap="cividis", vmin=0, vmax=top)
        for (layer, head), value in np.ndenumerate(values.numpy()):
            colour = "black" if value > 0.6 * top else "white"
            axes.text(head, layer, f"{value:.1f}", ha="center", va="center", fontsize=SMALLEST, color=colour)
        axes.set_title(name, fontsize=SMALLEST)
        axes.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
        axes.set_xlabel("head", fontsize=SMALLEST)
    figure.axes[0].set_ylabel("layer", fontsize=SMALLEST)
    return figure
