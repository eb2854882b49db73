"""Your own videos as a data set: `load_videos`, from a folder of classes or from a list of files and labels.

Which files there are, and in which split, is found in `video_splits`, with `video_folders` and `video_lists`; a file is
decoded in `decoding`; decoded clips are kept and mapped by `clip_cache`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from ..support.files import shown
from ..support.memory import usable_memory
from ..support.processes import is_first
from ..volumes import SPLITS, Mirror, Split, Volumes
from .clip_cache import ClipRow, NoRoomError, Place, file_hash, kept_clips
from .decoding import load_clip, load_clips
from .video_splits import FEW, VideoFiles, list_videos

MOST_VIDEOS = 8 << 30  # bytes of clips that are held in memory, where they cannot be kept on the disk


def load_videos(
    folder: Path | str,
    *,
    frames: int,
    size: int,
    step: int | None = None,
    seed: int = 0,
    val: Path | str | None = None,
    test: Path | str | None = None,
    clips: int = 1,
    cache: bool = True,
) -> Volumes:
    """Videos as a data set.

    folder: a folder with a sub-folder for each class, whose name is the class's name; folders inside a class belong to
    it. Or a list of paths and labels, see `video_lists`.
    Where the folder holds train/, val/ and test/, each with the classes in it, or the list has a column `split`, these
    are the splits. val, test: a folder or list of their own. What is missing then is taken from what is there, by the
    seed, whole files only: of the training files of each class 15 % for validation and 15 % for the test; of
    validation files half for the test.
    clips: how many clips that do not overlap each file is divided into. A class with too few files for its splits has
    the clips of a file in several, the earlier ones in train, the last ones in test, and a warning says so.
    frames, size, step: as in `load_clip`. A left-right flip is allowed in training; classes whose names differ only in
    "left" and "right" are swapped by it. Files that are no video are left out; a warning counts them.
    cache: keep the decoded clips in the user's cache, or the folder $VIVIT_EDU_CACHE, and map them from there: nothing
    is decoded twice, and they may be more than the memory holds. Where they cannot be kept, they are held in memory.
    Raises DataError, naming the folder, the file or the line, or where there is no room for the decoded clips, and
    ConfigError where the clips of a file would take more than 1 GiB.
    """
    files = list_videos(folder, frames=frames, size=size, step=step, seed=seed, val=val, test=test, clips=clips)
    return read_videos(files, frames, size, step, cache=cache)


def read_videos(files: VideoFiles, frames: int, size: int, step: int | None = None, *, cache: bool = True) -> Volumes:
    """The files that `list_videos` found, decoded or taken from the cache. frames, size, step: as in `load_clip`.

    cache: as in `load_videos`. Warns where a file of one split is also in another one, under another name.
    """
    from tqdm.auto import tqdm

    cuts = [cut for split in SPLITS for cut in files.splits[split]]
    rows = [ClipRow.of(cut.path, cut.part, cut.parts) for cut in cuts]
    shape = (3, int(frames), int(size), int(size))

    def decode(path: str, parts: int) -> np.ndarray:
        if parts == 1:
            return load_clip(Path(path), frames=frames, size=size, step=step).numpy()
        return load_clips(path, frames=frames, size=size, clips=parts, step=step).numpy()

    why = ""
    with tqdm(total=len(cuts), desc="reading videos", unit="clip", delay=0.5) as bar:
        if cache:
            try:
                place = Place(f"{files.seen} step {step} clips {cuts[0].parts} {decoder()}", shape)
                clips, hashes, fresh = kept_clips(rows, place, decode, bar.update)
            except NoRoomError as error:
                cache, why = False, str(error)
        if not cache:
            check_held(len(rows) * int(np.prod(shape)), why)
            clips, hashes = in_memory(rows, shape, decode, bar.update)
    if cache and is_first():
        kept = f"in {shown(place.path(rows))} ({clips.nbytes / 2**20:.0f} MiB)"
        counts = ", ".join(f"{len(files.splits[split])} {split}" for split in SPLITS)
        print(
            f"{files.name} ({counts}): {fresh} clips decoded, {len(rows) - fresh} taken from before; kept {kept}",
            file=sys.stderr,
        )
    told = {files.names[cut.path]: sha for cut, sha in zip(cuts, hashes)}
    told = {name: f"{splits} {told[name]}" for name, splits in files.in_splits().items()}
    if twins := same_content(told):
        warnings.warn(twins, stacklevel=3)
    splits, begin = {}, 0
    for split in SPLITS:
        end = begin + len(files.splits[split])
        labels = torch.tensor([cut.label for cut in files.splits[split]])
        splits[split], begin = Split(torch.from_numpy(clips[begin:end]), labels), end
    return Volumes(files.name, files.class_names, **splits, mirror=sides(files.class_names), film=True, files=told)


def in_memory(
    rows: Sequence[ClipRow],
    shape: tuple[int, int, int, int],
    decode: Callable[[str, int], np.ndarray],
    progress: Callable[[int], object],
) -> tuple[np.ndarray, list[str]]:
    """The clips [B, *shape] of these rows, decoded, and the SHA-256 of each row's file."""
    clips, hashes = np.empty((len(rows), *shape), np.uint8), [""] * len(rows)
    slots: dict[str, list[int]] = {}
    for slot, row in enumerate(rows):
        slots.setdefault(row.path, []).append(slot)
    for path, places in slots.items():
        parts, told = decode(path, rows[places[0]].parts), file_hash(path)
        for slot in places:
            clips[slot], hashes[slot] = parts[rows[slot].part], told
        progress(len(places))
    return clips, hashes


def check_held(needed: int, why: str) -> None:
    """Warns that so many bytes of clips are held in memory, as they cannot be kept; DataError where it is too small."""
    most = min(MOST_VIDEOS, (usable_memory() or MOST_VIDEOS) // 2)
    if needed > most:
        raise DataError(
            f"the decoded clips take {needed / 2**30:.3g} GiB, more than the {most / 2**30:.3g} GiB of memory that "
            f"there are for them, and cannot be kept on the disk ({why}): name another folder with $VIVIT_EDU_CACHE, "
            "or ask for fewer frames or a smaller size"
        )
    if why:
        warnings.warn(f"The decoded clips are not kept ({why}): the next run decodes them again.", stacklevel=4)


def same_content(told: Mapping[str, str]) -> str:
    """In words, which files of several splits are the same, byte for byte. told: {name: "SPLIT SHA-256"}."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, (split, digest) in ((name, value.split(" ", 1)) for name, value in told.items()):
        groups.setdefault(digest, []).append((split, name))
    twins = [items for items in groups.values() if len({split for split, _ in items}) > 1]
    if not twins:
        return ""
    named = "; ".join(" = ".join(f"{name} in {split}" for split, name in items[:2]) for items in twins[:FEW])
    return (
        f"{len(twins)} video(s) are in several splits under different names, byte for byte the same ({named}"
        f"{'; …' * (len(twins) > FEW)}): what is trained on must not be tested on. Remove the copies."
    )


def decoder() -> str:
    """The version of PyAV: another one may decode other pixels."""
    import av

    return f"PyAV {av.__version__}"


def sides(class_names: list[str] | tuple[str, ...]) -> Mirror:
    """The left-right flip, and the classes that it swaps by their names: "turn left" and "turn right"."""
    other = {"left": "right", "right": "left"}
    plain = [" ".join(n.replace("_", " ").replace("-", " ").lower().split()) for n in class_names]
    names = [" ".join(other.get(word, word) for word in n.split()) for n in plain]
    alone = [plain.count(n) == 1 == plain.count(name) for n, name in zip(plain, names)]  # "a" and "A" swap nothing
    return Mirror(3, tuple(plain.index(name) if alone[k] else k for k, name in enumerate(names)))
