"""The checks of chapter 05's exercises."""

import torch
from einops import rearrange, repeat
from torch import nn

from tests.exercises.cases import run_cases
from vivit_edu.course.checks import ch05

# ---- 05.1 prepend the cls token


def cls_by_expand(tokens, cls):
    return torch.cat((cls.expand(len(tokens), -1, -1), tokens), dim=1)


def cls_by_repeat(tokens, cls):
    return torch.cat([repeat(cls, "1 1 d -> b 1 d", b=tokens.shape[0]), tokens], 1)


def cls_by_filling(tokens, cls):
    b, n, d = tokens.shape
    z = tokens.new_zeros(b, n + 1, d)
    z[:, 1:] = tokens
    z[:, 0] = cls[0, 0]
    return z


def cls_overwrites(tokens, cls):
    z = tokens.clone()
    z[:, 0] = cls[0]
    return z


def cls_in_the_first_clip(tokens, cls):
    copies = torch.zeros(len(tokens), 1, tokens.shape[-1])
    copies[0] = cls
    return torch.cat((copies, tokens), 1)


test_prepend_cls = run_cases(
    ch05.check_prepend_cls,
    right=[cls_by_expand, cls_by_repeat, cls_by_filling],
    wrong={
        "last": (lambda z, cls: torch.cat((z, cls.expand(len(z), -1, -1)), 1), "stands last"),
        "overwritten": (cls_overwrites, "expected \\[3, 5, 5\\].*overwritten"),
        "added": (lambda z, cls: z + cls, "added to every token"),
        "not expanded": (lambda z, cls: torch.cat((cls, z), 1), "must match.*expand"),
        "without dim": (lambda z, cls: torch.cat((cls.expand(len(z), -1, -1), z)), "must match.*dim=1"),
        "along features": (lambda z, cls: torch.cat((cls.expand(len(z), z.shape[1], -1), z), 2), "axis of features"),
        "first clip only": (cls_in_the_first_clip, "only the first clip"),
        "zeros": (lambda z, cls: torch.cat((torch.zeros(len(z), 1, z.shape[2]), z), 1), "all zeros"),
        "detached": (lambda z, cls: torch.cat((cls.data.expand(len(z), -1, -1), z), 1), "no gradient reaches cls"),
        "nothing returned": (lambda z, cls: None, "return"),
    },
)

# ---- 05.2 the encoder block


def block_two_lines(z, norm_attention, attention, norm_mlp, mlp):
    y = attention(norm_attention(z)) + z
    return mlp(norm_mlp(y)) + y


def block_step_by_step(z, norm_attention, attention, norm_mlp, mlp):
    residual = z
    z = norm_attention(z)
    z = attention(z)
    z = residual + z
    residual = z
    return residual + mlp(norm_mlp(z))


def block_in_a_loop(z, norm_attention, attention, norm_mlp, mlp):
    for step in (nn.Sequential(norm_mlp, mlp),):
        z = torch.add(z, attention(norm_attention(z)))
        z = torch.add(z, step(z))
    return z


def post_norm(z, n1, attention, n2, mlp):
    y = n1(z + attention(z))
    return n2(y + mlp(y))


def no_attention_residual(z, n1, attention, n2, mlp):
    y = attention(n1(z))
    return y + mlp(n2(y))


def no_mlp_residual(z, n1, attention, n2, mlp):
    y = z + attention(n1(z))
    return mlp(n2(y))


def mlp_sees_z(z, n1, attention, n2, mlp):
    return z + attention(n1(z)) + mlp(n2(z))


def mlp_residual_of_z(z, n1, attention, n2, mlp):
    y = z + attention(n1(z))
    return z + mlp(n2(y))


def normalised_residual(z, n1, attention, n2, mlp):
    z = n1(z)
    z = z + attention(z)
    z = n2(z)
    return z + mlp(z)


def one_norm(z, n1, attention, n2, mlp):
    z = z + attention(n1(z))
    return z + mlp(n1(z))


def exchanged_norms(z, n1, attention, n2, mlp):
    return block_two_lines(z, n2, attention, n1, mlp)


def mlp_first(z, n1, attention, n2, mlp):
    z = z + mlp(n2(z))
    return z + attention(n1(z))


def in_place(z, n1, attention, n2, mlp):
    z += attention(n1(z))
    z += mlp(n2(z))
    return z


def block_y_in_place(z, n1, attention, n2, mlp):
    y = z + attention(n1(z))
    y += mlp(n2(y))
    return y


def block_with_seed(z, n1, attention, n2, mlp):
    torch.manual_seed(0)
    return block_two_lines(z, n1, attention, n2, mlp)


def without(which):
    def solution(z, n1, attention, n2, mlp):
        norms = [nn.Identity() if k in which else norm for k, norm in enumerate((n1, n2))]
        return block_two_lines(z, norms[0], attention, norms[1], mlp)

    return solution


test_encoder_block = run_cases(
    ch05.check_encoder_block,
    right=[block_two_lines, block_step_by_step, block_in_a_loop],
    wrong={
        "post-norm": (post_norm, "post-norm"),
        "attention without residual": (no_attention_residual, "residual around the attention is missing"),
        "MLP without residual": (no_mlp_residual, "residual around the MLP is missing"),
        "no residual": (lambda z, n1, a, n2, m: m(n2(a(n1(z)))), "both residuals"),
        "parallel": (mlp_sees_z, "both start from z"),
        "residual of z": (mlp_residual_of_z, "adds z instead of y"),
        "normalised residual": (normalised_residual, "add z itself"),
        "one norm": (one_norm, "norm_attention is used twice"),
        "norms exchanged": (exchanged_norms, "exchanged"),
        "no norm": (without((0, 1)), "nothing is normalised"),
        "first norm missing": (without((0,)), "attention's input is not normalised"),
        "second norm missing": (without((1,)), "MLP's input is not normalised"),
        "MLP first": (mlp_first, "MLP comes before"),
        "in place": (in_place, "changes the z"),
        "y in place": (block_y_in_place, "training would stop with an error"),
        "without gradients": (torch.no_grad()(block_two_lines), "no gradient reaches the arguments"),
        "attention detached": (
            lambda z, n1, attention, n2, mlp: block_two_lines(z, n1, lambda x: attention(x).detach(), n2, mlp),
            "no gradient reaches n1.weight",
        ),
        "a seed": (block_with_seed, "sets the global seed"),
    },
)

# ---- 05.3 positions as a sum


def positions_by_broadcast(time, space):
    return rearrange(time[:, :, None] + space[:, None], "b t s d -> b (t s) d")


def positions_by_repeat(time, space):
    n_t, s = time.shape[1], space.shape[1]
    return time.repeat_interleave(s, dim=1) + space.repeat(1, n_t, 1)


def positions_by_loop(time, space):
    rows = [time[:, t] + space[:, s] for t in range(time.shape[1]) for s in range(space.shape[1])]
    return torch.stack(rows, dim=1)


test_factorised_positions = run_cases(
    ch05.check_factorised_positions,
    right=[positions_by_broadcast, positions_by_repeat, positions_by_loop],
    wrong={
        "space before time": (
            lambda t, s: rearrange(t[:, :, None] + s[:, None], "b t s d -> b (s t) d"),
            "runs through time first",
        ),
        "transposed view": (lambda t, s: (s[:, :, None] + t[:, None]).flatten(1, 2), "runs through time first"),
        "not folded": (lambda t, s: t[:, :, None] + s[:, None], "still the grid"),
        "joined": (lambda t, s: torch.cat((t, s), 1), "one after the other"),
        "both tiled": (
            lambda t, s: t.repeat(1, s.shape[1], 1) + s.repeat(1, t.shape[1], 1),
            "repeated in the same way",
        ),
        "both interleaved": (
            lambda t, s: t.repeat_interleave(s.shape[1], 1) + s.repeat_interleave(t.shape[1], 1),
            "element by element",
        ),
        "product": (lambda t, s: (t[:, :, None] * s[:, None]).flatten(1, 2), "multiplied"),
        "space alone": (lambda t, s: s.repeat(1, t.shape[1], 1), "time is missing"),
        "not broadcast": (lambda t, s: t + s, "must match"),
        "detached": (lambda t, s: positions_by_broadcast(t.detach(), s.detach()), "no gradient"),
    },
)
