"""Relevance is what dense N×N algebra gives; occlusion, gradient and relevance find what a model looks at."""

import pytest
import torch
from torch import nn

from tests.references import VIVITS
from tests.test_explain import VARIANTS, B, S, T, lift, sharp
from tests.tiny import TINY, tiny_sizes
from vivit_edu import build_model
from vivit_edu.errors import ConfigError
from vivit_edu.explain.faithfulness import METHODS
from vivit_edu.explain.occlusion import cover, masked_logits, occlusion
from vivit_edu.explain.relevance import input_gradient, relevance
from vivit_edu.explain.rollout import last_layer
from vivit_edu.explain.weights import recorded_attention, sort_record

N = T * S
BY_CLASS = [relevance, occlusion, input_gradient]


@pytest.fixture
def clips():
    return torch.rand(B, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))


# ---- relevance and the last layer against dense algebra


def weights_and_gradients(model, clips, classes):
    """The AttentionMaps of (∇A ⊙ A)⁺, head by head, and of A itself."""
    with recorded_attention(model) as record:
        logits = model(clips)
        score = sum(logits[b, k] for b, k in enumerate(classes))
        gradients = torch.autograd.grad(score, record)
    products = [torch.relu(g * a).detach() for g, a in zip(gradients, record)]
    return sort_record(model, products, len(clips)), sort_record(model, [a.detach() for a in record], len(clips))


def accumulate(layers):
    """R ← R + G R, from R = I, written as in the paper."""
    r = torch.eye(layers[0].shape[-1])
    for g in layers:
        r = r + g @ r
    return r


def dense_relevance(name, pool, maps):
    if name == "spacetime":
        r = accumulate([m.weights.mean(1) for m in maps])
        return r[:, 0, 1:] if pool == "cls" else r.mean(1) - 1 / N
    if name == "factorised_encoder":
        cls = int(pool == "cls")
        space = accumulate([m.weights.mean(2) for m in maps if m.kind == "space"])  # [B, T', S, S]
        time = accumulate([m.weights.mean(1) for m in maps if m.kind == "time"])  # [B, T', T']
        pooled = torch.zeros(B, T, N)  # each time index over all tokens, as a dense matrix
        for t in range(T):
            pooled[:, t, t * S : (t + 1) * S] = space[:, t, 0, 1:] if cls else space[:, t].mean(1)
        row = time[:, 0, 1:] if cls else time.mean(1)
        r = torch.einsum("b t, b t n -> b n", row, pooled)
        return r if cls else r - 1 / N
    pairs = [(lift(space, T, S), lift(time, T, S)) for space, time in zip(maps[::2], maps[1::2])]
    if name == "factorised_dot_product":  # the mean over all heads, of which each half has one kind
        return accumulate([(space + time) / 2 for space, time in pairs]).mean(1) - 1 / N
    return accumulate([g for pair in pairs for g in pair]).mean(1) - 1 / N


@pytest.mark.parametrize("name, pool", VARIANTS)
def test_relevance_is_the_dense_recursion(name, pool, clips):
    model, classes = sharp(name, pool), [2, 1]
    products, _ = weights_and_gradients(model, clips, classes)
    expected = dense_relevance(name, pool, products)
    expected = (expected / expected.sum(1, keepdim=True)).unflatten(1, (T, S))
    found = relevance(model, clips, classes)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(B))
    assert (found >= 0).all()


@pytest.mark.parametrize("name, pool", VARIANTS)
def test_the_last_layer_is_read_without_residual(name, pool, clips):
    model = sharp(name, pool)
    _, maps = weights_and_gradients(model, clips, [0, 0])
    space, time = maps[-2], maps[-1]
    if name == "spacetime":
        r = time.weights.mean(1)
        expected = r.mean(1) if pool == "mean" else r[:, 0, 1:] / r[:, 0, 1:].sum(1, keepdim=True)
    elif name == "factorised_encoder":
        a_space, a_time = space.weights.mean(2), time.weights.mean(1)
        a_space, a_time = (
            (a_space[:, :, 0, 1:], a_time[:, 0, 1:]) if pool == "cls" else (a_space.mean(2), a_time.mean(1))
        )
        a_space, a_time = (a / a.sum(-1, keepdim=True) for a in (a_space, a_time))
        expected = (a_time[..., None] * a_space).flatten(1)
    elif name == "factorised_dot_product":
        expected = ((lift(space, T, S) + lift(time, T, S)) / 2).mean(1)
    else:
        expected = (lift(time, T, S) @ lift(space, T, S)).mean(1)
    torch.testing.assert_close(last_layer(model, clips).flatten(1), expected)


def test_relevance_asks_the_class(clips):
    model = sharp("spacetime")
    assert not torch.allclose(relevance(model, clips, [0, 0]), relevance(model, clips, [1, 1]), atol=1e-3)
    with torch.no_grad():
        predicted = model(clips).argmax(1)
    assert torch.equal(relevance(model, clips), relevance(model, clips, predicted))


# ---- a model whose class 1 is the mean brightness, brought to the logits by attention alone


def brightness_model(name, pool="mean"):
    """Uniform attention carries each token's brightness (channel 0) to channel 1, which the head reads: class 1
    is bright, class 0 dark. No LayerNorm, no MLP, no positions: each map can be worked out by hand."""
    model = build_model(name, clip_shape=(1, 8, 8, 8), num_classes=2, pool=pool, **tiny_sizes(name)).eval()
    dim = model.config.dim
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embedding.projection.weight[0] = 1 / model.embedding.projection.weight[0].numel()
        model.head.weight[1, 1], model.head.weight[0, 1] = 1, -1
        for module in model.modules():
            for child, part in module.named_children():
                if isinstance(part, nn.LayerNorm):
                    setattr(module, child, nn.Identity())
            if hasattr(module, "qkv"):
                values = module.qkv.weight[2 * dim :]
                values[1, 0] = values[dim // 2, 0] = 1  # in the first and in the second half of the heads
                module.out.weight[1, 1] = module.out.weight[1, dim // 2] = 1
    return model


def with_bright(tubelet, value=1.0):
    """A clip of zeros but for one tubelet (t, row, column) of 2×4×4 voxels."""
    clip = torch.zeros(1, 1, 8, 8, 8)
    t, j, k = tubelet
    clip[..., 2 * t : 2 * t + 2, 4 * j : 4 * j + 4, 4 * k : 4 * k + 4] = value
    return clip


@pytest.mark.parametrize("method", BY_CLASS)
@pytest.mark.parametrize("name", VIVITS)
def test_the_tubelet_that_counts_is_found(name, method):
    model = brightness_model(name)
    for t, j, k in [(0, 0, 1), (2, 1, 0), (3, 1, 1)]:
        scores = method(model, with_bright((t, j, k)), [1])
        assert scores.flatten().argmax() == t * S + 2 * j + k
        assert scores.flatten().topk(2).values.diff() < -1e-4  # and clearly


def test_signs_follow_the_class_asked_for():
    model, clip = brightness_model("spacetime"), with_bright((1, 0, 1))
    spot = 1 * S + 1
    for method in (occlusion, input_gradient):
        assert method(model, clip, [1]).flatten()[spot] > 0 > method(model, clip, [0]).flatten()[spot]
    assert relevance(model, clip, [0]).abs().max() == 0  # nothing speaks for darkness
    assert relevance(model, clip, [1]).flatten()[spot] == pytest.approx(1)  # and all of it here


@pytest.mark.parametrize("name", VIVITS)
def test_in_a_linear_model_the_gradient_foretells_occlusion_exactly(name, clips):
    """Of this model the logits are linear in the voxels. Turning a tubelet grey must change nothing else."""
    model = brightness_model(name)
    found = input_gradient(model, clips, [1, 1])
    torch.testing.assert_close(found, occlusion(model, clips, [1, 1], progress=False), atol=1e-6, rtol=1e-4)


def test_input_gradient_is_the_slope_of_the_logit(clips):
    """In a model that is no straight line: the derivative along the way to grey, tubelet by tubelet."""
    model = sharp("factorised_self_attention").double()
    clips = clips.double()
    found, classes, step = input_gradient(model, clips, [2, 1]), torch.tensor([2, 1]), 1e-6
    for n in (0, 5, 14):
        keep = torch.ones(B, N, dtype=torch.bool)
        keep[:, n] = False
        grey = cover(model, clips, keep.unflatten(1, (T, S)))
        with torch.no_grad():
            slope = (model(clips) - model(clips + step * (grey - clips))) / step
        torch.testing.assert_close(found.flatten(1)[:, n], slope[torch.arange(B), classes], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("remainder, size", [("crop", 9), ("pad", 7)])
def test_maps_fit_clips_that_tubelets_do_not_tile(remainder, size):
    options = {**TINY, "tubelet": (4, 4, 4), "remainder": remainder}
    model = build_model("spacetime", clip_shape=(1, size, size, size), num_classes=3, **options)
    for method in METHODS.values():
        assert method(model, torch.rand(2, 1, size, size, size)).shape == (2, 2, 4)


# ---- masked passes


def test_masked_passes_are_single_passes_in_order_and_in_batches(clips):
    model = sharp("factorised_encoder")
    keep = torch.rand(B, 5, T, S, generator=torch.Generator().manual_seed(3)) > 0.5
    found = masked_logits(model, clips, keep, batch_size=2, progress=False)
    for b in range(B):
        for m in range(5):
            with torch.no_grad():
                expected = model(cover(model, clips[b : b + 1], keep[b : b + 1, m]))[0]
            torch.testing.assert_close(found[b, m], expected)


def test_covered_voxels_are_the_clips_mean_and_no_others_change(clips):
    model = sharp("spacetime")
    keep = torch.ones(B, T, S, dtype=torch.bool)
    keep[0, 1, 2] = False
    covered = cover(model, clips, keep)
    changed = covered != clips
    assert torch.equal(changed[0, 0].nonzero().amin(0), torch.tensor([2, 4, 0]))
    assert torch.equal(changed[0, 0].nonzero().amax(0), torch.tensor([3, 7, 3]))
    assert not changed[1].any()
    assert covered[changed].unique().item() == pytest.approx(clips[0].mean().item())


def test_explaining_leaves_the_model_as_it_was(clips):
    model = sharp("factorised_dot_product")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in METHODS.values():
        assert not method(model, clips).requires_grad
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("classes", [[0], [0, 3], [0.5, 1.0]])
def test_classes_that_do_not_fit_are_refused(classes, clips):
    with pytest.raises(ConfigError, match="from 0 to 2"):
        relevance(sharp("spacetime"), clips, classes)
