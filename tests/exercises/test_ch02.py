"""Chapter 02: what its checks accept and refuse, and that its cells build what the package has."""

import torch
import torch.nn.functional as F

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


test_frames_seen = run_cases(
    ch02.check_frames_seen,
    right=[layer_by_layer, backwards],
    wrong={
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


test_two_streams = run_cases(
    ch02.check_two_streams,
    right=[by_pooling, by_views],
    wrong={
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


test_video_probabilities = run_cases(
    ch02.check_video_probabilities,
    right=[in_one_line, in_a_loop],
    wrong={
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
