"""Real video files as clips, read with PyAV (`pip install "vivit-edu[video]"`).

A file is decoded as a stream and only the frames that are asked for are kept, so its length does not matter.
Frames are chosen by their time, not by their number: files with a variable frame rate are not stretched.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from ..errors import ConfigError, DataError
from ..support.files import mistaken_for
from ..support.options import check_path, check_seed, check_whole
from ..volumes import SPLITS, Mirror, Split, Volumes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

# a file with one of these endings is meant as a video: if it cannot be read, that is an error
ENDINGS = tuple(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .m2ts .m2v .m4v .mjpeg .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf "
    ".ogv .qt .rm .rmvb .vob .webm .wmv .y4m".split()
)
# and these are never one, whatever a decoder makes of them; every other file is tried
NO_VIDEO = {
    **dict.fromkeys(".bmp .heic .jfif .jpeg .jpg .pgm .png .ppm .svg .tga .tif .tiff .webp".split(), "a picture"),
    **dict.fromkeys(".ass .csv .htm .html .json .md .srt .sub .tsv .txt .vtt .xml .yaml .yml".split(), "text"),
    **dict.fromkeys(".m3u .m3u8 .mpd .ffconcat .sdp".split(), "a playlist"),
}
# what file managers and archives leave behind counts neither as a file nor as a class; nor do names that begin with "."
LEFT_BEHIND = {"__macosx", "__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "@eadir"}
HELD_OUT = {"val": 0.15, "test": 0.15}  # of the files of each class, at least one
MOST_FRAMES = 1 << 30  # bytes that the clips of one file may take
MOST_VIDEOS = 8 << 30  # and those of a whole folder
GREY = 128  # what stands behind transparent pixels


def load_clip(path: Path | str, *, frames: int, size: int, views: int = 1, step: int | None = None) -> torch.Tensor:
    """A video file as `views` clips uint8 [views, 3, frames, size, size], RGB, the middle square of the picture.

    step: None takes frames evenly from the whole file, and several views take turns (the 1st, 2nd, … of each
    stretch). A number takes frames densely, every step-th, and the views begin at evenly spaced times.
    A file with fewer frames than asked for shows some of them for longer. The picture is turned, mirrored and
    stretched as the file says, and transparent pixels become grey, with a warning.
    Raises ConfigError where a number is not a whole one of at least 1 or the clips would take more than 1 GiB, and
    DataError, naming the file, where it is missing, empty, broken, without a video or of a single frame.
    """
    check_numbers(frames, size, views, step)
    check_path("path", path, "a video file")
    path = Path(path)
    with opened(path) as container:
        index, times, counted = find_frames(container, path)
    if len(times) < 2:
        raise DataError(
            f"{path.name} holds {len(times)} frame(s), a picture rather than a video: it needs at least two"
        )
    chosen = choose_times(times, frames, views, step)  # [views, frames]
    order = np.unique(chosen)
    try:
        pictures = read_frames(path, index, order, size, times if counted else None)  # [different times, H, W, 3]
    except OutOfOrder:
        pictures = read_frames(path, index, order, size, times)
    clips = torch.from_numpy(pictures[np.searchsorted(order, chosen)])
    return rearrange(clips, "v t h w c -> v c t h w").contiguous()


def check_numbers(frames: int, size: int, views: int = 1, step: int | None = None, files: int = 1) -> None:
    """Refuses numbers that are not whole or below 1, and clips that would take more memory than is allowed."""
    for name, value in {"frames": frames, "size": size, "views": views, "step": 1 if step is None else step}.items():
        check_whole(name, value, 1)
    for count, most, what in ((1, MOST_FRAMES, "one file"), (files, MOST_VIDEOS, f"{files} files")):
        needed = 3 * int(frames) * int(size) ** 2 * int(views) * count
        if needed > most:
            raise ConfigError(
                f"frames={frames}, size={size}, views={views}: the clips of {what} would take "
                f"{needed / 2**30:.3g} GiB, and at most {most >> 30} GiB are allowed; ask for fewer frames or a "
                "smaller size"
            )


def choose_times(times: np.ndarray, frames: int, views: int, step: int | None) -> np.ndarray:
    """The times [views, frames] of the frames to take, out of the times of all frames, which are sorted."""
    if step is None:
        last = times[-1] + np.median(np.diff(times))  # the last frame is shown for a while, too
        places = times[0] + (last - times[0]) * (np.arange(views * frames) + 0.5) / (views * frames)
        places = rearrange(places, "(t v) -> v t", v=views)
        return times[np.searchsorted(times, places, side="right") - 1]  # what is shown at that moment
    step = min(int(step), len(times))
    span = min((frames - 1) * step, len(times) - 1)
    starts = np.linspace(0, len(times) - 1 - span, views + 2)[1:-1].round().astype(int)
    numbers = starts[:, None] + np.arange(frames) * step
    return times[numbers.clip(max=len(times) - 1)]


# ---- the file ---------------------------------------------------------------------------------------------------


class OutOfOrder(Exception):
    """The time stamps of decoded frames go backwards, so they say nothing about the order of the frames."""


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """The container of a video file; whatever PyAV cannot do with it becomes a DataError that names the file."""
    try:
        import av
    except ImportError as error:
        raise DataError('reading video files needs PyAV: python -m pip install "vivit-edu[video]"') from error
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a video file")
    if not path.is_file():
        raise DataError(f"there is no file {path.name} in {path.parent}")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty (0 bytes): copy or encode it again")
    if kind := mistaken_for(path):
        raise DataError(f"{path.name} is no video: it is {kind}")
    try:
        with open_quietly(av, path) as container:
            yield container
    except (av.FFmpegError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path.name} cannot be decoded ({reason}): is it a whole video file?") from error


def open_quietly(av: ModuleType, path: Path) -> InputContainer:
    """The file opened by its absolute path, which no name turns into an address, whatever its text tags hold.

    Tags are not used. Which argument keeps one that is not UTF-8 from stopping PyAV depends on its version, and a
    version that does not know them at all raises a TypeError.
    """
    name = str(path.absolute())
    try:
        return av.open(name, metadata_encoding="latin-1", metadata_errors="replace")
    except TypeError:
        return av.open(name)


def video_streams(container: InputContainer, path: Path) -> list[VideoStream]:
    """The streams that hold moving pictures: covers are left out. DataError where there are none."""
    from av.stream import Disposition

    found = [s for s in container.streams.video if s.codec_context is not None]
    covers = [s for s in found if s.disposition & Disposition.attached_pic]
    if len(covers) == len(found):
        holds = ["sound"] * bool(container.streams.audio) + ["a cover picture"] * bool(covers)
        holds += ["video of a kind that is not known here"] * (len(container.streams.video) > len(found))
        raise DataError(f"{path.name} holds no video stream ({' and '.join(holds) or 'nothing'} only)")
    return [s for s in found if s not in covers]


def find_frames(container: InputContainer, path: Path) -> tuple[int, np.ndarray, bool]:
    """(index of the video stream, the times of its frames, whether frames must be counted); nothing is decoded.

    The stream with the most frames is the film, the larger one of two with equally many: a title picture has one.
    Times are sorted, in the stream's own units. Some containers have no time stamps, and AVI has none for frames that
    are stored in another order than they are shown in: their packets are stamped one after the other, so the n-th
    decoded frame has the n-th time.
    """
    streams = {s.index: s for s in video_streams(container, path)}
    stamps = {index: [] for index in streams}
    for packet in container.demux(*streams.values()):
        if packet.size:
            stamps[packet.stream.index].append(packet.pts)
    index = max(streams, key=lambda i: (len(stamps[i]), streams[i].width * streams[i].height, -i))
    if any(pts is None for pts in stamps[index]):
        return index, np.arange(len(stamps[index])), True
    times = np.array(stamps[index], dtype=np.int64)
    if getattr(streams[index].codec_context, "has_b_frames", False) and (np.diff(times) > 0).all():
        return index, times, True
    return index, np.unique(times), False


def read_frames(path: Path, index: int, wanted: np.ndarray, size: int, times: np.ndarray | None) -> np.ndarray:
    """The frames shown at the times `wanted` (sorted), uint8 [len(wanted), size, size, 3].

    times: those of all frames in the order in which they are shown, where frames are counted; None believes the
    frames' own time stamps. Raises OutOfOrder where these go backwards.
    """
    pictures, last, now, transparent = [], None, None, False
    with opened(path) as container:
        stream = container.streams[index]
        aspect = aspect_of(stream)

        def keep():
            nonlocal transparent
            flat, clear = over_grey(last)
            transparent |= clear
            pictures.append(upright(square(flat, size, aspect), display_matrix(last)))

        for number, frame in enumerate(decoded(container, stream)):
            before = now
            if times is not None:
                now = times[min(number, len(times) - 1)]
            elif frame.pts is None or (before is not None and frame.pts < before):
                raise OutOfOrder
            else:
                now = frame.pts
            while last is not None and len(pictures) < len(wanted) and wanted[len(pictures)] < now:
                keep()
            last = frame
            if len(pictures) == len(wanted):
                break
        if last is None:
            raise DataError(f"{path.name} is broken: none of its frames can be decoded. Encode it again, or remove it")
        while len(pictures) < len(wanted):  # times at the end of the file, or beyond where it breaks off
            keep()
    if transparent:
        warnings.warn(f"{path.name} has transparent pixels: they are shown over grey.", stacklevel=3)
    return np.stack(pictures)


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """The frames of a stream in the order in which they are shown.

    The usual decoders of VP8 and VP9 drop the channel of transparency; the ones that keep it are asked where there
    is one.
    """
    import av

    keeps = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if keeps in av.codecs_available and stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1":
        decoder = av.CodecContext.create(keeps, "r")
        for packet in container.demux(stream):
            yield from decoder.decode(packet if packet.size else None)
    else:
        stream.thread_type = "AUTO"
        yield from container.decode(stream)


# ---- the picture ------------------------------------------------------------------------------------------------


def aspect_of(stream: VideoStream) -> float:
    """Width by height of one pixel as it is shown; 1 where the file does not say, or says nonsense."""
    aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    return aspect if 1 / 16 <= aspect <= 16 else 1.0


def over_grey(frame: VideoFrame) -> tuple[VideoFrame, bool]:
    """(the frame with grey behind it, whether any of its pixels is transparent)."""
    if not (frame.format.has_palette or any(part.is_alpha for part in frame.format.components)):
        return frame, False
    picture = frame.reformat(format="rgba").to_ndarray()
    if picture[..., 3].min() == 255:
        return frame.reformat(format="rgb24"), False
    alpha = picture[..., 3:] / 255
    flat = (alpha * picture[..., :3] + (1 - alpha) * GREY).round().astype(np.uint8)
    return type(frame).from_ndarray(flat, format="rgb24"), True


def square(frame: VideoFrame, size: int, aspect: float = 1.0) -> np.ndarray:
    """The middle square of a decoded frame as it is stored, uint8 [size, size, 3]."""
    shown = frame.width * aspect, frame.height
    width, height = (max(size, round(side * size / min(shown))) for side in shown)
    picture = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    top, left = (height - size) // 2, (width - size) // 2
    return picture[top : top + size, left : left + size]


def display_matrix(frame: VideoFrame) -> np.ndarray:
    """How the picture is shown: [[a, b], [c, d]] moves a pixel from (x, y) to (ax + cy, bx + dy)."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return np.eye(2)
    return np.frombuffer(bytes(data), dtype=np.int32).reshape(3, 3)[:2, :2] / 2**16


def upright(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A square picture turned and mirrored as its display matrix says, to the nearest quarter turn."""
    (a, b), (c, d) = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):  # rows become columns
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1].copy()


# ---- a folder ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoFiles:
    """The videos of a folder before any of them is decoded."""

    name: str  # of the data set: "videos-" and the folder's name
    class_names: tuple[str, ...]
    folder: Path
    splits: dict[str, list[tuple[Path, int]]]  # "train", "val", "test": (file, label)
    left_out: dict[str, int]  # how many files are not used, by the reason


def load_videos(folder: Path | str, *, frames: int, size: int, step: int | None = None, seed: int = 0) -> Volumes:
    """A folder of videos as a data set: one sub-folder for each class, whose name is the class's name.

    Where the folder holds train/, val/ and test/, each with the classes in it, these are the splits. Otherwise the
    files of each class are dealt out by the seed: 70, 15 and 15 %, whole files only. Folders inside a class belong to
    it. frames, size, step: as in `load_clip`. A left-right flip is allowed in training; classes whose names differ
    only in "left" and "right" are swapped by it. Files that are no video are left out; a warning counts them.
    Raises DataError, naming the folder or the file, and ConfigError where the clips would take more than 8 GiB.
    """
    return read_videos(list_videos(folder, frames=frames, size=size, step=step, seed=seed), frames, size, step)


def list_videos(folder: Path | str, *, frames: int, size: int, step: int | None = None, seed: int = 0) -> VideoFiles:
    """What `load_videos` would read, and all of its checks that need no frame to be decoded: a quick look before a run.

    The arguments, the errors and the warning are those of `load_videos`. Every file is opened, so one that cannot
    be is named here.
    """
    check_numbers(frames, size, step=step)
    check_seed(seed)
    check_path("folder", folder, "a folder of videos")
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name one that holds a sub-folder of videos for each class")
    there = [split for split in SPLITS if (folder / split).is_dir()]
    others = [p.name for p in subfolders(folder) if p.name.lower() in (*SPLITS, "valid", "validation")]
    if "train" in there and len(others) > 1 and len(there) < len(SPLITS):
        raise DataError(
            f"{folder} holds {', '.join(others)}: name the splits train, val and test and give all three, or give only "
            "the folders of the classes"
        )
    given = len(there) == len(SPLITS)
    class_names = [p.name for p in subfolders(folder / "train" if given else folder)]
    if len(class_names) < 2:
        raise DataError(
            f"{folder} must hold a sub-folder for each class, at least two; found: {', '.join(class_names) or 'none'}"
        )
    for split in ("val", "test") if given else ():
        if strangers := {p.name for p in subfolders(folder / split)} - set(class_names):
            raise DataError(f"{folder / split} has classes that train does not have: {', '.join(sorted(strangers))}")
    left_out, splits = Counter(), {split: [] for split in SPLITS}
    for label, name in enumerate(class_names):
        if given:
            parts = {split: videos_in(folder / split / name, left_out) for split in SPLITS}
        else:
            parts = deal(folder / name, videos_in(folder / name, left_out), seed)
        for split, paths in parts.items():
            splits[split] += [(path, label) for path in paths]
    classes = [folder / split / name for split in SPLITS for name in class_names] if given else []
    classes = classes or [folder / name for name in class_names]
    for path in files_in(folder):
        if not any(path.is_relative_to(place) for place in classes) and path.suffix.lower() not in NO_VIDEO:
            left_out[f"{path.suffix.lower() or 'without an ending'}: in no folder of a class"] += 1
    files = VideoFiles(f"videos-{folder.resolve().name}", tuple(class_names), folder, splits, dict(left_out))
    used, unused = sum(map(len, splits.values())), sum(left_out.values())
    if unused:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        warnings.warn(f"{files.name}: {used} of {used + unused} files are used. Left out: {reasons}.", stacklevel=3)
    check_numbers(frames, size, files=used)
    return files


def read_videos(files: VideoFiles, frames: int, size: int, step: int | None = None) -> Volumes:
    """The files that `list_videos` found, decoded. frames, size, step: as in `load_clip`."""
    from tqdm.auto import tqdm

    bar = tqdm(total=sum(map(len, files.splits.values())), desc="reading videos", unit="file")
    splits, told = {}, {}
    with bar:
        for split, items in files.splits.items():
            clips = torch.empty(len(items), 3, frames, size, size, dtype=torch.uint8)
            for clip, (path, _) in zip(clips, items):
                with open(path, "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                told[path.relative_to(files.folder).as_posix()] = f"{split} {digest}"
                clip.copy_(load_clip(path, frames=frames, size=size, step=step)[0])
                bar.update()
            splits[split] = Split(clips, torch.tensor([label for _, label in items]))
    return Volumes(files.name, files.class_names, **splits, mirror=sides(files.class_names), film=True, files=told)


def visible(name: str) -> bool:
    """Whether a file or folder of this name was put there on purpose."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def subfolders(folder: Path) -> list[Path]:
    """The visible folders directly inside this one, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and visible(p.name))


def files_in(folder: Path) -> list[Path]:
    """All visible files below a folder, sorted; a folder that links back to one above it is entered once."""
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [n for n in folders if visible(n) and os.path.realpath(os.path.join(place, n)) not in seen]
        found += [Path(place) / name for name in names if visible(name)]
    return sorted(found)


def videos_in(folder: Path, left_out: Counter) -> list[Path]:
    """The video files of a class; the others are counted in left_out. DataError where there are no videos."""
    found, others = [], Counter()
    for path in files_in(folder):
        ending = path.suffix.lower()
        reason = NO_VIDEO.get(ending) or why_no_video(path)
        if reason:
            others[f"{ending or 'without an ending'}: {reason}"] += 1
        else:
            found.append(path)
    if not found:
        others = ", ".join(f"{count} {reason}" for reason, count in sorted(others.items()))
        raise DataError(f"{folder} holds no video file{f' (left out: {others})' * bool(others)}")
    left_out.update(others)
    return found


def why_no_video(path: Path) -> str | None:
    """Why this file is left out; None where it is a video. DataError where it is meant as one and cannot be opened."""
    try:
        with opened(path) as container:
            video_streams(container, path)
            pictures = container.format.name == "image2" or container.format.name.endswith("_pipe")
            return "a picture" if pictures else None
    except DataError as error:
        if path.suffix.lower() in ENDINGS or "PyAV" in str(error):
            raise
        return "no video"


def deal(folder: Path, paths: list[Path], seed: int) -> dict[str, list[Path]]:
    """The files of one class by split, at least one in each."""
    if len(paths) < 3:
        raise DataError(f"{folder} holds {len(paths)} video file(s): to be split, each class needs at least three")
    generator = torch.Generator().manual_seed(seed)
    shuffled = [paths[i] for i in torch.randperm(len(paths), generator=generator)]
    val, test = (max(1, round(share * len(paths))) for share in HELD_OUT.values())
    return {"val": shuffled[:val], "test": shuffled[val : val + test], "train": shuffled[val + test :]}


def sides(class_names: list[str] | tuple[str, ...]) -> Mirror:
    """The left-right flip, and the classes that it swaps by their names: "turn left" and "turn right"."""
    other = {"left": "right", "right": "left"}
    plain = [n.replace("_", " ").replace("-", " ").lower() for n in class_names]
    names = [" ".join(other.get(word, word) for word in n.split()) for n in plain]
    alone = [plain.count(n) == 1 == plain.count(name) for n, name in zip(plain, names)]  # "a" and "A" swap nothing
    return Mirror(3, tuple(plain.index(name) if alone[k] else k for k, name in enumerate(names)))
