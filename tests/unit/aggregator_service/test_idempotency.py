from __future__ import annotations

from collections.abc import Callable

from fake_clock import FakeClock
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_objects import kept_updates
from service_operator import Operator
from service_server import problem

from aggregator_service.service import Service
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes


def test_repeated_check_in_answers_the_same_offer(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    assert device.check_in() == device.check_in()


def test_repeated_offer_promises_only_the_time_that_is_left(
    operator: Operator, device: FakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=100)
    first = device.offer()
    device.call("POST", f"/assignments/{first['assignment_id']}:start", {"rank": 1})
    clock.advance(90)
    # Half of the 10 seconds left of the lease; half of the whole lease would outlast it.
    assert device.offer() == {**first, "round_seconds": 5.0}


def test_check_in_after_start_still_answers_the_same_offer(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    first = device.check_in()
    device.call("POST", f"/assignments/{first['offer']['assignment_id']}:start", {"rank": 1})
    assert device.check_in() == first


def test_repeated_start_at_the_same_rank_answers_the_same_plan(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    path = f"/assignments/{device.offer()['assignment_id']}:start"
    assert device.call("POST", path, {"rank": 1}) == device.call("POST", path, {"rank": 1})


def test_start_at_another_rank_makes_another_plan_until_an_update_is_in(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    path = f"/assignments/{device.offer()['assignment_id']}"
    wide = device.call("POST", f"{path}:start", {"rank": 2})
    assert device.send("GET", f"/objects/{wide['adapter']['sha256']}").is_success  # now it is training
    narrow = device.call("POST", f"{path}:start", {"rank": 1})
    assert narrow["rank"] == 1
    assert narrow["adapter"]["size_bytes"] < wide["adapter"]["size_bytes"]
    too_wide = device.upload(narrow["assignment_id"], make_adapter(2))
    assert problem(too_wide) == (422, "rank_out_of_range")
    assert device.upload(narrow["assignment_id"], make_adapter(1)).is_success
    assert problem(device.send("POST", f"{path}:start", {"rank": 2})) == (409, "state_conflict")


def test_repeated_upload_answers_the_same_reference(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    assignment_id = device.started()
    first = device.upload(assignment_id, make_adapter(2))
    assert device.upload(assignment_id, make_adapter(2)).json() == first.json()


def test_repeated_upload_and_submit_after_the_commit_answer_the_same(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    uploaded = device.upload(assignment_id, make_adapter(2)).json()
    receipt = device.submit(assignment_id, make_adapter(2)).json()
    operator.committed(run_id)
    assert device.upload(assignment_id, make_adapter(2)).json() == uploaded
    assert device.submit(assignment_id, make_adapter(2)).json() == receipt
    other = device.upload(assignment_id, make_adapter(1))
    assert problem(other) == (409, "state_conflict")


def test_update_can_be_replaced_until_it_is_submitted(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    assignment_id = device.started()
    device.upload(assignment_id, make_adapter(2))
    device.upload(assignment_id, make_adapter(1))
    assert problem(device.submit(assignment_id, make_adapter(2))) == (422, "digest_mismatch")
    assert device.submit(assignment_id, make_adapter(1)).json()["state"] == "accepted"
    operator.committed(run_id)


def test_replaced_update_leaves_no_file_behind(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str, service: Service
) -> None:
    run_id = operator.run(bundle, goal_count=2)
    device, other = make_device(1), make_device(2)
    assignment_id = device.started()
    shared = make_adapter(2, 1.0)
    assert other.upload(other.started(), shared).is_success
    for scale in (1.0, 2.0, 3.0, 4.0):
        assert device.upload(assignment_id, make_adapter(2, scale)).is_success
    # The first bytes stay: the other device brought the same. Of this one's, only the last are left.
    kept = {path.name for path in kept_updates(service)}
    assert kept == {sha256_of(adapter_to_bytes(update)) for update in (shared, make_adapter(2, 4.0))}
    assert device.submit(assignment_id, make_adapter(2, 4.0)).json()["state"] == "accepted"
    assert other.submit(other.offer()["assignment_id"], shared).json()["state"] == "accepted"
    operator.committed(run_id)


def test_repeated_enrolment_answers_the_same_device(device: FakeDevice, operator: Operator) -> None:
    message = {
        "population": "keyboard",
        "enrolment_token": "long forgotten",
        "public_key": device.public_key,
    }
    status = device.call("POST", "/devices", message)
    assert (status["device_id"], status["state"]) == (device.device_id, "accepted")
    assert len(operator.items("/devices?population=keyboard")) == 1


def test_key_of_one_population_does_not_enrol_in_another(device: FakeDevice, operator: Operator) -> None:
    token = operator.population("camera")
    message = {"population": "camera", "enrolment_token": token, "public_key": device.public_key}
    assert problem(device.send("POST", "/devices", message)) == (409, "state_conflict")


def test_publishing_a_bundle_again_changes_nothing(operator: Operator, bundle: str) -> None:
    before = operator.items("/bundles")
    assert operator.publish() == bundle
    assert operator.items("/bundles") == before


def test_same_rank_of_a_version_is_stored_once(
    operator: Operator, make_device: Callable[[int], FakeDevice], bundle: str
) -> None:
    operator.run(bundle, goal_count=2)
    plans = []
    for seed in (1, 2):
        device = make_device(seed)
        path = f"/assignments/{device.offer()['assignment_id']}:start"
        plans.append(device.call("POST", path, {"rank": 1}))
    assert plans[0]["adapter"] == plans[1]["adapter"]
    assert plans[0]["seed"] != plans[1]["seed"]
