"""What a file of weights, or the config.json beside it, states about them: what no tensor's shape shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from ..errors import CheckpointError
from ..support.files import read_json

# Hugging Face's names of the two GELUs that our models have; gelu_fast and gelu_accurate are tanh approximations too
GELUS = {"gelu": "gelu", "gelu_python": "gelu"} | dict.fromkeys(
    ("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_tanh"
)
WHOLE = {
    "num_attention_heads": "heads",
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "intermediate_size": "mlp_dim",
    "num_frames": "frames",
}


def facts(config: Mapping, where: str) -> dict[str, object]:
    """The facts in a Hugging Face or timm config, in our words; a key that it lacks is missing here too.

    config: names to values, which may be JSON texts, as in the metadata of a `.safetensors` file. where: what it is
    called in messages. Returns heads, dim, depth, mlp_dim, frames (whole numbers), image_size (h, w), patch (h, w) or
    (t, h, w), activation ("gelu", "gelu_tanh"), eps, pool ("cls", "mean") and where.
    Raises CheckpointError for a value that no such config has, and for an activation that our models do not have.
    """
    config = {name: _from_json(value) if isinstance(value, str) else value for name, value in config.items()}
    config = {name: value for name, value in config.items() if value is not None}
    found = {}
    for theirs, ours in WHOLE.items():
        if theirs in config:
            (found[ours],) = _whole_numbers(config[theirs], theirs, where, (1,))
    if "image_size" in config:
        found["image_size"] = _whole_numbers(config["image_size"], "image_size", where, (1, 2))
    for theirs, lengths in (("patch_size", (1, 2)), ("tubelet_size", (3,))):
        if theirs in config:
            found["patch"] = _whole_numbers(config[theirs], theirs, where, lengths)
    for name in ("image_size", "patch"):
        if len(found.get(name, ())) == 1:
            found[name] *= 2
    if "hidden_act" in config:
        activation = config["hidden_act"]
        if not isinstance(activation, str) or activation not in GELUS:
            raise CheckpointError(
                f"{where} says hidden_act={activation!r}, which the models here do not have: they take weights that "
                f"were trained with one of {', '.join(GELUS)}"
            )
        found["activation"] = GELUS[activation]
    if "layer_norm_eps" in config:
        eps = config["layer_norm_eps"]
        if not isinstance(eps, (int, float)) or isinstance(eps, bool) or not (0 <= eps < math.inf):
            raise CheckpointError(f"{where} says layer_norm_eps={eps!r}, which is not a small positive number")
        found["eps"] = float(eps)
    if config.get("global_pool") in ("token", "avg"):  # timm's
        found["pool"] = {"token": "cls", "avg": "mean"}[config["global_pool"]]
    arguments = config.get("model_args")
    if isinstance(arguments, Mapping) and "num_heads" in arguments:
        (found["heads"],) = _whole_numbers(arguments["num_heads"], "num_heads", where, (1,))
    return found | {"where": where} if found else {}


def normalisation(settings: Mapping[str, object]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each channel for clips in [0, 1], from a preprocessor_config.json; without one, the ViViT's.

    There a pixel x of 0 to 255 becomes (x · rescale_factor - 1 - image_mean) / image_std, the 1 only with `offset`.
    """
    rescaled, normalised = settings.get("do_rescale", True), settings.get("do_normalize", True)
    scale = 255 * settings.get("rescale_factor", 1 / 127.5) if rescaled else 255.0
    shift = 1.0 if rescaled and settings.get("offset", True) else 0.0
    means = settings.get("image_mean", [0.5] * 3) if normalised else [0.0]
    deviations = settings.get("image_std", [0.5] * 3) if normalised else [1.0]
    return tuple((shift + mean) / scale for mean in means), tuple(deviation / scale for deviation in deviations)


def normalisation_beside(path: Path) -> dict[str, object]:
    """{"normalised": (mean, std)} as the preprocessor_config.json of a published ViViT beside a file states it, or {}.

    The settings of image transformers have other defaults, and are not read.
    """
    try:
        settings = read_json(path.parent / "preprocessor_config.json")
        return {"normalised": normalisation(settings)} if "offset" in settings else {}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):  # none, or of something else
        return {}


def facts_beside(path: Path) -> dict[str, object]:
    """The facts that a `.safetensors` file carries in its metadata, else those of the config.json beside a file."""
    if path.suffix.lower() == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            found = facts(file.metadata() or {}, "the file")
        if found:
            return found
    beside = path.parent / "config.json"
    try:
        config = read_json(beside)
    except (OSError, ValueError, RecursionError):  # none, or of something else
        return {}
    found = facts(config, "config.json") if isinstance(config, Mapping) else {}
    return found | normalisation_beside(path) if found else {}


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _whole_numbers(value: object, name: str, where: str, lengths: tuple[int, ...]) -> tuple[int, ...]:
    """One positive whole number or a list of as many as `lengths` allows, as a tuple."""
    numbers = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    whole = all(isinstance(number, int) and not isinstance(number, bool) and 0 < number < 10**6 for number in numbers)
    if not whole or len(numbers) not in lengths:
        raise CheckpointError(
            f"{where} says {name}={repr(value)[:40]}, which cannot be right: correct it, or move it away"
        )
    return numbers
