"""Chapter 09: what its checks accept and refuse, and that its formulas are what torch counts."""

import functools
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.cost import PAPER, attention_pairs, count_flops, peak_memory
from vivit_edu.course.checks import ch09
from vivit_edu.course.ready import ch09 as finished
from vivit_edu.models import model_class
from vivit_edu.vivit import Block, FactorisedDotProductBlock, FactorisedSelfAttentionBlock, ViViTConfig

from .cases import run_cases

# ---- 09.1


def by_formula(nt, s):
    space, time = nt * s**2, s * nt**2
    return [(nt * s) ** 2, space + nt**2, space + time, (space + time) / 2]


def by_masks(nt, s):
    token = torch.arange(nt * s)
    space = int((token[:, None] // s == token // s).sum())
    time = int((token[:, None] % s == token % s).sum())
    return len(token) ** 2, space + nt * nt, space + time, (space + time) // 2


def as_tensor(nt, s):
    return torch.tensor(by_formula(nt, s))


def by_numpy(nt, s):
    return np.array(by_formula(nt, s))


def instead(model, value, right=by_formula):
    """The right numbers, except for one model."""

    def wrong(*args):
        found = list(right(*args))
        found[model - 1] = value(*args)
        return found

    return wrong


test_pairs = run_cases(
    ch09.check_pairs,
    right=[by_numpy, by_formula, by_masks, as_tensor],
    wrong={
        "exchanged arguments": (lambda t, s: by_formula(s, t), "exchanged"),
        "a text": (lambda t, s: str(by_formula(t, s)), "expected 4 things"),
        "a dict": (lambda t, s: dict(enumerate(by_formula(t, s))), "expected 4 things.*a dict"),
        "1 tokens": (instead(1, lambda t, s: t * s), "Model 1: these are the tokens"),
        "1 s squared": (instead(1, lambda t, s: t * s**2), "Model 1: only s is squared"),
        "1 nt squared": (instead(1, lambda t, s: t**2 * s), "Model 1: only nt is squared"),
        "1 sum": (instead(1, lambda t, s: (t + s) ** 2), "Model 1: N is nt·s, not nt"),
        "1 sum of squares": (instead(1, lambda t, s: t**2 + s**2), "Model 1: nothing is factorised"),
        "1 not itself": (instead(1, lambda t, s: t * s * (t * s - 1)), "Model 1: the token itself"),
        "1 unordered": (instead(1, lambda t, s: t * s * (t * s + 1) // 2), "Model 1: each two tokens"),
        "2 as the paper writes": (instead(2, lambda t, s: s**2 + t**2), "Model 2: this is s² \\+ nt²"),
        "2 no temporal encoder": (instead(2, lambda t, s: t * s**2), "Model 2: the temporal encoder"),
        "2 as Model 3": (instead(2, lambda t, s: t * s**2 + s * t**2), "Model 2: this is Model 3's"),
        "2 exchanged": (instead(2, lambda t, s: s * t**2 + s**2), "Model 2: space and time"),
        "2 nt and s": (instead(2, lambda t, s: s * t**2 + t**2), "Model 2: nt and s are exchanged in its first"),
        "2 as Model 1": (instead(2, lambda t, s: (t * s) ** 2), "Model 2: this is Model 1's"),
        "2 as two numbers": (lambda t, s: [t * t * s * s, (t * s * s, t * t), 1, 1], "Model 2 is 2 numbers"),
        "3 no time": (instead(3, lambda t, s: t * s**2), "Model 3: the attention over time"),
        "3 no space": (instead(3, lambda t, s: s * t**2), "Model 3: the attention over space"),
        "3 nt and s": (instead(3, lambda t, s: t**3 + s**3), "Model 3: nt and s are exchanged"),
        "3 of one frame": (instead(3, lambda t, s: s**2 + t**2), "Model 3: this is one time index"),
        "3 as Model 2": (instead(3, lambda t, s: t * s**2 + t**2), "Model 3: this is Model 2's"),
        "3 product": (instead(3, lambda t, s: s**2 * t**2), "Model 3: the two attentions are multiplied"),
        "3 halved": (instead(3, lambda t, s: t * s * (s + t) / 2), "Model 3: this is half"),
        "3 a cross": (instead(3, lambda t, s: t * s * (s + t - 1)), "Model 3: the token itself"),
        "4 not halved": (instead(4, lambda t, s: t * s * (s + t)), "Model 4: this is Model 3's"),
        "4 a cross": (instead(4, lambda t, s: t * s * (s + t - 1)), "Model 4: this is a cross"),
        "4 space": (instead(4, lambda t, s: t * s**2), "Model 4: this is space only"),
        "4 time": (instead(4, lambda t, s: s * t**2), "Model 4: this is time only"),
        "4 half of space": (instead(4, lambda t, s: t * s**2 / 2), "Model 4: the temporal heads"),
        "4 half of Model 1": (instead(4, lambda t, s: (t * s) ** 2 / 2), "Model 4: this is half of Model 1's"),
        "4 halved twice": (instead(4, lambda t, s: t * s * (t + s) / 4), "Model 4: it is halved twice"),
        "three numbers": (lambda *sizes: by_formula(*sizes)[:3], "expected 4 things"),
        "one number": (lambda *sizes: by_formula(*sizes)[0], "expected 4 things"),
        "a word": (instead(2, lambda t, s: "many"), "is a str, expected one number"),
        "no return": (lambda *sizes: None, "expected 4 things.*None"),
        "a typing error": (lambda t, s: [t * s, q], "your code raised NameError"),  # noqa: F821
    },
)

# ---- 09.2


def flops_by_hand(tokens, pairs, attentions, dim, mlp_dim):
    return 8 * attentions * tokens * dim**2 + 4 * tokens * dim * mlp_dim, 4 * pairs * dim


def flops_by_product(tokens, pairs, attentions, dim, mlp_dim):
    def product(n, k, m):
        return 2 * n * k * m

    one = product(tokens, dim, 3 * dim) + product(tokens, dim, dim)
    mlp = product(tokens, dim, mlp_dim) + product(tokens, mlp_dim, dim)
    return [attentions * one + mlp, 2 * (2 * pairs * dim)]


def flops_by_multiply_adds(tokens, pairs, attentions, dim, mlp_dim):
    per_token = attentions * 4 * dim * dim + 2 * dim * mlp_dim
    return np.array([tokens * per_token, 2 * dim * pairs]) * 2


def flops_by_case(tokens, pairs, attentions, dim, mlp_dim):
    maps = 8 if attentions == 2 else 4
    return tokens * (2 * maps * dim**2 + 4 * dim * mlp_dim), 4 * pairs * dim


def linear_instead(formula):
    return lambda n, p, a, d, m: (formula(n, a, d, m), 4 * d * p)


def products_instead(formula):
    return lambda n, p, a, d, m: (n * (8 * a * d**2 + 4 * d * m), formula(n, p, a, d))


test_block_flops = run_cases(
    ch09.check_block_flops,
    right=[flops_by_hand, flops_by_product, flops_by_multiply_adds, flops_by_case],
    wrong={
        "the sum": (lambda *block: sum(flops_by_hand(*block)), "expected 2 things.*an int"),
        "exchanged": (lambda *block: flops_by_hand(*block)[::-1], "two numbers are exchanged"),
        "multiply-adds": (lambda *block: [x / 2 for x in flops_by_hand(*block)], "counts as two FLOPs"),
        "multiply-adds in the maps": (
            linear_instead(lambda n, a, d, m: n * (4 * a * d * d + 2 * d * m)),
            "as two FLOPs",
        ),
        "no W_O": (linear_instead(lambda n, a, d, m: n * (6 * a * d * d + 4 * d * m)), "W_O is missing"),
        "QKV as one": (linear_instead(lambda n, a, d, m: n * (4 * a * d * d + 4 * d * m)), "come from three maps"),
        "one map": (linear_instead(lambda n, a, d, m: n * (2 * a * d * d + 4 * d * m)), "four maps from D to D"),
        "half an MLP": (linear_instead(lambda n, a, d, m: n * (8 * a * d * d + 2 * d * m)), "two maps, from D to M"),
        "no MLP": (linear_instead(lambda n, a, d, m: 8 * n * a * d * d), "MLP is missing"),
        "MLP only": (linear_instead(lambda n, a, d, m: 4 * n * d * m), "attention's linear maps are missing"),
        "one attention": (linear_instead(lambda n, a, d, m: n * (8 * d * d + 4 * d * m)), "`attentions` is not used"),
        "two MLPs": (linear_instead(lambda n, a, d, m: a * n * (8 * d * d + 4 * d * m)), "has one MLP"),
        "4·dim": (linear_instead(lambda n, a, d, m: n * (8 * a * d * d + 16 * d * d)), "taken to be 4·dim"),
        "one token": (linear_instead(lambda n, a, d, m: 8 * a * d * d + 4 * d * m), "of one token"),
        "widths exchanged": (lambda n, p, a, d, m: flops_by_hand(n, p, a, m, d), "dim and mlp_dim are exchanged"),
        "one product": (products_instead(lambda n, p, a, d: 2 * d * p), "products are half of it"),
        "tokens squared": (products_instead(lambda n, p, a, d: 4 * d * n**2), "use tokens²"),
        "pairs twice": (products_instead(lambda n, p, a, d: 4 * d * p * a), "already counts both"),
        "no dim": (products_instead(lambda n, p, a, d: 4 * p), "products need dim"),
        "dim squared": (products_instead(lambda n, p, a, d: 4 * d * d * p), "dim is squared"),
        "pairs squared": (products_instead(lambda n, p, a, d: 4 * d * p**2), "pairs are squared"),
        "something else": (linear_instead(lambda n, a, d, m: n * d), "linear maps (is|are) wrong: found"),
        "the notebook's width": (lambda n, p, a, d, m: flops_by_hand(n, p, a, 128, 512), "(is|are) wrong"),
        "no return": (lambda *block: None, "expected 2 things.*None"),
    },
)


@pytest.mark.parametrize(
    "block, pairs, attentions",
    [
        (Block, 15 * 15, 1),
        (FactorisedSelfAttentionBlock, 15 * (3 + 5), 2),
        (FactorisedDotProductBlock, 15 * (3 + 5) / 2, 1),
    ],
)
def test_the_formula_is_what_torch_counts_and_keeps(block, pairs, attentions):
    c = ViViTConfig(dim=24, mlp_dim=40, heads=2)
    module, z = block(c), torch.randn(1, 15, 24) if block is Block else torch.randn(1, 3, 5, 24)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(z)
    assert sum(finished.block_flops(15, pairs, attentions, 24, 40)) == counter.get_total_flops()
    stored = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        stored[id(storage)] = storage, tensor  # held, so that no other gets its id
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(z.requires_grad_())
    weights = sum(parameter.untyped_storage().nbytes() for parameter in module.parameters() if parameter.ndim > 1)
    total = (sum(storage.nbytes() for storage, _ in stored.values()) - weights) / 4
    assert finished.kept(15, pairs, attentions, 24, 40, 2) == pytest.approx(total, rel=0.15)


# ---- 09.3

count = functools.cache(ch09.counted_block)


def by_two_sizes(formula):
    for sizes in ((5, 6, 7, 3), (9, 20, 11, 4)):
        if formula(*sizes) != count(*sizes):
            return sizes


def by_keywords(formula):
    given = {"tokens": 13, "dim": 10, "mlp_dim": 17, "heads": 5}
    return None if formula(**given) == count(13, 10, 17, 5) else given


def by_random_sizes(formula):
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        tokens, width, mlp_dim, heads = torch.randint(2, 9, (4,), generator=generator).tolist()
        if math.isclose(formula(tokens, heads * width, mlp_dim, heads), count(tokens, heads * width, mlp_dim, heads)):
            continue
        return [tokens, heads * width, mlp_dim, heads]
    return None


def at(*sizes):
    """A test of formulas at these sizes alone."""
    return lambda formula: None if formula(*sizes) == count(*sizes) else sizes


def within_a_per_cent(formula):
    sizes = (64, 768, 1024, 3)
    return sizes if abs(formula(*sizes) / count(*sizes) - 1) > 0.01 else None


test_counterexample = run_cases(
    ch09.check_counterexample,
    right=[by_two_sizes, by_keywords, by_random_sizes],
    wrong={
        "always None": (lambda formula: None, "returned None for a formula that counts the heads twice"),
        "always sizes": (lambda formula: (7, 12, 20, 3), "a right formula, written in another way, is accused"),
        "one head": (at(7, 12, 20, 1), "heads twice, which agrees wherever heads = 1"),
        "the course's sizes": (at(64, 128, 512, 4), "takes mlp_dim to be 4·dim"),
        "ViT's sizes": (at(197, 192, 700, 3), "dim to be 64·heads"),
        "one token": (at(1, 12, 20, 3), "tokens where it should count pairs"),
        "as many tokens as dim": (at(12, 12, 20, 3), "tokens = dim"),
        "within a per cent": (within_a_per_cent, "counts the biases as well"),
        "True and False": (lambda formula: by_two_sizes(formula) is not None, "is accused: your function returned F"),
        "True or None": (lambda formula: by_two_sizes(formula) and True, "return the four sizes.*True"),
        "the difference": (lambda formula: (formula(7, 12, 20, 3) - count(7, 12, 20, 3)) or None, "return the four"),
        "the other way round": (
            lambda formula: (7, 12, 20, 3) if formula(7, 12, 20, 3) == count(7, 12, 20, 3) else None,
            "is accused",
        ),
        "sizes where it agrees": (lambda formula: by_two_sizes(formula) and (1, 12, 20, 1), "agrees with the count"),
        "two sizes": (lambda formula: by_two_sizes(formula) and (7, 12), "return the four sizes"),
        "in another order": (lambda formula: by_two_sizes(formula) and (7, 3, 20, 12), "not the sizes of a block"),
        "heads that don't divide": (at(7, 12, 20, 5), "cannot be shared by heads=5"),
        "the blog's formula only": (
            lambda formula: at(7, 12, 20, 3)(lambda n, d, m, h: 8 * n * d * d + 4 * n * d * m + h * 4 * n * n * d),
            "is accused",
        ),
        "an assertion": (lambda formula: (_ for _ in ()).throw(AssertionError("differs")), "AssertionError: differs"),
        "larger only": (
            lambda formula: next((s for s in [(7, 12, 20, 3)] if formula(*s) > count(*s)), None),
            "returned None for a formula that forgets all heads but one",
        ),
    },
)


def test_the_formulas_of_the_search_are_what_they_are_said_to_be():
    for sizes in ((7, 12, 20, 3), (5, 6, 8, 2)):
        assert ch09._truth(*sizes) == count(*sizes)
        assert all(formula(*sizes) == count(*sizes) for formula in ch09.RIGHT_FORMULAS)
        assert all(formula(*sizes) != count(*sizes) for formula in ch09.FAULTY_FORMULAS.values())


# ---- 09.4


def whole_by_hand(cost, nt, s, depth, temporal_depth):
    n = nt * s
    return [
        depth * cost(n, n**2, 1),
        depth * cost(n, nt * s**2, 1) + temporal_depth * cost(nt, nt**2, 1),
        depth * cost(n, n * (nt + s), 2),
        depth * cost(n, n * (nt + s) / 2, 1),
    ]


def whole_by_stacks(cost, nt, s, depth, temporal_depth):
    one, _, three, four = by_formula(nt, s)
    stacks = {
        1: [(depth, nt * s, one, 1)],
        2: [(depth, nt * s, nt * s * s, 1), (temporal_depth, nt, nt * nt, 1)],
        3: [(depth, nt * s, three, 2)],
        4: [(depth, nt * s, four, 1)],
    }
    return [sum(layers * cost(*block) for layers, *block in stack) for stack in stacks.values()]


def whole_block_by_block(cost, nt, s, depth, temporal_depth):
    found = np.zeros(4)
    for _ in range(depth):
        found[0] += cost(nt * s, (nt * s) ** 2, attentions=1)
        found[1] += cost(nt * s, nt * s**2, attentions=1)
        found[2] += cost(nt * s, nt * s * s + s * nt * nt, attentions=2)
        found[3] += cost(nt * s, (nt * s * s + s * nt * nt) / 2, attentions=1)
    for _ in range(temporal_depth):
        found[1] += cost(nt, nt**2, attentions=1)
    return found


def whole_as_tuple(*given):
    return tuple(whole_by_hand(*given))


def whole_of(tokens):
    """whole with another number of tokens for all four models."""

    def whole(cost, nt, s, depth, temporal_depth):
        n = tokens(nt, s)
        return whole_by_hand(
            lambda given, pairs, attentions: cost(n if given == nt * s else given, pairs, attentions),
            nt,
            s,
            depth,
            temporal_depth,
        )

    return whole


def instead_in(model, formula):
    return instead(model, formula, whole_by_hand)


test_whole = run_cases(
    ch09.check_whole_models,
    right=[whole_by_hand, whole_by_stacks, whole_block_by_block, whole_as_tuple],
    wrong={
        "no depth": (lambda c, t, s, depth, td: whole_by_hand(c, t, s, 1, td), "depth is missing"),
        "no depths": (lambda c, t, s, depth, td: whole_by_hand(c, t, s, 1, 1), "depth is missing"),
        "no temporal depth": (lambda c, t, s, depth, td: whole_by_hand(c, t, s, depth, 1), "temporal_depth is missing"),
        "depth twice": (lambda c, t, s, depth, td: whole_by_hand(c, t, s, depth, depth), "has temporal_depth layers"),
        "2 space only": (lambda c, t, s, depth, td: whole_by_hand(c, t, s, depth, 0), "temporal encoder is missing"),
        "2 per frame": (
            instead_in(2, lambda c, t, s, depth, td: depth * t * c(s, s**2, 1) + td * c(t, t**2, 1)),
            "Call cost once for the whole clip",
        ),
        "2 one frame": (
            instead_in(2, lambda c, t, s, depth, td: depth * c(s, s**2, 1) + td * c(t, t**2, 1)),
            "sees all nt time indices",
        ),
        "2 all tokens in time": (
            instead_in(2, lambda c, t, s, depth, td: depth * c(t * s, t * s**2, 1) + td * c(t * s, t**2, 1)),
            "nt tokens in all",
        ),
        "2 pairs()": (
            instead_in(2, lambda c, t, s, depth, td: depth * c(t * s, by_formula(t, s)[1], 1) + td * c(t, t**2, 1)),
            "counted in the spatial one too",
        ),
        "2 one call": (
            instead_in(2, lambda c, t, s, depth, td: depth * c(t * s + t, by_formula(t, s)[1], 1)),
            "its own call of cost",
        ),
        "2 as one block": (
            instead_in(2, lambda c, t, s, depth, td: depth * c(t * s, by_formula(t, s)[1], 2)),
            "two stacks of blocks",
        ),
        "1 tokens": (instead_in(1, lambda c, t, s, depth, td: depth * c(t * s, t * s, 1)), "its pairs are \\(nt·s\\)²"),
        "3 one attention": (
            instead_in(3, lambda c, t, s, depth, td: depth * c(t * s, t * s * (t + s), 1)),
            "its block has two attentions",
        ),
        "N = s": (whole_of(lambda nt, s: s), "Model 1: these are the tokens of one time index"),
        "N = nt": (whole_of(lambda nt, s: nt), "Model 1: it has nt·s tokens, not nt"),
        "3 doubled": (
            instead_in(3, lambda c, t, s, depth, td: 2 * depth * c(t * s, t * s * (t + s), 1)),
            "without a second MLP",
        ),
        "3 doubled with two attentions": (
            instead_in(3, lambda c, t, s, depth, td: 2 * depth * c(t * s, t * s * (t + s), 2)),
            "counts both already",
        ),
        "3 two blocks": (
            instead_in(3, lambda c, t, s, depth, td: depth * (c(t * s, t * s * s, 1) + c(t * s, s * t * t, 1))),
            "one block with two attentions and one MLP",
        ),
        "4 two attentions": (
            instead_in(4, lambda c, t, s, depth, td: depth * c(t * s, t * s * (t + s) / 2, 2)),
            "whose heads are divided",
        ),
        "4 not halved": (
            instead_in(4, lambda c, t, s, depth, td: depth * c(t * s, t * s * (t + s), 1)),
            "half of Model 3's",
        ),
        "cost of one number": (lambda c, t, s, depth, td: [depth * c(p) for p in by_formula(t, s)], "three numbers"),
        "one total": (lambda *args: sum(whole_by_hand(*args)), "expected 4 things"),
        "no return": (lambda *args: None, "expected 4 things.*None"),
    },
)

# ---- 09.5


def by_polyfit(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def by_covariance(x, y):
    x, y = torch.tensor(x).log2(), torch.tensor(y).log2()
    x = x - x.mean()
    return (x @ y) / (x @ x)


def by_statistics(x, y):
    return statistics.linear_regression([math.log10(a) for a in x], [math.log10(b) for b in y]).slope


def by_lstsq(x, y):
    x, y = torch.tensor(x).log(), torch.tensor(y).log()
    return torch.linalg.lstsq(torch.stack((torch.ones_like(x), x), dim=1), y[:, None]).solution[1]


test_exponent = run_cases(
    ch09.check_exponent,
    right=[by_polyfit, by_covariance, by_statistics, by_lstsq],
    wrong={
        "rounded": (lambda x, y: round(by_polyfit(x, y)), "(is|are) wrong: found 1"),
        "without its sign": (lambda x, y: abs(by_polyfit(x, y)), "(is|are) wrong: found 0."),
        "median of slopes": (lambda x, y: np.median(np.diff(np.log(y)) / np.diff(np.log(x))), "(is|are) wrong"),
        "both sorted": (lambda x, y: by_polyfit(sorted(x), sorted(y)), "(is|are) wrong"),
        "sorted in place": (lambda x, y: (y.sort(), by_polyfit(x, y))[1], "changes the y that it was given"),
        "no logarithm": (lambda x, y: np.polyfit(x, y, 1)[0], "no logarithm"),
        "log of y alone": (lambda x, y: np.polyfit(x, np.log(y), 1)[0], "only y's logarithm"),
        "log of x alone": (lambda x, y: np.polyfit(np.log(x), y, 1)[0], "only x's logarithm"),
        "exchanged": (lambda x, y: by_polyfit(y, x), "exchanged"),
        "height": (lambda x, y: np.polyfit(np.log(x), np.log(y), 1)[1], "height"),
        "through the origin": (lambda x, y: np.log(x) @ np.log(y) / (np.log(x) @ np.log(x)), "through the origin"),
        "mean of quotients": (lambda x, y: (np.log(y) / np.log(x)).mean(), "mean of log y / log x"),
        "two ends": (lambda x, y: np.log(y[-1] / y[0]) / np.log(x[-1] / x[0]), "first and the last point"),
        "mean of steps": (lambda x, y: (np.diff(np.log(y)) / np.diff(np.log(x))).mean(), "first and the last point"),
        "last two": (lambda x, y: np.log(y[-1] / y[-2]) / np.log(x[-1] / x[-2]), "last two points"),
        "first two": (lambda x, y: np.log(y[1] / y[0]) / np.log(x[1] / x[0]), "first two points"),
        "two logarithms": (lambda x, y: np.polyfit(np.log(x), np.log10(y), 1)[0], "log10 was taken of y and log of x"),
        "both coefficients": (lambda x, y: np.polyfit(np.log(x), np.log(y), 1), "is 2 numbers"),
        "no return": (lambda x, y: None, "is None"),
        "log of a list": (lambda x, y: torch.log(x), "your code raised TypeError"),
    },
)

# ---- 09.6


def kept_by_hand(tokens, pairs, attentions, dim, mlp_dim, heads):
    return tokens * (6 * attentions * dim + 2 * dim + 2 * mlp_dim) + heads * pairs


def kept_by_operation(tokens, pairs, attentions, dim, mlp_dim, heads):
    wide, narrow = tokens * mlp_dim, tokens * dim
    attention = {"LayerNorm": narrow, "Q, K, V maps": narrow, "products": 3 * narrow, "W_O": narrow}
    mlp = {"LayerNorm": narrow, "up": narrow, "GELU": wide, "down": wide}
    return attentions * sum(attention.values()) + sum(mlp.values()) + heads * pairs


def kept_by_loop(tokens, pairs, attentions, dim, mlp_dim, heads):
    found = sum(pairs for _ in range(heads))
    for _ in range(attentions):
        found += 6 * tokens * dim
    return np.float64(found + 2 * tokens * (dim + mlp_dim))


def kept_by_case(tokens, pairs, attentions, dim, mlp_dim, heads):
    wide = 14 if attentions == 2 else 8
    return tokens * (wide * dim + 2 * mlp_dim) + heads * pairs


def tokens_keep(formula):
    return lambda n, p, a, d, m, h: n * formula(a, d, m) + h * p


def pairs_keep(formula):
    return lambda n, p, a, d, m, h: n * (6 * a * d + 2 * d + 2 * m) + formula(n, p, a, d, h)


test_kept = run_cases(
    ch09.check_kept,
    right=[kept_by_hand, kept_by_operation, kept_by_loop, kept_by_case],
    wrong={
        "bytes": (lambda *block: 4 * kept_by_hand(*block), "these are bytes"),
        "no norm before the MLP": (tokens_keep(lambda a, d, m: 6 * a * d + d + 2 * m), "in front of the MLP"),
        "no norm before attention": (tokens_keep(lambda a, d, m: 5 * a * d + 2 * d + 2 * m), "in front of each atten"),
        "no norms": (tokens_keep(lambda a, d, m: 5 * a * d + d + 2 * m), "inputs of the LayerNorms"),
        "QKV as one": (tokens_keep(lambda a, d, m: 4 * a * d + 2 * d + 2 * m), "three times \\[N, D\\]"),
        "no QKV": (tokens_keep(lambda a, d, m: 3 * a * d + 2 * d + 2 * m), "Q, K and V are missing"),
        "M once": (tokens_keep(lambda a, d, m: 6 * a * d + 2 * d + m), "M is kept twice"),
        "no M": (tokens_keep(lambda a, d, m: 6 * a * d + 2 * d), "of width M are missing"),
        "no D in the MLP": (tokens_keep(lambda a, d, m: 6 * a * d + 2 * m), "of width D are missing"),
        "one attention": (tokens_keep(lambda a, d, m: 8 * d + 2 * m), "`attentions` is not used"),
        "two MLPs": (tokens_keep(lambda a, d, m: a * (8 * d + 2 * m)), "has one MLP"),
        "M twice for two attentions": (tokens_keep(lambda a, d, m: 6 * a * d + 2 * d + 2 * a * m), r"its \[N, M\] are"),
        "D twice for two attentions": (tokens_keep(lambda a, d, m: 8 * a * d + 2 * m), r"keeps two \[N, D\]"),
        "4·dim": (tokens_keep(lambda a, d, m: 6 * a * d + 10 * d), "taken to be 4·dim"),
        "no weights": (pairs_keep(lambda n, p, a, d, h: 0), "weights are missing"),
        "one head": (pairs_keep(lambda n, p, a, d, h: p), "weights of one head"),
        "tokens squared": (pairs_keep(lambda n, p, a, d, h: h * n**2), "use tokens²"),
        "pairs twice": (pairs_keep(lambda n, p, a, d, h: a * h * p), "already counts both"),
        "dim for a weight": (pairs_keep(lambda n, p, a, d, h: h * d * p), "not dim of them"),
        "heads of width d": (pairs_keep(lambda n, p, a, d, h: d * p), "not dim or d of them"),
        "scores and weights": (pairs_keep(lambda n, p, a, d, h: 2 * h * p), "scores and weights"),
        "heads everywhere": (
            lambda n, p, a, d, m, h: h * (n * (6 * a * d + 2 * d + 2 * m) + p),
            "the heads divide D",
        ),
        "one token": (lambda n, p, a, d, m, h: 6 * a * d + 2 * d + 2 * m + h * p, "(is|are) wrong: found"),
        "two numbers": (lambda n, p, a, d, m, h: (n * (6 * a * d + 2 * d + 2 * m), h * p), "is 2 numbers"),
        "no return": (lambda *block: None, "is None"),
    },
)

# ---- 09.7


def spent(config, tubelets, fused):
    for tubelet in tubelets:
        c = replace(config, tubelet=tubelet)
        for model, (flops, size) in enumerate(zip(finished.model_flops(c), finished.training_bytes(c, fused=fused)), 1):
            yield model, tubelet, math.prod(finished.token_grid_of(c)), size, flops


NOTEBOOKS = [(t, p, p) for t in (2, 4, 8) for p in (8, 16, 32)]
LONG = ViViTConfig((3, 128, 224, 224), 400, (2, 16, 16), dim=192, depth=12, heads=4, mlp_dim=768)


def first_that_fits(config, tubelets, max_bytes, max_flops, fused=False):
    for model, tubelet, _, size, flops in spent(config, tubelets, fused):
        if size <= max_bytes and flops <= max_flops:
            return model, tubelet


def at_most(size, flops):
    """The right design, with < for one of the two limits."""
    return lambda config, tubelets, max_bytes, max_flops, fused: design_by_min(
        config, tubelets, max_bytes - (size == "<"), max_flops - (flops == "<"), fused
    )


def design_by_min(config, tubelets, max_bytes, max_flops, fused=False):
    fits = [row for row in spent(config, tubelets, fused) if row[3] <= max_bytes and row[4] <= max_flops]
    return min(fits, key=lambda row: (-row[2], row[0], row[4]))[:2] if fits else None


def design_by_loop(config, tubelets, max_bytes, max_flops, fused=False):
    best, order = None, (math.inf,)
    for model, tubelet, tokens, size, flops in spent(config, tubelets, fused):
        if size > max_bytes or flops > max_flops:
            continue
        if (1 / tokens, model, flops) < order:
            best, order = [model, list(tubelet)], (1 / tokens, model, flops)
    return best


def design_by_sorting(config, tubelets, max_bytes, max_flops, fused=False):
    rows = sorted(spent(config, tubelets, fused), key=lambda row: row[4])
    rows = sorted(rows, key=lambda row: row[0])
    rows = sorted(rows, key=lambda row: row[2], reverse=True)
    rows = [row for row in rows if row[3] <= max_bytes and row[4] <= max_flops]
    return rows[0][:2] if rows else None


def chosen(key, most=(True, True)):
    """The first affordable design in another order; most: whether memory and FLOPs are limited."""

    def choose(config, tubelets, max_bytes, max_flops, fused=False):
        size, flops = (limit if kept else math.inf for limit, kept in zip((max_bytes, max_flops), most))
        rows = [row for row in spent(config, tubelets, fused) if row[3] <= size and row[4] <= flops]
        return min(rows, key=key)[:2] if rows else None

    return choose


def in_order(model, tubelet, tokens, size, flops):
    return -tokens, model, flops


def usual(row):
    return in_order(*row)


def then(change):
    """The right design, returned in another form."""

    def choose(*given):
        found = design_by_min(*given)
        return found and change(*found)

    return choose


test_best_design = run_cases(
    ch09.check_best_design,
    right=[design_by_min, design_by_loop, design_by_sorting],
    wrong={
        "no fused kernel": (lambda *given: design_by_min(*given[:4]), "`fused` has no effect"),
        "no limit on memory": (chosen(usual, (False, True)), "max_bytes is a limit too"),
        "no limit on FLOPs": (chosen(usual, (True, False)), "max_flops is a limit too"),
        "fewest tokens": (chosen(lambda row: (row[2], row[0])), "fewest tokens"),
        "cheapest": (chosen(lambda row: row[4]), "cheapest design"),
        "least memory": (chosen(lambda row: row[3]), "cheapest design"),
        "most expensive": (chosen(lambda row: -row[4]), "most expensive"),
        "model first": (chosen(lambda row: (row[0], -row[2], row[4])), "only between designs with equally many"),
        "highest model": (
            chosen(lambda row: (-row[2], -row[0], row[4])),
            "lower number of the model is wanted, before",
        ),
        "FLOPs before the model": (chosen(lambda row: (-row[2], row[4])), "is wanted, before the FLOPs"),
        "more FLOPs": (chosen(lambda row: (-row[2], row[0], -row[4])), "fewer FLOPs is wanted"),
        "first of equals": (chosen(lambda row: (-row[2], row[0])), "fewer FLOPs is wanted"),
        "the tubelet of equals": (chosen(lambda row: (-row[2], row[0], row[1])), "fewer FLOPs is wanted"),
        "the first that fits": (first_that_fits, "first design that fits"),
        "TUBELETS": (lambda config, tubelets, *limits: design_by_min(config, NOTEBOOKS, *limits), "not at TUBELETS"),
        "LONG": (lambda config, *given: design_by_min(LONG, *given), "use the `config` that it is given"),
        "less than the bytes": (at_most("<", "<="), "at most is <="),
        "less than the FLOPs": (at_most("<=", "<"), "at most is <="),
        "counted from 0": (then(lambda model, tubelet: (model - 1, tubelet)), "counted from 1"),
        "tubelet first": (then(lambda model, tubelet: (tubelet, model)), "number comes first"),
        "a name": (then(lambda model, tubelet: (list(PAPER)[model - 1], tubelet)), "a number, 1 to 4"),
        "the model alone": (then(lambda model, tubelet: model), "return \\(model, tubelet\\), one design"),
        "all that fit": (
            lambda config, tubelets, size, flops, fused: [
                row[:2] for row in spent(config, tubelets, fused) if row[3] <= size and row[4] <= flops
            ],
            "one design",
        ),
        "always one": (lambda *given: (2, (4, 16, 16)), "your function chose"),
        "limits in GB": (
            lambda config, tubelets, *limits: design_by_min(config, tubelets, *(1e9 * limit for limit in limits[:2])),
            "your function chose",
        ),
        "an empty min": (
            lambda *given: min(
                [row for row in spent(*given[:2], given[4]) if row[3] <= given[2] and row[4] <= given[3]], key=usual
            )[:2],
            "ValueError.*if nothing fits, return None",
        ),
        "nothing fits, but something is returned": (
            lambda *given: design_by_min(*given) or (2, (8, 32, 32)),
            "nothing fits",
        ),
        "no return": (lambda *given: None, "does it end in `return"),
        "tubelets changed": (
            lambda config, tubelets, *rest: tubelets.sort() or design_by_min(config, tubelets, *rest),
            "changes the argument",
        ),
    },
)

# ---- the formulas next to what is counted

SMALL = ViViTConfig(clip_shape=(2, 12, 8, 8), tubelet=(3, 4, 2), dim=24, mlp_dim=40, heads=2, depth=3, temporal_depth=2)


@pytest.mark.parametrize("name", PAPER)
def test_whole_models_cost_what_is_counted(name):
    model = model_class(name)(SMALL)
    found = dict(zip(PAPER, finished.model_flops(SMALL)))[name]
    assert found + 2 * SMALL.dim * SMALL.num_classes == count_flops(model, SMALL.clip_shape)


@pytest.mark.parametrize("name", PAPER)
def test_estimated_memory_is_near_the_peak(name):
    c = replace(SMALL, clip_shape=(1, 8, 16, 16), tubelet=(1, 2, 2))
    clips = torch.zeros(4, *c.clip_shape)
    model = model_class(name)(c)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        peak = peak_memory(lambda: model(clips).square().mean().backward())
    weights = sum(parameter.numel() for parameter in model.parameters())
    found = dict(zip(PAPER, finished.training_bytes(c, batch=4)))[name]
    assert found == pytest.approx(peak + 12 * weights, rel=0.35)


@pytest.fixture(scope="module")
def chapter():
    return load_definitions(checkout() / "notebooks" / "09_the_cost_of_attention.ipynb")


def test_the_chapter_s_solutions_agree_with_the_package(chapter):
    for nt, s in ((1, 1), (5, 7), (16, 196)):
        assert chapter.pairs(nt, s) == [attention_pairs(name, nt, s) for name in PAPER]
    assert sum(chapter.block_flops(4608, 4608**2, 1, 768, 3072)) == 2 * 4 * 768 * 4608**2
    assert chapter.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert chapter.model_flops(SMALL) == pytest.approx(finished.model_flops(SMALL))
    assert chapter.training_bytes(SMALL) == pytest.approx(finished.training_bytes(SMALL))
