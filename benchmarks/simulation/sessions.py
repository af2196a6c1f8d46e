"""When a device can work: sessions that begin more often at night, one after another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.simulation.draws import HABITS, SESSION, draw, generator, mean_of
from benchmarks.simulation.fleet_file import Availability, Spread

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Session:
    """A time in which a device can work: seconds of the simulation."""

    start: float
    end: float


def sessions(availability: Availability, seed: int, device: int) -> Iterator[Session]:
    """The sessions of a device that end after 0, without end.

    Of a share a(t) = share (1 + swing cos t) of all devices that have one, t from the peak, and sessions of T
    seconds in the mean, a device without one begins one at the rate a / (1 - a) / T: so many end as begin, if
    T is short beside a day. They begin a day before 0, at which the fleet is then as at any other time.
    Beginnings at the highest rate are thinned (Lewis and Shedler, 1979).
    """
    habits = generator(seed, HABITS, device)
    zone = float(habits.uniform(0, availability.time_zones_hours))
    own_share = draw(habits, _with_mean_one(availability.spread_between_devices))
    per_second = own_share / (60 * mean_of(availability.session_minutes))
    best, swing = availability.best_share, availability.swing
    rng = generator(seed, SESSION, device)
    now = -DAY
    while True:
        now += float(rng.exponential(1 / (per_second * _odds(best))))
        hours_from_peak = now / HOUR + zone - availability.peak_hour
        share = availability.share * (1 + swing * math.cos(2 * math.pi * hours_from_peak / 24))
        if float(rng.random()) * _odds(best) > _odds(share):
            continue
        end = now + 60 * draw(rng, availability.session_minutes)
        if end > 0:
            yield Session(now, end)
        now = end


def _odds(share: float) -> float:
    return share / (1 - share)


def _with_mean_one(spread: float) -> Spread:
    return Spread(median=1 / mean_of(Spread(median=1, spread=spread)), spread=spread)
