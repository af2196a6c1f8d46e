"""Updates in float16 and int8: how far numbers are rounded, and that both sides read the same of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from grammar_strategies import adapters, same_bits
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor
from hetlora.algebra import truncate
from hetlora.errors import NonFiniteValues, RankOutOfRange
from hetlora.messages.device import Adaptation, Plan, TrainingSettings
from hetlora.partial import contract, expand
from hetlora.partial_tensors import max_partial_bytes
from hetlora.rounding import bytes_per_rank, dequantised, rounded, scales_key
from hetlora.sent_parts import at_precision
from hetlora.tensors import max_adapter_bytes, to_tensors

SPEC = AdapterSpec((ModuleSpec("k", 3, 2),), scaling=2.0, max_rank=2)
KEY = "base_model.model.k.lora_A.weight"
KEYS = st.sampled_from([KEY, "base_model.model.k.lora_B.weight"])
# Within these no sum of a few passes float32.
MODERATE = st.floats(-(2.0**100), 2.0**100, width=32)
FORMS: dict[str, dict[str, Any]] = {
    "whole": {},
    "one factor": {"trained": "lora_A"},
    "private": {"private_lora_B": True},
    "sparse": {"upload_density": 0.5},
    "selected": {"selected_ranks": 2},
}


def factors(shape: st.SearchStrategy[tuple[int, int]]) -> st.SearchStrategy[Tensor]:
    return shape.flatmap(lambda sizes: hnp.arrays(np.float32, sizes, elements=MODERATE))


SHAPES = st.tuples(st.integers(0, 4), st.integers(1, 4))


def with_tensors(adapter: Adapter, change: Any) -> Adapter:
    return Adapter(
        adapter.spec,
        {name: LoraFactors(change(own.lora_A), change(own.lora_B)) for name, own in adapter.factors.items()},
    )


@given(key=KEYS, tensor=factors(SHAPES))
def test_int8_is_within_half_a_step_of_its_rank(key: str, tensor: Tensor) -> None:
    tensor = tensor.T if "lora_B" in key else tensor
    made = rounded({key: tensor}, "int8")
    numbers, scales = made[key].astype(np.float64), made[scales_key(key)].astype(np.float64)
    assert made[key].dtype == np.int8
    assert (np.abs(numbers) <= 127).all()
    assert scales.shape == ((1, tensor.shape[1]) if "lora_B" in key else (len(tensor), 1))
    assert (np.abs(numbers * scales - tensor) <= scales / 2).all()
    read = np.asarray(dequantised(made)[key])
    assert read.dtype == np.float32
    assert (read == made[key].astype(np.float32) * made[scales_key(key)]).all()


@given(key=KEYS, tensor=factors(SHAPES))
def test_step_of_int8_is_the_largest_number_of_a_rank_by_127(key: str, tensor: Tensor) -> None:
    scales = rounded({KEY: tensor}, "int8")[scales_key(KEY)][:, 0]
    largest = np.abs(tensor).max(axis=1)
    exact = largest.astype(np.float64) / 127
    above = exact.astype(np.float32) + 2 * np.spacing(exact.astype(np.float32))
    assert ((scales >= exact) & (scales <= above)).all()


def test_int8_rounds_to_the_nearest_of_its_rank() -> None:
    tensor = np.array([[127, -63.4, 0.6], [0, 0, 0], [-254, 1.1, 0.9]], np.float32)
    made = rounded({KEY: tensor}, "int8")
    assert made[KEY].tolist() == [[127, -63, 1], [0, 0, 0], [-127, 1, 0]]
    assert made[scales_key(KEY)].tolist() == [[1], [0], [2]]


def test_entries_of_a_sparse_change_share_one_scale() -> None:
    made = rounded({KEY: np.array([254, -125], np.float32), f"{KEY}.positions": np.arange(2)}, "int8")
    assert made[KEY].tolist() == [127, -62]  # -62.5 goes to the even one
    assert made[scales_key(KEY)].tolist() == [2]
    assert made[f"{KEY}.positions"].tolist() == [0, 1]


@given(factors(SHAPES).map(lambda tensor: tensor / np.float32(2.0**86)))
def test_float16_is_the_nearest_one(tensor: Tensor) -> None:
    made = rounded({KEY: tensor}, "float16")[KEY]
    gap = np.spacing(np.abs(made)).astype(np.float64)
    assert (np.abs(made.astype(np.float64) - tensor) <= gap / 2).all()


@pytest.mark.parametrize("value", [65_520.0, -1e30, np.inf, np.nan])
def test_number_that_float16_does_not_reach_is_refused_and_never_infinite(value: float) -> None:
    with pytest.raises(NonFiniteValues, match="float16 does not reach"):
        rounded({KEY: np.array([[1, value]], np.float32)}, "float16")
    assert rounded({KEY: np.array([[65_519]], np.float32)}, "float16")[KEY].tolist() == [[65_504]]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_number_that_is_not_finite_has_no_scale(value: float) -> None:
    with pytest.raises(NonFiniteValues, match="not finite"):
        rounded({KEY: np.array([[1, value]], np.float32)}, "int8")


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("form", FORMS)
@given(received=adapters(), move=st.sampled_from([2.0, -1.0, 0.0]))
def test_change_of_numbers_that_lie_on_steps_comes_back_to_the_bit(
    form: str, precision: Any, received: Adapter, move: float
) -> None:
    # Changes by 127 halves or nothing, which any scale of theirs holds.
    after = with_tensors(received, lambda tensor: tensor + np.float32(move * 63.5) * (tensor > 0))
    adaptation = Adaptation(**FORMS[form], upload_precision=precision)
    got = expand(contract(after, adaptation, received), received.spec, adaptation, received)
    plain = Adaptation(**FORMS[form])
    assert same_bits(got, expand(contract(after, plain, received), received.spec, plain, received))


@pytest.mark.parametrize("precision", ["float16", "int8"])
@given(received=adapters(), rank=st.integers(0, 5))
def test_pruned_factors_come_back_at_their_rank(precision: Any, received: Adapter, rank: int) -> None:
    adaptation = Adaptation(upload_precision=precision)
    kept = truncate(received, rank)
    data = contract(kept, adaptation, received)
    assert same_bits(expand(data, received.spec, adaptation, received), kept)  # nothing changed
    assert len(data) <= max_partial_bytes(received.spec)


def test_change_of_more_ranks_than_received_cannot_be_told() -> None:
    wide = Adapter(SPEC, {"k": LoraFactors(np.ones((2, 3)), np.ones((2, 2)))})
    with pytest.raises(RankOutOfRange, match="ranks of a change"):
        contract(wide, Adaptation(upload_precision="int8"), truncate(wide, 1))


def test_int8_takes_a_byte_a_number_and_a_scale_a_rank() -> None:
    spec = AdapterSpec((ModuleSpec("k", 384, 384), ModuleSpec("q", 384, 384)), scaling=2.0, max_rank=8)
    whole = Adapter(spec, {name: LoraFactors(np.ones((8, 384)), np.ones((384, 8))) for name in "kq"})
    numbers = 8 * 2 * (384 + 384)
    sizes: dict[Any, int] = {"float32": 4 * numbers, "float16": 2 * numbers, "int8": numbers + 4 * 8 * 2 * 2}
    for precision, expected in sizes.items():
        data = contract(whole, Adaptation(upload_precision=precision), truncate(whole, 8))
        assert sum(tensor.nbytes for tensor in load(data).values()) == expected
        assert 8 * bytes_per_rank(spec, 4 * spec.parameters_per_rank, precision) == expected
        assert len(data) <= max_adapter_bytes(spec)


def test_zeros_alone_need_no_step() -> None:
    still = Adapter(SPEC, {"k": LoraFactors(np.ones((2, 3)), np.ones((2, 2)))})
    tensors = load(contract(still, Adaptation(upload_precision="int8"), still))
    assert not any(tensor.any() for tensor in tensors.values())
    assert to_tensors(still).keys() < tensors.keys()


def test_change_that_passes_float32_is_refused() -> None:
    low, high = (
        Adapter(SPEC, {"k": LoraFactors(np.full((1, 3), value), np.zeros((2, 1)))}) for value in (-3e38, 3e38)
    )
    with pytest.raises(NonFiniteValues):
        contract(high, Adaptation(upload_precision="int8"), low)


def test_precision_is_left_out_of_messages_that_ask_for_none() -> None:
    for message in (Adaptation(), TrainingSettings()):
        assert not {"upload_precision", "error_feedback"} & message.model_dump().keys()
    asked = Adaptation(upload_precision="int8", error_feedback=True).model_dump()
    assert (asked["upload_precision"], asked["error_feedback"]) == ("int8", True)
    assert Plan.model_fields["adaptation"].default == Adaptation()


@pytest.mark.parametrize(
    ("adaptation", "same_coordinates", "fed_back"),
    [
        (Adaptation(), True, True),
        (Adaptation(), False, False),
        (Adaptation(trained="lora_B"), True, True),
        (Adaptation(private_lora_B=True), True, True),
        (Adaptation(ranks=(0, 2)), True, False),
        (Adaptation(selected_ranks=2), True, False),
        (Adaptation(upload_density=0.5), True, False),
    ],
)
def test_rounding_is_fed_back_where_numbers_mean_the_same_in_the_next_round(
    adaptation: Adaptation, same_coordinates: bool, fed_back: bool
) -> None:
    asked = at_precision(adaptation, "int8", same_coordinates=same_coordinates)
    assert (asked.upload_precision, asked.error_feedback) == ("int8", fed_back)
    assert Adaptation.model_validate(asked.model_dump()) == asked
    assert at_precision(adaptation, "float32", same_coordinates=same_coordinates) == adaptation
