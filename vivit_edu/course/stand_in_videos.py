"""Video files in the place of the reader's own, for chapter 14: moving shapes, large and in colour."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..volumes import Volumes

LARGER = 4  # times as many pixels along each side: 112 of 28


def stand_in_videos(folder: Path | str, shapes: Volumes, classes: Sequence[int] = (0, 4), count: int = 12) -> Path:
    """Writes the first `count` training clips of some classes as mp4 files of 112×112 pixels in colour.

    folder: gets a sub-folder for each class, with the class's name. shapes: movingshapes. Needs PyAV.
    Returns the folder.
    """
    folder = Path(folder)
    for label in classes:
        home = folder / shapes.class_names[label]
        home.mkdir(parents=True, exist_ok=True)
        clips = shapes.train.clips[shapes.train.labels == label][:count]
        for number, clip in enumerate(clips):
            write_clip_as_video(home / f"{number:02}.mp4", clip)
    return folder


def write_clip_as_video(path: Path, clip: torch.Tensor) -> None:
    """A grey clip uint8 [1, T, H, W] as an mp4 file of 10 frames per second, four times as large, white on blue."""
    import av

    pictures = clip[0].repeat_interleave(LARGER, 1).repeat_interleave(LARGER, 2)  # [T, 112, 112]
    coloured = torch.stack((pictures, pictures, 120 + pictures // 2), dim=-1).clamp(0, 255).to(torch.uint8)
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:], "yuv420p"
        stream.bit_rate = 1_000_000
        for picture in coloured.numpy():  # [H, W, 3]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            video.mux(stream.encode(frame.reformat(format="yuv420p")))
        video.mux(stream.encode(None))
