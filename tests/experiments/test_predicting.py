"""What a model sees in files: ours against the class that the split knows, a published layout against transformers."""

import json
import os
import re
import shutil
import struct

import numpy as np
import pytest
import torch
from torch import nn

from tests.damage import no_file
from tests.datasets.test_video import encode, ramp
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu.cli import main
from vivit_edu.errors import CheckpointError, ConfigError, DataError
from vivit_edu.experiments.predicting import (
    Predictor,
    predict_clip,
    predict_files,
    preparation,
    read_clips,
    read_predictor,
)
from vivit_edu.experiments.runs import train_run
from vivit_edu.training import predict_logits


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict") / "run"
    train_run(make_tiny_volumes(), tiny_recipe(epochs=6), out=folder, device="cpu", figures=False)
    return folder


def save(path, array):
    np.savez(path, volume=array) if path.suffix == ".npz" else np.save(path, array)
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_a_volume_in_a_file_gets_the_probabilities_of_the_clip(run, tmp_path, ending, dtype):
    volumes = make_tiny_volumes()
    predictor = read_predictor(run, device="cpu")
    expected = predict_logits(predictor.model, volumes.test).softmax(-1)
    for n in range(3):
        clip = volumes.test.clips[n].numpy()
        array = clip if dtype == np.uint8 else (clip / 255).astype(dtype)
        path = save(tmp_path / f"{n}{ending}", array if n else array[0])  # [C, T, H, W], or without C
        ((row,), failed) = predict_files(predictor, [path], top=9)
        found = {guess["class"]: guess["probability"] for guess in row["top"]}
        assert not failed and row["file"] == str(path) and list(found) == sorted(found, key=found.get, reverse=True)
        assert [found[name] for name in volumes.class_names] == pytest.approx(expected[n].tolist(), abs=1e-5)


def test_the_command_prints_a_table_or_json_and_names_what_it_could_not_read(run, tmp_path, capsys):
    clip = make_tiny_volumes().test.clips[0].numpy()
    (tmp_path / "deep").mkdir()
    good = [save(tmp_path / "a.npy", clip), save(tmp_path / "deep" / "b.npz", clip)]
    assert main(["predict", str(run), str(tmp_path), "--top", "2", "--json", "--device", "cpu"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["file"] for row in rows] == [str(path) for path in good] and {len(row["top"]) for row in rows} == {2}
    (tmp_path / "notes.txt").write_text("hello")
    assert main(["predict", str(run), str(good[0]), str(tmp_path / "notes.txt"), str(tmp_path / "none.mp4")]) == 2
    out, err = capsys.readouterr()
    assert re.search(r"a\.npy\s+\w+\s+[01]\.\d{3}", out) and "2 of 3 files" in err
    assert "notes.txt" in err and "none.mp4" in err and "Traceback" not in err


def with_header(path, header):
    """Writes a file in NumPy's format whose header says what it likes."""
    text = str(header).encode()
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + bytes(64))


BAD = {
    "two arrays": lambda p: np.savez(p.with_suffix(".npz"), a=np.zeros((2, 2, 2)), b=np.zeros((2, 2, 2))),
    "a table": lambda p: np.save(p, np.zeros((3, 3))),
    "two channels": lambda p: np.save(p, np.zeros((2, 8, 8, 8), np.uint8)),
    "no voxels": lambda p: np.save(p, np.zeros((0, 8, 8), np.uint8)),
    "Hounsfield units": lambda p: np.save(p, np.full((8, 8, 8), -1000, np.int16)),
    "floats over 1": lambda p: np.save(p, np.full((8, 8, 8), 1.5)),
    "not a number": lambda p: np.save(p, np.full((8, 8, 8), np.nan)),
    "words": lambda p: np.save(p, np.zeros((8, 8, 8), "U3")),
    "bytes": lambda p: np.save(p, np.zeros((8, 8, 8), "S3")),
    "dates": lambda p: np.save(p, np.zeros((8, 8, 8), "M8[s]")),
    "pairs": lambda p: np.save(p, np.zeros((8, 8, 8), "i4,f4")),
    "complex numbers": lambda p: np.save(p, np.zeros((8, 8, 8), complex)),
    "a shape without end": lambda p: with_header(p, {"descr": "|u1", "fortran_order": False, "shape": (2**70, 4, 4)}),
    "a shape of another kind": lambda p: with_header(p, {"descr": "|u1", "fortran_order": False, "shape": (True, 4)}),
    "a header without end": lambda p: with_header(p, "-" * 9000 + "1"),
    "brackets without end": lambda p: with_header(p, "(" * 9000),
    "a pipe": lambda p: no_file("fifo", p),
    "a pipe of many": lambda p: no_file("fifo", p.with_suffix(".npz")),
    "a pipe of pictures": lambda p: no_file("fifo", p.with_suffix(".mp4")),
    "a device": lambda p: no_file("device", p),
    "a dead link": lambda p: no_file("dead", p),
    "objects": lambda p: np.save(p, np.array([{}], dtype=object), allow_pickle=True),
    "cut short": lambda p: (np.save(p, np.zeros((8, 8, 8))), p.write_bytes(p.read_bytes()[:300])),
    "empty": lambda p: p.write_bytes(b""),
    "not an archive": lambda p: p.with_suffix(".npz").write_bytes(b"hello"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_file_that_is_no_volume_is_told_by_name_and_stops_no_other(run, tmp_path, bad):
    BAD[bad](tmp_path / "bad.npy")
    good = save(tmp_path / "good.npy", make_tiny_volumes().test.clips[0].numpy())
    (path,) = (tmp_path / name for name in os.listdir(tmp_path) if name.startswith("bad"))
    rows, failed = predict_files(read_predictor(run, device="cpu"), [path, good])
    assert len(rows) == 1 and list(failed) == [str(path)] and "bad" in failed[str(path)]


def test_a_volume_of_another_size_is_resized_and_a_grey_one_is_shown_in_all_colours(tmp_path):
    path = save(tmp_path / "a.npy", np.full((4, 6, 10), 51, np.uint8))
    predictor = Predictor(nn.Identity(), ("a",), (3, 8, 5, 5))
    clips = read_clips(path, predictor)
    assert clips.shape == (1, 3, 8, 5, 5) and torch.allclose(clips, torch.tensor(0.2))
    coloured = save(tmp_path / "b.npy", np.stack([np.full((8, 5, 5), v, np.uint8) for v in (0, 51, 102)]))
    grey = read_clips(coloured, Predictor(nn.Identity(), ("a",), (1, 8, 5, 5)))
    assert grey.shape == (1, 1, 8, 5, 5) and torch.allclose(grey, torch.tensor(0.2))


def test_no_file_no_run_and_numbers_that_are_none(run, tmp_path):
    predictor = read_predictor(run, device="cpu")
    with pytest.raises(DataError, match="no file in"):
        predict_files(predictor, [tmp_path])
    for wrong in ({"views": 0}, {"top": 0}, {"views": 1.5}):
        with pytest.raises(ConfigError):
            predict_files(predictor, [tmp_path / "a.npy"], **wrong)
    with pytest.raises(CheckpointError, match=r"neither a run folder.*run\.json.*config\.json"):
        read_predictor(tmp_path, device="cpu")


def test_names_come_from_the_run_and_no_data_are_needed(run):
    predictor = read_predictor(run, device="cpu")  # "tiny" is a data set that nobody could load
    assert predictor.class_names == make_tiny_volumes().class_names and not predictor.model.training


def test_a_run_that_is_not_finished_is_said_to_be(run, tmp_path):
    copied = shutil.copytree(run, tmp_path / "run")
    (copied / "metrics.json").unlink()
    with pytest.raises(CheckpointError, match="not finished.*--resume"):
        read_predictor(copied, device="cpu")


# ---- published weights


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A small ViViT as transformers saves it, with labels and the preparation of the published one."""
    transformers = pytest.importorskip("transformers")
    labels = {0: "juggling balls", 1: "tai chi", 2: "zumba"}
    config = transformers.VivitConfig(
        image_size=16,
        num_frames=6,
        tubelet_size=[3, 4, 4],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        id2label=labels,
        label2id={name: k for k, name in labels.items()},
    )
    torch.manual_seed(0)
    model = transformers.VivitForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    folder = tmp_path_factory.mktemp("published")
    model.save_pretrained(folder)
    processor = transformers.VivitImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, do_resize=False
    )
    processor.save_pretrained(folder)
    return folder, model, processor


def test_published_weights_give_what_transformers_gives_for_the_same_frames(published, tmp_path):
    """From pixels to probabilities: the other library's preparation and model."""
    folder, model, processor = published
    frames = torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    inputs = processor([frame.numpy() for frame in frames], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model(inputs).logits.softmax(-1)[0]
    predictor = read_predictor(folder, device="cpu")
    assert predictor.class_names == ("juggling balls", "tai chi", "zumba") and predictor.clip_shape == (3, 6, 16, 16)
    found = predictor(frames.permute(3, 0, 1, 2)[None])
    assert torch.allclose(found, expected, atol=1e-5) and expected.max() < 0.999
    path = save(tmp_path / "clip.npy", frames.permute(3, 0, 1, 2).numpy())
    (row,), _ = predict_files(predictor, [path])
    assert row["top"][0]["class"] == model.config.id2label[int(expected.argmax())]


def test_views_of_a_video_are_averaged(published, tmp_path):
    folder, *_ = published
    path = tmp_path / "film.avi"
    encode(path, ramp(24, 32, 48))
    predictor = read_predictor(folder, device="cpu")
    views = read_clips(path, predictor, views=3)
    assert views.shape == (3, 3, 6, 16, 16) and not torch.equal(views[0], views[1])
    (row,), failed = predict_files(predictor, [path], views=3, top=3)
    clips = (views / 255 - torch.tensor(predictor.mean).reshape(3, 1, 1, 1)) / torch.tensor(predictor.std).reshape(
        3, 1, 1, 1
    )
    with torch.no_grad():
        logits = torch.stack([predictor.model(view[None])[0] for view in clips])
    expected = logits.mean(0).softmax(-1)
    found = {guess["class"]: guess["probability"] for guess in row["top"]}
    assert not failed and [found[n] for n in predictor.class_names] == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    "settings, mean, std, margin",
    [
        ({}, 0.75, 0.25, 1.0),  # as published: x/127.5 - 1, then (… - .5) / .5
        ({"offset": False, "rescale_factor": 1 / 255}, 0.5, 0.5, 1.0),
        ({"offset": False, "rescale_factor": 1 / 255, "image_mean": [0.1], "image_std": [0.2]}, 0.1, 0.2, 1.0),
        ({"do_normalize": False}, 0.5, 0.5, 1.0),
        ({"do_rescale": False, "do_normalize": False}, 0.0, 1 / 255, 1.0),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, 0.75, 0.25, 256 / 224),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False}, 0.75, 0.25, 1.0),
    ],
)
def test_the_preparation_is_read_from_the_settings(settings, mean, std, margin):
    found = preparation(settings)
    assert set(np.round(found["mean"], 6)) == {round(mean, 6)} and set(np.round(found["std"], 6)) == {round(std, 6)}
    assert found["margin"] == margin


def test_weights_without_a_head_or_of_images_are_refused(published, tmp_path):
    import transformers

    folder, model, _ = published
    transformers.VivitModel(model.config).save_pretrained(tmp_path / "bare")
    with pytest.raises(CheckpointError, match="no classifier for the 3 labels"):
        read_predictor(tmp_path / "bare", device="cpu")
    transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=1, num_attention_heads=4)
    ).save_pretrained(tmp_path / "image")
    with pytest.raises(CheckpointError, match="does not say num_frames"):
        read_predictor(tmp_path / "image", device="cpu")


def test_one_clip_in_python_gets_the_probabilities_of_its_file(run, tmp_path):
    """A tensor, whole or as views, uint8 or float, and a file, give the same; the best class is first."""
    volumes, predictor = make_tiny_volumes(), read_predictor(run, device="cpu")
    expected = predict_logits(predictor.model, volumes.test).softmax(-1)
    for n in range(3):
        clip = volumes.test.clips[n]
        path = save(tmp_path / f"{n}.npy", clip.numpy())
        for given in (clip, clip / 255, clip[None], clip.expand(4, *clip.shape), path, str(path)):
            found = predict_clip(predictor, given)
            assert list(found.values()) == sorted(found.values(), reverse=True)
            assert [found[name] for name in volumes.class_names] == pytest.approx(expected[n].tolist(), abs=1e-5)
    pair = torch.stack([volumes.test.clips[0], volumes.test.clips[1]])  # two views: their logits are averaged
    logits = predict_logits(predictor.model, volumes.test.subset([0, 1])).mean(0).softmax(-1)
    found = predict_clip(predictor, pair)
    assert [found[name] for name in volumes.class_names] == pytest.approx(logits.tolist(), abs=1e-5)


NO_CLIPS = [torch.zeros(1, 8, 8, 9), torch.zeros(8, 8, 8), torch.zeros(0, 1, 8, 8, 8), torch.full((1, 8, 8, 8), 1.5)]
NO_CLIPS += [torch.full((1, 8, 8, 8), torch.nan), torch.zeros(1, 8, 8, 8, dtype=torch.int64), "", 3]


@pytest.mark.parametrize("wrong", NO_CLIPS, ids=range(len(NO_CLIPS)))
def test_a_clip_of_another_shape_or_kind_is_refused_in_words(run, wrong):
    with pytest.raises(ConfigError, match="a clip of|clip must be the path"):
        predict_clip(read_predictor(run, device="cpu"), wrong)
