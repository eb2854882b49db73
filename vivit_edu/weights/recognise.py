"""Weights in anybody's names, translated into the names and the orientation of our own models."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import EinopsError, rearrange

from ..errors import CheckpointError
from .layouts import LAYOUTS, Layout

SINGLE = ("cls", "dist", "positions", "temporal_cls", "temporal_positions")  # tensors without weight and bias
OPTIONAL = ("cls", "dist", "head", "temporal_cls", "temporal_positions", "temporal_encoder.norm")
# What stands after the trunk or only serves its training: the trunk computes the same without it.
AFTER_THE_TRUNK = re.compile(
    r"(\w*heads?|\w*heads?_\w+|\w*classifier|\w*decoder\w*|pooler|pre_logits|attn_pool|fc_norm|fc|\w*projector"
    r"|\w*predictor|output_projection)([./]|$)|(.*[./])?mask_token$"
)
# What a head may read in place of the trunk's tokens; the head alone would then compute something else.
BEFORE_THE_HEAD = re.compile(r"(heads?|(cls_)?classifier|pre_logits|attn_pool|fc_norm|output_projection)[./]")


@dataclass(frozen=True)
class Recognised:
    """Weights in our names.

    layout: how they were named. tensors: our name -> tensor in our orientation. left_out: their names that have no
    place here. heads: the number of heads that each attention shows, by our name; empty where tensors do not show it.
    stated: what the file or its config.json states, as `stated.facts` returns it.
    """

    layout: Layout
    tensors: dict[str, torch.Tensor]
    left_out: tuple[str, ...]
    heads: dict[str, int] = field(default_factory=dict)
    stated: dict[str, object] = field(default_factory=dict)

    @property
    def of_video(self) -> bool:
        """True for a ViViT's weights, False for those of an image transformer."""
        return self.tensors["embedding.projection.weight"].ndim == 5


def recognise(state: Mapping, stated: Mapping[str, object] | None = None) -> Recognised:
    """Finds the layout from the names and translates the weights into the names of our models.

    state: names (or tuples of names, as flax flattens a tree) to tensors or arrays. What stands before all names of
    the trunk is left off; heads of several layers, decoders and mask tokens are left out. stated: see Recognised.
    Raises CheckpointError that names the nearest known layout and what differs from it.
    """
    state = {"/".join(key) if isinstance(key, tuple) else key: value for key, value in state.items()}
    tries = [
        (layout, prefix, *translate(layout, prefix, state)) for layout in LAYOUTS for prefix in prefixes(layout, state)
    ]
    layout, prefix, names, left_out, unknown = max(tries, key=lambda attempt: (len(attempt[2]), -len(attempt[4])))
    missing = missing_names(layout, names.values(), left_out)
    if unknown or missing:
        raise CheckpointError(
            f"these weights are in no known layout; {len(names)} of {len(state)} names fit the nearest one, "
            f"{layout.name!r}. {_some('Unknown to it', unknown)}{_some('Missing (in our names)', missing)}"
            f"Known layouts: {'; '.join(known.name for known in LAYOUTS)}"
        )
    twins = [other for other in tries if other[0] is layout and other[1] != prefix and len(other[2]) == len(names)]
    if twins:
        both = " and ".join(repr(name) for name in (prefix, *(twin[1] for twin in twins)))
        raise CheckpointError(f"these are several sets of weights, under {both}: give a mapping with one of them")
    tensors = {ours: as_tensor(theirs, state[theirs]) for theirs, ours in names.items()}
    heads = {}
    if layout.flax:
        heads = heads_in_shapes(tensors)
        tensors = {name: from_flax(name, tensor) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        check_axes(name, tensor)
    return Recognised(layout, join_qkv(tensors), tuple(left_out), heads, dict(stated or {}))


def prefixes(layout: Layout, state: Mapping) -> list[str]:
    """What may stand before the names of the trunk, such as "vit.", "module." or "params/", from the embedding's."""
    embedding = next(theirs for theirs, ours in layout.table.items() if ours == "embedding.projection")
    found = [re.fullmatch(rf"(.*[./])?{re.escape(embedding)}[./](weight|kernel)", key) for key in state]
    common = re.match(r"(.*[./])?", os.path.commonprefix(list(state)))[0]
    return list(dict.fromkeys([*(match[1] or "" for match in found if match), common]))


def translate(layout: Layout, prefix: str, state: Mapping) -> tuple[dict[str, str], list[str], list[str]]:
    """Their names in this layout -> ours: (translated, those without a place here, those unknown).

    A head is left out with the layers before it, where there are any: on its own it would compute something else.
    """
    names, left_out, unknown, before_the_head = {}, [], [], False
    parent = re.match(r"(.*[./])?[^./]+[./]$", prefix)  # where the trunk is a part, the head is a part beside it
    parent = (parent[1] or "") if parent else ""
    for key in state:
        stem, leaf = re.fullmatch(r"(.*?)(?:[./_](weight|bias|kernel|scale))?", key, re.DOTALL).groups()
        in_trunk = stem.startswith(prefix)
        inner = stem.removeprefix(prefix if in_trunk else parent)
        number = re.search(r"(?<=[._])\d+(?=[./])", inner)  # of the block; others end the stem or follow a letter
        starred = inner[: number.start()] + "*" + inner[number.end() :] if number else inner
        ours = layout.table.get(starred)
        if ours and (in_trunk or ours == "head"):
            ours = ours.replace("*", number[0]) if number else ours
            names[key] = f"{ours}.{'bias' if leaf == 'bias' else 'weight'}" if leaf else ours
        elif not in_trunk or AFTER_THE_TRUNK.match(inner):
            left_out.append(key)
            before_the_head |= bool(BEFORE_THE_HEAD.match(inner + key[len(stem) :]))
        else:
            unknown.append(key)
    if before_the_head:
        left_out += [key for key, ours in names.items() if ours.startswith("head.")]
        names = {key: ours for key, ours in names.items() if not ours.startswith("head.")}
    return names, left_out, unknown


def missing_names(layout: Layout, found: Iterable[str], left_out: Iterable[str] = ()) -> list[str]:
    """What a complete set of weights in this layout has and `found` (our names) lacks, in our names.

    left_out: their names; an `fc_norm` among them stands for the trunk's last LayerNorm.
    """
    found, missing = set(found), []
    optional = {*OPTIONAL, *(("encoder.norm",) if any("fc_norm" in name for name in left_out) else ())}
    for ours in dict.fromkeys(layout.table.values()):  # two of their names may mean one of ours
        if ours in optional:
            continue
        encoder = ours.partition("blocks.")[0] + "blocks."
        numbers = {name[len(encoder) :].split(".")[0] for name in found if name.startswith(encoder)}
        stems = [ours.replace("*", number) for number in sorted(numbers)] if "*" in ours else [ours]
        wanted = [stem if stem in SINGLE else f"{stem}.{leaf}" for stem in stems for leaf in ("weight", "bias")]
        missing += [name for name in dict.fromkeys(wanted) if name not in found]
    return missing


def as_tensor(name: str, values: object) -> torch.Tensor:
    """A tensor or an array of any library as a float32 tensor on the CPU.

    Raises CheckpointError where it holds anything but finite floating-point numbers.
    """
    try:
        tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(np.array(values))
        if not tensor.is_floating_point():
            raise TypeError(f"{tensor.dtype} in place of floating-point numbers")
        tensor = tensor.detach().cpu().float()
        if not tensor.isfinite().all():
            raise ValueError("NaN or infinity among its numbers")
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"the weights {name} cannot be used: {error}. Is the file whole, and of a trained model?"
        ) from error
    return tensor


def check_axes(name: str, tensor: torch.Tensor) -> None:
    """Refuses a tensor (under our name) whose number of axes no known model has there, and one that is empty."""
    stem, _, leaf = name.rpartition(".")
    if name in SINGLE:
        axes = (3, 4) if name == "positions" else (3,)
    elif stem == "embedding.projection" and leaf == "weight":
        axes = (4, 5)  # of an image, of a clip
    else:
        axes = (1,) if leaf == "bias" or "norm" in stem.rpartition(".")[2] else (2,)
    if tensor.ndim not in axes or 0 in tensor.shape or (name in SINGLE and len(tensor) != 1):
        raise CheckpointError(
            f"{name} has shape {list(tensor.shape)} in the weights, which it has in no image or video transformer: "
            "is the file whole, and of such a model?"
        )


def heads_in_shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The number of heads of each query, key, value and output in flax's shapes, by our name."""
    heads = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        last = stem.rpartition(".")[2]
        axis = {("weight", "out"): 0}.get((leaf, last), 1 if leaf == "weight" else 0)
        if last in ("q", "k", "v") or (leaf, last) == ("weight", "out"):
            heads[name] = tensor.shape[axis] if tensor.ndim > axis else 0
    return heads


def from_flax(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """One tensor of a flax layout in torch's orientation: flax puts what comes in before what goes out."""
    stem, _, leaf = name.rpartition(".")
    last = stem.rpartition(".")[2]
    if leaf == "weight" and stem == "embedding.projection":
        pattern = "t h w c d -> d c t h w"
    elif leaf == "weight" and last in ("q", "k", "v"):
        pattern = "dim heads d -> (heads d) dim"
    elif leaf == "bias" and last in ("q", "k", "v"):
        pattern = "heads d -> (heads d)"
    elif leaf == "weight" and last == "out":
        pattern = "heads d dim -> dim (heads d)"
    elif leaf == "weight" and "norm" not in last:
        pattern = "d_in d_out -> d_out d_in"
    else:
        return tensor
    try:
        return rearrange(tensor, pattern)
    except EinopsError as error:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, which is not flax's {pattern!r}") from error


def join_qkv(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Joins queries, keys and values that come one by one into the one matrix `attention.qkv`."""
    joined = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        stem, _, last = stem.rpartition(".")
        if last == "q":
            shapes = {tuple(tensors[f"{stem}.{part}.{leaf}"].shape) for part in "qkv"}
            if len(shapes) > 1:
                raise CheckpointError(f"queries, keys and values of {stem} differ in shape: {sorted(shapes)}")
            joined[f"{stem}.qkv.{leaf}"] = torch.cat([tensors[f"{stem}.{part}.{leaf}"] for part in "qkv"])
        elif last not in ("k", "v"):
            joined[name] = tensor
    return joined


def _some(label: str, names: list[str], most: int = 4) -> str:
    """`label: a, b, … (n in all). `, or nothing where there are no names."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return f"{label}: {', '.join(names[:most])}{more}. " if names else ""
