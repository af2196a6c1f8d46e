"""A device in a round with masks that is killed at any moment tells nothing but what it told before."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from device_tables import damage_part, stored_parts
from fake_service import FakeService, receipt
from masked_fleet import (
    OTHERS,
    TRAINED,
    Hurry,
    Killed,
    assert_is_mean_of,
    killed_at,
    visit,
    with_masks,
)

from edge_sdk.client import EdgeClient
from edge_sdk.events import AwaitingOthers, Event, RankChosen, StepDone, Submitted
from edge_sdk.folder import DeviceFolder
from hetlora.messages.conditions import Conditions
from hetlora.states import AssignmentState
from hetlora.testing.fake_cohort import FakeCohort

MakeClient = Callable[..., EdgeClient]


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


def test_nothing_is_revealed_for_another_list_and_the_update_stays_accepted(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, caplog: pytest.LogCaptureFixture
) -> None:
    cohort = with_masks(service)
    with pytest.raises(Killed):
        visit(make_client(http=killed_at(service, 9, after=False)))
    assert stored_parts(folder) == {"update", "mask_reveal"}
    cohort.reported = (0, 2, 3, 4)
    done = visit(make_client())
    assert (done.outcome, service.failures) == ("accepted", [])
    assert "another list of who reported" in caplog.text
    assert cohort.reveal is None
    assert stored_parts(folder) == set()


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
