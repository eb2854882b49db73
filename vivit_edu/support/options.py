"""Checks of single options: a wrong one is named where it is given, not where it breaks something.

Each takes the option's name, with which its message begins, and its value, and raises ConfigError where it is wrong.
"""

import math
import os
from collections.abc import Iterable
from numbers import Integral, Real

from ..errors import ConfigError

MOST_BLOCKS = 1000
INFLATIONS = ("central", "average", "random")  # what an image filter becomes in a tubelet; see `load_pretrained`


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """One of the known names."""
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}={value!r} is not known; take one of {', '.join(known)}")


def check_whole(name: str, value: object, least: int) -> None:
    """A whole number, at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a whole number, at least {least}, got {value!r}")
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")


def check_depth(name: str, value: object, least: int) -> None:
    """A number of blocks. Far more than any network has would take hours to build before a message could be given."""
    check_whole(name, value, least)
    if value > MOST_BLOCKS:
        raise ConfigError(f"{name} must be at most {MOST_BLOCKS} blocks, got {value}")


def check_number(name: str, value: object, least: float = 0.0, *, above: bool = False) -> None:
    """A finite number, at least `least`, or above it where `above` is set."""
    fits = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or value < least or (above and value == least):
        raise ConfigError(f"{name} must be {'above' if above else 'at least'} {least:g}, got {value!r}")


def check_share(name: str, value: object) -> None:
    """A share from 0 up to, not including, 1."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= value < 1:
        raise ConfigError(f"{name} is a share from 0 up to (not including) 1, got {value!r}")


def check_path(name: str, value: object, what: str) -> None:
    """The path of something. An empty text, as of a variable that was never set, is not the folder one works in."""
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise ConfigError(f"{name} must be the path of {what}, got {value!r}")


def check_seed(seed: object) -> None:
    """A whole number from 0, small enough for torch to accept the seed of every epoch."""
    check_whole("seed", seed, 0)
    if seed >= 2**32:
        raise ConfigError(f"seed must be below 2**32, got {seed}")


def check_switch(name: str, value: object) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is True or False, got {value!r}")


def check_sizes(name: str, value: object, letters: str) -> None:
    """Positive whole numbers, one for each of the letters: ("clip_shape", (1, 28, 28, 28), "C, T, H, W")."""
    count = len(letters.split(", "))
    whole = isinstance(value, (tuple, list)) and all(isinstance(v, Integral) and not isinstance(v, bool) for v in value)
    if not whole or len(value) != count or min(value) < 1:
        number = {3: "three", 4: "four"}.get(count, count)
        raise ConfigError(f"{name} is {number} positive sizes ({letters}), got {value!r}")
