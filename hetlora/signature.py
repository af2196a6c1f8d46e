"""HTTP message signatures of devices: RFC 9421 with Ed25519, over a fixed set of components.

Every device request carries `Content-Digest` (RFC 9530), `Signature-Input` and `Signature`. What is signed is
the method, the path with its query, and the digest of the body; the parameters hold the time, a nonce and the
device id. This file makes and reads the bytes; signing and checking keys is done where the keys are.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from hetlora.digest import sha256_of
from hetlora.errors import AuthenticationFailed, MalformedMessage

LABEL: Final = "hetlora"
DEVICE_ID_CHARACTERS: Final = 32
MAX_CLOCK_SKEW_SECONDS: Final = 300
PRIME: Final = 2**255 - 19  # of Ed25519's field
_ORDER_8: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
# The y of Ed25519's points of order 1, 2, 4 and 8; the sign of x makes eight points of them.
SMALL_ORDER: Final = frozenset({1, PRIME - 1, 0, _ORDER_8, PRIME - _ORDER_8})
_COMPONENTS: Final = '("@method" "@path" "@query" "content-digest")'
_PRINTABLE: Final = re.compile(r"[ -~]*")
_INPUT: Final = re.compile(
    re.escape(f"{LABEL}={_COMPONENTS}")
    + r';created=(?P<created>0|[1-9][0-9]{0,11});nonce="(?P<nonce>[A-Za-z0-9_-]{16,64})"'
    + r';keyid="(?P<key_id>[A-Za-z0-9_-]{1,64})";alg="ed25519"'
)
_DIGEST: Final = re.compile(r"sha-256=:(?P<value>[A-Za-z0-9+/]{43}=):")  # 32 bytes in base64
_SIGNATURE: Final = re.compile(rf"{LABEL}=:(?P<value>[A-Za-z0-9+/]{{86}}==):")  # 64 bytes in base64


@dataclass(frozen=True, slots=True)
class SignatureParameters:
    """Who signed (`key_id` is the device id), when (Unix seconds), and a nonce never used twice."""

    created: int
    nonce: str
    key_id: str

    def header(self) -> str:
        """The value of `Signature-Input`."""
        return f"{LABEL}={self.value()}"

    def value(self) -> str:
        """The value of the `@signature-params` component."""
        return (
            f'{_COMPONENTS};created={self.created};nonce="{self.nonce}";keyid="{self.key_id}";alg="ed25519"'
        )


def device_id_of(public_key: bytes) -> str:
    """The id of a device whose first Ed25519 key this is: half of its SHA-256, in hexadecimal.

    The id stays when the device takes another key.
    """
    return sha256_of(public_key)[:DEVICE_ID_CHARACTERS]


def is_of_small_order(public_key: bytes) -> bool:
    """Whether an Ed25519 key is one that anybody can sign for (Chalkias et al., ePrint 2020/1244, table 1).

    Encodings that are not canonical, with the sign of a zero or a y above the prime, are known too.
    """
    return int.from_bytes(public_key, "little") % 2**255 % PRIME in SMALL_ORDER


def rotation_base(device_id: str, public_key: str) -> bytes:
    """What a device's new key signs to show that the device holds it.

    `public_key` is the new one in base64. The signature by the key so far covers it with the request's body.
    """
    return f"hetlora-rotate-key\n{device_id}\n{public_key}".encode()


def content_digest(sha256_hex: str) -> str:
    """The value of `Content-Digest` for a body of this SHA-256."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256_hex)).decode()}:"


def parse_content_digest(header: str) -> str:
    """The SHA-256 in hexadecimal that a `Content-Digest` promises.

    Raises:
        MalformedMessage: another form than one sha-256 value.
    """
    found = _DIGEST.fullmatch(header)
    if found is None:
        raise MalformedMessage("Content-Digest header", got=header, expected="sha-256=:BASE64:")
    return base64.b64decode(found["value"]).hex()


def signature_base(
    parameters: SignatureParameters, *, method: str, path: str, query: str, body_sha256: str
) -> bytes:
    """The bytes that are signed (RFC 9421, section 2.5).

    `path` is percent-encoded, as it stands in the request line; `query` likewise, without its question mark.

    Raises:
        AuthenticationFailed: a part with a line break would let one signature stand for two requests.
    """
    if not _INPUT.fullmatch(parameters.header()) or not _PRINTABLE.fullmatch(method + path + query):
        raise AuthenticationFailed(
            "request cannot be signed",
            got=f"{method} {path}?{query} with {parameters.value()}",
            expected="printable ASCII, a nonce of 16 to 64 and a key id of 1 to 64 letters, digits, _ or -",
        )
    return "\n".join(
        (
            f'"@method": {method.upper()}',
            f'"@path": {path}',
            f'"@query": ?{query}',
            f'"content-digest": {content_digest(body_sha256)}',
            f'"@signature-params": {parameters.value()}',
        )
    ).encode()


def signature_header(signature: bytes) -> str:
    """The value of `Signature`."""
    return f"{LABEL}=:{base64.b64encode(signature).decode()}:"


def parse_signature(signature_input: str | None, signature: str | None) -> tuple[SignatureParameters, bytes]:
    """Read the two signature headers.

    Raises:
        AuthenticationFailed: a header is missing or has another form than this profile writes.
    """
    found = _INPUT.fullmatch(signature_input or "")
    raw = _SIGNATURE.fullmatch(signature or "")
    if not found or not raw:
        raise AuthenticationFailed(
            "request carries no signature of the expected form",
            got=f"Signature-Input {'malformed' if signature_input else 'absent'}"
            if not found
            else f"Signature {'malformed' if signature else 'absent'}",
            expected="RFC 9421 headers labelled hetlora, Ed25519",
        )
    parameters = SignatureParameters(int(found["created"]), found["nonce"], found["key_id"])
    return parameters, base64.b64decode(raw["value"])
