"""A data set and a recipe that train in a second, for tests of what does not depend on real volumes."""

import torch

from vivit_edu.augment import Augmentation
from vivit_edu.data import Split, Volumes
from vivit_edu.models import is_vivit
from vivit_edu.training import Recipe

TINY = {"tubelet": (2, 4, 4), "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 32}


def make_tiny_volumes():
    def split(n, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % 3
        clips = torch.randint(0, 100, (n, 1, 8, 8, 8), generator=generator, dtype=torch.uint8)
        for clip, label in zip(clips, labels):
            clip[:, 2 * label + 1 : 2 * label + 3] += 120
        return Split(clips, labels)

    return Volumes("tiny", ("early", "middle", "late"), split(48, 0), split(12, 1), split(15, 2))


def tiny_sizes(model):
    """The options of a tiny ViViT; only Model 2 has a second encoder."""
    return TINY | ({"temporal_depth": 1} if model == "factorised_encoder" else {})


def tiny_recipe(**changes):
    model = changes.get("model", "spacetime")
    options = {**(tiny_sizes(model) if is_vivit(model) else {}), **changes.pop("options", {})}
    defaults = {"model": "spacetime", "epochs": 3, "batch_size": 16, "augmentation": Augmentation(noise=0.05)}
    return Recipe(options=options, **{**defaults, **changes})
