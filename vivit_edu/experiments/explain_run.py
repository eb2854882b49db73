"""`vivit-edu explain`: what a trained run looked at in one clip, as a figure and as a film through the slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .. import plots
from ..data import load_volumes
from ..errors import ConfigError
from ..explain.faithfulness import METHODS
from ..explain.pictures import EVEN, film, maps_figure, puzzle_figure, with_one_palette
from ..explain.rollout import rollout
from ..support.files import written_whole
from ..support.places import checkout
from ..training import predict_logits
from ..vivit import ViViT
from .runs import attention_figure, load_run, written
from .trained import load_trained, weights_path

if TYPE_CHECKING:
    from PIL.Image import Image

UNITS = {"input gradient": "fall of the logit, estimated", "occlusion": "fall of the logit"}  # the others sum to 1
PUZZLE = 10  # the validation clip of the phantom that chapter 13 follows


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
    clip, mask = chosen.clips[sample], None if chosen.masks is None else chosen.masks[sample]
    inputs = clip[None].to(next(model.parameters()).device).float() / 255
    with torch.no_grad():
        probabilities = model.eval()(inputs).softmax(dim=1)[0].cpu()
    scores = METHODS[name](model, inputs)[0].cpu()  # [T', S]
    title = describe_guess(volumes.class_names, int(chosen.labels[sample]), probabilities)
    stem = Path(folder) / f"explain-{split}-{sample}-{in_file_name(name)}"
    picture, moving = stem.with_suffix(".png"), stem.with_suffix(".gif")
    heading = f"{volumes.name}, {split} clip {sample}, {name}: {title}"
    figure = maps_figure(model, clip, {name: scores}, mask=mask, units=UNITS.get(name, EVEN), title=title)
    figure.alt_text = f"{heading}. {figure.alt_text}"
    plots.save(figure, picture)
    save_film(moving, film(model, clip, [scores], mask=mask), f"{heading}. Slice by slice: the clip, and its map.")
    return title, [picture, moving]


def in_file_name(name: str) -> str:
    """The name without blanks."""
    return name.replace(" ", "-")


def describe_guess(names: Sequence[str], label: int, probabilities: torch.Tensor) -> str:
    """In words, what the model predicted for a clip and what it is. probabilities: float [K] of the K class names."""
    guess = int(probabilities.argmax())
    verdict = "right" if guess == label else f"wrong, it is {names[label]}"
    return f"predicted {names[guess]} ({100 * probabilities[guess]:.0f} %), {verdict}"


def save_film(path: Path, frames: Sequence[Image], description: str, *, milliseconds: int = 150) -> None:
    """Writes pictures as an animated GIF that plays over and over.

    description: kept in the file as its comment. milliseconds: how long each picture is shown.
    """
    first, *rest = with_one_palette(frames)
    options = {"duration": milliseconds, "loop": 0, "comment": description.encode(), "optimize": True}
    with written(path), written_whole(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, **options)


# ---- the pictures of the README and of chapter 13's first screen


def record_pictures(folder: Path | str) -> list[Path]:
    """Writes the pictures of attention that README and chapter 13 show, from the recorded models; returns their paths.

    attention_phantom.png: what a run of the recorded "full" draws at its end, rollout of a right and a wrong test clip.
    attention_phantom.gif: a film of the first of these. attention_puzzle.png: the rollout of the recorded Model 1 for
    chapter 13's clip, next to that of random weights.
    """
    folder, volumes = Path(folder), load_volumes("organphantom3d")
    paths = [folder / name for name in ("attention_phantom.png", "attention_phantom.gif", "attention_puzzle.png")]
    model, _ = load_trained(weights_path("full"))
    guesses = predict_logits(model, volumes.test).argmax(dim=1)
    plots.save(attention_figure(model, volumes, guesses), paths[0], dpi=160)
    first = volumes.test.subset((guesses == volumes.test.labels).nonzero()[0])  # right
    scores = rollout(model, first.clips.float() / 255)
    organ = volumes.class_names[first.labels[0]]
    frames = film(model, first.clips[0], scores, mask=first.masks[0], scale=9)
    save_film(
        paths[1], frames, f"A clip of the phantom, {organ}, and the rollout of Model 2 in yellow.", milliseconds=200
    )
    model, _ = load_trained(weights_path("spacetime"))
    puzzle = puzzle_figure(model, volumes.val.clips[PUZZLE], mask=volumes.val.masks[PUZZLE])
    plots.save(puzzle, paths[2], dpi=160)
    return paths


if __name__ == "__main__":  # python -m vivit_edu.experiments.explain_run
    for path in record_pictures(checkout() / "notebooks" / "results"):
        print(path)
