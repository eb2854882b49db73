"""How others name the weights of a ViT or a ViViT.

A layout is a table from their names to ours: `*` stands for the number of a block, the endings `weight` and
`bias` are left off. Image transformers and Hugging Face's ViViT get the names of `vivit.SpaceTime` (Model 1).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """One way of naming weights.

    name: for messages. table: their name -> ours. models: the models whose weights are so named, where the layout
    tells that, as their titles begin ("Model 2"). flax: whether tensors have flax's orientation. reads_cls: whether
    the head of such a model is known to read its cls token, where there is one.
    """

    name: str
    table: dict[str, str]
    models: tuple[str, ...] = ("Model 1",)
    flax: bool = False
    reads_cls: bool = True


def block(theirs: str, ours: str = "encoder.blocks.*", **parts: str) -> dict[str, str]:
    """The rows of a table that belong to one block: `theirs` + part -> `ours` + "." + the part's name here."""
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
        "heads": "head",  # where the head was replaced by a linear map for other classes
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
    reads_cls=False,  # with global_pool="avg" it reads the mean of the other tokens
)

_HUGGING_FACE = {
    "embeddings.patch_embeddings.projection": "embedding.projection",
    "embeddings.cls_token": "cls",
    "embeddings.distillation_token": "dist",
    "embeddings.position_embeddings": "positions",
    "layernorm": "encoder.norm",
    "classifier": "head",
    "cls_classifier": "head",  # of a DeiT with a teacher
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
)


def _flax_encoder(theirs: str, ours: str, positions: str) -> dict[str, str]:
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


def _flax_factorised_block() -> dict[str, str]:
    """Model 3's block: two attentions, each named after its axis."""
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
    models=("Model 1", "Model 4"),
    flax=True,
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
    models=("Model 2",),
    flax=True,
)
AUTHORS_3 = Layout(
    "the authors' flax parameters of Model 3",
    {
        **_FLAX,
        "Transformer/posembed_input/pos_embedding": "positions",
        **_flax_factorised_block(),
        "Transformer/encoder_norm": "encoder.norm",
    },
    models=("Model 3",),
    flax=True,
)

LAYOUTS = (TORCHVISION, TIMM, HUGGING_FACE, HUGGING_FACE_5, AUTHORS_1_4, AUTHORS_2, AUTHORS_3)
