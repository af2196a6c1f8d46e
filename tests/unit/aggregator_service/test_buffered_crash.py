"""A process that dies between any two steps of a buffered run, with a device that outlives a round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial

import pytest
from fake_clock import FakeClock
from mortal_service import count_steps, live_and_die
from service_bundle import random_adapter
from service_verbs import add_device, assignment_of, report, started_run, take_offer, upload
from sqlalchemy import select

from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.states import AssignmentState, RoundState, RunState

CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
QUICK, SLOW = "device-1", "device-2"
UPDATES = {QUICK: random_adapter(2, seed=1), SLOW: random_adapter(2, seed=2)}


def begin(device: str, service: Service) -> None:
    take_offer(service, device)


def bring(device: str, service: Service) -> None:
    upload(service, device, assignment_of(service, device), UPDATES[device])


def submit(device: str, service: Service) -> None:
    receipt = report(service, device, assignment_of(service, device), UPDATES[device])
    assert receipt.state is AssignmentState.ACCEPTED


# The slow device uploads before the first round closes, and hands in while it waits to be aggregated.
RUN: list[Callable[[Service], None]] = [
    partial(begin, SLOW),
    partial(begin, QUICK),
    partial(bring, QUICK),
    partial(bring, SLOW),
    partial(submit, QUICK),
    partial(submit, SLOW),
    tick,
    sweep,
]


def outcome(service: Service) -> list[str]:
    """The digests of all versions, once everything is found to be right."""
    with service.database.read() as session:
        assert session.scalars(select(RoundRow.state)).all() == [RoundState.COMMITTED] * 2
        assert session.scalars(select(RunRow.state)).one() is RunState.COMPLETED
        own = session.scalars(select(AssignmentRow).order_by(AssignmentRow.device_id)).all()
        assert [(row.state, row.staleness, row.aggregation_weight) for row in own] == [
            (AssignmentState.ACCEPTED, 0, 1),
            (AssignmentState.ACCEPTED, 1, 1),
        ]
        versions = session.scalars(select(AdapterVersionRow).order_by(AdapterVersionRow.id)).all()
    for row in own:
        service.updates(row.offered_in).verify("an update", str(row.update_sha256))
    for version in versions:
        service.objects.verify(version.id, version.sha256)
    return [version.sha256 for version in versions]


@pytest.mark.slow
def test_buffered_run_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        rule = {"name": "residual_exact"}
        started_run(service, bundle, mode="buffered", rule=rule, rounds=2, over_selection=2.0)
        for device in (QUICK, SLOW):
            add_device(service, device)
    made = set()
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, RUN)
        with closing(open_service(whole, clock)) as service:
            made.add(tuple(outcome(service)))
    assert steps > 40
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, RUN, last)
            with closing(open_service(alone, clock)) as service:
                made.add(tuple(outcome(service)))
    assert len(made) == 1
