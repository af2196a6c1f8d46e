"""The parts of the assignment under way that are bytes: what was received, the checkpoint, the update.

Each is one row, written and read within a transaction of the device's database.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any, Final, Literal

from numpy.typing import NDArray

from hetlora.digest import sha256_of
from hetlora.stored_tensors import write_tensors

logger = logging.getLogger(__name__)

Part = Literal[
    "received",
    "frozen",
    "checkpoint",
    "update",
    "rounding_errors",
    # Of a round with masks: an update that may not leave the device as it is, and what masks it.
    "unmasked",
    "mask_secrets",
    "mask_cohort",
    "held_shares",
    "mask_reveal",
]

# Digests apart: to change a row is to write all of it, and bytes of one length are written where they lie.
TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS assignment_parts (name TEXT PRIMARY KEY, data BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS part_digests (name TEXT PRIMARY KEY, sha256 TEXT NOT NULL)",
)


def put_part(database: sqlite3.Connection, name: Part, data: bytes) -> None:
    """Keep a part in the place of the one of its name."""
    database.execute("INSERT OR REPLACE INTO assignment_parts VALUES (?, ?)", (name, data))
    _put_digest(database, name, sha256_of(data))


def put_tensors(database: sqlite3.Connection, name: Part, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Keep tensors as a safetensors file, of which no copy is in memory on the way."""
    pieces: list[memoryview] = []  # views of where the tensors lie
    write_tensors(tensors, pieces.append)
    row_id = _row_of_size(database, name, sum(map(len, pieces)))
    digest = hashlib.sha256()
    with database.blobopen("assignment_parts", "data", row_id) as blob:
        for piece in pieces:
            digest.update(piece)
            blob.write(piece)
    _put_digest(database, name, digest.hexdigest())


def part(database: sqlite3.Connection, name: Part) -> bytes | None:
    """A part as it was kept; None where there is none, or its bytes are others."""
    row = database.execute(
        "SELECT sha256, data FROM assignment_parts JOIN part_digests USING (name) WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    sha256, data = row
    if sha256_of(data) != sha256:
        logger.warning("part=%s event=damaged", name)
        return None
    return bytes(data)


def drop_part(database: sqlite3.Connection, name: Part) -> None:
    """Remove a part, if it is there."""
    for table in ("assignment_parts", "part_digests"):
        database.execute(f"DELETE FROM {table} WHERE name = ?", (name,))


def drop_parts(database: sqlite3.Connection) -> None:
    """Remove all parts."""
    for table in ("assignment_parts", "part_digests"):
        database.execute(f"DELETE FROM {table}")


def parts_bytes(database: sqlite3.Connection) -> dict[str, int]:
    """How large each part is that is kept."""
    return dict(database.execute("SELECT name, length(data) FROM assignment_parts ORDER BY name").fetchall())


def _row_of_size(database: sqlite3.Connection, name: Part, size_bytes: int) -> int:
    """The row of a part that is to be written over, of zeros unless it has this size."""
    found = database.execute(
        "SELECT rowid FROM assignment_parts WHERE name = ? AND length(data) = ?", (name, size_bytes)
    ).fetchone()
    if found is not None:
        return int(found[0])
    made = database.execute(
        "INSERT OR REPLACE INTO assignment_parts VALUES (?, zeroblob(?))", (name, size_bytes)
    )
    assert made.lastrowid is not None
    return made.lastrowid


def _put_digest(database: sqlite3.Connection, name: Part, sha256: str) -> None:
    database.execute("INSERT OR REPLACE INTO part_digests VALUES (?, ?)", (name, sha256))
