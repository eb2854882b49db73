"""Models by name: `build_model` and the list of names in teaching order."""

from dataclasses import fields

from . import cnn, cnn3d, vivit
from .errors import ConfigError

# name -> the model, what configures it, and what the name has settled already
_VIVIT = {
    "spacetime": (vivit.SpaceTime, vivit.ViViTConfig, {}),  # Model 1
    "factorised_encoder": (vivit.FactorisedEncoder, vivit.ViViTConfig, {}),  # Model 2
    "factorised_self_attention": (vivit.FactorisedSelfAttention, vivit.ViViTConfig, {}),  # Model 3
    "factorised_dot_product": (vivit.FactorisedDotProduct, vivit.ViViTConfig, {}),  # Model 4
}
_CNN = {
    **{fusion: (cnn.FusionCNN, cnn.CNNConfig, {"fusion": fusion}) for fusion in cnn.FUSIONS},
    "multiresolution": (cnn.Multiresolution, cnn.CNNConfig, {}),
    "cnn_attention": (cnn.CNNAttention, cnn.CNNAttentionConfig, {}),
    "cnn3d": (cnn3d.CNN3D, cnn3d.CNN3DConfig, {}),
}
_TORCHVISION = {
    f"torchvision:{name}": (cnn3d.TorchvisionCNN, cnn3d.TorchvisionConfig, {"network": name})
    for name in ("r3d_18", "mc3_18", "r2plus1d_18")
}
_ALL = _VIVIT | _CNN | _TORCHVISION
MODELS = (*_VIVIT, *_CNN)


def build_model(name, *, clip_shape=(1, 28, 28, 28), num_classes=11, **options):
    """Builds the model of this name for clips of this shape.

    name: one of MODELS, or "torchvision:r3d_18". clip_shape: (C, T, H, W). options: what `model_options(name)`
    lists, such as tubelet=(4, 4, 4), dim=192, depth=8 for a ViViT, backbone="alexnet" for a CNN.
    The model maps clips float [B, C, T, H, W] in [0, 1] to logits [B, num_classes].
    Raises ConfigError for an unknown name or option, and for sizes that do not fit together.
    """
    check_options(name, options)
    model, config, settled = _ALL[name]
    return model(config(clip_shape=clip_shape, num_classes=num_classes, **settled, **options))


def check_options(name, options):
    """Refuses what is wrong whatever the clips: a name, an option's name, a value of another kind or range."""
    known = model_options(name)
    if not isinstance(options, dict):
        raise ConfigError(f"options of a model are a dict such as {{'depth': 4}}, got {options!r}")
    unknown = sorted(str(option) for option in options if option not in known)
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known) or 'none'}")
    _, config, settled = _ALL[name]
    config(**settled, **options)


def model_options(name):
    """The names of the options that this model has, beside clip_shape and num_classes."""
    if not isinstance(name, str) or name not in _ALL:
        raise ConfigError(f"no model is called {name!r}; the names are {', '.join((*MODELS, *_TORCHVISION))}")
    _, config, settled = _ALL[name]
    settled = {"clip_shape", "num_classes", *settled}
    return [field.name for field in fields(config) if field.name not in settled]


def is_vivit(name):
    """Whether this is the name of one of Models 1 to 4."""
    return name in _VIVIT
