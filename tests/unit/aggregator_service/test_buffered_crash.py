"""A process that dies between any two steps of a buffered run, with a device that outlives a round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial

import pytest
from fake_clock import FakeClock
from fake_device import report_of
from mortal_service import count_steps, live_and_die
from service_bundle import random_adapter
from service_verbs import add_device, started_run, take_offer
from sqlalchemy import select

from aggregator_service.assignments import submit
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RoundRow, RunRow
from aggregator_service.sweep import sweep
from aggregator_service.updates import admit, keep_update
from aggregator_service.worker import tick
from hetlora.digest import sha256_of
from hetlora.messages.device import Report
from hetlora.states import AssignmentState, RoundState, RunState
from hetlora.tensors import adapter_to_bytes

CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
QUICK, SLOW = "device-1", "device-2"
UPDATES = {QUICK: random_adapter(2, seed=1), SLOW: random_adapter(2, seed=2)}


def begin(device: str, service: Service) -> None:
    take_offer(service, device)


def own_assignment(service: Service, device: str) -> str:
    with service.database.read() as session:
        return session.scalars(select(AssignmentRow.id).where(AssignmentRow.device_id == device)).one()


def upload(device: str, service: Service) -> None:
    data = adapter_to_bytes(UPDATES[device])
    admission = admit(service, device, own_assignment(service, device), sha256_of(data))
    with admission.folder.receive() as blob:
        blob.write(data)
        keep_update(service, admission, blob)


def hand_in(device: str, service: Service) -> None:
    report = Report.model_validate(report_of(UPDATES[device]))
    receipt = submit(service, device, own_assignment(service, device), report)
    assert receipt.state is AssignmentState.ACCEPTED


# The slow device uploads before the first round closes, and hands in while it waits to be aggregated.
RUN: list[Callable[[Service], None]] = [
    partial(begin, SLOW),
    partial(begin, QUICK),
    partial(upload, QUICK),
    partial(upload, SLOW),
    partial(hand_in, QUICK),
    partial(hand_in, SLOW),
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
