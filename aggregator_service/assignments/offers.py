"""Check-in: an offer of work in a round, or when to come back and why."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from aggregator_service.assignments.offered import max_rank_of, offer_of
from aggregator_service.devices.identity import require_accepted
from aggregator_service.pace.steering import come_back_seconds, next_use
from aggregator_service.rounds.closing import is_due, settle
from aggregator_service.rounds.evaluations import is_evaluating
from aggregator_service.rounds.masking import is_fixed
from aggregator_service.rounds.rounds import (
    QUARANTINED,
    TAKEN,
    cohort_size,
    count_places_taken,
    is_full,
    lacks_trusted,
    open_round_of,
    take_place,
)
from aggregator_service.service import Service
from aggregator_service.storage.database import is_locked, out_of_order
from aggregator_service.storage.locks import lock_device, lock_run
from aggregator_service.storage.passing import log_fault
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RoundRow, RunRow
from hetlora.errors import ConditionsUnmet, NotPermitted, UnavailableError
from hetlora.messages.device import CheckIn, CheckInAnswer
from hetlora.messages.masking import MASK
from hetlora.states import LIVE_ASSIGNMENT, AssignmentState, RunState

log = logging.getLogger(__name__)

# Made once: every check-in asks these.
_LIVE_OF: Final = select(AssignmentRow).where(
    AssignmentRow.device_id == bindparam("device"), AssignmentRow.state.in_(LIVE_ASSIGNMENT)
)
_DESCRIBE: Final = (
    update(DeviceRow)
    .where(DeviceRow.id == bindparam("device"))
    .values(capabilities=bindparam("capabilities"))
)
_RUNNING: Final = (
    select(RunRow.id)
    .where(RunRow.population == bindparam("population"), RunRow.state == RunState.RUNNING)
    .order_by(RunRow.id)
)
_STATES_OF: Final = select(AssignmentRow.state, AssignmentRow.reason).where(
    AssignmentRow.round_id == bindparam("round"), AssignmentRow.device_id == bindparam("device")
)
# How the reason begins where a device gave back what it may do later: on its charger, at night.
_NOT_ALLOWED: Final = f"{ConditionsUnmet.code}:"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run has no place for a device, and when it may have one."""

    reason: str
    population: str
    use_at: datetime | None


def check_in(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer:
    """Answer a device that could work now; a device with a live assignment gets its offer again.

    Raises:
        NotPermitted: the device belongs to another population.
    """
    now = service.clock()
    with service.database.read() as session:
        device = session.get_one(DeviceRow, device_id)
        if device.population != message.population:
            raise NotPermitted(
                "device belongs to another population", got=message.population, expected=device.population
            )
        live = session.scalar(_LIVE_OF, {"device": device_id})
        runs = session.scalars(_RUNNING, {"population": message.population}).all()
    note_capabilities(service, device, message)
    answer = None
    if live is not None:
        answer = _ask_run(service, live.run_id, device_id, now)
    if answer is None and message.example_count == 0:
        answer = _idle(service, message.population, device_id, now, "the device has no examples")
    return (
        answer
        or _new_offer(service, runs, device, now, masks=MASK in message.abilities)
        or _idle(service, message.population, device_id, now, "no run is active")
    )


def note_capabilities(service: Service, device: DeviceRow, message: CheckIn) -> None:
    """Keep what a device says that it can do, where that is news."""
    if device.capabilities != message.capabilities:
        with service.database.note() as connection:  # told anew with the next check-in, if it gets lost
            connection.execute(_DESCRIBE, {"device": device.id, "capabilities": message.capabilities})


def _new_offer(
    service: Service, runs: Sequence[str], device: DeviceRow, now: datetime, *, masks: bool
) -> CheckInAnswer | None:
    """The first offer of a run, or why and until when the run that may have one first has none."""
    refusals: list[CheckInAnswer] = []
    for run_id in runs:
        try:
            answer = _refused(service, run_id, device, now, masks=masks) or _ask_run(
                service, run_id, device.id, now
            )
        except Exception as error:
            if not _of_one_run(error):
                raise
            log_fault(log, error, "run=%s offer=failed", run_id)
            answer = _told(
                service, Refusal("a run cannot be served now", device.population, None), device.id, now
            )
        if answer is not None and answer.offer is not None:
            return answer
        refusals += [] if answer is None else [answer]
    return min(refusals, key=lambda answer: answer.retry_after_seconds, default=None)


def _of_one_run(error: Exception) -> bool:
    """Whether the next runs may have their devices: neither the database nor the device is at fault."""
    if isinstance(error, SQLAlchemyError):
        return is_locked(error) or not out_of_order(error)
    # Of that type itself it is the database of all, or their store; what a run lost is of another.
    return not isinstance(error, NotPermitted) and type(error) is not UnavailableError


def _refused(
    service: Service, run_id: str, device: DeviceRow, now: datetime, *, masks: bool
) -> CheckInAnswer | None:
    """Why a run has nothing for a device without work, as far as that is known without a lock.

    Most devices are told to come back: these only read.
    """
    with service.database.read() as session:
        run = session.get_one(RunRow, run_id)
        if run.settings.secure_aggregation is not None and not masks:
            found = Refusal("the run has masks, of which this client does not know", run.population, None)
            return _told(service, found, device.id, now)
        if run.state is not RunState.RUNNING or is_due(session, run_id, now):
            return None
        place = _place_or_refusal(session, run, device, service.settings.max_failures_per_round)
    return _told(service, place, device.id, now) if isinstance(place, Refusal) else None


def _told(service: Service, refusal: Refusal, device_id: str, now: datetime) -> CheckInAnswer:
    wait = come_back_seconds(service, refusal.population, device_id, now, use_at=refusal.use_at)
    return CheckInAnswer(offer=None, retry_after_seconds=wait, reason=refusal.reason)


def _ask_run(service: Service, run_id: str, device_id: str, now: datetime) -> CheckInAnswer | None:
    """An offer of a run, or why it has none; None if it runs no longer."""
    found = _asked(service, run_id, device_id, now)
    return _told(service, found, device_id, now) if isinstance(found, Refusal) else found


def _asked(service: Service, run_id: str, device_id: str, now: datetime) -> CheckInAnswer | Refusal | None:
    with service.database.write() as session:
        device = lock_device(session, device_id)
        require_accepted(device.state, device.reason)  # an operator may have decided since it was identified
        run = lock_run(session, run_id)
        settle(session, run, now)
        live = session.scalar(_LIVE_OF, {"device": device_id})
        if live is not None:
            return _answer(session, live, now)
        if is_evaluating(session, device_id):
            return Refusal("this device evaluates an adapter", run.population, None)
        if run.state is not RunState.RUNNING:
            return None
        found = _place_or_refusal(session, run, device, service.settings.max_failures_per_round)
        if isinstance(found, Refusal):
            return found
        max_rank = max_rank_of(session, run, device_id)
        return _answer(session, take_place(session, run, found, device_id, max_rank, now), now)


def _place_or_refusal(
    session: Session, run: RunRow, device: DeviceRow, max_failures: int
) -> RoundRow | Refusal:
    """The open round of a run that has a place for this device, or why the run has nothing for it now."""
    row = open_round_of(session, run.id)
    reason = "the round is being aggregated"
    if row is not None:
        found = _reason(session, run, row, device, max_failures)
        if found is None:
            return row
        reason = found
    return Refusal(reason, run.population, next_use(session, run, row))


def _reason(session: Session, run: RunRow, row: RoundRow, device: DeviceRow, max_failures: int) -> str | None:
    """Why an open round has no place for this device."""
    had = session.execute(_STATES_OF, {"round": row.id, "device": device.id}).all()
    states = Counter(state for state, reason in had if not reason.startswith(_NOT_ALLOWED))
    if states[AssignmentState.ACCEPTED]:
        return "this device's update of the round is in"
    if any(reason.startswith(QUARANTINED) for _, reason in had):
        return "this device's update of the round was taken out of it"
    if states[AssignmentState.FAILED] + states[AssignmentState.EXPIRED] >= max_failures:
        return "this device gave the round back, or let its lease run out, too often"
    if run.settings.secure_aggregation is not None and is_fixed(session, row.id):
        return "the cohort has told its keys"
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


def _answer(session: Session, assignment: AssignmentRow, now: datetime) -> CheckInAnswer:
    round_index = session.get_one(RoundRow, assignment.offered_in).round_index
    return offer_of(session, "train", assignment, round_index, now)


def _idle(service: Service, population: str, device_id: str, now: datetime, reason: str) -> CheckInAnswer:
    wait = come_back_seconds(service, population, device_id, now, idle=True)
    return CheckInAnswer(offer=None, retry_after_seconds=wait, reason=reason)
