"""A Kotlin device that really trains, under ONNX Runtime on the JVM, in a round with a Python device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet, assert_is_merge, labelled_rows, wait_until
from kotlin_client import device, write_rows

from benchmarks.processes import Process
from hetlora.bundle import Bundle
from hetlora.states import AssignmentState, RunState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LABELS = ["weather", "food", "sport"]
RANK = 4
STEPS = 1000  # so many that a checkpoint falls due long before the last


@pytest.fixture
def fleet(phone_bundle: Bundle, tmp_path: Path) -> Iterator[TinyFleet]:
    with TinyFleet(tmp_path, phone_bundle) as fleet:
        yield fleet


@pytest.fixture
def kotlin(fleet: TinyFleet, tmp_path: Path) -> Iterator[Process]:
    """A device of rank 4 under the published ONNX Runtime for Java, not started yet; it logs each step."""
    examples = write_rows(tmp_path / "examples.tsv", labelled_rows(LABELS, 4))
    process = device(fleet, "ort.OrtDeviceKt", tmp_path / "kotlin", RANK, examples)
    yield process
    process.kill()


def test_a_kotlin_device_is_killed_goes_on_and_what_it_learned_is_merged(
    fleet: TinyFleet, kotlin: Process, tmp_path: Path
) -> None:
    training = {"steps": STEPS, "batch_size": 4, "max_tokens": 16, "learning_rate": 0.01}
    run = fleet.start_run(rounds=1, goal_count=2, lease_seconds=300, training=training)
    kotlin.start()
    wait_until(lambda: has_checkpoint(tmp_path / "kotlin"), "a checkpoint of the Kotlin device")
    kotlin.kill()
    kotlin.start()
    fleet.device("python", fleet.for_rank(8))

    finished = fleet.finished(run)

    log = kotlin.log.read_text()
    assert finished.state is RunState.COMPLETED, log
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert {status.device_name: status.rank for status in accepted} == {"python": 8, "kotlin": RANK}
    # The second process went on from a checkpoint of the first.
    resumed = re.findall(r"resumed (\d+)", log)
    assert len(resumed) == 1
    assert 1 <= int(resumed[0]) <= STEPS
    submitted = re.findall(r"submitted (\w+) ACCEPTED (\S+) (\S+)", log)
    assert len(submitted) == 1
    digest, first_loss, last_loss = submitted[0]
    assert float(last_loss) < 0.5 * float(first_loss)

    updates = fleet.updates()
    assert len(updates) == 2
    assert updates[digest].rank == RANK
    assert_is_merge(fleet.committed(finished.adapter_version), updates.values())


def has_checkpoint(folder: Path) -> bool:
    state = folder / "state.json"
    return state.exists() and '"CHECKPOINT"' in state.read_text()
