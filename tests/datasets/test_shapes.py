"""movingshapes: twins hold the same frames, no single frame tells them apart, and their order does."""

import pytest
import torch
from einops import rearrange

from vivit_edu import load_volumes
from vivit_edu.augment import Augmentation, augment_batch
from vivit_edu.datasets import shapes
from vivit_edu.errors import ConfigError
from vivit_edu.training import Recipe, fit
from vivit_edu.volumes import describe


@pytest.fixture(scope="module")
def volumes():
    return load_volumes("movingshapes")


def sorted_frames(clip):
    """The frames of a clip [1, T, H, W] as a multiset: rows in an order that does not depend on time."""
    return sorted(frame.numpy().tobytes() for frame in clip[0])


def test_the_set_is_as_all_sets(volumes):
    assert volumes.name == "movingshapes" and volumes.film and len(volumes.class_names) == 8
    for split, count in ((volumes.train, 800), (volumes.val, 200), (volumes.test, 400)):
        assert split.clips.shape == (count, 1, 28, 28, 28) and split.clips.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [count // 8] * 8
    assert "turn left / turn right" in describe(volumes)


def test_seeded(volumes):
    again = shapes.generate_shapes(cycles={"train": 8, "val": 4})
    assert torch.equal(again.train.clips, volumes.train.clips[:16]) and again.val.clips.shape[0] == 8
    other = shapes.generate_shapes(cycles={"train": 8}, seed=1)
    assert not torch.equal(other.train.clips, again.train.clips)
    assert not torch.equal(again.train.clips[:8], again.val.clips[:8])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_twins_hold_the_same_frames_in_the_opposite_order(volumes, split):
    """So what any classifier computes from the frames without their order is the same for both twins."""
    clips, labels = getattr(volumes, split).clips, getattr(volumes, split).labels
    for i in range(0, len(clips), 2):
        assert shapes.TWIN[labels[i]] == labels[i + 1]
        assert sorted_frames(clips[i]) == sorted_frames(clips[i + 1])
        backwards = clips[i, 0].flip(0)
        assert any(torch.equal(backwards.roll(s, 0), clips[i + 1, 0]) for s in range(28))


def test_no_frame_of_the_clip_is_likelier_in_a_class_than_in_its_twin(volumes):
    """A cycle is entered anywhere: at each time of the clip, each of its frames is as likely in both twins."""
    frames = torch.arange(28)
    for t in range(28):
        forwards = sorted(int(frames.roll(s)[t]) for s in range(28))
        backwards = sorted(int(frames.flip(0).roll(s)[t]) for s in range(28))
        assert forwards == backwards == list(range(28))
    area = volumes.train.clips[:, 0].float().mean(dim=(2, 3))
    jump = (area.roll(-1, 1) - area).abs().argmax(1)  # where what grows or shrinks begins again
    for label in (0, 1):
        assert len(jump[volumes.train.labels == label].unique()) > 20  # of 28: anywhere


def features(clips, order):
    """What a linear model is given of clips [N, 1, T, H, W]. Blind: means and mean products of the frames' 7×7
    parts. With order: how much part i comes before part j rather than after it."""
    parts = clips.float() / 255
    parts = torch.nn.functional.avg_pool2d(rearrange(parts, "n 1 t h w -> (n t) 1 h w"), 4)
    parts = rearrange(parts, "(n t) 1 h w -> n t (h w)", n=len(clips))
    after = parts.roll(-1, 1)
    if order:
        return (torch.einsum("nti,ntj->nij", parts, after) - torch.einsum("nti,ntj->nij", after, parts)).flatten(1)
    return torch.einsum("nti,ntj->nij", parts, parts).flatten(1)


def twin_accuracy(volumes, order):
    """How often a linear model tells twins apart, told which pair it is."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found = []
    for pair in range(4):
        chosen = [split.labels // 2 == pair for split in (volumes.train, volumes.test)]
        (x, y), (x_test, y_test) = (
            (features(split.clips[c], order).numpy(), (split.labels[c] % 2).numpy())
            for split, c in zip((volumes.train, volumes.test), chosen)
        )
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200)).fit(x, y)
        found.append(model.score(x_test, y_test))
    return found


def test_a_model_blind_to_order_is_at_chance_and_a_model_of_order_is_not(volumes):
    assert twin_accuracy(volumes, order=False) == [0.5] * 4
    assert sum(twin_accuracy(volumes, order=True)) / 4 > 0.75


def test_a_shape_that_grows_does_so_little_by_little(volumes):
    """Area over time: many small steps up and one large one down."""
    split = volumes.test
    area = split.clips[:, 0].float().mean(dim=(2, 3))  # [N, T]
    skew = (area.roll(-1, 1) - area).pow(3).sum(1)
    assert (skew[split.labels == 0] < 0).float().mean() > 0.95 and (skew[split.labels == 1] > 0).float().mean() > 0.95


def test_turning_left_is_anticlockwise(volumes):
    """The direction from the middle of the frame's bright pixels to the knob; y points down."""
    canvas = shapes.Canvas(torch.linspace(-1, 1, 28)[None, None, :], torch.linspace(-1, 1, 28)[None, :, None])
    right, up = canvas.pin(0, 0, 0.6, torch.tensor([0.0, torch.pi / 2])[:, None, None])
    assert right[:, 14:].sum() > 1.3 * right[:, :14].sum()  # angle 0: the knob is on the right
    assert up[:14].sum() > 1.3 * up[14:].sum()  # a quarter further: at the top


def test_a_mirror_swaps_the_turns_and_nothing_else(volumes):
    assert volumes.mirror.axis == 3
    swapped = {volumes.class_names[k]: volumes.class_names[j] for k, j in enumerate(volumes.mirror.permutation)}
    assert {k for k, j in swapped.items() if k != j} == {"turn left", "turn right"}


def test_augmentation_never_turns_time_round(volumes):
    """In `fit` the set's own word is enough: shapes are a film whatever the recipe says."""
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1))

        def forward(self, clips):
            if self.training:
                seen.append(clips)
            return self.scale * torch.ones(len(clips), 8)

    small = shapes.generate_shapes(cycles={"train": 8, "val": 4, "test": 4})
    for mirror in (small.mirror, None):
        seen.clear()
        changed = type(small)(small.name, small.class_names, small.train, small.val, small.test, mirror, film=True)
        recipe = Recipe(epochs=2, batch_size=16, augmentation=Augmentation(mirror=True))
        fit(Spy(), changed, recipe, progress=False)
        originals = small.train.clips.float() / 255
        for clip in torch.cat(seen):
            ways = [originals, originals.flip(4), originals.flip(3), originals.flip(3, 4)][: 2 if mirror else 4]
            assert any((clip == way).flatten(1).all(1).any() for way in ways)


def test_a_mirrored_turn_gets_the_other_label(volumes):
    small = volumes.train.subset(slice(0, 16))
    clips, targets = augment_batch(
        Augmentation(mirror=True, film=True),
        small.clips,
        small.labels,
        8,
        volumes.mirror,
        torch.Generator().manual_seed(0),
    )
    for clip, target, before, label in zip(clips, targets, small.clips, small.labels):
        flipped = torch.equal(clip, before.flip(3) / 255)
        assert target.argmax() == (volumes.mirror.permutation[label] if flipped else label)


def test_unknown_sizes_are_refused():
    with pytest.raises(ConfigError, match="28 and 64"):
        load_volumes("movingshapes", size=32)
