"""The database: one engine, short transactions, SQLite in WAL mode.

Reads are snapshots that never block. Writes take SQLite's write lock at their first statement (BEGIN
IMMEDIATE), so that what a transaction has read cannot change before it commits; within the process they queue
at a lock, which wakes at once where SQLite's own busy handler polls.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, sessionmaker

from hetlora.errors import SettingsError

MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """The service's SQLite file, migrated to the newest tables when opened.

    Raises:
        SettingsError: the file was written by a newer hetlora.
    """

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self.engine = create_engine(
            URL.create("sqlite", database=str(path)), connect_args={"timeout": timeout_seconds}
        )
        event.listen(self.engine, "connect", _prepare_connection)
        event.listen(self.engine, "begin", _begin)
        self._reading = sessionmaker(self.engine, expire_on_commit=False)
        self._writing = sessionmaker(
            self.engine.execution_options(begin="BEGIN IMMEDIATE"), expire_on_commit=False
        )
        self._write_lock = threading.Lock()
        with self.engine.begin() as connection:
            migrate(connection, path)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot; changes to its rows are lost."""
        with self._reading() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back by any exception."""
        with self._write_lock, self._writing.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


def migrate(connection: Connection, path: Path) -> None:
    """Bring the tables to the newest revision."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise SettingsError(
            f"database {path} cannot be migrated", got=error, expected="one written by this hetlora or older"
        ) from error


def _prepare_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver starts no transaction of its own; `_begin` does
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # an accepted update survives a power loss, too
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))
