"""Global states to and from tensors: what a version's adapter, as devices get it, does not hold.

A safetensors file with the keys
- `adapter/<PEFT key>`: the factors that `distribute` cuts from, of any rank;
- `frozen/<PEFT key>`: those of the frozen adapter, where there is one;
- `tensor/<name>`: the rule's own, in their dtype, float64 among them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.stacks import StackedAdapter, factors_of, stacked_factors
from hetlora.adapter import AdapterSpec, LoraFactors
from hetlora.stored_tensors import Tensors
from hetlora.tensors import factor_keys, factor_tensors

ADAPTER: Final = "adapter/"
FROZEN: Final = "frozen/"
TENSOR: Final = "tensor/"


def state_tensors(state: GlobalState) -> dict[str, NDArray[Any]]:
    """A state by key. Ranks, round and figures are kept elsewhere."""
    tensors = _prefixed(ADAPTER, state.adapter)
    if state.frozen is not None:
        tensors |= _prefixed(FROZEN, state.frozen)
    return tensors | {TENSOR + name: own for name, own in state.tensors.items()}


def state_from_tensors(tensors: Tensors, spec: AdapterSpec, rank: int, round_index: int) -> GlobalState:
    """The state that was written, of a run of this rank before this round."""
    frozen = any(key.startswith(FROZEN) for key in tensors)
    return GlobalState(
        _stacked(spec, tensors, ADAPTER),
        rank,
        round_index,
        frozen=_stacked(spec, tensors, FROZEN) if frozen else None,
        tensors={
            key[len(TENSOR) :]: np.asarray(own) for key, own in tensors.items() if key.startswith(TENSOR)
        },
    )


def _prefixed(prefix: str, adapter: StackedAdapter) -> dict[str, NDArray[Any]]:
    return {prefix + key: tensor for key, tensor in factor_tensors(factors_of(adapter)).items()}


def _stacked(spec: AdapterSpec, tensors: Tensors, prefix: str) -> StackedAdapter:
    return stacked_factors(
        spec,
        {
            name: LoraFactors(*(np.asarray(tensors[prefix + key]) for key in factor_keys(name)))
            for name in spec.by_name
        },
    )
