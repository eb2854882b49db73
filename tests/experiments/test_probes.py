"""What the probes change in a clip, what they leave, and that they count what they say."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.datasets.shapes import MIRROR, SHAPE_CLASSES, TWIN
from vivit_edu.experiments import probes
from vivit_edu.experiments.ablate import read_finished, run_table
from vivit_edu.experiments.runs import load_model, load_run
from vivit_edu.experiments.tables import make_rows
from vivit_edu.volumes import Mirror, Split, Volumes


def random_clips(count=6, frames=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, 2, frames, 3, 4), generator=generator, dtype=torch.uint8)


def frames_of(clip):  # [C, T, H, W]
    return [frame.numpy().tobytes() for frame in clip.unbind(1)]


@pytest.mark.parametrize("name", probes.CHANGES)
def test_a_change_keeps_shape_and_type_the_given_clips_and_is_the_same_again(name):
    clips = random_clips()
    given = clips.clone()
    changed = probes.CHANGES[name](given)
    assert changed.shape == clips.shape and changed.dtype == torch.uint8
    assert torch.equal(given, clips) and torch.equal(probes.CHANGES[name](given), changed)
    assert torch.equal(changed, clips) is (name == "unchanged")


def test_shuffled_frames_are_each_clips_own_in_an_order_of_its_own():
    clips = random_clips()
    orders = []
    for clip, changed in zip(clips, probes.shuffle_frames(clips)):
        assert sorted(frames_of(clip)) == sorted(frames_of(changed))
        orders.append(tuple(frames_of(clip).index(frame) for frame in frames_of(changed)))
    assert len(set(orders)) == len(orders)
    assert not torch.equal(probes.shuffle_frames(clips, seed=1), probes.shuffle_frames(clips))


def test_reversed_and_frozen_frames():
    clips = random_clips()
    for clip, backwards, frozen in zip(clips, probes.reverse_frames(clips), probes.freeze_frames(clips)):
        assert frames_of(backwards) == frames_of(clip)[::-1]
        assert frames_of(frozen) == [frames_of(clip)[4]] * 8


def test_as_many_frames_are_missing_of_each_clip_and_not_the_same():
    clips = random_clips(frames=10)
    changed = probes.drop_frames(clips, 0.3)
    black = (changed == 0).all(dim=(1, 3, 4))  # [N, T]
    assert black.sum(dim=1).tolist() == [3] * len(clips)
    assert len({tuple(row) for row in black.tolist()}) > 1
    kept = ~black[:, None, :, None, None].expand_as(clips)
    assert torch.equal(changed[kept], clips[kept])


def test_noise_has_the_strength_asked_for_and_stays_within_the_range():
    grey = torch.full((2, 1, 20, 20, 20), 128, dtype=torch.uint8)
    assert (probes.add_noise(grey, 0.1).float() - 128).std().item() == pytest.approx(25.5, rel=0.03)
    edge = probes.add_noise(torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1, 1).expand(2, 1, 9, 9, 9), 0.2)
    assert edge[0].float().mean() < 40 and edge[1].float().mean() > 215, "nothing wraps round from black to white"


# ---- what is counted


class Sees(nn.Module):
    """Answers by a rule: logits one-hot of rule(clips)."""

    def __init__(self, rule, classes):
        super().__init__()
        self.rule, self.classes, self.weight = rule, classes, nn.Parameter(torch.zeros(1))

    def forward(self, clips):
        return nn.functional.one_hot(self.rule(clips), self.classes).float()


def side(clips):
    """0: bright in the middle of W; 1: at its right end; 2: at its left."""
    columns = clips.mean(dim=(1, 2, 3))  # [B, W]
    return torch.where(columns.argmax(1) == 1, 0, torch.where(columns.argmax(1) == 2, 1, 2))


def sided_volumes():
    clips, labels = torch.zeros(6, 1, 4, 3, 3, dtype=torch.uint8), torch.tensor([0, 1, 2, 0, 1, 2])
    for clip, label in zip(clips, labels):
        clip[..., [1, 2, 0][label]] = 200
    split = Split(clips, labels)
    return Volumes("sides", ("middle", "right", "left"), split, split, split, mirror=Mirror(3, (0, 2, 1)))


def test_who_knows_sides_is_right_in_the_mirror_and_who_mixes_them_up_is_counted():
    volumes = sided_volumes()
    knows = probes.probe(Sees(side, 3), volumes)
    assert knows["unchanged"] == knows["mirrored"] == 1 and knows["wrong side"] == 0
    swaps = probes.probe(Sees(lambda clips: torch.tensor([0, 2, 1])[side(clips)], 3), volumes)
    assert swaps["wrong side"] == 1 and swaps["unchanged"] == pytest.approx(1 / 3)
    always = probes.probe(Sees(lambda clips: torch.ones(len(clips), dtype=torch.int64), 3), volumes)
    assert always["wrong side"] == 0.5 and always["mirrored"] == pytest.approx(1 / 3)
    middle = probes.probe(Sees(lambda clips: torch.zeros(len(clips), dtype=torch.int64), 3), volumes)
    assert middle["wrong side"] == 0, "another organ is no other side of the same"


def test_without_sides_there_is_no_mirror_and_without_twins_no_twin():
    found = probes.probe(Sees(side, 3), replace(sided_volumes(), mirror=None))
    assert set(found) == set(probes.CHANGES)


def test_twins_are_the_films_that_run_the_other_way():
    clips, labels = torch.zeros(8, 1, 4, 2, 2, dtype=torch.uint8), torch.arange(8)
    for clip, label in zip(clips, labels):
        clip[:, 0 if label % 2 else -1] = 20 + label.item() // 2  # the pair, and its end or its beginning
    split = Split(clips, labels)
    volumes = Volumes("movingshapes", SHAPE_CLASSES, split, split, split, mirror=MIRROR, film=True)

    def watches(clips):
        brightest = (255 * clips.amax(dim=(1, 2, 3, 4))).round().long()
        return (2 * (brightest - 20) + (clips[:, 0, 0, 0, 0] > 0).long()).clamp(0, 7)

    found = probes.probe(Sees(watches, 8), volumes)
    assert found["unchanged"] == 1 and found["wrong twin"] == 0
    assert found["reversed"] == 0 and found["reversed, as twin"] == 1
    backwards = probes.probe(Sees(lambda clips: torch.tensor(TWIN)[watches(clips)], 8), volumes)
    assert backwards["wrong twin"] == 1 and backwards["reversed"] == 1
    always = probes.probe(Sees(lambda clips: torch.zeros(len(clips), dtype=torch.int64), 8), volumes)
    assert always["wrong twin"] == 1 / 8 and always["unchanged"] == 1 / 8, "another pair is no twin"


# ---- in the table of all models


def test_the_table_of_all_models_probes_each_trained_model(tiny_volumes, tmp_path, monkeypatch):
    rows = [
        replace(row, recipe=tiny_recipe(model=row.recipe.model, epochs=1)) for row in make_rows("all-models", 1)[:2]
    ]
    content = run_table("all-models", rows, tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    for row in content["rows"]:
        assert set(row["probes"]) == set(probes.CHANGES)
        assert row["probes"]["unchanged"]["runs"] == row["test"]["acc"]["runs"], (
            "the model that was trained, not a new one"
        )
    assert "probes" in read_finished(next(tmp_path.glob("00-*seed1.json")), rows[0], 1)
    monkeypatch.setattr("vivit_edu.experiments.tables.probe", None)  # what is there is not probed again
    again = run_table("all-models", rows, tiny_volumes, seeds=2, out=tmp_path, device="cpu")
    assert [row["probes"] for row in again["rows"]] == [row["probes"] for row in content["rows"]]


def test_a_runs_model_is_the_same_with_and_without_its_volumes_read_anew(tmp_path, monkeypatch):
    from tests.tiny import tiny_recipe
    from vivit_edu.experiments import runs

    volumes = make_tiny_volumes()
    runs.train_run(volumes, tiny_recipe(epochs=1, ema=0.5), out=tmp_path / "run", figures=False, device="cpu")
    monkeypatch.setattr(runs, "load_volumes", lambda *_, **__: volumes)
    ours, theirs = load_model(tmp_path / "run", volumes, device="cpu"), load_run(tmp_path / "run", device="cpu")[0]
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
