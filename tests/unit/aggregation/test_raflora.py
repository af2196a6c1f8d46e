"""raFLoRA against its formula, dense and in float64."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    SPEC,
    Dense,
    assert_same,
    cohort,
    cut,
    effective,
    merged,
    products,
    ranks_of_cohorts,
    seeds,
    settled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.products import STACK_BYTES
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.rules.flexlora import FlexLora
from aggregator_service.aggregation.rules.raflora import RaFlora
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import FlexLoraRule, RaFloraRule

STATE = settled(RaFloraRule())


def formula(before: GlobalState, updates: list[Update], levels: list[int]) -> Dense:
    """sum_j sum_{k owns j} (n_k / N_j) B_k[:, band j] A_k[band j], cut to the run's rank."""
    old = unstacked(before.adapter).factors
    result: Dense = {}
    for name, module in SPEC.by_name.items():
        total = np.zeros((module.out_features, module.in_features))
        for first, last in zip([0, *levels], levels, strict=False):
            held = [(unstacked(one.adapter).factors[name], one.example_count) for one in updates]
            owners = [(own, n) for own, n in held if own.rank > first] or [(old[name], 1)]
            weight = sum(n for _, n in owners)
            for own, n in owners:
                lora_A, lora_B = own.lora_A.astype(float), own.lora_B.astype(float)
                total += n / weight * lora_B[:, first:last] @ lora_A[first:last]
        result[name] = total
    return cut(result, RANK)


@pytest.mark.parametrize(
    ("setting", "levels"), [((), [1, 2, 4]), ((1, 2, 3), [1, 2, 3, 4]), ((3, 1, 9), [1, 3, 4]), ((4,), [4])]
)
@settings(max_examples=20)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_result_is_the_formula_over_the_list(
    setting: tuple[int, ...], levels: list[int], ranks: list[int], seed: int
) -> None:
    rule = open_rule(RaFloraRule(levels=setting), STATE)
    updates = cohort(rule, ranks, seed)
    assert_same(effective(merged(rule, updates).state), formula(STATE, updates, levels), 1e-4)


@settings(max_examples=20)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_single_level_is_flexlora_where_somebody_holds_a_rank(ranks: list[int], seed: int) -> None:
    rule = open_rule(RaFloraRule(levels=(RANK,)), STATE)
    updates = cohort(rule, ranks, seed)
    theirs = merged(FlexLora(FlexLoraRule(), STATE), updates).state
    assert_same(effective(merged(rule, updates).state), effective(theirs), 1e-5)


@settings(max_examples=10)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=8), seed=seeds)
def test_sketch_of_each_band_gives_the_same_where_it_is_exact(ranks: list[int], seed: int) -> None:
    updates = cohort(open_rule(RaFloraRule(), STATE), ranks, seed)
    stack, sketch = (open_rule(RaFloraRule(), STATE, total) for total in (0, STACK_BYTES))
    assert_same(effective(merged(sketch, updates).state), effective(merged(stack, updates).state), 1e-5)


def test_bands_end_at_powers_of_two_and_at_the_runs_rank() -> None:
    def bands(rank: int, levels: tuple[int, ...] = ()) -> list[tuple[int, int]]:
        return RaFlora(RaFloraRule(levels=levels), GlobalState(STATE.adapter, rank)).bands

    assert bands(1) == [(0, 1)]
    assert bands(8) == [(0, 1), (1, 2), (2, 4), (4, 8)]
    assert bands(6) == [(0, 1), (1, 2), (2, 4), (4, 6)]
    assert bands(6, (4, 16, 2)) == [(0, 2), (2, 4), (4, 6)]


def test_owners_of_a_band_share_it_alone() -> None:
    # One module, identity-like factors: rank i of a device is entry (i, i) of its product. Device 1 has rank
    # 1, value 2, and 1 example; device 2 rank 2, values 6 and 4, and 3 examples. Band 1: (1*2 + 3*6) / 4 = 5;
    # band 2 has one owner: 4. FlexLoRA would make 3 of that.
    spec = AdapterSpec((ModuleSpec("m", 3, 3),), scaling=1.0, max_rank=2)

    def device(values: list[float], example_count: int) -> Update:
        lora_B = np.eye(3, len(values)) * np.array(values)
        return Update(
            stacked(Adapter(spec, {"m": LoraFactors(np.eye(len(values), 3), lora_B)})), example_count
        )

    before = GlobalState(device([9.0, 9.0], 1).adapter, 2)
    rule = open_rule(RaFloraRule(), before)
    result = merged(rule, [device([2.0], 1), device([6.0, 4.0], 3)])
    np.testing.assert_allclose(effective(result.state)["m"], np.diag([5.0, 4.0, 0.0]), atol=1e-5)
    assert sorted(result.weights.values()) == [0.25, 0.75]
    # Nobody holds rank 2: it stays 9.
    alone = merged(rule, [device([2.0], 1)])
    np.testing.assert_allclose(effective(alone.state)["m"], np.diag([2.0, 9.0, 0.0]), atol=1e-5)


def test_modules_of_one_update_may_have_ranks_of_their_own() -> None:
    # layers.0.key alone has rank 4; the other modules of this update rank 1.
    rule = open_rule(RaFloraRule(), STATE)
    updates = cohort(rule, [RANK, 2], 3)
    whole = unstacked(updates[0].adapter).factors
    pruned = {
        name: own if name == "layers.0.key" else LoraFactors(own.lora_A[:1], own.lora_B[:, :1])
        for name, own in whole.items()
    }
    uneven = [Update(stacked(Adapter(SPEC, pruned)), 2), updates[1]]
    assert_same(effective(merged(rule, uneven).state), formula(STATE, uneven, [1, 2, 4]), 1e-4)
    assert not np.allclose(products(uneven[0].adapter)["out"], products(updates[0].adapter)["out"])
