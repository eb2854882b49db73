"""Sliders redraw, film strips show what sliders would, and both work where there is no ipywidgets."""

import re
import sys
from base64 import b64decode
from html import unescape
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vivit_edu.course import widgets
from vivit_edu.errors import ConfigError
from vivit_edu.plots import new_figure

VOLUME = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
LABELS = np.zeros((8, 8, 8), np.uint8)
LABELS[2:5, 1:4, 1:4], LABELS[4:6, 5:, 5:] = 1, 2
NAMES = ("liver", "spleen")


def draw(height, colour="red"):
    """A small picture, `height`/10 inches high."""
    figure = new_figure(0.5, height / 10, f"{height} high, {colour}")
    figure.set_facecolor(colour)
    return figure


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, as a list of (PIL image, alt text)."""
    shown = []

    def display(bundle, raw, metadata):
        assert raw and metadata["image/png"]["alt"] == bundle["text/plain"]
        image = Image.open(BytesIO(b64decode(bundle["image/png"])))
        shown.append((on_the_page(image, metadata["image/png"]["width"]), bundle["text/plain"]))

    monkeypatch.setattr("IPython.display.display", display)
    return shown


def on_the_page(image, width):
    """An image as large as a page shows it; its file has twice as many pixels."""
    assert image.width == 2 * width
    return image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.NEAREST)


def picture_of(box):
    width, data = re.search(r'width="(\d+)" src="data:image/png;base64,([^"]+)"', box.children[-1].value).groups()
    return on_the_page(Image.open(BytesIO(b64decode(data))), int(width))


def alt(box):
    return unescape(re.match(r'<img alt="([^"]+)"', box.children[-1].value)[1])


def test_moving_a_slider_redraws_with_all_values():
    box = widgets.explore(draw, height=[5, 10, 20], colour=["red", "blue"])
    height, colour, picture = box.children
    assert (height.value, colour.value) == (10, "blue")  # the middle
    assert picture_of(box).size == (40, 80) and picture_of(box).getpixel((3, 3)) == (0, 0, 255)
    height.value = 20
    assert picture_of(box).size == (40, 160) and picture_of(box).getpixel((3, 3)) == (0, 0, 255)
    colour.value = "red"
    assert picture_of(box).size == (40, 160) and picture_of(box).getpixel((3, 3)) == (255, 0, 0)
    assert alt(box) == "20 high, red"


def test_without_ipywidgets_the_first_picture_is_shown(monkeypatch, displayed):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert widgets.explore(draw, height=range(5, 8)) is None
    ((image, alt),) = displayed
    assert image.size == (40, 48) and alt == "6 high, red"


def test_a_film_strip_holds_every_picture_in_order(displayed):
    colours = ["red", "blue", "lime"]
    widgets.film_strip(draw, [{"height": 5 + 5 * i, "colour": c} for i, c in enumerate(colours)], columns=2)
    ((image, alt),) = displayed
    assert image.size == (80, 240)  # two columns and two rows of the largest
    seen = [image.getpixel(place) for place in ((3, 3), (43, 3), (3, 123), (43, 123), (3, 60))]
    assert seen == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 255, 255), (255, 255, 255)]
    assert alt == "3 pictures, 2 in a row. 1: 5 high, red 2: 10 high, blue 3: 15 high, lime"


# ---- a volume to scroll through


def test_scrolling_shows_the_slice_asked_for(monkeypatch):
    drawn = []
    original = widgets.draw_slice
    monkeypatch.setattr(widgets, "draw_slice", lambda *given: drawn.append(original(*given)) or drawn[-1])
    box = widgets.scroll_volume(VOLUME, LABELS, NAMES)
    before = box.children[-1].value
    box.children[0].value = 5
    assert box.children[-1].value != before and box.children[0].options == tuple(range(8))
    assert (drawn[-1].axes[0].get_images()[0].get_array() == VOLUME[5]).all()


@pytest.mark.parametrize("number, organs", [(0, []), (3, ["liver"]), (4, [*NAMES]), (5, ["spleen"])])
def test_organs_are_painted_where_they_are_and_named(number, organs):
    figure = widgets.draw_slice(VOLUME, number, LABELS, NAMES)
    legend = figure.axes[2].get_legend().get_texts()
    assert [text.get_text() for text in legend] == organs
    assert [name for name in NAMES if name in figure.alt_text] == organs
    overlay = figure.axes[1].get_images()[1]
    assert ((overlay.get_alpha() > 0) == (LABELS[number] > 0)).all()
    colours = {tuple(colour) for colour in overlay.get_array()[LABELS[number] > 0]}
    assert len(colours) == len(organs)


def test_an_organ_has_one_colour_in_all_slices():
    figures = [widgets.draw_slice(VOLUME, k, LABELS, NAMES) for k in (4, 5)]
    colours = [figure.axes[1].get_images()[1].get_array() for figure in figures]
    assert tuple(colours[0][6, 6]) == tuple(colours[1][6, 6]) != tuple(colours[0][2, 2])


def test_the_volumes_film_strip(displayed):
    widgets.volume_strip(VOLUME, slices=3)
    widgets.volume_strip(VOLUME, LABELS, NAMES, slices=4)
    (plain, alt), (painted, _) = displayed
    assert alt.startswith("3 pictures") and [f"Slice {k}," in alt for k in range(8)].count(True) == 3
    assert plain.width <= 800 and painted.width <= 960


# ---- tubelets


def test_the_sizes_offered_tile_the_volume():
    assert widgets.tiling_sizes(np.zeros((28, 28, 28))) == ([1, 2, 4, 7, 14, 28], [2, 4, 7, 14, 28])
    assert widgets.tiling_sizes(np.zeros((3, 16, 12, 8))) == ([1, 2, 4, 8, 16], [2, 4])
    with pytest.raises(ConfigError, match="7×5"):
        widgets.tiling_sizes(np.zeros((4, 7, 5)))


def test_the_tubelet_explorer_redraws():
    box = widgets.tubelet_explorer(VOLUME[None])
    time, space, picture = box.children
    time.value, space.value = 2, 4
    assert alt(box).startswith("Tubelets of 2×4×4 voxels make 4×2×2 = 16 tokens.")
    before = picture.value
    space.value = 8
    assert picture.value != before and "4×1×1 = 4 tokens" in alt(box)


def test_tubelets_are_drawn_with_their_cost():
    figure = widgets.draw_tubelets(VOLUME, 2, 4)
    (dots,) = figure.axes[1].collections
    assert dots.get_offsets()[:, 0].tolist() == [256, 4 * 16 + 16, 4 * 16 + 4 * 16, 64]
    assert [label.get_text() for label in figure.axes[1].get_xticklabels()] == ["1", "1,000", "1 million", "1 billion"]
    cuts = [patch.get_xy() for patch in figure.axes[0].patches if patch.get_linewidth() < 1]
    assert sorted(cuts) == [(-0.5, -0.5), (-0.5, 3.5), (3.5, -0.5), (3.5, 3.5)]
    assert "Model 4: 64." in figure.alt_text


def test_the_tubelets_film_strip(displayed):
    widgets.tubelet_strip(VOLUME, sizes=((2, 2), (4, 4), (8, 8)))
    ((image, alt),) = displayed
    assert image.width <= 1000 and "3: Tubelets of 8×8×8 voxels make 1×1×1 = 1 token." in alt
