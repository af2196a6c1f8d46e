"""The engine of a Ray cluster; the only file that imports ray.

Workers read updates from the service's storage, so its folder must be theirs too, under one path; partials
stay in Ray's object stores and are merged there in the shape of the tree. Only the last one comes back, with
one float per update beside it, and now and then the carry, to be kept (`progress.py`). Ray runs a task again
whose worker died, and makes again what a lost machine held.
"""

from __future__ import annotations

import copy
import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import ray
from ray.exceptions import RayError, RayTaskError

from aggregator_service.aggregation.engines import Source
from aggregator_service.aggregation.progress import NOWHERE, Digit, Progress, Reached
from aggregator_service.aggregation.rule import Rule, UpdateRef
from aggregator_service.aggregation.tree import (
    Aggregate,
    Carry,
    conclude,
    leaves,
    one_thread,
    reduce_leaf,
)
from hetlora.errors import ServiceFailed, SettingsError

# So that a worker has its next leaf at hand; more would only fill the object stores with partials.
IN_FLIGHT_PER_WORKER: Final = 2
MAX_RETRIES: Final = 3
CONNECT_SECONDS: Final = 10.0


class RayEngine:
    """Reduces as tasks on a cluster: one of this machine, of `workers` processes, or the one at `address`.

    Raises:
        SettingsError: no cluster answers at `address`, or it cannot be used.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        self._workers = workers
        join_cluster(workers, address)

    def aggregate(
        self, rule: Rule[Any], refs: Sequence[UpdateRef], source: Source, progress: Progress = NOWHERE
    ) -> Aggregate:
        """See `Engine`."""
        begun = progress.found(rule, refs)
        try:
            tasks = _Tasks(ray.put((rule, source)), IN_FLIGHT_PER_WORKER * self._workers)
            carry: Carry[Any] = Carry(cast(Any, tasks), [_each(ray.put, digit) for digit in begun.digits])
            raw: list[Any] = [ray.put(begun.raw_weights)]
            for part in leaves(refs, begun.leaf_count):
                partial, weights = tasks.reduce(part)
                raw.append(weights)
                carry.push(partial)
                if progress.due(carry.leaf_count):
                    digits = tuple(_each(ray.get, digit) for digit in carry.digits)
                    progress.keep(Reached(carry.leaf_count, digits, _joined(raw)))
            raw_weights = _joined(raw)
            total = copied(ray.get(carry.total())) if raw_weights else None
        except RayError as error:
            own = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(own, RayError):
                raise ServiceFailed("the Ray cluster fails", got=own) from error
            raise own from error
        return conclude(rule, refs, total, raw_weights)

    def close(self) -> None:
        """Leave the cluster; one of this machine ends."""
        ray.shutdown()


def join_cluster(workers: int, address: str | None = None) -> None:
    """Join the cluster at `address`, or start one of `workers` processes here; `ray.shutdown` leaves it.

    Raises:
        SettingsError: no cluster answers at `address`, or it cannot be used.
    """
    if address is not None:
        _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of ours reports home
    try:
        ray.init(
            address=address or "local",
            num_cpus=None if address else workers,
            include_dashboard=None if address else False,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            "the Ray cluster cannot be used", got=f"{address or 'one started here'}: {error}"
        ) from error


def _each(move: Callable[[Any], Any], digit: Digit[Any]) -> Digit[Any]:
    """A digit of a carry whose partial was brought here, or sent there."""
    return None if digit is None else (digit[0], move(digit[1]))


def _joined(raw: Sequence[Any]) -> tuple[float, ...]:
    return tuple(weight for weights in ray.get([*raw]) for weight in weights)


def _check_answers(address: str) -> None:
    """Raise SettingsError unless somebody listens there: ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            "no Ray cluster answers", got=f"{address}: {error}", expected="host:port of a cluster's head"
        ) from error


class _Tasks:
    """Starts tasks, few at a time; to a `Carry` it is a rule whose partials are elsewhere."""

    def __init__(self, opened: Any, most: int) -> None:
        self._opened, self._most = opened, most
        self._under_way: list[Any] = []

    def reduce(self, part: tuple[UpdateRef, ...]) -> tuple[Any, Any]:
        """Where the partial of a leaf, and its raw weights, will be."""
        partial, weights = self._started(_reduce, self._opened, part)
        return partial, weights

    def merge(self, left: Any, right: Any) -> Any:
        """Where the partial of both will be."""
        partial, _ = self._started(_merge, self._opened, left, right)
        return partial

    def _started(self, task: Any, *arguments: Any) -> tuple[Any, Any]:
        if len(self._under_way) == self._most:
            ended, self._under_way = ray.wait(self._under_way)
            ray.get(ended)  # a task that failed ends the round here
        partial, beside = task.remote(*arguments)
        self._under_way.append(beside)  # small, where the partial would be held by its reference
        return partial, beside


@ray.remote(num_returns=2, max_retries=MAX_RETRIES)
def _reduce(opened: tuple[Rule[Any], Source], part: tuple[UpdateRef, ...]) -> tuple[Any, tuple[float, ...]]:
    rule, source = opened
    subtotal = reduce_leaf(rule, part, source.load)
    return subtotal.partial, subtotal.raw_weights


@ray.remote(num_returns=2, max_retries=MAX_RETRIES)
def _merge(opened: tuple[Rule[Any], Source], left: Any, right: Any) -> tuple[Any, None]:
    rule, _ = opened
    with one_thread():
        return rule.merge(copied(left), copied(right)), None


def copied(partial: Any) -> Any:
    """A partial to write to: what comes out of an object store is shared, and read-only."""
    return copy.deepcopy(partial)
