"""Checks of chapter 12: the schedule, averaged weights, one epoch, a test of loops, `fit`, a run that can be resumed,
the paired bootstrap."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...augment import Augmentation
from ...training import Recipe, make_optimiser
from ...volumes import Split, Volumes
from ..culmination import epoch_batches
from ..ready import ch12 as finished
from . import CheckFailed, call, close, drawn, exercise, flag, number, passed
from .calling import call_with_hints
from .carrying import as_carried, made_again

# ---- 12.1

PEAK = 0.002


@exercise
def check_schedule(schedule: Callable) -> None:
    """schedule(step, total, peak, warmup) -> the learning rate of step 0 … total-1."""

    def rates(total, warmup):
        called = [call(schedule, step, total, PEAK, warmup) for step in range(total)]
        return torch.tensor(
            [number(found, f"the learning rate of step {step}") for step, found in enumerate(called)],
            dtype=torch.float64,
        )

    for total, warmup in ((400, 0.1), (200, 0.25)):
        first, found = int(warmup * total), rates(total, warmup)
        check_warmup(found[:first], first)
        check_cosine(found[first:], total, first)
    if abs((plain := rates(20, 0.0))[0] - PEAK) > 0.001 * PEAK:
        raise CheckFailed(
            f"without a warm-up (warmup=0) the first step has {plain[0]:.3g}, expected the peak, {PEAK}: "
            "go straight to the cosine"
        )
    expected = torch.tensor([finished.schedule(step, 130, PEAK, 0.15) for step in range(130)])
    close(rates(130, 0.15), expected, what="with total=130 and warmup=0.15 the rate", tolerance=0.06)
    passed("12.1", "up in a line, down in half a cosine, and nothing is left at the end.")


def check_warmup(found: torch.Tensor, first: int) -> None:
    expected = PEAK * torch.arange(1, first + 1) / (first + 1)
    if found.max() > 1.01 * PEAK:
        raise CheckFailed(
            f"in the warm-up the rate rises to {found.max():.3g}, above the peak, {PEAK}: the line goes up to `peak`. "
            "Are the brackets there, (step + 1) / (first + 1), and is `warmup` a share of all steps?"
        )
    if (found >= 0.99 * PEAK).all():
        raise CheckFailed("there is no warm-up: in the first warmup · total steps the rate must rise in a line")
    if (found.diff() < 0).any():
        raise CheckFailed(
            "in the warm-up the rate falls: a line from (almost) 0 up to `peak`, in the first warmup · total steps"
        )
    if found[-1] < 0.5 * PEAK:
        raise CheckFailed(
            f"at the end of the warm-up the rate is {found[-1]:.3g} instead of about {PEAK}: divide by the steps of "
            "the warm-up, not by all steps"
        )
    close(
        found,
        expected,
        {
            "the first step has a rate of 0, so that its batch is read for nothing: count from 1, and reach the peak "
            "with the first step after the warm-up, (step + 1) / (first + 1)": PEAK * torch.arange(first) / first,
            "the peak is reached one step too early, and two steps have it: divide by first + 1, for the step after "
            "the warm-up is the one at the peak": PEAK * torch.arange(1, first + 1) / first,
            "the warm-up falls one step short of the line: count the steps from 1, step + 1": PEAK
            * torch.arange(first)
            / (first + 1),
            "the warm-up follows a curve: it should be a straight line up to `peak`": PEAK
            * (torch.arange(1, first + 1) / (first + 1)) ** 2,
        },
        what="the rate in the warm-up",
        tolerance=0.002,
    )


def check_cosine(found: torch.Tensor, total: int, first: int) -> None:
    left = torch.linspace(0, 1, total - first + 1)[:-1]  # of the way down, [total - first]
    steps = torch.arange(first, total)

    def cosine(turn):
        return PEAK * 0.5 * (1 + torch.cos(math.pi * turn))

    mistakes = {
        "after the warm-up the rate falls in a line: it should follow half a cosine": PEAK * (1 - left),
        "after the warm-up the rate stays at the peak: let it fall to 0 in half a cosine": PEAK + 0 * left,
        "the cosine runs over a whole turn (2π), so that the rate rises again: half a turn, π": cosine(2 * left),
        "the cosine goes from 1 to -1 here, and a learning rate must not be negative: (1 + cos) "
        "/ 2 goes from 1 to 0": PEAK * torch.cos(math.pi * left),
        "a quarter of a turn was taken (π/2): it also ends at 0, but falls fastest at the end. "
        "Half a cosine is (1 + cos(π·x)) / 2": PEAK * torch.cos(math.pi / 2 * left),
        "(1 + cos) goes from 2 to 0: halve it": 2 * cosine(left),
        "this is the cosine upside down, which rises: 1 + cos, not 1 - cos": PEAK - cosine(left),
        "the angle is in degrees here: math.cos takes radians, π for half a turn": cosine(180 / math.pi * left),
        "the cosine began with step 0, so that the rate jumps down where the warm-up ends: count the steps since "
        "then, out of those that are left": cosine(steps / total),
        "the cosine began after the warm-up, but is stretched over all steps, so that the rate does not reach 0: "
        "divide by the steps that are left, total - warmup · total": cosine((steps - first) / total),
        "x counts one step too many: it is 0 when `first` steps are done, so it has no + 1": cosine(
            (steps + 1 - first) / (total - first)
        ),
        "x reaches 1 at the last step: it would reach 1 one step later, so divide by total - first": cosine(
            (steps - first) / (total - first - 1)
        ),
    }
    close(found, cosine(left), mistakes, what="the rate after the warm-up", tolerance=0.001)


# ---- 12.2


@exercise
def check_average(update_average: Callable) -> None:
    """update_average(average, weights, decay): average, a list of tensors, becomes decay·average + (1 -
    decay)·weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (4,), (2, 3, 2), ()]
    for decay, dtype in ((0.9, torch.float32), (0.75, torch.float64), (0.6, torch.bfloat16)):
        start, weights = ([torch.randn(shape, generator=generator).to(dtype) for shape in shapes] for _ in range(2))
        average = [tensor.clone() for tensor in start]
        trained = [nn.Parameter(tensor.clone()) for tensor in weights]
        tensors = list(average)
        hints = {
            "that it was given: make new tensors": "write into the average alone: (1 - decay) * w, or add_(w, alpha=…)",
            "0-dim tensor": "one of the tensors is a single number, without dimensions: write into it with copy_",
        }
        returned = call_with_hints(hints, update_average, average, trained, decay, may_change=(0,))
        if any(tensor.requires_grad for tensor in average):
            raise CheckFailed(
                "the average has become part of the graph of gradients, which would grow with every step: "
                "write `with torch.no_grad():` around the update"
            )
        if len(average) != len(tensors) or any(now is not before for now, before in zip(average, tensors)):
            raise CheckFailed(
                "the list holds other tensors now, and a model that holds the old ones sees no average: write into "
                "the tensors themselves, as mul_, add_, lerp_ and copy_ do"
            )
        if all(torch.equal(now, before) for now, before in zip(average, start)):
            hint = (
                "the result was returned in a new list"
                if isinstance(returned, (list, tuple))
                else "`a = …` gives the name another tensor and leaves the one in the list alone"
            )
            raise CheckFailed(
                f"the average has not changed: {hint}. Write into the tensors, as mul_, add_, lerp_ and copy_ do"
            )
        for k, (now, old, new) in enumerate(zip(average, start, weights)):
            if now.dtype != dtype:
                raise CheckFailed(f"tensor {k} of the average is {now.dtype} now and was {dtype}: keep its type")
            close(
                now,
                decay * old + (1 - decay) * new,
                {
                    "the shares are exchanged: `decay`, close to 1, is the share of the old "
                    "average; the new weights get the rest": (1 - decay) * old + decay * new,
                    "the average was overwritten with the weights: keep the share `decay` of the old one": new,
                    "this is the plain mean of the two: take the shares decay and 1 - decay": (old + new) / 2,
                    "the new weights were added whole: they get the share 1 - decay": decay * old + new,
                    "the old average was kept whole, so that the sum grows: it gets the share `decay`": old
                    + (1 - decay) * new,
                    "only the old average was scaled, nothing of the weights came in": decay * old,
                    "this tensor was left as it was: go through all of them": old,
                },
                what=f"tensor {k} of the average",
                tolerance=0.02 if dtype == torch.bfloat16 else 1e-5,
            )
    passed("12.2", "a slow copy follows the weights, and they do not notice.")


# ---- 12.3


class Probe(nn.Module):
    """A small classifier that notes how it was run: in which mode, in which precision, on how many clips."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(24, 5), nn.Linear(5, 3)
        self.modes, self.dtypes = [], []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        hidden = self.first(clips.flatten(1))
        self.modes.append(self.training)
        self.dtypes.append(hidden.dtype)
        return self.last(torch.tanh(3 * hidden))


def small_training(seed: int = 0) -> tuple[Probe, torch.optim.Optimizer]:
    """A model in eval mode, and an optimiser with two groups whose steps grow with the gradients, unlike AdamW's."""
    model = Probe(seed)
    groups = [{"params": list(model.first.parameters())}, {"params": list(model.last.parameters())}]
    return model.eval(), torch.optim.SGD(groups, lr=0.7, momentum=0.5)


def probe_batches(sizes: Sequence[int], seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of these many clips [B, 1, 2, 3, 4], with soft targets [B, 3]."""
    return [
        (drawn(size, 1, 2, 3, 4, seed=10 * seed + k), (2 * drawn(size, 3, seed=10 * seed + k + 5)).softmax(dim=1))
        for k, size in enumerate(sizes)
    ]


def epoch_with(
    mistake: str,
    model: nn.Module,
    batches: Iterable,
    optimiser: torch.optim.Optimizer,
    rates: Sequence[float],
    scaler: torch.amp.GradScaler,
    dtype: torch.dtype,
    clip_norm: float,
    after_step: Callable[[], None],
) -> float:
    """`train_epoch` with one mistake, or none where it is ""."""
    total, shown = 0.0, 0
    model.train(mistake != "eval")
    for (clips, targets), rate in zip(batches, rates):
        groups = {"no rate": [], "first group": optimiser.param_groups[:1]}.get(mistake, optimiser.param_groups)
        for group in groups:
            group["lr"] = rate if mistake != "first rate" else rates[0]
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            logits = model(clips)
            logits = logits.softmax(dim=1) if mistake == "softmax" else logits
            loss = F.cross_entropy(logits, targets.argmax(dim=1) if mistake == "argmax" else targets)
        if mistake != "no zero_grad":
            optimiser.zero_grad()
        scaler.scale(loss).backward()
        if mistake == "late zero_grad":
            optimiser.zero_grad()
        if mistake == "clips first":
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        if mistake != "steps itself":
            scaler.unscale_(optimiser)
        if mistake == "clips values":
            nn.utils.clip_grad_value_(model.parameters(), clip_norm)
        elif mistake not in ("no clipping", "clips first"):
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimiser.step() if mistake in ("steps itself", "optimiser.step") else scaler.step(optimiser)
        if mistake != "steps itself":
            scaler.update()
        after_step()
        total, shown = total + loss.item(), shown + 1
    return total / max(1, shown)


OF_AN_EPOCH = {
    "has no len()": "batches may have no length: count the steps, or take len(rates)",
    "'generator' object is not subscriptable": "batches can be gone through once only: zip(batches, rates)",
    "unscale_() is being called after step()": "scaler.update() is missing at the end of the step before, or unscale_ "
    "comes after scaler.step",
    "unscale_() has already been called": "unscale_ once in each step, then scaler.step(optimiser) and scaler.update()",
}


def end_of_epoch(
    epoch: Callable, sizes: Sequence[int], *, scaled: bool = False, dtype: torch.dtype = torch.float32, clip: float
) -> tuple[torch.Tensor, torch.Tensor, Any, Probe, int]:
    """An epoch on the probe: (weights, weights at each call of after_step, what was returned, the model, steps)."""
    model, optimiser = small_training()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=scaled)
    seen = []
    rates = [0.5 / (k + 1) for k in range(len(sizes))]
    arguments = (
        model,
        (batch for batch in probe_batches(sizes)),  # as `epoch_batches` gives them: once, and without a length
        optimiser,
        rates,
        scaler,
        dtype,
        clip,
        lambda: seen.append(weights_of(model)),
    )
    returned = call_with_hints(OF_AN_EPOCH, epoch, *arguments, may_change=(0,))
    return weights_of(model), torch.stack(seen) if seen else torch.zeros(0), returned, model, len(seen)


def weights_of(model: nn.Module) -> torch.Tensor:
    """All parameters of a model, end to end, in double precision."""
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


@exercise
def check_epoch(train_epoch: Callable) -> None:
    """train_epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step) -> the mean loss."""
    with torch.random.fork_rng(devices=[]):
        for sizes, clip in (((4, 3, 5), 0.05), ((1,), 10.0)):
            ends, seen, returned, model, steps = end_of_epoch(train_epoch, sizes, clip=clip)
            if not all(model.modes):
                raise CheckFailed(
                    "the model was in eval mode while it trained, so dropout would do nothing: model.train() first"
                )
            if steps != len(sizes):
                raise CheckFailed(
                    f"after_step was called {steps} times in an epoch of {len(sizes)} steps: call after_step() once "
                    "after each step of the optimiser, inside the loop"
                )
            compare_ends(ends, sizes, clip)
            if not torch.allclose(seen[-1], ends):
                raise CheckFailed(
                    "after_step was called before the step was made, so the average would lag by a step: "
                    "call it after scaler.step(optimiser)"
                )
            compare_losses(returned, sizes, clip)
        check_scaled(train_epoch)
        check_overflow(train_epoch)
        model = end_of_epoch(train_epoch, (4, 3), dtype=torch.bfloat16, clip=1.0)[3]
        if model.dtypes[0] != torch.bfloat16:
            raise CheckFailed(
                f"dtype=torch.bfloat16 was asked for, but the model computed in {str(model.dtypes[0])[6:]}: run the "
                "model inside `with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):`"
            )
        model = end_of_epoch(train_epoch, (4, 3), clip=1.0)[3]
        if model.dtypes[0] != torch.float32 or next(model.parameters()).dtype != torch.float32:
            raise CheckFailed(
                f"dtype=torch.float32 was asked for, but the model computed in {str(model.dtypes[0])[6:]}: switch "
                "autocast off there, enabled=dtype != torch.float32"
            )
    passed("12.3", "one pass over the data, in any precision, and no step is too long.")


def compare_ends(ends: torch.Tensor, sizes: Sequence[int], clip: float) -> None:
    """Fails unless the weights are those of a right epoch in float32, and names the mistake."""

    def end(mistake):
        return lambda: end_of_epoch(lambda *given: epoch_with(mistake, *given), sizes, clip=clip)[0]

    told = {
        "the weights have not moved: zero_grad stands between backward() and the step, and wipes the gradients out": (
            "late zero_grad"
        ),
        "the gradients of earlier steps are still there and are added up: optimiser.zero_grad() in each step, "
        "before backward()": "no zero_grad",
        "the learning rate is not the one in `rates`: set group['lr'] of each group in optimiser.param_groups, in "
        "every step": "no rate",
        "only the first group of the optimiser got its learning rate: go through all optimiser.param_groups": (
            "first group"
        ),
        "all steps have the first rate of `rates`: take the next one in each step": "first rate",
        "the gradients are not clipped: nn.utils.clip_grad_norm_(model.parameters(), clip_norm) before the step": (
            "no clipping"
        ),
        "each number of the gradient was clipped, which turns the step: clip the length of the whole, "
        "clip_grad_norm_": "clips values",
        "the logits went through softmax before F.cross_entropy, which does that itself": "softmax",
        "the targets are soft, shares of the classes: give them to F.cross_entropy as they are, without argmax": (
            "argmax"
        ),
    }
    mistakes = {message: end(mistake) for message, mistake in told.items()}
    close(ends, end("")(), mistakes, what="the weights after the epoch", tolerance=1e-5)


def compare_losses(returned: Any, sizes: Sequence[int], clip: float) -> None:
    """Fails unless the mean of the steps' losses was returned."""
    if isinstance(returned, torch.Tensor) and returned.requires_grad:
        raise CheckFailed(
            "the loss that is returned still holds the graph of all steps, so the memory grows with each of them: "
            "add up loss.detach(), and return a number"
        )
    losses = []
    for k in range(len(sizes)):
        model, optimiser = small_training()
        rates = [0.5 / (j + 1) for j in range(len(sizes))]
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        short = probe_batches(sizes)[: k + 1]
        mean = epoch_with("", model, short, optimiser, rates, scaler, torch.float32, clip, lambda: None)
        losses.append(mean * (k + 1) - sum(losses))
    close(
        number(returned, "what train_epoch returns", ", the mean loss of the epoch"),
        sum(losses) / len(losses),
        {
            "the sum of the losses was returned: divide it by the number of steps": sum(losses),
            "the loss of the last step was returned: the mean of all steps is asked for": losses[-1],
            "the sum of the losses was divided by the number of clips: F.cross_entropy is a mean already, so divide "
            "by the number of steps": sum(losses) / sum(sizes),
        }
        if len(losses) > 1
        else {},
        what="the mean loss",
        tolerance=1e-4,
    )


def check_scaled(train_epoch: Callable) -> None:
    """Fails unless a loss scaler changes nothing, and names the mistake."""
    for clip in (0.05, 1e4):  # with clipping, and without

        def end(mistake):
            return lambda: end_of_epoch(lambda *given: epoch_with(mistake, *given), (4, 3), scaled=True, clip=clip)[0]  # noqa: B023

        ends, _, returned, *_ = end_of_epoch(train_epoch, (4, 3), scaled=True, clip=clip)
        close(
            ends,
            end("")(),
            {
                "with a scaler the steps come out too small: the gradients were clipped while they were still scaled. "
                "scaler.unscale_(optimiser) comes first, then the clipping": end("clips first"),
                "with a scaler the step was made with gradients that are still scaled: scaler.unscale_(optimiser), "
                "then scaler.step(optimiser)": end("steps itself"),
            },
            what="with a loss scaler of 4096 (and without one it is right): the weights after the epoch",
            tolerance=1e-4,
        )
    found = number(returned, "what train_epoch returns")
    if found > 100:
        raise CheckFailed(f"with a scaler the loss that is returned is {found:.0f}: report the loss before scaling")


def check_overflow(train_epoch: Callable) -> None:
    """Fails unless a step whose gradients overflow is skipped and the scale is halved."""
    model, optimiser = small_training()
    batches = probe_batches((4, 3, 4))
    batches[1][0][0] = math.inf  # an overflow in the second step
    batches = (batch for batch in batches)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    call(train_epoch, model, batches, optimiser, [0.1] * 3, scaler, torch.float32, 1.0, lambda: None, may_change=(0, 1))
    if not weights_of(model).isfinite().all():
        raise CheckFailed(
            "a step whose gradients had overflowed was made all the same, and the weights are nan now: "
            "scaler.step(optimiser) skips such a step, optimiser.step() does not"
        )
    if scaler.get_scale() != 2.0**11:
        raise CheckFailed(
            f"after a step with an overflow the scale is {scaler.get_scale():.0f}, expected half of 4096: "
            "scaler.update() at the end of each step"
        )


# ---- 12.4


def _other_right_epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
    """A right loop in another style: it clips by hand and sums up with a list."""
    losses = []
    model.train()
    for step, (clips, targets) in enumerate(batches):
        optimiser.zero_grad(set_to_none=False)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            loss = F.cross_entropy(model(clips), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        length = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        for p in model.parameters():
            p.grad *= min(1.0, clip_norm / (float(length) + 1e-6))
        for group in optimiser.param_groups:
            group["lr"] = rates[step]
        scaler.step(optimiser)
        scaler.update()
        after_step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


FAULTY = {
    "clips the gradients before they are unscaled": "clips first",
    "steps with gradients that are still scaled": "steps itself",
}
SPOILT = {  # (which parameter, from which step on)
    "is wrong in the first parameter only": (0, 1),
    "is wrong in the last parameter only": (-1, 1),
    "is right in the first step and wrong after it": (0, 2),
}


def _spoils(place, start):
    """A loop that is right without a scaler, and with one leaves a parameter a little off, from a step on."""

    def epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
        steps = 0

        def and_spoils():
            nonlocal steps
            steps += 1
            if scaler.is_enabled() and steps >= start:
                with torch.no_grad():
                    list(model.parameters())[place] += 0.01
            after_step()

        return epoch_with("", model, batches, optimiser, rates, scaler, dtype, clip_norm, and_spoils)

    return epoch


@exercise
def check_test_of_loops(scaling_changes_nothing: Callable) -> None:
    """scaling_changes_nothing(train_epoch, make, batches, rates) -> whether an epoch ends in the same weights with a
    loss scaler and without one."""

    def verdict(epoch, sizes):
        first = Probe(seed=len(sizes))

        def make():
            model = copy.deepcopy(first)
            return model, torch.optim.SGD(model.parameters(), lr=0.7, momentum=0.5)

        # clips so dark that no gradient is as long as 1, or clipping would hide what a scale does to it
        batches = [
            (0.1 * clips, targets.sqrt() / targets.sqrt().sum(1, True)) for clips, targets in probe_batches(sizes, 3)
        ]
        rates = [0.4 / (k + 1) for k in range(len(sizes))]
        with torch.random.fork_rng(devices=[]):
            return flag(call(scaling_changes_nothing, epoch, make, batches, rates), "what your test returns")

    for sizes in ((5,), (4, 3, 5)):
        rights = (lambda *given: epoch_with("", *given), _other_right_epoch)
        said = [verdict(epoch, sizes) for epoch in rights]
        if not any(said):
            raise CheckFailed(
                "your test says False to a loop that is right: do both runs begin with the same weights? Call "
                "make() anew for each run, and compare the weights with each other, by torch.allclose"
            )
        if not all(said):
            raise CheckFailed(
                "your test says False to a right loop that clips by hand: rounding may differ in the last digit, so "
                "compare with torch.allclose"
            )
        for fault, mistake in FAULTY.items():
            if verdict(lambda *given: epoch_with(mistake, *given), sizes):  # noqa: B023
                if all(verdict(lambda *given: epoch_with(name, *given), sizes) for name in FAULTY.values()):  # noqa: B023
                    raise CheckFailed(
                        f"your test says True to every loop, also to one that {fault}: train once with "
                        "GradScaler('cpu', enabled=False) and once with enabled=True, each time with a new model "
                        "from make(), and compare the weights afterwards, not the losses"
                    )
                raise CheckFailed(
                    f"your test says True to a loop that {fault}, in an epoch of {len(sizes)} steps: compare the "
                    "weights of all layers after the epoch, and compare them closely"
                )
        for fault, (place, start) in SPOILT.items():
            if start <= len(sizes) and verdict(_spoils(place, start), sizes):
                raise CheckFailed(
                    f"your test says True to a loop that {fault}: train on all batches, and compare all parameters, "
                    "closely (atol=1e-6)"
                )
    passed("12.4", "your test passes the sound loop and catches faulty ones.")


# ---- 12.5

TINY = Recipe(epochs=3, batch_size=5, lr=0.05, ema=0.8, clip_norm=0.3, warmup=0.2, augmentation=Augmentation(gain=0.4))


def tiny_volumes() -> Volumes:
    """22 training clips of [1, 3, 4, 2], in three classes: four batches of 5, and 2 clips are left over."""

    def split(count, seed):
        clips = (60 * drawn(count, 1, 3, 4, 2, seed=seed) + 128).clamp(0, 255).to(torch.uint8)
        return Split(clips, torch.arange(count) % 3)

    return Volumes("tiny", ("a", "b", "c"), split(22, 1), split(7, 2), split(8, 3))


def fit_with(mistake: str, model: nn.Module, volumes: Volumes, recipe: Recipe, seed: int = 0) -> list[float]:
    """`fit` with one mistake, or none where it is ""."""
    optimiser, scaler = make_optimiser(model, recipe), torch.amp.GradScaler("cpu", enabled=False)
    average = [p.detach().clone() for p in model.parameters()]
    steps, losses, counted = len(volumes.train) // recipe.batch_size, [], 0

    if mistake == "no copy":
        average = list(model.parameters())
    if mistake == "AdamW":
        optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr)

    def follow(decay=recipe.ema):
        if mistake == "exchanged":
            with torch.no_grad():
                for p, mean in zip(model.parameters(), average):
                    p.lerp_(mean, 1 - decay)
        else:
            finished.update_average(average, list(model.parameters()), decay)

    def after_step():
        nonlocal counted
        counted += 1
        if mistake != "once an epoch":
            follow(0.0 if mistake == "starts late" and counted == 1 else recipe.ema)

    for epoch in range(recipe.epochs):
        total, done = steps * recipe.epochs, epoch * steps
        if mistake in ("restarts", "same beginning"):
            total, done = (steps if mistake == "restarts" else total), 0
        if mistake == "by epochs":
            rates = [finished.schedule(epoch, recipe.epochs, recipe.lr, recipe.warmup)] * steps
        elif mistake == "rounded up":
            whole = -(-len(volumes.train) // recipe.batch_size)
            rates = [
                finished.schedule(epoch * whole + k, whole * recipe.epochs, recipe.lr, recipe.warmup)
                for k in range(steps)
            ]
        else:
            rates = [finished.schedule(done + k, total, recipe.lr, recipe.warmup) for k in range(steps)]
        rates = [recipe.lr] * steps if mistake == "constant" else rates
        if mistake == "new copy":
            average = [p.detach().clone() for p in model.parameters()]
        if mistake == "new optimiser":
            optimiser = make_optimiser(model, recipe)
        batches = epoch_batches(
            volumes, recipe, 0 if mistake == "seed 0" else seed, 0 if mistake == "same batches" else epoch
        )
        clip = 1e9 if mistake == "no clipping" else recipe.clip_norm
        loss = finished.train_epoch(model, batches, optimiser, rates, scaler, torch.float32, clip, after_step)
        losses.append(loss)
        if mistake == "once an epoch":
            follow()
        if mistake == "loaded each epoch":
            _put_into(model, average)
    if mistake != "raw":
        _put_into(model, average)
    return losses


def _put_into(model, values):
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values):
            parameter.copy_(value)


def tiny_model(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small classifier of the tiny clips; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(24, 6), nn.GELU(), nn.Linear(6, 3)).to(dtype)


def fitted(fit: Callable, volumes: Volumes, recipe: Recipe, seed: int) -> tuple[torch.Tensor, Any, nn.Module]:
    """The weights that a `fit` ends with, what it returns, and the model."""
    model = tiny_model()
    returned = call(fit, model, volumes, recipe, seed, may_change=(0,))
    return weights_of(model), returned, model


@exercise
def check_fit(fit: Callable) -> None:
    """fit(model, volumes, recipe, seed) -> the mean loss of each epoch; the averaged weights are left in the model."""
    volumes, recipe, seed = tiny_volumes(), TINY, 4
    before = [(split.clips.clone(), split.labels.clone()) for split in (volumes.train, volumes.val, volumes.test)]
    with torch.random.fork_rng(devices=[]):
        ends, returned, model = fitted(fit, volumes, recipe, seed)
        for split, (clips, labels) in zip((volumes.train, volumes.val, volumes.test), before):
            if not (torch.equal(split.clips, clips) and torch.equal(split.labels, labels)):
                raise CheckFailed("your function changes the volumes that it was given: leave them as they are")

        def end(mistake):
            return lambda: fitted(lambda *given: fit_with(mistake, *given), volumes, recipe, seed)[0]

        told = {
            "the model ends with the weights of the last step: put the averaged ones into it at the end, "
            "model.load_state_dict(average.state_dict()). (Is the average a model of its own, "
            "copy.deepcopy(model)?)": "raw",
            "the average is the model itself: make it a copy, copy.deepcopy(model)": "no copy",
            "the average begins anew in each epoch: copy the model once, before the loop": "new copy",
            "the model ends with the weights that it began with: nothing went into the average, which is the first "
            "argument of update_average": "exchanged",
            "the averaged weights go into the model after every epoch, and training goes on from them: load them "
            "once, at the end": "loaded each epoch",
            "the optimiser is not the recipe's: make_optimiser(model, recipe)": "AdamW",
            "the schedule begins anew in each epoch: the step counts through the whole run, epoch · steps + k, and "
            "the total is steps · epochs": "restarts",
            "each epoch has the rates of the first one: the step counts through the whole run, epoch · steps + k": (
                "same beginning"
            ),
            "all steps of an epoch have one rate: the schedule counts steps, not epochs": "by epochs",
            "the rate is constant: make the list of rates of an epoch with `schedule`": "constant",
            "the total counts the batch that is left over: only whole batches are used, len(train) // batch_size": (
                "rounded up"
            ),
            "each epoch sees the same batches: give epoch_batches the number of the epoch": "same batches",
            "the seed has no effect: give it to epoch_batches": "seed 0",
            "the optimiser is made anew in each epoch and forgets its means: make it once, before the loop": (
                "new optimiser"
            ),
            "the average follows only once in each epoch: it is updated after every step": "once an epoch",
            "clip_norm is not the recipe's: give train_epoch recipe.clip_norm": "no clipping",
        }
        late = end("starts late")()  # as torch's AveragedModel does it: the first update copies
        if not torch.allclose(ends, late, rtol=1e-4, atol=1e-6):
            mistakes = {message: end(mistake) for message, mistake in told.items()}
            close(ends, end("")(), mistakes, what="the model's weights at the end", tolerance=1e-4)
        check_history(returned, fitted(lambda *given: fit_with("", *given), volumes, recipe, seed)[1])
        if any(module.training for module in model.modules()):
            raise CheckFailed("the model is left in training mode: model.eval() at the end")
    passed("12.5", "a whole run, epoch by epoch, and it ends with the averaged weights.")


def check_history(returned: Any, expected: list[float]) -> None:
    """Fails unless the mean loss of each epoch was returned."""
    if not isinstance(returned, (list, tuple, torch.Tensor)) or not hasattr(returned, "__len__"):
        what = "None: does it end in `return ...`?" if returned is None else f"a {type(returned).__name__}"
        raise CheckFailed(f"the weights are right, but fit returns {what}: return the list of the mean losses")
    if len(returned) != len(expected):
        raise CheckFailed(
            f"the weights are right, but fit returns {len(returned)} numbers for {len(expected)} epochs: return the "
            "mean loss of each epoch"
        )
    losses = torch.tensor([number(loss, "a loss in the list that fit returns") for loss in returned])
    close(losses, torch.tensor(expected), what="the list of losses", tolerance=1e-4)


# ---- 12.6

LAST_EPOCH = 6


def little_run(seed: int = 0) -> tuple[nn.Module, nn.Module, torch.optim.Optimizer]:
    """A model with BatchNorm and Dropout, its average, and an optimiser with memory: the same ones for a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3))
    return model, copy.deepcopy(model), torch.optim.AdamW(model.parameters(), lr=0.01)


def train_epochs(model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, epochs: Iterable[int]) -> None:
    """Trains through these epochs; batches, dropout and rate follow from the epoch's number."""
    model.train()
    with torch.random.fork_rng(devices=[]):
        for epoch in epochs:
            torch.manual_seed(epoch)
            for group in optimiser.param_groups:
                group["lr"] = 0.02 * (1 - epoch / LAST_EPOCH)
            for _ in range(3):
                clips, labels = torch.randn(8, 6), torch.randint(3, (8,))
                optimiser.zero_grad()
                F.cross_entropy(model(clips), labels).backward()
                optimiser.step()
                finished.update_average(list(average.parameters()), list(model.parameters()), 0.9)


def flat(*models: nn.Module) -> torch.Tensor:
    """All that the models' state_dicts hold, end to end."""
    return torch.cat([value.detach().flatten().double() for model in models for value in model.state_dict().values()])


def end_of_run(model: nn.Module, average: nn.Module, optimiser: torch.optim.Optimizer, done: int) -> torch.Tensor:
    train_epochs(model, average, optimiser, range(done, LAST_EPOCH))
    return flat(model, average)


@exercise
def check_resume(save_run: Callable, load_run: Callable) -> None:
    """save_run(path, model, average, optimiser, epochs_done); load_run(path, model, average, optimiser) ->
    epochs_done."""
    carried = as_carried(load_run)  # before anything was saved: it can hold nothing of this run
    with tempfile.TemporaryDirectory() as folder:
        path, done = Path(folder) / "run.pt", 3
        model, average, optimiser = little_run()
        train_epochs(model, average, optimiser, range(done))
        halfway, halfway_average = flat(model), flat(average)
        call(save_run, path, model, average, optimiser, done)
        if not path.is_file():
            raise CheckFailed(
                "nothing was written to `path`: torch.save(…, path). In the folder is "
                f"{sorted(p.name for p in Path(folder).iterdir())}"
            )
        whole = end_of_run(model, average, optimiser, done)

        fresh, fresh_average, fresh_optimiser = little_run(seed=1)  # another process: other weights, no memory
        hints = {"Weights only load failed": "the file holds whole objects: save what their state_dict() returns"}
        again = call_with_hints(hints, load_run, path, fresh, fresh_average, fresh_optimiser, may_change=(1, 2))
        check_halfway(flat(fresh), halfway, flat(model), "model", halfway_average)
        check_halfway(flat(fresh_average), halfway_average, flat(average), "average", halfway)
        again = number(again, "what load_run returned", ", the epochs that are done")
        if again != done:
            raise CheckFailed(
                f"{done} epochs were done when the run was saved, load_run says {again:g}: save the "
                "number, and return it as it is"
            )
        resumed = end_of_run(fresh, fresh_average, fresh_optimiser, done)
        forgetful, forgetful_average, new_optimiser = little_run(seed=1)
        fill_weights(forgetful, halfway)
        fill_weights(forgetful_average, halfway_average)
        close(
            resumed,
            whole,
            {
                "the resumed run goes on from the right weights, but to others than the run that was not stopped: "
                "AdamW remembers the means of its gradients, and these are lost. Save optimiser.state_dict(), and "
                "load it": end_of_run(forgetful, forgetful_average, new_optimiser, done),
            },
            what="the weights at the end of the resumed run",
            tolerance=1e-6,
        )
        if carried is not None:
            in_a_new_process(carried, path, whole)
    passed("12.6", "stopped, saved, loaded in a new process, and the same numbers as without a stop.")


def check_halfway(
    found: torch.Tensor, halfway: torch.Tensor, whole: torch.Tensor, name: str, others: torch.Tensor
) -> None:
    """Fails unless a model, or its average, was loaded as it was saved; name: which of the two. others: the weights of
    the other one."""
    if torch.equal(found, halfway):
        return
    new = little_run(seed=1)[0 if name == "model" else 1]
    first, parameters = flat(new), {part for part, _ in new.named_parameters()}
    saved = copy.deepcopy(new)
    fill_weights(saved, halfway)
    state, fresh = saved.state_dict(), new.state_dict()
    halves = [state[part] if part in parameters else value for part, value in fresh.items()]
    close(
        found,
        halfway,
        {
            f"load_run has left the weights of the new {name} as they were: {name}.load_state_dict(…)": first,
            f"the {name} got the weights of the {'average' if name == 'model' else 'model'}": others,
            f"the weights of the {name} that were loaded are not those of the moment of saving": whole,
            f"the parameters of the {name} are back, but not the running means of BatchNorm: save "
            f"{name}.state_dict(), which holds both": torch.cat([value.flatten().double() for value in halves]),
        },
        what=f"the loaded weights of the {name}",
        tolerance=1e-7,
    )


def fill_weights(model: nn.Module, values: torch.Tensor) -> None:
    """Puts weights that were laid end to end by `flat` into a model."""
    state, start = {}, 0
    for name, value in model.state_dict().items():
        state[name] = values[start : start + value.numel()].reshape(value.shape).to(value.dtype)
        start += value.numel()
    model.load_state_dict(state)


def in_a_new_process(carried: bytes, path: Path, whole: torch.Tensor) -> None:
    """Fails unless the run goes on in a new Python process to the same weights, from the file alone."""
    asked, answer = path.with_name("asked.pickle"), path.with_name("answer.pt")
    asked.write_bytes(pickle.dumps((carried, str(path), str(answer))))
    script = "import sys; from vivit_edu.course.checks import ch12; ch12.resume_there(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(asked)], env=environment, capture_output=True, text=True, timeout=180
        )
    except (OSError, subprocess.SubprocessError):
        return  # no process can be started here, or it takes too long
    if done.returncode or not answer.is_file():
        reason = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        raise CheckFailed(
            f"in this process the run goes on, in a new one load_run stops with {reason}: it takes something from "
            "this notebook's memory. Everything has to come out of the file"
        )
    close(torch.load(answer), whole, what="the weights of the run that went on in a new process", tolerance=1e-6)


def resume_there(asked: str) -> None:
    """In the new process: goes on from the file with the reader's load_run, and writes the weights at the end."""
    carried, path, answer = pickle.loads(Path(asked).read_bytes())  # written by this very check
    load_run = made_again(pickle.loads(carried))
    model, average, optimiser = little_run(seed=2)
    done = int(load_run(Path(path), model, average, optimiser))
    torch.save(end_of_run(model, average, optimiser, done), answer)


# ---- 12.7

# three groups of unequal sizes, whose numbers are neither in order nor without gaps
GROUPS = torch.tensor([30, 7, 7, 12, 7, 30, 12, 7, 7, 12, 12, 12])
HITS_A = torch.tensor([1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0]).bool()
HITS_B = torch.tensor([0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0]).bool()
AHEAD = HITS_A.float() - HITS_B.float()


def values_of(rule: Callable, ahead: torch.Tensor = AHEAD) -> torch.Tensor:
    """The differences that samples of the three groups give by a rule (sums, sizes -> value), smallest first. ahead:
    what the sums are of, a number for each clip."""
    members = [GROUPS == group for group in GROUPS.unique()]
    sums = [ahead[m].sum().item() for m in members]
    sizes = [int(m.sum()) for m in members]
    samples = itertools.product(range(len(members)), repeat=len(members))
    return torch.tensor([rule([sums[k] for k in sample], [sizes[k] for k in sample]) for sample in samples]).unique()


@exercise
def check_bootstrap(paired_bootstrap: Callable) -> None:
    """paired_bootstrap(hits_a, hits_b, groups, draws, generator) -> differences of accuracy [draws]."""

    def sample(hits_a, hits_b, groups, draws, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(next(counter))  # what is drawn elsewhere is another in each call
            generator = torch.Generator().manual_seed(seed)
            hints = {
                "two bool tensors": "make numbers of the hits first, hits_a.float(): ^ says where the two differ, and "
                "not which of them was right"
            }
            found = call_with_hints(hints, paired_bootstrap, hits_a, hits_b, groups, draws, generator)
        if isinstance(found, (list, tuple)) and len(found) == draws:
            found = torch.tensor([number(value, "a difference") for value in found])
        if not isinstance(found, torch.Tensor) or list(found.shape) != [draws]:
            shape = list(found.shape) if hasattr(found, "shape") else f"a {type(found).__name__}"
            raise CheckFailed(f"expected one difference for each draw, [{draws}]; your function returned {shape}")
        return found.double()

    counter = itertools.count(1)
    same = sample(HITS_A, HITS_A, GROUPS, 50)
    if same.abs().max() > 1e-6:
        raise CheckFailed(
            "two models that get the same clips right differ here: each draw must take the same groups for both "
            "models, so draw once and use it for both"
        )
    draws = 3000
    found, again, other = (sample(HITS_A, HITS_B, GROUPS, draws, seed) for seed in (0, 0, 1))
    if not found.isfinite().all():
        raise CheckFailed(
            "some draws are nan: they hold no clip. Draw from the groups that there are, groups.unique(), whose "
            "numbers need not be 0, 1, 2, …"
        )
    if not torch.equal(found, again):
        raise CheckFailed(
            "with the same generator the function draws other samples: draw from `generator`, "
            "torch.randint(…, generator=generator)"
        )
    whole = (HITS_A.float().mean() - HITS_B.float().mean()).item()
    if (found - found[0]).abs().max() < 1e-6:
        raise CheckFailed(
            f"all draws give {found[0]:.3f}: draw the groups with replacement, so that some come twice and others not "
            "at all (torch.randint, not torch.randperm)"
        )
    if torch.equal(found, other):
        raise CheckFailed("every generator gives the same draws: draw from the one that is given")
    right = values_of(lambda sums, sizes: sum(sums) / sum(sizes))
    told = {
        "this is accuracy of b minus accuracy of a: the other way round, a minus b": -right,
        "the accuracies of the groups were averaged, so that a clip in a small group counts more: divide the hits of "
        "all clips that were drawn by their number": values_of(
            lambda sums, sizes: sum(a / b for a, b in zip(sums, sizes)) / len(sizes)
        ),
        "the signs are lost: ^ says where the two differ, and not which of them was right; subtract numbers, "
        "hits_a.float() - hits_b.float()": values_of(
            lambda sums, sizes: sum(sums) / sum(sizes), (HITS_A ^ HITS_B).float()
        ),
        "the differences are counts, not accuracies: divide by the number of clips that were drawn": values_of(
            lambda sums, sizes: sum(sums)
        ),
        "the hits were divided by the number of all clips: a draw may hold more or fewer, so divide by the number of "
        "clips in the draw": values_of(lambda sums, sizes: sum(sums) / len(GROUPS)),
        "two groups were drawn in place of three: draw as many as there are, groups.unique()": torch.tensor(
            [(a + b) / (m + n) for (a, m), (b, n) in itertools.product(zip(*sums_and_sizes()), repeat=2)]
        ).unique(),
    }
    if not all_among(found, right):
        named = next((message for message, values in told.items() if all_among(found, values)), None)
        clips = found * len(GROUPS)
        if named is None and (clips - clips.round()).abs().max() < 1e-4:
            named = (
                "single clips were drawn, and not groups: draw numbers of groups, and take all clips of each group "
                "that was drawn"
            )
        raise CheckFailed(
            named
            or f"the draws hold differences such as {found[~among(found, right)][0]:.4f}, which no sample of the three "
            "groups gives: draw the groups, and take all clips of each, as often as it was drawn"
        )
    missing = right[~among(right, found)]
    if len(missing):
        raise CheckFailed(
            f"among {draws} draws a difference of {missing[0]:.3f} never comes up: every group must be as likely as "
            "any other, the first and the last included"
        )
    expected = (
        sum(sum(a for a, _ in s) / sum(n for _, n in s) for s in itertools.product(zip(*sums_and_sizes()), repeat=3))
        / len(sums_and_sizes()[0]) ** 3
    )
    if abs(found.mean().item() - expected) > 0.02:
        raise CheckFailed(
            f"the mean of the draws is {found.mean():.3f}, expected about {expected:.3f} (all clips together: "
            f"{whole:.3f}): every group must be as likely as any other"
        )
    alone = sample(HITS_A, HITS_B, torch.zeros(len(HITS_A), dtype=torch.int64), 1)
    close(alone[0].item(), whole, what="with a single group the difference", tolerance=1e-5)
    passed("12.7", "both models are judged on the same draws, and a patient's clips stay together.")


def sums_and_sizes() -> tuple[list[float], list[int]]:
    """Of each group: by how many hits a is ahead of b, and how many clips it has."""
    members = [GROUPS == group for group in GROUPS.unique()]
    return [AHEAD[m].sum().item() for m in members], [int(m.sum()) for m in members]


def among(found: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Which of the numbers found [n] are among the values [m]: bool [n]."""
    return (found.double()[:, None] - values.double()).abs().min(dim=1).values < 1e-5


def all_among(found: torch.Tensor, values: torch.Tensor) -> bool:
    return bool(among(found, values).all())
