"""Volumes as clips: the data sets of the course by name, and the folder where their files are.

`load_volumes` gives the set you ask for or an error, never another set. `course_volumes` is the one place that may
choose, and it tells you so. How each set comes about is in `datasets/`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .datasets.bars import walking_bars  # noqa: F401  (notebooks take it from here)
from .datasets.medmnist import MEDMNIST3D, UnreachableError, load_medmnist
from .errors import ConfigError
from .support.places import ROOT, given_folder, kept, user_cache
from .volumes import SPLITS, Mirror, Split, Volumes, describe, find_mirror_axis  # noqa: F401

NAMES = (*MEDMNIST3D, "organphantom3d", "movingshapes")
SIZES = (28, 64)


def load_volumes(
    name: str = "organmnist3d", *, size: int = 28, root: Path | str | None = None, download: bool = True
) -> Volumes:
    """Load the data set `name` as clips uint8 [B, 1, size, size, size], values 0 to 255; never another set.

    A volume becomes a clip of one channel whose time is the volume's first axis. name: one of MedMNIST3D's six sets,
    "organphantom3d", which is generated on first use and kept, or "movingshapes", which is generated every time, in
    seconds. size: 28 or 64. root: the folder with the files; None is what `data_root` finds. download: whether a
    missing file may be downloaded; it goes to `root` and is kept.

    Raises ConfigError for another name or size, and DataError if the file is missing and cannot be downloaded, is
    damaged, has another layout or not MedMNIST's MD5 (a file that you put there is never deleted), or if `root`
    cannot be written to.

    Source: MedMNIST v2 (Yang et al., Scientific Data 2023).
    """
    if name not in NAMES:
        raise ConfigError(f"There is no data set {name!r}; there are {', '.join(NAMES)}.")
    if size not in SIZES:
        raise ConfigError(f"size={size!r}: the volumes come in the sizes 28 and 64.")
    size = int(size)  # 28.0 and numpy's 28 are 28 too
    if name == "movingshapes":
        from .datasets.shapes import generate_shapes

        return generate_shapes(size)
    path = data_root(root) / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
    if name == "organphantom3d":
        from .datasets.phantom import load_phantom

        return load_phantom(size, path)
    return load_medmnist(name, size, path, download)


def course_volumes(size: int = 28, *, root: Path | str | None = None) -> Volumes:
    """Load the data set of the notebooks: $VIVIT_EDU_DATASET if it is set, else OrganMNIST3D if its file is there or
    can be downloaded, else the phantom, with a notice that says so.

    size and root: as in `load_volumes`. A file of OrganMNIST3D that is there but damaged is an error, as there.
    """
    chosen = os.environ.get("VIVIT_EDU_DATASET")
    if chosen:
        return load_volumes(chosen, size=size, root=root)
    try:
        return load_volumes("organmnist3d", size=size, root=root)
    except UnreachableError as error:
        line = "=" * 88
        print(
            f"{line}\nNOT REAL DATA: OrganMNIST3D is not available, so this runs on organphantom3d,\n"
            "a SYNTHETIC torso. It is not a CT of a patient, and a score on it says nothing about\n"
            f"OrganMNIST3D. Why, and what to do:\n{error}\n{line}",
            file=sys.stderr,
            flush=True,
        )
    return load_volumes("organphantom3d", size=size, root=root)


def data_root(root: Path | str | None = None) -> Path:
    """Return the folder of the data files: `root`, else $VIVIT_EDU_DATA, else, in Colab, a folder on Google Drive if
    that is mounted, else `data/` of the checkout that the package runs from, else the user's cache folder. Only `root`
    may depend on the working directory.

    Raises ConfigError if `root` or the variable does not name a folder.
    """
    if root is not None:
        return given_folder("root", root).absolute()
    if chosen := os.environ.get("VIVIT_EDU_DATA"):
        folder = given_folder("VIVIT_EDU_DATA", chosen)
        if not folder.is_absolute():
            raise ConfigError(
                f"VIVIT_EDU_DATA={chosen!r} means another folder in every working directory: "
                "give the whole path, from the root or from ~."
            )
        return folder
    if lasting := kept():
        return lasting / "data"
    project = ROOT / "pyproject.toml"
    if project.is_file() and 'name = "vivit-edu"' in project.read_text(encoding="utf-8"):
        return ROOT / "data"
    return user_cache()
