"""One service of several processes on one database, with a population, a bundle and devices."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, create_engine, insert

from aggregator_service.settings import Role
from aggregator_service.storage.tables import DeviceRow, TransitionRow
from benchmarks.postgresql_server import PostgresqlServer
from benchmarks.service.faults import DatabaseName
from benchmarks.service.replica import Replica
from benchmarks.service.stores import Bucket, Read, StoreName, in_folder
from benchmarks.service.tiny_bundle import write_tiny_bundle
from benchmarks.service.wire import Key
from hetlora.adapter import AdapterSpec
from hetlora.cli.operator import Operator
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import DeviceState

POPULATION: Final = "fleet"


@dataclass(frozen=True, slots=True)
class Stage:
    """A running service and what its processes share; the first of them answers requests."""

    data_dir: Path
    replicas: Sequence[Replica]
    ports: Sequence[int]  # of those that answer requests
    postgresql: PostgresqlServer | None
    bucket: Bucket | None
    database_url: str  # as SQLAlchemy takes it
    token: str
    bundle: str

    @property
    def read(self) -> Read:
        """Reads what is in the store."""
        return in_folder(self.data_dir) if self.bucket is None else self.bucket.read

    def operator(self) -> Operator:
        """An operator at the first replica."""
        return Operator(self.replicas[0].url, self.token)

    def start_run(self, settings: RunSettings) -> str:
        """Create and start a run, and answer its id."""
        with self.operator() as operator:
            request = RunCreate(population=POPULATION, bundle=self.bundle, settings=settings)
            return operator.move_run(operator.create_run(request).run_id, "start").run_id

    def engine(self) -> Engine:
        """The database, seen from this process."""
        return create_engine(self.database_url)

    def enrol(self, keys: Sequence[Key]) -> None:
        """Admit devices as their enrolment would, but all at once: it is not what is measured."""
        now, engine = datetime.now(UTC), self.engine()
        with engine.begin() as connection:
            for first in range(0, len(keys), 1000):
                part = keys[first : first + 1000]
                connection.execute(insert(DeviceRow), [_device(key) for key in part])
                connection.execute(insert(TransitionRow), [_enrolment(key, now) for key in part])
        engine.dispose()

    def stop(self) -> None:
        """Ask every process to end, and wait until all have."""
        for replica in self.replicas:
            replica.ask_to_stop()
        for replica in self.replicas:
            replica.stop()


def _device(key: Key) -> dict[str, object]:
    return {
        "id": key.device_id,
        "state": DeviceState.ACCEPTED,
        "reason": "simulated",
        "population": POPULATION,
        "public_key": key.public_base64,
        "name": f"simulated {key.number}",
    }


def _enrolment(key: Key, now: datetime) -> dict[str, object]:
    what = {"subject": "device", "subject_id": key.device_id, "old": None}
    return {**what, "new": DeviceState.ACCEPTED.value, "reason": "simulated", "at": now}


@asynccontextmanager
async def staged(
    folder: Path,
    spec: AdapterSpec,
    *,
    database: DatabaseName,
    roles: Sequence[Role],
    settings: Mapping[str, str],
    store: StoreName = "folder",
    movable_clocks: bool = False,
) -> AsyncIterator[Stage]:
    """A service with its population and its bundle; every process ends with the block.

    Args:
        folder: holds all files, an empty one.
        roles: of the processes, one for each.
        settings: environment variables of docs/settings.md, for every process.
        movable_clocks: whether their clocks can be put wrong.
    """
    data_dir, token = folder / "data", secrets.token_urlsafe(24)
    common = {**settings, "HETLORA_DATA_DIR": str(data_dir), "HETLORA_OPERATOR_TOKEN": token}
    url = f"sqlite:///{data_dir}/hetlora.sqlite"
    with ExitStack() as stack:
        server = None
        if database == "postgresql":
            server = stack.enter_context(PostgresqlServer())
            common["HETLORA_DATABASE_URL"] = server.create("hetlora")
            url = common["HETLORA_DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:", 1)
        bucket = stack.enter_context(Bucket()) if store == "bucket" else None
        if bucket is not None:
            common |= bucket.settings
        processes = [
            Replica(
                f"replica-{number}", folder, {**common, "HETLORA_ROLE": role}, movable_clock=movable_clocks
            )
            for number, role in enumerate(roles)
        ]
        for process in processes:
            stack.enter_context(process)
        await asyncio.gather(*(process.up() for process in processes))
        with Operator(processes[0].url, token) as operator:
            operator.create_population(POPULATION)
            bundle = operator.publish_bundle(write_tiny_bundle(folder / "bundle", spec)).digest
        asked = zip(processes, roles, strict=True)
        ports = [process.port for process, role in asked if role != "worker"]
        yield Stage(data_dir, processes, ports, server, bucket, url, token, bundle)
