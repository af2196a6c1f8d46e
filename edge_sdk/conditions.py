"""Whether a device may work now: what is asked of the moment, and how the device finds it.

What a device cannot find out of itself counts as given, but for what only its app knows (`idle`), and for a
network that may be anybody's (`unmetered`): it must not cost anyone money or a slow screen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from edge_sdk.probe.battery import measure_battery
from edge_sdk.probe.memory import measure_memory
from edge_sdk.probe.network import measure_network
from edge_sdk.probe.system import System
from edge_sdk.probe.temperature import measure_temperature
from hetlora.errors import ConditionsUnmet
from hetlora.messages.conditions import ANY_TIME, Conditions, is_within

MIB = 1024 * 1024

# What an app knows of its device: None, or a call that answers None, is unknown.
Told = Callable[[], bool | None] | None


@dataclass(frozen=True, slots=True)
class Watch:
    """Looks whether a device may work; cheap enough to be asked between any two steps.

    Args:
        own: what the app asks; a run may ask more, never less.
        is_idle: whether nobody uses the device.
        is_metered: whether somebody pays for each byte; where the app does not tell, ethernet and Wi-Fi are
            taken for unmetered, and all other networks for metered.
        system: the machine that is asked.
        now: the device's own time of day.
    """

    own: Conditions = ANY_TIME
    is_idle: Told = None
    is_metered: Told = None
    system: System = field(default_factory=System)
    now: Callable[[], datetime] = datetime.now

    def unmet(self, of_run: Conditions = ANY_TIME) -> str | None:
        """What keeps the device from working now, in words; None if it may."""
        asked = self.own.stricter(of_run)
        return (
            self._power(asked)
            or self._network(asked)
            or self._use(asked)
            or self._temperature(asked)
            or self._memory(asked)
            or self._time(asked)
        )

    def check(self, of_run: Conditions) -> None:
        """Raise unless the device may work now.

        Raises:
            ConditionsUnmet: it may not; the message says why.
        """
        if (reason := self.unmet(of_run)) is not None:
            raise ConditionsUnmet("this device may not work now", got=reason)

    def _power(self, asked: Conditions) -> str | None:
        if not asked.charging and asked.min_battery_percent is None:
            return None
        battery = measure_battery(self.system)
        if battery is None:
            return None
        if asked.charging and battery.is_on_external_power is False:
            return "the device runs on its battery"
        least = asked.min_battery_percent
        if least is not None and battery.percent is not None and battery.percent < least:
            return f"the battery is at {battery.percent:.0f} %, {least:g} % are wanted"
        return None

    def _network(self, asked: Conditions) -> str | None:
        if not asked.unmetered:
            return None
        metered = None if self.is_metered is None else self.is_metered()
        if metered is None:
            metered = measure_network(self.system) not in ("ethernet", "wifi")
        return "the network is metered" if metered else None

    def _use(self, asked: Conditions) -> str | None:
        if not asked.idle:
            return None
        idle = None if self.is_idle is None else self.is_idle()
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
        over = [hours for hours in asked.hours if not is_within(moment, hours)]
        return f"it is {moment:%H:%M}, and not within {over[0]}" if over else None
