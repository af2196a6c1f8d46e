from __future__ import annotations

from collections.abc import Callable

import numpy as np
from service_helpers import SPEC, FakeClock, FakeDevice, Operator, make_adapter, problem, random_adapter
from sqlalchemy import text

from aggregator_service.service import Service
from hetlora.adapter import initial_adapter
from hetlora.algebra import truncate
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes

MakeDevice = Callable[[int], FakeDevice]
TOO_OFTEN = "this device gave the round back, or let its lease run out, too often"


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


def test_cohort_is_bounded_and_given_back_places_are_given_again(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    # ceil(2 * 1.5) = 3 places
    run_id = operator.run(bundle, goal_count=2, over_selection=1.5)
    devices = [make_device(seed) for seed in (1, 2, 3, 4)]
    first = devices[0].offer()
    for other in devices[1:3]:
        other.offer()
    assert [row["state"] for row in operator.items(f"/runs/{run_id}/rounds")] == ["collecting"]
    refused = devices[3].check_in()
    assert (refused["offer"], refused["reason"]) == (None, "the cohort is complete")
    assert refused["retry_after_seconds"] == 15.0
    failure = {"code": "device_too_small", "message": "no rank fits"}
    receipt = devices[0].call("POST", f"/assignments/{first['assignment_id']}:fail", failure)
    assert (receipt["state"], receipt["reason"]) == ("failed", "device_too_small: no rank fits")
    assert devices[3].check_in()["offer"] is not None


def test_device_that_gives_a_round_back_too_often_is_not_asked_again_in_it(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    for _ in range(3):
        offer = device.offer()
        failure = {"code": "not_charging", "message": ""}
        device.call("POST", f"/assignments/{offer['assignment_id']}:fail", failure)
    assert device.check_in()["reason"] == TOO_OFTEN


def test_device_that_lets_its_leases_run_out_cannot_hold_a_place_for_ever(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=60, report_window_seconds=600)
    holding, waiting = make_device(1), make_device(2)
    for _ in range(3):
        holding.offer()
        assert waiting.check_in()["reason"] == "the cohort is complete"
        clock.advance(60)
    assert holding.check_in()["reason"] == TOO_OFTEN
    assert waiting.check_in()["offer"] is not None


def test_expired_lease_frees_its_place_and_a_late_report_is_told_so(
    operator: Operator, make_device: MakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=60, report_window_seconds=600)
    slow, quick = make_device(1), make_device(2)
    assignment_id = slow.started()
    slow.upload(assignment_id, make_adapter(2))
    assert quick.check_in()["offer"] is None
    clock.advance(60)
    assert quick.check_in()["offer"] is not None
    late = slow.submit(assignment_id, make_adapter(2))
    assert late.status_code == 200
    assert (late.json()["state"], late.json()["reason"]) == ("expired", "the lease ran out")


def test_leftover_assignments_are_aborted_kindly_when_the_goal_is_met(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, goal_count=1, over_selection=2.0)
    quick, slow = make_device(1), make_device(2)
    assignment_id = slow.started()
    slow.upload(assignment_id, make_adapter(2))
    quick.deliver(make_adapter(2))
    operator.committed(run_id)
    late = slow.submit(assignment_id, make_adapter(2))
    assert late.status_code == 200
    assert (late.json()["state"], late.json()["reason"]) == ("aborted", "goal already met")
    failure = {"code": "late", "message": ""}
    assert slow.call("POST", f"/assignments/{assignment_id}:fail", failure)["state"] == "aborted"


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


def test_paused_run_makes_no_offers_but_takes_what_is_out(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, rounds=2)
    device, other = make_device(1), make_device(2)
    assignment_id = device.started()
    operator.call("POST", f"/runs/{run_id}:pause")
    idle = other.check_in()
    assert (idle["offer"], idle["reason"], idle["retry_after_seconds"]) == (None, "no run is active", 60.0)
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


def test_device_without_examples_gets_no_offer(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle)
    assert device.check_in(example_count=0)["reason"] == "the device has no examples"


def test_run_that_cannot_be_served_leaves_its_devices_to_the_next(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    broken, sound = operator.run(bundle), operator.run(bundle)
    with service.database.write() as session:
        session.execute(
            text("UPDATE runs SET settings = json_set(settings, '$.lease_seconds', 1e300) WHERE id = :id"),
            {"id": broken},
        )
    assert device.offer()["run_id"] == sound


def test_device_is_accepted_once_in_a_round(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle, goal_count=2)
    device.deliver(make_adapter(2))
    answer = device.check_in()
    assert (answer["offer"], answer["reason"]) == (None, "this device's update of the round is in")


def test_cohort_size_of_a_binary_fraction_is_what_the_operator_means(
    operator: Operator, make_device: MakeDevice, bundle: str
) -> None:
    # 1.1 * 10 = 11.000000000000002 in binary
    operator.run(bundle, goal_count=10, over_selection=1.1)
    answers = [make_device(seed).check_in() for seed in range(1, 13)]
    assert [answer["offer"] is not None for answer in answers] == [True] * 11 + [False]
