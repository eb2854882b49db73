"""Pretrained initialisation: an image transformer's weights in a ViViT (section 3.4), or a ViViT's own.

Which part of the weights goes into which parameter, and a report of it. How others name their weights is the
subject of `layouts`, how tensors are made to fit that of `surgery`.

Image transformers learned from images normalised with a mean and a standard deviation (as a rule ImageNet's):
their weights are at their best on clips normalised alike.
"""

import re
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat

from .errors import CheckpointError, ConfigError
from .surgery import inflate, resize_filters, resize_positions, sum_colours, swap_halves
from .vivit import FactorisedDotProduct, FactorisedEncoder, FactorisedSelfAttention, ViViT
from .weights.files import read_weights
from .weights.layouts import recognise

METHODS = ("central", "average", "random")
MODEL_NAMES = {
    "SpaceTime": "Model 1 (spacetime)",
    "FactorisedEncoder": "Model 2 (factorised_encoder)",
    "FactorisedSelfAttention": "Model 3 (factorised_self_attention)",
    "FactorisedDotProduct": "Model 4 (factorised_dot_product)",
}
# weights do not tell the number of heads, but all image transformers published with these widths have these
USUAL_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}


@dataclass(frozen=True)
class Part:
    """The new value of one parameter, how it came about, and the name of the weights it is from."""

    tensor: torch.Tensor
    how: str
    remark: str = ""
    source: str = ""


@dataclass(frozen=True)
class Report:
    """What `load_pretrained` did. Prints as a table, in which blocks that were treated alike share a line."""

    layout: str  # the layout recognised
    rows: dict  # every parameter of the model -> (what was done, a remark or "")
    left_out: tuple  # what the weights hold and the model has no place for
    notes: tuple  # what could not be checked, or is to be minded

    def how(self, name):
        """What was done to a parameter: "taken", "fresh", "zeroed", or steps such as "resized, repeated"."""
        return self.rows[name][0]

    def __str__(self):
        alike = {}
        for name, row in self.rows.items():
            key = (re.sub(r"blocks\.\d+", "blocks.*", name), *row)
            alike[key] = alike.get(key, 0) + 1
        table = [(f"{name} ({n}×)" if "*" in name else name, *row) for (name, *row), n in alike.items()]
        widths = [max(len(row[column]) for row in table) for column in (0, 1)]
        lines = [f"{name:{widths[0]}}  {how:{widths[1]}}  {remark}".rstrip() for name, how, remark in table]
        lines += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        return "\n".join([f"from {self.layout}", *lines, *(f"note: {note}" for note in self.notes)])


def load_pretrained(model, weights, *, method="central", heads=None):
    """Fills a ViViT with pretrained weights and reports what was done with each tensor.

    model: one of Models 1 to 4, from `build_model`.
    weights: of an image transformer (torchvision, timm or Hugging Face ViT), for any of them; of Hugging
        Face's ViViT, for Model 1; the paper's authors' flax parameters, for the model they belong to.
        As a state dict or flat mapping of paths to arrays, as a `.safetensors`, `.npz` or weights-only `.pt`
        file, or as a torchvision weights enum, its name ("ViT_B_16_Weights.IMAGENET1K_V1") or the model's
        ("torchvision:vit_b_16").
    method: what an image filter becomes in a tubelet of t frames: "central" puts it on frame ⌊t/2⌋ and zeros
        on the others, "average" puts a t-th of it on each, "random" leaves the tubelet embedding fresh.
    heads: the image transformer's number of heads, where that is not the usual one for its width.
    Returns a Report. Raises ConfigError or CheckpointError, and then leaves the model as it was.
    """
    if not isinstance(model, ViViT):
        raise ConfigError(f"pretrained weights go into Models 1 to 4, not into {type(model).__name__}")
    if method not in METHODS:
        raise ConfigError(f"method={method!r} is not known; take one of {', '.join(METHODS)}")
    state, heads_in_config = read_weights(weights)
    source = recognise(state)
    notes = check_sizes(model, source, source.heads or heads or heads_in_config)
    if source.of_video:
        parts = {name: part_of_video(model, source.tensors, name) for name, _ in model.named_parameters()}
    else:
        parts = {name: part_of_image(model, source.tensors, name, method) for name, _ in model.named_parameters()}
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
    return Report(source.layout.name, {name: (part.how, part.remark) for name, part in parts.items()}, left_out, notes)


def check_sizes(model, source, heads):
    """Refuses weights of another kind or size than the model's, naming both. Returns what cannot be told."""
    config, ours = model.config, type(model).__name__
    whose = source.layout.models or ("SpaceTime",)
    if source.of_video and ours not in whose:
        names = " or ".join(MODEL_NAMES[name] for name in whose)
        raise CheckpointError(
            f"these weights are of {names} and go into no other; this is {MODEL_NAMES.get(ours, ours)}"
        )
    theirs = {"heads": config.heads} | sizes(source, heads)
    differing = [option for option in theirs if theirs[option] != getattr(config, option)]
    if differing:
        both = ", ".join(f"{option} {theirs[option]!r} and {getattr(config, option)!r}" for option in differing)
        guess = (
            ""
            if heads or "heads" not in differing
            else (" (heads: the usual number for this width; where the weights have another, say heads=...)")
        )
        options = ", ".join(f"{option}={theirs[option]!r}" for option in differing)
        raise CheckpointError(f"weights and model differ in {both}{guess}: build the model with {options}")
    notes = []
    if not heads and theirs["dim"] not in USUAL_HEADS:
        notes.append(f"the weights do not say their number of heads: make sure that it is {config.heads}")
    activation = "gelu_tanh" if source.of_video else "gelu"
    if config.activation != activation:
        notes.append(f"such weights are usually trained with activation={activation!r}, not {config.activation!r}")
    return tuple(notes)


def sizes(source, heads=None):
    """What the weights must have in common with a model, as options of `build_model`; heads where they are known."""
    tensors, of_video = source.tensors, source.of_video
    dim = tensors["positions"].shape[-1]
    found = {
        "depth": depth(tensors, "encoder") or depth(tensors, "spatial_encoder"),
        "dim": dim,
        "mlp_dim": next(len(tensor) for name, tensor in tensors.items() if name.endswith("mlp.0.weight")),
    }
    if heads or dim in USUAL_HEADS:
        found["heads"] = heads or USUAL_HEADS[dim]
    if of_video:
        found["pool"] = "cls" if "cls" in tensors else "mean"
    if of_video and "FactorisedEncoder" in source.layout.models:
        found["temporal_depth"] = depth(tensors, "temporal_encoder")
    return found


def depth(tensors, encoder):
    """The number of blocks of an encoder."""
    return sum(name.startswith(f"{encoder}.") and name.endswith("norm_mlp.weight") for name in tensors)


def options_for(weights):
    """The options of `build_model` that these weights ask for: depth, dim, mlp_dim, heads where they are known, …

    weights: as for `load_pretrained`. Raises CheckpointError for what cannot be read.
    """
    state, heads = read_weights(weights)
    source = recognise(state)
    return sizes(source, source.heads or heads)


def part_of_image(model, tensors, name, method):
    """The Part for one parameter of a ViViT from an image transformer's tensors (under Model 1's names)."""
    fresh = Part(model.get_parameter(name).detach(), "fresh")
    if name.startswith("temporal_") or "norm_time" in name or "time_attention.qkv" in name:
        return fresh  # an image has no time to learn from
    if "time_attention.out" in name:
        # With W_O = 0 the residual branch adds nothing, yet W_O has a gradient and learns. Were W_Q, W_K and
        # W_V zero as well, the values would be zero, W_O's gradient too, and only a bias would ever move.
        return replace(fresh, tensor=torch.zeros_like(fresh.tensor), how="zeroed", remark="starts as the identity")
    if name == "positions":
        return positions_from_image(model, tensors)
    if name.startswith("embedding.") and method == "random":
        return fresh
    if name == "embedding.projection.weight":
        return filters_from_image(model, tensors[name], method)
    theirs = name.replace("spatial_encoder.", "encoder.").replace("norm_space", "norm_attention")
    return take(model, tensors, name, theirs.replace("space_attention", "attention"))


def part_of_video(model, tensors, name):
    """The Part for one parameter of a ViViT from the same ViViT's tensors, which are taken as they are."""
    part = take(model, tensors, name, name)
    if name == "embedding.projection.weight":
        summed = sum_colours(part.tensor, model.embedding.clip_shape[0])
        return part if summed is part.tensor else replace(part, tensor=summed, how="summed", remark="over the colours")
    if name == "positions" and isinstance(model, FactorisedSelfAttention):
        n_t, s = model.grid
        if part.tensor.shape[1] == n_t * s:
            return replace(part, tensor=rearrange(part.tensor, "1 (t s) d -> 1 t s d", t=n_t))
    if isinstance(model, FactorisedDotProduct) and ".attention." in name and not name.endswith("out.bias"):
        # their first half of the heads attends over time and the second over space; ours is the paper's
        # Concat(Y_s, Y_t)
        return replace(part, tensor=swap_halves(part.tensor, name), remark="halves of the heads exchanged")
    return part


def take(model, tensors, name, theirs):
    """Their tensor as it is. A cls token or head they lack stays fresh, as does a head for other classes."""
    ours = model.get_parameter(name).detach()
    if theirs not in tensors:
        if name != "cls" and not name.startswith("head."):
            raise CheckpointError(f"the weights lack {theirs}, which the model's {name} needs: is the file complete?")
        return Part(ours, "fresh", "the weights have none")
    if name.startswith("head.") and len(tensors[theirs]) != len(ours):
        return Part(ours, "fresh", f"theirs is for {len(tensors[theirs])} classes, ours for {len(ours)}")
    return Part(tensors[theirs], "taken", source=theirs)


def positions_from_image(model, tensors):
    """An image's positions for every time index: resized to the grid of tubelets, then repeated."""
    n_t, *grid = model.embedding.grid
    prefix = ("cls" in tensors) + ("dist" in tensors)  # tokens that stand before the patches
    theirs = tensors["positions"][:, prefix:]  # [1, N, D]
    places, steps = resize_positions(theirs, grid), []  # [1, S, D]
    if places is not theirs:
        steps.append("resized")
    if isinstance(model, FactorisedSelfAttention):
        places = repeat(places, "1 s d -> 1 t s d", t=n_t)
    elif not isinstance(model, FactorisedEncoder):  # Model 2's spatial encoder sees one time index at a time
        places = repeat(places, "1 s d -> 1 (t s) d", t=n_t)
    if n_t > 1 and not isinstance(model, FactorisedEncoder):
        steps.append("repeated")
    remark = ""
    if model.config.pool == "cls":
        has_cls = "cls" in tensors
        cls = tensors["positions"][:, :1] if has_cls else model.positions.detach()[:, :1].cpu()
        places = torch.cat((cls, places), dim=1)
        remark = "" if has_cls else "the cls token's is fresh"
    return Part(places, ", ".join(steps) or "taken", remark, source="positions")


def filters_from_image(model, filters, method):
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
    return Part(resized, ", ".join(steps) or "taken", remark, source="embedding.projection.weight")
