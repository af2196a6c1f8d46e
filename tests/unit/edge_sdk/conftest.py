from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import stamina
from adapter_rounds import CAREFUL
from certificates import Authority, TlsFront
from device_tables import identity_in
from fake_bundle import bundle_on_disk
from fake_runtime import Opened, quadratic
from fake_service import NOW, FakeService
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event
from edge_sdk.folder import DeviceFolder, open_folder
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora import testing


@pytest.fixture(autouse=True)
def _three_tries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def opened() -> Opened:
    return Opened()


@pytest.fixture
def folder(tmp_path: Path) -> DeviceFolder:
    return open_folder(tmp_path / "device")


@pytest.fixture
def transport(service: FakeService, folder: DeviceFolder) -> Iterator[Transport]:
    """A transport of a device that the service knows."""
    identity = identity_in(folder)
    service.door.keys[identity.device_id] = identity.public_key
    transport = Transport("http://service.test", identity, Way(http=service.http), clock=lambda: NOW)
    yield transport
    transport.close()


@pytest.fixture
def make_client(service: FakeService, folder: DeviceFolder) -> Iterator[Callable[..., EdgeClient]]:
    """Makes clients of one device that holds two examples; keyword arguments replace the usual ones."""
    made: list[EdgeClient] = []

    def make(**given: Any) -> EdgeClient:
        for client in made:  # one client of a folder at a time
            client.close()
        made.clear()
        usual: dict[str, Any] = {
            "population": "weather",
            "enrolment_token": "token",
            "capabilities": STRONG,
            "runtime": quadratic,
            "http": service.http,
            "clock": lambda: NOW,
        }
        client = EdgeClient("http://service.test", folder=folder.root, **(usual | given))
        made.append(client)
        client.examples.put("snow and ice", "cold", key="first")
        client.examples.put("sun and sand", "warm", key="second")
        return client

    yield make
    for client in made:
        client.close()


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def careful(make_client: Callable[..., EdgeClient], events: list[Event]) -> Callable[..., EdgeClient]:
    """Makes clients after a first round that hold out three texts of four words, and adopt nothing worse."""
    make_client().run_once()

    def make(**given: Any) -> EdgeClient:
        client = make_client(**({"adoption": CAREFUL, "on_event": events.append} | given))
        for text in ("snow and ice and", "ice and snow and", "snow and snow and"):
            client.held_out.put(text, "cold", key=text)
        return client

    return make


@pytest.fixture(scope="module")
def processes() -> Iterator[ForkServerContext]:
    """Processes that begin with everything imported, as the server that forks them has done that."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mortal_device"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        yield context


@pytest.fixture
def http_service(tmp_path: Path) -> Iterator[testing.FakeService]:
    """The fake service of apps, which devices reach by real HTTP."""
    with testing.FakeService(bundle_on_disk(tmp_path / "bundle")) as service:
        yield service


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def front(http_service: testing.FakeService, authority: Authority) -> Iterator[TlsFront]:
    """The same service behind TLS."""
    with TlsFront(http_service.url, *authority.issue("service")) as front:
        yield front


@pytest.fixture
def client_of(tmp_path: Path) -> Callable[..., EdgeClient]:
    """Makes clients, of the service at an address, of one device that holds one example."""

    def make(url: str, **given: Any) -> EdgeClient:
        usual: dict[str, Any] = {"enrolment_token": "token", "capabilities": STRONG, "runtime": quadratic}
        client = EdgeClient(url, "weather", tmp_path / "device", **(usual | given))
        client.examples.put("snow and ice", "cold", key="first")
        return client

    return make
