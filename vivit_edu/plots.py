"""Figures of the course. Each function returns a matplotlib Figure that carries its alt text.

matplotlib is imported where it is used. Figures are made without pyplot, so none stays open in a long session.
Colours are from Okabe and Ito's palette and from cividis, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from .support.files import written_whole

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from .training import History
    from .volumes import Split

# What a colour means, in every figure of the course: space, time, both at once, and all the rest (the MLP, for one).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = {"space": BLUE, "time": ORANGE, "joint": GREEN, "rest": GREY}
# Models 1 to 4. Chosen so that readers with each kind of colour blindness can tell them apart, and from those above.
PURPLE, MAGENTA, BROWN, TEAL = "#4A1A7F", "#C8389A", "#7A4B1E", "#5BC0BE"
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))  # of networks that have no colour in this course
MODEL_COLOURS = {
    "spacetime": PURPLE,
    "factorised_encoder": MAGENTA,
    "factorised_self_attention": BROWN,
    "factorised_dot_product": TEAL,
}
SMALLEST = 9  # points: no text in a figure is smaller
SHARPNESS = 2  # pixels of the file per pixel of the page, for screens that have them


def new_figure(width: float, height: float, alt: str = "") -> Figure:
    """An empty Figure of this size in inches, on white even if a reader's page is dark.

    alt: what it shows, for readers who cannot see it; without it, `show` uses its caption.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.alt_text = alt
    return figure


def save(figure: Figure, path: Path | str, dpi: int = 110) -> None:
    """Writes a figure as PNG, whole or not at all, with its alt text as the description inside the file.

    Raises DataError if it cannot be written.
    """
    with written_whole(path) as file:
        figure.savefig(file, dpi=dpi, format="png", metadata={"Description": figure.alt_text})


def show(figure: Figure, dpi: int = 80, *, caption: str = "", colours: int | None = None) -> None:
    """Shows a figure in a notebook, and below it its caption.

    dpi: pixels of the page per inch; the picture itself has twice as many. caption: one sentence on what there is to
    see. It is the alt text too, for readers who cannot see the figure, unless the figure brings a longer one.
    colours: at most this many in the file, up to 256, with which pictures of volumes take a third of the space. None
    keeps all.
    """
    from IPython.display import display

    show_png(as_png(figure, dpi, colours), alt=getattr(figure, "alt_text", "") or caption)
    if caption:
        display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)


def show_png(png: bytes, alt: str) -> None:
    """Shows the content of a PNG file that `as_png` made, with its alt text."""
    from base64 import b64encode
    from struct import unpack

    from IPython.display import display

    width, height = (side // SHARPNESS for side in unpack(">II", png[16:24]))
    # the alt text is there twice: as metadata for what makes pages of notebooks, as plain text for the rest
    bundle = {"image/png": b64encode(png).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt, "width": width, "height": height}})


def as_png(figure: Figure, dpi: int = 80, colours: int | None = None) -> bytes:
    """A figure as the content of a PNG file, twice as sharp as its dpi on the page. colours: at most this many."""
    from io import BytesIO

    from PIL import Image

    png = BytesIO()
    figure.savefig(png, dpi=SHARPNESS * dpi, format="png", pil_kwargs={"optimize": True})
    if colours is not None:
        picture = Image.open(png).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
        png = BytesIO()
        picture.save(png, format="PNG", optimize=True)
    return png.getvalue()


def montage(split: Split, class_names: Sequence[str], *, slices: int = 7, example: int = 0) -> Figure:
    """One clip of each class as a film strip: `slices` slices, evenly spaced from the first to the last.

    split: a Split with clips uint8 [B, C, T, H, W], C 1 or 3; class_names: K names; example: which clip of
    its class. The strip of a class that has no such clip stays white.
    """
    channels, depth, height, width = split.clips.shape[1:]
    frames = np.linspace(0, depth - 1, slices).round().astype(int)
    shape = (len(class_names), slices, height + 1, width + 1, channels)  # the ones are a white seam
    sheet = np.full(shape, 255, np.uint8)
    missing = []
    for k in range(len(class_names)):
        of_class = (split.labels == k).nonzero().flatten()
        if len(of_class) > example:
            clip = split.clips[of_class[example], :, frames].numpy()
            sheet[k, :, :height, :width] = rearrange(clip, "c t h w -> t h w c")
        else:
            missing.append(class_names[k])
    picture = rearrange(sheet, "k t h w c -> (k h) (t w) c")
    figure = new_figure(
        2 + slices,
        0.8 + len(class_names),
        f"A sheet of {len(class_names)} film strips, one clip of each class from top to bottom "
        f"({', '.join(class_names)}); each shows {slices} slices, the first on the left, the last on the right."
        + (f" Left white, because there is no such clip: {', '.join(missing)}." if missing else ""),
    )
    axes = figure.subplots()
    axes.imshow(picture if channels == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(np.arange(len(class_names)) * (height + 1) + height / 2, class_names, parse_math=False)
    axes.set_xticks(np.arange(slices) * (width + 1) + width / 2, frames)
    axes.set(xlabel="slice (time, the first axis of the volume)")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def curves(history: History) -> Figure:
    """Training loss, and validation accuracy and AUC, over the epochs of a History."""
    epochs = history["epoch"]
    last = history.rows[-1]
    count = f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}"
    auc = "" if last["val_auc"] is None else f" and AUC at {last['val_auc']:.2f}"  # none for a split of one class
    figure = new_figure(
        8,
        3,
        f"Two line plots over {count}. Left: the training loss {in_words(history['loss'][0], last['loss'])}. "
        f"Right: on validation, accuracy ends at {last['val_acc']:.2f}{auc}.",
    )
    left, right = figure.subplots(1, 2)
    marker = "o" if len(epochs) == 1 else ""  # a single epoch makes no line
    left.plot(epochs, history["loss"], color="black", marker=marker)
    left.set(title="training loss", xlabel="epoch", ylim=(0, None))
    for column, name, line in (
        ("val_acc", "accuracy", "-"),
        ("val_balanced_acc", "balanced accuracy", "--"),
        ("val_auc", "AUC", ":"),
    ):
        right.plot(epochs, history[column], line, color="black", marker=marker, label=name)
    right.set(title="validation", xlabel="epoch", ylim=(0, 1.02))
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def in_words(first: float, last: float) -> str:
    """The course of a curve, by its printed numbers: "falls from 2.00 to 1.00", "rises …" or "stays at 1.00"."""
    start, end = f"{first:.2f}", f"{last:.2f}"
    if start == end:
        return f"stays at {end}" if np.isfinite(last) else f"ends at {end}"
    if not np.isfinite([first, last]).all():
        return f"goes from {start} to {end}"
    return f"{'falls' if last < first else 'rises'} from {start} to {end}"


def confusion(
    labels: Sequence[int] | torch.Tensor, guesses: Sequence[int] | torch.Tensor, class_names: Sequence[str]
) -> Figure:
    """How often each class was taken for each: rows are the truth, columns the prediction, in per cent of the row.

    labels, guesses: int [B]; class_names: K names.
    """
    labels, guesses, k = np.asarray(labels), np.asarray(guesses), len(class_names)
    counts = np.zeros((k, k), int)
    np.add.at(counts, (labels, guesses), 1)
    shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(1)
    off = shares - np.diag(np.diag(shares))
    true, taken = np.unravel_index(off.argmax(), off.shape)
    worst = (
        f"{class_names[true]} taken for {class_names[taken]} in {off.max():.0f} % of its cases" if off.any() else "none"
    )
    figure = new_figure(
        2.5 + 0.5 * k, 2 + 0.45 * k, f"Confusion matrix of {k} classes; most frequent confusion: {worst}."
    )
    axes = figure.subplots()
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    for i, j in np.argwhere(counts):
        axes.text(
            j,
            i,
            f"{shares[i, j]:.0f}",
            ha="center",
            va="center",
            fontsize=9,
            color="black" if shares[i, j] > 50 else "white",
        )
    axes.set_xticks(range(k), class_names, rotation=45, ha="right", parse_math=False)
    rows = [f"{name} ({n})" for name, n in zip(class_names, counts.sum(axis=1))]
    axes.set_yticks(range(k), rows, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true (number of clips)", title="per cent of each true class")
    return figure


def attention_slices(clips: torch.Tensor, scores: torch.Tensor, titles: Sequence[str], slices: int = 7) -> Figure:
    """Clips and what the model looked at: a row of slices for each clip, and below it the same under its attention.

    clips: uint8 [B, C, T, H, W]; scores: float [B, T, H, W], not negative; titles: B strings.
    """
    frames = np.linspace(0, clips.shape[2] - 1, slices + 2).round().astype(int)[1:-1]
    figure = new_figure(
        1.25 * slices,
        2.9 * len(clips),
        f"{len(clips)} clips ({'; '.join(titles)}), each as a row of {slices} slices, and below it the same slices "
        "with the model's attention in colour.",
    )
    for part, clip, score, title in zip(np.atleast_1d(figure.subfigures(len(clips), 1)), clips, scores, titles):
        part.suptitle(title, parse_math=False)
        rows = part.subplots(2, slices)
        for column, frame in enumerate(frames):
            for axes in rows[:, column]:
                axes.imshow(clip[:, frame].float().mean(dim=0), cmap="gray", vmin=0, vmax=255)
                axes.set_axis_off()
            heat = axes.imshow(score[frame], cmap="inferno", alpha=0.55, vmin=0, vmax=float(score.max()))
            rows[0, column].set_title(f"slice {frame}", fontsize=9)
        bar = part.colorbar(heat, ax=rows[1, :], location="right", shrink=0.8, ticks=[0, float(score.max())])
        bar.ax.set_yticklabels(["none", "most"], fontsize=9)
    return figure


def ablation(content: dict[str, Any]) -> Figure:
    """Accuracy and AUC of an ablation's rows, mean and standard deviation, from the top as in the table.

    content: what `ablate.run_table` returns.
    """
    rows, places = content["rows"], np.arange(len(content["rows"]))
    ends = "; ".join(f"{row['row']}: {row['test']['acc']['mean']:.3f}" for row in rows)
    figure = new_figure(
        9,
        1.3 + 0.4 * len(rows),
        f"Two dot plots of {len(rows)} recipes on {content['dataset']}, validation and test, with error bars of one "
        f"standard deviation over {len(content['seeds'])} seeds. Test accuracy from top to bottom: {ends}.",
    )
    for axes, (name, title) in zip(figure.subplots(1, 2, sharey=True), (("acc", "accuracy"), ("auc", "AUC"))):
        for split, colour, marker, aside in (("val", GREY, "s", -0.12), ("test", BLUE, "o", 0.12)):
            means = [np.nan if row[split][name]["mean"] is None else row[split][name]["mean"] for row in rows]
            sds = [row[split][name]["sd"] or 0 for row in rows]
            axes.errorbar(means, places + aside, xerr=sds, fmt=marker, color=colour, capsize=3, label=split)
        axes.set(title=f"{title}, {content['epochs']} epochs", ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(places, [row["row"] for row in rows])
        axes.grid(alpha=0.3)
    axes.legend()
    return figure
