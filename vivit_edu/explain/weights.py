"""The attention weights of every layer of a ViViT, recorded in one forward pass. Chapter 13 builds this by hand."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange

from ..attention import FactorisedDotProductAttention, MultiHeadAttention
from ..errors import ConfigError
from ..vivit import FactorisedEncoder, SpaceTime, ViViT


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer for a batch of clips; each row sums to 1.

    layer: counted from 0; Model 2 counts its temporal encoder's layers on after the spatial ones.
    kind and shape of `weights`: "joint" [B, heads, N, N]; "space" [B, T', heads, S, S];
    "time" [B, heads, T', T'] in Model 2 and [B, S, heads, T', T'] in Models 3 and 4, where Model 4 has
    half of the heads in each kind. Where there is a cls token, it is row and column 0.
    """

    layer: int
    kind: str
    weights: torch.Tensor


@contextmanager
def recorded_attention(model):
    """Within it, a forward pass appends each attention's weights, in order, to the list that it yields."""
    modules = [m for m in model.modules() if isinstance(m, (MultiHeadAttention, FactorisedDotProductAttention))]
    record = []
    for module in modules:
        module.record = record
    try:
        yield record
    finally:
        for module in modules:
            module.record = None


def attention_maps(model, clips):
    """The attention weights of all layers: a list of AttentionMap, in the order in which they are computed.

    model: one of Models 1 to 4; clips: float [B, C, T, H, W] in [0, 1], on the model's device.
    The model is put in evaluation mode. Raises ConfigError for a model without attention of this kind.
    """
    check_vivit(model)
    model.eval()
    with torch.no_grad(), recorded_attention(model) as record:
        model(clips)
    return sort_record(model, record, len(clips))


def sort_record(model, record, batch):
    """Gives the recorded weights their layer, kind and shape."""
    if isinstance(model, SpaceTime):
        return [AttentionMap(layer, "joint", w) for layer, w in enumerate(record)]
    if isinstance(model, FactorisedEncoder):
        depth = model.config.depth
        space = [AttentionMap(i, "space", unfold(w, batch)) for i, w in enumerate(record[:depth])]
        return space + [AttentionMap(depth + i, "time", w) for i, w in enumerate(record[depth:])]
    kinds = ("space", "time")  # Models 3 and 4 record two for each layer, space first
    return [AttentionMap(i // 2, kinds[i % 2], unfold(w, batch)) for i, w in enumerate(record)]


def unfold(weights, batch):
    """Takes the folded axis (time indices or places) out of the batch: [B·X, heads, N, N] -> [B, X, heads, N, N]."""
    return rearrange(weights, "(b x) h i j -> b x h i j", b=batch)


def check_vivit(model):
    if not isinstance(model, ViViT):
        raise ConfigError(
            f"attention maps need one of Models 1 to 4, got {type(model).__name__}, "
            'which has no attention among tubelets: build a ViViT, such as build_model("spacetime")'
        )
