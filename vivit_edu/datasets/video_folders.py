"""Which files of a folder are videos: those that PyAV can open and that are neither pictures nor text."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ..errors import DataError
from .decoding import opened, video_streams

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
LEFT_BEHIND |= {"#recycle", "icon\r", "lost+found", "system volume information"}


def visible(name: str) -> bool:
    """Whether a file or folder of this name was put there on purpose."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def real(path: Path) -> Path:
    """Where a path leads. `Path.resolve` would raise a RuntimeError for a link that leads to itself."""
    return Path(os.path.realpath(path))


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
