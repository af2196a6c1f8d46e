"""An adapter's factors as the graphs take them: every rank is 1 or more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_sdk.training.parametrisation import Parametrisation, TrainedNumbers
from hetlora.adapter import Adapter, AdapterSpec, Tensor, initial_adapter
from hetlora.algebra import zero_pad
from hetlora.errors import RankOutOfRange, SpecMismatch
from hetlora.tensors import factor_keys, to_tensors


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
        RankOutOfRange: with the frozen ones a module has more ranks than `fixed_rank`.
    """
    if adapter is None:
        adapter = initial_adapter(spec, 0, np.random.default_rng(0))
    check_adapter(spec, adapter)
    if how is None:
        return fed_factors(adapter, fixed_rank)
    fed = TrainedNumbers(adapter, how).fed(fixed_rank or 1)
    widest = max(len(fed[factor_keys(name)[0]]) for name in spec.by_name)
    if fixed_rank is not None and widest > fixed_rank:
        raise RankOutOfRange("the graphs are stamped for one rank", got=widest, expected=f"{fixed_rank}")
    return fed


def check_trainable(spec: AdapterSpec, adapter: Adapter, fixed_rank: int | None = None) -> None:
    """Raise unless the adapter is of the bundle's specification and trains some module.

    Raises:
        SpecMismatch: it is of another.
        RankOutOfRange: every module has rank 0, or one another rank than the graphs are stamped for.
    """
    check_adapter(spec, adapter)
    if adapter.rank < 1:
        raise RankOutOfRange("nothing to train at rank 0", expected="a module of rank 1 or more")
    ranks = set(adapter.ranks.values())
    if fixed_rank is not None and ranks - {0, fixed_rank}:
        raise RankOutOfRange(
            "the bundle's graphs are stamped for one rank", got=sorted(ranks), expected=f"{fixed_rank}, or 0"
        )


def fed_factors(adapter: Adapter, fixed_rank: int | None = None) -> dict[str, Tensor]:
    """The factors by PEFT key; rank 0 is one row and one column of zeros, which changes nothing.

    With both factors zero so are both gradients: such a pair stays what it is however long it trains. With
    `fixed_rank`, that of stamped graphs, each module is filled up to it in the same way.

    Raises:
        RankOutOfRange: a module has a larger rank than that.
    """
    if fixed_rank is not None:
        return to_tensors(zero_pad(adapter, fixed_rank))
    return {
        key: tensor if tensor.size else np.zeros([max(size, 1) for size in tensor.shape], np.float32)
        for key, tensor in to_tensors(adapter).items()
    }


def own_shapes(fed: Mapping[str, Tensor], adapter: Adapter) -> dict[str, Tensor]:
    """What the graphs answer for `fed_factors(adapter)`, cut back to the shapes of the adapter."""
    return {
        key: fed[key][tuple(slice(size) for size in tensor.shape)]
        for key, tensor in to_tensors(adapter).items()
    }
