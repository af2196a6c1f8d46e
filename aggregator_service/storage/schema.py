"""The tables' revisions: which one a database has, and the way to the newest (Alembic)."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, text

from hetlora.errors import SettingsError

MIGRATIONS: Final = Path(__file__).parent / "migrations"
# PostgreSQL's advisory locks are numbers that whoever uses a database agrees on; this one is ours ("hetl").
MIGRATION_LOCK: Final = 0x6865746C


def address_of(url: URL) -> str:
    """Where a database is, without its passwords."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


@cache
def newest_revision() -> str:
    """The revision that this hetlora works with."""
    revision = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert revision is not None
    return revision


def revision_of(engine: Engine) -> str | None:
    """The revision of a database; None before its first tables."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_read_only(engine: Engine) -> bool:
    """Whether PostgreSQL takes no writes, as a standby; SQLite tells it by the folder."""
    if engine.dialect.name != "postgresql":
        return False
    with engine.connect() as connection:
        return bool(connection.scalar(text("SHOW transaction_read_only")) == "on")


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision, in one transaction; processes that start together do it one by one.

    Raises:
        SettingsError: a newer hetlora wrote the database.
    """
    with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        if connection.dialect.name == "postgresql":
            # Tables of a large fleet are rewritten for longer than a statement may wait for a lock.
            connection.execute(text("SET LOCAL lock_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            connection.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
        _run(connection, revision)


def _run(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise SettingsError(
            f"database {address_of(connection.engine.url)} cannot be migrated",
            got=error,
            expected="one written by this hetlora or older",
        ) from error
