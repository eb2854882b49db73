"""The workarounds for faults of torch apply where they are needed and nowhere else; wrappers are opened."""

import pytest
import torch
from torch import nn

from tests.references import max_difference, noise, small
from vivit_edu import ConfigError, build_model, count_flops
from vivit_edu.support.torch_faults import float32_on_cpu, plain_is_faster, readable
from vivit_edu.support.wrapped import uncompiled, unwrapped


def test_where_plain_products_are_faster():
    for kind, plain in ((torch.bfloat16, True), (torch.float32, False), (torch.float64, False), (torch.float16, False)):
        assert plain_is_faster(torch.zeros(1, 1, 2, 2, dtype=kind)) == plain
    assert not plain_is_faster(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16, device="meta"))


def test_3d_convolutions_on_a_cpu_stay_in_float32_under_autocast():
    layer, seen = nn.Linear(2, 2), []
    with torch.autocast("cpu", torch.bfloat16):
        with float32_on_cpu():
            seen.append(layer(torch.zeros(1, 2)).dtype)
        seen.append(layer(torch.zeros(1, 2)).dtype)
        hidden = []
        model = build_model("cnn3d", clip_shape=(1, 8, 16, 16))
        model.stages.register_forward_hook(lambda module, given, made: hidden.append(made.dtype))
        model(noise(1, 1, 8, 16, 16))
    assert seen == [torch.float32, torch.bfloat16] and hidden == [torch.float32]


def test_which_values_can_be_looked_at():
    assert readable(torch.zeros(1)) and not readable(torch.zeros(0)) and not readable(torch.zeros(1, device="meta"))


@pytest.mark.parametrize("name, tokenizer", [("spacetime", "tubelet"), ("factorised_dot_product", "frames")])
def test_a_model_compiles_as_one_graph(name, tokenizer):
    """A check that looked at values would break the graph, and fullgraph=True refuses that."""
    model, clips = small(name, tokenizer=tokenizer), noise(2, 2, 6, 6, 12)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert max_difference(compiled(clips), model(clips)) < 1e-6
        with pytest.raises(ConfigError, match=r"got \[2, 2, 6, 6, 6\]"):
            model(clips[..., :6])


def test_wrappers_are_opened_and_nothing_else():
    model = nn.Linear(2, 2)
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(model))
    assert unwrapped(model) is model and unwrapped(nn.DataParallel(model)) is model
    assert unwrapped(torch.compile(nn.DataParallel(torch.compile(model)))) is model
    assert type(unwrapped(averaged)) is nn.Linear and unwrapped(averaged) is not model  # its own, averaged weights
    holder = nn.Sequential()
    holder.module = model
    assert unwrapped(holder) is holder


def test_compiled_parts_run_uncompiled_on_request():
    torch.compiler.reset()  # of what other tests compiled
    model, calls = nn.Sequential(nn.Linear(2, 2)), []

    def backend(graph, _):
        calls.append("compiled")
        return lambda *given: calls.append("ran") or graph(*given)

    model[0].compile(backend=backend)
    model(torch.zeros(1, 2))
    with uncompiled(model):
        model(torch.zeros(1, 2))
    assert calls == ["compiled", "ran"]
    model(torch.zeros(1, 2))
    assert calls == ["compiled", "ran", "ran"]


def test_flops_of_wrapped_models_can_be_counted():
    model, shape = small("factorised_encoder"), (2, 6, 6, 12)
    for wrapped in (nn.DataParallel(model), torch.compile(model), torch.optim.swa_utils.AveragedModel(model)):
        assert count_flops(wrapped, shape) == count_flops(model, shape)
