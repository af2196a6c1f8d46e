"""What a device does with a version that it was asked to adopt: start, report, give back."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.artifacts.handouts import handout
from aggregator_service.assignments.assignments import (
    check_rank,
    check_taken_variant,
    plan_of,
    refuse_state,
    seed_of,
)
from aggregator_service.pace.steering import come_back_seconds
from aggregator_service.rollouts.rollouts import UNDER_WAY
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.tables import RunRow
from aggregator_service.storage.transitions import move
from hetlora.digest import Sha256
from hetlora.errors import ConditionsUnmet, DigestMismatch, NotFound
from hetlora.messages.device import Failure, Plan, Receipt
from hetlora.messages.rollouts import AdoptionReport
from hetlora.states import AssignmentState, RolloutDeviceState, RolloutState

_S = RolloutDeviceState
_LIVE: Final = (_S.OFFERED, _S.STARTED, _S.RECALLED)
# What a receipt says of it, in the words that devices know.
_TOLD: Final = {
    _S.ADOPTED: AssignmentState.ACCEPTED,
    _S.KEPT: AssignmentState.ACCEPTED,
    _S.REVERTED: AssignmentState.ACCEPTED,
    _S.FAILED: AssignmentState.FAILED,
    _S.OFFERED: AssignmentState.FAILED,  # given back for a while
}


def start(service: Service, device_id: str, ask_id: str, rank: int, variant: Sha256 | None = None) -> Plan:
    """Take a version at a rank; again at the same rank answers the same plan, at another another plan.

    Raises:
        NotFound: the device was asked no such thing; or no such variant.
        StateConflict: it is over.
        RankOutOfRange: a rank outside the offer.
    """
    now = service.clock()
    with service.database.read() as session:
        row, rollout = _own(session, device_id, ask_id, lock=False)
        run = session.get_one(RunRow, row.run_id)
        _check_start(run, row, rollout, rank)
        check_taken_variant(run, variant)
    version = rollout.former if row.state is _S.RECALLED else rollout.version
    seed = seed_of(run, version, device_id)
    sent = handout(service, version, rank, seed)
    with service.database.write() as session:
        lock_device(session, device_id)
        row, rollout = _own(session, device_id, ask_id)
        _check_start(run, row, rollout, rank)
        row.rank, row.adapter_sha256 = rank, sent.adapter.sha256
        if row.state is _S.OFFERED:
            move(session, row, _S.STARTED, f"taken at rank {rank}", now)
        return plan_of(row, rank, seed, sent)


def _check_start(run: RunRow, row: RolloutDeviceRow, rollout: RolloutRow, rank: int) -> None:
    taken_back = row.state is not _S.RECALLED and rollout.state is RolloutState.ROLLED_BACK
    if row.state not in _LIVE or taken_back:
        raise refuse_state(row, "a version to adopt, of a rollout that goes on")
    check_rank(run, row, rank)


def submit(service: Service, device_id: str, ask_id: str, report: AdoptionReport) -> Receipt:
    """Note what a device did; whatever became of an ask that is over is told again.

    Raises:
        NotFound: the device was asked no such thing.
        StateConflict: not started.
        DigestMismatch: the report is about another adapter than the plan's.
    """
    now = service.clock()
    with service.database.write() as session:
        device = lock_device(session, device_id)
        row, rollout = _own(session, device_id, ask_id)
        if row.state is _S.OFFERED:
            raise refuse_state(row, "a version that was started on")
        if row.state in _LIVE:
            if report.adapter != row.adapter_sha256:
                raise DigestMismatch(
                    "the report is about another adapter", got=report.adapter, expected=row.adapter_sha256
                )
            _note(session, row, rollout, report, service)
        population = device.population
    return _receipt(row, come_back_seconds(service, population, device_id, now))


def _note(
    session: Session, row: RolloutDeviceRow, rollout: RolloutRow, report: AdoptionReport, service: Service
) -> None:
    now, told = service.clock(), f"{report.outcome}: {report.reason}"
    if row.state is _S.RECALLED:  # also where the device has a version of its own in use by now
        move(session, row, _S.REVERTED, told, now)
        return
    move(session, row, _S.ADOPTED if report.outcome == "adopted" else _S.KEPT, told, now)
    if rollout.state in UNDER_WAY and rollout.stage == row.stage:  # or its stage is decided without it
        row.new_loss, row.former_loss = report.new_loss, report.former_loss
    service.wake.set()


def fail(service: Service, device_id: str, ask_id: str, failure: Failure) -> Receipt:
    """Note that a device could not; whose conditions did not hold is asked again, and so is who takes back.

    Raises:
        NotFound: the device was asked no such thing.
    """
    now = service.clock()
    with service.database.write() as session:
        device = lock_device(session, device_id)
        row, rollout = _own(session, device_id, ask_id)
        reason = f"{failure.code}: {failure.message}"
        if failure.code == ConditionsUnmet.code:
            if row.state is _S.STARTED:
                move(session, row, _S.OFFERED, reason, now)
        elif row.state in (_S.OFFERED, _S.STARTED):
            move(session, row, _S.FAILED, reason, now)
            service.wake.set()
        elif row.state is _S.RECALLED:  # other work is not to wait for it
            row.waits_until = now + timedelta(seconds=rollout.settings.lease_seconds)
        population = device.population
    return _receipt(row, come_back_seconds(service, population, device_id, now, idle=True))


def _own(
    session: Session, device_id: str, ask_id: str, *, lock: bool = True
) -> tuple[RolloutDeviceRow, RolloutRow]:
    """What a device was asked, and by which rollout; locked, as a rollout that ends takes offers back."""
    query = (
        select(RolloutDeviceRow, RolloutRow)
        .join(RolloutRow, RolloutRow.id == RolloutDeviceRow.rollout_id)
        .where(RolloutDeviceRow.id == ask_id, RolloutDeviceRow.device_id == device_id)
    )
    if lock:
        query = query.with_for_update(of=RolloutDeviceRow, key_share=True)
    found = session.execute(query).first()
    if found is None:
        raise NotFound("this device was asked to adopt no such version", got=ask_id)
    return found[0], found[1]


def _receipt(row: RolloutDeviceRow, retry_after_seconds: float) -> Receipt:
    return Receipt(
        assignment_id=row.id,
        state=_TOLD.get(row.state, AssignmentState.ABORTED),
        reason=row.reason,
        retry_after_seconds=retry_after_seconds,
    )
