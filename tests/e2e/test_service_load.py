"""A fleet in processes of its own against a real service; and what its account would say of a loss."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from benchmarks.service.load import LoadPlan, LoadRow, measure, reconciled

pytestmark = pytest.mark.slow

# Two rounds of three, three devices from each generator.
PLAN = LoadPlan("sqlite", ("api", "worker"), devices=6, features=8, goal_count=3, concurrency=4, generators=2)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadRow, Path]:
    folder = tmp_path_factory.mktemp("load") / "stage"
    return asyncio.run(measure(PLAN, folder)), folder / "data" / "hetlora.sqlite"


def test_every_device_is_in_one_round(measured: tuple[LoadRow, Path]) -> None:
    row, _ = measured
    assert (row.rounds, row.accepted, row.told_accepted, row.lost, row.doubled) == (2, 6, 6, 0, 0)
    assert row.adapter_bytes == 128 * 8  # 4 layers x rank 4 x (8 + 8) numbers of 4 bytes
    assert len(row.peak_rss_bytes) == 2
    assert {name: step["requests"] for name, step in row.by_step.items() if name != "check_in"} == {
        "start": 6,
        "download": 6,
        "upload": 6,
        "submit": 6,
    }
    assert row.requests == 24 + row.by_step["check_in"]["requests"]
    assert all(0 < step["p50_ms"] <= step["p99_ms"] for step in row.by_step.values())


def test_update_that_is_in_no_committed_round_is_counted_as_lost(measured: tuple[LoadRow, Path]) -> None:
    _, file = measured
    engine = create_engine(f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as database:
        run_id = str(database.execute("SELECT id FROM runs").fetchone()[0])
        before = reconciled(engine, run_id)
        database.execute("UPDATE rounds SET state = 'abandoned' WHERE round_index = 0")
        database.commit()
    after = reconciled(engine, run_id)
    engine.dispose()
    assert before == {"accepted": 6, "devices": 6, "rounds": 2, "merged": 6}
    assert after == {"accepted": 3, "devices": 3, "rounds": 1, "merged": 6}
