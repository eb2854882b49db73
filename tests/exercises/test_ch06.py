"""The checks of chapter 06's exercises."""

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from tests.exercises.cases import run_cases
from vivit_edu.course.checks import ch06

# ---- 06.1 the spatial stage


def stage_by_einops(encoder, tokens):
    z = encoder(rearrange(tokens, "b t s d -> (b t) s d"))
    return rearrange(z.mean(dim=1), "(b t) d -> b t d", b=len(tokens))


def stage_by_flatten(encoder, tokens):
    return encoder(tokens.flatten(0, 1)).mean(1).unflatten(0, tokens.shape[:2])


def stage_by_loop(encoder, tokens):
    return torch.stack([encoder(tokens[:, t]).mean(dim=1) for t in range(tokens.shape[1])], dim=1)


def stage(fold, unfold, axis=1):
    def solution(encoder, tokens):
        z = encoder(rearrange(tokens, f"b t s d -> {fold}")).mean(dim=axis)
        return rearrange(z, f"{unfold} -> b t d", b=len(tokens))

    return solution


def joint(encoder, tokens):
    z = encoder(tokens.flatten(1, 2))
    return z.unflatten(1, tokens.shape[1:3]).mean(dim=2)


def over_time(encoder, tokens):
    z = encoder(rearrange(tokens, "b t s d -> (b s) t d"))
    return rearrange(z, "(b s) t d -> b t s d", b=len(tokens)).mean(dim=2)


def first_token(encoder, tokens):
    return encoder(tokens.flatten(0, 1))[:, 0].unflatten(0, tokens.shape[:2])


def time_averaged(encoder, tokens):
    return encoder(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]).mean(dim=1)


def reshaped(encoder, tokens):
    b, t, s, d = tokens.shape
    return encoder(tokens.transpose(1, 2).reshape(b * t, s, d)).mean(1).reshape(b, t, d)


def averaged_first(encoder, tokens):
    return encoder(tokens.mean(dim=2).flatten(0, 1)[:, None])[:, 0].unflatten(0, tokens.shape[:2])


test_spatial_stage = run_cases(
    ch06.check_spatial_stage,
    right=[stage_by_einops, stage_by_flatten, stage_by_loop],
    wrong={
        "always two clips": (
            lambda e, z: rearrange(e(z.flatten(0, 1)).mean(1), "(b t) d -> b t d", b=2),
            "your code raised EinopsError",
        ),
        "without gradients": (torch.no_grad()(stage_by_flatten), "no gradient reaches"),
        "detached": (lambda e, z: stage_by_flatten(e, z.detach()), "no gradient reaches"),
        "the largest": (lambda e, z: e(z.flatten(0, 1)).amax(1).unflatten(0, z.shape[:2]), "is wrong in 30"),
        "the sum": (lambda e, z: e(z.flatten(0, 1)).sum(1).unflatten(0, z.shape[:2]), "is wrong in 30"),
        "axes of length 1 lost": (lambda e, z: stage_by_flatten(e, z).squeeze(), "With other sizes it was right"),
        "over the features": (
            lambda e, z: e(z.flatten(0, 1)).mean(2).unflatten(0, z.shape[:2]),
            r"\[2, 3, 4\], expected \[2, 3, 5\]",
        ),
        "folded the other way": (stage("(t b) s d", "(b t) d"), "wrong order.*mixed up"),
        "unfolded the other way": (stage("(b t) s d", "(t b) d"), "only the unfolding"),
        "all in one sequence": (joint, "time indices see each other"),
        "attention over time": (over_time, "space and time are exchanged"),
        "reshape for a transpose": (reshaped, "shuffled on the way"),
        "first token": (first_token, "as if it were a cls"),
        "not averaged": (lambda e, z: e(z.flatten(0, 1)).unflatten(0, z.shape[:2]), "4 axes.*still there"),
        "not unfolded": (lambda e, z: e(z.flatten(0, 1)).mean(1), "2 axes.*still folded"),
        "averaged over time": (time_averaged, "time is gone"),
        "averaged before": (averaged_first, "averaged before"),
        "not encoded": (lambda e, z: z.mean(2), "nothing was encoded"),
        "not folded": (lambda e, z: e(z).mean(2), "takes sequences \\[B, N, D\\]"),
    },
)

# ---- 06.2 the detector


def alone(model, clips):
    return torch.cat([model(clip[None]) for clip in clips])


@torch.no_grad()
def detector(model, clips):
    model.eval()
    return not torch.allclose(model(clips), alone(model, clips), atol=1e-4)


def detector_by_other_mates(model, clips):
    model = model.eval()
    for i in range(len(clips)):
        others = torch.rand_like(clips)
        others[i] = clips[i]
        if (model(clips)[i] - model(others)[i]).abs().max() > 1e-3:
            return True
    return False


def detector_of_tensors(model, clips):
    model.eval()
    return ((model(clips) - alone(model, clips)).abs() > 1e-4).any()


def by_shuffling(model, clips):
    order = torch.arange(len(clips)).flip(0)
    model.eval()
    return not torch.allclose(model(clips)[order], model(clips[order]), atol=1e-4)


def first_clip(model, clips):
    model.eval()
    return not torch.allclose(model(clips)[:1], model(clips[:1]), atol=1e-4)


def last_clips(model, clips):
    model.eval()
    return not torch.allclose(model(clips)[1:], alone(model, clips)[1:], atol=1e-4)


def exact(model, clips):
    model.eval()
    return not torch.equal(model(clips), alone(model, clips))


def without_eval(model, clips):
    return not torch.allclose(model(clips), alone(model, clips), atol=1e-4)


def twice(model, clips):
    model.eval()
    return not torch.allclose(model(clips), model(clips))


def opposite(model, clips):
    return not detector(model, clips)


def detector_of_numpy(model, clips):
    return np.bool_(detector(model, clips))


def gradients_left_off(model, clips):
    torch.set_grad_enabled(False)
    return without_eval(model.eval(), clips)


def with_a_seed(model, clips):
    torch.manual_seed(0)
    return without_eval(model, clips)


test_depends_on_mates = run_cases(
    ch06.check_depends_on_mates,
    right=[detector, detector_by_other_mates, detector_of_tensors, detector_of_numpy],
    wrong={
        "always four clips": (
            lambda m, c: not torch.allclose(m.eval()(c), alone(m, c[torch.arange(4)]), atol=1e-4),
            "your code raised",
        ),
        "the first two": (
            lambda m, c: not torch.allclose(m.eval()(c)[:2], alone(m, c[:2]), atol=1e-4),
            "only the last clip",
        ),
        "far too loose": (
            lambda m, c: not torch.allclose(m.eval()(c), alone(m, c), atol=100),
            "says False of every model",
        ),
        "differences that cancel": (
            lambda m, c: bool((m.eval()(c) - alone(m, c)).sum().abs() > 1e-3),
            "subtracts the mean",
        ),
        "only the class": (lambda m, c: bool((m.eval()(c).argmax(1) != alone(m, c).argmax(1)).any()), "overlooked"),
        "all must differ": (lambda m, c: bool(((m.eval()(c) - alone(m, c)).abs() > 1e-4).all()), "overlooked"),
        "one answer for each value": (
            lambda m, c: (m.eval()(c) - alone(m, c)).abs() > 1e-4,
            "True or False, got a Tensor",
        ),
        "gradients left off": (gradients_left_off, "gradients switched off"),
        "a global seed": (with_a_seed, "sets the global seed"),
        "by shuffling": (by_shuffling, "Shuffling the batch does not show it"),
        "first clip alone": (first_clip, "not at the first alone"),
        "all but the first": (last_clips, "only the first clip is disturbed"),
        "exact": (exact, "fooled by rounding"),
        "without eval": (without_eval, "fooled by dropout"),
        "the same batch twice": (twice, "says False of every model"),
        "always": (lambda model, clips: True, "says True of every model"),
        "opposite": (opposite, "wrong way round"),
        "a difference": (lambda model, clips: 0.5, "True or False, got a float"),
        "nothing returned": (lambda model, clips: None, "return"),
    },
)

# ---- 06.3 attention that pools over time


def pool_by_hand(z, query):
    weights = (z @ query / z.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights[..., None] * z).sum(dim=1)


def pool_by_einsum(z, query):
    scores = torch.einsum("b t d, d -> b t", z, query) / len(query) ** 0.5
    return torch.einsum("b t, b t d -> b d", scores.softmax(1), z)


def pool_by_torch(z, query):
    return F.scaled_dot_product_attention(query.expand(len(z), 1, -1), z, z).squeeze(1)


def pool(scale=lambda z: z.shape[-1] ** 0.5, dim=1, softmax=True):
    def solution(z, query):
        scores = z @ query / scale(z)
        weights = scores.softmax(dim) if softmax else scores
        return (weights[..., None] * z).sum(1)

    return solution


@torch.no_grad()
def scaled_in_place(z, query):
    query /= z.shape[-1] ** 0.5
    return ((z @ query).softmax(1)[..., None] * z).sum(1)


test_attention_pool = run_cases(
    ch06.check_attention_pool,
    right=[pool_by_hand, pool_by_einsum, pool_by_torch],
    wrong={
        "whole root": (pool(lambda z: int(z.shape[-1] ** 0.5)), "is wrong in 10"),
        "the notebook's width": (pool(lambda z: 128**0.5), "is wrong in 10"),
        "weights detached": (
            lambda z, q: ((z @ q / len(q) ** 0.5).softmax(1).detach()[..., None] * z).sum(1),
            "no gradient reaches q",
        ),
        "the best alone": (lambda z, q: torch.stack([x[(x @ q).argmax()] for x in z]), "is wrong"),
        "query scaled in place": (scaled_in_place, "changes the query that it was given"),
        "axes of length 1 lost": (lambda z, q: pool_by_hand(z, q).squeeze(), "With other sizes it was right"),
        "float32 whatever comes": (lambda z, q: pool_by_hand(z.float(), q.float()), "with tensors of float64"),
        "no scale": (pool(lambda z: 1), "√d is missing"),
        "scaled by D": (pool(lambda z: z.shape[-1]), "by D instead of √D"),
        "scaled the wrong way": (pool(lambda z: z.shape[-1] ** -0.5), "multiplied by √D"),
        "scaled by time": (pool(lambda z: z.shape[1] ** 0.5), "√T'"),
        "softmax over the batch": (pool(dim=0), "over the batch"),
        "no softmax": (pool(softmax=False), "no softmax"),
        "mean": (lambda z, query: z.mean(1), "query has no part"),
        "averaged again": (lambda z, query: pool_by_hand(z, query) / z.shape[1], "must be summed"),
        "the weights": (lambda z, query: (z @ query / z.shape[-1] ** 0.5).softmax(1), "these are the weights"),
        "not summed": (lambda z, q: (z @ q / z.shape[-1] ** 0.5).softmax(1)[..., None] * z, "time is still there"),
        "over features": (lambda z, q: ((z * q / z.shape[-1] ** 0.5).softmax(-1) * z).sum(1), "over the features"),
        "detached": (lambda z, query: pool_by_hand(z, query.detach()), "no gradient"),
    },
)
