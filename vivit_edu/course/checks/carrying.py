"""A reader's function on its way into another Python process.

Functions written in a notebook cannot be imported elsewhere, so their compiled code is carried, with all that they use.
"""

from __future__ import annotations

import builtins
import importlib
import marshal
import pickle
import types
from collections.abc import Callable
from typing import Any


def as_carried(function: Callable) -> bytes | None:
    """A function as bytes from which `made_again` makes it in another process; None where it cannot be carried."""
    try:
        return pickle.dumps(carried_parts(function))
    except Exception:  # the check without another process stands
        return None


def carried_parts(value: Any) -> tuple[str, Any]:
    """What `made_again` makes a value of: a module by its name, a function by its code, anything else as it is."""
    if isinstance(value, types.ModuleType):
        return "module", value.__name__
    if not isinstance(value, types.FunctionType) or value.__module__.startswith(("torch.", "vivit_edu.")):
        pickle.dumps(value)
        return "value", value
    used = {name: value.__globals__[name] for name in names_in(value.__code__) if name in value.__globals__}
    return "function", {
        "code": marshal.dumps(value.__code__),
        "name": value.__name__,
        "defaults": value.__defaults__,
        "globals": {name: carried_parts(part) for name, part in used.items() if part is not value},
        "closure": [carried_parts(cell.cell_contents) for cell in value.__closure__ or ()],
    }


def names_in(code: types.CodeType) -> set[str]:
    """All names that a function's code, and the functions inside it, look up."""
    inside = [names_in(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inside)


def made_again(parts: tuple[str, Any]) -> Any:
    """What `carried_parts` took apart."""
    kind, content = parts
    if kind == "module":
        return importlib.import_module(content)
    if kind == "value":
        return content
    names = {"__builtins__": builtins} | {name: made_again(part) for name, part in content["globals"].items()}
    cells = tuple(types.CellType(made_again(part)) for part in content["closure"])
    code = marshal.loads(content["code"])
    function = types.FunctionType(code, names, content["name"], content["defaults"], cells or None)
    names.setdefault(content["name"], function)
    return function
