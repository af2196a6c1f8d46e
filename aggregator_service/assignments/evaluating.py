"""What a device does with an evaluation that it was offered: start, report, give back (ADR 0015)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.artifacts.bundles import get_bundle
from aggregator_service.artifacts.handouts import handout
from aggregator_service.assignments.assignments import (
    check_rank,
    check_taken_variant,
    plan_of,
    receipt_of,
    refuse_state,
    seed_of,
)
from aggregator_service.pace.steering import come_back_seconds, next_use
from aggregator_service.rounds.evaluations import accept, settle
from aggregator_service.rounds.rounds import open_round_of
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow, EvaluationRow
from aggregator_service.storage.locks import lock_run
from aggregator_service.storage.tables import RunRow
from aggregator_service.storage.transitions import move
from hetlora.digest import Sha256
from hetlora.errors import MalformedMessage, NotFound
from hetlora.manifest import generates_text
from hetlora.messages.device import Failure, Plan, Receipt
from hetlora.messages.evaluation import EvaluationReport
from hetlora.states import LIVE_EVALUATION, EvaluationAssignmentState


def start(
    service: Service, device_id: str, assignment_id: str, rank: int, variant: Sha256 | None = None
) -> Plan:
    """Take an evaluation at a rank; again at the same rank answers the same plan, at another another plan.

    Which variant of the bundle scores is not kept.

    Raises:
        NotFound, StateConflict: no such assignment of the device, or over; or no such variant.
        RankOutOfRange: a rank outside the offer.
    """
    now = service.clock()
    with service.database.read() as session:
        run = session.get_one(RunRow, _run_of(session, device_id, assignment_id))
        assignment = session.get_one(EvaluationAssignmentRow, assignment_id)
        _check_start(run, assignment, rank)
        check_taken_variant(run, variant)
    seed = seed_of(run, assignment.evaluation_id, device_id)
    sent = handout(service, assignment.evaluation_id, rank, seed)
    with service.database.write() as session:
        assignment, run = _lock(session, device_id, assignment_id, now)
        _check_start(run, assignment, rank)
        assignment.rank, assignment.adapter_sha256 = rank, sent.adapter.sha256
        if assignment.state is EvaluationAssignmentState.OFFERED:
            move(session, assignment, EvaluationAssignmentState.STARTED, f"taken at rank {rank}", now)
        return plan_of(assignment, rank, seed, sent)


def _check_start(run: RunRow, assignment: EvaluationAssignmentRow, rank: int) -> None:
    if assignment.state not in LIVE_EVALUATION:
        raise refuse_state(assignment, "an offer")
    check_rank(run, assignment, rank)


def submit(service: Service, device_id: str, assignment_id: str, report: EvaluationReport) -> Receipt:
    """Count a report; whatever became of an assignment that is over is told again.

    Raises:
        NotFound: no such assignment of the device.
        StateConflict: not started.
        MalformedMessage: right answers are counted and the model has no classes, or the reverse.
    """
    now = service.clock()
    with service.database.write() as session:
        assignment, run = _lock(session, device_id, assignment_id, now)
        if assignment.state is EvaluationAssignmentState.OFFERED:
            raise refuse_state(assignment, "a started evaluation")
        if assignment.state is EvaluationAssignmentState.STARTED:
            _check_report(report, get_bundle(session, run.bundle).task)
            assignment.report = report
            accept(session, session.get_one(EvaluationRow, assignment.evaluation_id), assignment, now)
        use_at = next_use(session, run, open_round_of(session, run.id))
    return receipt_of(assignment, come_back_seconds(service, run.population, device_id, now, use_at=use_at))


def _check_report(report: EvaluationReport, task: str) -> None:
    if (report.correct_count is None) != generates_text(task):
        raise MalformedMessage(
            f"correct_count of a report on {task}",
            got=report.correct_count,
            expected="none" if generates_text(task) else "how many were right",
        )


def fail(service: Service, device_id: str, assignment_id: str, failure: Failure) -> Receipt:
    """Give an evaluation back; its place is another device's.

    Raises:
        NotFound: no such assignment of the device.
    """
    now = service.clock()
    with service.database.write() as session:
        assignment, run = _lock(session, device_id, assignment_id, now)
        if assignment.state in LIVE_EVALUATION:
            reason = f"{failure.code}: {failure.message}"
            move(session, assignment, EvaluationAssignmentState.FAILED, reason, now)
    return receipt_of(assignment, come_back_seconds(service, run.population, device_id, now, idle=True))


def _run_of(session: Session, device_id: str, assignment_id: str) -> str:
    own = EvaluationAssignmentRow.id == assignment_id, EvaluationAssignmentRow.device_id == device_id
    run_id = session.scalar(select(EvaluationAssignmentRow.run_id).where(*own))
    if run_id is None:
        raise NotFound("this device has no such evaluation", got=assignment_id)
    return run_id


def _lock(
    session: Session, device_id: str, assignment_id: str, now: datetime
) -> tuple[EvaluationAssignmentRow, RunRow]:
    """An evaluation of this device, brought up to the present, and its run, which is locked."""
    run = lock_run(session, _run_of(session, device_id, assignment_id))
    settle(session, run, now)
    return session.get_one(EvaluationAssignmentRow, assignment_id), run
