"""The Ed25519 key that a service signs its registry's entries with: a private file."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hetlora.errors import SettingsError
from hetlora.private_files import check_private


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a key's PEM file.

    Raises:
        SettingsError: it is missing, open to other users, encrypted, or holds no Ed25519 key.
    """
    try:
        check_private(path, "the signing key")
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SettingsError(
            "the signing key cannot be read", got=f"{path}: {error.strerror}", expected="a PEM file"
        ) from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsError(
            "the signing key cannot be used", got=path, expected="an Ed25519 key as PEM, not encrypted"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            "the signing key is of another kind", got=type(key).__name__, expected="an Ed25519 key"
        )
    return key


def write_new_signing_key(path: Path) -> Ed25519PrivateKey:
    """Make a key and write it for its owner's eyes alone, whole or not at all, in the place of none.

    Raises:
        OSError: it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(descriptor)
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    return key
