"""Factors as the graphs take them: every rank is 1 or more, or what the graphs are stamped for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_sdk.runtimes.base import Factors
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, Tensor, check_module
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.tensors import check_keys, factor_keys


def check_adapter(spec: AdapterSpec, adapter: Adapter) -> None:
    """Raise unless the adapter is of the bundle's specification.

    Raises:
        SpecMismatch: it is of another.
    """
    if adapter.spec != spec:
        raise SpecMismatch("the adapter is not of this bundle's specification")


def checked_factors(spec: AdapterSpec, factors: Factors) -> dict[str, Tensor]:
    """Factors of a specification's modules in their order, float32; of any rank, as frozen ones add to it.

    Raises:
        SpecMismatch: they are of other modules, or have other widths.
        NonFiniteValues: a factor holds NaN or infinity.
    """
    check_keys(factors, [key for name in spec.by_name for key in factor_keys(name)])
    checked: dict[str, Tensor] = {}
    for module in spec.modules:
        keys = factor_keys(module.name)
        own = LoraFactors(*(factors[key] for key in keys))
        check_module(module, own, max_rank=own.rank)
        checked.update(zip(keys, (own.lora_A, own.lora_B), strict=True))
    return checked


def zero_factors(spec: AdapterSpec, ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """Factors of these ranks by module name, all zeros: the untrained model."""
    factors = {}
    for module in spec.modules:
        lora_A, lora_B = factor_keys(module.name)
        factors[lora_A] = np.zeros((ranks[module.name], module.in_features), np.float32)
        factors[lora_B] = np.zeros((module.out_features, ranks[module.name]), np.float32)
    return factors


def check_stamped_ranks(ranks: Mapping[str, int], fixed_rank: int | None) -> None:
    """Raise unless graphs that are stamped for one rank train at these; at 0 a module is left out.

    Raises:
        RankOutOfRange: a module has another.
    """
    own = set(ranks.values())
    if fixed_rank is not None and own - {0, fixed_rank}:
        raise RankOutOfRange(
            "the bundle's graphs are stamped for one rank, frozen ones counted in",
            got=sorted(own),
            expected=f"{fixed_rank}, or 0",
        )


def fed_factors(factors: Factors, fixed_rank: int | None = None) -> dict[str, Tensor]:
    """Factors by PEFT key, filled up with zeros to rank 1, or to `fixed_rank`, that of stamped graphs.

    A row and a column of zeros change nothing, and their gradients are zero: such a pair stays what it is
    however long it trains.

    Raises:
        RankOutOfRange: a module has a larger rank than `fixed_rank`.
    """
    fed = {}
    for key, tensor in factors.items():
        axis = 0 if key.endswith(".lora_A.weight") else 1
        rank = tensor.shape[axis]
        if fixed_rank is not None and rank > fixed_rank:
            raise RankOutOfRange("the graphs are stamped for one rank", got=rank, expected=f"{fixed_rank}")
        missing = max((fixed_rank or 1) - rank, 0)
        fed[key] = np.pad(tensor, [(0, missing * (axis == place)) for place in (0, 1)]) if missing else tensor
    return fed


def own_shapes(fed: Mapping[str, Tensor], factors: Factors) -> dict[str, Tensor]:
    """What the graphs answer for `fed_factors(factors)`, cut back to the shapes of the factors."""
    return {key: fed[key][tuple(slice(size) for size in own.shape)] for key, own in factors.items()}
