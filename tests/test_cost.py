"""Counted FLOPs are what a formula gives, ViViT-B costs what the paper says, memory is what is alive."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vivit_edu import Recipe, build_model
from vivit_edu.cost import PAPER, attention_pairs, count_flops, count_parameters, peak_memory, time_step
from vivit_edu.errors import ConfigError
from vivit_edu.explain.weights import recorded_attention
from vivit_edu.vivit import MLP

MiB = 2**20
VIVIT = tuple(PAPER)  # Models 1 to 4 in order
SMALL = {
    "clip_shape": (1, 8, 8, 12),
    "num_classes": 3,
    "tubelet": (2, 4, 4),
    "dim": 24,
    "depth": 3,
    "heads": 2,
    "mlp_dim": 40,
}


def small(name, temporal_depth=2, **changes):
    """The options of a small model; Model 2 alone has a second encoder."""
    return SMALL | changes | ({"temporal_depth": temporal_depth} if name == "factorised_encoder" else {})


def multiply_adds(name, *, clip_shape, num_classes, tubelet, dim, depth, mlp_dim, temporal_depth=0, **rest):
    """Of one clip, from the paper's equations; the number of heads does not matter."""
    channels, *size = clip_shape
    n_t, n_h, n_w = (full // step for full, step in zip(size, tubelet))
    n, s = n_t * n_h * n_w, n_h * n_w
    embedding = n * dim * channels * tubelet[0] * tubelet[1] * tubelet[2]
    projections, mlp = 4 * dim**2, 2 * dim * mlp_dim  # a token
    if name == "spacetime":
        layers = depth * (n * (projections + mlp) + 2 * dim * n**2)
    elif name == "factorised_encoder":
        layers = depth * n_t * (s * (projections + mlp) + 2 * dim * s**2)
        layers += temporal_depth * (n_t * (projections + mlp) + 2 * dim * n_t**2)
    elif name == "factorised_self_attention":
        layers = depth * (n * (2 * projections + mlp) + 2 * dim * (n * s + n * n_t))
    else:
        layers = depth * (n * (projections + mlp) + 2 * (dim // 2) * (n * s + n * n_t))
    return embedding + layers + dim * num_classes


@pytest.mark.parametrize("name", VIVIT)
def test_flops_are_those_of_the_formula_and_those_of_the_fused_kernels(name):
    model = build_model(name, **small(name))
    expected = 2 * multiply_adds(name, **small(name))
    assert count_flops(model, SMALL["clip_shape"]) == expected
    assert count_flops(model, SMALL["clip_shape"], batch=3) == 3 * expected
    clips = torch.rand(1, *SMALL["clip_shape"])
    with torch.no_grad(), recorded_attention(model), FlopCounterMode(display=False) as counter:
        model(clips)  # computed for real, on the plain path
    assert counter.get_total_flops() == expected


def test_the_fused_kernel_counts_as_much_as_the_plain_path():
    model = build_model("spacetime", **SMALL)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.rand(1, *SMALL["clip_shape"]))
    if "flash_attention_for_cpu" not in str(counter.get_flop_counts()):
        pytest.skip("this torch's counter does not know the fused CPU kernel (count_flops avoids it)")
    assert counter.get_total_flops() == count_flops(model, SMALL["clip_shape"])


def test_counting_leaves_the_model_as_it_was():
    model = build_model("spacetime", **SMALL, dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    count_flops(model, SMALL["clip_shape"])
    assert model.training and all(p.device.type == "cpu" for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def paper_model(name, pool, **changes):
    with torch.device("meta"):
        options = {**Recipe.preset("paper-b").options, "pool": pool, **changes}
        return build_model(name, clip_shape=(3, 32, 224, 224), num_classes=400, **options)


@pytest.mark.parametrize("name, pool", list(zip(VIVIT, ("cls", "cls", "mean", "mean"))))
def test_vivit_b_has_the_papers_parameters_and_gflops(name, pool):
    model = paper_model(name, pool)
    parameters, gflops = PAPER[name]
    assert count_parameters(model) / 1e6 == pytest.approx(parameters, abs=0.1)
    # the paper counts a multiply-add once; and a little that torch's counter leaves out
    counted = count_flops(model, (3, 32, 224, 224)) / 2e9
    assert 0.99 * gflops < counted < gflops


def test_average_pooling_over_time_costs_what_the_paper_says():
    model = paper_model("factorised_encoder", "cls", temporal_depth=0)
    assert count_parameters(model) / 1e6 == pytest.approx(86.7, abs=0.1)
    assert 0.99 * 283.9 < count_flops(model, (3, 32, 224, 224)) / 2e9 < 283.9


def test_model_4_has_model_1s_parameters():
    models = [build_model(name, **SMALL) for name in ("spacetime", "factorised_dot_product")]
    assert count_parameters(models[0]) == count_parameters(models[1])


def test_frozen_parameters_do_not_count():
    linear = torch.nn.Linear(3, 4)
    assert count_parameters(linear) == 16
    linear.bias.requires_grad_(False)
    assert count_parameters(linear) == 12


# ---- attention's pairs


@pytest.mark.parametrize("name", VIVIT)
@pytest.mark.parametrize("n_t, n_s", [(4, 6), (3, 5), (1, 7)])
def test_pairs_are_the_weights_that_a_layer_holds(name, n_t, n_s):
    options = small(name, clip_shape=(1, 2 * n_t, 4, 4 * n_s), depth=1, temporal_depth=1)
    model = build_model(name, **options)
    with torch.no_grad(), recorded_attention(model) as record:
        model(torch.rand(1, *options["clip_shape"]))
    assert attention_pairs(name, n_t, n_s) * options["heads"] == sum(weights.numel() for weights in record)


def test_unknown_attention_is_refused():
    with pytest.raises(ConfigError, match="'model5'.*spacetime"):
        attention_pairs("model5", 4, 16)


# ---- time and memory


def test_peak_memory_is_the_worst_moment():
    x = torch.ones(MiB)  # 4 MiB, there before

    def three_at_once():
        y = x * 2
        z = y + 1
        del y
        w = z + 1
        z += w
        return z.sum(dim=0, keepdim=True) + x  # when it is made, z and w are still there, y is not

    assert peak_memory(three_at_once) == 12 * MiB + 4
    assert peak_memory(lambda: x.view(2, -1).transpose(0, 1)[1:]) == 0  # views hold nothing
    assert peak_memory(lambda: x.add_(1)) == 0
    assert peak_memory(lambda: [x + 1 for _ in range(3)]) == 12 * MiB
    assert peak_memory(lambda: sum(float((x + 1)[0]) for _ in range(3))) < 5 * MiB


def test_what_takes_the_place_of_something_freed_counts_again():
    x = torch.ones(MiB)

    def small_then_large():
        for _ in range(100):
            x[:1] + 1
        return [x + 1 for _ in range(3)]

    assert peak_memory(small_then_large) == 12 * MiB


def test_training_holds_on_to_what_the_backward_pass_needs():
    model = build_model("spacetime", **{**SMALL, "tubelet": (1, 1, 1)})
    clips = torch.rand(1, *SMALL["clip_shape"])

    def forward():
        model(clips)

    with torch.no_grad():
        inference = peak_memory(forward)
        with recorded_attention(model):
            kept = peak_memory(forward)
    training = peak_memory(lambda: model(clips).sum().backward())
    weights = 4 * SMALL["depth"] * SMALL["heads"] * 768**2  # bytes; 768 tokens
    assert inference < weights / 3 < weights < kept
    assert inference < training


def test_time_step_takes_time_and_leaves_no_gradients():
    mlp = MLP(build_model("spacetime", **SMALL).config)
    short, long = torch.rand(1, 4, 24), torch.rand(2000, 40, 24)
    assert 0 < time_step(mlp, short, repeats=3) < time_step(mlp, long, repeats=1)
    assert time_step(mlp, long, backward=False, repeats=3) < time_step(mlp, long, repeats=3)
    assert all(p.grad is None for p in mlp.parameters())


@pytest.mark.parametrize("backward", [True, False])
def test_time_step_runs_what_it_was_asked_to(backward):
    linear, passes = torch.nn.Linear(3, 2), {"forward": 0, "backward": 0}
    linear.register_forward_hook(lambda *_: passes.update(forward=passes["forward"] + 1))
    linear.weight.register_hook(lambda _: passes.update(backward=passes["backward"] + 1))
    time_step(linear, torch.rand(1, 3), backward=backward, repeats=4)
    assert passes == {"forward": 5, "backward": 5 * backward}  # one to warm up
