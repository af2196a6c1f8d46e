"""How many requests one caller may make in a minute.

What counts are the nonces that have to be kept anyway, so that the limit holds over all replicas and costs no
write. Requests that come at one moment may not see each other: a caller who is that quick gets a few more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from aggregator_service.storage.tables import NonceRow
from hetlora.errors import TooManyRequests
from hetlora.signature import MAX_CLOCK_SKEW_SECONDS

WINDOW: Final = timedelta(seconds=60)
# From when a nonce was seen, whatever time was signed: one from the furthest future is acceptable no longer.
NONCE_KEPT: Final = timedelta(seconds=2 * MAX_CLOCK_SKEW_SECONDS)
# By how much clocks of two processes may differ: each may be off by what a device's may. One that is further
# off understands no device whose clock is right.
CLOCKS_APART: Final = timedelta(seconds=2 * MAX_CLOCK_SKEW_SECONDS)
STRANGERS: Final = "-"  # the caller under which refused enrolments are counted; no device has this id
# The nonce that has to leave the window before a caller may ask again; no row where it may ask now.
LATEST_IN_WINDOW: Final = (
    select(NonceRow.expires_at)
    .where(NonceRow.device_id == bindparam("caller"), NonceRow.expires_at > bindparam("window_start"))
    .order_by(NonceRow.expires_at.desc())
    .offset(bindparam("requests_left_out"))
    .limit(1)
)


def in_window(caller: str, most: int, now: datetime) -> dict[str, Any]:
    """The parameters of `LATEST_IN_WINDOW`."""
    return {"caller": caller, "window_start": now - WINDOW + NONCE_KEPT, "requests_left_out": most - 1}


def check_pace(session: Session, caller: str, most: int, now: datetime) -> None:
    """Refuse a caller who made its requests of this minute.

    Raises:
        TooManyRequests: it did, and is told when to ask again.
    """
    refuse_until(session.scalar(LATEST_IN_WINDOW, in_window(caller, most, now)), most, now)


def refuse_until(expires_at: datetime | None, most: int, now: datetime) -> None:
    """As `check_pace`, of what `LATEST_IN_WINDOW` found."""
    if expires_at is None:
        return
    wait_seconds = (expires_at - NONCE_KEPT + WINDOW - now).total_seconds()
    raise TooManyRequests(
        "too many requests in a minute",
        got=f"more than {most}",
        expected=f"the next one in {wait_seconds:.0f} s",
        retry_after_seconds=wait_seconds,
    )
