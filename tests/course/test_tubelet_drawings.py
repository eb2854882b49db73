"""The drawings of chapter 03 show what their arguments say, in text that can be read."""

import numpy as np
import pytest
import torch

from vivit_edu.course.schematics import tubelets as draw
from vivit_edu.plots import SMALLEST

CLIP = torch.arange(8 * 12 * 16, dtype=torch.float32).view(1, 8, 12, 16) / (8 * 12 * 16)
RAW = (255 * CLIP).to(torch.uint8)


def texts(figure):
    from matplotlib.text import Text

    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


FIGURES = {
    "taken apart": lambda: draw.taken_apart(RAW, grid=(4, 3, 4)),
    "way to a token": lambda: draw.way_to_a_token(RAW),
    "frames": lambda: draw.frames_in_time(CLIP, (4, 4, 4)),
    "unseen": lambda: draw.unseen_voxels(CLIP, CLIP[0] > 0.5, slices=(0, 5)),
    "read": lambda: draw.voxels_read(CLIP, {"one": CLIP[0] > 0.5}, slices=(0, 5, 7)),
    "rebuilt": lambda: draw.rebuilt_clips(CLIP, {"half": CLIP / 2}, slices=(1, 6)),
    "side by side": lambda: draw.two_pictures({"one": CLIP[0, 0], "two": CLIP[0, 1]}),
    "filters": lambda: draw.filter_pictures({"one": torch.randn(5, 2, 3, 4), "two": torch.randn(5, 2, 3, 4)}),
    "similarity": lambda: draw.similarity_maps({"one": torch.rand(2, 3, 4), "two": torch.rand(2, 3, 4)}, (1, 0, 2)),
    "by distance": lambda: draw.cosine_by_distance(torch.randn(24, 6), (2, 3, 4)),
    "tokens and pairs": lambda: draw.tokens_and_pairs((1, 2, 4), size=8),
}


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_not_too_small(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    assert min(text.get_fontsize() for text in texts(figure)) >= SMALLEST


def test_sampled_frames_are_named_and_cut():
    figure = FIGURES["frames"]()
    titles = [axes.get_title() for axes in figure.axes]
    assert [title for title in titles if title] == ["frame 2", "frame 6"]
    assert len(figure.axes) == 8 and len(figure.axes[2].lines) == (12 // 4 + 1) + (16 // 4 + 1)


def test_unseen_voxels_are_counted():
    titles = [axes.get_title() for axes in FIGURES["unseen"]().axes]
    assert titles == ["slice 0\n0% unseen", "slice 5\n100% unseen"]


def test_the_framed_place_is_in_its_time_index():
    figure = FIGURES["similarity"]()
    framed = [k for k, axes in enumerate(figure.axes) if axes.lines]
    assert framed == [1, 3]
    x, y = figure.axes[1].lines[0].get_data()
    assert (x.mean().round(), np.max(y)) == (2, 0.5)


def test_cosines_by_distance_are_means_over_all_pairs():
    positions = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
    lines = draw.cosine_by_distance(positions, (2, 3, 4)).axes[0].lines
    unit = torch.nn.functional.normalize(positions, dim=1).view(2, 3, 4, 6)
    expected = (unit[:, :, :2] * unit[:, :, 2:]).sum(dim=-1).mean().item()
    width = next(line for line in lines if line.get_label() == "width")
    assert width.get_ydata()[1] == pytest.approx(expected, abs=1e-6)


def test_pairs_are_the_square_of_tokens_and_the_axis_is_labelled():
    (axes,) = FIGURES["tokens and pairs"]().axes
    pairs, tokens = (line.get_ydata() for line in axes.lines)
    assert tokens.tolist() == [512, 64, 8] and np.array_equal(pairs, tokens**2)
    assert "1 million" in [label.get_text() for label in axes.get_yticklabels()]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("read", ["slice 0", "slice 5", "slice 7"]),
        ("rebuilt", ["slice 1", "slice 6"]),
        ("similarity", ["time index 0", "time index 1"]),
    ],
)
def test_the_first_line_of_panels_says_what_its_columns_are(name, expected):
    titles = [axes.get_title() for axes in FIGURES[name]().axes]
    assert [title for title in titles if title] == expected == titles[: len(expected)]
