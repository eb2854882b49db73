"""Drawings tell the truth: masks are the models' own, cuts lie where tubelets end, all text can be read."""

import pytest
import torch

from tests.references import VIVITS
from vivit_edu import plots
from vivit_edu.attention import FactorisedDotProductAttention, MultiHeadAttention, over_space, over_time
from vivit_edu.cost import attention_pairs
from vivit_edu.course import pictures
from vivit_edu.errors import ConfigError
from vivit_edu.models import build_model
from vivit_edu.vivit import FactorisedDotProductBlock, ViViTConfig

GRID = T, H, W = 3, 2, 2
S, N, D = H * W, T * H * W, 8
FACTORISED = "factorised_self_attention", "factorised_dot_product"


def reach(function):
    """bool [N, N]: whether output token i depends on input token j, by automatic differentiation."""
    z = torch.randn(T, S, D, generator=torch.Generator().manual_seed(0))
    change = torch.autograd.functional.jacobian(lambda z: function(z[None])[0].sum(dim=-1), z)
    # [T, S, T, S, D]: of each output token by each input token
    return change.abs().sum(dim=-1).reshape(N, N) > 1e-9


def attention():
    torch.manual_seed(0)
    return MultiHeadAttention(D, 2)


def test_masks_are_what_the_attentions_see():
    a = attention()
    joint = reach(lambda z: a(z.flatten(1, 2)).unflatten(1, (T, S)))
    assert torch.equal(pictures.visibility_mask("spacetime", *GRID), joint)
    space, time = reach(lambda z: over_space(a, z)), reach(lambda z: over_time(a, z))
    for name in FACTORISED:
        assert torch.equal(pictures.visibility_mask(name, *GRID, "space"), space)
        assert torch.equal(pictures.visibility_mask(name, *GRID, "time"), time)
    assert torch.equal(pictures.visibility_mask("factorised_encoder", *GRID), space)
    both = reach(FactorisedDotProductAttention(D, 2))
    assert torch.equal(pictures.visibility_mask("factorised_dot_product", *GRID), both)
    block = FactorisedDotProductBlock(ViViTConfig(dim=D, heads=2, mlp_dim=D))
    assert torch.equal(pictures.visibility_mask("factorised_dot_product", *GRID), reach(block))


def test_in_model_3_one_block_reaches_every_token_in_two_steps():
    model_3 = FACTORISED[0]
    space, time = (pictures.visibility_mask(model_3, *GRID, kind).float() for kind in ("space", "time"))
    assert ((time @ space) > 0).all() and not pictures.visibility_mask(model_3, *GRID).all()


@pytest.mark.parametrize("name", VIVITS)
def test_the_figures_pairs_are_those_of_the_cost(name):
    panels = pictures.mask_panels(name, 4, 4, 4)
    pairs = [int(text.split()[0].replace(",", "")) for _, text, _ in panels]
    assert sum(pairs) == attention_pairs(name, 4, 16)


def test_unknown_masks_are_refused():
    with pytest.raises(ConfigError, match="'model5'"):
        pictures.visibility_mask("model5", *GRID)
    with pytest.raises(ConfigError, match="'time'"):
        pictures.visibility_mask("spacetime", *GRID, "time")
    with pytest.raises(ConfigError, match="spacetime"):
        pictures.architecture("model5")


# ---- figures: what they show, and that it can be read


def texts_of(figure):
    """(text, its box in pixels) of all visible texts; the figures have no ticks."""
    figure.draw_without_rendering()
    found = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        found += [*axes.texts, axes.title] + [axes.xaxis.label, axes.yaxis.label] * axes.axison
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text()]


def assert_readable(figure):
    """Every text lies within the figure, none upon another, and there is an alt text of some length."""
    boxes = texts_of(figure)
    for text, box in boxes:
        low, high = figure.bbox.min - 1, figure.bbox.max + 1
        assert (box.min >= low).all() and (box.max <= high).all(), f"{text!r} is cut off"
    for i, (text, box) in enumerate(boxes):
        for other, there in boxes[:i]:
            width = min(box.x1, there.x1) - max(box.x0, there.x0)
            height = min(box.y1, there.y1) - max(box.y0, there.y0)
            assert min(width, height) < 2, f"{text!r} lies upon {other!r}"
    assert len(figure.alt_text) > 80 and figure.get_figwidth() <= 10
    from matplotlib.text import Text

    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= plots.SMALLEST


@pytest.mark.parametrize("name", [*VIVITS, "all"])
def test_architectures_can_be_read(name):
    assert_readable(pictures.architectures() if name == "all" else pictures.architecture(name))


def test_the_drawing_repeats_model_2s_temporal_block_as_often_as_the_model():
    depth = len(build_model("factorised_encoder").temporal_encoder.blocks)
    assert f"× {depth}" in [text for text, _ in texts_of(pictures.architecture("factorised_encoder"))]


@pytest.mark.parametrize("names", [*VIVITS, VIVITS, FACTORISED])
def test_masks_can_be_read(names):
    assert_readable(pictures.mask_figure(names))


def test_the_token_that_looks_is_where_it_was_asked_for():
    from matplotlib.colors import to_rgb

    query = 1 * S + 2  # time index 1, second row, first column
    figure = pictures.mask_figure("factorised_self_attention", *GRID, query=query)
    strip = figure.axes[1].get_images()[0].get_array()  # [H, T·(W + 1) - 1, 3]
    assert strip.shape == (H, T * (W + 1) - 1, 3)
    black = (strip == 0).all(axis=-1).nonzero()
    assert [index.tolist() for index in black] == [[1], [W + 1]]
    assert tuple(strip[1, 0]) == tuple(strip[1, 2 * (W + 1)]) == to_rgb(plots.ORANGE)
    assert tuple(strip[0, W + 1]) == to_rgb(plots.BLUE)


@pytest.mark.parametrize("tubelet", [(7, 7, 7), (1, 28, 28), (14, 2, 7), (8, 8, 8), (28, 28, 28), (5, 7, 9)])
def test_cuts_can_be_read(tubelet):
    figure = pictures.tubelet_cuts(torch.zeros(1, 28, 28, 28, dtype=torch.uint8), tubelet)
    assert_readable(figure)
    n_t, n_h, n_w = (28 // step for step in tubelet)
    (title,) = [text for text, _ in texts_of(figure) if "token" in text]
    assert f": {n_t * n_h * n_w} token" in title
    assert ("in none" in title) == any(28 % step for step in tubelet)
    cuts = [p for p in figure.axes[0].patches if p.get_linewidth() < 1 and not p.get_hatch()]
    assert [(p.get_y(), p.get_x()) for p in cuts] == [
        (i * tubelet[1] - 0.5, j * tubelet[2] - 0.5) for i in range(n_h) for j in range(n_w)
    ]


def test_the_tubelet_marked_is_the_same_in_all_slices_of_its_row():
    figure = pictures.tubelet_cuts(torch.zeros(28, 28, 28, dtype=torch.uint8), (7, 7, 7))
    marked = [p for axes in figure.axes for p in axes.patches if p.get_linewidth() > 2]
    assert [(p.get_xy(), p.get_width()) for p in marked] == [((13.5, 13.5), 7)] * 7


def test_what_is_left_over_is_hatched():
    figure = pictures.tubelet_cuts(torch.zeros(28, 28, 28, dtype=torch.uint8), (8, 8, 8))
    hatched = [[p for p in axes.patches if p.get_hatch()] for axes in figure.axes if axes.get_images()]
    areas = [sum(p.get_width() * p.get_height() for p in patches) for patches in hatched]
    assert areas == [28 * 28 - 24 * 24] * 21 + [28 * 28] * 4
