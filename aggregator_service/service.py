"""The parts of a running service, opened together and handed to every verb."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from aggregator_service.aggregation.engines import Engine
from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.observability.metrics import Metrics
from aggregator_service.observability.tracing import Tracing, open_tracing
from aggregator_service.pace.live_devices import LiveDevices
from aggregator_service.rounds.fleet_figures import FleetFigures
from aggregator_service.settings import Settings
from aggregator_service.signing_key import read_signing_key
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.database import SQLITE, Database, refusal_of
from aggregator_service.storage.operator_tables import OperatorTokenRow
from aggregator_service.storage.store import Store
from hetlora.digest import sha256_of
from hetlora.errors import DependencyMissing, SettingsError

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]
TOKEN_FILE = "operator-token"


def utc_now() -> datetime:
    """The clock on the wall."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Service:
    """Database, object store, engine and clock; `wake` tells the round worker that there is work."""

    settings: Settings
    clock: Clock
    database: Database
    store: Store
    objects: Blobs  # served to devices: manifests, bundle files, adapters
    engine: Engine
    operator_token_sha256: str
    wake: threading.Event
    live_devices: LiveDevices
    handing_out: threading.Lock  # while a handout is made, which many devices may ask for at once
    name: str  # of this process, in claims: its machine, its number there, a random end
    metrics: Metrics
    tracing: Tracing

    def updates(self, round_id: str) -> Blobs:
        """The updates of one round; never served."""
        return self.store.blobs(f"updates/{round_id}")

    def uploads(self, upload_id: str) -> Blobs:
        """The parts of one upload; never served."""
        return self.store.blobs(f"uploads/{upload_id}")

    def quarantined(self, assignment_id: str) -> Blobs:
        """The update of an assignment that a screen took out of its round; never served to devices."""
        return self.store.blobs(f"quarantine/{assignment_id}")

    def close(self) -> None:
        self.engine.close()
        self.database.close()
        self.tracing.close()


def open_service(settings: Settings, clock: Clock = utc_now) -> Service:
    """Open, or at first start create, everything below `data_dir`.

    Raises:
        SettingsError: the folder, a file in it, or the database cannot be used, or a newer hetlora wrote it;
            no Ray cluster answers, or one is named for another engine.
        UnavailableError: the database does not answer.
        DependencyMissing: the engine is not installed.
    """
    # Absolute: processes of a cluster, which read updates below it, have working folders of their own.
    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    url = database_url(settings)
    try:
        return _open(settings, url, clock)
    except (sqlite3.Error, SQLAlchemyError) as error:
        raise refusal_of(url, error) from error
    except OSError as error:
        raise SettingsError(
            "data_dir cannot be used",
            got=f"{settings.data_dir}: {error}",
            expected="a folder to write to, with the files of a hetlora service or none",
        ) from error


def _open(settings: Settings, url: URL, clock: Clock) -> Service:
    data_dir = settings.data_dir
    if settings.signing_key is not None:
        read_signing_key(settings.signing_key)  # now, and not when the first manifest is asked for
    store = Store(data_dir, settings.object_store_url)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)  # updates tell of the data that made them
    with ExitStack() as opened:
        kept = ("objects", "updates", "uploads", "quarantine")
        for folder in (store.incoming, *(data_dir / name for name in kept)):
            folder.mkdir(parents=True, exist_ok=True)
        store.drop_abandoned(settings.keep_orphans_seconds)  # where no worker sweeps: by a restart at last
        database = Database(
            url,
            timeout_seconds=settings.database_timeout_seconds,
            connections=settings.database_connections,
        )
        opened.enter_context(closing(database))
        metrics = Metrics()
        metrics.registry.register(FleetFigures(database, clock))
        service = Service(
            settings=settings,
            clock=clock,
            database=database,
            store=store,
            objects=store.blobs("objects"),
            engine=opened.enter_context(closing(_engine(settings))),
            operator_token_sha256=_operator_token_sha256(settings, database),
            wake=threading.Event(),
            live_devices=LiveDevices(),
            handing_out=threading.Lock(),
            name=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
            metrics=metrics,
            tracing=opened.enter_context(closing(open_tracing(settings.tracing))),
        )
        opened.pop_all()
    return service


def database_url(settings: Settings) -> URL:
    """Where the database is.

    Raises:
        SettingsError: no address of PostgreSQL, or one in which a password may be taken for something else.
    """
    if settings.database_url is None:
        return URL.create(SQLITE, database=str(settings.data_dir / "hetlora.sqlite"))
    given = settings.database_url.get_secret_value()
    if given.count("@") > 1:  # what follows the first would be told as the host
        raise SettingsError(
            "HETLORA_DATABASE_URL has more than one @",
            expected="a password that is percent-encoded (@ as %40)",
        )
    try:
        url = make_url(given)
    except (ArgumentError, ValueError) as error:  # a port that is no number
        raise SettingsError(
            "HETLORA_DATABASE_URL is no address of a database",
            expected="postgresql://USER:PASSWORD@HOST/NAME, the password percent-encoded",
        ) from error
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SettingsError(
            "HETLORA_DATABASE_URL", got=url.drivername, expected="postgresql://USER:PASSWORD@HOST/NAME"
        )
    return url.set(drivername="postgresql+psycopg")


def _engine(settings: Settings) -> Engine:
    if settings.engine == "local":
        if settings.ray_address is not None:
            raise SettingsError(
                "the engine local has no Ray cluster",
                got=f"ray_address {settings.ray_address}",
                expected="the engine ray, or no address",
            )
        return LocalEngine(settings.aggregation_workers)
    try:
        from aggregator_service.aggregation.engines.ray_cluster import RayEngine
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "the engine ray is not installed",
            got=f"no module {error.name}",
            expected="pip install 'hetlora[ray]'",
        ) from error
    return RayEngine(settings.aggregation_workers, settings.ray_address)


def _operator_token_sha256(settings: Settings, database: Database) -> str:
    """The hash of the token in force: the setting's, else that of the token generated at first start."""
    if settings.operator_token is not None:
        return sha256_of(settings.operator_token.get_secret_value().encode())
    with database.write() as session:
        if session.get_bind().dialect.name != SQLITE:  # processes that start together make one
            session.execute(text("LOCK TABLE operator_tokens IN EXCLUSIVE MODE"))
        stored: str | None = session.scalar(select(OperatorTokenRow.sha256))
        if stored is not None:
            return stored
        token = secrets.token_urlsafe(32)
        _write_secret(settings.data_dir / TOKEN_FILE, token)
        session.add(OperatorTokenRow(sha256=sha256_of(token.encode())))
        return sha256_of(token.encode())


def _write_secret(path: Path, secret: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(descriptor)
    log.info("operator_token=generated file=%s", path)
