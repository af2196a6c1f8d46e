"""A real application behind a real socket, on a fresh data folder, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr
from service_helpers import TOKEN, FakeClock, FakeDevice, Operator

from aggregator_service.app import create_app
from aggregator_service.server import listen
from aggregator_service.service import Service
from aggregator_service.settings import Settings


class QuickServer(uvicorn.Server):
    """Notices at once that it should stop, where uvicorn looks ten times a second."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.005)


@contextmanager
def served(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    """A client of the application, which runs in a thread of its own."""
    with listen(settings) as listener:
        server = QuickServer(uvicorn.Config(app, log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the application did not start"
                time.sleep(0.002)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx.Client(base_url=url, verify=False) as client:  # reading certificates takes 30 ms
                yield client
        finally:
            server.should_exit = True
            thread.join()


@dataclass(frozen=True)
class Stage:
    """A stopped service with the population `keyboard` and a published bundle, to be copied."""

    data_dir: Path
    enrolment_token: str
    bundle: str


def settings_of(data_dir: Path) -> Settings:
    return Settings(data_dir=data_dir, port=0, operator_token=SecretStr(TOKEN), worker_interval_seconds=0.1)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    settings = settings_of(tmp_path_factory.mktemp("stage") / "data")
    with served(create_app(settings, FakeClock()), settings) as client:
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
def app(settings: Settings, clock: FakeClock) -> FastAPI:
    return create_app(settings, clock)


@pytest.fixture
def http(app: FastAPI, settings: Settings) -> Iterator[httpx.Client]:
    with served(app, settings) as client:
        yield client


@pytest.fixture
def service(http: httpx.Client, app: FastAPI) -> Service:
    """The parts behind `http`."""
    found = app.state.service
    assert isinstance(found, Service)
    return found


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
