"""The figures of chapter 14: what training to a plateau leaves in hand, and models side by side on several sets."""

import numpy as np
import pytest

from vivit_edu.course import comparisons


def test_in_hand_is_the_epoch_of_the_lowest_loss_so_far_and_stays_after_the_end():
    row = {
        "history": {
            "val_loss": [[3.0, 1.0, 2.0, 0.5], [2.0, 2.5], [1.0]],
            "val_acc": [[0.2, 0.5, 0.9, 0.7], [0.3, 0.8], [0.4]],  # higher accuracies at higher losses are not kept
            "processor_seconds": [[10.0, 20.0, 30.0, 40.0], [6.0, 12.0], [50.0]],
        },
        "plateau": [{"steps_an_epoch": 5}] * 3,
    }
    curves, seconds = comparisons.in_hand(row)
    np.testing.assert_allclose(curves, [[0.2, 0.5, 0.5, 0.7], [0.3] * 4, [0.4] * 4])
    assert seconds == pytest.approx(10 / 5), "the median over the runs"


def test_curves_are_drawn_over_steps_and_over_seconds():
    in_hand = {"spacetime": (np.array([[0.2, 0.6], [0.4, 0.8]]), 0.5), "cnn3d": (np.array([[0.1]]), 2.0)}
    left, right = comparisons.over_steps_and_seconds(in_hand, steps=32).axes
    np.testing.assert_allclose(left.lines[0].get_xydata(), [[32, 0.3], [64, 0.7]])
    np.testing.assert_allclose(right.lines[0].get_xydata(), [[16, 0.3], [32, 0.7]])
    np.testing.assert_allclose(right.lines[1].get_xydata(), [[64, 0.1]])


def test_small_multiples_share_the_order_of_the_first():
    runs = {
        "organs": {"spacetime": [0.8, 0.9], "cnn3d": [0.9, 0.95], "single_frame": [0.5]},
        "shapes": {"spacetime": [0.9, 0.9], "cnn3d": [0.1, 0.2]},
        "glands": {"spacetime": [0.9, 0.9], "cnn3d": [0.1, 0.2]},
    }
    figure = comparisons.small_multiples(runs, chance={"shapes": 0.5}, columns=2)
    organs, shapes, glands = figure.axes  # and no fourth
    assert [label.get_text() for label in organs.get_yticklabels()] == ["cnn3d", "Model 1", "single_frame"]
    assert [axes.get_title() for axes in figure.axes] == [*runs]
    means = [float(bars.lines[0].get_xdata()[0]) for bars in shapes.containers]
    assert means == pytest.approx([0.15, 0.9]), "the same order, with the second set's own figures"
    bar = organs.containers[0].lines[2][0].get_segments()[0]
    assert bar[1][0] - bar[0][0] == pytest.approx(2 * np.std([0.9, 0.95], ddof=1))
    dashed = [[line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes]
    assert dashed == [[], [0.5], []]


def test_a_line_for_each_model_over_the_shares():
    organs = {"spacetime": {5: [0.2, 0.4], 100: [0.8, 0.9]}, "cnn3d, from nothing": {25: [0.5], 100: [0.9]}}
    left, right = comparisons.over_shares({"one": organs, "other": {"cnn3d": {100: [0.7]}}}).axes
    first, second = left.containers
    assert (first.get_label(), second.get_label()) == ("Model 1", "cnn3d, from nothing")
    assert (first.lines[0].get_linestyle(), second.lines[0].get_linestyle()) == ("-", "--")
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[5, 0.3], [100, 0.85]])
    np.testing.assert_allclose(second.lines[0].get_xydata(), [[25, 0.5], [100, 0.9]])
    low, high = first.lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * np.std([0.2, 0.4], ddof=1))
    assert [text.get_text() for text in left.get_xticklabels()] == ["5", "25", "100"]
    assert (left.get_title(), right.get_title()) == ("one", "other")


def test_a_record_of_shares_is_read_by_what_was_trained():
    rows = [
        {"row": "5 %, spacetime", "test": {"acc": {"runs": [0.1, 0.2]}}},
        {"row": "100 %, nothing pretrained, 4 times as long", "test": {"acc": {"runs": [0.5]}}},
        {"row": "100 %, spacetime", "test": {"acc": {"runs": [0.3]}}},
    ]
    assert comparisons.by_share({"rows": rows}) == {
        "spacetime": {5: [0.1, 0.2], 100: [0.3]},
        "nothing pretrained, 4 times as long": {100: [0.5]},
    }


def test_every_run_is_drawn_with_the_epoch_that_is_kept():
    table = {
        "rows": [
            {"row": "cnn3d", "history": {"val_acc": [[0.2, 0.9, 0.8]]}, "plateau": [{"best_epoch": 2}]},
            {
                "row": "spacetime",
                "history": {"val_acc": [[0.1, 0.5], [0.3, 0.4, 0.6]]},
                "plateau": [{"best_epoch": 1}, {"best_epoch": 3}],
            },
        ]
    }
    rows = comparisons.by_model(table)
    assert [*rows] == ["spacetime", "cnn3d"], "the order of MODELS, not of the table"
    first, second = comparisons.every_run(rows, levels=[0.875]).axes  # and no third
    assert (first.get_title(), second.get_title()) == ("Model 1", "cnn3d")
    curve, kept, *rest = first.lines
    np.testing.assert_allclose(curve.get_xydata(), [[1, 0.1], [2, 0.5]])
    np.testing.assert_allclose(kept.get_xydata(), [[1, 0.1]])
    np.testing.assert_allclose(rest[1].get_xydata(), [[3, 0.6]])
    assert rest[2].get_linestyle() == "--" and rest[2].get_ydata()[0] == 0.875


def test_scores_are_listed_by_a_validation_score():
    def row(accuracy, auc, test):
        val = {"acc": {"mean": accuracy, "sd": 0.01}, "auc": {"mean": auc, "sd": 0.03}}
        rates = {"lr": [3e-4, 1e-3, 3e-3], "val_loss": [0.5, 0.4, None]}
        return {"val": val, "test": {key: {"mean": test, "sd": 0.02} for key in comparisons.SCORES}, "rates": rates}

    rows = {"spacetime": row(0.7, 0.9, 0.9), "cnn3d": row(0.8, 0.6, 0.5)}
    first, second, third, fourth = comparisons.scores_in_words(
        {"organs": rows, "glands": rows}, by={"organs": "acc", "glands": "auc"}
    ).splitlines()
    assert first.split() == (
        "organs cnn3d rate 1e-03 validation accuracy .800 ± .010 "
        "test accuracy .500 ± .020, balanced .500 ± .020, AUC .500 ± .020".split()
    )
    assert second.startswith("organs         spacetime")
    assert third.startswith("glands         spacetime") and "validation AUC .900 ± .030" in third
    assert fourth.startswith("glands         cnn3d")


def test_the_chosen_rate_is_the_one_with_the_lowest_loss():
    assert comparisons.chosen_rate({"rates": {"lr": [1e-4, 1e-3, 1e-2], "val_loss": [0.3, 0.2, None]}}) == 1e-3


def test_a_model_has_one_mark_in_both_panels_of_shares():
    left, right = comparisons.over_shares(
        {"one": {"spacetime": {5: [0.2]}, "cnn3d": {5: [0.3]}}, "other": {"cnn3d, from nothing": {5: [0.7]}}}
    ).axes
    marks = [bars.lines[0].get_marker() for bars in (*left.containers, *right.containers)]
    assert marks[1] == marks[2] != marks[0]


def test_cnns_are_told_apart_by_their_lines():
    curves = {name: (np.array([[0.1, 0.2]]), 1.0) for name in ("spacetime", "cnn3d", "late_fusion")}
    left, _ = comparisons.over_steps_and_seconds(curves, steps=1).axes
    assert [line.get_linestyle() for line in left.lines] == ["-", "-", "--"]
