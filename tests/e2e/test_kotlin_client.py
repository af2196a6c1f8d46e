"""The Kotlin client on the JVM in a round with a Python device: its update is accepted once, and merged."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e_fleet import TinyFleet, wait_until

from benchmarks.fleet import POPULATION
from benchmarks.processes import Process
from hetlora.adapter import Adapter
from hetlora.algebra import delta_norm, zero_pad
from hetlora.digest import sha256_of
from hetlora.states import AssignmentState, RunState, is_final
from hetlora.tensors import adapter_from_bytes, to_tensors

pytestmark = pytest.mark.slow

BUILD = Path(__file__).parents[2] / "android_demo" / "ci" / "build.py"
RANK = 4
MOST_KILLS = 6


@pytest.fixture(scope="module")
def class_path() -> str:
    """What `java -cp` takes for the client and its tests, compiled where that is to be done."""
    made = subprocess.run(
        [sys.executable, str(BUILD), "sdk-core", "--class-path"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return made.stdout.strip().splitlines()[-1]


@pytest.fixture
def kotlin(fleet: TinyFleet, class_path: str, tmp_path: Path) -> Iterator[Process]:
    """A device of rank 4 with the toy trainer, not started yet; its log tells of each step."""
    command = ["java", "--add-opens", "java.base/java.net=ALL-UNNAMED", "-XX:+UseSerialGC", "-cp", class_path]
    command += ["dev.hetlora.session.ToyDeviceKt", fleet.service.url, POPULATION]
    command += [str(tmp_path / "kotlin"), str(RANK), "50"]
    token = {"HETLORA_ENROLMENT_TOKEN": fleet.enrolment_token}
    process = Process(command, tmp_path / "kotlin.log", token)
    yield process
    process.kill()


def updates_by_digest(fleet: TinyFleet) -> dict[str, Adapter]:
    spec = fleet.bundle.manifest.adapter
    files = [path for path in (fleet.service.data_dir / "updates").rglob("*") if path.is_file()]
    return {sha256_of(data): adapter_from_bytes(data, spec) for data in (path.read_bytes() for path in files)}


def assert_is_merge(fleet: TinyFleet, version: str | None, updates: list[Adapter]) -> None:
    """HetLoRA: zero-padded factors, weighted by the norms of the products."""
    assert version is not None
    spec = fleet.bundle.manifest.adapter
    committed = to_tensors(adapter_from_bytes(fleet.operator.adapter_bytes(version), spec))
    norms = [delta_norm(update) for update in updates]
    padded = [to_tensors(zero_pad(update, spec.max_rank)) for update in updates]
    for key, got in committed.items():
        expected = sum(
            norm / sum(norms) * update[key].astype(np.float64)
            for norm, update in zip(norms, padded, strict=True)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-9)


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
    updates = updates_by_digest(fleet)
    submitted = re.findall(r"submitted (\w+) ACCEPTED", kotlin.log.read_text())
    assert len(submitted) == 1
    own = updates[submitted[0]]
    assert own.rank == RANK
    # The toy adds multiples of 2^-10 to a new adapter's zeros, in three steps of -5 to 5 of them each.
    lora_B = np.concatenate([factors.lora_B.ravel() for factors in own.factors.values()]) * 1024
    assert np.array_equal(lora_B, np.rint(lora_B))
    assert 1 <= np.abs(lora_B).max() <= 15
    assert len(updates) == 2
    assert_is_merge(fleet, finished.adapter_version, list(updates.values()))


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
    updates = updates_by_digest(fleet)
    assert len(updates) == 2
    assert_is_merge(fleet, finished.adapter_version, list(updates.values()))
