"""A device takes another key, and is killed or cut off at every point of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest
from device_tables import identity_in, is_rotating
from fake_service import FakeService, problem

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from hetlora.errors import (
    AuthenticationFailed,
    NotPermitted,
    ReplayedRequest,
    ServiceUnreachable,
    UnknownDevice,
)

MakeClient = Callable[..., EdgeClient]


@pytest.fixture(autouse=True)
def _no_work(service: FakeService) -> None:
    service.offer = None


def enrolled(make_client: MakeClient) -> EdgeClient:
    client = make_client()
    client.run_once()
    return client


def losing(service: FakeService, answers: int) -> httpx.MockTransport:
    """The service, whose first answers about a key get lost after it has done what it was asked."""
    left = [answers]

    def answer(request: httpx.Request) -> httpx.Response:
        answered = service.http.handler(request)
        if request.url.path.endswith(":rotate-key") and left[0]:
            left[0] -= 1
            raise httpx.ReadError("cut")
        return answered

    return httpx.MockTransport(answer)


def test_key_changes_and_the_id_stays(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = enrolled(make_client)
    device_id, old = client.device_id, service.door.keys[client.device_id]

    client.rotate_key()

    assert client.device_id == device_id
    assert service.door.keys.keys() == {device_id}
    assert service.door.keys[device_id] == identity_in(folder).public_key != old
    assert client.run_once().outcome == "no_work"
    again = make_client()
    assert again.device_id == device_id
    assert again.run_once().outcome == "no_work"


def test_key_changes_twice(service: FakeService, make_client: MakeClient, folder: DeviceFolder) -> None:
    client = enrolled(make_client)
    seen = {service.door.keys[client.device_id]}
    for _ in range(2):
        client.rotate_key()
        seen.add(service.door.keys[client.device_id])
    assert len(seen) == 3
    assert client.run_once().outcome == "no_work"
    assert not is_rotating(folder)


def test_lost_answer_is_asked_for_again_under_the_new_key(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    enrolled(make_client)
    client = make_client(http=losing(service, answers=1))

    client.rotate_key()

    assert service.door.keys == {client.device_id: identity_in(folder).public_key}
    assert client.run_once().outcome == "no_work"


@pytest.mark.parametrize("replays", [1, 3])
def test_rotation_that_something_on_the_way_sent_twice_costs_no_key(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, replays: int
) -> None:
    enrolled(make_client)
    left = [replays]

    def twice(request: httpx.Request) -> httpx.Response:
        answered = service.http.handler(request)
        if request.url.path.endswith(":rotate-key") and left[0]:
            left[0] -= 1
            return problem(ReplayedRequest("seen before"))
        return answered

    client = make_client(http=httpx.MockTransport(twice))
    with suppress(ReplayedRequest):  # after three tries
        client.rotate_key()

    assert client.run_once().outcome == "no_work"
    assert not is_rotating(folder)
    assert service.door.keys == {client.device_id: identity_in(folder).public_key}


@pytest.mark.parametrize("answers", [0, 2])
def test_rotation_that_broke_off_is_finished_by_the_next_visit(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, answers: int
) -> None:
    enrolled(make_client)
    client = make_client(http=losing(service, answers=99))
    with pytest.raises(ServiceUnreachable):
        client.rotate_key()
    assert is_rotating(folder)

    client = make_client(http=losing(service, answers=answers))

    assert client.run_once().outcome == "no_work"
    assert not is_rotating(folder)
    assert service.door.keys == {client.device_id: identity_in(folder).public_key}


def test_device_killed_before_the_service_heard_of_the_new_key_goes_on(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = enrolled(make_client)
    service.faults = [RuntimeError("killed")]
    with pytest.raises(RuntimeError, match="killed"):
        client.rotate_key()
    client = make_client()
    assert client.run_once().outcome == "no_work"
    assert service.door.keys == {client.device_id: identity_in(folder).public_key}


@pytest.mark.parametrize("error", [NotPermitted("suspended"), UnknownDevice("who?")], ids=lambda e: e.code)
def test_refused_rotation_leaves_the_key(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, error: Exception
) -> None:
    client = enrolled(make_client)
    old = identity_in(folder).public_key
    service.faults = [problem(error)]  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        client.rotate_key()
    assert identity_in(folder).public_key == old
    assert not is_rotating(folder)
    assert client.run_once().outcome == "no_work"


def test_device_of_which_neither_key_is_in_force_is_told_so(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = enrolled(make_client)
    service.door.keys[client.device_id] = "A" * 43 + "="  # somebody else took the device over
    with pytest.raises(AuthenticationFailed):
        client.rotate_key()
    with pytest.raises(AuthenticationFailed):
        client.run_once()
