"""The record of what operators asked for: written before it is done, and again with what came of it.

So there is no write without its entry, whenever the process dies; an entry without a status was cut off.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from aggregator_service.operators import Operator
from aggregator_service.service import Service
from aggregator_service.storage.tables import AuditRow
from hetlora.messages.operators import AuditEntry

log = logging.getLogger(__name__)

MAX_CHARACTERS: Final = 256  # of what a path names: paths come from outside


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


def _bounded(subject: str) -> str:
    return "".join(character if character.isprintable() else " " for character in subject[:MAX_CHARACTERS])


def audit_entry(session: Session, row: AuditRow) -> AuditEntry:
    return AuditEntry(
        entry_id=row.id,
        at=row.at,
        key_id=row.key_id,
        key_name=row.key_name,
        action=row.action,
        subject=row.subject,
        status=row.status,
        request_id=row.request_id,
        source=row.source,
    )
