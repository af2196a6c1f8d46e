"""A local folder of immutable files named by their SHA-256.

A file appears under its name only whole and on disk: bytes go to a temporary file that is fsynced and then
renamed. So a name that exists is never half a file, whatever instant the process died at.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from hetlora.digest import sha256_of, sha256_of_file, verify_digest
from hetlora.errors import HetloraError, NotFound, ServiceFailed
from hetlora.messages.common import ObjectRef


@contextmanager
def reading_own(what: str) -> Iterator[None]:
    """Around the reading of what the service itself has stored.

    Raises:
        ServiceFailed: it is lost or rotten, which is no fault of whoever asks, and may be mended.
    """
    try:
        yield
    except HetloraError as error:
        raise ServiceFailed(f"{what} of the service cannot be read", got=error) from error


@dataclass(slots=True)
class IncomingBlob:
    """Bytes on their way in: hashed while written, kept only by `BlobFolder.keep`."""

    path: Path
    file: BinaryIO
    size_bytes: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256, init=False, repr=False)

    def write(self, chunk: bytes) -> None:
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

    def read(self) -> bytes:
        """All bytes written so far."""
        self.file.flush()
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class BlobFolder:
    """Blobs below `root`; `incoming` holds temporary files and lies on the same file system."""

    root: Path
    incoming: Path

    def path(self, sha256: str) -> Path:
        """Where the blob of this digest lies, if it is there."""
        return self.root / sha256[:2] / sha256

    def size_bytes(self, sha256: str) -> int | None:
        """The size of a blob, or None if it is absent."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    @contextmanager
    def receive(self) -> Iterator[IncomingBlob]:
        """A temporary file, removed at the end unless it was kept."""
        path = self.incoming / secrets.token_hex(16)
        try:
            with path.open("xb") as file:
                yield IncomingBlob(path, file)
        finally:
            path.unlink(missing_ok=True)

    def keep(self, blob: IncomingBlob) -> ObjectRef:
        """Make incoming bytes a blob that survives a crash; an equal one is replaced."""
        blob.sync()
        target = self.path(blob.sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.path.replace(target)
        for folder in (target.parent, self.root, self.root.parent):
            _sync_folder(folder)
        return ObjectRef(sha256=blob.sha256, size_bytes=blob.size_bytes)

    def put(self, data: bytes) -> ObjectRef:
        """Store bytes as a blob."""
        with self.receive() as blob:
            blob.write(data)
            return self.keep(blob)

    def read(self, sha256: str) -> bytes:
        """A blob's bytes, checked against its name.

        Raises:
            NotFound: there is no such blob.
            DigestMismatch: the file was changed on disk.
        """
        try:
            data = self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound("no such object", got=sha256) from error
        verify_digest(f"stored object {sha256}", got=sha256_of(data), expected=sha256)
        return data

    def verify(self, what: str, sha256: str) -> None:
        """Hash a blob without loading it.

        Raises:
            NotFound: there is no such blob.
            DigestMismatch: the file was changed on disk.
        """
        if self.size_bytes(sha256) is None:
            raise NotFound(f"{what} was never uploaded", got=sha256)
        verify_digest(what, got=sha256_of_file(self.path(sha256)), expected=sha256)


def _sync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
