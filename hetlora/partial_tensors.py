"""Parts of an adapter as tensors by key, to and from safetensors; nothing in a file is trusted.

Keys beside PEFT's, each of a module `base_model.model.<module>`:
- `<module>.core` (rank, rank): the matrix R between the factors, W = W0 + scaling B R A.
- `<module>.ranks` int32 (n,), ascending: the ranks that the factors of the file are of.
- `<PEFT key>.positions` uint32 (n,), ascending, and `<PEFT key>` (n,): entries of a factor at flat positions,
  row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import AdapterSpec, Tensor
from hetlora.errors import MalformedTensors, NonFiniteValues, SpecMismatch
from hetlora.messages.device import UploadPrecision
from hetlora.rounding import DTYPES, dequantised
from hetlora.selection import kept_entries, largest_entries
from hetlora.stored_tensors import Source, Tensors, tensors_to_bytes
from hetlora.tensors import KEY_PREFIX, check_keys, max_adapter_bytes, read_tensors

INDEX_DTYPES: Final = {"positions": "uint32", "ranks": "int32"}


def core_key(module_name: str) -> str:
    """Where a module's core stands."""
    return f"{KEY_PREFIX}{module_name}.core"


def ranks_key(module_name: str) -> str:
    """Where it stands which ranks a module's factors are of."""
    return f"{KEY_PREFIX}{module_name}.ranks"


def positions_key(factor_key: str) -> str:
    """Where it stands which entries of a factor these are."""
    return f"{factor_key}.positions"


def max_partial_bytes(spec: AdapterSpec) -> int:
    """The most bytes that a well-formed update or adapter takes in any form.

    Twice a whole adapter, as each entry may have its position beside it; and the numbers of the ranks.
    """
    return 2 * max_adapter_bytes(spec) + 4 * spec.max_rank * len(spec.modules)


def read_partial(source: Source, precision: UploadPrecision = "float32") -> Tensors:
    """The tensors of a file by key: finite float32 or float16, and ascending indices of their dtype.

    In another precision numbers are of its dtype alone, and int8 comes as float32, scales being taken in.
    Whether keys, shapes and indices fit an adapter is for those to say who read on.

    Raises:
        MalformedTensors: no safetensors file, another dtype, indices that do not ascend from 0 or more, or
            scales that do not fit their numbers.
        SpecMismatch: numbers without scales, or scales of another shape.
        NonFiniteValues: NaN or infinity.
    """
    stored = read_tensors(source, {**INDEX_DTYPES, **DTYPES[precision]})
    tensors = dequantised(stored) if precision == "int8" else stored
    for key, tensor in tensors.items():
        if key.rpartition(".")[2] in INDEX_DTYPES:
            wide = np.asarray(tensor, np.int64)
            if wide.ndim != 1 or (wide < 0).any() or (np.diff(wide) <= 0).any():
                raise MalformedTensors(f"indices {key}", expected="one row of them, from 0 on, ascending")
        elif not np.isfinite(tensor).all():
            raise NonFiniteValues(f"{key} holds values that are not finite", expected="finite float32 values")
    return tensors


def shaped(tensors: Tensors, key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor under a key, in float32.

    Raises:
        SpecMismatch: it has another shape.
    """
    check_shape(tensors, key, shape)
    return np.asarray(tensors[key]).astype(np.float32)


def check_shape(tensors: Tensors, key: str, shape: tuple[int, ...]) -> None:
    """Raise unless the tensor under a key has this shape.

    Raises:
        SpecMismatch: it has another one.
    """
    if tensors[key].shape != shape:
        raise SpecMismatch(f"shape of {key}", got=tensors[key].shape, expected=shape)


def cores_to_bytes(cores: Mapping[str, Tensor]) -> bytes:
    """Write the cores of the modules, (rank, rank) by module name."""
    return tensors_to_bytes({core_key(name): core for name, core in cores.items()})


def cores_from_bytes(source: Source, spec: AdapterSpec, rank: int) -> dict[str, Tensor]:
    """The cores of all modules by name, float32 (rank, rank).

    Raises:
        MalformedTensors, NonFiniteValues: see `read_partial`.
        SpecMismatch: tensors of other names or shapes.
    """
    tensors = read_partial(source)
    check_keys(tensors, map(core_key, spec.by_name))
    return {name: shaped(tensors, core_key(name), (rank, rank)) for name in spec.by_name}


def largest_of(tensors: Mapping[str, Tensor], density: float) -> dict[str, NDArray[Any]]:
    """The share `density` of the entries of all tensors, the largest, and their positions, by key."""
    count = kept_entries(density, sum(tensor.size for tensor in tensors.values()))
    found: dict[str, NDArray[Any]] = {}
    for key, positions in zip(tensors, largest_entries(list(tensors.values()), count), strict=True):
        found[key], found[positions_key(key)] = tensors[key].ravel()[positions], positions
    return found


def dense(tensors: Tensors, key: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of this shape whose entries stand under a key, zero elsewhere; float32.

    Raises:
        SpecMismatch: see `check_entries`.
    """
    positions = check_entries(tensors, key, shape)
    found = np.zeros(shape, np.float32)
    found.flat[positions] = np.asarray(tensors[key])
    return found


def check_entries(tensors: Tensors, key: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The positions of the entries under a key, in a tensor of this shape.

    Raises:
        SpecMismatch: other entries than positions, or positions beyond the shape.
    """
    positions = np.asarray(tensors[positions_key(key)])
    if positions.size and positions[-1] >= math.prod(shape):
        raise SpecMismatch(f"positions of {key}", got=positions[-1], expected=f"below {math.prod(shape)}")
    check_shape(tensors, key, positions.shape)
    return positions
