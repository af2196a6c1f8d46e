"""The SDK's uploads through a proxy that cuts connections, and bodies that break off, on a real service."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress

import httpx
import pytest
import stamina
from cutting_proxy import Cut, CuttingProxy
from fake_clock import FakeClock
from fake_device import FakeDevice
from relay import address_of
from service_bundle import make_adapter
from service_objects import kept_updates, stored_parts
from service_operator import Operator
from service_process import now, process
from service_server import served
from tus_device import PART, TUS, TusDevice
from waiting import wait_until

from aggregator_service.app import create_app
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from edge_sdk.identity.identity import Identity
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.uploads import Uploads
from edge_sdk.transport.way import Way
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import ServiceUnreachable
from hetlora.tensors import adapter_to_bytes

WIDE = AdapterSpec((ModuleSpec("key", 10_000, 2), ModuleSpec("query", 2, 10_000)), scaling=2.0, max_rank=2)
UPDATE = make_adapter(2, spec=WIDE)
DATA = adapter_to_bytes(UPDATE)  # 160 kB
PART_BYTES = 20_000


@pytest.fixture(autouse=True)
def _tries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=8):
        yield


@pytest.fixture
def assignment_id(operator: Operator, device: FakeDevice) -> str:
    operator.run(operator.publish(WIDE))
    return device.started()


@contextmanager
def uploads_of(device: FakeDevice, url: str, part_bytes: int = PART_BYTES) -> Iterator[Uploads]:
    """The uploads of a device that was just started."""
    with closing(Transport(url, Identity(device.key), clock=lambda: device.clock().timestamp())) as transport:
        yield Uploads(transport, part_bytes=part_bytes)


def test_update_passes_a_line_that_never_carries_it_whole(
    http: httpx.Client, device: FakeDevice, assignment_id: str, service: Service
) -> None:
    with CuttingProxy(address_of(http.base_url), then=Cut(up=60_000)) as proxy:
        with (
            uploads_of(device, proxy.url, part_bytes=len(DATA)) as whole,
            pytest.raises(ServiceUnreachable),
        ):
            whole.deliver(assignment_id, DATA)
        assert kept_updates(service) == []
        proxy.sent.clear()
        with uploads_of(device, proxy.url) as parts:
            parts.deliver(assignment_id, DATA)
        # Each connection carries two parts and breaks off in the third: half as much again as there is.
        assert len(DATA) < sum(proxy.sent) < 1.6 * len(DATA)
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_update_arrives_whole_over_a_line_that_is_cut_anywhere(
    http: httpx.Client, device: FakeDevice, assignment_id: str, service: Service, seed: int
) -> None:
    chance = random.Random(seed)
    cuts = [
        Cut(up=chance.randrange(1, 50_000)) if chance.random() < 0.6 else Cut(down=chance.randrange(0, 300))
        for _ in range(12)
    ]
    with CuttingProxy(address_of(http.base_url), *cuts) as proxy:
        while True:  # a visit that gives up is followed by the next; every line ends up whole
            with suppress(ServiceUnreachable), uploads_of(device, proxy.url) as parts:
                parts.deliver(assignment_id, DATA)
                break
        assert proxy.connections > 5
    assert [path.read_bytes() for path in kept_updates(service)] == [DATA]
    assert stored_parts(service) == []
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


def test_device_that_was_killed_sends_only_what_is_missing(
    http: httpx.Client, device: FakeDevice, assignment_id: str
) -> None:
    # Enough for creation and four parts; afterwards there is no line at all.
    with (
        CuttingProxy(address_of(http.base_url), Cut(up=4 * PART_BYTES + 9_000), then=Cut(up=1)) as proxy,
        uploads_of(device, proxy.url) as killed,
        pytest.raises(ServiceUnreachable),
    ):
        killed.deliver(assignment_id, DATA)
    with CuttingProxy(address_of(http.base_url)) as proxy, uploads_of(device, proxy.url) as restarted:
        restarted.deliver(assignment_id, DATA)
        missing = len(DATA) - 4 * PART_BYTES
        assert missing < sum(proxy.sent) < missing + 9_000
        assert proxy.connections == 1
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


class SendingTwice(httpx.HTTPTransport):
    """A way to the service on which every other request is sent again, and the first answer to it is lost."""

    requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests % 2:
            super().handle_request(request).read()
        return super().handle_request(request)


def test_update_arrives_by_a_way_that_sends_requests_twice(
    http: httpx.Client, device: FakeDevice, assignment_id: str, service: Service
) -> None:
    way = SendingTwice()
    identity, clock = Identity(device.key), lambda: device.clock().timestamp()
    with closing(Transport(str(http.base_url), identity, Way(http=way), clock=clock)) as transport:
        Uploads(transport, part_bytes=PART_BYTES).deliver(assignment_id, DATA)
    # Each part was asked for twice, and so was where the upload stands after it.
    assert way.requests > 2 * len(DATA) / PART_BYTES
    assert [path.read_bytes() for path in kept_updates(service)] == [DATA]
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


@contextmanager
def half_sent(device: FakeDevice, upload_id: str, offset: int, part: bytes) -> Iterator[None]:
    """A part of which the last byte is missing, until the block ends; then the line is closed."""
    path = f"/device/v1/uploads/{upload_id}"
    headers = device.signed("PATCH", path, part) | TUS | PART
    headers |= {"Upload-Offset": str(offset), "Content-Length": str(len(part)), "Host": "service.test"}
    lines = [f"PATCH {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    with socket.create_connection(address_of(device.http.base_url)) as torn:
        torn.sendall("\r\n".join(lines).encode() + part[:-1])
        yield


def test_part_that_breaks_off_counts_for_nothing(
    device: FakeDevice, assignment_id: str, service: Service
) -> None:
    tus = TusDevice(device)
    upload_id = tus.begun(assignment_id, DATA)
    with half_sent(device, upload_id, 0, DATA[:PART_BYTES]):
        wait_until(lambda: any(service.objects.incoming.iterdir()))
    wait_until(lambda: not any(service.objects.incoming.iterdir()))
    assert stored_parts(service) == []
    assert tus.offset(upload_id) == 0
    assert tus.patch(upload_id, 0, DATA[:PART_BYTES]).status_code == 204


@pytest.fixture
def other(settings: Settings, http: httpx.Client, clock: FakeClock) -> Iterator[httpx.Client]:
    """Another replica."""
    service = open_service(settings, clock)
    with served(create_app(service), settings) as client:
        yield client


def test_replicas_take_turns_at_one_upload(
    http: httpx.Client, other: httpx.Client, device: FakeDevice, assignment_id: str, service: Service
) -> None:
    tus = TusDevice(device)
    upload_id = tus.begun(assignment_id, DATA)
    for number, first in enumerate(range(0, len(DATA), PART_BYTES)):
        device.http = (other, http)[number % 2]
        assert tus.offset(upload_id) == first
        assert tus.patch(upload_id, first, DATA[first : first + PART_BYTES]).status_code == 204
    assert [path.read_bytes() for path in kept_updates(service)] == [DATA]
    assert stored_parts(service) == []
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


def test_part_that_comes_to_two_replicas_at_once_counts_once(
    http: httpx.Client, other: httpx.Client, device: FakeDevice, assignment_id: str, service: Service
) -> None:
    tus, twin = TusDevice(device), TusDevice(FakeDevice(other, device.clock, device.seed))
    upload_id = tus.begun(assignment_id, DATA)
    firsts = range(0, len(DATA), PART_BYTES)
    together = threading.Barrier(2)

    def send(own: TusDevice, first: int) -> int:
        together.wait()
        return own.patch(upload_id, first, DATA[first : first + PART_BYTES]).status_code

    with ThreadPoolExecutor(2) as pool:
        for first in firsts[:-1]:
            answers = pool.map(send, (tus, twin), (first, first))
            assert sorted(answers) == [204, 409]
        # The last part makes the update, which either of them may do, or find done.
        last = set(pool.map(send, (tus, twin), (firsts[-1], firsts[-1])))
    assert 204 in last <= {204, 409}
    assert [path.read_bytes() for path in kept_updates(service)] == [DATA]
    assert stored_parts(service) == []
    assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"


def test_upload_whose_parts_the_store_lost_begins_anew(
    http: httpx.Client, device: FakeDevice, assignment_id: str, service: Service
) -> None:
    tus = TusDevice(device)
    upload_id = tus.begun(assignment_id, DATA)
    assert tus.patch(upload_id, 0, DATA[:PART_BYTES]).status_code == 204
    (part,) = stored_parts(service)
    part.write_bytes(b"x" * PART_BYTES)  # as a bad disk does
    with uploads_of(device, str(http.base_url)) as uploads:
        uploads.deliver(assignment_id, DATA)
    assert tus.head(upload_id).status_code == 404
    assert [path.read_bytes() for path in kept_updates(service)] == [DATA]
    assert stored_parts(service) == []


@pytest.mark.slow
def test_upload_goes_on_over_a_replica_when_the_one_in_the_middle_of_a_part_is_killed(
    settings: Settings, enrolment_token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settings.database_url is not None:
        monkeypatch.setenv("HETLORA_DATABASE_URL", settings.database_url.get_secret_value())
    assert settings.operator_token is not None
    monkeypatch.setenv("HETLORA_OPERATOR_TOKEN", settings.operator_token.get_secret_value())
    with process(settings.data_dir) as (dying, first), process(settings.data_dir) as (_, second):
        operator = Operator(first)
        operator.run(operator.publish(WIDE))
        device = FakeDevice(first, now, 1).enrol(enrolment_token)
        tus, assignment_id = TusDevice(device), device.started()
        upload_id = tus.begun(assignment_id, DATA)
        assert tus.patch(upload_id, 0, DATA[:PART_BYTES]).status_code == 204
        with half_sent(device, upload_id, PART_BYTES, DATA[PART_BYTES:]):
            wait_until(lambda: any((settings.data_dir / "incoming").iterdir()))
            dying.kill()
            dying.wait()
        device.http = second
        assert tus.offset(upload_id) == PART_BYTES
        assert {answer.status_code for answer in tus.in_parts(upload_id, DATA, PART_BYTES)} == {204}
        assert device.submit(assignment_id, UPDATE).json()["state"] == "accepted"
