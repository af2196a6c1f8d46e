"""What the device draws: the rail that feeds a board, the battery that it runs on, or its processor alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edge_sdk.probe.battery import feeds_the_system
from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, number, text

# What feeds a whole Jetson, under the names of its carriers; the other rails are parts of it.
_BOARD_RAILS: Final = ("VDD_IN", "POM_5V_IN", "SYS_VIN_HV", "VIN_SYS_5V0")
_MOST_WATTS: Final = 100_000
_PACKAGE: Final = "package"


@source
def measure_watts(system: System) -> float | None:
    """What the whole device draws at this moment: of a Jetson's INA3221, or of a battery that feeds it.

    None where only a line feeds it, or no sensor tells: what goes into a battery is not what is drawn.
    """
    rails = [watts for label, watts in _rails(system) if label in _BOARD_RAILS]
    told = rails or [watts for watts in map(_discharge, _batteries(system)) if watts is not None]
    total = sum(told)
    return total if 0 < total < _MOST_WATTS else None


@source
def measure_processor_joules(system: System) -> float | None:
    """What the processor has drawn since some moment, by RAPL; the counter begins again at its end.

    Linux lets administrators alone read it.
    """
    told = [
        number(zone / "energy_uj")
        for zone in system.sys.glob("class/powercap/intel-rapl:*")
        if text(zone / "name").startswith(_PACKAGE)
    ]
    joules = [microjoules / 1e6 for microjoules in told if microjoules is not None and microjoules >= 0]
    return sum(joules) if joules and len(joules) == len(told) else None


def _rails(system: System) -> Iterator[tuple[str, float]]:
    for label in system.sys.glob("class/hwmon/hwmon*/in*_label"):
        channel = label.name.removeprefix("in").removesuffix("_label")
        millivolts = number(label.with_name(f"in{channel}_input"))
        milliamperes = number(label.with_name(f"curr{channel}_input"))
        if millivolts is not None and milliamperes is not None:
            yield text(label), millivolts * milliamperes / 1e6


def _batteries(system: System) -> Iterator[Path]:
    for supply in system.sys.glob("class/power_supply/*"):
        if text(supply / "type") == "Battery" and feeds_the_system(supply):
            yield supply


def _discharge(battery: Path) -> float | None:
    """Drivers tell either power or current and voltage, in millionths; some have a sign for the direction."""
    if text(battery / "status") != "Discharging":
        return None
    power = number(battery / "power_now")
    if power is not None:
        return abs(power) / 1e6
    current, voltage = number(battery / "current_now"), number(battery / "voltage_now")
    return None if current is None or voltage is None else abs(current * voltage) / 1e12
