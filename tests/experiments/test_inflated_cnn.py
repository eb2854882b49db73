"""A 3D CNN from a CNN of slices: what inflation keeps, what slices teach, and how a table is made of it."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import build_model
from vivit_edu.errors import ConfigError
from vivit_edu.experiments import many_images
from vivit_edu.experiments.ablate import run_table
from vivit_edu.experiments.inflated_cnn import inflated, slice_cnn, train_from_slices
from vivit_edu.experiments.tables import Row, cnn_rates, images, images_cnn, train_on_share

SMALL = {"width": 8}


@pytest.fixture
def volumes():
    """The tiny set with a class that every slice shows."""
    tiny = replace(make_tiny_volumes(), name="organphantom3d")
    splits = {name: getattr(tiny, name) for name in ("train", "val", "test")}
    shown = {
        name: replace(
            split,
            clips=(60 + 70 * split.labels.view(-1, 1, 1, 1, 1) + split.clips % 20).to(torch.uint8),
            patients=torch.arange(len(split)),
        )
        for name, split in splits.items()
    }
    return replace(tiny, **shown)


def test_an_inflated_filter_answers_equal_frames_as_the_image_filter_answers_one():
    weight = torch.randn(4, 2, 3, 3, 3)
    frame = torch.randn(1, 2, 1, 9, 7)
    image = F.conv3d(F.pad(frame, (0, 0, 0, 0, 1, 1)), weight)  # what a CNN of single frames computes: zeros around it
    clip = F.conv3d(frame.expand(-1, -1, 5, -1, -1), inflated({"filter": weight})["filter"])
    torch.testing.assert_close(clip, image.expand(-1, -1, 3, -1, -1))


def test_what_has_no_time_is_taken_as_it_is():
    state = build_model("cnn3d", clip_shape=(1, 1, 16, 16), num_classes=3, **SMALL).state_dict()
    found = inflated(state)
    assert found.keys() == state.keys()
    kept = {name for name in state if found[name] is state[name]}
    assert kept == {name for name, tensor in state.items() if tensor.ndim != 5} and "head.weight" in kept
    past = next(name for name in state if state[name].ndim == 5 and state[name].shape[2] == 1)
    torch.testing.assert_close(found[past], state[past])


def test_slices_are_learned_and_the_same_seed_gives_the_same_weights():
    labels = torch.arange(30) % 3
    clips = (60 + 70 * labels).to(torch.uint8).view(-1, 1, 1, 1, 1).expand(-1, 1, 8, 16, 16)
    make = partial(slice_cnn, clips, labels, tiny_recipe(model="cnn3d", lr=3e-3), SMALL | {"num_classes": 3})
    first, again = (make(steps=60, seed=1) for _ in range(2))
    model = build_model("cnn3d", clip_shape=(1, 8, 16, 16), num_classes=3, **SMALL).eval()
    model.load_state_dict(inflated(first))
    with torch.no_grad():
        assert (model(clips / 255).argmax(dim=1) == labels).float().mean() > 0.9  # untrained on clips
    assert all(first[name].equal(again[name]) for name in first)
    assert not make(steps=1, seed=2)["head.weight"].equal(make(steps=1, seed=1)["head.weight"])


def test_a_table_draws_its_patients_once_and_starts_from_the_slices(volumes, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        many_images, "draw_patients", lambda *asked: drawn.append(asked) or (volumes.train.clips, volumes.train.labels)
    )
    recipe = tiny_recipe(model="cnn3d", options=SMALL, epochs=1, lr=1e-9)  # the first weights stay almost as they are
    patients = range(1000, 1002)
    rows = [
        Row(
            f"{percent} %, filter inflation",
            recipe,
            partial(
                train_on_share,
                percent=percent,
                equal_steps=True,
                train=partial(train_from_slices, patients=patients, steps=150, slice_lr=3e-3),
            ),
        )
        for percent in (25, 100)
    ]
    content = run_table("images-cnn", rows, volumes, seeds=2, out=tmp_path, device="cpu")
    assert len(drawn) == 1 and len([*tmp_path.glob("slices-cnn3d-seed?.safetensors")]) == 2
    for row in content["rows"]:
        assert min(row["test"]["acc"]["runs"]) > 0.6, "slices of these clips tell their classes apart"
        assert all("experiments.inflated_cnn.inflated" in code for code in row["code"])
    assert content["rows"][0]["history"]["loss"] != content["rows"][1]["history"]["loss"]


def test_other_data_are_refused_before_anything_is_written(volumes, tmp_path):
    with pytest.raises(ConfigError, match="not for tiny"):
        train_from_slices(replace(volumes, name="tiny"), tiny_recipe(model="cnn3d"), out=tmp_path / "run", seed=0)
    assert not (tmp_path / "run").exists()


def test_its_rows_are_those_of_the_transformers_where_both_have_them():
    names = {row.name for row in images()}
    assert {row.name for row in images_cnn()} <= {name.replace("tubelets, ", "") for name in names}
    assert {row.recipe.epochs for row in images()} == {row.recipe.epochs for row in images_cnn()}
    assert {row.recipe.lr for row in images_cnn()} <= {row.recipe.lr for row in cnn_rates()}
