"""Data files that were cut short, altered or made to do harm: refused in one message, or read as they were written.

What hypothesis draws is the same every time, so that a failure can be looked at.
"""

import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.damage import DAMAGE, NO_FILES, damaged, no_file
from tests.test_data import small_set
from vivit_edu import load_volumes
from vivit_edu.datasets import medmnist
from vivit_edu.datasets.medmnist import as_volumes
from vivit_edu.errors import DataError
from vivit_edu.support.npz import npz_arrays, npz_headers

DRAWN = settings(max_examples=120, deadline=None, derandomize=True, database=None)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module", autouse=True)
def nowhere_else(tmp_path_factory):
    """A checksum that every file has, so that the rest is looked over too, and a folder where executed code shows."""
    entry = {"label": {"0": "normal", "1": "hyperplasia"}, "url": "https://example.org/it.npz", "MD5": "whatever"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(medmnist, "medmnist_table", lambda: {"adrenalmnist3d": entry})
        patch.setattr(medmnist, "md5_of", lambda path: "whatever")
        folder = tmp_path_factory.mktemp("work")
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        yield folder
        assert not (folder / "executed").exists()


SET = {key: array // 255 if key.endswith("images") else array for key, array in small_set(counts=(2, 2, 2)).items()}


def compressed(arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


GOOD = compressed(SET)


def load(content, folder):
    (folder / "adrenalmnist3d.npz").write_bytes(content)
    return load_volumes("adrenalmnist3d", root=folder, download=False)


@DRAWN
@given(damage=DAMAGE)
def test_a_damaged_data_file_is_refused_or_read_as_it_was(damage, nowhere_else):
    try:
        volumes = load(damaged(GOOD, damage), nowhere_else)
    except DataError as error:
        assert "adrenalmnist3d.npz" in str(error)
        return
    for split in ("train", "val", "test"):  # a byte that nothing reads, such as a time of day
        assert np.array_equal(getattr(volumes, split).clips[:, 0].numpy(), SET[f"{split}_images"])


DTYPES = ("u1", "i8", ">i8", "f4", "?", "O", "S3", "M8[s]", "m8[s]", "c8", "u1,f4")


@DRAWN
@given(key=st.sampled_from(sorted(SET)), kind=st.sampled_from(DTYPES), shape=st.lists(st.integers(0, 29), max_size=4))
@example(key="train_labels", kind="i8", shape=[2, 1])
@example(key="train_images", kind="u1", shape=[0, 28, 28, 28])
@example(key="val_labels", kind="O", shape=[2, 1])
def test_arrays_of_another_kind_are_refused(key, kind, shape, nowhere_else):
    if np.prod(shape, dtype=float) > 1e5:
        return
    array = np.zeros(shape, kind) if kind != "O" else np.full(shape, Evil(), object)
    right = key.endswith("labels") and kind in ("u1", "i8", ">i8") and shape == [2, 1]
    if right:
        array[1] = 1
    if right:
        assert load(compressed(SET | {key: array}), nowhere_else).train.labels.dtype == torch.int64
    else:
        with pytest.raises(DataError, match="adrenalmnist3d.npz"):
            load(compressed(SET | {key: array}), nowhere_else)


@pytest.mark.parametrize("order", ["<", ">"])
def test_arrays_in_either_byte_order_are_read(order):
    arrays = SET | {f"{split}_patients": np.array([3, 4], f"{order}i8") for split in ("train", "val", "test")}
    volumes = as_volumes("adrenalmnist3d", ("a", "b"), arrays)
    assert volumes.train.patients.tolist() == [3, 4]


@DRAWN
@given(labels=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 3), min_size=2, max_size=2))
def test_labels_out_of_range_are_refused(labels, nowhere_else):
    content = compressed(SET | {"test_labels": np.array(labels)[:, None]})
    if set(labels) <= {0, 1}:
        assert load(content, nowhere_else).test.labels.tolist() == labels
    else:
        with pytest.raises(DataError, match="labels of test run from"):
            load(content, nowhere_else)


def test_a_header_that_unpacks_to_gigabytes_is_not_unpacked(nowhere_else):
    """Version 2 of the format lets an array's header claim a length of 4 GiB, and zeros pack a thousandfold."""
    header = np.lib.format.magic(2, 0) + struct.pack("<I", 2**28) + b" " * 2**28
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for key in SET:
            archive.writestr(f"{key}.npy", header if key == "train_images" else b"")
    del header
    (nowhere_else / "bomb.npz").write_bytes(packed.getvalue())
    tracemalloc.start()
    with pytest.raises(DataError, match="bomb.npz: the array train_images is damaged"):
        npz_headers(nowhere_else / "bomb.npz", ["train_images"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


def test_an_entry_that_nobody_looked_at_is_not_read_in_place_of_the_array(nowhere_else):
    """NumPy's own reader takes an entry "a" before "a.npy", whatever is in it: zeros, packed a thousandfold."""
    np.save(good := io.BytesIO(), np.arange(8, dtype=np.uint8))
    np.lib.format.write_array_header_1_0(head := io.BytesIO(), {"descr": "|u1", "fortran_order": False, "shape": (9,)})
    with zipfile.ZipFile(nowhere_else / "twins.npz", "w") as archive:
        archive.writestr("a.npy", good.getvalue())
        archive.writestr("a", head.getvalue() + bytes(9))
    assert npz_headers(nowhere_else / "twins.npz") == {"a": (np.dtype("uint8"), (8,))}
    assert npz_arrays(nowhere_else / "twins.npz", ["a"])["a"].tolist() == list(range(8))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
def test_what_is_no_file_is_not_opened_as_an_archive(kind, words, tmp_path):
    with pytest.raises(DataError, match=f"it.npz is {words}, not a file"):
        npz_headers(no_file(kind, tmp_path / "it.npz"))
