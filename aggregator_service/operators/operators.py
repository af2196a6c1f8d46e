"""Who an operator is: the key that each request brings, and the role that goes with it."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import or_, update

from aggregator_service.service import Service
from aggregator_service.storage.operator_tables import OperatorKeyRow
from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, NotPermitted
from hetlora.messages.operators import OperatorRole

BOOTSTRAP: Final = "bootstrap"  # id and name of the key that no table holds: the setting's, or the generated
LAST_USED_STEP: Final = timedelta(hours=1)  # one write an hour, and no record of an operator's day
# The prefix lets whoever scans files and logs for leaked secrets find one, and the id lets them revoke it.
_TOKEN: Final = re.compile(r"hetlora_(?P<key_id>[0-9a-f-]{1,64})_(?P<secret>[A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Operator:
    """Who asks, for as long as one request takes."""

    key_id: str
    name: str
    role: OperatorRole
    token: str = field(repr=False)  # as it was brought

    def must_be(self, needed: OperatorRole) -> None:
        """Raise NotPermitted unless the role covers the one that is needed."""
        if not self.role.covers(needed):
            raise NotPermitted(
                "this operator key may not do this", got=f"role {self.role}", expected=f"role {needed}"
            )


def token_of(key_id: str, secret: str) -> str:
    """What an operator brings: `secret` is 32 random bytes in URL-safe base64, without padding."""
    return f"hetlora_{key_id}_{secret}"


def authenticate(service: Service, token: str) -> Operator:
    """The operator who brings a token.

    Secrets are kept as their SHA-256 and nothing slower: what 256 random bits hash to cannot be guessed, so
    that a password's salt and stretching would cost every request and guard nothing. Hashes are compared in
    constant time, so that an answer's delay tells nothing of them either.

    Raises:
        AuthenticationFailed: no such key, another secret, or a key that was revoked.
    """
    if hmac.compare_digest(sha256_of(token.encode()), service.operator_token_sha256):
        return Operator(key_id=BOOTSTRAP, name=BOOTSTRAP, role=OperatorRole.ADMIN, token=token)
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise _unknown(token)
    with service.database.read() as session:
        key = session.get(OperatorKeyRow, found["key_id"])
    if key is None or not hmac.compare_digest(sha256_of(found["secret"].encode()), key.secret_sha256):
        raise _unknown(token)
    if key.revoked_at is not None:
        raise AuthenticationFailed("this operator key was revoked", got=key.id)
    _note_use(service, key, service.clock())
    return Operator(key_id=key.id, name=key.name, role=key.role, token=token)


def _unknown(token: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        "operator token is missing or wrong",
        got="another token" if token else "no token",
        expected="Authorization: Bearer TOKEN",
    )


def _note_use(service: Service, key: OperatorKeyRow, now: datetime) -> None:
    if key.last_used_at is not None and now - key.last_used_at < LAST_USED_STEP:
        return
    hour = now.replace(minute=0, second=0, microsecond=0)
    older = or_(OperatorKeyRow.last_used_at.is_(None), OperatorKeyRow.last_used_at < hour)
    with service.database.write() as session:
        session.execute(
            update(OperatorKeyRow).where(OperatorKeyRow.id == key.id, older).values(last_used_at=hour)
        )
