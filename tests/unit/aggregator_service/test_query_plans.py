from __future__ import annotations

from datetime import timedelta

import pytest
from evaluation_verbs import first_round, taken
from fake_clock import FakeClock
from fake_device import FakeDevice
from many_rows import (
    DIGEST,
    NUMBERED,
    add_objects,
    add_versions,
    analyze,
    asked_of,
    multiply,
    read_whole,
    steps_of,
)
from rollout_verbs import asked as ask
from rollout_verbs import made_versions, offered, running, told
from service_bundle import make_adapter
from service_operator import Operator
from service_verbs import add_device, deliver, hand_in, started_run, take_offer
from sqlalchemy import text, update

from aggregator_service.assignments.assignments import note_fetch
from aggregator_service.rollouts.rollouts import change_rollout
from aggregator_service.rounds.closing import is_due
from aggregator_service.service import Service
from aggregator_service.storage.evaluation_tables import EvaluationAssignmentRow
from aggregator_service.storage.rollout_tables import RolloutDeviceRow, RolloutRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow, RoundRow
from aggregator_service.worker.sweep import sweep
from aggregator_service.worker.worker import tick

ENDED = """
INSERT INTO assignments
SELECT (jsonb_populate_record(one, jsonb_build_object('id', one.id || number))).*
FROM assignments one, generate_series(1, 5000) number
"""
READ = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'assignments'"


@pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
def test_looking_for_lapsed_leases_reads_no_ended_assignments(
    service: Service, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle, goal_count=2)
    device.deliver(make_adapter(2))
    with service.database.write() as session:
        session.execute(text(ENDED))
    with service.database.write() as session:
        session.execute(text("ANALYZE assignments"))
    with service.database.write() as session:
        # A connection tells what it read once a second at most: its earlier work may still be counted.
        before = session.scalar(text(READ))
        # More often than psycopg asks before it prepares a statement (5), and PostgreSQL plans it anew (5).
        found = [is_due(session, run_id, service.clock()) for _ in range(30)]
        assert not any(found)
        assert session.scalar(text(READ)) == before


def grow(service: Service, count: int) -> None:
    """Add so many rounds, assignments, parts in evaluations and objects, nine tenths of them long over."""
    multiply(service, RoundRow, count, id=NUMBERED, updates_dropped=f"number <= {count * 0.9}")
    with service.database.write() as session:
        newer = update(RoundRow).where(RoundRow.updates_dropped.is_(False))
        session.execute(newer.values(ended_at=service.clock() + timedelta(days=29)))
    round_id = "one.round_id || '-' || number"
    sent = DIGEST.format("d")
    multiply(service, AssignmentRow, count, id=NUMBERED, round_id=round_id, adapter_sha256=sent)
    taken(service, add_device(service, "device-2"))
    multiply(service, DeviceRow, count, id=NUMBERED)
    device = "(SELECT min(id) FROM devices) || '-' || number"
    multiply(service, EvaluationAssignmentRow, count, id=NUMBERED, device_id=device, state="'expired'")
    take_offer(service, add_device(service, "device-3"), 1)


@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_visit_takes_sqlite_no_more_steps_after_thousands_of_updates(service: Service, bundle: str) -> None:
    started_run(service, bundle, goal_count=10, rounds=10)
    deliver(service, add_device(service, "device-1"), make_adapter(2))

    def visit(device_id: str) -> None:
        assignment_id = take_offer(service, add_device(service, device_id))
        with service.database.read() as session:
            sent = session.get_one(AssignmentRow, assignment_id).adapter_sha256
        note_fetch(service, device_id, str(sent))
        hand_in(service, device_id, assignment_id, make_adapter(2, 2.0))

    with steps_of(service) as after_one:
        visit("device-2")
    multiply(service, RoundRow, 2000, id=NUMBERED, state="'committed'", round_index="-number")
    of_rounds = "one.round_id || '-' || number"
    multiply(service, AssignmentRow, 2000, id=NUMBERED, round_id=of_rounds, offered_in=of_rounds)
    with steps_of(service) as after_thousands:
        visit("device-3")
    assert 0 < after_thousands() < 2 * after_one()


@pytest.mark.slow
def test_sweep_reads_no_table_that_grows_as_a_whole(service: Service, bundle: str, clock: FakeClock) -> None:
    first_round(service, bundle)
    add_versions(service, 100_000)
    for letter in "abc":
        add_objects(service, letter, 20_000)
    grow(service, 20_000)
    analyze(service)
    clock.advance(30 * 86_400)
    with asked_of(service) as asked:
        sweep(service)
    tables = ("objects", "adapter_versions", "assignments", "rounds", "evaluation_assignments", "transitions")
    assert len(asked) > 10
    for own in asked:
        if own.statement.startswith(("SELECT", "UPDATE", "DELETE")):
            assert not read_whole(service, own).intersection(tables), own.statement[-1500:]


@pytest.mark.slow
def test_check_in_that_can_adopt_reads_no_table_of_rollouts_as_a_whole(service: Service, bundle: str) -> None:
    version = made_versions(service, bundle)[1]
    rollout_id = running(service, version)
    told(service, add_device(service, "device-1"))
    change_rollout(service, rollout_id, "stop")
    multiply(service, RolloutRow, 2000, id=NUMBERED)
    devices = "(SELECT min(id) FROM devices) || '-' || number"
    multiply(service, DeviceRow, 20_000, id=NUMBERED)
    multiply(service, RolloutDeviceRow, 20_000, id=NUMBERED, device_id=devices)
    running(service, version)
    told(service, add_device(service, "device-2"))
    analyze(service)
    with asked_of(service) as asked:
        assert ask(service, "device-2").offer is None  # it has answered
        assert offered(service, add_device(service, "device-3"))
    with asked_of(service) as by_rows:
        tick(service)
    for own in (*asked, *by_rows):
        if own.statement.startswith(("SELECT", "UPDATE")):
            read = read_whole(service, own)
            assert not read.intersection(("rollouts", "rollout_devices", "devices")), own.statement[-1500:]
