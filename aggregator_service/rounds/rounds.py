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
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from aggregator_service.storage.columns import AbandonedFor
from aggregator_service.storage.identifiers import new_id, round_id_of
from aggregator_service.storage.masking_tables import MaskingMemberRow, MaskingRoundRow
from aggregator_service.storage.tables import AssignmentRow, CheckpointRow, RoundRow, RunRow
from aggregator_service.storage.transitions import create, move
from hetlora.messages.management import RunSettings
from hetlora.states import GOING_ON_ROUND, LIVE_ASSIGNMENT, OPEN_ROUND, AssignmentState, RoundState

ACCEPTED: Final = frozenset({AssignmentState.ACCEPTED})
TAKEN: Final = LIVE_ASSIGNMENT | ACCEPTED
GOAL_MET: Final = "goal already met"
WINDOW_CLOSED: Final = "report window closed"
RUN_STOPPED: Final = "run stopped"
QUARANTINED: Final = "quarantined:"  # how the reason begins where a screen took an update out

# Made once: to make such a statement takes as long as the database does to answer it.
_OPEN_ROUND: Final = select(RoundRow).where(
    RoundRow.run_id == bindparam("run"), RoundRow.state.in_(OPEN_ROUND)
)
_AGGREGATING: Final = select(RoundRow.id).where(
    RoundRow.run_id == bindparam("run"), RoundRow.state == RoundState.AGGREGATING
)
_COUNT: Final = select(func.count()).where(
    AssignmentRow.round_id == bindparam("round"),
    AssignmentRow.state.in_(bindparam("states", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a round is abandoned: in words for people, and in what rounds are told apart by."""

    kind: AbandonedFor
    reason: str
    fault_code: str | None = None  # the stable code of the error that ended its aggregation


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
    return session.scalar(_OPEN_ROUND, {"run": run_id})


def is_aggregating(session: Session, run_id: str) -> bool:
    """Whether a round of the run is being aggregated, or waits for it."""
    return session.scalar(_AGGREGATING, {"run": run_id}) is not None


def count_assignments(session: Session, round_id: str, states: Collection[AssignmentState]) -> int:
    """How many assignments of a round are in one of these states."""
    return session.scalar(_COUNT, {"round": round_id, "states": sorted(states)}) or 0


def in_round(round_id: str, states: Collection[AssignmentState]) -> tuple[ColumnElement[bool], ...]:
    """The assignments of `count_assignments`, for other queries."""
    return AssignmentRow.round_id == round_id, AssignmentRow.state.in_(states)


def count_places_taken(session: Session, run: RunRow, row: RoundRow) -> int:
    """How many places are not free; the live assignments of a buffered run are all in its open round."""
    return count_assignments(session, row.id, LIVE_ASSIGNMENT if run.settings.mode == "buffered" else TAKEN)


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
    too_stale = select(AssignmentRow).where(
        *in_round(row.id, LIVE_ASSIGNMENT), AssignmentRow.base_step < oldest
    )
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
    """Bring a round to its last state, in which nobody aggregates it any more."""
    move(session, row, state, reason, now)
    row.ended_at = now
    for own in (CheckpointRow, MaskingMemberRow, MaskingRoundRow):  # of no use, and secrets, from now on
        session.execute(delete(own).where(own.round_id == row.id))


def abandon(session: Session, row: RoundRow, cause: Cause, now: datetime) -> None:
    """End a round without a commit."""
    row.abandoned_for, row.fault_code = cause.kind, cause.fault_code
    end(session, row, RoundState.ABANDONED, cause.reason, now)


def abort_live(
    session: Session, row: RoundRow, reason: str, now: datetime, spared: Collection[str] = ()
) -> None:
    """Tell the devices that still work on a round that it is over, but for the assignments `spared`."""
    for assignment in session.scalars(select(AssignmentRow).where(*in_round(row.id, LIVE_ASSIGNMENT))):
        if assignment.id not in spared:
            move(session, assignment, AssignmentState.ABORTED, reason, now)


def stop_rounds(session: Session, run: RunRow, now: datetime) -> None:
    """End the rounds that a stopped run is in."""
    going_on = RoundRow.state.in_(GOING_ON_ROUND)
    for row in session.scalars(select(RoundRow).where(RoundRow.run_id == run.id, going_on)).all():
        abandon(session, row, Cause(AbandonedFor.STOP, RUN_STOPPED), now)
        abort_live(session, row, RUN_STOPPED, now)
