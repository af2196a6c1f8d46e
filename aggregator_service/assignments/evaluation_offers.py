"""Check-ins that may end in an evaluation (ADR 0015)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.assignments.offered import max_rank_of, offer_of
from aggregator_service.assignments.offers import check_in
from aggregator_service.devices.identity import require_accepted
from aggregator_service.rounds.evaluations import TAKEN, count, live_of, settings_of, settle
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow, EvaluationRow
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_device, lock_run
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RunRow
from aggregator_service.storage.transitions import create
from hetlora.messages.device import CheckIn, CheckInAnswer
from hetlora.states import LIVE_ASSIGNMENT, EvaluationAssignmentState, EvaluationState, RunState

# Runs whose evaluations are given out: that of the last version outlives the rounds.
GOING_ON: Final = frozenset({RunState.RUNNING, RunState.COMPLETED})


def check_in_to_train_or_evaluate(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer:
    """Answer a check-in: training first, then an evaluation, or when to come back.

    Raises:
        MalformedMessage, NotPermitted: see `check_in`.
    """
    answer = check_in(service, device_id, message)
    if answer.offer is not None or message.held_out_count == 0:
        return answer
    return _evaluation_for(service, device_id, message.population) or answer


def _evaluation_for(service: Service, device_id: str, population: str) -> CheckInAnswer | None:
    """The evaluation that a device has to finish, or has a place in, if there is one."""
    now = service.clock()
    with service.database.read() as session:
        candidates = _candidates(session, device_id, population, now)
    for evaluation_id, run_id in candidates:
        with service.database.write() as session:
            device = lock_device(session, device_id)
            require_accepted(device.state, device.reason)
            run = lock_run(session, run_id)
            settle(session, run, now)
            live = session.scalar(select(EvaluationAssignmentRow).where(*live_of(device_id)))
            if live is not None:
                return _answer(session, live, now)
            if not _is_training(session, device_id) and _has_place(session, evaluation_id, device_id, run):
                return _answer(session, _take_place(session, evaluation_id, device_id, run, now), now)
    return None


def _candidates(
    session: Session, device_id: str, population: str, now: datetime
) -> Sequence[tuple[str, str]]:
    """Evaluations and their runs: what the device is at, then what it has not had, by the end."""
    own = select(EvaluationAssignmentRow.evaluation_id, EvaluationAssignmentRow.run_id).where(
        *live_of(device_id)
    )
    had = select(EvaluationAssignmentRow.evaluation_id).where(EvaluationAssignmentRow.device_id == device_id)
    still = (
        select(EvaluationRow.id, EvaluationRow.run_id, EvaluationRow.devices)
        .join(RunRow, EvaluationRow.run_id == RunRow.id)
        .where(
            EvaluationRow.state == EvaluationState.OPEN,
            EvaluationRow.window_closes_at > now,
            EvaluationRow.id.not_in(had),
            RunRow.population == population,
            RunRow.state.in_(GOING_ON),
        )
        .order_by(EvaluationRow.window_closes_at, EvaluationRow.id)
    )
    found = session.execute(still)
    free = [(name, run_id) for name, run_id, devices in found if count(session, name, TAKEN) < devices]
    return [*((name, run_id) for name, run_id in session.execute(own)), *free]


def _is_training(session: Session, device_id: str) -> bool:
    mine = AssignmentRow.device_id == device_id, AssignmentRow.state.in_(LIVE_ASSIGNMENT)
    return session.scalar(select(AssignmentRow.id).where(*mine)) is not None


def _has_place(session: Session, evaluation_id: str, device_id: str, run: RunRow) -> bool:
    """Asked again under the locks: what was read before them may have changed."""
    row = session.get_one(EvaluationRow, evaluation_id)
    had = select(EvaluationAssignmentRow.id).where(
        EvaluationAssignmentRow.evaluation_id == evaluation_id, EvaluationAssignmentRow.device_id == device_id
    )
    going_on = row.state is EvaluationState.OPEN and run.state in GOING_ON
    return going_on and session.scalar(had) is None and count(session, evaluation_id, TAKEN) < row.devices


def _take_place(
    session: Session, evaluation_id: str, device_id: str, run: RunRow, now: datetime
) -> EvaluationAssignmentRow:
    lease_seconds = settings_of(run).lease_seconds or run.settings.lease_seconds
    window_closes_at = session.get_one(EvaluationRow, evaluation_id).window_closes_at
    assignment = EvaluationAssignmentRow(
        id=new_id(now),
        state=EvaluationAssignmentState.OFFERED,
        evaluation_id=evaluation_id,
        run_id=run.id,
        device_id=device_id,
        max_rank=max_rank_of(session, run, device_id),
        lease_expires_at=min(now + timedelta(seconds=lease_seconds), window_closes_at),
    )
    create(session, assignment, "check-in", now)
    return assignment


def _answer(session: Session, assignment: EvaluationAssignmentRow, now: datetime) -> CheckInAnswer:
    round_index = session.get_one(AdapterVersionRow, assignment.evaluation_id).round_index
    return offer_of(session, "evaluate", assignment, round_index, now)
