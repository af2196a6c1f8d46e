"""Updates of devices that were sent an older version: what they weigh, and which rules can take them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import CASES
from cohorts import (
    RANK,
    as_sent,
    assert_same,
    cohort,
    cut,
    digest,
    effective,
    merged,
    products,
    seeds,
    settled,
    trained,
)
from every_rule import every_rule, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.rule import GlobalState, Rule, Update, UpdateRef
from aggregator_service.aggregation.rules import RULES, open_rule
from aggregator_service.aggregation.staleness import staleness_weight
from aggregator_service.aggregation.tree import Aggregate, aggregate
from hetlora.messages.defence import Defence
from hetlora.messages.rules import AnyRule, FlascRule, ResidualExactRule

STATE_RANK = 5  # of residual_exact: twice the run's is 8, and the narrowest module has 5
PLAIN = FlascRule(weights="examples", download_density=1.0, upload_density=1.0)
stalenesses = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def aged(rule: Rule[Any], updates: Sequence[tuple[Update, int]], order: Sequence[int] = ()) -> Aggregate:
    """The aggregate of updates of these stalenesses, as the service names and loads them."""
    sources = {
        UpdateRef(digest(own.adapter), own.example_count, ranks=own.ranks or (), staleness=staleness): own
        for own, staleness in updates
    }
    refs = [list(sources)[number] for number in order] or list(sources)
    return aggregate(rule, refs, lambda ref: replace(sources[ref], trust=staleness_weight(ref.staleness)))


def history(rule: AnyRule, seed: int) -> list[GlobalState]:
    """Three versions of a run, newest first."""
    states = [settled(rule)]
    for number in range(2):
        before = open_rule(rule, states[0])
        states.insert(0, merged(before, cohort(before, [RANK, RANK], seed + 100 * number)).state)
    return states


def mixed(
    rule: AnyRule, states: Sequence[GlobalState], ages: Sequence[int], seed: int
) -> list[tuple[Update, int]]:
    """An update of each age, with example counts from 1 on."""
    sent = [open_rule(rule, states[age]).distribute(RANK, seed + number) for number, age in enumerate(ages)]
    return [
        (trained(handout, seed + number, example_count=1 + number), age)
        for number, (handout, age) in enumerate(zip(sent, ages, strict=True))
    ]


def test_weights_are_those_of_fedbuff() -> None:
    # 1 / sqrt(1), 1 / sqrt(2), 1 / sqrt(3), 1 / sqrt(4)
    assert [staleness_weight(age) for age in range(4)] == pytest.approx([1, 0.7071068, 0.5773503, 0.5])


@every_rule
def test_old_update_that_learned_nothing_moves_nothing_where_a_rule_adds_changes(name: str) -> None:
    rule = opened(name)
    newest, _, oldest = history(CASES[name].rule, seed=1)  # of two steps: some train the factors in turn
    handout = open_rule(CASES[name].rule, oldest).distribute(RANK, 7)
    nothing = [(as_sent(handout, count), 2) for count in (1, 2, 3)]  # as many as a quorum asks for
    kept = aged(open_rule(CASES[name].rule, newest), nothing).state
    if type(rule).adds_changes:
        assert_same(effective(kept), effective(newest), 1e-4)
    elif name != "lora_a2":  # which adds changes, but of a factor whose turn it is
        assert not np.allclose(kept.adapter.values, newest.adapter.values, atol=1e-3)


def test_rules_that_add_changes_are_these() -> None:
    named = {kind.model_fields["name"].default for kind, own in RULES.items() if own.adds_changes}
    assert named == {"residual_exact", "flasc", "fslora", "flora"}


@settings(max_examples=25)
@given(ages=stalenesses, seed=seeds)
def test_result_of_factors_is_the_weighted_mean_of_the_changes(ages: list[int], seed: int) -> None:
    states = history(PLAIN, seed)
    updates = mixed(PLAIN, states, ages, seed)
    weights = np.array([own.example_count * staleness_weight(age) for own, age in updates])
    weights /= weights.sum()
    expected = states[0].adapter.values.astype(np.float64)
    for weight, (own, _) in zip(weights, updates, strict=True):
        assert own.received is not None
        expected = expected + weight * (own.adapter.values.astype(np.float64) - own.received.values)
    done = aged(open_rule(PLAIN, states[0]), updates)
    np.testing.assert_allclose(done.state.adapter.values, expected, rtol=1e-5, atol=1e-5)
    by_count = {ref.example_count: weight for ref, weight in done.weights.items()}
    np.testing.assert_allclose([by_count[1 + number] for number in range(len(ages))], weights, rtol=1e-12)


@settings(max_examples=15)
@given(ages=stalenesses, seed=seeds)
def test_result_of_products_is_the_weighted_mean_of_the_changes(ages: list[int], seed: int) -> None:
    rule = ResidualExactRule()
    states = history(rule, seed)
    updates = mixed(rule, states, ages, seed)
    weights = np.array([own.example_count * staleness_weight(age) for own, age in updates])
    moved = effective(states[0])
    for weight, (own, _) in zip(weights / weights.sum(), updates, strict=True):
        assert own.received is not None
        after, before = products(own.adapter), products(own.received)
        moved = {key: matrix + weight * (after[key] - before[key]) for key, matrix in moved.items()}
    done = aged(open_rule(rule, states[0]), updates).state
    assert_same(effective(done), cut(moved, STATE_RANK), 1e-4)


@settings(max_examples=15)
@given(age=st.integers(0, 50), seed=seeds)
def test_equally_stale_updates_weigh_as_fresh_ones(age: int, seed: int) -> None:
    rule = open_rule(PLAIN, settled(PLAIN))
    updates = cohort(rule, [RANK] * 3, seed)
    fresh, stale = (aged(rule, [(own, old) for own in updates]) for old in (0, age))
    np.testing.assert_allclose(sorted(fresh.weights.values()), sorted(stale.weights.values()), rtol=1e-12)


@settings(max_examples=15)
@given(ages=stalenesses, seed=seeds, shuffle=st.randoms(use_true_random=False))
def test_order_of_arrival_leaves_no_trace(ages: list[int], seed: int, shuffle: random.Random) -> None:
    states = history(PLAIN, seed)
    updates = mixed(PLAIN, states, ages, seed)
    order = shuffle.sample(range(len(ages)), len(ages))
    rule = open_rule(PLAIN, states[0])
    one, other = aged(rule, updates), aged(rule, updates, order)
    assert one.state.adapter.values.tobytes() == other.state.adapter.values.tobytes()
    assert one.weights == other.weights


def test_defence_multiplies_what_staleness_leaves() -> None:
    rule = open_rule(PLAIN, settled(PLAIN))
    updates = cohort(rule, [RANK] * 4, seed=3)
    refs = [UpdateRef(digest(own.adapter), own.example_count, staleness=n) for n, own in enumerate(updates)]
    sources = dict(zip(refs, updates, strict=True))

    def load(ref: UpdateRef) -> Update:
        return replace(sources[ref], trust=staleness_weight(ref.staleness))

    defended = defend(Defence(method="geometric_median"), refs, load)
    done = aggregate(rule, defended.refs, defended.loading(load))
    total = sum(defended.trust[ref] * staleness_weight(ref.staleness) for ref in refs)
    for ref in refs:  # a method counts each update as one example
        wanted = defended.trust[ref] * staleness_weight(ref.staleness) / total
        assert done.weights[ref] == pytest.approx(wanted)
