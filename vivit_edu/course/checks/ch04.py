"""Checks of chapter 04: attention weights, one head, masks, multi-head attention, a test of it, a block's parts."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from . import CheckFailed, call, close, drawn, examine, exercise, flag, learns, number, passed, same_shape
from .calling import argument_in_words

SDPA = F.scaled_dot_product_attention


def made(cls: Callable, *args: object, needs: dict[str, tuple[int, int]]) -> nn.Module:
    """cls(*args), a module that has these linear layers. needs: {attribute: (from, to)}."""
    module = call(cls, *args)
    name = getattr(cls, "__name__", "the class")
    shown = f"{name}({', '.join(map(str, args))})"
    if not isinstance(module, nn.Module):
        raise CheckFailed(f"{shown} is {argument_in_words('', module) or 'something else'}, expected an nn.Module")
    for attribute, (start, end) in needs.items():
        layer = getattr(module, attribute, None)
        if not isinstance(layer, nn.Linear):
            raise CheckFailed(f"{shown} has no linear layer self.{attribute}: make it in __init__, by nn.Linear")
        if (layer.in_features, layer.out_features) != (start, end):
            raise CheckFailed(
                f"in {shown}, self.{attribute} maps {layer.in_features} to {layer.out_features} numbers, expected "
                f"{start} to {end}"
            )
        if layer.bias is None:
            raise CheckFailed(f"in {shown}, self.{attribute} has no bias: leave nn.Linear as it comes")
    return module


def steady(module: nn.Module, z: torch.Tensor) -> torch.Tensor:
    """module(z), which must be the same when it is called twice."""
    first, second = call(module, z), call(module, z)
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and first.shape == second.shape:
        if not torch.allclose(first, second, atol=1e-6, equal_nan=True):
            raise CheckFailed(
                "called twice with the same tokens, the module gives two results: make layers once, in __init__, and "
                "use no dropout"
            )
    return first


def keeps_type(module: nn.Module, z: torch.Tensor) -> None:
    """Fails unless the module, its weights in float64, works for float64 and gives it."""
    expected, found = module(z), call(copy.deepcopy(module).double(), z.double())
    if getattr(found, "dtype", None) != torch.float64:
        raise CheckFailed(
            f"in float64 the module gives {argument_in_words('', found)}: leave the type as it comes in (no .float(); "
            "new tensors with dtype=z.dtype)"
        )
    close(found, expected, what="in float64, what the module gives", tolerance=1e-4)


# ---- 04.1


@exercise
def check_attention_weights(softmax: Callable, attention_weights: Callable) -> None:
    """04.1: softmax(scores [..., M, N]) and attention_weights(queries [..., M, d], keys [..., N, d]) -> [..., M, N]."""
    _check_softmax(softmax)

    def weighted(change, dim=-1):
        """A mistake: the softmax of change(scores, d, M, N)."""
        return lambda q, k: change(q @ k.mT, q.shape[-1], q.shape[-2], k.shape[-2]).softmax(dim)

    def rooted(s, d, *_):
        return s / d**0.5

    many = (drawn(2, 3, 5, 6), drawn(2, 3, 7, 6, seed=1))
    examine(
        attention_weights,
        weighted(rooted),
        many,
        (drawn(5, 6, seed=2), drawn(7, 6, seed=3)),
        (drawn(1, 3, 10, seed=4), drawn(1, 4, 10, seed=5)),
        (300 * drawn(2, 4, 3, seed=6), drawn(2, 5, 3, seed=7)),
        mistakes={
            "√d is missing: divide the scores by queries.shape[-1] ** 0.5 before the softmax": weighted(
                lambda s, d, *_: s
            ),
            "√d is cut down to a whole number: leave it as it is, d ** 0.5": weighted(lambda s, d, *_: s / int(d**0.5)),
            "the scores are divided by d instead of √d": weighted(lambda s, d, *_: s / d),
            "the scores are multiplied by √d: divide": weighted(lambda s, d, *_: s * d**0.5),
            "the scores are divided by the root of the number of keys: d is the width of a query, the last "
            "axis": weighted(lambda s, d, m, n: s / n**0.5),
            "the scores are divided by the root of the number of queries: d is the width of a query, the last "
            "axis": weighted(lambda s, d, m, n: s / m**0.5),
            "the scores are divided by √2, as in the example: d is the width of a query, the last axis": weighted(
                lambda s, *_: s / 2**0.5
            ),
            "the softmax runs over the queries: each query's weights add up to 1, so it runs over the keys, the last "
            "axis": weighted(rooted, -2),
            "the softmax runs over the heads (dim=1): it runs over the keys, the last axis": weighted(rooted, 1),
            "the softmax runs over the batch (dim=0): it runs over the keys, the last axis": weighted(rooted, 0),
            "these are the scores: the softmax over the keys is missing": lambda q, k: q @ k.mT / q.shape[-1] ** 0.5,
            "these are the scores: √d and the softmax are missing": lambda q, k: q @ k.mT,
            "√d comes after the softmax: scale the scores, not the weights": lambda q, k: (
                (q @ k.mT).softmax(-1) / q.shape[-1] ** 0.5
            ),
            "queries and keys are swapped: rows are queries, columns are keys": lambda q, k: weighted(rooted)(k, q),
        },
        what="attention_weights(queries, keys)",
    )
    passed("04.1", "each row of weights adds up to 1, for any axes in front and more keys than queries.")


def _check_softmax(softmax):
    scores = 2 * drawn(2, 3, 4, 5, seed=2)
    far = torch.tensor([[1000.0, 999.0, 997.0], [-1000.0, -1001.0, -1003.0]])
    examine(
        softmax,
        lambda s: s.softmax(-1),
        (scores,),
        (drawn(1, 6, seed=3),),
        mistakes={
            "softmax: the sum runs over the queries: each row adds up to 1, along the last axis": lambda s: s.softmax(
                -2
            ),
            "softmax: the sum runs over the queries: each row adds up to 1, along the last axis.": lambda s: (
                (e := (s - s.amax(-1, keepdim=True)).exp()) / e.sum(-2, keepdim=True)
            ),
            "softmax: the sum runs over dim=1: each row adds up to 1, along the last axis": lambda s: s.softmax(1),
            "softmax: the sum runs over dim=0: each row adds up to 1, along the last axis": lambda s: s.softmax(0),
            "softmax: everything together adds up to 1: each row does, along the last axis (dim=-1)": lambda s: (
                s.exp() / s.exp().sum()
            ),
            "softmax: these are the exponentials: divide each row by its sum": torch.exp,
            "softmax: these are the exponentials: divide each row by its sum.": lambda s: (
                s - s.amax(-1, keepdim=True)
            ).exp(),
            "softmax: the exponentials are divided by the sum of the scores: divide by the sum of the "
            "exponentials": lambda s: s.exp() / s.sum(-1, keepdim=True),
            "softmax: the scores are divided by their sum: take the exponentials first": lambda s: (
                s / s.sum(-1, keepdim=True)
            ),
            "softmax: these are the logarithms of the weights": lambda s: s.log_softmax(-1),
        },
        what="softmax(scores)",
    )
    found = call(softmax, far)
    if isinstance(found, torch.Tensor) and found.shape == far.shape and found.isnan().any():
        raise CheckFailed(
            "softmax: for scores of 1000 the result holds nan, since their exponentials are infinite: subtract the "
            "largest score of each row first"
            if found[0].isnan().any()
            else "softmax: for a row of scores of about -1000 below one of 1000 the result holds nan: subtract the "
            "largest score of each row (amax with dim=-1), not that of all"
        )
    close(found, far.softmax(-1), what="for scores of 1000 and -1000, softmax(scores)", tolerance=1e-3)
    hidden = torch.tensor([[1.0, -torch.inf, 2.0]])
    close(call(softmax, hidden), hidden.softmax(-1), what="for a row with a score of -inf, softmax(scores)")


# ---- 04.2


@exercise
def check_head(Head: Callable) -> None:
    """04.2: Head(dim, width), a module [B, N, D] -> [B, N, d] with the layers query, key and value."""
    dim, width = 10, 6
    head = made(Head, dim, width, needs={name: (dim, width) for name in ("query", "key", "value")})
    if len({id(layer) for layer in (head.query, head.key, head.value)}) < 3:
        raise CheckFailed(
            "self.query, self.key and self.value share one layer, so that a token's query is its key: make three layers"
        )
    z = drawn(3, 5, dim)
    with torch.no_grad():
        q, k, v = head.query(z), head.key(z), head.value(z)
        expected = SDPA(q, k, v)
        scores = q @ k.mT / width**0.5
        mistakes = {
            "queries and keys have changed places: a query asks, so rows belong to self.query": SDPA(k, q, v),
            "queries stand where keys should: the scores are self.query(z) times self.key(z)": SDPA(q, q, v),
            "keys stand where queries should: the scores are self.query(z) times self.key(z)": SDPA(k, k, v),
            "the keys are handed over: the weights average the values, self.value(z)": SDPA(q, k, k),
            "the queries are handed over: the weights average the values, self.value(z)": SDPA(q, k, q),
            "the tokens themselves are handed over: the weights average the values, self.value(z)": SDPA(q, k, z),
            "these are the weights: multiply them with the values": scores.softmax(-1),
            "these are the values: average them with the weights": v,
            "the values are averaged along the wrong axis: weights @ v, without a transpose": scores.softmax(-1).mT @ v,
            "√d is missing in the weights": (q @ k.mT).softmax(-1) @ v,
            "the scores are divided by the root of D, the width of a token: d is the width of a query": (
                (q @ k.mT / dim**0.5).softmax(-1) @ v
            ),
            "the softmax runs over the queries: it runs over the keys, the last axis": scores.softmax(-2) @ v,
            "the softmax runs over the batch: it runs over the keys, the last axis": scores.softmax(0) @ v,
            "the values are added once more: a head has no residual connection (that comes with the block)": expected
            + v,
            "z is added: a head has no residual connection (that comes with the block)": expected + z[..., :width],
        }
    close(steady(head, z), expected, mistakes, what="Head(10, 6)(z)")
    one = drawn(1, 7, dim, seed=3)
    with torch.no_grad():
        expected = SDPA(head.query(one), head.key(one), head.value(one))
    close(call(head, one), expected, what="for one clip of 7 tokens, Head(10, 6)(z)")
    keeps_type(head, z)
    learns(head, z, also=head.parameters())
    if extra := [name for name, _ in head.named_parameters() if name.split(".")[0] not in ("query", "key", "value")]:
        raise CheckFailed(f"the head has a parameter besides those of query, key and value: {extra[0]}")
    passed("04.2", "queries, keys and values are learned, and the head gives what torch's function gives.")


# ---- 04.3


@exercise
def check_look_back(look_back: Callable, masked_attention: Callable) -> None:
    """04.3: look_back(nt, s) -> bool [N, N]; masked_attention(q, k, v, allowed [M, N]) -> [..., M, d]."""
    for nt, s in ((3, 4), (1, 5), (4, 1), (2, 3), (5, 2)):
        _check_mask(look_back, nt, s)
    allowed = drawn(5, 7, seed=3) > -0.3
    allowed[0], allowed[1] = torch.arange(7) == 6, True
    args = drawn(2, 3, 5, 6), drawn(2, 3, 7, 6, seed=1), drawn(2, 3, 7, 4, seed=2), allowed
    found = call(masked_attention, *args)
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise CheckFailed(f"masked_attention: the result holds nan{_why_nan(found.isnan())}")

    def scores(q, k):
        return q @ k.mT / q.shape[-1] ** 0.5

    def hidden(q, k, a):
        return scores(q, k).masked_fill(~a, -torch.inf)

    examine(
        masked_attention,
        _masked,
        args,
        (drawn(1, 3, 4, seed=4), drawn(1, 3, 4, seed=5), drawn(1, 3, 4, seed=6), torch.ones(3, 3).tril() > 0),
        (drawn(5, 6, seed=7), drawn(7, 6, seed=8), drawn(7, 4, seed=9), allowed),
        mistakes={
            "masked_attention: nothing is masked": lambda q, k, v, a: scores(q, k).softmax(-1) @ v,
            "masked_attention: the mask is the wrong way round: True means 'may look'": lambda q, k, v, a: _masked(
                q, k, v, ~a
            ),
            "masked_attention: the weights are set to zero after the softmax: then rows no longer add up to 1. Set the "
            "scores to -inf before it": lambda q, k, v, a: scores(q, k).softmax(-1) * a @ v,
            "masked_attention: the scores are set to zero before the softmax: e^0 = 1 still gets weight. Set them to "
            "-inf": lambda q, k, v, a: (scores(q, k) * a).softmax(-1) @ v,
            "masked_attention: 1 is added to allowed scores: that is no mask. Set the others to "
            "-inf": lambda q, k, v, a: (scores(q, k) + a).softmax(-1) @ v,
            "masked_attention: √d is missing in the scores": lambda q, k, v, a: _masked(
                q * q.shape[-1] ** 0.5, k, v, a
            ),
            "masked_attention: the scores are divided by d instead of √d": lambda q, k, v, a: _masked(
                q / q.shape[-1] ** 0.5, k, v, a
            ),
            "masked_attention: these are the weights: multiply them with the values": lambda q, k, v, a: hidden(
                q, k, a
            ).softmax(-1),
            "masked_attention: the softmax runs over the queries: it runs over the keys, the last "
            "axis": lambda q, k, v, a: hidden(q, k, a).softmax(-2) @ v,
        },
        what="masked_attention(q, k, v, allowed)",
    )
    low, seen = torch.tensor([1.0, 1.0, 1.0, -800.0]), torch.ones(4, 4).tril() > 0
    q, k, v = drawn(2, 4, 3, seed=10), drawn(2, 4, 3, seed=11), drawn(2, 4, 3, seed=12)
    q, k = F.pad(q, (0, 1), value=1.0), F.pad(k, (0, 1), value=1.0) * low  # all scores are about -400
    found = call(masked_attention, q, k, v, seen)
    if isinstance(found, torch.Tensor) and found.isnan().any():
        raise CheckFailed(
            "masked_attention: where all scores of a row are about -400 the result holds nan, since their exponentials "
            "are 0: use the softmax of 04.1, which subtracts the largest score of each row first"
        )
    close(
        found,
        _masked(q, k, v, seen),
        {
            "masked_attention: forbidden scores are set to a number such as -100, and allowed scores can be lower: set "
            "them to -inf": (q @ k.mT / 2).masked_fill(~seen, -100).softmax(-1) @ v,
        },
        what="for scores of about -400, masked_attention(q, k, v, allowed)",
        tolerance=1e-3,
    )
    passed("04.3", "no token sees a later time index, and all see their own; forbidden keys get nothing.")


def _masked(q, k, v, allowed):
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf)
    return scores.softmax(-1) @ v


def _check_mask(look_back, nt, s):
    number = torch.arange(int(nt * s))
    time = number // int(s)
    expected = time[None, :] <= time[:, None]
    found = call(look_back, nt, s)
    what = f"look_back(nt={nt}, s={s})"
    if isinstance(found, torch.Tensor) and found.dtype != torch.bool and found.shape == expected.shape:
        kind = str(found.dtype).removeprefix("torch.")
        raise CheckFailed(f"{what} is {kind}, expected bool: True where a query may look, from a comparison")
    same_shape(found, expected, what)
    if torch.equal(found, expected):
        return
    place, late = number % int(s), number // int(nt)
    for message, mask in {
        "this is a triangle of single tokens (tril): those of one time index must see each other, whatever their "
        "number": number[None, :] <= number[:, None],
        "tokens don't see their own time index: <= instead of <": time[None, :] < time[:, None],
        "the mask is the wrong way round: tokens see the present and the future. Rows are queries, columns are "
        "keys": expected.T,
        "True and False have changed places: True means 'may look'": ~expected,
        "tokens see only their own time index: earlier ones are allowed, too": time[None, :] == time[:, None],
        "looks as if token i had the time index i % s: that is its place in space; the time is i // s": (
            place[None, :] <= place[:, None]
        ),
        "looks as if the tokens were numbered space first: token i has the time index i // s, not i % nt": (
            (number % int(nt))[None, :] <= (number % int(nt))[:, None]
        ),
        "looks as if the time index were i // nt: divide by the number of places, s": late[None, :] <= late[:, None],
        "everything is allowed: later time indices must be False": torch.ones_like(expected),
    }.items():
        if torch.equal(found, mask):
            raise CheckFailed(f"{what}: {message}")
    i, j = (found != expected).nonzero()[0].tolist()
    raise CheckFailed(
        f"{what} is {bool(found[i, j])} at [{i}, {j}]: query {i} has the time index {int(time[i])} and key {j} has "
        f"{int(time[j])}, so it must be {bool(expected[i, j])}"
    )


def _why_nan(holes):
    """In words. holes: bool [..., 5, d], where query 1 may look at all keys and the others at some."""
    if holes.all():
        return (
            " everywhere. 0 · inf is nan, so don't multiply by the mask: masked_fill puts -inf where allowed is False"
        )
    if holes.ndim > 1 and holes[..., 1, :].any():
        return (
            ": some query may look at no key at all. Is True taken for 'must not'? Here True means 'may look', so -inf "
            "goes where allowed is False"
        )
    return (
        " for queries with a forbidden key. Forbidden scores are -inf, not inf, and they are set before the softmax, "
        "which runs over the keys"
    )


# ---- 04.4


@exercise
def check_reach(reach: Callable) -> None:
    """04.4: reach(*masks, bool [N, N]) -> on how many tokens the output of token 0 depends after all the layers."""
    telling = [torch.eye(18, dtype=torch.bool) | (drawn(18, 18, seed=301 + k) > 1.3) for k in range(3)]
    _check_count(reach, telling)  # every mistake that is named below gives another number here
    for n, layers, seed in ((9, 3, 22), (10, 2, 1286), (11, 3, 3), (7, 1, 0)):  # mistakes give different numbers
        masks = [torch.eye(n, dtype=torch.bool) | (drawn(n, n, seed=7 * seed + k) > 1.1) for k in range(layers)]
        _check_count(reach, masks)
    time = torch.arange(15) // 5  # of 3 · 5 tokens
    _check_count(reach, [time[None, :] == time[:, None], time[None, :] <= time[:, None]])
    number_of = torch.arange(8)
    _check_count(reach, [number_of == (number_of[:, None] + step) % 8 for step in (1, 2)])  # no token looks at itself
    passed("04.4", "what one layer doesn't reach, two layers reach together.")


def _through(masks, residual=True):
    """After these layers, which output (row) depends on which token (column)."""
    seen = torch.eye(len(masks[0]))
    for mask in masks:
        seen = (mask.float() @ seen + seen * residual > 0).float()
    return seen


def _check_count(reach, masks):
    expected = int(_through(masks)[0].sum())
    copies = [mask.clone() for mask in masks]
    what = f"reach of {len(masks)} mask{'s' * (len(masks) > 1)} on {len(masks[0])} tokens"
    found = number(call(reach, *masks), what, ": the number of tokens")
    if found == expected:
        return
    too_large = " (Or are your tokens larger than 0.1 * torch.randn(...)? Then attention weights are rounded to zero.)"
    too_large *= found < expected
    seen, stacked, n = _through(copies), torch.stack(copies), len(copies[0])
    for message, count in {
        "this counts the tokens that depend on token 0: count those on which token 0 depends": seen[:, 0],
        "the residual connection is missing: a layer gives z + attention(z); here no token looks at itself": _through(
            copies, residual=False
        )[0],
        "the layers come in the reverse order: the first mask belongs to the first layer": _through(copies[::-1])[0],
        "this is the reach of the last layer alone: its inputs have already heard from others": copies[-1][0],
        "this is the reach of the first layer alone": copies[0][0],
        "this counts what one of the masks allows: through two layers a token also hears what others have "
        "heard": stacked[:, 0].any(dim=0),
        "this is the sum over the masks: count each token once": stacked[:, 0],
        "the masks are transposed: row i says at which keys query i may look": _through([m.T for m in copies])[0],
        "only the first two masks are used: there can be more": _through(copies[:2])[0],
        "token 0 itself is missing: its output depends on itself, too": seen[0][1:],
        "this counts all pairs: look at the output of token 0 alone": seen,
        "this is the number of all tokens: look at the output of token 0 alone": torch.ones(n),
    }.items():
        if found == int(count.sum()):
            raise CheckFailed(f"{what} is {found:g}, expected {expected}: {message}{too_large}")
    if found > n:
        raise CheckFailed(
            f"{what} is {found:g}, expected {expected}: this counts numbers, not tokens. A token counts once, if any "
            "of its numbers has a gradient"
        )
    raise CheckFailed(f"{what} is {found:g}, expected {expected}{too_large}")


# ---- 04.5


@exercise
def check_multi_head(MultiHead: Callable) -> None:
    """04.5: MultiHead(dim, heads), a module [B, N, D] -> [B, N, D] with qkv, out and weights(z) [B, heads, N, N]."""
    b, n, dim, heads = 4, 5, 18, 3
    module = made(MultiHead, dim, heads, needs={"qkv": (dim, 3 * dim), "out": (dim, dim)})
    z = drawn(b, n, dim)
    library = nn.MultiheadAttention(dim, heads, batch_first=True)
    _copy(module, library)
    with torch.no_grad():
        expected, weights = library(z, z, z, average_attn_weights=False)
        mistakes = _wrong_heads(module, z, heads)
    found = steady(module, z)
    for message, value in mistakes.items():
        if isinstance(found, torch.Tensor) and found.shape == value.shape and torch.allclose(found, value, atol=1e-5):
            raise CheckFailed(message)
    close(found, expected, what="with torch's weights, MultiHead(18, heads=3)(z)")
    for heads, shape in ((1, (2, 6, 18)), (6, (1, 7, 18)), (2, (3, 4, 18))):
        _compare(MultiHead, nn.MultiheadAttention, dim, heads, drawn(*shape, seed=heads))
    module(z)
    _check_weights(module, z, weights)
    keeps_type(module, z)
    learns(module, z, also=module.parameters())
    if len(list(module.parameters())) != 4:
        raise CheckFailed("the module has other parameters than those of qkv and out: these two layers are enough")
    if getattr(module, "heads", None) != 3:
        raise CheckFailed("the module does not keep the number of heads as self.heads: later chapters read it there")
    passed("04.5", "your module agrees with torch's, for one head and for six, and returns its weights.")


def _check_weights(module, z, expected):
    if not callable(getattr(module, "weights", None)):
        raise CheckFailed("the module has no method weights(z)")
    heads, d = module.heads if isinstance(getattr(module, "heads", None), int) else 3, 6
    with torch.no_grad():
        q, k, _ = module.qkv(z).unflatten(-1, (3, heads, d)).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT
    others = drawn(2, 7, z.shape[-1], seed=8)
    with torch.no_grad():
        q2, k2, _ = module.qkv(others).unflatten(-1, (3, heads, d)).permute(2, 0, 3, 1, 4)
    again = call(lambda module, z: module.weights(z), module.train(), others)
    found = call(lambda module, z: module.weights(z), module, z)
    if isinstance(found, torch.Tensor) and isinstance(again, torch.Tensor) and found.shape == again.shape:
        raise CheckFailed(
            "weights(z) are the same for tokens of two sizes: compute them from the z that is given, not from what "
            "forward has kept"
        )
    close(
        found,
        expected,
        {
            "weights(z) are averaged over the heads: give those of each": expected.mean(dim=1),
            "weights(z) are the scores: the softmax is missing": scores / d**0.5,
            "weights(z) are the scores: √d and the softmax are missing": scores,
            "weights(z) lack √d, the root of the width of a head": scores.softmax(-1),
            "weights(z) are divided by √D: divide by √d, the root of the width of one head": (
                scores / (heads * d) ** 0.5
            ).softmax(-1),
            "weights(z) add up to 1 over the queries: the softmax runs over the keys, the last axis": (
                scores / d**0.5
            ).softmax(-2),
            "weights(z) are those of queries and keys in each other's place": (scores.mT / d**0.5).softmax(-1),
        },
        what="weights(z)",
    )
    close(again, (q2 @ k2.mT / d**0.5).softmax(-1), what="for other tokens, weights(z)")
    learns(module.weights, z)


def _wrong_heads(module, z, heads):
    """{message: what this mistake gives with the module's own layers}."""
    b, n, dim = z.shape
    d = dim // heads
    columns = module.qkv(z)
    q, k, v = columns.chunk(3, dim=-1)

    def split(x):
        return x.reshape(b, n, heads, d).transpose(1, 2)  # [B, heads, N, d]

    def viewed(x):
        return x.reshape(b, heads, n, d)

    def woven(x):
        return x.reshape(b, n, d, heads).permute(0, 3, 1, 2)

    def join(y):
        return y.transpose(1, 2).reshape(b, n, dim)

    y, y_viewed, y_woven = (SDPA(*map(how, (q, k, v))) for how in (split, viewed, woven))
    among_heads = SDPA(*(x.reshape(b, n, heads, d) for x in (q, k, v))).reshape(b, n, dim)
    over_batch = SDPA(*(x.reshape(b, n, heads, d).permute(1, 2, 0, 3) for x in (q, k, v))).permute(2, 0, 1, 3)
    inner = columns.reshape(b, n, heads, 3, d).permute(3, 0, 2, 1, 4)  # (heads three d)
    last = columns.reshape(b, n, heads, d, 3).permute(4, 0, 2, 1, 3)  # (heads d three)
    cut = (
        "looks as if D was split by view(B, heads, N, d): that cuts the tokens into pieces and mixes them. D can be "
        "divided only in place, view(B, N, heads, d), and then transposed"
    )
    weave = "looks as if D was split into (d heads): a head's columns lie side by side, (heads d)"
    order = "the order of the 3·D columns is another: all of Q, then K, then V, and in each head after head: "
    joined = {
        cut: join(y_viewed),
        cut + ".": y_viewed.reshape(b, n, dim),
        weave: y_woven.permute(0, 2, 3, 1).reshape(b, n, dim),
        weave + ".": join(y_woven),
        "the heads are not laid side by side but woven, (d heads): join them as (heads d)": y.permute(
            0, 2, 3, 1
        ).reshape(b, n, dim),
        "the heads are joined in the reverse order": join(y.flip(1)),
        "looks as if the heads of one token attended to each other: the transpose to [B, heads, N, d] is missing "
        "before attention": among_heads,
        "looks as if clips attended to each other: the tokens must be the last axis but one": over_batch.reshape(
            b, n, dim
        ),
        "looks as if there were one head of width D: split D before attending": SDPA(q, k, v),
        "the scores are divided by √D instead of √d, the width of one head": join(
            SDPA(*map(split, (q, k, v)), scale=dim**-0.5)
        ),
        "√d is missing in the scores": join(SDPA(*map(split, (q, k, v)), scale=1.0)),
        "the split is right, but the heads are joined by view or reshape straight from [B, heads, N, d]: transpose "
        "back to [B, N, heads, d] first": y.reshape(b, n, dim),
        order + "(three heads d), not (heads three d)": join(SDPA(*inner)),
        order + "(three heads d), not (heads d three)": join(SDPA(*last)),
        order + "keys stand before queries": join(SDPA(*map(split, (k, q, v)))),
        order + "values stand first": join(SDPA(*map(split, (k, v, q)))),
        order + "values stand before keys": join(SDPA(*map(split, (q, v, k)))),
        "each head's softmax runs over the queries: it runs over the keys, the last axis": join(
            (split(q) @ split(k).mT / d**0.5).softmax(-2) @ split(v)
        ),
    }
    found = {message: module.out(value) for message, value in joined.items()}
    right = join(y)
    return found | {
        "self.out is not applied: W_O mixes the joined heads": right,
        "self.out is applied twice": module.out(module.out(right)),
        "z is added: the residual connection belongs to the block": module.out(right) + z,
        "these are the heads before they are joined": y,
        "these are the heads before they are joined, heads behind tokens": y.transpose(1, 2),
    }


def _copy(module, other):
    """Gives `module`, a reader's MultiHead, the weights of torch's module or the package's."""
    with torch.no_grad():
        if isinstance(other, nn.MultiheadAttention):
            other.in_proj_bias.copy_(drawn(*other.in_proj_bias.shape, seed=5) / 4)  # they begin at zero
            other.out_proj.bias.copy_(drawn(*other.out_proj.bias.shape, seed=6) / 4)
            pairs = ((module.qkv, other.in_proj_weight, other.in_proj_bias), (module.out, *other.out_proj.parameters()))
        else:
            pairs = ((module.qkv, *other.qkv.parameters()), (module.out, *other.out.parameters()))
        for layer, weight, bias in pairs:
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def _compare(MultiHead, Other, dim, heads, z):
    """Fails unless a module of each kind, with the same weights, gives the same; returns the largest difference."""
    torchs = Other is nn.MultiheadAttention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(heads)  # the reader's random numbers go on as if nothing had been drawn
        other = Other(dim, heads, batch_first=True) if torchs else Other(dim, heads)
        module = MultiHead(dim, heads)
    _copy(module, other)
    with torch.no_grad():
        expected = other(z, z, z)[0] if torchs else other(z)
        found = module(z)
    close(found, expected, what=f"with the same weights, MultiHead({dim}, heads={heads})(z)")
    return (found - expected).abs().max().item()


def same_as(MultiHead: Callable, other: Callable) -> None:
    """Compares a MultiHead with torch's nn.MultiheadAttention or the package's MultiHeadAttention, on the same weights.

    Prints that they agree; raises CheckFailed where they do not.
    """
    for heads in (1, 4, 8):
        _compare(MultiHead, other, 128, heads, drawn(2, 64, 128, seed=heads))
    name = f"{other.__module__.split('.')[0]}'s {other.__name__}".replace("vivit_edu's", "the package's")
    print(f"Your MultiHead and {name} give the same, for 1, 4 and 8 heads.")


# ---- 04.6


class _Attention(nn.Module):
    """Multi-head attention whose parts can be replaced by faulty ones. before: applied to the tokens."""

    def __init__(self, dim, heads, *, before=None, split=None, mask=None, after=None):
        super().__init__()
        self.heads, self.before, self.split, self.mask, self.after = heads, before, split, mask, after
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, z):
        z = self.before(z) if self.before else z
        b, n, dim = z.shape
        parts = self.qkv(z).chunk(3, dim=-1)
        if self.split:
            q, k, v = (self.split(x, self.heads) for x in parts)
        else:
            q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        y = SDPA(q, k, v, attn_mask=self.mask(n) if self.mask else None).transpose(1, 2).reshape(b, n, dim)
        y = self.out(y)
        return self.after(y) if self.after else y


class _OverBatch(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads)

    def forward(self, z):
        return self.attention(z, z, z)[0]


def _window(n):
    number = torch.arange(n)
    distance = (number[:, None] - number).abs()
    return (distance.minimum(n - distance) if n > 8 else distance) <= 2  # on a ring, where rolling shows nothing either


def _suspects(dim):
    """(what is wrong or "", module): sound ones first."""
    place = drawn(40, dim, seed=8)
    place[1] = place[0]  # exchanging these two shows nothing
    return [
        ("", _Attention(dim, 3)),
        ("", _Attention(dim, 1)),
        (
            "cuts tokens into pieces by reshape(B, heads, N, d). Property 2 fails: with the tokens in a random order "
            "its outputs are others",
            _Attention(dim, 2, split=lambda x, heads: x.reshape(len(x), heads, x.shape[1], -1)),
        ),
        (
            "attends over the batch. Property 1 fails: a clip alone gives another output than in its batch",
            _OverBatch(dim, 3),
        ),
        (
            "takes something from the clip before (clip 0 from the last one), except in the last clip. Property 1 "
            "fails: compare all clips",
            _Attention(dim, 3, after=lambda y: torch.cat(((y + 0.1 * y.roll(1, 0))[:-1], y[-1:]))),
        ),
        (
            "lets the last clip hear from clip 0 and leaves the other clips alone. Property 1 fails: compare all clips",
            _Attention(dim, 3, before=lambda z: torch.cat((z[:-1], z[-1:] + 0.2 * z[:1] * (len(z) > 1)))),
        ),
        (
            "subtracts the mean of the batch. Property 1 fails: a clip alone gives another output than in its batch",
            _Attention(dim, 3, after=lambda y: y - y.mean(dim=0, keepdim=True)),
        ),
        (
            "adds positions. Property 2 fails: it knows which token is which. Shuffle all of them at random",
            _Attention(dim, 3, before=lambda z: z + place[: z.shape[1]]),
        ),
        (
            "looks only back (a causal mask). Property 2 fails: the order of the tokens matters to it",
            _Attention(dim, 3, mask=lambda n: torch.ones(n, n, dtype=torch.bool).tril()),
        ),
        (
            "looks only at near neighbours. Property 2 fails, but only a random order shows it: reversed or rolled "
            "tokens have the same neighbours",
            _Attention(dim, 3, mask=_window),
        ),
        (
            "gives its outputs in a fixed order. Property 2 fails: shuffled tokens must give outputs that are shuffled "
            "in the same way",
            _Attention(dim, 3, after=lambda y: y.sort(dim=1).values),
        ),
    ]


@exercise
def check_is_sound(is_sound: Callable) -> None:
    """04.6: is_sound(attention, tokens [B, N, D]) -> whether clips keep apart and outputs follow the tokens' order."""
    dim = 12
    for wrong, module in _suspects(dim):
        module.eval()
        for b, n, seed in ((3, 7, 1), (2, 10, 2), (5, 8, 3)):
            tokens = drawn(b, n, dim, seed=seed)
            answer = call(is_sound, module, tokens)
            if answer is None:
                raise CheckFailed("is_sound returns None: does it end in `return ...`?")
            answer = flag(answer, "is_sound(attention, tokens)")
            if not wrong and not answer:
                raise CheckFailed(
                    f"is_sound is False for a sound attention with tokens {list(tokens.shape)}. Are sums compared "
                    "exactly (allow for 1e-4), is the output shuffled like the tokens, and are tokens shuffled along "
                    "their own axis?"
                )
            if wrong and answer:
                raise CheckFailed(f"is_sound is True for a module that {wrong}.")
    nearly = _Attention(dim, 3, after=lambda y: y + 2e-6 * y.mean(dim=0, keepdim=True)).eval()
    if not flag(call(is_sound, nearly, drawn(3, 6, dim)), "is_sound(attention, tokens)"):
        raise CheckFailed("is_sound is False where outputs differ by a millionth, as sums do: allow for about 1e-4")
    passed("04.6", "your test sees through nine faulty modules and believes the sound ones.")


# ---- 04.7


@exercise
def check_block_parts(layer_norm: Callable, MLP: Callable) -> None:
    """04.7: layer_norm(z [..., D], weight [D], bias [D], eps) -> [..., D]; MLP(dim, hidden) on [..., dim]."""
    _check_layer_norm(layer_norm)
    _check_mlp(MLP)
    passed("04.7", "layer_norm gives what torch's gives, and the MLP treats each token separately.")


def _norm(z, weight, bias, eps=1e-5):
    return F.layer_norm(z, z.shape[-1:], weight, bias, eps)


def _check_layer_norm(layer_norm):
    def changed(change, axes=-1):
        """A mistake: change(z, mean, variance, w, b, eps), its mean and variance taken over these axes."""

        def mistake(z, w, b, eps=1e-5):
            return change(z, z.mean(axes, keepdim=True), z.var(axes, keepdim=True, correction=0), w, b, eps)

        return mistake

    def right(z, mean, var, w, b, eps):
        return (z - mean) / (var + eps).sqrt() * w + b

    z = 2 * drawn(3, 4, 6) + drawn(3, 4, 1, seed=1)
    weight, bias = 1 + 0.5 * drawn(6, seed=2), drawn(6, seed=3)
    examine(
        layer_norm,
        _norm,
        (z, weight, bias),
        (z, weight, bias, 0.5),
        (drawn(1, 7, 5, seed=4), drawn(5, seed=5), drawn(5, seed=6)),
        (z[0, 0], weight, bias),
        (torch.full((2, 6), 3.0), weight, bias),
        mistakes={
            "layer_norm: the variance is divided by D - 1: take the mean of the squared differences (correction=0)": (
                lambda z, w, b, eps=1e-5: (z - z.mean(-1, True)) / (z.var(-1, keepdim=True) + eps).sqrt() * w + b
            ),
            "layer_norm: the standard deviation divides by D - 1, and eps is added outside the root": (
                lambda z, w, b, eps=1e-5: (z - z.mean(-1, True)) / (z.std(-1, keepdim=True) + eps) * w + b
            ),
            "layer_norm: mean and variance run over the tokens: each token is treated separately, dim=-1": changed(
                right, -2
            ),
            "layer_norm: mean and variance run over the batch: each token is treated separately, dim=-1": changed(
                right, 0
            ),
            "layer_norm: mean and variance run over tokens and columns together: dim=-1 alone": changed(right, (1, 2)),
            "layer_norm: mean and variance run over everything: dim=-1 alone": changed(right, (0, 1, 2)),
            "layer_norm: it is divided by the variance: divide by its root": changed(
                lambda z, m, v, w, b, eps: (z - m) / (v + eps) * w + b
            ),
            "layer_norm: the mean is not subtracted, neither from z nor in the variance": lambda z, w, b, eps=1e-5: (
                z / ((z**2).mean(-1, keepdim=True) + eps).sqrt() * w + b
            ),
            "layer_norm: the mean is not subtracted": changed(lambda z, m, v, w, b, eps: z / (v + eps).sqrt() * w + b),
            "layer_norm: it is not divided by the standard deviation": changed(
                lambda z, m, v, w, b, eps: (z - m) * w + b
            ),
            "layer_norm: weight and bias are missing": changed(lambda z, m, v, w, b, eps: (z - m) / (v + eps).sqrt()),
            "layer_norm: the bias is missing": changed(lambda z, m, v, w, b, eps: (z - m) / (v + eps).sqrt() * w),
            "layer_norm: the weight is missing": changed(lambda z, m, v, w, b, eps: (z - m) / (v + eps).sqrt() + b),
            "layer_norm: the bias is added before the weight is multiplied": changed(
                lambda z, m, v, w, b, eps: ((z - m) / (v + eps).sqrt() + b) * w
            ),
            "layer_norm: weight and bias have changed places": lambda z, w, b, eps=1e-5: _norm(z, b, w, eps),
            "layer_norm: the mean is added instead of subtracted": changed(
                lambda z, m, v, w, b, eps: (z + m) / (v + eps).sqrt() * w + b
            ),
            "layer_norm: eps has no effect: add it to the variance, under the root": lambda z, w, b, eps=1e-5: _norm(
                z, w, b
            ),
            "layer_norm: eps is missing: add it to the variance, under the root": changed(
                lambda z, m, v, w, b, eps: (z - m) / v.sqrt() * w + b
            ),
            "layer_norm: eps is added to the standard deviation: it belongs under the root": changed(
                lambda z, m, v, w, b, eps: (z - m) / (v.sqrt() + eps) * w + b
            ),
        },
        what="layer_norm(z, weight, bias)",
    )


def _check_mlp(MLP):
    dim, hidden = 6, 15
    module = call(MLP, dim, hidden)
    if not isinstance(module, nn.Module):
        raise CheckFailed(f"MLP({dim}, {hidden}) is {argument_in_words('', module)}, expected an nn.Module")
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    sizes = [(layer.in_features, layer.out_features) for layer in layers]
    if sorted(sizes) != sorted([(dim, hidden), (hidden, dim)]):
        told = ", ".join(f"{start} to {end}" for start, end in sizes) or "none"
        raise CheckFailed(f"MLP(6, 15) has the linear layers {told}: expected 6 to 15 and 15 to 6, made in __init__")
    if any(layer.bias is None for layer in layers):
        raise CheckFailed("MLP: a linear layer has no bias: leave nn.Linear as it comes")
    first, second = sorted(layers, key=lambda layer: layer.in_features)
    z = 2 * drawn(3, 4, dim)
    with torch.no_grad():
        inner = first(z)
        expected = second(F.gelu(inner))
        mistakes = {
            "MLP: the non-linearity is missing: two linear layers in a row are one": second(inner),
            "MLP: the non-linearity is a ReLU: the paper's is GELU": second(F.relu(inner)),
            "MLP: GELU comes after the second layer: it comes between the two": F.gelu(second(inner)),
            "MLP: a second GELU comes at the end: the last layer is linear": F.gelu(expected),
            "MLP: GELU comes before the first layer: it comes between the two": second(first(F.gelu(z))),
            "MLP: GELU is applied twice": second(F.gelu(F.gelu(inner))),
            "MLP: the non-linearity is a sigmoid: the paper's is GELU": second(inner.sigmoid()),
            "MLP: the non-linearity is tanh: the paper's is GELU": second(inner.tanh()),
            "MLP: the non-linearity is SiLU: the paper's is GELU": second(F.silu(inner)),
            "MLP: this is GELU's approximation by tanh: take it exactly, as it comes": second(
                F.gelu(inner, approximate="tanh")
            ),
            "MLP: z is added: the residual connection belongs to the block": expected + z,
        }
    close(steady(module, z), expected, mistakes, what="MLP(6, 15)(z)")
    close(call(module, z[0, 0]), expected[0, 0], what="for one token [6], MLP(6, 15)(z)")
    keeps_type(module, z)
    learns(module, z, also=module.parameters())
    if len(list(module.parameters())) != 4:
        raise CheckFailed("MLP: it has parameters besides those of its two linear layers")
