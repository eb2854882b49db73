"""What the reader expected and what the reader solved: predictions, passed exercises, progress.

Everything is also written to `.vivit_edu/progress.json` in the working directory, which belongs to the reader and is
sent nowhere. What is printed depends on the running notebook alone, so it is the same in every run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..support.files import written_whole

PROGRESS_FILE = Path(".vivit_edu", "progress.json")

# of this process: prediction -> (guess, unit), exercise -> True, prediction -> whether it came true
_guesses, _passed, _came_true = {}, {}, {}
_borrowed: set[str] = set()  # exercises that run on the course's version
_passed_by: dict[str, set[str]] = {}  # check -> the exercises that it has passed
_checking, _noting = "", True


def passed(exercise: str, remark: str) -> None:
    """Says that an exercise ("03.1") is solved, with a remark on what that shows, and notes it."""
    if not _noting:
        return
    print(f"Passed {exercise}: {remark}")
    _passed[exercise] = True
    _passed_by.setdefault(_checking, set()).add(exercise)
    _borrowed.discard(exercise)
    _write()


@contextmanager
def checking(check: str) -> Iterator[None]:
    """Within it what passes is noted as passed by this check. If the check fails here, what it passed earlier in this
    run no longer counts: what the reader has written since is something else."""
    global _checking
    outer, _checking = _checking, check
    try:
        yield
    except Exception:
        if _noting:
            for exercise in _passed_by.pop(check, ()):
                _passed.pop(exercise, None)
        raise
    finally:
        _checking = outer


@contextmanager
def unnoted() -> Iterator[None]:
    """Within it an exercise that passes is neither announced nor noted: only a part of it was tried."""
    global _noting
    _noting = False
    try:
        yield
    finally:
        _noting = True


def has_passed(exercise: str) -> bool:
    """Whether an exercise has passed its check in this run."""
    return exercise in _passed


def borrowed(exercise: str) -> None:
    """Notes that the notebook goes on with the course's version of what an exercise builds."""
    _borrowed.add(exercise)


def predict(
    key: str, question: str, guess: Any = None, *, choices: Sequence[str] | None = None, unit: str = ""
) -> None:
    """Before a cell is run: prints a question and the reader's guess, and keeps the guess for `reveal`.

    key: chapter and a word ("03.tokens"). guess: a number, a shape or a text, which the reader fills in; the course's
    own notebooks leave it out. choices: what to choose from.
    """
    print(f"Prediction {key}: {question}")
    if choices is not None:
        between = " | " if any("," in str(choice) for choice in choices) else ", "
        print(f"  Choose from: {between.join(map(str, choices))}.")
        guess = _chosen(guess, choices)
    if guess is None:
        print("  What is your guess? Write it as the last argument, guess=..., or on paper, before you run on.")
    elif choices is not None and guess not in choices:
        print(f"  {_say(guess)} is not among the choices.")
        guess = None
    else:
        print(f"  Your guess: {_say(guess, unit)}.")
    _guesses[key] = guess, unit


def reveal(key: str, truth: Any, *, tolerance: float = 0.1) -> None:
    """After the cell has run: prints the truth and, where there is a guess, how it compares with it; never fails.

    truth: a number, a shape or a text. tolerance: how far off a number may be to count as right, as a share of the
    truth.
    """
    guess, unit = _guesses.get(key, (None, ""))
    guess, truth = _plain(guess), _plain(truth)
    guess = _number_in(guess, unit) if _is_number(truth) else guess
    right = guess == truth
    if guess is None:
        verdict = ""
    elif right:
        verdict = "Your guess was right."
    elif _is_number(guess) and _is_number(truth):
        right = abs(guess - truth) <= tolerance * abs(truth)
        verdict = f"Your guess, {_say(guess)}, was {'near enough' if right else _how_far(guess, truth)}."
    else:
        verdict = f"You guessed {_say(guess)}."
    print(f"{key}: {_say(truth, unit)}. {verdict}".rstrip())
    if guess is not None:
        _came_true[key] = bool(right)
        _write()


def progress(chapter: int | str) -> None:
    """At the end of a chapter: prints which exercises were passed in this run, which run on the course's own version,
    and how many predictions came true."""
    start = f"{int(chapter):02d}."
    exercises = sorted(key for key in _passed if key.startswith(start))
    lent = sorted(exercise for exercise in _borrowed if exercise.startswith(start))
    taken = f"; borrowed from the course: {', '.join(lent)}" if lent else ""
    predictions = [right for key, right in _came_true.items() if key.startswith(start)]
    scored = f"; predictions that came true: {sum(predictions)} of {len(predictions)}" if predictions else ""
    print(f"Chapter {start[:-1]}: exercises passed: {', '.join(exercises) or 'none yet'}{taken}{scored}.")


def _chosen(guess: Any, choices: Sequence[Any]) -> Any:
    """The one choice that begins as the guess does, "about 10 %" or 1 for "1"; the guess itself where there is none."""
    fits = [choice for choice in choices if guess is not None and str(choice).startswith(str(guess))]
    return guess if guess in choices or len(fits) != 1 else fits[0]


def _plain(value: Any) -> Any:
    """Tensors and arrays as Python numbers, shapes and lists as tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(_plain(v) for v in value) if isinstance(value, (list, tuple)) else value


def _number_in(guess: Any, unit: str) -> Any:
    """A guess that was given as text, "26" or "26 points", as a number; the guess itself where it is none."""
    if isinstance(guess, str):
        with suppress(ValueError):
            value = float(guess.strip().removesuffix(unit).replace(",", ""))
            return value if math.isfinite(value) else guess
    return guess


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _say(value: Any, unit: str = "") -> str:
    """A value for a reader: 1,030,301 · 0.3333 · (2, 64, 128), with its unit."""
    value = _plain(value)
    if _is_number(value):
        value = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"
    return str(value) if str(value).endswith(unit) else f"{value} {unit}"


def _how_far(guess: float, truth: float) -> str:
    if guess * truth <= 0:
        return "another number"
    ratio, side = (guess / truth, "large") if guess > truth else (truth / guess, "small")
    return f"{ratio:.3g} times too {side}" if ratio >= 2 else f"{abs(guess / truth - 1):.0%} too {side}"


def _write():
    """Adds this run's events to the reader's file; nothing stops if the folder is read-only."""
    try:
        kept = json.loads(PROGRESS_FILE.read_text(encoding="utf-8"))
        content = {"passed": kept["passed"] | _passed, "predictions": kept["predictions"] | _came_true}
    except (OSError, ValueError, KeyError, TypeError):  # there is none yet, or it is not ours
        content = {"passed": _passed, "predictions": _came_true}
    try:
        with written_whole(PROGRESS_FILE) as file:
            file.write(json.dumps(content, indent=2).encode())
    except DataError:
        pass
