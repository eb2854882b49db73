"""Faithfulness tells right maps from wrong ones, and hits on a mask are counted as defined."""

import pytest
import torch

from tests.test_explain import S, T, sharp
from tests.test_saliency import brightness_model
from tests.tiny import TINY
from vivit_edu import build_model
from vivit_edu.errors import ConfigError
from vivit_edu.explain.faithfulness import (
    METHODS,
    all_maps,
    estimate,
    faithfulness,
    organ_scores,
    randomised,
    selections,
)
from vivit_edu.explain.occlusion import occlusion


@pytest.fixture(scope="module")
def clips():
    """Tubelets of different brightness, so that the brightness model has a right order."""
    levels = torch.rand(6, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    return levels.repeat_interleave(2, 2).repeat_interleave(4, 3).repeat_interleave(4, 4)


@pytest.fixture(scope="module")
def scored(clips):
    """The true order of importance for class 1, its reverse, and noise, in a model that only sums brightness."""
    model = brightness_model("spacetime")
    with torch.no_grad():
        model.head.weight.mul_(10)
        model.head.bias[1] = -model(clips).diff(dim=1).mean()  # around one half, where probabilities move
    truth = clips[:, 0, ::2, ::4, ::4].flatten(2)  # [B, T', S]
    maps = {"true": truth, "reversed": -truth}
    classes = torch.ones(len(clips), dtype=torch.long)
    return model, maps, classes, faithfulness(model, clips, maps, classes=classes, progress=False)


def test_the_right_map_beats_random_order_and_its_reverse_loses(scored):
    *_, found = scored
    right, wrong, chance = found["true"], found["reversed"], found["random order"]
    assert right.deletion.mean < chance.deletion.mean < wrong.deletion.mean
    assert right.insertion.mean > chance.insertion.mean > wrong.insertion.mean
    assert right.gain.low > 0 > wrong.gain.high
    assert (chance.gain.mean, chance.gain.low, chance.gain.high) == (0, 0, 0)


def test_curves_run_from_the_whole_clip_to_grey_and_back(clips):
    model = sharp("spacetime")
    found = faithfulness(model, clips, torch.rand(6, T, S), classes=[1] * 6, progress=False)
    grey = clips.mean(dim=(1, 2, 3, 4), keepdim=True).expand_as(clips)
    with torch.no_grad():
        whole, empty = (model(x).softmax(1)[:, 1] for x in (clips, grey))
    assert (whole - empty).abs().min() > 1e-3
    for scores in found.values():
        assert scores.deletion_curves.shape == (6, 17)
        torch.testing.assert_close(scores.deletion_curves[:, 0], whole)
        torch.testing.assert_close(scores.deletion_curves[:, -1], empty)
        torch.testing.assert_close(scores.insertion_curves[:, 0], empty)
        torch.testing.assert_close(scores.insertion_curves[:, -1], whole)


def test_deletion_takes_the_best_tubelets_first_and_insertion_brings_them_first():
    scores = torch.tensor([[[0.1, 0.9], [0.5, -2.0]]])
    keep = selections(scores, steps=4)
    assert keep.shape == (1, 10, 2, 2)
    deletion, insertion = keep[0, :5].flatten(1).int().tolist(), keep[0, 5:].flatten(1).int().tolist()
    assert deletion == [[1, 1, 1, 1], [1, 0, 1, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    assert insertion == [[1 - x for x in row] for row in deletion]
    assert len(selections(scores, steps=16)[0]) == 10  # no more steps than tubelets


def test_an_area_is_the_mean_height_of_the_curve(scored):
    *_, found = scored
    curve = found["true"].deletion_curves
    by_hand = ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1).mean().item()
    assert found["true"].deletion.mean == pytest.approx(by_hand, abs=1e-6)


def test_the_class_is_the_predicted_one_unless_given(clips):
    model = brightness_model("spacetime")
    maps = torch.rand(len(clips), T, S)
    found = faithfulness(model, clips, maps, progress=False)["map"]
    assert (found.deletion_curves[:, 0] >= 0.5).all()
    dark = faithfulness(model, clips, maps, classes=[0] * len(clips), progress=False)["map"]
    torch.testing.assert_close(dark.deletion_curves, 1 - found.deletion_curves)


def test_occlusion_is_faithful_and_random_weights_are_not(clips):
    """In a model whose attention is sharp, the map of a model with other weights is as good as chance."""
    model = sharp("spacetime")
    many = torch.rand(24, 1, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    maps = all_maps(model, many, methods={"occlusion": occlusion})
    found = faithfulness(model, many, maps, progress=False)
    assert found["occlusion"].gain.low > 0
    assert found["occlusion"].gain.low > found["occlusion, random weights"].gain.high


def test_all_maps_are_for_the_class_the_trained_model_predicts(clips):
    model = sharp("factorised_encoder")
    maps = all_maps(model, clips)
    assert len(maps) == 2 * len(METHODS)
    with torch.no_grad():
        classes = model(clips).argmax(1)
    expected = occlusion(randomised(model), clips, classes, progress=False)
    assert torch.equal(maps["occlusion, random weights"], expected)


def test_random_weights_are_drawn_anew_from_the_seed_and_nothing_else_changes():
    model = sharp("factorised_encoder")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first, again, other = (randomised(model, seed).positions for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first, model.positions)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_interval_is_that_of_the_mean():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)) * 3 + 10
    found = estimate(values)
    error = values.std().item() / 20
    assert found.mean == pytest.approx(values.mean().item(), abs=1e-6)
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.2 * error)
    constant = estimate(torch.full((5,), 0.25))
    assert (constant.low, constant.high) == (0.25, 0.25)


def test_maps_that_do_not_fit_are_refused_by_name(clips):
    model = brightness_model("spacetime")
    with pytest.raises(ConfigError, match=r"'voxels' has shape \[6, 8, 8, 8\], expected.*\[6, 4, 4\]"):
        faithfulness(model, clips, {"voxels": clips[:, 0]}, progress=False)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        faithfulness(model, clips, torch.rand(6, T, S), classes=[2] * 6, progress=False)


# ---- masks


@pytest.fixture
def model():
    return build_model("spacetime", clip_shape=(1, 8, 8, 8), num_classes=3, **TINY)


def mask_of(*places):
    mask = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    for t, j, k in places:
        mask[:, 2 * t : 2 * t + 2, 4 * j : 4 * j + 4, 4 * k : 4 * k + 4] = 1
    return mask


def test_a_map_on_the_organ_scores_one_and_one_beside_it_nought(model):
    scores = torch.zeros(1, T, S)
    scores[0, 1, 2], scores[0, 1, 3] = 2.0, 1.0
    on, beside = (
        organ_scores(model, scores, mask_of((1, 1, 0), (1, 1, 1))),
        organ_scores(model, scores, mask_of((0, 0, 0))),
    )
    assert [on[name].mean for name in ("share", "pointing", "iou")] == [1, 1, 1]
    assert [beside[name].mean for name in ("share", "pointing", "iou")] == [0, 0, 0]


def test_share_and_overlap_are_counted_in_voxels_at_the_organs_volume(model):
    scores = torch.zeros(1, T, S)
    scores[0, 0, 0], scores[0, 3, 3], scores[0, 2, 2] = 3.0, 1.0, -5.0  # what speaks against counts for no share
    found = organ_scores(model, scores, mask_of((0, 0, 0), (1, 0, 0)))
    assert found["share"].mean == pytest.approx(0.75) and found["pointing"].mean == 1
    assert found["iou"].mean == pytest.approx(1 / 3)  # two tubelets chosen, one of them on the organ of two
    half = mask_of((0, 0, 0))
    half[:, 1:] = 0  # half of the best tubelet
    assert organ_scores(model, scores, half)["iou"].mean == pytest.approx(0.5)
    assert organ_scores(model, scores, half)["share"].mean == pytest.approx(0.375)


def test_missing_and_empty_masks_are_refused(model):
    with pytest.raises(ConfigError, match="organphantom3d has masks"):
        organ_scores(model, torch.rand(1, T, S), None)
    with pytest.raises(ConfigError, match=r"clips \[0\] are empty"):
        organ_scores(model, torch.rand(1, T, S), mask_of())
