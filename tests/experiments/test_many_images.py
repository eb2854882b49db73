"""Many images, few videos: equal steps on every share, patients who are in no split, what slices teach."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.course.recorded import split_name
from vivit_edu.course.schematics import surgery as drawings
from vivit_edu.errors import ConfigError
from vivit_edu.experiments import many_images
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.many_images import LABELLED, labelled_model, masked_model, train_from_images
from vivit_edu.experiments.pretraining import TASK
from vivit_edu.experiments.tables import Row, image_rates, images, images_models, train_on_share
from vivit_edu.support.files import read_json


@pytest.fixture
def volumes():
    tiny = make_tiny_volumes()
    splits = {
        name: replace(split, patients=offset + torch.arange(len(split)) // 3)
        for name, offset, split in (("train", 0, tiny.train), ("val", 100, tiny.val), ("test", 150, tiny.test))
    }
    return replace(tiny, name="organphantom3d", **splits)


@pytest.fixture
def crops(volumes, monkeypatch):
    """Patients who are drawn in no time: the training clips of the tiny set."""
    asked = []

    def draw(patients, size):
        asked.append((list(patients), size))
        return volumes.train.clips, volumes.train.labels

    monkeypatch.setattr(many_images, "draw_patients", draw)
    return asked


def rows_of(tiny, **more):
    train = {"patients": range(1000, 1002), "steps": 2}
    starts = {
        "central frame": partial(train_from_images, **train),
        "random": partial(train_from_images, **train),
        "without labels": partial(train_from_images, task=TASK, **train),
    }
    return [
        Row(
            f"25 %, {name}",
            replace(tiny, inflate="random" if name == "random" else "central"),
            partial(train_on_share, percent=25, equal_steps=True, train=start, **more),
        )
        for name, start in starts.items()
    ]


def test_a_table_of_images_is_made_at_tiny_size(volumes, crops, tmp_path):
    tiny = tiny_recipe(epochs=2, optimiser="muon", lr=1e-3)
    content = run_table("images", rows_of(tiny), volumes, seeds=2, out=tmp_path, device="cpu")
    assert [row["row"] for row in content["rows"]] == ["25 %, central frame", "25 %, random", "25 %, without labels"]
    assert all(len(row["history"]["loss"][0]) == 2 for row in content["rows"]) and content["seeds"] == [0, 1]
    assert crops == [([1000, 1001], 8)]  # drawn once for all rows and seeds
    kept = sorted(path.name for path in tmp_path.glob("images-*.safetensors"))
    assert kept == [
        f"images-{kind}-2-layers-seed{seed}.safetensors" for kind in ("labelled", "masked") for seed in (0, 1)
    ]


def test_every_share_makes_as_many_steps_from_its_own_patients(volumes):
    seen = []

    def train(share, recipe, *, seed, **rest):
        seen.append(share.train)

    for percent in (10, 50, 100):
        train_on_share(volumes, tiny_recipe(), percent=percent, train=train, seed=3, equal_steps=True)
    assert {len(split) for split in seen} == {len(volumes.train)}
    assert [len(split.patients.unique()) for split in seen] == [2, 8, 16]
    counts = seen[0].patients.unique(return_counts=True)[1]
    assert counts.max() - counts.min() <= 3  # each clip as often as any other, give or take one
    for percent, seed in ((10, 3), (10, 4), (1, 3)):
        train_on_share(volumes, tiny_recipe(), percent=percent, train=train, seed=seed, equal_steps=True)
    tenth, half, _, again, other, least = [set(split.patients.tolist()) for split in seen]
    assert again == tenth < half and other != tenth and len(least) == 1


def test_patients_of_a_split_and_other_data_are_refused(volumes, crops, tmp_path):
    make = partial(train_from_images, recipe=tiny_recipe(), out=tmp_path / "run", seed=0, device="cpu", steps=1)
    with pytest.raises(ConfigError, match="patient 101 is in a split"):
        make(volumes, patients=range(101, 110))
    with pytest.raises(ConfigError, match="not for tiny"):
        make(replace(volumes, name="tiny"))
    with pytest.raises(ConfigError, match="task"):
        make(volumes, task="guess")
    assert not crops and not (tmp_path / "run").exists()


def test_slices_with_labels_are_learned_and_the_same_seed_gives_the_same_weights():
    labels = torch.arange(30) % 3
    clips = (60 + 70 * labels).to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 1, 8, 8, 8)
    recipe = tiny_recipe(optimiser="muon", lr=3e-3)
    first, again = (labelled_model(clips, labels, recipe, steps=60, seed=1, classes=3) for _ in range(2))
    with torch.no_grad():
        found = first(clips[:, :, :1] / 255).argmax(dim=1)
    assert (found == labels).float().mean() > 0.9
    assert all(one.equal(other) for one, other in zip(first.parameters(), again.parameters()))
    other = labelled_model(clips, labels, recipe, steps=1, seed=2, classes=3)
    assert not first.positions.equal(other.positions)


def test_slices_without_labels_give_the_same_kind_of_model(volumes):
    recipe = tiny_recipe()
    with_labels = labelled_model(volumes.train.clips, volumes.train.labels, recipe, steps=1, seed=0)
    without = masked_model(volumes.train.clips, recipe, steps=2, seed=0)
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (with_labels, without)]
    assert shapes[0] == shapes[1] and not without.training


def test_what_a_run_started_from_is_in_its_folder(volumes, crops, tmp_path):
    out = tmp_path / "run"
    train_from_images(
        volumes,
        tiny_recipe(epochs=1),
        out=out,
        seed=0,
        device="cpu",
        steps=2,
        patients=range(1000, 1002),
        figures=False,
    )
    assert "images-labelled" in str(read_json(out / "pretrained.json"))


def test_the_tables_are_what_their_chapter_draws():
    for row in images():
        share, start = split_name(row.name)
        assert start in drawings.START_INKS and 5 <= share <= 100
    lengths = {row.recipe.epochs for row in images() if "4 times" not in row.name}
    assert len(lengths) == 1 and {row.recipe.lr for row in image_rates()} == {1e-3, 3e-3, 1e-2}
    assert LABELLED != TASK and len({row.recipe.model for row in images_models()}) == 3
