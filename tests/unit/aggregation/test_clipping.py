"""Clipping: no change passes its limit, whatever its gauge; and what is left of an update that is cut."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import numpy as np
import pytest
from cohorts import (
    RANK,
    as_sent,
    assert_same,
    cohort,
    distance,
    effective,
    merged,
    products,
    ranks_of_cohorts,
    seeds,
    settled,
    trained,
)
from defended import change, changes, defended, digest, flat, plus, stored, stretched, turned
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust.clipping import limits_of
from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.robust.line import Line, at_share, line_of
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from aggregator_service.aggregation.tree import aggregate
from hetlora.algebra import truncate
from hetlora.messages.defence import Defence
from hetlora.messages.rules import FfaRule, FsLoraRule, HetLoraRule, ResidualExactRule, ZeroPadRule

RULE = open_rule(ResidualExactRule(), settled(ResidualExactRule()))
ALLOCATED = open_rule(ResidualExactRule(allocate=True), settled(ResidualExactRule()))
ZERO_PAD = open_rule(ZeroPadRule(weights="uniform"), settled(ZeroPadRule()))
CLIP = Defence(clip=True)
few = settings(max_examples=25)


def norm(update: Update) -> float:
    return float(np.linalg.norm(flat(change(update))))


def pruned(update: Update, rank: int) -> Update:
    return replace(update, adapter=stacked(truncate(unstacked(update.adapter), rank)))


@few
@given(rank=st.integers(1, RANK), keep=st.integers(0, RANK), seed=seeds, share=st.floats(0, 1))
def test_norm_along_the_line_is_that_of_the_dense_change(
    rank: int, keep: int, seed: int, share: float
) -> None:
    update = pruned(trained(RULE.distribute(rank), seed), keep)
    assert line_of(update).norm(share) == pytest.approx(norm(at_share(update, share)), rel=1e-4, abs=1e-6)


@few
@given(
    rank=st.integers(1, RANK),
    keep=st.integers(0, RANK),
    seed=seeds,
    factor=st.sampled_from([-100.0, -1.0, 0.5, 1.0, 1e4]),
    limit=st.floats(0.01, 10),
    turn=st.booleans(),
)
def test_no_change_passes_its_limit(
    rank: int, keep: int, seed: int, factor: float, limit: float, turn: bool
) -> None:
    update = stretched(trained(RULE.distribute(rank), seed), factor)
    update = turned(update, seed) if turn else pruned(update, keep)
    line = line_of(update)
    cut = at_share(update, line.share_within(limit, np.inf))
    assert norm(cut) <= limit * (1 + 1e-4) + 1e-4
    assert line.norm() <= limit or norm(cut) >= limit * (1 - 1e-4) - 1e-4


def test_change_within_its_limits_stays_as_it_came_to_the_bit() -> None:
    updates = cohort(RULE, [1, 2, 3, RANK, 2], 3)
    refs, load = stored(updates)
    screened = defend(Defence(clip=True, clip_factor=50), refs, load)
    for ref, update in zip(refs, updates, strict=True):
        assert screened.treated(ref, update).adapter is update.adapter


def test_device_that_learned_nothing_has_no_norm_at_all() -> None:
    update = as_sent(ALLOCATED.distribute(2))
    assert line_of(update) == Line(0.0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_where_one_factor_is_trained_the_direction_stays(share: float) -> None:
    # The change is linear in the factor that moved: B_0 + t dB gives t dB A_0.
    rule = open_rule(FfaRule(), settled(FfaRule()))
    update = trained(rule.distribute(3), 1)
    cut = at_share(update, share)
    assert_same(change(cut), {name: share * own for name, own in change(update).items()}, 1e-5)
    assert update.received is not None
    for stack, before in zip(cut.adapter, update.received, strict=True):
        np.testing.assert_array_equal(stack.lora_A, before.lora_A)


def test_clipped_update_keeps_its_rank_its_selection_and_the_ranks_of_its_modules() -> None:
    selected = trained(open_rule(FsLoraRule(), settled(FsLoraRule())).distribute(2, 5), 1)
    assert at_share(selected, 0.5).ranks == selected.ranks
    assert at_share(selected, 0.5).adapter.rank == 2
    uneven = trained(ALLOCATED.distribute(2), 2)
    assert uneven.adapter.module_ranks is not None
    for before, after in zip(uneven.adapter.ranks, at_share(uneven, 0.5).adapter.ranks, strict=True):
        np.testing.assert_array_equal(before, after)


def test_pruned_update_that_is_cut_takes_back_a_part_of_its_tail() -> None:
    # B_0 and A_0 at the rank that was pruned times 1 - t each, so that their product is (1 - t)^2 of theirs.
    update = pruned(as_sent(RULE.distribute(RANK)), RANK - 1)
    half = at_share(update, 0.5)
    assert half.adapter.rank == RANK
    assert update.received is not None
    tail = {name: 0.25 * own for name, own in tail_product(update.received).items()}
    kept = products(update.adapter)
    assert_same(products(half.adapter), {name: kept[name] + tail[name] for name in kept}, 1e-5)


def tail_product(adapter: StackedAdapter) -> dict[str, np.ndarray]:
    whole = unstacked(adapter)
    return {
        module.name: own.lora_B[:, -1:].astype(float) @ own.lora_A[-1:].astype(float) for module, own in whole
    }


def flat_line(norm: float, movement: float = 1.0) -> Line:
    """The line of an update of which one factor was trained: its norm is linear in the share."""
    return Line(norm**2, 0.0, 0.0, movement)


def test_limits_are_the_factor_times_the_medians() -> None:
    # Norms 1, 2, 9 have the median 2; movements 4, 1, 1 the median 1; counts 10, 10, 1000 the median 10.
    lines = [flat_line(1, 4), flat_line(2), flat_line(9)]
    limits = limits_of(lines, [10, 10, 1000], 1.5)
    assert (limits.norm, limits.movement, limits.example_count) == (3.0, 1.5, 15)
    # 9 is cut to 3, a third of the way; the first one's movement of 4 to 1.5, three eighths.
    shares = [line.share_within(limits.norm, limits.movement) for line in lines]
    assert shares == pytest.approx([0.375, 1.0, 1 / 3])


def test_where_most_learned_nothing_the_others_set_the_limits() -> None:
    # Norms 0, 0, 0, 3, 5: the median is 0, that of the two that are not is 4.
    lines = [flat_line(own, own) for own in (0.0, 0.0, 0.0, 3.0, 5.0)]
    assert limits_of(lines, [1] * 5, 1.0).norm == 4.0


def test_line_that_comes_back_is_cut_before_it_leaves() -> None:
    # (t^2 - t) squared: nothing changed at t = 1, but up to 1/4 in between, at t = 1/2.
    # The limit 3/16 is reached at t = 1/4, and at 3/4. All of the way is within the limit, and is taken.
    line = Line(linear=1.0, mixed=-1.0, quadratic=1.0, movement=1.0)
    assert line.norm(0.5) == 0.25
    assert line.share_within(3 / 16, np.inf) == 1.0
    # With movement up to 0.6 of the way: from there the last point within the limit lies at 1/4.
    assert line.share_within(3 / 16, 0.6) == pytest.approx(0.25)


def test_norms_that_are_all_zero_cut_nothing() -> None:
    updates = [as_sent(RULE.distribute(rank)) for rank in (1, 2, RANK)]
    refs, load = stored(updates)
    assert set(defend(CLIP, refs, load).shares.values()) == {1.0}


def test_update_100_times_as_large_has_no_more_weight_than_its_share_with_hetlora() -> None:
    rule = open_rule(HetLoraRule(), settled(HetLoraRule()))
    updates = cohort(rule, [2, 3, RANK, 2, 3, RANK], 1)
    updates[2] = stretched(updates[2], 100)
    weight = list(merged(rule, updates).weights.values())
    assert max(weight) > 0.9
    _, result = defended(CLIP, rule, updates)
    assert max(result.weights.values()) < 0.35


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_large_factors_of_a_small_change_move_the_result_no_further_than_others(scale: float) -> None:
    rule = ZERO_PAD
    honest = cohort(rule, [RANK] * 5, 3)
    sent = as_sent(rule.distribute(RANK))
    values = sent.adapter.with_values(sent.adapter.values.copy())
    for stack in values:
        stack.lora_B[:] *= scale
        stack.lora_A[:] /= scale
    hostile = replace(sent, adapter=values)
    assert norm(hostile) < 1e-3 * norm(honest[0])
    fair, harmed = merged(rule, honest).state, merged(rule, [*honest, hostile]).state
    _, clipped = defended(CLIP, rule, [*honest, hostile])

    def far(values: np.ndarray) -> float:
        return float(np.linalg.norm(values - fair.adapter.values) / np.linalg.norm(fair.adapter.values))

    assert far(harmed.adapter.values) > scale / 50
    assert far(clipped.state.adapter.values) < 0.3


def test_claimed_examples_are_cut_as_norms_are() -> None:
    claimed = zip(cohort(RULE, [2, 2, 3], 1), [10, 30, 10**9], strict=True)
    updates = [replace(update, example_count=count) for update, count in claimed]
    refs, load = stored(updates)
    screened = defend(CLIP, refs, load)
    # The median is 30, twice that 60.
    assert [screened.treated(ref, load(ref)).example_count for ref in refs] == [10, 30, 60]


@few
@given(ranks=ranks_of_cohorts, seed=seeds, random=st.randoms(use_true_random=False))
def test_order_of_arrival_changes_no_bit(ranks: list[int], seed: int, random: Random) -> None:
    updates = [stretched(update, 1 + number**2) for number, update in enumerate(cohort(RULE, ranks, seed))]
    refs, load = stored(updates)
    shuffled = list(refs)
    random.shuffle(shuffled)
    results = []
    for order in (refs, shuffled):
        screened = defend(CLIP, order, load)
        results.append(aggregate(RULE, screened.refs, screened.loading(load)))
    assert digest(results[0].state.adapter) == digest(results[1].state.adapter)
    assert results[0].weights == results[1].weights


def test_no_defence_is_no_change() -> None:
    updates = cohort(RULE, [1, 2, 3, RANK], 6)
    screened, result = defended(Defence(), RULE, updates)
    refs, load = stored(updates)
    assert digest(result.state.adapter) == digest(aggregate(RULE, refs, load).state.adapter)
    assert screened.figures(RANK) == {"left_out": 0.0, "shortened": 0.0}


def test_numbers_at_the_end_of_float32_are_cut_to_the_limit() -> None:
    updates = cohort(RULE, [2] * 5, 1)
    updates[0] = plus(updates[0], 1e37, 1e37)
    _, result = defended(CLIP, RULE, updates)
    honest = merged(RULE, updates[1:]).state
    # The limit is twice the median norm, and one of five updates reaches it.
    limit = 2 * float(np.median(np.linalg.norm(changes(updates), axis=1)))
    assert distance(effective(result.state), effective(honest)) < limit


def test_without_clipping_numbers_at_the_end_of_float32_are_the_result() -> None:
    updates = cohort(RULE, [2] * 5, 1)
    updates[0] = plus(updates[0], 1e37, 1e37)
    _, result = defended(Defence(clip=False), ZERO_PAD, updates)
    assert np.abs(result.state.adapter.values).max() > 1e35
