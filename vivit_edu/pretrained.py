"""Pretrained initialisation: an image transformer's weights in a ViViT (section 3.4), or a ViViT's own.

First what chapter 10 builds by hand, tensor by tensor: filters are inflated, summed over colours and resized,
positions resized. Then `load_pretrained`, which does it for a whole model and reports what became of each tensor.
How weights are read and recognised is in `weights`.

Image transformers learned from images normalised with a mean and a standard deviation (as a rule ImageNet's):
their weights are at their best on clips normalised in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from .errors import CheckpointError, ConfigError
from .support.options import INFLATIONS, check_choice
from .vivit import ViViT
from .weights import sizes as weight_sizes
from .weights.files import read_weights
from .weights.recognise import Recognised, recognise
from .weights.report import Report

# ---- one tensor at a time -----------------------------------------------------------------------


def inflate(filters: torch.Tensor, t: int, method: str) -> torch.Tensor:
    """Turns image filters [D, C, h, w] into tubelet filters [D, C, t, h, w].

    t: frames in a tubelet. method: "central" puts the filter on frame ⌊t/2⌋ and zeros on the others, "average" puts a
    t-th of it on each frame. (Equations 8 and 9.)
    """
    if method == "average":
        return repeat(filters / t, "d c h w -> d c t h w", t=t)
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[:, :, t // 2] = filters
    return inflated


def sum_colours(filters: torch.Tensor, channels: int) -> torch.Tensor:
    """Filters of three colours [D, 3, …] for clips of one channel: their sum [D, 1, …].

    The sum responds to a grey clip as the three do to the same grey in all colours. channels: of the clips. Filters
    for any other number of channels are returned as they are.
    """
    return filters.sum(dim=1, keepdim=True) if (filters.shape[1], channels) == (3, 1) else filters


def resize_filters(filters: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Resizes patch filters [..., h, w] for patches of another size, by the pseudo-inverse of the image's resizing.

    Let B resize a patch x to Bx. We want the new filter ŵ to respond to Bx as the old one w does to x: Bᵀŵ = w, so
    ŵ = (Bᵀ)⁺w, exact where the patch grows, the best fit where it shrinks (Beyer et al. 2023, FlexiViT). B resizes
    rows and columns independently, so each axis has its own small matrix, and its own pseudo-inverse.
    size: (h', w'). Returns [..., h', w'] in the type of the filters, the filters themselves where the size is theirs.
    """
    if list(filters.shape[-2:]) == list(size):
        return filters
    inverse_h, inverse_w = (torch.linalg.pinv(resizing(*axis).T) for axis in zip(filters.shape[-2:], size))
    resized = inverse_h @ filters.to("cpu", torch.float64) @ inverse_w.T
    return resized.to(filters.device, filters.dtype)


def resizing(old: int, new: int) -> torch.Tensor:
    """B [new, old], which resizes `old` pixels in a line to `new`: bicubic, smoothed where they become fewer. float64.

    Along the width only: where an image becomes one pixel wide, torch 2.15 confuses its rows.
    """
    pixels = torch.eye(old, dtype=torch.float64).view(1, 1, old, old)  # in each row one of the pixels is lit
    return F.interpolate(pixels, size=(old, new), mode="bicubic", antialias=True)[0, 0].T


def resize_positions(positions: torch.Tensor, grid: Sequence[int], theirs: Sequence[int] | None = None) -> torch.Tensor:
    """Interpolates positions [1, N, D] of a grid of patches to a grid (n_h, n_w): [1, n_h·n_w, D].

    grid: (n_h, n_w). theirs: the grid in which the N positions lie; None stands for `grid` itself where that has N
    places, and for a square otherwise. Bicubic and smoothed where the grid shrinks, as timm does it.
    Returns the same tensor where the grid is the same. Raises CheckpointError where N fits no such grid.
    """
    n = positions.shape[1]
    if theirs is None:
        theirs = grid if n == math.prod(grid) else (math.isqrt(n),) * 2
    if n != math.prod(theirs) or not n:
        raise CheckpointError(
            f"{n} positions do not fill a grid of {theirs[0]}×{theirs[1]} patches, so they cannot be resized: "
            "say in which grid they lie"
        )
    if list(theirs) == list(grid):
        return positions
    b_h, b_w = (resizing(*axis) for axis in zip(theirs, grid))
    image = rearrange(positions.to("cpu", torch.float64), "1 (h w) d -> d h w", h=theirs[0])
    resized = rearrange(b_h @ image @ b_w.T, "d h w -> 1 (h w) d")
    return resized.to(positions.device, positions.dtype)


def swap_halves(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Exchanges the first and the second half of the heads in `attention.qkv` or `attention.out.weight`."""
    if name.endswith("out.weight"):  # heads lie along the columns
        return torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1)
    q_k_v = [torch.cat(part.chunk(2)[::-1]) for part in tensor.chunk(3)]  # and along the rows
    return torch.cat(q_k_v)


# ---- a whole model ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fitted:
    """The new value of one parameter, how it came about, a remark on it, and the name of the weights it is from."""

    tensor: torch.Tensor
    how: str
    remark: str = ""
    source: str = ""


def load_pretrained(
    model: ViViT, weights: Mapping | Path | str, *, method: str = "central", heads: int | None = None
) -> Report:
    """Fills a ViViT with pretrained weights and reports what was done with each tensor.

    model: one of Models 1 to 4, from `build_model`.
    weights: of an image transformer (torchvision, timm or Hugging Face ViT), for any of them; of Hugging
        Face's ViViT, for Model 1; the paper's authors' flax parameters, for the model they belong to.
        As a state dict, a flat mapping of paths or a nested tree of arrays, as a `.safetensors`, `.npz` or
        weights-only `.pt` file, or as a torchvision weights enum, its name ("ViT_B_16_Weights.IMAGENET1K_V1") or the
        model's ("torchvision:vit_b_16"). A `config.json` beside a file is read for what tensors do not show.
    method: what an image filter becomes in a tubelet of t frames: "central" puts it on frame ⌊t/2⌋ and zeros
        on the others, "average" puts a t-th of it on each, "random" leaves the tubelet embedding fresh.
    heads: the weights' number of heads, where they do not say it and it is not the usual one for their width.
    Returns a Report. Raises ConfigError or CheckpointError, and then leaves the model as it was.
    """
    if not isinstance(model, ViViT):
        raise ConfigError(f"pretrained weights go into Models 1 to 4, not into {type(model).__name__}")
    check_choice("method", method, INFLATIONS)
    source = recognise(*read_weights(weights))
    notes = weight_sizes.compare_with(model, source, heads)
    names = [name for name, _ in model.named_parameters()]
    if source.of_video:
        parts = {name: part_of_video(model, source.tensors, name) for name in names}
    else:
        parts = {name: part_of_image(model, source, name, method) for name in names}
        notes.append(weight_sizes.image_grid(source, model.embedding.grid[1:])[2])
    notes.append(weight_sizes.about_normalisation(source))
    for name, part in parts.items():
        theirs, ours = list(part.tensor.shape), list(model.get_parameter(name).shape)
        if theirs != ours:
            raise CheckpointError(
                f"{name} has shape {theirs} in the weights and {ours} in the model: "
                "build the model with the clip_shape, tubelet and options that the weights were made for"
            )
    with torch.no_grad():
        for name, part in parts.items():
            model.get_parameter(name).copy_(part.tensor)
    used = {part.source for part in parts.values()}
    left_out = (*source.left_out, *(name for name in source.tensors if name not in used))
    rows = {name: (part.how, part.remark) for name, part in parts.items()}
    return Report(source.layout.name, rows, left_out, tuple(note for note in notes if note))


def options_for(weights: Mapping | Path | str, heads: int | None = None) -> dict[str, object]:
    """The options of `build_model` that these weights ask for: depth, dim, mlp_dim, heads where they are known, …

    weights, heads: as for `load_pretrained`. Raises CheckpointError for what cannot be read, ConfigError for a number
    of heads that contradicts the weights.
    """
    source = recognise(*read_weights(weights))
    found = weight_sizes.sizes(source, heads)
    weight_sizes.check_given_heads(source, heads)
    return found


def part_of_image(model: ViViT, source: Recognised, name: str, method: str) -> Fitted:
    """The new value of one parameter of a ViViT from an image transformer's tensors (under Model 1's names)."""
    fresh = Fitted(model.get_parameter(name).detach(), "fresh")
    if name.startswith("temporal_") or "norm_time" in name or "time_attention.qkv" in name:
        return fresh  # an image has no time to learn from
    if "time_attention.out" in name:
        # With W_O = 0 the residual branch adds nothing, yet W_O has a gradient and learns. Were W_Q, W_K and
        # W_V zero as well, the values would be zero, W_O's gradient too, and only a bias would ever move.
        return replace(fresh, tensor=torch.zeros_like(fresh.tensor), how="zeroed", remark="starts as the identity")
    if name == "positions":
        return positions_from_image(model, source)
    if name.startswith("embedding.") and method == "random":
        return fresh
    if name == "embedding.projection.weight":
        return filters_from_image(model, source.tensors[name], method)
    theirs = name.replace("spatial_encoder.", "encoder.").replace("norm_space", "norm_attention")
    return as_it_is(model, source.tensors, name, theirs.replace("space_attention", "attention"))


def part_of_video(model: ViViT, tensors: dict[str, torch.Tensor], name: str) -> Fitted:
    """The new value of one parameter of a ViViT from the same ViViT's tensors, which are taken as they are."""
    part = as_it_is(model, tensors, name, name)
    if name == "embedding.projection.weight":
        summed = sum_colours(part.tensor, model.embedding.clip_shape[0])
        return part if summed is part.tensor else replace(part, tensor=summed, how="summed", remark="over the colours")
    if name == "positions" and model.positions_over == "grid":
        n_t, s = model.grid
        if part.tensor.shape[1] == n_t * s:
            return replace(part, tensor=rearrange(part.tensor, "1 (t s) d -> 1 t s d", t=n_t))
    if model.attention_halves and ".attention." in name and not name.endswith("out.bias"):
        # their first half of the heads attends over time and the second over space; ours is the paper's
        # Concat(Y_s, Y_t)
        return replace(part, tensor=swap_halves(part.tensor, name), remark="halves of the heads exchanged")
    return part


def as_it_is(model: ViViT, tensors: dict[str, torch.Tensor], name: str, theirs: str) -> Fitted:
    """Their tensor, unchanged. What they lack and can lack stays fresh, as does a head for other classes."""
    ours = model.get_parameter(name).detach()
    if theirs not in tensors:
        if theirs != "cls" and not theirs.startswith(("head.", "encoder.norm.")):
            raise CheckpointError(f"the weights lack {theirs}, which the model's {name} needs: is the file complete?")
        return Fitted(ours, "fresh", "the weights have none")
    if name.startswith("head.") and len(tensors[theirs]) != len(ours):
        return Fitted(ours, "fresh", f"theirs is for {len(tensors[theirs])} classes, ours for {len(ours)}")
    return Fitted(tensors[theirs], "taken", source=theirs)


def positions_from_image(model: ViViT, source: Recognised) -> Fitted:
    """An image's positions for every time index: resized to the grid of tubelets, then repeated."""
    n_t, *grid = model.embedding.grid
    before, theirs, _ = weight_sizes.image_grid(source, grid)
    given = source.tensors["positions"]
    patches = given[:, before:]  # [1, N, D]
    places, steps, remarks = resize_positions(patches, grid, theirs), [], []  # [1, S, D]
    if places is not patches:
        steps.append("resized")
        remarks.append(f"from {theirs[0]}×{theirs[1]} to {grid[0]}×{grid[1]}")
    if model.positions_over == "grid":
        places = repeat(places, "1 s d -> 1 t s d", t=n_t)
    elif model.positions_over == "sequence":  # Model 2's spatial encoder sees one time index at a time
        places = repeat(places, "1 s d -> 1 (t s) d", t=n_t)
    if n_t > 1 and model.positions_over != "space":
        steps.append("repeated")
    if model.config.pool == "cls":
        cls = given[:, :1]
        if "cls" not in source.tensors:
            cls = model.positions.detach()[:, :1].cpu()
            remarks.append("the cls token's is fresh")
        elif not before:
            cls = torch.zeros_like(cls)
            remarks.append("the cls token's is zero, as theirs has none")
        places = torch.cat((cls, places), dim=1)
    return Fitted(places, ", ".join(steps) or "taken", ", ".join(remarks), source="positions")


def filters_from_image(model: ViViT, filters: torch.Tensor, method: str) -> Fitted:
    """An image's patch filters [D, C, h, w] as tubelet filters [D, C, t, h, w] (section 3.4)."""
    steps, remark = [], ""
    summed = sum_colours(filters, model.embedding.clip_shape[0])
    if summed is not filters:
        steps.append("summed")
    t, *size = model.embedding.tubelet
    resized = resize_filters(summed, size)
    if resized is not summed:
        steps.append("resized")
    if model.config.tokenizer == "tubelet":  # frames keep their 2D filters
        resized = inflate(resized, t, method)
        if t > 1:
            steps.append("inflated")
            remark = f"on frame {t // 2} of 0 to {t - 1}" if method == "central" else f"1/{t} of it on each frame"
    return Fitted(resized, ", ".join(steps) or "taken", remark, source="embedding.projection.weight")
