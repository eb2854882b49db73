"""Weights as the world has them: extras, several heads, other grids, configs; what they do not say is said."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.references import VIVITS, authors, max_difference, noise, randomise
from tests.test_pretrained import AUTHORS_OPTIONS, TOLERANCE, ImageModel, repeated, video_model
from vivit_edu import CheckpointError, ConfigError, build_model, load_pretrained
from vivit_edu.pretrained import options_for, resize_filters, resize_positions, resizing

SIZES = [(16, 16), (12, 20), (20, 12), (8, 8), (7, 19), (3, 24), (2, 2), (1, 6), (6, 1), (32, 16)]


def state_of(kind="timm"):
    return dict(ImageModel(kind).model.state_dict())


def said(report, words):
    return any(words in note for note in report.notes)


# ---- resizing ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("old", [(16, 16), (8, 12), (14, 7), (5, 9), (2, 3)])
def test_filters_of_any_shape_are_resized_like_timms(old, size):
    """Up, down, and one side up and the other down, which a cut-off of another precision turned into 1e11."""
    resample = pytest.importorskip("timm.layers.patch_embed").resample_patch_embed
    filters = torch.randn(4, 3, *old, generator=torch.Generator().manual_seed(0))
    resized = resize_filters(filters, size)
    pixels = torch.eye(math.prod(old), dtype=torch.float64).view(-1, 1, *old)
    if size[1] > 1:  # where torch's own resizing is right
        assert max_difference(resized, resample(filters, list(size))) < 1e-3
        b_transposed = nn.functional.interpolate(pixels, size=size, mode="bicubic", antialias=True).flatten(1)
        exact = filters.double().flatten(-2) @ torch.linalg.pinv(b_transposed).T
        assert max_difference(resize_filters(filters.double(), size), exact.unflatten(-1, size)) < 1e-9
    assert resized.abs().max() < 40 * filters.abs().max() and resized.shape[-2:] == size


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_resizing_keeps_the_type_and_computes_in_float64(dtype):
    filters = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    resized, exact = resize_filters(filters, (12, 20)), resize_filters(filters.double(), (12, 20))
    assert resized.dtype == dtype and torch.equal(resized, exact.to(dtype))
    positions = noise(1, 16, 6).to(dtype)
    resized, exact = resize_positions(positions, (3, 7)), resize_positions(positions.double(), (3, 7))
    assert resized.dtype == dtype and torch.equal(resized, exact.to(dtype))


@pytest.mark.parametrize("grid", [(4, 1), (1, 4), (1, 1), (9, 1), (2, 11)])
def test_positions_become_a_column_or_a_row(grid):
    """Constant along what is averaged, and rising along the rest."""
    rows = torch.arange(6.0).repeat_interleave(6).view(1, 36, 1)
    resized = resize_positions(rows, grid).view(grid)
    assert (resized.diff(dim=0) > 0).all()
    expected = resizing(6, grid[0]).float() @ torch.arange(6.0)
    assert max_difference(resized, expected.view(-1, 1).expand(grid)) < 1e-5


# ---- grids of positions --------------------------------------------------------------------------


def test_a_grid_of_four_by_nine_is_not_six_by_six():
    positions = noise(1, 36, 5)
    assert resize_positions(positions, (4, 9)) is positions  # as many as the model has places
    squared = resize_positions(positions, (6, 6), (4, 9))
    assert squared.shape == (1, 36, 5) and not torch.equal(squared, positions)
    rows = torch.arange(4.0).repeat_interleave(9).view(1, 36, 1)
    assert resize_positions(rows, (6, 6), (4, 9)).view(6, 6).diff(dim=1).abs().max() < 1e-5
    with pytest.raises(CheckpointError, match="36 positions do not fill a grid of 5×7"):
        resize_positions(positions, (6, 6), (5, 7))


def hugging_face(tmp_path, *, image_size=16, patch_size=4, **options):
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, num_labels=5)
    config = transformers.ViTConfig(image_size=image_size, patch_size=patch_size, **(sizes | options))
    model = randomise(transformers.ViTForImageClassification(config)).eval()
    model.save_pretrained(tmp_path)
    return model


def model_of(height, width, patch=4, pool="cls", **options):
    return video_model(pool=pool, clip_shape=(3, 3, height, width), tubelet=(3, patch, patch), **options)


@torch.no_grad()
def test_an_oblong_image_transformer(tmp_path):
    """Its config.json says the grid; without it, the model's own is taken where it has as many places, and said."""
    theirs, images = hugging_face(tmp_path, image_size=[16, 36]), noise(2, 3, 16, 36)
    expected = theirs(pixel_values=images).logits
    for weights, is_said in ((tmp_path, True), (theirs.state_dict(), False)):
        model = model_of(16, 36)
        report = load_pretrained(model, weights, heads=4)
        assert report.how("positions") == "taken" and said(report, "taken as 4×9") is not is_said
        assert max_difference(model(repeated(images, 3)), expected) <= TOLERANCE
    square = model_of(24, 24)
    report = load_pretrained(square, tmp_path)
    assert report.rows["positions"] == ("resized", "from 4×9 to 6×6") and not report.notes
    patches = theirs.vit.embeddings.position_embeddings[:, 1:]
    assert torch.equal(square.positions[:, 1:], resize_positions(patches, (6, 6), (4, 9)))
    report = load_pretrained(square, theirs.state_dict(), heads=4)  # nobody can know: it is said
    assert said(report, "do not say in which grid their positions lie: taken as 6×6")
    report = load_pretrained(model_of(12, 12), theirs.state_dict(), heads=4)
    assert report.rows["positions"] == ("resized", "from 6×6 to 3×3") and said(report, "taken as 6×6")


def test_a_config_of_other_weights_is_refused(tmp_path):
    hugging_face(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, says in [
        ({"image_size": 32}, "images of 32×32 in patches of 4×4, which are 64, but the weights have 17 positions"),
        ({"patch_size": 8}, "patches of 8×8, but the filters are of 4×4"),
        ({"hidden_size": 32}, "dim 32, but the weights have 24"),
        ({"num_hidden_layers": 3}, "depth 3, but the weights have 2"),
        ({"intermediate_size": 96}, "mlp_dim 96, but the weights have 48"),
        ({"num_attention_heads": 5}, "heads=5 do not share the width 24"),
        ({"num_attention_heads": "many"}, "num_attention_heads='many', which cannot be right"),
        ({"num_attention_heads": 0}, "num_attention_heads=0, which cannot be right"),
        ({"image_size": [16, -16]}, "cannot be right"),
        ({"hidden_act": "relu"}, "hidden_act='relu', which the models here do not have"),
        ({"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'"),
        ({"layer_norm_eps": 1e-2}, "layer_norm_eps=0.01, and the model's LayerNorms have eps=1e-06"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps='small'"),
        ({"hidden_act": "gelu_new"}, "activation 'gelu_tanh' and 'gelu': build the model with activation='gelu_tanh'"),
        ({"num_attention_heads": 2}, "heads 2 and 4: build the model with heads=2"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        model = video_model(pool="cls")
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=says.replace("[", r"\[")):
            load_pretrained(model, tmp_path)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for harmless in ("[]", "not json", '{"layer_norm_eps": 1e-12, "hidden_act": null}'):
        (tmp_path / "config.json").write_text(harmless)
        load_pretrained(video_model(pool="cls"), tmp_path)


@torch.no_grad()
def test_a_stated_epsilon_goes_into_a_model_that_has_it(tmp_path):
    theirs = hugging_face(tmp_path, layer_norm_eps=1e-2)
    model = video_model(frames=3, pool="cls")
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-2
    load_pretrained(model, tmp_path)
    images = noise(2, 3, 16, 16)
    assert max_difference(model(repeated(images, 3)), theirs(pixel_values=images).logits) <= TOLERANCE


def test_options_for_a_config(tmp_path):
    hugging_face(tmp_path, hidden_act="gelu_pytorch_tanh", num_attention_heads=2)
    expected = {"depth": 2, "dim": 24, "mlp_dim": 48, "heads": 2, "activation": "gelu_tanh"}
    assert options_for(tmp_path) == expected
    report = load_pretrained(video_model(pool="cls", **expected), tmp_path)
    assert not report.notes  # none that contradicts what the file says


@torch.no_grad()
def test_a_cls_token_without_a_position(tmp_path):
    """FlexiViT, DeiT III: timm's no_embed_class. It goes into models of any grid."""
    timm = pytest.importorskip("timm")
    sizes = dict(embed_dim=24, depth=2, num_heads=4, mlp_ratio=2, no_embed_class=True)
    theirs = randomise(timm.models.VisionTransformer(16, 4, 3, 5, **sizes)).eval()
    assert theirs.pos_embed.shape[1] == 16
    model, images = video_model(frames=3, pool="cls"), noise(2, 3, 16, 16)
    report = load_pretrained(model, theirs.state_dict())
    assert report.rows["positions"] == ("taken", "the cls token's is zero, as theirs has none")
    assert max_difference(model(repeated(images, 3)), theirs(images)) <= TOLERANCE
    for name in VIVITS:
        report = load_pretrained(video_model(name, size=24), theirs.state_dict())
        assert report.how("positions").startswith("resized")
    registers = timm.models.VisionTransformer(16, 4, 3, 5, **sizes, reg_tokens=2)
    with pytest.raises(CheckpointError, match="Unknown to it: reg_token"):  # which the other tokens attend to
        load_pretrained(model, registers.state_dict())
    state = theirs.state_dict() | {"pos_embed": noise(1, 21, 24)}
    with pytest.raises(CheckpointError, match="20 or 21 positions make no square grid"):
        load_pretrained(model, state)


# ---- heads ---------------------------------------------------------------------------------------


def flax(name, **changes):
    return authors(name)[1] | changes


def with_heads(weights, part, heads):
    """The same numbers, those of the attentions under `part` cut into another number of heads."""
    cut = {}
    for key, value in weights.items():
        if part in key and "MultiHeadDotProductAttention" in key:
            if key.endswith("out/kernel"):
                value = value.reshape(heads, -1, value.shape[-1])
            elif key.endswith("kernel"):
                value = value.reshape(value.shape[0], heads, -1)
            elif not key.endswith("out/bias"):
                value = value.reshape(heads, -1)
        cut[key] = value
    return cut


@pytest.mark.parametrize(
    "name, model, part, options",
    [
        ("model2_gap", "factorised_encoder", "TemporalTransformer", {"temporal_depth": 1}),
        ("model2_gap", "factorised_encoder", "SpatialTransformer/encoderblock_1", {"temporal_depth": 1}),
        ("model3_space_time", "factorised_self_attention", "Attention_time", {}),
        ("model4", "factorised_dot_product", "encoderblock_1", {}),
        ("model1_gap", "spacetime", "encoderblock_0/MultiHeadDotProductAttention_0/out", {}),
    ],
)
@pytest.mark.parametrize("heads", [2, 8])
def test_parts_with_another_number_of_heads_are_refused(name, model, part, options, heads):
    """Each of flax's tensors shows its heads; flattened, the shapes would fit."""
    weights = with_heads(flax(name), part, heads)
    for build_with in (4, heads):
        built = build_model(model, **(AUTHORS_OPTIONS | options | {"heads": build_with, "activation": "gelu_tanh"}))
        with pytest.raises(CheckpointError, match=r"heads in .* and .* heads in .*the same number of heads throughout"):
            load_pretrained(built, weights)
    with pytest.raises(CheckpointError, match="the same number of heads throughout"):
        options_for(weights)


def test_every_attention_with_two_heads_is_taken_as_two():
    weights = with_heads(flax("model1_gap"), "", 2)
    assert options_for(weights)["heads"] == 2
    options = AUTHORS_OPTIONS | {"heads": 2, "activation": "gelu_tanh"}
    assert not said(load_pretrained(build_model("spacetime", **options), weights), "number of heads")


def test_a_given_number_of_heads():
    timm = pytest.importorskip("timm")
    theirs = timm.models.VisionTransformer(16, 4, 3, 5, embed_dim=384, depth=1, num_heads=12, mlp_ratio=1)
    state = dict(theirs.state_dict())
    sizes = dict(dim=384, depth=1, mlp_dim=384)
    assert options_for(state)["heads"] == 6 and options_for(state, heads=12)["heads"] == 12
    with pytest.raises(CheckpointError, match="heads 6 and 12.*say heads="):
        load_pretrained(video_model(**sizes, heads=12), state)
    with pytest.raises(CheckpointError, match="heads 12 and 6: build the model with heads=12"):
        load_pretrained(video_model(**sizes, heads=6), state, heads=12)
    assert said(load_pretrained(video_model(**sizes, heads=12), state, heads=12), "taken to be 12, as given")
    assert said(load_pretrained(video_model(**sizes, heads=6), state), "taken to be 6, the usual number")
    for wrong in (0, -2, 2.0, True, "4"):
        with pytest.raises(ConfigError, match="heads"):
            options_for(state, heads=wrong)
        with pytest.raises(ConfigError, match="heads"):
            load_pretrained(video_model(**sizes, heads=6), state, heads=wrong)
    with pytest.raises(ConfigError, match="heads=5 do not share the width 384"):
        options_for(state, heads=5)


def test_a_given_number_that_contradicts_the_weights(tmp_path):
    hugging_face(tmp_path)
    for weights in (tmp_path, flax("model1_gap")):
        with pytest.raises(ConfigError, match="heads=2 was given, and the weights say 4"):
            options_for(weights, heads=2)
    with pytest.raises(ConfigError, match="heads=2 was given, and the weights say 4"):
        load_pretrained(video_model(), tmp_path, heads=2)
    np.savez(tmp_path / "weights.npz", **flax("model1_gap"))
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2}')
    with pytest.raises(CheckpointError, match="config.json says 2 heads, but the shapes of the weights show 4"):
        options_for(tmp_path / "weights.npz")


# ---- what the weights do not say -----------------------------------------------------------------


def test_the_order_of_model_3_is_said():
    options = AUTHORS_OPTIONS | {"activation": "gelu_tanh"}
    for name in ("model3_space_time", "model3_time_space"):
        report = load_pretrained(build_model("factorised_self_attention", **options), flax(name))
        assert said(report, "in which order") and said(report, "space first") and said(report, "time first unless")


@pytest.mark.parametrize("name", ["spacetime", "factorised_dot_product"])
def test_models_1_and_4_look_the_same(name):
    report = load_pretrained(build_model(name, **AUTHORS_OPTIONS, activation="gelu_tanh"), flax("model1_gap"))
    ours = "Model 1" if name == "spacetime" else "Model 4"
    assert said(report, f"weights of Model 1 and Model 4 look the same: make sure that these are {ours}'s")


def test_who_reads_the_cls_token(tmp_path):
    timm, torchvision = state_of(), state_of("torchvision")
    assert said(load_pretrained(video_model(pool="cls"), timm), "do not say whether their head read the cls token")
    assert not said(load_pretrained(video_model(pool="cls"), torchvision), "cls token")
    assert said(load_pretrained(video_model(), torchvision), "have a cls token (their head read it)")
    assert said(load_pretrained(video_model(), timm), "have a cls token (they do not say who read it)")
    torch.save(timm, tmp_path / "pytorch_model.bin")
    for pool, words in (("token", None), ("avg", "their head read the mean of the other tokens")):
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "global_pool": pool}))
        report = load_pretrained(video_model(pool="cls"), tmp_path / "pytorch_model.bin")
        assert not said(report, "cls token") if words is None else said(report, words)


# ---- extras --------------------------------------------------------------------------------------


def extra(*names, shape=(24, 24)):
    sizes = {"weight": shape, "bias": shape[:1]}
    return {f"{name}.{leaf}": torch.ones(size) for name in names for leaf, size in sizes.items()}


HEADS = {"torchvision": "heads.head", "timm": "head", "hugging_face": "classifier"}


@pytest.mark.parametrize("pool", ["cls", "mean"])
@pytest.mark.parametrize("kind", HEADS)
@torch.no_grad()
def test_a_head_of_several_layers_is_left_out_and_the_trunk_taken(kind, pool):
    state = state_of(kind)
    head = HEADS[kind]
    for layers in (("0", "3"), ("1",), ("fc", "out")):
        own = head.partition(".")[0]
        fine_tuned = {key: value for key, value in state.items() if not key.startswith(head)}
        fine_tuned |= extra(*(f"{own}.{layer}" for layer in layers))
        plain, model = video_model(pool=pool), video_model(pool=pool)
        load_pretrained(plain, state)
        report = load_pretrained(model, fine_tuned)
        assert report.how("head.weight") == "fresh"
        assert {f"{own}.{layer}.weight" for layer in layers} <= set(report.left_out)
        for name, value in plain.state_dict().items():
            assert name.startswith("head.") or torch.equal(model.state_dict()[name], value)


def test_a_head_after_another_layer_is_not_taken_alone():
    """torchvision's representation_size, timm's pre_logits, attention pooling and fc_norm: it reads what they give."""
    for kind, names in (("torchvision", ["heads.pre_logits"]), ("timm", ["pre_logits.fc", "attn_pool.q", "fc_norm"])):
        for name in names:
            shape = (24,) if name == "fc_norm" else (24, 24)
            report = load_pretrained(video_model(pool="cls"), state_of(kind) | extra(name, shape=shape))
            assert report.how("head.weight") == "fresh" and f"{name}.weight" in report.left_out
    state = {key: value for key, value in state_of().items() if not key.startswith("norm.")}
    report = load_pretrained(video_model(), state | extra("fc_norm", shape=(24,)))  # in place of the last LayerNorm
    assert report.how("encoder.norm.weight") == "fresh" and report.how("encoder.blocks.1.mlp.3.bias") == "taken"


@torch.no_grad()
def test_a_linear_head_in_place_of_torchvisions():
    theirs = ImageModel("torchvision")
    theirs.model.heads = randomise(nn.Linear(24, 5), seed=3)
    model, images = video_model(frames=3, pool="cls"), noise(2, 3, 16, 16)
    assert load_pretrained(model, theirs.model.state_dict()).how("head.weight") == "taken"
    assert max_difference(model(repeated(images, 3)), theirs.model(images)) <= TOLERANCE


MAE = ("decoder_embed", "decoder_blocks.0.norm1", "decoder_blocks.0.attn.qkv", "decoder_norm", "decoder_pred")


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "params/"])
def test_decoders_and_mask_tokens_are_left_out(prefix):
    extras = extra(*MAE) | {"mask_token": torch.ones(1, 1, 24), "decoder_pos_embed": torch.ones(1, 17, 8)}
    state = {prefix + key: value for key, value in (state_of() | extras).items()}
    report = load_pretrained(video_model(), state)
    assert {prefix + key for key in extras} <= set(report.left_out)
    assert report.how("encoder.blocks.1.attention.qkv.weight") == "taken"


@pytest.mark.parametrize("trunk", ["encoder.", "vit.", "model.backbone."])
def test_a_trunk_beside_a_decoder_or_a_projector(trunk):
    """SimMIM, DINO: what does not lie in the trunk is not asked for its names."""
    state = {trunk + key: value for key, value in state_of().items() if not key.startswith("head")}
    state |= {trunk + "mask_token": torch.ones(1, 1, 24)} | extra("decoder.0", "neck.projection.4", "loss.centre")
    report = load_pretrained(video_model(), state)
    assert {"neck.projection.4.weight", "decoder.0.bias", trunk + "mask_token"} <= set(report.left_out)
    with pytest.raises(CheckpointError, match="Unknown to it: .*blocks.0.ls1.gamma"):  # which changes the trunk
        load_pretrained(video_model(), state | {trunk + "blocks.0.ls1.gamma": torch.ones(24)})


@torch.no_grad()
def test_hugging_faces_other_heads(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = dict(image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=2, num_attention_heads=4)
    sizes |= dict(intermediate_size=48)
    mae = dict(decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
    deit = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**sizes))
    for number, theirs in enumerate(
        (
            transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**sizes, encoder_stride=4)),
            transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**sizes, **mae, decoder_intermediate_size=16)),
            deit,
        )
    ):
        randomise(theirs).save_pretrained(tmp_path / str(number))
        for weights in (tmp_path / str(number), theirs.state_dict()):
            report = load_pretrained(video_model(pool="cls", num_classes=2), weights, heads=4)
            assert report.how("encoder.blocks.1.attention.out.weight") == "taken" and report.left_out
            assert report.how("head.weight") == ("taken" if theirs is deit else "fresh")


def test_two_trunks_are_refused():
    state = {f"{name}.{key}": value for name in ("teacher", "student") for key, value in state_of().items()}
    with pytest.raises(CheckpointError, match="several sets of weights, under '(teacher|student).' and"):
        load_pretrained(video_model(), state)


# ---- trees ---------------------------------------------------------------------------------------


def nested(weights):
    tree = {}
    for key, value in weights.items():
        *path, leaf = key.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[leaf] = value
    return tree


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tree: tree,
        lambda tree: {"params": tree},
        lambda tree: {"params": tree, "step": 7, "opt_state": {"mu": [1, 2]}},
        lambda tree: {"optimizer": {"target": tree, "state": {"step": 3}}, "model_state": {}},
        lambda tree: {"model": {"params": tree}, "epoch": 3},
    ],
)
@torch.no_grad()
def test_a_nested_tree_as_flax_keeps_it(wrap):
    clips, weights, logits = authors("model4")
    model = build_model("factorised_dot_product", activation="gelu_tanh", **AUTHORS_OPTIONS).eval()
    load_pretrained(model, wrap(nested(weights)))
    assert max_difference(model(clips), logits) <= TOLERANCE


def test_what_is_not_a_tree_of_arrays_says_what_it_holds():
    endless = {}
    endless["model"] = endless
    deep = state_of()
    for _ in range(30):
        deep = {"part": deep}
    for wrong in ({"net": state_of(), "epoch": 3}, {"net": {1: torch.ones(2)}}, endless, deep, {"a": {"b": "c"}}):
        with pytest.raises(CheckpointError, match="not a mapping of names to tensors, but holds '(net|model|part|a)'"):
            load_pretrained(video_model(), wrong)
