"""Models by name: `build_model` and the list of names in teaching order."""

from dataclasses import fields

from . import vivit
from .errors import ConfigError

_VIVIT = {
    "spacetime": vivit.SpaceTime,  # Model 1
    "factorised_encoder": vivit.FactorisedEncoder,  # Model 2
    "factorised_self_attention": vivit.FactorisedSelfAttention,  # Model 3
    "factorised_dot_product": vivit.FactorisedDotProduct,  # Model 4
}
MODELS = tuple(_VIVIT)


def build_model(name, *, clip_shape=(1, 28, 28, 28), num_classes=11, **options):
    """Builds the model of this name for clips of this shape.

    name: one of MODELS. clip_shape: (C, T, H, W). options: the fields of `vivit.ViViTConfig`, such as
    tubelet=(4, 4, 4), dim=192, depth=8.
    The model maps clips float [B, C, T, H, W] in [0, 1] to logits [B, num_classes].
    Raises ConfigError for an unknown name or option, and for sizes that do not fit together.
    """
    if not isinstance(name, str) or name not in _VIVIT:
        raise ConfigError(f"no model is called {name!r}; the names are {', '.join(MODELS)}")
    known = [field.name for field in fields(vivit.ViViTConfig)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ConfigError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    config = vivit.ViViTConfig(clip_shape=clip_shape, num_classes=num_classes, **options)
    return _VIVIT[name](config)
