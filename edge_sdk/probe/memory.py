"""How much memory there is, and how much of it is free."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psutil

from edge_sdk.probe.cgroups import Group, groups
from edge_sdk.probe.process_limits import process_limits
from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, number, text, whole

# Both in kB, in this order since the kernel has the second (3.14).
_OF_MACHINE: Final = re.compile(
    r"^MemTotal:\s*(\d{1,15}) kB$.*?^MemAvailable:\s*(\d{1,15}) kB$", re.MULTILINE | re.DOTALL
)
_FILES_OF_VERSION: Final = {
    True: ("memory.max", "memory.current"),
    False: ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that this process could use, and how much of it is free now, in bytes."""

    total_bytes: int
    available_bytes: int


@source
def measure_memory(system: System) -> Memory | None:
    """The machine's memory, or what this process or its control group may have of it where that is less.

    A container or a systemd slice kills the process at its own limit, whatever the machine has left. Where a
    graphics processor shares the memory (Jetson), what that one holds is not free.
    """
    machine = _of_machine(system)
    if machine is None:
        return None
    total, available = machine.total_bytes, machine.available_bytes
    for limit, free in (*_of_groups(system, total), *process_limits(system)):
        if 0 <= limit < machine.total_bytes:
            total, available = min(total, limit), min(available, free)
    return Memory(total, available)


def _of_groups(system: System, machine_bytes: int) -> Iterator[tuple[int, int]]:
    """The limit of each control group that has one below the machine's, and how much below it is free."""
    for group in groups(system, "memory"):
        limit_name, used_name = _FILES_OF_VERSION[group.is_version_2]
        limit = number(group.file(limit_name))
        if limit is None or limit >= machine_bytes:
            continue  # what is in it is not looked up: this is asked between any two steps
        used = number(group.file(used_name))
        if used is not None:
            # Cached file pages count as used, but the kernel gives them up before it kills anyone.
            yield limit, max(0, limit - max(0, used - _inactive_file_bytes(group)))


def _of_machine(system: System) -> Memory | None:
    told = _OF_MACHINE.search(text(f"{system.proc}/meminfo"))
    if told is not None:
        return Memory(1024 * int(told[1]), 1024 * int(told[2]))
    if not system.is_here:
        return None
    machine = psutil.virtual_memory()
    return Memory(machine.total, machine.available)


def _inactive_file_bytes(group: Group) -> int:
    fields = dict(line.split(" ", 1) for line in text(group.file("memory.stat")).splitlines() if " " in line)
    # Version 1 has the sum over the groups below under a name of its own.
    size = whole(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
    return max(0, size or 0)
