"""The pieces of schematics: tokens keep their colour, and everything lies where its caller put it."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tests.course.test_pictures import assert_readable
from vivit_edu.course.schematics import pieces
from vivit_edu.plots import GREEN, GREY


def faces(axes):
    return [tuple(patch.get_facecolor()[:3]) for patch in axes.patches]


@pytest.mark.parametrize("grid", [(3, 2, 2), (4, 4, 4), (7, 7, 7)])
def test_every_token_has_a_colour_of_its_own(grid):
    colours = pieces.token_colours(grid)
    assert colours.shape == (grid[0], grid[1] * grid[2], 3)
    assert len(np.unique(colours.reshape(-1, 3).round(6), axis=0)) == np.prod(grid)


def test_tubelets_and_tokens_have_the_same_colours():
    _, axes = pieces.canvas(4, 3)
    pieces.draw_cube(axes, 0, 0, 1)
    fronts = faces(axes)[::3]
    _, axes = pieces.canvas(4, 3)
    centres = pieces.draw_tokens(axes, 0, 0)
    squares = faces(axes)
    assert np.allclose(sorted(fronts), sorted(squares)) and len(squares) == 12
    assert np.allclose(squares, pieces.token_colours().reshape(-1, 3))
    assert np.allclose(np.diff([x for x, _ in centres[:4]]), 0.28)
    width = centres[-1][0] + 0.12
    assert np.isclose(width, pieces.tokens_width())


def test_the_first_tubelet_is_at_the_front_s_top_left_and_the_rest_can_be_pale():
    _, axes = pieces.canvas(4, 3)
    pieces.draw_cube(axes, 1, 1, 1, only={0})
    (front,) = [p for p in axes.patches if np.allclose(p.get_facecolor()[:3], to_rgb(pieces.TINTS[0]))]
    assert np.allclose(front.get_xy()[0], (1, 1.5))


@pytest.mark.parametrize("grid, gap", [((3, 2, 2), 0), ((3, 2, 2), 0.3), ((2, 4, 3), 0.1)])
def test_the_cube_is_as_large_as_it_says(grid, gap):
    _, axes = pieces.canvas(4, 3)
    pieces.draw_cube(axes, 0, 0, 1, grid, gap=gap)
    corners = np.concatenate([patch.get_xy() for patch in axes.patches])
    assert np.allclose(corners.min(axis=0), 0) and np.allclose(corners.max(axis=0), pieces.cube_size(1, grid, gap=gap))


def test_a_clip_s_voxels_are_on_the_faces():
    clip = np.zeros((1, 6, 4, 4))
    clip[0, 0, 0, 0] = 255  # the first frame's top left
    _, axes = pieces.canvas(4, 3)
    pieces.draw_cube(axes, 0, 0, 1, clip=clip)
    brightest = max(mesh.get_array().sum(axis=-1).max() for mesh in axes.collections)
    at = [mesh for mesh in axes.collections if mesh.get_array().sum(axis=-1).max() == brightest]
    assert len(at) == 1
    rows, columns = np.unravel_index(at[0].get_array().sum(axis=-1).argmax(), at[0].get_array().shape[:2])
    place = at[0].get_coordinates()[rows, columns]
    assert np.allclose(place, (0, 0.75))


def test_a_drawing_of_all_pieces_can_be_read():
    figure, axes = pieces.canvas(8, 4, "All pieces")
    figure.alt_text = "x" * 81
    pieces.draw_cube(axes, 0.3, 2, 1.2)
    pieces.draw_axes_of_cube(axes, 0.3, 2, 1.2)
    pieces.draw_arrow(axes, (2.3, 2.6), (2.9, 2.6), "embed")
    pieces.draw_tokens(axes, 3, 2.5, times=True)
    pieces.draw_matrix(axes, 6.9, 2.2, np.eye(2) / 2, cell=0.4, colour=GREEN, numbers=".2f")
    branches = [("attention over\nspace and time", GREEN), ("MLP", GREY)]
    pieces.draw_residual_stream(axes, 0.5, 1.5, 7, branches)
    assert_readable(figure)
    assert [text.get_text() for text in axes.texts].count("LayerNorm") == 2
    assert [text.get_text() for text in axes.texts].count("+") == 2
    assert min(text.get_fontsize() for text in axes.texts) >= 9
