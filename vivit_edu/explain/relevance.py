"""Maps from the gradient of a class's logit: relevance and input gradient. Chapter 13 builds them by hand.

Attention weights and rollout are the same whichever class you ask for; these are not.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from einops import reduce
from torch import nn

from ..embedding import fit_to_grid
from ..errors import ConfigError
from ..vivit import ViViT
from .occlusion import chosen, grey, take
from .rollout import follow, read_rows
from .weights import check_vivit, recorded_attention, sort_record, widen


def relevance(
    model: nn.Module, clips: torch.Tensor, classes: Sequence[int] | torch.Tensor | None = None
) -> torch.Tensor:
    """Gradient-weighted attention: how much each token speaks for a class, [B, nt, S], not negative, summing to 1.

    Per layer, R ← R + mean over heads of (∇A ⊙ A)⁺ R, where ∇A is the gradient of the class's logit
    (Chefer et al., ICCV 2021, equations 5 and 6). R is read as rollout reads it. If the model averages
    tokens, the identity that R starts from is taken off again, because it adds the same to every token.

    clips: float [B, C, T, H, W] in [0, 1]; classes: int [B], by default those predicted. If no attention
    speaks for the class, the clip's map is zero. Raises ConfigError if the model is not a ViViT, if there are no
    clips, if a class does not exist, and if the model cannot give gradients.
    """
    model = check_vivit(model, clips)
    with differentiable(model, clips) as clips, recorded_attention(model) as record:
        logits = model(clips)
        gradients = torch.autograd.grad(take(logits, chosen(logits, classes)).sum(), record)
        products = [(widen(gradient) * widen(w)).clamp(min=0).detach() for gradient, w in zip(gradients, record)]
        scores = follow(model, sort_record(model, products, len(clips)), parts=(1.0, 1.0), read=read_rows)
    if model.config.pool == "mean":
        scores = (scores - 1 / scores[0].numel()).clamp(min=0)
    return scores / reduce(scores, "b t s -> b 1 1", "sum").clamp(min=1e-12)


def input_gradient(
    model: nn.Module, clips: torch.Tensor, classes: Sequence[int] | torch.Tensor | None = None
) -> torch.Tensor:
    """What the gradient predicts for occlusion: Σ ∂logit/∂x · (x - grey) over each tubelet, [B, nt, S], signed.

    grey is the mean voxel of the clip, which `occlusion` puts in a tubelet's place. One backward pass gives
    all tubelets at once, but only as far as the model is a straight line between x and grey.
    Arguments and errors as in `relevance`.
    """
    model = check_vivit(model, clips)
    with differentiable(model, clips) as clips:
        logits = model(clips)
        (gradient,) = torch.autograd.grad(take(logits, chosen(logits, classes)).sum(), clips)
        change = (widen(gradient) * widen(clips - grey(clips))).detach()
    (t, h, w), grid = model.embedding.tubelet, model.embedding.grid
    whole = fit_to_grid(change, grid, (t, h, w))  # [B, C, n_t·t, n_h·h, n_w·w]
    return reduce(whole, "b c (i t) (j h) (k w) -> b i (j k)", "sum", t=t, h=h, w=w)


@contextmanager
def differentiable(model: ViViT, clips: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the clips as a tensor that gradients reach, whatever mode torch is in and whatever weights are frozen.

    The model is put in evaluation mode.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ConfigError(
            "this model was built under torch.inference_mode, so it cannot give gradients: build it outside, "
            "or give copy.deepcopy(model), made outside"
        )
    model.eval()
    with torch.inference_mode(False), torch.enable_grad():
        yield clips.detach().clone().requires_grad_()
