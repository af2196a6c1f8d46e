"""FedEx-LoRA against its formula, dense and in float64."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    Dense,
    as_sent,
    assert_same,
    cohort,
    cut,
    distance,
    effective,
    initial,
    mean,
    merged,
    products,
    random_adapter,
    ranks_of_cohorts,
    seeds,
    settled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.products import STACK_BYTES
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.zero_pad import ZeroPad
from aggregator_service.aggregation.stacks import stacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import FedExRule, ZeroPadRule

STATE = settled(FedExRule())


def frozen_of(state: GlobalState) -> Dense:
    assert state.frozen is not None
    return products(state.frozen)


def whole_of(before: GlobalState, updates: list[Update]) -> Dense:
    """What was frozen, plus the mean of the products."""
    of_all = mean([products(one.adapter) for one in updates], [one.example_count for one in updates])
    return {name: own + frozen_of(before)[name] for name, own in of_all.items()}


@settings(max_examples=30)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_adapter_is_the_mean_of_the_factors_and_with_the_frozen_one_the_mean_product(
    ranks: list[int], seed: int
) -> None:
    rule = open_rule(FedExRule(), STATE)
    updates = cohort(rule, ranks, seed)
    state = merged(rule, updates).state
    plain = merged(ZeroPad(ZeroPadRule(), STATE), updates).state
    assert state.adapter.values.tobytes() == plain.adapter.values.tobytes()
    assert_same(effective(state), whole_of(STATE, updates))


@settings(max_examples=20)
@given(ranks=ranks_of_cohorts, seed=seeds, width=st.integers(1, 4))
def test_residual_is_cut_to_the_frozen_rank_and_the_loss_is_told(
    ranks: list[int], seed: int, width: int
) -> None:
    rule = open_rule(FedExRule(frozen_rank=width), STATE)
    updates = cohort(rule, ranks, seed)
    state = merged(rule, updates).state
    factors = products(state.adapter)
    residual = {name: own - factors[name] for name, own in whole_of(STATE, updates).items()}
    assert_same(frozen_of(state), cut(residual, width))
    lost = distance(residual, cut(residual, width))
    assert state.figures["norm_cut_off"] == pytest.approx(lost, rel=1e-4, abs=1e-4)


@settings(max_examples=10)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_sketch_gives_the_same_where_it_is_exact(ranks: list[int], seed: int) -> None:
    updates = cohort(open_rule(FedExRule(), STATE), ranks, seed)
    state = merged(open_rule(FedExRule(), STATE, STACK_BYTES), updates).state
    assert_same(effective(state), whole_of(STATE, updates))


def test_residual_is_the_covariance_of_the_factors() -> None:
    # One module of one number: A is 1 and 3, B is 2 and 6, equal weights. Mean factors 2 and 4, product 8;
    # mean product (2 + 18) / 2 = 10; residual 2, which is ((3 - 1) / 2) * ((6 - 2) / 2).
    spec = AdapterSpec((ModuleSpec("m", 1, 1),), scaling=1.0, max_rank=1)
    first, second = (
        stacked(Adapter(spec, {"m": LoraFactors(np.full((1, 1), own_A), np.full((1, 1), own_B))}))
        for own_A, own_B in ((1.0, 2.0), (3.0, 6.0))
    )
    state = merged(open_rule(FedExRule(), GlobalState(first, 1)), [Update(first), Update(second)]).state
    assert products(state.adapter)["m"] == pytest.approx(8.0)
    assert frozen_of(state)["m"] == pytest.approx(2.0)


def test_devices_that_agree_leave_no_residual() -> None:
    # (w B + ... + w B) / (k w) is B itself in float32, so that all is cancelled but float64's rounding.
    rule = open_rule(FedExRule(), first_state(FedExRule(), random_adapter(RANK, 3)))
    same = [as_sent(rule.distribute(RANK), 1 + number) for number in range(5)]
    assert merged(rule, same).state.frozen is None
    assert rule.distribute(2).frozen is None


def test_residuals_gather_over_rounds() -> None:
    state = first_state(FedExRule(), initial())
    for number in range(3):
        rule = open_rule(FedExRule(), state)
        updates = cohort(rule, [RANK, RANK, 2], 10 * number)
        of_all = mean([products(one.adapter) for one in updates], [one.example_count for one in updates])
        before = {} if state.frozen is None else frozen_of(state)
        state = merged(rule, updates).state
        assert_same(effective(state), {name: own + before.get(name, 0) for name, own in of_all.items()})


def test_ranks_that_few_hold_fade_from_the_adapter_and_stay_in_what_is_frozen() -> None:
    # A rank that one in four holds is scaled by 1/4 in either mean factor and in the mean product. Of its
    # product t there stays t/16 in the adapter, and t/4 - t/16 becomes residual, round after round:
    # 3/16 * t * (1 + 1/16 + ...) = t/5.
    state = GlobalState(STATE.adapter, RANK)
    for _ in range(30):
        rule = open_rule(FedExRule(), state)
        state = merged(rule, [as_sent(rule.distribute(rank)) for rank in (2, 2, 2, RANK)]).state
    for before, after in zip(STATE.adapter, state.adapter, strict=True):
        tail = before.lora_B[:, :, 2:].astype(float) @ before.lora_A[:, 2:]
        head = before.lora_B[:, :, :2].astype(float) @ before.lora_A[:, :2]
        assert np.abs(after.lora_B[:, :, 2:]).max() < 1e-6
        names = [name for name, own in products(STATE.adapter).items() if own.shape == head.shape[1:]]
        for number, name in enumerate(names):
            expected = head[number] + tail[number] / 5
            np.testing.assert_allclose(effective(state)[name], expected, atol=1e-4 * np.abs(expected).max())
