"""Runs that are paused, resumed or stopped while devices work for them."""

from __future__ import annotations

from collections.abc import Callable

from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator

MakeDevice = Callable[[int], FakeDevice]


def test_paused_run_makes_no_offers_but_takes_what_is_out(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2)
    device, other = make_device(1), make_device(2)
    assignment_id = device.started()
    operator.call("POST", f"/runs/{run_id}:pause")
    idle = other.check_in()
    assert (idle["offer"], idle["reason"]) == (None, "no run is active")
    device.upload(assignment_id, make_adapter(2))
    assert device.submit(assignment_id, make_adapter(2)).json()["state"] == "accepted"
    assert operator.committed(run_id)["state"] == "paused"
    operator.call("POST", f"/runs/{run_id}:resume")
    assert other.offer()["round_index"] == 1


def test_last_round_of_a_paused_run_completes_it(operator: Operator, device: FakeDevice, bundle: str) -> None:
    run_id = operator.run(bundle, rounds=1)
    assignment_id = device.started()
    operator.call("POST", f"/runs/{run_id}:pause")
    device.upload(assignment_id, make_adapter(2))
    device.submit(assignment_id, make_adapter(2))
    assert operator.committed(run_id)["state"] == "completed"
    moves = operator.items(f"/transitions?subject=run&subject_id={run_id}")
    assert [move["new"] for move in moves] == ["draft", "running", "paused", "completed"]


def test_stopped_run_ends_its_round_and_tells_its_devices(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    assert operator.call("POST", f"/runs/{run_id}:stop")["state"] == "stopped"
    assert [row["state"] for row in operator.items(f"/runs/{run_id}/rounds")] == ["abandoned"]
    receipt = device.submit(assignment_id, make_adapter(2)).json()
    assert (receipt["state"], receipt["reason"]) == ("aborted", "run stopped")
    assert device.check_in()["reason"] == "no run is active"
