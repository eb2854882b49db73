"""Chapter 13: what its checks accept and refuse."""

import torch

from vivit_edu.course.checks import ch13

from .cases import run_cases

# ---- 13.1


def by_loop(layers):
    r = None
    for a in layers:
        a = a.mean(dim=1)
        a = (a + torch.eye(a.shape[-1])) / 2
        r = a if r is None else a @ r
    return r


def by_normalising(layers):
    r = torch.eye(layers[0].shape[-1])
    for a in layers:
        a = a.mean(1) + torch.eye(a.shape[-1])
        r = torch.einsum("b i j, b j k -> b i k", a / a.sum(-1, keepdim=True), r.expand(len(a), -1, -1))
    return r


def roll(layers, half=2, residual=1.0, heads=torch.mean, left=True):
    r = torch.eye(layers[0].shape[-1])
    for a in layers:
        a = heads(a, 1)
        a = (a + residual * torch.eye(a.shape[-1])) / half
        r = a @ r if left else r @ a
    return r


def without_keepdim(layers):
    r = torch.eye(5)
    for a in layers:
        a = a.mean(1) + torch.eye(5)
        r = a / a.sum(1)[:, None] @ r
    return r


test_rollout = run_cases(
    ch13.check_rollout,
    right=[by_loop, by_normalising],
    wrong={
        "reversed": (lambda x: roll(x, left=False), "order is reversed"),
        "no residual": (lambda x: roll(x, half=1, residual=0), "identity is missing"),
        "not halved": (lambda x: roll(x, half=1), "do not sum to 1"),
        "first without residual": (lambda x: roll(x[1:]) @ x[0].mean(1), "missing from the first layer"),
        "first left out": (lambda x: roll(x[1:]), "first layer is not there"),
        "last only": (lambda x: roll(x[-1:]), "last layer alone"),
        "added": (lambda x: sum(roll([a]) for a in x) / 3, "added, not multiplied"),
        "maximum": (lambda x: roll(x, heads=torch.amax), "maximum over heads"),
        "heads apart": (lambda x: ch13.per_head(x).mean(1), "one by one"),
        "heads left": (ch13.per_head, r"4 axes instead of 3|\[2, 3, 5, 5\]"),
        "without keepdim": (without_keepdim, "columns were normalised|keepdim"),
        "transposed": (lambda x: roll(x).transpose(1, 2), "transposed"),
        "not written": (lambda x: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 13.2


def as_in_the_paper(layers, gradients):
    r = torch.eye(layers[0].shape[-1])
    for a, g in zip(layers, gradients):
        r = r + (g * a).clamp(min=0).mean(dim=1) @ r
    return r


def with_relu(layers, gradients):
    r = torch.eye(5).repeat(len(layers[0]), 1, 1)
    for k in range(len(layers)):
        cam = torch.relu(gradients[k] * layers[k]).mean(1)
        r += torch.bmm(cam, r.clone())
    return r


def accumulate(factor, keep=1.0, left=True, scale=1.0):
    def relevance(layers, gradients):
        r = torch.eye(5)
        for a, g in zip(layers, gradients):
            f = factor(a, g)
            r = scale * (keep * r + (f @ r if left else r @ f))
        return r

    return relevance


test_relevance = run_cases(
    ch13.check_relevance,
    right=[as_in_the_paper, with_relu],
    wrong={
        "cut off after the mean": (accumulate(lambda a, g: (g * a).mean(1).clamp(min=0)), "after the mean"),
        "not cut off": (accumulate(lambda a, g: (g * a).mean(1)), "negative part is still there"),
        "absolute": (accumulate(lambda a, g: (g * a).abs().mean(1)), "absolute"),
        "gradient alone": (accumulate(lambda a, g: g.clamp(min=0).mean(1)), "gradient alone"),
        "matrix product": (accumulate(lambda a, g: (g @ a).clamp(min=0).mean(1)), "multiplied as matrices"),
        "no gradient": (accumulate(lambda a, g: a.mean(1)), "without their gradients"),
        "R forgotten": (accumulate(lambda a, g: (g * a).clamp(min=0).mean(1), keep=0), "R itself is missing"),
        "sum over heads": (accumulate(lambda a, g: (g * a).clamp(min=0).sum(1)), "sum over heads"),
        "halved": (accumulate(lambda a, g: (g * a).clamp(min=0).mean(1), scale=0.5), "halved"),
        "on the right": (accumulate(lambda a, g: (g * a).clamp(min=0).mean(1), left=False), "order is reversed"),
        "identity taken off": (lambda a, g: as_in_the_paper(a, g) - torch.eye(5), "leave it in"),
        "heads left": (lambda a, g: (a[0] * g[0]).clamp(min=0), r"\[2, 3, 5, 5\]"),
    },
)

# ---- 13.3


def by_ranks(scores):
    ranks = scores.argsort(descending=True).argsort()
    return ranks >= torch.arange(len(scores) + 1)[:, None]


def step_by_step(scores):
    keep = torch.ones(len(scores) + 1, len(scores), dtype=torch.bool)
    for k, best in enumerate(scores.argsort(descending=True), 1):
        keep[k:, best] = False
    return keep


test_deletion = run_cases(
    ch13.check_deletion,
    right=[by_ranks, step_by_step],
    wrong={
        "equal scores at once": (
            lambda s: torch.stack([(s[:, None] < s).sum(1) >= k for k in range(len(s) + 1)]),
            "only one tubelet goes at a time",
        ),
        "worst first": (lambda s: by_ranks(-s), "worst tubelets go first"),
        "insertion": (lambda s: ~by_ranks(s), "this is insertion"),
        "order for ranks": (
            lambda s: s.argsort(descending=True) >= torch.arange(len(s) + 1)[:, None],
            "taken for the ranks",
        ),
        "one step off": (
            lambda s: s.argsort(descending=True).argsort() > torch.arange(len(s) + 1)[:, None],
            "one step off",
        ),
        "a row missing": (lambda s: by_ranks(s)[:-1], "nothing gone"),
        "sideways": (lambda s: by_ranks(s).T, r"expected \[6, 5\]"),
        "no return": (lambda s: None, "None"),
    },
)
