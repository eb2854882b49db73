"""`vivit-edu bench pipeline`: augmented batches per second, ours and a DataLoader over medmnist's data set class."""

from __future__ import annotations

from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from ...augment import Augmentation, augment_batch
from ...cost import measure
from ...training import GENTLE
from ...volumes import Mirror, Split, Volumes
from .steps import Table

ORGAN_MIRROR = Mirror(axis=3, permutation=(0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10))  # OrganMNIST3D's
ORGAN_CLASSES = len(ORGAN_MIRROR.permutation)


def pipeline(
    device: torch.device, volumes: Volumes | None = None, count: int = 256, batch: int = 32, repeats: int = 7
) -> Table:
    """One pass over `count` clips of 28³ with the transforms of the preset "quick".

    Ours takes whole batches on the device; a DataLoader calls a transform clip by clip.
    """
    generator = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (count, 1, 28, 28, 28), generator=generator, dtype=torch.uint8)
    split = Split(clips, torch.arange(count) % ORGAN_CLASSES)
    held, loaders = split.to(device), {workers: reference_loader(split, batch, workers) for workers in (0, 2)}

    def ours():
        for chosen in torch.randperm(count, generator=generator).to(device).split(batch):
            augment_batch(GENTLE, held.clips[chosen], held.labels[chosen], ORGAN_CLASSES, ORGAN_MIRROR, generator)

    def theirs(loader):
        for clips, targets in loader:
            clips.to(device), targets.to(device)

    functions = {"ours, the set on the device": ours} | {
        f"DataLoader over medmnist.OrganMNIST3D, {workers} workers": lambda loader=loader: theirs(loader)
        for workers, loader in loaders.items()
    }
    seconds = measure(functions, device, repeats=repeats)
    first, batches = seconds["ours, the set on the device"], count / batch
    rows = [
        [
            name,
            f"{batches / min(times):.0f}",
            f"{1000 * min(times) / batches:.2f}",
            f"{min(times) / min(first):.1f} ×",
            f"{median(times) / median(first):.1f} ×",
        ]
        for name, times in seconds.items()
    ]
    heads = ["", "batches per second", "ms per batch", "as long as ours, fastest", "as long as ours, median"]
    return (
        heads,
        rows,
        (
            f"{count} clips of 28³ in batches of {batch}, with {name_augmentation(GENTLE)}, clip by clip in the "
            "DataLoader. Workers are started anew for each pass, as a DataLoader does."
        ),
    )


def name_augmentation(augmentation: Augmentation) -> str:
    """The operations that are switched on, with their strengths."""
    return ", ".join(f"{name} {value}" for name, value in vars(augmentation).items() if value)


def reference_loader(split: Split, batch: int, workers: int = 0) -> DataLoader:
    """A DataLoader over medmnist's data set class, with the transforms of the preset "quick" clip by clip.

    medmnist reads a file of its own form, which is written to a temporary folder, and insists on as many
    clips as OrganMNIST3D has: those of the split are repeated in the file, and taken once.
    """
    from medmnist import INFO, OrganMNIST3D

    indices = np.arange(INFO["organmnist3d"]["n_samples"]["train"]) % len(split)
    with TemporaryDirectory() as folder:
        np.savez(
            f"{folder}/organmnist3d.npz", train_images=split.clips[indices, 0], train_labels=split.labels[indices, None]
        )
        dataset = Subset(OrganMNIST3D("train", root=folder), range(len(split)))
    generator = torch.Generator().manual_seed(0)

    def collate(samples):
        """medmnist gives clips as float64 arrays [1, 28, 28, 28] in [0, 1] and labels as arrays [1]."""
        done = [
            augment_batch(
                GENTLE,
                torch.from_numpy(clip).float()[None],
                torch.from_numpy(label),
                ORGAN_CLASSES,
                ORGAN_MIRROR,
                generator,
            )
            for clip, label in samples
        ]
        return torch.cat([clip for clip, _ in done]), torch.cat([target for _, target in done])

    return DataLoader(dataset, batch, shuffle=True, num_workers=workers, collate_fn=collate)
