"""Pretraining without labels: an image transformer learns from slices to fill in the patches that it does not see.

The offline stand-in for ImageNet weights in chapter 10. Half of a slice's patches are replaced by one learned
vector, and the transformer predicts their voxels from the rest (masked image modelling: Xie et al. 2022, SimMIM;
He et al. 2022, MAE). Only the training volumes are read, so no patient of the other splits, and no label.
"""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..embedding import fit_to_grid
from ..errors import ConfigError, DataError, TrainingError
from ..models import build_model, is_vivit
from ..support.files import check_regular, check_space, shown, what_is, written_whole
from ..support.locks import alone
from ..support.options import check_seed, check_whole
from ..training import Recipe, learning_rate, make_optimiser
from ..vivit import ViViT, ViViTConfig
from ..weights.layouts import TIMM

if TYPE_CHECKING:
    from ..volumes import Volumes

SLICES = 128  # of a batch
MASKED = 0.5  # share of the patches that are hidden
SLICE_EPOCHS = 20
TASK = "masked patches of slices"  # stands in the files that we write, and tells them from others
GAIN = 0.2  # slices brighten and darken as much as training's clips do


class MaskedSlices(nn.Module):
    """An image transformer that fills in hidden patches.

    It is Model 1 on clips of a single frame, which is an image transformer. `decoder` turns what stands at a
    hidden patch into its voxels; it and the head are not kept.
    shape: of a slice, (C, H, W). tubelet: (t, h, w), of which h×w is a patch. options: of `build_model`.
    forward: slices float [B, C, H, W], hidden bool [B, S] -> the hidden patches, predicted and true, [n, C·h·w] each.
    """

    def __init__(self, shape: Sequence[int], tubelet: Sequence[int], options: dict[str, object]):
        super().__init__()
        channels, height, width = shape
        _, *self.patch = tubelet
        self.image_model = build_model(
            "spacetime",
            clip_shape=(channels, 1, height, width),
            tokenizer="frames",
            tubelet=(1, *self.patch),
            **options,
        )
        dim = self.image_model.config.dim
        self.hidden_token = nn.Parameter(torch.zeros(dim))
        self.decoder = nn.Linear(dim, channels * math.prod(self.patch))

    def forward(self, slices: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        model, (h, w) = self.image_model, self.patch
        clips = slices.unsqueeze(2)  # [B, C, 1, H, W]
        z = model.embedding(clips)[:, 0]  # [B, S, D]: one frame
        z = torch.where(hidden.unsqueeze(2), self.hidden_token, z)
        z = model.encoder(z + model.positions)
        tiled = fit_to_grid(clips, model.embedding.grid, (1, h, w))[:, :, 0]
        patches = rearrange(tiled, "b c (n_h h) (n_w w) -> b (n_h n_w) (c h w)", h=h, w=w)
        return self.decoder(z[hidden]), patches[hidden]


def pretrain(
    volumes: Volumes,
    recipe: Recipe | None = None,
    *,
    epochs: int = SLICE_EPOCHS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    """Trains an image transformer on slices of `volumes.train` and returns its weights under timm's names.

    recipe: of the models that will start from it, for their dim, depth, heads, mlp_dim and patch size (default:
        the preset "quick"). epochs: passes in each of which every volume gives as many slices as it has tubelets in
        time. progress: whether to show a bar.
    Returns a state dict for `load_pretrained`, without cls token and head. The same seed gives the same weights.
    Raises ConfigError where patches do not tile the slices, TrainingError where the loss is no longer a number.
    """
    recipe = recipe or Recipe.preset("quick")
    return trained(masked_slices(volumes, recipe, seed), volumes, recipe, epochs, seed, device, progress)


def masked_slices(volumes: Volumes, recipe: Recipe, seed: int) -> MaskedSlices:
    """A `MaskedSlices` for the slices of these volumes, its weights drawn with this seed.

    Raises ConfigError where the recipe is not of a ViViT, and where its patches do not tile the slices.
    """
    check_seed(seed)
    tubelet, options = image_options(recipe)
    channels, _, *size = volumes.train.clips.shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedSlices((channels, *size), tubelet, options)


def trained(
    model: MaskedSlices,
    volumes: Volumes,
    recipe: Recipe,
    epochs: int,
    seed: int,
    device: torch.device | str,
    progress: bool = True,
) -> dict[str, torch.Tensor]:
    """The weights of a model from `masked_slices` after so many epochs, under timm's names."""
    check_whole("epochs", epochs, 1)
    clips, (t, *_) = volumes.train.clips.to(device), image_options(recipe)[0]
    steps = epochs * max(1, len(clips) * max(1, clips.shape[2] // t) // SLICES)
    train_masked(model.to(device), clips, steps=steps, seed=seed, progress=progress)
    return timm_names(model.image_model)


def train_masked(model: MaskedSlices, clips: torch.Tensor, *, steps: int, seed: int, progress: bool = True) -> None:
    """Takes `steps` steps of AdamW on slices of clips uint8 [N, C, T, H, W], half of their patches hidden, in place."""
    from tqdm.auto import tqdm

    generator, places = torch.Generator().manual_seed(seed), math.prod(model.image_model.grid)
    schedule = Recipe(lr=1e-3)
    optimiser = make_optimiser(model, schedule)
    with tqdm(total=steps, desc="pretraining on slices", unit="step", disable=not progress) as bar:
        for step in range(steps):
            hidden = torch.rand(SLICES, places, generator=generator) < MASKED
            slices = draw_slices(clips, generator)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(schedule, step, steps)
            predicted, true = model(slices, hidden.to(clips.device))
            loss = F.mse_loss(predicted, true)
            if not loss.isfinite():
                raise TrainingError(
                    f"the loss of step {step + 1} of pretraining is {loss.item()}: are the clips damaged?"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_norm)
            optimiser.step()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            bar.update()


def image_options(recipe: Recipe) -> tuple[tuple[int, int, int], dict[str, object]]:
    """(tubelet, the options that an image transformer shares with the models of a recipe).

    Raises ConfigError where the recipe's model is not a ViViT, which has no tubelets.
    """
    if not is_vivit(recipe.model):
        raise ConfigError(
            f"an image transformer becomes a ViViT, and the recipe's model is {recipe.model}: take one of Models 1 to 4"
        )
    config = ViViTConfig(**recipe.options)
    shared = ("dim", "depth", "heads", "mlp_dim", "activation", "remainder")
    return config.tubelet, {name: getattr(config, name) for name in shared}


def draw_slices(clips: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draws SLICES slices from uint8 clips [N, C, T, H, W], each with its own gain: float [B, C, H, W] in [0, 1]."""
    which, where = (torch.randint(size, (SLICES,), generator=generator) for size in (len(clips), clips.shape[2]))
    gain = 1 + GAIN * (2 * torch.rand(SLICES, 1, 1, 1, generator=generator) - 1)
    return (clips[which, :, where].float() / 255 * gain.to(clips.device)).clamp(0, 1)


def timm_names(model: ViViT) -> dict[str, torch.Tensor]:
    """A one-frame Model 1's weights under the names that timm has for an image transformer, without the head."""
    theirs = {ours: name for name, ours in TIMM.table.items()}
    state = {}
    for name, tensor in model.state_dict().items():
        stem, leaf = re.fullmatch(r"(.*?)(\.weight|\.bias)?", name).groups()
        number = re.search(r"(?<=blocks\.)\d+", stem)
        key = theirs[re.sub(r"(?<=blocks\.)\d+", "*", stem)]
        if key != "head":
            state[key.replace("*", number[0] if number else "*") + (leaf or "")] = tensor.detach().cpu().clone()
    return state


def save_weights(state: dict[str, torch.Tensor], path: Path | str, model: ViViT, **about: object) -> None:
    """Writes weights as `.safetensors`, whole or not at all, and in the same file what their tensors do not show.

    model: the image transformer; its heads, activation, image and patch size are written under Hugging Face's
    names. about: more of what should be known of them. Raises ConfigError where the file cannot be written.
    """
    from safetensors.torch import save

    config, grid = model.config, model.embedding.grid
    stated = {
        "num_attention_heads": config.heads,
        "hidden_act": {"gelu_tanh": "gelu_pytorch_tanh"}.get(config.activation, config.activation),
        "image_size": json.dumps([n * step for n, step in zip(grid[1:], config.tubelet[1:])]),  # padded or cropped
        "patch_size": json.dumps(config.tubelet[1:]),
    }
    content = save(state, metadata={name: str(value) for name, value in {**stated, **about}.items()})
    try:
        with written_whole(path) as file:
            file.write(content)
    except DataError as error:
        raise ConfigError(cannot_be_written(path, error.__cause__ or error)) from error


def check_can_be_written(path: Path | str) -> None:
    """Finds out before hours of training that their result could not be written.

    Raises ConfigError for a name that does not end in .safetensors, for a folder, for a file that is not ours, and
    where no file can be made.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConfigError(f"weights are written as .safetensors, got {path.name!r}: name the file FILE.safetensors")
    if os.path.lexists(path) and not is_ours(path):
        there = f"there is {what_is(path)} of this name that pretraining did not write"
        raise ConfigError(cannot_be_written(path, there))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ConfigError(cannot_be_written(path, error)) from error


def is_ours(path: Path) -> bool:
    """Whether there is a file of weights that `pretrain_to` wrote, which may be written anew."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("task") == TASK
    except (OSError, DataError, SafetensorError):
        return False


def cannot_be_written(path: Path | str, why: object) -> str:
    """The message for a file of weights that cannot be written."""
    why = getattr(why, "strerror", None) or why
    return f"the weights cannot be written to {shown(path)} ({why}): choose another file with --out"


def pretrain_to(
    path: Path | str,
    volumes: Volumes,
    recipe: Recipe | None = None,
    *,
    epochs: int = SLICE_EPOCHS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Path | str:
    """`pretrain`, its weights written to a `.safetensors` file; returns the path.

    What cannot be built and a file that cannot be written are refused before training, and so is one that another
    process is about to write. Raises ConfigError and, as `pretrain` does, TrainingError.
    """
    recipe = recipe or Recipe.preset("quick")
    model = masked_slices(volumes, recipe, seed)
    check_can_be_written(path)
    check_space(Path(path).parent, 4 * sum(p.numel() for p in model.image_model.parameters()))
    with alone(Path(path).with_name(f".{Path(path).name}.lock"), path):
        state = trained(model, volumes, recipe, epochs, seed, device)
        about = {"dataset": volumes.name, "epochs": epochs, "seed": seed, "task": TASK}
        save_weights(state, path, model.image_model, **about)
    return path
