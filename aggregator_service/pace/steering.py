"""When a device comes back: what `pace.py` reckons with, as the service knows it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from aggregator_service.pace.pace import Pace, retry_after_seconds
from aggregator_service.service import Service
from aggregator_service.storage.tables import RoundRow, RunRow
from hetlora.states import RoundState

# How much more seldom devices come that there is nothing to do for.
IDLE_FACTOR: Final = 5
# The shortest of these tells how long a round takes: one straggler makes a round long, and says nothing more.
LAST_ROUNDS: Final = 3
_LAST: Final = select(RoundRow).where(
    RoundRow.run_id == bindparam("run"),
    RoundRow.round_index >= bindparam("oldest"),
    RoundRow.state == RoundState.COMMITTED,
)


def come_back_seconds(
    service: Service,
    population: str,
    device_id: str,
    now: datetime,
    *,
    use_at: datetime | None = None,
    idle: bool = False,
) -> float:
    """How long a device of the population stays away.

    Args:
        use_at: see `next_use`.
        idle: there is nothing for it to do, and nobody knows when there will be.
    """
    settings = service.settings
    factor = IDLE_FACTOR if idle else 1
    pace = Pace(
        settings.check_ins_per_second / factor,
        min(settings.least_retry_seconds * factor, settings.most_retry_seconds),
        settings.most_retry_seconds,
    )
    live = service.live_devices.count(service.database, population, now, settings.most_retry_seconds)
    return retry_after_seconds(
        pace, device_id, now.timestamp(), live, None if use_at is None else use_at.timestamp()
    )


def next_use(session: Session, run: RunRow, row: RoundRow | None) -> datetime | None:
    """When the next round of a synchronous run is likely to begin; None if that is not known.

    A round begins when the one before it ends, and that lasts from its first offer as long as the last ones
    did. The wait for a first device is left out, or waiting would beget waiting.

    Args:
        row: the run's open round, if it has one.
    """
    if run.settings.mode == "buffered" or row is None or row.window_closes_at is None:
        return None
    last = {"run": run.id, "oldest": row.round_index - LAST_ROUNDS}
    lasted = [
        own.ended_at - first_offer
        for own in session.scalars(_LAST, last)
        if own.ended_at is not None and (first_offer := _first_offer(run, own)) is not None
    ]
    begun = _first_offer(run, row)
    return begun + min(lasted) if lasted and begun is not None else None


def _first_offer(run: RunRow, row: RoundRow) -> datetime | None:
    """When the report window of a synchronous round opened."""
    if row.window_closes_at is None:
        return None
    return row.window_closes_at - timedelta(seconds=run.settings.report_window_seconds)
