"""The parts of the assignment under way that are bytes: what was received, the checkpoint, the update.

Each is one row, written and read within a transaction of the device's database.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Final, Literal

from hetlora.digest import sha256_of

logger = logging.getLogger(__name__)

Part = Literal["received", "frozen", "checkpoint", "update", "rounding_errors"]

TABLE: Final = """
CREATE TABLE IF NOT EXISTS assignment_parts (
    name TEXT PRIMARY KEY,
    sha256 TEXT NOT NULL,
    data BLOB NOT NULL
)
"""


def put_part(database: sqlite3.Connection, name: Part, data: bytes) -> None:
    """Keep a part in the place of the one of its name."""
    database.execute(
        "INSERT OR REPLACE INTO assignment_parts VALUES (?, ?, ?)", (name, sha256_of(data), data)
    )


def part(database: sqlite3.Connection, name: Part) -> bytes | None:
    """A part as it was kept; None where there is none, or its bytes are others."""
    row = database.execute("SELECT sha256, data FROM assignment_parts WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    sha256, data = row
    if sha256_of(data) != sha256:
        logger.warning("part=%s event=damaged", name)
        return None
    return bytes(data)


def drop_parts(database: sqlite3.Connection, *names: Part) -> None:
    """Remove these parts, or all where none is named."""
    condition = f"name IN ({','.join('?' * len(names))})" if names else "TRUE"
    database.execute(f"DELETE FROM assignment_parts WHERE {condition}", names)


def parts_bytes(database: sqlite3.Connection) -> dict[str, int]:
    """How large each part is that is kept."""
    return dict(database.execute("SELECT name, length(data) FROM assignment_parts ORDER BY name").fetchall())
