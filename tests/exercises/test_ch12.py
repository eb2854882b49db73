"""Chapter 12: what its checks accept and refuse, and what its cells define."""

import math

import numpy as np
import pytest
import torch

from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.course.checks import ch12
from vivit_edu.training import Recipe, learning_rate

from .cases import run_cases

# ---- 12.1


def by_cases(step, total, peak, warmup):
    first = warmup * total
    if step < first:
        return peak * step / first
    return peak * (1 + math.cos(math.pi * (step - first) / (total - first))) / 2


def the_packages(step, total, peak, warmup):
    return learning_rate(Recipe(lr=peak, warmup=warmup), step, total)


def whole_steps(step, total, peak, warmup):
    first = int(round(warmup * total))
    if step < first:
        return torch.tensor(peak * (step + 1) / first)
    return torch.tensor(peak * math.cos(math.pi / 2 * (step - first) / (total - first)) ** 2)


def down(shape):
    """A solution with another way down: shape(x), x from 0 to 1 after the warm-up."""

    def solution(step, total, peak, warmup):
        first = warmup * total
        return peak * step / first if step < first else peak * shape((step - first) / (total - first))

    return solution


def up(line):
    def solution(step, total, peak, warmup):
        return peak * line(step, total, warmup) if step < warmup * total else by_cases(step, total, peak, warmup)

    return solution


def half(x):
    return (1 + math.cos(math.pi * x)) / 2


def after(share):
    def solution(step, total, peak, warmup):
        return (
            peak * step / (warmup * total) if step < warmup * total else peak * half(share(step, total, warmup * total))
        )

    return solution


test_schedule = run_cases(
    ch12.check_schedule,
    right=[by_cases, the_packages, whole_steps],
    wrong={
        "a line down": (down(lambda x: 1 - x), "falls in a line"),
        "never down": (down(lambda x: 1.0), "stays at the peak"),
        "a whole turn": (down(lambda x: half(2 * x)), "whole turn"),
        "a quarter of a turn": (down(lambda x: math.cos(math.pi / 2 * x)), "quarter of a turn"),
        "down to minus one": (down(lambda x: math.cos(math.pi * x)), "must not be negative"),
        "not halved": (down(lambda x: 2 * half(x)), "halve it"),
        "upside down": (down(lambda x: 1 - half(x)), "wrong in"),
        "cosine of all steps": (after(lambda step, total, first: step / total), "began with step 0"),
        "stretched over all steps": (after(lambda step, total, first: (step - first) / total), "does not reach 0"),
        "no warm-up": (up(lambda step, total, warmup: 1.0), "no warm-up"),
        "warm-up over all steps": (up(lambda step, total, warmup: step / total), "divide by the steps of the warm-up"),
        "warmup is a number of steps": (up(lambda step, total, warmup: step / warmup), "above the peak"),
        "warm-up down": (up(lambda step, total, warmup: 1 - step / (warmup * total)), "falls"),
        "a curve up": (up(lambda step, total, warmup: (step / (warmup * total)) ** 2), "straight line"),
        "degrees": (down(lambda x: (1 + math.cos(180 * x)) / 2), "wrong in"),
        "a pair": (lambda step, total, peak, warmup: (step, peak), "is 2 numbers, expected one"),
        "no return": (lambda *_: None, "None"),
        "error": (lambda step, total, peak, warmup: peak * step / (warmup * 0), "ZeroDivision"),
        "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
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


def by_data(average, weights, decay):
    for a, w in zip(average, weights):
        a.mul_(decay)
        a.add_(w.data, alpha=1 - decay)


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
def first_only(average, weights, decay):
    average[0].lerp_(weights[0], 1 - decay)


def replaced(average, weights, decay):
    for i, w in enumerate(weights):
        average[i] = decay * average[i] + (1 - decay) * w.detach()


test_average = run_cases(
    ch12.check_average,
    right=[by_lerp, by_copy, by_data],
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
        "written into the weights": (into_weights, "changes the weights that it was given"),
        "the first alone": (first_only, "go through all"),
        "no sum": (averaged(lambda a, w, d: a * w), "wrong in"),
        "nothing": (lambda *_: None, "has not changed"),
        "not written": (lambda *_: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 12.3


def save_dict(path, model, optimiser, epochs_done):
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "epochs_done": epochs_done}, path)


def load_dict(path, model, optimiser):
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


def save_list(path, model, optimiser, epochs_done):
    with open(path, "wb") as file:
        torch.save([torch.tensor(epochs_done), optimiser.state_dict(), list(model.state_dict().values())], file)


def load_list(path, model, optimiser):
    done, state, weights = torch.load(path, weights_only=False)
    with torch.no_grad():
        for p, saved in zip(model.state_dict().values(), weights):
            p.copy_(saved)
    optimiser.load_state_dict(state)
    return int(done)


def save_parameters(path, model, optimiser, epochs_done):
    torch.save([epochs_done, optimiser.state_dict(), [p.data for p in model.parameters()]], path)


def load_parameters(path, model, optimiser):
    done, state, weights = torch.load(path)
    for p, saved in zip(model.parameters(), weights):
        p.data.copy_(saved)
    optimiser.load_state_dict(state)
    return done


def without(part):
    def load(path, model, optimiser):
        content = torch.load(path, weights_only=True)
        if part != "model":
            model.load_state_dict(content["model"])
        if part != "optimiser":
            optimiser.load_state_dict(content["optimiser"])
        return None if part == "epochs" else content["epochs_done"]

    return load


def both(save, load):
    """The pair as one value, for `run_cases` gives a check one solution."""
    solution = lambda: (save, load)  # noqa: E731
    solution.__name__ = save.__name__
    return solution


def other_return(change):
    return lambda *arguments: change(load_dict(*arguments))


def save_and_zero(path, model, optimiser, epochs_done):
    save_dict(path, model, optimiser, epochs_done)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()


def save_elsewhere(path, model, optimiser, epochs_done):
    save_dict(path.with_name("model.pt"), model, optimiser, epochs_done)


MEMORY = {}


def save_in_memory(path, model, optimiser, epochs_done):
    path.touch()
    MEMORY.update(model=model.state_dict(), optimiser=optimiser.state_dict(), epochs_done=epochs_done)


def load_from_memory(path, model, optimiser):
    model.load_state_dict(MEMORY["model"])
    return MEMORY["epochs_done"]


def loaded_into_a_new_optimiser(path, model, optimiser):
    content = torch.load(path, weights_only=True)
    model.load_state_dict(content["model"])
    optimiser = torch.optim.AdamW(model.parameters())
    optimiser.load_state_dict(content["optimiser"])
    return content["epochs_done"]


def check_resume(solution):  # by this name the guide finds the mistakes
    ch12.check_resume(*solution())


test_resume = run_cases(
    check_resume,
    right=[both(save_dict, load_dict), both(save_list, load_list)],
    wrong={
        "parameters alone": (both(save_parameters, load_parameters), "not the running means of BatchNorm"),
        "optimiser forgotten": (both(save_dict, without("optimiser")), "AdamW remembers"),
        "another optimiser": (both(save_dict, loaded_into_a_new_optimiser), "AdamW remembers"),
        "weights forgotten": (both(save_dict, without("model")), "first weights as they were"),
        "number not returned": (both(save_dict, without("epochs")), "what load_run returned is None"),
        "one epoch too far": (both(save_dict, other_return(lambda done: done + 1)), "load_run says 4"),
        "the last epoch's number": (both(save_dict, other_return(lambda done: done - 1)), "load_run says 2"),
        "all returned": (both(save_dict, other_return(lambda done: {"epochs_done": done})), "a dict"),
        "kept in memory": (both(save_in_memory, load_from_memory), "not those of the moment of saving"),
        "another file": (both(save_elsewhere, load_dict), "nothing was written"),
        "model changed": (both(save_and_zero, load_dict), "changes the model that it was given"),
        "error": (both(save_dict, lambda path, model, optimiser: torch.load(path)["weights"]), "KeyError"),
    },
)

# ---- the cells


def test_the_chapters_own_functions_are_right():
    chapter = load_definitions(checkout() / "notebooks" / "12_full_training.ipynb")
    rates = [chapter.schedule(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[10] == 1 and rates[5] == 0.5 and rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert chapter.smoothed([1.0, 0.0]) == pytest.approx([1.0, 0.8])
    assert np.isfinite(rates).all()
