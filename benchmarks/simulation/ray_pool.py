"""Trainings as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from aggregator_service.aggregation.engines.ray_cluster import join_cluster
from benchmarks.simulation.fleet_file import TrainingFor
from benchmarks.simulation.trained_updates import Pending, Training
from benchmarks.simulation.updates import Made


@dataclass(frozen=True, slots=True)
class _Task:
    reference: Any

    def result(self) -> Made:
        try:
            made: Made = ray.get(self.reference)
        except RayTaskError as error:
            raise error.cause from error
        return made


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster, whose machines have the bundle's folder under the same path."""

    def submit(self, train: Callable[[Training], Made], training: Training, /) -> Pending:
        """See `Pool`."""
        return _Task(ray.remote(train).remote(training))


@contextmanager
def opened_cluster(asked: TrainingFor) -> Iterator[Cluster]:
    """A cluster of this machine, or the one of the fleet file; see `join_cluster`."""
    join_cluster(asked.workers, asked.ray_address)
    try:
        yield Cluster()
    finally:
        ray.shutdown()
