"""The control groups that hold this process: a container or a systemd slice limits what is in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from edge_sdk.probe.system import System, text


@dataclass(frozen=True, slots=True)
class Group:
    """The folder of one group; version 2 of the kernel's interface has other files in it than version 1."""

    folder: Path
    is_version_2: bool

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return f"{self.folder}/{name}"


def groups(system: System, controller: str) -> tuple[Group, ...]:
    """The groups of one controller, such as "memory", that hold this process, the innermost first.

    The limits of all of them hold. Inside a container the path that the kernel tells may not exist at all.
    """
    return _groups_in(text(f"{system.proc}/self/cgroup"), system.sys, controller)


# A process seldom changes its groups, and is asked between any two steps.
@lru_cache(maxsize=4)
def _groups_in(told: str, sys: Path, controller: str) -> tuple[Group, ...]:
    mount = sys / "fs/cgroup"
    found: list[Group] = []
    for line in told.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        is_version_2 = controllers == ""
        below = PurePosixPath(path)
        if not below.is_absolute() or ".." in below.parts:  # outside of what this container sees
            continue
        if is_version_2 or controller in controllers.split(","):
            root = mount if is_version_2 else mount / controller
            inner = below.relative_to("/")
            found += [Group(root / part, is_version_2) for part in (inner, *inner.parents)]
    return tuple(found)
