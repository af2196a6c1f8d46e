"""A registry entry that a service has signed, as a DSSE envelope (Dead Simple Signing Envelope, version 1).

The envelope carries the very bytes that were signed, so that nobody has to write them again to check them.
Whoever checks one needs the service's public key from elsewhere, and this file's bytes to be signed.
"""

from __future__ import annotations

import base64
import json
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from hetlora.digest import sha256_of
from hetlora.errors import MalformedMessage, faults_in_words
from hetlora.messages.common import Identifier, Message
from hetlora.messages.registry import RegistryEntry

PAYLOAD_TYPE: Final = "application/vnd.hetlora.registry-entry.v1+json"
MAX_SIGNED_BYTES: Final = 1024 * 1024
MANIFEST_NAME: Final = "registry-manifest.json"  # beside an adapter that was exported
_SIGNATURE: Final = r"^[A-Za-z0-9+/]{86}==$"


class ManifestSignature(Message):
    """An Ed25519 signature; `keyid` is the SHA-256 of the 32 bytes of the public key."""

    keyid: Identifier
    sig: Annotated[str, Field(pattern=_SIGNATURE)]


class SignedManifest(Message):
    """The envelope; its names are DSSE's own."""

    model_config = ConfigDict(populate_by_name=True)

    payload_type: Literal["application/vnd.hetlora.registry-entry.v1+json"] = Field(
        default=PAYLOAD_TYPE, alias="payloadType"
    )
    payload: str = Field(max_length=MAX_SIGNED_BYTES)  # the entry as canonical JSON, in base64
    signatures: tuple[ManifestSignature, ...] = Field(min_length=1, max_length=8)

    @model_validator(mode="after")
    def _holds_base64(self) -> Self:
        try:
            base64.b64decode(self.payload, validate=True)
        except ValueError as error:
            raise ValueError("payload is no base64") from error
        return self

    @property
    def signed_bytes(self) -> bytes:
        """What the signatures are over: DSSE's pre-authentication encoding."""
        return pre_authentication(self.payload_type, self._body)

    @property
    def _body(self) -> bytes:
        return base64.b64decode(self.payload)

    def entry(self) -> RegistryEntry:
        """What is signed; to be believed once a signature is.

        Raises:
            MalformedMessage: no entry that this hetlora knows.
        """
        try:
            return RegistryEntry.model_validate_json(self._body)
        except ValidationError as error:
            raise MalformedMessage(
                "the signed entry does not fit its schema",
                got=faults_in_words([{**fault} for fault in error.errors()]),
                expected="an entry of this hetlora, or of an older one",
            ) from error


def canonical_json(entry: RegistryEntry) -> bytes:
    """The bytes of an entry that are signed, the same each time: keys in order, no blanks, UTF-8."""
    plain = entry.model_dump(mode="json")
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def pre_authentication(payload_type: str, body: bytes) -> bytes:
    """DSSE's PAE: each text with its length before it, so that none can pass for part of the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def envelope(body: bytes, public_key: bytes, signature: bytes) -> SignedManifest:
    """Bytes of `canonical_json`, and the signature that a key has made over `pre_authentication` of them."""
    signed = ManifestSignature(keyid=sha256_of(public_key), sig=base64.b64encode(signature).decode())
    return SignedManifest(payload=base64.b64encode(body).decode(), signatures=(signed,))


def manifest_bytes(manifest: SignedManifest) -> bytes:
    """The file of an envelope."""
    return (manifest.model_dump_json(by_alias=True, indent=2) + "\n").encode()


def parse_signed_manifest(data: bytes) -> SignedManifest:
    """Read the file of an envelope; nothing in it is trusted.

    Raises:
        MalformedMessage: too large, not JSON, or no envelope of a registry entry.
    """
    if len(data) > 2 * MAX_SIGNED_BYTES:
        raise MalformedMessage(
            "the signed manifest is too large", got=len(data), expected=f"up to {2 * MAX_SIGNED_BYTES} bytes"
        )
    try:
        return SignedManifest.model_validate_json(data)
    except ValidationError as error:
        raise MalformedMessage(
            "the file is no signed manifest",
            got=faults_in_words([{**fault} for fault in error.errors()]),
            expected="what `hetlora adapter download` writes",
        ) from error
