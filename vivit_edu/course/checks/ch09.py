"""Checks of chapter 09: attention's pairs, the crossover with the linear maps, an exponent."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ...cost import PAPER
from ...explain.weights import recorded_attention
from ...models import build_model
from ...vivit import Block, ViViTConfig
from ..ready import ch09 as finished
from . import CheckFailed, call, close, examine, exercise, number, passed

# ---- 09.1

PAIRS_MISTAKES = {  # of each model: message -> the number that this mistake gives
    "spacetime": {
        "{} counts tokens, not pairs: each of the N tokens is compared with all N": lambda t, s: t * s,
        "{} squares n_s alone: N = n_t·n_s is squared as a whole": lambda t, s: t * s**2,
        "{} squares n_t alone: N = n_t·n_s is squared as a whole": lambda t, s: t**2 * s,
        "{} adds where tokens multiply: N is n_t·n_s, not n_t + n_s": lambda t, s: (t + s) ** 2,
        "{} is the sum of two squares: here space and time are not factorised, N = n_t·n_s": lambda t, s: t**2 + s**2,
        "{} leaves the token itself out: it is one of the keys, too": lambda t, s: t * s * (t * s - 1),
        "{} counts each pair of tokens once: i looking at j is another pair than j looking at i": lambda t, s: (
            t * s * (t * s + 1) / 2
        ),
    },
    "factorised_encoder": {
        "{} is what the paper writes, n_s² + n_t²: the spatial encoder runs once for each of the "
        "n_t time indices": lambda t, s: s**2 + t**2,
        "{} lacks the temporal encoder": lambda t, s: t * s**2,
        "{} lets each place attend over time, as Model 3 does: here one vector a time index is left": lambda t, s: (
            t * s * (s + t)
        ),
        "{} has the parts of space and time exchanged": lambda t, s: s * t**2 + s**2,
        "{} is Model 1's": lambda t, s: (t * s) ** 2,
    },
    "factorised_self_attention": {
        "{} lacks the attention over time": lambda t, s: t * s**2,
        "{} lacks the attention over space": lambda t, s: s * t**2,
        "{} is for one time index and one place: there are n_t and n_s of them": lambda t, s: s**2 + t**2,
        "{} is Model 2's: over time, too, all n_s places are there": lambda t, s: t * s**2 + t**2,
        "{} multiplies the two attentions: they come one after the other, so their pairs add up": lambda t, s: (
            (t * s) ** 2
        ),
        "{} is of half the heads: here each of the two attentions has all of them": lambda t, s: t * s * (t + s) / 2,
        "{} counts the token itself once: it is a key over space and again over time": lambda t, s: t * s * (t + s - 1),
    },
    "factorised_dot_product": {
        "{} is Model 3's: here a head does one of the two, so on average it is half": lambda t, s: t * s * (t + s),
        "{} counts a cross of keys for each token: no head sees both arms of it": lambda t, s: t * s * (t + s - 1),
        "{} has space alone": lambda t, s: t * s**2,
        "{} has time alone": lambda t, s: s * t**2,
        "{} has half of the spatial heads and lacks the temporal ones": lambda t, s: t * s**2 / 2,
        "{} is half of Model 1's pairs: each half of the heads is factorised": lambda t, s: (t * s) ** 2 / 2,
        "{} is a quarter of Model 3's: halve once": lambda t, s: t * s * (t + s) / 4,
    },
}


@exercise
def check_pairs(pairs: Callable) -> None:
    """pairs(n_t, n_s) -> four numbers, Models 1 to 4: query-key pairs of one layer, a head on average."""
    for n_t, n_s in ((3, 5), (4, 7), (6, 2), (1, 9), (8, 1)):
        found = call(pairs, n_t, n_s)
        found = list(found.values()) if isinstance(found, dict) else found
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, (list, tuple)) or len(found) != 4:
            raise CheckFailed(
                "four numbers are expected, one a model: `return [model_1, model_2, model_3, model_4]`; "
                f"found {str(found)[:60]}"
            )
        for k, (name, mistakes) in enumerate(PAIRS_MISTAKES.items()):
            what = f"Model {k + 1}'s number for n_t={n_t}, n_s={n_s}"
            wrong = {message.format(what): float(value(n_t, n_s)) for message, value in mistakes.items()}
            close(number(found[k], what), float(recorded_pairs(name, n_t, n_s)), wrong, what=what)
    passed("09.1", "these are as many as the models' attentions hold weights.")


def recorded_pairs(name: str, n_t: int, n_s: int, heads: int = 2) -> float:
    """The weights that one layer of a real model holds for one clip, a head on average."""
    options = {"tubelet": (1, 1, 1), "dim": 4, "mlp_dim": 4, "heads": heads, "depth": 1}
    if name == "factorised_encoder":
        options["temporal_depth"] = 1
    model = build_model(name, clip_shape=(1, n_t, 1, n_s), **options)
    with torch.no_grad(), recorded_attention(model) as record:
        model(torch.zeros(1, 1, n_t, 1, n_s))
    return sum(weights.numel() for weights in record) / heads


assert list(PAIRS_MISTAKES) == list(PAPER)  # Models 1 to 4 in order

# ---- 09.2


@exercise
def check_crossover(crossover: Callable) -> None:
    """crossover(dim, mlp_dim) -> the number of tokens at which attention's products cost as much as all linear maps."""
    for d, m in ((24, 40), (16, 64), (32, 8)):
        what = f"crossover({d}, {m})"
        found = number(call(crossover, d, m), what)
        linear, _ = counted(1, d, m)
        quadratic = (counted(3, d, m)[1] - counted(1, d, m)[1]) / (3**2 - 1)  # of one pair
        close(
            found,
            linear / quadratic,
            {
                f"{what} is where the products overtake the MLP alone: W_Q, W_K, W_V and W_O are linear maps, too": m,
                f"{what} is where the products overtake the projections alone: the MLP's two maps are linear, too": 2
                * d,
                f"{what} takes mlp_dim to be 4·dim, which holds at ViViT-B's size: keep it as it is given": 6 * d,
                f"{what} is twice too large: attention has two products, Q Kᵀ and weights times V": 4 * d + 2 * m,
                f"{what} lacks W_O: there are four projections of D², not three": 1.5 * d + m,
                f"{what} has one projection: W_Q, W_K, W_V and W_O are four": d / 2 + m,
                f"{what} has one projection for Q, K and V together: W_Q, W_K, W_V and W_O are four": d + m,
                f"{what} has one of the MLP's two maps: D to M, and M back to D": 2 * d + m / 2,
                f"{what} has dim and mlp_dim exchanged": d + 2 * m,
                f"{what} still holds a factor dim: a pair costs 4·dim FLOPs, divide by all of it": d * (2 * d + m),
                f"{what} is the linear FLOPs of a token: divide by those of a pair, and N remains": 8 * d**2
                + 4 * d * m,
                f"{what} counts a multiply-add as one FLOP in the linear maps and as two in the products": d + m / 2,
                f"{what} is one token too many: where both cost the same is asked for": 2 * d + m + 1,
            },
            what=what,
        )
    examine(crossover, finished.crossover, (7, 5), (100, 1), (1, 3), what="the number of tokens")
    passed("09.2", "at that many tokens a real block's two counts are equal.")


def counted(tokens: int, dim: int, mlp_dim: int) -> tuple[float, float]:
    """FLOPs of a real block on this many tokens, counted by torch: (linear maps, attention's products)."""
    block = Block(ViViTConfig(dim=dim, mlp_dim=mlp_dim, heads=2))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        block(torch.zeros(1, tokens, dim))
    of = {str(operation): flops for operation, flops in counter.get_flop_counts()["Global"].items()}
    products = sum(flops for operation, flops in of.items() if "bmm" in operation)
    return sum(of.values()) - products, products


# ---- 09.3

BASES = {"log": 1.0, "log2": math.log(2), "log10": math.log(10)}


@exercise
def check_exponent(exponent: Callable) -> None:
    """exponent(x, y) -> the slope of log y against log x, by least squares."""
    noise = torch.randn(9, generator=torch.Generator().manual_seed(9)).double()
    x = 2.0 ** torch.arange(9).double() * 3
    for power, factor, spread in ((2.0, 5.0, 0.0), (1.5, 700.0, 0.0), (1.0, 0.02, 0.3), (-0.5, 40.0, 0.2)):
        y = factor * x**power * torch.exp(spread * noise)
        found = number(
            call(exponent, x.tolist(), y.tolist()),
            "the exponent",
            " (np.polyfit gives slope and height: take the first)",
        )
        log_x, log_y = x.log(), y.log()
        steps = log_y.diff() / log_x.diff()
        expected, intercept = line(log_x, log_y)
        close(
            found,
            expected,
            {
                "no logarithm was taken: this is the slope of y against x": line(x, y)[0],
                "the logarithm was taken of y alone: on a log-log plot both axes are logarithmic": line(x, log_y)[0],
                "the logarithm was taken of x alone: on a log-log plot both axes are logarithmic": line(log_x, y)[0],
                "x and y are exchanged: the exponent is how fast log y rises with log x": line(log_y, log_x)[0],
                "this is the line's height at log x = 0, not its slope: np.polyfit gives the slope first": intercept,
                "the line was forced through the origin, but a power law c·xᵏ has a factor c: fit the height, too": (
                    log_x @ log_y
                )
                / (log_x @ log_x),
                "this is the mean of log y / log x: with a factor c before xᵏ it is not k": (log_y / log_x).mean(),
                "the first and the last point alone were used: fit all points": steps.mean(),
                "the last two points alone were used: fit all points": steps[-1],
                "the first two points alone were used: fit all points": steps[0],
                **{
                    f"{of_y} was taken of y and {of_x} of x: take the same logarithm of both": expected * a / b
                    for of_x, a in BASES.items()
                    for of_y, b in BASES.items()
                    if a != b
                },
            },
            what="the exponent",
            tolerance=1e-3,
        )
    few = ([2.0, 3.0, 11.0], [5.0, 1.0, 0.3]), ([1.0, 10.0], [4.0, 9.0]), ([0.5, 0.1, 0.9, 3.0], [2.0, 2.0, 2.0, 2.5])
    examine(exponent, finished.exponent, *few, what="the exponent", tolerance=1e-3)
    passed("09.3", "the slope on log-log axes is the exponent, whatever the factor before it.")


def line(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Slope and height of the least-squares line through the points."""
    design = torch.stack((x, torch.ones_like(x)), dim=1)
    return torch.linalg.lstsq(design, y[:, None]).solution.flatten()
