"""The models against code that is not ours: the authors', transformers', torchvision's, vit-pytorch's.

Where vit-pytorch (vit_pytorch.vivit, version 1.26) defines something else than the paper, the test makes both
sides agree; the differences, all of them:

| | vit-pytorch | here, as in the paper's code | in the test |
|---|---|---|---|
| tubelet embedding | LayerNorm of the voxels, linear, LayerNorm | linear (a 3D convolution) | ours in both |
| positions (Model 2) | one [T', S, D], before both encoders | one in each encoder | ours in time: zero |
| position of a cls token | none | yes | zero |
| query, key, value | without bias | with bias | zero |
| width of a head | 64, whatever the width | width / heads | theirs set to ours |
| LayerNorm's epsilon | 1e-5 | 1e-6 | theirs set to ours |
| GELU | exact | exact or tanh | exact |
| Model 3, pool="cls" | a cls token in every frame, the first frame's is read | no cls token | pool="mean" |
| dropout of attention | also in eval() with flash attention | only in train() | none |
"""

import pytest
import torch
from torch import nn

from tests.references import VIVITS, attentions, authors, max_difference, noise, randomise, small
from vivit_edu import attention, build_model
from vivit_edu.pretrained import load_pretrained

TOLERANCE = 1e-5


@pytest.fixture(autouse=True, params=["plain", "fused"])
def path(request, monkeypatch):
    """Both paths of attention, of which a CPU would take the fused one."""
    monkeypatch.setattr(attention, "plain_is_faster", lambda queries: request.param == "plain")


AUTHORS_MODELS = {
    "model1_gap": "spacetime",
    "model1_token": "spacetime",
    "model2_gap": "factorised_encoder",
    "model2_token": "factorised_encoder",
    "model3_space_time": "factorised_self_attention",
    "model4": "factorised_dot_product",
}


def authors_model(name, **options):
    """Our model with the authors' weights in it, their clips and their logits."""
    clips, weights, logits = authors(name)
    defaults = dict(tubelet=(2, 8, 8), dim=24, depth=2, heads=4, mlp_dim=48, activation="gelu_tanh")
    defaults["pool"] = "cls" if name.endswith("token") else "mean"
    model_name = AUTHORS_MODELS.get(name, "factorised_self_attention")
    defaults |= {"temporal_depth": 1} if model_name == "factorised_encoder" else {}
    model = build_model(model_name, clip_shape=(2, 8, 16, 16), num_classes=5, **(defaults | options)).eval()
    report = load_pretrained(model, weights)
    assert {how for how, _ in report.rows.values()} == {"taken"} and not report.left_out
    return model, clips, logits


# ---- the authors' own code ----------------------------------------------------------------------


@pytest.mark.parametrize("name", AUTHORS_MODELS)
@torch.no_grad()
def test_authors_logits(name):
    model, clips, logits = authors_model(name)
    assert max_difference(model(clips), logits) <= TOLERANCE


@torch.no_grad()
def test_authors_model_3_with_time_first():
    """Their code's default attends over time before space: our Model 3 with its axes exchanged."""
    model, clips, logits = authors_model("model3_time_space")
    assert max_difference(model(clips), logits) > 0.1  # the order matters
    for block in model.encoder.blocks:
        block.norm_space, block.norm_time = block.norm_time, block.norm_space
        block.space_attention, block.time_attention = block.time_attention, block.space_attention
    tokens = model.embedding(clips) + model.positions  # [B, T', S, D]
    ours = model.head(model.encoder(tokens.transpose(1, 2)).mean(dim=(1, 2)))
    assert max_difference(ours, logits) <= TOLERANCE


def _no_scale(monkeypatch, model):
    plain = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(
        attention.F, "scaled_dot_product_attention", lambda *qkv, **rest: plain(*qkv, **rest, scale=1.0)
    )
    monkeypatch.setattr(attention, "attention_weights", lambda q, k: (q @ k.transpose(-2, -1)).softmax(dim=-1))


def _exact_gelu(monkeypatch, model):
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "none"


def _heads_interleaved(monkeypatch, model):
    plain = attention.rearrange
    swap = {"b n (h d) -> b h n d": "b n (d h) -> b h n d"}
    swap["b t s (three half h d) -> half three b t s h d"] = "b t s (three h d half) -> half three b t s h d"
    monkeypatch.setattr(attention, "rearrange", lambda x, pattern, **n: plain(x, swap.get(pattern, pattern), **n))


def _large_epsilon(monkeypatch, model):
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-3


def _no_final_norm(monkeypatch, model):
    (model.spatial_encoder if hasattr(model, "spatial_encoder") else model.encoder).norm = nn.Identity()


def _heads_of_the_axes_exchanged(monkeypatch, model):
    for module in attentions(model):
        module.out.weight.data = torch.cat(module.out.weight.data.chunk(2, dim=1)[::-1], dim=1)


WRONG = [
    (name, fault)
    for name in AUTHORS_MODELS
    for fault in (_no_scale, _exact_gelu, _heads_interleaved, _large_epsilon, _no_final_norm)
] + [("model4", _heads_of_the_axes_exchanged)]


@pytest.mark.parametrize("name, fault", WRONG, ids=lambda value: getattr(value, "__name__", value))
@torch.no_grad()
def test_authors_logits_tell_wrong_models(name, fault, monkeypatch):
    """Faults that leave shapes alone move the logits by far more than the tolerance."""
    model, clips, logits = authors_model(name)
    fault(monkeypatch, model)
    assert max_difference(model(clips), logits) > 10 * TOLERANCE


# ---- transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize("activation, theirs", [("gelu", "gelu"), ("gelu_tanh", "gelu_fast")])
@pytest.mark.parametrize(
    "clip_shape, tubelet, heads, depth",
    [((3, 4, 16, 16), (2, 8, 8), 4, 2), ((1, 6, 12, 12), (3, 4, 4), 1, 3), ((2, 5, 9, 9), (1, 3, 3), 8, 1)],
)
@torch.no_grad()
def test_transformers_logits(clip_shape, tubelet, heads, depth, activation, theirs):
    transformers = pytest.importorskip("transformers")
    channels, frames, size, _ = clip_shape
    config = transformers.VivitConfig(
        image_size=size,
        num_frames=frames,
        tubelet_size=list(tubelet),
        num_channels=channels,
        hidden_size=32,
        num_hidden_layers=depth,
        num_attention_heads=heads,
        intermediate_size=80,
        hidden_act=theirs,
        num_labels=7,
    )
    reference = randomise(transformers.VivitForVideoClassification(config)).eval()
    model = build_model(
        "spacetime",
        clip_shape=clip_shape,
        num_classes=7,
        tubelet=tubelet,
        dim=32,
        depth=depth,
        heads=heads,
        mlp_dim=80,
        pool="cls",
        activation=activation,
    ).eval()
    load_pretrained(model, reference.state_dict())
    clips = noise(3, *clip_shape)
    logits = reference(pixel_values=clips.transpose(1, 2)).logits  # they take [B, T, C, H, W]
    assert max_difference(model(clips), logits) <= TOLERANCE
    other = "gelu" if activation == "gelu_tanh" else "gelu_tanh"
    for module in model.modules():
        if isinstance(module, nn.GELU):
            module.approximate = {"gelu": "none", "gelu_tanh": "tanh"}[other]
    assert max_difference(model(clips), logits) > 10 * TOLERANCE  # so the two GELUs are told apart


# ---- torchvision --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels, heads", [(3, 4), (1, 2)])
@torch.no_grad()
def test_torchvision_logits_on_one_frame(channels, heads):
    """A clip of one frame is an image, and Model 1 an image transformer."""
    from torchvision.models import VisionTransformer

    reference = VisionTransformer(
        image_size=24, patch_size=8, num_layers=2, num_heads=heads, hidden_dim=32, mlp_dim=64, num_classes=6
    )
    reference.conv_proj = nn.Conv2d(channels, 32, kernel_size=8, stride=8)
    randomise(reference).eval()
    model = build_model(
        "spacetime",
        clip_shape=(channels, 1, 24, 24),
        num_classes=6,
        tubelet=(1, 8, 8),
        dim=32,
        depth=2,
        heads=heads,
        mlp_dim=64,
        pool="cls",
    ).eval()
    load_pretrained(model, reference.state_dict())
    clips = noise(4, channels, 1, 24, 24)
    assert max_difference(model(clips), reference(clips[:, :, 0])) <= TOLERANCE


# ---- vit-pytorch --------------------------------------------------------------------------------


def share_encoder(theirs, ours, attentions_of):
    """Gives an encoder of vit-pytorch our weights. attentions_of: block -> its (norm, attention)s."""
    for (*their_attentions, feed_forward), block in zip(theirs.layers, ours.blocks, strict=True):
        for their, (norm, our) in zip(their_attentions, attentions_of(block), strict=True):
            nn.init.zeros_(our.qkv.bias)  # theirs has none
            their.norm.load_state_dict(norm.state_dict())
            their.to_qkv.weight.data = our.qkv.weight.data
            their.to_out[0].load_state_dict(our.out.state_dict())
        feed_forward.net[0].load_state_dict(block.norm_mlp.state_dict())
        feed_forward.net[1].load_state_dict(block.mlp[0].state_dict())
        feed_forward.net[4].load_state_dict(block.mlp[3].state_dict())
    theirs.norm.load_state_dict(ours.norm.state_dict())


def vit_pytorch_twin(model, variant):
    """vit-pytorch's ViViT of the same sizes as our `small` model, with our embedding and head."""
    vivit = pytest.importorskip("vit_pytorch.vivit")
    config = model.config
    channels, frames, height, width = config.clip_shape
    twin = vivit.ViViT(
        image_size=(height, width),
        image_patch_size=config.tubelet[1:],
        frames=frames,
        frame_patch_size=config.tubelet[0],
        num_classes=config.num_classes,
        dim=config.dim,
        spatial_depth=2,
        temporal_depth=2,
        heads=config.heads,
        dim_head=config.dim // config.heads,
        mlp_dim=config.mlp_dim,
        channels=channels,
        pool=config.pool,
        variant=variant,
    ).eval()
    for module in twin.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    twin.to_patch_embedding = model.embedding
    twin.mlp_head = model.head
    return twin


@pytest.mark.parametrize("pool", ["mean", "cls"])
@torch.no_grad()
def test_vit_pytorch_model_2(pool):
    model = randomise(small("factorised_encoder", pool=pool))
    twin = vit_pytorch_twin(model, "factorized_encoder")
    for ours, theirs in (
        (model.spatial_encoder, twin.spatial_transformer),
        (model.temporal_encoder, twin.temporal_transformer),
    ):
        share_encoder(theirs, ours, lambda block: [(block.norm_attention, block.attention)])
    model.temporal_positions.zero_()
    if pool == "cls":
        model.positions[:, 0] = 0
        twin.spatial_cls_token.copy_(model.cls)
        twin.temporal_cls_token.copy_(model.temporal_cls)
    twin.pos_embedding.copy_(model.positions[:, -model.grid[1] :].unsqueeze(1).expand_as(twin.pos_embedding))
    clips = noise(3, *model.config.clip_shape)
    assert max_difference(model(clips), twin(clips)) <= TOLERANCE


@torch.no_grad()
def test_vit_pytorch_model_3():
    model = randomise(small("factorised_self_attention"))
    twin = vit_pytorch_twin(model, "factorized_self_attention")
    share_encoder(
        twin.factorized_transformer,
        model.encoder,
        lambda block: [(block.norm_space, block.space_attention), (block.norm_time, block.time_attention)],
    )
    twin.pos_embedding.copy_(model.positions)
    clips = noise(3, *model.config.clip_shape)
    assert max_difference(model(clips), twin(clips)) <= TOLERANCE


# ---- dense attention under a block mask -----------------------------------------------------------


def torch_attention(ours, tokens, mask):
    """torch's own attention, among all tokens [B, N, D], with our weights; mask [heads, N, N]."""
    dim, heads = tokens.shape[-1], ours.heads
    theirs = nn.MultiheadAttention(dim, heads, batch_first=True).eval()
    theirs.in_proj_weight.data, theirs.in_proj_bias.data = ours.qkv.weight.data, ours.qkv.bias.data
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    hidden = ~mask.repeat(len(tokens), 1, 1)  # [B·heads, N, N]; torch marks what must not be seen
    return theirs(tokens, tokens, tokens, attn_mask=hidden, need_weights=False)[0]


@pytest.mark.parametrize("name", ["factorised_self_attention", "factorised_dot_product"])
@torch.no_grad()
def test_factorised_attention_is_dense_attention_under_a_mask(name):
    model = randomise(small(name))
    clips = noise(2, *model.config.clip_shape)
    n_t, s = model.grid
    time, place = torch.arange(n_t * s) // s, torch.arange(n_t * s) % s  # of each token
    same_time = (time[:, None] == time).expand(4, -1, -1)  # [heads, N, N]
    same_place = (place[:, None] == place).expand(4, -1, -1)
    z = (model.embedding(clips) + model.positions).flatten(1, 2)  # [B, N, D]
    for block in model.encoder.blocks:
        if name == "factorised_self_attention":
            z = z + torch_attention(block.space_attention, block.norm_space(z), same_time)
            z = z + torch_attention(block.time_attention, block.norm_time(z), same_place)
        else:
            mask = torch.cat((same_time[:2], same_place[2:]))  # the first half of the heads is spatial
            z = z + torch_attention(block.attention, block.norm_attention(z), mask)
        z = z + block.mlp(block.norm_mlp(z))
    dense = model.head(model.encoder.norm(z).mean(dim=1))
    assert max_difference(model(clips), dense) <= TOLERANCE


# ---- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"dim": 48, "heads": 6, "depth": 3}, {"tokenizer": "frames"}])
def test_model_4_has_model_1s_parameter_count(options):
    counts = {name: sum(p.numel() for p in small(name, **options).parameters()) for name in VIVITS}
    assert counts["factorised_dot_product"] == counts["spacetime"]
    assert counts["factorised_self_attention"] > counts["spacetime"]  # a second attention in each block


def test_parameters_of_the_papers_models():
    """ViViT-B/16x2, 400 classes, 32 frames of 224²: millions as in the paper's table."""
    options = dict(
        clip_shape=(3, 32, 224, 224),
        num_classes=400,
        tubelet=(2, 16, 16),
        dim=768,
        depth=12,
        heads=12,
        mlp_dim=3072,
    )
    with torch.device("meta"):
        counts = [sum(p.numel() for p in build_model(name, **options).parameters()) / 1e6 for name in VIVITS]
    assert counts == pytest.approx([88.9, 115.1, 117.3, 88.9], abs=0.1)


@torch.no_grad()
def test_random_weights_are_large_enough():
    """The parity tests mean something only where attention is not uniform and the GELU not linear."""
    for name in VIVITS:
        model = randomise(small(name))
        for module in attentions(model):
            module.record = []
        inputs = []

        def keep_spread(module, args, inputs=inputs):
            inputs.append(args[0].std().item())

        for module in model.modules():
            if isinstance(module, nn.GELU):
                module.register_forward_pre_hook(keep_spread)
        model(noise(4, *model.config.clip_shape))
        for module in attentions(model):
            for weights in module.record:
                uniform = 1 / weights.shape[-1]
                assert weights.amax(dim=-1).mean() > 1.5 * uniform, (name, weights.shape)
        assert min(inputs) > 1
