"""How hot the processor is, and whether heat or a weak supply slows it down."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, below, number, text, whole

# What kernels call sensors of the processor: x86_pkg_temp, cpu-thermal, cpu_thermal, CPU-therm, tj-thermal.
_OF_PROCESSOR: Final = re.compile(r"cpu|pkg|core|soc|^tj|k10temp|zenpower", re.IGNORECASE)
# What slows a processor down when it is hot: cpufreq-cpu0, thermal-cpufreq-0, Processor.
_SLOWS_PROCESSOR: Final = re.compile(r"cpufreq|^processor", re.IGNORECASE)
# Sensors that are off or broken say -256 or 0 degrees below zero, or more than any chip outlives.
_PLAUSIBLE_CELSIUS: Final = range(-40, 151)
# Raspberry Pi's firmware: under-voltage, frequency capped, throttled, soft temperature limit; each is so now.
# The bits from 16 on say that it was so since the start.
_THROTTLED_NOW: Final = 0b1111


@source
def measure_temperature(system: System) -> float | None:
    """Degrees Celsius of the hottest sensor of the processor; of any other where it has none of its own.

    Linux alone tells this: neither macOS nor Windows does without a driver or rights of an administrator.
    """
    sensors = list(_sensors(system))
    of_processor = [celsius for kind, celsius in sensors if _OF_PROCESSOR.search(kind)]
    return max(of_processor or (celsius for _, celsius in sensors), default=None)


@source
def measure_throttling(system: System) -> bool | None:
    """Whether the processor is slowed down at this moment, for heat or for want of voltage.

    A power mode that somebody set is none of it: see `Clock.limit_hz`.
    """
    told = []
    for device in system.sys.glob("class/thermal/cooling_device*"):
        state = number(device / "cur_state")
        if state is not None and _SLOWS_PROCESSOR.search(text(device / "type")):
            told.append(state > 0)
    for path in system.sys.glob("devices/platform/soc*/soc*firmware/get_throttled"):
        bits = whole(text(path), 16)
        if bits is not None:
            told.append(bits & _THROTTLED_NOW != 0)
    return any(told) if told else None


def _sensors(system: System) -> Iterator[tuple[str, float]]:
    """What each sensor measures, and its degrees."""
    zones = below(f"{system.sys}/class/thermal", "thermal_zone")
    places = [(zone / "type", zone / "temp") for zone in zones]
    # Drivers of AMD's processors have no thermal zone.
    for chip in below(f"{system.sys}/class/hwmon", "hwmon"):
        places += [(chip / "name", path) for path in below(chip, "temp") if path.name.endswith("_input")]
    for kind, value in places:
        thousandths = number(value)
        if thousandths is not None and thousandths // 1000 in _PLAUSIBLE_CELSIUS:
            yield text(kind), thousandths / 1000
