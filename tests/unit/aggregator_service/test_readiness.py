"""`GET /internal/v1/ready`: what does not work is named, and nobody waits long for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest
from fake_clock import FakeClock
from pydantic import SecretStr
from service_bundle import make_adapter
from service_operator import TOKEN
from service_server import problem, served
from service_verbs import add_device, deliver, started_run
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from aggregator_service.app import create_app
from aggregator_service.observability.single_flight import SingleFlight
from aggregator_service.readiness import STALLED_SECONDS, STALLED_TICKS
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.worker.claims import claim
from benchmarks.postgresql_server import PostgresqlServer


def refusal(http: httpx.Client) -> str:
    answer = http.get("/internal/v1/ready")
    assert problem(answer) == (503, "unavailable")
    return str(answer.json()["got"])


def test_tables_of_another_revision_are_named(http: httpx.Client, service: Service) -> None:
    with service.database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    assert refusal(http).startswith("database: the tables are of another hetlora; got 9999; expected ")
    assert http.get("/internal/v1/health").is_success


def test_all_parts_that_fail_are_named(http: httpx.Client, service: Service) -> None:
    with service.database.write() as session:
        session.execute(text("DROP TABLE alembic_version"))
    service.objects.root.rename(service.objects.root.with_name("elsewhere"))
    told = refusal(http)
    assert "database: " in told
    assert "object store: " in told
    assert "round worker" not in told


def test_database_that_does_not_answer_is_told_within_seconds(
    postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with postgresql.empty() as url:
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("data"),
            database_url=SecretStr(url),
            port=0,
            operator_token=SecretStr(TOKEN),
            role="api",
        )
        locking = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        with closing(open_service(settings)) as service, served(create_app(service), settings) as http:
            assert http.get("/internal/v1/ready").is_success
            with locking.begin() as connection:
                connection.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
                began = time.monotonic()
                assert refusal(http) == "database: no answer within 1 s"
                assert time.monotonic() - began < 3
            deadline = time.monotonic() + 10
            while not http.get("/internal/v1/ready").is_success:
                assert time.monotonic() < deadline
        locking.dispose()


@pytest.fixture
def rare(settings: Settings, clock: FakeClock) -> Iterator[tuple[Service, httpx.Client]]:
    """A service whose worker has ticked once, and does so again in a week."""
    settings = settings.model_copy(update={"worker_interval_seconds": 7 * 24 * 3600.0})
    with closing(open_service(settings, clock)) as service:
        app = create_app(service)
        with served(app, settings) as client:
            deadline = time.monotonic() + 10
            while app.state.worker.ticked_at is None:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield service, client


def test_worker_without_a_sign_of_life_is_told(rare: tuple[Service, httpx.Client], clock: FakeClock) -> None:
    _, http = rare
    longest = STALLED_TICKS * 7 * 24 * 3600
    assert longest > STALLED_SECONDS
    clock.advance(longest)
    assert http.get("/internal/v1/ready").is_success
    clock.advance(1)
    assert refusal(http).startswith(f"round worker: no sign of life; got the last one {longest + 1} s ago")


def test_worker_may_take_its_time_for_a_round_that_it_holds(
    rare: tuple[Service, httpx.Client], clock: FakeClock, bundle: str
) -> None:
    service, http = rare
    with closing(open_service(service.settings, clock)) as other:  # whose goal met wakes no worker
        started_run(other, bundle)
        deliver(other, add_device(other), make_adapter(2))
    clock.advance(STALLED_TICKS * 7 * 24 * 3600 + 1)
    assert claim(service, set()) is not None
    assert http.get("/internal/v1/ready").is_success
    clock.advance(service.settings.claim_seconds)
    assert refusal(http).startswith("round worker: ")


def test_process_without_a_worker_is_ready_without_one(settings: Settings, clock: FakeClock) -> None:
    settings = settings.model_copy(update={"role": "api"})
    with closing(open_service(settings, clock)) as service, served(create_app(service), settings) as http:
        assert http.get("/internal/v1/ready").is_success


def test_call_that_hangs_is_not_made_again() -> None:
    calls, go_on = [], threading.Event()

    def hang() -> int:
        calls.append(1)
        assert go_on.wait(10)
        return len(calls)

    flight = SingleFlight("hangs", hang)
    first = flight.ask()
    assert flight.ask() is first
    go_on.set()
    assert first.result(10) == 1
    assert flight.ask().result(10) == 2
