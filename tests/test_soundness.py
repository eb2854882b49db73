"""Numbers that can be trusted: gradients against finite differences, and finite ones for clips that hold nothing."""

import pytest
import torch

from vivit_edu import MODELS, build_model
from vivit_edu.vivit import Block, FactorisedDotProductBlock, FactorisedSelfAttentionBlock, ViViTConfig

from .references import noise, randomise


@pytest.mark.parametrize("block, shape", [(Block, (1, 3, 4)), (FactorisedSelfAttentionBlock, (1, 2, 3, 4)),
                                          (FactorisedDotProductBlock, (1, 2, 3, 4))])  # fmt: skip
def test_gradients_of_a_block_are_those_of_finite_differences(block, shape):
    """Attention over space, over time and over both, with its LayerNorm, residual connection and MLP: float64."""
    layer = randomise(block(ViViTConfig(dim=4, heads=2, mlp_dim=5))).double()
    tokens = (2 * noise(*shape).double() - 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda tokens, *_: layer(tokens), (tokens, *layer.parameters()))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_clips_that_hold_nothing_give_finite_logits_and_gradients(name, value):
    torch.manual_seed(0)
    model = build_model(name)
    logits = model(torch.full((2, *model.config.clip_shape), value))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
