"""Checks of chapter 14: when a model is nearly there, probes of time, sides and noise, equal steps, idle probes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import permutations

import torch
from torch.overrides import TorchFunctionMode

from ...volumes import Mirror
from . import CheckFailed, call, drawn, draws, examine, exercise, flag, kind, passed, same_shape
from .calling import BY_TENSOR, call_with_hints, last_call

ON_DATA = {"gradients": False, "dtypes": (torch.float64,)}  # probes change clips before the model sees them, numpy may

# ---- 14.1


@exercise
def check_first_tools(time_to_share: Callable, decided: Callable) -> None:
    """14.1: time_to_share(accuracies, seconds, share=0.9) and decided(first, second), both of lists of numbers."""
    named("time_to_share", lambda: check_time_to_share(time_to_share))
    named("decided", lambda: check_decided(decided))
    passed("14.1", "the time to 90 % of the end, and a difference of more than twice the spread.")


def check_time_to_share(time_to_share: Callable) -> None:

    def reference(accuracies, seconds, share=0.9):
        first = first_at_least(accuracies, share * accuracies[-1])
        return sum(seconds[: first + 1])

    def compared(target):
        """A mistake that differs in what the accuracies are compared with."""
        return lambda a, s, share=0.9: sum(s[: first_at_least(a, target(a, share)) + 1])

    examine(
        time_to_share,
        reference,
        ([0.1, 0.3, 0.73, 0.86, 0.91, 0.95, 0.6, 0.78, 0.8], [7.0, 1.0, 4.0, 2.0, 3.0, 5.0, 10.0, 6.0, 8.0]),
        ([0.2, 0.46, 0.4, 0.41, 0.5], [3.0, 2.0, 4.0, 1.0, 6.0]),
        ([0.5, 0.75, 0.8, 1.0], [1.0, 2.0, 4.0, 8.0], 0.75),  # just reached
        ([0.9, 0.3, 0.8], [2.0, 3.0, 4.0], 0.5),  # in the first epoch
        ([0.4], [5.0]),
        ([0.3, 0.35, 0.3, 0.4, 0.7], [1.0, 1.0, 1.0, 1.0, 2.5], 1.0),
        mistakes={
            "the epoch that reaches the share counts, too: its seconds are missing": lambda a, s, share=0.9: sum(
                s[: first_at_least(a, share * a[-1])]
            ),
            "these are the seconds of that one epoch: add up those of all epochs before it": lambda a, s, share=0.9: s[
                first_at_least(a, share * a[-1])
            ],
            "this is the number of the epoch: seconds were asked for": lambda a, s, share=0.9: (
                first_at_least(a, share * a[-1]) + 1
            ),
            "this is the place of the epoch in the list: seconds were asked for": lambda a, s, share=0.9: (
                first_at_least(a, share * a[-1])
            ),
            "the accuracies were compared with the share itself: take the share of the last accuracy": compared(
                lambda a, share: share
            ),
            "the accuracies were compared with the best one: the final one is the last": compared(
                lambda a, share: share * max(a)
            ),
            "the share is always 0.9 here: it is an argument": compared(lambda a, share: 0.9 * a[-1]),
            "this is the last epoch that is below the share, and the one after it: the first that reaches it was asked "
            "for": lambda a, s, share=0.9: sum(s[: last_below(a, share * a[-1]) + 2]),
            "these are the seconds of all epochs below the goal, later ones too: stop at the first epoch that reaches "
            "it, and count that one": lambda a, s, share=0.9: sum(
                duration for value, duration in zip(a, s) if value < share * a[-1]
            ),
            "these are the seconds of the whole run": lambda a, s, share=0.9: sum(s),
            "reaching the share exactly counts, too: >=": lambda a, s, share=0.9: sum(
                s[: next(i for i, value in enumerate(a) if value > share * a[-1]) + 1]
            ),
        },
        what="the time",
    )


def first_at_least(values: list[float], target: float) -> int:
    return next((place for place, value in enumerate(values) if value >= target), len(values) - 1)


def last_below(values: list[float], target: float) -> int:
    return max((place for place, value in enumerate(values) if value < target), default=-1)


def check_decided(decided: Callable) -> None:
    """decided(first, second) -> whether the means differ by more than twice the larger standard deviation."""

    def mean(values):
        return sum(values) / len(values)

    def deviation(values, minus=1):
        return (sum((value - mean(values)) ** 2 for value in values) / (len(values) - minus)) ** 0.5

    def differ(spread=deviation, times=2, joined=max, absolute=True, middle=mean):
        def judge(first, second):
            gap = middle(first) - middle(second)
            gap = abs(gap) if absolute else gap
            return gap > times * joined(spread(first), spread(second))

        return judge

    cases = [
        ([0.80, 0.82, 0.84], [0.87, 0.85, 0.83]),  # 3 points apart, both spreads 2
        ([0.70, 0.72, 0.74], [0.80, 0.802, 0.804, 0.806]),  # the second is ahead by far
        ([0.90, 0.90, 0.90], [0.845, 0.86, 0.875]),
        ([0.80, 0.80, 0.83], [0.777, 0.777, 0.777]),  # 1.9 times the spread, and 2.3 times that by n
        ([0.70, 0.72, 0.74], [0.75, 0.77, 0.79]),  # more than twice the larger spread, less than twice their sum
        ([0.50, 0.50, 0.51], [0.60, 0.50, 0.70]),  # the second has the larger spread
        ([0.60, 0.50, 0.70], [0.50, 0.50, 0.51]),  # the first has
        ([0.50, 0.50, 0.50, 0.50, 0.50, 0.66], [0.655, 0.66, 0.665]),  # decided, although single runs overlap
        ([0.70, 0.72, 0.74], [0.738, 0.758, 0.778]),  # 1.9 times the spread, which is the same for both
        ([0.80, 0.80, 0.83], [0.7913, 0.7913, 0.7913]),  # 1.08 times the larger, more than twice the mean spread
        ([0.80, 0.80, 0.83], [0.775, 0.775, 0.745]),  # the means are further apart than the medians
        ([0.80, 0.81, 0.82, 0.83, 0.84], [0.855, 0.865, 0.875, 0.845, 0.835]),  # five seeds
        ([0.80, 0.82, 0.84], [0.80, 0.81, 0.82, 0.83, 0.84]),  # three and five seeds, one mean
    ]
    mistakes = {
        "the sign counts here: a difference is decided whichever of the two is ahead (abs)": differ(absolute=False),
        "the difference was compared with the spread once: twice was asked for": differ(times=1),
        "this is the standard error, the spread divided by the root of n: take the standard deviation itself": differ(
            lambda values: deviation(values) / len(values) ** 0.5
        ),
        "this is the standard deviation with n below the sum: ddof=1 divides by n - 1": differ(
            lambda values: deviation(values, 0)
        ),
        "the smaller of the two spreads was taken: the larger one was asked for": differ(joined=min),
        "the spreads were added up: take the larger of the two": differ(joined=lambda a, b: a + b),
        "the squares of the spreads were added up: take the larger of the two": differ(joined=math.hypot),
        "the mean of the two spreads was taken: take the larger one": differ(joined=lambda a, b: (a + b) / 2),
        "the two spreads were pooled, by the mean of their squares: take the larger one": differ(
            joined=lambda a, b: math.hypot(a, b) / 2**0.5
        ),
        "only the spread of the first is looked at": differ(joined=lambda a, b: a),
        "only the spread of the second is looked at": differ(joined=lambda a, b: b),
        "the medians were compared: take the means": differ(middle=statistics.median),
        "the sums were divided by 3: divide each by the number of its own seeds": differ(
            middle=lambda values: sum(values) / 3
        ),
        "this says when it is not decided": lambda first, second: not differ()(first, second),
    }
    right = differ()
    found = [flag(call(decided, list(first), list(second)), "the verdict") for first, second in cases]
    expected = [right(*case) for case in cases]
    if found == expected:
        return
    for message, mistake in mistakes.items():
        if [mistake(*case) for case in cases] == found:
            raise CheckFailed(message)
    off = next(k for k in range(len(cases)) if found[k] != expected[k])
    raise CheckFailed(f"for {cases[off][0]} and {cases[off][1]} you said {found[off]}, expected {expected[off]}")


# ---- 14.3


@exercise
def check_order_probes(reverse: Callable, freeze: Callable, mirrored: Callable) -> None:
    """14.3: reverse and freeze of clips [B, C, T, H, W]; mirrored(clips, labels, mirror) -> clips, labels."""
    sizes = (drawn(2, 3, 5, 4, 6),), (drawn(1, 2, 4, 3, 7, seed=1),), (drawn(3, 1, 7, 2, 5, seed=2),)
    whole = (torch.randint(0, 256, (2, 1, 6, 3, 4), generator=torch.Generator().manual_seed(3), dtype=torch.uint8),)
    wrong_axes = {
        "this turns round the batch: axis 0 of [B, C, T, H, W] is B": lambda clips: clips.flip(0),
        "this turns round the channels, axis 1: with one channel nothing happens": lambda clips: clips.flip(1),
        "this turns round the rows of a frame, axis 3, and leaves the order of frames": lambda clips: clips.flip(3),
        "this turns round the columns of a frame, axis 4, and leaves the order of frames": lambda clips: clips.flip(4),
        "all three axes of the volume were turned round: only T was asked for": lambda clips: clips.flip(2, 3, 4),
    }
    named(
        "reverse",
        lambda: examine(
            reverse,
            lambda clips: clips.flip(2),
            *sizes,
            whole,
            mistakes={"the frames are in the order that they had": lambda clips: clips} | wrong_axes,
            what="the reversed clips",
            **ON_DATA,
        ),
    )

    def still(place):
        return lambda clips: clips[:, :, [place(clips.shape[2])] * clips.shape[2]]

    named(
        "freeze",
        lambda: examine(
            freeze,
            still(lambda frames: frames // 2),
            *sizes,
            whole,
            mistakes={
                "this is the first frame all the time: the middle one is number T // 2": still(lambda frames: 0),
                "this is the last frame all the time: the middle one is number T // 2": still(
                    lambda frames: frames - 1
                ),
                "this is the frame (T - 1) // 2: where T is even, the task's middle is the next one": still(
                    lambda frames: (frames - 1) // 2
                ),
                "this is the frame before the middle: frames are counted from 0, so it is number T // 2": still(
                    lambda frames: frames // 2 - 1
                ),
                "this is the mean of all frames, a blur of what moves: take one frame": lambda clips: (
                    clips.float().mean(2, keepdim=True).expand(clips.shape).to(clips.dtype)
                ),
                "only one frame comes back: it is wanted at all T places": lambda clips: clips[
                    :, :, clips.shape[2] // 2
                ],
                "only one frame comes back: repeat it T times": lambda clips: clips[
                    :, :, clips.shape[2] // 2 : clips.shape[2] // 2 + 1
                ],
                "nothing was frozen": lambda clips: clips,
            },
            what="the frozen clips",
            **ON_DATA,
        ),
    )
    labels, more = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([1, 1])
    cases = [
        (drawn(5, 2, 3, 4, 6, seed=4), labels, Mirror(3, (1, 0, 2, 4, 3))),
        (drawn(2, 1, 4, 5, 3, seed=5), more, Mirror(2, (0, 2, 1))),
        (drawn(1, 1, 5, 2, 3, seed=6), torch.tensor([0]), Mirror(1, (1, 0))),
    ]

    def in_mirror(offset=1, swap=True, flip=True):
        def mirror_clips(clips, labels, mirror):
            changed = clips.flip(mirror.axis + offset) if flip else clips
            return changed, torch.tensor(mirror.permutation)[labels] if swap else labels

        return mirror_clips

    named(
        "mirrored",
        lambda: examine(
            mirrored,
            in_mirror(),
            *cases,
            mistakes={
                "the wrong axis was flipped: mirror.axis counts the axes of one clip [C, T, H, W], and in a batch each "
                "comes one later": in_mirror(offset=0),
                "the labels are those of before: in a mirror left is right, permutation[label]": in_mirror(swap=False),
                "the labels were swapped, but the clips are as they were": in_mirror(flip=False),
                "columns were flipped, whatever mirror.axis says": lambda clips, labels, mirror: (
                    clips.flip(4),
                    torch.tensor(mirror.permutation)[labels],
                ),
            },
            errors=BY_TENSOR,
            what="the clips, the labels",
            **ON_DATA,
        ),
    )
    passed("14.3", "time backwards, time stopped, and the mirror with the labels that belong to it.")


def named(function: str, check: Callable[[], None]) -> None:
    """A check of one of several functions; its message says which."""
    try:
        check()
    except CheckFailed as failed:
        said = str(failed)
        raise CheckFailed(said if said.startswith(f"{function}:") else f"{function}: {said}") from None


# ---- 14.4


@exercise
def check_shuffle(shuffle: Callable) -> None:
    """14.4: shuffle(clips [B, C, T, H, W], generator) -> each clip's frames in an order of its own, none in place."""
    n, c, t, h, w = shape = (5, 2, 6, 7, 4)
    clips = torch.arange(math.prod(shape)).reshape(shape)  # every voxel tells where it came from

    def run(seed):
        return call(shuffle, clips, torch.Generator().manual_seed(seed))

    with torch.random.fork_rng(devices=[]):  # who draws from torch's own generator gets other numbers in each run
        torch.manual_seed(0)
        found = run(1)
        same_shape(found, clips, "the shuffled clips")
        again, other = run(1), run(2)
        many = [run(seed) for seed in range(3, 23)]
    check_places(found, clips)
    orders = order_of(found, c, t, h, w)
    if len(set(map(tuple, orders.tolist()))) == 1:
        raise CheckFailed(
            "the frames stand as they stood"
            if orders[0].tolist() == list(range(t))
            else "all clips have one order: draw one for each clip"
        )
    if any(sorted(order) != list(range(t)) for order in orders.tolist()):
        raise CheckFailed(
            "some frames stand there twice and others are gone: draw an order (argsort of random numbers, "
            "randperm), not places at random (randint)"
        )
    if all((order.roll(-int(order.argmin())) == torch.arange(t)).all() for order in orders):
        raise CheckFailed("each clip was only rolled: its frames begin elsewhere and follow each other as before")
    if not torch.equal(found, again):
        raise CheckFailed(
            "the same seed gave another order: draw from the generator that is given (generator=generator)"
        )
    if torch.equal(found, other):
        raise CheckFailed(
            "another seed gave the same order: draw from the generator that is given, and set no seed inside"
        )
    in_place = torch.stack([order_of(shuffled, c, t, h, w) == torch.arange(t) for shuffled in (found, other, *many)])
    clips_with = in_place.any(dim=-1).float().mean().item()
    if clips_with:
        raise CheckFailed(
            f"in {clips_with:.0%} of the clips a frame stays at its place, on average "
            f"{in_place.sum(-1).float().mean():.1f} of {t}: "
            "randperm may leave frames where they were. Draw again until every frame has moved"
        )
    small = torch.arange(6 * 4 * 2, dtype=torch.uint8).reshape(6, 1, 4, 2, 1)
    many = draws(shuffle, lambda generator: (small, generator), count=60, what="order")
    orders = {tuple((clip[0, :, 0, 0] % 8 // 2).tolist()) for shuffled in many for clip in shuffled}
    wanted = {order for order in permutations(range(4)) if all(k != place for k, place in enumerate(order))}
    if missing := sorted(wanted - orders):  # by chance in one of 10^17, in one of 10^8 where an order is half as likely
        raise CheckFailed(
            f"of 4 frames only {9 - len(missing)} of the 9 orders in which every frame moves come up in "
            f"{len(small) * len(many)} clips. The order {list(missing[0])}, for example, never does, and all of them "
            "must be possible"
        )
    alone = draws(shuffle, lambda generator: (clips[:1, :, :3].float(), generator), what="order")
    for shuffled in alone:
        same_shape(shuffled, clips[:1, :, :3], "a batch of one clip of three frames, shuffled,")
    two = call(shuffle, small[:, :, :2], torch.Generator().manual_seed(0))
    if not torch.equal(two, small[:, :, :2].flip(2)):
        raise CheckFailed("of two frames there is one order in which both move: they change places")
    if alone[0].dtype != torch.float32 or many[0].dtype != torch.uint8:
        raise CheckFailed("the clips come back in another type: only the order of frames changes")
    passed("14.4", "all frames are there, each whole, and none where it was.")


def order_of(found: torch.Tensor, c: int, t: int, h: int, w: int) -> torch.Tensor:
    """[B, T]: which frame stands where, in clips whose voxels are numbered."""
    return found[:, 0, :, 0, 0] % (c * t * h * w) // (h * w)


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
        raise CheckFailed("the channels changed places: the frames are axis 2 of [B, C, T, H, W]")
    if not torch.equal(place, clips % (h * w)):
        raise CheckFailed(
            "frames are not whole any more, voxels moved within them: only axis 2 of [B, C, T, H, W] changes its order"
        )
    if not torch.equal(frame, frame[:, :, :, :1, :1].expand_as(frame)):
        raise CheckFailed("a frame was put together of several: each place of a frame drew an order of its own")
    if not torch.equal(frame, frame[:, :1].expand_as(frame)):
        raise CheckFailed("the channels of one clip have different orders: one order per clip, for all its channels")


# ---- 14.5


@exercise
def check_drop_and_noise(drop_slices: Callable, add_noise: Callable) -> None:
    """14.5: drop_slices(clips, share, generator) and add_noise(clips uint8, sigma, generator)."""
    named("drop_slices", lambda: check_drop_slices(drop_slices))
    named("add_noise", lambda: check_add_noise(add_noise))
    passed("14.5", "black slices, as many in each clip, and noise that stays between black and white.")


def check_drop_slices(drop_slices: Callable) -> None:
    clips = torch.randint(1, 256, (6, 2, 9, 3, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    check_dropped(call(drop_slices, clips, 1 / 3, torch.Generator()), clips, 3, 1 / 3)
    for share, count in ((1 / 3, 3), (0.6, 5), (0.3, 3), (0.0, 0), (1.0, 9)):
        many = (
            draws(drop_slices, lambda generator: (clips, share, generator), count=6, what="choice of slices")
            if 0 < share < 1
            else [call(drop_slices, clips, share, torch.Generator())]
        )
        for found in many:
            check_dropped(found, clips, count, share)
        black = (many[0] == 0).all(dim=(1, 3, 4))  # [B, T]
        if 0 < share < 1 and (black == black[0]).all():
            raise CheckFailed("the same slices are black in all clips: draw them for each clip")
    together = (torch.cat(many_masks(drop_slices, clips)).float().mean(0) * 3).tolist()  # one on average
    if min(together) < 0.4 or max(together) > 1.9:
        raise CheckFailed("some slices are dropped far more often than others: draw each clip's slices from all T")
    alone = call(drop_slices, clips[:1, :1].float() / 255, 0.5, torch.Generator())
    same_shape(alone, clips[:1, :1], "a single clip, with slices dropped,")
    if alone.dtype != torch.float32:
        raise CheckFailed("the clips come back in another type: a slice becomes 0, and nothing else changes")


def many_masks(drop_slices: Callable, clips: torch.Tensor) -> list[torch.Tensor]:
    found = [call(drop_slices, clips, 1 / 3, torch.Generator().manual_seed(seed)) for seed in range(20)]
    return [(one == 0).all(dim=(1, 3, 4)) for one in found]


def check_dropped(found: torch.Tensor, clips: torch.Tensor, count: int, share: float) -> None:
    same_shape(found, clips, "the clips with slices dropped")
    if found.dtype != clips.dtype:
        raise CheckFailed(f"the clips come back as {found.dtype}, and went in as {clips.dtype}: keep the type")
    black = found == 0
    if not torch.equal(found[~black], clips[~black]):
        raise CheckFailed("voxels of other slices have changed: a slice is black or as it was")
    slices = black.all(dim=(1, 3, 4))  # [B, T]
    if not torch.equal(slices[:, None, :, None, None].expand_as(black), black):
        lone = black.all(dim=(3, 4)).any() and not slices.any()
        raise CheckFailed(
            "a slice is black in one channel and not in the other: T is axis 2 of [B, C, T, H, W]"
            if lone
            else "single voxels, rows or columns are black: a slice is all of [C, H, W] at one place of T"
        )
    counts = slices.sum(dim=1).tolist()
    if counts != [count] * len(clips):
        raise CheckFailed(
            f"of 9 slices {share:.2f} are to be dropped, which is {count} in each clip; here it is "
            f"{', '.join(map(str, counts))} in the six clips"
            + (": drop an exact number, not each slice with that probability" if len(set(counts)) > 1 else "")
        )


def check_add_noise(add_noise: Callable) -> None:
    grey = torch.full((4, 2, 6, 9, 8), 120, dtype=torch.uint8)

    def run(clips, sigma):
        return call(add_noise, clips, sigma, torch.Generator().manual_seed(5))

    found = run(grey, 0.1)
    same_shape(found, grey, "the noisy clips")
    if found.dtype != torch.uint8:
        raise CheckFailed(f"the noisy clips are {found.dtype}, expected uint8: round, clamp to 0 … 255, convert")
    noise = found.double() - 120  # 3,456 voxels
    spread, mean = noise.std().item(), noise.mean().item()
    if spread < 1:
        raise CheckFailed("hardly a voxel has changed: sigma is a share of 255, and voxels go from 0 to 255")
    if mean > 5 and noise.min() >= 0 and (noise == 0).double().mean() > 0.3:
        raise CheckFailed(
            "nothing gets darker, and half of the voxels are as they were: the noise itself was clamped. Add it to the "
            "clips first, then clamp the sum to 0 … 255"
        )
    if mean > 5 and noise.min() >= -1:
        raise CheckFailed("the noise only brightens: it is normal (randn), with mean 0, and not uniform (rand)")
    for what, axis in (("clip", 0), ("channel", 1), ("frame", 2), ("row", 3), ("column", 4)):
        if noise.std(dim=axis).max() < 0.1 * spread:
            raise CheckFailed(f"every {what} has the same noise: draw one number for each voxel")
    if abs(spread - 25.5) > 2:
        raise CheckFailed(
            f"the standard deviation of the noise is {spread:.1f}, expected 0.1 · 255 = 25.5"
            + (": was the root of sigma taken? It is a standard deviation already" if abs(spread - 78) < 8 else "")
        )
    if abs(noise).max() < 2.2 * spread:
        raise CheckFailed("the noise has no long tails: normal noise was asked for (randn)")
    if abs(noise.mean().item()) > 1.6:
        raise CheckFailed(f"the mean of the noise is {noise.mean():.2f}: expected nearly 0")
    draws(add_noise, lambda generator: (grey, 0.1, generator), count=4, what="noise")
    for level, name in ((0, "black"), (255, "white")):
        edge = run(torch.full_like(grey, level), 0.1).double()
        if abs(edge - level).max() > 150:
            raise CheckFailed(
                f"some {name} voxels came out at the other end, {edge[abs(edge - level) > 150][0]:.0f}: uint8 starts "
                "again at 0 after 255. Clamp to 0 … 255 before you convert"
            )
    small = run(torch.full_like(grey, 120), 0.004).double() - 120
    if abs(small.mean().item()) > 0.2:
        raise CheckFailed(f"faint noise has mean {small.mean():.2f}: converting cuts decimals off, so round first")
    if not torch.equal(run(grey, 0.0), grey):
        raise CheckFailed("with sigma 0 the clips should come back as they were")
    same_shape(run(grey[:1, :1, :3], 0.2), (1, 1, 3, 9, 8), "the noisy clips")


# ---- 14.6


@exercise
def check_wrong_side(wrong_side: Callable) -> None:
    """14.6: wrong_side(labels [B], answers [B], permutation) -> of the sided clips whose organ was found, the share
    with the other side."""

    def share(hits, of):
        return hits[of].float().mean()

    def parts(labels, answers, permutation):
        swap = torch.tensor(permutation)
        other = swap[labels]
        return answers == other, other != labels, (answers == labels) | (answers == other), answers != labels, swap

    def counted(formula):
        return lambda labels, answers, permutation: formula(labels, answers, *parts(labels, answers, permutation))

    first = (  # 5 on the right side, 2 on the wrong one, 4 not found; without a side 6 right, 3 wrong
        torch.tensor([0, 1, 2, 5, 3, 4, 1, 2, 5, 0, 4, 3, 5, 2, 0, 4, 5, 1, 0, 5]),
        torch.tensor([0, 2, 2, 4, 3, 3, 1, 5, 5, 1, 2, 1, 5, 2, 5, 4, 5, 0, 0, 5]),
        (0, 2, 1, 4, 3, 5),
    )
    examine(
        wrong_side,
        counted(lambda y, a, other, sided, found, wrong, swap: share(other, sided & found)),
        first,
        (torch.tensor([2, 0, 1, 1, 0]), torch.tensor([0, 2, 1, 0, 1]), (2, 1, 0)),
        (torch.tensor([1]), torch.tensor([0]), [1, 0, 2, 3]),
        (torch.tensor([3, 4, 5, 6, 0, 1]), torch.tensor([4, 4, 6, 5, 1, 0]), (0, 1, 2, 4, 3, 6, 5)),
        (torch.tensor([1, 2, 3]), torch.tensor([1, 2, 3]), (0, 2, 1, 3)),
        mistakes={
            "clips whose organ was not found were counted, too: a kidney called spleen says nothing about "
            "sides": counted(lambda y, a, other, sided, found, wrong, swap: share(other, sided)),
            "the share is of all clips: only those whose class has a side, and whose organ was found, count": counted(
                lambda y, a, other, sided, found, wrong, swap: (other & sided).float().mean()
            ),
            "classes without a side were counted, too: their permutation leads to themselves, so each right answer "
            "looks like the other side": counted(lambda y, a, other, sided, found, wrong, swap: share(other, found)),
            "clips without a side were counted, too, as right and as wrong at once: leave them out (other != "
            "labels)": counted(
                lambda y, a, other, sided, found, wrong, swap: other.sum() / (other.sum() + (~wrong).sum())
            ),
            "this is the number of wrong sides for each right one: divide by both together": counted(
                lambda y, a, other, sided, found, wrong, swap: (other & sided).sum() / (~wrong & sided).sum()
            ),
            "every wrong answer was counted: a kidney called spleen is wrong, but on no other side": counted(
                lambda y, a, other, sided, found, wrong, swap: share(wrong, sided)
            ),
            "this is the share of the wrong answers among sided clips: right answers have found the organ, "
            "too": counted(lambda y, a, other, sided, found, wrong, swap: share(other, sided & wrong)),
            "this is the share on the right side: the share on the wrong side was asked for": counted(
                lambda y, a, other, sided, found, wrong, swap: share(~other, sided & found)
            ),
            "this is a number of clips: divide by how many sided clips had their organ found": counted(
                lambda y, a, other, sided, found, wrong, swap: (other & sided).sum().float()
            ),
            "this is divided by the clips without a side, too": counted(
                lambda y, a, other, sided, found, wrong, swap: (other & sided).sum() / found.sum()
            ),
            "this is the share of sided clips whose organ was found": counted(
                lambda y, a, other, sided, found, wrong, swap: share(found, sided)
            ),
            "an answer with a side is not yet the right organ: it must be one of its two classes": counted(
                lambda y, a, other, sided, found, wrong, swap: share(other, sided & (swap[a] != a))
            ),
        },
        errors=BY_TENSOR,
        what="the share",
    )
    passed("14.6", "of the clips whose organ was found, those on the wrong side.")


# ---- 14.8


@exercise
def check_equal_steps(equal_steps: Callable) -> None:
    """14.8: equal_steps(patients [N], share, steps, batch_size, generator) -> indices [steps, batch_size]."""
    sizes = {41: 5, 7: 3, 300: 8, 12: 4, 55: 6, 8: 2, 90: 7}  # patient -> clips
    owners = torch.tensor([patient for patient, count in sizes.items() for _ in range(count)])
    owners = owners[torch.randperm(len(owners), generator=torch.Generator().manual_seed(3))]
    for share, count in ((0.45, 3), (1.0, 7), (0.01, 1), (0.8, 6)):
        streams = [stream_of(equal_steps, owners, share, 11, 4, seed) for seed in range(8)]
        check_patients(streams, owners, share, count)
        for stream in streams:
            check_pass(stream, owners)
    chosen = draws(equal_steps, lambda g: (owners, 0.3, 30, 4, g), count=12, what="choice of clips")
    if len({tuple(owners[one.flatten()].unique().tolist()) for one in chosen}) == 1:
        raise CheckFailed("every seed chooses the same patients: draw them, too")
    check_orders(stream_of(equal_steps, owners, 0.6, 40, 4))  # 14 to 26 clips: no order comes twice by chance
    few = torch.tensor([5, 5, 9])
    stream = stream_of(equal_steps, few, 0.5, 3, 8)
    check_patients([stream], few, 0.5, 1)
    check_pass(stream, few)
    passed("14.8", "whole patients, and as many steps at every share.")


def stream_of(
    equal_steps: Callable, owners: torch.Tensor, share: float, steps: int, batch_size: int, seed: int = 0
) -> torch.Tensor:
    """The batches as one stream of indices, int64 [steps * batch_size]."""
    nobody = (
        "none of the clips was chosen: draw from patients.unique(), then look for these numbers, not for their places"
        if round(share * len(owners.unique()))
        else f"no patient was drawn: a share of {share} of {len(owners.unique())} patients still means one, max(1, …)"
    )
    hints = {
        "input of size 0": nobody,
        "by zero": nobody,
        "invalid for input of size": f"{steps * batch_size} indices are needed: add passes while there are fewer, "
        "then cut off the rest",
    }
    generator = torch.Generator().manual_seed(seed)
    with Patience(f"your loop does not end: no pass is added to the stream (torch.cat returns a new one), or {nobody}"):
        found = call_with_hints(hints, equal_steps, owners, share, steps, batch_size, generator)
    if isinstance(found, (list, tuple)):
        raise CheckFailed(
            f"the batches are {kind(found)}, expected one tensor [{steps}, {batch_size}]: reshape the stream of indices"
        )
    same_shape(found, (steps, batch_size), f"the batches of {steps} steps with {batch_size} clips")
    if found.dtype != torch.int64:
        raise CheckFailed(f"indices of clips are int64, these are {found.dtype}")
    if found.min() < 0 or found.max() >= len(owners):
        raise CheckFailed("there are indices of no clip: these look like patients. Return places in `patients`")
    return found.flatten()


class Patience(TorchFunctionMode):
    """Within it a loop that has called torch 50,000 times ends with this message, where it would go on for ever. One
    that calls no function of torch is not noticed."""

    def __init__(self, message: str):
        super().__init__()
        self.message, self.left = message, 50_000

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.left -= 1
        if self.left < 0:
            raise CheckFailed(f"{self.message}\n{last_call()}")
        return func(*args, **(kwargs or {}))


def check_patients(streams: list[torch.Tensor], owners: torch.Tensor, share: float, count: int) -> None:
    """With every seed as many patients as were asked for; what was drawn instead is told by how many turn up."""
    everyone = len(owners.unique())
    found = [len(owners[stream].unique()) for stream in streams]
    least, most = min(found), max(found)
    if most <= count:  # with more patients, clips may have been drawn in whatever way
        for stream in streams:
            check_even(stream, owners)
    if least == most == count:
        return
    turn_up = least if least == most else f"{least} to {most}"
    said = f"clips of {turn_up} of the {everyone} patients turn up; a share of {share} is {count}"
    whole = all(len(stream.unique()) == len(clips_of(stream, owners)) for stream in streams)
    if most > count and not whole:
        everybody = ". Clips drawn one by one bring in nearly everybody" if most >= everyone - 1 else ""
        raise CheckFailed(f"{said}: draw patients, then take all of their clips{everybody}")
    if least < most:
        raise CheckFailed(
            f"{said} with every seed: draw from the different patients that there are (their numbers have gaps, and "
            "`patients` repeats each), and none of them twice"
        )
    raise CheckFailed(f"{said}: max(1, round(share · P)), where P counts the different patients")


def clips_of(stream: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    """All clips of the patients that turn up in a stream, as indices."""
    return torch.isin(owners, owners[stream].unique()).nonzero().flatten()


def check_even(stream: torch.Tensor, owners: torch.Tensor) -> None:
    """Of the clips that turn up none does more than once more than another."""
    counts = torch.bincount(stream, minlength=len(owners))
    used = counts[counts > 0]
    if used.max() - used.min() > 1:
        fewest = int(counts[clips_of(stream, owners)].min())
        raise CheckFailed(
            f"some clips turn up {used.max()} times and others {f'{fewest} times' if fewest else 'never'}: go through "
            "all of them before any comes again (passes of randperm, not randint)"
        )


def check_pass(stream: torch.Tensor, owners: torch.Tensor) -> None:
    """The first pass goes through all clips of the patients, shuffled."""
    whole = clips_of(stream, owners)
    if len(stream.unique()) < len(whole):
        raise CheckFailed("some clips of the chosen patients never turn up: a patient's clips are all in or all out")
    first = stream[: len(whole)]
    if len(first.unique()) < len(whole):
        raise CheckFailed("in the first pass a clip comes twice before another has come at all")
    if torch.equal(first, first.sort().values) and len(first) > 8:  # few may be so by chance
        raise CheckFailed("the clips come in their own order: shuffle each pass")
    patients = len(owners[first].unique())
    by_patient = (owners[first][1:] != owners[first][:-1]).sum() + 1
    if patients > 3 and by_patient == patients:
        raise CheckFailed("the clips of one patient follow each other: shuffle all clips of the share together")


def check_orders(stream: torch.Tensor) -> None:
    """No two passes have the same order."""
    size = len(stream.unique())
    passes = stream[: len(stream) // size * size].reshape(-1, size).tolist()
    if all(one == passes[0] for one in passes):
        raise CheckFailed("the clips come in the same order in every pass: draw a new order for each")
    for place, one in enumerate(passes):
        if (earlier := passes.index(one)) < place:
            raise CheckFailed(
                f"the clips come in the same order in passes {earlier + 1} and {place + 1}: draw a new order for each"
            )


# ---- 14.7


@exercise
def check_changes_clips(changes_clips: Callable) -> None:
    """14.7: changes_clips(probe, clips) -> whether the probe changes every clip, and leaves its argument alone."""
    clips = torch.randint(0, 200, (4, 1, 6, 3, 5), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for name, probe, expected, told in idle_probes():
        given, hints = clips.clone(), {}
        if probe is shortened:
            hints = {"your code raised": f"this was a probe that {name}, so compare the shapes before the values"}
        answer = flag(call_with_hints(hints, changes_clips, probe, given, may_change=(0, 1)), "the answer")
        if answer != expected:
            raise CheckFailed(f"a probe that {name}: you said {answer}, expected {expected}. {told}")
    good, spoilt = idle_probes()[0][1], clips.clone()
    if not (flag(call(changes_clips, good, spoilt), "the answer") and torch.equal(spoilt, clips)):
        raise CheckFailed("the clips are others after your test than before, although the probe left them alone")
    still = clips[:, :, :1].expand(clips.shape).contiguous()
    if flag(call(changes_clips, lambda given: given.flip(2), still), "the answer"):
        raise CheckFailed("clips whose frames are all alike, reversed, are the same clips: you said True")
    decimals = drawn(1, 2, 3, 4, 5)
    if not flag(call(changes_clips, lambda given: given + 1e-3, decimals), "the answer"):
        raise CheckFailed("a probe that adds 0.001 to clips with decimals does change them: compare exactly")
    passed("14.7", "idle probes, probes that write into their argument and probes that skip clips are found.")


def shortened(clips: torch.Tensor) -> torch.Tensor:
    """All frames but the last."""
    return clips[:, :, :-1]


def idle_probes() -> list[tuple[str, Callable, bool, str]]:
    """(what the probe does, the probe, whether it is sound, what to say of a wrong answer)"""

    def in_place(clips):
        clips.copy_(clips.flip(2))
        return clips

    def spoils(clips):
        result = clips.flip(2)
        clips.zero_()
        return result

    def one_clip(clips):
        return torch.cat((clips[:-1], clips[-1:].flip(2)))

    def first_clip(clips):
        return torch.cat((clips[:1].flip(2), clips[1:]))

    def all_but_one(clips):
        return torch.cat((clips[:1], clips[1:].flip(2)))

    def one_voxel(clips):
        result = clips.clone()
        result[:, 0, 2, 1, 1] += 1
        return result

    return [
        ("plays the clips backwards", lambda clips: clips.flip(2), True, "Every clip changes, and only in the result"),
        ("returns what it was given", lambda clips: clips, False, "Nothing has changed"),
        (
            "returns a copy",
            lambda clips: clips.clone(),
            False,
            "A copy has the same values: compare values, not objects",
        ),
        (
            "turns round axis 1, the only channel",
            lambda clips: clips.flip(1),
            False,
            "With a single channel nothing changes",
        ),
        (
            "reverses the clips in place and returns them",
            in_place,
            False,
            "It writes into the clips that it was given. If you compare the result with them afterwards, you compare "
            "it with itself: keep a copy from before",
        ),
        (
            "returns reversed clips and blackens those it was given",
            spoils,
            False,
            "The next probe would get black clips: compare the clips with a copy from before",
        ),
        (
            "changes the last clip alone",
            one_clip,
            False,
            "Every clip of the batch must change, not the batch as a whole",
        ),
        ("changes the first clip alone", first_clip, False, "The others did not change: ask for each clip"),
        ("changes all but the first clip", all_but_one, False, "One clip did not change: ask for each"),
        ("changes a single voxel of each clip", one_voxel, True, "Each clip has changed, if only a little"),
        ("loses the last frame", shortened, False, "The result has another shape"),
        ("returns decimals", lambda clips: clips.flip(2).float(), False, "The result has another dtype"),
        (
            "divides all values by 255 and returns decimals",
            lambda clips: clips / 255,
            False,
            "The result has another dtype, and no model expects it",
        ),
    ]
