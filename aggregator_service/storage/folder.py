"""Blobs as files of this machine.

Bytes go to a temporary file that is synced and then renamed, and so are the folders that hold the new name.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from aggregator_service.storage.blobs import CHUNK_BYTES, Blobs
from aggregator_service.storage.incoming import IncomingBlob
from hetlora.digest import verify_digest
from hetlora.errors import NotFound, UnavailableError


@dataclass(frozen=True)
class BlobFolder(Blobs):
    """Blobs below `root`; `incoming` lies on the same file system."""

    root: Path

    def path(self, sha256: str) -> Path:
        """Where the blob of this digest lies, if it is there."""
        return self.root / sha256[:2] / sha256

    def size_bytes(self, sha256: str) -> int | None:
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def chunks(self, sha256: str, first: int = 0, stop: int | None = None) -> Generator[bytes, None, None]:
        file = self._file(sha256)

        def pieces() -> Generator[bytes, None, None]:
            with file:
                yield b""  # asked for below: from then on whoever drops the rest closes the file
                file.seek(first)
                left = None if stop is None else stop - first
                while piece := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
                    left = None if left is None else left - len(piece)
                    yield piece

        found = pieces()
        next(found)
        return found

    @contextmanager
    def opened(self, sha256: str) -> Iterator[BufferedReader]:
        with self._file(sha256) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            verify_digest(f"stored object {sha256}", got=digest, expected=sha256)
            file.seek(0)
            yield file

    def _file(self, sha256: str) -> BufferedReader:
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFound("no such object", got=sha256) from error

    def load(self, sha256: str) -> bytes:
        try:
            return self.path(sha256).read_bytes()
        except FileNotFoundError as error:
            raise NotFound("no such object", got=sha256) from error

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def drop(self) -> None:
        """Delete all blobs, and the folder.

        Raises:
            OSError: one cannot be deleted.
        """
        for folder, _, names in os.walk(self.root, topdown=False, onerror=_unless_absent):
            for name in names:
                Path(folder, name).unlink(missing_ok=True)
            try:
                os.rmdir(folder)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):  # another was at it, or one came in
                    raise

    def _store(self, blob: IncomingBlob) -> None:
        target = self.path(blob.sha256)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            blob.path.replace(target)
            for folder in (target.parent, self.root, self.root.parent):
                _sync_folder(folder)
        except FileNotFoundError as error:  # by whoever found that it is needed no more
            raise UnavailableError(
                "a folder was dropped as bytes for it came in", got=self.root.name
            ) from error


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _sync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
