"""`GET /internal/v1/metrics`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from prometheus_client import generate_latest
from prometheus_client.registry import CollectorRegistry
from service_bundle import make_adapter
from service_figures import Figures, figure, figures_of, labels_of, parsed
from service_operator import Operator
from service_server import served
from service_verbs import add_device, deliver, started_run
from sqlalchemy import select, text, update
from tus_device import TusDevice

from aggregator_service.app import create_app
from aggregator_service.rounds.closing import give_up
from aggregator_service.rounds.fleet_figures import KEPT_SECONDS, FleetFigures
from aggregator_service.rounds.rounds import open_round_of
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.locks import lock_run
from aggregator_service.storage.tables import RoundRow, RunRow
from aggregator_service.storage.transitions import move
from aggregator_service.worker.claims import claim
from aggregator_service.worker.worker import tick
from hetlora.errors import InputError
from hetlora.states import AssignmentState, DeviceState, RoundState, RunState
from hetlora.tensors import adapter_to_bytes

HEALTH = {"route": "/internal/v1/health", "method": "GET"}


@pytest.fixture
def other(settings: Settings, service: Service, clock: FakeClock) -> Iterator[httpx.Client]:
    """A second process of the same service."""
    with closing(open_service(settings, clock)) as opened, served(create_app(opened), settings) as client:
        yield client


def test_requests_are_counted_by_route_method_and_status(http: httpx.Client) -> None:
    http.get("/internal/v1/health")
    http.get("/internal/v1/health")
    http.post("/internal/v1/health")
    figures = figures_of(http)
    assert figure(figures, "hetlora_http_requests_total", **HEALTH, status="200") == 2
    assert figure(figures, "hetlora_http_request_duration_seconds_count", **HEALTH) == 2
    refused = {"route": "/internal/v1/health", "method": "POST", "status": "405"}
    assert figure(figures, "hetlora_http_requests_total", **refused) == 1
    assert figure(figures, "hetlora_http_requests_in_progress") == 1  # the one that asks


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc; escaping=foo",
        "application/openmetrics-text; version=1.0.x",
        "text/plain; version=1.0.x",
        f"text/plain; version={5000 * '9'}",
        "\xff;q=x",
    ],
)
def test_format_that_nobody_knows_is_answered_in_plain_text(http: httpx.Client, accept: str) -> None:
    answer = http.get("/internal/v1/metrics", headers={"Accept": accept.encode("latin-1")})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert "hetlora_worker_ticks_total" in answer.text


def test_paths_and_methods_that_strangers_make_up_are_one_series(http: httpx.Client) -> None:
    for number in range(5):
        http.get(f"/nowhere/{number}")
        http.request(f"BREW{number}", "/internal/v1/health")
    figures = figures_of(http)
    assert labels_of(figures, "hetlora_http_requests_total", "route") == {"none", "/internal/v1/health"}
    assert labels_of(figures, "hetlora_http_requests_total", "method") == {"GET", "other"}


def test_no_label_holds_the_id_of_a_run_or_a_device(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    told = http.get("/internal/v1/metrics").text
    assert run_id not in told
    assert device.device_id not in told


def test_bytes_of_bodies_are_counted_both_ways(http: httpx.Client, operator: Operator, bundle: str) -> None:
    operator.put(b"x" * 1000)
    manifest = operator.send("GET", f"/bundles/{bundle}/manifest").content
    figures = figures_of(http)
    put = {"route": "/management/v1/objects/{sha256}", "method": "PUT"}
    got = {"route": "/management/v1/bundles/{digest}/manifest", "method": "GET"}
    assert figure(figures, "hetlora_http_received_bytes_total", **put) == 1000
    assert figure(figures, "hetlora_http_sent_bytes_total", **got) == len(manifest)


def test_round_is_told_from_its_offer_to_its_commit(
    http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    run_id = operator.run(bundle)
    device.deliver(make_adapter(2))
    operator.committed(run_id)
    commits = "hetlora_round_commits_total"  # counted a moment after the commit
    operator.wait_for(
        f"/runs/{run_id}", lambda _: figure(figures_of(http), commits, outcome="committed") == 1
    )
    figures = figures_of(http)
    assert figure(figures, "hetlora_update_size_bytes_count") == 1
    assert figure(figures, "hetlora_round_claims_total") == 1
    assert figure(figures, commits, outcome="failed") == 0
    for step in ("read", "aggregate", "store", "write"):
        assert figure(figures, "hetlora_round_commit_step_seconds_count", step=step) == 1
    assert figure(figures, "hetlora_worker_last_tick_timestamp_seconds") == FakeClock().now.timestamp()


def test_every_replica_tells_the_same_counts_of_states(
    http: httpx.Client, other: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle, goal_count=2)
    device.started()
    for client in (http, other):
        figures = figures_of(client)
        assert figure(figures, "hetlora_database_up") == 1
        assert figure(figures, "hetlora_devices", state="accepted") == 1
        assert figure(figures, "hetlora_runs", state="running") == 1
        assert figure(figures, "hetlora_rounds", state="selecting") == 1
        assert figure(figures, "hetlora_assignments", state="downloading") == 1
        assert figure(figures, "hetlora_assignments", state="accepted") == 0


def test_each_process_counts_its_own_requests(http: httpx.Client, other: httpx.Client) -> None:
    http.get("/internal/v1/health")
    assert ("hetlora_http_requests_total", frozenset({**HEALTH, "status": "200"}.items())) in figures_of(http)
    figures_of(other)
    assert labels_of(figures_of(other), "hetlora_http_requests_total", "route") == {"/internal/v1/metrics"}


def test_worker_that_answers_no_devices_tells_its_figures(settings: Settings, clock: FakeClock) -> None:
    settings = settings.model_copy(update={"role": "worker"})
    with closing(open_service(settings, clock)) as service, served(create_app(service), settings) as http:
        deadline = time.monotonic() + 10
        while figure(figures_of(http), "hetlora_worker_ticks_total") == 0:
            assert time.monotonic() < deadline
        assert figure(figures_of(http), "hetlora_rounds", state="selecting") == 0


def test_every_state_has_its_series_before_anything_is_in_it(http: httpx.Client) -> None:
    figures = figures_of(http)
    for name, states in (
        ("hetlora_devices", DeviceState),
        ("hetlora_runs", RunState),
        ("hetlora_rounds", RoundState),
        ("hetlora_assignments", AssignmentState),
    ):
        assert labels_of(figures, name, "state") == {state.value for state in states}


def counted(service: Service, timer: Callable[[], float] = lambda: 0.0) -> Callable[[], Figures]:
    registry = CollectorRegistry()
    registry.register(FleetFigures(service.database, service.clock, timer))
    return lambda: parsed(generate_latest(registry).decode())


def test_abandoned_rounds_are_counted_by_cause_whatever_its_words(
    service: Service, clock: FakeClock, bundle: str
) -> None:
    stopped, late, spoiled = (
        started_run(service, bundle, report_window_seconds=60, lease_seconds=60, goal_count=2)
        for _ in range(3)
    )
    change_run(service, stopped, "stop")
    with service.database.write() as session:
        row = open_round_of(session, late)
        assert row is not None
        row.window_closes_at = clock.now
    clock.advance(1)
    tick(service)
    with service.database.write() as session:
        run = lock_run(session, spoiled)
        row = open_round_of(session, spoiled)
        assert row is not None
        move(session, row, RoundState.AGGREGATING, "test", clock.now)
        give_up(session, run, row, InputError("no adapter"), clock.now)
        session.execute(update(RoundRow).values(reason="put otherwise"))  # as another release may put it
    figures = counted(service)()
    for reason in ("stop", "window", "aggregation"):
        assert figure(figures, "hetlora_rounds_abandoned", reason=reason) == 1
    assert figure(figures, "hetlora_rounds", state="abandoned") == 3


def test_round_is_claimed_for_as_long_as_its_claim_holds(
    service: Service, clock: FakeClock, bundle: str
) -> None:
    started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    assert figure(counted(service)(), "hetlora_rounds_claimed") == 0
    assert claim(service, set()) is not None
    assert figure(counted(service)(), "hetlora_rounds_claimed") == 1
    clock.advance(service.settings.claim_seconds)
    assert figure(counted(service)(), "hetlora_rounds_claimed") == 0
    assert figure(counted(service)(), "hetlora_rounds", state="aggregating") == 1


def test_upload_in_parts_is_open_until_its_last_part(
    service: Service, http: httpx.Client, operator: Operator, device: FakeDevice, bundle: str
) -> None:
    operator.run(bundle)
    data = adapter_to_bytes(make_adapter(2))
    tus = TusDevice(device)
    upload = tus.begun(device.started(), data)
    assert tus.patch(upload, 0, data[:50]).status_code == 204
    assert figure(counted(service)(), "hetlora_uploads_open") == 1
    assert tus.patch(upload, 50, data[50:]).status_code == 204
    assert figure(counted(service)(), "hetlora_uploads_open") == 0
    assert figure(figures_of(http), "hetlora_update_size_bytes_sum") == len(data)


def test_counts_are_kept_for_some_seconds_and_longer_where_counting_takes_long(
    service: Service, bundle: str
) -> None:
    # Each count reads the timer at its begin and its end: the first takes no time, the second one second.
    times = iter([0.0, 0.0, KEPT_SECONDS - 0.1, KEPT_SECONDS, KEPT_SECONDS + 1, KEPT_SECONDS + 20.9])
    ask = counted(service, lambda: next(times))
    assert figure(ask(), "hetlora_runs", state="running") == 0
    started_run(service, bundle)
    assert figure(ask(), "hetlora_runs", state="running") == 0
    assert figure(ask(), "hetlora_runs", state="running") == 1
    started_run(service, bundle)
    assert figure(ask(), "hetlora_runs", state="running") == 1  # 20 times the second that counting took


def test_figures_of_the_process_come_without_the_database(http: httpx.Client, service: Service) -> None:
    with service.database.write() as session:
        session.execute(text("ALTER TABLE assignments RENAME TO elsewhere"))
    figures = figures_of(http)
    assert figure(figures, "hetlora_database_up") == 0
    assert figure(figures, "hetlora_database_pool_size") > 0
    assert "hetlora_devices" not in {name for name, _ in figures}


def test_failed_ticks_and_commits_are_counted(service: Service, bundle: str) -> None:
    started_run(service, bundle)
    deliver(service, add_device(service), make_adapter(2))
    with service.database.write() as session:
        version = session.scalars(select(RunRow.adapter_version)).one()
        sha256 = session.execute(
            text("SELECT sha256 FROM adapter_versions WHERE id = :id"), {"id": version}
        ).scalar_one()
    service.objects.remove(sha256)  # what the round began with
    tick(service)
    assert (
        service.metrics.registry.get_sample_value("hetlora_round_commits_total", {"outcome": "failed"}) == 1
    )


def test_scraper_that_asks_for_openmetrics_gets_it(http: httpx.Client) -> None:
    answer = http.get(
        "/internal/v1/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
