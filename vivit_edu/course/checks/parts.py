"""Points for a part of an exercise: what is right earns its points although something else is wrong.

A part is a function that the exercise asks for, or a method of a class. Each one is tried among the course's own
versions of all the others, by the exercise's check.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import CellType, FunctionType
from typing import Any

from torch import nn

from .. import journal
from ..ready import is_borrowed, load
from .calling import CheckFailed


def by_parts(exercise: str, check: Callable, shares: Mapping[str, float], *written: Any) -> float | None:
    """What an answer is worth, part by part: the last value of a check's cell in a classroom, where nbgrader reads it.

    exercise: its number, "04.5". check: its check. shares: the points of each part, {"__init__": 1, "forward": 3}: the
    methods of a class where the exercise builds one; where it builds several things, functions by their names and
    methods as "MLP.forward". written: what the reader wrote, in the check's order.
    Prints what became of each part. Returns None where all is right and the reader's own, which nbgrader counts as all
    points, else the points of the parts that are right. Parts that are the course's version, from `ready`, earn none.
    Raises the check's own CheckFailed where no part earns any.
    """
    finished = load(exercise[:2])[exercise]
    lent = [part for part in shares if is_borrowed(_own(part, finished, written))]
    failed = None
    try:
        check(*written)
        if not lent:
            return None
    except CheckFailed as error:
        failed = error
        print(f"Not passed {exercise} as a whole: {failed}")
    earned = 0
    for part, share in shares.items():
        wrong = "this is the course's version, from `ready`" if part in lent else ""
        if failed and not wrong:
            try:
                with journal.unnoted():
                    check(*_among_the_courses(part, finished, written))
            except CheckFailed as error:
                wrong = str(error)
        earned += 0 if wrong else share
        print(
            f"Not passed {exercise}, {part}, 0 of {share}: {wrong}" if wrong else f"Passed {exercise}, {part}: {share}"
        )
    if not earned:
        raise failed or CheckFailed("this is the course's version, not yours")
    return earned


def _own(part: str, finished: tuple, written: tuple) -> Any:
    """What the reader wrote as this part; None where there is nothing."""
    number, method = _place(part, finished)
    own = written[number] if number < len(written) else None
    if method is None:
        return own
    own = getattr(own, method, None)
    return None if own is getattr(nn.Module, method, None) else own  # what every module has is nobody's


def _place(part, finished):
    """Which of the things that an exercise builds, and which method of it, if one."""
    names = [known.__name__ for known in finished]
    name, _, method = part.rpartition(".")
    return (names.index(name or names[0]), method) if name or part not in names else (names.index(part), None)


def _among_the_courses(part: str, finished: tuple, written: tuple) -> list[Any]:
    """What the check is given to try one part: the reader's, and the course's version of all others."""
    number, method = _place(part, finished)
    if not callable(_own(part, finished, written)) or method is not None and not isinstance(written[number], type):
        raise CheckFailed(f"there is no {part} of yours")
    given = [_unmarked(known) for known in finished]
    own = given[number] = written[number]
    if isinstance(own, FunctionType):  # which may call the others by their names
        given[number] = _moved(own, None, {known.__name__: known for known in given if known is not own})
    if method is not None:
        others = {}
        for name, function in vars(finished[number]).items():
            if isinstance(function, FunctionType) and name != method:
                others[name] = _moved(function, own)
        given[number] = type(own.__name__, (own,), others | {"__module__": own.__module__})
    return given


def _unmarked(known):
    """A finished version that the check does not take for a borrowed one."""
    if isinstance(known, type):
        return type(known.__name__, (known,), {"__module__": "__main__"})
    moved = _moved(known, None)
    moved.__module__ = "__main__"
    return moved


def _moved(function, owner, names=None):
    """A copy of a function: a method whose super() is the owner's, or one for which some names mean something else."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    closure = tuple(CellType(owner) if name == "__class__" else cell for name, cell in cells)
    scope = {**function.__globals__, **names} if names else function.__globals__
    moved = FunctionType(function.__code__, scope, function.__name__, function.__defaults__, closure)
    moved.__kwdefaults__ = function.__kwdefaults__
    return moved
