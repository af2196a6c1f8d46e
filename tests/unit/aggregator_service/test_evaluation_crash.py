"""A process that dies between any two steps of an evaluation: each report is counted once."""

from __future__ import annotations

from contextlib import closing

import pytest
from evaluation_verbs import EVALUATION, REPORT, asked, evaluation_of
from fake_clock import FakeClock
from mortal_service import Action, count_steps, live_and_die
from service_bundle import make_adapter
from service_verbs import add_device, deliver, started_run
from sqlalchemy import select
from test_crash_points import CopyOf

from aggregator_service.assignments.evaluating import start, submit
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.tables import RunRow
from aggregator_service.worker.worker import tick
from hetlora.errors import StateConflict


def take(device_id: str) -> Action:
    def act(service: Service) -> None:
        offer = asked(service, device_id).offer
        if offer is not None:
            start(service, device_id, offer.assignment_id, 1)

    return act


def hand_in(device_id: str) -> Action:
    def act(service: Service) -> None:
        with service.database.read() as session:
            mine = EvaluationAssignmentRow.device_id == device_id
            assignment_id = session.scalars(select(EvaluationAssignmentRow.id).where(mine)).one()
        try:
            assert submit(service, device_id, assignment_id, REPORT).state == "accepted"
        except StateConflict:  # it died before it had started
            start(service, device_id, assignment_id, 1)
            submit(service, device_id, assignment_id, REPORT)

    return act


EVALUATE: list[Action] = [
    tick,
    take("device-1"),
    take("device-2"),
    hand_in("device-1"),
    hand_in("device-2"),
    tick,
]


@pytest.mark.slow
def test_evaluation_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        started_run(service, bundle, evaluation=EVALUATION)
        for number in range(3):
            add_device(service, f"device-{number}")
        deliver(service, "device-0", make_adapter(2))
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, EVALUATE)
    assert steps > 20
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, EVALUATE, last)
            with closing(open_service(alone, clock)) as service:
                with service.database.read() as session:
                    run_id = session.scalars(select(RunRow.id)).one()
                ended = evaluation_of(service, run_id)
                assert ended is not None
                assert (ended.state, ended.reports) == ("closed", 2), last
                assert ended.figures is not None
                assert ended.figures.example_count == 20
