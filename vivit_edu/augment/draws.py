"""What every operation on a batch of clips is built on: the checks of its input, and its random numbers.

A draw is made on the generator's device and moved to the clips. A generator on the clips' device moves nothing; one
on the CPU gives the same draws whatever the device. Neither waits for the device: no value is read back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import TypeVar, cast

import torch

from ..errors import ConfigError

Strength = float | torch.Tensor  # a number, or one for each clip, [B]
Operation = TypeVar("Operation", bound=Callable[..., torch.Tensor])

# the most of each strength that makes sense
MOST = {
    "shift": 0.5,
    "rotate": 180.0,
    "scale": 0.99,
    "shear": 0.99,
    "elastic": 0.1,
    "gain": 100.0,
    "bias": 1.0,
    "gamma": 100.0,
    "blur": 100.0,
    "noise": 100.0,
    "erase": 1.0,
    "mixup": 100.0,
    "cutmix": 100.0,
    "smoothing": 1.0,
    "rand_layers": 11,
    "rand_magnitude": 30.0,
}
LEAST_ALPHA = 0.01  # below it the numbers that Beta(α, α) is drawn from vanish in float32, and every λ becomes 1/2


def check_batch(clips: torch.Tensor, generator: torch.Generator | None = None, **strengths: Strength) -> None:
    """Raise ConfigError unless clips are uint8 or float [B, C, T, H, W] and each strength is in its range."""
    if not isinstance(clips, torch.Tensor):
        raise ConfigError(f"clips are a tensor [B, C, T, H, W], got {type(clips).__name__}: torch.as_tensor makes one")
    if clips.ndim != 5:
        raise ConfigError(
            f"clips of shape {tuple(clips.shape)} were given: augmentation needs "
            "[B, C, T, H, W]; add the missing axes, for example volumes[:, None]"
        )
    if clips.numel() == 0:
        raise ConfigError(f"clips of shape {tuple(clips.shape)} were given: there is nothing in them to augment")
    if not (clips.dtype == torch.uint8 or clips.is_floating_point()):
        raise ConfigError(f"clips of type {clips.dtype} were given: they must be uint8 in 0..255 or floats in [0, 1]")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ConfigError(f"generator is a torch.Generator, got {generator!r}: torch.Generator().manual_seed(0) is one")
    for name, strength in strengths.items():
        if not isinstance(strength, torch.Tensor):
            check_strengths(**{name: strength})
            continue
        if strength.shape not in ((), (len(clips),)):
            raise ConfigError(
                f"{name} of shape {tuple(strength.shape)} was given for {len(clips)} clips: "
                f"a strength is a number, or one for each clip, [{len(clips)}]"
            )
        on_host = strength.device.type == "cpu"  # elsewhere a look at the values would wait for the device
        if on_host and not ((strength >= 0) & (strength <= MOST[name])).all():
            raise ConfigError(f"{name}={strength.tolist()} was given: each must lie in 0..{MOST[name]:g}; 0 is off")


def check_strengths(**strengths: float) -> None:
    """Raise ConfigError unless each strength is a plain number from 0 to its MOST."""
    for name, strength in strengths.items():
        if type(strength) not in (int, float) or not 0 <= strength <= MOST[name]:  # NaN is nowhere in between
            raise ConfigError(
                f"{name}={strength!r} was given: it must be a plain number in 0..{MOST[name]:g}; 0 turns it off"
            )
        if name in ("mixup", "cutmix") and 0 < strength < LEAST_ALPHA:
            raise ConfigError(f"{name}={strength!r} was given: take at least {LEAST_ALPHA}, or 0 to turn it off")


def checked(operation: Operation) -> Operation:
    """Give an operation its door: called by its name it checks its input first, `inspect.unwrap` gives it without."""

    @wraps(operation)
    def door(clips: torch.Tensor, strength: Strength, generator: torch.Generator) -> torch.Tensor:
        check_batch(clips, generator, **{operation.__name__: strength})
        return operation(clips, strength, generator)

    return cast(Operation, door)


def checked_by_name(operation: Operation) -> Operation:
    """Check the clips and the strengths, which are given by their names, before the operation (clips, generator, …).

    What is checked already goes past it: `inspect.unwrap(operation)`.
    """
    names = signature(operation)

    @wraps(operation)
    def with_checks(clips: torch.Tensor, generator: torch.Generator, **strengths: Strength) -> torch.Tensor:
        names.bind(clips, generator, **strengths)  # a name that it does not have is Python's error, as ever
        check_batch(clips, generator, **strengths)
        return operation(clips, generator, **strengths)

    return cast(Operation, with_checks)


def to_float(clips: torch.Tensor) -> torch.Tensor:
    """Turn uint8 in 0..255 into float32 in [0, 1]; floats become float32."""
    return clips.float() / 255 if clips.dtype == torch.uint8 else clips.float()


def uniform(
    low: Strength, high: Strength, shape: tuple[int, ...], clips: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw numbers in [low, high), float32 of the shape given, on the clips' device. Bounds may be tensors [B]."""
    low, high = per_clip(low, len(shape)), per_clip(high, len(shape))
    return low + (high - low) * _to(torch.rand(shape, generator=generator, device=generator.device), clips)


def normal(shape: tuple[int, ...], clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw standard normal numbers, float32 of the shape given, on the clips' device."""
    return _to(torch.randn(shape, generator=generator, device=generator.device), clips)


def beta(alpha: float, clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw λ ~ Beta(α, α) for each clip, [B]; for α = 0, which is off, λ is 1."""
    if alpha == 0:
        return torch.ones(len(clips), device=clips.device)
    # torch.distributions.Beta takes no generator; the operator under it does
    both = torch.full((len(clips), 2), float(alpha), device=generator.device)
    return _to(torch._sample_dirichlet(both, generator)[:, 0], clips)


def boxes(spans: list[tuple[torch.Tensor, torch.Tensor]], clips: torch.Tensor) -> torch.Tensor:
    """Mark one box in each clip: bool [B, 1, T, H, W], True inside.

    spans: for each of the axes T, H and W the first voxel of the boxes and the first one after them, [B] each; what
    lies outside the clip is cut off.
    """
    inside = torch.ones(len(clips), 1, 1, 1, 1, dtype=torch.bool, device=clips.device)
    for axis, (start, stop) in enumerate(spans):
        place = torch.arange(clips.shape[2 + axis], device=clips.device)
        along = (start[:, None] <= place) & (place < stop[:, None])  # [B, size]
        inside = inside & along.reshape(len(clips), 1, *(len(place) if a == axis else 1 for a in range(3)))
    return inside


def per_clip(strength: Strength, ndim: int) -> Strength:
    """Turn a strength [B] into [B, 1, ...], to meet a tensor of `ndim` axes; a number passes."""
    if isinstance(strength, torch.Tensor) and strength.ndim == 1:
        return strength.reshape(-1, *[1] * (ndim - 1))
    return strength


def _to(draws: torch.Tensor, clips: torch.Tensor) -> torch.Tensor:
    # only towards the device may a copy go unwaited for: the host could read one that is not there yet
    return draws.to(clips.device, non_blocking=clips.is_cuda)
