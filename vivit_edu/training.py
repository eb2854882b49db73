"""Training a model: `Recipe`, `fit`, `evaluate`, and checkpoints that a run resumes from.

The whole loop is in `fit` and `train_epoch`. Chapter 12 takes it apart.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from .augment import Augmentation, augment_batch
from .errors import ConfigError, TrainingError
from .optimisers import Together, encoder_matrices
from .support import processes as distributed
from .support.devices import grad_scaler, mixed_precision
from .support.options import (
    INFLATIONS,
    check_choice,
    check_number,
    check_seed,
    check_share,
    check_sizes,
    check_switch,
    check_whole,
)

if TYPE_CHECKING:
    from .volumes import Split, Volumes

OPTIMISERS = ("adamw", "muon")
MOST_VOXELS = 128 * 64**3  # that are evaluated at once


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run apart from the data and the seed.

    model, options: what `build_model` is asked for. epochs, batch_size: passes over the training clips, and clips in
    a step. lr: the peak of the schedule, a linear warm-up over the share `warmup` of all steps and then a cosine down
    to 0. weight_decay: of matrices and filters only. clip_norm: the longest gradient of a step. ema: the share of the
    averaged weights that is kept in each step; the averaged weights are evaluated and returned, 0 keeps the raw ones.
    augmentation: what happens to the clips of a batch.
    optimiser: "adamw", or for a ViViT "muon": `torch.optim.Muon` for the matrices of its encoders and AdamW for
    everything else. compile: torch.compile, which takes a minute at the start; on two CPU cores it gained nothing, and
    on a GPU it was not measured. bfloat16: training steps in bfloat16 on a CPU, 1.8 times as fast if it has
    instructions for them (AVX512-BF16, AMX) and slower on others; a GPU has its own precision
    (`support.devices.precision`).
    pretrained: where the first weights come from, as for `load_pretrained`: a file, or "torchvision:vit_b_16";
    "" draws them at random. inflate: what its image filters become in a tubelet, the method of `load_pretrained`.
    `runs.train_run` reads these two; `fit` goes on from the weights that the model has.
    Raises ConfigError if a value is of another kind or range, and if the model does not have what it sets.
    """

    model: str = "spacetime"
    options: dict[str, object] = field(default_factory=dict)
    epochs: int = 60
    batch_size: int = 32
    lr: float = 5e-4
    weight_decay: float = 0.05
    warmup: float = 0.1
    clip_norm: float = 1.0
    ema: float = 0.0
    augmentation: Augmentation = Augmentation()
    optimiser: str = "adamw"
    compile: bool = False
    bfloat16: bool = False
    pretrained: str = ""
    inflate: str = "central"

    def __post_init__(self) -> None:
        from .models import check_options, is_vivit

        check_options(self.model, self.options)
        for name in ("epochs", "batch_size"):
            check_whole(name, getattr(self, name), 1)
        for name in ("warmup", "ema"):
            check_share(name, getattr(self, name))
        for name in ("lr", "clip_norm"):
            check_number(name, getattr(self, name), above=True)
        check_number("weight_decay", self.weight_decay)
        for name in ("compile", "bfloat16"):
            check_switch(name, getattr(self, name))
        if not isinstance(self.augmentation, Augmentation):
            raise ConfigError(f"augmentation must be an Augmentation(...), got {self.augmentation!r}")
        if not isinstance(self.pretrained, str):
            raise ConfigError(f'pretrained must be a file, torchvision:vit_b_16 or "", got {self.pretrained!r}')
        check_choice("optimiser", self.optimiser, OPTIMISERS)
        check_choice("inflate", self.inflate, INFLATIONS)
        if self.optimiser == "muon" and not is_vivit(self.model):
            raise ConfigError(f"optimiser='muon' is for the matrices of a ViViT's encoders: {self.model} needs 'adamw'")

    @classmethod
    def preset(cls, name: str, **changes: object) -> Self:
        """A recipe by name, "quick", "full" or "paper-b", with some fields changed.

        quick: a first run, minutes on two CPU cores. full: the course's recipe, the best that we found, for a GPU; on
        a CPU it takes six times as long as quick.
        paper-b: ViViT-B/16x2, for measuring its cost on clips of (3, 32, 224, 224), not for training here.
        changes: fields of the recipe. A preset's options, optimiser, lr, weight decay and augmentation were chosen for
        a ViViT; with a CNN for the model they are those that our tables of CNNs use, and of the preset it keeps the
        epochs, the batch size and the averaging.
        Raises ConfigError if there is no such preset or field.
        """
        from .models import is_vivit

        if not isinstance(name, str) or name not in PRESETS:
            raise ConfigError(f"no preset is called {name!r}; the presets are {', '.join(PRESETS)}")
        check_fields(changes)
        chosen = deepcopy(PRESETS[name])
        model = changes.get("model", chosen["model"])
        if not is_vivit(model):
            chosen |= CNN_CHOICES | {"options": {}}
        elif model != "factorised_encoder":  # the only one with a second encoder
            chosen["options"].pop("temporal_depth", None)
        return cls(**(chosen | changes))

    @classmethod
    def from_dict(cls, values: dict[str, object]) -> Self:
        """The recipe that `asdict` wrote, as it is written in `metrics.json` and in checkpoints.

        Raises ConfigError if the values are not a dict, or hold a field that a recipe does not have.
        """
        check_fields(values)
        augmentation = values.get("augmentation", {})
        check_fields(augmentation, Augmentation, "an augmentation")
        return cls(**{**values, "augmentation": Augmentation(**augmentation)})

    def build(self, volumes: "Volumes") -> torch.nn.Module:
        """The model that the recipe names, for these volumes."""
        from .models import build_model

        clip_shape, classes = tuple(volumes.train.clips.shape[1:]), len(volumes.class_names)
        return build_model(self.model, clip_shape=clip_shape, num_classes=classes, **self.options)

    def fitted(self, clip_shape: tuple[int, int, int, int]) -> tuple[Self, str | None]:
        """The recipe with tubelets that tile clips of this shape, and one line that tells you what was changed.

        Along an axis that the tubelets do not tile, the nearest size that does takes their place, the smaller of two
        equally near ones. It is at least two thirds and at most twice as long, so that the number of tokens stays
        close to what the recipe was chosen for. If no such size tiles the axis, as with 29 frames, the tubelets
        keep their size and the clip is padded with zeros. Tubelets longer than the clip shrink to it.
        clip_shape: (C, T, H, W). Returns (this recipe, None) where nothing has to change, as with every CNN.
        """
        from .models import is_vivit
        from .vivit import ViViTConfig

        check_sizes("clip_shape", clip_shape, "C, T, H, W")
        if not is_vivit(self.model):
            return self, None
        before, size = tuple(self.options.get("tubelet", ViViTConfig.tubelet)), tuple(clip_shape[1:])
        padded = self.options.get("remainder", "refuse") != "refuse"  # the recipe decides what to do with the rest
        tubelet = tuple(min(t, s) if padded else tiling_size(s, t) for s, t in zip(size, before))
        rest = not padded and any(s % t for s, t in zip(size, tubelet))
        if tubelet == before and not rest:
            return self, None
        wide, was, clip = ("×".join(map(str, sizes)) for sizes in (tubelet, before, size))
        remark = f"clips of {clip}: tubelets of {wide}" + (f" in place of {was}" if tubelet != before else "")
        remark += ', and remainder="pad": zeros at the end where they do not tile the clip' if rest else ""
        options = self.options | {"tubelet": tubelet} | ({"remainder": "pad"} if rest else {})
        return replace(self, options=options), remark


def tiling_size(size: int, tubelet: int) -> int:
    """The size nearest to the tubelet's that tiles an axis of this size; the tubelet's own if none is near.

    Near is from two thirds of the tubelet's size to twice its size. Never longer than the axis.
    """
    near = [d for d in range(1, size + 1) if size % d == 0 and 2 * tubelet <= 3 * d and d <= 2 * tubelet]
    return min(near, key=lambda d: abs(d - tubelet), default=min(size, tubelet))


def build_seeded(recipe: Recipe, volumes: "Volumes", seed: int) -> torch.nn.Module:
    """The model with its first weights drawn from the seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return recipe.build(volumes)


def check_fields(values: dict[str, object], kind: type = Recipe, title: str = "a recipe") -> None:
    """Raises ConfigError if the values are not a dict, or hold a name that is not a field of this dataclass."""
    if not isinstance(values, dict):
        raise ConfigError(f"{title} is kept as a dict, got {values!r}")
    known = [f.name for f in fields(kind)]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ConfigError(f"{title} has no field {', '.join(unknown)}; its fields are {', '.join(known)}")


# Whole volumes shift and brighten, and mirrored organs swap their labels: what a body may do without changing class.
GENTLE = Augmentation(mirror=True, shift=0.1, gain=0.2)
# Chosen on validation data; chapter 12 tells what each part gave, and what else was tried.
QUICK = {
    "model": "spacetime",
    "options": {"depth": 4},
    "epochs": 60,
    "lr": 3e-3,
    "ema": 0.99,
    "optimiser": "muon",
    "augmentation": GENTLE,
}
PRESETS = {  # fields of a Recipe, which `Recipe.preset` makes of them
    "quick": QUICK,
    "full": QUICK
    | {
        "model": "factorised_encoder",
        "options": {"tubelet": (4, 4, 4), "dim": 96, "depth": 3, "temporal_depth": 2},
        "epochs": 120,
        "weight_decay": 0.5,
        "augmentation": Augmentation(mirror=True, shift=0.04, rotate=20.0),
    },
    "paper-b": {
        "model": "spacetime",
        "options": {"tubelet": (2, 16, 16), "dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
        "epochs": 30,
        "batch_size": 64,
    },
}
# What a CNN takes instead of those: what our tables of CNNs were trained with.
CNN_CHOICES = {"optimiser": "adamw", "lr": 5e-4, "weight_decay": 0.05, "augmentation": GENTLE}


@dataclass(frozen=True)
class Metrics:
    """Accuracy, balanced accuracy (the mean recall of the classes) and area under the ROC curve, from 0 to 1.

    auc is None if it is not defined: the labels are all of one class.
    """

    acc: float
    balanced_acc: float
    auc: float | None


@dataclass
class History:
    """One row per epoch: epoch, lr, loss (training), val_acc, val_balanced_acc, val_auc (or None), seconds."""

    rows: list[dict[str, float | None]] = field(default_factory=list)

    def __getitem__(self, column: str) -> list[float | None]:
        """A column as a list: history["val_auc"]."""
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)


def fit(
    model: torch.nn.Module,
    volumes: "Volumes",
    recipe: Recipe,
    *,
    seed: int = 0,
    out: Path | str | None = None,
    resume: bool = False,
    progress: bool = True,
) -> History:
    """Trains `model` in place on `volumes.train` and returns the History; `volumes.test` is not touched.

    The model stays on the device it is on, and is in eval mode afterwards, even if training was interrupted. All
    randomness of an epoch comes from (seed, epoch) alone, so the same seed gives the same numbers, and a resumed run
    goes on as if it had never stopped. With averaged weights (`recipe.ema`), BatchNorm's statistics are those of the
    training clips under the averaged weights, computed again after each epoch.
    model: it may be wrapped, by torch.compile for instance; the checkpoint is the plain model's.
    out: a folder for a checkpoint after every epoch. resume: go on from the checkpoint in `out`, if there is one.
    Started by torchrun, the processes share each batch and make the same steps; the first one writes.
    Raises TrainingError if the loss is no longer a number (the last good checkpoint is kept), CheckpointError
    if the checkpoint in `out` belongs to another recipe, seed or data set, and ConfigError if another run writes
    to `out`, if the recipe's optimiser does not fit the model, or if several processes cannot share its batches.
    """
    from tqdm.auto import tqdm

    from .support.checkpoint import load_checkpoint, save_checkpoint
    from .support.identity import identity, identity_hash
    from .support.locks import alone_in
    from .support.wrapped import unwrapped

    check_seed(seed)
    plain = unwrapped(model)
    device = next(plain.parameters()).device
    train, val = volumes.train.to(device), volumes.val.to(device)
    distributed.check_shares(min(recipe.batch_size, len(train)))
    optimiser, scaler = make_optimiser(plain, recipe), grad_scaler(device, on_cpu=recipe.bfloat16)
    averaged = AveragedModel(plain, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)) if recipe.ema else None
    data = identity_hash(identity(volumes)) if out is not None else None
    state = TrainingState(plain, optimiser, averaged, History(), asdict(recipe), seed, scaler, data)
    step_model = distributed.synchronised(model)
    with alone_in(out):
        done = load_checkpoint(out, state) if resume else 0
        step_model = torch.compile(step_model) if recipe.compile else step_model
        progress = progress and distributed.is_first()
        bar = tqdm(total=recipe.epochs, initial=done, desc="training", unit="epoch", disable=not progress)
        try:
            with bar, distributed.watch(out), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                for epoch in range(done, recipe.epochs):
                    start = time.perf_counter()
                    loss = train_epoch(
                        step_model, train, volumes, recipe, optimiser, averaged, seed=seed, epoch=epoch, scaler=scaler
                    )
                    if not math.isfinite(loss):
                        raise TrainingError(nan_message(epoch, loss, recipe, out))
                    if averaged is not None:
                        refresh_batchnorm(averaged, train, recipe)
                    scores = evaluate(averaged or plain, val)
                    row = {"epoch": epoch + 1, "lr": optimiser.param_groups[0]["lr"], "loss": loss}
                    row |= {f"val_{name}": value for name, value in asdict(scores).items()}
                    state.history.rows.append(row | {"seconds": time.perf_counter() - start})
                    if out is not None and distributed.is_first():
                        save_checkpoint(out, state, epoch + 1)
                    auc = "–" if scores.auc is None else f"{scores.auc:.3f}"
                    bar.set_postfix(loss=f"{loss:.3f}", val_acc=f"{scores.acc:.3f}", val_auc=auc)
                    bar.update()
            if averaged is not None:
                plain.load_state_dict(averaged.module.state_dict())
        finally:
            model.eval()
    return state.history


@dataclass
class TrainingState:
    """What a checkpoint holds: the things that change in training, and what they belong to."""

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer | Together
    averaged: AveragedModel | None
    history: History
    recipe: dict[str, object]
    seed: int
    scaler: torch.amp.GradScaler | None = None
    data: str | None = None  # `identity_hash` of the volumes

    @staticmethod
    def complete(recipe: dict[str, object]) -> dict[str, object]:
        """A recipe as it was saved, with the defaults of those fields that it did not have yet."""
        return asdict(Recipe.from_dict(recipe))


def augmented_batches(
    train: "Split", volumes: "Volumes", recipe: Recipe, *, seed: int, epoch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The augmented batches of an epoch: clips float [B, C, T, H, W] in [0, 1], soft labels [B, K].

    Order and augmentation follow from (seed, epoch) alone. train: the training clips, on the device that is to train;
    volumes: the set that they are from.
    """
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    order = torch.randperm(len(train), generator=generator).to(train.clips.device)
    augmentation, classes = recipe.augmentation, len(volumes.class_names)
    augmentation = replace(augmentation, film=augmentation.film or volumes.film)
    for step in range(steps_per_epoch(len(train), recipe)):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        yield augment_batch(augmentation, train.clips[batch], train.labels[batch], classes, volumes.mirror, generator)


def train_epoch(
    model: torch.nn.Module,
    train: "Split",
    volumes: "Volumes",
    recipe: Recipe,
    optimiser: torch.optim.Optimizer | Together,
    averaged: AveragedModel | None,
    *,
    seed: int,
    epoch: int,
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """One pass over the training clips; returns the mean loss. Except in float16, nothing waits for the device.

    averaged: takes part in every step that is made, if given. scaler: scales the loss in float16, and skips the steps
    whose gradients overflow; such a step does not count in the mean if its loss overflowed too.
    """
    from .support.torch_faults import average_weights
    from .support.wrapped import unwrapped

    device = train.clips.device
    scaler = scaler or grad_scaler(device, on_cpu=recipe.bfloat16)
    # dropout and stochastic depth draw from torch's own generator, in each process different numbers
    torch.manual_seed(epoch_seed(seed, epoch) + distributed.rank() * 1_000_000_007)
    steps = steps_per_epoch(len(train), recipe)
    total, counted = torch.zeros((), device=device), steps
    model.train()
    for step, (clips, targets) in enumerate(augmented_batches(train, volumes, recipe, seed=seed, epoch=epoch)):
        clips, targets = distributed.share(clips), distributed.share(targets)  # everything in a single process
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, epoch * steps + step, recipe.epochs * steps)
        with mixed_precision(device, on_cpu=recipe.bfloat16):
            loss = F.cross_entropy(model(clips), targets)
        optimiser.zero_grad()
        scaler.scale(loss).backward()  # without float16 the scaler does nothing, here and below
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        scale = scaler.get_scale()
        scaler.step(optimiser)
        scaler.update()
        made = scaler.get_scale() >= scale  # after a step that was skipped the scale is smaller
        if averaged is not None and made:
            average_weights(averaged, unwrapped(model))
        if made or distributed.mean(loss.detach().clone()).isfinite():
            total += loss.detach()
        else:
            counted -= 1
    return float(distributed.mean(total / counted)) if counted else math.nan


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode; afterwards each of its parts is in the mode that it was in before."""
    before = {module: module.training for module in model.modules()}
    try:
        yield model.eval()
    finally:
        for module, training in before.items():
            module.training = training


def refresh_batchnorm(model: torch.nn.Module, train: "Split", recipe: Recipe) -> None:
    """Sets the statistics of a model's BatchNorm to those of whole batches of the training clips, as they are.

    Averaged weights need this: their activations differ from those that the statistics were gathered from in training.
    A model without BatchNorm is left as it is.
    """
    steps = steps_per_epoch(len(train), recipe)
    batches = (clips.float() / 255 for clips in train.clips.split(recipe.batch_size)[:steps])
    with evaluating(model), mixed_precision(train.clips.device, on_cpu=recipe.bfloat16):
        update_bn(batches, model)


def learning_rate(recipe: Recipe, step: int, total: int) -> float:
    """The learning rate of a step: a linear warm-up to recipe.lr, then half a cosine down to 0.

    step: from 0. total: the number of steps of the whole run.
    """
    warmup = recipe.warmup * total
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def make_optimiser(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer | Together:
    """The recipe's optimiser; weight decay on matrices and filters, not on biases, norms, positions and cls tokens.

    Raises ConfigError if the recipe asks for Muon and the model has no matrices for it.
    """
    turned = encoder_matrices(model) if recipe.optimiser == "muon" else set()
    if recipe.optimiser == "muon" and not turned:
        raise ConfigError(
            f"optimiser='muon' is for the matrices of a ViViT's encoders, and {type(model).__name__} has none: "
            "choose optimiser='adamw'"
        )
    matrices, decayed, rest = [], [], []
    for name, p in model.named_parameters():
        decays = p.ndim > 1 and not name.endswith(("positions", "cls"))
        (matrices if name in turned else decayed if decays else rest).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    if not turned:
        return adamw
    # steps as large as AdamW's, so that both share lr and schedule
    kind = torch.optim.Muon
    if matrices[0].is_cuda:  # the same steps, with fewer kernels to start
        from .support.stacked_muon import StackedMuon as kind
    muon = kind(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw")
    return Together(muon, adamw)


def steps_per_epoch(clips: int, recipe: Recipe) -> int:
    """Whole batches only: the clips left over, different ones in every epoch, are skipped. At least one."""
    return max(1, clips // recipe.batch_size)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for this epoch of this run, different for every pair."""
    return seed * 100_003 + epoch


@torch.no_grad()
def predict_logits(
    model: torch.nn.Module,
    split: "Split",
    *,
    batch_size: int = 128,
    predict: Callable[[torch.nn.Module, torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """The logits [B, K] of all clips of a split, float32 on the CPU.

    The model computes them in eval mode and is then put back into the mode it was in.
    batch_size: fewer clips at once where these are large: at most 128 of 64³.
    predict: (model, clips float [B, C, T, H, W] in [0, 1]) -> logits [B, K], for averages over views; by default
    the model itself.
    """
    device, logits = next(model.parameters()).device, []
    most = max(1, MOST_VOXELS // math.prod(split.clips.shape[1:]))
    with evaluating(model), mixed_precision(device):
        for clips in split.clips.split(min(batch_size, most)):
            clips = clips.to(device).float() / 255
            logits.append((predict(model, clips) if predict else model(clips)).float())
    return torch.cat(logits).cpu()


def evaluate(model: torch.nn.Module, split: "Split", *, batch_size: int = 128) -> Metrics:
    """Metrics of a model on a split; the model's mode is left as it was."""
    return score(predict_logits(model, split, batch_size=batch_size), split.labels.cpu())


def score(logits: torch.Tensor, labels: torch.Tensor) -> Metrics:
    """Metrics from logits [B, K] and labels int64 [B], defined as medmnist's getACC and getAUC define them.

    The AUC of more than two classes is the mean of each class against the rest; a class without labels has no AUC
    and is left out of the mean. The AUC is None if all labels are of one class.
    Raises TrainingError if a logit is not a finite number, and ConfigError if there are no labels.
    """
    if not len(labels):
        raise ConfigError("there is no clip to evaluate: the split is empty")
    if not logits.isfinite().all():
        raise TrainingError(
            "the model's logits are not all finite numbers: its weights diverged in training or were damaged since; "
            "train with a lower lr, or with a smaller clip_norm"
        )
    from sklearn.metrics import roc_auc_score

    logits, labels = logits.double(), labels.long()
    hits = logits.argmax(dim=1) == labels
    present = labels.unique()
    recalls = torch.stack([hits[labels == k].float().mean() for k in present])
    if logits.shape[1] == 2:
        ranked = [1]  # the second class against the first: one curve, not two mirrored ones
    else:
        ranked = present.tolist()
    curves = [roc_auc_score(labels == k, log_odds(logits, k)) for k in ranked if 0 < (labels == k).sum() < len(labels)]
    auc = float(sum(curves) / len(curves)) if curves else None
    return Metrics(acc=hits.float().mean().item(), balanced_acc=recalls.mean().item(), auc=auc)


def log_odds(logits: torch.Tensor, k: int) -> torch.Tensor:
    """ln p / (1 - p) of class k, [B], from logits [B, K]: ranks as the probability p does, and never rounds to 1."""
    others = torch.cat((logits[:, :k], logits[:, k + 1 :]), dim=1)  # [N, K - 1]
    return logits[:, k] - others.logsumexp(dim=1)


def nan_message(epoch: int, loss: float, recipe: Recipe, out: Path | str | None) -> str:
    """The message for a loss that is not a number, in an epoch counted from 0."""
    kept = f"; the checkpoint after epoch {epoch} is kept in {out}" if out is not None and epoch else ""
    return (
        f"the training loss of epoch {epoch + 1} is {loss}{kept}. The steps were too large or the clips are damaged: "
        f"train with a lower lr (it was {recipe.lr}), or with a smaller clip_norm (it was {recipe.clip_norm})"
    )
