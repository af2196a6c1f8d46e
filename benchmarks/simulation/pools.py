"""Where real trainings run: processes of this machine, or tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from benchmarks.simulation.fleet_file import TrainingFor
from benchmarks.simulation.trained_updates import Pool
from hetlora.errors import DependencyMissing


@contextmanager
def opened_pool(asked: TrainingFor) -> Iterator[Pool]:
    """The pool that a fleet file asks for, ended with the block.

    Raises:
        DependencyMissing: Ray is not installed.
        SettingsError: no cluster answers.
    """
    if asked.backend == "processes":
        # Spawned, as a forked one may have another's locks.
        with ProcessPoolExecutor(asked.workers, mp_context=get_context("spawn")) as executor:
            yield executor
        return
    try:
        from benchmarks.simulation.ray_pool import opened_cluster
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "the backend ray is not installed",
            got=f"no module {error.name}",
            expected="pip install 'hetlora[ray]'",
        ) from error
    with opened_cluster(asked) as pool:
        yield pool
