"""A defence between updates and rule, through the service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, Work, work, worked
from service_operator import Operator

from hetlora.adapter import Adapter, LoraFactors
from hetlora.algebra import delta_norm
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes

MakeDevice = Callable[[int], FakeDevice]
HONEST = 5


def attacked(operator: Operator, devices: Sequence[FakeDevice], **settings: Any) -> tuple[Adapter, Any, Any]:
    """A round whose last device sends its product times a hundred: the adapter, weights, and figures."""
    run_id = operator.run(
        operator.publish(SPEC), rule="zero_pad", max_rank=RANK, goal_count=HONEST + 1, **settings
    )
    for number, device in enumerate(devices[:HONEST]):
        work(device, RANK, seed=100 + number % 2)  # two kinds, so that a majority agrees
    scaled(devices[-1])
    run = operator.committed(run_id)
    content = operator.send("GET", f"/adapters/{run['adapter_version']}/content").content
    listed = operator.items(f"/runs/{run_id}/assignments")
    weights = {item["device_id"]: item["aggregation_weight"] for item in listed}
    (newest, _) = operator.items(f"/runs/{run_id}/adapters")
    return adapter_from_bytes(content, SPEC), [weights[own.device_id] for own in devices], newest["figures"]


def scaled(device: FakeDevice) -> Work:
    done = worked(device, RANK, seed=9)
    factors = {
        name: LoraFactors(10 * own.lora_A, 10 * own.lora_B) for name, own in done.update.factors.items()
    }
    data = adapter_to_bytes(Adapter(SPEC, factors))
    assert device.hand_in(done.plan, data, RANK)["state"] == "accepted"
    return done


@pytest.fixture
def devices(make_device: MakeDevice) -> list[FakeDevice]:
    return [make_device(number + 1) for number in range(HONEST + 1)]


def test_hostile_update_outweighs_all_others_without_a_defence(
    operator: Operator, devices: list[FakeDevice]
) -> None:
    adapter, weights, figures = attacked(operator, devices)
    assert delta_norm(adapter) > 10
    assert weights == pytest.approx([1 / 6] * 6)
    assert figures == {}


def test_krum_leaves_a_hostile_update_out(operator: Operator, devices: list[FakeDevice]) -> None:
    adapter, weights, figures = attacked(operator, devices, defence={"method": "multi_krum"})
    assert delta_norm(adapter) < 10
    assert weights[-1] == 0
    assert sum(weights) == pytest.approx(1)
    assert figures["left_out"] >= 1


def test_clipping_shortens_a_hostile_update(operator: Operator, devices: list[FakeDevice]) -> None:
    adapter, weights, figures = attacked(operator, devices, defence={"clip": True})
    assert delta_norm(adapter) < 10
    assert weights[-1] > 0
    assert figures == {"left_out": 0, "shortened": 1}


def test_update_of_the_trusted_device_is_what_others_are_measured_by(
    operator: Operator, devices: list[FakeDevice]
) -> None:
    defence = {"method": "fltrust", "trusted_device": devices[0].device_id}
    adapter, weights, _ = attacked(operator, devices, defence=defence)
    assert delta_norm(adapter) < 10
    assert weights[0] == max(weights)


def test_ranks_with_too_few_owners_are_counted(operator: Operator, devices: list[FakeDevice]) -> None:
    run_id = operator.run(
        operator.publish(SPEC), rule="zero_pad", max_rank=RANK, goal_count=3, defence={"quorum": 2}
    )
    for number, device in enumerate(devices[:3]):
        work(device, RANK if number == 0 else RANK - 1, seed=number)
    operator.committed(run_id)
    (newest, _) = operator.items(f"/runs/{run_id}/adapters")
    assert newest["figures"] == {"left_out": 0, "shortened": 0, "unmoved_ranks": len(SPEC.modules)}


def test_ranks_that_nobody_holds_are_counted_too(operator: Operator, devices: list[FakeDevice]) -> None:
    run_id = operator.run(
        operator.publish(SPEC), rule="zero_pad", max_rank=RANK, goal_count=2, defence={"quorum": 2}
    )
    for number, device in enumerate(devices[:2]):
        work(device, RANK - 2, seed=number)
    operator.committed(run_id)
    (newest, _) = operator.items(f"/runs/{run_id}/adapters")
    assert newest["figures"]["unmoved_ranks"] == 2 * len(SPEC.modules)
