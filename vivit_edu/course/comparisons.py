"""Figures of chapter 14: models side by side, with their seeds, from recorded tables and live measurements.

ViViTs are blue, CNNs orange, in all of them; the content of a table is what `ablate.run_table` returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models import is_vivit
from ..plots import BLUE, ORANGE, new_figure
from .recorded import mean_sd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RecordedTable = dict[str, Any]

MARKS = "os^Dv<>Pp"


def model_colour(name: str) -> str:
    """The colour of a model's dots and lines, by its name."""
    return BLUE if is_vivit(name) else ORANGE


def side_by_side(
    tables: list[RecordedTable], figures: Sequence[str] = ("acc", "auc"), lines: dict[str, float] | None = None
) -> Figure:
    """All models of several tables: a column for each data set, a row for each figure; small dots are single seeds.

    figures: "acc", "balanced_acc" or "auc". lines: {data set: the accuracy of always naming the commonest class},
    drawn dashed.
    """
    first = tables[0]["rows"]
    best = {
        table["dataset"]: max(table["rows"], key=lambda row: row["test"][figures[-1]]["mean"])["row"]
        for table in tables
    }
    told = "; ".join(f"{name}: best is {row}" for name, row in best.items())
    figure = new_figure(
        3.3 * len(tables) + 1.6,
        3.1 * len(figures),
        f"Dot plots of {len(first)} models on {len(tables)} data sets, test split, mean and single seeds. "
        f"By {figures[-1]}, {told}.",
    )
    grid = figure.subplots(len(figures), len(tables), squeeze=False, sharey=True)
    names = {"acc": "accuracy", "balanced_acc": "balanced accuracy", "auc": "AUC"}
    for column, table in zip(grid.T, tables):
        for axes, name in zip(column, figures):
            for place, row in enumerate(table["rows"]):
                runs = row["test"][name]["runs"]
                axes.plot(runs, [place] * len(runs), ".", color=model_colour(row["row"]), alpha=0.5, markersize=5)
                axes.plot(row["test"][name]["mean"], place, "o", color=model_colour(row["row"]))
            if name == "acc" and lines and table["dataset"] in lines:
                axes.axvline(lines[table["dataset"]], color="black", linestyle="--", linewidth=1)
            axes.set(
                title=f"{table['dataset']}\n{names[name]}, {table['epochs']} epochs", ylim=(len(first) - 0.5, -0.5)
            )
            axes.set_yticks(range(len(first)), [row["row"] for row in first])
            axes.grid(alpha=0.3)
    return figure


def probe_map(table: RecordedTable, probes: Sequence[str]) -> Figure:
    """What the models of a table answer to changed clips, in per cent, mean over the seeds.

    There is a row for each model and a column for each probe.
    """
    values = 100 * np.array([[row["probes"][name]["mean"] for name in probes] for row in table["rows"]])
    rows = "; ".join(f"{row['row']}: {', '.join(f'{v:.0f}' for v in line)}" for row, line in zip(table["rows"], values))
    figure = new_figure(
        2.6 + 0.95 * len(probes),
        0.9 + 0.36 * len(values),
        f"A table of per cent on {table['dataset']}, columns {', '.join(probes)}. {rows}.",
    )
    axes = figure.subplots()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=130, aspect="auto")
    for place in np.ndindex(*values.shape):
        axes.text(place[1], place[0], f"{values[place]:.0f}", ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(probes)), [name.replace(", ", ",\n") for name in probes])
    axes.set_yticks(range(len(values)), [row["row"] for row in table["rows"]])
    axes.xaxis.tick_top()
    axes.set_title(f"{table['dataset']}, test split, per cent", fontsize=9)
    return figure


def growth_figure(frames: Sequence[int], measured: dict[str, Sequence[float]], label: str) -> Figure:
    """What grows with a clip's frames, on logarithmic axes: measured is {model: a value for each of `frames`}."""
    told = "; ".join(f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in measured.items())
    figure = new_figure(7, 3.6, f"{label} over {frames[0]} to {frames[-1]} frames, both axes logarithmic: {told}.")
    axes = figure.subplots()
    for (name, values), mark in zip(measured.items(), MARKS):
        axes.plot(
            frames,
            values,
            marker=mark,
            color=model_colour(name.split(",")[0]),
            label=name,
            linestyle="--" if "," in name else "-",
        )
    axes.set(xscale="log", yscale="log", xlabel="frames of a clip", ylabel=label)
    axes.set_xticks(frames, frames)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right", fontsize=9)
    return figure


def hunger_figure(table: RecordedTable, figures: Sequence[str] = ("acc", "auc")) -> Figure:
    """Test accuracy and AUC over the share of the training patients: a line for each model, bars of one sd."""
    found = {}
    for row in table["rows"]:
        percent, name = row["row"].split(" %, ")
        found.setdefault(name, []).append((int(percent), row["test"]))
    told = "; ".join(
        f"{name}: {', '.join(f'{p} % {mean_sd(test[figures[0]])}' for p, test in points)}"
        for name, points in found.items()
    )
    figure = new_figure(
        9, 3.4, f"Test accuracy and AUC on {table['dataset']} over the share of training patients. Accuracy: {told}."
    )
    names = {"acc": "accuracy", "auc": "AUC"}
    for axes, which in zip(figure.subplots(1, len(figures)), figures):
        for (name, points), mark in zip(found.items(), MARKS):
            axes.errorbar(
                [p for p, _ in points],
                [test[which]["mean"] for _, test in points],
                yerr=[test[which]["sd"] or 0 for _, test in points],
                marker=mark,
                color=model_colour(name),
                capsize=3,
                label=name,
                linestyle="-" if name in ("spacetime", "cnn3d") else "--",
            )
        axes.set(xscale="log", xlabel="per cent of the training patients", ylabel=names[which])
        axes.set_xticks([p for p, _ in points], [p for p, _ in points])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure
