"""What several tests share: small models, weights that tell implementations apart, the authors' file."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vivit_edu import build_model

VIVITS = ("spacetime", "factorised_encoder", "factorised_self_attention", "factorised_dot_product")
AUTHORS_FILE = Path(__file__).parent / "reference" / "vivit_authors.npz"


def small(name, **options):
    """A small ViViT whose grid differs along each axis: T' = 3, n_h = 2, n_w = 4, so S = 8."""
    defaults = dict(clip_shape=(2, 6, 6, 12), num_classes=5, tubelet=(2, 3, 3), dim=24, depth=2, heads=4, mlp_dim=48)
    if name == "factorised_encoder":
        defaults["temporal_depth"] = 2
    return build_model(name, **(defaults | options)).eval()


def randomise(module, seed=0):
    """Fills a module with weights so large that attention is far from uniform and the GELU far from linear.

    With the usual small weights a missing √d or another GELU changes the logits by less than any tolerance.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() or ".ln" in name:
                parameter.copy_(0.3 * noise + (1 if name.endswith("weight") else 0))
            elif parameter.ndim > 1 and name.endswith("weight"):
                gain = 2.5 if "attention" in name else 1.5
                parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.5 * noise)
    return module


def noise(*shape, seed=0):
    """Uniform clips or images in [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def authors(name):
    """(clips [B, C, T, H, W], weights in flax layout, logits [B, K]) of one model in the authors' file."""
    with np.load(AUTHORS_FILE, allow_pickle=False) as file:
        clips = torch.from_numpy(file["clips"]).permute(0, 4, 1, 2, 3).contiguous()
        weights = {key.split("//")[1]: file[key] for key in file.files if key.startswith(f"{name}//")}
    return clips, weights, torch.from_numpy(weights.pop("logits"))


def max_difference(ours, theirs):
    return (ours - theirs).abs().max().item()


def attentions(model):
    """Every attention module of a model that keeps a record of its weights."""
    return [module for module in model.modules() if isinstance(module, nn.Module) and hasattr(module, "record")]
