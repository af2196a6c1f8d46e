"""What devices of a run are asked for that takes its updates in fewer bytes."""

from __future__ import annotations

from typing import Any

import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from safetensors.numpy import load
from service_operator import Operator

from aggregator_service.aggregation.rules import RULES

# Their factors are others in each round: turned by an SVD, folded away, or drawn.
WITHOUT_FEEDBACK = ["flexlora", "raflora", "florist", "flora", "fedloru", "residual_exact"]


@pytest.mark.parametrize(
    ("rule", "precision", "fed_back"),
    [
        ("hetlora", "int8", True),
        ("hetlora", "float16", True),
        ("fedsa", "int8", True),
        ("flexlora", "int8", False),
        ("flasc", "int8", False),
        ("fslora", "int8", False),
        ("hetlora", "float32", False),
    ],
)
def test_plan_tells_the_precision_and_whether_rounding_is_fed_back(
    operator: Operator, device: FakeDevice, rule: str, precision: Any, fed_back: bool
) -> None:
    training = {"upload_precision": precision}
    operator.run(operator.publish(SPEC), rule=rule, max_rank=RANK, training=training)
    for plan in (device.started_plan(2), device.started_plan(2)):  # made, and as it was stored
        assert plan.adaptation.upload_precision == precision
        assert plan.adaptation.error_feedback == fed_back


def test_offer_tells_the_precision_so_that_devices_can_plan_their_traffic(
    operator: Operator, device: FakeDevice
) -> None:
    operator.run(operator.publish(SPEC), max_rank=RANK, training={"upload_precision": "int8"})
    assert device.offer()["training"]["upload_precision"] == "int8"


def test_rules_whose_factors_change_their_meaning_feed_no_rounding_back() -> None:
    without = [kind().name for kind, rule in RULES.items() if not rule.same_coordinates]
    assert sorted(without) == sorted(WITHOUT_FEEDBACK)
    assert all(not rule.same_coordinates for rule in RULES.values() if rule.free_gauge)


@pytest.mark.parametrize("defence", [{}, {"method": "median", "clip": True}])
def test_round_of_int8_updates_is_committed_with_and_without_a_defence(
    operator: Operator, make_device: Any, defence: dict[str, Any]
) -> None:
    training = {"upload_precision": "int8"}
    run_id = operator.run(
        operator.publish(SPEC), defence=defence, max_rank=RANK, goal_count=3, training=training
    )
    done = [work(make_device(number), RANK, seed=number) for number in (1, 2, 3)]
    assert {str(tensor.dtype) for one in done for tensor in load(one.data).values()} == {"int8", "float32"}
    assert operator.committed(run_id)["rounds_committed"] == 1
