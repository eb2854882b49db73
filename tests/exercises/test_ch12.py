"""Chapter 12: the schedule, averaged weights, one epoch, a test of loops, `fit`, a run that can be resumed, the paired
bootstrap."""

import copy
import inspect
import math
import random  # noqa: F401  (an edited function draws by it)

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vivit_edu.course.checks import ch12
from vivit_edu.course.culmination import epoch_batches, precision
from vivit_edu.training import grad_scaler, learning_rate, make_optimiser

from .cases import resumed_here, run_cases


def unwritten(*_):
    raise NotImplementedError()


def edited(function, edit, **returns):
    """A function with parts of its source replaced: "old -> new ; old -> new"; nothing on the right is `pass`."""
    source = inspect.getsource(function)
    changes = [change.split(" -> ") for change in filter(None, edit.split(" ; "))]
    for k, (old, _) in enumerate(changes):
        assert source.count(old) == 1, old
        source = source.replace(old, f"<{k}>")
    for k, (_, new) in enumerate(changes):
        source = source.replace(f"<{k}>", new or "pass")
    names = dict(globals())
    exec(source, names)
    return names[function.__name__]


# ---- 12.1


def by_cases(step, total, peak, warmup):
    first = warmup * total
    if step < first:
        return peak * (step + 1) / (first + 1)
    return peak * (1 + math.cos(math.pi * (step - first) / (total - first))) / 2


def the_packages(step, total, peak, warmup):
    class Recipe:
        lr = peak

    Recipe.warmup = warmup
    return learning_rate(Recipe, step, total)


def with_numpy(step, total, peak, warmup):
    first = total * warmup
    x = np.clip((step - first) / (total - first), 0, 1)
    return np.minimum((step + 1) / (first + 1), 1) * peak * np.float64(0.5) * (1 + np.cos(np.pi * x))


def with_torch(step, total, peak, warmup):
    warm = warmup * total
    if step >= warm:
        x = torch.tensor((step - warm) / (total - warm))
        return peak * torch.cos(math.pi / 2 * x) ** 2  # the same curve
    return torch.tensor(peak / (warm + 1)) * (step + 1)


def down(curve):
    def solution(step, total, peak, warmup):
        first = warmup * total
        return peak * (step + 1) / (first + 1) if step < first else peak * curve((step - first) / (total - first))

    return solution


def up(line):
    def solution(step, total, peak, warmup):
        return peak * line(step, total, warmup) if step < warmup * total else by_cases(step, total, peak, warmup)

    return solution


def half(x):
    return (1 + math.cos(math.pi * x)) / 2


def after(share):
    def solution(step, total, peak, warmup):
        first = warmup * total
        return by_cases(step, total, peak, warmup) if step < first else peak * half(share(step, total, first))

    return solution


def in_integers(step, total, peak, warmup):
    if step < warmup * total:
        return peak * ((step + 1) // (warmup * total + 1))
    return by_cases(step, total, peak, warmup)


test_schedule = run_cases(
    ch12.check_schedule,
    right=[by_cases, the_packages, with_numpy, with_torch],
    wrong={
        "from zero": (up(lambda s, n, w: s / (w * n)), "its batch is read for nothing"),
        "one step early": (up(lambda s, n, w: (s + 1) / (w * n)), "one step too early"),
        "one step short": (up(lambda s, n, w: s / (w * n + 1)), "count the steps from 1"),
        "a line down": (down(lambda x: 1 - x), "falls in a line"),
        "never down": (down(lambda x: 1.0), "stays at the peak"),
        "a whole turn": (down(lambda x: half(2 * x)), "whole turn"),
        "a quarter of a turn": (down(lambda x: math.cos(math.pi / 2 * x)), "quarter of a turn"),
        "down to minus one": (down(lambda x: math.cos(math.pi * x)), "must not be negative"),
        "not halved": (down(lambda x: 2 * half(x)), "halve it"),
        "upside down": (down(lambda x: 1 - half(x)), "upside down"),
        "degrees": (down(lambda x: (1 + math.cos(180 * x)) / 2), "degrees"),
        "cosine of all steps": (after(lambda step, total, first: step / total), "began with step 0"),
        "stretched over all steps": (after(lambda step, total, first: (step - first) / total), "does not reach 0"),
        "one step too many": (after(lambda step, total, first: (step + 1 - first) / (total - first)), "no \\+ 1"),
        "warm-up without brackets": (up(lambda step, total, warmup: (step + 1) / (warmup * total) + 1), "brackets"),
        "one at the last step": (
            after(lambda step, total, first: (step - first) / (total - first - 1)),
            "would reach 1 one step later",
        ),
        "no warm-up": (up(lambda step, total, warmup: 1.0), "no warm-up"),
        "warm-up over all steps": (up(lambda step, total, warmup: step / total), "divide by the steps of the warm-up"),
        "warmup is a number of steps": (up(lambda step, total, warmup: step / warmup), "above the peak"),
        "warm-up down": (up(lambda step, total, warmup: 1 - step / (warmup * total)), "falls"),
        "a curve up": (up(lambda s, n, w: ((s + 1) / (w * n + 1)) ** 2), "straight line"),
        "whole division": (in_integers, "divide by the steps|wrong in"),
        "a pair": (lambda step, total, peak, warmup: (step, peak), "is 2 numbers, expected one"),
        "no return": (lambda *_: None, "None"),
        "error": (lambda step, total, peak, warmup: peak * step / (warmup * 0), "ZeroDivision"),
        "not written": (unwritten, "still to be written"),
    },
)

# ---- 12.2


def by_lerp(average, weights, decay):
    with torch.no_grad():
        for a, w in zip(average, weights):
            a.lerp_(w, 1 - decay)


@torch.no_grad()
def by_copy(average, weights, decay):
    for k in range(len(average)):
        average[k].copy_(decay * average[k] + (1 - decay) * weights[k])


@torch.no_grad()
def by_mul_and_add(average, weights, decay):
    for a, w in zip(average, weights):
        a.mul_(decay)
        a.add_((1 - decay) * w)


def by_data(average, weights, decay):
    for a, w in zip(average, weights):
        a.mul_(decay)
        a.add_(w.data, alpha=1 - decay)


def by_index(average, weights, decay):
    for a, w in zip(average, weights):
        a[...] = decay * a + (1 - decay) * w.detach()


def all_at_once(average, weights, decay):
    torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - decay)


def averaged(rule):
    @torch.no_grad()
    def solution(average, weights, decay):
        for a, w in zip(average, weights):
            a.copy_(rule(a, w, decay))

    return solution


def new_names(average, weights, decay):
    for a, w in zip(average, weights):
        a = decay * a + (1 - decay) * w  # noqa: F841


def new_list(average, weights, decay):
    return [decay * a + (1 - decay) * w for a, w in zip(average, weights)]


def with_gradients(average, weights, decay):
    for a, w in zip(average, weights):
        a.mul_(decay).add_((1 - decay) * w)


@torch.no_grad()
def into_weights(average, weights, decay):
    for a, w in zip(average, weights):
        w.mul_(1 - decay).add_(a, alpha=decay)


@torch.no_grad()
def by_slices(average, weights, decay):
    for a, w in zip(average, weights):
        a[:] = decay * a + (1 - decay) * w


@torch.no_grad()
def first_only(average, weights, decay):
    average[0].lerp_(weights[0], 1 - decay)


def replaced(average, weights, decay):
    for i, w in enumerate(weights):
        average[i] = decay * average[i] + (1 - decay) * w.detach()


def grad_off_for_good(average, weights, decay):
    torch.set_grad_enabled(False)
    by_data(average, weights, decay)


test_average = run_cases(
    ch12.check_average,
    right=[by_lerp, by_copy, by_data, by_index, all_at_once],
    wrong={
        "shares exchanged": (averaged(lambda a, w, d: (1 - d) * a + d * w), "shares are exchanged"),
        "new tensors in the list": (replaced, "the list holds other tensors"),
        "overwritten": (averaged(lambda a, w, d: w), "overwritten"),
        "the plain mean": (averaged(lambda a, w, d: (a + w) / 2), "plain mean"),
        "weights whole": (averaged(lambda a, w, d: d * a + w), "added whole"),
        "average whole": (averaged(lambda a, w, d: a + (1 - d) * w), "kept whole"),
        "only scaled": (averaged(lambda a, w, d: d * a), "only the old average"),
        "another name": (new_names, "another tensor"),
        "a new list": (new_list, "a new list"),
        "inside the graph": (with_gradients, "graph of gradients"),
        "written into the weights": (into_weights, "write into the average alone"),
        "by slices": (by_slices, "write into it with copy_"),
        "the first alone": (first_only, "go through all"),
        "no sum": (averaged(lambda a, w, d: a * w), "wrong in"),
        "nothing": (lambda *_: None, "has not changed"),
        "gradients off for good": (grad_off_for_good, "gradients switched off"),
        "not written": (unwritten, "still to be written"),
    },
)


def test_the_average_is_torchs():
    layer, chapter = nn.Linear(4, 3), copy.deepcopy
    theirs, ours = AveragedModel(layer, multi_avg_fn=get_ema_multi_avg_fn(0.9)), chapter(layer)
    theirs.update_parameters(layer)  # the first call only copies
    for _ in range(5):
        with torch.no_grad():
            layer.weight += torch.randn(3, 4)
        theirs.update_parameters(layer)
        by_lerp(list(ours.parameters()), list(layer.parameters()), 0.9)
    torch.testing.assert_close(theirs.module.weight, ours.weight)


# ---- 12.3


def plain_epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
    device = next(model.parameters()).device
    model.train()
    total = 0
    for (clips, targets), rate in zip(batches, rates):
        clips, targets = clips.to(device), targets.to(device)
        for g in optimiser.param_groups:
            g["lr"] = rate
        optimiser.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(model(clips), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimiser)
        scaler.update()
        after_step()
        total = total + loss.detach()
    return total / len(rates)


def indexed_epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
    losses = []
    model.train(True)
    for step, batch in enumerate(batches):
        set_rate(optimiser, rates[step])
        if dtype == torch.float32:
            loss = nn.CrossEntropyLoss()(model(batch[0]), batch[1])
        else:
            with torch.autocast("cpu", dtype):
                loss = nn.CrossEntropyLoss()(model(batch[0]), batch[1])
        model.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], max_norm=clip_norm)
        scaler.step(optimiser)
        scaler.update()
        losses.append(loss.item())
        after_step()
    return float(np.mean(losses))


def set_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group.update(lr=float(rate))


def with_log_softmax(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
    total, steps = 0.0, 0
    for (clips, targets), rate in zip(batches, rates):
        model.train()
        set_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(clips.device.type, dtype, enabled=dtype is not torch.float32):
            logits = model(clips)
        loss = -(targets * logits.float().log_softmax(1)).sum(1).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        scaler.step(optimiser)
        scaler.update()
        after_step()
        total, steps = total + loss.item(), steps + 1
    return np.float64(total / steps)


def late_after_step(model, batches, optimiser, rates, scaler, dtype, clip_norm, after_step):
    found = plain_epoch(model, batches, optimiser, rates, scaler, dtype, clip_norm, lambda: None)
    after_step()
    return found


def moves_the_model(model, *rest):
    model.to(torch.bfloat16)
    return plain_epoch(model, *rest)


def epoch(edit="", *, returns="total / len(rates)"):
    """`plain_epoch`, edited."""
    return edited(plain_epoch, f"return total / len(rates) -> return {returns}" + (f" ; {edit}" if edit else ""))


CLIP = "torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)"
test_epoch = run_cases(
    ch12.check_epoch,
    right=[plain_epoch, indexed_epoch, with_log_softmax],
    wrong={
        "eval mode": (epoch("model.train() -> model.eval()"), "eval mode"),
        "mode forgotten": (epoch("model.train() -> "), "eval mode"),
        "a length asked of batches": (
            epoch(returns="total / len(batches)"),
            "batches may have no length",
        ),
        "no zero_grad": (epoch("optimiser.zero_grad() -> "), "gradients of earlier steps"),
        "zero_grad before the step": (
            epoch(f"{CLIP} -> {CLIP}; optimiser.zero_grad() ; optimiser.zero_grad() -> "),
            "wipes the gradients out|have not moved|wrong",
        ),
        "rates ignored": (epoch('g["lr"] = rate -> '), "not the one in `rates`"),
        "first group only": (epoch('g["lr"] = rate -> optimiser.param_groups[0]["lr"] = rate'), "only the first group"),
        "first rate": (epoch('g["lr"] = rate -> g["lr"] = rates[0]'), "all steps have the first rate"),
        "no clipping": (epoch(f"{CLIP} -> "), "not clipped"),
        "values clipped": (
            epoch(f"{CLIP} -> torch.nn.utils.clip_grad_value_(model.parameters(), clip_norm)"),
            "clip the length of the whole",
        ),
        "clipped too late": (
            epoch(f"{CLIP} ->  ; scaler.step(optimiser) -> scaler.step(optimiser); {CLIP}"),
            "not clipped",
        ),
        "softmax first": (epoch("model(clips), targets -> model(clips).softmax(1), targets"), "went through softmax"),
        "hard targets": (epoch("model(clips), targets -> model(clips), targets.argmax(1)"), "without argmax"),
        "clipped before it is unscaled": (
            epoch(f"scaler.unscale_(optimiser) -> {CLIP}; scaler.unscale_(optimiser) ; {CLIP} -> "),
            "still scaled",
        ),
        "never unscaled": (epoch("scaler.unscale_(optimiser) -> "), "still scaled"),
        "backward without scale": (
            epoch("scaler.scale(loss).backward() -> loss.backward()"),
            "raised AssertionError.*did not use scaler.scale",
        ),
        "the optimiser steps": (
            epoch("scaler.step(optimiser) -> optimiser.step()"),
            "overflowed was made all the same",
        ),
        "no scaler at all": (
            epoch(
                "scaler.scale(loss).backward() -> loss.backward() ; scaler.unscale_(optimiser) ->  ; "
                "scaler.step(optimiser) -> optimiser.step() ; scaler.update() -> "
            ),
            "overflowed was made all the same",
        ),
        "no update of the scale": (epoch("scaler.update() -> "), r"called after step.*scaler.update\(\) is missing"),
        "no autocast": (epoch("enabled=dtype != torch.float32 -> enabled=False"), "inside `with torch.autocast"),
        "always autocast": (
            epoch("dtype=dtype, enabled=dtype != torch.float32 -> dtype=torch.bfloat16"),
            "wrong in|switch autocast off",
        ),
        "the model in bfloat16": (moves_the_model, "wrong|float32 was asked|raised"),
        "the sum": (epoch(returns="total.item()"), "divide it by the number of steps"),
        "the last loss": (epoch(returns="loss.item()"), "the mean of all steps"),
        "divided by clips": (epoch(returns="total.item() / 12"), "number of clips|mean loss (is|are) wrong"),
        "with its graph": (epoch("total + loss.detach() -> total + loss"), "holds the graph"),
        "average before the step": (
            epoch("scaler.step(optimiser) -> after_step(); scaler.step(optimiser) ; after_step()\n -> \n"),
            "before the step was made",
        ),
        "average once": (late_after_step, "1 times in an epoch of 3 steps"),
        "average forgotten": (epoch("after_step() -> "), "0 times in an epoch"),
        "no return": (epoch(returns="None"), "None"),
        "not written": (unwritten, "still to be written"),
    },
)

# ---- 12.4


def weights_after(train_epoch, make, batches, rates, enabled):
    model, optimiser = make()
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    train_epoch(model, batches, optimiser, rates, scaler, torch.float32, 1.0, lambda: None)
    return model


def by_parameters(train_epoch, make, batches, rates):
    with_scaler, without = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
    return all(torch.allclose(p, q, atol=1e-6) for p, q in zip(with_scaler.parameters(), without.parameters()))


def by_state(train_epoch, make, batches, rates):
    a = weights_after(train_epoch, make, batches, rates, True).state_dict()
    b = weights_after(train_epoch, make, batches, rates, False).state_dict()
    for name in a:
        if (a[name] - b[name]).abs().max() > 1e-5:
            return False
    return True


def by_logits(train_epoch, make, batches, rates):
    ends = [weights_after(train_epoch, make, batches, rates, on) for on in (True, False)]
    with torch.no_grad():
        logits = [torch.cat([model(clips) for clips, _ in batches]) for model in ends]
    return (logits[0] - logits[1]).abs().max() < 1e-4


def by_losses(train_epoch, make, batches, rates):
    found = []
    for enabled in (True, False):
        model, optimiser = make()
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        found.append(train_epoch(model, batches, optimiser, rates, scaler, torch.float32, 1.0, lambda: None))
    return abs(found[0] - found[1]) < 1e-6


def one_model(train_epoch, make, batches, rates):
    model, optimiser = make()
    ends = []
    for enabled in (True, False):
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        train_epoch(model, batches, optimiser, rates, scaler, torch.float32, 1.0, lambda: None)
        ends.append([p.detach().clone() for p in model.parameters()])
    return all(torch.allclose(p, q) for p, q in zip(*ends))


def without_clone(train_epoch, make, batches, rates):
    model, optimiser = make()
    ends = []
    for enabled in (True, False):
        scaler = torch.amp.GradScaler("cpu", enabled=enabled)
        train_epoch(model, batches, optimiser, rates, scaler, torch.float32, 1.0, lambda: None)
        ends.append(list(model.parameters()))
    return all(torch.allclose(p, q) for p, q in zip(*ends))


def never_on(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, False) for _ in range(2))
    return all(torch.allclose(p, q) for p, q in zip(a.parameters(), b.parameters()))


def always_on(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, True) for _ in range(2))
    return all(torch.allclose(p, q) for p, q in zip(a.parameters(), b.parameters()))


def loosely(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
    return all(torch.allclose(p, q, atol=5.0) for p, q in zip(a.parameters(), b.parameters()))


def a_little_loosely(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
    return all(torch.allclose(p, q, atol=0.02) for p, q in zip(a.parameters(), b.parameters()))


def own_loop(train_epoch, make, batches, rates):
    return by_parameters(plain_epoch, make, batches, rates)


def turned_round(train_epoch, make, batches, rates):
    return not by_parameters(train_epoch, make, batches, rates)


def a_list(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
    return [torch.allclose(p, q) for p, q in zip(a.parameters(), b.parameters())]


def seeded(train_epoch, make, batches, rates):
    torch.manual_seed(0)
    return by_parameters(train_epoch, make, batches, rates)


def by_any(train_epoch, make, batches, rates):
    a, b = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
    return any(torch.allclose(p, q) for p, q in zip(a.parameters(), b.parameters()))


def by_one(place):
    def test(train_epoch, make, batches, rates):
        a, b = (weights_after(train_epoch, make, batches, rates, on) for on in (True, False))
        return torch.allclose(list(a.parameters())[place], list(b.parameters())[place])

    return test


def by_first_batch(train_epoch, make, batches, rates):
    return by_parameters(train_epoch, make, batches[:1], rates[:1])


test_test_of_loops = run_cases(
    ch12.check_test_of_loops,
    right=[by_parameters, by_state, by_logits],
    wrong={
        "losses compared": (by_losses, "True to every loop|compare the weights"),
        "one model for both": (one_model, "begin with the same weights"),
        "compared with itself": (without_clone, "True to every loop"),
        "the scaler never on": (never_on, "True to every loop"),
        "the scaler always on": (always_on, "True to every loop"),
        "any instead of all": (by_any, "wrong in the first parameter only"),
        "the first parameter": (by_one(0), "wrong in the last parameter only"),
        "the last parameter": (by_one(-1), "wrong in the first parameter only"),
        "the first batch": (by_first_batch, "right in the first step and wrong after it"),
        "compared a little loosely": (a_little_loosely, r"closely \(atol=1e-6\)"),
        "compared loosely": (loosely, "True to every loop"),
        "its own loop tried": (own_loop, "True to every loop"),
        "always True": (lambda *_: True, "True to every loop"),
        "always False": (lambda *_: False, "False to a loop that is right"),
        "turned round": (turned_round, "False to a loop that is right"),
        "a list": (a_list, "must be True or False"),
        "a global seed": (seeded, "global seed"),
        "no return": (lambda *_: None, "None"),
        "not written": (unwritten, "still to be written"),
    },
)

# ---- 12.5


def own_fit(model, volumes, recipe, seed=0):
    device = next(model.parameters()).device
    average = copy.deepcopy(model)
    optimiser = make_optimiser(model, recipe)
    scaler = grad_scaler(device)
    steps = len(volumes.train) // recipe.batch_size
    losses = []
    for epoch in range(recipe.epochs):
        rates = []
        for k in range(steps):
            rates.append(by_cases(epoch * steps + k, steps * recipe.epochs, recipe.lr, recipe.warmup))
        loss = plain_epoch(
            model,
            epoch_batches(volumes, recipe, seed, epoch),
            optimiser,
            rates,
            scaler,
            precision(device, recipe.bfloat16),
            recipe.clip_norm,
            lambda: by_lerp(list(average.parameters()), list(model.parameters()), recipe.ema),
        )
        losses.append(float(loss))
    model.load_state_dict(average.state_dict())
    model.eval()
    return losses


def with_averaged_model(model, volumes, recipe, seed=0):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema))
    optimiser, scaler, losses = make_optimiser(model, recipe), torch.amp.GradScaler("cpu", enabled=False), []
    steps = len(volumes.train) // recipe.batch_size
    rates = [by_cases(k, steps * recipe.epochs, recipe.lr, recipe.warmup) for k in range(steps * recipe.epochs)]
    for epoch in range(recipe.epochs):
        mine, batches = rates[epoch * steps :][:steps], list(epoch_batches(volumes, recipe, seed, epoch))
        args = (optimiser, mine, scaler, torch.float32, recipe.clip_norm, lambda: average.update_parameters(model))
        losses.append(indexed_epoch(model, batches, *args))
    with torch.no_grad():
        for p, q in zip(model.parameters(), average.module.parameters()):
            p.copy_(q)
    return torch.tensor(losses) if not model.eval().training else None


def with_a_list(model, volumes, recipe, seed=0):
    average = [p.detach().clone() for p in model.parameters()]

    def after_step():
        by_data(average, model.parameters(), recipe.ema)

    optimiser, scaler, n = make_optimiser(model, recipe), grad_scaler(torch.device("cpu")), len(volumes.train)
    per_epoch = n // recipe.batch_size
    total, losses, count = per_epoch * recipe.epochs, [], 0
    for epoch in range(recipe.epochs):
        rates = [the_packages(count + k, total, recipe.lr, recipe.warmup) for k in range(per_epoch)]
        count += per_epoch
        batches = epoch_batches(volumes, recipe, seed, epoch)
        args = (model, batches, optimiser, rates, scaler, torch.float32, recipe.clip_norm, after_step)
        losses.append(with_log_softmax(*args))
    for p, mean in zip(model.parameters(), average):
        p.data = mean
    model.train(False)
    return losses


def writes_into_the_volumes(model, volumes, recipe, seed=0):
    volumes.train.clips.zero_()
    return own_fit(model, volumes, recipe, seed)


def fitting(edit):
    return edited(own_fit, edit)


EMA = "by_lerp(list(average.parameters()), list(model.parameters()), recipe.ema)"
test_fit = run_cases(
    ch12.check_fit,
    right=[own_fit, with_averaged_model, with_a_list],
    wrong={
        "raw weights": (fitting("model.load_state_dict(average.state_dict()) -> "), "weights of the last step"),
        "no copy": (fitting("average = copy.deepcopy(model) -> average = model"), "weights of the last step"),
        "no copy, by mul and add": (
            fitting("average = copy.deepcopy(model) -> average = model ; by_lerp -> by_mul_and_add"),
            "the average is the model itself",
        ),
        "a new copy in each epoch": (
            fitting("rates = [] -> rates = []; average = copy.deepcopy(model)"),
            "the average begins anew in each epoch",
        ),
        "average and weights exchanged": (
            fitting(
                "by_lerp(list(average.parameters()), list(model.parameters()), recipe.ema) -> "
                "by_lerp(list(model.parameters()), list(average.parameters()), recipe.ema)"
            ),
            "nothing went into the average, which is the first argument",
        ),
        "loaded in each epoch": (
            fitting(
                "losses.append(float(loss)) -> losses.append(float(loss)); model.load_state_dict(average.state_dict())"
            ),
            "after every epoch",
        ),
        "another optimiser": (
            fitting("make_optimiser(model, recipe) -> torch.optim.AdamW(model.parameters(), lr=recipe.lr)"),
            "the optimiser is not the recipe's",
        ),
        "schedule restarts": (
            fitting("epoch * steps + k, steps * recipe.epochs -> k, steps"),
            "begins anew in each epoch",
        ),
        "steps count in the epoch": (fitting("epoch * steps + k -> k"), "rates of the first one"),
        "one rate for an epoch": (
            fitting("epoch * steps + k, steps * recipe.epochs -> epoch, recipe.epochs"),
            "counts steps, not epochs",
        ),
        "constant rate": (
            fitting("by_cases(epoch * steps + k, steps * recipe.epochs, recipe.lr, recipe.warmup) -> recipe.lr"),
            "the rate is constant",
        ),
        "rounded up": (
            fitting("epoch * steps + k, steps * recipe.epochs -> epoch * (steps + 1) + k, (steps + 1) * recipe.epochs"),
            "left over",
        ),
        "the same batches": (fitting("recipe, seed, epoch) -> recipe, seed, 0)"), "same batches"),
        "another seed": (fitting("recipe, seed, epoch) -> recipe, 0, epoch)"), "the seed has no effect"),
        "a new optimiser in each epoch": (
            fitting("rates = [] -> rates = []; optimiser = make_optimiser(model, recipe)"),
            "made anew in each epoch",
        ),
        "average once an epoch": (
            fitting(f"lambda: {EMA} -> lambda: None ; losses.append(float(loss)) -> losses.append(float(loss)); {EMA}"),
            "only once in each epoch",
        ),
        "no average at all": (fitting(f"lambda: {EMA} -> lambda: None"), "nothing went into the average"),
        "another clip_norm": (fitting("recipe.clip_norm, -> 1e9,"), "clip_norm is not the recipe's"),
        "left in training mode": (fitting("model.eval() -> model.train()"), "left in training mode"),
        "last loss alone": (fitting("return losses -> return losses[-1]"), "return the list of the mean losses"),
        "a loss too few": (fitting("return losses -> return losses[1:]"), "2 numbers for 3 epochs"),
        "no return": (fitting("return losses -> return None"), "return ...|None"),
        "trained on validation": (
            fitting(
                "epoch_batches(volumes, -> epoch_batches(type(volumes)(volumes.name, volumes.class_names, "
                "volumes.val, volumes.val, volumes.val),"
            ),
            "wrong in",
        ),
        "volumes changed": (writes_into_the_volumes, "changes the volumes"),
        "a global seed": (fitting("losses = [] -> losses = []; torch.manual_seed(seed)"), "global seed"),
        "not written": (unwritten, "still to be written"),
    },
)

# ---- 12.6


def save_dict(path, model, average, optimiser, epochs_done):
    parts = {"model": model.state_dict(), "average": average.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(parts | {"epochs_done": epochs_done}, path)


def load_dict(path, model, average, optimiser):
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    average.load_state_dict(content["average"])
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


def save_list(path, model, average, optimiser, epochs_done):
    with open(path, "wb") as file:
        weights = [list(part.state_dict().values()) for part in (model, average)]
        torch.save([torch.tensor(epochs_done), optimiser.state_dict(), weights], file)


def load_list(path, model, average, optimiser):
    done, state, weights = torch.load(path, weights_only=False)
    with torch.no_grad():
        for part, values in zip((model, average), weights):
            for p, saved in zip(part.state_dict().values(), values):
                p.copy_(saved)
    optimiser.load_state_dict(state)
    return int(done)


def save_objects(path, model, average, optimiser, epochs_done):
    random_state = torch.get_rng_state()
    torch.save((model.state_dict(), average.state_dict(), optimiser.state_dict(), epochs_done, random_state), path)


def load_objects(path, model, average, optimiser):
    *states, done, random_state = torch.load(path)
    for part, state in zip((model, average, optimiser), states):
        part.load_state_dict(state)
    return done


def save_parameters(path, model, average, optimiser, epochs_done):
    weights = [[p.data for p in part.parameters()] for part in (model, average)]
    torch.save([epochs_done, optimiser.state_dict(), weights], path)


def load_parameters(path, model, average, optimiser):
    done, state, weights = torch.load(path)
    for part, values in zip((model, average), weights):
        for p, saved in zip(part.parameters(), values):
            p.data.copy_(saved)
    optimiser.load_state_dict(state)
    return done


def without(part):
    def load(path, model, average, optimiser):
        content = torch.load(path, weights_only=True)
        for name, target in (("model", model), ("average", average), ("optimiser", optimiser)):
            if name != part:
                target.load_state_dict(content[name])
        return None if part == "epochs" else content["epochs_done"]

    return load


def average_from_model(path, model, average, optimiser):
    done = load_dict(path, model, average, optimiser)
    average.load_state_dict(model.state_dict())
    return done


def both(save, load):
    """The pair as one value, for `run_cases` gives a check one solution."""
    solution = lambda: (save, load)  # noqa: E731
    solution.__name__ = save.__name__
    return solution


def save_whole(path, model, average, optimiser, epochs_done):
    torch.save({"model": model, "average": average, "optimiser": optimiser, "epochs_done": epochs_done}, path)


def other_return(change):
    return lambda *arguments: change(load_dict(*arguments))


def save_and_zero(path, model, average, optimiser, epochs_done):
    save_dict(path, model, average, optimiser, epochs_done)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()


def save_elsewhere(path, model, average, optimiser, epochs_done):
    save_dict(path.with_name("model.pt"), model, average, optimiser, epochs_done)


MEMORY = {}


def save_references(path, model, average, optimiser, epochs_done):
    path.touch()
    MEMORY.update(model=model.state_dict(), average=average.state_dict(), optimiser=optimiser, done=epochs_done)


def load_references(path, model, average, optimiser):
    model.load_state_dict(MEMORY["model"])
    average.load_state_dict(MEMORY["average"])
    return MEMORY["done"]


def save_copies(path, model, average, optimiser, epochs_done):
    path.touch()
    parts = (model.state_dict(), average.state_dict(), optimiser.state_dict(), epochs_done)
    MEMORY["copies"] = copy.deepcopy(parts)


def load_copies(path, model, average, optimiser):
    *states, done = MEMORY["copies"]
    for part, state in zip((model, average, optimiser), states):
        part.load_state_dict(state)
    return done


def loaded_into_a_new_optimiser(path, model, average, optimiser):
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    average.load_state_dict(content["average"])
    optimiser = torch.optim.AdamW(model.parameters())
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


def check_resume(solution):  # by this name the guide finds the mistakes
    if solution.__name__ in ("save_list", "save_objects"):  # save_dict and what keeps copies go to a real one
        with resumed_here():
            return ch12.check_resume(*solution())
    ch12.check_resume(*solution())


test_resume = run_cases(
    check_resume,
    right=[both(save_dict, load_dict), both(save_list, load_list), both(save_objects, load_objects)],
    wrong={
        "parameters alone": (both(save_parameters, load_parameters), "not the running means of BatchNorm"),
        "optimiser forgotten": (both(save_dict, without("optimiser")), "AdamW remembers"),
        "another optimiser": (both(save_dict, loaded_into_a_new_optimiser), "AdamW remembers"),
        "weights forgotten": (both(save_dict, without("model")), "weights of the new model as they were"),
        "average forgotten": (both(save_dict, without("average")), "weights of the new average as they were"),
        "average from the model": (both(save_dict, average_from_model), "the average got the weights of the model"),
        "whole objects": (both(save_whole, load_dict), "save what their state_dict"),
        "number not returned": (both(save_dict, without("epochs")), "what load_run returned is None"),
        "one epoch too far": (both(save_dict, other_return(lambda done: done + 1)), "load_run says 4"),
        "the last epoch's number": (both(save_dict, other_return(lambda done: done - 1)), "load_run says 2"),
        "all returned": (both(save_dict, other_return(lambda done: {"epochs_done": done})), "a dict"),
        "references kept in memory": (both(save_references, load_references), "not those of the moment of saving"),
        "copies kept in memory": (both(save_copies, load_copies), "in a new one load_run stops with KeyError"),
        "another file": (both(save_elsewhere, load_dict), "nothing was written"),
        "model changed": (both(save_and_zero, load_dict), "changes the model that it was given"),
        "error": (both(save_dict, lambda path, model, average, optimiser: torch.load(path)["weights"]), "KeyError"),
        "not written": (both(unwritten, unwritten), "still to be written"),
    },
)

# ---- 12.7


def by_loop(hits_a, hits_b, groups, draws, generator):
    members = [(groups == g).nonzero().flatten() for g in groups.unique()]
    found = []
    for _ in range(draws):
        chosen = torch.randint(len(members), (len(members),), generator=generator)
        clips = torch.cat([members[k] for k in chosen])
        found.append(hits_a[clips].float().mean() - hits_b[clips].float().mean())
    return torch.stack(found)


def by_counts(hits_a, hits_b, groups, draws, generator):
    names, index = groups.unique(return_inverse=True)
    one_hot = F.one_hot(index, len(names)).double()
    sums, sizes = one_hot.T @ (hits_a.double() - hits_b.double()), one_hot.sum(0)
    times = torch.stack(
        [
            torch.bincount(torch.randint(len(names), (len(names),), generator=generator), minlength=len(names)).double()
            for _ in range(draws)
        ]
    )
    return (times @ sums) / (times @ sizes)


def python_lists(hits_a, hits_b, groups, draws, generator):
    groups, a, b = groups.tolist(), hits_a.tolist(), hits_b.tolist()
    names, found = sorted(set(groups)), []
    for _ in range(draws):
        chosen = [names[torch.randint(len(names), (1,), generator=generator).item()] for _ in names]
        clips = [i for g in chosen for i in range(len(groups)) if groups[i] == g]
        found.append(sum(a[i] - b[i] for i in clips) / len(clips))
    return found


def by_multinomial(hits_a, hits_b, groups, draws, generator):
    names, index, sizes = groups.unique(return_inverse=True, return_counts=True)
    ahead = torch.zeros(len(names)).scatter_add(0, index, hits_a.float() - hits_b.float())
    chosen = torch.multinomial(torch.ones(len(names)), draws * len(names), True, generator=generator)
    chosen = chosen.view(draws, len(names))
    return ahead[chosen].sum(1) / sizes[chosen].sum(1)


def drawing(edit):
    return edited(by_loop, edit)


def clips_drawn(hits_a, hits_b, groups, draws, generator):
    rows = torch.randint(len(hits_a), (draws, len(hits_a)), generator=generator)
    return hits_a[rows].float().mean(1) - hits_b[rows].float().mean(1)


def drawn_twice(hits_a, hits_b, groups, draws, generator):
    def accuracies(hits):
        return by_loop(hits, torch.zeros_like(hits), groups, draws, generator)

    return accuracies(hits_a) - accuracies(hits_b)


def group_means(hits_a, hits_b, groups, draws, generator):
    ahead = torch.stack([(hits_a[groups == g].float() - hits_b[groups == g].float()).mean() for g in groups.unique()])
    return ahead[torch.randint(len(ahead), (draws, len(ahead)), generator=generator)].mean(1)


def from_ids(hits_a, hits_b, groups, draws, generator):
    found = []
    for _ in range(draws):
        chosen = torch.randint(int(groups.max()) + 1, (len(groups.unique()),), generator=generator)
        clips = torch.cat([(groups == g).nonzero().flatten() for g in chosen])
        found.append(hits_a[clips].float().mean() - hits_b[clips].float().mean())
    return torch.stack(found)


def each_group_once(hits_a, hits_b, groups, draws, generator):
    found = []
    for _ in range(draws):
        chosen = groups.unique()[torch.randint(len(groups.unique()), (len(groups.unique()),), generator=generator)]
        inside = torch.isin(groups, chosen)
        found.append(hits_a[inside].float().mean() - hits_b[inside].float().mean())
    return torch.stack(found)


test_bootstrap = run_cases(
    ch12.check_bootstrap,
    right=[by_loop, by_counts, python_lists, by_multinomial],
    wrong={
        "clips drawn": (clips_drawn, "single clips were drawn"),
        "bool subtracted": (
            drawing("hits_a[clips].float().mean() - hits_b[clips].float().mean() -> (hits_a - hits_b)[clips].mean()"),
            "make numbers of the hits first",
        ),
        "where they differ": (
            drawing(
                "hits_a[clips].float().mean() - hits_b[clips].float().mean() -> (hits_a ^ hits_b)[clips].float().mean()"
            ),
            "the signs are lost",
        ),
        "drawn for each model": (drawn_twice, "draw once and use it for both"),
        "the wrong way round": (
            drawing(
                "hits_a[clips].float().mean() - hits_b[clips].float().mean() -> "
                "hits_b[clips].float().mean() - hits_a[clips].float().mean()"
            ),
            "the other way round",
        ),
        "means of groups": (group_means, "accuracies of the groups were averaged"),
        "counts": (
            drawing(
                "hits_a[clips].float().mean() - hits_b[clips].float().mean() -> "
                "hits_a[clips].float().sum() - hits_b[clips].float().sum()"
            ),
            "counts, not accuracies",
        ),
        "divided by all clips": (
            drawing(
                "hits_a[clips].float().mean() - hits_b[clips].float().mean() -> "
                "(hits_a[clips].float().sum() - hits_b[clips].float().sum()) / len(hits_a)"
            ),
            "number of all clips",
        ),
        "without replacement": (
            drawing(
                "torch.randint(len(members), (len(members),), generator=generator) -> "
                "torch.randperm(len(members), generator=generator)"
            ),
            "with replacement",
        ),
        "a group too few": (drawing("(len(members),), -> (len(members) - 1,),"), "two groups were drawn"),
        "never the last group": (drawing("randint(len(members), -> randint(len(members) - 1,"), "never comes up"),
        "another generator": (drawing(", generator=generator) -> )"), "pass generator=generator|draw from `generator`"),
        "Python's random": (
            drawing(
                "torch.randint(len(members), (len(members),), generator=generator) -> "
                "random.choices(range(len(members)), k=len(members))"
            ),
            "pass generator=generator|draw from `generator`",
        ),
        "a seed of its own": (
            drawing("generator=generator -> generator=torch.Generator().manual_seed(0)"),
            "all draws give|every generator gives the same",
        ),
        "numbers of groups as indices": (from_ids, "draws are nan"),
        "each group at most once": (each_group_once, "which no sample"),
        "the interval": (
            drawing("torch.stack(found) -> torch.stack(found).quantile(torch.tensor([0.025, 0.975]))"),
            "one difference for each draw",
        ),
        "two accuracies": (
            drawing(
                "hits_a[clips].float().mean() - hits_b[clips].float().mean() -> "
                "torch.stack([hits_a[clips].float().mean(), hits_b[clips].float().mean()])"
            ),
            "one difference for each draw",
        ),
        "no return": (lambda *_: None, "NoneType|None"),
        "not written": (unwritten, "still to be written"),
    },
)
