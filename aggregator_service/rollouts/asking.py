"""Check-ins that may end in an adoption: which version a device is to have, asked before it is given work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from aggregator_service.assignments.evaluation_offers import check_in_to_train_or_evaluate
from aggregator_service.assignments.offered import max_rank_of, offer_of
from aggregator_service.assignments.offers import note_capabilities
from aggregator_service.devices.identity import require_accepted
from aggregator_service.rollouts.filters import holds_for
from aggregator_service.rounds.evaluations import is_evaluating
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, DeviceRow, RunRow
from aggregator_service.storage.transitions import create, move
from hetlora.digest import sha256_of
from hetlora.messages.device import CheckIn, CheckInAnswer
from hetlora.messages.rollouts import ADOPT
from hetlora.states import LIVE_ASSIGNMENT, RolloutDeviceState, RolloutState

_S = RolloutDeviceState
# States in which a device has a rollout's version in use, or may have.
_MAY_HAVE: Final = (_S.STARTED, _S.ADOPTED, _S.RECALLED)
_GOING_ON: Final = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.COMPLETED)
# Made once: every check-in of a client that can adopt asks these two, each by an index.
_ASKING: Final = (
    select(RolloutRow)
    .where(RolloutRow.population == bindparam("population"), RolloutRow.asks)
    .order_by(RolloutRow.id.desc())
)
_NEWEST_OF: Final = (
    select(RolloutDeviceRow, RolloutRow)
    .join(RolloutRow, RolloutRow.id == RolloutDeviceRow.rollout_id)
    .where(RolloutDeviceRow.device_id == bindparam("device"), RolloutDeviceRow.state.in_(_MAY_HAVE))
    .order_by(RolloutDeviceRow.id.desc())
    .limit(1)
)


def check_in(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer:
    """Answer a check-in: an adoption first, then training or an evaluation, or when to come back.

    Raises:
        MalformedMessage, NotPermitted: see `check_in_to_train_or_evaluate`.
    """
    answer = None
    if ADOPT in message.abilities:
        answer = _adoption_for(service, device_id, message)
    return answer or check_in_to_train_or_evaluate(service, device_id, message)


def _adoption_for(service: Service, device_id: str, message: CheckIn) -> CheckInAnswer | None:
    now = service.clock()
    with service.database.read() as session:
        asking = session.scalars(_ASKING, {"population": message.population}).all()
        newest = session.execute(_NEWEST_OF, {"device": device_id}).first()
        begun = newest is not None and _version_for(*newest, now) is not None
        device = session.get_one(DeviceRow, device_id) if asking or begun else None
    if device is None or device.population != message.population:
        return None
    note_capabilities(service, device, message)
    if not begun:  # most devices have answered, or are not asked: these only read
        with service.database.read() as session:
            if _place(session, asking, device_id) is None:
                return None
    with service.database.write() as session:
        device = lock_device(session, device_id)
        require_accepted(device.state, device.reason)
        if _is_at_work(session, device_id):
            return None
        return _go_on(session, device_id, now) or _ask(session, device_id, message.population, now)


def _is_at_work(session: Session, device_id: str) -> bool:
    """Whether a locked device has training or an evaluation to finish first."""
    mine = AssignmentRow.device_id == device_id, AssignmentRow.state.in_(LIVE_ASSIGNMENT)
    return session.scalar(select(AssignmentRow.id).where(*mine)) is not None or is_evaluating(
        session, device_id
    )


def _version_for(row: RolloutDeviceRow, rollout: RolloutRow, now: datetime) -> str | None:
    """What a device is to have instead of its newest version, or to finish taking; mostly nothing."""
    if rollout.state is RolloutState.ROLLED_BACK:
        waits = row.waits_until is not None and now < row.waits_until
        return None if waits else rollout.former
    return rollout.version if row.state is _S.STARTED and rollout.state in _GOING_ON else None


def _go_on(session: Session, device_id: str, now: datetime) -> CheckInAnswer | None:
    """Offer the version before where the newest was rolled back, or again what the device has begun with."""
    newest = session.execute(_NEWEST_OF, {"device": device_id}).first()
    version = None if newest is None else _version_for(newest[0], newest[1], now)
    if newest is None or version is None:
        return None
    row, rollout = newest
    if version == rollout.former and row.state is not _S.RECALLED:
        move(session, row, _S.RECALLED, rollout.reason, now)
        row.rank = row.adapter_sha256 = None  # a late report would be of the other version
    return _answer(session, row, rollout, version, now)


def _ask(session: Session, device_id: str, population: str, now: datetime) -> CheckInAnswer | None:
    """Offer the version of the newest rollout that has the device in its stage, unless it has answered."""
    asking = session.scalars(_ASKING, {"population": population}).all()
    rollout = _place(session, asking, device_id)
    if rollout is None:
        return None
    row = _row_of(session, rollout.id, device_id)
    if row is None:
        row = RolloutDeviceRow(
            id=new_id(now),
            state=_S.OFFERED,
            rollout_id=rollout.id,
            device_id=device_id,
            stage=rollout.stage,
            run_id=session.get_one(AdapterVersionRow, rollout.version).run_id,
            max_rank=1,  # this and the lease are of the answer
            lease_expires_at=now,
        )
        create(session, row, f"check-in, in stage {rollout.stage + 1}", now)
    return _answer(session, row, rollout, rollout.version, now)


def _place(session: Session, asking: Sequence[RolloutRow], device_id: str) -> RolloutRow | None:
    """The newest rollout in whose stage the device is, unless it has told that one what it did."""
    for rollout in asking:
        row = _row_of(session, rollout.id, device_id)
        if row is not None:
            return rollout if row.state is _S.OFFERED else None
        if is_in_share(rollout.id, device_id, rollout.settings.stages[rollout.stage].share):
            held = holds_for(rollout.population, rollout.filter)
            if session.scalar(select(DeviceRow.id).where(DeviceRow.id == device_id, *held)) is not None:
                return rollout
    return None


def is_in_share(rollout_id: str, device_id: str, share: float) -> bool:
    """Whether a device is among this share of all: a larger one holds the same devices, and more."""
    drawn = int(sha256_of(f"{rollout_id}:{device_id}".encode())[:13], 16) / 16**13
    return drawn < share


def _row_of(session: Session, rollout_id: str, device_id: str) -> RolloutDeviceRow | None:
    mine = RolloutDeviceRow.rollout_id == rollout_id, RolloutDeviceRow.device_id == device_id
    return session.scalar(select(RolloutDeviceRow).where(*mine))


def _answer(
    session: Session, row: RolloutDeviceRow, rollout: RolloutRow, version_id: str, now: datetime
) -> CheckInAnswer:
    version = session.get_one(AdapterVersionRow, version_id)
    run = session.get_one(RunRow, version.run_id)
    row.run_id, row.max_rank = run.id, max_rank_of(session, run, row.device_id)
    row.lease_expires_at = now + timedelta(seconds=rollout.settings.lease_seconds)
    return offer_of(
        session,
        "adopt",
        row,
        max(version.round_index, 0),
        now,
        takes_back=version_id == rollout.former,
    )
