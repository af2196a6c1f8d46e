"""The one SQLite file of a device folder: what the device must not lose, and what changes together.

Each part of the SDK keeps its own tables in it, through a small class of its own that makes them where they
are missing. docs/adr/0023-device-database.md says what lies in it, and what beside it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from edge_sdk.database_file import BUSY_SECONDS, DatabaseFile
from hetlora.errors import SettingsError
from hetlora.private_files import check_private

NAME: Final = "the device's database"
SCHEMA_VERSION: Final = 1


class DeviceDatabase(DatabaseFile):
    """`device.sqlite` of one device folder, for all threads of a process and beside other processes.

    What a transaction has written survives a kill and a power loss. What is deleted is overwritten.

    Raises:
        SettingsError: it cannot be opened, is open to other users, or was written by a later version.
        StoreDamaged: it is part of one.
        DiskFull: there is no room to make it.
    """

    def __init__(self, path: Path, *, busy_seconds: float = BUSY_SECONDS) -> None:
        with suppress(OSError):  # it is made, for its owner alone, or cannot be opened
            check_private(path, str(path))  # it holds the device's key
        super().__init__(path, NAME, busy_seconds=busy_seconds, survives_power_loss=True)
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def make(self, *statements: str) -> None:
        """Make tables that are missing: statements of CREATE TABLE IF NOT EXISTS, all in one transaction."""
        with self.writing() as database:
            for statement in statements:
                database.execute(statement)

    def _check_version(self) -> None:
        with self.writing() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise SettingsError(
                    f"{NAME} was written by a later version of hetlora",
                    got=f"version {version} ({self.path})",
                    expected=f"version {SCHEMA_VERSION}, or the hetlora that wrote it",
                )
            if version < SCHEMA_VERSION:
                database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
