"""The explorer shows the weights of the token asked for, and its film strip shows what its sliders would."""

import pytest
import torch

from tests.course.test_widgets import alt, displayed  # noqa: F401  (a fixture)
from tests.test_explain import HEADS, VARIANTS, B, S, T, sharp
from vivit_edu.course import attention_widget
from vivit_edu.errors import ConfigError
from vivit_edu.explain.weights import AttentionMap, attention_maps


@pytest.fixture
def clips():
    return torch.rand(B, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, pool", VARIANTS)
def test_a_tokens_weights_lie_where_the_layer_sees(name, pool, clips):
    model = sharp(name, pool)
    cls, t, place, head = int(pool == "cls"), 2, 3, 0
    for m in attention_maps(model, clips):
        found = attention_widget.query_weights(model, m, 1, head, t, place)
        assert found.shape == (T, S)
        if m.kind == "joint":
            expected = m.weights[1, head, cls + t * S + place, cls:].reshape(T, S)
        elif m.kind == "space":
            expected = torch.zeros(T, S)
            for j in range(S):
                expected[t, j] = m.weights[1, t, head, cls + place, cls + j]
        elif name == "factorised_encoder":
            expected = torch.stack([m.weights[1, head, cls + t, cls + u].repeat(S) / S for u in range(T)])
        else:
            expected = torch.zeros(T, S)
            for u in range(T):
                expected[u, place] = m.weights[1, place, head, t, u]
        torch.testing.assert_close(found, expected)
        if not cls:
            assert found.sum() == pytest.approx(1)


def test_the_figure_says_and_shows_the_strongest():
    model, clips = sharp("spacetime"), torch.rand(1, 1, 8, 8, 8)
    weights = torch.full((1, HEADS, T * S, T * S), 0.02)
    weights[0, 1, 6, 13] = 0.7  # from time 1, row 1, column 0 to time 3, row 0, column 1
    figure = attention_widget.draw_query(
        model, [AttentionMap(4, "joint", weights)], clips, sample=0, layer=0, head=1, token=6
    )
    assert "layer 4, joint, head 1" in figure.alt_text
    assert "token at time 1, row 1, column 0 gives most weight (0.700) to time 3, row 0, column 1" in figure.alt_text
    colour = [axes.get_images()[0].get_array() for axes in figure.axes[:T]]  # [H, W, 3], yellow where there is weight
    yellow = [picture[..., 0] - picture[..., 2] for picture in colour]
    assert yellow[3][0, 4] > 0.8 and yellow[3][0, 3] < 0.1 and yellow[1].max() < 0.1
    bars = [bar.get_height() for bar in figure.axes[T + 1].patches]
    assert bars == pytest.approx([0.08, 0.08, 0.08, 0.76])
    (box,) = [p for p in figure.axes[1].patches]
    assert box.get_xy() == (-0.5, 3.5) and not figure.axes[0].patches  # the query, in its own slice


@pytest.mark.parametrize("name", ["factorised_encoder", "factorised_dot_product"])
def test_every_slider_redraws(name, clips):
    box = attention_widget.attention_explorer(sharp(name), clips)
    *controls, picture = box.children
    assert [control.description for control in controls] == ["sample", "layer", "head", "token"]
    for control in controls:
        before = alt(box)
        control.value = next((value for value in control.options if value != control.value), control.value)
        assert alt(box) != before or len(control.options) == 1


def test_the_film_strip_shows_the_ends_or_what_is_asked(clips, displayed):  # noqa: F811
    attention_widget.attention_strip(sharp("factorised_self_attention"), clips)
    attention_widget.attention_strip(sharp("spacetime"), clips, [{"sample": 1, "layer": 1, "head": 0, "token": 5}])
    (_, first), (image, second) = displayed
    assert first.startswith("4 pictures") and "layer 0, space, head 0" in first and "layer 1, time, head 1" in first
    assert "Clip 1, layer 1, joint, head 0: the token at time 1, row 0, column 1" in second and image.width <= 800
    with pytest.raises(ConfigError, match="layer=9 was given.*layer 0 to 1"):
        attention_widget.attention_strip(sharp("spacetime"), clips, [{"sample": 0, "layer": 9, "head": 0, "token": 0}])
