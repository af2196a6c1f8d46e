"""Runs whose devices may train with one of several bundles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fake_device import FakeDevice
from service_bundle import SPEC, make_adapter, make_manifest
from service_operator import Operator
from service_server import problem
from service_verbs import started_run

from aggregator_service.needed_objects import check_needed_objects
from aggregator_service.service import Service
from hetlora.adapter import AdapterSpec
from hetlora.errors import UnavailableError

INT8 = make_manifest().model_copy(update={"base_precision": "int8"})
UNKNOWN = "f" * 64


@pytest.fixture
def int8(operator: Operator) -> str:
    return operator.publish_manifest(INT8)


def refused(operator: Operator, bundle: str, *variants: str, **settings: Any) -> httpx.Response:
    chosen = {"goal_count": 1, "max_rank": 2, "variants": variants, **settings}
    body = {"population": "keyboard", "bundle": bundle, "settings": chosen}
    return operator.send("POST", "/runs", json=body)


def test_offer_names_the_variants_in_the_order_of_the_run(
    operator: Operator, bundle: str, int8: str, device: FakeDevice
) -> None:
    int4 = operator.publish_manifest(make_manifest().model_copy(update={"base_precision": "int4"}))
    operator.run(bundle, variants=[int4, int8])
    offer = device.offer()
    assert offer["bundle"]["sha256"] == bundle
    assert [told["sha256"] for told in offer["variants"]] == [int4, int8]
    assert offer["variants"][1]["size_bytes"] == len(INT8.to_json())


def test_run_without_variants_tells_nothing_of_them(
    operator: Operator, bundle: str, device: FakeDevice
) -> None:
    run_id = operator.run(bundle)
    assert "variants" not in device.offer()
    assert "variants" not in operator.call("GET", f"/runs/{run_id}")["settings"]


def test_operator_sees_who_trains_with_which(
    operator: Operator, bundle: str, int8: str, make_device: Callable[[int], FakeDevice]
) -> None:
    run_id = operator.run(bundle, variants=[int8], goal_count=2)
    own, other = make_device(1), make_device(2)
    own.deliver(make_adapter(2))
    path = f"/assignments/{other.offer()['assignment_id']}"
    plan = other.call("POST", f"{path}:start", {"rank": 1, "variant": int8})
    assert other.upload(plan["assignment_id"], make_adapter(1)).is_success
    assert other.submit(plan["assignment_id"], make_adapter(1)).is_success
    operator.committed(run_id)
    taken = operator.items(f"/runs/{run_id}/assignments")
    assert {told["device_name"]: told["variant"] for told in taken} == {"device 1": None, "device 2": int8}


def test_device_that_starts_anew_may_take_another(
    operator: Operator, bundle: str, int8: str, device: FakeDevice
) -> None:
    run_id = operator.run(bundle, variants=[int8])
    path = f"/assignments/{device.offer()['assignment_id']}:start"
    for variant in (int8, None):
        device.call("POST", path, {"rank": 1, "variant": variant})
        (told,) = operator.items(f"/runs/{run_id}/assignments")
        assert told["variant"] == variant


def test_start_with_a_bundle_that_the_run_does_not_name_is_refused(
    operator: Operator, bundle: str, int8: str, device: FakeDevice
) -> None:
    operator.run(bundle)
    path = f"/assignments/{device.offer()['assignment_id']}:start"
    answer = device.send("POST", path, {"rank": 1, "variant": int8})
    assert problem(answer) == (404, "not_found")


def test_variant_of_another_adapter_is_refused_by_what_differs(operator: Operator, bundle: str) -> None:
    other = operator.publish(AdapterSpec(SPEC.modules, scaling=1.0, max_rank=2))
    answer = refused(operator, bundle, other)
    assert problem(answer) == (422, "variant_mismatch")
    assert answer.json()["got"] == "other adapter"


def test_variant_that_nobody_published_is_refused(operator: Operator, bundle: str) -> None:
    assert problem(refused(operator, bundle, UNKNOWN)) == (404, "not_found")


def test_own_bundle_is_no_variant(operator: Operator, bundle: str) -> None:
    assert problem(refused(operator, bundle, bundle)) == (422, "settings_invalid")


def test_variant_is_named_once(operator: Operator, bundle: str, int8: str) -> None:
    assert problem(refused(operator, bundle, int8, int8)) == (422, "malformed_message")


def test_nine_variants_are_too_many(operator: Operator, bundle: str) -> None:
    answer = refused(operator, bundle, *(f"{number:064x}" for number in range(9)))
    assert problem(answer) == (422, "malformed_message")


def test_variant_for_shorter_texts_than_the_runs_is_refused(operator: Operator, bundle: str) -> None:
    short = operator.publish_manifest(INT8.model_copy(update={"max_tokens": 32}))
    answer = refused(operator, bundle, short, training={"max_tokens": 33})
    assert problem(answer) == (422, "settings_invalid")
    assert refused(operator, bundle, short, training={"max_tokens": 32}).is_success


def test_variant_stamped_for_a_rank_that_the_run_does_not_have_is_refused(
    operator: Operator, bundle: str
) -> None:
    stamped = operator.publish_manifest(INT8.model_copy(update={"fixed_rank": 1}))
    assert problem(refused(operator, bundle, stamped, min_rank=2)) == (422, "settings_invalid")
    assert refused(operator, bundle, stamped).is_success


def test_files_of_a_variant_are_missed(service: Service, operator: Operator, bundle: str, int8: str) -> None:
    started_run(service, bundle, variants=(int8,))
    assert check_needed_objects(service.settings) == 1
    service.objects.path(int8).unlink()
    with pytest.raises(UnavailableError) as told:
        check_needed_objects(service.settings)
    assert str(told.value.got).startswith(f"manifest of the bundle {int8}")
