"""The laws of architecture section 8, on random cohorts of unequal ranks."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service_bundle import SPEC, make_adapter, random_adapter

from aggregator_service.aggregation.hetlora import HetLora, HetLoraPartial
from aggregator_service.aggregation.tree import LEAF_SIZE, Aggregate, aggregate
from aggregator_service.commit import RULES
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import zero_pad
from hetlora.errors import RankOutOfRange
from hetlora.messages.management import RunSettings
from hetlora.tensors import adapter_to_bytes

WIDE = AdapterSpec((ModuleSpec("key", 6, 5), ModuleSpec("query", 4, 7)), scaling=1.0, max_rank=4)
RULE = HetLora(WIDE, 4)


@st.composite
def adapters(draw: st.DrawFn, min_rank: int = 0) -> Adapter:
    """A random adapter whose size varies over many orders of magnitude; now and then B is zero."""
    adapter = random_adapter(draw(st.integers(min_rank, 4)), draw(st.integers(0, 2**32 - 1)), WIDE)
    scale = draw(st.sampled_from([0.0, 1e-10, 1e-3, 1.0, 1e4]))
    return rescaled(adapter, scale)


def rescaled(adapter: Adapter, scale: float) -> Adapter:
    return Adapter(
        adapter.spec,
        {
            module.name: LoraFactors(factors.lora_A, factors.lora_B * np.float32(scale))
            for module, factors in adapter
        },
    )


cohorts = st.lists(adapters(), min_size=1, max_size=40)


def merged(cohort: list[Adapter], rule: HetLora = RULE) -> Aggregate:
    named = {hashlib.sha256(adapter_to_bytes(adapter)).hexdigest(): adapter for adapter in cohort}
    ids = [hashlib.sha256(adapter_to_bytes(adapter)).hexdigest() for adapter in cohort]
    return aggregate(rule, ids, named.__getitem__)


def dense_norm(adapter: Adapter) -> float:
    products = [factors.lora_B.astype(float) @ factors.lora_A.astype(float) for _, factors in adapter]
    return float(np.sqrt(sum(np.sum(product**2) for product in products)))


def assert_close(adapter: Adapter, expected: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for module, factors in adapter:
        expected_A, expected_B = expected[module.name]
        np.testing.assert_allclose(
            factors.lora_A, expected_A, rtol=1e-5, atol=1e-6 * np.abs(expected_A).max()
        )
        np.testing.assert_allclose(
            factors.lora_B, expected_B, rtol=1e-5, atol=1e-6 * np.abs(expected_B).max()
        )


def formula(cohort: list[Adapter], weights: list[float]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    padded = [zero_pad(adapter, 4) for adapter in cohort]

    def mean(tensors: list[np.ndarray]) -> np.ndarray:
        pairs = zip(weights, tensors, strict=True)
        return np.asarray(sum(weight * tensor.astype(float) for weight, tensor in pairs))

    return {
        module.name: (
            mean([adapter.factors[module.name].lora_A for adapter in padded]),
            mean([adapter.factors[module.name].lora_B for adapter in padded]),
        )
        for module in WIDE.modules
    }


@given(cohorts)
def test_aggregate_is_the_formula_over_the_list(cohort: list[Adapter]) -> None:
    norms = [dense_norm(adapter) for adapter in cohort]
    total = sum(norms)
    weights = [norm / total for norm in norms] if total > 0 else [1 / len(cohort)] * len(cohort)
    assert_close(merged(cohort).adapter, formula(cohort, weights))


@given(cohorts, st.randoms(use_true_random=False))
def test_order_of_arrival_changes_no_bit(cohort: list[Adapter], random: object) -> None:
    shuffled = list(cohort)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = merged(cohort), merged(shuffled)
    assert adapter_to_bytes(first.adapter) == adapter_to_bytes(second.adapter)
    assert first.weights == second.weights


def merged_by_shape(partials: list[HetLoraPartial]) -> HetLoraPartial:
    """The tree's shape, written as a recursion: the largest power of two of leaves, and the rest."""
    if len(partials) == 1:
        return partials[0]
    half = 1 << (len(partials) - 1).bit_length() - 1
    return RULE.merge(merged_by_shape(partials[:half]), merged_by_shape(partials[half:]))


@settings(max_examples=30)
@given(st.integers(1, 7 * LEAF_SIZE), st.integers(0, 2**32 - 1))
def test_leaves_summed_apart_and_merged_in_the_trees_shape_give_the_same_bits(size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.choice([0.0, 1e-10, 1.0, 1e4], size)
    cohort = [rescaled(random_adapter(1 + n % 4, seed + n, WIDE), scale) for n, scale in enumerate(scales)]
    by_id = {hashlib.sha256(adapter_to_bytes(adapter)).hexdigest(): adapter for adapter in cohort}
    ids = sorted(by_id)
    leaves: list[HetLoraPartial] = []
    raw: dict[str, float] = {}
    for start in range(0, len(ids), LEAF_SIZE):
        leaves.append(RULE.init())
        raw |= {id_: RULE.accumulate(leaves[-1], by_id[id_]) for id_ in ids[start : start + LEAF_SIZE]}
    total = merged_by_shape(leaves)
    whole = merged(list(by_id.values()))
    assert adapter_to_bytes(RULE.finish(total)) == adapter_to_bytes(whole.adapter)
    # Weights are float64, where the factors' last bits are lost to float32.
    assert {id_: RULE.weight(total, value) for id_, value in raw.items()} == whole.weights


@given(cohorts, cohorts)
def test_partials_of_two_halves_merge_to_the_whole(left: list[Adapter], right: list[Adapter]) -> None:
    halves = []
    for half in (left, right):
        partial = RULE.init()
        for adapter in half:
            RULE.accumulate(partial, adapter)
        halves.append(partial)
    whole = RULE.init()
    for adapter in left + right:
        RULE.accumulate(whole, adapter)
    expected = {
        module.name: (factors.lora_A.astype(float), factors.lora_B.astype(float))
        for module, factors in RULE.finish(whole)
    }
    assert_close(RULE.finish(RULE.merge(*halves)), expected)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20), st.integers(1, 4))
def test_equal_ranks_and_norms_give_the_plain_mean(seeds: list[int], rank: int) -> None:
    raw = [random_adapter(rank, seed, WIDE) for seed in seeds]
    cohort = [rescaled(adapter, 1 / dense_norm(adapter)) for adapter in raw]
    assert_close(merged(cohort).adapter, formula(cohort, [1 / len(cohort)] * len(cohort)))


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_cohort_of_zero_norms_gives_the_plain_mean(seeds: list[int]) -> None:
    cohort = [rescaled(random_adapter(1 + seed % 4, seed, WIDE), 0.0) for seed in seeds]
    result = merged(cohort)
    assert_close(result.adapter, formula(cohort, [1 / len(cohort)] * len(cohort)))
    assert set(result.weights.values()) == {1 / len(cohort)}


@given(adapters(min_rank=1))
def test_one_client_gets_its_own_factors_back_exactly(adapter: Adapter) -> None:
    result = merged([adapter])
    padded = zero_pad(adapter, 4)
    for module, factors in result.adapter:
        np.testing.assert_array_equal(factors.lora_A, padded.factors[module.name].lora_A)
        np.testing.assert_array_equal(factors.lora_B, padded.factors[module.name].lora_B)
    assert list(result.weights.values()) == [1.0]


@given(st.lists(adapters(min_rank=1), min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_client_without_a_delta_has_no_say(cohort: list[Adapter], seed: int) -> None:
    cohort = [adapter for adapter in cohort if dense_norm(adapter) > 0] or [random_adapter(2, seed, WIDE)]
    idle = rescaled(random_adapter(4, seed, WIDE), 0.0)
    result = merged([*cohort, idle])
    expected = {
        module.name: (factors.lora_A.astype(float), factors.lora_B.astype(float))
        for module, factors in merged(cohort).adapter
    }
    assert_close(result.adapter, expected)
    assert 0.0 in result.weights.values()


@given(cohorts)
def test_weights_of_a_cohort_sum_to_one(cohort: list[Adapter]) -> None:
    unique = list({adapter_to_bytes(adapter): adapter for adapter in cohort}.values())
    assert sum(merged(unique).weights.values()) == pytest.approx(1.0)


def test_merge_weighs_by_norm_and_pads_by_zeros() -> None:
    # ||B A||_F over both modules of ones (2 x 3 and 3 x 2): rank * sqrt(12), so the weights are 1/3 and 2/3.
    result = merged([make_adapter(1, 1.0), make_adapter(2, 1.0)], HetLora(SPEC, 2))
    np.testing.assert_allclose(
        result.adapter.factors["query"].lora_B, [[1, 2 / 3], [1, 2 / 3], [1, 2 / 3]], rtol=1e-6
    )


def test_equal_updates_count_each() -> None:
    # Norms sqrt(12), sqrt(12) and 4 * sqrt(12) (both factors doubled): (1 + 1 + 4 * 2) / 6 = 5/3.
    result = merged([make_adapter(1), make_adapter(1), make_adapter(1, 2.0)], HetLora(SPEC, 2))
    np.testing.assert_allclose(result.adapter.factors["key"].lora_A[0], [5 / 3] * 3, rtol=1e-6)


def test_every_rule_that_a_run_may_name_is_there() -> None:
    assert set(RULES) == set(get_args(RunSettings.model_fields["rule"].annotation))


def test_update_wider_than_the_run_is_refused() -> None:
    rule = HetLora(SPEC, 1)
    with pytest.raises(RankOutOfRange):
        rule.accumulate(rule.init(), make_adapter(2))


def test_memory_does_not_grow_with_the_cohort() -> None:
    spec = AdapterSpec((ModuleSpec("key", 512, 512),), scaling=1.0, max_rank=8)
    rule = HetLora(spec, 8)
    partial_bytes = 2 * 512 * 8 * 8

    def peak_bytes(cohort: int) -> int:
        tracemalloc.start()
        ids = [f"{number:06}" for number in range(cohort)]
        aggregate(rule, ids, lambda update_id: random_adapter(8, int(update_id), spec))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    # 4 leaves keep at most 4 partials and 64 leaves at most 8. Beside them an id and a weight for each
    # update, some 200 bytes; the 960 updates more, kept, would be 31 MB.
    growth_bytes = peak_bytes(64 * LEAF_SIZE) - peak_bytes(4 * LEAF_SIZE)
    assert growth_bytes < 5 * partial_bytes + 960 * 200
