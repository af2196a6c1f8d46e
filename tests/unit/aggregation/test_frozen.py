"""Folding products into the frozen adapter, against a full singular value decomposition."""

from __future__ import annotations

import numpy as np
from cohorts import SPEC, assert_same, cut, initial, products, random_adapter, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation.frozen import fold_sum
from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.stacks import StackedAdapter, stacked
from hetlora.adapter import Adapter, LoraFactors

ranks = st.integers(1, 4)


def some(rank: int, seed: int) -> StackedAdapter:
    return stacked(random_adapter(rank, seed))


def fold(rank: int, *adapters: StackedAdapter) -> StackedAdapter:
    """The sum of these products at a rank."""
    result, _ = fold_sum(SPEC, ProductStack([(own, 1.0) for own in adapters]), rank, 1.0)
    assert result is not None
    return result


@settings(max_examples=30)
@given(first=ranks, second=ranks, rank=st.integers(1, 9), seed=seeds)
def test_sum_is_cut_to_its_best_approximation(first: int, second: int, rank: int, seed: int) -> None:
    frozen, adapter = some(first, seed), some(second, seed + 1)
    whole = {name: own + products(adapter)[name] for name, own in products(frozen).items()}
    result = fold(rank, frozen, adapter)
    assert_same(products(result), cut(whole, rank))
    assert result.rank <= min(rank, first + second)


@given(seed=seeds)
def test_first_fold_keeps_what_fits(seed: int) -> None:
    adapter = some(3, seed)
    assert_same(products(fold(3, adapter)), products(adapter))


def test_factors_are_balanced_float32() -> None:
    result = fold(3, some(2, 1), some(2, 2))
    assert result.values.dtype == np.float32
    for stack in result:
        norms = np.linalg.norm(stack.lora_A, axis=2), np.linalg.norm(stack.lora_B, axis=1)
        np.testing.assert_allclose(*norms, rtol=1e-5)


def test_ranks_that_are_not_there_take_no_place() -> None:
    # An adapter as a run begins has a product of rank 0; one of rank 2 whose modules repeat a row has rank 1.
    adapter = random_adapter(2, 5)
    factors = {
        name: LoraFactors(np.repeat(own.lora_A[:1], 2, axis=0), own.lora_B)
        for name, own in adapter.factors.items()
    }
    assert fold_sum(SPEC, ProductStack([(stacked(initial()), 1.0)]), 4, 1.0) == (None, 0.0)
    assert fold(4, stacked(Adapter(SPEC, factors))).rank == 1


def test_modules_have_ranks_of_their_own() -> None:
    # layers.0.key keeps its two ranks, the rest none.
    adapter = random_adapter(2, 6)
    factors = {
        name: own if name == "layers.0.key" else LoraFactors(own.lora_A, np.zeros_like(own.lora_B))
        for name, own in adapter.factors.items()
    }
    result = fold(4, stacked(Adapter(SPEC, factors)))
    assert [own.tolist() for own in result.ranks] == [[2, 0], [0, 0], [0]]
    assert_same(products(result), products(stacked(Adapter(SPEC, factors))))


def test_sum_that_cancels_leaves_nothing_but_rounding() -> None:
    adapter = some(3, 7)
    opposite = adapter.with_values(adapter.values.copy())
    for stack in opposite:
        stack.lora_B[:] *= -1
    result, _ = fold_sum(SPEC, ProductStack([(adapter, 1.0), (opposite, 1.0)]), 4, 1.0)
    assert result is None
