"""Where the voxels are: shift, rotation, scale, shear and elastic bending of a batch, in one resampling.

Clips are [B, C, T, H, W], and outside them is 0: the empty part of a mask, and air in a CT crop. An axis of one voxel
stays as it is, so that a film whose frames are folded into its channels, [B, C·T, 1, H, W], is moved within the frame
only, and all frames alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange

from .draws import Strength, checked_by_name, normal, per_clip, to_float, uniform

KNOTS = 4  # of the coarse lattice along each axis: few, so that it bends organs and does not tear them


@checked_by_name
def warp(
    clips: torch.Tensor,
    generator: torch.Generator,
    *,
    shift: Strength = 0.0,
    rotate: Strength = 0.0,
    scale: Strength = 0.0,
    shear: Strength = 0.0,
    elastic: Strength = 0.0,
) -> torch.Tensor:
    """Move, turn, zoom, shear and bend each clip, all at once: each further resampling would blur it more.

    clips: uint8 or float [B, C, T, H, W]. shift: most of each axis to move by, up to 0.5, in whole voxels. rotate:
    most degrees about each of the three axes, up to 180. scale: a zoom by a factor in 1 ± scale, the same for all
    axes. shear: most voxels along one axis for each voxel along another. elastic: standard deviation of a smooth
    random displacement, as a part of each axis, up to 0.1. All are numbers or one for each clip, [B]; 0 is off.

    Returns float32 [B, C, T, H, W]; with `shift` alone the voxels themselves, in their own type.
    """
    batch, sizes = len(clips), clips.shape[2:]
    part = uniform(-shift, shift, (batch, 3), clips, generator)
    offset = torch.stack([(part[:, axis] * size).round() for axis, size in enumerate(sizes)], dim=1)  # [B, 3]
    if not any(isinstance(value, torch.Tensor) or value for value in (rotate, scale, shear, elastic)):
        return move(clips, offset)
    matrix = rotations(uniform(-rotate, rotate, (batch, 3), clips, generator), sizes)
    matrix = matrix @ shears(uniform(-shear, shear, (batch, 3, 3), clips, generator), sizes)
    matrix = matrix * uniform(1 - scale, 1 + scale, (batch, 1, 1), clips, generator)
    bend = normal((batch, KNOTS, KNOTS, KNOTS, 3), clips, generator) * per_clip(elastic, 5)
    return resample(clips, matrix, offset, bend)


def move(clips: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """Move each clip by whole voxels, with 0 where nothing came from.

    clips: [B, C, T, H, W] of any type. offset: [B, 3] along T, H, W, at most half an axis. Returns the same shape and
    type.
    """
    sizes = clips.shape[2:]
    room = [size // 2 for size in sizes]
    padded = F.pad(clips, [r for r in reversed(room) for _ in range(2)])
    places = padded.unfold(2, sizes[0], 1).unfold(3, sizes[1], 1).unfold(4, sizes[2], 1)  # a view
    t, h, w = (r - offset[:, axis].long() for axis, r in enumerate(room))
    return places[torch.arange(len(clips), device=clips.device), :, t, h, w]  # [B, C, T, H, W]


def resample(
    clips: torch.Tensor, matrix: torch.Tensor, offset: torch.Tensor, bend: torch.Tensor | None = None
) -> torch.Tensor:
    """Take the voxel at p, counted from the clip's centre in the order T, H, W, to matrix · p + offset.

    clips: [B, C, T, H, W]. matrix: [B, 3, 3]. offset: [B, 3], in voxels. bend: displaces, linearly in between, where
    the voxels at the knots are taken from, in parts of each axis: [B, KNOTS, KNOTS, KNOTS, 3], or None.

    Returns float32 [B, C, T, H, W], interpolated linearly.
    """
    # grid_sample asks where each voxel comes from: p = matrix⁻¹ · (q - offset). (inv would wait for a check.)
    back = torch.linalg.inv_ex(matrix).inverse
    start = -back @ offset[:, :, None]  # [B, 3, 1]
    # its units run from -1 to 1 between the outer voxels of an axis, and its order is W, H, T
    half = torch.tensor([max(size - 1, 1) / 2 for size in clips.shape[2:]])
    half = half.to(clips.device, non_blocking=True)
    theta = torch.cat([(back * half).flip(2), start], dim=2) / half[:, None]
    lattice = F.affine_grid(theta.flip(1), (len(clips), 1, KNOTS, KNOTS, KNOTS), align_corners=True)
    if bend is not None:
        lattice = lattice + 2 * bend.flip(-1)
    grid = _between_knots(lattice, clips.shape[2:])  # [B, T, H, W, 3]
    return F.grid_sample(to_float(clips), grid, padding_mode="zeros", align_corners=True)


def rotations(angles: torch.Tensor, sizes: Sequence[int] = (2, 2, 2)) -> torch.Tensor:
    """Return turns about the axes T, then H, then W by angles [B, 3] in degrees: matrices [B, 3, 3], order T, H, W.

    A positive angle about T takes the H axis towards the W axis. Nothing turns in a plane in which an axis has one
    voxel; sizes: voxels along T, H, W.
    """
    turn = _identity(angles)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        if min(sizes[i], sizes[j]) > 1:
            angle, plane = torch.deg2rad(angles[:, axis]), _identity(angles)
            plane[:, i, i] = plane[:, j, j] = angle.cos()
            plane[:, i, j], plane[:, j, i] = -angle.sin(), angle.sin()
            turn = plane @ turn
    return turn


def shears(slants: torch.Tensor, sizes: Sequence[int] = (2, 2, 2)) -> torch.Tensor:
    """Return matrices [B, 3, 3] that move slants[b, i, j] voxels along axis i for each voxel along axis j."""
    matrix = _identity(slants)
    for i in range(3):
        for j in range(3):
            if i != j and min(sizes[i], sizes[j]) > 1:
                matrix[:, i, j] = slants[:, i, j]
    return matrix


def _between_knots(lattice: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Linear between the knots, [B, KNOTS, KNOTS, KNOTS, 3] -> [B, T, H, W, 3]: exact for an affine map.

    Three small products with the weights of each axis; F.interpolate does the same, thirty times slower.
    """
    knots = torch.eye(KNOTS, device=lattice.device)[None]
    t, h, w = (F.interpolate(knots, size=size, mode="linear", align_corners=True)[0].T for size in sizes)
    lines = w @ rearrange(lattice, "b i j k a -> (b i j) k a")
    planes = h @ rearrange(lines, "(b i j) w a -> (b i) j (w a)", i=KNOTS, j=KNOTS)
    grid = t @ rearrange(planes, "(b i) h (w a) -> b i (h w a)", i=KNOTS, a=3)
    return rearrange(grid, "b t (h w a) -> b t h w a", h=sizes[1], a=3)


def _identity(like: torch.Tensor) -> torch.Tensor:
    return torch.eye(3, device=like.device).repeat(len(like), 1, 1)  # [B, 3, 3]
