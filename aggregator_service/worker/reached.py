"""What a reduction has reached to and from bytes: a safetensors file, written array by array.

Its keys are `leaf_count`, `raw_weights`, and of each digit of the carry that is not empty `digits.<place>.0`,
its count, and `digits.<place>.1.<...>`, the arrays of its partial (`packing.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from aggregator_service.aggregation.packing import Arrays, packed, unpacked
from aggregator_service.aggregation.progress import Digit, Reached
from hetlora.adapter import AdapterSpec
from hetlora.errors import MalformedTensors

DTYPES: Final = {"float64": "F64", "float32": "F32", "int64": "I64"}
PIECE: Final = 2**17  # numbers that are copied at a time


def write_reached(reached: Reached[Any], write: Callable[[bytes], None]) -> None:
    """Write it in pieces, so that no second copy of it is in memory; the same bytes for the same state."""
    arrays = {
        "leaf_count": np.array(reached.leaf_count),
        "raw_weights": np.array(reached.raw_weights, np.float64),
    }
    for place, digit in enumerate(reached.digits):
        if digit is not None:
            arrays |= packed(digit, f"digits.{place}")
    _write_arrays(arrays, write)


def _write_arrays(arrays: Arrays, write: Callable[[bytes], None]) -> None:
    header, end = {}, 0
    for name, own in arrays.items():
        start, end = end, end + own.nbytes
        header[name] = {
            "dtype": DTYPES[own.dtype.name],
            "shape": own.shape,
            "data_offsets": (start, end),
        }
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    write(len(told).to_bytes(8, "little") + told)
    for own in arrays.values():
        flat = own.reshape(-1)
        for start in range(0, flat.size, PIECE):
            write(flat[start : start + PIECE].tobytes())


def reached_from_bytes(data: bytes, spec: AdapterSpec, empty: Any) -> Reached[Any]:
    """What was written, of a rule whose empty partial is given.

    Raises:
        MalformedTensors: it is not of that rule, or nothing that was written here.
    """
    try:
        arrays = load(data)
        leaf_count, raw = int(arrays.pop("leaf_count")), arrays.pop("raw_weights").tolist()
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MalformedTensors("a checkpoint", got=error) from error
    places = {int(name.split(".")[1]) for name in arrays if name.startswith("digits.")}
    digits: list[Digit[Any]] = [None] * (max(places, default=-1) + 1)
    for place in places:
        count = unpacked(0, f"digits.{place}.0", arrays, spec)
        digits[place] = (count, unpacked(empty, f"digits.{place}.1", arrays, spec))
    if arrays:
        raise MalformedTensors("arrays of a checkpoint", got=f"others too: {sorted(arrays)[:3]}")
    return Reached(leaf_count, tuple(digits), tuple(raw))
