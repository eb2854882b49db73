"""Checkpoints of a training run: written whole or not at all, read without running anything in them."""

import os
from pathlib import Path

import torch

from .distributed import on_first
from .errors import CheckpointError

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save_checkpoint(folder, state, epochs_done):
    """Writes the state of a run after an epoch to `folder/checkpoint.pt`.

    The new file is complete on the disk before it takes the old one's name, and the old one is kept as
    `checkpoint.previous.pt`: whenever the process dies, one good checkpoint is there.
    """
    folder = Path(folder)
    latest, partial = folder / LATEST, folder / f"{LATEST}.partial"
    content = {
        "epochs_done": epochs_done,
        "model": state.model.state_dict(),
        "averaged": state.averaged.state_dict() if state.averaged is not None else None,
        "optimiser": state.optimiser.state_dict(),
        "history": state.history.rows,
        "recipe": state.recipe,
        "seed": state.seed,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if latest.exists():
            os.replace(latest, folder / PREVIOUS)
        os.replace(partial, latest)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"the checkpoint after epoch {epochs_done} could not be written to {folder} ({error}): make room or "
            "choose another folder with --out, then go on with --resume; earlier checkpoints are kept"
        ) from error


def load_checkpoint(folder, state):
    """Puts the newest good checkpoint in `folder` into `state`; returns the epochs done, 0 where there is none."""
    if folder is None:
        raise CheckpointError("resume=True needs the folder of the run to resume: give out=FOLDER")
    content = on_first(read_newest, folder)
    if content is None:
        return 0
    saved = {"recipe": state.complete(content["recipe"]), "seed": content["seed"]}
    for name, now in (("recipe", state.recipe), ("seed", state.seed)):
        if plain(saved[name]) != plain(now):
            raise CheckpointError(
                f"the run in {folder} has another {name}: {difference(saved[name], now)}. "
                "Resume with the one it was started with, or start anew in another folder"
            )
    state.model.load_state_dict(content["model"])
    state.optimiser.load_state_dict(content["optimiser"])
    if state.averaged is not None:
        state.averaged.load_state_dict(content["averaged"])
    state.history.rows[:] = content["history"]
    return content["epochs_done"]


def read_newest(folder, map_location="cpu"):
    """The content of the newest checkpoint in `folder` that can be read, or None where there is none.

    A damaged newest one is passed over, in words, for the one before it.
    """
    damaged = []
    for name in (LATEST, PREVIOUS):
        path = Path(folder) / name
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location=map_location, weights_only=True)
            missing = {"epochs_done", "model", "averaged", "optimiser", "history", "recipe", "seed"} - set(content)
            if missing:
                raise CheckpointError(f"it lacks {', '.join(sorted(missing))}")
        except Exception as error:  # whatever a damaged file makes torch raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            damaged.append(f"{path}: {reason}")
            continue
        if damaged:
            print(f"A checkpoint is damaged ({damaged[0]}); going on from {name}, after epoch {content['epochs_done']}.")
        return content
    if damaged:
        raise CheckpointError(f"no checkpoint in {folder} can be read: {'; '.join(damaged)}. Start anew in another folder")
    return None


def plain(value):
    """The value with tuples as lists, the way that files keep them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def difference(old, new):
    """What differs between two recipes or seeds, in words."""
    if not isinstance(old, dict):
        return f"{old}, now {new}"
    old, new = plain(old), plain(new)
    return ", ".join(f"{key} was {old.get(key)}, now {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key))
