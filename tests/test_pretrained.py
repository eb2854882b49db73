"""Image transformers in a ViViT: weights made on the spot by the code of torchvision, timm, transformers."""

import copy
import pickle

import numpy as np
import pytest
import torch
from einops import rearrange
from torch import nn

from tests.references import VIVITS, authors, max_difference, noise, randomise, small
from vivit_edu import CheckpointError, ConfigError, build_model
from vivit_edu.pretrained import filters_from_image, inflate, load_pretrained, resize_filters, resize_positions
from vivit_edu.support.options import INFLATIONS
from vivit_edu.weights.report import Report
from vivit_edu.weights.sizes import USUAL_HEADS

IMAGE_KINDS = ("torchvision", "timm", "hugging_face")
SIZES = dict(num_classes=5, dim=24, depth=2, heads=4, mlp_dim=48)
TOLERANCE = 1e-5


class ImageModel:
    """An image transformer by others: 16² pixels, 4² patches (a 4×4 grid), random weights."""

    def __init__(self, kind, channels=3):
        self.kind = kind
        if kind == "torchvision":
            from torchvision.models import VisionTransformer

            self.model = VisionTransformer(16, 4, num_layers=2, num_heads=4, hidden_dim=24, mlp_dim=48, num_classes=5)
            self.model.conv_proj = nn.Conv2d(channels, 24, 4, 4)
        elif kind == "timm":
            timm = pytest.importorskip("timm")
            self.model = timm.models.VisionTransformer(
                16, 4, channels, 5, embed_dim=24, depth=2, num_heads=4, mlp_ratio=2
            )
        else:
            self.model = self.hugging_face(channels)
        randomise(self.model).eval()

    @staticmethod
    def hugging_face(channels):
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(
            image_size=16,
            patch_size=4,
            num_channels=channels,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            num_labels=5,
        )
        return transformers.ViTForImageClassification(config)

    def logits(self, images):
        out = self.model(images)
        return out.logits if self.kind == "hugging_face" else out

    def tokens_without_cls(self, images):
        """What the encoder gives where no cls token was put in: [B, N, D]."""
        model = self.model
        if self.kind == "torchvision":
            z = model._process_input(images) + model.encoder.pos_embedding[:, 1:]
            return model.encoder.ln(model.encoder.layers(z))
        if self.kind == "timm":
            return model.norm(model.blocks(model.patch_embed(images) + model.pos_embed[:, 1:]))
        embeddings = model.vit.embeddings
        z = embeddings.patch_embeddings(images) + embeddings.position_embeddings[:, 1:]
        # transformers' own name for them changed between 5.0 and 5.23
        for layer in model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer:
            z = layer(z)
        return model.vit.layernorm(z)

    def head(self, vectors):
        parts = {"torchvision": "heads", "timm": "head", "hugging_face": "classifier"}
        return getattr(self.model, parts[self.kind])(vectors)

    def patch_filters(self):
        parts = {
            "torchvision": "conv_proj",
            "timm": "patch_embed.proj",
            "hugging_face": "vit.embeddings.patch_embeddings.projection",
        }
        return self.model.get_submodule(parts[self.kind])


def video_model(name="spacetime", *, frames=6, t=3, size=16, patch=4, channels=3, **options):
    torch.manual_seed(0)
    options = SIZES | dict(clip_shape=(channels, frames, size, size), tubelet=(t, patch, patch)) | options
    return build_model(name, **options).eval()


def repeated(images, frames):
    return images.unsqueeze(2).repeat(1, 1, frames, 1, 1)  # [B, C, T, H, W]


# ---- one time index: the image model itself ------------------------------------------------------------


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@torch.no_grad()
def test_average_gives_the_image_models_logits_on_a_repeated_image(kind):
    image_model, model = ImageModel(kind), video_model(frames=3, t=3, pool="cls")
    report = load_pretrained(model, image_model.model.state_dict(), method="average")
    images = noise(2, 3, 16, 16)
    assert max_difference(model(repeated(images, 3)), image_model.logits(images)) <= TOLERANCE
    assert report.how("positions") == "taken" and report.how("embedding.projection.weight") == "inflated"
    assert report.how("head.weight") == "taken" and not report.left_out


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@pytest.mark.parametrize("t", [1, 2, 3, 4])
@torch.no_grad()
def test_central_gives_the_image_models_logits_of_the_central_frame(kind, t):
    image_model, model = ImageModel(kind), video_model(frames=t, t=t, pool="cls")
    load_pretrained(model, image_model.model.state_dict())  # the default
    clips = noise(2, 3, t, 16, 16)
    assert max_difference(model(clips), image_model.logits(clips[:, :, t // 2])) <= TOLERANCE
    other = clips.clone()
    other[:, :, [i for i in range(t) if i != t // 2]] = 0
    assert max_difference(model(other), model(clips)) <= TOLERANCE


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@torch.no_grad()
def test_model_2_with_its_cls_token(kind):
    """Its spatial encoder's cls token is the image model's, at every time index."""
    image_model, model = ImageModel(kind), video_model("factorised_encoder", pool="cls", temporal_depth=0)
    load_pretrained(model, image_model.model.state_dict())
    clips = noise(2, 3, 6, 16, 16)
    each = torch.stack([image_model.logits(clips[:, :, i]) for i in (1, 4)])  # the central frames
    assert max_difference(model(clips), each.mean(dim=0)) <= TOLERANCE


# ---- several time indices, mean pooling, no cls token ----------------------------------------------------


@pytest.mark.parametrize("method", ["central", "average"])
@pytest.mark.parametrize("name", ["spacetime", "factorised_self_attention"])
@pytest.mark.parametrize("kind", IMAGE_KINDS)
@torch.no_grad()
def test_repeated_image_through_models_1_and_3(kind, name, method):
    """Copies of every token change no weighted mean: logits are those of the image model pooled by mean."""
    image_model, model = ImageModel(kind), video_model(name)
    report = load_pretrained(model, image_model.model.state_dict(), method=method)
    images = noise(2, 3, 16, 16)
    expected = image_model.head(image_model.tokens_without_cls(images).mean(dim=1))
    assert max_difference(model(repeated(images, 6)), expected) <= TOLERANCE
    assert report.how("positions") == "repeated" and report.left_out == ("cls",)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
@torch.no_grad()
def test_repeated_image_through_model_2s_spatial_encoder(kind):
    image_model, model = ImageModel(kind), video_model("factorised_encoder", temporal_depth=2)
    before = copy.deepcopy(model.state_dict())
    report = load_pretrained(model, image_model.model.state_dict())
    seen = []
    model.spatial_encoder.register_forward_hook(lambda module, args, output: seen.append(output))
    images = noise(2, 3, 16, 16)
    model(repeated(images, 6))
    expected = image_model.tokens_without_cls(images)  # [B, S, D]
    each = rearrange(seen[0], "(b t) s d -> t b s d", b=2)
    assert len(each) == 2 and all(max_difference(part, expected) <= TOLERANCE for part in each)
    for name, parameter in model.named_parameters():
        if name.startswith("temporal_"):
            assert report.how(name) == "fresh" and torch.equal(parameter, before[name])
        else:
            assert report.how(name) != "fresh" and not torch.equal(parameter, before[name])


# ---- where filters and positions land ----------------------------------------------------------------------


def check_central_filter_lies_in_time(put):
    """put: (filters [D, C, h, w], t) -> [D, C, t, h, w]: only the frame at ⌊t/2⌋, and all of it."""
    filters = noise(6, 3, 5, 5) + 1
    for t in (1, 2, 3, 5):
        put_there = put(filters, t)
        assert torch.equal(put_there[:, :, t // 2], filters)
        assert put_there.count_nonzero() == filters.numel()


def along_width(filters, t):
    """The fault: the filter repeated, then all but the centre of the last axis set to zero."""
    wrong = filters.unsqueeze(2).repeat(1, 1, t, 1, 1)
    keep = torch.zeros(filters.shape[-1])
    keep[t // 2] = 1
    return wrong * keep


def test_central_filter_lies_in_time():
    check_central_filter_lies_in_time(lambda filters, t: inflate(filters, t, "central"))
    with pytest.raises(AssertionError):
        check_central_filter_lies_in_time(along_width)
    with pytest.raises(AssertionError):
        check_central_filter_lies_in_time(lambda filters, t: inflate(filters, t, "average"))


@torch.no_grad()
def test_filters_by_method():
    image_model = ImageModel("timm")
    theirs = image_model.patch_filters()
    for method in INFLATIONS:
        model = video_model()
        fresh = model.embedding.projection.weight.clone()
        report = load_pretrained(model, image_model.model.state_dict(), method=method)
        ours = model.embedding.projection
        if method == "random":
            assert torch.equal(ours.weight, fresh) and report.how("embedding.projection.weight") == "fresh"
            assert "embedding.projection.weight" in report.left_out
            continue
        assert torch.equal(ours.bias, theirs.bias)
        assert max_difference(ours.weight.sum(dim=2), theirs.weight) < 1e-6
        used = ours.weight.flatten(3).abs().sum(dim=(0, 1, 3))  # a sum for each frame
        assert (used > 0).tolist() == ([False, True, False] if method == "central" else [True] * 3)
        assert method == "central" or torch.equal(ours.weight[:, :, 0], ours.weight[:, :, 2])


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_positions_repeat_along_time(name):
    image_model, model = ImageModel("torchvision"), video_model(name)
    load_pretrained(model, image_model.model.state_dict())
    theirs = image_model.model.encoder.pos_embedding[0, 1:].view(4, 4, 24)
    ours = model.positions.view(-1, 4, 4, 24)
    assert len(ours) == (1 if name == "factorised_encoder" else 2)
    assert all(torch.equal(part, theirs) for part in ours)


@torch.no_grad()
def test_position_of_the_cls_token():
    image_model, model = ImageModel("torchvision"), video_model(pool="cls")
    load_pretrained(model, image_model.model.state_dict())
    theirs = image_model.model.encoder.pos_embedding[0]
    assert torch.equal(model.positions[0], torch.cat((theirs, theirs[1:])))
    assert torch.equal(model.cls, image_model.model.class_token)


@torch.no_grad()
def test_frames_take_the_filters_as_they_are():
    image_model = ImageModel("timm")
    for method in ("central", "average"):
        model = video_model(tokenizer="frames", frames=3, pool="cls")
        report = load_pretrained(model, image_model.model.state_dict(), method=method)
        assert report.how("embedding.projection.weight") == "taken"
        clips = noise(2, 3, 3, 16, 16)
        assert max_difference(model(clips), image_model.logits(clips[:, :, 1])) <= TOLERANCE


@torch.no_grad()
def test_three_colours_to_one():
    """A grey image in three channels through the image model, in one channel through ours."""
    image_model, model = ImageModel("torchvision"), video_model(channels=1, frames=3, pool="cls")
    report = load_pretrained(model, image_model.model.state_dict())
    assert report.how("embedding.projection.weight") == "summed, inflated"
    clips = noise(2, 1, 3, 16, 16)
    assert max_difference(model(clips), image_model.logits(clips[:, :, 1].expand(-1, 3, -1, -1))) <= TOLERANCE
    with pytest.raises(
        CheckpointError,
        match=r"embedding.projection.weight has shape \[24, 3, 3, 4, 4\] in the weights and \[24, 2",
    ):
        load_pretrained(video_model(channels=2), image_model.model.state_dict())


# ---- another grid, another patch size ------------------------------------------------------------


@torch.no_grad()
def test_positions_resized_like_timm():
    timm_layers = pytest.importorskip("timm.layers")
    positions = noise(1, 49, 6)
    for grid in ((4, 4), (10, 10), (3, 8)):
        expected = timm_layers.resample_abs_pos_embed(positions, list(grid), (7, 7), num_prefix_tokens=0)
        assert max_difference(resize_positions(positions, grid), expected) <= TOLERANCE
    assert resize_positions(positions, (7, 7)) is positions
    oblong = noise(1, 12, 6)
    assert resize_positions(oblong, (3, 4)) is oblong
    with pytest.raises(CheckpointError, match="12 positions do not fill a grid of 3×3"):
        resize_positions(oblong, (4, 4))


@torch.no_grad()
def test_resized_positions_keep_their_directions():
    """A slope down the rows stays one down the rows, and constant along them."""
    rows = torch.arange(6.0).repeat_interleave(6).view(1, 36, 1)
    resized = resize_positions(rows, (3, 9)).view(3, 9)
    assert (resized.diff(dim=0) > 1).all() and resized.diff(dim=1).abs().max() < 1e-5


@torch.no_grad()
def test_filters_resized_like_timm():
    patch_embed = pytest.importorskip("timm.layers.patch_embed")
    filters = noise(5, 3, 8, 8) - 0.5
    for size in ((4, 4), (12, 12), (7, 7)):
        expected = patch_embed.resample_patch_embed(filters, list(size), interpolation="bicubic", antialias=True)
        assert max_difference(resize_filters(filters, size), expected) < 1e-4


@torch.no_grad()
def test_larger_patches_are_seen_alike():
    """What a filter answers to a patch, the resized one answers to the enlarged patch."""
    filters, patches = noise(5, 3, 4, 4) - 0.5, noise(7, 3, 4, 4)
    enlarged = nn.functional.interpolate(patches, size=(7, 9), mode="bicubic", antialias=True)
    answers = torch.einsum("dchw,nchw->nd", filters, patches)
    resized = resize_filters(filters, (7, 9))
    assert max_difference(torch.einsum("dchw,nchw->nd", resized, enlarged), answers) < 1e-4
    plain = nn.functional.interpolate(filters, size=(7, 9), mode="bicubic")  # resizing as if it were an image
    assert max_difference(torch.einsum("dchw,nchw->nd", plain, enlarged), answers) > 0.1


@pytest.mark.parametrize("name", VIVITS)
@torch.no_grad()
def test_other_grid_and_patch_size(name):
    image_model, model = ImageModel("timm"), video_model(name, size=21, patch=7)  # 3×3 patches of 7²
    report = load_pretrained(model, image_model.model.state_dict(), method="average")
    assert report.how("embedding.projection.weight") == "resized, inflated"
    assert report.how("positions") == ("resized" if name == "factorised_encoder" else "resized, repeated")
    assert model(noise(2, 3, 6, 21, 21)).isfinite().all()


# ---- Models 3 and 4 ------------------------------------------------------------------------------


def one_step(model):
    """One step of gradient descent; returns the names of the parameters that have moved."""
    before = copy.deepcopy(dict(model.named_parameters()))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(model.train()(noise(4, 3, 6, 16, 16)), torch.arange(4))
    loss.backward()
    optimiser.step()
    return {name for name, parameter in model.named_parameters() if max_difference(parameter, before[name]) > 1e-9}


def test_model_3_starts_as_its_spatial_half_and_learns():
    image_model, model = ImageModel("torchvision"), video_model("factorised_self_attention")
    report = load_pretrained(model, image_model.model.state_dict())
    clips = noise(2, 3, 6, 16, 16)
    z = model.embedding(clips) + model.positions
    for block in model.encoder.blocks:
        z = z + torch.stack([block.space_attention(part) for part in block.norm_space(z).unbind(1)], dim=1)
        z = z + block.mlp(block.norm_mlp(z))
    assert max_difference(model(clips), model.head(model.encoder.norm(z).mean(dim=(1, 2)))) <= TOLERANCE
    assert {report.how(f"encoder.blocks.{i}.time_attention.out.weight") for i in (0, 1)} == {"zeroed"}

    time = [name for name, _ in model.named_parameters() if "time_attention" in name]
    assert {name for name in time if ".out." in name} <= one_step(model)  # W_O first: the others have no gradient yet
    moved = one_step(model)
    assert {name for name in time if name.endswith("weight")} <= moved


def test_a_temporal_attention_of_zeros_never_learns():
    """The paper's words taken literally, all of it zero: a bias moves, and no weight ever."""
    model = video_model("factorised_self_attention")
    load_pretrained(model, ImageModel("torchvision").model.state_dict())
    for block in model.encoder.blocks:
        for parameter in block.time_attention.parameters():
            nn.init.zeros_(parameter)
    moved = one_step(model) | one_step(model) | one_step(model)
    assert {name for name in moved if "time_attention" in name} == {
        f"encoder.blocks.{i}.time_attention.out.bias" for i in (0, 1)
    }


@torch.no_grad()
def test_model_4_takes_the_image_models_heads():
    image_model, model = ImageModel("timm"), video_model("factorised_dot_product")
    load_pretrained(model, image_model.model.state_dict())
    for ours, theirs in zip(model.encoder.blocks, image_model.model.blocks, strict=True):
        assert torch.equal(ours.attention.qkv.weight, theirs.attn.qkv.weight)
        assert torch.equal(ours.attention.out.weight, theirs.attn.proj.weight)


# ---- layouts -------------------------------------------------------------------------------------


@torch.no_grad()
def test_torchvisions_published_files_name_the_mlp_otherwise():
    image_model, model = ImageModel("torchvision"), video_model(frames=3, pool="cls")
    state = image_model.model.state_dict()
    old = {key.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): value for key, value in state.items()}
    assert old.keys() != state.keys()
    load_pretrained(model, old)
    clips = noise(2, 3, 3, 16, 16)
    assert max_difference(model(clips), image_model.logits(clips[:, :, 1])) <= TOLERANCE


@torch.no_grad()
def test_distilled_deit():
    """The token that learned from a teacher is left out, and so is its position."""
    timm = pytest.importorskip("timm")
    deit = timm.models.deit.VisionTransformerDistilled(16, 4, 3, 5, embed_dim=24, depth=2, num_heads=4, mlp_ratio=2)
    randomise(deit).eval()
    model = video_model(pool="cls")
    report = load_pretrained(model, deit.state_dict())
    assert set(report.left_out) == {"dist", "head_dist.weight", "head_dist.bias"}
    assert torch.equal(model.positions[0, 1:17], deit.pos_embed[0, 2:])
    assert torch.equal(model.positions[0, 0], deit.pos_embed[0, 0])


@torch.no_grad()
def test_hugging_faces_two_ways_of_naming(tmp_path):
    """`save_pretrained` writes the names of the published files, `state_dict` has those of transformers 5."""
    safetensors = pytest.importorskip("safetensors.torch")
    image_model = ImageModel("hugging_face")
    image_model.model.save_pretrained(tmp_path)
    published = safetensors.load_file(tmp_path / "model.safetensors")
    current = image_model.model.state_dict()
    if (
        "vit.layers.0.attention.q_proj.weight" not in current
        or "vit.encoder.layer.0.attention.attention.query.weight" not in published
    ):
        pytest.skip("this version of transformers has but one way of naming")
    clips = noise(2, 3, 3, 16, 16)
    expected = image_model.logits(clips[:, :, 1])
    bare = {key.removeprefix("vit."): value for key, value in published.items()}  # as of a ViTModel
    for weights in (
        published,
        current,
        bare,
        tmp_path,
        tmp_path / "model.safetensors",
        str(tmp_path / "model.safetensors"),
    ):
        model = video_model(frames=3, pool="cls")
        load_pretrained(model, weights)
        assert max_difference(model(clips), expected) <= TOLERANCE


@torch.no_grad()
def test_hugging_faces_vivit(tmp_path):
    """Into Model 1 as it is, under both names; into no other; the pooler of a bare VivitModel is left out."""
    transformers = pytest.importorskip("transformers")
    config = transformers.VivitConfig(
        image_size=16,
        num_frames=6,
        tubelet_size=[3, 4, 4],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        num_labels=5,
    )
    reference = randomise(transformers.VivitForVideoClassification(config)).eval()
    reference.save_pretrained(tmp_path)
    clips = noise(2, 3, 6, 16, 16)
    expected = reference(pixel_values=clips.transpose(1, 2)).logits
    for weights in (tmp_path, reference.state_dict()):
        model = video_model(pool="cls", activation="gelu_tanh")
        report = load_pretrained(model, weights)
        assert max_difference(model(clips), expected) <= TOLERANCE
        assert {how for how, _ in report.rows.values()} == {"taken"}
    assert [note.split(":")[0] for note in report.notes] == [  # the state dict does not say its heads and its grid
        "the weights do not say their number of heads",
        "the weights do not say in which grid their positions lie",
    ]
    assert not load_pretrained(model, tmp_path).notes  # config.json says both
    with pytest.raises(CheckpointError, match=r"of Model 1 and go into no other; this is Model 4"):
        load_pretrained(video_model("factorised_dot_product"), tmp_path)
    with pytest.raises(CheckpointError, match="pool 'cls' and 'mean'"):
        load_pretrained(video_model(), tmp_path)
    with pytest.raises(CheckpointError, match=r"positions has shape \[1, 33, 24\] in the weights and \[1, 49, 24\]"):
        load_pretrained(video_model(frames=9, pool="cls", activation="gelu_tanh"), tmp_path)
    other_gelu = video_model(pool="cls", activation="gelu")
    with pytest.raises(CheckpointError, match="activation 'gelu_tanh' and 'gelu': build the model with activation="):
        load_pretrained(other_gelu, tmp_path)
    assert any("gelu_tanh" in note for note in load_pretrained(other_gelu, reference.state_dict()).notes)
    report = load_pretrained(video_model(pool="cls", num_classes=7, activation="gelu_tanh"), tmp_path)
    assert report.how("head.weight") == "fresh" and set(report.left_out) == {"head.weight", "head.bias"}

    bare = randomise(transformers.VivitModel(config))
    report = load_pretrained(video_model(pool="cls"), bare.state_dict())
    assert set(report.left_out) == {"pooler.dense.weight", "pooler.dense.bias"} and report.how("head.bias") == "fresh"


AUTHORS_OPTIONS = dict(
    clip_shape=(2, 8, 16, 16), num_classes=5, tubelet=(2, 8, 8), dim=24, depth=2, heads=4, mlp_dim=48
)


@pytest.mark.parametrize("form", ["paths", "tuples", "npz"])
@torch.no_grad()
def test_authors_layout_in_several_forms(form, tmp_path):
    clips, weights, logits = authors("model4")
    if form == "tuples":  # as flax.traverse_util.flatten_dict gives them
        weights = {tuple(f"params/{key}".split("/")): value for key, value in weights.items()}
    if form == "npz":
        np.savez(tmp_path / "weights.npz", **weights)
        weights = tmp_path / "weights.npz"
    model = build_model("factorised_dot_product", activation="gelu_tanh", **AUTHORS_OPTIONS).eval()
    load_pretrained(model, weights)
    assert max_difference(model(clips), logits) <= TOLERANCE


def test_authors_layout_in_the_wrong_model():
    _, model_2, _ = authors("model2_gap")
    _, model_3, _ = authors("model3_space_time")
    _, token, _ = authors("model1_token")
    with pytest.raises(CheckpointError, match=r"of Model 2 and go into no other; this is Model 3"):
        load_pretrained(build_model("factorised_self_attention", **AUTHORS_OPTIONS), model_2)
    with pytest.raises(CheckpointError, match=r"of Model 3 .* this is Model 1"):
        load_pretrained(build_model("spacetime", **AUTHORS_OPTIONS), model_3)
    with pytest.raises(CheckpointError, match="temporal_depth 1 and 4: build the model with temporal_depth=1"):
        load_pretrained(build_model("factorised_encoder", **AUTHORS_OPTIONS), model_2)
    with pytest.raises(CheckpointError, match="pool 'cls' and 'mean'"):
        load_pretrained(build_model("spacetime", **AUTHORS_OPTIONS), token)
    with pytest.raises(CheckpointError, match="heads 4 and 6: build the model with heads=4"):
        load_pretrained(build_model("factorised_self_attention", **(AUTHORS_OPTIONS | dict(heads=6))), model_3)
    transposed = model_3 | {"embedding/kernel": model_3["embedding/kernel"][0]}
    with pytest.raises(
        CheckpointError, match=r"embedding.projection.weight has shape \[8, 8, 2, 24\], which is not flax's"
    ):
        load_pretrained(build_model("factorised_self_attention", **AUTHORS_OPTIONS), transposed)


@pytest.mark.parametrize("prefix", ["module.", "backbone.vit."])
def test_a_prefix_before_all_names(prefix):
    """As of a model that was wrapped for training on several devices."""
    state = ImageModel("timm").model.state_dict()
    report = load_pretrained(video_model(), {prefix + key: value for key, value in state.items()})
    assert report.layout == "timm VisionTransformer"


def test_unknown_layouts():
    """The message names the nearest layout and what differs from it; the model stays as it was."""
    state = ImageModel("timm").model.state_dict()
    model = video_model()
    before = copy.deepcopy(model.state_dict())
    cases = [
        (
            state | {"blocks.0.ls1.gamma": torch.ones(24)},
            ["timm VisionTransformer", "Unknown to it: blocks.0.ls1.gamma"],
        ),
        (
            {k: v for k, v in state.items() if k != "blocks.1.mlp.fc2.bias"},
            ["timm", "encoder.blocks.1.mlp.3.bias"],
        ),
        ({k: v for k, v in state.items() if k != "pos_embed"}, ["timm", "positions"]),
        (
            {"conv1.weight": torch.ones(3), "layer1.0.bn1.weight": torch.ones(3)},
            ["0 of 2 names", "conv1.weight", "Known layouts", "Hugging Face", "flax"],
        ),
        ({}, ["0 of 0 names"]),
    ]
    for weights, expected in cases:
        with pytest.raises(CheckpointError) as caught:
            load_pretrained(model, weights)
        assert all(words in str(caught.value) for words in expected), str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_block_that_is_missing():
    """Blocks 0 and 2 are as many as 0 and 1, and yet not those."""
    state = ImageModel("timm").model.state_dict()
    shifted = {key.replace("blocks.1.", "blocks.2."): value for key, value in state.items()}
    with pytest.raises(CheckpointError, match=r"the weights lack encoder.blocks.1"):
        load_pretrained(video_model(), shifted)


# ---- sizes ---------------------------------------------------------------------------------------


def test_sizes_must_match_and_both_are_named():
    state = ImageModel("timm").model.state_dict()
    for options, words in [
        (dict(depth=3), "depth 2 and 3"),
        (dict(dim=32), "dim 24 and 32"),
        (dict(mlp_dim=96), "mlp_dim 48 and 96"),
    ]:
        with pytest.raises(
            CheckpointError, match=f"{words}.*build the model with {words.split()[0]}={words.split()[1]}"
        ):
            load_pretrained(video_model(**options), state)
    report = load_pretrained(video_model(), state)
    assert any("number of heads" in note and "4" in note for note in report.notes)


def test_heads_that_the_weights_do_not_say(tmp_path):
    """Where a width is a published one, its usual heads are expected; a config.json says them."""
    timm = pytest.importorskip("timm")
    tiny = timm.create_model("deit_tiny_patch16_224", img_size=32, depth=1, num_classes=5)
    options = dict(size=32, patch=16, dim=192, depth=1, mlp_dim=768)
    with pytest.raises(CheckpointError, match="heads 3 and 4 .*say heads="):
        load_pretrained(video_model(**options, heads=4), tiny.state_dict())
    given = load_pretrained(video_model(**options, heads=4), tiny.state_dict(), heads=4)
    guessed = load_pretrained(video_model(**options, heads=3), tiny.state_dict())
    assert any("taken to be 4, as given" in note for note in given.notes)
    assert any("taken to be 3, the usual number for this width" in note for note in guessed.notes)

    ImageModel("hugging_face").model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="heads 4 and 2: build the model with heads=4"):
        load_pretrained(video_model(heads=2), tmp_path)
    (note,) = load_pretrained(video_model(heads=4), tmp_path).notes
    assert note.startswith("the weights have a cls token (their head read it); this model has none")
    assert not load_pretrained(video_model(heads=4, pool="cls"), tmp_path).notes


def test_head_for_other_classes_stays_fresh():
    model = video_model(num_classes=11)
    before = model.head.weight.clone()
    report = load_pretrained(model, ImageModel("timm").model.state_dict())
    assert torch.equal(model.head.weight, before)
    assert report.rows["head.weight"] == ("fresh", "theirs is for 5 classes, ours for 11")
    assert report.left_out == ("cls", "head.weight", "head.bias")


def test_cls_token_that_the_weights_lack():
    state = ImageModel("timm").model.state_dict()
    del state["cls_token"]
    state["pos_embed"] = state["pos_embed"][:, 1:]
    model = video_model(pool="cls")
    before = model.positions.clone()
    report = load_pretrained(model, state)
    assert report.how("cls") == "fresh" and report.rows["positions"] == (
        "repeated",
        "the cls token's is fresh",
    )
    assert torch.equal(model.positions[:, 0], before[:, 0])


def test_wrong_arguments():
    model = video_model()
    with pytest.raises(ConfigError, match="method='inflate' is not known; take one of central, average, random"):
        load_pretrained(model, {}, method="inflate")
    with pytest.raises(ConfigError, match="not into Linear"):
        load_pretrained(nn.Linear(2, 2), {})
    with pytest.raises(CheckpointError, match="of a model, give its state_dict"):
        load_pretrained(model, nn.Linear(2, 2))
    for wrong in ({"epoch": 3}, {0: torch.ones(2)}):
        with pytest.raises(CheckpointError, match="not a mapping of names to tensors"):
            load_pretrained(model, wrong)


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".npz"])
@pytest.mark.parametrize("kind", IMAGE_KINDS)
@torch.no_grad()
def test_round_trip_through_files(kind, suffix, tmp_path):
    state = {key: value.contiguous() for key, value in ImageModel(kind).model.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    elif suffix == ".npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        torch.save({"model": state, "epoch": 3} if suffix == ".pth" else state, path)  # DeiT's own files: under "model"
    direct, read = video_model(), video_model()
    load_pretrained(direct, state)
    load_pretrained(read, path)
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in direct.state_dict().items())


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_unpickled(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"a": Bomb(trace)}, tmp_path / "weights.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Bomb(trace)}, protocol=2))
    np.savez(tmp_path / "weights.npz", a=np.array([Bomb(trace)], dtype=object))
    for name in ("weights.pt", "plain.pt", "weights.npz"):
        with pytest.raises(CheckpointError):
            load_pretrained(video_model(), tmp_path / name)
    assert not trace.exists()


def test_files_that_cannot_be_read(tmp_path):
    for suffix in (".safetensors", ".pt", ".npz"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"\x80\x02 not weights")
        with pytest.raises(CheckpointError, match="broken"):
            load_pretrained(video_model(), broken)
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(CheckpointError, match="not a file of weights by its name: take .safetensors, .pt or .npz"):
        load_pretrained(video_model(), tmp_path / "weights.h5")
    with pytest.raises(CheckpointError, match="there is no file .*google/vivit.*download its model.safetensors"):
        load_pretrained(video_model(), "google/vivit-b-16x2-kinetics400")


@torch.no_grad()
def test_torchvision_enum(tmp_path, monkeypatch):
    """By enum and by the enum's name; what is downloaded is read with weights_only."""
    models = pytest.importorskip("torchvision.models")
    image_model = ImageModel("torchvision")
    torch.save(image_model.model.state_dict(), tmp_path / "vit.pth")
    torch.save(Bomb(tmp_path / "trace"), tmp_path / "bomb.pth")

    class Toy_Weights(models.WeightsEnum):  # noqa: N801
        GOOD = models.Weights((tmp_path / "vit.pth").as_uri(), transforms=None, meta={})
        BAD = models.Weights((tmp_path / "bomb.pth").as_uri(), transforms=None, meta={})
        GONE = models.Weights((tmp_path / "gone.pth").as_uri(), transforms=None, meta={})

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(models, "get_weight", lambda name: Toy_Weights[name.split(".")[1]])
    clips = noise(2, 3, 3, 16, 16)
    for weights in (Toy_Weights.GOOD, "Toy_Weights.GOOD"):
        model = video_model(frames=3, pool="cls")
        load_pretrained(model, weights)
        assert max_difference(model(clips), image_model.logits(clips[:, :, 1])) <= TOLERANCE
    for weights in (Toy_Weights.BAD, Toy_Weights.GONE):
        with pytest.raises(CheckpointError, match=f"{weights.name} are not available"):
            load_pretrained(video_model(), weights)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["ViT_B_16_Weights.NONE_SUCH", "NoneSuch_Weights.DEFAULT"])
def test_unknown_torchvision_weights(name):
    with pytest.raises(CheckpointError, match=f"torchvision's weights {name} are not available"):
        load_pretrained(video_model(), name)


# ---- the report ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VIVITS)
def test_report_covers_every_tensor_and_prints(name):
    model = video_model(name, channels=1, size=21, patch=7)
    report = load_pretrained(model, ImageModel("torchvision").model.state_dict())
    assert list(report.rows) == [parameter_name for parameter_name, _ in model.named_parameters()]
    words = {"taken", "summed", "resized", "inflated", "repeated", "zeroed", "fresh"}
    assert all(set(how.split(", ")) <= words for how, _ in report.rows.values())
    text = str(report)
    assert text.startswith("from torchvision VisionTransformer\n") and "summed, resized, inflated" in text
    assert "blocks.*.mlp.0.weight (2×)" in text and "left out: cls" in text and "note: " in text
    assert len(text.splitlines()) < 40


def test_a_report_is_a_table_in_columns():
    """Two spaces after the widest name and after the widest deed; no line ends in spaces."""
    report = Report(
        "somewhere", {"a": ("taken", ""), "longer": ("summed, inflated", "over"), "b": ("fresh", "none")}, (), ()
    )
    assert str(report).splitlines() == [
        "from somewhere",
        "a       taken",
        "longer  summed, inflated  over",
        "b       fresh             none",
    ]


@pytest.mark.parametrize("dim, heads", [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16)])
def test_usual_heads_are_those_of_the_published_transformers(dim, heads):
    """DeiT-Ti, ViT-S, -B, -L and -H (Dosovitskiy et al. 2021, table 1; Touvron et al. 2021, table 1)."""
    assert USUAL_HEADS[dim] == heads and len(USUAL_HEADS) == 5


@pytest.mark.parametrize(
    "t, central, average", [(2, "on frame 1 of 0 to 1", "1/2 of"), (7, "on frame 3 of 0 to 6", "1/7 of")]
)
def test_the_report_says_on_which_frame_a_filter_lies(t, central, average):
    filters = noise(3, 1, 4, 4)
    for method, remark in (("central", central), ("average", average)):
        model = small("spacetime", clip_shape=(1, 2 * t, 8, 8), tubelet=(t, 4, 4), dim=3, heads=1)
        part = filters_from_image(model, filters, method)
        assert part.how == "inflated" and part.remark.startswith(remark)
        assert method == "average" or part.tensor[:, :, t // 2].equal(filters)
    flat = small("spacetime", clip_shape=(1, 2, 8, 8), tubelet=(1, 4, 4), dim=3, heads=1)
    assert filters_from_image(flat, filters, "central").how == "taken"  # one frame: there is nothing to inflate


def test_small_models_of_these_tests_are_not_symmetric():
    """The tests above would not notice exchanged axes if a grid were the same along all of them."""
    assert len({*small("spacetime").embedding.grid}) == 3
