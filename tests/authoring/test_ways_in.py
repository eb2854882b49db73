"""The ways into the course besides a clone: their files are read and name what there is. No service is asked."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import nbformat
import pytest
import yaml
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement

from vivit_edu.authoring.masters import PLOT, bootstrap_cell, master_paths, tags
from vivit_edu.authoring.site import first_page

ROOT = Path(__file__).parents[2]
REPO = "https://github.com/vivit-edu/vivit-edu"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = {Requirement(text).name: Requirement(text) for text in PROJECT["dependencies"]}
CHAPTERS = master_paths(ROOT / "notebooks")


def installed_by(command):
    """The extras of the project that `pip install -e .[…]` in a command installs."""
    (extras,) = re.findall(r"python -m pip install (?:--no-cache-dir )?-e [\"']\.\[([\w,]+)\][\"']", command)
    return extras.split(",")


def test_codespaces_installs_what_the_notebooks_need_and_opens_the_first_one():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert (
        installed_by(container["postCreateCommand"]) == ["notebooks"]
        and "notebooks" in PROJECT["optional-dependencies"]
    )
    assert container["image"].endswith(":3.12") and "3.12" in Requirement(f"x{PROJECT['requires-python']}").specifier
    assert container["customizations"]["codespaces"]["openFiles"] == ["notebooks/00_start_here.ipynb"]
    extensions = container["customizations"]["vscode"]["extensions"]
    assert {"ms-python.python", "ms-toolsai.jupyter"} == set(extensions)


def test_binder_takes_torch_from_conda_and_the_rest_from_the_project():
    environment = yaml.safe_load((ROOT / ".binder" / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    asked = {re.split("[=<>]", text)[0]: text for text in environment["dependencies"]}
    assert asked["pytorch"].replace("pytorch", "torch") == str(NEEDED["torch"])
    assert asked["torchvision"] == str(NEEDED["torchvision"]) and asked["python"] == "python=3.12"
    assert set(asked) == {"python", "pip", "pytorch", "torchvision"}
    script = ROOT / ".binder" / "postBuild"
    assert installed_by(script.read_text(encoding="utf-8")) == ["notebooks"]
    if sys.platform != "win32":
        assert os.access(script, os.X_OK) and subprocess.run(["bash", "-n", script]).returncode == 0


def test_the_first_page_leads_to_binder_and_codespaces():
    links = re.findall(r"\]\((https://\S+?)\)", first_page(ROOT / "notebooks", REPO))
    (binder,) = [urlparse(link) for link in links if "mybinder" in link]
    assert binder.path == "/v2/gh/vivit-edu/vivit-edu/main"
    (opened,) = parse_qs(binder.query)["urlpath"]
    assert opened.startswith("lab/tree/") and (ROOT / opened.removeprefix("lab/tree/")).is_file()
    assert "https://codespaces.new/vivit-edu/vivit-edu" in links


@pytest.mark.parametrize("kaggle", [True, False])
def test_on_kaggle_the_first_cell_fetches_the_course_and_elsewhere_nothing(monkeypatch, kaggle):
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if kaggle:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr(sys, "path", list(sys.path))
    commands = []
    shell = type("Shell", (), {"system": staticmethod(commands.append)})
    exec(TransformerManager().transform_cell(bootstrap_cell(REPO)), {"get_ipython": lambda: shell})
    if not kaggle:
        assert commands == []
        return
    (command,) = commands
    assert command.startswith(f"git clone -q --depth 1 {REPO} ") and "--no-deps" in command
    assert sys.path[0] == command.split()[6].rstrip(";"), "the clone is what is imported"


@pytest.mark.parametrize("folder", ["notebooks", "notebooks/exercises"])
def test_cells_that_draw_are_forms_in_colab_and_folded_in_jupyterlab(folder):
    found = 0
    for path in master_paths(ROOT / folder):
        for cell in nbformat.read(path, as_version=4).cells:
            if PLOT in tags(cell):
                assert cell.metadata.cellView == "form" and cell.metadata.jupyter.source_hidden, path.name
                found += 1
    assert found > 40


def test_the_guide_says_how_to_start_on_kaggle_binder_and_codespaces():
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    section = text.split("## Where it runs")[1].split("\n## ")[0]
    for way in ("Colab", "Kaggle", "Binder", "Codespaces", "conda"):
        assert f"**{way}" in section
    assert "not tried" in section
