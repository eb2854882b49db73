"""The data sets: found, fetched and looked over; bad files; the phantom's cache; left and right."""

import errno
import hashlib
import importlib.machinery
import importlib.util
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
import urllib3
from requests.adapters import HTTPAdapter

from vivit_edu import DataError, Split, Volumes, course_volumes, data, load_volumes
from vivit_edu.data import UnreachableError
from vivit_edu.datasets import medmnist, phantom
from vivit_edu.errors import ConfigError
from vivit_edu.support import files
from vivit_edu.support import npz as archives
from vivit_edu.support.places import user_cache
from vivit_edu.volumes import describe, find_mirror_axis

ORGANS = (
    "liver",
    "kidney-right",
    "kidney-left",
    "femur-right",
    "femur-left",
    "bladder",
    "heart",
    "lung-right",
    "lung-left",
    "spleen",
    "pancreas",
)
URL = "https://example.org/files/{}?download=1"
NO_NETWORK = requests.ConnectionError("[Errno -3] Temporary failure in name resolution")


def small_set(size=28, counts=(6, 3, 4), classes=2, seed=0):
    """The arrays of a MedMNIST file with few volumes."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size, size), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    return arrays


def organ_set(size=28):
    """Eleven classes; the left kidney is the right one with its last axis turned round, plus noise."""
    rng = np.random.default_rng(0)
    kidney = rng.integers(0, 200, (size, size, size), dtype=np.uint8)
    labels = {"train": [*range(11), *[1, 2] * 12], "val": range(11), "test": range(11)}
    arrays, patient = {}, 0
    for split, ks in labels.items():
        images = [rng.integers(0, 200, kidney.shape, dtype=np.uint8) for _ in ks]
        for image, k in zip(images, ks):
            if k in (1, 2):
                image[:] = kidney if k == 1 else kidney[:, :, ::-1]
        shades = rng.integers(0, 56, (len(ks), 1, 1, 1), dtype=np.uint8)
        arrays[f"{split}_images"] = np.stack(images) + shades
        arrays[f"{split}_labels"] = np.array(ks, np.uint8)[:, None]
        arrays[f"{split}_patients"] = np.arange(patient, patient + len(ks))
        arrays[f"{split}_masks"] = (arrays[f"{split}_images"] > 99).astype(np.uint8)
        patient += len(ks)
    return arrays


def npz(arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.fixture(autouse=True)
def no_other_files(tmp_path, monkeypatch):
    """A home without data files, no settings from outside, and no network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    for variable in ("VIVIT_EDU_DATA", "VIVIT_EDU_DATASET", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)

    def unreachable(*_, **__):
        raise NO_NETWORK

    monkeypatch.setattr(HTTPAdapter, "send", unreachable)


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def table(monkeypatch):
    """medmnist's table with two sets of ours: `table(name, content)` sets the MD5 that it expects."""
    info = {}

    def expect(name, content, classes=("normal", "hyperplasia")):
        md5 = hashlib.md5(content).hexdigest()
        labels = {str(k): label for k, label in enumerate(classes)}
        info[name] = {
            "label": labels,
            "url": URL.format(f"{name}.npz"),
            "MD5": md5,
            "url_64": URL.format(f"{name}_64.npz"),
            "MD5_64": md5,
        }
        return md5

    expect("adrenalmnist3d", b"never")
    expect("organmnist3d", b"never", ORGANS)
    monkeypatch.setattr(medmnist, "medmnist_table", lambda: info)
    return expect


@pytest.fixture
def calls(monkeypatch):
    """A phantom that is generated at once: the sizes it was generated in. `calls.version` is that of its sources."""

    class Calls(list):
        version = "1"

    calls = Calls()
    monkeypatch.setattr(phantom, "generate_phantom", lambda size: calls.append(size) or organ_set(size))
    monkeypatch.setattr(phantom, "fingerprint", lambda: calls.version)
    return calls


class Body(io.BytesIO):
    """What a server sends; `breaks` is raised once half has been read."""

    def __init__(self, content, breaks):
        super().__init__(content[: len(content) // 2] if breaks else content)
        self.breaks = breaks

    def read(self, size=-1):
        chunk = super().read(size)
        if not chunk and self.breaks:
            raise self.breaks
        return chunk


def serve(monkeypatch, content, breaks=None, status=200, **headers):
    """Answer every request with `content`, or first with a redirection where `Location` is among the headers."""
    asked = []

    def send(adapter, request, timeout, **_):
        assert 0 < timeout <= 10
        moved = len(asked) == 0 and "Location" in headers
        asked.append(request.url)
        answer = urllib3.HTTPResponse(
            Body(content, breaks),
            {"Content-Length": str(len(content)), **headers},
            status=302 if moved else status,
            preload_content=False,
        )
        return adapter.build_response(request, answer)

    monkeypatch.setattr(HTTPAdapter, "send", send)
    return asked


# ---- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 64])
def test_the_real_adrenal_file(test_data, size):
    volumes = load_volumes("adrenalmnist3d", size=size, root=test_data, download=False)
    assert volumes.class_names == ("normal", "hyperplasia") and volumes.mirror is None
    assert [len(split) for split in (volumes.train, volumes.val, volumes.test)] == [1188, 98, 298]
    assert volumes.train.clips.shape == (1188, 1, size, size, size)
    assert volumes.train.clips.dtype == torch.uint8
    assert volumes.val.clips.unique().tolist() == [0, 255]
    assert volumes.test.labels.bincount().tolist() == [229, 69] and volumes.test.labels.dtype == torch.int64


def test_a_wrong_byte_in_the_real_file_is_seen(test_data, root):
    content = bytearray((test_data / "adrenalmnist3d.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (root / "adrenalmnist3d.npz").write_bytes(content)
    with pytest.raises(DataError, match="MD5"):
        load_volumes("adrenalmnist3d", root=root)


def test_names_and_files_are_medmnists():
    theirs = pytest.importorskip("medmnist")
    assert medmnist.medmnist_table() == theirs.INFO
    assert set(data.MEDMNIST3D) == {name for name in theirs.INFO if "3d" in name}
    for name in data.MEDMNIST3D:
        assert all(theirs.INFO[name][key].startswith("https://") for key in ("url", "url_64"))


def test_clips_are_the_volumes_with_time_first(root, table):
    arrays = small_set()
    content = npz(arrays)
    table("adrenalmnist3d", content)
    (root / "adrenalmnist3d.npz").write_bytes(content)
    volumes = load_volumes("adrenalmnist3d", root=root)
    for split in ("train", "val", "test"):
        loaded = getattr(volumes, split)
        assert torch.equal(loaded.clips[:, 0], torch.from_numpy(arrays[f"{split}_images"]))
        assert loaded.labels.tolist() == arrays[f"{split}_labels"][:, 0].tolist()
        assert loaded.patients is None and loaded.masks is None
    assert os.listdir(root) == ["adrenalmnist3d.npz"]


def test_the_organs_know_their_mirror_and_where_medmnist_keeps_files_is_looked_at(tmp_path, root, table):
    content = npz(organ_set(64))
    table("organmnist3d", content, ORGANS)
    (tmp_path / "home/.medmnist").mkdir(parents=True)
    (tmp_path / "home/.medmnist/organmnist3d_64.npz").write_bytes(content)
    volumes = load_volumes(size=64, root=root)
    assert volumes.name == "organmnist3d" and volumes.class_names == ORGANS
    assert volumes.mirror == data.Mirror(3, (0, 2, 1, 4, 3, 5, 6, 8, 7, 9, 10))
    swapped = [ORGANS[k] for k in volumes.mirror.permutation]  # the names say the same
    sides = {"right": "left", "left": "right"}
    assert swapped == ["-".join(sides.get(word, word) for word in name.split("-")) for name in ORGANS]


# ---- bad requests and bad files -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["organmnist", "OrganMNIST3D", "movingshapes?", "", None, 3])
def test_unknown_names_are_refused_with_the_known_ones(root, name):
    with pytest.raises(ConfigError, match="organmnist3d.*synapsemnist3d.*organphantom3d"):
        load_volumes(name, root=root)


@pytest.mark.parametrize("size", [0, 32, 128, "28", None])
def test_unknown_sizes_are_refused(root, size):
    with pytest.raises(ConfigError, match="28 and 64"):
        load_volumes("adrenalmnist3d", size=size, root=root)


class Exploding:
    """Unpickling it creates a file: proof that a pickle was read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def _spoilt(fault, tmp_path):
    """The bytes of a small set with one fault in it."""
    arrays = small_set()
    if fault in IMPOSTORS:
        return IMPOSTORS[fault]
    if fault == "a single array":
        file = io.BytesIO()
        np.save(file, arrays["train_images"])
        return file.getvalue()
    if fault == "cut in half":
        return npz(arrays)[: len(npz(arrays)) // 2]
    if fault == "last byte gone":
        return npz(arrays)[:-1]
    if fault == "key missing":
        del arrays["val_labels"]
    elif fault == "float images":
        arrays["train_images"] = arrays["train_images"].astype(np.float32)
    elif fault == "float labels":
        arrays["train_labels"] = arrays["train_labels"].astype(np.float32)
    elif fault == "the other size":
        arrays = small_set(64)
    elif fault == "flat images":
        arrays["test_images"] = arrays["test_images"][:, 0]
    elif fault == "flat labels":
        arrays["test_labels"] = arrays["test_labels"][:, 0]
    elif fault == "a label short":
        arrays["train_labels"] = arrays["train_labels"][:-1]
    elif fault == "label too high":
        arrays["test_labels"][1] = 2
    elif fault == "label negative":
        arrays["val_labels"] = arrays["val_labels"].astype(np.int64) - 1
    elif fault == "empty split":
        arrays |= {"val_images": arrays["val_images"][:0], "val_labels": arrays["val_labels"][:0]}
    elif fault == "scalar images":
        arrays["train_images"] = np.uint8(3)
    elif fault == "objects":
        arrays["train_labels"] = np.array([[Exploding(tmp_path / "exploded")]] * 6, dtype=object)
    elif fault == "huge header":
        content = io.BytesIO(npz(arrays))
        with zipfile.ZipFile(content) as old, zipfile.ZipFile(new := io.BytesIO(), "w") as archive:
            for name in old.namelist():
                if name == "train_images.npy":
                    header = {"descr": "|u1", "fortran_order": False, "shape": (10**15, 28, 28, 28)}
                    np.lib.format.write_array_header_1_0(array := io.BytesIO(), header)
                    archive.writestr(name, array.getvalue())
                else:
                    archive.writestr(name, old.read(name))
        return new.getvalue()
    return npz(arrays)


IMPOSTORS = {
    "a page": b"<!DOCTYPE html><title>Please log in</title>",
    "a page with a mark in front": b"\xef\xbb\xbf\n  <HTML lang=en><body>404",
    "an error of a server": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 33201\n",
    "a git-annex pointer": b"/annex/objects/MD5E-s33201--4d7a.npz\n",
    "packed": b"\x1f\x8b\x08\x00abc",
    "nothing": b"",
    "noise": bytes(range(7, 200)),
}
FAULTS = {
    "a page": "is not an npz file: it is an HTML page",
    "a page with a mark in front": "is not an npz file: it is an HTML page",
    "an error of a server": "is not an npz file: it is an XML page",
    "a Git LFS pointer": "is not an npz file: it is a Git LFS pointer.*`git lfs pull`",
    "a git-annex pointer": "is not an npz file: it is a git-annex pointer",
    "packed": "is not an npz file: it is a gzip archive",
    "nothing": "is not an npz file: it is an empty file",
    "noise": "is not an npz file, or not the whole of one",
    "a single array": "is not an npz file: it is a single array",
    "cut in half": "is not an npz file, or not the whole of one",
    "last byte gone": "is not an npz file, or not the whole of one",
    "key missing": "lacks the arrays val_labels",
    "float images": r"train_images is float32 \[6, 28, 28, 28\], expected was uint8",
    "float labels": r"train_labels is float32",
    "the other size": r"train_images is uint8 \[6, 64, 64, 64\], expected was uint8 \[6, 28, 28, 28\]",
    "flat images": r"test_images is uint8 \[4, 28, 28\]",
    "flat labels": r"test_labels is uint8 \[4\], expected was integer \[4, 1\]",
    "a label short": r"train_labels is uint8 \[5, 1\], expected was integer \[6, 1\]",
    "label too high": "labels of test run from 0 to 2, but there are 2 classes",
    "label negative": "labels of val run from -1 to 0",
    "empty split": "split val is empty",
    "scalar images": "split train is empty",
    "objects": "Python objects",
    "huge header": "train_images is damaged",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_named_with_the_cure_and_left_alone(root, table, tmp_path, fault):
    content = _spoilt(fault, tmp_path)
    md5 = table("adrenalmnist3d", content)  # so that nothing but the fault is wrong
    path = root / "adrenalmnist3d.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=FAULTS[fault]) as error:
        load_volumes("adrenalmnist3d", root=root)
    for word in ("adrenalmnist3d.npz", URL.format("adrenalmnist3d.npz"), md5, "was left as it was"):
        assert word in str(error.value)
    assert path.read_bytes() == content and os.listdir(root) == ["adrenalmnist3d.npz"]
    assert not (tmp_path / "exploded").exists()


def test_no_array_is_unpickled_by_those_who_skip_the_headers(tmp_path):
    (tmp_path / "it.npz").write_bytes(_spoilt("objects", tmp_path))
    with pytest.raises(DataError, match="it.npz is damaged: Object arrays cannot be loaded"):
        archives.npz_arrays(tmp_path / "it.npz", ["train_labels"])
    assert not (tmp_path / "exploded").exists()


def test_the_pickle_in_that_test_would_explode(tmp_path):
    pickle.loads(pickle.dumps(Exploding(tmp_path / "exploded"))).close()
    assert (tmp_path / "exploded").exists()


def test_a_file_with_another_md5_is_kept(root, table):
    expected = table("adrenalmnist3d", b"another")
    content = npz(small_set())
    path = root / "adrenalmnist3d.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not MedMNIST's file") as error:
        load_volumes("adrenalmnist3d", root=root)
    assert expected in str(error.value) and hashlib.md5(content).hexdigest() in str(error.value)
    assert path.read_bytes() == content


def test_what_would_fill_the_memory_is_refused_unread(root, table, monkeypatch):
    content = npz(small_set())
    table("adrenalmnist3d", content)
    (root / "adrenalmnist3d.npz").write_bytes(content)
    monkeypatch.setattr(archives, "MAX_UNPACKED", 13 * 28**3)
    monkeypatch.setattr(archives.np.lib.format, "read_array", lambda *_, **__: pytest.fail("an array was read"))
    with pytest.raises(DataError, match="would unpack to"):
        load_volumes("adrenalmnist3d", root=root)


def test_labels_in_another_byte_order_are_read(root, table):
    arrays = small_set()
    for split in ("train", "val", "test"):
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].astype(">i4")
    content = npz(arrays)
    table("adrenalmnist3d", content)
    (root / "adrenalmnist3d.npz").write_bytes(content)
    volumes = load_volumes("adrenalmnist3d", root=root)
    assert volumes.test.labels.dtype == torch.int64 and volumes.test.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("name", ["adrenalmnist3d", "organphantom3d"])
@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link"])
def test_what_is_not_a_file_is_called_what_it_is(root, table, calls, monkeypatch, name, kind):
    asked = serve(monkeypatch, b"it")
    path = root / f"{name}.npz"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(root / "nothing")
    with pytest.raises(DataError, match=f"{name}.npz is {kind}") as error:
        load_volumes(name, root=root)
    assert not isinstance(error.value, UnreachableError) and asked == calls == []
    assert os.listdir(root) == [path.name]


def test_who_has_no_home_is_told_of_the_file_all_the_same(root, table, monkeypatch):
    """As in a container that runs under a number without a name."""

    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    table("adrenalmnist3d", b"it")
    with pytest.raises(UnreachableError, match="adrenalmnist3d.npz is neither in"):
        load_volumes("adrenalmnist3d", root=root, download=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert user_cache() == Path("/nonexistent/.cache/vivit-edu")


def test_a_folder_where_medmnist_keeps_its_files_is_named_too(tmp_path, root, table):
    (tmp_path / "home/.medmnist/adrenalmnist3d.npz").mkdir(parents=True)
    with pytest.raises(DataError, match=r"~/.medmnist/adrenalmnist3d.npz is a folder, not a file: move it away"):
        load_volumes("adrenalmnist3d", root=root)


# ---- fetching -------------------------------------------------------------------------------------


def test_without_the_file_and_the_download_the_message_says_what_to_do(tmp_path, table):
    md5 = table("adrenalmnist3d", b"it")
    with pytest.raises(UnreachableError) as error:
        load_volumes("adrenalmnist3d", root=tmp_path / "not there", download=False)
    url = URL.format("adrenalmnist3d.npz")
    for word in ("not there", ".medmnist", "download=False", url, md5, "put it at"):
        assert word in str(error.value)
    assert not (tmp_path / "not there").exists()


def test_without_a_network_the_message_says_what_was_tried(root, table):
    with pytest.raises(UnreachableError, match="Temporary failure in name resolution") as error:
        load_volumes("adrenalmnist3d", root=root)
    for word in (URL.format("adrenalmnist3d.npz"), "put it at", "adrenalmnist3d.npz"):
        assert word in str(error.value)
    assert os.listdir(root) == []


@pytest.mark.parametrize("silent", [requests.ConnectTimeout("no answer"), requests.ReadTimeout("no answer")])
def test_a_network_that_swallows_everything_is_given_up_soon(root, table, monkeypatch, silent):
    waited = []

    def send(*_, timeout, **__):
        waited.append(timeout)
        raise silent

    monkeypatch.setattr(HTTPAdapter, "send", send)
    with pytest.raises(UnreachableError, match="no answer"):
        load_volumes("adrenalmnist3d", root=root)
    assert len(waited) == 1 and 0 < waited[0] <= 10 and os.listdir(root) == []


def test_a_file_is_fetched_once_and_kept(tmp_path, table, monkeypatch):
    content = npz(small_set(64))
    table("adrenalmnist3d", content)
    asked = serve(monkeypatch, content)
    root = tmp_path / "made" / "for it"
    first = load_volumes("adrenalmnist3d", size=64, root=root)
    again = load_volumes("adrenalmnist3d", size=64, root=root)
    assert asked == [URL.format("adrenalmnist3d_64.npz")] and os.listdir(root) == ["adrenalmnist3d_64.npz"]
    assert torch.equal(first.train.clips, again.train.clips)
    assert (root / "adrenalmnist3d_64.npz").read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_fetched_file_can_be_read_by_whom_the_umask_allows(root):
    old = os.umask(0o022)
    try:
        with files.written_whole(root / "file") as file:
            file.write(b"it")
    finally:
        os.umask(old)
    assert (root / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("breaks", [ConnectionResetError("reset by peer"), TimeoutError("timed out")])
def test_a_connection_that_breaks_leaves_nothing(root, table, monkeypatch, breaks):
    content = npz(small_set())
    table("adrenalmnist3d", content)
    serve(monkeypatch, content, breaks)
    with pytest.raises(UnreachableError, match="reset by peer|timed out"):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == []


def test_a_user_who_interrupts_leaves_nothing(root, table, monkeypatch):
    serve(monkeypatch, npz(small_set()), KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == []


@pytest.mark.parametrize("status, word", [(403, "403"), (404, "404"), (500, "500"), (503, "503")])
def test_a_server_that_refuses_is_told_with_its_number(root, table, monkeypatch, status, word):
    serve(monkeypatch, b"sorry", status=status)
    with pytest.raises(UnreachableError, match=f"could not be downloaded: {word}(.|\\n)*put it at"):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == []


def test_a_body_shorter_than_announced_is_not_kept(root, table, monkeypatch):
    content = npz(small_set())
    table("adrenalmnist3d", content[:-1])  # the checksum alone would not see it
    serve(monkeypatch, content[:-1], **{"Content-Length": str(len(content))})
    with pytest.raises(UnreachableError, match="could not be downloaded"):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == []


def test_what_arrives_damaged_is_not_kept(root, table, monkeypatch):
    table("adrenalmnist3d", b"the file")
    serve(monkeypatch, b"<html>log in first</html>")
    with pytest.raises(UnreachableError, match="sent something else than expected"):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == []


def test_only_https_is_asked(root, monkeypatch):
    asked = serve(monkeypatch, b"it")
    with pytest.raises(UnreachableError, match="is not an https address"):
        medmnist.fetch("http://example.org/it", root / "it", hashlib.md5(b"it").hexdigest())
    assert asked == [] and os.listdir(root) == []


@pytest.mark.parametrize("address", ["http://example.org/it", "HTTP://example.org/it"])
def test_a_redirection_away_from_https_is_not_followed(root, monkeypatch, address):
    asked = serve(monkeypatch, b"it", Location=address)
    with pytest.raises(UnreachableError, match="is not an https address"):
        medmnist.fetch("https://example.org/file", root / "it", hashlib.md5(b"it").hexdigest())
    assert asked == ["https://example.org/file"] and os.listdir(root) == []


@pytest.mark.parametrize("address", ["https://example.org/there", "/there"])
def test_a_redirection_within_https_is_followed(root, monkeypatch, address):
    asked = serve(monkeypatch, b"it", Location=address)
    medmnist.fetch("https://example.org/file", root / "it", hashlib.md5(b"it").hexdigest())
    assert asked == ["https://example.org/file", "https://example.org/there"]
    assert (root / "it").read_bytes() == b"it"


class FullDisk(io.FileIO):
    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk(root, table, calls, monkeypatch):
    content = npz(small_set())
    table("adrenalmnist3d", content)
    serve(monkeypatch, content)
    monkeypatch.setattr(files, "open", lambda path, mode: FullDisk(path, "x"), raising=False)
    for name in ("adrenalmnist3d", "organphantom3d"):
        with pytest.raises(DataError, match=f"{name}.npz could not be written: the disk is full.\nFree some"):
            load_volumes(name, root=root)
        assert os.listdir(root) == []


def test_a_root_that_cannot_be_written_to(root, table, calls, monkeypatch):
    content = npz(small_set())
    table("adrenalmnist3d", content)
    serve(monkeypatch, content)
    (root / "a file").write_text("no folder")
    for name in ("adrenalmnist3d", "organphantom3d"):
        with pytest.raises(DataError, match=rf"{name}.npz could not be written(.|\n)*VIVIT_EDU_DATA"):
            load_volumes(name, root=root / "a file")
    assert calls == []  # nobody waits for a phantom that cannot be kept

    def read_only(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "open", read_only, raising=False)
    with pytest.raises(DataError, match="Permission denied.*\nMake the folder writable"):
        load_volumes("adrenalmnist3d", root=root)
    assert os.listdir(root) == ["a file"]


# ---- without medmnist -----------------------------------------------------------------------------


def test_without_medmnist_the_message_says_what_to_install(root, monkeypatch, calls):
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(UnreachableError, match="adrenalmnist3d, is missing: pip install medmnist"):
        load_volumes("adrenalmnist3d", root=root)
    assert course_volumes(root=root).name == "organphantom3d" and calls == [28]
    (root / "organmnist3d.npz").write_bytes(npz(organ_set()))
    with pytest.raises(DataError, match="pip install medmnist") as error:
        course_volumes(root=root)  # somebody wants this file used: no fallback
    assert not isinstance(error.value, UnreachableError)


def test_a_folder_called_medmnist_is_not_the_package(root, monkeypatch):
    """Such as one that holds the data, in the working directory."""
    spec = importlib.machinery.ModuleSpec("medmnist", None, is_package=True)  # as Python describes such a folder
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UnreachableError, match="pip install medmnist"):
        load_volumes("adrenalmnist3d", root=root)


# ---- the phantom ----------------------------------------------------------------------------------


def test_the_phantom_is_generated_once(root, calls):
    first, again = (load_volumes("organphantom3d", root=root, download=False) for _ in range(2))
    assert calls == [28] and os.listdir(root) == ["organphantom3d.npz"]
    for volumes in (first, again):
        assert volumes.name == "organphantom3d" and volumes.class_names == ORGANS
        assert volumes.mirror == data.Mirror(3, medmnist.ORGAN_SWAP)
        expected = organ_set()
        for split in ("train", "val", "test"):
            loaded = getattr(volumes, split)
            assert torch.equal(loaded.clips[:, 0], torch.from_numpy(expected[f"{split}_images"]))
            assert torch.equal(loaded.masks, torch.from_numpy(expected[f"{split}_masks"]))
            assert loaded.patients.tolist() == expected[f"{split}_patients"].tolist()
            assert loaded.patients.dtype == torch.int64


def test_a_changed_generator_generates_again(root, calls, capsys):
    load_volumes("organphantom3d", root=root)
    calls.version = "2"
    load_volumes("organphantom3d", root=root)
    assert calls == [28, 28] and "another version" in capsys.readouterr().err
    load_volumes("organphantom3d", root=root)
    assert calls == [28, 28]


@pytest.mark.parametrize("damage", [lambda good: good[:-30], lambda good: b"", lambda good: npz(small_set())])
def test_a_damaged_phantom_is_generated_again(root, calls, capsys, damage):
    load_volumes("organphantom3d", root=root)
    path = root / "organphantom3d.npz"
    good = path.read_bytes()
    path.write_bytes(damage(good))
    load_volumes("organphantom3d", root=root)
    said = capsys.readouterr().err
    assert calls == [28, 28] and "organphantom3d.npz" in said and said.count("\n") == 1
    assert "It is generated again." in said and os.listdir(root) == ["organphantom3d.npz"]


# ---- what the course uses -------------------------------------------------------------------------


def test_the_course_takes_the_set_that_is_named(root, calls, monkeypatch, capsys):
    monkeypatch.setenv("VIVIT_EDU_DATA", str(root))
    monkeypatch.setenv("VIVIT_EDU_DATASET", "organphantom3d")
    assert course_volumes().name == "organphantom3d" and "NOT REAL" not in capsys.readouterr().err
    monkeypatch.setenv("VIVIT_EDU_DATASET", "organfantom")
    with pytest.raises(ConfigError):
        course_volumes()


def test_the_course_falls_back_to_the_phantom_and_says_so(root, table, calls, monkeypatch, capsys):
    monkeypatch.setenv("VIVIT_EDU_DATA", str(root))
    assert course_volumes(64).name == "organphantom3d" and calls == [64]
    said = capsys.readouterr().err
    assert "NOT REAL DATA" in said and "SYNTHETIC" in said and "organphantom3d" in said
    assert "name resolution" in said and "put it at" in said and said.count("\n") >= 6


def test_load_volumes_never_gives_another_set(root, table, calls):
    with pytest.raises(UnreachableError):
        load_volumes(root=root)
    assert calls == [] and os.listdir(root) == []


def test_the_course_takes_the_organs_where_they_are(root, table, calls, monkeypatch, capsys):
    monkeypatch.setenv("VIVIT_EDU_DATA", str(root))
    content = npz(organ_set())
    table("organmnist3d", content, ORGANS)
    (root / "organmnist3d.npz").write_bytes(content)
    assert course_volumes().name == "organmnist3d"
    assert calls == [] and capsys.readouterr().err == ""
    (root / "organmnist3d.npz").write_bytes(content[:-1])  # somebody wants this file used: no fallback
    with pytest.raises(DataError, match="not the whole of one"):
        course_volumes()
    assert calls == []


# ---- the folder -----------------------------------------------------------------------------------


def test_the_folder_is_the_argument_the_variable_or_the_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkout = data.data_root()
    assert checkout.name == "data" and (checkout.parent / "pyproject.toml").is_file()
    monkeypatch.setenv("VIVIT_EDU_DATA", str(tmp_path / "variable"))
    assert data.data_root() == tmp_path / "variable"
    assert data.data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data.data_root("here") == tmp_path / "here"
    monkeypatch.setenv("VIVIT_EDU_DATA", "~/volumes")
    assert data.data_root() == tmp_path / "home" / "volumes"
    monkeypatch.setenv("VIVIT_EDU_DATA", "volumes")
    with pytest.raises(ConfigError, match="whole path"):
        data.data_root()


@pytest.mark.parametrize("given", ["", "  ", 3, b"data", ["data"], "~nobody_of_that_name/data", "~nobody_of_that_name"])
def test_what_names_no_folder_is_refused(given, monkeypatch, calls):
    with pytest.raises(ConfigError, match="^root="):
        load_volumes("organphantom3d", root=given)
    assert calls == []
    if isinstance(given, str) and given.startswith("~"):
        monkeypatch.setenv("VIVIT_EDU_DATA", given)
        with pytest.raises(ConfigError, match="^VIVIT_EDU_DATA="):
            data.data_root()


@pytest.mark.parametrize("given", ["a\0b", "x" * 300])
def test_a_folder_that_no_system_can_have_is_refused_in_words(root, table, calls, given):
    for name in ("adrenalmnist3d", "organphantom3d"):
        with pytest.raises(DataError, match="cannot be read"):
            load_volumes(name, root=root / given)
    assert calls == []


@pytest.mark.parametrize(
    "platform, variable, folder",
    [
        ("linux", None, "home/.cache/vivit-edu"),
        ("linux", "XDG_CACHE_HOME", "set/vivit-edu"),
        ("darwin", None, "home/Library/Caches/vivit-edu"),
        ("win32", None, "home/AppData/Local/vivit-edu"),
        ("win32", "LOCALAPPDATA", "set/vivit-edu"),
    ],
)
def test_outside_a_checkout_it_is_the_users_cache(tmp_path, monkeypatch, platform, variable, folder):
    monkeypatch.setattr(data, "ROOT", tmp_path / "site-packages")
    monkeypatch.setattr(data.sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "set"))
    assert data.data_root() == tmp_path / folder
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages/pyproject.toml").write_text('[project]\nname = "another"\n')  # not ours
    assert data.data_root() == tmp_path / folder


# ---- left and right -------------------------------------------------------------------------------


def kidneys(axis, count=16, noise=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    right = torch.randint(0, 256, (1, 7, 8, 9), generator=generator).float()
    labels = torch.arange(2 * count) % 2  # 0 right, 1 left
    clips = torch.stack([right.flip(axis) if label else right for label in labels])
    clips = clips + noise * torch.randn(clips.shape, generator=generator)
    return Split(clips.clamp(0, 255).byte(), labels)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_the_axis_is_found(axis):
    assert find_mirror_axis(kidneys(axis), 0, 1) == axis
    assert find_mirror_axis(kidneys(axis), 1, 0) == axis


def test_no_axis_is_made_up():
    labels = torch.arange(40) % 2
    found = 0
    for seed in range(20):  # noise has a best axis, too
        generator = torch.Generator().manual_seed(seed)
        clips = torch.randint(0, 256, (40, 1, 8, 8, 8), generator=generator, dtype=torch.uint8)
        try:
            found += find_mirror_axis(Split(clips, labels), 0, 1) > 0
        except DataError as error:
            assert "No axis clearly" in str(error)
    assert found <= 1
    flat = torch.full((40, 1, 8, 8, 8), 7, dtype=torch.uint8)
    slope = flat * torch.arange(8, dtype=torch.uint8)  # flips along two axes change nothing
    for split in (Split(flat, labels), Split(slope, labels), kidneys(2, count=1)):  # one of each: by chance?
        with pytest.raises(DataError, match="No axis clearly"):
            find_mirror_axis(split, 0, 1)


def test_an_empty_class_has_no_mirror_image():
    with pytest.raises(DataError, match="no clip of class 5"):
        find_mirror_axis(kidneys(2), 0, 5)


# ---- the containers, the table, the picture ---------------------------------------------------------


def test_a_subset_takes_all_that_belongs_to_its_clips():
    clips = torch.arange(5, dtype=torch.uint8).reshape(5, 1, 1, 1, 1)
    split = Split(clips, torch.arange(5), torch.arange(5) + 10, clips[:, 0])
    for indices in ([3, 1], torch.tensor([3, 1])):
        part = split.subset(indices)
        assert len(part) == 2 and part.clips.flatten().tolist() == part.labels.tolist() == [3, 1]
        assert part.patients.tolist() == [13, 11] and part.masks.flatten().tolist() == [3, 1]
    assert split.subset(split.labels > 2).patients.tolist() == [13, 14]
    assert split.subset(slice(3, None)).patients.tolist() == [13, 14]
    assert Split(clips, torch.arange(5)).subset([0]).masks is None


def test_the_description_counts(root, calls, table):
    lines = describe(load_volumes("organphantom3d", root=root)).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["kidney-right"] == ["13", "1", "1"] and rows["all"] == ["clips", "35", "11", "11"]
    assert rows["patients"] == ["35", "11", "11"]
    assert "axis 3" in lines[-1] and "kidney-right / kidney-left" in lines[-1] and "liver" not in lines[-1]
    split = Split(torch.zeros(3, 1, 2, 2, 2, dtype=torch.uint8), torch.tensor([0, 0, 2]))
    text = describe(Volumes("few", ("a", "b", "c"), split, split, split))
    assert text.splitlines()[2].split() == ["a", "2", "2", "2"]
    assert text.splitlines()[3].split() == ["b", "0", "0", "0"]
    assert "unknown" in text and "every flip is free" in text


def test_the_montage_shows_each_class_in_its_row():
    pytest.importorskip("matplotlib")
    from vivit_edu import plots

    clips = torch.zeros(4, 1, 5, 6, 7, dtype=torch.uint8)
    clips[2, 0, 4] = 200  # the first clip of class 1 lights up in its last slice
    split = Split(clips, torch.tensor([0, 0, 1, 1]))
    figure = plots.montage(split, ("dark", "late", "missing"), slices=3)
    picture = figure.axes[0].images[0].get_array()
    assert picture.shape == (3 * 7, 3 * 8)
    assert (picture[7:13, 16:23] == 200).all()
    assert (picture[7:13, :7] == 0).all() and (picture[:6, :7] == 0).all()
    assert (picture[14:] == 255).all()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "2", "4"]
    assert "dark, late, missing" in figure.alt_text
    colour = Split(clips.repeat(1, 3, 1, 1, 1), split.labels)
    coloured = plots.montage(colour, ("dark", "late"), slices=5).axes[0].images[0].get_array()
    assert coloured.shape == (14, 40, 3)


def test_a_saved_figure_carries_its_alt_text(tmp_path):
    pytest.importorskip("matplotlib")
    from PIL import Image

    from vivit_edu import plots

    plots.save(plots.montage(kidneys(1, count=2), ("right", "left")), tmp_path / "new" / "sheet.png")
    assert "film strips" in Image.open(tmp_path / "new" / "sheet.png").text["Description"]


def test_a_shown_figure_carries_its_alt_text(monkeypatch):
    pytest.importorskip("matplotlib")
    display = pytest.importorskip("IPython.display")
    from vivit_edu import plots

    shown = []
    monkeypatch.setattr(display, "display", lambda bundle, **options: shown.append((bundle, options)))
    figure = plots.montage(kidneys(1, count=2), ("right", "left"))
    plots.show(figure)
    ((bundle, options),) = shown
    assert options["raw"] and options["metadata"]["image/png"]["alt"] == figure.alt_text
    assert options["metadata"]["image/png"]["width"] == int(figure.get_figwidth() * 80), "half of its own pixels"
    assert bundle["text/plain"] == figure.alt_text and bundle["image/png"].startswith("iVBORw0KGgo")
