"""Probes: a test split changed on purpose, to see what a trained model goes by.

A model that never looks at the order of frames cannot notice that they were shuffled; one that knows kidneys by where
they lie answers a mirrored left one with "right". Nothing is chosen by these figures: the test split is read once
more, after training. Chapter 14 builds some of them.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from ..augment import swap_sides
from ..datasets.shapes import TWIN
from ..training import mixed_precision, predict_logits
from ..volumes import Split, Volumes

# ---- changes: clips uint8 [N, C, T, H, W] -> clips of the same shape ------------------------------------------------


def shuffle_frames(clips: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The frames of each clip in an order of its own, drawn by the seed."""
    order = torch.rand(clips.shape[0], clips.shape[2], generator=generator_of(seed)).argsort(dim=1)  # [N, T]
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips))


def reverse_frames(clips: torch.Tensor) -> torch.Tensor:
    """Each clip from its last frame to its first."""
    return clips.flip(2)


def freeze_frames(clips: torch.Tensor) -> torch.Tensor:
    """Each clip's middle frame, shown all the time."""
    frames = clips.shape[2]
    return clips[:, :, [frames // 2] * frames]


def drop_frames(clips: torch.Tensor, share: float, seed: int = 0) -> torch.Tensor:
    """This share of each clip's frames black, drawn by the seed for each clip anew."""
    frames = clips.shape[2]
    place = torch.rand(clips.shape[0], frames, generator=generator_of(seed)).argsort(dim=1)
    kept = place >= round(share * frames)  # [N, T]: as many of each clip
    return clips * kept[:, None, :, None, None]


def add_noise(clips: torch.Tensor, sigma: float, seed: int = 0) -> torch.Tensor:
    """Gaussian noise added to each voxel; sigma is a share of the range from black to white."""
    noise = torch.randn(clips.shape, generator=generator_of(seed))
    return (clips + 255 * sigma * noise).round().clamp(0, 255).to(torch.uint8)


def generator_of(seed: int) -> torch.Generator:
    """A generator on the CPU that starts from the seed."""
    return torch.Generator().manual_seed(seed)


CHANGES = {
    "unchanged": lambda clips: clips,
    "shuffled": shuffle_frames,
    "reversed": reverse_frames,
    "frozen": freeze_frames,
    "noise": partial(add_noise, sigma=0.2),
    "missing": partial(drop_frames, share=0.25),
}


# ---- what a model answers --------------------------------------------------------------------------------------------


def probe(model: nn.Module, volumes: Volumes, *, bfloat16: bool = False) -> dict[str, float]:
    """What a trained model answers to the changed test split, as shares from 0 to 1.

    "unchanged", "shuffled", …: the accuracy on each of CHANGES. "mirrored": on the clips seen in a mirror, by the
    labels that they have there. "wrong side": of the clips whose class has a side, how many are answered with the other
    side of the same organ. "wrong twin", movingshapes alone: how many clips are answered with the film that runs the
    other way. "reversed, as twin": how many are answered with it when they run backwards, which is right of them.
    """
    test, found = volumes.test, {}
    answers = partial(predict_classes, model, bfloat16=bfloat16)
    for name, change in CHANGES.items():
        found[name] = answers(replace(test, clips=change(test.clips)))
    figures = {name: share_of(classes == test.labels) for name, classes in found.items()}
    if volumes.mirror is not None:
        swapped = swap_sides(test.labels, volumes.mirror)
        mirrored = answers(replace(test, clips=test.clips.flip(volumes.mirror.axis + 1)))  # a batch comes first
        figures["mirrored"] = share_of(mirrored == swapped)
        sided = swapped != test.labels
        figures["wrong side"] = share_of((found["unchanged"] == swapped)[sided])
    if volumes.name == "movingshapes":
        twins = torch.tensor(TWIN)[test.labels]
        figures["wrong twin"] = share_of(found["unchanged"] == twins)
        figures["reversed, as twin"] = share_of(found["reversed"] == twins)
    return figures


def predict_classes(model: nn.Module, split: Split, *, bfloat16: bool = False) -> torch.Tensor:
    """The class that the model gives each clip of a split, int64 [N] on the CPU; bfloat16 as in `Recipe`."""

    def predict(model, clips):
        with mixed_precision(clips.device, on_cpu=bfloat16):
            return model(clips)

    return predict_logits(model, split, predict=predict, batch_size=32).argmax(dim=1)


def share_of(hits: torch.Tensor) -> float | None:
    """The share of True in bool [N], from 0 to 1; None where there is none to count."""
    return hits.float().mean().item() if len(hits) else None
