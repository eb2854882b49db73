"""What each CNN can see and when, the paper's layer plan, and that they train like every other model."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.tiny import tiny_recipe
from vivit_edu import MODELS, Recipe, attention_maps, build_model, cnn
from vivit_edu.cost import count_flops
from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.experiments.runs import evaluate_run, load_run, train_run
from vivit_edu.training import build_seeded, fit, mixed_precision

FUSIONS = ("single_frame", "early_fusion", "late_fusion", "slow_fusion")
CNNS = (*FUSIONS, "multiresolution", "cnn_attention", "cnn3d")
TORCHVISION = "torchvision:r3d_18"


def built(name, clip_shape=(1, 28, 28, 28), **options):
    torch.manual_seed(0)
    return build_model(name, clip_shape=clip_shape, **options).eval()


def random_clips(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def frames_seen(model, output=None, shape=(1, 1, 28, 28, 28)):
    """The frames on which `output(model, clips)` depends: those with a gradient."""
    clips = random_clips(*shape).requires_grad_()
    output = model(clips) if output is None else output(clips)
    output.square().sum().backward()
    return clips.grad.abs().sum(dim=(0, 1, 3, 4)).nonzero().flatten().tolist()


# ---- names and shapes


def test_all_names_are_there_in_teaching_order():
    assert MODELS[4:] == CNNS


@pytest.mark.parametrize("shape", [(1, 28, 28, 28), (3, 16, 64, 64), (2, 7, 9, 12)])
@pytest.mark.parametrize("name", CNNS)
def test_clips_of_any_size_become_logits(name, shape):
    model = built(name, shape, num_classes=5)
    assert model(random_clips(2, *shape)).shape == (2, 5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_multiresolution_takes_every_fusion(fusion):
    model = built("multiresolution", fusion=fusion)
    assert model(random_clips(2, 1, 28, 28, 28)).shape == (2, 11)
    assert len(frames_seen(model)) == {"single_frame": 1, "late_fusion": 2}.get(fusion, 28)


@pytest.mark.parametrize("name", (*CNNS, TORCHVISION))
@torch.no_grad()
def test_logits_do_not_depend_on_the_others_of_the_batch(name):
    model, clips = built(name, (1, 8, 16, 16)), random_clips(3, 1, 8, 16, 16)
    together = model(clips)
    assert torch.allclose(model(clips[1:2]), together[1:2], atol=1e-5)
    assert torch.equal(model(clips), together)
    assert not torch.allclose(together[0], together[1], atol=1e-4)  # or the above would say nothing


@pytest.mark.parametrize("name", CNNS)
def test_in_training_too_a_clip_is_alone(name):
    """GroupNorm, LayerNorm and local response normalisation; BatchNorm would mix the clips."""
    model, clips = built(name, (1, 8, 16, 16)).train(), random_clips(3, 1, 8, 16, 16)
    assert torch.allclose(model(clips[1:2]), model(clips)[1:2], atol=1e-5)


@pytest.mark.parametrize("name", (*CNNS, TORCHVISION))
def test_every_parameter_learns(name):
    model = built(name, (1, 8, 16, 16)).train()
    model(random_clips(4, 1, 8, 16, 16)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()] == []


def test_flops_can_be_counted_of_all():
    assert all(count_flops(built(name), (1, 28, 28, 28)) > 1e7 for name in CNNS)


# ---- what each can see


def test_single_frame_does_not_change_when_other_frames_do():
    model, clips = built("single_frame"), random_clips(2, 1, 28, 28, 28)
    other = random_clips(2, 1, 28, 28, 28, seed=1)
    other[:, :, 14] = clips[:, :, 14]
    assert torch.equal(model(clips), model(other))
    assert frames_seen(model) == [14]


@pytest.mark.parametrize("frames", [2, 3, 4, 5, 7, 10, 16, 28, 64])
def test_late_fusion_sees_exactly_two_frames_far_apart(frames):
    model = built("late_fusion", (1, frames, 12, 12))
    seen = frames_seen(model, shape=(1, 1, frames, 12, 12))
    assert len(seen) == 2 and seen[1] - seen[0] >= frames / 3


def test_late_fusion_has_one_tower_for_both_and_they_meet_when_fully_connected():
    single, late = built("single_frame"), built("late_fusion")
    assert sum(p.numel() for p in single.tower.parameters()) == sum(p.numel() for p in late.tower.parameters())
    first, second = late.take_frames(random_clips(1, 1, 28, 28, 28)).split(1, dim=2)
    apart = torch.cat([late.tower(first), late.tower(second)], dim=2).flatten(1)
    assert torch.allclose(late.features(random_clips(1, 1, 28, 28, 28)), apart, atol=1e-5)
    with pytest.raises(ConfigError, match="single_frame"):
        build_model("late_fusion", clip_shape=(1, 1, 28, 28))


def test_early_fusion_sees_all_in_its_first_layer():
    model = built("early_fusion")
    first = lambda clips: model.tower[0](model.take_frames(clips))  # noqa: E731
    assert first(random_clips(1, 1, 28, 28, 28)).shape == (1, 24, 1, 28, 28)
    assert frames_seen(model, first) == list(range(28))


def growth(model, frames, layers=4):
    """How many frames one feature sees after each of the first convolutions, and how many features time has."""
    ends = [i + 1 for i, module in enumerate(model.tower) if isinstance(module, nn.Conv3d)][:layers]
    sizes, counts = [], []
    for end in ends:
        features = lambda clips: model.tower[:end](model.take_frames(clips))  # noqa: B023, E731
        shape = (1, 1, frames, *model.config.clip_shape[2:])
        sizes.append(len(frames_seen(model, lambda clips: features(clips)[:, :, 0], shape)))
        counts.append(features(random_clips(*shape)).shape[2])
    return sizes, counts


@pytest.mark.parametrize("backbone, pixels", [("small", 28), ("alexnet", 60)])
def test_slow_fusion_of_the_papers_ten_frames(backbone, pixels):
    """T=4 at stride 2 gives 4 responses, then T=2 at stride 2 twice: the third layer sees all 10 frames."""
    model = built("slow_fusion", (1, 10, pixels, pixels), backbone=backbone)
    assert growth(model, 10) == ([4, 6, 10, 10], [4, 2, 1, 1])


def test_slow_fusion_of_28_frames_sees_all_and_forgets_none():
    model = built("slow_fusion")
    assert growth(model, 28) == ([4, 6, 10, 10], [13, 7, 4, 4])
    assert frames_seen(model) == list(range(28))


@pytest.mark.parametrize("frames", range(1, 13))
def test_slow_fusion_drops_no_frame_of_any_length(frames):
    shape = (1, frames, 12, 12)
    assert frames_seen(built("slow_fusion", shape), shape=(1, *shape)) == list(range(frames))


@pytest.mark.parametrize("name", ["cnn_attention", "cnn3d"])
def test_the_others_see_the_whole_of_time(name):
    options = {"frame_step": 1} if name == "cnn_attention" else {}
    assert frames_seen(built(name, **options)) == list(range(28))


def test_cnn_attention_takes_every_second_frame_unless_told_otherwise():
    assert frames_seen(built("cnn_attention")) == list(range(0, 28, 2))


def test_only_some_notice_the_order_of_the_frames():
    """The frames of a clip turned round: a single frame in the middle of an odd number stays where it is."""
    clips = random_clips(2, 1, 27, 28, 28)
    for name in CNNS:
        model = built(name, (1, 27, 28, 28))
        if name == "cnn_attention":
            model.positions.data *= 50  # they start small
        change = (model(clips) - model(clips.flip(2))).abs().max() / model(clips).abs().max()
        assert change == 0 if name in ("single_frame", "multiresolution") else change > 1e-3, name


# ---- two resolutions


def test_the_fovea_does_not_change_when_the_border_does_and_the_context_does():
    model, clips = built("multiresolution"), random_clips(2, 1, 28, 28, 28)
    border = clips.clone()
    border[..., 7:21, 7:21] = 0
    other = border + torch.nn.functional.pad(clips[..., 7:21, 7:21], (7, 7, 7, 7))
    other[..., :7, :] = 1 - other[..., :7, :]
    frames, others = model.take_frames(clips), model.take_frames(other)
    assert torch.equal(model.fovea(cnn.see_fovea(frames)), model.fovea(cnn.see_fovea(others)))
    assert not torch.allclose(model.context(cnn.see_context(frames)), model.context(cnn.see_context(others)))
    assert not torch.allclose(model(clips), model(other))
    for stream, notices in ((model.fovea, True), (model.context, False)):  # each silenced in turn
        weights = [p.detach().clone() for p in stream.parameters()]
        with torch.no_grad():
            [p.zero_() for p in stream.parameters()]
            assert torch.equal(model(clips), model(other)) != notices
            [p.copy_(w) for p, w in zip(stream.parameters(), weights)]


def test_context_is_the_whole_frame_at_half_resolution_and_fovea_its_middle():
    clips = random_clips(1, 1, 1, 8, 8)
    context, fovea = cnn.see_context(clips), cnn.see_fovea(clips)
    assert context[0, 0, 0, 0, 0] == pytest.approx(clips[0, 0, 0, :2, :2].mean().item())
    assert torch.equal(fovea, clips[..., 2:6, 2:6])
    odd = random_clips(1, 1, 1, 7, 9)
    assert cnn.see_context(odd).shape == cnn.see_fovea(odd).shape == (1, 1, 1, 3, 4)


def test_streams_have_weights_of_their_own():
    model = built("multiresolution")
    assert not torch.equal(model.context[0].weight, model.fovea[0].weight)


# ---- the paper's sizes


def convolutions_of(tower, clips):
    """(shape without batch, parameters) after each convolution and pooling."""
    rows = []
    for module in tower:
        clips = module(clips)
        if isinstance(module, (nn.Conv3d, nn.MaxPool3d)):
            rows.append((tuple(clips.shape[1:]), sum(p.numel() for p in module.parameters())))
    return rows


@torch.no_grad()
def test_alexnet_is_the_papers_plan():
    """C(96,11,3)-N-P-C(256,5,1)-N-P-C(384,3,1)-C(384,3,1)-C(256,3,1)-P-FC(4096)-FC(4096) on 170×170×3, worked out
    by hand: d·(f·f·c) weights and d biases; 170 at stride 3 gives 57, and pooling halves, 28, 14, 7. That the
    last features are 7×7×256 stands in section 3.2."""
    model = built("single_frame", (3, 10, 170, 170), num_classes=487, backbone="alexnet")
    assert convolutions_of(model.tower, torch.zeros(1, 3, 1, 170, 170)) == [
        ((96, 1, 57, 57), 96 * 11 * 11 * 3 + 96),
        ((96, 1, 28, 28), 0),
        ((256, 1, 28, 28), 256 * 5 * 5 * 96 + 256),
        ((256, 1, 14, 14), 0),
        ((384, 1, 14, 14), 384 * 3 * 3 * 256 + 384),
        ((384, 1, 14, 14), 384 * 3 * 3 * 384 + 384),
        ((256, 1, 14, 14), 256 * 3 * 3 * 384 + 256),
        ((256, 1, 7, 7), 0),
    ]
    linear = [sum(p.numel() for p in m.parameters()) for m in model.classifier if isinstance(m, nn.Linear)]
    assert linear == [51_384_320, 16_781_312, 1_995_239]
    assert sum(p.numel() for p in model.parameters()) == 3_747_200 + sum(linear)


def test_fusions_of_the_papers_size():
    """What a fusion changes in the first convolution and the first fully connected layer (on the meta device)."""
    with torch.device("meta"):
        early, late, slow = (
            build_model(f"{fusion}_fusion", clip_shape=(3, 10, 170, 170), num_classes=487, backbone="alexnet")
            for fusion in ("early", "late", "slow")
        )
    assert early.tower[0].weight.shape == (96, 3, 10, 11, 11)  # the paper's 11×11×3×T, T=10
    assert slow.tower[0].weight.shape == (96, 3, 4, 11, 11)
    assert [m.in_features for m in (early.classifier[0], late.classifier[0], slow.classifier[0])] == [
        12544,
        25088,
        12544,
    ]
    spans = [m.kernel_size[0] for m in slow.tower if isinstance(m, nn.Conv3d)]
    assert spans == [4, 2, 2, 1, 1]


@torch.no_grad()
def test_streams_of_the_papers_size_end_at_7_by_7_too():
    """Frames of 178×178, streams of 89×89, and no last pooling: 7×7×256 each (section 3.2)."""
    with torch.device("meta"):
        model = build_model("multiresolution", clip_shape=(3, 10, 178, 178), num_classes=487, backbone="alexnet")
        assert model.fovea(torch.zeros(1, 3, 1, 89, 89)).shape == (1, 256, 1, 7, 7)
    assert model.classifier[0].in_features == 2 * 7 * 7 * 256
    assert cnn.see_context(torch.zeros(1, 3, 1, 178, 178)).shape[3:] == (89, 89)


def test_normalisation_is_krizhevskys():
    """b = a / (2 + 1e-4 Σ a²)^0.5, the sum over five neighbouring channels, at each place of each frame alone."""
    norm = next(m for m in built("single_frame").tower if isinstance(m, cnn.LocalResponseNorm))
    a = 100 * random_clips(1, 7, 2, 3, 3)
    expected = a.clone()
    for channel in range(7):
        sums = a[:, max(channel - 2, 0) : channel + 3].square().sum(dim=1)
        expected[:, channel] = a[:, channel] / (2 + 1e-4 * sums) ** 0.5
    torch.testing.assert_close(norm(a), expected)
    torch.testing.assert_close(norm(a), nn.LocalResponseNorm(5, alpha=5e-4, beta=0.5, k=2)(a))  # torch divides α by n


@pytest.mark.parametrize("name", [*CNNS, "torchvision:r3d_18"])
def test_in_bfloat16_gradients_point_where_those_of_float32_do(name):
    """Some kernels leave gradients unwritten in bfloat16, and training then ends in numbers that are none."""
    model, clips = built(name).train(), random_clips(8, 1, 28, 28, 28)
    found = []
    for bfloat16 in (False, True):
        model.zero_grad()
        with mixed_precision(torch.device("cpu"), on_cpu=bfloat16):
            loss = nn.functional.cross_entropy(model(clips), torch.arange(8))
        loss.backward()
        found.append({name: parameter.grad.flatten() for name, parameter in model.named_parameters()})
    for key, exact in found[0].items():
        assert len(exact) < 100 or torch.cosine_similarity(exact, found[1][key], dim=0) > 0.9, key


# ---- several clips of one video


def test_the_probabilities_of_a_videos_clips_are_averaged():
    model, views = (
        built("slow_fusion", (1, 8, 16, 16)).train(),
        torch.randint(0, 256, (5, 1, 8, 16, 16)).to(torch.uint8),
    )
    for parameter in model.parameters():  # so sure of itself that averaged logits would say something else
        parameter.data *= 1.5
    found = cnn.predict_video(model, views)
    alone = torch.stack([model(view[None] / 255).softmax(dim=1)[0] for view in views])
    torch.testing.assert_close(found, alone.mean(dim=0))
    assert found.sum().item() == pytest.approx(1)
    assert not torch.allclose(found, model(views / 255).mean(dim=0).softmax(dim=0), atol=1e-3)


# ---- options and messages


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("slow_fusion", {"drop_path": 0.1}, "no option drop_path.*backbone, dropout$"),
        ("slow_fusion", {"fusion": "early_fusion"}, "no option fusion"),
        ("multiresolution", {"fusion": "medium"}, "single_frame, early_fusion"),
        ("single_frame", {"backbone": "resnet"}, "alexnet, small"),
        ("single_frame", {"dropout": 1.0}, "dropout"),
        ("cnn3d", {"tubelet": (7, 7, 7)}, "no option tubelet.*width"),
        ("cnn3d", {"width": 12}, "multiple of 8"),
        ("cnn_attention", {"frame_step": 0}, "frame_step"),
        ("cnn_attention", {"dim": 30}, "heads"),
        ("spacetime", {"backbone": "small"}, "no option backbone"),
        ("torchvision:r3d_18", {"width": 64}, "no option width; its options are none"),
        ("torchvision:resnet18", {}, "torchvision:r3d_18"),
        ("cnn4d", {}, "cnn3d"),
    ],
)
def test_what_cannot_be_built_is_named_with_what_can(name, options, says):
    with pytest.raises(ConfigError, match=says):
        build_model(name, **options)


@pytest.mark.parametrize("name", CNNS)
@torch.no_grad()
def test_a_model_in_bfloat16_computes_what_it_does_in_float32(name):
    """Weights and clips both: torch's 3D average pooling has no kernel for that on a CPU."""
    model, clips = built(name, (1, 8, 16, 16)), random_clips(2, 1, 8, 16, 16)
    exact = model(clips)
    found = model.bfloat16()(clips.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)


@pytest.mark.parametrize("name", ["single_frame", "slow_fusion", "multiresolution", "cnn_attention"])
@pytest.mark.parametrize("backbone", cnn.BACKBONES)
def test_frames_are_too_small_exactly_where_a_pooling_leaves_nothing(name, backbone, monkeypatch):
    """Without the check, torch's pooling itself refuses the same sizes and no others."""
    sizes = [(h, w) for h in (1, 2, 3, 4, 7, 8, 9, 19, 20, 21, 22, 23, 45, 46, 47, 48) for w in (h, 60)]

    def builds(size):
        with torch.device("meta"):
            build_model(name, clip_shape=(1, 2, *size), backbone=backbone)
        return True

    found = {}
    for size in sizes:
        try:
            found[size] = builds(size)
        except ConfigError as error:
            assert f"{size[0]}×{size[1]} pixels are too small" in str(error)
            found[size] = False
    monkeypatch.setattr(cnn, "check_pixels", lambda *_: None)
    for size, fits in found.items():
        if fits:
            assert builds(size)
        else:
            with pytest.raises(RuntimeError, match="[Oo]utput size|non-zero size|too small"):
                builds(size)
    assert {True, False} == set(found.values())


@pytest.mark.parametrize("name", ["early_fusion", "multiresolution", "cnn_attention"])
def test_another_fault_is_not_told_as_frames_too_small(name, monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError("tried to allocate 40 GiB")

    monkeypatch.setattr(cnn.Convolution, "forward", too_much)
    with pytest.raises(torch.OutOfMemoryError, match="40 GiB"):
        build_model(name)


def test_a_video_without_views_is_refused():
    with pytest.raises(ConfigError, match="no views"):
        cnn.predict_video(built("single_frame"), torch.zeros(0, 1, 28, 28, 28))


def test_frames_too_small_are_refused_in_words():
    with pytest.raises(ConfigError, match="2×2 pixels are too small"):
        build_model("single_frame", clip_shape=(1, 4, 2, 2))
    with pytest.raises(ConfigError, match=r"\[B, 1, 8, 16, 16\]"):
        built("slow_fusion", (1, 8, 16, 16))(torch.zeros(1, 1, 9, 16, 16))


def test_a_cnn_has_no_attention_maps():
    for name in ("slow_fusion", "cnn_attention"):
        with pytest.raises(ConfigError, match="no attention among tubelets.*spacetime"):
            attention_maps(built(name), random_clips(1, 1, 28, 28, 28))


# ---- training


@pytest.mark.parametrize("name", CNNS)
def test_a_run_trains_saves_resumes_and_evaluates(name, tiny_volumes, tmp_path, monkeypatch):
    """As every model does: stopped after the first epoch, it ends at the same figures as without."""
    import vivit_edu.experiments.runs

    monkeypatch.setattr(vivit_edu.experiments.runs, "load_volumes", lambda *_, **__: tiny_volumes)
    recipe = replace(tiny_recipe(model=name, epochs=2), options={})
    whole = train_run(tiny_volumes, recipe, out=tmp_path / "whole", device="cpu")
    model = build_seeded(recipe, tiny_volumes, 0)

    class Stop(Exception):
        pass

    def stop_after_one(*arguments, **options):
        if arguments[2] == 2:
            raise Stop
        return save(*arguments, **options)

    from vivit_edu.support import checkpoint

    save = checkpoint.save_checkpoint
    monkeypatch.setattr(checkpoint, "save_checkpoint", stop_after_one)
    with pytest.raises(Stop):
        fit(model, tiny_volumes, recipe, out=tmp_path / "stopped", progress=False)
    monkeypatch.setattr(checkpoint, "save_checkpoint", save)
    (tmp_path / "stopped" / "run.json").write_text((tmp_path / "whole" / "run.json").read_text())
    resumed = train_run(tiny_volumes, recipe, out=tmp_path / "stopped", resume=True, device="cpu")
    assert resumed["val"] == whole["val"] and resumed["test"] == whole["test"]
    assert resumed["options"]["num_classes"] == 3

    assert evaluate_run(tmp_path / "whole")["test"].acc == whole["test"]["acc"]
    assert (tmp_path / "whole" / "curves.png").exists() and not (tmp_path / "whole" / "attention.png").exists()
    assert type(load_run(tmp_path / "whole")[0]) is type(model)


@pytest.mark.parametrize("name", ["early_fusion", "slow_fusion", "cnn3d", "cnn_attention"])
def test_what_sees_all_frames_learns_where_a_slab_lies_in_time(name, tiny_volumes):
    recipe = replace(tiny_recipe(model=name, epochs=15, lr=3e-3), options={})
    history = fit(build_seeded(recipe, tiny_volumes, 0), tiny_volumes, recipe, progress=False)
    assert history["val_acc"][-1] >= 0.9


def test_a_preset_gives_a_cnn_its_own_defaults():
    assert Recipe.preset("quick", model="slow_fusion").options == {}
    assert Recipe.preset("full", model="cnn3d", options={"width": 32}).options == {"width": 32}
    assert Recipe.preset("quick", model="factorised_encoder").options == Recipe.preset("quick").options != {}


def test_a_run_of_another_model_is_not_resumed(tiny_volumes, tmp_path):
    recipe = replace(tiny_recipe(model="cnn3d", epochs=1), options={})
    fit(build_seeded(recipe, tiny_volumes, 0), tiny_volumes, recipe, out=tmp_path, progress=False)
    other = replace(recipe, model="early_fusion")
    with pytest.raises(CheckpointError, match="model was cnn3d, now early_fusion"):
        fit(build_seeded(other, tiny_volumes, 0), tiny_volumes, other, out=tmp_path, resume=True, progress=False)
