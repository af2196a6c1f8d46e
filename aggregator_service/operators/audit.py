"""The record of what operators asked for: written before it is done, and again with what came of it.

So there is no write without its entry, whenever the process dies; an entry without a status was cut off.
Nothing removes an entry but its age, where the settings say so, and that leaves an entry of its own.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from aggregator_service.operators.operators import Operator
from aggregator_service.service import Service
from aggregator_service.storage.operator_tables import AuditRow

log = logging.getLogger(__name__)

MAX_CHARACTERS: Final = 256  # of what a path names: paths come from outside
SERVICE: Final = "service"  # id and name of the key under which the service's own entries stand


@dataclass(slots=True)
class Entry:
    """A write under way. `subject` may still be named better, such as by what was made."""

    id: int
    subject: str


def open_entry(
    service: Service, operator: Operator, *, action: str, subject: str, request_id: str, source: str | None
) -> Entry:
    """Write down that an operator asks for something, before anything is done about it."""
    row = AuditRow(
        at=service.clock(),
        key_id=operator.key_id,
        key_name=operator.name,
        action=action,
        subject=_bounded(subject),
        request_id=request_id,
        source=source,
    )
    with service.database.write() as session:
        session.add(row)
    return Entry(row.id, row.subject)


def close_entry(service: Service, entry: Entry, status: int) -> None:
    """Write down what came of it. Where the database does not take it the entry keeps no status."""
    changed = update(AuditRow).where(AuditRow.id == entry.id)
    try:
        with service.database.write() as session:
            session.execute(changed.values(status=status, subject=_bounded(entry.subject)))
    except SQLAlchemyError as error:
        # The write itself is done or refused already: its answer must say so.
        log.error("audit=%d status=%d error=%s", entry.id, status, getattr(error, "orig", error))


def note_own(session: Session, action: str, subject: str, now: datetime) -> AuditRow:
    """Write down what the service does by itself, in the transaction that does it."""
    row = AuditRow(
        at=now,
        key_id=SERVICE,
        key_name=SERVICE,
        action=_bounded(action),
        subject=_bounded(subject),
        status=200,
        request_id="",
        source=None,
    )
    session.add(row)
    return row


def drop_old_entries(service: Service, now: datetime) -> None:
    """Remove the entries of days that ended longer ago than the settings keep them, and write down how many.

    Whole days at once: an entry for each sweep could outnumber those that it removes.
    """
    if service.settings.keep_audit_days is None:
        return
    oldest = now - timedelta(days=service.settings.keep_audit_days)
    until = oldest.replace(hour=0, minute=0, second=0, microsecond=0)
    # The first is the oldest, but for clocks that differ, which only has it wait.
    first = select(AuditRow.at).order_by(AuditRow.id).limit(1)
    with service.database.read() as session:
        began = session.scalar(first)
    if began is None or began >= until:
        return
    with service.database.write() as session:
        done = session.execute(delete(AuditRow).where(AuditRow.at < until))
        removed = cast(CursorResult[object], done).rowcount
        if removed == 0:  # another worker was quicker
            return
        row = note_own(session, "remove old entries", f"{removed} from before {until:%Y-%m-%d}", now)
    log.info("audit=%d removed=%d before=%s", row.id, removed, until.date())


def _bounded(subject: str) -> str:
    return "".join(character if character.isprintable() else " " for character in subject[:MAX_CHARACTERS])
