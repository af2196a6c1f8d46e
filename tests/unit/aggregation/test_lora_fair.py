"""LoRA-FAIR against its formula: dense, in float64, and minimised by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    SPEC,
    Dense,
    as_sent,
    assert_same,
    cohort,
    effective,
    initial,
    mean,
    merged,
    products,
    ranks_of_cohorts,
    seeds,
    settled,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from aggregator_service.aggregation.products import STACK_BYTES
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.lora_fair import corrected
from aggregator_service.aggregation.rules.zero_pad import ZeroPad
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import LoraFairRule, ZeroPadRule

STATE = settled(LoraFairRule())
Floats = np.ndarray


def loss(whole: Floats, lora_A: Floats, lora_B: Floats, found: Floats, penalty: float) -> float:
    """-cos(M, X A) + penalty ||X - B||, as it is written."""
    product = found @ lora_A
    cosine = np.sum(whole * product) / (np.linalg.norm(whole) * np.linalg.norm(product))
    return float(penalty * np.linalg.norm(found - lora_B) - cosine)


def by_brute_force(whole: Floats, lora_A: Floats, lora_B: Floats, penalty: float, seed: int) -> float:
    """The least loss that a general minimiser finds from several starts."""
    rng = np.random.default_rng(seed)
    least_squares = whole @ np.linalg.pinv(lora_A)
    starts = [
        least_squares,
        lora_B + 1e-3 * least_squares,
        0.5 * (lora_B + least_squares),
        *(lora_B + rng.standard_normal(lora_B.shape) for _ in range(3)),
    ]
    shape = lora_B.shape
    found = [
        minimize(lambda x: loss(whole, lora_A, lora_B, x.reshape(shape), penalty), start.ravel()).fun
        for start in starts
    ]
    return min([*found, loss(whole, lora_A, lora_B, lora_B, penalty)])


@pytest.mark.parametrize("penalty", [0.001, 0.01, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_correction_is_as_good_as_brute_force_finds(penalty: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lora_A, lora_B = rng.standard_normal((2, 5)), rng.standard_normal((4, 2))
    whole = lora_B @ lora_A + rng.standard_normal((4, 5))
    found = corrected(lora_B, lora_A.T, whole @ lora_A.T, float(np.sum(whole**2)), penalty)
    best = by_brute_force(whole, lora_A, lora_B, penalty, seed)
    assert loss(whole, lora_A, lora_B, found, penalty) <= best + 1e-7


@settings(max_examples=30)
@given(seed=seeds, penalty=st.sampled_from([0.003, 0.03, 0.2]), scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_no_small_step_from_the_correction_is_better(seed: int, penalty: float, scale: float) -> None:
    # The loss is unchanged by M's size: any multiple of M gives the same correction.
    rng = np.random.default_rng(seed)
    lora_A, lora_B = rng.standard_normal((3, 6)), rng.standard_normal((5, 3))
    whole = scale * (lora_B @ lora_A + rng.standard_normal((5, 6)))
    found = corrected(lora_B, lora_A.T, whole @ lora_A.T, float(np.sum(whole**2)), penalty)
    here = loss(whole, lora_A, lora_B, found, penalty)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(10):
            other = found + size * rng.standard_normal(found.shape)
            assert loss(whole, lora_A, lora_B, other, penalty) >= here - 1e-9


def test_literal_correction_of_one_column() -> None:
    # A = 1, B = (1, 0), M along (1, 1): X at angle a from B, best at length cos a (nearest to B), so that
    # f = -cos(45 - a) + penalty sin a, least at tan a = 1 - penalty sqrt(2). With penalty sqrt(2) / 4:
    # tan a = 1/2, X = cos^2 a (1, 1/2) = (0.8, 0.4). From sqrt(2) / 2 on X = B.
    lora_B, image = np.array([[1.0], [0.0]]), np.array([[3.0], [3.0]])
    found = corrected(lora_B, np.ones((1, 1)), image, 18.0, 2**0.5 / 4)
    np.testing.assert_allclose(found, [[0.8], [0.4]], atol=1e-7)
    np.testing.assert_array_equal(corrected(lora_B, np.ones((1, 1)), image, 18.0, 0.7072), lora_B)
    assert not np.array_equal(corrected(lora_B, np.ones((1, 1)), image, 18.0, 0.7070), lora_B)


def test_loss_without_a_minimum_is_no_reason_for_a_correction() -> None:
    # M along -B: cos falls from 1 to -1 as soon as X is on the other side of 0, and |X - B| grows from there.
    # So the loss falls towards X = 0 from below and is least nowhere.
    lora_B, image = np.array([[1.0], [0.01]]), np.array([[-3.0], [0.0]])
    np.testing.assert_array_equal(corrected(lora_B, np.ones((1, 1)), image, 9.0, 0.01), lora_B)


def test_literal_correction_of_two_devices() -> None:
    # The same, of devices: A is 2 and 0, B is (1, 1) and (1, -1), so that their means are 1 and (1, 0), and
    # the mean product ((1, 1) * 2 + 0) / 2 = (1, 1).
    spec = AdapterSpec((ModuleSpec("m", 1, 2),), scaling=1.0, max_rank=1)
    first, second = (
        stacked(Adapter(spec, {"m": LoraFactors(np.full((1, 1), own_A), np.array([[1.0], [own_B]]))}))
        for own_A, own_B in ((2.0, 1.0), (0.0, -1.0))
    )
    rule = open_rule(LoraFairRule(penalty=2**0.5 / 4), GlobalState(first, 1))
    found = unstacked(merged(rule, [Update(first), Update(second)]).state.adapter).factors["m"]
    np.testing.assert_allclose(found.lora_A, [[1.0]])
    np.testing.assert_allclose(found.lora_B, [[0.8], [0.4]], atol=1e-6)


@settings(max_examples=20)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int) -> None:
    rule = open_rule(LoraFairRule(penalty=0.05), STATE)
    updates = cohort(rule, ranks, seed)
    found = unstacked(merged(rule, updates).state.adapter).factors
    plain = unstacked(merged(ZeroPad(ZeroPadRule(), STATE), updates).state.adapter).factors
    whole: Dense = mean([products(one.adapter) for one in updates], [one.example_count for one in updates])
    rng = np.random.default_rng(seed)
    for name in SPEC.by_name:
        np.testing.assert_array_equal(found[name].lora_A, plain[name].lora_A)
        lora_A, lora_B = plain[name].lora_A.astype(float), plain[name].lora_B.astype(float)
        here = loss(whole[name], lora_A, lora_B, found[name].lora_B.astype(float), 0.05)
        assert here <= loss(whole[name], lora_A, lora_B, lora_B, 0.05) + 1e-6
        for size in (0.3, 0.03):
            other = found[name].lora_B + size * rng.standard_normal(lora_B.shape)
            assert here <= loss(whole[name], lora_A, lora_B, other, 0.05) + 1e-6


def test_correction_points_closer_to_the_mean_product() -> None:
    rule = open_rule(LoraFairRule(), STATE)
    updates = cohort(rule, [RANK] * 6, 3, size=0.8)
    whole = mean([products(one.adapter) for one in updates], [one.example_count for one in updates])

    def cosines(state: GlobalState) -> list[float]:
        found = effective(state)
        return [
            float(np.sum(own * found[name]) / (np.linalg.norm(own) * np.linalg.norm(found[name])))
            for name, own in whole.items()
        ]

    plain = merged(ZeroPad(ZeroPadRule(), STATE), updates).state
    for ours, theirs in zip(cosines(merged(rule, updates).state), cosines(plain), strict=True):
        assert ours > theirs


def test_devices_that_agree_are_not_corrected() -> None:
    rule = open_rule(LoraFairRule(), STATE)
    same = [as_sent(rule.distribute(RANK), 1 + number) for number in range(3)]
    assert merged(rule, same).state.adapter.values.tobytes() == STATE.adapter.values.tobytes()


def test_nothing_learned_has_no_direction_and_no_correction() -> None:
    state = first_state(LoraFairRule(), initial())
    rule = open_rule(LoraFairRule(), state)
    after = merged(rule, [as_sent(rule.distribute(RANK)), as_sent(rule.distribute(RANK), 2)]).state
    assert after.adapter.values.tobytes() == state.adapter.values.tobytes()


@settings(max_examples=10)
@given(ranks=st.lists(st.integers(1, RANK), min_size=2, max_size=6), seed=seeds)
def test_sketch_gives_what_it_knows_of_the_norm(ranks: list[int], seed: int) -> None:
    # These sketches know M A^T exactly and the norm of M by chance; the correction hangs on the norm little.
    updates = cohort(open_rule(LoraFairRule(), STATE), ranks, seed)
    stack, sketch = (open_rule(LoraFairRule(), STATE, total) for total in (0, STACK_BYTES))
    assert_same(effective(merged(sketch, updates).state), effective(merged(stack, updates).state), 0.2)
