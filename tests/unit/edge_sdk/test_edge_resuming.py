"""A training that was cut off between two steps goes on in the next process as if it had never stopped."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from device_tables import damage_part, stored_parts
from fake_service import NOW, FakeService
from killed import Killed
from ordered_runtime import OrderedRuntime
from store_files import disk_of
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, GivenUp, HeldOutScored, RankChosen, Resumed, StepDone
from edge_sdk.examples import Example
from edge_sdk.folder import DeviceFolder, open_folder
from edge_sdk.planning.forecast import PROCESS_BYTES
from edge_sdk.planning.planner import MEMORY_SHARE
from edge_sdk.runtimes.base import Batch, Factors
from hetlora.adapter import Tensor
from hetlora.bundle import Bundle
from hetlora.cost import StepCost
from hetlora.errors import ClockSkew
from hetlora.graph_names import INPUT_IDS
from hetlora.manifest import Manifest
from hetlora.messages.device import TrainingSettings

WORDS = ("snow", "ice", "sun", "sand", "and")
STEPS = 40
# So that a first checkpoint, which is due after a third of a second, comes long before the last step.
STEP_SECONDS = 0.02
MB = 1_000_000


@dataclass
class Device:
    """One device folder, in process after process."""

    service: FakeService
    folder: DeviceFolder
    runtime: OrderedRuntime = field(default_factory=lambda: OrderedRuntime(STEP_SECONDS))
    events: list[Event] = field(default_factory=list)

    def visit(
        self,
        *,
        killed_after: int | None = None,
        before: Callable[[EdgeClient], object] | None = None,
        **given: Any,
    ) -> str:
        """What a process comes to, which may be killed after a step."""

        def on_event(event: Event) -> None:
            self.events.append(event)
            if isinstance(event, StepDone) and event.step == killed_after:
                raise Killed

        usual: dict[str, Any] = {
            "enrolment_token": "token",
            "capabilities": STRONG,
            "runtime": self.runtime,
            "http": self.service.http,
            "clock": lambda: NOW,
            "on_event": on_event,
        }
        with EdgeClient("http://service.test", "weather", self.folder.root, **(usual | given)) as client:
            if client.examples.count() == 0:
                client.examples.put_many([*_examples()])
            if before is not None:
                before(client)
            try:
                return client.run_once().outcome
            except Killed:
                return "killed"

    def resumed_after(self) -> list[int]:
        return [event.step for event in self.events if isinstance(event, Resumed)]

    def steps(self) -> list[int]:
        return [event.step for event in self.events if isinstance(event, StepDone)]


def _examples() -> Iterator[Example]:
    return (Example(word, "cold", key=word) for word in WORDS)


@pytest.fixture
def training() -> TrainingSettings:
    return TrainingSettings(steps=STEPS, batch_size=2, learning_rate=0.01, max_tokens=8, pruning_decay=1.0)


@pytest.fixture
def device(folder: DeviceFolder, training: TrainingSettings) -> Device:
    return Device(FakeService(training=training), folder)


@pytest.fixture
def undisturbed(tmp_path: Path, training: TrainingSettings) -> bytes:
    """The update of a device that nothing happens to."""
    device = Device(FakeService(training=training), open_folder(tmp_path / "other"), OrderedRuntime())
    assert device.visit() == "accepted"
    return device.service.bodies[0]


def test_update_is_that_of_an_undisturbed_training_bit_for_bit(device: Device, undisturbed: bytes) -> None:
    assert device.visit(killed_after=30) == "killed"
    assert device.visit(killed_after=35) == "killed"
    assert device.visit() == "accepted"
    assert device.service.bodies == [undisturbed]
    first, second = device.resumed_after()
    assert 1 <= first <= 30
    assert first <= second <= 35
    assert device.steps() == [*range(1, 31), *range(first + 1, 36), *range(second + 1, STEPS + 1)]
    assert sum(":start" in request for request in device.service.requests) == 1
    report = device.service.reports[0]
    assert report.steps == STEPS
    losses = [event.loss for event in device.events if isinstance(event, StepDone)]
    assert (report.first_loss, report.last_loss) == (losses[0], losses[-1])
    assert stored_parts(device.folder) == set()


def test_training_that_was_cut_off_before_a_checkpoint_begins_with_what_was_fetched(
    device: Device, undisturbed: bytes
) -> None:
    assert device.visit(killed_after=1) == "killed"
    assert stored_parts(device.folder) == {"received"}
    device.service.requests.clear()
    assert device.visit() == "accepted"
    assert device.service.fetched() == []
    assert device.service.bodies == [undisturbed]
    assert device.resumed_after() == []


def test_checkpoint_that_was_damaged_costs_its_steps_alone(device: Device, undisturbed: bytes) -> None:
    device.visit(killed_after=30)
    damage_part(device.folder, "checkpoint")
    assert device.visit() == "accepted"
    assert device.steps() == [*range(1, 31), *range(1, STEPS + 1)]
    assert device.service.bodies == [undisturbed]


def test_what_was_fetched_and_damaged_is_fetched_again(device: Device, undisturbed: bytes) -> None:
    device.visit(killed_after=30)
    damage_part(device.folder, "received")
    device.service.requests.clear()
    assert device.visit() == "accepted"
    assert device.service.fetched() == ["global adapter"]
    assert device.service.bodies == [undisturbed]


def test_example_that_is_deleted_meanwhile_is_trained_on_no_more(device: Device) -> None:
    device.visit(killed_after=30)
    device.runtime.read.clear()
    assert device.visit(before=lambda client: client.examples.delete("snow")) == "accepted"
    assert len(device.resumed_after()) == 1
    assert set(device.runtime.read) == {3, 4, 5, 6}  # ice, sun, sand, and; snow would be 2
    assert device.service.reports[0].steps == STEPS


def test_disk_that_is_full_costs_checkpoints_and_not_the_training(device: Device, undisturbed: bytes) -> None:
    device.visit(killed_after=1)
    with disk_of(60_000):  # what is there already is larger
        assert device.visit(killed_after=35) == "killed"
    assert device.resumed_after() == []
    assert device.steps()[1:] == list(range(1, 36))
    assert device.visit() == "accepted"
    assert device.service.bodies == [undisturbed]


@pytest.mark.parametrize("jump_seconds", [-40 * 365 * 86400.0, -3600.0, 7 * 86400.0, 40 * 365 * 86400.0])
def test_clock_that_jumps_drops_nothing(device: Device, undisturbed: bytes, jump_seconds: float) -> None:
    device.visit(killed_after=30)
    with pytest.raises(ClockSkew):
        device.visit(clock=lambda: NOW + jump_seconds)
    assert stored_parts(device.folder) == {"received", "checkpoint"}
    assert device.visit() == "accepted"
    assert len(device.resumed_after()) == 1
    assert device.service.bodies == [undisturbed]


def test_folder_that_is_copied_to_another_place_goes_on_there(
    device: Device, undisturbed: bytes, tmp_path: Path
) -> None:
    device.visit(killed_after=30)
    shutil.copytree(device.folder.root, tmp_path / "copy")
    copy = replace(device, folder=open_folder(tmp_path / "copy"), events=[])
    assert copy.visit() == "accepted"
    assert len(copy.resumed_after()) == 1
    assert device.service.bodies == [undisturbed]
    # The device of before finds its assignment ended; that this one has a twin is for the service to find.
    device.service.offer = None
    assert device.visit() == "no_work"
    assert device.events[-1] == GivenUp("assignment-1")


def test_assignment_that_is_no_longer_offered_is_given_up_and_the_next_one_begun(device: Device) -> None:
    device.visit(killed_after=30)
    assert device.service.offer is not None
    device.service.offer = device.service.offer.model_copy(update={"assignment_id": "assignment-2"})
    # The service ended the lease; the plan of the fake one names the first assignment all the same.
    assert device.visit() == "accepted"
    assert GivenUp("assignment-1") in device.events
    assert device.resumed_after() == []
    assert device.steps()[30:] == list(range(1, STEPS + 1))


def test_device_that_has_less_memory_by_then_gives_the_work_back(device: Device) -> None:
    device.visit(killed_after=30)
    small = STRONG.model_copy(update={"memory_available_bytes": 1000})
    assert device.visit(capabilities=small) == "failed"
    assert [failure.code for failure in device.service.failures] == ["device_too_small"]
    assert stored_parts(device.folder) == set()


def test_length_that_was_agreed_is_planned_for_with_the_memory_of_now(
    folder: DeviceFolder, training: TrainingSettings
) -> None:
    permitting = training.model_copy(update={"min_tokens": 1})
    service = FakeService(training=permitting, change=_token_costs_100_mb)
    device = Device(service, folder, OrderedRuntime(STEP_SECONDS))
    device.visit(killed_after=30)
    # 1.15 * 100 MB a token: room for texts of two, and eight were agreed.
    for_two = int((PROCESS_BYTES + 260 * MB) / MEMORY_SHARE)
    small = STRONG.model_copy(update={"memory_available_bytes": for_two})
    assert device.visit(capabilities=small) == "failed"
    assert [failure.code for failure in service.failures] == ["device_too_small"]


def test_less_memory_by_then_takes_fewer_rows_at_a_time(
    folder: DeviceFolder, training: TrainingSettings
) -> None:
    service = FakeService(training=training, change=_token_costs_100_mb)
    runtime = Counting(STEP_SECONDS)
    device = Device(service, folder, runtime)
    device.visit(killed_after=30)
    assert runtime.rows == [2] * 30
    runtime.rows.clear()
    # 1.15 * 100 MB a token: room for one text of eight, and two are a batch.
    for_one = int((PROCESS_BYTES + 1000 * MB) / MEMORY_SHARE)
    small = STRONG.model_copy(update={"memory_available_bytes": for_one})
    assert device.visit(capabilities=small) == "accepted"
    assert runtime.rows == [1] * 2 * (STEPS - device.resumed_after()[0])


def test_measured_device_goes_on_without_a_trial_or_a_second_choice(
    folder: DeviceFolder, training: TrainingSettings
) -> None:
    runtime = Counting(STEP_SECONDS)
    device = Device(FakeService(training=training), folder, runtime)
    assert device.visit(capabilities=None, killed_after=30) == "killed"
    assert runtime.opened == 2  # a trial, and the training
    # What the trial told is not believed under other circumstances; what was agreed stays so.
    assert device.visit(capabilities=None, threads=1) == "accepted"
    assert runtime.opened == 3
    assert len([event for event in device.events if isinstance(event, RankChosen)]) == 1
    assert device.service.reports[0].steps == STEPS


@dataclass
class Counting(OrderedRuntime):
    """Counts how often it is opened, and the rows of each part of a batch."""

    opened: int = 0
    rows: list[int] = field(default_factory=list)

    def __call__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None) -> Counting:
        self.opened += 1
        return self

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        self.rows.append(len(batch[INPUT_IDS]))
        return super().gradients(batch, factors)


def test_model_is_scored_once_before_its_first_step_however_often_it_is_cut_off(
    folder: DeviceFolder, training: TrainingSettings
) -> None:
    service = FakeService(training=training.model_copy(update={"evaluate": True}))
    device = Device(service, folder, OrderedRuntime(STEP_SECONDS))

    def hold_out(client: EdgeClient) -> None:
        client.held_out.put("rain", "cold")

    assert device.visit(killed_after=30, before=hold_out) == "killed"
    assert device.visit() == "accepted"
    assert [event.when for event in device.events if isinstance(event, HeldOutScored)] == ["before", "after"]
    assert service.reports[0].held_out_loss_before == pytest.approx(0.6931, abs=1e-4)


def test_stop_while_the_trained_model_is_scored_costs_no_step(
    folder: DeviceFolder, training: TrainingSettings
) -> None:
    service = FakeService(training=training.model_copy(update={"evaluate": True}))
    stop = threading.Event()

    @dataclass
    class StoppedBeforeTheSecondScore(OrderedRuntime):
        def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
            if len(self.read) == 2 * (STEPS - 1):  # this is the last step
                stop.set()
            return super().gradients(batch, factors)

    def client(runtime: OrderedRuntime) -> EdgeClient:
        return EdgeClient(
            "http://service.test",
            "weather",
            folder.root,
            enrolment_token="token",
            capabilities=STRONG,
            runtime=runtime,
            http=service.http,
            clock=lambda: NOW,
        )

    with client(StoppedBeforeTheSecondScore()) as first:
        first.examples.put_many([*_examples()])
        first.held_out.put("rain", "cold")
        assert first.run_once(stop=stop).outcome == "stopped"
    again = OrderedRuntime()
    with client(again) as second:
        assert second.run_once().outcome == "accepted"
    assert again.read == []
    assert service.reports[0].steps == STEPS


def _token_costs_100_mb(manifest: Manifest) -> Manifest:
    costs = manifest.cost_model.model_copy(update={"live_bytes": (StepCost(per_token=100 * MB),)})
    return manifest.model_copy(update={"cost_model": costs})
