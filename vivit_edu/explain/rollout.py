"""Attention rollout: the weights of all layers followed from the logits down to the tokens.

Chapter 13 builds this by hand.
"""

from collections.abc import Callable

import torch
from einops import rearrange, repeat
from torch import nn

from ..errors import ConfigError
from ..vivit import ViViT
from .weights import AttentionMap, attention_maps, check_vivit

Parts = tuple[float, float]  # (a, i): a layer counts as a·A + i·I
Read = Callable[[torch.Tensor, bool], torch.Tensor]


def rollout(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    """How much each token contributes to the logits by attention rollout: [B, nt, S], each clip summing to 1.

    Per layer, Â is the mean of the heads' weights averaged with the identity, which stands for the residual
    connection; R = Â_L … Â_1 (Abnar & Zuidema 2020). R's cls row, or the mean of its rows if the model
    averages tokens, tells how much each token counts. Model 2 multiplies its temporal and spatial rollouts;
    Model 3 applies Â_time Â_space in each block; Model 4's Â averages both halves of the heads.
    model, clips: as `attention_maps` takes them. Raises ConfigError if that does.
    """
    return follow(model, attention_maps(model, clips), parts=(0.5, 0.5), read=read_shares)


def last_layer(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    """The weights of the last layer alone, mean over heads, read as rollout reads them: [B, nt, S], sums to 1.

    Model 2 multiplies the last layers of its two encoders. What earlier layers mixed is left out.
    """
    maps = attention_maps(model, clips)
    last = {m.kind: m.layer for m in maps}  # of each kind
    return follow(model, [m for m in maps if m.layer == last[m.kind]], parts=(1.0, 0.0), read=read_shares)


def follow(model: nn.Module, maps: list[AttentionMap], parts: Parts, read: Read) -> torch.Tensor:
    """Multiplies the layers' attention from the logits down to the tokens: [B, nt, S].

    maps: AttentionMaps of one or more layers, in order. parts = (a, i): a layer counts as a·A + i·I, A being
    the mean of its heads. read(R, has_cls): the row of R [B, N, N] that the logits are read from, [B, tokens].
    """
    model = check_vivit(model)
    with torch.autocast(maps[0].weights.device.type, enabled=False):  # products of many layers, in full precision
        return FOLLOW[model.tokens_as](model, maps, parts, read)


def follow_sequence(model: ViViT, maps: list[AttentionMap], parts: Parts, read: Read) -> torch.Tensor:
    """All tokens in one sequence, as in Model 1: [B, nt, S]."""
    scores = read(roll([m.weights.mean(dim=1) for m in maps], parts), model.config.pool == "cls")  # [B, N]
    return rearrange(scores, "b (t s) -> b t s", t=model.grid[0])


def follow_encoders(model: ViViT, maps: list[AttentionMap], parts: Parts, read: Read) -> torch.Tensor:
    """Two encoders one after the other, as in Model 2: [B, nt, S], the product of both.

    The second has one vector per time index (per place, if time comes first); without it, all count the same.
    """
    has_cls, first = model.config.pool == "cls", model.kinds[0]
    inner = [rearrange(m.weights.mean(dim=2), "b x i j -> (b x) i j") for m in maps if m.kind == first]
    outer = [m.weights.mean(dim=1) for m in maps if m.kind != first]
    within = rearrange(read(roll(inner, parts), has_cls), "(b x) n -> b x n", b=len(maps[0].weights))
    among = read(roll(outer, parts), has_cls) if outer else torch.full_like(within[..., 0], 1 / within.shape[1])
    scores = within * among[..., None]
    return scores if first == "space" else scores.mT


def follow_grid(model: ViViT, maps: list[AttentionMap], parts: Parts, read: Read) -> torch.Tensor:
    """Tokens that keep their place in the grid, as in Models 3 and 4: [B, nt, S].

    R is [B, nt, S, N], its rows arranged in the grid. The N×N matrices of the factorised attentions are never built:
    Â_space mixes the rows of R within each time index, Â_time within each place.
    """
    (n_t, s), (a, i) = model.grid, parts
    one = maps[0].weights
    r = torch.eye(n_t * s, dtype=one.dtype, device=one.device).unflatten(0, (n_t, s))
    r = repeat(r, "t s n -> b t s n", b=len(one))
    together = len(model.kinds) if model.attention_halves else 1
    for first in range(0, len(maps), together):
        layer = maps[first : first + together]  # halves of the heads that read the same R, else one attention
        r = a * sum(mix_rows(m, r) for m in layer) / len(layer) + i * r
    return read(r.flatten(1, 2), False).unflatten(1, (n_t, s))


FOLLOW = {"sequence": follow_sequence, "encoders": follow_encoders, "grid": follow_grid}  # a model's `tokens_as`


def mix_rows(attention: AttentionMap, r: torch.Tensor) -> torch.Tensor:
    """Mixes the rows of R [B, nt, S, N] with the mean of an attention's heads."""
    if attention.kind == "joint":
        return (attention.weights.mean(dim=1) @ r.flatten(1, 2)).view_as(r)
    pattern = {"space": "b t i j, b t j n -> b t i n", "time": "b s i j, b j s n -> b i s n"}[attention.kind]
    return torch.einsum(pattern, attention.weights.mean(dim=2), r)


def with_residual(weights: torch.Tensor, parts: Parts = (0.5, 0.5)) -> torch.Tensor:
    """Â = a·A + i·I for weights [..., N, N]; rows still sum to 1 if a + i = 1."""
    a, i = parts
    return a * weights + i * torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)


def roll(layers: list[torch.Tensor], parts: Parts) -> torch.Tensor:
    """R = Â_L … Â_1 of weights [B, N, N], first layer first."""
    r = with_residual(layers[0], parts)
    for weights in layers[1:]:
        r = with_residual(weights, parts) @ r
    return r


def read_rows(r: torch.Tensor, has_cls: bool) -> torch.Tensor:
    """The row that the logits are read from, over the tokens: [B, N, N] -> [B, N] (without the cls)."""
    return r[:, 0, 1:] if has_cls else r.mean(dim=1)


def read_shares(r: torch.Tensor, has_cls: bool) -> torch.Tensor:
    """The same as shares: without the cls's own part, the rest sums to 1."""
    row = read_rows(r, has_cls)
    return row / row.sum(dim=-1, keepdim=True)


def to_voxels(model: nn.Module, scores: torch.Tensor) -> torch.Tensor:
    """Spreads each token's score over the voxels of its tubelet: [B, nt, S] -> [B, T, H, W].

    Voxels that no tubelet covers (remainder="crop") get 0. Frames count for the whole stretch they stand for.
    Raises ConfigError if the scores do not fit the model's grid.
    """
    model = check_vivit(model)
    if scores.ndim != 3 or tuple(scores.shape[1:]) != model.grid:
        raise ConfigError(
            f"scores have the shape {list(scores.shape)}, expected [B, nt, S] = [B, {model.grid[0]}, {model.grid[1]}]: "
            "one score for each token of the model"
        )
    n_t, n_h, n_w = model.embedding.grid
    t, h, w = model.embedding.tubelet
    _, *size = model.config.clip_shape
    blocks = repeat(scores, "b i (j k) -> b (i t) (j h) (k w)", j=n_h, k=n_w, t=t, h=h, w=w)
    voxels = blocks.new_zeros(len(scores), *size)
    covered = tuple(slice(min(full, part)) for full, part in zip(size, blocks.shape[1:]))
    voxels[(slice(None), *covered)] = blocks[(slice(None), *covered)]
    return voxels
