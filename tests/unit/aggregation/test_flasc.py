"""FLASC against its formula, dense and in float64; what devices send goes through the wire."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cohorts import RANK, SPEC, cohort, merged, seeds, settled
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from hetlora.adapter import Adapter, LoraFactors
from hetlora.messages.rules import FlascRule
from hetlora.partial import contract, expand

RULE = FlascRule()
STATE = settled(RULE)
ENTRIES = RANK * SPEC.parameters_per_rank


def flat(adapter: StackedAdapter | Adapter) -> np.ndarray:
    """All factors as one vector, in the order of modules."""
    whole = adapter if isinstance(adapter, Adapter) else unstacked(adapter)
    return np.concatenate(
        [tensor.ravel() for own in whole.factors.values() for tensor in (own.lora_A, own.lora_B)]
    ).astype(float)


def top(vector: np.ndarray, count: int) -> np.ndarray:
    kept = np.zeros_like(vector)
    largest = np.argsort(-np.abs(vector), kind="stable")[:count]
    kept[largest] = vector[largest]
    return kept


@settings(max_examples=30)
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6), seed=seeds)
def test_result_adds_the_mean_of_the_largest_changes(ranks: list[int], seed: int) -> None:
    rule = open_rule(RULE, STATE)
    updates, changes = [], []
    for number, rank in enumerate(ranks):
        handout = rule.distribute(rank)
        rng, sent = np.random.default_rng(seed + number), unstacked(handout.adapter)
        after = Adapter(
            SPEC,
            {
                module.name: LoraFactors(
                    own.lora_A + rng.standard_normal(own.lora_A.shape),
                    own.lora_B + rng.standard_normal(own.lora_B.shape),
                )
                for module, own in sent
            },
        )
        data = contract(after, handout.adaptation, sent)
        updates.append(Update(stacked(expand(data, SPEC, handout.adaptation, sent)), 1, handout.received))
        changes.append(top(flat(after) - flat(sent), math.ceil(0.25 * rank / RANK * ENTRIES)))
    result = flat(merged(rule, updates).state.adapter)
    np.testing.assert_allclose(result, flat(STATE.adapter) + np.mean(changes, axis=0), atol=1e-6)


@pytest.mark.parametrize("rank", range(1, RANK + 1))
def test_handout_is_the_largest_share_over_all_modules_at_full_rank(rank: int) -> None:
    rule = open_rule(RULE, STATE)
    handout = rule.distribute(rank)
    assert rule.trained_rank == handout.adapter.rank == RANK
    np.testing.assert_array_equal(
        flat(handout.adapter), top(flat(STATE.adapter), math.ceil(0.25 * rank / RANK * ENTRIES))
    )
    assert handout.adaptation.upload_density == 0.25 * rank / RANK


def test_what_a_device_was_not_sent_stays_in_the_global_adapter() -> None:
    # Were the mean of what came the new adapter, three quarters of its entries would be gone.
    rule = open_rule(RULE, STATE)
    result = merged(rule, cohort(rule, [RANK], 1)).state.adapter
    same = flat(result) == flat(STATE.adapter)
    assert same.sum() == ENTRIES - math.ceil(0.25 * ENTRIES)
