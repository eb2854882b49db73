"""The trained models that chapters show: `vivit-edu record` makes them, `vivit_edu.course.recorded` hands them out.

    notebooks/results/models/NAME.safetensors   the weights of seed 0, stored in float16
    notebooks/results/models/NAME.json          what they are: command, data, recipe, figures, hash, machine
    runs/recorded/NAME-seedN/                   the run itself; both files of the other seeds are kept here

The figures in the JSON are those of the stored weights, which are rounded. A new model is a row of `RECORDED`.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..augment import Augmentation
from ..data import load_volumes
from ..errors import CheckpointError, ConfigError, DataError
from ..models import build_model
from ..support.checkpoint import check_kinds, plain
from ..support.devices import choose_device, describe_device
from ..support.files import check_regular, read_json, shown, written_whole
from ..support.options import check_seed
from ..support.places import checkout
from ..training import GENTLE, Recipe, predict_logits, score
from ..volumes import Volumes
from .records import write_record
from .runs import load_model, train_run, versions, written

STORED = torch.float16  # 10 bits of fraction; bfloat16 has 7, and the weights need none of its range
LOSS = 0.002  # how much of the accuracy may be lost when weights are rounded
MOST_BYTES = 3 * 2**20  # bytes of a file of weights


@dataclass(frozen=True)
class Trained:
    """A model that is trained for the chapters: the name of its data set, at 28³, and its recipe."""

    dataset: str
    recipe: Recipe


def equal_budget(model: str, **options: int) -> Recipe:
    """One of the four ViViTs with 4³ tubelets: width, epochs, optimiser and augmentation are the same for all.

    The augmentation is that of the preset full, all else but the size of the model that of quick.
    """
    sizes = {"tubelet": (4, 4, 4), "dim": 96, "heads": 4, "mlp_dim": 384, "depth": 4} | options
    augmentation = Augmentation(mirror=True, shift=0.04, rotate=20.0)
    return Recipe.preset("quick", model=model, options=sizes, augmentation=augmentation, bfloat16=True)


def films() -> Recipe:
    """Model 1 for moving shapes, whose classes show in time alone."""
    return replace(equal_budget("spacetime"), augmentation=GENTLE)


RECORDED = {
    "spacetime": Trained("organphantom3d", equal_budget("spacetime")),
    "full": Trained("organphantom3d", Recipe.preset("full", bfloat16=True)),
    "factorised_encoder": Trained("organphantom3d", equal_budget("factorised_encoder", depth=3, temporal_depth=2)),
    # two attentions in a block: with three blocks it has as many weights as Model 1 with four
    "factorised_self_attention": Trained("organphantom3d", equal_budget("factorised_self_attention", depth=3)),
    "factorised_dot_product": Trained("organphantom3d", equal_budget("factorised_dot_product")),
    "spacetime_movingshapes": Trained("movingshapes", films()),
}


def models_folder() -> Path:
    """Where the recorded models of seed 0 are."""
    return checkout() / "notebooks" / "results" / "models"


def run_folder(name: str, seed: int) -> Path:
    """Where a recorded model is trained; the weights of seeds other than 0 are kept here."""
    return checkout() / "runs" / "recorded" / f"{name}-seed{seed}"


def weights_path(name: str, seed: int = 0) -> Path:
    """The file of a recorded model's weights; its facts are in the .json next to it.

    Raises ConfigError where no recorded model has this name.
    """
    if name not in RECORDED:
        raise ConfigError(f"no recorded model is called {name!r}; there are {', '.join(RECORDED)}")
    return (run_folder(name, seed) if seed else models_folder()) / f"{name}.safetensors"


def record(
    name: str,
    *,
    seed: int = 0,
    device: str | torch.device = "auto",
    root: Path | str | None = None,
    volumes: Volumes | None = None,
) -> tuple[Path, dict]:
    """Trains a recorded model, or goes on with its run, and writes its weights and facts; returns (weights, facts).

    A model that is recorded already, with the recipe that stands in the table, is left as it is. root: the folder
    with the data. volumes: used in place of the data set's own, if they are loaded already.
    Raises CheckpointError where the stored weights would be too large a file, or lose more than .002 of the accuracy
    on the test split, and where the run in its folder was begun with another recipe.
    """
    check_seed(seed)
    path, trained = weights_path(name, seed), RECORDED[name]
    if (facts := up_to_date(path, trained, seed)) is not None:
        return path, facts
    device = choose_device(device)
    volumes = volumes if volumes is not None else load_volumes(trained.dataset, root=root)
    folder = run_folder(name, seed)
    metrics = train_run(
        volumes, trained.recipe, out=folder, seed=seed, resume=True, device=device, root=root, figures=False
    )
    history = read_json(folder / "history.json")
    model = load_model(folder, volumes, device="cpu")
    stored = store(rounded(model), path.name)
    model = fill_stored(model, stored, path)
    figures = {
        split: asdict(score(predict_logits(model, getattr(volumes, split)), getattr(volumes, split).labels))
        for split in ("val", "test")
    }
    unrounded = {split: metrics[split] for split in ("val", "test")}
    for split in ("val", "test"):
        if abs(figures[split]["acc"] - unrounded[split]["acc"]) > LOSS:
            raise CheckpointError(
                f"{name}: rounded to {STORED}, the weights have an accuracy of {figures[split]['acc']:.4f} on the "
                f"{split} split, against {unrounded[split]['acc']:.4f} before: nothing is written"
            )
    facts = {
        "name": name,
        "command": f"vivit-edu record {name}" + (f" --seed {seed}" if seed else ""),
        "sha256": hashlib.sha256(stored).hexdigest(),
        "bytes": len(stored),
        "stored": str(STORED).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
        "dataset": volumes.name,
        "size": volumes.train.clips.shape[-1],
        "clip_shape": list(volumes.train.clips.shape[1:]),
        "class_names": list(volumes.class_names),
        "data_sha256": volumes_hash(volumes),
        "seed": seed,
        "recipe": asdict(trained.recipe),
        **figures,
        "unrounded": unrounded,
        "minutes": round(metrics["seconds"] / 60, 1),
        "device": describe_device(device),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        **({"code": metrics["code"]} if "code" in metrics else {}),
        "history": [{key: round_figure(value) for key, value in row.items()} for row in history],
    }
    with written(path), written_whole(path) as file:
        file.write(stored)
    write_record(path.with_suffix(".json"), facts)
    return path, facts


def up_to_date(path: Path, trained: Trained, seed: int) -> dict | None:
    """The facts of a model that is recorded already, by the recipe in the table; None where there is none."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    facts = read_facts(path)
    same = plain(asdict(Recipe.from_dict(facts["recipe"]))) == plain(asdict(trained.recipe))
    whole = hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    return facts if same and whole and (facts["dataset"], facts["seed"]) == (trained.dataset, seed) else None


def rounded(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's weights as they are stored: floating-point numbers in `STORED`, others as they are.

    Raises CheckpointError where a weight is too large for that.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        small = tensor.detach().cpu().to(STORED) if tensor.is_floating_point() else tensor.detach().cpu()
        if small.is_floating_point() and not small.isfinite().all():
            raise CheckpointError(f"{name} holds numbers that {STORED} cannot hold: nothing is written")
        state[name] = small.contiguous()
    return state


def store(state: dict[str, torch.Tensor], name: str) -> bytes:
    """The weights as the bytes of a .safetensors file. Raises CheckpointError where these are too many."""
    from safetensors.torch import save

    content = save(state)
    if len(content) > MOST_BYTES:
        raise CheckpointError(f"{name} would have {len(content)} bytes; at most {MOST_BYTES} go into the repository")
    return content


def fill_stored(model: nn.Module, stored: bytes, path: Path) -> nn.Module:
    """The model with the weights that `store` wrote, in its own precision and in eval mode."""
    from safetensors.torch import load

    try:
        model.load_state_dict(load(stored))  # copies into float32
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{shown(path)} does not fit the model that its .json describes: {error}") from error
    return model.eval()


def read_facts(path: Path) -> dict:
    """What the .json next to a file of weights says.

    Raises CheckpointError where it cannot be read, or lacks something.
    """
    path = path.with_suffix(".json")
    try:
        facts = read_json(path)
        kinds = {"name": str, "sha256": str, "dataset": str, "clip_shape": list, "class_names": list, "recipe": dict}
        check_kinds(facts, kinds | {"seed": int, "val": dict, "test": dict, "minutes": (int, float), "history": list})
        Recipe.from_dict(facts["recipe"])
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {error}") from error
    return facts


def load_trained(path: Path | str) -> tuple[nn.Module, dict]:
    """A recorded model in eval mode on the CPU, and its facts, from the file of its weights.

    Raises CheckpointError where the file is not the one that its .json describes.
    """
    path = Path(path)
    facts = read_facts(path)
    try:
        check_regular(path)
        stored = path.read_bytes()
    except (OSError, DataError) as error:
        raise CheckpointError(f"{shown(path)} cannot be read: {error}") from error
    if hashlib.sha256(stored).hexdigest() != facts["sha256"]:
        raise CheckpointError(
            f"{shown(path)} is not the file that {path.stem}.json describes: its SHA-256 differs. Fetch both again "
            f"with `git checkout`, or make them again: {facts.get('command', 'vivit-edu record')}"
        )
    recipe = Recipe.from_dict(facts["recipe"])
    model = build_model(
        recipe.model, clip_shape=tuple(facts["clip_shape"]), num_classes=len(facts["class_names"]), **recipe.options
    )
    return fill_stored(model, stored, path), facts


def volumes_hash(volumes: Volumes) -> str:
    """The SHA-256 of all clips and labels, the same whatever file or generator they come from."""
    found = hashlib.sha256()
    for split in (volumes.train, volumes.val, volumes.test):
        for array in (split.clips, split.labels):
            found.update(f"{list(array.shape)} {array.dtype}".encode())
            found.update(array.contiguous().cpu().numpy().tobytes())
    return found.hexdigest()


def round_figure(value: float | int | None) -> float | int | None:
    """A figure of the history with five digits, which is what a curve needs."""
    return float(f"{value:.5g}") if isinstance(value, float) else value
