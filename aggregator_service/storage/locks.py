"""Locks that make a transaction the only one at work on a run, or on a device (ADR 0012).

Taken before anything is read that the transaction goes by, a device's before a run's or a rollout's, and that
of an upload (`uploads.py`) last. SQLite, whose write transactions follow one another anyway, has no row locks
and leaves them out.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from aggregator_service.observability.log_context import note
from aggregator_service.storage.rollout_tables import RolloutRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RoundRow, RunRow
from hetlora.errors import NotFound

# Made once, as every request of a device about its work asks it.
_RUN_OF_ASSIGNMENT: Final = (
    select(RunRow)
    .join(AssignmentRow, AssignmentRow.run_id == RunRow.id)
    .where(AssignmentRow.id == bindparam("assignment"), AssignmentRow.device_id == bindparam("device"))
    .with_for_update(of=RunRow)
)


def lock_run(session: Session, run_id: str) -> RunRow:
    """A run whose row, rounds and assignments only this transaction changes.

    Raises:
        NotFound: no such run.
    """
    run = session.get(RunRow, run_id, with_for_update=True)
    if run is None:
        raise NotFound("no such run", got=run_id)
    note(run=run_id)
    return run


def lock_run_if_free(session: Session, run_id: str) -> RunRow | None:
    """A run as `lock_run` has it, or None where another transaction is at work on it."""
    run = session.get(RunRow, run_id, with_for_update={"skip_locked": True})
    note(run=run_id)
    return run


def lock_run_of_round(session: Session, round_id: str) -> RunRow:
    """The run that a round belongs to, as `lock_run`."""
    note(round=round_id)
    return lock_run(session, session.scalars(select(RoundRow.run_id).where(RoundRow.id == round_id)).one())


def lock_run_of_assignment(session: Session, device_id: str, assignment_id: str) -> RunRow:
    """The run that an assignment of this device belongs to, as `lock_run`.

    Raises:
        NotFound: no such assignment, or another device's.
    """
    run = session.scalar(_RUN_OF_ASSIGNMENT, {"assignment": assignment_id, "device": device_id})
    if run is None:
        raise NotFound("this device has no such assignment", got=assignment_id)
    note(run=run.id)
    return run


def lock_rollout(session: Session, rollout_id: str) -> RolloutRow:
    """A rollout that only this transaction moves.

    Raises:
        NotFound: no such rollout.
    """
    row = session.get(RolloutRow, rollout_id, with_for_update={"key_share": True})
    if row is None:
        raise NotFound("no such rollout", got=rollout_id)
    return row


def lock_rollout_if_free(session: Session, rollout_id: str) -> RolloutRow | None:
    """A rollout as `lock_rollout` has it, or None where another transaction is at work on it."""
    return session.get(RolloutRow, rollout_id, with_for_update={"key_share": True, "skip_locked": True})


def lock_device(session: Session, device_id: str) -> DeviceRow:
    """A device that only this transaction changes, and gives work to.

    Raises:
        NotFound: no such device.
    """
    # Whoever only names the device in a row of its own, as a commit does under the run's lock, does not wait.
    device = session.get(DeviceRow, device_id, with_for_update={"key_share": True})
    if device is None:
        raise NotFound("no such device", got=device_id)
    return device
