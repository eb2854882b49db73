"""Numbers: exact gradients, a bound for bfloat16, and clips of one grey.

gradcheck holds the backward pass against differences of the forward one in float64. What it would find wrong here is a
part that is cut out of the graph (a detach, a record that is kept instead of used) or changed in place. The attention
modules themselves are held so in test_attention.
"""

import pytest
import torch

from tests.references import VIVITS, noise, randomise, small
from vivit_edu import MODELS, build_model
from vivit_edu.attention import MultiHeadAttention, attend, over_space, over_time
from vivit_edu.embedding import FrameEmbedding, TubeletEmbedding
from vivit_edu.vivit import Block, FactorisedDotProductBlock, FactorisedSelfAttentionBlock, ViViTConfig

CONFIG = ViViTConfig(dim=4, heads=2, mlp_dim=6)
GRID = (2, 2, 3, 4)  # [B, T', S, D]


def exact(module, shape):
    """gradcheck by the input and by every parameter."""
    module = randomise(module).double().eval()
    names, parameters = zip(*module.named_parameters())
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def forward(x, *values):
        return torch.func.functional_call(module, dict(zip(names, values)), (x,))

    return torch.autograd.gradcheck(forward, (x, *(p.detach().requires_grad_() for p in parameters)))


@pytest.mark.parametrize(
    "module, shape",
    [
        (Block(CONFIG), (2, 3, 4)),
        (FactorisedSelfAttentionBlock(CONFIG), GRID),
        (FactorisedDotProductBlock(CONFIG), GRID),
        (TubeletEmbedding((1, 4, 4, 4), 3, (2, 2, 2)), (2, 1, 4, 4, 4)),
        (FrameEmbedding((1, 4, 4, 4), 3, (2, 2, 2)), (2, 1, 4, 4, 4)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
def test_gradients_are_exact(module, shape):
    assert exact(module, shape)


@pytest.mark.parametrize("over", [over_space, over_time])
def test_gradients_are_exact_where_an_axis_joins_the_batch(over):
    attention = randomise(MultiHeadAttention(4, 2)).double()
    x = torch.rand(GRID, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda tokens: over(attention, tokens), x)


@pytest.mark.parametrize("tokens", [5, 70])
@pytest.mark.parametrize("recorded", [False, True], ids=["fused", "plain"])
def test_both_paths_of_attention_have_exact_gradients(tokens, recorded):
    """In float64 the fused kernel is taken, unless the weights are recorded."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = (
        torch.randn(1, 1, tokens, 2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    )
    record = [] if recorded else None
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, record=record), (q, k, v), fast_mode=True)


@pytest.mark.parametrize("name", VIVITS)
def test_whole_models_have_exact_gradients(name):
    model = randomise(
        small(name, clip_shape=(1, 4, 4, 4), tubelet=(2, 2, 2), dim=4, heads=2, mlp_dim=6, depth=1, num_classes=2)
    ).double()
    clips = noise(1, 1, 4, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(model, clips)


BOUND = 0.02  # of the largest logit: bfloat16 keeps 8 bits, an error of 2⁻⁹ in each operation


@pytest.mark.parametrize("name", VIVITS)
def test_bfloat16_stays_near_float32(name):
    """On models as they are initialised, a full six layers deep, logits and the gradient of every parameter."""
    torch.manual_seed(0)
    model = build_model(name).eval()
    torch.nn.init.normal_(model.head.weight)  # with the usual small head all logits are near 0
    clips, found = noise(4, 1, 28, 28, 28), {}
    for kind in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            logits = model(clips)
        model.zero_grad()
        logits.float().square().mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
        found[kind] = logits.detach().float(), gradient
    (logits, gradient), (rough, rough_gradient) = found.values()
    assert (rough - logits).abs().max() <= BOUND * logits.abs().max()
    assert (rough_gradient - gradient).norm() <= 2 * BOUND * gradient.norm()
    assert not torch.equal(rough, logits), "it was not computed in bfloat16"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_clip_of_one_grey_gives_finite_logits_and_gradients(name, grey):
    torch.manual_seed(0)
    sizes = {"tubelet": (7, 7, 7), "dim": 16, "depth": 2, "mlp_dim": 32} if name in VIVITS else {}
    model = build_model(name, **sizes).train()
    logits = model(torch.full((2, 1, 28, 28, 28), grey))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
