"""The laws that a rule keeps, for every rule; and where one does not, that it does not."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import get_args

import numpy as np
import pytest
from cases import CASES
from cohorts import (
    RANK,
    SPEC,
    Dense,
    as_sent,
    assert_same,
    cohort,
    cut,
    distance,
    effective,
    mean,
    merged,
    products,
    ranks_of_cohorts,
    seeds,
    state_bits,
    trained,
)
from defended import turned
from every_rule import every_rule, fitting, opened, state_of
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import RULES, open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from aggregator_service.aggregation.tree import LEAF_SIZE, aggregate
from hetlora.adapter import Adapter, LoraFactors
from hetlora.algebra import zero_pad
from hetlora.errors import RankOutOfRange
from hetlora.messages.rules import AnyRule

few = settings(max_examples=15)


def that(law: str, holds: bool = True) -> pytest.MarkDecorator:
    """The rules that keep a law, or those that do not."""
    return pytest.mark.parametrize(
        "name", [name for name, case in CASES.items() if getattr(case, law) is holds]
    )


def test_every_rule_that_a_run_may_name_is_computed_and_has_its_laws_stated() -> None:
    named = set(get_args(AnyRule))
    assert set(RULES) == named
    assert {type(case.rule) for case in CASES.values()} == set(RULES)


@every_rule
@few
@given(ranks=ranks_of_cohorts, seed=seeds, random=st.randoms(use_true_random=False))
def test_order_of_arrival_changes_no_bit(name: str, ranks: list[int], seed: int, random: Random) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, ranks), seed)
    shuffled = list(updates)
    random.shuffle(shuffled)
    first, second = merged(rule, updates), merged(rule, shuffled)
    assert state_bits(first.state) == state_bits(second.state)
    assert first.weights == second.weights


@every_rule
@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=6), seed=seeds)
def test_weights_of_a_cohort_sum_to_one(name: str, ranks: list[int], seed: int) -> None:
    rule = opened(name)
    assert sum(merged(rule, cohort(rule, fitting(name, ranks), seed)).weights.values()) == pytest.approx(1.0)


@that("one_client")
@few
@given(seed=seeds)
def test_one_client_gets_its_own_product_back(name: str, seed: int) -> None:
    rule = opened(name)
    handout = rule.distribute(RANK, seed)
    update = trained(handout, seed)
    frozen = {} if handout.frozen is None else products(handout.frozen)
    expected = {key: value + frozen.get(key, 0) for key, value in products(update.adapter).items()}
    assert_same(effective(merged(rule, [update]).state), expected, 2e-5)


@every_rule
def test_cohort_at_the_runs_rank_that_learned_nothing_changes_nothing(name: str) -> None:
    rule = opened(name)
    updates = [as_sent(rule.distribute(RANK, seed), 1 + seed) for seed in range(3)]
    assert_same(effective(merged(rule, updates).state), effective(state_of(name)), 1e-5)


@that("idle")
def test_cohort_of_unequal_ranks_that_learned_nothing_changes_nothing(name: str) -> None:
    rule = opened(name)
    updates = [as_sent(rule.distribute(rank, rank)) for rank in fitting(name, (1, 2, 3, RANK))]
    assert_same(effective(merged(rule, updates).state), effective(state_of(name)), 1e-5)


@that("idle", False)
def test_cohort_of_unequal_ranks_that_learned_nothing_shrinks_the_adapter(name: str) -> None:
    rule = opened(name)
    updates = [as_sent(rule.distribute(rank, rank)) for rank in fitting(name, (1, 2, 3, RANK))]
    before = effective(state_of(name))
    assert distance(effective(merged(rule, updates).state), before) > 1e-3 * distance(
        before, {k: 0 * v for k, v in before.items()}
    )


def padded(update: Update) -> Update:
    wide = stacked(zero_pad(unstacked(update.adapter), RANK))
    if update.ranks is None:
        return replace(update, adapter=wide)
    return replace(update, adapter=wide, ranks=(*update.ranks, *sorted({*range(RANK)} - {*update.ranks})))


@that("padded")
@few
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_padding_an_update_with_zeros_changes_nothing(name: str, ranks: list[int], seed: int) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, ranks), seed)
    expected = effective(merged(rule, updates).state)
    assert_same(effective(merged(rule, [padded(update) for update in updates]).state), expected)


@that("padded", False)
def test_padding_an_update_with_zeros_counts_as_holding_them(name: str) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, [1, 2, RANK, RANK]), 3)
    plain = effective(merged(rule, updates).state)
    assert distance(effective(merged(rule, [padded(update) for update in updates]).state), plain) > 1e-3


@that("gauge")
@few
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_another_gauge_of_the_same_products_changes_nothing(name: str, ranks: list[int], seed: int) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, ranks), seed)
    other = [turned(update, seed + number, 0.3) for number, update in enumerate(updates)]
    assert_same(effective(merged(rule, other).state), effective(merged(rule, updates).state), 1e-4)


@that("gauge", False)
def test_another_gauge_of_the_same_products_is_another_update(name: str) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, [2, 3, RANK]), 5)
    other = [turned(update, 5 + number, 0.3) for number, update in enumerate(updates)]
    left, right = merged(rule, other).state, merged(rule, updates).state
    assert distance(effective(left), effective(right)) > 1e-3


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mean == "factors"])
@few
@given(count=st.integers(1, 6), seed=seeds)
def test_equal_ranks_give_the_mean_of_the_factors(name: str, count: int, seed: int) -> None:
    rule = opened(name)
    updates = cohort(rule, [RANK] * count, seed)
    weights = [update.example_count for update in updates]
    total = sum(weights)
    result = merged(rule, updates).state.adapter
    for index, stack in enumerate(result):
        stacks = [list(update.adapter)[index] for update in updates]
        for factor in ("lora_A", "lora_B"):
            parts = [w * getattr(own, factor).astype(float) for own, w in zip(stacks, weights, strict=True)]
            np.testing.assert_allclose(getattr(stack, factor), np.sum(parts, axis=0) / total, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.mean == "products"])
@few
@given(count=st.integers(1, 6), seed=seeds)
def test_equal_ranks_give_the_mean_product_cut_to_the_rank(name: str, count: int, seed: int) -> None:
    rule = opened(name)
    updates = cohort(rule, [RANK] * count, seed)
    whole = mean([products(update.adapter) for update in updates], [u.example_count for u in updates])
    assert_same(effective(merged(rule, updates).state), cut(whole, RANK), 1e-4)


def tail_energy(dense: Dense) -> float:
    """Share of the energy beyond the two leading singular values, over all modules."""
    squares = [np.linalg.svd(matrix, compute_uv=False) ** 2 for matrix in dense.values()]
    return float(sum(own[2:].sum() for own in squares) / sum(own.sum() for own in squares))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.keeps_tail is not None])
def test_high_ranks_that_few_hold_keep_their_energy_or_collapse(name: str) -> None:
    # One client in four holds more than two ranks, and nobody learns anything for 30 rounds.
    state = state_of(name)
    before = tail_energy(effective(state))
    for _ in range(30):
        rule = open_rule(CASES[name].rule, state)
        ranks = fitting(name, (2, 2, 2, RANK))
        state = merged(rule, [as_sent(rule.distribute(rank, rank)) for rank in ranks]).state
    kept = tail_energy(effective(state)) / before
    assert (kept > 0.9) if CASES[name].keeps_tail else (kept < 0.1)


@every_rule
def test_updates_beyond_one_leaf_give_the_same_bits_in_any_order(name: str) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, [1 + number % RANK for number in range(3 * LEAF_SIZE + 5)]), 11)
    first, second = merged(rule, updates), merged(rule, updates[::-1])
    assert state_bits(first.state) == state_bits(second.state)


@every_rule
def test_update_wider_than_the_run_is_refused(name: str) -> None:
    rule = opened(name)
    wide = stacked(
        Adapter(
            type(SPEC)(SPEC.modules, SPEC.scaling, RANK + 1),
            {
                module.name: LoraFactors(
                    np.ones((RANK + 1, module.in_features)), np.ones((module.out_features, RANK + 1))
                )
                for module in SPEC.modules
            },
        )
    )
    update = Update(StackedAdapter(SPEC, wide.values, wide.layout), 1, rule.distribute(RANK).adapter)
    with pytest.raises(RankOutOfRange):
        aggregate(rule, [UpdateRef("wide")], lambda ref: update)
