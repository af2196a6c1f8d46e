"""The fake service that apps test with, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fake_bundle import bundle_on_disk
from safetensors.numpy import load
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.identity.identity import new_identity
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from hetlora import testing
from hetlora.bundle import Bundle
from hetlora.errors import (
    AuthenticationFailed,
    ClockSkew,
    DigestMismatch,
    MalformedMessage,
    NotFound,
    RankOutOfRange,
    ReplayedRequest,
    ServiceFailed,
    ServiceUnreachable,
    TooManyRequests,
    UnknownDevice,
)
from hetlora.messages.device import CheckIn, EnrolRequest, StartRequest, TrainingSettings
from hetlora.states import DeviceState

TRAINING = TrainingSettings(
    steps=3, batch_size=2, learning_rate=0.5, max_tokens=8, pruning_decay=1.0, optimizer="sgd"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return bundle_on_disk(tmp_path / "bundle")


@pytest.fixture
def service(bundle: Bundle) -> Iterator[testing.FakeService]:
    with testing.FakeService(bundle, training=TRAINING) as service:
        yield service


@pytest.fixture
def client(service: testing.FakeService, client_of: Callable[..., EdgeClient]) -> Iterator[EdgeClient]:
    with client_of(service.url) as client:
        client.examples.put("sun and sand", "warm")
        yield client


def test_device_enrols_trains_and_delivers(service: testing.FakeService, client: EdgeClient) -> None:
    visit = client.run_once()

    assert (visit.outcome, visit.reason) == ("accepted", "the update is in the round")
    assert service.updates[0].rank == 4
    assert service.reports == [visit.report]
    assert [request.split("/")[-1] for request in service.requests[:3]] == [
        "check-ins",
        "devices",
        "check-ins",
    ]
    assert client.run_once().outcome == "no_work"


def test_update_may_come_in_parts(service: testing.FakeService, client_of: Callable[..., EdgeClient]) -> None:
    service.script = [None] * 16 + [testing.CUT]
    with client_of(service.url, upload_part_bytes=100) as client:
        assert client.run_once().outcome == "accepted"
    parts = [request for request in service.requests if request.startswith("PATCH")]
    assert len(parts) >= len(service.bodies[0]) / 100
    assert service.script == []


def test_update_in_int8_comes_where_the_training_asks_for_it(
    service: testing.FakeService, client: EdgeClient, bundle: Bundle
) -> None:
    service.offer_work(bundle, TRAINING.model_copy(update={"upload_precision": "int8"}))
    assert client.run_once().outcome == "accepted"
    assert {str(tensor.dtype) for tensor in load(service.bodies[0]).values()} == {"int8", "float32"}
    # From zeros half of the way to 1, three times over: all numbers move alike, by 127 steps.
    moved = service.updates[0].factors["query"].lora_B
    np.testing.assert_allclose(moved, np.full((6, 4), 0.875), rtol=1e-6)


def test_next_offer_is_the_next_round(
    service: testing.FakeService, client: EdgeClient, bundle: Bundle
) -> None:
    client.run_once()
    service.offer_work(bundle, TRAINING)
    visit = client.run_once()
    assert visit.offer is not None
    assert (visit.outcome, visit.offer.round_index, visit.offer.assignment_id) == (
        "accepted",
        1,
        "assignment-2",
    )


def test_what_the_script_does_to_a_device_is_outlasted(
    service: testing.FakeService, client: EdgeClient
) -> None:
    service.script = [ServiceFailed("it broke"), testing.CUT, None, testing.Reply(502), None]
    assert client.run_once().outcome == "accepted"
    assert service.script == []


def test_cut_connection_is_an_unreachable_service(service: testing.FakeService, client: EdgeClient) -> None:
    service.script = [testing.CUT] * 3  # as often as the tests' devices try
    with pytest.raises(ServiceUnreachable):
        client.run_once()


def test_scripted_limit_says_when_to_come_back(service: testing.FakeService, client: EdgeClient) -> None:
    service.script = [TooManyRequests("too many requests in a minute", retry_after_seconds=90)]
    with pytest.raises(TooManyRequests) as caught:
        client.run_once()
    assert caught.value.retry_after_seconds == 90


def test_devices_can_be_made_to_wait(service: testing.FakeService, client: EdgeClient) -> None:
    service.door.state = DeviceState.PENDING
    assert client.run_once().retry_after_seconds == 30
    service.door.state = DeviceState.ACCEPTED
    assert client.run_once().outcome == "accepted"


def test_key_rotation_is_understood(service: testing.FakeService, client: EdgeClient) -> None:
    client.run_once()
    before = dict(service.door.keys)
    client.rotate_key()
    assert service.door.keys.keys() == before.keys()
    assert service.door.keys != before


def test_failed_training_is_given_back(service: testing.FakeService, client: EdgeClient) -> None:
    client.examples.clear()
    assert client.run_once().outcome == "failed"
    assert [failure.code for failure in service.failures] == ["no_examples"]


@pytest.fixture
def transport(service: testing.FakeService, tmp_path: Path) -> Iterator[Transport]:
    """Of a device that has not enrolled."""
    transport = Transport(service.url, new_identity())
    yield transport
    transport.close()


def enrolment(transport: Transport, **changes: str | None) -> EnrolRequest:
    fields = {"population": "p", "enrolment_token": "token", "public_key": transport.identity.public_key}
    return EnrolRequest.model_validate(fields | changes)


def test_strangers_and_wrong_tokens_are_refused(transport: Transport) -> None:
    devices = DeviceService(transport)
    with pytest.raises(UnknownDevice):
        devices.start("assignment-1", StartRequest(rank=1))
    with pytest.raises(UnknownDevice, match="is preauthorized"):
        devices.enrol(enrolment(transport, enrolment_token=None))
    with pytest.raises(AuthenticationFailed, match="does not admit"):
        devices.enrol(enrolment(transport, enrolment_token="guess"))
    with pytest.raises(AuthenticationFailed, match="signature does not fit"):
        devices.enrol(enrolment(transport, public_key="C" * 43 + "="))


def test_what_the_schema_or_the_offer_does_not_allow_is_refused(transport: Transport) -> None:
    devices = DeviceService(transport)
    devices.enrol(enrolment(transport))
    with pytest.raises(MalformedMessage, match="rank"):
        transport.exchange("POST", "/device/v1/assignments/assignment-1:start", body=b'{"rank": 0}')
    with pytest.raises(RankOutOfRange):
        devices.start("assignment-1", StartRequest(rank=5))
    with pytest.raises(NotFound):
        devices.start("assignment-2", StartRequest(rank=1))
    with pytest.raises(NotFound):
        transport.exchange("GET", f"/device/v1/objects/{'0' * 64}")


def test_wrong_clock_is_told(service: testing.FakeService, transport: Transport) -> None:
    DeviceService(transport).enrol(enrolment(transport))
    service.door.clock = lambda: 0.0
    with pytest.raises(ClockSkew):
        transport.exchange("GET", f"/device/v1/objects/{'0' * 64}")


def test_replayed_or_changed_request_is_refused(
    service: testing.FakeService, transport: Transport, bundle: Bundle
) -> None:
    DeviceService(transport).enrol(enrolment(transport))
    seen: list[httpx.Request] = []
    transport._client.event_hooks["request"].append(seen.append)
    transport.exchange("GET", f"/device/v1/objects/{bundle.digest}?part=1")

    def again(change: Callable[[httpx.Request], httpx.Request]) -> str:
        request = change(seen[0])
        return str(httpx.request(request.method, request.url, headers=request.headers).json()["code"])

    assert again(lambda request: request) == ReplayedRequest.code
    other = f"{service.url}/device/v1/objects/{bundle.digest}?part=2"
    assert again(lambda request: httpx.Request("GET", other, headers=request.headers)) == (
        AuthenticationFailed.code
    )


def test_body_that_is_not_the_signed_one_is_refused(
    service: testing.FakeService, transport: Transport
) -> None:
    DeviceService(transport).enrol(enrolment(transport))
    seen: list[httpx.Request] = []
    transport._client.event_hooks["request"].append(seen.append)
    with pytest.raises(MalformedMessage):
        transport.exchange("POST", "/device/v1/check-ins", body=b"{}")
    request = seen[0]
    answer = httpx.post(request.url, headers=request.headers, content=b"[]")
    assert answer.json()["code"] == DigestMismatch.code


def test_url_outside_of_the_block_is_a_fault_of_the_test() -> None:
    with pytest.raises(RuntimeError, match="within its `with` block"):
        _ = testing.FakeService().url


def test_without_a_bundle_there_is_no_work(transport: Transport) -> None:
    with testing.FakeService() as service:
        alone = Transport(service.url, transport.identity)
        devices = DeviceService(alone)
        devices.enrol(enrolment(transport))
        request = CheckIn(
            protocol_version=1, sdk_version="0", population="p", capabilities=STRONG, example_count=1
        )
        assert devices.check_in(request).offer is None
        alone.close()
    assert service.check_ins == [request]


def test_evaluation_is_offered_to_who_holds_examples_out(
    service: testing.FakeService, client: EdgeClient, bundle: Bundle
) -> None:
    service.offer_work(bundle, TRAINING, kind="evaluate")
    assert client.run_once().outcome == "no_work"
    client.held_out.put("snow", "cold")

    visit = client.run_once()

    assert (visit.outcome, visit.reason) == ("accepted", "the report is in the evaluation")
    assert [visit.evaluation] == service.evaluations
    assert service.offer is None
