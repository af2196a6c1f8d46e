"""Devices that take another key: the id stays, and the key so far opens nothing any more."""

from __future__ import annotations

import base64

from sqlalchemy import select

from aggregator_service.devices.identity import SignedRequest, is_signed, require_accepted, verify
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.tables import ReplacedKeyRow
from hetlora.errors import AuthenticationFailed, StateConflict
from hetlora.messages.device import DeviceStatus, KeyRotation
from hetlora.signature import rotation_base


def rotate_key(
    service: Service, device_id: str, message: KeyRotation, request: SignedRequest
) -> DeviceStatus:
    """Replace a device's key; under the new key the same request answers the same.

    Raises:
        AuthenticationFailed: the new key did not sign the proof, or another request replaced the key that
            signed this one.
        NotPermitted: the device is no longer accepted.
        StateConflict: the device had the new key before.
    """
    now = service.clock()
    proof = base64.b64decode(message.proof)
    if not is_signed(proof, rotation_base(device_id, message.public_key), message.public_key):
        raise AuthenticationFailed("proof is not by the new key", expected="its signature over id and key")
    with service.database.write() as session:
        device = lock_device(session, device_id)
        # Again, now that nobody else can change it: of two requests under one key one comes too late.
        require_accepted(device.state, device.reason)
        verify(request, device.public_key, now)
        if device.public_key != message.public_key:
            had = select(ReplacedKeyRow.id).where(
                ReplacedKeyRow.device_id == device_id, ReplacedKeyRow.public_key == message.public_key
            )
            if session.scalar(had) is not None:
                raise StateConflict("the device had this key before", expected="a new key")
            session.add(ReplacedKeyRow(device_id=device_id, public_key=device.public_key, replaced_at=now))
            device.public_key = message.public_key
        return DeviceStatus(device_id=device_id, state=device.state)
