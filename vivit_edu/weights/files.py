"""Pretrained weights from a file, a mapping or torchvision: names and tensors, nothing that can run code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, VivitEduError
from ..support.files import check_regular, mistaken_for, shown
from ..support.npz import npz_arrays, npz_headers
from ..support.options import check_path
from ..support.torch_files import read_torch
from .stated import facts_beside

if TYPE_CHECKING:
    import torch

# where training scripts put the weights, each a path of keys; the last is flax's of before its version 0.6
WRAPPERS = (("model",), ("state_dict",), ("model_state_dict",), ("params",), ("optimizer", "target"))


def read_weights(weights: object) -> tuple[Mapping, dict[str, object]]:
    """Weights from wherever they are: (names to tensors or arrays, what is stated about them).

    weights: as for `load_pretrained`. What is stated comes from the `config.json` beside a file of Hugging Face's, or
    from the metadata of a `.safetensors` file such as `vivit-edu pretrain` writes; see `stated.facts`.
    Raises CheckpointError for what cannot be read.
    """
    if isinstance(weights, Mapping):
        return unwrap(weights), {}
    if isinstance(weights, str) and weights.startswith("torchvision:"):
        weights = default_weights(weights.removeprefix("torchvision:"))
    if hasattr(weights, "get_state_dict") or re.fullmatch(r"\w+_Weights\.[A-Z0-9_]+", str(weights)):
        return torchvision_weights(weights), torchvision_normalisation(weights)
    if not isinstance(weights, (str, Path)):
        raise CheckpointError(
            f"weights are a mapping, a file or a torchvision weights enum, got {type(weights).__name__}; "
            "of a model, give its state_dict()"
        )
    check_path("weights", weights, "a file of weights")
    try:
        path = Path(weights).expanduser()
    except RuntimeError:
        raise CheckpointError(f"{weights}: there is no user of that name; give the whole path") from None
    if path.is_dir():
        path = path / "model.safetensors"  # as Hugging Face saves a model
    try:
        check_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"there is no file {shown(path)}. Weights are read from .safetensors, .pt and .npz files; "
            "to use a model of the Hugging Face hub, download its model.safetensors first"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    return unwrap(read_file(path)), facts_beside(path)


def read_file(path: Path) -> object:
    """The content of a `.safetensors`, `.npz` or `.pt` file (`.pth` and `.bin` are the same as `.pt`)."""
    suffix = path.suffix.lower()
    try:
        if kind := mistaken_for(path, binary=True):
            raise CheckpointError(f"{shown(path)} holds no weights: it is {kind}")
        check_ending(path, suffix)
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if suffix == ".npz":
            return npz_arrays(path, npz_headers(path))
        if suffix in (".pt", ".pth", ".bin"):
            return read_torch(path)
    except VivitEduError as error:
        raise CheckpointError(str(error)) from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{shown(path)} holds more than tensors, or is damaged: what could run code is not unpickled. "
            "Where you trust it, load it yourself and save its state_dict() anew"
        ) from error
    except Exception as error:  # whatever a damaged file makes its reader raise
        raise CheckpointError(f"{shown(path)} cannot be read as a {suffix} file: {error}") from error
    raise CheckpointError(f"{shown(path)} is not a file of weights by its name: take .safetensors, .pt or .npz")


def check_ending(path: Path, suffix: str) -> None:
    """Raises CheckpointError where a file begins as one with another ending: a renamed one is not a damaged one."""
    with open(path, "rb") as file:
        start = file.read(9)
    if suffix == ".safetensors" and start.startswith(b"PK\3\4"):
        raise CheckpointError(f"{shown(path)} is a zip archive, as .pt and .npz files are: give it its own ending")
    if suffix != ".safetensors" and start[6:] == b"\0\0{":  # the length of a header, and the header
        raise CheckpointError(f"{shown(path)} begins as a .safetensors file: give it that ending")


def unwrap(content: object) -> Mapping:
    """The weights themselves: what a training script saved beside them left off, a nested tree made flat.

    Raises CheckpointError where there is no mapping of names to tensors.
    """
    for _ in range(5):  # a wrapper in a wrapper, as often as anybody does it
        found = [inside for keys in WRAPPERS if (inside := _inside(content, keys)) is not None]
        content = found[0] if found else content
    flat = flatten(content) if isinstance(content, Mapping) else None
    if flat is None or not all(hasattr(value, "shape") for value in flat.values()):
        keys = ", ".join(repr(key) for key in [*content][:6]) if isinstance(content, Mapping) else ""
        raise CheckpointError(
            f"this is not a mapping of names to tensors{f', but holds {keys}' if keys else ''}; "
            "give a model's state_dict(), or the tree of parameters that flax keeps"
        )
    return flat


def _inside(content: object, keys: tuple[str, ...]) -> Mapping | None:
    for key in keys:
        content = content.get(key) if isinstance(content, Mapping) else None
    return content if isinstance(content, Mapping) else None


def flatten(tree: Mapping, depth: int = 20) -> dict | None:
    """A tree of mappings, as flax keeps parameters, as one mapping of names joined by "/"; a flat one as it is.

    None where a name is neither a text nor a tuple of texts, or where the tree is deeper than `depth`.
    """
    flat = {}
    for key, value in tree.items():
        parts = key if isinstance(key, tuple) else (key,)
        if not depth or not all(isinstance(part, str) for part in parts):
            return None
        if not isinstance(value, Mapping):
            flat[key] = value
            continue
        inner = flatten(value, depth - 1)
        if inner is None:
            return None
        flat |= {"/".join((*parts, *(k if isinstance(k, tuple) else (k,)))): v for k, v in inner.items()}
    return flat


def default_weights(name: str) -> object:
    """torchvision's own choice among its weights of an image transformer, by the model's name: vit_b_16."""
    from torchvision.models import get_model_weights, list_models

    known = list_models(include="vit_*")
    if name not in known:
        raise CheckpointError(f"torchvision has no image transformer {name!r}; it has {', '.join(known)}")
    return get_model_weights(name).DEFAULT


def torchvision_weights(weights: object) -> Mapping[str, torch.Tensor]:
    """The state dict behind a torchvision weights enum or its name, downloaded once, its hash checked."""
    from torchvision.models import get_weight

    try:
        weights = get_weight(weights) if isinstance(weights, str) else weights
        return weights.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"torchvision's weights {weights} are not available: {error}") from error


def torchvision_normalisation(weights: object) -> dict[str, object]:
    """{"normalised": (mean, std)} of the pictures that torchvision's weights learned from."""
    from torchvision.models import get_weight

    transforms = (get_weight(weights) if isinstance(weights, str) else weights).transforms
    preset = transforms() if callable(transforms) else None
    return {"normalised": (tuple(preset.mean), tuple(preset.std))} if hasattr(preset, "mean") else {}
