"""Recipes are compared on clips that are in no split, or on a third of training and validation; never on the test."""

from dataclasses import replace

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.errors import ConfigError
from vivit_edu.experiments import held_out, many_images
from vivit_edu.experiments.held_out import train_without_test, without_a_third
from vivit_edu.experiments.tables import search
from vivit_edu.training import Recipe
from vivit_edu.volumes import Split


@pytest.fixture
def volumes():
    """Each clip says by its first voxel which one it is; those of the test split cannot be read."""
    tiny = make_tiny_volumes()
    for number, split in enumerate((tiny.train, tiny.val)):
        split.clips[:, 0, 0, 0, 0] = torch.arange(len(split)) + 100 * number
    test = Split(torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return replace(tiny, test=test)


def numbers(split):
    return split.clips[:, 0, 0, 0, 0].tolist()


def test_a_third_is_cut_out_in_blocks_and_no_clip_is_on_both_sides(volumes):
    found = without_a_third(volumes)
    everything = [*range(48), *range(100, 112)]
    assert sorted(numbers(found.train) + numbers(found.test)) == everything and len(found.test) == 20
    assert numbers(found.test)[:6] == [0, 1, 6, 7, 12, 13], "two clips to a block"
    assert numbers(found.val) == numbers(found.test)
    labels = [*(torch.arange(48) % 3).tolist(), *(torch.arange(12) % 3).tolist()]
    assert found.test.labels.tolist() == [labels[everything.index(n)] for n in numbers(found.test)]
    with pytest.raises(ConfigError, match="a third of 12 clips"):
        without_a_third(replace(volumes, train=volumes.val.subset([])))


def test_what_stands_under_test_is_of_the_judges(volumes, tmp_path):
    found = train_without_test(volumes, tiny_recipe(epochs=1), out=tmp_path / "run", seed=0, size=8, figures=False)
    assert found["test"] == found["val"] and found["test"]["acc"] * 20 == pytest.approx(
        round(found["test"]["acc"] * 20)
    )


def test_the_phantoms_judges_are_patients_of_no_split(volumes, tmp_path, monkeypatch):
    asked = []
    judges = make_tiny_volumes().train.subset(list(range(7)))  # another number than validation has
    monkeypatch.setattr(
        many_images, "draw_patients", lambda *given: asked.append(given) or (judges.clips, judges.labels)
    )
    splits = {
        name: replace(getattr(volumes, name), patients=torch.arange(len(getattr(volumes, name))) + start)
        for name, start in (("train", 0), ("val", 50), ("test", 70))
    }
    phantom = replace(volumes, name="organphantom3d", **splits)
    run = {"recipe": tiny_recipe(epochs=1), "out": tmp_path / "run", "seed": 0, "size": 8, "figures": False}
    found = train_without_test(phantom, judges=range(5000, 5002), **run)
    assert asked == [(range(5000, 5002), 8)]
    assert found["test"]["acc"] * len(judges) == pytest.approx(round(found["test"]["acc"] * len(judges)))
    with pytest.raises(ConfigError, match="patient 50 is in a split"):
        train_without_test(phantom, judges=range(50, 60), **run)


def test_clips_of_another_size_are_loaded_where_they_are(volumes, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(held_out, "load_volumes", lambda name, size: asked.append((name, size)) or volumes)
    run = {"recipe": tiny_recipe(epochs=1), "out": tmp_path / "run", "seed": 0, "size": 16, "figures": False}
    train_without_test(volumes, **run)
    assert asked == [("tiny", 16)]
    with pytest.raises(ConfigError, match="other labels than the one given: say in .VIVIT_EDU_DATA"):
        train_without_test(replace(volumes, train=volumes.train.subset([0, 1])), **run)


def test_the_search_compares_with_the_preset_at_equal_cost():
    full, fine = search()
    assert full.recipe == Recipe.preset("full") and full.train is train_without_test
    changed = {key for key in vars(fine.recipe) if vars(fine.recipe)[key] != vars(full.recipe)[key]}
    assert changed == {"options", "epochs"} and 2 * fine.recipe.epochs == full.recipe.epochs
    assert all(row.tested_on for row in (full, fine))
