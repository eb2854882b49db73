"""Clips that do not fit into the memory: a run holds a small part of them, and a refusal comes before decoding."""

import ctypes
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.test_video import encode
from vivit_edu import load_videos, training
from vivit_edu.cli import main
from vivit_edu.datasets import decoding
from vivit_edu.errors import DataError
from vivit_edu.experiments import runs

pytest.importorskip("av")
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kind of memory is read from /proc")
MIB = 1 << 20
M_MMAP_THRESHOLD = -3  # of malloc.h


@pytest.fixture
def films(tmp_path, monkeypatch):
    """Twenty films of each of two classes, 8 frames of 16×16 pixels."""
    monkeypatch.setenv("VIVIT_EDU_CACHE", str(tmp_path / "cache"))
    for k, name in enumerate("ab"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for i in range(20):
            pictures = np.full((8, 16, 16, 3), 40 + 90 * k + 4 * i, np.uint8)
            encode(tmp_path / "films" / name / f"{i}.mp4", pictures)
    return tmp_path / "films"


@pytest.fixture
def returned():
    """Freed blocks of 256 KiB and more go back to the system at once: else new clips lie where old ones were."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        pytest.skip("needs glibc's mallopt")
    libc.mallopt(M_MMAP_THRESHOLD, 256 * 1024)
    yield
    libc.mallopt(M_MMAP_THRESHOLD, 32 * MIB)  # where it ends up by itself


def held() -> int:
    """Bytes of this process's memory that are in no file: pages of a mapped file do not count, for they can go."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise AssertionError("no RssAnon")


class Watched:
    """Within it, how much memory is held is looked up again and again: `most` is the largest growth, in bytes."""

    def __enter__(self):
        self.before, self.most, self.over = held(), 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()
        return self

    def look(self):
        while not self.over.is_set():
            self.most = max(self.most, held() - self.before)
            time.sleep(0.002)

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


TINY = "--clips 4 --set dim=8 --set depth=1 --set mlp_dim=8 --set heads=1 --epochs 1 --model spacetime --device cpu"
TINY += " --no-bfloat16 --set shift=0 --set gain=0 --batch-size 2 --size 96 --frames 16 --tubelet 4,16,16"


@linux
def test_a_whole_run_holds_a_small_part_of_its_clips(films, returned, tmp_path, capsys, monkeypatch):
    def train(name):
        monkeypatch.setenv("VIVIT_EDU_CACHE", str(tmp_path / f"cache of {name}"))
        command = ["train", "--videos", str(films), "--out", str(tmp_path / name), *TINY.split()]
        assert main(command) == 0, capsys.readouterr().err

    monkeypatch.setattr(training, "MOST_VOXELS", 2**20)  # two clips are evaluated at once
    monkeypatch.setattr(runs, "draw_figures", lambda *_: None)  # a picture of one clip takes as much as all these clips
    train("first")  # what has to be imported
    with Watched() as watched:
        train("run")
    clips = max(path.stat().st_size for path in (tmp_path / "cache of run").glob("*.clips"))
    assert clips > 60 * MIB and watched.most < clips / 2, f"{watched.most / MIB:.0f} of {clips / MIB:.0f} MiB"
    with Watched() as watched:
        assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
    assert watched.most < clips / 2, f"{watched.most / MIB:.0f} of {clips / MIB:.0f} MiB"


@linux
def test_what_cannot_be_mapped_is_refused_before_anything_is_decoded(films, tmp_path, monkeypatch):
    """Under a `ulimit -v`, as batch systems set it."""
    monkeypatch.setattr(decoding, "read_frames", lambda *_: pytest.fail("a file was decoded"))
    resource = pytest.importorskip("resource")
    addresses = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (addresses + 500 * MIB, hard))
        with pytest.raises(DataError, match=r"take 1\.88 GiB, .*fewer frames or a smaller size, or raise .*ulimit"):
            load_videos(films, frames=64, size=256, clips=4)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert not (tmp_path / "cache").exists()
