"""What a device's assignments came to: counts of ends, and how its newest updates did."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow
from hetlora.errors import NotFound
from hetlora.messages.quarantine import RECENT_UPDATES, Reputation
from hetlora.states import AssignmentState, QuarantineState

# Those that an update came of, whatever became of it then.
_WITH_UPDATE = (AssignmentState.ACCEPTED, AssignmentState.DISCARDED)


def reputation_of(session: Session, device_id: str) -> Reputation:
    """The reputation of a device.

    Raises:
        NotFound: no such device.
    """
    device = session.get(DeviceRow, device_id)
    if device is None:
        raise NotFound("no such device", got=device_id)
    count = func.count()
    of_device = select(AssignmentRow.state, count).where(AssignmentRow.device_id == device_id)
    ends = Counter({state: own for state, own in session.execute(of_device.group_by(AssignmentRow.state))})
    marks = select(QuarantineRow.state, count).where(QuarantineRow.device_id == device_id)
    taken_out = Counter({state: own for state, own in session.execute(marks.group_by(QuarantineRow.state))})
    updates, quarantined = recent(session, device_id, RECENT_UPDATES)
    return Reputation(
        device_id=device_id,
        state=device.state,
        reason=device.reason,
        accepted=ends[AssignmentState.ACCEPTED],
        quarantined=taken_out[QuarantineState.HELD] + taken_out[QuarantineState.CONFIRMED],
        released=taken_out[QuarantineState.RELEASED],
        discarded=ends[AssignmentState.DISCARDED] - taken_out.total(),
        failed=ends[AssignmentState.FAILED],
        expired=ends[AssignmentState.EXPIRED],
        aborted=ends[AssignmentState.ABORTED],
        recent_updates=updates,
        recent_quarantined=quarantined,
        standing=1 - quarantined / updates if updates else None,
    )


def recent(session: Session, device_id: str, most: int, since: datetime | None = None) -> tuple[int, int]:
    """How many newest updates a device has, up to so many, and how many of them are quarantined unreleased.

    Args:
        since: of those in quarantine, only what came into it after this moment counts.
    """
    newest = (
        select(AssignmentRow.id)
        .where(
            AssignmentRow.device_id == device_id,
            AssignmentRow.state.in_(_WITH_UPDATE),
            AssignmentRow.update_sha256.is_not(None),
        )
        .order_by(AssignmentRow.id.desc())
        .limit(most)
    ).subquery()
    counting = select(func.count()).where(
        QuarantineRow.id.in_(select(newest.c.id)), QuarantineRow.state != QuarantineState.RELEASED
    )
    if since is not None:
        counting = counting.where(QuarantineRow.quarantined_at > since)
    updates = session.scalar(select(func.count()).select_from(newest)) or 0
    return updates, session.scalar(counting) or 0
