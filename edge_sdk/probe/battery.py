"""What the device runs on: its battery, or a line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, below, number, text


@dataclass(frozen=True, slots=True)
class Battery:
    """How full it is, whether it is being charged, and whether a line feeds the device.

    Without a battery `percent` is None, and a line is all that there is.
    """

    percent: float | None
    is_charging: bool | None
    is_on_external_power: bool | None


@source
def measure_battery(system: System) -> Battery | None:
    """What the kernel's power supplies say, or psutil where there are none.

    A machine whose kernel knows of power supplies and has no battery hangs on a line.
    """
    folder = f"{system.sys}/class/power_supply"
    if os.path.isdir(folder):
        return battery_of([path for path in below(folder) if feeds_the_system(path)])
    if not (system.is_here and hasattr(psutil, "sensors_battery")):
        return None
    told = psutil.sensors_battery()
    return None if told is None else from_psutil(told.percent, told.power_plugged)


def battery_of(supplies: Sequence[Path]) -> Battery:
    """Of several batteries the mean; they charge if one of them does."""
    batteries = [path for path in supplies if text(path / "type") == "Battery"]
    lines = [number(path / "online") for path in supplies if path not in batteries]
    told = (number(path / "capacity") for path in batteries)
    percents = [percent for percent in told if percent is not None and 0 <= percent <= 100]
    states = {text(path / "status") for path in batteries} - {"", "Unknown"}
    is_fed = not batteries or any(lines) or bool(states & {"Charging", "Full", "Not charging"})
    is_closed = any(not text(path / "type") for path in supplies)  # a battery, for all that we may know
    is_told = (is_fed and not is_closed) or "Discharging" in states or 0 in lines
    return Battery(
        sum(percents) / len(percents) if percents else None,
        "Charging" in states if states or not batteries else None,
        is_fed if is_told else None,
    )


def from_psutil(percent: float, is_plugged: bool | None) -> Battery:
    """What psutil tells on macOS, Windows and FreeBSD: it does not tell charging from full."""
    is_charging = is_plugged and percent < 100 if is_plugged is not None else None
    return Battery(percent if 0 <= percent <= 100 else None, is_charging, is_plugged)


def feeds_the_system(supply: Path) -> bool:
    """Not the battery of a mouse."""
    return text(supply / "scope") != "Device"
