"""What a plan sends: an adapter, whole or sparse, with cores or without, and factors that stay frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hetlora.adapter import MAX_ADAPTER_BYTES, Adapter, AdapterSpec, LoraFactors, Tensor
from hetlora.errors import SpecMismatch
from hetlora.partial_tensors import (
    Tensors,
    core_key,
    dense,
    largest_of,
    partial_from_bytes,
    partial_to_bytes,
    positions_key,
    ranks_key,
    shaped,
)
from hetlora.tensors import HEADER_BYTES_PER_MODULE, check_keys, factor_keys, from_tensors, to_tensors

# Factors by module name that are added to a model whatever their rank is.
FrozenFactors = Mapping[str, LoraFactors]


@dataclass(frozen=True, slots=True, eq=False)
class SentAdapter:
    """An adapter, and the cores between its factors, (rank, rank) by module: none unless they are trained."""

    adapter: Adapter
    cores: Mapping[str, Tensor]


def sent_to_bytes(adapter: Adapter, cores: Mapping[str, Tensor]) -> bytes:
    """Write an adapter and cores by module name; without cores the bytes of `adapter_to_bytes`."""
    return partial_to_bytes({**to_tensors(adapter), **{core_key(name): core for name, core in cores.items()}})


def sparse_to_bytes(adapter: Adapter, density: float) -> bytes:
    """Write the share `density` in (0, 1] of an adapter's entries, the largest over all its modules (FLASC).

    Beside them stand the ranks 0, 1, ... of each module, as entries alone do not tell its rank.
    """
    ranks = {ranks_key(name): np.arange(rank, dtype=np.int32) for name, rank in adapter.ranks.items()}
    return partial_to_bytes({**largest_of(to_tensors(adapter), density), **ranks})


def sent_from_bytes(data: bytes, spec: AdapterSpec) -> SentAdapter:
    """Read what `adapter_to_bytes`, `sent_to_bytes` or `sparse_to_bytes` wrote; entries left out are zero.

    Raises:
        MalformedTensors, NonFiniteValues: see `partial_from_bytes`.
        SpecMismatch: tensors of other names or shapes.
        RankOutOfRange: a module's rank passes `spec.max_rank`.
    """
    tensors = partial_from_bytes(data)
    if any(ranks_key(name) in tensors for name in spec.by_name):
        return SentAdapter(_from_entries(spec, tensors), {})
    cores = {core_key(name) for name in spec.by_name} & tensors.keys()
    adapter = from_tensors(spec, {key: tensor for key, tensor in tensors.items() if key not in cores})
    if not cores:
        return SentAdapter(adapter, {})
    check_keys(tensors, [*to_tensors(adapter), *map(core_key, spec.by_name)])
    return SentAdapter(
        adapter, {name: shaped(tensors, core_key(name), (rank, rank)) for name, rank in adapter.ranks.items()}
    )


def _from_entries(spec: AdapterSpec, tensors: Tensors) -> Adapter:
    keys = [key for name in spec.by_name for key in factor_keys(name)]
    check_keys(tensors, [*keys, *map(positions_key, keys), *map(ranks_key, spec.by_name)])
    factors = {}
    for module in spec.modules:
        ranks = tensors[ranks_key(module.name)]
        # Before anything of that size is made.
        if ranks.size > spec.max_rank or (ranks != np.arange(ranks.size)).any():
            raise SpecMismatch(
                f"ranks of {module.name}",
                got=f"{ranks.size} of them",
                expected=f"0, 1, ..., below {spec.max_rank}",
            )
        lora_A, lora_B = factor_keys(module.name)
        factors[module.name] = LoraFactors(
            dense(tensors, lora_A, (ranks.size, module.in_features)),
            dense(tensors, lora_B, (module.out_features, ranks.size)),
        )
    return Adapter(spec, factors)


def frozen_to_bytes(factors: FrozenFactors) -> bytes:
    """Write factors of any rank by module name, under PEFT's keys."""
    return partial_to_bytes(
        {
            key: tensor
            for name, own in factors.items()
            for key, tensor in zip(factor_keys(name), (own.lora_A, own.lora_B), strict=True)
        }
    )


def frozen_from_bytes(data: bytes, spec: AdapterSpec) -> dict[str, LoraFactors]:
    """The factors of all modules of a specification, each of any rank, 0 among them.

    Raises:
        MalformedTensors, NonFiniteValues: see `partial_from_bytes`.
        SpecMismatch: tensors of other names or shapes.
    """
    tensors = partial_from_bytes(data)
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
