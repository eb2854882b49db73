"""The bootstrap cell as Colab runs it: an environment that has torch but not this course, and `google.colab` loaded.

What is Colab's: the environment is a new one that sees the packages installed here, but for those that Colab lacks;
git finds the repository's address on this disk, at the last commit; /content is a temporary folder. The cheapest
chapter runs in every test; all of them by

    VIVIT_EDU_COLAB=all uv run pytest tests/test_colab.py
"""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from vivit_edu.authoring.masters import bootstrap_cell, master_paths, read, repository
from vivit_edu.authoring.notebooks import ENVIRONMENT
from vivit_edu.course.map import course_map

ROOT = Path(__file__).parents[2]
MASTERS = {path.name: path for path in master_paths(ROOT / "notebooks")}
CHEAPEST = sorted((row for row in course_map() if row["seconds"]), key=lambda row: row["seconds"])[:1]
CHAPTERS = sorted(MASTERS) if os.environ.get("VIVIT_EDU_COLAB") == "all" else sorted(row["file"] for row in CHEAPEST)
LACKING = (
    "einops",
    "medmnist",
    "pooch",
    "tabulate",
    "vivit_edu",
    "_vivit_edu",
    "_editable_impl_vivit_edu",
    "__editable__",
    "_virtualenv",
    "pip",
    "setuptools",
)
RUN = """
import sys, types
sys.modules["google"], sys.modules["google.colab"] = types.ModuleType("google"), types.ModuleType("google.colab")
import nbformat
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for number, cell in enumerate(nbformat.read(sys.argv[1], as_version=4).cells, 1):
    if cell.cell_type == "code":
        result = shell.run_cell(cell.source.replace("/content/", sys.argv[2] + "/"), store_history=False)
        if not result.success:
            sys.exit(f"cell {number} failed: {result.error_before_exec or result.error_in_exec!r}")
import torch, vivit_edu, einops
print("RAN", torch.__version__, torch.__file__, vivit_edu.__file__, einops.__file__, sep="|")
"""


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A folder with the environment, and the variables that a process in it needs."""
    if sys.platform == "win32":
        pytest.skip("Colab is a Linux: its cells call git and pip by the shell")
    if subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("needs a git checkout to clone from")
    home = tmp_path_factory.mktemp("colab")
    venv.create(home / "env", with_pip=True, symlinks=True)
    import torch

    here, preinstalled = Path(torch.__file__).parents[1], home / "preinstalled"
    preinstalled.mkdir()
    for entry in here.iterdir():
        if not entry.name.startswith(LACKING) and entry.suffix != ".pth":
            (preinstalled / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    packages = next((home / "env").glob("lib/python*/site-packages"))
    (packages / "preinstalled.pth").write_text(f"{preinstalled}\n")
    (home / "content").mkdir()
    settings = {f"url.{ROOT.as_uri()}.insteadOf": repository(), "safe.directory": "*"}
    pairs = {
        f"GIT_CONFIG_{kind}_{n}": text
        for n, pair in enumerate(settings.items())
        for kind, text in zip(("KEY", "VALUE"), pair)
    }
    environment = (
        os.environ
        | ENVIRONMENT
        | pairs
        | {
            "GIT_CONFIG_COUNT": str(len(settings)),
            "PATH": f"{home / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIVIT_EDU_DATA": str(ROOT / "data"),
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "IPYTHONDIR": str(home / "ipython"),
            "MPLBACKEND": "agg",
        }
    )
    environment.pop("PYTHONPATH", None)
    environment.pop("VIRTUAL_ENV", None)
    return home, environment, packages


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_starts_and_runs_in_colab(colab, phantom, name):
    home, environment, packages = colab
    ran = subprocess.run(
        [home / "env" / "bin" / "python", "-c", RUN, MASTERS[name], home / "content"],
        cwd=home / "content",
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    import torch

    _, version, theirs, course, einops = next(
        line for line in ran.stdout.splitlines() if line.startswith("RAN|")
    ).split("|")
    assert version == torch.__version__ and theirs.startswith(str(home / "preinstalled")), "torch was installed again"
    assert Path(course) == home / "content" / "vivit-edu" / "vivit_edu" / "__init__.py", "the clone's package"
    assert einops.startswith(str(packages)), "einops, which Colab lacks, was installed"
    installed = {path.name.split("-")[0] for path in packages.glob("*.dist-info")}
    assert installed <= {"pip", "setuptools", "einops", "medmnist", "pooch", "tabulate", "vivit_edu"}, (
        "more was installed than what is missing"
    )
    command = subprocess.run(
        [home / "env" / "bin" / "vivit-edu", "train", "--help"], env=environment, capture_output=True, text=True
    )
    assert command.returncode == 0 and "--preset" in command.stdout, command.stderr


def test_every_chapter_has_this_bootstrap():
    """The rule that every chapter's second cell is this one is what makes one chapter stand for all."""
    for path in MASTERS.values():
        assert read(path).nb.cells[1].source == bootstrap_cell(repository())
    assert "torch" not in bootstrap_cell("x").split("pip install")[1].splitlines()[0] and "--no-deps" in bootstrap_cell(
        "x"
    )
