"""The walking bars: two classes that hold the same frames in another order."""

import pytest
import torch

import vivit_edu
from vivit_edu import build_model, data
from vivit_edu.datasets import bars

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def volumes():
    return bars.walking_bars()


def bytes_of_frames(clip):
    """The frames of a clip [1, T, H, W] in their order, comparable."""
    return [frame.numpy().tobytes() for frame in clip[0]]


def test_the_set_is_as_all_sets(volumes):
    assert volumes.name == "walkingbars" and volumes.film and volumes.class_names == ("left", "right")
    for name, count in zip(SPLITS, (256, 128, 128)):
        split = getattr(volumes, name)
        assert split.clips.shape == (count, 1, 4, 8, 8) and split.clips.dtype == torch.uint8
        assert split.masks.shape == (count, 4, 8, 8) and split.masks.dtype == torch.uint8
        assert torch.bincount(split.labels).tolist() == [count // 2] * 2


def test_notebooks_find_it(volumes):
    assert vivit_edu.walking_bars is data.walking_bars is bars.walking_bars
    assert torch.equal(vivit_edu.walking_bars(seed=0).test.clips, volumes.test.clips)


def test_seeded_and_no_frame_is_in_two_splits(volumes):
    assert not torch.equal(bars.walking_bars(seed=1).train.clips, volumes.train.clips)
    smaller = bars.walking_bars(draws={"train": 2})
    assert len(smaller.train) == 16 and len(smaller.val) == 128
    found = [{frame for clip in getattr(volumes, name).clips for frame in bytes_of_frames(clip)} for name in SPLITS]
    assert len(found[0]) == 32 * 4 and not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])


@pytest.mark.parametrize("name", SPLITS)
def test_the_bar_walks_one_column_per_frame_round_the_edge(volumes, name):
    split = getattr(volumes, name)
    column = split.clips[:, 0].float().mean(dim=2).unfold(2, 2, 2).sum(-1).argmax(-1)  # [B, T]
    step = column.diff(dim=1) % 4
    assert (step[split.labels == 0] == 3).all() and (step[split.labels == 1] == 1).all()
    bright = split.clips[:, 0] > 100
    assert torch.equal(bright, split.masks.bool())


@pytest.mark.parametrize("name", SPLITS)
def test_the_eight_clips_of_a_draw_hold_the_same_frames(volumes, name):
    """So what a model computes from frames without their order is the same for both classes. And each frame is once
    at each time in each class: the sum of what each frame tells at its time does not separate the classes either."""
    split = getattr(volumes, name)
    for first in range(0, len(split), 8):
        clips = [bytes_of_frames(clip) for clip in split.clips[first : first + 8]]
        assert split.labels[first : first + 8].tolist() == [0] * 4 + [1] * 4
        frames = set(clips[0])
        assert len(frames) == 4 and all(set(clip) == frames for clip in clips)
        for t in range(4):
            assert {clip[t] for clip in clips[:4]} == {clip[t] for clip in clips[4:]} == frames


def test_a_mirror_swaps_the_classes(volumes):
    draw = volumes.val.clips[:8]
    column = draw[:, 0].float().flip(3).mean(dim=2).unfold(2, 2, 2).sum(-1).argmax(-1)
    assert (column.diff(dim=1)[:4] % 4 == 1).all() and volumes.mirror.permutation == (1, 0)


def test_model_1_learns_it_in_a_few_steps_and_not_without_positions(volumes):
    clips, labels = volumes.train.clips.float() / 255, volumes.train.labels
    reached = {}
    for positions in (True, False):
        torch.manual_seed(0)
        model = build_model(
            "spacetime", clip_shape=(1, 4, 8, 8), num_classes=2, tubelet=(1, 8, 2), dim=32, depth=2, mlp_dim=64
        )
        if not positions:
            model.positions.requires_grad_(False).zero_()
        optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(60):
            draws = torch.randperm(32)[:4]
            batch = (8 * draws[:, None] + torch.arange(8)).flatten()  # whole draws
            loss = torch.nn.functional.cross_entropy(model(clips[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            logits = model(volumes.val.clips.float() / 255)
        reached[positions] = (logits.argmax(1) == volumes.val.labels).float().mean().item(), loss.item()
    assert reached[True][0] > 0.95 and reached[False][1] > 0.69
