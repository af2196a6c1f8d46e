"""The tables of an example store, made and opened under a key."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from typing import Final

from edge_sdk.database_file import DatabaseFile
from edge_sdk.examples.keys import KEY_BYTES, SALT_BYTES, StoreKeys
from edge_sdk.examples.rows import rewrap
from hetlora.errors import SettingsError, StoreKeyWrong, UnavailableError

SCHEMA_VERSION: Final = 1

_TABLES: Final = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    # Rows of one size, written over in place and never removed: no copy of a key is left in a page's slack,
    # as SQLite leaves of rows that it moves from page to page.
    "CREATE TABLE row_keys (slot INTEGER PRIMARY KEY, wrapped BLOB NOT NULL)",
    "CREATE TABLE free_slots (slot INTEGER PRIMARY KEY)",
    """
    CREATE TABLE examples (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        slot INTEGER NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        name BLOB UNIQUE,
        expires_at REAL,
        size_bytes INTEGER NOT NULL,
        summary BLOB NOT NULL,
        content BLOB NOT NULL
    )
    """,
    "CREATE INDEX examples_by_expiry ON examples (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX examples_by_size ON examples (size_bytes)",
    """
    CREATE TABLE tokens (
        example_id INTEGER NOT NULL,
        encoding BLOB NOT NULL,
        size_bytes INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY (example_id, encoding)
    )
    """,
    "CREATE INDEX tokens_by_size ON tokens (size_bytes)",
)


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """The keys that a store is under now, and what shows that it is still under them."""

    keys: StoreKeys
    proof: bytes


def open_store(file: DatabaseFile, key: bytes | None, previous_key: bytes | None) -> OpenedStore:
    """Make the tables where none are, and come to their keys; with a `key` they are under it from now on.

    Raises:
        SettingsError: tables of another version, or of something else.
        StoreKeyWrong: neither key is the one that the store is under.
        DiskFull: no room to make it or to take the key; it is as it was.
    """
    with file.writing() as database:
        if _is_empty(database, file):
            opened = _made(database, key)
        else:
            opened = _opened(database, file, key, previous_key)
    write_anew(file)  # where it cannot be done now, that keeps no store from being opened
    return opened


def write_anew(file: DatabaseFile) -> bool:
    """Leave no byte of what the file held in clear, where that is still to be done.

    False if others read on, or there is no room for a second copy: the mark stays, and the next call makes up
    for it.
    """
    try:
        with file.reading() as database:
            if fact(database, "rebuild") is None:
                return True
        file.rebuild()
        with file.writing() as database:
            database.execute("DELETE FROM facts WHERE name = 'rebuild'")
    except UnavailableError:
        return False
    return True


def fact(database: sqlite3.Connection, name: str) -> bytes | None:
    """One of the few values of which a store has one each."""
    row = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def set_fact(database: sqlite3.Connection, name: str, value: bytes) -> None:
    """Set such a value."""
    database.execute(
        "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def rekeyed(database: sqlite3.Connection, keys: StoreKeys, root: bytes) -> OpenedStore:
    """Put the store under another root, in the transaction under way: what is sealed stays as it is."""
    salt = fact(database, "salt")
    assert salt is not None
    new = StoreKeys(root, salt)
    rewrap(database, keys, new)
    proof = new.proof()
    set_fact(database, "proof", proof)
    if fact(database, "root") is not None:  # it lay in the file in clear
        database.execute("DELETE FROM facts WHERE name = 'root'")
        set_fact(database, "rebuild", b"")
    return OpenedStore(new, proof)


def _is_empty(database: sqlite3.Connection, file: DatabaseFile) -> bool:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return False
    columns = [row[1] for row in database.execute("PRAGMA table_info(examples)")]
    if version != 0 or columns:
        raise SettingsError(
            "the example store cannot be opened",
            got=f"version {version} with columns {columns} ({file.path})",
            expected=f"a store of version {SCHEMA_VERSION}",
        )
    return True


def _made(database: sqlite3.Connection, key: bytes | None) -> OpenedStore:
    for table in _TABLES:
        database.execute(table)
    root, salt = key or os.urandom(KEY_BYTES), os.urandom(SALT_BYTES)
    keys = StoreKeys(root, salt)
    proof = keys.proof()
    set_fact(database, "salt", salt)
    set_fact(database, "proof", proof)
    if key is None:
        set_fact(database, "root", root)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return OpenedStore(keys, proof)


def _opened(
    database: sqlite3.Connection, file: DatabaseFile, key: bytes | None, previous_key: bytes | None
) -> OpenedStore:
    salt, proof, root = (fact(database, name) for name in ("salt", "proof", "root"))
    if salt is None or proof is None:
        raise SettingsError("the example store cannot be opened", got=f"no key of its own ({file.path})")
    tried = [found for found in (root, key, previous_key) if found is not None]
    fitting = next((found for found in tried if StoreKeys(found, salt).fits(proof)), None)
    if fitting is None:
        raise StoreKeyWrong(
            "the example store is encrypted",
            got=f"{'another key' if tried else 'no key'} ({file.path})",
            expected="the key that it was encrypted with",
        )
    keys = StoreKeys(fitting, salt)
    if key is None or fitting == key:
        return OpenedStore(keys, proof)
    return rekeyed(database, keys, key)
