"""Evaluations: when they open, who has a part in them, and how they end."""

from __future__ import annotations

import pytest
from evaluation_verbs import (
    REPORT,
    asked,
    commit,
    evaluated_run,
    evaluation_of,
    report,
    run_state,
    state_of,
    taken,
)
from fake_clock import FakeClock
from service_verbs import add_device, started_run, take_offer
from sqlalchemy import func, select

from aggregator_service.assignments.evaluating import fail, start, submit
from aggregator_service.devices.admission import decide
from aggregator_service.rounds.evaluations import figures_of
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow, EvaluationRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.errors import MalformedMessage, NotFound, RankOutOfRange, StateConflict
from hetlora.messages.device import Failure
from hetlora.messages.evaluation import EvaluationReport
from hetlora.messages.fleet import DeviceDecision
from hetlora.states import DeviceState

FAILURE = Failure(code="no_examples", message="none is left")


@pytest.fixture
def devices(service: Service) -> list[str]:
    return [add_device(service, f"device-{number}") for number in range(4)]


def evaluated(service: Service) -> list[str]:
    """The versions that have an evaluation, without the run's id."""
    with service.database.read() as session:
        return [
            name.rsplit("-", 1)[1]
            for name in session.scalars(select(EvaluationRow.id).order_by(EvaluationRow.id))
        ]


def test_versions_of_every_second_round_and_the_last_are_evaluated(service: Service, bundle: str) -> None:
    evaluated_run(service, bundle, rounds=5, every_rounds=2)
    for _ in range(4):
        commit(service, "trainer")
    # Versions count from 1, the round that made them from 0.
    assert evaluated(service) == ["v000002", "v000004", "v000005"]


def test_run_without_evaluation_has_none(service: Service, bundle: str, devices: list[str]) -> None:
    run_id = started_run(service, bundle)
    commit(service, devices[0])
    assert evaluation_of(service, run_id) is None
    assert asked(service, devices[0]).offer is None


def test_figures_are_over_examples_and_over_devices(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = evaluated_run(service, bundle)
    assert (
        report(service, devices[0], EvaluationReport(example_count=30, loss=1.0, correct_count=15)).state
        == "accepted"
    )
    during = evaluation_of(service, run_id)
    assert during is not None
    assert (during.state, during.reports, during.figures) == ("open", 1, None)
    report(service, devices[1], EvaluationReport(example_count=10, loss=2.0, correct_count=9))
    after = evaluation_of(service, run_id)
    assert after is not None
    assert (after.state, after.reason, after.reports) == ("closed", "2 reports are in", 2)
    assert after.figures is not None
    # (30 * 1 + 10 * 2) / 40, (15 + 9) / 40; of devices 1.5 +- 0.5, and (0.5 + 0.9) / 2 +- 0.2.
    assert after.figures.model_dump() == pytest.approx(
        {
            "example_count": 40,
            "loss": 1.25,
            "device_loss": 1.5,
            "device_loss_deviation": 0.5,
            "accuracy": 0.6,
            "device_accuracy": 0.7,
            "device_accuracy_deviation": 0.2,
        }
    )
    with service.database.read() as session:
        kept = select(func.count()).where(EvaluationAssignmentRow.report.is_not(None))
        assert session.scalar(kept) == 0


def test_figures_do_not_depend_on_the_order_of_reports() -> None:
    reports = [EvaluationReport(example_count=count, loss=1 / count) for count in (3, 7, 11, 1_000_000)]
    assert figures_of(reports) == figures_of(reports[::-1])
    assert figures_of(reports).accuracy is None


def test_training_comes_first_and_an_evaluation_for_who_would_wait(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle, rounds=2)
    offers = [asked(service, device, example_count=5).offer for device in devices[:2]]
    assert [offer and offer.kind for offer in offers] == ["train", "evaluate"]


def test_device_that_holds_nothing_out_is_offered_no_evaluation(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle)
    answer = asked(service, devices[0], held_out_count=0, example_count=5)
    assert (answer.offer, answer.reason) == (None, "no run is active")


def test_device_has_one_live_assignment_of_either_kind(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle, rounds=2)
    evaluation = asked(service, devices[0]).offer
    assert evaluation is not None
    again = asked(service, devices[0], example_count=5).offer
    assert again is not None
    assert again.assignment_id == evaluation.assignment_id
    without = asked(service, devices[0], held_out_count=0, example_count=5)
    assert (without.offer, without.reason) == (None, "this device evaluates an adapter")
    training = take_offer(service, devices[1])
    still = asked(service, devices[1], example_count=5).offer
    assert still is not None
    assert (still.kind, still.assignment_id) == ("train", training)


def test_device_evaluates_a_version_once(service: Service, bundle: str, devices: list[str]) -> None:
    evaluated_run(service, bundle, devices=3)
    report(service, devices[0])
    fail(service, devices[1], taken(service, devices[1]), FAILURE)
    assert [asked(service, device).offer for device in devices[:2]] == [None, None]
    assert asked(service, devices[2]).offer is not None


def test_place_that_was_given_back_is_another_devices(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle)
    first, _ = taken(service, devices[0]), taken(service, devices[1])
    assert asked(service, devices[2]).offer is None
    assert fail(service, devices[0], first, FAILURE).reason == "no_examples: none is left"
    assert asked(service, devices[2]).offer is not None


def test_lease_that_ran_out_frees_the_place_and_its_report_comes_too_late(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    run_id = evaluated_run(service, bundle, lease_seconds=60)
    late = taken(service, devices[0])
    clock.advance(60)
    tick(service)
    assert state_of(service, late) == ("expired", "the lease ran out")
    receipt = submit(service, devices[0], late, REPORT)
    assert (receipt.state, receipt.reason) == ("expired", "the lease ran out")
    assert [report(service, device).state for device in devices[1:3]] == ["accepted", "accepted"]
    ended = evaluation_of(service, run_id)
    assert ended is not None
    assert ended.reports == 2


def test_device_whose_lease_ran_out_is_offered_the_next_version(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    evaluated_run(service, bundle, rounds=2, lease_seconds=60)
    taken(service, devices[0])
    clock.advance(30)
    commit(service, "trainer")
    clock.advance(30)
    offer = asked(service, devices[0]).offer
    assert offer is not None
    assert (offer.kind, offer.round_index) == ("evaluate", 1)


def test_window_that_closes_with_too_few_reports_leaves_no_figures(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    run_id = evaluated_run(service, bundle, devices=3)
    report(service, devices[0])
    working = taken(service, devices[1])
    clock.advance(600)
    tick(service)
    ended = evaluation_of(service, run_id)
    assert ended is not None
    assert (ended.state, ended.reports, ended.figures) == ("closed", 1, None)
    assert ended.reason == "report window closed with 1 of 3 reports; 2 needed for figures"
    # No lease reaches beyond the window.
    assert submit(service, devices[1], working, REPORT).state == "expired"
    assert asked(service, devices[2]).offer is None


def test_window_that_closes_with_reports_enough_has_figures(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    run_id = evaluated_run(service, bundle, devices=3)
    report(service, devices[0])
    report(service, devices[1])
    clock.advance(600)
    tick(service)
    ended = evaluation_of(service, run_id)
    assert ended is not None
    assert ended.figures is not None
    assert ended.figures.example_count == 20


def test_stopped_run_ends_its_evaluations(service: Service, bundle: str, devices: list[str]) -> None:
    run_id = evaluated_run(service, bundle, rounds=2)
    working = taken(service, devices[0])
    change_run(service, run_id, "stop")
    ended = evaluation_of(service, run_id)
    assert ended is not None
    assert (ended.state, ended.reason) == ("closed", "run stopped; 2 needed for figures")
    receipt = submit(service, devices[0], working, REPORT)
    assert (receipt.state, receipt.reason) == ("aborted", "evaluation closed: run stopped")


def test_paused_run_takes_reports_and_gives_no_evaluation(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = evaluated_run(service, bundle, rounds=2)
    working = taken(service, devices[0])
    change_run(service, run_id, "pause")
    assert asked(service, devices[1]).offer is None
    assert submit(service, devices[0], working, REPORT).state == "accepted"
    change_run(service, run_id, "resume")
    assert asked(service, devices[1]).offer is not None


def test_completed_run_still_evaluates_its_last_version(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = evaluated_run(service, bundle)
    assert run_state(service, run_id) == "completed"
    assert [report(service, device).state for device in devices[:2]] == ["accepted", "accepted"]


def test_of_two_evaluations_the_one_that_ends_first_is_offered(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    evaluated_run(service, bundle, rounds=2)
    clock.advance(1)
    commit(service, "trainer")
    offered = []
    for _ in range(2):
        offer = asked(service, devices[0]).offer
        assert offer is not None
        offered.append(offer.round_index)
        start(service, devices[0], offer.assignment_id, 1)
        submit(service, devices[0], offer.assignment_id, REPORT)
    assert offered == [0, 1]


def test_same_report_twice_is_counted_once(service: Service, bundle: str, devices: list[str]) -> None:
    run_id = evaluated_run(service, bundle)
    working = taken(service, devices[0])
    first, second = (submit(service, devices[0], working, REPORT) for _ in range(2))
    assert (
        (first.state, first.reason)
        == (second.state, second.reason)
        == ("accepted", "the report is in the evaluation")
    )
    during = evaluation_of(service, run_id)
    assert during is not None
    assert (during.state, during.reports) == ("open", 1)


def test_start_at_one_rank_twice_is_one_plan_of_the_version(
    service: Service, bundle: str, devices: list[str]
) -> None:
    run_id = evaluated_run(service, bundle)
    offer = asked(service, devices[0]).offer
    assert offer is not None
    plans = [start(service, devices[0], offer.assignment_id, rank) for rank in (1, 1, 2)]
    assert plans[0] == plans[1]
    with service.database.read() as session:
        version = session.get_one(EvaluationRow, f"{run_id}-v000001")
    assert version.state == "open"
    assert plans[2].rank == 2
    with pytest.raises(RankOutOfRange):
        start(service, devices[0], offer.assignment_id, 3)


def test_report_out_of_turn_or_of_another_device_is_refused(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle)
    offer = asked(service, devices[0]).offer
    assert offer is not None
    with pytest.raises(StateConflict, match="a started evaluation"):
        submit(service, devices[0], offer.assignment_id, REPORT)
    for verb in (
        lambda: start(service, devices[1], offer.assignment_id, 1),
        lambda: submit(service, devices[1], offer.assignment_id, REPORT),
        lambda: fail(service, devices[1], offer.assignment_id, FAILURE),
    ):
        with pytest.raises(NotFound):
            verb()


def test_report_of_a_classifier_without_right_answers_is_refused(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle)
    working = taken(service, devices[0])
    with pytest.raises(MalformedMessage, match="correct_count"):
        submit(service, devices[0], working, EvaluationReport(example_count=1, loss=0.5))


def test_device_that_is_suspended_loses_its_evaluation(
    service: Service, bundle: str, devices: list[str]
) -> None:
    evaluated_run(service, bundle)
    working = taken(service, devices[0])
    decide(service, devices[0], DeviceDecision(state=DeviceState.SUSPENDED, reason="lost"))
    assert state_of(service, working) == ("aborted", "device is suspended: lost")


def test_adapter_that_was_drawn_for_an_evaluation_is_kept_until_that_is_over(
    service: Service, bundle: str, devices: list[str], clock: FakeClock
) -> None:
    long = 2 * service.settings.keep_orphans_seconds
    evaluated_run(service, bundle, rule="fslora", window_seconds=long, lease_seconds=long)
    offer = asked(service, devices[0]).offer
    assert offer is not None
    plans = [start(service, devices[0], offer.assignment_id, 1) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].adaptation.ranks is not None
    clock.advance(long - 1)
    sweep(service)
    assert service.objects.size_bytes(plans[0].adapter.sha256) is not None
    submit(service, devices[0], offer.assignment_id, REPORT)
    clock.advance(long)  # since it was seen to be needed
    sweep(service)
    assert service.objects.size_bytes(plans[0].adapter.sha256) is None
