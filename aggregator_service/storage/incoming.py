"""Bytes on their way in: a temporary file of this process, hashed while it is written."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO


@dataclass(slots=True)
class IncomingBlob:
    """A temporary file, kept only by `Blobs.keep`."""

    path: Path
    file: BinaryIO
    size_bytes: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256, init=False, repr=False)

    def write(self, chunk: bytes | memoryview) -> None:
        self.file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def sha256(self) -> str:
        """The digest of what has been written so far."""
        return self._hash.hexdigest()

    def sync(self) -> None:
        """Bring all bytes written so far to the disk."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def reopened(self) -> BufferedReader:
        """All bytes written so far, to be read from the first."""
        self.file.flush()
        return self.path.open("rb")


@contextmanager
def receive(incoming: Path) -> Iterator[IncomingBlob]:
    """A temporary file in the folder `incoming`, removed at the end unless it was kept."""
    path = incoming / secrets.token_hex(16)
    try:
        with path.open("xb") as file:
            yield IncomingBlob(path, file)
    finally:
        path.unlink(missing_ok=True)
