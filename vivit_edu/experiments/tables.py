"""The tables of recipes that `vivit-edu ablate` trains, row by row. A new table is a function in TABLES."""

from collections.abc import Callable, Sequence
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
from .held_out import JUDGED_ON, train_without_test
from .plateau import train_to_plateau, train_tuned_to_plateau
from .probes import probe
from .runs import load_model, train_run
from .strengths import train_at_best_strengths, train_at_chosen_strengths
from .tuning import train_at_best_rate

TABLE_EPOCHS = 20  # of a row, unless asked otherwise: few, for a table is many runs
PATIENT_SHARES = (5, 10, 25, 50, 100)  # % of the training patients
# of the starts of `images_cnn`: the best of four on validation, in one run each (`cnn_rates`)
NOTHING_RATE, INFLATED_RATE = 1e-3, 3e-4

# of the models in `hunger`: chosen by `plateau` on all patients of the phantom
HUNGER_RATES = {"spacetime": 3e-3, "factorised_encoder": 3e-3, "early_fusion": 1e-3, "cnn3d": 1e-3}
# of the models in `patience`: chosen by `plateau` on movingshapes
PATIENCE_RATES = {"spacetime": 3e-3, "cnn3d": 3e-4}

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

    seeds: at most so many of the table's, for rows that only lead up to the one that counts. tested_on: what stands
    under "test", in words, where that is not the test split.
    train: called as `runs.train_run` is, and returns what it returns. A row that needs other volumes or first
    weights wraps it: def train(volumes, recipe, *, out, **rest): return train_run(changed, recipe, out=out,
    **rest). What such a row makes once for all its runs goes to the folder `out.parent`.
    """

    name: str
    recipe: Recipe
    train: Callable = train_run
    seeds: float = inf
    tested_on: str = ""


def regularisation() -> list[Row]:
    """What each regulariser gives a small Model 1 on an eighth of the patients: each one alone, then all together.

    One at a time, unlike the paper's table on EPIC-Kitchens, where each row keeps all above it: so that each is
    compared with the same row, which has memorised its clips. The strengths are chosen on validation clips; the
    paper's (drop .2, magnitude 15, smoothing .2, mixup .1) are for a model hundreds of times as large.
    """
    tried = {
        "stochastic depth": {"drop_path": (0.1, 0.4)},
        "label smoothing": {"smoothing": (0.1, 0.3)},
        "mixup": {"mixup": (0.2, 1.0)},
        "random augment": {"rand_magnitude": (5.0, 12.0)},
    }
    recipe, train = recipe_that_memorises(), partial(train_at_best_strengths, percent=12.5)
    gentle = replace(recipe, augmentation=GENTLE)
    everything = {name: strengths for one in tried.values() for name, strengths in one.items()}
    return [
        Row("nothing", recipe, partial(train, tried={})),
        *(Row(name, recipe, partial(train, tried=strengths)) for name, strengths in tried.items()),
        Row("shift, gain, mirror", gentle, partial(train, tried={})),
        Row("all five", gentle, partial(train, tried=everything)),
    ]


def regularisation_cumulative() -> list[Row]:
    """The regularisers of `regularisation` piled up as in the paper's table on EPIC-Kitchens: each row keeps all above
    it. At the strengths that `regularisation` chose for each alone, and longer, for the last rows learn slowly."""
    recipe, names, rows = recipe_that_memorises(epochs=160), [], []
    gentle = replace(recipe, augmentation=GENTLE)
    train = partial(train_at_chosen_strengths, percent=12.5)
    added = {
        "random augment": "rand_magnitude",
        "mixup": "mixup",
        "label smoothing": "smoothing",
        "stochastic depth": "drop_path",
    }
    for title, name in added.items():
        names.append(name)
        rows.append(Row(f"+ {title}", gentle, partial(train, names=(*names,))))
    train = partial(train, names=())
    return [Row("nothing", recipe, train), Row("+ shift, gain, mirror", gentle, train), *rows]


def recipe_that_memorises(epochs: int = 80) -> Recipe:
    """A Model 1 of two layers that soon knows an eighth of the patients by heart, without augmentation."""
    small = {"tubelet": (14, 7, 7), "depth": 2, "dim": 64, "mlp_dim": 256}
    return Recipe(options=small, epochs=epochs, batch_size=16, lr=3e-3, optimiser="muon")


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


def images() -> list[Row]:
    """Many images, few videos: Model 1 from nothing and from slices of 400 other patients, on shares of the training
    patients, as many steps on each; and from nothing for four times as many steps on all of them."""
    from .many_images import train_from_images
    from .pretraining import TASK

    starts = {
        "nothing pretrained": (small(), train_run, PATIENT_SHARES),
        "tubelets, central frame": (small("central"), train_from_images, PATIENT_SHARES),
        "tubelets, filter inflation": (small("average"), train_from_images, PATIENT_SHARES),
        "tubelets, random": (small("random"), train_from_images, PATIENT_SHARES),
        "uniform frame sampling": (small("central", tokenizer="frames"), train_from_images, PATIENT_SHARES),
        "central frame, without labels": (small("central"), partial(train_from_images, task=TASK), PATIENT_SHARES),
        "nothing pretrained, 4 times as long": (replace(small(), epochs=4 * small().epochs), train_run, (25, 100)),
    }
    return rows_on_shares(starts)


def images_models() -> list[Row]:
    """Models 2, 3 and 4 in the situation of `images`, on three shares of the patients."""
    from .many_images import train_from_images

    shares, rows = (5, 25, 100), []
    for model in [name for name in PAPER if name != "spacetime"]:
        starts = {
            f"{model}, nothing pretrained": (small(model=model), train_run, shares),
            f"{model}, tubelets random": (small("random", model=model), train_from_images, shares),
            f"{model}, filter inflation": (small("average", model=model), train_from_images, shares),
            f"{model}, central frame": (small("central", model=model), train_from_images, shares),
        }
        rows += rows_on_shares(starts)
    return rows


def images_cnn() -> list[Row]:
    """`images` for a 3D CNN: from nothing, from nothing for longer, and from a CNN of slices, inflated."""
    from .inflated_cnn import train_from_slices

    longer = replace(small_cnn(NOTHING_RATE), epochs=4 * small_cnn(NOTHING_RATE).epochs)
    starts = {
        "nothing pretrained": (small_cnn(NOTHING_RATE), train_run, (5, 25, 100)),
        "filter inflation": (small_cnn(INFLATED_RATE), train_from_slices, (5, 25, 100)),
        "nothing pretrained, 4 times as long": (longer, train_run, (25, 100)),
    }
    return rows_on_shares(starts)


def cnn_rates() -> list[Row]:
    """Which learning rate each start of `images_cnn` trains with, on validation: on 25 % of the patients."""
    from .inflated_cnn import train_from_slices

    starts = {"nothing pretrained": train_run, "filter inflation": train_from_slices}
    return rows_on_shares(
        {
            f"{start}, lr {rate:g}": (small_cnn(rate), train, (25,))
            for start, train in starts.items()
            for rate in (1e-4, 3e-4, 1e-3, 3e-3)
        }
    )


def small_cnn(lr: float) -> Recipe:
    """A `cnn3d` in the situation of `small`: as many epochs and clips in a step, and no augmentation."""
    return replace(small(), model="cnn3d", options={}, optimiser="adamw", lr=lr)


def image_rates() -> list[Row]:
    """Which learning rate each start of `images` trains with, on validation: on 25 % of the patients."""
    from .many_images import train_from_images

    starts = {
        "nothing pretrained": (small(), train_run),
        "tubelets, random": (small("random"), train_from_images),
        "tubelets, central frame": (small("central"), train_from_images),
    }
    return rows_on_shares(
        {
            f"{start}, lr {rate:g}": (replace(recipe, lr=rate), train, (25,))
            for start, (recipe, train) in starts.items()
            for rate in (1e-3, 3e-3, 1e-2)
        }
    )


def small(inflate: str = "", *, model: str = "spacetime", **options: object) -> Recipe:
    """A ViViT of two layers that trains in a quarter of a minute, without augmentation: of the tables of images.

    inflate: what image filters become in a tubelet, or "" for a start from nothing. Each has the learning rate that
    was best on validation (`image_rates`).
    """
    options = {"dim": 64, "depth": 2, "heads": 4, "mlp_dim": 256} | options
    if model == "factorised_encoder":
        options["temporal_depth"] = 1
    return Recipe(
        model=model,
        options=options,
        epochs=6,
        batch_size=16,
        optimiser="muon",
        lr=1e-3 if inflate else 3e-3,
        augmentation=Augmentation(),
        bfloat16=True,
        inflate=inflate or "central",
    )


def rows_on_shares(starts: dict[str, tuple[Recipe, Callable, Sequence[int]]]) -> list[Row]:
    """Rows of {name: (recipe, train, shares in %)}; a row makes as many steps on each share of the patients."""
    return [
        Row(f"{percent} %, {name}", recipe, partial(train_on_share, percent=percent, equal_steps=True, train=train))
        for name, (recipe, train, shares) in starts.items()
        for percent in shares
    ]


def hunger() -> list[Row]:
    """How much data two ViViTs and two CNNs need: to a plateau on shares of the patients, with the same number of
    steps per epoch on each. At the rate that `plateau` chose for the model on all of them (HUNGER_RATES)."""
    recipes = {row.name: row.recipe for row in plateau() if row.name in HUNGER_RATES}
    return rows_on_shares(
        {
            name: (replace(recipes[name], lr=rate), train_to_plateau, PATIENT_SHARES)
            for name, rate in HUNGER_RATES.items()
        }
    )


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


def search() -> list[Row]:
    """A change to the preset `full` that chapter 12's log had not tried, judged without the test split: finer volumes,
    for half as many epochs, since each takes twice as long."""
    full = Recipe.preset("full")
    fine = replace(full, options=full.options | {"tubelet": (8, 8, 8)}, epochs=full.epochs // 2)
    rows = [
        Row("preset full", full, train_without_test),
        Row("64³ voxels, 8³ tubelets", fine, partial(train_without_test, size=64)),
    ]
    return [replace(row, tested_on=JUDGED_ON) for row in rows]


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


def patience() -> list[Row]:
    """What two models of `plateau` come to on clips that are cycles, such as movingshapes, if nothing stops them before
    the last of their 100 epochs. At the rate that `plateau` chose on movingshapes (PATIENCE_RATES)."""
    changed = {
        row.name: replace(row.recipe, augmentation=replace(row.recipe.augmentation, roll=True)) for row in plateau()
    }
    return [
        Row(name, replace(changed[name], lr=rate), partial(train_to_plateau, patience=changed[name].epochs))
        for name, rate in PATIENCE_RATES.items()
    ]


TABLES = {
    "regularisation": regularisation,
    "regularisation-cumulative": regularisation_cumulative,
    "model": paper_models,
    "all-models": all_models,
    "tubelet": tubelets,
    "temporal-depth": temporal_depths,
    "images": images,
    "images-models": images_models,
    "images-rates": image_rates,
    "images-cnn": images_cnn,
    "images-cnn-rates": cnn_rates,
    "hunger": hunger,
    "recipe": recipes,
    "motion": motion,
    "four-models": four_models,
    "search": search,
    "optimisers": optimisers,
    "plateau": plateau,
    "patience": patience,
}


def train_and_probe(
    volumes: Volumes, recipe: Recipe, *, out: Path | str, device: str | torch.device = "auto", **rest: object
) -> dict:
    """`train_run`, and under "probes" what the trained model answers to a changed test split (`probes.probe`)."""
    metrics = train_run(volumes, recipe, out=out, device=device, **rest)
    model = load_model(out, volumes, device=device)
    return metrics | {"probes": probe(model, volumes, bfloat16=recipe.bfloat16)}


def train_on_share(
    volumes: Volumes,
    recipe: Recipe,
    *,
    percent: float,
    train: Callable,
    seed: int,
    longer: int = 1,
    equal_steps: bool = False,
    **rest: object,
) -> dict:
    """`train`, `longer` times the epochs, on a share of the training patients, drawn by the seed; of the volumes
    where patients are unknown.

    equal_steps: the share's clips are repeated until they are as many as all, so that an epoch has as many steps.
    """
    owners = volumes.train.patients
    owners = torch.arange(len(volumes.train)) if owners is None else owners
    everyone = owners.unique()
    order = torch.randperm(len(everyone), generator=torch.Generator().manual_seed(seed))
    chosen = everyone[order[: max(1, round(percent * len(everyone) / 100))]]
    indices = torch.isin(owners, chosen).nonzero().flatten()
    if equal_steps:
        indices = indices.repeat(-(-len(owners) // len(indices)))[: len(owners)]
    share = volumes.train.subset(indices)
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
    changes = ({"bfloat16": True} if bfloat16 else {}) | ({"epochs": epochs} if epochs is not None else {})
    return [replace(row, recipe=replace(row.recipe, **changes)) for row in TABLES[table]()]
