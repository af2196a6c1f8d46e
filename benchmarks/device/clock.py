"""A clock that can be held while something else runs in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# By name: the wall's, and that of the time in which this process had a processor.
TIMERS: Final = {"wall": time.perf_counter, "processor": time.process_time}


class HeldClock:
    """Seconds of a timer, less those in which it was held."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._held_seconds = 0.0

    def __call__(self) -> float:
        return self._timer() - self._held_seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Leave out what passes meanwhile."""
        started = self._timer()
        try:
            yield
        finally:
            self._held_seconds += self._timer() - started
