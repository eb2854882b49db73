"""`ready("05.2")`: the course's own version of what an exercise builds, so that nobody is stuck.

The finished versions are in the modules next to this file, one for each chapter, which is loaded when one of them is
asked for. Each is a solution that passes its exercise's check.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from ...errors import ConfigError
from .. import journal
from .registry import FINISHED


def ready(exercise: str, *own: Any) -> Any:
    """What an exercise builds, finished: the notebook goes on with it where the reader's own is still open.

    exercise: its number, "05.2". own: what the reader wrote, one object or, where the exercise builds several, all of
    them in order. It is handed back if it has passed its check in this run; otherwise the course's version is, and
    `progress` lists the exercise as borrowed. Without `own` it is always the course's version.
    Returns one function, or a tuple where the exercise builds several.
    Raises ConfigError where there is no such exercise, or where it builds another number of functions.
    """
    known = load(str(exercise)[:2]) or load()
    if exercise not in known:
        raise ConfigError(f"there is no exercise {exercise!r}: expected one of {', '.join(known)}.")
    finished = known[exercise]
    names = ", ".join(function.__name__ for function in finished)
    if own and len(own) != len(finished):
        raise ConfigError(
            f"exercise {exercise} builds {names}, but ready was given {len(own)} objects besides its number."
        )
    if own and journal.has_passed(exercise):
        return own if len(own) > 1 else own[0]
    journal.borrowed(exercise)
    print(f"{exercise}: this notebook now uses the course's {names}.", end=" ")
    if own:
        print("To use your own: run the cell in which you wrote it, then its check, then this cell.")
    else:  # it was written in another notebook
        it = "it" if len(finished) == 1 else "them"
        print(f"To use your own: paste {it} below this line of the cell, under the name on the left of its =.")
    return finished if len(finished) > 1 else finished[0]


def load(chapter: str = "") -> dict[str, tuple]:
    """The finished versions of a chapter ("05"), or of all, by exercise; {} where there is no such chapter."""
    for module in iter_modules(__path__):
        if module.name.startswith(f"ch{chapter}"):
            import_module(f"{__name__}.{module.name}")
    return {exercise: FINISHED[exercise] for exercise in sorted(FINISHED) if exercise.startswith(chapter)}


def is_borrowed(function: object) -> bool:
    """Whether this is a version that `ready` hands over or a module made by one, and not what the reader wrote."""
    owner = getattr(function, "__self__", function)  # of a method, the module it belongs to
    return any(str(getattr(known, "__module__", "")).startswith(f"{__name__}.") for known in (owner, type(owner)))
