"""A disk that fills up while a round is trained or delivered costs no round and no rounding errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from device_tables import kept_for_runs, stored_parts
from fake_service import FakeService, receipt
from masked_fleet import with_masks
from store_files import disk_of

from edge_sdk.client import EdgeClient
from edge_sdk.events import Adopted, AwaitingOthers, CheckedIn, Event, StepDone, Submitted, Uploaded
from edge_sdk.folder import DeviceFolder
from hetlora.messages.device import Adaptation
from hetlora.states import AssignmentState

MakeClient = Callable[..., EdgeClient]
INT8 = Adaptation(upload_precision="int8", error_feedback=True)


def is_last_step(event: Event) -> bool:
    return isinstance(event, StepDone) and event.step == event.steps


def is_uploaded(event: Event) -> bool:
    return isinstance(event, Uploaded)


def is_checked_in(event: Event) -> bool:
    return isinstance(event, CheckedIn)


def waits_for(others: str) -> Callable[[Event], bool]:
    return lambda event: event == AwaitingOthers(others)


def never(event: Event) -> bool:
    return False


@dataclass
class Disk:
    """Full from one event on and until another, or the end; files that are there can be read."""

    full_from: Callable[[Event], bool]
    until: Callable[[Event], bool] = never
    events: list[Event] = field(default_factory=list)
    _full: ExitStack = field(default_factory=ExitStack)

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if self.until(event):
            self._full.close()
        if self.full_from(event):
            self._full.enter_context(disk_of(1000))

    @contextmanager
    def emptied_afterwards(self) -> Iterator[None]:
        with self._full:
            yield


def visit(client: EdgeClient, disk: Disk) -> str:
    with disk.emptied_afterwards():
        return client.run_once().outcome


def test_update_that_cannot_be_stored_is_delivered_all_the_same(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    disk = Disk(full_from=is_last_step)
    assert visit(make_client(on_event=disk), disk) == "accepted"
    assert (len(service.bodies), service.failures) == (1, [])
    assert stored_parts(folder) == {"received"}  # as nothing could be noted
    service.offer = None
    assert make_client().run_once().outcome == "no_work"
    assert stored_parts(folder) == set()


@pytest.mark.parametrize(
    ("adaptation", "kind"),
    [(INT8, "rounding_errors"), (Adaptation(private_lora_B=True), "private_factors")],
)
def test_what_belongs_to_an_update_that_was_not_stored_is_kept_with_the_answer_to_it(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, adaptation: Adaptation, kind: str
) -> None:
    service.adaptation = adaptation
    disk = Disk(full_from=is_last_step, until=is_uploaded)
    assert visit(make_client(on_event=disk), disk) == "accepted"
    assert kept_for_runs(folder, kind).keys() == {"run-1"}
    assert stored_parts(folder) == set()


def test_receipt_that_cannot_be_noted_is_asked_for_again_and_no_error_counts_twice(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    service.adaptation = INT8
    disk = Disk(full_from=is_uploaded)
    assert visit(make_client(on_event=disk), disk) == "accepted"
    assert service.failures == []
    assert stored_parts(folder) == {"update", "rounding_errors"}
    assert kept_for_runs(folder, "rounding_errors") == {}
    service.offer = None
    accepted = receipt(AssignmentState.ACCEPTED).model_dump_json()
    service.faults = [None, httpx.Response(200, content=accepted)]  # of a service that remembers it
    events: list[Event] = []
    assert make_client(on_event=events.append).run_once().outcome == "no_work"
    assert [type(event) for event in events] == [Adopted, CheckedIn, Submitted]
    assert kept_for_runs(folder, "rounding_errors").keys() == {"run-1"}
    assert len(service.bodies) == 1


def test_update_that_waits_is_delivered_though_the_disk_is_full_by_then(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    def full_network(event: Event) -> None:
        if is_last_step(event):
            metered.append(True)

    metered: list[bool] = []
    asked = service.offer.conditions.model_copy(update={"unmetered": True})
    service.offer = service.offer.model_copy(update={"conditions": asked})
    waiting = make_client(on_event=full_network, is_metered=lambda: bool(metered)).run_once()
    assert waiting.outcome == "not_allowed"
    disk = Disk(full_from=is_checked_in)
    assert visit(make_client(on_event=disk, is_metered=lambda: False), disk) == "accepted"
    assert (len(service.bodies), service.failures) == (1, [])
    assert not any(isinstance(event, StepDone) for event in disk.events)


def test_update_for_masks_that_cannot_be_stored_is_given_back_before_its_keys_are_told(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort, disk = with_masks(service), Disk(full_from=is_last_step)
    assert visit(make_client(on_event=disk), disk) == "failed"
    assert [failure.code for failure in service.failures] == ["disk_full"]
    assert (cohort.steps, service.bodies) == ([], [])


@pytest.mark.parametrize("waited_for", ["others share", "others upload"])
def test_disk_that_is_full_before_a_step_of_masks_ends_them_before_the_step_is_told(
    service: FakeService, make_client: MakeClient, waited_for: str
) -> None:
    cohort, disk = with_masks(service), Disk(full_from=waits_for(waited_for))
    assert visit(make_client(on_event=disk), disk) == "failed"
    assert [failure.code for failure in service.failures] == ["disk_full"]
    assert service.bodies == []
    assert (cohort.shares is None) == (waited_for == "others share")


def test_disk_that_is_full_before_the_reveal_leaves_it_to_others(
    service: FakeService, make_client: MakeClient
) -> None:
    cohort, disk = with_masks(service), Disk(full_from=waits_for("others reveal"))
    assert visit(make_client(on_event=disk), disk) == "accepted"
    assert (cohort.reveal, service.failures) == (None, [])
