"""Checks of chapter 05: the cls token, the encoder block, positions that are a sum over time and space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn

from . import CheckFailed, call, close, drawn, exercise, learns, passed


@exercise
def check_prepend_cls(prepend_cls: Callable) -> None:
    """Exercise 05.1: prepend_cls(tokens [B, N, D], cls [1, 1, D]) -> [B, 1 + N, D], the cls token first in each
    clip."""
    tokens = drawn(3, 4, 5)
    cls = nn.Parameter(drawn(1, 1, 5, seed=1))
    copies = cls.detach().repeat(3, 1, 1)  # [B, 1, D]
    expected = torch.cat((copies, tokens), dim=1)
    overwritten, first_clip, nothing = expected[:, :4].clone(), expected.clone(), expected.clone()
    overwritten[:, 1:] = tokens[:, 1:]
    first_clip[1:, 0] = nothing[:, 0] = 0
    try:
        found = call(prepend_cls, tokens, cls)
    except CheckFailed as failed:
        if "must match" in str(failed) or "must have the same" in str(failed):
            raise CheckFailed(
                f"{failed}; cls is [1, 1, D] for all clips together: give each of the B clips a copy "
                "(expand), then join them along the axis of tokens, dim=1"
            ) from None
        raise
    close(
        found,
        expected,
        {
            "the cls token stands last: it belongs before the others, at index 0, where the "
            "read-out looks for it": torch.cat((tokens, copies), dim=1),
            "the first token was overwritten: the cls token is one more, so N tokens become N + 1": overwritten,
            "cls was added to every token: it is a token of its own, joined along the axis of tokens": tokens + copies,
            "only the first clip has a cls token: every clip needs one": first_clip,
            "the new token is all zeros: it must be the `cls` that was given, which the model learns": nothing,
            "cls was joined along the axis of features: tokens are joined along dim=1": lambda: torch.cat(
                (copies.expand(-1, 4, -1), tokens), dim=2
            ),
        },
        what="the sequence",
    )
    if not found.requires_grad:
        raise CheckFailed(
            "no gradient reaches cls: the values are right, but it was detached (.data, .detach(), "
            "torch.tensor(...), no_grad), so it would never learn"
        )
    found.sum().backward()
    if cls.grad is None or not torch.allclose(cls.grad, torch.full_like(cls, 3.0)):
        raise CheckFailed("the gradient of cls is not the sum over the 3 clips: each clip must hold the same parameter")
    passed("05.1", "each clip has its cls token in front, and all of them share one parameter.")


@exercise
def check_encoder_block(encoder_block: Callable) -> None:
    """Exercise 05.2: encoder_block(z, norm_attention, attention, norm_mlp, mlp) -> [B, N, D], held against
    torch's layer."""
    torch_layer, parts = block_parts()
    n1, attention, n2, mlp = parts
    z = drawn(2, 6, 8, seed=2)
    with torch.no_grad():
        y = z + attention(n1(z))
        mistakes = {
            "the residual around the attention is missing: y = MSA(LN z) + z": lambda: _mlp_step(
                attention(n1(z)), n2, mlp
            ),
            "the residual around the MLP is missing: z' = MLP(LN y) + y": mlp(n2(y)),
            "both residuals are missing: each step adds its input to what it computes": lambda: mlp(
                n2(attention(n1(z)))
            ),
            "LayerNorm stands after the sum (post-norm, as in the transformer of 2017): ViViT normalises what goes "
            "into a step, and adds to it unnormalised": lambda: _post_norm(z, *parts),
            "the two LayerNorms are exchanged: norm_attention goes before the attention, "
            "norm_mlp before the MLP": lambda: _mlp_step(z + attention(n2(z)), n1, mlp),
            "norm_attention is used twice: the MLP has a LayerNorm of its own, norm_mlp": _mlp_step(y, n1, mlp),
            "nothing is normalised: LN stands before the attention and before the MLP": lambda: _plain(
                z, attention, mlp
            ),
            "the MLP's input is not normalised: z' = MLP(LN y) + y": y + mlp(y),
            "the attention's input is not normalised: y = MSA(LN z) + z": lambda: _mlp_step(z + attention(z), n2, mlp),
            "the residual carries the normalised tokens: add z itself, not LN z": lambda: _normed_path(z, *parts),
            "attention and MLP both start from z: the MLP must see y, what the attention gave": y + mlp(n2(z)),
            "the MLP's residual adds z instead of y, so what the attention gave is lost on the way": z + mlp(n2(y)),
            "the MLP comes before the attention: tokens first exchange, then each one computes": lambda: (
                _attention_step(_mlp_step(z, n2, mlp), n1, attention)
            ),
        }
        found = call(encoder_block, z, n1, attention, n2, mlp)
        close(found, torch_layer(z), mistakes, what="the block's output")
    learns(encoder_block, z, n1, attention, n2, mlp, also=torch_layer.parameters())
    passed("05.2", "equal to torch's nn.TransformerEncoderLayer(norm_first=True) with the same weights.")


@exercise
def check_factorised_positions(factorised_positions: Callable) -> None:
    """Exercise 05.3: factorised_positions(time [1, T', D], space [1, S, D]) -> [1, T'·S, D], token t·S + s the
    sum of both."""
    time = nn.Parameter(drawn(1, 3, 5, seed=3))
    space = nn.Parameter(drawn(1, 4, 5, seed=4))
    with torch.no_grad():
        grid = time[:, :, None] + space[:, None]  # [1, T', S, D]
        expected = torch.stack([time[0, t] + space[0, s] for t in range(3) for s in range(4)])[None]
        swapped = (
            'the order is another than the tokens\': theirs is "b t s d -> b (t s) d", all places of the first time '
        )
        mistakes = {
            swapped + "index, then all of the second; yours runs through time first": rearrange(
                grid, "b t s d -> b (s t) d"
            ),
            'the shape is still the grid\'s: fold it into one sequence, "b t s d -> b (t s) d"': grid,
            "time and space were joined one after the other: every token needs the sum of the two": torch.cat(
                (time, space), 1
            ),
            "both were repeated in the same way, so that time and place of a token do not fit together: token t·S + s "
            "is time[t] + space[s]": time.repeat(1, 4, 1) + space.repeat(1, 3, 1),
            "both were repeated element by element, so that time and place of a token do not fit together: token "
            "t·S + s is time[t] + space[s]": time.repeat_interleave(4, 1) + space.repeat_interleave(3, 1),
            "time and space were multiplied: positions are added": rearrange(
                time[:, :, None] * space[:, None], "b t s d -> b (t s) d"
            ),
            "time is missing: all time indices have the same positions": space.repeat(1, 3, 1),
            "space is missing: all places have the same positions": time.repeat_interleave(4, 1),
        }
    found = call(factorised_positions, time, space)
    close(found, expected, mistakes, what="the positions")
    if found.requires_grad:
        found.sum().backward()
    if time.grad is None or space.grad is None:
        raise CheckFailed("no gradient reaches the parameters: without .data, .detach() and no_grad they can learn")
    passed("05.3", "token t·S + s has the position time[t] + space[s], from T' + S vectors instead of T'·S.")


def block_parts(dim: int = 8, heads: int = 2, seed: int = 5) -> tuple[nn.Module, tuple[Callable, ...]]:
    """torch's own pre-norm layer with large weights, and its parts: (layer, (LN, attention, LN, MLP))."""
    layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, activation="gelu", batch_first=True, norm_first=True)
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():  # so large that a missing norm or residual shows
        nn.init.normal_(parameter, std=0.7, generator=generator)
    layer.eval()

    def attention(tokens):
        return layer.self_attn(tokens, tokens, tokens, need_weights=False)[0]

    mlp = nn.Sequential(layer.linear1, nn.GELU(), layer.linear2)
    return layer, (layer.norm1, attention, layer.norm2, mlp)


def _attention_step(z, norm, attention):
    return z + attention(norm(z))


def _mlp_step(y, norm, mlp):
    return y + mlp(norm(y))


def _post_norm(z, n1, attention, n2, mlp):
    y = n1(z + attention(z))
    return n2(y + mlp(y))


def _plain(z, attention, mlp):
    y = z + attention(z)
    return y + mlp(y)


def _normed_path(z, n1, attention, n2, mlp):
    y = n1(z) + attention(n1(z))
    return n2(y) + mlp(n2(y))
