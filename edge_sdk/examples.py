"""The example store: labelled text that an app leaves for training; it never leaves the device."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from hetlora.errors import DataError, SettingsError

DEFAULT_MAX_EXAMPLES: Final = 10_000
_READ_ROWS: Final = 500  # below SQLite's oldest limit of 999 parameters in a statement

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS examples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,
    text TEXT NOT NULL,
    label TEXT NOT NULL
)
"""
_PUT: Final = """
INSERT INTO examples (text, label, key) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, label = excluded.label
"""
_DROP_OLDEST: Final = """
DELETE FROM examples WHERE id IN (
    SELECT id FROM examples ORDER BY id LIMIT max(0, (SELECT count(*) FROM examples) - ?)
)
"""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text; `key` is the app's own name for it, if it wants to replace or delete it."""

    text: str
    label: str
    key: str | None = None

    def __post_init__(self) -> None:
        for what, value in (("text", self.text), ("label", self.label)):
            if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
                raise DataError(
                    f"{what} of an example is empty or no text",
                    got=type(value).__name__,
                    expected="a Unicode string with something in it",
                )


def _is_unicode(value: str) -> bool:
    # Lone surrogates live in Python strings, yet neither SQLite nor the tokenizer takes them.
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


class ExampleStore:
    """Examples in one SQLite file, at most `max_examples` of them: the oldest go first.

    Safe to use from several threads and processes: an app may put examples while a client trains.

    Raises:
        SettingsError: the file cannot be opened as a store, or `max_examples` is below 1.
    """

    def __init__(self, path: Path, *, max_examples: int = DEFAULT_MAX_EXAMPLES) -> None:
        if max_examples < 1:
            raise SettingsError("max_examples", got=max_examples, expected="1 or more")
        self._max_examples = max_examples
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            with self._database:
                self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(f"example store {path} cannot be opened", got=error) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def put(self, text: str, label: str, *, key: str | None = None) -> None:
        """Add one example; one with the same key is replaced and keeps its age.

        Raises:
            DataError: text or label is empty.
        """
        self.put_many([Example(text, label, key)])

    def put_many(self, examples: Iterable[Example]) -> None:
        """Add examples in one transaction: all of them or, if one is refused, none."""
        rows = ((example.text, example.label, example.key) for example in examples)
        with self._lock, self._database:
            self._database.executemany(_PUT, rows)
            self._database.execute(_DROP_OLDEST, (self._max_examples,))

    def delete(self, key: str) -> bool:
        """Remove the example of this key; False if there is none."""
        with self._lock, self._database:
            return self._database.execute("DELETE FROM examples WHERE key = ?", (key,)).rowcount > 0

    def clear(self) -> None:
        """Remove all examples."""
        with self._lock, self._database:
            self._database.execute("DELETE FROM examples")

    def count(self) -> int:
        """How many examples there are."""
        return int(self._read("SELECT count(*) FROM examples")[0][0])

    def labels(self) -> dict[str, int]:
        """How many examples each label has, by label."""
        return dict(self._read("SELECT label, count(*) FROM examples GROUP BY label ORDER BY label"))

    def ids(self) -> list[int]:
        """Row numbers for `get`, oldest first."""
        return [row[0] for row in self._read("SELECT id FROM examples ORDER BY id")]

    def get(self, ids: Sequence[int]) -> list[Example]:
        """The examples of these row numbers, in their order; those deleted meanwhile are left out."""
        found: dict[int, Example] = {}
        for start in range(0, len(ids), _READ_ROWS):
            some = [int(row_id) for row_id in ids[start : start + _READ_ROWS]]
            marks = ",".join("?" * len(some))
            rows = self._read(f"SELECT id, text, label, key FROM examples WHERE id IN ({marks})", some)
            found |= {row[0]: Example(*row[1:]) for row in rows}
        return [found[row_id] for row_id in ids if row_id in found]

    def __iter__(self) -> Iterator[Example]:
        ids = self.ids()
        for start in range(0, len(ids), _READ_ROWS):
            yield from self.get(ids[start : start + _READ_ROWS])

    def _read(self, query: str, parameters: Sequence[int] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(query, parameters).fetchall()
