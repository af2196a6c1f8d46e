"""Requests that make something, asked twice under one `Idempotency-Key`: the second makes nothing new.

What the first one made is noted in the transaction that made it. Secrets that it showed are not stored:
they follow from the operator's token, which only the operator has, and a salt that only the database has
(ADR 0013).
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.operators.operators import Operator
from aggregator_service.storage.operator_tables import RepeatRow
from hetlora.digest import sha256_of
from hetlora.errors import IdempotencyKeyReused
from hetlora.messages.common import Message

KEPT: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """Who asks for something to be made, and under which key they would ask again."""

    operator: Operator
    key: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request to make something, within the transaction that makes it."""

    secret: str = field(repr=False)  # 32 bytes in URL-safe base64; the same each time the request is repeated
    row: RepeatRow | None

    @property
    def made(self) -> str | None:
        """The name of what the first request made; None if this is the first."""
        return None if self.row is None else self.row.subject

    def note(self, subject: str) -> None:
        """Remember what was made."""
        if self.row is not None:
            self.row.subject = subject


def made_before(
    session: Session, asked: IdempotencyKey | None, message: Message, now: datetime
) -> str | None:
    """The name of what an earlier request of the same key made, as far as is known now.

    Raises:
        IdempotencyKeyReused: that one asked for something else.
    """
    row = None if asked is None else session.get(RepeatRow, (asked.operator.key_id, asked.key))
    if row is None or row.expires_at <= now:
        return None
    _check_same(row, _digest(message))
    return row.subject


def begin(
    session: Session, asked: IdempotencyKey | None, message: Message, now: datetime, *, about: str = ""
) -> Attempt:
    """Begin to make what a message asks for; a request with the same key waits until this transaction ends.

    Args:
        about: what the path says that the message does not.

    Raises:
        IdempotencyKeyReused: the key came with another request before.
    """
    if asked is None:
        return Attempt(secrets.token_urlsafe(32), None)
    request_sha256 = _digest(message, about)
    row = _row(session, asked, request_sha256, now)
    _check_same(row, request_sha256)
    # What the message asks for is part of the row; the salt makes the secret this row's alone, and keeps
    # whoever is shown it (a device its enrolment token) from trying guesses of the operator's token on it.
    secret = hmac.digest(
        asked.operator.token.encode(), b"hetlora repeat\0" + bytes.fromhex(row.salt), "sha256"
    )
    return Attempt(base64.urlsafe_b64encode(secret).rstrip(b"=").decode(), row)


def _row(session: Session, asked: IdempotencyKey, request_sha256: str, now: datetime) -> RepeatRow:
    identity = (asked.operator.key_id, asked.key)
    ours = (RepeatRow.key_id == identity[0], RepeatRow.idempotency_key == identity[1])
    session.execute(delete(RepeatRow).where(*ours, RepeatRow.expires_at <= now))
    row = session.get(RepeatRow, identity)
    if row is not None:
        return row
    row = RepeatRow(
        key_id=identity[0],
        idempotency_key=identity[1],
        request_sha256=request_sha256,
        salt=secrets.token_hex(32),
        expires_at=now + KEPT,
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # the same request came to another process, which has answered it meanwhile
        return session.get_one(RepeatRow, identity)
    return row


def _check_same(row: RepeatRow, request_sha256: str) -> None:
    if row.request_sha256 != request_sha256:
        raise IdempotencyKeyReused(
            "this idempotency key came with another request before",
            got=f"Idempotency-Key {row.idempotency_key}",
            expected="a new key for a new request",
        )


def _digest(message: Message, about: str = "") -> str:
    """Over the kind as well: a key stands for one request, whichever path it goes to."""
    return sha256_of(f"{type(message).__name__}\n{message.model_dump_json()}{about}".encode())
