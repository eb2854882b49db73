"""`vivit-edu bench accuracy DATASET`: how long until a fixed validation accuracy, the one that Keras' ViViT example reaches.

That example (keras.io, "Video Vision Transformer") is rebuilt as model and recipe: Model 1 with tubelets of 8³, of which
three fit into 28 voxels, 8 layers, 60 epochs of Adam's default kind at 1e-4, nothing augmented.
"""

import time
from statistics import mean, median

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .augment import Augmentation
from .data import load_volumes
from .runs import build_seeded
from .training import Recipe, evaluate, make_optimiser, train_epoch

KERAS = Recipe(
    options={"tubelet": (8, 8, 8), "remainder": "crop", "dim": 128, "depth": 8, "heads": 8, "mlp_dim": 512},
    epochs=60, lr=1e-4, warmup=0.0, augmentation=Augmentation(),
)  # fmt: skip
LAST = 10  # epochs, whose mean is what a run reaches
SMOOTH = 3  # epochs, whose mean must come there: one epoch's accuracy may be luck


def accuracy(device, volumes=None, seeds=3, keras=KERAS, ours=None):
    """Seconds of training, evaluation left out, until the mean of three epochs is there, for each seed."""
    from tqdm.auto import tqdm

    volumes = volumes or load_volumes("organphantom3d")
    ours = ours or Recipe.preset("quick")
    rows = []
    for seed in tqdm(range(seeds), desc="time to accuracy", unit="seed"):
        theirs = list(epochs(keras, volumes, seed, device))
        goal = mean(acc for _, acc in theirs[-LAST:])
        first, whole = reached(theirs, goal), sum(seconds for seconds, _ in theirs)
        mine = []
        for step in epochs(ours, volumes, seed, device):
            mine.append(step)
            if reached(mine, goal) is not None:
                break
        taken = reached(mine, goal)
        rows.append([str(seed), f"{goal:.3f}", f"{first:.1f}" if first else "–", f"{whole:.1f}",
                     f"{taken:.1f}, {len(mine)} epochs" if taken else f"not in {len(mine)} epochs",
                     f"{taken / first:.2f}" if taken and first else "–", f"{taken / whole:.2f}" if taken else "–"])  # fmt: skip
    shares = [float(row[-1]) for row in rows if row[-1] != "–"]
    rows.append(["median", "", "", "", "", "", f"{median(shares):.2f}" if len(shares) == len(rows) else "–"])
    heads = ["seed", "validation accuracy", "theirs, s until there", "theirs, s of all epochs", "ours, s until there",
             "of theirs until there", "of all theirs"]
    return heads, rows, (f"{volumes.name}: Keras' example rebuilt here against the preset quick with its whole schedule; the goal is "
                         f"the mean validation accuracy of the example's last {LAST} epochs, reached when {SMOOTH} epochs in a row "
                         "have it on average. Seconds of training epochs alone, one seed after the other.")


def epochs(recipe, volumes, seed, device):
    """Trains as `fit` does; yields each epoch's (seconds of training, validation accuracy)."""
    model = build_seeded(recipe, volumes, seed).to(device)
    train, val, optimiser = volumes.train.to(device), volumes.val.to(device), make_optimiser(model, recipe)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)) if recipe.ema else None
    for epoch in range(recipe.epochs):
        start = time.perf_counter()
        train_epoch(model, train, volumes, recipe, optimiser, averaged, seed=seed, epoch=epoch)
        seconds = time.perf_counter() - start  # train_epoch ends by asking the device for the loss
        yield seconds, evaluate(averaged or model, val).acc


def reached(history, goal):
    """Seconds until the mean accuracy of SMOOTH epochs is at the goal; None where it never is."""
    for end in range(SMOOTH, len(history) + 1):
        if mean(acc for _, acc in history[end - SMOOTH : end]) >= goal:
            return sum(seconds for seconds, _ in history[:end])
    return None
