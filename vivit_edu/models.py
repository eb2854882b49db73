"""Models by name: `build_model` and the list of names in teaching order.

Nothing here loads torch: a model's module is loaded when the model is first asked for.
"""

from __future__ import annotations

from dataclasses import fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from .errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

ONE_ENCODER = {"temporal_depth": 0}  # only Model 2 has a second one, whose depth can be chosen
# name -> where its class is, and what the name has settled already. The class says by `configured_by` what its other
# options are. A new model is one line here.
VIVITS = {
    "spacetime": ("vivit_edu.vivit:SpaceTime", ONE_ENCODER),  # Model 1
    "factorised_encoder": ("vivit_edu.vivit:FactorisedEncoder", {}),  # Model 2
    "factorised_self_attention": ("vivit_edu.vivit:FactorisedSelfAttention", ONE_ENCODER),  # Model 3
    "factorised_dot_product": ("vivit_edu.vivit:FactorisedDotProduct", ONE_ENCODER),  # Model 4
}
CNNS = {
    "single_frame": ("vivit_edu.cnn:FusionCNN", {"fusion": "single_frame"}),
    "early_fusion": ("vivit_edu.cnn:FusionCNN", {"fusion": "early_fusion"}),
    "late_fusion": ("vivit_edu.cnn:FusionCNN", {"fusion": "late_fusion"}),
    "slow_fusion": ("vivit_edu.cnn:FusionCNN", {"fusion": "slow_fusion"}),
    "multiresolution": ("vivit_edu.cnn:Multiresolution", {}),
    "cnn_attention": ("vivit_edu.cnn:CNNAttention", {}),
    "cnn3d": ("vivit_edu.cnn:CNN3D", {}),
}
TORCHVISION_NETWORKS = {
    f"torchvision:{name}": ("vivit_edu.cnn:TorchvisionCNN", {"network": name})
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
}
MODELS = (*VIVITS, *CNNS)


def build_model(
    name: str, *, clip_shape: tuple[int, int, int, int] = (1, 28, 28, 28), num_classes: int = 11, **options: object
) -> nn.Module:
    """Builds the model of this name for clips of this shape.

    name: one of MODELS, or "torchvision:r3d_18". clip_shape: (C, T, H, W). options: those that `model_options(name)`
    lists, such as tubelet=(4, 4, 4), dim=192, depth=8 for a ViViT, backbone="alexnet" for a CNN.
    Returns a module that maps clips float [B, C, T, H, W] in [0, 1] to logits [B, num_classes].
    Raises ConfigError where a name or an option is unknown, and where sizes do not fit together.
    """
    check_options(name, options)
    model, settled = _find(name)
    return model(model.configured_by(clip_shape=clip_shape, num_classes=num_classes, **settled, **options))


def check_options(name: str, options: dict[str, object]) -> None:
    """Refuses what is wrong whatever the clips are: a name, an option's name, a value of another kind or range."""
    known = model_options(name)
    if not isinstance(options, dict):
        raise ConfigError(f"options of a model are a dict such as {{'depth': 4}}, got {options!r}")
    unknown = sorted(str(option) for option in options if option not in known)
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known) or 'none'}")
    model, settled = _find(name)
    model.configured_by(**settled, **options)


def model_options(name: str) -> list[str]:
    """The names of the options that this model has, besides clip_shape and num_classes."""
    model, settled = _find(name)
    settled = {"clip_shape", "num_classes", *settled}
    return [field.name for field in fields(model.configured_by) if field.name not in settled]


def model_class(name: str) -> type[nn.Module]:
    """The class of the model of this name, which carries its record. Raises ConfigError for an unknown name."""
    return _find(name)[0]


def is_vivit(name: str) -> bool:
    """Whether this is the name of a video vision transformer, such as Models 1 to 4."""
    return name in VIVITS


def _find(name: str) -> tuple[type[nn.Module], dict[str, object]]:
    known = VIVITS | CNNS | TORCHVISION_NETWORKS
    if not isinstance(name, str) or name not in known:
        raise ConfigError(f"no model is called {name!r}; the names are {', '.join(known)}")
    place, settled = known[name]
    return resolve_name(place), settled
