"""Checks of chapter 06: time folded into the batch and back, a detector of mixed-up clips, attention that pools."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ..ready import ch06 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, flag, passed

B, T, S, D = 2, 3, 4, 5  # all different, so that no exchange of axes goes unseen


@exercise
def check_spatial_stage(spatial_stage: Callable) -> None:
    """Exercise 06.1: spatial_stage(encoder, tokens [B, T', S, D]) -> [B, T', D], each time index encoded on its own."""
    tokens = drawn(B, T, S, D)

    def run(pattern, back=None, axis=1):  # folded one way, encoded, averaged over an axis, unfolded in another way
        def value():
            z = _encoder(rearrange(tokens, f"b t s d -> {pattern}")).mean(dim=axis)
            return rearrange(z, f"{back} -> b t d", b=B) if back else z

        return value

    expected = torch.stack(
        [torch.stack([_encoder(tokens[b, t][None])[0].mean(dim=0) for t in range(T)]) for b in range(B)]
    )
    strangers = (
        "the time indices come back in a wrong order, so that clips are mixed up: fold and unfold must name "
        'the batch first in both, "(b t)"'
    )
    mistakes = {
        strangers: run("(t b) s d", "(b t) d"),
        strangers + ", here only the unfolding does not": run("(b t) s d", "(t b) d"),
        'time indices see each other: time stayed in the sequence, "b (t s) d"; it belongs into '
        'the batch, "(b t) s d"': lambda: rearrange(
            _encoder(rearrange(tokens, "b t s d -> b (t s) d")), "b (t s) d -> b t s d", t=T
        ).mean(dim=2),
        "space and time are exchanged: the encoder attended over time, with the places in the batch; each time index "
        "must be one sequence of S tokens": lambda: rearrange(
            _encoder(rearrange(tokens, "b t s d -> (b s) t d")), "(b s) t d -> b s t d", b=B
        ).mean(dim=1),
        "the tokens were shuffled on the way: a reshape kept the memory's order where an axis had to move": lambda: (
            _encoder(tokens.transpose(1, 2).reshape(B * T, S, D)).mean(dim=1).reshape(B, T, D)
        ),
        "nothing was encoded: call encoder(folded)": tokens.mean(dim=2),
        "the tokens were averaged before the encoder: encode the S tokens, then average": lambda: rearrange(
            _encoder(rearrange(tokens, "b t s d -> (b t) s d").mean(dim=1, keepdim=True))[:, 0], "(b t) d -> b t d", b=B
        ),
        "the first token was read, as if it were a cls token: there is none here, average the S tokens": lambda: (
            rearrange(_encoder(rearrange(tokens, "b t s d -> (b t) s d"))[:, 0], "(b t) d -> b t d", b=B)
        ),
        "the tokens are still there: average over the S tokens of each time index": lambda: rearrange(
            _encoder(rearrange(tokens, "b t s d -> (b t) s d")), "(b t) s d -> b t s d", b=B
        ),
        'time is still folded into the batch: unfold it, "(b t) d -> b t d"': run("(b t) s d"),
        "time is gone: average over the S tokens, not over the time indices": lambda: rearrange(
            _encoder(rearrange(tokens, "b t s d -> (b t) s d")), "(b t) s d -> b t s d", b=B
        ).mean(dim=1),
    }
    close(call(spatial_stage, _encoder, tokens), expected, mistakes, what="the spatial stage")
    others = (_encoder, drawn(1, 5, 2, 3)), (_encoder, drawn(3, 1, 6, 4))
    examine(spatial_stage, finished.spatial_stage, (_encoder, tokens), *others, what="the spatial stage")
    passed("06.1", "each time index is encoded on its own, and every vector comes back to its clip and its time.")


@exercise
def check_depends_on_mates(depends_on_mates: Callable) -> None:
    """Exercise 06.2: depends_on_mates(model, clips) -> bool, tried on models that mix the clips of a batch and on
    some that do not."""
    clips = torch.randint(256, (4, 1, 2, 3, 3), generator=torch.Generator().manual_seed(0)) / 256
    cases = (
        (
            _PerClip(),
            False,
            "called a model guilty in which each clip has its own logits: compare a clip alone, "
            "clips[i:i+1], with the same clip in the batch",
        ),
        (
            _Rounds(),
            False,
            "was fooled by rounding: another batch size changes the order of sums, and with it the last "
            "digits; compare with torch.allclose and a tolerance such as 1e-4, not with ==",
        ),
        (
            _PerClip(dropout=0.5).train(),
            False,
            "was fooled by dropout, which draws anew in each pass: call model.eval() first",
        ),
        (
            _BatchAttention(),
            True,
            "overlooked attention over the batch axis. Shuffling the batch does not show it: attention "
            "treats clips as a set, too, and shuffled mates are the same mates. Take them away",
        ),
        (
            _BatchMean(),
            True,
            "overlooked a model that subtracts the mean of the batch: do the logits of one clip stay the "
            "same when its mates are others, or gone?",
        ),
        (
            _WrongFold(),
            True,
            "overlooked time indices that come back to the wrong clips: "
            "compare a clip alone, clips[i:i+1], with the same clip in the batch",
        ),
        (
            _LooksBack(),
            True,
            "overlooked a model in which each clip looks at the one before it: the first clip has none, so "
            "look at all clips of the batch, not at the first alone",
        ),
        (
            _LooksAhead(),
            True,
            "overlooked a model in which only the first clip is disturbed: look at all clips of the batch",
        ),
        (
            _LastLooks(),
            True,
            "overlooked a model in which only the last clip is disturbed: look at all clips of the batch",
        ),
    )
    for batch in (clips, clips[:3], torch.cat((clips, 1 - clips))):
        for model, guilty, mistake in cases:
            answer = call(depends_on_mates, model, batch, may_change=(0,))  # eval() is part of the task
            if flag(answer, "the answer") != guilty:
                _refuse_opposite(depends_on_mates, cases, clips)
                raise CheckFailed(f"your detector {mistake}")
    passed(
        "06.2", f"right on {len(cases)} models, {sum(guilty for _, guilty, _ in cases)} of which mix up their clips."
    )


@exercise
def check_attention_pool(attention_pool: Callable) -> None:
    """Exercise 06.3: attention_pool(z [B, T', D], query [D]) -> [B, D], held against torch's attention with one
    query."""
    z = drawn(B, T, D, seed=1) * 2
    query = nn.Parameter(drawn(D, seed=2) * 2)
    with torch.no_grad():
        expected = F.scaled_dot_product_attention(query.expand(B, 1, D), z, z)[:, 0]  # [B, D]
        scores = z @ query  # [B, T']

        def pooled(weights):
            return torch.einsum("bt,btd->bd", weights, z)

        mistakes = {
            "√d is missing: divide the scores by √D before the softmax": pooled(scores.softmax(1)),
            "the scores are divided by D instead of √D": pooled((scores / D).softmax(1)),
            "the scores are multiplied by √D instead of divided": pooled((scores * D**0.5).softmax(1)),
            "the scores are divided by √T' instead of √D: d is the width of what is multiplied": pooled(
                (scores / T**0.5).softmax(1)
            ),
            "the softmax runs over the batch: a clip's weights over its own time indices must sum to 1, dim=1": pooled(
                (scores / D**0.5).softmax(0)
            ),
            "there is no softmax: the weights must be positive and sum to 1": pooled(scores / D**0.5),
            "all time indices weigh the same: the query has no part in it": z.mean(dim=1),
            "the weighted vectors were averaged: they must be summed, for the weights already sum to 1": pooled(
                (scores / D**0.5).softmax(1)
            )
            / T,
            "these are the weights, not the vectors averaged with them": (scores / D**0.5).softmax(1),
            "the softmax runs over the features: one weight for each time index is asked for": lambda: (
                (z * query / D**0.5).softmax(dim=2) * z
            ).sum(dim=1),
            "time is still there: sum over the time indices": z * (scores / D**0.5).softmax(1)[..., None],
        }
    found = call(attention_pool, z, query)
    close(found, expected, mistakes, what="the pooled vectors")
    others = (drawn(1, 5, 7), drawn(7, seed=1)), (drawn(4, 1, 3), drawn(3, seed=1))
    examine(attention_pool, finished.attention_pool, (z, query.detach()), *others, what="the pooled vectors")
    passed("06.3", "equal to torch's attention with one learned query in place of all the tokens' own.")


# ---- an encoder that shows every mistake: its output depends on each token, on its place and on its sequence alone


def _encoder(z):
    """[B, N, D] -> the same: each token takes something of those before it and after it, in different amounts."""
    if z.ndim != 3:
        raise ValueError(f"the encoder takes sequences [B, N, D], got {list(z.shape)}")
    return torch.tanh(z + 0.5 * z.cumsum(dim=1) - 0.3 * z.flip(1).cumsum(dim=1).square())


# ---- models for the detector: clips [B, C, T, H, W] -> logits [B, 3]


class _PerClip(nn.Module):
    """Innocent: a linear map of each clip, in numbers so round that no order of sums changes a digit."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.linear, self.dropout = nn.Linear(18, 3), nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(3)
        for parameter in self.parameters():
            parameter.data = torch.randint(-4, 5, parameter.shape, generator=generator).float()

    def forward(self, clips):
        return self.linear(self.dropout(clips.flatten(1)))


class _Constant(_PerClip):
    """Always zeros: in no arithmetic do its logits depend on anything."""

    def forward(self, clips):
        return torch.zeros(len(clips), 3)


class _Rounds(_PerClip):
    """Innocent, too: rounds a little differently in batches of another size."""

    def forward(self, clips):
        return super().forward(clips) * (1 + 1e-6 * len(clips))


class _BatchMean(_PerClip):
    def forward(self, clips):
        logits = super().forward(clips)
        return logits - logits.mean(dim=0)


class _BatchAttention(_PerClip):
    def forward(self, clips):
        logits = super().forward(clips)
        return F.scaled_dot_product_attention(logits / 10, logits / 10, logits)


class _LastLooks(_PerClip):
    def forward(self, clips):
        logits = super().forward(clips)
        return torch.cat((logits[:-1], logits[-1:] + logits[:-1].sum(dim=0)))


class _WrongFold(_PerClip):
    def forward(self, clips):
        frames = rearrange(clips, "b c t h w -> (b t) c h w")
        return super().forward(rearrange(frames, "(t b) c h w -> b c t h w", b=len(clips)))


class _LooksBack(_PerClip):
    def forward(self, clips):
        logits = super().forward(clips)
        return torch.cat((logits[:1], logits[1:] + logits[:-1]))


class _LooksAhead(_PerClip):
    def forward(self, clips):
        logits = super().forward(clips)
        return torch.cat((logits[:1] + logits[1:].sum(dim=0), logits[1:]))


def _refuse_opposite(detector, cases, clips):
    """Raises where every answer is the opposite of the right one, or always the same."""
    *answers, constant = (
        flag(call(detector, model, clips, may_change=(0,)), "the answer")
        for model in [*(c[0] for c in cases), _Constant()]
    )
    if len({*answers, constant}) == 1:
        raise CheckFailed(f"your detector says {answers[0]} of every model, whether it mixes up clips or not")
    if all(answer != guilty for answer, (_, guilty, _) in zip(answers, cases)):
        raise CheckFailed("the answer is the wrong way round: True means that a clip's logits depend on its mates")
