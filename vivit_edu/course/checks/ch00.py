"""Checks of chapter 00: a film strip, the means of blocks, a first model, its accuracy, a training step, and a clip
that tells."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange, reduce
from torch import nn

from ..ready import ch00 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, kind, passed, same_shape
from .calling import MEANS_AS_COLUMN

BLOCKS = "b 1 (nt pt) (nh ph) (nw pw) -> b (nt nh nw)"


@exercise
def check_film_strip(film_strip: Callable) -> None:
    """00.1: film_strip(clip [1, T, H, W]) -> [H, T·W], the frames side by side."""
    examine(
        film_strip,
        finished.film_strip,
        (drawn(1, 3, 4, 5),),
        (torch.arange(24, dtype=torch.uint8).view(1, 2, 4, 3),),  # grey values as they are stored
        (drawn(1, 1, 3, 2),),  # a single frame
        (drawn(1, 4, 1, 6),),
        mistakes={
            "looks as if time were inside width: (t w) keeps the columns of a frame together, (w t) mixes the "
            "frames": lambda c: rearrange(c, "1 t h w -> h (w t)"),
            "the numbers were only divided differently: reshape never moves a value, rearrange does": lambda c: (
                c.reshape(c.shape[2], -1)
            ),
            "the frames are below each other: time goes next to the width": lambda c: c[0].flatten(0, 1),
            "the strip lies on its side: rows first, then columns": lambda c: rearrange(c, "1 t h w -> (t w) h"),
            "the channel is still there: a picture has two axes": lambda c: rearrange(c, "c t h w -> c h (t w)"),
            "every frame lies on its side: h is the row": lambda c: rearrange(c, "1 t h w -> w (t h)"),
            "the frames run backwards: the first one belongs on the left": lambda c: finished.film_strip(c.flip(1)),
            "this is a single frame: the strip has all T of them": lambda c: c[0, 0],
        },
        what="the film strip",
    )
    passed("00.1", "one line of einops says where every voxel goes.")


@exercise
def check_block_means(block_means: Callable) -> None:
    """00.2: block_means(clips [B, 1, T, H, W], size) -> [B, N], N = nt · nh · nw."""

    def sums(clips, size):
        return finished.block_means(clips, size) * size**3

    def largest(clips, size):
        return reduce(clips, BLOCKS, "max", pt=size, ph=size, pw=size)

    def grid(clips, size):
        return reduce(clips, "b 1 (nt pt) (nh ph) (nw pw) -> b nt nh nw", "mean", pt=size, ph=size, pw=size)

    def places(clips, size):
        return reduce(clips, "b 1 (nt pt) (nh ph) (nw pw) -> b (pt ph pw)", "mean", pt=size, ph=size, pw=size)

    def striding(clips, size):
        return reduce(clips, "b 1 (pt nt) (ph nh) (pw nw) -> b (nt nh nw)", "mean", pt=size, ph=size, pw=size)

    def flat(clips, size):
        return reduce(clips, "b 1 t (nh ph) (nw pw) -> b (t nh nw)", "mean", ph=size, pw=size)

    def one_row(clips, size):
        return finished.block_means(clips, size).flatten()

    def over_255(clips, size):
        return finished.block_means(clips, size) / 255

    examine(
        block_means,
        finished.block_means,
        (drawn(2, 1, 6, 4, 8), 2),
        (drawn(1, 1, 3, 9, 6), 3),  # one clip, and another size
        (drawn(3, 1, 2, 1, 4), 1),  # blocks of a single voxel
        mistakes={
            "the voxels were only divided differently: reshape and view cut the clip in the order of memory, so a "
            "'block' is a piece of a few rows": lambda c, p: c.reshape(len(c), -1, p**3).mean(dim=2),
            "these are sums: take the mean of each block": sums,
            "this is the largest voxel of each block: take the mean": largest,
            "the blocks are still in their grid: one axis of N numbers per clip": grid,
            "the blocks come in another order: time first, then rows, then columns, (nt nh nw)": lambda c, p: reduce(
                c, "b 1 (nt pt) (nh ph) (nw pw) -> b (nw nh nt)", "mean", pt=p, ph=p, pw=p
            ),
            "nt and pt have changed places: what stays on the right counts the blocks, (nt nh nw), and the mean runs "
            "over the voxels in a block": places,
            "the voxels of a block are not next to each other: in brackets the last letter runs fastest, so it is "
            "(nt pt) and not (pt nt)": striding,
            "the mean runs over rows and columns only: a block is `size` frames deep": flat,
            "the clips are joined together: keep the axis b": one_row,
            "the channel is still there: [B, N]": lambda c, p: finished.block_means(c, p)[:, None],
            "this is a single number per clip: take the mean block by block": lambda c, p: c.flatten(1).mean(dim=1),
            "the mean was divided by 255: the clips that come in are in [0, 1] already": over_255,
        },
        errors={"can't divide axis": "take the block's edges from `size`"},
        dtypes=(torch.float64,),  # avg_pool3d is a right answer too, and has no bfloat16
        what="the list of means",
    )
    passed("00.2", "each block has become one number, and the blocks keep their order.")


@exercise
def check_tiny_model(TinyModel: Callable) -> None:
    """00.3: TinyModel(numbers, width, classes), from means [B, N] to logits [B, K]."""
    numbers, width, classes = 6, 7, 5
    if not (isinstance(TinyModel, type) and issubclass(TinyModel, nn.Module)):
        raise CheckFailed(f"expected the class TinyModel, a subclass of nn.Module; this is {kind(TinyModel)}")
    model = call(TinyModel, numbers, width, classes)
    for name, shape in (("hidden", (width, numbers)), ("head", (classes, width))):
        _check_part(model, name, shape)
    hidden, head, relu = model.hidden, model.head, torch.relu
    with torch.no_grad():  # large numbers, so that everything left out shows
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=parameter.numel()))

    def centred(means):
        return means - means.mean(dim=1, keepdim=True)

    def then(*steps):
        def run(values):
            for step in steps:
                values = step(values)
            return values

        return run

    right = then(centred, hidden, relu, head)
    examine(
        model,
        right,
        (drawn(4, numbers).sigmoid(),),
        (drawn(1, numbers, seed=1).sigmoid(),),  # one clip
        (drawn(numbers, numbers, seed=2).sigmoid(),),  # as many clips as numbers
        mistakes={
            "the means are not centred: subtract from the N numbers of each clip their mean": then(hidden, relu, head),
            "this subtracts the mean over the clips of the batch: dim=1 counts the numbers of a clip": then(
                lambda z: z - z.mean(dim=0), hidden, relu, head
            ),
            "this subtracts one mean for the whole batch, so a clip's logits depend on the other clips: dim=1": then(
                lambda z: z - z.mean(), hidden, relu, head
            ),
            "without keepdim=True another clip's mean is subtracted: [B] has to become [B, 1]": then(
                lambda z: z - z.mean(dim=1), hidden, relu, head
            ),
            "divided by the mean: subtract it": then(lambda z: z / z.mean(dim=1, keepdim=True), hidden, relu, head),
            "the mean was added: subtract it": then(lambda z: z + z.mean(dim=1, keepdim=True), hidden, relu, head),
            "what `hidden` returns was centred: centre the numbers that come in": then(hidden, centred, relu, head),
            "the ReLU is missing: two linear maps in a row are one linear map": then(centred, hidden, head),
            "the ReLU comes too late: it belongs between `hidden` and `head`": then(centred, hidden, head, relu),
            "a ReLU follows `head` too: logits may be negative": then(right, relu),
            "a ReLU comes before `hidden`: the centred numbers may be negative": then(centred, relu, hidden, head),
            "this is GELU: the task says ReLU": then(centred, hidden, nn.functional.gelu, head),
            "a softmax follows: cross_entropy takes logits and applies it itself": then(
                right, lambda z: z.softmax(dim=1)
            ),
            "a log_softmax follows: cross_entropy takes logits and applies it itself": then(
                right, lambda z: z.log_softmax(dim=1)
            ),
            "this is what `hidden` returns: `head` turns it into logits": then(centred, hidden, relu),
        },
        errors=MEANS_AS_COLUMN | {"shapes cannot be multiplied": "`hidden` comes before `head`"},
        dtypes=(),  # the model's own numbers are float32
        what="the tensor of logits",
    )
    passed("00.3", "from the means of blocks to one logit per class.")


def _check_part(model, name, shape):
    """The part that the task names: a linear map of this shape, with a bias."""
    part, made = getattr(model, name, None), f"nn.Linear({shape[1]}, {shape[0]})"
    if part is None:
        raise CheckFailed(f"the model has no part `{name}`: in __init__ write self.{name} = …")
    if not isinstance(part, nn.Linear):
        raise CheckFailed(f"`{name}` is {kind(part)}, expected nn.Linear")
    if tuple(part.weight.shape) != shape or part.bias is None:
        raise CheckFailed(f"of TinyModel(6, 7, 5) `{name}` must be {made}, yours is {part}")


@exercise
def check_share_right(share_right: Callable) -> None:
    """00.4: share_right(logits [B, K], labels [B]) -> a number from 0 to 1."""

    def right(logits, labels):
        return (logits.argmax(dim=1) == labels).double().mean()

    logits = _logits([2, 0, 1, 3, 2, 0, 1], 4)
    logits[3, 3] = 0  # the largest, and as a number its clip's label
    examine(
        share_right,
        right,
        (logits, torch.tensor([2, 0, 1, 0, 0, 3, 3])),
        (_logits([1], 3), torch.tensor([1])),  # one clip, which is right
        (_logits([4, 4, 0], 5), torch.tensor([0, 1, 2])),  # none is right
        mistakes={
            "this is how many are right, not their share": lambda z, y: (z.argmax(dim=1) == y).sum(),
            "this is the share that is wrong": lambda z, y: 1 - right(z, y),
            "this is in per cent: expected a share from 0 to 1": lambda z, y: 100 * right(z, y),
            "this is the mean probability of the right class: count the clips whose largest logit is the "
            "label's": lambda z, y: z.softmax(dim=1).gather(1, y[:, None]).mean(),
            "this is the mean of the largest logits: compare their places (argmax) with the labels": lambda z, y: (
                z.amax(dim=1).mean()
            ),
            "these are the largest logits themselves: compare their places (argmax) with the labels": lambda z, y: (
                (z.amax(dim=1) == y).double().mean()
            ),
            "the smallest logit was taken for the answer: argmax, not argmin": lambda z, y: (
                (z.argmin(dim=1) == y).double().mean()
            ),
            "divided by the number of classes: divide by the number of clips": lambda z, y: (
                (z.argmax(dim=1) == y).sum() / z.shape[1]
            ),
            "this says for each clip whether it is right: take the mean": lambda z, y: (z.argmax(dim=1) == y).double(),
            "these are the predicted classes: compare them with the labels": lambda z, y: z.argmax(dim=1),
        },
        errors={
            "must match": "the largest logit of each clip is along dim=1, the classes",
            "either a floating point or complex": "True and False become numbers by .float()",
        },
        gradients=False,
        dtypes=(),  # a count is the same in every type
        what="the share",
    )
    passed("00.4", "a share between 0 and 1, and a single clip works too.")


def _logits(answers, classes):
    """Logits [B, K] whose largest are at `answers`, all of them below 0."""
    logits = drawn(len(answers), classes).abs().neg() - 2
    logits[range(len(answers)), answers] = -1 - 0.1 * torch.arange(len(answers))
    return logits


@exercise
def check_training_step(training_step: Callable) -> None:
    """00.5: training_step(model, optimiser, means [B, N], labels [B]) changes the model and returns the loss."""
    found, losses, moved_otherwise = _two_steps(training_step)
    expected, right, _ = _two_steps(_steps("loss", "zero", "back", "step"))
    mistakes = {
        "zero_grad() comes too late: old gradients may be there when the function is called, so it comes before "
        "loss.backward()": ("loss", "back", "step", "zero"),
        "the old gradients are still there: optimiser.zero_grad() before loss.backward()": (
            "loss",
            "back",
            "step",
        ),
        "no weight moves: first zero_grad(), then loss.backward(), then optimiser.step(), and none is left out": (
            "loss",
            "zero",
            "back",
        ),
        "loss.backward() is missing, so the step uses old gradients": ("loss", "step"),
        "a softmax comes before cross_entropy, which applies it itself": ("softmax", "zero", "back", "step"),
        "the loss goes up: cross_entropy is made smaller as it is, without a minus": ("minus", "zero", "back", "step"),
        "two steps were made: one is asked for": ("loss", "zero", "back", "step", "step"),
        "the losses of the clips were summed: cross_entropy takes their mean unless you say otherwise": (
            "sum",
            "zero",
            "back",
            "step",
        ),
    }
    made = {message: (lambda order=order: _two_steps(_steps(*order))[0]) for message, order in mistakes.items()}
    if moved_otherwise:
        made["the weights moved, but not by the optimiser that is given: call its step(), make no other"] = found
    close(found, expected, made, what="a weight after two steps")
    for loss, value in zip(losses, right):
        if isinstance(loss, torch.Tensor) and loss.requires_grad:
            raise CheckFailed("the loss is a tensor that still holds its whole graph: return a number, loss.item()")
        if isinstance(loss, torch.Tensor):
            raise CheckFailed("the loss is a tensor: return a Python number, loss.item()")
        close(loss, value, what="the loss that is returned")
    passed("00.5", "the weights have moved, and the loss is a number.")


def _two_steps(training_step):
    """A weight after two steps of a linear model with old gradients left in it, what the function returned, and
    whether the weight has moved without a step of the optimiser."""
    model, labels = nn.Linear(6, 4), torch.tensor([1, 0, 3, 2, 2])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(drawn(*parameter.shape, seed=3))
            parameter.grad = torch.ones_like(parameter)
    optimiser, before, steps = torch.optim.SGD(model.parameters(), lr=0.3), model.weight.detach().clone(), []
    optimiser.register_step_post_hook(lambda *_: steps.append(1))
    losses = [
        call(training_step, model, optimiser, drawn(5, 6, seed=seed), labels, may_change=(0, 1)) for seed in (1, 2)
    ]
    if not model.training:
        raise CheckFailed("the model is left in eval mode, in which dropout does nothing: train without model.eval()")
    after = model.weight.detach().clone()
    return after, losses, not steps and not torch.equal(after, before)


def _steps(*order):
    """A training step that does these things in this order, for the right one and for mistakes."""

    def step(model, optimiser, means, labels):
        logits = model(means)
        reduction = "sum" if "sum" in order else "mean"
        logits = logits.softmax(dim=1) if "softmax" in order else logits
        loss = nn.functional.cross_entropy(logits, labels, reduction=reduction)
        loss = -loss if "minus" in order else loss
        do = {"zero": optimiser.zero_grad, "back": lambda: loss.backward(retain_graph=True), "step": optimiser.step}
        for part in order[1:]:
            do[part]()
        return loss.item()

    return step


# ---- 00.6

FAULTY_MEANS = {
    "cuts the clip in the order of memory, by reshape": lambda c, p: c.reshape(len(c), -1, p**3).mean(dim=2),
    "returns the blocks in the order of columns, rows, time": lambda c, p: reduce(
        c, "b 1 (nt pt) (nh ph) (nw pw) -> b (nw nh nt)", "mean", pt=p, ph=p, pw=p
    ),
    "swaps rows and columns": lambda c, p: finished.block_means(c.mT, p),
    "returns the blocks from the last to the first": lambda c, p: finished.block_means(c, p).flip(1),
    "takes the largest voxel of each block": lambda c, p: reduce(c, BLOCKS, "max", pt=p, ph=p, pw=p),
    "takes every second voxel for one block": lambda c, p: reduce(
        c, "b 1 (pt nt) (ph nh) (pw nw) -> b (nt nh nw)", "mean", pt=p, ph=p, pw=p
    ),
    "gives all blocks the mean of the whole clip": lambda c, p: (
        finished.block_means(c, p) * 0 + c.mean(dim=(1, 2, 3, 4))[:, None]
    ),
}


@exercise
def check_telling_clip(telling_clip: Callable) -> None:
    """00.6: telling_clip() -> a clip [1, 1, 4, 4, 4] on which every faulty version differs from the right one."""
    clip = call(telling_clip)
    same_shape(clip, (1, 1, 4, 4, 4), "the clip")
    if not clip.is_floating_point():
        raise CheckFailed(f"the clip is {clip.dtype}: a mean needs numbers with decimals, float32")
    if not clip.isfinite().all():
        raise CheckFailed("the clip holds inf or nan: with these nothing is equal to anything")
    expected = finished.block_means(clip, 2)
    for fault, faulty in FAULTY_MEANS.items():
        try:
            close(faulty(clip, 2), expected)
        except CheckFailed:
            continue
        told = f"right: {_eight(expected)}; faulty: {_eight(faulty(clip, 2))}"
        raise CheckFailed(
            f"your clip doesn't give this fault away: a version that {fault} gives the same 8 numbers\n{told}"
        )
    passed("00.6", f"your clip catches all {len(FAULTY_MEANS)} faulty versions.")


def _eight(values):
    return " ".join(f"{value:.3g}" for value in values.flatten().tolist())
