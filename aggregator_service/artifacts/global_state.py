"""Global states to and from bytes: what a version's adapter, as devices and operators get it, does not hold.

A safetensors file with the keys
- `adapter/<PEFT key>`: the factors that `distribute` cuts from, of any rank;
- `frozen/<PEFT key>`: those of the frozen adapter, where there is one;
- `tensor/<name>`: the rule's own, in their dtype, float64 among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.stacks import StackedAdapter, factors_of, stacked_factors
from hetlora.adapter import AdapterSpec, LoraFactors
from hetlora.tensors import factor_keys

ADAPTER: Final = "adapter/"
FROZEN: Final = "frozen/"
TENSOR: Final = "tensor/"

Tensors = Mapping[str, NDArray[Any]]


def state_to_bytes(state: GlobalState) -> bytes:
    """Write a state; the same bytes for the same state. Ranks, round and figures are kept elsewhere."""
    tensors = _prefixed(ADAPTER, state.adapter)
    if state.frozen is not None:
        tensors |= _prefixed(FROZEN, state.frozen)
    tensors |= {TENSOR + name: np.asarray(own, order="C") for name, own in sorted(state.tensors.items())}
    return save(tensors, metadata={"format": "pt"})


def state_from_bytes(data: bytes, spec: AdapterSpec, rank: int, round_index: int) -> GlobalState:
    """The state that was written, of a run of this rank before this round."""
    tensors = load(data)
    frozen = any(key.startswith(FROZEN) for key in tensors)
    return GlobalState(
        _stacked(spec, tensors, ADAPTER),
        rank,
        round_index,
        frozen=_stacked(spec, tensors, FROZEN) if frozen else None,
        tensors={key[len(TENSOR) :]: own for key, own in tensors.items() if key.startswith(TENSOR)},
    )


def _prefixed(prefix: str, adapter: StackedAdapter) -> dict[str, NDArray[Any]]:
    return {
        prefix + key: tensor
        for name, own in factors_of(adapter).items()
        for key, tensor in zip(factor_keys(name), (own.lora_A, own.lora_B), strict=True)
    }


def _stacked(spec: AdapterSpec, tensors: Tensors, prefix: str) -> StackedAdapter:
    return stacked_factors(
        spec,
        {name: LoraFactors(*(tensors[prefix + key] for key in factor_keys(name))) for name in spec.by_name},
    )
