"""Checks of chapter 12: the schedule of the learning rate, averaged weights, a run that can be resumed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.nn.functional as F

from . import CheckFailed, call, close, exercise, number, passed

# ---- 12.1

PEAK = 0.002


@exercise
def check_schedule(schedule: Callable) -> None:
    """schedule(step, total, peak, warmup) -> the learning rate of step 0 … total-1."""
    for total, warmup in ((400, 0.1), (200, 0.25)):
        first = int(warmup * total)  # whole: the last step of the warm-up is first - 1
        found = torch.tensor(
            [
                number(call(schedule, step, total, PEAK, warmup), f"the learning rate of step {step}")
                for step in range(total)
            ]
        )
        check_warmup(found[:first], first)
        check_cosine(found[first:], total, first)
    plain = [number(call(schedule, step, 20, PEAK, 0.0), f"the learning rate of step {step}") for step in range(20)]
    if abs(plain[0] - PEAK) > 0.01 * PEAK:
        raise CheckFailed(
            f"without a warm-up (warmup=0) the first step has {plain[0]:.3g}, expected the peak, {PEAK}: "
            "go straight to the cosine"
        )
    passed("12.1", "up in a line, down in half a cosine, and nothing is left at the end.")


def check_warmup(found: torch.Tensor, first: int) -> None:
    line = PEAK * torch.arange(first) / first  # from 0; one step further on, it starts above it: both are right
    late = PEAK * torch.arange(1, first + 1) / first
    if found.max() > 1.01 * PEAK:
        raise CheckFailed(
            f"in the warm-up the rate rises to {found.max():.3g}, above the peak, {PEAK}: the line goes from 0 to "
            "`peak`, and `warmup` is a share of all steps, not a number of steps"
        )
    if (found >= 0.99 * PEAK).all():
        raise CheckFailed("there is no warm-up: in the first warmup · total steps the rate must rise in a line")
    if (found.diff() < 0).any():
        raise CheckFailed("in the warm-up the rate falls: a line from (almost) 0 up to `peak`")
    if (found < line - 0.01 * PEAK).any() and found[-1] < 0.5 * PEAK:
        raise CheckFailed(
            f"at the end of the warm-up the rate is {found[-1]:.3g} instead of about {PEAK}: divide by the steps of "
            "the warm-up, not by all steps"
        )
    if (found < line - 0.01 * PEAK).any() or (found > late + 0.01 * PEAK).any():
        raise CheckFailed("the warm-up is no straight line from 0 to `peak` over the first warmup · total steps")


def check_cosine(found: torch.Tensor, total: int, first: int) -> None:
    left = torch.linspace(0, 1, total - first + 1)[:-1]  # of the way down, [total - first]
    steps = torch.arange(first, total)
    expected = PEAK * 0.5 * (1 + torch.cos(math.pi * left))
    mistakes = {
        "after the warm-up the rate falls in a line: it should follow half a cosine": PEAK * (1 - left),
        "after the warm-up the rate stays at the peak: let it fall to 0 in half a cosine": PEAK + 0 * left,
        "the cosine runs over a whole turn (2π), so that the rate rises again: half a turn, π": PEAK
        * 0.5
        * (1 + torch.cos(2 * math.pi * left)),
        "the cosine goes from 1 to -1 here, and a learning rate must not be negative: (1 + cos) "
        "/ 2 goes from 1 to 0": PEAK * torch.cos(math.pi * left),
        "a quarter of a turn was taken (π/2): it also ends at 0, but falls fastest at the end. "
        "Half a cosine is (1 + cos(π·x)) / 2": PEAK * torch.cos(math.pi / 2 * left),
        "(1 + cos) goes from 2 to 0: halve it": PEAK * (1 + torch.cos(math.pi * left)),
        "the cosine began with step 0, so that the rate jumps down where the warm-up ends: count "
        "the steps since then, out of those "
        "that are left": PEAK * 0.5 * (1 + torch.cos(math.pi * steps / total)),
        "the cosine began after the warm-up, but is stretched over all steps, so that the rate "
        "does not reach 0: divide by the "
        "steps that are left, total - warmup · total": PEAK * 0.5 * (1 + torch.cos(math.pi * (steps - first) / total)),
    }
    close(
        found, expected, mistakes, what="the rate after the warm-up", tolerance=0.02
    )  # a step more or less is no mistake


# ---- 12.2


@exercise
def check_average(update_average: Callable) -> None:
    """update_average(average, weights, decay): average, a list of tensors, becomes decay·average + (1 -
    decay)·weights."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (4,), (2, 3, 2)]
    start, weights = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    for decay in (0.9, 0.75):
        average = [tensor.clone() for tensor in start]
        trained = [torch.nn.Parameter(tensor.clone()) for tensor in weights]
        tensors = list(average)
        returned = call(update_average, average, trained, decay, may_change=(0,))
        if any(tensor.requires_grad for tensor in average):
            raise CheckFailed(
                "the average has become part of the graph of gradients, which would grow with every step: "
                "write `with torch.no_grad():` around the update"
            )
        if any(now is not before for now, before in zip(average, tensors)):
            raise CheckFailed(
                "the list holds other tensors now, and whoever keeps the old ones sees no "
                "average: write into the tensors "
                "themselves, as mul_, add_, lerp_ and copy_ do"
            )
        unchanged = all(torch.equal(now, before) for now, before in zip(average, start))
        if unchanged:
            hint = (
                "the result was returned in a new list"
                if isinstance(returned, (list, tuple))
                else "`a = …` gives the name another tensor and leaves the one in the list alone"
            )
            raise CheckFailed(
                f"the average has not changed: {hint}. Write into the tensors, as mul_, add_, lerp_ and copy_ do"
            )
        for k, (now, old, new) in enumerate(zip(average, start, weights)):
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
            )
    passed("12.2", "a slow copy follows the weights, and they do not notice.")


# ---- 12.3

LAST_EPOCH = 6


def little_run(seed: int = 0) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A model that keeps more than parameters, and its optimiser with momentum: the same ones for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), torch.nn.Linear(8, 3)
        )
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def train_epochs(model: torch.nn.Module, optimiser: torch.optim.Optimizer, epochs: Iterable[int]) -> None:
    """Trains through these epochs; the batches, and the rate, are those of the epoch's number."""
    for epoch in epochs:
        generator = torch.Generator().manual_seed(epoch)
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1 - epoch / LAST_EPOCH)
        for _ in range(3):
            clips, labels = torch.randn(8, 6, generator=generator), torch.randint(3, (8,), generator=generator)
            optimiser.zero_grad()
            F.cross_entropy(model(clips), labels).backward()
            optimiser.step()


def flat(model: torch.nn.Module) -> torch.Tensor:
    """All that a model's state_dict holds, end to end."""
    return torch.cat([value.detach().flatten().double() for value in model.state_dict().values()])


def finished(model: torch.nn.Module, optimiser: torch.optim.Optimizer, done: int) -> torch.Tensor:
    train_epochs(model, optimiser, range(done, LAST_EPOCH))
    return flat(model)


@exercise
def check_resume(save_run: Callable, load_run: Callable) -> None:
    """save_run(path, model, optimiser, epochs_done); load_run(path, model, optimiser) -> epochs_done."""
    with tempfile.TemporaryDirectory() as folder:
        path, done = Path(folder) / "run.pt", 3
        model, optimiser = little_run()
        train_epochs(model, optimiser, range(done))
        halfway = flat(model)
        call(save_run, path, model, optimiser, done)
        if not path.is_file():
            raise CheckFailed(
                "nothing was written to `path`: torch.save(…, path). In the folder is "
                f"{sorted(p.name for p in Path(folder).iterdir())}"
            )
        whole = finished(model, optimiser, done)

        fresh, fresh_optimiser = little_run(
            seed=1
        )  # another process: other first weights, an optimiser that remembers nothing
        again = call(load_run, path, fresh, fresh_optimiser, may_change=(1, 2))
        again = number(again, "what load_run returned", ", the epochs that are done")
        check_halfway(flat(fresh), halfway, whole)
        if again != done:
            raise CheckFailed(
                f"{done} epochs were done when the run was saved, load_run says {again}: save the "
                "number, and return it as it is"
            )
        resumed = finished(fresh, fresh_optimiser, again)
        forgetful, new_optimiser = little_run(seed=1)
        forgetful.load_state_dict(fresh_weights(halfway, forgetful))
        close(
            resumed,
            whole,
            {
                "the resumed run goes on from the right weights, but to others than the run that "
                "was not stopped: AdamW remembers the means of its "
                "gradients, and these are lost. Save optimiser.state_dict(), and load it": finished(
                    forgetful, new_optimiser, done
                ),
            },
            what="the weights at the end of the resumed run",
            tolerance=1e-6,
        )
    passed("12.3", "stopped, saved, loaded, and the same numbers as without a stop.")


def check_halfway(found: torch.Tensor, halfway: torch.Tensor, whole: torch.Tensor) -> None:
    if torch.equal(found, halfway):
        return
    new = little_run(seed=1)[0]
    first, parameters = flat(new), {name for name, _ in new.named_parameters()}
    state = fresh_weights(halfway, new)
    halves = {name: state[name] if name in parameters else value for name, value in new.state_dict().items()}
    close(
        found,
        halfway,
        {
            "load_run has left the new model's first weights as they were: model.load_state_dict(…)": first,
            "the weights that were loaded are not those of the moment of saving": whole,
            "the parameters are back, but not the running means of BatchNorm: save "
            "model.state_dict(), which holds both": (
                torch.cat([value.flatten().double() for value in halves.values()])
            ),
        },
        what="the loaded weights",
        tolerance=1e-7,
    )


def fresh_weights(values: torch.Tensor, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict for the model from its weights laid end to end."""
    state, start = {}, 0
    for name, value in model.state_dict().items():
        state[name] = values[start : start + value.numel()].reshape(value.shape).to(value.dtype)
        start += value.numel()
    return state
