"""The engine of one machine: this process alone, or several that each reduce whole leaves."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, Final

from aggregator_service.aggregation.engines import Source
from aggregator_service.aggregation.progress import NOWHERE, Progress
from aggregator_service.aggregation.rule import Rule, UpdateRef
from aggregator_service.aggregation.tree import Aggregate, Subtotal, finish, leaves, reduce_leaf
from hetlora.errors import ServiceFailed

# So that a worker has its next leaf at hand; more would only fill memory with partials.
IN_FLIGHT_PER_WORKER: Final = 2
# In a row, without a leaf between: then it is no accident that kills them.
MAX_DEATHS: Final = 3


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """Reduces in this process, or with `workers` processes that live as long as a round is reduced."""

    workers: int = 1

    def aggregate(
        self, rule: Rule[Any], refs: Sequence[UpdateRef], source: Source, progress: Progress = NOWHERE
    ) -> Aggregate:
        """See `Engine`."""
        begun = progress.found(rule, refs)
        parts = deque(leaves(refs, begun.leaf_count))
        workers = min(self.workers, len(parts))
        alone = (reduce_leaf(rule, part, source.load) for part in parts)
        subtotals = alone if workers <= 1 else _reduced(rule, parts, source, workers)
        return finish(rule, refs, subtotals, begun, progress)

    def close(self) -> None:
        """Nothing outlives a round."""


def _reduced(
    rule: Rule[Any], parts: deque[tuple[UpdateRef, ...]], source: Source, workers: int
) -> Iterator[Subtotal[Any]]:
    """The subtotals of the parts in their order; those that a dead worker left are reduced again."""
    deaths = 0
    while parts:
        with _Pool(rule, source, workers) as pool:
            try:
                for subtotal in pool.subtotals(parts):
                    parts.popleft()
                    deaths = 0
                    yield subtotal
            except BrokenProcessPool as error:
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise ServiceFailed(
                        "worker processes of the aggregation die", got=f"{deaths} in a row"
                    ) from error


class _Pool:
    """Processes that know a round's rule and its source."""

    def __init__(self, rule: Rule[Any], source: Source, workers: int) -> None:
        self._in_flight = IN_FLIGHT_PER_WORKER * workers
        # Spawned: a service has threads, whose locks a fork would copy as they stand.
        self._executor = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_open, initargs=(rule, source)
        )

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def subtotals(self, parts: Sequence[tuple[UpdateRef, ...]]) -> Iterator[Subtotal[Any]]:
        """Subtotals in order, of which only so many are under way or waiting at a time."""
        ahead: deque[Future[Subtotal[Any]]] = deque()
        for part in list(parts):
            if len(ahead) == self._in_flight:
                yield ahead.popleft().result()
            ahead.append(self._executor.submit(_reduce, part))
        while ahead:
            yield ahead.popleft().result()


_opened: tuple[Rule[Any], Source]


def _open(rule: Rule[Any], source: Source) -> None:
    """What a worker does first."""
    global _opened
    _opened = rule, source
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """A killed service must not leave workers behind, who would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _reduce(part: tuple[UpdateRef, ...]) -> Subtotal[Any]:
    rule, source = _opened
    return reduce_leaf(rule, part, source.load)
