"""The geometric median against its optimum, and how its weights multiply with those of the rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import CASES
from cohorts import RANK, assert_same, cohort, cut, effective, mean, merged, products, seeds
from defended import changes, defended, stored, stretched, turned
from every_rule import every_rule, fitting, opened
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust.geometric_median import geometric_median
from aggregator_service.aggregation.robust.gram import gram_matrix
from aggregator_service.aggregation.tree import aggregate
from hetlora.messages.defence import Defence

RULE = opened("residual_exact")
GEOMETRIC = Defence(method="geometric_median")
few = settings(max_examples=25)


def of_points(*points: tuple[float, ...]) -> np.ndarray:
    matrix = np.array(points, float)
    return geometric_median(matrix @ matrix.T)


def test_corners_of_a_triangle_weigh_alike() -> None:
    assert of_points((1, 0), (-0.5, 0.75**0.5), (-0.5, -(0.75**0.5))) == pytest.approx([1, 1, 1])


def test_weights_fall_with_the_distance_from_the_median() -> None:
    # On a line the median is the middle point, 1. nu is 1e-6 times the norm 1; 0 is 1 away and 6 is 5 away.
    assert of_points((0,), (1,), (6,)) == pytest.approx([1e-6, 1, 0.2e-6], rel=1e-3)


def test_half_less_one_of_the_points_far_away_pull_with_the_force_of_their_number() -> None:
    # Points 0, 1, 2 and 1e30 twice: the middle of five is 2.
    weights = of_points((0,), (1,), (2,), (1e30,), (1e30,))
    assert weights @ [0, 1, 2, 1e30, 1e30] / weights.sum() == pytest.approx(2, abs=1e-3)


def test_what_nothing_tells_apart_weighs_alike() -> None:
    assert (of_points((0, 0), (0, 0), (0, 0)) == 1).all()
    assert (of_points((1, 2), (1, 2)) == 1).all()
    assert (of_points((3,)) == 1).all()


@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=3, max_size=8), seed=seeds)
def test_weighted_mean_of_changes_is_the_geometric_median(ranks: list[int], seed: int) -> None:
    updates = cohort(RULE, ranks, seed)
    dense = changes(updates)
    weights = geometric_median(gram_matrix(*stored(updates)))
    away = dense - weights @ dense / weights.sum()
    distances = np.linalg.norm(away, axis=1)
    # The sum of distances is convex. Away from all points its slope is zero at the best; at one of them, the
    # pull of the others is no stronger than that point's own, 1.
    apart = distances > 1e-3 * distances.max()
    pull = np.linalg.norm((away[apart] / distances[apart, None]).sum(axis=0))
    assert pull < 1e-3 if apart.all() else pull <= (~apart).sum() + 1e-3


@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=8), seed=seeds, turn=seeds)
def test_no_gauge_moves_the_median(ranks: list[int], seed: int, turn: int) -> None:
    updates = cohort(RULE, ranks, seed)
    other = [turned(update, turn + number, 0.5) for number, update in enumerate(updates)]
    dense = changes(updates)
    medians = []
    for one in (updates, other):
        weights = geometric_median(gram_matrix(*stored(one)))
        medians.append(weights @ dense / weights.sum())
    np.testing.assert_allclose(medians[1], medians[0], atol=1e-3 * np.abs(dense).max())


def test_rule_over_products_gives_the_median_product() -> None:
    rule = opened("flexlora")
    updates = [replace(update, example_count=7) for update in cohort(rule, [1, 2, 3, RANK, RANK], 2)]
    updates[1] = stretched(updates[1], 1000)
    _, result = defended(GEOMETRIC, rule, updates)
    weights = geometric_median(gram_matrix(*stored(updates)))
    expected = cut(mean([products(update.adapter) for update in updates], [*weights]), RANK)
    assert_same(effective(result.state), expected, 1e-4)


def test_claimed_examples_do_not_count() -> None:
    rule = opened("flexlora")
    updates = cohort(rule, [2, 3, RANK], 2)
    louder = [replace(updates[0], example_count=10**9), *updates[1:]]
    results = [defended(GEOMETRIC, rule, one)[1] for one in (updates, louder)]
    assert_same(effective(results[1].state), effective(results[0].state), 1e-6)
    # Without a method they do.
    assert max(merged(rule, louder).weights.values()) > 0.99


def test_trust_multiplies_with_hetloras_norms() -> None:
    rule = opened("hetlora")
    updates = cohort(rule, [1, 2, 3, RANK], 2)
    own = np.array([np.sqrt(sum(np.sum(p**2) for p in products(u.adapter).values())) for u in updates])
    raw = own * geometric_median(gram_matrix(*stored(updates)))
    _, result = defended(GEOMETRIC, rule, updates)
    assert [*result.weights.values()] == pytest.approx(raw / raw.sum(), rel=1e-5)


def trusted(name: str, trusts: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Aggregation weights without and with these trusts."""
    rule = opened(name)
    ranks = fitting(name, [1 + number % RANK for number in range(len(trusts))])
    refs, load = stored(cohort(rule, ranks, 3))
    by_ref = dict(zip(refs, trusts, strict=True))
    found = [
        aggregate(rule, refs, read).weights
        for read in (load, lambda ref: replace(load(ref), trust=by_ref[ref]))
    ]
    return np.array([*found[0].values()]), np.array([*found[1].values()])


@every_rule
def test_weight_of_every_rule_is_its_own_times_the_trust(name: str) -> None:
    trusts = [1.0, 0.25, 0.5, 0.125, 1.0]
    own, weights = trusted(name, trusts)
    assert weights == pytest.approx(own * trusts / (own @ trusts), rel=1e-6)


# rbla_guarded counts owners, and two are more than one.
@pytest.mark.parametrize("name", [name for name in CASES if name != "rbla_guarded"])
def test_update_of_half_the_trust_counts_twice_as_the_update_itself(name: str) -> None:
    rule = opened(name)
    updates = cohort(rule, fitting(name, [2, 3, RANK]), 4)
    half = [replace(updates[0], trust=0.5)] * 2
    whole = aggregate(rule, *stored(updates)).state
    assert_same(effective(aggregate(rule, *stored([*half, *updates[1:]])).state), effective(whole), 1e-5)
