"""Volumes as clips: the six MedMNIST3D sets and the phantom, found, fetched and looked over.

`load_volumes` gives the set that was asked for or an error, never another set. `course_volumes`
is the one place that may choose, and it says so.
"""

import importlib.util
import os
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from .errors import ConfigError, DataError
from .support.files import UnreachableError, download, md5_of, npz_arrays, npz_headers, shown, written_whole
from .support.places import ROOT
from .volumes import SPLITS, Mirror, Split, Volumes, describe, find_mirror_axis  # noqa: F401

MEDMNIST3D = (
    "organmnist3d",
    "nodulemnist3d",
    "adrenalmnist3d",
    "fracturemnist3d",
    "vesselmnist3d",
    "synapsemnist3d",
)
NAMES = (*MEDMNIST3D, "organphantom3d", "movingshapes")
SIZES = (28, 64)

# The organs that have sides, in OrganMNIST3D's order of classes: after a left-right flip class k is
# class ORGAN_SWAP[k]. Which axis is left-right is found from the training data (`find_mirror_axis`).
ORGAN_SWAP = (0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10)
RIGHT_KIDNEY, LEFT_KIDNEY = 1, 2


# ---- loading --------------------------------------------------------------------------------------


def load_volumes(name="organmnist3d", *, size=28, root=None, download=True) -> Volumes:
    """The data set `name` as clips uint8 [N, 1, size, size, size], values 0 to 255; never another set.

    A volume becomes a clip of one channel whose time is the volume's first axis.

    Args:
        name: one of MedMNIST3D's six sets, "organphantom3d", which is generated on first use, or
            "movingshapes", which is generated every time, in seconds.
        size: 28 or 64.
        root: the folder with the files; None is what `data_root` finds.
        download: whether a file that is not there may be fetched. It goes to `root` and is kept.

    Raises:
        ConfigError: another name or size.
        DataError: the file cannot be had, is damaged, of another layout, or has not MedMNIST's MD5
            (a file that you put there is never deleted), or `root` cannot be written to.

    Source: MedMNIST v2 (Yang et al., Scientific Data 2023).
    """
    if name not in NAMES:
        raise ConfigError(f"There is no data set {name!r}; there are {', '.join(NAMES)}.")
    if size not in SIZES:
        raise ConfigError(f"size={size!r}: the volumes come in the sizes 28 and 64.")
    if name == "movingshapes":
        from .datasets.shapes import generate_shapes

        return generate_shapes(size)
    folder = data_root(root)
    filename = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    if name == "organphantom3d":
        return _load_phantom(folder / filename, size)
    return _load_medmnist(name, size, folder / filename, download)


def course_volumes(size=28, *, root=None) -> Volumes:
    """The data set of the notebooks: $VIVIT_EDU_DATASET if it is set, else OrganMNIST3D where it is
    there or can be fetched, else the phantom with a notice that it is one.

    A file of OrganMNIST3D that is there but damaged is an error, as in `load_volumes`.
    """
    chosen = os.environ.get("VIVIT_EDU_DATASET")
    if chosen:
        return load_volumes(chosen, size=size, root=root)
    try:
        return load_volumes("organmnist3d", size=size, root=root)
    except UnreachableError as error:
        line = "=" * 88
        print(
            f"{line}\nNOT REAL DATA: OrganMNIST3D could not be had, so this runs on organphantom3d,\n"
            "a SYNTHETIC torso. It is no CT and no patient, and a score on it says nothing about\n"
            f"OrganMNIST3D. Why, and what to do:\n{error}\n{line}",
            file=sys.stderr,
            flush=True,
        )
    return load_volumes("organphantom3d", size=size, root=root)


def data_root(root=None) -> Path:
    """The folder of the data files: `root`, else $VIVIT_EDU_DATA, else `data/` of the checkout that the
    package runs from, else the user's cache folder. The last three do not depend on the working directory."""
    if root is not None:
        return Path(root).expanduser().absolute()
    if chosen := os.environ.get("VIVIT_EDU_DATA"):
        folder = Path(chosen).expanduser()
        if not folder.is_absolute():
            raise ConfigError(
                f"VIVIT_EDU_DATA={chosen!r} means another folder in every working directory: "
                "give the whole path, from the root or from ~."
            )
        return folder
    project = ROOT / "pyproject.toml"
    if project.is_file() and 'name = "vivit-edu"' in project.read_text(encoding="utf-8"):
        return ROOT / "data"
    if sys.platform == "darwin":
        caches = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "vivit-edu"


def _medmnist_info():
    """medmnist's table of its files, or None where medmnist is not installed.

    The table is one module. We load it by itself: the package around it takes as long to import as torch.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None:
        return None
    spec = importlib.util.spec_from_file_location("medmnist.info", Path(package.origin).with_name("info.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.INFO


def _load_medmnist(name, size, path, may_download):
    info = _medmnist_info()
    card = None if info is None else info[name]
    flag = "" if size == 28 else f"_{size}"
    if card is None:
        by_hand = f"By hand: take {path.name} from https://medmnist.com and put it at {shown(path)}."
    else:
        url, md5 = card[f"url{flag}"], card[f"MD5{flag}"]
        by_hand = f"By hand: download {url} (MD5 {md5}) and put it at {shown(path)}."

    places = (path, Path.home() / ".medmnist" / path.name)  # the second is where medmnist itself keeps it
    found = next((place for place in places if _is_file(place)), None)
    if found is None:
        tried = f"{path.name} is neither in {shown(path.parent)} nor in {shown(places[1].parent)}"
        if not may_download:
            raise UnreachableError(f"{tried}, and download=False.\n{by_hand}")
        if card is None:
            raise UnreachableError(f"{tried}; medmnist, which knows the address, is missing.\n{by_hand}")
        try:
            download(url, path, md5)
        except UnreachableError as error:
            raise UnreachableError(f"{tried}.\n{error}\n{by_hand}") from error
        found = path

    try:
        _check_layout(found, size, _ARRAYS)
        if card is None:
            warnings.warn(f"medmnist is not installed: MD5 of {found.name} not verified.", stacklevel=3)
        elif (seen := md5_of(found)) != md5:
            raise DataError(f"{shown(found)} is not MedMNIST's file: its MD5 is {seen}, expected was {md5}.")
        arrays = npz_arrays(found, _keys(_ARRAYS))
        class_names = _class_names(name, card, arrays)
        _check_labels(found, arrays, len(class_names))
    except DataError as fault:
        cure = f"The file was left as it was; once it is moved away, it is fetched anew. {by_hand}"
        raise DataError(f"{fault}\n{cure}") from None
    return _volumes(name, class_names, arrays)


def _class_names(name, card, arrays):
    """The names of the classes; without medmnist only the organs have any."""
    if card is not None:
        return tuple(card["label"][str(k)] for k in range(len(card["label"])))
    if name == "organmnist3d":
        from .datasets.phantom import PHANTOM_CLASSES

        return tuple(PHANTOM_CLASSES)
    return tuple(f"class {k}" for k in range(len(np.unique(arrays["train_labels"]))))


def _load_phantom(path, size):
    """The phantom: from its file if the generator is still the one that wrote it, else generated and kept."""
    from .datasets import phantom

    generator = phantom.fingerprint()
    class_names = tuple(phantom.PHANTOM_CLASSES)

    arrays = None
    if _is_file(path):
        try:
            npz_headers(path, ["generator"])
            if str(npz_arrays(path, ["generator"])["generator"]) == generator:
                _check_layout(path, size, _PHANTOM_ARRAYS)
                arrays = npz_arrays(path, _keys(_PHANTOM_ARRAYS))
                _check_labels(path, arrays, len(class_names))
            else:
                print(f"{path.name} is of another version: it is generated again.", file=sys.stderr)
        except DataError as fault:
            arrays = None
            print(f"{fault} It is generated again.", file=sys.stderr)
    if arrays is None:
        with written_whole(path) as file:  # opened first, so that a read-only folder is known at once
            arrays = phantom.generate_phantom(size)
            np.savez_compressed(file, generator=np.array(generator), **arrays)
    return _volumes("organphantom3d", class_names, arrays)


# ---- looking over ---------------------------------------------------------------------------------

# What each split holds in the file: the dtype (or kind of dtype) and how the shape follows from N and size.
_ARRAYS = {
    "images": (np.uint8, lambda n, s: (n, s, s, s)),
    "labels": (np.integer, lambda n, s: (n, 1)),
}
_PHANTOM_ARRAYS = _ARRAYS | {
    "patients": (np.int64, lambda n, s: (n,)),
    "masks": (np.uint8, lambda n, s: (n, s, s, s)),
}


def _keys(layout):
    return [f"{split}_{part}" for split in SPLITS for part in layout]


def _check_layout(path, size, layout):
    """`DataError` unless the headers of the file at `path` say what `layout` expects; reads no array."""
    headers = npz_headers(path, _keys(layout))
    for split in SPLITS:
        shape = headers[f"{split}_images"][1]
        count = shape[0] if shape else 0
        if count < 1:
            raise DataError(f"{shown(path)}: the split {split} is empty.")
        for part, (kind, expected) in layout.items():
            dtype, shape = headers[f"{split}_{part}"]
            if not np.issubdtype(dtype, kind) or shape != expected(count, size):
                raise DataError(
                    f"{shown(path)}: {split}_{part} is {dtype} {list(shape)}, "
                    f"expected was {kind.__name__} {list(expected(count, size))}."
                )


def _check_labels(path, arrays, classes):
    for split in SPLITS:
        labels = arrays[f"{split}_labels"]
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(
                f"{shown(path)}: the labels of {split} run from {labels.min()} to {labels.max()}, "
                f"but there are {classes} classes, 0 to {classes - 1}."
            )


def _is_file(path):
    try:
        return path.is_file()
    except OSError as error:  # a folder that must not be looked into
        raise DataError(
            f"{shown(path)} cannot be read: {error.strerror}. Make its folder readable, or name another one."
        ) from error


def _volumes(name, class_names, arrays):
    splits = {}
    for split in SPLITS:
        images, labels, patients, masks = (
            torch.from_numpy(arrays[key]) if (key := f"{split}_{part}") in arrays else None
            for part in ("images", "labels", "patients", "masks")
        )
        clips = rearrange(images, "n t h w -> n 1 t h w")  # one channel; time is the first axis
        splits[split] = Split(clips, rearrange(labels, "n 1 -> n").long(), patients, masks)
    mirror = None
    if name in ("organmnist3d", "organphantom3d"):
        mirror = Mirror(find_mirror_axis(splits["train"], RIGHT_KIDNEY, LEFT_KIDNEY), ORGAN_SWAP)
    return Volumes(name, class_names, **splits, mirror=mirror)
