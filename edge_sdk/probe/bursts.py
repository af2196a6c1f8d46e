"""How rates are measured: many short bursts, of which a good one counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

SHORTEST_SECONDS: Final = 1e-9  # what a clock that does not move is taken for


def good_seconds(burst: Callable[[], object], *, seconds: float, timer: Callable[[], float]) -> float:
    """The seconds that a good one of several bursts took; there is one at least, and none begins too late."""
    burst()  # brings data into the caches and the core to its clock
    times: list[float] = []
    end = timer() + seconds
    while timer() < end or not times:
        started = timer()
        burst()
        times.append(timer() - started)
    return good_of(times)


def good_of(times: Sequence[float]) -> float:
    """The time that a tenth of them are better than: of fewer than ten the best.

    Other work on the machine can only slow a burst down, so a busy device and an idle one come out alike, as
    long as a burst fits between two turns of the others. The very best of a thousand is a stroke of luck, and
    does not come twice.
    """
    return max(sorted(times)[len(times) // 10], SHORTEST_SECONDS)
