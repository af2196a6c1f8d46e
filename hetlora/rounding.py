"""Numbers of an update in fewer bytes: float16, or int8 with a scale for each rank; nothing read is trusted.

Beside the int8 numbers of a key stands `<key>.scales`, float32: one for each rank of a factor, (rank, 1) of
lora_A and (1, rank) of lora_B, or one for all entries of a sparse change, (1,). A number is q times its scale
in float32, q being -127 to 127. docs/adr/0019-compressed-updates.md has the reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import AdapterSpec, Tensor
from hetlora.errors import MalformedTensors, NonFiniteValues, SpecMismatch
from hetlora.messages.device import UploadPrecision
from hetlora.stored_tensors import FileTensors, QuantisedTensor, StoredTensor, Tensors

LARGEST: Final = 127
# What an update of a precision is made of, by the last part of a key; indices have dtypes of their own.
DTYPES: Final[Mapping[UploadPrecision, Mapping[str, str]]] = {
    "float32": {},  # or float16, as ever
    "float16": {"weight": "float16"},
    "int8": {"weight": "int8", "scales": "float32"},
}


def scales_key(key: str) -> str:
    """Where the scales of the int8 numbers under a key stand."""
    return f"{key}.scales"


def bytes_per_rank(spec: AdapterSpec, float32_bytes: int, precision: UploadPrecision) -> int:
    """What a rank of all modules takes in an update, given what it takes in float32."""
    match precision:
        case "float32":
            return float32_bytes
        case "float16":
            return float32_bytes // 2
        case "int8":
            return float32_bytes // 4 + 2 * 4 * len(spec.modules)
        case never:
            assert_never(never)


def rounded(tensors: Mapping[str, NDArray[Any]], precision: UploadPrecision) -> dict[str, NDArray[Any]]:
    """The tensors, with the numbers under PEFT's keys rounded to the nearest; indices stay what they are.

    Raises:
        NonFiniteValues: NaN, infinity, or a number that float16 does not reach.
    """
    found: dict[str, NDArray[Any]] = {}
    for key, tensor in tensors.items():
        if precision == "float32" or not key.endswith(".weight"):
            found[key] = tensor
        elif precision == "float16":
            found[key] = _halved(key, tensor)
        else:
            found[key], found[scales_key(key)] = _quantised(key, tensor)
    return found


def _halved(key: str, tensor: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halved = tensor.astype(np.float16)
    if not np.isfinite(halved).all():
        raise NonFiniteValues(
            f"{key} has a change that float16 does not reach",
            got=f"{np.abs(tensor).max():.3g}",
            expected=f"up to {np.finfo(np.float16).max:g}",
        )
    return halved


def _quantised(key: str, tensor: NDArray[Any]) -> tuple[NDArray[np.int8], Tensor]:
    if not np.isfinite(tensor).all():
        raise NonFiniteValues(f"{key} has a change that is not finite", expected="finite float32 values")
    wide = np.asarray(tensor, np.float64)
    largest = np.abs(wide).max(axis=_features(key, wide.ndim), keepdims=True, initial=0.0)
    scales = (largest / LARGEST).astype(np.float32)
    # 127 of a scale that was rounded down would not reach the largest number, and tiny ones by far not.
    scales = np.where(LARGEST * scales.astype(np.float64) < largest, np.nextafter(scales, np.inf), scales)
    steps = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    return np.rint(wide / steps).astype(np.int8), scales.astype(np.float32)


def _features(key: str, ndim: int) -> int:
    """The axis along which numbers share a scale."""
    return 0 if ndim == 1 or key.endswith(".lora_B.weight") else 1


def dequantised(tensors: FileTensors) -> Tensors:
    """The tensors of an int8 update with numbers and scales joined, one tensor's numbers looked at at a time.

    Raises:
        SpecMismatch: numbers without scales or the reverse, or scales of another shape.
        MalformedTensors: a scale below zero, one of zero with other numbers than zeros, or the number -128.
        NonFiniteValues: a scale that is not finite.
    """
    found: dict[str, NDArray[Any] | StoredTensor | QuantisedTensor] = {}
    numbers = [key for key in tensors if key.endswith(".weight")]
    strays = {key for key in tensors if key.endswith(".scales")} ^ {*map(scales_key, numbers)}
    if strays:
        raise SpecMismatch("scales of an update", got=sorted(strays)[:3], expected="those of its numbers")
    for key, tensor in tensors.items():
        if key.endswith(".weight"):
            found[key] = _joined(key, tensor, np.asarray(tensors[scales_key(key)]))
        elif not key.endswith(".scales"):
            found[key] = tensor
    return found


def _joined(key: str, numbers: NDArray[Any] | StoredTensor, scales: Tensor) -> QuantisedTensor:
    if numbers.ndim not in (1, 2):
        raise SpecMismatch(f"shape of {key}", got=numbers.shape, expected="a factor, or entries of one")
    expected = list(numbers.shape)
    expected[_features(key, numbers.ndim)] = 1
    if scales.shape != tuple(expected):
        raise SpecMismatch(f"shape of {scales_key(key)}", got=scales.shape, expected=tuple(expected))
    if not np.isfinite(scales).all():
        raise NonFiniteValues(f"{scales_key(key)} holds values that are not finite", expected="zero or more")
    if (scales < 0).any():
        raise MalformedTensors(f"{scales_key(key)} below zero", got=scales.min(), expected="zero or more")
    own = np.asarray(numbers)
    if (own < -LARGEST).any():
        raise MalformedTensors(f"numbers of {key}", got=-LARGEST - 1, expected=f"-{LARGEST} to {LARGEST}")
    if np.logical_and(own != 0, scales == 0).any():
        raise MalformedTensors(f"numbers of {key} at a scale of zero", expected="zeros")
    return QuantisedTensor(numbers, scales)
