"""Visits that cannot end well: the assignment is given back, with a code and no text of an example."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from device_tables import stored_parts
from fake_bundle import adapter_of
from fake_runtime import QuadraticRuntime, Telling
from fake_service import FakeService, problem, receipt
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, GivenBack, Submitted
from edge_sdk.folder import DeviceFolder
from edge_sdk.session.visit import Visit
from hetlora.digest import sha256_of
from hetlora.errors import DependencyMissing, DeviceTooSmall, NonFiniteValues, StateConflict
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_to_bytes

MakeClient = Callable[..., EdgeClient]
SPEC = adapter_of(1).spec


def _failure(service: FakeService, visit: Visit) -> tuple[str, str]:
    """Code and message of a visit that failed and told the service so."""
    assert visit.outcome == "failed"
    assert visit.retry_after_seconds == 30.0
    [failure] = service.failures
    assert failure.code == visit.code
    assert service.updates == []
    return failure.code, failure.message


def test_device_too_small_gives_the_assignment_back(service: FakeService, make_client: MakeClient) -> None:
    weak = STRONG.model_copy(update={"memory_available_bytes": 1})
    events: list[Event] = []
    visit = make_client(capabilities=weak, on_event=events.append).run_once()
    code, message = _failure(service, visit)
    assert code == "device_too_small"
    assert "not even rank 1 fits this device, for lack of memory" in message
    assert isinstance(visit.error, DeviceTooSmall)
    assert isinstance(events[-1], GivenBack)
    assert service.fetched() == ["manifest.json"]  # the large files were left alone


def test_device_without_examples_gives_the_assignment_back(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.examples.clear()
    assert _failure(service, client.run_once())[0] == "no_examples"


def test_label_unknown_to_the_bundle_fails_but_never_leaves_the_device(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.examples.put("sand", "private label")
    visit = client.run_once()
    code, message = _failure(service, visit)
    assert code == "data_unreadable"
    assert "private label" in visit.reason
    assert "private" not in message


def test_diverged_training_gives_the_assignment_back(service: FakeService, make_client: MakeClient) -> None:
    visit = make_client(runtime=Telling(float("nan"))).run_once()
    code, message = _failure(service, visit)
    assert (code, message) == ("training_diverged", "loss of step 1 of 3; got nan; expected a finite number")


def test_adapter_with_a_value_that_is_no_number_is_never_uploaded(
    service: FakeService, make_client: MakeClient
) -> None:
    visit = make_client(runtime=Telling(1.0, slope=float("nan"))).run_once()
    assert _failure(service, visit)[0] == "non_finite_values"
    assert isinstance(visit.error, NonFiniteValues)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DependencyMissing("the training runtime is not installed"), "dependency_missing"),
        (MemoryError(), "out_of_memory"),
        (OSError(28, "No space left on device"), "disk_full"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_runtime_that_cannot_run_gives_the_assignment_back(
    service: FakeService, make_client: MakeClient, error: Exception, code: str
) -> None:
    def refuse(*args: Any, **settings: Any) -> QuadraticRuntime:
        raise error

    assert _failure(service, make_client(runtime=refuse).run_once())[0] == code


def test_fault_of_our_own_is_told_by_its_kind_alone(
    service: FakeService, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any, **settings: Any) -> QuadraticRuntime:
        raise ZeroDivisionError(text)

    text = "sun and sand"
    with caplog.at_level(logging.ERROR):
        visit = make_client(runtime=refuse).run_once()
    assert _failure(service, visit) == ("internal_error", "ZeroDivisionError")
    assert "in refuse" in caplog.text  # where it was raised
    assert text not in caplog.text


def test_damaged_global_adapter_is_refused(service: FakeService, make_client: MakeClient) -> None:
    service.global_adapter = adapter_of(1)
    plan_bytes = adapter_to_bytes(adapter_of(1))
    service.objects[sha256_of(plan_bytes)] = plan_bytes
    client = make_client()
    client.run_once()
    service.failures.clear()
    service.updates.clear()
    # Check-in and start pass, then the adapter comes with a flipped byte, twice.
    bad = plan_bytes[:-1] + b"\xff"
    service.faults = [
        None,
        None,
        httpx.Response(200, content=iter([bad])),
        httpx.Response(200, content=iter([bad])),
    ]
    assert _failure(service, client.run_once())[0] == "digest_mismatch"


def test_global_adapter_of_a_higher_rank_than_asked_for_is_refused(
    service: FakeService, make_client: MakeClient
) -> None:
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"max_rank": 2})
    client = make_client()
    client.run_once()
    service.updates.clear()
    data = adapter_to_bytes(adapter_of(4))
    service.objects[sha256_of(data)] = data
    plan = {
        "assignment_id": "assignment-1",
        "rank": 2,
        "adapter": {"sha256": sha256_of(data), "size_bytes": len(data)},
        "seed": 1,
        "lease_expires_at": "2027-01-15T00:00:00Z",
    }
    service.faults = [None, httpx.Response(200, json=plan)]
    assert _failure(service, client.run_once())[0] == "rank_out_of_range"


def test_update_that_the_service_refuses_is_given_back(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    service.updates.clear()
    service.faults = [None, None, None, problem(NonFiniteValues("lora_A of query"))]
    assert _failure(service, client.run_once())[0] == "non_finite_values"
    assert stored_parts(folder) == set()


def test_late_device_is_told_kindly(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    events: list[Event] = []
    client = make_client(on_event=events.append)
    aborted = receipt(AssignmentState.ABORTED).model_dump_json()
    # Check-in, start and adapter pass; the round closes before the upload.
    closed = problem(StateConflict("the assignment's state does not allow this"))
    service.faults = [None, None, None, closed, httpx.Response(200, content=aborted)]
    visit = client.run_once()
    assert (visit.outcome, visit.reason, visit.code) == ("discarded", "so it is", "state_conflict")
    assert not any(isinstance(event, GivenBack) for event in events)


def test_update_is_accepted_though_the_app_raises_at_the_news(
    service: FakeService, make_client: MakeClient
) -> None:
    def raise_at_the_end(event: Event) -> None:
        if isinstance(event, Submitted):
            raise RuntimeError("the progress bar is gone")

    client = make_client(on_event=raise_at_the_end)
    # Nothing stands in the way of check-in, enrolment, check-in, eight downloads, start, upload and
    # submit; asked to fail it then, the service says what became of the assignment.
    accepted = receipt(AssignmentState.ACCEPTED).model_dump_json()
    service.faults = [*[None] * (6 + 8), httpx.Response(200, content=accepted)]
    visit = client.run_once()
    assert service.requests[-1] == "POST /device/v1/assignments/assignment-1:fail"
    assert (visit.outcome, visit.reason, visit.code) == ("accepted", "so it is", "internal_error")
    assert len(service.reports) == 1


def test_assignment_that_cannot_be_given_back_still_ends_the_visit(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    gone = problem(StateConflict("assignment is expired"))
    service.faults = [None, gone, problem(StateConflict("assignment is expired"))]
    visit = client.run_once()
    assert (visit.outcome, visit.code, visit.retry_after_seconds) == ("failed", "state_conflict", 60.0)
