"""Replication padding against its formula, dense and in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from cohorts import RANK, cohort, merged, seeds, settled
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.messages.rules import RblaRule, ReplicationRule

STATE = settled(ReplicationRule())
some_ranks = st.lists(st.integers(1, RANK), min_size=1, max_size=8)


def rows(factors: LoraFactors) -> np.ndarray:
    """Rank i of both factors side by side: (rank, in_features + out_features), float64."""
    return np.concatenate([factors.lora_A, factors.lora_B.T], axis=1).astype(float)


def formula(before: np.ndarray, held: list[np.ndarray], counts: list[int]) -> np.ndarray:
    """Fill what an update lacks with the owners' plain mean, then average all by their counts."""
    result = before.copy()
    for rank in range(len(before)):
        owned = [own[rank] for own in held if len(own) > rank]
        if owned:
            fill = np.mean(owned, axis=0)
            filled = [own[rank] if len(own) > rank else fill for own in held]
            result[rank] = np.average(filled, axis=0, weights=counts)
    return result


@settings(max_examples=40)
@given(ranks=some_ranks, seed=seeds)
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int) -> None:
    rule = open_rule(ReplicationRule(), STATE)
    updates = cohort(rule, ranks, seed)
    result, before = unstacked(merged(rule, updates).state.adapter), unstacked(STATE.adapter)
    for name, own in result.factors.items():
        held = [rows(unstacked(update.adapter).factors[name]) for update in updates]
        expected = formula(rows(before.factors[name]), held, [update.example_count for update in updates])
        np.testing.assert_allclose(rows(own), expected, atol=1e-6)


@settings(max_examples=20)
@given(ranks=some_ranks, seed=seeds)
def test_with_uniform_weights_it_is_rbla(ranks: list[int], seed: int) -> None:
    ours, theirs = ReplicationRule(weights="uniform"), RblaRule(weights="uniform")
    updates = cohort(open_rule(ours, STATE), ranks, seed)
    left, right = (merged(open_rule(rule, STATE), updates).state.adapter for rule in (ours, theirs))
    np.testing.assert_allclose(left.values, right.values, atol=1e-6)


def test_update_without_trust_counts_as_if_it_had_not_come() -> None:
    rule = open_rule(ReplicationRule(), STATE)
    updates = cohort(rule, [2, 3, 1, RANK], 8)
    screened = [*updates[:3], replace(updates[3], trust=0.0)]
    left, right = (merged(rule, some).state.adapter for some in (screened, updates[:3]))
    np.testing.assert_allclose(left.values, right.values, atol=1e-6)


def test_low_ranks_are_filled_with_the_mean_of_the_high_ones() -> None:
    # Rank 1 is held by the second and third device: 4 and 8, whose plain mean is 6. Filled, the devices hold
    # 6, 4 and 8 with 2, 1 and 1 examples: (2 * 6 + 4 + 8) / 4 = 6. Rank 0: (2 * 1 + 3 + 7) / 4 = 3.
    spec = AdapterSpec((ModuleSpec("out", 2, 2),), scaling=1.0, max_rank=2)

    def update(values: list[float], count: int) -> Update:
        both = np.repeat(np.array([values]), 2, axis=0)
        return Update(stacked(Adapter(spec, {"out": LoraFactors(both.T, both)})), count)

    start = update([0.0, 0.0], 1).adapter
    rule = open_rule(ReplicationRule(), first_state(ReplicationRule(), unstacked(start)))
    updates = [update([1.0], 2), update([3.0, 4.0], 1), update([7.0, 8.0], 1)]
    result = unstacked(merged(rule, updates).state.adapter).factors["out"]
    np.testing.assert_allclose(result.lora_B, [[3.0, 6.0], [3.0, 6.0]], rtol=1e-6)
    # With examples 2, 3 and 1 the two rules part: filled 2 * 6 + 3 * 4 + 8 over 6, where RBLA has 5.
    updates = [update([1.0], 2), update([3.0, 4.0], 3), update([7.0, 8.0], 1)]
    result = unstacked(merged(rule, updates).state.adapter).factors["out"]
    np.testing.assert_allclose(result.lora_B[:, 1], [32 / 6, 32 / 6], rtol=1e-6)
    rbla = open_rule(RblaRule(), rule.state)
    assert unstacked(merged(rbla, updates).state.adapter).factors["out"].lora_B[0, 1] == 5.0
