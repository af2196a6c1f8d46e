"""The rows of an example store: sealed, opened, removed, and wrapped anew, each inside a transaction."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edge_sdk.examples.encoding import content_of, example_of, kind_of, label_and_key, summary_of
from edge_sdk.examples.keys import KEY_BYTES, WRAPPED_BYTES, StoreKeys, seal, unseal
from edge_sdk.examples.kinds import AnyExample

READ_ROWS: Final = 500  # below SQLite's oldest limit of 999 parameters in a statement

ALIVE: Final = "(expires_at IS NULL OR expires_at > ?)"

_ADD: Final = """
INSERT INTO examples (kind, expires_at, size_bytes, summary, content, name, slot, id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_REPLACE: Final = """
UPDATE examples SET kind = ?, expires_at = ?, size_bytes = ?, summary = ?, content = ? WHERE id = ?
"""


@dataclass(frozen=True, slots=True)
class StoredExample:
    """An example as it is stored now: whoever replaces it gives its row another `wrapped` key."""

    id: int
    wrapped: bytes
    example: AnyExample


def put_row(database: sqlite3.Connection, keys: StoreKeys, example: AnyExample) -> tuple[int, int]:
    """Seal an example into a row, that of its key if there is one; returns its number and the bytes it takes.

    A row that is written again gets another key, and loses the tokens of what it held.
    """
    name = None if example.key is None else keys.name_of(example.key)
    found = database.execute("SELECT id, slot FROM examples WHERE name = ?", (name,)).fetchone()
    own_id, slot = found or (_next_id(database), _free_slot(database))
    row_key, kind = os.urandom(KEY_BYTES), kind_of(example)
    summary = seal(row_key, summary_of(example), f"{own_id}|{kind}|summary")
    content = seal(row_key, content_of(example), f"{own_id}|{kind}|content")
    size_bytes = len(summary) + len(content)
    database.execute("UPDATE row_keys SET wrapped = ? WHERE slot = ?", (keys.wrap(row_key, slot), slot))
    database.execute("DELETE FROM tokens WHERE example_id = ?", (own_id,))
    row = (kind, example.expires_at, size_bytes, summary, content)
    if found:
        database.execute(_REPLACE, (*row, own_id))
    else:
        database.execute(_ADD, (*row, name, slot, own_id))
    return own_id, size_bytes


def remove_rows(database: sqlite3.Connection, condition: str, parameters: Sequence[object] = ()) -> int:
    """Remove rows and, with their keys, whatever else is left of them; returns how many there were."""
    found = database.execute(f"SELECT id, slot FROM examples WHERE {condition}", parameters).fetchall()
    ids, slots = [(row_id,) for row_id, _ in found], [(slot,) for _, slot in found]
    database.executemany(f"UPDATE row_keys SET wrapped = zeroblob({WRAPPED_BYTES}) WHERE slot = ?", slots)
    database.executemany("INSERT INTO free_slots VALUES (?)", slots)
    database.executemany("DELETE FROM tokens WHERE example_id = ?", ids)
    database.executemany("DELETE FROM examples WHERE id = ?", ids)
    return len(found)


def read_rows(
    database: sqlite3.Connection, keys: StoreKeys, ids: Sequence[int], now: float
) -> Iterator[StoredExample]:
    """The examples of these rows, in no order; those that expired are as good as removed."""
    for start in range(0, len(ids), READ_ROWS):
        some = [int(row_id) for row_id in ids[start : start + READ_ROWS]]
        marks = ",".join("?" * len(some))
        rows = database.execute(
            "SELECT id, slot, wrapped, kind, expires_at, summary, content FROM examples"
            f" JOIN row_keys USING (slot) WHERE id IN ({marks}) AND {ALIVE}",
            (*some, now),
        )
        for row_id, slot, wrapped, kind, expires_at, summary, content in rows:
            row_key = keys.unwrap(wrapped, slot)
            example = example_of(
                kind,
                unseal(row_key, content, f"{row_id}|{kind}|content"),
                unseal(row_key, summary, f"{row_id}|{kind}|summary"),
                expires_at,
            )
            yield StoredExample(row_id, wrapped, example)


def read_labels(database: sqlite3.Connection, keys: StoreKeys, now: float) -> Iterator[str]:
    """The label of each example that has one; what they are learned from is not read."""
    rows = database.execute(
        f"SELECT id, slot, wrapped, kind, summary FROM examples JOIN row_keys USING (slot) WHERE {ALIVE}",
        (now,),
    )
    for row_id, slot, wrapped, kind, summary in rows:
        plain = unseal(keys.unwrap(wrapped, slot), summary, f"{row_id}|{kind}|summary")
        label, _ = label_and_key(plain)
        if label is not None:
            yield label


def rewrap(database: sqlite3.Connection, old: StoreKeys, new: StoreKeys) -> None:
    """Wrap the key of each row anew, and look its name up by another hash; what it seals stays as it is."""
    last = -1
    while rows := database.execute(
        "SELECT id, slot, wrapped, kind, name, summary FROM examples JOIN row_keys USING (slot)"
        " WHERE id > ? ORDER BY id LIMIT ?",
        (last, READ_ROWS),
    ).fetchall():
        for row_id, slot, wrapped, kind, name, summary in rows:
            row_key = old.unwrap(wrapped, slot)
            database.execute(
                "UPDATE row_keys SET wrapped = ? WHERE slot = ?", (new.wrap(row_key, slot), slot)
            )
            _, key = label_and_key(unseal(row_key, summary, f"{row_id}|{kind}|summary"))
            if name is not None and key is not None:
                database.execute("UPDATE examples SET name = ? WHERE id = ?", (new.name_of(key), row_id))
        last = rows[-1][0]


def _next_id(database: sqlite3.Connection) -> int:
    """A row's number is sealed with it, so that it has to be known before."""
    (last,) = database.execute(
        "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'examples'), 0)"
    ).fetchone()
    return int(last) + 1


def _free_slot(database: sqlite3.Connection) -> int:
    found = database.execute("SELECT slot FROM free_slots LIMIT 1").fetchone()
    if found is not None:
        database.execute("DELETE FROM free_slots WHERE slot = ?", found)
        return int(found[0])
    made = database.execute(f"INSERT INTO row_keys (wrapped) VALUES (zeroblob({WRAPPED_BYTES}))")
    assert made.lastrowid is not None
    return made.lastrowid
