"""Pretraining without labels: an image transformer learns from slices to fill in the patches that it does not see.

The offline stand-in for ImageNet weights in chapter 10. Half of a slice's patches are replaced by one learned
vector, and the transformer predicts their voxels from the rest (masked image modelling: Xie et al. 2022, SimMIM;
He et al. 2022, MAE). Only the training volumes are read, so no patient of the other splits, and no label.
"""

import math
import os
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..errors import ConfigError, TrainingError
from ..models import build_model
from ..support.options import check_seed, check_whole
from ..training import Recipe, learning_rate, make_optimiser
from ..vivit import ViViTConfig
from ..weights.layouts import TIMM

SLICES = 128  # of a batch
MASKED = 0.5  # share of the patches that are hidden
EPOCHS = 20
GAIN = 0.2  # slices brighten and darken as much as training's clips do


class MaskedSlices(nn.Module):
    """An image transformer that fills in hidden patches.

    It is Model 1 on clips of a single frame, which is an image transformer. `decoder` turns what stands at a
    hidden patch into its voxels; it and the head are not kept.
    forward: slices float [B, C, H, W], hidden bool [B, S] -> the hidden patches, predicted and true, [n, C·h·w] each.
    """

    def __init__(self, shape, tubelet, options):
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

    def forward(self, slices, hidden):
        model, (h, w) = self.image_model, self.patch
        z = model.embedding(slices.unsqueeze(2))[:, 0]  # [B, S, D]: one frame
        z = torch.where(hidden.unsqueeze(2), self.hidden_token, z)
        z = model.encoder(z + model.positions)
        patches = rearrange(slices, "b c (n_h h) (n_w w) -> b (n_h n_w) (c h w)", h=h, w=w)
        return self.decoder(z[hidden]), patches[hidden]


def pretrain(volumes, recipe=None, *, epochs=EPOCHS, seed=0, device="cpu", progress=True):
    """Trains an image transformer on slices of `volumes.train` and returns its weights under timm's names.

    recipe: of the models that shall start from it, for their dim, depth, heads, mlp_dim and patch size (default:
        the preset "quick"). epochs: passes in each of which every volume gives as many slices as it has patches in time.
    Returns a state dict for `load_pretrained`, without cls token and head. The same seed gives the same weights.
    Raises ConfigError where patches do not tile the slices, TrainingError where the loss is no longer a number.
    """
    recipe = recipe or Recipe.preset("quick")
    check_whole("epochs", epochs, 1)
    check_seed(seed)
    clips = volumes.train.clips.to(device)
    tubelet, options = image_options(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedSlices((clips.shape[1], *clips.shape[3:]), tubelet, options).to(device)
    steps = epochs * max(1, len(clips) * (clips.shape[2] // tubelet[0]) // SLICES)
    train_masked(model, clips, steps=steps, seed=seed, progress=progress)
    return timm_names(model.image_model)


def train_masked(model, clips, *, steps, seed, progress=True):
    """`steps` steps of AdamW on slices of clips uint8 [N, C, T, H, W], half of their patches hidden; in place."""
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


def image_options(recipe):
    """(tubelet, the options that an image transformer shares with the models of a recipe)."""
    config = ViViTConfig(**recipe.options)
    shared = ("dim", "depth", "heads", "mlp_dim", "activation")
    return config.tubelet, {name: getattr(config, name) for name in shared}


def draw_slices(clips, generator):
    """SLICES slices at random from uint8 clips [N, C, T, H, W], each with a gain: float [B, C, H, W]."""
    which, where = (torch.randint(size, (SLICES,), generator=generator) for size in (len(clips), clips.shape[2]))
    gain = 1 + GAIN * (2 * torch.rand(SLICES, 1, 1, 1, generator=generator) - 1)
    return (clips[which, :, where].float() / 255 * gain.to(clips.device)).clamp(0, 1)


def timm_names(model):
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


def save_weights(state, path, *, heads, **about):
    """Writes weights as `.safetensors`, whole or not at all, with their number of heads and what they are about."""
    from safetensors.torch import save_file

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    texts = {name: str(value) for name, value in {"num_attention_heads": heads, **about}.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, partial, metadata=texts)
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(
            f"the weights cannot be written to {path} ({error}): choose another file with --out"
        ) from error


def pretrain_to(path, volumes, recipe=None, *, epochs=EPOCHS, seed=0, device="cpu"):
    """`pretrain`, its weights written to a `.safetensors` file; returns the path."""
    recipe = recipe or Recipe.preset("quick")
    if Path(path).suffix != ".safetensors":  # said before minutes of training, not after
        raise ConfigError(
            f"weights are written as .safetensors, got {Path(path).name!r}: name the file FILE.safetensors"
        )
    state = pretrain(volumes, recipe, epochs=epochs, seed=seed, device=device)
    heads = image_options(recipe)[1]["heads"]
    save_weights(
        state, path, heads=heads, dataset=volumes.name, epochs=epochs, seed=seed, task="masked patches of slices"
    )
    return path
