"""Choosing a recipe without the test split: rows that are judged on clips which nothing else is read from.

Of the phantom the judges are patients whom no split holds. Of other sets there are no more clips than the files have,
so a third of training and validation together is cut out, in blocks, and models train on what remains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..data import load_volumes
from ..errors import ConfigError
from ..volumes import Split
from .many_images import check_other_patients, kept_patients
from .runs import train_run

if TYPE_CHECKING:
    from ..training import Recipe
    from ..volumes import Volumes

JUDGES = range(5000, 5100)  # patients of the phantom
BLOCKS_OF_FILE = 30  # that training and validation are cut into: neighbours in a file may be of one patient


def train_without_test(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    size: int = 28,
    judges: Sequence[int] = JUDGES,
    **rest: object,
) -> dict:
    """`train_run` on volumes whose test split is replaced: what stands under "test" is of the judges.

    size: voxels along a side, of which the clips are loaded anew where the given ones have others, from the same
    place as `load_volumes` finds them. judges: numbers of patients of the phantom. Raises ConfigError for other sets
    with fewer clips than BLOCKS_OF_FILE.
    """
    if volumes.train.clips.shape[-1] != size:
        volumes = load_volumes(volumes.name, size=size)
    if volumes.name == "organphantom3d":
        check_other_patients(volumes, judges)
        held_out = replace(volumes, test=Split(*kept_patients(Path(out).parent, judges, size)))
    else:
        held_out = without_a_third(volumes)
    return train_run(held_out, recipe, out=out, **rest)


def without_a_third(volumes: Volumes) -> Volumes:
    """Volumes of training and validation alone: every third block of clips is both the validation and the test split
    of the result, and training is the rest. Patients and masks are dropped."""
    train, val = volumes.train, volumes.val
    clips, labels = torch.cat((train.clips, val.clips)), torch.cat((train.labels, val.labels))
    if len(labels) < BLOCKS_OF_FILE:
        raise ConfigError(
            f"a third of {len(labels)} clips cannot be cut out in {BLOCKS_OF_FILE} blocks: take a larger set"
        )
    places = torch.arange(len(labels))
    third = (places * BLOCKS_OF_FILE // len(labels)) % 3 == 0
    judges = Split(clips[third], labels[third])
    return replace(volumes, train=Split(clips[~third], labels[~third]), val=judges, test=judges)
