"""The processor: what it is called, what it understands, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from typing import Final

from edge_sdk.probe.cgroups import groups
from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, name, number, text, whole

# Those that kernels of matrix products are written for, as Linux names them on x86 and on ARM.
INSTRUCTION_SETS: Final = frozenset(
    (
        *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni"),
        *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        *("amx_tile", "amx_int8", "amx_bf16"),
        *("neon", "asimd", "fphp", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16"),
        *("sve", "sve2", "svei8mm", "svebf16", "sme"),
    )
)
_SAME: Final = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, slots=True)
class Processor:
    """What kind of processor it is, and how much of it this process may use.

    `instruction_sets` are those that all of its cores have. `cores` are those that this process may run on;
    `quota_cores` is how many cores' time its control groups give it, None without a limit.
    """

    architecture: str | None
    name: str | None
    instruction_sets: tuple[str, ...] | None
    cores: int
    quota_cores: float | None


@source
def measure_processor(system: System) -> Processor:
    """The processor as the kernel describes it; elsewhere as Python does, without instruction sets."""
    described = text(system.proc / "cpuinfo")
    # One line a core: "flags" on x86, "Features" on ARM. A board may have cores of two kinds.
    lines = re.findall(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    known = [INSTRUCTION_SETS & set(line.split()) for line in lines]
    return Processor(
        architecture_of(system.machine),
        _name(system, described),
        tuple(sorted(frozenset.intersection(*known))) if known else None,
        len(usable_cores()),
        measure_cpu_quota(system),
    )


def architecture_of(machine: str) -> str | None:
    """The one word, such as x86_64 or aarch64, for what systems name differently."""
    word = re.sub(r"[^a-z0-9_]", "_", machine.lower())[:32]
    return _SAME.get(word, word) or None


def usable_cores() -> tuple[int, ...]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


@source
def measure_cpu_quota(system: System) -> float | None:
    """How many cores' time the control groups of this process give it; None where they set no limit.

    Of a quota of half a core each core still runs at its full rate, and stands still for half of the time.
    """
    quotas = []
    for group in groups(system, "cpu"):
        if group.is_version_2:
            quota, period, *_ = [*text(group.file("cpu.max")).split(), "", ""]
            used, of = whole(quota), whole(period)
        else:
            used, of = number(group.file("cpu.cfs_quota_us")), number(group.file("cpu.cfs_period_us"))
        if used is not None and of is not None and used > 0 and of > 0:  # "max" and -1 are none
            quotas.append(used / of)
    return min(quotas, default=None)


def _name(system: System, described: str) -> str | None:
    # Not all that stands there: boards put their serial number beside it.
    found = re.search(r"^model name\s*:(.*)$", described, re.MULTILINE)
    told = found[1] if found else text(system.proc / "device-tree/model")
    return name(told or (platform.processor() if system.is_here else ""))
