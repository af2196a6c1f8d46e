"""Visits cut off by the network or the clock: the next one goes on from what lies on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from device_tables import damage_part, kept_for_runs, stored_parts
from fake_runtime import Opened
from fake_service import PORTAL, FakeService, problem, receipt

from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, CheckedIn, Event, GivenUp, Submitted
from edge_sdk.folder import DeviceFolder
from hetlora.errors import (
    ClockSkew,
    DigestMismatch,
    HetloraError,
    NotFound,
    ReplayedRequest,
    ServiceUnreachable,
)
from hetlora.messages.device import Adaptation, CheckInAnswer
from hetlora.states import AssignmentState

MakeClient = Callable[..., EdgeClient]


def test_upload_survives_a_cut_within_the_visit(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    service.requests.clear()
    service.faults = [None, None, None, httpx.WriteError("cut"), httpx.ReadError("cut")]
    assert client.run_once().outcome == "accepted"
    assert [request for request in service.requests if "PUT" in request] == [
        "PUT /device/v1/assignments/assignment-1/update"
    ] * 3


@pytest.mark.parametrize(
    "faults", [[httpx.ConnectError("refused")] * 3, [PORTAL], [None, PORTAL]], ids=["away", "PUT", "submit"]
)
def test_update_that_found_no_service_is_delivered_by_the_next_visit_without_training_again(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, opened: Opened, faults: list[Any]
) -> None:
    client = make_client(runtime=opened)
    client.run_once()
    service.faults = [None, None, None, *faults]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert stored_parts(folder) == {"update"}
    client.close()

    visit = make_client(runtime=opened).run_once()
    assert visit.outcome == "accepted"
    assert len(opened.runtimes) == 2
    assert service.updates[-1].factors["query"].lora_B[0, 0] == np.float32(0.90625)
    assert len(service.reports) == 2
    assert stored_parts(folder) == set()


def test_kept_update_that_was_damaged_is_made_anew(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    service.faults = [None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    damage_part(folder, "update")
    assert client.run_once().outcome == "accepted"
    assert service.updates[1].rank == 4


def test_bundle_that_was_cut_off_goes_on_in_the_next_visit(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    # Check-in, enrolment, check-in, manifest, start and one file pass.
    service.faults = [*[None] * 6, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert service.failures == []
    arrived = service.fetched()[:2]
    service.requests.clear()
    assert client.run_once().outcome == "accepted"
    assert not set(arrived) & set(service.fetched())


def test_leftovers_are_gone_after_an_accepted_update(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    (folder.downloads / f"{'0' * 64}.part").write_bytes(b"of a bundle that is no more")
    client.run_once()
    assert list(folder.downloads.iterdir()) == []


def test_update_survives_a_clock_that_is_found_wrong_at_the_upload(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    skewed = problem(ClockSkew("the signature was made at another time"))
    # Check-in, start and adapter pass.
    service.faults = [None, None, None, skewed]

    with pytest.raises(ClockSkew):
        client.run_once()

    assert client.run_once().outcome == "accepted"


@pytest.mark.parametrize(
    ("state", "events", "errors"),
    [
        (AssignmentState.ACCEPTED, [Submitted], {"run-1"}),
        (AssignmentState.EXPIRED, [GivenUp], set()),
        (AssignmentState.DISCARDED, [GivenUp], set()),
        (None, [GivenUp], set()),
    ],
    ids=str,
)
def test_update_whose_receipt_was_lost_counts_if_it_was_accepted(
    service: FakeService,
    make_client: MakeClient,
    folder: DeviceFolder,
    state: AssignmentState | None,
    events: list[type[Event]],
    errors: set[str],
) -> None:
    service.adaptation = Adaptation(upload_precision="int8", error_feedback=True)
    client = make_client()
    service.faults = [*[None] * 13, *[httpx.ReadError("cut")] * 3]  # the answers to submit get lost
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert service.requests[-1].endswith(":submit")
    told: list[Event] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/check-ins"):
            nothing = CheckInAnswer(offer=None, retry_after_seconds=7, reason="the round is over")
            return httpx.Response(200, content=nothing.model_dump_json())
        if state is None:
            return problem(NotFound("no such assignment"))
        return httpx.Response(200, content=receipt(state).model_dump_json())

    visit = make_client(http=httpx.MockTransport(answer), on_event=told.append).run_once()
    assert visit.outcome == "no_work"
    assert [type(event) for event in told] == [Adopted, CheckedIn, *events]
    assert kept_for_runs(folder, "rounding_errors").keys() == errors
    assert stored_parts(folder) == set()


@pytest.mark.parametrize(
    "away", [ClockSkew("made at another time"), ReplayedRequest("seen before")], ids=["skew", "replay"]
)
def test_update_that_cannot_be_asked_about_now_is_asked_about_by_a_later_visit(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, away: HetloraError
) -> None:
    client = make_client()
    service.faults = [*[None] * 13, *[httpx.ReadError("cut")] * 3]  # the answers to submit get lost
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    client.close()
    answers = [away] * 3  # as often as a replay is tried again
    told: list[Event] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/check-ins"):
            nothing = CheckInAnswer(offer=None, retry_after_seconds=7, reason="the round is over")
            return httpx.Response(200, content=nothing.model_dump_json())
        if answers:
            return problem(answers.pop())
        return httpx.Response(200, content=receipt(AssignmentState.ACCEPTED).model_dump_json())

    later = make_client(http=httpx.MockTransport(answer), on_event=told.append)
    with pytest.raises(type(away)):
        later.run_once()
    assert stored_parts(folder) == {"update"}
    assert not {GivenUp, Submitted} & {type(event) for event in told}

    answers.clear()
    assert later.run_once().outcome == "no_work"
    assert type(told[-1]) is Submitted
    assert stored_parts(folder) == set()


def test_update_whose_report_is_refused_is_given_up_and_does_not_end_the_device(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    service.faults = [*[None] * 13, *[httpx.ReadError("cut")] * 3]  # the answers to submit get lost
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    client.close()

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/check-ins"):
            nothing = CheckInAnswer(offer=None, retry_after_seconds=7, reason="the round is over")
            return httpx.Response(200, content=nothing.model_dump_json())
        return problem(DigestMismatch("the update is another"))

    told: list[Event] = []
    later = make_client(http=httpx.MockTransport(answer), on_event=told.append)
    assert later.run_once().outcome == "no_work"
    assert GivenUp in {type(event) for event in told}
    assert stored_parts(folder) == set()
