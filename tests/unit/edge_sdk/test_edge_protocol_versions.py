"""Devices and services of different versions: the newest that both speak, or a plain answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_service import FakeService, problem
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.session.enrolment import check_in, enrolment_of
from edge_sdk.transport.service import DeviceService
from edge_sdk.transport.transport import Transport
from hetlora.errors import ProtocolUnsupported, RefusedError
from hetlora.messages.common import Problem, error_of, problem_of
from hetlora.messages.device import CheckIn, CheckInAnswer

MakeClient = Callable[..., EdgeClient]
TOLD = CheckIn(
    protocol_version=1, sdk_version="0", population="weather", capabilities=STRONG, example_count=1
)


def refusal(*spoken: int) -> ProtocolUnsupported:
    return ProtocolUnsupported("not spoken here", got=1, expected=spoken, spoken=spoken)


def checked_in(transport: Transport, spoken: tuple[int, ...]) -> CheckInAnswer:
    enrolment = enrolment_of("weather", "", "token", transport.identity)
    return check_in(DeviceService(transport), TOLD, enrolment, lambda status: None, spoken)


def test_newer_device_goes_on_at_the_newest_version_that_the_service_speaks(
    service: FakeService, transport: Transport
) -> None:
    # The fake parses as today's service does: 3 and 2 are refused by it, 1 is not.
    assert checked_in(transport, (1, 2, 3)).offer == service.offer
    assert [told.protocol_version for told in service.check_ins] == [1]
    assert service.requests == ["POST /device/v1/check-ins"] * 2


def test_newer_device_that_dropped_what_the_service_speaks_is_told(
    service: FakeService, transport: Transport
) -> None:
    with pytest.raises(ProtocolUnsupported, match="not spoken here; got 3; expected 1") as caught:
        checked_in(transport, (2, 3))
    assert caught.value.spoken == (1,)
    assert len(service.requests) == 1


def test_older_device_works_with_a_newer_service_that_still_speaks_its_version(
    service: FakeService, make_client: MakeClient
) -> None:
    # A service of versions 1 and 2 answers a check-in of version 1 in version 1.
    assert make_client().run_once().outcome == "accepted"
    assert {told.protocol_version for told in service.check_ins} == {1}


def test_older_device_is_told_what_a_service_speaks_that_dropped_its_version(
    service: FakeService, make_client: MakeClient
) -> None:
    service.script = [refusal(2, 3)]
    with pytest.raises(ProtocolUnsupported, match=r"got 1; expected \(2, 3\)") as caught:
        make_client().run_once()
    assert caught.value.spoken == (2, 3)
    assert len(service.requests) == 1


def test_service_that_refuses_a_version_which_it_says_it_speaks_is_not_asked_again(
    service: FakeService, make_client: MakeClient
) -> None:
    service.script = [refusal(1)] * 2
    with pytest.raises(ProtocolUnsupported):
        make_client().run_once()
    assert len(service.requests) == 1


def test_version_is_negotiated_before_a_device_enrols(service: FakeService, transport: Transport) -> None:
    service.door.keys.clear()
    assert checked_in(transport, (1, 2)).offer == service.offer
    assert service.requests == [
        "POST /device/v1/check-ins",
        "POST /device/v1/devices",
        "POST /device/v1/check-ins",
        "POST /device/v1/check-ins",
    ]


def test_refusal_travels_with_the_versions_that_are_spoken() -> None:
    document = problem_of(refusal(2, 3))
    told = error_of(Problem.model_validate_json(document.model_dump_json()))
    assert isinstance(told, ProtocolUnsupported)
    assert told.spoken == (2, 3)
    assert problem(refusal(2, 3)).status_code == 422
    # Who does not know the code, as an SDK from before it, sees a refusal all the same.
    assert type(error_of(document.model_copy(update={"code": "of_tomorrow"}))) is RefusedError
