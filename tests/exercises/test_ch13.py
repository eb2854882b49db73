"""Chapter 13: what its checks accept and refuse."""

import pytest
import torch
from einops import rearrange, reduce, repeat

from vivit_edu.course.checks import ch13
from vivit_edu.explain import attention_maps, masked_logits

from .cases import run_cases


def named(pair, name):
    class Pair(tuple):
        __name__ = name

    return Pair(pair)


# ---- 13.1: weights out of a model


def weights_by_hooks(model, clips):
    found = []

    def look(attention, inputs):
        q, k, v = rearrange(attention.qkv(inputs[0]), "b n (three h d) -> three b h n d", three=3, h=attention.heads)
        found.append((q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1))

    hooks = [block.attention.register_forward_pre_hook(look) for block in model.encoder.blocks]
    model(clips)
    for hook in hooks:
        hook.remove()
    return found


def weights_block_by_block(model, clips):
    z = model.embedding(clips)
    z = rearrange(z, "b t s d -> b (t s) d") + model.positions
    out = []
    for block in model.encoder.blocks:
        qkv = block.attention.qkv(block.norm_attention(z)).chunk(3, dim=-1)
        heads = block.attention.heads
        q, k = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in qkv[:2]]
        scores = torch.matmul(q, k.transpose(-1, -2)) / q.size(-1) ** 0.5
        out.append(torch.softmax(scores, -1))
        z = block(z)
    return out


@torch.no_grad()
def weights_of_the_linear_maps(model, clips):
    outputs = {}
    handles = []
    for i, block in enumerate(model.encoder.blocks):
        handles.append(
            block.attention.qkv.register_forward_hook(lambda m, x, y, i=i: outputs.__setitem__(i, y.detach()))
        )
    try:
        model(clips)
    finally:
        for handle in handles:
            handle.remove()
    result = []
    for i in range(len(outputs)):
        B, n, width = outputs[i].shape
        h = model.config.heads
        q, k, _ = outputs[i].reshape(B, n, 3, h, width // 3 // h).permute(2, 0, 3, 1, 4)
        result.append(torch.einsum("bhid,bhjd->bhij", q, k).div((width // 3 // h) ** 0.5).softmax(dim=3))
    return result


def weights_of_the_package(model, clips):
    return tuple(m.weights for m in attention_maps(model, clips))


def hooked(read, where=lambda block: block.attention, remove=True, order=1):
    """As a student's function, with something done otherwise."""

    def my_weights(model, clips):
        found = []
        hooks = [
            where(block).register_forward_pre_hook(lambda m, x, block=block: found.append(read(block.attention, x[0])))
            for block in model.encoder.blocks
        ]
        model(clips)
        if remove:
            for hook in hooks:
                hook.remove()
        return found[::order]

    return my_weights


def scores(attention, z, scale=0.5, pattern="b n (three h d) -> three b h n d", parts=(0, 1)):
    qkv = rearrange(attention.qkv(z), pattern, three=3, h=attention.heads)
    q, k = qkv[parts[0]], qkv[parts[1]]
    return q @ k.transpose(-2, -1) / q.shape[-1] ** scale


def softmaxed(attention, z, dim=-1, **options):
    return scores(attention, z, **options).softmax(dim=dim)


KEPT = []


def into_a_global_list(model, clips):
    KEPT.extend(hooked(softmaxed)(model, clips))
    return KEPT


def with_the_loops_block(model, clips):
    found, hooks = [], []
    for block in model.encoder.blocks:
        hooks.append(
            block.attention.register_forward_pre_hook(lambda m, x: found.append(softmaxed(block.attention, x[0])))  # noqa: B023
        )
    model(clips)
    for hook in hooks:
        hook.remove()
    return found


def with_a_hook_that_returns(model, clips):
    blocks = model.encoder.blocks
    hooks = [b.attention.register_forward_pre_hook(lambda m, x: softmaxed(m, x[0])) for b in blocks]
    try:
        return model(clips)
    finally:
        for hook in hooks:
            hook.remove()


class Holder:
    def __init__(self, attention):
        self.attention = attention


def outputs_of_attention(model, clips):
    found = []
    hooks = [block.attention.register_forward_hook(lambda m, x, y: found.append(y)) for block in model.encoder.blocks]
    model(clips)
    for hook in hooks:
        hook.remove()
    return found


def left_recording(model, clips):
    record = []
    for block in model.encoder.blocks:
        block.attention.record = record
    model(clips)
    return record


def in_train_mode(model, clips):
    model.train()
    return hooked(softmaxed)(model, clips)


test_weights = run_cases(
    ch13.check_weights,
    right=[weights_by_hooks, weights_block_by_block, weights_of_the_linear_maps, weights_of_the_package],
    wrong={
        "no root": (hooked(lambda a, z: softmaxed(a, z, scale=0)), "not divided by √d"),
        "by d": (hooked(lambda a, z: softmaxed(a, z, scale=1)), "divided by d, not"),
        "by the whole width": (
            hooked(lambda a, z: (scores(a, z, scale=0) / z.shape[-1] ** 0.5).softmax(-1)),
            "whole width D",
        ),
        "scores": (hooked(scores), "softmax is missing"),
        "softmax over queries": (hooked(lambda a, z: softmaxed(a, z, dim=-2)), "over the queries"),
        "q and k swapped": (hooked(lambda a, z: softmaxed(a, z, parts=(1, 0))), "changed places"),
        "q and v": (hooked(lambda a, z: softmaxed(a, z, parts=(0, 2))), "keys come second"),
        "heads inside": (hooked(lambda a, z: softmaxed(a, z, pattern="b n (three d h) -> three b h n d")), "h d"),
        "before the norm": (hooked(softmaxed, where=lambda block: block), "before LayerNorm"),
        "three inside": (
            hooked(lambda a, z: softmaxed(a, z, pattern="b n (h three d) -> three b h n d")),
            "three heads d",
        ),
        "reshaped at once": (hooked(lambda a, z: ch13.reshaped_at_once(Holder(a), z).softmax(-1)), "mixed up"),
        "softmax over heads": (hooked(lambda a, z: softmaxed(a, z, dim=1)), "over the heads"),
        "late block": (with_the_loops_block, "last block's qkv"),
        "hook returns": (with_a_hook_that_returns, "append them and return nothing"),
        "never run": (lambda model, clips: [], "run the model while"),
        "reversed": (hooked(softmaxed, order=-1), "reversed order"),
        "heads averaged": (hooked(lambda a, z: softmaxed(a, z).mean(1)), "heads were averaged"),
        "hooks left": (hooked(softmaxed, remove=False), "hook is left on"),
        "record left": (left_recording, "record is left set"),
        "last layer only": (lambda model, clips: hooked(softmaxed)(model, clips)[-1:], "1 tensors for 3 blocks"),
        "one tensor": (lambda model, clips: hooked(softmaxed)(model, clips)[-1], "expected a list of 3"),
        "tokens": (outputs_of_attention, "axes"),
        "a list that grows": (into_a_global_list, "tensors for|list of the first call"),
        "train mode": (in_train_mode, "another mode"),
        "no return": (lambda model, clips: None, "None"),
        "not written": (lambda model, clips: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 13.2: rollout


def by_loop(layers):
    r = None
    for a in layers:
        a = a.mean(dim=1)
        a = (a + torch.eye(a.shape[-1])) / 2
        r = a if r is None else a @ r
    return r.to(layers[0].dtype)


def by_normalising(layers):
    r = torch.eye(layers[0].shape[-1]).to(layers[0])
    for a in layers:
        a = a.mean(1) + torch.eye(a.shape[-1])
        r = torch.einsum("b i j, b j k -> b i k", a / a.sum(-1, keepdim=True), r.expand(len(a), -1, -1))
    return r


def by_diagonal(layers):
    r = 0.5 * layers[0].mean(1)
    r = r + 0.5 * torch.eye(r.shape[-1]).type_as(r)
    for weights in layers[1:]:
        r = 0.5 * (weights.mean(1).bmm(r) + r)
    return r


def roll(layers, half=2, residual=1.0, heads=torch.mean, left=True):
    r = torch.eye(layers[0].shape[-1])
    for a in layers:
        a = heads(a, 1)
        a = (a + residual * torch.eye(a.shape[-1])) / half
        r = a @ r if left else r @ a
    return r


def rolled(layers, factor, whole=True):
    """Rollout with other factors, or with A + I / 2 @ R where they are not whole."""
    i = r = torch.eye(layers[0].shape[-1])
    for a in layers:
        r = factor(a.mean(1), i) @ r if whole else a.mean(1) + i / 2 @ r
    return r


def batched_eye_of_floats(layers):
    r = torch.eye(layers[0].shape[-1]).repeat(len(layers[0]), 1, 1)
    for a in layers:
        r = torch.bmm((a.mean(1) + torch.eye(a.shape[-1])) / 2, r)
    return r


def without_keepdim(layers):
    r = torch.eye(layers[0].shape[-1])
    for a in layers:
        a = a.mean(1) + torch.eye(a.shape[-1])
        r = a / a.sum(1)[:, None] @ r
    return r


def in_place(layers):
    r = torch.eye(layers[0].shape[-1])
    for a in layers:
        a += torch.eye(a.shape[-1])
        r = a.mean(1) / 2 @ r
    return r


def with_the_notebooks_size(layers):
    r = torch.eye(343)
    for a in layers:
        r = (a.mean(1) + torch.eye(343)) / 2 @ r
    return r


test_rollout = run_cases(
    ch13.check_rollout,
    right=[by_loop, by_normalising, by_diagonal],
    wrong={
        "A halved": (lambda x: rolled(x, lambda a, i: a / 2 + i), "A alone was halved"),
        "I halved": (lambda x: rolled(x, lambda a, i: a + i / 2), "I alone was halved"),
        "no brackets": (lambda x: rolled(x, lambda a, i: a + i / 2, whole=False), "come before"),
        "plus one": (lambda x: rolled(x, lambda a, i: (a + 1) / 2), "1 was added"),
        "first twice": (lambda x: roll([x[0], *x]), "multiplied twice"),
        "each transposed": (lambda x: roll([a.mT for a in x]), "each layer is transposed"),
        "starred": (lambda x: roll(x[:1]) * roll(x[1:2]) * roll(x[2:]) * torch.eye(x[0].shape[-1]), "from I on"),
        "eye of floats": (batched_eye_of_floats, "dtype=layers"),
        "reversed": (lambda x: roll(x, left=False), "order is reversed"),
        "no residual": (lambda x: roll(x, half=1, residual=0), "identity is missing: without"),
        "not halved": (lambda x: roll(x, half=1), "do not sum to 1"),
        "first without residual": (lambda x: roll(x[1:]) @ x[0].mean(1), "missing from the first layer"),
        "first left out": (lambda x: roll(x[1:]), "first layer is not there"),
        "last left out": (lambda x: roll(x[:-1]), "last layer is not there"),
        "last only": (lambda x: roll(x[-1:]), "last layer alone"),
        "added": (lambda x: sum(roll([a]) for a in x) / len(x), "added, not multiplied"),
        "element by element": (
            lambda x: torch.stack([(a.mean(1) + torch.eye(a.shape[-1])) / 2 for a in x]).prod(0),
            "element by element",
        ),
        "maximum": (lambda x: roll(x, heads=torch.amax), "maximum over heads"),
        "sum over heads": (lambda x: roll(x, heads=torch.sum), "heads were added up"),
        "heads apart": (lambda x: ch13.per_head(x).mean(1), "one by one"),
        "heads left": (ch13.per_head, r"4 axes instead of 3|\[2, 3, 5, 5\]"),
        "without keepdim": (without_keepdim, "columns were normalised|keepdim"),
        "transposed": (lambda x: roll(x).transpose(1, 2), "transposed"),
        "read already": (lambda x: roll(x).mean(1), "mean of the rows already"),
        "in place": (in_place, "changes the layers that it was given"),
        "float32 always": (lambda x: roll([a.float() for a in x]), "of type torch.float32"),
        "detached": (lambda x: by_loop([a.detach() for a in x]), "cut off"),
        "float32 identity": (lambda x: roll(x), "dtype=layers"),
        "343 tokens": (with_the_notebooks_size, "your code raised.*343"),
        "not written": (lambda x: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 13.3: lifting


def by_block_diagonal(weights, kind, n_t, s):
    a = weights.mean(-3)
    if kind == "space":
        return torch.stack([torch.block_diag(*clip) for clip in a])
    big = torch.zeros(len(a), n_t, s, n_t, s, dtype=a.dtype)
    if a.dim() == 3:
        big[:] = a[:, :, None, :, None] / s
    else:
        for p in range(s):
            big[:, :, p, :, p] = a[:, p]
    return big.reshape(len(a), n_t * s, n_t * s)


def token_by_token(weights, kind, n_t, s):
    lifted = torch.zeros(weights.shape[0], n_t * s, n_t * s, dtype=weights.dtype)
    for i in range(n_t * s):
        for j in range(n_t * s):
            t, p, u, q = i // s, i % s, j // s, j % s
            if kind == "space" and t == u:
                lifted[:, i, j] = weights[:, t, :, p, q].mean(1)
            if kind == "time" and weights.ndim == 4:
                lifted[:, i, j] = weights[:, :, t, u].mean(1) / s
            if kind == "time" and weights.ndim == 5 and p == q:
                lifted[:, i, j] = weights[:, p, :, t, u].mean(1)
    return lifted


def by_kron(weights, kind, n_t, s):
    if kind == "time" and weights.ndim == 4:
        return torch.stack([torch.kron(a, torch.full((s, s), 1 / s, dtype=a.dtype)) for a in weights.mean(1)])
    a = reduce(weights, "b x heads i j -> b x i j", "mean")
    if kind == "space":
        return sum(torch.kron(torch.diag(torch.eye(n_t, dtype=a.dtype)[t]), a[:, t]) for t in range(n_t))
    return sum(torch.kron(a[:, p].contiguous(), torch.diag(torch.eye(s, dtype=a.dtype)[p])) for p in range(s))


def lift(weights, kind, n_t, s, heads=torch.mean, order="b t i u j -> b (t i) (u j)", swap=False, share=None):
    a = heads(weights, -3)
    if swap:
        a = a.mT
    if kind == "space":
        big = torch.einsum("btij,tu->btiuj", a, torch.eye(n_t).to(a))
    elif a.ndim == 4:
        big = torch.einsum("bitu,ij->btiuj", a, torch.eye(s).to(a))
    else:
        big = torch.einsum("btu,ij->btiuj", a, torch.full((s, s), 1 / s if share is None else share).to(a))
    return rearrange(big, order)


def stays_in_its_place(weights, kind, n_t, s):
    if kind == "time" and weights.ndim == 4:
        return rearrange(
            torch.einsum("btu,ij->btiuj", weights.mean(1), torch.eye(s).to(weights)), "b t i u j -> b (t i) (u j)"
        )
    return lift(weights, kind, n_t, s)


def same_at_all_places(weights, kind, n_t, s):
    if kind == "time" and weights.ndim == 5:
        weights = weights[:, :1].expand(-1, s, -1, -1, -1)
    return lift(weights, kind, n_t, s)


def same_at_all_times(weights, kind, n_t, s):
    if kind == "space":
        weights = weights.mean(1, keepdim=True).expand(-1, n_t, -1, -1, -1)
    return lift(weights, kind, n_t, s)


def blocks_of_places(weights, kind, n_t, s):
    if kind == "time" and weights.ndim == 5:
        return torch.stack([torch.block_diag(*clip) for clip in weights.mean(2)])
    return lift(weights, kind, n_t, s)


def first_clip_only(weights, kind, n_t, s):
    return lift(weights[:1], kind, n_t, s)


def sees_all_times(weights, kind, n_t, s):
    if kind == "space":
        return weights.mean(2).repeat(1, 1, 1, n_t).flatten(1, 2)
    return lift(weights, kind, n_t, s)


def sees_all_places(weights, kind, n_t, s):
    if kind == "time" and weights.ndim == 5:
        return rearrange(repeat(weights.mean(2), "b i t u -> b t i u j", j=s), "b t i u j -> b (t i) (u j)")
    return lift(weights, kind, n_t, s)


def layers_as_the_course(model, clips, lift=by_block_diagonal):
    lifted = [lift(m.weights, m.kind, *model.grid)[:, None] for m in attention_maps(model, clips)]
    if model.attention_halves:
        return [(a + b) / 2 for a, b in zip(lifted[::2], lifted[1::2])]
    return lifted


def layers_by_number(model, clips):
    by_layer = {}
    for m in attention_maps(model, clips):
        by_layer.setdefault(m.layer, []).append(token_by_token(m.weights, m.kind, *model.grid).unsqueeze(1))
    if "DotProduct" in type(model).__name__:
        return [torch.stack(pair).mean(0) for pair in by_layer.values()]
    return [one for pair in by_layer.values() for one in pair]


def layers_one_after_the_other(model, clips):
    return [by_kron(m.weights, m.kind, *model.grid)[:, None] for m in attention_maps(model, clips)]


def layers_averaged(model, clips):
    lifted = layers_one_after_the_other(model, clips)
    return (
        [(a + b) / 2 for a, b in zip(lifted[::2], lifted[1::2])] if type(model).__name__[-7:] != "Encoder" else lifted
    )


def layers_multiplied(model, clips):
    if type(model).__name__ != "FactorisedSelfAttention":
        return layers_as_the_course(model, clips)
    lifted = layers_one_after_the_other(model, clips)
    return [b @ a for a, b in zip(lifted[::2], lifted[1::2])]


def layers_joined(model, clips, join):
    """Model 4's halves joined in another way than by their mean."""
    lifted = layers_one_after_the_other(model, clips)
    if not model.attention_halves:
        return lifted
    return [join(a, b) for a, b in zip(lifted[::2], lifted[1::2])]


def layers_of_space_alone(model, clips):
    return [by_kron(m.weights, m.kind, *model.grid)[:, None] for m in attention_maps(model, clips) if m.kind == "space"]


def pair_of(lift=by_block_diagonal, layers=layers_as_the_course):
    return lift, layers


def checked_lift(pair):
    return ch13.check_lift(*pair)


test_layers = run_cases(
    checked_lift,
    right=[
        named(pair_of(), "as the course"),
        named(pair_of(by_kron, layers_by_number), "by number"),
        named(pair_of(token_by_token), "token by token"),
    ],
    wrong={
        "Model 4 as Model 3": (pair_of(layers=layers_one_after_the_other), "in Model 4 space and time share"),
        "Model 3 as Model 4": (pair_of(layers=layers_averaged), "averaged as in Model 4"),
        "multiplied": (pair_of(layers=layers_multiplied), "multiplied before the identity"),
        "reversed": (pair_of(layers=lambda m, x: layers_as_the_course(m, x)[::-1]), "reversed order"),
        "halves added": (pair_of(layers=lambda m, x: layers_joined(m, x, torch.add)), "here they were added"),
        "halves multiplied": (pair_of(layers=lambda m, x: layers_joined(m, x, lambda a, b: b @ a)), "were multiplied$"),
        "space alone": (pair_of(layers=layers_of_space_alone), "returns 2 matrices, expected 6"),
        "no axis of heads": (
            pair_of(layers=lambda m, x: [a[:, 0] for a in layers_as_the_course(m, x)]),
            r"expected \[2, 1, 20, 20\].*keep an axis of length 1",
        ),
        "one tensor": (pair_of(layers=lambda m, x: torch.stack(layers_as_the_course(m, x))), "one tensor|axes"),
        "weights as they are": (
            pair_of(layers=lambda m, x: [one.weights for one in attention_maps(m, x)]),
            "has shape|matrices",
        ),
        "no return": (pair_of(layers=lambda m, x: None), "None"),
        "not written": (
            pair_of(layers=lambda m, x: (_ for _ in ()).throw(NotImplementedError())),
            "still to be written",
        ),
    },
)

test_lift = run_cases(
    lambda lift: ch13.check_lift(lift, layers_as_the_course),
    right=[by_block_diagonal, token_by_token, by_kron],
    wrong={
        "places first": (lambda *x: lift(*x, order="b t i u j -> b (i t) (j u)"), "tokens are in another order"),
        "transposed": (lambda *x: lift(*x, swap=True), "rows and columns have changed places"),
        "first head": (lambda *x: lift(*x, heads=lambda w, _: w[..., 0, :, :]), "only the first head"),
        "sum of heads": (lambda *x: lift(*x, heads=torch.sum), "heads were added up"),
        "Model 2 not shared out": (lambda *x: lift(*x, share=1.0), "rows sum to S"),
        "Model 2 as Model 3": (stays_in_its_place, "only its own place"),
        "one place for all": (same_at_all_places, "all places have the same weights"),
        "mean over time": (same_at_all_times, "the mean over time"),
        "blocks of places": (blocks_of_places, "block diagonal with one block for each place|another order"),
        "all times": (sees_all_times, "tokens read other time indices"),
        "all places": (sees_all_places, "tokens read other places"),
        "heads left": (lambda w, kind, n_t, s: w, "axes|shape"),
        "first clip": (first_clip_only, r"has shape \[1, 20, 20\]"),
        "float32 always": (lambda w, *x: lift(w, *x).float(), "of type torch.float32"),
        "detached": (lambda w, *x: lift(w.detach(), *x), "cut off"),
        "no return": (lambda *x: None, "None"),
        "not written": (lambda *x: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 13.4: relevance


def as_in_the_paper(layers, gradients):
    r = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    for a, g in zip(layers, gradients):
        r = r + (g * a).clamp(min=0).mean(dim=1) @ r
    return r


def with_relu(layers, gradients):
    r = torch.eye(layers[0].shape[-1]).repeat(len(layers[0]), 1, 1).to(layers[0].dtype)
    for k in range(len(layers)):
        cam = torch.relu(gradients[k] * layers[k]).mean(1)
        r = torch.baddbmm(r, cam, r)
    return r


def with_where(layers, gradients):
    n = layers[0].shape[-1]
    r = torch.eye(n).to(layers[0])
    for weights, gradient in zip(layers, gradients):
        product = weights * gradient
        positive = torch.where(product > 0, product, torch.zeros_like(product))
        r = (torch.eye(n).to(positive) + positive.sum(1) / positive.shape[1]) @ r
    return r


def accumulate(factor, keep=1.0, left=True, scale=1.0, start=1):
    def relevance(layers, gradients):
        r = start * torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
        for a, g in zip(layers, gradients):
            f = factor(a, g)
            r = scale * (keep * r + (f @ r if left else r @ f))
        return r

    return relevance


def positive(a, g):
    return (g * a).clamp(min=0).mean(1)


def with_plus_equals(layers, gradients):
    r = torch.eye(layers[0].shape[-1]).repeat(len(layers[0]), 1, 1).to(layers[0].dtype)
    for a, g in zip(layers, gradients):
        r += positive(a, g) @ r
    return r


def clamped_in_place(layers, gradients):
    r = torch.eye(layers[0].shape[-1])
    for a, g in zip(layers, gradients):
        r = r + g.mul_(a).clamp_(min=0).mean(1) @ r
    return r


def starred(layers, gradients):
    r = torch.eye(layers[0].shape[-1])
    for a, g in zip(layers, gradients):
        r = r + positive(a, g) * r
    return r


test_relevance = run_cases(
    ch13.check_relevance,
    right=[as_in_the_paper, with_relu, with_where],
    wrong={
        "cut off after the mean": (accumulate(lambda a, g: (g * a).mean(1).clamp(min=0)), "after the mean"),
        "not cut off": (accumulate(lambda a, g: (g * a).mean(1)), "negative part is still there"),
        "absolute": (accumulate(lambda a, g: (g * a).abs().mean(1)), "absolute"),
        "from zeros": (accumulate(positive, keep=0, start=0), "starts from zeros"),
        "R twice": (accumulate(positive, keep=2), "added twice"),
        "negative part": (accumulate(lambda a, g: (g * a).clamp(max=0).mean(1)), "positive part was cut off"),
        "each transposed": (accumulate(lambda a, g: positive(a, g).mT), "each layer is transposed"),
        "gradient alone": (accumulate(lambda a, g: g.clamp(min=0).mean(1)), "gradient alone"),
        "matrix product": (accumulate(lambda a, g: (g @ a).clamp(min=0).mean(1)), "multiplied as matrices"),
        "no gradient": (accumulate(lambda a, g: a.mean(1)), "without their gradients"),
        "R forgotten": (accumulate(positive, keep=0), "R itself is missing"),
        "sum over heads": (accumulate(lambda a, g: (g * a).clamp(min=0).sum(1)), "heads were added up"),
        "halved": (accumulate(positive, scale=0.5), "halved"),
        "on the right": (accumulate(positive, left=False), "order is reversed"),
        "identity taken off": (lambda a, g: as_in_the_paper(a, g) - torch.eye(a[0].shape[-1]), "leave it in"),
        "starred": (starred, "product with R is missing"),
        "means first": (accumulate(lambda a, g: g.mean(1).clamp(min=0) * a.mean(1)), "before they were multiplied"),
        "transposed": (lambda a, g: as_in_the_paper(a, g).mT, "transposed"),
        "gradients changed": (clamped_in_place, "changes the gradients"),
        "plus equals": (with_plus_equals, "in place"),
        "heads left": (lambda a, g: (a[0] * g[0]).clamp(min=0), r"\[2, 3, 5, 5\]"),
        "detached": (lambda a, g: as_in_the_paper([x.detach() for x in a], g), "cut off"),
        "not written": (lambda a, g: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 13.5: tests that catch wrong maps

OTHERS = (1 - torch.eye(3)) / 2


def by_swapping(rollout):
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return rollout([swap.repeat(1, 2, 1, 1)])[0, 0, 0].item() == 0


def by_a_token_that_reads_another(rollout):
    a = torch.eye(4)
    a[2] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    r = rollout([a[None, None]])
    return not r[0, 2, 2] > 0


def by_even_weights(rollout):
    """With even weights nothing but the identity can make the diagonal larger than the rest."""
    r = rollout([torch.full((1, 1, 5, 5), 0.2)] * 2)[0]
    return torch.allclose(r.diagonal().sum() * 4, r.sum() - r.diagonal().sum())


def by_every_class(method, model, clips):
    maps = [method(model, clips, [k] * len(clips)) for k in range(model.config.num_classes)]
    return all(torch.allclose(scores, maps[0]) for scores in maps)


def by_tensors_of_classes(method, model, clips):
    K = model.head.out_features
    all_maps = torch.stack([method(model, clips, torch.full((len(clips),), k)) for k in range(K)])
    spread = (all_maps.amax(0) - all_maps.amin(0)).max()
    return bool(spread < 1e-4 * all_maps.abs().max())


def by_any(method, model, clips):
    first = method(model, clips, torch.zeros(len(clips), dtype=torch.long))
    for k in range(1, model.config.num_classes):
        other = method(model, clips, torch.zeros(len(clips), dtype=torch.long) + k)
        if (other - first).norm() > 1e-3 * first.norm():
            return False
    return True


def over_classes(part, count=None, **tolerance):
    """blind_to_class that compares a part of each class's maps with the first one's."""

    def blind(method, model, clips):
        classes = range(model.config.num_classes)[:count]
        parts = [part(method(model, clips, [k] * len(clips))) for k in classes]
        return all(torch.allclose(one, parts[0], **tolerance) for one in parts)

    return blind


def of_pair(one, other):
    return lambda f, m, x: torch.allclose(f(m, x, [one] * len(x)), f(m, x, [other] * len(x)))


def both(forgets=by_swapping, blind=by_every_class):
    """The check takes both functions; each case varies one of them."""
    return forgets, blind


def checked(pair):
    return ch13.check_tests(*pair)


test_tests = run_cases(
    checked,
    right=[
        named(both(), "swap"),
        named(both(by_a_token_that_reads_another, by_tensors_of_classes), "one token"),
        named(both(by_even_weights, by_any), "even weights"),
        named(both(lambda rollout: bool((rollout([OTHERS[None, None]])[0].diagonal() == 0).all())), "as the course"),
    ],
    wrong={
        "rows": (
            both(lambda f: not torch.allclose(f([OTHERS[None, None]]).sum(-1), torch.ones(1, 3))),
            "prove nothing",
        ),
        "random weights": (
            both(lambda f: bool((f([torch.rand(1, 1, 3, 3).softmax(-1)])[0].diagonal() == 0).all())),
            "no token reads itself",
        ),
        "identity weights": (both(lambda f: bool(f([torch.eye(3)[None, None]])[0, 0, 0] == 0)), "no token reads"),
        "turned round": (both(lambda f: not by_swapping(f)), "forgets_itself says False of a rollout without"),
        "always": (both(lambda f: True), "says True of a right rollout"),
        "never": (both(lambda f: False), "says False of a rollout without"),
        "one number": (
            both(lambda f: not torch.allclose(f([torch.rand(1, 2, 3, 3).round()])[0, 0, 0], torch.tensor(0.5))),
            "forgets_itself says",
        ),
        "no return, rollout": (both(lambda f: None), "must be True or False"),
        "two layers of swaps": (
            both(lambda f: bool(f([torch.eye(2).flip(0)[None, None]] * 2)[0, 0, 0] == 0)),
            "says False of a rollout without",
        ),
        "not square": (both(lambda f: f([torch.ones(1, 3, 3)])[0, 0, 0] == 0), "your code raised"),
        "two classes": (
            both(blind=lambda f, m, x: torch.allclose(f(m, x, [0] * len(x)), f(m, x, [1] * len(x)))),
            "says True of relevance for the class",
        ),
        "exactly": (
            both(
                blind=lambda f, m, x: all(
                    torch.equal(f(m, x, [k] * len(x)), f(m, x, [0] * len(x))) for k in range(m.config.num_classes)
                )
            ),
            "by rounding only",
        ),
        "sums": (
            both(
                blind=lambda f, m, x: all(
                    torch.allclose(f(m, x, [k] * len(x)).sum(), f(m, x, [0] * len(x)).sum(), rtol=1e-3)
                    for k in range(m.config.num_classes)
                )
            ),
            "not their sums",
        ),
        "first and third": (both(blind=of_pair(0, 2)), "says True of a method whose map for class"),
        "last left out": (both(blind=over_classes(lambda m: m, count=-1)), "whose map for class 3"),
        "largest only": (both(blind=over_classes(lambda m: m.flatten(1).amax(1))), "or their largest values"),
        "first time index": (both(blind=over_classes(lambda m: m[:, 0])), "in one tubelet"),
        "loosely": (both(blind=over_classes(lambda m: m, rtol=0.5)), "says True of"),
        "an absolute hundredth": (both(blind=over_classes(lambda m: m, atol=1e-2)), "says True of"),
        "mean over clips": (both(blind=over_classes(lambda m: m.mean(0))), "in opposite ways"),
        "first clip": (both(blind=over_classes(lambda m: m[0])), "in opposite ways"),
        "any": (
            both(
                blind=lambda f, m, x: any(
                    torch.allclose(f(m, x, [k] * len(x)), f(m, x, [0] * len(x))) for k in range(1, m.config.num_classes)
                )
            ),
            "says True of relevance for the class",
        ),
        "turned round, classes": (both(blind=lambda f, m, x: not by_every_class(f, m, x)), "says False of rollout"),
        "always, classes": (both(blind=lambda f, m, x: True), "says True of relevance for"),
        "a whole number": (both(blind=lambda f, m, x: torch.allclose(f(m, x, 0), f(m, x, 1))), "your code raised"),
        "eleven classes": (
            both(blind=lambda f, m, x: all(f(m, x, [k] * len(x)).any() for k in range(11))),
            "your code raised",
        ),
        "no return, classes": (both(blind=lambda f, m, x: None), "must be True or False"),
        "not written": (
            both(blind=lambda f, m, x: (_ for _ in ()).throw(NotImplementedError())),
            "still to be written",
        ),
    },
)

# ---- 13.6: a point of the deletion curve


def point_by_hand(model, clip, scores, k, label):
    (n_t, n_h, n_w), (pt, ph, pw) = model.embedding.grid, model.embedding.tubelet
    best = scores.flatten().argsort(descending=True)[:k]
    stays = torch.ones(n_t * n_h * n_w, dtype=torch.bool)
    stays[best] = False
    stays = repeat(stays.view(n_t, n_h, n_w), "t h w -> (t pt) (h ph) (w pw)", pt=pt, ph=ph, pw=pw)
    changed = torch.where(stays, clip, clip.mean(dim=(2, 3, 4), keepdim=True))
    return model(changed).softmax(dim=-1)[0, label]


def point_by_loop(model, clip, scores, k, label):
    new = clip.clone()
    n_t, n_h, n_w = model.embedding.grid
    t, h, w = model.embedding.tubelet
    for token in torch.topk(scores.reshape(-1), k).indices.tolist():
        i, rest = divmod(token, n_h * n_w)
        j, m = divmod(rest, n_w)
        for c in range(clip.shape[1]):
            new[:, c, i * t : (i + 1) * t, j * h : (j + 1) * h, m * w : (m + 1) * w] = clip[:, c].mean()
    with torch.no_grad():
        return torch.softmax(model(new)[0], 0)[label].item()


def point_by_masked_logits(model, clip, scores, k, label):
    ranks = scores.flatten().argsort(descending=True).argsort()
    keep = (ranks >= k).view(1, 1, *scores.shape)
    return float(masked_logits(model, clip, keep, progress=False)[0, 0].softmax(-1)[label])


def point(model, clip, scores, k, label, *, descending=True, turn=False, value=None, read=None, kept=None):
    best = scores.flatten().argsort(descending=descending)[:k] if kept is None else kept
    gone = torch.zeros(scores.numel(), dtype=torch.bool)
    gone[best] = True
    gone = ~gone if turn else gone
    (n_t, n_h, n_w), (pt, ph, pw) = model.embedding.grid, model.embedding.tubelet
    gone = repeat(gone.view(n_t, n_h, n_w), "t h w -> (t pt) (h ph) (w pw)", pt=pt, ph=ph, pw=pw)
    grey = clip.mean(dim=(2, 3, 4), keepdim=True) if value is None else value(clip)
    logits = model(torch.where(gone, grey, clip))[0]
    return logits.softmax(-1)[label] if read is None else read(logits, label)


def by_threshold(model, clip, scores, k, label):
    cut = scores.flatten().sort(descending=True).values[k - 1] if k else scores.max() + 1
    return point(model, clip, scores, k, label, kept=(scores >= cut).flatten())


def writes_into_the_clip(model, clip, scores, k, label):
    (_, n_h, n_w), (pt, ph, pw) = model.embedding.grid, model.embedding.tubelet
    mean = clip.mean(dim=(2, 3, 4))
    for token in scores.flatten().argsort(descending=True)[:k].tolist():
        i, j, m = token // (n_h * n_w), token // n_w % n_h, token % n_w
        clip[0, :, i * pt : i * pt + pt, j * ph : j * ph + ph, m * pw : m * pw + pw] = mean[0, :, None, None, None]
    return model(clip).softmax(-1)[0, label]


def tiled_mask(model, clip, scores, k, label):
    gone = torch.zeros(scores.numel(), dtype=torch.bool)
    gone[scores.flatten().argsort(descending=True)[:k]] = True
    gone = gone.view(model.embedding.grid).repeat(*model.embedding.tubelet)
    grey = clip.mean(dim=(2, 3, 4), keepdim=True)
    return model(torch.where(gone, grey, clip)).softmax(dim=1)[0, label]


def last_of_ascending(model, clip, scores, k, label):
    return point(model, clip, scores, k, label, kept=scores.flatten().argsort()[-k:])


def above_the_kth(model, clip, scores, k, label):
    values = scores.flatten().sort(descending=True).values
    return point(model, clip, scores, k, label, kept=(scores > values[k]).flatten())


def with_the_notebooks_tubelets(model, clip, scores, k, label):
    gone = torch.zeros(343, dtype=torch.bool)
    gone[scores.flatten().argsort(descending=True)[:k]] = True
    gone = repeat(gone.view(7, 7, 7), "t h w -> (t 4) (h 4) (w 4)")
    return model(torch.where(gone, clip.mean(), clip)).softmax(-1)[0, label]


test_point = run_cases(
    ch13.check_point,
    right=[point_by_hand, point_by_loop, point_by_masked_logits],
    wrong={
        "tiled": (tiled_mask, "tiled, not stretched"),
        "last k": (last_of_ascending, r"\[-0:\]"),
        "signs dropped": (lambda m, c, s, k, label: point(m, c, s.abs(), k, label), "sign of the scores"),
        "one half": (lambda *x: point(*x, value=lambda c: torch.full_like(c, 0.5)), "0.5, not grey"),
        "over the batch": (lambda *x: float(point(*x, read=lambda z, k: z[None].softmax(0)[0, k])), "over the batch"),
        "k-th value": (above_the_kth, "none after the k-th"),
        "worst first": (lambda *x: point(*x, descending=False), "worst tubelets are gone"),
        "insertion": (lambda *x: point(*x, turn=True), "this is insertion"),
        "nothing gone": (lambda *x: point(*x, kept=[]), "nothing has turned grey"),
        "one too many": (lambda m, c, s, k, label: point(m, c, s, k + 1, label), "one tubelet too many"),
        "one too few": (lambda m, c, s, k, label: point(m, c, s, max(k - 1, 0), label), "one tubelet too few"),
        "the first k": (lambda m, c, s, k, label: point(m, c, s, k, label, kept=range(k)), "whatever their scores"),
        "black": (lambda *x: point(*x, value=torch.zeros_like), "black, not grey"),
        "one mean": (lambda *x: point(*x, value=lambda c: c.mean()), "over all channels"),
        "mean of a frame": (lambda *x: point(*x, value=lambda c: c.mean(dim=(3, 4), keepdim=True)), "single frames"),
        "logit": (lambda *x: point(*x, read=lambda z, k: z[k]), "this is the logit"),
        "log": (lambda *x: point(*x, read=lambda z, k: z.log_softmax(-1)[k]), "log of the probability"),
        "largest": (lambda *x: point(*x, read=lambda z, k: z.softmax(-1).max()), "largest probability"),
        "all classes": (lambda *x: point(*x, read=lambda z, k: z.softmax(-1)), "4 numbers"),
        "by threshold": (by_threshold, "have the same score"),
        "into the clip": (writes_into_the_clip, "changes the clip"),
        "4³ always": (with_the_notebooks_tubelets, "your code raised"),
        "a class": (lambda *x: point(*x, read=lambda z, k: z.argmax()), "argmax gives a class"),
        "no return": (lambda *x: None, "None"),
        "not written": (lambda *x: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)


# ---- the course's own versions


@pytest.mark.parametrize(
    "number, check",
    [
        ("13.1", ch13.check_weights),
        ("13.2", ch13.check_rollout),
        ("13.3", ch13.check_lift),
        ("13.4", ch13.check_relevance),
        ("13.5", ch13.check_tests),
        ("13.6", ch13.check_point),
    ],
)
def test_the_courses_own_version_passes(number, check, monkeypatch, tmp_path):
    from vivit_edu.course.checks import calling
    from vivit_edu.course.ready import load

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calling, "is_borrowed", lambda _: False)
    check(*load()[number])
