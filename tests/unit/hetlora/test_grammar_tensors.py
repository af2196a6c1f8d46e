from __future__ import annotations

import json
import struct
from random import Random

import numpy as np
import pytest
from grammar_strategies import FINITE_FLOAT32, MODULE_NAMES, adapters, same_bits, specs
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, initial_adapter
from hetlora.tensors import (
    adapter_from_bytes,
    adapter_to_bytes,
    factor_keys,
    from_tensors,
    max_adapter_bytes,
    to_tensors,
)

PRINTABLE = st.characters(exclude_categories=("C", "Z"))
LONG_NAMES = st.builds(
    str.__mul__, MODULE_NAMES | st.text(PRINTABLE, min_size=1, max_size=30), st.integers(1, 100)
)


def header_of(data: bytes) -> dict[str, dict[str, object]]:
    (length,) = struct.unpack("<Q", data[:8])
    header: dict[str, dict[str, object]] = json.loads(data[8 : 8 + length])
    return header


def test_keys_are_those_of_peft() -> None:
    assert factor_keys("h.0.q") == (
        "base_model.model.h.0.q.lora_A.weight",
        "base_model.model.h.0.q.lora_B.weight",
    )


def test_bytes_are_float32_safetensors_under_peft_keys() -> None:
    spec = AdapterSpec((ModuleSpec("q", 3, 2),), 1.0, 2)
    data = adapter_to_bytes(Adapter(spec, {"q": LoraFactors(np.ones((1, 3)), np.ones((2, 1)))}))
    header = header_of(data)
    assert header.pop("__metadata__") == {"format": "pt"}
    assert {key: (entry["dtype"], entry["shape"]) for key, entry in header.items()} == {
        "base_model.model.q.lora_A.weight": ("F32", [1, 3]),
        "base_model.model.q.lora_B.weight": ("F32", [2, 1]),
    }


@given(adapters(FINITE_FLOAT32))
def test_keyed_tensors_make_the_adapter_again(adapter: Adapter) -> None:
    assert same_bits(from_tensors(adapter.spec, to_tensors(adapter)), adapter)


@given(adapters(FINITE_FLOAT32))
def test_round_trip_keeps_every_bit(adapter: Adapter) -> None:
    assert same_bits(adapter_from_bytes(adapter_to_bytes(adapter), adapter.spec), adapter)


@given(adapters(FINITE_FLOAT32), st.randoms(use_true_random=False))
def test_same_adapter_gives_same_bytes(adapter: Adapter, random: Random) -> None:
    names = list(adapter.factors)
    random.shuffle(names)
    copies = {
        name: LoraFactors(
            adapter.factors[name].lora_A.copy(), np.asfortranarray(adapter.factors[name].lora_B)
        )
        for name in names
    }
    assert adapter_to_bytes(Adapter(adapter.spec, copies)) == adapter_to_bytes(adapter)


@given(adapters(st.floats(-60000, 60000, width=16)))
def test_float16_files_are_read_as_float32(adapter: Adapter) -> None:
    halves = {key: tensor.astype(np.float16) for key, tensor in load(adapter_to_bytes(adapter)).items()}
    assert same_bits(adapter_from_bytes(save(halves), adapter.spec), adapter)


@given(specs(LONG_NAMES))
def test_no_adapter_is_larger_than_max_adapter_bytes(spec: AdapterSpec) -> None:
    largest = initial_adapter(spec, spec.max_rank, np.random.default_rng(0))
    assert largest.size_bytes < len(adapter_to_bytes(largest)) <= max_adapter_bytes(spec)


def test_max_adapter_bytes_covers_headers_of_other_writers() -> None:
    spec = AdapterSpec((ModuleSpec("größe." * 200, 100_000, 1),), 1.0, 1)
    data = adapter_to_bytes(initial_adapter(spec, 1, np.random.default_rng(0)))
    (length,) = struct.unpack("<Q", data[:8])
    # escaped to ASCII, with a space at every joint and the metadata that trainers like to add
    header = json.dumps(header_of(data) | {"__metadata__": {"format": "pt", "writer": "x" * 64}}).encode()
    assert 8 + len(header) + len(data) - 8 - length <= max_adapter_bytes(spec)


def test_max_adapter_bytes_stays_near_the_size_of_the_tensors() -> None:
    spec = AdapterSpec(tuple(ModuleSpec(f"h.{layer:02}.q", 384, 384) for layer in range(24)), 1.0, 32)
    tensors = 24 * 32 * (384 + 384) * 4
    assert tensors < max_adapter_bytes(spec) < 1.02 * tensors


@pytest.mark.parametrize("ranks", [(0, 0), (0, 2), (2, 1)])
def test_ranks_are_read_from_the_shapes(ranks: tuple[int, int]) -> None:
    spec = AdapterSpec((ModuleSpec("k", 3, 2), ModuleSpec("q", 2, 4)), 1.0, 2)
    factors = {
        module.name: LoraFactors(np.ones((rank, module.in_features)), np.ones((module.out_features, rank)))
        for module, rank in zip(spec.modules, ranks, strict=True)
    }
    read = adapter_from_bytes(adapter_to_bytes(Adapter(spec, factors)), spec)
    assert tuple(read.ranks.values()) == ranks
