"""The tables of recipes that `vivit-edu ablate` trains, row by row. A new table is a function in TABLES."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

import torch

from ..augment import Augmentation
from ..cost import PAPER
from ..errors import ConfigError
from ..models import MODELS, is_vivit
from ..training import GENTLE, Recipe
from ..volumes import Volumes
from .plateau import train_tuned_to_plateau
from .probes import probe
from .runs import choose_device, load_model, train_run
from .tuning import train_at_best_rate

TABLE_EPOCHS = 20  # of a row, unless asked otherwise: few, for a table is many runs
# % of the training patients, and how many times the epochs
PATIENT_SHARES = ((5, 4), (10, 4), (25, 3), (50, 2), (100, 1))

# of all models: CNNs and ViViTs in turn, so that a table that is not finished holds some of both; the slowest last
ALTERNATING = (
    "cnn3d",
    "spacetime",
    "early_fusion",
    "factorised_encoder",
    "late_fusion",
    "factorised_dot_product",
    "single_frame",
    "factorised_self_attention",
    "multiresolution",
    "slow_fusion",
    "cnn_attention",
)


@dataclass(frozen=True)
class Row:
    """One row of a table: what it is called, its recipe, and how one run of it is made.

    seeds: at most so many of the table's, for rows that only lead up to the one that counts.
    train: called as `runs.train_run` is, and returns what it returns. A row that needs other volumes or first
    weights wraps it: def train(volumes, recipe, *, out, **rest): return train_run(changed, recipe, out=out,
    **rest). What such a row makes once for all its runs goes to the folder `out.parent`.
    """

    name: str
    recipe: Recipe
    train: Callable = train_run
    seeds: float = inf


def regularisation() -> list[Row]:
    """Cumulative, in the order of the paper's table on EPIC-Kitchens; each row keeps all above it.

    The paper's strengths (drop .2, RandAugment 2 layers at 15, smoothing .2, mixup .1) are for 30 epochs and more
    of a model a hundred times as large; these were chosen on validation for short runs of a small one.
    """
    steps = {
        "nothing": {},
        "+ shift, gain, mirror with swap": {"shift": 0.1, "gain": 0.2, "mirror": True},
        "+ stochastic depth": {"drop_path": 0.1},
        "+ random augment": {"rand_layers": 2, "rand_magnitude": 5},
        "+ label smoothing": {"smoothing": 0.1},
        "+ mixup": {"mixup": 0.1},
    }
    recipe, rows = base(augmentation=Augmentation()), []
    for name, step in steps.items():
        if "drop_path" in step:
            recipe = replace(recipe, options=recipe.options | step)
        else:
            recipe = replace(recipe, augmentation=replace(recipe.augmentation, **step))
        rows.append(Row(name, recipe))
    return rows


def paper_models() -> list[Row]:
    """Models 1 to 4 of the paper, all else alike."""
    return [Row(name, base(model=name)) for name in PAPER]


def all_models() -> list[Row]:
    """Every model of the course, ViViTs and CNNs, each with its own defaults, all else alike; and what each goes by."""
    return [Row(name, base(model=name), train_and_probe) for name in MODELS]


def tubelets() -> list[Row]:
    """Model 1 with tubelets from long to short in time, then a finer grid in all three directions."""
    shapes = ((28, 7, 7), (14, 7, 7), (7, 7, 7), (4, 7, 7), (2, 7, 7), (4, 4, 4))
    return [Row("×".join(map(str, shape)), base(tubelet=shape)) for shape in shapes]


def temporal_depths() -> list[Row]:
    """Layers of Model 2's temporal encoder; 0 averages over time (the paper: 75.8, 78.6, 78.8, 78.8, 78.9)."""
    return [Row(f"{depth} layers", base(model="factorised_encoder", temporal_depth=depth)) for depth in (0, 1, 4, 8)]


def initialisations() -> list[Row]:
    """Model 1 from an image transformer of slices: the paper's ways of embedding tubelets, and nothing pretrained."""
    frames = base(tokenizer="frames")
    return [
        Row("nothing pretrained", base()),
        Row("tubelets, random", replace(base(), inflate="random"), train_from_slices),
        Row("tubelets, filter inflation", replace(base(), inflate="average"), train_from_slices),
        Row("tubelets, central frame", base(), train_from_slices),
        Row("uniform frame sampling", frames, train_from_slices),
    ]


def data_shares() -> list[Row]:
    """How much data training needs, from random weights and from slices of the same patients and no others."""
    return on_shares({"random": (base(), train_run), "slices": (base(), train_from_slices)})


def hunger() -> list[Row]:
    """How much data two ViViTs and two CNNs need."""
    names = ("spacetime", "factorised_encoder", "early_fusion", "cnn3d")
    return on_shares({name: (base(model=name), train_run) for name in names})


def on_shares(starts: dict[str, tuple[Recipe, Callable]]) -> list[Row]:
    """Rows of {name: (recipe, train)}, each on 5 to 100 % of the training patients.

    The smaller the share, the more epochs, up to four times the table's, for an epoch has fewer steps.
    """
    return [
        Row(f"{percent} %, {name}", recipe, partial(train_on_share, percent=percent, longer=longer, train=train))
        for percent, longer in PATIENT_SHARES
        for name, (recipe, train) in starts.items()
    ]


def recipes() -> list[Row]:
    """Keras' example of a ViViT, and the presets: of 27, 64 and 343 tokens, each with epochs of its own."""
    full = Recipe.preset("full")
    return [
        Row("Keras' example", keras_example(), seeds=3),
        Row("preset quick: Model 1, 7³ tubelets", Recipe.preset("quick")),
        Row("Model 2, 4³ tubelets", replace(full, epochs=60, weight_decay=0.05)),
        Row("preset full: longer, with more decay", full),
    ]


def keras_example() -> Recipe:
    """The model and rate of keras.io's "Video Vision Transformer", in our loop with warm-up and cosine.

    Tubelets of 8³, of which three fit into 28 voxels, so that the rest of a volume is cut off; nothing is augmented.
    """
    options = {"tubelet": (8, 8, 8), "remainder": "crop", "depth": 8, "heads": 8}
    return Recipe(options=options, epochs=60, lr=1e-4, weight_decay=0.0)


def motion() -> list[Row]:
    """CNNs on clips that are cycles, such as movingshapes: each clip of a batch begins at a frame of its own."""
    augmentation = replace(GENTLE, roll=True)
    names = ("single_frame", "early_fusion", "late_fusion", "slow_fusion", "cnn3d")
    return [Row(name, replace(base(model=name, augmentation=augmentation, epochs=30), lr=3e-3)) for name in names]


def four_models() -> list[Row]:
    """Models 1 to 4 on the same clips, with 4×7×7 tubelets and about as many weights each."""
    sizes = {"tubelet": (4, 7, 7), "dim": 96, "heads": 4, "mlp_dim": 384}
    depths = {
        "spacetime": {"depth": 4},
        "factorised_encoder": {"depth": 3, "temporal_depth": 2},
        "factorised_self_attention": {"depth": 3},
        "factorised_dot_product": {"depth": 4},
    }
    recipe = Recipe.preset("quick", augmentation=replace(GENTLE, roll=True), epochs=50)
    return [Row(name, replace(recipe, model=name, options=sizes | depth)) for name, depth in depths.items()]


def optimisers() -> list[Row]:
    """The preset quick with AdamW and with Muon, each at the best of five learning rates."""
    train = partial(train_at_best_rate, rates=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2), epochs=20)
    return [Row(title, Recipe.preset("quick", optimiser=title.lower()), train) for title in ("AdamW", "Muon")]


def plateau() -> list[Row]:
    """All models until training no longer helps them, each at its best rate; the ViViTs with the sizes of
    `four_models`."""
    vivits = {row.name: row.recipe.options for row in four_models()}
    return [
        Row(name, Recipe.preset("quick", model=name, options=vivits.get(name, {}), epochs=100), train_tuned_to_plateau)
        for name in ALTERNATING
    ]


TABLES = {
    "regularisation": regularisation,
    "model": paper_models,
    "all-models": all_models,
    "tubelet": tubelets,
    "temporal-depth": temporal_depths,
    "init": initialisations,
    "data": data_shares,
    "hunger": hunger,
    "recipe": recipes,
    "motion": motion,
    "four-models": four_models,
    "optimisers": optimisers,
    "plateau": plateau,
}


def train_and_probe(
    volumes: Volumes, recipe: Recipe, *, out: Path | str, device: str | torch.device = "auto", **rest: object
) -> dict:
    """`train_run`, and under "probes" what the trained model answers to a changed test split (`probes.probe`)."""
    metrics = train_run(volumes, recipe, out=out, device=device, **rest)
    model = load_model(out, volumes, device=device)
    return metrics | {"probes": probe(model, volumes, bfloat16=recipe.bfloat16)}


def train_from_slices(
    volumes: Volumes,
    recipe: Recipe,
    *,
    out: Path | str,
    seed: int,
    device: str | torch.device = "auto",
    **rest: object,
) -> dict:
    """`train_run` from an image transformer of this seed, pretrained once for all rows on the same volumes."""
    from .pretraining import pretrain_to

    weights = Path(out).parent / f"slices-of-{len(volumes.train)}-seed{seed}.safetensors"
    if not weights.exists():
        pretrain_to(weights, volumes, recipe, seed=seed, device=choose_device(device))
    recipe = replace(recipe, pretrained=str(weights))
    return train_run(volumes, recipe, out=out, seed=seed, device=device, **rest)


def train_on_share(
    volumes: Volumes,
    recipe: Recipe,
    *,
    percent: float,
    train: Callable,
    seed: int,
    longer: int = 1,
    **rest: object,
) -> dict:
    """`train`, `longer` times the epochs, on a share of the training patients, drawn by the seed; of the volumes
    where patients are unknown."""
    owners = volumes.train.patients
    owners = torch.arange(len(volumes.train)) if owners is None else owners
    everyone = owners.unique()
    order = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))
    chosen = everyone[order[: max(1, round(percent * len(everyone) / 100))]]
    share = volumes.train.subset(torch.isin(owners, chosen))
    longer_recipe = replace(recipe, epochs=longer * recipe.epochs)
    return train(replace(volumes, train=share), longer_recipe, seed=seed, **rest)


def base(
    *,
    model: str = "spacetime",
    augmentation: Augmentation = GENTLE,
    epochs: int = TABLE_EPOCHS,
    **options: object,
) -> Recipe:
    """What the tables start from: four layers, AdamW, gentle augmentation, with another model or options of it.

    Not a preset, which may get better: a table says what a step gives *here*, and its recorded runs stay true.
    """
    options = {"depth": 4} | options if is_vivit(model) else options
    return Recipe(model=model, options=options, augmentation=augmentation, epochs=epochs)


def make_rows(table: str, epochs: int | None = None, bfloat16: bool = False) -> list[Row]:
    """The rows of the table with this name. epochs: of each run, by default the table's. bfloat16: as in `Recipe`.

    Raises ConfigError where no table has this name.
    """
    if table not in TABLES:
        raise ConfigError(f"no table is called {table!r}; the tables are {', '.join(TABLES)}")
    changes = {"bfloat16": bfloat16} | ({"epochs": epochs} if epochs is not None else {})
    return [replace(row, recipe=replace(row.recipe, **changes)) for row in TABLES[table]()]
