"""Updates in quarantine: held with the reason, kept to be looked at, and what an operator makes of them."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from aggregator_service.aggregation.screens import Finding
from aggregator_service.service import Service
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow
from aggregator_service.storage.transitions import create, move
from hetlora.errors import NotFound
from hetlora.messages.quarantine import QuarantineVerb
from hetlora.states import QuarantineState, RoundState

log = logging.getLogger(__name__)

UPDATES_AT_A_TIME: Final = 500  # that one sweep drops
_STATES: Final[dict[QuarantineVerb, QuarantineState]] = {
    "release": QuarantineState.RELEASED,
    "confirm": QuarantineState.CONFIRMED,
}


def keep_apart(service: Service, assignment: AssignmentRow) -> bool:
    """Copy an update to where quarantined ones lie; False where its bytes are lost, or are others by now."""
    sha256 = str(assignment.update_sha256)
    with service.quarantined(assignment.id).receive() as blob:
        try:
            for chunk in service.updates(assignment.offered_in).chunks(sha256):
                blob.write(chunk)
        except NotFound:
            return False
        if blob.sha256 != sha256:
            return False
        service.quarantined(assignment.id).keep(blob)
    return True


def hold(session: Session, assignment: AssignmentRow, finding: Finding, now: datetime) -> None:
    """Note that an update is in quarantine, with what a screen found."""
    row = QuarantineRow(
        id=assignment.id,
        state=QuarantineState.HELD,
        run_id=assignment.run_id,
        device_id=assignment.device_id,
        quarantined_at=now,
        screen=finding.screen,
        finding=finding.in_words(),
        figures=finding.figures,
        sha256=assignment.update_sha256,
        size_bytes=assignment.update_bytes,
    )
    create(session, row, f"screen {finding.screen}", now)


def get_quarantined(session: Session, assignment_id: str, lock: bool = False) -> QuarantineRow:
    """A quarantined update by its assignment.

    Raises:
        NotFound: no update of this assignment is in quarantine.
    """
    row = session.get(QuarantineRow, assignment_id, with_for_update=lock)
    if row is None:
        raise NotFound("no update of this assignment is in quarantine", got=assignment_id)
    return row


def decide(service: Service, assignment_id: str, verb: QuarantineVerb, reason: str) -> None:
    """Release an update, which then no more counts against its device, or confirm that it stays out.

    Either way it comes into no round: its own is over, or goes on without it.

    Raises:
        NotFound: no update of this assignment is in quarantine.
        StateConflict: that was decided before.
    """
    now = service.clock()
    with service.database.write() as session:
        row = get_quarantined(session, assignment_id, lock=True)
        move(session, row, _STATES[verb], reason or "operator", now)


def sweep_quarantine(service: Service, now: datetime) -> None:
    """Drop quarantined updates that are old enough; and copies of updates that came into no quarantine."""
    oldest = now - timedelta(seconds=service.settings.keep_quarantined_seconds)
    folders = service.store.folders("quarantine")
    over = select(QuarantineRow.id).where(
        QuarantineRow.dropped.is_(False), QuarantineRow.quarantined_at <= oldest
    )
    with service.database.read() as session:
        known = set(session.scalars(select(QuarantineRow.id).where(QuarantineRow.dropped.is_(False))))
        old = session.scalars(over.order_by(QuarantineRow.quarantined_at).limit(UPDATES_AT_A_TIME)).all()
        left = session.scalars(_left_behind(sorted(folders - known)[:UPDATES_AT_A_TIME])).all()
    for assignment_id in (*old, *left):
        service.quarantined(assignment_id).drop()
        log.info("assignment=%s quarantined_update=removed", assignment_id)
    if old:
        # Noted last: a crash between has the next sweep do it again.
        with service.database.write() as session:
            for assignment_id in old:
                get_quarantined(session, assignment_id, lock=True).dropped = True


def _left_behind(assignment_ids: list[str]) -> Select[str]:
    """Of copies without a row, those that nobody is about to make one for: their round is not at it."""
    kept = exists().where(QuarantineRow.id == AssignmentRow.id, QuarantineRow.dropped.is_(False))
    return (
        select(AssignmentRow.id)
        .join(RoundRow, AssignmentRow.round_id == RoundRow.id)
        .where(AssignmentRow.id.in_(assignment_ids), RoundRow.state != RoundState.AGGREGATING, ~kept)
    )
