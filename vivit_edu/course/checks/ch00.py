"""Checks of chapter 00: two warm-ups, a film strip by einops and the number of tubelets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange

from ..ready import ch00 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, number, passed


@exercise
def check_film_strip(function: Callable) -> None:
    """00.1: function(clip [1, T, H, W]) -> [H, T·W], the frames side by side."""
    clip = torch.arange(3 * 4 * 5).reshape(1, 3, 4, 5)
    close(
        call(function, clip),
        rearrange(clip, "1 t h w -> h (t w)"),
        {
            "looks as if time were inside width: (t w) keeps the columns of a frame together, (w "
            "t) mixes the frames": lambda: rearrange(clip, "1 t h w -> h (w t)"),
            "the numbers were only divided anew: reshape and view never move a value, rearrange does": lambda: (
                clip.reshape(4, 15)
            ),
            "the frames stand one below the other: time belongs beside the width": lambda: rearrange(
                clip, "1 t h w -> (t h) w"
            ),
            "the strip lies on its side: rows first, then columns": lambda: rearrange(clip, "1 t h w -> (t w) h"),
            "the channel is still there: a picture has two axes": lambda: rearrange(clip, "c t h w -> c h (t w)"),
            "every frame lies on its side: h is the row": lambda: rearrange(clip, "1 t h w -> w (t h)"),
        },
        what="the film strip",
    )
    examine(function, finished.film_strip, (drawn(1, 2, 5, 3),), (drawn(1, 1, 3, 2),), (drawn(1, 4, 1, 6),))
    passed("00.1", "one line of einops says where every voxel goes.")


@exercise
def check_count_tubelets(function: Callable) -> None:
    """00.2: function(clip_shape (C, T, H, W), tubelet (t, h, w)) -> N, a whole number."""
    for shape, (t, h, w) in (((3, 32, 224, 112), (2, 16, 14)), ((1, 28, 28, 28), (7, 7, 7))):
        channels, *sizes = shape
        n_t, n_h, n_w = sizes[0] // t, sizes[1] // h, sizes[2] // w
        what = f"N for a clip {shape} and tubelets {(t, h, w)}"
        found = number(call(function, shape, (t, h, w)), what, ": multiply those of the three axes")
        if isinstance(found, float) and found == int(found):
            raise CheckFailed(f"the right kind of number is a whole one, yours is {found}: divide by //")
        close(
            found,
            n_t * n_h * n_w,
            {
                "the channels do not count: a tubelet takes all of them": channels * n_t * n_h * n_w,
                "this is the sum along the axes: a grid has n_t · n_h · n_w places": n_t + n_h + n_w,
                "this is the number of voxels in a tubelet": t * h * w,
                "this is S, the tokens of one time index: n_t of them follow each other": n_h * n_w,
                "the tubelet's sizes are t, h, w, in the order of T, H, W": (sizes[0] // w)
                * (sizes[1] // h)
                * (sizes[2] // t),
                "looks as if C were taken for T: the shape is (C, T, H, W)": (channels // t)
                * (sizes[0] // h)
                * (sizes[1] // w),
            },
            what=what,
        )
    more = ((2, 9, 30, 8), [3, 5, 2]), ([1, 1, 6, 6], (1, 6, 2)), (torch.Size([4, 5, 1, 7]), (1, 1, 1))
    examine(function, finished.count_tubelets, *more, what="N")
    passed("00.2", "28³ voxels in tubelets of 7³ are 64 tokens; attention will compare each with each.")
