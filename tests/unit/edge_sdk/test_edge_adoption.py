"""Whether a new adapter is put in use. The fake loss on "cold" is log(1 + e^-b), b being the mean of lora_B.

The adapter in use has b = 0.25 in each test, and a loss of 0.576; on "warm" a larger b is worse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from adapter_rounds import CAREFUL, b_in_use, offer_round, outcomes
from device_tables import damage_part
from fake_service import FakeService

from edge_sdk.adapters.policy import Adoption
from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, Event, NotAdopted, StepDone, Submitted
from edge_sdk.folder import DeviceFolder
from hetlora.errors import ServiceUnreachable, SettingsError
from hetlora.messages.conditions import Conditions

MakeClient = Callable[..., EdgeClient]


def loss_of(b: float) -> float:
    return float(np.log1p(np.exp(-b)))


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
    report = client.adapters.last_comparison()
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
    report = client.adapters.last_comparison()
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
    report = client.adapters.last_comparison()
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
    report = client.adapters.last_comparison()
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
    report = client.adapters.last_comparison()
    assert report is not None
    assert report.reason == (
        "the one in use cannot be scored: a file of the adapter is damaged (adapter_unusable)"
    )
    assert b_in_use(client.adapters) == 0.0


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


@pytest.mark.parametrize(
    "wrong", [{"policy": "sometimes"}, {"tolerance": -1.0}, {"tolerance": float("nan")}, {"max_seconds": 0.0}]
)
def test_adoption_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="of adoption"):
        Adoption(**wrong)
