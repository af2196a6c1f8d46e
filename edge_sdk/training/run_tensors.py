"""Tensors that a device keeps from round to round of a run, for each of the newest few runs."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal

import numpy as np

from edge_sdk.device_database import DeviceDatabase
from hetlora.adapter import Tensor
from hetlora.digest import sha256_of
from hetlora.errors import StoreDamaged
from hetlora.partial_tensors import read_partial
from hetlora.stored_tensors import Tensors

KEPT_RUNS: Final = 4

# lora_B where it never leaves the device; what rounding has left out of updates.
Kind = Literal["private_factors", "rounding_errors"]

TABLE: Final = """
CREATE TABLE IF NOT EXISTS run_tensors (
    kind TEXT NOT NULL,
    run_id TEXT NOT NULL,
    written INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (kind, run_id)
)
"""


def keep_tensors(database: sqlite3.Connection, kind: Kind, run_id: str, data: bytes) -> None:
    """Keep the bytes of a safetensors file for a run, within a transaction.

    Only the runs that wrote last keep theirs, `KEPT_RUNS` of them: a population may have several at once, and
    nobody tells a device that one has ended.
    """
    (last,) = database.execute("SELECT coalesce(max(written), 0) FROM run_tensors").fetchone()
    database.execute(
        "INSERT OR REPLACE INTO run_tensors VALUES (?, ?, ?, ?, ?)",
        (kind, run_id, last + 1, sha256_of(data), data),
    )
    database.execute(
        "DELETE FROM run_tensors WHERE kind = :kind AND run_id NOT IN"
        " (SELECT run_id FROM run_tensors WHERE kind = :kind ORDER BY written DESC LIMIT :most)",
        {"kind": kind, "most": KEPT_RUNS},
    )


def kept_tensors(database: DeviceDatabase, kind: Kind, run_id: str) -> Tensors | None:
    """The tensors that were kept for a run, if there are any.

    Raises:
        StoreDamaged: other bytes than were kept.
        MalformedTensors, NonFiniteValues: see `read_partial`.
    """
    with database.reading() as rows:
        row = rows.execute(
            "SELECT sha256, data FROM run_tensors WHERE kind = ? AND run_id = ?", (kind, run_id)
        ).fetchone()
    if row is None:
        return None
    if sha256_of(row[1]) != row[0]:
        raise StoreDamaged(f"{kind} are not what was kept")
    return read_partial(row[1])


def fitted(kept: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A factor at another rank: its leading ranks, or zeros beyond them."""
    result = np.zeros(shape, np.float32)
    common = tuple(slice(min(sizes)) for sizes in zip(kept.shape, shape, strict=True))
    result[common] = kept[common]
    return result
