"""A device takes another key, so that it has one of the two in force whenever it is killed.

The new key lies beside the one so far before the service hears of it, and takes its place when the service
has said yes. Where that answer got lost, the key so far is refused, and the new one asks for the same.
"""

from __future__ import annotations

import base64
import logging
import os
import re

from edge_sdk.folder import DeviceFolder, sync_folder
from edge_sdk.identity.identity import Identity, load_or_create_identity
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from hetlora.errors import AuthenticationFailed, RefusedError, ReplayedRequest, SettingsError
from hetlora.messages.device import KeyRotation
from hetlora.signature import rotation_base

logger = logging.getLogger(__name__)


def identity_in(folder: DeviceFolder) -> Identity:
    """Who the device of a folder is; a folder without a key gets one.

    Raises:
        SettingsError: a file that holds no key, or no id.
    """
    return load_or_create_identity(folder.key_file, _first_id(folder))


def is_rotating(folder: DeviceFolder) -> bool:
    """Whether a rotation was begun of which the end is not known."""
    return folder.next_key_file.exists()


def rotate_key(transport: Transport, folder: DeviceFolder) -> None:
    """Make a new key, or go on with one that a rotation was begun with, and have it in force.

    Raises:
        RefusedError: the service does not take it; the key so far stays.
        ServiceUnreachable, ServiceFailed, TooManyRequests, ReplayedRequest: it is not known which key is in
            force; the next call finds out.
    """
    old = transport.identity
    _keep_first_id(folder, old.device_id)
    new = load_or_create_identity(folder.next_key_file, old.device_id)
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
    except ReplayedRequest:  # what came first may have been taken
        raise
    except RefusedError:  # the key so far was looked at first, and is in force
        folder.next_key_file.unlink()
        raise
    os.replace(folder.next_key_file, folder.key_file)
    sync_folder(folder.root)
    transport.identity = new
    logger.info("device=%s event=key_rotated", new.device_id)


def _first_id(folder: DeviceFolder) -> str | None:
    try:
        text = folder.device_id_file.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingsError(f"{folder.device_id_file} cannot be read", got=error.strerror) from error
    if not re.fullmatch("[0-9a-f]{32}", text):
        raise SettingsError(f"{folder.device_id_file} holds no device id", got=text)
    return text


def _keep_first_id(folder: DeviceFolder, device_id: str) -> None:
    if folder.device_id_file.exists():
        return
    aside = folder.device_id_file.with_suffix(".part")
    with aside.open("w") as file:
        file.write(device_id + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, folder.device_id_file)
    sync_folder(folder.root)
