"""Real video files of several kinds, encoded here: which frames are taken, faults by name, training on a folder."""

import json
import struct

import numpy as np
import pytest
import torch

from vivit_edu import load_clip, load_videos
from vivit_edu.cli import main
from vivit_edu.datasets import video
from vivit_edu.errors import ConfigError, DataError
from vivit_edu.volumes import describe

av = pytest.importorskip("av")
KINDS = {  # file ending and codec -> pixel format
    ("mp4", "libx264"): "yuv420p",
    ("mp4", "mpeg4"): "yuv420p",
    ("mkv", "libx264"): "yuv420p",
    ("mkv", "ffv1"): "yuv420p",
    ("webm", "libvpx-vp9"): "yuv420p",
    ("avi", "mjpeg"): "yuvj420p",
    ("avi", "mpeg4"): "yuv420p",
    ("gif", "gif"): "rgb8",
}


def encode(path, pictures, codec="mpeg4", pixels="yuv420p", times=None):
    """Writes pictures uint8 [T, H, W, 3] at 10 a second, or at these times in tenths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], video_tenths()
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def video_tenths():
    from fractions import Fraction

    return Fraction(1, 10)


def ramp(count=20, height=48, width=64):
    """Frame i is grey of brightness 12·i."""
    shades = (np.arange(count) * 12).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3)).copy()


def numbers(clips, step=12):
    """Which frames of a ramp these are: [views, T]."""
    return (clips.float().mean(dim=(1, 3, 4)) / step).round().long().tolist()


def installed(codec):
    if codec not in av.codecs_available:
        pytest.skip(f"this build of PyAV has no {codec}")


# ---- which frames


@pytest.mark.parametrize("ending, codec", KINDS)
def test_frames_are_taken_evenly_from_every_kind_of_file(ending, codec, tmp_path):
    installed(codec)
    path = encode(tmp_path / f"a.{ending}", ramp(), codec, KINDS[ending, codec])
    clips = load_clip(path, frames=10, size=16)
    assert clips.shape == (1, 3, 10, 16, 16) and clips.dtype == torch.uint8
    assert numbers(clips) == [[1, 3, 5, 7, 9, 11, 13, 15, 17, 19]]


def test_views_take_turns(tmp_path):
    path = encode(tmp_path / "a.mp4", ramp())
    assert numbers(load_clip(path, frames=5, size=16, views=2)) == [[1, 5, 9, 13, 17], [3, 7, 11, 15, 19]]


def test_dense_frames_are_neighbours_and_views_spread(tmp_path):
    path = encode(tmp_path / "a.mp4", ramp())
    assert numbers(load_clip(path, frames=4, size=16, step=1)) == [[8, 9, 10, 11]]
    assert numbers(load_clip(path, frames=4, size=16, step=2)) == [[6, 8, 10, 12]]
    first, second = numbers(load_clip(path, frames=4, size=16, step=1, views=2))
    assert first == [5, 6, 7, 8] and second == [11, 12, 13, 14]


def test_a_variable_rate_is_read_by_time(tmp_path):
    """Frame 2 is shown for seven tenths of a second: half of the eight moments that are asked for."""
    path = encode(tmp_path / "a.mkv", ramp(6), "ffv1", times=[0, 1, 2, 9, 10, 11])
    assert numbers(load_clip(path, frames=12, size=16)) == [[0, 1, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5]]


def test_fewer_frames_than_asked_for_are_shown_longer(tmp_path):
    path = encode(tmp_path / "a.mp4", ramp(3))
    assert numbers(load_clip(path, frames=6, size=16)) == [[0, 0, 1, 1, 2, 2]]
    assert numbers(load_clip(path, frames=5, size=16, step=1)) == [[0, 1, 2, 2, 2]]


def test_a_long_file_is_never_held_in_memory(tmp_path, monkeypatch):
    """Only frames that are asked for are turned into pictures, and no more of them are kept."""
    path, turned = encode(tmp_path / "a.mp4", ramp(20).repeat(20, axis=0)), []
    square = video.square
    monkeypatch.setattr(video, "square", lambda *a: turned.append(1) or square(*a))
    load_clip(path, frames=6, size=16)
    assert len(turned) == 6


# ---- the picture


def test_colours_are_rgb_and_the_middle_is_taken(tmp_path):
    """Red on the left, green in the middle, blue on the right of a wide picture."""
    pictures = np.zeros((4, 32, 96, 3), np.uint8)
    for third in range(3):
        pictures[:, :, 32 * third : 32 * third + 32, third] = 255
    clip = load_clip(encode(tmp_path / "a.mp4", pictures), frames=2, size=32)[0, :, :, 8:24, 8:24].float()
    assert clip[1].mean() > 150 and clip[0].mean() < 60 and clip[2].mean() < 60


@pytest.mark.parametrize("height, width", [(33, 47), (47, 33), (17, 101)])
def test_odd_sizes(height, width, tmp_path):
    installed("libvpx-vp9")
    path = encode(tmp_path / "a.webm", ramp(6, height, width), "libvpx-vp9")
    clips = load_clip(path, frames=3, size=15)
    assert clips.shape == (1, 3, 3, 15, 15) and numbers(clips) == [[1, 3, 5]]


def test_a_telephone_held_upright_films_upright(tmp_path):
    """The file says by how much it is to be turned: here a quarter, clockwise, as phones write it."""
    pictures = np.zeros((4, 64, 64, 3), np.uint8)
    pictures[:, :, :32] = 255  # bright on the left, which a quarter clockwise turns to the top
    path = encode(tmp_path / "a.mp4", pictures)
    plain = load_clip(path, frames=2, size=16)[0].float()
    assert plain[..., :6].mean() > 200 and plain[..., 10:].mean() < 50
    content = path.read_bytes()
    upright, quarter = (
        struct.pack(">9i", *m)
        for m in (
            (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
            (0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30),
        )
    )
    place = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:place] + quarter + content[place + 36 :])
    turned = load_clip(path, frames=2, size=16)[0].float()
    assert turned[..., :6, :].mean() > 200 and turned[..., 10:, :].mean() < 50


# ---- faults


def make_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_faulty(path, fault):
    if fault == "empty":
        path.touch()
    elif fault == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif fault == "cut":
        content = encode(path, ramp()).read_bytes()
        path.write_bytes(content[: len(content) // 3])
    elif fault == "sound":
        make_sound(path)
    elif fault == "one frame":
        encode(path, ramp(1))
    return path


@pytest.mark.parametrize(
    "fault, says",
    [
        ("missing", "no file holiday.mp4"),
        ("empty", "holiday.mp4 is empty"),
        ("noise", "holiday.mp4 cannot be decoded"),
        ("cut", "holiday.mp4 cannot be decoded"),
        ("sound", "holiday.mp4 holds no video.*sound only"),
        ("one frame", "holiday.mp4 holds 1 frame"),
    ],
)
def test_faulty_files_are_refused_by_name(fault, says, tmp_path):
    with pytest.raises(DataError, match=says):
        load_clip(make_faulty(tmp_path / "holiday.mp4", fault), frames=4, size=16)


def test_a_file_that_breaks_off_shows_its_last_frame_on(tmp_path):
    """A recording that was interrupted, in a container that needs no index."""
    content = encode(tmp_path / "a.mkv", ramp(), "mpeg4").read_bytes()
    (tmp_path / "a.mkv").write_bytes(content[: int(len(content) * 0.7)])
    taken = numbers(load_clip(tmp_path / "a.mkv", frames=8, size=16))[0]
    assert taken == sorted(taken) and taken[0] <= 2 and 5 < taken[-1] < 19


def test_numbers_that_make_no_sense_and_a_missing_pyav_are_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="frames=0"):
        load_clip(tmp_path / "a.mp4", frames=0, size=16)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DataError, match=r"vivit-edu\[video\]"):
        load_clip(encoded_before(tmp_path), frames=2, size=16)


def encoded_before(folder):
    (folder / "a.mp4").write_bytes(b"x")
    return folder / "a.mp4"


# ---- a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Videos that brighten or darken, ten of each."""
    folder = tmp_path_factory.mktemp("videos") / "light"
    for name, way in (("brightens", 1), ("darkens", -1)):
        (folder / name).mkdir(parents=True)
        for i in range(10):
            encode(folder / name / f"{i}.mp4", ramp(12 + i, 32, 40)[::way].copy())
    (folder / "brightens" / "notes.txt").write_text("not a video")
    return folder


def test_a_folder_of_videos_is_a_data_set(folder):
    volumes = load_videos(folder, frames=8, size=16)
    assert volumes.name == "videos-light" and volumes.class_names == ("brightens", "darkens") and volumes.film
    assert volumes.train.clips.shape == (12, 3, 8, 16, 16) and len(volumes.val) == len(volumes.test) == 4
    assert "axis 3 of a clip leaves every class" in describe(volumes)
    first, last = (volumes.train.clips[:, :, t].float().mean(dim=(1, 2, 3)) for t in (0, -1))
    assert torch.equal(last < first, volumes.train.labels.bool())
    again, other = (load_videos(folder, frames=8, size=16, seed=seed) for seed in (0, 1))
    assert torch.equal(again.test.clips, volumes.test.clips) and not torch.equal(other.test.clips, volumes.test.clips)


def test_no_file_is_in_two_splits(folder, monkeypatch):
    read = []
    monkeypatch.setattr(video, "load_clip", lambda path, **_: read.append(path) or torch.zeros(1, 3, 2, 4, 4))
    load_videos(folder, frames=2, size=4)
    assert len(read) == len(set(read)) == 20


def test_given_splits_are_kept(folder, tmp_path):
    for split, start in (("train", 0), ("val", 6), ("test", 8)):
        for name in ("brightens", "darkens"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(start, {"train": 6, "val": 8, "test": 10}[split]):
                (tmp_path / split / name / f"{i}.mp4").write_bytes((folder / name / f"{i}.mp4").read_bytes())
    volumes = load_videos(tmp_path, frames=4, size=8)
    assert [len(s) for s in (volumes.train, volumes.val, volumes.test)] == [12, 4, 4]


def test_left_and_right_in_names_swap_in_the_mirror():
    assert video.sides(["turn-left", "turn-right", "wave"]).permutation == (1, 0, 2)
    assert video.sides(["Left hand", "other", "Right hand"]).permutation == (2, 1, 0)
    assert video.sides(["left", "jump"]).permutation == (0, 1)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda f: None, "no folder"),
        (lambda f: f.mkdir(), "sub-folder for each class.*none"),
        (lambda f: [(f / n).mkdir(parents=True) for n in "ab"], "holds no video file"),
        (lambda f: [((f / n).mkdir(parents=True), (f / n / "1.mp4").touch()) for n in "ab"], "three at least"),
        (
            lambda f: [((f / n).mkdir(parents=True), [(f / n / f"{i}.mp4").touch() for i in range(3)]) for n in "ab"],
            "mp4 is empty",
        ),
    ],
)
def test_folders_that_are_no_data_set_are_refused_in_words(make, says, tmp_path):
    make(tmp_path / "videos")
    with pytest.raises(DataError, match=says):
        load_videos(tmp_path / "videos", frames=4, size=8)


def test_the_command_trains_resumes_and_evaluates_on_videos(folder, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "--videos",
                str(folder),
                "--frames",
                "8",
                "--model",
                "slow_fusion",
                "--epochs",
                "1",
                "--device",
                "cpu",
                "--out",
                out,
            ]
        )
        == 0
    ), capsys.readouterr().err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["dataset"] == "videos-light" and list(metrics["options"]["clip_shape"]) == [3, 8, 28, 28]
    assert str(folder) not in json.dumps(metrics)
    assert main(["train", "--resume", "--out", out, "--device", "cpu"]) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"] == metrics["test"]
    assert main(["evaluate", out, "--device", "cpu"]) == 0
    assert main(["train", "organphantom3d", "--videos", str(folder)]) == 2
    assert "give one of them" in capsys.readouterr().err
