"""Checks of chapter 11: two views at test time, mixup, stochastic depth."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...volumes import Mirror
from ..ready import ch11 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, learns, pair, passed, same_shape

# ---- 11.1

SWAP = (0, 2, 1, 4, 3)  # class 0 has no side; 1 and 2 are a pair, so are 3 and 4


@exercise
def check_both_sides(both_sides: Callable) -> None:
    """both_sides(model, clips [B, C, T, H, W], mirror) -> logits [B, K], the mean over a clip and its mirror image."""
    generator = torch.Generator().manual_seed(0)
    clips = torch.rand(6, 2, 3, 4, 5, generator=generator)
    weights = torch.randn(clips[0].numel(), len(SWAP), generator=generator)
    swap = list(SWAP)

    def model(batch):
        if batch.shape[1:] != clips.shape[1:]:
            raise CheckFailed(
                f"the model was given {list(batch.shape)}: it takes clips [B, C, T, H, W], here {list(clips.shape)}"
            )
        return batch.flatten(1) @ weights

    for axis in (3, 1):
        found = call(both_sides, model, clips, Mirror(axis, SWAP))
        plain, flipped, wrong_axis = model(clips), model(clips.flip(axis + 1)), model(clips.flip(axis))
        close(
            found,
            (plain + flipped[:, swap]) / 2,
            {
                "the logits of the mirrored clips were not swapped back: where the model now "
                "says left kidney, the clip "
                "was a right one": (plain + flipped) / 2,
                "the logits of both were swapped: those of the clips as they are belong where they are": (
                    plain + flipped
                )[:, swap]
                / 2,
                "the logits of the clips as they are were swapped, those of the mirrored ones were not": (
                    plain[:, swap] + flipped
                )
                / 2,
                "the flip went along the wrong axis: mirror.axis counts the axes of a clip [C, "
                "T, H, W], and a batch has "
                "one more in front": (plain + wrong_axis[:, swap]) / 2,
                "this is the sum of the two, not their mean": plain + flipped[:, swap],
                "only the mirrored clips count here: average them with the clips as they are": flipped[:, swap],
                "only the clips as they are count here: average them with the mirrored ones": plain,
                "probabilities were averaged: the paper averages logits": lambda: (
                    (plain.softmax(1) + flipped.softmax(1)[:, swap]) / 2
                ),
                "the swap exchanged clips, not classes: index the columns, logits[:, swap]": lambda: (
                    (plain + flipped[swap + [5]]) / 2
                ),
            },
            what="the logits",
        )
    other = Mirror(2, (1, 0, 2))

    def small(batch):
        return batch.flatten(1).sin() @ drawn(batch[0].numel(), 3).to(batch.dtype)

    examine(both_sides, finished.both_sides, (small, drawn(2, 1, 4, 3, 6), other), (small, drawn(1, 2, 2, 5, 3), other))
    passed("11.1", "two views of a clip, and each class is read where it stands.")


# ---- 11.2


@exercise
def check_mixup(mixup: Callable) -> None:
    """mixup(clips [B, C, T, H, W], targets [B, K], weight [B]) -> clips, targets, clip i blended with clip i - 1."""
    generator = torch.Generator().manual_seed(1)
    clips = torch.rand(4, 2, 3, 5, 4, generator=generator)  # W = B, so that a weight laid along W goes unnoticed
    targets = torch.eye(6)[[5, 0, 2, 3]]
    weight = torch.tensor([0.9, 0.6, 0.75, 0.2])
    found, found_targets = pair(call(mixup, clips, targets, weight), "clips, targets")

    def blend(batch, w, partner):
        w = w.reshape(-1, *[1] * (batch.ndim - 1))
        return w * batch + (1 - w) * partner

    def rolled(batch, by=1):
        return batch.roll(by, 0)

    def mistakes(batch):
        first = weight[:1].expand(4)
        return {
            "the weights are exchanged: `weight` belongs to the clip itself, 1 - weight to its partner": blend(
                batch, 1 - weight, rolled(batch)
            ),
            "the partner is the clip after: roll(1, 0) brings clip i - 1 to place i (roll(-1, 0) brings i + 1)": blend(
                batch, weight, rolled(batch, -1)
            ),
            "the partner is counted from the other end (flip): take the neighbour, roll(1, 0)": blend(
                batch, weight, batch.flip(0)
            ),
            "one weight was used for the whole batch: each clip has its own": blend(batch, first, rolled(batch)),
            "each clip was blended with itself": batch,
            "the parts do not sum to 1: the partner was added without its share 1 - weight": lambda: (
                batch * weight.reshape(-1, *[1] * (batch.ndim - 1)) + rolled(batch)
            ),
        }

    close(
        found,
        blend(clips, weight, rolled(clips)),
        {
            **mistakes(clips),
            "the weights were laid along W, the last axis: broadcasting counts from the right. Make them "
            "[B, 1, 1, 1, 1] first": weight * clips + (1 - weight) * rolled(clips),
            "roll without an axis moves voxels, not clips: roll(1, 0)": lambda: blend(clips, weight, clips.roll(1)),
        },
        what="the clips",
    )
    if isinstance(found_targets, torch.Tensor) and found_targets.shape == (4,):
        raise CheckFailed(
            "the targets are one number a clip: half a liver and half a spleen is no third class. "
            "Blend the rows [B, K] as you blend the clips"
        )
    same_shape(found_targets, targets, "the targets")
    close(
        found_targets,
        blend(targets, weight, rolled(targets)),
        {
            "the targets stayed as they were: they must be blended in the same parts as the clips": targets,
            **mistakes(targets),
            "the targets were made hard again: keep the parts": lambda: torch.eye(6)[
                blend(targets, weight, rolled(targets)).argmax(1)
            ],
        },
        what="the targets",
    )
    more, one = torch.tensor([0.1, 0.8, 0.35]), torch.tensor([0.3])
    examine(
        mixup,
        finished.mixup,
        (drawn(3, 1, 2, 4, 5), drawn(3, 2, seed=1).softmax(1), more),
        (drawn(1, 2, 3, 2, 2), drawn(1, 4, seed=1).softmax(1), one),
        what="clips, targets",
    )
    passed("11.2", "clips and targets are blended in the same parts, with the same partner.")


# ---- 11.3


@exercise
def check_drop_path(drop_path: Callable) -> None:
    """drop_path(branch [B, N, D], rate, training) -> [B, N, D]."""
    branch, rate = torch.rand(4000, 3, 2, generator=torch.Generator().manual_seed(2)) + 0.5, 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        calm = call(drop_path, branch, rate, False)
        same_shape(calm, branch, "the result with training=False")
        check_evaluation(calm, branch, rate)
        found = call(drop_path, branch, rate, True)
        again = call(drop_path, branch, rate, True)
        whole = call(drop_path, branch, 0.0, True)
    same_shape(found, branch, "the result with training=True")
    close(whole, branch, what="the result at rate 0, which drops nothing,")
    check_training(found, branch, rate)
    if torch.equal(found, again):
        raise CheckFailed("two calls dropped the same clips: each step must draw anew, so set no seed inside")
    check_single_clips(drop_path)
    learns(drop_path, branch, rate, True)
    found = call(drop_path, branch[:5].double(), 0.6, True)
    if found.dtype != torch.float64:
        raise CheckFailed(f"a branch of float64 comes back as {found.dtype}: keep the type that it has")
    passed("11.3", "a clip skips the branch or passes it whole, scaled so that the expectation stays.")


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
            "with training=False clips were dropped: at evaluation every clip passes": found,
        },
        what="the result with training=False",
    )


def check_training(found: torch.Tensor, branch: torch.Tensor, rate: float) -> None:
    zero = found == 0  # [B, N, D]; no value of the branch is 0
    dropped = zero.flatten(1).all(1)  # [B]
    share = zero.float().mean().item()
    if share == 0:
        raise CheckFailed("with training=True and rate=0.3 nothing was dropped")
    if share == 1:
        raise CheckFailed(
            "with training=True everything was dropped, or one coin decided for the whole batch: draw one a clip"
        )
    if not torch.equal(zero, dropped.reshape(-1, 1, 1).expand_as(zero)):
        token = zero.all(2)
        which = "tokens" if torch.equal(zero, token[..., None].expand_as(zero)) else "single values"
        raise CheckFailed(
            f"{which} were dropped, as dropout does it: here a clip skips the branch whole, so draw [B, 1, 1]"
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
