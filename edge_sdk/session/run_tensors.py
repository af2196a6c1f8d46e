"""Tensors that a device keeps from round to round of a run, for each of the newest few runs."""

from __future__ import annotations

import logging
import sqlite3
from typing import Final, Literal

from edge_sdk.device_database import DeviceDatabase
from edge_sdk.training.error_feedback import checked_errors
from edge_sdk.training.private_factors import with_private_factors
from hetlora.adapter import Adapter, AdapterSpec, Tensor
from hetlora.digest import sha256_of
from hetlora.errors import InputError, StoreDamaged
from hetlora.partial_tensors import read_partial
from hetlora.stored_tensors import Tensors

logger = logging.getLogger(__name__)

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


def with_kept_factors(database: DeviceDatabase, run_id: str, received: Adapter) -> Adapter:
    """The adapter received, under the lora_B that was kept in an earlier round of the run.

    Where there is none, or it cannot be used, training begins with the one received.
    """
    try:
        kept = kept_tensors(database, "private_factors", run_id)
        return received if kept is None else with_private_factors(kept, received)
    except InputError as error:
        logger.warning("run=%s event=private_factors_lost error=%s", run_id, error)
        return received


def kept_errors(database: DeviceDatabase, run_id: str, spec: AdapterSpec) -> dict[str, Tensor]:
    """What rounding has left out in a run so far; nothing where none of this model are whole."""
    try:
        return checked_errors(kept_tensors(database, "rounding_errors", run_id) or {}, spec)
    except InputError as error:
        logger.warning("run=%s event=rounding_errors_lost error=%s", run_id, error)
        return {}
