"""Time as tests of devices tell it: a clock, and an event that is waited for without waiting."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Stop(threading.Event):
    """An event that notes how long it was waited for, does not wait, and is set after some waits."""

    def __init__(self, *, after: int | None = None) -> None:
        super().__init__()
        self._after = after
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        if len(self.waits) == self._after:
            self.set()
        return self.is_set()
