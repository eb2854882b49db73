"""The attention weights of every layer of a ViViT, recorded in one forward pass. Chapter 13 builds this by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from ..attention import FactorisedDotProductAttention, MultiHeadAttention
from ..errors import ConfigError
from ..support.wrapped import uncompiled, unwrapped
from ..vivit import ViViT


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer for a batch of clips; each row sums to 1.

    layer: counted from 0; Model 2 counts its temporal encoder's layers on after the spatial ones.
    kind and shape of `weights`: "joint" [B, heads, N, N]; "space" [B, nt, heads, S, S];
    "time" [B, heads, nt, nt] in Model 2 and [B, S, heads, nt, nt] in Models 3 and 4, where Model 4 has
    half of the heads in each kind. If there is a cls token, it is row and column 0. float32, or float64 if the
    model computes in float64.
    """

    layer: int
    kind: str
    weights: torch.Tensor


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Within it, a forward pass appends each attention's weights, in order, to the list that it yields.

    model: any module that holds attention modules of this package, also compiled.
    """
    modules = [m for m in model.modules() if isinstance(m, (MultiHeadAttention, FactorisedDotProductAttention))]
    record = []
    for module in modules:
        module.record = record
    try:
        with uncompiled(model):
            yield record
    finally:
        for module in modules:
            module.record = None


def attention_maps(model: nn.Module, clips: torch.Tensor) -> list[AttentionMap]:
    """The attention weights of all layers: a list of AttentionMap, in the order in which they are computed.

    model: one of Models 1 to 4, also compiled or wrapped; clips: float [B, C, T, H, W] in [0, 1], on the model's
    device. The model is put in evaluation mode. Raises ConfigError if the model has no attention of this kind, and
    if there are no clips.
    """
    model = check_vivit(model, clips)
    model.eval()
    with torch.no_grad(), recorded_attention(model) as record:
        model(clips)
    return sort_record(model, record, len(clips))


def sort_record(model: ViViT, record: list[torch.Tensor], batch: int) -> list[AttentionMap]:
    """Gives the recorded weights of B = `batch` clips their layer, kind and shape, as the model's class tells."""
    return [AttentionMap(layer, kind, widen(w)) for layer, kind, w in model.sort_weights(record, batch)]


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """In float32 if the type has fewer bits, such as bfloat16: what maps are computed in and figures can show."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def check_vivit(model: nn.Module, clips: torch.Tensor | None = None) -> ViViT:
    """The plain model inside a wrapper. Raises ConfigError if it is not a ViViT, and if clips has B = 0."""
    plain = unwrapped(model)
    if not isinstance(plain, ViViT):
        raise ConfigError(
            f"attention maps need one of Models 1 to 4, got {type(plain).__name__}, "
            'which has no attention among tubelets: build a ViViT, such as build_model("spacetime")'
        )
    if clips is not None and len(clips) == 0:
        raise ConfigError(f"there are no clips to map: got {list(clips.shape)} with B = 0; give at least one clip")
    return plain
