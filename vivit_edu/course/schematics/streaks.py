"""Chapter 01: a video and a volume cut three ways, near copies among slices, reflections, and the scores of groups of
patients and of winners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...plots import BLUE, GREY, ORANGE, new_figure

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR_OF_AXIS = {"T": ORANGE, "H": BLUE, "W": BLUE}  # time orange, space blue
LETTER_R = ("11110", "10001", "10001", "11110", "10100", "10010", "10001")


def _picture(axes: Axes, picture: torch.Tensor | np.ndarray, title: str = "", *, high: float | None = 255) -> None:
    axes.imshow(np.asarray(picture), cmap="gray", vmin=None if high is None else 0, vmax=high)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=10)


def frames_in_rows(clips: Mapping[str, torch.Tensor], count: int = 7) -> Figure:
    """Clips [1, T, H, W] by name, each as a row of `count` frames, the first on the left."""
    figure = new_figure(1.25 * count + 1, 1.45 * len(clips))
    figure.alt_text = f"Rows of {count} frames, the first on the left and the last on the right: {', '.join(clips)}."
    for row, (name, clip) in zip(figure.subplots(len(clips), count, squeeze=False), clips.items()):
        for axes, t in zip(row, np.linspace(0, clip.shape[1] - 1, count).round().astype(int)):
            _picture(axes, clip[0, t], f"t = {t}")
        row[0].set_ylabel(name.replace(": ", ":\n"), rotation=0, ha="right", va="center", fontsize=10)
    return figure


def three_cuts(clips: Mapping[str, torch.Tensor]) -> Figure:
    """Clips [1, T, H, W] by name, each cut across T, H and W where most changes along T, not far from the middle."""
    figure = new_figure(6.6, 2.1 * len(clips))
    figure.alt_text = (
        f"{' and '.join(clips)}, each cut three ways: height and width, time and width, time and height. The "
        "video's cuts along time are streaks, those of the volume are pictures of the body like any other."
    )
    for row, (name, clip) in zip(figure.subplots(len(clips), 3, squeeze=False), clips.items()):
        change = clip[0].float().std(dim=0)  # [H, W]
        inner = [slice(side // 4, 3 * side // 4) for side in change.shape]  # cuts near the middle
        h, w = (inner[k].start + int(change.mean(dim=1 - k)[inner[k]].argmax()) for k in (0, 1))
        middle = clip.shape[1] // 2
        cuts = ((clip[0, middle], "H", "W"), (clip[0, :, h], "T", "W"), (clip[0, :, :, w], "T", "H"))
        for axes, (picture, down, across) in zip(row, cuts):
            _picture(axes, picture)
            axes.set_ylabel(f"{down} ↓", color=COLOUR_OF_AXIS[down], fontsize=11, rotation=0, labelpad=12)
            axes.set_xlabel(f"{across} →", color=COLOUR_OF_AXIS[across], fontsize=11)
        row[0].set_title(name, fontsize=10, loc="left")
        row[1].set_title(f"at height {h}", fontsize=10)
        row[2].set_title(f"at width {w}", fontsize=10)
    return figure


def near_copies(
    slices: torch.Tensor,
    labels: torch.Tensor,
    patients: torch.Tensor,
    held: Mapping[str, torch.Tensor],
    names: Sequence[str],
    examples: Sequence[Sequence[int]] = ((388, 1843), (194, 485)),
) -> Figure:
    """Held-out slices and the nearest one that is not held out, for each way of holding out.

    slices: [N, side · side], ten of each volume; labels, patients: [N]; held: {way: bool [N]}; examples: for each way,
    which of the held-out slices are shown.
    """
    import torch

    figure = new_figure(8.6, 2.35 * len(held))
    side, said = int(slices.shape[1] ** 0.5), []
    for part, (way, mask), which in zip(np.atleast_1d(figure.subfigures(len(held), 1)), held.items(), examples):
        out, seen = mask.nonzero()[:, 0], (~mask).nonzero()[:, 0]
        found = seen[torch.cdist(slices[out], slices[seen]).argmin(dim=1)]
        same, right = found // 10 == out // 10, (labels[found] == labels[out]).double()
        title = f"held out {way}: the nearest slice is of the same volume in {same.double().mean():.0%} of cases"
        title += f" (right in the others: {right[~same].mean():.0%})"
        part.suptitle(title, fontsize=10)
        said.append(title)
        which = [min(k, len(out) - 1) for k in which]
        shown, nearest = out[which], found[which]
        for k, axes in enumerate(part.subplots(1, 2 * len(shown))):
            index = int((shown, nearest)[k % 2][k // 2])
            what = ("held out", "nearest one seen")[k % 2]
            text = f"{what}:\n{names[int(labels[index])]}, patient {int(patients[index])},\nslice {3 * (index % 10)}"
            _picture(axes, slices[index].view(side, side), text, high=None)
            said.append(text.replace("\n", " "))
    figure.alt_text = f"Held-out slices and the nearest one seen, in turn. {'; '.join(said)}."
    return figure


def reflections(volume: torch.Tensor, name: str) -> Figure:
    """A letter and a view from the front: as it is, flipped along W, that turned by 180°, flipped along T.

    volume: a mean volume [C, T, H, W].
    """
    letter = np.array([[int(bit) for bit in row] for row in LETTER_R])
    letter = np.kron(np.pad(letter, 1), np.ones((4, 4)))
    view = volume[0, :, volume.shape[2] // 2].numpy()  # [T, W]
    figure = new_figure(8.4, 4.1)
    figure.alt_text = (
        f"A letter R and a {' '.join(name.split())}, seen from the front: as they are, flipped along W, that turned by "
        "180 degrees, and flipped along T. The last two are the same picture, a mirror image upside down."
    )
    grid = figure.subplots(2, 4)
    titles = ("as it is", "flipped along W", "… then turned by 180°", "flipped along T")
    for row, picture, label in zip(grid, (letter, view), ("a letter", name)):
        flipped = picture[:, ::-1]
        for axes, shown, title in zip(row, (picture, flipped, np.rot90(flipped, 2), picture[::-1]), titles):
            _picture(axes, shown, title if picture is letter else "", high=None)
            axes.set_xlabel("W →", color=BLUE, fontsize=9)
            axes.set_ylabel("T ↓", color=ORANGE, fontsize=9, rotation=0, labelpad=10)
        row[0].annotate(label, (-0.42, 0.5), xycoords="axes fraction", ha="right", va="center", fontsize=10)
        row[3].annotate("=", (-0.36, 0.5), xycoords="axes fraction", ha="center", va="center", fontsize=18)
    return figure


def groups_of_scores(
    scores: Mapping[str, Sequence[float]], label: str, mark: tuple[str, float] | None = None
) -> Figure:
    """Scores of the same groups of patients under several ways, a dot for each group and a bar at their mean.

    mark: a text and a score that is drawn as a line.
    """
    figure = new_figure(7.4, 0.8 + 0.36 * len(scores))
    said = "; ".join(f"{way} {np.mean(found):.2f}" for way, found in scores.items())
    figure.alt_text = f"Dots of {label}, one for each group of patients, and a bar at their mean. Means: {said}."
    axes = figure.subplots()
    for k, found in enumerate(scores.values()):
        axes.plot(found, [k] * len(found), "o", color=GREY, markerfacecolor="none")
        axes.plot([np.mean(found)], [k], "|", color="black", markersize=18, markeredgewidth=2.5)
    if mark:
        axes.axvline(mark[1], color="black", linestyle=":")
        axes.annotate(
            mark[0], (mark[1], 1.02), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=9
        )
    axes.set(ylim=(len(scores) - 0.5, -0.5), xlabel=label)
    axes.set_yticks(range(len(scores)), [*scores])
    axes.grid(axis="x", alpha=0.3)
    return figure


def winners(seen: Sequence[float], fresh: Sequence[float], average: float) -> Figure:
    """The winner's accuracy on the patients that chose it and on others, over many choices, and the average of all."""
    figure = new_figure(8.4, 2.9)
    figure.alt_text = (
        f"Two histograms. The winner's accuracy on the patients that chose it has mean {np.mean(seen):.2f}, on others "
        f"{np.mean(fresh):.2f}; the average of all classifiers is {average:.2f}."
    )
    axes = figure.subplots()
    bins = np.arange(min(*seen, *fresh) - 0.01, max(*seen, *fresh) + 0.02, 0.01)
    axes.hist(fresh, bins, color=GREY, label="the winner on other patients")
    axes.hist(
        seen, bins, color="black", histtype="step", linewidth=1.8, label="the winner on the patients that chose it"
    )
    axes.axvline(average, color="black", linestyle=":", label="all classifiers on average")
    axes.set(xlabel="accuracy", ylabel="choices")
    figure.legend(loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure
