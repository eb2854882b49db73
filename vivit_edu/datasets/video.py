"""Real video files as clips, read with PyAV (`pip install "vivit-edu[video]"`).

A file is decoded as a stream and only the frames that are asked for are kept, so that its length does not matter.
Frames are chosen by their time, not by their number: files of a variable frame rate are not stretched.
"""

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from ..errors import ConfigError, DataError
from ..volumes import SPLITS, Mirror, Split, Volumes

ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".avi", ".mkv", ".gif", ".mpg", ".mpeg")
SHARES = {"val": 0.15, "test": 0.15}  # of the files of each class, at least one


def load_clip(path, *, frames, size, views=1, step=None):
    """A video file as `views` clips uint8 [views, 3, frames, size, size], RGB, the middle square of the picture.

    step: None takes frames evenly from the whole file, and several views take turns (the 1st, 2nd, … of each
    stretch). A number takes frames densely, every step-th, and the views begin at evenly spaced times.
    A file with fewer frames than asked for shows some of them longer.
    Raises DataError, naming the file, where it is missing, empty, broken, without a picture or of one frame.
    """
    if min(frames, size, views, 1 if step is None else step) < 1:
        raise ConfigError(f"frames={frames}, size={size}, views={views}, step={step}: each must be at least 1")
    path = Path(path)
    times = frame_times(path)
    if len(times) < 2:
        raise DataError(
            f"{path.name} holds {len(times)} frame(s), a picture rather than a video: it needs two at least"
        )
    chosen = choose_times(times, frames, views, step)  # [views, frames]
    order = np.sort(np.unique(chosen))
    pictures = read_frames(path, order, size)  # [different times, size, size, 3]
    clips = torch.from_numpy(pictures[np.searchsorted(order, chosen)])
    return rearrange(clips, "v t h w c -> v c t h w").contiguous()


def choose_times(times, frames, views, step):
    """The times [views, frames] of the frames to take, out of the times of all frames."""
    if step is None:
        last = times[-1] + np.median(np.diff(times))  # the last frame is shown for a while, too
        places = times[0] + (last - times[0]) * (np.arange(views * frames) + 0.5) / (views * frames)
        places = rearrange(places, "(t v) -> v t", v=views)
        return times[np.searchsorted(times, places, side="right") - 1]  # what is shown at that moment
    span = min((frames - 1) * step, len(times) - 1)
    starts = np.linspace(0, len(times) - 1 - span, views + 2)[1:-1].round().astype(int)
    numbers = starts[:, None] + np.arange(frames) * step
    return times[numbers.clip(max=len(times) - 1)]


# ---- the file ---------------------------------------------------------------------------------------------------


def frame_times(path):
    """The times of a file's frames, in order, in the stream's own units; nothing is decoded."""
    with opened(path) as (container, stream):
        packets = [packet.pts for packet in container.demux(stream) if packet.size]
    if any(pts is None for pts in packets):  # some old files have no times: frames are counted
        return np.arange(len(packets))
    return np.unique(np.array(packets, dtype=np.int64))


def read_frames(path, times, size):
    """The frames shown at these times (sorted), uint8 [len(times), size, size, 3]."""
    pictures, last = [], None
    with opened(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            now = number if frame.pts is None else frame.pts
            while last is not None and len(pictures) < len(times) and times[len(pictures)] < now:
                pictures.append(square(last, size))
            last = frame
            if len(pictures) == len(times):
                break
        if last is None:
            raise DataError(f"{path.name} is broken: not one frame of it can be decoded. Encode it anew, or remove it")
        while len(pictures) < len(times):  # times at the end of the file, or beyond where it breaks off
            pictures.append(square(last, size))
    return np.stack(pictures)


def square(frame, size):
    """The middle square of a decoded frame, upright, uint8 [size, size, 3]."""
    scale = size / min(frame.width, frame.height)
    width, height = (max(size, round(side * scale)) for side in (frame.width, frame.height))
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    picture = picture[top : top + size, left : left + size]
    return np.rot90(picture, round(frame.rotation / 90)).copy()  # as a telephone held upright notes it


@contextmanager
def opened(path):
    """(container, its video stream); whatever PyAV cannot do with the file becomes a DataError that names it."""
    try:
        import av
    except ImportError as error:
        raise DataError('reading video files needs PyAV: python -m pip install "vivit-edu[video]"') from error
    if not path.is_file():
        raise DataError(f"there is no file {path.name} in {path.parent}")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty (0 bytes): copy or encode it anew")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(
                    f"{path.name} holds no video stream ({'sound only' if container.streams.audio else 'nothing known'})"
                )
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise DataError(
            f"{path.name} cannot be decoded ({error.strerror or error}): is it a whole video file?"
        ) from error


# ---- a folder ---------------------------------------------------------------------------------------------------


def load_videos(folder, *, frames, size, step=None, seed=0) -> Volumes:
    """A folder of videos as a data set: one sub-folder a class, its name the class's name.

    Where the folder holds train/, val/ and test/, each with the classes in it, these are the splits. Else the
    files of each class are dealt out by the seed, 70, 15 and 15 %, whole files only. frames, size, step: as in `load_clip`.
    A left-right flip is allowed in training; classes whose names differ only in "left" and "right" are swapped by it.
    Raises DataError naming the folder or the file.
    """
    from tqdm.auto import tqdm

    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name one that holds a sub-folder of videos for each class")
    given = all((folder / split).is_dir() for split in SPLITS)
    class_names = [p.name for p in subfolders(folder / "train" if given else folder)]
    if len(class_names) < 2:
        raise DataError(
            f"{folder} must hold a sub-folder for each class, two at least; found: {', '.join(class_names) or 'none'}"
        )
    files = {split: [] for split in SPLITS}
    for label, name in enumerate(class_names):
        parts = {s: videos_in(folder / s / name) for s in SPLITS} if given else deal(videos_in(folder / name), seed)
        for split, paths in parts.items():
            files[split] += [(path, label) for path in paths]
    if strangers := [
        s for s in ("val", "test") if given and {p.name for p in subfolders(folder / s)} - set(class_names)
    ]:
        raise DataError(f"{folder / strangers[0]} has classes that train has not: the three must have the same")
    bar = tqdm([(split, *item) for split in SPLITS for item in files[split]], desc="reading videos", unit="file")
    clips, labels = {split: [] for split in SPLITS}, {split: [] for split in SPLITS}
    for split, path, label in bar:
        clips[split].append(load_clip(path, frames=frames, size=size, step=step)[0])
        labels[split].append(label)
    splits = {split: Split(torch.stack(clips[split]), torch.tensor(labels[split])) for split in SPLITS}
    return Volumes(
        f"videos-{folder.resolve().name}", tuple(class_names), **splits, mirror=sides(class_names), film=True
    )


def subfolders(folder):
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def videos_in(folder):
    """The video files of a class; DataError where there are none."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in ENDINGS and not p.name.startswith("."))
    if not found:
        raise DataError(f"{folder} holds no video file; known endings are {', '.join(ENDINGS)}")
    return found


def deal(paths, seed):
    """The files of one class by split, at least one in each."""
    if len(paths) < 3:
        raise DataError(
            f"{paths[0].parent} holds {len(paths)} video file(s): to split them, each class needs three at least"
        )
    generator = torch.Generator().manual_seed(seed)
    shuffled = [paths[i] for i in torch.randperm(len(paths), generator=generator)]
    val, test = (max(1, round(share * len(paths))) for share in SHARES.values())
    return {"val": shuffled[:val], "test": shuffled[val : val + test], "train": shuffled[val + test :]}


def sides(class_names):
    """The left-right flip, and the classes that it swaps by their names: "turn left" and "turn right"."""
    other = {"left": "right", "right": "left"}
    names = [
        " ".join(other.get(word, word) for word in n.replace("_", " ").replace("-", " ").lower().split())
        for n in class_names
    ]
    plain = [n.replace("_", " ").replace("-", " ").lower() for n in class_names]
    return Mirror(3, tuple(plain.index(name) if name in plain else k for k, name in enumerate(names)))
