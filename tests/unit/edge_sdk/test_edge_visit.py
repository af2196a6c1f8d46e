"""One visit that comes to its end: what is asked, trained, told and delivered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
from fake_bundle import adapter_of
from fake_runtime import QuadraticRuntime
from fake_service import FakeService, receipt

from edge_sdk.client import EdgeClient
from edge_sdk.events import (
    Adopted,
    CheckedIn,
    Downloaded,
    Event,
    RankChosen,
    RankPruned,
    StepDone,
    Submitted,
    Uploaded,
)
from edge_sdk.runtimes.base import Batch, Factors
from edge_sdk.session.visit import Visit
from hetlora.adapter import Tensor
from hetlora.digest import sha256_of
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_to_bytes

MakeClient = Callable[..., EdgeClient]
SPEC = adapter_of(1).spec


def test_first_visit_enrols_trains_and_delivers(service: FakeService, make_client: MakeClient) -> None:
    visit = make_client().run_once()
    assert (visit.outcome, visit.reason, visit.retry_after_seconds) == ("accepted", "so it is", 30.0)
    assert [request for request in service.requests if "/objects/" not in request] == [
        "POST /device/v1/check-ins",
        "POST /device/v1/devices",
        "POST /device/v1/check-ins",
        "POST /device/v1/assignments/assignment-1:start",
        "PUT /device/v1/assignments/assignment-1/update",
        "POST /device/v1/assignments/assignment-1:submit",
    ]


def test_update_is_the_trained_adapter(service: FakeService, make_client: MakeClient) -> None:
    # lora_B starts at 0.25 and goes half the way to 1 three times: 0.625, 0.8125, 0.90625.
    make_client().run_once()
    factors = service.updates[0].factors["query"]
    np.testing.assert_array_equal(factors.lora_B, np.full((6, 4), 0.90625))
    np.testing.assert_array_equal(factors.lora_A, np.full((4, 4), 0.5))


def test_report_says_what_was_done_and_what_it_took(service: FakeService, make_client: MakeClient) -> None:
    make_client().run_once()
    [report] = service.reports
    objects = {name: len(data) for name, data in service.files.items()}
    adapter_bytes = len(adapter_to_bytes(adapter_of(4)))
    # 24 numbers of lora_B: 0.5 * 24 * 0.75^2 = 6.75 first, a sixteenth of it two halvings later.
    assert (report.first_loss, report.last_loss) == (6.75, 6.75 / 16)
    assert (report.rank, report.example_count, report.steps) == (4, 2, 3)
    assert report.downloaded_bytes == service.bundle.size_bytes + sum(objects.values()) + adapter_bytes
    assert report.update.sha256 == sha256_of(adapter_to_bytes(service.updates[0]))
    assert report.peak_memory_bytes > 10 * 2**20
    assert report.training_seconds >= 0


def test_second_visit_downloads_only_the_adapter(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    service.requests.clear()
    client.run_once()
    assert service.fetched() == ["global adapter"]
    assert service.reports[1].downloaded_bytes == len(adapter_to_bytes(adapter_of(4)))
    assert "POST /device/v1/devices" not in service.requests


def test_events_tell_the_visit_in_order(service: FakeService, make_client: MakeClient) -> None:
    events: list[Event] = []
    make_client(on_event=events.append).run_once()
    kinds = [type(event) for event in events if not isinstance(event, Downloaded)]
    assert kinds == [CheckedIn, RankChosen, StepDone, StepDone, StepDone, Uploaded, Submitted, Adopted]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3]
    assert {event.name for event in events if isinstance(event, Downloaded)} == {
        "manifest.json",
        "global adapter",
        *service.files,
    }


def test_shrunken_tail_is_pruned_before_the_upload(make_client: MakeClient, service: FakeService) -> None:
    class Shrinking(QuadraticRuntime):
        def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
            return 1.0, {key: 1 * own if "lora_B" in key else 0 * own for key, own in factors.items()}

    assert service.offer is not None
    training = service.offer.training.model_copy(update={"pruning_decay": 0.5})
    service.offer = service.offer.model_copy(update={"training": training, "min_rank": 3})
    events: list[Event] = []
    visit = make_client(runtime=Shrinking(), on_event=events.append).run_once()
    # c = floor(0.5 * 4) = 2, and the run's min_rank keeps 3.
    assert [adapter.rank for adapter in service.updates] == [3]
    assert service.reports[0].rank == 3
    assert RankPruned(4, 3) in events
    assert visit.outcome == "accepted"


def test_runtime_is_opened_for_the_ranks_that_are_trained(
    service: FakeService, make_client: MakeClient
) -> None:
    opened: list[dict[str, Any]] = []

    def open_runtime(bundle: Any, ranks: Any, **settings: Any) -> QuadraticRuntime:
        opened.append({"ranks": ranks, "bundle": bundle.digest, **settings})
        return QuadraticRuntime()

    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"max_rank": 2})
    make_client(runtime=open_runtime, threads=3).run_once()
    assert opened == [{"ranks": {"query": 2}, "bundle": service.bundle.sha256, "threads": 3}]


def test_no_work_is_a_visit_with_a_reason(service: FakeService, make_client: MakeClient) -> None:
    service.offer = None
    assert make_client().run_once() == Visit("no_work", "no run is active", 7.0)


def test_check_in_carries_measured_capabilities(service: FakeService, make_client: MakeClient) -> None:
    service.offer = None
    make_client(capabilities=None).run_once()
    assert service.check_ins[0].capabilities.source == "measured"
    assert service.check_ins[0].example_count == 2


def test_unneeded_update_is_discarded_kindly(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    body = receipt(AssignmentState.DISCARDED).model_dump_json()
    # Check-in, start, adapter and upload pass; the answer to submit is another one.
    service.faults = [None, None, None, None, httpx.Response(200, content=body)]
    visit = client.run_once()
    assert (visit.outcome, visit.reason) == ("discarded", "so it is")
