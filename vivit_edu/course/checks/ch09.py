"""Checks of chapter 09: pairs, FLOPs, a search for counterexamples, whole models, an exponent, memory, a design."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ... import cost
from ...models import model_class
from ...vivit import Block, FactorisedDotProductBlock, FactorisedSelfAttentionBlock, ViViTConfig
from ..ready import ch09 as finished
from . import CheckFailed, call, examine, exercise, kind, passed
from .calling import call_with_hints

FOUR_MODELS = tuple(cost.PAPER)  # the package's names of Models 1 to 4
FOUR = "Model 1, Model 2, Model 3, Model 4"

# ---- 09.1

PAIRS_MISTAKES: dict[int, dict[str, Callable]] = {  # of each model
    1: {
        "these are the tokens: each of the N tokens is compared with all N": lambda t, s: t * s,
        "only s is squared: N = nt·s is squared as a whole": lambda t, s: t * s**2,
        "only nt is squared: N = nt·s is squared as a whole": lambda t, s: t**2 * s,
        "N is nt·s, not nt + s": lambda t, s: (t + s) ** 2,
        "nothing is factorised here: N = nt·s is squared as a whole": lambda t, s: t**2 + s**2,
        "the token itself is left out: it is one of its own keys": lambda t, s: t * s * (t * s - 1),
        "each two tokens are counted once: i looking at j and j looking at i are two pairs": lambda t, s: (
            t * s * (t * s + 1) / 2
        ),
    },
    2: {
        "this is s² + nt², the paper's O(…): the spatial encoder runs once for each time index": lambda t, s: (
            s**2 + t**2
        ),
        "the temporal encoder is missing": lambda t, s: t * s**2,
        "this is Model 3's: here only one vector per time index is left for the temporal encoder": lambda t, s: (
            t * s * (s + t)
        ),
        "space and time are exchanged": lambda t, s: s * t**2 + s**2,
        "nt and s are exchanged in its first term: over space there are nt attentions among s tokens each": (
            lambda t, s: s * t**2 + t**2
        ),
        "this is Model 1's: the spatial encoder sees one time index at a time": lambda t, s: (t * s) ** 2,
    },
    3: {
        "the attention over time is missing": lambda t, s: t * s**2,
        "the attention over space is missing": lambda t, s: s * t**2,
        "nt and s are exchanged: over space there are nt attentions among s tokens each, over time s among nt": (
            lambda t, s: t**3 + s**3
        ),
        "this is one time index and one place: there are nt and s of them": lambda t, s: s**2 + t**2,
        "this is Model 2's: here all s places are still there over time": lambda t, s: t * s**2 + t**2,
        "the two attentions are multiplied: they come one after the other, so their pairs add up": lambda t, s: (
            (t * s) ** 2
        ),
        "this is half of it: here each of the two attentions has all the heads": lambda t, s: t * s * (t + s) / 2,
        "the token itself is counted once: it is a key over space and again over time": lambda t, s: (
            t * s * (t + s - 1)
        ),
    },
    4: {
        "this is Model 3's: here half the heads do one and half the other, so take the average": lambda t, s: (
            t * s * (t + s)
        ),
        "this is a cross of keys for each token: no head sees both arms of it": lambda t, s: t * s * (t + s - 1),
        "this is space only": lambda t, s: t * s**2,
        "this is time only": lambda t, s: s * t**2,
        "the temporal heads are missing": lambda t, s: t * s**2 / 2,
        "this is half of Model 1's pairs: each half of the heads is factorised": lambda t, s: (t * s) ** 2 / 2,
        "it is halved twice": lambda t, s: t * s * (t + s) / 4,
    },
}


@exercise
def check_pairs(pairs: Callable) -> None:
    """09.1: pairs(nt, s) -> [Model 1, Model 2, Model 3, Model 4], pairs of one layer per head."""

    def counted(nt, s):
        return [float(cost.attention_pairs(name, nt, s)) for name in FOUR_MODELS]

    examine(
        pairs,
        counted,
        *((3, 5), (4, 7), (6, 2), (1, 9), (8, 1)),
        mistakes={
            f"Model {model}: {said}": _instead(counted, model, formula)
            for model, found in PAIRS_MISTAKES.items()
            for said, formula in found.items()
        },
        what=FOUR,
    )
    passed("09.1", "as many pairs as the package's models compare.")


def _instead(right, model, formula):
    """The four right numbers, with one model's replaced by a mistaken formula."""

    def mistaken(*args):
        found = list(right(*args))
        found[model - 1] = formula(*args)
        return found

    return mistaken


# ---- 09.2


@exercise
def check_block_flops(block_flops: Callable) -> None:
    """09.2: block_flops(tokens, pairs, attentions, dim, mlp_dim) -> (linear maps, attention products)."""

    def linear(formula):
        return lambda n, p, a, d, m: (formula(n, a, d, m), 4 * d * p)

    def products(formula):
        return lambda n, p, a, d, m: (n * (8 * a * d * d + 4 * d * m), formula(n, p, a, d))

    examine(
        block_flops,
        finished.block_flops,
        *((7, 39, 1, 10, 34), (7, 39, 2, 10, 34), (1, 1, 1, 3, 5), (3136, 9834496, 1, 768, 3072)),
        mistakes={
            "the two numbers are exchanged: first the linear maps, then the products": lambda *block: (
                finished.block_flops(*block)[::-1]
            ),
            "`attentions` is not used: two attentions have twice the maps for Q, K, V and the output": linear(
                lambda n, a, d, m: n * (8 * d * d + 4 * d * m)
            ),
            "the block has one MLP, however many attentions it has": linear(
                lambda n, a, d, m: a * n * (8 * d * d + 4 * d * m)
            ),
            "each multiply-add counts as two FLOPs": linear(lambda n, a, d, m: n * (4 * a * d * d + 2 * d * m)),
            "W_O is missing: an attention has four maps from D to D": linear(
                lambda n, a, d, m: n * (6 * a * d * d + 4 * d * m)
            ),
            "Q, K and V come from three maps, from D to D each": linear(
                lambda n, a, d, m: n * (4 * a * d * d + 4 * d * m)
            ),
            "an attention has four maps from D to D, for Q, K, V and the output": linear(
                lambda n, a, d, m: n * (2 * a * d * d + 4 * d * m)
            ),
            "the MLP has two maps, from D to M and back": linear(lambda n, a, d, m: n * (8 * a * d * d + 2 * d * m)),
            "the MLP is missing": linear(lambda n, a, d, m: n * 8 * a * d * d),
            "the attention's linear maps are missing": linear(lambda n, a, d, m: n * 4 * d * m),
            "mlp_dim is taken to be 4·dim: use the one that is given": linear(
                lambda n, a, d, m: n * (8 * a * d * d + 16 * d * d)
            ),
            "these are the linear maps of one token": linear(lambda n, a, d, m: 8 * a * d * d + 4 * d * m),
            "dim and mlp_dim are exchanged": linear(lambda n, a, d, m: n * (8 * a * m * m + 4 * d * m)),
            "the products are half of it: there are two, Q Kᵀ and weights times values, and each multiply-add counts "
            "as two FLOPs": products(lambda n, p, a, d: 2 * d * p),
            "the products use tokens²: how many pairs are compared is given as `pairs`": products(
                lambda n, p, a, d: 4 * d * n * n
            ),
            "`pairs` already counts both attentions of the block": products(lambda n, p, a, d: 4 * d * p * a),
            "the products need dim: a pair costs a product over all D numbers, head by head": products(
                lambda n, p, a, d: 4 * p
            ),
            "dim is squared in the products: a pair costs 4·D": products(lambda n, p, a, d: 4 * d * d * p),
            "the pairs are squared: they are pairs already": products(lambda n, p, a, d: 4 * d * p * p),
        },
        what="the linear maps, the products",
    )
    passed("09.2", "a token costs 8D² + 4DM, a pair costs 4D.")


# ---- 09.3


def _truth(tokens, dim, mlp_dim, heads):
    return tokens * (8 * dim**2 + 4 * dim * mlp_dim) + 4 * dim * tokens**2


RIGHT_FORMULAS = [
    _truth,
    lambda n, d, m, heads: 4 * n * d * (2 * d + m + n),
    lambda n, d, m, heads: 2.0 * (4 * n * d * d + 2 * n * d * m + heads * 2 * n * n * (d / heads)),
]
FAULTY_FORMULAS: dict[str, Callable] = {  # what is wrong, and where it cannot be seen
    "that counts the heads twice, which agrees wherever heads = 1": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + h * 4 * d * n * n
    ),
    "that takes mlp_dim to be 4·dim, which agrees wherever it is": lambda n, d, m, h: n * 24 * d * d + 4 * d * n * n,
    "that takes dim to be 64·heads in the products, which agrees at the sizes of ViT": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + 4 * 64 * h * n * n
    ),
    "that forgets all heads but one, which agrees wherever heads = 1": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + 4 * (d // h) * n * n
    ),
    "that counts tokens where it should count pairs, which agrees wherever tokens = 1": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + 4 * d * n
    ),
    "that counts the biases as well, which is off by less than 1 % at large widths": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + 4 * d * n * n + n * (5 * d + m)
    ),
    "that takes tokens to be dim in the products, which agrees wherever tokens = dim": lambda n, d, m, h: (
        n * (8 * d * d + 4 * d * m) + 4 * d * d * n
    ),
    "that is twice the count": lambda n, d, m, h: 2 * _truth(n, d, m, h),
}


@exercise
def check_counterexample(counterexample: Callable) -> None:
    """09.3: counterexample(formula) -> sizes at which it differs from a real block's count, or None."""
    for formula in RIGHT_FORMULAS:
        found = call(counterexample, _named(formula))
        if found is not None:
            raise CheckFailed(
                f"a right formula, written in another way, is accused: your function returned {_short(found)} for it. "
                "Compare the formula with `counted_block` at the same sizes, and return None if they always agree"
            )
    for fault, formula in FAULTY_FORMULAS.items():
        found = call(counterexample, _named(formula))
        if found is None:
            raise CheckFailed(f"your function returned None for a formula {fault}: choose sizes that show it")
        tokens, dim, mlp_dim, heads = _four_sizes(found)
        if formula(tokens, dim, mlp_dim, heads) == _truth(tokens, dim, mlp_dim, heads):
            raise CheckFailed(
                f"at {_short(found)} the formula agrees with the count: return sizes at which it doesn't. The formula "
                f"was one {fault}"
            )
    passed("09.3", f"{len(FAULTY_FORMULAS)} faults found, and no right formula accused.")


def _named(formula):
    """A formula with the argument names of the task, so that it can be called by keyword."""

    def claimed(tokens: int, dim: int, mlp_dim: int, heads: int) -> float:
        return formula(tokens, dim, mlp_dim, heads)

    return claimed


def _four_sizes(found):
    sizes = list(found.values()) if isinstance(found, dict) else found
    if not isinstance(sizes, (tuple, list, np.ndarray)) or len(sizes) != 4:
        raise CheckFailed(
            f"return the four sizes at which the formula is wrong, (tokens, dim, mlp_dim, heads); your function "
            f"returned {_short(found)}"
        )
    if any(int(size) != size or size < 1 for size in sizes) or sizes[1] % sizes[3]:
        raise CheckFailed(f"{_short(found)} are not the sizes of a block, (tokens, dim, mlp_dim, heads)")
    return [int(size) for size in sizes]


def _short(found):
    return repr(found)[:60] if isinstance(found, (tuple, list, dict, bool, int, float, str)) else kind(found)


# ---- 09.4


@exercise
def check_whole_models(whole: Callable) -> None:
    """09.4: whole(cost, nt, s, depth, temporal_depth) -> [Model 1, …, Model 4], a block's cost over all blocks."""

    def price(tokens, pairs, attentions):  # not in proportion to anything, so that each mistake gives another number
        return 100 * tokens + 0.37 * pairs + 5000.0 * attentions**2 + 17

    def sparse(tokens, pairs, attentions):
        return 1.0 * attentions

    def model2(spatial, temporal):
        return _instead(
            finished.whole,
            2,
            lambda c, t, s, depth, td: depth * c(*spatial(t, s), 1) + td * c(*temporal(t, s), 1),
        )

    def of(model, layer):
        return _instead(finished.whole, model, lambda c, t, s, depth, td: depth * layer(c, t, s))

    def other(model, formula):
        return _instead(finished.whole, model, formula)

    def spatial(t, s):
        return t * s, t * s**2

    def temporal(t, s):
        return t, t * t

    examine(
        whole,
        finished.whole,
        *((price, 3, 5, 4, 7), (price, 6, 2, 2, 3), (price, 1, 4, 3, 1), (sparse, 4, 3, 5, 0)),
        mistakes={
            "Model 1: these are the tokens of one time index, there are nt·s in all": of(
                1, lambda c, t, s: c(s, (t * s) ** 2, 1)
            ),
            "Model 1: it has nt·s tokens, not nt": of(1, lambda c, t, s: c(t, (t * s) ** 2, 1)),
            "Model 1: its pairs are (nt·s)²": of(1, lambda c, t, s: c(t * s, t * s, 1)),
            "depth is missing: the cost of a block is needed once for each of its layers": lambda c, t, s, depth, td: (
                finished.whole(c, t, s, 1, td)
            ),
            "temporal_depth is missing in Model 2's temporal encoder": lambda c, t, s, depth, td: finished.whole(
                c, t, s, depth, 1
            ),
            "Model 2: the temporal encoder has temporal_depth layers, not depth": lambda c, t, s, depth, td: (
                finished.whole(c, t, s, depth, depth)
            ),
            "Model 2: the temporal encoder is missing": lambda c, t, s, depth, td: finished.whole(c, t, s, depth, 0),
            "Model 2: the cost of one time index is multiplied by nt. Call cost once for the whole clip, with nt·s "
            "tokens and nt·s² pairs: not every cost grows with the tokens": other(
                2, lambda c, t, s, depth, td: depth * t * c(s, s**2, 1) + td * c(t, t * t, 1)
            ),
            "Model 2: the spatial encoder sees all nt time indices, with s tokens each": model2(
                lambda t, s: (s, s * s), temporal
            ),
            "Model 2: the temporal encoder has one vector per time index, nt tokens in all": model2(
                spatial, lambda t, s: (t * s, t * t)
            ),
            "Model 2: the temporal encoder compares nt² pairs, one vector per time index": model2(
                spatial, lambda t, s: (t, s * t * t)
            ),
            "Model 2: the pairs of its temporal encoder are counted in the spatial one too: pairs() adds the two "
            "up, here each encoder has its own": model2(lambda t, s: (t * s, t * s**2 + t**2), temporal),
            "Model 2: each encoder gets its own call of cost, with its own depth": of(
                2, lambda c, t, s: c(t * s + t, t * s**2 + t**2, 1)
            ),
            "Model 2: this is one block with two attentions: its two encoders are two stacks of blocks": of(
                2, lambda c, t, s: c(t * s, t * s**2 + t**2, 2)
            ),
            "Model 3: its block has two attentions": of(3, lambda c, t, s: c(t * s, t * s * (t + s), 1)),
            "Model 3: it is one block with two attentions and one MLP, so cost is called once": of(
                3, lambda c, t, s: c(t * s, t * s * s, 1) + c(t * s, s * t * t, 1)
            ),
            "Model 3: its second attention comes without a second MLP, so call cost once, with attentions=2": of(
                3, lambda c, t, s: 2 * c(t * s, t * s * (t + s), 1)
            ),
            "Model 3: attentions=2 counts both already, so a block's cost isn't doubled": of(
                3, lambda c, t, s: 2 * c(t * s, t * s * (t + s), 2)
            ),
            "Model 3: this is Model 4's number of pairs": of(3, lambda c, t, s: c(t * s, t * s * (t + s) / 2, 2)),
            "Model 4: its block has one attention, whose heads are divided": of(
                4, lambda c, t, s: c(t * s, t * s * (t + s) / 2, 2)
            ),
            "Model 4: its pairs are half of Model 3's": of(4, lambda c, t, s: c(t * s, t * s * (t + s), 1)),
            "Model 4: its tokens are not halved, only the heads are": of(
                4, lambda c, t, s: c(t * s / 2, t * s * (t + s) / 2, 1)
            ),
        },
        errors={"positional argument": "cost takes three numbers: tokens, pairs, attentions"},
        what=FOUR,
    )
    passed("09.4", "four models from one block, each with its own tokens, pairs and attentions.")


# ---- 09.5


@exercise
def check_exponent(exponent: Callable) -> None:
    """09.5: exponent(x, y) -> the slope of log y against log x, by least squares."""
    noise = np.random.default_rng(9).normal(size=9)
    x = 3 * 2.0 ** np.arange(9)
    cases = [
        (x.tolist(), (factor * x**power * np.exp(spread * noise)).tolist())
        for power, factor, spread in ((1.0, 0.02, 0.3), (2.0, 5.0, 0.0), (1.5, 700.0, 0.1), (-0.5, 40.0, 0.2))
    ]
    log, fit = np.log, np.polyfit
    of_log = {
        f"{of_y} was taken of y and {of_x} of x: take the same logarithm of both": _two_logarithms(f, g)
        for of_x, f in LOGARITHMS.items()
        for of_y, g in LOGARITHMS.items()
        if f is not g
    }
    examine(
        exponent,
        finished.exponent,
        *cases,
        *(([2.0, 3.0, 11.0], [5.0, 1.0, 0.3]), ([1.0, 10.0], [4.0, 9.0]), ([0.5, 0.1, 0.9], [2.0, 2.0, 2.5])),
        mistakes={
            "no logarithm was taken: this is the slope of y against x": lambda x, y: fit(x, y, 1)[0],
            "only y's logarithm was taken: on a log-log plot both axes are logarithmic": lambda x, y: fit(x, log(y), 1)[
                0
            ],
            "only x's logarithm was taken: on a log-log plot both axes are logarithmic": lambda x, y: fit(log(x), y, 1)[
                0
            ],
            "x and y are exchanged: the exponent says how fast log y rises with log x": lambda x, y: fit(
                log(y), log(x), 1
            )[0],
            "this is the line's height at log x = 0: np.polyfit gives the slope first": lambda x, y: fit(
                log(x), log(y), 1
            )[1],
            "the line was forced through the origin, but a power law c·xᵏ has a factor c: fit the height too": (
                lambda x, y: log(x) @ log(y) / (log(x) @ log(x))
            ),
            "this is the mean of log y / log x, which is not k because of the factor c": lambda x, y: (
                log(y) / log(x)
            ).mean(),
            "only the first and the last point were used: fit all points": lambda x, y: (
                log(y[-1] / y[0]) / log(x[-1] / x[0])
            ),
            "only the last two points were used: fit all points": lambda x, y: log(y[-1] / y[-2]) / log(x[-1] / x[-2]),
            "only the first two points were used: fit all points": lambda x, y: log(y[1] / y[0]) / log(x[1] / x[0]),
            **of_log,
        },
        what="the exponent",
        tolerance=1e-3,
    )
    passed("09.5", "the slope on log-log axes, whatever the factor in front.")


LOGARITHMS = {"log": np.log, "log2": np.log2, "log10": np.log10}


def _two_logarithms(of_x, of_y):
    return lambda x, y: np.polyfit(of_x(x), of_y(y), 1)[0]


# ---- 09.6


@exercise
def check_kept(kept: Callable) -> None:
    """09.6: kept(tokens, pairs, attentions, dim, mlp_dim, heads) -> numbers that a block keeps for its backward."""

    def per_token(formula):
        return lambda n, p, a, d, m, h: n * formula(a, d, m) + h * p

    def per_pair(formula):
        return lambda n, p, a, d, m, h: n * (6 * a * d + 2 * d + 2 * m) + formula(n, p, a, d, h)

    cases = (7, 39, 2, 12, 34, 3), (7, 39, 1, 10, 34, 5)

    once = functools.cache(kept)

    def in_both(formula):
        """A mistake counts only where it explains both cases: with one alone, some would be taken for others."""
        return lambda *block: formula(*block) if all(math.isclose(once(*c), formula(*c)) for c in cases) else math.nan

    mistakes = {
        "these are bytes: return how many numbers there are": lambda *block: 4 * finished.kept(*block),
        "the input of a LayerNorm is missing: it is in front of the MLP too": per_token(
            lambda a, d, m: 6 * a * d + d + 2 * m
        ),
        "the input of a LayerNorm is missing: there is one in front of each attention too": per_token(
            lambda a, d, m: 5 * a * d + 2 * d + 2 * m
        ),
        "the inputs of the LayerNorms are missing": per_token(lambda a, d, m: 5 * a * d + d + 2 * m),
        "Q, K and V are three times [N, D]": per_token(lambda a, d, m: 4 * a * d + 2 * d + 2 * m),
        "Q, K and V are missing": per_token(lambda a, d, m: 3 * a * d + 2 * d + 2 * m),
        "M is kept twice: GELU keeps its input, and so does the map after it": per_token(
            lambda a, d, m: 6 * a * d + 2 * d + m
        ),
        "the MLP's numbers of width M are missing": per_token(lambda a, d, m: 6 * a * d + 2 * d),
        "the MLP's numbers of width D are missing: the inputs of its LayerNorm and of its first map": per_token(
            lambda a, d, m: 6 * a * d + 2 * m
        ),
        "`attentions` is not used: each attention keeps its own numbers": per_token(lambda a, d, m: 8 * d + 2 * m),
        "the block has one MLP, however many attentions it has": per_token(lambda a, d, m: a * (8 * d + 2 * m)),
        "the block has one MLP: its [N, M] are kept twice, however many attentions it has": per_token(
            lambda a, d, m: 6 * a * d + 2 * d + 2 * a * m
        ),
        "the block has one MLP: it keeps two [N, D], however many attentions it has": per_token(
            lambda a, d, m: 8 * a * d + 2 * m
        ),
        "mlp_dim is taken to be 4·dim: use the one that is given": per_token(lambda a, d, m: 6 * a * d + 2 * d + 8 * d),
        "the weights are missing: each head keeps one number per pair": per_pair(lambda n, p, a, d, h: 0),
        "the weights of one head are counted: each head has its own": per_pair(lambda n, p, a, d, h: p),
        "the weights use tokens²: how many pairs there are is given as `pairs`": per_pair(
            lambda n, p, a, d, h: h * n * n
        ),
        "`pairs` already counts both attentions of the block": per_pair(lambda n, p, a, d, h: a * h * p),
        "a weight is one number, not dim or d of them": per_pair(lambda n, p, a, d, h: d * p),
        "a weight is one number in each head, not dim of them": per_pair(lambda n, p, a, d, h: d * h * p),
        "scores and weights are both counted: softmax keeps only its output": per_pair(lambda n, p, a, d, h: 2 * h * p),
        "the heads divide D, so they do not multiply the numbers of the tokens": lambda n, p, a, d, m, h: (
            h * (n * (6 * a * d + 2 * d + 2 * m) + p)
        ),
    }
    examine(
        kept,
        finished.kept,
        *cases,
        *((1, 1, 1, 3, 5, 1), (500, 0, 1, 12, 48, 3)),
        mistakes={said: in_both(formula) for said, formula in mistakes.items()},
        what="how many numbers are kept",
    )
    passed(
        "09.6",
        "for each token 6 vectors of width D per attention, and 2 of width D and 2 of width M for the MLP; one "
        "number for each pair and head.",
    )


# ---- 09.7

Design = tuple[int, tuple[int, ...]]
LONG = ViViTConfig((3, 128, 224, 224), 400, (2, 16, 16), dim=192, depth=12, heads=4, mlp_dim=768)  # the chapter's
THE_CHAPTERS_TUBELETS = [(t, p, p) for t in (2, 4, 8) for p in (8, 16, 32)]  # the chapter's
ALIKE = ((1, 48, 48), (4, 24, 24), (16, 12, 12))  # equally many tokens, and the second has the fewest FLOPs
CHOICES = ((2, 8, 8), (4, 8, 8), (2, 16, 16), (8, 8, 8), (4, 16, 16), (2, 32, 32), (8, 16, 16), (4, 32, 32))


@exercise
def check_best_design(best_design: Callable) -> None:
    """09.7: best_design(config, tubelets, max_bytes, max_flops, fused) -> (model, tubelet) with the most tokens."""
    clip = ViViTConfig(clip_shape=(1, 64, 96, 96), dim=96, heads=6, mlp_dim=200, depth=5, temporal_depth=3)
    wide = replace(clip, dim=180, mlp_dim=90, heads=2)
    trials = [
        (clip, 1.8e9, 20e9, False),
        (clip, 0.7e9, 60e9, False),
        (clip, 6e9, 1.9e9, False),
        (wide, 0.6e9, 9e9, False),
        (wide, 0.7e9, 9e9, True),
        (clip, 1e12, 1e15, False),
    ]
    trials = [(config, CHOICES, *limits) for config, *limits in trials]
    trials += [(clip, ALIKE, 1e12, 0.4e9, False), *_at_the_limits(replace(clip, tubelet=ALIKE[1]))]
    hint = {said: "if nothing fits, return None" for said in ("empty", "out of range", "NoneType")}
    for config, choices, *limits in trials:
        for tubelets in (choices, choices[::-1]):
            given = (config, list(tubelets), *limits)
            _compare_designs(call_with_hints(hint, best_design, *given), *given)
    nothing = call_with_hints(hint, best_design, clip, list(CHOICES), 1e6, 1e6, False)
    if nothing is not None:
        raise CheckFailed(f"nothing fits into 1 MB, but your function returned {_short(nothing)}: return None")
    passed("09.7", "the most tokens that both limits allow, with and without the fused kernel.")


def _at_the_limits(c):
    """Trials in which Model 2 with this tubelet needs exactly what is allowed, of one and of the other."""
    size, flops = finished.training_bytes(c)[1], finished.model_flops(c)[1]
    return [(c, ALIKE, 1e12, flops, False), (c, ALIKE, size, 0.4e9, False)]


def _compare_designs(found, config, tubelets, max_bytes, max_flops, fused):
    wanted = _search(config, tubelets, max_bytes, max_flops, fused)
    if found is None:
        raise CheckFailed(
            "your function returned None, but a design fits: does it end in `return ...`, and use the `config` that it "
            "is given?"
        )
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise CheckFailed(f"return (model, tubelet), one design; your function returned {_short(found)}")
    model, tubelet = found
    if isinstance(model, (tuple, list)):
        raise CheckFailed(f"the model's number comes first, then the tubelet; your function returned {_short(found)}")
    if isinstance(model, bool) or not isinstance(model, (int, np.integer)):
        raise CheckFailed(f"the model is a number, 1 to 4; your function returned {_short(found)}")
    design = int(model), tuple(tubelet) if isinstance(tubelet, (tuple, list)) else tubelet
    if design == wanted:
        return
    given = (config, tubelets, max_bytes, max_flops, fused)
    named = next((said for said, search in DESIGN_MISTAKES.items() if search(*given) == design), "")
    limits = f"in {max_bytes / 1e9:g} GB and {max_flops / 1e9:g} GFLOPs, fused={fused},"
    raise CheckFailed(f"{limits} your function chose {design}, expected {wanted}{': ' * bool(named)}{named}")


def _search(
    config: ViViTConfig,
    tubelets: Sequence[tuple[int, ...]],
    max_bytes: float,
    max_flops: float,
    fused: bool,
    order: Callable = lambda tokens, model, flops, size: (-tokens, model, flops),
) -> Design | None:
    """The affordable design that comes first in an order."""
    fits: list[tuple[Any, Design]] = []
    for tubelet in tubelets:
        c = replace(config, tubelet=tubelet)
        tokens = math.prod(finished.token_grid_of(c))
        for model, (flops, size) in enumerate(zip(finished.model_flops(c), finished.training_bytes(c, fused=fused)), 1):
            if flops <= max_flops and size <= max_bytes:
                fits.append((order(tokens, model, flops, size), (model, tubelet)))
    return min(fits, key=lambda fit: fit[0])[1] if fits else None


def _ordered(order):
    return lambda *given: _search(*given, order)


def _without(limit):
    """The search with one of the two limits left out."""

    def search(config, tubelets, max_bytes, max_flops, fused):
        limits = (math.inf, max_flops) if limit == "bytes" else (max_bytes, math.inf)
        return _search(config, tubelets, *limits, fused)

    return search


def _one_less(search):
    """A mistake with the models counted from 0."""

    def counted_from_0(*given):
        found = search(*given)
        return found and (found[0] - 1, found[1])

    return counted_from_0


DESIGN_MISTAKES: dict[str, Callable] = {
    "models are counted from 1": _one_less(_search),
    "`fused` has no effect: pass it on to training_bytes": lambda *given: _search(*given[:4], not given[4]),
    "memory has no effect: max_bytes is a limit too": _without("bytes"),
    "the FLOPs have no effect: max_flops is a limit too": _without("flops"),
    "`tubelets` has no effect: look at those that are given, not at TUBELETS": lambda config, _, *limits: _search(
        config, THE_CHAPTERS_TUBELETS, *limits
    ),
    "`config` has no effect: use the one that is given, not LONG": lambda config, *given: _search(LONG, *given),
    "what needs exactly as much as is allowed fits too: at most is <=": lambda config, tubelets, size, flops, fused: (
        _search(config, tubelets, size - 1, flops - 1, fused)
    ),
    "with equally many tokens the lower number of the model is wanted, before the FLOPs": _ordered(
        lambda tokens, model, flops, size: (-tokens, -model, flops)
    ),
    "with equal tokens and model the one with fewer FLOPs is wanted": _ordered(
        lambda tokens, model, flops, size: (-tokens, model, -flops)
    ),
    "with equal tokens and model the one with fewer FLOPs is wanted, whatever its tubelet": (
        lambda config, tubelets, *limits: _search(
            config, sorted(tubelets), *limits, lambda tokens, model, flops, size: (-tokens, model)
        )
    ),
    "this is the first design that fits: go through all of them": _ordered(lambda tokens, model, flops, size: 0),
    "this has the fewest tokens: most tokens are wanted": _ordered(lambda tokens, model, flops, size: (tokens, model)),
    "this is the cheapest design: most tokens are wanted": _ordered(lambda tokens, model, flops, size: flops),
    "the lower number of the model decides only between designs with equally many tokens": _ordered(
        lambda tokens, model, flops, size: (model, -tokens, flops)
    ),
    "this is the most expensive one that fits: most tokens are wanted": _ordered(
        lambda tokens, model, flops, size: -flops
    ),
}


# ---- what torch counts and measures, for the chapter to compare with


def counted(module: Callable, *shape: int) -> tuple[int, int]:
    """FLOPs of one pass over tokens [1, *shape] on the meta device: (linear maps, attention products)."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, *shape, device="meta"))
    found = counter.get_flop_counts()["Global"]
    products = sum(flops for operation, flops in found.items() if "bmm" in str(operation))
    return sum(found.values()) - products, products


def counted_block(tokens: int, dim: int, mlp_dim: int, heads: int) -> int:
    """FLOPs of one block of Model 1, counted."""
    with torch.device("meta"):
        block = Block(ViViTConfig(dim=dim, mlp_dim=mlp_dim, heads=heads))
    return sum(counted(block, tokens, dim))


def one_layer(model: int, c: ViViTConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """One layer of Model 1 to 4 without embedding and head, from tokens [1, nt, S, D]; Model 2: one of each encoder."""
    space, time = Block(c), Block(c)
    if model == 1:
        return lambda z: space(z.flatten(1, 2))
    if model == 2:
        return lambda z: time(space(z[0]).mean(dim=1)[None])
    return (FactorisedSelfAttentionBlock if model == 3 else FactorisedDotProductBlock)(c)


def counted_layer(model: int, nt: int, s: int, c: ViViTConfig) -> tuple[int, int]:
    """FLOPs of `one_layer`, counted on the meta device: (linear maps, attention products)."""
    with torch.device("meta"):
        layer = one_layer(model, c)
    return counted(layer, nt, s, c.dim)


def seconds_of_a_layer(model: int, nt: int, s: int, c: ViViTConfig, plain: bool = False, repeats: int = 4) -> float:
    """Seconds that one core computes in a forward pass of `one_layer`, the fewest; waiting for others doesn't count.

    plain: without the fused kernel.
    """
    layer, z, threads, found = one_layer(model, c), torch.randn(1, nt, s, c.dim), torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
            for _ in range(repeats + 1):
                start = time.process_time()
                layer(z)
                found.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(found[1:])  # the first one warms up


def seconds_of_a_clip(model: int, c: ViViTConfig, repeats: int = 1) -> float:
    """Seconds of a forward pass of a whole model over one clip, the fastest."""
    net = model_class(FOUR_MODELS[model - 1])(c).eval()
    return cost.time_step(net, torch.rand(1, *c.clip_shape), backward=False, repeats=repeats)


def flops_of_a_clip(model: int, c: ViViTConfig) -> int:
    """FLOPs of a whole model's forward pass over one clip, counted, without those of its head."""
    with torch.device("meta"):
        net = model_class(FOUR_MODELS[model - 1])(c)
    return cost.count_flops(net, c.clip_shape) - 2 * c.dim * c.num_classes


def bytes_of_a_step(model: int, c: ViViTConfig, fused: bool = False) -> int:
    """Bytes of a training step on one clip at its peak, with the weights and AdamW's two averages.

    fused: computed on the CPU, with its fused kernel. Otherwise on the meta device, where attention is plain.
    """
    with torch.device("cpu" if fused else "meta"):
        net, clip = model_class(FOUR_MODELS[model - 1])(c), torch.zeros(1, *c.clip_shape)
    return cost.peak_memory(lambda: net(clip).square().mean().backward()) + 12 * cost.count_parameters(net)


# Table 2 of the paper, ViViT-B/16x2: top-1 on Kinetics-400 and EPIC-Kitchens, GFLOPs, millions of parameters, ms
TABLE2 = {
    "Model 1": (80.0, 43.1, 455.2, 88.9, 58.9),
    "Model 2": (78.8, 43.7, 284.4, 115.1, 17.4),
    "Model 3": (77.4, 39.1, 372.3, 117.3, 31.7),
    "Model 4": (76.3, 39.5, 277.1, 88.9, 22.9),
    "Model 2, averaged": (75.8, 38.8, 283.9, 86.7, 17.3),
}


def next_to_table2(flops: Sequence[float], weights: Sequence[float]) -> None:
    """Prints table 2 next to the reader's FLOPs and weights of the same five rows."""
    print("                  | table 2 of the paper               | your formulas")
    print("                  | K400   EPIC   ms    GFLOPs  par. M | GFLOPs  weights M")
    for (name, (kinetics, epic, gflops, parameters, ms)), work, count in zip(TABLE2.items(), flops, weights):
        left = f"{kinetics:5.1f}  {epic:5.1f}  {ms:4.1f}  {gflops:6.1f}  {parameters:6.1f}"
        print(f"{name:17} | {left} | {work / 2e9:6.1f}  {count / 1e6:6.1f}")
