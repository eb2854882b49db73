"""Checks of chapter 01: balanced accuracy, nearest means, splits by patient, flips that know their labels."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...volumes import Mirror
from ..ready import ch01 as finished
from . import CheckFailed, call, close, draws, examine, exercise, pair, passed, same_shape


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@exercise
def check_balanced_accuracy(function: Callable) -> None:
    """01.1: function(guesses [N], labels [N]) -> the mean over the classes of the share found, from 0 to 1."""
    from sklearn.metrics import recall_score

    labels = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 5, 5, 5])  # of six classes, three do not occur
    guesses = torch.tensor([0, 0, 0, 0, 0, 2, 2, 0, 5, 1, 2])
    hits = guesses == labels
    recalls = torch.stack([hits[labels == k].float().mean() for k in (0, 2, 5)])
    precisions = torch.stack([hits[guesses == k].float().mean() for k in guesses.unique()])
    found = call(function, guesses, labels)
    close(
        found,
        recall_score(labels, guesses, labels=[0, 2, 5], average="macro"),
        {
            "this is plain accuracy: a frequent class still counts more than a rare one": hits.float().mean(),
            "classes without a clip count as 0 here: take the mean over the classes that the labels hold": recalls.sum()
            / 6,
            "the shares were summed, not averaged over the classes": recalls.sum(),
            "looks like precision: pick the clips by their label, not by the guess": precisions.mean(),
            "as above, precision: pick the clips by their label, not by the guess": torch.stack(
                [hits[guesses == k].float().mean() for k in (0, 2, 5)]
            ).mean(),
            "looks like a percentage: give a share from 0 to 1": 100 * recalls.mean(),
        },
        what="the balanced accuracy",
    )
    always = call(function, torch.zeros(10, dtype=torch.long), torch.tensor([0] * 9 + [1]))
    close(always, 0.5, what="the balanced accuracy of always naming one of two classes")
    more = (torch.tensor([1, 1, 3]), torch.tensor([1, 3, 3])), (torch.tensor([4]), torch.tensor([4]))
    absent = torch.tensor([0, 7, 7, 2, 2, 2]), torch.tensor([0, 0, 2, 2, 2, 2])  # class 7 is guessed, and never right
    examine(function, finished.balanced_accuracy, *more, absent, what="the balanced accuracy")
    passed("01.1", "always naming one of K classes scores 1/K, however frequent that class is.")


@exercise
def check_nearest_mean(function: Callable) -> None:
    """01.2: function(clips uint8 [N, C, T, H, W], labels [N], new uint8 [M, C, T, H, W]) -> labels [M]."""
    from sklearn.neighbors import NearestCentroid

    means = torch.randint(60, 200, (4, 1, 3, 4, 5), generator=seeded(0))
    labels = torch.tensor([3] * 9 + [0] * 6 + [1] * 3 + [2] * 2)

    def clips_of(classes, seed):
        noise = torch.randn(len(classes), *means.shape[1:], generator=seeded(seed)) * 90
        return (means[classes] + noise).clamp(0, 255).to(torch.uint8)

    clips, new = clips_of(labels, 1), clips_of(torch.arange(4).repeat(10), 2)
    found = call(function, clips, labels, new)
    same_shape(found, [len(new)], "the answer for the new clips")
    flat, queries = clips.float().flatten(1), new.float().flatten(1)
    expected = torch.from_numpy(NearestCentroid().fit(flat.numpy(), labels.numpy()).predict(queries.numpy()))
    centres = torch.stack([flat[labels == k].mean(0) for k in range(4)])
    sums = torch.stack([flat[labels == k].sum(0) for k in range(4)])
    wrapped = (new[:, None] - torch.stack([clips[labels == k].float().mean(0).byte() for k in range(4)])) ** 2
    brightness = (queries.mean(1)[:, None] - centres.mean(1)).abs().argmin(1)
    close(
        found,
        expected,
        {
            "these are the classes furthest away: the smallest distance wins, argmin": torch.cdist(
                queries, centres
            ).argmax(1),
            "looks as if clips of a class were summed: frequent classes move away; take their mean": torch.cdist(
                queries, sums
            ).argmin(1),
            "looks as if uint8 was subtracted: 10 - 20 is 246 there; go to float first": wrapped.flatten(2)
            .sum(2)
            .argmin(1),
            "looks as if only the mean brightness was compared: keep the voxels, average over "
            "the clips (dim 0)": brightness,
            "this is the label of the nearest clip: average the clips of a class first": labels[
                torch.cdist(queries, flat).argmin(1)
            ],
            "the largest dot product is not the smallest distance: bright means win it": (queries @ centres.T).argmax(
                1
            ),
        },
        what="the answer for the new clips",
    )
    few = torch.randint(0, 256, (3, 2, 5, 2, 3), generator=seeded(3), dtype=torch.uint8)
    examine(
        function,
        finished.nearest_mean,
        (few, torch.tensor([1, 0, 0]), few[:1]),  # two classes, one new clip
        (few[:, :1], torch.tensor([2, 0, 1]), few.flip(0)[:2, :1]),
        what="the answer for the new clips",
    )
    passed("01.2", "eleven mean volumes already make a classifier; every model of the course has to beat it.")


@exercise
def check_split_by_patient(function: Callable) -> None:
    """01.3: function(patients int64 [N], share, generator) -> bool [N], True for held-out clips."""
    numbers = torch.tensor([3, 4, 8, 15, 16, 23, 42, 99, 108, 200])  # gaps, as where patients were left out
    patients = numbers.repeat_interleave(torch.arange(2, 12))[torch.randperm(65, generator=seeded(0))]
    found = call(function, patients, 0.27, seeded(1))
    if isinstance(found, (tuple, list)):
        raise CheckFailed(
            f"the result is a {type(found).__name__}: return one mask, bool [N], True where a clip is held out"
        )
    if isinstance(found, torch.Tensor) and found.dtype != torch.bool:
        raise CheckFailed(
            f"the result is {found.dtype}, expected torch.bool: one True or False for each clip, not their numbers"
        )
    same_shape(found, patients, "the mask")
    held, kept = patients[found].unique(), patients[~found].unique()
    both = sorted(set(held.tolist()) & set(kept.tolist()))
    if both:
        raise CheckFailed(
            f"{len(both)} of {len(numbers)} patients are on both sides (patient {both[0]}, for one): "
            "draw patients, then hold out all clips of those drawn"
        )
    if len(held) != 3:
        hint = ": that is the share to keep" if len(held) == 7 else ""
        hint = hint or (
            ": draw among the numbers that occur, patients.unique(); they have gaps" if len(held) < 3 else ""
        )
        sizes = {len(patients[call(function, patients, 0.27, seeded(seed))].unique()) for seed in range(2, 12)}
        hint = ": 0.27 · 10 is 2.7, which round() takes to 3 and int() or // to 2" if sizes == {2} else hint
        raise CheckFailed(f"{len(held)} of {len(numbers)} patients are held out, expected 3 for a share of 0.27{hint}")
    again = call(function, patients, 0.27, seeded(1))
    others = [call(function, patients, 0.27, seeded(seed)) for seed in range(2, 12)]
    if not torch.equal(found, again):
        raise CheckFailed("the same seed gives another split: pass generator=generator to torch.randperm")
    if all(torch.equal(found, other) for other in others):
        raise CheckFailed(
            "every seed holds out the same patients: shuffle them, torch.randperm(..., generator=generator)"
        )
    if not all(len(patients[other].unique()) == 3 for other in others):
        raise CheckFailed(
            "with another seed the number of held-out patients differs: take exactly round(share * patients)"
        )
    check_small_splits(function)
    passed("01.3", "no patient is on both sides, so a good score cannot come from recognising one.")


def check_small_splits(function: Callable) -> None:
    """Few patients, many seeds: exactly as many as asked, whole patients, and every choice of them can happen."""
    for count, share, held in ((6, 0.35, 2), (5, 0.23, 1), (3, 0.7, 2), (4, 0.1, 0)):
        patients = (7 * torch.arange(count) + 2).repeat(3)

        def arguments(generator, patients=patients, share=share):
            return patients, share, generator

        tried = 60 if held else 2
        masks = [call(function, *arguments(seeded(seed))) for seed in range(tried)]
        if held:
            masks += draws(function, arguments, what="split")
        choices = {tuple(patients[mask].unique().tolist()) for mask in masks}
        found = sorted({len(choice) for choice in choices})
        if found != [held]:
            raise CheckFailed(
                f"of {count} patients and a share of {share}, {' or '.join(map(str, found))} are held out, expected "
                f"{held} with every seed: round(share * number of patients)"
            )
        if count == 6 and len(choices) < 11:  # of 15
            raise CheckFailed(
                f"with {len(masks)} seeds only {len(choices)} of the 15 pairs of 6 patients were ever held out: draw "
                "among all, randperm, and not a run of neighbours"
            )
        if not all(len(patients[mask]) == 3 * held for mask in masks):
            raise CheckFailed("a patient is on both sides: hold out all clips of those drawn")


@exercise
def check_mirrored(function: Callable) -> None:
    """01.4: function(clips [B, C, T, H, W], labels [B], mirror, chosen bool [B]) -> (clips, labels), new ones."""
    clips = torch.randint(0, 256, (6, 2, 3, 4, 5), generator=seeded(0), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 2, 3, 4, 1])
    chosen = torch.tensor([True, True, False, True, False, False])
    for axis, swap in ((3, (0, 2, 1, 4, 3)), (1, (4, 1, 3, 2, 0))):
        mirror, swapped = Mirror(axis, swap), torch.tensor(swap)
        found_clips, found_labels = pair(call(function, clips, labels, mirror, chosen), "clips, labels")
        pick = chosen[:, None, None, None, None]
        close(
            found_clips,
            torch.where(pick, clips.flip(axis + 1), clips),
            {
                "flipped along the wrong axis: mirror.axis counts in a clip [C, T, H, W]; a "
                "batch has one axis more in front": torch.where(pick, clips.flip(axis), clips),
                "all clips were flipped: only those where `chosen` is True": clips.flip(axis + 1),
                "flipped are those that were not chosen": torch.where(pick, clips, clips.flip(axis + 1)),
                "no clip was flipped": clips,
                "looks as if the axis were written into the code: take it from mirror.axis": lambda: torch.where(
                    pick, clips.flip(4), clips
                ),
            },
            what="the batch of clips",
        )
        close(
            found_labels,
            torch.where(chosen, swapped[labels], labels),
            {
                "the labels were not swapped: a mirrored right kidney has the shape of a left one": labels,
                "all labels were swapped: only those of the flipped clips": swapped[labels],
                "the pairs seem to be written into the code: take them from mirror.permutation": lambda: torch.where(
                    chosen, torch.tensor([0, 2, 1, 4, 3])[labels], labels
                ),
                "labels were swapped where clips were not flipped": torch.where(chosen, labels, swapped[labels]),
            },
            what="the labels",
        )
    one, three = clips[:1], clips[:3, :1].float() / 255
    middle = Mirror(2, (0, 1, 2, 5, 4, 3))
    examine(
        function,
        finished.mirrored,
        (one, torch.tensor([5]), middle, torch.tensor([True])),
        (three, torch.tensor([3, 5, 1]), middle, torch.tensor([True, True, True])),
        (three, torch.tensor([3, 5, 1]), middle, torch.tensor([False, False, False])),
        (clips, labels, Mirror(3, [0, 2, 1, 4, 3]), chosen),
        what="clips, labels",
        gradients=False,
    )
    passed("01.4", "flipped and renamed, every training clip is worth two.")
