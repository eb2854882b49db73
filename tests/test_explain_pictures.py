"""Pictures of maps: as opaque as the map is strong, with numbers, the organ's outline, and words for who cannot see."""

import numpy as np
import pytest
import torch

from tests.test_explain import S, T, sharp
from vivit_edu import build_model, plots
from vivit_edu.explain.faithfulness import contrast_map
from vivit_edu.explain.pictures import YELLOW, clips_figure, film, maps_figure, middle_frames, overlay, puzzle_figure


@pytest.fixture(scope="module")
def model():
    return sharp("spacetime")


@pytest.fixture(scope="module")
def clip():
    return torch.randint(0, 255, (1, 8, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def scores():
    found = torch.full((T, S), 0.02)
    found[1, 2] = 0.7  # time 1, row 1, column 0
    return found


@pytest.fixture(scope="module")
def mask():
    found = torch.zeros(8, 8, 8, dtype=torch.uint8)
    found[2:4, 4:, :4] = 1  # the voxels of time 1, row 1, column 0
    return found


def test_a_clip_in_colour_has_frames_and_no_slices(clip, scores):
    video = build_model("spacetime", clip_shape=(3, 8, 8, 8), tubelet=(2, 4, 4), dim=8, depth=1, heads=2, mlp_dim=8)
    figure = maps_figure(video, clip.repeat(3, 1, 1, 1), {"map": scores}, title="running")
    assert [axes.get_title() for axes in figure.axes[:T]] == ["frame 1", "frame 3", "frame 5", "frame 7"]


def colours(axes):
    return axes.get_images()[0].get_array()


def test_opacity_is_proportional_to_the_map():
    grey = np.full((2, 2), 0.5)
    assert np.allclose(overlay(grey, None), 0.5)
    colour = overlay(grey, np.array([[0.0, 0.5], [1.0, 2.0]]))
    none, half, full, beyond = colour.reshape(4, 3)
    assert np.allclose(none, none[0]), "no colour where the map says nothing"
    assert np.allclose(half, (none + full) / 2), "half the value, half as opaque"
    assert np.allclose(full, beyond) and np.allclose(full / np.array(YELLOW).clip(0.1), full[0], atol=0.35)


def test_one_slice_from_each_time_index_and_one_grey_row(model, clip, scores, mask):
    figure = maps_figure(model, clip, {"first": scores, "second": 1 - scores}, mask=mask, title="liver")
    panels = np.array(figure.axes).reshape(3, T + 1)
    assert [axes.get_title() for axes in panels[0, :T]] == ["slice 1", "slice 3", "slice 5", "slice 7"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["liver", "first", "second"]
    for t, frame in enumerate((1, 3, 5, 7)):
        grey = colours(panels[0, t])
        assert np.allclose(grey[..., 0], clip[0, frame] / 255) and np.allclose(grey[..., 0], grey[..., 2])
    yellow = colours(panels[1, 1])[..., 0] - colours(panels[1, 1])[..., 2]
    assert yellow[4:, :4].min() > 0.5 and abs(yellow[:4, 4:]).max() < 0.1
    assert panels[1, 1].collections and not panels[1, 0].collections, "an outline where the organ is"
    labels = [label.get_text() for label in panels[1, -1].get_yticklabels()]
    assert labels[0] == "0" and float(labels[2].split(" to ")[-1]) == pytest.approx(0.7 * T * S, rel=0.05)
    assert "first: strongest at time 1 of 4, row 1 of 2, column 0 of 2, 70 % of it on the organ" in figure.alt_text


def test_without_masks_there_are_no_outlines_and_no_error(model, clip, scores):
    figure = maps_figure(model, clip, {"map": scores})
    assert not any(axes.collections for axes in figure.axes) and "organ" not in figure.alt_text
    figure = clips_figure(model, clip[None], scores[None], ["predicted liver (93%), is heart"])
    assert "predicted liver" in figure.alt_text and len(figure.axes) == 2 * (T + 1)
    assert len(film(model, clip, [scores])) == 8


def test_signed_maps_show_what_speaks_for_the_class(model, clip, scores):
    figure = maps_figure(model, clip, {"occlusion": -scores, "gradient": scores - 0.3}, units="fall of the logit")
    panels = np.array(figure.axes).reshape(3, T + 1)
    assert all(abs(colours(axes)[..., 0] - colours(axes)[..., 2]).max() < 1e-6 for axes in panels[1, :T])
    assert panels[2, -1].get_ylabel().replace("\n", " ") == "fall of the logit"


def test_at_most_eight_slices():
    assert middle_frames(4, 2, 8) == [1, 3, 5, 7]
    assert middle_frames(32, 1, 32) == [0, 4, 9, 13, 18, 22, 27, 31]
    assert middle_frames(2, 5, 6) == [2, 5], "a padded tubelet ends beyond the clip"


def test_the_film_has_every_slice_its_maps_and_the_outline(model, clip, scores, mask):
    frames = [np.asarray(frame).astype(int) for frame in film(model, clip, [scores], mask=mask, scale=3)]
    assert len(frames) == 8 and frames[0].shape == (24, 51, 3)
    assert (frames[2][12, :12] == 255).all() and (frames[2][-1, :12] == 255).all(), "the outline is white"
    assert (frames[2][12, 27:39] == 255).all() and not (frames[4][12, :12] == 255).all()
    inside = frames[3][15:21, 30:36]
    assert (inside[..., 0] - inside[..., 2]).min() > 100


def test_both_maps_of_the_puzzle_use_the_whole_scale(model, clip):
    figure = puzzle_figure(model, clip)
    panels = np.array(figure.axes).reshape(3, T + 1)
    for row in panels[1:]:
        yellow = np.stack([colours(axes)[..., 0] - colours(axes)[..., 2] for axes in row[:T]])
        assert yellow.max() > 0.5 and yellow.min() < 0.05
        assert not row[-1].axison, "and no numbers"
    assert len(plots.as_png(figure)) > 1000


def test_contrast_is_the_distance_from_the_clips_mean(model, clip):
    x = clip[None] / 255
    found = contrast_map(model, x)
    assert found.shape == (1, T, S)
    tubelet = x[0, 0, 2:4, 4:8, 0:4]
    assert found[0, 1, 2] == pytest.approx(float((tubelet - x.mean()).abs().mean()))
    torch.testing.assert_close(contrast_map(sharp("factorised_encoder"), x), found)
