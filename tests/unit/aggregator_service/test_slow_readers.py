"""Devices that ask for files and do not read them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from fake_device import FakeDevice
from fastapi import FastAPI
from service_operator import Operator
from service_server import problem
from waiting import wait_until

from aggregator_service.api.open_transfers import MOST_DOWNLOADS
from aggregator_service.settings import Settings

LARGE = bytes(32 * 1024**2)  # more than the buffers of a connection hold
Ask = Callable[[FakeDevice, str], socket.socket]


@pytest.fixture
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """An answer may stand still for 0.3 s, unless a test says otherwise."""
    return settings.model_copy(update={"body_timeout_seconds": getattr(request, "param", 0.3)})


@pytest.fixture
def ask(http: httpx.Client) -> Iterator[Ask]:
    """Requests of devices for an object, over connections that nobody reads."""
    with ExitStack() as opened:

        def asking(device: FakeDevice, sha256: str) -> socket.socket:
            address = (http.base_url.host, http.base_url.port or 0)
            connection = opened.enter_context(socket.create_connection(address))
            path = f"/device/v1/objects/{sha256}"
            headers = device.signed("GET", path) | {"Host": "localhost"}
            lines = [f"GET {path} HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            return connection

        yield asking


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux gives such readers up")
def test_answer_that_is_not_read_is_given_up(
    app: FastAPI, ask: Ask, device: FakeDevice, operator: Operator
) -> None:
    sha256 = operator.put(LARGE)
    ask(device, sha256)
    wait_until(lambda: bool(app.state.open_downloads == {device.device_id: 1}))
    wait_until(lambda: bool(not app.state.open_downloads))


@pytest.mark.parametrize("settings", [60.0], indirect=True)
def test_device_reads_few_files_at_a_time_and_others_are_left_alone(
    app: FastAPI, ask: Ask, make_device: Callable[[int], FakeDevice], operator: Operator
) -> None:
    device, other, sha256 = make_device(1), make_device(2), operator.put(LARGE)
    unread = [ask(device, sha256) for _ in range(MOST_DOWNLOADS)]
    wait_until(lambda: bool(app.state.open_downloads == {device.device_id: MOST_DOWNLOADS}))

    answer = device.send("GET", f"/objects/{sha256}")

    assert problem(answer) == (429, "too_many_requests")
    assert answer.headers["retry-after"] == "60"
    assert other.send("GET", f"/objects/{sha256}").content == LARGE
    unread[0].close()
    wait_until(lambda: device.send("GET", f"/objects/{sha256}").is_success)
