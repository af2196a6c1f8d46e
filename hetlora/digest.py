"""SHA-256 digests, the names of everything stored or sent."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

from pydantic import Field

from hetlora.errors import DigestMismatch

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def sha256_of(data: bytes) -> str:
    """The digest of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The digest of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_digest(what: str, *, got: str, expected: str) -> None:
    """Raise DigestMismatch unless the digests agree."""
    if got != expected:
        raise DigestMismatch(
            f"{what} does not match its digest", got=f"sha256 {got}", expected=f"sha256 {expected}"
        )
