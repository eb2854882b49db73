"""Checks of chapter 02: a 3D convolution by hand, how many frames a feature sees, Karpathy's networks, a CNN applied to
each frame, and the CNN with attention.

A module is checked by its parts: the expected output is put together from the parts that the reader's module owns, and
their weights are then copied into the package's model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from operator import index

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...cnn import FUSIONS, MEAN_GREY
from ...models import build_model
from ..ready import ch02 as finished
from . import CheckFailed, call, close, drawn, examine, exercise, kind, number, pair, passed
from .calling import call_with_hints
from .parity import projections

# Sizes that differ on every axis, and none of which is the notebook's
CLIP, CLASSES = (2, 7, 8, 12), 5
ONE_CLIP = "a network takes a batch of clips: torch.zeros(1, *clip_shape) is a batch of one"
ONE_FRAME = (
    "F.conv2d takes frames [B, C, H, W] and a filter [D, C, f, f]: clips[:, :, t] is one frame of each clip, "
    "weight[:, :, k] one slice of each filter"
)


# ---- 02.1


@exercise
def check_conv3d(conv3d: Callable) -> None:
    """conv3d(clips [B, C, T, H, W], weight [D, C, span, f, f], bias [D], step) -> [B, D, T', H, W]."""

    def right(clips, weight, bias, step):
        return F.conv3d(clips, weight, bias, (step, 1, 1), (0, weight.shape[3] // 2, weight.shape[4] // 2))

    def without_bias(clips, weight, bias, step):
        return right(clips, weight, None, step)

    def time_padded(clips, weight, bias, step):
        return F.conv3d(clips, weight, bias, (step, 1, 1), tuple(size // 2 for size in weight.shape[2:]))

    examine(
        conv3d,
        right,
        (drawn(2, 3, 9, 6, 7), drawn(4, 3, 3, 5, 5, seed=1), drawn(4, seed=2), 2),
        (drawn(3, 1, 9, 2, 5), drawn(2, 1, 2, 1, 1, seed=1), drawn(2, seed=2), 3),  # one frame is left over
        (drawn(1, 2, 5, 4, 3), drawn(3, 2, 5, 3, 3, seed=1), drawn(3, seed=2), 3),  # the filter spans the whole clip
        (drawn(1, 2, 3, 3, 4), drawn(5, 2, 1, 3, 3, seed=1), drawn(5, seed=2), 1),  # a filter of one frame
        mistakes={
            "the filter runs backwards in time: its first slice belongs to the earliest frame": lambda x, w, b, s: (
                right(x, w.flip(2), b, s)
            ),
            "the bias was added with every frame: it is added once to the sum": lambda x, w, b, s: right(
                x, w, b * w.shape[2], s
            ),
            "the bias is missing": without_bias,
            "the results of the frames were averaged: add them up": lambda x, w, b, s: right(x, w / w.shape[2], b, s),
            "all frames got the first slice of the filter: frame start + k gets slice k": lambda x, w, b, s: right(
                x, w[:, :, :1].expand_as(w), b, s
            ),
            "only the first slice of the filter was used: a filter has `span` of them, for frames that follow each "
            "other": lambda x, w, b, s: right(x[:, :, : x.shape[2] - w.shape[2] + 1], w[:, :, :1], b, s),
            "the step is left out: windows begin `step` frames apart": lambda x, w, b, s: right(x, w, b, 1),
            "the last window is missing: the last one begins at T - span": lambda x, w, b, s: right(
                x[:, :, :-1], w, b, s
            ),
            "time was padded too: a window must lie inside the clip": time_padded,
            "the edges of the frames were lost: pad H and W by f // 2 on each side": lambda x, w, b, s: F.conv3d(
                x, w, b, (s, 1, 1)
            ),
            "H and W were strided too: only time has the step": lambda x, w, b, s: right(x, w, b, s)[..., ::s, ::s],
            "the axes of time and channels have changed places: stack along dim=2": lambda x, w, b, s: right(
                x, w, b, s
            ).transpose(1, 2),
            "time comes last: stack along dim=2": lambda x, w, b, s: right(x, w, b, s).movedim(2, -1),
        },
        errors={
            "Expected 3D (unbatched) or 4D": ONE_FRAME,
            "match the convolution dimensions": ONE_FRAME,
            "non-empty TensorList": "there was no window: the last one begins at T - span",
            "expected input": ONE_FRAME,
            "to have": ONE_FRAME,
            "must match": "a bias [D] meets features [B, D, H, W]: bias[:, None, None]",
            "out of range": "the last window begins at T - span",
            "out of bounds": "the last window begins at T - span",
        },
        what="the features",
    )
    passed("02.1", "equal to nn.Conv3d: a 3D filter is one 2D filter per frame, and the results are added.")


# ---- 02.2


@exercise
def check_frames_seen(frames_seen: Callable) -> None:
    """frames_seen([(span, step), …]) -> how many frames one feature sees after each layer, a list."""
    # No step is longer than its span, so no frame is skipped: counting the frames gives the same as the formula
    for layers in ([(4, 2), (2, 2), (2, 2)], [(3, 1), (3, 1)], [(1, 1), (5, 3), (3, 2), (2, 1)]):
        found, expected = call(frames_seen, list(layers)), finished.frames_seen(layers)
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, (list, tuple)):
            raise CheckFailed(_of_another_kind(found, "a list is expected, one number for each layer"))
        found = [number(value, "a number of frames") for value in found]
        if list(found) != expected:
            asked = f"for the layers {layers} your answer is {found}, the right one is {expected}: "
            raise CheckFailed(asked + _mistake_in_frames(layers, found, expected))
    more = ([(3, 3)],), ([(2, 1), (2, 1), (6, 2), (4, 3), (1, 1), (3, 1)],)
    examine(frames_seen, finished.frames_seen, *more, what="the answer")
    passed("02.2", "each layer adds (span - 1) steps, and a step is as long as the product of all strides before it.")


def _of_another_kind(found, expected):
    """A message for a result of another kind; for None, which says itself what to do, without what is expected."""
    return f"the result is {kind(found)}{'' if found is None else f': {expected}'}"


def _mistake_in_frames(layers, found, expected):
    spans, steps = [span for span, _ in layers], [step for _, step in layers]
    own_stride, product, seen, apart, times = [], [], 1, 1, 1
    for span, step in layers:
        apart, times = apart * step, times * span
        seen += (span - 1) * apart
        own_stride.append(seen)
        product.append(times)
    if len(found) != len(layers):
        return "expected one number per layer, the frames seen so far"
    if found == [expected[-1]] * len(layers) or found == expected[::-1]:
        return "begin at the clip and go on layer by layer"
    if found == finished.frames_seen([(span, 1) for span in spans]):
        return "the strides are left out: after a stride of 2, neighbours lie two frames apart"
    if found == own_stride:
        return "a layer's own stride counts only for the layers after it"
    if found == product:
        return "spans do not multiply: neighbouring features share frames, so a layer adds (span - 1) steps"
    if found in (spans, steps):
        return f"these are the {'spans' if found == spans else 'strides'} of the layers, not frames of the clip"
    if [n + 1 for n in found] == expected:
        return "before any layer a feature is one frame: begin with 1, not with 0"
    return "keep two numbers, the frames seen and how far apart neighbouring features lie"


# ---- 02.3


@exercise
def check_tower(tower: Callable) -> None:
    """tower(channels, spans) -> the backbone's layers as one module, [B, C, T, H, W] -> [B, 64, T', H', W']."""
    no_more = "there are fewer spans than convolutions, and without one it is (1, 1)"
    hints = {
        "StopIteration": f"{no_more}: next(spans, (1, 1))",
        "index out of range": no_more,
        "pop from empty": no_more,
        "list is not a Module": "unpack the list: nn.Sequential(*parts)",
        "non-empty 3D or 4D": "the features have an axis of time, [B, C, T, H, W]: nn.MaxPool3d((1, 2, 2))",
    }
    for channels, spans in ((2, [(3, 2), (2, 1)]), (1, []), (3, [(4, 2), (2, 2), (2, 2)])):
        module = call_with_hints(hints, tower, channels, list(spans))
        if not isinstance(module, nn.Module):
            raise CheckFailed(_of_another_kind(module, "put the layers into one module, nn.Sequential(*parts)"))
        wanted = finished.tower(channels, spans)
        _same_convolutions(module, wanted, f"tower({channels}, {spans})")
        _same_weights(module, wanted)
        for clips in (drawn(2, channels, 12, 12, 16), drawn(1, channels, 9, 8, 8, seed=1)):
            found = call_with_hints(hints, module.forward, clips)
            mistakes = {message: _lazily(parts, clips) for message, parts in _other_towers(wanted).items()}
            with torch.no_grad():
                close(found, wanted(clips), mistakes, what="the features", tolerance=1e-4)
    passed("02.3", "one backbone, and its first convolutions span as many frames as you ask for.")


def _lazily(parts, clips):
    return lambda: nn.Sequential(*parts)(clips)


def _convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv3d)]


def _same_convolutions(module, wanted, asked):
    found, expected = _convolutions(module), _convolutions(wanted)
    if len(found) != len(expected):
        raise CheckFailed(
            f"{asked} has {len(found)} convolutions, expected {len(expected)}: one Convolution for each C of LAYERS"
        )
    for k, (one, other) in enumerate(zip(found, expected), 1):
        hints = {
            "in_channels": "it takes what the convolution before it gives: keep the number of channels in a variable",
            "out_channels": "d of C(d,f,s)",
            "kernel_size": "(span, f, f); spans[0] is that of the first convolution, and without one it is 1",
            "stride": "(step, s, s), where the step in time is the second number of a span and otherwise 1",
            "padding": "the Convolution above pads H and W by f // 2",
        }
        for name, hint in hints.items():
            if getattr(one, name) != getattr(other, name):
                raise CheckFailed(
                    f"convolution {k} of {asked} has {name} {getattr(one, name)}, expected {getattr(other, name)}: "
                    + hint
                )


def _same_weights(module, wanted):
    for one, other in zip(_convolutions(module), _convolutions(wanted)):
        nn.init.normal_(other.bias, std=0.3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            one.bias.copy_(other.bias)
        one.load_state_dict(other.state_dict())


def _other_towers(tower):
    """{mistake: the layers of a tower that makes it}, with the same weights."""

    class Cropped(nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, clips):
            part = self.part
            return F.conv3d(clips, part.weight, part.bias, part.stride, part.padding)

    def swapped(old, new):
        return [new(part) if isinstance(part, old) else part for part in tower]

    norm = type(next(part for part in tower if isinstance(part, nn.LocalResponseNorm)))
    pools = [part for part in tower if isinstance(part, nn.MaxPool3d)]
    return {
        "a ReLU follows every convolution": [part for part in tower if not isinstance(part, nn.ReLU)],
        "the last convolution has no ReLU: one follows every convolution": list(tower)[:-1],
        "the normalisation is missing: LocalResponseNorm for each N": [p for p in tower if not isinstance(p, norm)],
        "the pooling is missing: nn.MaxPool3d((1, 2, 2)) for each P": [p for p in tower if p not in pools],
        "the pooling halves time as well: nn.MaxPool3d((1, 2, 2))": swapped(nn.MaxPool3d, lambda _: nn.MaxPool3d(2)),
        "the pooling takes the mean: P is the maximum": swapped(nn.MaxPool3d, lambda _: nn.AvgPool3d((1, 2, 2))),
        "frames at the end are lost: take the Convolution above, which adds frames of zeros": swapped(
            nn.Conv3d, Cropped
        ),
        "the normalisation has other numbers: LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2)": swapped(
            norm, lambda _: nn.LocalResponseNorm(5)
        ),
    }


# ---- 02.4


@exercise
def check_fusion_plan(fusion_plan: Callable) -> None:
    """fusion_plan(name, frames) -> which frames are taken, and (span, step) of the first convolutions."""
    for t in (28, 10, 15, 12):
        for name, plan in FUSIONS.items():
            frames, spans = _plan(call(fusion_plan, name, t), name, t)
            right_frames, right_spans = (list(part) for part in plan(t))
            if frames != right_frames:
                raise CheckFailed(
                    f'fusion_plan("{name}", {t}) takes the frames {_short(frames)}, expected {_short(right_frames)}: '
                    + _mistake_in_taken(name, t, frames)
                )
            if spans != right_spans:
                raise CheckFailed(
                    f'fusion_plan("{name}", {t}) gives the spans {spans}, expected {right_spans}: '
                    + _mistake_in_spans(name, spans)
                )
    passed("02.4", "four networks that differ in two lists.")


def _plan(returned, name, t):
    frames, spans = pair(returned, "frames, spans")
    try:
        taken, spans = list(frames), [(span, step) for span, step in spans]
        for value in [*taken, *(part for both in spans for part in both)]:
            if isinstance(value, (float, np.floating)) or (torch.is_tensor(value) and value.is_floating_point()):
                raise CheckFailed(
                    f'fusion_plan("{name}", {t}) gives {float(value)}, a float: frames, spans and steps are of type '
                    "int, so divide by //"
                )
        return [index(frame) for frame in taken], [(index(span), index(step)) for span, step in spans]
    except (TypeError, ValueError):
        raise CheckFailed(
            f'fusion_plan("{name}", {t}) gives {frames!r} and {spans!r}: expected a list of frames, [0, 1, …], and a '
            "list of pairs (span, step), [(4, 2), …], or [] where every convolution looks at one frame"
        ) from None


def _short(frames):
    return str(frames) if len(frames) <= 4 else f"[{frames[0]}, {frames[1]}, …, {frames[-1]}] ({len(frames)} of them)"


def _mistake_in_taken(name, t, frames):
    if name == "late_fusion":
        if frames == [t // 6, t - t // 6]:
            return "the last frame has the number T - 1, so the second one is T - 1 - T // 6"
        if frames == [0, t - 1]:
            return "the two frames lie T // 6 from both ends, not at the ends"
        return "two frames, T // 6 from the beginning and T // 6 from the end"
    if name == "single_frame":
        return "the one in the middle, number T // 2, in a list"
    if len(frames) == 28 or frames[-1:] == [27]:
        return "the number of frames is an argument, not always 28"
    return "all frames, 0 to T - 1"


def _mistake_in_spans(name, spans):
    if name == "early_fusion":
        return "the first convolution spans all T frames, at step 1; T is an argument"
    if name == "slow_fusion":
        turned = [(step, span) for span, step in spans] == [(4, 2), (2, 2), (2, 2)]
        return "a pair is (span, step)" if turned else "4 frames, then 2, then 2, each at a stride of 2"
    return "no convolution spans more than one frame, which is the empty list"


# ---- 02.5


@exercise
def check_fusion(Fusion: Callable) -> None:
    """Fusion(name, clip_shape, classes) maps clips to logits, as the package's model with the same weights does."""
    for name in FUSIONS:
        model = _module(
            Fusion, name, CLIP, CLASSES, hints={"must match the size": ONE_CLIP, "expected input": ONE_CLIP}
        )
        taken = list(FUSIONS[name](CLIP[1])[0])
        tower, classifier = _part(model, "tower"), _part(model, "classifier")
        _trainable(model)
        _biases(model)
        features = tower(torch.zeros(1, CLIP[0], len(taken), *CLIP[2:])).numel()
        first = next((part for part in classifier.modules() if isinstance(part, nn.Linear)), None)
        if first is None or first.in_features != features:
            raise CheckFailed(
                f'the classifier of Fusion("{name}", {CLIP}, …) begins with {first}, but the tower gives {features} '
                "features in all for the frames that this network takes"
            )
        _one_logit_per_class(classifier(torch.zeros(1, features)))

        def right(clips, frames=taken, grey=MEAN_GREY):
            return classifier(tower(clips[:, :, frames] - grey).flatten(1))

        def seen(clips, grey=MEAN_GREY, taken=taken, tower=tower):
            return tower(clips[:, :, taken] - grey).flatten(1)

        def on_a_grid(clips, taken=taken, tower=tower):
            return tower(clips[:, :, taken] - MEAN_GREY)

        mistakes = {
            "these are the frames of a clip with as many frames as channels: clip_shape is (C, T, H, W), so T is its "
            "second number": lambda clips: right(clips, list(FUSIONS[name](CLIP[0])[0])),
            "117 is the mean of grey values from 0 to 255, and these clips lie in [0, 1]: subtract MEAN_GREY": (
                lambda clips: right(clips, grey=117)
            ),
            "the mean grey is not subtracted: clips[:, :, frames] - MEAN_GREY": lambda clips: right(clips, grey=0),
            "the mean grey is added: subtract it": lambda clips: right(clips, grey=-MEAN_GREY),
            "the frames are in reverse order": lambda clips: right(clips.flip(2), [len(taken) and t for t in taken]),
            "other frames are taken: those with the numbers that fusion_plan gives": lambda clips: right(
                clips, range(len(taken))
            ),
            "a softmax follows: the loss takes logits and applies it itself": lambda clips: right(clips).softmax(1),
            "the features were flattened in another order: features.flatten(1)": lambda clips: classifier(
                tower(clips[:, :, taken] - MEAN_GREY).movedim(1, -1).flatten(1)
            ),
            "all frames went through the tower alike": lambda clips: right(clips, range(CLIP[1])),
        }
        examine(
            model.forward,
            right,
            (drawn(3, *CLIP).sigmoid(),),
            (drawn(1, *CLIP, seed=1).sigmoid(),),
            mistakes=mistakes,
            errors={"cannot be multiplied": "send a clip of zeros through the tower to see how many features it gives"},
            what=f'the logits of Fusion("{name}", …)',
            tolerance=1e-4,
            dtypes=(),
            also=list(model.parameters()),
        )
        examine(
            getattr(model, "see", None) or _no_see,
            seen,
            (drawn(3, *CLIP).sigmoid(),),
            mistakes={
                "the features are still on a grid: `see` flattens them to [B, n]": on_a_grid,
                "`see` subtracts MEAN_GREY, before the tower": lambda clips: seen(clips, grey=0),
            },
            what=f'the features of Fusion("{name}", …).see',
            tolerance=1e-4,
            gradients=False,
            dtypes=(),
        )
        _alike_in_training(model, CLIP, f'Fusion("{name}", …)', "make the classifier with dropout=0.0")
        _in_double(model, CLIP)
        _agree(model, _fusion_in_the_package(model, name, CLIP, CLASSES), CLIP, f'Fusion("{name}", …)')
    passed("02.5", "the package's four networks, with the same weights.")


# ---- 02.6


@exercise
def check_frame_by_frame(frame_by_frame: Callable) -> None:
    """frame_by_frame(cnn, clips [B, C, T, H, W]) -> [B, T, D], the CNN applied to each frame."""

    def right(cnn, clips):
        return torch.stack([cnn(clip.transpose(0, 1)).flatten(1) for clip in clips])

    def as_found(cnn, clips):
        b, c, t, h, w = clips.shape
        return cnn(clips.reshape(b * t, c, h, w)).reshape(b, t, -1)

    def time_outside(cnn, clips):
        b, _, t, _, _ = clips.shape
        return cnn(clips.permute(2, 0, 1, 3, 4).flatten(0, 1)).reshape(b, t, -1)

    def example(channels, width, seed=0):
        cnn = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
        with torch.no_grad():
            for part in cnn.parameters():
                part.copy_(drawn(*part.shape, seed=seed))
        return cnn

    examine(
        frame_by_frame,
        right,
        (example(3, 2), drawn(2, 3, 5, 4, 6)),
        (example(1, 4, seed=1), drawn(1, 1, 7, 2, 4, seed=1)),
        (example(2, 3, seed=2), drawn(3, 2, 1, 6, 2, seed=2)),
        mistakes={
            'this is the function as you found it: print what one "frame" holds when C is 3. In memory the order is '
            "b, c, t, h, w, and reshape does not move axes": as_found,
            "the frames are right, but clips and times have changed places: fold as (b t) and unfold as (b t)": (
                time_outside
            ),
            "clips and times have changed places in the result, which is [B, T, D]": lambda cnn, x: right(
                cnn, x
            ).transpose(0, 1),
            "the frames were averaged: return the features of each": lambda cnn, x: right(cnn, x).mean(1),
            "the features come in reverse order": lambda cnn, x: right(cnn, x).flip(1),
            "channels and height were exchanged: move T only": lambda cnn, x: cnn(
                x.permute(0, 2, 3, 1, 4).flatten(0, 1)
            ).reshape(len(x), x.shape[2], -1),
            "the result is [B·T, D]: unfold it again": lambda cnn, x: right(cnn, x).flatten(0, 1),
            "the result is [B, D, T]: features come last": lambda cnn, x: right(cnn, x).transpose(1, 2),
            "only one frame of each clip went through the CNN": lambda cnn, x: right(
                cnn, x[:, :, x.shape[2] // 2, None]
            ),
            "every frame of a clip has the features of its first one": lambda cnn, x: right(cnn, x[:, :, :1]).expand(
                -1, x.shape[2], -1
            ),
        },
        errors={
            "3D (unbatched) or 4D": "the CNN takes images [·, C, H, W]: put time into the batch first",
            "to have": "the CNN takes images [·, C, H, W]: C must be the second axis",
            "view size is not compatible": "view refuses axes that were moved: take reshape or flatten",
        },
        what="the features",
    )
    examine(
        frame_by_frame,
        right,
        (nn.Conv2d(2, 3, 1), drawn(2, 2, 4, 3, 5, seed=3)),
        mistakes={
            "the features are still on their grid: whatever the CNN returns for a frame, make one vector of it": (
                lambda cnn, x: right(cnn, x).unflatten(2, (3, *x.shape[3:]))
            ),
            "the features were averaged over the grid: keep all of them, as one vector": (
                lambda cnn, x: right(cnn, x).unflatten(2, (3, -1)).mean(3)
            ),
            "the features come in another order: flatten [D, H, W] as it is": (
                lambda cnn, x: right(cnn, x).unflatten(2, (3, -1)).mT.flatten(2)
            ),
        },
        errors={
            "invalid for input": "the CNN's features may still be on a grid: [·, D, H', W'] becomes one vector each"
        },
        what="the features of a CNN that keeps the grid",
    )
    passed("02.6", "each frame keeps its own channels, in clips of any number of them.")


# ---- 02.7


@exercise
def check_cnn_attention(CNNAttention: Callable) -> None:
    """CNNAttention(clip_shape, classes, dim, depth) maps clips to logits, as the package's with the same weights."""
    dim, depth = 8, 3
    to_tokens = "the features [B, 64, T', H', W'] become tokens [B, N, 64]: flatten(2), then transpose"

    def mean(z):
        return z.mean(dim=1)

    def in_order(features):
        return features.flatten(2).mT

    shape = (2, 5, 16, 24)
    model = _module(CNNAttention, shape, CLASSES, dim, depth, hints={"must match the size": ONE_CLIP})
    for name in ("tower", "projection", "encoder", "head"):
        _part(model, name)
    if not isinstance(model.encoder, nn.TransformerEncoder) or not model.encoder.layers[0].self_attn.batch_first:
        raise CheckFailed("`encoder` must be attention_layers(dim, depth), which takes tokens [B, N, D]")
    if len(model.encoder.layers) != depth:
        raise CheckFailed(f"with depth={depth} the encoder has {len(model.encoder.layers)} layers")
    n = 3 * 2 * 3
    parts = {
        "tower": ((1, 2, 3, 16, 24), (1, 64, 3, 2, 3), "your tower with spans [] and one more pooling at its end"),
        "projection": ((1, n, 64), (1, n, dim), "take nn.Linear(64, dim)"),
        "encoder": ((1, n, dim), (1, n, dim), "take attention_layers(dim, depth)"),
        "head": ((1, dim), None, "take nn.Linear(dim, classes)"),
    }
    for name, (given, expected, hint) in parts.items():
        found = _made_by(model, name, given, hint)
        if expected is None:
            _one_logit_per_class(found)
        elif list(found.shape) != list(expected):
            raise CheckFailed(f"`{name}` makes {list(found.shape)} of {list(given)}, expected {list(expected)}: {hint}")
    positions = getattr(model, "positions", None)
    if positions is None:
        raise CheckFailed("the module has no `positions`: expected an nn.Parameter [1, N, D] of this name")
    if not isinstance(positions, nn.Parameter):
        raise CheckFailed(f"`positions` is {kind(positions)}: expected an nn.Parameter [1, N, D], which is learned")
    if list(positions.shape) != [1, n, dim]:
        raise CheckFailed(
            f"`positions` has shape {list(positions.shape)}, expected [1, {n}, {dim}]: for clips {list(shape)} every "
            "second frame gives 3 times, and the tower with one more pooling leaves 2×3 places of each"
        )
    spread = positions.std().item()
    if not 0.013 < spread < 0.027:  # of 144 numbers: 0.02, give or take six times what chance does
        are = "are all zero" if not positions.any() else f"have a standard deviation of {spread:.2g}"
        raise CheckFailed(f"`positions` {are} in a new module: begin with 0.02 * torch.randn(1, N, dim)")
    _trainable(model)
    _biases(model)
    nn.init.normal_(positions.data, generator=torch.Generator().manual_seed(0))

    def right(clips, step=2, grey=MEAN_GREY, positions=positions, order=in_order, pool=mean):
        tokens = model.projection(order(model.tower(clips[:, :, ::step] - grey)))
        z = model.encoder(tokens + positions)
        return model.head(pool(z))

    def seen(clips, grey=MEAN_GREY):
        return in_order(model.tower(clips[:, :, ::2] - grey))

    def after_the_encoder(clips):
        tokens = model.projection(model.tower(clips[:, :, ::2] - MEAN_GREY).flatten(2).mT)
        return model.head((model.encoder(tokens) + positions).mean(dim=1))

    examine(
        model.forward,
        right,
        (drawn(3, *shape).sigmoid(),),
        (drawn(1, *shape, seed=1).sigmoid(),),
        mistakes={
            "the positions are not used: add them before the encoder": lambda x: right(x, positions=0),
            "the positions are added after the encoder: add them before": after_the_encoder,
            "the mean grey is not subtracted": lambda x: right(x, grey=0),
            "these are the odd frames: clips[:, :, ::2] begins with frame 0": lambda x: right(x[:, :, 1:]),
            "only the first half of the clip is seen: every second frame is clips[:, :, ::2]": lambda x: right(
                x[:, :, :3], step=1
            ),
            "the first token is read: take the mean of all of them": lambda x: right(x, pool=lambda z: z[:, 0]),
            "the maximum over the tokens is taken: take the mean": lambda x: right(x, pool=lambda z: z.amax(1)),
            "reshape does not move axes, so a token holds a bit of many features: flatten(2), then transpose(1, 2)": (
                lambda x: right(x, order=lambda f: f.reshape(len(f), -1, f.shape[1]))
            ),
            "the tokens are in another order, through time first: use the package's, time by time and row by row": (
                lambda x: right(x, order=lambda f: f.movedim(2, -1).flatten(2).mT)
            ),
            "the tokens are in another order, columns before rows: use the package's, time by time and row by row": (
                lambda x: right(x, order=lambda f: in_order(f.transpose(3, 4)))
            ),
            "a softmax follows: the loss takes logits and applies it itself": lambda x: right(x).softmax(1),
            "no attention: the tokens must go through the encoder": lambda x: model.head(
                (model.projection(model.tower(x[:, :, ::2] - MEAN_GREY).flatten(2).mT) + positions).mean(dim=1)
            ),
        },
        errors={
            "must match": to_tokens,
            f"and 64x{dim})": to_tokens,
            f"and {dim}x{CLASSES})": "the head takes the mean over the tokens, [B, D]: z.mean(dim=1)",
        },
        what="the logits",
        tolerance=1e-4,
        dtypes=(),
        also=list(model.parameters()),
    )
    examine(
        getattr(model, "see", None) or _no_see,
        seen,
        (drawn(3, *shape).sigmoid(),),
        mistakes={
            "the features are still on a grid: `see` makes them tokens": lambda x: model.tower(
                x[:, :, ::2] - MEAN_GREY
            ),
            "exchange the last two axes: `see` returns [B, N, 64]": lambda x: seen(x).mT,
            "`see` projects them already: `forward` does that": lambda x: model.projection(seen(x)),
            "`see` subtracts MEAN_GREY, before the tower": lambda x: seen(x, grey=0),
        },
        what="the tokens of CNNAttention(…).see",
        tolerance=1e-4,
        gradients=False,
        dtypes=(),
    )
    _alike_in_training(model, shape, "CNNAttention", "the task has no dropout")
    _in_double(model, shape)
    _agree(model, _attention_in_the_package(model, shape, CLASSES, dim, depth), shape, "CNNAttention")
    passed("02.7", "convolutions in each frame, attention across all of them: the package's cnn_attention.")


# ---- modules


def _module(cls, *sizes, hints):
    module = call_with_hints(hints, cls, *sizes)
    if not isinstance(module, nn.Module):
        raise CheckFailed(f"expected a class that inherits from nn.Module, got {kind(module)}")
    return module.eval()


def _part(module, name):
    part = getattr(module, name, None)
    if not isinstance(part, nn.Module):
        said = "the module has no part" if part is None else f"{kind(part)} is no module:"
        raise CheckFailed(f"{said} `{name}`: the task names its parts, so that weights can be copied")
    return part


def _made_by(module, name, given, hint):
    """What a part of a module makes of zeros of this shape."""
    part = _part(module, name)
    try:
        with torch.no_grad():
            return part(torch.zeros(given))
    except Exception as error:
        raise CheckFailed(
            f"`{name}` is {kind(part)} that cannot take {list(given)} ({type(error).__name__}): {hint}"
        ) from None


def _one_logit_per_class(logits):
    if logits.shape[-1] != CLASSES:
        raise CheckFailed(
            f"your network gives {logits.shape[-1]} logits, {CLASSES} classes were asked for: take their number from "
            "the argument `classes`"
        )


def _no_see(clips):
    raise CheckFailed("the module has no method `see`: the task asks for it")


def _alike_in_training(module, clip_shape, name, hint):
    """Fails where a module gives other logits while it trains, as dropout does."""
    clips = drawn(2, *clip_shape, seed=8).sigmoid()
    with torch.no_grad():
        expected = module(clips)
        found = call(module.train().forward, clips)
        module.eval()
    try:
        close(found, expected, tolerance=1e-4)
    except CheckFailed:
        raise CheckFailed(f"{name} gives other logits while it trains: {hint}") from None


def _trainable(module):
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen:
        raise CheckFailed(f"{frozen[0]} has requires_grad=False: it would never learn")


def _in_double(module, clip_shape):
    """Clips of another precision go through a module of that precision."""
    clips = drawn(1, *clip_shape).sigmoid().double()
    with torch.no_grad():
        found = call(copy.deepcopy(module).double().forward, clips)
        if found.dtype != clips.dtype:
            raise CheckFailed(f"the logits are {found.dtype}, given {clips.dtype}: write no dtype into the code")


@torch.no_grad()
def _biases(module):
    """Random numbers where a fresh module has zeros, so that a part that is left out shows."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def _fill(package, weights):
    found, expected = [list(w.shape) for w in weights], [list(w.shape) for w in package.state_dict().values()]
    if found != expected:
        one, other = next((a, b) for a, b in zip([*found, None], [*expected, None]) if a != b)
        raise CheckFailed(f"the weights differ from the package's: where yours is {one}, it has {other}")
    package.load_state_dict(dict(zip(package.state_dict(), weights)))
    return package.eval()


def _fusion_in_the_package(model: nn.Module, name: str, clip_shape: Sequence[int], classes: int) -> nn.Module:
    package = build_model(name, clip_shape=tuple(clip_shape), num_classes=classes)
    return _fill(package, [*model.tower.state_dict().values(), *model.classifier.state_dict().values()])


def _attention_in_the_package(
    model: nn.Module, clip_shape: Sequence[int], classes: int, dim: int, depth: int
) -> nn.Module:
    sizes = {"dim": dim, "depth": depth, "heads": 4, "mlp_dim": 2 * dim}
    package = build_model("cnn_attention", clip_shape=tuple(clip_shape), num_classes=classes, **sizes)
    weights = {"positions": model.positions}
    for part in ("tower", "projection", "head"):
        theirs = getattr(package, part).state_dict()
        mine = list(getattr(model, part).state_dict().values())
        weights |= {f"{part}.{key}": value for key, value in zip(theirs, mine)}
    weights |= {f"encoder.norm.{key}": value for key, value in model.encoder.norm.state_dict().items()}
    for k, layer in enumerate(model.encoder.layers):
        names = ("qkv.weight", "qkv.bias", "out.weight", "out.bias")
        weights |= {f"encoder.blocks.{k}.attention.{n}": w for n, w in zip(names, projections(layer.self_attn))}
        parts = {"norm_attention": layer.norm1, "norm_mlp": layer.norm2, "mlp.0": layer.linear1, "mlp.3": layer.linear2}
        for name, part in parts.items():
            weights |= {f"encoder.blocks.{k}.{name}.{key}": value for key, value in part.state_dict().items()}
    return _fill(package, [weights[name] for name in package.state_dict() if name in weights])


def _agree(model, package, clip_shape, name):
    clips = drawn(2, *clip_shape, seed=9).sigmoid()
    with torch.no_grad():
        found, expected = model(clips), package(clips)
    close(
        found,
        expected,
        what=f"the logits of {name}, compared with the package's with the same weights,",
        tolerance=1e-4,
    )
    return found.numel()


def same_networks(Fusion: Callable) -> None:
    """Compares the reader's networks with the package's that have the same weights, on clips of 28³ voxels."""
    shape = (1, 28, 28, 28)
    for name in FUSIONS:
        model = Fusion(name, shape, 8).eval()
        _biases(model)
        package = _fusion_in_the_package(model, name, shape, 8)
        print(f"{name}: your logits and the package's agree in all {_agree(model, package, shape, name)} numbers.")
