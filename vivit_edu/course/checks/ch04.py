"""Checks of chapter 04: attention weights, heads without einops, attention that looks back."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from . import CheckFailed, call, close, drawn, exercise, learns, passed


@exercise
def check_attention_weights(attention_weights: Callable) -> None:
    """04.1: attention_weights(queries [..., M, d], keys [..., N, d]) -> [..., M, N], rows adding up to 1."""
    queries, keys = drawn(2, 3, 5, 6), drawn(2, 3, 7, 6, seed=1)
    # torch's own attention hands out the weights where the values are the unit vectors
    expected = F.scaled_dot_product_attention(queries, keys, torch.eye(7).expand(2, 3, 7, 7))
    scores, d = queries @ keys.mT, 6
    scaled = scores / d**0.5
    close(
        call(attention_weights, queries, keys),
        expected,
        {
            "√d is missing: divide the scores by queries.shape[-1] ** 0.5 before the softmax": scores.softmax(-1),
            "√d is cut down to a whole number: leave it as it is, d ** 0.5": (scores / int(d**0.5)).softmax(-1),
            "the scores are divided by d instead of √d": (scores / d).softmax(-1),
            "the scores are multiplied by √d: divide": (scores * d**0.5).softmax(-1),
            "the scores are divided by the root of the number of keys: d is the width of a query, the last axis": (
                scores / 7**0.5
            ).softmax(-1),
            "the scores are divided by the root of the number of queries: d is the width of a query, the last axis": (
                scores / 5**0.5
            ).softmax(-1),
            "the softmax runs over the queries: each query's weights add up to 1, so it runs over the keys, the last "
            "axis": scaled.softmax(-2),
            "the softmax runs over the heads (dim=1): it runs over the keys, the last axis": scaled.softmax(1),
            "the softmax runs over the batch (dim=0): it runs over the keys, the last axis": scaled.softmax(0),
            "these are the scores: the softmax over the keys is missing": scaled,
            "these are the scores: √d and the softmax are missing": scores,
            "√d comes after the softmax: scale the scores, not the weights": scores.softmax(-1) / d**0.5,
            "queries and keys are swapped: rows are queries, columns are keys": scaled.mT.softmax(-1),
        },
        what="attention_weights(queries, keys)",
    )
    close(
        call(attention_weights, queries[0, 0], keys[0, 0]),
        expected[0, 0],
        what="for queries [5, 6] and keys [7, 6], without axes in front, attention_weights(queries, keys)",
    )
    learns(attention_weights, queries, keys)
    passed("04.1", "each row of weights adds up to 1, for any axes in front and more keys than queries.")


@exercise
def check_multi_head(multi_head: Callable) -> None:
    """04.2: multi_head(q, k, v [B, N, D], heads) -> [B, N, D], without the projections."""
    b, n, dim, heads = 4, 5, 18, 3
    d = dim // heads
    q, k, v = (drawn(b, n, dim, seed=seed) for seed in range(3))
    parts = [x.split(d, dim=-1) for x in (q, k, v)]  # head after head
    each = [F.scaled_dot_product_attention(*one) for one in zip(*parts)]
    expected = torch.cat(each, dim=-1)

    def split(x):
        return x.reshape(b, n, heads, d).transpose(1, 2)  # [B, heads, N, d]

    def viewed(x):
        return x.reshape(b, heads, n, d)

    def woven(x):
        return x.reshape(b, n, d, heads).permute(0, 3, 1, 2)

    y, y_viewed, y_woven = (F.scaled_dot_product_attention(*map(f, (q, k, v))) for f in (split, viewed, woven))
    among_heads = F.scaled_dot_product_attention(*(x.reshape(b, n, heads, d) for x in (q, k, v)))
    wrong_split = (
        "looks as if D was split by view(B, heads, N, d): that cuts the tokens into pieces and mixes them. "
        "D can be divided only in place, view(B, N, heads, d), and then transposed"
    )
    woven_heads = "looks as if D was split into (d heads): a head's columns lie side by side, (heads d)"
    wrong_join = (
        "the split is right, but the heads are joined by view or reshape straight from [B, heads, N, d]: "
        "transpose back to [B, N, heads, d] first"
    )
    found = call(multi_head, q, k, v, heads)
    for message, value in (
        (wrong_split, y_viewed.transpose(1, 2).reshape(b, n, dim)),
        (wrong_split, y_viewed.reshape(b, n, dim)),
        (woven_heads, y_woven.permute(0, 2, 3, 1).reshape(b, n, dim)),
        (woven_heads, y_woven.transpose(1, 2).reshape(b, n, dim)),
        (
            "the heads are not laid side by side but woven, (d heads): join [B, N, heads, d] as it stands, (heads d)",
            y.permute(0, 2, 3, 1).reshape(b, n, dim),
        ),
        ("the heads are joined in the reverse order", torch.cat(each[::-1], dim=-1)),
        (
            "looks as if the heads of one token attended to each other: the transpose to [B, heads, N, d] is "
            "missing before attention",
            among_heads.reshape(b, n, dim),
        ),
        (
            "looks as if there were one head of width D: split D before attending",
            F.scaled_dot_product_attention(q, k, v),
        ),
        (
            "the scores are divided by √D instead of √d, the width of one head",
            torch.cat([F.scaled_dot_product_attention(*one, scale=dim**-0.5) for one in zip(*parts)], dim=-1),
        ),
        (wrong_join, y.reshape(b, n, dim)),
    ):
        if isinstance(found, torch.Tensor) and found.shape == value.shape and torch.allclose(found, value, atol=1e-5):
            raise CheckFailed(message)
    close(
        found,
        expected,
        {
            "these are the heads before they are joined": y,
            "these are the heads before they are joined, heads behind tokens": y.transpose(1, 2),
            "the heads are added up: lay them side by side": sum(each),
        },
        what="multi_head(q, k, v, heads=3)",
    )
    learns(multi_head, q, k, v, heads)
    passed("04.2", "three heads, each with its own columns, back in their order.")


@exercise
def check_causal_attention(causal_attention: Callable) -> None:
    """04.3: causal_attention(q, k, v [B, heads, T'·S, d], n_t) -> the same shape; no look ahead in time."""
    n_t, n_s, d = 3, 4, 8
    n = n_t * n_s
    q, k, v = (drawn(2, 2, n, d, seed=seed) for seed in range(3))
    expected = torch.cat(
        [  # each time index by itself, with the keys up to it
            F.scaled_dot_product_attention(
                q[..., t * n_s : (t + 1) * n_s, :], k[..., : (t + 1) * n_s, :], v[..., : (t + 1) * n_s, :]
            )
            for t in range(n_t)
        ],
        dim=-2,
    )
    found = call(causal_attention, q, k, v, n_t)
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise CheckFailed(
            "the result holds nan: some query may look at no key at all. The tokens of the first time index may "
            "see each other: <= instead of <"
        )
    number = torch.arange(n)
    time = number // n_s
    allowed = time[None, :] <= time[:, None]
    scores = q @ k.mT / d**0.5

    def with_mask(mask):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    after = scores.softmax(-1) * allowed
    close(
        found,
        expected,
        {
            "nothing is masked: every token sees every other": with_mask(None),
            "looks like torch.tril on the tokens: those of one time index must see each other, whatever their "
            "number": with_mask(number[None, :] <= number[:, None]),
            "the mask is the wrong way round: tokens see the present and the future. keys' time <= queries' "
            "time": with_mask(allowed.T),
            "looks as if the tokens were numbered space first: token i has the time index i // S, not i % "
            "T'": with_mask((number % n_t)[None, :] <= (number % n_t)[:, None]),
            "looks as if token i had the time index i % S: that is its place in space; the time is i // S": with_mask(
                (number % n_s)[None, :] <= (number % n_s)[:, None]
            ),
            "looks as if the time index were i // T': divide by the number of places, S = N // n_t": with_mask(
                (number // n_t)[None, :] <= (number // n_t)[:, None]
            ),
            "tokens see only their own time index: earlier ones are allowed, too": with_mask(
                time[None, :] == time[:, None]
            ),
            "the weights are set to zero after the softmax: then rows no longer add up to 1. Set the scores to -inf "
            "before it": after @ v,
            "the scores are set to zero before the softmax: e^0 = 1 still gets weight. Set them to -inf": (
                scores * allowed
            ).softmax(-1)
            @ v,
            "√d is missing in the scores": (q @ k.mT).masked_fill(~allowed, -torch.inf).softmax(-1) @ v,
            "these are the weights: multiply them with the values": scores.masked_fill(~allowed, -torch.inf).softmax(
                -1
            ),
        },
        what="causal_attention(q, k, v, n_t=3)",
    )
    one = call(causal_attention, q, k, v, 1)  # a single time index: nothing to hide
    close(
        one,
        with_mask(None),
        what="with one time index, where all tokens see each other, causal_attention(q, k, v, n_t=1)",
    )
    learns(causal_attention, q, k, v, n_t)
    passed("04.3", "no token sees a later time index, and all see their own.")
