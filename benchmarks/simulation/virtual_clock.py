"""A clock that stands still but for events, which come in the order of their times."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

# A Monday, at midnight.
BEGINNING: Final = datetime(2026, 1, 5, tzinfo=UTC)

Event = Callable[[], None]


class VirtualClock:
    """Tells the time of the event under way; of events of one time the first asked for comes first."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waiting: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()

    def __call__(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.seconds)

    def at(self, seconds: float, event: Event) -> None:
        """Have something happen then, or now if that is over."""
        heapq.heappush(self._waiting, (max(seconds, self.seconds), next(self._numbers), event))

    def after(self, seconds: float, event: Event) -> None:
        """Have something happen so much later."""
        self.at(self.seconds + seconds, event)

    def step(self) -> bool:
        """Have the next event happen; False if there is none."""
        if not self._waiting:
            return False
        self.seconds, _, event = heapq.heappop(self._waiting)
        event()
        return True
