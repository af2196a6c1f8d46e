"""Who sent a device request: Ed25519 signatures, their age, and nonces used once."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from aggregator_service.service import Service
from aggregator_service.storage.tables import DeviceRow, NonceRow
from hetlora.errors import AuthenticationFailed, ClockSkew, NotPermitted, ReplayedRequest, UnknownDevice
from hetlora.signature import MAX_CLOCK_SKEW_SECONDS, SignatureParameters, signature_base
from hetlora.states import DeviceState

log = logging.getLogger(__name__)


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

    Raises:
        UnknownDevice, AuthenticationFailed, ClockSkew, ReplayedRequest: see `hetlora.errors`.
        NotPermitted: the device is known, but not accepted.
    """
    now = service.clock()
    with service.database.write() as session:
        device = session.get(DeviceRow, request.parameters.key_id)
        if device is None:
            raise UnknownDevice("no device of this id is enrolled", got=request.parameters.key_id)
        check_signature(session, request, device.public_key, now)
        if device.state is not DeviceState.ACCEPTED:
            raise NotPermitted(
                "this device may not take part",
                got=f"state {device.state}: {device.reason}",
                expected=f"state {DeviceState.ACCEPTED}",
            )
        device.last_contact_at = now
        return device.id


def check_signature(session: Session, request: SignedRequest, public_key: str, now: datetime) -> None:
    """Check signature, age and nonce of a request, and remember the nonce.

    Raises:
        AuthenticationFailed: the key did not sign this request.
        ClockSkew: the signature is more than MAX_CLOCK_SKEW_SECONDS from now.
        ReplayedRequest: the nonce was used before.
    """
    parameters = request.parameters
    base = signature_base(
        parameters,
        method=request.method,
        path=request.path,
        query=request.query,
        body_sha256=request.body_sha256,
    )
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(request.signature, base)
    except (InvalidSignature, ValueError) as error:
        raise AuthenticationFailed(
            "signature does not fit the request and the key", got=f"keyid {parameters.key_id}"
        ) from error
    age_seconds = now.timestamp() - parameters.created
    if abs(age_seconds) > MAX_CLOCK_SKEW_SECONDS:
        raise ClockSkew(
            "signature was made too long ago or in the future",
            got=f"{age_seconds:.0f} s before the service's time",
            expected=f"within {MAX_CLOCK_SKEW_SECONDS} s",
        )
    # Later than this the age alone refuses the signature.
    expires_at = datetime.fromtimestamp(parameters.created, UTC) + timedelta(seconds=MAX_CLOCK_SKEW_SECONDS)
    seen = NonceRow(device_id=parameters.key_id, nonce=parameters.nonce, expires_at=expires_at)
    try:
        with session.begin_nested():
            session.add(seen)
    except IntegrityError as error:  # the key of its table, which also holds among processes
        raise ReplayedRequest(
            "this signed request was seen before", got=f"nonce {parameters.nonce}", expected="a new nonce"
        ) from error
