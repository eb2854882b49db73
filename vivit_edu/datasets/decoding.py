"""One video file as clips, read with PyAV (`pip install "vivit-edu[video]"`).

A file is decoded as a stream and only the frames that are asked for are kept, so its length does not matter.
Frames are chosen by their time, not by their number: files with a variable frame rate are not stretched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange

from ..errors import ConfigError, DataError
from ..support.files import check_regular, mistaken_for
from ..support.options import check_path, check_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOST_FRAMES = 1 << 30  # bytes that the clips of one file may take
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
    return taken(path, size, lambda times: choose_times(times, frames, views, step))


def load_clips(path: Path | str, *, frames: int, size: int, clips: int, step: int | None = None) -> torch.Tensor:
    """A video file as clips that do not overlap, one after the other: uint8 [clips, 3, frames, size, size].

    The file is divided into as many stretches of equally many frames, and decoded once. frames, size, step: as in
    `load_clip`, for each stretch. Raises what `load_clip` does, and DataError where a stretch has less than two frames.
    """
    check_numbers(frames, size, clips, step)

    def choose(times: np.ndarray) -> np.ndarray:
        if len(times) < 2 * clips:
            raise DataError(
                f"{Path(path).name} has {len(times)} frames: too few for {clips} clips that do not overlap, of two "
                f"frames at least; ask for {len(times) // 2} or fewer"
            )
        return np.concatenate([choose_times(stretch, frames, 1, step) for stretch in np.array_split(times, clips)])

    return taken(path, size, choose)


def taken(path: Path | str, size: int, choose: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """The frames of a video file that `choose` takes: uint8 [clips, 3, T, size, size].

    choose: given the times of all frames, sorted, it returns those to take, [clips, T].
    """
    check_path("path", path, "a video file")
    path = Path(path)
    with opened(path) as container:
        index, times, counted = find_frames(container, path)
    if len(times) < 2:
        raise DataError(
            f"{path.name} holds {len(times)} frame(s), a picture rather than a video: it needs at least two"
        )
    chosen = choose(times)  # [clips, T]
    order = np.unique(chosen)
    try:
        pictures = read_frames(path, index, order, size, times if counted else None)  # [different times, H, W, 3]
    except OutOfOrder:
        pictures = read_frames(path, index, order, size, times)
    clips = torch.from_numpy(pictures[np.searchsorted(order, chosen)])
    return rearrange(clips, "v t h w c -> v c t h w").contiguous()


def check_numbers(frames: int, size: int, views: int = 1, step: int | None = None) -> None:
    """Refuses numbers that are not whole or below 1, and clips of a file that would take more than 1 GiB."""
    for name, value in {"frames": frames, "size": size, "views": views, "step": 1 if step is None else step}.items():
        check_whole(name, value, 1)
    needed = 3 * int(frames) * int(size) ** 2 * int(views)
    if needed > MOST_FRAMES:
        raise ConfigError(
            f"frames={frames}, size={size}, views={views}: the clips of one file would take {needed / 2**30:.3g} GiB, "
            f"and at most {MOST_FRAMES >> 30} GiB are allowed; ask for fewer frames or a smaller size"
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
    try:
        size, kind = check_regular(path), mistaken_for(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"there is no file {path.name} in {path.parent}") from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}") from error
    if size == 0:
        raise DataError(f"{path.name} is empty (0 bytes): copy or encode it again")
    if kind:
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
    pictures, last, now, transparent, matrix = [], None, None, False, None
    with opened(path) as container:
        stream = container.streams[index]
        aspect = aspect_of(stream)

        def keep():
            nonlocal transparent, matrix
            if matrix is None:  # once: a frame whose side data were looked at is not freed with its last reference
                matrix = display_matrix(last)
            flat, clear = over_grey(last)
            transparent |= clear
            pictures.append(upright(square(flat, size, aspect), matrix))

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
        warnings.warn(f"{path.name} has transparent pixels: they are shown over grey.", stacklevel=4)
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
