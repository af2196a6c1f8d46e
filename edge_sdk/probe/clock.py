"""How fast the processor's cores are clocked, and how fast they may be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, number

_MOST_KHZ: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Frequencies of the fastest core: now, what heat or a setting allows it, and what it was made for."""

    now_hz: int | None
    limit_hz: int | None
    most_hz: int | None


@source
def measure_clock(system: System) -> Clock | None:
    """What cpufreq tells, or psutil where there is none; virtual machines mostly tell nothing.

    A frequency below the limit is what an idle core saves; a limit below the most is heat, or a power mode
    that somebody set (nvpmodel on a Jetson).
    """
    folders = sorted(system.sys.glob("devices/system/cpu/cpu[0-9]*/cpufreq"))
    if folders:
        return Clock(
            _fastest(folders, "scaling_cur_freq"),
            _fastest(folders, "scaling_max_freq"),
            _fastest(folders, "cpuinfo_max_freq"),
        )
    return _from_psutil() if system.is_here and hasattr(psutil, "cpu_freq") else None


def _fastest(folders: list[Path], file: str) -> int | None:
    told = (number(folder / file) for folder in folders)
    return 1000 * max((khz for khz in told if khz is not None and 0 < khz < _MOST_KHZ), default=0) or None


def _from_psutil() -> Clock | None:
    told = psutil.cpu_freq()
    # On virtual machines it is what the kernel was once told: without a most it says nothing of limits.
    return Clock(round(told.current * 1e6), None, round(told.max * 1e6)) if told and told.max else None
