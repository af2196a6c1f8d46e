"""How much memory there is, and how much this process has used."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import psutil

_CGROUP_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUP_MOUNT: Final = Path("/sys/fs/cgroup")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that this process could use, and how much of it is free now, in bytes."""

    total_bytes: int
    available_bytes: int


def measure_memory(*, membership: Path = _CGROUP_MEMBERSHIP, mount: Path = _CGROUP_MOUNT) -> Memory:
    """The machine's memory, or that of this process's control group where it is less.

    A container or a systemd slice kills the process at its own limit, whatever the machine has left.
    """
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for folder, limit_name, used_name in _groups(membership, mount):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is None or used is None or limit >= machine.total:
            continue
        # Cached file pages count as used, but the kernel gives them up before it kills anyone.
        free = max(0, limit - max(0, used - _inactive_file_bytes(folder)))
        total, available = min(total, limit), min(available, free)
    return Memory(total, available)


def peak_memory_bytes(pid: int | None = None, *, proc: Path = _PROC) -> int:
    """The most resident memory that a process, by default this one, has had since its start.

    What it holds now, where the system keeps no peak of it: a number for a report must not cost the work.
    """
    held = psutil.Process(pid).memory_info()
    if sys.platform == "win32":
        return int(held.peak_wset)
    if sys.platform == "linux":
        # Not ru_maxrss: a child inherits that from whatever process started it.
        peak = re.search(r"^VmHWM:\s*(\d+) kB$", _text(proc / f"{pid or 'self'}/status"), re.MULTILINE)
        return int(peak[1]) * 1024 if peak else int(held.rss)
    if pid is not None:
        return int(held.rss)
    import resource  # absent on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere but on macOS


def _groups(membership: Path, mount: Path) -> list[tuple[Path, str, str]]:
    """Folder, limit file and usage file of each memory group that holds this process, versions 2 and 1."""
    groups = []
    for line in _text(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = mount, ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, files = mount / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # The limits of all groups above hold too; inside a container the path may not exist at all.
        below = PurePosixPath(path).relative_to("/")
        groups += [(root / parent, *files) for parent in (below, *below.parents)]
    return groups


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:  # no such group, or "max"
        return None


def _inactive_file_bytes(folder: Path) -> int:
    lines = _text(folder / "memory.stat").splitlines()
    fields = dict(line.split(" ", 1) for line in lines if " " in line)
    # Version 1 has the sum over the groups below under a name of its own.
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))
