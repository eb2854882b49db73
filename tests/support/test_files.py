"""Files written whole or not at all, whatever happens in between."""

import errno
import multiprocessing
import os
import threading

import pytest
import torch

from tests.damage import NO_FILES, no_file
from vivit_edu.errors import DataError
from vivit_edu.support import files
from vivit_edu.support.files import check_regular, mistaken_for, read_json, shown, what_is, written_whole
from vivit_edu.support.torch_files import write_torch


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, content):
    with written_whole(path) as file:
        file.write(content)


def test_a_file_is_written_and_written_over(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for content in (b"one", b"", b"three"):
        write(str(path), content)
        assert path.read_bytes() == content and names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError, DataError, OSError])
def test_what_goes_wrong_in_the_block_leaves_the_old_file(tmp_path, error):
    write(tmp_path / "file", b"old")
    with pytest.raises(DataError if error is OSError else error), written_whole(tmp_path / "file") as file:
        file.write(b"new")
        raise error("stop")
    assert (tmp_path / "file").read_bytes() == b"old" and names(tmp_path) == ["file"]


def test_an_error_over_another_file_is_not_told_of_this_one(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "file"):
        open(tmp_path / "another")
    assert names(tmp_path) == []


def test_nothing_is_seen_before_the_block_has_ended(tmp_path):
    with written_whole(tmp_path / "file") as file:
        file.write(b"half")
        file.flush()
        assert not (tmp_path / "file").exists() and len(names(tmp_path)) == 1
    assert names(tmp_path) == ["file"]


def test_the_bytes_and_then_the_name_are_on_the_disk(tmp_path, monkeypatch):
    """In this order: a name that is safe before its bytes would show a file of nothing after a loss of power."""
    done, fsync, replace = [], os.fsync, os.replace

    def sync(handle):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else os.fstat(handle).st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *names: done.append("named") or replace(*names))
    write(tmp_path / "file", b"12345")
    assert done == [5, "named", "folder"]


def test_a_system_that_cannot_sync_folders_writes_all_the_same(tmp_path, monkeypatch):
    def refuse(path, flags):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files.os, "open", refuse)
    write(tmp_path / "file", b"it")
    assert (tmp_path / "file").read_bytes() == b"it"


def many(path, letter):
    for _ in range(20):
        write(path, letter * 100_000)


@pytest.mark.parametrize("kind", [threading.Thread, multiprocessing.get_context("fork").Process])
def test_writers_at_once_never_mix(tmp_path, kind):
    path = tmp_path / "file"
    write(path, b"a" * 100_000)
    writers = [kind(target=many, args=(path, letter)) for letter in (b"b", b"c", b"d")]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        content = path.read_bytes()
        assert len(content) == 100_000 and len(set(content)) == 1
    for writer in writers:
        writer.join()
    assert names(tmp_path) == ["file"]


def test_a_folder_in_the_way_is_named_and_left(tmp_path):
    (tmp_path / "file" / "inside").mkdir(parents=True)
    with pytest.raises(DataError, match="file could not be written: a folder of this name is in the way"):
        write(tmp_path / "file", b"it")
    assert names(tmp_path) == ["file"] and names(tmp_path / "file") == ["inside"]


def test_a_file_where_the_folder_should_be_is_an_error_in_words(tmp_path):
    write(tmp_path / "file", b"it")
    for place in (tmp_path / "file" / "a", tmp_path / "file" / "a" / "b"):
        with pytest.raises(DataError, match="could not be written(.|\n)*or name another folder"):
            write(place, b"it")
    with pytest.raises(DataError, match="or take --out"), written_whole(place, elsewhere="take --out"):
        pass


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path):
    for name in ("x" * 255, "é" * 127):
        write(tmp_path / name, b"it")
        assert (tmp_path / name).read_bytes() == b"it"


def test_home_is_shown_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert shown(tmp_path / "a" / "b") == "~/a/b" and shown("/elsewhere/b") == "/elsewhere/b"
    assert shown(f"{tmp_path}-not/b") == f"{tmp_path}-not/b"


def test_a_file_of_nothing_known_is_mistaken_for_nothing(tmp_path):
    for content in (b"PK\x03\x04abc", b"\x00" * 2000, "<é".encode()):
        (tmp_path / "file").write_bytes(content)
        assert mistaken_for(tmp_path / "file") is None


class Disk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, room):
        self.room, self.content = room, b""

    def write(self, data):
        if len(self.content) + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content += bytes(data)
        return len(data)

    def flush(self):
        pass


@pytest.mark.parametrize("room", [0, 100, 3000])
def test_a_full_disk_is_told_as_one_by_torch_too(room):
    with pytest.raises(OSError, match="No space left"):
        write_torch({"weight": torch.zeros(1000)}, Disk(room))


def test_what_torch_cannot_save_is_not_told_as_a_full_disk():
    with pytest.raises(Exception, match="pickle"):
        write_torch(lambda: None, Disk(10**6))


posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")


@posix
@pytest.mark.parametrize("kind, words", NO_FILES.items())
def test_what_is_no_file_is_called_what_it_is_before_it_is_opened(kind, words, tmp_path):
    path = no_file(kind, tmp_path / "it")
    assert what_is(path) == words
    with pytest.raises(DataError, match=f"it is {words}, not a file"):
        check_regular(path)
    with pytest.raises(DataError, match=f"it is {words}, not a file"):
        read_json(path)
    if kind != "folder":  # neither made nor written to, and what is in the way is named
        with pytest.raises(DataError, match=rf"the folder cannot be written to \(.*it is {words}\)"):
            write(path / "below" / "file", b"")


def test_a_file_is_one_and_nothing_is_nothing(tmp_path):
    write(tmp_path / "file", b"12345")
    (tmp_path / "link").symlink_to("file")
    assert what_is(tmp_path / "link") == "a file" and check_regular(tmp_path / "link", 5) == 5
    with pytest.raises(DataError, match="link has 5 bytes; of such a file at most 4 are read"):
        check_regular(tmp_path / "link", 4)
    for name in ("nothing", "file/below", "with\0byte", "x" * 300):
        with pytest.raises(OSError):
            check_regular(tmp_path / name)


@pytest.mark.parametrize("text", [b'{"error": "no"}', b"Entry not found", b"[1]\r\n", b"  \n0.5\t0.5"])
def test_a_text_in_the_place_of_numbers_is_shown(text, tmp_path):
    (tmp_path / "file").write_bytes(text)
    assert mistaken_for(tmp_path / "file", binary=True) == f"a text, which begins with {text.strip().decode()!r}"
    assert mistaken_for(tmp_path / "file") is None
    (tmp_path / "file").write_bytes(text + b"\0")
    assert mistaken_for(tmp_path / "file", binary=True) is None
