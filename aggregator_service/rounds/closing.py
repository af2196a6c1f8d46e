"""How rounds close and end, and what comes after: the next round, another attempt, the end of the run."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, exists, func, select, union, update
from sqlalchemy.orm import Session

from aggregator_service.observability.tracing import current_traceparent
from aggregator_service.rounds.masking import advance
from aggregator_service.rounds.opening import open_if_affordable
from aggregator_service.rounds.rounds import (
    ACCEPTED,
    QUARANTINED,
    TAKEN,
    WINDOW_CLOSED,
    Cause,
    abandon,
    abort_live,
    carry_over,
    count_assignments,
    in_round,
    is_aggregating,
    is_full,
    lacks_trusted,
    minimum_reports,
    open_round,
    open_round_of,
    window_of,
)
from aggregator_service.storage.columns import AbandonedFor
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow
from aggregator_service.storage.transitions import move
from hetlora.errors import HetloraError
from hetlora.messages.management import RunSettings
from hetlora.states import LIVE_ASSIGNMENT, OPEN_ROUND, AssignmentState, RoundState, RunState

MOST_FAILURES: Final = 3  # of rounds in a row by one kind of fault, before the run is paused

# Made once: nearly every request of a device asks these.
_LAPSED: Final = AssignmentRow.state.in_(LIVE_ASSIGNMENT), AssignmentRow.lease_expires_at <= bindparam("now")
_CLOSED: Final = RoundRow.state.in_(OPEN_ROUND), RoundRow.window_closes_at <= bindparam("now")
_LAPSED_OF: Final = select(AssignmentRow).where(*_LAPSED, AssignmentRow.run_id == bindparam("run"))
_CLOSED_OF: Final = select(RoundRow).where(*_CLOSED, RoundRow.run_id == bindparam("run"))
_DUE: Final = union(select(AssignmentRow.run_id).where(*_LAPSED), select(RoundRow.run_id).where(*_CLOSED))
_IS_DUE: Final = select(
    exists().where(*_LAPSED, AssignmentRow.run_id == bindparam("run"))
    | exists().where(*_CLOSED, RoundRow.run_id == bindparam("run"))
)


def close_if_goal_met(session: Session, run: RunRow, row: RoundRow, now: datetime) -> None:
    """Stop collecting once the goal count is accepted, and the trusted device's update among them.

    A buffered round waits for the one before it, and may come to have more than the goal. One with masks is
    ready when they can be taken off (`advance_masks`).
    """
    if run.settings.secure_aggregation is not None:
        return
    if not is_full(session, row, run.settings) or lacks_trusted(session, row, run.settings):
        return
    if not is_aggregating(session, run.id):
        _close(session, run, row, f"goal of {run.settings.goal_count} met", now)
        row.traceparent = current_traceparent()


def advance_masks(
    session: Session, run: RunRow, row: RoundRow, now: datetime, *, window_is_over: bool = False
) -> None:
    """Bring a round with masks to its next stage, or have it aggregated, or try it again."""
    found = advance(session, run, row, now, window_is_over=window_is_over)
    if found.shortfall is not None:
        retry(session, run, row, Cause(AbandonedFor.WINDOW, found.shortfall), now)
    elif found.ready:
        _close(session, run, row, "masks can be taken off", now)
        row.traceparent = current_traceparent()


def _close(session: Session, run: RunRow, row: RoundRow, reason: str, now: datetime) -> None:
    """Have a round aggregated; a buffered run goes on in the next one, if it is to have another."""
    move(session, row, RoundState.AGGREGATING, reason, now)
    if run.settings.mode == "buffered" and run.rounds_committed + 1 < run.settings.rounds:
        into = open_round(session, run, row.round_index + 1, 0, now)
        carry_over(session, run, row, into, LIVE_ASSIGNMENT, now)


def settle(session: Session, run: RunRow, now: datetime) -> None:
    """Bring leases and the report window of a locked run up to the present."""
    if not is_due(session, run.id, now):
        return
    asked = {"run": run.id, "now": now}
    for assignment in session.scalars(_LAPSED_OF, asked).all():
        move(session, assignment, AssignmentState.EXPIRED, "the lease ran out", now)
    for row in session.scalars(_CLOSED_OF, asked).all():
        _end_window(session, run, row, now)


def is_due(session: Session, run_id: str, now: datetime) -> bool:
    """Whether `settle` would change a run."""
    return bool(session.scalar(_IS_DUE, {"run": run_id, "now": now}))


def all_due(session: Session, now: datetime) -> set[str]:
    """The runs that `settle` would change."""
    return set(session.scalars(_DUE, {"now": now}))


def _end_window(session: Session, run: RunRow, row: RoundRow, now: datetime) -> None:
    if run.settings.secure_aggregation is not None:
        advance_masks(session, run, row, now, window_is_over=True)
        return
    accepted = count_assignments(session, row.id, ACCEPTED)
    told = f"{WINDOW_CLOSED} with {accepted} of {run.settings.goal_count} updates"
    missing = _shortfall(session, row, run.settings)
    if missing is None and not is_aggregating(session, run.id):
        _close(session, run, row, told, now)
    elif run.settings.mode == "buffered":
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)
    else:
        retry(session, run, row, Cause(AbandonedFor.WINDOW, f"{told}, {missing}"), now)


def _shortfall(session: Session, row: RoundRow, settings: RunSettings) -> str | None:
    """What the accepted updates lack to be aggregated, if anything."""
    needed = minimum_reports(settings)
    if count_assignments(session, row.id, ACCEPTED) < needed:
        return f"{needed} needed"
    return "none of the trusted device" if lacks_trusted(session, row, settings) else None


def leave_out(
    session: Session, run: RunRow, row: RoundRow, unreadable: Collection[AssignmentRow], now: datetime
) -> None:
    """Take accepted updates that cannot be read back out of a round that is being aggregated.

    What is left is aggregated if it would do at the end of the report window. If not, a buffered run goes on
    in its open round, with what is left. A synchronous round collects again, in a new window: the service
    lost the update, and the devices need not make up for its time.
    """
    for assignment in unreadable:
        move(session, assignment, AssignmentState.DISCARDED, "the stored update cannot be read", now)
    if run.settings.secure_aggregation is not None:  # nobody can take its mask off the others' any more
        retry(session, run, row, Cause(AbandonedFor.AGGREGATION, "a masked update cannot be read"), now)
        return
    row.unreadable_since = None  # others of its updates have their time, too
    _go_on_with_the_rest(session, run, row, "unreadable updates are left out", now)


def take_out(
    session: Session, run: RunRow, row: RoundRow, odd: Collection[tuple[AssignmentRow, str]], now: datetime
) -> None:
    """Take accepted updates that do not pass a screen, each with the reason, out of a round likewise."""
    for assignment, finding in odd:
        move(session, assignment, AssignmentState.DISCARDED, f"{QUARANTINED} {finding}", now)
    _go_on_with_the_rest(session, run, row, "screens took updates out", now)


def _go_on_with_the_rest(session: Session, run: RunRow, row: RoundRow, why: str, now: datetime) -> None:
    missing = _shortfall(session, row, run.settings)
    if missing is None:
        return
    told = f"{why}; {missing}"
    if run.settings.mode == "buffered":
        _go_on_without(session, run, row, TAKEN, Cause(AbandonedFor.AGGREGATION, told), now)
    else:
        move(session, row, RoundState.COLLECTING, told, now)
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)


def retry(session: Session, run: RunRow, row: RoundRow, cause: Cause, now: datetime) -> None:
    """Abandon a round and open its next attempt; a buffered run goes on in its open round."""
    if run.settings.mode == "buffered":
        _go_on_without(session, run, row, LIVE_ASSIGNMENT, cause, now)
        return
    abandon(session, row, cause, now)
    abort_live(session, row, f"round abandoned: {cause.reason}", now)
    most = None if run.settings.stop is None else run.settings.stop.abandoned_rounds
    if most is not None and row.attempt + 1 >= most and run.state in (RunState.RUNNING, RunState.PAUSED):
        told = f"stop rule: round {row.round_index} was abandoned {row.attempt + 1} times; {cause.reason}"
        move(session, run, RunState.FAILED, told, now)
        return
    open_if_affordable(session, run, row.round_index, row.attempt + 1, now)


def _go_on_without(
    session: Session,
    run: RunRow,
    row: RoundRow,
    carried: Collection[AssignmentState],
    cause: Cause,
    now: datetime,
) -> None:
    """Abandon a buffered round; what it has in these states counts in the next."""
    abandon(session, row, cause, now)
    into = open_round_of(session, run.id) or open_round(session, run, row.round_index + 1, 0, now)
    # What it has already was taken for one step older, as this round was to be a step.
    session.execute(
        update(AssignmentRow)
        .where(*in_round(into.id, ACCEPTED))
        .values(staleness=AssignmentRow.staleness - 1)
    )
    carry_over(session, run, row, into, carried, now)
    if count_assignments(session, into.id, ACCEPTED):
        window_of(run, into, now)
    close_if_goal_met(session, run, into, now)


def give_up(session: Session, run: RunRow, row: RoundRow, error: HetloraError, now: datetime) -> None:
    """Abandon a round that cannot be aggregated; pause the run where that is so again and again.

    Whatever is wrong then does not go away by itself, and devices would train for nothing.
    """
    newest = session.get_one(AdapterVersionRow, run.adapter_version)
    same = select(func.count()).where(
        RoundRow.run_id == run.id,
        RoundRow.round_index > newest.round_index,
        RoundRow.fault_code == error.code,
    )
    failures = 1 + (session.scalar(same) or 0)
    retry(session, run, row, Cause(AbandonedFor.AGGREGATION, str(error), error.code), now)
    if failures % MOST_FAILURES == 0 and run.state is RunState.RUNNING:
        move(session, run, RunState.PAUSED, f"{failures} attempts at a round failed: {error}", now)


def go_on(session: Session, run: RunRow, row: RoundRow, now: datetime) -> None:
    """After a committed round: the next, or the end of the run."""
    run.rounds_committed += 1
    if run.rounds_committed == run.settings.rounds:
        move(session, run, RunState.COMPLETED, f"{run.rounds_committed} rounds committed", now)
        return
    waiting = open_round_of(session, run.id)
    if waiting is None:
        open_if_affordable(session, run, row.round_index + 1, 0, now)
        return
    assert run.adapter_version is not None
    waiting.base_version = run.adapter_version
    close_if_goal_met(session, run, waiting, now)
