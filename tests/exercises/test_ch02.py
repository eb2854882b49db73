"""Chapter 02: what its checks accept and refuse, and its drawings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from tests.course.test_pictures import assert_readable
from vivit_edu.cnn import (
    BACKBONES,
    FUSIONS,
    MEAN_GREY,
    Convolution,
    LocalResponseNorm,
    convolutions,
    fully_connected,
    read_plan,
)
from vivit_edu.course.checks import ch02
from vivit_edu.course.ready import ch02 as finished
from vivit_edu.course.schematics import fusions as drawings

from .cases import run_cases

LAYERS, NODES = read_plan(BACKBONES["small"])

# ---- 02.1


def frame_for_frame(clips, weight, bias, step=1):
    span, padding, windows = weight.shape[2], weight.shape[-1] // 2, []
    for start in range(0, clips.shape[2] - span + 1, step):
        total = bias[:, None, None]
        for k in range(span):
            total = total + F.conv2d(clips[:, :, start + k], weight[:, :, k], padding=padding)
        windows.append(total)
    return torch.stack(windows, dim=2)


def slice_for_slice(clips, weight, bias, step):
    """Each slice meets all its frames at once, in the batch."""
    d, _, span, f, _ = weight.shape
    count = (clips.shape[2] - span) // step + 1
    total = bias.view(1, d, 1, 1, 1)
    for k in range(span):
        frames = clips[:, :, k : k + (count - 1) * step + 1 : step]
        found = F.conv2d(rearrange(frames, "b c t h w -> (b t) c h w"), weight[:, :, k], padding="same")
        total = total + rearrange(found, "(b t) c h w -> b c t h w", t=count)
    return total


def as_channels(clips, weight, bias, step):
    """The frames of a window are more channels of one 2D convolution."""
    span = weight.shape[2]
    windows = clips.unfold(2, span, step)  # [B, C, T', H, W, span]
    found = [
        F.conv2d(window.movedim(-1, 2).flatten(1, 2), weight.flatten(1, 2), bias, padding=weight.shape[-1] // 2)
        for window in windows.unbind(2)
    ]
    return torch.stack(found, 2)


def windowed(inner, *, last=0, dim=2, bias_by=1.0):
    """A conv3d like frame_for_frame with one thing done differently: inner(clips, weight, start, k, padding)."""

    def conv3d(clips, weight, bias, step=1):
        span, padding = weight.shape[2], weight.shape[-1] // 2
        windows = [
            sum(inner(clips, weight, start, k, padding) for k in range(span)) + bias_by * bias[:, None, None]
            for start in range(0, clips.shape[2] - span + 1 - last, step)
        ]
        return torch.stack(windows, dim=dim)

    return conv3d


def plain(clips, weight, start, k, padding):
    return F.conv2d(clips[:, :, start + k], weight[:, :, k], padding=padding)


def bias_in_each_frame(clips, weight, bias, step):
    padding, span = weight.shape[-1] // 2, weight.shape[2]
    starts = range(0, clips.shape[2] - span + 1, step)
    return torch.stack(
        [
            sum(F.conv2d(clips[:, :, s + k], weight[:, :, k], bias, padding=padding) for k in range(span))
            for s in starts
        ],
        2,
    )


def in_place(clips, weight, bias, step):
    clips[:, :, 0] += 0
    clips *= 1.5
    return frame_for_frame(clips, weight, bias, step)


def whole_filter(clips, weight, bias, step):
    return torch.stack([F.conv2d(clips[:, :, t], weight, bias) for t in range(clips.shape[2])], 2)


def flat_bias(clips, weight, bias, step):
    return frame_for_frame(clips, weight, torch.zeros_like(bias), step) + bias


def beyond_the_end(clips, weight, bias, step):
    starts = range(0, clips.shape[2], step)
    return torch.stack([sum(plain(clips, weight, s, k, 1) for k in range(weight.shape[2])) for s in starts], 2)


test_conv3d = run_cases(
    ch02.check_conv3d,
    right=[frame_for_frame, slice_for_slice, as_channels],
    wrong={
        "backwards": (windowed(lambda x, w, s, k, p: plain(x, w.flip(2), s, k, p)), "backwards in time"),
        "bias in each frame": (bias_in_each_frame, "added once to the sum"),
        "no bias": (windowed(plain, bias_by=0), "bias is missing"),
        "mean": (windowed(lambda x, w, s, k, p: plain(x, w, s, k, p) / w.shape[2]), "add them up"),
        "first slice": (
            windowed(lambda x, w, s, k, p: F.conv2d(x[:, :, s + k], w[:, :, 0], padding=p)),
            "got the first slice",
        ),
        "one slice": (
            windowed(lambda x, w, s, k, p: plain(x, w, s, 0, p) if k == 0 else 0),
            "only the first slice",
        ),
        "no step": (lambda x, w, b, step: frame_for_frame(x, w, b, 1), "step is left out"),
        "one window less": (windowed(plain, last=1), "the last window"),
        "time padded": (
            lambda x, w, b, s: F.conv3d(x, w, b, (s, 1, 1), tuple(size // 2 for size in w.shape[2:])),
            "time was padded",
        ),
        "no padding": (windowed(lambda x, w, s, k, p: plain(x, w, s, k, 0)), "edges of the frames"),
        "space strided": (lambda x, w, b, s: frame_for_frame(x, w, b, s)[..., ::s, ::s], "only time has the step"),
        "stacked elsewhere": (windowed(plain, dim=1), "stack along dim=2"),
        "stacked last": (windowed(plain, dim=-1), "time comes last"),
        "the whole filter": (whole_filter, "slice of each filter"),
        "a flat bias": (flat_bias, "bias\\[:, None, None\\]"),
        "beyond the end": (beyond_the_end, "last window begins at T - span"),
        "in place": (in_place, "changes the clips"),
        "detached": (lambda x, w, b, s: frame_for_frame(x, w.detach(), b, s), "gradient"),
        "nothing": (lambda x, w, b, s: None, "return"),
    },
)

# ---- 02.2


def by_two_numbers(layers):
    seen, apart, result = 1, 1, []
    for span, step in layers:
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


def by_products(layers):
    steps = np.cumprod([1, *(step for _, step in layers)])[:-1]
    return 1 + np.cumsum([(span - 1) * apart for (span, _), apart in zip(layers, steps)])


def from_the_end(layers):
    """Of each prefix: how many frames lie below one feature, counted down to the clip."""

    def below(part):
        count = 1
        for span, step in reversed(part):
            count = (count - 1) * step + span
        return count

    return [below(layers[: n + 1]) for n in range(len(layers))]


def by_counting(layers):
    """The frames behind one feature as a set, from the feature down."""

    def behind(part):
        features = {0}
        for span, step in reversed(part):
            features = {feature * step + k for feature in features for k in range(span)}
        return len(features)

    return [behind(layers[: n + 1]) for n in range(len(layers))]


def changed(**names):
    """The loop with other rules: grow(seen, span, step, apart) and spread(apart, span, step); `first` frames."""

    def frames_seen(layers):
        seen, apart, result = names.get("first", 1), 1, []
        for span, step in layers:
            seen = names.get("grow", lambda seen, span, step, apart: seen + (span - 1) * apart)(seen, span, step, apart)
            apart = names.get("spread", lambda apart, span, step: apart * step)(apart, span, step)
            result.append(seen)
        return result

    return frames_seen


def stride_first(layers):
    seen, apart, result = 1, 1, []
    for span, step in layers:
        apart *= step
        seen += (span - 1) * apart
        result.append(seen)
    return result


def taking_away(layers):
    result, seen, apart = [], 1, 1
    while layers:
        span, step = layers.pop(0)
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


test_frames_seen = run_cases(
    ch02.check_frames_seen,
    right=[by_two_numbers, by_products, from_the_end, by_counting],
    wrong={
        "no strides": (changed(spread=lambda apart, span, step: 1), "strides are left out"),
        "its own stride": (stride_first, "only for the layers after it"),
        "product": (changed(grow=lambda seen, span, step, apart: seen * span), "spans do not multiply"),
        "spans": (lambda layers: [span for span, _ in layers], "spans of the layers, not frames"),
        "strides": (lambda layers: [step for _, step in layers], "strides of the layers, not frames"),
        "from 0": (changed(first=0), "begin with 1, not with 0"),
        "the last only": (lambda layers: by_two_numbers(layers)[-1], "a list is expected"),
        "one number in a list": (lambda layers: by_two_numbers(layers)[-1:], "one number per layer"),
        "the clip first": (lambda layers: [1, *by_two_numbers(layers)], "one number per layer"),
        "backwards": (lambda layers: by_two_numbers(layers)[::-1], "begin at the clip"),
        "from the end": (lambda layers: by_two_numbers(layers[::-1]), "answer is"),
        "span for span - 1": (
            changed(grow=lambda seen, span, step, apart: seen + span * apart),
            "keep two numbers",
        ),
        "strides added": (changed(spread=lambda apart, span, step: apart + step), "answer is"),
        "the last stride": (changed(spread=lambda apart, span, step: step), "answer is"),
        "layers taken away": (taking_away, "changed|was given"),
        "nothing": (lambda layers: None, r"^the result is None: does your function end in `return ...`\?$"),
        "text": (lambda layers: str(by_two_numbers(layers)), "list is expected"),
        "as in the notebook": (lambda layers: [4, 6, 10], "answer is|one number per layer"),
    },
)


# ---- 02.3


def by_iterator(channels, spans):
    parts, spans = [], iter(spans)
    for kind, sizes in LAYERS:
        if kind == "C":
            parts += [Convolution(channels, *sizes, *next(spans, (1, 1))), nn.ReLU()]
            channels = sizes[0]
        elif kind == "N":
            parts.append(LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2))
        else:
            parts.append(nn.MaxPool3d((1, 2, 2)))
    return nn.Sequential(*parts)


def by_number(channels, spans):
    parts, number = nn.Sequential(), 0
    for kind, sizes in LAYERS:
        if kind == "C":
            span, step = spans[number] if number < len(spans) else (1, 1)
            number += 1
            parts.append(Convolution(channels, sizes[0], sizes[1], sizes[2], span, step))
            parts.append(nn.ReLU(inplace=True))
            channels = sizes[0]
        elif kind == "N":
            parts.append(nn.LocalResponseNorm(5, 5e-4, 0.5, 2))
        else:
            parts.append(nn.MaxPool3d(kernel_size=(1, 2, 2), stride=(1, 2, 2)))
    return parts


def by_filling_up(channels, spans):
    convolution_number = [k for k, (kind, _) in enumerate(LAYERS) if kind == "C"]
    filled = dict(zip(convolution_number, [*spans, *[(1, 1)] * 5]))
    widths = [channels, *[LAYERS[k][1][0] for k in convolution_number]]
    blocks = []
    for k, (kind, sizes) in enumerate(LAYERS):
        if kind == "C":
            c = widths[convolution_number.index(k)]
            blocks.append(nn.Sequential(Convolution(c, *sizes, span=filled[k][0], step=filled[k][1]), nn.ReLU()))
        else:
            blocks.append(LocalResponseNorm(5, 5e-4, 0.5, 2) if kind == "N" else nn.MaxPool3d((1, 2, 2)))
    return nn.Sequential(*blocks)


def tower_with(
    *,
    relu=nn.ReLU,
    norm=lambda: LocalResponseNorm(5, 5e-4, 0.5, 2),
    pool=lambda: nn.MaxPool3d((1, 2, 2)),
    convolution=Convolution,
    channels_follow=True,
    default=(1, 1),
    turned=False,
    repeat=False,
    count=None,
):
    """A tower as a student writes it, with one thing done differently."""

    def tower(channels, spans):
        parts, left = [], list(spans) if not repeat else list(spans)[:1] * 5
        for kind, sizes in LAYERS[:count]:
            if kind == "C":
                span, step = left.pop(0) if left else default
                span, step = (step, span) if turned else (span, step)
                parts.append(convolution(channels, *sizes, span, step))
                parts += [relu()] if relu else []
                channels = sizes[0] if channels_follow else channels
            elif kind == "N":
                parts += [norm()] if norm else []
            else:
                parts += [pool()] if pool else []
        return nn.Sequential(*parts)

    return tower


def next_without_a_default(channels, spans):
    left = iter(spans)
    return by_iterator(channels, [next(left) for kind, _ in LAYERS if kind == "C"])


def span_of_each(channels, spans):
    return by_iterator(channels, [spans[k] for k in range(5)])


def pops_the_given(channels, spans):
    made = by_iterator(channels, spans)
    if spans:
        spans.pop(0)
    return made


def own_conv3d(channels, width, f, s, span, step):
    return nn.Conv3d(channels, width, (span, f, f), (step, s, s), (0, f // 2, f // 2))


def padded_conv3d(channels, width, f, s, span, step):
    return nn.Conv3d(channels, width, (span, f, f), (step, s, s), (span // 2, f // 2, f // 2))


test_tower = run_cases(
    ch02.check_tower,
    right=[by_iterator, by_number, by_filling_up],
    wrong={
        "no ReLU": (tower_with(relu=None), "ReLU follows every"),
        "last ReLU": (lambda c, s: by_iterator(c, s)[:-1], "last convolution has no ReLU"),
        "no norm": (tower_with(norm=None), "normalisation is missing"),
        "other norm": (tower_with(norm=lambda: nn.LocalResponseNorm(5)), "other numbers"),
        "no pooling": (tower_with(pool=None), "pooling is missing"),
        "time pooled": (tower_with(pool=lambda: nn.MaxPool3d(2)), "halves time"),
        "average": (tower_with(pool=lambda: nn.AvgPool3d((1, 2, 2))), "P is the maximum"),
        "nn.Conv3d": (tower_with(convolution=own_conv3d), "frames at the end are lost"),
        "time padded": (tower_with(convolution=padded_conv3d), "has padding"),
        "channels": (tower_with(channels_follow=False), "takes what the convolution before it gives"),
        "turned": (tower_with(turned=True), "has kernel_size"),
        "one span for all": (tower_with(repeat=True), "has kernel_size"),
        "spans of one in the tail": (tower_with(default=(1, 2)), "has stride"),
        "too short": (tower_with(count=-1), "has 4 convolutions"),
        "a list": (lambda c, s: list(by_iterator(c, s)), "nn.Sequential"),
        "pops": (pops_the_given, "changes the spans"),
        "grey only": (lambda c, s: by_iterator(1, s), "has in_channels 1"),
        "flat pooling": (tower_with(pool=lambda: nn.MaxPool2d(2)), r"nn.MaxPool3d\(\(1, 2, 2\)\)"),
        "no default": (next_without_a_default, r"next\(spans, \(1, 1\)\)"),
        "a span of each": (span_of_each, "fewer spans than convolutions"),
        "not unpacked": (lambda c, s: nn.Sequential(list(by_iterator(c, s))), r"nn.Sequential\(\*parts\)"),
        "cropped": (tower_with(convolution=own_conv3d), "adds frames of zeros"),
        "nothing": (lambda c, s: None, r"^the result is None: does your function end in `return ...`\?$"),
    },
)

# ---- 02.4


def by_ifs(name, frames):
    every = list(range(frames))
    if name == "single_frame":
        return [frames // 2], []
    if name == "early_fusion":
        return every, [(frames, 1)]
    if name == "late_fusion":
        return [every[frames // 6], every[-1 - frames // 6]], []
    return every, [(4, 2), (2, 2), (2, 2)]


def by_table(name, frames):
    return {
        "single_frame": ((frames // 2,), ()),
        "early_fusion": (range(frames), ((frames, 1),)),
        "late_fusion": ((frames // 6, frames - frames // 6 - 1), ()),
        "slow_fusion": (range(frames), ((4, 2), (2, 2), (2, 2))),
    }[name]


def by_arrays(name, frames):
    taken, spans = FUSIONS[name](frames)
    return [np.array(taken), [list(pair) for pair in spans]]


def plan_but(**changes):
    """by_ifs with other answers for some networks: name=function of the number of frames."""
    return lambda name, frames: changes[name](frames) if name in changes else by_ifs(name, frames)


test_fusion_plan = run_cases(
    ch02.check_fusion_plan,
    right=[by_ifs, by_table, by_arrays],
    wrong={
        "a number": (plan_but(single_frame=lambda t: (t // 2, [])), "a list of frames"),
        "the first": (plan_but(single_frame=lambda t: ([0], [])), "number T // 2"),
        "always 28": (plan_but(early_fusion=lambda t: (list(range(28)), [(28, 1)])), "not always 28"),
        "a span of 28": (plan_but(early_fusion=lambda t: (list(range(t)), [(28, 1)])), "T is an argument"),
        "no spans": (plan_but(early_fusion=lambda t: (list(range(t)), [])), "spans all T frames"),
        "a bare pair": (plan_but(early_fusion=lambda t: (list(range(t)), (t, 1))), "a list of pairs"),
        "from the end": (plan_but(late_fusion=lambda t: ([t // 6, t - t // 6], [])), "T - 1 - T // 6"),
        "both ends": (plan_but(late_fusion=lambda t: ([0, t - 1], [])), "not at the ends"),
        "late spans": (plan_but(late_fusion=lambda t: ([t // 6, t - 1 - t // 6], [(2, 1)])), "no convolution spans"),
        "notebook's frames": (plan_but(late_fusion=lambda t: ([4, 23], [])), "T // 6 from the beginning"),
        "turned": (plan_but(slow_fusion=lambda t: (list(range(t)), [(2, 4), (2, 2), (2, 2)])), "a pair is"),
        "one span": (plan_but(slow_fusion=lambda t: (list(range(t)), [(4, 2)])), "then 2, then 2"),
        "every second": (plan_but(slow_fusion=lambda t: (list(range(0, t, 2)), [(4, 2)])), "all frames"),
        "five sixths": (plan_but(late_fusion=lambda t: ([t // 6, t * 5 // 6], [])), r"12\) takes the frames \[2, 10\]"),
        "half a frame": (
            plan_but(single_frame=lambda t: ([t / 2], [])),
            "14.0, a float: .*divide by //",
        ),
        "a span of decimals": (
            plan_but(slow_fusion=lambda t: (list(range(t)), [(4, 2.0), (2, 2), (2, 2)])),
            "2.0, a float",
        ),
        "spans only": (plan_but(slow_fusion=lambda t: [(4, 2), (2, 2), (2, 2)]), "expected two things"),
        "nothing": (lambda name, frames: None, "return"),
    },
)

# ---- 02.5


class AsInTheChapter(nn.Module):
    def __init__(self, name, clip_shape, classes):
        super().__init__()
        channels, frames, *_ = clip_shape
        self.frames, spans = by_ifs(name, frames)
        self.tower = by_iterator(channels, spans)
        n = self.see(torch.zeros(1, *clip_shape)).shape[1]
        self.classifier = fully_connected(n, NODES, classes, dropout=0.0)

    def see(self, clips):
        return self.tower(clips[:, :, self.frames] - MEAN_GREY).flatten(1)

    def forward(self, clips):
        return self.classifier(self.see(clips))


class OneForward(AsInTheChapter):
    def forward(self, clips):
        taken = torch.stack([clips[:, :, t] for t in self.frames], dim=2)
        features = self.tower(taken.sub(MEAN_GREY))
        return self.classifier(features.reshape(len(clips), -1))


class WithLinears(AsInTheChapter):
    """The classifier by hand, and the frames by index_select."""

    def __init__(self, name, clip_shape, classes):
        super().__init__(name, clip_shape, classes)
        n = self.classifier[0].in_features
        self.classifier = nn.Sequential(
            nn.Linear(n, NODES[0]), nn.ReLU(), nn.Linear(NODES[0], NODES[1]), nn.ReLU(), nn.Linear(NODES[1], classes)
        )

    def see(self, clips):
        return torch.flatten(self.tower(clips.index_select(2, torch.tensor(self.frames)) - MEAN_GREY), start_dim=1)


def fusion(see=None, forward=None, init=None):
    class Fusion(AsInTheChapter):
        def __init__(self, name, clip_shape, classes):
            super().__init__(name, clip_shape, classes)
            if init:
                init(self, clip_shape, classes)

    if see:
        Fusion.see = see
    if forward:
        Fusion.forward = forward
    return Fusion


def in_place_grey(self, clips):
    clips -= MEAN_GREY
    return self.tower(clips[:, :, self.frames]).flatten(1)


def relu_at_the_end(self, clip_shape, classes):
    self.classifier.append(nn.ReLU())


def frozen(self, clip_shape, classes):
    self.tower[0].requires_grad_(False)


def eleven(self, clip_shape, classes):
    self.classifier[-1] = nn.Linear(NODES[-1], 11)


def one_linear(self, clip_shape, classes):
    self.classifier = nn.Linear(self.classifier[0].in_features, classes)


def dropping(self, clip_shape, classes):
    self.classifier = fully_connected(self.classifier[0].in_features, NODES, classes, dropout=0.5)


def eight(self, clip_shape, classes):
    self.classifier = fully_connected(self.classifier[0].in_features, NODES, 8, dropout=0.0)


class FramesOfTheChannels(AsInTheChapter):
    def __init__(self, name, clip_shape, classes):
        nn.Module.__init__(self)
        self.frames, spans = by_ifs(name, clip_shape[0])
        self.tower = by_iterator(clip_shape[0], spans)
        self.classifier = fully_connected(self.see(torch.zeros(1, *clip_shape)).shape[1], NODES, classes, dropout=0.0)


class WithoutABatch(AsInTheChapter):
    def __init__(self, name, clip_shape, classes):
        nn.Module.__init__(self)
        self.frames, spans = by_ifs(name, clip_shape[1])
        self.tower = by_iterator(clip_shape[0], spans)
        self.classifier = fully_connected(self.see(torch.zeros(clip_shape)).shape[1], NODES, classes, dropout=0.0)


class GridSeen(nn.Module):
    """Flattens in forward, not in see."""

    def __init__(self, name, clip_shape, classes):
        super().__init__()
        whole = AsInTheChapter(name, clip_shape, classes)
        self.frames, self.tower, self.classifier = whole.frames, whole.tower, whole.classifier

    def see(self, clips):
        return self.tower(clips[:, :, self.frames] - MEAN_GREY)

    def forward(self, clips):
        return self.classifier(self.see(clips).flatten(1))


class WithoutSee(GridSeen):
    see = None

    def forward(self, clips):
        return self.classifier(self.tower(clips[:, :, self.frames] - MEAN_GREY).flatten(1))


def other_names(self, clip_shape, classes):
    self.features = self.tower
    del self.tower


def see_with_features(self, clips):
    tower = self.features if hasattr(self, "features") else self.tower
    return tower(clips[:, :, self.frames] - MEAN_GREY).flatten(1)


test_fusion = run_cases(
    ch02.check_fusion,
    right=[AsInTheChapter, OneForward, WithLinears],
    wrong={
        "no grey": (fusion(lambda s, x: s.tower(x[:, :, s.frames]).flatten(1)), "mean grey is not subtracted"),
        "grey added": (fusion(lambda s, x: s.tower(x[:, :, s.frames] + MEAN_GREY).flatten(1)), "subtract it"),
        "grey in place": (fusion(in_place_grey), "changes the clips"),
        "the first frames": (
            fusion(lambda s, x: s.tower(x[:, :, : len(s.frames)] - MEAN_GREY).flatten(1)),
            "other frames are taken",
        ),
        "all frames": (fusion(lambda s, x: s.tower(x - MEAN_GREY).flatten(1)), "begins with Linear"),
        "softmax": (fusion(forward=lambda s, x: s.classifier(s.see(x)).softmax(1)), "softmax follows"),
        "channels last": (
            fusion(lambda s, x: s.tower(x[:, :, s.frames] - MEAN_GREY).movedim(1, -1).flatten(1)),
            "flattened in another order",
        ),
        "time averaged": (
            fusion(lambda s, x: s.tower(x[:, :, s.frames] - MEAN_GREY).mean(2, keepdim=True).flatten(1)),
            "begins with Linear",
        ),
        "batch flattened": (fusion(forward=lambda s, x: s.classifier(s.see(x).flatten())), "to see how many"),
        "ReLU at the end": (fusion(init=relu_at_the_end), "(is|are) wrong in"),
        "frozen": (fusion(init=frozen), "requires_grad=False"),
        "eleven classes": (fusion(init=eleven), "gives 11 logits, 5 classes were asked for"),
        "eight classes": (fusion(init=eight), "gives 8 logits, 5 classes were asked for"),
        "dropout": (fusion(init=dropping), "other logits while it trains.*dropout=0.0"),
        "see keeps the grid": (GridSeen, "still on a grid"),
        "see keeps the grey": (
            fusion(lambda s, x: s.tower(x[:, :, s.frames]).flatten(1), lambda s, x: s.classifier(s.see(x - MEAN_GREY))),
            "`see` subtracts MEAN_GREY",
        ),
        "no see": (WithoutSee, "no method `see`"),
        "frames of the channels": (FramesOfTheChannels, "clip_shape is \\(C, T, H, W\\)"),
        "no batch": (WithoutABatch, "torch.zeros\\(1, \\*clip_shape\\)"),
        "grey of 117": (fusion(lambda s, x: s.tower(x[:, :, s.frames] - 117).flatten(1)), "from 0 to 255"),
        "float32": (fusion(forward=lambda s, x: s.classifier(s.see(x)).float()), "write no dtype"),
        "one linear layer": (fusion(init=one_linear), "weights differ"),
        "other names": (fusion(see_with_features, init=other_names), "no part `tower`"),
        "detached": (fusion(forward=lambda s, x: s.classifier(s.see(x).detach())), "no gradient reaches"),
        "nothing": (fusion(forward=lambda s, x: None), "return"),
        "a function": (lambda name, clip_shape, classes: lambda x: x, "inherits from nn.Module"),
    },
)

# ---- 02.6


def by_transpose(cnn, clips):
    b, c, t, h, w = clips.shape
    return cnn(clips.transpose(1, 2).reshape(b * t, c, h, w)).reshape(b, t, -1)


def by_loop(cnn, clips):
    return torch.stack([cnn(clips[:, :, t]).flatten(1) for t in range(clips.shape[2])], dim=1)


def by_einops(cnn, clips):
    features = cnn(rearrange(clips, "b c t h w -> (b t) c h w"))
    return features.unflatten(0, (len(clips), -1)).flatten(2)


def as_found(cnn, clips):
    b, c, t, h, w = clips.shape
    return cnn(clips.reshape(b * t, c, h, w)).reshape(b, t, -1)


def through(fold, unfold=lambda y, b, t: y.reshape(b, t, -1)):
    """fold(clips) -> images; unfold(features, b, t)"""
    return lambda cnn, clips: unfold(cnn(fold(clips)), len(clips), clips.shape[2])


def grid_averaged(features):
    return features.mean((2, 3)) if features.ndim == 4 else features


def time_first(x):
    return x.permute(2, 0, 1, 3, 4).flatten(0, 1)


test_frame_by_frame = run_cases(
    ch02.check_frame_by_frame,
    right=[by_transpose, by_loop, by_einops],
    wrong={
        "as found": (as_found, "as you found it"),
        "as found, by view": (
            lambda cnn, x: cnn(x.view(-1, x.shape[1], *x.shape[3:])).view(len(x), x.shape[2], -1),
            "as you found it",
        ),
        "times outside": (through(time_first), "clips and times have changed places: fold"),
        "[T, B, D]": (
            through(time_first, lambda y, b, t: y.reshape(t, b, -1)),
            "clips and times have changed places in the result",
        ),
        "averaged": (lambda cnn, x: by_loop(cnn, x).mean(1), "frames were averaged"),
        "not unfolded": (through(lambda x: x.transpose(1, 2).flatten(0, 1), lambda y, b, t: y.flatten(1)), "B·T, D"),
        "features second": (lambda cnn, x: by_loop(cnn, x).mT, "features come last"),
        "one frame": (lambda cnn, x: by_loop(cnn, x[:, :, x.shape[2] // 2, None]), "only one frame"),
        "the first for all": (
            lambda cnn, x: by_loop(cnn, x[:, :, :1]).expand(-1, x.shape[2], -1),
            "features of its first",
        ),
        "channels after height": (
            through(lambda x: x.permute(0, 2, 3, 1, 4).flatten(0, 1)),
            "C must be the second axis",
        ),
        "view after transpose": (
            lambda cnn, x: cnn(x.transpose(1, 2).view(-1, x.shape[1], *x.shape[3:])).view(len(x), x.shape[2], -1),
            "reshape or flatten",
        ),
        "reversed": (lambda cnn, x: by_loop(cnn, x).flip(1), "reverse order"),
        "grid kept": (
            lambda cnn, x: cnn(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)),
            "axes instead of 3.*still on their grid",
        ),
        "grid averaged": (
            lambda cnn, x: torch.stack([grid_averaged(cnn(clip.transpose(0, 1))) for clip in x]),
            "averaged over the grid",
        ),
        "channels kept": (
            through(lambda x: x.transpose(1, 2).flatten(0, 1), lambda y, b, t: y.reshape(b, t, y.shape[1])),
            "may still be on a grid",
        ),
        "not folded": (lambda cnn, x: cnn(x.transpose(1, 2)), "put time into the batch first"),
        "no_grad": (torch.no_grad()(by_transpose), "no gradient reaches"),
        "three channels": (
            through(lambda x: x.transpose(1, 2).reshape(-1, 3, *x.shape[3:])),
            "C must be the second axis|invalid for input",
        ),
    },
)

# ---- 02.7


class Attentive(nn.Module):
    def __init__(self, clip_shape, classes, dim=128, depth=2):
        super().__init__()
        self.tower = nn.Sequential(*by_iterator(clip_shape[0], []), nn.MaxPool3d((1, 2, 2)))
        _, n, width = self.see(torch.zeros(1, *clip_shape)).shape
        self.projection = nn.Linear(width, dim)
        self.positions = nn.Parameter(0.02 * torch.randn(1, n, dim))
        self.encoder = finished.attention_layers(dim, depth)
        self.head = nn.Linear(dim, classes)

    def see(self, clips):
        features = self.tower(clips[:, :, ::2] - MEAN_GREY)
        return features.flatten(2).transpose(1, 2)

    def forward(self, clips):
        z = self.projection(self.see(clips)) + self.positions
        return self.head(self.encoder(z).mean(dim=1))


class ByMovedim(Attentive):
    def see(self, clips):
        features = self.tower((clips - MEAN_GREY)[:, :, 0::2])
        return features.movedim(1, -1).flatten(1, 3)


class HeadFirst(Attentive):
    """The mean of the logits is the logit of the mean; the tower is built layer by layer."""

    def __init__(self, clip_shape, classes, dim=128, depth=2):
        super().__init__(clip_shape, classes, dim, depth)
        self.tower = by_number(clip_shape[0], [])
        self.tower.append(nn.MaxPool3d((1, 2, 2)))

    def forward(self, clips):
        tokens = self.see(clips)
        z = self.encoder(self.positions + self.projection(tokens))
        return self.head(z).sum(dim=1) / tokens.shape[1]


def attentive(see=None, forward=None, init=None):
    class CNNAttention(Attentive):
        def __init__(self, clip_shape, classes, dim=128, depth=2):
            super().__init__(clip_shape, classes, dim, depth)
            if init:
                init(self, dim, depth)

    if see:
        CNNAttention.see = see
    if forward:
        CNNAttention.forward = forward
    return CNNAttention


def other_positions(make):
    def init(self, dim, depth):
        del self.positions
        self.positions = nn.Parameter(make(1, self.see(torch.zeros(1, 2, 5, 16, 24)).shape[1], dim))

    return init


def unnamed_positions(self, dim, depth):
    self.pos = self.positions
    del self.positions


def wide_projection(self, dim, depth):
    self.projection = nn.Linear(64, 128)


def convolved_projection(self, dim, depth):
    self.projection = nn.Conv1d(64, dim, 1)


def wide_encoder(self, dim, depth):
    self.encoder = finished.attention_layers(128, depth)


def eight_logits(self, dim, depth):
    self.head = nn.Linear(dim, 8)


def wide_head(self, dim, depth):
    self.head = nn.Linear(128, self.head.out_features)


def see_then(change, forward=lambda tokens: tokens):
    """see returns something else, and forward makes the tokens of it."""

    class CNNAttention(Attentive):
        def __init__(self, *sizes):
            self.made = False
            super().__init__(*sizes)
            self.made = True

        def see(self, clips):
            tokens = super().see(clips)
            return change(self, tokens) if self.made else tokens

        def forward(self, clips):
            return self.head(self.encoder(forward(self, self.see(clips)) + self.positions).mean(dim=1))

    return CNNAttention


class Truncated(Attentive):
    """Positions from a truncated normal distribution, and a projection in a Sequential."""

    def __init__(self, clip_shape, classes, dim=128, depth=2):
        super().__init__(clip_shape, classes, dim, depth)
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.projection = nn.Sequential(self.projection)


def tensor_positions(self, dim, depth):
    positions = self.positions.detach()
    del self.positions
    self.positions = positions


def positions_per_place(self, dim, depth):
    self.positions = nn.Parameter(torch.zeros(1, 1, dim))


def frozen_positions(self, dim, depth):
    self.positions.requires_grad_(False)


def one_layer(self, dim, depth):
    self.encoder = finished.attention_layers(dim, 1)


def batch_second(self, dim, depth):
    layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, "gelu", 1e-6, norm_first=True)
    self.encoder = nn.TransformerEncoder(layer, depth, nn.LayerNorm(dim, eps=1e-6), enable_nested_tensor=False)


def no_pooling(self, dim, depth):
    self.tower = self.tower[:-1]


def all_frames(self, clips):
    return self.tower(clips - MEAN_GREY).flatten(2).mT


def positions_late(self, clips):
    return self.head((self.encoder(self.projection(self.see(clips))) + self.positions).mean(dim=1))


test_cnn_attention = run_cases(
    ch02.check_cnn_attention,
    right=[Attentive, ByMovedim, HeadFirst, Truncated],
    wrong={
        "no positions": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x))).mean(1))),
            "positions are not used",
        ),
        "positions late": (attentive(forward=positions_late), "after the encoder"),
        "a tensor": (attentive(init=tensor_positions), "expected an nn.Parameter"),
        "one position": (attentive(init=positions_per_place), "every second frame gives 3 times"),
        "frozen positions": (attentive(init=frozen_positions), "requires_grad=False"),
        "no grey": (attentive(lambda s, x: s.tower(x[:, :, ::2]).flatten(2).mT), "mean grey is not subtracted"),
        "all frames": (attentive(all_frames), "every second frame gives 3 times|must match"),
        "first half": (
            attentive(lambda s, x: s.tower(x[:, :, : (x.shape[2] + 1) // 2] - MEAN_GREY).flatten(2).mT),
            "first half of the clip",
        ),
        "first token": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x)) + s.positions)[:, 0])),
            "first token is read",
        ),
        "reshape": (
            attentive(lambda s, x: (f := s.tower(x[:, :, ::2] - MEAN_GREY)).reshape(len(f), -1, f.shape[1])),
            "reshape does not move axes",
        ),
        "through time first": (
            attentive(lambda s, x: s.tower(x[:, :, ::2] - MEAN_GREY).movedim(2, -1).flatten(2).mT),
            "through time first",
        ),
        "softmax": (attentive(forward=lambda s, x: Attentive.forward(s, x).softmax(1)), "softmax follows"),
        "no encoder": (
            attentive(forward=lambda s, x: s.head((s.projection(s.see(x)) + s.positions).mean(1))),
            "no attention",
        ),
        "one layer": (attentive(init=one_layer), "the encoder has 1 layers"),
        "batch second": (attentive(init=batch_second), "must be attention_layers"),
        "no pooling": (attentive(init=no_pooling), "one more pooling"),
        "columns first": (
            attentive(lambda s, x: s.tower(x[:, :, ::2] - MEAN_GREY).permute(0, 2, 4, 3, 1).flatten(1, 3)),
            "columns before rows",
        ),
        "positions of zeros": (attentive(init=other_positions(torch.zeros)), "all zero.*0.02"),
        "large positions": (attentive(init=other_positions(torch.randn)), "deviation of .*0.02"),
        "uniform positions": (
            attentive(init=other_positions(lambda *shape: 0.02 * torch.rand(*shape))),
            "deviation of .*0.02",
        ),
        "pos": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x)) + s.pos)), init=unnamed_positions),
            "the module has no `positions`",
        ),
        "a wide projection": (attentive(init=wide_projection), r"`projection` .*128.*nn.Linear\(64, dim\)"),
        "a convolution": (attentive(init=convolved_projection), r"`projection` is a Conv1d.*nn.Linear\(64, dim\)"),
        "a wide encoder": (attentive(init=wide_encoder), r"`encoder` .*attention_layers\(dim, depth\)"),
        "a wide head": (attentive(init=wide_head), r"`head` .*nn.Linear\(dim, classes\)"),
        "eight classes": (attentive(init=eight_logits), "gives 8 logits, 5 classes were asked for"),
        "mean of the features": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x)) + s.positions).mean(2))),
            r"mean\(dim=1\)",
        ),
        "maximum": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x)) + s.positions).max(1).values)),
            "maximum.*mean",
        ),
        "not transposed": (
            attentive(forward=lambda s, x: s.head(s.encoder(s.projection(s.see(x).mT) + s.positions).mean(1))),
            "flatten\\(2\\), then transpose",
        ),
        "dropout": (
            attentive(forward=lambda s, x: Attentive.forward(s, F.dropout(x, 0.5, s.training))),
            "other logits while it trains",
        ),
        "see projects": (see_then(lambda s, z: s.projection(z), lambda s, z: z), "projects them already"),
        "see returns [B, 64, N]": (see_then(lambda s, z: z.mT, lambda s, z: s.projection(z.mT)), "last two axes"),
        "see keeps the grid": (
            see_then(lambda s, z: z.mT.unflatten(2, (3, 2, 3)), lambda s, z: s.projection(z.flatten(2).mT)),
            "still on a grid",
        ),
        "detached": (attentive(forward=lambda s, x: Attentive.forward(s, x).detach()), "gradient"),
        "float32": (attentive(forward=lambda s, x: Attentive.forward(s, x).float()), "write no dtype"),
        "nothing": (attentive(forward=lambda s, x: None), "return"),
    },
)

# ---- the package, and the drawings


def test_the_course_s_tower_is_the_package_s():
    ours, theirs = finished.tower(1, [(4, 2), (2, 2)]), convolutions(LAYERS, 1, ((4, 2), (2, 2)))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values())))
    clips = torch.rand(1, 1, 9, 8, 8)
    torch.testing.assert_close(ours(clips), theirs(clips))


def test_the_strips_show_what_their_labels_say():
    clips, names = drawings.twins_from_the_start()
    assert clips.shape == (8, 1, 28, 28, 28) and names[6:] == ("square first", "disc first")
    for twin in range(0, 8, 2):
        first, second = ({frame.numpy().tobytes() for frame in clips[k, 0]} for k in (twin, twin + 1))
        assert first == second
    bright = (clips.float() > 180).sum(dim=(1, 3, 4))  # [8, T]
    assert bright[0, 0] < bright[0, 13] < bright[0, 27] and bright[1, 0] > bright[1, 13] > bright[1, 27]
    assert torch.equal(clips[6, 0, 0], clips[7, 0, 18]) and torch.equal(clips[6, 0, 9], clips[7, 0, 9])


@pytest.mark.parametrize(
    "draw",
    [
        drawings.four_networks,
        drawings.filter_in_slices,
        drawings.cnn_with_attention,
        lambda: drawings.pyramid({"slow": [(4, 2), (2, 2), (2, 2)]}),
        lambda: drawings.one_frame_each(finished.frame_by_frame),
        lambda: drawings.film_rows(*drawings.twins_from_the_start()),
        lambda: drawings.coin_curves({"early_fusion": [[0.7, 0.1]], "single_frame": [[0.7, 0.7]]}),
        lambda: drawings.both_ways({"one": ([0.9, 0.8], [0.1, 0.2])}, "grow"),
        lambda: drawings.five_networks(
            {
                "rows": [
                    {
                        "row": name,
                        "test": {"acc": {"mean": 0.5, "sd": 0.1, "runs": [0.4, 0.5, 0.6]}},
                        "history": {"val_acc": [[0.1, 0.5]] * 3},
                    }
                    for name in ("single_frame", "cnn3d")
                ]
            }
        ),
    ],
)
def test_the_drawings_can_be_read(draw):
    assert_readable(draw())


def test_the_pyramid_counts_as_the_formula_does():
    words = drawings.pyramid({"slow": [(4, 2), (2, 2), (2, 2)], "threes": [(3, 1), (3, 1)]}).alt_text
    assert "slow: 4, 6, 10 frames" in words and "threes: 3, 5 frames" in words
