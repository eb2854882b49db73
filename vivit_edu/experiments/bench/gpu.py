"""`vivit-edu bench gpu`: how well a GPU is used, beside other implementations of ViViT at equal configuration.

All steps train in bfloat16 with fused AdamW, on one batch that is ready on the device, ours and theirs alike.
On a CPU the same code runs with tiny sizes: a rehearsal, whose times say nothing.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

import torch

from ...cost import PAPER, count_flops, measure, time_step
from ...training import Recipe, fit, mixed_precision
from ...volumes import Volumes
from .libraries import PEERS, build_ours
from .steps import Table, make_step, matmul_peak, noise_volumes


@dataclass(frozen=True)
class GPUSizes:
    """What is measured: ViViT-B/16x2 and the whole recipe on a GPU, the same on tiny clips in a rehearsal."""

    clip_shape: tuple[int, ...] = (3, 32, 224, 224)
    options: dict | None = None
    num_classes: int = 400
    batch: int = 8
    repeats: int = 15
    matrix: int = 8192  # edge of the matrices whose product gives the peak
    volumes: tuple[int, int] = (971, 161)  # OrganMNIST3D's training and validation split
    recipe: Recipe = field(default_factory=lambda: Recipe.preset("full"))
    compiled: dict | None = None  # name -> what compiles a model


FULL = GPUSizes(
    options=Recipe.preset("paper-b").options,
    compiled={"compiled": torch.compile, "compiled, CUDA graphs": partial(torch.compile, mode="reduce-overhead")},
)
REHEARSAL = GPUSizes(
    clip_shape=(3, 4, 16, 16),
    options={"tubelet": (2, 8, 8), "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 32},
    batch=2,
    repeats=2,
    matrix=64,
    volumes=(32, 4),
    compiled={"compiled": partial(torch.compile, backend="eager")},
    recipe=replace(
        Recipe.preset("full"), epochs=1, options={"tubelet": (14, 14, 14), "dim": 16, "depth": 1, "heads": 2}
    ),
)


def gpu(device: torch.device, volumes: Volumes | None = None) -> Table:
    """Steps of all models and their peers, the share of the matmul peak, and a whole run of the recipe, on noise."""
    sizes = FULL if device.type == "cuda" else REHEARSAL
    rows = [row for name in PAPER for row in compare_steps(name, sizes, device)]
    rows += matmul_share(sizes, device) + whole_recipe(sizes, device)
    heads = ["", "ms, fastest", "ms, median", "clips per second", "compared with"]
    remark = (
        f"Training steps of ViViT-B/16x2 on clips of {sizes.clip_shape}, batch {sizes.batch}, bfloat16, fused AdamW; "
        "those of one model taken in turns."
    )
    if device.type != "cuda":
        remark = "A REHEARSAL with tiny sizes on a CPU: the figures say nothing about speed. " + remark
    return heads, rows, remark


# ---- training steps beside other implementations


def compare_steps(name: str, sizes: GPUSizes, device: torch.device) -> list[list[str]]:
    """Rows of one model: ours, ours compiled, and the same of its peer."""
    models = {f"{name}, ours": build_ours(name, sizes)}
    if name in PEERS:
        library, build = PEERS[name]
        models[f"{name}, {library}"] = build(sizes)
    clips = torch.rand(sizes.batch, *sizes.clip_shape, device=device)
    labels = torch.arange(sizes.batch, device=device) % sizes.num_classes
    steps = {}
    for title, model in models.items():
        model = model.to(device).train()
        for kind, wrap in {"": lambda m: m, **sizes.compiled}.items():
            steps[f"{title}{', ' * bool(kind)}{kind}"] = make_step(model, Recipe(), clips, labels, wrap(model))
    seconds = measure(steps, device, repeats=sizes.repeats)
    first = min(seconds[f"{name}, ours"])
    rows = [
        [
            title,
            f"{1000 * min(times):.1f}",
            f"{1000 * median(times):.1f}",
            f"{sizes.batch / min(times):.1f}",
            f"{first / min(times):.2f} × ours in eager mode",
        ]
        for title, times in seconds.items()
    ]
    del steps, models, model
    free(device)
    return rows


# ---- the peak, and how much of it ViViT-B reaches


def matmul_share(sizes: GPUSizes, device: torch.device) -> list[list[str]]:
    """FLOPs per second of Model 1's forward and backward pass, as a share of what one large product reaches.

    A backward pass counts as two forward ones.
    """
    peak = matmul_peak(sizes.matrix, device, torch.bfloat16)
    model = torch.compile(build_ours("spacetime", sizes).to(device).train(), backend=backend(device))
    clips = torch.rand(sizes.batch, *sizes.clip_shape, device=device)
    with mixed_precision(device):
        seconds = time_step(model, clips, repeats=sizes.repeats)
    flops = 3 * sizes.batch * count_flops(build_ours("spacetime", sizes), sizes.clip_shape)
    row = [
        f"paper-b, forward and backward, {flops / seconds / 1e12:.1f} TFLOP/s",
        f"{1000 * seconds:.1f}",
        "",
        f"{sizes.batch / seconds:.1f}",
        f"{100 * flops / seconds / peak:.0f} % of the measured peak of {peak / 1e12:.0f} TFLOP/s",
    ]
    free(device)
    return [row]


# ---- the whole recipe


def whole_recipe(sizes: GPUSizes, device: torch.device) -> list[list[str]]:
    """Seconds of all epochs of the preset "full" on noise of OrganMNIST3D's shape, eager and compiled."""
    rows = []
    volumes = noise_volumes(*sizes.volumes)
    for title, compile_ in (("eager", False), ("compiled", device.type == "cuda")):
        recipe = replace(sizes.recipe, compile=compile_)
        model = recipe.build(volumes).to(device)
        start = time.perf_counter()
        history = fit(model, volumes, recipe, progress=False)
        total, best = time.perf_counter() - start, min(history["seconds"])
        clips = recipe.epochs * len(volumes.train) / total
        rows.append(
            [
                f"preset full, {recipe.epochs} epochs of {len(volumes.train)} volumes, {title}: {total:.1f} s in all",
                f"{1000 * best:.0f} an epoch",
                f"{1000 * median(history['seconds']):.0f} an epoch",
                f"{clips:.0f}",
                "validation and, where compiled, compilation included",
            ]
        )
        free(device)
    return rows


def backend(device: torch.device) -> str:
    """The compiler to use: the real one on a GPU, none in a rehearsal."""
    return "inductor" if device.type == "cuda" else "eager"


def free(device: torch.device) -> None:
    """Frees the memory of what was measured before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
