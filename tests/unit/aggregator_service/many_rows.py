"""Tables as months leave them, and how the database answers what is asked of them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, event, text

from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, Base, ObjectRow

NUMBERED = "one.id || '-' || number"
DIGEST = f"'{{}}' || (1000000 + number) || '{'0' * 56}'"  # 64 characters, as long as real ones
_MULTIPLY: Final = """
INSERT INTO {table} ({columns})
WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < {count})
SELECT {values} FROM numbers, (SELECT * FROM {table} ORDER BY 1 LIMIT 1) one
"""


def multiply(service: Service, table: type[Base], count: int, **values: str) -> None:
    """Add rows like the first of a table, but for some values: SQL, of the row `one` and its `number`."""
    columns = [column.name for column in table.__table__.columns]
    told = {name: f"one.{name}" for name in columns} | values
    statement = _MULTIPLY.format(
        table=table.__tablename__, columns=", ".join(columns), values=", ".join(told.values()), count=count
    )
    with service.database.write() as session:
        session.execute(text(statement))


def add_versions(service: Service, count: int) -> None:
    """Versions with objects of their own."""
    columns = {"sha256": "a", "frozen_sha256": "b", "state_sha256": "c"}
    digests = {column: DIGEST.format(letter) for column, letter in columns.items()}
    multiply(service, AdapterVersionRow, count, id=NUMBERED, **digests)


def add_objects(service: Service, letter: str, count: int) -> None:
    """The objects of `add_versions`: `a` are adapters, `b` frozen ones, `c` states."""
    multiply(service, ObjectRow, count, sha256=DIGEST.format(letter))


def analyze(service: Service) -> None:
    """Let PostgreSQL count what there is, as it does by itself in a while; SQLite goes by its indexes."""
    if service.database.engine.dialect.name == "postgresql":
        with service.database.write() as session:
            session.execute(text("ANALYZE"))


@dataclass(frozen=True, slots=True)
class Asked:
    """A statement with its parameters, the first where it was asked for many."""

    statement: str
    parameters: Any


@contextmanager
def asked_of(service: Service) -> Iterator[list[Asked]]:
    """All that the database is asked in the block."""
    asked: list[Asked] = []

    def note(_: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        asked.append(Asked(statement, parameters[0] if many else parameters))

    event.listen(service.database.engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(service.database.engine, "before_cursor_execute", note)


def read_whole(service: Service, asked: Asked) -> set[str]:
    """The tables that a statement is answered from by reading all of their rows."""
    with service.database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {asked.statement}", asked.parameters)
            plan = told.scalar_one()
            nodes = _nodes(json.loads(plan) if isinstance(plan, str) else plan)
            return {node["Relation Name"] for node in nodes if node["Node Type"].endswith("Seq Scan")}
        told = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked.statement}", asked.parameters)
        steps = [str(row.detail).split() for row in told]
        # An alias is told in place of its table: its name with a number.
        return {step[1].rstrip("_0123456789") for step in steps if step[0] == "SCAN"}


@contextmanager
def steps_of(service: Service) -> Iterator[Callable[[], int]]:
    """How many hundreds of steps SQLite has taken in the block, over all connections."""
    taken, watching = 0, True

    def step() -> int:  # which a connection goes on with
        nonlocal taken
        taken += watching
        return 0

    def watch(connection: sqlite3.Connection, *_: Any) -> None:
        connection.set_progress_handler(step, 100)

    event.listen(service.database.engine, "checkout", watch)
    try:
        yield lambda: taken
    finally:
        watching = False
        event.remove(service.database.engine, "checkout", watch)


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    for own in plan if isinstance(plan, list) else [plan]:
        if isinstance(own, dict):
            if "Node Type" in own:
                yield own
            for part in own.values():
                if isinstance(part, dict | list):
                    yield from _nodes(part)
