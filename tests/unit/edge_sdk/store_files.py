"""What lies in the files of an example store, byte by byte, as whoever takes the device would read them."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The store of the first release, in its own words.
FIRST_SCHEMA = """
CREATE TABLE IF NOT EXISTS examples (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT UNIQUE,
    text TEXT NOT NULL,
    label TEXT NOT NULL
)
"""


def bytes_in(folder: Path) -> bytes:
    """All files below a folder, one after the other."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def wrapped_keys(path: Path) -> dict[int, bytes]:
    """The key of each row, by row number, as it stands in the file: whoever has none of it reads no row."""
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id, wrapped FROM examples JOIN row_keys USING (slot)").fetchall()
    database.close()
    return dict(rows)


def write_first_release(path: Path, rows: list[tuple[str | None, str, str]], *, removed: int = 0) -> None:
    """A store as the first release wrote it: rows of (key, text, label), of which the first few were removed.

    Without secure_delete, which some builds of SQLite have on by themselves.
    """
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA secure_delete = OFF")
    database.execute(FIRST_SCHEMA)
    database.executemany("INSERT INTO examples (key, text, label) VALUES (?, ?, ?)", rows)
    database.execute("DELETE FROM examples WHERE id <= ?", (removed,))
    database.commit()
    database.close()


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond this size: the system refuses what would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
