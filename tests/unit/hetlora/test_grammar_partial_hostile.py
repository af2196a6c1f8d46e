"""Whatever arrives as part of an adapter ends in an adapter or in an error of our tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import InputError, MalformedTensors, NonFiniteValues, RankOutOfRange, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial import contract, expand
from hetlora.partial_tensors import cores_from_bytes, cores_to_bytes
from hetlora.plan_adapter import frozen_from_bytes, sent_from_bytes, sent_tensors, sparse_tensors
from hetlora.stored_tensors import tensors_to_bytes

SPEC = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), scaling=2.0, max_rank=2)
K, Q = "base_model.model.k", "base_model.model.q"
K_A, K_B = f"{K}.lora_A.weight", f"{K}.lora_B.weight"


def adapter(value: float) -> Adapter:
    return Adapter(
        SPEC,
        {
            "k": LoraFactors(np.full((2, 3), value), np.full((2, 2), value)),
            "q": LoraFactors(np.full((1, 2), value), np.full((4, 1), value)),
        },
    )


RECEIVED = adapter(1)
SPARSE = Adaptation(upload_density=0.5)
SELECTED = Adaptation(selected_ranks=2)
ONE = Adaptation(trained="lora_B")
CORE = Adaptation(trained="core")
INT8 = Adaptation(upload_precision="int8")
INT8_SPARSE = Adaptation(upload_precision="int8", upload_density=0.5)
FLOAT16 = Adaptation(upload_precision="float16", trained="lora_B")
SQUARE = Adapter(
    SPEC,
    {m.name: LoraFactors(np.ones((2, m.in_features)), np.ones((m.out_features, 2))) for m in SPEC.modules},
)
GOOD = {
    "sparse": (SPARSE, contract(adapter(2), SPARSE, RECEIVED)),
    "selected": (SELECTED, contract(adapter(2), SELECTED, RECEIVED)),
    "one": (ONE, contract(adapter(2), ONE, RECEIVED)),
    "int8": (INT8, contract(adapter(2), INT8, RECEIVED)),
    "int8 sparse": (INT8_SPARSE, contract(adapter(2), INT8_SPARSE, RECEIVED)),
    "float16": (FLOAT16, contract(adapter(2), FLOAT16, RECEIVED)),
}


def refused(kind: str, change: Mapping[str, Any]) -> InputError:
    """What the good file is answered with once tensors in it are replaced, or taken out where None."""
    adaptation, data = GOOD[kind]
    tensors = {**load(data), **{key: value for key, value in change.items()}}
    kept = {key: np.asarray(value) for key, value in tensors.items() if value is not None}
    with pytest.raises(InputError) as caught:
        expand(save(kept), SPEC, adaptation, RECEIVED)
    return caught.value


def positions(*numbers: int, dtype: str = "uint32") -> np.ndarray:
    return np.array(numbers, dtype)


def scales(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def quantised(*values: int) -> np.ndarray:
    """Ranks of lora_A of k, each of one number."""
    return np.array([[value] * 3 for value in values], np.int8)


def test_good_files_are_read() -> None:
    for adaptation, data in GOOD.values():
        expand(data, SPEC, adaptation, RECEIVED)


@pytest.mark.parametrize(
    ("kind", "change", "error"),
    [
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 3, 5)}, MalformedTensors),
        ("sparse", {f"{K_A}.positions": positions(1, 0, 2, 3, 4, 5)}, MalformedTensors),
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 4, 6)}, SpecMismatch),
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 4, 2**32 - 1)}, SpecMismatch),
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 4)}, SpecMismatch),
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 4, 5, dtype="int64")}, MalformedTensors),
        ("sparse", {f"{K_A}.positions": positions(0, 1, 2, 3, 4, 5).reshape(2, 3)}, MalformedTensors),
        ("sparse", {f"{K_A}.positions": None}, SpecMismatch),
        ("sparse", {K_A: None}, SpecMismatch),
        ("sparse", {K_A: np.full(6, np.nan, np.float32)}, NonFiniteValues),
        ("sparse", {K_A: np.full(6, np.float32(3.4e38))}, None),
        ("sparse", {K_A: np.ones((2, 3), np.float32)}, SpecMismatch),
        ("sparse", {K_A: np.ones(6)}, MalformedTensors),
        ("sparse", {f"{K}.ranks": positions(0, dtype="int32")}, SpecMismatch),
        ("sparse", {f"{K_B}.positions": positions(0, 1), K_B: np.ones(2, np.float32)}, None),
        ("selected", {f"{K}.ranks": positions(0, 0, dtype="int32")}, MalformedTensors),
        ("selected", {f"{K}.ranks": positions(-1, 1, dtype="int32")}, MalformedTensors),
        ("selected", {f"{K}.ranks": positions(2, dtype="int32")}, RankOutOfRange),
        ("selected", {f"{K}.ranks": positions(0)}, MalformedTensors),
        ("selected", {f"{K}.ranks": positions(dtype="int32")}, SpecMismatch),
        ("selected", {f"{K}.ranks": positions(0, 1, dtype="int32")}, RankOutOfRange),
        ("selected", {f"{K}.ranks": None}, SpecMismatch),
        ("selected", {f"{Q}.ranks": positions(1, dtype="int32")}, RankOutOfRange),
        ("selected", {K_A: np.full((1, 3), np.inf, np.float32)}, NonFiniteValues),
        ("one", {K_A: np.ones((2, 3), np.float32)}, SpecMismatch),
        ("one", {K_B: np.ones((2, 3), np.float32)}, RankOutOfRange),
        ("one", {K_B: np.ones((3, 2), np.float32)}, SpecMismatch),
        ("one", {K_B: np.ones(2, np.float32)}, SpecMismatch),
        ("one", {K_B: None}, SpecMismatch),
        ("one", {K_B: np.full((2, 2), np.nan, np.float32)}, NonFiniteValues),
        ("one", {"surprise": np.ones(1, np.float32)}, SpecMismatch),
        ("int8", {f"{K_A}.scales": scales([np.nan], [1])}, NonFiniteValues),
        ("int8", {f"{K_A}.scales": scales([np.inf], [1])}, NonFiniteValues),
        ("int8", {f"{K_A}.scales": scales([-1], [1])}, MalformedTensors),
        ("int8", {f"{K_A}.scales": scales([0], [1])}, MalformedTensors),  # of numbers that are not zero
        ("int8", {f"{K_A}.scales": scales([3e38], [1])}, NonFiniteValues),  # 127 of it passes float32
        ("int8", {f"{K_A}.scales": scales([1], [1]), K_A: quantised(-128, 0)}, MalformedTensors),
        ("int8", {f"{K_A}.scales": scales([1], [1]).astype(np.float16)}, MalformedTensors),
        ("int8", {f"{K_A}.scales": scales([1])}, SpecMismatch),
        ("int8", {f"{K_A}.scales": scales([1, 1])}, SpecMismatch),  # those of lora_B lie so
        ("int8", {f"{K_A}.scales": np.ones(2, np.float32)}, SpecMismatch),
        ("int8", {f"{K_A}.scales": None}, SpecMismatch),
        ("int8", {K_A: None}, SpecMismatch),
        ("int8", {K_A: None, f"{K_A}.scales": None}, SpecMismatch),
        ("int8", {K_A: np.ones((2, 3), np.float32)}, MalformedTensors),
        ("int8", {K_A: np.ones((2, 1), np.int8)}, SpecMismatch),  # which would fit any width
        ("int8", {K_A: quantised(1, 1, 1), f"{K_A}.scales": scales([1], [1], [1])}, RankOutOfRange),
        ("int8", {K_A: quantised(1), f"{K_A}.scales": scales([1])}, SpecMismatch),  # lora_B has rank 2
        ("int8", {K_A: np.ones(6, np.int8), f"{K_A}.scales": np.ones(1, np.float32)}, SpecMismatch),
        ("int8", {K_A: np.array(1, np.int8)}, SpecMismatch),
        ("int8", {f"{K}.core": np.ones((2, 2), np.float32)}, SpecMismatch),
        ("int8", {K_A: quantised(0, 0), f"{K_A}.scales": scales([0], [1])}, None),
        ("int8 sparse", {f"{K_A}.scales": np.ones(2, np.float32)}, SpecMismatch),
        ("int8 sparse", {f"{K_A}.scales": scales([1])}, SpecMismatch),
        ("int8 sparse", {f"{K_A}.scales": np.full(1, np.nan, np.float32)}, NonFiniteValues),
        ("int8 sparse", {f"{K_A}.positions": None}, SpecMismatch),
        ("float16", {K_B: np.ones((2, 2), np.float32)}, MalformedTensors),
        ("float16", {K_B: np.full((2, 2), np.inf, np.float16)}, NonFiniteValues),
        ("float16", {K_B: np.ones((1, 2), np.float16)}, SpecMismatch),  # which would fit any width
        ("float16", {f"{K_B}.scales": scales([1, 1])}, SpecMismatch),
    ],
)
def test_update_that_is_not_what_was_asked_for_is_refused(
    kind: str, change: dict[str, Any], error: type[InputError] | None
) -> None:
    if error is None:  # as hostile as it looks, it is an adapter
        adaptation, data = GOOD[kind]
        expand(save({**load(data), **change}), SPEC, adaptation, RECEIVED)
    else:
        assert type(refused(kind, change)) is error


def test_more_entries_than_asked_for_are_refused() -> None:
    data = contract(adapter(2), Adaptation(upload_density=0.6), RECEIVED)
    # 16 entries: 8 may come, 10 did.
    with pytest.raises(SpecMismatch, match="too many entries in an update; got 10; expected up to 8"):
        expand(data, SPEC, SPARSE, RECEIVED)


def test_change_that_passes_float32_is_refused() -> None:
    huge = adapter(3e38)
    adaptation, data = GOOD["sparse"]
    tensors = {
        key: np.full_like(tensor, 3e38) if key.endswith("weight") else tensor
        for key, tensor in load(data).items()
    }
    with pytest.raises(NonFiniteValues):
        expand(save(tensors), SPEC, adaptation, huge)


@pytest.mark.parametrize(
    ("cores", "error"),
    [
        ({"k": np.ones((2, 2))}, SpecMismatch),
        ({"k": np.ones((2, 2)), "q": np.ones((1, 1))}, SpecMismatch),
        ({"k": np.ones((2, 2)), "q": np.ones((2, 2)), "v": np.ones((2, 2))}, SpecMismatch),
        ({"k": np.ones((2, 2)), "q": np.full((2, 2), np.nan)}, NonFiniteValues),
    ],
)
def test_cores_that_do_not_fit_are_refused(cores: dict[str, Any], error: type[InputError]) -> None:
    data = cores_to_bytes({name: core.astype(np.float32) for name, core in cores.items()})
    with pytest.raises(error):
        cores_from_bytes(data, SPEC, 2)
    with pytest.raises(error):
        expand(data, SPEC, CORE, SQUARE)


def test_cores_between_factors_of_unequal_ranks_are_refused() -> None:
    data = cores_to_bytes({"k": np.ones((2, 2), np.float32), "q": np.ones((2, 2), np.float32)})
    with pytest.raises(SpecMismatch, match="factors of one rank"):
        expand(data, SPEC, CORE, RECEIVED)


def test_core_whose_product_passes_float32_is_refused() -> None:
    data = cores_to_bytes({name: np.full((2, 2), 3e38, np.float32) for name in ("k", "q")})
    with pytest.raises(NonFiniteValues):
        expand(data, SPEC, CORE, SQUARE)


def test_adapter_of_another_specification_cannot_complete_an_update() -> None:
    other = AdapterSpec(SPEC.modules, scaling=3.0, max_rank=2)
    with pytest.raises(SpecMismatch, match="not of the specification"):
        expand(GOOD["one"][1], other, ONE, RECEIVED)


@pytest.mark.parametrize(
    "change",
    [
        {f"{K}.ranks": positions(1, 2, dtype="int32")},
        {f"{K}.ranks": np.arange(3, dtype=np.int32)},
        {f"{K}.ranks": np.arange(100_000, dtype=np.int32)},
        {f"{K}.ranks": None},
        {f"{K_A}.positions": positions(0, 1, 2, 3, 4, 9)},
        {f"{K}.core": np.ones((2, 2), np.float32)},
    ],
)
def test_sparse_adapter_that_does_not_fit_is_refused(change: dict[str, Any]) -> None:
    tensors = {**load(tensors_to_bytes(sparse_tensors(RECEIVED, 1.0))), **change}
    data = save({key: tensor for key, tensor in tensors.items() if tensor is not None})
    with pytest.raises(SpecMismatch):
        sent_from_bytes(data, SPEC)


def test_plan_with_cores_for_some_modules_or_of_another_rank_is_refused() -> None:
    for cores in ({"k": np.ones((2, 2))}, {"k": np.ones((2, 2)), "q": np.ones((2, 2))}):
        with pytest.raises(SpecMismatch):
            sent_from_bytes(
                tensors_to_bytes(
                    sent_tensors(RECEIVED, {name: core.astype(np.float32) for name, core in cores.items()})
                ),
                SPEC,
            )


@pytest.mark.parametrize(
    "shapes", [((2, 3), (2, 3)), ((2, 2), (2, 2)), ((2, 3), (3, 2)), ((6,), (2, 2)), ((), (2, 2))]
)
def test_frozen_factors_of_other_shapes_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    tensors = {K_A: np.ones(shapes[0], np.float32), K_B: np.ones(shapes[1], np.float32)}
    tensors |= {
        f"{Q}.lora_A.weight": np.ones((0, 2), np.float32),
        f"{Q}.lora_B.weight": np.ones((4, 0), np.float32),
    }
    with pytest.raises(SpecMismatch):
        frozen_from_bytes(tensors_to_bytes(tensors), SPEC)


READERS: list[Callable[[bytes], object]] = [
    lambda data: expand(data, SPEC, SPARSE, RECEIVED),
    lambda data: expand(data, SPEC, SELECTED, RECEIVED),
    lambda data: expand(data, SPEC, ONE, RECEIVED),
    lambda data: expand(data, SPEC, CORE, SQUARE),
    lambda data: expand(data, SPEC, INT8, RECEIVED),
    lambda data: expand(data, SPEC, INT8_SPARSE, RECEIVED),
    lambda data: expand(data, SPEC, FLOAT16, RECEIVED),
    lambda data: sent_from_bytes(data, SPEC),
    lambda data: frozen_from_bytes(data, SPEC),
]


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 10_000))
def test_damaged_bytes_are_read_or_refused(kind: str, place: int, flip: int, cut: int) -> None:
    data = bytearray(GOOD[kind][1])
    data[place % len(data)] ^= flip
    for damaged in (bytes(data), bytes(data[: cut % len(data)])):
        for read in READERS:
            with suppress(InputError):
                read(damaged)
