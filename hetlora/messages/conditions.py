"""When a device may work: what its app, and the operator of a run, ask of the moment."""

from __future__ import annotations

from datetime import time
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from hetlora.messages.common import Count, Message


def _of_some_length(hours: str) -> str:
    begin, _, end = hours.partition("-")
    if begin == end:
        raise ValueError("begin and end at one moment")
    return hours


# A part of each day in the device's own time, such as 22:00-06:00.
_TIME = r"([01]\d|2[0-3]):[0-5]\d"
Hours = Annotated[str, Field(pattern=rf"^{_TIME}-{_TIME}$"), AfterValidator(_of_some_length)]


class Conditions(Message):
    """What must hold for a device to work; what is left out asks nothing.

    - `charging`: a line feeds the device, or it has no battery.
    - `unmetered`: nobody pays for each byte.
    - `idle`: nobody uses the device, as its app says.
    - `min_battery_percent`, where there is a battery; `max_temperature_celsius`, where a sensor tells it.
    - `min_free_memory_bytes`: what others may still take while the device works.
    - `hours`: the time of day lies in one of them.
    """

    charging: bool = False
    unmetered: bool = False
    idle: bool = False
    min_battery_percent: float | None = Field(default=None, strict=True, ge=0, le=100)
    max_temperature_celsius: float | None = Field(default=None, strict=True, ge=-40, le=150)
    min_free_memory_bytes: Count | None = None
    hours: tuple[Hours, ...] = Field(default=(), max_length=8)


ANY_TIME: Final = Conditions()


def is_within(moment: time, hours: Hours) -> bool:
    """Whether a time of day lies in a part of the day, which may span midnight; its end is no part of it."""
    begin, end = (time.fromisoformat(word) for word in hours.split("-"))
    return begin <= moment < end if begin < end else not end <= moment < begin


def asks_nothing(conditions: Conditions) -> bool:
    """Whether a device may work at any moment."""
    return conditions == ANY_TIME
