"""A Kotlin device on the JVM that plans for itself: its rank, its conditions, and what a rule asks of it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet, assert_is_merge, labelled_rows, wait_until
from kotlin_client import device, write_rows
from test_every_rule import SETTINGS, outcome

from benchmarks.processes import Process
from hetlora.bundle import Bundle
from hetlora.states import AssignmentState, RunState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LABELS = ["weather", "food", "sport"]
RANK = 2
STEP_MILLISECONDS = 50


@pytest.fixture
def fleet(phone_bundle: Bundle, tmp_path: Path) -> Iterator[TinyFleet]:
    with TinyFleet(tmp_path, phone_bundle) as fleet:
        yield fleet


@pytest.fixture
def charger(tmp_path: Path) -> Path:
    """A file that is there while the device is charged."""
    path = tmp_path / "charger"
    path.touch()
    return path


def planned_device(
    fleet: TinyFleet, folder: Path, charger: Path, *, ranks: int, milliseconds: int = 0
) -> Process:
    """A device with traffic for so many ranks, down and up together, not started yet."""
    examples = write_rows(folder.parent / "examples.tsv", labelled_rows(LABELS, 4))
    traffic = ranks * fleet.bundle.manifest.cost_model.adapter_bytes_per_rank
    return device(fleet, "ort.PlannedDeviceKt", folder, examples, traffic, charger, milliseconds)


def test_a_planned_device_ends_with_its_charger_and_its_next_work_is_merged_at_its_own_rank(
    fleet: TinyFleet, charger: Path, tmp_path: Path
) -> None:
    training = {"steps": 60, "batch_size": 4, "max_tokens": 16, "learning_rate": 0.01}
    run = fleet.start_run(rounds=1, goal_count=2, lease_seconds=300, training=training)
    kotlin = planned_device(
        fleet, tmp_path / "kotlin", charger, ranks=2 * RANK, milliseconds=STEP_MILLISECONDS
    )
    kotlin.start()
    try:
        wait_until(lambda: kotlin.log.read_text().count("step ") >= 3, "three steps of the Kotlin device")
        charger.unlink()
        steps = kotlin.log.read_text().count("step ")
        wait_until(lambda: "given_back conditions_unmet" in kotlin.log.read_text(), "work that is given back")
        # The step under way, and one that may have begun between the two lines above.
        assert kotlin.log.read_text().count("step ") <= steps + 2
        time.sleep(10 * STEP_MILLISECONDS / 1000)
        assert kotlin.log.read_text().count("step ") <= steps + 2
        charger.touch()
        fleet.device("python", fleet.for_rank(8))

        finished = fleet.finished(run)
    finally:
        kotlin.kill()

    log = kotlin.log.read_text()
    assert finished.state is RunState.COMPLETED, log
    accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
    assert {status.device_name: status.rank for status in accepted} == {"python": 8, "kotlin": RANK}
    assert "rank 2 traffic" in log  # what the planner took, and why no more
    # Real steps were taken before the offer was, and what they said is kept.
    (tried,) = json.loads((tmp_path / "kotlin" / "corrections.json").read_text())["corrections"]
    assert tried["bundle"] == fleet.bundle.digest
    assert 0.25 <= tried["seconds"] <= 4
    assert 0.7 <= tried["memory"] <= 4
    updates = fleet.updates()
    submitted = re.findall(r"submitted (\w+) ACCEPTED", log)
    assert len(submitted) == 1
    assert updates[submitted[0]].rank == RANK
    assert len(updates) == 2
    assert_is_merge(fleet.committed(finished.adapter_version), updates.values())


def test_a_kotlin_device_completes_runs_of_every_rule_beside_a_python_one(
    fleet: TinyFleet, charger: Path, tmp_path: Path
) -> None:
    # Its only rank is one that this device has not the traffic for.
    rules = {name: settings for name, settings in SETTINGS.items() if name != "deer"}
    fleet.device("python", fleet.for_rank(8))
    # Rank 4 down and up are 8, and where the rule sends rank 8 to every device 12.
    kotlin = planned_device(fleet, tmp_path / "kotlin", charger, ranks=12)
    kotlin.start()
    told, accepted = {}, {}
    try:
        for name, settings in rules.items():
            run = fleet.start_run(**{"rounds": 2, **settings})
            told[name] = outcome(fleet, fleet.finished(run))
            done = fleet.in_state(run, AssignmentState.ACCEPTED)
            accepted[name] = sorted(status.device_name for status in done)
    finally:
        kotlin.kill()

    log = kotlin.log.read_text()
    # All but its first update are signed with another key.
    assert re.findall(r"rotated (\w+)", log) == re.findall(r"device (\w+)", log)[:1]
    assert told == dict.fromkeys(rules, (RunState.COMPLETED, 2, set())), log
    assert accepted == {name: ["kotlin", "kotlin", "python", "python"] for name in rules}


def test_a_kotlin_device_takes_the_variant_that_is_for_phones(
    phone_bundle: Bundle, bundle_for: Callable[..., Bundle], charger: Path, tmp_path: Path
) -> None:
    with TinyFleet(tmp_path, bundle_for("onnx")) as fleet:
        fleet.operator.publish_bundle(phone_bundle)
        run = fleet.start_run(rounds=1, goal_count=2, variants=[phone_bundle.digest])
        kotlin = planned_device(fleet, tmp_path / "kotlin", charger, ranks=2 * RANK)
        kotlin.start()
        try:
            fleet.device("python", fleet.for_rank(8))
            finished = fleet.finished(run)
        finally:
            kotlin.kill()

        assert finished.state is RunState.COMPLETED, kotlin.log.read_text()
        accepted = fleet.in_state(run, AssignmentState.ACCEPTED)
        assert {(status.device_name, status.rank, status.variant) for status in accepted} == {
            ("python", 8, None),
            ("kotlin", RANK, phone_bundle.digest),
        }
        assert_is_merge(fleet.committed(finished.adapter_version), fleet.updates().values())
