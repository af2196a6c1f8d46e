"""Who sent a device request: Ed25519 signatures, their age, and nonces used once."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection, Table, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.devices.request_limits import LATEST_IN_WINDOW, NONCE_KEPT, in_window, refuse_until
from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow, NonceRow
from hetlora.errors import AuthenticationFailed, ClockSkew, NotPermitted, ReplayedRequest, UnknownDevice
from hetlora.signature import MAX_CLOCK_SKEW_SECONDS, SignatureParameters, signature_base
from hetlora.states import DeviceState

# How exactly it is known when a device was last heard of: a write a minute, not one a request.
CONTACT: Final = timedelta(seconds=60)
# Made once, and past the unit of work, which takes longer than the database does: every request asks these.
_DEVICES: Final = cast(Table, DeviceRow.__table__)
_CALLER: Final = select(
    _DEVICES.c.public_key,
    _DEVICES.c.state,
    _DEVICES.c.reason,
    _DEVICES.c.last_contact_at,
    LATEST_IN_WINDOW.scalar_subquery().label("busy_until"),
).where(_DEVICES.c.id == bindparam("caller"))
_KEEP: Final = insert(cast(Table, NonceRow.__table__))
_IN_CONTACT: Final = (
    update(_DEVICES).where(_DEVICES.c.id == bindparam("caller")).values(last_contact_at=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What a signature covers, as it came over the wire; the body is checked against its digest later."""

    parameters: SignatureParameters
    signature: bytes
    method: str
    path: str
    query: str
    body_sha256: str


def identify(service: Service, request: SignedRequest) -> str:
    """The id of the accepted device that signed a request; its nonce is used up.

    The one write of a request that changes nothing else is its nonce, and it is not waited for (ADR 0007).

    Raises:
        UnknownDevice, AuthenticationFailed, ClockSkew, ReplayedRequest: see `hetlora.errors`.
        TooManyRequests: the device made its requests of this minute.
        NotPermitted: the device is known, but not accepted.
    """
    now, device_id = service.clock(), request.parameters.key_id
    most = service.settings.max_requests_per_minute
    caller = next(iter(service.database.ask(_CALLER, in_window(device_id, most, now))), None)
    if caller is None or caller.state is DeviceState.PREAUTHORIZED:
        raise UnknownDevice("no device of this id is enrolled", got=device_id)
    verify(request, caller.public_key, now)
    require_accepted(caller.state, caller.reason)
    refuse_until(caller.busy_until, most, now)
    with service.database.note() as connection:
        use_nonce(connection, device_id, request.parameters.nonce, now)
        note_contact(service, connection, device_id, caller.last_contact_at)
    return device_id


def note_contact(
    service: Service, connection: Connection, device_id: str, last_contact_at: datetime | None
) -> datetime:
    """Keep that a device is in contact, where that is news; answers when it was, as that is kept."""
    now = service.clock()
    contact = min(CONTACT, timedelta(seconds=service.settings.most_retry_seconds / 2))
    if last_contact_at is not None and now - last_contact_at < contact:
        return last_contact_at
    connection.execute(_IN_CONTACT, {"caller": device_id, "at": now})
    return now


def require_accepted(state: DeviceState, reason: str) -> None:
    """Raise NotPermitted unless a device of this state may take part."""
    if state is not DeviceState.ACCEPTED:
        raise NotPermitted(
            "this device may not take part",
            got=f"state {state}: {reason}",
            expected=f"state {DeviceState.ACCEPTED}",
        )


def verify(request: SignedRequest, public_key: str, now: datetime) -> None:
    """Check signature and age of a request.

    Raises:
        AuthenticationFailed: the key did not sign this request.
        ClockSkew: the signature is more than MAX_CLOCK_SKEW_SECONDS from now.
    """
    parameters = request.parameters
    base = signature_base(
        parameters,
        method=request.method,
        path=request.path,
        query=request.query,
        body_sha256=request.body_sha256,
    )
    if not is_signed(request.signature, base, public_key):
        raise AuthenticationFailed(
            "signature does not fit the request and the key", got=f"keyid {parameters.key_id}"
        )
    age_seconds = now.timestamp() - parameters.created
    if abs(age_seconds) > MAX_CLOCK_SKEW_SECONDS:
        raise ClockSkew(
            "signature was made too long ago or in the future",
            got=f"{age_seconds:.0f} s before the service's time",
            expected=f"within {MAX_CLOCK_SKEW_SECONDS} s",
        )


def is_signed(signature: bytes, data: bytes, public_key: str) -> bool:
    """Whether a key, in base64, signed these bytes."""
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def use_nonce(session: Session | Connection, caller: str, nonce: str, now: datetime) -> None:
    """Remember a nonce for as long as a request with it could be acceptable.

    Raises:
        ReplayedRequest: it was used before.
    """
    try:
        session.execute(_KEEP, {"device_id": caller, "nonce": nonce, "expires_at": now + NONCE_KEPT})
    except IntegrityError as error:  # the key of its table, which also holds among processes
        raise ReplayedRequest(
            "this signed request was seen before", got=f"nonce {nonce}", expected="a new nonce"
        ) from error
