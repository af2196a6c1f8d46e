"""A process that dies between any two steps of a round: database and store agree again, and nothing is lost.

A step is a transaction that begins, is about to commit or has committed, and a blob that is about to be
written or removed, or was. The process dies at each in turn, and the next is asked what a device asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace

import pytest
from fake_clock import FakeClock
from fake_device import CAPABILITIES, report_of
from service_bundle import make_adapter
from service_objects import kept_updates
from service_verbs import add_device, started_run
from sqlalchemy import select
from sqlalchemy.orm import Session

from aggregator_service.assignments import start, submit
from aggregator_service.objects import put
from aggregator_service.offers import check_in
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.blobs import Blobs
from aggregator_service.storage.database import Database
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.incoming import IncomingBlob
from aggregator_service.storage.store import Store
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from aggregator_service.sweep import sweep
from aggregator_service.updates import admit, keep_update
from aggregator_service.worker import tick
from hetlora.digest import sha256_of
from hetlora.messages.device import CapabilityReport, CheckIn, Report
from hetlora.states import AssignmentState, RoundState
from hetlora.tensors import adapter_to_bytes

UPDATE = make_adapter(2)
CopyOf = Callable[[Settings], AbstractContextManager[Settings]]


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


def take_offer(service: Service) -> None:
    message = CheckIn(
        protocol_version=1,
        sdk_version="",
        population="keyboard",
        capabilities=CapabilityReport.model_validate(CAPABILITIES),
        example_count=1,
    )
    offer = check_in(service, "device-1", message).offer
    assert offer is not None
    start(service, "device-1", offer.assignment_id, UPDATE.rank)


def own_assignment(service: Service) -> str:
    with service.database.read() as session:
        return session.scalars(select(AssignmentRow.id)).one()


def upload(service: Service, data: bytes) -> None:
    admission = admit(service, "device-1", own_assignment(service), sha256_of(data))
    with admission.folder.receive() as blob:
        blob.write(data)
        keep_update(service, admission, blob)


def upload_first(service: Service) -> None:
    upload(service, adapter_to_bytes(make_adapter(2, 3.0)))


def upload_again(service: Service) -> None:
    upload(service, adapter_to_bytes(UPDATE))


def hand_in(service: Service) -> None:
    receipt = submit(service, "device-1", own_assignment(service), Report.model_validate(report_of(UPDATE)))
    assert receipt.state is AssignmentState.ACCEPTED


ROUND: list[Callable[[Service], None]] = [take_offer, upload_first, upload_again, hand_in, tick]


def live_and_die(
    settings: Settings, clock: FakeClock, actions: list[Callable[[Service], None]], last: float
) -> int:
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


def count_steps(settings: Settings, clock: FakeClock, actions: list[Callable[[Service], None]]) -> int:
    return live_and_die(settings, clock, actions, float("inf"))


def check_agreement(service: Service) -> None:
    """Every row has its bytes."""
    with service.database.read() as session:
        versions = session.scalars(select(AdapterVersionRow)).all()
        for version in versions:
            service.objects.verify(version.id, version.sha256)
        assert len(versions) == 2
        assert session.scalars(select(RoundRow.state)).all() == [RoundState.COMMITTED]
        (assignment,) = session.scalars(select(AssignmentRow))
        assert (assignment.state, assignment.aggregation_weight) == (AssignmentState.ACCEPTED, 1)
        service.objects.verify("what was sent", str(assignment.adapter_sha256))
        assert assignment.update_sha256 == sha256_of(adapter_to_bytes(UPDATE))
    assert service.objects.read(versions[-1].sha256) == adapter_to_bytes(UPDATE)


@pytest.mark.slow
def test_round_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle)
        add_device(service)
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, ROUND)
    assert steps > 30
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, ROUND, last)
            with closing(open_service(alone, clock)) as service:
                check_agreement(service)


@pytest.mark.slow
def test_retention_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    unpublished = b"a file of a bundle that was never published"
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle)
        add_device(service)
        for action in ROUND:
            action(service)
        put(service, unpublished)
    clock.advance(settings.keep_updates_seconds)
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, [sweep])
    assert steps > 8
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, [sweep], last)
            with closing(open_service(alone, clock)) as service:
                check_agreement(service)
                assert kept_updates(service) == []
                assert service.objects.size_bytes(sha256_of(unpublished)) is None
