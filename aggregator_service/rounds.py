"""Rounds, the places in them and the updates that count in them; `closing.py` brings them to their end.

selecting   places of the cohort are free (the report window starts with the first offer)
collecting  the cohort is complete, reports come in; a place that fails or expires is given again
aggregating the goal count is reached, or the window closed over the minimum share; collecting again if stored
            updates turn out to be unreadable and too few are left
committed | abandoned   ended; an abandoned round is tried again under the same round_index

A buffered run has no selection: its rounds collect from the first moment, and while one is aggregated the
next one collects, and has those who are at work (ADR 0014).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from aggregator_service.identifiers import new_id, round_id_of
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from aggregator_service.transitions import create, move
from hetlora.errors import StateConflict
from hetlora.messages.management import RunSettings
from hetlora.states import AssignmentState, RoundState, RunState

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


def cohort_size(settings: RunSettings) -> int:
    """How many assignments may be live at once; in a synchronous round, live or accepted."""
    return _ceil(settings.goal_count * settings.over_selection)


def most_updates(settings: RunSettings) -> int:
    """How many updates a round may have when it is aggregated.

    A buffered one may have to wait for the round before it: then those who are at work come on top, and what
    is left of that round if the store lost updates of it.
    """
    if settings.mode == "buffered":
        return settings.goal_count + cohort_size(settings) + minimum_reports(settings)
    return settings.goal_count


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
    if run.settings.mode == "buffered":
        move(session, row, RoundState.COLLECTING, "a buffered round gives its places as they come free", now)
    return row


def open_round_of(session: Session, run_id: str) -> RoundRow | None:
    """The one round of a run that is neither aggregated nor ended, if there is one."""
    return session.scalar(select(RoundRow).where(RoundRow.run_id == run_id, RoundRow.state.in_(OPEN)))


def is_aggregating(session: Session, run_id: str) -> bool:
    """Whether a round of the run is being aggregated, or waits for it."""
    aggregating = RoundRow.state == RoundState.AGGREGATING
    return session.scalar(select(RoundRow.id).where(RoundRow.run_id == run_id, aggregating)) is not None


def count_assignments(session: Session, round_id: str, states: Collection[AssignmentState]) -> int:
    """How many assignments of a round are in one of these states."""
    return session.scalar(select(func.count()).where(*in_round(round_id, states))) or 0


def in_round(round_id: str, states: Collection[AssignmentState]) -> tuple[ColumnElement[bool], ...]:
    """The condition of `count_assignments`, for other queries."""
    return AssignmentRow.round_id == round_id, AssignmentRow.state.in_(states)


def count_places_taken(session: Session, run: RunRow, row: RoundRow) -> int:
    """How many places are not free; the live assignments of a buffered run are all in its open round."""
    return count_assignments(session, row.id, LIVE if run.settings.mode == "buffered" else TAKEN)


def take_place(
    session: Session, run: RunRow, row: RoundRow, device_id: str, max_rank: int, now: datetime
) -> AssignmentRow:
    """Offer a free place to a device.

    In a synchronous round the first opens the report window, and the last completes the cohort.
    """
    buffered = run.settings.mode == "buffered"
    lease_ends = now + timedelta(seconds=run.settings.lease_seconds)
    if not buffered:
        # A report after the window is of no use, so no lease reaches beyond it.
        lease_ends = min(lease_ends, window_of(run, row, now))
    assignment = AssignmentRow(
        id=new_id(now),
        state=AssignmentState.OFFERED,
        run_id=run.id,
        round_id=row.id,
        offered_in=row.id,
        base_version=row.base_version,
        base_step=run.rounds_committed,
        device_id=device_id,
        max_rank=max_rank,
        lease_expires_at=lease_ends,
    )
    create(session, assignment, "check-in", now)
    taken = count_places_taken(session, run, row)
    if row.state is RoundState.SELECTING and taken >= cohort_size(run.settings):
        move(session, row, RoundState.COLLECTING, f"cohort of {taken} is complete", now)
    return assignment


def window_of(run: RunRow, row: RoundRow, now: datetime) -> datetime:
    """The end of a round's report window, which opens now if it has not yet."""
    if row.window_closes_at is None:
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)
    return row.window_closes_at


def accept(session: Session, run: RunRow, row: RoundRow, assignment: AssignmentRow, now: datetime) -> None:
    """Count a submitted update in its open round; the first of a buffered round opens the report window."""
    assignment.staleness = steps_before(session, run) - assignment.base_step
    move(session, assignment, AssignmentState.ACCEPTED, "the update is in the round", now)
    if run.settings.mode == "buffered":
        window_of(run, row, now)


def steps_before(session: Session, run: RunRow) -> int:
    """How many rounds will have committed when the open one is aggregated."""
    return run.rounds_committed + is_aggregating(session, run.id)


def carry_over(
    session: Session,
    run: RunRow,
    row: RoundRow,
    into: RoundRow,
    states: Collection[AssignmentState],
    now: datetime,
) -> None:
    """Let assignments count in the open round from now on; those at work that are too stale for it end."""
    most = run.settings.max_staleness
    oldest = steps_before(session, run) - most
    too_stale = select(AssignmentRow).where(*in_round(row.id, LIVE), AssignmentRow.base_step < oldest)
    for assignment in session.scalars(too_stale).all():
        move(session, assignment, AssignmentState.ABORTED, f"its adapter is more than {most} rounds old", now)
    session.execute(update(AssignmentRow).where(*in_round(row.id, states)).values(round_id=into.id))


def is_full(session: Session, row: RoundRow, settings: RunSettings) -> bool:
    """Whether the goal count is accepted."""
    return count_assignments(session, row.id, ACCEPTED) >= settings.goal_count


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


def end(session: Session, row: RoundRow, state: RoundState, reason: str, now: datetime) -> None:
    """Bring a round to its last state."""
    move(session, row, state, reason, now)
    row.ended_at = now


def abort_live(session: Session, row: RoundRow, reason: str, now: datetime) -> None:
    """Tell the devices that still work on a round that it is over."""
    for assignment in session.scalars(select(AssignmentRow).where(*in_round(row.id, LIVE))):
        move(session, assignment, AssignmentState.ABORTED, reason, now)


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
    """End a run and the rounds that it is in."""
    move(session, run, RunState.STOPPED, "operator", now)
    going_on = RoundRow.state.in_({*OPEN, RoundState.AGGREGATING})
    for row in session.scalars(select(RoundRow).where(RoundRow.run_id == run.id, going_on)).all():
        end(session, row, RoundState.ABANDONED, RUN_STOPPED, now)
        abort_live(session, row, RUN_STOPPED, now)
