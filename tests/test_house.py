"""The house stands: imports run one way, without circles; each name has one home; training pulls in little."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vivit_edu"
FILES = sorted(PACKAGE.rglob("*.py"))
LESSONS = {*"volumes data cnn embedding attention vivit models cost pretrained".split()}
LESSONS |= {*"augment optimisers training explain plots".split()}
# The floors of the house, from the ground up: a module imports from its own floor and from those below.
FLOORS = [
    {"errors", "support"},
    LESSONS | {"datasets", "weights"},
    {"experiments"},
    {"course"},
    {"authoring"},
    {"cli", "__main__"},
]
# classrooms that were handed out name RestoreCells by its old place, which leads up to the new one
EXCEPTIONS = {("course.restore", "authoring.restore")}


def module_of(path):
    """The name of a file's module below vivit_edu, "" for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path, at_load_only=False):
    """The modules of ours that a file imports; at_load_only: without those inside functions and TYPE_CHECKING."""
    name, tree = module_of(path), ast.parse(path.read_text(encoding="utf-8"))
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    package = [part for part in package if part]
    found = set()

    def visit(node):
        for child in ast.iter_child_nodes(node):
            if at_load_only and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom):
                if child.level:
                    base = package[: len(package) - child.level + 1] + (child.module or "").split(".")
                elif (child.module or "").split(".")[0] == "vivit_edu":
                    base = child.module.split(".")[1:]
                else:
                    continue
                base = ".".join(part for part in base if part)
                for alias in child.names:
                    inner = f"{base}.{alias.name}".lstrip(".")
                    found.add(inner if inner in MODULES else base)
            visit(child)

    visit(tree)
    return found - {name}


def floor(module):
    top = module.split(".")[0]
    return next((number for number, rooms in enumerate(FLOORS) if top in rooms), None)


def test_every_file_has_a_room():
    homeless = [name for name in MODULES if name and floor(name) is None]
    assert not homeless, f"add them to FLOORS, or to a room: {homeless}"


def test_imports_run_one_way():
    upward = [
        (name, target)
        for name, path in MODULES.items()
        if name
        for target in imports(path)
        if target and floor(target) > floor(name) and (name, target) not in EXCEPTIONS
    ]
    assert not upward


def test_no_import_runs_in_a_circle():
    graph = {name: imports(path, at_load_only=True) for name, path in MODULES.items()}
    done, circles = set(), []

    def walk(name, trail):
        if name in trail:
            circles.append(trail[trail.index(name) :] + [name])
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                # a package's own file may import its parts, which name the package only by its other parts
                if not name.startswith(f"{target}.") and target:
                    walk(target, trail + [name])
            done.add(name)

    for name in graph:
        walk(name, [])
    assert not circles


def test_the_lessons_can_be_read_in_an_evening():
    """A dozen files beside the rooms; a lesson of several files has a folder."""
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "cli", "errors"}
    assert beside | {"augment", "explain"} == LESSONS
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms == {"augment", "explain", "datasets", "weights", "support", "experiments", "course", "authoring"}


def test_each_name_has_one_home():
    """Public functions, classes and constants: the same word is one thing.

    `course.ready` has the course's version of what the reader writes, under the names that the exercises ask for.
    """
    homes = defaultdict(set)
    for name, path in MODULES.items():
        if name.startswith("course.ready."):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                defined = [node.name]
            elif isinstance(node, ast.Assign):
                defined = [target.id for target in node.targets if isinstance(target, ast.Name)]
            else:
                continue
            for word in defined:
                if not word.startswith("_"):
                    homes[word].add(name)
    twice = {word: sorted(found) for word, found in homes.items() if len(found) > 1}
    assert not twice


def loaded_by(code):
    """The modules of ours that a new process holds after running the code."""
    code += "; import sys; print(*(name for name in sys.modules if name.split('.')[0] == 'vivit_edu'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.split()


@pytest.mark.parametrize("code, most", [("from vivit_edu.training import fit", 12), ("import vivit_edu", 1)])
def test_little_is_loaded(code, most):
    loaded = loaded_by(code)
    assert len(loaded) <= most, loaded


def test_the_lessons_load_without_what_only_the_course_needs():
    """Training, the phantom and attention maps work where medmnist and jupyter are not installed."""
    missing = "medmnist ipywidgets IPython nbformat nbconvert nbgrader pandas jupyter_client sphinx".split()
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing}))\n"  # importing one of them is an ImportError
        "import vivit_edu.training, vivit_edu.explain, vivit_edu.data, vivit_edu.datasets.phantom, vivit_edu.plots\n"
        "import vivit_edu.experiments.runs, vivit_edu.cli\n"
        "[getattr(vivit_edu, name) for name in vivit_edu.__all__]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# ---- what an editor makes of it


def test_the_package_says_that_it_is_typed():
    assert (PACKAGE / "py.typed").is_file()


def test_an_editor_finds_every_exported_name():
    """jedi, which JupyterLab's completion asks, finds the definition and the signature behind a lazy name."""
    import jedi

    import vivit_edu

    unknown = []
    for name in vivit_edu.__all__:
        source = f"from vivit_edu import {name}\n{name}"
        found = jedi.Script(source, project=jedi.Project(ROOT)).goto(2, 0, follow_imports=True)
        if not found or not str(found[0].module_path or "").startswith(str(PACKAGE)) or found[0].type == "module":
            unknown.append(name)
    assert not unknown
    source = "from vivit_edu import build_model\nbuild_model("
    (signature,) = jedi.Script(source, project=jedi.Project(ROOT)).get_signatures(2, 12)
    assert [parameter.name for parameter in signature.params] == ["name", "clip_shape", "num_classes", "options"]


def public_functions():
    """(place, node) of every public function and method of the package."""
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{name}.{node.name}", node
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and (
                        not inner.name.startswith("_") or inner.name == "__init__"
                    ):
                        yield f"{name}.{node.name}.{inner.name}", inner


def test_public_functions_have_type_hints():
    bare = []
    for place, node in public_functions():
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        unhinted = [a.arg for a in given if a.annotation is None and a.arg not in ("self", "cls")]
        if unhinted or (node.returns is None and not place.endswith("__init__")):
            bare.append(f"{place}({', '.join(unhinted)})")
    assert not bare, f"{len(bare)} without hints: {bare}"


def test_one_docstring_dialect():
    """Plain prose: no sections of other dialects."""
    sections = [
        place
        for place, node in public_functions()
        if (text := ast.get_docstring(node))
        and any(f"\n{word}:" in text for word in ("Args", "Returns", "Raises", "Yields"))
        or ":param" in (ast.get_docstring(node) or "")
    ]
    assert not sections
