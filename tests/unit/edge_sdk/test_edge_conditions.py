"""Visits of a device that may not work, or no longer may."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fake_service import FakeService

from edge_sdk.client import NOT_ALLOWED_SECONDS, EdgeClient
from edge_sdk.events import Event, StepDone
from hetlora.messages.conditions import Conditions

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
    assert failure.message == "this device may not work now; got the device is in use"
    assert service.fetched() == []


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
