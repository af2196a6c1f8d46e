"""SIGKILL in the middle of a round: of the service, and of a device."""

from __future__ import annotations

import pytest
from e2e_fleet import TinyFleet, wait_until

from hetlora.states import AssignmentState, RoundState, RunState

pytestmark = pytest.mark.slow

# More steps than anyone takes: training ends when half of the lease has passed.
LONG_TRAINING = {"steps": 100_000, "batch_size": 16, "max_tokens": 16}


def test_a_killed_service_goes_on_with_its_round_and_loses_nothing_accepted(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=2, goal_count=2)
    fleet.device("first")
    wait_until(lambda: len(fleet.in_state(run, AssignmentState.ACCEPTED)) == 1, "one accepted update")
    kept = fleet.in_state(run, AssignmentState.ACCEPTED)[0]

    fleet.service.kill()
    fleet.service.start()

    assert fleet.in_state(run, AssignmentState.ACCEPTED) == [kept]
    fleet.device("second")
    finished = fleet.finished(run)
    assert finished.state is RunState.COMPLETED
    rounds = list(fleet.operator.rounds(run.run_id))
    assert [(status.round_index, status.attempt, status.state) for status in rounds] == [
        (0, 0, RoundState.COMMITTED),
        (1, 0, RoundState.COMMITTED),
    ]
    first_round = [
        status for status in fleet.in_state(run, AssignmentState.ACCEPTED) if status.round_index == 0
    ]
    assert kept.assignment_id in {status.assignment_id for status in first_round}
    assert sum(status.aggregation_weight or 0 for status in first_round) == pytest.approx(1)


def test_a_device_outlives_a_service_killed_while_it_trains(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=1, goal_count=1, training=LONG_TRAINING | {"steps": 300})
    device = fleet.device("patient")
    wait_until(lambda: bool(fleet.in_state(run, AssignmentState.TRAINING)), "a device in training")

    fleet.service.kill()
    fleet.service.start()

    assert fleet.finished(run).state is RunState.COMPLETED
    assert device.running


def test_a_round_commits_at_its_goal_though_a_device_was_killed(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=1, goal_count=2, over_selection=1.5, training=LONG_TRAINING | {"steps": 200})
    devices = {name: fleet.device(name) for name in ("one", "two", "three")}
    wait_until(
        lambda: {status.device_name for status in fleet.in_state(run, AssignmentState.TRAINING)} >= {"three"},
        "the third device in training",
    )

    devices["three"].kill()

    assert fleet.finished(run).state is RunState.COMPLETED
    (committed,) = fleet.operator.rounds(run.run_id)
    assert (committed.state, committed.accepted) == (RoundState.COMMITTED, 2)
    (left,) = [status for status in fleet.operator.assignments(run.run_id) if status.device_name == "three"]
    assert left.state is AssignmentState.ABORTED


def test_the_place_of_a_killed_device_is_given_again_when_its_lease_ends(fleet: TinyFleet) -> None:
    run = fleet.start_run(rounds=1, goal_count=2, lease_seconds=6, training=LONG_TRAINING)
    killed = fleet.device("killed")
    fleet.device("steady")
    wait_until(
        lambda: (
            {status.device_name for status in fleet.in_state(run, AssignmentState.TRAINING)} >= {"killed"}
        ),
        "the device in training",
    )
    killed.kill()
    fleet.device("replacement")

    finished = fleet.finished(run)

    assert finished.state is RunState.COMPLETED
    assert {status.device_name for status in fleet.in_state(run, AssignmentState.ACCEPTED)} == {
        "steady",
        "replacement",
    }
    assert fleet.in_state(run, AssignmentState.EXPIRED)
