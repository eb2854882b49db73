"""Where things are: the checkout that the package runs from, and the repository that it comes from."""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path

from ..errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]  # the checkout, or the folder that an installed package lies in
DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts the reader's Google Drive


def checkout() -> Path:
    """Return the folder of the checkout that the package runs from.

    Raises ConfigError where the package was installed without one: then there are no notebooks.
    """
    if not (ROOT / "pyproject.toml").is_file() or not (ROOT / "notebooks").is_dir():
        raise ConfigError(
            "the course's notebooks are not here: the package is installed without them. "
            f"Clone the repository, {repository()}, and run the command inside it with `uv run`."
        )
    return ROOT


def given_folder(name: str, value: Path | str) -> Path:
    """Return the path that was given, ~ replaced by the home folder.

    name: of the argument or variable, for messages. Raises ConfigError where the path is empty, as a variable that
    nobody set is, and where there is no user of that name.
    """
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise ConfigError(f"{name}={value!r} does not name a folder: give its path, or leave {name} out.")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}={str(value)!r}: there is no user of that name; give the whole path.") from None


def kept() -> Path | None:
    """Return the folder that outlives a session in Colab: `vivit-edu` on Google Drive, if that is mounted, else None.

    A machine of Colab's is thrown away with all that was downloaded and trained on it.
    """
    return DRIVE / "vivit-edu" if DRIVE.is_dir() else None


def home() -> Path:
    """Return the user's home folder; for a user who has none, as in some containers, a folder that is not there."""
    try:
        return Path.home()
    except RuntimeError:
        return Path("/nonexistent")


def user_cache() -> Path:
    """Return the folder `vivit-edu` among the user's caches, as the operating system has it."""
    if sys.platform == "darwin":
        caches = home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")
    return caches / "vivit-edu"


def repository() -> str:
    """Return the repository's address, from the checkout's pyproject.toml or from the installed package."""
    project = ROOT / "pyproject.toml"
    if project.is_file():
        return tomllib.loads(project.read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
    from importlib.metadata import metadata

    urls = dict(url.split(", ", 1) for url in metadata("vivit-edu").get_all("Project-URL") or [])
    return urls["Repository"]
