"""Whether a device may work now: what is asked of the moment, and how the device finds it.

What a device cannot find out of itself counts as given, but for what only its app knows (`idle`), and for a
network that may be anybody's (`unmetered`): it must not cost anyone money or a slow screen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from edge_sdk.probe.battery import measure_battery
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature
from edge_sdk.units import MIB
from hetlora.errors import ConditionsUnmet, SettingsError, Stopped
from hetlora.messages.conditions import ANY_TIME, Conditions, is_within

logger = logging.getLogger(__name__)

LEFT_ALONE_SECONDS: Final = 3600.0

# What an app knows of its device: None, or a call that answers None or raises, is unknown.
Told = Callable[[], bool | None] | None


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks whether a device may work; cheap enough to be asked between any two steps.

    Args:
        own: what the app asks.
        is_charging: whether a line feeds the device; where the app does not tell, the system is asked.
        is_metered: whether somebody pays for each byte; where the app does not tell, ethernet and Wi-Fi are
            taken for unmetered, and all other networks for metered.
        is_idle: whether nobody uses the device.
        system: the machine that is asked.
        now: the device's own time of day.
        stop: set by the app to end the visit.
        of_run: what the run asks that is worked for; it may ask more, never less.

    Raises:
        SettingsError: the app asks for an idle device, and does not tell when it is.
    """

    own: Conditions = ANY_TIME
    is_charging: Told = None
    is_metered: Told = None
    is_idle: Told = None
    system: System = field(default_factory=System)
    now: Callable[[], datetime] = datetime.now
    stop: threading.Event | None = None
    of_run: Conditions = ANY_TIME

    def __post_init__(self) -> None:
        if self.own.idle and self.is_idle is None:
            raise SettingsError("conditions ask for an idle device", got="no is_idle", expected="one to ask")

    def unmet(self) -> str | None:
        """What keeps the device from working now, in words; None if it may."""
        return self._unmet(self.own) or self._unmet(self.of_run)

    def check(self) -> None:
        """Raise unless the device may work now.

        Raises:
            Stopped: the app has asked for the end of the visit.
            ConditionsUnmet: it may not work; the message says why.
        """
        self.check_stop()
        if (reason := self.unmet()) is not None:
            raise ConditionsUnmet("this device may not work now", got=reason)

    def check_stop(self) -> None:
        """Raise Stopped if the app has asked for the end of the visit."""
        if self.stop is not None and self.stop.is_set():
            raise Stopped("this visit was asked to end")

    def wait(self, seconds: float) -> None:
        """Wait, if and as long as this device may work; the app's stop ends it at once; errors as `check`."""
        self.check()
        if self.stop is None:
            time.sleep(seconds)
        else:
            self.stop.wait(seconds)
        self.check()

    def metered(self) -> str | None:
        """What keeps the device from sending now, in words."""
        return self._network(self.own) or self._network(self.of_run)

    def reserved_bytes(self) -> int:
        """The memory that is to stay free for others."""
        return max(self.own.min_free_memory_bytes or 0, self.of_run.min_free_memory_bytes or 0)

    def _unmet(self, asked: Conditions) -> str | None:
        return (
            self._power(asked)
            or self._network(asked)
            or self._use(asked)
            or self._temperature(asked)
            or self._memory(asked)
            or self._time(asked)
        )

    def _power(self, asked: Conditions) -> str | None:
        if not asked.charging and asked.min_battery_percent is None:
            return None
        battery = measure_battery(self.system)
        if asked.charging:
            charging = _told(self.is_charging)
            if charging is None and battery is not None:
                charging = battery.is_on_external_power
            if charging is False:
                return "the device runs on its battery"
        least, percent = asked.min_battery_percent, None if battery is None else battery.percent
        if least is not None and percent is not None and percent < least:
            return f"the battery is at {percent:.0f} %, {least:g} % are wanted"
        return None

    def _network(self, asked: Conditions) -> str | None:
        if not asked.unmetered:
            return None
        metered = _told(self.is_metered)
        if metered is not None:
            return "the network is metered" if metered else None
        kind = measure_network(self.system)
        if kind in ("ethernet", "wifi"):
            return None
        return "the network may be metered" if kind is None else f"the network, {kind}, may be metered"

    def _use(self, asked: Conditions) -> str | None:
        if not asked.idle:
            return None
        idle = _told(self.is_idle)
        if idle is None:
            return "the app does not tell whether the device is idle"
        return None if idle else "the device is in use"

    def _temperature(self, asked: Conditions) -> str | None:
        most = asked.max_temperature_celsius
        celsius = None if most is None else measure_temperature(self.system)
        if most is None or celsius is None or celsius <= most:
            return None
        return f"the processor is at {celsius:.0f} degrees Celsius, {most:g} are allowed"

    def _memory(self, asked: Conditions) -> str | None:
        least = asked.min_free_memory_bytes
        memory = None if least is None else measure_memory(self.system)
        if least is None or memory is None or memory.available_bytes >= least:
            return None
        return f"{memory.available_bytes / MIB:.0f} MiB of memory are free, {least / MIB:.0f} are to stay so"

    def _time(self, asked: Conditions) -> str | None:
        moment = self.now().time()
        if not asked.hours or any(is_within(moment, hours) for hours in asked.hours):
            return None
        return f"it is {moment:%H:%M}, and not within {' or '.join(asked.hours)}"


class LeftAlone:
    """The conditions of a run that this device did not meet: it is not asked again before they hold.

    Or before an hour is over, as there may be another run, or other conditions.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._conditions, self._noted_at = ANY_TIME, 0.0

    def note(self, conditions: Conditions) -> None:
        """The device has just given work back for these."""
        self._conditions, self._noted_at = conditions, self._clock()

    def conditions(self) -> Conditions:
        """What has to hold before the service is asked."""
        passed = self._clock() - self._noted_at
        return self._conditions if 0 <= passed < LEFT_ALONE_SECONDS else ANY_TIME


def _told(told: Told) -> bool | None:
    try:
        return None if told is None else told()
    except Exception:  # the app's own trouble costs no visit
        logger.exception("event=condition_unknown")
        return None
