"""HetLoRA's aggregation against the formula, on random cohorts of unequal ranks and sizes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from cohorts import RANK, SPEC, initial, merged, random_adapter
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.stacks import StackedAdapter, stacked, unstacked
from aggregator_service.aggregation.tree import LEAF_SIZE, Aggregate, aggregate
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.algebra import zero_pad
from hetlora.messages.rules import HetLoraRule

MODEL, MODULE = HetLoraRule(), HetLoraRule(weights="module")


@st.composite
def adapters(draw: st.DrawFn, min_rank: int = 0) -> Adapter:
    """A random adapter whose size varies over many orders of magnitude; now and then B is zero."""
    scale = draw(st.sampled_from([0.0, 1e-10, 1e-3, 1.0, 1e4]))
    return random_adapter(draw(st.integers(min_rank, RANK)), draw(st.integers(0, 2**32 - 1)), scale=scale)


cohorts = st.lists(adapters(), min_size=1, max_size=40)


def aggregated(cohort: list[Adapter], rule: HetLoraRule = MODEL) -> Aggregate:
    return merged(open_rule(rule, first_state(rule, initial())), [Update(stacked(own)) for own in cohort])


def rescaled(adapter: Adapter, scale: float) -> Adapter:
    return Adapter(
        adapter.spec,
        {
            module.name: LoraFactors(factors.lora_A, factors.lora_B * np.float32(scale))
            for module, factors in adapter
        },
    )


def module_norms(adapter: Adapter) -> dict[str, float]:
    return {
        module.name: float(np.linalg.norm(factors.lora_B.astype(float) @ factors.lora_A.astype(float)))
        for module, factors in adapter
    }


def dense_norm(adapter: Adapter) -> float:
    return float(np.linalg.norm(list(module_norms(adapter).values())))


def assert_formula(result: Aggregate, cohort: list[Adapter], weights: list[dict[str, float]]) -> None:
    """Zero-padded factors, averaged in float64 with these weights, by client and module."""
    padded = [zero_pad(adapter, RANK) for adapter in cohort]
    for module, factors in unstacked(result.state.adapter):
        for name in ("lora_A", "lora_B"):
            tensors = [getattr(adapter.factors[module.name], name).astype(float) for adapter in padded]
            shares = [own[module.name] for own in weights]
            expected = np.sum([share * one for share, one in zip(shares, tensors, strict=True)], axis=0)
            np.testing.assert_allclose(
                getattr(factors, name), expected, rtol=1e-5, atol=3e-6 * np.abs(expected).max()
            )


def shares(values: list[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values] if total > 0 else [1 / len(values)] * len(values)


@given(cohorts)
def test_aggregate_is_the_formula_over_the_list(cohort: list[Adapter]) -> None:
    weights = shares([dense_norm(adapter) for adapter in cohort])
    by_module = [dict.fromkeys(SPEC.by_name, weight) for weight in weights]
    assert_formula(aggregated(cohort), cohort, by_module)


@given(cohorts)
def test_aggregate_by_module_is_the_formula_in_each_module(cohort: list[Adapter]) -> None:
    norms = [module_norms(adapter) for adapter in cohort]
    by_name = {name: shares([own[name] for own in norms]) for name in SPEC.by_name}
    weights = [{name: by_name[name][number] for name in SPEC.by_name} for number in range(len(cohort))]
    assert_formula(aggregated(cohort, MODULE), cohort, weights)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(1, RANK))
def test_equal_ranks_and_norms_give_the_plain_mean(seeds: list[int], rank: int) -> None:
    raw = [random_adapter(rank, seed) for seed in seeds]
    cohort = [rescaled(adapter, 1 / dense_norm(adapter)) for adapter in raw]
    even = dict.fromkeys(SPEC.by_name, 1 / len(cohort))
    assert_formula(aggregated(cohort), cohort, [even] * len(cohort))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_cohort_of_zero_norms_gives_the_plain_mean(seeds: list[int]) -> None:
    cohort = [random_adapter(1 + seed % RANK, seed, scale=0.0) for seed in seeds]
    result = aggregated(cohort)
    assert_formula(result, cohort, [dict.fromkeys(SPEC.by_name, 1 / len(cohort))] * len(cohort))
    assert set(result.weights.values()) == {1 / len(cohort)}


@given(adapters(min_rank=1))
def test_one_client_gets_its_own_factors_back_exactly(adapter: Adapter) -> None:
    result, padded = aggregated([adapter]), zero_pad(adapter, RANK)
    for module, factors in unstacked(result.state.adapter):
        np.testing.assert_array_equal(factors.lora_A, padded.factors[module.name].lora_A)
        np.testing.assert_array_equal(factors.lora_B, padded.factors[module.name].lora_B)
    assert list(result.weights.values()) == [1.0]


@given(st.lists(adapters(min_rank=1), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_client_without_a_delta_has_no_say(cohort: list[Adapter], seed: int) -> None:
    cohort = [adapter for adapter in cohort if dense_norm(adapter) > 0] or [random_adapter(2, seed)]
    idle = random_adapter(RANK, seed, scale=0.0)
    result, without = aggregated([*cohort, idle]), aggregated(cohort)
    np.testing.assert_allclose(
        result.state.adapter.values, without.state.adapter.values, rtol=1e-5, atol=1e-30
    )
    assert 0.0 in result.weights.values()


def ones(rank: int, scale: float = 1.0) -> Adapter:
    """All ones times `scale` in every factor of a 2 x 3 and a 3 x 2 module."""
    spec = AdapterSpec((ModuleSpec("key", 3, 2), ModuleSpec("query", 2, 3)), scaling=2.0, max_rank=2)
    return Adapter(
        spec,
        {
            module.name: LoraFactors(
                np.full((rank, module.in_features), scale), np.full((module.out_features, rank), scale)
            )
            for module in spec.modules
        },
    )


def merged_ones(*cohort: Adapter) -> Adapter:
    state = first_state(MODEL, initial_adapter(cohort[0].spec, 2, np.random.default_rng(0)))
    updates = [Update(stacked(adapter)) for adapter in cohort]
    return unstacked(merged(open_rule(MODEL, state), updates).state.adapter)


def test_merge_weighs_by_norm_and_pads_by_zeros() -> None:
    # ||B A||_F over both modules of ones (2 x 3 and 3 x 2): rank * sqrt(12), so the weights are 1/3 and 2/3.
    result = merged_ones(ones(1), ones(2))
    np.testing.assert_allclose(
        result.factors["query"].lora_B, [[1, 2 / 3], [1, 2 / 3], [1, 2 / 3]], rtol=1e-6
    )


def test_equal_updates_count_each() -> None:
    # Norms sqrt(12), sqrt(12) and 4 * sqrt(12) (both factors doubled): (1 + 1 + 4 * 2) / 6 = 5/3.
    result = merged_ones(ones(1), ones(1), ones(1, 2.0))
    np.testing.assert_allclose(result.factors["key"].lora_A[0], [5 / 3] * 3, rtol=1e-6)


def test_norm_is_right_where_the_factors_cancel() -> None:
    # Each entry of B A is 1 - (1 - 2^-20): float32 Gram matrices hold no digit of its norm, 2^-20 sqrt(6).
    spec = AdapterSpec((ModuleSpec("key", 3, 2),), scaling=1.0, max_rank=2)
    near = np.float32(1 - 2**-20)
    cancelling = Adapter(
        spec,
        {"key": LoraFactors(np.array([[1.0] * 3, [near] * 3]), np.array([[1.0, -1.0], [1.0, -1.0]]))},
    )
    [squares] = squared_norms(stacked(cancelling))
    assert np.sqrt(squares.sum()) == pytest.approx(2**-20 * 6**0.5, rel=1e-6)


def test_memory_does_not_grow_with_the_cohort() -> None:
    spec = AdapterSpec((ModuleSpec("key", 512, 512),), scaling=1.0, max_rank=8)
    rule = open_rule(MODEL, first_state(MODEL, initial_adapter(spec, 8, np.random.default_rng(0))))
    partial_bytes = 2 * 512 * 8 * 8

    def load(ref: UpdateRef) -> Update:
        values = np.random.default_rng(int(ref.sha256)).standard_normal(2 * 512 * 8, np.float32)
        return Update(StackedAdapter(spec, values, stacked(initial_adapter(spec, 8, rng)).layout))

    rng = np.random.default_rng(0)

    def peak_bytes(cohort: int) -> int:
        tracemalloc.start()
        aggregate(rule, [UpdateRef(f"{number:06}") for number in range(cohort)], load)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # 2 leaves keep two partials at most, 12 leaves three. Beside them a ref and a weight for each update,
    # some 600 bytes; the 1,280 updates more, kept, would be 42 MB.
    growth_bytes = peak_bytes(12 * LEAF_SIZE) - peak_bytes(2 * LEAF_SIZE)
    assert growth_bytes < 2 * partial_bytes + 1280 * 600
