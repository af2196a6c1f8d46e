"""A device takes another key, so that it has one of the two in force whenever it is killed.

The new key lies beside the one so far before the service hears of it, and takes its place when the service
has said yes. Where that answer got lost, the key so far is refused, and the new one asks for the same.
"""

from __future__ import annotations

import base64
import logging

from edge_sdk.identity.identity_store import IdentityStore
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from hetlora.errors import AuthenticationFailed, RefusedError
from hetlora.messages.device import KeyRotation
from hetlora.signature import rotation_base

logger = logging.getLogger(__name__)


def rotate_key(transport: Transport, store: IdentityStore) -> None:
    """Make a new key, or go on with one that a rotation was begun with, and have it in force.

    Raises:
        RefusedError: the service does not take it; the key so far stays.
        ServiceAway: it is not known which key is in force; the next call finds out.
    """
    old = transport.identity
    new = store.next_identity()
    proof = new.sign(rotation_base(new.device_id, new.public_key))
    message = KeyRotation(public_key=new.public_key, proof=base64.b64encode(proof).decode())
    service = DeviceService(transport)
    try:
        service.rotate_key(message)
    except AuthenticationFailed:  # the key so far is not in force
        transport.identity = new
        try:
            service.rotate_key(message)
        except BaseException:
            transport.identity = old
            raise
    except RefusedError:  # the key so far was looked at first, and is in force
        store.drop_next()
        raise
    store.take_next()
    transport.identity = new
    logger.info("device=%s event=key_rotated", new.device_id)
