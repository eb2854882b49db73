"""The checks of chapter 03 accept right solutions and name the mistakes that learners make."""

import math

import torch
from einops import rearrange, repeat

from vivit_edu.course.checks import ch03

from .cases import run_cases

# ---- 03.1


def join_by_einops(tubelets, grid, tubelet):
    sizes = dict(zip("thw", grid)) | dict(zip(("pt", "ph", "pw"), tubelet))
    return rearrange(tubelets, "b t (h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", **sizes)


def join_by_permute(tubelets, grid, tubelet):
    (n_t, n_h, n_w), (t, h, w) = grid, tubelet
    boxes = tubelets.reshape(len(tubelets), n_t, n_h, n_w, -1, t, h, w)
    return boxes.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(len(tubelets), -1, n_t * t, n_h * h, n_w * w)


def join_by_loops(tubelets, grid, tubelet):
    (n_t, n_h, n_w), (t, h, w) = grid, tubelet
    clips = torch.zeros(len(tubelets), tubelets.shape[-1] // (t * h * w), n_t * t, n_h * h, n_w * w)
    for i in range(n_t):
        for s in range(n_h * n_w):
            j, k = divmod(s, n_w)
            box = tubelets[:, i, s].view(len(tubelets), -1, t, h, w)
            clips[:, :, i * t : (i + 1) * t, j * h : (j + 1) * h, k * w : (k + 1) * w] = box
    return clips


def joining(pattern):
    """A solution with this pattern."""

    def join(tubelets, grid, tubelet):
        sizes = dict(zip("thw", grid)) | dict(zip(("pt", "ph", "pw"), tubelet))
        return rearrange(tubelets, pattern, **sizes)

    return join


def join_by_reshape(tubelets, grid, tubelet):
    return tubelets.reshape(len(tubelets), -1, *(n * step for n, step in zip(grid, tubelet)))


def join_nothing(tubelets, grid, tubelet):
    join_by_einops(tubelets, grid, tubelet)


def join_without_sizes(tubelets, grid, tubelet):
    return rearrange(tubelets, "b t (h w) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", pt=tubelet[0])


def not_written(*arguments):
    raise NotImplementedError()


test_join_tubelets = run_cases(
    ch03.check_join_tubelets,
    right=[join_by_einops, join_by_permute, join_by_loops],
    wrong={
        "reshape only": (join_by_reshape, "only given another shape"),
        "grid's height and width": (
            joining("b t (w h) (c pt ph pw) -> b c (t pt) (h ph) (w pw)"),
            "height and width of the grid were swapped",
        ),
        "woven": (joining("b t (h w) (c pt ph pw) -> b c (pt t) (ph h) (pw w)"), "woven"),
        "channels last": (joining("b t (h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)"), "channels came last"),
        "voxels' height and width": (
            joining("b t (h w) (c pt pw ph) -> b c (t pt) (h ph) (w pw)"),
            "inside a tubelet were swapped",
        ),
        "time last in a tubelet": (joining("b t (h w) (c ph pw pt) -> b c (t pt) (h ph) (w pw)"), "time came last"),
        "channels at the end": (
            joining("b t (h w) (c pt ph pw) -> b (t pt) (h ph) (w pw) c"),
            "the right axes in another order",
        ),
        "no return": (join_nothing, "is None"),
        "sizes missing": (join_without_sizes, "EinopsError"),
        "not written": (not_written, "still to be written"),
    },
)

# ---- 03.2


def fits(size, tubelet):
    return not any(a % b for a, b in zip(size, tubelet))


def refuse_or(count):
    """A solution that refuses rightly and counts by `count(a, b, remainder)`."""

    def token_grid(size, tubelet, remainder="refuse"):
        if remainder == "refuse" and not fits(size, tubelet):
            raise ValueError(f"{tubelet} does not tile {size}")
        return tuple(count(a, b, remainder) for a, b in zip(size, tubelet))

    return token_grid


def grid_by_integers(size, tubelet, remainder="refuse"):
    if remainder == "refuse" and not fits(size, tubelet):
        raise ValueError(f"tubelets of {tubelet} do not tile {size}")
    return tuple(-(-a // b) if remainder == "pad" else a // b for a, b in zip(size, tubelet))


def grid_by_loop(size, tubelet, remainder="refuse"):
    grid = []
    for a, b in zip(size, tubelet):
        n, rest = divmod(a, b)
        if rest and remainder == "refuse":
            raise ValueError(f"{a} is not a multiple of {b}")
        grid.append(n + 1 if rest and remainder == "pad" else n)
    return grid


def grid_by_math(size, tubelet, remainder):
    if remainder == "refuse":
        if size[0] % tubelet[0] or size[1] % tubelet[1] or size[2] % tubelet[2]:
            raise ValueError(f"does not fit: {size}, {tubelet}")
    return [(math.ceil if remainder == "pad" else math.floor)(a / b) for a, b in zip(size, tubelet)]


def grid_refuses_time_only(size, tubelet, remainder):
    if remainder == "refuse" and size[0] % tubelet[0]:
        raise ValueError(f"{size} {tubelet}")
    return grid_by_integers(size, tubelet, "pad" if remainder == "pad" else "crop")


def grid_never_refuses(size, tubelet, remainder):
    return grid_by_integers(size, tubelet, "pad" if remainder == "pad" else "crop")


def grid_always_refuses(size, tubelet, remainder):
    if remainder == "refuse":
        raise ValueError(f"{size} {tubelet}")
    return grid_by_integers(size, tubelet, remainder)


def grid_refuses_by_assert(size, tubelet, remainder):
    assert remainder != "refuse" or fits(size, tubelet)
    return grid_never_refuses(size, tubelet, remainder)


def grid_refuses_curtly(size, tubelet, remainder):
    if remainder == "refuse" and not fits(size, tubelet):
        raise ValueError("bad sizes")
    return grid_never_refuses(size, tubelet, remainder)


test_token_grid = run_cases(
    ch03.check_token_grid,
    right=[grid_by_integers, grid_by_loop, grid_by_math],
    wrong={
        "swapped": (refuse_or(lambda a, b, r: a // b if r == "pad" else -(-a // b)), "crop and pad were swapped"),
        "round": (refuse_or(lambda a, b, r: round(a / b)), r"round\(\)"),
        "always down": (refuse_or(lambda a, b, r: a // b), '"pad" the result is rounded down'),
        "always up": (refuse_or(lambda a, b, r: -(-a // b)), '"crop" the result is rounded up'),
        "one too many": (refuse_or(lambda a, b, r: a // b + (r == "pad")), "a tubelet too many"),
        "floats": (refuse_or(lambda a, b, r: a / b), "whole numbers"),
        "product": (lambda size, tubelet, r: math.prod(grid_never_refuses(size, tubelet, r)), "not their product"),
        "reversed": (lambda size, tubelet, r: grid_never_refuses(size, tubelet, r)[::-1], "reverse order"),
        "refuses along time only": (grid_refuses_time_only, "left over along height"),
        "never refuses": (grid_never_refuses, "left over along time"),
        "always refuses": (grid_always_refuses, "nothing is left over"),
        "assert": (grid_refuses_by_assert, "raised AssertionError; expected a ValueError"),
        "message without sizes": (grid_refuses_curtly, "does not name the sizes"),
    },
)

# ---- 03.3


def sinusoids(n, dim):
    speed = 10000.0 ** (-torch.arange(0, dim, 2) / dim)
    angle = torch.arange(n)[:, None] * speed
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)


def positions_by_expand(n_t, n_s, dim):
    time = sinusoids(n_t, dim // 2)[:, None].expand(n_t, n_s, dim // 2)
    space = sinusoids(n_s, dim // 2)[None].expand(n_t, n_s, dim // 2)
    return torch.cat((time, space), dim=-1)


def positions_by_einops(n_t, n_s, dim):
    time = repeat(sinusoids(n_t, dim // 2), "t d -> t s d", s=n_s)
    return torch.cat([time, repeat(sinusoids(n_s, dim // 2), "s d -> t s d", t=n_t)], dim=2)


def positions_by_loops(n_t, n_s, dim):
    time, space = sinusoids(n_t, dim // 2), sinusoids(n_s, dim // 2)
    result = torch.zeros(n_t, n_s, dim)
    for t in range(n_t):
        for s in range(n_s):
            result[t, s] = torch.cat([time[t], space[s]])
    return result


def positions_swapped(n_t, n_s, dim):
    first, last = positions_by_expand(n_t, n_s, dim).chunk(2, dim=-1)
    return torch.cat((last, first), dim=-1)


def positions_tiled(n_t, n_s, dim):
    time = sinusoids(n_t, dim // 2).repeat(n_s, 1).view(n_t, n_s, dim // 2)
    return torch.cat((time, positions_by_expand(n_t, n_s, dim)[..., dim // 2 :]), dim=-1)


def positions_alternating(n_t, n_s, dim):
    return torch.stack(positions_by_expand(n_t, n_s, dim).chunk(2, dim=-1), dim=-1).flatten(2)


def positions_not_broadcast(n_t, n_s, dim):
    return torch.cat((sinusoids(n_t, dim // 2), sinusoids(n_s, dim // 2)), dim=-1)


def positions_double_width(n_t, n_s, dim):
    return positions_by_expand(n_t, n_s, 2 * dim)


def positions_of_fixed_grid(n_t, n_s, dim):
    return positions_by_expand(3, 5, 8)


test_grid_positions = run_cases(
    ch03.check_grid_positions,
    right=[positions_by_expand, positions_by_einops, positions_by_loops],
    wrong={
        "halves swapped": (positions_swapped, "space and time were swapped"),
        "added": (lambda t, s, d: sinusoids(t, d)[:, None] + sinusoids(s, d)[None], "the two were added"),
        "one row": (lambda t, s, d: sinusoids(t * s, d).view(t, s, d), "numbered in one row"),
        "repeated in the wrong order": (positions_tiled, "repeated in the wrong order"),
        "alternating": (positions_alternating, "alternated"),
        "flat": (lambda t, s, d: positions_by_expand(t, s, d).flatten(0, 1), "one axis here"),
        "space first": (lambda t, s, d: positions_by_expand(t, s, d).transpose(0, 1), "time comes first"),
        "not broadcast": (positions_not_broadcast, "your code raised RuntimeError"),
        "double width": (positions_double_width, "give each dim // 2"),
        "time only": (lambda t, s, d: positions_by_expand(t, s, d)[..., : d // 2], "only D/2 columns"),
        "fixed grid": (positions_of_fixed_grid, "grid_positions\\(4, 4, 16\\) has shape"),
    },
)
