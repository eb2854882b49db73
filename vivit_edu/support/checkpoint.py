"""Checkpoints of a training run: written whole or not at all, read without running anything in them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

import torch

from ..errors import CheckpointError, DataError
from .files import written_whole
from .locks import check_alone
from .processes import on_first
from .torch_files import read_torch, write_torch

if TYPE_CHECKING:
    from ..training import TrainingState

LATEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def save_checkpoint(folder: Path | str, state: TrainingState, epochs_done: int) -> None:
    """Writes the state of a run after an epoch to `folder/checkpoint.pt`.

    The new file is complete on the disk before it takes the old one's name, and the old one is kept as
    `checkpoint.previous.pt`: whenever the process dies, one good checkpoint is there, and at most one half written.
    Raises CheckpointError where it cannot be written, and where the folder of a run is no longer the one it began in.
    """
    check_alone(folder)
    folder = Path(folder)
    latest = folder / LATEST
    content = {
        "epochs_done": epochs_done,
        "model": state.model.state_dict(),
        "averaged": state.averaged.state_dict() if state.averaged is not None else None,
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict() if state.scaler is not None else {},
        "history": state.history.rows,
        "recipe": state.recipe,
        "seed": state.seed,
        "data": state.data,
    }
    try:
        with written_whole(latest) as file:
            write_torch(content, file)
            file.flush()  # a disk that is full says so here, before the old checkpoint is moved
            if latest.exists():
                os.replace(latest, folder / PREVIOUS)
    except (DataError, OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise CheckpointError(
            f"the checkpoint after epoch {epochs_done} could not be written to {folder} ({error}): make room or "
            "choose another folder with --out, then go on with --resume; earlier checkpoints are kept"
        ) from error


def remove_half_written(folder: Path | str) -> None:
    """Removes what a run that was killed while it wrote a checkpoint left in its folder."""
    for half in Path(folder).glob(f".{LATEST}.*.part"):
        with suppress(OSError):
            half.unlink()


def load_checkpoint(folder: Path | str | None, state: TrainingState) -> int:
    """Puts the newest good checkpoint in `folder` into `state`; returns the epochs done, 0 where there is none.

    The run may have been asked for another number of epochs, at least those done.
    Raises CheckpointError where it belongs to other data, another recipe, seed, model or optimiser, or cannot be read.
    """
    if folder is None:
        raise CheckpointError("resume=True needs the folder of the run to resume: give out=FOLDER")
    on_first(remove_half_written, folder)
    content = on_first(read_newest, folder)
    if content is None:
        return 0
    done, wanted = content["epochs_done"], state.recipe["epochs"]
    if done > wanted:
        raise CheckpointError(f"the run in {folder} has done {done} epochs, asked for were {wanted}: ask for more")
    saved = {"recipe": state.complete(content["recipe"]) | {"epochs": wanted}, "seed": content["seed"]}
    for name, now in (("recipe", state.recipe), ("seed", state.seed)):
        if plain(saved[name]) != plain(now):
            raise CheckpointError(
                f"the run in {folder} has another {name}: {difference(saved[name], now)}. "
                "Resume with the one it was started with, or start anew in another folder"
            )
    if None not in (content["data"], state.data) and content["data"] != state.data:
        raise CheckpointError(
            f"the checkpoint in {folder} is of a run on other data: go on with the data that it was trained on, or "
            "start anew in another folder"
        )
    fill(state.model, content["model"], folder)
    if state.averaged is not None:
        fill(state.averaged, content["averaged"], folder)
    check_moments(state.optimiser, content["optimiser"], folder)
    state.optimiser.load_state_dict(content["optimiser"])
    check_scaler(state.scaler, content["scaler"], folder)
    if state.scaler is not None and content["scaler"]:  # nothing where that run was not in float16
        state.scaler.load_state_dict(content["scaler"])
    state.history.rows[:] = content["history"]
    return done


def fill(model: torch.nn.Module, weights: object, folder: Path | str) -> None:
    """Puts weights from the checkpoint of a run into its model, whatever either of them is wrapped in.

    Raises CheckpointError where they are another model's.
    """
    ours = {bare(name): tensor for name, tensor in model.state_dict().items()}
    theirs = {bare(str(name)): tensor for name, tensor in weights.items()} if isinstance(weights, dict) else {}
    differing = sorted(set(ours) ^ set(theirs))
    differing += [name for name in set(ours) & set(theirs) if form(ours[name]) != form(theirs[name])]
    if differing:
        raise CheckpointError(
            f"the checkpoint in {folder} is of another model: {len(differing)} tensors differ, among them "
            f"{differing[0]}. Its run.json or its checkpoint was changed: start anew in another folder"
        )
    if broken := [name for name in ours if theirs[name].is_floating_point() and not theirs[name].isfinite().all()]:
        raise CheckpointError(
            f"the checkpoint in {folder} holds NaN or infinity in {len(broken)} tensors, among them {broken[0]}: it "
            "was damaged, or changed after training. Start anew in another folder"
        )
    model.load_state_dict({name: theirs[bare(name)] for name in model.state_dict()})


def bare(name: str) -> str:
    """A tensor's name without what torch.compile, data parallelism and averaging put before it."""
    return re.sub(r"^((_orig_mod|module)\.)+", "", name)


def check_moments(optimiser: object, saved: object, folder: Path | str) -> None:
    """Raises CheckpointError where the state of an optimiser does not belong to it: other groups or other moments."""
    saved = saved if isinstance(saved, dict) else {}
    if hasattr(optimiser, "optimisers"):  # several that step as one
        for number, part in enumerate(optimiser.optimisers):
            check_moments(part, saved.get(str(number)), folder)
        return
    ours, parameters = optimiser.state_dict(), [(p, group) for group in optimiser.param_groups for p in group["params"]]
    groups, moments = saved.get("param_groups"), saved.get("state")
    fits = isinstance(groups, list) and isinstance(moments, dict) and set(moments) <= set(range(len(parameters)))
    fits = fits and all(isinstance(values, dict) for values in [*groups, *moments.values()])
    fits = fits and [(set(g), g.get("params")) for g in groups] == [(set(g), g["params"]) for g in ours["param_groups"]]
    for number in moments if fits else ():
        kept = {name: form(tensor) for name, tensor in moments[number].items()}
        fits = fits and kept == moment_forms(optimiser, *parameters[number])
    if not fits:
        raise CheckpointError(
            f"the checkpoint in {folder} holds the state of another optimiser: start anew in another folder"
        )
    if not all(tensor.isfinite().all() for values in moments.values() for tensor in values.values()):
        raise CheckpointError(
            f"the checkpoint in {folder} holds NaN or infinity in the state of its optimiser: it was damaged, or "
            "changed after training. Start anew in another folder"
        )


def moment_forms(
    optimiser: torch.optim.Optimizer, parameter: torch.Tensor, group: dict[str, object]
) -> dict[str, tuple[torch.Size, torch.dtype] | None]:
    """What an optimiser keeps of a parameter of a group, {name: form}.

    It is what another optimiser of this kind keeps after a step on a parameter that holds a single number.
    """
    number = torch.nn.Parameter(torch.zeros((1,) * parameter.ndim, dtype=parameter.dtype, device=parameter.device))
    number.grad = torch.zeros_like(number)
    trial = type(optimiser)([{**group, "params": [number]}])
    trial.step()
    kept = {name: form(value) for name, value in trial.state[number].items()}
    return {name: f and (parameter.shape if f[0] == number.shape else f[0], f[1]) for name, f in kept.items()}


def check_scaler(scaler: torch.amp.GradScaler | None, saved: dict, folder: Path | str) -> None:
    """Raises CheckpointError where the state of a loss scaler is not one; none at all is fine, as without float16."""
    ours = scaler.state_dict() if scaler is not None else {}
    numbers = all(isinstance(value, (int, float)) for value in saved.values())
    if not numbers or (ours and saved and set(ours) != set(saved)):
        raise CheckpointError(
            f"the checkpoint in {folder} holds no state of a loss scaler: start anew in another folder"
        )


def form(tensor: object) -> tuple[torch.Size, torch.dtype] | None:
    """A tensor's shape and type; None for anything else."""
    return (tensor.shape, tensor.dtype) if isinstance(tensor, torch.Tensor) else None


def read_newest(folder: Path | str, map_location: str = "cpu") -> dict[str, object] | None:
    """The content of the newest checkpoint in `folder` that can be read, or None where there is none.

    Where the newest one is damaged, a printed line says so and the one before it is read.
    Raises CheckpointError where there are checkpoints and none of them can be read.
    """
    damaged = []
    for name in (LATEST, PREVIOUS):
        path = Path(folder) / name
        if not os.path.lexists(path):  # a link that leads nowhere is a checkpoint that cannot be read
            continue
        try:
            content = read_torch(path, map_location)
            if isinstance(content, dict):
                content.setdefault("scaler", {})  # checkpoints had none before float16
                content.setdefault("data", None)  # nor said what they were trained on
            check_content(content)
        except Exception as error:  # whatever a damaged file makes torch raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            damaged.append(f"{path}: {reason}")
            continue
        if damaged:
            print(
                f"A checkpoint is damaged ({damaged[0]}); going on from {name}, after epoch {content['epochs_done']}."
            )
        return content
    if damaged:
        raise CheckpointError(
            f"no checkpoint in {folder} can be read: {'; '.join(damaged)}. Start anew in another folder"
        )
    return None


def check_content(content: object) -> None:
    """Raises CheckpointError for what `save_checkpoint` would not have written."""
    check_kinds(
        content,
        {
            "epochs_done": int,
            "model": dict,
            "averaged": (dict, NoneType),
            "optimiser": dict,
            "scaler": dict,
            "history": list,
            "recipe": dict,
            "seed": int,
            "data": (str, NoneType),
        },
    )
    rows, columns = content["history"], {"epoch", "lr", "loss", "val_acc", "val_balanced_acc", "val_auc", "seconds"}
    if len(rows) != content["epochs_done"] or not all(
        isinstance(row, dict)
        and set(row) == columns
        and all(isinstance(value, (int, float)) or (name, value) == ("val_auc", None) for name, value in row.items())
        for row in rows
    ):
        raise CheckpointError(f"its history is not that of {content['epochs_done']} epochs")


def check_kinds(content: object, kinds: dict[str, type | tuple[type, ...]]) -> None:
    """Raises CheckpointError for anything but a dict that has at least these values, {name: type}."""
    if not isinstance(content, dict):
        raise CheckpointError(f"it is no dict but a {type(content).__name__}")
    if missing := sorted(set(kinds) - set(content)):
        raise CheckpointError(f"it lacks {', '.join(missing)}")
    if wrong := [name for name, kind in kinds.items() if not isinstance(content[name], kind)]:
        raise CheckpointError(f"its {', '.join(wrong)} is of another kind than was ever written")


def plain(value: object) -> object:
    """The value with tuples as lists, the way files keep them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def difference(old: object, new: object) -> str:
    """What differs between two recipes or two seeds, in words."""
    if not isinstance(old, dict):
        return f"{old}, now {new}"
    old, new = plain(old), plain(new)
    return ", ".join(
        f"{key} was {old.get(key)}, now {new.get(key)}" for key in {**old, **new} if old.get(key) != new.get(key)
    )
