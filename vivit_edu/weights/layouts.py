"""How others name the weights of a ViT or a ViViT, and the translation into the names of our own models.

A layout is a table from their names to ours: `*` stands for the number of a block, the endings `weight` and
`bias` are left off. Image transformers and Hugging Face's ViViT get the names of `vivit.SpaceTime` (Model 1).
"""

import os
import re
from dataclasses import dataclass

import numpy as np
import torch
from einops import EinopsError, rearrange

from ..errors import CheckpointError


@dataclass(frozen=True)
class Layout:
    name: str
    table: dict  # their name -> ours
    prefixes: tuple = ("",)  # what may stand before all of their names but those of the head
    left_out: tuple = ()  # parts that have no place in our models and do not change the others
    models: tuple = ()  # the models it belongs to, where only these authors' layout says so


@dataclass(frozen=True)
class Weights:
    """Weights in our names. `heads` is None where the file does not say it."""

    layout: Layout
    tensors: dict  # our name -> tensor in our orientation
    left_out: tuple  # their names without a place here
    heads: int | None = None

    @property
    def of_video(self):
        """True for a ViViT's weights, False for those of an image transformer."""
        return self.tensors["embedding.projection.weight"].ndim == 5


def block(theirs, ours="encoder.blocks.*", **parts):
    """The rows of a table that belong to one block: `theirs` + part -> `ours` + "." + part's name here."""
    names = {
        "norm1": "norm_attention",
        "norm2": "norm_mlp",
        "qkv": "attention.qkv",
        "out": "attention.out",
        "q": "attention.q",
        "k": "attention.k",
        "v": "attention.v",
        "fc1": "mlp.0",
        "fc2": "mlp.3",
    }
    return {theirs + part: f"{ours}.{names[key]}" for key, part in parts.items()}


TORCHVISION = Layout(
    "torchvision VisionTransformer",
    {
        "conv_proj": "embedding.projection",
        "class_token": "cls",
        "encoder.pos_embedding": "positions",
        **block(
            "encoder.layers.encoder_layer_*.",
            norm1="ln_1",
            norm2="ln_2",
            fc1="mlp.0",
            fc2="mlp.3",
            qkv="self_attention.in_proj",
            out="self_attention.out_proj",
        ),
        # the published files name the MLP otherwise
        **block("encoder.layers.encoder_layer_*.", fc1="mlp.linear_1", fc2="mlp.linear_2"),
        "encoder.ln": "encoder.norm",
        "heads.head": "head",
    },
)

TIMM = Layout(
    "timm VisionTransformer",
    {
        "patch_embed.proj": "embedding.projection",
        "cls_token": "cls",
        "dist_token": "dist",  # distilled DeiT: a second token that learns from a teacher
        "pos_embed": "positions",
        **block(
            "blocks.*.", norm1="norm1", norm2="norm2", qkv="attn.qkv", out="attn.proj", fc1="mlp.fc1", fc2="mlp.fc2"
        ),
        "norm": "encoder.norm",
        "head": "head",
    },
    left_out=("head_dist",),
)

_HUGGING_FACE = {
    "embeddings.patch_embeddings.projection": "embedding.projection",
    "embeddings.cls_token": "cls",
    "embeddings.position_embeddings": "positions",
    "layernorm": "encoder.norm",
    "classifier": "head",
}

HUGGING_FACE = Layout(
    "Hugging Face ViT or ViViT, as published",
    {
        **_HUGGING_FACE,
        **block(
            "encoder.layer.*.",
            norm1="layernorm_before",
            norm2="layernorm_after",
            q="attention.attention.query",
            k="attention.attention.key",
            v="attention.attention.value",
            out="attention.output.dense",
            fc1="intermediate.dense",
            fc2="output.dense",
        ),
    },
    prefixes=("vit.", "vivit.", ""),
    left_out=("pooler.dense",),
)

HUGGING_FACE_5 = Layout(
    "Hugging Face ViT or ViViT, state_dict() of transformers 5",
    {
        **_HUGGING_FACE,
        **block(
            "layers.*.",
            norm1="layernorm_before",
            norm2="layernorm_after",
            q="attention.q_proj",
            k="attention.k_proj",
            v="attention.v_proj",
            out="attention.o_proj",
            fc1="mlp.fc1",
            fc2="mlp.fc2",
        ),
    },
    prefixes=HUGGING_FACE.prefixes,
    left_out=HUGGING_FACE.left_out,
)


def _flax_encoder(theirs, ours, positions):
    """An encoder of the authors' code as Models 1, 2 and 4 have it, its positions included."""
    attention = "MultiHeadDotProductAttention_0/"
    return {
        f"{theirs}/posembed_input/pos_embedding": positions,
        **block(
            f"{theirs}/encoderblock_*/",
            f"{ours}.blocks.*",
            norm1="LayerNorm_0",
            norm2="LayerNorm_1",
            q=attention + "query",
            k=attention + "key",
            v=attention + "value",
            out=attention + "out",
            fc1="MlpBlock_0/Dense_0",
            fc2="MlpBlock_0/Dense_1",
        ),
        f"{theirs}/encoder_norm": f"{ours}.norm",
    }


def _flax_factorised_block():
    """Model 3's block: two attentions, each under its axis' name."""
    theirs, ours = "Transformer/encoderblock_*/", "encoder.blocks.*."
    table = {theirs + f"LayerNorm_{part}": ours + f"norm_{part}" for part in ("space", "time", "mlp")}
    for axis in ("space", "time"):
        for theirs_part, part in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out")):
            table[theirs + f"MultiHeadDotProductAttention_{axis}/{theirs_part}"] = ours + f"{axis}_attention.{part}"
    return table | {theirs + "MlpBlock/Dense_0": ours + "mlp.0", theirs + "MlpBlock/Dense_1": ours + "mlp.3"}


_FLAX = {"embedding": "embedding.projection", "output_projection": "head"}

AUTHORS_1_4 = Layout(
    "the authors' flax parameters of Model 1 or 4",
    {**_FLAX, "cls": "cls", **_flax_encoder("Transformer", "encoder", "positions")},
    models=("SpaceTime", "FactorisedDotProduct"),
)
AUTHORS_2 = Layout(
    "the authors' flax parameters of Model 2",
    {
        **_FLAX,
        "cls_SpatialTransformer": "cls",
        "cls_TemporalTransformer": "temporal_cls",
        **_flax_encoder("SpatialTransformer", "spatial_encoder", "positions"),
        **_flax_encoder("TemporalTransformer", "temporal_encoder", "temporal_positions"),
    },
    models=("FactorisedEncoder",),
)
AUTHORS_3 = Layout(
    "the authors' flax parameters of Model 3",
    {
        **_FLAX,
        "Transformer/posembed_input/pos_embedding": "positions",
        **_flax_factorised_block(),
        "Transformer/encoder_norm": "encoder.norm",
    },
    models=("FactorisedSelfAttention",),
)

LAYOUTS = (TORCHVISION, TIMM, HUGGING_FACE, HUGGING_FACE_5, AUTHORS_1_4, AUTHORS_2, AUTHORS_3)

BARE = (
    "cls",
    "dist",
    "positions",
    "temporal_cls",
    "temporal_positions",
)  # single tensors, without weight and bias
OPTIONAL = ("cls", "dist", "head", "temporal_cls", "temporal_positions", "temporal_encoder.norm")


def recognise(state):
    """Finds the layout from the keys and translates the weights into the names of our models.

    state: mapping of names (or of tuples of names, as flax flattens a tree) to tensors or arrays.
    What stands before all names alike is left off. Returns Weights. Raises CheckpointError that names the
    nearest known layout and what differs from it.
    """
    state = {"/".join(key) if isinstance(key, tuple) else key: value for key, value in state.items()}
    common = re.match(r"(.*[./])?", os.path.commonprefix(list(state)))[0]  # such as "module." or "params/"
    state = {key.removeprefix(common): value for key, value in state.items()}
    tries = [(layout, *translate(layout, prefix, state)) for layout in LAYOUTS for prefix in layout.prefixes]
    layout, names, left_out, unknown = max(tries, key=lambda attempt: (len(attempt[1]), -len(attempt[3])))
    missing = missing_names(layout, names.values())
    if unknown or missing:
        raise CheckpointError(
            f"these weights are in no known layout; {len(names)} of {len(state)} names fit the nearest one, "
            f"{layout.name!r}. {_some('Unknown to it', unknown)}{_some('Missing (in our names)', missing)}"
            f"Known layouts: {'; '.join(known.name for known in LAYOUTS)}"
        )
    tensors = {ours: as_tensor(theirs, state[theirs]) for theirs, ours in names.items()}
    heads = None
    if layout.models:  # only flax keeps the heads apart, so that their number shows
        turned = {name: from_flax(name, tensor) for name, tensor in tensors.items()}
        heads = len(next(tensor for name, tensor in tensors.items() if name.endswith(".q.bias")))
        tensors = turned
    for name, tensor in tensors.items():
        check_axes(name, tensor)
    return Weights(layout, join_qkv(tensors), tuple(left_out), heads)


def translate(layout, prefix, state):
    """Their names in this layout -> ours: (translated, those without a place here, those unknown)."""
    names, left_out, unknown = {}, [], []
    for key in state:
        stem, leaf = re.fullmatch(r"(.*?)(?:[./_](weight|bias|kernel|scale))?", key).groups()
        number = re.search(r"(?<=[._])\d+(?=[./])", stem)  # of the block; other numbers end the stem or follow a letter
        if number:
            stem = stem[: number.start()] + "*" + stem[number.end() :]
        stem = stem.removeprefix(prefix)
        if stem in layout.table:
            ours = layout.table[stem].replace("*", number[0] if number else "*")
            names[key] = f"{ours}.{'bias' if leaf == 'bias' else 'weight'}" if leaf else ours
        else:
            (left_out if stem in layout.left_out else unknown).append(key)
    return names, left_out, unknown


def missing_names(layout, found):
    """What a complete set of weights in this layout has and `found` (our names) lacks, in our names."""
    found, missing = set(found), []
    for ours in dict.fromkeys(layout.table.values()):  # two of their names may mean one of ours
        if ours in OPTIONAL:
            continue
        encoder = ours.partition("blocks.")[0] + "blocks."
        numbers = {name[len(encoder) :].split(".")[0] for name in found if name.startswith(encoder)}
        stems = [ours.replace("*", number) for number in sorted(numbers)] if "*" in ours else [ours]
        wanted = [stem if stem in BARE else f"{stem}.{leaf}" for stem in stems for leaf in ("weight", "bias")]
        missing += [name for name in dict.fromkeys(wanted) if name not in found]
    return missing


def as_tensor(name, values):
    """A tensor or an array of any library as a float32 tensor on the CPU; CheckpointError for what is none."""
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


def check_axes(name, tensor):
    """Refuses a tensor (under our name) with another number of axes than its like has anywhere, or with none of a size."""
    stem, _, leaf = name.rpartition(".")
    if name in BARE:
        axes = (3, 4) if name == "positions" else (3,)
    elif stem == "embedding.projection" and leaf == "weight":
        axes = (4, 5)  # of an image, of a clip
    else:
        axes = (1,) if leaf == "bias" or "norm" in stem.rpartition(".")[2] else (2,)
    if tensor.ndim not in axes or 0 in tensor.shape or (name in BARE and len(tensor) != 1):
        raise CheckpointError(
            f"{name} has shape {list(tensor.shape)} in the weights, which it has in no image or video transformer: "
            "is the file whole, and of such a model?"
        )


def from_flax(name, tensor):
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


def join_qkv(tensors):
    """Queries, keys and values that come one by one, as the one matrix `attention.qkv`."""
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


def _some(label, names, most=4):
    """`label: a, b, … (n in all). `, or nothing where there are no names."""
    more = f", … ({len(names)} in all)" if len(names) > most else ""
    return f"{label}: {', '.join(names[:most])}{more}. " if names else ""
