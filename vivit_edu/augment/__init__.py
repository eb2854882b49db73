"""Augmentation of whole batches on their device, built by hand in chapter 11.

`batch` holds the operations and `augment_batch`, `warp` those that move voxels, `mixing` those that blend clips and
labels, `draws` the random numbers under all of them.
"""

from .batch import (
    Augmentation,
    augment_batch,
    mirror_batch,
    predict_views,
    rand_augment,
    swap_sides,
    test_views,
)

__all__ = [
    "Augmentation",
    "augment_batch",
    "mirror_batch",
    "predict_views",
    "rand_augment",
    "swap_sides",
    "test_views",
]
