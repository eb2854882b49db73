"""Pretrained weights from a file, a mapping or torchvision: names and tensors, nothing that can run code."""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError, VivitEduError
from ..support.files import shown
from ..support.npz import npz_arrays, npz_headers
from ..support.torch_files import read_torch


def read_weights(weights):
    """Weights from wherever they are: (mapping of names to tensors or arrays, number of heads or None).

    weights: as for `load_pretrained`. The number of heads is read from the `config.json` beside a file of
    Hugging Face's, or from what a `.safetensors` file of `vivit-edu pretrain` says of itself. Raises
    CheckpointError for what cannot be read.
    """
    if isinstance(weights, Mapping):
        return unwrap(weights), None
    if isinstance(weights, str) and weights.startswith("torchvision:"):
        weights = default_weights(weights.removeprefix("torchvision:"))
    if hasattr(weights, "get_state_dict") or re.fullmatch(r"\w+_Weights\.[A-Z0-9_]+", str(weights)):
        return torchvision_weights(weights), None
    if not isinstance(weights, (str, Path)):
        raise CheckpointError(
            f"weights are a mapping, a file or a torchvision weights enum, got {type(weights).__name__}; "
            "of a model, give its state_dict()"
        )
    path = Path(weights).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"  # as Hugging Face saves a model
    if not path.is_file():
        raise CheckpointError(
            f"there is no file {shown(path)}. Weights are read from .safetensors, .pt and .npz files; "
            "to use a model of the Hugging Face hub, download its model.safetensors first"
        )
    content = unwrap(read_file(path))
    return content, heads_in_metadata(path) or heads_in_config(path.parent / "config.json")


def read_file(path):
    """The content of a `.safetensors`, `.npz` or `.pt` file (`.pth` and `.bin` are the same as `.pt`)."""
    suffix = path.suffix.lower()
    try:
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
    raise CheckpointError(f"{shown(path)} is no file of weights by its name: take .safetensors, .pt or .npz")


def unwrap(content):
    """The state dict itself, where a training script has put it under "model" or "state_dict"."""
    for key in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    named = isinstance(content, Mapping) and all(isinstance(key, (str, tuple)) for key in content)
    if not named or not all(hasattr(value, "shape") for value in content.values()):
        raise CheckpointError("this is no mapping of names to tensors; give a model's state_dict()")
    return content


def heads_in_config(path):
    """`num_attention_heads` of a Hugging Face `config.json`, or None."""
    try:
        return whole_heads(json.loads(path.read_text(encoding="utf-8")).get("num_attention_heads"))
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def heads_in_metadata(path):
    """`num_attention_heads` among the texts that a `.safetensors` file carries beside its tensors, or None."""
    if path.suffix.lower() != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return whole_heads((file.metadata() or {}).get("num_attention_heads"))


def whole_heads(value):
    """A number of heads, as a number or as text; None for anything else."""
    text = str(value) if isinstance(value, (int, str)) else ""
    return int(text) if re.fullmatch("[1-9][0-9]{0,3}", text) else None


def default_weights(name):
    """torchvision's own choice among its weights of an image transformer, by the model's name: vit_b_16."""
    from torchvision.models import get_model_weights, list_models

    known = list_models(include="vit_*")
    if name not in known:
        raise CheckpointError(f"torchvision has no image transformer {name!r}; it has {', '.join(known)}")
    return get_model_weights(name).DEFAULT


def torchvision_weights(weights):
    """The state dict behind a torchvision weights enum or its name, downloaded once, its hash checked."""
    from torchvision.models import get_weight

    try:
        weights = get_weight(weights) if isinstance(weights, str) else weights
        return weights.get_state_dict(check_hash=True, weights_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"torchvision's weights {weights} cannot be had: {error}") from error
