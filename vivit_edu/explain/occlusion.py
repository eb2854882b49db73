"""Occlusion: tubelets turned grey, and what that does to the logit of a class. Chapter 13 builds this by hand."""

from collections.abc import Sequence

import torch
from einops import rearrange, reduce
from torch import nn

from ..errors import ConfigError
from ..support.options import check_whole
from .rollout import to_voxels
from .weights import check_vivit, widen


@torch.no_grad()
def occlusion(
    model: nn.Module,
    clips: torch.Tensor,
    classes: Sequence[int] | torch.Tensor | None = None,
    *,
    batch_size: int = 128,
    progress: bool = True,
) -> torch.Tensor:
    """How much the class's logit falls when a tubelet turns grey: [B, nt, S], negative if it rises.

    There are as many passes as tubelets, so this measures what the others estimate. batch_size: clips per pass.
    Other arguments and errors as in `relevance`.
    """
    model = check_vivit(model, clips)
    n_t, s = model.grid
    keep = ~torch.eye(n_t * s, dtype=torch.bool).unflatten(1, (n_t, s))  # [N, nt, S]: one tubelet missing in each
    keep = keep.expand(len(clips), -1, -1, -1)
    model.eval()
    whole = model(clips)
    classes = chosen(whole, classes)
    logits = masked_logits(model, clips, keep, batch_size=batch_size, progress=progress, title="occlusion")  # [B, N, K]
    drop = widen(take(whole, classes))[:, None] - widen(take(logits, classes))
    return rearrange(drop, "b (t s) -> b t s", t=n_t)


# ---- clips of which some tubelets are grey


@torch.no_grad()
def masked_logits(
    model: nn.Module,
    clips: torch.Tensor,
    keep: torch.Tensor,
    *,
    batch_size: int = 128,
    progress: bool = True,
    title: str = "masked passes",
) -> torch.Tensor:
    """The logits of each clip with only some of its tubelets, the others grey: [B, M, K].

    clips: float [B, C, T, H, W]; keep: bool [B, M, nt, S], M selections for each clip. Each clip takes M passes,
    `batch_size` at a time. Raises ConfigError if `keep` does not fit the clips or the model's grid.
    """
    from tqdm.auto import tqdm

    model = check_vivit(model, clips)
    check_whole("batch_size", batch_size, 1)
    if keep.ndim != 4 or len(keep) != len(clips) or keep.shape[1] < 1 or tuple(keep.shape[2:]) != model.grid:
        n_t, s = model.grid
        raise ConfigError(
            f"keep has the shape {list(keep.shape)}, expected [B, M, nt, S] = [{len(clips)}, 1 or more, {n_t}, {s}]"
        )
    model.eval()
    rows = [(b, part) for b in range(len(clips)) for part in torch.arange(keep.shape[1]).split(batch_size)]
    logits = []
    for b, part in tqdm(rows, desc=title, unit="batch", disable=not progress):
        logits.append(model(cover(model, clips[b : b + 1], keep[b, part].to(clips.device))))
    return torch.cat(logits).unflatten(0, (len(clips), keep.shape[1]))


def cover(model: nn.Module, clips: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """The clips with every tubelet grey that `keep` [B, nt, S] does not name. clips [B or 1, C, T, H, W]."""
    seen = to_voxels(model, keep.float())[:, None] > 0  # [B, 1, T, H, W]
    return torch.where(seen, clips, grey(clips))


def grey(clips: torch.Tensor) -> torch.Tensor:
    """Each clip's mean voxel, one value per channel: [B, C, 1, 1, 1]."""
    return reduce(clips, "b c t h w -> b c 1 1 1", "mean")


def chosen(logits: torch.Tensor, classes: Sequence[int] | torch.Tensor | None = None) -> torch.Tensor:
    """The class asked for in each clip, by default the predicted one: int64 [B], for logits [B, K].

    Raises ConfigError if the classes are not B whole numbers from 0 to K - 1.
    """
    if classes is None:
        return logits.argmax(dim=1)
    classes = torch.as_tensor(classes, device=logits.device)
    if (
        classes.shape != logits.shape[:1]
        or classes.is_floating_point()
        or not 0 <= classes.min() <= classes.max() < logits.shape[1]
    ):
        raise ConfigError(
            f"classes {classes.tolist()} were given for {len(logits)} clips: give one class per clip, "
            f"a whole number from 0 to {logits.shape[1] - 1}"
        )
    return (
        classes.long().clone()
    )  # made under torch.inference_mode, the original could not take part in a backward pass


def take(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The logit of each clip's class: logits [B, …, K], classes [B] -> [B, …]."""
    return logits[torch.arange(len(logits), device=logits.device), ..., classes.to(logits.device)]
