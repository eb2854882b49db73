"""One process at a time writes to a place; the others are told who it is. With the locks of POSIX and of Windows."""

import errno
import multiprocessing
import os
import signal
import struct
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from vivit_edu.errors import CheckpointError, ConfigError
from vivit_edu.support import locks
from vivit_edu.support.locks import IN_FOLDER, alone, alone_in, check_alone

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, as POSIX has it")
FORK = multiprocessing.get_context("fork") if hasattr(os, "fork") else None


def windows_locking(number, mode, size):
    """`msvcrt.locking` by a lock of Linux that, like it, is of bytes from the file's place on, and of an open file."""
    import fcntl

    assert mode == WINDOWS.LK_NBLCK
    begin = os.lseek(number, 0, os.SEEK_CUR)
    assert begin > os.fstat(number).st_size + 1000, "nobody else could read these bytes"
    flock = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, begin, size, 0)
    try:
        fcntl.fcntl(number, fcntl.F_OFD_SETLK, flock)
    except BlockingIOError:
        raise PermissionError(errno.EACCES, "Permission denied") from None  # as Windows calls it


@contextmanager
def guarded():
    """Within it no other process of these tests opens or removes a file."""
    import fcntl

    with open(Path(tempfile.gettempdir()) / f"guard-{os.getpgid(0)}", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def windows_open(path, mode):
    """`open`, at no time at which a file is removed."""
    with guarded():
        return open(path, mode)


def opened(path):
    """Whether a process of these tests has a file open."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.getpgid(int(process)) == os.getpgid(0):
                for number in os.listdir(f"/proc/{process}/fd"):
                    with suppress(OSError):
                        if os.path.samestat(os.stat(f"/proc/{process}/fd/{number}"), os.stat(path)):
                            return True
    return False


def windows_unlink(path, missing_ok=False, inner=Path.unlink):
    """`Path.unlink` for which, as on Windows, a file that somebody has open cannot be removed."""
    with guarded():
        if opened(path):
            raise PermissionError(errno.EACCES, "The process cannot access the file", str(path))
        inner(path, missing_ok)


WINDOWS = SimpleNamespace(LK_NBLCK=2, locking=windows_locking)


@pytest.fixture(params=["as here", "as on Windows"], autouse=True)
def system(request, monkeypatch):
    """Each test with this system's locks, and, on Linux, with those that Windows would use."""
    if request.param == "as on Windows":
        if sys.platform != "linux":
            pytest.skip("the stand-in for Windows needs the locks of Linux")
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setitem(sys.modules, "msvcrt", WINDOWS)
        monkeypatch.setattr(Path, "unlink", windows_unlink)
        monkeypatch.setattr(locks, "open", windows_open, raising=False)
    return request.param


def hold(folder, pipe):
    """Holds the lock of a folder until it is told to end."""
    try:
        with alone_in(folder):
            pipe.send("mine")
            pipe.recv()
    except ConfigError as error:
        pipe.send(str(error))


def other(folder):
    """(process, our end of its pipe, what it said first)."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, theirs))
    process.start()
    assert ours.poll(30)
    return process, ours, ours.recv()


@fork
def test_a_second_process_is_told_who_the_first_one_is(tmp_path):
    first, pipe, said = other(tmp_path / "run")
    assert said == "mine"
    with pytest.raises(ConfigError, match=rf"process {first.pid} on .* since 20.* is writing to .*run: wait"):
        with alone_in(tmp_path / "run"):
            pytest.fail("both are in it")
    second, _, said = other(tmp_path / "run")
    assert f"process {first.pid}" in said
    pipe.send("end")
    first.join(), second.join()
    with alone_in(tmp_path / "run"):
        third, _, said = other(tmp_path / "run")
        assert f"process {os.getpid()}" in said  # a copy of this process is another one
        third.join()  # which, by the fork, had the file open as well
    assert not list((tmp_path / "run").iterdir())


@fork
def test_a_process_that_was_killed_holds_nothing(tmp_path):
    first, _, _ = other(tmp_path)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def rush(folder, number, pipe):
    """Takes the lock again and again; says how often it was in it, and whether another was as well."""
    times, disturbed = 0, 0
    while times < number:
        try:
            with alone_in(folder):
                (folder / "who").write_text(str(os.getpid()))
                disturbed += (folder / "who").read_text() != str(os.getpid())
                times += 1
        except ConfigError:
            continue
    pipe.send(disturbed)


@fork
def test_no_two_are_in_it_while_others_leave(tmp_path):
    pipes = [FORK.Pipe() for _ in range(3)]
    processes = [FORK.Process(target=rush, args=(tmp_path, 40, theirs)) for _, theirs in pipes]
    for process in processes:
        process.start()
    assert [ours.poll(60) and ours.recv() for ours, _ in pipes] == [0, 0, 0]
    for process in processes:
        process.join()


def test_the_same_process_may_be_in_it_twice(tmp_path):
    with alone_in(tmp_path), alone_in(str(tmp_path)):
        assert (tmp_path / IN_FOLDER).exists()
        check_alone(tmp_path)
    assert not list(tmp_path.iterdir())
    with alone_in(None):
        pass


def test_a_folder_that_is_removed_or_replaced_meanwhile_is_noticed(tmp_path):
    folder = tmp_path / "run"
    check_alone(folder)  # where nothing is locked there is nothing to say
    with alone_in(folder):
        folder.rename(tmp_path / "away")
        with pytest.raises(CheckpointError, match="run was removed or replaced while"):
            check_alone(folder)
        folder.mkdir()
        (folder / IN_FOLDER).write_text("process 1 on another machine")
        with pytest.raises(CheckpointError, match="run was removed or replaced while"):
            check_alone(folder)
    assert (folder / IN_FOLDER).exists()  # which is not ours


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ConfigError, match="nothing can be written to .*file.*another place"),
        alone_in(tmp_path / "file"),
    ):
        pass
    (tmp_path / IN_FOLDER).mkdir()
    with pytest.raises(ConfigError, match="nothing can be written"), alone_in(tmp_path):
        pass


def test_who_holds_it_can_be_read_while_it_is_held(tmp_path):
    """On Windows nobody reads locked bytes: those are far behind the words."""
    with alone_in(tmp_path):
        assert (tmp_path / IN_FOLDER).read_text().startswith(f"process {os.getpid()} on ")
        assert (tmp_path / IN_FOLDER).stat().st_size < 200


def test_the_stand_in_for_windows_locks_and_keeps(tmp_path, system):
    if system != "as on Windows":
        pytest.skip("about the stand-in")
    with open(tmp_path / "file", "a+b") as first, open(tmp_path / "file", "a+b") as second:
        first.seek(2**20), second.seek(2**20)
        WINDOWS.locking(first.fileno(), WINDOWS.LK_NBLCK, 1)
        with pytest.raises(PermissionError):
            WINDOWS.locking(second.fileno(), WINDOWS.LK_NBLCK, 1)
        with pytest.raises(PermissionError):
            (tmp_path / "file").unlink()
    (tmp_path / "file").unlink()


@pytest.mark.skipif(locks.fcntl is None, reason="needs the locks of POSIX")
def test_a_file_system_without_locks_is_no_reason_to_stop(tmp_path, monkeypatch, system):
    if system == "as on Windows":
        pytest.skip("about the locks of POSIX")

    def none(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with alone(tmp_path / "lock", tmp_path):
        check_alone(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "theirs", ["mine", "\n", "processed", "a link", "a link to a lock", "a link to nothing", "a folder"]
)
def test_a_lock_that_is_not_ours_is_left_alone(theirs, tmp_path):
    lock, kept = tmp_path / "run" / IN_FOLDER, tmp_path / "kept"
    lock.parent.mkdir()
    kept.write_text(words := "process 7 on elsewhere" if theirs == "a link to a lock" else "mine")
    if theirs.startswith("a link"):
        lock.symlink_to("../nothing" if "nothing" in theirs else "../kept")
    elif theirs == "a folder":
        lock.mkdir()
    else:
        lock.write_text(theirs)
    with pytest.raises(ConfigError, match=r"its \.lock is not a lock of ours"), alone_in(lock.parent):
        pytest.fail("it was taken")
    assert kept.read_text() == words and sorted(path.name for path in tmp_path.iterdir()) == ["kept", "run"]
    assert not lock.is_file() or lock.read_text() in (theirs, words)


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_anew(tmp_path, monkeypatch, system):
    """Whoever held it ends between our opening and our locking: what we locked has no name, and locks nobody out."""
    if system == "as on Windows":
        pytest.skip("nobody removes a file there that we have open")
    right, gone = locks._lock, []

    def lock(file):
        right(file)
        if not gone:
            gone.append((tmp_path / IN_FOLDER).unlink())

    monkeypatch.setattr(locks, "_lock", lock)
    with alone_in(tmp_path):
        check_alone(tmp_path)
        assert (tmp_path / IN_FOLDER).exists()
    assert gone and not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", ["", "process 7 on elsewhere since 2026-11-29 12:00:00"])
def test_a_lock_that_a_dead_process_left_is_taken(left, tmp_path):
    (tmp_path / IN_FOLDER).write_text(left)
    with alone_in(tmp_path):
        assert (tmp_path / IN_FOLDER).read_text().startswith(f"process {os.getpid()} on ")
    assert not list(tmp_path.iterdir())
