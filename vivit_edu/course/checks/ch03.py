"""Checks of chapter 03: tubelets put back together, the grid of tubelets, positions for time and space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import rearrange

from . import CheckFailed, call, close, exercise, kind, learns, number, passed, same_shape


@exercise
def check_join_tubelets(join_tubelets: Callable) -> None:
    """03.1: join_tubelets(tubelets [B, T', S, C·t·h·w], grid, tubelet) -> clips [B, C, T, H, W]."""
    # sizes that all differ, so that no two axes can be mixed up unnoticed; every voxel has a number of its own
    grid, tubelet, channels, batch = (2, 4, 3), (3, 2, 5), 2, 3
    size = [n * step for n, step in zip(grid, tubelet)]
    clips = torch.arange(batch * channels * math.prod(size), dtype=torch.float32).view(batch, channels, *size)
    tubelets = cut_by_loops(clips, tubelet)  # [B, T', S, V]
    found = call(join_tubelets, tubelets, grid, tubelet)
    n_t, n_h, n_w = grid
    t, h, w = tubelet

    def read_as(pattern, **sizes):
        return lambda: rearrange(tubelets, pattern, **sizes)

    places, voxels = {"t": n_t, "h": n_h, "w": n_w}, {"pt": t, "ph": h, "pw": w}
    close(
        found,
        clips,
        {
            "looks as if the values were only given another shape: `view` and `reshape` move "
            "nothing, and the voxels of "
            "one tubelet do not lie side by side in the clip. Use rearrange": lambda: tubelets.reshape(clips.shape),
            "looks as if height and width of the grid were swapped: S is (h w), width being the fastest": read_as(
                "b t (w h) (c pt ph pw) -> b c (t pt) (h ph) (w pw)", h=n_h, w=n_w, **voxels
            ),
            "looks as if each axis were woven: in (t pt) the place comes first and the voxel "
            "inside the tubelet second, "
            "not (pt t)": read_as("b t (h w) (c pt ph pw) -> b c (pt t) (ph h) (pw w)", **places, **voxels),
            "looks as if channels came last among a tubelet's values: the order is (c pt ph pw), "
            "channels first": read_as("b t (h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", **places, **voxels),
            "looks as if height and width inside a tubelet were swapped: its values are in the order "
            "(c pt ph pw)": read_as("b t (h w) (c pt pw ph) -> b c (t pt) (h ph) (w pw)", **places, **voxels),
            "looks as if time came last among a tubelet's values: the order is (c pt ph pw), time before height and "
            "width": read_as("b t (h w) (c ph pw pt) -> b c (t pt) (h ph) (w pw)", **places, **voxels),
        },
        what="join_tubelets(...)",
        tolerance=0,
    )
    learns(join_tubelets, tubelets.float(), grid, tubelet)
    passed("03.1", "every voxel is back at its place, for two channels and sizes that all differ.")


@exercise
def check_token_grid(token_grid: Callable) -> None:
    """03.2: token_grid(size, tubelet, remainder) -> (n_t, n_h, n_w); "refuse" raises ValueError."""
    size, tubelet = (28, 30, 29), (7, 8, 9)  # left over: nothing, 6 of 8, 2 of 9
    crop = whole_numbers(call(token_grid, size, tubelet, "crop"), f'token_grid({size}, {tubelet}, "crop")')
    pad = whole_numbers(call(token_grid, size, tubelet, "pad"), f'token_grid({size}, {tubelet}, "pad")')
    if (crop, pad) == ((4, 4, 4), (4, 3, 3)):
        raise CheckFailed(
            "looks as if crop and pad were swapped: crop drops what is left over (rounds down), pad adds to it"
        )
    if (4, 4, 3) in (crop, pad):
        raise CheckFailed(
            "looks as if you used round(): 30 / 8 = 3.75 went up and 29 / 9 = 3.2 went down. "
            "crop always rounds down, pad always up"
        )
    if crop == (4, 4, 4):
        raise CheckFailed('with "crop" the result is rounded up: what fills no whole tubelet gets none')
    if pad == (4, 3, 3):
        raise CheckFailed(
            'with "pad" the result is rounded down: what is left over gets a tubelet of its own, 30 / 8 -> 4'
        )
    if pad == (5, 4, 4):
        raise CheckFailed(
            'with "pad" there is a tubelet too many where nothing is left over: 28 / 7 is 4, not 28 // 7 + 1'
        )
    expect(crop, (4, 3, 3), f'token_grid({size}, {tubelet}, "crop")')
    expect(pad, (4, 4, 4), f'token_grid({size}, {tubelet}, "pad")')
    for fits in ((28, 28, 28), (7, 7, 7)), ((16, 8, 12), (2, 8, 4)):
        expect(
            whole_numbers(call_fitting(token_grid, *fits), f'token_grid({fits[0]}, {fits[1]}, "refuse")'),
            tuple(a // b for a, b in zip(*fits)),
            f'token_grid({fits[0]}, {fits[1]}, "refuse")',
        )
    for axis, name in enumerate(("time", "height", "width")):  # one that does not fit, the others do
        size = tuple(30 if a == axis else 28 for a in range(3))
        check_refusal(token_grid, size, (7, 7, 7), name)
    passed("03.2", "crop rounds down, pad rounds up, and refuse speaks up on each of the three axes.")


@exercise
def check_grid_positions(grid_positions: Callable) -> None:
    """03.3: grid_positions(n_t, n_s, dim) -> [T', S, D], first half of D from the time index, last from the place."""
    n_t, n_s, dim = 3, 5, 8
    found = call(grid_positions, n_t, n_s, dim)
    time, space = sines(n_t, dim // 2), sines(n_s, dim // 2)  # [T', D/2], [S, D/2]
    by_time, by_space = time[:, None].expand(-1, n_s, -1), space[None].expand(n_t, -1, -1)  # [T', S, D/2]
    expected = torch.cat((by_time, by_space), dim=-1)
    whole = sines(n_t, dim)[:, None] + sines(n_s, dim)[None]
    tiled = time.repeat(n_s, 1).view(n_t, n_s, dim // 2)
    same_shape_of_parts(found, expected)
    close(
        found,
        expected,
        {
            "looks as if space and time were swapped: the first half of D tells the time index, the last half the "
            "place": torch.cat((by_space, by_time), dim=-1),
            "looks as if the two were added: put them side by side, torch.cat((time, space), dim=-1), each of D/2 "
            "columns": whole,
            "looks as if the tokens were numbered in one row, sinusoids(T'·S, D): then time is only a large step in "
            "space": sines(n_t * n_s, dim).view(n_t, n_s, dim),
            "looks as if the time positions were repeated in the wrong order: a time index keeps its position at all S "
            "places; repeat along a new axis after T'": torch.cat((tiled, by_space), dim=-1),
            "looks as if the columns of time and space alternated: first all of time, then all of space": torch.stack(
                (by_time, by_space), dim=-1
            ).flatten(2),
            "looks as if one of the halves were zero: both time and space must be told": torch.cat(
                (by_time, torch.zeros_like(by_space)), dim=-1
            ),
        },
        what="grid_positions(3, 5, 8)",
    )
    close(
        call(grid_positions, 4, 4, 16),
        torch.cat((sines(4, 8)[:, None].expand(-1, 4, -1), sines(4, 8)[None].expand(4, -1, -1)), dim=-1),
        {
            "is right for a 3 by 5 grid but not for 4 by 4 with 16 columns: use the arguments, "
            "no fixed numbers": lambda: found
        },
        what="grid_positions(4, 4, 16)",
    )
    passed("03.3", "same time, same first half; same place, same last half.")


# ---- what the checks need


def cut_by_loops(clips: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """[B, C, T, H, W] -> [B, T', S, C·t·h·w], as the chapter's loops do."""
    t, h, w = tubelet
    rows = [
        torch.stack(
            [
                clips[:, :, i : i + t, j : j + h, k : k + w].flatten(1)
                for j in range(0, clips.shape[3], h)
                for k in range(0, clips.shape[4], w)
            ],
            dim=1,
        )
        for i in range(0, clips.shape[2], t)
    ]
    return torch.stack(rows, dim=1)


def sines(n: int, dim: int) -> torch.Tensor:
    """Sinusoidal positions from their formula, number by number: [n, dim]."""

    def value(place, column):
        angle = place / 10000 ** (column // 2 * 2 / dim)
        return math.cos(angle) if column % 2 else math.sin(angle)

    return torch.tensor([[value(place, column) for column in range(dim)] for place in range(n)])


def whole_numbers(grid: Any, what: str) -> tuple[int, ...]:
    """The grid as a tuple of three ints, or a CheckFailed that says what it is instead."""
    grid = grid.tolist() if hasattr(grid, "tolist") else grid
    if grid is None or not isinstance(grid, (int, float)) and not hasattr(grid, "__iter__"):
        raise CheckFailed(f"{what} is {kind(grid)}")
    if isinstance(grid, (int, float)):
        raise CheckFailed(f"{what} is one number, {grid}: return one for each axis, (n_t, n_h, n_w), not their product")
    grid = tuple(number(n, f"an entry of {what}") for n in grid)
    if len(grid) != 3:
        raise CheckFailed(f"{what} has {len(grid)} numbers, expected three: (n_t, n_h, n_w)")
    if any(not isinstance(n, int) for n in grid):
        raise CheckFailed(f"{what} is {grid}: counts are whole numbers, so divide with // instead of /")
    return grid


def expect(found: tuple[int, ...], expected: tuple[int, ...], what: str) -> None:
    if found == expected:
        return
    if found == expected[::-1]:
        raise CheckFailed(f"{what} is {found}: the axes are in reverse order, expected (n_t, n_h, n_w)")
    raise CheckFailed(f"{what} is {found}, expected {expected}")


def call_fitting(token_grid: Callable, size: Sequence[int], tubelet: Sequence[int]) -> Any:
    """token_grid(..., "refuse") where nothing is left over: it must not refuse."""
    try:
        return token_grid(size, tubelet, "refuse")
    except ValueError as error:
        raise CheckFailed(
            f'token_grid({size}, {tubelet}, "refuse") raised ValueError ({error}) although nothing is left over: '
            "refuse only where a % b is not 0"
        ) from None
    except Exception:
        return call(token_grid, size, tubelet, "refuse")  # said in the usual way


def check_refusal(token_grid: Callable, size: Sequence[int], tubelet: Sequence[int], axis: str) -> None:
    what = f'token_grid({size}, {tubelet}, "refuse")'
    try:
        grid = token_grid(size, tubelet, "refuse")
    except ValueError as error:
        if not all(str(number) in str(error) for number in (30, 7)):
            raise CheckFailed(
                f"{what} refuses, but its message ({error}) does not name the sizes: "
                "say how large the clip and the tubelet are"
            ) from None
        return
    except Exception as error:
        raise CheckFailed(f"{what} raised {type(error).__name__}; expected a ValueError that names the sizes") from None
    raise CheckFailed(f"{what} returned {grid} although 2 voxels are left over along {axis}: raise a ValueError")


def same_shape_of_parts(found: Any, expected: torch.Tensor) -> None:
    """A wrong shape is named by the step that is missing."""
    n_t, n_s, dim = expected.shape
    hints = {
        (n_t * n_s, dim): "time and space are one axis here: keep them apart, [T', S, D]",
        (n_s, n_t, dim): "space and time are swapped: time comes first, [T', S, D]",
        (n_t, n_s, 2 * dim): "time and space have D columns each: give each dim // 2",
        (2 * n_t, n_s, dim // 2): "time and space were joined along time: join along the last axis, dim=-1",
        (n_t, 2 * n_s, dim // 2): "time and space were joined along space: join along the last axis, dim=-1",
        (n_t, n_s, dim // 2): "only D/2 columns: time and space need D/2 each, side by side",
    }
    shape = tuple(found.shape) if isinstance(found, torch.Tensor) else None
    if shape in hints:
        raise CheckFailed(
            f"grid_positions(3, 5, 8) has shape {list(shape)}, expected {list(expected.shape)}: {hints[shape]}"
        )
    same_shape(found, expected, "grid_positions(3, 5, 8)")
