"""Other libraries' ViViTs at the sizes of ours: what the benches compare with. No lesson uses them.

Each takes clips [B, C, T, H, W] and returns logits [B, K], as ours do. What the libraries do otherwise (a cls token
of thousands of tokens, two LayerNorms in the embedding) costs little.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ...errors import ConfigError
from ...models import build_model


def build_ours(name: str, sizes: Any) -> nn.Module:
    """Our model of this name. sizes: anything with clip_shape, num_classes and the options of `build_model`."""
    return build_model(name, clip_shape=sizes.clip_shape, num_classes=sizes.num_classes, **sizes.options)


class TransformersModel(nn.Module):
    """transformers' Vivit, which takes clips [B, T, C, H, W] and returns an object."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.vivit = peer("transformers").VivitForVideoClassification(config)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.vivit(pixel_values=clips.transpose(1, 2)).logits


def build_transformers(sizes: Any, activation: str = "gelu_fast") -> TransformersModel:
    """Model 1 with a cls token. "gelu_fast" is what its published checkpoints name, "gelu" is ours."""
    channels, frames, size, _ = sizes.clip_shape
    o = sizes.options
    return TransformersModel(
        peer("transformers").VivitConfig(
            image_size=size,
            num_frames=frames,
            tubelet_size=list(o["tubelet"]),
            num_channels=channels,
            num_labels=sizes.num_classes,
            hidden_size=o["dim"],
            num_hidden_layers=o["depth"],
            num_attention_heads=o["heads"],
            intermediate_size=o["mlp_dim"],
            hidden_act=activation,
            attn_implementation="sdpa",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def build_vit_pytorch(variant: str, sizes: Any) -> nn.Module:
    """vit-pytorch's ViViT, Model 2 or 3, with its own attention and its flash path switched on."""
    channels, frames, *size = sizes.clip_shape
    o = sizes.options
    return peer("vit_pytorch.vivit").ViViT(
        image_size=tuple(size),
        image_patch_size=o["tubelet"][1:],
        frames=frames,
        frame_patch_size=o["tubelet"][0],
        num_classes=sizes.num_classes,
        dim=o["dim"],
        spatial_depth=o["depth"],
        temporal_depth=4 if variant == "factorized_encoder" else o["depth"],
        heads=o["heads"],
        dim_head=o["dim"] // o["heads"],
        mlp_dim=o["mlp_dim"],
        channels=channels,
        pool="mean",
        variant=variant,
        use_flash_attn=True,
    )


PEERS = {  # Model 4 has no peer that is installed
    "spacetime": ("transformers", build_transformers),
    "factorised_encoder": ("vit-pytorch", partial(build_vit_pytorch, "factorized_encoder")),
    "factorised_self_attention": ("vit-pytorch", partial(build_vit_pytorch, "factorized_self_attention")),
}


def peer(name: str) -> ModuleType:
    """A library that is used for comparison only. Raises ConfigError where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"this bench compares with {name.split('.')[0]}, which is not installed: run it by `uv run`, "
            "which installs the development group, or pip install transformers vit-pytorch"
        ) from error
