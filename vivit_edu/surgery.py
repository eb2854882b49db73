"""An image transformer's weights made to fit a video transformer: inflated, resized, reordered (section 3.4).

Each function takes and returns tensors and knows nothing of models or files. Built by hand in chapter 10.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat

from .errors import CheckpointError


def inflate(filters, t, method):
    """2D filters [D, C, h, w] as tubelet filters [D, C, t, h, w]: on the central frame, or a t-th on each."""
    if method == "average":
        return repeat(filters / t, "d c h w -> d c t h w", t=t)
    inflated = filters.new_zeros(*filters.shape[:2], t, *filters.shape[2:])
    inflated[:, :, t // 2] = filters
    return inflated


def sum_colours(filters, channels):
    """Filters of three colours [D, 3, …] for clips of one channel: their sum [D, 1, …].

    It answers to a grey clip as the three do to the same grey in all colours. Other filters are returned as
    they are.
    """
    return filters.sum(dim=1, keepdim=True) if (filters.shape[1], channels) == (3, 1) else filters


def resize_filters(filters, size):
    """Patch filters [..., h, w] for patches of another size, by the pseudo-inverse of the image's resizing.

    Let B resize a patch x to Bx. The new filter is to answer to Bx as the old one w does to x: Bᵀŵ = w, so
    ŵ = (Bᵀ)⁺w, exact where the patch grows, the best fit where it shrinks (Beyer et al. 2023, FlexiViT).
    """
    h, w = filters.shape[-2:]
    if [h, w] == list(size):
        return filters
    pixels = rearrange(torch.eye(h * w), "n (h w) -> n 1 h w", h=h)  # one image for each pixel
    b_transposed = F.interpolate(pixels, size=list(size), mode="bicubic", antialias=True).flatten(1)  # [h·w, h'·w']
    inverse = torch.linalg.pinv(b_transposed.double()).float()  # [h'·w', h·w]
    resized = filters.flatten(-2) @ inverse.T
    return resized.unflatten(-1, list(size))


def resize_positions(positions, grid):
    """Positions of a square grid of patches [1, N, D], interpolated to a grid (n_h, n_w): [1, n_h·n_w, D].

    Bicubic and smoothed where the grid shrinks, as timm does it. The same tensor where the grid is the same.
    """
    side = math.isqrt(positions.shape[1])
    square = side * side == positions.shape[1]
    if [side, side] == list(grid) or (not square and positions.shape[1] == math.prod(grid)):
        return positions
    if not square or not side:
        raise CheckpointError(
            f"{positions.shape[1]} positions make no square grid of patches, so they cannot be resized"
        )
    image = rearrange(positions, "1 (h w) d -> 1 d h w", h=side)
    image = F.interpolate(image, size=list(grid), mode="bicubic", antialias=True)
    return rearrange(image, "1 d h w -> 1 (h w) d")


def swap_halves(tensor, name):
    """Exchanges the first and the second half of the heads in `attention.qkv` or `attention.out.weight`."""
    if name.endswith("out.weight"):  # heads lie along the columns
        return torch.cat(tensor.chunk(2, dim=1)[::-1], dim=1)
    q_k_v = [torch.cat(part.chunk(2)[::-1]) for part in tensor.chunk(3)]  # and along the rows
    return torch.cat(q_k_v)
