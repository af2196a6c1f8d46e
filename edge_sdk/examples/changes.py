"""What one transaction does to an example store, within its bounds."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, replace

from edge_sdk.examples.keys import StoreKeys
from edge_sdk.examples.kinds import AnyExample
from edge_sdk.examples.rows import put_row, remove_rows
from hetlora.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a store keeps, and for how long what does not say so itself."""

    max_examples: int
    max_bytes: int
    max_token_bytes: int
    keep_seconds: float | None

    def __post_init__(self) -> None:
        least = {"max_examples": 1, "max_bytes": 1, "max_token_bytes": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SettingsError(name, got=getattr(self, name), expected=f"{bound} or more")
        check_seconds(self.keep_seconds)


class Changes:
    """Changes to the rows of one store: what has expired goes first, and bounds hold after each example.

    `removed` tells whether there are bytes to overwrite after the transaction.
    """

    def __init__(self, database: sqlite3.Connection, keys: StoreKeys, bounds: Bounds, now: float) -> None:
        self._database, self._keys, self._bounds, self._now = database, keys, bounds, now
        self.expired = remove_rows(database, "expires_at <= ?", (now,))
        self.removed = self.expired > 0
        self._count, self._size_bytes = database.execute(
            "SELECT count(*), coalesce(sum(size_bytes), 0) FROM examples"
        ).fetchone()

    def put(self, example: AnyExample, keep_seconds: float | None = None) -> None:
        """Add an example, or replace the one of its key; where there is no room, the oldest others go.

        Raises:
            DataError: it takes more than the whole store may.
        """
        example = self._kept(example, keep_seconds)
        if example.expires_at is not None and example.expires_at <= self._now:
            if example.key is not None:  # it replaces what is there, and is gone already
                self.delete(example.key)
            return
        before = 0 if example.key is None else self._size_of(example.key)
        row_id, size_bytes = put_row(self._database, self._keys, example)
        if size_bytes > self._bounds.max_bytes:
            raise DataError(
                "an example is larger than its store",
                got=size_bytes,
                expected=f"up to {self._bounds.max_bytes} bytes",
            )
        self._count += before == 0
        self._size_bytes += size_bytes - before
        self.removed = self.removed or before > 0
        self._make_room(row_id)

    def holds(self, key: str) -> bool:
        """Whether there is an example of this key."""
        return self._size_of(key) > 0

    def delete(self, key: str) -> bool:
        """Remove the example of this key; False if there is none."""
        self._size_bytes -= self._size_of(key)
        count = remove_rows(self._database, "name = ?", (self._keys.name_of(key),))
        self._count -= count
        self.removed = self.removed or count > 0
        return count > 0

    def clear(self) -> None:
        """Remove all examples."""
        self.removed = remove_rows(self._database, "TRUE") > 0 or self.removed
        self._count = self._size_bytes = 0

    def _kept(self, example: AnyExample, keep_seconds: float | None) -> AnyExample:
        seconds = self._bounds.keep_seconds if keep_seconds is None else keep_seconds
        if seconds is None or (example.expires_at is not None and keep_seconds is None):
            return example
        return replace(example, expires_at=self._now + seconds)

    def _size_of(self, key: str) -> int:
        """The bytes of the example of a key; 0 if there is none."""
        found = self._database.execute(
            "SELECT size_bytes FROM examples WHERE name = ?", (self._keys.name_of(key),)
        ).fetchone()
        return 0 if found is None else int(found[0])

    def _make_room(self, put_id: int) -> None:
        while self._count > self._bounds.max_examples or self._size_bytes > self._bounds.max_bytes:
            row_id, size_bytes = self._database.execute(
                "SELECT id, size_bytes FROM examples WHERE id <> ? ORDER BY id LIMIT 1", (put_id,)
            ).fetchone()
            remove_rows(self._database, "id = ?", (row_id,))
            self._count -= 1
            self._size_bytes -= size_bytes
            self.removed = True


def check_seconds(keep_seconds: float | None) -> None:
    """Raise a SettingsError unless this is a time to keep examples for, or None."""
    if keep_seconds is not None and not (math.isfinite(keep_seconds) and keep_seconds > 0):
        raise SettingsError("keep_seconds", got=keep_seconds, expected="seconds above 0, or None")
