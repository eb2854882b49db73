"""Attention rollout: the weights of all layers followed from the logits down to the tokens. Chapter 13 builds this by hand."""

import torch
from einops import rearrange, reduce, repeat

from ..vivit import FactorisedDotProduct, FactorisedEncoder, SpaceTime
from .weights import attention_maps


def rollout(model, clips):
    """How much each token contributes to the logits by attention rollout: [B, T', S], each clip summing to 1.

    Per layer, Â is the mean of the heads' weights averaged with the identity, which stands for the residual
    connection; R = Â_L … Â_1 (Abnar & Zuidema 2020). R's cls row, or the mean of its rows where the model
    averages tokens, says how much each token counts. Model 2 multiplies its temporal and spatial rollouts;
    Model 3 applies Â_time Â_space in each block; Model 4's Â averages both halves of the heads.
    """
    return follow(model, attention_maps(model, clips), parts=(0.5, 0.5), read=read_shares)


def last_layer(model, clips):
    """The weights of the last layer alone, mean over heads, read as rollout reads them: [B, T', S], sums to 1.

    Model 2 multiplies the last layers of its two encoders. What the layers before mixed, this leaves out.
    """
    maps = attention_maps(model, clips)
    last = {m.kind: m for m in maps}  # of each kind the last one stays
    return follow(model, list(last.values()), parts=(1.0, 0.0), read=read_shares)


def follow(model, maps, parts, read):
    """Multiplies the layers' attention from the logits down to the tokens: [B, T', S].

    maps: AttentionMaps of one or more layers, in order. parts = (a, i): a layer counts as a·A + i·I, A being
    the mean of its heads. read(R, has_cls): the row of R [B, N, N] that the logits are read from, [B, tokens].
    """
    has_cls = model.config.pool == "cls"
    n_t, s = model.grid
    if isinstance(model, SpaceTime):
        scores = read(roll([m.weights.mean(dim=1) for m in maps], parts), has_cls)  # [B, N]
        return rearrange(scores, "b (t s) -> b t s", t=n_t)
    if isinstance(model, FactorisedEncoder):
        space = [rearrange(m.weights.mean(dim=2), "b t i j -> (b t) i j") for m in maps if m.kind == "space"]
        time = [m.weights.mean(dim=1) for m in maps if m.kind == "time"]
        per_frame = rearrange(read(roll(space, parts), has_cls), "(b t) s -> b t s", t=n_t)
        per_time = read(roll(time, parts), has_cls) if time else torch.full_like(per_frame[..., 0], 1 / n_t)
        return per_frame * per_time[..., None]
    return reduce(roll_factorised(model, maps, parts), "b t s n -> b n", "mean").unflatten(1, (n_t, s))


def with_residual(weights, parts=(0.5, 0.5)):
    """Â = a·A + i·I for weights [..., N, N]; rows still sum to 1 where a + i = 1."""
    a, i = parts
    return a * weights + i * torch.eye(weights.shape[-1], device=weights.device)


def roll(layers, parts):
    """R = Â_L … Â_1 of weights [B, N, N], first layer first."""
    r = with_residual(layers[0], parts)
    for weights in layers[1:]:
        r = with_residual(weights, parts) @ r
    return r


def read_rows(r, has_cls):
    """The row that the logits are read from, over the tokens: [B, N, N] -> [B, N] (without the cls)."""
    return r[:, 0, 1:] if has_cls else r.mean(dim=1)


def read_shares(r, has_cls):
    """The same as shares: without the cls's own part, the rest sums to 1."""
    row = read_rows(r, has_cls)
    return row / row.sum(dim=-1, keepdim=True)


def roll_factorised(model, maps, parts):
    """R of Models 3 and 4: [B, T', S, N], the rows arranged in the token grid.

    The N×N matrices of the factorised attentions are never built: Â_space mixes the rows of R within each
    time index, Â_time within each place.
    """
    n_t, s = model.grid
    a, i = parts
    batch, device = len(maps[0].weights), maps[0].weights.device
    r = repeat(torch.eye(n_t * s, device=device), "(t s) n -> b t s n", b=batch, t=n_t)
    for space, time in zip(maps[::2], maps[1::2]):
        a_space, a_time = space.weights.mean(dim=2), time.weights.mean(dim=2)  # [B, T', S, S], [B, S, T', T']
        if isinstance(model, FactorisedDotProduct):  # both halves of the heads read the same R
            r = a * (mix_space(a_space, r) + mix_time(a_time, r)) / 2 + i * r
        else:
            r = mix_space(with_residual(a_space, parts), r)
            r = mix_time(with_residual(a_time, parts), r)
    return r


def mix_space(weights, r):
    return torch.einsum("b t i j, b t j n -> b t i n", weights, r)


def mix_time(weights, r):
    return torch.einsum("b s i j, b j s n -> b i s n", weights, r)


def to_voxels(model, scores):
    """Spreads a score a token over the voxels of its tubelet: [B, T', S] -> [B, T, H, W].

    Voxels that no tubelet covers (remainder="crop") get 0. Frames count for the whole stretch they stand for.
    """
    n_t, n_h, n_w = model.embedding.grid
    t, h, w = model.embedding.tubelet
    _, *size = model.config.clip_shape
    blocks = repeat(scores, "b i (j k) -> b (i t) (j h) (k w)", j=n_h, k=n_w, t=t, h=h, w=w)
    voxels = blocks.new_zeros(len(scores), *size)
    covered = tuple(slice(min(full, part)) for full, part in zip(size, blocks.shape[1:]))
    voxels[(slice(None), *covered)] = blocks[(slice(None), *covered)]
    return voxels
