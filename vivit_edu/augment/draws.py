"""What every operation on a batch of clips stands on: the checks of its input and its random numbers.

A draw is made on the generator's device and moved to the clips. A generator on the clips' device moves
nothing; one on the CPU gives the same draws whatever the device. Neither waits for the device, for no value
is read back.
"""

import torch

from ..errors import ConfigError

# the most of each strength that makes sense; no limit where none is named
MOST = {
    "shift": 0.5,
    "scale": 0.99,
    "shear": 0.99,
    "elastic": 0.1,
    "erase": 1.0,
    "smoothing": 1.0,
    "rand_layers": 11,
    "rand_magnitude": 30,
}


def check(clips, **strengths):
    """Raises ConfigError unless clips are uint8 or float [B, C, T, H, W] each strength in its range."""
    if clips.ndim != 5:
        raise ConfigError(
            f"clips of shape {tuple(clips.shape)} were given: augmentation needs "
            "[B, C, T, H, W]; add the missing axes, for example volumes[:, None]"
        )
    if not (clips.dtype == torch.uint8 or clips.is_floating_point()):
        raise ConfigError(f"clips of type {clips.dtype} were given: they must be uint8 in 0..255 or floats in [0, 1]")
    check_strengths(**strengths)


def check_strengths(**strengths):
    """Raises ConfigError unless 0 <= strength <= MOST. Tensors pass: reading one would wait for it."""
    for name, strength in strengths.items():
        most = MOST.get(name, float("inf"))
        if isinstance(strength, torch.Tensor):
            continue
        if not isinstance(strength, (int, float)) or not 0 <= strength <= most:
            raise ConfigError(f"{name}={strength!r} was given: it must lie in 0..{most:g}; 0 turns it off")


def to_float(clips):
    """uint8 in 0..255 to float32 in [0, 1]; floats pass as float32."""
    return clips.float() / 255 if clips.dtype == torch.uint8 else clips.float()


def uniform(low, high, shape, clips, generator):
    """Numbers in [low, high), float32 of the shape given, on the clips' device. Bounds may be tensors [B]."""
    low, high = per_clip(low, len(shape)), per_clip(high, len(shape))
    return low + (high - low) * _to(torch.rand(shape, generator=generator, device=generator.device), clips)


def normal(shape, clips, generator):
    """Standard normal numbers, float32 of the shape given, on the clips' device."""
    return _to(torch.randn(shape, generator=generator, device=generator.device), clips)


def beta(alpha, clips, generator):
    """λ ~ Beta(α, α), one a clip: [B]."""
    if alpha == 0:  # the limit: all of the one or all of the other; here none of the other
        return torch.ones(len(clips), device=clips.device)
    # torch.distributions.Beta takes no generator; the operator under it does
    both = torch.full((len(clips), 2), float(alpha), device=generator.device)
    return _to(torch._sample_dirichlet(both, generator)[:, 0], clips)


def random_boxes(clips, edges, generator):
    """A box a clip, somewhere in it and cut off at the border; True inside, bool [B, 1, T, H, W].

    edges [B]: the box's edges as parts of each axis. An axis of one voxel is spanned whatever the edge.
    """
    inside = torch.ones(len(clips), 1, 1, 1, 1, dtype=torch.bool, device=clips.device)
    for axis, size in enumerate(clips.shape[2:]):
        centre = uniform(0, size, (len(clips), 1), clips, generator).floor()  # [B, 1]
        half = (edges[:, None] * size / 2).floor()
        place = torch.arange(size, device=clips.device)
        along = (centre - half <= place) & (place < centre + half) | (size == 1)  # [B, size]
        inside = inside & along.reshape(len(clips), 1, *(size if a == axis else 1 for a in range(3)))
    return inside


def per_clip(strength, ndim):
    """A strength [B] made [B, 1, ...], to meet a tensor of ndim axes; a number passes."""
    is_batch = isinstance(strength, torch.Tensor) and strength.ndim == 1
    return strength.reshape(-1, *[1] * (ndim - 1)) if is_batch else strength


def _to(draws, clips):
    # only towards the device may a copy go unwaited for: the host could read one that is not there yet
    return draws.to(clips.device, non_blocking=clips.is_cuda)
