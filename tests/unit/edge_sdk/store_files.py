"""What lies in the files of an example store, byte by byte, as whoever takes the device would read them."""

from __future__ import annotations

import resource
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def bytes_in(folder: Path) -> bytes:
    """All files below a folder, one after the other."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def wrapped_keys(path: Path) -> dict[int, bytes]:
    """The key of each row, by row number, as it stands in the file: whoever has none of it reads no row."""
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id, wrapped FROM examples JOIN row_keys USING (slot)").fetchall()
    database.close()
    return dict(rows)


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
