"""Devices that take another key: the id stays, and the key so far opens nothing any more."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.devices.identity import SignedRequest, is_signed, require_accepted, verify
from aggregator_service.service import Service
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.tables import ReplacedKeyRow
from hetlora.errors import AuthenticationFailed, StateConflict, TooManyRequests
from hetlora.messages.device import DeviceStatus, KeyRotation
from hetlora.signature import rotation_base

# Each key stays known for ever, as none may come back.
MOST_A_DAY: Final = 10
DAY: Final = timedelta(days=1)


def rotate_key(
    service: Service, device_id: str, message: KeyRotation, request: SignedRequest
) -> DeviceStatus:
    """Replace a device's key; under the new key the same request answers the same.

    Raises:
        AuthenticationFailed: the new key did not sign the proof, or another request replaced the key that
            signed this one.
        NotPermitted: the device is no longer accepted.
        StateConflict: the device had the new key before.
        TooManyRequests: it took `MOST_A_DAY` keys within a day.
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
            _check_pace(session, device_id, now)
            session.add(ReplacedKeyRow(device_id=device_id, public_key=device.public_key, replaced_at=now))
            device.public_key = message.public_key
        return DeviceStatus(device_id=device_id, state=device.state)


def _check_pace(session: Session, device_id: str, now: datetime) -> None:
    replaced_at = (
        select(ReplacedKeyRow.replaced_at)
        .where(ReplacedKeyRow.device_id == device_id, ReplacedKeyRow.replaced_at > now - DAY)
        .order_by(ReplacedKeyRow.replaced_at.desc())
        .offset(MOST_A_DAY - 1)
        .limit(1)
    )
    first = session.scalar(replaced_at)
    if first is not None:
        raise TooManyRequests(
            "too many keys in a day",
            got=f"more than {MOST_A_DAY}",
            expected="the key that the device has",
            retry_after_seconds=(first + DAY - now).total_seconds(),
        )
