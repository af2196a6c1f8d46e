import logging
import stat
import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from edge_fakes import STRONG, FakeService, QuadraticRuntime, adapter_of, problem, receipt

from edge_sdk.client import EdgeClient
from edge_sdk.events import (
    CheckedIn,
    Downloaded,
    Event,
    GivenBack,
    RankChosen,
    RankPruned,
    StepDone,
    Submitted,
    Uploaded,
)
from edge_sdk.folder import DeviceFolder
from edge_sdk.runtimes.base import Batch
from edge_sdk.visit import Visit
from hetlora.adapter import Adapter, LoraFactors
from hetlora.digest import sha256_of
from hetlora.errors import (
    ClockSkew,
    DependencyMissing,
    DeviceTooSmall,
    NonFiniteValues,
    NotPermitted,
    ServiceUnreachable,
    SettingsError,
    StateConflict,
    UnknownDevice,
)
from hetlora.messages.device import TrainingSettings
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
    assert kinds == [CheckedIn, RankChosen, StepDone, StepDone, StepDone, Uploaded, Submitted]
    assert [event.step for event in events if isinstance(event, StepDone)] == [1, 2, 3]
    assert {event.name for event in events if isinstance(event, Downloaded)} == {
        "manifest.json",
        "global adapter",
        *service.files,
    }


def test_shrunken_tail_is_pruned_before_the_upload(make_client: MakeClient, service: FakeService) -> None:
    class Shrinking(QuadraticRuntime):
        def train_step(self, batch: Batch, *, learning_rate: float) -> float:
            factors = self.now.factors["query"]
            self.now = Adapter(SPEC, {"query": LoraFactors(factors.lora_A, factors.lora_B / 2)})
            return 1.0

    assert service.offer is not None
    training = service.offer.training.model_copy(update={"pruning_decay": 0.5})
    service.offer = service.offer.model_copy(update={"training": training, "min_rank": 3})
    events: list[Event] = []
    visit = make_client(
        runtime=lambda bundle, adapter, **settings: Shrinking(adapter), on_event=events.append
    ).run_once()
    # c = floor(0.5 * 4) = 2, and the run's min_rank keeps 3.
    assert [adapter.rank for adapter in service.updates] == [3]
    assert service.reports[0].rank == 3
    assert RankPruned(4, 3) in events
    assert visit.outcome == "accepted"


def test_runtime_is_opened_with_the_runs_settings(service: FakeService, make_client: MakeClient) -> None:
    opened: list[dict[str, Any]] = []

    def open_runtime(bundle: Any, adapter: Adapter, **settings: Any) -> QuadraticRuntime:
        opened.append({"rank": adapter.rank, "bundle": bundle.digest, **settings})
        return QuadraticRuntime(adapter)

    assert service.offer is not None
    training = TrainingSettings(steps=1, pruning_decay=0.9, pruning_penalty=0.25)
    service.offer = service.offer.model_copy(update={"training": training, "max_rank": 2})
    make_client(runtime=open_runtime, threads=3).run_once()
    assert opened == [
        {
            "rank": 2,
            "bundle": service.bundle.sha256,
            "pruning_decay": 0.9,
            "pruning_penalty": 0.25,
            "threads": 3,
        }
    ]


def test_no_work_is_a_visit_with_a_reason(service: FakeService, make_client: MakeClient) -> None:
    service.offer = None
    assert make_client().run_once() == Visit("no_work", "no run", 7.0)


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
    class Diverging(QuadraticRuntime):
        def train_step(self, batch: Batch, *, learning_rate: float) -> float:
            return float("nan")

    visit = make_client(runtime=lambda bundle, adapter, **settings: Diverging(adapter)).run_once()
    code, message = _failure(service, visit)
    assert (code, message) == ("training_diverged", "loss of step 1 of 3; got nan; expected a finite number")


def test_adapter_with_a_value_that_is_no_number_is_never_uploaded(
    service: FakeService, make_client: MakeClient
) -> None:
    class Poisoned(QuadraticRuntime):
        def adapter(self) -> Adapter:
            lora_B = self.now.factors["query"].lora_B.copy()
            lora_B[0, 0] = np.nan
            return Adapter(SPEC, {"query": LoraFactors(self.now.factors["query"].lora_A, lora_B)})

    visit = make_client(runtime=lambda bundle, adapter, **settings: Poisoned(adapter)).run_once()
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
        raise ZeroDivisionError("sun and sand")

    with caplog.at_level(logging.ERROR):
        visit = make_client(runtime=refuse).run_once()
    assert _failure(service, visit) == ("internal_error", "ZeroDivisionError")
    assert caplog.records[0].exc_info is not None


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
    assert list(folder.updates.iterdir()) == []


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


def test_upload_survives_a_cut_within_the_visit(service: FakeService, make_client: MakeClient) -> None:
    client = make_client()
    client.run_once()
    service.requests.clear()
    service.faults = [None, None, None, httpx.WriteError("cut"), httpx.ReadError("cut")]
    assert client.run_once().outcome == "accepted"
    assert [request for request in service.requests if "PUT" in request] == [
        "PUT /device/v1/assignments/assignment-1/update"
    ] * 3


PORTAL = httpx.Response(200, html="<h1>Accept our terms to go online</h1>")


@pytest.mark.parametrize(
    "faults", [[httpx.ConnectError("refused")] * 3, [PORTAL], [None, PORTAL]], ids=["away", "PUT", "submit"]
)
def test_update_that_found_no_service_is_delivered_by_the_next_visit_without_training_again(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder, faults: list[Any]
) -> None:
    trained: list[QuadraticRuntime] = []

    def open_runtime(bundle: Any, adapter: Adapter, **settings: Any) -> QuadraticRuntime:
        trained.append(QuadraticRuntime(adapter))
        return trained[-1]

    client = make_client(runtime=open_runtime)
    client.run_once()
    service.faults = [None, None, None, *faults]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert len(list(folder.updates.iterdir())) == 2
    client.close()

    visit = make_client(runtime=open_runtime).run_once()
    assert visit.outcome == "accepted"
    assert len(trained) == 2
    assert service.updates[-1].factors["query"].lora_B[0, 0] == np.float32(0.90625)
    assert len(service.reports) == 2
    assert list(folder.updates.iterdir()) == []


def test_kept_update_that_was_damaged_is_made_anew(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    client.run_once()
    service.faults = [None, None, None, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    (folder.updates / "assignment-1.safetensors").write_bytes(b"half")
    assert client.run_once().outcome == "accepted"
    assert service.updates[1].rank == 4


def test_bundle_that_was_cut_off_goes_on_in_the_next_visit(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    # Check-in, enrolment, check-in, manifest, start and one file pass.
    service.faults = [*[None] * 6, *[httpx.ConnectError("refused")] * 3]
    with pytest.raises(ServiceUnreachable):
        client.run_once()
    assert service.failures == []
    arrived = service.fetched()[:2]
    service.requests.clear()
    assert client.run_once().outcome == "accepted"
    assert not set(arrived) & set(service.fetched())


def test_leftovers_are_gone_after_an_accepted_update(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    client = make_client()
    (folder.downloads / f"{'0' * 64}.part").write_bytes(b"of a bundle that is no more")
    client.run_once()
    assert list(folder.downloads.iterdir()) == []


def test_unknown_device_without_token_is_told_so(make_client: MakeClient) -> None:
    with pytest.raises(UnknownDevice):
        make_client(enrolment_token=None).run_once()


def test_device_that_is_not_permitted_is_told_so(service: FakeService, make_client: MakeClient) -> None:
    service.faults = [problem(NotPermitted("device is suspended"))]
    with pytest.raises(NotPermitted, match="suspended"):
        make_client().run_once()


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"population": "Bad Name"}, "population: "),
        ({"population": "Bad Name", "enrolment_token": None}, "population: "),
        ({"name": "x" * 129}, "name: "),
        ({"enrolment_token": ""}, "enrolment_token: "),
        ({"traffic_bytes_per_round": 1}, "given twice"),
    ],
    ids=["population", "population of an enrolled device", "name", "token", "traffic beside capabilities"],
)
def test_setting_that_cannot_be_used_is_refused_at_once(
    service: FakeService, make_client: MakeClient, given: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SettingsError, match=fault):
        make_client(**given)
    assert service.requests == []


def test_device_keeps_its_name_from_start_to_start(make_client: MakeClient) -> None:
    first = make_client()
    assert make_client().device_id == first.device_id


def test_device_folder_is_closed_to_others(make_client: MakeClient, folder: DeviceFolder) -> None:
    make_client()
    assert stat.S_IMODE(folder.root.stat().st_mode) == 0o700


def test_run_forever_goes_at_the_services_pace_until_stopped(
    service: FakeService, make_client: MakeClient
) -> None:
    stop = Stop(after=3)
    service.offer = None
    visits: list[Visit] = []
    make_client().run_forever(stop=stop, on_visit=visits.append)
    assert len(visits) == 3
    assert stop.waits == [7.0, 7.0, 7.0]


def test_run_forever_outlasts_a_service_that_is_away(service: FakeService, make_client: MakeClient) -> None:
    stop = Stop(after=3)
    service.offer = None
    service.faults = [httpx.ConnectError("refused")] * 6
    make_client().run_forever(stop=stop)
    away, longer, back = stop.waits
    assert 0 <= away <= 5
    assert 0 <= longer <= 10
    assert back == 7.0


def test_run_forever_outlasts_a_captive_portal(service: FakeService, make_client: MakeClient) -> None:
    stop = Stop(after=3)
    service.offer = None
    service.faults = [PORTAL, PORTAL]
    visits: list[Visit] = []
    make_client().run_forever(stop=stop, on_visit=visits.append)
    assert [visit.outcome for visit in visits] == ["no_work"]


class Stop(threading.Event):
    """An event that notes how long it was waited for, does not wait, and is set after some waits."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self._after = after
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(-1.0 if timeout is None else timeout)
        if len(self.waits) == self._after:
            self.set()
        return self.is_set()


def test_second_client_of_one_folder_is_refused(folder: DeviceFolder, make_client: MakeClient) -> None:
    first = make_client()

    with pytest.raises(SettingsError, match="in use"):
        EdgeClient("http://service.test", "weather", folder.root)

    first.close()
    EdgeClient("http://service.test", "weather", folder.root).close()


def test_update_survives_a_clock_that_is_found_wrong_at_the_upload(
    service: FakeService, make_client: MakeClient
) -> None:
    client = make_client()
    client.run_once()
    skewed = problem(ClockSkew("the signature was made at another time"))
    # Check-in, start and adapter pass.
    service.faults = [None, None, None, skewed]

    with pytest.raises(ClockSkew):
        client.run_once()

    assert client.run_once().outcome == "accepted"
