"""The Gram matrix of changes against dense products, and its laws."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from cohorts import RANK, as_sent, cohort, initial, ranks_of_cohorts, seeds, settled, trained
from defended import changes, stored, turned
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.robust import gram
from aggregator_service.aggregation.robust.gram import gram_matrix, products_with
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import truncate, zero_pad
from hetlora.errors import NonFiniteValues
from hetlora.messages.rules import FsLoraRule, ResidualExactRule

RULE = open_rule(ResidualExactRule(), settled(ResidualExactRule()))
few = settings(max_examples=25)


def gram_of(updates: list[Update]) -> np.ndarray:
    return gram_matrix(*stored(updates))


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@few
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_it_holds_the_inner_products_of_dense_changes(ranks: list[int], seed: int) -> None:
    updates = cohort(RULE, ranks, seed)
    dense = changes(updates)
    assert_close(gram_of(updates), dense @ dense.T, 1e-12)


@few
@given(ranks=ranks_of_cohorts, seed=seeds, turn=seeds)
def test_no_gauge_is_of_account(ranks: list[int], seed: int, turn: int) -> None:
    updates = cohort(RULE, ranks, seed)
    other = [turned(update, turn + number) for number, update in enumerate(updates)]
    # Turned factors are rounded to float32, at some ten times the size of what they cancel to.
    assert_close(gram_of(other), gram_of(updates), 1e-4)


@few
@given(ranks=ranks_of_cohorts, seed=seeds)
def test_padding_with_zeros_is_of_no_account(ranks: list[int], seed: int) -> None:
    updates = cohort(RULE, ranks, seed)
    padded = [
        replace(update, adapter=stacked(zero_pad(unstacked(update.adapter), RANK))) for update in updates
    ]
    assert_close(gram_of(padded), gram_of(updates), 1e-12)


def test_gauge_of_one_update_costs_the_others_no_digits() -> None:
    # B [1, 1e6; 0, 1]: the products of columns are a million times what they cancel to.
    updates = cohort(RULE, [2, 3, RANK], 1)
    factors = {}
    for module, own in unstacked(updates[0].adapter):
        shear = np.array([[1, 1e6], [0, 1]])
        factors[module.name] = LoraFactors(np.linalg.inv(shear) @ own.lora_A, own.lora_B @ shear)
    sheared = replace(updates[0], adapter=stacked(Adapter(updates[0].adapter.spec, factors)))
    dense = changes([sheared, *updates[1:]])
    expected = dense @ dense.T
    got = gram_of([sheared, *updates[1:]])
    assert_close(got[1:, 1:], expected[1:, 1:], 1e-12)
    assert_close(got[0, 1:], expected[0, 1:], 1e-9)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_update_that_is_not_finite_is_refused(number: float) -> None:
    updates = cohort(RULE, [2, 3, RANK], 1)
    updates[1].adapter.values[5] = number
    with pytest.raises(NonFiniteValues):
        gram_of(updates)


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = cohort(RULE, [1, 2, 3, RANK, 2, 2, 1], 4)
    whole = gram_of(updates)
    monkeypatch.setattr(gram, "BLOCK_RANKS", 1)
    assert_close(gram_of(updates), whole, 1e-13)
    monkeypatch.setattr(gram, "BLOCK_RANKS", 9)
    parts = gram_of(updates)
    assert_close(parts, whole, 1e-13)
    assert (parts == parts.T).all()


def test_change_of_a_device_that_learned_nothing_is_zero_to_the_bit() -> None:
    updates = [as_sent(RULE.distribute(rank)) for rank in (1, 2, RANK)]
    moved = trained(RULE.distribute(2), 5)
    found = gram_of([*updates, moved])
    assert not found[:3].any()
    assert not found[:, :3].any()
    assert found[3, 3] > 0


def test_rank_zero_changes_by_what_it_was_sent() -> None:
    # It sends nothing back: its change is minus what it had.
    sent = RULE.distribute(2).adapter
    nothing = Update(stacked(truncate(unstacked(sent), 0)), 1, sent)
    updates = [nothing, trained(RULE.distribute(3), 1)]
    dense = changes(updates)
    assert_close(gram_of(updates), dense @ dense.T, 1e-12)


def test_devices_that_were_sent_different_ranks_of_a_selection_are_compared() -> None:
    rule = open_rule(FsLoraRule(), settled(FsLoraRule()))
    updates = cohort(rule, [1, 2, 2, 3], 8)
    assert len({update.ranks for update in updates}) > 1
    dense = changes(updates)
    assert_close(gram_of(updates), dense @ dense.T, 1e-12)


def test_names_of_what_was_sent_change_nothing() -> None:
    updates = cohort(RULE, [2, 2, 3], 9)
    named = [replace(update, received_sha256=f"rank {update.adapter.rank}") for update in updates]
    assert (gram_of(named) == gram_of(updates)).all()


def test_products_with_one_update_are_its_row() -> None:
    updates = cohort(RULE, [2, RANK, 3, 1], 2)
    refs, load = stored(updates)
    assert_close(products_with(updates[1], refs, load), gram_of(updates)[1], 1e-12)


@few
@given(scale=st.floats(1e-18, 1e18), seed=seeds)
def test_no_scale_is_too_small_or_too_large(scale: float, seed: int) -> None:
    first = open_rule(ResidualExactRule(), first_state(ResidualExactRule(), initial()))
    updates = [
        replace(update, adapter=update.adapter.with_values(update.adapter.values * np.float32(scale)))
        for update in cohort(first, [1, 2, 3], seed)
    ]
    dense = changes(updates)
    assert_close(gram_of(updates), dense @ dense.T, 1e-12)


def test_memory_does_not_grow_with_the_cohort(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = AdapterSpec((ModuleSpec("wide", 256, 256),), scaling=1.0, max_rank=8)
    monkeypatch.setattr(gram, "BLOCK_BYTES", 8 * 8 * 512 * 4)  # four products of rank 8
    rule = open_rule(ResidualExactRule(), first_state(ResidualExactRule(), initial(spec=spec)))
    handout = rule.distribute(8)

    def peak(count: int) -> int:
        refs, _ = stored([as_sent(handout)] * count)
        tracemalloc.start()
        gram_matrix(refs, lambda ref: trained(handout, int(ref.sha256)))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used - 3 * 8 * count**2  # the matrix itself, and room for a copy

    peak(2)
    assert peak(48) < 1.3 * peak(8)
