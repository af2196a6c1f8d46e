"""What versions gave to devices goes once no device can ask for it, and nobody misses it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from evaluation_verbs import EVALUATION, REPORT
from evaluation_verbs import asked as asked_to_evaluate
from fake_clock import FakeClock
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from service_bundle import make_adapter, random_adapter
from service_operator import Operator
from service_verbs import add_device, asked, deliver, hand_in, started_run, take_offer
from sqlalchemy import delete, select

from aggregator_service.artifacts.handouts import handout
from aggregator_service.assignments import evaluating
from aggregator_service.assignments.assignments import start
from aggregator_service.needed_objects import check_needed_objects
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service
from aggregator_service.storage.tables import AdapterVersionRow, HandoutRow, RoundRow
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick
from hetlora.messages.device import Plan
from hetlora.states import AssignmentState, RoundState

MONTH = 30 * 86_400.0
BUFFERED = {
    **{"mode": "buffered", "rule": {"name": "residual_exact"}, "rounds": 3, "over_selection": 3.0},
    **{"lease_seconds": MONTH, "report_window_seconds": MONTH},
}
QUICK, LATE, LATER = "device-1", "device-2", "device-3"


def handed_out(service: Service) -> list[tuple[str, int]]:
    """The last digit of each version that has handouts, and their ranks."""
    with service.database.read() as session:
        rows = session.scalars(select(HandoutRow).order_by(HandoutRow.version, HandoutRow.rank))
        return [(row.version[-1], row.rank) for row in rows]


def is_there(service: Service, plan: Plan) -> bool:
    """Whether all that a plan names is in the store."""
    refs = [plan.adapter] if plan.frozen is None else [plan.adapter, plan.frozen]
    return all(service.objects.size_bytes(ref.sha256) == ref.size_bytes for ref in refs)


def test_handouts_go_with_the_next_version_and_with_the_end_of_the_run(service: Service, bundle: str) -> None:
    started_run(service, bundle, rounds=2)
    device_id = add_device(service)
    deliver(service, device_id, make_adapter(1))
    sweep(service)
    assert handed_out(service) == [("0", 1)]
    tick(service)
    sweep(service)
    assert handed_out(service) == []
    deliver(service, device_id, make_adapter(2))
    sweep(service)
    assert handed_out(service) == [("1", 2)]
    assert check_needed_objects(service.settings) == 1
    tick(service)
    sweep(service)
    assert handed_out(service) == []


def test_handouts_of_a_run_that_pauses_stay_and_those_of_one_that_is_stopped_go(
    service: Service, bundle: str
) -> None:
    run_id = started_run(service, bundle, rounds=2)
    take_offer(service, add_device(service), 1)
    change_run(service, run_id, "pause")
    sweep(service)
    assert handed_out(service) == [("0", 1)]
    change_run(service, run_id, "stop")
    sweep(service)
    assert handed_out(service) == []


def test_late_devices_of_a_buffered_run_still_get_their_plans(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    started_run(service, bundle, **BUFFERED)
    for device_id in (QUICK, LATE, LATER):
        add_device(service, device_id)
    offer = asked(service, LATER).offer
    assert offer is not None
    late = take_offer(service, LATE, 1)
    plan = start(service, LATE, late, 1)
    deliver(service, QUICK, random_adapter(2, seed=1))
    tick(service)
    for _ in range(3):
        clock.advance(2 * 86_400)
        sweep(service)
    assert handed_out(service) == [("0", 1), ("0", 2)]
    assert start(service, LATE, late, 1) == plan
    assert start(service, LATER, offer.assignment_id, 1).adapter == plan.adapter
    assert is_there(service, plan)
    for device_id, assignment_id in ((LATE, late), (LATER, offer.assignment_id)):
        update = random_adapter(1, seed=2)
        assert hand_in(service, device_id, assignment_id, update).state is AssignmentState.ACCEPTED
        tick(service)
        sweep(service)
    assert handed_out(service) == []


def test_round_commits_from_what_devices_were_sent_after_its_handouts_went(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    started_run(service, bundle, **BUFFERED)
    late = take_offer(service, add_device(service, LATE), 1)
    deliver(service, add_device(service, QUICK), random_adapter(2, seed=1))
    assert hand_in(service, LATE, late, random_adapter(1, seed=2)).state is AssignmentState.ACCEPTED
    with service.database.read() as session:
        first = session.scalars(select(RoundRow.id).order_by(RoundRow.id)).first()
    commit_round(service, str(first))
    for _ in range(10):
        clock.advance(2 * 86_400)
        sweep(service)
    assert handed_out(service) == []
    tick(service)
    with service.database.read() as session:
        ended = session.scalars(select(RoundRow.state).order_by(RoundRow.id)).all()
        counts = session.scalars(select(AdapterVersionRow.update_count)).all()
    assert ended[:2] == [RoundState.COMMITTED] * 2
    assert sorted(counts) == [0, 1, 1]


def test_handouts_stay_for_as_long_as_an_evaluation_gives_their_version_out(
    service: Service, bundle: str
) -> None:
    started_run(service, bundle, rounds=3, evaluation=EVALUATION | {"every_rounds": 3})
    add_device(service, QUICK)
    for _ in range(3):
        deliver(service, QUICK, make_adapter(2))
        tick(service)
    sweep(service)
    assert handed_out(service) == []  # the run is over, and nobody has come to evaluate
    first, second = (add_device(service, device_id) for device_id in (LATE, LATER))
    for device_id in (first, second):
        plan = take_evaluation(service, device_id)
        sweep(service)
        assert handed_out(service) == [("3", 1)]
        assert take_evaluation(service, device_id) == plan
        evaluating.submit(service, device_id, plan.assignment_id, REPORT)
    sweep(service)
    assert handed_out(service) == []


def test_bytes_of_a_handout_stay_a_day_after_its_row_for_whoever_restores_the_database(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    day = service.settings.keep_orphans_seconds
    long = {"window_seconds": 3 * day, "lease_seconds": 3 * day}
    started_run(service, bundle, evaluation=EVALUATION | long)
    deliver(service, add_device(service, QUICK), make_adapter(2))
    tick(service)
    first, second = (add_device(service, device_id) for device_id in (LATE, LATER))
    plan = take_evaluation(service, first)
    assert take_evaluation(service, second).adapter == plan.adapter
    clock.advance(2 * day)
    for device_id in (first, second):
        offer = asked_to_evaluate(service, device_id).offer
        assert offer is not None
        evaluating.submit(service, device_id, offer.assignment_id, REPORT)
    sweep(service)
    assert handed_out(service) == []
    clock.advance(day)
    sweep(service)
    assert is_there(service, plan)
    clock.advance(1)
    sweep(service)
    assert not is_there(service, plan)


def take_evaluation(service: Service, device_id: str) -> Plan:
    offer = asked_to_evaluate(service, device_id).offer
    assert offer is not None
    return evaluating.start(service, device_id, offer.assignment_id, 1)


@pytest.mark.parametrize("rule", ["hetlora", "flora", "flasc", "fed_sb", "residual_exact"])
def test_handout_is_made_again_to_the_same_bytes(
    operator: Operator, make_device: Callable[[int], FakeDevice], service: Service, rule: str
) -> None:
    run_id = operator.run(operator.publish(SPEC), rounds=2, goal_count=2, rule=rule, max_rank=RANK)
    for number in (1, 2):
        work(make_device(number), RANK, seed=number)
    version = operator.committed(run_id)["adapter_version"]
    made = {
        rank: handout(service, version, rank, seed=1) for rank in (1, 2, 3)
    }  # at RANK, some are the version itself
    with service.database.write() as session:
        found = session.execute(
            delete(HandoutRow).where(HandoutRow.version == version).returning(HandoutRow.rank)
        )
        assert sorted(found.scalars()) == [1, 2, 3]
    for own in made.values():
        service.objects.remove(own.adapter.sha256)
    for rank, own in made.items():
        assert handout(service, version, rank, seed=2) == own
        assert service.objects.size_bytes(own.adapter.sha256) == own.adapter.size_bytes
    for rank, own in made.items():  # their rows are there again
        for ref in filter(None, (own.adapter, own.frozen)):
            file = service.objects.path(ref.sha256)
            file.write_bytes(file.read_bytes()[:-1])
            assert handout(service, version, rank, seed=3) == own
            assert service.objects.size_bytes(ref.sha256) == ref.size_bytes
