"""The life of a round, and of the run that it is in. The only place that moves rounds and runs on.

selecting   places of the cohort are free (the report window starts with the first offer)
collecting  the cohort is complete, reports come in; a place that fails or expires is given again
aggregating the goal count is reached, or the window closed over the minimum share; collecting again if stored
            updates turn out to be unreadable and too few are left
committed | abandoned   ended; an abandoned round is tried again under the same round_index
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from aggregator_service.identifiers import new_id, round_id_of
from aggregator_service.observability.tracing import current_traceparent
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from aggregator_service.transitions import create, move
from hetlora.errors import HetloraError, StateConflict
from hetlora.messages.management import RunSettings
from hetlora.states import AssignmentState, RoundState, RunState

log = logging.getLogger(__name__)

LIVE: Final = frozenset(
    {
        AssignmentState.OFFERED,
        AssignmentState.DOWNLOADING,
        AssignmentState.TRAINING,
        AssignmentState.UPLOADING,
        AssignmentState.SUBMITTED,
    }
)
ACCEPTED: Final = frozenset({AssignmentState.ACCEPTED})
TAKEN: Final = LIVE | ACCEPTED
OPEN: Final = frozenset({RoundState.SELECTING, RoundState.COLLECTING})
GOAL_MET: Final = "goal already met"
WINDOW_CLOSED: Final = "report window closed"
RUN_STOPPED: Final = "run stopped"
MOST_FAILURES: Final = 3  # of a round for one reason, before the run is paused


def cohort_size(settings: RunSettings) -> int:
    """How many assignments of a round may be live or accepted at once."""
    return _ceil(settings.goal_count * settings.over_selection)


def minimum_reports(settings: RunSettings) -> int:
    """How many accepted updates make a round count when its window closes before the goal; at least one."""
    return max(1, _ceil(settings.minimum_share * settings.goal_count))


def _ceil(value: float) -> int:
    # A hair below the product: 1.1 * 10 is 11.000000000000002 in binary, and the operator means 11.
    return math.ceil(value - 1e-9)


def open_round(session: Session, run: RunRow, round_index: int, attempt: int, now: datetime) -> RoundRow:
    """Start one attempt at a round on the run's newest adapter version."""
    row = RoundRow(
        id=round_id_of(run.id, round_index, attempt),
        state=RoundState.SELECTING,
        run_id=run.id,
        round_index=round_index,
        attempt=attempt,
        base_version=run.adapter_version,
        started_at=now,
    )
    create(session, row, f"attempt {attempt}", now)
    return row


def current_round(session: Session, run_id: str) -> RoundRow | None:
    """The round of a run that has not ended."""
    not_ended = RoundRow.state.in_({*OPEN, RoundState.AGGREGATING})
    return session.scalar(select(RoundRow).where(RoundRow.run_id == run_id, not_ended))


def count_assignments(session: Session, round_id: str, states: Collection[AssignmentState]) -> int:
    """How many assignments of a round are in one of these states."""
    return session.scalar(select(func.count()).where(*in_round(round_id, states))) or 0


def in_round(round_id: str, states: Collection[AssignmentState]) -> tuple[ColumnElement[bool], ...]:
    """The condition of `count_assignments`, for other queries."""
    return AssignmentRow.round_id == round_id, AssignmentRow.state.in_(states)


def count_places_taken(session: Session, round_id: str) -> int:
    """How many places of a round's cohort are not free."""
    return count_assignments(session, round_id, TAKEN)


def take_place(
    session: Session, run: RunRow, row: RoundRow, device_id: str, max_rank: int, now: datetime
) -> AssignmentRow:
    """Offer a free place to a device; the first opens the report window, the last completes the cohort."""
    if row.window_closes_at is None:
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)
    assignment = AssignmentRow(
        id=new_id(now),
        state=AssignmentState.OFFERED,
        run_id=run.id,
        round_id=row.id,
        device_id=device_id,
        max_rank=max_rank,
        # A report after the window is of no use, so no lease reaches beyond it.
        lease_expires_at=min(now + timedelta(seconds=run.settings.lease_seconds), row.window_closes_at),
    )
    create(session, assignment, "check-in", now)
    taken = count_places_taken(session, row.id)
    if row.state is RoundState.SELECTING and taken >= cohort_size(run.settings):
        move(session, row, RoundState.COLLECTING, f"cohort of {taken} is complete", now)
    return assignment


def close_if_goal_met(session: Session, row: RoundRow, settings: RunSettings, now: datetime) -> None:
    """Stop collecting once the goal count is accepted, and the trusted device's update among them."""
    accepted = count_assignments(session, row.id, ACCEPTED)
    if accepted >= settings.goal_count and not lacks_trusted(session, row, settings):
        move(session, row, RoundState.AGGREGATING, f"goal of {settings.goal_count} met", now)
        row.traceparent = current_traceparent()


def lacks_trusted(
    session: Session,
    row: RoundRow,
    settings: RunSettings,
    states: Collection[AssignmentState] = ACCEPTED,
) -> bool:
    """Whether the defence trusts a device of which the round has no assignment in one of these states."""
    trusted = settings.defence.trusted_device
    if trusted is None:
        return False
    its_own = select(AssignmentRow.id).where(*in_round(row.id, states), AssignmentRow.device_id == trusted)
    return session.scalar(its_own) is None


def leave_out(
    session: Session, run: RunRow, row: RoundRow, unreadable: Collection[AssignmentRow], now: datetime
) -> None:
    """Take accepted updates that cannot be read back out of a round that is being aggregated.

    What is left is aggregated if it would do at the end of the report window. If not, the round collects
    again, in a new window: the service lost the update, and the devices need not make up for its time.
    """
    for assignment in unreadable:
        move(session, assignment, AssignmentState.DISCARDED, "the stored update cannot be read", now)
    missing = _shortfall(session, row, run.settings)
    if missing is not None:
        move(session, row, RoundState.COLLECTING, f"unreadable updates are left out; {missing}", now)
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)


def settle(session: Session, run: RunRow, now: datetime) -> None:
    """Bring leases and the report window of a locked run up to the present."""
    for assignment in session.scalars(
        select(AssignmentRow).where(*_lapsed(now), AssignmentRow.run_id == run.id)
    ):
        move(session, assignment, AssignmentState.EXPIRED, "the lease ran out", now)
    for row in session.scalars(select(RoundRow).where(*_closed(now), RoundRow.run_id == run.id)).all():
        _close_window(session, run, row, now)


def due(session: Session, now: datetime, *run_ids: str) -> set[str]:
    """The runs, of all or of these, that `settle` would change."""
    lapsed = select(AssignmentRow.run_id).where(*_lapsed(now)).distinct()
    closed = select(RoundRow.run_id).where(*_closed(now)).distinct()
    if run_ids:
        lapsed = lapsed.where(AssignmentRow.run_id.in_(run_ids))
        closed = closed.where(RoundRow.run_id.in_(run_ids))
    return {*session.scalars(lapsed), *session.scalars(closed)}


def _lapsed(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return AssignmentRow.state.in_(LIVE), AssignmentRow.lease_expires_at <= now


def _closed(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return RoundRow.state.in_(OPEN), RoundRow.window_closes_at <= now


def _close_window(session: Session, run: RunRow, row: RoundRow, now: datetime) -> None:
    accepted = count_assignments(session, row.id, ACCEPTED)
    told = f"{WINDOW_CLOSED} with {accepted} of {run.settings.goal_count} updates"
    missing = _shortfall(session, row, run.settings)
    if missing is None:
        move(session, row, RoundState.AGGREGATING, told, now)
    else:
        retry(session, run, row, f"{told}, {missing}", now)


def _shortfall(session: Session, row: RoundRow, settings: RunSettings) -> str | None:
    """What the accepted updates lack to be aggregated, if anything."""
    needed = minimum_reports(settings)
    if count_assignments(session, row.id, ACCEPTED) < needed:
        return f"{needed} needed"
    return "none of the trusted device" if lacks_trusted(session, row, settings) else None


def retry(session: Session, run: RunRow, row: RoundRow, reason: str, now: datetime) -> None:
    """Abandon a round and open its next attempt."""
    end(session, row, RoundState.ABANDONED, reason, now)
    abort_live(session, row, f"round abandoned: {reason}", now)
    open_round(session, run, row.round_index, row.attempt + 1, now)


def give_up(session: Session, run: RunRow, row: RoundRow, error: HetloraError, now: datetime) -> None:
    """Abandon a round that cannot be aggregated; pause the run where that is so again and again.

    Whatever is wrong then does not go away by itself, and devices would train for nothing.
    """
    same = select(func.count()).where(
        RoundRow.run_id == run.id,
        RoundRow.round_index == row.round_index,
        RoundRow.reason.startswith(error.what, autoescape=True),  # what was got may differ
    )
    failures = 1 + (session.scalar(same) or 0)
    retry(session, run, row, str(error), now)
    if failures % MOST_FAILURES == 0 and run.state is RunState.RUNNING:
        move(session, run, RunState.PAUSED, f"{failures} attempts at a round failed: {error}", now)


def end(session: Session, row: RoundRow, state: RoundState, reason: str, now: datetime) -> None:
    """Bring a round to its last state."""
    move(session, row, state, reason, now)
    row.ended_at = now


def abort_live(session: Session, row: RoundRow, reason: str, now: datetime) -> None:
    """Tell the devices that still work on a round that it is over."""
    for assignment in session.scalars(select(AssignmentRow).where(*in_round(row.id, LIVE))):
        move(session, assignment, AssignmentState.ABORTED, reason, now)


def go_on(session: Session, run: RunRow, row: RoundRow, now: datetime) -> None:
    """After a committed round: open the next, or complete the run."""
    run.rounds_committed += 1
    if run.rounds_committed < run.settings.rounds:
        open_round(session, run, row.round_index + 1, 0, now)
    else:
        move(session, run, RunState.COMPLETED, f"{run.rounds_committed} rounds committed", now)


def start(session: Session, run: RunRow, now: datetime) -> None:
    """Start a run in state draft with its first round."""
    _expect(run, RunState.DRAFT)
    move(session, run, RunState.RUNNING, "operator", now)
    open_round(session, run, 0, 0, now)


def pause(session: Session, run: RunRow, now: datetime) -> None:
    """Make no new offers; work that is out may be handed in, and its round commits."""
    move(session, run, RunState.PAUSED, "operator", now)


def resume(session: Session, run: RunRow, now: datetime) -> None:
    """Go on with a paused run."""
    _expect(run, RunState.PAUSED)
    move(session, run, RunState.RUNNING, "operator", now)


def _expect(run: RunRow, state: RunState) -> None:
    """Start and resume lead to one state, but not from one."""
    if run.state is not state:
        raise StateConflict(
            f"run {run.id} cannot do this now",
            got=f"state {run.state}: {run.reason}",
            expected=f"state {state}",
        )


def stop(session: Session, run: RunRow, now: datetime) -> None:
    """End a run and the round that it is in."""
    move(session, run, RunState.STOPPED, "operator", now)
    row = current_round(session, run.id)
    if row is not None:
        end(session, row, RoundState.ABANDONED, RUN_STOPPED, now)
        abort_live(session, row, RUN_STOPPED, now)
