"""The Kotlin client on the JVM in a round with a Python device: its update is accepted once, and merged."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e_fleet import TinyFleet, assert_is_merge, wait_until
from kotlin_client import device

from benchmarks.processes import Process
from hetlora.states import AssignmentState, RunState, is_final

pytestmark = pytest.mark.slow

RANK = 4
MOST_KILLS = 6


@pytest.fixture
def kotlin(fleet: TinyFleet, tmp_path: Path) -> Iterator[Process]:
    """A device of rank 4 with the toy trainer, not started yet; its log tells of each step."""
    process = device(fleet, "session.ToyDeviceKt", tmp_path / "kotlin", RANK, 50)
    yield process
    process.kill()


def test_the_update_of_a_kotlin_device_is_accepted_and_merged_with_a_python_one(
    fleet: TinyFleet, kotlin: Process
) -> None:
    run = fleet.start_run(rounds=1, goal_count=2)
    fleet.device("python", fleet.for_rank(8))
    kotlin.start()

    finished = fleet.finished(run)

    assert finished.state is RunState.COMPLETED, kotlin.log.read_text()
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert {status.device_name: status.rank for status in accepted} == {"python": 8, "kotlin": RANK}
    updates = fleet.updates()
    submitted = re.findall(r"submitted (\w+) ACCEPTED", kotlin.log.read_text())
    assert len(submitted) == 1
    own = updates[submitted[0]]
    assert own.rank == RANK
    # The toy adds multiples of 2^-10 to a new adapter's zeros, in three steps of -5 to 5 of them each.
    lora_B = np.concatenate([factors.lora_B.ravel() for factors in own.factors.values()]) * 1024
    assert np.array_equal(lora_B, np.rint(lora_B))
    assert 1 <= np.abs(lora_B).max() <= 15
    assert len(updates) == 2
    assert_is_merge(fleet.committed(finished.adapter_version), updates.values())


def test_a_kotlin_device_that_is_killed_at_random_moments_is_accepted_once(
    fleet: TinyFleet, kotlin: Process
) -> None:
    training = {"steps": 60, "batch_size": 4, "max_tokens": 16}
    run = fleet.start_run(rounds=1, goal_count=2, lease_seconds=300, training=training)
    fleet.device("python", fleet.for_rank(8))
    moments = random.Random(7)
    kills = 0
    while kills < MOST_KILLS and not is_final(fleet.operator.run(run.run_id).state):
        kotlin.start()
        steps_before = kotlin.log.read_text().count("step ")
        time.sleep(moments.uniform(0.2, 2.0))
        if kills % 2:  # every other time in the middle of training
            wait_until(
                lambda before=steps_before: kotlin.log.read_text().count("step ") > before,
                "a step of the Kotlin device",
            )
        kotlin.kill()
        kills += 1
    kotlin.start()

    finished = fleet.finished(run)

    log = kotlin.log.read_text()
    assert finished.state is RunState.COMPLETED, log
    assert kills == MOST_KILLS
    statuses = [status for status in fleet.operator.assignments(run.run_id) if status.device_name == "kotlin"]
    assert [(status.state, status.rank) for status in statuses] == [(AssignmentState.ACCEPTED, RANK)], log
    # A start goes on at the step after its checkpoint.
    assert "resumed" in log
    updates = fleet.updates()
    assert len(updates) == 2
    assert_is_merge(fleet.committed(finished.adapter_version), updates.values())
