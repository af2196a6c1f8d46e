"""A device in a round with masks: the service sees its vector under masks, and the mean is the plain one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from device_tables import stored_parts
from fake_bundle import adapter_of
from fake_service import FakeService
from masked_fleet import (
    OTHERS,
    TERMS,
    TRAINED,
    Hurry,
    assert_is_mean_of,
    visit,
    with_masks,
)

from edge_sdk.client import EdgeClient
from edge_sdk.events import AwaitingOthers, Event, RankPruned, StepDone
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.visit import Visit
from hetlora.algebra import delta_norm, zero_pad
from hetlora.messages.conditions import Conditions
from hetlora.messages.device import Adaptation
from hetlora.messages.masking import MaskingTask, MaskingTerms, Weighing
from hetlora.states import AssignmentState

MakeClient = Callable[..., EdgeClient]


def test_mean_of_those_who_are_in_is_that_of_their_plain_updates(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort = with_masks(service, gone=1)
    done = visit(make_client())
    assert (done.outcome, done.error) == ("accepted", None)
    assert cohort.steps == ["keys", "poll", "shares", "poll", "poll", "poll", "reveal"]
    assert_is_mean_of(cohort, TRAINED, *OTHERS[:3])


def test_what_goes_up_tells_nothing_of_the_update(service: FakeService, make_client: MakeClient) -> None:
    cohort = with_masks(service)
    visit(make_client())
    (body,) = service.bodies
    assert cohort.vector is not None
    bits = np.unpackbits(cohort.vector.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(bits.size)
    (report,) = service.reports
    assert report.update.size_bytes == len(body)  # the same for each rank


def test_pruned_adapter_is_padded_and_its_rank_is_told(service: FakeService, make_client: MakeClient) -> None:
    assert service.offer is not None
    service.global_adapter = adapter_of(4, 0.5, 2.0)  # lora_B comes nearer to one: its tail shrinks
    training = service.offer.training.model_copy(update={"pruning_decay": 0.9})
    service.offer = service.offer.model_copy(update={"training": training})
    cohort, events = with_masks(service), list[Event]()
    visit(make_client(on_event=events.append))
    assert [event for event in events if isinstance(event, RankPruned)] == [RankPruned(4, 3)]
    assert [report.rank for report in service.reports] == [3]
    assert_is_mean_of(cohort, adapter_of(3, 0.5, 1 + 1 / 8), *OTHERS[:3])


def test_app_is_told_whom_the_device_waits_for(service: FakeService, make_client: MakeClient) -> None:
    with_masks(service)
    events: list[Event] = []
    visit(make_client(on_event=events.append))
    told = [event.reason for event in events if isinstance(event, AwaitingOthers)]
    assert told == ["others share", "others upload", "others reveal"]


def test_device_says_that_it_can_mask(service: FakeService, make_client: MakeClient) -> None:
    visit(make_client())
    assert "mask" in service.check_ins[0].abilities


@pytest.mark.parametrize("reported", [(0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 2), (0, 1, 2, 9)])
def test_list_that_is_none_of_its_round_is_not_revealed_for(
    service: FakeService, make_client: MakeClient, reported: tuple[int, ...]
) -> None:
    cohort = with_masks(service)
    cohort.reported = reported
    done = visit(make_client())
    assert (done.outcome, done.error, service.failures) == ("accepted", None, [])  # others are enough
    assert cohort.reveal is None


def test_app_that_stops_while_others_are_waited_for_finds_the_assignment_again(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort, stop = with_masks(service), Hurry()

    def stopping(event: Event) -> None:
        if isinstance(event, AwaitingOthers):
            stop.set()

    assert make_client(on_event=stopping).run_once(stop=stop).outcome == "stopped"
    assert cohort.steps == ["keys"]
    assert stored_parts(folder) == {"unmasked", "mask_secrets"}
    assert visit(make_client()).outcome == "accepted"
    assert_is_mean_of(cohort, TRAINED, *OTHERS[:3])


def in_use_from(waited_for: str, service: FakeService, make_client: MakeClient) -> Visit:
    """A visit whose device is in use from the moment on that it waits for this."""

    def on_event(event: Event) -> None:
        if event == AwaitingOthers(waited_for):
            used.append(True)

    used: list[bool] = []
    conditions = Conditions(idle=True)
    return visit(make_client(conditions=conditions, is_idle=lambda: not used, on_event=on_event))


def test_device_that_may_not_wait_any_more_makes_room_for_another(
    service: FakeService, make_client: MakeClient
) -> None:
    with_masks(service)
    assert in_use_from("others share", service, make_client).outcome == "failed"
    assert [failure.code for failure in service.failures] == ["conditions_unmet"]
    assert service.bodies == []


def test_device_that_may_not_wait_until_the_reveal_leaves_it_to_others(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort = with_masks(service)
    done = in_use_from("others reveal", service, make_client)
    assert (done.outcome, done.error, service.failures) == ("accepted", None, [])
    assert cohort.reveal is None


def test_round_that_goes_on_without_the_device_ends_its_visit_with_the_receipt(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort = with_masks(service)
    cohort.script = [MaskingTask(todo="over", reason="the cohort is full", retry_after_seconds=0)]
    service.receipts = [AssignmentState.ABORTED]
    done = visit(make_client())
    assert (done.outcome, done.error) == ("discarded", None)
    assert [failure.message for failure in service.failures] == ["left out of the round: the cohort is full"]
    assert stored_parts(folder) == set()


def test_round_that_needs_no_reveal_of_the_device_is_over_for_it(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort = with_masks(service)
    over = MaskingTask(todo="over", reason="enough revealed", retry_after_seconds=0)
    cohort.script = [None, None, None, None, over]
    assert visit(make_client()).outcome == "accepted"
    assert cohort.reveal is None


@pytest.mark.parametrize(
    ("terms", "adaptation", "code"),
    [
        (TERMS.model_copy(update={"rank": 3}), Adaptation(), "rank_out_of_range"),
        (TERMS.model_copy(update={"rank": 5}), Adaptation(), "rank_out_of_range"),
        (TERMS, Adaptation(trained="lora_A"), "spec_mismatch"),
        (TERMS, Adaptation(upload_precision="float16"), "spec_mismatch"),
    ],
)
def test_offer_whose_update_cannot_be_masked_is_given_back_before_training(
    service: FakeService, make_client: MakeClient, terms: MaskingTerms, adaptation: Adaptation, code: str
) -> None:
    with_masks(service, terms=terms)
    service.adaptation = adaptation
    events: list[Event] = []
    done = visit(make_client(on_event=events.append))
    assert (done.outcome, done.code) == ("failed", code)
    assert not any(isinstance(event, StepDone) for event in events)


@pytest.mark.parametrize(("weighing", "expected"), [("examples", 2.0), ("uniform", 1.0), ("norm", None)])
def test_update_weighs_as_the_run_asks(
    service: FakeService, make_client: MakeClient, weighing: Weighing, expected: float | None
) -> None:
    cohort = with_masks(service, terms=TERMS.model_copy(update={"weighing": weighing}))
    visit(make_client())
    mean, weights = cohort.mean(), [expected or delta_norm(TRAINED)]
    weights += [1.0 if expected else delta_norm(own) for own in OTHERS[:3]]
    assert mean is not None
    padded = [zero_pad(own, 4).factors["query"].lora_B for own in (TRAINED, *OTHERS[:3])]
    np.testing.assert_allclose(
        mean.factors["query"].lora_B, np.average(padded, axis=0, weights=weights), atol=1e-6
    )


def test_service_that_asks_for_shares_again_and_again_is_asked_no_more(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort = with_masks(service)
    share = MaskingTask(todo="share", reason="so it is", retry_after_seconds=0)
    cohort.script = [None, None, share]
    done = visit(make_client())
    assert (done.outcome, done.code) == ("failed", "state_conflict")
    assert cohort.steps == ["keys", "poll", "shares"]
