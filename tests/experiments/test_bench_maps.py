"""Chapter 13's table: every method on every model, mean ± standard deviation over seeds, and provenance."""

import json
from dataclasses import replace

import pytest
import torch

from vivit_edu import plots
from vivit_edu.experiments.bench.maps import first_of_each, make_table
from vivit_edu.explain.faithfulness import METHODS, RANDOM


def test_the_table_has_all_methods_with_their_seeds(tiny_volumes):
    masks = torch.zeros(tiny_volumes.val.clips[:, 0].shape, dtype=torch.uint8)
    masks[..., :2] = 1
    volumes = replace(tiny_volumes, val=replace(tiny_volumes.val, masks=masks))
    options = {"tubelet": tuple(size // 2 for size in masks.shape[1:]), "dim": 8, "depth": 1, "heads": 2, "mlp_dim": 8}
    table = make_table(
        volumes, models=("spacetime", "factorised_dot_product"), epochs=1, per_class=1, seeds=(0, 1), options=options
    )
    assert list(table["results"]) == ["spacetime", "factorised_dot_product"] and table["seeds"] == [0, 1]
    for result in table["results"].values():
        wanted = {RANDOM, *METHODS, *(f"{method}, random weights" for method in METHODS)}
        assert set(result["methods"]) == wanted and result["methods"][RANDOM]["gain"]["mean"] == 0
        for scores in result["methods"].values():
            assert set(scores) == {"deletion", "insertion", "gain", "share", "pointing", "iou"}
            for figure in scores.values():
                assert len(figure["runs"]) == 2 and figure["mean"] == pytest.approx(sum(figure["runs"]) / 2)
    first, second = table["results"]["spacetime"]["methods"]["occlusion"]["deletion"]["runs"]
    assert first != second, "each seed trains a model of its own"
    json.dumps(table)
    figure = plots.faithful_maps(table)
    assert [axes.get_title() for axes in figure.axes] == list(table["results"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(METHODS)
    gain = table["results"]["spacetime"]["methods"]["rollout"]["gain"]["mean"]
    assert f"rollout {gain:.2f} (random weights" in figure.alt_text


def test_the_first_clips_of_each_class_are_taken():
    assert first_of_each(torch.tensor([2, 0, 2, 0, 0, 2]), 2) == [0, 1, 2, 3]
