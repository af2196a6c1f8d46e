"""How long devices wait: never less than they were asked to, spread over all that comes after it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest
import stamina
from device_clock import Stop
from fake_service import FakeService, problem
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.client import EdgeClient
from edge_sdk.events import CheckedIn, Event
from edge_sdk.folder import DeviceFolder
from edge_sdk.identity.identity import new_identity
from edge_sdk.session.keep_visiting import SHORTEST_WAIT_SECONDS, keep_visiting
from edge_sdk.session.visit import Visit
from edge_sdk.transport.retries import MAX_TRIES, asked_seconds, full_jitter
from edge_sdk.transport.transport import Transport
from edge_sdk.transport.way import Way
from hetlora.errors import (
    BodyTooSlow,
    BundleInvalid,
    ConditionsUnmet,
    DeviceTooSmall,
    DiskFull,
    HetloraError,
    NoExamples,
    RefusedError,
    ServiceFailed,
    SettingsError,
    Stopped,
    StoreDamaged,
    TooManyRequests,
    UnavailableError,
    UnknownDevice,
)
from hetlora.messages.common import problem_of

MakeClient = Callable[..., EdgeClient]
A_DAY = 24 * 3600.0


@given(
    failures=st.integers(1, 100_000),
    asked=st.floats(0, 7 * A_DAY),
    first=st.floats(0.01, 10),
    longest=st.floats(10, 1000),
    seed=st.integers(0, 2**32),
)
def test_wait_lies_between_what_was_asked_and_a_bound_that_doubles(
    failures: int, asked: float, first: float, longest: float, seed: int
) -> None:
    waited = full_jitter(failures, asked, random.Random(seed), first_seconds=first, longest_seconds=longest)
    bound = min(longest, first * 2.0 ** min(failures - 1, 1000))
    assert asked <= waited <= asked + bound


@given(failures=st.integers(1, 20), asked=st.floats(0, 60))
def test_waits_of_a_fleet_fill_the_whole_window(failures: int, asked: float) -> None:
    jitter = random.Random(0)
    bound = min(8.0, 0.5 * 2 ** (failures - 1))
    waits = sorted(
        (full_jitter(failures, asked, jitter, first_seconds=0.5, longest_seconds=8.0) - asked) / bound
        for _ in range(400)
    )
    # Of 400 evenly drawn shares none is further from its place than 0.15, but once in 10^7 draws.
    assert all(abs(share - place / 400) < 0.15 for place, share in enumerate(waits))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"Retry-After": "12"}, 12.0),
        ({"Retry-After": "-12"}, 0.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:01:30 GMT", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}, 90.0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:00 GMT", "Date": "Sun, 22 Nov 2026 12:01:30 GMT"}, 0.0),
        ({"Retry-After": "Sun, 22 Nov 2026 12:01:30 GMT"}, 0.0),
    ],
    ids=["nothing", "seconds", "negative", "a word", "a date", "a date that is past", "a date by no clock"],
)
def test_answer_says_when_to_come_back(headers: dict[str, str], seconds: float) -> None:
    assert asked_seconds(httpx.Headers(headers)) == seconds


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_window_that_is_asked_for_is_kept_to_between_tries(folder: DeviceFolder, status: int) -> None:
    waits: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"Retry-After": "12"})

    with (
        stamina.set_testing(False),
        closing(
            Transport(
                "http://service.test",
                new_identity(),
                Way(http=httpx.MockTransport(answer)),
                sleep=waits.append,
            )
        ) as transport,
        pytest.raises(UnavailableError),
    ):
        transport.exchange("GET", "/device/v1/x")
    assert len(waits) == MAX_TRIES - 1
    bounds = [min(8.0, 0.5 * 2**number) for number in range(MAX_TRIES - 1)]
    assert all(12.0 <= wait <= 12.0 + bound for wait, bound in zip(waits, bounds, strict=True))


@pytest.mark.parametrize("kind", [UnavailableError, ServiceFailed, TooManyRequests])
def test_window_that_ended_a_visit_is_kept_to_before_the_next(kind: type[UnavailableError]) -> None:
    stop = Stop()

    def visit() -> Visit:
        if len(stop.waits) == 3:
            stop.set()
            return Visit("no_work", "", 0.0)
        raise kind("later", retry_after_seconds=600.0)

    keep_visiting(visit, stop, lambda visit: None)
    assert all(600.0 <= wait <= 620.0 for wait in stop.waits[:3])
    assert stop.waits[3:] == [SHORTEST_WAIT_SECONDS]


def test_device_that_nobody_answers_for_weeks_is_still_there() -> None:
    stop = Stop(after=5000)

    def visit() -> Visit:
        raise ServiceFailed("away")

    keep_visiting(visit, stop, lambda visit: None)
    assert len(stop.waits) == 5000
    assert max(stop.waits) <= 300


def test_service_that_asks_for_no_wait_does_not_have_a_device_spin(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = Stop(after=3)
    service.offer, service.retry_after_seconds = None, 0.0
    make_client().run_forever(stop=stop)
    assert stop.waits == [1.0, 1.0, 1.0]


def test_app_that_raises_once_is_visited_for_again(
    service: FakeService, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def raise_once(event: Event) -> None:
        if isinstance(event, CheckedIn) and not raised:
            raised.append(event)
            raise RuntimeError(text)

    def on_visit(visit: Visit) -> None:
        visits.append(visit.outcome)
        stop.set()

    text = "where is my parcel"
    raised: list[Event] = []
    visits: list[str] = []
    stop = Stop()
    make_client(on_event=raise_once).run_forever(stop=stop, on_visit=on_visit)
    assert (len(raised), visits) == (1, ["accepted"])
    assert "in raise_once" in caplog.text  # where it was raised, and not what it says
    assert text not in caplog.text


@pytest.mark.parametrize("error", [UnknownDevice("who"), SettingsError("no"), StoreDamaged("torn")])
def test_what_no_waiting_mends_ends_the_visits(error: HetloraError) -> None:
    def visit() -> Visit:
        raise error

    with pytest.raises(type(error)):
        keep_visiting(visit, threading.Event(), lambda visit: None)


@pytest.mark.parametrize("error", [UnavailableError("the database is away"), BodyTooSlow("it crept")])
def test_work_is_kept_while_the_service_cannot_take_it(
    service: FakeService, make_client: MakeClient, error: HetloraError
) -> None:
    client = make_client()
    client.run_once()
    # Check-in, start and the adapter pass; the upload does not.
    service.script = [None, None, None, *[error] * 3]
    with pytest.raises((ServiceFailed, BodyTooSlow)):
        client.run_once()
    assert service.failures == []
    service.requests.clear()
    assert client.run_once().outcome == "accepted"
    assert [request.rsplit("/", 1)[1] for request in service.requests] == [
        "check-ins",
        "update",
        "assignment-1:submit",
    ]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (403, Stopped("this visit was asked to end")),
        (503, StoreDamaged("torn")),
        (500, NoExamples("none")),
        (500, UnknownDevice("who")),
        (507, DiskFull("full")),
        (503, ConditionsUnmet("too hot")),
        (409, DeviceTooSmall("too small")),
    ],
    ids=lambda value: value.code if isinstance(value, HetloraError) else str(value),
)
def test_device_outlasts_a_service_that_speaks_of_a_devices_own_faults(
    service: FakeService, make_client: MakeClient, status: int, error: HetloraError
) -> None:
    lie = problem_of(error).model_copy(update={"status": status}).model_dump_json()
    service.faults = [httpx.Response(status, content=lie) for _ in range(3)]
    with pytest.raises(ServiceFailed, match=error.what):
        make_client().run_once()
    service.faults = [httpx.Response(status, content=lie) for _ in range(3)]
    stop, visits = Stop(), list[Visit]()

    def on_visit(visit: Visit) -> None:
        visits.append(visit)
        stop.set()

    make_client().run_forever(stop=stop, on_visit=on_visit)
    assert [visit.outcome for visit in visits] == ["accepted"]
    assert len(stop.waits) >= 2  # after the lie, of seconds, and after the visit
    assert not service.faults


@pytest.mark.parametrize(
    "error", [StoreDamaged("torn"), NoExamples("none"), SettingsError("no"), BundleInvalid("torn")]
)
def test_refusal_that_speaks_of_a_devices_own_faults_is_the_services(
    service: FakeService, transport: Transport, error: HetloraError
) -> None:
    service.faults = [problem(error)]
    with pytest.raises(RefusedError, match=error.what) as caught:
        transport.exchange("GET", "/device/v1/objects/0")
    assert type(caught.value) is RefusedError
