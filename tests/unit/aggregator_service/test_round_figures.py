"""What rounds came to, by round: for charts, tables and files."""

from __future__ import annotations

import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator

from hetlora.tensors import adapter_to_bytes


def test_figures_of_a_committed_round_are_those_of_its_updates(
    operator: Operator, device: FakeDevice
) -> None:
    run_id = operator.run(operator.publish())
    update = make_adapter(2)
    device.deliver(update)
    run = operator.committed(run_id)
    (figures,) = operator.items(f"/runs/{run_id}/figures")
    (assignment,) = operator.items(f"/runs/{run_id}/assignments")
    assert (figures["state"], figures["version"]) == ("committed", run["adapter_version"])
    assert (figures["asked"], figures["accepted"]) == (1, 1)
    assert figures["ranks"] == [{"rank": 2, "updates": 1}]
    assert figures["uploaded_bytes"] == len(adapter_to_bytes(update))
    assert figures["downloaded_bytes"] == assignment["downloaded_bytes"]
    assert figures["first_loss"] == pytest.approx(assignment["first_loss"])
    assert figures["last_loss"] == pytest.approx(assignment["last_loss"])
    assert figures["evaluation_accuracy"] is None
    assert figures["privacy"] is None


def test_means_are_over_accepted_updates_alone(
    operator: Operator, make_device: object, clock: FakeClock
) -> None:
    assert callable(make_device)
    first, second, lost = (make_device(number) for number in (1, 2, 3))
    run_id = operator.run(operator.publish(), goal_count=2, over_selection=1.5)
    lost.started(1)
    first.deliver(make_adapter(1), rank=1)
    second.deliver(make_adapter(2), rank=2)
    operator.committed(run_id)
    (figures,) = operator.items(f"/runs/{run_id}/figures")
    assert (figures["asked"], figures["accepted"]) == (3, 2)
    assert figures["ranks"] == [{"rank": 1, "updates": 1}, {"rank": 2, "updates": 1}]


def test_round_that_has_nothing_yet_has_no_means(operator: Operator, device: FakeDevice) -> None:
    run_id = operator.run(operator.publish())
    (figures,) = operator.items(f"/runs/{run_id}/figures")
    assert (figures["accepted"], figures["ranks"], figures["last_loss"]) == (0, [], None)
    assert figures["version"] is None
    assert operator.send("GET", "/runs/nothing/figures").status_code == 404
