"""Checks of chapter 14: how fast cost grows, shuffled frames, left taken for right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ..ready import ch14 as finished
from . import CheckFailed, call, close, draws, examine, exercise, number, passed, same_shape

# ---- 14.1


@exercise
def check_growth(growth: Callable) -> None:
    """growth(frames, seconds) -> the exponent p of seconds ~ frames^p, by least squares on logarithms."""
    frames = [28, 56, 112]
    for power in (1.0, 2.0):
        compare_growth(growth, frames, [0.003 * f**power for f in frames], power)
    compare_growth(growth, frames, [0.5] * 3, 0.0)
    frames, noise = [16, 24, 64, 80], [1.0, 1.5, 0.8, 1.2]
    seconds = [0.01 * f**1.5 * n for f, n in zip(frames, noise)]
    compare_growth(growth, frames, seconds, slope(frames, seconds))
    few = ([3, 7], [1.0, 0.2]), ([1.0, 2.0, 3.0, 4.0, 9.0], [0.5, 0.1, 0.7, 0.2, 2.0])
    examine(growth, finished.growth, *few, what="the exponent", tolerance=1e-3)
    passed("14.1", "a straight line through logarithms: its slope is the exponent.")


def compare_growth(growth: Callable, frames: Sequence[float], seconds: Sequence[float], expected: float) -> None:
    """One case; the mistakes are those whose value differs from the right one in it."""
    found = number(
        call(growth, list(frames), list(seconds)),
        "the exponent",
        " (np.polyfit gives slope and height: take the first)",
    )
    shown = f"for the frames {frames} and seconds that grow as frames^{expected:.2f}"
    x, y = ([math.log(value) for value in values] for values in (frames, seconds))
    mistakes = {
        "this is the slope of seconds over frames: take the logarithm of both first": plain_slope(frames, seconds),
        "this is how many times longer the last takes than the first: the exponent is wanted": seconds[-1] / seconds[0],
        "only the seconds were put through the logarithm: so are the frames": plain_slope(frames, y),
        "only the frames were put through the logarithm: so are the seconds": plain_slope(x, seconds),
        "this is log(seconds) / log(frames), which calls the cost of one frame a second: a slope is a difference "
        "by a difference": sum(b / a for a, b in zip(x, y)) / len(x),
        "the axes are exchanged: frames^p, so the frames lie along x": plain_slope(y, x) if expected else None,
        "only the first and the last measurement count here: lay the line through all": (y[-1] - y[0]) / (x[-1] - x[0]),
        "this is where the line meets the axis, not its slope: polyfit gives the slope first": intercept(x, y),
    }
    if abs(found - expected) > 1e-3:
        named = next(
            (text for text, value in mistakes.items() if value is not None and abs(found - value) < 1e-3), None
        )
        raise CheckFailed(
            f"{shown} your exponent is {found:.3g}" + (f": {named}" if named else f", expected {expected:.3f}")
        )


def plain_slope(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def slope(frames: Sequence[float], seconds: Sequence[float]) -> float:
    return plain_slope([math.log(f) for f in frames], [math.log(s) for s in seconds])


def intercept(x: Sequence[float], y: Sequence[float]) -> float:
    return sum(y) / len(y) - plain_slope(x, y) * sum(x) / len(x)


# ---- 14.2


@exercise
def check_shuffle_frames(shuffle_frames: Callable) -> None:
    """shuffle_frames(clips [N, C, T, H, W], generator) -> each clip's frames in an order of its own."""
    n, c, t, h, w = shape = (5, 2, 6, 7, 4)
    clips = torch.arange(math.prod(shape)).reshape(shape)  # every voxel tells where it came from

    def run(seed):
        return call(shuffle_frames, clips, torch.Generator().manual_seed(seed))

    with torch.random.fork_rng(devices=[]):  # who draws from torch's own generator gets other numbers in each run
        torch.manual_seed(0)
        found = run(1)
        same_shape(found, clips, "the shuffled clips")
        again, other = run(1), run(2)
        many = [run(seed) for seed in range(3, 23)]
    check_places(found, clips)
    orders = found[:, 0, :, 0, 0] % (c * t * h * w) // (h * w)  # [N, T]: which frame stands where
    if len(set(map(tuple, orders.tolist()))) == 1:
        same = (
            "the frames stand as they stood"
            if orders[0].tolist() == list(range(t))
            else "all clips have one order: draw one for each clip"
        )
        raise CheckFailed(same)
    ordered = [sorted(order) for order in orders.tolist()]
    if any(order != list(range(t)) for order in ordered):
        raise CheckFailed(
            "some frames stand there twice and others are gone: draw an order (argsort of random numbers, "
            "randperm), not places at random (randint)"
        )
    if all((order.roll(-int(order.argmin())) == torch.arange(t)).all() for order in orders):
        raise CheckFailed("each clip was only rolled: its frames begin elsewhere and follow each other as before")
    stayed = sum((shuffled == clips)[:, 0, :, 0, 0].float().sum(1).mean().item() for shuffled in many) / len(many)
    if stayed > 2:  # one, in the mean over all orders
        raise CheckFailed(
            f"of {t} frames {stayed:.1f} stay at their place in the mean: only a few are exchanged. Draw one of all "
            "orders (randperm), in which a single frame stays in the mean"
        )
    if not torch.equal(found, again):
        raise CheckFailed(
            "the same seed gave another order: draw from the generator that is given (generator=generator)"
        )
    if torch.equal(found, other):
        raise CheckFailed(
            "another seed gave the same order: draw from the generator that is given, and set no seed inside"
        )
    small = torch.arange(2 * 4 * 2, dtype=torch.uint8).reshape(2, 1, 4, 2, 1)
    many = draws(shuffle_frames, lambda generator: (small, generator), count=60, what="order")
    orders = {tuple((clip[0, :, 0, 0] % 8 // 2).tolist()) for shuffled in many for clip in shuffled}
    if len(orders) < 18:  # of 24; each comes up five times in the mean
        raise CheckFailed(
            f"of the 24 orders of 4 frames only {len(orders)} come up in {2 * len(many)} clips: draw one of all "
            "orders, randperm"
        )
    alone = draws(shuffle_frames, lambda generator: (clips[:1].float(), generator), what="order")
    for shuffled in alone:
        same_shape(shuffled, clips[:1], "a batch of one clip, shuffled,")
        check_places(shuffled.long(), clips[:1])
    if alone[0].dtype != torch.float32 or many[0].dtype != torch.uint8:
        raise CheckFailed("the clips come back in another type: only the order of frames changes")
    passed("14.2", "all frames are there, each whole, in an order of each clip's own.")


def check_places(found: torch.Tensor, clips: torch.Tensor) -> None:
    """Whole frames of the same clip, all channels alike; what moved instead is named."""
    n, c, t, h, w = clips.shape
    if (
        not torch.equal(found.flatten().sort().values.unique(), found.flatten().unique())
        or not torch.isin(found, clips).all()
    ):
        raise CheckFailed("there are values that no clip holds: frames change places, nothing is computed")
    clip, rest = found // (c * t * h * w), found % (c * t * h * w)
    channel, frame, place = rest // (t * h * w), rest % (t * h * w) // (h * w), rest % (h * w)
    if not torch.equal(clip, clips // (c * t * h * w)):
        raise CheckFailed("frames went from one clip to another: each clip keeps its own, only their order changes")
    if not torch.equal(channel, clips % (c * t * h * w) // (t * h * w)):
        raise CheckFailed("the channels changed places: the frames are axis 2 of [N, C, T, H, W]")
    if not torch.equal(place, clips % (h * w)):
        raise CheckFailed(
            "frames are not whole any more, voxels moved within them: only axis 2 of [N, C, T, H, W] changes its order"
        )
    if not torch.equal(frame, frame[:, :, :, :1, :1].expand_as(frame)):
        raise CheckFailed("a frame was put together of several: each place of a frame drew an order of its own")
    if not torch.equal(frame, frame[:, :1].expand_as(frame)):
        raise CheckFailed("the channels of one clip have different orders: one order a clip, for all its channels")


# ---- 14.3


@exercise
def check_wrong_side(wrong_side: Callable) -> None:
    """wrong_side(labels [N], answers [N], permutation) -> of the clips of sided classes, the share answered by
    the twin side."""
    permutation = (0, 2, 1, 4, 3, 5)
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5, 5, 0, 5, 5])
    answers = torch.tensor([0, 1, 2, 1, 2, 1, 0, 3, 1, 3, 5, 4, 3, 5, 5])
    found = number(
        call(wrong_side, labels, answers, permutation), "the share of sided clips answered with the other side"
    )
    swap = torch.tensor(permutation)
    other, sided, wrong = answers == swap[labels], swap[labels] != labels, answers != labels
    confused, count = other & sided, sided.sum().item()

    def share(hits, of):
        return (hits & of).sum().item() / of.sum().item()

    close(
        found,
        confused.sum().item() / count,
        {
            "the share is of all clips: only those whose class has a side can be on the wrong one": confused.float()
            .mean()
            .item(),
            "every wrong answer was counted: a kidney called spleen is wrong, but on no other side": share(
                wrong, sided
            ),
            "classes without a side were counted, too: their permutation leads to themselves, so "
            "each right answer looks "
            "like the other side": other.float().mean().item(),
            "classes without a side were counted as confused, and the sum was divided by the "
            "clips with one": other.sum().item() / count,
            "this is the share of the wrong answers: it is asked of all clips of sided classes": share(confused, wrong),
            "this is the share of the wrong answers among sided clips: it is asked of all sided clips": share(
                confused, wrong & sided
            ),
            "this is the share on the right side": share(answers == labels, sided),
            "this is a number of clips: divide by how many have a side": confused.sum().item(),
            "whether the answer has a side was asked: it is the label that says whether the clip has one": share(
                other, swap[answers] != answers
            ),
        },
        what="the share",
    )
    nobody = call(wrong_side, torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), permutation)
    close(number(nobody, "the share"), 0.0, what="the share where every answer is right")
    more = (
        (torch.tensor([2, 0, 1, 1]), torch.tensor([0, 2, 1, 0]), (2, 1, 0)),
        (torch.tensor([1]), torch.tensor([0]), [1, 0, 2, 3]),
        (torch.tensor([3, 4, 5, 6, 0, 1]), torch.tensor([4, 4, 6, 5, 1, 0]), (0, 1, 2, 4, 3, 6, 5)),
    )
    examine(wrong_side, finished.wrong_side, *more, what="the share")
    passed("14.3", "of the clips that have a side, those that were answered with the other one.")
