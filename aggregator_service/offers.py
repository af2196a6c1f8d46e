"""Check-in: an offer of work in a round, or when to come back and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from aggregator_service.bundles import get_bundle
from aggregator_service.closing import due, settle
from aggregator_service.identity import require_accepted
from aggregator_service.locks import lock_device, lock_run
from aggregator_service.rounds import (
    LIVE,
    TAKEN,
    cohort_size,
    count_places_taken,
    is_full,
    lacks_trusted,
    open_round_of,
    take_place,
)
from aggregator_service.service import Service
from aggregator_service.steering import come_back_seconds, next_use
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RankLimitRow, RoundRow, RunRow
from hetlora.errors import MalformedMessage, NotPermitted
from hetlora.messages.common import PROTOCOL_VERSION, ObjectRef
from hetlora.messages.device import CheckIn, CheckInAnswer, Offer
from hetlora.states import AssignmentState, RunState

log = logging.getLogger(__name__)

# The other half is for the download, the upload, and a device that trains more slowly than it thought.
TRAINING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run has no place for a device, and when it may have one."""

    reason: str
    population: str
    use_at: datetime | None


def check_in(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer:
    """Answer a device that could work now; a device with a live assignment gets its offer again.

    Raises:
        MalformedMessage: another protocol version.
        NotPermitted: the device belongs to another population.
    """
    if message.protocol_version != PROTOCOL_VERSION:
        raise MalformedMessage("protocol version", got=message.protocol_version, expected=PROTOCOL_VERSION)
    now = service.clock()
    _note_capabilities(service, device_id, message)
    with service.database.read() as session:
        live = session.scalar(select(AssignmentRow.run_id).where(*_live_of(device_id)))
        running = select(RunRow.id).where(
            RunRow.population == message.population, RunRow.state == RunState.RUNNING
        )
        runs = session.scalars(running.order_by(RunRow.id)).all()
    answer = None
    if live is not None:
        answer = _ask_run(service, live, device_id, now)
    if answer is None and message.example_count == 0:
        answer = _idle(service, message.population, device_id, now, "the device has no examples")
    return (
        answer
        or _new_offer(service, runs, device_id, now)
        or _idle(service, message.population, device_id, now, "no run is active")
    )


def _note_capabilities(service: Service, device_id: str, message: CheckIn) -> None:
    with service.database.read() as session:
        device = session.get_one(DeviceRow, device_id)
    if device.population != message.population:
        raise NotPermitted(
            "device belongs to another population", got=message.population, expected=device.population
        )
    if device.capabilities != message.capabilities:
        with service.database.write() as session:
            lock_device(session, device_id).capabilities = message.capabilities


def _live_of(device_id: str) -> tuple[ColumnElement[bool], ...]:
    return AssignmentRow.device_id == device_id, AssignmentRow.state.in_(LIVE)


def _new_offer(service: Service, runs: Sequence[str], device_id: str, now: datetime) -> CheckInAnswer | None:
    """The first offer of a run, or why and until when the run that may have one first has none."""
    refusals: list[CheckInAnswer] = []
    for run_id in runs:
        try:
            answer = _ask_run(service, run_id, device_id, now)
        except (OperationalError, NotPermitted):  # the database's fault or the device's, not this run's
            raise
        except Exception:  # one run that cannot be served leaves the next ones their devices
            log.exception("run=%s offer=failed", run_id)
            continue
        if answer is not None and answer.offer is not None:
            return answer
        refusals += [] if answer is None else [answer]
    return min(refusals, key=lambda answer: answer.retry_after_seconds, default=None)


def _ask_run(service: Service, run_id: str, device_id: str, now: datetime) -> CheckInAnswer | None:
    """An offer of a run, or why it has none; None if it runs no longer."""
    found = _asked(service, run_id, device_id, now)
    if not isinstance(found, Refusal):
        return found
    wait = come_back_seconds(service, found.population, device_id, now, use_at=found.use_at)
    return CheckInAnswer(offer=None, retry_after_seconds=wait, reason=found.reason)


def _asked(service: Service, run_id: str, device_id: str, now: datetime) -> CheckInAnswer | Refusal | None:
    settings = service.settings
    # Most devices are told to come back: these take no lock, and only read.
    with service.database.read() as session:
        run, device = session.get_one(RunRow, run_id), session.get_one(DeviceRow, device_id)
        holds = session.scalar(select(AssignmentRow.id).where(*_live_of(device_id))) is not None
        if not holds and run.state is RunState.RUNNING and not due(session, now, run_id):
            refusal = _refusal(session, run, device, settings.max_failures_per_round)
            if refusal is not None:
                return Refusal(refusal, run.population, next_use(session, run))
    with service.database.write() as session:
        device = lock_device(session, device_id)
        require_accepted(device.state, device.reason)  # an operator may have decided since it was identified
        run = lock_run(session, run_id)
        settle(session, run, now)
        live = session.scalar(select(AssignmentRow).where(*_live_of(device_id)))
        if live is not None:
            return _answer(session, live, now)
        if run.state is not RunState.RUNNING:
            return None
        refusal = _refusal(session, run, device, settings.max_failures_per_round)
        if refusal is not None:
            return Refusal(refusal, run.population, next_use(session, run))
        row = open_round_of(session, run_id)
        assert row is not None, "or there had been a refusal"
        return _answer(
            session, take_place(session, run, row, device_id, _max_rank(session, run, device), now), now
        )


def _refusal(session: Session, run: RunRow, device: DeviceRow, max_failures: int) -> str | None:
    """Why the round of a run has nothing for this device now."""
    row = open_round_of(session, run.id)
    if row is None:
        return "the round is being aggregated"
    mine = select(AssignmentRow.state).where(
        AssignmentRow.round_id == row.id, AssignmentRow.device_id == device.id
    )
    states = Counter(session.scalars(mine))
    if states[AssignmentState.ACCEPTED]:
        return "this device's update of the round is in"
    if states[AssignmentState.FAILED] + states[AssignmentState.EXPIRED] >= max_failures:
        return "this device gave the round back, or let its lease run out, too often"
    free = cohort_size(run.settings) - count_places_taken(session, run, row)
    if free <= 0:
        return "the cohort is complete"
    others = device.id != run.settings.defence.trusted_device
    if others and free == 1 and lacks_trusted(session, row, run.settings, TAKEN):
        return "the last place is kept for the trusted device"
    # A synchronous round that is full and still open has just this one place left.
    if others and run.settings.mode == "buffered" and is_full(session, row, run.settings):
        lacking = lacks_trusted(session, row, run.settings)
        return f"the buffer is full, and waits for the {'trusted device' if lacking else 'round before it'}"
    return None


def _max_rank(session: Session, run: RunRow, device: DeviceRow) -> int:
    limit = session.get(RankLimitRow, (run.id, device.id))
    return limit.max_rank if limit else run.settings.max_rank


def _answer(session: Session, assignment: AssignmentRow, now: datetime) -> CheckInAnswer:
    run = session.get_one(RunRow, assignment.run_id)
    # What is left of the lease, not all of it: the device may have been killed in the middle of its work.
    left = assignment.lease_expires_at - now
    offer = Offer(
        assignment_id=assignment.id,
        run_id=run.id,
        round_index=session.get_one(RoundRow, assignment.offered_in).round_index,
        bundle=ObjectRef(sha256=run.bundle, size_bytes=get_bundle(session, run.bundle).manifest_bytes),
        min_rank=run.settings.min_rank,
        max_rank=assignment.max_rank,
        trained_rank=run.trained_rank,
        round_seconds=TRAINING_SHARE * left.total_seconds(),
        training=run.settings.training,
        lease_expires_at=assignment.lease_expires_at,
    )
    return CheckInAnswer(offer=offer, retry_after_seconds=0, reason="offer")


def _idle(service: Service, population: str, device_id: str, now: datetime, reason: str) -> CheckInAnswer:
    wait = come_back_seconds(service, population, device_id, now, idle=True)
    return CheckInAnswer(offer=None, retry_after_seconds=wait, reason=reason)
