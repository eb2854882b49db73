"""Checks of chapter 02: frames seen by a stack of convolutions, two resolutions, many views of one video."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..ready import ch02 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, kind, number, pair, passed, same_shape

# ---- 02.1


@exercise
def check_frames_seen(frames_seen: Callable) -> None:
    """frames_seen([(span, step), …]) -> how many frames one feature sees after each layer, a list."""
    cases = [[(4, 2), (2, 2), (2, 2)], [(3, 1), (3, 1)], [(1, 1), (5, 3), (1, 2), (2, 1)]]
    for layers in cases:
        found = call(frames_seen, list(layers))
        seen, stride, expected = 1, 1, []
        for span, step in layers:
            seen, stride = seen + (span - 1) * stride, stride * step
            expected.append(seen)
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, (list, tuple)):
            raise CheckFailed(f"the result is {kind(found)}: a list is expected, one number for each layer")
        found = [number(value, "a number of frames") for value in found]
        if list(found) != expected:
            raise CheckFailed(name_mistake(layers, list(found), expected))
    more = ([(3, 3)],), ([(2, 1), (2, 1), (6, 2), (1, 5), (3, 1)],)
    examine(frames_seen, finished.frames_seen, *more, what="the answer")
    passed("02.1", "each layer adds (span - 1) steps, as long as all strides before it make them.")


def name_mistake(layers: Sequence[tuple[int, int]], found: list[float], expected: list[int]) -> str:
    spans, steps = [span for span, _ in layers], [step for _, step in layers]
    no_stride, own_stride, product = [], [], []
    seen, stride, by_own, times = 1, 1, 1, 1
    for span, step in zip(spans, steps):
        seen += span - 1
        no_stride.append(seen)
        stride *= step
        by_own += (span - 1) * stride
        own_stride.append(by_own)
        times *= span
        product.append(times)
    asked = f"for the layers {layers} your answer is {found}, right is {expected}: "
    if len(found) != len(layers):
        return asked + "one number a layer is expected, the frames seen so far"
    if found == [expected[-1]] * len(layers) or found == expected[::-1]:
        return asked + "begin at the clip and go on layer by layer"
    if found == no_stride:
        return asked + "the strides are left out: after a stride of 2, neighbours lie two frames apart"
    if found == own_stride:
        return asked + "a layer's own stride counts only for the layers after it"
    if found == product:
        return asked + "spans do not multiply: neighbouring features share frames, so a layer adds (span - 1) steps"
    if found == spans:
        return asked + "these are the spans in features of the layer before, not in frames of the clip"
    if [f + 1 for f in found] == expected:
        return asked + "one feature of no layer at all is one frame: begin with 1, not with 0"
    return asked + "keep two numbers, the frames seen and how far apart neighbouring features lie"


# ---- 02.2


@exercise
def check_two_streams(two_streams: Callable) -> None:
    """two_streams(clips [B, C, T, H, W]) -> context, fovea: each [B, C, T, H/2, W/2]."""
    clips = torch.rand(3, 2, 4, 10, 14, generator=torch.Generator().manual_seed(2))
    found = pair(call(two_streams, clips), "context, fovea")
    context = (clips[..., ::2, ::2] + clips[..., 1::2, ::2] + clips[..., ::2, 1::2] + clips[..., 1::2, 1::2]) / 4
    fovea = clips[..., 2:7, 3:10]
    close(
        found[0],
        context,
        {
            "this is the fovea: the context comes first": fovea,
            "every second pixel was taken: the paper halves the resolution, which takes the mean of 2×2 pixels": clips[
                ..., ::2, ::2
            ],
            "time was halved, too: a context at half resolution has all frames": torch.nn.functional.avg_pool3d(
                clips, 2
            ),
            "the largest of 2×2 pixels was taken: the resolution is halved by their "
            "mean": torch.nn.functional.max_pool3d(clips, (1, 2, 2)),
        },
        what="context",
    )
    close(
        found[1],
        fovea,
        {
            "this is the corner at the top left: the fovea is the middle": clips[..., :5, :7],
            "this is the context at half resolution: the fovea has the full one": context,
            "the fovea is a quarter too small: it is half as high and half as wide as the frame": clips[..., 3:5, 5:8],
            "the fovea ends at H - H // 4, which is half of the frame only where 4 divides it: "
            "it begins at H // 4 and is "
            "H // 2 long": clips[..., 2:8, 3:11],
        },
        what="fovea",
    )
    cases = (drawn(2, 1, 3, 6, 14),), (drawn(1, 3, 1, 4, 2),), (drawn(1, 2, 5, 12, 18),)
    examine(two_streams, finished.two_streams, *cases, what="context, fovea")
    passed("02.2", "together they hold half of the frame's pixels, and the middle in full.")


# ---- 02.3


@exercise
def check_video_probabilities(video_probabilities: Callable) -> None:
    """video_probabilities(logits [V, K] of the views of one video) -> probabilities [K]."""
    logits = 4 * torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    found = call(video_probabilities, logits)
    expected = torch.stack([row.softmax(0) for row in logits]).mean(0)
    same_shape(found, expected, "the probabilities")
    votes = torch.bincount(logits.argmax(1), minlength=3) / 5
    close(
        found,
        expected,
        {
            "the logits were averaged, not the probabilities: softmax first, then the mean": logits.mean(0).softmax(0),
            "these are logits: softmax makes probabilities of them": logits.mean(0),
            "softmax ran over the views: each view's classes must sum to 1 (dim=1)": logits.softmax(0).mean(0),
            "only one view was taken: all of them count": logits[0].softmax(0),
            "each view cast a vote: how sure it is counts, too": votes,
            "the probabilities were added: divide by the number of views": expected * 5,
            "the most certain view decides here: take the mean, not the maximum": logits.softmax(1).amax(0),
        },
        what="the probabilities",
    )
    cases = (drawn(4, 7),), (drawn(1, 2),), (9 * drawn(6, 3),)
    examine(video_probabilities, finished.video_probabilities, *cases, what="the probabilities")
    passed("02.3", "each view's probabilities, averaged.")
