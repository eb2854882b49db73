"""`vivit-edu explain`: what a trained run looked at in one clip, as a figure and as a film through the slices."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from .. import plots
from ..errors import ConfigError
from ..explain.faithfulness import METHODS
from ..explain.rollout import to_voxels
from ..support.files import written_whole
from ..vivit import ViViT
from .runs import load_run, written


def explain_run(
    folder: Path | str,
    *,
    sample: int = 0,
    method: str = "rollout",
    split: str = "test",
    root: Path | str | None = None,
    device: str | torch.device = "auto",
) -> tuple[str, list[Path]]:
    """Writes explain-SPLIT-SAMPLE-METHOD.png and .gif to the run folder; returns (title, [their paths]).

    sample: the clip's number in the split; method: a key of METHODS, "-" standing for its blanks. Of signed
    maps the part that speaks for the predicted class is shown. Raises ConfigError where the run's model is
    no ViViT, or no such clip, split or method is there.
    """
    name = method.replace("-", " ")
    if name not in METHODS:
        raise ConfigError(
            f"no method is called {method!r}; the methods are {', '.join(in_file_name(m) for m in METHODS)}"
        )
    model, volumes, run = load_run(folder, root=root, device=device)
    if not isinstance(model, ViViT):
        raise ConfigError(
            f"the run in {folder} trained {run['recipe']['model']}, which has no attention of this kind: "
            "explain a run of one of Models 1 to 4"
        )
    chosen = getattr(volumes, split)
    if not 0 <= sample < len(chosen):
        raise ConfigError(
            f"there is no sample {sample}: the {split} split of {volumes.name} has clips 0 to {len(chosen) - 1}"
        )
    clips = chosen.clips[[sample]]
    inputs = clips.to(next(model.parameters()).device).float() / 255
    with torch.no_grad():
        probabilities = model.eval()(inputs).softmax(dim=1)[0].cpu()
    scores = to_voxels(model, METHODS[name](model, inputs).clamp(min=0)).cpu()  # [1, T, H, W]
    title = describe_guess(volumes.class_names, int(chosen.labels[sample]), probabilities)
    stem = Path(folder) / f"explain-{split}-{sample}-{in_file_name(name)}"
    picture, film = stem.with_suffix(".png"), stem.with_suffix(".gif")
    heading = f"{volumes.name}, {split} clip {sample}, {name}: {title}"
    plots.save(plots.attention_slices(clips, scores, [heading]), picture)
    save_film(film, clips[0], scores[0], f"{heading}. Slice by slice: the clip, and the map over it.")
    return title, [picture, film]


def in_file_name(name: str) -> str:
    """The name without blanks."""
    return name.replace(" ", "-")


def describe_guess(names: Sequence[str], label: int, probabilities: torch.Tensor) -> str:
    """In words, what the model predicted for a clip and what it is. probabilities: float [K] of the K class names."""
    guess = int(probabilities.argmax())
    verdict = "right" if guess == label else f"wrong, it is {names[label]}"
    return f"predicted {names[guess]} ({100 * probabilities[guess]:.0f} %), {verdict}"


def save_film(
    path: Path,
    clip: torch.Tensor,
    scores: torch.Tensor,
    description: str,
    *,
    scale: int = 6,
    milliseconds: int = 150,
) -> None:
    """An animated GIF through the slices: the clip on the left, with the map in colour over it on the right.

    clip: uint8 [C, T, H, W]. scores: float [T, H, W], not negative. description: kept in the file as its comment.
    scale: pixels per voxel. milliseconds: how long each slice is shown.
    """
    from matplotlib import colormaps
    from PIL import Image

    grey = clip.float().mean(dim=0).numpy()[..., None].repeat(3, axis=-1)  # [T, H, W, 3]
    share = (scores / scores.max().clamp(min=1e-12)).numpy()  # the strongest slice sets the scale for all
    colours = 255 * colormaps["inferno"](share)[..., :3]
    frames = np.concatenate((grey, 0.45 * grey + 0.55 * colours), axis=2).round().astype(np.uint8)  # [T, H, 2·W, 3]
    images = [
        Image.fromarray(frame).resize((scale * frame.shape[1], scale * frame.shape[0]), Image.Resampling.NEAREST)
        for frame in frames
    ]
    options = {"duration": milliseconds, "loop": 0, "comment": description.encode()}
    with written(path), written_whole(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], **options)
