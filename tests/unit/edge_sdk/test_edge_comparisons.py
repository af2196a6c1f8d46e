"""How a new adapter is held against the one in use: of what, in which time, and what a fault costs."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adapter_rounds import b_in_use, offer_round, outcomes
from fake_bundle import adapter_of
from fake_runtime import NotScoring, QuadraticRuntime, quadratic
from fake_service import FakeService

from edge_sdk.adapters.adapters import Adapters, WholeAdapter
from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, NotAdopted
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.session.adoption import Adopter
from edge_sdk.training.parametrisation import Parametrisation

MakeClient = Callable[..., EdgeClient]


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
    report = client.adapters.last_comparison()
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
    report = client.adapters.last_comparison()
    assert report is not None
    assert outcomes(events) == [NotAdopted]
    assert "training_diverged" in report.reason


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
