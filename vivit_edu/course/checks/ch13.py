"""Checks of chapter 13: rollout, gradient-weighted relevance, the selections of a deletion curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from . import CheckFailed, call, close, exercise, passed, same_shape

B, HEADS, N, LAYERS = 2, 3, 5, 3  # all different, so that an axis taken for another shows


def example_layers(seed: int = 0) -> list[torch.Tensor]:
    """Sharp attention weights of three layers, [B, heads, N, N] each: another order gives another product."""
    generator = torch.Generator().manual_seed(seed)
    return [(3 * torch.randn(B, HEADS, N, N, generator=generator)).softmax(dim=-1) for _ in range(LAYERS)]


def example_gradients() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(B, HEADS, N, N, generator=generator) for _ in range(LAYERS)]


def multiply(factors: Sequence[torch.Tensor], left: bool = True) -> torch.Tensor:
    """R = F_L … F_1, or in the other order."""
    r = torch.eye(N).expand(B, N, N)
    for factor in factors:
        r = factor @ r if left else r @ factor
    return r


# ---- 13.1


@exercise
def check_rollout(rollout: Callable) -> None:
    """rollout(layers): a list of weights [B, heads, N, N], first layer first -> R [B, N, N]."""
    layers, eye = example_layers(), torch.eye(N)
    means = [a.mean(dim=1) for a in layers]
    found = call(rollout, layers)
    expected = multiply([(a + eye) / 2 for a in means])
    close(
        found,
        expected,
        {
            "the order is reversed: the last layer stands on the left, R = Â_L … Â_1, since a "
            "row of R says what a token "
            "at the end is made of": multiply([(a + eye) / 2 for a in means], left=False),
            "the identity is missing: without the residual connection each token forgets itself "
            "in every layer": multiply(means),
            "the rows do not sum to 1: A + I has to be halved": multiply([a + eye for a in means]),
            "the identity is missing from the first layer": multiply([means[0], *((a + eye) / 2 for a in means[1:])]),
            "the first layer is not there": multiply([(a + eye) / 2 for a in means[1:]]),
            "this is the last layer alone": (means[-1] + eye) / 2,
            "the layers were added, not multiplied: what a layer reads was already mixed by the layers before it": sum(
                (a + eye) / 2 for a in means
            )
            / LAYERS,
            "the maximum over heads was taken, and rows no longer sum to 1: take the mean": lambda: multiply(
                [(a.amax(dim=1) + eye) / 2 for a in layers]
            ),
            "the heads were rolled out one by one and averaged at the end; after each layer W_O mixes them, so average "
            "before multiplying": lambda: per_head(layers).mean(dim=1),
            "the columns were normalised, not the rows: sum over the last axis, with keepdim=True": lambda: multiply(
                [(a + eye) / (a + eye).sum(dim=1, keepdim=True) for a in means]
            ),
            "normalised without keepdim=True: the sums were laid along the wrong axis": lambda: multiply(
                [x / x.sum(dim=1)[:, None] for x in (a + eye for a in means)]
            ),
            "R is transposed: rows are the tokens at the end, columns those at the start": expected.transpose(1, 2),
        },
    )
    passed("13.1", "rows sum to 1, and the last layer stands on the left.")


def per_head(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    r = torch.eye(N).expand(B, HEADS, N, N)
    for a in layers:
        r = (a + torch.eye(N)) / 2 @ r
    return r


# ---- 13.2


@exercise
def check_relevance(relevance: Callable) -> None:
    """relevance(layers, gradients): two lists of [B, heads, N, N], first layer first -> R [B, N, N]."""
    layers, gradients, eye = example_layers(), example_gradients(), torch.eye(N)
    products = [g * a for g, a in zip(gradients, layers)]

    def accumulate(factors, left=True):
        return multiply([eye + f for f in factors], left)

    found = call(relevance, layers, gradients)
    close(
        found,
        accumulate([p.clamp(min=0).mean(dim=1) for p in products]),
        {
            "the negative part was cut off after the mean over heads: a head that speaks against "
            "the class then cancels "
            "one that speaks for it. Cut off first, then average": accumulate(
                [p.mean(dim=1).clamp(min=0) for p in products]
            ),
            "the negative part is still there: (…)⁺ keeps what speaks for the class": accumulate(
                [p.mean(dim=1) for p in products]
            ),
            "the absolute value was taken: what speaks against the class counts as much as what "
            "speaks for it": accumulate([p.abs().mean(dim=1) for p in products]),
            "this is the gradient alone: multiply it with the weights, element by element": accumulate(
                [g.clamp(min=0).mean(dim=1) for g in gradients]
            ),
            "the negative part of the gradients was cut off, but the weights are missing or were "
            "multiplied as matrices": lambda: accumulate(
                [(g @ a).clamp(min=0).mean(dim=1) for g, a in zip(gradients, layers)]
            ),
            "these are the weights without their gradients: this is the same for all classes": accumulate(
                [a.mean(dim=1) for a in layers]
            ),
            "R itself is missing from the sum: R ← R + (…)⁺ R": multiply(
                [p.clamp(min=0).mean(dim=1) for p in products]
            ),
            "the sum over heads was taken, not the mean": accumulate([p.clamp(min=0).sum(dim=1) for p in products]),
            "halved as in rollout: here R stays whole and relevance is added to it": multiply(
                [(eye + p.clamp(min=0).mean(dim=1)) / 2 for p in products]
            ),
            "the order is reversed: the new factor stands on the left of R": accumulate(
                [p.clamp(min=0).mean(dim=1) for p in products], left=False
            ),
            "every layer was added to the identity alone: the factor multiplies the R of the layers before": eye
            + sum(p.clamp(min=0).mean(dim=1) for p in products),
            "this is right but for the identity that R starts from: leave it in, the chapter "
            "takes it off afterwards": lambda: accumulate([p.clamp(min=0).mean(dim=1) for p in products]) - eye,
        },
    )
    passed("13.2", "positive parts head by head, averaged, and added to what was there.")


# ---- 13.3


@exercise
def check_deletion(deletion: Callable) -> None:
    """deletion(scores [N]): bool [N + 1, N], the tubelets that stay after 0, 1, …, N of the best are gone."""
    for scores in (torch.tensor([0.3, -0.2, 0.9, 0.5, 0.1]), torch.tensor([0.1, 0.7, 0.4, 0.6, 0.2, 0.5])):
        n = len(scores)
        found = call(deletion, scores)
        if isinstance(found, torch.Tensor) and list(found.shape) == [n, n]:
            raise CheckFailed(
                f"there are {n} rows, expected {n + 1}: the curve starts at the whole clip (nothing gone) and "
                "ends at an empty one (everything gone)"
            )
        same_shape(found, (n + 1, n))
        order = scores.argsort(descending=True)
        ranks, steps = order.argsort(), torch.arange(n + 1)[:, None]
        close(
            found.float(),
            (ranks >= steps).float(),
            {
                "the worst tubelets go first: the best must, so sort in descending order": (
                    scores.argsort().argsort() >= steps
                ).float(),
                "this is insertion: True means that a tubelet stays": (ranks < steps).float(),
                "the order was taken for the ranks: scores.argsort(…) says which tubelet is "
                "first, its argsort() says at "
                "which place each tubelet stands": (order >= steps).float(),
                "one step off: in row k exactly k tubelets are gone": (ranks > steps).float(),
            },
        )
    ties = torch.tensor([0.5, 0.2, 0.5, 0.5, 0.2])  # whichever of the equal ones goes first, one goes at each step
    stay = torch.as_tensor(call(deletion, ties)).sum(1).tolist()
    if stay != [5, 4, 3, 2, 1, 0]:
        raise CheckFailed(
            f"of five tubelets with the scores {ties.tolist()}, {stay} stay, expected one less in "
            "each row: where scores "
            "are equal, only one tubelet goes at a time, so go by ranks and not by the scores themselves"
        )
    passed("13.3", "from all tubelets to none, the best ones first to go.")
