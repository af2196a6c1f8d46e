"""Runs that begin and end by themselves: stop rules and schedules."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from evaluation_verbs import EVALUATION, commit, report
from fake_clock import FakeClock
from pydantic import ValidationError
from service_verbs import add_device, started_run, take_offer
from sqlalchemy import select

from aggregator_service.rounds.runs import change_run, create_run
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationRow
from aggregator_service.storage.tables import RoundRow, RunRow, TransitionRow
from aggregator_service.worker.worker import tick
from hetlora.errors import SettingsError
from hetlora.messages.evaluation import EvaluationReport
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import EvaluationState, RoundState, RunState


@pytest.fixture
def devices(service: Service) -> list[str]:
    return [add_device(service, f"device-{number}") for number in range(2)]


def run_of(service: Service, run_id: str) -> RunRow:
    with service.database.read() as session:
        return session.get_one(RunRow, run_id)


def states_of_rounds(service: Service, run_id: str) -> list[RoundState]:
    with service.database.read() as session:
        return list(
            session.scalars(select(RoundRow.state).where(RoundRow.run_id == run_id).order_by(RoundRow.id))
        )


def scored_run(service: Service, bundle: str, **stop: Any) -> str:
    run_id = started_run(service, bundle, rounds=9, evaluation=EVALUATION, stop=stop)
    add_device(service, "trainer")
    return run_id


def score(service: Service, devices: list[str], loss: float, correct_count: int) -> None:
    """A round and its evaluation by both devices."""
    commit(service, "trainer")
    for device in devices:
        report(service, device, EvaluationReport(example_count=10, loss=loss, correct_count=correct_count))


def test_run_is_completed_when_the_accuracy_is_reached(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = scored_run(service, bundle, accuracy=0.8)
    score(service, devices, 0.5, 7)
    assert run_of(service, run_id).state is RunState.RUNNING
    score(service, devices, 0.4, 8)
    run = run_of(service, run_id)
    assert (run.state, run.rounds_committed) == (RunState.COMPLETED, 2)
    assert run.reason == "stop rule: accuracy 0.8, 0.8 was asked for"
    assert states_of_rounds(service, run_id) == [
        RoundState.COMMITTED,
        RoundState.COMMITTED,
        RoundState.ABANDONED,
    ]
    with service.database.read() as session:
        assert set(session.scalars(select(EvaluationRow.state))) == {EvaluationState.CLOSED}


def test_run_is_completed_when_the_loss_is_reached(service: Service, bundle: str, devices: list[str]) -> None:
    run_id = scored_run(service, bundle, loss=0.45)
    score(service, devices, 0.5, 7)
    score(service, devices, 0.4, 7)
    assert run_of(service, run_id).reason == "stop rule: loss 0.4, 0.45 was asked for"


def test_rule_that_is_met_while_another_evaluation_lapses_ends_the_run_once(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    evaluation = {"devices": 5, "minimum_reports": 2, "window_seconds": 60}
    run_id = started_run(service, bundle, rounds=9, evaluation=evaluation, stop={"loss": 0.5})
    commit(service, add_device(service, "trainer"))
    for device in devices:
        report(service, device, EvaluationReport(example_count=10, loss=0.1, correct_count=5))
    clock.advance(1)
    commit(service, "trainer")
    clock.advance(100)
    tick(service)
    assert run_of(service, run_id).state is RunState.COMPLETED


def test_run_is_completed_when_losses_fall_no_more(service: Service, bundle: str, devices: list[str]) -> None:
    run_id = scored_run(service, bundle, patience=2)
    for loss in (0.5, 0.4, 0.45):
        score(service, devices, loss, 5)
    assert run_of(service, run_id).state is RunState.RUNNING
    score(service, devices, 0.4, 5)  # as good as the best is no better
    run = run_of(service, run_id)
    assert (run.state, run.rounds_committed) == (RunState.COMPLETED, 4)
    assert run.reason == "stop rule: 2 evaluations in a row no better than loss 0.4"


def test_run_that_never_gathers_its_updates_has_failed(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    run_id = started_run(service, bundle, report_window_seconds=60, stop={"abandoned_rounds": 2})
    device = add_device(service)
    for _ in range(2):
        take_offer(service, device)
        clock.advance(61)
        tick(service)
    run = run_of(service, run_id)
    assert run.state is RunState.FAILED
    assert run.reason.startswith("stop rule: round 0 was abandoned 2 times; report window closed with 0 of 1")
    assert states_of_rounds(service, run_id) == [RoundState.ABANDONED] * 2


def scheduled(service: Service, bundle: str, clock: FakeClock, **after_seconds: float) -> str:
    moments = {name: clock.now + timedelta(seconds=seconds) for name, seconds in after_seconds.items()}
    settings = RunSettings.model_validate({"goal_count": 1, "max_rank": 2, "schedule": moments})
    return create_run(service, RunCreate(population="keyboard", bundle=bundle, settings=settings))


def test_run_starts_and_stops_by_its_schedule(service: Service, bundle: str, clock: FakeClock) -> None:
    run_id = scheduled(service, bundle, clock, start_at=60, stop_at=3600)
    states = []
    for seconds in (59, 1, 3539, 1):
        clock.advance(seconds)
        tick(service)
        states.append(run_of(service, run_id).state)
    assert states == [RunState.DRAFT, RunState.RUNNING, RunState.RUNNING, RunState.STOPPED]
    with service.database.read() as session:
        reasons = session.scalars(
            select(TransitionRow.reason).where(TransitionRow.subject_id == run_id)
        ).all()
    assert reasons == ["created", "schedule", "schedule"]


def test_schedule_that_was_missed_while_the_service_was_away_is_kept_at_its_return(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    started = scheduled(service, bundle, clock, start_at=60)
    over = scheduled(service, bundle, clock, start_at=60, stop_at=120)
    clock.advance(86_400)
    tick(service)
    assert run_of(service, started).state is RunState.RUNNING
    assert run_of(service, over).state is RunState.STOPPED


def test_schedule_that_is_over_makes_no_run(service: Service, bundle: str, clock: FakeClock) -> None:
    with pytest.raises(SettingsError, match="stop_at has passed"):
        scheduled(service, bundle, clock, stop_at=0)


def test_operator_is_not_undone_by_a_schedule(service: Service, bundle: str, clock: FakeClock) -> None:
    run_id = scheduled(service, bundle, clock, start_at=60)
    change_run(service, run_id, "start")
    change_run(service, run_id, "pause")
    clock.advance(61)
    tick(service)
    assert run_of(service, run_id).state is RunState.PAUSED


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"stop": {"accuracy": 0.9}}, "stop looks at scores, and evaluation is not given"),
        (
            {"stop": {"abandoned_rounds": 3}, "mode": "buffered"},
            "stop.abandoned_rounds counts attempts at a round",
        ),
        (
            {"schedule": {"start_at": "2026-11-20T12:00:00Z", "stop_at": "2026-11-20T12:00:00Z"}},
            "is not after start_at",
        ),
        ({"schedule": {"start_at": "2026-11-20T12:00:00"}}, "should have timezone"),
    ],
)
def test_rules_that_could_never_hold_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RunSettings.model_validate({"goal_count": 1, "max_rank": 1} | settings)
