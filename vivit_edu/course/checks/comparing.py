"""What a check compares: what was returned, with what was expected and with what the likely mistakes give."""

from __future__ import annotations

import re
from typing import Any

import torch

from .calling import CheckFailed


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal random numbers from a generator of their own: a check leaves the reader's random state alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def kind(value: Any) -> str:
    """What was returned, for a message: "None: …", "a list"."""
    return "None: does your function end in `return ...`?" if value is None else one_of(type(value).__name__)


def one_of(name: str) -> str:
    """A name with its article: "a list", "an int"."""
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def does(what: str, one: str = "is", several: str = "are") -> str:
    """What a message speaks of, with the verb that fits: "the result is", "the logits of clip 0 are"."""
    noun = re.split(r" of | for | on | with | after |, ", what)[0].rpartition(" ")[2]
    plural = noun.endswith("s") and not noun.endswith(("ss", "is", "us", "as")) and "_" not in noun
    return f"{what} {several if plural else one}"


def number(found: Any, what: str, hint: str = "") -> float:
    """What was returned, as a number: Python's, numpy's, or a tensor that holds one. hint: added where it is not one.

    Raises CheckFailed where it is something else.
    """
    value = found.item() if getattr(found, "size", None) == 1 or _one_value(found) else found
    if isinstance(value, (list, tuple)) or hasattr(value, "__len__") and not isinstance(value, (str, dict)):
        raise CheckFailed(f"{does(what)} {len(value)} numbers, expected one{hint}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckFailed(f"{does(what)} {kind(value)}{'' if value is None else f', expected one number{hint}'}")
    return value


def _one_value(found):
    return isinstance(found, torch.Tensor) and found.numel() == 1


def flag(found: Any, what: str) -> bool:
    """What was returned, as True or False: Python's, numpy's, or a tensor that holds one."""
    value = found.item() if getattr(found, "size", None) == 1 or _one_value(found) else found
    if not isinstance(value, bool):
        raise CheckFailed(f"{what} must be True or False, got {kind(value)}")
    return value


def pair(returned: Any, what: str) -> tuple[Any, Any]:
    """The two things that a function returns together, as a tuple, a list or one tensor. what: "context, fovea"."""
    if isinstance(returned, (tuple, list, torch.Tensor)) and len(returned) == 2:
        first, second = returned
        return first, second
    parts = f"{len(returned)} parts" if isinstance(returned, (tuple, list)) else kind(returned)
    raise CheckFailed(f"expected two things{returning(what)}; your function returned {parts}")


def returning(what: str) -> str:
    """What a function is to return together, for a message: as code, unless these are more than names."""
    return f", `return {what}`" if all(map(str.isidentifier, what.split(", "))) else f": {what}"


def same_shape(found: Any, expected: Any, what: str = "the result") -> None:
    """Fails unless `found` is a tensor of this shape. expected: a shape, or a tensor that has it."""
    expected = list(getattr(expected, "shape", expected))
    if found is None:
        raise CheckFailed(f"{does(what)} {kind(found)}")
    if not isinstance(found, torch.Tensor):
        raise CheckFailed(f"{does(what)} {kind(found)}, expected a tensor of shape {expected}")
    shape = list(found.shape)
    if shape == expected:
        return
    hint = ""
    if sorted(shape) == sorted(expected):
        hint = ": the right axes in another order"
    elif len(shape) != len(expected):
        hint = f": {len(shape)} {'axis' if len(shape) == 1 else 'axes'} instead of {len(expected)}"
    elif found.numel() == torch.Size(expected).numel():
        hint = ": the right number of values, divided differently among the axes"
    raise CheckFailed(f"{does(what, 'has', 'have')} shape {shape}, expected {expected}{hint}")


def close(
    found: Any,
    expected: Any,
    mistakes: dict[str, Any] | None = None,
    what: str = "the result",
    tolerance: float = 1e-5,
) -> None:
    """Fails unless `found` equals `expected`; names the mistake where it equals a mistake's value instead.

    found, expected: tensors or numbers. mistakes: {message: the value that this mistake gives, or a function
    without arguments that computes it}. tolerance: in parts of the largest expected value.
    A wrong shape is reported first, with the mistake that gives this shape and value, if there is one.
    """
    expected = torch.as_tensor(expected)
    if not expected.ndim:
        found = number(found, what)
        found = torch.tensor(found, dtype=expected.dtype if expected.is_floating_point() else None)
    if not isinstance(found, torch.Tensor):
        same_shape(found, expected, what)
    if _equal(found, expected, tolerance):
        return
    named = next((m for m, value in (mistakes or {}).items() if _is_mistake(found, value, tolerance)), None)
    try:
        same_shape(found, expected, what)
    except CheckFailed as failed:
        raise CheckFailed(f"{failed}; {named}" if named else str(failed)) from None
    raise CheckFailed(named or _first_difference(found, expected, what, tolerance))


def _is_mistake(found, value, tolerance):
    try:
        return _equal(found, value() if callable(value) else value, tolerance)
    except (RuntimeError, ValueError, TypeError, IndexError):  # a mistake that these sizes do not allow
        return False


def _near(found, expected, tolerance):
    """Where two tensors of one shape agree: bool. What is not a number agrees with nothing."""
    found, expected = found.detach().double().cpu(), torch.as_tensor(expected).detach().double().cpu()
    scale = expected.abs().max() if expected.numel() else 0
    return (found - expected).abs() <= tolerance * scale


def _equal(found, expected, tolerance):
    return found.shape == torch.as_tensor(expected).shape and bool(_near(found, expected, tolerance).all())


def _first_difference(found, expected, what, tolerance):
    off = ~_near(found, expected, tolerance)
    place = off.nonzero()[0].tolist()
    numbers = f"found {found[tuple(place)].item():.5g}, expected {expected[tuple(place)].item():.5g}"
    if not place:
        return f"{does(what)} wrong: {numbers}"
    return f"{does(what)} wrong in {int(off.sum())} of {off.numel()} values, first at {place}: {numbers}"
