"""Pretraining on slices with hidden patches: what chapter 10 initialises its models from."""

from ..experiments.pretraining import MaskedSlices, draw_slices, timm_names, train_masked  # noqa: F401
