"""A PostgreSQL server of the tests' own, with the binaries that `pgserver` brings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine, make_url


class PostgresqlServer:
    """A server that lives in a folder, and listens on a socket there, until the block ends."""

    def __init__(self, folder: Path) -> None:
        pgserver = pytest.importorskip(
            "pgserver", reason="NO POSTGRESQL: pip install pgserver, or half of the service stays untested"
        )
        # In its folder's own mode: the server asks that nobody else may enter it.
        folder.chmod(0o700)
        self._server = pgserver.get_server(folder / "data", cleanup_mode="stop")
        self._url = make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self._names = (f"copy_{number}" for number in itertools.count())

    def __enter__(self) -> PostgresqlServer:
        # What tests look at does not outlive a power loss.
        self._run("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET synchronous_commit = off")
        self._run("SELECT pg_reload_conf()")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.cleanup()

    def create(self, name: str) -> str:
        """Make an empty database and answer its address."""
        self._run(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address of a database, as `HETLORA_DATABASE_URL` takes it."""
        url = self._url.set(drivername="postgresql", database=name)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A copy of a database that nobody is connected to, dropped at the end."""
        name = next(self._names)
        self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def empty(self) -> Iterator[str]:
        """An empty database, dropped at the end."""
        with self.copy("template1") as url:
            yield url

    def _run(self, *statements: str) -> None:
        engine: Engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()
