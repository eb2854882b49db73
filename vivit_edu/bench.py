"""Benches: what parts cost, measured side by side in one run and printed as Markdown.

A bench is a function that takes the device and returns (heads, rows, remark): the column heads, the rows as
lists of text, and a sentence on what was compared. BENCHES gives it its name on the command line, and
`run_bench` adds machine and versions.
"""

import time
from statistics import median

import torch
import torch.nn.functional as F

from .ablate import make_rows
from .augment import augment_batch
from .errors import ConfigError
from .models import build_model
from .runs import choose_device, describe_device, versions
from .training import Recipe, make_optimiser, mixed_precision
from .volumes import Mirror

SWAP = Mirror(axis=3, permutation=(0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10))  # OrganMNIST3D's


def augment(device):
    """Augmentation of a batch against one training step of the default model on it."""
    recipe, generator = Recipe.preset("quick"), torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (recipe.batch_size, 1, 28, 28, 28), generator=generator, dtype=torch.uint8).to(device)
    labels = (torch.arange(recipe.batch_size) % 11).to(device)
    strongest = make_rows("regularisation")[-1].recipe.augmentation
    step = make_step(recipe, clips, labels)
    seconds = measure({
        "training step of the default model": step,
        "augmentation, preset quick": lambda: augment_batch(recipe.augmentation, clips, labels, 11, SWAP, generator),
        "augmentation, all of the regularisation table": lambda: augment_batch(strongest, clips, labels, 11, SWAP, generator),
    }, device)  # fmt: skip
    whole = seconds["training step of the default model"]
    rows = [
        [name, f"{1000 * min(times):.1f}", f"{1000 * median(times):.1f}",
         f"{min(times) / min(whole):.3f}", f"{median(times) / median(whole):.3f}"]
        for name, times in seconds.items()
    ]  # fmt: skip
    heads = ["", "ms, fastest", "ms, median", "of a step, fastest", "of a step, median"]
    return heads, rows, f"A batch of {len(clips)} clips of 28³, taken in turns; the step is without augmentation."


def make_step(recipe, clips, labels):
    """One step of training as `training.train_epoch` makes it, on a batch that is ready."""
    model = build_model(recipe.model, **recipe.options).to(clips.device)
    optimiser, ready = make_optimiser(model, recipe), clips.float() / 255

    def step():
        with mixed_precision(clips.device):
            loss = F.cross_entropy(model(ready), labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()

    return step


def measure(functions, device, repeats=15):
    """{name: seconds of each repeat}. Taken in turns, so that a busy moment of the machine meets all of them."""
    seconds = {name: [] for name in functions}
    for repeat in range(repeats + 2):  # two to warm up
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


BENCHES = {"augment": augment}


def run_bench(name, device="auto"):
    """The bench of this name as Markdown: its table, what was compared, machine and versions."""
    if name not in BENCHES:
        raise ConfigError(f"no bench is called {name!r}; the benches are {', '.join(BENCHES)}")
    device = choose_device(device)
    heads, rows, remark = BENCHES[name](device)
    packages = ", ".join(f"{package} {number}" for package, number in versions().items())
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", f"`vivit-edu bench {name}`: {remark} {describe_device(device)}; {packages}; {time.strftime('%Y-%m-%d')}."]
    return "\n".join(lines)
