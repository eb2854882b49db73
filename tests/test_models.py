"""Building models by name: options, messages, stochastic depth, odd input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import vivit_edu
from tests.references import VIVITS, max_difference, noise, randomise, small
from vivit_edu import ConfigError, build_model
from vivit_edu.datasets.bars import walking_bars
from vivit_edu.models import model_options
from vivit_edu.vivit import (
    Block,
    DropPath,
    FactorisedDotProductBlock,
    FactorisedEncoder,
    FactorisedSelfAttentionBlock,
    ViViTConfig,
)


@pytest.mark.parametrize("name", VIVITS)
def test_defaults(name):
    """As the course uses them: 28³, 11 classes, 7³ tubelets."""
    torch.manual_seed(0)
    model = build_model(name).eval()
    logits = model(noise(2, 1, 28, 28, 28))
    assert logits.shape == (2, 11) and logits.isfinite().all()
    assert model.grid == (4, 16)
    assert name in vivit_edu.MODELS


def test_the_courses_sizes():
    """What chapters, recorded tables and saved models mean by a model of which nothing is said."""
    assert ViViTConfig() == ViViTConfig(
        clip_shape=(1, 28, 28, 28),
        num_classes=11,
        tubelet=(7, 7, 7),
        tokenizer="tubelet",
        remainder="refuse",
        dim=128,
        depth=6,
        temporal_depth=4,
        heads=4,
        mlp_dim=512,
        pool="mean",
        dropout=0.0,
        drop_path=0.0,
        activation="gelu",
    )


def test_the_least_of_every_size_is_taken():
    least = {"num_classes": 1, "dim": 1, "heads": 1, "depth": 1, "temporal_depth": 0, "mlp_dim": 1}
    for name in VIVITS[:3]:
        options = {option: value for option, value in least.items() if option in ("num_classes", *model_options(name))}
        assert build_model(name, **options)(noise(1, 1, 28, 28, 28)).shape == (1, 1)
    for option in least:
        with pytest.raises(ConfigError, match=option):
            build_model("factorised_encoder", **least | {option: least[option] - 1})


@pytest.mark.parametrize("name", VIVITS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_clips_give_finite_logits_and_gradients(name, value):
    torch.manual_seed(0)
    model = small(name)
    logits = model(torch.full((2, *model.config.clip_shape), value))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", VIVITS)
def test_every_parameter_learns(name):
    """Each parameter gets a gradient; dead weights would be a mistake in forward."""
    for pool in ("mean", "cls") if name in VIVITS[:2] else ("mean",):
        model = randomise(small(name, pool=pool))
        model(noise(2, *model.config.clip_shape)).square().sum().backward()
        for parameter_name, parameter in model.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", VIVITS)
def test_seed_gives_the_same_model(name):
    def built(seed):
        torch.manual_seed(seed)
        return small(name).state_dict()

    first, again, other = built(1), built(1), built(2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["positions"], other["positions"])


@pytest.mark.parametrize("name", VIVITS)
def test_state_dict_round_trip(name, tmp_path):
    model, other = randomise(small(name)), small(name)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    clips = noise(2, *model.config.clip_shape)
    assert torch.equal(model(clips), other(clips))


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_remainder_reaches_the_model(name):
    for remainder, grid in (("pad", (4, 3, 5)), ("crop", (3, 2, 4))):
        model = randomise(small(name, clip_shape=(2, 7, 7, 13), remainder=remainder))
        assert model.embedding.grid == grid
        assert model(noise(2, 2, 7, 7, 13)).isfinite().all()


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_frames_tokenizer(name):
    """A model of frames sees one frame in t, and no voxel of the others."""
    model = randomise(small(name, tokenizer="frames"))
    clips = noise(2, *model.config.clip_shape)
    changed = clips.clone()
    changed[:, :, 0::2] = 0  # tubelets of 2 frames: those at 1, 3, 5 are taken
    assert torch.equal(model(clips), model(changed))
    changed[:, :, 1] = 0
    assert not torch.equal(model(clips), model(changed))


# ---- Model 2 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "cls"])
@torch.no_grad()
def test_temporal_depth_0_is_the_mean_over_time(pool):
    model = randomise(small("factorised_encoder", temporal_depth=0, pool=pool))
    assert not any(name.startswith("temporal") for name, _ in model.named_parameters())
    clips = noise(2, *model.config.clip_shape)
    one_frame = randomise(small("factorised_encoder", temporal_depth=0, pool=pool, clip_shape=(2, 2, 6, 12)))
    one_frame.load_state_dict(model.state_dict())
    each = torch.stack([one_frame(part) for part in clips.split(2, dim=2)])  # logits of each time index alone
    assert max_difference(model(clips), each.mean(dim=0)) < 1e-5


@torch.no_grad()
def test_model_2_encodes_each_time_index_alike():
    """The same content at every time index gives the temporal encoder the same vector."""
    model = randomise(small("factorised_encoder"))
    seen = []
    model.temporal_encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model(noise(2, 2, 2, 6, 12).repeat(1, 1, 3, 1, 1))
    vectors = seen[0] - model.temporal_positions  # [B, T', D]
    assert max_difference(vectors, vectors[:, :1].expand_as(vectors)) < 1e-5


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_depths_of_model_2(depth):
    model = small("factorised_encoder", depth=4, temporal_depth=depth)
    assert len(model.spatial_encoder.blocks) == 4 and len(model.temporal_encoder.blocks) == depth
    assert isinstance(model.spatial_encoder.norm, nn.LayerNorm)  # it ends in its own
    assert len(build_model("factorised_encoder").temporal_encoder.blocks) == 4


# ---- cls tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIVITS[:2])
@torch.no_grad()
def test_cls_tokens(name):
    """pool="cls" reads one more token with a position of its own; pool="mean" has none at all."""
    mean, cls = small(name), randomise(small(name, pool="cls"))
    added = set(dict(cls.named_parameters())) - set(dict(mean.named_parameters()))
    assert added == ({"cls", "temporal_cls"} if name == "factorised_encoder" else {"cls"})
    assert cls.positions.shape[1] == mean.positions.shape[1] + 1
    clips = noise(2, *cls.config.clip_shape)
    before = cls(clips)
    cls.cls.add_(noise(24))
    assert max_difference(before, cls(clips)) > 1e-3


@pytest.mark.parametrize("name", VIVITS[:2])
@torch.no_grad()
def test_head_reads_the_cls_token_alone(name):
    """The head's input is the last encoder's first token."""
    model = randomise(small(name, pool="cls"))
    encoder = model.temporal_encoder if isinstance(model, FactorisedEncoder) else model.encoder
    seen = {}
    encoder.register_forward_hook(lambda module, args, output: seen.update(encoder=output))
    model.head.register_forward_pre_hook(lambda module, args: seen.update(head=args[0]))
    model(noise(2, *model.config.clip_shape))
    assert torch.equal(seen["head"], seen["encoder"][:, 0])


@pytest.mark.parametrize("name", VIVITS[2:])
def test_models_3_and_4_have_no_cls(name):
    with pytest.raises(ConfigError, match='no cls token.*take pool="mean"'):
        small(name, pool="cls")


# ---- messages ------------------------------------------------------------------------------------


def test_unknown_model_names_the_known():
    with pytest.raises(ConfigError) as caught:
        build_model("space_time")
    assert "'space_time'" in str(caught.value) and all(name in str(caught.value) for name in VIVITS)


def test_unknown_option_names_the_known():
    with pytest.raises(ConfigError) as caught:
        build_model("spacetime", patch_size=7, heads=4)
    assert "patch_size" in str(caught.value) and "tubelet" in str(caught.value) and "mlp_dim" in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(pool="max"), "pool='max' is not known; take one of mean, cls"),
        (dict(tokenizer="patches"), "tokenizer='patches' is not known; take one of tubelet, frames"),
        (dict(activation="relu"), "activation='relu' is not known; take one of gelu, gelu_tanh"),
        (dict(dropout=1.0), "dropout is a share from 0"),
        (dict(drop_path=-0.1), "drop_path is a share from 0"),
        (dict(depth=0), "depth must be at least 1, got 0"),
        (dict(num_classes=0), "num_classes must be at least 1"),
        (dict(clip_shape=(28, 28, 28)), "clip_shape is four positive sizes"),
        (dict(heads=5), "cannot be shared by heads=5"),
        (dict(tubelet=(8, 8, 8)), "do not tile the 28 voxels along time"),
    ],
)
@pytest.mark.parametrize("name", VIVITS)
def test_wrong_options(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_model(name, **options)


@pytest.mark.parametrize("name", VIVITS)
def test_only_model_2_has_a_second_encoder_to_choose_a_depth_for(name):
    alone = name == "factorised_encoder"
    assert ("temporal_depth" in model_options(name)) == alone
    with pytest.raises(ConfigError, match="at least 0" if alone else f"{name} has no option temporal_depth; its opti"):
        build_model(name, temporal_depth=-1)


def test_odd_heads_in_model_4():
    with pytest.raises(ConfigError, match="heads=3 is odd"):
        build_model("factorised_dot_product", dim=126, heads=3)
    for name in VIVITS[:3]:
        build_model(name, dim=126, heads=3)


# ---- stochastic depth ----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [Block, FactorisedSelfAttentionBlock, FactorisedDotProductBlock])
def test_a_block_drops_nothing_unasked(block):
    assert block(ViViTConfig()).drop_path.rate == 0
    assert block(ViViTConfig(drop_path=0.5), 0.3).drop_path.rate == 0.3


def test_drop_path_grows_linearly():
    model = build_model("spacetime", depth=5, drop_path=0.4)
    assert [block.drop_path.rate for block in model.encoder.blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert build_model("spacetime", depth=1, drop_path=0.4).encoder.blocks[0].drop_path.rate == 0
    config = ViViTConfig()
    assert config.drop_path == 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1,), (4, 3), (2, 3, 4)])
def test_drop_path_keeps_the_expectation(rate, shape):
    """A clip keeps its branch, scaled by 1/(1 - rate), or loses the whole of it: as torchvision's does."""
    from torchvision.ops import stochastic_depth

    torch.manual_seed(0)
    n = 20_000
    ours = DropPath(rate).train()(torch.ones(n, *shape)).flatten(1)
    theirs = stochastic_depth(torch.ones(n, *shape), rate, "row", training=True).flatten(1)
    for branch in (ours, theirs):
        assert (branch == branch[:, :1]).all()  # whole clips
        assert sorted(set(branch[:, 0].tolist())) == pytest.approx([0, 1 / (1 - rate)])
        spread = math.sqrt(rate / (1 - rate) / n)  # of the mean of n such draws
        assert branch.mean().item() == pytest.approx(1, abs=5 * spread)


def test_drop_path_in_eval_and_at_rate_0():
    x = noise(4, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_drop_path_acts_on_branches_not_on_tokens():
    """With every branch dropped, a block is the identity: the residual path stays."""
    model = small("factorised_self_attention", drop_path=0.999999, depth=2).train()
    torch.manual_seed(0)
    z = noise(3, *model.grid, 24)
    assert torch.equal(model.encoder.blocks[1](z), z)
    assert not torch.equal(model.encoder.blocks[0](z), z)  # the first block's rate is 0


def bars_loss(name, seed, steps=120, std=None):
    """The training loss on walking bars, whose classes differ only in the order of their frames."""
    train = walking_bars(draws={"train": 4, "val": 1, "test": 1}).train
    torch.manual_seed(seed)
    model = build_model(name, clip_shape=(1, 4, 8, 8), num_classes=2, tubelet=(1, 8, 2), dim=32, depth=2, mlp_dim=64)
    if std is not None:
        torch.nn.init.normal_(model.temporal_positions, std=std)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = F.cross_entropy(model(train.clips.float() / 255), train.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


@pytest.mark.parametrize("name", VIVITS)
def test_every_vivit_learns_what_only_time_tells(name):
    """Model 2 needs temporal positions as large as the vectors that it adds them to."""
    assert max(bars_loss(name, seed) for seed in range(3)) < 0.1


def test_small_temporal_positions_drown_in_model_2():
    assert bars_loss("factorised_encoder", seed=0, std=0.02) > 0.6
