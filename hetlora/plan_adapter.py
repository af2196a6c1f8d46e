"""What a plan sends: an adapter, whole or sparse, with cores or without, and factors that stay frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import MAX_ADAPTER_BYTES, Adapter, AdapterSpec, LoraFactors, Tensor
from hetlora.errors import SpecMismatch
from hetlora.lazy_adapter import LazyAdapter
from hetlora.partial_tensors import (
    INDEX_DTYPES,
    core_key,
    dense,
    largest_of,
    positions_key,
    ranks_key,
    read_partial,
    shaped,
)
from hetlora.stored_tensors import Source, Tensors
from hetlora.tensors import (
    HEADER_BYTES_PER_MODULE,
    check_keys,
    factor_keys,
    lazily_from_tensors,
    read_tensors,
    to_tensors,
)

# Factors by module name that are added to a model whatever their rank is.
FrozenFactors = Mapping[str, LoraFactors]


@dataclass(frozen=True, slots=True, eq=False)
class SentAdapter:
    """An adapter, and the cores between its factors, (rank, rank) by module: none unless they are trained."""

    adapter: Adapter
    cores: Mapping[str, Tensor]


def sent_tensors(adapter: Adapter, cores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter and cores by module name, as they are sent; without cores `to_tensors` of the adapter."""
    return {**to_tensors(adapter), **{core_key(name): core for name, core in cores.items()}}


def sparse_tensors(adapter: Adapter, density: float) -> dict[str, NDArray[Any]]:
    """The share `density` in (0, 1] of an adapter's entries, the largest over all its modules (FLASC).

    Beside them stand the ranks 0, 1, ... of each module, as entries alone do not tell its rank.
    """
    ranks = {ranks_key(name): np.arange(rank, dtype=np.int32) for name, rank in adapter.ranks.items()}
    return {**largest_of(to_tensors(adapter), density), **ranks}


def sent_from_bytes(data: bytes, spec: AdapterSpec) -> SentAdapter:
    """Read a file of `to_tensors`, `sent_tensors` or `sparse_tensors`; entries left out are zero.

    Raises:
        MalformedTensors, NonFiniteValues: see `read_partial`.
        SpecMismatch: tensors of other names or shapes.
        RankOutOfRange: a module's rank passes `spec.max_rank`.
    """
    tensors = read_partial(data)
    adapter = _sent_adapter(spec, tensors).whole()
    if not any(core_key(name) in tensors for name in spec.by_name):
        return SentAdapter(adapter, {})
    check_keys(tensors, [*to_tensors(adapter), *map(core_key, spec.by_name)])
    return SentAdapter(
        adapter, {name: shaped(tensors, core_key(name), (rank, rank)) for name, rank in adapter.ranks.items()}
    )


def open_sent(source: Source, spec: AdapterSpec) -> LazyAdapter:
    """The adapter alone of what is known to have been written so: its numbers are not looked at beforehand.

    Raises:
        MalformedTensors: see `read_tensors`.
        SpecMismatch: tensors of other names or shapes.
    """
    return _sent_adapter(spec, read_tensors(source, INDEX_DTYPES))


def _sent_adapter(spec: AdapterSpec, tensors: Tensors) -> LazyAdapter:
    if any(ranks_key(name) in tensors for name in spec.by_name):
        return _from_entries(spec, tensors)
    cores = set(map(core_key, spec.by_name))
    return lazily_from_tensors(spec, {key: tensor for key, tensor in tensors.items() if key not in cores})


def _from_entries(spec: AdapterSpec, tensors: Tensors) -> LazyAdapter:
    keys = [key for name in spec.by_name for key in factor_keys(name)]
    check_keys(tensors, [*keys, *map(positions_key, keys), *map(ranks_key, spec.by_name)])
    counts = {}
    for name in spec.by_name:
        size = tensors[ranks_key(name)].size
        # Before anything of that size is made.
        if size > spec.max_rank or (np.asarray(tensors[ranks_key(name)]) != np.arange(size)).any():
            raise SpecMismatch(
                f"ranks of {name}", got=f"{size} of them", expected=f"0, 1, ..., below {spec.max_rank}"
            )
        counts[name] = size

    def make(name: str) -> LoraFactors:
        module, (lora_A, lora_B) = spec.by_name[name], factor_keys(name)
        return LoraFactors(
            dense(tensors, lora_A, (counts[name], module.in_features)),
            dense(tensors, lora_B, (module.out_features, counts[name])),
        )

    return LazyAdapter(spec, counts, make)


def frozen_from_bytes(data: bytes, spec: AdapterSpec) -> dict[str, LoraFactors]:
    """The factors of all modules of a specification, each of any rank, 0 among them.

    Raises:
        MalformedTensors, NonFiniteValues: see `read_partial`.
        SpecMismatch: tensors of other names or shapes.
    """
    tensors = read_partial(data)
    check_keys(tensors, [key for name in spec.by_name for key in factor_keys(name)])
    factors = {}
    for module in spec.modules:
        lora_A, lora_B = factor_keys(module.name)
        rank = tensors[lora_A].shape[0] if tensors[lora_A].ndim else 0
        factors[module.name] = LoraFactors(
            shaped(tensors, lora_A, (rank, module.in_features)),
            shaped(tensors, lora_B, (module.out_features, rank)),
        )
    return factors


def max_frozen_bytes(spec: AdapterSpec) -> int:
    """The most bytes of a file of frozen factors that is read: ranks have no limit, memory has."""
    return MAX_ADAPTER_BYTES + 2 * HEADER_BYTES_PER_MODULE * len(spec.modules)
