"""Attention: both its paths, torch's own as reference, gradients, numbers of fewer bits."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.references import VIVITS, attentions, max_difference, noise, randomise, small
from vivit_edu import ConfigError, FactorisedDotProductAttention, MultiHeadAttention
from vivit_edu import attention as attention_module
from vivit_edu.attention import attend, attention_weights, over_space, over_time


def tokens_for(module, *, dim=24, seed=0, dtype=torch.float32):
    """Tokens in the shape that a module takes."""
    shape = (2, 3, 5, dim) if isinstance(module, FactorisedDotProductAttention) else (2, 7, dim)
    return (4 * noise(*shape, seed=seed) - 2).to(dtype)


def modules(dim=24, heads=4, **options):
    return [
        randomise(kind(dim, heads, **options)).eval() for kind in (MultiHeadAttention, FactorisedDotProductAttention)
    ]


@pytest.fixture(autouse=True, params=["plain", "fused"])
def path(request, monkeypatch):
    """Each test runs on both paths, of which a CPU would take the fused one."""
    if request.node.name.startswith("test_which"):
        return
    monkeypatch.setattr(attention_module, "plain_is_faster", lambda queries: request.param == "plain")


def test_weights_by_hand():
    """Two queries, two keys of width 4: softmax of 0 and 2 ln 3 / √4 gives 1/4 and 3/4."""
    queries = torch.eye(2, 4)
    keys = torch.tensor([[0.0, 0, 0, 0], [2 * torch.log(torch.tensor(3.0)), 0, 0, 0]])
    assert torch.allclose(attention_weights(queries, keys), torch.tensor([[0.25, 0.75], [0.5, 0.5]]))


def test_path_with_record_equals_fused_path():
    q, k, v = (4 * noise(3, 2, 4, 7, 6) - 2).unbind()
    record = []
    assert max_difference(attend(q, k, v), attend(q, k, v, record=record)) < 1e-5
    assert record[0].shape == (2, 4, 7, 7)
    for module in modules():
        tokens = tokens_for(module)
        fused = module(tokens)
        module.record = []
        assert max_difference(fused, module(tokens)) < 1e-5
        module.record = None
        assert torch.equal(fused, module(tokens))


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_recorded_rows_are_shares(name):
    """In a whole model: each row sums to 1, no weight is negative, the logits stay what they were."""
    model = randomise(small(name))
    clips = noise(2, *model.config.clip_shape)
    plain = model(clips)
    for module in attentions(model):
        module.record = []
    assert max_difference(plain, model(clips)) < 1e-5
    n_t, s = model.grid
    sides = set()
    for module in attentions(model):
        assert len(module.record) == (2 if name == "factorised_dot_product" else 1)
        for weights in module.record:
            assert weights.min() >= 0 and (weights.sum(dim=-1) - 1).abs().max() < 1e-5
            assert weights.shape[-1] == weights.shape[-2]
            sides.add(weights.shape[-1])
    assert sides == ({n_t * s} if name == "spacetime" else {s, n_t})


@torch.no_grad()
def test_equals_torchs_attention():
    ours = randomise(MultiHeadAttention(24, 4)).eval()
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).eval()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    tokens = tokens_for(ours)
    ours.record = []
    expected, weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
    assert max_difference(ours(tokens), expected) < 1e-5
    assert max_difference(ours.record[0], weights) < 1e-5


@torch.no_grad()
def test_model_4_heads_are_spatial_first():
    """W_O that keeps one half of its input shows what the other half of the heads has seen."""
    attention = randomise(FactorisedDotProductAttention(24, 4)).eval()
    nn.init.eye_(attention.out.weight)
    nn.init.zeros_(attention.out.bias)
    tokens = tokens_for(attention)
    other = tokens.clone()
    other[:, 0] = noise(2, 5, 24, seed=1)  # another first time index
    changed = (attention(tokens) - attention(other)).abs() > 1e-6  # [B, T', S, D]
    assert not changed[:, 1:, :, :12].any()  # space: other times see nothing of it
    assert changed[:, 1:, :, 12:].any(dim=-1).all()  # time: all of them do


@pytest.mark.parametrize("apply, axis", [(over_space, 2), (over_time, 1)])
@torch.no_grad()
def test_factorised_over_one_axis(apply, axis):
    """Slice by slice, with a loop in place of the fold into the batch."""
    attention = randomise(MultiHeadAttention(24, 4)).eval()
    tokens = 4 * noise(2, 3, 5, 24) - 2  # [B, T', S, D]
    slices = tokens.unbind(dim=3 - axis)  # the other axis: 1 for space, 2 for time
    looped = torch.stack([attention(part) for part in slices], dim=3 - axis)
    assert max_difference(apply(attention, tokens), looped) < 1e-5


@pytest.mark.parametrize("kind", [MultiHeadAttention, FactorisedDotProductAttention])
@pytest.mark.parametrize("recorded", [False, True])
def test_gradients(kind, recorded):
    attention = randomise(kind(4, 2)).double()
    shape = (1, 2, 3, 4) if kind is FactorisedDotProductAttention else (1, 3, 4)
    tokens = (2 * noise(*shape).double() - 1).requires_grad_()

    def forward(tokens, *parameters):  # gradcheck moves the parameters where they are
        attention.record = [] if recorded else None
        return attention(tokens)

    assert torch.autograd.gradcheck(forward, (tokens, *attention.parameters()))


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_bfloat16_stays_near_float32(name):
    """Eight bits of mantissa: an error of about 1/256 of a value at each step, and few of them add up."""
    torch.manual_seed(0)
    model = small(name)  # as initialised: with `randomise` the softmax turns on a bit
    nn.init.normal_(model.head.weight)
    clips = noise(4, *model.config.clip_shape)
    exact = model(clips)
    for inexact in (autocast(model, clips), model.bfloat16()(clips.bfloat16())):
        assert inexact.isfinite().all()
        assert max_difference(inexact.float(), exact) < 0.03 * exact.abs().max()


def autocast(model, clips):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(clips)


@pytest.mark.parametrize("recorded", [False, True])
def test_dropout_of_weights(recorded):
    """Weights are dropped, not values: with all values 1, outputs sum what was kept, 1 on average."""
    torch.manual_seed(0)
    q, k = (noise(2, 50, 4, 20, 6)).unbind()
    record = [] if recorded else None
    kept = attend(q, k, torch.ones_like(q), dropout=0.25, record=record)
    assert kept.std() > 0.01 and kept.mean().item() == pytest.approx(1, abs=0.01)
    if recorded:
        assert (record[0].sum(dim=-1) - 1).abs().max() < 1e-5  # the record holds them before dropout


def test_initial_values():
    """W_Q, W_K, W_V and W_O are each a D×D Xavier matrix; one drawn for all of qkv would be smaller."""
    torch.manual_seed(0)
    for kind in (MultiHeadAttention, FactorisedDotProductAttention):
        attention = kind(128, 4)
        for weight in (*attention.qkv.weight.chunk(3), attention.out.weight):
            assert weight.std().item() == pytest.approx((1 / 128) ** 0.5, rel=0.05)
        assert attention.qkv.bias.abs().max() == 0 and attention.out.bias.abs().max() == 0


def test_nothing_is_dropped_out_unasked():
    for attention in modules():
        x = noise(2, 3, 5, 24) if isinstance(attention, FactorisedDotProductAttention) else noise(2, 5, 24)
        assert torch.equal(attention.train()(x), attention.eval()(x))


def test_attention_drops_nothing_unasked():
    q, k, v = noise(3, 2, 2, 5, 4).unbind()
    assert torch.allclose(attend(q, k, v), attention_weights(q, k) @ v, atol=1e-6)


def test_advice_that_is_followed_helps():
    """The number of heads that a refusal names is one that is taken."""
    for dim in (24, 30, 31):
        with pytest.raises(ConfigError, match=rf"heads that divide it: .*\b{dim}\]"):
            MultiHeadAttention(dim, 7)
        MultiHeadAttention(dim, dim)
    for dim, fits in ((128, r"\[1, 2, 4, 8, 16, 32\]"), (66, r"\[1, 2, 3, 6, 11, 22\]")):  # more than 32 are not named
        with pytest.raises(ConfigError, match=fits):
            MultiHeadAttention(dim, 7)
    with pytest.raises(ConfigError, match="heads=3 is odd; take 4 or"):
        FactorisedDotProductAttention(24, 3)


def test_heads_that_do_not_divide():
    for kind in (MultiHeadAttention, FactorisedDotProductAttention):
        with pytest.raises(
            ConfigError, match=r"dim=24 cannot be shared by heads=5; heads that divide it: \[1, 2, 3, 4, 6"
        ):
            kind(24, 5)
        with pytest.raises(ConfigError, match="heads=0"):
            kind(24, 0)
    with pytest.raises(ConfigError, match="heads=3 is odd"):
        FactorisedDotProductAttention(24, 3)


@pytest.mark.parametrize("kind, fused", [(torch.bfloat16, False), (torch.float32, True), (torch.float64, True)])
def test_which_kernel_is_used(monkeypatch, kind, fused):
    """Without a record it is torch's fused kernel, which never makes the N×N weights; but for bfloat16 on a CPU."""
    calls = []
    plain = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *args, **rest: calls.append(1) or plain(*args, **rest)
    )
    q, k, v = noise(3, 1, 2, 5, 4).to(kind).unbind()
    attend(q, k, v)
    assert len(calls) == fused
    attend(q, k, v, record=[])
    assert len(calls) == fused
