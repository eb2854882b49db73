"""Augmentation: each operation by what it must do, and against torchvision where that has the same."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vivit_edu import augment
from vivit_edu.augment import (
    Augmentation,
    augment_batch,
    draws,
    mirror_batch,
    mixing,
    predict_views,
    rand_augment,
    swap_sides,
    warp,
)
from vivit_edu.augment.mixing import cutmix, mix, mixup, soften
from vivit_edu.errors import ConfigError

# OrganMNIST3D's swap: kidneys 1 <-> 2, femurs 3 <-> 4, lungs 7 <-> 8
ORGANS = SimpleNamespace(axis=3, permutation=(0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10))
INTENSITIES = ["gain", "bias", "gamma", "blur", "noise", "erase"]
STRENGTHS = {
    "shift": 0.2,
    "rotate": 15.0,
    "scale": 0.2,
    "shear": 0.2,
    "elastic": 0.04,
    "gain": 0.4,
    "bias": 0.2,
    "gamma": 0.5,
    "blur": 1.5,
    "noise": 0.1,
    "erase": 1.0,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_clips(*shape, seed=1):
    return torch.rand(shape, generator=seeded(seed))


def smooth_clips(batch=4, channels=1, size=(9, 10, 11), seed=1):
    coarse = random_clips(batch, channels, 4, 4, 4, seed=seed)
    return F.interpolate(coarse, size=size, mode="trilinear")


def apply(name, clips, strength, generator):
    if name in INTENSITIES:
        return getattr(augment, name)(clips, strength, generator)
    return warp.warp(clips, generator, **{name: strength})


def marked(size, *places):
    clip = torch.zeros(1, 1, *size)
    for place in places:
        clip[(0, 0, *place)] = 1
    return clip


def rotated(clips, angles):
    matrix = warp.rotations(torch.tensor([angles]), clips.shape[2:])
    return warp.resample(clips, matrix, torch.zeros(1, 3))


# --- every operation ---


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_seed_fixes_the_result_and_another_changes_it(name):
    clips = smooth_clips()
    result = apply(name, clips, STRENGTHS[name], seeded(3))
    assert torch.equal(result, apply(name, clips, STRENGTHS[name], seeded(3)))
    assert not torch.equal(result, apply(name, clips, STRENGTHS[name], seeded(4)))


@pytest.mark.parametrize("name", STRENGTHS)
def test_no_operation_reads_the_global_generator_or_changes_its_input(name):
    clips = smooth_clips()
    before, state = clips.clone(), torch.get_rng_state()
    apply(name, clips, STRENGTHS[name], seeded())
    assert torch.equal(clips, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_clip_has_its_own_draw(name):
    one = smooth_clips(batch=1)
    result = apply(name, one.expand(6, -1, -1, -1, -1), STRENGTHS[name], seeded())
    differing = [not torch.equal(result[0], other) for other in result[1:]]
    assert sum(differing) >= 4


@pytest.mark.parametrize("name", STRENGTHS)
def test_shape_range_and_type(name):
    as_bytes = (random_clips(3, 2, 7, 9, 8) * 255).to(torch.uint8)
    result = apply(name, as_bytes, STRENGTHS[name], seeded(7))
    assert result.shape == as_bytes.shape
    if name in ("shift", "erase"):  # these hand the voxels on as they are
        assert result.dtype == torch.uint8
        result = result / 255
    assert result.dtype == torch.float32
    assert result.min() >= 0 and result.max() <= 1
    from_floats = apply(name, as_bytes / 255, STRENGTHS[name], seeded(7))
    torch.testing.assert_close(result, from_floats)


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_strength_of_0_is_the_identity_also_for_single_clips_of_a_batch(name):
    clips = smooth_clips()
    torch.testing.assert_close(apply(name, clips, 0.0, seeded()), clips)
    only_last = torch.tensor([0.0, 0.0, 0.0, STRENGTHS[name]])
    result = apply(name, clips, only_last, seeded(2))
    torch.testing.assert_close(result[:3], clips[:3], atol=2e-6, rtol=0)
    assert (result[3] - clips[3]).abs().max() > 1e-3


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_channels_of_a_clip_share_its_draw(name):
    clips = smooth_clips().expand(-1, 3, -1, -1, -1)
    result = apply(name, clips, STRENGTHS[name], seeded())
    if name != "noise":
        torch.testing.assert_close(result[:, 0], result[:, 2])


@pytest.mark.parametrize("name", ["gain", "bias", "gamma"])
def test_the_frames_of_a_clip_share_its_draw(name):
    still = random_clips(4, 1, 1, 6, 6).expand(-1, -1, 5, -1, -1)
    result = apply(name, still, STRENGTHS[name], seeded())
    assert torch.equal(result, result[:, :, :1].expand_as(result))


def test_the_frames_of_a_film_share_every_draw_but_the_noise():
    still = smooth_clips(size=(1, 12, 12)).expand(-1, -1, 5, -1, -1)
    everything = Augmentation(**STRENGTHS | {"noise": 0.0}, film=True, mirror=True, mixup=1.0, cutmix=1.0)
    result, _ = augment_batch(everything, still, torch.arange(4), 4, None, seeded())
    assert result.shape == still.shape
    torch.testing.assert_close(result, result[:, :, :1].expand_as(result))
    volume = dataclasses.replace(everything, film=False)
    volumes, _ = augment_batch(volume, still, torch.arange(4), 4, None, seeded())
    assert (volumes - volumes[:, :, :1]).abs().max() > 0.05


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(5, 3, 4), (1, 4, 3)])
def test_a_rolled_clip_begins_elsewhere_and_keeps_the_order_of_its_cycle(size, dtype):
    clips = (random_clips(200, 2, *size) * 255).to(dtype)
    before, rolled = clips.clone(), augment.roll_clips(clips, seeded())
    every = torch.stack([clips.roll(-start, 2) for start in range(size[0])])  # [starts, B, C, T, H, W]
    found = (every == rolled).flatten(2).all(2)  # [starts, B]
    assert (found.sum(0) == 1).all() and rolled.dtype == dtype and torch.equal(clips, before)
    share = found.float().mean(1)  # each start as often: 200 draws
    assert (share - 1 / size[0]).abs().max() < 0.12


def test_rolling_is_off_unless_asked_for_and_comes_before_a_film_is_folded():
    clips, labels = random_clips(6, 1, 5, 4, 4), torch.arange(6)
    for film in (False, True):
        asked = Augmentation(roll=True, film=film)
        rolled, _ = augment_batch(asked, clips, labels, 6, None, seeded())
        assert torch.equal(rolled, augment.roll_clips(clips, seeded())) and not torch.equal(rolled, clips)
    assert not Augmentation().roll


def test_a_film_does_not_run_backwards():
    clips = torch.zeros(16, 1, 6, 4, 4)
    clips[:, :, 0] = 1  # light in the first frame only, symmetric within it
    labels = torch.zeros(16).long()
    film, _ = augment_batch(Augmentation(mirror=True, film=True), clips, labels, 2, None, seeded())
    assert torch.equal(film, clips)


# --- geometry ---


def test_shift_moves_voxels_exactly_and_fills_with_0():
    clips = random_clips(3, 2, 6, 7, 8)
    offset = torch.tensor([[0, 0, 0], [2, -1, 3], [-3, 3, -4]])
    moved = warp.move(clips, offset)
    assert torch.equal(moved[0], clips[0])
    for clip, (dt, dh, dw), result in zip(clips, offset.tolist(), moved):
        expected = clip.roll((dt, dh, dw), (1, 2, 3))
        for axis, by in ((1, dt), (2, dh), (3, dw)):
            empty = slice(0, by) if by > 0 else slice(by + expected.shape[axis], None)
            expected.transpose(0, axis)[empty if by else slice(0, 0)] = 0
        assert torch.equal(result, expected)


def test_shift_is_bounded_by_its_part_of_each_axis_and_reaches_it():
    clips = marked((20, 10, 12), (10, 5, 6)).expand(400, -1, -1, -1, -1)
    places = warp.warp(clips, seeded(), shift=0.2)[:, 0].nonzero()[:, 1:] - torch.tensor([10, 5, 6])
    assert len(places) == 400
    assert places.amax(0).tolist() == [4, 2, 2] and places.amin(0).tolist() == [-4, -2, -2]


def test_shift_with_other_warps_is_the_same_shift():
    clips = smooth_clips()
    alone = warp.warp(clips, seeded(), shift=0.3)
    together = warp.warp(clips, seeded(), shift=0.3, rotate=1e-9)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "angles, place",
    [  # seen from the centre (4, 4, 4), the mark lies at (-3, 2, 0)
        ((90.0, 0.0, 0.0), (1, 4, 6)),  # about T, from H towards W: at (-3, 0, 2)
        ((0.0, 90.0, 0.0), (4, 6, 1)),  # about H, from T towards W: at (0, 2, -3)
        ((0.0, 0.0, 90.0), (2, 1, 4)),  # about W, from T towards H: at (-2, -3, 0)
        ((180.0, 0.0, 0.0), (1, 2, 4)),
        ((90.0, 0.0, 90.0), (4, 1, 6)),  # about T first, then about W
    ],
)
def test_a_rotation_takes_a_marked_voxel_where_it_should(angles, place):
    result = rotated(marked((9, 9, 9), (1, 6, 4)), angles)
    torch.testing.assert_close(result, marked((9, 9, 9), place), atol=1e-5, rtol=0)


def test_a_rotation_turns_voxels_and_not_parts_of_an_axis():
    """In a clip with axes of different lengths a quarter turn still keeps distances from the centre."""
    result = rotated(marked((3, 9, 15), (1, 7, 7)), (90.0, 0.0, 0.0))
    torch.testing.assert_close(result, marked((3, 9, 15), (1, 4, 10)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [90.0, 7.0, -23.0])
def test_rotation_of_one_frame_equals_torchvision(angle):
    from torchvision.transforms.v2 import InterpolationMode, functional

    frame = random_clips(1, 1, 1, 15, 15)
    theirs = functional.rotate(frame[0, 0], angle, InterpolationMode.BILINEAR)
    torch.testing.assert_close(rotated(frame, (angle, 0.0, 0.0))[0, 0], theirs, atol=1e-4, rtol=0)


def test_scale_shear_and_shift_of_one_frame_equal_torchvision():
    from torchvision.transforms.v2 import InterpolationMode, functional

    frame, slant = random_clips(1, 1, 1, 15, 15), torch.zeros(1, 3, 3)
    slant[0, 2, 1] = -math.tan(math.radians(12))  # torchvision shears x by -tan for each y
    matrix = 1.2 * warp.shears(slant, (1, 15, 15))
    ours = warp.resample(frame, matrix, torch.tensor([[0.0, 2.0, -3.0]]))
    theirs = functional.affine(
        frame[0, 0],
        angle=0.0,
        translate=[-3, 2],
        scale=1.2,
        shear=[12.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    torch.testing.assert_close(ours[0, 0], theirs, atol=1e-4, rtol=0)


def test_the_lattice_gives_the_grid_of_every_voxel():
    """Interpolated from a few knots, an affine map is the one torch computes voxel by voxel."""
    clips, theta = smooth_clips(2), torch.eye(3) + 0.2 * torch.randn(2, 3, 3, generator=seeded())
    padded = torch.cat([theta, torch.zeros(2, 3, 1)], 2)
    lattice = F.affine_grid(padded, (2, 1, *[warp.KNOTS] * 3), align_corners=True)
    torch.testing.assert_close(
        warp._between_knots(lattice, clips.shape[2:]),
        F.affine_grid(padded, clips.shape, align_corners=True),
        atol=1e-5,
        rtol=0,
    )


def test_the_bounds_of_rotation_scale_and_shear(monkeypatch):
    seen = []
    monkeypatch.setattr(warp, "resample", lambda clips, matrix, offset, bend: seen.append(matrix) or clips)
    clips = torch.zeros(500, 1, 3, 3, 3)
    warp.warp(clips, seeded(), scale=0.2)
    factors = seen[0].diagonal(dim1=1, dim2=2)
    assert 0.8 <= factors.min() < 0.82 and 1.18 < factors.max() <= 1.2
    assert torch.equal(factors[:, 0], factors[:, 2])  # one zoom for all axes
    warp.warp(clips, seeded(), shear=0.1)
    off_diagonal = seen[1] - torch.eye(3)
    reached = off_diagonal.abs().amax(0)
    assert 0.095 < reached.max() <= 0.1 + 1e-6 and (reached.fill_diagonal_(1) > 0.09).all()
    warp.warp(clips, seeded(), rotate=10.0)
    assert torch.allclose(seen[2] @ seen[2].mT, torch.eye(3), atol=1e-6)
    trace = seen[2].diagonal(dim1=1, dim2=2).sum(1)
    assert 10 < torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos()).max() <= math.sqrt(3) * 10


def test_elastic_bends_smoothly_by_its_part_of_an_axis():
    t, h, w = torch.meshgrid(*(torch.linspace(0, 1, 21),) * 3, indexing="ij")
    ramps = torch.stack([t, h, w]).expand(64, -1, -1, -1, -1)  # each voxel holds its own place
    moved = (warp.warp(ramps, seeded(), elastic=0.03) - ramps)[:, :, 7:14, 7:14, 7:14]  # the middle third
    assert 0.01 < moved.std() < 0.04 and moved.mean().abs() < 0.005
    assert moved.std((0, 2, 3, 4)).min() > 0.01  # along every axis
    assert moved.diff(dim=-1).abs().max() < 0.03  # neighbours move nearly alike: nothing tears


def test_a_bend_along_an_axis_moves_along_that_axis():
    clip = marked((9, 9, 9), (4, 4, 4))
    for axis, place in enumerate([(2, 4, 4), (4, 2, 4), (4, 4, 2)]):
        bend = torch.zeros(1, *[warp.KNOTS] * 3, 3)
        bend[..., axis] = 2 / 8  # every voxel is taken from two voxels on, so the mark comes two voxels back
        result = warp.resample(clip, torch.eye(3)[None], torch.zeros(1, 3), bend)
        torch.testing.assert_close(result, marked((9, 9, 9), place), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nothing_turns_or_shears_towards_an_axis_of_one_voxel(axis):
    sizes = [1 if other == axis else 5 for other in range(3)]
    still = torch.eye(3)[axis]
    for matrix in (
        warp.rotations(torch.full((1, 3), 30.0), sizes)[0],
        warp.shears(torch.full((1, 3, 3), 0.3), sizes)[0],
    ):
        assert torch.equal(matrix[axis], still) and torch.equal(matrix[:, axis], still)
        assert not torch.equal(matrix, torch.eye(3))


def test_several_warps_are_one_resampling(monkeypatch):
    calls = []
    sample = F.grid_sample
    monkeypatch.setattr(warp.F, "grid_sample", lambda *a, **k: calls.append(1) or sample(*a, **k))
    clips = smooth_clips()
    warp.warp(clips, seeded(), shift=0.1, rotate=5.0, scale=0.1, shear=0.1, elastic=0.02)
    assert len(calls) == 1
    rand_augment(clips, 4, 10, seeded())
    assert len(calls) == 2
    warp.warp(clips, seeded(), shift=0.1)  # whole voxels need none
    assert len(calls) == 2


# --- intensities ---


def test_gain_bias_and_gamma_equal_torchvision(monkeypatch):
    from torchvision.transforms.v2 import functional

    clips = random_clips(3, 1, 3, 5, 6)
    draw = torch.tensor([-0.6, 0.1, 0.8])
    monkeypatch.setattr(augment, "uniform", lambda low, high, shape, *rest: draw.reshape(shape))
    for clip, number, gained, biased, powered in zip(
        clips,
        draw.tolist(),
        augment.gain(clips, 0.9, seeded()),
        augment.bias(clips, 0.9, seeded()),
        augment.gamma(clips, 0.9, seeded()),
    ):
        torch.testing.assert_close(gained, functional.adjust_brightness(clip, 1 + number))
        torch.testing.assert_close(biased, (clip + number).clamp(0, 1))
        torch.testing.assert_close(powered, functional.adjust_gamma(clip, math.exp(number)))


@pytest.mark.parametrize(
    "name, read, least, most",
    [
        ("gain", lambda x: x / 0.5, 0.7, 1.3),
        ("bias", lambda x: x - 0.5, -0.3, 0.3),
        ("gamma", lambda x: -x.log2(), math.exp(-0.3), math.exp(0.3)),
    ],
)
def test_the_draws_fill_their_range(name, read, least, most):
    grey = torch.full((2000, 1, 1, 1, 1), 0.5)
    numbers = read(apply(name, grey, 0.3, seeded()))
    assert least - 1e-5 <= numbers.min() < least + 0.02 and most - 0.02 < numbers.max() <= most + 1e-5


def test_blur_equals_torchvision_away_from_the_border(monkeypatch):
    from torchvision.transforms.v2 import functional

    frame = random_clips(1, 1, 1, 25, 25)
    monkeypatch.setattr(augment, "uniform", lambda low, high, shape, *rest: torch.full(shape, 1.3))
    ours = augment.blur(frame, 1.5, seeded())
    theirs = functional.gaussian_blur(frame[:, :, 0], kernel_size=[21, 21], sigma=[1.3, 1.3])
    torch.testing.assert_close(ours[:, :, 0, 9:16, 9:16], theirs[:, :, 9:16, 9:16], atol=1e-4, rtol=0)


def test_blur_spreads_alike_along_all_axes_and_keeps_a_level_one():
    point = marked((11, 11, 11), (5, 5, 5))
    blurred = augment.blur(point, 2.0, seeded())
    for axes in ((2, 3), (2, 4), (3, 4)):
        torch.testing.assert_close(blurred, blurred.transpose(*axes))
    assert 0 < blurred[0, 0, 5, 5, 5] < 0.9
    level = torch.full((3, 1, 4, 5, 6), 0.7)
    torch.testing.assert_close(augment.blur(level, 2.0, seeded()), level)


def test_noise_is_new_in_every_voxel_and_as_strong_as_drawn():
    grey = torch.full((300, 1, 8, 8, 8), 0.5)
    added = augment.noise(grey, 0.1, seeded()) - 0.5
    spread = added.std((1, 2, 3, 4))
    assert spread.max() < 0.11 and 0.04 < spread.mean() < 0.06  # drawn from 0 to 0.1, a clip
    assert added.mean().abs() < 1e-3
    frames = added[:, 0].flatten(2)
    assert (frames[:, 0] * frames[:, 1]).mean().abs() < 0.05 * (added**2).mean()  # no frame repeats another


def test_erase_takes_one_box_from_the_chosen_clips():
    clips = torch.ones(400, 2, 10, 12, 14)
    erased = augment.erase(clips, 0.3, seeded()) == 0
    hit = erased.flatten(1).any(1)
    assert 0.24 < hit.float().mean() < 0.36
    for box in erased[hit][:40]:
        places = box[0].nonzero()
        low, high = places.amin(0), places.amax(0) + 1
        assert len(places) == (high - low).prod()  # full, and nothing outside of it
        assert torch.equal(box[0], box[1])
        assert ((high - low) <= torch.tensor([5, 6, 7])).all()


def test_boxes_reach_the_whole_clip():
    clips = torch.ones(2000, 1, 7, 8, 9)
    assert (augment.erase(clips, 1.0, seeded()) == 0).float().mean(0).min() > 0.001
    weight = mixing._cutmix_weight(clips, 1.0, seeded())
    assert (1 - weight).mean(0).min() > 0.02


SIZES = [(n, n, n) for n in range(1, 13)] + [(28,) * 3, (1, 12, 15), (5, 1, 1), (3, 8, 28), (64, 7, 2)]


@pytest.mark.parametrize("size", SIZES)
def test_an_erased_box_has_between_a_fifth_and_half_of_each_axis_and_never_nothing(size):
    erased = augment.erase(torch.ones(2000, 1, *size), 1.0, seeded())[:, 0] == 0
    assert erased.flatten(1).any(1).all()
    for axis, length in enumerate(size):
        others = [1 + other for other in range(3) if other != axis]
        extents = erased.any(others[1]).any(others[0]).sum(1)  # [B]
        least, most = -(-length // 5), max(length // 2, 1)
        assert extents.unique().tolist() == list(range(least, most + 1))  # every number in between, and no other


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_the_targets_of_cutmix_are_what_was_pasted(size, alpha):
    clips = torch.tensor([0.0, 1.0]).repeat(200).reshape(400, 1, 1, 1, 1).expand(-1, 1, *size)
    mixed, targets = cutmix(clips, soften(torch.arange(2).repeat(200), 2), alpha, seeded())
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), targets[:, 1])
    torch.testing.assert_close(targets.sum(1), torch.ones(400))


@pytest.mark.parametrize("blend", [mixup, cutmix])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 4, 4), (4, 4, 4)])
def test_an_alpha_of_0_changes_nothing(blend, size):
    clips, targets = random_clips(3, 1, *size), torch.eye(3)
    mixed, same = blend(clips, targets, 0.0, seeded())
    assert torch.equal(mixed, clips) and torch.equal(same, targets)


def test_the_smallest_alpha_leaves_most_clips_nearly_whole():
    """As `mixup` promises: below it, float32 would make every λ 1/2."""
    numbers = draws.beta(draws.LEAST_ALPHA, torch.zeros(20000, 1, 1, 1, 1), seeded())
    assert ((numbers < 0.01) | (numbers > 0.99)).float().mean() > 0.9
    for alpha in (1e-3, 1e-30, 5e-324):
        with pytest.raises(ConfigError, match="mixup=.*at least 0.01, or 0"):
            Augmentation(mixup=alpha)
        with pytest.raises(ConfigError, match="cutmix=.*at least 0.01, or 0"):
            cutmix(torch.zeros(2, 1, 2, 2, 2), torch.eye(2), alpha, seeded())


# --- sides ---


def test_a_mirrored_right_kidney_is_a_left_one():
    clips = torch.zeros(40, 1, 4, 4, 6)
    clips[..., 0] = 1  # light on the first side
    flipped, labels = mirror_batch(clips, torch.full((40,), 1), ORGANS, seeded())
    other_side = flipped[:, 0, 0, 0, 5] == 1
    assert 10 < other_side.sum() < 30
    assert torch.equal(labels, torch.where(other_side, 2, 1))
    assert torch.equal(flipped[other_side], clips[other_side].flip(4))
    assert torch.equal(flipped[~other_side], clips[~other_side])


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_the_flip_is_along_the_axis_of_the_clip(axis):
    clips = random_clips(8, 1, 3, 3, 3)
    sides = SimpleNamespace(axis=axis, permutation=(1, 0))
    flipped, labels = mirror_batch(clips, torch.zeros(8).long(), sides, seeded())
    assert 0 < labels.sum() < 8
    assert torch.equal(flipped[labels == 1], clips[labels == 1].flip(axis + 1))


def test_mirrored_twice_is_the_identity():
    clips, labels = random_clips(12, 1, 3, 4, 5), torch.arange(12) % 11
    targets = torch.softmax(random_clips(12, 11), 1)
    for given in (labels, targets):
        once = mirror_batch(clips, given, ORGANS, seeded(5))
        twice = mirror_batch(*once, ORGANS, seeded(5))  # the same coins
        assert not torch.equal(once[1], given)
        assert torch.equal(twice[0], clips) and torch.equal(twice[1], given)


def test_soft_targets_are_swapped_as_labels_are():
    labels = torch.arange(11)
    assert torch.equal(swap_sides(soften(labels, 11), ORGANS), soften(swap_sides(labels, ORGANS), 11))
    assert swap_sides(labels, ORGANS).tolist() == [0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10]


def test_sets_without_sides_flip_freely_along_every_axis():
    clip = torch.arange(8.0).reshape(1, 1, 2, 2, 2)
    flipped, labels = mirror_batch(clip.expand(200, -1, -1, -1, -1), torch.arange(200), None, seeded())
    assert torch.equal(labels, torch.arange(200))
    corners = flipped[:, 0, 0, 0, 0].long().bincount(minlength=8)  # each of 8 flips brings another here
    assert corners.min() > 10


# --- soft labels and mixing ---


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_smoothed_labels_give_the_loss_of_torch(smoothing):
    logits, labels = torch.randn(6, 5, generator=seeded()), torch.tensor([0, 1, 2, 3, 4, 0])
    targets = soften(labels, 5, smoothing)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    torch.testing.assert_close(
        F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=smoothing)
    )
    torch.testing.assert_close(soften(soften(labels, 5), 5, smoothing), targets)


def test_mixup_equals_torchvision(monkeypatch):
    from torchvision.transforms import v2

    clips, targets = random_clips(5, 1, 3, 4, 4), soften(torch.arange(5), 5)
    monkeypatch.setattr(mixing, "beta", lambda alpha, clips, generator: torch.full((len(clips),), 0.3))
    theirs = v2.MixUp(num_classes=5)
    theirs.make_params = lambda flat: {"lam": 0.7}  # ours takes the larger of λ and 1 - λ, so that no clip is lost
    from torchvision.tv_tensors import Video  # a batch of volumes has the axes of a batch of videos

    their_clips, their_targets = theirs(Video(clips), torch.arange(5))
    our_clips, our_targets = mixup(clips, targets, 1.0, seeded())
    torch.testing.assert_close(our_clips, their_clips.as_subclass(torch.Tensor))
    torch.testing.assert_close(our_targets, their_targets)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lam", [0.15, 0.6])
def test_cutmix_of_one_frame_equals_torchvision(monkeypatch, lam, seed):
    from torchvision.transforms import v2

    clips, targets = random_clips(4, 1, 1, 12, 15), soften(torch.arange(4), 4)
    draw = torch.rand(3, 1, generator=seeded(seed))  # one centre (T, H, W) for all clips
    centres = iter(draw)
    monkeypatch.setattr(mixing, "uniform", lambda low, high, shape, *rest: high * next(centres).expand(shape))
    monkeypatch.setattr(mixing, "beta", lambda alpha, clips, generator: torch.full((len(clips),), lam))
    our_clips, our_targets = cutmix(clips, targets, 1.0, seeded())
    theirs = v2.CutMix(num_classes=4)
    theirs_next = iter([draw[2, 0] * 15, draw[1, 0] * 12])  # x before y
    monkeypatch.setattr(theirs, "_dist", SimpleNamespace(sample=lambda shape: torch.tensor(lam)))
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: next(theirs_next).floor().long().reshape(1))
    their_clips, their_targets = theirs(clips[:, :, 0], torch.arange(4))
    assert torch.equal(our_clips[:, :, 0], their_clips)
    torch.testing.assert_close(our_targets, their_targets)


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixed_targets_sum_to_1_and_say_what_the_clip_holds(alphas):
    clips = torch.arange(8.0).reshape(8, 1, 1, 1, 1).expand(-1, 1, 6, 7, 8) / 8  # clip b is all b / 8
    mixed, targets = mix(clips, soften(torch.arange(8), 8), *alphas, seeded())
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    assert ((targets > 0).sum(1) <= 2).all() and targets.min() >= 0
    torch.testing.assert_close(mixed.mean((1, 2, 3, 4)), targets @ (torch.arange(8.0) / 8))
    assert (targets.amax(1) < 0.99).any()


def test_mixup_draws_beta_for_each_clip():
    numbers = draws.beta(0.4, torch.zeros(20000, 1, 1, 1, 1), seeded())
    assert abs(numbers.mean() - 0.5) < 0.01
    assert abs(numbers.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005  # of Beta(α, α)
    clips, targets = random_clips(6, 1, 2, 2, 2), soften(torch.arange(6), 6)
    assert mixup(clips, targets, 1.0, seeded())[1].amax(1).unique().numel() == 6


def test_in_mixup_each_clip_is_the_larger_part_of_one_blend():
    """With λ itself, a quarter of the clips would be the larger part of none."""
    count = 400
    _, targets = mixup(torch.zeros(count, 1, 1, 1, 1), torch.eye(count), 0.1, seeded())
    assert torch.equal(targets.argmax(1), torch.arange(count))
    larger = draws.beta(0.1, torch.zeros(count, 1, 1, 1, 1), seeded())
    torch.testing.assert_close(targets.amax(1), torch.maximum(larger, 1 - larger))


def test_cutmix_cuts_a_box_in_space_and_time():
    clips = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1).expand(-1, 1, 10, 10, 10)
    mixed, _ = cutmix(clips, soften(torch.arange(2), 2), 1.0, seeded(1))
    box = mixed[0, 0] == 1
    assert 0 < box.any((1, 2)).sum() < 10 and 0 < box.any((0, 1)).sum() < 10  # some frames, some columns


def test_an_uncut_box_holds_1_minus_lambda_of_the_volume(monkeypatch):
    monkeypatch.setattr(mixing, "beta", lambda _, clips, generator: torch.full((len(clips),), 1 - 0.81**3))
    _, targets = cutmix(torch.zeros(400, 1, 10, 10, 10), soften(torch.arange(400), 400), 1.0, seeded())
    pasted = 1 - targets.diagonal()
    assert abs(pasted.max() - 0.8**3) < 1e-5  # edges of 0.81 are 8 voxels of 10
    assert pasted.min() < 0.2  # the border cuts others, and the targets follow


# --- RandAugment ---


def chosen(monkeypatch, clips, layers, magnitude):
    seen = {}
    monkeypatch.setattr(augment, "_distort", lambda clips, strengths, _: seen.update(strengths) or clips)
    rand_augment(clips, layers, magnitude, seeded())
    return torch.stack(list(seen.values()), 1), seen  # [B, operations]


@pytest.mark.parametrize("layers", [1, 2, 11])
def test_randaugment_draws_as_many_operations_as_asked_for_each_clip(monkeypatch, layers):
    strengths, _ = chosen(monkeypatch, torch.zeros(660, 1, 1, 1, 1), layers, 15)
    assert ((strengths > 0).sum(1) == layers).all()
    share = (strengths > 0).float().mean(0)
    assert (share - layers / 11).abs().max() < 0.07  # all are as likely


def test_randaugments_magnitude_runs_from_nothing_to_the_strongest(monkeypatch):
    clips = smooth_clips()
    torch.testing.assert_close(rand_augment(clips, 11, 0, seeded()), clips, atol=2e-6, rtol=0)
    strongest, names = chosen(monkeypatch, clips, 11, 30)
    torch.testing.assert_close(strongest[0], torch.tensor(list(augment.STRONGEST.values())))
    half, _ = chosen(monkeypatch, clips, 11, 15)
    torch.testing.assert_close(half, strongest / 2)
    assert list(names) == list(STRENGTHS) and draws.MOST["rand_layers"] == len(augment.STRONGEST)


# --- all together ---


def test_everything_is_off_until_it_is_asked_for():
    assert not any(vars(Augmentation()).values())


def test_a_set_without_sides_flips_through_the_chain_once_along_each_axis():
    clips = torch.zeros(64, 1, 4, 4, 4)
    clips[:, :, 0, 0, 0] = 1
    flipped, _ = augment_batch(Augmentation(mirror=True), clips, torch.zeros(64, dtype=torch.int64), 2, None, seeded())
    corners = {tuple(place[2:].tolist()) for place in flipped.nonzero()}
    assert corners == {(t, h, w) for t in (0, 3) for h in (0, 3) for w in (0, 3)}


def test_the_strongest_of_random_augment_is_allowed():
    assert all(0 < most <= draws.MOST.get(name, math.inf) for name, most in augment.STRONGEST.items())


def test_a_view_may_be_shifted_by_half_of_each_axis_and_no_more():
    clips = torch.rand(1, 1, 4, 6, 9)
    for axis, most in enumerate((2, 3, 4)):
        for sign in (1, -1):
            shift = [0, 0, 0]
            shift[axis] = sign * most
            (view, _), *_ = augment.test_views(clips, None, [tuple(shift)])
            assert view.shape == clips.shape and view.any()
            shift[axis] += sign
            with pytest.raises(ConfigError, match="at most half an axis"):
                list(augment.test_views(clips, None, [tuple(shift)]))


def test_nothing_asked_for_is_nothing_done():
    clips = (random_clips(3, 1, 4, 4, 4) * 255).to(torch.uint8)
    generator = seeded()
    state = generator.get_state()
    result, targets = augment_batch(Augmentation(), clips, torch.tensor([1, 0, 2]), 3, None, generator)
    torch.testing.assert_close(result, clips / 255)
    assert torch.equal(targets, torch.eye(3)[[1, 0, 2]])
    assert torch.equal(generator.get_state(), state)


FULL = Augmentation(
    **STRENGTHS, roll=True, mirror=True, rand_layers=2, rand_magnitude=10, mixup=0.4, cutmix=1.0, smoothing=0.1
)


def test_the_whole_chain():
    clips, labels = (random_clips(6, 1, 7, 8, 9) * 255).to(torch.uint8), torch.arange(6)
    result, targets = augment_batch(FULL, clips, labels, 11, ORGANS, seeded())
    again, same_targets = augment_batch(FULL, clips, labels, 11, ORGANS, seeded())
    assert torch.equal(result, again) and torch.equal(targets, same_targets)
    assert result.dtype == torch.float32 and result.shape == clips.shape
    assert 0 <= result.min() <= result.max() <= 1
    assert targets.shape == (6, 11)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))


@pytest.mark.parametrize("name", STRENGTHS)
def test_a_field_is_the_operation_of_its_name(name):
    clips, only = smooth_clips(), Augmentation(**{name: STRENGTHS[name]})
    result, _ = augment_batch(only, clips, torch.zeros(4).long(), 2, None, seeded())
    torch.testing.assert_close(result, apply(name, clips, STRENGTHS[name], seeded()))


def test_the_label_follows_the_flip_through_the_chain():
    clips = torch.zeros(30, 1, 4, 4, 6)
    clips[..., 0] = 1
    lungs = torch.full((30,), 7)
    both = Augmentation(mirror=True, smoothing=0.1)
    result, targets = augment_batch(both, clips, lungs, 11, ORGANS, seeded())
    assert torch.equal(targets.argmax(1), torch.where(result[:, 0, 0, 0, 5] == 1, 8, 7))
    kept, labels = augment_batch(Augmentation(smoothing=0.1), clips, lungs, 11, ORGANS, seeded())
    assert torch.equal(kept, clips) and (labels.argmax(1) == 7).all()


class DeviceOnly(torch.utils._python_dispatch.TorchDispatchMode):
    """Refuses what makes the host wait for the device: copies between the two that are waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            source = args[0].device.type
            if torch.device(kwargs.get("device") or source).type != source:
                assert kwargs.get("non_blocking") and source == "cpu", "a copy that is waited for"
        return func(*args, **kwargs)


@pytest.mark.parametrize("mirror", [None, ORGANS])
def test_nothing_waits_for_the_device(mirror):
    """On a device that holds no numbers it is an error to read one, as .item() or nonzero would."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        try:
            torch.empty(2, 2, device="cuda")[:, 0]
        except RuntimeError:
            pytest.skip("this torch does not pretend to have a GPU where there is none")
        clips = torch.empty(4, 1, 6, 6, 6, dtype=torch.uint8, device="cuda")
        labels = torch.empty(4, dtype=torch.int64, device="cuda")
        with DeviceOnly():
            result, targets = augment_batch(FULL, clips, labels, 11, mirror, seeded())
    assert result.device.type == targets.device.type == "cuda" and targets.shape == (4, 11)


# --- checked once, at the door ---

AXES = [(1, 1, 1), (1, 4, 5), (5, 1, 4), (4, 5, 1), (2, 2, 2), (3, 2, 8), (8, 7, 6)]
TYPES = [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("film", [False, True])
def test_a_batch_is_checked_once(monkeypatch, film):
    checks = []
    for module in (augment, mixing, draws):
        check = draws.check_batch
        monkeypatch.setattr(module, "check_batch", lambda *a, check=check, **k: checks.append(1) or check(*a, **k))
    clips, everything = random_clips(4, 1, 6, 7, 8), dataclasses.replace(FULL, film=film)
    doors = {
        "augment_batch": lambda: augment_batch(everything, clips, torch.arange(4), 4, None, seeded()),
        "roll_clips": lambda: augment.roll_clips(clips, seeded()),
        "mirror_batch": lambda: mirror_batch(clips, torch.arange(4), None, seeded()),
        "rand_augment": lambda: rand_augment(clips, 11, 30, seeded()),
        "distort": lambda: augment.distort(clips, augment.STRONGEST, seeded()),
        "warp": lambda: warp.warp(clips, seeded(), shift=0.1, rotate=1.0),
        "mixup": lambda: mixup(clips, torch.eye(4), 1.0, seeded()),
        "cutmix": lambda: cutmix(clips, torch.eye(4), 1.0, seeded()),
        "predict_views": lambda: predict_views(Halves(), clips, None, [(0, 0, 0), (1, 0, 0)]),
    } | {name: lambda name=name: getattr(augment, name)(clips, 0.1, seeded()) for name in INTENSITIES}
    for name, call in doors.items():
        checks.clear()
        call()
        assert len(checks) == 1, name


@pytest.mark.parametrize("size", AXES)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_size_and_type_comes_out_whole_and_nothing_given_is_changed(size, dtype, batch):
    wide = (random_clips(*reversed(size), 2, batch) * 255).to(torch.uint8)
    wide = wide if dtype == torch.uint8 else (wide / 255).to(dtype)
    clips = wide.permute(4, 3, 2, 1, 0)  # [B, C, T, H, W], and not contiguous
    assert clips.shape[2:] == size and not (clips.is_contiguous() and batch > 1)
    labels, targets = torch.arange(batch) + 1, soften(torch.arange(batch) + 1, 11).double()
    before = wide.clone(), labels.clone(), targets.clone()
    for name in STRENGTHS:
        result = apply(name, clips, STRENGTHS[name], seeded())
        assert result.shape == clips.shape and result.isfinite().all()
        assert result.dtype == (dtype if name in ("shift", "erase") else torch.float32)
    for given in (labels, targets):
        for mirror in (None, ORGANS):
            for augmentation in (FULL, dataclasses.replace(FULL, film=True)):
                result, soft = augment_batch(augmentation, clips, given, 11, mirror, seeded())
                assert result.dtype == soft.dtype == torch.float32 and result.shape == clips.shape
                assert 0 <= result.min() and result.max() <= 1 + 1e-6 and soft.shape == (batch, 11)
                torch.testing.assert_close(soft.sum(1), torch.ones(batch))
            flipped, turned = mirror_batch(clips, given, mirror, seeded())
            assert flipped.dtype == dtype and turned.dtype == given.dtype
    for mixed, soft in (mixup(clips, targets, 0.4, seeded()), cutmix(clips, targets, 1.0, seeded())):
        assert mixed.dtype == soft.dtype == torch.float32
    assert len(list(augment.test_views(clips, None, [tuple(n // 2 for n in size)]))) == 4
    assert torch.equal(wide, before[0]) and torch.equal(labels, before[1]) and torch.equal(targets, before[2])


BAD_STRENGTHS = [math.inf, -math.inf, math.nan, -0.1, True, 10**400, "0.1", None, [0.1], 1j]
BAD_STRENGTHS += [torch.tensor(0.1), np.float64(0.1), np.float32(0.1), np.int64(0), np.array(0.1)]


@pytest.mark.parametrize("value", BAD_STRENGTHS, ids=repr)
@pytest.mark.parametrize(
    "name",
    [f.name for f in dataclasses.fields(Augmentation) if f.name not in ("roll", "mirror", "film", "rand_layers")],
)
def test_a_strength_that_is_not_a_plain_number_in_range_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^{name}="):
        Augmentation(**{name: value})


@pytest.mark.parametrize("value", [*BAD_STRENGTHS, 0.5, 12])
def test_layers_that_are_not_a_whole_number_in_range_are_refused_by_name(value):
    with pytest.raises(ConfigError, match="^rand_layers"):
        Augmentation(rand_layers=value, rand_magnitude=5)


@pytest.mark.parametrize("name", STRENGTHS)
def test_the_strongest_of_each_gives_whole_numbers(name):
    clips = (random_clips(8, 1, 6, 7, 8) * 255).to(torch.uint8)
    clips[:4] = torch.tensor([0, 255, 0, 255], dtype=torch.uint8).reshape(4, 1, 1, 1, 1)
    result = apply(name, clips, draws.MOST[name], seeded()) / (255 if name in ("shift", "erase") else 1)
    assert result.isfinite().all() and 0 <= result.min() and result.max() <= 1 + 1e-6


@pytest.mark.parametrize("layers", [1, 2, 11])
def test_layers_without_a_magnitude_are_refused(layers):
    with pytest.raises(ConfigError, match="rand_layers=.*rand_magnitude"):
        Augmentation(rand_layers=layers)
    assert Augmentation(rand_layers=layers, rand_magnitude=0.5).rand_layers == layers


def test_a_magnitude_of_0_resamples_nothing(monkeypatch):
    monkeypatch.setattr(warp, "resample", lambda *_: pytest.fail("resampled"))
    clips = random_clips(3, 1, 4, 4, 4)
    for layers, magnitude in ((2, 0), (0, 5), (0, 0)):
        assert torch.equal(rand_augment(clips, layers, magnitude, seeded()), clips)


@pytest.mark.parametrize("shape", [(0, 1, 4, 4, 4), (2, 0, 4, 4, 4), (2, 1, 0, 4, 4), (2, 1, 4, 4, 0)])
def test_an_empty_batch_is_refused_in_words(shape):
    clips, labels = torch.zeros(shape), torch.zeros(shape[0]).long()
    for call in (
        lambda: augment_batch(Augmentation(), clips, labels, 3, None, seeded()),
        lambda: augment_batch(FULL, clips, labels, 11, ORGANS, seeded()),
        lambda: list(augment.test_views(clips, None)),
        lambda: predict_views(Halves(), clips, ORGANS),
        lambda: mirror_batch(clips, labels, None, seeded()),
        lambda: rand_augment(clips, 2, 5, seeded()),
        lambda: augment.distort(clips, {}, seeded()),
        lambda: mixup(clips, torch.zeros(shape[0], 3), 1.0, seeded()),
        lambda: cutmix(clips, torch.zeros(shape[0], 3), 1.0, seeded()),
        lambda: mixing.blend(clips, torch.zeros(shape[0], 3), torch.ones(shape[0], 1, 1, 1, 1)),
        *(lambda name=name: apply(name, clips, 0.1, seeded()) for name in STRENGTHS),
    ):
        with pytest.raises(ConfigError, match="there is nothing in them"):
            call()


# --- test time ---


class Halves(torch.nn.Module):
    """Logits that know the side: a constant, and the light in each half along W."""

    def forward(self, clips):
        assert clips.dtype == torch.float32
        half = clips.shape[-1] // 2
        return torch.stack(
            [
                torch.full((len(clips),), 0.25),
                clips[..., :half].mean((1, 2, 3, 4)),
                clips[..., half:].mean((1, 2, 3, 4)) ** 2,
            ],
            1,
        )


def test_the_mirrored_views_logits_are_swapped_back():
    sides = SimpleNamespace(axis=3, permutation=(0, 2, 1))
    model, clips = Halves(), random_clips(3, 1, 4, 4, 6)
    as_is, mirrored = model(clips), model(clips.flip(4))
    average = predict_views(model, clips, sides)
    torch.testing.assert_close(average, (as_is + mirrored[:, [0, 2, 1]]) / 2)
    # the average knows no side: a mirrored volume gets the same answer for the other side
    torch.testing.assert_close(predict_views(model, clips.flip(4), sides), swap_sides(average, sides))
    torch.testing.assert_close(predict_views(model, clips, sides, flips=False), as_is)


def test_the_views():
    clips = (random_clips(2, 1, 4, 4, 6) * 255).to(torch.uint8)
    free = list(augment.test_views(clips, None))
    assert [swapped for _, swapped in free] == [False] * 4
    for (view, _), axes in zip(free, ((), (2,), (3,), (4,))):
        assert torch.equal(view, clips.flip(axes))
    shifted = list(augment.test_views(clips, ORGANS, shifts=[(0, 0, 0), (1, 0, -2)]))
    assert [swapped for _, swapped in shifted] == [False, True] * 2
    assert torch.equal(shifted[2][0][:, :, 1:, :, :4], clips[:, :, :3, :, 2:])
    assert torch.equal(shifted[3][0], shifted[2][0].flip(4))
    logits = torch.stack([Halves()(view / 255) for view, _ in free]).mean(0)
    torch.testing.assert_close(predict_views(Halves(), clips, None), logits)
    logits = torch.stack([Halves()(view / 255) for view, _ in shifted[::2]]).mean(0)
    torch.testing.assert_close(
        predict_views(Halves(), clips, None, shifts=[(0, 0, 0), (1, 0, -2)], flips=False), logits
    )


# --- bad input ---


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: augment.gain(torch.zeros(2, 4, 4, 4), 0.1, seeded()), r"\(2, 4, 4, 4\).*\[B, C, T, H, W\]"),
        (lambda: warp.warp(torch.zeros(2, 1, 4, 4, 4, dtype=torch.int64), seeded(), shift=0.1), "int64"),
        (lambda: augment.noise(torch.zeros(2, 1, 4, 4, 4), -0.1, seeded()), "noise=-0.1"),
        (lambda: augment.gain(np.zeros((2, 1, 4, 4, 4)), 0.1, seeded()), "clips.*got ndarray"),
        (lambda: augment.gain(torch.zeros(2, 1, 4, 4, 4), torch.ones(3), seeded()), r"gain of shape \(3,\).*2 clips"),
        (lambda: augment.gain(torch.zeros(2, 1, 4, 4, 4), torch.tensor([0.1, math.inf]), seeded()), "gain=.*inf"),
        (lambda: warp.warp(torch.zeros(2, 1, 4, 4, 4), seeded(), shift=torch.tensor([0.1, math.nan])), "shift=.*nan"),
        (lambda: augment.gain(torch.zeros(2, 1, 4, 4, 4), 0.1, 0), "generator"),
        (lambda: augment.distort(torch.zeros(2, 1, 4, 4, 4), {"turn": 0.1}, seeded()), "'turn'.*rotate"),
        (lambda: rand_augment(torch.zeros(2, 1, 4, 4, 4), 1.5, 5, seeded()), "rand_layers.*1.5"),
        (lambda: mixup(torch.zeros(2, 1, 4, 4, 4), torch.eye(2), torch.ones(2), seeded()), "mixup="),
        (lambda: mixing.blend(torch.zeros(2, 1, 4, 4, 4), torch.eye(2), 0.5), "weight 0.5"),
        (lambda: mixing.blend(torch.zeros(2, 1, 4, 4, 4), torch.eye(2), torch.ones(2)), r"weight \(2,\)"),
        (lambda: augment_batch(Augmentation(), torch.zeros(2, 1, 4, 4, 4), [0, 1], 3, None, seeded()), r"\[0, 1\]"),
        (lambda: mirror_batch(torch.zeros(2, 1, 4, 4, 4), torch.tensor([0, 11]), ORGANS, seeded()), "11 were given"),
        (lambda: mirror_batch(torch.zeros(2, 1, 4, 4, 4), torch.tensor([0, -1]), ORGANS, seeded()), "from -1"),
        (lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, shifts=())), "no shifts"),
        (lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, shifts=(0, 0, 0))), "three whole numbers"),
        (lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, [(0.5, 0, 0)])), "three whole numbers"),
        (lambda: warp.warp(torch.zeros(2, 1, 4, 4, 4), seeded(), rotate=-5.0), "rotate=-5.0"),
        (lambda: warp.warp(torch.zeros(2, 1, 4, 4, 4), seeded(), shift=3), "shift=3.*0..0.5"),
        (lambda: Augmentation(gain=-1), "gain=-1"),
        (lambda: Augmentation(blur=float("nan")), "blur=nan"),
        (lambda: Augmentation(erase=1.5), "erase=1.5.*0..1"),
        (lambda: Augmentation(rand_layers=12), "rand_layers=12"),
        (lambda: rand_augment(torch.zeros(2, 1, 4, 4, 4), 2, 31, seeded()), "rand_magnitude=31"),
        (lambda: mixup(torch.zeros(2, 1, 4, 4, 4), torch.eye(2), -1.0, seeded()), "mixup=-1.0"),
        (lambda: mixup(torch.zeros(2, 1, 4, 4, 4), torch.arange(2), 1.0, seeded()), "soften"),
        (lambda: cutmix(torch.zeros(2, 1, 4, 4, 4), torch.eye(3), 1.0, seeded()), r"\(3, 3\).*2 clips"),
        (lambda: soften(torch.tensor([0, 3]), 3), r"0 to 3.*0\.\.2"),
        (lambda: soften(torch.tensor([0, -1]), 3), "-1 to 0"),
        (lambda: soften(torch.eye(4), 3), r"\[B, 3\]"),
        (lambda: soften(torch.eye(3)[0], 3), "float32"),
        (lambda: soften(torch.tensor([0]), 3, 1.1), "smoothing=1.1"),
        (
            lambda: augment_batch(Augmentation(), torch.zeros(2, 1, 4, 4, 4), torch.arange(3), 3, None, seeded()),
            "2 clips",
        ),
        (lambda: mirror_batch(torch.zeros(2, 1, 4, 4, 4), torch.eye(2), ORGANS, seeded()), "2 classes.*11"),
        (lambda: swap_sides(torch.arange(3), SimpleNamespace(axis=3, permutation=(1, 2, 0))), "twice"),
        (lambda: swap_sides(torch.arange(3), SimpleNamespace(axis=3, permutation=(0, 1, 1))), "once"),
        (lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, shifts=[(0, 3, 0)])), r"\(0, 3, 0\)"),
        (lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, shifts=[(0, 0)])), "three whole numbers"),
        (
            lambda: list(augment.test_views(torch.zeros(2, 1, 4, 4, 4), None, shifts=[(0, 0, 0, 0)])),
            "three whole numbers",
        ),
    ],
)
def test_bad_input_says_what_was_given_and_what_is_expected(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
