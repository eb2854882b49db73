"""The set-up check says what is missing, what is too old and how to get it."""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import ModuleType

import pytest

from vivit_edu.course import setup
from vivit_edu.course.recorded import own_run
from vivit_edu.data import data_root
from vivit_edu.support import places


def installed(monkeypatch, **changes):
    """Everything at its least version but for these packages (None: not installed)."""
    least = {name: version for name, version, _ in setup.NEEDED} | changes

    def version(name):
        if least[name] is None:
            raise PackageNotFoundError(name)
        return least[name]

    monkeypatch.setattr(setup, "version", version)


def test_the_least_versions_are_those_of_the_project():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = project["dependencies"] + project["optional-dependencies"]["notebooks"]
    least = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in stated)
    assert {name: version for name, version, _ in setup.NEEDED} == {name: least[name] for name, *_ in setup.NEEDED}
    assert set(project_names(project["dependencies"])) - {"pillow"} <= {name for name, *_ in setup.NEEDED}


def project_names(lines):
    return [re.match(r"[\w-]+", line)[0] for line in lines]


def test_all_there(monkeypatch, capsys):
    installed(monkeypatch, torch="2.15.0+cu128", numpy="2.0.1")
    assert setup.setup_check()
    text = capsys.readouterr().out
    assert "Everything is installed." in text and "pip" not in text and "MISSING" not in text
    assert re.search(r"GPU", text) and "phantom" in text


@pytest.mark.parametrize(
    "package, version, state",
    [
        ("einops", None, "MISSING"),
        ("torch", None, "MISSING"),
        ("torch", "2.7.1", "TOO OLD, needs 2.9"),
        ("numpy", "1.9.3", "TOO OLD, needs 1.26"),
        ("medmnist", "", "TOO OLD"),
    ],
)
def test_what_is_wanting_is_named_with_what_to_type(monkeypatch, capsys, package, version, state):
    installed(monkeypatch, **{package: version})
    assert not setup.setup_check()
    text = capsys.readouterr().out
    least = {name: least for name, least, _ in setup.NEEDED}[package]
    assert re.search(rf"^{package} .*{state}", text, re.M)
    assert f'pip install "{package}>={least}"\n' in text and "uv sync" in text


def test_a_newer_version_is_not_compared_as_text(monkeypatch):
    installed(monkeypatch, torch="2.10.0", tqdm="4.100")
    assert all(package.fine for package in setup.packages())


@pytest.mark.parametrize(
    "here, words",
    [
        ((), "fetched on first use; the phantom is generated"),
        (("organphantom3d",), "the phantom is here"),
        (("organmnist3d",), "OrganMNIST3D is here"),
    ],
)
def test_the_data_are_looked_for_and_not_fetched(monkeypatch, tmp_path, here, words):
    monkeypatch.setenv("VIVIT_EDU_DATA", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for name in here:
        (tmp_path / f"{name}.npz").touch()
    line = setup.data_line()
    assert words in line and str(tmp_path) not in line
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.npz" for name in here]


def test_in_colab_it_is_said_whether_anything_is_kept(monkeypatch, tmp_path):
    assert setup.session_line() is None  # not in Colab
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(places, "DRIVE", tmp_path / "MyDrive")
    assert "are lost" in setup.session_line() and "drive.mount" in setup.session_line()
    (tmp_path / "MyDrive").mkdir()
    assert "kept on your Google Drive" in setup.session_line()


def test_on_a_mounted_drive_data_and_runs_outlive_the_session(monkeypatch, tmp_path):
    for name in ("VIVIT_EDU_DATA", "VIVIT_EDU_RUNS"):
        monkeypatch.delenv(name, raising=False)
    here = data_root(), own_run("tiny")
    monkeypatch.setattr(places, "DRIVE", tmp_path)
    kept = tmp_path / "vivit-edu"
    assert (data_root(), own_run("tiny")) == (kept / "data", kept / "runs" / "chapter12-tiny")
    assert here == (places.checkout() / "data", places.checkout() / "runs" / "chapter12-tiny")
    monkeypatch.setenv("VIVIT_EDU_DATA", str(tmp_path / "mine"))
    assert data_root() == tmp_path / "mine"
