"""FlexLoRA against its formula, dense and in float64, at small sizes and where the iteration acts."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import (
    RANK,
    assert_same,
    cohort,
    cut,
    effective,
    mean,
    merged,
    products,
    random_adapter,
    ranks_of_cohorts,
    received,
    seeds,
    settled,
)
from hypothesis import given, settings

from aggregator_service.aggregation.leading import pays
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import stacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import truncate
from hetlora.messages.rules import FlexLoraRule

STATE = settled(FlexLoraRule())
# Both sides of rank 4 and a block of 6, times 4.
REAL = AdapterSpec((ModuleSpec("high", 60, 90), ModuleSpec("wide", 80, 50)), scaling=2.0, max_rank=RANK)


def formula(updates: list[Update], weights: list[float]) -> dict[str, np.ndarray]:
    """M = sum_k p_k B_k A_k, cut to the run's rank by a full SVD."""
    return cut(mean([products(one.adapter) for one in updates], weights), RANK)


@settings(max_examples=30)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int) -> None:
    rule = open_rule(FlexLoraRule(), STATE)
    updates = cohort(rule, ranks, seed)
    expected = formula(updates, [float(one.example_count) for one in updates])
    assert_same(effective(merged(rule, updates).state), expected, 1e-5)


def test_updates_may_weigh_all_alike() -> None:
    rule = open_rule(FlexLoraRule(weights="uniform"), STATE)
    updates = cohort(rule, [1, 3, RANK], 2)
    assert_same(effective(merged(rule, updates).state), formula(updates, [1.0] * 3), 1e-5)


@pytest.mark.parametrize("move", [0.1, 1.0, None])
def test_result_is_the_formula_where_the_iteration_acts(move: float | None) -> None:
    # Devices that moved one adapter by a tenth of it, or as much as it is; or updates with nothing in common.
    assert pays(50, RANK)
    start, updates = random_adapter(RANK, 1, REAL), []
    for number in range(40):
        rank = 1 + number % RANK
        own = random_adapter(rank, 10 + number, REAL)
        if move is not None:
            sent = truncate(start, rank)
            factors = {
                name: LoraFactors(
                    sent.factors[name].lora_A + move * moved.lora_A,
                    sent.factors[name].lora_B + move * moved.lora_B,
                )
                for name, moved in own.factors.items()
            }
            own = Adapter(REAL, factors)
        updates.append(Update(stacked(own), 1 + number % 3))
    state = merged(open_rule(FlexLoraRule(), GlobalState(stacked(start), RANK)), updates).state
    expected = formula(updates, [float(one.example_count) for one in updates])
    found = effective(state)
    for name, matrix in expected.items():
        assert np.linalg.norm(found[name] - matrix) < 1e-5 * np.linalg.norm(matrix)


def test_every_rank_is_sent_the_best_of_its_rank() -> None:
    rule = open_rule(FlexLoraRule(), STATE)
    state = merged(rule, cohort(rule, [RANK, RANK, 2], 4)).state
    following = open_rule(FlexLoraRule(), state)
    for rank in range(1, RANK + 1):
        assert_same(received(following.distribute(rank)), cut(effective(state), rank), 1e-5)


def test_ranks_that_the_mean_does_not_have_are_refilled_and_can_be_trained() -> None:
    rule = open_rule(FlexLoraRule(), STATE)
    state = merged(rule, cohort(rule, [1], 3)).state
    for stack in state.adapter:
        assert stack.rank == RANK
        assert not stack.lora_B[:, :, 1:].any()
        assert (np.abs(stack.lora_A).max(axis=2) > 0).all()
