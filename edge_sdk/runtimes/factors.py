"""An adapter's factors as the graphs take them: every rank is 1 or more, or what they are stamped for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_sdk.runtimes.base import Factors
from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter, AdapterSpec, Tensor, initial_adapter
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.tensors import to_tensors


def check_adapter(spec: AdapterSpec, adapter: Adapter) -> None:
    """Raise unless the adapter is of the bundle's specification.

    Raises:
        SpecMismatch: it is of another.
    """
    if adapter.spec != spec:
        raise SpecMismatch("the adapter is not of this bundle's specification")


def inference_factors(
    spec: AdapterSpec,
    adapter: Adapter | None,
    fixed_rank: int | None = None,
    how: Parametrisation | None = None,
) -> dict[str, Tensor]:
    """`fed_factors` of an adapter, or of none: the untrained model; errors as `check_adapter` and those.

    With `how` the cores, frozen factors and amplification are in them that it was trained under.

    Raises:
        SpecMismatch: cores or frozen factors are not of this adapter.
    """
    if adapter is None:
        adapter = initial_adapter(spec, 0, np.random.default_rng(0))
    check_adapter(spec, adapter)
    return fed_factors(to_tensors(adapter) if how is None else TrainedNumbers(adapter, how).fed(), fixed_rank)


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
