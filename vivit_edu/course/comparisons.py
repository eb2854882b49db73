"""Figures of chapter 14: models side by side, with their seeds, from recorded tables and live measurements.

Models 1 to 4 have their colours and numbers, and CNNs are grey, in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..cost import PAPER
from ..plots import DASHES, GREY, MODEL_COLOURS, SMALLEST, new_figure
from .recorded import chosen_rate, mean_sd, split_name

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

MARKS = "os^Dv<>PphX"
SCORES = {"acc": "accuracy", "balanced_acc": "balanced", "auc": "AUC"}  # as records call them, and in words


def colour_of(name: str) -> str:
    """The colour of a model's dots and lines, by its name; what follows a comma is ignored."""
    return MODEL_COLOURS.get(name.split(",")[0], GREY)


def title_of(name: str) -> str:
    """A model as figures name it: "Model 1" to "Model 4", and CNNs by their names; what follows a comma is kept."""
    model, comma, rest = name.partition(",")
    return (f"Model {list(PAPER).index(model) + 1}" if model in PAPER else model) + comma + rest


def small_multiples(
    runs: Mapping[str, Mapping[str, Sequence[float]]], *, chance: Mapping[str, float] | None = None, columns: int = 4
) -> Figure:
    """A panel for each set of results, a line for each model of the first: a small dot for each seed, a large one for
    the mean, and a bar of one standard deviation to each side. All panels have the order of the first, from the highest
    mean to the lowest.

    runs: {title of a panel: {model: its figure with each seed}}; a model that a panel lacks has no dot there. chance:
    {title: where a dashed line stands}.
    """
    first = next(iter(runs.values()))
    names = sorted(first, key=lambda name: np.mean(first[name]), reverse=True)
    told = "; ".join(
        f"{title}: {', '.join(f'{title_of(name)} {np.mean(models[name]):.2f}' for name in names if name in models)}"
        for title, models in runs.items()
    )
    columns = min(columns, len(runs))
    lines = -(-len(runs) // columns)
    alt = f"Dot plots of each model, Models 1 to 4 in their colours, CNNs grey. {told}."
    figure = new_figure(1.3 + 2.1 * columns, 0.2 + lines * (0.6 + 0.2 * len(names)), alt)
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    for (title, models), axes in zip(runs.items(), panels):
        for place, name in enumerate(names):
            if name in models:
                draw_runs(axes, models[name], place, colour_of(name))
        if chance and title in chance:
            axes.axvline(chance[title], color="black", linestyle="--", linewidth=1)
        axes.set_title(title, fontsize=SMALLEST + 1)
        axes.tick_params(labelbottom=True)
        axes.set_yticks(range(len(names)), [title_of(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(alpha=0.3)
    for axes in panels:  # those that are left over
        axes.remove()
    return figure


def draw_runs(axes: Axes, values: Sequence[float], place: float, colour: str) -> None:
    """A model's line in a dot plot, at a height: a dot for each run, and their mean with its standard deviation."""
    axes.plot(values, [place] * len(values), ".", color=colour, alpha=0.5)
    axes.errorbar(np.mean(values), place, xerr=sd_of(values), fmt="o", color=colour, capsize=3, markersize=5)


def sd_of(values: Sequence[float]) -> float:
    """The standard deviation with n - 1 below the sum; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def by_model(table: dict) -> dict[str, dict]:
    """The rows of a table with one row for each model, by the model's name, in the order of `MODELS`."""
    from ..models import MODELS

    rows = {row["row"]: row for row in table["rows"]}
    return {name: rows[name] for name in MODELS if name in rows}


def scores_in_words(models: Mapping[str, Mapping[str, dict]], by: Mapping[str, str]) -> str:
    """A line for each model of each set of results, sorted by a mean score on validation data: the learning rate that
    was chosen, that score, and on the test split accuracy, balanced accuracy and AUC, each as mean ± standard deviation
    over the runs.

    models: {title of a set: {model: its row of the table `plateau`}}. by: {title: one of SCORES}.
    """
    lines = []
    for title, rows in models.items():
        for name in sorted(rows, key=lambda name: -rows[name]["val"][by[title]]["mean"]):
            row, val = rows[name], f"validation {SCORES[by[title]]} {mean_sd(rows[name]['val'][by[title]])}"
            test = ", ".join(f"{part} {mean_sd(row['test'][key])}" for key, part in SCORES.items())
            lines.append(f"{title:14} {name:25} rate {chosen_rate(row):.0e}  {val}   test {test}")
    return "\n".join(lines)


def every_run(rows: Mapping[str, dict], levels: Sequence[float]) -> Figure:
    """A panel for each model: the validation accuracy of each of its runs after each epoch, with a dot at the epoch
    whose weights are kept, and dashed lines at the levels.

    rows: {model: its row of the table `plateau`}.
    """
    columns = 4
    lines = -(-len(rows) // columns)
    kept = {
        name: [(run["best_epoch"], curve[run["best_epoch"] - 1]) for run, curve in zip(row["plateau"], curves)]
        for name, row in rows.items()
        for curves in [row["history"]["val_acc"]]
    }
    told = "; ".join(
        f"{title_of(name)} {', '.join(f'{accuracy:.2f} at {epoch}' for epoch, accuracy in runs)}"
        for name, runs in kept.items()
    )
    figure = new_figure(9.6, 1.7 * lines, f"Validation accuracy over the epochs, kept weights of each run: {told}.")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flat
    for (name, row), axes in zip(rows.items(), panels):
        for curve, (epoch, accuracy) in zip(row["history"]["val_acc"], kept[name]):
            axes.plot(range(1, len(curve) + 1), curve, color=colour_of(name), linewidth=1)
            axes.plot(epoch, accuracy, "o", color=colour_of(name), markersize=5)
        for level in levels:
            axes.axhline(level, color="black", linestyle="--", linewidth=0.8)
        axes.set(ylim=(0, 1.03))
        axes.set_title(title_of(name), fontsize=SMALLEST)
        axes.grid(alpha=0.3)
    for axes in panels:  # those that are left over
        axes.remove()
    figure.supxlabel("epoch", fontsize=SMALLEST)
    figure.supylabel("validation accuracy", fontsize=SMALLEST)
    return figure


def in_hand(row: dict) -> tuple[np.ndarray, float]:
    """What training to a plateau has given after each epoch, and what a step costs: (curves, processor seconds).

    row: of the table `plateau`. curves: a line for each run, [runs, epochs of the longest]: the validation accuracy of
    the epoch with the lowest validation loss so far, which is what a run would keep if it stopped there; runs that have
    stopped stay where they are.
    """
    history, length = row["history"], max(map(len, row["history"]["val_loss"]))
    kept = []
    for losses, accuracies in zip(history["val_loss"], history["val_acc"]):
        best = [int(np.argmin(losses[: epoch + 1])) for epoch in range(len(losses))]
        curve = [accuracies[epoch] for epoch in best]
        kept.append(curve + curve[-1:] * (length - len(curve)))
    steps = row["plateau"][0]["steps_an_epoch"]
    seconds = [run[-1] / (len(run) * steps) for run in history["processor_seconds"]]
    return np.array(kept), float(np.median(seconds))


def over_steps_and_seconds(models: Mapping[str, tuple[np.ndarray, float]], *, steps: int) -> Figure:
    """Validation accuracy of several models, means over their runs, on the left over steps and on the right over
    processor seconds.

    models: {model: what `in_hand` returns}. steps: in an epoch.
    """
    means = {name: np.mean(curves, axis=0) for name, (curves, _) in models.items()}
    told = "; ".join(f"{title_of(name)} from {curve[0]:.2f} to {curve[-1]:.2f}" for name, curve in means.items())
    figure = new_figure(9.6, 3.7, f"Validation accuracy over steps and over seconds. {told}.")
    left, right = figure.subplots(1, 2, sharey=True)
    greys = [name for name in means if colour_of(name) == GREY]  # told apart by their lines
    for k, (name, curve) in enumerate(means.items()):
        x = np.arange(1, len(curve) + 1) * steps
        every = max(1, len(curve) // 6)
        style = {
            "color": colour_of(name),
            "marker": MARKS[k],
            "markevery": every,
            "markersize": 5,
            "linewidth": 1.2,
            "linestyle": DASHES[greys.index(name) % len(DASHES)] if name in greys else "-",
        }
        left.plot(x, curve, label=title_of(name), **style)
        right.plot(x * models[name][1], curve, **style)
    left.set(xlabel="training steps", ylabel="validation accuracy", ylim=(0, 1))
    right.set(xlabel="processor seconds, logarithmic", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right", fontsize=SMALLEST)
    return figure


def by_share(table: dict) -> dict[str, dict[int, list[float]]]:
    """The test accuracies in a record of shares of the patients: {what was trained: {per cent: of each seed}}.

    table: its rows are called "5 %, spacetime" or "100 %, nothing pretrained".
    """
    found: dict[str, dict[int, list[float]]] = {}
    for row in table["rows"]:
        share, what = split_name(row["row"])
        found.setdefault(what, {})[share] = row["test"]["acc"]["runs"]
    return found


def over_shares(panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]) -> Figure:
    """What models reach with more and more of the training patients: a panel for each set of results, in it a line for
    each model, with bars of one standard deviation to each side, dashed where its name ends in "from nothing".

    panels: {title: {model: {per cent of the patients: its test accuracy with each seed}}}.
    """
    told = ". ".join(
        f"{title}: "
        + "; ".join(
            f"{title_of(name)} {', '.join(f'{share} % {np.mean(runs):.2f}' for share, runs in found.items())}"
            for name, found in models.items()
        )
        for title, models in panels.items()
    )
    shares = sorted({share for models in panels.values() for found in models.values() for share in found})
    marks = dict(zip(dict.fromkeys(name.split(",")[0] for models in panels.values() for name in models), MARKS))
    figure = new_figure(9.6, 3.9, f"Test accuracy over the share of the training patients. {told}.")
    for axes, (title, models) in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()):
        for name, found in models.items():
            axes.errorbar(
                list(found),
                [np.mean(runs) for runs in found.values()],
                yerr=[sd_of(runs) for runs in found.values()],
                fmt=marks[name.split(",")[0]],
                linestyle="--" if name.endswith("from nothing") else "-",
                color=colour_of(name),
                label=title_of(name),
                capsize=3,
            )
        axes.set(xscale="log", xlabel="% of the training patients, logarithmic", ylim=(0, 1))
        axes.set_title(title, fontsize=SMALLEST + 1)
        axes.set_xticks(shares, shares)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", fontsize=SMALLEST)
    figure.axes[0].set_ylabel("test accuracy")
    return figure


def growth_figure(frames: Sequence[int], measured: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """What grows with a clip's frames, on logarithmic axes: measured is {label of a panel: {model: a value for each
    of `frames`}}."""
    told = ". ".join(
        f"{label}: "
        + "; ".join(f"{title_of(name)} grows {values[-1] / values[0]:.1f} times" for name, values in models.items())
        for label, models in measured.items()
    )
    figure = new_figure(9.6, 3.7, f"From {frames[0]} to {frames[-1]} frames. {told}.")
    for axes, (label, models) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured.items()):
        for (name, values), mark in zip(models.items(), MARKS):
            line = "--" if "," in name else "-"
            axes.plot(frames, values, marker=mark, color=colour_of(name), label=title_of(name), linestyle=line)
        axes.set(xscale="log", yscale="log", xlabel="frames of a clip", ylabel=label)
        axes.set_xticks(frames, frames)
        ends = [value for values in models.values() for value in values]
        round_values = [n * 10.0**k for k in range(-3, 6) for n in (1, 2, 5)]
        shown = [value for value in round_values if min(ends) / 1.5 < value < max(ends) * 1.5]
        axes.set_yticks(shown, [f"{value:g}" for value in shown])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right", fontsize=SMALLEST)
    return figure


def by_side(answers: torch.Tensor, labels: torch.Tensor, permutation: Sequence[int]) -> str:
    """How right answers [B] are for classes without a side and with one, and how many of the latter are the other side.

    labels: int64 [B]. permutation: of the classes in a mirror.
    """
    import torch

    other = torch.tensor(permutation)[labels]
    right, sided = answers == labels, other != labels
    kinds = {"right (no side)": right[~sided], "right (with a side)": right[sided]}
    kinds["named as the other side"] = (answers == other)[sided]
    return "; ".join(f"{kind} {hits.float().mean():.2f}" for kind, hits in kinds.items() if len(hits))


def flops_of(name: str, clip_shape: tuple[int, int, int, int], **options: object) -> int:
    """FLOPs of one clip of shape (C, T, H, W) in a model of this name, which is never built in full: its weights have
    shapes and no numbers. options: as for `build_model`."""
    import torch

    from ..cost import count_flops
    from ..models import build_model

    with torch.device("meta"):
        model = build_model(name, clip_shape=clip_shape, **options)
    return count_flops(model, clip_shape)


def video_strip(clips: torch.Tensor, names: Sequence[str], frames: int = 6) -> Figure:
    """Some frames of uint8 clips [B, 3, T, H, W], one clip per line. names: of their classes."""
    figure = new_figure(1.5 * frames, 1.6 * len(clips), f"Frames of {len(clips)} videos: {', '.join(names)}.")
    places = np.linspace(0, clips.shape[2] - 1, frames).round().astype(int)
    for line, clip, name in zip(figure.subplots(len(clips), frames, squeeze=False), clips, names):
        for axes, place in zip(line, places):
            draw_frame(axes, clip[:, place])
        line[0].set_ylabel(name, fontsize=SMALLEST)
    return figure


def draw_frame(axes: Axes, frame: torch.Tensor) -> None:
    """A frame uint8 [3, H, W] as a picture without ticks."""
    axes.imshow(frame.permute(1, 2, 0).numpy())
    axes.set(xticks=[], yticks=[])


def train_on(
    model: nn.Module, clips: torch.Tensor, labels: torch.Tensor, batches: torch.Tensor, *, lr: float
) -> nn.Module:
    """Trains a model in place, one step of AdamW for each batch; afterwards it is in eval mode.

    clips: float [N, C, T, H, W]. labels: int64 [N]. batches: indices of clips [steps, batch]. lr: of all
    steps. Returns the model.
    """
    import torch
    import torch.nn.functional as F

    optimiser = torch.optim.AdamW(model.parameters(), lr=lr)
    model.train()
    for batch in batches:
        loss = F.cross_entropy(model(clips[batch]), labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()
