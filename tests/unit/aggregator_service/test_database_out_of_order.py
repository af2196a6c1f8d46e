"""A database that takes no writes, or is damaged: told as passing, and the process is not ready."""

from __future__ import annotations

from contextlib import ExitStack

import httpx
import pytest
from damaged_page import damage
from fake_device import FakeDevice
from service_operator import Operator
from service_server import problem
from service_verbs import CHECK_IN
from sqlalchemy.pool import QueuePool

from aggregator_service.revisions import check_pages
from aggregator_service.service import Service, database_url
from aggregator_service.settings import Settings
from benchmarks.postgresql_server import PostgresqlServer
from hetlora.errors import SettingsError

on_sqlite = pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("stage", ["postgresql"], indirect=True)


@on_postgresql
def test_standby_is_told_as_passing_and_is_not_ready(
    postgresql: PostgresqlServer, settings: Settings, http: httpx.Client, operator: Operator
) -> None:
    name = database_url(settings).database
    # What a failover does to those connected: they are cut, and find a server that only reads.
    postgresql.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgresql.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    answer = operator.send("POST", "/populations", json={"name": "camera"})
    assert problem(answer) == (503, "unavailable")
    assert answer.json()["got"].startswith("cannot execute ")
    ready = http.get("/internal/v1/ready")
    assert problem(ready) == (503, "unavailable")
    assert ready.json()["got"].startswith("database: only to be read")


@on_postgresql
def test_request_that_gets_no_connection_is_told_to_come_back(service: Service, operator: Operator) -> None:
    pool = service.database.engine.pool
    assert isinstance(pool, QueuePool)
    with ExitStack() as held:
        for _ in range(pool.size()):
            held.enter_context(service.database.engine.connect())
        answer = operator.send("GET", "/populations")
    assert problem(answer) == (503, "unavailable")
    assert answer.json()["got"].startswith("QueuePool limit of size 8 ")
    assert answer.headers["retry-after"] == "2"
    assert operator.send("GET", "/populations").status_code == 200


@on_sqlite
def test_damaged_page_is_told_as_passing(settings: Settings, request: pytest.FixtureRequest) -> None:
    damage(settings.data_dir / "hetlora.sqlite", "populations")
    answer = request.getfixturevalue("operator").send("GET", "/populations")
    assert problem(answer) == (503, "unavailable")
    assert answer.json()["got"] == "database disk image is malformed"


@on_sqlite
def test_check_in_over_a_damaged_page_is_told_as_passing(
    settings: Settings, service: Service, device: FakeDevice, operator: Operator, bundle: str
) -> None:
    operator.run(bundle)
    service.database.close()  # or connections would go on with the page that they have read
    damage(settings.data_dir / "hetlora.sqlite", "rounds")
    answer = device.send("POST", "/check-ins", CHECK_IN.model_dump(mode="json"))
    assert problem(answer) == (503, "unavailable")
    assert answer.json()["got"] == "database disk image is malformed"


@on_sqlite
def test_damaged_page_is_found_by_reading_all(settings: Settings) -> None:
    check_pages(settings)
    damage(settings.data_dir / "hetlora.sqlite", "devices")
    with pytest.raises(SettingsError, match=r"damaged|malformed"):
        check_pages(settings)
