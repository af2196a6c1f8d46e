"""How a frozen weight is stored: as float32, rounded to 16 bits, or quantised to 8 or 4 bits with scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from hetlora.manifest import Precision

BLOCK_SIZE: Final = 32  # of int4: as small as others have it, 1.0 bits a weight for the scales
_BFLOAT16_MAX: Final = (2 - 2**-7) * 2.0**127
_INT8_MAX: Final = 127
_INT4_MAX: Final = 7


@dataclass(frozen=True, slots=True)
class Encoded:
    """A weight as it lies in the file; `shape` counts numbers, two of which share a byte in int4."""

    data: bytes
    elem_type: int
    shape: tuple[int, ...]
    scale: NDArray[np.float32] | None = None
    block_size: int = 0


def precision_of(base: Precision, shape: tuple[int, ...], *, is_table: bool) -> Precision:
    """How a weight is stored where the base model is to be stored as `base`.

    Matrices alone are worth it. A table of embeddings has one scale a row, so that rows can be read alone,
    and int4 needs rows of whole blocks: both become int8 instead.
    """
    if len(shape) != 2:
        return "float32"
    if base == "int4" and (is_table or shape[1] % BLOCK_SIZE):
        return "int8"
    return base


def encode(weight: NDArray[np.float32], precision: Precision) -> Encoded:
    """Encode a weight of float32.

    int8: symmetric, one float32 scale for each row, the largest magnitude at 127. int4: symmetric, one scale
    for each BLOCK_SIZE numbers of a row, the largest at 7, low nibble first as ONNX packs it.

    Raises:
        OverflowError: a number that float16 or bfloat16 does not reach.
    """
    values = np.ascontiguousarray(weight, dtype=np.float32)
    if precision == "float32":
        return Encoded(values.astype("<f4", copy=False).tobytes(), TensorProto.FLOAT, values.shape)
    if precision == "float16":
        _check_reach(values, float(np.finfo(np.float16).max), precision)
        return Encoded(values.astype("<f2").tobytes(), TensorProto.FLOAT16, values.shape)
    if precision == "bfloat16":
        _check_reach(values, _BFLOAT16_MAX, precision)
        return Encoded(_bfloat16(values).tobytes(), TensorProto.BFLOAT16, values.shape)
    return _int8(values) if precision == "int8" else _int4(values)


def _check_reach(values: NDArray[np.float32], most: float, precision: Precision) -> None:
    largest = float(np.abs(values).max(initial=0))
    if largest > most:
        raise OverflowError(f"{largest:.6g} in {precision}")


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32, rounded to nearest, ties to even."""
    bits = values.astype("<f4").view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _int8(rows: NDArray[np.float32]) -> Encoded:
    scale = _scales(rows, _INT8_MAX)
    whole = np.rint(rows / scale[:, None]).astype(np.int8)
    return Encoded(whole.tobytes(), TensorProto.INT8, rows.shape, scale)


def _int4(rows: NDArray[np.float32]) -> Encoded:
    blocks = rows.reshape(-1, BLOCK_SIZE)
    scale = _scales(blocks, _INT4_MAX)
    whole = np.rint(blocks / scale[:, None]).astype(np.int8).reshape(-1)
    nibbles = whole.astype(np.uint8) & 0xF
    packed = nibbles[0::2] | (nibbles[1::2] << 4)
    by_row = scale.reshape(len(rows), -1)
    return Encoded(packed.tobytes(), TensorProto.INT4, rows.shape, by_row, BLOCK_SIZE)


def _scales(rows: NDArray[np.float32], largest: int) -> NDArray[np.float32]:
    scale: NDArray[np.float32] = (np.abs(rows).max(axis=1) / np.float32(largest)).astype(np.float32)
    scale[scale == 0] = 1  # a row of zeros
    return scale
