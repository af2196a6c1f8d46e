"""What a reduction has reached, to and from a safetensors file.

Its keys are `leaf_count`, `raw_weights`, and of each digit of the carry that is not empty `digits.<place>.0`,
its count, and `digits.<place>.1.<...>`, the arrays of its partial (`packing.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from aggregator_service.aggregation.packing import Arrays, packed, unpacked
from aggregator_service.aggregation.progress import Digit, Reached
from hetlora.adapter import AdapterSpec
from hetlora.errors import MalformedTensors


def reached_tensors(reached: Reached[Any]) -> Arrays:
    """What a reduction has reached, by key; the arrays of partials are not copied."""
    arrays = {
        "leaf_count": np.array(reached.leaf_count),
        "raw_weights": np.array(reached.raw_weights, np.float64),
    }
    for place, digit in enumerate(reached.digits):
        if digit is not None:
            arrays |= packed(digit, f"digits.{place}")
    return arrays


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
