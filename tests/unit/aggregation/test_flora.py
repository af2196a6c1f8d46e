"""FLoRA against its formula, dense and in float64."""

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
    cut,
    digest,
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
from aggregator_service.aggregation.stacks import stacked
from hetlora.messages.rules import FloraRule

STATE = settled(FloraRule())


def formula(before: GlobalState, updates: list[Update]) -> Dense:
    """What was merged before, plus sum_k p_k B_k A_k."""
    total = sum(update.example_count for update in updates)
    result = effective(before)
    for update in updates:
        for name, product in products(update.adapter).items():
            result[name] = result[name] + update.example_count / total * product
    return result


@settings(max_examples=30)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int) -> None:
    rule = open_rule(FloraRule(), STATE)
    updates = cohort(rule, ranks, seed)
    assert_same(effective(merged(rule, updates).state), formula(STATE, updates))


@settings(max_examples=20)
@given(ranks=ranks_of_cohorts, seed=seeds, width=st.integers(1, 5))
def test_merged_products_are_cut_to_the_frozen_rank_and_the_loss_is_told(
    ranks: list[int], seed: int, width: int
) -> None:
    rule = open_rule(FloraRule(frozen_rank=width), STATE)
    updates = cohort(rule, ranks, seed)
    whole = formula(STATE, updates)
    state = merged(rule, updates).state
    assert state.frozen is not None
    assert state.frozen.rank <= width
    assert_same(effective(state), cut(whole, width))
    assert state.figures["norm_cut_off"] == pytest.approx(
        distance(whole, cut(whole, width)), rel=1e-4, abs=1e-4
    )


@settings(max_examples=10)
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_sketch_gives_the_same_where_it_is_exact(ranks: list[int], seed: int) -> None:
    updates = cohort(open_rule(FloraRule(), STATE), ranks, seed)
    state = merged(open_rule(FloraRule(), STATE, STACK_BYTES), updates).state
    assert_same(effective(state), formula(STATE, updates))


def test_three_rounds_add_up() -> None:
    state = first_state(FloraRule(), initial())
    for number in range(3):
        rule = open_rule(FloraRule(), state)
        updates = cohort(rule, [1, 3, RANK], 10 * number)
        expected = formula(state, updates)
        state = merged(rule, updates).state
        assert_same(effective(state), expected)


def test_adapter_starts_anew_with_other_numbers_in_each_round() -> None:
    state, seen = first_state(FloraRule(), random_adapter(RANK, 2)), set()
    for number in range(3):
        for stack in state.adapter:
            assert not stack.lora_B.any()
            bound = 1 / np.sqrt(stack.lora_A.shape[2])
            assert 0 < np.abs(stack.lora_A).max() <= bound
        seen.add(digest(state.adapter))
        rule = open_rule(FloraRule(), state)
        state = merged(rule, cohort(rule, [2, 3], number)).state
    assert len(seen) == 3


def test_product_that_the_run_begins_with_is_merged_first() -> None:
    given = random_adapter(RANK, 4)
    assert_same(effective(first_state(FloraRule(), given)), products(stacked(given)))


def test_nothing_is_sent_along_while_nothing_was_merged() -> None:
    rule = open_rule(FloraRule(), first_state(FloraRule(), initial()))
    assert rule.distribute(2).frozen is None
    assert merged(rule, [as_sent(rule.distribute(2)), as_sent(rule.distribute(3))]).state.frozen is None


def test_device_gets_the_merged_products_whole_at_any_rank() -> None:
    rule = open_rule(FloraRule(), STATE)
    for rank in range(1, RANK + 1):
        handout = rule.distribute(rank)
        assert handout.adapter.rank == rank
        assert handout.frozen is STATE.frozen


def test_frozen_adapter_has_the_same_bits_in_any_order() -> None:
    rule = open_rule(FloraRule(), STATE)
    updates = cohort(rule, [1, 2, 3, RANK] * 10, 6)
    first, second = merged(rule, updates).state.frozen, merged(rule, updates[::-1]).state.frozen
    assert first is not None
    assert second is not None
    assert first.values.tobytes() == second.values.tobytes()


def test_examples_weigh_the_stack_once() -> None:
    # Equal weights of 1 and 3 examples: (1 * D_1 + 3 * D_2) / 4, whatever the ranks.
    rule = open_rule(FloraRule(), first_state(FloraRule(), initial()))
    updates = [Update(stacked(random_adapter(1, 1)), 1), Update(stacked(random_adapter(3, 2)), 3)]
    expected = mean([products(update.adapter) for update in updates], [1, 3])
    assert_same(effective(merged(rule, updates).state), expected)
    assert set(products(updates[0].adapter)) == set(SPEC.by_name)
