"""Which data a run was trained on, so that it is measured on no others.

The data of a run are told by {part: "SPLIT SHA-256"}. The parts are the splits, their clips and labels, whatever
file these are from. Of a folder of videos they are the files as well, and the clips do not count: decoders differ.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..volumes import Volumes

MOST_NAMED = 3  # parts that a message names


def identity(volumes: Volumes) -> dict[str, str]:
    """What tells these volumes from all others, as it is kept in a run.json."""
    parts = dict(volumes.files or {})
    for name in ("train", "val", "test"):
        split = getattr(volumes, name)
        told = hashlib.sha256(f"{list(split.clips.shape)} {split.labels.tolist()}".encode())
        if volumes.files is None:
            told.update(split.clips.contiguous().cpu().numpy().tobytes())
        parts[f"the split {name}"] = f"{name} {told.hexdigest()}"
    return parts


def identity_hash(parts: Mapping[str, str]) -> str:
    """The SHA-256 of an `identity`, as it is kept in a checkpoint."""
    return hashlib.sha256(json.dumps(sorted(parts.items())).encode()).hexdigest()


def other_data(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between the data of a run and others, in words; "" where they are the same."""
    old, new = ({name: tuple(told.split(" ", 1)) for name, told in parts.items()} for parts in (was, now))
    both = [name for name in old if name in new]
    found = {
        "new": [name for name in new if name not in old],
        "gone": [name for name in old if name not in new],
        "of other content": [name for name in both if old[name][-1] != new[name][-1]],
        "in another split": [
            f"{name}: {old[name][0]}, now {new[name][0]}" for name in both if old[name][0] != new[name][0]
        ],
    }
    return ", ".join(
        f"{len(names)} {kind} ({'; '.join(names[:MOST_NAMED])}{'; …' * (len(names) > MOST_NAMED)})"
        for kind, names in found.items()
        if names
    )
