"""How many requests one caller may make in a minute.

What counts are the nonces that have to be kept anyway, so that the limit holds over all replicas and costs no
write. Requests that come at one moment may not see each other: a caller who is that quick gets a few more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from aggregator_service.storage.tables import NonceRow
from hetlora.errors import TooManyRequests
from hetlora.signature import MAX_CLOCK_SKEW_SECONDS

WINDOW: Final = timedelta(seconds=60)
# From when a nonce was seen, whatever time was signed: one from the furthest future is acceptable no longer.
NONCE_KEPT: Final = timedelta(seconds=2 * MAX_CLOCK_SKEW_SECONDS)
STRANGERS: Final = "-"  # the caller under which refused enrolments are counted; no device has this id


def latest_in_window(caller: str, most: int, now: datetime) -> Select[datetime]:
    """The nonce that has to leave the window before a caller may ask again; no row where it may ask now."""
    in_window = NonceRow.expires_at > now - WINDOW + NONCE_KEPT
    return (
        select(NonceRow.expires_at)
        .where(NonceRow.device_id == caller, in_window)
        .order_by(NonceRow.expires_at.desc())
        .offset(most - 1)
        .limit(1)
    )


def check_pace(session: Session, caller: str, most: int, now: datetime) -> None:
    """Refuse a caller who made its requests of this minute.

    Raises:
        TooManyRequests: it did, and is told when to ask again.
    """
    refuse_until(session.scalar(latest_in_window(caller, most, now)), most, now)


def refuse_until(expires_at: datetime | None, most: int, now: datetime) -> None:
    """As `check_pace`, of what `latest_in_window` found."""
    if expires_at is None:
        return
    wait_seconds = (expires_at - NONCE_KEPT + WINDOW - now).total_seconds()
    raise TooManyRequests(
        "too many requests in a minute",
        got=f"more than {most}",
        expected=f"the next one in {wait_seconds:.0f} s",
        retry_after_seconds=wait_seconds,
    )
