"""Immutable bytes under their SHA-256: what a folder of files and a bucket have in common.

A blob is under its name only whole: a name that exists is never half a blob, whenever a process died.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

from aggregator_service.storage.incoming import IncomingBlob, receive
from hetlora.digest import sha256_of, verify_digest
from hetlora.errors import HetloraError, NotFound, ServiceFailed, UnavailableError
from hetlora.messages.common import ObjectRef

CHUNK_BYTES: Final = 256 * 1024


@contextmanager
def reading_own(what: str) -> Iterator[None]:
    """Around the reading of what the service itself has stored.

    Raises:
        ServiceFailed: it is lost or rotten, which is no fault of whoever asks, and may be mended.
        UnavailableError: the store does not answer now; what it holds may be well.
    """
    try:
        yield
    except UnavailableError:
        raise
    except HetloraError as error:
        raise ServiceFailed(f"{what} of the service cannot be read", got=error) from error


@dataclass(frozen=True)
class Blobs(ABC):
    """A set of blobs; `incoming` holds the temporary files of this machine. Travels to other processes."""

    incoming: Path

    @abstractmethod
    def size_bytes(self, sha256: str) -> int | None:
        """The size of a blob, or None if it is absent."""

    @abstractmethod
    def chunks(self, sha256: str, first: int = 0, stop: int | None = None) -> Generator[bytes, None, None]:
        """The bytes from `first` to before `stop`, unchecked, in pieces of about CHUNK_BYTES.

        Raises:
            NotFound: there is no such blob, told before the first piece is asked for.
        """

    @abstractmethod
    def load(self, sha256: str) -> bytes:
        """All bytes of a blob, unchecked.

        Raises:
            NotFound: there is no such blob.
        """

    @abstractmethod
    def remove(self, sha256: str) -> None:
        """Delete a blob, if it is there."""

    @abstractmethod
    def drop(self) -> None:
        """Delete all blobs."""

    @abstractmethod
    def _store(self, blob: IncomingBlob) -> None:
        """Make synced bytes a blob that survives a crash; an equal one is replaced."""

    def receive(self) -> AbstractContextManager[IncomingBlob]:
        """See `incoming.receive`."""
        return receive(self.incoming)

    def keep(self, blob: IncomingBlob) -> ObjectRef:
        """Make incoming bytes a blob that survives a crash; an equal one is replaced."""
        blob.sync()
        self._store(blob)
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
            DigestMismatch: it was changed where it lies.
        """
        data = self.load(sha256)
        verify_digest(f"stored object {sha256}", got=sha256_of(data), expected=sha256)
        return data

    @contextmanager
    def opened(self, sha256: str) -> Iterator[BufferedReader]:
        """A blob as an open file of this machine, checked against its name and never in memory as a whole.

        Raises:
            NotFound: there is no such blob.
            DigestMismatch: it was changed where it lies.
        """
        with self.receive() as copy:
            for chunk in self.chunks(sha256):
                copy.write(chunk)
            verify_digest(f"stored object {sha256}", got=copy.sha256, expected=sha256)
            with copy.reopened() as file:
                yield file

    def verify(self, what: str, sha256: str) -> None:
        """Hash a blob without loading it.

        Raises:
            NotFound: there is no such blob.
            DigestMismatch: it was changed where it lies.
        """
        if self.size_bytes(sha256) is None:
            raise NotFound(f"{what} was never uploaded", got=sha256)
        digest = hashlib.sha256()
        for chunk in self.chunks(sha256):
            digest.update(chunk)
        verify_digest(what, got=digest.hexdigest(), expected=sha256)
