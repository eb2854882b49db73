"""Lists of videos as people have them, and data sets with splits of their own, few files or one long file."""

import os
import warnings
from collections import Counter

import pytest
import torch

from tests.damage import NO_FILES, no_file
from tests.datasets.test_video import encode, ramp
from vivit_edu import load_videos
from vivit_edu.datasets import decoding, video_splits
from vivit_edu.datasets.video_lists import read_list
from vivit_edu.errors import ConfigError, DataError

av = pytest.importorskip("av")
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Eight films of 24 frames, each of one brightness: 0.mp4 is black, 7.mp4 nearly white."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(8):
        encode(folder / f"{i}.mp4", ramp(24, 16, 16) * 0 + 32 * i)
    return folder


def put(film, path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((film / f"{number}.mp4").read_bytes())
    return path


def listed(path, *, clips=1, **options):
    """{split: [(file's name, label, part)]} of what would be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = video_splits.list_videos(path, frames=2, size=8, clips=clips, **options)
    return {s: [(files.names[c.path], c.label, c.part) for c in files.splits[s]] for s in SPLITS}


# ---- lists

FORMS = {
    "CSV": ("train.csv", "path,label\n{0},run\n{1},run\n{2},run\n{3},sit\n{4},sit\n{5},sit\n"),
    "columns in another order": (
        "l.csv",
        "no,class,file\n1,run,{0}\n2,run,{1}\n3,run,{2}\n4,sit,{3}\n5,sit,{4}\n6,sit,{5}",
    ),
    "of a spreadsheet": (
        "l.csv",
        "\ufeffPath;Label\r\n{0};run\r\n{1};run\r\n{2};run\r\n{3};sit\r\n{4};sit\r\n{5};sit\r\n",
    ),
    "tabs": ("l.tsv", "video_path\tlabel\n{0}\trun\n{1}\trun\n{2}\trun\n{3}\tsit\n{4}\tsit\n{5}\tsit\n"),
    "mmaction": ("list.txt", "{0} 0\n{1} 0\n{2} 0\n\n{3} 10\n{4} 10\n{5} 10\n"),
    "PySlowFast": ("train.csv", "{0} 0\n{1} 0\n{2} 0\n{3} 10\n{4} 10\n{5} 10\n"),
    "commas without titles": ("l.csv", "{0},run\n{1},run\n{2},run\n{3},sit\n{4},sit\n{5},sit"),
    "quoted": ("l.csv", 'path,label\n"{0}",run\n"{1}",run\n"{2}",run\n"{3}",sit\n"{4}",sit\n"{5}",sit\n'),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["a{}.mp4", "deep/er/a {}.mp4", "über, {}.mp4"])
def test_a_list_in_every_form_is_read(form, name, film, tmp_path):
    if ", " in name and form in ("CSV", "columns in another order"):
        pytest.skip("a comma belongs in quotation marks there")
    paths = [name.format(i) for i in range(6)]
    for i, path in enumerate(paths):
        put(film, tmp_path / path, i)
    ending, text = FORMS[form]
    (tmp_path / ending).write_bytes(text.format(*paths).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = video_splits.list_videos(tmp_path / ending, frames=2, size=8)
    found = {files.names[cut.path]: files.class_names[cut.label] for cuts in files.splits.values() for cut in cuts}
    names = ("0", "10") if " 0" in text else ("run", "sit")
    assert files.class_names == names and files.name == f"videos-{ending.split('.')[0]}"
    assert found == {path: names[i >= 3] for i, path in enumerate(paths)}
    assert [len(files.splits[s]) for s in SPLITS] == [2, 2, 2]


def test_numbers_as_labels_are_in_their_order_and_clips_have_the_label_of_their_line(film, tmp_path):
    """Each film has a brightness of its own, so a clip tells which file it is from."""
    for i in range(8):
        put(film, tmp_path / f"{i}.mp4", i)
    lines = [f"{i}.mp4 {(2, 10)[i % 2]}" for i in range(8)]
    (tmp_path / "l.txt").write_text("\n".join(lines))
    volumes = load_videos(tmp_path / "l.txt", frames=2, size=8)
    assert volumes.class_names == ("2", "10")
    for split in (volumes.train, volumes.val, volumes.test):
        shades = (split.clips.float().mean(dim=(1, 2, 3, 4)) / 32).round().long()
        assert torch.equal(shades % 2, split.labels)


def test_a_column_of_splits_and_absolute_paths(film, tmp_path):
    rows = [(i, ("run", "sit")[i % 2], ("train", "validate", "test", "train")[i // 2]) for i in range(8)]
    text = "label,path,split\n" + "".join(f"{label},{film / f'{i}.mp4'},{split}\n" for i, label, split in rows)
    (tmp_path / "l.csv").write_text(text)
    found = listed(tmp_path / "l.csv")
    assert {s: sorted(int(name[-5]) for name, *_ in found[s]) for s in SPLITS} == {
        "train": [0, 1, 6, 7], "val": [2, 3], "test": [4, 5]
    }  # fmt: skip


def test_kinetics_finds_files_by_their_id_and_counts_those_that_were_withdrawn(film, tmp_path):
    put(film, tmp_path / "videos" / "tai chi" / "-aB_1_000010_000020.mp4", 0)
    put(film, tmp_path / "videos" / "zumba" / "-aB_1_000010_000020.mp4", 1)  # of two the one in its label's folder
    put(film, tmp_path / "videos" / "zz_000007_000017.mp4", 2)
    put(film, tmp_path / "videos" / "y_000000_000010.mkv", 3)
    text = "label,youtube_id,time_start,time_end,split,is_cc\n"
    text += "zumba,-aB_1,10,20,train,0\ntai chi,zz,7,17,train,0\ntai chi,y,0,10,val,0\ntai chi,gone,3,13,test,1\n"
    (tmp_path / "k.csv").write_text(text)
    left_out = Counter()
    rows = read_list(tmp_path / "k.csv", left_out)
    assert [(row.name, row.label, row.split) for row in rows] == [
        ("videos/zumba/-aB_1_000010_000020.mp4", "zumba", "train"),
        ("videos/zz_000007_000017.mp4", "tai chi", "train"),
        ("videos/y_000000_000010.mkv", "tai chi", "val"),
    ]
    assert dict(left_out) == {"of k.csv: not there (line 5: gone_000003_000013)": 1}


FAULTY = {
    "a file that is not there": (
        "l.csv",
        "path,label\na.mp4,run\nb/none.mp4,sit\n",
        "1 of 2.*line 3: b/none.mp4.*relative to",
    ),
    "many": ("l.txt", "a.mp4 0\n" + "".join(f"{i}.mp4 1\n" for i in range(9)), "9 of 10 files.*line 6: 4.mp4; …"),
    "no label": ("l.txt", "a.mp4 0\na.mp4\n", "line 2: 'a.mp4' has no label"),
    "an empty label": ("l.csv", "path,label\na.mp4,\n", "line 2 has no label"),
    "a column too many": ("l.csv", "path,label\na.mp4,run,fast\n", "line 2 has 3 columns, and the titles are 2"),
    "titles that nobody knows": (
        "l.csv",
        "name,kind\na.mp4,run\n",
        "line 1: 'name,kind' is neither.*nor a line of titles",
    ),
    "a split that nobody knows": (
        "l.csv",
        "path,label,split\na.mp4,run,exam\n",
        "line 2: the split 'exam' is not known",
    ),
    "two labels": ("l.txt", "a.mp4 0\nsame/../a.mp4 1\n", "line 2: same/../a.mp4 is in line 1 already.*other labels"),
    "two splits": ("l.csv", "path,label,split\na.mp4,x,train\na.mp4,x,test\n", "line 3.*line 2 already.*other splits"),
    "nothing": ("l.csv", "\n \n", "is empty"),
    "a pointer": ("l.csv", "version https://git-lfs.github.com/spec/v1\noid 1\n", "is no list.*a Git LFS pointer"),
    "a page": ("l.txt", "<!DOCTYPE html><html>\n", "is no list of videos: it is an HTML page"),
    "titles alone": ("l.csv", "path,label\n", "names no video"),
    "another alphabet": ("l.csv", "path,label\n".encode("utf-16"), "not a text in UTF-8"),
    "bytes": ("l.csv", b"path,label\na.mp4\0,run\n", "not there"),
    "no video": ("l.txt", "a.mp4 0\nl.txt 1\n", "line 2: l.txt is no video .text"),
    "a video that is broken": ("l.txt", "a.mp4 0\nbad.mp4 1\n", "line 2: bad.mp4 cannot be decoded"),
    "pictures in folders": ("l.txt", "same 120 3\n", "1 of 1.*line 1: same 120.*describe pictures"),
    "one class": ("l.txt", "a.mp4 0\n", "at least two classes.*found: 0"),
    "a list in a list": ("l.csv", "path,label\n~nobody-here/a.mp4,x\n", "not there"),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "dead", "circle"])
@pytest.mark.parametrize("name", ["b.mp4", "b"])
def test_a_line_that_names_no_file_is_told_what_it_names(kind, name, film, tmp_path):
    put(film, tmp_path / "a.mp4", 0)
    no_file(kind, tmp_path / name)
    for text in (f"path,label\na.mp4,x\n{name},y\n", f"a.mp4 x\na.mp4 x\n{name} y\n"):
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(DataError, match=f"l.csv, line 3: .*{name} is {NO_FILES[kind]}, not a file"):
            listed(tmp_path / "l.csv")


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_list_is_told_with_file_and_line(fault, film, tmp_path):
    name, text, says = FAULTY[fault]
    put(film, tmp_path / "a.mp4", 0)
    (tmp_path / "same").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no film" * 99)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=says) as told:
        load_videos(tmp_path / name, frames=2, size=8)
    assert name in str(told.value)


# ---- splits of their own


def classes(film, folder, count, start=0, names=("a", "b")):
    """Folders of classes with so many files each; no file is twice in the same folder."""
    for k, name in enumerate(names):
        for i in range(count):
            put(film, folder / name / f"{start + i}.mp4", (2 * (start + i) + k) % 8)
    return folder


def names_in(found):
    return {split: sorted({name for name, *_ in items}) for split, items in found.items()}


def test_folders_or_lists_for_val_and_test(film, tmp_path):
    train, held, last = (classes(film, tmp_path / n, c, s) for n, c, s in (("t", 1, 0), ("v", 1, 1), ("e", 2, 2)))
    assert names_in(listed(train, val=held, test=last)) == {
        "train": ["a/0.mp4", "b/0.mp4"],
        "val": ["val/a/1.mp4", "val/b/1.mp4"],
        "test": ["test/a/2.mp4", "test/a/3.mp4", "test/b/2.mp4", "test/b/3.mp4"],
    }
    # without a test, half of what is held out is it; without val, some of the training files
    found = listed(train, val=last)
    assert [len(found[s]) for s in SPLITS] == [2, 2, 2] and all(n.startswith("val/") for n, *_ in found["test"])
    found = listed(last, test=held)
    assert [len(found[s]) for s in SPLITS] == [2, 2, 2] and all("/" in n and n[:4] != "test" for n, *_ in found["val"])
    (tmp_path / "v.txt").write_text("v/a/1.mp4 a\nv/b/1.mp4 b\n")
    assert listed(train, val=tmp_path / "v.txt", test=last)["val"] == [("val/v/a/1.mp4", 0, 0), ("val/v/b/1.mp4", 1, 0)]


def test_the_held_out_folder_may_be_inside(film, tmp_path):
    classes(film, tmp_path / "d", 2)
    classes(film, tmp_path / "d" / "val", 2, 2)
    assert names_in(listed(tmp_path / "d", val=tmp_path / "d" / "val"))["train"] == [
        f"{c}/{i}.mp4" for c in "ab" for i in (0, 1)
    ]


@pytest.mark.parametrize("there", [("train", "val"), ("train", "test"), ("train",)])
def test_folders_for_some_of_the_splits_are_enough(there, film, tmp_path):
    for n, split in enumerate(there):
        classes(film, tmp_path / split, 4 if len(there) == 1 else 2, 2 * n)
    found = names_in(listed(tmp_path))
    assert all(found.values()) and sum(map(len, found.values())) == 8
    for split in there[1:]:
        assert all(name.startswith(f"{split}/") for name in found[split])


def test_what_was_given_twice_or_fits_nowhere_is_refused(film, tmp_path):
    for split in SPLITS:
        classes(film, tmp_path / "all" / split, 1, SPLITS.index(split))
    with pytest.raises(DataError, match="has the split val already"):
        listed(tmp_path / "all", val=classes(film, tmp_path / "other", 1))
    own = classes(film, tmp_path / "own", 1)
    with pytest.raises(DataError, match=r"a/0.mp4 and val/a/0.mp4 are the same file, once in val"):
        listed(own, val=own)
    strange = classes(film, tmp_path / "strange", 1, 1, ("a", "c"))
    with pytest.raises(DataError, match="strange has classes that train does not have: c"):
        listed(own, val=strange, test=strange)
    with pytest.raises(DataError, match="not a folder"):
        listed(own, val=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="val must be the path"):
        listed(own, val="")
    with pytest.raises(ConfigError, match="clips must be at least 1"):
        listed(own, clips=0)


def test_a_file_under_another_name_in_another_split_is_noticed(film, tmp_path):
    for split, number in zip(SPLITS, (0, 2, 0)):
        put(film, tmp_path / split / "a" / f"{split}.mp4", number)
        put(film, tmp_path / split / "b" / f"{split}.mp4", number + 1)
    with pytest.warns(UserWarning, match=r"2 video\(s\) are in several splits.*train/a/train.mp4 in train = test"):
        load_videos(tmp_path, frames=2, size=8)


def test_a_link_to_a_file_does_not_bring_it_into_two_splits(film, tmp_path):
    classes(film, tmp_path, 3)
    try:
        (tmp_path / "a" / "link.mp4").symlink_to(tmp_path / "a" / "0.mp4")
        (tmp_path / "b" / "link.mp4").symlink_to(tmp_path / "b" / "0.mp4")
    except OSError:
        pytest.skip("this system makes no links")
    found = listed(tmp_path)
    assert sum(map(len, found.values())) == 6


# ---- one long file


def test_clips_of_a_file_do_not_overlap_and_cover_it(tmp_path):
    path = encode(tmp_path / "a.mp4", ramp(20))
    clips = decoding.load_clips(path, frames=2, size=16, clips=5)
    shades = (clips.float().mean(dim=(1, 3, 4)) / 12).round().long()
    assert clips.shape == (5, 3, 2, 16, 16) and shades.tolist() == [[1, 3], [5, 7], [9, 11], [13, 15], [17, 19]]
    dense = decoding.load_clips(path, frames=3, size=16, clips=2, step=1).float().mean(dim=(1, 3, 4)) / 12
    assert dense.round().long().tolist() == [[4, 5, 6], [14, 15, 16]] or (dense[0].max() < 9.5 < dense[1].min())
    with pytest.raises(DataError, match="a.mp4 has 20 frames: too few for 11 clips.*ask for 10 or fewer"):
        decoding.load_clips(path, frames=2, size=16, clips=11)


def test_a_class_with_too_few_files_is_told_what_to_do(film, tmp_path):
    classes(film, tmp_path / "one", 1)
    with pytest.raises(DataError, match=r"class a.*1 video file.*at least three.*--val and --test.*--clips 10"):
        listed(tmp_path / "one")
    with pytest.raises(DataError, match="2 clips of a file cannot be in 3 splits: ask for more --clips"):
        listed(tmp_path / "one", clips=2)
    with pytest.raises(DataError, match="class a of .*/v holds.*at least two.*or --test., or divide"):
        listed(tmp_path / "one", val=classes(film, tmp_path / "v", 1, 1))


def test_one_long_file_is_split_by_time_and_that_is_said(film, tmp_path):
    classes(film, tmp_path / "v", 1)
    with pytest.warns(UserWarning, match="2 files in train and val and test .a/0.mp4, b/0.*not independent.*flatter"):
        volumes = load_videos(tmp_path / "v", frames=2, size=8, clips=10)
    assert [len(s) for s in (volumes.train, volumes.val, volumes.test)] == [12, 4, 4]
    found = listed(tmp_path / "v", clips=10)
    parts = {s: [part for name, _, part in found[s] if name == "a/0.mp4"] for s in SPLITS}
    assert parts == {"train": [0, 1, 2, 3, 4, 5], "val": [6, 7], "test": [8, 9]}
    assert {told.split(" ")[0] for told in volumes.files.values()} == {"train+val+test"}


def test_of_two_files_one_is_for_training_alone(film, tmp_path):
    classes(film, tmp_path / "v", 2)
    with pytest.warns(UserWarning, match="2 files in val and test.*choices made on val"):
        video_splits.list_videos(tmp_path / "v", frames=2, size=8, clips=4)
    found = names_in(listed(tmp_path / "v", clips=4))
    assert found["val"] == found["test"] and not set(found["train"]) & set(found["test"])


def test_of_enough_files_no_two_splits_share_one(film, tmp_path):
    classes(film, tmp_path / "v", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = video_splits.list_videos(tmp_path / "v", frames=2, size=8, clips=3)
    assert video_splits.shared_files(files.in_splits()) == ""
    found = listed(tmp_path / "v", clips=3)
    assert [len(found[s]) for s in SPLITS] == [12, 6, 6]
    assert not any(set(names_in(found)[a]) & set(names_in(found)[b]) for a, b in (SPLITS[:2], SPLITS[1:], SPLITS[::2]))
