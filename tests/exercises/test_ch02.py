"""Chapter 02: what its checks accept and refuse, and that its cells build what the package has."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import reduce

from vivit_edu import build_model
from vivit_edu.authoring.masters import checkout, load_definitions, read
from vivit_edu.course.checks import ch02

from .cases import run_cases

# ---- 02.1


def layer_by_layer(layers):
    seen, apart, result = 1, 1, []
    for span, step in layers:
        seen += (span - 1) * apart
        apart *= step
        result.append(seen)
    return result


def backwards(layers):
    result = []
    for depth in range(1, len(layers) + 1):
        seen = 1
        for span, step in reversed(layers[:depth]):
            seen = (seen - 1) * step + span
        result.append(seen)
    return tuple(result)


def without_strides(layers):
    return layer_by_layer([(span, 1) for span, _ in layers])


def own_stride(layers):
    seen, apart, result = 1, 1, []
    for span, step in layers:
        apart *= step
        seen += (span - 1) * apart
        result.append(seen)
    return result


def product(layers):
    seen, result = 1, []
    for span, _ in layers:
        seen *= span
        result.append(seen)
    return result


def in_numpy(layers):
    return np.array(layer_by_layer(layers))


test_frames_seen = run_cases(
    ch02.check_frames_seen,
    right=[in_numpy, layer_by_layer, backwards],
    wrong={
        "spans added": (lambda layers: np.cumsum([span for span, _ in layers]), "keep two numbers"),
        "the stride before alone": (
            lambda layers: [
                1 + sum((s - 1) * (layers[i - 1][1] if i else 1) for i, (s, _) in enumerate(layers[: n + 1]))
                for n in range(len(layers))
            ],
            "keep two numbers",
        ),
        "strides of 2": (
            lambda layers: [
                1 + sum((s - 1) * 2**i for i, (s, _) in enumerate(layers[: n + 1])) for n in range(len(layers))
            ],
            "keep two numbers",
        ),
        "the notebook's answer": (lambda layers: [4, 6, 10], "one number a layer"),
        "the clip too": (lambda layers: [1, *layer_by_layer(layers)], "one number a layer"),
        "steps multiplied": (lambda layers: np.cumprod([step for _, step in layers]), "keep two numbers"),
        "no strides": (without_strides, "strides are left out"),
        "own stride": (own_stride, "own stride counts only"),
        "product": (product, "do not multiply"),
        "spans": (lambda layers: [span for span, _ in layers], "in features of the layer before"),
        "from zero": (lambda layers: [n - 1 for n in layer_by_layer(layers)], "begin with 1"),
        "only the last": (lambda layers: layer_by_layer(layers)[-1:], "one number a layer"),
        "a number": (lambda layers: layer_by_layer(layers)[-1], "a list is expected"),
        "nothing": (lambda layers: None, "return"),
        "not written": (lambda layers: (_ for _ in ()).throw(NotImplementedError()), "still to be written"),
    },
)

# ---- 02.2


def by_pooling(clips):
    h, w = clips.shape[-2:]
    return F.avg_pool3d(clips, (1, 2, 2)), clips[..., h // 4 : h // 4 + h // 2, w // 4 : w // 4 + w // 2]


def by_views(clips):
    b, c, t, h, w = clips.shape
    context = clips.reshape(b, c, t, h // 2, 2, w // 2, 2).mean(dim=(4, 6))
    return [context, clips.narrow(3, h // 4, h // 2).narrow(4, w // 4, w // 2)]


def context_by(function):
    return lambda clips: (function(clips), by_pooling(clips)[1])


def fovea_by(function):
    return lambda clips: (by_pooling(clips)[0], function(clips))


def by_einops(clips):
    top, left = clips.shape[3] // 4, clips.shape[4] // 4
    context = reduce(clips, "b c t (h i) (w j) -> b c t h w", "mean", i=2, j=2)
    return context, clips[:, :, :, top : top + clips.shape[3] // 2, left : left + clips.shape[4] // 2]


test_two_streams = run_cases(
    ch02.check_two_streams,
    right=[by_einops, by_pooling, by_views],
    wrong={
        "square frames": (
            fovea_by(
                lambda c: c[..., c.shape[4] // 4 :, :][..., : c.shape[4] // 2, c.shape[4] // 4 :][
                    ..., : c.shape[4] // 2
                ]
            ),
            "fovea has shape",
        ),
        "the notebook's sizes": (fovea_by(lambda c: c[..., 7:21, 7:21]), "fovea has shape"),
        "the last corner": (fovea_by(lambda c: c[..., -(c.shape[3] // 2) :, -(c.shape[4] // 2) :]), "fovea is wrong"),
        "begins a pixel late": (fovea_by(lambda c: by_pooling(c.roll(-1, -1))[1]), "fovea is wrong"),
        "one channel": (context_by(lambda c: F.avg_pool3d(c[:, :1], (1, 2, 2))), "context has shape"),
        "a stride of 1": (context_by(lambda c: F.avg_pool3d(c, (1, 2, 2), stride=1)), "context has shape"),
        "the context detached": (context_by(lambda c: F.avg_pool3d(c.detach(), (1, 2, 2))), "gradient of .* is not"),
        "the fovea detached": (fovea_by(lambda c: by_pooling(c.data)[1]), "gradient of .* is not"),
        "exchanged": (lambda clips: by_pooling(clips)[::-1], "context comes first"),
        "every second": (context_by(lambda clips: clips[..., ::2, ::2]), "mean of 2×2"),
        "time too": (context_by(lambda clips: F.avg_pool3d(clips, 2)), "time was halved"),
        "largest": (context_by(lambda clips: F.max_pool3d(clips, (1, 2, 2))), "largest"),
        "corner": (fovea_by(lambda clips: clips[..., :5, :7]), "corner"),
        "context twice": (fovea_by(lambda clips: by_pooling(clips)[0]), "full one"),
        "too small": (fovea_by(lambda clips: clips[..., 3:5, 5:8]), "too small"),
        "ends at H - H // 4": (
            fovea_by(lambda c: c[..., c.shape[3] // 4 : -(c.shape[3] // 4), c.shape[4] // 4 : -(c.shape[4] // 4)]),
            "only where 4 divides it",
        ),
        "one stream": (lambda clips: by_pooling(clips)[0], "expected two things"),
    },
)

# ---- 02.3


def in_one_line(logits):
    return logits.softmax(dim=1).mean(dim=0)


def in_a_loop(logits):
    return sum(torch.exp(row) / torch.exp(row).sum() for row in logits) / len(logits)


def in_logarithms(logits):
    return (logits.log_softmax(1).logsumexp(0) - math.log(len(logits))).exp()


test_video_probabilities = run_cases(
    ch02.check_video_probabilities,
    right=[in_logarithms, in_one_line, in_a_loop],
    wrong={
        "geometric mean": (lambda logits: logits.log_softmax(1).mean(0).exp(), "is wrong in 3"),
        "always five views": (lambda logits: logits.softmax(1).sum(0) / 5, "is wrong in 7"),
        "median": (lambda logits: logits.softmax(1).median(0).values, "is wrong in 3"),
        "the class": (lambda logits: logits.softmax(1).mean(0).argmax(), "0 axes instead of 1"),
        "an axis kept": (lambda logits: logits.softmax(1).mean(0, keepdim=True), "2 axes instead of 1"),
        "sigmoid": (lambda logits: logits.sigmoid().mean(0), "is wrong in 3"),
        "without gradients": (torch.no_grad()(lambda logits: logits.softmax(1).mean(0)), "no gradient reaches"),
        "float32 whatever comes": (lambda logits: logits.float().softmax(1).mean(0), "with tensors of float64"),
        "logits first": (lambda logits: logits.mean(0).softmax(0), "logits were averaged"),
        "logits": (lambda logits: logits.mean(0), "these are logits"),
        "over views": (lambda logits: logits.softmax(0).mean(0), "ran over the views"),
        "one view": (lambda logits: logits[0].softmax(0), "only one view"),
        "votes": (lambda logits: torch.bincount(logits.argmax(1), minlength=3) / len(logits), "vote"),
        "sum": (lambda logits: logits.softmax(1).sum(0), "divide by the number"),
        "most certain": (lambda logits: logits.softmax(1).amax(0), "not the maximum"),
        "all views": (lambda logits: logits.softmax(1), "has shape"),
    },
)

# ---- the cells


def test_the_fusions_of_the_chapter_are_the_packages():
    path = checkout() / "notebooks" / "02_what_cnns_do_with_time.ipynb"
    chapter = load_definitions(path)
    for _, cell in read(path).code:  # what the class reads and is no literal, so not loaded with the definitions
        if cell.source.startswith(("takes = ", "layers, nodes = ")):
            exec(cell.source, chapter.__dict__)
    clips = torch.rand(2, 1, 28, 28, 28)
    for name in ("single_frame", "early_fusion", "late_fusion", "slow_fusion"):
        theirs = build_model(name, num_classes=8)
        ours = chapter.Fusion(name)
        ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values())))
        torch.testing.assert_close(ours(clips), theirs(clips))
