"""Who may ask a fake service: devices, their keys, and the signatures of their requests."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from hetlora.digest import sha256_of, verify_digest
from hetlora.errors import (
    AuthenticationFailed,
    ClockSkew,
    DependencyMissing,
    NotPermitted,
    ReplayedRequest,
    UnknownDevice,
)
from hetlora.messages.device import DeviceStatus, EnrolRequest, KeyRotation
from hetlora.signature import (
    MAX_CLOCK_SKEW_SECONDS,
    device_id_of,
    parse_content_digest,
    parse_signature,
    rotation_base,
    signature_base,
)
from hetlora.states import DeviceState
from hetlora.testing.loopback import Request

RETRY_SECONDS = 30.0


class Door:
    """Devices of one population, all in one state, and the nonces that they used."""

    def __init__(self, enrolment_token: str, clock: Callable[[], float] = time.time) -> None:
        self.enrolment_token = enrolment_token
        self.clock = clock
        self.state = DeviceState.ACCEPTED
        self.keys: dict[str, str] = {}  # the public key in force, by device id
        self._nonces: set[str] = set()

    def identify(self, request: Request) -> str:
        """The id of the accepted device that signed a request; errors are those of every service."""
        device_id = _key_id(request)
        if device_id not in self.keys:
            raise UnknownDevice("no device of this id is enrolled", got=device_id)
        self._check_signature(request, self.keys[device_id])
        if self.state is not DeviceState.ACCEPTED:
            raise NotPermitted("this device may not take part", got=f"state {self.state}")
        return device_id

    def enrol(self, request: Request) -> DeviceStatus:
        """Admit a device by its token."""
        message = EnrolRequest.model_validate_json(request.body)
        self._check_signature(request, message.public_key)
        device_id = _key_id(request)
        if device_id not in self.keys:
            self._check_newcomer(device_id, message)
            self.keys[device_id] = message.public_key
        elif self.keys[device_id] != message.public_key:
            raise AuthenticationFailed("this is not the key of the device")
        return self._status(device_id)

    def _check_newcomer(self, device_id: str, message: EnrolRequest) -> None:
        if message.enrolment_token is None:
            raise UnknownDevice("no device of this id is preauthorized", got=device_id)
        if message.enrolment_token != self.enrolment_token:
            raise AuthenticationFailed("enrolment token does not admit to this population")
        if device_id_of(base64.b64decode(message.public_key)) != device_id:
            raise AuthenticationFailed("enrolment is signed under another id than the key's")

    def rotate_key(self, request: Request) -> DeviceStatus:
        """Have another key in force for the device that signed the request."""
        device_id = self.identify(request)
        message = KeyRotation.model_validate_json(request.body)
        proven = rotation_base(device_id, message.public_key)
        if not _is_signed(base64.b64decode(message.proof), proven, message.public_key):
            raise AuthenticationFailed("proof is not by the new key")
        self.keys[device_id] = message.public_key
        return self._status(device_id)

    def _status(self, device_id: str) -> DeviceStatus:
        waits = 0.0 if self.state is DeviceState.ACCEPTED else RETRY_SECONDS
        return DeviceStatus(device_id=device_id, state=self.state, retry_after_seconds=waits)

    def _check_signature(self, request: Request, public_key: str) -> None:
        parameters, signature = parse_signature(
            request.headers.get("signature-input"), request.headers.get("signature")
        )
        claimed = parse_content_digest(request.headers.get("content-digest", ""))
        base = signature_base(
            parameters, method=request.method, path=request.path, query=request.query, body_sha256=claimed
        )
        if not _is_signed(signature, base, public_key):
            raise AuthenticationFailed("signature does not fit the request and the key")
        verify_digest("body of the request", got=sha256_of(request.body), expected=claimed)
        if abs(self.clock() - parameters.created) > MAX_CLOCK_SKEW_SECONDS:
            raise ClockSkew("signature was made too long ago or in the future")
        if parameters.nonce in self._nonces:
            raise ReplayedRequest("this signed request was seen before", got=f"nonce {parameters.nonce}")
        self._nonces.add(parameters.nonce)


def _key_id(request: Request) -> str:
    headers = request.headers
    return parse_signature(headers.get("signature-input"), headers.get("signature"))[0].key_id


def _is_signed(signature: bytes, data: bytes, public_key: str) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "the fake service cannot check signatures",
            got=f"no module {error.name}",
            expected="pip install 'hetlora[edge]'",
        ) from error
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
