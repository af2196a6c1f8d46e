"""What a device is offered after rounds in which rules sent it other ranks than it took."""

from __future__ import annotations

from typing import Any

import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work, worked
from service_operator import Operator

from hetlora.algebra import truncate
from hetlora.tensors import adapter_to_bytes


def started(operator: Operator, **settings: Any) -> str:
    return operator.run(operator.publish(SPEC), max_rank=RANK, **settings)


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "florist", "energy": 0.2},  # sends fewer ranks than were taken, and than the lowest on offer
        {"name": "residual_exact", "allocate": True},  # sends some modules fewer, some more
    ],
)
def test_offers_stay_what_they_were_where_no_device_pruned_itself(
    operator: Operator, device: FakeDevice, rule: dict[str, Any]
) -> None:
    run_id = started(operator, rule=rule, rounds=3, min_rank=2)
    sent = []
    for index, taken in enumerate((RANK, 3, 3)):
        offer = device.offer()
        assert (offer["min_rank"], offer["max_rank"]) == (2, RANK)
        sent.append({*work(device, taken, seed=index).sent.adapter.ranks.values()})
        operator.committed(run_id, index + 1)
    assert sent[-1] != {3}  # or the rule sent what was taken, and nothing is shown


def test_device_that_prunes_what_it_was_sent_is_offered_no_less_than_the_lowest_rank(
    operator: Operator, device: FakeDevice
) -> None:
    rule = {"name": "florist", "energy": 0.9}
    run_id = started(operator, rule=rule, rounds=3, min_rank=2)
    done = worked(device, RANK, seed=1)
    assert done.sent.adapter.rank == RANK
    pruned = truncate(done.update, 3)
    assert device.hand_in(done.plan, adapter_to_bytes(pruned), 3)["state"] == "accepted"
    operator.committed(run_id)
    assert device.offer()["max_rank"] == 3
    done = worked(device, 3, seed=2)
    assert done.sent.adapter.rank == 3
    assert device.hand_in(done.plan, adapter_to_bytes(truncate(done.update, 2)), 2)["state"] == "accepted"
    operator.committed(run_id, 2)
    assert (device.offer()["min_rank"], device.offer()["max_rank"]) == (2, 2)
