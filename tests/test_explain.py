"""Attention maps have the promised shapes, and rollout is what dense N×N algebra gives."""

import pytest
import torch
from einops import rearrange

from tests.references import VIVITS
from tests.tiny import TINY
from vivit_edu import build_model
from vivit_edu.errors import ConfigError
from vivit_edu.explain.rollout import rollout, to_voxels
from vivit_edu.explain.weights import attention_maps

B, T, S, HEADS = 2, 4, 4, 2  # of the tiny models: 8³ voxels in tubelets of 2×4×4
VARIANTS = [
    ("spacetime", "mean"),
    ("spacetime", "cls"),
    ("factorised_encoder", "mean"),
    ("factorised_encoder", "cls"),
    ("factorised_self_attention", "mean"),
    ("factorised_dot_product", "mean"),
]


@pytest.fixture
def clips():
    return torch.rand(B, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def sharp(name, pool="mean", **options):
    """A model whose attention is far from uniform, so that a wrong order or axis shows."""
    torch.manual_seed(1)
    model = build_model(name, clip_shape=(1, 8, 8, 8), num_classes=3, pool=pool, **{**TINY, **options}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model


@pytest.mark.parametrize("name, pool", VARIANTS)
def test_every_row_sums_to_one_and_shapes_are_as_promised(name, pool, clips):
    cls = int(pool == "cls")
    shapes = {
        "spacetime": [("joint", (B, HEADS, T * S + cls, T * S + cls))] * 2,
        "factorised_encoder": [("space", (B, T, HEADS, S + cls, S + cls))] * 2
        + [("time", (B, HEADS, T + cls, T + cls))],
        "factorised_self_attention": [("space", (B, T, HEADS, S, S)), ("time", (B, S, HEADS, T, T))] * 2,
        "factorised_dot_product": [("space", (B, T, HEADS // 2, S, S)), ("time", (B, S, HEADS // 2, T, T))] * 2,
    }[name]
    maps = attention_maps(sharp(name, pool), clips)
    assert [(m.kind, tuple(m.weights.shape)) for m in maps] == shapes
    for m in maps:
        torch.testing.assert_close(m.weights.sum(dim=-1), torch.ones(m.weights.shape[:-1]))
    layers = [m.layer for m in maps]
    assert layers == ([0, 0, 1, 1] if "self" in name or "dot" in name else list(range(len(maps))))


@pytest.mark.parametrize("name", VIVITS)
def test_asking_for_the_weights_changes_no_logit_and_leaves_nothing_behind(name, clips):
    from vivit_edu.explain.weights import recorded_attention

    model = sharp(name)
    with torch.no_grad():
        fused = model(clips)
        with recorded_attention(model):
            plain = model(clips)
        assert torch.equal(model(clips), fused)
    torch.testing.assert_close(plain, fused, atol=1e-5, rtol=1e-5)
    assert all(getattr(m, "record", None) is None for m in model.modules())


@pytest.mark.parametrize("name", VIVITS)
def test_a_clips_weights_are_its_own(name, clips):
    """Folding space or time into the batch and back must not mix up the clips."""
    model = sharp(name)
    for both, alone in zip(attention_maps(model, clips), attention_maps(model, clips[1:])):
        torch.testing.assert_close(both.weights[1:], alone.weights)


# ---- rollout against dense algebra: every attention lifted to N×N by loops over tokens


def lift(m, n_t, s):
    """The mean over heads as a dense [B, N, N] matrix, token n = t·S + place."""
    a = m.weights.mean(dim=-3)
    dense = torch.zeros(len(a), n_t * s, n_t * s)
    for t in range(n_t):
        for i in range(s):
            if m.kind == "space":
                for j in range(s):
                    dense[:, t * s + i, t * s + j] = a[:, t, i, j]
            else:
                for u in range(n_t):
                    dense[:, t * s + i, u * s + i] = a[:, i, t, u]
    return dense


def halve(a):
    return (a + torch.eye(a.shape[-1])) / 2


@pytest.mark.parametrize("name, pool", VARIANTS)
def test_rollout_is_the_dense_product(name, pool, clips):
    model = sharp(name, pool)
    maps = attention_maps(model, clips)
    if name == "spacetime":
        r = halve(maps[1].weights.mean(1)) @ halve(maps[0].weights.mean(1))
        expected = r.mean(1) if pool == "mean" else r[:, 0, 1:] / r[:, 0, 1:].sum(-1, keepdim=True)
    elif name == "factorised_encoder":
        first, second, time = (m.weights.mean(-3) for m in maps)
        r_space, r_time = halve(second) @ halve(first), halve(time)
        if pool == "mean":
            per_frame, per_time = r_space.mean(-2), r_time.mean(-2)
        else:
            per_frame, per_time = r_space[:, :, 0, 1:], r_time[:, 0, 1:]
            per_frame, per_time = (x / x.sum(-1, keepdim=True) for x in (per_frame, per_time))
        expected = rearrange(torch.einsum("b t, b t s -> b t s", per_time, per_frame), "b t s -> b (t s)")
    else:
        r = torch.eye(T * S)
        for space, time in zip(maps[::2], maps[1::2]):
            a_space, a_time = lift(space, T, S), lift(time, T, S)
            if name == "factorised_dot_product":
                r = halve((a_space + a_time) / 2) @ r
            else:
                r = halve(a_time) @ halve(a_space) @ r
        expected = r.mean(1)
    found = rollout(model, clips)
    torch.testing.assert_close(found, rearrange(expected, "b (t s) -> b t s", t=T))
    torch.testing.assert_close(found.sum(dim=(1, 2)), torch.ones(B))


def test_rollout_without_temporal_encoder_is_uniform_over_time(clips):
    found = rollout(sharp("factorised_encoder", temporal_depth=0), clips)
    torch.testing.assert_close(found.sum(dim=2), torch.full((B, T), 1 / T))


# ---- voxels


@pytest.mark.parametrize("remainder, size, covered", [("refuse", 8, 8), ("crop", 9, 8), ("pad", 7, 7)])
def test_a_tubelets_score_lies_on_its_voxels(remainder, size, covered):
    options = {**TINY, "tubelet": (4, 4, 4), "remainder": remainder}
    model = build_model("spacetime", clip_shape=(1, size, size, size), num_classes=3, **options)
    scores = torch.zeros(1, 2, 4)
    scores[0, 1, 2] = 1.0  # late, below, left
    voxels = to_voxels(model, scores)
    assert voxels.shape == (1, size, size, size)
    expected = torch.zeros(size, size, size)
    expected[4:covered, 4:covered, :4] = 1
    assert torch.equal(voxels[0], expected)


def test_models_without_attention_are_refused():
    with pytest.raises(ConfigError, match="Models 1 to 4, got Linear"):
        attention_maps(torch.nn.Linear(2, 2), torch.zeros(1, 2))
