"""Tokens made of the examples of a store: sealed with the key of the example, and gone with it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from edge_sdk.examples.keys import StoreKeys, seal, unseal
from edge_sdk.examples.rows import ALIVE, READ_ROWS, StoredExample, read_rows
from edge_sdk.examples.store_file import StoreFile
from hetlora.errors import StoreDamaged

logger = logging.getLogger(__name__)


class TokenCache:
    """What batches keep beside the examples of a store, in its file.

    Args:
        max_bytes: what tokens may take; 0 has them made for each batch.
        clock: Unix seconds, by which examples expire.
    """

    def __init__(self, file: StoreFile, max_bytes: int, clock: Callable[[], float]) -> None:
        self._file, self._max_bytes, self._clock = file, max_bytes, clock

    def examples(self, ids: Sequence[int]) -> list[StoredExample]:
        """The examples of these row numbers, in no order, each with what a later version differs by."""
        with self._file.reading() as database:
            return list(read_rows(database, self._file.keys(database), ids, self._clock()))

    def get(self, ids: Sequence[int], encoding: bytes) -> dict[int, bytes]:
        """What was kept for these row numbers under this encoding, as far as it was, and is whole."""
        with self._file.reading() as database:
            return _read(database, self._file.keys(database), ids, encoding, self._clock())

    def put(self, made: Mapping[int, tuple[StoredExample, bytes]], encoding: bytes) -> None:
        """Keep tokens made of examples, within the bound, and as long as these stay what they are."""
        if self._max_bytes > 0 and made:
            with self._file.writing() as database:
                keys = self._file.keys(database)
                _write(database, keys, made, encoding, max_bytes=self._max_bytes)


def _read(
    database: sqlite3.Connection, keys: StoreKeys, ids: Sequence[int], encoding: bytes, now: float
) -> dict[int, bytes]:
    found = {}
    for start in range(0, len(ids), READ_ROWS):
        some = [int(row_id) for row_id in ids[start : start + READ_ROWS]]
        marks = ",".join("?" * len(some))
        rows = database.execute(
            "SELECT id, slot, wrapped, sealed FROM examples JOIN row_keys USING (slot)"
            f" JOIN tokens ON example_id = id WHERE id IN ({marks}) AND encoding = ? AND {ALIVE}",
            (*some, encoding, now),
        )
        for row_id, slot, wrapped, sealed in rows:
            try:
                found[row_id] = unseal(keys.unwrap(wrapped, slot), sealed, _context(row_id, encoding))
            except StoreDamaged:  # they can be made again, which tells whether the example is whole
                logger.warning("example_id=%d event=tokens_damaged", row_id)
    return found


def _write(
    database: sqlite3.Connection,
    keys: StoreKeys,
    made: Mapping[int, tuple[StoredExample, bytes]],
    encoding: bytes,
    *,
    max_bytes: int,
) -> None:
    """Keep tokens of the examples that are still what they were made of, as far as there is room.

    Where there is none, those of other encodings go. What is left out then is not put in the place of others:
    an epoch comes by all of them in turn, so that each would be gone before it is asked for.
    """
    for row_id, (stored, tokens) in made.items():
        slot = database.execute(
            "SELECT slot FROM examples JOIN row_keys USING (slot) WHERE id = ? AND wrapped = ?",
            (row_id, stored.wrapped),
        ).fetchone()
        if slot is None:  # removed or replaced meanwhile
            continue
        sealed = seal(keys.unwrap(stored.wrapped, slot[0]), tokens, _context(row_id, encoding))
        if _size_bytes(database) + len(sealed) > max_bytes:
            database.execute("DELETE FROM tokens WHERE encoding <> ?", (encoding,))
            if _size_bytes(database) + len(sealed) > max_bytes:
                return
        database.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?)", (row_id, encoding, len(sealed), sealed)
        )


def _size_bytes(database: sqlite3.Connection) -> int:
    (size_bytes,) = database.execute("SELECT coalesce(sum(size_bytes), 0) FROM tokens").fetchone()
    return int(size_bytes)


def _context(row_id: int, encoding: bytes) -> str:
    return f"{row_id}|tokens|{encoding.hex()}"
