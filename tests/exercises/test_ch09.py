"""Chapter 09: what its checks accept and refuse, and the theory that its cells write down."""

import math
import statistics

import numpy as np
import pytest
import torch

from vivit_edu.authoring.masters import checkout, load_definitions
from vivit_edu.cost import PAPER, attention_pairs
from vivit_edu.course.checks import ch09

from .cases import run_cases

# ---- 09.1


def by_formula(n_t, n_s):
    space, time = n_t * n_s**2, n_s * n_t**2
    return [(n_t * n_s) ** 2, space + n_t**2, space + time, (space + time) / 2]


def by_masks(n_t, n_s):
    token = torch.arange(n_t * n_s)
    space = int((token[:, None] // n_s == token // n_s).sum())
    time = int((token[:, None] % n_s == token % n_s).sum())
    return {"1": len(token) ** 2, "2": space + n_t * n_t, "3": space + time, "4": (space + time) // 2}


def as_tensor(n_t, n_s):
    return torch.tensor(by_formula(n_t, n_s))


def instead(model, value):
    """The right numbers, but for one model."""

    def pairs(n_t, n_s):
        found = by_formula(n_t, n_s)
        found[model - 1] = value(n_t, n_s)
        return found

    return pairs


def by_numpy(n_t, n_s):
    return np.array(by_formula(n_t, n_s))


test_pairs = run_cases(
    ch09.check_pairs,
    right=[by_numpy, by_formula, by_masks, as_tensor],
    wrong={
        "exchanged arguments": (lambda t, s: by_formula(s, t), "exchanged"),
        "a text": (lambda t, s: str(by_formula(t, s)), "four numbers are expected"),
        "1 tokens": (instead(1, lambda t, s: t * s), "Model 1.*counts tokens"),
        "1 n_s squared": (instead(1, lambda t, s: t * s**2), "Model 1.*squares n_s alone"),
        "1 n_t squared": (instead(1, lambda t, s: t**2 * s), "Model 1.*squares n_t alone"),
        "1 sum": (instead(1, lambda t, s: (t + s) ** 2), "Model 1.*adds where tokens multiply"),
        "1 sum of squares": (instead(1, lambda t, s: t**2 + s**2), "Model 1.*sum of two squares"),
        "1 not itself": (instead(1, lambda t, s: t * s * (t * s - 1)), "Model 1.*leaves the token itself out"),
        "1 unordered": (instead(1, lambda t, s: t * s * (t * s + 1) // 2), "Model 1.*once: i looking"),
        "2 as the paper writes": (instead(2, lambda t, s: s**2 + t**2), "Model 2.*what the paper writes"),
        "2 no temporal encoder": (instead(2, lambda t, s: t * s**2), "Model 2.*lacks the temporal encoder"),
        "2 as Model 3": (instead(2, lambda t, s: t * s**2 + s * t**2), "Model 2.*lets each place"),
        "2 exchanged": (instead(2, lambda t, s: s * t**2 + s**2), "Model 2.*exchanged"),
        "2 as Model 1": (instead(2, lambda t, s: (t * s) ** 2), "Model 2.*is Model 1's"),
        "3 no time": (instead(3, lambda t, s: t * s**2), "Model 3.*lacks the attention over time"),
        "3 no space": (instead(3, lambda t, s: s * t**2), "Model 3.*lacks the attention over space"),
        "3 of one frame": (instead(3, lambda t, s: s**2 + t**2), "Model 3.*one time index and one place"),
        "3 as Model 2": (instead(3, lambda t, s: t * s**2 + t**2), "Model 3.*is Model 2's"),
        "3 product": (instead(3, lambda t, s: s**2 * t**2), "Model 3.*multiplies the two"),
        "3 halved": (instead(3, lambda t, s: t * s * (s + t) / 2), "Model 3.*half the heads"),
        "3 a cross": (instead(3, lambda t, s: t * s * (s + t - 1)), "Model 3.*counts the token itself once"),
        "4 not halved": (instead(4, lambda t, s: t * s * (s + t)), "Model 4.*is Model 3's"),
        "4 a cross": (instead(4, lambda t, s: t * s * (s + t - 1)), "Model 4.*cross"),
        "4 space": (instead(4, lambda t, s: t * s**2), "Model 4.*space alone"),
        "4 time": (instead(4, lambda t, s: s * t**2), "Model 4.*time alone"),
        "4 half of space": (instead(4, lambda t, s: t * s**2 / 2), "Model 4.*lacks the temporal ones"),
        "4 half of Model 1": (instead(4, lambda t, s: (t * s) ** 2 / 2), "Model 4.*half of Model 1's"),
        "4 halved twice": (instead(4, lambda t, s: t * s * (t + s) / 4), "Model 4.*halve once"),
        "three numbers": (lambda *sizes: by_formula(*sizes)[:3], "four numbers are expected"),
        "one number": (lambda *sizes: by_formula(*sizes)[0], "four numbers are expected"),
        "a word": (instead(2, lambda t, s: "many"), "is a str, expected one number"),
        "no return": (lambda *sizes: None, "four numbers are expected.*None"),
        "a typing error": (lambda t, s: [t * s, q], "your code raised NameError"),  # noqa: F821
    },
)

# ---- 09.2


def by_hand(dim, mlp_dim):
    return 2 * dim + mlp_dim


def by_division(dim, mlp_dim):
    linear = 2 * (4 * dim * dim + 2 * dim * mlp_dim)  # a token
    return linear / (2 * 2 * dim)


def by_search(dim, mlp_dim):
    tokens = 1
    while 4 * tokens**2 * dim < 8 * tokens * dim**2 + 4 * tokens * dim * mlp_dim:
        tokens += 1
    return tokens


test_crossover = run_cases(
    ch09.check_crossover,
    right=[by_hand, by_division, by_search],
    wrong={
        "ViT-B's": (lambda d, m: 4608, "is wrong: found 4608"),
        "MLP alone": (lambda d, m: m, "MLP alone"),
        "projections alone": (lambda d, m: 2 * d, "projections alone"),
        "mlp_dim assumed": (lambda d, m: 6 * d, "takes mlp_dim to be 4·dim"),
        "one product": (lambda d, m: (8 * d**2 + 4 * d * m) / (2 * d), "twice too large"),
        "no W_O": (lambda d, m: (6 * d**2 + 4 * d * m) / (4 * d), "lacks W_O"),
        "one projection": (lambda d, m: (2 * d**2 + 4 * d * m) / (4 * d), "has one projection: W_Q, W_K"),
        "one projection for three": (lambda d, m: (4 * d**2 + 4 * d * m) / (4 * d), "Q, K and V together"),
        "half an MLP": (lambda d, m: (8 * d**2 + 2 * d * m) / (4 * d), "one of the MLP's two maps"),
        "exchanged": (lambda d, m: by_hand(m, d), "exchanged"),
        "a factor is left": (lambda d, m: (8 * d**2 + 4 * d * m) / 4, "still holds a factor dim"),
        "not divided": (lambda d, m: 8 * d**2 + 4 * d * m, "linear FLOPs of a token"),
        "multiply-adds": (lambda d, m: (4 * d**2 + 2 * d * m) / (4 * d), "as one FLOP in the linear maps"),
        "one more": (lambda d, m: by_hand(d, m) + 1, "one token too many"),
        "something else": (lambda d, m: d**2, "is wrong: found"),
        "two numbers": (lambda d, m: (2 * d, m), "is 2 numbers"),
        "no return": (lambda d, m: None, "is None"),
    },
)

# ---- 09.3


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
        "rounded": (lambda x, y: round(by_polyfit(x, y)), "is wrong: found 1|is wrong: found 2"),
        "without its sign": (lambda x, y: abs(by_polyfit(x, y)), "is wrong: found 0.5"),
        "median of slopes": (lambda x, y: np.median(np.diff(np.log(y)) / np.diff(np.log(x))), "is wrong"),
        "both sorted": (lambda x, y: by_polyfit(sorted(x), sorted(y)), "is wrong"),
        "sorted in place": (lambda x, y: (y.sort(), by_polyfit(x, y))[1], "changes the y that it was given"),
        "no logarithm": (lambda x, y: np.polyfit(x, y, 1)[0], "no logarithm"),
        "log of y alone": (lambda x, y: np.polyfit(x, np.log(y), 1)[0], "of y alone"),
        "log of x alone": (lambda x, y: np.polyfit(np.log(x), y, 1)[0], "of x alone"),
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

# ---- the theory that the chapter writes down


@pytest.fixture(scope="module")
def chapter():
    path = checkout() / "notebooks" / "09_the_cost_of_attention.ipynb"
    if not path.exists():
        pytest.skip("chapter 09 is not written yet")
    return load_definitions(path)


def test_the_chapters_solutions_hold_beside_the_package(chapter):
    for n_t, n_s in ((1, 1), (5, 7), (16, 196)):
        assert chapter.pairs(n_t, n_s) == [attention_pairs(name, n_t, n_s) for name in PAPER]
    assert chapter.crossover(768, 3072) == 4608
    assert chapter.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


@pytest.mark.parametrize("name", PAPER)
def test_the_chapters_theory_is_what_is_counted(chapter, name):
    linear, products = chapter.layer_flops(name, 3, 5)
    of = chapter.by_operation(chapter.one_layer(name, 3, 5), 1, 3, 1, 5)
    assert products == of["aten.bmm"]
    assert linear + 2 * 128 * 11 == sum(of.values()) - of["aten.bmm"] - of["aten.convolution"]
