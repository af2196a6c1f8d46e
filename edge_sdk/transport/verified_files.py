"""Which files of bundles were hashed and found right: to hash a model again at each start takes seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.freshness import is_fresh
from hetlora.errors import UnavailableError

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS verified_files (
    path TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    verified_at REAL NOT NULL
)
"""


class VerifiedFiles:
    """Remembers for a day under which digest files below a folder were verified.

    A file that has another size or time of change since is not known any more. One that rots on the disk
    keeps both, and is found out when the day is over.

    Args:
        folder: what paths are taken from, so that the folder can be moved.
        clock: Unix seconds.
    """

    def __init__(
        self, database: DeviceDatabase, folder: Path, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._folder, self._clock = database, folder, clock
        database.make(_TABLE)

    def holds(self, path: Path, sha256: str) -> bool:
        """Whether the file was verified under this digest, and is what it was."""
        with self._database.reading() as database:
            known = database.execute(
                "SELECT sha256, size_bytes, modified_ns, verified_at FROM verified_files WHERE path = ?",
                (self._name(path),),
            ).fetchone()
        now = path.stat()
        if known is None or known[:3] != (sha256, now.st_size, now.st_mtime_ns):
            return False
        return is_fresh(known[3], self._clock())

    def note(self, path: Path, sha256: str) -> None:
        """The file was verified just now; on a full disk it will be once more."""
        with path.open("rb+") as file:
            os.fsync(file.fileno())  # or a power loss might leave less of it than is said here
        now = path.stat()
        with suppress(UnavailableError), self._database.writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO verified_files VALUES (?, ?, ?, ?, ?)",
                (self._name(path), sha256, now.st_size, now.st_mtime_ns, self._clock()),
            )

    def forget(self, folder: Path) -> None:
        """Nothing is known any more of the files below a folder; on a full disk their rows stay."""
        below = f"{self._name(folder)}/"
        with suppress(UnavailableError), self._database.writing() as database:
            database.execute("DELETE FROM verified_files WHERE substr(path, 1, ?) = ?", (len(below), below))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
