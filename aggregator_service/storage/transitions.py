"""The one way a state changes: checked against `hetlora.states`, stored with time and reason."""

from __future__ import annotations

import logging
from datetime import datetime
from enum import StrEnum

from sqlalchemy.orm import Session

from aggregator_service.storage.tables import StatefulRow, TransitionRow
from hetlora.errors import StateConflict
from hetlora.states import is_legal

log = logging.getLogger(__name__)


def create(session: Session, row: StatefulRow, reason: str, now: datetime) -> None:
    """Add a row in its first state; rows added later may refer to it."""
    row.reason = reason
    session.add(row)
    session.flush()
    _record(session, row, None, reason, now)


def move(session: Session, row: StatefulRow, new: StrEnum, reason: str, now: datetime) -> None:
    """Bring a row to another state, within the caller's transaction.

    Raises:
        StateConflict: the state machine has no such move.
    """
    old = row.state
    if not is_legal(old, new):
        raise StateConflict(f"{row.subject} {row.id} cannot become {new}", got=f"state {old}: {row.reason}")
    row.state, row.reason = new, reason
    _record(session, row, old, reason, now)


def tell(session: Session, row: StatefulRow, reason: str, now: datetime) -> None:
    """Record that a row stays in its state, for a new reason: a rollout went on to its next stage."""
    row.reason = reason
    _record(session, row, row.state, reason, now)


def _record(session: Session, row: StatefulRow, old: StrEnum | None, reason: str, now: datetime) -> None:
    session.add(
        TransitionRow(
            subject=row.subject, subject_id=row.id, old=old, new=row.state.value, reason=reason, at=now
        )
    )
    # Without the reason, which may be a device's own words.
    log.info("%s=%s old=%s new=%s", row.subject, row.id, old, row.state)
