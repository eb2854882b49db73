"""How a check calls what the reader wrote: errors are told in two lines, and nothing else has changed afterwards.

`call` runs a function once, `learns` looks at its gradients. Whether its values are right is for `comparing` to say;
`examining` puts all of it together, with an example in this package's own docstring.
"""

from __future__ import annotations

import functools
import inspect
import math
import random
import re
import sysconfig
import traceback
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from .. import journal
from ..ready import is_borrowed

NOT_THE_READERS = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]), "<frozen")
SEEDS = [(torch, "manual_seed"), (torch.random, "manual_seed"), (torch, "seed"), (np.random, "seed"), (random, "seed")]

EINOPS_REPEATS = r"error while processing.*additional info: \{.*?\}"  # the pattern and what it was given
NOT_SIZES = (
    EINOPS_REPEATS,
    r"in range of \[.*",  # of axes
    r"(dimension|dim|axis|index) -?\d+\b(?! is out)",
    r"\d+[ -]?d(im\w*)?\b",  # 4D, 3 dims
    r"(?<=\d)x(?=\d)",
    r"[a-z_]+\d+",  # mat1, float32
)
OTHER_SIZES = " These are not the notebook's sizes: if you wrote one as a number, take sizes from the arguments."
DRAW = 0  # with another number every check draws other numbers: the tests try several

_last = {"call": "", "result": ""}  # in words, for a check that cannot use what it got


class CheckFailed(AssertionError):
    """An exercise is not right yet; the message names the likely mistake and what to look at."""

    def _render_traceback_(self):  # Jupyter shows this instead of a page of frames that are not the reader's
        return f"CheckFailed: {self}".splitlines()


def call(function: Callable, *args: Any, may_change: Sequence[int] = (), **kwargs: Any) -> Any:
    """function(*args, **kwargs), with gradients enabled.

    may_change: positions of the arguments that the task tells the reader to change in place.
    Returns what the function returns. Raises CheckFailed where it raises an error, where it changes another argument
    (values, requires_grad, the mode of a module, what a list or a dict holds), where it leaves the gradient mode, the
    default dtype or a global seed changed, and where it draws from a global generator although it is given one.
    """
    if is_borrowed(function):
        raise CheckFailed(
            "this is the course's version, not yours: run the cell in which you wrote yours, then this one"
        )
    names = argument_names(function, args)
    told = ", ".join([*map(argument_in_words, names, args), *map(argument_in_words, kwargs, kwargs.values())])
    _last.update(call=f"It was called with{' ' + told if told else 'out arguments'}.", result="nothing")
    before, module_before = [_snapshot(arg) for arg in args], _snapshot(function)
    dtype = torch.get_default_dtype()
    states = _global_states() if (drawing := any(map(_is_generator, [*args, *kwargs.values()]))) else None
    try:
        with torch.enable_grad(), _seeds_noted() as seeds:
            result = function(*args, **kwargs)
            graded = torch.is_grad_enabled()
    except CheckFailed:
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, NotImplementedError) and not error.args:  # torch raises it too, with a reason
            name = traceback.extract_tb(error.__traceback__)[-1].name
            name = type(getattr(function, "__self__", function)).__name__ if name == "forward" else name
            raise CheckFailed(
                f"{name} is still to be written: replace `raise NotImplementedError()` with your code"
            ) from None
        raise CheckFailed(f"{_said(error)}{_readers_line(error)}\n{_last['call']}{_other_sizes(error, args)}") from None
    _last["result"] = argument_in_words("", result)
    for position, (name, arg, old) in enumerate(zip(names, args, before)):
        if position not in may_change and (what := _changed(arg, old)):
            name = "argument `a`" if name == "a" else name  # "changes the a that" reads like a slip
            raise CheckFailed(f"your function changes the {name} that it was given: {what}")
    if module_before is not None and (what := _changed(function, module_before)):
        raise CheckFailed(f"your module changes itself when it is called: {what}")
    if torch.get_default_dtype() != dtype:
        torch.set_default_dtype(dtype)
        raise CheckFailed("your function changes torch's default dtype for all that follows: pass dtype=… instead")
    if drawing and _global_states() != states:
        raise CheckFailed(
            "your function draws from the global generator: it is given one, so pass generator=generator to randperm, "
            "rand or randn"
        )
    if not graded:
        raise CheckFailed(
            "your function leaves gradients switched off for all that follows: use `with torch.no_grad():`"
        )
    if seeds:
        raise CheckFailed(
            f"your function sets the global seed ({seeds[0]}), so that the whole program draws the same numbers from "
            f"there on: {'draw from the generator that is given' if drawing else 'set no seed here'}"
        )
    return result


# hints that several checks give, for `call_with_hints` and `examine(errors=…)`
BY_TENSOR = {"only integer tensors": "`permutation` is a tuple or a list: make it a tensor first, then index it"}
MEANS_AS_COLUMN = {"must match": "without keepdim=True the means are [B] and not [B, 1]"}


def call_with_hints(hints: dict[str, str], function: Callable, *args: Any, may_change: Sequence[int] = ()) -> Any:
    """`call`, with what helps added to an error's text. hints: {part of the text: what to add}."""
    try:
        return call(function, *args, may_change=may_change)
    except CheckFailed as failed:
        hint = next((hint for part, hint in hints.items() if part in str(failed)), "")
        first, *rest = str(failed).split("\n")
        if hint:
            first, rest = f"{first}; {hint}", [line.replace(OTHER_SIZES, "") for line in rest]
        raise CheckFailed("\n".join([first, *rest])) from None


def learns(function: Callable, *args: Any, also: Iterable[torch.Tensor] = ()) -> dict[str, torch.Tensor]:
    """Fails unless a gradient flows from what function(*args) returns to every argument with decimals and to every
    parameter of a module among them, the function itself included. also: further parameters, of a module that is not
    an argument itself. Returns {argument or parameter in words: its gradient}, of a sum of the results with fixed
    random weights."""
    names, wanted, given = argument_names(function, args), {}, []
    for name, arg in zip(names, args):
        if isinstance(arg, torch.Tensor) and arg.is_floating_point():
            wanted[name] = arg if arg.requires_grad else arg.detach().clone().requires_grad_()
            arg = wanted[name] * 1  # an argument that may be written into: `call` sees that it was
        elif isinstance(arg, nn.Module):
            wanted |= {f"{name}.{part}": parameter for part, parameter in arg.named_parameters()}
        given.append(arg)
    if isinstance(function, nn.Module):
        wanted |= {f"its {part}": parameter for part, parameter in function.named_parameters()}
    wanted |= {f"parameter {k}": parameter for k, parameter in enumerate(also)}
    result = call(function, *given)
    parts = [part for part in (result if isinstance(result, (tuple, list)) else [result]) if part.requires_grad]
    if not parts:
        raise CheckFailed(
            "the values are right, but no gradient reaches the arguments, so nothing before this could learn: the "
            "result was cut off (.detach(), .data, torch.tensor(...), no_grad)"
        )
    generator = torch.Generator().manual_seed(1)
    loss = sum((part * torch.randn(part.shape, generator=generator)).sum() for part in parts)
    try:
        gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise CheckFailed(
            "the values are right, but training would stop with an error: something was changed in place (+=, *=, "
            "x[...] = ..., add_) that the backward pass still needs. Write y = y + ..., not y += ..."
        ) from None
    unreached = [name for name, gradient in zip(wanted, gradients) if gradient is None or not gradient.any()]
    if unreached:
        raise CheckFailed(
            f"the values are right, but no gradient reaches {unreached[0]}: it is never used, or was cut off "
            "(.detach(), .data, torch.tensor(...), no_grad), so it would never learn"
        )
    return dict(zip(wanted, gradients))


def exercise(check: Callable) -> Callable:
    """A decorator of every check: an error that it runs into with what the reader's function returned is told in
    words, with the call, instead of by the check's own traceback. The check draws the same numbers each time, and the
    generators of the reader's program go on after it as if nothing had been drawn."""

    @functools.wraps(check)
    def run(*written: Any) -> None:
        try:
            with _own_draws(check.__name__), journal.checking(check.__name__):
                check(*written)
        except CheckFailed:
            raise
        except Exception as error:
            raise CheckFailed(
                f"your function returned {_last['result']}, which the check cannot use ({type(error).__name__}: "
                f"{_one_line(error)})\n{_last['call']}"
            ) from None

    return run


def last_call() -> str:
    """With what `call` called the reader's function last, as a sentence."""
    return _last["call"]


def argument_in_words(name: str, value: Any) -> str:
    """An argument for a message: "z [2, 5, 8]", "heads 4", "labels int64 [6]"."""
    if isinstance(value, torch.Tensor):
        kind = "" if value.dtype == torch.float32 else f"{value.dtype} ".removeprefix("torch.")
        said = f"{kind}{list(value.shape)}" if value.ndim else f"{kind}tensor {value.item():.4g}"
    elif isinstance(value, (list, tuple)) and _holds_tensors(value):
        said = f"a {type(value).__name__} of {len(value)} ({argument_in_words('', value[0])}, …)"
    elif value is None or isinstance(value, (bool, int, float, str, list, tuple)):
        said = repr(value) if len(repr(value)) <= 40 else f"{repr(value)[:37]}…"
    elif callable(value):
        said = type(value).__name__ if isinstance(value, nn.Module) else "" if name else f"a {type(value).__name__}"
    else:
        said = f"a {type(value).__name__}"
    return f"{name} {said}".strip()


def _holds_tensors(value):
    """Whether a list or tuple holds tensors, or lists of them."""
    return any(isinstance(part, torch.Tensor) or type(part) in (list, tuple) and _holds_tensors(part) for part in value)


def argument_names(function: Callable, args: Sequence[Any]) -> list[str]:
    """The names that the reader gave the arguments, where they can be told."""
    written = function.forward if isinstance(function, nn.Module) else function  # a module's __call__ takes *args
    try:
        names = list(inspect.signature(written).bind(*args).arguments)
    except (TypeError, ValueError):  # it takes another number of arguments: calling it says so
        names = []
    return names if len(names) == len(args) else [f"argument {k}" for k in range(1, len(args) + 1)]


def _said(error):
    if isinstance(error, AssertionError) and _is_readers(traceback.extract_tb(error.__traceback__)[-1]):
        said = f": {_one_line(error)}" if str(error) else ""
        return f"an assert in your code failed{said} (where True or False is asked for, return it)"
    return f"your code raised {type(error).__name__}: {_one_line(error)}"


def _one_line(error):
    said = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(error)).split()) or "without a message"
    return said if len(said) <= 400 else f"{said[:400]}…"


def _readers_line(error):
    """Where it happened: the innermost line that is neither a library's nor this package's, or ""."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.line and _is_readers(frame)]
    return f" (line {frames[-1].lineno} of your code: `{frames[-1].line}`)" if frames else ""


def _is_readers(frame):
    """Whether a line is neither a library's nor this package's."""
    return not frame.filename.startswith(NOT_THE_READERS) and "-packages" not in frame.filename


def _other_sizes(error, args):
    """A remark where the reader's function was given tensors and the error names a size that none of them has, or where
    einops cannot cut an axis as it was told to."""
    parts = [part for arg in args for part in (arg if isinstance(arg, (list, tuple)) else [arg])]
    tensors = any(isinstance(part, torch.Tensor) for part in parts)
    about = "" if isinstance(error, (AttributeError, NameError)) else str(error).lower()
    if not tensors or not re.search("shape|size|length|axis|index|broadcast|multiplied", about):
        return ""
    for other in NOT_SIZES:
        about = re.sub(other, " ", about, flags=re.DOTALL)
    named = {int(size) for size in re.findall(r"\d+", about)}
    return OTHER_SIZES if named - _sizes_of(parts) or "can't divide axis" in about else ""


def _sizes_of(parts):
    """The sizes that arguments have or hold, and the products of neighbouring axes."""
    found = {0, 1, len(parts)}
    for part in parts:
        tensors = part.parameters() if isinstance(part, nn.Module) else [part]
        for shape in [list(tensor.shape) for tensor in tensors if isinstance(tensor, torch.Tensor)]:
            found |= {math.prod(shape[i:j]) for i in range(len(shape)) for j in range(i + 1, len(shape) + 1)}
        found |= {part} if isinstance(part, int) else {len(part)} if isinstance(part, (list, tuple)) else set()
    return found


def _is_generator(arg):
    return isinstance(arg, torch.Generator)


def _global_states():
    """The states of the generators that belong to the whole program, to be compared."""
    kind, keys, *place = np.random.get_state()  # keys as bytes: as text, 624 numbers take 2 ms of each call
    return torch.get_rng_state().numpy().tobytes(), (kind, keys.tobytes(), *place), random.getstate()


@contextmanager
def _own_draws(name):
    """Within it the global generators begin at a seed that belongs to this name; afterwards they are as before."""
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    number = zlib.crc32(f"{DRAW} {name}".encode())
    torch.default_generator.manual_seed(number)  # torch.manual_seed would seed every device there is
    np.random.seed(number)
    random.seed(number)
    try:
        yield
    finally:
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


@contextmanager
def _seeds_noted():
    """Within it nobody sets a global seed; who tries is noted in the list that it gives."""
    tried = []

    def noted(module, name):
        def note(*_):
            tried.append(f"{module.__name__}.{name}")
            return torch.default_generator

        return mock.patch.object(module, name, note)

    patches = [noted(module, name) for module, name in SEEDS]
    for patch in patches:
        patch.start()
    try:
        yield tried
    finally:
        for patch in patches:
            patch.stop()


def _snapshot(value):
    """What an argument is before the call; None where it cannot be compared."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone(), value.requires_grad
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, nn.Module):
        state = {name: part.clone() for name, part in value.state_dict().items()}
        modes = [module.training for module in value.modules()]
        return state, modes, [parameter.requires_grad for parameter in value.parameters()]
    if isinstance(value, (list, tuple)):
        return [_snapshot(part) for part in value]
    if isinstance(value, dict):
        return {key: _snapshot(part) for key, part in value.items()}
    return value if isinstance(value, (bool, int, float, str)) else None


def _changed(value, before):
    """What has changed, and what to do instead; "" where nothing has."""
    if before is None:
        return ""
    if isinstance(value, torch.Tensor):
        values, learns_itself = before
        if value.shape != values.shape or not torch.equal(value.detach(), values):
            return "make new tensors (clone, torch.where, y = y + ...) instead of writing into those given (y += ...)"
        return "" if value.requires_grad == learns_itself else "its requires_grad has changed: leave it as it was"
    if isinstance(value, np.ndarray):
        return "" if np.array_equal(value, before) else "make a new array (copy) instead of writing into it"
    if isinstance(value, nn.Module):
        state, modes, trainable = before
        if any(not torch.equal(part, state[name]) for name, part in value.state_dict().items()):
            return "its weights have changed: use them, or work on a copy"
        if modes != [module.training for module in value.modules()]:
            return "it is left in another mode: after eval() or train(), restore the mode that it was in"
        if trainable != [parameter.requires_grad for parameter in value.parameters()]:
            return "requires_grad of its parameters has changed: leave it as it was"
        return ""
    if isinstance(value, (list, tuple)):
        if len(value) != len(before):
            return f"it holds {len(value)} parts now, and held {len(before)}: make a new list"
        return next(filter(None, map(_changed, value, before)), "")
    if isinstance(value, dict):
        if list(value) != list(before):
            return "it holds other keys now: make a new dict"
        return next(filter(None, (_changed(value[key], before[key]) for key in before)), "")
    return "" if value == before else "make a new list"
