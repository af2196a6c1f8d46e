"""Messages of `/management/v1` about operators: their keys, and the record of what they did."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from hetlora.messages.common import Count, Identifier, Integer, Message, Name, Timestamp


class OperatorRole(StrEnum):
    """What a key may do; each role may do all that the ones before it may."""

    VIEWER = "viewer"  # look at everything but keys and the audit log
    OPERATOR = "operator"  # bundles, runs, devices
    ADMIN = "admin"  # keys, the audit log, populations with their enrolment tokens

    def covers(self, needed: OperatorRole) -> bool:
        """Whether this role may do what `needed` may."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER: Final = tuple(OperatorRole)


class KeyCreate(Message):
    """A new key for an operator; the name says whose it is, and several keys may have one."""

    name: Name
    role: OperatorRole


class KeyStatus(Message):
    """A key as the service knows it, which is without its secret."""

    key_id: Identifier
    name: Name
    role: OperatorRole
    created_at: Timestamp
    last_used_at: Timestamp | None  # to the hour
    revoked_at: Timestamp | None


class KeyHolder(Message):
    """Whose key a request brought, and what it may do."""

    key_id: Identifier
    name: Name
    role: OperatorRole


class KeyCreated(Message):
    """The token to bring (`Authorization: Bearer TOKEN`) is shown this once; the service keeps its hash."""

    key: KeyStatus
    token: str


class AuditEntry(Message):
    """One write that an operator asked for, or the service's own removal of old entries."""

    entry_id: Count
    at: Timestamp
    key_id: Identifier  # `bootstrap`: the first token's; `service`: no operator's
    key_name: Name
    action: str  # method and template of the path
    subject: str  # what the path or the answer names
    status: Integer | None  # of the answer; None: the process ended before there was one
    request_id: str
    source: str | None  # the address that it came from
