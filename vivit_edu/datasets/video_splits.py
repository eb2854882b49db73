"""Which videos there are, and in which split: folders of classes or lists, whole files wherever there are enough."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..errors import DataError
from ..support.files import check_regular, shown
from ..support.options import check_path, check_seed, check_whole
from ..volumes import SPLITS
from .decoding import check_numbers
from .video_folders import NO_VIDEO, files_in, real, subfolders, videos_in, why_no_video
from .video_lists import read_list

HELD_OUT = {"val": 0.15, "test": 0.15}  # of the files of each class, at least one
FEW = 3  # files that a message names


class Cut(NamedTuple):
    """A clip before it is decoded: its file, its class, and which of the file's parts it is."""

    path: Path
    label: int
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class VideoFiles:
    """The videos of a data set before any of them is decoded."""

    name: str  # of the data set: "videos-" and the name of the folder or list
    class_names: tuple[str, ...]
    folder: Path  # or list
    splits: dict[str, list[Cut]]  # "train", "val", "test"
    names: dict[Path, str]  # of each file, as messages and runs have it
    left_out: dict[str, int]  # how many files are not used, by the reason
    seen: str = ""  # where all of this was found, for `clip_cache`

    def in_splits(self) -> dict[str, str]:
        """{name of a file: its split}; "train+val+test" where its clips are in several."""
        found: dict[str, list[str]] = {}
        for split in SPLITS:
            for cut in self.splits[split]:
                places = found.setdefault(self.names[cut.path], [])
                places += [split] * (split not in places)
        return {name: "+".join(places) for name, places in found.items()}


Pools = dict[str, dict[str, list[tuple[Path, str]]]]  # split ("" where it is open) -> class -> (file, its name)


def list_videos(
    folder: Path | str,
    *,
    frames: int,
    size: int,
    step: int | None = None,
    seed: int = 0,
    val: Path | str | None = None,
    test: Path | str | None = None,
    clips: int = 1,
) -> VideoFiles:
    """What `load_videos` would read, and all of its checks that need no frame to be decoded: a quick look before a run.

    The arguments, the errors and the warnings are those of `load_videos`. Every file is opened, so one that cannot
    be is named here.
    """
    check_whole("clips", clips, 1)
    check_numbers(frames, size, clips, step)
    check_seed(seed)
    check_path("folder", folder, "a folder of videos")
    folder, left_out = Path(folder), Counter()
    held = {"val": val, "test": test}
    for split, place in held.items():
        if place is not None:
            check_path(split, place, "a folder of videos")
            held[split] = Path(place)
    held = {split: place for split, place in held.items() if place is not None}
    pools = found_in(folder, left_out, [real(place) for place in held.values()])
    for split, place in held.items():
        if split in pools:
            raise DataError(f"{folder} has the split {split} already, and {place} was given for it: give one of them")
        inside = found_in(place, left_out)
        if "" not in inside and split not in inside:
            raise DataError(f"{place} has the splits {', '.join(inside)}, and was given for {split}")
        found = inside[""] if "" in inside else inside[split]
        pools[split] = {name: [(path, f"{split}/{told}") for path, told in items] for name, items in found.items()}
    if "" in pools:
        pools["train"] = pools.pop("")
    if not pools.get("train"):
        raise DataError(f"{folder} has no split train: expected files to train on")
    class_names = in_order(pools["train"])
    if len(class_names) < 2:
        raise DataError(
            f"{folder} must hold at least two classes, a sub-folder or a label for each; found: "
            f"{', '.join(class_names) or 'none'}"
        )
    for split in pools:
        if strangers := set(pools[split]) - set(class_names):
            where = held.get(split, folder / split if folder.is_dir() else folder)
            raise DataError(f"{where} has classes that train does not have: {', '.join(sorted(strangers))}")
    names = only_once(pools, left_out)
    splits = dealt(pools, class_names, {split: held.get(split, folder) for split in pools}, seed, clips)
    told = f"videos-{real(folder).name if folder.is_dir() else folder.stem}"
    seen = " ".join(str(real(place)) for place in (folder, *held.values()))
    class_names, told = tuple(map(in_utf8, class_names)), in_utf8(told)
    files = VideoFiles(told, class_names, folder, splits, names, dict(left_out), seen)
    used, unused = len(names), sum(left_out.values())
    if unused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        warnings.warn(f"{files.name}: {used} of {used + unused} files are used. Left out: {reasons}.", stacklevel=3)
    for split, cuts in splits.items():
        if missing := [name for label, name in enumerate(class_names) if label not in {cut.label for cut in cuts}]:
            warnings.warn(f"{files.name}: {split} has no video of {', '.join(missing)}.", stacklevel=3)
    if shared := shared_files(files.in_splits()):
        warnings.warn(shared, stacklevel=3)
    return files


def found_in(place: Path, left_out: Counter, without: Sequence[Path] = ()) -> Pools:
    """The videos of a folder or of a list by split and class. without: folders inside it that are not classes."""
    if place.is_dir():
        return in_folder(place, left_out, without)
    if not os.path.lexists(place):
        raise DataError(
            f"{place} is not a folder: name one that holds a sub-folder of videos for each class, or a list of paths "
            "and labels (a CSV file or a text)"
        )
    pools: Pools = {}
    for row in read_list(place, left_out):
        try:
            check_regular(row.path)
            reason = NO_VIDEO.get(row.path.suffix.lower()) or why_no_video(row.path)
        except DataError as error:
            raise DataError(f"{shown(place)}, line {row.line}: {error}") from error
        if reason:
            raise DataError(f"{shown(place)}, line {row.line}: {row.name} is no video ({reason})")
        pools.setdefault(row.split, {}).setdefault(row.label, []).append((row.path, row.name))
    return pools


def in_folder(folder: Path, left_out: Counter, without: Sequence[Path]) -> Pools:
    """The videos of a folder: in train/, val/ and test/, or, where these are not there, in folders of the classes."""
    inside = [place for place in subfolders(folder) if real(place) not in without]
    there = [split for split in SPLITS if folder / split in inside]
    others = [place.name for place in inside if place.name.lower() in (*SPLITS, "valid", "validation")]
    given = "train" in there and len(there) in (len(inside), len(SPLITS))
    if "train" in there and len(others) > 1 and not given:
        raise DataError(
            f"{folder} holds {', '.join(p.name for p in inside)}: name the splits train, val and test and give only "
            "these, or give only the folders of the classes"
        )
    if given:
        classes = [place.name for place in subfolders(folder / "train")]
        found = {split: {place.name for place in subfolders(folder / split)} for split in there}
        for split in there:
            if strangers := found[split] - set(classes):
                raise DataError(
                    f"{folder / split} has classes that train does not have: {', '.join(sorted(strangers))}"
                )
        homes = {split: {name: folder / split / name for name in classes} for split in there}
    else:
        homes = {"": {place.name: place for place in inside}}
    if min(map(len, homes.values())) < 2:
        raise DataError(
            f"{folder} must hold a sub-folder for each class, at least two; found: "
            f"{', '.join(next(iter(homes.values()))) or 'none'}"
        )
    pools = {
        split: {
            name: [(path, path.relative_to(folder).as_posix()) for path in videos_in(home, left_out)]
            for name, home in places.items()
        }
        for split, places in homes.items()
    }
    classes = [home for places in homes.values() for home in places.values()]
    for path in files_in(folder):
        elsewhere = any(real(path).is_relative_to(place) for place in without)
        if (
            not elsewhere
            and not any(path.is_relative_to(home) for home in classes)
            and path.suffix.lower() not in NO_VIDEO
        ):
            left_out[f"{path.suffix.lower() or 'without an ending'}: in no folder of a class"] += 1
    return pools


def in_utf8(name: str) -> str:
    """The name with bytes that are not UTF-8 written out, as no figure and no file of ours takes them otherwise."""
    return name.encode("utf-8", "backslashreplace").decode()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names of classes: numbers by their size, words by the alphabet."""
    names = list(names)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def only_once(pools: Pools, left_out: Counter) -> dict[Path, str]:
    """{file: its name}; a file that is there twice is dropped, and refused where it has two classes or two splits."""
    seen: dict[str, tuple[str, str, str]] = {}
    names: dict[Path, str] = {}
    for split, classes in pools.items():
        for label, items in classes.items():
            kept = []
            for path, name in items:
                was = seen.setdefault(os.path.realpath(path), (split, label, name))
                if was[:2] != (split, label):
                    raise DataError(
                        f"{name} and {was[2]} are the same file, once in {was[0] or 'train'} as {was[1]} and once in "
                        f"{split or 'train'} as {label}: what is trained on must not be tested on; remove one"
                    )
                if was[2] == name:
                    kept.append((path, name))
                    names[path] = name
                else:
                    left_out["the same file once more"] += 1
            classes[label] = kept
    return names


def dealt(
    pools: Pools, class_names: Sequence[str], places: Mapping[str, Path], seed: int, clips: int
) -> dict[str, list[Cut]]:
    """The clips of each split; splits that have no files of their own get them from those that have.

    places: where the files of each split that has some were found.
    """
    open_splits = tuple(split for split in SPLITS if split not in pools)
    donor, shares = {
        (): ("train", {}),
        ("val", "test"): ("train", HELD_OUT),
        ("val",): ("train", {"val": HELD_OUT["val"]}),
        ("test",): ("val", {"test": 0.5}),
    }[open_splits]
    splits: dict[str, list[Cut]] = {split: [] for split in SPLITS}
    for label, name in enumerate(class_names):
        for split in pools:
            files = [path for path, _ in pools[split].get(name, ())]
            if split == donor and shares and files:
                parts = deal(name, files, donor, shares, seed, clips, places[donor])
            else:
                parts = {split: [(path, part) for path in files for part in range(clips)]}
            for to, cuts in parts.items():
                splits[to] += [Cut(path, label, part, clips) for path, part in cuts]
    for split, cuts in splits.items():
        if not cuts:
            raise DataError(f"{places['train']}: no file is left for the split {split}")
    return splits


def deal(
    name: str, paths: list[Path], rest: str, shares: Mapping[str, float], seed: int, clips: int, folder: Path
) -> dict[str, list[tuple[Path, int]]]:
    """The clips (file, part) of one class by split, at least one in each.

    shares: of the files, for each further split; the split `rest` gets what remains. Where there are fewer files than
    splits, the clips of one file go to several, in the order of time.
    """
    splits = [split for split in SPLITS if split == rest or split in shares]
    generator = torch.Generator().manual_seed(seed)
    shuffled = [paths[i] for i in torch.randperm(len(paths), generator=generator)]
    if len(paths) >= len(splits):
        found, begin = {}, 0
        for split, share in shares.items():
            count = max(1, round(share * len(paths)))
            found[split], begin = shuffled[begin : begin + count], begin + count
        found[rest] = shuffled[begin:]
        return {split: [(path, part) for path in files for part in range(clips)] for split, files in found.items()}
    number = {2: "two", 3: "three"}[len(splits)]
    few = f"class {name} of {folder} holds {len(paths)} video file(s)"
    if clips == 1:
        others = " and ".join(f"--{split}" for split in shares)
        raise DataError(
            f"{few}: to be split into {', '.join(splits)}, each class needs at least {number}. Add files, give the "
            f"splits folders or lists of their own (folders train, val and test, or {others}), or divide each file "
            "into clips that do not overlap (--clips 10)"
        )
    whole = splits[: len(paths) - 1]  # of two files for three splits the first one is for training alone
    shared = splits[len(paths) - 1 :]
    if clips < len(shared):
        raise DataError(f"{few}, and {clips} clips of a file cannot be in {len(shared)} splits: ask for more --clips")
    found = {split: [(path, part) for part in range(clips)] for split, path in zip(whole, shuffled)}
    weights = [shares.get(split, 1 - sum(shares.values())) for split in shared]
    counts = [max(1, round(clips * weight / sum(weights))) for weight in weights]
    counts[0] = clips - sum(counts[1:])
    bounds = np.cumsum([0, *counts])
    for split, begin, end in zip(shared, bounds, bounds[1:]):
        found[split] = [(shuffled[-1], part) for part in range(begin, end)]
    return found


def shared_files(in_splits: Mapping[str, str]) -> str:
    """In words, which files have clips in several splits; "" where none has.

    in_splits: {name of a file: "train+val+test", and perhaps more behind a space}, as in `Volumes.files`.
    """
    groups: dict[str, list[str]] = {}
    for name, told in in_splits.items():
        splits = told.split(" ", 1)[0]
        if "+" in splits:
            groups.setdefault(splits, []).append(name)
    if not groups:
        return ""
    said = "; ".join(
        f"{len(names)} file{'s' * (len(names) > 1)} in {splits.replace('+', ' and ')} "
        f"({', '.join(names[:FEW])}{', …' * (len(names) > FEW)})"
        for splits, names in groups.items()
    )
    trained = any(splits.startswith("train") for splits in groups)
    return (
        f"Clips of one file are in several splits, divided by time: {said}. They do not overlap, but they are not "
        + (
            "independent: the figures on them flatter the model, and say little about other files."
            if trained
            else "independent: choices made on val show in the figures on test."
        )
    )
