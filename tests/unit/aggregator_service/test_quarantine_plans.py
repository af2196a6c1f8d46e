"""Screens after thousands of rounds: what is asked of the database does not read whole tables."""

from __future__ import annotations

from many_rows import NUMBERED, analyze, asked_of, multiply, read_whole
from quarantined_rounds import HOSTILE, attacked_run
from service_operator import Operator

from aggregator_service.screens.suspensions import judge_devices
from aggregator_service.service import Service
from aggregator_service.storage.screen_tables import QuarantineRow
from aggregator_service.storage.tables import AssignmentRow, DeviceRow
from aggregator_service.worker.sweep import sweep

COUNT = 3000
GROWN = {"assignments", "quarantines", "devices"}


def test_no_table_that_grows_is_read_as_a_whole(service: Service, operator: Operator, bundle: str) -> None:
    run_id = attacked_run(service, bundle)
    operator.committed(run_id)
    (held,) = operator.items("/quarantine")
    judge_devices(service)
    device = f"'{HOSTILE}-' || number"
    multiply(service, DeviceRow, COUNT, id=device)
    multiply(service, AssignmentRow, COUNT, id=NUMBERED, device_id=device)
    of_assignment = "(SELECT min(id) FROM assignments) || '-' || number"
    old = {"state": "'released'", "dropped": "true", "judged": "true"}
    multiply(service, QuarantineRow, COUNT, id=of_assignment, device_id=device, run_id="one.run_id", **old)
    analyze(service)
    with asked_of(service) as asked:
        sweep(service)
        judge_devices(service)
        operator.call("GET", f"/devices/{HOSTILE}/reputation")
        operator.call("GET", f"/quarantine?device_id={HOSTILE}")
        operator.call("GET", "/quarantine?state=held")
        operator.call("GET", f"/quarantine/{held['assignment_id']}")
    reads = [own for own in asked if own.statement.lstrip().startswith("SELECT")]
    assert len(reads) > 8
    for own in reads:
        assert read_whole(service, own) & GROWN == set(), own.statement
