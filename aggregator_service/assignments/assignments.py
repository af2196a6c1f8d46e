"""What a device does with its assignment: start, fetch, report, give back. Updates: see `updates.py`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.artifacts.handouts import StoredHandout, handout
from aggregator_service.observability.log_context import note
from aggregator_service.pace.steering import come_back_seconds, next_use
from aggregator_service.rounds.closing import close_if_goal_met, settle
from aggregator_service.rounds.rounds import GOAL_MET, accept
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.locks import lock_run_of_assignment
from aggregator_service.storage.rollout_tables import RolloutDeviceRow
from aggregator_service.storage.tables import AssignmentRow, RoundRow, RunRow
from aggregator_service.storage.transitions import move
from hetlora.digest import Sha256, sha256_of
from hetlora.errors import DigestMismatch, NotFound, RankOutOfRange, StateConflict
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Failure, Plan, Receipt, Report
from hetlora.states import LIVE_ASSIGNMENT, OPEN_ROUND, STARTED_ASSIGNMENT, AssignmentState, RoundState

AnyAssignment = AssignmentRow | EvaluationAssignmentRow | RolloutDeviceRow


def own_assignment(session: Session, device_id: str, assignment_id: str) -> AssignmentRow:
    """An assignment of this device.

    Raises:
        NotFound: no such assignment, or another device's.
    """
    assignment = session.get(AssignmentRow, assignment_id)
    if assignment is None or assignment.device_id != device_id:
        raise NotFound("this device has no such assignment", got=assignment_id)
    return assignment


def lock_assignment(
    session: Session, device_id: str, assignment_id: str, now: datetime
) -> tuple[AssignmentRow, RunRow]:
    """An assignment of this device, brought up to the present, and its run, which is locked.

    Raises:
        NotFound: no such assignment, or another device's.
    """
    run = lock_run_of_assignment(session, device_id, assignment_id)
    settle(session, run, now)
    assignment = session.get_one(AssignmentRow, assignment_id)
    note(round=assignment.round_id)
    return assignment, run


def refuse_state(assignment: AnyAssignment, expected: str) -> StateConflict:
    """The refusal of a request that came in the wrong state."""
    return StateConflict(
        "the assignment's state does not allow this",
        got=f"state {assignment.state}: {assignment.reason}",
        expected=expected,
    )


def start(
    service: Service, device_id: str, assignment_id: str, rank: int, variant: Sha256 | None = None
) -> Plan:
    """Take an offer at a rank, with a variant of the run's bundle or itself.

    Again at the same rank answers the same plan. Until an update is in, another rank makes another plan: a
    device that was killed has less time left.

    Raises:
        NotFound, StateConflict: no such assignment of the device, or not (any longer) on offer; or no such
            variant.
        RankOutOfRange: a rank outside the offer.
    """
    now = service.clock()
    with service.database.read() as session:
        assignment = own_assignment(session, device_id, assignment_id)
        run = session.get_one(RunRow, assignment.run_id)
    _check_start(run, assignment, rank)
    check_taken_variant(run, variant)
    seed = seed_of(run, assignment.offered_in, device_id)
    sent = handout(service, assignment.base_version, rank, seed)
    with service.database.write() as session:
        assignment, run = lock_assignment(session, device_id, assignment_id, now)
        _check_start(run, assignment, rank)
        assignment.rank, assignment.adapter_sha256 = rank, sent.adapter.sha256
        assignment.adaptation, assignment.variant = sent.adaptation, variant
        if assignment.state is AssignmentState.OFFERED:
            move(session, assignment, AssignmentState.DOWNLOADING, f"taken at rank {rank}", now)
        return plan_of(assignment, rank, seed, sent)


def plan_of(assignment: AnyAssignment, rank: int, seed: int, sent: StoredHandout) -> Plan:
    """What a device is told that took its offer at a rank."""
    return Plan(
        assignment_id=assignment.id,
        rank=rank,
        adapter=sent.adapter,
        seed=seed,
        lease_expires_at=assignment.lease_expires_at,
        adaptation=sent.adaptation,
        frozen=sent.frozen,
    )


def _check_start(run: RunRow, assignment: AssignmentRow, rank: int) -> None:
    if assignment.state not in {AssignmentState.OFFERED, *STARTED_ASSIGNMENT}:
        raise refuse_state(assignment, "an offer")
    if assignment.state is AssignmentState.UPLOADING and assignment.rank != rank:
        raise refuse_state(assignment, f"rank {assignment.rank}, of which an update is in")
    check_rank(run, assignment, rank)


def check_rank(run: RunRow, assignment: AnyAssignment, rank: int) -> None:
    """Raise RankOutOfRange unless the offer has this rank."""
    least, most = run.settings.min_rank, assignment.max_rank
    if not least <= rank <= most:
        raise RankOutOfRange("rank outside the offer", got=rank, expected=f"{least} to {most}")


def check_taken_variant(run: RunRow, variant: Sha256 | None) -> None:
    """Raise NotFound unless the run has this variant."""
    if variant is not None and variant not in run.settings.variants:
        raise NotFound("the run has no such variant", got=variant)


def seed_of(run: RunRow, work_id: str, device_id: str) -> int:
    """Of a device's batches, and of what a rule draws for it, in a round or an evaluation: 32 bits."""
    name = f"{run.settings.seed}:{work_id.removeprefix(run.id)}:{device_id}"
    return int(sha256_of(name.encode())[:8], 16)


def note_fetch(service: Service, device_id: str, sha256: str) -> None:
    """A device that fetches the adapter of its plan is about to train."""
    fetching = select(AssignmentRow.id).where(
        AssignmentRow.device_id == device_id,
        AssignmentRow.state == AssignmentState.DOWNLOADING,
        AssignmentRow.adapter_sha256 == sha256,
    )
    with service.database.read() as session:
        assignment_id = session.scalar(fetching)
    if assignment_id is None:
        return
    now = service.clock()
    with service.database.write() as session:
        assignment, _ = lock_assignment(session, device_id, assignment_id, now)
        if assignment.state is AssignmentState.DOWNLOADING:
            move(session, assignment, AssignmentState.TRAINING, "adapter fetched", now)


def submit(service: Service, device_id: str, assignment_id: str, report: Report) -> Receipt:
    """Hand in an uploaded update; whatever became of an ended assignment is told again.

    Raises:
        NotFound: no such assignment of the device.
        StateConflict: no update was uploaded.
        DigestMismatch, RankOutOfRange: the report is not about the uploaded update.
    """
    now = service.clock()
    with service.database.write() as session:
        assignment, run = lock_assignment(session, device_id, assignment_id, now)
        if assignment.state in LIVE_ASSIGNMENT:
            _take_in(session, assignment, run, report, now)
        row = session.get_one(RoundRow, assignment.round_id)
        if row.state is RoundState.AGGREGATING:
            service.wake.set()
        accepted = assignment.state is AssignmentState.ACCEPTED
        use_at = next_use(session, run, row if row.state in OPEN_ROUND else None) if accepted else None
    return receipt_of(assignment, come_back_seconds(service, run.population, device_id, now, use_at=use_at))


def _take_in(session: Session, assignment: AssignmentRow, run: RunRow, report: Report, now: datetime) -> None:
    if run.settings.secure_aggregation is not None:  # under its mask an update's rank is the device's word
        least = min(run.settings.min_rank, assignment.rank or 0)
        if not least <= report.rank <= (assignment.rank or 0):
            raise RankOutOfRange(
                "rank of a masked update", got=report.rank, expected=f"{least} to {assignment.rank}"
            )
        assignment.updated_rank = report.rank
    _check_report(assignment, report)
    row = session.get_one(RoundRow, assignment.round_id)
    with session.no_autoflush:  # it changes twice, and is written once
        assignment.report = report
        move(session, assignment, AssignmentState.SUBMITTED, "report received", now)
        if row.state not in OPEN_ROUND:
            move(session, assignment, AssignmentState.DISCARDED, GOAL_MET, now)
            return
        accept(session, run, row, assignment, now)
    close_if_goal_met(session, run, row, now)


def _check_report(assignment: AssignmentRow, report: Report) -> None:
    if assignment.state is not AssignmentState.UPLOADING:
        raise refuse_state(assignment, "an uploaded update")
    assert assignment.update_sha256 is not None
    assert assignment.update_bytes is not None
    stored = ObjectRef(sha256=assignment.update_sha256, size_bytes=assignment.update_bytes)
    if report.update != stored:
        raise DigestMismatch("the report is about another update", got=report.update, expected=stored)
    if report.rank != assignment.updated_rank:
        raise RankOutOfRange(
            "the report's rank is not the update's", got=report.rank, expected=assignment.updated_rank
        )


def fail(service: Service, device_id: str, assignment_id: str, failure: Failure) -> Receipt:
    """Give an assignment back; its place is free again.

    Raises:
        NotFound: no such assignment of the device.
    """
    now = service.clock()
    with service.database.write() as session:
        assignment, run = lock_assignment(session, device_id, assignment_id, now)
        if assignment.state in LIVE_ASSIGNMENT:
            move(session, assignment, AssignmentState.FAILED, f"{failure.code}: {failure.message}", now)
    return receipt_of(assignment, come_back_seconds(service, run.population, device_id, now, idle=True))


def receipt_of(assignment: AnyAssignment, retry_after_seconds: float) -> Receipt:
    """What became of an assignment."""
    return Receipt(
        assignment_id=assignment.id,
        state=AssignmentState(assignment.state),  # an evaluation that is over has the same words
        reason=assignment.reason,
        retry_after_seconds=retry_after_seconds,
    )
