"""The six MedMNIST3D sets: where their files are, what must be in them, and how arrays become `Volumes`.

A file is looked over before it is used: first the headers of its arrays, then its MD5, then the labels.

Source: MedMNIST v2 (Yang et al., Scientific Data 2023).
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from ..errors import DataError
from ..support.files import check_regular, shown, written_whole
from ..support.npz import npz_arrays, npz_headers
from ..support.places import home
from ..volumes import SPLITS, Mirror, Split, Volumes, find_mirror_axis

MEDMNIST3D = (
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
)
# The organs that have sides, in OrganMNIST3D's order of classes: after a left-right flip class k is
# class ORGAN_SWAP[k]. Which axis is left-right is found from the training data (`find_mirror_axis`).
ORGAN_SWAP = (0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10)
RIGHT_KIDNEY, LEFT_KIDNEY = 1, 2
# What each split holds in the file: the kind of numbers, and the shape for N volumes of a size.
LAYOUT = {"images": ("uint8", lambda n, s: (n, s, s, s)), "labels": ("integer", lambda n, s: (n, 1))}
TIMEOUT = 10  # seconds that a server may take to answer, and that a connection may stay silent
ELSEWHERE = "name another folder: root=..., --root, or the variable VIVIT_EDU_DATA"


class UnreachableError(DataError):
    """A file that is not there and cannot be downloaded, as without a network."""


def load_medmnist(name: str, size: int, path: Path, download: bool) -> Volumes:
    """Load one of the MedMNIST3D sets from its file, which is downloaded if it is missing.

    name: one of MEDMNIST3D. size: 28 or 64. path: where the file belongs; medmnist's own folder is looked into as
    well. download: whether a missing file may be downloaded. Raises UnreachableError where there is no file, and
    DataError where there is one that is damaged, has another layout or not MedMNIST's MD5. A file that was there
    before is never changed.
    """
    places = (path, home() / ".medmnist" / path.name)  # the second is where medmnist itself keeps it
    found = next((place for place in places if is_data_file(place)), None)
    tried = f"{path.name} is neither in {shown(path.parent)} nor in {shown(places[1].parent)}"
    table = medmnist_table()
    if table is None:
        error = DataError if found else UnreachableError
        raise error(f"The package medmnist, which knows the files of {name}, is missing: pip install medmnist.")
    flag = "" if size == 28 else f"_{size}"
    url, md5 = table[name][f"url{flag}"], table[name][f"MD5{flag}"]
    by_hand = f"By hand: download {url} (MD5 {md5}) and put it at {shown(path)}."
    if found is None:
        if not download:
            raise UnreachableError(f"{tried}, and download=False.\n{by_hand}")
        try:
            fetch(url, path, md5)
        except UnreachableError as error:
            raise UnreachableError(f"{tried}.\n{error}\n{by_hand}") from error
        found = path
    class_names = tuple(table[name]["label"][str(k)] for k in range(len(table[name]["label"])))
    try:
        arrays = read_splits(found, size, LAYOUT, len(class_names), md5)
    except DataError as fault:
        cure = f"The file was left as it was; once you have moved it away, it is downloaded again. {by_hand}"
        raise DataError(f"{fault}\n{cure}") from None
    return as_volumes(name, class_names, arrays)


def medmnist_table() -> dict[str, dict] | None:
    """Return medmnist's table of its files, or None where medmnist is not installed.

    The table is one module. We load it by itself: the package around it takes as long to import as torch.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None or package.origin is None:  # not installed; only a folder of that name
        return None
    spec = importlib.util.spec_from_file_location("medmnist.info", Path(package.origin).with_name("info.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.INFO


def fetch(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path` under a progress bar; the file appears only when it is complete and its MD5 is `md5`.

    Raises UnreachableError where it cannot be downloaded or is another file, and DataError where it cannot be written.
    """
    import pooch

    ask = pooch.HTTPDownloader(
        progressbar=True, timeout=TIMEOUT, headers={"User-Agent": "vivit-edu"}, hooks={"response": _stay_with_https}
    )
    with written_whole(path, elsewhere=ELSEWHERE) as file:
        try:
            _refuse_other_than_https(url)
            ask(url, file, None)
        except UnreachableError:
            raise
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) is not None:  # a fault of the disk: those of the network have no number
                raise
            raise UnreachableError(f"{url} could not be downloaded: {error or type(error).__name__}.") from error
        file.flush()
        if (seen := md5_of(file.name)) != md5:
            raise UnreachableError(
                f"{url} sent something else than expected (MD5 {seen}, not {md5}): "
                "a connection cut short, or a log-in page of the network. Nothing was kept."
            )


def _refuse_other_than_https(url: str) -> None:
    if not url.lower().startswith("https://"):
        raise UnreachableError(f"{url} is not an https address: nothing was downloaded.")


def _stay_with_https(response: Any, **_: object) -> None:
    """Called with each answer of the server, before a redirection is followed."""
    if response.is_redirect and "://" in response.headers["Location"]:
        _refuse_other_than_https(response.headers["Location"])


# ---- looking over ---------------------------------------------------------------------------------


def is_data_file(path: Path) -> bool:
    """Return whether there is a file at `path`.

    Raises DataError where something else has that name, such as a folder, or where the place cannot be looked into.
    """
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except DataError as error:
        raise DataError(f"{error}: move it away, or {ELSEWHERE}.") from None
    except (OSError, ValueError) as error:  # a folder that must not be looked into, a name no system takes
        fault = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(path)} cannot be read: {fault}. Make its folder readable, or {ELSEWHERE}.") from error
    return True


def read_splits(path: Path, size: int, layout: dict, classes: int, md5: str | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of all splits from the file at `path`.

    size: of the volumes. layout: for each part of a split its kind of numbers and its shape, as in LAYOUT. classes:
    how many there are. md5: what the file's must be; None asks for none. Returns `{"train_images": array, ...}`.
    Raises DataError where anything is not as it should be; no array is read before the headers fit.
    """
    keys = [f"{split}_{part}" for split in SPLITS for part in layout]
    headers = npz_headers(path, keys)
    for split in SPLITS:
        shape = headers[f"{split}_images"][1]
        count = shape[0] if shape else 0
        if count < 1:
            raise DataError(f"{shown(path)}: the split {split} is empty.")
        for part, (kind, expected) in layout.items():
            dtype, shape = headers[f"{split}_{part}"]
            fits = dtype.kind in "iu" if kind == "integer" else dtype == kind
            if not fits or shape != expected(count, size):
                raise DataError(
                    f"{shown(path)}: {split}_{part} is {dtype} {list(shape)}, "
                    f"expected was {kind} {list(expected(count, size))}."
                )
    if md5 is not None and (seen := md5_of(path)) != md5:
        raise DataError(f"{shown(path)} is not MedMNIST's file: its MD5 is {seen}, expected was {md5}.")
    arrays = npz_arrays(path, keys)
    for split in SPLITS:
        labels = arrays[f"{split}_labels"]
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(
                f"{shown(path)}: the labels of {split} run from {labels.min()} to {labels.max()}, "
                f"but there are {classes} classes, 0 to {classes - 1}."
            )
    return arrays


def md5_of(path: Path | str) -> str:
    """Return the MD5 of a file, 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def native(array: np.ndarray) -> np.ndarray:
    """The array in the byte order of this machine, the only one that torch takes."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_volumes(name: str, class_names: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Volumes:
    """Turn the arrays of `read_splits` into `Volumes`: clips uint8 [B, 1, T, H, W], time being the first axis."""
    splits = {}
    for split in SPLITS:
        images, patients, masks = (
            torch.from_numpy(native(arrays[key])) if (key := f"{split}_{part}") in arrays else None
            for part in ("images", "patients", "masks")
        )
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))  # whatever integers, in any byte order
        clips = rearrange(images, "n t h w -> n 1 t h w")  # one channel
        splits[split] = Split(clips, rearrange(labels, "n 1 -> n"), patients, masks)
    mirror = None
    if name in ("organmnist3d", "organphantom3d"):
        mirror = Mirror(find_mirror_axis(splits["train"], RIGHT_KIDNEY, LEFT_KIDNEY), ORGAN_SWAP)
    return Volumes(name, class_names, **splits, mirror=mirror)
