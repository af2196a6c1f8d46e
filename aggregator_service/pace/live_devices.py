"""How many devices of a population are alive: counted now and then, as a whole population is read for it."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select

from aggregator_service.storage.database import Database
from aggregator_service.storage.tables import DeviceRow
from hetlora.states import DeviceState

COUNTED_SECONDS: Final = 30.0


class LiveDevices:
    """Remembers the last count of each population for `COUNTED_SECONDS`; a dead process loses nothing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[str, tuple[datetime, int]] = {}

    def count(self, database: Database, population: str, now: datetime, within_seconds: float) -> int:
        """Accepted devices that were in contact within this time; at least 1."""
        with self._lock:
            counted_at, number = self._counted.get(population, (None, 1))
            if counted_at is not None and abs((now - counted_at).total_seconds()) < COUNTED_SECONDS:
                return number
            self._counted[population] = (now, number)  # for whoever asks while it is counted
        alive = select(func.count()).where(
            DeviceRow.population == population,
            DeviceRow.state == DeviceState.ACCEPTED,
            DeviceRow.last_contact_at > now - timedelta(seconds=within_seconds),
        )
        with database.read() as session:
            number = max(1, session.scalar(alive) or 0)
        with self._lock:
            self._counted[population] = (now, number)
        return number
