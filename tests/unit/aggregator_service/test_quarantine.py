"""Screens in the service: an odd update goes into quarantine, its round goes on, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing

import pytest
from fake_clock import FakeClock
from fake_device import report_of
from mortal_service import count_steps, live_and_die
from quarantined_rounds import HONEST, HOSTILE, attacked_run, honest_run, stand_of, update
from service_objects import kept_updates
from service_verbs import add_device, asked, deliver, take_offer, upload
from sqlalchemy import select

from aggregator_service.aggregation.screens import Finding
from aggregator_service.assignments.assignments import submit
from aggregator_service.rounds.runs import change_run
from aggregator_service.screens.quarantine import keep_apart
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.screen_tables import QuarantineRow, ScreenPassRow
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RunRow
from aggregator_service.worker.accepted import accepted_of
from aggregator_service.worker.screening import quarantine, unjudged_of
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.digest import sha256_of
from hetlora.messages.device import Report
from hetlora.states import QuarantineState
from hetlora.tensors import adapter_to_bytes

CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
HOSTILE_BYTES = adapter_to_bytes(update(99, 100.0))


def quarantined(service: Service) -> QuarantineRow:
    with service.database.read() as session:
        return session.scalars(select(QuarantineRow)).one()


def newest_bytes(service: Service) -> bytes:
    with service.database.read() as session:
        newest = select(AdapterVersionRow.sha256).order_by(AdapterVersionRow.id.desc())
        return service.objects.read(str(session.scalars(newest).first()))


def test_odd_update_is_taken_out_and_the_round_commits_without_it(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    tick(service)
    assert stand_of(service, run_id).rounds == [(f"{run_id}-000000-0000", "aggregating")]
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds == [(f"{run_id}-000000-0000", "committed")]
    assert stand.quarantined == [HOSTILE]
    state, reason, weight = stand.assignments.pop(HOSTILE)
    assert (state, weight) == ("discarded", None)
    assert reason.startswith("quarantined: norm ")
    assert "the cohort's median" in reason
    assert {state for state, _, _ in stand.assignments.values()} == {"accepted"}
    assert sum(weight or 0 for _, _, weight in stand.assignments.values()) == pytest.approx(1)


def test_result_is_that_of_the_honest_devices_alone_to_the_bit(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    results = []
    for hostile in (True, False):
        with copy_of(settings) as own, closing(open_service(own, clock)) as service:
            attacked_run(service, bundle, hostile, goal_count=HONEST + hostile)
            tick(service)
            tick(service)
            results.append(newest_bytes(service))
    assert results[0] == results[1]


def test_quarantine_keeps_the_update_and_the_figures_of_its_reason(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    tick(service)
    row = quarantined(service)
    assert (row.state, row.run_id, row.device_id) == (QuarantineState.HELD, run_id, HOSTILE)
    assert (row.screen, row.sha256) == ("norm", sha256_of(HOSTILE_BYTES))
    assert row.figures["value"] > row.figures["limit"] > row.figures["median"] > 0
    assert service.quarantined(row.id).read(row.sha256) == HOSTILE_BYTES


def test_update_of_the_opposite_direction_is_taken_out(service: Service, bundle: str) -> None:
    run_id = honest_run(service, bundle)
    deliver(service, add_device(service, HOSTILE), update(99, sign=-1.0))
    tick(service)
    tick(service)
    assert stand_of(service, run_id).rounds == [(f"{run_id}-000000-0000", "committed")]
    assert quarantined(service).screen == "direction"


def test_update_with_a_loss_that_nobody_can_have_had_is_taken_out(service: Service, bundle: str) -> None:
    run_id = honest_run(service, bundle)
    own = update(99)
    assignment_id = take_offer(service, add_device(service, HOSTILE))
    upload(service, HOSTILE, assignment_id, own)
    submit(service, HOSTILE, assignment_id, Report.model_validate(report_of(own) | {"first_loss": 1e-9}))
    tick(service)
    tick(service)
    assert stand_of(service, run_id).rounds == [(f"{run_id}-000000-0000", "committed")]
    row = quarantined(service)
    assert (row.screen, row.finding) == (
        "loss",
        "first loss 1e-06, the cohort's median 0.75, at least 0.03734",
    )


def test_of_two_workers_at_a_round_one_takes_its_updates_out(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    round_id = f"{run_id}-000000-0000"
    with service.database.read() as session:
        accepted = accepted_of(session, round_id)
    odd = {own.id: Finding("norm", "norm", 9.0, 1.0, 2.0) for own in accepted if own.device_id == HOSTILE}
    assert quarantine(service, round_id, accepted, odd)
    assert not quarantine(service, round_id, accepted, odd)
    assert stand_of(service, run_id).quarantined == [HOSTILE]


def test_round_that_was_stopped_meanwhile_puts_nothing_into_quarantine(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    round_id = f"{run_id}-000000-0000"
    with service.database.read() as session:
        accepted = accepted_of(session, round_id)
    change_run(service, run_id, "stop")
    odd = {own.id: Finding("norm", "norm", 9.0, 1.0, 2.0) for own in accepted if own.device_id == HOSTILE}
    assert not quarantine(service, round_id, accepted, odd)
    assert stand_of(service, run_id).quarantined == []


def test_run_without_screens_merges_it(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle, screens=None)
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds == [(f"{run_id}-000000-0000", "committed")]
    assert stand.quarantined == []


def test_update_of_the_trusted_device_is_never_taken_out(service: Service, bundle: str) -> None:
    add_device(service, "device-trusted")
    defence = {"method": "fltrust", "trusted_device": "device-trusted"}
    run_id = attacked_run(service, bundle, defence=defence, goal_count=7)
    deliver(service, "device-trusted", update(7, 300.0))
    tick(service)
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds == [(f"{run_id}-000000-0000", "committed")]
    assert stand.quarantined == [HOSTILE]
    assert stand.assignments["device-trusted"][0] == "accepted"


def test_round_with_too_few_left_collects_again_without_that_device(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle, minimum_share=1.0)
    tick(service)
    (found,) = stand_of(service, run_id).rounds
    assert found[1] == "collecting"
    answer = asked(service, HOSTILE)
    assert (answer.offer, answer.reason) == (None, "this device's update of the round was taken out of it")
    deliver(service, add_device(service, "device-6"), update(6))
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds == [(found[0], "committed")]
    assert stand.quarantined == [HOSTILE]


def test_buffered_run_goes_on_with_what_is_left(service: Service, bundle: str) -> None:
    run_id = attacked_run(
        service, bundle, mode="buffered", rule="residual_exact", minimum_share=1.0, rounds=2
    )
    tick(service)
    first, second = stand_of(service, run_id).rounds
    assert (first[1], second[1]) == ("abandoned", "collecting")
    deliver(service, add_device(service, "device-6"), update(6))
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds[1] == (second[0], "committed")
    assert stand.quarantined == [HOSTILE]


def test_hostile_devices_that_come_one_by_one_never_become_the_majority(
    service: Service, bundle: str
) -> None:
    run_id = attacked_run(service, bundle, minimum_share=1.0)
    for number in range(7):
        tick(service)
        device_id = add_device(service, f"{HOSTILE}-{number}")
        deliver(service, device_id, update(100 + number, 100.0))
    tick(service)
    deliver(service, add_device(service, "device-6"), update(6))
    tick(service)
    stand = stand_of(service, run_id)
    assert stand.rounds == [(f"{run_id}-000000-0000", "committed")]
    assert len(stand.quarantined) == 8
    assert all(device_id.startswith(HOSTILE) for device_id in stand.quarantined)


def test_updates_that_passed_are_not_judged_by_what_is_left(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    tick(service)
    with service.database.read() as session:
        passed = set(session.scalars(select(ScreenPassRow.assignment_id)))
        round_id = f"{run_id}-000000-0000"
        accepted = accepted_of(session, round_id)
        assert unjudged_of(session, session.get_one(RunRow, run_id).settings, round_id, accepted) == set()
    assert passed == {own.id for own in accepted}
    assert len(passed) == HONEST


def test_lost_update_in_quarantine_holds_nobody_up(service: Service, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    tick(service)
    row = quarantined(service)
    service.updates(f"{run_id}-000000-0000").remove(row.sha256)
    tick(service)
    assert stand_of(service, run_id).rounds == [(f"{run_id}-000000-0000", "committed")]


def test_sweep_keeps_quarantined_updates_for_as_long_as_is_set(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    attacked_run(service, bundle)
    tick(service)
    tick(service)
    row = quarantined(service)
    clock.advance(service.settings.keep_updates_seconds)
    sweep(service)
    assert kept_updates(service) == []
    assert service.quarantined(row.id).read(row.sha256) == HOSTILE_BYTES
    clock.advance(service.settings.keep_quarantined_seconds)
    sweep(service)
    assert service.quarantined(row.id).size_bytes(row.sha256) is None
    assert quarantined(service).dropped


def test_copy_that_came_into_no_quarantine_is_swept_once_its_round_is_over(
    service: Service, bundle: str
) -> None:
    run_id = attacked_run(service, bundle, screens=None)
    with service.database.read() as session:
        mine = select(AssignmentRow).where(AssignmentRow.device_id == HOSTILE)
        assignment = session.scalars(mine).one()
    assert keep_apart(service, assignment)  # and the process dies
    sweep(service)
    assert service.quarantined(assignment.id).size_bytes(str(assignment.update_sha256)) is not None
    tick(service)
    assert stand_of(service, run_id).rounds[0][1] == "committed"
    sweep(service)
    assert service.quarantined(assignment.id).size_bytes(str(assignment.update_sha256)) is None


@pytest.mark.slow
def test_quarantine_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        run_id = attacked_run(service, bundle)
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, [tick, tick, sweep])
    assert steps > 10
    results = set()
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, [tick, tick, sweep], last)
            with closing(open_service(alone, clock)) as service:
                tick(service)  # for a death in the second, which the third action does not make up for
                stand = stand_of(service, run_id)
                assert stand.rounds == [(f"{run_id}-000000-0000", "committed")]
                assert stand.quarantined == [HOSTILE]
                row = quarantined(service)
                assert service.quarantined(row.id).read(row.sha256) == HOSTILE_BYTES
                results.add(newest_bytes(service))
    assert len(results) == 1
