"""The tables of a service, read with plain SQL: nothing of the service's own code stands between."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, text

Row = dict[str, Any]
# States of work that a device has, of training and of evaluation.
LIVE: Final = frozenset({"offered", "downloading", "training", "uploading", "submitted", "started"})


@dataclass(frozen=True, slots=True)
class Records:
    """Every row that tells of devices, runs, rounds, versions, evaluations, and their changes of state."""

    devices: list[Row]
    runs: list[Row]
    rounds: list[Row]
    assignments: list[Row]
    adapter_versions: list[Row]
    handouts: list[Row]
    uploads: list[Row]
    upload_parts: list[Row]
    evaluations: list[Row]
    evaluation_assignments: list[Row]
    transitions: list[Row]


def read_records(engine: Engine) -> Records:
    """All rows, in one snapshot where the database gives one."""
    with engine.connect() as connection:

        def rows(table: str, order: str) -> list[Row]:
            found = connection.execute(text(f"SELECT * FROM {table} ORDER BY {order}"))
            return [{name: _plain(name, value) for name, value in row.items()} for row in found.mappings()]

        return Records(
            devices=rows("devices", "id"),
            runs=rows("runs", "id"),
            rounds=rows("rounds", "id"),
            assignments=rows("assignments", "id"),
            adapter_versions=rows("adapter_versions", "id"),
            handouts=rows("handouts", "version, rank"),
            uploads=rows("uploads", "id"),
            upload_parts=rows("upload_parts", "upload_id, offset_bytes"),
            evaluations=rows("evaluations", "id"),
            evaluation_assignments=rows("evaluation_assignments", "id"),
            transitions=rows("transitions", "id"),
        )


def _plain(name: str, value: Any) -> Any:
    """JSON parsed: PostgreSQL does so, SQLite keeps text."""
    if name in ("settings", "report", "adaptation", "figures") and isinstance(value, str):
        return json.loads(value)
    return value
