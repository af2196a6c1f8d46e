"""A visit that an app asks to end does so within a step, and is gone on with."""

from __future__ import annotations

import threading
from collections.abc import Callable

import httpx
from adapter_rounds import offer_round
from fake_service import FakeService

from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, StepDone, Submitted
from edge_sdk.session.visit import Visit

MakeClient = Callable[..., EdgeClient]


class StopsAt:
    """Asks for the end when an event has come, and remembers the steps that were taken."""

    def __init__(self, wanted: Callable[[Event], bool]) -> None:
        self.stop = threading.Event()
        self.steps: list[int] = []
        self._wanted = wanted

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self.steps.append(event.step)
        if self._wanted(event):
            self.stop.set()


def asked(service: FakeService) -> list[str]:
    """What was asked of the assignment."""
    return [request.rpartition("/")[2] for request in service.requests if "/assignments/" in request]


def test_visit_ends_with_the_step_under_way_and_gives_nothing_back(
    service: FakeService, make_client: MakeClient
) -> None:
    app = StopsAt(lambda event: isinstance(event, StepDone))
    client = make_client(on_event=app)
    visit = client.run_once(stop=app.stop)
    assert (visit.outcome, visit.offer, visit.error) == ("stopped", service.offer, None)
    assert app.steps == [1]
    assert asked(service) == ["assignment-1:start"]
    later = StopsAt(lambda event: False)
    assert make_client(on_event=later).run_once(stop=later.stop).outcome == "accepted"
    assert later.steps[0] == 2


def test_trained_update_waits_for_the_next_visit(service: FakeService, make_client: MakeClient) -> None:
    app = StopsAt(lambda event: isinstance(event, StepDone) and event.step == event.steps)
    assert make_client(on_event=app).run_once(stop=app.stop).outcome == "stopped"
    assert asked(service) == ["assignment-1:start"]
    later = StopsAt(lambda event: False)
    assert make_client(on_event=later).run_once().outcome == "accepted"
    assert later.steps == []
    assert asked(service)[1:] == ["update", "assignment-1:submit"]


def test_update_that_the_service_took_is_told_as_such_and_the_comparison_waits(
    service: FakeService, make_client: MakeClient
) -> None:
    app = StopsAt(lambda event: isinstance(event, Submitted))
    client = make_client(on_event=app, adoption=Adoption("if_not_worse"))
    client.held_out.put("snow", "cold")
    client.run_once()
    app.stop.clear()
    offer_round(service, 1, b=0.0)
    assert client.run_once(stop=app.stop).outcome == "accepted"
    assert client.adapters.index().is_undecided
    client.run_once()
    assert not client.adapters.index().is_undecided


def test_visits_end_when_asked_in_the_middle_of_one(make_client: MakeClient) -> None:
    app, visits = StopsAt(lambda event: isinstance(event, StepDone)), list[Visit]()
    make_client(on_event=app).run_forever(stop=app.stop, on_visit=visits.append)
    assert [visit.outcome for visit in visits] == ["stopped"]
    assert app.steps == [1]


def test_visit_ends_between_two_tries_at_a_service_that_is_silent(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = threading.Event()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        stop.set()  # while the device waits for an answer
        raise httpx.ReadTimeout("silent", request=request)

    asked: list[str] = []
    visit = make_client(http=httpx.MockTransport(answer)).run_once(stop=stop)
    assert (visit.outcome, visit.offer, asked) == ("stopped", None, ["/device/v1/check-ins"])


def test_upload_that_is_tried_again_and_again_ends_and_is_gone_on_with(
    service: FakeService, make_client: MakeClient
) -> None:
    app = StopsAt(lambda event: False)
    client = make_client(on_event=app)
    client.run_once()
    taken = len(app.steps)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/update"):
            app.stop.set()
            return httpx.Response(503, headers={"Retry-After": "60"})
        return service.http.handle_request(request)

    visit = make_client(on_event=app, http=httpx.MockTransport(answer)).run_once(stop=app.stop)
    assert (visit.outcome, visit.offer) == ("stopped", service.offer)
    assert len(app.steps) == 2 * taken
    assert make_client(on_event=app).run_once().outcome == "accepted"
    assert len(app.steps) == 2 * taken


def test_evaluation_ends_too(service: FakeService, make_client: MakeClient) -> None:
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"kind": "evaluate"})
    stop = threading.Event()
    stop.set()
    client = make_client()
    client.held_out.put("snow", "cold")
    assert client.run_once(stop=stop).outcome == "stopped"
    assert [request for request in service.requests if ":fail" in request] == []
