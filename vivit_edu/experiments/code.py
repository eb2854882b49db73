"""Which code a recorded figure was made by, and whether that code is still the same.

    code_of(train, recipe, dataset)   {part: hash} of all that decides a run's figures, as it is now
    what_changed(code)                the parts that are no longer what they were

What counts is the module of the model, those of the data set, of training and augmentation, whatever these import, and
the functions by which a table's row is trained. Of a file counts what is computed: comments, docstrings, layout, type
hints of functions and the messages of errors may change. Recipes are in the records themselves.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..datasets.medmnist import MEDMNIST3D
from ..models import CNNS, TORCHVISION_NETWORKS, VIVITS

if TYPE_CHECKING:
    from ..training import Recipe

PACKAGE = Path(__file__).parents[1]
HOUSE = PACKAGE.name
# refuse, name, keep or draw, and decide no figure
NO_FIGURES = {"", "cli", "data", "errors", "plots", "explain.pictures", "experiments.code", "experiments.records"}
NO_FIGURES |= {
    f"support.{name}" for name in "checkpoint files identity locks options places tables torch_files".split()
}
ALONE = {"experiments.runs"}  # of these a function counts, and not what it calls in the same file: that writes files
CHANGED = "changed while it ran"
ARGUMENTS = "arguments"  # the part that stands for what a row settles of its function
OF_DATA = {"organphantom3d": "datasets.phantom", "movingshapes": "datasets.shapes"}
OF_DATA |= dict.fromkeys(MEDMNIST3D, "datasets.medmnist")


def code_of(train: Callable, recipe: Recipe, dataset: str) -> dict[str, str]:
    """What decides the figures of a run, {part: hash}: modules of the package, and functions of its experiments.

    train: by which the run is made, as in `tables.Row`. dataset: the name of its volumes; one that is not the course's
    is a folder of videos.
    """
    place = (VIVITS | CNNS | TORCHVISION_NETWORKS)[recipe.model][0].split(":")[0].removeprefix(f"{HOUSE}.")
    roots = {"training", "models", place, OF_DATA.get(dataset, "datasets.video")}
    roots |= {"pretrained"} if recipe.pretrained else set()
    functions, arguments = unwrapped_call(train)
    found = code_of_functions(*functions, roots=roots)
    return found | ({ARGUMENTS: text_hash(arguments)} if arguments else {})


def code_of_functions(*functions: Callable, roots: set[str] | frozenset[str] = frozenset()) -> dict[str, str]:
    """{part: hash} of functions of the experiments, of what they name, and of the modules `roots`, with all imports."""
    found, modules, waiting = {}, set(roots), [home_of(function) for function in functions]
    while waiting:
        module, name = waiting.pop()
        part = f"{module}.{name}"
        if not module.startswith("experiments."):
            modules.add(module)
        elif module in NO_FIGURES:
            continue
        elif part not in found and name in definitions(module):
            nodes = definitions(module)[name]
            found[part] = function_hash(module, name)
            imported = dict(module_imports(module))
            for node in nodes:
                imported |= dict(imports_of(node, module))
            for word in words_of(nodes):
                if word in imported:
                    waiting.append(imported[word])
                elif module not in ALONE:
                    waiting.append((module, word))
    return dict(sorted((found | {name: module_hash(name) for name in with_imports(modules)}).items()))


def with_imports(modules: set[str]) -> set[str]:
    """These modules of the package and all that they import, but for those that decide no figure."""
    found, waiting = set(), [*modules]
    while waiting:
        module = waiting.pop()
        if module in found or module in NO_FIGURES or module not in package_trees():
            continue
        found.add(module)
        for _, (target, name) in module_imports(module):
            waiting += [target, f"{target}.{name}".lstrip(".")]
    return found


def unwrapped_call(train: Callable) -> tuple[list[Callable], str]:
    """The functions that a row's `train` is made of, and the other arguments that `partial` settled, as text."""
    if not isinstance(train, partial):
        return [train], ""
    functions, texts = unwrapped_call(train.func)
    functions, texts = [*functions], [texts] if texts else []
    for name, value in [*(("", value) for value in train.args), *sorted(train.keywords.items())]:
        if callable(value):
            inner, text = unwrapped_call(value)
            functions += inner
            texts += [f"{name}({text})"] if text else []
        else:
            texts.append(f"{name}={value!r}")
    return functions, ", ".join(texts)


def home_of(function: Callable) -> tuple[str, str]:
    """Where a function of the package is: (module, name of what holds it at the top of that module).

    Raises ValueError for one of the file that Python was started with, whose module has no name of its own.
    """
    function = function if hasattr(function, "__qualname__") else type(function)
    if function.__module__ == "__main__":
        raise ValueError(f"{function.__qualname__} is of __main__: import its module, and call it from there")
    return function.__module__.removeprefix(f"{HOUSE}.").removeprefix(HOUSE), function.__qualname__.split(".")[0]


# ---- the package's files, each read once: a process that began with them goes on with them


@cache
def package_trees() -> dict[str, ast.Module]:
    """{module: its syntax tree}, all as they are when this is first asked, which a run does before it begins."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] in ("course", "authoring"):  # nothing here imports from them
            continue
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def module_hash(module: str) -> str:
    """The hash of what a module computes."""
    return text_hash(told(package_trees()[module]))


@cache
def function_hash(module: str, name: str) -> str:
    """The hash of a function, class or constant at the top of a module."""
    return text_hash("".join(map(told, definitions(module)[name])))


@cache
def definitions(module: str) -> dict[str, list[ast.stmt]]:
    """{name: the statements that define it} of the functions, classes and constants at the top of a module."""
    found = {}
    for node in package_trees()[module].body if module in package_trees() else ():
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        names = [node.name] if hasattr(node, "name") else [t.id for t in targets if isinstance(t, ast.Name)]
        for name in names:
            found.setdefault(name, []).append(node)
    return found


@cache
def module_imports(module: str) -> list[tuple[str, tuple[str, str]]]:
    """What a module imports from the package, as `imports_of` says it."""
    return [*imports_of(package_trees()[module], module)]


def imports_of(tree: ast.AST, module: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """What a tree imports from the package, also inside functions: (name in it, (module, name there)) of each.

    Imports for type checkers count as well: who takes a Recipe depends on what one is.
    """
    is_package = (PACKAGE / Path(*module.split(".")) / "__init__.py").is_file()
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = here[: len(here) - node.level + 1] + (node.module or "").split(".")
        elif (node.module or "").split(".")[0] == HOUSE:
            base = node.module.split(".")[1:]
        else:
            continue
        target = ".".join(part for part in base if part)
        for alias in node.names:
            yield alias.asname or alias.name, (target, alias.name)


def words_of(nodes: list[ast.stmt]) -> list[str]:
    """The names that these statements use, each once, in order."""
    return sorted({node.id for top in nodes for node in ast.walk(top) if isinstance(node, ast.Name)})


def told(node: object) -> str:
    """A syntax tree as text, the same in every version of Python, without what computes nothing."""
    if isinstance(node, list):
        return f"[{','.join(map(told, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    left_out = {"kind", "type_comment", "type_params", "type_ignores"}
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.arg)):
        left_out |= {"returns", "annotation"}
    if isinstance(node, ast.Raise):
        left_out |= {"cause"}
    parts = []
    for name, value in ast.iter_fields(node):
        if name in left_out or value is None or value == []:
            continue
        if isinstance(node, ast.Raise) and isinstance(value, ast.Call):
            value = value.func  # whatever the message says
        if name == "body" and isinstance(value, list) and value and is_text(value[0]):
            value = value[1:]
        parts.append(f"{name}={told(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a string and nothing else, as a docstring is."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def text_hash(text: str) -> str:
    """The first 12 digits of a text's SHA-256: enough to tell versions of one file from each other."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# ---- then and now


def same_code(before: dict[str, str], now: dict[str, str]) -> dict[str, str]:
    """The code of a run that was begun with `before` and went on with `now`: what changed in between has no hash."""
    return {part: now[part] if before.get(part) == now.get(part) else CHANGED for part in sorted({*before, *now})}


def what_changed(code: dict[str, str], now: dict[str, str]) -> list[str]:
    """The parts that decide a run's figures and are not what they were when it was made, [] where all are.

    code: of the run. now: what `code_of` says of such a run today. A part that is in `code` alone, such as the reader
    of weights that a run made for itself, is compared with what it is today.
    """
    today = {part: part_hash(part) for part in code if part != ARGUMENTS} | now
    return sorted(part for part in {*code, *now} if code.get(part) != today.get(part))


def part_hash(part: str) -> str | None:
    """The hash of a part as it is today; None where there is no such part."""
    module, _, name = part.rpartition(".")
    if module.startswith("experiments.") and name in definitions(module):
        return function_hash(module, name)
    return module_hash(part) if part in package_trees() else None
