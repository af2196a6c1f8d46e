"""Updates, reports and starts that the service refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from safetensors.numpy import save
from service_bundle import SPEC, make_adapter
from service_objects import kept_updates
from service_operator import Operator
from service_server import problem

from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.service import Service
from hetlora.errors import StateConflict
from hetlora.tensors import adapter_to_bytes, factor_keys, max_adapter_bytes


def tensors(rank: int = 2) -> dict[str, np.ndarray]:
    found = {}
    for module, factors in make_adapter(rank):
        key_A, key_B = factor_keys(module.name)
        found[key_A], found[key_B] = factors.lora_A.copy(), factors.lora_B.copy()
    return found


def spoilt(key_part: str, value: np.ndarray) -> bytes:
    changed = {key: value if key_part in key else tensor for key, tensor in tensors().items()}
    return save(changed)


def without_key_module() -> bytes:
    return save({key: tensor for key, tensor in tensors().items() if "query" in key})


def two_ranks() -> bytes:
    mixed = tensors(2) | {key: tensor for key, tensor in tensors(1).items() if "query" in key}
    return save(mixed)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(
            spoilt("key.lora_A", np.full((2, 3), np.nan, np.float32)), "non_finite_values", id="NaN"
        ),
        pytest.param(
            spoilt("key.lora_B", np.full((2, 2), np.inf, np.float32)), "non_finite_values", id="infinity"
        ),
        pytest.param(
            spoilt("key.lora_B", np.full((2, 2), 3e38, np.float32)), "non_finite_values", id="too large"
        ),
        pytest.param(spoilt("key.lora_A", np.ones((2, 4), np.float32)), "spec_mismatch", id="wrong shape"),
        pytest.param(without_key_module(), "spec_mismatch", id="missing module"),
        pytest.param(save(tensors() | {"extra": np.ones(1, np.float32)}), "spec_mismatch", id="extra tensor"),
        pytest.param(spoilt("key.lora_A", np.ones((2, 3), np.int32)), "malformed_tensors", id="integers"),
        pytest.param(two_ranks(), "rank_out_of_range", id="two ranks"),
        pytest.param(adapter_to_bytes(make_adapter(0)), "rank_out_of_range", id="rank 0"),
        pytest.param(b"\x80\x04pickle", "malformed_tensors", id="no safetensors"),
        pytest.param(b"", "malformed_tensors", id="empty"),
    ],
)
def test_bad_update_is_refused_and_a_good_one_still_taken(
    operator: Operator, device: FakeDevice, bundle: str, service: Service, data: bytes, code: str
) -> None:
    operator.run(bundle)
    assignment_id = device.started(2)
    assert problem(device.upload(assignment_id, data)) == (422, code)
    assert kept_updates(service) == []
    assert list(service.objects.incoming.iterdir()) == []
    assert device.upload(assignment_id, make_adapter(2)).is_success


def test_update_above_the_plans_rank_is_refused(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle)
    answer = device.upload(device.started(1), make_adapter(2))
    assert problem(answer) == (422, "rank_out_of_range")
    assert (answer.json()["got"], answer.json()["expected"]) == ("2", "1 to 1")


def test_update_whose_digest_is_wrong_is_refused(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    answer = device.upload(device.started(), make_adapter(2), digest="0" * 64)
    assert problem(answer) == (422, "digest_mismatch")
    assert list(service.objects.incoming.iterdir()) == []


def test_update_announced_too_large_is_refused_before_it_is_read(
    operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    limit = max_adapter_bytes(SPEC)
    answer = device.upload(device.started(), b"x" * (limit + 1))
    assert problem(answer) == (413, "body_too_large")
    assert answer.json()["got"] == f"{limit + 1} bytes announced"


def test_update_of_unknown_length_is_refused_once_it_passes_the_limit(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    assignment_id = device.started()
    path = f"/device/v1/assignments/{assignment_id}/update"
    sent = []

    def endless() -> object:
        for number in range(10_000):
            sent.append(number)
            yield b"x" * 65536

    answer = device.http.request("PUT", path, content=endless(), headers=device.signed("PUT", path))  # type: ignore[arg-type]
    assert problem(answer) == (413, "body_too_large")
    assert len(sent) < 10_000
    assert list(service.objects.incoming.iterdir()) == []


def test_upload_before_start_is_refused(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle)
    answer = device.upload(device.offer()["assignment_id"], make_adapter(2))
    assert problem(answer) == (409, "state_conflict")


def test_upload_after_the_lease_is_refused_with_the_reason(
    operator: Operator, device: FakeDevice, bundle: str, clock: FakeClock
) -> None:
    operator.run(bundle, lease_seconds=60)
    assignment_id = device.started()
    clock.advance(60)
    answer = device.upload(assignment_id, make_adapter(2))
    assert problem(answer) == (409, "state_conflict")
    assert answer.json()["got"] == "state expired: the lease ran out"


def test_update_of_a_plan_that_another_start_replaced_meanwhile_is_refused(
    operator: Operator, device: FakeDevice, bundle: str, service: Service
) -> None:
    operator.run(bundle)
    assignment_id = device.started(2)
    terms = terms_of(service, device.device_id, assignment_id, "")
    device.call("POST", f"/assignments/{assignment_id}:start", {"rank": 1})
    with terms.folder.receive() as blob:
        blob.write(adapter_to_bytes(make_adapter(2)))
        with pytest.raises(StateConflict) as caught:
            keep_update(service, terms, blob)
    assert caught.value.expected == "an update of the plan at rank 1"
    assert device.upload(assignment_id, make_adapter(1)).is_success


def test_submit_before_the_upload_is_refused(operator: Operator, device: FakeDevice, bundle: str) -> None:
    operator.run(bundle)
    answer = device.submit(device.started(), make_adapter(2))
    assert problem(answer) == (409, "state_conflict")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rank": 1}, "rank_out_of_range"),
        ({"update": {"sha256": "0" * 64, "size_bytes": 1}}, "digest_mismatch"),
        ({"first_loss": None}, "malformed_message"),
        ({"surprise": 1}, "malformed_message"),
    ],
)
def test_report_that_is_not_about_the_update_is_refused(
    operator: Operator, device: FakeDevice, bundle: str, changes: dict[str, object], code: str
) -> None:
    operator.run(bundle)
    assignment_id = device.started()
    device.upload(assignment_id, make_adapter(2))
    assert problem(device.submit(assignment_id, make_adapter(2), changes)) == (422, code)


@pytest.mark.parametrize("rank", [1, 3])
def test_start_at_a_rank_outside_the_offer_is_refused(
    operator: Operator, device: FakeDevice, bundle: str, rank: int
) -> None:
    operator.run(bundle, min_rank=2)
    path = f"/assignments/{device.offer()['assignment_id']}:start"
    assert problem(device.send("POST", path, {"rank": rank})) == (422, "rank_out_of_range")


@pytest.mark.parametrize(
    ("method", "action", "message"),
    [
        ("POST", ":start", {"rank": 1}),
        ("PUT", "/update", None),
        ("POST", ":fail", {"code": "gone", "message": ""}),
    ],
)
def test_devices_cannot_touch_each_others_assignments(
    operator: Operator,
    make_device: Callable[[int], FakeDevice],
    bundle: str,
    method: str,
    action: str,
    message: object,
) -> None:
    operator.run(bundle)
    owner, stranger = make_device(1), make_device(2)
    path = f"/assignments/{owner.started()}{action}"
    assert problem(stranger.send(method, path, message)) == (404, "not_found")
    unknown = f"/assignments/unknown{action}"
    assert problem(owner.send(method, unknown, message)) == (404, "not_found")
