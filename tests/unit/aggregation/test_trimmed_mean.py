"""Trimmed mean and median by rank band: small numbers, a dense reference, and who owns a tail."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from cohorts import RANK, as_sent, cohort, seeds, settled, trained
from defended import defended, digest, plus, stored, stretched
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust import trimmed_mean as module
from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.robust.trimmed_mean import trimmed_mean
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.rules.fslora import FsLora
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from aggregator_service.aggregation.tree import aggregate
from hetlora.algebra import truncate
from hetlora.messages.defence import Defence
from hetlora.messages.rules import FsLoraRule, HetLoraRule, RblaRule, ResidualExactRule, ZeroPadRule

STATE = settled(RblaRule())
RULE = open_rule(RblaRule(), STATE)
TRIMMED = Defence(method="trimmed_mean")
MEDIAN = Defence(method="median")
few = settings(max_examples=25)


def column(*values: float) -> np.ndarray:
    return np.array(values)[:, None]


def test_the_ends_are_left_out() -> None:
    # (2 + 3 + 4) / 3, and (3 + 4) / 2.
    assert trimmed_mean(column(3, -100, 4, 2, 100), 1) == [3]
    assert trimmed_mean(column(3, -100, 4, 2, 100, 5), 2) == [3.5]
    assert trimmed_mean(column(1, 2, 6), 0) == [3]


def test_all_left_out_at_either_end_is_the_median() -> None:
    assert trimmed_mean(column(1, 9, 2), 3) == [2]
    assert trimmed_mean(column(1, 9, 2, 4), 2) == [3]


def by_hand(updates: list[Update], share: float, least: int) -> StackedAdapter:
    """What was sent at the run's rank, plus the trimmed mean over those who hold a rank, number by number."""
    result = STATE.adapter.with_values(STATE.adapter.values.astype(np.float64))
    for group, stack in enumerate(result):
        for rank in range(RANK):
            pairs = [
                ([*update.adapter][group], [*update.received][group])
                for update in updates
                if update.adapter.rank > rank and update.received is not None
            ]
            if len(pairs) < least:
                continue
            moved_A = [new.lora_A[:, rank].astype(float) - old.lora_A[:, rank] for new, old in pairs]
            moved_B = [new.lora_B[:, :, rank].astype(float) - old.lora_B[:, :, rank] for new, old in pairs]
            trim = min(math.ceil(share * len(updates) - 1e-9), (len(pairs) - 1) // 2)
            kept = slice(trim, len(pairs) - trim)
            stack.lora_A[:, rank] += np.mean(sorted_by_number(moved_A)[kept], axis=0)
            stack.lora_B[:, :, rank] += np.mean(sorted_by_number(moved_B)[kept], axis=0)
    return result


def sorted_by_number(arrays: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.array(arrays), axis=0)


@few
@given(
    ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=12),
    seed=seeds,
    share=st.sampled_from([0.0, 0.1, 0.2, 0.45]),
    quorum=st.integers(1, 5),
)
def test_every_rank_is_the_trimmed_mean_over_its_owners(
    ranks: list[int], seed: int, share: float, quorum: int
) -> None:
    updates = cohort(RULE, ranks, seed)
    defence = Defence(method="trimmed_mean", hostile_share=share, quorum=quorum)
    _, result = defended(defence, RULE, updates)
    expected = by_hand(updates, share, max(quorum, 3))
    np.testing.assert_allclose(result.state.adapter.values, expected.values, atol=1e-5)


@few
@given(ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=9), seed=seeds)
def test_median_is_over_the_owners_of_each_rank(ranks: list[int], seed: int) -> None:
    updates = cohort(RULE, ranks, seed)
    _, result = defended(MEDIAN, RULE, updates)
    np.testing.assert_allclose(result.state.adapter.values, by_hand(updates, 1.0, 3).values, atol=1e-5)


def tails(adapter: StackedAdapter) -> np.ndarray:
    """The last rank of every module."""
    return np.concatenate([np.r_[s.lora_A[:, -1].ravel(), s.lora_B[:, :, -1].ravel()] for s in adapter])


@pytest.mark.parametrize("defence", [TRIMMED, MEDIAN])
def test_ranks_that_a_minority_holds_are_not_erased(defence: Defence) -> None:
    # 3 of 11 hold the last rank and all move it alike; the median over all 11, zero-padded, is zero.
    narrow = cohort(RULE, [2] * 8, 1)
    wide = [trained(RULE.distribute(RANK), 5)] * 3
    _, result = defended(defence, RULE, [*narrow, *wide])
    np.testing.assert_allclose(tails(result.state.adapter), tails(wide[0].adapter), atol=1e-6)
    assert np.abs(tails(wide[0].adapter) - tails(STATE.adapter)).max() > 0.1


@pytest.mark.parametrize("defence", [TRIMMED, MEDIAN])
@pytest.mark.parametrize("count", [1, 2])
def test_rank_of_fewer_than_three_owners_does_not_move(defence: Defence, count: int) -> None:
    narrow = cohort(RULE, [2] * 5, 1)
    wide = [plus(as_sent(RULE.distribute(RANK)), 10, 10, seed) for seed in range(count)]
    _, result = defended(defence, RULE, [*narrow, *wide])
    np.testing.assert_array_equal(tails(result.state.adapter), tails(STATE.adapter))


def test_with_equal_ranks_zero_padding_and_hetlora_give_the_same_trimmed_mean() -> None:
    results = []
    for settings_ in (ZeroPadRule(), HetLoraRule(), RblaRule()):
        updates = cohort(RULE, [RANK] * 6, 2)
        updates[3] = stretched(updates[3], 1e4)
        results.append(defended(TRIMMED, open_rule(settings_, STATE), updates)[1].state.adapter.values)
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
    np.testing.assert_allclose(results[2], results[0], atol=1e-5)


def test_ranks_of_a_selection_are_those_of_the_global_adapter() -> None:
    # Three devices hold global rank 3 alone, at the first place of their adapter; two hold rank 0.
    rule = FsLora(FsLoraRule(), settled(FsLoraRule()))
    third = [trained(rule.sketch([3]), 1)] * 3
    first = [trained(rule.sketch([0]), 2)] * 2
    refs, load = stored([*third, *first])
    screened = defend(TRIMMED, refs, load)
    assert screened.common is not None
    moved = [np.abs(stack.lora_A).max(axis=(0, 2)) for stack in screened.common]
    assert all((own[:3] == 0).all() and own[3] > 0 for own in moved)


def test_unequal_ranks_of_modules_keep_their_own_owners() -> None:
    state = settled(ResidualExactRule())
    rule = open_rule(ResidualExactRule(allocate=True), state)
    updates = [trained(rule.distribute(2), seed) for seed in range(4)]
    assert updates[0].adapter.module_ranks is not None
    refs, load = stored(updates)
    screened = defend(TRIMMED, refs, load)
    treated = screened.treated(refs[0], load(refs[0])).adapter
    for before, after in zip(updates[0].adapter.ranks, treated.ranks, strict=True):
        np.testing.assert_array_equal(before, after)
    assert screened.common is not None
    for stack, ranks in zip(screened.common, treated.ranks, strict=True):
        beyond = np.arange(stack.rank) >= ranks[:, None]
        assert not stack.lora_A[beyond].any()
        assert stack.lora_A[~beyond].any()


def test_pruned_update_is_no_owner_of_the_ranks_that_it_gave_up() -> None:
    updates = cohort(RULE, [RANK] * 4, 1)
    pruned = [replace(own, adapter=stacked(truncate(unstacked(own.adapter), 1))) for own in updates[:2]]
    refs, load = stored([*pruned, *updates[2:]])
    screened = defend(TRIMMED, refs, load)
    assert screened.treated(refs[0], load(refs[0])).adapter.rank == 1
    assert screened.common is not None
    for stack in screened.common:
        assert stack.lora_A[:, 0].any()
        assert not stack.lora_A[:, 1:].any()


@few
@given(
    ranks=st.lists(st.integers(1, RANK), min_size=1, max_size=9),
    seed=seeds,
    random=st.randoms(use_true_random=False),
)
def test_order_of_arrival_changes_no_bit(ranks: list[int], seed: int, random: Random) -> None:
    refs, load = stored(cohort(RULE, ranks, seed))
    shuffled = list(refs)
    random.shuffle(shuffled)
    results = []
    for order in (refs, shuffled):
        screened = defend(TRIMMED, order, load)
        results.append(digest(aggregate(RULE, screened.refs, screened.loading(load)).state.adapter))
    assert results[0] == results[1]


def test_slabs_of_any_size_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = cohort(RULE, [1, 2, 3, RANK, RANK, RANK, 2], 3)
    _, whole = defended(TRIMMED, RULE, updates)
    monkeypatch.setattr(module, "SLAB_BYTES", 1)
    _, parts = defended(TRIMMED, RULE, updates)
    assert digest(parts.state.adapter) == digest(whole.state.adapter)


def test_clipped_updates_are_what_is_trimmed() -> None:
    # Of three, the median of each number lies between the others, wherever these are.
    updates = cohort(RULE, [RANK] * 3, 3)
    updates[0] = stretched(updates[0], 1e4)
    refs, load = stored(updates)
    clipped = defend(Defence(method="median", clip=True), refs, load)
    assert clipped.shares[refs[0]] < 1e-2
    plain = defend(MEDIAN, refs, load)
    assert clipped.common is not None
    assert plain.common is not None
    assert np.linalg.norm(clipped.common.values) < np.linalg.norm(plain.common.values)


def test_numbers_do_not_depend_on_claimed_examples() -> None:
    updates = cohort(RULE, [RANK, 3, RANK, RANK], 3)
    louder = [replace(updates[0], example_count=10**9), *updates[1:]]
    results = [defended(TRIMMED, RULE, one)[1].state.adapter.values for one in (updates, louder)]
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)


@dataclass(frozen=True)
class Stored:
    """A source of updates that can travel."""

    updates: dict[UpdateRef, Update]

    def load(self, ref: UpdateRef) -> Update:
        return self.updates[ref]


def test_workers_elsewhere_treat_updates_alike() -> None:
    refs, load = stored(cohort(RULE, [1, 2, 3, RANK, RANK, RANK], 3))
    screened = defend(Defence(method="trimmed_mean", clip=True, clip_factor=0.5), refs, load)
    source = screened.source(Stored({ref: load(ref) for ref in refs}))
    there = pickle.loads(pickle.dumps(source))
    for ref in refs:
        here, other = screened.treated(ref, load(ref)), there.load(ref)
        assert digest(here.adapter) == digest(other.adapter)
        assert (here.example_count, here.trust) == (other.example_count, other.trust)
