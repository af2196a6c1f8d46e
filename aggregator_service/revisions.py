"""The tables of a service that need not run: which revision they are at, and the way to the newest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.service import database_url
from aggregator_service.settings import Settings
from aggregator_service.storage.database import SQLITE, make_engine, refusal_of
from aggregator_service.storage.schema import address_of, newest_revision, revision_of, upgrade
from hetlora.errors import SettingsError, UnavailableError


@dataclass(frozen=True, slots=True)
class Revisions:
    """The revision of a database, None before its first tables, and the one that this hetlora works with."""

    database: str
    current: str | None
    newest: str

    @property
    def is_newest(self) -> bool:
        return self.current == self.newest


def revisions_of(settings: Settings) -> Revisions:
    """The revision of the settings' database, which is only read.

    Raises:
        SettingsError: an address or a file that is none of a database.
        UnavailableError: the database does not answer.
    """
    url = database_url(settings)
    where = address_of(url)
    if url.get_backend_name() == SQLITE and not (settings.data_dir / "hetlora.sqlite").exists():
        return Revisions(where, None, newest_revision())
    with engine_of(settings) as engine:
        return Revisions(where, revision_of(engine), newest_revision())


def upgrade_tables(settings: Settings) -> tuple[Revisions, Revisions]:
    """Bring the settings' database to the newest revision; answers what was, and what is.

    Raises:
        SettingsError: an address or a file that is none of a database, or a newer hetlora wrote it.
        UnavailableError: the database, or its folder, cannot be used now.
    """
    before = revisions_of(settings)
    if settings.database_url is None:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError("data_dir cannot be made", got=f"{settings.data_dir}: {error}") from error
    with engine_of(settings) as engine:
        upgrade(engine)
    return before, revisions_of(settings)


def check_pages(settings: Settings) -> None:
    """Read all of a SQLite file: a damaged page is met otherwise only by who needs it. PostgreSQL has tools.

    Raises:
        SettingsError: it is damaged.
    """
    if settings.database_url is None:
        with engine_of(settings) as engine, engine.connect() as connection:
            found = connection.scalar(text("PRAGMA quick_check(1)"))
            if found != "ok":
                raise SettingsError("the database is damaged", got=found, expected="a backup to be restored")


@contextmanager
def engine_of(settings: Settings) -> Iterator[Engine]:
    """An engine for one look at the settings' database; errors as `revisions_of`."""
    engine = make_engine(
        database_url(settings), timeout_seconds=settings.database_timeout_seconds, connections=1
    )
    try:
        yield engine
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise refusal_of(engine.url, error) from error
    finally:
        engine.dispose()
