"""Drawings of the four ViViT architectures, from the clips at the top to the logits at the bottom.

Blue stands for space, orange for time and green for both at once, as in all drawings of the course.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...cost import PAPER
from ...errors import ConfigError
from ...models import VIVITS, model_class
from ...plots import BLUE, GREEN, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...vivit import ViViT

StackPart = (
    str | tuple
)  # the text of one box, or an encoder: how often its block is repeated, then the block's rows of boxes
ATTENTION = {"joint": "attention over\nspace and time", "space": "attention over space", "time": "attention over time"}
SHAPES = {"sequence": "[B, N, D]", "grid": "[B, nt, S, D]"}  # of the tokens
COLUMN, WIDTH, LINE, GAP, PAD = 2.5, 1.72, 0.165, 0.27, 0.13  # inches; LINE is a line of text
SMALL = {"ha": "center", "va": "center", "fontsize": 9, "color": GREY}


def architectures() -> Figure:
    """The models of the paper, next to each other."""
    return draw(list(PAPER))


def architecture(name: str) -> Figure:
    """One ViViT, by its name in MODELS. Raises ConfigError for another name."""
    if name not in VIVITS:
        raise ConfigError(f"no drawing of {name!r}; there are {', '.join(VIVITS)}")
    return draw([name])


def layers_of(model: type[ViViT]) -> list[tuple[StackPart, str]]:
    """A model as its record describes it, from the tokens to the logits: (part, shape of what leaves it)."""
    head = ("linear head", "[B, K]")
    if model.tokens_as == "encoders":
        first, *second = model.kinds
        folded, vectors = ("[B·nt, S, D]", "[B, nt, D]") if first == "space" else ("[B·S, nt, D]", "[B, S, D]")
        stack = [
            ("tubelet embedding", folded),
            (f"+ positions in {first}", ""),
            (("× L", [ATTENTION[first]], ["MLP"]), folded),
            (f"mean over {first}", vectors),
        ]
        for kind in second:
            times = f"× {model.configured_by.temporal_depth}"
            stack += [(f"+ positions in {kind}", ""), ((times, [ATTENTION[kind]], ["MLP"]), vectors)]
        return [*stack, (f"mean over {'time' if first == 'space' else 'space'}", "[B, D]"), head]
    shape, rows = SHAPES[model.tokens_as], [[ATTENTION[kind]] for kind in model.kinds]
    if model.attention_halves:
        rows = [[f"half of the\nheads over\n{kind}" for kind in model.kinds], ["concatenate, W_O"]]
    return [
        ("tubelet embedding", shape),
        ("+ positions", ""),
        (("× L", *rows, ["MLP"]), shape),
        ("mean over all tokens", "[B, D]"),
        head,
    ]


def draw(names: list[str]) -> Figure:
    """A Figure with a column for each name."""
    stacks = {name: layers_of(model_class(name)) for name in names}
    width = max(len(names) * COLUMN, 3.2)
    height = 1.5 + max(sum(part_height(part) + GAP for part, _ in stack) for stack in stacks.values())
    figure = new_figure(
        width, height, " ".join(drawing_in_words(model_class(name).title, stack) for name, stack in stacks.items())
    )
    figure.set_layout_engine("none")  # every position below is in inches
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-height, 0))
    axes.set_axis_off()
    for i, (name, stack) in enumerate(stacks.items()):
        draw_stack(axes, width / 2 - 0.1 + COLUMN * (i - (len(names) - 1) / 2), model_class(name).title, stack)
    note = "a LayerNorm before every attention and MLP, and a residual connection around them"
    axes.text(width / 2, 0.2 - height, note if len(names) > 1 else note.replace(", and ", ",\nand "), **SMALL)
    return figure


def draw_stack(axes: Axes, x: float, title: str, stack: list[tuple[StackPart, str]]) -> None:
    """One architecture, centred at x."""
    name, _, what = title.partition(", ")
    axes.text(x, -0.16, name, ha="center", va="center", fontsize=11, weight="bold")
    axes.text(x, -0.36, what, ha="center", va="center", fontsize=9)
    axes.text(x, -0.62, "clips [B, C, T, H, W]", **SMALL)
    y = -0.7
    for part, shape in stack:
        arrow(axes, x, y)
        y -= GAP
        if isinstance(part, str):
            box(axes, x, y, WIDTH, part)
        else:
            times, *rows = part
            frame(axes, x, y, part_height(part), times)
            draw_rows(axes, x, y - PAD, rows)
        y -= part_height(part)
        axes.text(x + 0.08, y - GAP / 2, shape, **{**SMALL, "ha": "left"})
    arrow(axes, x, y)
    axes.text(x, y - GAP - 0.08, "logits", **SMALL)


def draw_rows(axes: Axes, x: float, y: float, rows: list[list[str]]) -> None:
    """The boxes of one block, those of a row next to each other."""
    for row in rows:
        each = WIDTH / len(row)
        places = [x + each * (j - (len(row) - 1) / 2) for j in range(len(row))]
        for place, text in zip(places, row):
            box(axes, place, y, each - 0.06 * (len(row) - 1), text)
        y -= part_height(row[0])
        if row is not rows[-1]:
            for place in places:
                arrow(axes, place, y)
        y -= GAP


def part_height(part: StackPart) -> float:
    """Height in inches of a box or of an encoder with its frame."""
    if isinstance(part, str):
        return LINE * (part.count("\n") + 1) + 0.1
    _, *rows = part
    return sum(part_height(row[0]) for row in rows) + GAP * (len(rows) - 1) + 2 * PAD


def box_colour(text: str) -> str:
    """The colour of a box: of an attention by what it ranges over; grey for everything else."""
    if not text.startswith(("attention", "half")):
        return GREY
    return GREEN if "and" in text else BLUE if "space" in text else ORANGE


def box(axes: Axes, x: float, top: float, width: float, text: str) -> None:
    """A box with rounded corners and this text, centred at x; all in inches."""
    from matplotlib.patches import FancyBboxPatch

    height = part_height(text)
    tint = {"facecolor": box_colour(text) + "30", "edgecolor": box_colour(text), "linewidth": 1.2}
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x - width / 2, top - height), width, height, boxstyle=style, **tint))
    axes.text(x, top - height / 2, text, ha="center", va="center", fontsize=9, linespacing=1.1)


def frame(axes: Axes, x: float, top: float, height: float, times: str) -> None:
    """A dashed frame around an encoder's block, and next to it how often the block is repeated."""
    from matplotlib.patches import Rectangle

    width = WIDTH + 2 * PAD
    axes.add_patch(Rectangle((x - width / 2, top - height), width, height, fill=False, ls="--", ec=GREY))
    axes.text(x + width / 2 + 0.05, top - height / 2, times, ha="left", va="center", fontsize=9)


def arrow(axes: Axes, x: float, top: float) -> None:
    """An arrow down across one GAP."""
    style = {"arrowstyle": "->", "color": GREY, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", (x, top - GAP), (x, top), arrowprops=style)


def drawing_in_words(title: str, stack: list[tuple[StackPart, str]]) -> str:
    """The drawing of one model as a sentence, for its alt text."""
    parts = []
    for part, _ in stack:
        if not isinstance(part, str):
            times, *rows = part
            part = f"{times} blocks of " + ", ".join(" next to ".join(row) for row in rows)
        parts.append(part)
    return f"{title}: {'; '.join(parts)}.".replace("\n", " ")
