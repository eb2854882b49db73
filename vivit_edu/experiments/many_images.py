"""Many images, few videos: image transformers from slices of patients that are in no split, with labels or without.

The paper's situation (ImageNet, then Kinetics) with the phantom, whose generator makes as many patients as one asks
for. Slices of `IMAGE_PATIENTS` are the images. `train_from_images` is how a row of a table starts from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..datasets.phantom import PHANTOM_CLASSES, patient_crops
from ..errors import ConfigError, TrainingError
from ..models import build_model
from ..support.devices import choose_device, mixed_precision
from ..support.files import written_whole
from ..support.npz import npz_arrays
from ..support.options import check_choice, check_whole
from ..training import Recipe, learning_rate, make_optimiser
from .pretraining import GAIN, TASK, MaskedSlices, image_options, save_weights, timm_names, train_masked
from .runs import train_run

if TYPE_CHECKING:
    from ..volumes import Volumes

IMAGE_PATIENTS = range(1000, 1400)  # of the phantom: the splits end at 200, and `held_out` draws from 5000 on
LABELLED = "labels of slices"  # the tasks, as files of weights name them; the other one is `pretraining.TASK`
IMAGE_STEPS = 1200
IMAGE_BATCH = 64  # slices of a step with labels; without labels it is twice as many, and half as many steps


def draw_patients(patients: Sequence[int], size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Organ crops of patients of the phantom by their numbers: clips uint8 [N, 1, size, size, size], labels int64 [N].

    The numbers 0 to 200 are those of `organphantom3d`; all others are of people whom its splits do not hold. A
    patient takes half a second.
    """
    from tqdm.auto import tqdm

    crops = [crop for number in tqdm(patients, desc="patients", unit="patient") for crop in patient_crops(number, size)]
    labels, images, _ = zip(*crops)
    return torch.stack([torch.from_numpy(image) for image in images])[:, None], torch.tensor(labels)


def kept_patients(folder: Path, patients: Sequence[int], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`draw_patients`, drawn once and kept as an .npz file in a folder."""
    path = folder / f"patients-{patients[0]}-to-{patients[-1]}-{size}.npz"
    if not path.exists():
        clips, labels = draw_patients(patients, size)
        with written_whole(path) as file:
            np.savez_compressed(file, clips=clips.numpy(), labels=labels.numpy())
    arrays = npz_arrays(path, ["clips", "labels"])
    return torch.from_numpy(arrays["clips"]), torch.from_numpy(arrays["labels"])


def labelled_model(
    clips: torch.Tensor, labels: torch.Tensor, recipe: Recipe, *, steps: int, seed: int, classes: int | None = None
) -> nn.Module:
    """An image transformer that learned to name the organ of a single slice, in eval mode.

    clips: uint8 [N, C, T, H, W], of which random slices along T are the images. labels: int64 [N]. recipe: of the
    models that will start from it, for its sizes, optimiser, lr and precision. steps: of IMAGE_BATCH slices. classes:
    how many there are, by default those of the phantom. The same seed gives the same weights.
    Raises TrainingError where the loss is no longer a number.
    """
    check_whole("steps", steps, 1)
    tubelet, options = image_options(recipe)
    channels, _, *size = clips.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(
            "spacetime",
            clip_shape=(channels, 1, *size),
            num_classes=classes or len(PHANTOM_CLASSES),
            tokenizer="frames",
            tubelet=(1, *tubelet[1:]),
            **options,
        ).to(clips.device)
    learn_slices(model, clips, labels, recipe, steps=steps, generator=generator)
    return model.eval()


def learn_slices(
    model: nn.Module,
    clips: torch.Tensor,
    labels: torch.Tensor,
    recipe: Recipe,
    *,
    steps: int,
    generator: torch.Generator,
) -> None:
    """Trains a model of single slices [B, C, 1, H, W] in place. Arguments as for `labelled_model`.

    Raises TrainingError where the loss is no longer a number.
    """
    frames = clips.shape[2]
    optimiser = make_optimiser(model, recipe)
    for step in range(steps):
        which, where = (torch.randint(most, (IMAGE_BATCH,), generator=generator) for most in (len(clips), frames))
        gain = 1 + GAIN * (2 * torch.rand(IMAGE_BATCH, 1, 1, 1, generator=generator) - 1)
        slices = (clips[which, :, where].float() / 255 * gain.to(clips.device)).clamp(0, 1)  # [B, C, H, W]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, step, steps)
        with mixed_precision(clips.device, on_cpu=recipe.bfloat16):
            loss = F.cross_entropy(model(slices.unsqueeze(2)), labels[which])
        if not loss.isfinite():
            raise TrainingError(f"the loss of step {step + 1} of pretraining is {loss.item()}: train with a lower lr")
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()


def masked_model(clips: torch.Tensor, recipe: Recipe, *, steps: int, seed: int) -> nn.Module:
    """An image transformer that learned to fill in hidden patches of the same slices, without labels, in eval mode.

    clips: uint8 [N, C, T, H, W]. steps: as for `labelled_model`; half as many are made, each of twice as many slices,
    so that both have seen as many.
    """
    tubelet, options = image_options(recipe)
    channels, _, *size = clips.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedSlices((channels, *size), tubelet, options)
    train_masked(model.to(clips.device), clips, steps=max(1, steps // 2), seed=seed, progress=False)
    return model.image_model.eval()


def train_from_images(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    task: str = LABELLED,
    patients: Sequence[int] = IMAGE_PATIENTS,
    steps: int = IMAGE_STEPS,
    device: str | torch.device = "auto",
    **rest: object,
) -> dict:
    """`train_run` from an image transformer of this seed, made once for all rows, on patients that are in no split.

    task: LABELLED or `pretraining.TASK`. Raises ConfigError where the volumes are not the phantom's, of which no
    further patients can be drawn, and where a patient is in one of the splits.
    """
    check_choice("task", task, (LABELLED, TASK))
    check_other_patients(volumes, patients)
    kind = "labelled" if task == LABELLED else "masked"
    weights = Path(out).parent / f"images-{kind}-{recipe.options.get('depth')}-layers-seed{seed}.safetensors"
    if not weights.exists():
        clips, labels = kept_patients(weights.parent, patients, volumes.train.clips.shape[-1])
        clips, labels = clips.to(choose_device(device)), labels.to(choose_device(device))
        learner = Recipe(
            options={name: value for name, value in recipe.options.items() if name != "temporal_depth"},
            optimiser="muon",
            lr=3e-3,
            bfloat16=recipe.bfloat16,
        )
        if task == LABELLED:
            model = labelled_model(clips, labels, learner, steps=steps, seed=seed)
        else:
            model = masked_model(clips, learner, steps=steps, seed=seed)
        about = {"dataset": f"{volumes.name}, patients {patients[0]} to {patients[-1]}", "seed": seed, "task": task}
        save_weights(timm_names(model), weights, model, **about)
    recipe = replace(recipe, pretrained=str(weights))
    return train_run(volumes, recipe, out=out, seed=seed, device=device, **rest)


def check_other_patients(volumes: Volumes, patients: Sequence[int]) -> None:
    """Raises ConfigError where the volumes are not the phantom's, of which alone further patients can be drawn, and
    where one of these patients is in a split."""
    if volumes.name != "organphantom3d":
        raise ConfigError(
            f"more patients than a set has can be drawn for organphantom3d only, not for {volumes.name}: name that one"
        )
    owners = {int(n) for split in (volumes.train, volumes.val, volumes.test) for n in split.patients}
    if taken := sorted(owners & set(patients)):
        raise ConfigError(f"patient {taken[0]} is in a split: choose patients whom no split holds")
