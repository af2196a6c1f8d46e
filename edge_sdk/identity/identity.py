"""A device's Ed25519 key, kept in one file, and the device id that follows from its first key."""

from __future__ import annotations

import base64
import os
import stat
from dataclasses import dataclass
from pathlib import Path

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


def load_or_create_identity(path: Path, first_id: str | None = None) -> Identity:
    """Read the key file, or make a new key in it (PKCS#8 PEM, readable by its owner alone).

    Args:
        first_id: see `Identity`.

    Raises:
        SettingsError: the file holds no Ed25519 key, cannot be read, or is open to other users.
    """
    try:
        _create(path)
    except FileExistsError:
        pass  # the usual case: the device has had its key since its first start
    except OSError as error:
        raise SettingsError(f"key file {path} cannot be written", got=error.strerror) from error
    return Identity(_load(path), first_id)


def _create(path: Path) -> None:
    if path.exists():
        raise FileExistsError(path)
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # Written aside and linked into place, so that two starting processes agree on one whole key.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _load(path: Path) -> Ed25519PrivateKey:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise SettingsError(
                f"key file {path} is open to other users", got=f"mode {mode:04o}", expected="mode 0600"
            )
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(f"key file {path} cannot be read", got=error.strerror) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path} is no key file", expected="an Ed25519 key in PKCS#8 PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            f"{path} holds another kind of key", got=type(key).__name__, expected="an Ed25519 key"
        )
    return key
