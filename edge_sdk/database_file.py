"""A file that is one SQLite database: its transactions, and what its errors mean."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hetlora.errors import DiskFull, SettingsError, StoreDamaged, UnavailableError

BUSY_SECONDS: Final = 30.0
_PRAGMAS: Final = ("journal_mode = WAL", "secure_delete = ON")
# Also where a limit of the process, and not the disk, refuses to have a file grow.
_NO_ROOM: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE")
# A worn card, a disk that the system has mounted for reading alone, a folder that is gone: it may pass.
_NO_ACCESS: Final = ("SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN")


class DatabaseFile:
    """Opens a database for several threads of this process, beside others that have it open.

    Args:
        path: the file; it is made, with its folder, where it is missing.
        name: what people call it, for errors.
        busy_seconds: how long others that write are waited for.
        survives_power_loss: whether each transaction does, at the cost of a flush of the disk; without, the
            last ones may be lost, and the file stays whole.

    Raises:
        SettingsError: the file cannot be opened, or is no database.
        StoreDamaged: it is part of one.
    """

    def __init__(
        self, path: Path, name: str, *, busy_seconds: float = BUSY_SECONDS, survives_power_loss: bool = False
    ) -> None:
        self.path = path
        self._name = name
        self._lock = threading.RLock()
        self._owes_overwriting = False
        self._is_open = False
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._database = sqlite3.connect(
                path, timeout=busy_seconds, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unopened(error) from error
        synchronous = "FULL" if survives_power_loss else "NORMAL"
        try:
            with self._errors_in_words():
                for pragma in (*_PRAGMAS, f"synchronous = {synchronous}"):
                    self._database.execute(f"PRAGMA {pragma}")
        except BaseException as error:
            self._database.close()
            if isinstance(error, sqlite3.Error):
                raise self._unopened(error) from error
            raise
        self._is_open = True

    def close(self) -> None:
        """Close the file; the last to do so leaves nothing beside it."""
        with self._lock:
            self._database.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the only right to write; an error within undoes all of it.

        Raises:
            DiskFull, StoreDamaged, UnavailableError: see the classes; another process writes on and on, or
                the system refuses to read or write.
        """
        with self._lock, self._errors_in_words():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite may have undone it by itself
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which all that is read is of one moment.

        Raises:
            StoreDamaged: bytes that are no database's.
            UnavailableError: the system refuses to read.
        """
        with self._lock, self._errors_in_words():
            self._database.execute("BEGIN")
            try:
                yield self._database
            finally:
                with suppress(sqlite3.OperationalError):
                    self._database.execute("ROLLBACK")

    def overwrite_removed(self) -> bool:
        """Bring all changes into the file itself and empty the log beside it, which has older bytes.

        False if others read on for as long as is waited for them, or the disk is full; the next call then
        makes up for it.
        """
        with self._lock:
            self._owes_overwriting = True  # whatever keeps it from being done
            with suppress(UnavailableError), self._errors_in_words():
                busy, _, _ = self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                self._owes_overwriting = bool(busy)
            return not self._owes_overwriting

    @property
    def owes_overwriting(self) -> bool:
        """Whether removed bytes are still to be overwritten, as `overwrite_removed` could not do it."""
        return self._owes_overwriting

    def rebuild(self) -> None:
        """Write the database anew, so that no bytes are left of what it held in clear.

        Raises:
            DiskFull: there is no room for a second one; nothing is lost.
            UnavailableError: its log could not be emptied: see `overwrite_removed`.
        """
        # Freed pages are overwritten where they lie before the file becomes shorter.
        with self._lock, self._errors_in_words():
            done = self.overwrite_removed()
            self._database.execute("VACUUM")
            done = self.overwrite_removed() and done
        if not done:
            raise UnavailableError(
                f"{self._name} cannot be written anew",
                got="another process that reads it, or a full disk",
                expected="to have it alone for a moment, and room",
            )

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        # The service is told why work ended: of a `StoreDamaged` no more than `what`, of the others all.
        try:
            yield
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "")
            if name in _NO_ROOM:
                raise DiskFull(f"{self._name} cannot grow", got=error, expected="free disk space") from error
            if name.startswith("SQLITE_CORRUPT"):
                raise StoreDamaged(f"{self._name} is damaged", got=f"{error} ({self.path})") from error
            if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                raise UnavailableError(f"{self._name} is in use", got=error) from error
            if self._is_open and name.startswith(_NO_ACCESS):
                raise UnavailableError(f"{self._name} cannot be read or written", got=name) from error
            raise

    def _unopened(self, error: Exception) -> SettingsError:
        return SettingsError(f"{self._name} cannot be opened", got=f"{error} ({self.path})")
