"""The database: short transactions, on SQLite in WAL mode or on PostgreSQL.

Reads never block. A write on SQLite takes the write lock at its first statement (BEGIN IMMEDIATE), so that
what it has read cannot change before it commits; within the process writes queue at a lock, which wakes at
once where SQLite's own busy handler polls. On PostgreSQL writes lock the rows that they go by (ADR 0012).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from aggregator_service.storage.schema import upgrade

SQLITE: Final = "sqlite"


class Database:
    """The service's database, migrated to the newest tables when opened.

    Args:
        timeout_seconds: how long a statement waits for a lock before it is refused.
        connections: the most that are open at once, on PostgreSQL.

    Raises:
        SettingsError: a newer hetlora wrote it.
    """

    def __init__(self, url: URL, *, timeout_seconds: float, connections: int = 20) -> None:
        self.engine = make_engine(url, timeout_seconds=timeout_seconds, connections=connections)
        reading = self.engine
        self._write_lock: AbstractContextManager[object] = nullcontext()
        if url.get_backend_name() == SQLITE:
            self._write_lock = threading.Lock()
        else:
            # READ COMMITTED looks anew with each statement anyway: BEGIN and ROLLBACK are two trips more.
            reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._reading = sessionmaker(reading, expire_on_commit=False, autoflush=False)
        self._writing = {
            durable: sessionmaker(
                self.engine.execution_options(begin="BEGIN IMMEDIATE", durable=durable),
                expire_on_commit=False,
            )
            for durable in (True, False)
        }
        upgrade(self.engine)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """What is committed; changes to its rows are lost. On SQLite a snapshot."""
        with self._reading() as session:
            yield session

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        One that is not `durable` does not wait for the disk: a power loss, or the end of the database's
        machine, may take the last of them with it. It never takes one without those that came after.
        """
        with self._write_lock, self._writing[durable].begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


def make_engine(url: URL, *, timeout_seconds: float, connections: int = 20) -> Engine:
    """The engine of a `Database`, before it connects; see there."""
    if url.get_backend_name() == SQLITE:
        return _sqlite_engine(url, timeout_seconds)
    return _postgresql_engine(url, timeout_seconds, connections)


def _sqlite_engine(url: URL, timeout_seconds: float) -> Engine:
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": timeout_seconds})
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql_engine(url: URL, timeout_seconds: float, connections: int) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,  # what devices and operators send stays out of logs and tracebacks
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_pre_ping=True,  # a connection that was cut while idle is replaced, and nobody is refused
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": max(2, round(timeout_seconds)),  # which libpq takes in whole seconds
            "options": f"-c lock_timeout={round(timeout_seconds * 1000)} -c timezone=utc",
        },
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver starts no transaction of its own; `_begin` does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    # FULL: an accepted update survives a power loss, too.
    connection.exec_driver_sql(f"PRAGMA synchronous = {'FULL' if options.get('durable', True) else 'NORMAL'}")
    connection.exec_driver_sql(options.get("begin", "BEGIN"))
