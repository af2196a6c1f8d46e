"""How fast one core moves bytes through memory."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from edge_sdk.probe.bursts import good_seconds
from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, text
from edge_sdk.units import MIB

_BANDWIDTH_SECONDS: Final = 0.3
# A block and its copy pass the cache four times together. They are also what the process has once held, which
# the peak of its memory tells from then on: so they stay below what any training takes.
_CACHES: Final = 2
_USUAL_CACHE_BYTES: Final = 8 * MIB  # where the kernel tells of none, as on many ARM boards
_LEAST_BLOCK_BYTES: Final = 4 * MIB
_MOST_BLOCK_BYTES: Final = 16 * MIB
_MEMORY_SHARE: Final = 1 / 16  # of what is free, for each of the two
_UNITS: Final = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}


@source
def measure_bandwidth(
    system: System,
    available_bytes: int | None,
    *,
    seconds: float = _BANDWIDTH_SECONDS,
    timer: Callable[[], float] = time.perf_counter,
) -> float | None:
    """Bytes per second, read and written together, of copies of a block that no cache holds.

    Where a cache is larger than the block may be, as servers share one of hundreds of megabytes, the rate is
    partly the cache's. Unknown where so little memory is free that a block would do harm.
    """
    size = block_bytes(last_level_cache_bytes(system), available_bytes)
    if size is None:
        return None
    block = np.ones(size, np.uint8)  # not zeros: pages that nobody wrote to are all the same one
    copy = np.empty_like(block)
    return 2 * size / good_seconds(lambda: np.copyto(copy, block), seconds=seconds, timer=timer)


def block_bytes(cache_bytes: int | None, available_bytes: int | None) -> int | None:
    """How large the block is to be; None where there is no room for one that would do."""
    wanted = max(_LEAST_BLOCK_BYTES, _CACHES * (cache_bytes or _USUAL_CACHE_BYTES))
    room = _MOST_BLOCK_BYTES if available_bytes is None else int(_MEMORY_SHARE * available_bytes)
    size = min(wanted, room, _MOST_BLOCK_BYTES)
    return size if size >= _LEAST_BLOCK_BYTES else None


def last_level_cache_bytes(system: System) -> int | None:
    """The size of the first processor's largest cache."""
    files = system.sys.glob("devices/system/cpu/cpu0/cache/index*/size")
    sizes = [re.fullmatch(r"(\d{1,12})([KMG]?)", text(path)) for path in files]
    return max((int(size[1]) * _UNITS[size[2]] for size in sizes if size), default=0) or None
