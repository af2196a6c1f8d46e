"""Rollouts: made of a version for a group, which operators start, pause, resume, stop, roll back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from aggregator_service.operators.idempotency import IdempotencyKey, begin
from aggregator_service.rollouts.groups import group_named
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.locks import lock_rollout
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.tables import AdapterVersionRow, PopulationRow, RunRow
from aggregator_service.storage.transitions import create, move
from hetlora.errors import NotFound, SettingsError, StateConflict
from hetlora.messages.rollouts import DeviceFilter, RolloutCreate, StagesDecided
from hetlora.states import AdapterVersionState, RolloutDeviceState, RolloutState, is_legal

RolloutVerb = Literal["start", "pause", "resume", "stop", "roll-back"]
UNDER_WAY: Final = (RolloutState.RUNNING, RolloutState.PAUSED)
OPERATOR: Final = "operator"


def create_rollout(service: Service, message: RolloutCreate, asked: IdempotencyKey | None = None) -> str:
    """Make a rollout in state draft and answer its id.

    Raises:
        NotFound: no such version or group.
        SettingsError: a version before that is the same, or of another population.
        IdempotencyKeyReused: see `idempotency.begin`.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now)
        if attempt.made is not None:
            return attempt.made
        population = _population_of(session, message.version)
        group = None if message.group is None else group_named(session, population, message.group)
        row = RolloutRow(
            id=new_id(now),
            state=RolloutState.DRAFT,
            population=population,
            version=message.version,
            former=_former(session, message, population),
            group_name=message.group,
            filter=DeviceFilter() if group is None else group.filter,
            settings=message.settings,
            asks=False,
            stage=0,
            created_at=now,
            decided=StagesDecided(),
        )
        create(session, row, OPERATOR, now)
        attempt.note(row.id)
        return row.id


def get_rollout(session: Session, rollout_id: str) -> RolloutRow:
    """A rollout by its id.

    Raises:
        NotFound: no such rollout.
    """
    row = session.get(RolloutRow, rollout_id)
    if row is None:
        raise NotFound("no such rollout", got=rollout_id)
    return row


def _population_of(session: Session, version: str) -> str:
    of_run = select(RunRow.population).join(AdapterVersionRow, AdapterVersionRow.run_id == RunRow.id)
    population = session.scalar(of_run.where(AdapterVersionRow.id == version))
    if population is None:
        raise NotFound("no such adapter version", got=version)
    return population


def _former(session: Session, message: RolloutCreate, population: str) -> str:
    """The version that devices are to have again if this one is rolled back."""
    if message.former is not None:
        if message.former == message.version:
            raise SettingsError("former is the version itself", got=message.former)
        if (other := _population_of(session, message.former)) != population:
            raise SettingsError("former is of another population", got=other, expected=population)
        return message.former
    in_force = (
        select(RolloutRow.version)
        .join(AdapterVersionRow, AdapterVersionRow.id == RolloutRow.version)
        .where(
            RolloutRow.population == population,
            RolloutRow.version != message.version,
            or_(RolloutRow.group_name == message.group, RolloutRow.group_name.is_(None)),
            RolloutRow.state == RolloutState.COMPLETED,
            AdapterVersionRow.state == AdapterVersionState.ROLLED_OUT,
        )
        .order_by(RolloutRow.ended_at.desc())
        .limit(1)
    )
    former = session.scalar(in_force) or _initial_of(session, message.version)
    if former == message.version:
        raise SettingsError(
            "a version that a run began with has none before it", got=former, expected="former to be given"
        )
    return former


def _initial_of(session: Session, version: str) -> str:
    run_id = session.get_one(AdapterVersionRow, version).run_id
    first = select(AdapterVersionRow.id).where(AdapterVersionRow.run_id == run_id)
    return session.scalars(first.order_by(AdapterVersionRow.id).limit(1)).one()


def _start(session: Session, row: RolloutRow, now: datetime) -> None:
    """Ask the devices of the first stage, if no other rollout of the population is under way."""
    _expect(row, RolloutState.DRAFT)
    session.get_one(PopulationRow, row.population, with_for_update={"key_share": True})  # one start at a time
    others = RolloutRow.population == row.population, RolloutRow.state.in_(UNDER_WAY)
    other = session.scalar(select(RolloutRow.id).where(*others))
    if other is not None:
        raise StateConflict(
            "another rollout of the population is under way", got=other, expected="one at a time"
        )
    version = lock_version(session, row.version)
    former = session.get_one(AdapterVersionRow, row.former)
    if former.state is AdapterVersionState.ROLLED_BACK:
        raise StateConflict(
            "the version before was rolled back itself", got=former.id, expected="another former"
        )
    reason = f"rollout {row.id} started"
    for state in (AdapterVersionState.APPROVED, AdapterVersionState.CANARY):
        if is_legal(version.state, state):
            move(session, version, state, reason, now)
    if version.state not in (AdapterVersionState.CANARY, AdapterVersionState.ROLLED_OUT):
        raise StateConflict(
            f"version {version.id} cannot be rolled out",
            got=f"state {version.state}: {version.reason}",
            expected="a candidate, or one that was approved or rolled out",
        )
    move(session, row, RolloutState.RUNNING, OPERATOR, now)
    row.asks, row.stage_began_at = True, now


def _pause(session: Session, row: RolloutRow, now: datetime) -> None:
    """Ask no other device and do not move on; those that began may report, and a bad version goes back."""
    move(session, row, RolloutState.PAUSED, OPERATOR, now)
    row.asks = False


def _resume(session: Session, row: RolloutRow, now: datetime) -> None:
    """Go on with a paused rollout."""
    _expect(row, RolloutState.PAUSED)
    move(session, row, RolloutState.RUNNING, OPERATOR, now)
    row.asks = True


def _stop(session: Session, row: RolloutRow, now: datetime) -> None:
    """Ask no device any more; those that adopted the version keep it."""
    move(session, row, RolloutState.STOPPED, OPERATOR, now)
    end_asking(session, row, "rollout stopped", now)


def _roll_back(session: Session, row: RolloutRow, now: datetime) -> None:
    roll_back(session, row, OPERATOR, now)


def roll_back(session: Session, row: RolloutRow, reason: str, now: datetime) -> None:
    """End a locked rollout, and have the devices that adopted its version offered the one before.

    Raises:
        StateConflict: it never ran, or the version was superseded by another since.
    """
    version = lock_version(session, row.version)
    if row.state is not RolloutState.DRAFT and not is_legal(version.state, AdapterVersionState.ROLLED_BACK):
        raise StateConflict(
            f"version {version.id} cannot be rolled back",
            got=f"state {version.state}: {version.reason}",
            expected="the version in force",
        )
    move(session, row, RolloutState.ROLLED_BACK, reason, now)
    _lead_past(session, row)
    told = f"rollout {row.id} rolled back: {reason}"
    move(session, version, AdapterVersionState.ROLLED_BACK, told, now)
    former = lock_version(session, row.former)
    if former.state is AdapterVersionState.SUPERSEDED:
        move(session, former, AdapterVersionState.ROLLED_OUT, told, now)
    end_asking(session, row, "rollout rolled back", now)


def _lead_past(session: Session, row: RolloutRow) -> None:
    """Have rollouts that would bring back the version of this one bring back the one before it."""
    to_it = RolloutRow.population == row.population, RolloutRow.former == row.version
    session.execute(
        update(RolloutRow).where(*to_it, RolloutRow.version != row.former).values(former=row.former)
    )


def end_asking(session: Session, row: RolloutRow, reason: str, now: datetime) -> None:
    """Take back offers that no device has taken; losses are kept no longer."""
    row.asks, row.ended_at = False, now
    offered = select(RolloutDeviceRow).where(
        RolloutDeviceRow.rollout_id == row.id, RolloutDeviceRow.state == RolloutDeviceState.OFFERED
    )
    # Locked: of a device that starts meanwhile the row is no offer any more once its lock is had.
    for device in session.scalars(offered.with_for_update(key_share=True)).all():
        move(session, device, RolloutDeviceState.ABORTED, reason, now)
    session.execute(
        update(RolloutDeviceRow)
        .where(RolloutDeviceRow.rollout_id == row.id, RolloutDeviceRow.new_loss.is_not(None))
        .values(new_loss=None, former_loss=None)
    )


def lock_version(session: Session, version: str) -> AdapterVersionRow:
    """An adapter version whose state only this transaction changes."""
    return session.get_one(AdapterVersionRow, version, with_for_update={"key_share": True})


def _expect(row: RolloutRow, state: RolloutState) -> None:
    """Start and resume lead to one state, but not from one."""
    if row.state is not state:
        raise StateConflict(
            f"rollout {row.id} cannot do this now",
            got=f"state {row.state}: {row.reason}",
            expected=f"state {state}",
        )


_VERBS: Final[dict[RolloutVerb, Callable[[Session, RolloutRow, datetime], None]]] = {
    "start": _start,
    "pause": _pause,
    "resume": _resume,
    "stop": _stop,
    "roll-back": _roll_back,
}


def change_rollout(service: Service, rollout_id: str, verb: RolloutVerb) -> None:
    """Start, pause, resume, stop or roll back a rollout.

    Raises:
        NotFound: no such rollout.
        StateConflict: its state, its version's or another rollout does not allow the verb.
    """
    now = service.clock()
    with service.database.write() as session:
        _VERBS[verb](session, lock_rollout(session, rollout_id), now)
