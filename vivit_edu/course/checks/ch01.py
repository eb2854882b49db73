"""Checks of chapter 01: splits by patient, balanced accuracy, distances to means, scores on one scale, the axis of the
mirror, flips that know their labels, and the winner among many."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...volumes import Mirror
from ..ready import ch01 as finished
from . import CheckFailed, call, close, drawn, draws, examine, exercise, number, passed, same_shape
from .calling import BY_TENSOR, MEANS_AS_COLUMN, last_call


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _bytes(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=seeded(seed), dtype=torch.uint8)


# ---- 01.1


@exercise
def check_split(function: Callable, accuracy: Callable) -> None:
    """01.1: function(patients int64 [B], share, generator) -> bool [B], True for held-out clips; accuracy(vectors
    [B, D], labels [B], held bool [B]) -> how often the nearest vector that is not held out has the right label."""
    numbers = torch.tensor([3, 4, 8, 15, 16, 23, 42, 99, 108, 200])  # gaps, as where patients were left out
    patients = numbers.repeat_interleave(torch.arange(2, 12))[torch.randperm(65, generator=seeded(0))]
    found = call(function, patients, 0.27, seeded(1))
    _is_mask(found, patients)
    held, kept = patients[found].unique(), patients[~found].unique()
    both = sorted(set(held.tolist()) & set(kept.tolist()))
    if both:
        raise CheckFailed(
            f"{len(both)} of {len(numbers)} patients are on both sides (patient {both[0]}, for one): "
            "draw patients, then hold out all clips of those drawn"
        )
    others = [call(function, patients, 0.27, seeded(seed)) for seed in range(20)]
    counts = {len(patients[other].unique()) for other in others}
    if len(held) != 3:
        hint = ": take exactly round(share * number of patients), however many clips they have"
        if len(held) == 7:
            hint = ": that is the share to keep"
        elif counts == {2}:
            hint = ": 0.27 · 10 is 2.7, which round() takes to 3 and int() or // to 2"
        elif len(held) < 3:
            hint = ": draw among the numbers that occur, patients.unique(); they have gaps"
        raise CheckFailed(f"{len(held)} of {len(numbers)} patients are held out, expected 3 for a share of 0.27{hint}")
    if counts != {3}:
        raise CheckFailed(
            f"with other seeds {min(counts)} to {max(counts)} of {len(numbers)} patients are held out, expected 3 for "
            "a share of 0.27 with every seed: take exactly round(share * number of patients), however many clips they "
            "have"
        )
    draws(function, lambda generator: (patients, 0.27, generator), what="split")
    _check_small_splits(function)
    _check_nearest_neighbour(accuracy)
    passed("01.1", "no patient is on both sides, so a good score cannot come from recognising one.")


def _is_mask(found, patients):
    if isinstance(found, (tuple, list)):
        raise CheckFailed(
            f"the result is a {type(found).__name__}: return one mask, bool [B], True where a clip is held out"
        )
    if isinstance(found, torch.Tensor) and found.dtype != torch.bool:
        raise CheckFailed(
            f"the result is {found.dtype}, expected torch.bool: one True or False for each clip, not their numbers"
        )
    same_shape(found, patients, "the mask")


def _check_small_splits(function):
    """Few patients, many seeds: exactly as many as asked, whole patients, and every choice of them can happen."""
    for count, share, held in ((6, 0.35, 2), (5, 0.23, 1), (3, 0.7, 2)):
        patients = (7 * torch.arange(count) + 2).repeat(3)
        masks = [call(function, patients, share, seeded(seed)) for seed in range(60)]
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


def _check_nearest_neighbour(accuracy):
    def case(count, width, classes, seed):
        labels = torch.randint(0, classes, (count,), generator=seeded(seed))
        vectors = 3 * drawn(classes, width, seed=seed)[labels] + 2 * drawn(count, width, seed=seed + 1)
        vectors *= 1 + 4 * torch.rand(count, 1, generator=seeded(seed + 3))  # long ones and short ones
        return vectors, labels, torch.rand(count, generator=seeded(seed + 2)) < 0.3

    def right_by(seen, held, pick=lambda distances: distances.argmin(1), indexed=None, measure=torch.cdist):
        """A mistake: what is searched, what is held out, which one is picked, which labels it indexes, and what is
        measured."""

        def mistake(x, y, h):
            found = pick(measure(x[held(h)], x[seen(h)]))
            return ((y[seen(h)] if indexed is None else y)[found] == y[held(h)]).double().mean()

        return mistake

    examine(
        accuracy,
        finished.nearest_neighbour_accuracy,
        case(61, 3, 5, 66),
        case(23, 2, 3, 33),
        (drawn(3, 4), torch.tensor([7, 2, 7]), torch.tensor([True, False, False])),  # one is held out
        mistakes={
            "each vector finds itself: search only among those that are not held out": right_by(
                torch.ones_like, lambda h: h
            ),
            "the nearest is searched among the held-out vectors: search among the others, ~held": right_by(
                lambda h: h, lambda h: h
            ),
            "True means held out, and here it is the other way round": right_by(lambda h: h, lambda h: ~h),
            "this is the furthest vector: the smallest distance wins, argmin": right_by(
                lambda h: ~h, lambda h: h, lambda distances: distances.argmax(1)
            ),
            "this is the largest dot product, which favours long vectors: the smallest distance wins": right_by(
                lambda h: ~h, lambda h: h, measure=lambda a, b: -a @ b.T
            ),
            "this is the largest cosine, in which the lengths do not count: the smallest distance wins": right_by(
                lambda h: ~h, lambda h: h, measure=lambda a, b: -F.normalize(a, dim=1) @ F.normalize(b, dim=1).T
            ),
            "the position among the vectors seen was used to index all labels: labels[~held] first": right_by(
                lambda h: ~h, lambda h: h, indexed="all"
            ),
            "this is a number of right answers: divide it by the number of held-out vectors": lambda x, y, h: (
                finished.nearest_neighbour_accuracy(x, y, h) * h.sum()
            ),
            "this is the share of wrong answers": lambda x, y, h: 1 - finished.nearest_neighbour_accuracy(x, y, h),
            "looks like a percentage: give a share from 0 to 1": lambda x, y, h: (
                100 * finished.nearest_neighbour_accuracy(x, y, h)
            ),
        },
        what="the accuracy of the nearest neighbour",
        gradients=False,
        dtypes=(),
    )


# ---- 01.2

NAN = "the mean of nothing is nan: was a class without a clip counted? Take only those that occur, labels.unique()"


@exercise
def check_measures(function: Callable, auc: Callable) -> None:
    """01.2: function(guesses [B], labels [B]) -> the mean over the classes of the share found; auc(scores [B, K],
    labels [B]) -> how often a clip of a class has a higher score for it than another clip."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 5, 5, 5])  # of six classes, three do not occur
    guesses = torch.tensor([0, 0, 0, 0, 0, 2, 2, 0, 5, 1, 2])

    def recalls(g, y):
        return torch.stack([(g[y == k] == k).double().mean() for k in y.unique()])

    def precisions(g, y, classes):
        return torch.stack([(y[g == k] == k).double().mean() for k in classes]).mean()

    examine(
        function,
        finished.balanced_accuracy,
        (guesses, labels),
        (torch.zeros(10, dtype=torch.long), torch.tensor([0] * 9 + [1])),  # always one of two classes
        (torch.tensor([1, 1, 3]), torch.tensor([1, 3, 3])),
        (torch.tensor([4]), torch.tensor([4])),
        (torch.tensor([0, 7, 7, 2, 2, 2]), torch.tensor([0, 0, 2, 2, 2, 2])),  # class 7 is guessed, and never right
        mistakes={
            "this is plain accuracy: a frequent class still counts more than a rare one": lambda g, y: (
                (g == y).double().mean()
            ),
            "classes without a clip count as 0 here: take the mean over the classes that the labels hold": (
                lambda g, y: recalls(g, y).sum() / (y.max() + 1)
            ),
            "the classes are those of the guesses: take the classes that the labels hold": lambda g, y: torch.stack(
                [(g[y == k] == k).double().mean() for k in g.unique()]
            ).nanmean(),
            "the shares were summed, not averaged over the classes": lambda g, y: recalls(g, y).sum(),
            "looks like precision: pick the clips by their label, not by the guess": lambda g, y: precisions(
                g, y, g.unique()
            ),
            "this is precision: pick the clips by their label, not by the guess": lambda g, y: precisions(
                g, y, y.unique()
            ),
            "looks like a percentage: give a share from 0 to 1": lambda g, y: 100 * recalls(g, y).mean(),
            "this is the median of the shares: take their mean": lambda g, y: recalls(g, y).median(),
            "this is F1, which mixes recall and precision: take the share of each class that was found": lambda g, y: (
                torch.stack(
                    [2 * ((g == k) & (y == k)).sum() / ((g == k).sum() + (y == k).sum()) for k in y.unique()]
                ).mean()
            ),
        },
        nan=NAN,
        what="the balanced accuracy",
    )
    _check_auc(auc)
    passed("01.2", "always naming one of K classes scores 1/K, and a score without information has an AUC of 0.5.")


def _check_auc(auc):
    def over_classes(wins, weigh=lambda shares, y: torch.stack(shares).mean()):
        """A mistake in which pairs win, or in how the classes are averaged."""

        def mistake(scores, labels):
            shares = []
            for k in labels.unique().tolist():
                of_class, others = scores[labels == k, k, None], scores[labels != k, k]
                shares.append(wins(of_class, others).double().mean())
            return weigh(shares, labels)

        return mistake

    def fair(a, b):
        return (a > b).double() + 0.5 * (a == b)

    def case(count, classes, seed):
        labels = torch.randint(0, classes, (count,), generator=seeded(seed))
        labels[labels == 1] = 0  # class 1 does not occur, and 0 is frequent
        return (drawn(count, classes, seed=seed) + 1.2 * F.one_hot(labels, classes)).round(), labels  # with ties

    def within(scores, labels):
        own = scores.gather(1, labels[:, None])
        others = torch.ones_like(scores).scatter(1, labels[:, None], 0)
        return (fair(own, scores) * others).sum() / others.sum()

    examine(
        auc,
        finished.auc,
        case(30, 5, 1),
        (drawn(7, 3, seed=1), torch.tensor([2, 0, 0, 1, 2, 2, 1])),
        (torch.zeros(5, 2), torch.tensor([0, 0, 1, 0, 1])),  # all tied
        (10 * drawn(6, 4, seed=2) - 5000, torch.tensor([3, 3, 0, 0, 3, 0])),
        mistakes={
            "ties count as lost: they count one half": over_classes(lambda a, b: a > b),
            "ties count as won: they count one half": over_classes(lambda a, b: a >= b),
            "the order is turned round: a clip of the class wins with the higher score": over_classes(
                lambda a, b: fair(-a, -b)
            ),
            "the pairs of all classes are averaged together: first over the pairs of a class, then over the classes": (
                lambda s, y: torch.cat([fair(s[y == k, k, None], s[y != k, k]).flatten() for k in y.unique()]).mean()
            ),
            "the classes are weighted by their clips: take the plain mean over the classes": over_classes(
                fair, lambda shares, y: (torch.stack(shares) * y.unique(return_counts=True)[1]).sum() / len(y)
            ),
            "classes without a clip count as 0: take the mean over the classes that the labels hold": over_classes(
                fair, lambda shares, y: torch.stack(shares).sum() / (y.max() + 1)
            ),
            "the shares were summed, not averaged over the classes": over_classes(
                fair, lambda shares, y: torch.stack(shares).sum()
            ),
            "classes of one clip are compared with each other: compare clips, with their scores for one class": within,
            "a clip is compared with those of its own class too: the others are those with another label": (
                lambda s, y: torch.stack([fair(s[y == k, k, None], s[:, k]).mean() for k in y.unique()]).mean()
            ),
            "the scores for class 0 were taken for every class: take column k": lambda s, y: torch.stack(
                [fair(s[y == k, 0, None], s[y != k, 0]).mean() for k in y.unique()]
            ).mean(),
            "this is the accuracy": lambda s, y: (s.argmax(1) == y).double().mean(),
        },
        errors={"must match": "make the scores of the class a column [n, 1] and those of the others a row [m]"},
        nan=NAN,
        what="the AUC",
        gradients=False,
        dtypes=(),
    )


# ---- 01.3


@exercise
def check_distances(function: Callable) -> None:
    """01.3: function(clips [B, ...], labels [B], new [M, ...]) -> distances to the class means, [M, K]."""
    labels = torch.tensor([3, 0, 0, 3, 1, 3, 2, 3, 2])  # in no order, and not as many of each

    def means(clips, labels, pick=lambda of_class: of_class.mean(dim=0)):
        found = [pick(clips[labels == k].float()) for k in range(labels.max() + 1)]
        return torch.stack(found).flatten(1)  # [K, ·]

    def flat(new):
        return new.float().flatten(1)

    right = finished.distances_to_means
    examine(
        function,
        right,
        (_bytes(9, 1, 3, 4, 5), labels, _bytes(6, 1, 3, 4, 5, seed=1)),
        (_bytes(3, 2, 5, 2, 3, seed=3), torch.tensor([1, 0, 0]), _bytes(1, 2, 5, 2, 3, seed=4)),  # one new clip
        (drawn(9, 7), labels, drawn(2, 7, seed=1)),  # features instead of clips
        mistakes={
            "looks as if uint8 was subtracted: 10 - 20 is 246 there; go to float first": lambda c, y, new: (
                (new[:, None] - torch.stack([c[y == k].float().mean(0).byte() for k in range(y.max() + 1)]))
                .flatten(2)
                .float()
                .norm(dim=2)
            ),
            "the means were rounded to whole numbers: go to float before you average": lambda c, y, new: torch.cdist(
                flat(new), means(c, y).byte().float()
            ),
            "these are the nearest classes: return all distances, [M, K]": lambda c, y, new: right(c, y, new).argmin(1),
            "the axes are exchanged: a row for each new clip, a column for each class": lambda c, y, new: (
                right(c, y, new).T
            ),
            "these are squared distances: take the root": lambda c, y, new: right(c, y, new) ** 2,
            "absolute differences were summed: the Euclidean distance is the root of the sum of squares": (
                lambda c, y, new: torch.cdist(flat(new), means(c, y), p=1)
            ),
            "this is the mean of the squares: the Euclidean distance is the root of their sum": lambda c, y, new: (
                right(c, y, new) ** 2 / flat(new).shape[1]
            ),
            "this is the root of the mean of the squares: take the root of their sum": lambda c, y, new: (
                right(c, y, new) / flat(new).shape[1] ** 0.5
            ),
            "the clips of a class were summed: take their mean": lambda c, y, new: torch.cdist(
                flat(new), means(c, y, lambda of_class: of_class.sum(dim=0))
            ),
            "this is the median of the clips of a class: take their mean": lambda c, y, new: torch.cdist(
                flat(new), means(c, y, lambda of_class: of_class.median(dim=0).values)
            ),
            "only the brightness is compared: average over the clips (dim=0) and keep the voxels": lambda c, y, new: (
                flat(new).mean(1)[:, None] - means(c, y).mean(1)
            ).abs(),
            "these are distances to single clips: average the clips of a class first": lambda c, y, new: torch.cdist(
                flat(new), flat(c)
            ),
            "these are distances to the nearest clip of each class: average the clips of a class first": (
                lambda c, y, new: torch.stack(
                    [torch.cdist(flat(new), flat(c[y == k])).amin(1) for k in range(y.max() + 1)], dim=1
                )
            ),
            "these are dot products: bright means have large ones": lambda c, y, new: flat(new) @ means(c, y).T,
            "the classes are in the order in which they appear: column k belongs to class k": lambda c, y, new: right(
                c, y, new
            )[:, list(dict.fromkeys(y.tolist()))],
            "the last class is missing: the classes are 0 to labels.max(), and range leaves out its end": (
                lambda c, y, new: right(c, y, new)[:, :-1]
            ),
            "these are negative distances: return the distances": lambda c, y, new: -right(c, y, new),
        },
        what="the distances",
        tolerance=1e-4,
    )
    passed("01.3", "eleven mean volumes already make a classifier: the nearest one names the clip.")


# ---- 01.4


@exercise
def check_comparable(function: Callable) -> None:
    """01.4: function(scores [B, K]) -> float64 [B, K], of each clip with mean 0 and standard deviation 1."""
    right = finished.comparable
    far = 1e6 + 0.2 * drawn(3, 5, seed=2).double()  # differences that float32 does not see
    examine(
        function,
        right,
        (-(9000 + 4000 * drawn(4, 7)),),
        (3 * drawn(1, 2, seed=1) + 1,),  # one clip, two classes
        (far,),
        (1e-4 * drawn(6, 3, seed=3),),
        mistakes={
            "a softmax again: with scores in the thousands it is 0 or 1 and nearly all order is lost, in float64 too": (
                lambda s: s.double().softmax(1)
            ),
            "these are log-probabilities: they still depend on the unit of the scores": lambda s: (
                s.double().log_softmax(1)
            ),
            "this is the softmax of the standardised scores: leave the softmax out": lambda s: right(s).softmax(1),
            "only the mean was subtracted, so the unit still matters: divide by the standard deviation": lambda s: (
                s.double() - s.double().mean(1, keepdim=True)
            ),
            "only divided, so the zero point still matters: subtract each clip's mean first": lambda s: (
                s.double() / s.double().std(1, keepdim=True, correction=0)
            ),
            "each class was standardised over the clips (dim=0): each clip is to be, over its classes (dim=1)": (
                lambda s: right(s.T).T
            ),
            "one mean and one standard deviation for all clips: each clip has its own (dim=1, keepdim=True)": (
                lambda s: right(s.reshape(1, -1)).reshape(s.shape)
            ),
            "torch's std divides by K - 1 unless you say correction=0": lambda s: (
                right(s) / (s.shape[1] / (s.shape[1] - 1)) ** 0.5
            ),
            "divided by the variance: the standard deviation is its root": lambda s: (
                right(s) / s.double().std(1, keepdim=True, correction=0)
            ),
            "these are ranks: how far apart two classes are is lost": lambda s: s.argsort(1).argsort(1).double(),
            "these are standardised ranks: how far apart two classes are is lost": lambda s: right(
                s.argsort(1).argsort(1)
            ),
            "scaled from 0 to 1 by the smallest and the largest score: use the mean and the standard deviation": (
                lambda s: (
                    (s.double() - s.double().amin(1, keepdim=True))
                    / (s.double().amax(1, keepdim=True) - s.double().amin(1, keepdim=True))
                )
            ),
            "divided by the length of the row: subtract its mean, divide by its standard deviation": lambda s: (
                F.normalize(s.double(), dim=1)
            ),
            "the order is turned round: a larger score must stay the larger one": lambda s: -right(s),
            "computed in float32, where scores that differ little become equal: s.double() comes first": lambda s: (
                (s.float() - s.float().mean(1, keepdim=True)) / s.float().std(1, keepdim=True, correction=0)
            ).double(),
            "divided by a fixed number: other scores have another unit": lambda s: s.double() / 1000,
        },
        errors=MEANS_AS_COLUMN,
        what="the scores",
        gradients=False,
        dtypes=(torch.float64,),
    )
    distant = 1e6 + 4 * drawn(3, 5, seed=2)  # in float32 their mean is off by more than their differences allow
    found = call(function, distant)
    try:
        close(found, right(distant), what="the scores")
    except CheckFailed as failed:
        raise CheckFailed(
            f"right for float64, but with float32 scores around 1,000,000 {failed}; s.double() comes before the "
            f"subtraction, not after it\n{last_call()}"
        ) from None
    passed("01.4", "distances in any unit now have the same AUC.")


# ---- 01.5


@exercise
def check_mirror_axis(correlation: Callable, mirror_axis: Callable) -> None:
    """01.5: correlation(a, b) of two volumes of one shape; mirror_axis(right, left) [C, T, H, W] -> 1, 2 or 3."""
    right = finished.correlation
    a = 40 + 9 * drawn(2, 3, 4, 5)
    examine(
        correlation,
        right,
        (a, 25 + 3 * a.flip(1) + 20 * drawn(2, 3, 4, 5, seed=1)),
        (drawn(1, 2, 3, 4), drawn(1, 2, 3, 4, seed=1) - 3),
        (drawn(4, 3), -2 * drawn(4, 3)),  # bright and dark exchanged
        mistakes={
            "the means were not subtracted, so two bright volumes count as alike": lambda a, b: torch.cosine_similarity(
                a.flatten(), b.flatten(), dim=0
            ),
            "only one of the two means was subtracted: subtract both": lambda a, b: torch.cosine_similarity(
                (a - a.mean()).flatten(), b.flatten(), dim=0
            ),
            "this is the covariance: divide by the lengths of both": lambda a, b: (
                (a - a.mean()) * (b - b.mean())
            ).mean(),
            "this is the dot product: divide by the lengths of both": lambda a, b: (
                (a - a.mean()) * (b - b.mean())
            ).sum(),
            "the sign is lost: exchanged bright and dark is -1": lambda a, b: right(a, b).abs(),
            "this is the square of the correlation": lambda a, b: right(a, b) ** 2,
            "this is 1 - the correlation, a distance": lambda a, b: 1 - right(a, b),
            "divided by the numbers of voxels: n and n - 1 are mixed up": lambda a, b: (
                right(a, b) * (a.numel() - 1) / a.numel()
            ),
        },
        what="the correlation",
        gradients=False,
        dtypes=(),
    )

    _check_axis(mirror_axis)
    passed("01.5", "the data say which axis is left to right, and nobody has to assume it.")


def _check_axis(mirror_axis):
    """Four pairs of means, whose axes are told together, so that different mistakes give different answers."""

    def likeness(right, left, axes=(1, 2, 3)):
        return [finished.correlation(right.flip(axis), left).item() for axis in axes]

    def pair(axis, against, *shape, alike=0.0):
        """A mean and its mirror image along `axis`, with noise, and with bright and dark exchanged along another.
        alike: how much of the mean is in it as it is."""
        mean = 5 + drawn(*shape)
        left = 0.6 * mean.flip(axis) - 0.9 * mean.flip(against) + alike * mean
        return mean, 9 + left + 0.1 * drawn(*shape, seed=1)

    pairs = [pair(2, 1, 1, 6, 7, 8), pair(3, 2, 1, 7, 6, 8), pair(1, 3, 2, 5, 9, 6), pair(3, 1, 1, 8, 4, 4, alike=0.4)]
    found = [int(number(call(mirror_axis, *case), "the axis", ", 1, 2 or 3")) for case in pairs]
    mistakes = {
        "counted from 0: the axes of [C, T, H, W] that can be flipped are 1, 2 and 3": lambda r, t: (
            finished.mirror_axis(r, t) - 1
        ),
        "counted in a batch: these volumes are [C, T, H, W], without B": lambda r, t: finished.mirror_axis(r, t) + 1,
        "a strongly negative correlation is no likeness: take the largest, not the smallest and not the largest size": (
            lambda r, t: 1 + min(range(3), key=likeness(r, t).__getitem__)
        ),
        "this is the correlation itself, or its whole part: return the axis": lambda r, t: int(max(likeness(r, t))),
        "`right` was compared with its own flips: compare them with `left`": lambda r, t: (
            1 + max(range(3), key=likeness(r, r).__getitem__)
        ),
        "the channels were flipped too: the axes to try are 1, 2 and 3": lambda r, t: max(
            range(3), key=likeness(r, t, (0, 1, 2)).__getitem__
        ),
        "the axes 0, 1 and 2 were tried, and axis 0 is the channels: in [C, T, H, W] the axes to try are 1, 2 and 3": (
            lambda r, t: 1 + max(range(3), key=likeness(r, t, (0, 1, 2)).__getitem__)
        ),
        "axis 3 was left out: range(1, 3) ends before it, and the axes to try are 1, 2 and 3": lambda r, t: (
            1 + max(range(2), key=likeness(r, t, (1, 2)).__getitem__)
        ),
        "always 3: the axis is to be found from the two volumes": lambda r, t: 3,
    }
    close(
        torch.tensor(found),
        torch.tensor([finished.mirror_axis(*case) for case in pairs]),
        {message: torch.tensor([mistake(*case) for case in pairs]) for message, mistake in mistakes.items()},
        what="the axis of four pairs of volumes",
    )


# ---- 01.6


@exercise
def check_mirrored(function: Callable) -> None:
    """01.6: function(clips [B, C, T, H, W], labels [B], mirror, chosen bool [B]) -> (clips, labels), new ones."""
    clips, labels = _bytes(6, 2, 3, 4, 5), torch.tensor([0, 1, 2, 3, 4, 1])
    chosen, five = torch.tensor([True, True, False, True, True, False]), (0, 2, 1, 4, 3)
    decimals, middle = clips[:3, :1].float() / 255, Mirror(2, (0, 1, 2, 5, 4, 3))

    def flip(where=lambda f: f, axis=lambda mirror: mirror.axis + 1):
        return lambda c, y, m, f: (
            torch.where(where(f)[:, None, None, None, None], c.flip(axis(m)), c),
            finished.mirrored(c, y, m, f)[1],
        )

    def rename(where=lambda f: f, swap=lambda m: m.permutation):
        return lambda c, y, m, f: (
            finished.mirrored(c, y, m, f)[0],
            torch.where(where(f), torch.tensor(swap(m))[y], y),
        )

    def in_turn(c, y, m, f):
        names = y.clone()
        for old, new in enumerate(m.permutation):
            names[f & (names == old)] = new
        return finished.mirrored(c, y, m, f)[0], names

    examine(
        function,
        finished.mirrored,
        (clips, labels, Mirror(3, five), chosen),
        (clips, labels, Mirror(1, (4, 1, 3, 2, 0)), chosen),
        (clips[:1], torch.tensor([5]), middle, torch.tensor([True])),
        (decimals, torch.tensor([3, 5, 1]), middle, torch.tensor([True, True, True])),
        (decimals, torch.tensor([3, 5, 1]), middle, torch.tensor([False, False, False])),
        (clips, labels, Mirror(3, list(five)), chosen),
        mistakes={
            "flipped along the wrong axis: mirror.axis counts in a clip [C, T, H, W]; a batch has one axis more in "
            "front": flip(axis=lambda m: m.axis),
            "all clips were flipped: only those where `chosen` is True": flip(torch.ones_like),
            "the clips that were flipped are those that were not chosen": flip(torch.logical_not),
            "no clip was flipped": flip(torch.zeros_like),
            "looks as if the axis were written into the code: take it from mirror.axis": flip(axis=lambda m: 4),
            "the labels were not swapped: a mirrored right kidney has the shape of a left one": rename(
                torch.zeros_like
            ),
            "labels were renamed one class after the other, so 1 became 2 and then 1 again: look all new labels up in "
            "the old ones": in_turn,
            "all labels were swapped: only those of the flipped clips": rename(torch.ones_like),
            "the pairs seem to be written into the code: take them from mirror.permutation": rename(
                swap=lambda m: (0, 2, 1, 4, 3, 5)
            ),
            "labels were swapped where clips were not flipped": rename(torch.logical_not),
        },
        errors=BY_TENSOR,
        what="clips, labels",
        gradients=False,
    )
    given = clips.clone(), labels.clone()
    for name, old, new in zip(("clips", "labels"), given, call(function, *given, middle, torch.zeros(6) > 0)):
        if new.data_ptr() == old.data_ptr():
            raise CheckFailed(
                f"where no clip is chosen, your function returns the very {name} that it was given, so changing "
                "the result would change them: return new ones, clone()"
            )
    passed("01.6", "flipped and renamed: every mirror image has the label of what it shows.")


# ---- 01.8


@exercise
def check_pick_winner(function: Callable) -> None:
    """01.8: function(hits bool [V, B], patients [B], choosing [P]) -> the winner's accuracy on them, on the others."""

    def case(v, count, choosing, seed):
        chance = torch.rand(v, 1, generator=seeded(seed)) * 0.1 + 0.5
        patients = (5 * torch.randint(0, 7, (count,), generator=seeded(seed + 1))) + 2  # gaps
        return torch.rand(v, count, generator=seeded(seed + 2)) < chance, patients, torch.tensor(choosing)

    def scores(hits, patients, choosing):
        seen = torch.isin(patients, choosing)
        return hits[:, seen].double().mean(1), hits[:, ~seen].double().mean(1), hits.double().mean(1)  # each [V]

    def winner(by, parts=lambda there, fresh, whole: (there, fresh)):
        """A mistake: another winner, or other parts of what it scored."""

        def mistake(*case):
            found = scores(*case)
            return parts(*(part[by(*found)] for part in found))

        return mistake

    examine(
        function,
        finished.pick_winner,
        case(9, 41, [7, 22, 32], 66),
        case(2, 30, [2], 11),
        case(30, 64, [12, 17, 2, 27], 5),
        (torch.tensor([[True, False, True]]), torch.tensor([4, 4, 9]), torch.tensor([9])),  # one classifier
        mistakes={
            "the winner was chosen on all patients: only `choosing` may choose": winner(lambda a, b, c: c.argmax()),
            "the winner was chosen on the patients that are to test it": winner(
                lambda a, b, c: b.argmax(), lambda a, b, c: (a, torch.nan)
            ),
            "the two accuracies are exchanged: first on the patients that choose, then on the others": winner(
                lambda a, b, c: a.argmax(), lambda a, b, c: (b, a)
            ),
            "the mask is turned round: the patients of `choosing` choose, and the others test": winner(
                lambda a, b, c: b.argmax(), lambda a, b, c: (b, a)
            ),
            "this is the winner's place (argmax): return the accuracies of that row": lambda *case: (
                scores(*case)[0].argmax(),
                torch.nan,
            ),
            "in per cent: expected shares from 0 to 1": winner(
                lambda a, b, c: a.argmax(), lambda a, b, c: (100 * a, 100 * b)
            ),
            "the second accuracy is over all patients: leave out those that chose": winner(
                lambda a, b, c: a.argmax(), lambda a, b, c: (a, c)
            ),
            "these are the best accuracies of two classifiers: follow the winner to the other patients": lambda *case: (
                scores(*case)[0].max(),
                scores(*case)[1].max(),
            ),
            "this is the worst classifier: the highest accuracy wins": winner(lambda a, b, c: a.argmin()),
            "the accuracy is averaged over all classifiers: follow the winner": lambda *case: tuple(
                part.mean() for part in scores(*case)[:2]
            ),
            "numbers of right answers: divide by the number of clips": lambda h, p, c: (
                (w := h[scores(h, p, c)[0].argmax()])[torch.isin(p, c)].sum(),
                w[~torch.isin(p, c)].sum(),
            ),
            "`choosing` holds numbers of patients, and was used as indices of clips": lambda h, p, c: (
                finished.pick_winner(h, torch.arange(len(p)), c)
            ),
        },
        errors={"shape of the mask": "torch.isin(patients, choosing), in this order, has an entry for each clip"},
        what="the winner's accuracy on the patients that chose it, its accuracy on the others",
        gradients=False,
    )
    passed("01.8", "the patients that choose do not test.")
