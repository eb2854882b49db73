"""Checks of chapter 03: cutting and joining tubelets, the projection, the whole embedding, frame sampling, a test that
catches faulty embeddings, and learned positions with their map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from ...embedding import FrameEmbedding, TubeletEmbedding
from . import CheckFailed, call, close, drawn, examine, exercise, flag, kind, learns, passed, same_shape
from .calling import call_with_hints
from .parity import as_filters as folded

# B, C and the sizes differ on every axis, so that no two of them can be mixed up unnoticed; none is the notebook's
BATCH, CHANNELS, GRID, TUBELET = 3, 2, (2, 4, 3), (3, 2, 5)
SIZE = tuple(n * step for n, step in zip(GRID, TUBELET))
CUT_PATTERN = "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (c pt ph pw)"
JOIN = "b nt (nh nw) (c pt ph pw) -> b c (nt pt) (nh ph) (nw pw)"


@exercise
def check_cut_and_join(loops: Callable, cut: Callable, join: Callable) -> None:
    """03.1: cut_by_loops(clip [C, T, H, W], tubelet) -> [N, C·pt·ph·pw]; cut(clips [B, C, T, H, W], tubelet) ->
    [B, nt, S, C·pt·ph·pw]; and join, the way back."""
    check_loops(loops)
    check_cut(cut)
    check_join(join)
    passed("03.1", "every voxel is in its tubelet, and back at its place, for two channels and sizes that all differ.")


@exercise
def check_project(project: Callable, as_filters: Callable) -> None:
    """03.2: project(tubelets [B, nt, S, V], E [D, V], b [D]) -> [B, nt, S, D]; as_filters(E, tubelet) -> [D, C, …]."""
    values, width = 20, 7
    tubelets, E, b = drawn(2, 3, 5, values), drawn(width, values, seed=1), drawn(width, seed=2)
    expected = F.linear(tubelets, E, b)  # [B, nt, S, D]
    right_way = "E is [D, V] and a tubelet has V values: multiply the tubelets by E.T, tubelets @ E.T"
    found = call_with_hints({"multiplied": right_way, "batch2": right_way}, project, tubelets, E, b)
    again = call(project, tubelets, E, b)
    if same(found, again) is False:
        raise CheckFailed("two calls with the same E and b differ: use the E and b that are given, draw no new weights")
    close(
        found,
        expected,
        {
            "looks as if b were missing: x = E · tubelet + b": lambda: F.linear(tubelets, E),
            "looks as if b were subtracted: x = E · tubelet + b": lambda: F.linear(tubelets, E) - b,
            "looks as if the result were divided by the number of values: the product is a plain sum": lambda: (
                F.linear(tubelets, E) / values + b
            ),
            "looks as if there were a non-linearity: the projection is linear": lambda: F.linear(tubelets, E, b).relu(),
            "looks as if there were a GELU: the projection is linear": lambda: F.gelu(F.linear(tubelets, E, b)),
            "looks as if a softmax followed: the projection is linear": lambda: expected.softmax(dim=-1),
            "looks as if b were added to the tubelet before E is applied: x = E · tubelet + b": lambda: F.linear(
                tubelets + b.mean(), E
            ),
            "looks as if E were only given another shape: its transpose is E.T": lambda: (
                tubelets @ E.reshape(values, width) + b
            ),
            "only the first clip is projected: keep the axis of the batch": lambda: expected[0],
            "nt and S are one axis here: keep the grid, [B, nt, S, D]": lambda: expected.flatten(1, 2),
            "the width comes last, [B, nt, S, D]": lambda: expected.movedim(-1, 1),
        },
        what="project(...)",
    )
    one = drawn(1, 1, 2, values, seed=3)
    close(call(project, one, E, b), F.linear(one, E, b), what="project(...) of one clip")
    square = drawn(values, values, seed=4)
    close(
        call(project, tubelets, square, drawn(values, seed=5)),
        F.linear(tubelets, square, drawn(values, seed=5)),
        {
            "looks as if E were used as it is, where its transpose is needed: x_d is row d of E times the tubelet": (
                lambda: tubelets @ square + drawn(values, seed=5)
            )
        },
        what="project(...) with D = V",
    )
    examine(project, F.linear, (tubelets, E, b), what="project(...)")
    check_as_filters(as_filters)
    passed("03.2", "tokens are E · tubelet + b, and E folded into boxes is the filter bank of a convolution.")


@exercise
def check_tubelet_embedding(embedding: type[nn.Module]) -> None:
    """03.3: a module (clip_shape, dim, tubelet) with `grid`; clips [B, C, T, H, W] -> tokens [B, nt, S, D]."""
    for grid, tubelet, channels, batch, dim in (
        (GRID, TUBELET, CHANNELS, BATCH, 7),
        ((3, 2, 5), (2, 4, 3), 3, 1, 10),
    ):
        clip_shape = (channels, *(n * step for n, step in zip(grid, tubelet)))
        fits = {
            "raised ValueError": "the tubelet fits here: nothing is left over of size % step, in time, height and width"
        }
        call_with_hints(fits, embedding, clip_shape, dim, tubelet)
        module, reference = build(embedding, clip_shape, dim, tubelet), TubeletEmbedding(clip_shape, dim, tubelet)
        check_grid(module, grid, clip_shape, tubelet)
        check_parameters(module, clip_shape, dim, tubelet)
        copy_weights(reference, module)
        clips = drawn(batch, *clip_shape) / 4
        expected = reference(clips).detach()  # [B, nt, S, D]
        found = call(module.forward, clips)
        close(found, expected, mistakes_of_order(reference, clips, grid, tubelet), what="your embedding of the clips")
        learns(lambda clips, module: module(clips), clips, module)
        fresh = build(embedding, clip_shape, dim, tubelet)
        if any(
            same(a, b) and a.ndim > 1
            for a, b in zip(fresh.parameters(), build(embedding, clip_shape, dim, tubelet).parameters())
        ):
            raise CheckFailed(
                "two new embeddings have the same E: draw it at random (nn.Linear and nn.Conv3d do), and set no seed"
            )
        for dtype in (torch.float64, torch.bfloat16):
            found = call(build(embedding, clip_shape, dim, tubelet).to(dtype), clips.to(dtype))
            of_type(found, dtype, "the tokens")
    check_refusal(embedding)
    passed("03.3", "the same tokens as vivit_edu.TubeletEmbedding and torch's Conv3d, and odd sizes are refused.")


@exercise
def check_rebuild(rebuild: Callable) -> None:
    """03.4: rebuild(tokens [B, nt, S, D], E [D, V], b [D], grid, tubelet) -> clips [B, C, T, H, W]."""
    for width, batch in ((CHANNELS * math.prod(TUBELET) + 7, 2), (11, 1)):  # more and fewer numbers than voxels
        E, b = drawn(width, CHANNELS * math.prod(TUBELET)), drawn(width, seed=1)
        clips = drawn(batch, CHANNELS, *SIZE, seed=2)
        tubelets = cut_by_loops(clips, TUBELET)  # [B, nt, S, V]
        tokens = F.linear(tubelets, E, b)
        back = torch.linalg.pinv(E)  # [V, D]
        hints = {
            "multiplied": "torch.linalg.pinv(E) is [V, D] and a token has D numbers: multiply by its transpose",
            "square": "E is [D, V], which has an inverse only if D = V: take torch.linalg.pinv(E)",
            "singular": "E has no inverse: take torch.linalg.pinv(E)",
            f"tensor b ({width})": "b has D numbers: subtract it from the tokens, before the pseudo-inverse",
        }
        found = call_with_hints(hints, rebuild, tokens, E, b, GRID, TUBELET)

        def joined(values, grid=GRID):
            nt, nh, nw = grid
            pt, ph, pw = TUBELET
            return rearrange(values, JOIN, nh=nh, nw=nw, pt=pt, ph=ph, pw=pw)

        close(
            found,
            joined((tokens - b) @ back.T),
            {
                "looks as if b were not undone: subtract it before the pseudo-inverse": lambda: joined(tokens @ back.T),
                "looks as if b were subtracted after the pseudo-inverse: undo it first, it was added last": lambda: (
                    joined(tokens @ back.T - b.mean())
                ),
                "looks as if the pseudo-inverse were only given another shape: its transpose is "
                "torch.linalg.pinv(E).T": lambda: joined((tokens - b) @ back.reshape(back.shape[::-1])),
                "looks as if b were added once more: subtract it": lambda: joined((tokens + b) @ back.T),
                "looks as if E's transpose were used, which undoes E only if its columns are orthonormal: take "
                "torch.linalg.pinv(E)": lambda: joined((tokens - b) @ E),
                "these are the tubelets: join them to clips": lambda: (tokens - b) @ back.T,
                "looks as if the values were only given another shape: join the tubelets with `join`": lambda: (
                    (tokens - b) @ back.T
                ).reshape(clips.shape),
            },
            what=f"rebuild(...) with D = {width} and V = {E.shape[1]}",
            tolerance=1e-3,
        )
    of_type(call(rebuild, *(x.double() for x in (tokens, E, b)), GRID, TUBELET), torch.float64, "the result")
    learns(lambda tokens, E, b: rebuild(tokens, E, b, GRID, TUBELET), tokens, E, b)
    passed(
        "03.4",
        "with enough numbers per token every voxel comes back; with fewer you get the nearest sum of E's rows.",
    )


@exercise
def check_cut_frames(cut_frames: Callable) -> None:
    """03.5: cut_frames(clips [B, C, T, H, W], tubelet) -> patches of the frames at ⌊pt/2⌋, [B, nt, S, C·ph·pw]."""
    for grid, tubelet, channels, batch in ((GRID, (10, 2, 5), 2, 3), ((5, 2, 4), (3, 4, 1), 3, 1)):
        pt, ph, pw = tubelet
        clips = drawn(batch, channels, *(n * step for n, step in zip(grid, tubelet)))

        def patches(frames, pattern="b c nt (nh ph) (nw pw) -> b nt (nh nw) (c ph pw)", ph=ph, pw=pw):
            return rearrange(frames, pattern, ph=ph, pw=pw)

        middle = clips[:, :, pt // 2 :: pt]
        expected = patches(middle)
        found = call(cut_frames, clips, tubelet)
        even = torch.linspace(0, clips.shape[2] - 1, grid[0]).round().long()
        close(
            found,
            expected,
            {
                "looks as if you took the first frame of each stretch: the middle one is at pt // 2": lambda: patches(
                    clips[:, :, ::pt]
                ),
                "looks as if you took the last frame of each stretch: the middle one is at pt // 2": lambda: patches(
                    clips[:, :, pt - 1 :: pt]
                ),
                "looks as if you took frame (pt - 1) // 2 of each stretch: it is pt // 2, counted from 0": lambda: (
                    patches(clips[:, :, (pt - 1) // 2 :: pt])
                ),
                "looks as if you took the frame after the middle one: it is pt // 2, counted from 0": lambda: patches(
                    clips[:, :, pt // 2 + 1 :: pt]
                ),
                "looks as if you took frame 3 of each stretch, the middle one of seven: in general it is pt // 2": (
                    lambda: patches(clips[:, :, 3::pt])
                ),
                "looks as if you took all frames from pt // 2 on: take one out of every pt, pt // 2 :: pt": lambda: (
                    patches(clips[:, :, pt // 2 :])
                ),
                "looks as if you took a single frame of the clip: take one out of every pt, pt // 2 :: pt": lambda: (
                    patches(clips[:, :, [pt // 2]])
                ),
                "looks as if the slice were on axis 1, the channels: clips are [B, C, T, H, W], and time is axis 2": (
                    lambda: patches(clips[:, pt // 2 :: pt])
                ),
                "looks as if you took the first nt frames of the clip: take one out of every stretch": lambda: patches(
                    clips[:, :, : grid[0]]
                ),
                "looks as if you averaged the frames of a stretch: frame sampling keeps one and forgets the others": (
                    lambda: patches(clips.unflatten(2, (-1, pt)).mean(dim=3))
                ),
                "looks as if you took the largest value of each stretch: keep one frame, the middle one": (
                    lambda: patches(clips.unflatten(2, (-1, pt)).amax(dim=3))
                ),
                "looks as if the frames ran from the clip's first to its last: take the middle of each stretch": (
                    lambda: patches(clips[:, :, even])
                ),
                "all frames are kept: take one out of every pt": lambda: patches(clips),
                "looks as if height and width of the grid were swapped: S is (nh nw), width being the fastest": (
                    lambda: patches(middle, "b c nt (nh ph) (nw pw) -> b nt (nw nh) (c ph pw)")
                ),
                "looks as if channels came last among a patch's values: the order is (c ph pw)": lambda: patches(
                    middle, "b c nt (nh ph) (nw pw) -> b nt (nh nw) (ph pw c)"
                ),
                "looks as if height and width inside a patch were swapped: the order is (c ph pw)": lambda: patches(
                    middle, "b c nt (nh ph) (nw pw) -> b nt (nh nw) (c pw ph)"
                ),
                "looks as if each axis were woven: (nh ph) means the place first, then the pixel in it": lambda: (
                    patches(middle, "b c nt (ph nh) (pw nw) -> b nt (nh nw) (c ph pw)")
                ),
                "looks as if the values were only given another shape: use rearrange": lambda: middle.reshape(
                    expected.shape
                ),
                "nt and S are one axis here: keep the grid, [B, nt, S, C·ph·pw]": lambda: expected.flatten(1, 2),
                "the frames are chosen but not cut into patches": lambda: middle,
            },
            what="cut_frames(...)",
            tolerance=0,
        )
        examine(cut_frames, lambda x, p: patches(x[:, :, p[0] // 2 :: p[0]]), (clips, tubelet), what="cut_frames(...)")
    passed("03.5", "one frame out of each stretch, the middle one, cut into patches.")


@exercise
def check_reads_its_boxes(voxels_read: Callable, reads_its_boxes: Callable) -> None:
    """03.6: voxels_read(embedding, clip, t, s) -> bool [C, T, H, W]; reads_its_boxes(embedding, clip_shape, tubelet)
    -> whether each token reads its own tubelet and no more."""
    clip_shape, tubelet = (2, 4, 6, 6), (2, 2, 3)  # a grid of (2, 3, 2)
    check_voxels_read(voxels_read, clip_shape, tubelet)
    for name, embedding in sound_embeddings(clip_shape, tubelet).items():
        if not flag(call(reads_its_boxes, embedding, clip_shape, tubelet), "what your test returns"):
            raise CheckFailed(
                f"your test refuses {name}, in which each token reads its own tubelet of {tubelet} and nothing else"
            )
    faulty = faulty_embeddings(clip_shape, tubelet)
    for what, embedding in faulty.items():
        if flag(call(reads_its_boxes, embedding, clip_shape, tubelet), "what your test returns"):
            raise CheckFailed(f"your test finds nothing wrong with an embedding in which {what}")
    passed("03.6", f"your test accepts three sound embeddings and catches {len(faulty)} faulty ones.")


@exercise
def check_positions(positions: type[nn.Module], similarity_map: Callable) -> None:
    """03.7: a module (nt, places, dim) that adds a learned vector to each token, and the map of their similarity."""
    nt, places, dim, batch = 3, 10, 40, 2
    module = build(positions, nt, places, dim)
    found = list(module.parameters())
    if not found:
        raise CheckFailed(
            "your module has no parameters, so the positions would never be trained: wrap the tensor in nn.Parameter "
            "and assign it to self"
        )
    counted = sum(p.numel() for p in found)
    if counted != nt * places * dim:
        raise CheckFailed(
            f"your module has {counted:,} parameters {[list(p.shape) for p in found]}, expected {nt * places * dim:,}: "
            f"one vector of {dim} numbers for each of {nt} · {places} places, the same for all clips"
        )
    if not all(p.requires_grad for p in found):
        raise CheckFailed("the positions are a parameter with requires_grad=False: they would never be trained")
    tokens = drawn(batch, nt, places, dim)
    empty = torch.zeros(1, nt, places, dim)
    p = call(module.forward, empty)
    same_shape(p, (1, nt, places, dim), "tokens plus positions, for one clip")
    if same(p, call(module.forward, empty)) is False:
        raise CheckFailed("two calls with the same tokens differ: add the positions as they are, without dropout")
    p = p.detach()
    close(
        call(module.forward, tokens),
        tokens + p,
        {
            "looks as if the tokens were replaced by the positions: add them": lambda: p.expand(batch, -1, -1, -1),
            "the positions do not arrive: return tokens + self.…": lambda: tokens,
            "looks as if the tokens were multiplied by the positions: add them": lambda: (
                tokens * found[0].view(nt, places, dim)
            ),
            "looks as if the tokens were multiplied by 1 + the positions: add them": lambda: (
                tokens * (1 + found[0].view(nt, places, dim))
            ),
            "looks as if positions were appended: adding keeps the width": lambda: torch.cat(
                (tokens, p.expand(batch, -1, -1, -1)), dim=-1
            ),
        },
        what="tokens plus positions",
    )
    learns(lambda tokens, module: module(tokens), tokens, module)
    spread, mean = p.std().item(), p.mean().item()
    if abs(mean) > 0.2 * spread:
        raise CheckFailed(
            f"the first positions have mean {mean:.3f} and standard deviation {spread:.3f}, expected 0 and 0.02: "
            "torch.randn is centred at 0, torch.rand runs from 0 to 1"
        )
    if not 0.015 < spread < 0.025:
        raise CheckFailed(
            f"the first positions have standard deviation {spread:.3g}, expected 0.02: multiply by it, "
            "0.02 * torch.randn(...), or say std=0.02"
        )
    if len(p.flatten(0, 2).unique(dim=0)) < nt * places:
        raise CheckFailed(
            "several places have the same vector: draw one for each place, of shape (nt, places, dim), and repeat none"
        )
    kept = torch.cat([q.detach().flatten() for q in found]).std().item()
    if abs(kept - spread) > 0.1 * spread:
        raise CheckFailed(
            f"the parameter has standard deviation {kept:.3f} and is scaled in forward: it would learn at another "
            "speed. Draw it with 0.02, and add it as it is"
        )
    for dtype in (torch.float64, torch.bfloat16):
        typed = build(positions, nt, places, dim).to(dtype)
        of_type(call(typed, tokens.to(dtype)), dtype, "tokens plus positions")
    check_similarity_map(similarity_map)
    passed("03.7", "one trained vector for each place, and a map that says which places are alike.")


# ---- 03.1


def check_loops(loops: Callable) -> None:
    for clip, tubelet in (
        (numbered(CHANNELS, *SIZE), TUBELET),
        (numbered(1, 3, 4, 5), (1, 2, 1)),
        (numbered(3, 8, 6, 10), (4, 3, 2)),
    ):
        (_, T, H, W), (pt, ph, pw) = clip.shape, tubelet
        whole = cut_by_loops(clip[None], tubelet)[0]  # [nt, S, V]

        def boxes(order, clip=clip, tubelet=tubelet):
            pt, ph, pw = tubelet
            return lambda: rearrange(clip, f"c (nt pt) (nh ph) (nw pw) -> {order}", pt=pt, ph=ph, pw=pw)

        close(
            call(loops, clip, tubelet),
            whole.flatten(0, 1),
            {
                "looks as if width were the slowest loop: time is the slowest and width the fastest": boxes(
                    "(nw nh nt) (c pt ph pw)"
                ),
                "looks as if width changed before height: time is the slowest loop, then height, then width": boxes(
                    "(nt nw nh) (c pt ph pw)"
                ),
                "looks as if space were the slower loop: time is the slowest": boxes("(nh nw nt) (c pt ph pw)"),
                "looks as if channels came last in a tubelet: slice all channels at once, then flatten": boxes(
                    "(nt nh nw) (pt ph pw c)"
                ),
                "looks as if the loops made steps of one voxel: a tubelet begins where the last one ended, so step by "
                "pt, ph and pw": lambda: torch.stack(
                    [
                        clip[:, t : t + pt, y : y + ph, x : x + pw].flatten()
                        for t in range(T - pt + 1)
                        for y in range(H - ph + 1)
                        for x in range(W - pw + 1)
                    ]
                ),
                "looks as if tubelet t began at voxel t: it begins at voxel t * pt, so count in steps of pt": (
                    lambda: torch.stack(
                        [
                            clip[:, t : t + pt, y : y + ph, x : x + pw].flatten()
                            for t in range(T // pt)
                            for y in range(H // ph)
                            for x in range(W // pw)
                        ]
                    )
                ),
                "the tubelets are still boxes: flatten each": boxes("(nt nh nw) c pt ph pw"),
                "only the first channel is cut": lambda: cut_by_loops(clip[None, :1], tubelet)[0].flatten(0, 1),
                "time and space have an axis each: the loops give one sequence, [N, C·pt·ph·pw]": lambda: whole,
            },
            what=f"cut_by_loops(clip, {tubelet})",
            tolerance=0,
        )
    examine(loops, lambda x, p: cut_by_loops(x[None], p)[0].flatten(0, 1), (clip, tubelet), what="cut_by_loops(...)")


def check_cut(cut: Callable) -> None:
    clips = numbered(BATCH, CHANNELS, *SIZE)
    pt, ph, pw = TUBELET

    def read_as(pattern, pt=pt, ph=ph, pw=pw):
        return lambda: rearrange(clips, pattern, pt=pt, ph=ph, pw=pw)

    start, axes = "b c (nt pt) (nh ph) (nw pw) -> ", (-1, *TUBELET)
    close(
        call(cut, clips, TUBELET),
        cut_by_loops(clips, TUBELET),
        {
            "looks as if the values were only given another shape: `view` and `reshape` move nothing, and the voxels "
            "of a tubelet do not lie side by side in the clip. Use rearrange": lambda: clips.reshape(
                BATCH, GRID[0], GRID[1] * GRID[2], -1
            ),
            "looks as if height and width of the grid were swapped: S is (nh nw), width being the fastest": read_as(
                start + "b nt (nw nh) (c pt ph pw)"
            ),
            "looks as if each axis were woven: in (nt pt) the place comes first and the voxel inside the tubelet "
            "second, not (pt nt)": read_as("b c (pt nt) (ph nh) (pw nw) -> b nt (nh nw) (c pt ph pw)"),
            "looks as if channels came last among a tubelet's values: the order is (c pt ph pw)": read_as(
                start + "b nt (nh nw) (pt ph pw c)"
            ),
            "looks as if height and width inside a tubelet were swapped: its values are in the order (c pt ph pw)": (
                read_as(start + "b nt (nh nw) (c pt pw ph)")
            ),
            "looks as if time came last among a tubelet's values: the order is (c pt ph pw)": read_as(
                start + "b nt (nh nw) (c ph pw pt)"
            ),
            "all tubelets are in one sequence: keep time apart from space, [B, nt, S, C·pt·ph·pw]": read_as(
                start + "b (nt nh nw) (c pt ph pw)"
            ),
            "height and width have an axis each: S = nh · nw is one axis, (nh nw)": read_as(
                start + "b nt nh nw (c pt ph pw)"
            ),
            "the voxels of a tubelet are still a box: put them in one axis, (c pt ph pw)": read_as(
                start + "b nt (nh nw) c pt ph pw"
            ),
            "space comes before time: the order is [B, nt, S, …]": read_as(start + "b (nh nw) nt (c pt ph pw)"),
            "the clips have become one long list: keep B as the first axis": read_as(
                start + "(b nt) (nh nw) (c pt ph pw)"
            ),
            "looks as if the tubelet's sizes were taken for the numbers of tubelets: give pt, ph, pw, not nt, nh, nw": (
                lambda: rearrange(clips, CUT_PATTERN, nt=axes[1], nh=axes[2], nw=axes[3])
            ),
        },
        what="cut(clips, tubelet)",
        tolerance=0,
    )
    one = numbered(1, 3, 8, 6, 10)
    close(call(cut, one, (4, 3, 2)), cut_by_loops(one, (4, 3, 2)), what="cut(...) of one clip", tolerance=0)
    examine(cut, cut_by_loops, (clips, TUBELET), what="cut(...)")


def check_join(join: Callable) -> None:
    clips = numbered(BATCH, CHANNELS, *SIZE)
    tubelets = cut_by_loops(clips, TUBELET)
    (nt, nh, nw), (pt, ph, pw) = GRID, TUBELET

    def read_as(pattern):
        return lambda: rearrange(tubelets, pattern, nt=nt, nh=nh, nw=nw, pt=pt, ph=ph, pw=pw)

    end = " -> b c (nt pt) (nh ph) (nw pw)"
    close(
        call(join, tubelets, GRID, TUBELET),
        clips,
        {
            "looks as if the values were only given another shape: `view` and `reshape` move nothing. Use rearrange": (
                lambda: tubelets.reshape(clips.shape)
            ),
            "looks as if height and width of the grid were swapped: S is (nh nw), width being the fastest": read_as(
                "b nt (nw nh) (c pt ph pw)" + end
            ),
            "looks as if each axis were woven: in (nt pt) the place comes first and the voxel inside the tubelet "
            "second, not (pt nt)": read_as("b nt (nh nw) (c pt ph pw) -> b c (pt nt) (ph nh) (pw nw)"),
            "looks as if channels came last among a tubelet's values: the order is (c pt ph pw)": read_as(
                "b nt (nh nw) (pt ph pw c)" + end
            ),
            "looks as if height and width inside a tubelet were swapped: its values are in the order (c pt ph pw)": (
                read_as("b nt (nh nw) (c pt pw ph)" + end)
            ),
            "looks as if time came last among a tubelet's values: the order is (c pt ph pw)": read_as(
                "b nt (nh nw) (c ph pw pt)" + end
            ),
            "channels come second, [B, C, T, H, W]": read_as(
                "b nt (nh nw) (c pt ph pw) -> b (nt pt) (nh ph) (nw pw) c"
            ),
        },
        what="join(...)",
        tolerance=0,
    )
    one = numbered(1, 3, 8, 6, 10)
    found = call(join, cut_by_loops(one, (4, 3, 2)), (2, 2, 5), (4, 3, 2))
    close(found, one, what="join(...) of one clip", tolerance=0)
    examine(
        join,
        lambda x, grid, p: rearrange(x, JOIN, nh=grid[1], nw=grid[2], pt=p[0], ph=p[1], pw=p[2]),
        (tubelets, GRID, TUBELET),
        what="join(...)",
    )


# ---- 03.2


def check_as_filters(as_filters: Callable) -> None:
    for width, channels, tubelet in ((7, CHANNELS, TUBELET), (6, 3, (2, 4, 3))):
        pt, ph, pw = tubelet
        E = numbered(width, channels * pt * ph * pw)
        folded = E.unflatten(1, (channels, pt, ph, pw))

        def read_as(pattern, E=E, channels=channels, pt=pt, ph=ph, pw=pw):
            return lambda: rearrange(E, f"{pattern} -> d c pt ph pw", c=channels, pt=pt, ph=ph, pw=pw)

        close(
            call(as_filters, E, tubelet),
            folded,
            {
                "looks as if channels came last among a row's values: the order is (c pt ph pw)": read_as(
                    "d (pt ph pw c)"
                ),
                "looks as if height and width were swapped: a row's values are in the order (c pt ph pw)": read_as(
                    "d (c pt pw ph)"
                ),
                "looks as if time came last: a row's values are in the order (c pt ph pw)": read_as("d (c ph pw pt)"),
                "looks as if time and width were swapped: a row's values are in the order (c pt ph pw)": read_as(
                    "d (c pw ph pt)"
                ),
                "looks as if E were transposed first: a row of E is a filter": lambda: E.T.reshape(folded.shape),
                "channels come before D: a filter bank is [D, C, pt, ph, pw]": lambda: folded.transpose(0, 1),
                "the axis of channels is missing: [D, C, pt, ph, pw], also when C is 1": lambda: folded.flatten(1, 2),
                "looks as if each filter were reversed: torch's convolution does not flip its filters": lambda: (
                    folded.flip(2, 3, 4)
                ),
            },
            what="as_filters(E, tubelet)",
            tolerance=0,
        )
        examine(as_filters, lambda E, p: E.unflatten(1, (-1, *p)), (E, tubelet), what="as_filters(...)")


# ---- 03.3


def build(module: type[nn.Module], *sizes: Any) -> nn.Module:
    """The reader's module of these sizes."""
    built = call(module, *sizes)
    if not isinstance(built, nn.Module):
        raise CheckFailed(f"expected a class that inherits from nn.Module, got {kind(built)}")
    if not hasattr(built, "_parameters"):
        raise CheckFailed("call super().__init__() first: without it nn.Module cannot register parameters")
    return built


def check_grid(module: nn.Module, grid: tuple[int, ...], clip_shape: Sequence[int], tubelet: Sequence[int]) -> None:
    what = f"self.grid for clips of {tuple(clip_shape)} and tubelets of {tuple(tubelet)}"
    if not hasattr(module, "grid"):
        raise CheckFailed("your module has no attribute grid: keep (nt, nh, nw) as self.grid")
    found = module.grid.tolist() if hasattr(module.grid, "tolist") else module.grid
    if not isinstance(found, (list, tuple)):
        raise CheckFailed(f"{what} is {kind(found)}, expected three whole numbers (nt, nh, nw)")
    if any(isinstance(n, float) for n in found):
        raise CheckFailed(f"{what} is {tuple(found)}: counts are whole numbers, so divide with // instead of /")
    found = tuple(int(n) for n in found)
    if found == tuple(grid):
        return
    if found == tuple(grid)[::-1]:
        raise CheckFailed(f"{what} is {found}: the axes are in reverse order, expected (nt, nh, nw)")
    if found == (grid[0], grid[1] * grid[2]):
        raise CheckFailed(f"{what} is {found}, which is (nt, S): keep all three, (nt, nh, nw)")
    if found == tuple(tubelet):
        raise CheckFailed(f"{what} is {found}, the tubelet's size: expected how many tubelets there are, {tuple(grid)}")
    raise CheckFailed(f"{what} is {found}, expected {tuple(grid)}")


def check_parameters(module: nn.Module, clip_shape: Sequence[int], dim: int, tubelet: Sequence[int]) -> None:
    values = clip_shape[0] * math.prod(tubelet)
    found = {name: list(p.shape) for name, p in module.named_parameters()}
    if not found:
        raise CheckFailed(
            "your module has no parameters, so E would never be trained: make the nn.Linear or nn.Conv3d in __init__ "
            "and assign it to self"
        )
    told = ", ".join(f"{name} {shape}" for name, shape in found.items())
    sizes = sorted(math.prod(shape) for shape in found.values())
    if sizes == [dim * values]:
        raise CheckFailed(
            f"your module has the parameters {told}: b is missing, one number for each of the {dim} rows of E"
        )
    if sizes != sorted((dim, dim * values)):
        hint = ": the channels are missing" if dim * values // clip_shape[0] in sizes and clip_shape[0] > 1 else ""
        raise CheckFailed(
            f"your module has the parameters {told}; expected E with {dim} · {values} numbers and b with {dim}, for "
            f"clips of {tuple(clip_shape)}, dim {dim} and tubelets of {tuple(tubelet)}{hint}"
        )
    if not all(p.requires_grad for p in module.parameters()):
        raise CheckFailed("a parameter has requires_grad=False: it would never be trained")


def copy_weights(reference: TubeletEmbedding, module: nn.Module) -> None:
    """The package's E and b in the reader's module, which may keep them as a Linear, a Conv3d or parameters."""
    weight, bias = reference.projection.weight.detach(), reference.projection.bias
    nn.init.normal_(bias, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        for p in module.parameters():
            if p.numel() == bias.numel():
                p.copy_(bias.view(p.shape))
            else:
                folded(p, weight.shape).copy_(weight)


def mistakes_of_order(
    reference: TubeletEmbedding, clips: torch.Tensor, grid: Sequence[int], tubelet: Sequence[int]
) -> dict[str, Callable[[], torch.Tensor]]:
    """What wrong axes give: {message: a function that computes it}."""
    maps = reference.projection(clips).detach()  # [B, D, nt, nh, nw]
    nt, nh, nw = grid
    weight, bias = reference.projection.weight.detach(), reference.projection.bias.detach()

    def as_tokens(pattern):
        return lambda: rearrange(maps, "b d nt nh nw -> " + pattern)

    def with_linear(tubelets):
        return lambda: F.linear(tubelets(), weight.flatten(1), bias)

    pt, ph, pw = tubelet
    return {
        "looks as if height and width of the grid were swapped: S is (nh nw), width being the fastest": as_tokens(
            "b nt (nw nh) d"
        ),
        "all tokens are in one sequence: keep time apart from space, [B, nt, S, D]": as_tokens("b (nt nh nw) d"),
        "height and width have an axis each: S = nh · nw is one axis, (nh nw)": as_tokens("b nt nh nw d"),
        "D comes last, [B, nt, S, D]: rearrange what the convolution returns, [B, D, nt, nh, nw]": lambda: maps,
        "space comes before time: the order is [B, nt, S, D]": as_tokens("b (nh nw) nt d"),
        "D comes last, [B, nt, S, D]": as_tokens("b d nt (nh nw)"),
        "looks as if the values were only given another shape: `view` and `reshape` move nothing, and D is not the "
        "last axis of what the convolution returns. Use rearrange": lambda: maps.reshape(len(maps), nt, nh * nw, -1),
        "looks as if the clip were only given another shape: the voxels of a tubelet do not lie side by side in it": (
            with_linear(lambda: clips.reshape(len(clips), nt, nh * nw, -1))
        ),
        "looks as if channels came last among a tubelet's values: the order is (c pt ph pw)": with_linear(
            lambda: rearrange(clips, "b c (nt pt) (nh ph) (nw pw) -> b nt (nh nw) (pt ph pw c)", pt=pt, ph=ph, pw=pw)
        ),
        "looks as if the convolution had no stride, so that it stops at every voxel: it moves by its own size, "
        "stride=tubelet": lambda: rearrange(F.conv3d(clips, weight, bias), "b d nt nh nw -> b nt (nh nw) d"),
        "looks as if b were missing": lambda: rearrange(
            F.conv3d(clips, weight, stride=tuple(tubelet)), "b d nt nh nw -> b nt (nh nw) d"
        ),
        "looks as if there were a non-linearity: the embedding is linear": lambda: as_tokens("b nt (nh nw) d")().relu(),
        "looks as if there were a GELU: the embedding is linear": lambda: F.gelu(as_tokens("b nt (nh nw) d")()),
    }


def check_refusal(embedding: type[nn.Module]) -> None:
    """One axis does not fit, the others do: each must be refused with a ValueError that names the sizes."""
    for axis, name in enumerate(("time", "height", "width")):
        size = [6, 8, 15]
        size[axis] += 1
        tubelet = (3, 4, 5)
        what = f"the clip shape {(2, *size)} with tubelets of {tubelet}"
        try:
            embedding((2, *size), 7, tubelet)
        except ValueError as error:
            if not all(str(number) in str(error) for number in (size[axis], tubelet[axis])):
                raise CheckFailed(
                    f"{what} is refused, but the message ({error}) does not name the sizes: say how large the clip and "
                    "the tubelet are"
                ) from None
        except Exception as error:
            raise CheckFailed(
                f"{what} raises {type(error).__name__}; expected a ValueError that names the sizes"
            ) from None
        else:
            raise CheckFailed(
                f"{what} is accepted, although a voxel is left over along {name} and would never be seen: raise a "
                "ValueError in __init__"
            )


# ---- 03.6


BRIGHT_ONLY = "an embedding that reads voxels above 0 only (take the gradient at the clip that is given)"


def check_voxels_read(voxels_read: Callable, clip_shape: Sequence[int], tubelet: Sequence[int]) -> None:
    clip = 10 * drawn(*clip_shape, seed=3).sign()
    numbers = numbered(1, *clip_shape)
    for what, embedding, cut in (
        ("the package's embedding", next(iter(sound_embeddings(clip_shape, tubelet).values())), cut_by_loops),
        (
            "an embedding that only reshapes the clip",
            next(iter(faulty_embeddings(clip_shape, tubelet).values())),
            lambda numbers, _: numbers.reshape(1, 2, 6, -1),
        ),
        (
            "an embedding whose tokens begin with a number that is always 0",
            first_number_empty(clip_shape, tubelet),
            cut_by_loops,
        ),
        (BRIGHT_ONLY, bright_only(clip_shape, tubelet), lambda numbers, p: cut_by_loops(numbers * (clip > 0), p)),
    ):
        for t, s in ((1, 2), (0, 5), (0, 0)):
            found = call(voxels_read, embedding, clip, t, s)
            name = f"voxels_read(embedding, clip, {t}, {s}) for {what}"
            found = torch.as_tensor(found) if hasattr(found, "__array__") else found
            if isinstance(found, torch.Tensor) and list(found.shape) == [1, *clip_shape]:
                raise CheckFailed(f"{name} has an axis for the batch: it is given one clip, return [C, T, H, W]")
            same_shape(found, clip_shape, name)
            if found.dtype != torch.bool:
                raise CheckFailed(f"{name} is {found.dtype}: say True or False for each voxel, gradient != 0")
            expected = torch.isin(numbers, cut(numbers, tubelet)[0, t, s])[0]
            if torch.equal(found, ~expected):
                raise CheckFailed(f"{name} is True for the voxels that are not read: True is for those that are")
            if found.all():
                raise CheckFailed(f"{name} is True everywhere: ask for the gradient of this one token only")
            if not found.any() and "begin with" in what:
                raise CheckFailed(f"{name} is False everywhere: look at all numbers of a token, not at the first alone")
            if not torch.equal(found, expected):
                raise CheckFailed(
                    f"{name} is wrong for {int((found != expected).sum())} of {found.numel()} voxels: take the "
                    f"gradient of the token at [t, s] = [{t}, {s}] with respect to the clip, and say where it is not 0"
                )


class AsWritten(nn.Module):
    """An embedding made of a function, with the grid that every embedding of the chapter has."""

    def __init__(self, grid: Sequence[int], function: Callable, *parts: nn.Module):
        super().__init__()
        self.grid, self.function, self.parts = tuple(grid), function, nn.ModuleList(parts)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.function(clips)


def grid_of(clip_shape: Sequence[int], tubelet: Sequence[int]) -> tuple[int, ...]:
    return tuple(n // step for n, step in zip(clip_shape[1:], tubelet))


def first_number_empty(clip_shape: Sequence[int], tubelet: Sequence[int]) -> nn.Module:
    """An embedding whose tokens hold 0, then the sum of their tubelet, then twice this sum."""

    def embed(clips):
        total = rearrange(clips, CUT_PATTERN, **dict(zip(("pt", "ph", "pw"), tubelet))).sum(dim=-1, keepdim=True)
        return torch.cat((0 * total, total, 2 * total), dim=-1)

    return AsWritten(grid_of(clip_shape, tubelet), embed)


def bright_only(clip_shape: Sequence[int], tubelet: Sequence[int]) -> nn.Module:
    """An embedding whose tokens are the sum of what is above 0 in their tubelet, once and twice."""

    def embed(clips):
        total = rearrange(clips.relu(), CUT_PATTERN, **dict(zip(("pt", "ph", "pw"), tubelet))).sum(dim=-1, keepdim=True)
        return torch.cat((total, 2 * total), dim=-1)

    return AsWritten(grid_of(clip_shape, tubelet), embed)


def sound_embeddings(clip_shape: Sequence[int], tubelet: Sequence[int]) -> dict[str, nn.Module]:
    """{what it is: an embedding in which each token reads its own tubelet and no more}."""
    pt, ph, pw = tubelet
    dim, values, grid = 6, clip_shape[0] * math.prod(tubelet), grid_of(clip_shape, tubelet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear, second = nn.Linear(values, dim), nn.Linear(dim, dim)
        package = TubeletEmbedding(tuple(clip_shape), dim, tuple(tubelet))
    return {
        "the package's TubeletEmbedding": package,
        "the cut by rearrange with nn.Linear": AsWritten(
            grid, lambda clips: linear(rearrange(clips, CUT_PATTERN, pt=pt, ph=ph, pw=pw)), linear
        ),
        "an embedding with a small MLP for the squares of each tubelet (take a random clip, not zeros)": AsWritten(
            grid,
            lambda clips: second(F.gelu(linear(rearrange(clips**2, CUT_PATTERN, pt=pt, ph=ph, pw=pw)))),
            linear,
            second,
        ),
    }


def faulty_embeddings(clip_shape: Sequence[int], tubelet: Sequence[int]) -> dict[str, nn.Module]:
    """{what is wrong: an embedding with this fault}; all return the right shape. The plainest faults come first."""
    channels, (pt, ph, pw) = clip_shape[0], tubelet
    nt, nh, nw = grid_of(clip_shape, tubelet)
    dim, values = 6, channels * math.prod(tubelet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        linear = nn.Linear(values, dim)
        package = TubeletEmbedding(tuple(clip_shape), dim, tuple(tubelet))
        frames = FrameEmbedding(tuple(clip_shape), dim, tuple(tubelet))
        small = nn.Conv3d(channels, dim, (pt - 1, ph, pw), stride=tuple(tubelet))
        large = nn.Conv3d(channels, dim, (pt, ph, pw + 2), stride=tuple(tubelet), padding=(0, 0, 1))
        grey = nn.Conv3d(1, dim, tuple(tubelet), stride=tuple(tubelet))

    def tokens(maps):
        return rearrange(maps, "b d nt nh nw -> b nt (nh nw) d")

    def exchanged(grid):  # the last two tokens
        return torch.cat((grid[:, :, :-2], grid[:, :, -2:].flip(2)), dim=2)

    def lame(grid):  # only the last time index is wrong
        return torch.cat((grid[:, :-1], exchanged(grid[:, -1:])), dim=1)

    def leaky(grid):
        return grid + torch.cat((torch.zeros_like(grid[:, :, :1]), grid[:, :, :-1]), dim=2)

    faults = {
        "the clip is only reshaped, so that a token reads lines of voxels across the clip": (
            lambda clips: linear(clips.reshape(len(clips), nt, nh * nw, -1)),
            linear,
        ),
        "height and width of the grid are swapped": (
            lambda clips: linear(
                rearrange(clips, "b c (nt pt) (nh ph) (nw pw) -> b nt (nw nh) (c pt ph pw)", pt=pt, ph=ph, pw=pw)
            ),
            linear,
        ),
        "time runs backwards": (lambda clips: package(clips).flip(1), package),
        "each token reads one frame of its tubelet and misses the others (uniform frame sampling)": (frames, frames),
        "the filters are a frame shorter than the stride, so that some voxels are never read": (
            lambda clips: tokens(small(clips)),
            small,
        ),
        "the filters are wider than the stride, so that a token reads voxels of its neighbours": (
            lambda clips: tokens(large(clips)),
            large,
        ),
        "only the first channel is read": (lambda clips: tokens(grey(clips[:, :1])), grey),
        "the mean of the whole clip is subtracted first, so that each token depends on every voxel": (
            lambda clips: package(clips - clips.mean(dim=(1, 2, 3, 4), keepdim=True)),
            package,
        ),
        "the clip is shifted by one voxel before it is cut": (lambda clips: package(clips.roll(1, dims=4)), package),
        "each token is added to the next one, too": (lambda clips: leaky(package(clips)), package),
        "only the very last two tokens have changed places: look at all of them": (
            lambda clips: lame(package(clips)),
            package,
        ),
    }
    return {what: AsWritten((nt, nh, nw), function, *parts) for what, (function, *parts) in faults.items()}


# ---- 03.7


def check_similarity_map(similarity_map: Callable) -> None:
    for grid, dim, place in (((2, 3, 4), 6, (1, 0, 2)), ((3, 2, 5), 9, (0, 1, 4))):
        positions = drawn(math.prod(grid), dim, seed=dim) * (1 + torch.arange(math.prod(grid)) % 4)[:, None] + 0.3
        number = (place[0] * grid[1] + place[1]) * grid[2] + place[2]
        unit, squares = F.normalize(positions, dim=-1), (positions**2).sum(dim=-1)  # [N, D], [N]
        centred = F.normalize(positions - positions.mean(dim=0), dim=-1)
        cosines = unit @ unit[number]  # [N]
        nt, nh, nw = grid

        def other(t, row, column, unit=unit, grid=grid):
            n = (t % grid[0] * grid[1] + row % grid[1]) * grid[2] + column % grid[2]
            return (unit @ unit[n]).view(grid)

        keepdim = "keepdim=True keeps the axis of the length, so that each vector is divided by its own"
        found = call_with_hints({"must match": keepdim}, similarity_map, positions, grid, place)
        found = torch.as_tensor(found) if hasattr(found, "__array__") else found
        of_type(found, positions.dtype, "the map")
        close(
            found,
            cosines.view(grid),
            {
                "these are dot products: divide each vector by its length first, so that only the direction counts": (
                    lambda: (positions @ positions[number]).view(grid)
                ),
                "looks as if each column were normalised instead of each vector: the length is taken over the last "
                "axis, dim=-1": lambda: (F.normalize(positions, dim=0) @ F.normalize(positions, dim=0)[number]).view(
                    grid
                ),
                "looks as if only the vector of the place were divided by its length: divide the others, too": lambda: (
                    positions @ unit[number]
                ).view(grid),
                "looks as if only the others were divided by their lengths: divide that of the place, too": lambda: (
                    unit @ positions[number]
                ).view(grid),
                "looks as if each vector were divided by the square of its length: divide by the length, the root": (
                    lambda: (positions / squares[:, None] @ (positions[number] / squares[number])).view(grid)
                ),
                "looks as if the dot products were divided by the square of one length: divide each vector by its "
                "own length": lambda: (positions @ positions[number] / squares[number]).view(grid),
                "looks as if all vectors were divided by one length, that of the whole table: each has its own, "
                "norm(dim=-1, keepdim=True)": lambda: (positions @ positions[number] / positions.norm() ** 2).view(
                    grid
                ),
                "these are distances: the map shows cosines, 1 for the same direction": lambda: (
                    (positions - positions[number]).norm(dim=-1).view(grid)
                ),
                "a softmax follows: the map shows plain cosines": lambda: cosines.softmax(dim=0).view(grid),
                "looks as if the mean position were subtracted first: take the positions as they are": lambda: (
                    centred @ centred[number]
                ).view(grid),
                "looks as if height and width of the grid were swapped": lambda: cosines.view(nt, nw, nh).transpose(
                    1, 2
                ),
                "the map still has only one axis: give it the grid, [nt, nh, nw]": lambda: cosines,
                "all pairs are compared: the map is for the one place that is given": lambda: unit @ unit.T,
                "space is one axis: give it the grid, [nt, nh, nw]": lambda: cosines.view(nt, nh * nw),
                "looks as if the place were read in reverse: it is (t, row, column), time first": (
                    lambda: other(*place[::-1])
                ),
                "looks as if row and column of the place were swapped: it is (t, row, column)": lambda: other(
                    place[0], place[2], place[1]
                ),
                "looks as if the place's number were t + row + column: a step in time passes nh · nw places": lambda: (
                    unit @ unit[sum(place)]
                ).view(grid),
            },
            what=f"similarity_map(positions, {grid}, {place})",
        )


# ---- what the checks need


def numbered(*shape: int) -> torch.Tensor:
    """A number of its own for every entry, small enough for float32 and none of them 0."""
    return torch.arange(1, math.prod(shape) + 1, dtype=torch.float32).view(shape)


def cut_by_loops(clips: torch.Tensor, tubelet: Sequence[int]) -> torch.Tensor:
    """[B, C, T, H, W] -> [B, nt, S, C·pt·ph·pw], as the chapter's loops do."""
    pt, ph, pw = tubelet
    indices = [
        torch.stack(
            [
                clips[:, :, t : t + pt, y : y + ph, x : x + pw].flatten(1)
                for y in range(0, clips.shape[3], ph)
                for x in range(0, clips.shape[4], pw)
            ],
            dim=1,
        )
        for t in range(0, clips.shape[2], pt)
    ]
    return torch.stack(indices, dim=1)


def same(a: Any, b: Any) -> bool | None:
    """Whether two tensors are equal; None where they are not two tensors of one shape."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor) or a.shape != b.shape:
        return None
    return bool(torch.equal(a, b))


def of_type(found: Any, dtype: torch.dtype, what: str) -> None:
    if not isinstance(found, torch.Tensor):
        raise CheckFailed(f"{what} is {kind(found)}, expected a tensor")
    if found.dtype != dtype:
        raise CheckFailed(
            f"for {dtype} input {what} is {found.dtype}: keep the type of what is given (no .float(), no new tensor "
            "without dtype=…)".replace("torch.", "")
        )
