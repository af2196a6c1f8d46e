"""Visits of a device that may not work, or no longer may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fake_service import NOW, FakeService
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.conditions import LEFT_ALONE_SECONDS, LeftAlone
from edge_sdk.events import Event, StepDone
from edge_sdk.session.visit import NOT_ALLOWED_SECONDS
from hetlora.errors import SettingsError
from hetlora.messages.conditions import ANY_TIME, Conditions

MakeClient = Callable[..., EdgeClient]
IDLE = Conditions(idle=True)


def asked_by_the_run(service: FakeService, conditions: Conditions) -> None:
    service.offer = service.offer.model_copy(update={"conditions": conditions})


def test_device_that_may_not_work_asks_nobody(service: FakeService, make_client: MakeClient) -> None:
    visit = make_client(conditions=IDLE, is_idle=lambda: False).run_once()
    assert (visit.outcome, visit.reason) == ("not_allowed", "the device is in use")
    assert visit.retry_after_seconds == NOT_ALLOWED_SECONDS
    assert service.requests == []


def test_run_that_asks_for_more_gets_its_place_back_before_anything_is_fetched(
    service: FakeService, make_client: MakeClient
) -> None:
    asked_by_the_run(service, IDLE)
    visit = make_client(is_idle=lambda: False).run_once()
    assert (visit.outcome, visit.code) == ("failed", "conditions_unmet")
    [failure] = service.failures
    assert failure.message == "this device may not work now"  # and not that it is in use
    assert str(visit.error) == "this device may not work now; got the device is in use"
    assert service.fetched() == []


def test_run_that_asks_for_more_is_left_alone_until_that_holds(
    service: FakeService, make_client: MakeClient
) -> None:
    asked_by_the_run(service, IDLE)
    idle = [False]
    client = make_client(is_idle=lambda: idle[0])
    assert client.run_once().outcome == "failed"
    service.requests.clear()
    assert client.run_once().outcome == "not_allowed"
    assert service.requests == []
    idle[0] = True
    assert client.run_once().outcome == "accepted"


@pytest.mark.parametrize(
    ("passed", "still"), [(0, True), (LEFT_ALONE_SECONDS - 1, True), (LEFT_ALONE_SECONDS, False), (-1, False)]
)
def test_run_is_left_alone_for_an_hour_as_there_may_be_another(passed: float, still: bool) -> None:
    now = [NOW]
    left_alone = LeftAlone(lambda: now[0])
    assert left_alone.conditions() == ANY_TIME
    left_alone.note(IDLE)
    now[0] += passed
    assert left_alone.conditions() == (IDLE if still else ANY_TIME)


def test_update_that_is_ready_waits_for_a_network_that_costs_nothing(
    service: FakeService, make_client: MakeClient
) -> None:
    asked_by_the_run(service, Conditions(unmetered=True))
    last = service.offer.training.steps
    trained: list[Event] = []
    client = make_client(
        is_metered=lambda: any(isinstance(event, StepDone) and event.step == last for event in trained),
        on_event=trained.append,
    )
    visit = client.run_once()
    assert (visit.outcome, visit.reason) == ("not_allowed", "the network is metered")
    assert service.updates == service.failures == []
    steps = len(trained)
    assert make_client(is_metered=lambda: False, on_event=trained.append).run_once().outcome == "accepted"
    assert not any(isinstance(event, StepDone) for event in trained[steps:])


def test_network_that_begins_to_cost_ends_the_list_of_downloads(
    service: FakeService, make_client: MakeClient
) -> None:
    visit = make_client(
        conditions=Conditions(unmetered=True), is_metered=lambda: len(service.fetched()) == 3
    ).run_once()
    assert visit.code == "conditions_unmet"
    first = service.fetched()
    assert len(first) == 3
    assert make_client(is_metered=lambda: False).run_once().outcome == "accepted"
    # What had arrived was not fetched again.
    assert sorted(service.fetched()) == sorted(["manifest.json", *service.files, "global adapter"])


def test_memory_that_is_to_stay_free_is_taken_off_before_a_rank_is_chosen(
    service: FakeService, make_client: MakeClient
) -> None:
    small = STRONG.model_copy(update={"memory_available_bytes": 200 * 2**20})
    assert make_client(capabilities=small).run_once().outcome == "accepted"
    asked_by_the_run(service, Conditions(min_free_memory_bytes=200 * 2**20))
    assert make_client(capabilities=small).run_once().code == "device_too_small"


def test_app_that_asks_for_an_idle_device_tells_when_it_is(make_client: MakeClient) -> None:
    with pytest.raises(SettingsError, match="no is_idle"):
        make_client(conditions=IDLE)


def test_answer_that_an_app_fails_to_give_is_unknown(service: FakeService, make_client: MakeClient) -> None:
    def fails() -> bool:
        raise RuntimeError("no answer")

    visit = make_client(conditions=IDLE, is_idle=fails).run_once()
    assert visit.reason == "the app does not tell whether the device is idle"


@pytest.mark.parametrize("steps", [1, 3])
def test_training_stops_within_the_step_in_which_a_condition_is_lost(
    service: FakeService, make_client: MakeClient, steps: int
) -> None:
    asked_by_the_run(service, IDLE)
    training = service.offer.training.model_copy(update={"steps": 5})
    service.offer = service.offer.model_copy(update={"training": training})
    events: list[Event] = []

    def idle() -> Iterator[bool]:
        yield True  # before anything is fetched
        while True:
            yield sum(isinstance(event, StepDone) for event in events) < steps

    answers = idle()
    visit = make_client(is_idle=lambda: next(answers), on_event=events.append).run_once()
    assert visit.code == "conditions_unmet"
    assert [event.step for event in events if isinstance(event, StepDone)] == [*range(1, steps + 1)]
    assert service.updates == []


def test_update_whose_last_step_is_done_is_delivered(service: FakeService, make_client: MakeClient) -> None:
    asked_by_the_run(service, IDLE)
    events: list[Event] = []
    last = service.offer.training.steps
    client = make_client(
        is_idle=lambda: not any(isinstance(event, StepDone) and event.step == last for event in events),
        on_event=events.append,
    )
    assert client.run_once().outcome == "accepted"
