"""Real video files of several kinds, encoded here: which frames are taken, faults by name, training on a folder."""

import gc
import json
import os
import struct
import sys
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.damage import NO_FILES, no_file
from vivit_edu import load_clip, load_videos
from vivit_edu.cli import main
from vivit_edu.datasets import decoding, video, video_folders
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


def encode(path, pictures, codec="mpeg4", pixels="yuv420p", times=None, options=None, aspect=None, tags=None):
    """Writes pictures uint8 [T, H, W, 3 or 4] at 10 a second, or at these times in tenths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        container.metadata.update(tags or {})
        stream.metadata.update({"comment": "of the stream"} if tags else {})
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        if codec in ("mpeg4", "mpeg2video"):
            stream.bit_rate = 4_000_000
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba" if picture.shape[-1] == 4 else "rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], Fraction(1, 10)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


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
    square = decoding.square
    monkeypatch.setattr(decoding, "square", lambda *a: turned.append(1) or square(*a))
    load_clip(path, frames=6, size=16)
    assert len(turned) == 6


# ---- the picture


def test_decoded_frames_are_freed_at_once(tmp_path):
    """PyAV ties a frame whose side data are looked at into a cycle: of 4K videos the frames would fill gigabytes before
    Python looks for cycles."""
    path = encode(tmp_path / "a.mp4", ramp(20))
    load_clip(path, frames=16, size=32)
    gc.collect()
    gc.disable()
    try:
        load_clip(path, frames=16, size=32)
        assert sum(type(thing) is av.VideoFrame for thing in gc.get_objects()) <= 1
    finally:
        gc.enable()


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


UPRIGHT = (1, 0, 0, 1)


def with_matrix(path, matrix):
    """Writes into an mp4 file how its picture is to be shown: a, b, c, d, as phones do."""
    content = path.read_bytes()
    old, new = (
        struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30) for a, b, c, d in (UPRIGHT, matrix)
    )
    place = content.index(old, content.index(b"tkhd"))
    path.write_bytes(content[:place] + new + content[place + 36 :])
    return path


@pytest.mark.parametrize(
    "matrix, expected",
    [
        (UPRIGHT, [[1, 2], [3, 4]]),
        ((0, 1, -1, 0), [[3, 1], [4, 2]]),  # a quarter turn clockwise
        ((-1, 0, 0, -1), [[4, 3], [2, 1]]),
        ((0, -1, 1, 0), [[2, 4], [1, 3]]),
        ((-1, 0, 0, 1), [[2, 1], [4, 3]]),  # a front camera: left and right swapped
        ((1, 0, 0, -1), [[3, 4], [1, 2]]),
        ((0, 1, 1, 0), [[1, 3], [2, 4]]),  # mirrored and turned
        ((0, -1, -1, 0), [[4, 2], [3, 1]]),
    ],
)
def test_pictures_are_shown_as_the_display_matrix_says(matrix, expected, tmp_path):
    """Four quarters of different brightness, 50 to 200, in a wide picture whose middle square is shown."""
    quarters = np.repeat(np.repeat(np.array([[1, 2], [3, 4]], np.uint8) * 50, 32, axis=0), 48, axis=1)
    path = with_matrix(
        encode(tmp_path / "a.mp4", np.broadcast_to(quarters[None, ..., None], (4, 64, 96, 3)).copy()), matrix
    )
    shown = load_clip(path, frames=2, size=16)[0, 0, 0].float()
    corners = [[shown[i : i + 4, j : j + 4].mean().item() / 50 for j in (2, 10)] for i in (2, 10)]
    assert np.round(corners).astype(int).tolist() == expected


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("aspect, width", [(Fraction(2), 48), (Fraction(1, 2), 192), (Fraction(0), 96)])
def test_pixels_that_are_not_square_leave_a_disc_a_disc(ending, aspect, width, tmp_path):
    rows, columns = np.mgrid[:96, :width]
    disc = ((rows - 48) ** 2 + ((columns - width / 2 + 0.5) * 96 / width) ** 2 < 30**2).astype(np.uint8) * 255
    path = encode(
        tmp_path / f"a.{ending}", np.broadcast_to(disc[None, ..., None], (4, 96, width, 3)).copy(), aspect=aspect
    )
    shown = load_clip(path, frames=2, size=48)[0, 0, 0] > 128
    tall, wide = shown.any(dim=1).sum().item(), shown.any(dim=0).sum().item()
    assert abs(tall - 30) <= 2 and abs(wide - 30) <= 2


@pytest.mark.parametrize(
    "ending, codec, pixels",
    [
        ("mov", "qtrle", "argb"),
        ("mov", "png", "rgba"),
        ("mov", "prores_ks", "yuva444p10le"),
        ("webm", "libvpx-vp9", "yuva420p"),
        ("mkv", "ffv1", "yuva420p"),
    ],
)
def test_transparent_pixels_are_grey_and_a_warning_says_so(ending, codec, pixels, tmp_path):
    """A black square that moves, drawn in the channel of transparency alone."""
    installed(codec)
    pictures = np.zeros((4, 64, 64, 4), np.uint8)
    for i in range(4):
        pictures[i, 16:48, 8 * i : 8 * i + 32, 3] = 255
    path = encode(tmp_path / f"a.{ending}", pictures, codec, pixels)
    with pytest.warns(UserWarning, match=f"a.{ending} has transparent pixels") as noted:
        clip = load_clip(path, frames=4, size=32)[0].float()
    assert len(noted) == 1
    assert (clip[:, :, :6].mean() - 128).abs() < 12 and (clip[:, :, 26:].mean() - 128).abs() < 12
    assert all(clip[:, i, 10:22, 4 * i + 2 : 4 * i + 14].mean() < 30 for i in range(4))


def test_a_picture_without_a_transparent_pixel_is_not_warned_about(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solid = np.concatenate([ramp(4), np.full((4, 48, 64, 1), 255, np.uint8)], axis=-1)
        assert numbers(load_clip(encode(tmp_path / "a.mov", solid, "qtrle", "argb"), frames=4, size=16)) == [
            [0, 1, 2, 3]
        ]
        gif = encode(tmp_path / "a.gif", ramp(4), "gif", "rgb8")
        assert numbers(load_clip(gif, frames=4, size=16)) == [[0, 1, 2, 3]]


# ---- time stamps, tracks, tags, names


BACKWARDS = [
    ("avi", "libx264", {"bf": "3"}),
    ("avi", "libx264", {"bf": "1", "g": "7"}),
    ("avi", "mpeg4", {"bf": "2"}),
    ("mkv", "libx264", {"bf": "3"}),
    ("flv", "libx264", {"bf": "3"}),
    ("mpg", "libx264", {"bf": "3"}),
    ("mpg", "mpeg2video", {"bf": "2"}),
]


@pytest.mark.parametrize("ending, codec, options", BACKWARDS)
def test_frames_that_are_stored_in_another_order_are_each_shown_once(ending, codec, options, tmp_path):
    installed(codec)
    shades = np.broadcast_to((np.arange(40) * 6).astype(np.uint8)[:, None, None, None], (40, 48, 64, 3)).copy()
    path = encode(tmp_path / f"a.{ending}", shades, codec, options=options)
    assert numbers(load_clip(path, frames=40, size=16), step=6) == [list(range(40))]
    assert numbers(load_clip(path, frames=5, size=16, step=2), step=6) == [[16, 18, 20, 22, 24]]
    assert numbers(load_clip(path, frames=10, size=16, views=2), step=6) == [
        list(range(1, 40, 4)),
        list(range(3, 40, 4)),
    ]


def test_time_stamps_that_go_backwards_are_not_believed(tmp_path, monkeypatch):
    """Also where the file does not show beforehand that its frames are reordered."""
    path = encode(tmp_path / "a.avi", ramp(), "libx264", options={"bf": "3"})
    find = decoding.find_frames
    monkeypatch.setattr(decoding, "find_frames", lambda *a: (*find(*a)[:2], False))
    assert numbers(load_clip(path, frames=20, size=16)) == [list(range(20))]


def encode_two(path, first, second, cover=False):
    """A file with two video tracks; the first may be marked as a cover."""
    with av.open(str(path), "w") as container:
        tracks = []
        for pictures, codec in ((first, "mjpeg" if len(first) == 1 else "mpeg4"), (second, "mpeg4")):
            stream = container.add_stream(codec, rate=10)
            stream.height, stream.width = pictures.shape[1:3]
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            tracks.append((stream, pictures))
        if cover:
            tracks[0][0].disposition = av.stream.Disposition.attached_pic.value
        for stream, pictures in tracks:
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("ending, cover", [("mp4", False), ("mkv", False), ("mov", False), ("mp4", True)])
def test_a_still_picture_in_front_is_not_the_video(ending, cover, tmp_path):
    still = np.full((1, 96, 128, 3), 240, np.uint8)
    path = encode_two(tmp_path / f"a.{ending}", still, ramp(), cover)
    assert numbers(load_clip(path, frames=10, size=16)) == [[1, 3, 5, 7, 9, 11, 13, 15, 17, 19]]


def test_of_two_films_of_one_length_the_larger_is_taken(tmp_path):
    path = encode_two(tmp_path / "a.mp4", 255 - ramp(10, 32, 32), ramp(10, 64, 64))
    assert numbers(load_clip(path, frames=10, size=16)) == [list(range(10))]


@pytest.mark.parametrize("tag", [b"ABCDEFGH", b"of the stream"])
@pytest.mark.parametrize("bad", [b"\xff\xfe", b"\xe9t", b"\xc3\x28", b"\xed\xa0"])
def test_tags_that_are_not_utf_8_do_not_matter(tag, bad, tmp_path):
    path = encode(tmp_path / "a.mkv", ramp(), tags={"title": "ABCDEFGH"})
    content = path.read_bytes()
    assert content.count(tag) == 1
    path.write_bytes(content.replace(tag, bad + tag[2:]))
    assert numbers(load_clip(path, frames=5, size=16)) == [[2, 6, 10, 14, 18]]


@pytest.mark.parametrize("knows", ["metadata_encoding", "metadata_errors", None])
def test_every_version_of_pyav_is_asked_in_a_way_it_knows(knows, tmp_path, monkeypatch):
    """Stand-ins for versions in which only one of the two arguments helps, or neither is known."""
    path, real = encode(tmp_path / "a.mp4", ramp()), av.open

    def stand_in(name, **arguments):
        if knows is None and arguments:
            raise TypeError(f"open() got an unexpected keyword argument {min(arguments)!r}")
        if knows and knows not in arguments:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return real(name)

    monkeypatch.setattr(av, "open", stand_in)
    assert load_clip(path, frames=2, size=8).shape == (1, 3, 2, 8, 8)


def test_what_pyav_cannot_read_as_text_is_told_with_the_file(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    path = encode(tmp_path / "a.mp4", ramp())
    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(DataError, match="a.mp4 cannot be decoded"):
        load_clip(path, frames=2, size=8)


NAMES = [
    "cam1:02.mp4",
    "-x.mp4",
    "http:a.mp4",
    "concat:a.mp4",
    "data:a.mp4",
    "pipe:0.mp4",
    "%03d.mp4",
    "a b#?&.mp4",
    "ä.mp4",
]


@pytest.mark.skipif(os.name == "nt", reason="Windows does not allow these names")
@pytest.mark.parametrize("name", NAMES)
def test_names_are_names_of_files_and_not_addresses(name, tmp_path, monkeypatch):
    encode(tmp_path / "a.mp4", ramp()).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers(load_clip(name, frames=5, size=16)) == [[2, 6, 10, 14, 18]]


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
    for name, value in (("frames", 0), ("frames", 1.5), ("size", "16"), ("size", -1), ("views", True), ("step", 2.0)):
        with pytest.raises(ConfigError, match=f"{name} must be"):
            load_clip(tmp_path / "a.mp4", **{"frames": 4, "size": 16} | {name: value})
    for name, value in (("frames", 999_999), ("size", 100_000), ("views", 10**7)):
        with pytest.raises(ConfigError, match="GiB, and at most 1 GiB"):
            load_clip(tmp_path / "a.mp4", **{"frames": 500, "size": 28} | {name: value})
    with pytest.raises(ConfigError, match="path of a video file, got None"):
        load_clip(None, frames=4, size=16)
    for nothing in ("", " "):  # a variable that was never set is not the folder one works in
        with pytest.raises(ConfigError, match="path of a video file, got"):
            load_clip(nothing, frames=4, size=16)
        with pytest.raises(ConfigError, match="path of a folder of videos, got"):
            load_videos(nothing, frames=4, size=16)
    (tmp_path / "lfs.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match="lfs.mp4 is no video: it is a Git LFS pointer"):
        load_clip(tmp_path / "lfs.mp4", frames=4, size=16)
    with pytest.raises(DataError, match="is a folder"):
        load_clip(tmp_path, frames=4, size=16)
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


def test_what_a_mac_and_windows_leave_behind_is_neither_a_class_nor_a_file(folder, tmp_path):
    copied(folder, tmp_path / "v")
    for place in (tmp_path / "v", tmp_path / "v" / "darkens"):
        for name in (".DS_Store", "._1.mp4", "Thumbs.db", "desktop.ini", "Icon\r"):
            (place / name).write_bytes(b"rubbish")
        for name in ("__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle", "@eaDir"):
            (place / name).mkdir()
            (place / name / "1.mp4").write_bytes(b"rubbish")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = video.list_videos(tmp_path / "v", frames=2, size=8)
    assert files.class_names == ("brightens", "darkens") and files.left_out == {}
    assert {split: len(items) for split, items in files.splits.items()} == {"train": 6, "val": 2, "test": 2}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
def test_what_is_no_file_is_called_what_it_is(kind, words, folder, tmp_path):
    place = copied(folder, tmp_path / "v", 3)
    path = no_file(kind, place / "darkens" / "x.mp4")
    with pytest.raises(DataError, match=f"x.mp4 is {words}, not a file"):
        load_clip(path, frames=2, size=8)
    if kind != "folder":
        with pytest.raises(DataError, match=f"x.mp4 is {words}, not a file"):
            video.list_videos(place, frames=2, size=8)
        path.rename(path.with_suffix(".of-another-kind"))  # and is left out under a name that is no video's
        with pytest.warns(UserWarning, match="6 of 7 files are used. Left out: 1 .of-another-kind: no video"):
            video.list_videos(place, frames=2, size=8)
        with pytest.raises(DataError, match=f"l.csv is {words}"):
            video.list_videos(no_file(kind, tmp_path / "l.csv"), frames=2, size=8)
        with pytest.raises(DataError, match=f"l.csv is {words}"):
            video.list_videos(place, frames=2, size=8, val=tmp_path / "l.csv")


def test_a_folder_that_links_back_is_entered_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    (tmp_path / "a" / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "a" / "again").symlink_to(".", target_is_directory=True)
    assert video_folders.files_in(tmp_path) == [tmp_path / "a" / "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs names that are not UTF-8")
def test_names_that_are_not_utf_8_are_written_out(folder, tmp_path):
    """As from an old archive: no figure takes them, nor a file of JSON in UTF-8."""
    place = copied(folder, tmp_path / os.fsdecode(b"caf\xe9"), 3)
    (place / "darkens").rename(place / os.fsdecode(b"d\xe4rkens"))
    volumes = load_videos(place, frames=2, size=8)
    assert volumes.class_names == ("brightens", r"d\udce4rkens") and volumes.name == r"videos-caf\udce9"


def copied(folder, to, count=5):
    for name in ("brightens", "darkens"):
        (to / name).mkdir(parents=True)
        for i in range(count):
            (to / name / f"{i}.mp4").write_bytes((folder / name / f"{i}.mp4").read_bytes())
    return to


def test_what_pyav_reads_is_used_and_the_rest_is_counted_with_its_reason(folder, tmp_path):
    """Other endings, none, capitals and deeper folders are read; pictures, texts, sound and stray files are not."""
    place = copied(folder, tmp_path / "v", 3)
    (place / "darkens" / "2024" / "may").mkdir(parents=True)
    film = (folder / "darkens" / "0.mp4").read_bytes()
    (place / "darkens" / "2024" / "may" / "a.MP4").write_bytes(film)
    (place / "darkens" / "clip").write_bytes(film)
    encode(place / "darkens" / "b.wmv", ramp(), "wmv2")
    encode(place / "darkens" / "c.flv", ramp(), "flv")
    encode(place / "darkens" / "d.ts", ramp(), "mpeg2video")
    encode(place / "darkens" / "e.nut", ramp(), "mpeg4")
    for name in ("x.jpg", "y.jpg", "notes.txt", "table.bin"):
        (place / "brightens" / name).write_bytes(b"something else")
    make_sound(place / "brightens" / "s.m4a")
    (place / "stray.mp4").write_bytes(film)
    with pytest.warns(UserWarning) as noted:
        volumes = load_videos(place, frames=4, size=8)
    (said,) = (str(w.message) for w in noted if "files are used" in str(w.message))
    assert said == (
        "videos-v: 12 of 18 files are used. Left out: 1 .bin: no video, 2 .jpg: a picture, 1 .m4a: no video, "
        "1 .mp4: in no folder of a class, 1 .txt: text."
    )
    labels = torch.cat([split.labels for split in (volumes.train, volumes.val, volumes.test)])
    assert labels.bincount().tolist() == [3, 9]


def test_a_class_of_pictures_says_what_is_there_instead(folder, tmp_path):
    place = copied(folder, tmp_path / "v", 3)
    (place / "frames").mkdir()
    for i in range(4):
        (place / "frames" / f"{i}.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match=r"frames holds no video file \(left out: 4 .jpg: a picture\)"):
        load_videos(place, frames=4, size=8)


def test_a_list_names_faults_without_decoding_a_frame(folder, tmp_path, monkeypatch):
    place = copied(folder, tmp_path / "v")
    monkeypatch.setattr(video, "load_clip", None)
    monkeypatch.setattr(decoding, "decoded", None)
    files = video.list_videos(place, frames=4, size=8, seed=3)
    assert files.name == "videos-v" and [len(files.splits[s]) for s in ("train", "val", "test")] == [6, 2, 2]
    for fault, says in (("empty", "bad.wmv is empty"), ("noise", "bad.wmv cannot be decoded"), ("sound", None)):
        bad = place / "darkens" / ("bad.mp4" if fault == "sound" else "bad.wmv")
        make_faulty(bad, fault)
        with pytest.raises(DataError, match=says or "bad.mp4 holds no video"):
            video.list_videos(place, frames=4, size=8)
        bad.unlink()
    with pytest.raises(ConfigError, match="frames must be"):
        video.list_videos(place, frames=1.5, size=8)


def test_a_list_is_what_is_read(folder, tmp_path):
    place = copied(folder, tmp_path / "v", 4)
    listed = video.read_videos(video.list_videos(place, frames=4, size=8, seed=5), 4, 8)
    loaded = load_videos(place, frames=4, size=8, seed=5)
    assert torch.equal(listed.train.clips, loaded.train.clips) and torch.equal(listed.test.labels, loaded.test.labels)


def test_a_folder_that_links_to_itself_is_entered_once(folder, tmp_path):
    place = copied(folder, tmp_path / "v", 3)
    try:
        (place / "darkens" / "again").symlink_to(place / "darkens", target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")
    assert sum(map(len, video.list_videos(place, frames=4, size=8).splits.values())) == 6


def test_left_and_right_in_names_swap_in_the_mirror():
    assert video.sides(["turn-left", "turn-right", "wave"]).permutation == (1, 0, 2)
    assert video.sides(["Left hand", "other", "Right hand"]).permutation == (2, 1, 0)
    assert video.sides(["left", "jump"]).permutation == (0, 1)
    # names that differ in capitals or dashes only: which of them would the other side be?
    assert video.sides(["A", "a"]).permutation == (0, 1)
    assert video.sides(["a ", "a", "turn  left", "turn left", "b\tleft", "b right"]).permutation == (0, 1, 2, 3, 5, 4)
    assert video.sides(["Turn left", "turn right", "turn-left"]).permutation == (0, 1, 2)


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda f: None, "not a folder"),
        (lambda f: f.mkdir(), "sub-folder for each class.*none"),
        (lambda f: [(f / n).mkdir(parents=True) for n in ("train", "test", "a")], "test, train: name the splits"),
        (lambda f: [(f / n).mkdir(parents=True) for n in ("train", "validation")], "train, validation: name"),
        (lambda f: [(f / n).mkdir(parents=True) for n in "ab"], "holds no video file"),
        (lambda f: [((f / n).mkdir(parents=True), encode(f / n / "1.mp4", ramp(2))) for n in "ab"], "at least three"),
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
