"""The checks of chapter 08's exercises, the copying of weights behind them, and the chapter's drawings."""

import math

import pytest
import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import nn

from vivit_edu import MultiHeadAttention, TubeletEmbedding, attention_maps, build_model
from vivit_edu.attention import init_attention
from vivit_edu.course.checks import CheckFailed, ch08
from vivit_edu.course.ready import ch08 as finished
from vivit_edu.course.ready.ch05 import ClassifierHead, EncoderBlock

from .cases import run_cases

# ---- 08.1 one head, one token


def look_by_matrix(q, k, v, t, s, over):
    if over == "space":
        k, v = k[t], v[t]
    else:
        k, v = k[:, s], v[:, s]
    scores = k @ q[t, s] / math.sqrt(q.shape[-1])
    return torch.softmax(scores, 0) @ v


def look_by_sum(q, k, v, t, s, over):
    seen = [(t, j) for j in range(k.shape[1])] if over == "space" else [(i, s) for i in range(len(k))]
    scores = torch.stack([(q[t, s] * k[i, j]).sum() for i, j in seen]) / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum()
    return sum(weight * v[i, j] for weight, (i, j) in zip(weights, seen))


def look_by_torch(q, k, v, t, s, over):
    index = (t, slice(None)) if over == "space" else (slice(None), s)
    return F.scaled_dot_product_attention(q[None, t, s], k[index], v[index])[0]


def look_by_tensor_root(q, k, v, t, s, over):
    k, v = (k[t], v[t]) if over == "space" else (k[:, s], v[:, s])
    return ((k @ q[t, s] / torch.sqrt(torch.tensor(q.shape[-1]))).softmax(dim=0) @ v).to(q.dtype)


def looks(keys=None, *, scale=True, soft=True, query=None, values=None):
    """look with something changed."""

    def look(q, k, v, t, s, over):
        index = keys(t, s, over) if keys else (t,) if over == "space" else (slice(None), s)
        seen_k, seen_v = k[index].reshape(-1, k.shape[-1]), (values or v)[index].reshape(-1, v.shape[-1])
        scores = seen_k @ (q[t, s] if query is None else q[query])
        if scale:
            scores = scores / q.shape[-1] ** 0.5
        return (scores.softmax(-1) if soft else scores) @ seen_v

    return look


def look_with_the_keys(q, k, v, t, s, over):
    return look_by_matrix(q, k, k, t, s, over)


def look_the_other_way(q, k, v, t, s, over):
    return look_by_matrix(k, q, v, t, s, over)


def look_at_the_best(q, k, v, t, s, over):
    k, v = (k[t], v[t]) if over == "space" else (k[:, s], v[:, s])
    return v[(k @ q[t, s]).argmax()]


def look_everywhere_else(q, k, v, t, s, over):
    """A token that leaves itself out."""
    k, v = (k[t], v[t]) if over == "space" else (k[:, s], v[:, s])
    scores = k @ q[t, s] / q.shape[-1] ** 0.5
    scores[s if over == "space" else t] = -1e9
    return scores.softmax(-1) @ v


def look_at_others(q, k, v, t, s, over):
    """A token that leaves itself out, by selecting."""
    own, k, v = (s, k[t], v[t]) if over == "space" else (t, k[:, s], v[:, s])
    others = [n for n in range(len(k)) if n != own]
    return (k[others] @ q[t, s] / q.shape[-1] ** 0.5).softmax(0) @ v[others]


def look_by_shares_of_all(q, k, v, t, s, over):
    scores = k @ q[t, s] / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum()
    return weights[t] @ v[t] if over == "space" else weights[:, s] @ v[:, s]


def look_scales_q_in_place(q, k, v, t, s, over):
    q /= q.shape[-1] ** 0.5
    return looks(scale=False)(q, k, v, t, s, over)


test_look = run_cases(
    ch08.check_look,
    right=[look_by_matrix, look_by_sum, look_by_torch, look_by_tensor_root],
    wrong={
        "exchanged": (looks(lambda t, s, over: (t,) if over == "time" else (slice(None), s)), "over the other axis"),
        "always space": (looks(lambda t, s, over: (t,)), "over time it looks at the tokens of its time index too"),
        "if over": (
            looks(lambda t, s, over: (t,) if over else (slice(None), s)),
            "over time it looks at the tokens of its time index too",
        ),
        "k[s]": (looks(lambda t, s, over: (t,) if over == "space" else (s,)), r"looks at k\[s\]"),
        "always time": (looks(lambda t, s, over: (slice(None), s)), "over the other axis"),
        "over == 'Space'": (
            looks(lambda t, s, over: (t,) if over == "Space" else (slice(None), s)),
            "over the other axis",
        ),
        "the whole clip": (looks(lambda t, s, over: (slice(None),)), "all tokens of the clip"),
        "no root": (looks(scale=False), "√d is missing"),
        "no softmax": (looks(soft=False), "softmax is missing"),
        "the first query": (looks(query=(0, 0)), "first token"),
        "keys for values": (look_with_the_keys, "mixes the keys"),
        "keys for queries": (look_the_other_way, "keys and queries are exchanged"),
        "the best only": (look_at_the_best, "the output is wrong"),
        "not itself": (look_everywhere_else, "the token itself is left out"),
        "the others": (look_at_others, "the token itself is left out"),
        "q[s, t]": (
            lambda q, k, v, t, s, over: (k[t] @ q[s, t] / q.shape[-1] ** 0.5).softmax(0) @ v[t],
            r"the query is q\[s, t\]",
        ),
        "softmax of all": (look_by_shares_of_all, "softmax runs over all tokens of the clip"),
        "in place": (look_scales_q_in_place, "changes the q"),
        "detached": (lambda q, k, v, *rest: look_by_matrix(q.detach(), k, v, *rest), "no gradient reaches argument 1"),
        "item": (
            lambda q, k, v, *rest: torch.tensor(look_by_matrix(q, k, v, *rest).tolist()),
            "no gradient reaches",
        ),
        "all queries of the time": (
            lambda q, k, v, t, s, over: F.scaled_dot_product_attention(q[t], k[t], v[t]),
            "2 axes instead of 1",
        ),
        "weights only": (
            lambda q, k, v, t, s, over: (k[t] @ q[t, s] / q.shape[-1] ** 0.5).softmax(-1),
            r"expected \[5\]",
        ),
        "no return": (lambda *a: None, "return"),
    },
)

# ---- 08.2 all tokens at once


def over_space_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def over_time_by_torch(q, k, v):
    q, k, v = q.transpose(2, 3), k.transpose(2, 3), v.transpose(2, 3)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3)


def over_space_folded(q, k, v):
    b = len(q)
    q, k, v = (rearrange(x, "b heads nt s d -> (b nt) heads s d") for x in (q, k, v))
    y = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return rearrange(y, "(b nt) heads s d -> b heads nt s d", b=b)


def over_time_folded(q, k, v):
    b = len(q)
    q, k, v = (rearrange(x, "b heads nt s d -> (b s) heads nt d") for x in (q, k, v))
    y = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return rearrange(y, "(b s) heads nt d -> b heads nt s d", b=b)


def over_space_by_sums(q, k, v):
    scores = einsum(q, k, "b heads nt s d, b heads nt key d -> b heads nt s key") / q.shape[-1] ** 0.5
    return einsum(scores.softmax(-1), v, "b heads nt s key, b heads nt key d -> b heads nt s d")


def over_time_by_sums(q, k, v):
    scores = einsum(q, k, "b heads nt s d, b heads key s d -> b heads nt s key") / q.shape[-1] ** 0.5
    return einsum(scores.softmax(-1), v, "b heads nt s key, b heads key s d -> b heads nt s d")


def over_space_by_loops(q, k, v):
    return torch.stack(
        [F.scaled_dot_product_attention(q[:, :, t], k[:, :, t], v[:, :, t]) for t in range(q.shape[2])], 2
    )


def over_time_by_loops(q, k, v):
    places = range(q.shape[3])
    return torch.stack([F.scaled_dot_product_attention(q[:, :, :, s], k[:, :, :, s], v[:, :, :, s]) for s in places], 3)


def both(space=over_space_by_torch, time=over_time_by_torch):
    """A check of one argument, for run_cases: the two functions together."""
    return space, time


def time_with(change, back):
    """over_time with another way to exchange the axes and to put them back."""

    def attend_over_time(q, k, v):
        y = F.scaled_dot_product_attention(*(change(x) for x in (q, k, v)))
        return back(y, q.shape)

    return attend_over_time


def turned(x):
    return x.transpose(2, 3)


def recut(x):
    b, heads, nt, s, d = x.shape
    return x.reshape(b, heads, s, nt, d)


def over_everything(q, k, v):
    flat = [x.flatten(2, 3) for x in (q, k, v)]
    return F.scaled_dot_product_attention(*flat).view(q.shape)


def over_heads(q, k, v):
    return over_time_by_torch(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def unscaled(q, k, v):
    return (q @ k.mT).softmax(-1) @ v


def time_turns_only_q(q, k, v):
    return F.scaled_dot_product_attention(q.transpose(2, 3), k, v).transpose(2, 3)


def folds_wrong(q, k, v):
    b = len(q)
    q, k, v = (rearrange(x, "b heads nt s d -> (b s) heads nt d") for x in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v)
    return rearrange(y, "(s b) heads nt d -> b heads nt s d", b=b)


def named(name, *functions):
    """Functions that an exercise builds together, under a name for the test."""
    return type(name, (), {"pair": functions})


def check_pair(solution):
    ch08.check_attend_over(*getattr(solution, "pair", solution))


test_attend_over = run_cases(
    check_pair,
    right=[
        named("by torch", over_space_by_torch, over_time_by_torch),
        named("folded", over_space_folded, over_time_folded),
        named("by sums", over_space_by_sums, over_time_by_sums),
        named("by loops", over_space_by_loops, over_time_by_loops),
    ],
    wrong={
        "exchanged": (both(over_time_by_torch, over_space_by_torch), "this is attention over time"),
        "space twice": (both(time=over_space_by_torch), "this is attention over space"),
        "not put back": (both(time=time_with(turned, lambda y, shape: y)), "another order.*places before the times"),
        "put back by reshape": (both(time=time_with(turned, lambda y, shape: y.reshape(shape))), "put back by a resh"),
        "exchanged by reshape": (both(time=time_with(recut, lambda y, shape: y.reshape(shape))), "exchanged by a resh"),
        "everything": (both(space=over_everything), "all tokens of its clip"),
        "everything over time": (both(time=over_everything), "all tokens of its clip"),
        "heads": (both(time=over_heads), "heads look at each other"),
        "no root": (both(space=unscaled), "√d is missing"),
        "q turned alone": (both(time=time_turns_only_q), "alike"),
        "v not turned": (
            both(time=lambda q, k, v: F.scaled_dot_product_attention(turned(q), turned(k), v).transpose(2, 3)),
            "alike",
        ),
        "softmax over queries": (
            both(space=lambda q, k, v: (q @ k.mT / q.shape[-1] ** 0.5).softmax(-2) @ v),
            "softmax runs over the queries",
        ),
        "unfolded in another order": (both(time=folds_wrong), "attend_over_time.* is wrong in"),
        "detached": (both(space=lambda q, k, v: over_space_by_torch(q, k.detach(), v)), "no gradient reaches k"),
        "keys for values": (both(time=lambda q, k, v: over_time_by_torch(q, k, k)), "mixes the keys"),
        "averaged": (both(space=lambda q, k, v: v.mean(3, keepdim=True).expand_as(v)), "(is|are) wrong in"),
        "squeezed": (both(space=lambda *qkv: over_space_by_torch(*qkv).squeeze()), "With other sizes it was right"),
        "no return": (both(time=lambda q, k, v: None), "return"),
    },
)

# ---- 08.3 the attention of Model 4


class InOneGo(nn.Module):
    def __init__(self, dim, heads, space_heads):
        super().__init__()
        self.heads, self.space_heads = heads, space_heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        init_attention(self)

    def split(self, z):
        return rearrange(self.qkv(z), "b nt s (three heads d) -> three b heads nt s d", three=3, heads=self.heads)

    def halves(self, z):
        qkv = self.split(z)
        return qkv[:, :, : self.space_heads], qkv[:, :, self.space_heads :]

    def join(self, y_space, y_time):
        y = torch.cat((y_space, y_time), dim=1)
        return self.out(rearrange(y, "b heads nt s d -> b nt s (heads d)"))

    def forward(self, z):
        space, time = self.halves(z)
        return self.join(over_space_by_torch(*space), over_time_by_torch(*time))


class ByView(InOneGo):
    def forward(self, z):
        b, nt, s, dim = z.shape
        q, k, v = self.qkv(z).chunk(3, dim=-1)
        q, k, v = (x.view(b, nt, s, self.heads, -1).permute(0, 3, 1, 2, 4) for x in (q, k, v))
        n = self.space_heads
        space = over_space_by_sums(q[:, :n], k[:, :n], v[:, :n])
        time = over_time_by_sums(q[:, n:], k[:, n:], v[:, n:])
        return self.out(torch.cat((space, time), 1).permute(0, 2, 3, 1, 4).reshape(b, nt, s, dim))


class ByMasks(InOneGo):
    def forward(self, z):
        nt, s = z.shape[1:3]
        token = torch.arange(nt * s)
        same_time, same_place = (x[:, None] == x for x in (token // s, token % s))
        masks = torch.stack([same_time if k < self.space_heads else same_place for k in range(self.heads)])
        q, k, v = self.split(z).flatten(3, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=masks)
        return self.out(rearrange(y, "b heads (nt s) d -> b nt s (heads d)", nt=nt))


class HeadByHead(InOneGo):
    def forward(self, z):
        parts = []
        for head, (q, k, v) in enumerate(zip(*self.split(z).transpose(1, 2))):
            attend = over_space_by_torch if head < self.space_heads else over_time_by_torch
            parts.append(attend(q[:, None], k[:, None], v[:, None])[:, 0])
        return self.out(torch.cat(parts, dim=-1))


def attention(forward=None, init=None):
    """A wrong attention: InOneGo with another forward, or with something done after __init__."""

    class FactorisedAttention(InOneGo):
        def __init__(self, *sizes):
            super().__init__(*sizes)
            if init is not None:
                init(self)

    if forward is not None:
        FactorisedAttention.forward = forward
    return FactorisedAttention


def split_by(pattern):
    def forward(self, z):
        qkv = rearrange(self.qkv(z), f"b nt s {pattern} -> three b heads nt s d", three=3, heads=self.heads)
        space, time = qkv[:, :, : self.space_heads], qkv[:, :, self.space_heads :]
        return self.join(over_space_by_torch(*space), over_time_by_torch(*time))

    return forward


def swapped(self, z):
    space, time = self.halves(z)
    return self.join(over_time_by_torch(*space), over_space_by_torch(*time))


def time_joined_first(self, z):
    space, time = self.halves(z)
    return self.join(over_time_by_torch(*time), over_space_by_torch(*space))


def last_heads_spatial(self, z):
    qkv, n = self.split(z), self.heads - self.space_heads
    return self.join(over_time_by_torch(*qkv[:, :, :n]), over_space_by_torch(*qkv[:, :, n:]))


def always_halves(self, z):
    space, time = self.split(z).chunk(2, dim=2) if self.heads % 2 == 0 else self.halves(z)
    return self.join(over_space_by_torch(*space), over_time_by_torch(*time))


def all_space(self, z):
    return self.join(over_space_by_torch(*self.split(z)), self.split(z)[0][:, :0])


def all_joint(self, z):
    return self.join(over_everything(*self.split(z)), self.split(z)[0][:, :0])


def joined_by_d(self, z):
    space, time = self.halves(z)
    y = torch.cat((over_space_by_torch(*space), over_time_by_torch(*time)), dim=1)
    return self.out(rearrange(y, "b heads nt s d -> b nt s (d heads)"))


def without_out(self, z):
    space, time = self.halves(z)
    y = torch.cat((over_space_by_torch(*space), over_time_by_torch(*time)), dim=1)
    return rearrange(y, "b heads nt s d -> b nt s (heads d)")


def time_recut(self, z):
    space, time = self.halves(z)
    y = F.scaled_dot_product_attention(*time.transpose(3, 4))
    return self.join(over_space_by_torch(*space), y.reshape(time[0].shape))


def wide_root(self, z):
    space, time = self.halves(z * 1)
    d, dim = space.shape[-1], z.shape[-1]
    space, time = ((part[0] * (d / dim) ** 0.5, part[1], part[2]) for part in (space, time))
    return self.join(over_space_by_torch(*space), over_time_by_torch(*time))


def one_after_the_other(self, z):
    """Model 3's way: over time on what the spatial heads gave."""
    qkv = self.split(z)
    y = over_space_by_torch(*qkv)
    return self.join(over_time_by_torch(y, y, y), y[:, :0])


def with_dropout(self, z):
    space, time = self.halves(z)
    return F.dropout(self.join(over_space_by_torch(*space), over_time_by_torch(*time)), 0.1)


def added_up(self, z):
    space, time = self.halves(z)
    return self.out(
        rearrange(over_space_by_torch(*space) + over_time_by_torch(*time), "b heads nt s d -> b nt s (heads d)")
    )


def keys_for_values(self, z):
    q, v, k = self.split(z)
    n = self.space_heads
    y_space, y_time = (
        over_space_by_torch(q[:, :n], k[:, :n], v[:, :n]),
        over_time_by_torch(q[:, n:], k[:, n:], v[:, n:]),
    )
    return self.join(y_space, y_time)


def heads_by_reshape(self, z):
    b, nt, s, _ = z.shape
    qkv = torch.stack([x.reshape(b, self.heads, nt, s, -1) for x in self.qkv(z).chunk(3, dim=-1)])
    space, time = qkv[:, :, : self.space_heads], qkv[:, :, self.space_heads :]
    return self.join(over_space_by_torch(*space), over_time_by_torch(*time))


def joined_by_reshape(self, z):
    space, time = self.halves(z)
    y = torch.cat((over_space_by_torch(*space), over_time_by_torch(*time)), dim=1)
    return self.out(y.reshape(z.shape))


def joined_along_d(self, z):
    space, time = self.halves(z)
    y = torch.cat((over_space_by_torch(*space), over_time_by_torch(*time)), dim=-1)
    return self.out(rearrange(y, "b heads nt s d -> b nt s (heads d)"))


def clips_for_heads(self, z):
    qkv, n = self.split(z), self.space_heads
    return self.join(over_space_by_torch(*qkv[:, :n]), over_time_by_torch(*qkv[:, n:]))


def torchs_start(self):
    self.qkv.reset_parameters()
    self.out.reset_parameters()


def xavier_as_one(self):
    nn.init.xavier_uniform_(self.qkv.weight)


def third_layer(self):
    self.mix = nn.Linear(3, 3)


def no_bias(self):
    self.qkv = nn.Linear(self.qkv.in_features, self.qkv.out_features, bias=False)


def heads_of_the_notebook(self):
    self.heads = 4


test_factorised_attention = run_cases(
    ch08.check_factorised_attention,
    right=[InOneGo, ByView, ByMasks, HeadByHead],
    wrong={
        "space and time exchanged": (attention(swapped), "space and time are exchanged"),
        "joined in another order": (attention(time_joined_first), "outputs of the temporal heads come first"),
        "last heads spatial": (attention(last_heads_spatial), "temporal heads come first"),
        "halves": (attention(always_halves), "half of the heads look over space whatever"),
        "all over space": (attention(all_space), "every head looks over space"),
        "Model 1's": (attention(all_joint), "Model 1's attention"),
        "d before heads": (attention(split_by("(three d heads)")), r"\(three d heads\)"),
        "three last": (attention(split_by("(heads d three)")), r"\(heads d three\)"),
        "keys and values exchanged": (attention(keys_for_values), "keys and values are exchanged"),
        "heads by a reshape": (attention(heads_by_reshape), "heads were made by a reshape"),
        "joined by a reshape": (attention(joined_by_reshape), "heads were joined by a reshape"),
        "joined along d": (attention(joined_along_d), "along the axis of heads, dim=1"),
        "clips sliced": (attention(clips_for_heads), "does it slice the clips"),
        "z added": (attention(lambda self, z: z + InOneGo.forward(self, z)), "z was added"),
        "torch's start": (attention(init=torchs_start), r"init_attention\(self\)"),
        "Xavier for qkv as one": (attention(init=xavier_as_one), r"init_attention\(self\)"),
        "heads before three": (attention(split_by("(heads three d)")), "three comes first"),
        "joined as (d heads)": (attention(joined_by_d), r"numbers of the heads alternate"),
        "no W_O": (attention(without_out), "W_O is missing"),
        "time recut": (attention(time_recut), "cut into other rows"),
        "√D": (attention(wide_root), "divides by √D"),
        "one after the other": (attention(one_after_the_other), "(is|are) wrong in"),
        "added": (attention(added_up), "raised|has shape"),
        "dropout": (attention(with_dropout), "(is|are) wrong in"),
        "no bias": (attention(init=no_bias), "has no bias"),
        "four heads": (attention(init=heads_of_the_notebook), "raised|has shape|(is|are) wrong"),
        "more layers": (attention(init=third_layer), "other parameters"),
        "no split": (MultiHeadAttention, "raised|dropout|expected"),
        "no return": (attention(lambda self, z: None), "return"),
    },
)

# ---- 08.4 nothing hidden


@torch.no_grad()
def moved_by_changes(module, z, clip, t, s):
    changed = z.clone()
    changed[clip, t, s] = torch.randn(z.shape[-1])
    return (module(changed) - module(z)).abs().amax(dim=-1) > 1e-5


def moved_by_isclose(module, z, clip, t, s):
    other = z.detach().clone()
    other[clip, t, s] = -3 * other[clip, t, s].flip(0)
    with torch.no_grad():
        before, after = module(z), module(other)
    return ~torch.isclose(before, after, rtol=1e-4, atol=1e-5).all(dim=-1)


def moved_by_gradients(module, z, clip, t, s):
    leaf, result = z.detach().clone().requires_grad_(), torch.zeros(z.shape[:3], dtype=torch.bool)
    y = (module(leaf) ** 2).sum(dim=-1)
    for place in torch.cartesian_prod(*map(torch.arange, z.shape[:3])).tolist():
        (gradient,) = torch.autograd.grad(y[tuple(place)], leaf, retain_graph=True)
        result[tuple(place)] = gradient[clip, t, s].abs().max() > 1e-6
    return result


def cross_by_moved(module, z):
    for clip in range(z.shape[0]):
        for t in range(z.shape[1]):
            for s in range(z.shape[2]):
                found = moved_by_changes(module, z, clip, t, s)
                found[clip, t] = False
                found[clip, :, s] = False
                if found.any():
                    return False
    return True


def cross_by_gradients(module, z):
    b, nt, s, _ = z.shape
    for clip, i, j in torch.cartesian_prod(torch.arange(b), torch.arange(nt), torch.arange(s)).tolist():
        leaf = z.detach().clone().requires_grad_()
        (g,) = torch.autograd.grad((module(leaf)[clip, i, j] ** 2).sum(), leaf)
        seen = g.abs().amax(dim=-1) > 1e-6
        seen[clip, i], seen[clip, :, j] = False, False
        if seen.any():
            return False
    return True


def cross_off_at_once(module, z):
    """Changes all that a token may not see, at once."""
    with torch.no_grad():
        y, (b, nt, s, _) = module(z), z.shape
        for clip in range(b):
            for i in range(nt):
                for j in range(s):
                    other = torch.randn_like(z)
                    other[clip, i], other[clip, :, j] = z[clip, i], z[clip, :, j]
                    if not torch.allclose(module(other)[clip, i, j], y[clip, i, j], atol=1e-4):
                        return False
    return True


def changes(new="randn", *, all_clips=False, tolerance=1e-5, end=lambda differs: differs, writes=False):
    """moved with something done wrong."""

    @torch.no_grad()
    def moved(module, z, clip, t, s):
        before, changed = module(z), z if writes else z.clone()
        which = slice(None) if all_clips else clip
        changed[which, t, s] = {"randn": torch.randn(z.shape[-1]), "plus": z[which, t, s] + 1}[new]
        return end(((module(changed) - before).abs() > tolerance).any(dim=-1))

    return moved


def compared(moves):
    """moved with another comparison of the outputs."""

    @torch.no_grad()
    def moved(module, z, clip, t, s):
        changed = z.clone()
        changed[clip, t, s] = torch.randn(z.shape[-1])
        return moves(module(changed) - module(z))

    return moved


def cross(moved=moved_by_changes, *, clips=None, tokens=None, look=None, free=("row", "column")):
    """The right test with something left out."""

    def only_the_cross(module, z):
        for clip in range(len(z)) if clips is None else clips:
            for t in range(z.shape[1]):
                for s in range(z.shape[2]):
                    if tokens is not None and (t, s) not in tokens:
                        continue
                    wrong = moved(module, z, clip, t, s)
                    if "row" in free:
                        wrong[clip, t] = False
                    if "column" in free:
                        wrong[clip, :, s] = False
                    if (wrong if look is None else look(wrong, clip)).any():
                        return False
        return True

    return moved_by_changes, only_the_cross


def with_moved(moved):
    return moved, cross_by_moved


def with_cross(only_the_cross):
    return moved_by_changes, only_the_cross


def same_clip_only(wrong, clip):
    return wrong[clip]


def before_and_after(module, z, clip, t, s):
    """Changes the token after the module, not before."""
    y = module(z)
    changed = y.clone()
    changed[clip, t, s] = torch.randn(z.shape[-1])
    return (changed - y).abs().amax(dim=-1) > 1e-5


def writes_into_z(module, z):
    y = module(z)
    z[0, 0, 0] += 1
    return torch.allclose(module(z)[:, 1:, 1:], y[:, 1:, 1:], atol=1e-4)


def leaves_train_mode(module, z):
    module.train()
    return cross_by_moved(module, z)


def check_cross(solution):
    ch08.check_only_the_cross(*getattr(solution, "pair", solution))


test_only_the_cross = run_cases(
    check_cross,
    right=[
        named("by changes", moved_by_changes, cross_by_moved),
        named("by gradients", moved_by_gradients, cross_by_gradients),
        named("at once", moved_by_isclose, cross_off_at_once),
    ],
    wrong={
        "stayed": (with_moved(changes(end=torch.logical_not)), "True and False are exchanged"),
        "all clips": (with_moved(changes(all_clips=True)), "token of every clip was changed"),
        "exactly equal": (with_moved(changes(tolerance=0)), "only by rounding"),
        "nothing moves": (with_moved(lambda module, z, clip, t, s: torch.zeros(z.shape[:3]).bool()), "no output moves"),
        "itself alone": (with_moved(before_and_after), "output of the token itself"),
        "adds one": (with_moved(changes("plus")), "two blocks of Model 4 is wrong|no output moves|token itself"),
        "one clip": (
            with_moved(lambda module, z, clip, t, s: moved_by_changes(module, z, clip, t, s)[clip]),
            "only one clip",
        ),
        "features too": (
            with_moved(lambda module, z, clip, t, s: (module(z.roll(1, 1)) - module(z)).abs() > 1e-5),
            "4 axes instead of 3",
        ),
        "writes into z": (with_moved(changes(writes=True)), "changes the z"),
        "numbers": (with_moved(changes(end=lambda differs: differs.float())), "expected torch.bool"),
        "upwards only": (with_moved(compared(lambda change: (change > 1e-5).any(dim=-1))), r"abs\(\)"),
        "downwards only": (with_moved(compared(lambda change: (change < -1e-5).any(dim=-1))), r"abs\(\)"),
        "all numbers": (with_moved(compared(lambda change: (change.abs() > 1e-5).all(dim=-1))), r"any\(dim=-1\)"),
        "the first number": (with_moved(compared(lambda change: change[..., 0].abs() > 1e-5)), r"any\(dim=-1\)"),
        "always True": (with_cross(lambda module, z: True), "says True"),
        "always False": (with_cross(lambda module, z: False), "says False about the course's"),
        "shapes": (with_cross(lambda module, z: module(z).shape == z.shape), "says True"),
        "one token": (cross(clips=[0], tokens=[(0, 0)]), "says True about"),
        "tolerance of 0": (cross(changes(tolerance=0)), "last digits"),
        "a tolerance of 1": (cross(changes(tolerance=1.0)), "says True"),
        "a tolerance of 0.05": (cross(changes(tolerance=0.05)), "far larger than rounding"),
        "the first clip only": (cross(clips=[0]), "only the second clip leaks"),
        "looks at the same clip": (cross(look=same_clip_only), "each clip hears the clip before"),
        "the row only": (cross(free=("row",)), "says False about"),
        "the column only": (cross(free=("column",)), "says False about"),
        "adds one in the test": (cross(changes("plus")), "LayerNorms"),
        "writes into z in the test": (with_cross(writes_into_z), "changes the z"),
        "moved returned": (with_cross(lambda module, z: moved_by_changes(module, z, 0, 0, 0)), "must be True or False"),
        "left in train mode": (with_cross(leaves_train_mode), "another mode"),
        "no return": (with_cross(lambda module, z: None), "True or False"),
    },
)

# ---- 08.5 Model 4


class Whole(nn.Module):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, space_heads=2):
        super().__init__()
        self.embedding = TubeletEmbedding(clip_shape, dim, tubelet)
        nt, nh, nw = self.embedding.grid
        self.positions = nn.Parameter(0.5 * torch.randn(1, nt, nh * nw, dim))
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, mlp_dim) for _ in range(depth))
        for block in self.blocks:
            block.attention = finished.FactorisedAttention(dim, heads, space_heads)
        self.head = ClassifierHead(dim, classes, "mean")

    def through(self, z):
        for block in self.blocks:
            z = block(z)
        return z

    def forward(self, clips):
        z = self.embedding(clips) + self.positions
        return self.head(self.through(z).flatten(1, 2))


class OwnBlocks(Whole):
    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, space_heads=2):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, space_heads)
        blocks = []
        for _ in range(depth):
            block = EncoderBlock(dim, heads, mlp_dim)
            block.attention = InOneGo(dim, heads, space_heads)
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, clips):
        z = torch.add(self.embedding(clips), self.positions.expand(len(clips), -1, -1, -1))
        return self.head(rearrange(self.through(z), "b nt s d -> b (nt s) d"))


class OtherNames(Whole):
    """Its attention has other names for its heads."""

    def __init__(self, clip_shape, tubelet, classes, dim=32, depth=2, heads=4, mlp_dim=64, space_heads=2):
        super().__init__(clip_shape, tubelet, classes, dim, depth, heads, mlp_dim, space_heads)
        nn.init.normal_(self.positions, std=0.5)
        for block in self.blocks:
            block.attention = HeadsByAnotherName(dim, heads, space_heads)


class HeadsByAnotherName(nn.Module):
    def __init__(self, dim, heads, space_heads):
        super().__init__()
        self.h, self.n = heads, space_heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        init_attention(self)

    def forward(self, z):
        q, k, v = rearrange(self.qkv(z), "b nt s (three heads d) -> three b heads nt s d", three=3, heads=self.h)
        space = over_space_by_torch(q[:, : self.n], k[:, : self.n], v[:, : self.n])
        time = over_time_by_torch(q[:, self.n :], k[:, self.n :], v[:, self.n :])
        return self.out(rearrange(torch.cat((space, time), 1), "b heads nt s d -> b nt s (heads d)"))


class NarrowFirst(Whole):
    """The second linear map of each MLP is made first."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        for block in self.blocks:
            block.mlp = MadeBackwards(*block.mlp)


class MadeBackwards(nn.Module):
    def __init__(self, widen, *rest):
        super().__init__()
        self.narrow = next(part for part in rest if isinstance(part, nn.Linear))
        self.widen = widen

    def forward(self, z):
        return self.narrow(F.gelu(self.widen(z)))


class InSequence(Whole):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.blocks = nn.Sequential(*self.blocks)

    def forward(self, clips):
        z = self.blocks(self.embedding(clips) + self.positions)
        return self.head(z.reshape(len(z), -1, z.shape[-1]))


def model(forward=None, init=None):
    class Model4(Whole):
        def __init__(self, *sizes, **more):
            super().__init__(*sizes, **more)
            if init is not None:
                init(self)

    if forward is not None:
        Model4.forward = forward
    return Model4


def no_positions(self, clips):
    return self.head(self.through(self.embedding(clips)).flatten(1, 2))


def positions_late(self, clips):
    return self.head((self.through(self.embedding(clips)) + self.positions).flatten(1, 2))


def positions_each_time(self, clips):
    z = self.embedding(clips)
    for block in self.blocks:
        z = block(z + self.positions)
    return self.head(z.flatten(1, 2))


def positions_after_each(self, clips):
    z = self.embedding(clips) + self.positions
    for block in self.blocks:
        z = block(z) + self.positions
    return self.head(z.flatten(1, 2))


def mean_over_time(self, clips):
    return self.head(self.through(self.embedding(clips) + self.positions).mean(dim=1))


def first_block(self, clips):
    return self.head(self.blocks[0](self.embedding(clips) + self.positions).flatten(1, 2))


def not_handed_on(self, clips):
    z = self.embedding(clips) + self.positions
    for block in self.blocks:
        y = block(z)
    return self.head(y.flatten(1, 2))


def not_flattened(self, clips):
    return self.head(self.through(self.embedding(clips) + self.positions))


def softmax_last(self, clips):
    return Whole.forward(self, clips).softmax(-1)


def last_time(self, clips):
    return self.head(self.through(self.embedding(clips) + self.positions)[:, -1])


def as_one_sequence(self, clips):
    z = (self.embedding(clips) + self.positions).flatten(1, 2)
    return self.head(self.through(z))


def fixed_grid(self, clips):
    z = self.through(self.embedding(clips) + self.positions)
    return self.head(z.reshape(len(clips), 16, -1))


def model1_attention(self):
    for block in self.blocks:
        block.attention = MultiHeadAttention(12, 6)


def one_attention(self):
    for block in self.blocks:
        block.attention = self.blocks[0].attention


def one_block(self):
    self.blocks = nn.ModuleList([self.blocks[0]] * len(self.blocks))


def plain_list(self):
    blocks = list(self.blocks)
    del self.blocks
    self.blocks = blocks


def positions_in_sequence(self):
    self.positions = nn.Parameter(self.positions.data.flatten(1, 2))


def positions_plain(self):
    positions = self.positions.data
    del self.positions
    self.positions = positions


def positions_zero(self):
    nn.init.zeros_(self.positions)


def starts(positions):
    def init(self):
        self.positions = nn.Parameter(positions(self.positions.shape))

    return init


def two_classes(self):
    self.head = ClassifierHead(12, 2, "mean")


def mlps_of_64(self):
    for block in self.blocks:
        block.mlp = EncoderBlock(12, 6, 64).mlp


def four_heads(self):
    for block in self.blocks:
        block.attention = finished.FactorisedAttention(12, 4, 3)


def always_half(self):
    for block in self.blocks:
        block.attention.space_heads = 3


test_model4 = run_cases(
    ch08.check_model4,
    right=[Whole, OwnBlocks, InSequence, OtherNames, NarrowFirst],
    wrong={
        "no positions": (model(no_positions), "positions are not used"),
        "positions late": (model(positions_late), "after the blocks"),
        "positions each time": (model(positions_each_time), "before every block"),
        "first block": (model(first_block), "only the first block"),
        "not handed on": (model(not_handed_on), "only the last block"),
        "not flattened": (model(not_flattened), "(has|have) shape"),
        "softmax": (model(softmax_last), "softmax follows"),
        "last time": (model(last_time), "last time index only"),
        "one sequence": (model(as_one_sequence), "raised"),
        "a fixed grid": (model(fixed_grid), "raised"),
        "Model 1's attention": (model(init=model1_attention), "Model 1's attention"),
        "one attention": (model(init=one_attention), "share one attention"),
        "one block": (model(init=one_block), "different blocks is 1"),
        "a list": (model(init=plain_list), "nn.ModuleList"),
        "positions in a sequence": (model(init=positions_in_sequence), r"has shape \[1, 30, 12\]"),
        "plain positions": (model(init=positions_plain), "expected an nn.Parameter"),
        "zero positions": (model(init=positions_zero), "standard deviation of 0"),
        "the package's positions": (model(init=starts(lambda shape: 0.02 * torch.randn(shape))), "deviation of 0.0"),
        "positions of 1": (model(init=starts(torch.randn)), r"start at 0\.5"),
        "positions from 0 to 1": (model(init=starts(torch.rand)), r"start at 0\.5"),
        "positions around 0.5": (model(init=starts(lambda shape: 0.5 + 0.5 * torch.randn(shape))), r"start at 0\.5"),
        "two classes": (model(init=two_classes), "with classes=7 there are 2 logits"),
        "MLPs of 64": (model(init=mlps_of_64), "with mlp_dim=20 the MLP is 64 wide"),
        "four heads": (model(init=four_heads), "attention has 4 heads, 3 of them over space"),
        "the first token": (
            model(init=lambda self: setattr(self, "head", ClassifierHead(12, 7, "cls"))),
            "first token only",
        ),
        "positions after each": (model(positions_after_each), "after every block again"),
        "mean over time": (model(mean_over_time), "averaged over time before the head"),
        "space_heads not passed on": (model(init=always_half), "3 of them over space: pass both on"),
        "no return": (model(lambda self, clips: None), "return"),
    },
)

# ---- 08.6 masks


def masks_of(nt, s):
    token = torch.arange(nt * s)
    time, place = token // s, token % s
    return time[:, None] == time, place[:, None] == place


def stacked(nt, s, heads, space_heads):
    space, time = masks_of(nt, s)
    return torch.stack([space] * space_heads + [time] * (heads - space_heads))


def by_kron(nt, s, heads, space_heads):
    space = torch.kron(torch.eye(nt), torch.ones(s, s)) > 0
    time = torch.kron(torch.ones(nt, nt), torch.eye(s)) > 0
    return torch.cat(
        (repeat(space, "q k -> h q k", h=space_heads), repeat(time, "q k -> h q k", h=heads - space_heads))
    )


def by_loop(nt, s, heads, space_heads):
    mask = torch.zeros(heads, nt * s, nt * s, dtype=torch.bool)
    for head in range(heads):
        for query in range(nt * s):
            for key in range(nt * s):
                mask[head, query, key] = query // s == key // s if head < space_heads else query % s == key % s
    return mask


def counted_by_place(nt, s, heads, space_heads):
    token = torch.arange(nt * s)
    time, place = token % nt, token // nt
    return torch.stack([time[:, None] == time] * space_heads + [place[:, None] == place] * (heads - space_heads))


def counted_by_nt(nt, s, heads, space_heads):
    token = torch.arange(nt * s)
    time, place = token // nt, token % nt
    return torch.stack([time[:, None] == time] * space_heads + [place[:, None] == place] * (heads - space_heads))


def masked_by_torch(attention, z, masks):
    q, k, v = attention.split(z)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=masks)
    return attention.out(rearrange(y, "b heads n d -> b n (heads d)"))


def masked_by_fill(attention, z, masks):
    q, k, v = attention.split(z)
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(masks.logical_not(), float("-inf"))
    return attention.out((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


def masked_by_qkv(attention, z, masks):
    q, k, v = rearrange(attention.qkv(z), "b n (three heads d) -> three b heads n d", three=3, heads=attention.heads)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=masks)
    return attention.out(rearrange(y, "b heads n d -> b n (heads d)"))


def by_hand(weights):
    """with_masks with weights computed from scores and masks in another way."""

    def with_masks(attention, z, masks):
        q, k, v = attention.split(z)
        return attention.out(
            rearrange(weights(q @ k.mT, masks, q.shape[-1] ** 0.5) @ v, "b heads n d -> b n (heads d)")
        )

    return stacked, with_masks


def masked_by_bias(attention, z, masks):
    q, k, v = attention.qkv(z).chunk(3, dim=-1)
    q, k, v = (x.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for x in (q, k, v))
    bias = torch.zeros(masks.shape, dtype=z.dtype).masked_fill(~masks, float("-inf"))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return attention.out(y.transpose(1, 2).reshape(z.shape))


def masked(change=lambda masks: masks, join="(heads d)", out=True):
    def with_masks(attention, z, masks):
        y = F.scaled_dot_product_attention(*attention.split(z), attn_mask=change(masks))
        y = rearrange(y, f"b heads n d -> b n {join}")
        return attention.out(y) if out else y

    return stacked, with_masks


def only(head_masks):
    """A wrong head_masks with a right with_masks."""
    return head_masks, masked_by_torch


def check_masks(solution):
    ch08.check_head_masks(*getattr(solution, "pair", solution))


test_head_masks = run_cases(
    check_masks,
    right=[
        named("by torch", stacked, masked_by_torch),
        named("by fill", by_kron, masked_by_fill),
        named("by bias", by_loop, masked_by_bias),
        named("by qkv", stacked, masked_by_qkv),
    ],
    wrong={
        "inverted": (only(lambda *a: ~stacked(*a)), "True and False are exchanged"),
        "exchanged": (
            only(lambda *a: torch.stack([masks_of(*a[:2])[head < a[3]] for head in range(a[2])])),
            "space and time are exchanged",
        ),
        "temporal heads first": (only(lambda *a: stacked(*a).flip(0)), "exchanged|temporal heads come first"),
        "counted by place": (only(counted_by_place), "counted place by place"),
        "both for all": (
            only(lambda nt, s, h, n: (masks_of(nt, s)[0] | masks_of(nt, s)[1]).expand(h, -1, -1)),
            "both masks",
        ),
        "and": (
            only(lambda nt, s, h, n: (masks_of(nt, s)[0] & masks_of(nt, s)[1]).expand(h, -1, -1)),
            "own token alone",
        ),
        "always half": (only(lambda nt, s, h, n: stacked(nt, s, h, h // 2)), "whatever space_heads says"),
        "alternate": (only(lambda nt, s, h, n: torch.stack([masks_of(nt, s)[k % 2] for k in range(h)])), "alternate"),
        "no head axis": (only(lambda *a: stacked(*a)[0]), "2 axes instead of 3"),
        "numbers": (only(lambda *a: stacked(*a).float()), "float32, expected bool"),
        "causal": (only(lambda *a: stacked(*a).tril()), "tril"),
        "not itself": (
            only(lambda nt, s, h, n: stacked(nt, s, h, n) & ~torch.eye(nt * s).bool()),
            "does not see itself",
        ),
        "at least one for space": (only(lambda nt, s, h, n: stacked(nt, s, h, max(n, 1))), "(is|are) wrong in"),
        "a list": (only(lambda *a: list(stacked(*a))), "is a list"),
        "the notebook's grid": (only(lambda nt, s, h, n: stacked(4, 4, h, n)), "(has|have) shape"),
        "no return": (only(lambda *a: None), "return"),
        "masks ignored": (masked(lambda masks: None), "masks are not used"),
        "masks inverted": (masked(lambda masks: ~masks), "other way round"),
        "masks turned": (masked(lambda masks: masks.mT), "query and key are exchanged"),
        "the first mask": (masked(lambda masks: masks[:1]), "first mask"),
        "masks added": (masked(lambda masks: masks.float()), "added to the scores"),
        "joined as (d heads)": (masked(join="(d heads)"), "alternate"),
        "no W_O": (masked(out=False), "W_O is missing"),
        "n // nt": (only(counted_by_nt), "n // s, and its place n % s"),
        "multiplied after the softmax": (
            by_hand(lambda scores, masks, root: (scores / root).softmax(-1) * masks),
            "no longer add up to 1",
        ),
        "filled with 0": (
            by_hand(lambda scores, masks, root: (scores / root).masked_fill(~masks, 0).softmax(-1)),
            "a score like any other",
        ),
        "no root": (
            by_hand(lambda scores, masks, root: scores.masked_fill(~masks, -math.inf).softmax(-1)),
            "√d is missing",
        ),
        "heads last": (masked(lambda masks: masks.transpose(0, 1)), "as they are"),
        "masks over the batch": (masked(lambda masks: masks[:, None]), "raised"),
        "nothing from with_masks": ((stacked, lambda *a: None), "return"),
    },
)

# ---- 08.7 the order of the heads


def swap(rows):
    first, second = rows.chunk(2)
    return torch.cat((second, first))


def by_cat(weight, bias, out):
    weight = torch.cat([swap(part) for part in weight.chunk(3)])
    bias = torch.cat([swap(part) for part in bias.chunk(3)])
    return weight, bias, torch.cat(out.chunk(2, dim=1)[::-1], dim=1)


def by_index(weight, bias, out):
    dim = len(out)
    order = torch.arange(3 * dim).view(3, 2, dim // 2).flip(1).flatten()
    return weight[order], bias[order], out[:, order[:dim]]


def by_roll(weight, bias, out):
    dim = len(out)
    rolled = [p.view(3, dim, *p.shape[1:]).roll(dim // 2, dims=1).reshape(p.shape) for p in (weight, bias)]
    return [*rolled, out.roll(dim // 2, dims=1)]


def by_slices(weight, bias, out):
    h = len(out) // 2
    parts = [
        slice(h, 2 * h),
        slice(0, h),
        slice(3 * h, 4 * h),
        slice(2 * h, 3 * h),
        slice(5 * h, 6 * h),
        slice(4 * h, 5 * h),
    ]
    return (
        torch.cat([weight[p] for p in parts]),
        torch.cat([bias[p] for p in parts]),
        torch.cat((out[:, h:], out[:, :h]), 1),
    )


def in_place(weight, bias, out):
    dim = len(out)
    for part in range(3):
        rows = slice(part * dim, (part + 1) * dim)
        weight[rows] = swap(weight[rows].clone())
        bias[rows] = swap(bias[rows].clone())
    return weight, bias, out.roll(dim // 2, dims=1)


def right(weight, bias, out):
    return by_cat(weight, bias, out)


def columns(weight):
    return swap(weight.T).T


test_space_first = run_cases(
    ch08.check_space_first,
    right=[by_cat, by_index, by_roll, by_slices],
    wrong={
        "as a whole": (lambda w, b, o: (swap(w), swap(b), columns(o)), "as a whole"),
        "rows of out": (lambda w, b, o: (*right(w, b, o)[:2], swap(o)), "by its columns"),
        "rows and columns of out": (lambda w, b, o: (*right(w, b, o)[:2], columns(swap(o))), "exchanged too"),
        "columns of qkv": (lambda w, b, o: (columns(w), *right(w, b, o)[1:]), "columns of qkv_weight were exchanged:"),
        "rows and columns of qkv": (lambda w, b, o: (columns(right(w, b, o)[0]), *right(w, b, o)[1:]), "exchanged too"),
        "bias left": (lambda w, b, o: (right(w, b, o)[0], b, right(w, b, o)[2]), "qkv_bias was left as it was"),
        "out left": (lambda w, b, o: (*right(w, b, o)[:2], o), "out_weight was left as it was"),
        "queries only": (
            lambda w, b, o: (*(torch.cat([swap(p[: len(o)]), p[len(o) :]]) for p in (w, b)), columns(o)),
            "only the queries were moved",
        ),
        "values left": (
            lambda w, b, o: (
                *(torch.cat([*(swap(part) for part in p.chunk(3)[:2]), p.chunk(3)[2]]) for p in (w, b)),
                columns(o),
            ),
            "values were left",
        ),
        "reversed": (
            lambda w, b, o: (*(torch.cat([x.flip(0) for x in p.chunk(3)]) for p in (w, b)), o.flip(1)),
            "all rows were reversed",
        ),
        "all flipped": (lambda w, b, o: (w.flip(0), b.flip(0), columns(o)), "another order"),
        "nothing": (lambda w, b, o: (w, b, o), "qkv_weight was left as it was"),
        "in place": (in_place, "changes the weight"),
        "detached": (lambda w, b, o: right(w.data, b.data, o.data), "no gradient reaches"),
        "one thing": (lambda w, b, o: right(w, b, o)[0], "expected 3 things"),
        "a dict": (lambda w, b, o: {"qkv.weight": w}, "expected 3 things"),
        "no return": (lambda w, b, o: None, "return"),
    },
)

# ---- copying weights


def test_parity_is_with_any_right_module_and_refuses_wrong_ones(capsys):
    ch08.same_attention(ByMasks)
    ch08.same_model4(OwnBlocks)
    assert capsys.readouterr().out.count("agree in all") == 2
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch08.same_attention(attention(swapped))
    with pytest.raises(CheckFailed, match="differ by up to"):
        ch08.same_model4(model(no_positions))


def test_heads_are_moved_in_every_block():
    model = build_model("factorised_dot_product", dim=16, depth=2, heads=4, mlp_dim=8).eval()
    there = ch08.heads_exchanged(model, by_cat)
    clips = torch.rand(2, 1, 28, 28, 28)
    with torch.no_grad():
        assert torch.equal(ch08.heads_exchanged(there, by_index)(clips), model(clips))
        assert not torch.allclose(there(clips), model(clips), atol=1e-3)


# ---- drawings


def test_drawings():
    from tests.course.test_pictures import assert_readable
    from vivit_edu.course.schematics import dot_product

    clips, found = torch.rand(1, 1, 4, 8, 8), {}
    for name in ("spacetime", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"):
        options = {
            "clip_shape": (1, 4, 8, 8),
            "num_classes": 2,
            "tubelet": (1, 8, 2),
            "dim": 8,
            "depth": 2,
            "mlp_dim": 8,
        }
        found[name] = attention_maps(build_model(name, heads=4, **options), clips)
    rows = [{"row": name, "history": {"loss": [[1, 0.5]] * 3, "val_acc": [[0.2, 0.6]] * 3}} for name in found]
    moved = torch.eye(4).bool()
    mask = torch.zeros(4, 8, 8)
    mask[:, 2:5, 2:5] = 1
    for figure in (
        dot_product.cross(),
        dot_product.moved_maps({"one": moved, "two": ~moved}, (1, 1)),
        dot_product.bar_losses({"one": [[0.7, 0.1]] * 3, "two": [[0.7, 0.6]] * 3}, {"one": "black", "two": "grey"}),
        dot_product.learned_heads(255 * clips[0], mask, found["factorised_dot_product"], (4, 1, 4), (1, 2)),
        dot_product.models_side_by_side(found, 4, 4),
        dot_product.recorded_curves(rows, (0.2, 0.9)),
    ):
        assert_readable(figure)


def test_the_masks_beside_what_was_learned_are_those_of_the_weights():
    """Every learned weight lies where the mask allows it, and rows add up to 1."""
    from vivit_edu.course.schematics.dot_product import _last_of_each_kind, _matrix
    from vivit_edu.models import model_class

    for name in ("spacetime", "factorised_encoder", "factorised_self_attention", "factorised_dot_product"):
        model = build_model(name, clip_shape=(1, 4, 4, 6), num_classes=2, tubelet=(1, 4, 2), dim=8, mlp_dim=8)
        for kind, last in _last_of_each_kind(attention_maps(model, torch.rand(1, 1, 4, 4, 6))).items():
            sees = model_class(name).sees(kind, 4, 3)
            learned = torch.from_numpy(_matrix(last, len(sees), 4, 3))
            assert not learned[~sees].any()
            torch.testing.assert_close(learned.sum(dim=-1), torch.ones(len(sees)))
