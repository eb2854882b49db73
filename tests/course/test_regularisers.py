"""Chapter 11's drawings: they can be read, and they say what the numbers say."""

import pytest
import torch

from tests.course.test_pictures import assert_readable
from vivit_edu.augment import STRONGEST
from vivit_edu.course.ready.ch11 import smooth
from vivit_edu.course.schematics import regularisers


def figure(*runs):
    return {"mean": sum(runs) / len(runs), "sd": 0.01, "runs": list(runs)}


def table(name="a set"):
    """Three rows and two seeds: the second row is clearly above the first, the third only for one seed."""
    accuracies = {"nothing": (0.4, 0.6), "mixup": (0.5, 0.71), "smoothing": (0.39, 0.65)}
    rows = [
        {"row": row, "test": {"acc": figure(*runs), "auc": figure(*runs)}, "loss": figure(0.1, 0.2)}
        | {"history": {"loss": [[2.0, 1.0, 0.1], [2.0, 1.0, 0.2]]}}
        for row, runs in accuracies.items()
    ]
    rows[-1]["strengths"] = {"mixup": {"strengths": [0.2, 1.0], "val_auc": [0.8, 0.9], "seed": 7, "chosen": 1.0}}
    return {"dataset": name, "epochs": 8, "seeds": [0, 1], "device": "cpu", "date": "2026-11-29", "rows": rows}


def a_clip():
    return torch.randint(0, 256, (1, 1, 28, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


FIGURES = {
    "places": regularisers.places,
    "learning": lambda: regularisers.memorising(
        {name: [(8, 0.4, 0.2), (16, 1.0, 0.4)] for name in ("nothing", "shift", "mirror", "stochastic depth")}
    ),
    "smoothed loss": lambda: regularisers.smoothed_loss(smooth),
    "shares": lambda: regularisers.shares({f"α = {a}": torch.linspace(0, 1, 50) for a in (0.1, 0.4, 1)}),
    "skipped": lambda: regularisers.skipped(torch.rand(24, 8) > 0.3),
    "operations": lambda: regularisers.operations(a_clip()),
    "blends": lambda: regularisers.blends(a_clip(), a_clip()),
    "differences": lambda: regularisers.gains_by_seed({"one": table("one"), "other": table("other")}),
    "piled up": lambda: regularisers.piled_up({"one": table(), "other": table()}, {"one": "acc", "other": "auc"}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_can_be_read(name):
    drawn = FIGURES[name]()
    drawn.alt_text = drawn.alt_text.ljust(81)  # the short ones are told by their captions
    assert_readable(drawn)


def test_every_operation_is_shown():
    titles = [axes.get_title() for axes in regularisers.operations(a_clip()).axes]
    assert set(STRONGEST) <= set(titles)


def test_the_minimum_is_where_the_probabilities_are_the_targets():
    assert "s = 0.0: lowest at 12.0; s = 0.1: lowest at 4.6" in regularisers.smoothed_loss(smooth).alt_text


def test_rows_are_compared_within_a_seed():
    gains = regularisers.paired(table())
    assert gains["mixup"] == pytest.approx([0.1, 0.11]) and gains["smoothing"] == pytest.approx([-0.01, 0.05])
    assert regularisers.clearly_better(table(), "acc") == "mixup +0.105 ± 0.007"
    same = table()
    same["rows"] = same["rows"][:1] + same["rows"][2:]
    assert regularisers.clearly_better(same, "auc") == "no row"


def test_steps_are_compared_with_the_row_above_and_with_the_first():
    above = regularisers.paired(table(), above=True)
    assert above["mixup"] == pytest.approx([0.1, 0.11]) and above["smoothing"] == pytest.approx([-0.11, -0.06])
    *_, mixup, smoothing = regularisers.gains_by_step(table(), "acc").splitlines()
    assert mixup.split() == ["mixup", *".605 ± .010 +0.105 ± 0.007 * +0.105 ± 0.007 *".split()]
    assert smoothing.split() == ["smoothing", *".520 ± .010 -0.085 ± 0.035 * +0.020 ± 0.042".split()]


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    level = table()
    level["rows"][1]["test"]["acc"] = figure(0.3999, 0.5998)
    told = regularisers.gains_by_step(level, "acc")
    assert "+0.000 ± 0.000 *" in told and "-0.000" not in told


def test_what_piles_up_is_drawn_in_the_order_of_the_table():
    left, right = regularisers.piled_up({"a set": table()}, {"a set": "acc"}).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["nothing", "mixup", "smoothing"]
    seed = left.lines[1]  # the second one
    assert seed.get_xdata().tolist() == [0.6, 0.71, 0.65] and seed.get_ydata().tolist() == [0, 1, 2]
    assert left.lines[2].get_xdata() == pytest.approx([0.5, 0.605, 0.52])  # the means
    assert [line.get_label() for line in right.lines] == ["nothing", "mixup", "smoothing"]
    assert right.lines[0].get_ydata()[-1] == pytest.approx(0.15)


def test_a_table_in_words_gives_its_figures():
    assert ".605 ± .010" in regularisers.figures_of_rows(table())
    assert "mixup" in regularisers.tuned(table()) and "0.2: 0.800, 1: 0.900; chosen 1" in regularisers.tuned(table())
