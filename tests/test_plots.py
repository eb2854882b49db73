"""Alt texts say what the figure shows, and no more; figures keep to the house style."""

import itertools
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tests.references import VIVITS
from vivit_edu import plots
from vivit_edu.training import History
from vivit_edu.volumes import Split

NAN = float("nan")


@pytest.mark.parametrize(
    "losses, says",
    [
        ([2.0, 1.0], "falls from 2.00 to 1.00"),
        ([1.0, 2.0], "rises from 1.00 to 2.00"),
        ([2.0, 0.5, 3.0], "rises from 2.00 to 3.00"),
        ([1.0, 1.0], "stays at 1.00"),
        ([1.0], "stays at 1.00"),
        ([1.001, 1.004], "stays at 1.00"),  # what a reader is told must not contradict itself
        ([1.0, NAN], "goes from 1.00 to nan"),
        ([NAN, NAN], "ends at nan"),
    ],
)
def test_the_alt_text_of_curves_says_where_the_loss_goes(losses, says):
    rows = [
        {"epoch": i, "loss": loss, "val_acc": 0.5, "val_balanced_acc": 0.4, "val_auc": 0.75}
        for i, loss in enumerate(losses, 1)
    ]
    alt = plots.curves(History(rows)).alt_text
    assert f"the training loss {says}. Right" in alt
    assert ("over 1 epoch." in alt) == (len(losses) == 1)


def test_the_alt_text_of_a_montage_names_classes_without_a_clip():
    split = Split(torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]))
    assert "no such clip: second." in plots.montage(split, ("first", "second", "third"), slices=2).alt_text
    whole = Split(torch.zeros(2, 1, 4, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]))
    assert "no such clip" not in plots.montage(whole, ("first", "second"), slices=2).alt_text


@pytest.fixture
def displayed(monkeypatch):
    """What is displayed, as a list of (bundle, metadata)."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, raw, metadata=None: shown.append((bundle, metadata)))
    return shown


def test_a_caption_is_the_alt_text_and_stands_below(displayed):
    figure = plots.new_figure(3, 2)
    plots.show(figure, caption="Nothing at all.")
    (picture, metadata), (below, _) = displayed
    assert metadata["image/png"] == {"alt": "Nothing at all.", "width": 240, "height": 160}
    assert Image.open(BytesIO(b64decode(picture["image/png"]))).size == (480, 320)  # twice as sharp as the page
    assert below == {"text/markdown": "*Nothing at all.*", "text/plain": "Nothing at all."}


def test_a_figure_that_describes_itself_keeps_its_alt_text(displayed):
    plots.show(plots.new_figure(3, 2, "A long description."), caption="Short.")
    assert [bundle["text/plain"] for bundle, _ in displayed] == ["A long description.", "Short."]
    plots.show(plots.new_figure(3, 2, "A long description."))
    assert len(displayed) == 3  # and nothing below it


def test_no_two_colours_that_mean_something_are_alike():
    """Space, time, both, the rest and Models 1 to 4: any two differ by at least 0.4 of a channel in sum."""
    from matplotlib.colors import to_rgb

    assert tuple(plots.MODEL_COLOURS) == VIVITS
    colours = [*plots.COLOURS.values(), *plots.MODEL_COLOURS.values()]
    for one, other in itertools.combinations(colours, 2):
        assert np.abs(np.subtract(to_rgb(one), to_rgb(other))).sum() > 0.4, (one, other)


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", [r"a$\frac{1$", "$$", r"\alpha_{", "a^b", "{}", "%s"])
def test_a_class_of_any_name_is_drawn_as_it_is_written(name, tmp_path):
    """A pair of dollar signs in the name of a folder is not a formula."""
    names, clips = (name, "other"), torch.randint(0, 256, (2, 1, 8, 8, 8), dtype=torch.uint8)
    figures = [
        plots.montage(Split(clips, torch.tensor([0, 1])), names, slices=3),
        plots.confusion([0, 1, 1], [0, 0, 1], names),
        plots.attention_slices(clips, torch.rand(2, 8, 8, 8), names, slices=3),
    ]
    for figure in figures:
        plots.save(figure, tmp_path / "figure.png")
        shown = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
        assert any(name in text for text in shown)
