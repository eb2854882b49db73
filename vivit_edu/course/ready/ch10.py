"""Chapter 10, pretrained initialisation: what its exercises build, finished."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from .registry import builds


@builds("10.1")
def average_frames(filters: torch.Tensor, t: int) -> torch.Tensor:
    """[D, C, ph, pw] -> [D, C, pt, ph, pw], a t-th of the filter on every frame"""
    return repeat(filters / t, "d c h w -> d c t h w", t=t)


@builds("10.1")
def central_frame(filters: torch.Tensor, t: int) -> torch.Tensor:
    """[D, C, ph, pw] -> [D, C, pt, ph, pw], the filter on frame ⌊t/2⌋ and zeros elsewhere"""
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[:, :, t // 2] = filters
    return inflated


@builds("10.2")
def repeat_positions(positions: torch.Tensor, nt: int) -> torch.Tensor:
    """[1, 1 + S, D] -> [1, nt·S, D]"""
    return repeat(positions[:, 1:], "1 s d -> 1 (t s) d", t=nt)


@builds("10.3")
def resize_grid(positions: torch.Tensor, old: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    """[1, S, D] of a grid old = (nh, nw) -> [1, S', D] of a grid new = (nh', nw')"""
    picture = rearrange(positions, "1 (nh nw) d -> 1 d nh nw", nh=old[0])
    resized = F.interpolate(picture, size=tuple(new), mode="bilinear")
    return rearrange(resized, "1 d nh nw -> 1 (nh nw) d")


@builds("10.4")
def surgery(
    image: Mapping[str, torch.Tensor], video: Mapping[str, torch.Tensor], inflate: Callable
) -> dict[str, torch.Tensor]:
    """An image transformer's tensors in the shapes of Model 1's: a new state dict with the names of `video`"""
    filled = {}
    for name, ours in video.items():
        theirs = image.get(name)
        if theirs is None:
            filled[name] = ours
        elif theirs.shape == ours.shape:
            filled[name] = theirs
        elif name == "positions":
            filled[name] = repeat(theirs, "1 s d -> 1 (t s) d", t=ours.shape[1] // theirs.shape[1])
        else:
            filled[name] = inflate(theirs, ours.shape[2])
    return filled


@builds("10.5")
@torch.no_grad()
def fill_block(block: nn.Module, image_block: nn.Module) -> None:
    """In place: Model 3's block computes what the image model's block does for each time index, and can learn"""
    block.norm_space.load_state_dict(image_block.norm_attention.state_dict())
    block.space_attention.load_state_dict(image_block.attention.state_dict())
    block.norm_mlp.load_state_dict(image_block.norm_mlp.state_dict())
    block.mlp.load_state_dict(image_block.mlp.state_dict())
    block.time_attention.out.weight.zero_()
    block.time_attention.out.bias.zero_()


def pooled(model: nn.Module, clips: torch.Tensor) -> torch.Tensor:
    """The mean token after the encoder of Model 1 or of an image transformer: clips [B, C, T, H, W] -> [B, D]"""
    tokens = rearrange(model.embedding(clips), "b nt s d -> b (nt s) d")
    return model.encoder(tokens + model.positions).mean(dim=1)


@builds("10.6")
@torch.no_grad()
def faithful(load: Callable, model: nn.Module, image_model: nn.Module) -> bool:
    """Whether load(model, image_model) makes a video model that sees in a still clip what the image model sees"""
    model, image_model = copy.deepcopy(model).eval(), copy.deepcopy(image_model).eval()
    for parameter in (*model.parameters(), *image_model.parameters()):
        parameter.normal_(std=0.2)
    load(model, image_model)
    pictures = torch.rand(4, *image_model.config.clip_shape)  # [B, C, 1, H, W]
    still = pictures.expand(-1, -1, model.config.clip_shape[1], -1, -1)
    return torch.allclose(pooled(model, still), pooled(image_model, pictures), rtol=1e-3, atol=1e-3)


@builds("10.7")
def fold_normalisation(
    weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Filters [D, 3, ph, pw] and biases [D] for pictures in [0, 1] from those for normalised ones"""
    folded = weight / std[:, None, None]
    return folded, bias - (folded * mean[:, None, None]).sum(dim=(1, 2, 3))
