"""A round of many updates that waits to be aggregated, made without as many devices; who aggregates it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service_bundle import random_adapter
from service_verbs import add_device, deliver, started_run
from sqlalchemy import inspect, select

from aggregator_service.aggregation.engines import Source
from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.progress import NOWHERE, Progress, Reached
from aggregator_service.aggregation.rule import Rule, Update, UpdateRef
from aggregator_service.aggregation.tree import Aggregate
from aggregator_service.service import Service
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.tables import AssignmentRow
from hetlora.digest import sha256_of
from hetlora.tensors import adapter_to_bytes


def add_large_round(service: Service, bundle: str, count: int, **settings: object) -> str:
    """The run of a round with so many accepted updates: one that a device delivered, and others beside it."""
    run_id = started_run(service, bundle, **settings)
    deliver(service, add_device(service), random_adapter(2, 0))
    with service.database.write() as session:
        first = session.scalars(select(AssignmentRow)).one()
        columns = {own.key: getattr(first, own.key) for own in inspect(AssignmentRow).column_attrs}
        folder = service.updates(first.round_id)
        assert isinstance(folder, BlobFolder)
        for number in range(1, count):
            data = adapter_to_bytes(random_adapter(2, number))
            path = folder.path(sha256 := sha256_of(data))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)  # not `put`, which waits for the disk each time
            session.add(AssignmentRow(**columns | {"id": f"more-{number:06}", "update_sha256": sha256}))
    return run_id


class Death(BaseException):
    """The process is gone: nothing of it catches this."""


def die() -> None:
    raise Death


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Noted:
    """Notes in a file, from whatever process, what is read."""

    source: Source
    notes: Path

    def load(self, ref: UpdateRef) -> Update:
        with self.notes.open("a") as file:
            file.write(f"{ref.sha256}\n")
        return self.source.load(ref)


@dataclass(frozen=True)
class EveryLeaf:
    """Keeps what was reached after every leaf, until the process dies with one that is done and not kept."""

    progress: Progress
    last: int
    end: Callable[[], None]

    def found(self, rule: Rule[Any], refs: Sequence[UpdateRef]) -> Reached[Any]:
        return self.progress.found(rule, refs)

    def due(self, leaf_count: int) -> bool:
        if leaf_count > self.last:
            self.end()
        return True

    def keep(self, reached: Reached[Any]) -> None:
        self.progress.keep(reached)


@dataclass(frozen=True)
class Watched:
    """A local engine that notes what it reads, keeps every leaf, and dies after so many."""

    notes: Path
    workers: int = 1
    last: int = sys.maxsize
    end: Callable[[], None] = die

    def aggregate(
        self, rule: Rule[Any], refs: Sequence[UpdateRef], source: Source, progress: Progress = NOWHERE
    ) -> Aggregate:
        progress = EveryLeaf(progress, self.last, self.end)
        return LocalEngine(self.workers).aggregate(rule, refs, Noted(source, self.notes), progress)

    def close(self) -> None:
        """Nothing is held."""

    def read(self) -> list[str]:
        """The digests of all updates that were read, in no certain order."""
        return self.notes.read_text().split() if self.notes.exists() else []


def watched(service: Service, engine: Watched) -> Service:
    return replace(service, engine=engine)
