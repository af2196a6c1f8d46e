"""Populations and their enrolment tokens, as operators make and replace them."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta

from aggregator_service.operators.idempotency import IdempotencyKey, begin
from aggregator_service.service import Service
from aggregator_service.storage.tables import PopulationRow
from hetlora.digest import sha256_of
from hetlora.errors import NotFound, StateConflict
from hetlora.messages.fleet import PopulationCreate, PopulationCreated, TokenRotation


def create_population(
    service: Service, message: PopulationCreate, asked: IdempotencyKey | None = None
) -> PopulationCreated:
    """Make a population and the token that admits devices to it.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        StateConflict: the name is taken; its token cannot be shown again.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now)
        row = session.get(PopulationRow, message.name)
        if row is None:
            row = PopulationRow(name=message.name, admission=message.admission, created_at=now)
            _replace_token(row, attempt.secret, message.token_valid_seconds, now)
            session.add(row)
            attempt.note(message.name)
        # The repetition of the request that made it comes to the same token; nobody else does.
        elif not _is_token(row, attempt.secret):
            raise StateConflict("population exists already", got=message.name, expected="a new name")
    return PopulationCreated(
        name=row.name, enrolment_token=attempt.secret, token_expires_at=row.token_expires_at
    )


def rotate_token(
    service: Service, name: str, message: TokenRotation, asked: IdempotencyKey | None = None
) -> PopulationCreated:
    """Replace a population's token; the one so far admits nobody from now on, and devices that are in stay.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        NotFound: no such population.
        StateConflict: a repetition, whose token was replaced since, or was made under another operator token.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now, about=name)
        row = session.get(PopulationRow, name, with_for_update=True)
        if row is None:
            raise NotFound("no such population", got=name)
        if attempt.made is None:
            _replace_token(row, attempt.secret, message.token_valid_seconds, now)
            attempt.note(name)
        elif not _is_token(row, attempt.secret):
            raise StateConflict(
                "the token of this request is in force no more, or was made with another operator token",
                got=name,
                expected="a new idempotency key, for a new token",
            )
    return PopulationCreated(name=name, enrolment_token=attempt.secret, token_expires_at=row.token_expires_at)


def _is_token(row: PopulationRow, token: str) -> bool:
    return hmac.compare_digest(row.enrolment_token_sha256, sha256_of(token.encode()))


def _replace_token(row: PopulationRow, token: str, valid_seconds: float | None, now: datetime) -> None:
    row.enrolment_token_sha256 = sha256_of(token.encode())
    row.token_expires_at = None if valid_seconds is None else now + timedelta(seconds=valid_seconds)
