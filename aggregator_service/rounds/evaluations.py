"""Evaluations on devices (ADR 0015): how they open and end, and what their reports come to.

Whoever changes one holds the lock of its run, as for rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, bindparam, exists, func, select, union, update
from sqlalchemy.orm import Session

from aggregator_service.rounds.rounds import RUN_STOPPED, WINDOW_CLOSED, stop_rounds
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow, EvaluationRow
from aggregator_service.storage.locks import lock_run
from aggregator_service.storage.tables import RunRow
from aggregator_service.storage.transitions import create, move
from hetlora.messages.evaluation import EvaluationFigures, EvaluationReport, EvaluationSettings
from hetlora.states import LIVE_EVALUATION, EvaluationAssignmentState, EvaluationState, RunState

ACCEPTED: Final = frozenset({EvaluationAssignmentState.ACCEPTED})
TAKEN: Final = LIVE_EVALUATION | ACCEPTED
# Made once, as every offer of training asks it.
_IS_EVALUATING: Final = select(
    exists().where(
        EvaluationAssignmentRow.device_id == bindparam("device"),
        EvaluationAssignmentRow.state.in_(LIVE_EVALUATION),
    )
)


def open_if_due(session: Session, run: RunRow, now: datetime) -> None:
    """Evaluate the version that a round of a locked run has just committed, if it is the turn of one."""
    wanted = run.settings.evaluation
    if wanted is None or run.adapter_version is None:
        return
    last = run.rounds_committed == run.settings.rounds
    if run.rounds_committed % wanted.every_rounds != 0 and not last:
        return
    row = EvaluationRow(
        id=run.adapter_version,
        state=EvaluationState.OPEN,
        run_id=run.id,
        devices=wanted.devices,
        window_closes_at=now + timedelta(seconds=wanted.window_seconds),
    )
    create(session, row, f"{run.rounds_committed} rounds committed", now)


def settings_of(run: RunRow) -> EvaluationSettings:
    """What a run that has evaluations asks of them."""
    assert run.settings.evaluation is not None, "or it had none"
    return run.settings.evaluation


def live_of(device_id: str) -> tuple[ColumnElement[bool], ...]:
    """The condition of a device's own live assignment, of which it has one at most."""
    mine = EvaluationAssignmentRow.device_id == device_id
    return mine, EvaluationAssignmentRow.state.in_(LIVE_EVALUATION)


def is_evaluating(session: Session, device_id: str) -> bool:
    """Whether a device, which is locked, has an evaluation to finish before it is given other work."""
    return bool(session.scalar(_IS_EVALUATING, {"device": device_id}))


def count(session: Session, evaluation_id: str, states: frozenset[EvaluationAssignmentState]) -> int:
    """How many assignments of an evaluation are in one of these states."""
    in_it = select(func.count()).where(*_in(evaluation_id, states))
    return session.scalar(in_it) or 0


def _in(evaluation_id: str, states: frozenset[EvaluationAssignmentState]) -> tuple[ColumnElement[bool], ...]:
    return EvaluationAssignmentRow.evaluation_id == evaluation_id, EvaluationAssignmentRow.state.in_(states)


def accept(session: Session, row: EvaluationRow, assignment: EvaluationAssignmentRow, now: datetime) -> None:
    """Count a report; the last one wanted ends the evaluation."""
    move(session, assignment, EvaluationAssignmentState.ACCEPTED, "the report is in the evaluation", now)
    if count(session, row.id, ACCEPTED) >= row.devices:
        _close(session, row, f"{row.devices} reports are in", now)


def settle(session: Session, run: RunRow, now: datetime) -> None:
    """Bring leases and windows of a locked run's evaluations up to the present."""
    lapsed = select(EvaluationAssignmentRow).where(*_lapsed(now), EvaluationAssignmentRow.run_id == run.id)
    for assignment in session.scalars(lapsed):
        move(session, assignment, EvaluationAssignmentState.EXPIRED, "the lease ran out", now)
    over = select(EvaluationRow).where(*_over(now), EvaluationRow.run_id == run.id)
    for row in session.scalars(over.order_by(EvaluationRow.id)).all():
        if row.state is not EvaluationState.OPEN:  # closed with the run, by a stop rule that the last one met
            continue
        reports = count(session, row.id, ACCEPTED)
        _close(session, row, f"{WINDOW_CLOSED} with {reports} of {row.devices} reports", now)


def all_due(session: Session, now: datetime) -> set[str]:
    """The runs that `settle` would change."""
    of_assignments = select(EvaluationAssignmentRow.run_id).where(*_lapsed(now))
    of_evaluations = select(EvaluationRow.run_id).where(*_over(now))
    return set(session.scalars(union(of_assignments, of_evaluations)))


def _lapsed(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return EvaluationAssignmentRow.state.in_(LIVE_EVALUATION), EvaluationAssignmentRow.lease_expires_at <= now


def _over(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return EvaluationRow.state == EvaluationState.OPEN, EvaluationRow.window_closes_at <= now


def stop_evaluations(session: Session, run: RunRow, now: datetime) -> None:
    """End the evaluations of a run that was stopped."""
    still = select(EvaluationRow).where(
        EvaluationRow.run_id == run.id, EvaluationRow.state == EvaluationState.OPEN
    )
    for row in session.scalars(still).all():
        _close(session, row, RUN_STOPPED, now)


def end_work(session: Session, device_id: str, reason: str, now: datetime) -> None:
    """Free the place of a locked device that lost its standing; a report that was accepted stays."""
    run_id = session.scalar(select(EvaluationAssignmentRow.run_id).where(*live_of(device_id)))
    if run_id is None:
        return
    settle(session, lock_run(session, run_id), now)
    for assignment in session.scalars(select(EvaluationAssignmentRow).where(*live_of(device_id))):
        move(session, assignment, EvaluationAssignmentState.ABORTED, reason, now)


def _close(session: Session, row: EvaluationRow, reason: str, now: datetime) -> None:
    """Make figures of the reports, and forget them: no device's own are kept."""
    for assignment in session.scalars(select(EvaluationAssignmentRow).where(*_in(row.id, LIVE_EVALUATION))):
        move(session, assignment, EvaluationAssignmentState.ABORTED, f"evaluation closed: {reason}", now)
    reports = session.scalars(select(EvaluationAssignmentRow.report).where(*_in(row.id, ACCEPTED))).all()
    least = settings_of(session.get_one(RunRow, row.run_id)).minimum_reports
    if len(reports) >= least:
        row.figures = figures_of([report for report in reports if report is not None])
    else:
        reason = f"{reason}; {least} needed for figures"
    move(session, row, EvaluationState.CLOSED, reason, now)
    row.ended_at = now
    session.execute(
        update(EvaluationAssignmentRow)
        .where(EvaluationAssignmentRow.evaluation_id == row.id)
        .values(report=None)
    )
    _end_if_reached(session, session.get_one(RunRow, row.run_id), now)


def _end_if_reached(session: Session, run: RunRow, now: datetime) -> None:
    """Complete a locked run whose scores a stop rule asks for no better of."""
    if run.state not in (RunState.RUNNING, RunState.PAUSED):
        return
    reached = _reached(session, run)
    if reached is not None:
        move(session, run, RunState.COMPLETED, f"stop rule: {reached}", now)
        stop_rounds(session, run, now)
        stop_evaluations(session, run, now)


def _reached(session: Session, run: RunRow) -> str | None:
    """Which of its rules a run's evaluations have met, with their figures; None: no rule yet."""
    rules = run.settings.stop
    if rules is None:
        return None
    of_run = select(EvaluationRow.figures).where(EvaluationRow.run_id == run.id).order_by(EvaluationRow.id)
    scores = [figures for figures in session.scalars(of_run) if figures is not None]
    if not scores:
        return None
    newest = scores[-1]
    if rules.accuracy is not None and (newest.accuracy or 0.0) >= rules.accuracy:
        return f"accuracy {newest.accuracy:.4g}, {rules.accuracy:g} was asked for"
    if rules.loss is not None and newest.loss <= rules.loss:
        return f"loss {newest.loss:.4g}, {rules.loss:g} was asked for"
    best = min(range(len(scores)), key=lambda number: scores[number].loss)
    since = len(scores) - 1 - best
    if rules.patience is not None and since >= rules.patience:
        return f"{since} evaluations in a row no better than loss {scores[best].loss:.4g}"
    return None


def figures_of(reports: Sequence[EvaluationReport]) -> EvaluationFigures:
    """What reports, at least one, come to, whatever their order: over all examples, and over devices."""
    examples = sum(report.example_count for report in reports)
    losses = [report.loss for report in reports]
    device_loss, loss_deviation = _spread(losses)
    figures = EvaluationFigures(
        example_count=examples,
        loss=math.fsum(report.example_count * report.loss for report in reports) / examples,
        device_loss=device_loss,
        device_loss_deviation=loss_deviation,
    )
    right = [report.correct_count for report in reports if report.correct_count is not None]
    if len(right) < len(reports):
        return figures
    shares = [own / report.example_count for own, report in zip(right, reports, strict=True)]
    device_accuracy, accuracy_deviation = _spread(shares)
    return figures.model_copy(
        update={
            "accuracy": sum(right) / examples,
            "device_accuracy": device_accuracy,
            "device_accuracy_deviation": accuracy_deviation,
        }
    )


def _spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, of the values themselves and not of what they are drawn from."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
