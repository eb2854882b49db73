"""Attention maps have the promised shapes, and rollout is what dense N×N algebra gives."""

import pytest
import torch
from einops import rearrange

from tests.references import VIVITS
from tests.tiny import TINY, tiny_sizes
from vivit_edu import build_model
from vivit_edu.errors import ConfigError
from vivit_edu.explain import (
    METHODS,
    all_maps,
    attention_maps,
    faithfulness,
    input_gradient,
    masked_logits,
    organ_scores,
    relevance,
    rollout,
    to_voxels,
)

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
    model = build_model(name, clip_shape=(1, 8, 8, 8), num_classes=3, pool=pool, **(tiny_sizes(name) | options)).eval()
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


# ---- wrapped models, other types, other modes, nothing at all


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_in_place(model):
    model.compile(backend="eager")
    return model


def compiled_inside(model):
    for name, module in list(model.named_modules()):
        if name.endswith("attention"):
            module.compile(backend="aot_eager")
    return model


def distributed(model):
    return torch.nn.parallel.DistributedDataParallel(model)


def averaged_twice_wrapped(model):
    return compiled(torch.optim.swa_utils.AveragedModel(torch.nn.DataParallel(model)))


WRAPPERS = [compiled, compiled_in_place, compiled_inside, torch.nn.DataParallel, distributed]
WRAPPERS += [torch.optim.swa_utils.AveragedModel, averaged_twice_wrapped]


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", WRAPPERS, ids=lambda wrap: wrap.__name__)
def test_a_wrapped_model_has_the_maps_of_the_model_inside(wrap, clips, process_group):
    plain = sharp("factorised_encoder")
    wrapped = wrap(sharp("factorised_encoder"))
    with torch.no_grad():
        wrapped(clips)  # what is compiled is compiled now
    for ours, theirs in zip(attention_maps(wrapped, clips), attention_maps(plain, clips)):
        assert (ours.layer, ours.kind) == (theirs.layer, theirs.kind)
        torch.testing.assert_close(ours.weights, theirs.weights)
    for name, method in METHODS.items():
        options = {"progress": False} if name == "occlusion" else {}
        torch.testing.assert_close(method(wrapped, clips, **options), method(plain, clips, **options), msg=name)
    scores = rollout(plain, clips)
    assert torch.equal(to_voxels(wrapped, scores), to_voxels(plain, scores))
    assert all(module.record is None for module in plain.modules() if hasattr(module, "record"))


def test_wrapped_models_are_scored_too(clips):
    plain = sharp("spacetime")
    wrapped, scores = torch.nn.DataParallel(plain), rollout(plain, clips)
    keep = torch.ones(B, 1, T, S, dtype=torch.bool)
    torch.testing.assert_close(masked_logits(wrapped, clips, keep, progress=False)[:, 0], plain(clips))
    found, expected = (faithfulness(model, clips, scores, progress=False)["map"] for model in (wrapped, plain))
    assert found.gain == expected.gain
    assert torch.equal(all_maps(wrapped, clips, methods={"rollout": rollout}, progress=False)["rollout"], scores)


def test_averaged_weights_are_the_ones_explained(clips):
    model = sharp("spacetime")
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(rollout(averaged, clips), rollout(sharp("spacetime"), clips))


def test_a_module_that_only_looks_like_a_wrapper_is_not_opened(clips):
    class Doubled(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    with pytest.raises(ConfigError, match="got Doubled"):
        rollout(Doubled(sharp("spacetime")), clips)
    with pytest.raises(ConfigError, match="got Linear"):
        rollout(compiled(torch.nn.Linear(2, 2)), clips)


@pytest.mark.parametrize("name", VIVITS)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_maps_of_models_in_other_types(name, kind, clips):
    """Maps are in float32 at least, whatever the model computes in, and near those of float32."""
    exact, model = sharp(name), sharp(name).to(kind)
    wide = torch.float64 if kind == torch.float64 else torch.float32
    for m in attention_maps(model, clips.to(kind)):
        assert m.weights.dtype == wide
    for title, method in METHODS.items():
        options = {"progress": False} if title == "occlusion" else {"classes": [0, 1]} if "re" in title[:2] else {}
        found, expected = method(model, clips.to(kind), **options), method(exact, clips, **options)
        assert found.dtype == wide, title
        if title in ("last layer", "rollout"):  # the others depend on a class's logit, which these weights make steep
            torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0)
        assert found.isfinite().all()


@pytest.mark.parametrize("name", VIVITS)
def test_maps_under_autocast(name, clips):
    model = sharp(name)
    with torch.autocast("cpu", torch.bfloat16):
        found = [method(model, clips) for method in METHODS.values()]
    torch.testing.assert_close(found[1], rollout(model, clips), atol=0.05, rtol=0)
    assert all(scores.dtype == torch.float32 and scores.isfinite().all() for scores in found)


@pytest.mark.parametrize("name", VIVITS)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_maps_are_the_same_where_gradients_are_off(name, mode, clips):
    model, classes = sharp(name), torch.tensor([2, 0])
    for title, method in METHODS.items():
        options = {} if title in ("last layer", "rollout") else {"classes": classes}
        outside = method(model, clips, **options)
        with mode():
            inside = method(model, clips.clone(), **{key: value.clone() for key, value in options.items()})
        torch.testing.assert_close(inside, outside, msg=title)


def test_a_model_built_under_inference_mode_is_refused_with_what_helps(clips):
    from copy import deepcopy

    with torch.inference_mode():
        model = sharp("spacetime")
    rollout(model, clips)
    for method in (relevance, input_gradient):
        with pytest.raises(ConfigError, match=r"torch.inference_mode.*copy.deepcopy\(model\)"):
            method(model, clips)
        assert method(deepcopy(model), clips).isfinite().all()


@pytest.mark.parametrize("name", VIVITS)
def test_an_empty_batch_is_refused_in_words(name, clips):
    model, none = sharp(name), clips[:0]
    calls = [lambda method=method: method(model, none) for method in METHODS.values()]
    calls += [
        lambda: attention_maps(model, none),
        lambda: masked_logits(model, none, torch.ones(0, 1, T, S, dtype=torch.bool)),
        lambda: faithfulness(model, none, torch.zeros(0, T, S)),
        lambda: all_maps(model, none),
        lambda: organ_scores(model, torch.zeros(0, T, S), torch.zeros(0, 8, 8, 8)),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="B = 0; give at least one"):
            call()
    assert len(to_voxels(model, torch.zeros(0, T, S))) == 0


@pytest.mark.parametrize("shape", [(T, S), (B, S, T + 1), (B, T * S), (B, 1, T, S), (B, 8, 8, 8)])
def test_what_does_not_fit_the_grid_is_refused(shape, clips):
    model = sharp("spacetime")
    with pytest.raises(ConfigError, match=r"expected \[B, nt, S\] = \[B, 4, 4\]"):
        to_voxels(model, torch.zeros(shape))
    if shape != (B, 1, T, S):
        with pytest.raises(ConfigError, match=r"expected \[B, M, nt, S\] = \[2, 1 or more, 4, 4\]"):
            masked_logits(model, clips, torch.zeros(shape, dtype=torch.bool))
