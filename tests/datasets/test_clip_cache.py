"""Decoded clips are kept: what is decoded, how often, and what becomes of a file that changed or is damaged."""

import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from vivit_edu import load_videos
from vivit_edu.datasets import clip_cache, video, video_splits
from vivit_edu.datasets.clip_cache import ClipRow, NoRoomError, Place, kept_clips
from vivit_edu.errors import DataError
from vivit_edu.support.devices import machine_memory
from vivit_edu.volumes import SPLITS

SHAPE = (3, 2, 4, 4)
ROW = 96  # bytes


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A folder of two classes, twelve files that need no decoder: each file's first byte is its picture."""
    monkeypatch.setenv("VIVIT_EDU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vivit_edu.datasets.video_folders.why_no_video", lambda path: None)
    for k, name in enumerate("ab"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "films" / name / f"{i}.mp4").write_bytes(bytes([10 * i + k + 1]))
    return tmp_path / "films"


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that were decoded since it was last emptied."""
    names = []

    def load_clip(path, *, frames, size, step=None):
        names.append(path.name)
        return torch.full((1, 3, frames, size, size), path.read_bytes()[0], dtype=torch.uint8)

    def load_clips(path, *, frames, size, clips, step=None):
        whole = load_clip(Path(path), frames=frames, size=size)
        return torch.cat([whole + 100 * part for part in range(clips)])

    monkeypatch.setattr(video, "load_clip", load_clip)
    monkeypatch.setattr(video, "load_clips", load_clips)
    return names


def load(source, **options):
    """The data set; that each clip is that of its file and part is checked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listed = video_splits.list_videos(source, frames=2, size=4, **options)
        volumes = load_videos(source, frames=2, size=4, **options)
    for split in SPLITS:
        expected = [(c.path.read_bytes()[0] + 100 * c.part) % 256 for c in listed.splits[split]]
        clips = getattr(volumes, split).clips
        assert clips.dtype == torch.uint8 and clips.shape[1:] == SHAPE and clips.is_contiguous()
        assert clips.flatten(1).tolist() == [[shade] * ROW for shade in expected]
        assert getattr(volumes, split).labels.tolist() == [c.label for c in listed.splits[split]]
    return volumes


def stores(tmp_path):
    return sorted((tmp_path / "cache").glob("*"))


def test_a_second_time_nothing_is_decoded(source, decoded, tmp_path, capsys):
    first = load(source)
    assert (
        len(decoded) == len(set(decoded)) * 2 == 12
        and "12 clips decoded, 0 taken from before" in capsys.readouterr().err
    )
    decoded.clear()
    again = load(source)
    assert not decoded and again.files == first.files and len(stores(tmp_path)) == 1
    assert "0 clips decoded, 12 taken from before" in capsys.readouterr().err


def test_another_seed_and_another_division_decode_nothing_that_is_there(source, decoded, tmp_path):
    load(source)
    decoded.clear()
    load(source, seed=1)
    load(source, seed=2)
    assert not decoded and len(stores(tmp_path)) == 1  # the files of other orders are not left lying about
    load(source, clips=2)
    assert len(decoded) == 12
    load(source, seed=1)
    assert len(decoded) == 12 and len(stores(tmp_path)) == 2  # clips of half a file are not those of a whole one


def test_other_frames_sizes_and_steps_are_kept_side_by_side(source, decoded, tmp_path):
    for options in ({"frames": 2, "size": 4}, {"frames": 3, "size": 4}, {"frames": 2, "size": 8}) * 2:
        load_videos(source, **options)
    load_videos(source, frames=2, size=4, step=2)
    assert len(decoded) == 4 * 12 and len(stores(tmp_path)) == 4


def test_only_what_is_new_or_changed_is_decoded(source, decoded):
    load(source)
    decoded.clear()
    (source / "b" / "9.mp4").write_bytes(b"\x77")
    load(source)
    assert decoded == ["9.mp4"]
    decoded.clear()
    changed = source / "a" / "3.mp4"
    before = changed.stat()
    changed.write_bytes(b"\x55")  # of the same length
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    load(source)
    assert decoded == ["3.mp4"]
    (source / "b" / "0.mp4").unlink()
    load(source)
    assert decoded == ["3.mp4"]


def test_two_folders_of_one_name_do_not_share_clips(source, decoded, tmp_path):
    load(source)
    other = shutil.copytree(source, tmp_path / "other" / "films")  # same names, sizes and times
    for path in other.glob("*/*.mp4"):
        stat = path.stat()
        path.write_bytes(bytes([path.read_bytes()[0] + 100]))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    load(other)
    load(source)
    assert len(decoded) == 24


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "a byte of a row":
        content[5 * ROW + 7] ^= 1
    elif how == "cut in the rows":
        del content[3 * ROW :]
    elif how == "cut in the index":
        del content[-40:]
    elif how == "a byte of the index":
        content[12 * ROW + 3] ^= 255
    elif how == "an index of something else":
        content[12 * ROW :] = b'{"a": 1}' + (8).to_bytes(8, "little") + clip_cache.END_MARK
    elif how == "a length that leads out of it":
        content[-len(clip_cache.END_MARK) - 8 :] = (2**60).to_bytes(8, "little") + clip_cache.END_MARK
    elif how == "empty":
        content.clear()
    path.write_bytes(content)


DAMAGES = {"a byte of a row": 1, "cut in the rows": 12, "cut in the index": 12, "a byte of the index": 12, "empty": 12}
DAMAGES |= {"an index of something else": 12, "a length that leads out of it": 12}


@pytest.mark.parametrize("how", DAMAGES)
def test_what_is_damaged_is_decoded_again(how, source, decoded, tmp_path):
    load(source)
    decoded.clear()
    (store,) = stores(tmp_path)
    damage(store, how)
    load(source)
    assert len(decoded) == DAMAGES[how]
    decoded.clear()
    load(source)
    assert not decoded and stores(tmp_path) == [store]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("broken")])
def test_what_was_decoded_before_it_stopped_is_not_lost(error, source, decoded, tmp_path, monkeypatch):
    good = video.load_clip

    def stops(path, **options):
        if len(decoded) == 7:
            raise error
        return good(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(video, "load_clip", stops)
        with pytest.raises((KeyboardInterrupt, DataError)):
            load_videos(source, frames=2, size=4)
    assert len(decoded) == 7 and len(stores(tmp_path)) == 1
    load(source)
    assert len(decoded) == 12


def test_a_file_that_changes_while_it_is_read_is_not_kept(source, decoded, monkeypatch):
    good = video.load_clip

    def changes(path, **options):
        clip = good(path, **options)
        path.write_bytes(b"longer")
        return clip

    monkeypatch.setattr(video, "load_clip", changes)
    with pytest.raises(DataError, match="was changed while it was read"):
        load_videos(source, frames=2, size=4)


def test_without_room_or_right_clips_are_held_in_memory_if_they_fit(source, decoded, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="are not kept .*the next run decodes them again"):
        volumes = load_videos(source, frames=2, size=4)
    assert len(decoded) == 12 and sorted(volumes.train.clips[:, 0, 0, 0, 0].tolist()) == sorted(
        int(path.read_bytes()[0])
        for path in (source / name for name, told in volumes.files.items() if told[:2] == "tr")
    )
    monkeypatch.setattr(video, "usable_memory", lambda: 2000)
    with pytest.raises(DataError, match="GiB of memory.*cannot be kept.*VIVIT_EDU_CACHE"):
        load_videos(source, frames=2, size=4)
    (tmp_path / "cache").unlink()
    load_videos(source, frames=2, size=4)  # mapped, not held

    def full(folder, needed):
        assert needed == 12 * ROW
        raise DataError("its disk has 0 MiB free")

    shutil.rmtree(tmp_path / "cache")
    monkeypatch.setattr(clip_cache, "check_space", full)
    with pytest.raises(DataError, match="its disk has 0 MiB free"):
        load_videos(source, frames=2, size=4)
    assert not (tmp_path / "cache").exists()


def test_what_a_killed_run_left_half_written_goes_after_a_day(source, decoded, tmp_path):
    load(source)
    (store,) = stores(tmp_path)
    old, new = (store.with_name(f".{store.name}.{name}.part") for name in ("old", "new"))
    of_another = store.with_name(".0123456789abcdef-0123456789abcdef.clips.x.part")
    for part in (old, new, of_another):
        part.write_bytes(b"half")
    for part in (old, of_another):
        os.utime(part, (1, 1))
    load(source)
    assert set(stores(tmp_path)) == {store, new, of_another}  # the new one may still be written to


def test_nothing_is_kept_where_that_is_not_wanted(source, decoded, tmp_path):
    first, second = (load_videos(source, frames=2, size=4, cache=cache) for cache in (False, True))
    assert torch.equal(first.train.clips, second.train.clips) and first.files == second.files
    assert len(decoded) == 24
    load_videos(source, frames=2, size=4, cache=False)
    assert len(decoded) == 36


def test_clips_are_mapped_and_not_held(source, decoded, tmp_path):
    """They lie in the file; what is changed in them stays in this process."""
    volumes = load(source)
    (store,) = stores(tmp_path)
    with open("/proc/self/maps") if os.path.exists("/proc/self/maps") else pytest.skip("needs /proc") as maps:
        assert any(str(store) in line for line in maps)
    before = store.read_bytes()
    volumes.train.clips.zero_()
    assert store.read_bytes() == before


def test_a_file_that_is_larger_than_the_memory_is_mapped(tmp_path):
    """A sparse file, which takes no room on the disk."""
    size, rows = ROW << 20, 2 * machine_memory() // (ROW << 20)
    try:
        with open(tmp_path / "x", "wb") as file:
            file.truncate(rows * size)
            file.seek((rows - 1) * size)
            file.write(b"\7")
    except OSError:
        pytest.skip("this disk has no sparse files")
    clips = torch.from_numpy(clip_cache.mapped(tmp_path / "x", (rows, size)))
    assert clips[[0, rows - 1], 0].tolist() == [0, 7]
    clips[0, 0] = 1
    assert (tmp_path / "x").open("rb").read(1) == b"\0" and clips[0, 0] == 1
    with pytest.raises(NoRoomError, match="cannot be mapped"):
        clip_cache.mapped(tmp_path / "x", (2**62,))


def test_two_that_fill_the_same_file_do_not_disturb_each_other(source, decoded, tmp_path, monkeypatch):
    """While one decodes, another one begins and ends."""
    good, inner = video.load_clip, []

    def also(path, **options):
        if not inner:
            inner.append(1)
            inner.append(load(source))
        return good(path, **options)

    monkeypatch.setattr(video, "load_clip", also)
    outer = load(source)
    assert torch.equal(outer.train.clips, inner[1].train.clips) and len(stores(tmp_path)) == 1


def test_rows_of_one_file_may_lie_apart(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")
    rows = [ClipRow.of(path, part, 3) for part in (2, 0, 1)]
    calls = []

    def decode(name, parts):
        calls.append((name, parts))
        return np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1, 1).repeat(3, 1)

    clips, hashes, fresh = kept_clips(rows, Place("x", (3, 1, 1, 1), tmp_path / "c"), decode, lambda count: None)
    assert clips[:, 0, 0, 0, 0].tolist() == [2, 0, 1] and len(set(hashes)) == 1 and fresh == 3 and len(calls) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRoomError):
        kept_clips(rows, Place("x", (3, 1, 1, 1), tmp_path / "file" / "c"), decode, lambda count: None)
