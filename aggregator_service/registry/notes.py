"""Notes on adapter versions: short texts that stay as they were written."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.operators.idempotency import IdempotencyKey, begin
from aggregator_service.operators.operators import Operator
from aggregator_service.registry.versions import get_version
from aggregator_service.service import Service
from aggregator_service.storage.registry_tables import VersionNoteRow
from hetlora.messages.registry import NoteCreate, VersionNote


def add_note(
    service: Service,
    version: str,
    message: NoteCreate,
    operator: Operator,
    asked: IdempotencyKey | None = None,
) -> VersionNote:
    """Write a note on a version.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        NotFound: no such version.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now, about=version)
        if attempt.made is not None:
            return version_note(session, session.get_one(VersionNoteRow, int(attempt.made)))
        row = VersionNoteRow(
            version=get_version(session, version).id,
            text=message.text,
            key_id=operator.key_id,
            key_name=operator.name,
            at=now,
        )
        session.add(row)
        session.flush()
        attempt.note(str(row.id))
        return version_note(session, row)


def count_notes(session: Session, version: str) -> int:
    """How many notes a version has."""
    return session.scalar(select(func.count()).where(VersionNoteRow.version == version)) or 0


def version_note(session: Session, row: VersionNoteRow) -> VersionNote:
    return VersionNote(
        note_id=row.id,
        version=row.version,
        text=row.text,
        key_id=row.key_id,
        key_name=row.key_name,
        at=row.at,
    )
