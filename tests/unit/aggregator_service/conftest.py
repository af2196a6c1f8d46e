"""A real application on a fresh SQLite file, and again on PostgreSQL, with a clock that the test moves."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from fastapi import FastAPI
from pydantic import SecretStr
from service_operator import TOKEN, Operator
from service_server import served
from tus_device import UPDATE, TusDevice

from aggregator_service.app import create_app
from aggregator_service.service import Service, database_url, open_service
from aggregator_service.settings import Settings
from benchmarks.postgresql_server import PostgresqlServer


@dataclass(frozen=True)
class Stage:
    """A stopped service with the population `keyboard` and a published bundle, to be copied."""

    data_dir: Path
    database: str | None  # of the server that the tests started, else a file in `data_dir`
    enrolment_token: str
    bundle: str


def settings_of(data_dir: Path, database_url: str | None = None) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=None if database_url is None else SecretStr(database_url),
        port=0,
        operator_token=SecretStr(TOKEN),
        worker_interval_seconds=0.1,
        database_timeout_seconds=2,
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    if find_spec("pgserver") is None:
        pytest.skip("NO POSTGRESQL: half of the service stays untested; pip install pgserver")
    with PostgresqlServer(durable=False) as server:
        yield server


def staged(data_dir: Path, server: PostgresqlServer | None = None) -> Stage:
    url = None if server is None else server.create("stage")
    settings = settings_of(data_dir, url)
    with served(create_app(open_service(settings, FakeClock())), settings) as client:
        operator = Operator(client)
        return Stage(data_dir, url and "stage", operator.population(), operator.publish())


@pytest.fixture(scope="session")
def sqlite_stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return staged(tmp_path_factory.mktemp("stage") / "data")


@pytest.fixture(scope="session")
def postgresql_stage(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgresqlServer) -> Stage:
    return staged(tmp_path_factory.mktemp("stage") / "data", postgresql)


@pytest.fixture(params=["sqlite", "postgresql"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made = request.getfixturevalue(f"{request.param}_stage")
    assert isinstance(made, Stage)
    return made


@pytest.fixture
def enrolment_token(stage: Stage) -> str:
    """Of the population `keyboard`."""
    return stage.enrolment_token


@pytest.fixture
def bundle(stage: Stage) -> str:
    """The digest of the published bundle."""
    return stage.bundle


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, stage: Stage) -> Iterator[Settings]:
    data_dir = shutil.copytree(stage.data_dir, tmp_path / "data")
    if stage.database is None:
        yield settings_of(data_dir)
        return
    server = request.getfixturevalue("postgresql")
    with server.copy(stage.database) as url:
        yield settings_of(data_dir, url)


@pytest.fixture
def copy_of(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[Settings], AbstractContextManager[Settings]]:
    """Copies data folder and database of a service that is stopped."""
    numbers = itertools.count()

    @contextmanager
    def copy(settings: Settings) -> Iterator[Settings]:
        data_dir = shutil.copytree(settings.data_dir, tmp_path / f"copy-{next(numbers)}")
        if settings.database_url is None:
            yield settings.model_copy(update={"data_dir": data_dir})
            return
        server = request.getfixturevalue("postgresql")
        with server.copy(database_url(settings).database) as url:
            yield settings_of(data_dir, url)

    return copy


@pytest.fixture
def service(settings: Settings, clock: FakeClock) -> Iterator[Service]:
    """The parts behind `app`."""
    with closing(open_service(settings, clock)) as opened:
        yield opened


@pytest.fixture
def app(service: Service) -> FastAPI:
    return create_app(service)


@pytest.fixture
def http(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    with served(app, settings) as client:
        yield client


@pytest.fixture
def operator(http: httpx.Client) -> Operator:
    return Operator(http)


@pytest.fixture
def make_device(http: httpx.Client, clock: FakeClock, enrolment_token: str) -> Callable[[int], FakeDevice]:
    """Enrols a device whose key follows from a number."""
    return lambda seed: FakeDevice(http, clock, seed).enrol(enrolment_token)


@pytest.fixture
def device(make_device: Callable[[int], FakeDevice]) -> FakeDevice:
    return make_device(1)


@pytest.fixture
def assignment_id(operator: Operator, device: FakeDevice, bundle: str) -> str:
    """A started assignment of a run that waits for one update."""
    operator.run(bundle, lease_seconds=100)
    return device.started()


@pytest.fixture
def tus(device: FakeDevice) -> TusDevice:
    return TusDevice(device)


@pytest.fixture
def upload_id(tus: TusDevice, assignment_id: str) -> str:
    """An upload of UPDATE that was begun."""
    return tus.begun(assignment_id, UPDATE)
