"""How a round ends when its report window closes."""

from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator

MakeDevice = Callable[[int], FakeDevice]


def test_window_closing_over_the_minimum_share_commits(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    # ceil(0.5 * 3) = 2 updates are enough
    run_id = operator.run(bundle, goal_count=3, minimum_share=0.5, report_window_seconds=100)
    for seed in (1, 2):
        make_device(seed).deliver(make_adapter(2))
    clock.advance(99)
    assert operator.call("GET", f"/runs/{run_id}")["rounds_committed"] == 0
    clock.advance(1)
    operator.committed(run_id)
    (row,) = operator.items(f"/runs/{run_id}/rounds")
    assert (row["accepted"], row["state"]) == (2, "committed")


def test_window_closing_below_the_minimum_share_abandons_and_tries_again(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    run_id = operator.run(bundle, goal_count=3, minimum_share=0.5, report_window_seconds=100)
    make_device(1).deliver(make_adapter(2))
    working = make_device(2).started()
    clock.advance(100)
    rounds = operator.wait_for(f"/runs/{run_id}/rounds", lambda page: len(page["items"]) == 2)["items"]
    assert [(row["round_index"], row["attempt"], row["state"]) for row in rounds] == [
        (0, 0, "abandoned"),
        (0, 1, "selecting"),
    ]
    assert rounds[0]["reason"] == "report window closed with 1 of 3 updates, 2 needed"
    states = {item["assignment_id"]: item["state"] for item in operator.items(f"/runs/{run_id}/assignments")}
    assert states[working] == "expired"
    assert make_device(1).offer()["round_index"] == 0


def test_empty_window_is_never_enough(
    operator: Operator, device: FakeDevice, bundle: str, clock: FakeClock
) -> None:
    # 1e-10 * 1 is less than the hair that is taken off before rounding up: 0 without a floor.
    run_id = operator.run(bundle, minimum_share=1e-10, report_window_seconds=100)
    device.started()
    clock.advance(100)
    rounds = operator.wait_for(f"/runs/{run_id}/rounds", lambda page: len(page["items"]) == 2)["items"]
    assert (rounds[0]["state"], rounds[1]["attempt"]) == ("abandoned", 1)
    assert rounds[0]["reason"] == "report window closed with 0 of 1 updates, 1 needed"


def test_window_starts_with_the_first_offer(
    operator: Operator, device: FakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, report_window_seconds=100, lease_seconds=1000)
    clock.advance(500)
    offer = device.offer()
    # The lease ends with the window, and training may take half of it.
    assert offer["lease_expires_at"] == "2026-11-20T12:10:00Z"
    assert offer["round_seconds"] == 50.0
