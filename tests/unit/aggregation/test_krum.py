"""Krum and Multi-Krum: small numbers, the formula over dense changes, and no gauge."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest
from cohorts import RANK, as_sent, assert_same, cohort, effective, merged, ranks_of_cohorts, seeds, settled
from defended import changes, defended, digest, stored, stretched, turned
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.robust.gram import gram_matrix
from aggregator_service.aggregation.robust.krum import krum, multi_krum, scores
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.tree import aggregate
from hetlora.errors import SettingsError, StateConflict
from hetlora.messages.defence import Defence
from hetlora.messages.rules import FlexLoraRule, ResidualExactRule

RULE = open_rule(ResidualExactRule(), settled(ResidualExactRule()))
few = settings(max_examples=25)
shares = st.sampled_from([0.0, 0.1, 0.2, 0.4])


def on_a_line(*points: float) -> np.ndarray:
    return np.outer(points, points)


def test_update_nearest_to_its_neighbours_is_kept() -> None:
    # f = 1 of 5, so that 2 neighbours count: 1 + 4, 1 + 1, 1 + 1, 1 + 4, 97^2 + 98^2.
    gram = on_a_line(0, 1, 2, 3, 100)
    assert scores(gram, 0.2) == pytest.approx([5, 2, 2, 5, 97**2 + 98**2])
    assert krum(gram, 0.2) == [1]
    assert multi_krum(gram, 0.2) == [1, 2]


def test_multi_krum_keeps_all_but_the_hostile_share_and_two() -> None:
    gram = on_a_line(*range(8), 100, -100)
    assert multi_krum(gram, 0.2) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("method", [krum, multi_krum])
def test_cohort_too_small_to_compare_keeps_its_first(
    method: Callable[[np.ndarray, float], list[int]], count: int
) -> None:
    assert method(on_a_line(*range(1, count + 1)), 0.4) == [0]


@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=3, max_size=10), seed=seeds, share=shares)
def test_scores_are_the_formula_over_dense_changes(ranks: list[int], seed: int, share: float) -> None:
    updates = cohort(RULE, ranks, seed)
    dense = changes(updates)
    count = len(updates)
    nearest = max(1, count - math.floor(share * count + 1e-9) - 2)
    expected = [
        sum(sorted(float(np.sum((own - other) ** 2)) for j, other in enumerate(dense) if j != k)[:nearest])
        for k, own in enumerate(dense)
    ]
    np.testing.assert_allclose(scores(gram_matrix(*stored(updates)), share), expected, rtol=1e-9)


@few
@given(ranks=ranks_of_cohorts, seed=seeds, turn=seeds, share=shares)
def test_no_gauge_changes_a_score(ranks: list[int], seed: int, turn: int, share: float) -> None:
    updates = cohort(RULE, ranks, seed)
    other = [turned(update, turn + number, 0.5) for number, update in enumerate(updates)]
    before = scores(gram_matrix(*stored(updates)), share)
    after = scores(gram_matrix(*stored(other)), share)
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * before.max())


@pytest.mark.parametrize("method", ["krum", "multi_krum"])
def test_rule_sees_the_kept_updates_alone_and_as_they_came(method: str) -> None:
    updates = cohort(RULE, [2, 3, RANK, 2, 3, RANK, 2], 1)
    updates[1] = stretched(updates[1], -30)
    screened, result = defended(Defence(method=method), RULE, updates)
    kept = {"krum": 1, "multi_krum": 4}[method]
    assert len(screened.refs) == kept
    assert len(screened.left_out) == 7 - kept
    assert [*result.weights.values()] == pytest.approx([1 / kept] * kept)
    refs, load = stored(updates)
    assert refs[1] in screened.left_out
    for ref in screened.refs:
        assert screened.treated(ref, load(ref)).adapter is load(ref).adapter
    assert screened.figures(RANK)["left_out"] == 7 - kept
    weights = screened.weights(result.weights)
    assert {*weights} == {*refs}
    assert weights[refs[1]] == 0


@pytest.mark.parametrize("method", ["krum", "multi_krum", "geometric_median"])
def test_rule_over_products_gives_the_same_in_any_gauge(method: str) -> None:
    rule = open_rule(FlexLoraRule(), settled(FlexLoraRule()))
    updates = cohort(rule, [1, 2, 3, RANK, 2, 3], 3)
    other = [turned(update, 5 + number, 0.5) for number, update in enumerate(updates)]
    results = [defended(Defence(method=method), rule, cohort)[1] for cohort in (updates, other)]
    assert_same(effective(results[1].state), effective(results[0].state), 1e-4)


@few
@given(ranks=ranks_of_cohorts, seed=seeds, random=st.randoms(use_true_random=False))
def test_order_of_arrival_changes_no_bit(ranks: list[int], seed: int, random: Random) -> None:
    refs, load = stored(cohort(RULE, ranks, seed))
    shuffled = list(refs)
    random.shuffle(shuffled)
    found = [defend(Defence(method="multi_krum"), order, load) for order in (refs, shuffled)]
    assert found[0].refs == found[1].refs
    assert digest(aggregate(RULE, found[0].refs, load).state.adapter) == digest(
        aggregate(RULE, found[1].refs, load).state.adapter
    )


def test_one_update_that_came_many_times_counts_each_time() -> None:
    # Five of eight are one update: their distances are zero.
    updates = cohort(RULE, [2, 3, RANK, 2], 1)
    refs, load = stored(updates)
    screened = defend(Defence(method="multi_krum"), [refs[0]] * 5 + refs[1:], load)
    assert screened.refs == (refs[0],) * 5
    assert aggregate(RULE, screened.refs, screened.loading(load)).weights == {refs[0]: pytest.approx(0.2)}


@pytest.mark.parametrize(("method", "kept"), [("krum", 1), ("multi_krum", 3)])
def test_weights_sum_to_one_where_some_of_equal_updates_are_left_out(method: str, kept: int) -> None:
    # Four of six are one update, of which 1 is kept, or 6 - 1 - 2 = 3; so each of them has 1/4.
    refs, load = stored(cohort(RULE, [2, 3, RANK], 1))
    cohort_refs = [refs[0]] * 4 + refs[1:]
    screened = defend(Defence(method=method), cohort_refs, load)
    assert screened.refs == (refs[0],) * kept
    result = aggregate(RULE, screened.refs, screened.loading(load))
    weights = screened.weights(result.weights)
    assert weights == {refs[0]: pytest.approx(1 / 4), refs[1]: 0, refs[2]: 0}
    assert sum(weights[ref] for ref in cohort_refs) == pytest.approx(1)


def test_cohort_that_learned_nothing_is_a_defined_result() -> None:
    updates = [as_sent(RULE.distribute(rank)) for rank in (1, 2, 3, RANK)]
    _, result = defended(Defence(method="krum"), RULE, updates)
    assert_same(effective(result.state), effective(merged(RULE, updates).state), 1e-6)


@pytest.mark.parametrize("method", ["krum", "multi_krum", "geometric_median", "trimmed_mean", "median"])
def test_more_updates_than_can_be_compared_are_refused(method: str) -> None:
    refs, load = stored(cohort(RULE, [1, 2, 2], 1))
    defend(Defence(method=method, max_updates=3), refs, load)
    with pytest.raises(SettingsError, match="got 3; expected up to max_updates, 2"):
        defend(Defence(method=method, max_updates=2), refs, load)


@pytest.mark.parametrize("defence", [Defence(), Defence(clip=True), Defence(method="krum")])
def test_no_update_is_refused(defence: Defence) -> None:
    with pytest.raises(StateConflict, match="no update"):
        defend(defence, [], stored([])[1])
