"""A function of the reader's, run on several cases and held against a reference: values, types, gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .calling import CheckFailed, argument_names, call, call_with_hints, last_call, learns
from .comparing import close, does, flag, kind, returning

DTYPES = {torch.float64: 1e-6, torch.bfloat16: 0.05}  # what else is tried, and how exact it has to be


def examine(
    function: Callable,
    reference: Callable,
    *cases: tuple[Any, ...],
    mistakes: dict[str, Callable] | None = None,
    errors: dict[str, str] | None = None,
    nan: str = "",
    what: str = "the result",
    tolerance: float = 1e-5,
    gradients: bool = True,
    dtypes: Sequence[torch.dtype] = tuple(DTYPES),
    also: Sequence[torch.Tensor] = (),
) -> None:
    """Fails unless function(*case) is what reference(*case) is, for every case, and in every respect.

    reference: the right answer, a function of the same arguments; it runs before the reader's, on copies.
    cases: the arguments of each call. Let sizes differ on every axis and from the notebook's, so that different
    mistakes give different values, and let one case have a single clip (B = 1). The first case is the one that tells
    most: gradients and other types are tried with it.
    mistakes: {message: a function of the same arguments that makes this mistake}. Where the values are those of a
    mistake, its message is shown; a mistake's own errors mean that it cannot be made with these sizes.
    errors: {part of an error's text: what to add to it}, for mistakes that end in an error. nan: what to add where the
    result is nan.
    what: the result, in words; where the reference returns a tuple, all its parts, "context, fovea".
    tolerance: of the values, in parts of the largest expected one.
    gradients: whether a gradient must reach every argument with decimals and every parameter, and be the reference's.
    dtypes: further types of numbers in which the function must work; () for none, where a case holds functions that
    cannot be converted. also: parameters of modules that are no arguments themselves, for the gradients.
    Raises CheckFailed with the first thing that is wrong, and with the arguments of that call.
    """
    for case in cases:
        expected = _expected(reference, case)
        found = call_with_hints(errors or {}, function, *_copies(case))
        values = {message: _lazily(mistake, case) for message, mistake in (mistakes or {}).items()}
        try:
            _compare(found, expected, values, what, tolerance)
        except CheckFailed as failed:
            hint = f"; {nan}" if nan and "found nan" in str(failed) else ""
            raise CheckFailed(f"{failed}{hint}\n{last_call()}{_only_here(cases[0], case)}") from None
    if gradients:
        _compare_gradients(function, reference, cases[0], also)
    for dtype in dtypes:
        _compare_in(dtype, function, reference, cases[0], what)


def draws(
    function: Callable,
    arguments: Callable[[torch.Generator], tuple[Any, ...]],
    *,
    count: int = 20,
    what: str = "result",
) -> list[Any]:
    """Runs a random function with `count` different seeds and returns its results, for the check to look at.

    arguments: makes the arguments of one call, new ones each time, around the generator that it is given.
    Raises CheckFailed where the same seed gives another result, or where all seeds give the same one.
    """

    def run(seed):
        return call(function, *arguments(torch.Generator().manual_seed(seed)))

    found = [run(seed) for seed in range(count)]
    if not _same(found[0], run(0)):
        raise CheckFailed(
            f"the same seed gives another {what}: draw from the generator that is given (generator=generator)\n"
            f"{last_call()}"
        )
    if all(_same(found[0], other) for other in found[1:]):
        raise CheckFailed(
            f"every seed gives the same {what}: draw from the generator that is given, and set no seed inside\n"
            f"{last_call()}"
        )
    return found


# ---- values


def _copies(case):
    """The arguments of a call, those that can change as copies."""
    return [
        copy.deepcopy(arg.detach()).requires_grad_(arg.requires_grad) if _is_tensor(arg) else _copy(arg) for arg in case
    ]


def _copy(arg):
    if isinstance(arg, torch.Generator):
        return arg.clone_state()
    return copy.deepcopy(arg) if isinstance(arg, (list, tuple, dict, np.ndarray, nn.Module)) else arg


def _is_tensor(value):
    return isinstance(value, torch.Tensor)


def _expected(reference, case):
    with torch.no_grad():
        return reference(*_copies(case))


def _lazily(mistake, case):
    return lambda: _expected(mistake, case)


def _compare(found, expected, mistakes, what, tolerance):
    """The result with what is expected: a tensor, a number, True or False, or a tuple or list of these."""
    if isinstance(expected, (tuple, list)):
        parts = _parts(found, len(expected), what)
        names = (
            what.split(", ")
            if what.count(", ") == len(expected) - 1
            else [f"{what}, part {k}" for k in range(len(parts))]
        )
        for k, name in enumerate(names):
            of_part = {message: _part(value, k) for message, value in mistakes.items()}
            _compare(parts[k], expected[k], of_part, name, tolerance)
        return
    if isinstance(expected, (bool, np.bool_)):
        if flag(found, what) != expected:
            raise CheckFailed(_named(found, mistakes) or f"{does(what)} {not expected}, expected {expected}")
        return
    close(found, expected, mistakes, what, tolerance)
    if _is_tensor(expected) and expected.ndim and _is_tensor(found):
        _same_kind(found, expected, what)


def _parts(found, count, what):
    """What was returned together, one by one: a tuple, a list, an array or one tensor that holds them."""
    if isinstance(found, (tuple, list, np.ndarray, torch.Tensor)) and getattr(found, "ndim", 1) and len(found) == count:
        return list(found)
    parts = f"{len(found)} parts" if isinstance(found, (tuple, list)) else kind(found)
    raise CheckFailed(f"expected {count} things{returning(what)}; your function returned {parts}")


def _part(value, k):
    return lambda: value()[k]


def _named(found, mistakes):
    for message, value in mistakes.items():
        try:
            if value() == found:
                return message
        except (RuntimeError, ValueError, TypeError, IndexError):
            continue
    return ""


def _same_kind(found, expected, what, right="the values are right, but "):
    """The dtype that is expected, and the device; of whole numbers any will do."""
    whole = not (
        found.is_floating_point() or expected.is_floating_point() or torch.bool in (found.dtype, expected.dtype)
    )
    if found.dtype != expected.dtype and not whole:
        raise CheckFailed(f"{right}{does(what)} {_name(found.dtype)}, expected {_name(expected.dtype)}")
    if found.device != expected.device:
        raise CheckFailed(f"{right}{does(what)} on {found.device}, expected {expected.device}")


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _only_here(first, case):
    """A remark where the first case was right and this one is not."""
    if case is first:
        return ""
    if _sizes(case) != _sizes(first) and any(map(_is_tensor, case)):
        return " With other sizes it was right: if you wrote one as a number, take every size from the arguments."
    return " With other arguments it was right."


def _sizes(case):
    return [arg.shape if _is_tensor(arg) else arg if isinstance(arg, int) else None for arg in case]


def _same(one, other):
    if isinstance(one, (tuple, list)):
        return isinstance(other, (tuple, list)) and len(one) == len(other) and all(map(_same, one, other))
    if _is_tensor(one):
        return _is_tensor(other) and torch.equal(one, other)
    return np.array_equal(one, other)


# ---- gradients


def _compare_gradients(function, reference, case, also):
    """The gradients that flow to arguments and parameters are there, and are the reference's."""
    if not any(_is_tensor(arg) and arg.is_floating_point() for arg in case):
        return
    found = learns(function, *_copies(case), also=also)
    wanted = _gradients(reference, case, argument_names(function, case), also)
    for name, right in wanted.items():
        if right is not None and not _close_enough(found.get(name), right):
            raise CheckFailed(
                f"the values are right, but the gradient of {name} is not: a part of the way was cut off (.detach(), "
                f".data, .item(), no_grad), so that it would learn something else\n{last_call()}"
            )


def _gradients(function, case, names, also):
    """{argument or parameter in words: its gradient}, of a sum of the results with fixed random weights."""
    arguments = _copies(case)
    leaves = {}
    for name, arg in zip(names, arguments):
        if _is_tensor(arg) and arg.is_floating_point():
            leaves[name] = arg.requires_grad_()
        elif isinstance(arg, nn.Module):
            leaves |= {f"{name}.{part}": parameter for part, parameter in arg.named_parameters()}
    leaves |= {f"parameter {number}": parameter for number, parameter in enumerate(also)}
    given = [arg * 1 if _is_tensor(arg) and arg.requires_grad else arg for arg in arguments]
    with torch.enable_grad():
        result = function(*given)
    parts = [part for part in (result if isinstance(result, (tuple, list)) else [result]) if _is_tensor(part)]
    generator = torch.Generator().manual_seed(1)
    loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in parts if part.requires_grad)
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)))


def _close_enough(found, right):
    return found is not None and bool(((found - right).abs() <= 1e-3 * right.abs().max()).all())


# ---- other types of numbers


def _compare_in(dtype, function, reference, case, what):
    """The first case once more, in another type of decimal numbers."""
    if not any(_is_tensor(arg) and arg.is_floating_point() for arg in case):
        return
    converted = [_converted(arg, dtype) for arg in _copies(case)]
    try:
        expected = _expected(reference, converted)
    except RuntimeError:  # torch itself has not everything for every type, avg_pool3d for one
        return
    try:
        found = call(function, *_copies(converted))
        one, other = ([part] if _is_tensor(part) else part for part in (found, expected))
        for part, right in zip(one, other):
            if _is_tensor(part) and _is_tensor(right):
                _same_kind(part, right, what, "")
        _compare(found, expected, {}, what, DTYPES.get(dtype, 1e-5))
    except CheckFailed as failed:
        raise CheckFailed(
            f"right for float32, but with tensors of {_name(dtype)}: {failed}\nMake new tensors like those given "
            "(torch.zeros_like(x), x.new_zeros(…), dtype=x.dtype), and keep their type"
        ) from None


def _converted(arg, dtype):
    if isinstance(arg, nn.Module) or _is_tensor(arg) and arg.is_floating_point():
        return arg.to(dtype)
    return type(arg)(_converted(part, dtype) for part in arg) if type(arg) in (list, tuple) else arg
