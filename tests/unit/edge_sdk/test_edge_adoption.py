"""Whether a new adapter is put in use. The fake loss on "cold" is log(1 + e^-b), b being the mean of lora_B.

The adapter in use has b = 0.25 in each test, and a loss of 0.576; on "warm" a larger b is worse.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from adapter_rounds import b_in_use, offer_round
from device_tables import damage_part
from fake_bundle import adapter_of
from fake_runtime import NotScoring, QuadraticRuntime, quadratic
from fake_service import FakeService

from edge_sdk.adapters.adapters import Adapters, WholeAdapter
from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event, NotAdopted, StepDone, Submitted
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.session.adoption import Adopter
from edge_sdk.training.parametrisation import Parametrisation
from hetlora.errors import ServiceUnreachable, SettingsError
from hetlora.messages.conditions import Conditions

MakeClient = Callable[..., EdgeClient]
CAREFUL = Adoption("if_not_worse")


def loss_of(b: float) -> float:
    return float(np.log1p(np.exp(-b)))


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def careful(make_client: MakeClient, events: list[Event]) -> MakeClient:
    """Makes a client after a first round, which holds out three texts that are "cold"."""

    def make(**given: Any) -> EdgeClient:
        make_client().run_once()
        client = make_client(**({"adoption": CAREFUL, "on_event": events.append} | given))
        for text in ("snow", "ice", "snow and ice"):
            client.held_out.put(text, "cold", key=text)
        return client

    return make


def outcomes(events: list[Event]) -> list[type]:
    return [type(event) for event in events if isinstance(event, (Adopted, NotAdopted))]


@pytest.mark.parametrize(
    ("b", "tolerance", "outcome"),
    [
        (0.5, 0.0, Adopted),
        (0.25, 0.0, Adopted),  # no worse
        (0.0, 0.0, NotAdopted),
        (0.0, 0.12, Adopted),  # 0.693 - 0.576 = 0.117
        (0.0, 0.11, NotAdopted),
    ],
)
def test_new_adapter_is_adopted_unless_its_loss_is_above_by_more_than_the_tolerance(
    service: FakeService,
    careful: MakeClient,
    events: list[Event],
    b: float,
    tolerance: float,
    outcome: type,
) -> None:
    client = careful(adoption=Adoption("if_not_worse", tolerance=tolerance))
    offer_round(service, 1, b)
    client.run_once()
    assert outcomes(events) == [outcome]
    report = client.adapters.report()
    assert report is not None
    assert report.new_loss == pytest.approx(loss_of(b))
    assert report.in_use_loss == pytest.approx(loss_of(0.25))
    assert (report.new.round_index, report.in_use and report.in_use.round_index) == (1, 0)
    assert report.tolerance == tolerance
    current = client.adapters.current()
    assert current is not None
    assert (current.round_index, current.accuracy) == ((1, 1.0) if outcome is Adopted else (0, 1.0))
    assert current.loss == pytest.approx(loss_of(b if outcome is Adopted else 0.25))
    assert (events[-1].comparison, type(events[-2])) == (report, Submitted)  # type: ignore[union-attr]


def test_local_adapter_is_held_against_the_local_one_in_use(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    client.adapters.use("local")
    offer_round(service, 1, b=-3.0)  # three steps take it to 0.5, and not to 0.90625
    client.run_once()
    assert outcomes(events) == [NotAdopted]
    assert b_in_use(client.adapters) == 0.90625


def test_what_was_not_adopted_can_be_put_in_use_by_the_app(service: FakeService, careful: MakeClient) -> None:
    client = careful()
    offer_round(service, 1, b=0.0)
    client.run_once()
    client.adapters.use("global")
    assert b_in_use(client.adapters) == 0.0
    client.adapters.roll_back()
    assert b_in_use(client.adapters) == 0.25


def test_without_held_out_examples_a_new_adapter_is_adopted_and_the_report_says_so(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    client.held_out.clear()
    offer_round(service, 1, b=0.0)
    client.run_once()
    report = client.adapters.report()
    assert report is not None
    assert outcomes(events) == [Adopted]
    assert (report.new_loss, report.in_use_loss) == (None, None)
    assert "nothing was compared" in report.reason


def test_held_out_labels_that_the_bundle_does_not_know_compare_nothing_and_are_not_told(
    service: FakeService, careful: MakeClient
) -> None:
    client = careful()
    client.held_out.put("a secret", "private label")
    offer_round(service, 1, b=0.0)
    client.run_once()
    report = client.adapters.report()
    assert report is not None
    assert (report.outcome, "labels that the bundle does not know" in report.reason) == ("adopted", True)
    assert "private label" not in report.model_dump_json()


def test_adapter_of_another_bundle_is_adopted_without_a_comparison(
    make_client: MakeClient, careful: MakeClient
) -> None:
    careful()
    other = FakeService(change=lambda manifest: manifest.model_copy(update={"max_tokens": 12}))
    offer_round(other, 1, b=0.0)
    client = make_client(http=other.http, adoption=CAREFUL)
    client.run_once()
    report = client.adapters.report()
    assert report is not None
    assert report.reason == "it is of another bundle, and nothing was compared"
    assert b_in_use(client.adapters) == 0.0


def test_adapter_in_use_that_is_damaged_gives_way(
    service: FakeService, careful: MakeClient, folder: DeviceFolder
) -> None:
    client = careful()
    current = client.adapters.current()
    assert current is not None
    (folder.adapters / f"{current.tensors.sha256}.safetensors").write_bytes(b"damaged")
    offer_round(service, 1, b=0.0)
    client.run_once()
    report = client.adapters.report()
    assert report is not None
    assert report.reason == (
        "the one in use cannot be scored: a file of the adapter is damaged (adapter_unusable)"
    )
    assert b_in_use(client.adapters) == 0.0


def failing(error: Exception, number: int) -> Callable[..., QuadraticRuntime]:
    """Opens runtimes of which one, counted from 0, fails when it is to score: 0 trains, 1 and 2 compare."""
    numbers = itertools.count()

    def open_runtime(*args: Any, **settings: Any) -> QuadraticRuntime:
        return NotScoring(error) if next(numbers) == number else QuadraticRuntime()

    return open_runtime


@pytest.mark.parametrize("number", [1, 2])
def test_fault_of_the_device_leaves_in_use_what_is_and_costs_no_round(
    number: int, service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful(runtime=failing(MemoryError(), number))
    offer_round(service, 1, b=0.5)
    assert client.run_once().outcome == "accepted"
    assert outcomes(events) == [NotAdopted]
    report = client.adapters.report()
    assert report is not None
    assert "MemoryError" in report.reason


def test_adapter_whose_loss_is_no_number_is_not_adopted(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    class Broken(QuadraticRuntime):
        def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
            return Evaluation(0.0, np.full((len(batch["labels"]), 2), np.nan, np.float32))

    client = careful(runtime=Broken())
    offer_round(service, 1, b=0.5)
    client.run_once()
    report = client.adapters.report()
    assert report is not None
    assert outcomes(events) == [NotAdopted]
    assert "training_diverged" in report.reason


def test_condition_that_is_lost_puts_the_decision_off_to_a_later_visit(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    idle = [True]

    def on_event(event: Event) -> None:
        events.append(event)
        idle[0] = not isinstance(event, Submitted)

    client = careful(conditions=Conditions(idle=True), is_idle=lambda: idle[0], on_event=on_event)
    offer_round(service, 1, b=0.5)
    assert client.run_once().outcome == "accepted"
    assert outcomes(events) == []
    assert b_in_use(client.adapters) == 0.25
    idle[0], service.offer = True, None
    assert client.run_once().outcome == "no_work"
    assert outcomes(events) == [Adopted]
    assert b_in_use(client.adapters) == 0.5


def test_visit_that_was_cut_off_before_the_decision_is_followed_by_one_that_makes_it(
    service: FakeService, careful: MakeClient, events: list[Event]
) -> None:
    client = careful()
    offer_round(service, 1, b=0.0)
    service.faults = [None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert outcomes(events) == []
    trained = sum(isinstance(event, StepDone) for event in events)
    assert client.run_once().outcome == "accepted"
    assert sum(isinstance(event, StepDone) for event in events) == trained  # delivered, not trained again
    assert outcomes(events) == [NotAdopted]
    assert b_in_use(client.adapters) == 0.25


def test_round_that_is_trained_once_more_leaves_what_was_before_it_to_roll_back_to(
    service: FakeService, careful: MakeClient, folder: DeviceFolder
) -> None:
    client = careful(adoption=Adoption())
    offer_round(service, 1, b=0.5)
    service.faults = [None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    damage_part(folder, "update")
    client.run_once()
    assert b_in_use(client.adapters) == 0.5
    client.adapters.roll_back()
    assert b_in_use(client.adapters) == 0.25


def test_choice_that_the_app_makes_meanwhile_stands(
    service: FakeService, careful: MakeClient, events: list[Event], folder: DeviceFolder
) -> None:
    class Choosing(QuadraticRuntime):
        def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
            Adapters(folder).use("local")
            return super().evaluate(batch, factors)

    client = careful(runtime=Choosing())
    offer_round(service, 1, b=0.5)
    client.run_once()
    assert outcomes(events) == []
    assert b_in_use(client.adapters) == 0.9375


def test_one_model_is_open_at_a_time(service: FakeService, careful: MakeClient) -> None:
    alive: weakref.WeakSet[QuadraticRuntime] = weakref.WeakSet()
    counts = []

    def open_runtime(*args: Any, **settings: Any) -> QuadraticRuntime:
        runtime = QuadraticRuntime()
        alive.add(runtime)
        counts.append(len(alive))
        return runtime

    client = careful(runtime=open_runtime)
    offer_round(service, 1, b=0.5)
    gc.disable()
    try:
        client.run_once()
    finally:
        gc.enable()
    assert counts == [1, 1, 1]  # one that trains, and two that are compared


@pytest.mark.parametrize(
    ("times", "outcome", "counts"),
    [
        # The batch of 2 ends after a third of the 9 seconds: the other one is scored on these 2.
        ([0, 0, 4, 5, 5, 6], "adopted", (2, 2)),
        # All 3 are scored by the first, and 2 of them by the second when its 7 seconds are over.
        ([0, 0, 1, 2, 2, 2, 9], "kept", (3, None)),
    ],
)
def test_both_are_scored_on_the_same_examples_in_the_time_that_there_is(
    service: FakeService,
    careful: MakeClient,
    events: list[Event],
    times: list[float],
    outcome: str,
    counts: tuple[int, int | None],
) -> None:
    client, timer = careful(), iter(times)
    assert service.offer is not None
    new = WholeAdapter(adapter_of(4, b=0.5), Parametrisation())
    offer = service.offer.model_copy(update={"round_index": 1})
    client.adapters.keep_round(offer, new, new, training=offer.training, micro_batch=2)
    comparison = Adopter(
        client.adapters,
        Adoption("if_not_worse", max_seconds=9),
        client.held_out,
        quadratic,
        None,
        events.append,
        timer=lambda: next(timer),
    ).settle()
    assert comparison is not None
    figures = (comparison.new_held_out, comparison.in_use_held_out)
    assert comparison.outcome == outcome
    assert tuple(own and own.example_count for own in figures) == counts
    assert list(timer) == []


@pytest.mark.parametrize(
    "wrong", [{"policy": "sometimes"}, {"tolerance": -1.0}, {"tolerance": float("nan")}, {"max_seconds": 0.0}]
)
def test_adoption_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="of adoption"):
        Adoption(**wrong)


def test_comparison_sends_nothing(service: FakeService, careful: MakeClient) -> None:
    client = careful(adoption=Adoption())
    offer_round(service, 1, b=0.5)
    service.requests.clear()
    client.run_once()
    without = len(service.requests)
    client.close()
    other = careful()
    offer_round(service, 2, b=0.5)
    service.requests.clear()
    other.run_once()
    assert len(service.requests) == without
    assert service.evaluations == []
