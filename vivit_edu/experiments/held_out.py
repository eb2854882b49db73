"""Choosing a recipe without the test split: rows that are judged on clips that no training or test split holds.

Of the phantom the judges are patients whom no split holds. Of other sets there are no more clips than the files have,
so a third of training and validation together is cut out, in blocks, and models train on what remains. Both were judges
before, in the second search of `tried_recipes.md`, which chose the preset `full`: its row is a little flattered.
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
JUDGED_ON = "100 patients of the phantom whom no split holds, or a third of another set's training and validation"
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

    size: voxels along a side; where the given clips have others, they are loaded anew. judges: numbers of patients of
    the phantom. Raises ConfigError for other sets with fewer clips than BLOCKS_OF_FILE.
    """
    if volumes.train.clips.shape[-1] != size:
        volumes = in_another_size(volumes, size)
    if volumes.name == "organphantom3d":
        check_other_patients(volumes, judges)
        held_out = replace(volumes, test=Split(*kept_patients(Path(out).parent, judges, size)))
    else:
        held_out = without_a_third(volumes)
    return train_run(held_out, recipe, out=out, **rest)


def in_another_size(volumes: Volumes, size: int) -> Volumes:
    """The same volumes with so many voxels along a side, from where `load_volumes` finds them.

    Raises ConfigError where it finds others, as it may if the given ones came from a `root` of their own.
    """
    found = load_volumes(volumes.name, size=size)
    if not torch.equal(found.train.labels, volumes.train.labels):
        raise ConfigError(
            f"the {volumes.name} of {size}³ voxels that is found has other labels than the one given: say in "
            "$VIVIT_EDU_DATA where both are, and leave out --root"
        )
    return found


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
