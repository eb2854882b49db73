"""`vivit-edu predict`: what a trained model sees in files, by a run of ours or a published ViViT.

read_predictor("runs/first")             a run folder
read_predictor("weights/vivit-b")        a folder that Hugging Face's `save_pretrained` wrote: weights, config.json
predict_files(predictor, paths)          video files, volumes (.npy, .npz), or folders of these
predict_clip(predictor, clip)            one of them, or a tensor
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce, repeat
from torch import nn

from ..datasets.decoding import load_clip
from ..datasets.video_folders import files_in
from ..errors import CheckpointError, ConfigError, DataError
from ..models import build_model
from ..pretrained import load_pretrained, options_for
from ..support.checkpoint import check_kinds, fill
from ..support.devices import choose_device
from ..support.files import check_regular, read_json, shown
from ..support.npz import npz_arrays, npz_headers
from ..support.options import check_path, check_whole
from ..training import Recipe
from ..weights.stated import facts, normalisation
from .runs import newest_checkpoint, read_run, trained_weights

VOLUMES = (".npy", ".npz")


@dataclass(frozen=True)
class Predictor:
    """A model in eval mode and what must be known of the clips it expects.

    class_names: of its logits, in order. clip_shape: (C, T, H, W). mean, std: of each channel or one for all; the model
    gets (clip - mean) / std for clips in [0, 1]. margin: a picture is read this many times larger than needed, and its
    middle is taken, as it was for the published weights.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    clip_shape: tuple[int, int, int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    margin: float = 1.0

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        """Probabilities [K] of one clip seen in several views, uint8 or float in [0, 1] of shape [views, C, T, H, W].

        The logits of the views are averaged.
        """
        clips = clips / 255 if clips.dtype == torch.uint8 else clips.float()
        mean, std = (torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in (self.mean, self.std))
        device = next(self.model.parameters()).device
        with torch.no_grad():
            logits = self.model(((clips - mean) / std).to(device))  # [views, K]
        return logits.mean(dim=0).softmax(dim=-1).cpu()


def read_predictor(source: Path | str, *, device: str | torch.device = "auto") -> Predictor:
    """The model of a finished run, or a published ViViT of the layout of Hugging Face.

    source: a run folder; or a folder or file with weights, next to its config.json and, where there is one,
    preprocessor_config.json. Raises CheckpointError where it is neither, or cannot be read.
    """
    path, device = Path(source), choose_device(device)
    read = from_run if os.path.lexists(path / "run.json") else from_published
    predictor = read(path)
    predictor.model.eval().to(device)
    return predictor


def load_finished(folder: Path | str) -> tuple[nn.Module, dict, dict]:
    """The model of a finished run in eval mode on the CPU, what metrics.json says, and the checkpoint's content.

    Needs no data. Raises CheckpointError where the run is not finished or cannot be read.
    """
    folder = Path(folder)
    content = newest_checkpoint(folder, read_run(folder))
    try:
        metrics = read_json(folder / "metrics.json")
        check_kinds(
            metrics, {"dataset": str, "options": dict, "seed": int, "val": dict, "test": dict, "seconds": float}
        )
        shape, classes = (metrics["options"].get(key) for key in ("clip_shape", "num_classes"))
        recipe = Recipe.from_dict(content["recipe"])
        model = build_model(recipe.model, clip_shape=tuple(shape), num_classes=classes, **recipe.options)
    except FileNotFoundError:
        raise CheckpointError(
            f"the run in {folder} is not finished: it has no metrics.json. Finish it with vivit-edu train --resume"
        ) from None
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the run in {folder} cannot be read: {error}") from error
    fill(model, trained_weights(content), folder)
    return model.eval(), metrics, content


def from_run(folder: Path) -> Predictor:
    """Of a run that `vivit-edu train` finished."""
    model, metrics, _ = load_finished(folder)
    shape, classes = tuple(metrics["options"]["clip_shape"]), metrics["options"]["num_classes"]
    names = metrics.get("class_names") or [f"class {k}" for k in range(classes)]  # runs of older versions lack them
    return Predictor(model, tuple(names), shape)


def from_published(path: Path) -> Predictor:
    """Of Model 1 in the layout of Hugging Face, with the labels and the preparation of clips that its files state."""
    folder = path if path.is_dir() else path.parent
    config = settings_in(folder / "config.json")
    if config is None:
        raise CheckpointError(
            f"{shown(path)} is neither a run folder, which has a run.json, nor published weights, which have a "
            "config.json next to them. Give the folder that training wrote to, or one with both files of a ViViT"
        )
    stated = facts(config, shown(folder / "config.json"))
    if "frames" not in stated or "image_size" not in stated or len(stated.get("patch", ())) != 3:
        raise CheckpointError(
            f"{shown(folder / 'config.json')} does not say num_frames, image_size and tubelet_size: expected that of a "
            "ViViT. An image transformer knows no actions; `vivit-edu train --pretrained` trains a ViViT from it"
        )
    labels = config.get("id2label") or {}
    names = [str(labels.get(str(k), labels.get(k, f"class {k}"))) for k in range(max(len(labels), 1))]
    shape = (config.get("num_channels") or 3, stated["frames"], *stated["image_size"])
    options = options_for(path) | {"tubelet": stated["patch"]}
    model = build_model("spacetime", clip_shape=shape, num_classes=len(names), **options)
    report = load_pretrained(model, path)
    if report.how("head.weight") == "fresh":
        raise CheckpointError(
            f"{shown(path)} has no classifier for the {len(names)} labels of its config.json: expected weights of "
            "VivitForVideoClassification"
        )
    return Predictor(model, tuple(names), shape, **preparation(settings_in(folder / "preprocessor_config.json") or {}))


def preparation(settings: Mapping[str, object]) -> dict[str, object]:
    """Mean, std and margin of a `Predictor` from a preprocessor_config.json; without one, the published ViViT's."""
    mean, std = normalisation(settings)
    edge, crop = settings.get("size"), settings.get("crop_size")
    edge = edge.get("shortest_edge") if isinstance(edge, Mapping) else edge
    crop = crop.get("height") if isinstance(crop, Mapping) else crop
    cropped = settings.get("do_center_crop", True) and edge and crop
    return {
        "mean": mean,
        "std": std,
        "margin": max(edge / crop, 1.0) if cropped else 1.0,
    }


def settings_in(path: Path) -> dict | None:
    """What a JSON file says; None where there is none. CheckpointError where it is not an object."""
    if not os.path.lexists(path):
        return None
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{shown(path)} holds {type(content).__name__}, expected an object in braces")
    return content


# ---- files


def predict_clip(predictor: Predictor, clip: Path | str | torch.Tensor, *, views: int = 1) -> dict[str, float]:
    """The probability of each class, the most probable first.

    clip: a video file or a volume (.npy, .npz); or a tensor [C, T, H, W] of the predictor's shape, uint8 or float in
    [0, 1], or several views of one clip, [views, C, T, H, W]. views: of a video file, averaged, as in `predict_files`.
    Raises DataError where a file cannot be read, and ConfigError where a tensor is of another shape or kind.
    """
    if isinstance(clip, torch.Tensor):
        clips = clip[None] if clip.ndim == 4 else clip
        if clips.ndim != 5 or not len(clips) or tuple(clips.shape[1:]) != tuple(predictor.clip_shape):
            raise ConfigError(
                f"a clip of shape {list(clip.shape)} was given: this model expects {list(predictor.clip_shape)}, or "
                "several views of that"
            )
        inside = clips.dtype == torch.uint8 or (clips.is_floating_point() and 0 <= clips.min() and clips.max() <= 1)
        if not inside:
            raise ConfigError(f"a clip of {clips.dtype} was given: expected uint8, or floats from 0 to 1")
    else:
        check_whole("views", views, 1)
        check_path("clip", clip, "a video or a volume")
        clips = read_clips(Path(clip), predictor, views)
    found = zip(predictor.class_names, predictor(clips).tolist())
    return dict(sorted(found, key=lambda item: -item[1]))


def predict_files(
    predictor: Predictor, paths: Iterable[Path | str], *, views: int = 1, top: int = 5
) -> tuple[list[dict], dict[str, str]]:
    """The most probable classes of each file: ([{"file", "top": [{"class", "probability"}, …]}], {file: why not}).

    paths: video files, volumes, or folders, whose files are all tried. views: of a video, taken at different times and
    averaged. top: how many classes. A file that cannot be read stops nothing: it is among those of the second value.
    Raises ConfigError for a number that is not a whole one of at least 1, and DataError where there is no file at all.
    """
    check_whole("views", views, 1)
    check_whole("top", top, 1)
    files = [file for path in paths for file in (files_in(Path(path)) if os.path.isdir(path) else [Path(path)])]
    if not files:
        raise DataError(f"there is no file in {', '.join(map(str, paths))}: expected videos, .npy or .npz volumes")
    rows, failed = [], {}
    for file in files:
        try:
            probabilities = predictor(read_clips(file, predictor, views))
        except DataError as error:
            failed[str(file)] = str(error)
            continue
        best = probabilities.topk(min(top, len(probabilities)))
        rows.append(
            {
                "file": str(file),
                "top": [
                    {"class": predictor.class_names[k], "probability": p}
                    for p, k in zip(best.values.tolist(), best.indices.tolist())
                ],
            }
        )
    return rows, failed


def read_clips(path: Path, predictor: Predictor, views: int = 1) -> torch.Tensor:
    """A file as clips [views, C, T, H, W] of the predictor's shape, uint8 or float32 in [0, 1]; a volume has one view.

    Raises DataError, naming the file, where it cannot be read or does not hold what the model expects.
    """
    channels, frames, height, width = predictor.clip_shape
    if path.suffix.lower() in VOLUMES:
        clips = read_volume(path)[None]
        if clips.shape[2:] != (frames, height, width):
            clips = clips / 255 if clips.dtype == torch.uint8 else clips
            clips = F.interpolate(clips, size=(frames, height, width), mode="trilinear", align_corners=False)
    else:
        if height != width:
            raise DataError(f"{path.name}: videos are read as squares, but this model expects {height}×{width} pixels")
        size = math.ceil(height * predictor.margin)
        clips, edge = load_clip(path, frames=frames, size=size, views=views), (size - height) // 2
        clips = clips[..., edge : edge + height, edge : edge + width]
    if clips.shape[1] == channels:
        return clips
    if (channels, clips.shape[1]) == (1, 3):
        return reduce(clips / 255 if clips.dtype == torch.uint8 else clips, "v c t h w -> v 1 t h w", "mean")
    if clips.shape[1] == 1:
        return repeat(clips, "v 1 t h w -> v c t h w", c=channels)
    raise DataError(f"{path.name} has {clips.shape[1]} channels, but this model expects {channels}")


def read_volume(path: Path) -> torch.Tensor:
    """The array of an .npy file, or the only one of an .npz file, as [C, T, H, W], uint8 or float32 in [0, 1]."""
    if path.suffix.lower() == ".npz":
        keys = list(npz_headers(path))
        if len(keys) != 1:
            raise DataError(
                f"{path.name} holds {len(keys)} arrays ({', '.join(keys[:5])}): expected a single volume. A whole "
                "data set is read by vivit-edu evaluate"
            )
        (array,) = npz_arrays(path, keys).values()
    else:
        try:  # mapped: a header that promises more than the file holds is refused before there is memory for it
            check_regular(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{shown(path)} cannot be read: {error.strerror or error}") from error
        except Exception as error:  # whatever a damaged header makes NumPy raise
            reason = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise DataError(f"{shown(path)} cannot be read as an array: {reason}") from error
    array = array[None] if array.ndim == 3 else array
    if array.ndim != 4 or 0 in array.shape:
        raise DataError(f"{path.name} has shape {list(array.shape)}: expected a volume [T, H, W] or [C, T, H, W]")
    if array.dtype.kind not in "buif":
        raise DataError(f"{path.name} holds {array.dtype}: expected uint8, or floats from 0 to 1")
    if array.dtype == np.uint8:
        return torch.from_numpy(np.array(array))
    if array.dtype.kind != "f" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise DataError(
            f"{path.name} holds {array.dtype} from {array.min():g} to {array.max():g}: expected uint8, or floats from "
            "0 to 1, scaled as the training data were"
        )
    return torch.from_numpy(array.astype(np.float32))


def as_text(rows: Sequence[dict]) -> str:
    """The table that the command prints: a file, its best classes, their probabilities."""
    from tabulate import tabulate

    table = [
        (row["file"] if not n else "", guess["class"], f"{guess['probability']:.3f}")
        for row in rows
        for n, guess in enumerate(row["top"])
    ]
    return tabulate(table, headers=("file", "class", "probability"), disable_numparse=True)
