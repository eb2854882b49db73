"""Checks of chapter 08: the heads of Model 4, split, merged, and given another share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from ..ready import ch08 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, pair, passed, same_shape

B, T, S, HEADS, WIDTH = 3, 5, 6, 8, 14  # all different, and their halves, so that an axis taken for another shows


# ---- 08.1


@exercise
def check_split_heads(split_heads: Callable) -> None:
    """split_heads(qkv [B, T', S, 3·D], heads) -> space, time: each [3, B, T', S, heads/2, d]."""
    qkv = drawn(B, T, S, 3 * HEADS * WIDTH)
    found = pair(call(split_heads, qkv, HEADS), "space, time")
    of_heads = torch.stack([part.unflatten(-1, (HEADS, WIDTH)) for part in qkv.chunk(3, dim=-1)])  # [3, B, T', S, h, d]
    halves = of_heads[..., : HEADS // 2, :], of_heads[..., HEADS // 2 :, :]
    wrong = {
        "space and time are exchanged: the first half of the heads is the spatial one, as in Concat(Y_s, Y_t)": halves[
            ::-1
        ],
        "every second head went to space: the halves must be heads that lie beside each other, so `half` stands "
        "before `h` in (three half h d)": (of_heads[..., 0::2, :], of_heads[..., 1::2, :]),
        "each head was cut in two, so there are twice as many heads of half the width: share out the heads, do not "
        "cut them": of_heads.chunk(2, dim=-1),
        "the last axis was halved before queries, keys and values were told apart: its order is (three half h d), "
        "three first": tuple(
            rearrange(qkv, "b t s (half three h d) -> half three b t s h d", half=2, three=3, d=WIDTH)
        ),
        "the heads were told apart before queries, keys and values: in the last axis three comes first": tuple(
            rearrange(qkv, "b t s (half h three d) -> half three b t s h d", half=2, three=3, d=WIDTH)
        ),
        "the last axis was read as (… d h): within a part the heads come first, each with its d numbers": tuple(
            rearrange(qkv, "b t s (three half d h) -> half three b t s h d", half=2, three=3, d=WIDTH)
        ),
    }
    for k, name in enumerate(("space", "time")):
        close(found[k], halves[k], {message: parts[k] for message, parts in wrong.items()}, what=name)
    others = (drawn(1, 2, 7, 3 * 2 * 5), 2), (drawn(2, 1, 3, 3 * 6 * 4), 6)
    examine(split_heads, finished.split_heads, (qkv, HEADS), *others, what="space, time")
    passed("08.1", "half of the heads for space, the other half for time, none of them cut.")


# ---- 08.2


@exercise
def check_merge_halves(merge_halves: Callable) -> None:
    """merge_halves(y_space [B·T', h, S, d], y_time [B·S, h, T', d], batch) -> Concat(Y_s, Y_t) [B, T', S, D]."""
    h = HEADS // 2
    y_space, y_time = drawn(B * T, h, S, WIDTH), drawn(B * S, h, T, WIDTH).flip(0)
    by_clip = y_space.unflatten(0, (B, T)), y_time.unflatten(0, (B, S))
    space = by_clip[0].permute(0, 1, 3, 2, 4).flatten(-2)  # [B, T', S, D/2]
    time = by_clip[1].permute(0, 3, 1, 2, 4).flatten(-2)  # [B, T', S, D/2]
    expected = torch.cat((space, time), dim=-1)

    def unmoved(y):
        return y.reshape(B, T, S, h * WIDTH)

    def heads_last(y):
        return y.unflatten(-1, (h, WIDTH)).transpose(-1, -2).flatten(-2)

    of_heads = [half.unflatten(-1, (h, WIDTH)) for half in (space, time)]
    found = call(merge_halves, y_space, y_time, B)
    close(
        found,
        expected,
        {
            "time comes first: Concat(Y_s, Y_t) begins with space": torch.cat((time, space), dim=-1),
            "the halves were added: they are concatenated, which gives D numbers a token again": space + time,
            "the spatial half was reshaped without moving its heads: from (b t) h s d to b t s "
            "(h d), h goes behind s": torch.cat((unmoved(y_space), time), dim=-1),
            "the temporal half was reshaped without moving its axes: from (b s) h t d to b t s "
            "(h d), t goes before s": torch.cat((space, unmoved(y_time)), dim=-1),
            "both halves were reshaped without moving their axes: view and reshape keep the order in memory": torch.cat(
                (unmoved(y_space), unmoved(y_time)), dim=-1
            ),
            "the heads of the two halves alternate: all of space first, then all of time": torch.stack(
                of_heads, dim=-2
            ).flatten(-3),
            "the numbers of the heads alternate, (d h): each head's d numbers stay together, (h d)": torch.cat(
                (heads_last(space), heads_last(time)), dim=-1
            ),
            "the places and the clips of the temporal half got mixed up: it was folded as (b s), b first": lambda: (
                torch.cat((space, rearrange(y_time, "(s b) h t d -> b t s (h d)", b=B)), dim=-1)
            ),
            "the time indices and the clips of the spatial half got mixed up: it was folded as "
            "(b t), b first": lambda: torch.cat((rearrange(y_space, "(t b) h s d -> b t s (h d)", b=B), time), dim=-1),
            "the halves stand behind each other along the places: concatenate along the last axis": torch.cat(
                (space, time), dim=2
            ),
            "the halves stand behind each other along time: concatenate along the last axis": torch.cat(
                (space, time), dim=1
            ),
            "the spatial half is used twice": torch.cat((space, space), dim=-1),
        },
    )
    one, thin = (drawn(3, 2, 4, 5), drawn(4, 2, 3, 5, seed=1), 1), (drawn(2, 1, 3, 4), drawn(6, 1, 1, 4, seed=1), 2)
    examine(merge_halves, finished.merge_halves, (y_space, y_time, B), one, thin)
    passed("08.2", "both halves are back on the grid, space first, ready for W_O.")


# ---- 08.3


@exercise
def check_head_masks(head_masks: Callable) -> None:
    """head_masks(n_t, n_s, heads, space_heads) -> bool [heads, N, N]: True where a head's query may look."""
    for sizes in ((3, 4, 4, 2), (2, 5, 6, 1), (4, 3, 3, 3), (2, 3, 5, 0), (1, 4, 2, 1), (5, 1, 3, 2)):
        check_these_masks(call(head_masks, *sizes), *sizes)
    passed("08.3", "each head has its mask, and space has as many heads as you give it.")


def check_these_masks(found: Any, n_t: int, n_s: int, heads: int, space_heads: int) -> None:
    what = f"head_masks({n_t}, {n_s}, {heads}, {space_heads})"
    n = n_t * n_s
    grid = torch.eye(n).unflatten(0, (n_t, n_s)).unflatten(2, (n_t, n_s))  # a query and a key, each [T', S]
    space = grid.any(dim=(1, 3), keepdim=True).expand(n_t, n_s, n_t, n_s).reshape(n, n)  # the same time
    time = grid.any(dim=(0, 2), keepdim=True).expand(n_t, n_s, n_t, n_s).reshape(n, n)  # the same place
    expected = torch.stack([space] * space_heads + [time] * (heads - space_heads))
    same_shape(found, expected, what)
    if found.dtype != torch.bool:
        raise CheckFailed(
            f"{what} is {str(found.dtype).removeprefix('torch.')}, expected bool: True where a query may look "
            "(numbers would be added to the similarities)"
        )
    other = torch.arange(n) % n_t, torch.arange(n) // n_t  # time and place, had the tokens been counted place by place
    other_space, other_time = (which[:, None] == which for which in other)
    half = heads // 2
    close(
        found,
        expected,
        {
            "True and False are exchanged: scaled_dot_product_attention looks where the mask is True": ~expected,
            "space and time are exchanged: the first heads see the tokens of the same time index": torch.stack(
                [time] * space_heads + [space] * (heads - space_heads)
            ),
            "the temporal heads come first, the spatial ones last": torch.stack(
                [time] * (heads - space_heads) + [space] * space_heads
            ),
            "the tokens are counted place by place: in `b (t s) d` token n has time index n // "
            "n_s and place n % n_s": torch.stack([other_space] * space_heads + [other_time] * (heads - space_heads)),
            "every head has the same mask, space and time at once: a head of Model 4 sees one of them": (
                space | time
            ).expand(heads, n, n),
            "every head has the same mask, in which a token sees itself alone: `|` and `&` do not share out heads": (
                space & time
            ).expand(heads, n, n),
            "spatial and temporal heads alternate: the first space_heads are spatial": torch.stack(
                [time if k % 2 else space for k in range(heads)]
            ),
            "half of the heads see space whatever space_heads says": torch.stack(
                [space] * half + [time] * (heads - half)
            ),
            "no head sees space": time.expand(heads, n, n),
            "every head sees space": space.expand(heads, n, n),
            "each head is causal (tril): a clip may be seen as a whole": expected.tril(),
        },
        what=what,
    )
