"""The masters, the solved notebooks of the course: where they lie, how they are read and written, and what is
the same in all of them: the badges, the bootstrap cell and the repository's address."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..course.map import OFFER  # noqa: F401
from ..errors import ConfigError
from ..support.files import written_whole
from ..support.places import checkout, repository  # noqa: F401  (its neighbours take them from here)

if TYPE_CHECKING:
    import ast
    from types import ModuleType

    from nbformat import NotebookNode

COLAB = "https://colab.research.google.com/"
PLOT = "plot"  # tag of a cell that only draws: its code is folded in JupyterLab, in Colab and on the site
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
BOOTSTRAP = """\
import importlib.util, os, sys
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded: its threads sleep while they wait
if "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ:  # these two have to fetch the course
    !git clone -q --depth 1 {repo} /content/vivit-edu; pip install -q --no-deps einops medmnist pooch tabulate -e /content/vivit-edu
    sys.path.insert(0, "/content/vivit-edu")
assert importlib.util.find_spec("vivit_edu"), "this kernel lacks the course: git clone {repo}, pip install -e . in it, restart the kernel"
"""[:-1]  # noqa: E501 (a shell command is one line)


Violations = Iterator[tuple[int | None, str]]  # what a rule gives: the number of a cell, and what is wrong


@dataclass(frozen=True)
class Master:
    """A notebook that was read, with what its rules need to know: its file and the repository's address."""

    path: Path
    nb: NotebookNode
    repo: str

    @property
    def name(self) -> str:
        """The file's name without its ending: 03_tubelet_embedding."""
        return self.path.stem

    @property
    def chapter(self) -> str:
        """The number in front of the name, as it is written: "03"."""
        return self.name[:2]

    @cached_property
    def code(self) -> list[tuple[int, NotebookNode]]:
        """The code cells, each as (its number among all cells from 1, the cell)."""
        return [(n, cell) for n, cell in enumerate(self.nb.cells, 1) if cell.cell_type == "code"]

    @cached_property
    def text(self) -> list[tuple[int, NotebookNode]]:
        """The markdown cells, each as (its number among all cells from 1, the cell)."""
        return [(n, cell) for n, cell in enumerate(self.nb.cells, 1) if cell.cell_type == "markdown"]


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def owner_and_name(repo: str) -> str:
    """OWNER/NAME of https://github.com/OWNER/NAME.

    Raises ConfigError for any other kind of address: by it Colab opens notebooks, and it knows GitHub alone.
    """
    match = GITHUB.fullmatch(repo)
    if not match:
        raise ConfigError(f"{repo!r} is not the address of a repository: expected https://github.com/OWNER/NAME.")
    return match[1]


def bootstrap_cell(repo: str) -> str:
    """The source of every chapter's second cell: in Colab and on Kaggle it installs the course, elsewhere nothing.

    Without dependencies: torch is never installed again.
    """
    return BOOTSTRAP.format(repo=repo)


def badges(name: str, repo: str) -> str:
    """The two lines of markdown that open the lesson and the exercises of a chapter in Colab."""

    def badge(words: str, path: str) -> str:
        address = f"{COLAB}github/{owner_and_name(repo)}/blob/main/{path}"
        return f"[![Open the {words} in Colab]({COLAB.rstrip('/')}/assets/colab-badge.svg)]({address})"

    lesson, exercises = f"notebooks/{name}.ipynb", f"notebooks/exercises/{name}.ipynb"
    return badge("lesson", lesson) + "\n" + badge("exercises", exercises)


def master_paths(folder: Path | str) -> list[Path]:
    """The masters in a folder, in the order of their chapters."""
    return sorted(Path(folder).glob("[0-9][0-9]_*.ipynb"))


def read(path: Path | str, repo: str | None = None) -> Master:
    """Reads a notebook as a Master; the repository's address is the project's unless another is given.

    Raises ConfigError where the file is not a notebook, after a conflict of versions for instance.
    """
    import nbformat

    path = Path(path)
    try:
        nb = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (ValueError, TypeError, AttributeError, nbformat.ValidationError) as error:  # ValueError: JSON and UTF-8
        reason = str(error).strip().splitlines()[0][:100]
        raise ConfigError(
            f"{path.name} is not a readable notebook ({reason}): restore it, from git for instance."
        ) from None
    return Master(path, nb, repo or repository())


def notebook_text(nb: NotebookNode) -> str:
    """A notebook as the text of its file: the same on every machine, with a newline at the end."""
    import nbformat

    return nbformat.writes(nb).rstrip("\n") + "\n"


def write(path: Path | str, text: str) -> bool:
    """Writes a file where its text changed; returns whether it did. A write cut short leaves the old file."""
    path = Path(path)
    if path.is_file() and path.read_bytes() == text.encode("utf-8"):
        return False
    with written_whole(path) as file:
        file.write(text.encode("utf-8"))
    return True


def load_definitions(path: Path | str) -> ModuleType:
    """A module with what a master defines: imports, functions, classes and literal constants; nothing runs.

    For tests of the code that stands in notebooks, exercises solved in the masters included. Where a name
    is defined twice (a naive version, then a compact one), the later one is kept, as after a run. What cannot
    be defined without running the cells above it is left out.
    """
    import ast
    from types import ModuleType

    master = read(path)
    module = ModuleType(master.name)
    for number, cell in master.code:
        if "bootstrap" in tags(cell):
            continue
        for node in filter(_defines, ast.parse(cell.source).body):
            code = compile(ast.Module([node], []), f"{master.path.name}, cell {number}", "exec")
            try:
                exec(code, module.__dict__)
            except NameError:  # a default or a base class that only a run of the cells above would give
                continue
    return module


def _defines(node: ast.stmt) -> bool:
    import ast

    if isinstance(node, ast.Assign):  # DIM = 128, which a default argument may use
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError):
            return False
        return all(isinstance(target, ast.Name) for target in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef))
