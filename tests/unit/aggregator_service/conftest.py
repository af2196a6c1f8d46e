"""A real application, on a fresh data folder, with a clock that the test moves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from fastapi import FastAPI
from pydantic import SecretStr
from service_operator import TOKEN, Operator
from service_server import served

from aggregator_service.app import create_app
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings


@dataclass(frozen=True)
class Stage:
    """A stopped service with the population `keyboard` and a published bundle, to be copied."""

    data_dir: Path
    enrolment_token: str
    bundle: str


def settings_of(data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        port=0,
        operator_token=SecretStr(TOKEN),
        worker_interval_seconds=0.1,
        database_timeout_seconds=2,
    )


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    settings = settings_of(tmp_path_factory.mktemp("stage") / "data")
    with served(create_app(open_service(settings, FakeClock())), settings) as client:
        operator = Operator(client)
        return Stage(settings.data_dir, operator.population(), operator.publish())


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
def settings(tmp_path: Path, stage: Stage) -> Settings:
    return settings_of(shutil.copytree(stage.data_dir, tmp_path / "data"))


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
