"""Chapter 10: what its checks accept and refuse, and what its cells define."""

import torch
import torch.nn.functional as F
from einops import repeat

from vivit_edu.course.checks import ch10

from .cases import run_cases

# ---- 10.1


def into_zeros(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:], dtype=filters.dtype)
    inflated[:, :, t // 2] = filters
    return inflated


def by_product(filters, t):
    return torch.einsum("dchw,t->dcthw", filters, F.one_hot(torch.tensor(t // 2), t).to(filters.dtype))


def by_padding(filters, t):
    return F.pad(filters.unsqueeze(2), (0, 0, 0, 0, t // 2, t - 1 - t // 2))


def placed(frame, scale=1):
    def solution(filters, t):
        inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
        inflated[:, :, frame(t)] = filters / (t if scale == "t" else scale)
        return inflated

    return solution


def along_width(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
    middle = filters.shape[-1] // 2
    inflated[..., middle] = filters[:, :, None, :, middle]
    return inflated


def along_height(filters, t):
    inflated = torch.zeros(*filters.shape[:2], t, *filters.shape[2:])
    middle = filters.shape[-2] // 2
    inflated[..., middle, :] = filters[:, :, None, middle]
    return inflated


def written_into(filters, t):
    inflated = into_zeros(filters, t)
    filters.zero_()
    return inflated


test_central_frame = run_cases(
    ch10.check_central_frame,
    right=[into_zeros, by_product, by_padding],
    wrong={
        "float32 whatever comes": (lambda w, t: into_zeros(w.float(), t), "with tensors of float64"),
        "detached": (lambda w, t: into_zeros(w.detach(), t), "no gradient reaches"),
        "the notebook's seven frames": (lambda w, t: into_zeros(w, 7), "has shape"),
        "the notebook's frame 3": (placed(lambda t: min(3, t - 1)), "on the last frame"),
        "average": (lambda w, t: repeat(w / t, "d c h w -> d c t h w", t=t), "this is filter inflation"),
        "on every frame": (lambda w, t: torch.stack([w] * t, 2), "on every frame"),
        "along the width": (along_width, "along the width"),
        "along the height": (along_height, "along the height"),
        "divided by t": (placed(lambda t: t // 2, "t"), "divided by t"),
        "the other middle": (placed(lambda t: (t - 1) // 2), "even number"),
        "first frame": (placed(lambda t: 0), "on the first frame"),
        "last frame": (placed(lambda t: -1), "on the last frame"),
        "time behind the height": (lambda w, t: into_zeros(w, t).transpose(2, 3), "behind the height"),
        "time last": (lambda w, t: into_zeros(w, t).movedim(2, -1), "yours stands last"),
        "time before the channels": (lambda w, t: into_zeros(w, t).transpose(1, 2), "before the channels"),
        "given filters zeroed": (written_into, "changes the .* that it was given"),
        "no return": (lambda w, t: None, "None"),
        "not written": (lambda w, t: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 10.2


def by_einops(positions, n_t):
    return repeat(positions[:, 1:], "1 s d -> 1 (t s) d", t=n_t)


def by_torch(positions, n_t):
    return positions[:, 1:].repeat(1, n_t, 1)


def by_tokens(positions, n_t):
    tokens = [positions[0, 1 + s] for t in range(n_t) for s in range(positions.shape[1] - 1)]
    return torch.stack(tokens).unsqueeze(0)


def interpolated(positions, n_t):
    tokens = n_t * (positions.shape[1] - 1)
    return F.interpolate(positions.transpose(1, 2), size=tokens, mode="linear").transpose(1, 2)


def interpolated_patches(positions, n_t):
    return interpolated(torch.cat([positions[:, 1:], positions[:, :1]], 1)[:, :-1], n_t)


def regrouped(positions, n_t):
    patches = positions[:, 1:]
    return patches.transpose(1, 2).repeat(1, 1, n_t).reshape(1, -1, positions.shape[2])


def zeroed(positions, n_t):
    repeated = by_einops(positions, n_t)
    positions[:, :1] = 0
    return repeated


test_repeat_positions = run_cases(
    ch10.check_repeat_positions,
    right=[by_einops, by_torch, by_tokens],
    wrong={
        "detached": (lambda p, n: by_einops(p.data, n), "no gradient reaches"),
        "always four": (lambda p, n: by_einops(p, 4), "has shape"),
        "with noise": (lambda p, n: by_einops(p, n) + 1e-3, "is wrong in 72"),
        "order (s t)": (lambda p, n: p[:, 1:].repeat_interleave(n, 1), r"order \(s t\)"),
        "the notebook's size": (lambda p, n: p[:, 1:17].repeat(1, n, 1), "has shape"),
        "cls in each copy": (lambda p, n: p.repeat(1, n, 1), "once in each copy"),
        "cls in front": (lambda p, n: torch.cat([p[:, :1], by_torch(p, n)], 1), "still stands in front"),
        "last left out": (lambda p, n: p[:, :-1].repeat(1, n, 1), "last position was left out"),
        "not repeated": (lambda p, n: p[:, 1:], "nothing repeated"),
        "divided": (lambda p, n: by_torch(p, n) / n, "divided by n_t"),
        "Model 3's grid": (lambda p, n: repeat(p[:, 1:], "1 s d -> 1 t s d", t=n), "Models 3 and 4"),
        "along the batch": (lambda p, n: p[:, 1:].repeat(n, 1, 1), "along the batch"),
        "without the batch": (lambda p, n: by_torch(p, n)[0], "batch axis is lost"),
        "interpolated": (
            lambda p, n: F.interpolate(p[:, 1:].mT, size=n * (p.shape[1] - 1), mode="linear").mT,
            "blurs space",
        ),
        "interpolated with cls": (interpolated, "interpolated along the sequence"),
        "regrouped": (regrouped, "regrouped"),
        "cls zeroed in place": (zeroed, "changes the .* that it was given"),
        "no return": (lambda p, n: None, "None"),
    },
)

# ---- 10.3


def wide(values):
    return values[:, None, None]


def by_formula(weight, bias, mean, std):
    weight = weight / wide(std)
    return weight, bias - (weight * wide(mean)).sum(dim=(1, 2, 3))


def by_einsum(weight, bias, mean, std):
    return torch.einsum("dchw,c->dchw", weight, 1 / std), bias - torch.einsum("dchw,c->d", weight, mean / std)


def by_asking(weight, bias, mean, std):
    """The bias is what the old filters say of a black image."""
    black = (-mean / std).reshape(1, 3, 1, 1).expand(1, 3, *weight.shape[2:])
    return weight / std.reshape(1, 3, 1, 1), F.conv2d(black, weight, bias).flatten()


def folded(weight=lambda w, m, s: w / wide(s), bias=lambda b, w, new, m, s: b - (new * wide(m)).sum(dim=(1, 2, 3))):
    def solution(w, b, m, s):
        return weight(w, m, s), bias(b, w, w / wide(s), m, s)

    return solution


def in_place(weight, bias, mean, std):
    weight /= wide(std)
    bias -= (weight * wide(mean)).sum(dim=(1, 2, 3))
    return weight, bias


test_fold_normalisation = run_cases(
    ch10.check_fold_normalisation,
    right=[by_formula, by_einsum, by_asking],
    wrong={
        "the variance": (lambda w, b, m, s: by_formula(w, b, m, s**2), "weight is wrong"),
        "ImageNet's numbers": (
            lambda w, b, m, s: by_formula(
                w, b, torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
            ),
            "weight is wrong",
        ),
        "bias detached": (lambda w, b, m, s: by_formula(w, b.detach(), m, s), "no gradient reaches b"),
        "an axis too many": (
            lambda w, b, m, s: (w / wide(s), by_formula(w, b, m, s)[1][:, None]),
            "2 axes instead of 1",
        ),
        "exchanged": (lambda *given: by_formula(*given)[::-1], "1 axes instead of 4"),
        "filters as they were": (folded(lambda w, m, s: w), "filters are as they were"),
        "multiplied": (folded(lambda w, m, s: w * wide(s)), "multiplied by std"),
        "std along the width": (folded(lambda w, m, s: w / s), "std was laid along the width"),
        "std along the height": (folded(lambda w, m, s: w / s[:, None]), "along the height"),
        "mean taken from the filters": (folded(lambda w, m, s: (w - wide(m)) / wide(s)), "moves the bias alone"),
        "filters times mean": (folded(lambda w, m, s: w * wide(m)), "multiplied by mean"),
        "bias as it was": (folded(bias=lambda b, *_: b), "bias is as it was"),
        "sign": (folded(bias=lambda b, w, new, m, s: b + (new * wide(m)).sum(dim=(1, 2, 3))), "the sign"),
        "old filters": (folded(bias=lambda b, w, new, m, s: b - (w * wide(m)).sum(dim=(1, 2, 3))), "old filters"),
        "own bias lost": (folded(bias=lambda b, w, new, m, s: -(new * wide(m)).sum(dim=(1, 2, 3))), "own bias"),
        "average": (folded(bias=lambda b, w, new, m, s: b - (new * wide(m)).mean(dim=(1, 2, 3))), "not their average"),
        "without the filters": (folded(bias=lambda b, w, new, m, s: b - (m / s).sum()), "without the filters"),
        "over the colours only": (
            folded(bias=lambda b, w, new, m, s: wide(b) - (new * wide(m)).sum(dim=1)),
            "colours only",
        ),
        "mean along the width": (
            folded(bias=lambda b, w, new, m, s: b - (new * m).sum(dim=(1, 2, 3))),
            "mean was laid along",
        ),
        "std twice": (folded(bias=lambda b, w, new, m, s: b - (new * wide(m / s)).sum(dim=(1, 2, 3))), "twice"),
        "in place": (in_place, "changes the .* that it was given"),
        "weight alone": (lambda w, b, m, s: w / wide(s), "expected two things"),
        "no return": (lambda *_: None, "returned None"),
    },
)
