"""The checks of chapter 04 accept right solutions and name the mistakes that learners make."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange

from vivit_edu.course.checks import ch04

from .cases import run_cases

# ---- 04.1


def weights_by_matmul(queries, keys):
    return (queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5).softmax(dim=-1)


def weights_by_einsum(queries, keys):
    scores = einsum(queries, keys, "... query d, ... key d -> ... query key")
    return torch.softmax(scores * queries.size(-1) ** -0.5, -1)


def weights_by_hand(queries, keys):
    scores = torch.matmul(queries / queries.shape[-1] ** 0.5, keys.mT)
    shares = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return shares / shares.sum(dim=-1, keepdim=True)


def weights_of_four_axes(queries, keys):
    scores = torch.einsum("bhqd,bhkd->bhqk", queries, keys)
    return (scores / queries.shape[-1] ** 0.5).softmax(dim=-1)


def scored(score, dim=-1):
    """A solution with these scores and a softmax over this axis."""
    return lambda q, k: score(q @ k.mT, q, k).softmax(dim=dim)


def rooted(s, q, k):
    return s / q.shape[-1] ** 0.5


test_attention_weights = run_cases(
    ch04.check_attention_weights,
    right=[weights_by_matmul, weights_by_einsum, weights_by_hand],
    wrong={
        "√d missing": (scored(lambda s, q, k: s), "√d is missing"),
        "d instead of √d": (scored(lambda s, q, k: s / q.shape[-1]), "by d instead of √d"),
        "times √d": (scored(lambda s, q, k: s * q.shape[-1] ** 0.5), "multiplied by √d"),
        "root of the number of keys": (scored(lambda s, q, k: s / k.shape[-2] ** 0.5), "number of keys"),
        "root of the number of queries": (scored(lambda s, q, k: s / q.shape[-2] ** 0.5), "number of queries"),
        "softmax over queries": (scored(rooted, dim=-2), "over the queries"),
        "softmax over heads": (scored(rooted, dim=1), "over the heads"),
        "softmax over the batch": (scored(rooted, dim=0), "over the batch"),
        "no softmax": (lambda q, k: rooted(q @ k.mT, q, k), "the softmax over the keys is missing"),
        "√d after the softmax": (lambda q, k: (q @ k.mT).softmax(-1) / 6**0.5, "√d comes after the softmax"),
        "a whole root": (lambda q, k: (q @ k.mT / int(q.shape[-1] ** 0.5)).softmax(-1), "cut down to a whole number"),
        "detached": (lambda q, k: weights_by_matmul(q.detach(), k), "no gradient reaches q"),
        "queries and keys swapped": (lambda q, k: weights_by_matmul(k, q), "queries and keys are swapped"),
        "keys not transposed": (lambda q, k: (q @ k).softmax(-1), "raised RuntimeError"),
        "four axes only": (weights_of_four_axes, "raised RuntimeError"),
    },
)

# ---- 04.2


def heads_by_view(q, k, v, heads):
    b, n, dim = q.shape
    q, k, v = (x.view(b, n, heads, dim // heads).transpose(1, 2) for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).contiguous().view(b, n, dim)


def heads_by_loop(q, k, v, heads):
    d = q.shape[-1] // heads
    parts = [slice(i * d, (i + 1) * d) for i in range(heads)]
    return torch.cat([F.scaled_dot_product_attention(q[..., p], k[..., p], v[..., p]) for p in parts], dim=-1)


def heads_by_unflatten(q, k, v, heads):
    q, k, v = (x.unflatten(-1, (heads, -1)).permute(0, 2, 1, 3) for x in (q, k, v))
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).permute(0, 2, 1, 3).flatten(2)


def heads_by(split, join, scale=None):
    """A solution that splits and joins by these einops patterns."""

    def multi_head(q, k, v, heads):
        q, k, v = (rearrange(x, split, h=heads) for x in (q, k, v))
        return rearrange(F.scaled_dot_product_attention(q, k, v, scale=scale), join)

    return multi_head


def heads_by_wrong_view(q, k, v, heads):
    b, n, dim = q.shape
    q, k, v = (x.view(b, heads, n, dim // heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, dim)


def heads_by_two_wrong_views(q, k, v, heads):
    b, n, dim = q.shape
    q, k, v = (x.view(b, heads, n, dim // heads) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).view(b, n, dim)


def heads_joined_without_transpose(q, k, v, heads):
    b, n, dim = q.shape
    q, k, v = (x.view(b, n, heads, dim // heads).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).reshape(b, n, dim)


def heads_without_transpose(q, k, v, heads):
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).flatten(2)


def heads_view_after_transpose(q, k, v, heads):
    b, n, dim = q.shape
    q, k, v = (x.view(b, n, heads, dim // heads).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).contiguous().transpose(1, 2).view(b, n, dim)


SPLIT, JOIN = "b n (h d) -> b h n d", "b h n d -> b n (h d)"

test_multi_head = run_cases(
    ch04.check_multi_head,
    right=[heads_by_view, heads_by_loop, heads_by_unflatten],
    wrong={
        "view instead of transpose": (heads_by_wrong_view, r"split by view\(B, heads, N, d\)"),
        "view there and back": (heads_by_two_wrong_views, r"split by view\(B, heads, N, d\)"),
        "joined without transpose": (heads_joined_without_transpose, "the split is right, but"),
        "woven": (heads_by("b n (d h) -> b h n d", "b h n d -> b n (d h)"), r"split into \(d heads\)"),
        "split woven": (heads_by("b n (d h) -> b h n d", JOIN), r"split into \(d heads\)"),
        "joined woven": (heads_by(SPLIT, "b h n d -> b n (d h)"), "woven"),
        "attention among heads": (heads_without_transpose, "heads of one token attended"),
        "one head": (lambda q, k, v, heads: F.scaled_dot_product_attention(q, k, v), "one head of width D"),
        "√D": (heads_by(SPLIT, JOIN, scale=18**-0.5), "√D instead of √d"),
        "reverse order": (
            lambda q, k, v, h: torch.cat(heads_by_loop(q, k, v, h).chunk(h, -1)[::-1], -1),
            "reverse order",
        ),
        "not joined": (heads_by(SPLIT, "b h n d -> b h n d"), "before they are joined"),
        "view after transpose": (heads_view_after_transpose, "raised RuntimeError: view size"),
    },
)

# ---- 04.3


def causal_by_sdpa(q, k, v, n_t):
    n = q.shape[-2]
    time = torch.arange(n) // (n // n_t)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=time[None, :] <= time[:, None])


def causal_by_kron(q, k, v, n_t):
    s = q.shape[-2] // n_t
    allowed = torch.kron(torch.ones(n_t, n_t).tril(), torch.ones(s, s)).bool()
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf"))
    return scores.softmax(dim=-1) @ v


def causal_by_loop(q, k, v, n_t):
    out, s = torch.zeros_like(q), q.shape[-2] // n_t
    for i in range(q.shape[-2]):
        end = (i // s + 1) * s
        out[..., i : i + 1, :] = F.scaled_dot_product_attention(q[..., i : i + 1, :], k[..., :end, :], v[..., :end, :])
    return out


def causal_by_renormalising(q, k, v, n_t):
    time = torch.arange(q.shape[-2]) // (q.shape[-2] // n_t)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) * (time[None] <= time[:, None])
    return weights / weights.sum(-1, keepdim=True) @ v


def masked(rule):
    """A solution whose mask is rule(numbers of the queries [N, 1], of the keys [1, N], T', S)."""

    def causal_attention(q, k, v, n_t):
        number = torch.arange(q.shape[-2])
        allowed = rule(number[:, None], number[None, :], n_t, len(number) // n_t)
        return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf).softmax(-1) @ v

    return causal_attention


def allowed_in(q, n_t):
    time = torch.arange(q.shape[-2]) // (q.shape[-2] // n_t)
    return time[None, :] <= time[:, None]


test_causal_attention = run_cases(
    ch04.check_causal_attention,
    right=[causal_by_sdpa, causal_by_kron, causal_by_loop, causal_by_renormalising],
    wrong={
        "tril on tokens": (masked(lambda i, j, t, s: j <= i), "torch.tril on the tokens"),
        "strictly earlier": (masked(lambda i, j, t, s: j // s < i // s), "holds nan"),
        "the future": (masked(lambda i, j, t, s: j // s >= i // s), "the wrong way round"),
        "no mask": (lambda q, k, v, n_t: F.scaled_dot_product_attention(q, k, v), "nothing is masked"),
        "space first": (masked(lambda i, j, t, s: j % t <= i % t), "numbered space first"),
        "place instead of time": (masked(lambda i, j, t, s: j % s <= i % s), "its place in space"),
        "divided by T'": (masked(lambda i, j, t, s: j // t <= i // t), "divide by the number of places"),
        "own time only": (masked(lambda i, j, t, s: j // s == i // s), "only their own time index"),
        "inverted": (masked(lambda i, j, t, s: j // s > i // s), "holds nan"),
        "zero after the softmax": (
            lambda q, k, v, t: (q @ k.mT / 8**0.5).softmax(-1) * allowed_in(q, t) @ v,
            "zero after the softmax",
        ),
        "zero before the softmax": (
            lambda q, k, v, t: (q @ k.mT / 8**0.5 * allowed_in(q, t)).softmax(-1) @ v,
            "zero before the softmax",
        ),
        "√d missing": (
            lambda q, k, v, t: (q @ k.mT).masked_fill(~allowed_in(q, t), -1e9).softmax(-1) @ v,
            "√d is missing",
        ),
        "weights": (
            lambda q, k, v, t: (q @ k.mT / 8**0.5).masked_fill(~allowed_in(q, t), -1e9).softmax(-1),
            "multiply them with the values",
        ),
        "made for S = 4": (masked(lambda i, j, t, s: j // 4 <= i // 4), "with one time index"),
    },
)
