"""Who a device is, in its database: its key, the id that followed from the first, and the key to come."""

from __future__ import annotations

import sqlite3
from typing import Final

from edge_sdk.device_database import NAME, DeviceDatabase
from edge_sdk.identity.identity import Identity, key_of_pem, key_to_pem, new_identity

# One row. A key to come is one that may or may not be in force already.
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL,
    next_key BLOB,
    first_id TEXT
)
"""


class IdentityStore:
    """The identity of one device; a device that has none gets one.

    Raises:
        DiskFull, StoreDamaged, UnavailableError: see `DeviceDatabase`; nothing changes.
    """

    def __init__(self, database: DeviceDatabase) -> None:
        self._database = database
        database.make(_TABLE)

    def identity(self) -> Identity:
        """The key that is in force for all that this device knows.

        Raises:
            SettingsError: what is kept is no key.
        """
        with self._database.writing() as database:
            row = _row(database)
            if row is None:
                row = (key_to_pem(new_identity().key), None, None)
                put_identity(database, *row)
        pem, _, first_id = row
        return Identity(key_of_pem(pem, NAME), first_id)

    def has_next(self) -> bool:
        """Whether a rotation was begun of which the end is not known."""
        with self._database.reading() as database:
            row = _row(database)
            return row is not None and row[1] is not None

    def next_identity(self) -> Identity:
        """The key to come: the one that a rotation was begun with, or a new one."""
        own = self.identity()
        with self._database.writing() as database:
            row = _row(database)
            assert row is not None
            pem = row[1] or key_to_pem(new_identity().key)
            put_identity(database, row[0], pem, own.device_id)
        return Identity(key_of_pem(pem, NAME), own.device_id)

    def drop_next(self) -> None:
        """Forget the key to come: the one so far is in force."""
        with self._database.writing() as database:
            database.execute("UPDATE identity SET next_key = NULL")

    def take_next(self) -> None:
        """Put the key to come in the place of the one so far."""
        with self._database.writing() as database:
            database.execute("UPDATE identity SET key = next_key, next_key = NULL")


def _row(database: sqlite3.Connection) -> tuple[bytes, bytes | None, str | None] | None:
    """Key, next key and first id as they are kept."""
    row = database.execute("SELECT key, next_key, first_id FROM identity").fetchone()
    return None if row is None else (row[0], row[1], row[2])


def put_identity(
    database: sqlite3.Connection, key: bytes, next_key: bytes | None, first_id: str | None
) -> None:
    """Keep these in the place of what is kept."""
    database.execute("INSERT OR REPLACE INTO identity VALUES (1, ?, ?, ?)", (key, next_key, first_id))
