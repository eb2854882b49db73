"""Benches: what parts cost, measured side by side in one run and printed as Markdown.

A bench is a function that takes the device and a data set (or None) and returns a `Table`: the column heads, the rows
as lists of text, and a sentence on what was compared. BENCHES gives it its name on the command line, and `bench_table`
adds machine and versions.
"""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

import torch
from tabulate import tabulate

from ...augment import augment_batch
from ...cost import count_flops, count_parameters, measure, peak_memory
from ...errors import ConfigError
from ...models import build_model
from ...training import GENTLE, Recipe
from ...volumes import Volumes
from ..runs import choose_device, describe_device, versions
from ..tables import make_rows
from .accuracy import accuracy
from .gpu import gpu
from .growth import growth
from .peers import peers
from .pipeline import ORGAN_MIRROR, pipeline
from .start import start
from .steps import Table, make_pass, make_step


def augment(device: torch.device, volumes: Volumes | None = None) -> Table:
    """Augmentation of a batch against one training step of the default model on it."""
    recipe, generator = Recipe.preset("quick"), torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (recipe.batch_size, 1, 28, 28, 28), generator=generator, dtype=torch.uint8).to(device)
    labels = (torch.arange(recipe.batch_size) % 11).to(device)
    strongest = replace(GENTLE, rand_layers=2, rand_magnitude=5, smoothing=0.1, mixup=0.1)
    model = build_model(recipe.model, **recipe.options).to(device)
    step = make_step(model, recipe, clips.float() / 255, labels)
    seconds = measure(
        {
            "training step of the default model": step,
            "augmentation, preset quick": lambda: augment_batch(
                recipe.augmentation, clips, labels, 11, ORGAN_MIRROR, generator
            ),
            "augmentation, with random augment, smoothing and mixup": lambda: augment_batch(
                strongest, clips, labels, 11, ORGAN_MIRROR, generator
            ),
        },
        device,
    )
    whole = seconds["training step of the default model"]
    rows = [
        [
            name,
            f"{1000 * min(times):.1f}",
            f"{1000 * median(times):.1f}",
            f"{min(times) / min(whole):.3f}",
            f"{median(times) / median(whole):.3f}",
        ]
        for name, times in seconds.items()
    ]
    heads = ["", "ms, fastest", "ms, median", "of a step, fastest", "of a step, median"]
    return heads, rows, f"A batch of {len(clips)} clips of 28³, taken in turns; the step is without augmentation."


def cost_of_models(device: torch.device, volumes: Volumes | None = None) -> Table:
    """All models of the course side by side: parameters, FLOPs, time and memory for clips of the data set's shape."""
    clip_shape = tuple(volumes.train.clips.shape[1:]) if volumes else (1, 28, 28, 28)
    classes, batch = (len(volumes.class_names) if volumes else 11), 8
    recipes = {row.name: row.recipe for row in make_rows("all-models")}
    built = {
        name: build_model(name, clip_shape=clip_shape, num_classes=classes, **r.options).to(device)
        for name, r in recipes.items()
    }
    clips = torch.rand(batch, *clip_shape, generator=torch.Generator().manual_seed(0)).to(device)
    training = measure({name: make_pass(model, clips, True) for name, model in built.items()}, device, repeats=5)
    inference = measure({name: make_pass(model, clips, False) for name, model in built.items()}, device, repeats=5)
    heads = [
        "model",
        "parameters, M",
        "GFLOPs per clip",
        "ms per clip, training",
        "ms per clip, inference",
        "peak MB per clip, training",
    ]
    rows = [
        [
            f"`{name}`",
            f"{count_parameters(model) / 1e6:.2f}",
            f"{count_flops(model, clip_shape) / 1e9:.3f}",
            f"{1000 * min(training[name]) / batch:.2f}",
            f"{1000 * min(inference[name]) / batch:.2f}",
            f"{peak_memory(make_pass(model, clips, True), device) / batch / 2**20:.1f}",
        ]
        for name, model in built.items()
    ]
    shape = "×".join(map(str, clip_shape))
    return (
        heads,
        rows,
        (
            f"Clips of {shape}, {batch} at a time, models taken in turns, the fastest pass of each; training is "
            "forward and backward. A multiply-add counts as two FLOPs."
        ),
    )


BENCHES = {
    "augment": augment,
    "pipeline": pipeline,
    "models": cost_of_models,
    "peers": peers,
    "growth": growth,
    "start": start,
    "accuracy": accuracy,
    "gpu": gpu,
}
APART = ("accuracy", "gpu")  # one trains for a quarter of an hour, one needs a GPU


def bench_table(name: str | None = None, device: str = "auto", volumes: Volumes | None = None) -> str:
    """The bench of this name as Markdown: its table, what was compared, machine and versions.

    name: None runs all benches but those in APART. Raises ConfigError where there is no bench of this name.
    """
    if name is None:
        return "\n\n".join(bench_table(each, device, volumes) for each in BENCHES if each not in APART)
    if name not in BENCHES:
        raise ConfigError(f"no bench is called {name!r}; the benches are {', '.join(BENCHES)}")
    device = choose_device(device)
    heads, rows, remark = BENCHES[name](device, volumes)
    packages = ", ".join(f"{package} {number}" for package, number in versions().items())
    asked = f"{name} {volumes.name}" if volumes else name
    table = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    made = f"{describe_device(device)}; {packages}; {time.strftime('%Y-%m-%d')}"
    return f"{table}\n\n`vivit-edu bench {asked}`: {remark} {made}."
