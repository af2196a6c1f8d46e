"""A device's Ed25519 key, and the device id that follows from its first key."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hetlora.errors import SettingsError
from hetlora.signature import device_id_of


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device is: whoever holds `key` is the device.

    `first_id` is the id that followed from the device's first key, where `key` is a later one.
    """

    key: Ed25519PrivateKey
    first_id: str | None = None

    @property
    def public_key(self) -> str:
        """The 32 public key bytes in base64, as `EnrolRequest` carries them."""
        return base64.b64encode(self.key.public_key().public_bytes_raw()).decode()

    @property
    def device_id(self) -> str:
        """The device's name at the service: see `hetlora.signature.device_id_of`."""
        return self.first_id or device_id_of(self.key.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) of `data`."""
        return self.key.sign(data)


def new_identity(first_id: str | None = None) -> Identity:
    """A device with a new key; of a device that had one before, `first_id` is its id."""
    return Identity(Ed25519PrivateKey.generate(), first_id)


def key_to_pem(key: Ed25519PrivateKey) -> bytes:
    """A key as PKCS#8 PEM, in clear."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_of_pem(pem: bytes, place: str) -> Ed25519PrivateKey:
    """A key that was kept; `place` is where, for errors.

    Raises:
        SettingsError: no key, or one of another kind.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{place} holds no key", expected="an Ed25519 key in PKCS#8 PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"{place} holds another kind of key", got=type(key).__name__, expected="an Ed25519 key"
        )
    return key
