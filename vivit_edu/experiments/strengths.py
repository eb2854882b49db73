"""Regularisers of a table, each at the better of some strengths: compared on validation clips, on few patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..augment import Augmentation
from ..errors import ConfigError
from ..support.files import read_json
from ..training import Recipe, build_seeded, fit
from ..volumes import Volumes
from .runs import choose_device, train_run, write_json
from .tuning import TUNING_SEED

Tried = Mapping[str, Sequence[float]]  # the strengths to choose from, by the names of `strengthened`

# what the table `regularisation` chose on validation, with one seed: "strengths" in its records, which are
# notebooks/results/ablation_regularisation_DATASET.json
CHOSEN = {
    "organphantom3d": {"rand_magnitude": 12.0, "mixup": 1.0, "smoothing": 0.3, "drop_path": 0.1},
    "adrenalmnist3d": {"rand_magnitude": 5.0, "mixup": 0.2, "smoothing": 0.1, "drop_path": 0.4},
}


def strengthened(recipe: Recipe, name: str, strength: float) -> Recipe:
    """The recipe with one regulariser more.

    name: "drop_path", the rate of stochastic depth in the last layer; "rand_magnitude", of RandAugment with two
    operations for each clip; or a field of `Augmentation`, such as "mixup". strength: in that field's unit.
    Raises ConfigError where there is no such field or the strength is outside its range.
    """
    if name == "drop_path":
        return replace(recipe, options=recipe.options | {name: strength})
    fields = {name: strength} | ({"rand_layers": 2} if name == "rand_magnitude" else {})
    if not hasattr(recipe.augmentation, name):
        raise ConfigError(f"no regulariser is called {name!r}: there are drop_path and the fields of Augmentation")
    return replace(recipe, augmentation=replace(recipe.augmentation, **fields))


def train_at_best_strengths(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    tried: Tried,
    percent: float,
    device: str | torch.device = "auto",
    **rest: object,
) -> dict:
    """`train_run` with these regularisers, each at its best strength; what was tried stands under "strengths".

    tried: for each strength one run of the whole length, with this regulariser and no other and a seed of its own; the
    highest validation AUC of the last epoch wins, and of equal ones the first. A regulariser is tuned once for all
    rows and seeds of a table: the figures are kept next to the runs. percent: of the training patients, drawn
    by the seed, as in `train_on_share`. Returns what `train_run` does, and "strengths": for each regulariser the
    strengths, their validation AUC, the seed and the one chosen.
    """
    from .tables import train_on_share

    found, alone = {}, replace(recipe, augmentation=Augmentation())
    for name, strengths in tried.items():
        kept = Path(out).parent / f"strengths-{name.replace('_', '-')}.json"
        if not kept.exists():
            short = partial(validation_auc, device=choose_device(device))
            aucs = [
                train_on_share(volumes, strengthened(alone, name, one), percent=percent, train=short, seed=TUNING_SEED)
                for one in strengths
            ]
            best = max(zip(aucs, strengths), key=lambda pair: pair[0])[1]
            tuned = {"strengths": list(strengths), "val_auc": aucs, "seed": TUNING_SEED, "chosen": best}
            write_json(kept, tuned)
        found[name] = read_json(kept)
    for name, tuned in found.items():
        recipe = strengthened(recipe, name, tuned["chosen"])
    metrics = train_on_share(
        volumes, recipe, percent=percent, train=train_run, out=out, seed=seed, device=device, **rest
    )
    return metrics | {"strengths": found}


def train_at_chosen_strengths(
    volumes: Volumes, recipe: Recipe, *, names: Sequence[str], percent: float, seed: int, **rest: object
) -> dict:
    """`train_run` with these regularisers, each as strong as `CHOSEN` says for the data set: nothing is tuned.

    names: of `strengthened`. percent: of the training patients, drawn by the seed, as in `train_on_share`. Returns
    what `train_run` does, and "strengths": {name: {"chosen": strength}}. Raises ConfigError for a data set whose
    strengths were never chosen.
    """
    from .tables import train_on_share

    if volumes.name not in CHOSEN:
        raise ConfigError(
            f"strengths were chosen for {' and '.join(CHOSEN)}, not for {volumes.name}: name one of these, or run the "
            "table regularisation, which chooses them"
        )
    chosen = {name: CHOSEN[volumes.name][name] for name in names}
    for name, strength in chosen.items():
        recipe = strengthened(recipe, name, strength)
    metrics = train_on_share(volumes, recipe, percent=percent, train=train_run, seed=seed, **rest)
    return metrics | {"strengths": {name: {"chosen": strength} for name, strength in chosen.items()}}


def validation_auc(volumes: Volumes, recipe: Recipe, *, seed: int, device: torch.device) -> float:
    """The validation AUC at the end of a run that leaves the test split alone."""
    model = build_seeded(recipe, volumes, seed).to(device)
    return fit(model, volumes, recipe, seed=seed, progress=False)["val_auc"][-1]
