"""How much memory this process may use: the machine's, or what a container, a batch system or a shell leaves it."""

import sys
from pathlib import Path

from .devices import machine_memory

GROUPS_OF_PROCESS = Path("/proc/self/cgroup")  # Linux: the control groups that this process is in
CONTROL_GROUPS = Path("/sys/fs/cgroup")


def usable_memory() -> int | None:
    """Bytes of memory that this process may use, at the most; None where the system says nothing at all.

    It is the machine's memory, or less where a control group (Docker, Kubernetes, Slurm) or `ulimit -v` allows less.
    """
    known = [machine_memory(), *group_limits(), address_limit()]
    return min((limit for limit in known if limit is not None), default=None)


def group_limits() -> list[int]:
    """What the control groups of this process, and the groups above them, allow in bytes; [] where none does."""
    try:
        lines = GROUPS_OF_PROCESS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError):
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers == "":  # version 2 has one tree for everything
            root, name = CONTROL_GROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CONTROL_GROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for place in (group, *group.parents):
            if place == root.parent:
                break
            try:
                text = (place / name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeError):  # inside a container the path may be the host's, and the root our own group
                continue
            found += [int(text)] if text.isdecimal() else []  # "max" is no limit
    return found


def address_limit() -> int | None:
    """Bytes of addresses that `ulimit -v` leaves this process; None where it has no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft
