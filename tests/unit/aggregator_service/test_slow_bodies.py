"""Bodies that stand still, creep, or are many."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from service_server import problem
from tus_device import PART, TUS, TusDevice
from waiting import DEADLINE_SECONDS, wait_until

from aggregator_service.service import Service
from aggregator_service.settings import Settings
from hetlora.tensors import adapter_to_bytes

UPDATE = adapter_to_bytes(make_adapter(2))
Connect = Callable[[str, str, dict[str, str], int], socket.socket]


@pytest.fixture
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Bodies may stand still for 0.3 s, unless a test says otherwise; a device may be sending two."""
    patience_seconds = getattr(request, "param", 0.3)
    return settings.model_copy(update={"max_open_uploads": 2, "body_timeout_seconds": patience_seconds})


@pytest.fixture
def connect(http: httpx.Client) -> Iterator[Connect]:
    """Connections over which the head of a request went, and nothing of its body."""
    with ExitStack() as opened:

        def begin(method: str, path: str, headers: dict[str, str], size_bytes: int) -> socket.socket:
            address = (http.base_url.host, http.base_url.port or 0)
            connection = opened.enter_context(socket.create_connection(address, DEADLINE_SECONDS))
            all_headers = headers | {"Host": "localhost", "Content-Length": str(size_bytes)}
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {all_headers[name]}" for name in all_headers)]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            return connection

        yield begin


def held(connect: Connect, device: FakeDevice, assignment_id: str) -> socket.socket:
    """An upload of which the last byte never comes."""
    path = f"/device/v1/assignments/{assignment_id}/update"
    connection = connect("PUT", path, device.signed("PUT", path, UPDATE), len(UPDATE))
    connection.sendall(UPDATE[:-1])
    return connection


def answer_over(connection: socket.socket) -> bytes:
    """All that comes until the service closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def incoming(service: Service) -> int:
    return len(list((service.settings.data_dir / "incoming").iterdir()))


def test_update_that_stands_still_is_given_up(
    connect: Connect, device: FakeDevice, operator: Operator, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    assignment_id = device.started()

    answer = answer_over(held(connect, device, assignment_id))

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"body_too_slow"' in answer
    assert incoming(service) == 0
    assert device.upload(assignment_id, UPDATE).is_success


def test_json_of_a_stranger_that_stands_still_is_given_up(connect: Connect, device: FakeDevice) -> None:
    connection = connect("POST", "/device/v1/devices", device.signed("POST", "/device/v1/devices"), 1000)
    connection.sendall(b"{")
    assert answer_over(connection).startswith(b"HTTP/1.1 408 ")


def test_body_that_creeps_is_given_up(connect: Connect, device: FakeDevice) -> None:
    connection = connect("POST", "/device/v1/devices", device.signed("POST", "/device/v1/devices"), 60_000)
    connection.settimeout(0.1)  # a third of what it may stand still
    began, answer = time.monotonic(), b""
    while not answer:
        connection.sendall(b" ")
        try:
            answer = connection.recv(1000)
        except TimeoutError:
            assert time.monotonic() - began < DEADLINE_SECONDS
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began >= 0.3


def test_body_that_takes_long_and_comes_on_is_read(connect: Connect, device: FakeDevice) -> None:
    path, pieces = "/device/v1/devices", 8 * [300 * b" "]
    connection = connect("POST", path, device.signed("POST", path, b"".join(pieces)), 8 * 300)
    for piece in pieces:  # 0.8 s at 3000 bytes a second
        time.sleep(0.1)
        connection.sendall(piece)
    assert connection.recv(1000).startswith(b"HTTP/1.1 422 ")  # no JSON


@pytest.mark.parametrize("settings", [60.0], indirect=True)
def test_device_sends_few_updates_at_a_time_and_others_are_left_alone(
    connect: Connect,
    make_device: Callable[[int], FakeDevice],
    operator: Operator,
    bundle: str,
    service: Service,
) -> None:
    operator.run(bundle, goal_count=2)
    device, other = make_device(1), make_device(2)
    assignment_id, of_other = device.started(), other.started()
    connections = [held(connect, device, assignment_id) for _ in range(2)]
    wait_until(lambda: incoming(service) == 2)

    answer = device.upload(assignment_id, UPDATE)

    assert problem(answer) == (429, "too_many_requests")
    assert answer.headers["retry-after"] == "60"
    tus = TusDevice(device)
    assert problem(tus.patch(tus.begun(assignment_id, UPDATE), 0, UPDATE))[0] == 429
    assert incoming(service) == 2
    assert other.upload(of_other, UPDATE).is_success
    connections[0].close()
    wait_until(lambda: device.upload(assignment_id, UPDATE).is_success)


@pytest.mark.parametrize("settings", [60.0], indirect=True)
def test_parts_count_among_the_bodies_of_a_device(
    connect: Connect, device: FakeDevice, operator: Operator, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    assignment_id = device.started()
    upload_id = TusDevice(device).begun(assignment_id, UPDATE)
    path = f"/device/v1/uploads/{upload_id}"
    for _ in range(2):
        signed = device.signed("PATCH", path, UPDATE) | TUS | PART | {"Upload-Offset": "0"}
        connect("PATCH", path, signed, len(UPDATE)).sendall(UPDATE[:-1])
    wait_until(lambda: incoming(service) == 2)
    assert problem(device.upload(assignment_id, UPDATE)) == (429, "too_many_requests")
