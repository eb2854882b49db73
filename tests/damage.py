"""Damage to files, as hypothesis draws it, and what is no file at all."""

import contextlib
import os
import socket

from hypothesis import strategies as st

# where to cut a file off, or which of its bits to turn, as shares of its length
DAMAGE = st.one_of(
    st.floats(0, 0.999), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 7)), min_size=1, max_size=3)
)


def damaged(content, damage):
    """The bytes cut off at a share of them, or with single bits turned."""
    if isinstance(damage, float):
        return content[: int(damage * len(content))]
    content = bytearray(content)
    for share, bit in damage:
        content[int(share * len(content))] ^= 1 << bit
    return bytes(content)


# what may lie in the place of a file, and what it is called
NO_FILES = {"fifo": "a pipe", "socket": "a socket", "device": "a device", "folder": "a folder"}
NO_FILES |= {"dead": "a link that leads nowhere", "circle": "a link that leads nowhere"}


def no_file(kind, path):
    """Puts something that is no file at a path, in the place of what is there."""
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(path.parent):  # whose names are short
            made.bind(path.name)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "dead": "nowhere", "circle": path.name}[kind])
    return path
