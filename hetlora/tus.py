"""Uploads in parts as tus 1.0 has them (tus.io/protocols/resumable-upload): the forms of its headers."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from hetlora.errors import MalformedMessage

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,expiration,checksum,termination"
PART_TYPE: Final = "application/offset+octet-stream"
# sha1 as tus wants it of every server: it does against damage, and against forgery there is the signature.
CHECKSUM_BYTES: Final = {"sha256": 32, "sha1": 20}
# Each part is a row and an object: a million of them would cost more than what they carry.
MOST_PARTS: Final = 1000
_PAIR: Final = re.compile(r"(?P<name>[a-z0-9]{1,16}) (?P<value>[A-Za-z0-9+/]{0,128}={0,2})")


def smallest_part_bytes(length_bytes: int) -> int:
    """What each part of an upload of this length has at least, the last one excepted."""
    return -(-length_bytes // MOST_PARTS)


def sha256_pair(sha256: str) -> str:
    """`sha256 BASE64`: the value of `Upload-Checksum` for a part, of `Upload-Metadata` for the whole."""
    return f"sha256 {base64.b64encode(bytes.fromhex(sha256)).decode()}"


def parse_checksum(header: str) -> tuple[str, str]:
    """The algorithm of an `Upload-Checksum`, and the digest in hexadecimal.

    Raises:
        MalformedMessage: another form, or an algorithm that is not of `CHECKSUM_BYTES`.
    """
    return _parse("Upload-Checksum", header, CHECKSUM_BYTES)


def parse_metadata(header: str) -> str:
    """The SHA-256, in hexadecimal, that an `Upload-Metadata` promises of the whole upload.

    Raises:
        MalformedMessage: another form, or keys other than sha256.
    """
    return _parse("Upload-Metadata", header, {"sha256": 32})[1]


def _parse(name: str, header: str, sizes: dict[str, int]) -> tuple[str, str]:
    found = _PAIR.fullmatch(header)
    try:
        value = base64.b64decode(found["value"], validate=True) if found else b""
    except binascii.Error:
        value = b""
    if not found or len(value) != sizes.get(found["name"]):
        expected = " or ".join(f"{key} BASE64 of {size} bytes" for key, size in sizes.items())
        raise MalformedMessage(f"{name} header", got=header, expected=expected)
    return found["name"], value.hex()
