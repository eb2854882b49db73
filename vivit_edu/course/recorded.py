"""Recorded results and models: what a command measured or trained once and chapters show again.

recorded("recipe_organphantom3d.json")       a table of notebooks/results
recorded_model("spacetime")                  a trained model of notebooks/results/models, and what is known of it
own_or_recorded("full", volumes.name)        the reader's own run of chapter 12, or else the recorded model
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, ConfigError
from ..support.places import checkout, given_folder, kept
from ..support.tables import mean_sd  # noqa: F401  (chapters take it from here)

if TYPE_CHECKING:
    from torch import nn


def recorded(name: str) -> Any:
    """A recorded run by its file name, from notebooks/results, the same from any working directory:
    the contents of a .json, the rows of a .csv as dictionaries."""
    path = checkout() / "notebooks" / "results" / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in path.parent.glob("*.*"))) or "nothing"
        raise ConfigError(f"there is no recorded run {name!r} in notebooks/results, which holds: {there}.")
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))


def split_name(name: str) -> tuple[int, str]:
    """A row of a table of shares of the patients, "25 %, central frame": (the share in per cent, what was trained)."""
    share, what = name.split(" %, ", 1)
    return int(share), what


def chosen_rate(row: dict) -> float:
    """The learning rate of the long runs of a row: of those in "rates", the one with the lowest validation loss."""
    tried = [(loss, rate) for loss, rate in zip(row["rates"]["val_loss"], row["rates"]["lr"]) if loss is not None]
    return min(tried)[1]


def recorded_model(name: str, *, seed: int = 0) -> tuple[nn.Module, dict]:
    """A trained model that the course keeps, in eval mode on the CPU, and its facts.

    name: "full", one of the four ViViTs (all five trained on the phantom, with 4³ tubelets), or
    "spacetime_movingshapes". seed: of the run; seeds other than 0 are there only where they were trained.
    facts: what the .json next to the weights says, among it dataset, class_names, clip_shape, recipe, seed, val and
    test (figures of just these weights), history, minutes, device, command.
    Raises ConfigError where no recorded model has this name or it was not made yet, and CheckpointError where the
    weights are not those that the .json describes.
    """
    from ..experiments.trained import load_trained, weights_path

    path = weights_path(name, seed)
    if not path.is_file():
        raise ConfigError(
            f"the recorded model {name!r} of seed {seed} is not here. To train it: vivit-edu record {name}"
            + (f" --seed {seed}" if seed else "")
        )
    model, facts = load_trained(path)
    return model, facts | {"own": False}


def own_run(dataset: str) -> Path:
    """The folder in which chapter 12 keeps the reader's full run on a data set: chapter12-DATASET, in the folder that
    $VIVIT_EDU_RUNS names; otherwise in runs/ on Google Drive, where Colab has it mounted, or else of the checkout."""
    runs = os.environ.get("VIVIT_EDU_RUNS") or (kept() or checkout()) / "runs"
    return given_folder("VIVIT_EDU_RUNS", runs) / f"chapter12-{dataset}"


def own_or_recorded(name: str = "full", dataset: str = "organphantom3d") -> tuple[nn.Module, dict]:
    """The model of the reader's own full run in chapter 12, if that run is finished, or else a recorded model.

    Prints one line that says which. name: of the recorded model. dataset: the name of the data set whose run is looked
    for. The recorded model may be of another one: `facts["dataset"]` says which clips it is for.
    Returns (model in eval mode on the CPU, facts), as `recorded_model` does; facts["own"] is True for an own run.
    Raises CheckpointError where the run is there but cannot be read.
    """
    folder = own_run(dataset)
    if (folder / "metrics.json").is_file():
        model, facts = load_own(folder)
        print(f"Model: your own run of chapter 12 on {facts['dataset']}, seed {facts['seed']}: {scored(facts)}.")
        return model, facts
    model, facts = recorded_model(name)
    reason = "" if facts["dataset"] == dataset else f" There is no run of yours on {dataset}, so the clips are its own."
    print(
        f"Model: the recorded {name!r}, trained on {facts['dataset']}, seed {facts['seed']}: {scored(facts)}.{reason}"
    )
    return model, facts


def load_own(folder: Path | str) -> tuple[nn.Module, dict]:
    """The model of a finished run in eval mode on the CPU, and its facts, under the names of `recorded_model`'s.

    Raises CheckpointError where the run is not finished or cannot be read.
    """
    from ..experiments.predicting import load_finished

    try:
        model, metrics, content = load_finished(folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Run the training cell of chapter 12 again, or delete the folder: then the recorded model "
            "is shown"
        ) from error
    recipe, shape = content["recipe"], list(metrics["options"]["clip_shape"])
    facts = {"name": recipe["model"], "minutes": round(metrics["seconds"] / 60, 1), "clip_shape": shape}
    return model, facts | metrics | {"history": content["history"], "own": True}


def scored(facts: dict) -> str:
    """How good a model is, in words."""
    return f"{100 * facts['test']['acc']:.1f} % of the test clips right"
