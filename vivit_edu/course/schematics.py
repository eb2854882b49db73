"""Drawings of the four ViViT architectures, from the clips at the top to the logits at the bottom.

Blue stands for space, orange for time and green for both at once, as in all drawings of the course.
"""

from ..errors import ConfigError
from ..plots import BLUE, GREEN, GREY, ORANGE, new_figure

# A stack is a list of (part, shape of what leaves it). A part is the text of one box, or an encoder: how
# often its block is repeated, then the block's rows, each of one or two boxes.
JOINT, SPACE, TIME = "attention over\nspace and time", "attention over space", "attention over time"
HALVES = ["half of the\nheads over\nspace", "half of the\nheads over\ntime"]
STACKS = {
    "spacetime": (
        "Model 1\nspatio-temporal attention",
        [
            ("tubelet embedding", "[B, T'·S, D]"),
            ("+ positions", ""),
            (("× L", [JOINT], ["MLP"]), "[B, T'·S, D]"),
            ("mean over all tokens", "[B, D]"),
            ("linear head", "[B, K]"),
        ],
    ),
    "factorised_encoder": (
        "Model 2\nfactorised encoder",
        [
            ("tubelet embedding", "[B·T', S, D]"),
            ("+ positions in space", ""),
            (("× L", [SPACE], ["MLP"]), "[B·T', S, D]"),
            ("mean over space", "[B, T', D]"),
            ("+ positions in time", ""),
            (("× 4", [TIME], ["MLP"]), "[B, T', D]"),
            ("mean over time", "[B, D]"),
            ("linear head", "[B, K]"),
        ],
    ),
    "factorised_self_attention": (
        "Model 3\nfactorised self-attention",
        [
            ("tubelet embedding", "[B, T', S, D]"),
            ("+ positions", ""),
            (("× L", [SPACE], [TIME], ["MLP"]), "[B, T', S, D]"),
            ("mean over all tokens", "[B, D]"),
            ("linear head", "[B, K]"),
        ],
    ),
    "factorised_dot_product": (
        "Model 4\nfactorised dot-product",
        [
            ("tubelet embedding", "[B, T', S, D]"),
            ("+ positions", ""),
            (("× L", HALVES, ["concatenate, W_O"], ["MLP"]), "[B, T', S, D]"),
            ("mean over all tokens", "[B, D]"),
            ("linear head", "[B, K]"),
        ],
    ),
}
COLUMN, WIDTH, LINE, GAP, PAD = 2.5, 1.72, 0.165, 0.27, 0.13  # inches; LINE is a line of text
SMALL = {"ha": "center", "va": "center", "fontsize": 8, "color": GREY}


def architectures():
    """All four side by side."""
    return draw(STACKS)


def architecture(name):
    """One of the four, by its name in MODELS."""
    if name not in STACKS:
        raise ConfigError(f"no drawing of {name!r}; there are {', '.join(STACKS)}")
    return draw([name])


def draw(names):
    """A Figure with a column for each name."""
    width = max(len(names) * COLUMN, 3.2)
    height = 1.5 + max(sum(part_height(part) + GAP for part, _ in STACKS[name][1]) for name in names)
    figure = new_figure(width, height, " ".join(map(describe, names)))
    figure.set_layout_engine("none")  # every position below is in inches
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(-height, 0))
    axes.set_axis_off()
    for i, name in enumerate(names):
        draw_stack(axes, width / 2 - 0.1 + COLUMN * (i - (len(names) - 1) / 2), *STACKS[name])
    note = "before every attention and MLP stands a LayerNorm, around them a residual connection"
    axes.text(width / 2, 0.2 - height, note if len(names) > 1 else note.replace(", ", ",\n"), **SMALL)
    return figure


def draw_stack(axes, x, title, stack):
    """One architecture, centred at x."""
    name, _, what = title.partition("\n")
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


def draw_rows(axes, x, y, rows):
    """The boxes of one block, those of a row beside each other."""
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


def part_height(part):
    """Height in inches of a box or of an encoder with its frame."""
    if isinstance(part, str):
        return LINE * (part.count("\n") + 1) + 0.1
    _, *rows = part
    return sum(part_height(row[0]) for row in rows) + GAP * (len(rows) - 1) + 2 * PAD


def colour(text):
    """Of attention by what it ranges over; grey for all else."""
    if not text.startswith(("attention", "half")):
        return GREY
    return GREEN if "and" in text else BLUE if "space" in text else ORANGE


def box(axes, x, top, width, text):
    from matplotlib.patches import FancyBboxPatch

    height = part_height(text)
    tint = {"facecolor": colour(text) + "30", "edgecolor": colour(text), "linewidth": 1.2}
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch((x - width / 2, top - height), width, height, boxstyle=style, **tint))
    axes.text(x, top - height / 2, text, ha="center", va="center", fontsize=8.5, linespacing=1.1)


def frame(axes, x, top, height, times):
    from matplotlib.patches import Rectangle

    width = WIDTH + 2 * PAD
    axes.add_patch(Rectangle((x - width / 2, top - height), width, height, fill=False, ls="--", ec=GREY))
    axes.text(x + width / 2 + 0.05, top - height / 2, times, ha="left", va="center", fontsize=9)


def arrow(axes, x, top):
    style = {"arrowstyle": "->", "color": GREY, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", (x, top - GAP), (x, top), arrowprops=style)


def describe(name):
    """The drawing in words."""
    title, stack = STACKS[name]
    parts = []
    for part, _ in stack:
        if not isinstance(part, str):
            times, *rows = part
            part = f"{times} block of " + ", ".join(" beside ".join(row) for row in rows)
        parts.append(part)
    return f"{title}: {'; '.join(parts)}.".replace("\n", " ")
