"""Files that were cut short, altered, swapped or made to do harm: refused in one message, or read as they were written.

What hypothesis draws is the same every time, so that a failure can be looked at.
"""

import copy
import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import warnings
import zipfile
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.damage import DAMAGE, NO_FILES, damaged, no_file
from tests.test_bad_input import ANYTHING, SMALL
from tests.tiny import make_tiny_volumes, tiny_recipe
from vivit_edu import build_model, load_pretrained, load_volumes
from vivit_edu.errors import CheckpointError, VivitEduError
from vivit_edu.experiments import runs
from vivit_edu.experiments.pretraining import timm_names
from vivit_edu.experiments.runs import evaluate_run, read_run, train_run
from vivit_edu.support import torch_files
from vivit_edu.support.checkpoint import LATEST, PREVIOUS, read_newest
from vivit_edu.weights import files as weight_files

DRAWN = settings(max_examples=120, deadline=None, derandomize=True, database=None)
FEWER = settings(DRAWN, max_examples=50)  # where each takes a tenth of a second


class Evil:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.fixture(scope="module", autouse=True)
def nowhere_else(tmp_path_factory):
    """A folder in which executed code would show."""

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(
            runs, "load_volumes", lambda name, **o: make_tiny_volumes() if name == "tiny" else load_volumes(name, **o)
        )
        folder = tmp_path_factory.mktemp("work")
        patch.setenv("HOME", str(folder))
        patch.chdir(folder)
        yield folder
        assert not (folder / "executed").exists()


# ---- checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory, nowhere_else):
    """A run folder of two epochs, and the two checkpoints in it as bytes and as contents."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train_run(make_tiny_volumes(), tiny_recipe(epochs=2), out=folder, device="cpu", figures=False)
    return Run((folder, *[((folder / name).read_bytes(), torch.load(folder / name)) for name in (LATEST, PREVIOUS)]))


class Run(tuple):
    def __repr__(self):  # hypothesis shows what a test failed on
        return "a run"


def same(one, other):
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@DRAWN
@given(damage=DAMAGE)
@example(damage=[(0.5, 6)])
def test_a_damaged_checkpoint_is_read_as_it_was_or_passed_over_in_words(damage, run, nowhere_else):
    _, (latest, content), (previous, before) = run
    (nowhere_else / LATEST).write_bytes(damaged(latest, damage))
    (nowhere_else / PREVIOUS).write_bytes(previous)
    with redirect_stdout(io.StringIO()) as said:
        found = read_newest(nowhere_else)
    if same(found, before):
        assert (
            "A checkpoint is damaged" in said.getvalue()
            and "going on from checkpoint.previous.pt, after epoch 1" in said.getvalue()
        )
    else:
        assert same(found, content)


KEYS = ["epochs_done", "model", "averaged", "optimiser", "history", "recipe", "seed"]
TENSORS = st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=3))


@DRAWN
@given(content=st.one_of(ANYTHING, st.dictionaries(st.sampled_from(KEYS), ANYTHING | TENSORS)))
def test_what_is_no_checkpoint_is_refused(content, nowhere_else):
    (nowhere_else / PREVIOUS).unlink(missing_ok=True)
    torch.save(content, nowhere_else / LATEST)
    with pytest.raises(CheckpointError, match="no checkpoint in .* can be read"):
        read_newest(nowhere_else)


@FEWER
@given(
    where=st.sampled_from(
        [
            ("model",),
            ("averaged",),
            ("optimiser", "state"),
            ("optimiser", "state", 0),
            ("optimiser", "param_groups", 0),
            ("optimiser", "state", 0, "exp_avg"),
            ("history", 0),
            ("recipe",),
            ("recipe", "options"),
            (),
        ]
    ),
    key=st.sampled_from(
        ["head.weight", "exp_avg", "step", "lr", "params", "depth", "epochs_done", "seed", "loss", "epoch", 0, 1]
    ),
    value=ANYTHING | TENSORS,
)
def test_a_checkpoint_with_something_foreign_in_it_is_refused_or_trains_on(where, key, value, run, nowhere_else):
    """A resumed run ends in a message or in a whole history, and never inside torch."""
    folder, (latest, _), _ = run
    content = place = torch.load(io.BytesIO(latest))
    for step in where:
        place = place[step] if isinstance(place, (list, dict)) else {}
    if not isinstance(place, dict):
        return
    place[key] = value
    work = nowhere_else / "resumed"
    work.mkdir(exist_ok=True)
    (work / "run.json").write_bytes((folder / "run.json").read_bytes())
    torch.save(content, work / LATEST)
    try:
        metrics = train_run(
            make_tiny_volumes(), tiny_recipe(epochs=2), out=work, resume=True, device="cpu", figures=False
        )
    except VivitEduError as error:
        assert str(error).strip()
        return
    assert metrics["epochs"] == 2 and 0 <= metrics["test"]["auc"] <= 1


def archive_of(pickled, compression=zipfile.ZIP_STORED):
    """A file as torch writes it, but for the pickle in it."""
    torch.save({}, good := io.BytesIO())
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(new := io.BytesIO(), "w", compression) as archive:
        for name in old.namelist():
            archive.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return new.getvalue()


def before_archives(content):
    torch.save(content, file := io.BytesIO(), _use_new_zipfile_serialization=False)
    return file.getvalue()


HARM = {
    "code": archive_of(pickle.dumps(Evil(), 2)),
    "code, as torch wrote before 1.6": pickle.dumps(Evil(), 2),
    "code under the weights": archive_of(pickle.dumps({"head.weight": Evil()}, 2)),
    "eval": archive_of(b"\x80\x02cbuiltins\neval\nX\x13\x00\x00\x00open('executed','w')\x85R."),
    "a byte array of gigabytes": archive_of(b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R."),
    "a bare byte array of gigabytes": b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x7f\x85R.",
    "bare tensors, as torch wrote before 1.6": before_archives({"head.weight": torch.zeros(2)}),
    "compressed": archive_of(pickle.dumps({}, 2), zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_could_run_code_or_fill_the_memory_does_not_reach_torch(harm, nowhere_else, monkeypatch):
    if "code" not in harm and harm != "eval":  # torch refuses code itself; the rest it would have read
        monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    path = nowhere_else / LATEST
    path.write_bytes(HARM[harm])
    (nowhere_else / PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_newest(nowhere_else)
    with pytest.raises(CheckpointError, match="checkpoint.pt"):
        load_pretrained(MODEL, path)


def test_parts_that_share_their_bytes_are_not_read(nowhere_else):
    """An archive whose directory names the same megabyte a thousand times."""
    with zipfile.ZipFile(packed := io.BytesIO(), "w") as archive:
        archive.writestr("a/data/0", bytes(10**5))
        entry = archive.infolist()[0]
        archive.filelist += [entry] * 1000
    (nowhere_else / "bomb.pt").write_bytes(packed.getvalue())
    with pytest.raises(CheckpointError, match="would unpack to more than it holds"):
        load_pretrained(MODEL, nowhere_else / "bomb.pt")


def test_one_number_that_claims_to_be_many_is_not_spread_out(nowhere_else):
    torch.save({"head.weight": torch.zeros(1, dtype=torch.float16).expand(10**6, 10**6)}, nowhere_else / "wide.pt")
    with pytest.raises(CheckpointError, match="larger than the file"):
        load_pretrained(MODEL, nowhere_else / "wide.pt")


def nested(make, levels):
    """A value in which one of its kind stands twice in the next, and so on: a few bytes, and more parts than atoms."""
    value = torch.zeros(1)
    for _ in range(levels):
        value = make(value)
    return value


def cyclic(value):
    value = {"a": torch.zeros(1)}
    value["self"] = [value]
    return value


@pytest.mark.parametrize(
    "make, levels",
    [
        (lambda v: {"a": v, "b": v}, 45),
        (lambda v: [v, v], 45),
        (lambda v: (v, v), 45),
        (lambda v: {"a": [v, (v,)], "b": {"c": v}}, 20),
        (lambda v: [v], 200),
        (lambda v: {"a": v}, 200),
        (cyclic, 1),
        (lambda v: [v] * 1000, 3),
    ],
)
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"head.weight": v}, lambda v: {"model": {}, "history": [v]}])
def test_parts_within_parts_do_not_keep_us_for_ever(make, levels, wrap, nowhere_else, monkeypatch):
    monkeypatch.setattr(torch_files, "MOST_PARTS", 10**4)  # for speed
    (nowhere_else / PREVIOUS).unlink(missing_ok=True)
    torch.save(wrap(nested(make, levels)), nowhere_else / LATEST)
    assert (nowhere_else / LATEST).stat().st_size < 20_000
    with pytest.raises(CheckpointError, match="parts within parts without end"):
        load_pretrained(MODEL, nowhere_else / LATEST)
    with pytest.raises(CheckpointError, match="no checkpoint .*parts within parts without end"):
        read_newest(nowhere_else)


def with_pickle(path, pickled):
    """Writes an archive as torch does, with this pickle in it."""
    torch.save({"a": 1}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def tuples(levels, width=2):
    """Opcodes that leave one tuple on the stack, each of whose levels holds the one below it `width` times."""
    made = b"(" * levels + b"K\x01q\x00"
    for level in range(levels):
        made += (width - 1) * (b"h%c" % level) + b"tq%c" % (level + 1)
    return made


KEYS = {
    "a key": lambda tall: b"\x80\x02}" + tall + b"K\x02s.",
    "one key of several": lambda tall: b"\x80\x02}(K\x05K\x06" + tall + b"K\x02u.",
    "a key of a dict in a list": lambda tall: b"\x80\x02](K\x07}" + tall + b"K\x02se.",
    "a key of an OrderedDict": lambda tall: b"\x80\x02ccollections\nOrderedDict\n(](" + tall + b"K\x02\x86etR.",
}


@pytest.mark.parametrize("place", KEYS)
@pytest.mark.parametrize("levels, width", [(40, 2), (120, 2), (9, 100)])
def test_tuples_within_tuples_as_keys_do_not_keep_us_for_ever(place, levels, width, nowhere_else):
    """torch hashes a key part by part while it reads: 2⁴⁰ parts are some hours."""
    (nowhere_else / PREVIOUS).unlink(missing_ok=True)
    with_pickle(nowhere_else / LATEST, KEYS[place](tuples(levels, width)))
    assert (nowhere_else / LATEST).stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="parts within parts without end"):
        load_pretrained(MODEL, nowhere_else / LATEST)
    with pytest.raises(CheckpointError, match="no checkpoint .*parts within parts without end"):
        read_newest(nowhere_else)


@pytest.mark.parametrize("place", KEYS)
def test_a_few_tuples_are_read_as_torch_reads_them(place, nowhere_else):
    with_pickle(nowhere_else / "few.pt", KEYS[place](tuples(3)))
    few = torch_files.read_torch(nowhere_else / "few.pt")
    assert few == torch.load(nowhere_else / "few.pt", weights_only=True) and "(((1, 1), (1, 1)), ((1, 1)" in str(few)


def test_a_key_made_of_many_parts_counts_each_time_it_is_met(nowhere_else):
    """A tuple of a thousand numbers is no harm; as the key of ten thousand dicts it is hashed ten million times."""
    tall = b"(" + 1000 * b"K\x01" + b"tq\x00"
    many = b"\x80\x02](" + tall + 10_000 * b"}h\x00K\x02s" + b"e."
    with_pickle(nowhere_else / "many.pt", many)
    with pytest.raises(CheckpointError, match="parts within parts without end"):
        torch_files.read_torch(nowhere_else / "many.pt")


@pytest.mark.parametrize(
    "pickled", [b"\x80\x02h\x05.", b"\x80\x02t.", b"\x80\x02K\x01\x87.", b"\x80\x02s.", b"\x80\x02q\x00."]
)
def test_a_pickle_that_takes_what_was_never_there_is_damaged(pickled, nowhere_else):
    with_pickle(nowhere_else / "odd.pt", pickled)
    with pytest.raises(CheckpointError, match="is damaged: its part .*data.pkl breaks off"):
        torch_files.read_torch(nowhere_else / "odd.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize(
    "name", ["run.json", LATEST, PREVIOUS, "pretrained.json", "weights.pt", "weights.npz", "weights.safetensors"]
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(name, run, tmp_path):
    folder, (latest, _), _ = run
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    (tmp_path / "checkpoint.pt").write_bytes(latest)
    if name == PREVIOUS:
        (tmp_path / LATEST).write_bytes(b"damaged")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(VivitEduError, match=name):
        if name.startswith("weights"):
            load_pretrained(MODEL, tmp_path / name)
        elif name == "run.json":
            evaluate_run(tmp_path, device="cpu")
        else:
            train_run(
                make_tiny_volumes(), tiny_recipe(epochs=2), out=tmp_path, resume=True, device="cpu", figures=False
            )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_config_that_is_a_pipe_or_endless_is_passed_over(nowhere_else, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(STATE, path)
    config = tmp_path / "config.json"
    os.mkfifo(config)
    assert weight_files.read_weights(path)[1] == {}
    config.unlink()
    with open(config, "wb") as file:
        file.truncate(2**36)  # 64 GiB of nothing, which take no room
    assert weight_files.read_weights(path)[1] == {}


# ---- pretrained weights


IMAGE = build_model("spacetime", clip_shape=(1, 1, 8, 8), tubelet=(1, 4, 4), tokenizer="frames", pool="cls", **SMALL)
STATE = timm_names(IMAGE)
MODEL = build_model("spacetime", clip_shape=(1, 4, 8, 8), tubelet=(2, 4, 4), num_classes=3, **SMALL)


def load_or_refuse(weights):
    """The report, or None where they were refused; then the model is as it was. It is always one that works."""
    before = {name: tensor.clone() for name, tensor in MODEL.state_dict().items()}
    try:
        report = load_pretrained(MODEL, weights, heads=2)
    except VivitEduError as error:
        assert str(error).strip() and same(dict(MODEL.state_dict()), before)
        return None
    assert all(tensor.isfinite().all() for tensor in MODEL.state_dict().values())
    MODEL.load_state_dict(before)
    return report


def test_a_header_that_unpacks_to_gigabytes_is_not_unpacked(nowhere_else):
    """Version 2 of the format lets an array's header claim a length of 4 GiB, and zeros pack a thousandfold."""
    header = np.lib.format.magic(2, 0) + struct.pack("<I", 2**28) + b" " * 2**28
    with zipfile.ZipFile(nowhere_else / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("head.weight.npy", header)
    del header
    tracemalloc.start()
    with pytest.raises(VivitEduError, match="bomb.npz"):
        load_pretrained(MODEL, nowhere_else / "bomb.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**23


SHAPES = st.lists(st.integers(0, 9), max_size=5)
WEIGHT_TYPES = (
    torch.float32,
    torch.float16,
    torch.float64,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
)


@DRAWN
@given(
    name=st.sampled_from(sorted(STATE)),
    shape=SHAPES,
    dtype=st.sampled_from(WEIGHT_TYPES),
    value=st.sampled_from([0.5, np.nan, np.inf]),
)
def test_a_tensor_of_another_kind_is_refused(name, shape, dtype, value):
    tensor = torch.full(shape, value).to(dtype)
    report = load_or_refuse(STATE | {name: tensor})
    if report is None:
        return
    assert dtype.is_floating_point and tensor.float().isfinite().all()
    assert (
        list(STATE[name].shape) == shape or name in ("pos_embed", "patch_embed.proj.weight") or "fresh" in str(report)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", sorted(set(STATE) - {"cls_token"}))  # which MODEL has no place for
def test_a_number_that_is_none_is_refused_in_every_tensor(name, value):
    tensor = STATE[name].clone()
    tensor.view(-1)[-1] = value
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_pretrained(MODEL, STATE | {name: tensor}, heads=2)


@pytest.fixture(scope="module")
def other_layouts():
    """The same weights as Hugging Face names them, queries, keys and values apart."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=8,
        patch_size=4,
        num_channels=1,
    )
    return ViTModel(config, add_pooling_layer=False).state_dict()


@DRAWN
@given(number=st.integers(0, 100), shape=SHAPES)
def test_a_tensor_of_another_shape_in_another_layout_is_refused(number, shape, other_layouts):
    name = sorted(other_layouts)[number % len(other_layouts)]
    report = load_or_refuse(other_layouts | {name: torch.ones(shape)})
    assert (
        report is None
        or list(other_layouts[name].shape) == shape
        or name.endswith(("position_embeddings", "projection.weight"))
    )


def test_these_weights_are_good(other_layouts):
    assert load_or_refuse(STATE) is not None and load_or_refuse(other_layouts) is not None


@DRAWN
@given(
    changes=st.dictionaries(st.sampled_from([*sorted(STATE), "nonsense"]), ANYTHING | TENSORS, min_size=1),
    gone=st.integers(0, len(STATE)),
)
def test_mappings_of_anything_are_refused(changes, gone):
    kept = dict(list(STATE.items())[gone:])
    foreign = any(not isinstance(value, torch.Tensor) for value in changes.values())
    assert not (load_or_refuse(kept | changes) and foreign)


@pytest.fixture(scope="module", params=[".safetensors", ".pt", ".npz"])
def weight_file(request, nowhere_else):
    path = nowhere_else / f"weights{request.param}"
    if request.param == ".safetensors":
        save_file(STATE, path)
    elif request.param == ".pt":
        torch.save(STATE, path)
    else:
        np.savez(path, **{name: tensor.numpy() for name, tensor in STATE.items()})
    return path, path.read_bytes()


@DRAWN
@given(damage=DAMAGE)
def test_a_damaged_file_of_weights_is_refused_or_read_as_it_was(damage, weight_file):
    """Save that a .safetensors file has no checksum: there a turned bit is found only where it shows."""
    path, content = weight_file
    path.write_bytes(damaged(content, damage))
    report = load_or_refuse(path)
    if report and path.suffix != ".safetensors":
        read = weight_files.read_file(path)
        assert same({name: torch.as_tensor(values) for name, values in read.items()}, STATE)


NUMBERS = st.one_of(st.integers(-1, 70), st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1, 10**30, 0.5, None, "8"]))
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "F8_E4M3", "Q4", "", 7]),
        "shape": st.lists(NUMBERS, max_size=4) | ANYTHING.filter(lambda v: not isinstance(v, bytes)),
        "data_offsets": st.lists(NUMBERS, max_size=3),
    },
)


@DRAWN
@given(
    header=st.dictionaries(st.sampled_from([*sorted(STATE)[:4], "__metadata__"]), ENTRIES, max_size=4),
    claimed=st.one_of(st.none(), st.sampled_from([0, 1, 7, 2**20, 2**33, 2**63, 2**64 - 1])),
)
@example(header={"a": {"dtype": "F32", "shape": [2**33], "data_offsets": [0, 2**35]}}, claimed=None)
@example(
    header={
        "a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
        "b": {"dtype": "F32", "shape": [8], "data_offsets": [16, 48]},
    },
    claimed=None,
)
@example(header={}, claimed=2**62)
def test_crafted_safetensors_are_refused(header, claimed, nowhere_else):
    text = json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if claimed is None else claimed)
    path = nowhere_else / "crafted.safetensors"
    path.write_bytes(length + text + bytes(64))
    assert load_or_refuse(path) is None


@pytest.mark.parametrize("heads", ["2", "²", "9" * 5000, "-2", "0", "", "two"])
def test_what_weights_say_of_their_heads_is_a_number_or_refused(heads, nowhere_else):
    path, config = nowhere_else / "heads.safetensors", nowhere_else / "config.json"
    for metadata, text in (({"num_attention_heads": heads}, None), (None, json.dumps({"num_attention_heads": heads}))):
        config.unlink(missing_ok=True)
        save_file(STATE, path, metadata=metadata)
        if text:
            config.write_text(text)
        if heads == "2":
            assert weight_files.read_weights(path)[1]["heads"] == 2
        else:
            with pytest.raises(CheckpointError, match=r"num_attention_heads=.{1,40}, which cannot be right"):
                weight_files.read_weights(path)
    config.unlink()


# ---- run folders


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def refused_or(call, *arguments, **options):
    try:
        return call(*arguments, **options)
    except VivitEduError as error:
        assert str(error).strip()


@FEWER
@given(
    where=st.sampled_from([(), ("recipe",), ("recipe", "options"), ("recipe", "augmentation")]),
    key=st.sampled_from(
        [
            "dataset",
            "size",
            "root",
            "seed",
            "recipe",
            "videos",
            "model",
            "options",
            "augmentation",
            "lr",
            "heads",
            "shift",
            "x",
        ]
    ),
    value=JSONS,
)
@example(where=("recipe", "options"), key="heads", value=4)
@example(where=(), key="size", value=64)
@example(where=(), key="videos", value={"folder": "x", "frames": 0, "seed": 0})
def test_a_garbled_run_json_is_refused_or_changes_no_figure(where, key, value, run, nowhere_else):
    folder, (latest, _), _ = run
    content = place = json.loads((folder / "run.json").read_text())
    for step in where:
        place = place[step]
    place[key] = value
    work = nowhere_else / "garbled"
    work.mkdir(exist_ok=True)
    (work / "run.json").write_text(json.dumps(content))
    (work / LATEST).write_bytes(latest)
    metrics = json.loads((folder / "metrics.json").read_text())
    found = refused_or(evaluate_run, work, device="cpu")
    assert found is None or found["test"].auc == metrics["test"]["auc"]
    again = refused_or(
        train_run, make_tiny_volumes(), tiny_recipe(epochs=2), out=work, resume=True, device="cpu", figures=False
    )
    assert again is None or again["test"] == metrics["test"]


@DRAWN
@given(
    content=st.one_of(
        st.binary(max_size=30), JSONS.map(lambda value: json.dumps(value).encode()), st.just(b"[" * 10**5)
    )
)
def test_a_run_json_of_anything_is_refused(content, nowhere_else):
    work = nowhere_else / "anything"
    work.mkdir(exist_ok=True)
    (work / "run.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="run.json cannot be read"):
        read_run(work)


def test_nan_in_a_checkpoint_is_called_what_it_is(run, tmp_path):
    """And not too large a step of the training that goes on from it."""
    folder, (_, content), _ = run
    work, content = tmp_path / "run", copy.deepcopy(content)
    shutil.copytree(folder, work)
    next(iter(content["model"].values())).view(-1)[0] = float("nan")
    torch.save(content, work / LATEST)
    with pytest.raises(CheckpointError, match="holds NaN or infinity in 1 tensors"):
        train_run(make_tiny_volumes(), tiny_recipe(epochs=2), out=work, resume=True, device="cpu", figures=False)


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_nan_in_the_optimisers_state_is_called_what_it_is(name, value, run, tmp_path):
    folder, (_, content), _ = run
    work, content = tmp_path / "run", copy.deepcopy(content)
    shutil.copytree(folder, work)
    content["optimiser"]["state"][3][name].view(-1)[-1] = value
    torch.save(content, work / LATEST)
    with pytest.raises(CheckpointError, match="holds NaN or infinity in the state of its optimiser"):
        train_run(make_tiny_volumes(), tiny_recipe(epochs=2), out=work, resume=True, device="cpu", figures=False)


@pytest.mark.parametrize("name", ["run.json", LATEST])
def test_what_lies_in_the_place_of_a_run_is_called_what_it_is(name, run, tmp_path):
    folder, (latest, _), _ = run
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    (tmp_path / LATEST).write_bytes(latest)
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(CheckpointError, match=f"{name}.* a Git LFS pointer"):
        evaluate_run(tmp_path, device="cpu")


@pytest.mark.parametrize("weights", ["", " ", "\n"])
def test_an_empty_name_is_not_the_folder_one_works_in(weights):
    with pytest.raises(VivitEduError, match="weights must be the path of a file of weights"):
        load_pretrained(MODEL, weights)


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin", ".npz"])
@pytest.mark.parametrize(
    "content, kind",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer.* `git lfs pull`"),
        (b"\n<!DOCTYPE html><html><head><title>Log in</title>", "an HTML page"),
        (b"", "an empty file"),
    ],
)
def test_what_lies_in_the_place_of_weights_is_called_what_it_is(tmp_path, ending, content, kind):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"model{ending} holds no weights: it is {kind}"):
        load_pretrained(build_model("spacetime", **SMALL), path)


def test_a_home_that_nobody_has():
    with pytest.raises(CheckpointError, match="~no-such-user/x.pt: there is no user of that name"):
        load_pretrained(build_model("spacetime", **SMALL), "~no-such-user/x.pt")


@pytest.mark.parametrize("foreign", ["run.json", LATEST, "pretrained.json", "history.json", "metrics.json"])
def test_a_folder_in_the_place_of_a_file(foreign, run, tmp_path):
    folder, (latest, _), _ = run
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    (tmp_path / LATEST).write_bytes(latest)
    (tmp_path / foreign).unlink(missing_ok=True)
    (tmp_path / foreign).mkdir()
    with pytest.raises(VivitEduError, match=foreign):
        train_run(make_tiny_volumes(), tiny_recipe(epochs=2), out=tmp_path, resume=True, device="cpu", figures=False)


# ---- what is no file, and files of another kind


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.npz", "w", "model/model.safetensors"])
def test_what_is_no_file_of_weights_is_called_what_it_is(kind, words, name, tmp_path):
    (tmp_path / "model").mkdir()
    path = no_file(kind, tmp_path / name)
    if kind == "folder" and name != "model/model.safetensors":  # in which a model may lie
        path, words = path / "model.safetensors", "there is no file"
    with pytest.raises(CheckpointError, match=words):
        load_pretrained(MODEL, tmp_path / name.removesuffix("/model.safetensors"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind, words", NO_FILES.items())
@pytest.mark.parametrize("name", ["run.json", LATEST, "pretrained.json"])
def test_what_is_no_file_of_a_run_is_called_what_it_is(kind, words, name, run, tmp_path):
    folder, (latest, _), _ = run
    (tmp_path / "run.json").write_bytes((folder / "run.json").read_bytes())
    (tmp_path / LATEST).write_bytes(latest)
    no_file(kind, tmp_path / name)
    with pytest.raises(CheckpointError, match=f"{name} is {words}, not a file"):
        if name == "pretrained.json":
            runs.first_weights(tmp_path)
        else:
            evaluate_run(tmp_path, device="cpu")


def lists(levels):
    """Opcodes that leave one list on the stack, each of whose levels holds the one below it twice."""
    made = b"](K\x01K\x01eq\x00"
    for level in range(levels):
        made = b"](" + made + b"h%ceq%c" % (level, level + 1)
    return made


@pytest.mark.parametrize("made", ["torch\nFloatTensor", "torch\nTensor", "torch.cuda\nHalfTensor"])
@pytest.mark.parametrize("levels", [0, 30, 70])
def test_tensors_are_not_made_of_lists(made, levels, nowhere_else):
    """torch would call the class on lists that hold each other: 2³⁰ numbers are a minute and gigabytes."""
    with_pickle(nowhere_else / "lists.pt", b"\x80\x02c" + made.encode() + b"\n" + lists(levels) + b"\x85R.")
    with pytest.raises(CheckpointError, match="a tensor that torch.* would make from lists"):
        torch_files.read_torch(nowhere_else / "lists.pt")


def test_a_tensor_with_an_attribute_is_told_how_to_be_saved(nowhere_else):
    tensor = torch.ones(2)
    tensor.remark = "of my own"
    torch.save({"weight": tensor}, nowhere_else / "remarks.pt")
    with pytest.raises(CheckpointError, match=r"attributes of its own: not read. Save plain tensors.*clone"):
        torch_files.read_torch(nowhere_else / "remarks.pt")
    torch.save({"weight": tensor.detach().clone()}, nowhere_else / "plain.pt")
    assert torch_files.read_torch(nowhere_else / "plain.pt")["weight"].equal(torch.ones(2))


@pytest.mark.parametrize("pickled", [b"", b"\x80\x02}", b"\x80\x02\xff\xfe.", b"\x80\x02I" + b"9" * 5000 + b"\n."])
def test_what_is_no_pickle_is_damaged(pickled, nowhere_else):
    with_pickle(nowhere_else / "odd.pt", pickled)
    with pytest.raises(CheckpointError, match="is damaged: its part .*data.pkl breaks off"):
        torch_files.read_torch(nowhere_else / "odd.pt")


def test_files_under_another_name_and_cut_ones_are_called_what_they_are(nowhere_else):
    save_file(STATE, nowhere_else / "a.safetensors")
    torch.save(STATE, nowhere_else / "a.pt")
    tensors, archive = ((nowhere_else / name).read_bytes() for name in ("a.safetensors", "a.pt"))
    for name, content, says in (
        ("b.safetensors", archive, "is a zip archive, as .pt and .npz files are: give it its own ending"),
        ("b.pt", tensors, "begins as a .safetensors file: give it that ending"),
        ("b.npz", tensors, "begins as a .safetensors file: give it that ending"),
        ("b.npz", archive, "holds no array of NumPy's"),
        ("b.pt", archive[:-40], "is not the whole of an archive"),
        ("b.safetensors", tensors[:-1], "cannot be read as a .safetensors file"),
        ("b.safetensors", b'{"error": "not found"}', "holds no weights: it is a text, which begins with '{\"error"),
        ("b.pt", b"Entry not found", "holds no weights: it is a text, which begins with 'Entry not"),
        ("b.npz", b"404: Not Found", "holds no weights: it is a text"),
    ):
        (nowhere_else / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=says):
            load_pretrained(MODEL, nowhere_else / name)
