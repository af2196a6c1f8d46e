"""Aliases: names within a population that point at one of its adapter versions, moved with a reason.

Writes of one population follow one another, and the last one wins; each is a row of the history.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aggregator_service.operators.idempotency import IdempotencyKey, begin
from aggregator_service.operators.operators import Operator
from aggregator_service.registry.versions import get_version, population_of
from aggregator_service.service import Service
from aggregator_service.storage.registry_tables import AliasChangeRow, AliasRow
from aggregator_service.storage.tables import PopulationRow
from hetlora.errors import NotFound, StateConflict
from hetlora.messages.registry import AliasChange, AliasRemoval, AliasSet, AliasStatus

MAX_ALIASES: Final = 100  # of a population, as each is listed with the version that it points at


def set_alias(
    service: Service,
    population: str,
    alias: str,
    message: AliasSet,
    operator: Operator,
    asked: IdempotencyKey | None = None,
) -> AliasChange:
    """Point an alias at a version, and note from where it was moved.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        NotFound: no such population or version.
        StateConflict: the version is another population's, or there are aliases enough.
    """
    with service.database.write() as session:
        attempt = begin(session, asked, message, service.clock(), about=f"{population} {alias}")
        if attempt.made is not None:
            return alias_change(session, session.get_one(AliasChangeRow, int(attempt.made)))
        row = _locked(session, population, alias)
        own = population_of(session, get_version(session, message.version))
        if own != population:
            raise StateConflict(
                "the adapter version belongs to another population",
                got=f"{message.version} of {own}",
                expected=f"a version of {population}",
            )
        old = None if row is None else row.version
        if row is None:
            _check_room(session, population)
            row = AliasRow(population=population, alias=alias)
        change = _noted(service, session, (population, alias), (old, message.version), message, operator)
        row.version, row.reason, row.at = message.version, message.reason, change.at
        row.key_id, row.key_name = operator.key_id, operator.name
        session.add(row)
        attempt.note(str(change.id))
        return alias_change(session, change)


def remove_alias(
    service: Service,
    population: str,
    alias: str,
    message: AliasRemoval,
    operator: Operator,
    asked: IdempotencyKey | None = None,
) -> AliasChange:
    """Take an alias away; its history stays.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        NotFound: no such population, or no such alias in it.
    """
    with service.database.write() as session:
        attempt = begin(session, asked, message, service.clock(), about=f"{population} {alias}")
        if attempt.made is not None:
            return alias_change(session, session.get_one(AliasChangeRow, int(attempt.made)))
        row = _locked(session, population, alias)
        if row is None:
            raise _no_alias(population, alias)
        change = _noted(service, session, (population, alias), (row.version, None), message, operator)
        session.delete(row)
        attempt.note(str(change.id))
        return alias_change(session, change)


def get_alias(session: Session, population: str, alias: str) -> AliasRow:
    """Where an alias points.

    Raises:
        NotFound: no such population, or no such alias in it.
    """
    check_population(session, population)
    row = session.get(AliasRow, (population, alias))
    if row is None:
        raise _no_alias(population, alias)
    return row


def check_population(session: Session, population: str) -> None:
    """Raise NotFound unless there is such a population."""
    if session.get(PopulationRow, population) is None:
        raise NotFound("no such population", got=population)


def _no_alias(population: str, alias: str) -> NotFound:
    return NotFound("the population has no such alias", got=f"{population}@{alias}")


def _locked(session: Session, population: str, alias: str) -> AliasRow | None:
    """An alias that only this transaction moves: where there is none yet, no row of its own can be locked."""
    if session.get(PopulationRow, population, with_for_update=True) is None:
        raise NotFound("no such population", got=population)
    return session.get(AliasRow, (population, alias))


def _check_room(session: Session, population: str) -> None:
    there = session.scalar(select(func.count()).where(AliasRow.population == population)) or 0
    if there >= MAX_ALIASES:
        raise StateConflict(
            "the population has aliases enough", got=f"{there} of them", expected=f"up to {MAX_ALIASES}"
        )


def _noted(
    service: Service,
    session: Session,
    of: tuple[str, str],
    moved: tuple[str | None, str | None],
    message: AliasSet | AliasRemoval,
    operator: Operator,
) -> AliasChangeRow:
    change = AliasChangeRow(
        population=of[0],
        alias=of[1],
        old=moved[0],
        new=moved[1],
        reason=message.reason,
        key_id=operator.key_id,
        key_name=operator.name,
        at=service.clock(),
    )
    session.add(change)
    session.flush()
    return change


def alias_status(session: Session, row: AliasRow) -> AliasStatus:
    return AliasStatus(
        population=row.population,
        alias=row.alias,
        version=row.version,
        reason=row.reason,
        key_id=row.key_id,
        key_name=row.key_name,
        at=row.at,
    )


def alias_change(session: Session, row: AliasChangeRow) -> AliasChange:
    return AliasChange(
        change_id=row.id,
        population=row.population,
        alias=row.alias,
        old=row.old,
        new=row.new,
        reason=row.reason,
        key_id=row.key_id,
        key_name=row.key_name,
        at=row.at,
    )
