"""Our own rule against its formula, dense and in float64, and the laws that follow from it."""

from __future__ import annotations

from dataclasses import replace

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
    distance,
    effective,
    initial,
    mean,
    merged,
    products,
    ranks_of_cohorts,
    received,
    seeds,
    settled,
    trained,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.allocation import FLOOR_SHARE, allocate
from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.rules.flexlora import FlexLora
from aggregator_service.aggregation.stacks import groups_of, stacked, unstacked
from hetlora.adapter import Adapter, LoraFactors
from hetlora.messages.rules import FlexLoraRule, ResidualExactRule

PLAIN = ResidualExactRule()
STATE = settled(PLAIN)
STATE_RANK = 5  # twice the run's is 8, and the narrowest module has 5


def formula(before: Dense, updates: list[Update], rate: float) -> Dense:
    """M + eta sum_k w_k (D_k - M_k), cut to the state's rank."""
    assert all(update.received is not None for update in updates)
    changes = [
        {name: after - products(update.received)[name] for name, after in products(update.adapter).items()}
        for update in updates
        if update.received is not None
    ]
    moved = mean(changes, [update.example_count for update in updates])
    return cut({name: matrix + rate * moved[name] for name, matrix in before.items()}, STATE_RANK)


@settings(max_examples=40)
@given(ranks=ranks_of_cohorts, seed=seeds, rate=st.sampled_from([0.5, 1.0, 1.5]))
def test_result_is_the_formula_over_the_list(ranks: list[int], seed: int, rate: float) -> None:
    rule = open_rule(PLAIN.model_copy(update={"server_rate": rate}), STATE)
    updates = cohort(rule, ranks, seed)
    expected = formula(effective(STATE), updates, rate)
    assert_same(effective(merged(rule, updates).state), expected, 1e-4)


@settings(max_examples=20)
@given(count=st.integers(1, 6), seed=seeds)
def test_with_all_ranks_at_the_states_and_rate_one_it_is_flexlora(count: int, seed: int) -> None:
    narrow = ResidualExactRule(state_rank=RANK)
    state = settled(narrow)
    updates = cohort(open_rule(narrow, state), [RANK] * count, seed)
    ours = merged(open_rule(narrow, state), updates).state
    theirs = merged(FlexLora(FlexLoraRule(), state), updates).state
    assert_same(effective(ours), effective(theirs), 1e-4)


def test_update_of_an_older_version_counts_by_its_change_against_that_version() -> None:
    old_rule = open_rule(PLAIN, STATE)
    late = trained(old_rule.distribute(2), 5)
    newer = merged(old_rule, cohort(old_rule, [RANK, 3], 1)).state
    rule = open_rule(PLAIN, newer)
    updates = [late, trained(rule.distribute(2), 6)]
    assert_same(effective(merged(rule, updates).state), formula(effective(newer), updates, 1.0), 1e-4)


def test_what_was_sent_under_one_name_enters_once_and_counts_the_same() -> None:
    rule = open_rule(PLAIN, STATE)
    updates = cohort(rule, [2, 2, 3, 2], 9)
    named = [replace(update, received_sha256=f"rank {update.adapter.rank}") for update in updates]
    partial = rule.init()
    rule.accumulate(partial, named)
    assert sorted(partial.sent) == ["rank 2", "rank 3"]
    assert_same(effective(merged(rule, named).state), effective(merged(rule, updates).state), 1e-6)


def test_folded_handout_is_the_whole_global_product_at_any_rank() -> None:
    rule = open_rule(ResidualExactRule(fold=True), STATE)
    for rank in range(1, RANK + 1):
        assert_same(received(rule.distribute(rank)), effective(STATE), 1e-6)


def test_handout_without_fold_is_the_best_approximation_of_its_rank() -> None:
    rule = open_rule(PLAIN, STATE)
    for rank in range(1, RANK + 1):
        assert_same(received(rule.distribute(rank)), cut(effective(STATE), rank), 1e-4)


def test_what_the_states_rank_cut_off_is_told() -> None:
    rule = open_rule(ResidualExactRule(state_rank=RANK), settled(ResidualExactRule(state_rank=RANK)))
    updates = cohort(rule, [RANK, RANK], 4)
    whole = mean([products(update.adapter) for update in updates], [u.example_count for u in updates])
    result = merged(rule, updates).state
    assert result.figures["norm_cut_off"] == pytest.approx(distance(whole, cut(whole, RANK)), rel=1e-3)


def test_product_that_the_run_begins_with_is_kept() -> None:
    given = Adapter(
        SPEC,
        {
            name: LoraFactors(own.lora_A, np.random.default_rng(3).standard_normal(own.lora_B.shape))
            for name, own in initial().factors.items()
        },
    )
    assert_same(effective(first_state(PLAIN, given)), products(stacked(given)), 1e-5)


def test_run_begins_with_the_lora_a_of_its_own_seed() -> None:
    begun = stacked(initial(seed=5))
    for stack, own in zip(first_state(PLAIN, initial(seed=5)).adapter, begun, strict=True):
        np.testing.assert_array_equal(stack.lora_A[:, :RANK], own.lora_A)


def test_run_that_begins_with_nothing_hands_out_trainable_ranks() -> None:
    handout = open_rule(PLAIN, first_state(PLAIN, initial())).distribute(2)
    for stack in handout.adapter:
        assert not stack.lora_B.any()
        assert (np.abs(stack.lora_A).max(axis=2) > 0).all()


def with_energies(energies: dict[str, list[float]]) -> Adapter:
    """Rank i of a module has this singular value; the factors are unit vectors times its root."""
    factors = {}
    for module in SPEC.modules:
        values = np.sqrt(np.array(energies[module.name] + [0.0] * (RANK - len(energies[module.name]))))
        factors[module.name] = LoraFactors(
            np.eye(RANK, module.in_features) * values[:, None], np.eye(module.out_features, RANK) * values
        )
    return Adapter(SPEC, factors)


def allocated(energies: dict[str, list[float]], rank: int) -> dict[str, int]:
    state = balanced(SPEC, ProductStack([(stacked(with_energies(energies)), 1.0)]).spectra(RANK), RANK)
    ranks = allocate(state, rank, RANK)
    return {
        name: int(own)
        for group, values in zip(groups_of(SPEC), ranks, strict=True)
        for name, own in zip(group.names, values, strict=True)
    }


EVEN = [4.0, 3.0, 2.0, 1.0]


def only(module: str) -> dict[str, list[float]]:
    return {name: EVEN if name == module else [] for name in SPEC.by_name}


def test_even_spectrum_gives_every_module_the_devices_rank_or_next_to_it() -> None:
    assert set(allocated(dict.fromkeys(SPEC.by_name, EVEN), 2).values()) <= {1, 2, 3}


def test_module_with_all_the_energy_gets_all_its_ranks() -> None:
    # Prices 11, 13, 11, 13, 15 sum to 63. At rank 2 the budget is 126; the floor of 1 takes 63. Three more
    # ranks of the first module take 33; what is left, 30, goes in turn: 13 to layers.0.query, 11 to
    # layers.1.key, and the 6 that remain fit nothing.
    ranks = allocated(only("layers.0.key"), 2)
    assert ranks == {"layers.0.key": 4, "layers.0.query": 2, "layers.1.key": 2, "layers.1.query": 1, "out": 1}


def test_rank_goes_down_again_when_another_module_has_the_energy() -> None:
    ranks = allocated(only("layers.1.key"), 2)
    assert (ranks["layers.0.key"], ranks["layers.1.key"]) == (2, 4)


@given(
    st.dictionaries(
        st.sampled_from(sorted(SPEC.by_name)),
        st.lists(st.floats(0, 1e3), max_size=RANK),
        min_size=len(SPEC.modules),
    ),
    st.integers(1, RANK),
)
def test_allocation_keeps_to_the_budget_and_gives_every_module_its_floor(
    energies: dict[str, list[float]], rank: int
) -> None:
    ranks = allocated({name: sorted(own, reverse=True) for name, own in energies.items()}, rank)
    spent = sum(ranks[m.name] * (m.in_features + m.out_features) for m in SPEC.modules)
    budget = rank * SPEC.parameters_per_rank
    cheapest = (
        min(m.in_features + m.out_features for m in SPEC.modules if ranks[m.name] < RANK)
        if any(own < RANK for own in ranks.values())
        else 0
    )
    assert budget - cheapest < spent <= budget or set(ranks.values()) == {RANK}
    assert all(max(1, int(FLOOR_SHARE * rank)) <= own <= RANK for own in ranks.values())


def test_allocated_handout_takes_no_more_bytes_than_an_even_one() -> None:
    even, uneven = open_rule(PLAIN, STATE), open_rule(ResidualExactRule(allocate=True), STATE)
    for rank in range(1, RANK + 1):
        sizes = [unstacked(rule.distribute(rank).adapter).size_bytes for rule in (even, uneven)]
        assert sizes[1] <= sizes[0]


def test_unequal_module_ranks_are_merged_by_the_formula() -> None:
    rule = open_rule(ResidualExactRule(allocate=True), STATE)
    updates = cohort(rule, [1, 2, 3], 21)
    assert any(update.adapter.module_ranks is not None for update in updates)
    assert_same(effective(merged(rule, updates).state), formula(effective(STATE), updates, 1.0), 1e-4)


def test_one_idle_device_among_many_pulls_the_result_towards_what_it_was() -> None:
    # Two devices of equal weight, one of which learned nothing: half of the other's change.
    rule = open_rule(PLAIN, STATE)
    moved = trained(rule.distribute(1), 2)
    result = effective(merged(rule, [moved, as_sent(rule.distribute(RANK))]).state)
    assert moved.received is not None
    half = {
        name: before + (products(moved.adapter)[name] - products(moved.received)[name]) / 2
        for name, before in effective(STATE).items()
    }
    assert_same(result, cut(half, STATE_RANK), 1e-4)
