"""What training can go on from, as tensors by key: where they lie, and put back where it fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from edge_sdk.training.flat_tensors import FlatTensors
from hetlora.errors import SpecMismatch
from hetlora.tensors import check_keys

Arrays = Mapping[str, NDArray[Any]]


def places(kinds: Mapping[str, FlatTensors]) -> dict[str, NDArray[Any]]:
    """Tensors of several kinds, such as what is trained and its moments, each under its kind and key."""
    return {f"{kind}/{key}": tensor for kind, flat in kinds.items() for key, tensor in flat.tensors.items()}


def put_back(state: Arrays, into: Arrays) -> None:
    """Write a state over the arrays that it was copied from, or such as these; nothing in it is trusted.

    Raises:
        SpecMismatch: tensors are missing, are too many, or have other shapes or dtypes; nothing is written.
    """
    check_keys(state, into)
    for key, own in into.items():
        if (state[key].shape, state[key].dtype) != (own.shape, own.dtype):
            raise SpecMismatch(
                f"{key} of what training is to go on from",
                got=f"{state[key].dtype} {state[key].shape}",
                expected=f"{own.dtype} {own.shape}",
            )
    for key, own in into.items():
        own[...] = state[key]
