"""A buffered run of real devices, whose service is killed while they train."""

from __future__ import annotations

from collections import defaultdict

import pytest
from e2e_fleet import TinyFleet, wait_until

from hetlora.messages.device import TrainingSettings
from hetlora.messages.rules import ResidualExactRule
from hetlora.states import AssignmentState, RoundState, RunState

pytestmark = pytest.mark.slow


def test_devices_outlive_rounds_and_a_killed_service_and_each_update_counts_once(fleet: TinyFleet) -> None:
    run = fleet.start_run(
        mode="buffered",
        rule=ResidualExactRule(),
        rounds=3,
        goal_count=2,
        over_selection=1.5,
        training=TrainingSettings(steps=200, batch_size=16, max_tokens=16),
    )
    for name in ("one", "two", "three"):
        fleet.device(name)
    wait_until(lambda: len(fleet.in_state(run, AssignmentState.TRAINING)) == 3, "three devices in training")

    fleet.service.kill()
    fleet.service.start()

    assert fleet.finished(run).state is RunState.COMPLETED
    rounds = list(fleet.operator.rounds(run.run_id))
    assert [(status.round_index, status.state) for status in rounds] == [
        (number, RoundState.COMMITTED) for number in range(3)
    ]
    weights, staleness = defaultdict(list), []
    for status in fleet.in_state(run, AssignmentState.ACCEPTED):
        assert status.staleness is not None
        weights[status.round_index].append(status.aggregation_weight or 0)
        staleness.append(status.staleness)
    assert {number: sum(own) for number, own in weights.items()} == pytest.approx(dict.fromkeys(range(3), 1))
    assert [status.accepted for status in rounds] == [len(weights[number]) for number in range(3)]
    # All three were sent the initial adapter, and the first round took two of them.
    assert max(staleness) >= 1
