"""Updates that are not what their plan asked for, under rules whose devices send part of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, Work, work, worked
from safetensors.numpy import load, save
from service_objects import kept_updates
from service_operator import Operator
from service_server import problem

from aggregator_service.service import Service
from hetlora.adapter import Adapter, LoraFactors
from hetlora.messages.device import Adaptation
from hetlora.partial import contract
from hetlora.partial_tensors import max_partial_bytes
from hetlora.tensors import adapter_to_bytes, max_adapter_bytes

MakeDevice = Callable[[int], FakeDevice]
Spoil = Callable[[Work], bytes]


def changed(change: Callable[[str, np.ndarray], np.ndarray]) -> Spoil:
    return lambda done: save({key: change(key, tensor) for key, tensor in load(done.data).items()})


def asked_as(adaptation: Adaptation) -> Spoil:
    """What a device would send of its work that was asked otherwise."""
    return lambda done: contract(done.update, adaptation, done.sent.adapter)


def whole(done: Work) -> bytes:
    return adapter_to_bytes(done.update)


def with_nan(key: str, tensor: np.ndarray) -> np.ndarray:
    return np.full_like(tensor, np.nan) if "out" in key and tensor.dtype == np.float32 else tensor


def beyond(key: str, tensor: np.ndarray) -> np.ndarray:
    return tensor + 10_000 if key.endswith("positions") else tensor


def unsorted(key: str, tensor: np.ndarray) -> np.ndarray:
    return tensor[::-1].copy() if key.endswith(("positions", "ranks")) else tensor


@pytest.mark.parametrize(
    ("rule", "spoil", "code"),
    [
        ("ffa", whole, "spec_mismatch"),
        ("ffa", asked_as(Adaptation(trained="lora_A")), "spec_mismatch"),
        ("ffa", changed(with_nan), "non_finite_values"),
        ("ffa", changed(lambda key, tensor: np.pad(tensor, ((0, 0), (0, 1)))), "rank_out_of_range"),
        ("ffa", changed(lambda key, tensor: np.pad(tensor, ((0, 1), (0, 0)))), "spec_mismatch"),
        ("fedsa", whole, "spec_mismatch"),
        ("lora_a2", asked_as(Adaptation(trained="lora_B", selected_ranks=20)), "rank_out_of_range"),
        ("lora_a2", asked_as(Adaptation(trained="lora_B")), "spec_mismatch"),
        ("lora_a2", changed(unsorted), "malformed_tensors"),
        ("flasc", asked_as(Adaptation(upload_density=0.9)), "spec_mismatch"),
        ("flasc", changed(beyond), "spec_mismatch"),
        ("flasc", changed(unsorted), "malformed_tensors"),
        ("flasc", changed(with_nan), "non_finite_values"),
        ("fed_sb", whole, "spec_mismatch"),
        ("fed_sb", changed(with_nan), "non_finite_values"),
        ("fed_sb", changed(lambda key, tensor: tensor[:1, :1]), "spec_mismatch"),
        ("fslora", lambda done: adapter_to_bytes(wider(done.update)), "rank_out_of_range"),
        ("residual_exact", lambda done: adapter_to_bytes(wider(done.update)), "rank_out_of_range"),
    ],
)
def test_update_that_is_not_what_the_plan_asked_for_is_refused_and_the_right_one_taken(
    operator: Operator, device: FakeDevice, service: Service, rule: str, spoil: Spoil, code: str
) -> None:
    operator.run(operator.publish(SPEC), rule=rule, max_rank=RANK)
    done = worked(device, 2, seed=3)
    assert problem(device.upload(done.plan.assignment_id, spoil(done))) == (422, code)
    assert kept_updates(service) == []
    assert device.hand_in(done.plan, done.data, done.update.rank)["state"] == "accepted"


def wider(update: Adapter) -> Adapter:
    """One rank more in each module."""
    return resized(update, dict.fromkeys(update.factors, update.rank + 1))


def resized(update: Adapter, ranks: Mapping[str, int]) -> Adapter:
    """Factors cut, or filled with zeros, to these ranks."""

    def to(rank: int, own: LoraFactors) -> LoraFactors:
        lora_A, lora_B = np.zeros((rank, own.lora_A.shape[1])), np.zeros((own.lora_B.shape[0], rank))
        kept = min(rank, own.rank)
        lora_A[:kept], lora_B[:, :kept] = own.lora_A[:kept], own.lora_B[:, :kept]
        return LoraFactors(lora_A, lora_B)

    return Adapter(update.spec, {name: to(ranks[name], own) for name, own in update.factors.items()})


def with_scales(value: float) -> Spoil:
    return changed(lambda key, tensor: np.full_like(tensor, value) if key.endswith("scales") else tensor)


@pytest.mark.parametrize(
    ("precision", "spoil", "code"),
    [
        ("int8", whole, "malformed_tensors"),
        ("int8", asked_as(Adaptation(upload_precision="float16")), "malformed_tensors"),
        ("int8", asked_as(Adaptation(upload_precision="int8", trained="lora_B")), "spec_mismatch"),
        ("int8", with_scales(np.nan), "non_finite_values"),
        ("int8", with_scales(-1), "malformed_tensors"),
        ("int8", with_scales(0), "malformed_tensors"),
        ("int8", with_scales(3e38), "non_finite_values"),
        ("int8", with_scales(1e15), "non_finite_values"),  # finite, and its norm is not believed
        ("int8", changed(lambda key, tensor: np.pad(tensor, ((0, 1), (0, 1)))), "spec_mismatch"),
        ("float16", whole, "malformed_tensors"),
        ("float16", asked_as(Adaptation(upload_precision="int8")), "malformed_tensors"),
        ("float16", changed(lambda key, tensor: np.full_like(tensor, np.inf)), "non_finite_values"),
    ],
)
def test_update_in_another_precision_than_asked_for_is_refused_and_the_right_one_taken(
    operator: Operator, device: FakeDevice, service: Service, precision: str, spoil: Spoil, code: str
) -> None:
    operator.run(operator.publish(SPEC), max_rank=RANK, training={"upload_precision": precision})
    done = worked(device, 2, seed=3)
    assert problem(device.upload(done.plan.assignment_id, spoil(done))) == (422, code)
    assert kept_updates(service) == []
    assert device.hand_in(done.plan, done.data, done.update.rank)["state"] == "accepted"


@pytest.mark.parametrize(
    ("rule", "limit"), [("ffa", max_adapter_bytes(SPEC)), ("flasc", max_partial_bytes(SPEC))]
)
def test_update_larger_than_any_that_the_plan_can_mean_is_refused_before_it_is_read(
    operator: Operator, device: FakeDevice, rule: str, limit: int
) -> None:
    operator.run(operator.publish(SPEC), rule=rule, max_rank=RANK)
    plan = device.started_plan(2)
    answer = device.upload(plan.assignment_id, b"x" * (limit + 1))
    assert problem(answer) == (413, "body_too_large")
    assert answer.json()["expected"] == f"up to {limit} bytes"


@pytest.mark.parametrize(("prune_by", "status"), [("model", 422), ("module", 200)])
def test_unequal_ranks_are_taken_where_each_module_prunes_for_itself(
    operator: Operator, device: FakeDevice, prune_by: str, status: int
) -> None:
    run_id = operator.run(operator.publish(SPEC), max_rank=RANK, training={"prune_by": prune_by})
    done = worked(device, RANK, seed=3)
    update = resized(done.update, {name: 1 + number % 3 for number, name in enumerate(done.update.factors)})
    answer = device.upload(done.plan.assignment_id, adapter_to_bytes(update))
    assert answer.status_code == status, answer.text
    if status == 200:
        device.hand_in(done.plan, adapter_to_bytes(update), update.rank)
        content = operator.send("GET", f"/adapters/{operator.committed(run_id)['adapter_version']}/content")
        assert content.content == adapter_to_bytes(resized(update, dict.fromkeys(update.factors, RANK)))


def test_update_for_another_specification_is_refused(operator: Operator, device: FakeDevice) -> None:
    operator.run(operator.publish(SPEC), max_rank=RANK)
    done = worked(device, 2, seed=3)
    other = {key.replace("layers", "blocks"): tensor for key, tensor in load(done.data).items()}
    assert problem(device.upload(done.plan.assignment_id, save(other))) == (422, "spec_mismatch")


def test_two_devices_that_send_the_same_update_count_twice(
    operator: Operator, make_device: MakeDevice
) -> None:
    run_id = operator.run(operator.publish(SPEC), rule="zero_pad", goal_count=3, max_rank=RANK)
    first, second, third = (make_device(number) for number in (1, 2, 3))
    same = work(first, 2, seed=3)
    assert work(second, 2, seed=3).data == same.data
    other = work(third, 2, seed=4)
    run = operator.committed(run_id)
    weights = [item["aggregation_weight"] for item in operator.items(f"/runs/{run_id}/assignments")]
    assert weights == pytest.approx([1 / 3] * 3)
    content = load(operator.send("GET", f"/adapters/{run['adapter_version']}/content").content)
    for key, tensor in load(adapter_to_bytes(same.update)).items():
        expected = (2 * tensor + load(adapter_to_bytes(other.update))[key]) / 3
        got = content[key][:2] if "lora_A" in key else content[key][:, :2]
        np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_run_whose_settings_do_not_fit_its_rule_is_refused(operator: Operator) -> None:
    digest = operator.publish(SPEC)

    def refused(**settings: Any) -> tuple[int, str]:
        base = {"rounds": 1, "goal_count": 1, "max_rank": RANK}
        body = {"population": "keyboard", "bundle": digest, "settings": base | settings}
        return problem(operator.send("POST", "/runs", json=body))

    assert refused(rule="deer") == (422, "settings_invalid")  # min_rank is 1
    assert refused(rule="no_such_rule") == (422, "malformed_message")
    assert refused(rule={"name": "rbla", "quorom": 2}) == (422, "malformed_message")
    assert refused(server_optimizer={"name": "sgd"}) == (422, "malformed_message")
    assert refused(defence={"hostile_share": 0.5}) == (422, "malformed_message")
