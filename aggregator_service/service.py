"""The parts of a running service, opened together and handed to every verb."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.aggregation.engines import Engine
from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.settings import Settings
from aggregator_service.storage.blobs import BlobFolder
from aggregator_service.storage.database import Database
from aggregator_service.storage.tables import OperatorTokenRow
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
    """Database, blob folders, engine and clock; `wake` tells the round worker that there is work."""

    settings: Settings
    clock: Clock
    database: Database
    objects: BlobFolder  # served to devices: manifests, bundle files, adapters
    engine: Engine
    operator_token_sha256: str
    wake: threading.Event
    handing_out: threading.Lock  # while a handout is made, which many devices may ask for at once
    lock: IO[bytes]  # held on the folder as long as it is open

    @property
    def updates_folder(self) -> Path:
        """One folder of updates for each round; never served."""
        return self.settings.data_dir / "updates"

    def updates(self, round_id: str) -> BlobFolder:
        """The updates of one round."""
        return BlobFolder(self.updates_folder / round_id, self.objects.incoming)

    def close(self) -> None:
        self.engine.close()
        self.database.close()
        self.lock.close()


def open_service(settings: Settings, clock: Clock = utc_now) -> Service:
    """Open, or at first start create, everything below `data_dir`.

    Raises:
        SettingsError: the folder or a file in it cannot be used, another service works on it, or a newer
            hetlora wrote it; no Ray cluster answers, or one is named for another engine.
        DependencyMissing: the engine is not installed.
    """
    # Absolute: processes of a cluster, which read updates below it, have working folders of their own.
    settings = settings.model_copy(update={"data_dir": settings.data_dir.absolute()})
    try:
        return _open(settings, clock)
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        cause = getattr(error, "orig", error)  # what the database said, without the statement
        raise SettingsError(
            "data_dir cannot be used",
            got=f"{settings.data_dir}: {cause}",
            expected="a folder to write to, with the files of a hetlora service or none",
        ) from error


def _open(settings: Settings, clock: Clock) -> Service:
    data_dir = settings.data_dir
    incoming = data_dir / "incoming"
    with ExitStack() as opened:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = opened.enter_context(_lock(data_dir))
        shutil.rmtree(incoming, ignore_errors=True)  # uploads that the last process did not finish
        for folder in (incoming, data_dir / "objects", data_dir / "updates"):
            folder.mkdir(exist_ok=True)
        database = Database(data_dir / "hetlora.sqlite", timeout_seconds=settings.database_timeout_seconds)
        opened.enter_context(closing(database))
        service = Service(
            settings=settings,
            clock=clock,
            database=database,
            objects=BlobFolder(data_dir / "objects", incoming),
            engine=opened.enter_context(closing(_engine(settings))),
            operator_token_sha256=_operator_token_sha256(settings, database),
            wake=threading.Event(),
            handing_out=threading.Lock(),
            lock=lock,
        )
        opened.pop_all()
    return service


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


def _lock(data_dir: Path) -> IO[bytes]:
    """Keep a second service away; the system releases the lock of a process that dies."""
    file = (data_dir / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise SettingsError(
            "another service works on this data_dir", got=data_dir, expected="a data_dir for each service"
        ) from error
    return file


def _operator_token_sha256(settings: Settings, database: Database) -> str:
    """The hash of the token in force: the setting's, else that of the token generated at first start."""
    if settings.operator_token is not None:
        return sha256_of(settings.operator_token.get_secret_value().encode())
    with database.write() as session:
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
