"""Checks of chapter 13: weights read out of a model, rollout, lifting, relevance, tests of maps, deletion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange, repeat
from torch import nn

from ...explain import attention_maps, input_gradient, masked_logits, relevance, rollout, to_voxels
from ...models import build_model
from . import CheckFailed, call, close, exercise, flag, number, passed, same_shape
from .calling import call_with_hints

HEADS, N, LAYERS = 3, 5, 3  # all different, so that an axis taken for another shows


# ---- what the checks try things on


def sharp_model(name: str = "spacetime", seed: int = 0, **options: object) -> nn.Module:
    """A small model whose weights are large, so that its attention is far from even and an error shows."""
    sizes = {"clip_shape": (2, 6, 8, 10), "tubelet": (3, 4, 2), "dim": 12, "heads": 3, "mlp_dim": 20, "depth": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(name, num_classes=4, **(sizes | options)).eval()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def clips_for(model: nn.Module, number: int, seed: int = 1) -> torch.Tensor:
    """Random clips that fit the model, in its type."""
    generator = torch.Generator().manual_seed(seed)
    clips = torch.rand(number, *model.config.clip_shape, generator=generator)
    return clips.to(next(model.parameters()).dtype)


def sharp_weights(*shape: int, seed: int = 0) -> torch.Tensor:
    """Attention weights of this shape, far from even: rows sum to 1."""
    return (3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).softmax(dim=-1)


def example_layers(batch: int = 2, layers: int = LAYERS, n: int = N) -> list[torch.Tensor]:
    """Weights of a few layers, [B, heads, N, N] each: another order gives another product."""
    return [sharp_weights(batch, HEADS, n, n, seed=10 * n + layer) for layer in range(layers)]


def example_gradients(layers: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A random gradient for each layer's weights."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(a.shape, generator=generator) for a in layers]


def multiply(factors: Sequence[torch.Tensor], left: bool = True) -> torch.Tensor:
    """R = F_L … F_1, or in the other order."""
    r = torch.eye(factors[0].shape[-1], dtype=factors[0].dtype).expand_as(factors[0])
    for factor in factors:
        r = factor @ r if left else r @ factor
    return r


def like(found: torch.Tensor, given: torch.Tensor) -> None:
    """Fails where the result is of another type than what was given."""
    if found.dtype != given.dtype:
        raise CheckFailed(
            f"for numbers of type {given.dtype} the result is of type {found.dtype}: give torch.eye, torch.zeros and "
            "the like dtype=..., or build on what was given"
        )


def call_on(function: Callable, *lists: Sequence[torch.Tensor]) -> torch.Tensor:
    """function(*lists); where double precision stops it, the message says what to do."""
    try:
        return call(function, *lists)
    except CheckFailed as failed:
        if lists[0][0].dtype == torch.float64 and any(word in str(failed) for word in ("dtype", "scalar type")):
            raise CheckFailed(
                f"{failed}\nThe weights were of type torch.float64 here: torch.eye gives torch.float32 unless you say "
                "dtype=layers[0].dtype"
            ) from None
        raise


def keeps_gradients(function: Callable, *lists: Sequence[torch.Tensor]) -> None:
    """Fails where no gradient flows from function(*lists) to every tensor in the lists."""
    lists = [[part.clone().requires_grad_() for part in parts] for parts in lists]
    wanted = [part for parts in lists for part in parts]
    found = call(function, *lists)
    generator = torch.Generator().manual_seed(2)
    gradients = [None] * len(wanted)
    if found.requires_grad:
        loss = (found * torch.randn(found.shape, generator=generator)).sum()
        try:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
        except RuntimeError as error:
            raise CheckFailed(
                "the values are right, but a backward pass through your function stops with an error: something was "
                "changed in place (+=, x[...] = ...) that it needs; write r = r + ..., not r += ..."
            ) from error
    if any(gradient is None or not gradient.any() for gradient in gradients):
        raise CheckFailed(
            "the values are right, but the result is cut off from the weights that went in (.detach(), .data, .item(), "
            "no_grad): leave that to the caller"
        )


# ---- 13.1


@exercise
def check_weights(my_weights: Callable) -> None:
    """my_weights(model, clips): Model 1 -> its weights [B, heads, N, N], a list with one tensor for each block."""
    for batch, double, options in (
        (2, False, {}),
        (1, True, {"depth": 2, "dim": 20, "heads": 2, "tubelet": (2, 4, 5)}),
    ):
        model = sharp_model(seed=batch, **options)
        model = model.double() if double else model
        clips = clips_for(model, batch)
        expected = [m.weights for m in attention_maps(model, clips)]
        wrong = mistaken_weights(model, clips)
        found = call_with_hints(RETURNED, my_weights, model, clips)
        check_hooks(model)
        check_list(found, expected, wrong)
    again = call(my_weights, model, clips)
    if len(again) != len(expected):
        raise CheckFailed(
            f"called a second time it returns {len(again)} tensors, not {len(expected)}: the list of the first call is "
            "used again, so make it inside the function"
        )
    passed("13.1", "each block's softmax is read, and the model is left as it was.")


RETURNED = {
    "cannot be multiplied": "does your hook return the weights? What a pre-hook returns takes the place of its "
    "module's input, so append them and return nothing"
}


def check_list(found: object, expected: list[torch.Tensor], wrong: dict[str, list[torch.Tensor]]) -> None:
    """Compares what was read with a model's weights, layer by layer."""
    if isinstance(found, torch.Tensor) and found.ndim == 5:
        found = list(found)  # stacked: the same numbers
    if not isinstance(found, (list, tuple)):
        same_shape(found, expected[0], "what my_weights returned")  # a message for None, for instance
        raise CheckFailed(f"expected a list of {len(expected)} tensors, one for each block, got one tensor")
    if len(found) != len(expected):
        hint = ": was each block read twice?" if len(found) == 2 * len(expected) else ""
        hint = hint or ": does your function run the model while its hooks are there?" if not found else hint
        raise CheckFailed(f"the list holds {len(found)} tensors for {len(expected)} blocks{hint}")
    for layer, (one, right) in enumerate(zip(found, expected)):
        mistakes = {message: tensors[layer] for message, tensors in wrong.items()}
        close(one, right, mistakes, what=f"layer {layer}")
        like(one, right)


def mistaken_weights(model: nn.Module, clips: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """{message: the lists that this mistake gives}."""
    seen, before_norm = [], []
    handles = [block.attention.register_forward_pre_hook(lambda _, x: seen.append(x[0])) for block in blocks(model)]
    handles += [block.register_forward_pre_hook(lambda _, x: before_norm.append(x[0])) for block in blocks(model)]
    with torch.no_grad():
        model(clips)
        for handle in handles:
            handle.remove()
        right = [scores_of(block, z).softmax(-1) for block, z in zip(blocks(model), seen)]
        d = model.config.dim // model.config.heads

        def each(change, tokens=seen):
            return [change(block, z) for block, z in zip(blocks(model), tokens)]

        return {
            "the scores are not divided by √d, the root of a head's width": each(
                lambda block, z: (scores_of(block, z) * d**0.5).softmax(-1)
            ),
            "the scores are divided by d, not by its root": each(
                lambda block, z: (scores_of(block, z) / d**0.5).softmax(-1)
            ),
            "the scores are divided by the root of the whole width D; a head's queries have d = D / heads": each(
                lambda block, z: (scores_of(block, z) * (d / model.config.dim) ** 0.5).softmax(-1)
            ),
            "these are the scores: the softmax is missing": each(scores_of),
            "the softmax runs over the queries: rows must sum to 1, so take it over the last axis": each(
                lambda block, z: scores_of(block, z).softmax(-2)
            ),
            "queries and keys have changed places: row i is what token i asks for": each(
                lambda block, z: scores_of(block, z).mT.softmax(-1)
            ),
            "the width is divided into heads the wrong way: each head has d numbers in a row, (h d), not (d h)": each(
                lambda block, z: scores_of(block, z, "b n (three d h) -> three b h n d").softmax(-1)
            ),
            "these are keys and values, not queries and keys: qkv holds the queries first": each(
                lambda block, z: scores_of(block, z, first=1).softmax(-1)
            ),
            "these are queries and values: the keys come second in qkv": each(
                lambda block, z: scores_of(block, z, second=2).softmax(-1)
            ),
            "the width is divided the wrong way: queries, keys and values come first, (three heads d), and within "
            "each of them head after head": each(
                lambda block, z: scores_of(block, z, "b n (h three d) -> three b h n d").softmax(-1)
            ),
            "reshaped to [B, heads, N, d] at once: tokens and heads are mixed up; divide the last axis into heads and "
            "d, then transpose": each(lambda block, z: reshaped_at_once(block, z).softmax(-1)),
            "the softmax runs over the heads: take it over the keys, the last axis": each(
                lambda block, z: scores_of(block, z).softmax(1)
            ),
            "every layer was computed with the last block's qkv: a hook made in a loop sees the loop's last block, so "
            "use the module that the hook is given": [scores_of(blocks(model)[-1], z).softmax(-1) for z in seen],
            "the tokens were taken before LayerNorm: read what goes into block.attention, not into the block": each(
                lambda block, z: scores_of(block, z).softmax(-1), before_norm
            ),
            "the layers are in reversed order: the first block comes first": right[::-1],
            "the heads were averaged: keep them apart, [B, heads, N, N]": [a.mean(dim=1) for a in right],
        }


def scores_of(
    block: nn.Module,
    tokens: torch.Tensor,
    pattern: str = "b n (three h d) -> three b h n d",
    first: int = 0,
    second: int = 1,
) -> torch.Tensor:
    """QKᵀ/√d of the tokens that go into a block's attention."""
    attention = block.attention
    parts = rearrange(attention.qkv(tokens), pattern, three=3, h=attention.heads)
    return parts[first] @ parts[second].mT / parts.shape[-1] ** 0.5


def reshaped_at_once(block: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The scores of heads that hold the numbers of several tokens."""
    attention, (b, n, _) = block.attention, tokens.shape
    q, k, _ = (part.reshape(b, attention.heads, n, -1) for part in attention.qkv(tokens).chunk(3, dim=-1))
    return q @ k.mT / q.shape[-1] ** 0.5


def blocks(model: nn.Module) -> nn.ModuleList:
    return model.encoder.blocks


def check_hooks(model: nn.Module) -> None:
    """Fails where a hook, or a list to record into, is left on the model."""
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise CheckFailed(
                f"a hook is left on {name}, so the next pass would append to your list too: keep what register_… "
                "returns, and call its remove() in the end"
            )
        if getattr(module, "record", None) is not None:
            raise CheckFailed(f"{name}.record is left set: put None back when you are done")


# ---- 13.2


@exercise
def check_rollout(my_rollout: Callable) -> None:
    """my_rollout(layers): a list of weights [B, heads, N, N], first layer first -> R [B, N, N]."""
    for layers in (example_layers(), example_layers(batch=1, layers=2, n=7), [a.double() for a in example_layers(3)]):
        expected, mistakes = rollouts(layers)
        found = call_on(my_rollout, layers)
        close(found, expected, mistakes)
        like(found, layers[0])
    keeps_gradients(my_rollout, example_layers())
    passed("13.2", "rows sum to 1, and the last layer stands on the left.")


def rollouts(layers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, object]]:
    """The rollout of these layers, and {message: what this mistake gives}."""
    eye, means = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype), [a.mean(dim=1) for a in layers]
    halves = [(a + eye) / 2 for a in means]
    expected = multiply(halves)
    return expected, {
        "the order is reversed: the last layer stands on the left, R = Â_L … Â_1, since a row of R says what a token "
        "at the end is made of": multiply(halves, left=False),
        "the identity is missing: without the residual connection each token forgets itself in every layer": multiply(
            means
        ),
        "the rows do not sum to 1: A + I has to be halved": multiply([a + eye for a in means]),
        "the rows do not sum to 1: A alone was halved; halve the sum, (A + I) / 2": multiply(
            [a / 2 + eye for a in means]
        ),
        "the rows do not sum to 1: I alone was halved; halve the sum, (A + I) / 2": multiply(
            [a + eye / 2 for a in means]
        ),
        "@ and / come before +: A + I / 2 @ R halves and multiplies only I. Write (A + I) / 2 @ R": lambda: (
            without_brackets(means)
        ),
        "1 was added to every weight: I has its ones on the diagonal alone, torch.eye": multiply(
            [(a + 1) / 2 for a in means]
        ),
        "the first layer was multiplied twice: start from I, or leave it out of the loop": multiply(
            [halves[0], *halves]
        ),
        "each layer is transposed: rows are the tokens that ask": multiply([a.mT for a in halves]),
        "the layers were multiplied element by element, from I on: @ is the product of matrices": torch.stack(
            halves
        ).prod(dim=0)
        * eye,
        "the identity is missing from the first layer": multiply([means[0], *halves[1:]]),
        "the identity is missing from the last layer": multiply([*halves[:-1], means[-1]]),
        "the first layer is not there": multiply(halves[1:]),
        "the last layer is not there": multiply(halves[:-1]),
        "this is the last layer alone": halves[-1],
        "the layers were added, not multiplied: what a layer reads was already mixed by the layers before it": sum(
            halves
        )
        / len(layers),
        "the layers were multiplied element by element: @ is the product of matrices": torch.stack(halves).prod(dim=0),
        "the maximum over heads was taken, and rows no longer sum to 1: take the mean": multiply(
            [(a.amax(dim=1) + eye) / 2 for a in layers]
        ),
        "the heads were added up: take their mean": multiply([(a.sum(dim=1) + eye) / 2 for a in layers]),
        "this is the rollout of the first head alone: take the mean over the heads": multiply(
            [(a[:, 0] + eye) / 2 for a in layers]
        ),
        "the heads were rolled out one by one and averaged at the end; after each layer W_O mixes them, so average "
        "before multiplying": lambda: per_head(layers).mean(dim=1),
        "the columns were normalised, not the rows: sum over the last axis, with keepdim=True": lambda: multiply(
            [(a + eye) / (a + eye).sum(dim=1, keepdim=True) for a in means]
        ),
        "normalised without keepdim=True: the sums were laid along the wrong axis": lambda: multiply(
            [x / x.sum(dim=1)[:, None] for x in (a + eye for a in means)]
        ),
        "R is transposed: rows are the tokens at the end, columns those at the start": expected.mT,
        "this is the mean of the rows already: return all of R, [B, N, N]": expected.mean(dim=1),
    }


def without_brackets(means: Sequence[torch.Tensor]) -> torch.Tensor:
    """The rollout of A + I / 2 @ R."""
    eye = r = torch.eye(means[0].shape[-1], dtype=means[0].dtype)
    for a in means:
        r = a + eye / 2 @ r
    return r


def per_head(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    """Each head rolled out on its own: [B, heads, N, N]."""
    eye = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    return multiply([(a + eye) / 2 for a in layers])


# ---- 13.3


@exercise
def check_lift(my_lift: Callable, my_layers: Callable) -> None:
    """my_lift(weights, kind, n_t, s): weights of space or time -> the mean over heads as [B, N, N], N = n_t·s.

    my_layers(model, clips): what follows each other in Models 2 to 4, a list of [B, 1, N, N].
    """
    for batch, n_t, s, double in ((2, 4, 5, False), (1, 5, 2, True)):
        for of, shape in (
            ("space", (batch, n_t, HEADS, s, s)),
            ("time", (batch, s, HEADS, n_t, n_t)),
            ("time", (batch, HEADS, n_t, n_t)),
        ):
            weights = sharp_weights(*shape)
            weights = weights.double() if double else weights
            case = f"kind {of!r} with weights {list(shape)}, nt={n_t}, s={s}"
            found = call(my_lift, weights, of, n_t, s)
            close(found, *lifted(weights, of, n_t, s), what=f"the result for {case}")
            like(found, weights)
    keeps_gradients(lambda parts: my_lift(parts[0], "space", 4, 5), [sharp_weights(2, 4, HEADS, 5, 5)])
    for name in ("factorised_encoder", "factorised_self_attention", "factorised_dot_product"):
        model = sharp_model(name, heads=2, depth=2)
        clips = clips_for(model, 2)
        expected, mistakes = followed(model, clips)
        check_layers(call(my_layers, model, clips), expected, mistakes, model)
    passed("13.3", "space is a block diagonal, time makes stripes, and the layers follow each other as in the model.")


def followed(model: nn.Module, clips: torch.Tensor) -> tuple[list[torch.Tensor], dict[str, list[torch.Tensor]]]:
    """The lifted matrices [B, N, N] that follow each other, and {message: those of this mistake}."""
    maps = attention_maps(model, clips)
    each = [dense_lift(m.weights.mean(dim=-3), m.kind, *model.grid) for m in maps]
    means = [(space + time) / 2 for space, time in zip(each[::2], each[1::2])]
    if model.attention_halves:
        return means, {
            "in Model 4 space and time share the heads of one layer, so its matrix is their mean; here they follow "
            "each other as in Model 3": each,
            "in Model 4 the layer is the mean of its halves; here they were added, so rows sum to 2": [
                2 * a for a in means
            ],
            "in Model 4 the layer is the mean of its halves; here they were multiplied": [
                time @ space for space, time in zip(each[::2], each[1::2])
            ],
            "a layer's two halves follow each other in the list, space and then time; here other pairs were averaged": [
                (space + time) / 2 for space, time in zip(each[: len(means)], each[len(means) :])
            ],
        }
    mistakes = {"the layers are in reversed order: the first one comes first": each[::-1]}
    if [m.kind for m in maps[:2]] == ["space", "time"]:
        mistakes |= {
            "in Model 3 attention over space and over time follow each other, each with a residual connection of its "
            "own; here they were averaged as in Model 4": means,
            "space and time were multiplied before the identity was added: each has a residual connection of its own, "
            "so hand both over, one after the other": [time @ space for space, time in zip(each[::2], each[1::2])],
        }
    return each, mistakes


def check_layers(found: object, expected: list[torch.Tensor], mistakes: dict, model: nn.Module) -> None:
    """Compares lifted layers, with or without an axis for the heads, with those expected."""
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, torch.Tensor) for one in found):
        same_shape(
            found if isinstance(found, torch.Tensor) or found is None else None, expected[0][:, None], "my_layers"
        )
        raise CheckFailed("my_layers returns one tensor, expected a list of [B, 1, N, N], one for each layer")

    def same(wrong):
        if len(found) != len(wrong) or any(one.shape != right[:, None].shape for one, right in zip(found, wrong)):
            return False
        return all(torch.allclose(one, right[:, None], atol=1e-5) for one, right in zip(found, wrong))

    for message, wrong in mistakes.items():
        if same(wrong) and not same(expected):
            raise CheckFailed(f"{type(model).__name__}: {message}")
    if len(found) != len(expected):
        raise CheckFailed(
            f"{type(model).__name__}: my_layers returns {len(found)} matrices, expected {len(expected)}, one for each "
            "step that has a residual connection of its own"
        )
    for layer, (one, right) in enumerate(zip(found, expected)):
        if one.shape == right.shape:
            raise CheckFailed(
                f"layer {layer} of my_layers has shape {list(one.shape)}, expected {list(right[:, None].shape)}: your "
                "rollout takes a mean over heads, so keep an axis of length 1 for them, `[:, None]`"
            )
        same_shape(one, right[:, None], f"{type(model).__name__}, layer {layer} of my_layers")
        close(one, right[:, None], what=f"{type(model).__name__}, layer {layer} of my_layers")


def lifted(weights: torch.Tensor, kind: str, n_t: int, s: int) -> tuple[torch.Tensor, dict[str, object]]:
    """Weights lifted to N×N, and {message: what this mistake gives}."""
    a, one_time = weights.mean(dim=-3), kind == "time" and weights.ndim == 4
    dense = dense_lift(a, kind, n_t, s)
    inner = rearrange(dense, "b (t i) (u j) -> b t i u j", t=n_t, u=n_t)
    mistakes = {
        "the tokens are in another order than the model's: all places of the first time index come first, then those "
        "of the next, (t s)": rearrange(inner, "b t i u j -> b (i t) (j u)"),
        "rows and columns have changed places: row i is what token i reads": dense.mT,
        "only the first head is there: take the mean over the heads": dense_lift(weights[..., 0, :, :], kind, n_t, s),
        "the heads were added up: take their mean": dense * HEADS,
    }
    if one_time:
        eye = torch.eye(s, dtype=a.dtype)
        mistakes |= {
            "the weights are divided by nt: a time index stands for its S tokens, so divide by S": dense * s / n_t,
            "rows sum to S, not to 1: a time index stands for the mean of its S tokens, so its weight is shared out "
            "among them": dense * s,
            "each token reads only its own place in the other time indices, as in Model 3. In Model 2 a time index is "
            "one vector, the mean over its S tokens, and whoever reads it reads all of them alike": rearrange(
                torch.einsum("b t u, i j -> b t i u j", a, eye), "b t i u j -> b (t i) (u j)"
            ),
        }
    elif kind == "space":
        mistakes |= {
            "all time indices have the same weights: each block of the diagonal is another time index": dense_lift(
                a[:, :1].expand(-1, n_t, -1, -1), kind, n_t, s
            ),
            "the blocks are the mean over time: each time index has weights of its own": dense_lift(
                a.mean(dim=1, keepdim=True).expand(-1, n_t, -1, -1), kind, n_t, s
            ),
            "tokens read other time indices: spatial attention stays within one, so all blocks but those on the "
            "diagonal are zero": rearrange(repeat(a, "b t i j -> b t i u j", u=n_t), "b t i u j -> b (t i) (u j)"),
        }
    else:
        mistakes |= {
            "all places have the same weights: each place has weights of its own": dense_lift(
                a[:, :1].expand(-1, s, -1, -1), kind, n_t, s
            ),
            "tokens read other places: temporal attention stays at one place, so all else is zero": rearrange(
                repeat(a, "b i t u -> b t i u j", j=s), "b t i u j -> b (t i) (u j)"
            ),
            "this is a block diagonal with one block for each place; tokens count through the places of one time "
            "index first, so temporal attention makes stripes": rearrange(inner, "b t i u j -> b (i t) (j u)"),
        }
    return dense, mistakes


def dense_lift(a: torch.Tensor, kind: str, n_t: int, s: int) -> torch.Tensor:
    """Attention without heads among all tokens, by loops: [B, N, N]."""
    dense = a.new_zeros(len(a), n_t, s, n_t, s)
    if kind == "space":
        for t in range(n_t):
            dense[:, t, :, t] = a[:, t]
    elif a.ndim == 4:
        for place in range(s):
            dense[:, :, place, :, place] = a[:, place]
    else:
        dense += a[:, :, None, :, None] / s
    return dense.reshape(len(a), n_t * s, n_t * s)


# ---- 13.4


@exercise
def check_relevance(my_relevance: Callable) -> None:
    """my_relevance(layers, gradients): two lists of [B, heads, N, N], first layer first -> R [B, N, N]."""
    for layers in (example_layers(), example_layers(batch=1, layers=2, n=7), [a.double() for a in example_layers(3)]):
        gradients = [g.to(layers[0].dtype) for g in example_gradients(layers)]
        expected, mistakes = relevances(layers, gradients)
        found = call_on(my_relevance, layers, gradients)
        close(found, expected, mistakes)
        like(found, layers[0])
    layers = example_layers()
    keeps_gradients(my_relevance, layers, example_gradients(layers))
    passed("13.4", "positive parts head by head, averaged, and added to what was there.")


def relevances(
    layers: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, dict[str, object]]:
    """The relevance of these layers, and {message: what this mistake gives}."""
    eye = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    products = [g * a for g, a in zip(gradients, layers)]

    def accumulate(factors, left=True):
        return multiply([eye + f for f in factors], left)

    right = [p.clamp(min=0).mean(dim=1) for p in products]
    return accumulate(right), {
        "the negative part was cut off after the mean over heads: a head that speaks against the class then cancels "
        "one that speaks for it. Cut off first, then average": accumulate(
            [p.mean(dim=1).clamp(min=0) for p in products]
        ),
        "the negative part is still there: (…)⁺ keeps what speaks for the class": accumulate(
            [p.mean(dim=1) for p in products]
        ),
        "the absolute value was taken: what speaks against the class counts as much as what speaks for it": accumulate(
            [p.abs().mean(dim=1) for p in products]
        ),
        "this is the gradient alone: multiply it with the weights, element by element": accumulate(
            [g.clamp(min=0).mean(dim=1) for g in gradients]
        ),
        "the gradients and the weights were multiplied as matrices: ⊙ is the product element by element, *": lambda: (
            accumulate([(g @ a).clamp(min=0).mean(dim=1) for g, a in zip(gradients, layers)])
        ),
        "these are the weights without their gradients: this is the same for all classes": accumulate(
            [a.mean(dim=1) for a in layers]
        ),
        "R itself is missing from the sum: R ← R + (…)⁺ R": multiply(right),
        "R starts from zeros, so nothing is ever added: start from the identity": 0 * right[0],
        "R was added twice: the factor is (…)⁺ alone, without I, if you add R to the product": multiply(
            [2 * eye + f for f in right]
        ),
        "the positive part was cut off: clamp(min=0) keeps what speaks for the class": accumulate(
            [p.clamp(max=0).mean(dim=1) for p in products]
        ),
        "each layer is transposed: rows are the tokens that ask": accumulate([f.mT for f in right]),
        "this is the last layer alone: the loop has to keep what the layers before gave": eye + right[-1],
        "the heads were added up: take their mean": accumulate([p.clamp(min=0).sum(dim=1) for p in products]),
        "halved as in rollout: here R stays whole and relevance is added to it": multiply(
            [(eye + f) / 2 for f in right]
        ),
        "the order is reversed: the new factor stands on the left of R": accumulate(right, left=False),
        "every layer was added to the identity alone: the factor multiplies the R of the layers before": eye
        + sum(right),
        "the product with R is missing: R ← R + (…)⁺ @ R, a product of matrices": lambda: elementwise(right),
        "this is right but for the identity that R starts from: leave it in, the chapter takes it off afterwards": (
            lambda: accumulate(right) - eye
        ),
        "gradient and weights were averaged over the heads before they were multiplied: multiply them head by head, "
        "clamp, then average": accumulate(
            [g.mean(dim=1).clamp(min=0) * a.mean(dim=1) for g, a in zip(gradients, layers)]
        ),
        "the last layer is not there": accumulate(right[:-1]),
        "R is transposed: rows are the tokens at the end, columns those at the start": accumulate(right).mT,
    }


def elementwise(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    r = torch.eye(factors[0].shape[-1], dtype=factors[0].dtype)
    for factor in factors:
        r = r + factor * r
    return r


# ---- 13.5


@exercise
def check_tests(forgets_itself: Callable, blind_to_class: Callable) -> None:
    """forgets_itself(rollout) -> bool; blind_to_class(method, model, clips) -> bool."""
    for rolled, forgets, words in ROLLOUTS:
        found = flag(call(forgets_itself, rolled), "forgets_itself(...)")
        if found != forgets:
            raise CheckFailed(f"forgets_itself says {found} of {words}. {HINTS_ROLLOUT[forgets]}")
    model = sharp_model(depth=1)  # four classes
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0]  # classes 0 and 1 have one map, 2 and 3 have others
        model.head.bias[1] = model.head.bias[0]
    for method, blind, words in METHODS_TO_JUDGE:
        for clips in (clips_for(model, 3), clips_for(model, 1, seed=4)):
            found = flag(call(blind_to_class, method, model, clips), "blind_to_class(...)")
            if found != blind:
                raise CheckFailed(f"blind_to_class says {found} of {words}. {HINTS_CLASS[blind]}")
    passed("13.5", "your tests catch what is wrong and let pass what is right.")


def _right_rollout(layers):
    eye = torch.eye(layers[0].shape[-1])
    return multiply([(a.mean(dim=1) + eye) / 2 for a in layers])


def _normalised_rollout(layers):
    factors = [a.mean(dim=1) + torch.eye(a.shape[-1]) for a in layers]
    return multiply([f / f.sum(dim=-1, keepdim=True) for f in factors])


def _rollout_of_strongest_head(layers):
    factors = [a.amax(dim=1) + torch.eye(a.shape[-1]) for a in layers]
    return multiply([f / f.sum(dim=-1, keepdim=True) for f in factors])


def _rollout_without_identity(layers):
    return multiply([a.mean(dim=1) for a in layers])


def _rollout_that_normalises_alone(layers):
    means = [a.mean(dim=1) for a in layers]
    return multiply([a / a.sum(dim=-1, keepdim=True) for a in means])


ROLLOUTS = (
    (_rollout_without_identity, True, "a rollout without the identity, R = A_L … A_1"),
    (_right_rollout, False, "a right rollout, with (A + I) / 2"),
    (_rollout_that_normalises_alone, True, "a rollout that makes rows sum to 1, but adds no identity"),
    (_normalised_rollout, False, "a right rollout that divides A + I by the sums of its rows"),
    (_rollout_of_strongest_head, False, "a rollout that takes the strongest head; it does add the identity"),
)
HINTS_ROLLOUT = {
    True: "Rows that sum to 1 prove nothing: those of the weights do already. Choose one layer by which no token reads "
    "itself: what does R's diagonal hold with and without the identity?",
    False: "Ask only whether something of the token itself is left, not for one number, and return False if there is.",
}


def _class_relevance(model, clips, classes):
    return relevance(model, clips, classes)


def _class_gradient(model, clips, classes):
    return input_gradient(model, clips, classes)


def _rollout_map(model, clips, classes):
    return rollout(model, clips)


def _of_all_logits(model, clips, classes):
    """A gradient of the sum of all logits: it asks no class."""
    return sum(input_gradient(model, clips, [k] * len(clips)) for k in range(model.config.num_classes))


def _of_predicted(model, clips, classes):
    return relevance(model, clips)


def _rounded_differently(model, clips, classes):
    """The same for every class but for the last digit of a float."""
    return rollout(model, clips) * (1 + 1e-6 * int(torch.as_tensor(classes)[0]))


def _only_class(k):
    """The same map for every class but k."""

    def method(model, clips, classes):
        maps = rollout(model, clips)
        return maps.flip(1) if int(torch.as_tensor(classes)[0]) == k else maps

    return method


def _one_tubelet(model, clips, classes):
    """Classes differ in one tubelet of the last time index, which is never the strongest."""
    maps = rollout(model, clips).clone()
    strongest, k = maps[:, -1].argmax(dim=1), int(torch.as_tensor(classes)[0])
    maps[torch.arange(len(maps)), -1, strongest] *= 0.7 - 0.1 * k
    return maps


def _a_tenth(model, clips, classes):
    """From class to class every tubelet changes by a few per cent."""
    maps, k = rollout(model, clips), int(torch.as_tensor(classes)[0])
    waves = torch.cos(torch.arange(maps[0].numel()) * (k + 1.0)).view_as(maps[0])
    return maps * (1 + 0.1 * waves)


def _in_opposite_ways(model, clips, classes):
    """Only the last two clips' maps depend on the class, and their mean does not."""
    maps, k = rollout(model, clips).clone(), int(torch.as_tensor(classes)[0])
    change = 0.1 * maps.mean() * torch.cos(torch.arange(maps[0].numel()) * (k + 1.0)).view_as(maps[0])
    maps[-1] += change
    if len(maps) > 1:
        maps[-2] -= change
    return maps


METHODS_TO_JUDGE = (
    (_rollout_map, True, "rollout, which takes no class"),
    (_class_relevance, False, "relevance for the class that is asked for"),
    (_of_all_logits, True, "a gradient of the sum of all logits"),
    (_of_predicted, True, "relevance that always asks for the predicted class"),
    (_class_gradient, False, "the input gradient of the class that is asked for"),
    *((_only_class(k), False, f"a method whose map for class {k} differs from all others") for k in range(4)),
    (_one_tubelet, False, "a method whose maps differ from class to class in one tubelet, which is not the strongest"),
    (_a_tenth, False, "a method whose maps differ from class to class by a few per cent of each value"),
    (_in_opposite_ways, False, "a method whose maps of the last two clips depend on the class, in opposite ways"),
    (_rounded_differently, True, "a map that differs between classes by rounding only, one part in a million"),
)
HINTS_CLASS = {
    True: "Ask for every class and compare the maps, with room for rounding (torch.allclose), and return True if all "
    "are the same.",
    False: "Its maps differ for some pairs of classes. Compare whole maps of all clips, not their sums, which are all "
    "1, or their largest values, and every class: two classes can have the same map by accident. Allow for rounding "
    "only, as torch.allclose does by itself.",
}


# ---- 13.6


@exercise
def check_point(my_point: Callable) -> None:
    """my_point(model, clip, scores, k, label): the probability of `label` with the k best tubelets grey."""
    for options, k, label, double in (
        ({}, 7, 2, False),
        ({"tubelet": (2, 4, 5)}, 5, 0, False),
        ({}, 0, 1, False),
        ({}, 20, 3, False),
        ({}, 1, 2, True),
    ):
        model = sharp_model(seed=3, depth=2, **options)
        model = model.double() if double else model
        clip = clips_for(model, 1, seed=k) ** 2  # its mean is not one half
        scores = torch.randn(model.grid, generator=torch.Generator().manual_seed(k)).to(clip.dtype)
        expected, mistakes = points(model, clip, scores, k, label)
        returned = call_with_hints(BEYOND, my_point, model, clip, scores, k, label)
        found = number(returned, "the probability", hint=": the model returns [1, classes], so take [0, label]")
        if isinstance(found, int):
            raise CheckFailed(
                f"the probability is {found}, a whole number: argmax gives a class, take `label`'s probability"
            )
        close(found, expected, mistakes, what=f"the probability for k={k}", tolerance=1e-4)
    ties = torch.zeros(model.grid, dtype=clip.dtype)
    ties[0, :3] = 1.0
    found = number(call(my_point, model, clip, ties, 2, 2), "the probability")
    rows = [sorted(pair) for pair in ((0, 1), (0, 2), (1, 2))]
    allowed = [probability(model, clip, remove(ties, pair), 2) for pair in rows]
    if min(abs(found - one) for one in allowed) > 1e-4:
        raise CheckFailed(
            "where three tubelets have the same score and k is 2, not exactly two of them go: choose by rank "
            "(argsort, topk), not by comparing the scores with the k-th"
        )
    passed("13.6", "the k best tubelets turn grey, and the probability is the class's.")


BEYOND = {
    "out of bounds for dimension 0": "k can be as large as the number of tubelets: then there is none after the k-th",
    "out of range": "k can be as large as the number of tubelets: then there is none after the k-th",
}


def remove(scores: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
    """Which tubelets stay, bool [n_t, S], when those with these numbers go."""
    keep = torch.ones(scores.numel(), dtype=torch.bool)
    keep[list(tokens)] = False
    return keep.view_as(scores)


@torch.no_grad()
def probability(model: nn.Module, clip: torch.Tensor, keep: torch.Tensor, label: int) -> float:
    """The probability of a class when only some tubelets are not grey."""
    return masked_logits(model, clip, keep[None, None], progress=False)[0, 0].softmax(dim=-1)[label].item()


@torch.no_grad()
def points(
    model: nn.Module, clip: torch.Tensor, scores: torch.Tensor, k: int, label: int
) -> tuple[float, dict[str, object]]:
    """The probability, and {message: what this mistake gives}."""
    order = scores.flatten().argsort(descending=True).tolist()
    keep = remove(scores, order[:k])
    seen = to_voxels(model, keep[None].float())[:, None] > 0  # [1, 1, T, H, W]
    grey = clip.mean(dim=(2, 3, 4), keepdim=True)
    logits = model(torch.where(seen, clip, grey))[0]
    of_all, right = logits.softmax(dim=-1), logits.softmax(dim=-1)[label].item()

    def gone(tokens):
        return probability(model, clip, remove(scores, tokens), label)

    def filled(value, stays=seen):
        return model(torch.where(stays, clip, value))[0].softmax(dim=-1)[label].item()

    grid, tubelet = model.embedding.grid, model.embedding.tubelet
    stays = keep.view(grid)
    tiled = stays.repeat(tubelet)
    turned = repeat(
        keep.view(grid[0], grid[2], grid[1]).mT,
        "t h w -> (t pt) (h ph) (w pw)",
        **dict(zip(("pt", "ph", "pw"), tubelet)),
    )
    whole_list = {
        "with k = 0 every tubelet is gone: `[-0:]` is the whole list. Sort in descending order and take `[:k]`": gone(
            order
        )
    }
    return right, (whole_list if k == 0 else {}) | {
        "the mask is tiled, not stretched: each tubelet needs pt × ph × pw neighbouring voxels, (nt pt) (nh ph) "
        "(nw pw)": filled(grey, tiled),
        "height and width have changed places in the grid: tokens count (nt nh nw)": filled(grey, turned),
        "the ranks were taken within each time index: flatten the scores first": gone(
            [t * scores.shape[1] + int(i) for t, row in enumerate(scores) for i in row.argsort(descending=True)[:k]]
        ),
        "the sign of the scores was dropped: the greatest go first, not those farthest from 0": gone(
            scores.flatten().abs().argsort(descending=True)[:k].tolist()
        ),
        "the tubelets are 0.5, not grey: put the clip's mean in their place": filled(torch.full_like(clip, 0.5)),
        "the softmax runs over the batch, of one clip: take it over the classes, dim=1": 1.0,
        "the worst tubelets are gone: the best go first, so sort in descending order": gone(order[len(order) - k :]),
        "this is insertion: the k best must go, not stay": gone(order[k:]),
        "this is the clip's own probability: nothing has turned grey": gone([]),
        "one tubelet too many is gone: for k=0 nothing is": gone(order[: k + 1]),
        "one tubelet too few is gone": gone(order[: max(k - 1, 0)]),
        "the tubelets numbered 0 to k - 1 are gone, whatever their scores": gone(range(k)),
        "the tubelets are black, not grey: put the clip's mean in their place": filled(torch.zeros_like(clip)),
        "the mean is taken over all channels: each channel has its own": filled(clip.mean()),
        "the mean is taken over the batch or over single frames: it is one value for each channel": filled(
            clip.mean(dim=(3, 4), keepdim=True)
        ),
        "this is the logit: take the softmax over the classes first": logits[label].item(),
        "this is the log of the probability: take softmax, not log_softmax": logits.log_softmax(dim=-1)[label].item(),
        "this is the largest probability, whatever its class: take the one of `label`": of_all.max().item(),
        "this is the fall of the probability: return what is left of it": gone([]) - right,
    }
