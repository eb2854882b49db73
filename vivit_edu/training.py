"""Training a model: `Recipe`, `fit`, `evaluate`, and checkpoints that a run resumes from.

The whole loop is in `fit` and `train_epoch`. Chapter 12 takes it apart.
"""

import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .augment.batch import Augmentation, augment_batch
from .errors import ConfigError, TrainingError
from .models import build_model, check_options, is_vivit
from .optimisers import Muon, Together, encoder_matrices
from .support import processes as distributed
from .support.checkpoint import load_checkpoint, save_checkpoint
from .support.options import INFLATIONS, check_choice, check_number, check_seed, check_share, check_switch, check_whole

OPTIMISERS = ("adamw", "muon")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run beside the data and the seed.

    model, options: what `build_model` is asked for. lr is the peak of the schedule: linear warm-up over
    the share `warmup` of all steps, then a cosine down to 0. ema: decay a step of the averaged weights that
    are evaluated and kept; 0 keeps the raw ones. optimiser: "adamw", or "muon" for the matrices of a ViViT's
    encoders (`optimisers.Muon`), with AdamW for all else. compile: torch.compile, a minute at the start, meant
    for a GPU: two CPU cores gained nothing by it. bfloat16: training steps in bfloat16 on a CPU, too, as always
    on a GPU; 1.8 times as fast on a CPU that has instructions for it (AVX512-BF16, AMX), slower on others.
    pretrained: where the first weights are from, as for `load_pretrained`: a file, or "torchvision:vit_b_16";
    "" draws them at random. inflate: what its image filters become in a tubelet, the method of `load_pretrained`.
    Both are `runs.train_run`'s business: `fit` goes on from the weights that the model has.
    """

    model: str = "spacetime"
    options: dict = field(default_factory=dict)
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

    def __post_init__(self):
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
            raise ConfigError(f"augmentation is an Augmentation(...), got {self.augmentation!r}")
        if not isinstance(self.pretrained, str):
            raise ConfigError(f'pretrained is a file\'s name, or torchvision:vit_b_16, or "", got {self.pretrained!r}')
        check_choice("optimiser", self.optimiser, OPTIMISERS)
        check_choice("inflate", self.inflate, INFLATIONS)

    @classmethod
    def preset(cls, name, **changes):
        """A recipe by name, "quick", "full" or "paper-b", with some fields changed.

        quick: a first run, minutes on two CPU cores. full: the course's recipe, the best that we found, on a GPU or
        six times as long as quick on a CPU.
        paper-b: ViViT-B/16x2, for measuring its cost on clips of (3, 32, 224, 224), not for training here.
        Their options (tubelet, depth, …) and optimiser are a ViViT's: with model= a CNN, it gets its own defaults,
        and AdamW at 5e-4.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ConfigError(f"no preset is called {name!r}; the presets are {', '.join(PRESETS)}")
        check_fields(changes)
        if not is_vivit(changes.get("model", PRESETS[name].model)):
            changes = {"options": {}, "optimiser": "adamw", "lr": 5e-4} | changes
        return replace(PRESETS[name], **changes)

    @classmethod
    def from_dict(cls, values):
        """The recipe that `asdict` wrote, as it stands in `metrics.json` and in checkpoints."""
        check_fields(values)
        augmentation = values.get("augmentation", {})
        check_fields(augmentation, Augmentation, "an augmentation")
        return cls(**{**values, "augmentation": Augmentation(**augmentation)})

    def build(self, volumes):
        """The model that the recipe names, for these volumes."""
        clip_shape, classes = tuple(volumes.train.clips.shape[1:]), len(volumes.class_names)
        return build_model(self.model, clip_shape=clip_shape, num_classes=classes, **self.options)


def build_seeded(recipe, volumes, seed):
    """The model with its first weights drawn from the seed; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return recipe.build(volumes)


def check_fields(values, kind=Recipe, title="a recipe"):
    """Refuses what is no dict, and names that are no field of a recipe."""
    if not isinstance(values, dict):
        raise ConfigError(f"{title} is kept as a dict, got {values!r}")
    known = [f.name for f in fields(kind)]
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ConfigError(f"{title} has no field {', '.join(unknown)}; its fields are {', '.join(known)}")


# Whole volumes shift and brighten, and mirrored organs swap their labels: what a body may do without changing class.
GENTLE = Augmentation(mirror=True, shift=0.1, gain=0.2)
# Chosen on validation data; chapter 12 tells what each part gave, and what was tried besides.
QUICK = Recipe(options={"depth": 4}, epochs=60, lr=3e-3, ema=0.99, optimiser="muon", augmentation=GENTLE)
PRESETS = {
    "quick": QUICK,
    "full": replace(
        QUICK,
        model="factorised_encoder",
        options={"tubelet": (4, 4, 4), "dim": 96, "depth": 3, "temporal_depth": 2},
        epochs=120,
        weight_decay=0.5,
        augmentation=Augmentation(mirror=True, shift=0.04, rotate=20.0),
    ),
    "paper-b": Recipe(
        model="spacetime",
        options={"tubelet": (2, 16, 16), "dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072},
        epochs=30,
        batch_size=64,
    ),
}


@dataclass(frozen=True)
class Metrics:
    """Accuracy, balanced accuracy (the mean recall of the classes) and area under the ROC curve, from 0 to 1."""

    acc: float
    balanced_acc: float
    auc: float


@dataclass
class History:
    """One row an epoch: epoch, lr, loss (training), val_acc, val_balanced_acc, val_auc, seconds."""

    rows: list = field(default_factory=list)

    def __getitem__(self, column):
        """A column as a list: history["val_auc"]."""
        return [row[column] for row in self.rows]

    def __len__(self):
        return len(self.rows)


def fit(model, volumes, recipe, *, seed=0, out=None, resume=False, progress=True):
    """Trains `model` in place on `volumes.train` and returns the History; `volumes.test` is not touched.

    The model stays on the device it is on. All randomness of an epoch comes from (seed, epoch) alone, so
    the same seed gives the same numbers, and a resumed run goes on as if it had never stopped.
    out: a folder for a checkpoint after every epoch. resume: go on from the checkpoint in `out`, if any.
    Started by torchrun, the processes share each batch and make the same steps; the first one writes.
    Raises TrainingError where the loss is no longer a number (the last good checkpoint is kept), and
    CheckpointError where the checkpoint in `out` belongs to another recipe or seed.
    """
    from tqdm.auto import tqdm

    check_seed(seed)
    device = next(model.parameters()).device
    train, val = volumes.train.to(device), volumes.val.to(device)
    distributed.check_shares(min(recipe.batch_size, len(train)))
    optimiser = make_optimiser(model, recipe)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema)) if recipe.ema else None
    state = TrainingState(model, optimiser, averaged, History(), asdict(recipe), seed)
    done = load_checkpoint(out, state) if resume else 0
    step_model = distributed.synchronised(model)
    step_model = torch.compile(step_model) if recipe.compile else step_model
    progress = progress and distributed.is_first()
    bar = tqdm(total=recipe.epochs, initial=done, desc="training", unit="epoch", disable=not progress)
    with bar, distributed.watch(out), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for epoch in range(done, recipe.epochs):
            start = time.perf_counter()
            loss = train_epoch(step_model, train, volumes, recipe, optimiser, averaged, seed=seed, epoch=epoch)
            if not math.isfinite(loss):
                raise TrainingError(nan_message(epoch, loss, recipe, out))
            scores = evaluate(averaged or model, val)
            row = {"epoch": epoch + 1, "lr": optimiser.param_groups[0]["lr"], "loss": loss}
            row |= {f"val_{name}": value for name, value in asdict(scores).items()}
            state.history.rows.append(row | {"seconds": time.perf_counter() - start})
            if out is not None and distributed.is_first():
                save_checkpoint(out, state, epoch + 1)
            bar.set_postfix(loss=f"{loss:.3f}", val_acc=f"{scores.acc:.3f}", val_auc=f"{scores.auc:.3f}")
            bar.update()
    if averaged is not None:
        model.load_state_dict(averaged.module.state_dict())
    return state.history


@dataclass
class TrainingState:
    """What a checkpoint holds: the things that change in training, and what they belong to."""

    model: torch.nn.Module
    optimiser: torch.optim.Optimizer
    averaged: AveragedModel | None
    history: History
    recipe: dict
    seed: int

    @staticmethod
    def complete(recipe):
        """A recipe as it was saved, with the defaults of those fields that it did not have yet."""
        return asdict(Recipe.from_dict(recipe))


def train_epoch(model, train, volumes, recipe, optimiser, averaged, *, seed, epoch):
    """One pass over the training clips; returns the mean loss. Nothing waits for the device before the end."""
    device, classes = train.clips.device, len(volumes.class_names)
    # dropout and stochastic depth draw from torch's own generator, in each process other numbers
    torch.manual_seed(epoch_seed(seed, epoch) + distributed.rank() * 1_000_000_007)
    generator = torch.Generator().manual_seed(epoch_seed(seed, epoch))
    order = torch.randperm(len(train), generator=generator).to(device)
    steps = steps_per_epoch(len(train), recipe)
    augmentation = replace(recipe.augmentation, film=recipe.augmentation.film or volumes.film)
    total = torch.zeros((), device=device)
    model.train()
    for step in range(steps):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        clips, targets = augment_batch(  # float [B, C, T, H, W] in [0, 1], soft labels [B, K]
            augmentation, train.clips[batch], train.labels[batch], classes, volumes.mirror, generator
        )
        clips, targets = distributed.share(clips), distributed.share(targets)  # all of them in a single process
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, epoch * steps + step, recipe.epochs * steps)
        with mixed_precision(device, on_cpu=recipe.bfloat16):
            loss = F.cross_entropy(model(clips), targets)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        if averaged is not None:
            averaged.update_parameters(model)
        total += loss.detach()
    return float(distributed.mean(total / steps))


def learning_rate(recipe, step, total):
    """The learning rate of a step: a linear warm-up to recipe.lr, then half a cosine down to 0."""
    warmup = recipe.warmup * total
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def make_optimiser(model, recipe):
    """The recipe's optimiser; weight decay on matrices and filters only, not on biases, norms, positions and cls tokens."""
    turned = encoder_matrices(model) if recipe.optimiser == "muon" else set()
    matrices, decayed, rest = [], [], []
    for name, p in model.named_parameters():
        decays = p.ndim > 1 and not name.endswith(("positions", "cls"))
        (matrices if name in turned else decayed if decays else rest).append(p)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=recipe.lr, fused=True)
    return Together(Muon(matrices, lr=recipe.lr, weight_decay=recipe.weight_decay), adamw) if turned else adamw


def steps_per_epoch(clips, recipe):
    """Whole batches only: the clips left over, others in every epoch, are skipped. At least one."""
    return max(1, clips // recipe.batch_size)


def epoch_seed(seed, epoch):
    """A seed for this epoch of this run; another for every pair."""
    return seed * 100_003 + epoch


def mixed_precision(device, *, on_cpu=False):
    """bfloat16 where the device computes faster in it: on a GPU, and on a CPU where that is asked for."""
    wanted = device.type == "cuda" or device.type == "cpu" and on_cpu
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


@torch.no_grad()
def predict_logits(model, split, *, batch_size=128, predict=None):
    """The logits [N, K] of all clips of a split, float32 on the CPU.

    predict: (model, clips float [B, C, T, H, W] in [0, 1]) -> logits [B, K], for averages over views; by default
    the model itself.
    """
    device = next(model.parameters()).device
    model.eval()
    logits = []
    for clips in split.clips.split(batch_size):
        with mixed_precision(device):
            clips = clips.to(device).float() / 255
            logits.append((predict(model, clips) if predict else model(clips)).float())
    return torch.cat(logits).cpu()


def evaluate(model, split, *, batch_size=128):
    """Metrics of a model on a split."""
    return score(predict_logits(model, split, batch_size=batch_size), split.labels.cpu())


def score(logits, labels):
    """Metrics from logits [N, K] and labels int64 [N], defined as medmnist's getACC and getAUC define them.

    The AUC of more than two classes is the mean of each class against the rest; a class that the labels do
    not hold has no AUC and is left out of the mean. Raises TrainingError where a logit is no finite number.
    """
    if not logits.isfinite().all():
        raise TrainingError(
            "the model's logits are not all finite numbers: its weights went astray in training, or were damaged since; "
            "train with a lower lr, or with a smaller clip_norm"
        )
    from sklearn.metrics import roc_auc_score

    probabilities, labels = logits.softmax(dim=1), labels.long()
    hits = probabilities.argmax(dim=1) == labels
    present = labels.unique()
    recalls = torch.stack([hits[labels == k].float().mean() for k in present])
    if logits.shape[1] == 2:
        ranked = [1]  # the second class against the first: one curve, not two mirrored ones
    else:
        ranked = present.tolist()
    curves = [roc_auc_score(labels == k, probabilities[:, k]) for k in ranked if 0 < (labels == k).sum() < len(labels)]
    auc = sum(curves) / len(curves) if curves else float("nan")
    return Metrics(acc=hits.float().mean().item(), balanced_acc=recalls.mean().item(), auc=float(auc))


def nan_message(epoch, loss, recipe, out):
    kept = f"; the checkpoint after epoch {epoch} is kept in {out}" if out is not None and epoch else ""
    return (
        f"the training loss of epoch {epoch + 1} is {loss}{kept}. The step was too large or the clips are damaged: "
        f"train with a lower lr (it was {recipe.lr}), or with a smaller clip_norm (it was {recipe.clip_norm})"
    )
