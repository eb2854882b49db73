"""Chapter 13's own figures: what they show, and what they say to readers who cannot see them."""

import base64
from io import BytesIO

import pytest
import torch
from PIL import Image

from tests.test_explain import HEADS, S, T, sharp
from vivit_edu.course import attention_figures as figures
from vivit_edu.course.recorded import recorded
from vivit_edu.explain.faithfulness import METHODS


@pytest.fixture(scope="module")
def model():
    return sharp("spacetime")


@pytest.fixture(scope="module")
def clip():
    return torch.randint(0, 255, (1, 8, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_heads_are_drawn_layer_by_layer():
    weights = torch.rand(HEADS, T * S, T * S).softmax(-1)
    figure = figures.heads_figure({0: weights, 5: weights}, T)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [f"layer {layer}, head {head}" for layer in (0, 5) for head in range(HEADS)]
    assert list(figure.axes[0].get_xticks()) == [-0.5, 3.5, 7.5, 11.5] and "16 × 16 weights" in figure.alt_text


def test_rollout_is_drawn_as_the_product_of_its_layers(model, clip):
    figure = figures.rollout_figure(model, clip)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:3] == [r"$\hat A_2$", r"$\hat A_1$", "$R$"] and titles[-2:] == ["slice 5", "slice 7"]
    last, first, product = (torch.tensor(axes.get_images()[0].get_array()) / (T * S) for axes in figure.axes[:3])
    torch.testing.assert_close(last @ first, product, atol=1e-5, rtol=1e-4)


def test_a_film_is_a_moving_png_with_words(model, clip, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **options: shown.append((bundle, options)))
    figures.show_film(model, clip, {"rollout": torch.rand(T, S)}, caption="A film.")
    (bundle, options), (caption, _) = shown
    with Image.open(BytesIO(base64.b64decode(bundle["image/png"]))) as moving:
        assert moving.n_frames == 8 and moving.info["loop"] == 0
    assert "rollout laid over it" in options["metadata"]["image/png"]["alt"] and caption["text/plain"] == "A film."


def test_curves_say_their_areas():
    figure = figures.curves_figure({"rollout": [1.0, 0.5, 0.0], "random order": [1.0, 1.0, 0.0]})
    assert "rollout 0.50, random order 0.75" in figure.alt_text
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["rollout", "random order"]


def test_the_table_shows_every_map_and_its_control():
    gain = {"mean": 0.31, "low": 0.2, "high": 0.4, "runs": [0.3, 0.32]}
    names = [*METHODS, figures.CONTRAST, *(f"{name}, random weights" for name in METHODS)]
    table = {"results": {"factorised_encoder": {"methods": {name: {"gain": gain} for name in names}}}}
    figure = figures.faithfulness_figure(table)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [*METHODS, figures.CONTRAST]
    assert "rollout 0.31 (random weights 0.31)" in figure.alt_text and "contrast, no model 0.31." in figure.alt_text


def follow_clips():
    """One bright shape that moves by a tubelet with each time index: it covers place t at time t."""
    clips = torch.full((1, 1, 8, 8, 8), 0.2)
    for t in range(T):
        row, column = divmod(t, 2)
        clips[0, 0, 2 * t : 2 * t + 2, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0.9
    return clips


def test_a_head_that_follows_the_shape_is_told_from_one_that_does_not(model, monkeypatch):
    on = figures.shape_tokens(model, follow_clips())[0]
    assert on.nonzero().flatten().tolist() == [0, 5, 10, 15]
    follows = torch.full((T * S, T * S), 1 / (T * S))
    follows[on] = torch.where(on, 1.0, 0.0) / 4  # who is on the shape attends to the shape alone
    finds = torch.where(on, 1.0, 0.0).expand(T * S, T * S) / 4  # everybody does
    even = torch.full((T * S, T * S), 1 / (T * S))

    class Map:
        weights = torch.stack([follows, finds, even])[None]

    monkeypatch.setattr(figures, "attention_maps", lambda *_: [Map])
    on_shape, elsewhere = figures.following(model, follow_clips())
    torch.testing.assert_close(on_shape, torch.tensor([[4.0, 4.0, 1.0]]))
    torch.testing.assert_close(elsewhere, torch.tensor([[1.0, 4.0, 1.0]]))
    first, second = figures.telling_heads(model, follow_clips(), on_shape, elsewhere)
    assert first == second == {"sample": 0, "layer": 0, "head": 0, "token": 10}
    figure = figures.following_figure({"on": on_shape, "off": elsewhere})
    assert "on: 1.0 to 4.0; off: 1.0 to 4.0" in figure.alt_text


def gain(mean, **over):
    """A map's gain, with an interval of .2; over: the lower ends of what it gains more than its two controls."""
    ends = {"weights": 0.1, "contrast": 0.1} | over
    return {
        "gain": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "runs": [mean]},
        "gain_over": {"random weights": {"low": ends["weights"]}, figures.CONTRAST: {"low": ends["contrast"]}},
    }


def named(methods):
    """With each control under the name that it has in a table."""
    for name, one in methods.items():
        one["gain_over"][f"{name}, random weights"] = one["gain_over"].pop("random weights")
    return {"methods": methods}


def test_what_the_figure_shows_is_said_in_words():
    methods = {name: gain(0.5) for name in METHODS}
    methods |= {"last layer": gain(0.05), "rollout": gain(0.5, weights=-0.01), "relevance": gain(0.5, contrast=-0.01)}
    said = figures.reading({"results": {"spacetime": named(methods)}}).splitlines()
    assert said[0] == "Model 1"
    assert [line.split(":")[1].strip() for line in said[1:]] == [
        "rollout, relevance, input gradient, occlusion",
        "relevance, input gradient, occlusion",
        "input gradient, occlusion",
    ]


@pytest.mark.parametrize("above, said", [(0, "none"), (1, "one or two"), (2, "one or two"), (3, "three or more")])
def test_maps_that_clearly_beat_contrast_are_counted(above, said):
    methods = {name: gain(0.9, contrast=0.01 if place < above else -0.01) for place, name in enumerate(METHODS)}
    assert figures.beating_contrast(named(methods)) == said


def test_the_table_is_as_chapter_13_reads_it():
    table = recorded("faithfulness_organphantom3d.json")
    assert (table["clips"], table["patients"]) == (33, 6) and all(len(s) == 3 for s in table["seeds"].values())
    beating = {}
    for name, found in table["results"].items():
        for method in ("rollout", "relevance", "occlusion"):
            assert found["methods"][method]["gain"]["low"] > 0
            assert figures.clearly_over(found, method, f"{method}, random weights")
        beating[name] = {method for method in METHODS if figures.clearly_over(found, method, figures.CONTRAST)}
    assert [*beating.values()] == [{"rollout", "relevance"}, set(), {"occlusion"}, {"occlusion"}]


def test_heads_that_find_and_that_follow_are_counted():
    on_shape, elsewhere = torch.tensor([[10.0, 9.0], [1.0, 3.1]]), torch.tensor([[8.0, 1.0], [1.0, 2.9]])
    said = figures.heads_in_words(on_shape, elsewhere)
    assert "1 of the 4 heads find the shape" in said and said.endswith("layer 0 head 1")
