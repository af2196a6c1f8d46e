"""What is needed no more: old nonces, idempotency keys and audit entries, uploads, updates and handouts that
are over, orphans.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import aliased

from aggregator_service.artifacts.objects import drop_orphans
from aggregator_service.artifacts.old_handouts import drop_handouts
from aggregator_service.assignments.uploads import sweep_uploads
from aggregator_service.devices.request_limits import CLOCKS_APART
from aggregator_service.operators.audit import drop_old_entries
from aggregator_service.screens.quarantine import sweep_quarantine
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_run_of_round
from aggregator_service.storage.operator_tables import RepeatRow
from aggregator_service.storage.passing import log_fault
from aggregator_service.storage.tables import AssignmentRow, NonceRow, RoundRow

log = logging.getLogger(__name__)

ROUNDS_AT_A_TIME: Final = 1000  # that one sweep looks at


def sweep(service: Service) -> None:
    """Bring the service's stores to what its rules of retention keep; several workers may do it at once."""
    now = service.clock()
    for step in (
        partial(_drop_requests, service, now),
        partial(drop_old_entries, service, now),
        partial(sweep_uploads, service, now),
        partial(_drop_updates, service, now),
        partial(sweep_quarantine, service, now),
        partial(drop_handouts, service),
        partial(drop_orphans, service),
        partial(service.store.drop_abandoned, service.settings.keep_orphans_seconds),
    ):
        try:
            step()
        except Exception as error:  # such as a store that is away, or a lost manifest: others need it not
            service.metrics.worker_failures.inc()
            log_fault(log, error, "sweep=failed step=%s", step.func.__name__.strip("_"))


def _drop_requests(service: Service, now: datetime) -> None:
    """What is kept of requests, so that none counts twice."""
    with service.database.write() as session:
        # By this clock it is too old for long; by that of another process it may just have become so.
        session.execute(delete(NonceRow).where(NonceRow.expires_at < now - CLOCKS_APART))
        session.execute(delete(RepeatRow).where(RepeatRow.expires_at <= now))


def _drop_updates(service: Service, now: datetime) -> None:
    """The updates that a round asked for, when it and the rounds that they count in ended long ago."""
    oldest = now - timedelta(seconds=service.settings.keep_updates_seconds)
    ended = select(RoundRow.id).where(RoundRow.updates_dropped.is_(False), RoundRow.ended_at <= oldest)
    counts_in = aliased(RoundRow)
    needed = (
        select(AssignmentRow.id)
        .join(counts_in, AssignmentRow.round_id == counts_in.id)
        .where(
            AssignmentRow.offered_in == RoundRow.id,
            or_(counts_in.ended_at.is_(None), counts_in.ended_at > oldest),
        )
    )
    with service.database.read() as session:
        # Mostly there is none. PostgreSQL expects many, and would read all assignments if asked at once.
        candidates = session.scalars(ended.order_by(RoundRow.ended_at).limit(ROUNDS_AT_A_TIME)).all()
        over = select(RoundRow.id).where(RoundRow.id.in_(candidates), ~needed.exists())
        rounds = session.scalars(over).all() if candidates else ()
    for round_id in rounds:
        service.updates(round_id).drop()
        # Noted last: a crash between has the next sweep do it again.
        with service.database.write() as session:
            lock_run_of_round(session, round_id)
            session.get_one(RoundRow, round_id).updates_dropped = True
        log.info("round=%s updates=removed", round_id)
