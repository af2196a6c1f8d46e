"""The database: short transactions, on SQLite in WAL mode or on PostgreSQL.

Reads never block. A write on SQLite takes the write lock at its first statement (BEGIN IMMEDIATE), so that
what it has read cannot change before it commits; within the process writes queue at a lock, which wakes at
once where SQLite's own busy handler polls. On PostgreSQL writes lock the rows that they go by (ADR 0012).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, OperationalError, SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from aggregator_service.storage.schema import address_of, upgrade
from aggregator_service.storage.turn import turn
from hetlora.errors import HetloraError, SettingsError, UnavailableError

SQLITE: Final = "sqlite"
# PostgreSQL's classes of what is wrong with itself: only reading, as a standby does, or damaged (XX).
_NOT_ITSELF: Final = ("25006", "XX")
_LOCKED: Final = "55P03"  # PostgreSQL's state of a statement that waited for a lock as long as it may
# A machine that dies, or a network, says no goodbye: who waits for the other end learns of it this soon.
_LOST_SECONDS: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
# What SQLite says of a file that is a database, and may be used later.
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


class Database:
    """The service's database, migrated to the newest tables when opened.

    Args:
        timeout_seconds: how long a statement waits for a lock before it is refused.
        connections: how many are kept open; on PostgreSQL the most that are.

    Raises:
        SettingsError: a newer hetlora wrote it.
    """

    def __init__(self, url: URL, *, timeout_seconds: float, connections: int) -> None:
        self.engine = make_engine(url, timeout_seconds=timeout_seconds, connections=connections)
        reading = self.engine
        self._turn: Callable[[], AbstractContextManager[object]] = nullcontext
        if url.get_backend_name() == SQLITE:
            self._turn = partial(turn, threading.Lock(), timeout_seconds, "wrote to the database")
        else:
            # READ COMMITTED looks anew with each statement anyway: BEGIN and ROLLBACK are two trips more.
            reading = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._asking = reading.execution_options(begin=None)
        self._reading = sessionmaker(reading, expire_on_commit=False, autoflush=False)
        self._writing = {
            durable: self.engine.execution_options(begin="BEGIN IMMEDIATE", durable=durable)
            for durable in (True, False)
        }
        self._session = sessionmaker(self._writing[True], expire_on_commit=False)
        upgrade(self.engine)

    def ask(
        self, statement: Select[tuple[Any, ...]], parameters: Mapping[str, Any]
    ) -> Sequence[Row[tuple[Any, ...]]]:
        """What one statement finds committed: past the unit of work, which takes longer than the database."""
        with self._asking.connect() as connection:
            return connection.execute(statement, parameters).all()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """What is committed; changes to its rows are lost. On SQLite a snapshot."""
        with self._reading() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back by any exception."""
        with self._turn(), self._session.begin() as session:
            yield session

    @contextmanager
    def note(self) -> Iterator[Connection]:
        """A transaction as `write`, past the unit of work, that does not wait for the disk.

        A power loss, or the end of the database's machine, may take the last of them with it. It never takes
        one without those that came after.
        """
        with self._turn(), self._writing[False].begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def out_of_order(error: SQLAlchemyError) -> bool:
    """Whether the database is away, busy, full, damaged or only to be read; else it is our statement."""
    if isinstance(error, TimeoutError):
        return True  # all connections were in use for as long as a statement may wait
    if not isinstance(error, DatabaseError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None and state.startswith(_NOT_ITSELF):
        return True
    # What SQLite finds damaged is of no kind below.
    return isinstance(error, OperationalError) or type(error) is DatabaseError


def is_locked(error: SQLAlchemyError) -> bool:
    """Whether somebody else kept a row of PostgreSQL for as long as one may wait: others may be free."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) == _LOCKED


def words_of(error: SQLAlchemyError) -> str:
    """What the database said, without the statement that it said it of."""
    return str(getattr(error, "orig", error)).partition("\n")[0]


def refusal_of(url: URL, error: SQLAlchemyError | sqlite3.Error) -> HetloraError:
    """What to tell whoever wants to open a database that cannot be: it is away, or it is none of ours."""
    cause = getattr(error, "orig", error)  # what the database said, without the statement
    got = f"{address_of(url)}: {cause}"
    if isinstance(cause, sqlite3.Error):
        passing = getattr(cause, "sqlite_errorcode", 0) & 0xFF in _PASSING
    else:
        passing = not isinstance(error, DatabaseError) or out_of_order(error)
    if passing:
        return UnavailableError("the database cannot be used now", got=got)
    return SettingsError(
        "the database cannot be used", got=got, expected="one of a hetlora service, or empty"
    )


def make_engine(url: URL, *, timeout_seconds: float, connections: int) -> Engine:
    """The engine of a `Database`, before it connects; see there."""
    if url.get_backend_name() == SQLITE:
        return _sqlite_engine(url, timeout_seconds, connections)
    return _postgresql_engine(url, timeout_seconds, connections)


def _sqlite_engine(url: URL, timeout_seconds: float, connections: int) -> Engine:
    engine = create_engine(
        url,
        hide_parameters=True,
        pool_size=connections,
        pool_use_lifo=True,  # the one that was used last still has its pages at hand
        pool_timeout=timeout_seconds,
        connect_args={"timeout": timeout_seconds},
    )
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _postgresql_engine(url: URL, timeout_seconds: float, connections: int) -> Engine:
    patience_seconds = max(2, round(timeout_seconds))  # libpq takes whole seconds, and a line its time
    engine = create_engine(
        url,
        hide_parameters=True,  # what devices and operators send stays out of logs and tracebacks
        pool_size=connections,
        max_overflow=0,
        pool_use_lifo=True,  # the one that was used last has most at hand
        pool_pre_ping=True,  # a connection that was cut while idle is replaced, and nobody is refused
        pool_timeout=timeout_seconds,
        isolation_level="READ COMMITTED",
        connect_args={
            "connect_timeout": patience_seconds,
            **_LOST_SECONDS,
            "tcp_user_timeout": 1000 * patience_seconds,
            "options": " ".join(
                f"-c {name}={value}" for name, value in _server_settings(timeout_seconds).items()
            ),
        },
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _server_settings(timeout_seconds: float) -> dict[str, object]:
    """What the server goes by for a connection of ours."""
    return {
        "lock_timeout": round(1000 * timeout_seconds),
        "timezone": "utc",
        # A plan for any value expects to find a lapsed lease soon, and reads all assignments for none.
        "plan_cache_mode": "force_custom_plan",
        # The locks of a process that is gone, or stands still, are freed.
        "idle_in_transaction_session_timeout": 60_000,
        **{f"tcp_{name}": value for name, value in _LOST_SECONDS.items()},
    }


def _begin_postgresql(connection: Connection) -> None:
    if not connection.get_execution_options().get("durable", True):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver starts no transaction of its own; `_begin` does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an accepted update survives a power loss, too
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if "durable" in options:  # it writes
        wanted = "FULL" if options["durable"] else "NORMAL"
        if connection.info.get("synchronous", "FULL") != wanted:
            connection.exec_driver_sql(f"PRAGMA synchronous = {wanted}")
            connection.info["synchronous"] = wanted
    begin = options.get("begin", "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)
