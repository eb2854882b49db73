"""The checks of chapter 04 accept right solutions and name the mistakes that learners make."""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import nn

from vivit_edu.course.checks import ch04

from .cases import run_cases


def pairs(check):
    """A check of two things that are written in one exercise, as a function of both together."""
    return lambda both: check(*both)


check_attention_weights = pairs(ch04.check_attention_weights)
check_look_back = pairs(ch04.check_look_back)
check_block_parts = pairs(ch04.check_block_parts)


class Both(tuple):
    """Two answers of one exercise, with a name for the test."""

    def __new__(cls, name, *parts):
        both = super().__new__(cls, parts)
        both.__name__ = name
        return both


# ---- 04.1


def softmax(scores):
    shares = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return shares / shares.sum(dim=-1, keepdim=True)


def softmax_by_max(scores):
    top, _ = scores.max(-1, keepdim=True)
    e = torch.exp(scores - top)
    return e / e.sum(-1).unsqueeze(-1)


def softmax_by_logs(scores):
    return (scores - scores.logsumexp(dim=-1, keepdim=True)).exp()


def weights(queries, keys):
    return softmax(queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5)


def weights_by_einsum(queries, keys):
    scores = einsum(queries, keys, "... query d, ... key d -> ... query key")
    return torch.softmax(scores * queries.size(-1) ** -0.5, -1)


def weights_by_matmul(queries, keys):
    return softmax_by_logs(torch.matmul(queries / math.sqrt(queries.shape[-1]), keys.mT))


def weights_of_four_axes(queries, keys):
    return softmax(torch.einsum("bhqd,bhkd->bhqk", queries, keys) / queries.shape[-1] ** 0.5)


def soft(answer):
    return Both("softmax", answer, weights)


def weighed(answer):
    return Both("weights", softmax, answer)


def softmax_of_all(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum(-1, keepdim=True)


def softmax_in_place(scores):
    scores -= scores.amax(dim=-1, keepdim=True)
    e = scores.exp()
    return e / e.sum(-1, keepdim=True)


def plain(scores):
    return scores.exp() / scores.exp().sum(-1, keepdim=True)


def softmax_without_keepdim(scores):
    e = scores.exp()
    return e / e.sum(-1)


test_softmax_and_weights = run_cases(
    check_attention_weights,
    right=[
        Both("amax", softmax, weights),
        Both("max and einsum", softmax_by_max, weights_by_einsum),
        Both("logarithms", softmax_by_logs, weights_by_matmul),
    ],
    wrong={
        "largest of the row, sum over queries": (
            soft(lambda s: (e := (s - s.amax(-1, keepdim=True)).exp()) / e.sum(-2, keepdim=True)),
            "runs over the queries",
        ),
        "no largest score": (soft(plain), "for scores of 1000 the result holds nan"),
        "largest of all": (soft(softmax_of_all), "not that of all"),
        "sum over queries": (soft(lambda s: s.exp() / s.exp().sum(-2, keepdim=True)), "runs over the queries"),
        "sum over all": (soft(lambda s: s.exp() / s.exp().sum()), "everything together adds up to 1"),
        "sum over the first axis": (soft(lambda s: torch.softmax(s, 0)), "runs over dim=0"),
        "sum over dim 1": (soft(lambda s: torch.softmax(s, 1)), "runs over dim=1"),
        "exponentials": (soft(lambda s: torch.exp(s)), "these are the exponentials"),
        "shifted exponentials": (soft(lambda s: (s - s.amax(-1, keepdim=True)).exp()), "these are the exponentials"),
        "sum of scores": (soft(lambda s: s.exp() / s.sum(-1, keepdim=True)), "by the sum of the scores"),
        "no exponentials": (soft(lambda s: s / s.sum(-1, keepdim=True)), "take the exponentials first"),
        "divided by the largest": (
            soft(lambda s: s.exp() / s.exp().amax(-1, keepdim=True)),
            "these are the exponentials",
        ),
        "logarithms": (soft(lambda s: F.log_softmax(s, -1)), "logarithms"),
        "softmax in place": (soft(softmax_in_place), "changes the scores that it was given"),
        "without keepdim": (soft(softmax_without_keepdim), "your code raised RuntimeError"),
        "softmax in float32": (soft(lambda s: softmax(s.float())), "float"),
        "softmax detached": (soft(lambda s: softmax(s.detach())), "no gradient reaches"),
        "nothing returned": (soft(lambda s: None), "None"),
        "√d missing": (weighed(lambda q, k: softmax(q @ k.mT)), "√d is missing"),
        "d": (weighed(lambda q, k: softmax(q @ k.mT / q.shape[-1])), "by d instead of √d"),
        "times √d": (weighed(lambda q, k: softmax(q @ k.mT * q.shape[-1] ** 0.5)), "multiplied by √d"),
        "√2": (weighed(lambda q, k: softmax(q @ k.mT / 2**0.5)), "by √2, as in the example"),
        "number of keys": (weighed(lambda q, k: softmax(q @ k.mT / k.shape[-2] ** 0.5)), "number of keys"),
        "number of queries": (weighed(lambda q, k: softmax(q @ k.mT / q.shape[-2] ** 0.5)), "number of queries"),
        "over queries": (weighed(lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2)), "over the queries"),
        "over heads": (weighed(lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(1)), "over the heads"),
        "over the batch": (weighed(lambda q, k: (q @ k.mT / q.shape[-1] ** 0.5).softmax(0)), "over the batch"),
        "scores": (weighed(lambda q, k: q @ k.mT / q.shape[-1] ** 0.5), "the softmax over the keys is missing"),
        "bare scores": (weighed(lambda q, k: q @ k.mT), "√d and the softmax are missing"),
        "√d after": (weighed(lambda q, k: softmax(q @ k.mT) / q.shape[-1] ** 0.5), "√d comes after the softmax"),
        "whole root": (
            weighed(lambda q, k: softmax(q @ k.mT / int(q.shape[-1] ** 0.5))),
            "cut down to a whole number",
        ),
        "swapped": (weighed(lambda q, k: weights(k, q)), "queries and keys are swapped"),
        "not transposed": (weighed(lambda q, k: softmax(q @ k)), "your code raised RuntimeError"),
        "T": (weighed(lambda q, k: softmax(q @ k.T / q.shape[-1] ** 0.5)), "your code raised RuntimeError"),
        "four axes": (weighed(weights_of_four_axes), "your code raised RuntimeError"),
        "detached": (weighed(lambda q, k: weights(q.detach(), k)), "no gradient reaches q"),
    },
)

# ---- 04.2


class HeadByLines(nn.Module):
    def __init__(self, dim, width):
        super().__init__()
        self.query = nn.Linear(dim, width)
        self.key = nn.Linear(dim, width)
        self.value = nn.Linear(dim, width)

    def forward(self, z):
        return weights(self.query(z), self.key(z)) @ self.value(z)


class HeadBySdpa(HeadByLines):
    def forward(self, tokens):
        return F.scaled_dot_product_attention(self.query(tokens), self.key(tokens), self.value(tokens))


class HeadByEinsum(HeadByLines):
    def forward(self, z):
        q, k, v = (layer(z) for layer in (self.query, self.key, self.value))
        w = torch.softmax(torch.einsum("bid,bjd->bij", q, k) / q.shape[-1] ** 0.5, dim=2)
        return torch.einsum("bij,bjd->bid", w, v)


def head(forward, init=None):
    """A Head with this forward(self, z)."""
    body = {"forward": forward} | ({"__init__": init} if init else {})
    return type("Head", (HeadByLines,), body)


def head_of_other_names(self, dim, width):
    nn.Module.__init__(self)
    self.q, self.k, self.v = (nn.Linear(dim, width) for _ in range(3))


def head_of_full_width(self, dim, width):
    nn.Module.__init__(self)
    self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))


def head_without_bias(self, dim, width):
    nn.Module.__init__(self)
    self.query, self.key, self.value = (nn.Linear(dim, width, bias=False) for _ in range(3))


def head_with_output(self, dim, width):
    HeadByLines.__init__(self, dim, width)
    self.out = nn.Linear(width, width)


def layers_in_forward(self, z):
    query = nn.Linear(z.shape[-1], 6)
    return weights(query(z), self.key(z)) @ self.value(z)


def swapped(self, z):
    q, k, v = self.query(z), self.key(z), self.value(z)
    return weights(k, q) @ v


def init_of_one_layer(self, dim, width):
    nn.Module.__init__(self)
    self.query = self.key = self.value = nn.Linear(dim, width)


test_head = run_cases(
    ch04.check_head,
    right=[HeadByLines, HeadBySdpa, HeadByEinsum],
    wrong={
        "one layer for all": (head(HeadByLines.forward, init_of_one_layer), "share one layer"),
        "values once more": (
            head(lambda m, z: m.value(z) + weights(m.query(z), m.key(z)) @ m.value(z)),
            "values are added once more",
        ),
        "swapped": (head(swapped), "queries and keys have changed places"),
        "queries twice": (head(lambda m, z: weights(m.query(z), m.query(z)) @ m.value(z)), "queries stand where keys"),
        "keys twice": (head(lambda m, z: weights(m.key(z), m.key(z)) @ m.value(z)), "keys stand where queries"),
        "keys as values": (head(lambda m, z: weights(m.query(z), m.key(z)) @ m.key(z)), "the keys are handed over"),
        "tokens as values": (head(lambda m, z: weights(m.query(z), m.key(z)) @ z), "tokens themselves are handed over"),
        "weights": (head(lambda m, z: weights(m.query(z), m.key(z))), "these are the weights"),
        "values": (head(lambda m, z: m.value(z)), "these are the values"),
        "√D": (
            head(lambda m, z: softmax(m.query(z) @ m.key(z).mT / z.shape[-1] ** 0.5) @ m.value(z)),
            "root of D, the width of a token",
        ),
        "no √d": (head(lambda m, z: softmax(m.query(z) @ m.key(z).mT) @ m.value(z)), "√d is missing"),
        "transposed": (head(lambda m, z: weights(m.query(z), m.key(z)).mT @ m.value(z)), "along the wrong axis"),
        "other names": (head(lambda m, z: weights(m.q(z), m.k(z)) @ m.v(z), head_of_other_names), "self.query"),
        "full width": (
            head(HeadByLines.forward, head_of_full_width),
            "maps 10 to 10 numbers, expected 10 to 6",
        ),
        "no bias": (head(HeadByLines.forward, head_without_bias), "has no bias"),
        "an output layer": (
            head(lambda m, z: HeadByLines.forward(m, z), head_with_output),
            "no gradient reaches its out|besides those of query",
        ),
        "layers in forward": (head(layers_in_forward), "called twice"),
        "detached": (head(lambda m, z: weights(m.query(z), m.key(z)).detach() @ m.value(z)), "no gradient reaches"),
        "no super": (
            type("Head", (nn.Module,), {"__init__": lambda self, dim, width: setattr(self, "query", nn.Linear(2, 2))}),
            "your code raised AttributeError",
        ),
    },
)

# ---- 04.3


def masked(q, k, v, allowed):
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, float("-inf"))
    return scores.softmax(dim=-1) @ v


def masked_by_where(q, k, v, allowed):
    scores = torch.einsum("...id,...jd->...ij", q, k) / q.shape[-1] ** 0.5
    return torch.where(allowed, scores, torch.tensor(-torch.inf, dtype=q.dtype)).softmax(-1) @ v


def masked_by_renormalising(q, k, v, allowed):
    w = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) * allowed
    return w / w.sum(-1, keepdim=True) @ v


def masked_by_sdpa(q, k, v, allowed):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def back(nt, s):
    time = torch.arange(nt * s) // s
    return time[None, :] <= time[:, None]


def back_by_kron(nt, s):
    return torch.kron(torch.ones(int(nt), int(nt)).tril(), torch.ones(int(s), int(s))).bool()


def back_by_loop(nt, s):
    mask = torch.zeros(nt * s, nt * s, dtype=torch.bool)
    for t in range(nt):
        mask[t * s : (t + 1) * s, : (t + 1) * s] = True
    return mask


def back_by_repeat(nt, s):
    time = torch.arange(int(nt)).repeat_interleave(int(s))
    return time[:, None] >= time


def ruled(rule):
    """look_back by rule(number of the query [N, 1], of the key [1, N], nt, s)."""

    def look_back(nt, s):
        number = torch.arange(nt * s)
        return rule(number[:, None], number[None, :], nt, s)

    return Both("look_back", look_back, masked)


def hiding(answer):
    return Both("masked_attention", back, answer)


def back_by_entries(nt, s):
    mask = torch.zeros(nt * s, nt * s, dtype=torch.bool)
    for i in range(nt * s):
        for j in range(nt * s):
            mask[i, j] = j // s <= i // s
    return mask


def masked_by_exponentials(q, k, v, allowed):
    e = (q @ k.mT / q.shape[-1] ** 0.5).exp() * allowed
    return e / e.sum(-1, keepdim=True) @ v


def masked_by_a_number(q, k, v, allowed):
    return softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -100)) @ v


test_look_back = run_cases(
    check_look_back,
    right=[
        Both("compared", back, masked),
        Both("kron", back_by_kron, masked_by_where),
        Both("loop", back_by_loop, masked_by_renormalising),
        Both("repeated", back_by_repeat, masked_by_sdpa),
        Both("entry by entry", back_by_entries, masked),
    ],
    wrong={
        "no largest score": (Both("exponentials", back, masked_by_exponentials), "about -400 the result holds nan"),
        "-100": (Both("-100", back, masked_by_a_number), "a number such as -100"),
        "tril": (ruled(lambda i, j, t, s: j <= i), "triangle of single tokens"),
        "strictly earlier": (ruled(lambda i, j, t, s: j // s < i // s), "don't see their own time index"),
        "the future": (ruled(lambda i, j, t, s: j // s >= i // s), "the wrong way round"),
        "True is forbidden": (ruled(lambda i, j, t, s: j // s > i // s), "True and False have changed places"),
        "own time": (ruled(lambda i, j, t, s: j // s == i // s), "only their own time index"),
        "place": (ruled(lambda i, j, t, s: j % s <= i % s), "its place in space"),
        "space first": (ruled(lambda i, j, t, s: j % t <= i % t), "numbered space first"),
        "by nt": (ruled(lambda i, j, t, s: j // t <= i // t), "divide by the number of places"),
        "made for s = 4": (ruled(lambda i, j, t, s: j // 4 <= i // 4), "s=5"),
        "no mask": (ruled(lambda i, j, t, s: (j >= 0) & (i >= 0)), "everything is allowed"),
        "floats": (ruled(lambda i, j, t, s: (j // s <= i // s).float()), "is float32, expected bool"),
        "times only": (Both("times", lambda nt, s: torch.ones(nt, nt).tril().bool(), masked), "(has|have) shape"),
        "a list": (Both("list", lambda nt, s: back(nt, s).tolist(), masked), "a list, expected a tensor"),
        "inverted": (hiding(lambda q, k, v, a: masked(q, k, v, ~a)), "some query may look at no key at all"),
        "multiplied by inf": (
            hiding(lambda q, k, v, a: softmax(q @ k.mT / q.shape[-1] ** 0.5 + ~a * -torch.inf) @ v),
            "holds nan everywhere. 0 · inf is nan",
        ),
        "inf instead of -inf": (
            hiding(lambda q, k, v, a: softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~a, torch.inf)) @ v),
            "Forbidden scores are -inf, not inf",
        ),
        "unmasked": (hiding(lambda q, k, v, a: weights(q, k) @ v), "nothing is masked"),
        "zero after": (hiding(lambda q, k, v, a: weights(q, k) * a @ v), "set to zero after the softmax"),
        "zero before": (
            hiding(lambda q, k, v, a: softmax(q @ k.mT / q.shape[-1] ** 0.5 * a) @ v),
            "set to zero before the softmax",
        ),
        "added": (
            hiding(lambda q, k, v, a: softmax(q @ k.mT / q.shape[-1] ** 0.5 + a) @ v),
            "1 is added to allowed scores",
        ),
        "no √d": (
            hiding(lambda q, k, v, a: softmax((q @ k.mT).masked_fill(~a, -torch.inf)) @ v),
            "√d is missing",
        ),
        "weights": (
            hiding(lambda q, k, v, a: softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~a, -torch.inf))),
            "multiply them with the values",
        ),
        "over the queries": (
            hiding(lambda q, k, v, a: (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~a, -torch.inf).softmax(-2) @ v),
            "holds nan|runs over the queries",
        ),
        "masked too late": (
            hiding(lambda q, k, v, a: weights(q, k).masked_fill(~a, -torch.inf) @ v),
            "set before the softmax",
        ),
        "-10 instead of -inf": (
            hiding(lambda q, k, v, a: softmax((q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~a, -3.0)) @ v),
            "masked_attention.* is wrong",
        ),
        "mask changed": (hiding(lambda q, k, v, a: masked(q, k, v, a.logical_not_().logical_not())), "changes the a"),
    },
)

# ---- 04.4


def reach(*masks):
    tokens = (0.1 * torch.randn(len(masks[0]), 8)).requires_grad_()
    z = tokens
    for mask in masks:
        z = z + masked(z, z, z, mask)
    z[0].sum().backward()
    return int((tokens.grad != 0).any(dim=-1).sum())


def reach_by_products(*masks):
    seen = torch.eye(len(masks[0]))[0]
    for mask in reversed(masks):
        seen = ((seen @ mask.float() + seen) > 0).float()
    return seen.sum()


def reach_by_changing(*masks):
    def layers(z):
        for mask in masks:
            z = z + masked(z, z, z, mask)
        return z

    with torch.no_grad():
        z = torch.randn(len(masks[0]), 8, dtype=torch.float64) / 10
        before, count = layers(z)[0], 0
        for i in range(len(z)):
            other = z.clone()
            other[i] = torch.randn(8, dtype=torch.float64) / 10
            count += not torch.equal(layers(other)[0], before)
    return count


def by_gradient(layers, of=lambda z: z[0].sum(), count=lambda g: (g != 0).any(dim=-1).sum()):
    """A solution with these layers(z, masks), this scalar and this way of counting."""

    def reach(*masks):
        tokens = (0.1 * torch.randn(len(masks[0]), 8)).requires_grad_()
        (gradient,) = torch.autograd.grad(of(layers(tokens, masks)), tokens)
        return count(gradient).item()

    return reach


def in_order(z, masks):
    for mask in masks:
        z = z + masked(z, z, z, mask)
    return z


def column(*masks):
    seen = torch.eye(len(masks[0]))
    for mask in masks:
        seen = (mask.float() @ seen > 0).float()
    return int(seen[:, 0].sum())


def without_residual(z, masks):
    for mask in masks:
        z = masked(z, z, z, mask)
    return z


def products_without_residual(*masks):
    seen = torch.eye(len(masks[0]))
    for mask in masks:
        seen = mask.float() @ seen
    return int((seen[0] > 0).sum())


test_reach = run_cases(
    ch04.check_reach,
    right=[reach, reach_by_products, reach_by_changing],
    wrong={
        "masks transposed": (by_gradient(lambda z, masks: in_order(z, [m.T for m in masks])), "masks are transposed"),
        "two masks": (by_gradient(lambda z, masks: in_order(z, masks[:2])), "first two masks"),
        "no residual": (by_gradient(without_residual), "residual connection is missing"),
        "products without residual": (products_without_residual, "residual connection is missing"),
        "all outputs": (by_gradient(in_order, of=lambda z: z.sum()), "number of all tokens"),
        "the mean of all": (by_gradient(in_order, of=lambda z: z.mean()), "number of all tokens"),
        "numbers": (by_gradient(in_order, count=lambda g: (g != 0).sum()), "A token counts once"),
        "reverse order": (by_gradient(lambda z, masks: in_order(z, masks[::-1])), "in the reverse order"),
        "last layer": (by_gradient(lambda z, masks: in_order(z, masks[-1:])), "reach of the last layer alone"),
        "first layer": (by_gradient(lambda z, masks: in_order(z, masks[:1])), "reach of the first layer alone"),
        "row of the mask": (lambda *masks: int(masks[0][0].sum()), "reach of the first layer alone"),
        "sum of rows": (lambda *masks: sum(int(mask[0].sum()) for mask in masks), "sum over the masks"),
        "union": (lambda *masks: int(torch.stack(masks)[:, 0].any(0).sum()), "what one of the masks allows"),
        "column": (column, "tokens that depend on token 0"),
        "without itself": (lambda *masks: reach(*masks) - 1, "token 0 itself is missing"),
        "all pairs": (lambda *masks: int(ch04._through(masks).sum()), "this counts all pairs"),
        "a mask returned": (lambda *masks: ch04._through(masks)[0] > 0, "expected one|numbers"),
        "seeded": (lambda *masks: (torch.manual_seed(0), reach(*masks))[1], "sets the global seed"),
        "nothing": (lambda *masks: None, "None"),
    },
)

# ---- 04.5


class MultiHead(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def split(self, z):
        return rearrange(self.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=self.heads)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def join(self, y):
        return rearrange(y, "b heads n d -> b n (heads d)")

    def forward(self, z):
        return self.out(self.join(self.attend(*self.split(z))))

    def weights(self, z):
        q, k, _ = self.split(z)
        return weights(q, k)


class MultiHeadByView(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.heads, self.d = heads, dim // heads

    def parts(self, x):
        b, n, _ = x.shape
        return [
            part.view(b, n, self.heads, self.d).transpose(1, 2)
            for part in self.qkv(x).split(self.heads * self.d, dim=-1)
        ]

    def weights(self, x):
        q, k, _ = self.parts(x)
        return torch.softmax(q @ k.transpose(2, 3) / math.sqrt(self.d), dim=3)

    def forward(self, x):
        y = self.weights(x) @ self.parts(x)[2]
        return self.out(y.transpose(1, 2).contiguous().view(x.shape))


class MultiHeadByLoop(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def each(self, z):
        q, k, v = self.qkv(z).chunk(3, dim=-1)
        yield from zip(*(x.chunk(self.heads, dim=-1) for x in (q, k, v)))

    def forward(self, z):
        return self.out(torch.cat([F.scaled_dot_product_attention(*one) for one in self.each(z)], dim=-1))

    def weights(self, z):
        return torch.stack([weights(q, k) for q, k, _ in self.each(z)], dim=1)


def multi(**methods):
    """A MultiHead with other methods."""
    return type("MultiHead", (MultiHead,), methods)


def viewed(self, z):
    b, n, dim = z.shape
    return [x.reshape(b, self.heads, n, dim // self.heads) for x in self.qkv(z).chunk(3, -1)]


def by(pattern):
    return lambda self, z: rearrange(self.qkv(z), pattern, three=3, heads=self.heads)


def order(*places):
    def split(self, z):
        parts = MultiHead.split(self, z)
        return [parts[place] for place in places]

    return split


def among_heads(self, z):
    q, k, v = rearrange(self.qkv(z), "b n (three heads d) -> three b n heads d", three=3, heads=self.heads)
    return self.out(F.scaled_dot_product_attention(q, k, v).flatten(2))


def init_three_layers(self, dim, heads):
    nn.Module.__init__(self)
    self.heads, self.out = heads, nn.Linear(dim, dim)
    self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))


def init_narrow(self, dim, heads):
    nn.Module.__init__(self)
    self.heads, self.qkv, self.out = heads, nn.Linear(dim, dim), nn.Linear(dim, dim)


def init_of_the_notebook(self, dim, heads):
    MultiHead.__init__(self, dim, heads)
    self.heads = 4


def init_with_norm(self, dim, heads):
    MultiHead.__init__(self, dim, heads)
    self.norm = nn.LayerNorm(dim)


def heads_as_h(self, dim, heads):
    MultiHead.__init__(self, dim, heads)
    self.h = self.__dict__.pop("heads")


def split_by_h(self, z):
    return rearrange(self.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=self.h)


def init_with_dropout(self, dim, heads):
    MultiHead.__init__(self, dim, heads)
    self.drop = nn.Dropout(0.1)


def keeps_its_weights(self, z):
    q, k, v = self.split(z)
    self.kept = weights(q, k)
    return self.out((self.kept @ v).transpose(1, 2).flatten(2))


def weights_in_eval_mode(self, z):
    self.eval()
    return MultiHead.weights(self, z)


test_multi_head = run_cases(
    ch04.check_multi_head,
    right=[MultiHead, MultiHeadByView, MultiHeadByLoop],
    wrong={
        "heads under another name": (multi(__init__=heads_as_h, split=split_by_h), "number of heads as self.heads"),
        "weights of the last forward": (
            multi(forward=keeps_its_weights, weights=lambda self, z: self.kept),
            "from the z that is given",
        ),
        "weights in eval mode": (multi(weights=weights_in_eval_mode), "left in another mode"),
        "weights detached": (multi(weights=lambda self, z: MultiHead.weights(self, z).detach()), "no gradient reaches"),
        "view": (multi(split=viewed), r"split by view\(B, heads, N, d\)"),
        "view there and back": (
            multi(split=viewed, join=lambda self, y: y.reshape(len(y), y.shape[2], -1)),
            r"split by view\(B, heads, N, d\)",
        ),
        "joined without transpose": (
            multi(join=lambda self, y: y.reshape(len(y), y.shape[2], -1)),
            "the split is right, but",
        ),
        "woven": (multi(split=by("b n (three d heads) -> three b heads n d")), r"split into \(d heads\)"),
        "joined woven": (multi(join=lambda self, y: rearrange(y, "b e n d -> b n (d e)")), "woven"),
        "heads three d": (
            multi(split=by("b n (heads three d) -> three b heads n d")),
            r"\(three heads d\), not \(heads three d\)",
        ),
        "heads d three": (
            multi(split=by("b n (heads d three) -> three b heads n d")),
            r"\(three heads d\), not \(heads d three\)",
        ),
        "keys first": (multi(split=order(1, 0, 2)), "keys stand before queries"),
        "values before keys": (multi(split=order(0, 2, 1)), "values stand before keys"),
        "among heads": (multi(forward=among_heads), "heads of one token attended"),
        "no W_O": (multi(forward=lambda self, z: self.join(self.attend(*self.split(z)))), "self.out is not applied"),
        "residual": (multi(forward=lambda self, z: MultiHead.forward(self, z) + z), "residual connection belongs"),
        "√D": (
            multi(attend=lambda self, q, k, v: F.scaled_dot_product_attention(q, k, v, scale=18**-0.5)),
            "√D instead of √d",
        ),
        "no √d": (multi(attend=lambda self, q, k, v: (q @ k.mT).softmax(-1) @ v), "√d is missing"),
        "one head": (multi(split=lambda self, z: self.qkv(z)[:, None].chunk(3, -1)), "one head of width D"),
        "over queries": (
            multi(attend=lambda self, q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v),
            "each head's softmax runs over the queries",
        ),
        "reverse": (multi(join=lambda self, y: MultiHead.join(self, y.flip(1))), "reverse order"),
        "three layers": (multi(__init__=init_three_layers), "no linear layer self.qkv"),
        "narrow": (multi(__init__=init_narrow), "maps 18 to 18 numbers, expected 18 to 54"),
        "four heads": (multi(__init__=init_of_the_notebook), "your code raised EinopsError"),
        "an unused norm": (multi(__init__=init_with_norm), "no gradient reaches its norm|other parameters"),
        "dropout": (
            multi(__init__=init_with_dropout, forward=lambda self, z: self.drop(MultiHead.forward(self, z))),
            "called twice",
        ),
        "no weights": (multi(weights=None), "no method weights"),
        "in float32": (
            multi(join=lambda self, y: MultiHead.join(self, y).float()),
            "your code raised RuntimeError|in float64 the module gives",
        ),
        "float32 at the end": (
            multi(forward=lambda self, z: MultiHead.forward(self, z).float()),
            "in float64 the module gives",
        ),
        "mean weights": (
            multi(weights=lambda self, z: MultiHead.weights(self, z).mean(1)),
            "averaged over the heads",
        ),
        "scores": (
            multi(weights=lambda self, z: self.split(z)[0] @ self.split(z)[1].mT / 6**0.5),
            "the softmax is missing",
        ),
        "weights without √d": (
            multi(weights=lambda self, z: softmax(self.split(z)[0] @ self.split(z)[1].mT)),
            "lack √d",
        ),
        "weights swapped": (multi(weights=lambda self, z: weights(*self.split(z)[[1, 0]])), "in each other's place"),
        "detached": (multi(attend=lambda self, q, k, v: MultiHead.attend(self, q, k, v).detach()), "no gradient"),
    },
)


def test_the_modules_agree_with_torchs_and_the_packages(capsys):
    from vivit_edu import MultiHeadAttention

    for module in (MultiHead, MultiHeadByLoop):
        ch04.same_as(module, nn.MultiheadAttention)
        ch04.same_as(module, MultiHeadAttention)
    assert capsys.readouterr().out.count("give the same") == 4


# ---- 04.6


def sound(attention, tokens):
    y = attention(tokens)
    alone = torch.cat([attention(tokens[i : i + 1]) for i in range(len(tokens))])
    order = torch.randperm(tokens.shape[1])
    return torch.allclose(y, alone, atol=1e-4) and torch.allclose(attention(tokens[:, order]), y[:, order], atol=1e-4)


@torch.no_grad()
def sound_by_replacing(attention, tokens):
    y = attention(tokens)
    for i in range(len(tokens)):
        other = torch.randn_like(tokens)
        other[i] = tokens[i]
        if (attention(other)[i] - y[i]).abs().max() > 1e-4:
            return False
    order = torch.randperm(tokens.shape[1])
    return bool((attention(tokens[:, order])[:, order.argsort()] - y).abs().max() < 1e-4)


def sound_by_parts(attention, tokens):
    def near(a, b):
        return ((a - b).abs() < 1e-4).all()

    order = torch.randperm(tokens.size(1))
    apart = all(near(attention(clip.unsqueeze(0))[0], y) for clip, y in zip(tokens, attention(tokens)))
    return apart and near(attention(tokens[:, order, :]), attention(tokens)[:, order, :])


def apart(attention, tokens):
    return torch.allclose(attention(tokens), torch.cat([attention(c[None]) for c in tokens]), atol=1e-4)


def follows(attention, tokens, order=None, atol=1e-4):
    order = torch.randperm(tokens.shape[1]) if order is None else order
    return torch.allclose(attention(tokens[:, order]), attention(tokens)[:, order], atol=atol)


def reversal(tokens):
    return torch.arange(tokens.shape[1]).flip(0)


def first_clip(attention, tokens):
    other = tokens.clone()
    other[1] = torch.randn_like(tokens[1])
    return torch.allclose(attention(tokens)[0], attention(other)[0], atol=1e-4) and follows(attention, tokens)


def invariant(attention, tokens):
    order = torch.randperm(tokens.shape[1])
    return apart(attention, tokens) and torch.allclose(attention(tokens[:, order]), attention(tokens), atol=1e-4)


def shuffled_clips(attention, tokens):
    order = torch.arange(len(tokens)).roll(1)
    return torch.allclose(attention(tokens[order]), attention(tokens)[order], atol=1e-4)


def exact(attention, tokens):
    order = torch.randperm(tokens.shape[1])
    return apart(attention, tokens) and torch.equal(attention(tokens[:, order]), attention(tokens)[:, order])


def shuffled_in_place(attention, tokens):
    y = attention(tokens)
    order = torch.randperm(tokens.shape[1])
    tokens[:] = tokens[:, order]
    return torch.allclose(attention(tokens), y[:, order], atol=1e-4) and apart(attention, tokens)


def last_clip(attention, tokens):
    order = torch.randperm(tokens.shape[1])
    alone = torch.allclose(attention(tokens[-1:]), attention(tokens)[-1:], atol=1e-4)
    return alone and follows(attention, tokens, order)


test_is_sound = run_cases(
    ch04.check_is_sound,
    right=[sound, sound_by_replacing, sound_by_parts],
    wrong={
        "last clip only": (last_clip, "Property 1 fails: compare all clips"),
        "two tokens exchanged": (
            lambda a, z: apart(a, z) and follows(a, z, torch.tensor([1, 0, *range(2, z.shape[1])])),
            "Shuffle all of them at random",
        ),
        "rolled": (
            lambda a, z: apart(a, z) and follows(a, z, torch.arange(z.shape[1]).roll(1)),
            "only a random order shows it",
        ),
        "clips only": (apart, "Property 2 fails"),
        "order only": (follows, "Property 1 fails"),
        "clip 0 only": (first_clip, "Property 1 fails: compare all clips"),
        "reversal": (lambda a, z: apart(a, z) and follows(a, z, reversal(z)), "only a random order shows it"),
        "invariance": (invariant, "False for a sound attention"),
        "clips shuffled": (shuffled_clips, "is True for a module that"),
        "exact": (exact, "False for a sound attention|differ by a millionth"),
        "inverted": (lambda a, z: not sound(a, z), "False for a sound attention"),
        "shapes": (lambda a, z: a(z).shape == z.shape, "is True for a module that cuts tokens"),
        "always False": (lambda a, z: False, "False for a sound attention"),
        "no order at all": (
            lambda a, z: apart(a, z) and follows(a, z, torch.arange(z.shape[1])),
            "Property 2 fails",
        ),
        "loose": (
            lambda a, z: apart(a, z) and follows(a, z, atol=10.0),
            "Property 2 fails",
        ),
        "in place": (shuffled_in_place, "changes the tokens that it was given"),
        "seeded": (lambda a, z: (torch.manual_seed(0), sound(a, z))[1], "sets the global seed"),
        "train mode": (lambda a, z: (a.train(), sound(a, z))[1], "left in another mode"),
        "a table": (lambda a, z: (a(z) - a(z)).abs() < 1e-4, "must be True or False"),
        "nothing": (lambda a, z: print(end=""), "returns None"),
    },
)

# ---- 04.7


def norm(z, weight, bias, eps=1e-5):
    mean = z.mean(dim=-1, keepdim=True)
    variance = z.var(dim=-1, keepdim=True, correction=0)
    return (z - mean) / torch.sqrt(variance + eps) * weight + bias


def norm_by_moments(z, weight, bias, eps=1e-5):
    centred = z - z.mean(-1, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps) * weight + bias


def norm_by_sums(z, weight, bias, eps=1e-5):
    d = z.shape[-1]
    mean = z.sum(-1, keepdim=True) / d
    variance = ((z - mean) ** 2).sum(-1, keepdim=True) / d
    return bias + weight * ((z - mean) / (variance + eps) ** 0.5)


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, z):
        return self.second(F.gelu(self.first(z)))


class MlpSequential(nn.Sequential):
    def __init__(self, dim, hidden):
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class MlpWithin(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, x):
        return self.layers(x)


def mlp(forward, init=None):
    body = {"forward": forward} | ({"__init__": init} if init else {})
    return Both("MLP", norm, type("MLP", (Mlp,), body))


def mlp_of(*layers):
    """An MLP of layers(dim, hidden) in a row."""

    class MLP(nn.Module):
        def __init__(self, dim, hidden):
            super().__init__()
            self.layers = nn.Sequential(*(layer(dim, hidden) for layer in layers))

        def forward(self, z):
            return self.layers(z)

    return Both("MLP", norm, MLP)


def up(dim, hidden):
    return nn.Linear(dim, hidden)


def down(dim, hidden):
    return nn.Linear(hidden, dim)


def gelu(dim, hidden):
    return nn.GELU()


def normed(answer):
    return Both("layer_norm", answer, Mlp)


def over(axes):
    def layer_norm(z, w, b, eps=1e-5):
        return (z - z.mean(axes, keepdim=True)) / (z.var(axes, keepdim=True, correction=0) + eps).sqrt() * w + b

    return layer_norm


def norm_in_place(z, w, b, eps=1e-5):
    z -= z.mean(-1, keepdim=True)
    return z / (z.var(-1, keepdim=True, correction=0) + eps).sqrt() * w + b


test_block_parts = run_cases(
    check_block_parts,
    right=[
        Both("var", norm, Mlp),
        Both("moments", norm_by_moments, MlpSequential),
        Both("sums", norm_by_sums, MlpWithin),
    ],
    wrong={
        "D - 1": (
            normed(lambda z, w, b, e=1e-5: (z - z.mean(-1, True)) / (z.var(-1, keepdim=True) + e).sqrt() * w + b),
            "divided by D - 1",
        ),
        "std": (
            normed(lambda z, w, b, e=1e-5: (z - z.mean(-1, True)) / (z.std(-1, keepdim=True) + e) * w + b),
            "D - 1, and eps is added outside|divided by D - 1",
        ),
        "over tokens": (normed(over(-2)), "run over the tokens"),
        "over the batch": (normed(over(0)), "run over the batch"),
        "over tokens and columns": (normed(over((-2, -1))), "over tokens and columns"),
        "over everything": (normed(over(None)), "run over everything|your code raised"),
        "variance": (
            normed(
                lambda z, w, b, e=1e-5: (z - z.mean(-1, True)) / (z.var(-1, keepdim=True, correction=0) + e) * w + b
            ),
            "divided by the variance",
        ),
        "eps outside": (
            normed(
                lambda z, w, b, e=1e-5: (
                    (z - z.mean(-1, True)) / (z.var(-1, keepdim=True, correction=0).sqrt() + e) * w + b
                )
            ),
            "it belongs under the root",
        ),
        "eps ignored": (normed(lambda z, w, b, e=1e-5: norm(z, w, b)), "eps has no effect"),
        "no weight and bias": (
            normed(lambda z, w, b, e=1e-5: norm(z, torch.ones_like(w), torch.zeros_like(b), e)),
            "weight and bias are missing",
        ),
        "no bias": (normed(lambda z, w, b, e=1e-5: norm(z, w, 0 * b, e)), "the bias is missing"),
        "no weight": (normed(lambda z, w, b, e=1e-5: norm(z, w / w, b, e)), "the weight is missing"),
        "bias first": (
            normed(lambda z, w, b, e=1e-5: (norm(z, torch.ones_like(w), b, e)) * w),
            "before the weight is multiplied",
        ),
        "swapped": (normed(lambda z, w, b, e=1e-5: norm(z, b, w, e)), "have changed places"),
        "no mean": (
            normed(lambda z, w, b, e=1e-5: z / (z.var(-1, keepdim=True, correction=0) + e).sqrt() * w + b),
            "the mean is not subtracted",
        ),
        "norm in place": (normed(norm_in_place), "changes the z that it was given"),
        "without keepdim": (
            normed(lambda z, w, b, e=1e-5: (z - z.mean(-1)) / (z.var(-1) + e).sqrt() * w + b),
            "your code raised RuntimeError",
        ),
        "norm detached": (
            normed(
                lambda z, w, b, e=1e-5: (
                    (z - z.mean(-1, True).detach()) / (z.var(-1, True, False).detach() + e).sqrt() * w + b
                )
            ),
            "gradient|your code raised",
        ),
        "no GELU": (mlp_of(up, down), "the non-linearity is missing"),
        "GELU last": (mlp_of(up, down, gelu), "comes after the second layer"),
        "two GELUs": (mlp_of(up, gelu, down, gelu), "a second GELU comes at the end"),
        "GELU first": (mlp_of(gelu, up, down), "before the first layer"),
        "ReLU": (mlp_of(up, lambda d, h: nn.ReLU(), down), "is a ReLU"),
        "SiLU": (mlp_of(up, lambda d, h: nn.SiLU(), down), "is SiLU"),
        "tanh GELU": (mlp_of(up, lambda d, h: nn.GELU(approximate="tanh"), down), "approximation by tanh"),
        "residual": (mlp(lambda m, z: z + Mlp.forward(m, z)), "residual connection belongs"),
        "hidden forgotten": (
            mlp_of(lambda d, h: nn.Linear(d, d), gelu, lambda d, h: nn.Linear(d, d)),
            "6 to 6, 6 to 6: expected 6 to 15",
        ),
        "four times": (
            mlp_of(lambda d, h: nn.Linear(d, 4 * d), gelu, lambda d, h: nn.Linear(4 * d, d)),
            "6 to 24, 24 to 6: expected",
        ),
        "a norm inside": (mlp_of(up, lambda d, h: nn.LayerNorm(h), gelu, down), "MLP"),
        "dropout": (mlp_of(up, gelu, lambda d, h: nn.Dropout(0.5), down), "called twice"),
        "MLP without bias": (
            mlp_of(lambda d, h: nn.Linear(d, h, bias=False), gelu, down),
            "has no bias",
        ),
    },
)
