"""Chapter 13, attention maps: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat

from ...explain import attention_maps
from .registry import builds

if TYPE_CHECKING:
    from ...vivit import SpaceTime, ViViT


@builds("13.1")
def my_weights(model: SpaceTime, clips: torch.Tensor) -> list[torch.Tensor]:
    """Model 1 and clips [B, C, T, H, W] -> the weights [B, heads, N, N] of each block, first block first"""
    found = []

    def look(attention, inputs):  # called just before an attention runs, with what goes into it
        qkv = attention.qkv(inputs[0])  # [B, N, 3·D]
        q, k, _ = rearrange(qkv, "b n (three heads d) -> three b heads n d", three=3, heads=attention.heads)
        found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1))  # [B, heads, N, N]

    hooks = [block.attention.register_forward_pre_hook(look) for block in model.encoder.blocks]
    model(clips)
    for hook in hooks:
        hook.remove()
    return found


@builds("13.2")
def my_rollout(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention [B, heads, N, N] of each layer -> rollout [B, N, N]"""
    eye = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    r = eye.expand(len(layers[0]), -1, -1)
    for weights in layers:
        r = (weights.mean(dim=1) + eye) / 2 @ r
    return r


@builds("13.3")
def my_lift(weights: torch.Tensor, kind: str, nt: int, s: int) -> torch.Tensor:
    """Attention of one kind, as an AttentionMap has it -> the mean over heads among all tokens, [B, N, N]"""
    a = weights.mean(dim=-3)  # over the heads
    lifted = a.new_zeros(len(a), nt, s, nt, s)
    if kind == "space":  # a [B, nt, S, S]: from place to place, within a time index
        for t in range(nt):
            lifted[:, t, :, t] = a[:, t]
    elif a.ndim == 4:  # a [B, S, nt, nt]: from time to time, at one place
        for place in range(s):
            lifted[:, :, place, :, place] = a[:, place]
    else:  # Model 2, a [B, nt, nt]: a time index stands for the mean of its S tokens
        lifted += a[:, :, None, :, None] / s
    return lifted.reshape(len(a), nt * s, nt * s)


@builds("13.3")
def my_layers(model: ViViT, clips: torch.Tensor) -> list[torch.Tensor]:
    """Models 2 to 4 and clips -> the matrices [B, 1, N, N] that follow each other, first layer first"""
    lifted = [my_lift(m.weights, m.kind, *model.grid)[:, None] for m in attention_maps(model, clips)]
    if model.attention_halves:  # Model 4: both kinds share the heads of one layer
        return [(space + time) / 2 for space, time in zip(lifted[::2], lifted[1::2])]
    return lifted


@builds("13.4")
def my_relevance(layers: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Attention and its gradients, [B, heads, N, N] of each layer -> relevance [B, N, N]"""
    r = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    for weights, gradient in zip(layers, gradients):
        product = (gradient * weights).clamp(min=0).mean(dim=1)  # [B, N, N]
        r = r + product @ r
    return r


@builds("13.5")
def forgets_itself(rollout: Callable) -> bool:
    """A rollout of layers -> whether it leaves out the residual connection"""
    others = (1 - torch.eye(3)) / 2  # each of three tokens reads the two others, and not itself
    return bool((rollout([others[None, None]])[0].diagonal() == 0).all())


@builds("13.5")
def blind_to_class(method: Callable, model: ViViT, clips: torch.Tensor) -> bool:
    """A method(model, clips, classes) -> whether its maps are the same for every class"""
    maps = [method(model, clips, [k] * len(clips)) for k in range(model.config.num_classes)]
    return all(torch.allclose(scores, maps[0]) for scores in maps)


@builds("13.6")
def my_point(model: ViViT, clip: torch.Tensor, scores: torch.Tensor, k: int, label: int) -> torch.Tensor:
    """A clip [1, C, T, H, W], scores [nt, S] -> the probability of class `label` with the k best tubelets grey"""
    (nt, nh, nw), (pt, ph, pw) = model.embedding.grid, model.embedding.tubelet
    gone = torch.zeros(nt * nh * nw, dtype=torch.bool)
    gone[scores.flatten().argsort(descending=True)[:k]] = True
    gone = gone.view(nt, nh, nw)
    gone = repeat(gone, "nt nh nw -> (nt pt) (nh ph) (nw pw)", pt=pt, ph=ph, pw=pw)  # [T, H, W]
    grey = clip.mean(dim=(2, 3, 4), keepdim=True)  # [1, C, 1, 1, 1]
    return model(torch.where(gone, grey, clip)).softmax(dim=-1)[0, label]
