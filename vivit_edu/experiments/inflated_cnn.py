"""A 3D CNN that starts from a CNN of slices: the setting of `many_images`, for convolutions.

The CNN of slices is the same ResNet on clips of a single frame. Its filters become three-dimensional as Carreira and
Zisserman inflate them (Quo Vadis, Action Recognition?, CVPR 2017): a third of a 3×3 filter on each of three frames, so
that a filter answers equal frames as the image filter answers one, except at the clip's ends, where zeros are padded.
GroupNorm and the later layers carry that to the rest of the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save

from ..models import build_model
from ..pretrained import inflate
from ..support.devices import choose_device
from ..support.files import written_whole
from ..support.locks import alone_in
from ..training import Recipe, build_seeded, fit
from .code import code_of
from .many_images import IMAGE_PATIENTS, IMAGE_STEPS, check_other_patients, kept_patients, learn_slices
from .runs import claim, metrics_of, write_json

if TYPE_CHECKING:
    from ..volumes import Volumes

SLICE_RATE = 1e-3  # of the CNN of slices, for all of the CNNs that start from it


def train_from_slices(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    patients: Sequence[int] = IMAGE_PATIENTS,
    steps: int = IMAGE_STEPS,
    slice_lr: float = SLICE_RATE,
    resume: bool = False,
    device: str | torch.device = "auto",
    figures: bool = False,
) -> dict:
    """Trains a `cnn3d` that begins with the inflated weights of a CNN of slices, of this seed, made once for all rows.

    patients, steps: as for `many_images.train_from_images`, with the same errors. slice_lr: of the CNN of slices. An
    unfinished run begins again. figures: none are drawn. Returns what tables keep of a run.
    """
    check_other_patients(volumes, patients)
    out, device = Path(out), choose_device(device)
    code = code_of(train_from_slices, recipe, volumes.name)
    claim(out, resume)
    weights = out.parent / f"slices-{recipe.model}-seed{seed}.safetensors"
    if not weights.exists():
        clips, labels = kept_patients(out.parent, patients, volumes.train.clips.shape[-1])
        options = recipe.options | {"num_classes": len(volumes.class_names)}
        learner = replace(recipe, lr=slice_lr)
        state = slice_cnn(clips.to(device), labels.to(device), learner, options, steps=steps, seed=seed)
        with written_whole(weights) as file:
            file.write(save(state))
    model = build_seeded(recipe, volumes, seed)
    model.load_state_dict(inflated(load_file(weights)))
    model.to(device)
    with alone_in(out):
        rows = fit(model, volumes, recipe, seed=seed).rows
        write_json(out / "history.json", rows)
        metrics = metrics_of(model, volumes, recipe, rows, seed=seed, device=device) | {"code": code}
        write_json(out / "metrics.json", metrics)
    return metrics


def slice_cnn(
    clips: torch.Tensor, labels: torch.Tensor, recipe: Recipe, options: dict[str, object], *, steps: int, seed: int
) -> dict[str, torch.Tensor]:
    """The weights of a CNN that learned to name the organ of a single slice, on the CPU.

    clips: uint8 [N, C, T, H, W], of which random slices along T are the images. labels: int64 [N]. recipe: of the CNN
    that will start from it. options: of `build_model`. steps: as for `many_images.labelled_model`.
    """
    channels, _, *size = clips.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(recipe.model, clip_shape=(channels, 1, *size), **options).to(clips.device)
    learn_slices(model, clips, labels, recipe, steps=steps, generator=torch.Generator().manual_seed(seed))
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def inflated(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a CNN of single frames, for clips: of each filter [D, C, t, h, w] the frame in the middle, the
    only one that a single frame meets, and a t-th of it on each of the t frames. All else is unchanged."""
    return {
        name: inflate(tensor[:, :, tensor.shape[2] // 2], tensor.shape[2], "average") if tensor.ndim == 5 else tensor
        for name, tensor in state.items()
    }
