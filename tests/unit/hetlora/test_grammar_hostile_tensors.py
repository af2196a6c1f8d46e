"""Whatever bytes arrive, reading them ends in an adapter of the specification or in an InputError."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import (
    InputError,
    MalformedTensors,
    NonFiniteValues,
    RankOutOfRange,
    SpecMismatch,
)
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes

SPEC = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), scaling=2.0, max_rank=2)
GOOD = adapter_to_bytes(
    Adapter(
        SPEC,
        {
            "k": LoraFactors(np.ones((2, 3)), np.ones((2, 2))),
            "q": LoraFactors(np.ones((1, 2)), np.ones((4, 1))),
        },
    )
)
HEADER_END = 8 + struct.unpack("<Q", GOOD[:8])[0]
KEYS = sorted(load(GOOD))
K_A, K_B, Q_A, Q_B = KEYS


def with_header(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def one_tensor(dtype: str, shape: list[Any], size_bytes: int) -> bytes:
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, size_bytes]}
    return with_header({K_A: entry}, bytes(size_bytes))


def changed(**tensors: np.ndarray | None) -> bytes:
    """The good file with tensors put in the place of k's and q's factors, or taken out."""
    names = {"k_A": K_A, "k_B": K_B, "q_A": Q_A, "q_B": Q_B}
    found = dict(load(GOOD)) | {names.get(key, key): tensor for key, tensor in tensors.items()}
    return save({key: np.ascontiguousarray(tensor) for key, tensor in found.items() if tensor is not None})


def outcome(data: bytes) -> Adapter | InputError:
    try:
        return adapter_from_bytes(data, SPEC)
    except InputError as error:
        return error


def must_read_or_refuse(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, InputError):
        assert str(found).isprintable()
        assert len(str(found)) < 2000
    else:
        assert all(np.isfinite(f.lora_A).all() and np.isfinite(f.lora_B).all() for _, f in found)


NOT_SAFETENSORS = {
    "nothing": b"",
    "seven bytes": bytes(7),
    "header of no bytes": with_header(b""),
    "header longer than the file": with_header(b"{}", length=100),
    "header of 2^63 bytes": with_header(b"{}", length=2**63),
    "header of 2^64 - 1 bytes": with_header(b"{}", length=2**64 - 1),
    "header ends inside the JSON": with_header({"a": 1}, length=3),
    "list": with_header([1, 2]),
    "null": with_header(b"null"),
    "not UTF-8": with_header(b"\xff\xfe{}"),
    "lone surrogate": with_header(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
    "deep nesting": with_header(b"[" * 100_000),
    "metadata of numbers": with_header({"__metadata__": {"format": 1}}),
    "bytes that no tensor claims": with_header({}, b"junk"),
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x04evil\x94.",
    "zip": b"PK\x03\x04" + bytes(60),
    "truncated by one byte": GOOD[:-1],
    "one byte too many": GOOD + b"\0",
    "offsets run backwards": with_header(
        {K_A: {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, bytes(4)
    ),
    "offsets past the end": with_header(
        {K_A: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4)
    ),
    "offsets overlap": with_header(
        {
            K_A: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            K_B: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        },
        bytes(4),
    ),
    "unknown dtype": one_tensor("F33", [1], 4),
    "bfloat16": one_tensor("BF16", [1], 2),
    "float8": one_tensor("F8_E4M3", [1], 1),
    "negative shape": one_tensor("F32", [-1], 4),
    "fractional shape": one_tensor("F32", [1.5], 4),
    "huge shape": one_tensor("F32", [2**40, 2**40], 0),
    "huge shape of no bytes": one_tensor("F32", [2**63 - 1, 0], 0),
    "shape past 64 bits": one_tensor("F32", [2**64, 0], 0),
    "seventy dimensions": one_tensor("F32", [1] * 70, 4),
}


@pytest.mark.parametrize("data", NOT_SAFETENSORS.values(), ids=NOT_SAFETENSORS.keys())
def test_bytes_that_are_no_float_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedTensors):
        adapter_from_bytes(data, SPEC)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32, np.uint8, np.bool_, np.complex64])
def test_other_dtypes_are_refused(dtype: type[np.generic]) -> None:
    with pytest.raises(
        MalformedTensors, match=rf"dtype of .*got {np.dtype(dtype)}; expected float32 or float16"
    ):
        adapter_from_bytes(changed(k_A=np.ones((2, 3), dtype=dtype)), SPEC)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(dtype: type[np.floating[Any]], value: float) -> None:
    with pytest.raises(NonFiniteValues, match=r"lora_B of k .*got 1 of 4"):
        adapter_from_bytes(changed(k_B=np.array([[0, 0], [value, 0]], dtype=dtype)), SPEC)


def test_signalling_nan_of_float16_is_refused() -> None:
    bits = np.full((2, 3), 0x7D01, dtype=np.uint16)
    with pytest.raises(NonFiniteValues):
        adapter_from_bytes(changed(k_A=bits.view(np.float16)), SPEC)


@pytest.mark.parametrize(
    "shape_A",
    [(6,), (), (2, 3, 1), (1, 2, 3), (3, 2), (2, 4), (0, 2**40), (2, 0), (1, 3)],
    ids=str,
)
def test_wrong_shapes_are_refused(shape_A: tuple[int, ...]) -> None:
    with pytest.raises(SpecMismatch):
        adapter_from_bytes(changed(k_A=np.ones(shape_A, dtype=np.float32)), SPEC)


def test_rank_above_max_rank_is_refused() -> None:
    high = changed(k_A=np.ones((3, 3), dtype=np.float32), k_B=np.ones((2, 3), dtype=np.float32))
    with pytest.raises(RankOutOfRange):
        adapter_from_bytes(high, SPEC)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(k_A=None), r"1 missing \['base_model.model.k.lora_A.weight'\], 0 unknown"),
        (changed(extra=np.ones(1, dtype=np.float32)), r"0 missing \[\], 1 unknown \['extra'\]"),
        (with_header({}), "4 missing"),
    ],
    ids=["missing", "unknown", "empty"],
)
def test_missing_and_unknown_tensors_are_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(SpecMismatch, match=message):
        adapter_from_bytes(data, SPEC)


def test_hostile_names_do_not_fill_the_message_or_break_its_line() -> None:
    with pytest.raises(SpecMismatch) as caught:
        adapter_from_bytes(save({"\n\x1b[31m" + "x" * 2_000: np.ones(1, dtype=np.float32)}), SPEC)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("again", [K_A, K_A.replace("k", "\\u006b")], ids=["plain", "escaped"])
@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_duplicate_keys_are_refused(again: str, dtype: str) -> None:
    first = json.loads(GOOD[8:HEADER_END])[K_A]
    second = first | {"dtype": dtype, "shape": [2 if dtype == "F32" else 4, 3]}  # the same 24 bytes
    header = GOOD[8:HEADER_END].rstrip()[:-1] + f',"{again}":{json.dumps(second)}}}'.encode()
    with pytest.raises(MalformedTensors, match="stands twice"):
        adapter_from_bytes(with_header(header, GOOD[HEADER_END:]), SPEC)


def test_huge_declared_sizes_cost_no_memory() -> None:
    tracemalloc.start()
    for shape in ([2**40, 2**40], [2**62, 0], [2**31, 2**31], [0, 2**61]):
        with pytest.raises(InputError):
            adapter_from_bytes(one_tensor("F32", shape, 0), SPEC)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2**20


@given(st.binary(max_size=200))
def test_random_bytes_end_in_an_input_error(data: bytes) -> None:
    with pytest.raises(MalformedTensors):
        adapter_from_bytes(data, SPEC)


@pytest.mark.parametrize("length", range(0, len(GOOD), 7))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(MalformedTensors):
        adapter_from_bytes(GOOD[:length], SPEC)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_read_or_refused(flips: list[tuple[int, int]]) -> None:
    data = bytearray(GOOD)
    for position, value in flips:
        data[position] = value
    must_read_or_refuse(bytes(data))


@settings(max_examples=300)
@given(st.integers(8, HEADER_END), st.integers(0, 20), st.text('0123456789-.e{}[]",:FIB', max_size=12))
def test_spliced_headers_are_read_or_refused(start: int, removed: int, inserted: str) -> None:
    header = GOOD[8:start] + inserted.encode() + GOOD[start + removed : HEADER_END]
    must_read_or_refuse(with_header(header, GOOD[HEADER_END:]))


SIZES = st.integers(-1, 5) | st.sampled_from([2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "F64", "BF16", "I64", "BOOL", "F8_E5M2", "F4", "C64", "U8"]),
        "shape": st.lists(SIZES, max_size=4),
        "data_offsets": st.tuples(SIZES, SIZES) | st.lists(SIZES, max_size=3),
    }
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from([*KEYS, "__metadata__", "other"]), ENTRIES, max_size=5),
    st.binary(max_size=40),
)
def test_invented_headers_are_read_or_refused(header: dict[str, Any], body: bytes) -> None:
    must_read_or_refuse(with_header(header, body))
