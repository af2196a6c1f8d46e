"""The control groups that hold this process: a container or a systemd slice limits what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_sdk.probe.system import System, text


@dataclass(frozen=True, slots=True)
class Group:
    """The folder of one group; version 2 of the kernel's interface has other files in it than version 1."""

    folder: Path
    is_version_2: bool


def groups(system: System, controller: str) -> Iterator[Group]:
    """The groups of one controller, such as "memory", that hold this process, the innermost first.

    The limits of all of them hold. Inside a container the path that the kernel tells may not exist at all.
    """
    mount = system.sys / "fs/cgroup"
    for line in text(system.proc / "self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        is_version_2 = controllers == ""
        below = PurePosixPath(path)
        if not below.is_absolute() or ".." in below.parts:  # outside of what this container sees
            continue
        if is_version_2 or controller in controllers.split(","):
            root = mount if is_version_2 else mount / controller
            inner = below.relative_to("/")
            yield from (Group(root / part, is_version_2) for part in (inner, *inner.parents))
