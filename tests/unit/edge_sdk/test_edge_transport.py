import json
import random
from collections.abc import Callable

import httpx
import pytest
from fake_service import NOW, FakeService, problem

from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import new_identity
from edge_sdk.transport.answers import MAX_ANSWER_BYTES
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora.errors import (
    ClockSkew,
    NonFiniteValues,
    ReplayedRequest,
    ServiceFailed,
    ServiceUnreachable,
    SettingsError,
    UnknownDevice,
)
from hetlora.messages.device import StartRequest

Answering = Callable[[httpx.Request], httpx.Response]


class Recorder(random.Random):
    """Notes between which bounds waits were drawn."""

    def __init__(self) -> None:
        super().__init__(0)
        self.bounds: list[tuple[float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.bounds.append((a, b))
        return super().uniform(a, b)


def _transport_to(folder: DeviceFolder, answer: Answering, **given: object) -> Transport:
    identity = new_identity()
    return Transport(
        "http://service.test",
        identity,
        Way(http=httpx.MockTransport(answer)),
        clock=lambda: NOW,
        **given,  # type: ignore[arg-type]
    )


def test_request_is_signed_so_that_the_service_accepts_it(service: FakeService, transport: Transport) -> None:
    # The fake verifies the signature with cryptography over the bytes that it rebuilds by itself.
    plan = DeviceService(transport).start("assignment-1", StartRequest(rank=2))
    assert plan.rank == 2
    assert service.requests == ["POST /device/v1/assignments/assignment-1:start"]


def test_signature_covers_the_query(service: FakeService, transport: Transport) -> None:
    digest = service.bundle.sha256
    assert transport.exchange("GET", f"/device/v1/objects/{digest}?part=1&b=2") == service.objects[digest]


def test_signature_covers_a_path_in_front_of_the_services_own(folder: DeviceFolder) -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200)

    identity = new_identity()
    transport = Transport("http://service.test/fl/", identity, Way(http=httpx.MockTransport(answer)))
    transport.exchange("GET", "/device/v1/objects/0")
    assert seen == ["/fl/device/v1/objects/0"]


def test_connection_fault_is_tried_again_with_a_new_signature(
    service: FakeService, transport: Transport
) -> None:
    # The second try passes only with a nonce that the fake has not seen.
    service.faults = [httpx.ConnectError("refused"), httpx.ReadError("cut")]
    assert DeviceService(transport).start("assignment-1", StartRequest(rank=1)).rank == 1
    assert len(service.requests) == 3


def test_each_try_has_a_nonce_of_its_own(folder: DeviceFolder) -> None:
    inputs: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        inputs.append(request.headers["Signature-Input"])
        return httpx.Response(503)

    with pytest.raises(ServiceUnreachable):
        _transport_to(folder, answer).exchange("GET", "/device/v1/x")
    assert len(set(inputs)) == 3


def test_request_that_something_on_the_way_sent_twice_is_signed_anew(folder: DeviceFolder) -> None:
    inputs: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        inputs.append(request.headers["Signature-Input"])
        return httpx.Response(200) if len(inputs) == 3 else problem(ReplayedRequest("seen before"))

    assert _transport_to(folder, answer).exchange("POST", "/device/v1/x") == b""
    assert len(set(inputs)) == 3


def test_replays_without_end_are_told(service: FakeService, transport: Transport) -> None:
    service.faults = [problem(ReplayedRequest("seen before"))] * 3
    with pytest.raises(ReplayedRequest):
        transport.exchange("GET", "/device/v1/objects/0")
    assert len(service.requests) == 3


def test_service_that_stays_away_is_unreachable(service: FakeService, transport: Transport) -> None:
    service.faults = [httpx.ConnectError("refused")] * 3
    with pytest.raises(ServiceUnreachable, match=r"got ConnectError: refused.*http://service\.test"):
        transport.exchange("GET", "/device/v1/objects/0")
    assert len(service.requests) == 3


def test_fault_of_the_service_is_tried_again_and_then_told(
    service: FakeService, transport: Transport
) -> None:
    service.faults = [problem(ServiceFailed("it broke"))] * 3
    with pytest.raises(ServiceFailed, match="it broke"):
        transport.exchange("GET", "/device/v1/objects/0")
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    "error",
    [
        ClockSkew("signature is too old", got="900 s", expected="up to 300 s"),
        NonFiniteValues("lora_A of query holds values that are not finite"),
        UnknownDevice("device never enrolled"),
    ],
    ids=lambda error: error.code,
)
def test_refusal_is_told_at_once_by_its_own_type(
    service: FakeService, transport: Transport, error: Exception
) -> None:
    service.faults = [problem(error)]  # type: ignore[arg-type]
    with pytest.raises(type(error)) as caught:
        transport.exchange("GET", "/device/v1/objects/0")
    assert str(caught.value) == str(error)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, html="<h1>Not here</h1>"),
        httpx.Response(302, headers={"Location": "http://portal.test/login"}),
        httpx.Response(404, json={"detail": "Not Found"}),
    ],
    ids=["page", "redirect", "other json"],
)
def test_answer_of_something_else_is_no_service(
    service: FakeService, transport: Transport, answer: httpx.Response
) -> None:
    service.faults = [answer]
    with pytest.raises(ServiceUnreachable, match=f"got status {answer.status_code} without a problem"):
        transport.exchange("GET", "/device/v1/objects/0")
    assert len(service.requests) == 1


def test_waits_are_drawn_from_zero_to_a_doubling_bound(folder: DeviceFolder) -> None:
    jitter = Recorder()
    transport = _transport_to(folder, lambda request: httpx.Response(500), jitter=jitter)
    with pytest.raises(ServiceUnreachable):
        transport.exchange("GET", "/device/v1/x")
    assert jitter.bounds == [(0, 0.5), (0, 1.0), (0, 2.0)]


def test_wait_that_an_answer_asks_for_is_added(folder: DeviceFolder) -> None:
    answers = iter([429, 408, 200])
    waits: list[float] = []

    class Waits(Recorder):
        def uniform(self, a: float, b: float) -> float:
            waits.append(12.0)
            return super().uniform(a, b)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(next(answers), headers={"Retry-After": "12"})

    _transport_to(folder, answer, jitter=Waits()).exchange("GET", "/device/v1/x")
    assert waits == [12.0, 12.0]


def test_answer_without_end_is_cut_off(folder: DeviceFolder) -> None:
    big = b"x" * (MAX_ANSWER_BYTES + 1)
    transport = _transport_to(folder, lambda request: httpx.Response(200, content=big))
    with pytest.raises(ServiceUnreachable, match="expected up to 1048576 bytes"):
        transport.exchange("GET", "/device/v1/x")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (json.dumps({"assignment_id": "a", "rank": 0}), "rank: "),
        ("<h1>Accept our terms to go online</h1>", "Invalid JSON"),
    ],
    ids=["another schema", "captive portal"],
)
def test_success_of_something_else_is_no_service(folder: DeviceFolder, body: str, fault: str) -> None:
    transport = _transport_to(folder, lambda request: httpx.Response(200, content=body))
    with pytest.raises(ServiceUnreachable, match=rf"{fault}.*expected Plan from http://service\.test"):
        DeviceService(transport).start("a", StartRequest(rank=1))


@pytest.mark.parametrize("address", ["", "service.test", "ftp://service.test", "http://", "http://[::1"])
def test_address_that_is_none_is_refused(folder: DeviceFolder, address: str) -> None:
    with pytest.raises(SettingsError, match="service_url"):
        Transport(address, new_identity())
