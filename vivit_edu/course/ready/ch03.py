"""Chapter 03, tubelet embedding: what its exercises build, finished."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import nn

from .registry import builds


@builds("03.1")
def cut_by_loops(clip: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """[C, T, H, W] -> tubelets [N, C·pt·ph·pw]"""
    pt, ph, pw = tubelet
    boxes = []
    for t in range(0, clip.shape[1], pt):
        for y in range(0, clip.shape[2], ph):
            for x in range(0, clip.shape[3], pw):
                boxes.append(clip[:, t : t + pt, y : y + ph, x : x + pw].flatten())
    return torch.stack(boxes)


@builds("03.1")
def cut(clips: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """[B, C, T, H, W] -> tubelets [B, nt, S, C·pt·ph·pw]"""
    pt, ph, pw = tubelet
    pattern = "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)"
    return rearrange(clips, pattern, pt=pt, ph=ph, pw=pw)


@builds("03.1")
def join(tubelets: torch.Tensor, grid: Sequence[int], tubelet: Sequence[int]) -> torch.Tensor:
    """Tubelets [B, nt, S, C·pt·ph·pw] -> [B, C, T, H, W]"""
    (_, nh, nw), (pt, ph, pw) = grid, tubelet
    pattern = "b nt (nh nw) (c pt ph pw) -> b c (nt pt) (nh ph) (nw pw)"
    return rearrange(tubelets, pattern, nh=nh, nw=nw, pt=pt, ph=ph, pw=pw)


@builds("03.2")
def project(tubelets: torch.Tensor, E: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Tubelets [B, nt, S, V], E [D, V] and b [D] -> tokens [B, nt, S, D]"""
    return tubelets @ E.T + b


@builds("03.2")
def as_filters(E: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """E [D, C·pt·ph·pw] -> the filters of a 3D convolution [D, C, pt, ph, pw]"""
    pt, ph, pw = tubelet
    return rearrange(E, "d (c pt ph pw) -> d c pt ph pw", pt=pt, ph=ph, pw=pw)


@builds("03.3")
class MyTubeletEmbedding(nn.Module):
    """Clips [B, C, T, H, W] -> tokens [B, nt, S, D]"""

    def __init__(self, clip_shape: Sequence[int], dim: int, tubelet: Sequence[int]):
        super().__init__()
        channels, *size = clip_shape
        if any(n % p for n, p in zip(size, tubelet)):
            raise ValueError(f"tubelets of {tuple(tubelet)} do not tile a clip of {tuple(size)} voxels")
        self.grid = tuple(n // p for n, p in zip(size, tubelet))
        self.projection = nn.Conv3d(channels, dim, kernel_size=tuple(tubelet), stride=tuple(tubelet))

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return rearrange(self.projection(clips), "b d nt nh nw -> b nt (nh nw) d")


@builds("03.4")
def rebuild(
    tokens: torch.Tensor, E: torch.Tensor, b: torch.Tensor, grid: Sequence[int], tubelet: Sequence[int]
) -> torch.Tensor:
    """Tokens [B, nt, S, D] -> clips [B, C, T, H, W], as well as a linear map can"""
    return join((tokens - b) @ torch.linalg.pinv(E).T, grid, tubelet)


@builds("03.5")
def cut_frames(clips: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """[B, C, T, H, W] -> the patches of one frame out of every pt, [B, nt, S, C·ph·pw]"""
    pt, ph, pw = tubelet
    frames = clips[:, :, pt // 2 :: pt]  # [B, C, nt, H, W]
    return rearrange(frames, "b c nt (nh ph) (nw pw) -> b nt (nh nw) (c ph pw)", ph=ph, pw=pw)


@builds("03.6")
def voxels_read(embedding: nn.Module, clip: torch.Tensor, t: int, s: int) -> torch.Tensor:
    """Which voxels of a clip [C, T, H, W] the token at (t, s) depends on: bool [C, T, H, W]"""
    probe = clip.detach().clone().requires_grad_()
    token = embedding(probe[None])[0, t, s]  # [D]
    (gradient,) = torch.autograd.grad(token.sum(), probe)
    return gradient != 0


@builds("03.6")
def reads_its_boxes(embedding: nn.Module, clip_shape: Sequence[int], tubelet: Sequence[int]) -> bool:
    """Whether each token reads every voxel of its own tubelet and no other voxel"""
    clip = torch.rand(*clip_shape)
    _, nt, places, _ = embedding(clip[None]).shape
    for t in range(nt):
        for s in range(places):
            read = cut(voxels_read(embedding, clip, t, s)[None], tubelet)[0]  # [nt, S, V]
            if not read[t, s].all() or read.sum() > read[t, s].sum():
                return False
    return True


@builds("03.7")
class LearnedPositions(nn.Module):
    """Tokens [B, nt, S, D] -> the same shape, each with the vector of its place added"""

    def __init__(self, nt: int, places: int, dim: int):
        super().__init__()
        self.p = nn.Parameter(0.02 * torch.randn(1, nt, places, dim))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.p


@builds("03.7")
def similarity_map(positions: torch.Tensor, grid: Sequence[int], place: Sequence[int]) -> torch.Tensor:
    """Positions [N, D], grid (nt, nh, nw) and a place (t, row, column) in it -> cosines [nt, nh, nw]"""
    directions = positions / positions.norm(dim=-1, keepdim=True)
    volume = directions.view(*grid, -1)  # [nt, nh, nw, D]
    return volume @ volume[tuple(place)]
