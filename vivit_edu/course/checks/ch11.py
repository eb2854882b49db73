"""Checks of chapter 11: shift, mirror, the test of labels that follow a flip, smoothing, mixup, stochastic depth."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from ...volumes import Mirror
from ..ready import ch11 as finished
from . import CheckFailed, call, close, drawn, draws, examine, exercise, flag, learns, pair, passed, same_shape
from .calling import call_with_hints
from .parity import check_is_module

SWAP = (0, 2, 1, 4, 3)  # class 0 has no side; 1 and 2 are a pair, so are 3 and 4
OTHER_AXIS = "it flips along another axis than `sides.axis`, and swaps the labels"

# ---- 11.1


@exercise
def check_shift(shift: Callable) -> None:
    """11.1: shift(clips [B, C, T, H, W], offsets int [B, 3]) -> clips of the same shape, 0 where nothing came from."""
    offsets = torch.tensor([[1, -2, 3], [0, 2, -1], [-2, 0, 0]])
    examine(
        shift,
        finished.shift,
        (drawn(3, 2, 4, 5, 6), offsets),
        (drawn(1, 1, 3, 5, 4, seed=1), torch.tensor([[2, 0, -3]])),
        (drawn(2, 1, 3, 4, 5, seed=2), torch.zeros(2, 3, dtype=torch.int64)),
        (drawn(2, 1, 3, 4, 6, seed=3), torch.tensor([[-3, 1, 0], [0, 0, 7]])),  # out of sight
        (drawn(2, 1, 9, 4, 3, seed=4), torch.tensor([[6, -1, 0], [-5, 0, 1]])),  # T is the longest axis
        (drawn(2, 1, 3, 4, 6, seed=5), torch.tensor([[100, 0, 1], [0, -100, 0]])),
        mistakes=_shift_mistakes(),
        errors={"equal size": "an offset beyond ±room moves everything out: clamp it, or make room for it"},
        what="the moved clips",
        gradients=False,  # nothing comes before an augmentation
        dtypes=(torch.float64,),  # numpy has no bfloat16
    )
    bytes_ = (255 * drawn(2, 1, 3, 4, 5, seed=4).sigmoid()).to(torch.uint8)
    found = call(shift, bytes_, torch.tensor([[1, 0, -1], [0, 2, 0]]))
    expected = finished.shift(bytes_, torch.tensor([[1, 0, -1], [0, 2, 0]]))
    close(found, expected, what="the moved clips of uint8")
    if found.dtype != torch.uint8:
        raise CheckFailed(f"clips of uint8 come back as {found.dtype}: keep the type that they have")
    passed("11.1", "every clip is moved on its own, and what comes in is empty.")


def _shift_mistakes() -> dict[str, Callable]:
    def rolled(clips, offsets):
        return torch.stack([clip.roll(tuple(by), (1, 2, 3)) for clip, by in zip(clips, offsets.tolist())])

    def repeated(clips, offsets):
        moved = []
        for clip, offset in zip(clips, offsets.tolist()):
            room = max(map(abs, offset))
            padded = F.pad(clip[None], [room] * 6, mode="replicate")[0]
            t, h, w = (slice(room - by, room - by + size) for by, size in zip(offset, clip.shape[1:]))
            moved.append(padded[:, t, h, w])
        return torch.stack(moved)

    def right(change):
        return lambda clips, offsets: finished.shift(clips, change(offsets))

    return {
        "what leaves on one side comes in on the other, as torch.roll does it: 0 must come in": rolled,
        "the clips were moved the other way: a positive offset moves the content towards higher indices": right(
            lambda offsets: -offsets
        ),
        "the offsets were read in the order W, H, T: they are given along T, H, W (F.pad counts from the last axis)": (
            right(lambda offsets: offsets.flip(1))
        ),
        "all clips were moved by the first one's offset: each has its own": right(
            lambda offsets: offsets[:1].expand_as(offsets)
        ),
        "the edge was repeated where nothing came from: 0 must come in": repeated,
        "only the last axis was moved": right(lambda offsets: offsets * torch.tensor([0, 0, 1])),
        "the offsets were limited to the size of W, but T or H can be longer": lambda clips, offsets: finished.shift(
            clips, offsets.clamp(-clips.shape[4], clips.shape[4])
        ),
        "nothing was moved along T: the offsets are along T, H, W": right(
            lambda offsets: offsets * torch.tensor([0, 1, 1])
        ),
        "nothing was moved": lambda clips, offsets: clips,
    }


# ---- 11.2


@exercise
def check_mirror(mirror: Callable) -> None:
    """11.2: mirror(clips [B, C, T, H, W], labels [B], sides, generator) -> clips, labels; a coin for each clip."""
    for axis, sizes in ((3, (40, 2, 3, 4, 5)), (1, (40, 1, 5, 3, 4))):
        clips, labels = drawn(*sizes, seed=axis), torch.arange(40) % len(SWAP)
        sides = Mirror(axis, SWAP)
        _sometimes(mirror, clips, labels, sides)
        results = draws(mirror, lambda generator: (clips, labels, sides, generator), count=8, what="clips and labels")
        flips = torch.stack([_flipped(result, clips, labels, sides) for result in results])  # [8, B]
        _fair(flips)
    _single_clips(mirror)
    one = drawn(1, 2, 3, 4, 5, seed=7)
    other = Mirror(2, (1, 0, 2))
    for seed in range(6):
        given = one.double(), torch.tensor([0]), other
        found = pair(call(mirror, *given, torch.Generator().manual_seed(seed)), "clips, labels")
        _flipped(found, *given)
        if found[0].dtype != torch.float64:
            raise CheckFailed(f"clips of float64 come back as {found[0].dtype}: keep the type that they have")
    passed("11.2", "a mirrored right organ is called a left one, and each clip has a coin of its own.")


def _sometimes(mirror, clips, labels, sides):
    """Fails where no clip is ever flipped, or every clip always is."""
    flips = []
    for seed in range(8):
        result = call(mirror, clips, labels, sides, torch.Generator().manual_seed(seed))
        flips.append(_flipped(result, clips, labels, sides))
    if not torch.stack(flips).any():
        raise CheckFailed(
            "no clip is ever flipped: each is flipped with probability 1/2 (torch.randint(0, 2, …) gives 0 and 1)"
        )
    if torch.stack(flips).all():
        raise CheckFailed("every clip is flipped: each is flipped with probability 1/2")


def _flipped(result, clips, labels, sides):
    """Which clips were flipped, bool [B], after clips and labels have been held against each other."""
    found, told = pair(result, "clips, labels")
    same_shape(found, clips, "the clips")
    same_shape(told, labels, "the labels")
    if told.dtype != torch.int64:
        raise CheckFailed(f"the labels come back as {told.dtype}, expected torch.int64, as they were given")
    image, swap = clips.flip(sides.axis + 1), torch.tensor(sides.permutation)
    stayed, turned = (_each_equal(found, other) for other in (clips, image))
    if not (stayed | turned).all():
        wrong = clips.flip(sides.axis) if sides.axis > 1 else None
        if wrong is not None and (stayed | _each_equal(found, wrong)).all():
            raise CheckFailed(
                "the flip went along the wrong axis: sides.axis counts the axes of a clip [C, T, H, W], and a batch "
                "has one more in front"
            )
        if any((stayed | _each_equal(found, clips.flip(axis))).all() for axis in (2, 3, 4)):
            raise CheckFailed("the flip went along another axis than sides.axis, counted in a clip [C, T, H, W]")
        if _each_equal(found, clips.flip(0)).any():
            raise CheckFailed("clips have changed places: flip an axis of space, not the batch")
        raise CheckFailed("a clip came back that is neither the one given nor its mirror image along sides.axis")
    right = torch.where(turned, swap[labels], labels)
    if torch.equal(told, right):
        return turned
    if torch.equal(told, labels):
        raise CheckFailed(
            "clips were flipped and their labels stayed: a mirrored right kidney is a left one. "
            "sides.permutation[k] is what class k becomes"
        )
    if torch.equal(told, swap[labels]):
        raise CheckFailed("all labels were swapped: only those of the clips that were flipped may change")
    if torch.equal(told, torch.where(turned, labels, swap[labels])):
        raise CheckFailed("the labels of the clips that stayed were swapped, and those of the flipped ones were not")
    if torch.equal(told, _one_class_after_the_other(labels, turned, sides)):
        raise CheckFailed(
            "the swaps undo each other: a label that has become 2 is changed again when the loop comes to class 2. "
            "Look all labels up at once, table[labels], or compare with the labels that were given"
        )
    raise CheckFailed(
        "clips and labels were not changed together: toss one coin per clip, and use it for the clip and for its label"
    )


def _one_class_after_the_other(labels, turned, sides):
    """The labels after a loop over the classes that looks at what it has changed before."""
    labels = labels.clone()
    for k, j in enumerate(sides.permutation):
        labels[turned & (labels == k)] = j
    return labels


def _each_equal(one, other):
    return (one == other).flatten(1).all(dim=1) if one.shape == other.shape else torch.zeros(len(one)).bool()


def _fair(flips):
    """flips: bool [runs, B], of which about a half are True, and not in step."""
    if (flips == flips[:, :1]).all():
        raise CheckFailed("one coin decided for the whole batch: each clip has a coin of its own")
    share = flips.float().mean().item()
    if abs(share - 0.5) > 0.15:
        raise CheckFailed(f"{share:.0%} of the clips were flipped, expected about a half")
    if (flips.sum(dim=1) == flips[0].sum()).all():
        raise CheckFailed("every batch has the same number of flipped clips: each clip is a draw of its own")


def _single_clips(mirror):
    """Batches of one clip: both things must happen."""
    clip, label = drawn(1, 1, 2, 3, 4, seed=5), torch.tensor([3])
    sides, flips = Mirror(2, SWAP), []
    for seed in range(40):
        found = call(mirror, clip, label, sides, torch.Generator().manual_seed(seed))
        flips.append(bool(_flipped(found, clip, label, sides)))
    if not 8 <= sum(flips) <= 32:
        raise CheckFailed(f"of 40 batches of one clip {sum(flips)} were flipped, expected about a half")


# ---- 11.3


@exercise
def check_labels_follow(labels_follow: Callable) -> None:
    """11.3: labels_follow(augmentation, clips, labels, sides) -> whether every label is the one that belongs there."""
    clips, labels, sides = drawn(10, 1, 3, 4, 5, seed=3), torch.arange(10) % len(SWAP), Mirror(3, SWAP)
    for good in (True, False):
        for name, augmentation in _augmentations(sides, good).items():
            found = flag(call(labels_follow, augmentation, clips, labels, sides), "the result")
            if found != good:
                said = "passes" if found else "refuses"
                what = "wrong" if found else "right"
                hint = "" if found else _axis_of_a_batch(labels_follow, clips, labels, sides)
                raise CheckFailed(f"your test {said} an augmentation that is {what}: {name}{hint}")
    for batch in range(8):
        if flag(call(labels_follow, _forgets_in_batch(batch, sides), clips, labels, sides), "the result"):
            raise CheckFailed(
                "your test passes an augmentation that is wrong: in one batch out of eight it forgets the labels, so "
                "call it more often"
            )
    other = Mirror(1, (1, 0, 2))
    if not flag(call(labels_follow, _thorough(other), clips, labels % 3, other), "the result"):
        raise CheckFailed(
            "your test refuses a right augmentation of other classes and another axis: take both from `sides`"
        )
    count = sum(len(_augmentations(sides, good)) for good in (True, False)) + 2
    passed("11.3", f"your test tells right from wrong for {count} augmentations out of {count}.")


def _axis_of_a_batch(labels_follow, clips, labels, sides):
    """What explains a test that takes the flip along another axis for the right one, or ""."""
    other = _augmentations(sides, good=False)[OTHER_AXIS]
    if not flag(call(labels_follow, other, clips, labels, sides), "the result"):
        return ""
    return (
        ". Your mirror image is flipped along another axis: sides.axis counts the axes of a clip [C, T, H, W], and a "
        "batch has one more in front"
    )


def _forgets_in_batch(batch, sides):
    """A right augmentation, but for one batch out of eight: counted by calls, so that no seed decides."""
    calls = itertools.count()

    def augmentation(clips, labels, generator):
        if next(calls) % 8 == batch:
            return clips.flip(sides.axis + 1), labels
        return finished.mirror(clips, labels, sides, generator)

    return augmentation


def _thorough(sides):
    return lambda clips, labels, generator: finished.mirror(clips, labels, sides, generator)


def _augmentations(sides: Mirror, good: bool) -> dict[str, Callable]:
    """Right or wrong augmentations by what they do."""
    swap = torch.tensor(sides.permutation)

    def toss(clips, generator):
        return torch.rand(len(clips), generator=generator) < 0.5

    def made(new_clips=None, new_labels=None):
        def augmentation(clips, labels, generator):
            coin = toss(clips, generator)
            image = clips.flip(sides.axis + 1)
            found = torch.where(coin.reshape(-1, 1, 1, 1, 1), image, clips)
            told = torch.where(coin, swap[labels], labels)
            if new_clips is not None:
                found = new_clips(clips, coin, generator)
            if new_labels is not None:
                told = new_labels(labels, coin, generator)
            return found, told

        return augmentation

    if good:
        return {
            "each clip has its coin": _thorough(sides),
            "it never flips, and leaves every label": lambda clips, labels, generator: (clips.clone(), labels.clone()),
            "it flips every clip and swaps every label": lambda clips, labels, generator: (
                clips.flip(sides.axis + 1),
                swap[labels],
            ),
            "one coin decides for the whole batch, for clips and labels alike": lambda clips, labels, generator: (
                (clips.flip(sides.axis + 1), swap[labels])
                if torch.rand((), generator=generator) < 0.5
                else (clips, labels)
            ),
        }

    def cycled(labels, coin, generator):  # the next class: right for the first of each pair, wrong for the second
        return torch.where(coin, torch.where(labels % 2 == 1, labels + 1, labels), labels)

    def liver_too(labels, coin, generator):
        return torch.where(coin & (labels == 0), 1, torch.where(coin, swap[labels], labels))

    def other_axis(clips, coin, generator):
        return torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(sides.axis), clips)

    def shuffled(clips, coin, generator):
        found = torch.where(coin.reshape(-1, 1, 1, 1, 1), clips.flip(sides.axis + 1), clips)
        return found.roll(1, 0)

    return {
        "it flips clips and leaves their labels": made(new_labels=lambda labels, coin, generator: labels),
        "it swaps labels and leaves the clips": made(new_clips=lambda clips, coin, generator: clips),
        "it swaps the labels of the clips that were not flipped": made(
            new_labels=lambda labels, coin, generator: torch.where(coin, labels, swap[labels])
        ),
        "it swaps all labels, whichever clips were flipped": made(
            new_labels=lambda labels, coin, generator: swap[labels]
        ),
        "it tosses one coin for a clip and another one for its label": made(
            new_labels=lambda labels, coin, generator: torch.where(toss(labels, generator), swap[labels], labels)
        ),
        "it turns every right into a left, and leaves a mirrored left as it was": made(new_labels=cycled),
        "it calls a mirrored organ without a side by another name": made(new_labels=liver_too),
        OTHER_AXIS: made(new_clips=other_axis),
        "it gives each clip the label of its neighbour": made(new_clips=shuffled),
    }


# ---- 11.4


@exercise
def check_smooth(smooth: Callable) -> None:
    """11.4: smooth(labels int [B], classes, s) -> targets [B, classes]."""
    labels = torch.tensor([2, 0, 4, 2])

    def others(labels, classes, s):
        hard = F.one_hot(labels, classes).float()
        return (1 - s) * hard + (1 - hard) * s / (classes - 1)

    examine(
        smooth,
        finished.smooth,
        (labels, 5, 0.2),
        (torch.tensor([1]), 3, 0.45),
        (torch.tensor([6, 3]), 7, 0.0),
        (torch.tensor([0, 1]), 4, 1.0),
        mistakes={
            "the share s was spread over the other classes only: all K classes get s / K, the right one too": others,
            "the rows do not sum to 1: what the classes get has to be taken from the label": lambda y, k, s: (
                F.one_hot(y, k) + s / k
            ),
            "the rows do not sum to 1: the label is one of the K classes, so it gets 1 - s + s/K": lambda y, k, s: (
                (1 - s) * F.one_hot(y, k) + (1 - F.one_hot(y, k)) * s / k
            ),
            "every class got the whole share s: spread it, s / K each": lambda y, k, s: (1 - s) * F.one_hot(y, k) + s,
            "the label kept the share s, and the rest was spread: `s` is the share that is spread": lambda y, k, s: (
                s * F.one_hot(y, k) + (1 - s) / k
            ),
            "nothing was spread": lambda y, k, s: (1 - s) * F.one_hot(y, k).float(),
            "these are hard targets: s was not used": lambda y, k, s: F.one_hot(y, k).float(),
            "the share was divided by the number of clips: K is the number of classes": lambda y, k, s: (
                (1 - s) * F.one_hot(y, k) + s / len(y)
            ),
        },
        what="the targets",
        gradients=False,
        dtypes=(),
    )
    passed("11.4", "the label keeps most, and every class gets the same share of the rest.")


# ---- 11.5


@exercise
def check_mixup(mixup: Callable) -> None:
    """11.5: mixup(clips [B, C, T, H, W], targets [B, K], weight [B]) -> both, clip i blended with clip i - 1."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.rand(4, 2, 3, 5, 4, generator=generator)  # W = B, so that a weight laid along W goes unnoticed
    targets = torch.eye(6)[[5, 0, 2, 3]]
    weight = torch.tensor([0.9, 0.6, 0.75, 0.2])
    results = [pair(call(mixup, clips, targets, weight), "clips, targets") for _ in range(4)]
    found, found_targets = results[0]
    if any(_differ(part, other) for result in results for part, other in zip(result, results[0])):
        raise CheckFailed("the partner is drawn at random: take clip i - 1, since batches are shuffled already")
    failed = {}
    for name, look, part, given in (
        ("clips", _mixed_clips, found, clips),
        ("targets", _mixed_targets, found_targets, targets),
    ):
        try:
            look(part, given, weight)
        except CheckFailed as error:
            failed[name] = str(error)
    if failed:
        name, said = next(iter(failed.items()))
        other = {"clips": "targets", "targets": "clips"}[name]
        raise CheckFailed(f"{said}{'' if other in failed else f' (the {other} are right)'}")
    more, one = torch.tensor([0.1, 0.8, 0.35]), torch.tensor([0.3])
    examine(
        mixup,
        finished.mixup,
        (drawn(3, 1, 2, 4, 5), drawn(3, 2, seed=1).softmax(1), more),
        (drawn(1, 2, 3, 2, 2), drawn(1, 4, seed=1).softmax(1), one),
        what="clips, targets",
        gradients=False,  # nothing comes before the clips and targets, and the weight is drawn
        dtypes=(torch.float64,),  # numpy has no bfloat16
    )
    passed("11.5", "clips and targets are blended in the same parts, with the same partner.")


def _differ(one, other):
    """Whether two results of one shape hold other numbers."""
    tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
    return tensors and one.shape == other.shape and not torch.equal(one, other)


def _blend(batch, weight, partner):
    w = weight.reshape(-1, *[1] * (batch.ndim - 1))
    return w * batch + (1 - w) * partner


def _mixed_clips(found, clips, weight):
    partners = clips.roll(1, 0)
    close(
        found,
        _blend(clips, weight, partners),
        {
            **_mixup_mistakes(clips, weight, "clips"),
            "the weights were laid along W, the last axis: broadcasting counts from the right. Make them "
            "[B, 1, 1, 1, 1] first": weight * clips + (1 - weight) * partners,
            "roll without an axis moves voxels, not clips: roll(1, 0)": lambda: _blend(clips, weight, clips.roll(1)),
        },
        what="the clips",
    )


def _mixed_targets(found, targets, weight):
    right = _blend(targets, weight, targets.roll(1, 0))
    if isinstance(found, torch.Tensor) and found.shape == targets.shape[:1]:
        raise CheckFailed(
            "the targets are one number per clip: half a liver and half a spleen is not a third class. "
            "Blend the rows [B, K] as you blend the clips"
        )
    close(
        found,
        right,
        {
            "the targets stayed as they were: they must be blended in the same parts as the clips": targets,
            **_mixup_mistakes(targets, weight, "targets"),
            "the targets were made hard again: keep the parts": lambda: torch.eye(targets.shape[1])[right.argmax(1)],
        },
        what="the targets",
    )


def _mixup_mistakes(batch, weight, what):
    def overwritten():
        mixed = batch.clone()
        for i, w in enumerate(weight):
            mixed[i] = w * mixed[i] + (1 - w) * mixed[i - 1]
        return mixed

    partners, first = batch.roll(1, 0), weight[:1].expand(len(batch))
    return {
        f"the weights of the {what} are exchanged: `weight` belongs to the clip itself, 1 - weight to its partner": (
            _blend(batch, 1 - weight, partners)
        ),
        f"the partner of the {what} is the one after: roll(1, 0) brings clip i - 1 to place i (roll(-1, 0) brings "
        "i + 1)": _blend(batch, weight, batch.roll(-1, 0)),
        f"the partner of the {what} is counted from the other end (flip): take the neighbour, roll(1, 0)": (
            _blend(batch, weight, batch.flip(0))
        ),
        f"the {what} are written into while they are still read: the loop blends with a neighbour that was blended "
        "already. Take partners from what was given": overwritten,
        f"one weight was used for all {what}: each clip has its own": _blend(batch, first, partners),
        f"the {what} were blended with themselves: the partner is clip i - 1": batch,
        f"the parts of the {what} do not sum to 1: the partner was added without its share 1 - weight": (
            batch * weight.reshape(-1, *[1] * (batch.ndim - 1)) + partners
        ),
    }


# ---- 11.7

ONE_PER_CLIP = "one number per clip, shape [B, 1, …, 1], with as many axes as the branch"


@exercise
def check_stochastic_depth(StochasticDepth: Callable) -> None:
    """11.7: StochasticDepth(rate) maps a branch [B, ...] to the same shape, in training with some clips dropped."""
    _is_a_module(StochasticDepth)

    def drop_path(branch, rate, training):
        return StochasticDepth(rate).train(training)(branch)

    hints = {"must match": f"draw {ONE_PER_CLIP}"}
    branch, rate = torch.rand(4000, 3, 2, generator=torch.Generator().manual_seed(2)) + 0.5, 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        calm = call(drop_path, branch, rate, False)
        same_shape(calm, branch, "the result in eval mode")
        check_evaluation(calm, branch, rate)
        found = call_with_hints(hints, drop_path, branch, rate, True)
        again = call(drop_path, branch, rate, True)
        same_shape(found, branch, "the result in train mode")
        check_training(found, branch, rate)
        whole = call(drop_path, branch, 0.0, True)
        module = StochasticDepth(rate).train()
        of_one_module = call(module, branch), call(module, branch)
    if not torch.allclose(whole, branch):
        raise CheckFailed(
            "at rate 0 nothing is dropped or scaled, but the branch comes back changed: take the rate that the module "
            "was given, and write none into the code"
        )
    if torch.equal(found, again) or torch.equal(*of_one_module):
        raise CheckFailed("two calls dropped the same clips: each step must draw anew, so set no seed inside")
    check_single_clips(drop_path)
    learns(drop_path, branch, rate, True)
    four = drawn(6, 2, 3, 4, seed=6).abs() + 1  # Model 3's grid has four axes
    grid = call_with_hints(hints, drop_path, four, 0.5, True)
    same_shape(grid, (6, 2, 3, 4), "the result for a branch [B, nt, S, D]")
    if not ((grid == 0).flatten(1).all(1) | (grid != 0).flatten(1).all(1)).all():
        raise CheckFailed("in a branch [B, nt, S, D] parts of a clip were dropped: one draw per clip, for all its axes")
    for dtype in (torch.float64, torch.bfloat16):
        found = call(drop_path, branch[:5].to(dtype), 0.6, True)
        if found.dtype != dtype:
            raise CheckFailed(f"a branch of {dtype} comes back as {found.dtype}: keep the type that it has")
    passed("11.7", "a clip skips the branch or passes it whole, scaled so that the expectation stays.")


def _is_a_module(cls: Callable) -> None:
    module = call(cls, 0.25)
    check_is_module(module)
    if list(module.parameters()):
        raise CheckFailed("the module has parameters, but there is nothing to learn here: keep the rate as a number")


def check_single_clips(drop_path: Callable) -> None:
    """One clip at a time, and at another rate: each is a draw of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        branch, start = drawn(40, 2, 3, seed=5).abs() + 1, torch.get_rng_state()
        first = call(drop_path, branch, 0.5, True)
        torch.set_rng_state(start)
        if not torch.equal(first, call(drop_path, branch, 0.5, True)):
            raise CheckFailed(
                "the draw is not torch's, but a run must repeat after torch.manual_seed(…): use torch.rand"
            )
        for clips, rate in ((1, 0.8), (3, 0.25)):
            branch = drawn(clips, 2, 3, seed=5).abs() + 1
            found = torch.stack([call(drop_path, branch, rate, True) for _ in range(300)])
            share = (found == 0).float().mean().item()
            if abs(share - rate) > 0.1:
                raise CheckFailed(
                    f"in 300 batches of {clips} clip{'s' * (clips > 1)} at rate={rate}, {share:.0%} were dropped: each "
                    "clip is dropped with probability rate, on its own"
                )
            kept = (found / branch)[found != 0]
            close(kept, torch.full_like(kept, 1 / (1 - rate)), what=f"the factor of what stays at rate={rate}")
            counts = (found[:, :, 0, 0] == 0).sum(dim=1)
            if clips > 1 and len(counts.unique()) < 3:
                raise CheckFailed("every batch drops the same number of clips: each clip is a draw of its own")


def check_evaluation(found: torch.Tensor, branch: torch.Tensor, rate: float) -> None:
    close(
        found,
        branch,
        {
            "at evaluation the branch was scaled by 1 - rate: that belongs to the older form, which does not scale in "
            "training. Here training scales, and evaluation returns the branch as it is": branch * (1 - rate),
            "at evaluation the branch was scaled by 1 / (1 - rate): only training scales": branch / (1 - rate),
        }
        if not (found == 0).any()
        else {
            "in eval mode clips were dropped: at evaluation every clip passes": found,
        },
        what="the result in eval mode",
    )


def _added_to_itself(found, branch, rate):
    """Whether some clips are as they were, and the others have the dropped and scaled branch added."""
    same = (found == branch).flatten(1).all(1)
    return bool(same.any() and not same.all()) and torch.allclose(found[~same], branch[~same] * (1 + 1 / (1 - rate)))


def check_training(found: torch.Tensor, branch: torch.Tensor, rate: float) -> None:
    zero = found == 0  # [B, N, D]; no value of the branch is 0
    dropped = zero.flatten(1).all(1)  # [B]
    share = zero.float().mean().item()
    if share == 0 and _added_to_itself(found, branch, rate):
        raise CheckFailed(
            "the branch was added to what stays of it: return what stays alone, since the block adds it to z"
        )
    if share == 0:
        raise CheckFailed("in train mode at rate=0.3 nothing was dropped")
    if share == 1:
        raise CheckFailed(
            "in train mode everything was dropped, or one coin decided for the whole batch: draw one per clip"
        )
    if not torch.equal(zero, dropped.reshape(-1, 1, 1).expand_as(zero)):
        token = zero.all(2)
        which = "tokens" if torch.equal(zero, token[..., None].expand_as(zero)) else "single values"
        raise CheckFailed(
            f"{which} were dropped, as dropout does it: here a clip skips the branch whole. Draw {ONE_PER_CLIP}"
        )
    if abs(share - (1 - rate)) < 0.05:
        raise CheckFailed(
            "70 % of the clips were dropped at rate=0.3: `rate` is the share that skips, not the share that stays"
        )
    if abs(share - rate) > 0.05:
        raise CheckFailed(f"{share:.0%} of the clips were dropped, expected were about {rate:.0%}")
    kept = branch[~dropped]
    close(
        found[~dropped],
        kept / (1 - rate),
        {
            "what stays was not scaled: over many steps the branch gives only 70 % of what it gives at evaluation. "
            "Divide by 1 - rate": kept,
            "what stays was multiplied by 1 - rate: divide by it": kept * (1 - rate),
            "what stays was divided by rate: divide by 1 - rate, the share that stays": kept / rate,
        },
        what="what stays",
    )
