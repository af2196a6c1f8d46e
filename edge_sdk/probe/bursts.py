"""How rates are measured: many short bursts, of which the best counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

SHORTEST_SECONDS: Final = 1e-9  # what a clock that does not move is taken for


def best_seconds(burst: Callable[[], object], *, seconds: float, timer: Callable[[], float]) -> float:
    """The seconds that the best of several bursts took; there is one at least, and none begins too late.

    The best, since other work on the machine can only slow one down: so a busy device and an idle one of the
    same make come out alike, as long as a burst fits between two turns of the others.
    """
    burst()  # brings data into the caches and the core to its clock
    best = float("inf")
    end = timer() + seconds
    while timer() < end or best == float("inf"):
        started = timer()
        burst()
        best = min(best, timer() - started)
    return max(best, SHORTEST_SECONDS)
