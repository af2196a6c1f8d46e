"""Updates in parts: resumed where they were cut off, by the same visit or by a later process."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from device_tables import stored_parts
from fake_service import PORTAL, FakeService, problem

from edge_sdk.client import EdgeClient
from edge_sdk.folder import DeviceFolder
from hetlora.digest import sha256_of
from hetlora.errors import (
    ChecksumMismatch,
    NonFiniteValues,
    OffsetMismatch,
    ServiceFailed,
    ServiceUnreachable,
    SettingsError,
)
from hetlora.testing import Reply, Request

MakeClient = Callable[..., EdgeClient]
PART_BYTES = 100
CHECK_IN_START_ADAPTER = [None] * 3
CUT = httpx.ReadError("cut")


class PartTaker(FakeService):
    """Notes the parts that it takes, and loses what it is told to.

    `loses_answers` are numbers of parts, from 0, whose answers get lost on their way back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []  # what was there each time
        self.parts: list[tuple[int, int]] = []  # offset and size of all that were taken
        self.loses_answers: set[int] = set()
        self.forgets_after: int | None = None  # so many parts, once
        self.location = "/device/v1/uploads/"
        self.on_part: Callable[[], object] = lambda: None  # called with each that was taken

    @property
    def uploads(self) -> dict[str, bytes]:
        return self._parts.uploads

    def _route(self, request: Request) -> Reply:
        reply = super()._route(request)
        if "Location" in reply.headers:
            self.begun.append(int(reply.headers["Upload-Offset"]))
            location = reply.headers["Location"].replace("/device/v1/uploads/", self.location)
            return replace(reply, headers={**reply.headers, "Location": location})
        return reply

    def _take_part(self, request: Request, sha256: str) -> Reply:
        assert request.headers["Content-Type"] == "application/offset+octet-stream"
        assert decoded(request.headers["Upload-Checksum"]) == sha256_of(request.body)
        if len(self.parts) == self.forgets_after:
            self.uploads.clear()
            self.forgets_after = None
        offset = int(request.headers["Upload-Offset"])
        reply = super()._take_part(request, sha256)
        self.parts.append((offset, len(request.body)))
        self.on_part()
        if len(self.parts) - 1 in self.loses_answers:
            raise CUT
        return reply

    def sent_bytes(self) -> list[int]:
        """The sizes of the parts of an update that came once, in order and without a gap."""
        assert [offset for offset, _ in self.parts] == [
            sum(size for _, size in self.parts[:number]) for number in range(len(self.parts))
        ]
        return [size for _, size in self.parts]


def decoded(header: str) -> str:
    return base64.b64decode(header.removeprefix("sha256 ")).hex()


@pytest.fixture
def service() -> PartTaker:
    return PartTaker()


@pytest.fixture
def client(make_client: MakeClient, service: PartTaker) -> EdgeClient:
    """A client that is enrolled, and about to upload in parts."""
    make_client().run_once()
    service.requests.clear()
    service.bodies.clear()
    return make_client(upload_part_bytes=PART_BYTES)


def upload_of(service: PartTaker) -> bytes:
    (body,) = service.bodies
    return body


def test_update_of_one_part_goes_by_one_request(make_client: MakeClient, service: PartTaker) -> None:
    make_client().run_once()
    size = len(upload_of(service))
    assert make_client(upload_part_bytes=size).run_once().outcome == "accepted"
    assert service.begun == []
    assert make_client(upload_part_bytes=size - 1).run_once().outcome == "accepted"
    assert service.sent_bytes() == [size - 1, 1]


def test_larger_update_goes_in_parts(client: EdgeClient, service: PartTaker) -> None:
    assert client.run_once().outcome == "accepted"
    size = len(upload_of(service))
    assert size > 3 * PART_BYTES
    whole, rest = divmod(size, PART_BYTES)
    assert service.sent_bytes() == [PART_BYTES] * whole + [rest] * (rest > 0)
    assert service.begun == [0]
    assert not [request for request in service.requests if "PUT" in request]


def test_part_whose_answer_is_lost_is_not_sent_again(client: EdgeClient, service: PartTaker) -> None:
    service.loses_answers = {0, 1, 2, 3}
    assert client.run_once().outcome == "accepted"
    assert sum(service.sent_bytes()) == len(upload_of(service))
    assert service.begun[:4] == [0, 100, 200, 300]


def test_stop_ends_an_upload_with_the_part_under_way_and_a_later_visit_goes_on(
    client: EdgeClient, service: PartTaker
) -> None:
    stop = threading.Event()

    def on_part() -> None:
        if len(service.parts) == 2:
            stop.set()

    service.on_part = on_part
    visit = client.run_once(stop=stop)
    assert (visit.outcome, visit.offer) == ("stopped", service.offer)
    assert service.sent_bytes() == [PART_BYTES] * 2
    assert not [request for request in service.requests if ":fail" in request or ":submit" in request]
    assert client.run_once().outcome == "accepted"
    assert service.begun == [0, 2 * PART_BYTES]
    assert sum(service.sent_bytes()) == len(upload_of(service))


def test_part_that_never_arrives_is_sent_again(client: EdgeClient, service: PartTaker) -> None:
    # One part arrives; then each stretch has its three tries.
    cut = [CUT, None, CUT]
    service.faults = [*CHECK_IN_START_ADAPTER, None, None, *cut, None, None, *cut]
    assert client.run_once().outcome == "accepted"
    assert sum(service.sent_bytes()) == len(upload_of(service))


def test_part_that_was_damaged_on_its_way_is_sent_again(client: EdgeClient, service: PartTaker) -> None:
    service.faults = [*CHECK_IN_START_ADAPTER, None, None, problem(ChecksumMismatch("damaged"))]
    assert client.run_once().outcome == "accepted"
    assert sum(service.sent_bytes()) == len(upload_of(service))


@pytest.mark.parametrize(
    "faults", [[CUT] * 3, [problem(ServiceFailed("ill"))] * 3, [PORTAL]], ids=["cut", "ill", "portal"]
)
def test_later_process_sends_only_what_is_missing(
    client: EdgeClient,
    make_client: MakeClient,
    service: PartTaker,
    folder: DeviceFolder,
    faults: list[Any],
) -> None:
    service.faults = [*CHECK_IN_START_ADAPTER, None, None, None, *faults]
    with pytest.raises((ServiceUnreachable, ServiceFailed)):
        client.run_once()
    assert service.sent_bytes() == [PART_BYTES] * 2
    client.close()

    assert make_client(upload_part_bytes=150).run_once().outcome == "accepted"
    assert service.begun[-1] == 200
    assert service.sent_bytes()[:3] == [100, 100, 150]
    assert sum(service.sent_bytes()) == len(upload_of(service))
    assert stored_parts(folder) == set()


def test_upload_that_is_gone_begins_anew(client: EdgeClient, service: PartTaker) -> None:
    service.forgets_after = 2
    assert client.run_once().outcome == "accepted"
    assert service.parts[:4] == [(0, 100), (100, 100), (0, 100), (100, 100)]
    assert service.begun == [0, 0]


def test_update_that_is_refused_with_its_last_part_is_given_back(
    client: EdgeClient, service: PartTaker, folder: DeviceFolder
) -> None:
    refused = problem(NonFiniteValues("lora_A of query holds values that are not finite"))
    service.faults = [*CHECK_IN_START_ADAPTER, None, None, refused]
    visit = client.run_once()
    assert (visit.outcome, visit.code) == ("failed", "non_finite_values")
    assert stored_parts(folder) == set()


def test_service_that_contradicts_itself_is_not_asked_for_ever(
    client: EdgeClient, service: PartTaker
) -> None:
    elsewhere = problem(OffsetMismatch("elsewhere"))
    service.faults = [*CHECK_IN_START_ADAPTER, *[None, elsewhere] * 3]
    visit = client.run_once()
    assert (visit.outcome, visit.code) == ("failed", "offset_mismatch")
    assert service.begun == [0, 0, 0]


@pytest.mark.parametrize("location", ["http://elsewhere.test/files/", "", "/device/v1/uploads/../"])
def test_address_that_is_none_of_an_upload_is_no_service(
    client: EdgeClient, service: PartTaker, location: str
) -> None:
    service.location = location
    with pytest.raises(ServiceUnreachable, match="is not one of a hetlora service"):
        client.run_once()
    assert service.parts == []


@pytest.mark.parametrize("offset", ["-1", "1e3", "100000", "", "٣"])
def test_offset_that_is_none_is_no_service(client: EdgeClient, service: PartTaker, offset: str) -> None:
    headers = {"Location": "/device/v1/uploads/a", "Upload-Offset": offset.encode()}
    service.faults = [*CHECK_IN_START_ADAPTER, httpx.Response(201, headers=headers)]  # type: ignore[arg-type]
    with pytest.raises(ServiceUnreachable, match="is not one of a hetlora service"):
        client.run_once()


def test_part_that_is_taken_without_getting_further_is_no_service(
    client: EdgeClient, service: PartTaker
) -> None:
    stuck = httpx.Response(204, headers={"Upload-Offset": "0"})
    service.faults = [*CHECK_IN_START_ADAPTER, None, stuck]
    with pytest.raises(ServiceUnreachable, match="is not one of a hetlora service"):
        client.run_once()


def test_parts_of_no_bytes_are_refused(make_client: MakeClient) -> None:
    with pytest.raises(SettingsError, match="upload_part_bytes; got 0; expected at least 1"):
        make_client(upload_part_bytes=0)
