"""Chapter 11: where regularisation acts, augmented slices, what a model memorises, and what each step changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import GREEN, GREY, SMALLEST, new_figure
from ...support.tables import mean_sd
from .block import PURPLE
from .pieces import canvas, draw_arrow, draw_box, draw_cube, draw_residual_stream, draw_text, draw_tokens, tokens_width

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

Curve = Sequence[tuple[int, float, float]]  # of a run: (epoch, accuracy on its own clips, on validation)


def places() -> Figure:
    """A training step, and the three places where the chapter changes it: clips, targets, branches."""
    figure, axes = canvas(10, 3.3)
    figure.alt_text = (
        "A training step. A clip becomes tokens, a block adds its two branches to the residual stream, and the logits "
        "are compared with a target. Three notes say what the chapter changes: the clip (shift, mirror, "
        "mixup), the branches (stochastic depth), and the target (label smoothing, and mixup again)."
    )
    stream = 1.95
    draw_cube(axes, 0.3, stream - 0.45, 0.8)
    draw_text(axes, 0.85, stream - 0.65, "clip", color=GREY)
    draw_arrow(axes, (1.7, stream), (2.0, stream))
    draw_tokens(axes, 2.1, stream - 0.1, size=0.14, gap=0.02)
    end = 2.1 + tokens_width(size=0.14, gap=0.02)
    draw_text(axes, (2.1 + end) / 2, stream - 0.3, "tokens", color=GREY)
    draw_residual_stream(
        axes, end + 0.15, stream, 3.1, [("attention", GREEN), ("MLP", GREY)], drop=0.75, norm="", names=("", "")
    )
    right = end + 3.25
    draw_box(axes, right + 0.08, stream - 0.2, 0.7, 0.4, "logits")
    draw_arrow(axes, (right + 0.78, stream), (right + 1.08, stream))
    draw_box(axes, right + 1.1, stream - 0.2, 0.6, 0.4, "loss")
    draw_box(axes, right + 1.02, stream - 0.95, 0.76, 0.4, "target")
    draw_arrow(axes, (right + 1.4, stream - 0.55), (right + 1.4, stream - 0.2))
    draw_text(axes, 0.95, 3.1, "change the clips", weight="bold")
    draw_text(axes, 0.15, 2.9, "11.1 shift, 11.2 mirror, 11.5 mixup", ha="left")
    draw_text(axes, end + 1.7, 0.6, "change the model", weight="bold")
    draw_text(axes, end + 1.7, 0.4, "11.7 stochastic depth drops branches")
    draw_text(axes, right + 1.0, 0.6, "change the targets", weight="bold")
    draw_text(axes, right + 1.0, 0.4, "11.4 smoothing, 11.5 mixup")
    return figure


def slices(pictures: Mapping[str, torch.Tensor], *, columns: int = 6, width: float = 1.5) -> Figure:
    """Slices [H, W], 0 to 255, each below its title. width: of each in inches."""
    rows, columns = math.ceil(len(pictures) / columns), min(columns, len(pictures))
    figure = new_figure(width * columns, (width + 0.45) * rows)
    figure.alt_text = f"{len(pictures)} slices: {', '.join(' '.join(title.split()) for title in pictures)}."
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.set_axis_off()
    for axes, (title, picture) in zip(grid, pictures.items()):
        axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9)
    return figure


def memorising(curves: Mapping[str, Curve]) -> Figure:
    """Accuracy on a model's own clips and on validation, a panel for each run; the first one is repeated in all.

    curves: {title: [(epoch, accuracy on the clips that it learns from, on validation), …]}.
    """
    figure = new_figure(min(10.0, 2.3 * len(curves) + 2.6), 2.7)
    (first, reference), *_ = curves.items()
    ends = "; ".join(f"{title}: {rows[-1][1]:.2f} and {rows[-1][2]:.2f}" for title, rows in curves.items())
    figure.alt_text = (
        f"Accuracy over {reference[-1][0]} epochs on the clips that a model learns from and on validation, a panel for "
        f"each of {len(curves)} runs. At the end, {ends}."
    )
    grid = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (title, rows) in zip(grid, curves.items()):
        epochs, seen, unseen = zip(*rows)
        axes.plot(epochs, seen, color=GREY, linestyle="--", label="its own clips")
        axes.plot(epochs, unseen, color=PURPLE, linewidth=2, label="validation")
        if title != first:
            axes.plot(
                *zip(*[(epoch, value) for epoch, _, value in reference]),
                color=PURPLE,
                alpha=0.35,
                linewidth=1,
                label=f"validation, {first}",
            )
        axes.set(xlabel="epoch", ylim=(0, 1.03))
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel("accuracy")
    figure.legend(*grid[-1].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def operations(clip: torch.Tensor, frame: int = 14) -> Figure:
    """A slice of one clip, uint8 [1, 1, T, H, W], after each operation at its strongest, and after RandAugment."""
    import torch

    from ...augment import STRONGEST, distort, rand_augment

    generator = torch.Generator().manual_seed(7)
    pictures = {"as it is": clip / 255}
    for name, most in STRONGEST.items():
        pictures[name] = distort(clip / 255, {name: most}, generator)
    for magnitude in (5, 15):
        for k in range(3):
            pictures[f"RandAugment,\nmagnitude {magnitude} ({k + 1})"] = rand_augment(clip, 2, magnitude, generator)
    return slices({title: 255 * changed[0, 0, frame] for title, changed in pictures.items()})


def blends(one: torch.Tensor, other: torch.Tensor, frame: int = 14) -> Figure:
    """A slice of five blends of two clips uint8 [1, 1, T, H, W], from all of the first to all of the second."""
    parts = (1, 0.75, 0.5, 0.25, 0)
    return slices({f"λ = {part}": (part * one + (1 - part) * other)[0, 0, frame] for part in parts}, width=1.8)


def smoothed_loss(smooth: Callable, classes: int = 11, shares: Sequence[float] = (0.0, 0.1)) -> Figure:
    """Loss over the lead of the right logit over all others, a line for each share that is spread.

    smooth: (labels [B], classes, share) -> targets [B, classes].
    """
    import torch
    import torch.nn.functional as F

    lead, first = torch.linspace(0, 12, 121), torch.zeros(121, dtype=torch.long)
    logits = F.pad(lead[:, None], (0, classes - 1))  # the right logit, and the others, which are 0
    figure, lows = new_figure(6, 2.6), []
    axes = figure.subplots()
    for share, style in zip(shares, ("--", "-", ":")):
        loss = F.cross_entropy(logits, smooth(first, classes, share), reduction="none")
        axes.plot(
            lead.numpy(), loss.numpy(), color="black" if style == "-" else GREY, linestyle=style, label=f"s = {share}"
        )
        lows.append(f"s = {share}: lowest at {lead[loss.argmin()]:.1f}")
    figure.alt_text = f"Loss over the lead of the right logit, from 0 to 12, for {classes} classes. {'; '.join(lows)}."
    axes.set(xlabel="lead of the right logit over all others", ylabel="loss", ylim=(0, 2.5))
    axes.legend(fontsize=9)
    return figure


def shares(draws: Mapping[str, torch.Tensor]) -> Figure:
    """Histograms of λ, a panel for each way of drawing it. draws: {title: [count]}, each in [0, 1]."""
    figure = new_figure(2.5 * len(draws), 2.1)
    inner = "; ".join(f"{title}: {((v > 0.1) & (v < 0.9)).float().mean():.0%}" for title, v in draws.items())
    figure.alt_text = f"Histograms of λ in {len(draws)} panels. Between 0.1 and 0.9 lie: {inner}."
    for axes, (title, values) in zip(figure.subplots(1, len(draws), sharey=True), draws.items()):
        axes.hist(values.numpy(), bins=20, range=(0, 1), color=GREY)
        axes.set(xlabel="λ", yticks=[], xlim=(0, 1))
        axes.set_title(title, fontsize=10)
    return figure


def skipped(kept: torch.Tensor) -> Figure:
    """Which clip passes which branch: kept is bool [clips, branches], dark where a clip skips."""
    figure = new_figure(7, 2.3)
    figure.alt_text = (
        f"A grid of {kept.shape[0]} clips and {kept.shape[1]} branches, dark where one skips the other. From the first "
        f"branch to the last, {', '.join(str(int(count)) for count in (~kept).sum(0))} clips skip it."
    )
    axes = figure.subplots()
    axes.imshow(kept.T.numpy(), cmap="gray", vmin=-0.3, vmax=1, aspect="auto")
    axes.set(xlabel="clip (dark: skips the branch)", ylabel="branch", xticks=[], yticks=range(kept.shape[1]))
    axes.set_yticklabels([str(k + 1) for k in range(kept.shape[1])])
    axes.set_xticks(np.arange(kept.shape[0] + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(kept.shape[1] + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="minor", length=0)
    return figure


def gains_by_seed(tables: Mapping[str, dict], figure_of: str = "acc", title: str = "accuracy") -> Figure:
    """How far each row of recorded tables lies above or below the first, on test clips, seed by seed.

    tables: {title: what `ablate.run_table` returns}, with the same rows. figure_of: "acc" or "auc"; title: its name.
    """
    gains = {name: paired(table, figure_of) for name, table in tables.items()}
    rows = list(next(iter(gains.values())))
    figure = new_figure(9, 0.42 * len(rows) + 1.3)
    figure.alt_text = f"Test {title} minus that of the first row, a dot per seed. " + " ".join(
        f"{name}: {'; '.join(f'{row} {np.mean(values):+.3f}' for row, values in of_rows.items())}."
        for name, of_rows in gains.items()
    )
    for axes, (name, of_rows) in zip(figure.subplots(1, len(gains), sharey=True, squeeze=False)[0], gains.items()):
        for place, values in enumerate(of_rows.values()):
            axes.plot(values, [place] * len(values), "o", color=GREY, alpha=0.6, markersize=5)
            axes.plot(np.mean(values), place, "|", color="black", markersize=18, markeredgewidth=2)
        axes.axvline(0, color="black", linewidth=1, linestyle=":")
        axes.set(xlabel=f"test {title}, minus that with nothing", ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), rows)
        axes.set_title(name, fontsize=10)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(alpha=0.3, axis="x")
    return figure


def piled_up(tables: Mapping[str, dict], figures_of: Mapping[str, str]) -> Figure:
    """Recorded tables whose rows keep what is above them: the test figure of each row, a line for each seed, and the
    training loss of each row, mean over the seeds.

    tables: {title: what `ablate.run_table` returns}. figures_of: {title: "acc" or "auc"}, which figure is shown.
    """
    from matplotlib import colormaps

    figure = new_figure(9.6, 2.9 * len(tables))
    said = []
    grid = figure.subplots(len(tables), 2, squeeze=False, width_ratios=(1.25, 1))
    for (left, right), (title, table) in zip(grid, tables.items()):
        names, field = [row["row"] for row in table["rows"]], figures_of[title]
        word = {"acc": "test accuracy", "auc": "test AUC"}[field]
        found = np.array([row["test"][field]["runs"] for row in table["rows"]])  # [rows, seeds]
        places = np.arange(len(names))
        left.plot(found, places, "o-", color=GREY, alpha=0.5, markersize=4, linewidth=0.8)
        left.plot(found.mean(axis=1), places, "|", color="black", markersize=18, markeredgewidth=2)
        left.set(xlabel=word, ylim=(len(names) - 0.5, -0.5))
        left.set_yticks(places, names)
        left.set_title(title, fontsize=10)
        left.grid(alpha=0.3, axis="x")
        for name, row, shade in zip(names, table["rows"], np.linspace(0.9, 0, len(names))):
            losses = np.mean(row["history"]["loss"], axis=0)
            right.plot(np.arange(1, len(losses) + 1), losses, color=colormaps["cividis"](shade), label=name)
        right.set(xlabel="epoch", ylabel="loss in training")
        right.grid(alpha=0.3)
        left.locator_params(axis="x", nbins=6)
        said.append(f"{title}, {word}: {'; '.join(f'{n} {v:.3f}' for n, v in zip(names, found.mean(axis=1)))}.")
    grid[0, 1].legend(fontsize=SMALLEST, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.alt_text = (
        "For each data set, on the left the test figure of each row, each of which keeps what is above it, a line per "
        "seed and the mean; on the right the training loss of each epoch. " + " ".join(said)
    )
    return figure


def paired(table: dict, figure_of: str = "acc", split: str = "test", *, above: bool = False) -> dict[str, list[float]]:
    """For each row of a recorded table but the first: what it has more than the first, seed by seed.

    table: what `ablate.run_table` returns. figure_of: "acc", "balanced_acc" or "auc". above: more than the row above
    it, instead.
    """
    runs = [row[split][figure_of]["runs"] for row in table["rows"]]
    references = runs if above else [runs[0]] * len(runs)
    return {
        row["row"]: [value - before for value, before in zip(values, reference)]
        for row, values, reference in zip(table["rows"][1:], runs[1:], references)
    }


def gains_by_step(table: dict, figure_of: str) -> str:
    """A recorded table whose rows keep what is above them, in plain text: the test figure of each row, and how much
    more it is than the row above and than the first, with a * where that is more than twice its spread over seeds."""
    from tabulate import tabulate

    def said(values: Sequence[float]) -> str:
        mean, sd = np.mean(values), np.std(values, ddof=1)
        # + 0.0: a mean that rounds to nothing has no sign
        return f"{round(mean, 3) + 0.0:+.3f} ± {sd:.3f}{' *' if abs(mean) > 2 * sd else ''}"

    gains = [paired(table, figure_of, above=above) for above in (True, False)]
    rows = [
        (row["row"], mean_sd(row["test"][figure_of]), *(said(of[row["row"]]) if k else "" for of in gains))
        for k, row in enumerate(table["rows"])
    ]
    word = {"acc": "accuracy", "auc": "AUC"}[figure_of]
    heads = [f"{table['dataset']}, {table['epochs']} epochs", f"test {word}", "minus the row above", "minus the first"]
    return tabulate(rows, heads, disable_numparse=True)


def clearly_better(table: dict, figure_of: str) -> str:
    """The rows of a recorded table that lie above the first by more than twice the spread over seeds, in words."""
    gains = {row: (np.mean(values), np.std(values, ddof=1)) for row, values in paired(table, figure_of).items()}
    return "; ".join(f"{row} {mean:+.3f} ± {sd:.3f}" for row, (mean, sd) in gains.items() if mean > 2 * sd) or "no row"


def tuned(table: dict) -> str:
    """What was tried to choose the strengths of a recorded table, from its last row, which uses all of them."""
    lines = [
        f"{table['dataset']}: {table['epochs']} epochs, seeds {table['seeds']}, {table['device']}, {table['date']}"
    ]
    for name, tried in table["rows"][-1]["strengths"].items():
        aucs = ", ".join(f"{strength:g}: {auc:.3f}" for strength, auc in zip(tried["strengths"], tried["val_auc"]))
        lines.append(f"  {name:15} validation AUC at {aucs}; chosen {tried['chosen']:g}")
    return "\n".join(lines)


def figures_of_rows(table: dict) -> str:
    """A recorded table in plain text: the loss in training, and accuracy and AUC on test clips, mean ± sd."""
    from tabulate import tabulate

    rows = [
        (row["row"], f"{row['loss']['mean']:.2f}", *(mean_sd(row["test"][name]) for name in ("acc", "auc")))
        for row in table["rows"]
    ]
    return tabulate(rows, [table["dataset"], "loss in training", "test accuracy", "test AUC"], disable_numparse=True)
