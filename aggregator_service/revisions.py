"""The tables of a service that need not run: which revision they are at, and the way to the newest."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.service import database_url
from aggregator_service.settings import Settings
from aggregator_service.storage.database import SQLITE, make_engine
from aggregator_service.storage.schema import newest_revision, revision_of, upgrade
from hetlora.errors import UnavailableError


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
        SettingsError: an address that is none of a database.
        UnavailableError: the database does not answer.
    """
    url = database_url(settings)
    where = url.render_as_string(hide_password=True)
    if url.get_backend_name() == SQLITE and not (settings.data_dir / "hetlora.sqlite").exists():
        return Revisions(where, None, newest_revision())
    with _engine_of(settings) as engine:
        return Revisions(where, revision_of(engine), newest_revision())


def upgrade_tables(settings: Settings) -> tuple[Revisions, Revisions]:
    """Bring the settings' database to the newest revision; answers what was, and what is.

    Raises:
        SettingsError: an address that is none of a database, or a newer hetlora wrote it.
        UnavailableError: the database, or its folder, cannot be used now.
    """
    before = revisions_of(settings)
    if settings.database_url is None:
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError("data_dir cannot be made", got=f"{settings.data_dir}: {error}") from error
    with _engine_of(settings) as engine:
        upgrade(engine)
    return before, revisions_of(settings)


@contextmanager
def _engine_of(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(
        database_url(settings), timeout_seconds=settings.database_timeout_seconds, connections=1
    )
    try:
        yield engine
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", error)  # what the database said, without the statement
        raise UnavailableError("the database cannot be used now", got=cause) from error
    finally:
        engine.dispose()
