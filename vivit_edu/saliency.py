"""Maps that ask the logit of a class: gradient-weighted relevance, occlusion, input gradient.

Attention weights and rollout are the same whichever class one asks for; these are not. Chapter 13 builds them.
"""

import torch
from einops import rearrange, reduce

from .embedding import fit_to_grid
from .errors import ConfigError
from .explain import check_vivit, follow, last_layer, read_rows, recorded_attention, rollout, sort_record, to_voxels


def relevance(model, clips, classes=None):
    """Gradient-weighted attention: how much each token speaks for a class, [B, T', S], not negative, summing to 1.

    Per layer, R ← R + mean over heads of (∇A ⊙ A)⁺ R, where ∇A is the gradient of the class's logit
    (Chefer et al., ICCV 2021, equations 5 and 6). R is read as rollout reads it. Where the model averages
    tokens, the identity that R starts from is taken off again: it says the same of every token.

    clips: float [B, C, T, H, W] in [0, 1]; classes: int [B], by default those predicted. Where no attention
    speaks for the class, the clip's map is zero.
    """
    check_vivit(model)
    model.eval()
    clips = clips.detach().requires_grad_()  # so that gradients flow even where all weights are frozen
    with torch.enable_grad(), recorded_attention(model) as record:
        logits = model(clips)
        gradients = torch.autograd.grad(take(logits, chosen(logits, classes)).sum(), record)
    products = [(gradient * weights).clamp(min=0).detach() for gradient, weights in zip(gradients, record)]
    scores = follow(model, sort_record(model, products, len(clips)), parts=(1.0, 1.0), read=read_rows)
    if model.config.pool == "mean":
        scores = (scores - 1 / scores[0].numel()).clamp(min=0)
    return scores / reduce(scores, "b t s -> b 1 1", "sum").clamp(min=1e-12)


def input_gradient(model, clips, classes=None):
    """What the gradient foretells of occlusion: Σ ∂logit/∂x · (x - grey) over each tubelet, [B, T', S], signed.

    grey is the mean voxel of the clip, what `occlusion` puts in a tubelet's place. One backward pass gives
    all tubelets at once, but only as far as the model is a straight line between x and grey.
    Arguments as in `relevance`.
    """
    check_vivit(model)
    model.eval()
    clips = clips.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(clips)
        (gradient,) = torch.autograd.grad(take(logits, chosen(logits, classes)).sum(), clips)
    change = (gradient * (clips - grey(clips))).detach()
    (t, h, w), grid = model.embedding.tubelet, model.embedding.grid
    whole = fit_to_grid(change, grid, (t, h, w))  # [B, C, n_t·t, n_h·h, n_w·w]
    return reduce(whole, "b c (i t) (j h) (k w) -> b i (j k)", "sum", t=t, h=h, w=w)


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


METHODS = {
    "last layer": last_layer,
    "rollout": rollout,
    "relevance": relevance,
    "input gradient": input_gradient,
    "occlusion": occlusion,
}


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
    if classes.shape != logits.shape[:1] or classes.is_floating_point() or not 0 <= classes.min() <= classes.max() < logits.shape[1]:
        raise ConfigError(
            f"classes {classes.tolist()} were given for {len(logits)} clips: give one class a clip, "
            f"a whole number from 0 to {logits.shape[1] - 1}"
        )
    return classes.long()


def take(logits, classes):
    """Of each clip's class: logits [B, …, K] -> [B, …]."""
    return logits[torch.arange(len(logits), device=logits.device), ..., classes.to(logits.device)]
