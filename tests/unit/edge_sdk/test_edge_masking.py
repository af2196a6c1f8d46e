"""A device in a round with masks: the service sees its vector under masks, and the mean is the plain one."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import numpy as np
import pytest
from device_tables import damage_part, stored_parts
from fake_bundle import adapter_of
from fake_service import FakeService, receipt
from masked_fleet import OTHERS, TERMS, Hurry, merged, with_masks

from edge_sdk.client import EdgeClient
from edge_sdk.events import AwaitingOthers, Event, RankChosen, RankPruned, StepDone, Submitted
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.visit import Visit
from hetlora.adapter import Adapter
from hetlora.algebra import delta_norm, zero_pad
from hetlora.messages.conditions import Conditions
from hetlora.messages.device import Adaptation
from hetlora.messages.masking import MaskingTask, MaskingTerms, Weighing
from hetlora.states import AssignmentState
from hetlora.tensors import to_tensors
from hetlora.testing.fake_cohort import FakeCohort

MakeClient = Callable[..., EdgeClient]
# Three steps of sgd bring lora_B, 0.25 at first, seven eighths of the way to one.
TRAINED = adapter_of(4, 0.5, 1 - 0.75 / 8)


def visit(client: EdgeClient) -> Visit:
    return client.run_once(stop=Hurry())


def assert_is_mean_of(cohort: FakeCohort, *updates: Adapter) -> None:
    mean = cohort.mean()
    assert mean is not None
    for key, expected in merged(*updates).items():
        np.testing.assert_allclose(to_tensors(mean)[key], expected, atol=1e-6)


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


class Killed(BaseException):
    """The process ends."""


def killed_at(service: FakeService, number: int, *, after: bool) -> httpx.MockTransport:
    """The line of a device whose process ends with this request to `:mask`, update or `:submit`."""
    seen = 0

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal seen
        is_of_masks = request.url.path.endswith((":mask", "/update", ":submit"))
        seen += is_of_masks
        if is_of_masks and seen == number and not after:
            raise Killed
        told = service.http.handler(request)
        if is_of_masks and seen == number:
            raise Killed
        assert isinstance(told, httpx.Response)
        return told

    return httpx.MockTransport(answer)


# keys, poll, shares, poll, update, submit, poll, poll, reveal
@pytest.mark.parametrize("after", [False, True], ids=["unsent", "unanswered"])
@pytest.mark.parametrize("number", range(1, 10))
def test_killed_at_any_request_it_goes_on_with_the_same_keys_vector_and_reveal(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, number: int, after: bool
) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, number, after=after)))
    told = cohort.keys, cohort.shares, cohort.reveal

    events: list[Event] = []
    done = visit(make_client(on_event=events.append))

    assert (done.outcome, done.error) == ("accepted", None)
    for before, now in zip(told, (cohort.keys, cohort.shares, cohort.reveal), strict=True):
        assert before in (None, now)
    assert len(set(service.bodies)) == 1
    assert not any(isinstance(event, StepDone) for event in events)
    assert_is_mean_of(cohort, TRAINED, *OTHERS[:3])
    assert stored_parts(folder) == set()


def test_plain_update_and_secrets_are_gone_once_there_is_a_masked_one(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 1, after=False)))
    assert stored_parts(folder) == {"unmasked", "mask_secrets"}
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 5, after=False)))
    assert stored_parts(folder) == {"update", "held_shares"}
    plain = TRAINED.factors["query"].lora_B.tobytes()
    assert plain not in folder.database.read_bytes()


def test_reveal_that_was_asked_for_another_list_is_refused(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 9, after=False)))
    assert stored_parts(folder) == {"update", "mask_reveal"}
    cohort.reported = (0, 2, 3, 4)
    done = visit(make_client())
    assert (done.outcome, done.code) == ("failed", "state_conflict")
    assert "another list of who reported" in done.reason
    assert cohort.reveal is None
    assert stored_parts(folder) == set()


@pytest.mark.parametrize("reported", [(0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 2), (0, 1, 2, 9)])
def test_list_that_is_none_of_its_round_is_not_revealed_for(
    service: FakeService, make_client: MakeClient, reported: tuple[int, ...]
) -> None:
    cohort = with_masks(service)
    cohort.reported = reported
    done = visit(make_client())
    assert done.code == "malformed_message"
    assert cohort.reveal is None


def test_other_cohort_than_the_first_is_refused(service: FakeService, make_client: MakeClient) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 4, after=False)))
    *others, last = cohort.members
    cohort.members = (*others, last.model_copy(update={"mask_key": others[0].mask_key}))
    done = visit(make_client())
    assert done.code == "state_conflict"
    assert service.bodies == []


def accepted_before(service: FakeService, make_client: MakeClient) -> FakeCohort:
    """A cohort whose device was killed after its update was accepted, and before it asked what is next."""
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 7, after=False)))
    accepted = receipt(AssignmentState.ACCEPTED).model_dump_json()
    service.faults = [None, httpx.Response(200, content=accepted)]  # of a service that remembers it
    return cohort


def test_process_that_comes_back_after_its_update_was_taken_waits_until_it_may_reveal(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort = accepted_before(service, make_client)
    service.offer = None
    events: list[Event] = []
    assert visit(make_client(on_event=events.append)).outcome == "no_work"
    assert any(isinstance(event, Submitted) for event in events)
    assert_is_mean_of(cohort, TRAINED, *OTHERS[:3])
    assert stored_parts(folder) == set()


@pytest.mark.parametrize("waits", [0, 1])
def test_process_that_comes_back_to_other_work_reveals_if_it_is_asked_at_once(
    service: FakeService, make_client: MakeClient, waits: int
) -> None:
    cohort = accepted_before(service, make_client)
    cohort.waits = waits
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"assignment_id": "assignment-2", "masking": None})

    def killed_over_the_other_work(event: Event) -> None:
        if isinstance(event, RankChosen):
            raise Killed

    with pytest.raises(Killed):
        visit(make_client(on_event=killed_over_the_other_work))
    assert (cohort.reveal is None) == (waits == 1)


@pytest.mark.parametrize("conditions", [None, Conditions(idle=True)])
def test_process_that_comes_back_and_may_not_wait_leaves_the_reveal_to_others(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, conditions: Conditions | None
) -> None:
    cohort, stop = accepted_before(service, make_client), Hurry()
    service.offer = None
    used: list[bool] = []

    def on_event(event: Event) -> None:
        if isinstance(event, AwaitingOthers):
            stop.set() if conditions is None else used.append(True)

    told = {"conditions": conditions, "is_idle": lambda: not used} if conditions else {}
    done = make_client(on_event=on_event, **told).run_once(stop=stop)
    assert cohort.reveal is None
    assert done.outcome == ("no_work" if conditions else "stopped")
    assert stored_parts(folder) == (set() if conditions else {"update", "held_shares"})


def test_unmasked_update_is_never_reported_of(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 2, after=False)))
    service.offer = None
    service.requests.clear()
    assert visit(make_client()).outcome == "no_work"
    assert [request for request in service.requests if "assignment-1" in request] == []
    assert stored_parts(folder) == set()


@pytest.mark.parametrize("part", ["unmasked", "mask_secrets"])
def test_damaged_secrets_or_update_mean_other_keys_which_the_service_refuses(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, part: str
) -> None:
    with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 2, after=False)))
    damage_part(folder, part)
    done = visit(make_client())
    assert (done.outcome, done.code) == ("failed", "state_conflict")
    assert service.bodies == []


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


def test_secrets_are_not_shared_anew_where_it_is_not_known_any_more_how_they_were(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 3, after=False)))  # kept, and not sent
    damage_part(folder, "mask_cohort")
    done = visit(make_client())
    assert (done.outcome, done.code) == ("failed", "state_conflict")
    assert cohort.shares is None


def test_reveal_is_left_to_others_where_the_shares_are_damaged(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 7, after=False)))
    damage_part(folder, "held_shares")
    done = visit(make_client())
    assert done.code == "state_conflict"
    assert cohort.reveal is None
    assert stored_parts(folder) == set()
