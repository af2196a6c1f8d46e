"""A run of the service itself whose devices train with different bundles, and are killed at it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bundle_variants import variant_on_disk, weighing, with_room_for
from device_clock import Clock
from killed import Killed
from ordered_runtime import OrderedRuntime
from real_service import TOKEN, real_service

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, RankChosen, Resumed, StepDone
from hetlora.cli.operator import Operator
from hetlora.messages.device import CapabilityReport, TrainingSettings
from hetlora.messages.management import AssignmentStatus, RunCreate, RunSettings
from hetlora.states import AssignmentState, RunState, is_final

STEPS = 30
# A first checkpoint is due after a third of a second.
STEP_SECONDS = 0.02
TRAINING = TrainingSettings(
    steps=STEPS, batch_size=1, learning_rate=0.01, max_tokens=8, pruning_decay=1.0, pruning_penalty=0
)


@dataclass
class Device:
    """One of the population, in process after process."""

    url: str
    token: str
    folder: Path
    capabilities: CapabilityReport
    clock: Clock
    events: list[Event] = field(default_factory=list)

    def visit(self, *, killed_after: int | None = None) -> str:
        def on_event(event: Event) -> None:
            self.events.append(event)
            if isinstance(event, StepDone) and event.step == killed_after:
                raise Killed

        with EdgeClient(
            self.url,
            "weather",
            self.folder,
            enrolment_token=self.token,
            name=self.folder.name,
            capabilities=self.capabilities,
            runtime=OrderedRuntime(STEP_SECONDS),
            on_event=on_event,
            clock=self.clock,
        ) as client:
            client.examples.put("snow and ice", "cold", key="first")
            try:
                return client.run_once().outcome
            except Killed:
                return "killed"

    def told(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def url(tmp_path: Path, clock: Clock) -> Iterator[str]:
    with real_service(tmp_path / "data", clock) as url:
        yield url


def test_devices_with_different_bundles_make_one_round_and_go_on_after_a_kill_with_their_own(
    url: str, tmp_path: Path, clock: Clock
) -> None:
    own = variant_on_disk(tmp_path / "float32", weighing(400))
    int8 = variant_on_disk(tmp_path / "int8", weighing(100, "int8"))
    settings = RunSettings(
        rounds=1, goal_count=2, over_selection=1.0, max_rank=4, training=TRAINING, variants=(int8.digest,)
    )
    with Operator(url, TOKEN) as operator:
        token = operator.create_population("weather").enrolment_token
        for bundle in (own, int8):
            operator.publish_bundle(bundle)
        run = operator.create_run(RunCreate(population="weather", bundle=own.digest, settings=settings))
        operator.move_run(run.run_id, "start")
        roomy, lean = (
            Device(url, token, tmp_path / name, with_room_for(room_mb), clock)
            for name, room_mb in (("roomy", 640), ("lean", 220))
        )
        for device in (roomy, lean):
            assert device.visit(killed_after=25) == "killed"
        taken = by_name(operator, run.run_id)
        assert {name: status.state for name, status in taken.items()} == {
            "roomy": AssignmentState.TRAINING,
            "lean": AssignmentState.TRAINING,
        }
        lean.capabilities = roomy.capabilities  # room enough for the other one by now
        for device in (roomy, lean):
            assert device.visit() == "accepted"
        while not is_final(operator.run(run.run_id).state):  # the test's own time limit ends this
            time.sleep(0.02)
        assert operator.run(run.run_id).state is RunState.COMPLETED
        taken = by_name(operator, run.run_id)
    assert [event.variant for event in roomy.told(RankChosen)] == [None]
    assert [event.variant for event in lean.told(RankChosen)] == [int8.digest]
    assert all(device.told(Resumed)[0].step > 0 for device in (roomy, lean))
    assert {name: (status.variant, status.rank) for name, status in taken.items()} == {
        "roomy": (None, 4),
        "lean": (int8.digest, 2),
    }
    assert {path.name for path in (lean.folder / "bundles").iterdir() if (path / "weights").exists()} == {
        int8.digest
    }
    weights = [status.aggregation_weight for status in taken.values()]
    assert None not in weights
    assert sum(weight or 0.0 for weight in weights) == pytest.approx(1.0)


def by_name(operator: Operator, run_id: str) -> dict[str, AssignmentStatus]:
    return {status.device_name: status for status in operator.assignments(run_id)}
