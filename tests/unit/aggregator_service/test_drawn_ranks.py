"""Devices for which other ranks are drawn, though what they are sent, and send, are the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_device import FakeDevice
from service_bundle import SPEC, make_adapter
from service_operator import Operator

from hetlora.tensors import adapter_from_bytes, adapter_to_bytes


def test_update_moves_the_rank_that_was_drawn_for_its_device(
    operator: Operator, make_device: Callable[[int], FakeDevice]
) -> None:
    # Both ranks of the global adapter are ones. Each device adds 1 to the rank that it was sent, so that
    # rank k moves by the share of devices that drew it.
    begun_with_ones = operator.publish_with_adapter(make_adapter(2))
    run_id = operator.run(begun_with_ones, rule="fslora", goal_count=5)
    devices = [make_device(number) for number in range(1, 6)]
    plans = [device.started_plan(1) for device in devices]
    drawn = [plan.adaptation.ranks for plan in plans]
    assert {*drawn} == {(0,), (1,)}
    assert len({plan.adapter.sha256 for plan in plans}) == 1
    update = adapter_to_bytes(make_adapter(1, 2.0))
    for device, plan in zip(devices, plans, strict=True):
        device.hand_in(plan, update, 1)
    version = operator.committed(run_id)["adapter_version"]
    moved = adapter_from_bytes(operator.published(version)[0], SPEC)
    expected = [1 + drawn.count((rank,)) / 5 for rank in range(2)]
    for _, factors in moved:
        np.testing.assert_allclose(factors.lora_A, np.outer(expected, np.ones(factors.lora_A.shape[1])), 1e-6)
        np.testing.assert_allclose(factors.lora_B, np.outer(np.ones(factors.lora_B.shape[0]), expected), 1e-6)
    weights = [item["aggregation_weight"] for item in operator.items(f"/runs/{run_id}/assignments")]
    assert weights == pytest.approx([0.2] * 5)
