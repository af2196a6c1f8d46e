from __future__ import annotations

import pytest
from fake_device import FakeDevice
from service_bundle import make_adapter
from service_operator import Operator
from sqlalchemy import text

from aggregator_service.rounds.closing import is_due
from aggregator_service.service import Service

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
