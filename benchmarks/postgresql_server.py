"""A PostgreSQL server of one's own, with the binaries that `pgserver` brings, for tests and benchmarks."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from hetlora.errors import DependencyMissing, ServiceUnreachable

START_SECONDS: Final = 120  # on a machine that does much else
# PostgreSQL does not run as root; whoever is root lends it a user that owns nothing else.
_USER: Final = "nobody" if os.getuid() == 0 else None


def binaries() -> Path:
    """The folder of the server's programs.

    Raises:
        DependencyMissing: pgserver is not installed.
    """
    found = find_spec("pgserver")  # without importing it, which starts more than we want
    if found is None or found.origin is None:
        raise DependencyMissing("no PostgreSQL to start", expected="pip install pgserver")
    return Path(found.origin).parent / "pginstall" / "bin"


class PostgresqlServer:
    """A server on a socket in a temporary folder, which both end with the block.

    Args:
        durable: whether a commit is on disk before it is answered; tests of logic do without.
    """

    def __init__(self, *, durable: bool = True) -> None:
        self._durable = durable
        self._folder = Path(tempfile.mkdtemp(prefix="hetlora-postgresql-"))
        self._names = (f"copy_{number}" for number in itertools.count())
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PostgresqlServer:
        if _USER is not None:
            os.chown(self._folder, pwd.getpwnam(_USER).pw_uid, -1)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._popen("initdb", f"--pgdata={self._data}", *options).wait()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, and wait until it answers.

        Raises:
            ServiceUnreachable: it does not, or it ended.
        """
        settings = {"listen_addresses": "", "max_connections": "200", "shared_buffers": "32MB"}
        if not self._durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self._running = self._popen("postgres", "-D", str(self._data), "-k", str(self._folder), *options)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._running.poll() is not None or time.monotonic() > deadline:
                raise ServiceUnreachable("PostgreSQL does not start", got=f"exit {self._running.poll()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the server as a crash would; what was committed is there again after `start`."""
        if self._running is not None:
            self._running.send_signal(signal.SIGQUIT)  # it leaves at once, and takes its children along
            self._running.wait()
            self._running = None

    def create(self, name: str) -> str:
        """Make an empty database and answer its address."""
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def url(self, name: str) -> str:
        """The address of a database, as `HETLORA_DATABASE_URL` takes it."""
        return self._url(name).set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def copy(self, template: str) -> Iterator[str]:
        """A copy of a database that nobody is connected to, dropped at the end."""
        name = next(self._names)
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def empty(self) -> Iterator[str]:
        """An empty database, dropped at the end."""
        with self.copy("template1") as url:
            yield url

    def run(self, statement: str, database: str = "postgres") -> None:
        """Run a statement as the server's own operator."""
        engine = create_engine(self._url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _url(self, name: str) -> URL:
        socket = {"host": str(self._folder)}
        return URL.create("postgresql+psycopg", username="postgres", database=name, query=socket)

    def _answers(self) -> bool:
        try:
            self.run("SELECT 1")
        except OperationalError:
            return False
        return True

    def _popen(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [str(binaries() / program), *options],
            user=_USER,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
