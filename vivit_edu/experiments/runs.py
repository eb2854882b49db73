"""A run folder: a model trained, evaluated and explained, with its metrics and figures written down.

run.json          what the run is: data set, place and SHA-256 of its data, recipe, seed, hashes of the code
checkpoint.pt     the state after the last epoch (checkpoint.previous.pt: after the one before)
pretrained.json   where its first weights are from and what was done with each; only of a pretrained start
history.json      one row an epoch
metrics.json      the figures, with everything that is needed to get them again
curves.png, confusion.png, attention.png
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from types import NoneType
from typing import TYPE_CHECKING

import torch
from torch import nn

from .. import plots
from ..augment import predict_views
from ..data import load_volumes
from ..errors import CheckpointError, ConfigError, DataError
from ..explain.pictures import clips_figure
from ..explain.rollout import rollout
from ..pretrained import load_pretrained
from ..support.checkpoint import (
    LATEST,
    PREVIOUS,
    check_kinds,
    difference,
    fill,
    plain,
    read_newest,
    remove_half_written,
)
from ..support.devices import choose_device, describe_device
from ..support.files import check_space, read_json, what_is, why_no_folder, written_whole
from ..support.identity import identity, identity_hash, other_data
from ..support.locks import alone_in, check_alone
from ..support.memory import usable_memory
from ..support.options import check_path, check_seed
from ..support.processes import is_first, on_first
from ..training import History, Metrics, Recipe, build_seeded, fit, predict_logits, score
from ..vivit import ViViT
from ..volumes import Volumes
from .code import code_of, same_code

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# what stands in the folder of a run
RUN_FILES = ("run.json", LATEST, PREVIOUS, "pretrained.json", "history.json", "metrics.json")
RUN_FILES += ("curves.png", "confusion.png", "attention.png")
VIDEO_OPTIONS = {"seed": int, "val": str, "test": str, "clips": int}  # of `load_videos`, as run.json keeps them
# whole voxels along T, H and W: less than the preset's training moves clips by
VIEW_SHIFTS = ((0, 0, 0), (2, 0, 0), (-2, 0, 0), (0, 2, 0), (0, -2, 0), (0, 0, 2), (0, 0, -2))


def train_run(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int = 0,
    resume: bool = False,
    device: str | torch.device = "auto",
    root: Path | str | None = None,
    videos: dict | None = None,
    preset: str | None = None,
    figures: bool = True,
) -> dict | None:
    """Trains, evaluates and explains, all written to the folder `out`; returns what stands in metrics.json.

    Nothing is written before the model has been built and its first weights, if pretrained, have been read.
    resume: go on with the run in `out`, which must have been started with the same recipe and seed; only its epochs may
    be more. The file of pretrained weights that it began with is then no longer read.
    device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps". root: where the data are, noted so that
    the run can be evaluated later; videos: likewise the arguments "folder", "frames" and "seed" of `load_videos`, with
    "val", "test" and "clips" where they were given. preset: the name of the preset that the recipe began as, for the
    record. figures: draw them, too. The test split is read once, after training. Of several processes the first
    evaluates and writes; the others return None.
    """
    check_seed(seed)
    check_path("out", out, "a run folder")
    device = choose_device(device)
    out, size = Path(out), volumes.train.clips.shape[-1]
    what = {"dataset": volumes.name, "size": size, "root": absolute(root) if root else None, "seed": seed}
    if videos:
        what["videos"] = videos | {key: absolute(videos[key]) for key in ("folder", "val", "test") if key in videos}
    on_first(claim, out, resume)
    model = build_seeded(recipe, volumes, seed)
    check_memory(model, volumes.train.clips.shape[1:], min(recipe.batch_size, len(volumes.train)))
    on_first(check_space, out, 12 * sum(p.numel() for p in model.parameters()))  # weights and AdamW's two moments
    # the other processes get the first one's weights when training starts
    report = on_first(load_first_weights, model, recipe, out, resume)
    run = what | {"data": identity(volumes), "recipe": asdict(recipe)} | ({"preset": preset} if preset else {})
    run |= {"code": code_of(train_run, recipe, volumes.name)}
    with alone_in(out):
        on_first(begin, out, resume, run, report)
        model = model.to(device)
        start = time.perf_counter()
        history = fit(model, volumes, recipe, seed=seed, out=out, resume=resume)
        if not is_first():
            return None
        check_alone(out)
        seconds = sum(history["seconds"])  # of all epochs, also those before a resume
        write_json(out / "history.json", history.rows)
        val_logits, test_logits = (predict_logits(model, split) for split in (volumes.val, volumes.test))
        metrics = {
            **what,
            "class_names": list(volumes.class_names),
            "model": recipe.model,
            "options": asdict(model.config),
            "recipe": asdict(recipe) | {"pretrained": weights_name(recipe.pretrained)},
            **first_weights(out),
            **{key: value for key, value in read_run(out).items() if key in ("longer", "code")},
            "epochs": len(history),
            "seconds": round(seconds, 1),
            "seconds_this_time": round(time.perf_counter() - start, 1),
            "device": describe_device(device),
            "versions": versions(),
            "val": asdict(score(val_logits, volumes.val.labels)),
            "test": asdict(score(test_logits, volumes.test.labels)),
        }
        for key in {"root", "videos"} & set(metrics):  # a path of this machine says nothing elsewhere
            del metrics[key]
        write_json(out / "metrics.json", metrics)
        if figures:
            with written(out):
                draw_figures(out, model, volumes, history, test_logits)
        check_alone(out)
    return metrics


def metrics_of(
    model: nn.Module,
    volumes: Volumes,
    recipe: Recipe,
    rows: Sequence[dict],
    *,
    seed: int,
    device: torch.device,
) -> dict:
    """What tables keep of a run that was not made by `train_run`. rows: of its history, one for each epoch."""
    splits = {"val": volumes.val, "test": volumes.test}
    return {
        "dataset": volumes.name,
        "size": volumes.train.clips.shape[-1],
        "seed": seed,
        "class_names": list(volumes.class_names),
        "model": recipe.model,
        "recipe": asdict(recipe),
        "epochs": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "device": describe_device(device),
        "versions": versions(),
        **{name: asdict(score(predict_logits(model, split), split.labels)) for name, split in splits.items()},
    }


def absolute(place: Path | str) -> str:
    """A path that means the same in every working directory."""
    return str(Path(place).expanduser().absolute())


def default_folder(volumes: Volumes, recipe: Recipe, seed: int) -> Path:
    """runs/NAME-MODEL-SEED-TIME, below the folder one works in; a long NAME, as of a folder of videos, is cut."""
    name = volumes.name.encode()[:100].decode("utf-8", "ignore")
    return Path("runs") / f"{name}-{recipe.model}-{seed}-{time.strftime('%Y%m%d-%H%M%S')}"


def load_run(
    folder: Path | str, *, root: Path | str | None = None, device: str | torch.device = "auto"
) -> tuple[nn.Module, Volumes, dict]:
    """The model and the volumes of a finished or unfinished run: (model, volumes, what `run.json` says)."""
    run = read_run(folder)
    content = newest_checkpoint(folder, run)
    volumes = load_data(run, root)
    check_data(folder, run, volumes)
    return restored(folder, content, volumes, device), volumes, run


def load_model(folder: Path | str, volumes: Volumes, *, device: str | torch.device = "auto") -> nn.Module:
    """The model of a run as its last checkpoint has it; volumes: those that it was trained on."""
    run = read_run(folder)
    check_data(folder, run, volumes)
    return restored(folder, newest_checkpoint(folder, run), volumes, device)


def check_data(folder: Path | str, run: dict, volumes: Volumes) -> None:
    """Raises CheckpointError, saying what differs, for other volumes than those that the run was trained on.

    run: what its `run.json` says; one that was written before it named the data fits any volumes.
    """
    if differing := "data" in run and other_data(run["data"], identity(volumes)):
        raise CheckpointError(
            f"these are not the data that the run in {folder} was trained on: {differing}. It could be tested on what "
            "it was trained on. Put the data back as they were, or say where they are (--root)"
        )


def newest_checkpoint(folder: Path | str, run: dict) -> dict:
    """The last checkpoint of a run; CheckpointError where there is none, or one of another run."""
    content = read_newest(folder)
    if content is None:
        raise CheckpointError(f"the run in {folder} has no checkpoint yet: let it finish its first epoch")
    saved, said = (plain(asdict(Recipe.from_dict(kept["recipe"]))) | {"seed": kept["seed"]} for kept in (content, run))
    for kept in (saved, said):
        del kept["pretrained"]  # a place where the file may no longer be; what was in it is in pretrained.json
    epochs = saved.pop("epochs"), said.pop("epochs")
    differing = difference(saved, said) if saved != said else ""
    if epochs[0] > epochs[1]:
        differing = f"epochs was {epochs[0]}, now {epochs[1]}"
    if content["data"] and "data" in run and content["data"] != identity_hash(run["data"]):
        differing = "it was trained on other data"
    if differing:
        raise CheckpointError(
            f"the checkpoint in {folder} is of another run than its run.json says: {differing}. Put the run's own "
            "checkpoint back, or train anew in another folder"
        )
    return content


def restored(folder: Path | str, content: dict, volumes: Volumes, device: str | torch.device) -> nn.Module:
    """The model that a checkpoint holds, with its averaged weights where there are any."""
    model = Recipe.from_dict(content["recipe"]).build(volumes)
    fill(model, trained_weights(content), folder)
    return model.to(choose_device(device))


def trained_weights(content: dict) -> dict:
    """The weights in a checkpoint that a run is evaluated with: the averaged ones, where there are any."""
    if content["averaged"] is None:
        return content["model"]
    return {k.removeprefix("module."): v for k, v in content["averaged"].items() if k.startswith("module.")}


def load_data(run: dict, root: Path | str | None = None) -> Volumes:
    """The volumes that a run was trained on, by what its `run.json` says. root: where they are now, if elsewhere."""
    if videos := run.get("videos"):
        from ..datasets.video import load_videos

        given = {key: videos[key] for key in VIDEO_OPTIONS if key in videos}
        return load_videos(root or videos["folder"], frames=videos["frames"], size=run["size"], **given)
    return load_volumes(run["dataset"], size=run["size"], root=root or run["root"])


def evaluate_run(
    folder: Path | str,
    *,
    root: Path | str | None = None,
    device: str | torch.device = "auto",
    views: bool = False,
) -> dict[str, Metrics]:
    """Metrics of a run's model on the validation and the test split: {"val": Metrics, "test": Metrics}.

    views: average the logits over test-time views, as the paper does over several of a video: each clip as it
    is and moved by two voxels either way along each axis, all of these mirrored, too (labels swapped back).
    """
    model, volumes, run = load_run(folder, root=root, device=device)
    flips = not (volumes.film or run["recipe"]["augmentation"].get("film"))  # a film runs backwards in no view

    def average(model, clips):
        return predict_views(model, clips, volumes.mirror, VIEW_SHIFTS, flips=flips)

    return {
        name: score(predict_logits(model, split, predict=average if views else None), split.labels)
        for name, split in (("val", volumes.val), ("test", volumes.test))
    }


def read_run(folder: Path | str) -> dict:
    """What `run.json` in the folder says; CheckpointError where the folder holds no run."""
    path = Path(folder) / "run.json"
    try:
        what_is(path)
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} is not a run folder: it has no run.json. Give the folder that training wrote to"
        ) from None
    try:
        run = read_json(path)
        check_kinds(run, {"dataset": str, "size": int, "root": (str, NoneType), "seed": int, "recipe": dict})
        for told in {"data", "code"} & set(run):
            check_kinds(run, {told: dict})
            check_kinds(run[told], dict.fromkeys(run[told], str))
        if "videos" in run:
            kinds = {"folder": str, "frames": int, "seed": int}
            kinds |= {key: kind for key, kind in VIDEO_OPTIONS.items() if key in run["videos"]}
            check_kinds(run["videos"], kinds)
        Recipe.from_dict(run["recipe"])
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. The checkpoint beside it is untouched") from error
    return run


def load_first_weights(model: nn.Module, recipe: Recipe, out: Path, resume: bool = False) -> dict | None:
    """Puts the recipe's pretrained weights, if any, into the model; returns what pretrained.json says of them.

    A run that is resumed has its weights in the checkpoint: None, as where nothing is pretrained.
    """
    if not recipe.pretrained or (resume and any((out / name).exists() for name in (LATEST, PREVIOUS))):
        return None
    report = load_pretrained(model, recipe.pretrained, method=recipe.inflate, heads=recipe.options.get("heads"))
    print(f"First weights: {recipe.pretrained}, inflate={recipe.inflate}\n{report}")
    return {
        "weights": weights_name(recipe.pretrained),
        "sha256": sha256(recipe.pretrained),
        "inflate": recipe.inflate,
        "layout": report.layout,
        "report": str(report).splitlines(),
    }


def first_weights(out: Path) -> dict:
    """What metrics.json says of a pretrained start: {"first_weights": pretrained.json without the report}, or {}."""
    path = out / "pretrained.json"
    if not os.path.lexists(path):
        return {}
    try:
        kept = read_json(path)
        check_kinds(kept, {"weights": str, "report": list})
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Move it away and go on with --resume") from error
    return {"first_weights": {key: value for key, value in kept.items() if key != "report"}}


def weights_name(weights: str) -> str:
    """A file's name without its folder; other names of weights as they are."""
    return Path(weights).name if weights else ""


def sha256(weights: str) -> str | None:
    """The SHA-256 of a file of weights; None where they are not a single file."""
    path = Path(weights).expanduser()
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def draw_figures(out: Path, model: nn.Module, volumes: Volumes, history: History, test_logits: torch.Tensor) -> None:
    """curves.png, confusion.png and, for the four ViViTs, attention.png."""
    labels, guesses = volumes.test.labels.cpu(), test_logits.argmax(dim=1)
    plots.save(plots.curves(history), out / "curves.png")
    plots.save(plots.confusion(labels, guesses, volumes.class_names), out / "confusion.png")
    if isinstance(model, ViViT):
        plots.save(attention_figure(model, volumes, guesses), out / "attention.png")


def attention_figure(model: ViViT, volumes: Volumes, guesses: torch.Tensor) -> Figure:
    """Slices of a right and a wrong test prediction with the attention rollout over them."""
    labels = volumes.test.labels.cpu()
    right, wrong = (torch.nonzero(hit).flatten() for hit in (guesses == labels, guesses != labels))
    chosen = [found[0].item() for found in (right, wrong) if len(found)]
    picked = volumes.test.subset(chosen)
    scores = rollout(model, picked.clips.to(next(model.parameters()).device).float() / 255).cpu()
    names = volumes.class_names
    titles = [
        f"{'right' if guesses[i] == labels[i] else 'wrong'}: {names[guesses[i]]}"
        + ("" if guesses[i] == labels[i] else f", is {names[labels[i]]}")
        for i in chosen
    ]
    return clips_figure(model, picked.clips.cpu(), scores, titles, masks=picked.masks)


def begin(out: Path, resume: bool, run: dict, pretrained: dict | None = None) -> None:
    """Writes down in the run folder what the run is.

    resume: it goes on, and must be what it was, or longer. pretrained: what `load_first_weights` returned.
    Raises CheckpointError where the folder's run is another one.
    """
    claim(out, resume)  # again: another run may have begun there in the meantime
    try:
        before = read_run(out) if resume else dict(run)
    except CheckpointError:  # none is there yet, or a damaged one: the checkpoint knows recipe and seed, too
        before = dict(run)
        if any((out / name).exists() for name in (LATEST, PREVIOUS)):
            before.pop("code", None)
    before["recipe"] = asdict(Recipe.from_dict(before["recipe"]))
    epochs, wanted = before["recipe"]["epochs"], run["recipe"]["epochs"]
    if wanted > epochs:  # noted, since the result is not that of such a run from the start
        run = run | {"longer": [*before.get("longer", []), [epochs, wanted]]}
        before["recipe"]["epochs"] = wanted
    elif "longer" in before:
        run = run | {"longer": before["longer"]}
    if "code" in before and "code" in run:
        run = run | {"code": same_code(before["code"], run["code"])}
    else:  # by what code it began is not known
        run = {key: value for key, value in run.items() if key != "code"}
    differing = "data" in before and other_data(before["data"], run["data"])
    if "data" in before and not differing:
        before["dataset"] = run["dataset"]  # a folder of videos may have another name by now
    for name in ("dataset", "size", "recipe", "seed"):
        if plain(before[name]) != plain(run[name]):
            raise CheckpointError(
                f"the run in {out} has another {name}: {difference(before[name], run[name])}. "
                "Resume with the one it was started with, or start anew in another folder"
            )
    if differing:
        raise CheckpointError(
            f"these are not the data that the run in {out} was started with: {differing}. Put the data back as they "
            "were, or start anew in another folder"
        )
    write_json(out / "run.json", run)
    if not resume:  # nor of an earlier attempt that finished no epoch
        (out / "pretrained.json").unlink(missing_ok=True)
    if pretrained:
        write_json(out / "pretrained.json", pretrained)


def check_memory(model: nn.Module, clip_shape: Sequence[int], clips: int) -> None:
    """Raises ConfigError where training takes more memory than this machine has, before the system ends the process.

    Counted is what it takes at the least, in float32: weights, gradients and AdamW's two moments; a batch of so many
    clips [C, T, H, W]; and what the layers of a ViViT keep of each token for the way back.
    model: as built, if only on torch's device "meta".
    """
    needed, memory = memory_needed(model, clip_shape, clips), usable_memory()
    if memory is not None and needed > memory:
        raise ConfigError(
            f"training this model on batches of {clips} clips {list(clip_shape)} takes at least "
            f"{needed / 2**30:.3g} GiB, and this machine has {memory / 2**30:.3g}: take smaller batches, fewer "
            "frames, larger tubelets or a smaller model"
        )


def memory_needed(model: nn.Module, clip_shape: Sequence[int], clips: int) -> int:
    """Bytes that a training step takes at the least, as `check_memory` counts them."""
    numbers = 4 * sum(p.numel() for p in model.parameters()) + clips * math.prod(clip_shape)
    if isinstance(model, ViViT):
        config = model.config
        numbers += clips * math.prod(model.embedding.grid) * config.depth * (8 * config.dim + 2 * config.mlp_dim)
    return 4 * numbers


def claim(out: Path | str, resume: bool) -> None:
    """Raises ConfigError for a folder that holds a run already, or that nothing can be written to; writes nothing.

    A run that finished no epoch is not in the way; files that no run of ours wrote, and that a run would write over,
    are. resume: the run goes on, so that it may be there.
    """
    out = Path(out)
    there = [name for name in RUN_FILES if os.path.lexists(out / name)]
    begun = {LATEST, PREVIOUS, "history.json", "metrics.json"} & {*there}
    if begun and not resume:
        raise ConfigError(f"{out} holds a run already: go on with it (--resume) or choose another folder (--out)")
    if there and not begun:
        try:
            read_run(out)
        except CheckpointError:
            raise ConfigError(
                f"{out} holds {', '.join(there)}, which no run here wrote and a run would write over: choose another "
                "folder with --out"
            ) from None
    folder = next(place for place in (out, *out.absolute().parents) if os.path.lexists(place))
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"nothing can be written to {out} ({why_no_folder(error, out)}): choose another folder with --out"
        ) from error


def remove_run(folder: Path) -> None:
    """Removes what a run wrote to its folder, and the folder where nothing else is in it."""
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    remove_half_written(folder)
    with suppress(OSError):
        folder.rmdir()


def write_json(path: Path, content: object) -> None:
    """Writes the file whole or not at all. What is not a finite number, such as an AUC of one class, becomes null."""
    with written(path), written_whole(path) as file:
        file.write((json.dumps(finite(content), indent=2, allow_nan=False) + "\n").encode("utf-8"))


def finite(value: object) -> object:
    """The value with None for each number in it that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def written(path: Path | str) -> Iterator[None]:
    """Within it, a disk that is full or a folder that cannot be written to is a CheckpointError that names `path`."""
    try:
        yield
    except (OSError, DataError) as error:
        reason = getattr(error, "strerror", None) or str(error.__cause__ or error).splitlines()[0]
        raise CheckpointError(
            f"{path} could not be written ({reason}): make room or choose another folder with --out, "
            "then go on with --resume; checkpoints are kept"
        ) from error


def versions() -> dict[str, str | None]:
    """The versions that a figure depends on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in ("vivit-edu", "torch", "torchvision", "numpy", "scikit-learn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
