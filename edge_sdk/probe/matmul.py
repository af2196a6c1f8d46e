"""How fast one core multiplies matrices: in general, and at the shapes of a model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from edge_sdk.probe.bursts import good_seconds
from edge_sdk.probe.model_shape import ModelShape
from edge_sdk.probe.source import source

# Products of 64 x 64 matrices are the largest that OpenBLAS never splits over threads: on a busy machine its
# threads wait for each other, and a large product was seen to take 40 times as long on two of them as on one.
_MATRICES: Final = 32
_MATRIX_SIZE: Final = 64
_MATMUL_SECONDS: Final = 0.2
_MODEL_SECONDS: Final = 0.3
_CACHE_LINE: Final = 64
# Where malloc puts what is large, after its own note. Left to chance, the place makes 15 % of difference.
_BEYOND_LINE: Final = 16
# Kernels for registers of any length (SVE) set flags of overflow, of which numpy would warn.
_no_warnings: Final = np.errstate(all="ignore")


@source
@_no_warnings
def measure_matmul(
    *, seconds: float = _MATMUL_SECONDS, timer: Callable[[], float] = time.perf_counter
) -> float:
    """Float32 operations per second of matrix products on one core, the same products on every device."""
    left, right, product = (_numbers(_MATRICES, _MATRIX_SIZE, _MATRIX_SIZE) for _ in range(3))
    took = good_seconds(lambda: np.matmul(left, right, out=product), seconds=seconds, timer=timer)
    return 2 * _MATRICES * _MATRIX_SIZE**3 / took


@source
@_no_warnings
def measure_model_matmul(
    shape: ModelShape, *, seconds: float = _MODEL_SECONDS, timer: Callable[[], float] = time.perf_counter
) -> float | None:
    """The same of the products that a step of this model takes, each layer's counted as often as it comes.

    These are large enough for a BLAS to split them, so for this moment all BLAS libraries of the process keep
    to one thread. Unknown where none can be held to that (Apple's Accelerate): the rate would be of no one
    knows how many cores.
    """
    libraries = ThreadpoolController().select(user_api="blas")
    if not libraries.lib_controllers:
        return None
    flops = took = 0.0
    with libraries.limit(limits=1):
        for layer in shape.layers:
            values = _numbers(shape.rows, layer.in_features)
            weight = _numbers(layer.in_features, layer.out_features)  # as the graphs of a bundle have it
            burst = partial(np.matmul, values, weight, out=_numbers(shape.rows, layer.out_features))
            good = good_seconds(burst, seconds=seconds / len(shape.layers), timer=timer)
            flops += layer.count * 2 * shape.rows * weight.size
            took += layer.count * good
    return flops / took


def _numbers(*shape: int) -> NDArray[np.float32]:
    size = 4 * math.prod(shape)
    room = np.empty(size + 2 * _CACHE_LINE, np.uint8)
    start = -room.ctypes.data % _CACHE_LINE + _BEYOND_LINE
    numbers = room[start : start + size].view(np.float32).reshape(shape)
    numbers[...] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return numbers
