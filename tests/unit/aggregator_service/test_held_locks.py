"""Somebody keeps a lock: what needs it not goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from fake_clock import FakeClock
from service_bundle import make_adapter
from service_operator import Operator
from service_verbs import add_device, asked, deliver, started_run
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.pool import QueuePool
from waiting import wait_until

from aggregator_service.service import Service, database_url
from aggregator_service.settings import Settings
from aggregator_service.storage.database import Database
from aggregator_service.storage.locks import lock_device
from aggregator_service.storage.schema import MIGRATION_LOCK
from aggregator_service.storage.tables import RankLimitRow, RunRow
from aggregator_service.worker.worker import tick
from hetlora.errors import UnavailableError
from hetlora.states import RunState

on_postgresql = pytest.mark.parametrize("stage", ["postgresql"], indirect=True)
Hold = Callable[[str], AbstractContextManager[None]]


@pytest.fixture
def hold(service: Service) -> Hold:
    """Keeps the lock of a run in a transaction of its own."""

    @contextmanager
    def holding(run_id: str) -> Iterator[None]:
        with service.database.engine.connect() as connection:
            connection.execute(text("SELECT id FROM runs WHERE id = :run FOR UPDATE"), {"run": run_id})
            yield

    return holding


def run_offered_to(service: Service, device_id: str) -> str:
    offer = asked(service, add_device(service, device_id)).offer
    assert offer is not None
    return offer.run_id


def state_of(service: Service, run_id: str) -> RunState:
    with service.database.read() as session:
        return session.get_one(RunRow, run_id).state


@on_postgresql
def test_run_that_somebody_holds_keeps_no_other_from_its_commit(
    service: Service, bundle: str, hold: Hold, clock: FakeClock
) -> None:
    runs = {started_run(service, bundle, lease_seconds=10) for _ in range(2)}
    held = run_offered_to(service, "device-0")
    (free,) = runs - {held}
    deliver(service, add_device(service), make_adapter(2))  # to the run that has a place left
    clock.advance(20)  # beyond the lease of the other
    with hold(held):
        tick(service)
        assert state_of(service, free) is RunState.COMPLETED


@on_postgresql
def test_run_that_somebody_holds_leaves_its_devices_to_the_next_run(
    service: Service, bundle: str, hold: Hold
) -> None:
    runs = {started_run(service, bundle, goal_count=2) for _ in range(2)}
    first = run_offered_to(service, "device-0")
    with hold(first):
        assert {run_offered_to(service, "device-1")} == runs - {first}


@on_postgresql
def test_run_that_somebody_holds_is_not_told_as_absent(service: Service, bundle: str, hold: Hold) -> None:
    with hold(started_run(service, bundle)):
        answer = asked(service, add_device(service))
    assert (answer.offer, answer.reason) == (None, "a run cannot be served now")
    assert answer.retry_after_seconds > 0


@on_postgresql
def test_requests_that_wait_leave_the_worker_its_connections(service: Service, operator: Operator) -> None:
    def ticks() -> float:
        return service.metrics.registry.get_sample_value("hetlora_worker_ticks_total") or 0

    def ask(_number: int) -> int:
        return operator.send("GET", "/populations").status_code

    asked_at_once, pool = 16, service.database.engine.pool
    assert isinstance(pool, QueuePool)
    with service.database.engine.connect() as holding, ThreadPoolExecutor(asked_at_once) as asking:
        holding.execute(text("LOCK TABLE populations"))
        answers = [asking.submit(ask, number) for number in range(asked_at_once)]
        wait_until(lambda: pool.checkedout() >= pool.size() - 1)  # all that requests have, and this one
        before = ticks()
        wait_until(lambda: ticks() >= before + 2)
        assert not all(answer.done() for answer in answers)
        holding.rollback()
        assert {answer.result() for answer in answers} <= {200, 503}  # which waiting for long is told


@on_postgresql
def test_device_that_is_given_work_holds_up_no_commit_that_names_it(service: Service, bundle: str) -> None:
    run_id, device_id = started_run(service, bundle), add_device(service)
    with service.database.write() as giving:
        lock_device(giving, device_id)
        with service.database.write() as committing:
            committing.add(RankLimitRow(run_id=run_id, device_id=device_id, max_rank=1))


@on_postgresql
def test_postgresql_is_asked_to_free_the_locks_of_who_stands_still_for_a_minute(service: Service) -> None:
    with service.database.read() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "1min"


@on_postgresql
def test_process_that_starts_waits_for_another_that_migrates(service: Service, settings: Settings) -> None:
    with service.database.engine.connect() as migrating, ThreadPoolExecutor(1) as starting:
        migrating.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        url = database_url(settings)
        opened = starting.submit(Database, url, timeout_seconds=0.2, connections=2)
        with pytest.raises(TimeoutError):
            opened.result(timeout=1)  # five times what it waits for any other lock
        migrating.rollback()
        opened.result(timeout=20).close()


def test_write_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    url = URL.create("sqlite", database=str(tmp_path / "database.sqlite"))
    database = Database(url, timeout_seconds=0.1, connections=2)
    refused = threading.Event()

    def write() -> None:
        told = "others wrote to the database for too long"
        with pytest.raises(UnavailableError, match=told), database.write():
            pass
        refused.set()

    with database.write():
        waiting = threading.Thread(target=write)
        waiting.start()
        waiting.join()
    assert refused.is_set()
    with database.write():
        pass
    database.close()
