"""`setup_check`: what of the course's needs is installed here, what is missing and how to get it.

Looks at installed versions only and imports nothing but torch, so that it also runs where much is missing.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ..support.places import home, kept

# package, least version (a test holds them equal to pyproject.toml), what the course needs it for
NEEDED = (
    ("torch", "2.9", "everything"),
    ("einops", "0.8.2", "everything"),
    ("numpy", "1.26", "everything"),
    ("scipy", "1.13", "the phantom"),
    ("scikit-learn", "1.5", "baselines and AUC"),
    ("matplotlib", "3.9", "figures"),
    ("tqdm", "4.66", "progress bars"),
    ("torchvision", "0.24", "image models, chapter 10"),
    ("safetensors", "0.4.5", "pretrained weights, chapter 10"),
    ("pooch", "1.8", "downloads"),
    ("tabulate", "0.9", "tables"),
    ("medmnist", "3.0.2", "OrganMNIST3D; the phantom works without it"),
    ("ipywidgets", "8.1.5", "sliders (without it you see film strips instead)"),
    ("jupyterlab", "4.3", "to open the notebooks, unless you use Colab or an editor"),
)


class Package(NamedTuple):
    name: str
    found: str | None  # the version that is installed
    least: str
    purpose: str

    @property
    def fine(self) -> bool:
        return self.found is not None and numbers(self.found) >= numbers(self.least)


def numbers(text: str) -> tuple[int, ...]:
    """The release in a version's text, to compare by: "2.8.0+cu128" -> (2, 8, 0)."""
    release = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, release[0].split("."))) if release else ()


def packages() -> list[Package]:
    """What is installed of what the course needs."""
    found = []
    for name, least, purpose in NEEDED:
        try:
            found.append(Package(name, version(name), least, purpose))
        except PackageNotFoundError:
            found.append(Package(name, None, least, purpose))
    return found


def advice(found: list[Package]) -> list[str]:
    """What to type for the packages that are missing or too old: lines of text, none where all are fine."""
    wanting = [p for p in found if not p.fine]
    if not wanting:
        return []
    asked = " ".join(f'"{p.name}>={p.least}"' for p in wanting)
    return [
        "To get what is missing, in the folder of the course: uv sync",
        f"or, in an environment of your own: pip install {asked}",
        "Then restart the kernel and run this again.",
    ]


def device_line() -> str:
    """Where models will run here, in words."""
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = torch.cuda.get_device_name(0)
        return f"GPU: {name}, {memory:.0f} GiB. The full run of chapter 12 and the command line take it."
    if torch.backends.mps.is_available():
        return "GPU: Apple's, by mps. The full run of chapter 12 and the command line take it."
    return f"No GPU; {torch.get_num_threads()} CPU threads. That is enough for every chapter."


def data_line() -> str:
    """Whether the course's data set is here already; fetches and generates nothing."""
    from ..data import data_root

    places = (data_root(), home() / ".medmnist")
    there = {
        name
        for name in ("organmnist3d", "organphantom3d")
        if any((place / f"{name}.npz").is_file() for place in places)
    }
    real = "OrganMNIST3D is here" if "organmnist3d" in there else "OrganMNIST3D is not here: it is fetched on first use"
    phantom = "here" if "organphantom3d" in there else "generated on first use, in a minute or two"
    return f"Data: {real}; the phantom is {phantom}."


def session_line() -> str | None:
    """In Colab, whether downloads and runs are kept, and how to keep them; None elsewhere."""
    if "google.colab" not in sys.modules:
        return None
    if kept():
        return "Colab: data and runs are kept on your Google Drive, in the folder vivit-edu."
    return (
        "Colab: data and runs are lost when this session ends. To keep them on your Google Drive, run\n"
        '       from google.colab import drive; drive.mount("/content/drive")'
    )


def setup_check() -> bool:
    """Prints what is installed, the device and the data; returns whether all packages are there and new enough."""
    found = packages()
    for package in found:
        state = "fine" if package.fine else "MISSING" if package.found is None else f"TOO OLD, needs {package.least}"
        print(f"{package.name:<14}{package.found or '–':<14}{state:<10} {package.purpose}")
    missing = advice(found)
    if "torch" not in {p.name for p in found if p.found is None}:
        print(device_line())
        print(data_line())
        if line := session_line():
            print(line)
    print("\n".join(missing) if missing else "Everything is installed.")
    return not missing
