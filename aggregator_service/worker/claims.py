"""Claims on rounds that wait to be aggregated, by which several workers share them out without a leader.

A claim only saves work: whoever aggregates a round comes to the same bytes, and the commit looks whether the
round still waits (ADR 0012). So the clocks of the processes need not agree. A process whose clock runs far
ahead would hold a round for as long once it has died: such a claim is not believed.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, or_, select, update

from aggregator_service.service import Service
from aggregator_service.storage.passing import log_fault
from aggregator_service.storage.tables import RoundRow
from hetlora.states import RoundState

log = logging.getLogger(__name__)

BELIEVED_CLAIMS: Final = 2  # one, and as much again for clocks that differ a little


def free_abandoned(service: Service) -> None:
    """Give up the claims of processes of this machine that are no more, such as the one before this."""
    held_by_others = RoundRow.claimed_until > service.clock(), RoundRow.state == RoundState.AGGREGATING
    with service.database.write() as session:
        for row in session.scalars(select(RoundRow).where(*held_by_others).with_for_update(skip_locked=True)):
            if not _may_live(str(row.claimed_by), service.name):
                log.info("round=%s claim=abandoned by=%s", row.id, row.claimed_by)
                row.claimed_until = None


def _may_live(name: str, own: str) -> bool:
    """Whether the process of a name may still be there, as far as the process of `own` can tell."""
    (host, number, _), (own_host, own_number, _) = name.rsplit("-", 2), own.rsplit("-", 2)
    if host != own_host or name == own:
        return True
    if number == own_number:  # a number has one process at a time
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's, and so alive
        return True
    return True


def claim(service: Service, tried: set[str]) -> str | None:
    """Take a round that waits, that nobody holds and that was not tried; None if there is none."""
    now = service.clock()
    longest = now + BELIEVED_CLAIMS * timedelta(seconds=service.settings.claim_seconds)
    until = RoundRow.claimed_until
    free = or_(until.is_(None), until <= now, until > longest, _mine(service))
    waiting = (
        select(RoundRow)
        .where(RoundRow.state == RoundState.AGGREGATING, free, RoundRow.id.not_in(tried))
        .order_by(RoundRow.id)
        .limit(1)
    )
    with service.database.read() as session:  # mostly there is nothing, which needs no write
        if session.scalar(waiting) is None:
            return None
    with service.database.write() as session:
        row = session.scalar(waiting.with_for_update(skip_locked=True))
        if row is None:
            return None
        row.claimed_by = service.name
        row.claimed_until = _until(service)
        service.metrics.claims.inc()
        return row.id


@contextmanager
def held(service: Service, round_id: str) -> Iterator[None]:
    """Renew a claim for as long as the block runs, and then give it up."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(service.settings.claim_seconds / 3):
            try:
                _claim_until(service, round_id, _until(service))
            except Exception as error:  # at worst another worker does the same work
                log_fault(log, error, "round=%s claim=not_renewed", round_id)

    renewing = threading.Thread(target=renew, name="claim", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join()
        _claim_until(service, round_id, None)


def _until(service: Service) -> datetime:
    return service.clock() + timedelta(seconds=service.settings.claim_seconds)


def _claim_until(service: Service, round_id: str, until: datetime | None) -> None:
    with service.database.write() as session:
        session.execute(
            update(RoundRow).where(RoundRow.id == round_id, _mine(service)).values(claimed_until=until)
        )


def _mine(service: Service) -> ColumnElement[bool]:
    return RoundRow.claimed_by == service.name
