"""Sums of products, kept as a stack or as a sketch, against dense sums."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from cohorts import RANK, SPEC, Dense, assert_same, cut, distance, products, random_adapter, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator_service.aggregation import products as sums
from aggregator_service.aggregation import sketch
from aggregator_service.aggregation.products import ProductStack, ProductSum, merge_products, zero_products
from aggregator_service.aggregation.rule import Update, UpdateRef
from aggregator_service.aggregation.rules import first_state, open_rule
from aggregator_service.aggregation.sketch import ProductSketch, range_of
from aggregator_service.aggregation.spectrum import Spectrum
from aggregator_service.aggregation.stacks import StackedAdapter, groups_of, stacked
from aggregator_service.aggregation.tree import LEAF_SIZE, aggregate
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.errors import NonFiniteValues
from hetlora.messages.rules import FlexLoraRule

# Wide enough for a sketch to be narrower than the product: at rank 2 its range is 8 of 40.
WIDE = AdapterSpec((ModuleSpec("a", 60, 40), ModuleSpec("b", 40, 60)), scaling=1.0, max_rank=16)
BEYOND_THE_STACK = sums.STACK_BYTES  # a total of ranks that no stack may hold

Kind = Callable[[], ProductSum]

kinds = pytest.mark.parametrize(
    "kind", [ProductStack, lambda: ProductSketch.zero(SPEC, RANK)], ids=["stack", "sketch"]
)


def some(count: int, seed: int, spec: AdapterSpec = SPEC, rank: int = RANK) -> list[StackedAdapter]:
    ranks = [1 + number % rank for number in range(count)]
    return [stacked(random_adapter(own, seed + number, spec)) for number, own in enumerate(ranks)]


def weighted(adapters: list[StackedAdapter], weights: list[float]) -> Dense:
    denses = [products(adapter) for adapter in adapters]
    return {
        name: np.sum([weight * dense[name] for dense, weight in zip(denses, weights, strict=True)], axis=0)
        for name in denses[0]
    }


def by_name(spec: AdapterSpec, spectra: list[list[Spectrum]]) -> dict[str, Spectrum]:
    return {
        name: one
        for group, found in zip(groups_of(spec), spectra, strict=True)
        for name, one in zip(group.names, found, strict=True)
    }


def dense_of(spec: AdapterSpec, total: ProductSum, rank: int) -> Dense:
    found = by_name(spec, [*total.spectra(rank)])
    return {name: (one.left * one.values) @ one.right for name, one in found.items()}


@kinds
@settings(max_examples=15)
@given(count=st.integers(1, 12), seed=seeds, rank=st.integers(1, RANK))
def test_leading_triplets_are_those_of_the_dense_sum(kind: Kind, count: int, seed: int, rank: int) -> None:
    # A range of 4 ranks is all that these small modules have: their sketch is exact, whatever M is.
    adapters, weights = some(count, seed), [0.5 + number for number in range(count)]
    total = kind()
    total.add(adapters, weights)
    whole = weighted(adapters, weights)
    assert_same(dense_of(SPEC, total, rank), cut(whole, rank), 1e-6)
    for name, one in by_name(SPEC, [*total.spectra(9)]).items():
        assert one.energy == pytest.approx(np.sum(whole[name] ** 2), rel=1e-6)
        assert one.error <= 1e-6 * np.sqrt(one.energy)


@kinds
def test_weights_may_differ_by_module(kind: Kind) -> None:
    adapters = some(2, 3)
    total = kind()
    # SPEC's groups are the two keys, the two queries, and the output.
    total.add(adapters, [[np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0])], 10.0])
    scales = {
        "layers.0.key": 1, "layers.1.key": 2, "layers.0.query": 3, "layers.1.query": 4, "out": 5,
    }  # fmt: skip
    first, second = map(products, adapters)
    expected = {name: scales[name] * first[name] + 10 * second[name] for name in first}
    assert_same(dense_of(SPEC, total, 9), expected, 1e-6)
    halved = total.scaled([np.array([0.5, 0.5]), np.array([0.5, 0.5]), np.array([0.0])])
    half = {name: (0 if name == "out" else 0.5) * matrix for name, matrix in expected.items()}
    assert_same(dense_of(SPEC, halved, 9), half, 1e-6)


@kinds
def test_image_of_a_product_is_taken_without_it(kind: Kind) -> None:
    adapters = some(5, 8)
    total = kind()
    total.add(adapters, [1.0] * 5)
    rng = np.random.default_rng(0)
    rights = [rng.standard_normal((len(group), group.in_features, 3)) for group in groups_of(SPEC)]
    whole = weighted(adapters, [1.0] * 5)
    for group, right, found in zip(groups_of(SPEC), rights, total.images(rights), strict=True):
        for name, columns, (image, energy) in zip(group.names, right, found, strict=True):
            np.testing.assert_allclose(image, whole[name] @ columns, atol=1e-9)
            # W tells it within its own chance: l is 10 and more, so 2 is some four standard deviations.
            assert energy == pytest.approx(
                np.sum(whole[name] ** 2), rel=2.0 if kind is not ProductStack else 1e-9
            )


@kinds
def test_partials_that_are_merged_are_the_sum_of_both(kind: Kind) -> None:
    adapters, weights = some(9, 4), [1.0 + number for number in range(9)]
    whole, left, right = kind(), kind(), kind()
    whole.add(adapters, weights)
    left.add(adapters[:4], weights[:4])
    right.add(adapters[4:], weights[4:])
    merged = merge_products(left, right)
    assert_same(dense_of(SPEC, merged, RANK), dense_of(SPEC, whole, RANK), 1e-9)


def sketched(
    adapters: list[StackedAdapter], rank: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> ProductSketch:
    monkeypatch.setattr(sketch, "SKETCH_SEED", seed)
    total = ProductSketch.zero(WIDE, rank)
    total.add(adapters, [1.0] * len(adapters))
    return total


@pytest.mark.parametrize("width", [1, 4, 8])
def test_sketch_is_exact_where_the_rank_is_within_its_range(width: int) -> None:
    assert range_of(groups_of(WIDE)[0], 2) == 8
    adapters = [stacked(random_adapter(1, seed, WIDE)) for seed in range(width)]
    total = ProductSketch.zero(WIDE, 2)
    total.add(adapters, [1.0] * width)
    whole = weighted(adapters, [1.0] * width)
    assert_same(dense_of(WIDE, total, 8), whole, 1e-6)
    assert_same(dense_of(WIDE, total, 2), cut(whole, 2), 1e-6)


def test_sketch_is_not_exact_beyond_its_range() -> None:
    adapters = [stacked(random_adapter(1, seed, WIDE)) for seed in range(30)]
    total = ProductSketch.zero(WIDE, 2)
    total.add(adapters, [1.0] * 30)
    whole = weighted(adapters, [1.0] * 30)
    best = cut(whole, 2)
    assert distance(dense_of(WIDE, total, 2), best) > 0.01 * distance(
        best, {name: 0 * m for name, m in best.items()}
    )


@pytest.mark.parametrize("count", [12, 60])
def test_error_of_the_sketch_stays_under_its_bound_in_expectation_and_is_told(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = [stacked(random_adapter(1, seed, WIDE, scale=0.8**seed)) for seed in range(count)]
    whole = weighted(adapters, [1.0] * count)
    best = cut(whole, 2)
    errors: dict[str, list[float]] = {name: [] for name in whole}
    told: dict[str, list[float]] = {name: [] for name in whole}
    for seed in range(40):
        total = sketched(adapters, 2, seed, monkeypatch)
        found = by_name(WIDE, [*total.spectra(2)])
        for name, one in found.items():
            errors[name].append(float(np.linalg.norm(whole[name] - (one.left * one.values) @ one.right)))
            told[name].append(one.error)
    for name, matrix in whole.items():
        tail = float(np.linalg.norm(matrix - best[name]))
        # The theorem's bound and the cut's: r = 2, q = 8, l = 16: f(q, l) = 8 / (16 - 8 - 1) = 8/7 and
        # f(r, q) = 2 / (8 - 2 - 1) = 2/5, so that it is 1 + 2 sqrt(15/7 * 7/5) = 1 + 2 sqrt(3).
        # 40 draws: the mean is known to some 3 % of the error, and the bound has three times its room.
        assert tail <= np.mean(errors[name]) <= (1 + 2 * 3**0.5) * tail
        # What is told is the mean square, over 16 rows and 40 draws.
        assert np.mean(np.square(told[name])) == pytest.approx(np.mean(np.square(errors[name])), rel=0.15)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("factor", ["lora_A", "lora_B"])
def test_number_that_is_not_finite_shows_in_a_sketch(factor: str, value: float) -> None:
    (adapter,) = some(1, 3, WIDE)
    getattr([*adapter][1], factor)[0, 0, 0] = value
    total = ProductSketch.zero(WIDE, 2)
    with np.errstate(invalid="ignore"):
        total.add([adapter], [1.0])
        with pytest.raises(NonFiniteValues):
            [*total.spectra(2)]
        with pytest.raises(NonFiniteValues):
            [*total.images([np.ones((1, group.in_features, 2)) for group in groups_of(WIDE)])]


def test_stack_turns_into_a_sketch_where_it_would_pass_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    # 63 numbers a rank, of 4 bytes each: 10 ranks take 2,520 bytes.
    assert SPEC.parameters_per_rank == 63
    monkeypatch.setattr(sums, "STACK_BYTES", 2_520)
    assert isinstance(zero_products(SPEC, RANK, 10), ProductStack)
    assert isinstance(zero_products(SPEC, RANK, 11), ProductSketch)


def test_rules_give_the_same_on_either_side_of_the_switch() -> None:
    # RANK 4 has a range of 16, and no module of SPEC has more than 8: the sketch is exact.
    state = first_state(FlexLoraRule(), random_adapter(RANK, 1))
    updates = {UpdateRef(f"{number}"): Update(own) for number, own in enumerate(some(40, 2))}
    results = [
        aggregate(open_rule(FlexLoraRule(), state, total), [*updates], updates.__getitem__).state.adapter
        for total in (0, BEYOND_THE_STACK)
    ]
    assert_same(products(results[1]), products(results[0]), 1e-5)


def test_memory_stays_flat_over_two_thousand_updates() -> None:
    state = first_state(FlexLoraRule(), random_adapter(8, 1, WIDE))
    rule = open_rule(FlexLoraRule(), state, BEYOND_THE_STACK)
    values = some(8, 5, WIDE, 8)

    def load(ref: UpdateRef) -> Update:
        own = values[int(ref.sha256) % 8]
        return Update(own.with_values(own.values.copy()))

    def peak(count: int) -> int:
        tracemalloc.start()
        aggregate(rule, [UpdateRef(f"{number:06d}") for number in range(count)], load)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(LEAF_SIZE)
    few, many = peak(4 * LEAF_SIZE), peak(2_000)
    # As a stack, 2,000 updates of 4.5 ranks in the mean would take 2,000 * 200 * 4.5 * 4 bytes, 7 MB. At most
    # six partials of 0.09 MB are alive, and the updates' names stay.
    assert many - few < 1_000_000


def test_module_whose_sketch_would_be_no_smaller_is_kept_whole() -> None:
    # Rank 4, q = 16, l + t = 48: of 40 x 60 the sketch would have 40 * 16 + 48 * 60 = 3520 numbers, M 2400.
    total = ProductSketch.zero(WIDE, 4)
    assert [len(own[0].ravel()) for own in total.ranges] == [2400, 2400]
    assert sum(own.size for own in total.rows) == 0
    adapters = [stacked(random_adapter(8, seed, WIDE)) for seed in range(5)]
    total.add(adapters, [1.0, 2.0, 3.0, 4.0, 5.0])
    whole = weighted(adapters, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert_same(dense_of(WIDE, total, 40), whole, 1e-6)
    # At rank 2 it has 40 * 8 + 32 * 60 = 2240.
    assert ProductSketch.zero(WIDE, 2).rows[0].shape == (1, 32, 60)
