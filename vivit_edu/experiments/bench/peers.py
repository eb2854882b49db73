"""`vivit-edu bench peers`: the four models beside other libraries' on this machine, and a whole epoch beside theirs.

The sizes are the paper's plan scaled down: 28³, tubelets of 4³ (343 tokens), width 128, 8 layers, batches of 32, in
float32, without dropout. transformers' Vivit gets the weights of our Model 1, and must give the same logits first.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from ...cost import count_flops, measure, peak_memory
from ...errors import ConfigError
from ...pretrained import load_pretrained
from ...training import GENTLE, Recipe, make_optimiser, train_epoch
from ...volumes import Volumes
from .libraries import PEERS, build_ours, build_transformers
from .steps import Table, make_pass, matmul_peak, noise_volumes


@dataclass(frozen=True)
class PeerSizes:
    """What is measured; tests take smaller ones."""

    clip_shape: tuple[int, ...] = (1, 28, 28, 28)
    num_classes: int = 11
    options: dict = field(
        default_factory=lambda: {"tubelet": (4, 4, 4), "dim": 128, "depth": 8, "heads": 4, "mlp_dim": 512}
    )
    batch: int = 32
    repeats: int = 7
    matrix: int = 2048  # edge of the matrices whose product gives the peak
    batches: int = 5  # of an epoch
    compiler: str = "inductor"


def peers(device: torch.device, volumes: Volumes | None = None, sizes: PeerSizes = PeerSizes()) -> Table:
    """Training passes and inference of each model beside its peer's, then whole epochs."""
    peak = matmul_peak(sizes.matrix, device)
    rows = []
    for title, models in pairs(sizes, device):
        rows += compare_pair(title, models, sizes, device, peak)
        gc.collect()
    rows += epochs(sizes, device)
    heads = [
        "",
        "ours, ms",
        "theirs, ms",
        "as fast, fastest",
        "as fast, median",
        "memory, ours / theirs",
        "of the peak",
    ]
    shape = "×".join(map(str, sizes.clip_shape))
    return (
        heads,
        rows,
        (
            f"{sizes.batch} clips of {shape}, tubelets of {'×'.join(map(str, sizes.options['tubelet']))}, float32, "
            "dropout 0, taken in turns; ms are the fastest. Training is forward and backward, an epoch all of it. The "
            f"peak is a product of two {sizes.matrix}² matrices: {peak / 1e9:.0f} GFLOP/s."
        ),
    )


def pairs(sizes: PeerSizes, device: torch.device) -> Iterator[tuple[str, dict[str, nn.Module]]]:
    """(title, {"ours": a model, "theirs": its peer}) of each comparison, built when its turn comes."""
    for title, activation in (
        ("Model 1, transformers with our GELU", "gelu"),
        ("Model 1, transformers as published", "gelu_fast"),
    ):
        ours, theirs = equal_models(sizes, activation)
        yield title, {"ours": ours.to(device), "theirs": theirs.to(device)}
    compiled = torch.compile(ours, backend=sizes.compiler)
    yield "Model 1 compiled, transformers as published", {"ours": compiled, "theirs": theirs}
    for name, number in (("factorised_encoder", 2), ("factorised_self_attention", 3)):
        library, build = PEERS[name]
        yield (
            f"Model {number}, {library}",
            {"ours": build_ours(name, sizes).to(device), "theirs": build(sizes).to(device)},
        )
    yield (
        "Model 4, which has no peer: transformers' Model 1",
        {"ours": build_ours("factorised_dot_product", sizes).to(device), "theirs": theirs},
    )


def equal_models(sizes: PeerSizes, activation: str) -> tuple[nn.Module, nn.Module]:
    """Our Model 1 and transformers' with the same weights. Raises ConfigError where their logits differ."""
    theirs = build_transformers(sizes, activation).eval()
    ours_gelu = "gelu" if activation == "gelu" else "gelu_tanh"  # gelu_fast is the tanh formula, in separate operations
    options = sizes.options | {"pool": "cls", "activation": ours_gelu}
    ours = build_ours("spacetime", PeerSizes(sizes.clip_shape, sizes.num_classes, options)).eval()
    load_pretrained(ours, theirs.vivit.state_dict())
    clips = torch.rand(2, *sizes.clip_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        difference = (ours(clips) - theirs(clips)).abs().max().item()
    if not difference < 1e-4:
        raise ConfigError(
            f"our Model 1 and transformers' differ by {difference:.1e} with the same weights: this version of "
            "transformers computes something else, and its time would say nothing"
        )
    return ours, theirs


def compare_pair(
    title: str, models: dict[str, nn.Module], sizes: PeerSizes, device: torch.device, peak: float
) -> list[list[str]]:
    """Two rows: training and inference. peak: FLOP/s of one large matrix product."""
    clips = torch.rand(sizes.batch, *sizes.clip_shape, generator=torch.Generator().manual_seed(0)).to(device)
    flops = sizes.batch * count_flops(getattr(models["ours"], "_orig_mod", models["ours"]), sizes.clip_shape)
    rows = []
    for what, passes in (("training", 3), ("inference", 1)):  # a backward pass counts as two forward ones
        functions = {who: make_pass(model, clips, what == "training") for who, model in models.items()}
        seconds = measure(functions, device, repeats=sizes.repeats)
        if "compiled" in title:
            memory = "–"  # what compiled code allocates is not counted
        else:
            needs = {who: peak_memory(function, device) for who, function in functions.items()}
            memory = f"{needs['ours'] / needs['theirs']:.2f}"
        rows.append(
            [f"{title}, {what}", *times(seconds), memory, f"{100 * passes * flops / min(seconds['ours']) / peak:.0f} %"]
        )
    return rows


def times(seconds: dict[str, list[float]]) -> list[str]:
    """Four cells: fastest ours, fastest theirs, and how many times as fast ours is, fastest and median."""
    ours, theirs = seconds["ours"], seconds["theirs"]
    return [
        f"{1000 * min(ours):.0f}",
        f"{1000 * min(theirs):.0f}",
        f"{min(theirs) / min(ours):.2f} ×",
        f"{median(theirs) / median(ours):.2f} ×",
    ]


# ---- a whole epoch


def epochs(sizes: PeerSizes, device: torch.device) -> list[list[str]]:
    """An epoch with data, augmentation and optimiser: `train_epoch`, and a DataLoader around transformers' model."""
    from .pipeline import reference_loader

    count = sizes.batches * sizes.batch
    volumes = noise_volumes(count, sizes.batch, sizes.clip_shape, sizes.num_classes)
    recipe = Recipe(options=sizes.options, batch_size=sizes.batch, augmentation=GENTLE)
    ours, theirs = recipe.build(volumes).to(device), build_transformers(sizes).to(device).train()
    train, mine, other = volumes.train.to(device), make_optimiser(ours, recipe), make_optimiser(theirs, recipe)

    def our_epoch():
        train_epoch(ours, train, volumes, recipe, mine, None, seed=0, epoch=0)

    def their_epoch():
        for clips, labels in reference_loader(volumes.train, sizes.batch):
            loss = F.cross_entropy(theirs(clips.to(device)), labels.to(device))
            other.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), recipe.clip_norm)
            other.step()

    seconds = measure({"ours": our_epoch, "theirs": their_epoch}, device, repeats=max(1, sizes.repeats // 2))
    title = f"an epoch of {count} clips, Model 1; theirs: a DataLoader around transformers as published"
    return [[title, *times(seconds), "–", "–"]]
