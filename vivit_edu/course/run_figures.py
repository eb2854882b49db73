"""Figures of chapter 12: the loop as a drawing, loss curves, recalls, mistaken clips, the recipes that were tried; and
the page on which these are listed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..plots import GREY, MODEL_COLOURS, SMALLEST, new_figure
from .recorded import chosen_rate
from .schematics.pieces import canvas, draw_arrow, draw_box, draw_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, RED = "#222222", "#B2182B"  # what is shown, and what fails; neither stands for a kind of attention or a model
STYLES = ((RED, "-"), (INK, "-"), (INK, "--"), (INK, ":"), (GREY, "--"))


def loop_drawing() -> Figure:
    """One training step from left to right, and what is around it: the epoch, the schedule, the average, the file."""
    figure, axes = canvas(9.4, 3.0)
    figure.alt_text = (
        "A training step as a chain of boxes: batch, model under autocast, loss times scale, backward, unscale, clip, "
        "step. The schedule sets the learning rate of the step; after the step the averaged weights follow. An arrow "
        "leads back to the next batch. After each epoch all that has changed is written to a file."
    )
    steps = ("batch", "model\n(autocast)", "loss\n× scale", "backward", "÷ scale", "clip", "step")
    width, gap, y = 1.0, 0.3, 1.25
    starts = [0.25 + k * (width + gap) for k in range(len(steps))]
    for start, text in zip(starts, steps):
        draw_box(axes, start, y, width, 0.6, text)
    for start in starts[1:]:
        draw_arrow(axes, (start - gap, y + 0.3), (start, y + 0.3))
    last = starts[-1] + width / 2
    draw_box(axes, last - 0.65, 2.25, 1.3, 0.5, "schedule (12.1)", colour=INK)
    draw_arrow(axes, (last, 2.25), (last, y + 0.6))
    draw_box(axes, last - 0.65, 0.25, 1.3, 0.5, "average (12.2)", colour=INK)
    draw_arrow(axes, (last, y), (last, 0.75))
    draw_text(
        axes, (starts[1] + starts[-2] + width) / 2, 2.1, "one epoch (12.3): this chain for every batch", color=INK
    )
    draw_arrow(axes, (last - 0.65, 0.5), (starts[0] + width / 2 + 1.5, 0.5))
    draw_box(axes, starts[0], 0.25, 2.0, 0.5, "after an epoch: save (12.6)", colour=INK)
    draw_arrow(axes, (starts[0] + width / 2, 0.75), (starts[0] + width / 2, y))
    draw_text(axes, starts[0] + width / 2 + 0.65, 1.0, "next epoch (12.5)", color=GREY)
    return figure


def loss_curves(losses: Mapping[str, Sequence[float]], classes: int | None = None) -> Figure:
    """The mean loss of each epoch of several runs. classes: draws the loss of guessing among so many, ln(classes)."""
    ends = "; ".join(f"{name}: from {values[0]:.2f} to {values[-1]:.2f}" for name, values in losses.items())
    figure = new_figure(6.2, 2.8, f"The training loss over the epochs. {ends}.")
    axes = figure.subplots()
    for (name, values), (colour, line) in zip(losses.items(), STYLES):
        axes.plot(range(1, len(values) + 1), values, line, color=colour, marker="o", markersize=3, label=name)
    if classes:
        axes.axhline(math.log(classes), color=GREY, linewidth=1.5, linestyle=":", label=f"guessing: ln {classes}")
    top = max(max(values) for values in losses.values())
    axes.set(xlabel="epoch", ylabel="training loss", ylim=(0, 1.15 * top))
    axes.legend(fontsize=SMALLEST, loc="lower left")
    axes.grid(alpha=0.3)
    return figure


def loops_over_rates(rows: Sequence[Mapping[str, Any]], classes: int) -> Figure:
    """The losses at the end of several loops over the learning rate, of training on the left and of validation on the
    right: dots for seeds, a line through the means, and the loss of guessing among so many classes.

    rows: those of the recorded comparison of loops.
    """
    figure, told = new_figure(9, 2.8), []
    for axes, (key, label) in zip(
        figure.subplots(1, 2, sharey=True), {"loss": "training loss", "val_loss": "validation loss"}.items()
    ):
        for name, (colour, line) in zip(dict.fromkeys(row["loop"] for row in rows), STYLES):
            own = [row for row in rows if row["loop"] == name]
            rates, means = [row["lr"] for row in own], [row[key]["mean"] for row in own]
            axes.plot(rates, means, line, color=colour, label=name)
            for row in own:
                axes.plot([row["lr"]] * len(row[key]["runs"]), row[key]["runs"], "o", color=colour, markersize=4)
            told.append(f"{label} of {name}: " + ", ".join(f"{m:.2f} at {r:g}" for r, m in zip(rates, means)))
        axes.axhline(math.log(classes), color=GREY, linewidth=1.5, linestyle=":", label=f"guessing: ln {classes}")
        axes.set(xscale="log", xlabel="learning rate", ylabel=f"{label} at the end", ylim=(0, None))
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(fontsize=SMALLEST, loc="lower right")
    figure.alt_text = f"Losses at the end over the learning rate. {'; '.join(told)}."
    return figure


def schedule_curve(rates: Sequence[float]) -> Figure:
    """A learning rate over the steps."""
    peak = int(np.argmax(rates))
    figure = new_figure(
        5.5,
        2.2,
        f"The learning rate over {len(rates)} steps: a line up to its peak at step {peak}, then half a cosine.",
    )
    axes = figure.subplots()
    axes.plot(rates, color=INK)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    axes.grid(alpha=0.3)
    return figure


def strengths(gradient: torch.Tensor, step: torch.Tensor) -> Figure:
    """The singular values of a gradient and of the step that Muon makes of it, each divided by its largest."""
    before, after = (torch.linalg.svdvals(matrix.float()).numpy() for matrix in (gradient, step))
    figure = new_figure(
        5.5,
        2.4,
        f"The {len(before)} singular values of a gradient and of Muon's step, sorted, in parts of the largest. Half of "
        f"the gradient's are below {np.median(before) / before[0]:.2f}; of the step's, half are above "
        f"{np.median(after) / after[0]:.2f}.",
    )
    axes = figure.subplots()
    axes.plot(before / before[0], color=GREY, label="the gradient")
    axes.plot(after / after[0], color=INK, label="Muon's step")
    axes.set(xlabel="direction, sorted", ylabel="strength", ylim=(0, 1.05))
    axes.legend(fontsize=SMALLEST)
    return figure


def recalls(labels: torch.Tensor, guesses: torch.Tensor, class_names: Sequence[str]) -> Figure:
    """The share of each class's clips that were recognised, with the number of clips."""
    counts = torch.bincount(labels, minlength=len(class_names))
    right = torch.bincount(labels[guesses == labels], minlength=len(class_names))
    shares = (right / counts.clamp(min=1)).tolist()
    told = ", ".join(f"{name} {share:.2f}" for name, share in zip(class_names, shares))
    figure = new_figure(6.2, 0.9 + 0.26 * len(class_names), f"Recall of each class: {told}.")
    axes, places = figure.subplots(), np.arange(len(class_names))
    axes.barh(places, shares, color=GREY)
    for place, share, hits, count in zip(places, shares, right.tolist(), counts.tolist()):
        inside = share > 0.3
        axes.text(
            share + (-0.01 if inside else 0.01),
            place,
            f"{hits} of {count}",
            ha="right" if inside else "left",
            va="center",
            fontsize=SMALLEST,
            color="white" if inside else INK,
        )
    axes.set(xlim=(0, 1), ylim=(len(class_names) - 0.5, -0.5), xlabel="recall: share of the class that is recognised")
    axes.set_yticks(places, class_names)
    return figure


def clip_rows(clips: torch.Tensor, titles: Sequence[str], slices: int = 7) -> Figure:
    """Clips uint8 [B, C, T, H, W] below each other, each as a row of evenly spaced slices."""
    frames = np.linspace(0, clips.shape[2] - 1, slices + 2).round().astype(int)[1:-1]
    figure = new_figure(
        1.0 * slices + 1.6, 1.02 * len(clips) + 0.3, f"{len(clips)} clips as rows of slices: {'; '.join(titles)}."
    )
    figure.get_layout_engine().set(h_pad=0.02, w_pad=0.02, hspace=0, wspace=0)
    if not len(clips):
        figure.text(0.5, 0.5, "there is no such clip", ha="center")
        return figure
    panels = figure.subplots(len(clips), slices, squeeze=False)
    for line, clip, title in zip(panels, clips.float().mean(dim=1).numpy(), titles):
        for axes, frame in zip(line, frames):
            axes.imshow(clip[frame], cmap="gray", vmin=0, vmax=255)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(title, fontsize=SMALLEST, rotation=0, ha="right", va="center")
    for axes, frame in zip(panels[0], frames):
        axes.set_title(f"slice {frame}", fontsize=SMALLEST)
    return figure


def differences(found: torch.Tensor, low: float, high: float) -> Figure:
    """A histogram of paired differences [draws], with the interval from low to high."""
    figure = new_figure(
        5.6, 2.4, f"A histogram of {len(found)} differences in accuracy; 95 % lie between {low:+.3f} and {high:+.3f}."
    )
    axes = figure.subplots()
    axes.hist(found.numpy(), bins=41, color=GREY, alpha=0.6)
    axes.axvspan(low, high, color=INK, alpha=0.12, label="95 % of the draws")
    axes.axvline(0, color=RED, linewidth=1.5, label="no difference")
    axes.set(xlabel="accuracy of the one minus accuracy of the other", ylabel="draws")
    axes.legend(fontsize=SMALLEST)
    return figure


def tried_recipes(content: Mapping[str, Any], spread: Sequence[float]) -> Figure:
    """The recipes of the first search that were tried on both data sets: accuracy on the phantom, AUC on Adrenal.

    content: tried_recipes.json. spread: the phantom's accuracies of one recipe with several seeds, drawn as a band.
    """
    rows = [row for row in content["searches"][0]["rows"] if "phantom" in row and "adrenal" in row]
    low, high = min(spread), max(spread)
    figure = new_figure(
        6.2,
        3.6,
        f"{len(rows)} recipes as dots: accuracy on the phantom's validation split from "
        f"{min(row['phantom']['acc'] for row in rows):.2f} to {max(row['phantom']['acc'] for row in rows):.2f}, AUC on "
        f"a third of AdrenalMNIST3D. A band shows the {len(spread)} seeds of a single recipe, {low:.3f} to {high:.3f}: "
        f"{sum(low <= row['phantom']['acc'] <= high for row in rows)} of the dots lie in it.",
    )
    axes = figure.subplots()
    axes.axvspan(low, high, color=GREY, alpha=0.2, label=f"one recipe, {len(spread)} seeds")
    for tokens, marker, filled in ((64, "o", False), (343, "s", True)):
        chosen = [row for row in rows if row["tokens"] == tokens]
        axes.plot(
            [row["phantom"]["acc"] for row in chosen],
            [row["adrenal"][0]["auc"] for row in chosen],
            marker,
            color=INK,
            markerfacecolor=INK if filled else "none",
            label=f"one seed, {tokens} tokens",
        )
    axes.set(xlabel="phantom: validation accuracy", ylabel="AdrenalMNIST3D: AUC")
    axes.legend(fontsize=SMALLEST)
    axes.grid(alpha=0.3)
    return figure


def seeds_figure(tables: Mapping[str, Mapping[str, Any]], shown: Mapping[str, str]) -> Figure:
    """Every seed of every recorded recipe as a dot, one panel for each data set. shown: {data set: "acc" or "auc"}."""
    words = {"acc": "accuracy", "auc": "AUC"}
    told = "; ".join(f"{name}: {words[shown[name]]}" for name in tables)
    figure = new_figure(9, 2.4, f"Dot plots of {len(tables)} data sets: each seed of each recipe, on the test. {told}.")
    for axes, (name, table) in zip(figure.subplots(1, len(tables), sharey=True), tables.items()):
        for place, row in enumerate(table["rows"]):
            runs = row["test"][shown[name]]["runs"]
            axes.plot(runs, [place] * len(runs), "o", color=MODEL_COLOURS.get(row["recipe"]["model"], INK), alpha=0.6)
        axes.set(title=name, xlabel=f"test {words[shown[name]]}", ylim=(len(table["rows"]) - 0.5, -0.5))
        axes.set_yticks(range(len(table["rows"])), [row["row"] for row in table["rows"]])
        axes.grid(alpha=0.3)
    return figure


def optimiser_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Left: the validation loss of the short runs at each learning rate; right: the training loss of each seed at the
    rate that was chosen. rows: those of the recorded table of optimisers."""
    figure = new_figure(9, 2.8)
    left, right = figure.subplots(1, 2)
    told = []
    for row, (colour, line) in zip(rows, ((INK, "-"), (RED, "--"))):
        tried, name = row["rates"], row["row"]
        there = [(rate, loss) for rate, loss in zip(tried["lr"], tried["val_loss"]) if loss is not None]
        left.plot(*zip(*there), line, color=colour, marker="o", markersize=4, label=name)
        best = chosen_rate(row)
        for seed, losses in enumerate(row["history"]["loss"]):
            label = f"{name}, lr {best:g}" if seed == 0 else None
            right.plot(range(1, len(losses) + 1), losses, line, color=colour, linewidth=1, label=label)
        ends = ", ".join(f"{losses[-1]:.2f}" for losses in row["history"]["loss"])
        told.append(f"{name}: lowest validation loss at a rate of {best:g}; training loss ends at {ends}")
    left.set(xscale="log", xlabel="learning rate", ylabel=f"validation loss, {tried['epochs']} epochs", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    for axes in (left, right):
        axes.legend(fontsize=SMALLEST)
        axes.grid(alpha=0.3)
    figure.alt_text = f"Two optimisers at several learning rates, and their runs at the best one. {'. '.join(told)}."
    return figure


# ---- the page of tried recipes


def tried_page(content: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """The markdown of notebooks/results/tried_recipes.md. content: tried_recipes.json. tables: {file name: recorded
    table} of the files that it names."""
    lines = [
        f"# {content['title']}",
        "",
        "Made from [`tried_recipes.json`](tried_recipes.json) by `vivit_edu.course.run_figures.tried_page`.",
        "",
        f"Source: {content['source']} Seeds: {content['seeds']}. Unless a row says otherwise: {content['defaults']}.",
    ]
    for search in content["searches"]:
        lines += ["", f"## {search['title']}", "", f"Judged on: {search['judged_on']}", ""]
        lines += [
            "| tried | tokens | epochs | phantom: accuracy, loss | Adrenal: AUC, loss | Adrenal, second third |",
            "|---|---|---|---|---|---|",
        ]
        lines += [tried_row(row) for row in search["rows"]]
    lines += recorded_search(content["recorded_search"], tables)
    lines += [
        "",
        "## What became of them",
        "",
        "Three of these recipes were run again with five seeds each, and those runs are recorded (validation / test):",
        "",
        "| recipe | data set | accuracy | AUC | file |",
        "|---|---|---|---|---|",
    ]
    for named in content["recorded"]:
        table = tables[named["file"]]
        row = next(row for row in table["rows"] if row["row"] == named["row"])
        told = [
            " / ".join(f"{row[split][key]['mean']:.3f} ± {row[split][key]['sd']:.3f}" for split in ("val", "test"))
            for key in ("acc", "auc")
        ]
        lines.append(
            f"| {named['row']} | {table['dataset']} | {' | '.join(told)} | [`{named['file']}`]({named['file']}) |"
        )
    return "\n".join(lines) + "\n"


def recorded_search(search: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The lines of a search whose runs are recorded. search: {"title", "judged_on", "files": {head of a column: (file,
    "acc" or "auc")}}; the files have the same rows."""
    lines = ["", f"## {search['title']}", "", f"Judged on: {search['judged_on']} Made by:", ""]
    lines += [f"    {tables[name]['command']}" for name, _ in search["files"].values()]
    lines += ["", f"| tried | {' | '.join(search['files'])} |", f"|{'---|' * (1 + len(search['files']))}"]
    columns = [(tables[name]["rows"], key) for name, key in search["files"].values()]
    for rows in zip(*(rows for rows, _ in columns), strict=True):
        told = [", ".join(f"{value:.3f}" for value in row["test"][key]["runs"]) for row, (_, key) in zip(rows, columns)]
        lines.append(f"| {rows[0]['row']} | {' | '.join(told)} |")
    return lines


def tried_row(row: Mapping[str, Any]) -> str:
    """A row of the page's tables."""
    phantom = row.get("phantom")
    cells = [
        row["what"] + (f" ({row['note']})" if "note" in row else ""),
        str(row["tokens"]),
        str(row["epochs"]) + (f" (Adrenal {row['epochs_adrenal']})" if "epochs_adrenal" in row else ""),
        f"{phantom['acc']:.3f}, {phantom['loss']:.2f}" if phantom else "",
        " and ".join(f"{run['auc']:.3f}, {run['loss']:.3f}" for run in row.get("adrenal", ())),
        "{auc:.3f}, {loss:.3f}".format(**row["adrenal_second_third"]) if "adrenal_second_third" in row else "",
    ]
    return f"| {' | '.join(cells)} |"
