"""What the checks of all exercises share; predictions and progress are offered here too.

Each chapter's checks are a module beside this one (`ch03.py`, ...). A check runs the learner's function,
holds it against a property or torch's own answer, and raises `CheckFailed` with a message that names the
likely mistake.
"""

import sysconfig
import traceback
from pathlib import Path

import torch

from ..journal import passed, predict, progress, reveal  # noqa: F401  (notebooks take them from here)
from ..ready import is_borrowed, ready  # noqa: F401

NOT_THE_LEARNERS = (sysconfig.get_path("stdlib"), str(Path(__file__).parents[2]), "<frozen")


class CheckFailed(AssertionError):
    """An exercise is not right yet; the message names the likely mistake and what to look at."""

    def _render_traceback_(self):  # Jupyter shows this instead of a page of frames that are not the learner's
        return [f"CheckFailed: {self}"]


def call(function, *args, **kwargs):
    """function(*args, **kwargs); an error in it becomes a CheckFailed that says in a line what and where."""
    if is_borrowed(function):
        raise CheckFailed(
            "this is the course's version, not yours: run the cell in which you wrote yours, then this one"
        )
    try:
        return function(*args, **kwargs)
    except CheckFailed:
        raise
    except Exception as error:
        if isinstance(error, NotImplementedError) and not error.args:  # torch raises it too, with a reason
            raise CheckFailed("still to be written: replace `raise NotImplementedError()` with your code") from None
        reason = " ".join(str(error).split()) or "without a message"
        message = f"your code raised {type(error).__name__}: {reason}{learners_line(error)}"
    raise CheckFailed(message)


def learners_line(error):
    """Where it happened: the innermost line that is neither a library's nor this package's, or ""."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(NOT_THE_LEARNERS) and "-packages" not in frame.filename
    ]
    return f" (line {frames[-1].lineno} of your code: `{frames[-1].line}`)" if frames else ""


def same_shape(found, expected, what="the result"):
    """Fails unless `found` is a tensor of this shape. expected: a shape, or a tensor that has it."""
    expected = list(getattr(expected, "shape", expected))
    if found is None:
        raise CheckFailed(f"{what} is None: does your function end in `return ...`?")
    if not isinstance(found, torch.Tensor):
        raise CheckFailed(f"{what} is a {type(found).__name__}, expected a tensor of shape {expected}")
    shape = list(found.shape)
    if shape == expected:
        return
    hint = ""
    if sorted(shape) == sorted(expected):
        hint = ": the right axes in another order"
    elif len(shape) != len(expected):
        hint = f": {len(shape)} axes instead of {len(expected)}"
    elif found.numel() == torch.Size(expected).numel():
        hint = ": the right number of values, divided differently among the axes"
    raise CheckFailed(f"{what} has shape {shape}, expected {expected}{hint}")


def close(found, expected, mistakes=None, what="the result", tolerance=1e-5):
    """Fails unless `found` equals `expected`; names the mistake where it equals a mistake's value instead.

    found, expected: tensors or numbers. mistakes: {message: the value that this mistake gives, or a function
    without arguments that computes it}. tolerance: in parts of the largest expected value.
    A wrong shape is reported first, with the mistake that gives this shape and value, if there is one.
    """
    if isinstance(found, (int, float)):
        found = torch.tensor(found)
    expected = torch.as_tensor(expected)
    if not isinstance(found, torch.Tensor):
        same_shape(found, expected, what)
    if _equal(found, expected, tolerance):
        return
    values = {message: value() if callable(value) else value for message, value in (mistakes or {}).items()}
    named = next((message for message, value in values.items() if _equal(found, value, tolerance)), None)
    try:
        same_shape(found, expected, what)
    except CheckFailed as failed:
        raise CheckFailed(f"{failed}; {named}" if named else str(failed)) from None
    raise CheckFailed(named or _first_difference(found, expected, what, tolerance))


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
        return f"{what} is wrong: {numbers}"
    return f"{what} is wrong in {int(off.sum())} of {off.numel()} values, first at {place}: {numbers}"
