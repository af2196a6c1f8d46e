"""Check-in: an offer of work in a round, or when to come back and why."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.bundles import get_bundle
from aggregator_service.identifiers import new_id
from aggregator_service.rounds import (
    LIVE,
    OPEN,
    cohort_size,
    count_assignments,
    current_round,
    settle,
)
from aggregator_service.service import Service
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RankLimitRow, RoundRow, RunRow
from aggregator_service.transitions import create, move
from hetlora.errors import MalformedMessage, NotPermitted
from hetlora.messages.common import PROTOCOL_VERSION, ObjectRef
from hetlora.messages.device import CheckIn, CheckInAnswer, Offer
from hetlora.states import AssignmentState, RoundState, RunState

# The other half is for the download, the upload, and a device that trains more slowly than it thought.
TRAINING_SHARE = 0.5


def check_in(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer:
    """Answer a device that could work now; a device with a live assignment gets its offer again.

    Raises:
        MalformedMessage: another protocol version.
        NotPermitted: the device belongs to another population.
    """
    if message.protocol_version != PROTOCOL_VERSION:
        raise MalformedMessage("protocol version", got=message.protocol_version, expected=PROTOCOL_VERSION)
    now = service.clock()
    with service.database.write() as session:
        settle(session, now)
        device = session.get_one(DeviceRow, device_id)
        if device.population != message.population:
            raise NotPermitted(
                "device belongs to another population", got=message.population, expected=device.population
            )
        device.capabilities = message.capabilities
        live = session.scalar(
            select(AssignmentRow).where(AssignmentRow.device_id == device_id, AssignmentRow.state.in_(LIVE))
        )
        if live is not None:
            return _answer(session, live, now)
        if message.example_count == 0:
            return _come_back(service.settings.idle_retry_seconds, "the device has no examples")
        return _new_offer(session, service, device, now)


def _new_offer(session: Session, service: Service, device: DeviceRow, now: datetime) -> CheckInAnswer:
    settings = service.settings
    running = select(RunRow).where(RunRow.population == device.population, RunRow.state == RunState.RUNNING)
    answer = _come_back(settings.idle_retry_seconds, "no run is active")
    for run in session.scalars(running.order_by(RunRow.id)):
        row = current_round(session, run.id)
        assert row is not None, "a running run has a round that has not ended"
        refusal = _refusal(session, run, row, device, settings.max_failures_per_round)
        if refusal is None:
            return _answer(session, _assign(session, run, row, device, now), now)
        answer = _come_back(settings.retry_seconds, refusal)
    return answer


def _refusal(
    session: Session, run: RunRow, row: RoundRow, device: DeviceRow, max_failures: int
) -> str | None:
    """Why a round has nothing for this device now."""
    if row.state not in OPEN:
        return "the round is being aggregated"
    mine = select(AssignmentRow.state).where(
        AssignmentRow.round_id == row.id, AssignmentRow.device_id == device.id
    )
    states = Counter(session.scalars(mine))
    if states[AssignmentState.ACCEPTED]:
        return "this device's update of the round is in"
    if states[AssignmentState.FAILED] >= max_failures:
        return "this device gave the round back too often"
    if count_assignments(session, row.id, {*LIVE, AssignmentState.ACCEPTED}) >= cohort_size(run.settings):
        return "the cohort is complete"
    return None


def _assign(session: Session, run: RunRow, row: RoundRow, device: DeviceRow, now: datetime) -> AssignmentRow:
    if row.window_closes_at is None:
        row.window_closes_at = now + timedelta(seconds=run.settings.report_window_seconds)
    limit = session.get(RankLimitRow, (run.id, device.id))
    assignment = AssignmentRow(
        id=new_id(now),
        state=AssignmentState.OFFERED,
        run_id=run.id,
        round_id=row.id,
        device_id=device.id,
        max_rank=limit.max_rank if limit else run.settings.max_rank,
        # A report after the window is of no use, so no lease reaches beyond it.
        lease_expires_at=min(now + timedelta(seconds=run.settings.lease_seconds), row.window_closes_at),
    )
    create(session, assignment, "check-in", now)
    taken = count_assignments(session, row.id, {*LIVE, AssignmentState.ACCEPTED})
    if row.state is RoundState.SELECTING and taken >= cohort_size(run.settings):
        move(session, row, RoundState.COLLECTING, f"cohort of {taken} is complete", now)
    return assignment


def _answer(session: Session, assignment: AssignmentRow, now: datetime) -> CheckInAnswer:
    run = session.get_one(RunRow, assignment.run_id)
    # What is left of the lease, not all of it: the device may have been killed in the middle of its work.
    left = assignment.lease_expires_at - now
    offer = Offer(
        assignment_id=assignment.id,
        run_id=run.id,
        round_index=session.get_one(RoundRow, assignment.round_id).round_index,
        bundle=ObjectRef(sha256=run.bundle, size_bytes=get_bundle(session, run.bundle).manifest_bytes),
        min_rank=run.settings.min_rank,
        max_rank=assignment.max_rank,
        round_seconds=TRAINING_SHARE * left.total_seconds(),
        training=run.settings.training,
        lease_expires_at=assignment.lease_expires_at,
    )
    return CheckInAnswer(offer=offer, retry_after_seconds=0, reason="offer")


def _come_back(retry_after_seconds: float, reason: str) -> CheckInAnswer:
    return CheckInAnswer(offer=None, retry_after_seconds=retry_after_seconds, reason=reason)
