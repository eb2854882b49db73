"""Occlusion: tubelets turned grey, and what that does to the logit of a class. Chapter 13 builds this by hand."""

import torch
from einops import rearrange, reduce

from ..errors import ConfigError
from .rollout import to_voxels
from .weights import check_vivit


@torch.no_grad()
def occlusion(model, clips, classes=None, *, batch_size=128, progress=True):
    """How much the class's logit falls when a tubelet turns grey: [B, T', S], negative where it rises.

    As many passes as there are tubelets, so this measures what the others estimate. Arguments as in `relevance`.
    """
    check_vivit(model)
    n_t, s = model.grid
    keep = ~torch.eye(n_t * s, dtype=torch.bool).unflatten(1, (n_t, s))  # [N, T', S]: one tubelet missing in each
    keep = keep.expand(len(clips), -1, -1, -1)
    model.eval()
    whole = model(clips)
    classes = chosen(whole, classes)
    logits = masked_logits(model, clips, keep, batch_size=batch_size, progress=progress, title="occlusion")  # [B, N, K]
    drop = take(whole, classes)[:, None] - take(logits, classes)
    return rearrange(drop, "b (t s) -> b t s", t=n_t)


# ---- clips of which some tubelets are grey


@torch.no_grad()
def masked_logits(model, clips, keep, *, batch_size=128, progress=True, title="masked passes"):
    """The logits of each clip with only some of its tubelets, the others grey: [B, M, K].

    clips: float [B, C, T, H, W]; keep: bool [B, M, T', S], M selections for each clip. M passes a clip,
    `batch_size` at a time.
    """
    from tqdm.auto import tqdm

    model.eval()
    rows = [(b, part) for b in range(len(clips)) for part in torch.arange(keep.shape[1]).split(batch_size)]
    logits = []
    for b, part in tqdm(rows, desc=title, unit="batch", disable=not progress):
        logits.append(model(cover(model, clips[b : b + 1], keep[b, part].to(clips.device))))
    return torch.cat(logits).unflatten(0, (len(clips), keep.shape[1]))


def cover(model, clips, keep):
    """The clips with every tubelet grey that `keep` [B, T', S] does not name. clips [B or 1, C, T, H, W]."""
    seen = to_voxels(model, keep.float())[:, None] > 0  # [B, 1, T, H, W]
    return torch.where(seen, clips, grey(clips))


def grey(clips):
    """Each clip's mean voxel, a value a channel: [B, C, 1, 1, 1]."""
    return reduce(clips, "b c t h w -> b c 1 1 1", "mean")


def chosen(logits, classes=None):
    """The class asked for in each clip, by default the predicted one: int64 [B] beside the logits [B, K]."""
    if classes is None:
        return logits.argmax(dim=1)
    classes = torch.as_tensor(classes, device=logits.device)
    if (
        classes.shape != logits.shape[:1]
        or classes.is_floating_point()
        or not 0 <= classes.min() <= classes.max() < logits.shape[1]
    ):
        raise ConfigError(
            f"classes {classes.tolist()} were given for {len(logits)} clips: give one class a clip, "
            f"a whole number from 0 to {logits.shape[1] - 1}"
        )
    return classes.long()


def take(logits, classes):
    """Of each clip's class: logits [B, …, K] -> [B, …]."""
    return logits[torch.arange(len(logits), device=logits.device), ..., classes.to(logits.device)]
