"""The checks of chapter 00 accept right solutions, however written, and name the mistake in wrong ones."""

import math

import numpy as np
import torch
from einops import rearrange

from tests.exercises.cases import run_cases
from vivit_edu.course.checks import ch00

# ---- 00.1 film strip


def by_einops(clip):
    return rearrange(clip, "c t h w -> (c h) (t w)")


def by_cat(clip):
    return torch.cat(list(clip[0]), dim=1)


def by_permute(clip):
    return clip[0].permute(1, 0, 2).flatten(1)


test_film_strip = run_cases(
    ch00.check_film_strip,
    right=[by_einops, by_cat, by_permute],
    wrong={
        "an axis of length 1 lost": (lambda c: rearrange(c.squeeze(), "t h w -> h (t w)"), "raised EinopsError"),
        "the notebook's height": (lambda c: c[0].permute(1, 0, 2).reshape(28, -1), "your code raised RuntimeError"),
        "numpy": (lambda c: np.concatenate(list(c[0].numpy()), axis=1), "is a ndarray, expected a tensor"),
        "the first frame": (lambda c: c[0, 0], r"shape \[4, 5\], expected \[4, 15\]"),
        "a list of frames": (lambda c: list(c[0]), "is a list, expected a tensor"),
        "bytes": (lambda c: by_einops(c).to(torch.uint8), "is wrong in 30"),
        "the last frame first": (lambda c: by_einops(c.flip(1)), "is wrong in 40"),
        "transposed, then view": (
            lambda c: c[0].transpose(0, 1).contiguous().view(c.shape[1], -1),
            "divided differently",
        ),
        "time inside width": (lambda c: rearrange(c, "1 t h w -> h (w t)"), "time were inside width"),
        "reshape": (lambda c: c.reshape(c.shape[2], -1), "never move"),
        "below": (lambda c: c[0].flatten(0, 1), "one below the other"),
        "on its side": (lambda c: rearrange(c, "1 t h w -> (t w) h"), "on its side"),
        "channel kept": (lambda c: rearrange(c, "c t h w -> c h (t w)"), "channel is still there"),
        "frames turned": (lambda c: rearrange(c, "1 t h w -> w (t h)"), "every frame"),
        "pattern does not fit": (lambda c: rearrange(c, "t h w -> h (t w)"), "raised EinopsError"),
        "no return": (lambda c: None, "None"),
    },
)

# ---- 00.2 tubelets


def by_loop(shape, tubelet):
    number = 1
    for size, part in zip(shape[1:], tubelet):
        number *= size // part
    return number


def by_axes(shape, tubelet):
    _, frames, height, width = shape
    t, h, w = tubelet
    return (frames // t) * (height // h) * (width // w)


def by_unfolding(shape, tubelet):
    n_t, n_h, n_w = (len(range(0, size, part)) for size, part in zip(shape[1:], tubelet))
    return n_t * n_h * n_w


def by_numpy(shape, tubelet):
    return np.prod(np.array(shape[1:]) // np.array(tubelet))


def by_tensors(shape, tubelet):
    return (torch.tensor(shape[1:]) // torch.tensor(tubelet)).prod()


test_count_tubelets = run_cases(
    ch00.check_count_tubelets,
    right=[by_numpy, by_tensors, by_loop, by_axes, by_unfolding],
    wrong={
        "a cube of the first axis": (lambda s, p: (s[1] // p[0]) ** 3, "is wrong: found 4096"),
        "voxels by voxels": (lambda s, p: math.prod(s) // math.prod(p), "channels do not count"),
        "voxels of the clip": (lambda s, p: math.prod(s[1:]), "is wrong"),
        "width left out": (lambda s, p: (s[1] // p[0]) * (s[2] // p[1]), "is wrong: found 224"),
        "square frames": (lambda s, p: (s[1] // p[0]) * (s[2] // p[1]) ** 2, "is wrong: found 3136"),
        "a text": (lambda s, p: str(by_loop(s, p)), "is a str, expected one number"),
        "the notebook's number": (lambda s, p: 64, "is wrong: found 64"),
        "printed": (lambda s, p: print(by_loop(s, p)), "None: does your function end"),
        "channels": (lambda s, p: s[0] * by_loop(s, p), "channels"),
        "sum": (lambda s, p: sum(a // b for a, b in zip(s[1:], p)), "sum"),
        "voxels": (lambda s, p: p[0] * p[1] * p[2], "voxels in a tubelet"),
        "one time index": (lambda s, p: (s[2] // p[1]) * (s[3] // p[2]), "this is S"),
        "order": (lambda s, p: by_loop(s, p[::-1]), "order"),
        "float": (lambda s, p: s[1] / p[0] * s[2] / p[1] * s[3] / p[2], "//"),
        "C for T": (lambda s, p: (s[0] // p[0]) * (s[1] // p[1]) * (s[2] // p[2]), "C were taken for T"),
        "all three": (lambda s, p: (s[1] // p[0], s[2] // p[1], s[3] // p[2]), "is 3 numbers, expected one: multiply"),
    },
)
