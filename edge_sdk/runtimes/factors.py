"""An adapter's factors as the graphs take them: every rank is 1 or more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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


def inference_factors(spec: AdapterSpec, adapter: Adapter | None) -> dict[str, Tensor]:
    """`fed_factors` of an adapter, or of none: the untrained model; errors as `check_adapter`."""
    if adapter is None:
        adapter = initial_adapter(spec, 0, np.random.default_rng(0))
    check_adapter(spec, adapter)
    return fed_factors(adapter)


def check_trainable(spec: AdapterSpec, adapter: Adapter) -> None:
    """Raise unless the adapter is of the bundle's specification and trains some module.

    Raises:
        SpecMismatch: it is of another.
        RankOutOfRange: every module has rank 0.
    """
    check_adapter(spec, adapter)
    if adapter.rank < 1:
        raise RankOutOfRange("nothing to train at rank 0", expected="a module of rank 1 or more")


def fed_factors(adapter: Adapter) -> dict[str, Tensor]:
    """The factors by PEFT key; rank 0 is one row and one column of zeros, which changes nothing.

    With both factors zero so are both gradients: such a pair stays what it is however long it trains.
    """
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
