"""Chapter 11: what its checks accept and refuse, and what its cells define."""

import numpy as np
import torch
from torch import nn

from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.course.checks import ch11

from .cases import run_cases

# ---- 11.1


def by_columns(model, clips, mirror):
    mirrored = model(clips.flip(mirror.axis + 1))[:, list(mirror.permutation)]
    return (model(clips) + mirrored) / 2


def by_stack(model, clips, mirror):
    swap = torch.tensor(mirror.permutation)
    views = [model(clips), model(torch.flip(clips, [mirror.axis + 1])).index_select(1, swap)]
    return torch.stack(views).mean(0)


def by_loop(model, clips, mirror):
    logits, mirrored = model(clips).clone(), model(clips.flip(mirror.axis - 4))
    for k, other in enumerate(mirror.permutation):
        logits[:, k] = (logits[:, k] + mirrored[:, other]) / 2
    return logits


def views(average):
    """A solution from its last line: average(plain, mirrored, swap)."""
    return lambda model, clips, mirror: average(
        model(clips), model(clips.flip(mirror.axis + 1)), list(mirror.permutation)
    )


def wrong_axis(model, clips, mirror):
    return (model(clips) + model(clips.flip(mirror.axis))[:, list(mirror.permutation)]) / 2


def in_one_batch(model, clips, mirror):
    plain, mirrored = model(torch.cat([clips, clips.flip(mirror.axis + 1)])).chunk(2)
    return (plain + mirrored[:, list(mirror.permutation)]) / 2


def clip_by_clip(model, clips, mirror):
    return torch.cat([by_stack(model, clip[None], mirror) for clip in clips])


def joined(model, clips, mirror):
    return sum(model(torch.cat([clips, clips.flip(mirror.axis + 1)])).chunk(2)) / 2


test_both_sides = run_cases(
    ch11.check_both_sides,
    right=[by_columns, by_stack, by_loop, in_one_batch, clip_by_clip],
    wrong={
        "mirror detached": (views(lambda a, b, s: (a + b.detach()[:, s]) / 2), "gradient of clips is not"),
        "without gradients": (torch.no_grad()(by_columns), "no gradient reaches"),
        "always the width": (
            lambda m, x, mirror: (m(x) + m(x.flip(4))[:, list(mirror.permutation)]) / 2,
            "is wrong in 30",
        ),
        "the phantom's pairs": (views(lambda a, b, s: (a + b[:, [0, 2, 1, 4, 3]]) / 2), "your code raised IndexError"),
        "the larger": (views(lambda a, b, s: torch.maximum(a, b[:, s])), "is wrong in 30"),
        "over the clips": (lambda *given: by_columns(*given).mean(0), "1 axes instead of 2"),
        "clips flipped in place": (
            lambda m, x, mirror: by_columns(m, x.copy_(x.flip(mirror.axis + 1)), mirror),
            "changes the x",
        ),
        "not swapped back": (views(lambda a, b, s: (a + b) / 2), "not swapped back"),
        "both swapped": (views(lambda a, b, s: ((a + b) / 2)[:, s]), "of both were swapped"),
        "the wrong ones swapped": (views(lambda a, b, s: (a[:, s] + b) / 2), "as they are were swapped"),
        "axis of a clip": (wrong_axis, "one more in front"),
        "sum": (views(lambda a, b, s: a + b[:, s]), "the sum of the two"),
        "mirrored only": (views(lambda a, b, s: b[:, s]), "only the mirrored"),
        "no mirror": (lambda model, clips, mirror: model(clips), "only the clips as they are"),
        "probabilities": (views(lambda a, b, s: (a.softmax(1) + b.softmax(1)[:, s]) / 2), "probabilities"),
        "rows swapped": (views(lambda a, b, s: (a + b[s + [5]]) / 2), "columns"),
        "rows lost": (views(lambda a, b, s: b[s]), r"\[5, 5\], expected \[6, 5\]"),
        "one batch of both": (joined, "not swapped back"),
        "a clip without its batch": (lambda model, clips, mirror: model(clips[0]), "the model was given"),
        "no return": (lambda *_: None, "None"),
        "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 11.2


def wide(weight):
    return weight[:, None, None, None, None]


def by_roll(clips, targets, weight):
    w = weight[:, None]
    return (wide(weight) * clips + (1 - wide(weight)) * clips.roll(1, 0), w * targets + (1 - w) * targets.roll(1, 0))


def by_lerp(clips, targets, weight):
    return (torch.lerp(clips.roll(1, 0), clips, wide(weight)), torch.lerp(targets.roll(1, 0), targets, weight[:, None]))


def one_by_one(clips, targets, weight):
    parts = [
        (w * clips[i] + (1 - w) * clips[i - 1], w * targets[i] + (1 - w) * targets[i - 1]) for i, w in enumerate(weight)
    ]
    return tuple(torch.stack(part) for part in zip(*parts))


def mixed(clips=None, targets=None):
    def solution(c, y, weight):
        right = by_roll(c, y, weight)
        return clips(c, wide(weight)) if clips else right[0], targets(y, weight[:, None]) if targets else right[1]

    return solution


def in_place(clips, targets, weight):
    clips *= wide(weight)
    return clips, targets


test_mixup = run_cases(
    ch11.check_mixup,
    right=[by_roll, by_lerp, one_by_one],
    wrong={
        "partner detached": (mixed(lambda c, w: w * c + (1 - w) * c.roll(1, 0).detach()), "gradient of c is not"),
        "the first left whole": (
            lambda c, y, w: (torch.cat((c[:1], by_roll(c, y, w)[0][1:])), by_roll(c, y, w)[1]),
            "is wrong in 120",
        ),
        "the mean weight": (lambda c, y, w: by_roll(c, y, w.mean().expand(len(w))), "is wrong in"),
        "random partners": (
            mixed(lambda c, w: w * c + (1 - w) * c[torch.randperm(len(c))]),
            "is wrong|with itself|other end|the clip after",
        ),
        "float32 whatever comes": (lambda c, y, w: by_roll(c.float(), y.float(), w.float()), "with tensors of float64"),
        "targets through softmax": (
            lambda c, y, w: (by_roll(c, y, w)[0], by_roll(c, y, w)[1].softmax(1)),
            "targets is wrong",
        ),
        "targets stay": (mixed(targets=lambda y, w: y), "targets stayed"),
        "weights exchanged": (mixed(lambda c, w: (1 - w) * c + w * c.roll(1, 0)), "weights are exchanged"),
        "targets' weights exchanged": (
            mixed(targets=lambda y, w: (1 - w) * y + w * y.roll(1, 0)),
            "weights are exchanged",
        ),
        "the next clip": (
            lambda c, y, w: by_roll(c, y, w)[:1] + (w[:, None] * y + (1 - w[:, None]) * y.roll(-1, 0),),
            "clip after",
        ),
        "from the other end": (mixed(lambda c, w: w * c + (1 - w) * c.flip(0)), "from the other end"),
        "one weight for all": (mixed(lambda c, w: w[0] * c + (1 - w[0]) * c.roll(1, 0)), "one weight"),
        "along W": (mixed(lambda c, w: w.flatten() * c + (1 - w.flatten()) * c.roll(1, 0)), "along W"),
        "voxels rolled": (mixed(lambda c, w: w * c + (1 - w) * c.roll(1)), "moves voxels"),
        "a sum above 1": (mixed(lambda c, w: w * c + c.roll(1, 0)), "do not sum to 1"),
        "itself": (mixed(lambda c, w: w * c + (1 - w) * c), "with itself"),
        "hard targets": (
            mixed(targets=lambda y, w: torch.eye(6)[(w * y + (1 - w) * y.roll(1, 0)).argmax(1)]),
            "hard again",
        ),
        "class numbers": (mixed(targets=lambda y, w: (w * y + (1 - w) * y.roll(1, 0)).argmax(1)), "no third class"),
        "in place": (in_place, "changes the .* that it was given"),
        "weights of another shape": (lambda c, y, w: (w[:, None] * c, y), "your code raised|wrong in"),
        "no return": (lambda *_: None, "returned None"),
    },
)

# ---- 11.3


def by_comparison(branch, rate, training):
    if not training:
        return branch
    stays = torch.rand(len(branch), 1, 1) >= rate
    return branch * stays / (1 - rate)


def by_bernoulli(branch, rate, training):
    if not training or rate == 0:
        return branch
    return branch * torch.empty(branch.shape[0], 1, 1).bernoulli_(1 - rate).div(1 - rate)


def by_dropout(branch, rate, training):
    return branch * nn.functional.dropout(torch.ones(len(branch), 1, 1), rate, training)


def dropped(shape=lambda b: (len(b), 1, 1), keeps=lambda draw, rate: draw >= rate, scale=lambda rate: 1 / (1 - rate)):
    def solution(branch, rate, training):
        if not training or rate == 0:
            return branch
        return branch * keeps(torch.rand(shape(branch)), rate) * scale(rate)

    return solution


def seeded(branch, rate, training):
    torch.manual_seed(0)
    return by_comparison(branch, rate, training)


def written_into(branch, rate, training):
    if training and rate:
        branch[torch.rand(len(branch)) < rate] = 0
        branch /= 1 - rate
    return branch


def exact_share(branch, rate, training):
    if not training:
        return branch
    stays = torch.randperm(len(branch)) >= round(rate * len(branch))
    return branch * stays[:, None, None] / (1 - rate)


def by_numpy(branch, rate, training):
    stays = torch.tensor(np.random.rand(len(branch), 1, 1) >= rate)
    return branch * stays / (1 - rate) if training else branch


def own_generator(branch, rate, training):
    stays = torch.rand(len(branch), 1, 1, generator=torch.Generator().manual_seed(0)) >= rate
    return branch * stays / (1 - rate) if training else branch


test_drop_path = run_cases(
    ch11.check_drop_path,
    right=[by_comparison, by_bernoulli, by_dropout],
    wrong={
        "exactly a share": (exact_share, "on its own|same number"),
        "numpy's generator": (by_numpy, "the draw is not torch's"),
        "scaled by what stayed": (dropped(scale=lambda r: 1), "not scaled"),
        "detached": (lambda b, r, t: by_comparison(b.detach(), r, t), "no gradient reaches"),
        "the notebook's rate": (lambda b, r, t: by_comparison(b, 0.3 if r else r, t), "at rate=0.8, "),
        "a generator with a seed": (own_generator, "two calls dropped the same clips"),
        "float32 whatever comes": (
            lambda b, r, t: by_comparison(b.float(), r, t),
            "float64 comes back as torch.float32",
        ),
        "single values, as dropout": (lambda b, r, t: nn.functional.dropout(b, r, t), "single values"),
        "tokens": (dropped(lambda b: (*b.shape[:2], 1)), "tokens were dropped"),
        "one coin for all": (dropped(lambda b: ()), "one coin|nothing was dropped"),
        "not scaled": (dropped(scale=lambda r: 1), "not scaled"),
        "multiplied": (dropped(scale=lambda r: 1 - r), "multiplied by 1 - rate"),
        "divided by rate": (dropped(scale=lambda r: 1 / r), "divided by rate"),
        "rate is what stays": (dropped(keeps=lambda u, r: u < r), "70 % of the clips"),
        "half of them": (dropped(keeps=lambda u, r: u < 0.5), "expected were about 30%"),
        "at evaluation, too": (lambda b, r, t: by_comparison(b, r, True), "clips were dropped: at evaluation"),
        "scaled at evaluation": (lambda b, r, t: b * (1 - r) if not t else by_comparison(b, r, t), "older form"),
        "divided at evaluation": (
            lambda b, r, t: b / (1 - r) if not t else by_comparison(b, r, t),
            "only training scales",
        ),
        "never": (lambda b, r, t: b, "nothing was dropped"),
        "the same clips always": (seeded, "set no seed"),
        "in place": (written_into, "changes the .* that it was given"),
        "no return": (lambda *_: None, "None"),
    },
)


# ---- the cells


def test_the_chapters_own_functions_are_right():
    chapter = load_definitions(checkout() / "notebooks" / "11_regularisation.ipynb")
    clips, targets = torch.rand(3, 1, 4, 4, 4), torch.eye(3)
    torch.testing.assert_close(chapter.smooth(torch.tensor([2]), 4, 0.2), torch.tensor([[0.05, 0.05, 0.85, 0.05]]))
    mixed_clips, mixed_targets = chapter.mixup(clips, targets, torch.ones(3))
    assert torch.equal(mixed_clips, clips) and torch.equal(mixed_targets, targets)
    moved = chapter.shift(clips[0], (1, 0, -2))
    torch.testing.assert_close(moved[:, 1:, :, :2], clips[0][:, :-1, :, 2:])
    assert not moved[:, 0].any() and not moved[..., 2:].any()
