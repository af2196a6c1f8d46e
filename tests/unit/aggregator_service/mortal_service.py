"""A service whose process dies at any step, for those that look at what it leaves behind.

A step is a transaction that begins, is about to commit or has committed, and a blob that is about to be
written or removed, or was. The process dies at each in turn, and the next is asked what a device asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from fake_clock import FakeClock
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.database import Database
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.store import Store

Action = Callable[[Service], None]


class Death(BaseException):
    """The process is gone: nothing of it catches this."""


@dataclass
class Steps:
    """Counts steps, and dies at one of them."""

    last: float
    taken: int = 0

    def step(self) -> None:
        self.taken += 1
        if self.taken > self.last:
            raise Death


class MortalDatabase(Database):
    """The database of a process that dies."""

    def __init__(self, whole: Database, steps: Steps) -> None:
        self.engine, self._whole, self._steps = whole.engine, whole, steps

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._whole.read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        self._steps.step()
        with self._whole.write() as session:
            yield session
            session.flush()
            self._steps.step()
        self._steps.step()

    @contextmanager
    def note(self) -> Iterator[Connection]:
        self._steps.step()
        with self._whole.note() as connection:
            yield connection
            self._steps.step()
        self._steps.step()


@dataclass(frozen=True)
class MortalFolder(BlobFolder):
    """The blobs of a process that dies."""

    steps: Steps

    def remove(self, sha256: str) -> None:
        self.steps.step()
        super().remove(sha256)
        self.steps.step()

    def drop(self) -> None:
        self.steps.step()
        super().drop()
        self.steps.step()

    def _store(self, blob: IncomingBlob) -> None:
        self.steps.step()
        super()._store(blob)
        self.steps.step()


@dataclass(frozen=True)
class MortalStore(Store):
    """The store of a process that dies."""

    steps: Steps = field(kw_only=True)

    def blobs(self, folder: str) -> Blobs:
        return MortalFolder(self.incoming, self.data_dir / folder, self.steps)


def mortal(service: Service, steps: Steps) -> Service:
    store = MortalStore(service.store.data_dir, steps=steps)
    return replace(
        service,
        database=MortalDatabase(service.database, steps),
        store=store,
        objects=store.blobs("objects"),
    )


def live_and_die(settings: Settings, clock: FakeClock, actions: list[Action], last: float) -> int:
    """Do the actions in order; whoever dies in one is followed by one who does it again, and the rest."""
    steps = Steps(last)
    with closing(open_service(settings, clock)) as service:
        dying: Service | None = mortal(service, steps)
        for action in actions:
            if dying is not None:
                try:
                    action(dying)
                    continue
                except Death:
                    dying = None
            action(service)
    return steps.taken


def count_steps(settings: Settings, clock: FakeClock, actions: list[Action]) -> int:
    return live_and_die(settings, clock, actions, float("inf"))
