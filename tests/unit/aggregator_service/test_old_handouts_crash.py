"""A process that dies between any two steps of the sweeps that end handouts: what is needed is there."""

from __future__ import annotations

from contextlib import closing

import pytest
from fake_clock import FakeClock
from mortal_service import Action, count_steps, live_and_die
from service_bundle import random_adapter
from service_verbs import add_device, hand_in, started_run, take_offer
from sqlalchemy import select
from test_crash_points import CopyOf
from test_old_handouts import BUFFERED, QUICK, handed_out, is_there

from aggregator_service.assignments.assignments import start
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.folder import BlobFolder
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from benchmarks.service.records import read_records
from benchmarks.service.stored_bytes import objects
from hetlora.states import LIVE_ASSIGNMENT


def bring_and_commit(service: Service) -> None:
    """The device that works on the newest version hands in, if its update is not in yet."""
    with service.database.read() as session:
        own = session.scalars(select(AssignmentRow).where(AssignmentRow.state.in_(LIVE_ASSIGNMENT))).first()
    if own is not None:
        hand_in(service, QUICK, own.id, random_adapter(1, seed=2))
    tick(service)


def actions(clock: FakeClock) -> list[Action]:
    """Sweeps, some a while apart, around the commit of a round."""

    def later(service: Service) -> None:
        clock.advance(2 * 86_400)
        sweep(service)

    return [sweep, later, bring_and_commit, later, later]


def check_bytes(service: Service) -> None:
    """What rows name is in the store, and whole."""

    def read(folder: str, digest: str) -> bytes:
        return (
            BlobFolder(service.store.incoming, service.settings.data_dir / folder).path(digest).read_bytes()
        )

    assert list(objects(read_records(service.database.engine), read)) == []


@pytest.mark.slow
def test_handouts_survive_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle, **BUFFERED)
        add_device(service, QUICK)
        old = start(service, QUICK, take_offer(service, QUICK, 1), 1)
        assert hand_in(service, QUICK, old.assignment_id, random_adapter(1, seed=1)).state == "accepted"
        tick(service)
        new = start(service, QUICK, take_offer(service, QUICK, 1), 1)
        assert handed_out(service) == [("0", 1), ("1", 1)]
    clock.advance(settings.keep_updates_seconds)
    with copy_of(settings) as whole:
        own = FakeClock(clock.now)
        steps = count_steps(whole, own, actions(own))
    assert steps > 30
    for last in range(steps):
        with copy_of(settings) as alone:
            own = FakeClock(clock.now)
            live_and_die(alone, own, actions(own), last)
            with closing(open_service(alone, own)) as service:
                check_bytes(service)
                assert handed_out(service) == []
                assert service.objects.size_bytes(old.adapter.sha256) is None
                assert is_there(service, new)  # as its round ended less than a week ago
                with service.database.read() as session:
                    assert len(session.scalars(select(AdapterVersionRow.id)).all()) == 3
