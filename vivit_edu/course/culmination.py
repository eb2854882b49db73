"""The full training run of chapter 12: which run follows on this machine, and the trained network that is shown.

`which_run` is the one place that decides. On a GPU it is the whole recipe, kept in `runs/chapter12-DATASET`, where
chapter 13 finds it (`own_run`). On a CPU it is a short run, of which nothing is kept, and then the recorded model of
that recipe takes its place. Two environment variables change that:

VIVIT_EDU_FULL=1    the whole recipe on a CPU, too
VIVIT_EDU_EPOCHS=2  so many epochs, in either case; a whole run that is shortened is kept in a folder of its own
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..datasets.shapes import generate_shapes
from ..errors import ConfigError
from ..support.devices import best_device, cpu_has_bfloat16, describe_device, precision
from ..training import History, Recipe, augmented_batches, build_seeded, fit, steps_per_epoch
from .recorded import load_own, own_run, recorded_model

if TYPE_CHECKING:
    from ..volumes import Split, Volumes

SHORT_EPOCHS = 3  # of a short run: about half a minute on two cores
ON = ("1", "true", "yes", "on")
PROBED = 3  # steps that are timed to say how long a run will take


@dataclass(frozen=True)
class Plan:
    """A run that is about to be made. whole: all of the recipe, kept in `folder`; else a short run, kept nowhere.

    preset: the recipe's name. epochs: those of the whole recipe, of which `recipe.epochs` are made. seconds: how long
    these will take here, as far as a few steps can tell. why: the reason, in words.
    """

    preset: str
    recipe: Recipe
    epochs: int
    whole: bool
    device: torch.device
    seconds: float
    why: str
    folder: Path | None


@dataclass(frozen=True)
class Run:
    """A trained network and what belongs to it. told: where it comes from, in one sentence. minutes: of training."""

    model: torch.nn.Module
    volumes: Volumes
    recipe: Recipe
    history: History
    minutes: float
    told: str


def epoch_batches(
    volumes: Volumes, recipe: Recipe, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The augmented batches of an epoch, on the CPU: clips float [B, C, T, H, W] in [0, 1], targets [B, K].

    Whole batches only. Order and augmentation follow from (seed, epoch) alone, and are those of `fit`.
    """
    return augmented_batches(volumes.train, volumes, recipe, seed=seed, epoch=epoch)


def small_shapes() -> Volumes:
    """Moving shapes of 14 frames of 14 × 14 pixels, on which a loop can be tried within seconds; eight classes."""
    return generate_shapes(14)


def witnesses(split: Split) -> torch.Tensor:
    """What is drawn together in a bootstrap, [N]: the patients of a split, or each clip where they are not known."""
    return torch.arange(len(split.labels)) if split.patients is None else split.patients


def confident_mistakes(run: Run, logits: torch.Tensor, count: int = 6) -> tuple[torch.Tensor, list[str]]:
    """The test clips that a network gets wrong, the surest first: their indices [n], and a title for each.

    logits: of the test split, [N, K].
    """
    labels, names = run.volumes.test.labels.cpu(), run.volumes.class_names
    sure, guesses = logits.softmax(dim=1).max(dim=1)
    wrong = (guesses != labels).nonzero().flatten()
    wrong = wrong[sure[wrong].argsort(descending=True, stable=True)][:count]
    return wrong, [f"is {names[labels[i]]},\n{sure[i]:.1%} sure: {names[guesses[i]]}" for i in wrong.tolist()]


def attention_on(run: Run, chosen: torch.Tensor) -> torch.Tensor:
    """Attention rollout of a ViViT on some of the test clips: scores [B, T', S], summing to 1 for each clip."""
    from ..explain.rollout import rollout

    device = next(run.model.parameters()).device
    return rollout(run.model, run.volumes.test.clips[chosen].to(device).float() / 255).cpu()


def which_run(volumes: Volumes) -> Plan:
    """Which run of the preset full follows here, how long it will take and why: prints it, and returns it as a Plan."""
    plan = make_plan(volumes)
    print(
        f"Device: {describe_device(plan.device)}, {str(precision(plan.device, plan.recipe.bfloat16))[6:]}. {plan.why}"
    )
    print(
        f"What follows: {plan.recipe.epochs} of the {plan.epochs} epochs of preset {plan.preset} on {volumes.name}, "
        f"about {duration(plan.seconds)} here."
    )
    if plan.whole:
        print(f"The run is kept in runs/{plan.folder.name}; if you stop it, run the next cell again and it goes on.")
    else:
        print(
            "This run isn't kept. Afterwards we load the recorded model, which was trained for all "
            f"{plan.epochs} epochs."
        )
    return plan


def make_plan(volumes: Volumes, preset: str = "full") -> Plan:
    """The plan that `which_run` prints. Raises ConfigError where VIVIT_EDU_EPOCHS is not a number of epochs."""
    device, asked = best_device(), os.environ.get("VIVIT_EDU_FULL", "").lower() in ON
    recipe = Recipe.preset(preset)
    if device.type == "cpu":
        recipe = replace(recipe, bfloat16=cpu_has_bfloat16())
    whole, all_epochs = asked or device.type != "cpu", recipe.epochs
    epochs = epochs_asked() or (all_epochs if whole else min(SHORT_EPOCHS, all_epochs))
    an_epoch = seconds_per_epoch(recipe, volumes, device)
    if device.type != "cpu":
        why = "There is a GPU, so the whole recipe runs."
    elif asked:
        why = "VIVIT_EDU_FULL is set, so the whole recipe runs, on the CPU."
    else:
        long = duration(an_epoch * all_epochs)
        why = f"There is no GPU, and the whole recipe would take about {long}; VIVIT_EDU_FULL=1 runs it all the same."
    if epochs != all_epochs and whole:
        why += f" VIVIT_EDU_EPOCHS shortens it to {epochs}."
    folder = chapter_folder(volumes.name, preset, None if epochs == all_epochs else epochs) if whole else None
    return Plan(preset, replace(recipe, epochs=epochs), all_epochs, whole, device, an_epoch * epochs, why, folder)


def epochs_asked() -> int | None:
    """The number in VIVIT_EDU_EPOCHS, None where it is not set. Raises ConfigError where it is not one."""
    text = os.environ.get("VIVIT_EDU_EPOCHS", "").strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"VIVIT_EDU_EPOCHS={text!r} is not a number of epochs: set it to 1 or more, or not at all")
    return int(text)


def chapter_folder(dataset: str, preset: str = "full", epochs: int | None = None) -> Path:
    """Where a whole run is kept: `own_run(dataset)`, where chapter 13 looks for it.

    epochs: of a run that was shortened, which goes next to it, so that it is never taken for the whole one.
    """
    folder = own_run(dataset)
    ends = ("" if preset == "full" else f"-{preset}") + ("" if epochs is None else f"-{epochs}-epochs")
    return folder.with_name(folder.name + ends)


def seconds_per_epoch(recipe: Recipe, volumes: Volumes, device: torch.device) -> float:
    """How long an epoch will take on a device: a few steps are made and timed, with their augmentation."""
    few = replace(volumes, train=volumes.train.subset(slice(PROBED * recipe.batch_size)), val=volumes.val.subset([0]))
    probe = replace(recipe, epochs=2, compile=False)
    model = build_seeded(probe, volumes, 0).to(device)
    second = fit(model, few, probe, progress=False)["seconds"][-1]  # the first epoch also warms up
    steps = steps_per_epoch(len(few.train), recipe)
    validation = len(volumes.val) / 3  # a clip costs about a third of what it costs in training
    return second / steps * (len(volumes.train) + validation) / recipe.batch_size


def train_here(plan: Plan, volumes: Volumes, seed: int = 0) -> Run:
    """Makes the run of a plan. A whole run goes on where it was stopped; a finished one is only evaluated again."""
    from ..experiments.runs import train_run

    if plan.whole:
        train_run(volumes, plan.recipe, out=plan.folder, seed=seed, resume=True, device=plan.device, preset=plan.preset)
        model, facts = load_own(plan.folder)
        model, history = model.to(plan.device), History(facts["history"])
        told = f"your run in runs/{plan.folder.name}"
    else:
        model = build_seeded(plan.recipe, volumes, seed).to(plan.device)
        start = time.perf_counter()
        history = fit(model, volumes, plan.recipe, seed=seed)
        told = f"the short run that was just made ({time.perf_counter() - start:.0f} s)"
    told = f"{told}: {plan.recipe.epochs} of {plan.epochs} epochs of preset {plan.preset} on {volumes.name}"
    return Run(model, volumes, plan.recipe, history, sum(history["seconds"]) / 60, told)


def trained_network(run: Run, plan: Plan) -> Run:
    """The trained network that the rest of the chapter shows; says in one line which one it is.

    Of a whole run it is that run's own. After a short one it is the recorded one, together with the
    volumes that it was trained on.
    """
    if not plan.whole:
        run = recorded_run("full", run.volumes)
    print(f"From here on: {run.told}.")
    return run


def recorded_run(name: str, volumes: Volumes) -> Run:
    """A recorded model as a Run.

    volumes: those that are loaded; the model's own are loaded where it was trained on others.
    """
    from ..data import load_volumes

    model, facts = recorded_model(name)
    if volumes.name != facts["dataset"]:
        volumes = load_volumes(facts["dataset"])
    recipe, history = Recipe.from_dict(facts["recipe"]), History(facts["history"])
    told = f"the recorded model {name}: {recipe.epochs} epochs on {facts['dataset']}, made by `{facts['command']}`"
    told += f" on {facts['device']}"
    return Run(model.to(best_device()), volumes, recipe, history, facts["minutes"], told)


def rival(plan: Plan, run: Run) -> Run:
    """A second network on the same data, of another recipe, to compare `run` with.

    Where that is your own run, it is preset quick, trained here in the same way; else it is the recorded Model 2 with
    less weight decay and half of the epochs.
    """
    if plan.whole:
        other = train_here(make_plan(run.volumes, "quick"), run.volumes)
    else:
        other = recorded_run("factorised_encoder", run.volumes)
    print(f"The other: {other.told}.")
    return other


def duration(seconds: float) -> str:
    """A time to wait: "40 s", "6 minutes", "2.5 hours"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
