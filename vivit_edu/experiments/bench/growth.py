"""`vivit-edu bench growth`: time and memory against the number of tokens, and the exponents of their growth."""

from __future__ import annotations

import numpy as np
import torch

from ...cost import PAPER, attention_pairs, measure, peak_memory
from ...models import build_model, model_options
from ...volumes import Volumes
from .steps import Table, make_pass

EDGES = (12, 16, 20, 28, 40, 56)  # of cubes cut into tubelets of 4³: 27, 64, 125, 343, 1000, 2744 tokens


def of_two_layers(name: str) -> dict[str, int]:
    """The options that make a model two layers deep, in each of its encoders."""
    return dict.fromkeys({"depth", "temporal_depth"}.intersection(model_options(name)), 2)


def growth(
    device: torch.device, volumes: Volumes | None = None, edges: tuple[int, ...] = EDGES, repeats: int = 3
) -> Table:
    """Training passes of the four models, two layers deep, on ever larger clips."""
    tokens, seconds, memory = [(edge // 4) ** 3 for edge in edges], {}, {}
    for edge in edges:
        clips = torch.rand(2, 1, edge, edge, edge, generator=torch.Generator().manual_seed(0)).to(device)
        sizes = {"clip_shape": tuple(clips.shape[1:]), "tubelet": (4, 4, 4)}
        models = {name: build_model(name, **sizes, **of_two_layers(name)) for name in PAPER}
        passes = {name: make_pass(model.to(device), clips, True) for name, model in models.items()}
        for name, times in measure(passes, device, repeats=repeats).items():
            seconds.setdefault(name, []).append(min(times))
            memory.setdefault(name, []).append(peak_memory(passes[name], device))
    rows = [
        [
            f"`{name}`",
            *(f"{1000 * s:.1f} / {m / 2**20:.0f}" for s, m in zip(seconds[name], memory[name])),
            f"{exponent(tokens, seconds[name]):.2f}",
            f"{exponent(tokens, memory[name]):.2f}",
            f"{exponent(tokens, [attention_pairs(name, e // 4, (e // 4) ** 2) for e in edges]):.2f}",
        ]
        for name in PAPER
    ]
    heads = [
        "ms / MB at",
        *(f"{n} tokens" for n in tokens),
        "exponent of time",
        "of memory",
        "of query-key pairs (theory)",
    ]
    return (
        heads,
        rows,
        (
            "Training passes of two clips, width 128, 4 heads, two layers (Model 2: and two over time), tubelets of 4³."
            " Exponents from the three largest: by how much the logarithm grows with that of the tokens. Linear "
            "maps grow with exponent 1, so the whole lies between 1 and the theory of attention."
        ),
    )


def exponent(tokens: list[int], values: list[float], last: int = 3) -> float:
    """The slope of log(value) over log(tokens) through the last points, by least squares."""
    return float(np.polyfit(np.log(tokens[-last:]), np.log(values[-last:]), 1)[0])
