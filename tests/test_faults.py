"""Known faults of other implementations: each with a property that ours has and the faulty lacks.

A property is a function that raises AssertionError. Every one is run on our four models, where it must hold,
and on models with the fault, where it must not: a test that a wrong model
passes would be no test.

Faults of attention maps (rollout without keepdim) stand in test_explain, of central frame initialisation in
test_pretrained.
"""

import pytest
import torch
from einops import rearrange
from torch import nn

from tests.references import VIVITS, attentions, max_difference, noise, randomise, small
from vivit_edu import attention, embedding, vivit


def model_of(name, **options):
    return randomise(small(name, **options))


def both_pools():
    """(name, pool) of all models, with and without a cls token."""
    return [(name, "mean") for name in VIVITS] + [(name, "cls") for name in VIVITS[:2]]


def rejects(check, *arguments):
    with pytest.raises(AssertionError):
        check(*arguments)


# ---- a clip's logits do not depend on what else is in the batch -------------------------------------


@torch.no_grad()
def check_batch_mates(model):
    clips = noise(5, *model.config.clip_shape)
    together = model(clips)
    alone = torch.cat([model(clip[None]) for clip in clips])
    assert max_difference(together, alone) < 1e-5
    others = torch.cat((clips[:1], noise(4, *model.config.clip_shape, seed=1)))
    assert max_difference(model(others)[0], together[0]) < 1e-5


@pytest.mark.parametrize("name, pool", both_pools())
def test_batch_mates(name, pool):
    check_batch_mates(model_of(name, pool=pool))


class BatchSecond(nn.Module):
    """The fault: torch's attention takes [N, B, D] unless it is told batch_first=True."""

    def __init__(self, right):
        super().__init__()
        self.attention = nn.MultiheadAttention(right.out.in_features, right.heads)
        self.attention.in_proj_weight.data = right.qkv.weight.data

    def forward(self, tokens):
        return self.attention(tokens, tokens, tokens)[0]


@pytest.mark.parametrize("name", VIVITS[:3])
def test_batch_mates_tells_attention_over_the_batch(name):
    model = model_of(name)
    for block in (
        module for module in model.modules() if isinstance(module, (vivit.Block, vivit.FactorisedSelfAttentionBlock))
    ):
        for part, module in list(block.named_children()):
            if isinstance(module, attention.MultiHeadAttention):
                setattr(block, part, BatchSecond(module))
    rejects(check_batch_mates, model)


@pytest.mark.parametrize("right, wrong", [("(b t) d -> b t d", "(t b) d -> b t d")])
def test_batch_mates_tells_a_mixed_up_model_2(right, wrong, monkeypatch):
    """The fault: time indices folded into the batch and unfolded in the other order."""
    monkeypatch.setattr(vivit, "rearrange", lambda x, p, **n: rearrange(x, p.replace(right, wrong), **n))
    rejects(check_batch_mates, model_of("factorised_encoder"))


@pytest.mark.parametrize("function", ["over_space", "over_time"])
def test_batch_mates_tells_a_mixed_up_model_3(function, monkeypatch):
    wrong = {"(b t) s d -> b t s d": "(t b) s d -> b t s d", "(b s) t d -> b t s d": "(s b) t d -> b t s d"}
    pattern = {"over_space": "(b t) s d -> b t s d", "over_time": "(b s) t d -> b t s d"}[function]
    monkeypatch.setattr(attention, "rearrange", lambda x, p, **n: rearrange(x, wrong[p] if p == pattern else p, **n))
    rejects(check_batch_mates, model_of("factorised_self_attention"))


# ---- dropout and stochastic depth act in train() and not in eval() ------------------------------------


@torch.no_grad()
def check_eval_is_deterministic(model):
    clips = noise(3, *model.config.clip_shape)
    assert torch.equal(model.eval()(clips), model.eval()(clips))


@torch.no_grad()
def check_train_is_random(model):
    clips = noise(3, *model.config.clip_shape)
    torch.manual_seed(0)
    assert not torch.equal(model.train()(clips), model.train()(clips))


@pytest.mark.parametrize("name, pool", both_pools())
@pytest.mark.parametrize("option", ["dropout", "drop_path"])
def test_dropout_only_in_training(name, pool, option):
    model = model_of(name, pool=pool, depth=3, **{option: 0.5})
    check_eval_is_deterministic(model)
    check_train_is_random(model)
    rejects(check_train_is_random, model_of(name, pool=pool))


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_dropout_reaches_the_attention_weights(name):
    """With all nn.Dropout modules gone, the attention's own dropout is what is left."""
    model = model_of(name, dropout=0.5)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    check_eval_is_deterministic(model)
    check_train_is_random(model)


@pytest.mark.parametrize("name", VIVITS)
def test_eval_is_deterministic_tells_attention_that_ignores_it(name, monkeypatch):
    """The fault: F.scaled_dot_product_attention(dropout_p=0.5), which knows nothing of train() and eval()."""
    right = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda q, k, v, *, dropout, record: right(q, k, v, dropout=0.5, record=record)
    )
    rejects(check_eval_is_deterministic, model_of(name))


# ---- positions ----------------------------------------------------------------------------------------


def check_positions_learn(model):
    """Each position embedding is a parameter, saved with the model, and gets a gradient from the logits."""
    wanted = ["positions"]
    if isinstance(model, vivit.FactorisedEncoder) and model.temporal_encoder is not None:
        wanted.append("temporal_positions")
    parameters = dict(model.named_parameters())
    assert set(wanted) <= set(parameters) and set(wanted) <= set(model.state_dict())
    model(noise(2, *model.config.clip_shape)).square().sum().backward()
    for name in wanted:
        gradient = parameters[name].grad
        assert gradient is not None and gradient.flatten(0, -2).abs().sum(dim=-1).min() > 0  # every position's


@pytest.mark.parametrize("name, pool", both_pools())
def test_positions_learn(name, pool):
    check_positions_learn(model_of(name, pool=pool))


@pytest.mark.parametrize("name", VIVITS)
def test_positions_learn_tells_plain_tensors(name):
    """The fault: positions that are an attribute and no parameter."""
    model = model_of(name)
    fixed = model.positions.detach()
    del model.positions
    model.positions = fixed
    rejects(check_positions_learn, model)


@torch.no_grad()
def check_order_matters(model, axis):
    """Two whole tubelets that change places along an axis (2 time, 3 height, 4 width) change the logits.

    Nothing but positions can do that: attention and the mean do not care for order.
    """
    clips = noise(2, *model.config.clip_shape)
    step = model.config.tubelet[axis - 2]
    first, second, rest = clips.split([step, step, clips.shape[axis] - 2 * step], dim=axis)
    swapped = torch.cat((second, first, rest), dim=axis)
    assert max_difference(model(clips), model(swapped)) > 1e-3


@pytest.mark.parametrize("axis", [2, 3, 4], ids=["time", "height", "width"])
@pytest.mark.parametrize("name, pool", both_pools())
def test_order_matters(name, pool, axis):
    check_order_matters(model_of(name, pool=pool), axis)


@pytest.mark.parametrize("axis", [2, 3, 4], ids=["time", "height", "width"])
@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_order_matters_tells_missing_positions(name, axis):
    """The fault: positions that are the same along an axis; for Model 2, a temporal encoder without any."""
    model = model_of(name)
    if name == "factorised_encoder" and axis == 2:
        model.temporal_positions.zero_()
    else:
        n_t, n_h, n_w = model.embedding.grid
        t = 1 if name == "factorised_encoder" else n_t
        grid = model.positions.view(t, n_h, n_w, -1)
        grid.copy_(grid.mean(dim=axis - 2, keepdim=True).expand_as(grid))
    rejects(check_order_matters, model, axis)


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_without_a_temporal_encoder_time_has_no_order(pool):
    """Not a fault but the definition: temporal_depth=0 averages over time (the paper's baseline)."""
    model = model_of("factorised_encoder", temporal_depth=0, pool=pool)
    rejects(check_order_matters, model, 2)
    check_order_matters(model, 3)


# ---- logits are logits, and nothing follows the MLP's second linear map ---------------------------------


@torch.no_grad()
def check_head_is_linear(model, head):
    """Doubling head weights and biases doubles the output; a softmax or a ReLU after them would not."""
    clips = noise(4, *model.config.clip_shape)
    once = model(clips)
    for parameter in head.parameters():
        parameter.mul_(-2)
    assert max_difference(model(clips), -2 * once) < 1e-4


@pytest.mark.parametrize("name, pool", both_pools())
def test_logits_are_not_activated(name, pool):
    model = model_of(name, pool=pool)
    check_head_is_linear(model, model.head)


@pytest.mark.parametrize("fault", [nn.Softmax(dim=-1), nn.Sigmoid(), nn.ReLU()], ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("name", VIVITS)
def test_logits_are_not_activated_tells_a_softmax(name, fault):
    model = model_of(name)
    head = model.head
    model.head = nn.Sequential(head, fault)
    rejects(check_head_is_linear, model, head)


@torch.no_grad()
def check_mlp_ends_linear(mlp, dim):
    tokens = noise(2, 7, dim) * 4 - 2
    once = mlp(tokens)
    for parameter in [module for module in mlp.modules() if isinstance(module, nn.Linear)][1].parameters():
        parameter.mul_(-1)
    assert max_difference(mlp(tokens), -once) < 1e-5


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh"])
def test_mlp_ends_linear(activation):
    config = vivit.ViViTConfig(dim=24, mlp_dim=48, activation=activation)
    check_mlp_ends_linear(randomise(vivit.MLP(config)), 24)
    rejects(check_mlp_ends_linear, nn.Sequential(randomise(vivit.MLP(config)), nn.GELU()), 24)


# ---- every voxel is seen ---------------------------------------------------------------------------------


def unseen_voxels(embed, clip_shape):
    """How many voxels of a clip do not reach the tokens."""
    clips = noise(1, *clip_shape).requires_grad_()
    weights = noise(*embed(clips).shape, seed=1)
    (embed(clips) * weights).sum().backward()
    return (clips.grad == 0).sum().item()


def check_every_voxel_is_seen(embed, clip_shape):
    assert unseen_voxels(embed, clip_shape) == 0


@pytest.mark.parametrize("clip_shape, tubelet", [((1, 8, 8, 8), (2, 4, 4)), ((2, 6, 9, 4), (3, 3, 2))])
def test_every_voxel_is_seen_where_tubelets_tile(clip_shape, tubelet):
    check_every_voxel_is_seen(embedding.TubeletEmbedding(clip_shape, 6, tubelet), clip_shape)


@pytest.mark.parametrize(
    "clip_shape, tubelet",
    [((1, 7, 8, 8), (2, 4, 4)), ((1, 28, 28, 28), (8, 8, 8)), ((1, 4, 5, 7), (2, 3, 4))],
)
def test_no_voxel_is_dropped_in_silence(clip_shape, tubelet):
    with pytest.raises(ValueError, match="would be left over"):
        embedding.TubeletEmbedding(clip_shape, 6, tubelet)
    check_every_voxel_is_seen(embedding.TubeletEmbedding(clip_shape, 6, tubelet, remainder="pad"), clip_shape)
    silent = nn.Conv3d(clip_shape[0], 6, kernel_size=tubelet, stride=tubelet)  # the fault, in its usual form
    rejects(check_every_voxel_is_seen, silent, clip_shape)


def test_keras_example_sees_63_percent():
    """8³ tubelets on 28³, as in Keras' ViViT example: 37 % of the voxels are never seen."""
    silent = nn.Conv3d(1, 4, kernel_size=8, stride=8)
    assert unseen_voxels(silent, (1, 28, 28, 28)) / 28**3 == pytest.approx(0.37, abs=0.005)


# ---- factorised attention sees what it should and nothing else --------------------------------------------


def reach(model, t, s):
    """[T', S]: which tokens after one block depend on the token at time t, place s."""
    config, (n_t, n_s) = model.config, model.grid
    tokens = noise(1, n_t, n_s, config.dim).requires_grad_()
    flat = isinstance(model, vivit.SpaceTime)
    block = model.encoder.blocks[0]
    out = block(rearrange(tokens, "b t s d -> b (t s) d")).unflatten(1, (n_t, n_s)) if flat else block(tokens)
    seen = torch.zeros(n_t, n_s, dtype=torch.bool)
    for i in range(n_t):
        for j in range(n_s):
            (gradient,) = torch.autograd.grad(out[0, i, j].square().sum(), tokens, retain_graph=True)
            seen[i, j] = gradient[0, t, s].abs().sum() > 0
    return seen


def test_reach_of_one_block():
    """From one token, Models 1 and 3 reach every other in one block, Model 4 its own time and place."""
    for name in ("spacetime", "factorised_self_attention"):
        assert reach(model_of(name, depth=1), 1, 2).all()
    cross = torch.zeros(3, 8, dtype=torch.bool)
    cross[1, :] = cross[:, 2] = True
    assert torch.equal(reach(model_of("factorised_dot_product", depth=1), 1, 2), cross)


def test_models_have_the_attentions_they_should():
    """Model 3 has twice as many attentions as blocks; the others one a block."""
    counts = {name: len(attentions(model_of(name, depth=2))) for name in VIVITS}
    assert counts == dict(zip(VIVITS, (2, 4, 4, 2), strict=True))
