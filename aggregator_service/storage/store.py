"""The store of objects: folders of blobs, on this machine or in a bucket."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.bucket import BlobBucket, folders_of
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.incoming import receive
from hetlora.digest import sha256_of
from hetlora.errors import UnavailableError

# A disk that is full to all that the service does may still take a few, and this is little beside an update.
PROBE_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Store:
    """Folders below `data_dir`, or below the bucket at `url`; `incoming` is on this machine either way."""

    data_dir: Path
    url: str | None = None

    @property
    def incoming(self) -> Path:
        """Temporary files of this machine's processes."""
        return self.data_dir / "incoming"

    def check(self) -> None:
        """Find out whether the store can be used now; this machine's part by writing a few bytes.

        Raises:
            UnavailableError: it cannot.
        """
        if self.url is not None:
            self.blobs("objects").size_bytes(sha256_of(b""))
        elif not os.access(self.data_dir / "objects", os.W_OK):
            raise UnavailableError("object store cannot be written", got=self.data_dir / "objects")
        try:
            with receive(self.incoming) as blob:
                blob.write(bytes(PROBE_BYTES))
        except OSError as error:
            raise UnavailableError(
                "object store cannot be written", got=f"{self.incoming}: {error.strerror}"
            ) from error

    def drop_abandoned(self, seconds: float) -> None:
        """Delete temporary files that nobody has written to for so long: their processes died."""
        oldest = time.time() - seconds
        for path in self.incoming.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink()
            except FileNotFoundError:  # done by another process, or by the one that it belonged to
                continue

    def blobs(self, folder: str) -> Blobs:
        """The blobs of a folder, whose name may have slashes."""
        if self.url is None:
            return BlobFolder(self.incoming, self.data_dir / folder)
        return BlobBucket(self.incoming, self.url, folder)

    def folders(self, parent: str) -> set[str]:
        """The names of the folders in `parent` that have blobs."""
        if self.url is not None:
            return folders_of(self.url, parent)
        return {path.name for path in (self.data_dir / parent).iterdir()}
