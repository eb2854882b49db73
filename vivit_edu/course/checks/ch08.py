"""Checks of chapter 08: one head's look, attention over space and over time, Model 4's attention, the test that it
looks nowhere else, the model, its masks, and the order of its heads.

The references compute attention among all N tokens with a mask for each head, another way than the chapter's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...attention import FactorisedDotProductAttention, MultiHeadAttention
from ...models import build_model
from ..ready import ch08 as finished
from ..ready.ch04 import MultiHead
from ..ready.ch05 import EncoderBlock
from . import CheckFailed, call, close, drawn, examine, exercise, flag, kind, learns, passed
from .ch04 import keeps_type, made
from .parity import as_convolution, linears_of, projections, say_difference

# ---- 08.1


def _look(q, k, v, t, s, over, scale=None):
    keys, values = (k[t], v[t]) if over == "space" else (k[:, s], v[:, s])
    return (keys @ q[t, s] * (scale or q.shape[-1] ** -0.5)).softmax(dim=0) @ values


def _look_at_all(q, k, v, t, s, over):
    return (k.flatten(0, 1) @ q[t, s] / q.shape[-1] ** 0.5).softmax(dim=0) @ v.flatten(0, 1)


def _without_itself(q, k, v, t, s, over):
    k = k.clone()
    k[t, s] = -torch.inf * q[t, s].sign()  # its score is -inf
    return _look(q, k, v, t, s, over)


def _softmax_of_all(q, k, v, t, s, over):
    weights = (k @ q[t, s] / q.shape[-1] ** 0.5).flatten().softmax(dim=0).view(k.shape[:2])
    return weights[t] @ v[t] if over == "space" else weights[:, s] @ v[:, s]


def _time_indices_for_places(q, k, v, t, s, over):
    return (k[s] @ q[t, s] / q.shape[-1] ** 0.5).softmax(dim=0) @ v[s]


def _without_softmax(q, k, v, t, s, over):
    keys, values = (k[t], v[t]) if over == "space" else (k[:, s], v[:, s])
    return keys @ q[t, s] / q.shape[-1] ** 0.5 @ values


@exercise
def check_look(look: Callable) -> None:
    """08.1: look(q, k, v, t, s, over), q, k, v [nt, S, d] -> [d], the output of one head for one token."""
    parts = [drawn(3, 4, 5, seed=seed) for seed in range(3)]
    others = [drawn(6, 2, 3, seed=seed) for seed in range(3)]
    examine(
        look,
        _look,
        (*parts, 2, 1, "space"),
        (*parts, 2, 1, "time"),
        (*parts, 0, 3, "space"),
        (*others, 5, 0, "time"),
        (*[drawn(1, 1, 4, seed=seed) for seed in range(3)], 0, 0, "space"),
        mistakes={
            'over time it looks at the tokens of its time index too: compare over == "space" (`if over:` takes "time" '
            "for True as well)": lambda *a: _look(*a[:5], "space"),
            "over time it looks at k[s], all tokens of one time index: the places are the second axis, k[:, s]": (
                _time_indices_for_places
            ),
            "it looks over the other axis: over space at the tokens of its time index, k[t], over time at those of its "
            "place, k[:, s]": lambda *a: _look(*a[:5], "time" if a[5] == "space" else "space"),
            "it looks at all tokens of the clip: take those of its time index, k[t], or of its place, k[:, s]": (
                _look_at_all
            ),
            "the softmax runs over all tokens of the clip: take it over those that this one looks at": _softmax_of_all,
            "the token itself is left out: it is among the tokens that it looks at": _without_itself,
            "the query is q[s, t]: q is [nt, S, d], so take q[t, s]": (
                lambda q, k, v, t, s, over: _look(q[s, t].expand_as(q), k, v, t, s, over)
            ),
            "√d is missing": lambda *a: _look(*a, scale=1.0),
            "it divides by d, not by its root": lambda *a: _look(*a, scale=1 / a[0].shape[-1]),
            "the softmax is missing": _without_softmax,
            "the query is that of the clip's first token: take q[t, s]": (
                lambda q, k, v, t, s, over: _look(q[:1, :1].expand_as(q), k, v, t, s, over)
            ),
            "it mixes the keys: the weights mix the values": lambda q, k, v, *rest: _look(q, k, k, *rest),
            "keys and queries are exchanged: the token at (t, s) asks, with its query": (
                lambda q, k, v, *rest: _look(k, q, v, *rest)
            ),
            "the values are averaged evenly: weigh them": lambda q, k, v, *rest: _look(0 * q, k, v, *rest),
        },
        what="the output",
    )
    passed("08.1", "over space it looks at the tokens of its time index, over time at those of its place.")


# ---- 08.2


def _over(axis, q, k, v, scale=None, dim=-1):
    """Attention along an axis of [B, heads, nt, S, d]."""
    q, k, v = (part.movedim(axis, -2) for part in (q, k, v))
    weights = (q @ k.mT * (scale or q.shape[-1] ** -0.5)).softmax(dim=dim)
    return (weights @ v).movedim(-2, axis)


def _over_all(q, k, v):
    return _over(2, *(part.flatten(2, 3) for part in (q, k, v))).view(q.shape)


def _not_put_back(q, k, v):
    q, k, v = (part.transpose(2, 3) for part in (q, k, v))
    return _over(3, q, k, v)


@exercise
def check_attend_over(attend_over_space: Callable, attend_over_time: Callable) -> None:
    """08.2: attend_over_space and attend_over_time(q, k, v), each [B, heads, nt, S, d] -> the same shape."""
    cases = [
        tuple(drawn(*shape, seed=seed) for seed in range(3))
        for shape in ((2, 3, 4, 5, 6), (1, 2, 6, 3, 4), (3, 1, 1, 2, 5), (2, 4, 3, 1, 2))
    ]
    names = {3: ("space", attend_over_space), 2: ("time", attend_over_time)}
    for axis, (name, function) in names.items():
        examine(
            function,
            lambda *qkv, axis=axis: _over(axis, *qkv),
            *cases,
            mistakes={
                f"this is attention over {names[5 - axis][0]}: the axes are [B, heads, nt, S, d]": (
                    lambda *qkv, axis=axis: _over(5 - axis, *qkv)
                ),
                "every token looks at all tokens of its clip": _over_all,
                "the heads look at each other: they are an axis that stays as it is": lambda *qkv: _over(1, *qkv),
                "the clips of the batch look at each other": lambda *qkv: _over(0, *qkv),
                "√d is missing": lambda *qkv, axis=axis: _over(axis, *qkv, scale=1.0),
                "it divides by d, not by its root": lambda *qkv, axis=axis: _over(
                    axis, *qkv, scale=1 / qkv[0].shape[-1]
                ),
                "the softmax runs over the queries: take it over the keys, the scores' last axis": (
                    lambda *qkv, axis=axis: _over(axis, *qkv, dim=-2)
                ),
                "the result has the places before the times: put the axes back, [B, heads, nt, S, d]": _not_put_back,
                "the axes were put back by a reshape, which cuts the same numbers into other rows: transpose them": (
                    lambda *qkv: _not_put_back(*qkv).reshape(qkv[0].shape)
                ),
                "the axes were exchanged by a reshape, which cuts the same numbers into other rows: transpose them": (
                    lambda q, k, v: _over(
                        3, *(x.reshape(*x.shape[:2], *x.shape[:1:-1][1:], x.shape[-1]) for x in (q, k, v))
                    ).reshape(q.shape)
                ),
                "it mixes the keys: the weights mix the values": lambda q, k, v, axis=axis: _over(axis, q, k, k),
            },
            errors={"must match": "turn the axes of q, k and v alike"},
            what=f"attend_over_{name}(q, k, v)",
        )
    passed("08.2", "each token looks along one axis, and every result is back in its place.")


# ---- 08.3


def _attention(
    z,
    module,
    heads,
    space_heads,
    *,
    masks=None,
    split="(three heads d)",
    join="(heads d)",
    scale=None,
    before=None,
    after=None,
    out=True,
):
    """Model 4's attention with a module's weights, by masks; with a mistake where one is asked for.

    before: what is done to queries, keys and values [3, B, heads, nt, S, d]; after: to the result [B, heads, nt, S, d].
    """
    weight, bias, out_weight, out_bias = projections(module)
    nt, s, d = z.shape[1], z.shape[2], z.shape[3] // heads
    qkv = rearrange(F.linear(z, weight, bias), f"b nt s {split} -> three b heads nt s d", three=3, heads=heads)
    q, k, v = (before(qkv) if before else qkv).flatten(3, 4)
    if masks is None:
        masks = finished.head_masks(nt, s, heads, space_heads)
    scores = (q @ k.mT * (scale or d**-0.5)).masked_fill(~masks, -torch.inf)
    y = rearrange(scores.softmax(dim=-1) @ v, "b heads (nt s) d -> b heads nt s d", nt=nt)
    y = rearrange(after(y) if after else y, f"b heads nt s d -> b nt s {join}")
    return F.linear(y, out_weight, out_bias) if out else y


def _time_first(space_heads):
    return lambda y: torch.cat((y[:, space_heads:], y[:, :space_heads]), dim=1)


def _time_recut(space_heads):
    def recut(y):
        over_time = y[:, space_heads:]
        return torch.cat((y[:, :space_heads], over_time.transpose(2, 3).reshape(over_time.shape)), dim=1)

    return recut


def _heads_recut(qkv):
    """Queries, keys and values whose heads were not split off and moved but cut out of [B, nt, S, D] by a reshape."""
    return rearrange(qkv, "three b heads nt s d -> three b nt s (heads d)").reshape(qkv.shape)


def _recut(y):
    """A result that was not moved back but reshaped to [B, nt, S, D]."""
    b, heads, nt, s, d = y.shape
    return rearrange(y.reshape(b, nt, s, heads * d), "b nt s (heads d) -> b heads nt s d", heads=heads)


def _kinds(z, count, first="space"):
    """Masks of heads of which the first `count[0]` are of one kind and the others, `count[1]`, of the other kind."""
    space, time = finished.head_masks(z.shape[1], z.shape[2], 2, 1)
    one, other = (space, time) if first == "space" else (time, space)
    return torch.stack([one] * count[0] + [other] * count[1])


def _check_start(module, dim):
    """Xavier-uniform weights of each map and no biases, as init_attention draws them."""
    maps = [*module.qkv.weight.chunk(3), module.out.weight]
    drawn_so = all(weight.abs().max() <= (3 / dim) ** 0.5 and weight.std() > 0.7 / dim**0.5 for weight in maps)
    if module.qkv.bias.any() or module.out.bias.any() or not drawn_so:
        raise CheckFailed(
            "the weights are drawn in another way than the package's: end __init__ with init_attention(self)"
        )


@exercise
def check_factorised_attention(FactorisedAttention: Callable) -> None:
    """08.3: FactorisedAttention(dim, heads, space_heads) maps [B, nt, S, D] to the same shape."""
    for dim, heads, of_space in ((24, 6, 2), (15, 5, 4), (8, 4, 2), (6, 3, 0), (6, 3, 3)):
        module = made(FactorisedAttention, dim, heads, of_space, needs={"qkv": (dim, 3 * dim), "out": (dim, dim)})
        if len(list(module.parameters())) != 4:
            raise CheckFailed("the module has other parameters than those of qkv and out: Model 4 adds no weights")
        _check_start(module, dim)
        counts = {"heads": heads, "space_heads": of_space}

        def reference(z, attention, counts=counts, **mistake):
            return _attention(z, attention, **counts, **mistake)

        def by_masks(masks, reference=reference):
            return lambda z, attention: reference(z, attention, masks=masks(z))

        def with_mistake(reference=reference, **mistake):
            return lambda z, attention: reference(z, attention, **mistake)

        half, rest = heads // 2, heads - of_space
        union = lambda z: _kinds(z, (1, 1)).any(dim=0).expand(heads, -1, -1)  # noqa: E731
        examine(
            lambda z, attention: attention(z),
            reference,
            (drawn(2, 3, 5, dim), module),
            (drawn(1, 4, 2, dim, seed=1), module),
            (drawn(3, 1, 4, dim, seed=2), module),
            mistakes={
                "space and time are exchanged: the first space_heads heads look over space": by_masks(
                    lambda z, n=of_space, rest=rest: _kinds(z, (n, rest), "time")
                ),
                "the temporal heads come first: the spatial heads are the first ones": by_masks(
                    lambda z, n=of_space, rest=rest: _kinds(z, (rest, n), "time")
                ),
                "half of the heads look over space whatever space_heads says": by_masks(
                    lambda z, half=half, heads=heads: _kinds(z, (half, heads - half))
                ),
                "every head looks over space": by_masks(lambda z, heads=heads: _kinds(z, (heads, 0))),
                "every head looks over time": by_masks(lambda z, heads=heads: _kinds(z, (0, heads))),
                "every head looks over space and time at once: each head has one of them": by_masks(union),
                "every head looks at all tokens: this is Model 1's attention": by_masks(
                    lambda z: torch.ones(z.shape[1] * z.shape[2], z.shape[1] * z.shape[2], dtype=torch.bool)
                ),
                "the last axis of qkv was read as (three d heads): each head's d numbers lie together, "
                "(three heads d)": with_mistake(split="(three d heads)"),
                "the heads were told apart before queries, keys and values: in the last axis of qkv three comes "
                "first": with_mistake(split="(heads three d)"),
                "the last axis of qkv was read as (heads d three): in it three comes first, (three heads d)": (
                    with_mistake(split="(heads d three)")
                ),
                "keys and values are exchanged: qkv holds queries, keys, values": with_mistake(
                    before=lambda qkv: qkv[[0, 2, 1]]
                ),
                "queries and keys are exchanged: qkv holds queries, keys, values": with_mistake(
                    before=lambda qkv: qkv[[1, 0, 2]]
                ),
                "the heads were made by a reshape, which cuts tokens into pieces: split the last axis into heads and "
                "d, then move the heads (rearrange or permute)": with_mistake(before=_heads_recut),
                "the heads were joined by a reshape, which cuts the numbers into other tokens: move the heads next to "
                "d first (rearrange or permute)": with_mistake(after=_recut),
                "heads were made and joined by a reshape, which cuts tokens into pieces: move the axes (rearrange or "
                "permute)": with_mistake(before=_heads_recut, after=_recut),
                "z was added to the result: the block does that, around the attention": (
                    lambda z, attention, reference=reference: z + reference(z, attention)
                ),
                "the numbers of the heads alternate, (d heads): each head's numbers stay together, (heads d)": (
                    with_mistake(join="(d heads)")
                ),
                "the outputs of the temporal heads come first: Y = Concat(Y_s, Y_t) W_O": with_mistake(
                    after=_time_first(of_space)
                ),
                "the temporal heads' result is cut into other rows: it is [B, heads, nt, S, d] already": with_mistake(
                    after=_time_recut(of_space)
                ),
                "W_O is missing: return self.out(...)": with_mistake(out=False),
                "it divides by √D: each head has the width d": with_mistake(scale=dim**-0.5),
                "√d is missing": with_mistake(scale=1.0),
            },
            errors={
                "except in dimension 1": "does it slice the clips? The heads are axis 1: q[:, :space_heads]",
                "except in dimension": "join the two results along the axis of heads, dim=1",
            },
            gradients=heads > 3,
            what=f"what FactorisedAttention({dim}, {heads}, {of_space}) gives",
        )
    passed("08.3", "each head looks where it may, for every share of the heads, and with Model 1's weights.")


# ---- 08.4


def _of_one_number(number):
    """Model 4's attention of which only one number of each output depends on the tokens."""
    attention = finished.FactorisedAttention(8, 4, 2)
    with torch.no_grad():
        attention.out.weight[torch.arange(8) != number] = 0
    return attention


class _Rounds(finished.FactorisedAttention):
    def forward(self, z):
        y = super().forward(z)
        return y * (1 + 1e-7 * torch.randn_like(y))


class _TimeFirst(finished.FactorisedAttention):
    def forward(self, z):
        return _attention(
            z, self, self.heads, 0, masks=_kinds(z, (self.heads - self.space_heads, self.space_heads), "time")
        )


class _Joint(MultiHeadAttention):
    def forward(self, z):
        return super().forward(z.flatten(1, 2)).view(z.shape)


class _Reshaped(finished.FactorisedAttention):
    def forward(self, z):
        return _attention(z, self, self.heads, self.space_heads, after=_time_recut(self.space_heads))


class _Neighbours(finished.FactorisedAttention):
    def forward(self, z):
        masks = finished.head_masks(z.shape[1], z.shape[2], self.heads, self.space_heads)
        masks[-1] = masks[-1] | masks[-1].roll(1, dims=-1)  # one head looks at the next place too
        return _attention(z, self, self.heads, self.space_heads, masks=masks)


class _SmallLeak(finished.FactorisedAttention):
    def forward(self, z):
        return super().forward(z) + 0.02 * z.mean(dim=(1, 2), keepdim=True)


class _OneLeak(finished.FactorisedAttention):
    def forward(self, z):
        y = super().forward(z)
        leak = torch.zeros_like(y)
        leak[:, -1, -1] = 0.1 * z[:, 0, 0]
        return y + leak


class _OtherClip(finished.FactorisedAttention):
    def forward(self, z):
        return super().forward(z) + 0.1 * z.roll(1, dims=0)


class _SecondClip(finished.FactorisedAttention):
    def forward(self, z):
        y = super().forward(z)
        leak = torch.zeros_like(y)
        leak[1] = 0.1 * z[1].mean(dim=(0, 1))
        return y + leak


def _block(attention=finished.FactorisedAttention):
    block = EncoderBlock(8, 4, 16)
    block.attention = attention(8, 4, 2)
    return block


HONEST = {
    "the course's FactorisedAttention": lambda: finished.FactorisedAttention(8, 4, 2),
    "the package's FactorisedDotProductAttention": lambda: FactorisedDotProductAttention(8, 4),
    "an attention whose temporal heads come first": lambda: _TimeFirst(8, 4, 1),
    "one that looks over space only": lambda: finished.FactorisedAttention(8, 2, 2),
    "a whole encoder block of Model 4": _block,
    "one whose results differ in the last digits from call to call, as on some GPUs. Allow for about 1e-5": (
        lambda: _Rounds(8, 4, 2)
    ),
}
LEAKS = {
    "every head looks at all tokens": (lambda: _Joint(8, 4), "Which outputs may change when one token does?"),
    "one head looks at the next place too": (lambda: _Neighbours(8, 4, 2), "Change every token once."),
    "the temporal heads' result is cut into other rows": (
        lambda: _Reshaped(8, 4, 2),
        "Change every token once, and look at all outputs off its cross.",
    ),
    "a little of the clip's mean is in every output": (
        lambda: _SmallLeak(8, 4, 2),
        "It is small, but far larger than rounding: allow for about 1e-5.",
    ),
    "the last token hears the first one": (lambda: _OneLeak(8, 4, 2), "Change every token once, look at all outputs."),
    "each clip hears the clip before it": (
        lambda: _OtherClip(8, 4, 2),
        "If you change all clips at once, you cannot see it: change a token of one clip.",
    ),
    "only the second clip leaks": (lambda: _SecondClip(8, 4, 2), "Change the tokens of every clip, one at a time."),
    "two blocks, one after the other": (
        lambda: nn.Sequential(_block(), _block()),
        "Blocks have LayerNorms, which take away a number that is added to all features of a token. Put other random "
        "numbers in its place (torch.randn).",
    ),
}


@exercise
def check_only_the_cross(moved: Callable, only_the_cross: Callable) -> None:
    """08.4: moved(module, z, clip, t, s) -> bool [B, nt, S], the outputs that move when one token changes, and
    only_the_cross(module, z) -> whether no output depends on a token off its cross or of another clip."""
    _check_moved(moved)
    for seed, shape in enumerate(((2, 3, 4, 8), (3, 2, 3, 8))):
        z = drawn(*shape, seed=seed)
        for name, make in HONEST.items():
            if not flag(call(only_the_cross, _ready_made(make, seed), z), "the answer"):
                raise CheckFailed(f"your test says False about {name}: it looks nowhere but on the cross")
        for fault, (make, hint) in LEAKS.items():
            if flag(call(only_the_cross, _ready_made(make, seed), z), "the answer"):
                raise CheckFailed(f"your test says True about a module with this fault: {fault}. {hint}")
    passed("08.4", f"your test finds {len(LEAKS)} leaks out of {len(LEAKS)}, and raises no false alarm.")


def _check_moved(moved):
    z, (clip, t, s) = drawn(3, 4, 5, 8), (1, 2, 3)
    cross = torch.zeros(z.shape[:3], dtype=torch.bool)
    whole, neighbour = cross.clone(), cross.clone()
    cross[clip, t] = cross[clip, :, s] = whole[clip] = True
    neighbour[2, t, s] = True
    for name, make, expected in (
        ("Model 4's attention", lambda: finished.FactorisedAttention(8, 4, 2), cross),
        ("an attention whose results differ in the last digits from call to call", lambda: _Rounds(8, 4, 2), cross),
        ("two blocks of Model 4", lambda: nn.Sequential(_block(), _block()), whole),
        ("a module in which each clip hears the clip before it", lambda: _OtherClip(8, 4, 2), cross | neighbour),
    ):
        what = f"moved(module, z, {clip}, {t}, {s}) of {name}"
        found = call(moved, _ready_made(make, 0), z, clip, t, s)
        close(
            found,
            expected,
            {
                "True and False are exchanged: mark the outputs that move": ~expected,
                "no output moves: does the copy hold another token, and did it go through the module?": expected
                & False,
                f"the token of every clip was changed: change that of clip {clip} alone": lambda: torch.stack(
                    [(expected.roll(k, 0)) for k in range(3)]
                ).any(0),
                "only the output of the token itself is marked": lambda: _one(expected, clip, t, s),
                "every output is marked, even those that differ only by rounding: allow for about 1e-5": (
                    torch.ones_like(expected)
                ),
                "the result has only one clip: mark the outputs of all clips, [B, nt, S]": expected[clip],
                "some outputs that move are not marked: take the absolute difference, abs(), and any(dim=-1)": (
                    lambda: found & expected
                ),
            },
            what=what,
        )
        if found.dtype != torch.bool:
            raise CheckFailed(f"{what} is {found.dtype}, expected torch.bool")
    for number in range(8):
        found = call(moved, _ready_made(lambda number=number: _of_one_number(number), 0), z, clip, t, s)
        if not torch.equal(found, cross):
            raise CheckFailed(
                "outputs that move are not marked. In this module only one number of each output moves, up or down: "
                "take the absolute difference, abs(), and any(dim=-1)"
            )


def _one(like, *place):
    marked = torch.zeros_like(like)
    marked[place] = True
    return marked


def _ready_made(make, seed):
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        return make().eval()


# ---- 08.5

_SIZES = {"clip_shape": (2, 9, 8, 25), "tubelet": (3, 4, 5), "classes": 7, "dim": 12, "depth": 3, "heads": 6}
_SIZES |= {"mlp_dim": 20, "space_heads": 3}
_GRID = (3, 2 * 5)  # (nt, S)


@exercise
def check_model4(Model4: Callable) -> None:
    """08.5: Model4(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, space_heads) maps clips to logits, as the
    package's model with the same weights does."""
    model = call(Model4, *_SIZES.values())
    if not isinstance(model, nn.Module):
        raise CheckFailed(f"expected a class that inherits from nn.Module, got {kind(model)}")
    _check_parts(model.eval())
    _check_sizes(model)
    _fill(model)
    for block in model.blocks:
        _check_heads(block.attention, _SIZES["space_heads"])
    for b in (4, 1):
        clips = drawn(b, *_SIZES["clip_shape"], seed=b).sigmoid()  # in [0, 1]
        found = call(model.forward, clips)
        with torch.no_grad():
            _compare_logits(found, model, clips)
            close(
                found,
                model4_in_the_package(model, **_SIZES)(clips),
                {'the head takes the first token only: pool="mean"': lambda: _first_token(model, clips)},
                what="the logits, compared with the package's,",
                tolerance=1e-4,
            )
    with torch.no_grad():
        close(call(model.train(), clips), found, what="in train mode, where nothing may differ, the logits")
        keeps_type(model.eval(), clips)
    learns(model, clips, also=model.parameters())
    uneven = call(Model4, *(_SIZES | {"space_heads": 1}).values())
    _fill(uneven)
    _check_heads(uneven.blocks[0].attention, 1)
    passed("08.5", "Model 4 gives the package's logits with the same weights.")


def _check_parts(model):
    for name in ("embedding", "blocks", "head"):
        if not isinstance(part := getattr(model, name, None), nn.Module):
            hint = (
                "Use nn.ModuleList, otherwise the optimiser misses the blocks" if name == "blocks" else "see the task"
            )
            raise CheckFailed(f"the model's `{name}` is {kind(part)}, expected a module. {hint}")
    depth, shape = _SIZES["depth"], [1, *_GRID, _SIZES["dim"]]
    if len(model.blocks) != depth or len({id(block) for block in model.blocks}) != depth:
        raise CheckFailed(
            f"with depth={depth}, the number of different blocks is {len(set(map(id, model.blocks)))}: make a new one "
            "for each"
        )
    attentions = [getattr(block, "attention", None) for block in model.blocks]
    if len({id(attention) for attention in attentions}) != depth:
        raise CheckFailed("the blocks share one attention: make a new one for each block")
    for attention in attentions:
        if isinstance(attention, MultiHeadAttention) or type(attention).__name__ == "MultiHead":
            raise CheckFailed(
                "a block still has Model 1's attention: give each block its own FactorisedAttention(dim, heads, "
                "space_heads)"
            )
    positions = getattr(model, "positions", None)
    if not isinstance(positions, nn.Parameter):
        raise CheckFailed(f"`positions` is {kind(positions)}, expected an nn.Parameter of shape {shape}")
    if list(positions.shape) != shape:
        raise CheckFailed(
            f"with {_GRID[0]} time indices of {_GRID[1]} tokens `positions` has shape "
            f"{list(positions.shape)}, expected {shape}: one for each token of the grid"
        )
    spread, mean = positions.detach().std().item(), positions.detach().mean().item()
    if not (0.4 < spread < 0.6 and abs(mean) < 0.15):
        raise CheckFailed(
            f"the positions start with a mean of {mean:.2g} and a standard deviation of {spread:.2g}, expected about 0 "
            "and 0.5: start at 0.5 * torch.randn(…)"
        )


def _check_sizes(model):
    """The MLPs' width and the number of classes are those asked for."""
    widen, _ = linears_of(model.blocks[0].mlp, _SIZES["dim"])
    for what, name, size in (
        ("the MLP is {} wide", "mlp_dim", widen.out_features),
        ("there are {} logits", "classes", model.head.linear.out_features),
    ):
        if size != _SIZES[name]:
            raise CheckFailed(f"with {name}={_SIZES[name]} {what.format(size)}: pass {name} on")


@torch.no_grad()
def _check_heads(attention, space_heads):
    """A block's attention has the heads asked for, by its values."""
    z, dim, heads = drawn(2, 3, 4, _SIZES["dim"]), _SIZES["dim"], _SIZES["heads"]
    close(
        attention(z),
        _attention(z, attention, heads, space_heads),
        {
            f"with heads={heads}, space_heads={space_heads} a block's attention has {count} heads, {of_space} of them "
            "over space: pass both on to FactorisedAttention": lambda count=count, n=of_space: _attention(
                z, attention, count, n
            )
            for count in range(1, dim + 1)
            if dim % count == 0
            for of_space in range(count + 1)
        },
        what="what a block's attention gives",
    )


def _first_token(model, clips):
    z = _through(model.embedding(clips) + model.positions, model.blocks)
    return model.head.linear(model.head.norm(z[:, 0, 0]))


def _compare_logits(found, model, clips):
    grid, blocks = model.embedding(clips), list(model.blocks)

    def run(z=grid, blocks=blocks, positions=model.positions, head=model.head):
        z = z + positions
        for block in blocks:
            z = block(z)
        return head(z.flatten(1, 2))

    def every_block(z=grid, after=0):
        for block in blocks:
            z = block(z + model.positions * (1 - after)) + model.positions * after
        return model.head(z.flatten(1, 2))

    close(
        found,
        run(),
        {
            "the positions are not used: add them before the first block": lambda: run(positions=0),
            "the positions are added before every block: they are added once": every_block,
            "the positions are added before every block again: they are added once": lambda: every_block(
                grid + model.positions
            ),
            "the positions are added after every block again: they are added once": lambda: every_block(
                grid + model.positions, after=1
            ),
            "the tokens were averaged over time before the head: it needs all of them, z.flatten(1, 2)": lambda: (
                model.head(_through(grid + model.positions, blocks).mean(dim=1))
            ),
            "the tokens were averaged over space before the head: it needs all of them, z.flatten(1, 2)": (
                lambda: model.head(_through(grid + model.positions, blocks).mean(dim=2))
            ),
            "the positions are added after the blocks: add them before the first one": lambda: model.head(
                (_through(grid, blocks) + model.positions).flatten(1, 2)
            ),
            "only the first block is used": lambda: run(blocks=blocks[:1]),
            "only the last block's result counts, since each starts from the same z: z = block(z)": lambda: run(
                blocks=blocks[-1:]
            ),
            "no block is used": lambda: run(blocks=[]),
            "the blocks run in reverse order": lambda: run(blocks=blocks[::-1]),
            "the positions are multiplied with the tokens: they are added": lambda: run(
                grid * model.positions, positions=0
            ),
            "the head sees the tokens of the last time index only": lambda: model.head(
                _through(grid + model.positions, blocks)[:, -1]
            ),
            "the head sees the tokens of the first time index only": lambda: model.head(
                _through(grid + model.positions, blocks)[:, 0]
            ),
            "a softmax follows the head: F.cross_entropy takes logits and applies it itself": lambda: run().softmax(-1),
            "these are logits for every time index: the head needs all tokens of a clip in one sequence": lambda: (
                torch.stack([model.head(part) for part in _through(grid + model.positions, blocks).unbind(1)], dim=1)
            ),
        },
        what="the logits",
    )


def _through(z, blocks):
    for block in blocks:
        z = block(z)
    return z


@torch.no_grad()
def _fill(module, std=0.3):
    """Fills all parameters with noise so large that a missing part shows."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.normal_(std=std, generator=generator)


# ---- 08.6


@exercise
def check_head_masks(head_masks: Callable, with_masks: Callable) -> None:
    """08.6: head_masks(nt, s, heads, space_heads) -> bool [heads, N, N], True where a head's query may look, and
    with_masks(attention, z [B, N, D], masks) -> [B, N, D], Model 1's attention with these masks."""

    def masks(nt, s, heads, space_heads):
        time, place = (axis.flatten() for axis in torch.meshgrid(torch.arange(nt), torch.arange(s), indexing="ij"))
        kinds = torch.stack((time[:, None] == time, place[:, None] == place))
        return kinds[(torch.arange(heads) >= space_heads).long()]

    def by_counts(nt, s, heads, space_heads, counted):
        time, place = counted(torch.arange(nt * s))
        kinds = time[:, None] == time, place[:, None] == place
        return torch.stack([kinds[0]] * space_heads + [kinds[1]] * (heads - space_heads))

    def by_place(nt, s, heads, space_heads):
        order = torch.arange(nt * s).view(nt, s).T.flatten()
        return masks(nt, s, heads, space_heads)[:, order][..., order]

    examine(
        head_masks,
        masks,
        *((3, 4, 5, 2), (2, 5, 6, 1), (4, 3, 3, 3), (2, 3, 5, 0), (1, 4, 2, 1), (5, 1, 3, 2)),
        mistakes={
            "True and False are exchanged: a head looks where its mask is True": lambda *a: ~masks(*a),
            "space and time are exchanged: the first heads see the tokens of their time index": (
                lambda nt, s, h, n: torch.cat((masks(nt, s, n, 0), masks(nt, s, h - n, h - n)))
            ),
            "the temporal heads come first, the spatial ones last": lambda *a: masks(*a).flip(0),
            "the tokens are counted place by place: token n has time index n // s and place n % s": by_place,
            "the time index of token n is n // s, and its place n % s: s tokens belong to each time index": (
                lambda nt, s, h, n: by_counts(nt, s, h, n, lambda token: (token // nt, token % nt))
            ),
            "the time index of token n is n // s, not n // nt": (
                lambda nt, s, h, n: by_counts(nt, s, h, n, lambda token: (token // nt, token % s))
            ),
            "every head has both masks at once: a head of Model 4 has one of them": (
                lambda nt, s, h, n: masks(nt, s, 2, 1).any(dim=0).expand(h, -1, -1)
            ),
            "every head sees its own token alone: `&` of both masks": (
                lambda nt, s, h, n: masks(nt, s, 2, 1).all(dim=0).expand(h, -1, -1)
            ),
            "spatial and temporal heads alternate: the first space_heads are spatial": (
                lambda nt, s, h, n: masks(nt, s, 2, 1)[torch.arange(h) % 2]
            ),
            "half of the heads see space whatever space_heads says": lambda nt, s, h, n: masks(nt, s, h, h // 2),
            "no head sees space": lambda nt, s, h, n: masks(nt, s, h, 0),
            "every head sees space": lambda nt, s, h, n: masks(nt, s, h, h),
            "each head looks back only (tril): it may see all of its row or column": lambda *a: masks(*a).tril(),
            "a token does not see itself: it may": lambda nt, s, h, n: masks(nt, s, h, n) & ~torch.eye(nt * s).bool(),
        },
        what="the mask",
    )
    _check_with_masks(with_masks)
    passed("08.6", "each head has its mask, and space has as many heads as you give it.")


def _check_with_masks(with_masks):
    def masked(scores, masks, fill=-torch.inf, dim=-1):
        return scores.masked_fill(~masks, fill).softmax(dim)

    def reference(attention, z, masks, join="(heads d)", out=True, scale=None, weights=masked):
        q, k, v = attention.split(z)
        y = weights(q @ k.mT * (scale or q.shape[-1] ** -0.5), masks) @ v
        y = rearrange(y, f"b heads n d -> b n {join}")
        return attention.out(y) if out else y

    def masks(heads, n, seed=0):
        own = torch.eye(n).bool()  # every query may look at a key, and may not look at another one
        return ((drawn(heads, n, n, seed=seed) > 0) | own) & ~own.roll(1, dims=-1)

    examine(
        with_masks,
        reference,
        (MultiHead(12, 3), drawn(2, 5, 12), masks(3, 5)),
        (MultiHead(8, 4), drawn(1, 7, 8), masks(4, 7, seed=1)),
        mistakes={
            "the masks are not used": lambda a, z, masks: reference(a, z, masks | True),
            "the masks are used the other way round: True is where a query may look": (
                lambda a, z, masks: reference(a, z, ~masks)
            ),
            "query and key are exchanged in the masks: their last axis counts the keys": (
                lambda a, z, masks: reference(a, z, masks.mT)
            ),
            "every head has the first mask": lambda a, z, masks: reference(a, z, masks[:1]),
            "the numbers of the heads alternate, (d heads): each head's numbers stay together, (heads d)": (
                lambda a, z, masks: reference(a, z, masks, join="(d heads)")
            ),
            "the weights were multiplied by the masks, so they no longer add up to 1: set the scores of other pairs to "
            "-inf before the softmax": lambda a, z, masks: reference(
                a, z, masks, weights=lambda x, masks: x.softmax(-1) * masks
            ),
            "the scores of other pairs are 0, which is a score like any other: set them to -inf": (
                lambda a, z, masks: reference(a, z, masks, weights=lambda x, masks: masked(x, masks, fill=0))
            ),
            "the softmax runs over the queries: take it over the keys, the scores' last axis": (
                lambda a, z, masks: reference(a, z, masks, weights=lambda x, masks: masked(x, masks, dim=-2))
            ),
            "√d is missing": lambda a, z, masks: reference(a, z, masks, scale=1.0),
            "W_O is missing: return attention.out(...)": lambda a, z, masks: reference(a, z, masks, out=False),
            "the masks were added to the scores as 0 and 1: give them as bool": lambda a, z, masks: a.out(
                rearrange(
                    F.scaled_dot_product_attention(*a.split(z), attn_mask=masks.to(z.dtype)),
                    "b heads n d -> b n (heads d)",
                )
            ),
        },
        errors={"must match": "masks [heads, N, N] fit the scores [B, heads, N, N] as they are"},
        what="the output of with_masks",
    )


# ---- 08.7


def _halves(rows):
    return torch.cat(rows.chunk(2)[::-1])


def _in_parts(p):
    return torch.cat([_halves(part) for part in p.chunk(3)])


def _some_parts(p, moved):
    """p with the halves of some of queries, keys and values exchanged. moved: a "q", "k" or "v" for each."""
    return torch.cat([_halves(part) if name in moved else part for name, part in zip("qkv", p.chunk(3))])


def _only(moved):
    return lambda w, b, o: (_some_parts(w, moved), _some_parts(b, moved), _halves(o.T).T)


def _left(number):
    """One of the three tensors as it was; it says nothing of the others."""
    return lambda *given: [p if k == number else p[:0] for k, p in enumerate(given)]


def _space_first(weight, bias, out):
    return _in_parts(weight), _in_parts(bias), _halves(out.T).T


@exercise
def check_space_first(space_first: Callable) -> None:
    """08.7: space_first(qkv_weight [3·D, D], qkv_bias [3·D], out_weight [D, D]) -> the same with halves exchanged."""

    def case(dim):
        return drawn(3 * dim, dim), drawn(3 * dim, seed=1), drawn(dim, dim, seed=2)

    examine(
        space_first,
        _space_first,
        case(8),
        case(12),
        case(2),
        mistakes={
            "the rows of qkv were exchanged as a whole: queries, keys and values have two halves each": (
                lambda w, b, o: (_halves(w), _halves(b), _halves(o.T).T)
            ),
            "the rows of out_weight were exchanged: W_O reads the heads' outputs by its columns": (
                lambda w, b, o: (_in_parts(w), _in_parts(b), _halves(o))
            ),
            "the rows of out_weight were exchanged too: only its columns belong to heads": (
                lambda w, b, o: (_in_parts(w), _in_parts(b), _halves(_halves(o).T).T)
            ),
            "the columns of qkv_weight were exchanged: its columns belong to the token, its rows to the heads": (
                lambda w, b, o: (_halves(w.T).T, _in_parts(b), _halves(o.T).T)
            ),
            "the columns of qkv_weight were exchanged too: they belong to the token, not to the heads": (
                lambda w, b, o: (_halves(_in_parts(w).T).T, _in_parts(b), _halves(o.T).T)
            ),
            "the values were left as they were: a head's values move with its queries and keys": _only("qk"),
            "only the queries were moved: a head's keys and values move with them": _only("q"),
            "only the keys were moved: a head's queries and values move with them": _only("k"),
            "only the values were moved: a head's queries and keys move with them": _only("v"),
            "all rows were reversed: exchange the halves and keep the order within each": (
                lambda w, b, o: (*(torch.cat([part.flip(0) for part in p.chunk(3)]) for p in (w, b)), o.flip(1))
            ),
            "queries, keys and values were put in another order": lambda w, b, o: (
                w.flip(0),
                b.flip(0),
                _halves(o.T).T,
            ),
            "qkv_weight was left as it was: its rows belong to heads": _left(0),
            "qkv_bias was left as it was: its numbers belong to heads, like the rows of qkv_weight": _left(1),
            "out_weight was left as it was: its columns belong to heads": _left(2),
        },
        what="qkv_weight, qkv_bias, out_weight",
    )
    passed("08.7", "each head keeps its rows of W_Q, W_K, W_V and its columns of W_O.")


# ---- what the chapter shows


@torch.no_grad()
def same_attention(FactorisedAttention: Callable) -> None:
    """Compares a reader's attention with the package's that has the same weights."""
    mine, theirs, z = FactorisedAttention(24, 4, 2), FactorisedDotProductAttention(24, 4), drawn(2, 3, 5, 24)
    _fill(mine)
    load_into(theirs, mine)
    say_difference("FactorisedAttention", "the package's", mine(z), theirs(z))


@torch.no_grad()
def same_model4(Model4: Callable) -> None:
    """Compares a reader's Model 4 with the package's that has the same weights, on clips of 28³ voxels."""
    sizes = {"clip_shape": (1, 28, 28, 28), "tubelet": (7, 7, 7), "classes": 11, "dim": 64, "depth": 3, "heads": 4}
    sizes |= {"mlp_dim": 128, "space_heads": 2}
    model = Model4(**sizes).eval()
    _fill(model, std=0.2)
    clips = drawn(2, 1, 28, 28, 28).sigmoid()
    say_difference("Model4", "the package's", model(clips), model4_in_the_package(model, **sizes)(clips))


@torch.no_grad()
def heads_exchanged(model: nn.Module, space_first: Callable) -> nn.Module:
    """A copy of the package's Model 4 in which `space_first` was applied to the attention of every block."""
    model = copy.deepcopy(model)
    for block in model.encoder.blocks:
        qkv, out = block.attention.qkv, block.attention.out
        for parameter, value in zip((qkv.weight, qkv.bias, out.weight), space_first(qkv.weight, qkv.bias, out.weight)):
            parameter.copy_(value.clone())
    return model


@torch.no_grad()
def load_into(attention: nn.Module, other: nn.Module) -> None:
    """Copies the weights of an attention into another one with the same parts, whichever tokens each may see."""
    weights = dict(zip(("qkv.weight", "qkv.bias", "out.weight", "out.bias"), projections(other)))
    attention.load_state_dict({name: value.detach().clone() for name, value in weights.items()})


def model4_in_the_package(model: nn.Module, *, classes: int, space_heads: int, **sizes: Any) -> nn.Module:
    """The package's Model 4 with the weights of yours, in eval mode. sizes: yours; half of the heads see space."""
    assert 2 * space_heads == sizes["heads"]
    package = build_model("factorised_dot_product", num_classes=classes, **sizes)
    convolution = as_convolution(model.embedding, sizes["clip_shape"])
    parts = {"embedding.projection": convolution, "encoder.norm": model.head.norm, "head": model.head.linear}
    for k, block in enumerate(model.blocks):
        load_into(package.encoder.blocks[k].attention, block.attention)
        linears = linears_of(block.mlp, sizes["dim"])
        parts |= {f"encoder.blocks.{k}.mlp.{place}": part for place, part in zip((0, 3), linears)}
        parts |= {f"encoder.blocks.{k}.{name}": getattr(block, name) for name in ("norm_attention", "norm_mlp")}
    for name, part in parts.items():
        package.get_submodule(name).load_state_dict(part.state_dict())
    with torch.no_grad():
        package.positions.copy_(model.positions)
    return package.to(model.positions.dtype).eval()
