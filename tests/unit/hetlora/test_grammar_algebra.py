from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from grammar_strategies import SMALL_INTEGERS, adapters, same_bits
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import (
    delta_norm,
    extended,
    module_delta_norm,
    module_tail_norm,
    pruned_rank,
    truncate,
    zero_pad,
)
from hetlora.errors import RankOutOfRange

SPEC = AdapterSpec((ModuleSpec("q", 3, 2), ModuleSpec("v", 2, 2)), scaling=2.0, max_rank=2)
ADAPTER = Adapter(
    SPEC,
    {
        "q": LoraFactors(np.array([[1, 0, 2], [0, 3, 4]]), np.array([[1, 0], [2, 5]])),
        "v": LoraFactors(np.array([[2, 1]]), np.array([[3], [0]])),
    },
)


def dense_delta_norm(adapter: Adapter) -> float:
    squares = [np.sum((f.lora_B.astype(float) @ f.lora_A.astype(float)) ** 2) for _, f in adapter]
    return math.sqrt(math.fsum(squares))


def scaled(adapter: Adapter, factor: float) -> Adapter:
    return Adapter(adapter.spec, {m.name: LoraFactors(f.lora_A, factor * f.lora_B) for m, f in adapter})


def test_truncate_keeps_leading_rows_and_columns() -> None:
    short = truncate(ADAPTER, 1)
    assert short.factors["q"].lora_A.tolist() == [[1, 0, 2]]
    assert short.factors["q"].lora_B.tolist() == [[1], [2]]
    assert short.factors["v"].lora_A.tolist() == [[2, 1]]  # had rank 1 already


def test_zero_pad_adds_zero_rows_and_columns_at_the_end() -> None:
    padded = zero_pad(ADAPTER, 2).factors["v"]
    assert padded.lora_A.tolist() == [[2, 1], [0, 0]]
    assert padded.lora_B.tolist() == [[3, 0], [0, 0]]


def test_extension_takes_what_lies_beyond_from_the_fresh_adapter() -> None:
    fresh = Adapter(
        ADAPTER.spec,
        {
            "q": LoraFactors(np.full((2, 3), 7), np.zeros((2, 2))),
            "v": LoraFactors(np.full((2, 2), 8), np.zeros((2, 2))),
        },
    )
    extended_v = extended(ADAPTER, fresh).factors["v"]
    assert extended_v.lora_A.tolist() == [[2, 1], [8, 8]]
    assert extended_v.lora_B.tolist() == [[3, 0], [0, 0]]
    assert extended(ADAPTER, fresh).factors["q"].lora_A.tolist() == ADAPTER.factors["q"].lora_A.tolist()
    with pytest.raises(RankOutOfRange, match="module q to begin with; got 2; expected up to 1"):
        extended(ADAPTER, truncate(fresh, 1))


@given(adapters(equal_ranks=True), st.data())
def test_zero_pad_then_truncate_is_the_identity(adapter: Adapter, data: st.DataObject) -> None:
    rank = data.draw(st.integers(adapter.rank, adapter.spec.max_rank))
    assert same_bits(truncate(zero_pad(adapter, rank), adapter.rank), adapter)


@given(adapters(), st.data())
def test_zero_pad_then_truncate_returns_every_module_at_the_largest_rank(
    adapter: Adapter, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(adapter.rank, adapter.spec.max_rank))
    assert same_bits(truncate(zero_pad(adapter, rank), adapter.rank), zero_pad(adapter, adapter.rank))


@given(adapters(), st.integers(0, 6), st.integers(0, 6))
def test_truncations_compose_as_the_minimum(adapter: Adapter, one: int, other: int) -> None:
    assert same_bits(truncate(truncate(adapter, one), other), truncate(adapter, min(one, other)))
    assert same_bits(truncate(truncate(adapter, one), one), truncate(adapter, one))


@given(adapters(), st.integers(0, 6))
def test_truncate_bounds_every_rank(adapter: Adapter, rank: int) -> None:
    assert truncate(adapter, rank).ranks == {name: min(own, rank) for name, own in adapter.ranks.items()}


@given(adapters())
def test_zero_pad_keeps_delta_norm(adapter: Adapter) -> None:
    assert delta_norm(zero_pad(adapter, adapter.spec.max_rank)) == delta_norm(adapter)


@pytest.mark.parametrize("rank", [1, 3])
def test_zero_pad_below_own_or_above_max_rank_is_refused(rank: int) -> None:
    with pytest.raises(RankOutOfRange, match="expected 2 to 2"):
        zero_pad(ADAPTER, rank)


def test_negative_rank_is_refused() -> None:
    with pytest.raises(RankOutOfRange):
        truncate(ADAPTER, -1)


def test_delta_norm_by_hand() -> None:
    # q: B A = [[1, 0, 2], [2, 15, 24]]: 1 + 4 + 4 + 225 + 576 = 810; v: B A = [[6, 3], [0, 0]]: 36 + 9 = 45
    assert module_delta_norm(ADAPTER.factors["q"]) == math.sqrt(810)
    assert delta_norm(ADAPTER) == pytest.approx(math.sqrt(855), rel=1e-15)


def test_delta_norm_never_forms_the_dense_product() -> None:
    # B A would be 200,000 x 200,000 ones, 320 GB; their norm is sqrt(200,000^2).
    ones = LoraFactors(np.ones((1, 200_000)), np.ones((200_000, 1)))
    assert module_delta_norm(ones) == 200_000


def test_delta_norm_of_rank_zero_is_zero() -> None:
    assert delta_norm(truncate(ADAPTER, 0)) == 0


@given(adapters(st.floats(-1000, 1000, width=32)))
def test_delta_norm_is_the_frobenius_norm_of_the_dense_product(adapter: Adapter) -> None:
    # Rounding is relative to ||B|| ||A||, which cancellation can leave far above ||B A||.
    squared_scale = sum(
        float(np.sum(f.lora_A.astype(float) ** 2) * np.sum(f.lora_B.astype(float) ** 2)) for _, f in adapter
    )
    assert abs(delta_norm(adapter) ** 2 - dense_delta_norm(adapter) ** 2) <= 1e-13 * squared_scale


@given(adapters(), st.integers(-8, 8))
def test_delta_norm_is_homogeneous(adapter: Adapter, factor: int) -> None:
    assert delta_norm(scaled(adapter, factor)) == pytest.approx(abs(factor) * delta_norm(adapter), rel=1e-14)


@given(st.integers(1, 4), st.data())
def test_delta_norm_does_not_depend_on_the_gauge(rank: int, data: st.DataObject) -> None:
    def integers(*shape: int) -> np.ndarray:
        return data.draw(hnp.arrays(np.float64, shape, elements=SMALL_INTEGERS))

    lora_A, lora_B = integers(rank, 4), integers(5, rank)
    gauge = np.eye(rank) + np.clip(np.triu(integers(rank, rank), 1), -2, 2)
    inverse = np.rint(
        np.linalg.inv(gauge)
    )  # a triangle of integers with ones on its diagonal: so is its inverse
    assert np.array_equal(gauge @ inverse, np.eye(rank))
    assert module_delta_norm(LoraFactors(inverse @ lora_A, lora_B @ gauge)) == module_delta_norm(
        LoraFactors(lora_A, lora_B)
    )


@given(adapters())
def test_delta_norm_of_large_values_does_not_overflow(adapter: Adapter) -> None:
    assume(delta_norm(adapter) > 0)
    large = Adapter(
        adapter.spec, {m.name: LoraFactors(f.lora_A * 2.0**120, f.lora_B * 2.0**120) for m, f in adapter}
    )
    assert delta_norm(large) == pytest.approx(2.0**240 * delta_norm(adapter), rel=1e-14)


@pytest.mark.parametrize("decay", ["0.5", "0.7", "0.85", "0.9", "0.95", "0.99", "1.0"])
def test_pruned_rank_is_the_floor_in_exact_arithmetic(decay: str) -> None:
    expected = [math.floor(Fraction(decay) * rank) for rank in range(1, 101)]
    assert [pruned_rank(rank, float(decay)) for rank in range(1, 101)] == expected


def test_tail_norm_by_hand() -> None:
    q, v = ADAPTER.factors["q"], ADAPTER.factors["v"]
    # q, keep 1: B tail [0, 5] has norm 5, A tail [0, 3, 4] has norm 5; v has no tail
    assert (module_tail_norm(q, 1), module_tail_norm(v, 1)) == (25, 0)
    # keep 0: q ||B|| = sqrt(1 + 4 + 25), ||A|| = sqrt(1 + 4 + 9 + 16), product 30; v 3 * sqrt(5)
    assert module_tail_norm(q, 0) == pytest.approx(30, rel=1e-15)
    assert module_tail_norm(v, 0) == pytest.approx(3 * math.sqrt(5), rel=1e-15)
    assert module_tail_norm(q, 2) == 0


@given(adapters(), st.integers(0, 6))
def test_tail_norm_bounds_what_truncation_takes_away(adapter: Adapter, keep: int) -> None:
    # B A - B[:, :k] A[:k] = B[:, k:] A[k:], and ||X Y|| <= ||X|| ||Y|| in each module
    short = truncate(adapter, keep)
    for module, own in adapter:
        left = short.factors[module.name]
        lost = float(np.linalg.norm(own.lora_B @ own.lora_A - left.lora_B @ left.lora_A))
        assert lost <= module_tail_norm(own, keep) * (1 + 1e-6)
