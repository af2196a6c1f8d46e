"""The keys of one example store, and what is sealed with them.

Each row has a key of its own, under which all that is stored of an example is sealed with AES-256-GCM, and
which is wrapped by a key that follows from the store's root. The root lies in the file or, where the store is
encrypted, with the app. To remove a row for good is to overwrite the 60 bytes of its wrapped key.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hetlora.errors import SettingsError, StoreDamaged

# What an app gives: 32 random bytes, or what asks its keystore for them.
StoreKey = bytes | Callable[[], bytes]

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
WRAPPED_BYTES: Final = _NONCE_BYTES + KEY_BYTES + _TAG_BYTES
# Lengths would tell labels apart, and short texts.
_BLOCK_BYTES: Final = 64
_PROOF: Final = b"hetlora example store"


def resolved(key: StoreKey | None) -> bytes | None:
    """The bytes of a key, of a keystore that is asked now.

    Raises:
        SettingsError: not 32 bytes.
    """
    if key is None:
        return None
    found = key() if callable(key) else key
    if not (isinstance(found, bytes) and len(found) == KEY_BYTES):
        raise SettingsError(
            "key of an example store",
            got=f"{len(found)} bytes" if isinstance(found, bytes) else type(found).__name__,
            expected=f"{KEY_BYTES} random bytes",
        )
    return found


def seal(key: bytes, plain: bytes, context: str) -> bytes:
    """`plain`, filled up to blocks of 64 bytes, under AES-256-GCM: nonce, ciphertext, tag.

    `context` is authenticated beside it: what was sealed for one place opens in no other.
    """
    filled = plain + b"\x80" + b"\0" * (-(len(plain) + 1) % _BLOCK_BYTES)
    return _encrypt(key, filled, context)


def unseal(key: bytes, sealed: bytes, context: str) -> bytes:
    """What `seal` was given.

    Raises:
        StoreDamaged: other bytes, another key or another place.
    """
    filled = _decrypt(key, sealed, context)
    return filled[: filled.rindex(b"\x80")]


class StoreKeys:
    """What follows from the root of a store and its salt: how keys are wrapped, and names hashed."""

    def __init__(self, root: bytes, salt: bytes) -> None:
        self._wrapping = _derived(root, salt, b"hetlora examples: wrap row keys")
        self._naming = _derived(root, salt, b"hetlora examples: hash names")

    def wrap(self, row_key: bytes, slot: int) -> bytes:
        """The key of a row, as its slot keeps it: 60 bytes."""
        return _encrypt(self._wrapping, row_key, f"slot|{slot}")

    def unwrap(self, wrapped: bytes, slot: int) -> bytes:
        """The key of a row.

        Raises:
            StoreDamaged: not what `wrap` made for this slot, under this root.
        """
        return _decrypt(self._wrapping, wrapped, f"slot|{slot}")

    def name_of(self, key: str) -> bytes:
        """What an app's key is looked up by (HMAC-SHA256)."""
        return hmac.digest(self._naming, key.encode(), "sha256")

    def proof(self) -> bytes:
        """What tells this root from others; it differs from call to call."""
        return _encrypt(self._wrapping, _PROOF, "proof")

    def fits(self, proof: bytes) -> bool:
        """Whether a proof was made under this root."""
        try:
            return _decrypt(self._wrapping, proof, "proof") == _PROOF
        except StoreDamaged:
            return False


def _derived(root: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(root)


def _encrypt(key: bytes, plain: bytes, context: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, context.encode())


def _decrypt(key: bytes, sealed: bytes, context: str) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
    except (InvalidTag, ValueError) as error:
        raise StoreDamaged("a part of the example store is not what was written", got=context) from error
