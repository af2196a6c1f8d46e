"""What this device can do: cores, memory, arithmetic, disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from edge_sdk.memory import measure_memory
from hetlora.messages.device import CapabilityReport

# Products of 64 x 64 matrices are the largest that OpenBLAS never splits over threads: on a busy machine its
# threads wait for each other, and a large product was seen to take 40 times as long on two of them as on one.
_MATRICES: Final = 32
_MATRIX_SIZE: Final = 64
_MATMUL_SECONDS: Final = 0.2


def measure_capabilities(
    folder: Path,
    *,
    matmul_flops_per_second: float | None = None,
    traffic_bytes_per_round: int | None = None,
) -> CapabilityReport:
    """Measure this device, in less than half a second.

    Args:
        folder: where the device folder lies; its file system's free space is reported.
        matmul_flops_per_second: a rate measured before, to spare the measurement.
        traffic_bytes_per_round: what adapters may take over the network in a round; nobody can measure that.
    """
    memory = measure_memory()
    return CapabilityReport(
        source="measured",
        cores=usable_cores(),
        memory_total_bytes=memory.total_bytes,
        memory_available_bytes=memory.available_bytes,
        matmul_flops_per_second=matmul_flops_per_second or measure_matmul(),
        disk_free_bytes=shutil.disk_usage(folder).free,
        traffic_bytes_per_round=traffic_bytes_per_round,
    )


def usable_cores() -> int:
    """The processor cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure_matmul(
    *, seconds: float = _MATMUL_SECONDS, timer: Callable[[], float] = time.perf_counter
) -> float:
    """Float32 operations per second of matrix products on one core.

    The best of several tries counts, since other work on the machine can only slow one down.
    """
    rng = np.random.default_rng(0)
    shape = (2, _MATRICES, _MATRIX_SIZE, _MATRIX_SIZE)
    left, right = rng.standard_normal(shape, dtype=np.float32)
    product = left @ right  # brings data into the caches and the core to its clock
    best = float("inf")
    end = timer() + seconds
    while timer() < end or best == float("inf"):
        started = timer()
        np.matmul(left, right, out=product)
        best = min(best, timer() - started)
    return 2 * _MATRICES * _MATRIX_SIZE**3 / max(best, 1e-9)
