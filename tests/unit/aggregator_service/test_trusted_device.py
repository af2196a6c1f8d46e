"""Rounds that have to wait for the device that FLTrust measures all others by."""

from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from service_operator import Operator
from service_server import problem

MakeDevice = Callable[[int], FakeDevice]


def run_with(operator: Operator, trusted: str, goal_count: int, **settings: object) -> str:
    defence = {"method": "fltrust", "trusted_device": trusted}
    chosen = {"max_rank": RANK, "goal_count": goal_count, "defence": defence, **settings}
    return operator.run(operator.publish(SPEC), **chosen)


def test_unknown_trusted_device_is_refused(operator: Operator) -> None:
    body = {
        "population": "keyboard",
        "bundle": operator.publish(SPEC),
        "settings": {
            "goal_count": 2,
            "max_rank": RANK,
            "defence": {"method": "fltrust", "trusted_device": "0" * 32},
        },
    }
    assert problem(operator.send("POST", "/runs", json=body)) == (404, "not_found")


def test_last_place_of_a_cohort_is_kept_for_the_trusted_device(
    operator: Operator, make_device: MakeDevice
) -> None:
    trusted, first, second = (make_device(number) for number in (1, 2, 3))
    run_id = run_with(operator, trusted.device_id, goal_count=2)
    work(first, RANK, seed=1)
    answer = second.check_in()
    assert (answer["offer"], answer["reason"]) == (None, "the last place is kept for the trusted device")
    work(trusted, RANK, seed=1)
    assert operator.committed(run_id)["state"] == "completed"


def test_goal_is_not_met_without_the_trusted_device(operator: Operator, make_device: MakeDevice) -> None:
    trusted, first, second = (make_device(number) for number in (1, 2, 3))
    run_id = run_with(operator, trusted.device_id, goal_count=2, over_selection=1.5)  # 3 places
    work(first, RANK, seed=1)
    work(second, RANK, seed=1)
    (row,) = operator.items(f"/runs/{run_id}/rounds")
    assert (row["state"], row["accepted"]) == ("selecting", 2)
    work(trusted, RANK, seed=1)
    assert operator.committed(run_id)["state"] == "completed"


def test_window_that_closes_without_the_trusted_device_is_tried_again(
    operator: Operator, make_device: MakeDevice, clock: FakeClock
) -> None:
    trusted, other = make_device(1), make_device(2)
    run_id = run_with(operator, trusted.device_id, goal_count=2, report_window_seconds=100)
    work(other, RANK, seed=1)
    clock.advance(100)
    rounds = operator.wait_for(f"/runs/{run_id}/rounds", lambda page: len(page["items"]) == 2)["items"]
    told = "report window closed with 1 of 2 updates, none of the trusted device"
    assert (rounds[0]["state"], rounds[0]["reason"], rounds[1]["attempt"]) == ("abandoned", told, 1)


def test_run_whose_rounds_fail_for_one_reason_again_and_again_is_paused(
    operator: Operator, make_device: MakeDevice
) -> None:
    trusted, other = make_device(1), make_device(2)
    run_id = run_with(operator, trusted.device_id, goal_count=1, over_selection=2.0)
    for attempt in range(3):
        if attempt == 1:
            work(other, RANK, seed=1)  # the reason then tells of another number of updates
        plan = trusted.started_plan(RANK)
        unchanged = trusted.fetched(plan.adapter)  # without a change of its own there is nobody to trust
        assert trusted.hand_in(plan, unchanged, RANK)["state"] == "accepted"
        operator.wait_for(f"/runs/{run_id}/rounds", lambda page, n=attempt: len(page["items"]) == n + 2)
    run = operator.call("GET", f"/runs/{run_id}")
    assert run["state"] == "paused"
    assert run["reason"].startswith("3 attempts at a round failed: the defence trusts no update")
    assert trusted.check_in()["offer"] is None
    operator.call("POST", f"/runs/{run_id}:resume")
    work(trusted, RANK, seed=1)
    assert operator.committed(run_id)["state"] == "completed"
