from __future__ import annotations

import numpy as np
import pytest
from cohorts import SPEC, random_adapter

from aggregator_service.aggregation.norms import squared_norms
from aggregator_service.aggregation.reading import UpdateReader
from aggregator_service.aggregation.slice_sum import SliceSum
from aggregator_service.aggregation.stacks import stacked
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import MalformedTensors, NonFiniteValues
from hetlora.tensors import adapter_to_bytes


@pytest.fixture(params=["read", "norms"])
def reader(request: pytest.FixtureRequest) -> UpdateReader:
    """A reader that knows the header of rank 2 already."""
    reader = UpdateReader(SPEC, request.param)
    reader.read(adapter_to_bytes(random_adapter(2, seed=0)))
    return reader


def with_last_number(value: float) -> bytes:
    data = adapter_to_bytes(random_adapter(2, seed=1))
    return data[:-4] + np.float32(value).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_number_that_is_not_finite_is_refused(reader: UpdateReader, value: float) -> None:
    with pytest.raises(NonFiniteValues, match="got 1 of"):
        reader.read(with_last_number(value))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_number_that_is_not_finite_is_left_to_the_sum_where_one_is_taken(value: float, weight: float) -> None:
    reader = UpdateReader(SPEC, "sum")
    good = reader.read(adapter_to_bytes(random_adapter(2, seed=0)))
    bad = reader.read(with_last_number(value))
    total = SliceSum.zero(SPEC, 2)
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(NonFiniteValues, match=f"got 1 of {bad.values.size}"),
    ):
        total.add([good, bad, good], [1.0, weight, 1.0])


def test_largest_numbers_of_float32_are_summed() -> None:
    largest = np.float32(3.4e38)
    adapter = stacked(random_adapter(2, seed=0))
    adapter = adapter.with_values(np.full_like(adapter.values, largest))
    total = SliceSum.zero(SPEC, 2)
    total.add([adapter] * 3, [1e15] * 3)
    assert np.isclose(total.values.values.max(), 3e15 * float(largest))


def test_number_that_is_not_finite_is_refused_where_the_other_factor_is_zero(reader: UpdateReader) -> None:
    data = bytearray(adapter_to_bytes(random_adapter(2, seed=1, scale=0.0)))
    data[-4:] = np.float32(np.nan).tobytes()
    with pytest.raises(NonFiniteValues, match="got 1 of"):
        reader.read(bytes(data))


def padded_with_blanks(data: bytes, blanks: int) -> bytes:
    size = int.from_bytes(data[:8], "little")
    return (size + blanks).to_bytes(8, "little") + data[8 : 8 + size] + b" " * blanks + data[8 + size :]


def test_header_filled_up_with_blanks_is_refused(reader: UpdateReader) -> None:
    # Blanks are legal in the format, and what is remembered of headers would grow with them.
    data = adapter_to_bytes(random_adapter(2, seed=1))
    reader.read(padded_with_blanks(data, 8))
    with pytest.raises(MalformedTensors, match="header of an adapter"):
        reader.read(padded_with_blanks(data, 8 * 1024 * len(SPEC.modules)))


def test_known_header_whose_length_is_given_otherwise_is_refused() -> None:
    reader = UpdateReader(SPEC)
    data = adapter_to_bytes(random_adapter(0, seed=1))
    reader.read(data)
    with pytest.raises(MalformedTensors):
        reader.read((len(data) + 800).to_bytes(8, "little") + data[8:])


def test_number_whose_square_passes_float32_is_read(reader: UpdateReader) -> None:
    # (3e38)^2 is infinite in float32, though 3e38 is not.
    assert reader.read(with_last_number(3e38)).values[-1] == np.float32(3e38)


@pytest.mark.parametrize("rank", range(SPEC.max_rank + 1))
def test_norms_are_those_of_the_products_at_every_rank(rank: int) -> None:
    reader = UpdateReader(SPEC, "norms")
    for seed in range(2):  # the second one comes with a header that is known
        adapter = random_adapter(rank, seed)
        read = reader.read(adapter_to_bytes(adapter))
        for stack, squares in zip(read, squared_norms(read), strict=True):
            dense = stack.lora_B.astype(np.float64) @ stack.lora_A.astype(np.float64)
            np.testing.assert_allclose(squares, np.sum(dense**2, axis=(1, 2)), rtol=1e-5)
    assert read.squared_norms is not None


def test_norms_of_wide_stacks_are_those_of_the_products() -> None:
    # Ranks above one block of a Gram matrix, odd ones too.
    for rank in (5, 8, 9, 13):
        spec = AdapterSpec((ModuleSpec("layers.0.q", 20, 30), ModuleSpec("layers.1.q", 20, 30)), 1.0, 16)
        adapter = stacked(random_adapter(rank, rank, spec))
        (stack,), (squares,) = adapter, squared_norms(adapter)
        dense = stack.lora_B.astype(np.float64) @ stack.lora_A.astype(np.float64)
        np.testing.assert_allclose(squares, np.sum(dense**2, axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize("ranks", [(3, 1, 3, 1, 2), (0, 4, 2, 4, 1), (1, 2, 3, 4, 0)])
def test_norms_are_those_of_the_products_where_modules_are_of_unequal_ranks(ranks: tuple[int, ...]) -> None:
    whole = random_adapter(SPEC.max_rank, seed=1)
    factors = {
        name: LoraFactors(own.lora_A[:rank], own.lora_B[:, :rank])
        for (name, own), rank in zip(whole.factors.items(), ranks, strict=True)
    }
    adapter = stacked(Adapter(SPEC, factors))
    for stack, squares in zip(adapter, squared_norms(adapter), strict=True):
        dense = stack.lora_B.astype(np.float64) @ stack.lora_A.astype(np.float64)
        np.testing.assert_allclose(squares, np.sum(dense**2, axis=(1, 2)), rtol=1e-5)
