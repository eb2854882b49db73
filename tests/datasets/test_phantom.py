"""The phantom: the same on every run, laid out as MedMNIST's, true masks, left and right as mirror images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from einops import reduce

from vivit_edu.datasets import phantom
from vivit_edu.datasets.phantom import (
    PHANTOM_CLASSES,
    paint_patient,
    patient_crops,
    phantom_patient,
    scan,
)

CLASS = {name: i for i, name in enumerate(PHANTOM_CLASSES)}


@pytest.fixture(scope="module")
def whole(phantom):
    """What `generate_phantom` wrote into the file that all tests share."""
    with np.load(phantom) as file:
        return {name: file[name] for name in file if name != "generator"}


@pytest.fixture(scope="module")
def few():
    """All crops of 12 patients: (class, image, mask)."""
    return [crop for number in range(12) for crop in patient_crops(number, 28)]


def test_a_patient_is_the_same_whatever_was_drawn_before():
    first = patient_crops(7, 16)
    patient_crops(3, 16)
    np.random.default_rng(0).normal(size=5)
    again = patient_crops(7, 16)
    assert [c[0] for c in first] == [c[0] for c in again]
    for (_, image, mask), (_, image2, mask2) in zip(first, again):
        assert image.tobytes() == image2.tobytes() and mask.tobytes() == mask2.tobytes()
    other = patient_crops(8, 16)
    assert not np.array_equal(first[0][1], other[0][1])
    assert scan(7).torso.hu != scan(8).torso.hu and not np.array_equal(scan(7).pose, scan(8).pose)


def test_the_set_is_what_patients_alone_give(whole):
    """Out of order and one at a time: the crops of a patient are those of the whole set, as it was generated."""
    for split, number in (("test", 150), ("train", 60), ("val", 120)):
        rows = whole[f"{split}_patients"] == number
        crops = patient_crops(number, 28)
        assert np.array_equal(whole[f"{split}_labels"][rows, 0], [c[0] for c in crops])
        assert np.array_equal(whole[f"{split}_images"][rows], np.stack([c[1] for c in crops]))
        assert np.array_equal(whole[f"{split}_masks"][rows], np.stack([c[2] for c in crops]))


def test_layout_and_split_sizes(whole):
    assert sorted(whole) == sorted(
        f"{s}_{k}" for s in ("train", "val", "test") for k in ("images", "labels", "patients", "masks")
    )
    for split, expected, patients in (("train", 971, 115), ("val", 161, 16), ("test", 610, 70)):
        images, labels = whole[f"{split}_images"], whole[f"{split}_labels"]
        masks, numbers = whole[f"{split}_masks"], whole[f"{split}_patients"]
        n = len(images)
        assert abs(n - expected) < 0.1 * expected
        assert images.shape == masks.shape == (n, 28, 28, 28)
        assert labels.shape == (n, 1) and numbers.shape == (n,)
        assert images.dtype == masks.dtype == labels.dtype == np.uint8 and numbers.dtype == np.int64
        assert set(np.unique(masks)) == {0, 1}
        assert set(labels[:, 0]) == set(range(11))  # each class in each split
        assert len(set(numbers)) == patients
        assert len(set(zip(numbers, labels[:, 0]))) == n  # no organ twice
    assert not set(whole["train_patients"]) & set(whole["test_patients"])
    assert not set(whole["val_patients"]) & (set(whole["train_patients"]) | set(whole["test_patients"]))


def test_masks_are_the_organ(whole):
    images, masks = whole["train_images"].astype(np.float32), whole["train_masks"] > 0
    labels = whole["train_labels"][:, 0]
    assert masks.mean((1, 2, 3)).min() > 0.002
    assert 0.3 < masks.mean() < 0.6
    # a box is off its organ, but only a thin winding one leaves the middle half of the crop
    middle = masks[:, 7:21, 7:21, 7:21].any((1, 2, 3))
    assert middle[labels != CLASS["pancreas"]].mean() > 0.99 and middle.mean() > 0.95
    inside = np.array([image[mask].mean() for image, mask in zip(images, masks)])
    around = np.array([image[~mask | mask.all()].mean() for image, mask in zip(images, masks)])
    assert (inside[np.isin(labels, (7, 8))] < 60).all()  # lungs are air
    assert (inside[np.isin(labels, (3, 4))] > 160).all()  # femora are bone
    soft = ~np.isin(labels, (3, 4, 7, 8))
    assert (inside - around)[soft].mean() > 20  # brighter than the fat and air around them


def test_a_mask_is_of_its_own_crop(few):
    """The edge of the mask is an edge of the image: more so than the edge of another crop's mask."""

    def edge(image, mask):
        step = np.abs(np.diff(image.astype(float), axis=2))
        border = mask[:, :, 1:] != mask[:, :, :-1]
        return step[border].mean() / step.mean() if border.any() else np.nan

    own = np.nanmean([edge(image, mask) for _, image, mask in few])
    other = np.nanmean([edge(image, few[i - 1][2]) for i, (_, image, _) in enumerate(few)])
    assert own > 1.4 and other < 1.15


def test_left_and_right_mirror_each_other_along_the_last_axis(whole):
    images, labels = whole["train_images"].astype(np.float64), whole["train_labels"][:, 0]
    for organ in ("kidney", "femur", "lung"):
        right = images[labels == CLASS[f"{organ}-right"]].mean(0)
        left = images[labels == CLASS[f"{organ}-left"]].mean(0)
        gap = [((np.flip(right, axis) - left) ** 2).mean() for axis in range(3)]
        assert gap[2] < 0.6 * min(gap[0], gap[1]), (organ, gap)
        assert gap[2] < 0.8 * ((right - left) ** 2).mean()


def test_liver_and_heart_are_on_their_sides():
    """Patients on the back: liver at low columns (their right), spleen and heart at high ones."""
    seen = 0
    for number in range(6):
        if scan(number).torso.up > 0:
            continue  # face down
        _, labels, _ = phantom_patient(number, spacing=8.0)
        places = {name: np.argwhere(labels == i + 1) for name, i in CLASS.items()}
        column = {name: place[:, 2].mean() for name, place in places.items() if len(place)}
        seen += 1
        assert column["liver"] < column["spleen"] and column["kidney-right"] < column["kidney-left"]
        assert column["lung-right"] < column["lung-left"] and column["liver"] < column["heart"]
        assert places["lung-left"][:, 0].mean() > places["liver"][:, 0].mean()  # slices run from feet to head
        assert places["kidney-left"][:, 1].mean() > places["liver"][:, 1].mean()  # rows from front to back
    assert seen >= 3


def test_64_is_28_seen_more_closely():
    small, large = patient_crops(20, 28), patient_crops(20, 64)
    assert [c[0] for c in small] == [c[0] for c in large]
    for (_, image, mask), (_, image64, mask64) in zip(small, large):
        assert image64.shape == mask64.shape == (64, 64, 64)
        blocks = reduce(image.astype(float), "(a i) (b j) (c k) -> a b c", "mean", a=4, b=4, c=4)
        blocks64 = reduce(image64.astype(float), "(a i) (b j) (c k) -> a b c", "mean", a=4, b=4, c=4)
        assert np.corrcoef(blocks.ravel(), blocks64.ravel())[0, 1] > 0.97
        assert abs(mask.mean() - mask64.mean()) < 0.03


def test_it_looks_like_ct(whole):
    """Grey levels beside those of 240 real organ crops: their mean is 118, their sd 69, 12 % are at 0."""
    images = whole["train_images"].astype(np.float32)
    assert abs(images.mean() - 118) < 15
    assert abs(images.std() - 69) < 8
    assert 0.08 < (images < 13).mean() < 0.18
    assert 0.01 < (images == 255).mean() < 0.06
    counts = np.bincount(whole["train_images"].ravel(), minlength=256) / images.size
    share = counts.reshape(16, 16).sum(1)
    real = [
        0.120,
        0.009,
        0.035,
        0.079,
        0.071,
        0.054,
        0.063,
        0.086,
        0.087,
        0.090,
        0.095,
        0.072,
        0.046,
        0.031,
        0.020,
        0.042,
    ]
    assert np.abs(share - real).sum() < 0.35
    some = images[:300] - images[:300].mean((1, 2, 3), keepdims=True)
    power = np.abs(np.fft.fftn(some, axes=(1, 2, 3))) ** 2
    k = np.abs(np.fft.fftfreq(28) * 28)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).round().astype(int).ravel()
    radial = np.log10(np.bincount(radius, power.mean(0).ravel()) / np.bincount(radius))
    # log10 of the power at these spatial frequencies, cycles per crop
    assert np.abs(radial[[1, 2, 4, 6, 8, 12]] - [10.53, 9.75, 8.89, 8.26, 7.89, 7.38]).max() < 0.25


def test_what_is_painted_last_lies_on_top():
    """Rendering skips what is covered: the picture is that of painting everything in order."""
    patient = scan(4)
    axes = [np.linspace(-60, 100, 14), np.linspace(-110, 110, 15), np.linspace(-150, 150, 16)]
    hu, labels = paint_patient(patient, axes)
    p = phantom.body_points(patient, axes)
    plain, names = np.full(p.shape[1], -1000.0), np.zeros(p.shape[1], int)
    for part in patient.torso.parts:
        distance = part.shape(p)
        cover = np.clip(0.5 - distance / patient.blur_mm, 0, 1)
        plain += cover * ((part.hu(p, distance) if callable(part.hu) else part.hu) - plain)
        names[distance < 0] = part.label
    np.testing.assert_allclose(hu.ravel(), plain, atol=0.5)
    assert np.array_equal(labels.ravel(), names)


def test_a_whole_patient():
    volume, labels, spacing = phantom_patient(2, spacing=6.0)
    assert volume.dtype == labels.dtype == np.uint8 and volume.shape == labels.shape and volume.ndim == 3
    assert spacing == (6.0, 6.0, 6.0)
    assert volume[:, 0].max() == 0  # air in front of the patient
    assert {"liver", "spleen", "kidney-left"} <= {PHANTOM_CLASSES[i - 1] for i in np.unique(labels) if i}
    again, _, _ = phantom_patient(2, spacing=6.0)
    assert np.array_equal(volume, again)


def test_the_fingerprint_covers_every_source_and_misses_none(tmp_path):
    folder = Path(phantom.__file__).parent
    assert sorted(phantom.SOURCES) == sorted(path.name for path in folder.glob("*.py"))
    for name in phantom.SOURCES:
        shutil.copy(folder / name, tmp_path)
    assert phantom.fingerprint(tmp_path) == phantom.fingerprint()
    changed = tmp_path / "solids.py"
    changed.write_text(changed.read_text(encoding="utf-8") + "# another\n", encoding="utf-8")
    assert phantom.fingerprint(tmp_path) != phantom.fingerprint()
    changed.unlink()
    with pytest.raises(FileNotFoundError):
        phantom.fingerprint(tmp_path)
