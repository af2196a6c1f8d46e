"""A process that dies between any two steps of a round: database and store agree, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import pytest
from fake_clock import FakeClock
from mortal_service import count_steps, live_and_die
from service_bundle import make_adapter
from service_objects import kept_updates, put
from service_verbs import add_device, assignment_of, report, started_run, take_offer, upload
from sqlalchemy import select

from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.digest import sha256_of
from hetlora.states import AssignmentState, RoundState
from hetlora.tensors import adapter_to_bytes

UPDATE = make_adapter(2)
CopyOf = Callable[[Settings], AbstractContextManager[Settings]]


def begin(service: Service) -> None:
    take_offer(service, "device-1", UPDATE.rank)


def upload_first(service: Service) -> None:
    upload(service, "device-1", assignment_of(service, "device-1"), make_adapter(2, 3.0))


def upload_again(service: Service) -> None:
    upload(service, "device-1", assignment_of(service, "device-1"), UPDATE)


def submit(service: Service) -> None:
    receipt = report(service, "device-1", assignment_of(service, "device-1"), UPDATE)
    assert receipt.state is AssignmentState.ACCEPTED


ROUND: list[Callable[[Service], None]] = [begin, upload_first, upload_again, submit, tick]


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
