"""A process that dies between any two steps of an upload: the next goes on from the last part told."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import pytest
from fake_clock import FakeClock
from mortal_service import Action, Death, Steps, count_steps, mortal
from service_bundle import make_adapter
from service_objects import kept_updates, stored_parts
from service_verbs import add_device, started_run, take_offer
from sqlalchemy import select

from aggregator_service.assignments.upload_parts import keep_part, terms_of_part
from aggregator_service.assignments.uploads import begin_upload, end_upload
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AssignmentRow, UploadPartRow, UploadRow
from aggregator_service.worker.sweep import sweep
from hetlora.digest import sha256_of
from hetlora.errors import MalformedTensors
from hetlora.messages.common import ObjectRef
from hetlora.tensors import adapter_to_bytes

UPDATE = adapter_to_bytes(make_adapter(2))
BAD = b"no tensors" * 40
PART_BYTES = 150
LEASE_SECONDS = 1000
CopyOf = Callable[[Settings], AbstractContextManager[Settings]]


def bring(service: Service, data: bytes, told: list[int] | None = None) -> None:
    """Bring an update in parts, from where it stands; `told` gets what the service acknowledged."""
    told = [] if told is None else told
    with service.database.read() as session:
        assignment_id = session.scalars(select(AssignmentRow.id)).one()
    promised = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
    upload = begin_upload(service, "device-1", assignment_id, promised)
    told.append(upload.offset_bytes)
    while upload.missing_bytes:
        part = terms_of_part(service, "device-1", upload.id, told[-1])
        with part.folder.receive() as blob:
            blob.write(data[told[-1] : told[-1] + PART_BYTES])
            upload = keep_part(service, part, blob)
        told.append(upload.offset_bytes)


def check_parts(service: Service) -> None:
    """Every row of a part has its bytes."""
    with service.database.read() as session:
        for part in session.scalars(select(UploadPartRow)):
            assert service.uploads(part.upload_id).size_bytes(part.sha256) == part.size_bytes


def check_nothing_left(service: Service) -> None:
    sweep(service)
    with service.database.read() as session:
        assert session.scalars(select(UploadRow)).all() == []
        assert session.scalars(select(UploadPartRow)).all() == []
    assert stored_parts(service) == []


@pytest.fixture
def training(settings: Settings, bundle: str, clock: FakeClock) -> Settings:
    """A stopped service with a device that trains."""
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle, lease_seconds=LEASE_SECONDS)
        take_offer(service, add_device(service), rank=2)
    return settings


@pytest.mark.slow
def test_upload_survives_a_death_at_any_step(training: Settings, clock: FakeClock, copy_of: CopyOf) -> None:
    with copy_of(training) as whole:
        steps = count_steps(whole, clock, [lambda service: bring(service, UPDATE)])
    assert steps > 20
    for last in range(steps):
        with copy_of(training) as alone, closing(open_service(alone, clock)) as service:
            told: list[int] = [0]
            with pytest.raises(Death):
                bring(mortal(service, Steps(last)), UPDATE, told)
            check_parts(service)
            again: list[int] = []
            bring(service, UPDATE, again)
            # The part under way was lost, or its answer.
            assert again[0] in (told[-1], min(told[-1] + PART_BYTES, len(UPDATE)))
            assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]
            clock.advance(LEASE_SECONDS)
            check_nothing_left(service)
            clock.advance(-LEASE_SECONDS)
            assert [path.read_bytes() for path in kept_updates(service)] == [UPDATE]


def refused(service: Service) -> None:
    with pytest.raises(MalformedTensors):
        bring(service, BAD)


def ended(service: Service) -> None:
    with service.database.read() as session:
        upload_id = session.scalars(select(UploadRow.id)).first()
    if upload_id is not None:
        end_upload(service, "device-1", upload_id)


@pytest.mark.slow
@pytest.mark.parametrize("action", [refused, ended, sweep])
def test_end_of_an_upload_survives_a_death_at_any_step(
    training: Settings, clock: FakeClock, copy_of: CopyOf, action: Action
) -> None:
    with closing(open_service(training, clock)) as service:
        dying = mortal(service, Steps(14))  # some parts are in by then
        with pytest.raises(Death):
            bring(dying, UPDATE)
        assert stored_parts(service)
    if action is sweep:
        clock.advance(LEASE_SECONDS)
    with copy_of(training) as whole:
        steps = count_steps(whole, clock, [action])
    assert steps > 4
    for last in range(steps):
        with copy_of(training) as alone, closing(open_service(alone, clock)) as service:
            with pytest.raises(Death):
                action(mortal(service, Steps(last)))
            check_parts(service)
            action(service)
            clock.advance(LEASE_SECONDS)
            check_nothing_left(service)
            clock.advance(-LEASE_SECONDS)
            assert kept_updates(service) == []
