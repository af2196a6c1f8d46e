"""Keys of operators: made, told of, revoked."""

from __future__ import annotations

import hmac
import logging

from sqlalchemy.orm import Session

from aggregator_service.operators.idempotency import IdempotencyKey, begin
from aggregator_service.operators.operators import token_of
from aggregator_service.service import Service
from aggregator_service.storage.identifiers import new_id
from aggregator_service.storage.operator_tables import OperatorKeyRow
from hetlora.digest import sha256_of
from hetlora.errors import NotFound, StateConflict
from hetlora.messages.operators import KeyCreate, KeyCreated, KeyStatus

log = logging.getLogger(__name__)


def create_key(service: Service, message: KeyCreate, asked: IdempotencyKey | None = None) -> KeyCreated:
    """Make a key, whose token is in the answer and nowhere else.

    Raises:
        IdempotencyKeyReused: see `idempotency.begin`.
        StateConflict: a repetition by an operator whose own token is another one by now.
    """
    now = service.clock()
    with service.database.write() as session:
        attempt = begin(session, asked, message, now)
        secret_sha256 = sha256_of(attempt.secret.encode())
        if attempt.made is None:
            key = OperatorKeyRow(
                id=new_id(now),
                name=message.name,
                role=message.role,
                secret_sha256=secret_sha256,
                created_at=now,
            )
            session.add(key)
            attempt.note(key.id)
            log.info("operator_key=%s name=%s role=%s created", key.id, key.name, key.role)
        else:
            key = session.get_one(OperatorKeyRow, attempt.made)
        if not hmac.compare_digest(key.secret_sha256, secret_sha256):
            raise StateConflict(
                "this key was made with an operator token that is in force no more",
                got=key.id,
                expected="a new idempotency key",
            )
        return KeyCreated(key=key_status(session, key), token=token_of(key.id, attempt.secret))


def revoke_key(service: Service, key_id: str) -> KeyStatus:
    """Make a key open nothing from now on; again changes nothing.

    Raises:
        NotFound: no such key.
    """
    with service.database.write() as session:
        key = session.get(OperatorKeyRow, key_id, with_for_update=True)
        if key is None:
            raise NotFound("no such operator key", got=key_id)
        if key.revoked_at is None:
            key.revoked_at = service.clock()
            log.info("operator_key=%s revoked", key.id)
        return key_status(session, key)


def key_status(session: Session, row: OperatorKeyRow) -> KeyStatus:
    return KeyStatus(
        key_id=row.id,
        name=row.name,
        role=row.role,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
