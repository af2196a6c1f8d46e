"""The client as an app holds it: its settings, its folder, and run_forever."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from device_clock import Stop
from fake_service import NOW, PORTAL, FakeService, problem
from store_files import bytes_in, wrapped_keys

from edge_sdk.client import EdgeClient
from edge_sdk.events import AwaitingApproval, CheckedIn
from edge_sdk.examples import Example
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.visit import Visit
from hetlora.errors import (
    NotPermitted,
    ReplayedRequest,
    SettingsError,
    StoreKeyWrong,
    TooManyRequests,
    UnknownDevice,
)
from hetlora.states import DeviceState

MakeClient = Callable[..., EdgeClient]
KEY = bytes(range(32))


def test_unknown_device_without_token_is_told_so(make_client: MakeClient) -> None:
    with pytest.raises(UnknownDevice):
        make_client(enrolment_token=None).run_once()


def test_device_that_waits_for_approval_is_told_so_and_comes_back(
    service: FakeService, make_client: MakeClient
) -> None:
    service.door.state, service.offer = DeviceState.PENDING, None
    events: list[object] = []
    client = make_client(on_event=events.append)

    first, second = client.run_once(), client.run_once()  # not enrolled before; enrolled, and not accepted

    waits = Visit("no_work", "an operator has to accept this device first", 30.0)
    assert first == second == waits
    assert events == [AwaitingApproval(client.device_id), CheckedIn(None, waits.reason)] * 2
    service.door.state = DeviceState.ACCEPTED
    assert client.run_once().reason == "no run is active"


@pytest.mark.parametrize("state", [DeviceState.SUSPENDED, DeviceState.REJECTED, DeviceState.DECOMMISSIONED])
def test_device_that_was_shut_out_is_told_so(
    service: FakeService, make_client: MakeClient, state: DeviceState
) -> None:
    client = make_client()
    client.run_once()
    service.door.state = state
    with pytest.raises(NotPermitted, match=f"got state {state}"):
        client.run_once()


def test_device_that_is_not_permitted_is_told_so(service: FakeService, make_client: MakeClient) -> None:
    service.faults = [problem(NotPermitted("device is suspended"))]
    with pytest.raises(NotPermitted, match="suspended"):
        make_client().run_once()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"population": "Bad Name"}, "population: "),
        ({"population": "Bad Name", "enrolment_token": None}, "population: "),
        ({"name": "x" * 129}, "name: "),
        ({"enrolment_token": ""}, "enrolment_token: "),
        ({"traffic_bytes_per_round": 1}, "given twice"),
    ],
    ids=["population", "population of an enrolled device", "name", "token", "traffic beside capabilities"],
)
def test_setting_that_cannot_be_used_is_refused_at_once(
    service: FakeService, make_client: MakeClient, given: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SettingsError, match=fault):
        make_client(**given)
    assert service.requests == []


def test_device_keeps_its_name_from_start_to_start(make_client: MakeClient) -> None:
    first = make_client()
    assert make_client().device_id == first.device_id


def test_device_folder_is_closed_to_others(make_client: MakeClient, folder: DeviceFolder) -> None:
    make_client()
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_run_forever_goes_at_the_services_pace_until_stopped(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = Stop(after=3)
    service.offer = None
    visits: list[Visit] = []
    make_client().run_forever(stop=stop, on_visit=visits.append)
    assert len(visits) == 3
    assert stop.waits == [7.0, 7.0, 7.0]


def test_run_forever_outlasts_a_service_that_is_away(service: FakeService, make_client: MakeClient) -> None:
    stop = Stop(after=9)  # three tries are each followed by a wait of their own
    service.offer = None
    service.faults = [httpx.ConnectError("refused")] * 6
    make_client().run_forever(stop=stop)
    away, longer, back = stop.waits[3], stop.waits[7], stop.waits[8]
    assert 0 <= away <= 5
    assert 0 <= longer <= 10
    assert back == 7.0


def test_run_forever_outlasts_a_way_that_sends_every_request_twice(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = Stop(after=5)  # three of them within the visit
    service.offer = None
    service.faults = [problem(ReplayedRequest("seen before"))] * 3
    make_client().run_forever(stop=stop)
    away, back = stop.waits[3:]
    assert 0 <= away <= 5
    assert back == 7.0


def test_run_forever_waits_as_long_as_a_busy_service_asks(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = Stop(after=2)
    service.offer = None
    busy = problem(TooManyRequests("too many requests in a minute"))
    busy.headers["Retry-After"] = "90"
    service.faults = [busy]  # once: so long a wait is none of a visit's

    make_client().run_forever(stop=stop)

    asked, back = stop.waits
    assert 90 <= asked <= 95
    assert back == 7.0


def test_run_forever_outlasts_a_captive_portal(service: FakeService, make_client: MakeClient) -> None:
    stop = Stop(after=3)
    service.offer = None
    service.faults = [PORTAL, PORTAL]
    visits: list[Visit] = []
    make_client().run_forever(stop=stop, on_visit=visits.append)
    assert [visit.outcome for visit in visits] == ["no_work"]


def test_log_tells_a_visit_that_failed_by_its_stable_code(
    service: FakeService, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    service.offer = None
    service.faults = [PORTAL]
    make_client().run_forever(stop=Stop(after=2))
    assert "error=service_unreachable: the answer is not one of a hetlora service" in caplog.text


def test_second_client_of_one_folder_is_refused(folder: DeviceFolder, make_client: MakeClient) -> None:
    first = make_client()

    with pytest.raises(SettingsError, match="in use"):
        EdgeClient("http://service.test", "weather", folder.root)

    first.close()
    EdgeClient("http://service.test", "weather", folder.root).close()


def test_examples_are_encrypted_under_the_apps_key_and_another_opens_nothing(
    folder: DeviceFolder, make_client: MakeClient
) -> None:
    make_client(encryption_key=KEY).held_out.put("kept back", "cold")
    with pytest.raises(StoreKeyWrong):
        make_client()
    # What was refused holds nothing: neither the folder nor the file.
    client = make_client(encryption_key=bytes(32), previous_encryption_key=lambda: KEY)
    assert client.examples.count() == 2
    assert list(client.held_out) == [Example("kept back", "cold")]
    files = [path.read_bytes() for path in folder.root.iterdir() if path.is_file()]
    assert not any(text in data for data in files for text in (b"snow and ice", b"kept back"))


def test_expired_examples_go_with_the_next_visit_and_are_not_told_of(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    now = [NOW]
    service.offer = None
    client = make_client(clock=lambda: now[0], keep_examples_seconds=60)
    client.run_once()
    client.held_out.put("forever", "cold", keep_seconds=9e9)
    now[0] += 60
    keys = [key for key in wrapped_keys(folder.examples_file).values() if key in bytes_in(folder.root)]
    client.run_once()
    assert [(told.example_count, told.held_out_count) for told in service.check_ins] == [(2, 0), (0, 1)]
    assert len(keys) == 2
    assert not any(key in bytes_in(folder.root) for key in keys)


def test_both_stores_keep_to_the_bytes_they_are_given(make_client: MakeClient) -> None:
    client = make_client(max_example_bytes=2000)
    for store in (client.examples, client.held_out):
        store.put_many(Example(f"text {number}", "cold") for number in range(50))
        assert 2 < store.count() < 15
        assert store.size_bytes() <= 2000
