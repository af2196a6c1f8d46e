"""A round from its first offer to the adapter that it commits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from fake_device import FakeDevice
from service_bundle import SPEC, make_adapter, random_adapter
from service_operator import Operator
from service_server import problem

from hetlora.adapter import initial_adapter
from hetlora.algebra import truncate
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes

MakeDevice = Callable[[int], FakeDevice]


def test_round_of_one_device_gives_back_its_own_factors(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=1)
    update = random_adapter(2, seed=7)
    receipt = device.deliver(update)
    assert receipt["state"] == "accepted"
    run = operator.committed(run_id)
    assert run["state"] == "completed"
    content = operator.send("GET", f"/adapters/{run['adapter_version']}/content").content
    assert content == adapter_to_bytes(update)


def test_plan_adapter_is_the_global_one_truncated_to_the_rank(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle, seed=5)
    offer = device.offer()
    plan = device.call("POST", f"/assignments/{offer['assignment_id']}:start", {"rank": 1})
    expected = truncate(initial_adapter(SPEC, 2, np.random.default_rng(5)), 1)
    data = device.send("GET", f"/objects/{plan['adapter']['sha256']}").content
    assert data == adapter_to_bytes(expected)
    assert plan["adapter"] == {"sha256": sha256_of(data), "size_bytes": len(data)}


def test_run_begins_with_the_bundles_own_adapter_and_fresh_ranks_beyond_it(operator: Operator) -> None:
    own = make_adapter(1, 3.0)
    digest = operator.publish_with_adapter(own)
    run = operator.call("GET", f"/runs/{operator.run(digest, seed=5)}")
    begun = adapter_from_bytes(
        operator.send("GET", f"/adapters/{run['adapter_version']}/content").content, SPEC
    )
    fresh = initial_adapter(SPEC, 2, np.random.default_rng(5))
    for name, factors in begun.factors.items():
        assert (factors.lora_A[0] == 3).all()
        assert (factors.lora_A[1] == fresh.factors[name].lora_A[1]).all()
        assert factors.lora_B.tolist() == [[3, 0]] * len(factors.lora_B)


def test_run_too_narrow_for_the_bundles_own_adapter_is_refused(operator: Operator) -> None:
    digest = operator.publish_with_adapter(make_adapter(2, 3.0))
    settings = {"rounds": 1, "goal_count": 1, "max_rank": 1}
    body = {"population": "keyboard", "bundle": digest, "settings": settings}
    refused = operator.send("POST", "/runs", json=body)
    assert refused.status_code == 422
    assert refused.json()["code"] == "rank_out_of_range"


def test_unequal_ranks_are_merged_by_their_norms(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, goal_count=2)
    small, large = make_adapter(1, 1.0), make_adapter(2, 1.0)
    assert make_device(1).deliver(small, rank=1)["state"] == "accepted"
    assert make_device(2).deliver(large, rank=2)["state"] == "accepted"
    run = operator.committed(run_id)
    # Per module ||B A||_F of ones: 6 entries of value rank, so rank * sqrt(6). Weights 1/3 and 2/3: the first
    # rank is 1/3 + 2/3 = 1, the second, which only the large one has, 2/3.
    data = operator.send("GET", f"/adapters/{run['adapter_version']}/content").content
    merged = adapter_from_bytes(data, SPEC)
    third = np.float32(2 / 3)
    np.testing.assert_array_equal(merged.factors["key"].lora_A, [[1, 1, 1], [third, third, third]])
    np.testing.assert_array_equal(merged.factors["key"].lora_B, [[1, third], [1, third]])
    weights = [item["aggregation_weight"] for item in operator.items(f"/runs/{run_id}/assignments")]
    np.testing.assert_allclose(sorted(weights), [1 / 3, 2 / 3])


def test_states_of_a_finished_round_are_all_recorded(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    plan = device.call("POST", f"/assignments/{assignment_id}:start", {"rank": 2})
    device.send("GET", f"/objects/{plan['adapter']['sha256']}")
    device.upload(assignment_id, make_adapter(2))
    device.submit(assignment_id, make_adapter(2))
    operator.committed(run_id)

    def states(subject: str, subject_id: str) -> list[str]:
        listed = operator.items(f"/transitions?subject={subject}&subject_id={subject_id}")
        assert [item["old"] for item in listed] == [None, *(item["new"] for item in listed[:-1])]
        return [item["new"] for item in listed]

    assert states("run", run_id) == ["draft", "running", "completed"]
    assert states("round", f"{run_id}-000000-0000") == [
        "selecting",
        "collecting",
        "aggregating",
        "committed",
    ]
    assert states("assignment", assignment_id) == [
        "offered",
        "downloading",
        "training",
        "uploading",
        "submitted",
        "accepted",
    ]
    assert states("device", device.device_id) == ["accepted"]
    assert states("adapter_version", f"{run_id}-v000001") == ["candidate"]


def test_status_messages_tell_what_happened(operator: Operator, device: FakeDevice, bundle: str) -> None:
    run_id = operator.run(bundle)
    update = make_adapter(1)
    device.deliver(update, rank=2)
    operator.committed(run_id)
    (assignment,) = operator.items(f"/runs/{run_id}/assignments?round_index=0")
    size_bytes = len(adapter_to_bytes(update))
    assert {
        key: assignment[key]
        for key in ("device_name", "rank", "updated_rank", "uploaded_bytes", "downloaded_bytes")
    } == {
        "device_name": "device 1",
        "rank": 2,
        "updated_rank": 1,
        "uploaded_bytes": size_bytes,
        "downloaded_bytes": 2000,
    }
    assert (assignment["first_loss"], assignment["last_loss"]) == (0.75, 0.5)
    assert assignment["aggregation_weight"] == 1.0
    (row,) = operator.items(f"/runs/{run_id}/rounds")
    assert (row["offered"], row["accepted"], row["state"]) == (1, 1, "committed")
    newest, initial = operator.items(f"/runs/{run_id}/adapters")
    assert (newest["round_index"], newest["update_count"]) == (0, 1)
    assert (initial["round_index"], initial["update_count"]) == (-1, 0)
    assert operator.items(f"/runs/{run_id}/assignments?round_index=1") == []


def test_pruned_rank_is_the_limit_of_the_devices_next_offers_in_the_run(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2, goal_count=2)
    pruning, keeping = make_device(1), make_device(2)
    pruning.deliver(make_adapter(1), rank=2)
    keeping.deliver(make_adapter(1), rank=1)  # not pruned: it was taken at this rank
    operator.committed(run_id)
    assert pruning.offer()["max_rank"] == 1
    assert keeping.offer()["max_rank"] == 2
    operator.call("POST", f"/runs/{run_id}:stop")
    operator.run(bundle)
    assert pruning.offer()["max_rank"] == 2


def test_update_of_a_lower_rank_than_the_minimum_is_refused(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle, min_rank=2)
    assignment_id = device.started(2)
    assert problem(device.upload(assignment_id, make_adapter(1))) == (422, "rank_out_of_range")


def test_next_round_starts_from_the_committed_adapter(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2)
    update = random_adapter(2, seed=3)
    device.deliver(update)
    operator.committed(run_id)
    offer = device.offer()
    assert offer["round_index"] == 1
    plan = device.call("POST", f"/assignments/{offer['assignment_id']}:start", {"rank": 2})
    assert device.send("GET", f"/objects/{plan['adapter']['sha256']}").content == adapter_to_bytes(update)
